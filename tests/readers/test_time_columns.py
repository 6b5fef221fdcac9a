"""Columns of times in tables: their names, clock times, and the sampling rate that they give."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.readers.time_columns import clock_times, interval_rate, is_clock, rate_of, tells_time

NUMBER = np.arange(5000)


@pytest.mark.parametrize(
    "name",
    [
        *("time", "Time (s)", "t/ms", "Elapsed time", "sec", "ms", "milliseconds", "sample #", "sample interval"),
        *("index", "Unnamed: 0", "", "timestamp", "DateTime", "Time and date", "Time      Date", "Zeit", "nSeq"),
    ],
)
def test_names_of_times_and_numbers_of_rows_are_known(name: str) -> None:
    assert tells_time(name)


@pytest.mark.parametrize("name", ["I", "MLII", "ECG", "unk.label_1", "s1", "signal", "tV1", "x"])
def test_other_names_tell_no_time(name: str) -> None:
    assert not tells_time(name)


@pytest.mark.parametrize("rate", [50, 128, 250, 257, 360, 500, 512, 977, 1000])
@pytest.mark.parametrize("decimals", [3, 4, 6])
@pytest.mark.parametrize("begin", [0.0, 10.0, 1.6e9])
def test_rounded_times_give_the_exact_rate(rate: float, decimals: int, begin: float) -> None:
    times = np.round(begin + NUMBER / rate, decimals)
    assert rate_of(times, 10.0**-decimals) == rate


@pytest.mark.parametrize("cut", [np.floor, np.ceil])
def test_times_that_were_cut_off_give_the_exact_rate(cut: np.ufunc) -> None:
    assert rate_of(cut(NUMBER / 360 * 1000) / 1000, 0.001) == 360


def test_a_rate_that_is_not_usual_is_not_replaced_by_a_usual_one() -> None:
    assert rate_of(NUMBER / 499.98, 0.0) == pytest.approx(499.98, rel=1e-9)
    assert rate_of(np.round(NUMBER / 499.98, 6), 1e-6) == pytest.approx(499.98, rel=1e-6)
    assert rate_of(NUMBER * 0.00278, 1e-5) == pytest.approx(1 / 0.00278, rel=1e-9)
    assert rate_of(NUMBER * 0.003, 1e-3) == pytest.approx(1000 / 3, rel=1e-9)


def test_few_times_that_allow_several_usual_rates_give_their_own() -> None:
    assert rate_of(np.array([0, 0.002, 0.004]), 0.001) == 500
    assert rate_of(np.array([0, 0.004, 0.008]), 0.001) == 250


def test_times_that_are_uneven_or_too_coarse_give_no_rate() -> None:
    gap = np.concatenate([NUMBER[:100], NUMBER[200:300]]) / 360
    assert rate_of(gap, 1e-3) is None
    assert rate_of(np.concatenate([NUMBER[:100], NUMBER[:100]]) / 360, 1e-3) is None
    assert rate_of(NUMBER[::-1] / 360, 1e-3) is None
    assert rate_of(np.floor(NUMBER[:1500] / 1000), 1.0) is None  # whole seconds of 1.5 s
    assert rate_of(np.array([1.0]), 1.0) is None
    assert rate_of(np.array([0.0, np.nan, 2.0]), 1.0) is None


def test_whole_seconds_of_an_hour_give_the_rate() -> None:
    assert rate_of(np.floor(np.arange(3600 * 50) / 50), 1.0) == 50


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("0:00.133", 0.133),
        ("59:59.999", 3599.999),
        ("1:00:00.000", 3600),
        ("[12:00:00.003 01/01/2000]", 43200.003),
        ("2000-01-01 12:00:19.001", 43219.001),
        ("2000-01-01T12:00:19,5Z", 43219.5),
        ("01.02.2000 12:00:19", 43219),
    ],
)
def test_clock_times_are_seconds(field: str, seconds: float) -> None:
    assert is_clock(field)
    found = clock_times([field])
    assert found is not None
    assert found[0][0] == pytest.approx(seconds)


@pytest.mark.parametrize("field", ["", "12", "0.5", "2000-01-01", "12:0", "a:00", "1:2:3:4", "12:00:00 Smith"])
def test_other_fields_are_no_clock_times(field: str) -> None:
    assert not is_clock(field)
    assert clock_times([field]) is None


def test_clock_times_rise_past_midnight() -> None:
    found = clock_times(["23:59:59.998", "23:59:59.999", "0:00:00.000", "0:00:00.001"])
    assert found is not None
    np.testing.assert_allclose(np.diff(found[0]), 0.001, atol=1e-9)
    assert found[1] == 0.001


@pytest.mark.parametrize(
    ("unit", "rate"), [("0.00277778 sec", 360), ("(0.0027777 sec)", 360), ("0.004 sec", 250), ("mV", None), ("0", None)]
)
def test_the_interval_of_samples_gives_the_rate(unit: str, rate: float | None) -> None:
    assert interval_rate(unit) == rate
