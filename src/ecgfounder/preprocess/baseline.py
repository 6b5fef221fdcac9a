"""Baseline: how much of the network's input is ECG, and how much is offset and wander.

In: samples in mV at the recording's sampling rate, and the spans of the inputs. Out: for each input, the standard deviation of
the ECG relative to that of all samples, by which the z-score divides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess.amplitudes import extremes, moments
from ecgfounder.preprocess.recipes import Samples

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

Array = npt.NDArray[np.float64]

SMOOTHING = 0.6
"""Seconds of the moving average that is taken twice: what it leaves is the baseline, what it removes is ECG."""

_BLOCK = 0.1
_SAMPLES_AT_ONCE = 1 << 20
# Hz: samples beyond this rate add nothing to a standard deviation.
_ENOUGH = 120.0
ROUGHLY = 30.0
# What a variance may be of the mean square without being more than rounding errors.
_ROUNDING = 1e-12
# Standard deviation by amplitude within blocks: 0.10 to 0.18 in most ECGs, at least 0.18 with wander that dominates.
USUAL_SPREAD = 0.18


def may_dominate(
    samples: Samples, sampling_rate: float, *, per_lead: bool, edges: tuple[Samples, Samples] | None = None
) -> bool:
    """Whether the standard deviation is unusually large for the amplitude within blocks; a quick test before `ecg_shares`.

    `edges` are the `extremes` of the samples, if they are known.
    """
    low, high = edges or extremes(samples, sampling_rate)
    mean, variance = moments(samples, max(1, int(sampling_rate / ROUGHLY)))
    moves = (high - low).mean(axis=1, dtype=np.float64)
    if per_lead:
        return bool(np.any(variance > np.square(USUAL_SPREAD * moves)))
    return float(variance.mean() + mean.var()) > (USUAL_SPREAD * float(moves.mean())) ** 2


def ecg_shares(samples: Samples, sampling_rate: float, spans: Sequence[tuple[int, int]], *, per_lead: bool) -> Array:
    """Standard deviation of the ECG, relative to that of the samples with their baseline.

    Parameters
    ----------
    samples : numpy.ndarray
        Finite float32 [n_leads, n_samples], in mV.
    sampling_rate : float
        In Hz.
    spans : sequence of tuple of (int, int)
        First sample and end of each window.
    per_lead : bool
        Whether each lead is normalised by itself.

    Returns
    -------
    numpy.ndarray
        float64 [n_windows, n_leads], or [n_windows, 1] if all leads are normalised together. 1 for inputs that do not move.
    """
    every, size = block_sizes(sampling_rate)
    means, within = _by_block(samples, every, size)
    size *= every
    wander = means - _smooth(means, smoothing_width(sampling_rate, size))
    of_ecg, squares = within + np.square(wander), within + np.square(means)
    shares = np.ones((len(spans), len(samples) if per_lead else 1))
    axis = -1 if per_lead else None
    for number, (start, stop) in enumerate(spans):
        first = min(start // size, means.shape[1] - 1)
        blocks = slice(first, max(min(stop // size, means.shape[1]), first + 1))
        mean = means[:, blocks].mean(axis=axis)
        level = np.asarray(squares[:, blocks].mean(axis=axis))
        total = np.asarray(level - mean * mean)
        ecg = np.asarray(of_ecg[:, blocks].mean(axis=axis))
        np.divide(ecg, total, out=shares[number], where=total > _ROUNDING * level)
    return np.asarray(np.sqrt(np.minimum(shares, 1.0)))


def block_sizes(sampling_rate: float) -> tuple[int, int]:
    """Of how many samples one is used, and how many of these are a block."""
    every = max(1, int(sampling_rate / _ENOUGH))
    return every, max(1, round(_BLOCK * sampling_rate / every))


def smoothing_width(sampling_rate: float, size: int) -> int:
    """Blocks of `size` samples in the moving average."""
    return max(1, round(SMOOTHING * sampling_rate / size))


def _by_block(samples: Samples, every: int, size: int) -> tuple[Array, Array]:
    """Mean of each block of `size` of every `every`-th sample, and variance within it; each float64 [n_leads, n_blocks]."""
    n_samples = -(-samples.shape[1] // every)
    count = max(1, n_samples // size)
    size = min(size, n_samples)
    means = np.empty((len(samples), count))
    within = np.empty((len(samples), count))
    if _passes is not None:
        _passes.block_moments(samples, every, size, means, within)
        return means, within
    step = max(1, _SAMPLES_AT_ONCE // (size * len(samples)))
    for first in range(0, count, step):
        end = min(first + step, count)
        part = samples[:, first * size * every : end * size * every : every].astype(np.float64)
        part = part.reshape(len(samples), -1, size)
        means[:, first:end], within[:, first:end] = part.mean(axis=2), part.var(axis=2)
    return means, within


def _smooth(means: Array, width: int) -> Array:
    """A moving average over `width` blocks, twice; both ends are continued by point reflection, which keeps a trend."""
    width = min(width | 1, means.shape[1] - (1 - means.shape[1] % 2))
    half = width // 2
    for _ in range(2):
        before = 2 * means[:, :1] - means[:, half:0:-1]
        after = 2 * means[:, -1:] - means[:, -2 : -half - 2 : -1]
        summed = np.cumsum(np.concatenate([np.zeros_like(means[:, :1]), before, means, after], axis=1), axis=1)
        means = (summed[:, width:] - summed[:, :-width]) / width
    return means
