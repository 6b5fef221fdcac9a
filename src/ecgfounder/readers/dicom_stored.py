"""The data elements that are used of a DICOM object in its binary encoding (PS3.5 chapter 7).

In: the bytes of a DICOM file. Out: the object as a dict of values by keyword, which `ecgfounder.readers.dicom.recording_of`
reads. Other elements are skipped, so that hundreds of annotations before the waveforms cost little.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from itertools import product
from typing import Any

from ecgfounder.errors import ReadError
from ecgfounder.readers.dicom_elements import Element
from ecgfounder.readers.source import MAX_UNPACKED_BYTES
from ecgfounder.readers.xml import number

_DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"

_DEEPEST = 8  # the objects themselves have four levels
_ITEM_GROUP, _ITEM_END, _SEQUENCE_END = 0xFFFE, 0xFFFE_E00D, 0xFFFE_E0DD
_UNDEFINED = 0xFFFF_FFFF
_VRS = frozenset(first + second for first, second in product(*[[bytes((code,)) for code in range(65, 91)]] * 2))
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_BINARY_NUMBERS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
_BYTES = frozenset(("OB", "OW", "UN"))


# The beginning of a data element: tag, VR (empty if implicit), length and position of the value. An object has thousands, and a
# named tuple takes several times as long to make.
_Header = tuple[int, bytes, int, int]


class _Encoding:
    """The encoding of data elements: implicit or explicit VR, and the byte order."""

    def __init__(self, *, implicit: bool, little_endian: bool) -> None:
        self.order = "<" if little_endian else ">"
        self.implicit = implicit
        self._short = struct.Struct(self.order + "HH2sH").unpack_from
        self._long = struct.Struct(self.order + "L").unpack_from

    def header(self, data: bytes, position: int) -> _Header:
        """The data element at `position` (PS3.5 chapter 7.1)."""
        group, element, vr, short = self._short(data, position)
        tag = group << 16 | element
        if self.implicit or group == _ITEM_GROUP or vr not in _VRS:
            return tag, b"", self._long(data, position + 4)[0], position + 8
        if vr in _LONG_VRS:
            return tag, vr, self._long(data, position + 8)[0], position + 12
        return tag, vr, short, position + 8


def object_in(content: bytes, elements: Mapping[str, Element]) -> tuple[dict[str, Any], bool]:
    """A DICOM object: its values by keyword, and whether numbers in WaveformData are little-endian.

    Parameters
    ----------
    content : bytes
        A file with or without preamble, in any native or deflated transfer syntax.
    elements : mapping of str to Element
        The elements to take, by tag: `dicom_elements.OF_RECORDING` or `OF_STATEMENTS`.

    Raises
    ------
    ReadError
        If the file is truncated, or a value is not valid.
    """
    start = 132 if content[128:132] == b"DICM" else 0
    syntax, start = _transfer_syntax(content, start)
    data = content[start:]
    if syntax == _DEFLATED_LITTLE:
        data = _inflate(data)
    little_endian = syntax != _EXPLICIT_BIG
    # Whether VRs are explicit is detected from the data: in some files, the transfer syntax is wrong.
    encoding = _Encoding(implicit=data[4:6] not in _VRS, little_endian=little_endian)
    wanted = {int(tag, 16): element for tag, element in elements.items()}
    found, _end = _object(data, 0, len(data), encoding, wanted, 0)
    return found, little_endian


def _object(
    data: bytes, position: int, end: int, encoding: _Encoding, wanted: Mapping[int, Element], depth: int
) -> tuple[dict[str, Any], int]:
    """The object that begins at `position`, and where it ends: at `end`, or after its delimiter."""
    if depth > _DEEPEST:
        raise ReadError("the sequences are nested too deep")
    last = max(wanted)
    found: dict[str, Any] = {}
    while position + 8 <= end:
        tag, vr, length, value = encoding.header(data, position)
        if tag in (_ITEM_END, _SEQUENCE_END):
            return found, value
        if depth == 0 and tag > last:
            break
        element = wanted.get(tag)
        position = value + length
        if length == _UNDEFINED:
            is_wanted = element is not None and "SQ" in element.representations
            position = -1 if is_wanted else _end_of_sequence(data, value, encoding)
        if position > end:
            raise ReadError("a data element ends after the end of the file: truncated or damaged")
        if element is None:
            continue
        if "SQ" in element.representations:
            inner = _Encoding(implicit=True, little_endian=True) if vr == b"UN" else encoding
            stop = end if position < 0 else position
            found[element.keyword], after = _items(data, value, stop, inner, wanted, depth, closed=position >= 0)
            position = after if position < 0 else position
        elif length != _UNDEFINED:
            found[element.keyword] = _value(data[value:position], vr.decode(), element, encoding.order)
    return found, end


def _items(
    data: bytes,
    position: int,
    end: int,
    encoding: _Encoding,
    wanted: Mapping[int, Element],
    depth: int,
    *,
    closed: bool,
) -> tuple[list[dict[str, Any]], int]:
    """The items of a sequence, and where it ends; `closed` if its length is stated."""
    items: list[dict[str, Any]] = []
    while position + 8 <= end:
        tag, _vr, length, value = encoding.header(data, position)
        if tag == _SEQUENCE_END:
            return items, value
        if tag >> 16 != _ITEM_GROUP:
            raise ReadError("expected an item of a sequence, found another data element: damaged")
        if length == _UNDEFINED:
            item, position = _object(data, value, end, encoding, wanted, depth + 1)
        else:
            position = value + length
            if position > end:
                raise ReadError("a data element ends after the end of the file: truncated or damaged")
            item, _end = _object(data, value, position, encoding, wanted, depth + 1)
        items.append(item)
    if not closed:
        raise ReadError("a sequence has no end: truncated or damaged")
    return items, end


def _value(raw: bytes, vr: str, element: Element, order: str) -> Any:
    """The element's value, a list if there are several, None if there is none; bytes for binary data."""
    vr = vr if vr and vr != "UN" else element.representations[0]
    if vr in _BYTES:
        return raw
    if vr in _BINARY_NUMBERS:
        values: list[Any] = [value for (value,) in struct.iter_unpack(order + _BINARY_NUMBERS[vr], raw)]
    else:
        texts = [text.strip(" \0") for text in raw.decode("latin-1").split("\\")]
        is_number = vr in ("DS", "IS")
        values = [number(text, element.keyword) if is_number else text for text in texts if text]
    return values if len(values) > 1 else next(iter(values), None)


