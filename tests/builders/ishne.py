"""ISHNE Holter files, by the layout of the standard."""

from __future__ import annotations

import binascii
import struct

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
CODES = {"I": 5, "II": 6, "III": 7, "aVR": 8, "V1": 11, "V5": 15, "unknown": 0, "bipolar": 1}


def ishne(
    frames: Counts,
    leads: tuple[str, ...] = ("I", "V5"),
    resolutions: tuple[int, ...] = (2500, 1000),
    variable: bytes = b"",
    declared: int | None = None,
    recorder: bytes = b"digital",
) -> bytes:
    """[n_samples, n_leads] counts as an ISHNE file with the right checksum."""
    header = bytearray(512)
    n, n_leads = frames.shape
    struct.pack_into("<4ih", header, 0, len(variable), n if declared is None else declared, 522, 522 + len(variable), 1)
    header[18:25] = b"SURNAME"
    struct.pack_into("<h", header, 146, n_leads)
    struct.pack_into("<12h", header, 148, *[CODES[lead] for lead in leads], *[-9] * (12 - n_leads))
    struct.pack_into("<12h", header, 196, *resolutions, *[-9] * (12 - n_leads))
    header[222 : 222 + len(recorder)] = recorder
    struct.pack_into("<h", header, 262, 200)
    checked = bytes(header) + variable
    checksum = struct.pack("<H", binascii.crc_hqx(checked, 0xFFFF))
    return b"ISHNE1.0" + checksum + checked + frames.astype("<i2").tobytes()


def frames_of(n: int = 40, leads: int = 2, seed: int = 5) -> Counts:
    return np.random.default_rng(seed).integers(-32767, 32768, (n, leads))
