"""Columns as factors: levels or numbers, rare levels pooled, and the reasons why there is nothing to test."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ecgfounder.analysis.acquisition.factors import FEWEST_PATIENTS, MOST_LEVELS, POOLED, Factor, factor_of
from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.errors import SettingsError
from ecgfounder.results import EmbeddingRun, open_run
from tests.builders.probes import cohort, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingRun:
    return open_run(write_run(tmp_path_factory.mktemp("factors") / "run", cohort(3)))


def taken(run: EmbeddingRun, values: Any, groups: Any = None, *, levels: bool = False, number: bool = False) -> Factor:
    """The factor of a column; each value is of another patient by default."""
    column = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, from_pandas=True)])
    selection = Selection(run, pa.table({"by": column}), {})
    own = np.arange(len(column)) if groups is None else np.asarray(groups)
    return factor_of(selection, "by", own, as_levels=levels, as_number=number)


def test_texts_are_levels_and_missing_ones_are_left_out(run: EmbeddingRun) -> None:
    found = taken(run, ["b"] * 12 + ["a", " a"] * 6 + [None, "", "nan", "NAN"])
    assert [(each.name, each.n_records, each.n_patients) for each in found.levels] == [("a", 12, 12), ("b", 12, 12)]
    assert found.codes.tolist() == [1] * 12 + [0] * 12 + [-1] * 4
    assert (found.n_missing, found.n_left_out, found.is_number) == (4, 0, False)
    assert found.why_not is None
    assert found.label_names == ("b",)
    np.testing.assert_array_equal(found.labels()[:, 0], [1] * 12 + [0] * 12 + [np.nan] * 4)


def test_rare_levels_are_pooled_and_left_out_where_they_are_too_few_together(run: EmbeddingRun) -> None:
    common = ["a"] * 20 + ["b"] * 20
    pooled = taken(run, common + [f"rare {each}" for each in range(FEWEST_PATIENTS)])
    assert pooled.names == ("a", "b", POOLED)
    assert pooled.has_pool
    assert (pooled.codes[40:] == 2).all()
    assert len(set(pooled.sites[40:])) == FEWEST_PATIENTS  # each is still its own site
    assert len(pooled.rare) == FEWEST_PATIENTS
    few = taken(run, [*common, "rare", "rare", "other"])
    assert few.names == ("a", "b")
    assert not few.has_pool
    assert (few.codes[40:].tolist(), few.n_left_out) == ([-1, -1, -1], 3)
    assert (few.sites[40:] >= 0).all()


def test_a_level_needs_patients_and_not_recordings(run: EmbeddingRun) -> None:
    groups = [*range(20), *([20] * 50)]
    found = taken(run, ["a"] * 20 + ["b"] * 50, groups)
    assert found.names == ("a",)
    assert found.why_not == "of 2 levels, fewer than two have 10 patients or more"


def test_of_very_many_levels_the_largest_are_kept(run: EmbeddingRun) -> None:
    sizes = [15 + (each % 7) for each in range(MOST_LEVELS + 20)]
    found = taken(run, [f"{number:03d}" for number, size in enumerate(sizes) for _ in range(size)])
    assert len(found.levels) == MOST_LEVELS + 1
    assert len(found.rare) == 20
    assert max(each.n_patients for each in found.rare) <= min(each.n_patients for each in found.levels)


def test_few_different_numbers_are_levels_and_many_are_a_number_in_quarters(run: EmbeddingRun) -> None:
    few = taken(run, [0.05, 0.5] * 15)
    assert few.names == ("0.05", "0.5")
    many = taken(run, np.arange(100) / 4)
    assert many.is_number
    assert many.names == ("0 to 6.25", "6.5 to 12.5", "12.75 to 18.75", "19 to 24.75")
    assert [each.n_records for each in many.levels] == [26, 25, 25, 24]
    assert many.label_names == ("by",)
    np.testing.assert_allclose(many.concept().mean(), 0, atol=1e-9)
    assert taken(run, [0.05, 0.5] * 15, number=True).is_number
    sites = taken(run, np.repeat(np.arange(12.0), 12), levels=True)
    assert not sites.is_number
    assert sites.names[:3] == ("0", "1", "10")  # no decimals


def test_infinite_huge_and_missing_numbers_have_no_part(run: EmbeddingRun) -> None:
    values = [*np.arange(60.0), np.inf, -np.inf, np.nan, 1e300]
    found = taken(run, values)
    assert found.n_missing == 4
    assert np.isfinite(found.values).sum() == 60  # type: ignore[arg-type]
    assert (found.codes[60:] == -1).all()
    assert np.isfinite(found.concept()).all()


def test_times_are_numbers_of_years(run: EmbeddingRun) -> None:
    found = taken(run, [date(2000 + each, 7, 2) for each in range(40)])
    assert found.how == "years of a time; where groups are needed, quarters of the recordings"
    assert found.values is not None
    assert found.values[0] == pytest.approx(2000.5, abs=0.01)


def test_texts_that_are_all_dates_are_times_and_others_are_levels(run: EmbeddingRun) -> None:
    days = [date(2000 + each, 7, 2) for each in range(40)]
    found = taken(run, [f"{each} 12:00:00" for each in days[:-1]] + [None])
    assert found.is_number
    assert found.values is not None
    np.testing.assert_allclose(found.values[:-1], np.arange(2000.5, 2039.5), atol=0.01)
    assert found.n_missing == 1
    assert not taken(run, [f"{each:%d/%m/%Y}" for each in days]).is_number
    assert taken(run, pa.chunked_array([pa.nulls(30, pa.timestamp("us"))])).why_not == "no recording has a value"


def test_a_number_that_is_nearly_constant_is_not_tested(run: EmbeddingRun) -> None:
    found = taken(run, [7.0] * 90 + [*range(11)])
    assert found.is_number
    assert found.why_not == "its values do not differ enough for two groups of recordings"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None] * 30, "no recording has a value"),
        ([np.nan] * 30, "no recording has a value"),
        (["same"] * 30, "all values are the same"),
        ([3.5] * 30, "all values are the same"),
        ([f"p{each}" for each in range(30)], "of 30 levels, fewer than two have 10 patients or more"),
        ([True] * 30, "all values are the same"),
    ],
)
def test_what_cannot_be_tested_says_why(run: EmbeddingRun, values: list[Any], reason: str) -> None:
    assert taken(run, values).why_not == reason


@pytest.mark.parametrize("values", [[["a"], ["b"]], [b"\x00", b"\x01"], [{"a": 1}, {"a": 2}]])
def test_columns_of_other_kinds_are_refused(run: EmbeddingRun, values: list[Any]) -> None:
    with pytest.raises(SettingsError, match="the column 'by' of the 'by' parameter holds neither texts nor numbers"):
        taken(run, pa.chunked_array([pa.array(values)]))


def test_texts_that_are_no_numbers_cannot_be_taken_as_such(run: EmbeddingRun) -> None:
    with pytest.raises(SettingsError, match="'as_number' parameter holds values that are no numbers"):
        taken(run, ["a", "b"] * 10, number=True)
    assert taken(run, [str(each) for each in range(40)], number=True).is_number


def test_names_are_safe_and_short_and_levels_of_one_name_differ(run: EmbeddingRun) -> None:
    long = "x" * 500
    values = [f"{long}{each}" for each in range(2) for _ in range(12)] + ["a\x1b[2J\n"] * 12 + [POOLED] * 12
    values += [f"rare {each}" for each in range(12)]
    found = taken(run, values)
    assert len(set(found.names)) == len(found.names) == 5
    assert all(name.isprintable() and len(name) <= 70 for name in found.names)


def test_ten_thousand_levels_take_no_time(run: EmbeddingRun) -> None:
    values = pd.Series([f"L{each % 10_000}" for each in range(30_000)])
    found = taken(run, values, np.arange(30_000) % 7_000)
    assert found.why_not is not None
    assert len(found.rare) == 10_000


def test_one_factor_of_a_dictionary_column(run: EmbeddingRun, tmp_path: Path) -> None:
    values = pa.array(["a", "b"] * 12).dictionary_encode()
    assert taken(run, pa.chunked_array([values])).names == ("a", "b")
