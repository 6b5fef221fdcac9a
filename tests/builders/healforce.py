"""Heal Force: a small encoder of its files like SCP-ECG."""

from __future__ import annotations

import binascii
import struct

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


def section(number: int, body: bytes, swapped: bool = False) -> bytes:
    rest = struct.pack("<HIBB6x", number, 16 + len(body), 13, 13) + body
    return struct.pack(">H" if swapped else "<H", binascii.crc_hqx(rest, 0)) + rest


def packed(counts: Counts, marks: int = 0) -> bytes:
    """Counts [3, n_samples] around 0, in words of 16 bits; `marks` are the two highest bits."""
    values = (counts.T.reshape(-1, 4) + 0x200).astype(np.uint16)
    fourth = values[:, 3]
    parts = np.column_stack([fourth >> 8, fourth >> 4 & 0xF, fourth & 0xF]).astype(np.uint16)
    words = values[:, :3] | parts << 10 | marks << 14
    return words.astype("<u2").tobytes()


def healforce(
    counts: Counts,
    *,
    first: int = 1,
    step: int = 9524,
    rate: int = 150,
    n_leads: int = 3,
    marks: int = 0,
    patient: bytes = b"00000",
) -> bytes:
    """A file of pages of 16 KiB, as the device stores it, with gaps between its sections."""
    data = packed(counts, marks)
    bodies = {
        1: struct.pack("<BH", 2, len(patient)) + patient,
        2: bytes(14),
        3: struct.pack("<BBIIB", n_leads, 4, first, first + counts.shape[1] - 1, 5),
        6: struct.pack("<HHBBH", step, rate, 0, 0, len(data)) + data + bytes(40),
    }
    pointers, rest = struct.pack("<HII", 0, 16 + 10 * (1 + len(bodies)), 6), b""
    at = 6 + 16 + 10 * (1 + len(bodies))
    for number, body in bodies.items():
        made = section(number, body, swapped=number == 6)
        pointers += struct.pack("<HII", number, len(made), at)
        rest += made + bytes(32)
        at += len(made) + 32
    file = b"\x30\x9d\0\0\xf0\x72" + section(0, pointers) + rest
    return file + b"\xff" * (-len(file) % (1 << 14))


def with_checksums(data: bytes) -> bytes:
    """A copy in which the sections that are in the file have right checksums."""
    copy = bytearray(data)
    for at in range(22, min(82, len(data) - 9), 10):
        _, size, begin = struct.unpack_from("<HII", data, at)
        if 2 <= size <= len(data) - begin and begin > 22:
            copy[begin : begin + 2] = struct.pack("<H", binascii.crc_hqx(copy[begin + 2 : begin + size], 0))
    if len(data) >= 14:
        size = min(struct.unpack_from("<I", data, 10)[0], len(data))
        copy[6:8] = struct.pack("<H", binascii.crc_hqx(copy[8 : 6 + size], 0))
    return bytes(copy)
