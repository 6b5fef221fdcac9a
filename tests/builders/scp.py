"""SCP-ECG: a small encoder with the standard's ways of packing."""

from __future__ import annotations

import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
CODES = {"I": 1, "II": 2, "V1": 3, "V2": 4, "V6": 8, "V7": 9, "V3R": 11, "III": 61, "aVR": 62}


def section(number: int, body: bytes, version: int = 20) -> bytes:
    body += b"\0" * (len(body) % 2)
    rest = struct.pack("<HIBB6x", number, 16 + len(body), version, version) + body
    return struct.pack("<H", binascii.crc_hqx(rest, 0xFFFF)) + rest


def assemble(bodies: dict[int, bytes], version: int = 20) -> bytes:
    """A file of these sections, with its pointers and checksums."""
    length = 16 + 10 * 12
    at = 7 + length
    pointers, rest = struct.pack("<HII", 0, length, 7), b""
    for number in range(1, 12):
        data = section(number, bodies[number], version) if number in bodies else b""
        pointers += struct.pack("<HII", number, len(data), at if data else 0)
        at += len(data)
        rest += data
    first = section(0, pointers, version)
    record = struct.pack("<I", 6 + len(first) + len(rest)) + first + rest
    return struct.pack("<H", binascii.crc_hqx(record, 0xFFFF)) + record


def default_code(value: int) -> str:
    if value == 0:
        return "0"
    if abs(value) <= 8:
        return "1" * abs(value) + "0" + ("1" if value < 0 else "0")
    if -128 <= value <= 127:
        return "1111111110" + f"{value & 0xFF:08b}"
    return "1111111111" + f"{value & 0xFFFF:016b}"


def to_bytes(bits: str) -> bytes:
    bits += "0" * (-len(bits) % 16)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


def differences(values: Sequence[int], order: int) -> list[int]:
    out = [int(value) for value in values]
    for i in range(len(values) - 1, order - 1, -1):
        if order == 1:
            out[i] = int(values[i] - values[i - 1])
        elif order == 2:
            out[i] = int(values[i] - 2 * values[i - 1] + values[i - 2])
    return out


def pack(values: Sequence[int], order: int, huffman: bool) -> bytes:
    numbers = [(value + (1 << 15)) % (1 << 16) - (1 << 15) for value in differences(values, order)]
    if huffman:
        return to_bytes("".join(default_code(value) for value in numbers))
    return np.array(numbers).astype("<i2").tobytes()


def leads_section(leads: Sequence[str], ranges: Sequence[tuple[int, int]], flags: int = 4) -> bytes:
    rows = (struct.pack("<IIB", *span, CODES[lead]) for lead, span in zip(leads, ranges, strict=True))
    return bytes((len(leads), flags)) + b"".join(rows)


def data_section(parts: Sequence[bytes], avm: int, interval: int, order: int, bimodal: int = 0) -> bytes:
    sizes = struct.pack(f"<{len(parts)}H", *map(len, parts))
    return struct.pack("<HHBB", avm, interval, order, bimodal) + sizes + b"".join(parts)


@dataclass
class Plain:
    """A file whose rhythm data is neither decimated nor had beats subtracted."""

    rows: Counts
    order: int = 2
    huffman: bool = True
    avm: int = 2500
    interval: int = 2000
    leads: Sequence[str] = ("I", "II")
    extra: dict[int, bytes] = field(default_factory=dict)
    first: int = 1

    def write(self) -> bytes:
        n = self.rows.shape[1]
        parts = [pack(row, self.order, self.huffman) for row in self.rows.tolist()]
        bodies = {3: leads_section(self.leads, [(self.first, self.first + n - 1)] * len(self.leads))}
        bodies[6] = data_section(parts, self.avm, self.interval, self.order)
        if self.huffman:
            bodies[2] = struct.pack("<H", 19999)
        return assemble(bodies | self.extra)


def waves(n: int = 60, leads: int = 2, seed: int = 3, size: int = 400) -> Counts:
    return np.random.default_rng(seed).integers(-size, size, (leads, n))


def beats_section(
    length_ms: int, fiducial: int, beats: Sequence[tuple[int, int, int, int]], protected: Sequence[tuple[int, int]]
) -> bytes:
    body = struct.pack("<HHH", length_ms, fiducial, len(beats))
    return (
        body + b"".join(struct.pack("<HIII", *b) for b in beats) + b"".join(struct.pack("<II", *p) for p in protected)
    )
