"""Numbers, units and counts as ECG files hold them.

In: the text of an XML element or of a code; stored counts. Out: arrays of numbers; what a unit is worth; millivolts.
Strict, because a number quietly skipped would shift every sample after it; vectorised, because this takes the time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.recording import Samples
from ecgfounder.errors import ReadError
from ecgfounder.readers.source import Hints
from ecgfounder.readers.xml import number

_MILLIVOLTS_PER = {
    "nv": 1e-6,
    "nanovolt": 1e-6,
    "uv": 1e-3,
    "mcv": 1e-3,
    "microv": 1e-3,
    "microvolt": 1e-3,
    "mv": 1.0,
    "milliv": 1.0,
    "millivolt": 1.0,
    "v": 1e3,
    "volt": 1e3,
}
_MAX_MILLIVOLTS = 1e6  # a kilovolt is no ECG in any unit, and float32 must not overflow
_PIECE = 1 << 20  # samples that are turned into millivolts at once
_MAX_DIGITS = 9  # what fits in int32; longer numbers take the slower way
_MARGIN = b" " * (_MAX_DIGITS + 1)


def millivolts_per(unit: str) -> float | None:
    """How many millivolt one `unit` is ('uV', 'µV', 'MICROVOLTS', 'mV', 'V', 'nV' ...); None where it is no voltage.

    Letter case is ignored: vendors write 'uV', 'UV' and 'MICROVOLTS', and nobody records in megavolt.
    """
    plain = unit.strip().strip("\0").replace("\u00b5", "u").replace("\u03bc", "u").casefold()
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
        Numbers [n_samples]; NaN where there is no sample.
    scale, offset : float
        MV per count, and mV at count 0.
    what : str, default: "a lead"
        Names the samples in the error.
    no_sample : int, optional
        The count that stands for "no sample", if the format has one: NaN in the result.
    out : numpy.ndarray, optional
        float32 array [n_samples] to fill; a new one if None.

    Returns
    -------
    numpy.ndarray
        float32 [n_samples], in mV: `out`, if it was given.

    Raises
    ------
    ReadError
        If a sample comes to more than a kilovolt.
    """
    filled = np.empty(len(counts), dtype=np.float32) if out is None else out
    for begin in range(0, len(counts), _PIECE):  # a day of a Holter recording is never there in float64 as a whole
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
    if max(abs(low * scale + offset), abs(high * scale + offset)) > _MAX_MILLIVOLTS:
        raise ReadError(f"{what}: samples of more than a kilovolt; the unit is wrong or the file damaged")
    with np.errstate(over="ignore", invalid="ignore"):  # counts that stand for "no sample" may be of any size
        if offset == 0:
            np.multiply(counts, scale, out=out, dtype=np.float64, casting="unsafe")
        else:
            out[:] = counts * np.float64(scale) + offset
    if absent is not None:
        out[absent] = np.nan


def _range(values: npt.NDArray[Any]) -> tuple[float, float]:
    """The least and the greatest of the numbers; NaN where there are none."""
    return (float(np.fmin.reduce(values)), float(np.fmax.reduce(values))) if len(values) else (math.nan, math.nan)


def hinted_scale(hints: Hints) -> float | None:
    """Millivolts per unit as the user gave it: a unit ("uV") or how many units make a millivolt ("200"); None if not.

    Raises
    ------
    ReadError
        If it is neither.
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
    """A decimal number, or None where there is none: for settings that a recording can be read without."""
    try:
        return number(text, "setting")
    except ReadError:
        return None


def numbers_of(text: str, what: str) -> npt.NDArray[np.float64]:
    """The numbers of a text, separated by white space or by single commas, one convention throughout.

    Parameters
    ----------
    text : str
        Decimal numbers; a comma may end it.
    what : str
        Names the text in the error.

    Returns
    -------
    numpy.ndarray
        float64 [n]. NaN where nothing stands between two commas: the file says that there is no sample.

    Raises
    ------
    ReadError
        If anything in the text is not a finite decimal number.
    """
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError as error:
        raise ReadError(f"{what} holds characters that are not part of a number") from error
    strange = raw.translate(None, b"0123456789+- \t\r\n,")
    values = None if strange else _whole_numbers(raw, what)
    return _decimal_numbers(raw, what) if values is None else values


def _whole_numbers(raw: bytes, what: str) -> npt.NDArray[np.float64] | None:
    """All numbers at once, digit by digit from the right; None where a number is too long or a field is blank."""
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
        raise ReadError(f"{what} holds a sign that does not begin a number")
    length = last - first + 1
    longest = int(length.max(initial=0))
    if longest > _MAX_DIGITS:
        return None
    value = digit[last].astype(np.int32) if len(last) else np.empty(0, dtype=np.int32)
    for place in range(1, longest):
        value += np.where(length > place, digit[last - place], 0).astype(np.int32) * np.int32(10**place)
    return np.where(text[first - 1] == ord("-"), -value, value).astype(np.float64)


def _decimal_numbers(raw: bytes, what: str) -> npt.NDArray[np.float64]:
    """Numbers with a decimal point or exponent, and texts with blank fields."""
    if raw.translate(None, b"0123456789+-.eE \t\r\n,"):
        raise ReadError(f"{what} holds characters that are not part of a number")
    fields = raw.split(b",") if b"," in raw else raw.split()
    if fields and not fields[-1].strip():
        fields.pop()
    try:
        values = np.array([float(field) if field.strip() else np.nan for field in fields], dtype=np.float64)
    except ValueError as error:
        raise ReadError(f"{what} holds something that is not a number") from error
    if np.isinf(values).any():
        raise ReadError(f"{what} holds a number that is too large")
    return values
