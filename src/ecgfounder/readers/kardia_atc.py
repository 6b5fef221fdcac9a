"""AliveCor Kardia recordings (ATC, the ALIVE file format, versions 2 to 5): blocks of a name, a length, data and a checksum.

In: an `.atc` file of a KardiaMobile. Out: a `Recording`, marked as of an unverified format: the layout was taken from AliveCor's
specification (ATC File Format Specification 1.7) and from public programs that read it; no file of a device was at hand.
Average and median beats, annotations and accelerations are left out.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import to_millivolts
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import in_words

FORMAT = "kardia_atc"

_SIGNATURE = b"ALIVE\0\0\0"
_VERSIONS = (2, 3, 4, 5)
_HEADER = struct.Struct("<4sI")  # of a block: its name and the length of its data
_CHECKSUM = struct.Struct("<I")
_MOST_BLOCKS = 256

_FORMAT_NAME, _INFO_NAME = b"fmt ", b"info"
_LEAD_OF_BLOCK = dict(zip((b"ecg" + bytes((mark,)) for mark in b" 23456789abc"), STANDARD_LEADS, strict=True))
_FORMAT_BLOCK = struct.Struct("<BHHBH")  # kind of samples, sampling rate in Hz, nanovolts per count, flags, nothing
_INTEGERS_OF_16_BITS = 1
_MAINS_60_HZ, _MAINS_FILTER, _NOTCH_FILTER = 0x02, 0x04, 0x20
_INFO_SIZE = 264
_SOFTWARE, _HARDWARE = (
    slice(148, 180),
    slice(180, 212),
)  # of the info block; date, identifiers and the phone are not read


def matches(source: Source) -> bool:
    """Whether the file begins with 'ALIVE' and three zeros."""
    return source.head.startswith(_SIGNATURE)


def read(source: Source) -> Recording:
    """Decode the blocks of leads.

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in mV, the leads in their usual order.

    Raises
    ------
    ReadError
        If the file is damaged: a block that is truncated, a checksum that does not match, leads of different lengths.
    UnsupportedFormatError
        If the version or the kind of samples is another than those of the specification.
    """
    blocks = dict(_blocks(source.content))
    stated = _Format.of(blocks.get(_FORMAT_NAME, b""))
    data = {lead: blocks[name] for name, lead in _LEAD_OF_BLOCK.items() if name in blocks}
    if not data:
        raise ReadError("expected a block of samples of a lead, found none")
    if len({len(stored) for stored in data.values()}) != 1:
        raise ReadError("the leads have different lengths")
    scale = stated.nanovolts * 1e-6
    return Recording(
        samples=np.stack([to_millivolts(_counts(stored), scale, 0.0, in_words(lead)) for lead, stored in data.items()]),
        sampling_rate=float(stated.sampling_rate),
        leads=tuple(data),
        source_format=FORMAT,
        meta={**_device(blocks.get(_INFO_NAME, b"")), **stated.meta()},
        is_unverified=True,
    )


def _blocks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and the data of each block, whose checksum is right."""
    if len(content) < len(_SIGNATURE) + 4:
        raise ReadError("the file ends within its signature: truncated")
    version = int.from_bytes(content[len(_SIGNATURE) : len(_SIGNATURE) + 4], "little")
    if version not in _VERSIONS:
        raise UnsupportedFormatError(f"expected a version from {_VERSIONS[0]} to {_VERSIONS[-1]}, found {version}")
    names: set[bytes] = set()
    position = len(_SIGNATURE) + 4
    while position < len(content):
        if position + _HEADER.size > len(content):
            raise ReadError("the file ends within a block: truncated or damaged")
        name, length = _HEADER.unpack_from(content, position)
        begin, end = position + _HEADER.size, position + _HEADER.size + length
        if end + _CHECKSUM.size > len(content):
            raise ReadError("the file ends within a block: truncated or damaged")
        if name in names or len(names) >= _MOST_BLOCKS:
            raise ReadError("there is a block twice, or there are too many blocks")
        names.add(name)
        _check(content[position:end], *_CHECKSUM.unpack_from(content, end))
        yield name, content[begin:end]
        position = end + _CHECKSUM.size


def _check(block: bytes, stated: int) -> None:
    """Compare a block's checksum: programs write the sum of its bytes, and the specification names a CRC-32."""
    total = int(np.frombuffer(block, dtype=np.uint8).sum(dtype=np.uint64)) & 0xFFFFFFFF
    if stated not in (total, binascii.crc32(block)):
        raise ReadError("the checksum of a block does not match: damaged")


def _counts(stored: bytes) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    if len(stored) % 2:
        raise ReadError("the samples of a lead are not a whole number of 16-bit integers")
    return np.frombuffer(stored, dtype="<i2")


class _Format(NamedTuple):
    """The format block."""

    sampling_rate: int
    nanovolts: int
    flags: int

    @classmethod
    def of(cls, data: bytes) -> _Format:
        if len(data) != _FORMAT_BLOCK.size:
            raise ReadError(f"expected a format block of {_FORMAT_BLOCK.size} bytes, found none or another")
        kind, sampling_rate, nanovolts, flags, _ = _FORMAT_BLOCK.unpack(data)
        if kind != _INTEGERS_OF_16_BITS:
            raise UnsupportedFormatError(f"expected samples of kind {_INTEGERS_OF_16_BITS} (16 bits), found {kind}")
        if not sampling_rate or not nanovolts:
            raise ReadError("the sampling rate or the resolution is 0")
        return cls(sampling_rate, nanovolts, flags)

    def meta(self) -> dict[str, str | float]:
        found: dict[str, str | float] = {"resolution_uv": self.nanovolts / 1000}
        if self.flags & (_MAINS_FILTER | _NOTCH_FILTER):
            found["notch_hz"] = 60.0 if self.flags & _MAINS_60_HZ else 50.0
        return found


def _device(info: bytes) -> dict[str, str | float]:
    found: dict[str, str | float] = {"device_manufacturer": "AliveCor"}
    if len(info) == _INFO_SIZE:
        for key, place in (("device_model", _HARDWARE), ("software_version", _SOFTWARE)):
            text = info[place].partition(b"\0")[0].decode("ascii", "replace").strip()
            if text and text.isprintable():
                found[key] = text
    return found