def _end_of_sequence(data: bytes, position: int, encoding: _Encoding) -> int:
    """The end of a sequence of undefined length, after its delimiter; without recursion, because nesting may be deep."""
    header = encoding.header
    open_levels = 1
    while open_levels:
        tag, _vr, length, value = header(data, position)
        if length == _UNDEFINED:
            open_levels += 1
            position = value
        elif tag in (_ITEM_END, _SEQUENCE_END):
            open_levels -= 1
            position = value
        else:
            position = value + length
    return position


def _transfer_syntax(content: bytes, start: int) -> tuple[str, int]:
    """Transfer Syntax UID (empty if not stated) and the position of the first data element after group 0002."""
    syntax = ""
    while content[start : start + 2] == b"\x02\x00" and len(content) >= start + 8:
        element = int.from_bytes(content[start + 2 : start + 4], "little")
        vr = content[start + 4 : start + 6]
        if vr in _LONG_VRS:
            length, value = int.from_bytes(content[start + 8 : start + 12], "little"), start + 12
        elif vr in _VRS:
            length, value = int.from_bytes(content[start + 6 : start + 8], "little"), start + 8
        else:
            length, value = int.from_bytes(content[start + 4 : start + 8], "little"), start + 8
        if value + length > len(content):
            raise ReadError("the file meta information ends after the end of the file: truncated or damaged")
        if element == 0x0010:
            syntax = content[value : value + length].decode("ascii", "replace").strip(" \0")
        start = value + length
    return syntax, start


def _inflate(data: bytes) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = unpacker.decompress(data, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise ReadError("damaged deflated data") from error
    if unpacker.unconsumed_tail:
        raise ReadError(f"deflated data that unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
    return unpacked
