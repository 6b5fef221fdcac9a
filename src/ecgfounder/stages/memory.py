"""The memory that reading and preparing a recording takes, estimated.

In: the bytes of its files; its samples. Out: bytes at the peak. The factors were measured (docs/performance.md).
"""

from __future__ import annotations

from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.preparation import Preparation

LARGE_BYTES = 16 << 20
"""Estimates below it are not worth a question; a recording of 10 seconds takes a hundredth of it."""

# Per byte of the files, which are mostly 16-bit counts: the file, its counts by lead, and float32 samples in mV.
_READING = 4
_SAMPLES_PER_FILE = 2

# Per byte of the input, float32: filters, quality flags and normalisation work in float64.
_PREPARING, _FILTERING = 7, 12


def to_read(n_bytes: int, preparation: Preparation) -> int:
    """Memory for a recording of which only the size of its files is known."""
    if preparation.window is not None:
        return _READING * n_bytes
    return _READING * n_bytes + _factor(preparation) * _SAMPLES_PER_FILE * n_bytes


def to_prepare(recording: Recording, n_bytes: int, preparation: Preparation) -> int:
    """Memory for a recording that was read; `n_bytes` is the size of its files."""
    held = recording.samples.nbytes
    seconds = recording.n_samples / recording.sampling_rate
    used = seconds if preparation.window is None else min(seconds, preparation.window)
    per_second = len(recording.leads) * recording.samples.itemsize * preparation.recipe.sampling_rate
    return n_bytes + held + round(_factor(preparation) * used * max(per_second, held / seconds))


def _factor(preparation: Preparation) -> int:
    return _FILTERING if preparation.recipe.filters else _PREPARING
