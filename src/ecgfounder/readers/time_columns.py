"""Columns of times or numbers of rows in tables, and the sampling rate that they give.

In: a column's name, unit and fields. Out: whether it tells the time; the sampling rate in Hz.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

_NAME = re.compile(
    r"(?:elapsed[ _]*)?(?P<name>time|times|t|seconds?|secs?|milliseconds?|minutes?|hours?|timestamps?|elapsed"
    r"|samples?(?:[ _]*(?:#|no\.?|number|index|intervals?))?|index|idx|frame|nseq|seq|row|unnamed: 0"
    r"|date|date[ _]*time|(?:date|time)(?:[ _]+and)?[ _]+(?:time|date)"
    r"|zeit|temps|tiempo|tempo|время|时间|時間|)"
    r"[ _]*[(\[/_]?\s*(?P<unit>s|secs?|seconds|ms|msecs?|milliseconds|us|µs|μs|min|minutes|h|hours)?[)\]]?",
    re.IGNORECASE,
)
_IS_CLOCK = frozenset(
    (
        "time",
        "times",
        "t",
        "timestamp",
        "timestamps",
        "elapsed",
        "zeit",
        "temps",
        "tiempo",
        "tempo",
        "время",
        "时间",
        "時間",
    )
)
_SECONDS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "msecs", "millisecond", "milliseconds"), 1e-3),
    "us": 1e-6,
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hour", "hours"), 3600.0),
}
_INTERVAL = re.compile(r"(0?\.\d{2,12}|\d(?:\.\d{1,12})?e-\d\d?) *s(?:ec)?", re.IGNORECASE)
_CLOCK = re.compile(
    r"(?:(?P<date>\d{4}[-/.]\d\d?[-/.]\d\d?|\d\d?[-/.]\d\d?[-/.]\d{4})[T ]+)?"
    r"(?:(?P<hours>\d{1,3}):)?(?P<minutes>\d{1,2}):(?P<seconds>\d{2}(?:[.,]\d{1,9})?)"
    r"(?:Z|[ ]?[+-]\d\d:?\d\d)?(?:[ ]+\d\d?[-/.]\d\d?[-/.]\d{4})?"
)
_USUAL_RATES: tuple[float, ...] = (
    *(50, 64, 100, 120, 125, 128, 180, 200, 240, 250, 256, 300, 320, 360, 400, 480, 500, 512, 600, 640, 800, 960),
    *(1000, 1024, 1200, 1600, 2000, 2048, 2400, 4000, 4096, 5000, 8000, 8192, 10000),
)
_MAX_WIDTH = 0.2  # in Hz: an interval of possible rates so narrow has a whole number by chance in one of five tables
_DAY = 86400.0


def tells_time(name: str) -> bool:
    """Whether a column's name is that of times, or of numbers of rows; also an empty name, which is usual for the latter."""
    return _NAME.fullmatch(" ".join(name.split())) is not None


def is_clock(field: str) -> bool:
    """Whether a field is a time of day or an elapsed time in hours, minutes and seconds, with or without a date."""
    return len(field) < 48 and _CLOCK.fullmatch(field.strip("[] ")) is not None


def clock_times(fields: Sequence[str]) -> tuple[Times, float] | None:
    """Seconds of clock times ('0:00.133', '[12:00:00.003 01/01/2000]'), rising past midnight, and the value of their last digit.

    None if a field is not a clock time.
    """
    times, texts = np.empty(len(fields)), []
    for row, field in enumerate(fields):
        found = _CLOCK.fullmatch(field.strip("[] ")) if len(field) < 48 else None
        if found is None:
            return None
        texts.append(found["seconds"].replace(",", "."))
        times[row] = int(found["hours"] or 0) * 3600 + int(found["minutes"]) * 60 + float(texts[-1])
    midnights = np.cumsum(np.diff(times, prepend=times[:1]) < -_DAY / 2)
    return times + midnights * _DAY, resolution_of(texts[:64])


