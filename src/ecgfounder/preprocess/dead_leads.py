"""Leads without a heartbeat, although other leads have one: noise and mains of a loose electrode.

In: samples in mV at the recording's sampling rate. Out: the rows in which nothing repeats with the beats of the others.

A lead whose slopes have no peaks is examined. Beats are located in three leads with the highest peaks. The lead's slopes around
the beats, each scaled to the same energy, are averaged. N beats of noise leave 1/N of the energy; a lead with an ECG leaves much
more. Slopes over 20 ms do not contain 50 Hz, and a moving average of 1/60 s removes 60 Hz.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess.amplitudes import BLOCK
from ecgfounder.preprocess.recipes import Samples

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

Array = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

DEAD_MOVES = 0.5
"""Millivolts within a block; a lead that moves further is not examined."""

FEWEST_BEATS = 6
"""With fewer beats, a weak lead in noise cannot be told from noise."""

# Seconds.
SLOPE = 0.02
BEFORE_BEAT, AFTER_BEAT = 0.1, 0.35
REFRACTORY = 0.3
# Hz.
_MAINS = 60.0
# Millivolt in `SLOPE`: smaller slopes are not scaled up.
LEAST_SLOPE = 0.002
# Usual maximum of a block's slopes by their mean: 4.4 to 5.8 in noise, 1.6 in mains, more than 6.5 in three of four weak leads.
PEAKED = 6.0
# Part of the energy that the average keeps: less than 2/N in 11,517 of 11,520 simulated dead leads (noise and mains of 4 to
# 50 uV), more than that in 77 real leads as weak as that, each in 10 s.
_KEPT_PER_BEAT = 2.0
_KEPT = 0.1
# Part of the energy in the strongest component. Beats of two shapes (bigeminy) may cancel out in the average.
_STRONGEST_PER_BEAT = 2.0
_STRONGEST = 0.5


def dead_leads(samples: Samples, candidates: npt.NDArray[np.bool_], sampling_rate: float) -> list[int]:
    """Rows among the candidates that show no heartbeat.

    Parameters
    ----------
    samples : numpy.ndarray
        Finite float32 [n_leads, n_samples], in mV.
    candidates : numpy.ndarray
        bool [n_leads], the leads that move little.
    sampling_rate : float
        In Hz.

    Returns
    -------
    list of int
        Rows of `samples`; empty if fewer than `FEWEST_BEATS` beats are found in the other leads.
    """
    if len(samples) < 2 or samples.shape[1] < BLOCK * sampling_rate:
        return []
    suspects = [row for row in np.flatnonzero(candidates).tolist() if _peaks(samples[row], sampling_rate) < PEAKED]
    if not suspects:
        return []
    peaks = [_peaks(lead, sampling_rate) for lead in samples]
    clearest = sorted((row for row in range(len(samples)) if peaks[row] >= PEAKED), key=lambda row: -peaks[row])[:3]
    beats = _beats(samples, clearest, sampling_rate)
    return [row for row in suspects if not _repeats(samples[row], beats, sampling_rate)]


def _slopes(lead: Samples, sampling_rate: float) -> Samples:
    lag = max(1, round(SLOPE * sampling_rate))
    return lead[lag:] - lead[:-lag]


def _usual_maximum(steep: npt.NDArray[np.floating], sampling_rate: float) -> float:
    """The median over blocks of the highest value."""
    size = max(1, round(BLOCK * sampling_rate))
    starts = np.arange(max(1, steep.size // size)) * size
    return float(np.median(np.maximum.reduceat(steep, starts).astype(np.float64)))


def _peaks(lead: Samples, sampling_rate: float) -> float:
    """The usual maximum of the slopes by their mean; 0 for slopes that are all very small."""
    if _passes is not None:
        lag, size = max(1, round(SLOPE * sampling_rate)), max(1, round(BLOCK * sampling_rate))
        mean, usual = _passes.slopes(lead, lag, size)
    else:
        steep = np.abs(_slopes(lead, sampling_rate))
        mean, usual = float(steep.mean(dtype=np.float64)), _usual_maximum(steep, sampling_rate)
    return usual / mean if mean > LEAST_SLOPE else 0.0


def _beats(samples: Samples, guides: list[int], sampling_rate: float) -> Places:
    """Positions of beats: peaks of the guides' slopes that reach half the usual maximum."""
    from scipy.signal import find_peaks

    steep = np.zeros(samples.shape[1] - max(1, round(SLOPE * sampling_rate)), dtype=np.float64)
    for guide in guides:
        slopes = np.abs(_slopes(samples[guide], sampling_rate))
        steep += slopes / max(float(slopes.mean()), 1e-9)
    usual = _usual_maximum(steep, sampling_rate)
    if usual <= 0:
        return np.zeros(0, dtype=np.intp)
    peaks, _ = find_peaks(steep, height=usual / 2, distance=max(1, round(REFRACTORY * sampling_rate)))
    return np.asarray(peaks, dtype=np.intp)


def _without_mains(slopes: Samples, sampling_rate: float) -> Array:
    """A moving average over a period of 60 Hz."""
    period = sampling_rate / _MAINS
    whole = int(period)
    out = slopes.astype(np.float64)
    if whole < 1:
        return out
    # `whole` samples of weight 1 between two of a smaller weight, with which the response at 60 Hz is exactly 0.
    angle = 2 * np.pi / period
    edge = -np.sin(whole * angle / 2) / np.sin(angle / 2) / (2 * np.cos((whole + 1) * angle / 2))
    taps = np.concatenate([[edge], np.ones(whole), [edge]]) / period
    return np.convolve(out, taps, mode="same")


def _repeats(lead: Samples, beats: Places, sampling_rate: float) -> bool:
    """Whether the slopes around the beats have anything in common; True if there are too few beats to decide."""
    slopes = _without_mains(_slopes(lead, sampling_rate), sampling_rate)
    before, after = round(BEFORE_BEAT * sampling_rate), round(AFTER_BEAT * sampling_rate)
    whole = beats[(beats >= before) & (beats + after <= slopes.size)]
    n_beats = int(whole.size)
    if n_beats < FEWEST_BEATS:
        return True
    around = slopes[whole[:, None] + np.arange(-before, after)]
    around = around - around.mean(axis=1, keepdims=True)
    around /= np.maximum(np.sqrt(np.square(around).mean(axis=1, keepdims=True)), LEAST_SLOPE)
    kept = float(np.square(around.mean(axis=0)).mean())
    if kept >= max(_KEPT_PER_BEAT / n_beats, _KEPT):
        return True
    strongest = float(np.linalg.eigvalsh(around @ around.T)[-1]) / around.size
    return bool(strongest >= max(_STRONGEST_PER_BEAT / n_beats, _STRONGEST))
