"""Columns of times: what is one, and what is refused without a word of its content."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from ecgfounder.analysis.rows.times import dates_in, times_of
from ecgfounder.errors import SettingsError

DAY = np.datetime64("2020-01-31T00:00:00", "us")


@pytest.mark.parametrize(
    "values",
    [
        pa.array([datetime.date(2020, 1, 31), None]),
        pa.array([datetime.datetime(2020, 1, 31), None]),
        pa.array(["2020-01-31", None]),
        pa.array([" 2020-01-31 00:00 ", ""], pa.large_string()),
        pa.array(["2020-01-31T00:00:00.000", None]).dictionary_encode(),
        pa.array(["2020-01-31T00:00:00Z", None]),
        pa.array(["2020-01-31 02:00:00+02:00", None]),
    ],
)
def test_times_and_such_texts_are_timestamps(values: pa.Array) -> None:
    for found in (times_of(pa.chunked_array([values]), "taken"), dates_in(pa.chunked_array([values]))):
        assert found is not None
        np.testing.assert_array_equal(found.to_numpy(), [DAY, np.datetime64("NaT")])


@pytest.mark.parametrize(
    "values",
    [
        ["1/31/2020"],
        ["2020-01-31", "31.1.2020"],
        ["2020-02-30"],
        ["2020"],
        ["20200131"],
        ["12"],
        [20200131],
        [1.5],
        [True],
        [datetime.time(12)],
        [["2020-01-31"]],
        ["2020-01-31T00:00:00Z", "2020-01-31T00:00:00"],
    ],
)
def test_what_is_no_time_is_refused(values: list[object]) -> None:
    column = pa.chunked_array([pa.array(values)])
    with pytest.raises(SettingsError) as refused:
        times_of(column, "taken")
    assert str(refused.value) == "the column 'taken' holds values that are no times, such as 2020-01-31 12:00:00"
    assert dates_in(column) is None


def test_texts_without_a_value_are_no_dates() -> None:
    assert dates_in(pa.chunked_array([pa.array(["", None])])) is None
    assert dates_in(pa.chunked_array([pa.nulls(2)])) is None
