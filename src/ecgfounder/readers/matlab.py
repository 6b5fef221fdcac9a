"""MATLAB files of level 4 and level 5 (versions 4 to 7.2): numbers, texts, structures, cell arrays of texts.

In: a file's bytes. Out: its numeric and text variables by name; fields of a structure as 'structure.field'. The parser is not
SciPy's, so that no memory is allocated by sizes in an untrusted file that its bytes do not have.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError
from ecgfounder.readers.source import MAX_UNPACKED_BYTES

Array = npt.NDArray[np.generic]

LEVEL_5_TEXT = b"MATLAB 5.0"
_LEVEL_5_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TYPES |= {16: "u1", 17: "u2", 18: "u4"}  # UTF-8, UTF-16, UTF-32
_CELL, _STRUCT, _CHAR, _FIRST_NUMERIC, _LAST_NUMERIC = 1, 2, 4, 6, 15
_COMPLEX = 0x0800
_LEVEL_4_TYPES = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}
_MAX_DEPTH = 4
_MAX_VARIABLES = 4096


def looks_like_level_4(head: bytes) -> bool:
    """Whether the first bytes are a level 4 matrix header with a name."""
    if len(head) < 20:
        return False
    kind, rows, columns, imaginary, name_size = struct.unpack_from("<5I", head)
    if kind >= 60 or kind // 10 not in _LEVEL_4_TYPES or kind % 10 > 1 or imaginary > 1:
        return False
    name = head[20 : 20 + name_size]
    named = 2 <= name_size <= 64 and name[-1:] == b"\0" and name[:-1].isascii() and name[:-1].decode().isidentifier()
    return named and 0 < rows < 1 << 31 and 0 < columns < 1 << 31


def variables(content: bytes) -> dict[str, Array]:
    """The numeric and text variables of a MATLAB file; a text is an array of its lines, of dtype str.

    Raises
    ------
    ReadError
        If sizes exceed the data, or the data unpacks to more than `MAX_UNPACKED_BYTES`.
    """
    found = _level_5(content) if content.startswith(LEVEL_5_TEXT) else _level_4(content)
    arrays: dict[str, Array] = {}
    for name, array in found:
        arrays.setdefault(name, array)
        if len(arrays) > _MAX_VARIABLES:
            raise ReadError(f"MATLAB file of more than {_MAX_VARIABLES} variables")
    return arrays


def _level_4(content: bytes) -> Iterator[tuple[str, Array]]:
    at = 0
    while at < len(content):
        if not looks_like_level_4(content[at : at + 256]):
            raise ReadError("damaged MATLAB file: no variable begins at the end of the previous one")
        kind, rows, columns, imaginary, name_size = struct.unpack_from("<5I", content, at)
        name = content[at + 20 : at + 19 + name_size].decode("ascii")
        dtype = np.dtype("<" + _LEVEL_4_TYPES[kind // 10])
        at += 20 + name_size
        size = rows * columns * dtype.itemsize
        if at + size * (1 + imaginary) > len(content):
            raise ReadError(f"MATLAB file of {len(content):,} bytes, truncated in a variable of {size:,} bytes")
        values = np.frombuffer(content, dtype, rows * columns, at).reshape(columns, rows).T
        at += size * (1 + imaginary)
        if imaginary:
            continue
        yield name, text_lines(values) if kind % 10 == 1 else values


def _level_5(content: bytes) -> Iterator[tuple[str, Array]]:
    if len(content) < _LEVEL_5_HEADER:
        raise ReadError("MATLAB file, truncated in its header")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise ReadError("damaged MATLAB file: the header does not state the byte order")
    budget = MAX_UNPACKED_BYTES
    for kind, data in _elements(content[_LEVEL_5_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = _unpack(data, budget)
            budget -= len(unpacked)
            for inner, inner_data in _elements(unpacked, order):
                if inner == _MATRIX:
                    yield from _matrix(inner_data, order, "", 0)
        elif kind == _MATRIX:
            yield from _matrix(data, order, "", 0)


def _unpack(data: bytes, limit: int) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(data, limit)
    except zlib.error as error:
        raise ReadError("damaged compressed data in the MATLAB file") from error
    if not unpacker.eof:
        raise ReadError(f"compressed data in the MATLAB file is truncated or unpacks to more than {limit:,} bytes")
    return unpacked


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and bytes of each data element: a tag of 8 bytes and data padded to 8, or in the small form 4 bytes of each."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            if size > 4:
                raise ReadError("damaged MATLAB file: a small element of more than 4 bytes")
            yield kind, data[at + 4 : at + 4 + size]
            at += 8
            continue
        begin = at + 8
        if begin + size > len(data):
            raise ReadError(
                f"MATLAB file with an element of {size:,} bytes, but only {len(data) - begin:,} bytes follow"
            )
        yield kind, data[begin : begin + size]
        at = begin + size + (-size % 8 if kind != _COMPRESSED else 0)


def _matrix(data: bytes, order: str, path: str, depth: int) -> Iterator[tuple[str, Array]]:
    """The arrays of one matrix element: the matrix itself, the fields of a structure, or the texts of a cell array."""
    parts = _elements(data, order)
    flags, shape_data, name_data = (next(parts, (0, b"")) for _ in range(3))
    if len(flags[1]) < 8:
        return  # an empty matrix is an empty field
    (flag,) = struct.unpack_from(order + "I", flags[1])
    shape = tuple(int(size) for size in np.frombuffer(shape_data[1][: len(shape_data[1]) // 4 * 4], order + "i4"))
    name = path or name_data[1].decode("latin-1")
    kind = flag & 0xFF
    if kind == _STRUCT and shape == (1, 1) and depth < _MAX_DEPTH:
        yield from _fields(parts, order, name, depth)
    elif kind == _CELL and depth < _MAX_DEPTH:
        texts = [
            array for cell, content in parts if cell == _MATRIX for _, array in _matrix(content, order, name, depth + 1)
        ]
        if texts and all(text.dtype.kind == "U" and text.size == 1 for text in texts):
            yield name, np.array([str(text.reshape(-1)[0]) for text in texts])
    elif kind == _CHAR or (_FIRST_NUMERIC <= kind <= _LAST_NUMERIC and not flag & _COMPLEX):
        values = _numeric(*next(parts, (0, b"")), order, shape)
        if values.size:
            yield name, text_lines(values) if kind == _CHAR else values


def _fields(parts: Iterator[tuple[int, bytes]], order: str, name: str, depth: int) -> Iterator[tuple[str, Array]]:
    width_data, names = next(parts, (0, b""))[1], next(parts, (0, b""))[1]
    width = int.from_bytes(width_data, "little" if order == "<" else "big")
    if not 0 < width <= 64:
        raise ReadError(f"damaged MATLAB file: field names of {width} characters")
    fields = [names[i : i + width].split(b"\0")[0].decode("latin-1") for i in range(0, len(names), width)]
    for field, (kind, content) in zip(fields, parts, strict=False):
        if kind == _MATRIX:
            yield from _matrix(content, order, f"{name}.{field}", depth + 1)


def _numeric(kind: int, data: bytes, order: str, shape: tuple[int, ...]) -> Array:
    if kind not in _TYPES:
        raise ReadError(f"damaged MATLAB file: data of type {kind}")
    dtype = np.dtype(order + _TYPES[kind])
    count = 1
    for size in shape:
        count *= max(size, 0)
    if not shape or len(shape) > 8 or count * dtype.itemsize != len(data):
        raise ReadError(f"damaged MATLAB file: {len(data):,} bytes for an array of {count:,} {dtype.name}")
    return np.frombuffer(data, dtype).reshape(shape[::-1]).T


def text_lines(codes: Array) -> Array:
    """A character matrix [lines, characters] as an array of its lines."""
    with np.errstate(invalid="ignore"):  # level 4 stores characters as float64, which may have any value
        lines = np.atleast_2d(codes).astype(np.uint32, casting="unsafe")[:1024]
    return np.array(["".join(chr(code) for code in line[:256] if 32 <= code < 0xD800).strip() for line in lines])
