"""Calibration pulses in the samples.

In: samples in mV at the recording's sampling rate. Out: the position of each pulse.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess.recipes import Samples

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

# Seconds.
PULSE_RISE = 0.01
PULSE_SHORTEST = 0.04
PULSE_LONGEST = 0.6
# Millivolt.
PULSE = (0.9, 1.1)
PULSE_RIPPLE = 0.1

# Computed by a device or a reader from other leads: they hold combinations of the pulse, not the pulse.
_AUGMENTED = ("III", "aVR", "aVL", "aVF")
_CHUNK = 1 << 20

Pulse = tuple[int, int]
"""First sample, and end."""

Rows = npt.NDArray[np.int64]


def calibration_pulses(samples: Samples, leads: Sequence[str], sampling_rate: float) -> list[Pulse]:
    """Find calibration pulses, as `ecgfounder.preprocess.quality.FLAGS` defines them.

    A pulse that is cut off by the end of the samples counts if there is more than one lead.

    Parameters
    ----------
    samples : numpy.ndarray
        Finite float32 [n_leads, n_samples], in mV.
    leads : sequence of str
        A name for each row.
    sampling_rate : float
        In Hz.

    Returns
    -------
    list of tuple of (int, int)
        First sample and end of each pulse.
    """
    rows = rows_with_pulses(tuple(leads))
    lag = max(1, round(PULSE_RISE * sampling_rate))
    shortest, longest = round(PULSE_SHORTEST * sampling_rate), round(PULSE_LONGEST * sampling_rate)
    pulses: list[Pulse] = []
    for start in _starts_of_plateaus(samples, rows, lag, shortest):
        if pulses and start < pulses[-1][1]:
            continue
        length = _length_of_plateau(samples, rows, start, longest + 1)
        end = start + length
        if not shortest <= length <= longest:
            continue
        if end == samples.shape[1]:
            ends_there = len(rows) > 1
        else:
            fall = samples[:, end - 1] - samples[:, min(end + lag, samples.shape[1]) - 1]
            ends_there = all(PULSE[0] < value < PULSE[1] for value in fall[rows].tolist())
        if ends_there:
            pulses.append((start, end))
    return pulses


@lru_cache(maxsize=256)  # the files of a cohort have the same leads
def rows_with_pulses(leads: tuple[str, ...]) -> Rows:
    """The rows that show a calibration pulse: not computed leads, if there are others."""
    own = [row for row, lead in enumerate(leads) if lead not in _AUGMENTED]
    rows = np.array(own or range(len(leads)), np.int64)
    rows.flags.writeable = False
    return rows


def _starts_of_plateaus(samples: Samples, rows: Rows, lag: int, shortest: int) -> list[int]:
    """Samples that are a pulse's height above the one `lag` before in all rows, and followed by a plateau."""
    if _passes is not None:
        return _passes.plateau_starts(samples, rows, lag, shortest, *PULSE, PULSE_RIPPLE)
    last = samples.shape[1] - shortest
    found: list[npt.NDArray[np.intp]] = []
    for begin in range(0, max(0, last - lag), _CHUNK):  # the differences of a 24-hour recording would need much memory
        row = samples[rows[0], begin : min(begin + _CHUNK, last - lag) + lag]
        step = row[lag:] - row[:-lag]
        found.append(np.flatnonzero((step > PULSE[0]) & (step < PULSE[1])) + (begin + lag))
    starts = np.concatenate(found) if found else np.zeros(0, dtype=np.intp)
    every = rows[:, None]
    for some in (every[:1], every[1:]):  # after the first row, few candidates are left for the others
        if starts.size == 0:
            break
        at = samples[some, starts]
        step = at - samples[some, starts - lag]
        fits = (step > PULSE[0]) & (step < PULSE[1])
        for later in (shortest // 2, shortest - 1):
            fits &= np.abs(samples[some, starts + later] - at) < PULSE_RIPPLE
        starts = starts[fits.all(axis=0)]
    return [int(start) for start in starts]


def _length_of_plateau(samples: Samples, rows: Rows, start: int, most: int) -> int:
    """Samples from `start` on, at most `most`, in which all rows stay near their values there."""
    if _passes is not None:
        return _passes.plateau_length(samples, rows, start, most, PULSE_RIPPLE)
    plateau = samples[rows, start : start + most]
    off = (np.abs(plateau - plateau[:, :1]) >= PULSE_RIPPLE).any(axis=0)
    return int(off.argmax()) if off.any() else off.size


def without_pulses(samples: Samples, pulses: Sequence[Pulse], start: int, stop: int) -> tuple[int, int]:
    """The longest part of [start, stop) without a pulse, less the samples around it in which no lead moves.

    A device may write zeros before and after a pulse. An empty part is replaced by [start, stop).
    """
    bounds = [start, *(min(max(edge, start), stop) for pulse in pulses for edge in pulse), stop]
    pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
    first, end = max(pairs, key=lambda pair: pair[1] - pair[0])
    if end > start and first > start:
        first += still_samples(samples[:, first:end])
    if end < stop:
        end -= still_samples(samples[:, first:end], at_end=True)
    return (first, end) if end > first else (start, stop)


def still_samples(samples: Samples, *, at_end: bool = False, of_zero: bool = False) -> int:
    """Samples at the start, or at the end, in which no lead moves; with `of_zero`, in which all leads are zero."""
    if _passes is not None:
        return _passes.still_samples(samples, at_end, of_zero)
    ordered = samples[:, ::-1] if at_end else samples
    moving = np.flatnonzero(np.any(ordered != (0 if of_zero else ordered[:, :1]), axis=0))
    return int(moving[0]) if moving.size else int(samples.shape[1])
