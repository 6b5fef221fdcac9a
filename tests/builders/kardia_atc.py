"""Kardia's ATC files, with whatever a test wants to be wrong in them."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Mapping

import numpy as np

SIGNATURE = b"ALIVE\0\0\0"
NAMES = dict(
    zip(
        ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"),
        (b"ecg ", b"ecg2", b"ecg3", b"ecg4", b"ecg5", b"ecg6", b"ecg7", b"ecg8", b"ecg9", b"ecga", b"ecgb", b"ecgc"),
        strict=True,
    )
)


def counts_of(leads: tuple[str, ...] = tuple(NAMES)[:6], n_samples: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-4000, 4000, n_samples).astype("<i2") for lead in leads}


def block(name: bytes, data: bytes, *, checksum: int | None = None, crc: bool = False) -> bytes:
    whole = name + struct.pack("<I", len(data)) + data
    own = binascii.crc32(whole) if crc else sum(whole)
    return whole + struct.pack("<I", own if checksum is None else checksum)


def format_block(kind: int = 1, rate: int = 300, nanovolts: int = 500, flags: int = 2) -> bytes:
    return block(b"fmt ", struct.pack("<BHHBH", kind, rate, nanovolts, flags, 0))


def info(texts: Mapping[int, bytes] | None = None) -> bytes:
    """The information block; `texts` has other texts by their place."""
    data = bytearray(264)
    known = {0: b"2020-01-01T00:00:00.000+00:00", 32: b"58E0A7D7", 148: b"Recorder 1.6", 180: b"kardia_mobile"}
    for place, text in (known | dict(texts or {})).items():
        data[place : place + len(text)] = text
    return block(b"info", bytes(data))


def atc(
    counts: Mapping[str, np.ndarray],
    *,
    version: int = 4,
    before: bytes | None = None,
    after: bytes = b"",
    crc: bool = False,
) -> bytes:
    """A file; `before` takes the place of the blocks before the leads, `after` follows them."""
    leads = [block(NAMES[lead], row.astype("<i2").tobytes(), crc=crc) for lead, row in counts.items()]
    beginning = info() + format_block() if before is None else before
    return b"".join((SIGNATURE, struct.pack("<I", version), beginning, *leads, after))


def with_checksums(data: bytes) -> bytes:
    """The blocks of a damaged file with checksums that are right for what they hold."""
    changed, position = bytearray(data), 12
    while position + 12 <= len(changed):
        end = position + 8 + int.from_bytes(changed[position + 4 : position + 8], "little")
        if end + 4 > len(changed):
            break
        changed[end : end + 4] = struct.pack("<I", sum(changed[position:end]) & 0xFFFFFFFF)
        position = end + 4
    return bytes(changed)
