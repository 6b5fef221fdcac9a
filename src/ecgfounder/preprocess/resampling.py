"""From a recording's sampling rate to the network's.

In: samples at any rate. Out: samples at 500 Hz, or a piece of them without computing the rest.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from ecgfounder.preprocess.recipes import NETWORK_RATE, Samples

# Polyphase resampling takes the ratio of rates as a fraction with at most this denominator: 1e-8 off at worst.
_LARGEST_DENOMINATOR = 10_000


_POLYPHASE_HALF_LENGTH = 10  # in samples of the slower rate; scipy.signal.resample_poly's own choice


def resample(
    samples: Samples,
    sampling_rate: float,
    target: float = NETWORK_RATE,
    *,
    method: str = "linear",
    start: int = 0,
    stop: int | None = None,
) -> Samples:
    """Samples [n_leads, n] at `sampling_rate` Hz as they are at `target` Hz.

    The result has round(n * target / sampling_rate) samples, the k-th at time k / target; beyond the last sample that
    was recorded, it is held. `start` and `stop` ask for a piece of the result without computing the rest.

    Parameters
    ----------
    method : str, default: "linear"
        "linear": interpolation between the two neighbours, so that halving the rate takes every second sample.
        "polyphase": `scipy.signal.resample_poly` with its default filter, which takes out what the new rate cannot
        hold.

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


def _polyphase(samples: Samples, sampling_rate: float, target: float, start: int, stop: int) -> Samples:
    """Outputs [start, stop) of the polyphase filter, from the inputs that they depend on alone."""
    from scipy.signal import resample_poly

    ratio = (Fraction(target) / Fraction(sampling_rate)).limit_denominator(_LARGEST_DENOMINATOR)
    up, down = ratio.numerator, ratio.denominator
    # Pieces begin where an output falls on an input (every `up` outputs, `down` inputs), so that phases agree.
    reach = math.ceil(_POLYPHASE_HALF_LENGTH * max(up, down) / up) + 1
    margin = math.ceil(reach / down)
    first = max(0, start // up - margin)
    end = min(samples.shape[1], math.ceil(stop * down / up) + reach)
    piece = samples[:, first * down : end].astype(np.float64)
    out = resample_poly(piece, up, down, axis=-1, padtype="edge")[:, start - first * up : stop - first * up]
    # A rate that is no small fraction of the target can leave the filter's output short of a sample at the end.
    short = stop - start - out.shape[1]
    if short > 0:
        out = np.pad(out, ((0, 0), (0, short)), mode="edge")
    return np.asarray(out, dtype=np.float32)
