"""Whether two recordings hold the same signal: re-encoded, resampled, cut, shifted, with another gain, or with a lead less.

In: `Recording`s. Out: `Trace`s, and an `Alignment` of two, with its verdict.

Both are brought to 100 Hz and differentiated, so that offsets, wander and most of what filters change have no weight and each
sample depends on its neighbours alone. The correlation of all common leads together is computed at every shift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from ecgfounder.analysis.similarity.space import Doubles, Floats
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.calibration import calibration_pulses
from ecgfounder.preprocess.resampling import resample

RATE = 100.0
"""Samples per second of what is compared."""

SAME = 0.98
"""The least correlation of the same signal."""

ONLY_HERE = 0.1
"""What one signal does not explain of the other must be less than this share of what it is at any other alignment: the beats of a
regular rhythm fit each other, too."""

LONGEST = 120.0
"""Seconds of a recording, from its start, that are compared."""

SHORTEST = 2.0
"""Seconds that both must have in common."""

OVERLAP = 0.75
"""Share of the shorter one that both must have in common."""

_ELSEWHERE = 0.2
"""Seconds from the best alignment at which another one begins."""
_FINER = 8
"""Shifts in a sample."""
_DERIVATIVE = np.array([1.0, 2.0, 0.0, -2.0, -1.0]) / 8
_FLAT = 1e-6
"""Millivolts, root mean square, of a derivative that is rounding."""
_MARGIN = 0.1
"""Seconds beside a calibration pulse that are left out with it."""

FLAT, SHORT, NO_LEAD, PERIODIC, DIFFERENT = (
    "a signal is flat",
    "a signal is shorter than 2 s",
    "no lead in common",
    "every beat fits any other",
    "the signals differ",
)
"""Why two recordings are not confirmed as the same signal."""


@dataclass(frozen=True, eq=False)
class Trace:
    """What is compared of a recording.

    Attributes
    ----------
    leads : tuple of str
        Leads with a signal.
    slopes : numpy.ndarray
        float32 [n_leads, n], the derivative at 100 Hz, 0 where samples were missing or a calibration pulse was.
    """

    leads: tuple[str, ...]
    slopes: Floats

    @classmethod
    def of(cls, recording: Recording) -> Trace:
        """The trace of a recording; one without leads if all are flat."""
        stop = math.ceil(LONGEST * recording.sampling_rate)
        samples = np.ascontiguousarray(np.nan_to_num(recording.samples[:, :stop], posinf=0, neginf=0))
        slow = resample(samples, recording.sampling_rate, RATE, method="polyphase")
        if slow.shape[1] < len(_DERIVATIVE):
            return cls((), np.zeros((0, 0), np.float32))
        slopes = np.stack([np.convolve(lead, _DERIVATIVE, mode="valid") for lead in slow.astype(np.float64)])
        for start, stop in calibration_pulses(samples, recording.leads, recording.sampling_rate):
            first, end = (each / recording.sampling_rate * RATE for each in (start, stop))
            slopes[:, max(0, int(first - _MARGIN * RATE)) : int(end + _MARGIN * RATE) + 1] = 0
        alive = np.sqrt((slopes**2).mean(axis=1)) > _FLAT
        names = tuple(name for name, has in zip(recording.leads, alive, strict=True) if has)
        return cls(names, slopes[alive].astype(np.float32))


@dataclass(frozen=True)
class Alignment:
    """Two traces at the shift at which they agree most.

    Attributes
    ----------
    correlation : float
        Of all common leads together; NaN if nothing could be compared.
    elsewhere : float
        The largest correlation at another alignment.
    shift : float
        Seconds by which the second recording begins later than the first.
    gain : float
        The second signal's amplitude, relative to the first one's.
    seconds, n_leads : float, int
        How much was compared.
    lost : tuple of str
        Leads that only one of them has.
    reason : str
        Why they are not the same signal; "" if they are.
    """

    correlation: float
    elsewhere: float
    shift: float
    gain: float
    seconds: float
    n_leads: int
    lost: tuple[str, ...]
    reason: str

    @property
    def is_same(self) -> bool:
        """Whether both are the same signal."""
        return not self.reason


def align(one: Trace, other: Trace) -> Alignment:
    """Compare two traces at all shifts at which they overlap enough.

    With the derivatives x and y of the common leads, the correlation at a shift is the sum of x y over leads and common samples,
    divided by the root of the product of the sums of x² and of y²; a gain that all leads share has no effect.
    """
    if not (one.leads and other.leads):
        return _nothing(FLAT)
    common = [name for name in one.leads if name in other.leads]
    if not common:
        return _nothing(NO_LEAD)
    x, y = (each.slopes[[each.leads.index(name) for name in common]].astype(np.float64) for each in (one, other))
    shorter = min(x.shape[1], y.shape[1])
    least = max(int(SHORTEST * RATE) - len(_DERIVATIVE), int(OVERLAP * shorter))
    if shorter < least:
        return _nothing(SHORT)
    shifts, products = _products(x, y)
    start, stop = _common_part(shifts, x.shape[1], y.shape[1])
    enough = stop - start >= least
    shifts, products, start, stop = (each[enough] for each in (shifts, products, start, stop))
    energies = [np.concatenate([[0.0], np.cumsum((each**2).sum(axis=0))]) for each in (x, y)]
    of_x = _between(energies[0], start, stop)
    of_y = _between(energies[1], start + shifts, stop + shifts)
    floor = 1e-3 * (energies[0][-1] * energies[1][-1])  # a part that is nearly flat fits anything
    usable = of_x * of_y > floor
    if not usable.any():
        return _nothing(FLAT)
    correlation = np.full(len(shifts), -1.0)
    correlation[usable] = products[usable] / np.sqrt(of_x[usable] * of_y[usable])
    at = int(np.argmax(correlation))
    best = min(1.0, float(correlation[at]))
    others = correlation[np.abs(shifts - shifts[at]) > _ELSEWHERE * RATE]
    elsewhere = float(others.max(initial=-1.0))
    reason = ""
    if best < SAME:
        reason = DIFFERENT
    elif 1 - best > ONLY_HERE * (1 - elsewhere):
        reason = PERIODIC
    return Alignment(
        best,
        elsewhere,
        float(-shifts[at] / RATE) or 0.0,
        float(products[at] / of_x[at]),
        float((stop[at] - start[at]) / RATE),
        len(common),
        tuple(name for name in (*one.leads, *other.leads) if name not in common),
        reason,
    )


def _between(sums: Doubles, start: Doubles, stop: Doubles) -> Doubles:
    """The sum between two places, of cumulative sums."""
    places = np.arange(len(sums))
    return np.interp(stop, places, sums) - np.interp(start, places, sums)


def _nothing(reason: str) -> Alignment:
    nan = float("nan")
    return Alignment(nan, nan, nan, nan, 0.0, 0, (), reason)


def _products(x: Doubles, y: Doubles) -> tuple[Doubles, ...]:
    """Shifts in samples, in steps of an eighth, and the sum of x(t) y(t + shift) over leads and samples at each."""
    n = next_fast_len(x.shape[1] + y.shape[1], real=True)
    n += n % 2
    cross = (np.conj(rfft(x, n)) * rfft(y, n)).sum(axis=0)
    fine = irfft(cross, n * _FINER) * _FINER
    steps = np.arange(-(x.shape[1] - 1) * _FINER, y.shape[1] * _FINER)
    return steps / _FINER, fine[steps % (n * _FINER)]


def _common_part(shifts: Doubles, n: int, m: int) -> tuple[Doubles, ...]:
    """Start and end, in samples of the first, of what both have at each shift."""
    start, stop = np.maximum(0.0, -shifts), np.minimum(n, m - shifts)
    return start, np.maximum(start, stop)
