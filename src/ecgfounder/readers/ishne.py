"""ISHNE Holter files, version 1.0 (Badilini 1998; thew-project.org).

In: the whole file. Out: a `Recording` of all its leads, of any length; samples marked as lead fault are NaN.
"""

from __future__ import annotations

import binascii
import struct

import numpy as np

from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers.quantities import to_millivolts
from ecgfounder.readers.signals import distinct_leads
from ecgfounder.readers.source import Source

FORMAT = "ishne"

MAGIC = b"ISHNE1.0"
_FIXED_BYTES = 522
_CHECKED_FROM = 10
_MAX_LEADS = 12
_LEAD_FAULT = -32768

# Table 1 of the standard. Codes 0 (unknown) and 1 (generic bipolar) are not those of a lead.
_LEADS = {1: "bipolar", 2: "X", 3: "Y", 4: "Z", 5: "I", 6: "II", 7: "III", 8: "aVR", 9: "aVL", 10: "aVF"}
_LEADS |= {10 + i: f"V{i}" for i in range(1, 7)} | {17: "ES", 18: "AS", 19: "AI"}


def matches(source: Source) -> bool:
    """Whether the file begins with ISHNE's magic number."""
    return source.head.startswith(MAGIC)


def read(source: Source) -> Recording:
    """Read an ISHNE Holter file.

    Raises
    ------
    ReadError
        If the header does not match its checksum (0: not computed) or is not valid, or if the file is shorter than stated in its
        header.
    """
    content = source.content
    if len(content) < _FIXED_BYTES:
        raise ReadError(f"ISHNE file of {len(content)} bytes, truncated in its header of {_FIXED_BYTES} bytes")
    variable_bytes, declared, _, ecg_offset = struct.unpack_from("<4i", content, 10)
    (n_leads,) = struct.unpack_from("<h", content, 156)
    (rate,) = struct.unpack_from("<h", content, 272)
    if variable_bytes < 0 or _FIXED_BYTES + variable_bytes > len(content):
        raise ReadError(
            f"ISHNE file of {len(content):,} bytes, but its header states a variable block of {variable_bytes:,}"
        )
    if not 1 <= n_leads <= _MAX_LEADS or rate <= 0:
        raise ReadError(f"ISHNE header with {n_leads} leads at {rate} Hz")
    _verify_checksum(content, _FIXED_BYTES + variable_bytes)
    begin = _FIXED_BYTES + variable_bytes
    if begin < ecg_offset <= len(content):
        begin = ecg_offset
    n_samples = _samples_per_lead(declared, n_leads, (len(content) - begin) // (2 * n_leads))
    frames = np.frombuffer(content, "<i2", n_samples * n_leads, begin).reshape(n_samples, n_leads)
    samples = np.empty((n_leads, n_samples), dtype=np.float32)
    resolutions = struct.unpack_from(f"<{n_leads}h", content, 206)
    for lead, resolution in enumerate(resolutions):
        if resolution <= 0:
            raise ReadError(f"ISHNE header with a resolution of {resolution} nV for lead {lead + 1}")
        to_millivolts(frames[:, lead], resolution * 1e-6, no_sample=_LEAD_FAULT, out=samples[lead])
    codes = struct.unpack_from(f"<{n_leads}h", content, 158)
    return Recording(
        samples=samples,
        sampling_rate=float(rate),
        leads=distinct_leads([_LEADS.get(code, "unknown lead") for code in codes]),
        source_format=FORMAT,
        meta=_meta(content, set(resolutions)),
    )


def _verify_checksum(content: bytes, end: int) -> None:
    """Check the CRC-CCITT of the rest of the header; programs differ in its extent, start value and byte order."""
    (stored,) = struct.unpack_from("<H", content, 8)
    if stored == 0:
        return
    swapped = (stored & 0xFF) << 8 | stored >> 8
    for extent in (end, _FIXED_BYTES):
        for start in (0xFFFF, 0):
            if binascii.crc_hqx(content[_CHECKED_FROM:extent], start) in (stored, swapped):
                return
    raise ReadError(
        "the ISHNE header does not match its checksum: the file is damaged (a checksum of 0 is not checked)"
    )


def _samples_per_lead(declared: int, n_leads: int, available: int) -> int:
    """Samples per lead from the header: stated per lead by the standard, for all leads by some programs, 0 or -1 if unknown."""
    if declared in (0, -1) or declared == available * n_leads:
        return available
    if not 0 < declared <= available:
        raise ReadError(
            f"ISHNE file with {available:,} samples per lead, but its header states {declared:,}: truncated"
        )
    return declared


def _meta(content: bytes, resolutions: set[int]) -> dict[str, str | float]:
    meta: dict[str, str | float] = {"format_version": "1.0"}
    if len(resolutions) == 1:
        meta["resolution_uv"] = resolutions.pop() / 1000
    recorder = "".join(chr(byte) for byte in content[232:272].split(b"\0")[0] if 32 <= byte < 127).strip()
    # By the standard, the field is "analog" or "digital"; most recorders write their model.
    if recorder and recorder.lower() not in ("analog", "digital"):
        meta["device_model"] = recorder
    return meta
