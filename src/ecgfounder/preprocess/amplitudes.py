"""Amplitudes that several quality flags use: extremes by block, and the resolution.

In: samples in mV at the recording's sampling rate. Out: extremes of blocks of two seconds; the step between stored values.
"""

from __future__ import annotations

import numpy as np

from ecgfounder.preprocess.recipes import Samples

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

BLOCK = 2.0
"""Seconds of a block, which holds at least one beat at 30 a minute."""


def extremes(samples: Samples, sampling_rate: float) -> tuple[Samples, Samples]:
    """Lowest and highest value of each lead in each block; each [n_leads, n_blocks].

    The samples after the last whole block belong to it, because a short block might contain no beat.
    """
    size = max(1, round(BLOCK * sampling_rate))
    n_blocks = max(1, samples.shape[1] // size)
    if _passes is not None:
        low, high = (np.empty((len(samples), n_blocks), np.float32) for _ in range(2))
        _passes.block_extremes(samples, size, low, high)
        return low, high
    starts = np.arange(n_blocks) * size
    return np.minimum.reduceat(samples, starts, axis=1), np.maximum.reduceat(samples, starts, axis=1)


def resolution(lead: Samples) -> float:
    """Usual distance between neighbouring values of a lead, in mV: its resolution if it is coarse, else at most that."""
    values = np.unique(lead[: 1 << 16])
    return float(np.median(np.diff(values))) if values.size > 1 else 0.0
