"""Resampling to the network's sampling rate.

In: samples at any rate. Out: samples at 500 Hz, or a part of them without computing the rest.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np

from ecgfounder.preprocess.recipes import NETWORK_RATE, Samples

POLYPHASE_VERSION = 2
"""Version of the polyphase method, part of a run's fingerprint. Version 1 drifted at rates like 499.98 Hz."""

# `scipy.signal.resample_poly` needs the ratio of the rates as a fraction of integers; its filter grows with them.
_LARGEST_FACTOR = 10_000
# Relative error of such a fraction that is rounding of the rate as a float: 40 us in a year.
_SAME_RATIO = 1e-12

# The low-pass of `resample_poly`: a sinc, cut off at this many samples of the slower rate by a Kaiser window.
_HALF_LENGTH = 10
_KAISER_BETA = 5.0

# Outputs that are computed at once by the direct method, to bound its memory.
_OUTPUTS_AT_ONCE = 1 << 16


def resample(
    samples: Samples,
    sampling_rate: float,
    target: float = NETWORK_RATE,
    *,
    method: str = "linear",
    start: int = 0,
    stop: int | None = None,
) -> Samples:
    """Resample [n_leads, n] samples from `sampling_rate` to `target`, both in Hz.

    The result has round(n * target / sampling_rate) samples, the k-th at time k / target. After the last recorded sample, that
    sample is repeated. `start` and `stop` select a part of the result; the rest is not computed.

    Parameters
    ----------
    method : str, default: "linear"
        "linear": interpolation between the two neighbours; half the rate takes every second sample.
        "polyphase": the low-pass of `scipy.signal.resample_poly`, which removes frequencies that the new rate cannot hold.

    Returns
    -------
    numpy.ndarray
        float32 [n_leads, stop - start].
    """
    length = round(samples.shape[1] * target / sampling_rate)
    stop = length if stop is None else min(stop, length)
    if sampling_rate == target:
        return samples[:, start:stop]
    if method == "polyphase":
        return _polyphase(samples, sampling_rate, target, start, stop)
    ratio = sampling_rate / target
    if ratio == int(ratio):
        step = int(ratio)
        return samples[:, start * step : (stop - 1) * step + 1 : step]
    last = samples.shape[1] - 1
    position = np.minimum(np.arange(start, stop) * sampling_rate / target, last)
    left = position.astype(np.int64)
    share = position - left
    here, after = samples[:, left], samples[:, np.minimum(left + 1, last)]
    return np.asarray(here * (1.0 - share) + after * share, dtype=np.float32)


@lru_cache(maxsize=256)
def gain(frequency: float, sampling_rate: float, target: float, method: str) -> float:
    """Gain of `resample` for a sine of `frequency` Hz, measured on one; 0 if the sampling rate cannot hold the frequency."""
    if 2 * frequency >= sampling_rate:
        return 0.0
    seconds = 4.0
    angle = 2 * np.pi * frequency / sampling_rate * np.arange(round(seconds * sampling_rate))
    out = resample(np.stack([np.cos(angle), np.sin(angle)]).astype(np.float32), sampling_rate, target, method=method)
    quarter = out.shape[1] // 4  # the ends hold their last samples
    kept = np.arange(quarter, 3 * quarter)
    turned = (out[0, kept] + 1j * out[1, kept]) * np.exp(-2j * np.pi * frequency / target * kept)
    return float(abs(turned.mean()))


def _polyphase(samples: Samples, sampling_rate: float, target: float, start: int, stop: int) -> Samples:
    """Outputs [start, stop) of the low-pass, from those inputs alone that they depend on."""
    exact = Fraction(target) / Fraction(sampling_rate)
    ratio = exact.limit_denominator(_LARGEST_FACTOR)
    if ratio.numerator > _LARGEST_FACTOR or abs(float(ratio / exact) - 1) > _SAME_RATIO:
        return _direct(samples, sampling_rate, target, start, stop)
    from scipy.signal import resample_poly

    up, down = ratio.numerator, ratio.denominator
    # Parts begin where an output coincides with an input (every `up` outputs, `down` inputs), so that phases agree.
    reach = math.ceil(_HALF_LENGTH * max(up, down) / up) + 1
    margin = math.ceil(reach / down)
    first = max(0, start // up - margin)
    end = min(samples.shape[1], math.ceil(stop * down / up) + reach)
    piece = samples[:, first * down : end].astype(np.float64)
    out = resample_poly(piece, up, down, axis=-1, window=("kaiser", _KAISER_BETA), padtype="edge")
    out = out[:, start - first * up : stop - first * up]
    # At the end, the filter may give one output less than the rounded length.
    short = stop - start - out.shape[1]
    if short > 0:
        out = np.pad(out, ((0, 0), (0, short)), mode="edge")
    return np.asarray(out, dtype=np.float32)


def _direct(samples: Samples, sampling_rate: float, target: float, start: int, stop: int) -> Samples:
    """The same low-pass with its taps computed for each output, for rates whose ratio is not a fraction of small integers."""
    step = sampling_rate / target
    slower = max(1.0, step)  # inputs per sample of the slower rate
    half = _HALF_LENGTH * slower
    last = samples.shape[1] - 1
    taps = np.arange(-math.ceil(half), math.ceil(half) + 1)
    out = np.empty((samples.shape[0], stop - start), dtype=np.float32)
    for begin in range(start, stop, _OUTPUTS_AT_ONCE):
        end = min(begin + _OUTPUTS_AT_ONCE, stop)
        position = np.arange(begin, end, dtype=np.float64) * step
        nearest = np.rint(position).astype(np.int64)
        total = np.zeros(end - begin)
        weighted = np.zeros((samples.shape[0], end - begin))
        for tap in taps:
            distance = nearest + tap - position
            inside = np.sqrt(np.maximum(0.0, 1.0 - np.square(distance / half)))
            weight = np.where(abs(distance) < half, np.sinc(distance / slower) * np.i0(_KAISER_BETA * inside), 0.0)
            total += weight
            weighted += weight * samples[:, np.clip(nearest + tap, 0, last)]
        out[:, begin - start : end - start] = weighted / total
    return out
