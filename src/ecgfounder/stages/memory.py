"""The memory that reading and preparing a recording takes, estimated.

In: the bytes of its files; its samples. Out: bytes at the peak. The factors were measured (docs/performance.md).
"""

from __future__ import annotations

from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.preparation import Preparation

LARGE_BYTES = 16 << 20
"""Estimates below it are not worth a question; a recording of 10 seconds takes a hundredth of it."""

# Per byte of the files: the file, what is decoded of it, and float32 samples in mV.
_READING, _READING_XML, _READING_PACKED, _READING_TEXT = 5, 7, 9, 11
_PACKED = (b"PK\x03\x04", b"MATLAB 5.0")

_SAMPLES_PER_FILE = 2
"""Bytes of samples per byte of a file, which mostly holds 16-bit counts."""

# Per byte of the input, float32: filters, quality flags and normalisation work in float64.
_PREPARING, _FILTERING = 7, 12


def to_read(n_bytes: int, head: bytes, preparation: Preparation) -> int:
    """Memory for a recording of which only the size and the first bytes of its files are known."""
    preparing = 0 if preparation.window is not None else _factor(preparation) * _SAMPLES_PER_FILE
    return (_reading(head) + preparing) * n_bytes


def _reading(head: bytes) -> int:
    if head.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t").startswith(b"<"):
        return _READING_XML
    if head.startswith(_PACKED):
        return _READING_PACKED
    is_text = b"\n" in head and b"\0" not in head
    return _READING_TEXT if is_text else _READING


def to_prepare(recording: Recording, n_bytes: int, preparation: Preparation) -> int:
    """Memory for a recording that was read; `n_bytes` is the size of its files."""
    held = recording.samples.nbytes
    seconds = recording.n_samples / recording.sampling_rate
    used = seconds if preparation.window is None else min(seconds, preparation.window)
    per_second = len(recording.leads) * recording.samples.itemsize * preparation.recipe.sampling_rate
    return n_bytes + held + round(_factor(preparation) * used * max(per_second, held / seconds))


def _factor(preparation: Preparation) -> int:
    return _FILTERING if preparation.recipe.filters else _PREPARING
