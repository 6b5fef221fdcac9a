"""Numbers, units and counts: exactly what the text says, or an error; never a number that is passed over."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.errors import ReadError
from ecgfounder.readers import quantities
from ecgfounder.readers.quantities import hinted_scale, millivolts_per, numbers_of, optional_number, to_millivolts
from ecgfounder.readers.source import Hints

# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "millivolts"),
    [
        ("nV", 1e-6),
        ("uV", 1e-3),
        ("\u00b5V", 1e-3),
        ("\u03bcV", 1e-3),
        ("\u00c2\u00b5V", 1e-3),  # UTF-8, read as Latin-1
        ("\u00ce\u00bcV", 1e-3),
        ("\u00e6V", 1e-3),  # code page 437, read as Latin-1
        ("MICROVOLTS", 1e-3),
        ("microV", 1e-3),
        ("mcV", 1e-3),
        ("uVolts", 1e-3),
        ("mVolt", 1.0),
        (" mV\0", 1.0),
        ("MILLIVOLT", 1.0),
        ("V", 1e3),
        ("volts", 1e3),
        ("", None),
        ("mmHg", None),
        ("mVs2", None),
        ("?V", None),
        ("kV", None),
    ],
)
def test_a_unit_is_worth_its_millivolts_however_it_is_spelled(unit: str, millivolts: float | None) -> None:
    assert millivolts_per(unit) == millivolts


@pytest.mark.parametrize(("unit", "scale"), [(None, None), ("uV", 1e-3), ("V", 1e3), ("200", 1 / 200), ("0.5", 2.0)])
def test_a_unit_from_the_user_is_one_or_how_many_make_a_millivolt(unit: str | None, scale: float | None) -> None:
    assert hinted_scale(Hints(unit=unit)) == scale


@pytest.mark.parametrize("unit", ["0", "-1", "nan", "inf", "parsec", ""])
def test_a_unit_from_the_user_that_is_none_is_refused(unit: str) -> None:
    with pytest.raises(ReadError, match="'unit' parameter"):
        hinted_scale(Hints(unit=unit))


# --- counts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [3, 1 << 20])
@pytest.mark.parametrize("offset", [0.0, -0.25])
def test_counts_are_scaled_and_moved_in_double_precision(
    monkeypatch: pytest.MonkeyPatch, piece: int, offset: float
) -> None:
    monkeypatch.setattr(quantities, "_PIECE", piece)
    counts = np.array([0, 1, -1, 7, 32767, -32768, 16_777_217], dtype=np.int32)
    expected = (counts.astype(np.float64) * 0.00488 + offset).astype(np.float32)
    found = to_millivolts(counts, 0.00488, offset)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    out = np.zeros(7, dtype=np.float32)
    assert to_millivolts(counts, 0.00488, offset, out=out) is out
    assert np.array_equal(out, expected)


def test_a_large_offset_leaves_the_small_rest_exact() -> None:
    assert to_millivolts(np.array([9_999_999]), 0.1, -999_999.0)[0] == np.float32(9_999_999 * 0.1 - 999_999.0)


def test_the_count_that_stands_for_no_sample_is_nan_and_may_be_of_any_size() -> None:
    counts = np.array([1, -(2**31), 3], dtype=np.int64)
    found = to_millivolts(counts, 1.0, no_sample=-(2**31))
    assert np.array_equal(found, [1, np.nan, 3], equal_nan=True)
    with pytest.raises(ReadError, match="kilovolt"):
        to_millivolts(counts, 1.0)
    assert np.isnan(to_millivolts(np.array([5, 5]), 1.0, no_sample=5)).all()
    assert np.array_equal(to_millivolts(np.array([4, 6]), 1.0, no_sample=5), [4, 6])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_kilovolt_is_read_and_more_is_refused_by_its_lead(sign: int) -> None:
    assert to_millivolts(np.array([sign * 10**6]), 1.0)[0] == sign * 1e6
    with pytest.raises(ReadError, match=r"^lead V1: samples of more than a kilovolt"):
        to_millivolts(np.array([0, sign * (10**6 + 1)]), 1.0, what="lead V1")
    with pytest.raises(ReadError, match="kilovolt"):
        to_millivolts(np.array([0.0, sign * np.inf]), 1.0)
    with pytest.raises(ReadError, match="kilovolt"):
        to_millivolts(np.array([0]), 1.0, sign * 2e6)


def test_nan_stays_nan_and_nothing_stays_nothing() -> None:
    assert np.array_equal(to_millivolts(np.array([np.nan, 2.0]), 0.5), [np.nan, 1.0], equal_nan=True)
    assert to_millivolts(np.array([], dtype=np.int16), 0.5).shape == (0,)


# --- texts ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.one_of(st.integers(-(10**9) + 1, 10**9 - 1), st.integers(-(10**15), 10**15)), max_size=30),
    st.sampled_from([" ", "\n", "\t \r\n", ",", ", ", " ,\n"]),
    st.booleans(),
)
def test_whole_numbers_are_read_as_python_reads_them(values: list[int], between: str, ended: bool) -> None:
    text = between.join(map(str, values)) + (between if ended and values else "")
    assert numbers_of(text, "samples").tolist() == [float(value) for value in values]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("999999999 -999999999 1000000000", [999999999, -999999999, 1000000000]),
        ("3000000000 -9999999999 1", [3_000_000_000, -9_999_999_999, 1]),
        ("99999999999 2", [99_999_999_999, 2]),
        ("+5 -0 007", [5, 0, 7]),
        ("1.5 -2e3 .5", [1.5, -2000, 0.5]),
        ("1,,3", [1, math.nan, 3]),
        (",2", [math.nan, 2]),
        ("1,2,", [1, 2]),
        ("1,2,,", [1, 2, math.nan]),
        ("1.5,,2.5", [1.5, math.nan, 2.5]),
        ("", []),
        (" \n ", []),
    ],
)
def test_numbers_are_read_in_every_form_that_occurs(text: str, values: list[float]) -> None:
    assert np.array_equal(numbers_of(text, "samples"), values, equal_nan=True)


@pytest.mark.parametrize(
    "text",
    [
        "1 x 3",
        "1-2",
        "1 - 2",
        "--1",
        "+-1",
        "1 2,3",
        "1..2",
        "1e",
        "0x10",
        "1_000",
        "\u0663",
        "inf",
        "nan",
        "1e999",
        "-",
    ],
)
def test_what_is_no_list_of_numbers_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ReadError, match=r"^samples hold") as refused:
        numbers_of(text, "samples hold:")
    assert text not in str(refused.value).removeprefix("samples hold:")


@pytest.mark.parametrize(("text", "value"), [("5", 5.0), (" 0.5 ", 0.5), ("NONE", None), ("", None), (None, None)])
def test_a_setting_that_is_no_number_is_none(text: str | None, value: float | None) -> None:
    assert optional_number(text) == value
