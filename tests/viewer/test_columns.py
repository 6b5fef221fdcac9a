"""Any column of a table can be coloured and compared by."""

from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from ecgfounder.viewer.columns import MISSING, OTHER, encoded

MONTHS = "MonthDayNano(months={}, days=0, nanoseconds=0)"


def chunked(values: list, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    half = len(values) // 2
    return pa.chunked_array([pa.array(values[:half], kind), pa.array(values[half:], kind)])


@pytest.mark.parametrize(
    ("column", "categories"),
    [
        (chunked(["b", "a", "b", None]), ["b", "a"]),
        (chunked(["b", "a", "b", None], pa.large_string()), ["b", "a"]),
        (chunked(["b", "a", "b", None]).dictionary_encode(), ["b", "a"]),
        (chunked([True, False, True, None]), ["yes", "no"]),
        (chunked([1, 0, 1, None], pa.int8()), ["1", "0"]),
        (chunked([1.0, 0.0, 1.0, None]), ["1", "0"]),
        (chunked([1.0, 0.0, 1.0, float("nan")]), ["1", "0"]),
        (chunked([["II"], ["I", "II"], ["II"], None], pa.list_(pa.string())), ["II", "I II"]),
        (chunked([[2], [1], [2], None], pa.list_(pa.int32())), ["[2]", "[1]"]),
        (chunked([b"b", b"a", b"b", None]), ["62", "61"]),
        (chunked([b"b", b"a", b"b", None], pa.binary(1)), ["62", "61"]),
        (chunked(["b", "a", "b", None], pa.large_string()).dictionary_encode(), ["b", "a"]),
        (
            chunked([(2, 0, 0), (1, 0, 0), (2, 0, 0), None], pa.month_day_nano_interval()),
            [MONTHS.format(2), MONTHS.format(1)],
        ),
        (chunked([datetime.time(2), datetime.time(1), datetime.time(2), None]), ["02:00:00.000000", "01:00:00.000000"]),
    ],
)
def test_categories(column: pa.ChunkedArray, categories: list[str]) -> None:
    found = encoded(column)
    assert (found.kind, list(found.categories), found.counts) == ("category", categories, (2, 1))
    assert found.values.tolist() == [0, 1, 0, MISSING]
    assert (found.n_missing, found.n_other) == (1, 0)


def test_numbers_and_times() -> None:
    found = encoded(chunked([1.5, None, float("inf"), 2.5]))
    assert found.kind == "number"
    assert np.array_equal(found.values, np.array([1.5, np.nan, np.nan, 2.5], np.float32), equal_nan=True)
    assert found.about()["range"][::3] == [1.5, 2.5]
    assert encoded(chunked(list(range(100)))).kind == "number"
    days = encoded(chunked([datetime.date(1970, 1, 2), None], pa.date32()))
    assert (days.kind, days.values[0], days.n_missing) == ("time", 1.0, 1)
    stamp = pa.chunked_array([pa.array([86_400 * 10**9 * 3 // 2, None], pa.timestamp("ns", tz="UTC"))])
    assert encoded(stamp).values[0] == 1.5


def test_rare_values_share_a_code() -> None:
    texts = [f"t{number:04d}" for number in range(400)]
    found = encoded(chunked([*texts, *texts[:300]]))
    assert len(found.categories) == OTHER
    assert found.counts[0] == 2
    assert found.n_other == (found.values == OTHER).sum() == 700 - sum(found.counts)
    assert found.names_few


def test_empty_columns() -> None:
    for column in (
        chunked([], pa.string()),
        chunked([], pa.float64()),
        chunked([None, None], pa.null()),
        chunked([None, None], pa.float64()),
    ):
        found = encoded(column)
        assert len(found.values) == len(column)
        assert found.n_missing == len(column)
        found.about()


@pytest.mark.parametrize(
    "column",
    [
        chunked([9.96921e36, 1.0]),
        chunked([1e300, -1e19]),
        chunked([2**63 + 5, 1], pa.uint64()),
        chunked([float(2**53), 1.0]),
    ],
)
def test_a_few_huge_numbers_are_no_categories(column: pa.ChunkedArray) -> None:
    assert encoded(column).kind == "number"


def test_whole_numbers_are_as_they_are() -> None:
    identifiers = [40_689_238 + number for number in range(30)]
    found = encoded(chunked(identifiers))
    assert found.values.tolist() == identifiers
    assert found.names_few
    assert found.about()["n_bytes"] == 8
    ages = encoded(chunked([40 + number % 13 for number in range(30)]))
    assert (ages.kind, ages.names_few, ages.values.itemsize) == ("number", False, 4)
    assert not encoded(chunked([number / 7 for number in range(30)])).names_few
