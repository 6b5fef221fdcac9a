"""Numbers, units and counts of ECG files.

In: the text of an XML element or a code; stored counts. Out: arrays of numbers; millivolts per unit; samples in millivolts.
Parsing is strict, because a number that is skipped silently shifts all samples after it, and vectorised for speed.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.recording import Samples
from ecgfounder.errors import ReadError
from ecgfounder.readers.source import Hints
from ecgfounder.readers.xml import number

try:
    import ecgfounder.readers._loops as _loops
except ImportError:  # not built
    _loops = None  # type: ignore[assignment]

_MILLIVOLTS_PER = {
    "nv": 1e-6,
    "nanovolt": 1e-6,
    "uv": 1e-3,
    "mcv": 1e-3,
    "microv": 1e-3,
    "uvolt": 1e-3,
    "microvolt": 1e-3,
    "mv": 1.0,
    "milliv": 1.0,
    "mvolt": 1.0,
    "millivolt": 1.0,
    "v": 1e3,
    "volt": 1e3,
}
_MICRO = re.compile("^(?:\u00c2?\u00b5|\u03bc|\u00ce\u00bc|\u00e6)")
MAX_MILLIVOLTS = 1e6  # a kilovolt: larger values are errors of the unit or of the file
_PIECE = 1 << 20  # samples that are converted to millivolts at once
_MAX_DIGITS = 9  # of numbers that fit in int32; longer numbers are parsed by a slower function
_MARGIN = b" " * (_MAX_DIGITS + 1)


@lru_cache(64)
def millivolts_per(unit: str) -> float | None:
    """Millivolts per `unit` ('uV', 'µV', 'MICROVOLTS', 'mV', 'V', 'nV' ...); None if it is not a unit of voltage.

    Letter case is ignored: vendors write 'uV', 'UV' and 'MICROVOLTS', and no ECG is in megavolts. The letter µ is known in UTF-8
    and in code page 437 too, where the unit was read as Latin-1.
    """
    plain = unit.strip(" \t\r\n\0")
    if not plain.isascii():
        plain = _MICRO.sub("u", plain)
    plain = plain.casefold()
    return _MILLIVOLTS_PER.get(plain) or _MILLIVOLTS_PER.get(plain.removesuffix("s"))


def to_millivolts(
    counts: npt.NDArray[Any],
    scale: float,
    offset: float = 0.0,
    what: str = "a lead",
    *,
    no_sample: int | None = None,
    out: Samples | None = None,
) -> Samples:
    """counts x scale + offset, computed in float64.

    Parameters
    ----------
    counts : numpy.ndarray
        Numbers [n_samples]; NaN for missing samples.
    scale, offset : float
        Millivolts per count, and millivolts at count 0.
    what : str, default: "a lead"
        Name of the samples in the error message.
    no_sample : int, optional
        The count that marks a missing sample, if the format has one; it becomes NaN.
    out : numpy.ndarray, optional
        float32 array [n_samples] to fill; a new array if None.

    Returns
    -------
    numpy.ndarray
        float32 [n_samples], in millivolts: `out`, if given.

    Raises
    ------
    ReadError
        If a sample is larger than a kilovolt.
    """
    filled = np.empty(len(counts), dtype=np.float32) if out is None else out
    for begin in range(0, len(counts), _PIECE):  # a 24-hour Holter recording would not fit in float64
        _fill(filled[begin : begin + _PIECE], counts[begin : begin + _PIECE], scale, offset, no_sample, what)
    return filled


def _fill(
    out: Samples, counts: npt.NDArray[Any], scale: float, offset: float, no_sample: int | None, what: str
) -> None:
    absent = None
    low, high = _range(counts)
    if no_sample is not None and low <= no_sample <= high:
        absent = counts == no_sample
        low, high = _range(counts[~absent])
    check_millivolts(low, high, scale, offset, what)
    with np.errstate(over="ignore", invalid="ignore"):  # counts that mark missing samples may have any value
        if offset == 0:
            np.multiply(counts, scale, out=out, dtype=np.float64, casting="unsafe")
        else:
            out[:] = counts * np.float64(scale) + offset
    if absent is not None:
        out[absent] = np.nan


def check_millivolts(low: float, high: float, scale: float, offset: float, what: str) -> None:
    """Raise a `ReadError` if the lowest or the highest count is more than a kilovolt; counts may be NaN."""
    if max(abs(low * scale + offset), abs(high * scale + offset)) > MAX_MILLIVOLTS:
        raise ReadError(f"{what}: samples of more than a kilovolt: the unit is wrong, or the file is damaged")


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Minimum and maximum, ignoring NaN; NaN if there are no numbers."""
    return (float(np.fmin.reduce(values)), float(np.fmax.reduce(values))) if len(values) else (math.nan, math.nan)


