"""The data elements that are used of a DICOM object written as XML or JSON.

In: the attributes of such a document, as its parser finds them. Out: the object as a dict of values by keyword, which
`ecgfounder.readers.dicom.recording_of` reads. Elements that are not used here are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.base64_data import decoded
from ecgfounder.readers.xml import number

_BINARY = ("OB", "OW")
_NUMERIC = ("DS", "IS", "FL", "FD", "SL", "SS", "UL", "US")
_DEEPEST = 8  # the objects themselves have four levels
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"


class Element(NamedTuple):
    """An element's keyword, and the value representations that the standard allows."""

    keyword: str
    representations: tuple[str, ...]


def _by_tag(*lines: str) -> dict[str, Element]:
    tags = {keyword: tag_for_keyword(keyword) for line in lines for keyword in line.split()}
    return {
        f"{tag:08X}": Element(keyword, tuple(dictionary_VR(tag).split(" or ")))
        for keyword, tag in tags.items()
        if tag is not None
    }


OF_RECORDING = _by_tag(
    "TransferSyntaxUID SOPClassUID Manufacturer ManufacturerModelName SoftwareVersions",
    "WaveformSequence MultiplexGroupTimeOffset WaveformOriginality NumberOfWaveformChannels NumberOfWaveformSamples",
    "SamplingFrequency MultiplexGroupLabel WaveformBitsAllocated WaveformSampleInterpretation",
    "WaveformPaddingValue WaveformData",
    "ChannelDefinitionSequence ChannelLabel ChannelSourceSequence CodeValue CodeMeaning ChannelSensitivity",
    "ChannelSensitivityUnitsSequence ChannelSensitivityCorrectionFactor ChannelBaseline ChannelSampleSkew",
    "WaveformBitsStored FilterLowFrequency FilterHighFrequency NotchFilterFrequency",
)
OF_STATEMENTS = _by_tag(
    "WaveformAnnotationSequence UnformattedTextValue ConceptNameCodeSequence CodeMeaning NumericValue"
)


@dataclass(frozen=True)
class Attribute:
    """One attribute as a document holds it.

    Attributes
    ----------
    representation : str
        The value representation (VR).
    values : list
        Texts and numbers; None where a value is empty.
    items : list
        What the parser knows the items of a sequence by.
    inline : str or None
        Base64.
    is_elsewhere : bool
        Whether the document only says where the value is (BulkData).
    """

    representation: str
    values: list[Any]
    items: list[Any]
    inline: str | None = None
    is_elsewhere: bool = False


class Form(NamedTuple):
    """How a kind of document holds attributes.

    Attributes
    ----------
    places : callable
        Gives the tag, eight hexadecimal digits, and the place of each attribute of an object.
    attribute : callable
        Gives the attribute at such a place.
    """

    places: Callable[[Any], Iterable[tuple[str, Any]]]
    attribute: Callable[[Any], Attribute]


def object_of(root: Any, form: Form, elements: Mapping[str, Element]) -> dict[str, Any]:
    """A DICOM object: its values by keyword.

    Parameters
    ----------
    root : any
        The object's place in the document.
    form : Form
        The kind of document.
    elements : mapping of str to Element
        The elements to take, by tag: `OF_RECORDING` or `OF_STATEMENTS`.

    Raises
    ------
    ReadError
        If an element that is used occurs twice, has another value representation than the standard's, or a value that
        its representation does not allow; if sequences are nested too deep.
    UnsupportedFormatError
        If a value is not in the document, or the byte order of binary values is not certain.
    """
    found = _object(root, form, elements, 0)
    if found.get("TransferSyntaxUID") == _EXPLICIT_BIG:
        raise UnsupportedFormatError("expected a little-endian transfer syntax, found the big-endian one")
    return found


def _object(node: Any, form: Form, elements: Mapping[str, Element], depth: int) -> dict[str, Any]:
    if depth > _DEEPEST:
        raise ReadError("the sequences are nested too deep")
    found: dict[str, Any] = {}
    for tag, place in form.places(node):
        element = elements.get(tag.upper())
        if element is None:
            continue
        keyword, attribute = element.keyword, form.attribute(place)
        if keyword in found:
            raise ReadError(f"{keyword} occurs twice")
        _check(attribute, element)
        if attribute.representation == "SQ":
            found[keyword] = [_object(item, form, elements, depth + 1) for item in attribute.items]
        elif attribute.representation in _BINARY:
            found[keyword] = decoded(attribute.inline or "", keyword)
        else:
            found[keyword] = _value(attribute, keyword)
    return found


def _check(attribute: Attribute, element: Element) -> None:
    keyword = element.keyword
    if attribute.representation not in element.representations:
        expected = " or ".join(element.representations)
        raise ReadError(f"{keyword}: expected the value representation {expected}, found another")
    if attribute.is_elsewhere:
        raise UnsupportedFormatError(
            f"{keyword} is not in this file, which only names a place elsewhere (BulkData); give the DICOM object itself"
        )


def _value(attribute: Attribute, keyword: str) -> Any:
    """The element's value, a list where there are several, None where there is none."""
    convert = _number if attribute.representation in _NUMERIC else _text
    values = [convert(value, keyword) for value in attribute.values if value not in (None, "")]
    return values if len(values) > 1 else next(iter(values), None)


def _number(value: Any, keyword: str) -> float:
    if isinstance(value, str):
        return number(value, keyword)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ReadError(f"{keyword} is not a number")
    return value


def _text(value: Any, keyword: str) -> str:
    if not isinstance(value, str):
        raise ReadError(f"{keyword} is not a text")
    return value
