"""Amplitudes that several quality flags use: extremes by block, means and deviations, and the resolution.

In: samples in mV at the recording's sampling rate. Out: extremes of blocks of two seconds, moments, and the step between
stored values.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess.recipes import Samples

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

Array = npt.NDArray[np.float64]

BLOCK = 2.0
"""Seconds of a block, which holds at least one beat at 30 a minute."""


class Extremes:
    """`extremes` of parts of the same samples, which several flags ask for: each part's are computed once."""

    def __init__(self, samples: Samples, sampling_rate: float) -> None:
        self._samples, self._sampling_rate = samples, sampling_rate
        self._known: dict[tuple[int, int], tuple[Samples, Samples]] = {}

    def of(self, start: int, stop: int) -> tuple[Samples, Samples]:
        if (start, stop) not in self._known:
            self._known[start, stop] = extremes(self._samples[:, start:stop], self._sampling_rate)
        return self._known[start, stop]


def extremes(samples: Samples, sampling_rate: float) -> tuple[Samples, Samples]:
    """Lowest and highest value of each lead in each block; each [n_leads, n_blocks].

    The samples after the last whole block belong to it, because a short block might contain no beat.
    """
    return extremes_by(max(1, round(BLOCK * sampling_rate)), samples)


def extremes_by(size: int, samples: Samples) -> tuple[Samples, Samples]:
    """`extremes` in blocks of `size` samples."""
    n_blocks = max(1, samples.shape[1] // size)
    if _passes is not None:
        low, high = (np.empty((len(samples), n_blocks), np.float32) for _ in range(2))
        _passes.block_extremes(samples, size, low, high)
        return low, high
    starts = np.arange(n_blocks) * size
    return np.minimum.reduceat(samples, starts, axis=1), np.maximum.reduceat(samples, starts, axis=1)


def moments(samples: Samples, every: int) -> tuple[Array, Array]:
    """Mean and variance of every `every`-th sample of each lead; each float64 [n_leads]."""
    if _passes is None:
        some = samples[:, ::every]
        return some.mean(axis=1, dtype=np.float64), some.var(axis=1, dtype=np.float64)
    mean, variance = np.empty(len(samples)), np.empty(len(samples))
    _passes.row_moments(samples, every, mean, variance)
    return mean, variance


def resolution(lead: Samples) -> float:
    """Usual distance between neighbouring values of a lead, in mV: its resolution if it is coarse, else at most that."""
    values = np.unique(lead[: 1 << 16])
    return float(np.median(np.diff(values))) if values.size > 1 else 0.0
