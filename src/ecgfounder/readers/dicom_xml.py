"""DICOM waveform objects as XML: the Native DICOM Model of PS3.19 A.1.

In: a document with its binary values in it, as base64. Out: the `Recording` of the object (`ecgfounder.readers.dicom`).
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from ecgfounder.ecg.recording import Recording
from ecgfounder.ecg.statements import Statements
from ecgfounder.readers.dicom import one_kind_of_error, recording_of, statements_in
from ecgfounder.readers.dicom_elements import OF_RECORDING, OF_STATEMENTS, Attribute, Form, object_of
from ecgfounder.readers.source import Source
from ecgfounder.readers.xml import parse, root_of

FORMAT = "dicom_xml"


def matches(source: Source) -> bool:
    """Whether the document's root element is NativeDicomModel."""
    root = root_of(source)
    return root is not None and root.name == "NativeDicomModel"


def read(source: Source) -> Recording:
    """Decode the object as a DICOM file of the same content is decoded.

    Raises
    ------
    ReadError
        As for DICOM files, and if the XML is damaged, or a value is not what its element holds.
    UnsupportedFormatError
        As for DICOM files, and if the waveforms are not in the document (BulkData).
    """
    root = parse(source)
    with one_kind_of_error():
        return recording_of(object_of(root, _FORM, OF_RECORDING), FORMAT, little_endian=True)


def statements(source: Source) -> Statements:
    """What the object's annotations state (`ecgfounder.readers.dicom.statements`)."""
    root = parse(source)
    with one_kind_of_error():
        return statements_in(object_of(root, _FORM, OF_STATEMENTS))


def _places(parent: etree._Element) -> Iterator[tuple[str, etree._Element]]:
    return ((element.get("tag", ""), element) for element in parent.iterfind("{*}DicomAttribute"))


def _attribute(element: etree._Element) -> Attribute:
    return Attribute(
        representation=element.get("vr", ""),
        values=[value.text for value in element.iterfind("{*}Value")],
        items=element.findall("{*}Item"),
        inline=element.findtext("{*}InlineBinary"),
        is_elsewhere=element.find("{*}BulkData") is not None,
    )


_FORM = Form(_places, _attribute)