def seconds_per_unit(name: str, unit_below: str, step: float) -> float | None:
    """Seconds per unit of a column of times; None if it is not known.

    Parameters
    ----------
    name : str
        The column's name, of which `tells_time` is true.
    unit_below : str
        The unit in a separate line; empty if there is none.
    step : float
        The mean difference of two times. Times whose unit is not stated are seconds if the rate would be 20 Hz to 100 kHz.
    """
    found = _NAME.fullmatch(" ".join(name.split()))
    if found is None:
        return None
    unit = (found["unit"] or unit_below).lower().replace("µ", "u").replace("μ", "u").strip("()[] ")
    plain = found["name"].lower()
    interval = _INTERVAL.fullmatch(unit)
    if interval is not None:
        return float(interval[1])
    known = _SECONDS.get(unit) or _SECONDS.get(plain)
    return known or (1.0 if plain in _IS_CLOCK and not unit and 1e-5 <= step <= 0.05 else None)


def interval_rate(unit: str) -> float | None:
    """The sampling rate from a unit such as '0.00277778 sec', the time between two samples; None if the unit is not a time.

    The last digit may be rounded or cut off, so the result is the only usual rate that this allows, if there is one.
    """
    found = _INTERVAL.fullmatch(unit.strip("()[] "))
    if found is None:
        return None
    step, digit = float(found[1]), resolution_of([found[1]])
    low, high = (1 / (step + digit), 1 / (step - digit)) if step > digit else (0.0, math.inf)
    usual = [rate for rate in _USUAL_RATES if low <= rate <= high]
    return usual[0] if len(usual) == 1 else 1 / step if step > 0 else None


def resolution_of(numbers: Sequence[str]) -> float:
    """The value of the last digit of decimal numbers: 0.001 for '10.003'; 0 if a number has an exponent."""
    if any("e" in number.lower() for number in numbers):
        return 0.0
    return float(10.0 ** -max((len(number.replace(",", ".").partition(".")[2]) for number in numbers), default=0))


def rate_of(times: Times, resolution: float) -> float | None:
    """The sampling rate from the times of all samples, in seconds.

    Times are rounded: those of 360 Hz with three decimals are 2 or 3 ms apart. The result is the only usual rate at which
    all times are within the rounding, if there is one. Else it is a whole number, if it is the only one, or the rate of a
    straight line through the times.

    Parameters
    ----------
    times : numpy.ndarray
        float64 [n_samples].
    resolution : float
        The value of the times' last digit, in seconds.

    Returns
    -------
    float
        In Hz; None if the times do not rise evenly, or are too coarse for the rate.
    """
    if len(times) < 2 or not np.isfinite(times).all():
        return None
    span = float(times[-1] - times[0])
    if span <= 0:
        return None
    mean = (len(times) - 1) / span
    inexact = 1e-12 * span + 8 * float(np.spacing(np.abs(times).max()))
    allowed = resolution * (1 + 1e-6) + inexact
    number = np.arange(len(times))

    def fits(rate: float, within: float = allowed) -> bool:
        late = times - number / rate
        return bool(late.max() - late.min() <= within)

    low = (len(times) - 1) / (span + allowed)
    high = (len(times) - 1) / (span - allowed) if span > allowed else math.inf
    usual = [rate for rate in _USUAL_RATES if low <= rate <= high and fits(rate)]
    if len(usual) == 1:
        return usual[0]
    is_rounded = fits(mean, 2 * allowed)  # the first and the last time are rounded as well
    if is_rounded and allowed * mean > 1.5:
        return None  # too many samples have the same time
    if not is_rounded and np.abs(np.diff(times) * mean - 1).max() > 0.51:
        return None
    whole = float(round(mean))
    if is_rounded and high - low < _MAX_WIDTH and low <= whole <= high and fits(whole):
        return whole
    return _near_whole(mean if fits(mean, inexact) else 1 / float(np.polyfit(number, times - times[0], 1)[0]))


def _near_whole(rate: float) -> float:
    whole = round(rate)
    return float(whole) if whole and abs(rate - whole) < 1e-6 * rate else rate
