"""DICOM waveform objects as JSON: the DICOM JSON Model of PS3.18 F.2.

In: a JSON object by tag, or an array of one, with its binary values in it, as base64. Out: the `Recording` of the object
(`ecgfounder.readers.dicom`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from ecgfounder.ecg.recording import Recording
from ecgfounder.ecg.statements import Statements
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.dicom import one_kind_of_error, recording_of, statements_in
from ecgfounder.readers.dicom_elements import OF_RECORDING, OF_STATEMENTS, Attribute, Form, object_of
from ecgfounder.readers.source import Source

FORMAT = "dicom_json"

_BOM = b"\xef\xbb\xbf"
_BEGINNING = re.compile(rb'\s*(?:\[\s*)?\{\s*"[0-9A-Fa-f]{8}"\s*:\s*\{')


def matches(source: Source) -> bool:
    """Whether it is a JSON object whose first name is a tag of eight hexadecimal digits, with value representations."""
    head = source.head.removeprefix(_BOM)
    return _BEGINNING.match(head) is not None and b'"vr"' in head


def read(source: Source) -> Recording:
    """Decode the object as a DICOM file of the same content is decoded.

    Raises
    ------
    ReadError
        As for DICOM files, and if the JSON is damaged, or a value is not what its element holds.
    UnsupportedFormatError
        As for DICOM files, and if the waveforms are not in the document (BulkDataURI), or there are several objects.
    """
    root = _root(source)
    with one_kind_of_error():
        return recording_of(object_of(root, _FORM, OF_RECORDING), FORMAT, little_endian=True)


def statements(source: Source) -> Statements:
    """What the object's annotations state (`ecgfounder.readers.dicom.statements`)."""
    root = _root(source)
    with one_kind_of_error():
        return statements_in(object_of(root, _FORM, OF_STATEMENTS))


def _root(source: Source) -> Any:
    try:
        root = orjson.loads(source.content.removeprefix(_BOM))
    except orjson.JSONDecodeError as error:
        raise ReadError(f"not well-formed JSON (line {error.lineno})") from error
    if not isinstance(root, list):
        return root
    if len(root) != 1:
        raise UnsupportedFormatError(f"expected one DICOM object, found an array of {len(root)}")
    return root[0]


def _places(node: Any) -> Iterable[tuple[str, Any]]:
    return _mapping(node).items()


def _attribute(place: Any) -> Attribute:
    members = _mapping(place)
    values = members.get("Value", [])
    representation, inline = members.get("vr"), members.get("InlineBinary")
    if not isinstance(values, list) or not isinstance(inline, str | None):
        raise ReadError("a DICOM attribute has a Value that is not an array, or an InlineBinary that is not text")
    return Attribute(
        representation=representation if isinstance(representation, str) else "",
        values=values,
        items=values,
        inline=inline,
        is_elsewhere="BulkDataURI" in members,
    )


def _mapping(node: Any) -> dict[str, Any]:
    if not isinstance(node, dict):
        raise ReadError("expected a JSON object of DICOM attributes, found something else")
    return node


_FORM = Form(_places, _attribute)