def hinted_scale(hints: Hints) -> float | None:
    """Millivolts per stored unit, from the user's hint: a unit ("uV") or a number of units per millivolt ("200").

    Raises
    ------
    ReadError
        If the hint is neither; without a hint the result is None.
    """
    if hints.unit is None:
        return None
    scale = millivolts_per(hints.unit)
    if scale is not None:
        return scale
    try:
        per_millivolt = float(hints.unit)
    except ValueError:
        per_millivolt = math.nan
    if not (math.isfinite(per_millivolt) and per_millivolt > 0):
        raise ReadError(
            "Invalid value for the 'unit' parameter. Allowed values are V, mV, uV, nV or a number of units per mV, "
            f"got {hints.unit!r}."
        )
    return 1 / per_millivolt


def optional_number(text: str | None) -> float | None:
    """A decimal number, or None if the text is not one; for settings that are not required."""
    try:
        return number(text, "setting")
    except ReadError:
        return None


def millivolts_in(text: str, scale: float, offset: float, what: str) -> Samples:
    """The numbers in a text x scale + offset, computed in float64.

    Parameters
    ----------
    text : str
        As in `numbers_of`.
    scale, offset : float
        Millivolts per number, and millivolts at 0.
    what : str
        Name of the lead in the error message.

    Returns
    -------
    numpy.ndarray
        float32 [n], in millivolts. NaN for an empty field between two commas, which marks a missing sample.

    Raises
    ------
    ReadError
        If anything in the text is not a finite decimal number, or a sample is larger than a kilovolt.
    """
    if _loops is not None and text.isascii():
        filled = np.empty(len(text) // 2 + 1, dtype=np.float32)
        n_samples, low, high = _loops.whole_numbers(text, scale, offset, filled)
        if n_samples >= 0:
            check_millivolts(low, high, scale, offset, what)
            return filled[:n_samples]
    return to_millivolts(numbers_of(text, what), scale, offset, what)


def numbers_of(text: str, what: str) -> npt.NDArray[np.float64]:
    """The numbers in a text, all separated by white space or all by single commas.

    Parameters
    ----------
    text : str
        Decimal numbers; there may be a comma at the end.
    what : str
        Name of the text in the error message.

    Returns
    -------
    numpy.ndarray
        float64 [n]. NaN for an empty field between two commas, which marks a missing sample.

    Raises
    ------
    ReadError
        If anything in the text is not a finite decimal number.
    """
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise ReadError(f"{what} contains characters that are not part of a number") from error
    values = _whole_numbers(raw, what)
    return _decimal_numbers(raw, what) if values is None else values


def _whole_numbers(raw: bytes, what: str) -> npt.NDArray[np.float64] | None:
    """All numbers at once, digit by digit from the right.

    None if a number is too long, a field is empty, or there is another character than digits, signs, white space and commas.
    """
    if raw.translate(None, b"0123456789+- \t\r\n,"):
        return None
    text = np.frombuffer(_MARGIN + raw + b" ", dtype=np.uint8)
    digit = text - np.uint8(ord("0"))  # wraps around: only digits are below 10
    is_digit = digit < 10
    edge = np.flatnonzero(is_digit[1:] != is_digit[:-1])
    first, last = edge[::2] + 1, edge[1::2]
    commas = np.flatnonzero(text == ord(","))
    if len(commas):
        one_before_each = np.array_equal(np.searchsorted(commas, first), np.arange(len(first)))
        if not one_before_each or len(commas) > len(first):
            return None
    is_sign = (text == ord("-")) | (text == ord("+"))
    signs = np.flatnonzero(is_sign)
    if not is_digit[signs + 1].all() or (is_digit | is_sign)[signs - 1].any():
        raise ReadError(f"{what} contains a sign that does not begin a number")
    length = last - first + 1
    longest = int(length.max(initial=0))
    if longest > _MAX_DIGITS:
        return None
    value = digit[last].astype(np.int32) if len(last) else np.empty(0, dtype=np.int32)
    for place in range(1, longest):
        value += np.where(length > place, digit[last - place], 0).astype(np.int32) * np.int32(10**place)
    return np.where(text[first - 1] == ord("-"), -value, value).astype(np.float64)


def _decimal_numbers(raw: bytes, what: str) -> npt.NDArray[np.float64]:
    """Numbers with a decimal point or an exponent, and texts with empty fields."""
    if raw.translate(None, b"0123456789+-.eE \t\r\n,"):
        raise ReadError(f"{what} contains characters that are not part of a number")
    fields = raw.split(b",") if b"," in raw else raw.split()
    if fields and not fields[-1].strip():
        fields.pop()
    try:
        values = np.array([float(field) if field.strip() else np.nan for field in fields], dtype=np.float64)
    except ValueError as error:
        raise ReadError(f"{what} contains text that is not a number") from error
    if np.isinf(values).any():
        raise ReadError(f"{what} contains a number that is too large")
    return values
