"""Recordings of Heal Force's portable recorders (Prince 180D): files like SCP-ECG that do not follow the standard.

In: the whole file. Out: a `Recording` of leads I, II and III. The pointers count bytes from 0, the checksums begin with 0, and
one stream holds the samples of all leads in turn, each of 10 bits. The layout and the rate of 150 Hz are those of the decoder by
K. Bao (github.com/KaibinBao/healforcescpecg), the leads those of the device's printout.
"""

from __future__ import annotations

import binascii
import struct

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import to_millivolts
from ecgfounder.readers.source import Source

FORMAT = "healforce"

_LEADS = ("I", "II", "III")
_RATE = 150
_PREAMBLE = 6
_HEADER = 16
_POINTER = 10
_LARGEST_SECTION_0 = 1024
_ZERO = 0x200  # the count at 0 mV


def matches(source: Source) -> bool:
    """Whether section 0 is at its place in SCP-ECG, with a pointer to itself that counts from 0."""
    head = source.head
    if len(head) < _PREAMBLE + _HEADER + _POINTER or head[8:10] != b"\0\0":
        return False
    (length,) = struct.unpack_from("<I", head, 10)
    return struct.unpack_from("<HII", head, _PREAMBLE + _HEADER) == (0, length, _PREAMBLE)


def read(source: Source) -> Recording:
    """Read the three leads, in the steps that section 6 states (9.524 µV).

    Raises
    ------
    ReadError
        If the file is truncated, its sections do not match their checksums, or the numbers of samples differ.
    UnsupportedFormatError
        For other numbers of leads, and other rates.
    """
    sections = _sections(source.content)
    if 3 not in sections or 6 not in sections:
        raise ReadError("expected sections 3 and 6 in a Heal Force file, found only one of them or none")
    definition, rhythm = sections[3], sections[6]
    if len(definition) < 10 or len(rhythm) < 8:
        raise ReadError("section 3 or 6 of the Heal Force file is truncated")
    n_leads, _, first, last = struct.unpack_from("<BBII", definition)
    step_nv, rate, order, bimodal, size = struct.unpack_from("<HHBBH", rhythm)
    if (n_leads, rate, order, bimodal) != (len(_LEADS), _RATE, 0, 0):
        raise UnsupportedFormatError(
            f"Heal Force file of {n_leads} leads at {rate} Hz; only {len(_LEADS)} leads at {_RATE} Hz are read"
        )
    if step_nv == 0:
        raise ReadError("the Heal Force file has 0 nV per count")
    counts = _counts(rhythm[8 : 8 + size], size)
    if last < first or counts.shape[1] != last - first + 1:
        raise ReadError(
            f"section 3 of the Heal Force file has samples {first:,} to {last:,}, but section 6 has {counts.shape[1]:,}"
        )
    return Recording(
        samples=np.stack([to_millivolts(row, step_nv * 1e-6) for row in counts]),
        sampling_rate=float(_RATE),
        leads=_LEADS,
        source_format=FORMAT,
        meta={"resolution_uv": step_nv / 1000},
    )


def _sections(content: bytes) -> dict[int, bytes]:
    """The bodies of sections by number, each checked."""
    (length,) = struct.unpack_from("<I", content, 10)
    if not _HEADER <= length <= min(_LARGEST_SECTION_0, len(content) - _PREAMBLE):
        raise ReadError(f"Heal Force file of {len(content):,} bytes, but section 0 has a stated size of {length:,}")
    pointers = _checked(content, 0, _PREAMBLE, length)
    found: dict[int, bytes] = {}
    for at in range(0, len(pointers) - _POINTER + 1, _POINTER):
        number, size, begin = struct.unpack_from("<HII", pointers, at)
        if number in (3, 6) and number not in found:
            found[number] = _checked(content, number, begin, size)
    return found


def _checked(content: bytes, number: int, begin: int, size: int) -> bytes:
    data = content[begin : begin + size]
    if size < _HEADER or len(data) < size:
        raise ReadError(f"section {number} of the Heal Force file is outside the file of {len(content):,} bytes")
    crc, identifier = struct.unpack_from("<HH", data)
    computed = binascii.crc_hqx(data[2:], 0)
    swapped = computed >> 8 | (computed & 0xFF) << 8  # long sections have it with its bytes exchanged
    if identifier != number or crc not in (computed, swapped):
        raise ReadError(f"section {number} of the Heal Force file does not match its checksum: the file is damaged")
    return data[_HEADER:]


def _counts(data: bytes, size: int) -> npt.NDArray[np.int64]:
    """Counts [3, n_samples]. Three words of 16 bits hold four samples: a word's low 10 bits, and bits 10 to 13 of all three."""
    if len(data) < size or size == 0 or size % (6 * len(_LEADS)):
        raise ReadError(f"section 6 of the Heal Force file states {size:,} bytes of samples, but {len(data):,} follow")
    words = np.frombuffer(data, "<u2").reshape(-1, 3).astype(np.int64)
    parts = words >> 10 & 0xF
    fourth = parts[:, 0] << 8 | parts[:, 1] << 4 | parts[:, 2]
    packed = np.column_stack([words, fourth]) & 0x3FF  # the remaining bits mark beats
    return (packed - _ZERO).reshape(-1, len(_LEADS)).T
