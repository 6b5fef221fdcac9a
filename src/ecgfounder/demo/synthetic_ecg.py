"""Synthetic 12-lead ECGs: a rhythm, waves along the heart's axes, leads, noise.

In: a `Rhythm` and a generator of random numbers. Out: samples in counts, [12, n_samples], and the times of early beats.

The heart is modelled as a dipole: each wave is a Gaussian in time along a vector (left, down, front) in mV, and a lead is the
projection on the lead's direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESOLUTION_UV = 5.0
COUNTS_PER_MV = 1000 / RESOLUTION_UV


@dataclass(frozen=True)
class Rhythm:
    """The beats of a synthetic recording.

    Attributes
    ----------
    rate : float
        Heart rate per minute.
    pr : float or None
        Seconds from P to R; None without P waves, with fibrillation waves.
    jitter : float
        Relative variation of beat intervals.
    premature : frozenset of int
        The numbers of beats, from 1, that are early and wide.
    """

    rate: float
    pr: float | None = 0.16
    jitter: float = 0.02
    premature: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Wave:
    """A Gaussian around `time` (s from the R peak), of standard deviation `width` (s), along `vector` (mV)."""

    time: float
    width: float
    vector: tuple[float, float, float]


_QRS = (
    _Wave(-0.024, 0.009, (-0.12, -0.02, 0.22)),
    _Wave(0.0, 0.011, (0.85, 0.75, -0.25)),
    _Wave(0.026, 0.011, (-0.14, -0.20, -0.55)),
)
_PREMATURE_QRS = (_Wave(0.0, 0.035, (-0.70, 0.90, 0.95)), _Wave(0.07, 0.030, (0.35, -0.40, -0.50)))
_P_VECTOR = (0.07, 0.10, 0.03)
_P_WIDTH = 0.022
_T_VECTOR = (0.26, 0.24, 0.22)
_T_WIDTH = 0.050
_T_TIME = 0.30  # after R at 60 beats a minute; proportional to the square root of the interval (Bazett)


def _direction(degrees: float, down: float, gain: float) -> tuple[float, float, float]:
    """A chest electrode `degrees` in front of the left axis, in the horizontal plane."""
    return (
        gain * math.cos(math.radians(degrees)),
        gain * down,
        gain * math.sin(math.radians(degrees)),
    )


# Directions of leads I, II and V1 to V6; the other limb leads are derived from I and II.
_DIRECTIONS = np.array(
    [
        (1.0, 0.0, 0.0),
        (0.5, math.sqrt(0.75), 0.0),
        _direction(120, 0.0, 1.1),
        _direction(96, 0.0, 1.5),
        _direction(74, 0.1, 1.5),
        _direction(52, 0.2, 1.4),
        _direction(25, 0.2, 1.2),
        _direction(0, 0.2, 1.0),
    ]
)


def synthetic_ecg(
    rhythm: Rhythm, rng: np.random.Generator, seconds: float = 10, sampling_rate: float = 500
) -> tuple[npt.NDArray[np.int64], list[float]]:
    """A recording of a rhythm.

    Returns
    -------
    numpy.ndarray
        int64 [12, n_samples], in counts of `RESOLUTION_UV`, in the order of the standard leads.
    list of float
        Seconds of the R peaks of early beats, those outside the recording too.
    """
    n_samples = round(seconds * sampling_rate)
    times = np.arange(n_samples) / sampling_rate
    dipole = np.zeros((3, n_samples))
    early: list[float] = []
    for wave, at in _waves(rhythm, rng, early):
        dipole += np.array(wave.vector)[:, None] * np.exp(-0.5 * ((times - at - wave.time) / wave.width) ** 2)
    signals = _DIRECTIONS @ dipole
    signals += rng.normal(0, 0.008, signals.shape)  # muscle and amplifier noise
    for signal in signals:  # baseline wander by breathing, different for each electrode
        frequency, phase = rng.uniform(0.15, 0.35), rng.uniform(0, 2 * math.pi)
        signal += rng.uniform(0.02, 0.08) * np.sin(2 * math.pi * frequency * times + phase)
    if rhythm.pr is None:  # fibrillation waves, largest in leads II and V1
        fibrillation = 0.05 * np.sin(2 * math.pi * 6.1 * times + 2 * np.sin(2 * math.pi * 0.4 * times))
        signals[[1, 2]] += fibrillation
    stored = np.rint(signals * COUNTS_PER_MV).astype(np.int64)
    i, ii = stored[0], stored[1]
    iii = ii - i
    limb_leads = np.stack([i, ii, iii, -((i + ii) >> 1), (i - iii) >> 1, (ii + iii) >> 1])
    return np.concatenate([limb_leads, stored[2:]]), early


def _waves(rhythm: Rhythm, rng: np.random.Generator, early: list[float]) -> Iterator[tuple[_Wave, float]]:
    """All waves of 11 s, each with the time of the R peak of its beat; the times of early beats are added to `early`."""
    mean_interval = 60 / rhythm.rate
    at, beat = rng.uniform(0.1, 0.1 + mean_interval / 2), 1
    while at < 11.5:
        interval = mean_interval * max(0.5, 1 + rhythm.jitter * rng.standard_normal())
        t_time = _T_TIME * math.sqrt(mean_interval)
        if beat in rhythm.premature:
            early.append(at - 0.3 * mean_interval)
            yield from ((wave, early[-1]) for wave in _PREMATURE_QRS)
            yield _Wave(t_time + 0.04, _T_WIDTH, (0.30, -0.35, -0.30)), early[-1]
        else:
            yield from ((wave, at) for wave in _QRS)
            yield _Wave(t_time, _T_WIDTH * min(1.2, math.sqrt(mean_interval)), _T_VECTOR), at
            if rhythm.pr is not None:
                yield _Wave(-rhythm.pr, _P_WIDTH, _P_VECTOR), at
        at += interval
        beat += 1
