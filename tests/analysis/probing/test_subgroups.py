"""Subgroups of a probe: which there are, a gap that is there, the page, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ecgfounder.analysis import ProbeResult, probe
from ecgfounder.analysis.pages.tables import Row
from ecgfounder.analysis.probing.probe_report import page_of
from ecgfounder.analysis.probing.subgroups import subgroups_of
from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.errors import SettingsError
from ecgfounder.results import EmbeddingRun, open_run
from tests.builders.probes import cohort, write_run
from tests.harness.times import with_hazards

OPTIONS: dict[str, Any] = {
    "group": "patient",
    "on": "study_id",
    "n_draws": 60,
    "penalties": (1e-2, 1.0),
    "inner_folds": 2,
    "folds": 2,
    "controls": "none",
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """In men, what the embedding knows of the label is hidden by noise."""
    table = cohort(260)
    rng = np.random.default_rng(8)
    patient = table["patient"].str[1:].astype(int)
    table["sex"] = np.where(patient % 2 == 0, "F", "M")
    table["site"] = np.where(patient < 6, "small", np.where(patient % 3 == 0, "north", "south"))
    table["years"] = 30 + patient % 60
    hidden = table["sex"] == "M"
    table.loc[hidden, ["x0", "x1"]] += 4 * rng.standard_normal((hidden.sum(), 2))
    return table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame) -> EmbeddingRun:
    return open_run(write_run(tmp_path_factory.mktemp("subgroups") / "run", table))


@pytest.fixture(scope="module")
def result(run: EmbeddingRun, table: pd.DataFrame) -> ProbeResult:
    return probe(run, table, **OPTIONS, label=("af",), subgroups=("sex", "site", "years:20"))


def row_of(result: ProbeResult, metric: str, control: str) -> Row:
    (found,) = (row for row in result.rows if (row.metric, row.control) == (metric, control))
    return found


def test_a_gap_that_is_there_is_found(result: ProbeResult, table: pd.DataFrame) -> None:
    women, men = (row_of(result, "auroc", f"subgroup: sex={each}") for each in "FM")
    assert (women.estimate or 0) > 0.8
    assert (men.estimate or 1) < 0.7
    gap = row_of(result, "auroc gap", "subgroup: sex=F")
    assert gap.estimate == pytest.approx((women.estimate or 0) - (men.estimate or 0))
    assert (gap.low or 0) > 0.05
    assert gap.note.startswith("subgroup minus the others, paired")
    assert (women.n_records or 0) + (men.n_records or 0) == len(table)
    assert women.n_patients == table.loc[table["sex"] == "F", "patient"].nunique()
    calm = row_of(result, "auroc gap", "subgroup: site=north")
    assert (calm.low or 0) < 0 < (calm.high or 0)
    # The common threshold is that of the whole, so that the rates at it differ between subgroups.
    assert (row_of(result, "specificity@youden gap", "subgroup: sex=F").low or 0) > 0
    assert (row_of(result, "calibration_slope", "subgroup: sex=F").estimate or 0) > (
        row_of(result, "calibration_slope", "subgroup: sex=M").estimate or 9
    )


def test_small_subgroups_are_counted_and_the_number_is_named(result: ProbeResult) -> None:
    small = row_of(result, "none", "subgroup: site=small")
    assert small.estimate is None
    assert small.n_patients == 6
    assert small.note == "not scored: fewer than 10 patients of the rarer class in the test part"
    assert any("9 subgroups were tested for each label" in each for each in result.warnings)
    bands = [row.control for row in result.rows if row.metric == "auroc" and "years" in row.control]
    assert bands == [f"subgroup: years={low} to {low + 20}" for low in (20, 40, 60)] + ["subgroup: years=80 to 100"]


def test_a_gap_to_few_others_is_not_given(run: EmbeddingRun, table: pd.DataFrame) -> None:
    patient = table["patient"].str[1:].astype(int)
    there = table.assign(ward=np.where(patient < 10, "small", np.where(patient < 200, "some", "")))
    found = probe(run, there, **OPTIONS, label=("af",), where="ward != ''", subgroups=("ward",))
    assert row_of(found, "none", "subgroup: ward=small").estimate is None
    some = row_of(found, "auroc", "subgroup: ward=some")
    assert some.estimate is not None
    assert some.note.startswith("no gap: fewer than 10 patients of the rarer class elsewhere")
    assert not [row for row in found.rows if row.metric.endswith("gap")]


def test_the_page_shows_them_apart_from_the_controls(result: ProbeResult, table: pd.DataFrame) -> None:
    page = page_of(result)
    assert '<h2 id="s3">Controls</h2>' in page
    controls = page.partition(">Controls</h2>")[2].partition("<h2")[0]
    assert "sex=F" not in controls
    section = page.partition(">Subgroups</h2>")[2].partition("<h2")[0]
    assert "sex=F" in section
    assert "Gap" in section
    assert "site=small" not in section
    assert "1 subgroups" not in section
    shown = sum(row_of(result, "auroc", f"subgroup: site={each}").n_patients or 0 for each in ("north", "south"))
    assert table["patient"].nunique() - shown == 6  # so that exact counts would tell those of the small site
    first = section.partition("</table>")[0]
    counts = re.findall(r">site=\w+</th>" + 3 * r"<td[^>]*>([^<]+)</td>", first)
    assert len(counts) == 2
    assert all(count.startswith("about ") for each in counts for count in each)
    assert "Subgroups that were tested: sex, site, years:20." in page
    assert not any(name in page for name in (*table["ecg"], *table["patient"]))


def test_subgroups_of_numbers_and_of_times_have_their_metrics(run: EmbeddingRun, table: pd.DataFrame) -> None:
    found = probe(run, table, **OPTIONS, number=("age",), subgroups=("sex",))
    assert (row_of(found, "r2", "subgroup: sex=F").estimate or 0) > 0.9
    assert row_of(found, "mae gap", "subgroup: sex=F").low is not None
    y = with_hazards(-1.0 + 1.5 * table["x2"].to_numpy(), np.random.default_rng(1))
    times = table.assign(time=np.abs(y), death=y > 0)
    found = probe(
        run,
        times,
        **OPTIONS,
        time="time",
        event="death",
        horizons=(1.0,),
        one_per_patient="first",
        ecg_time="year",
        subgroups=("sex",),
    )
    assert (row_of(found, "uno_c", "subgroup: sex=M").estimate or 0) > 0.65
    assert row_of(found, "auroc@1 gap", "subgroup: sex=M").low is not None
    assert "Calibration ratio at 1" in page_of(found)


# --- which there are ---------------------------------------------------------------------------------------------------


def selection(**columns: Any) -> Selection:
    return Selection(None, pa.table(columns), {})  # type: ignore[arg-type]


def levels(given: str, **columns: Any) -> dict[str, tuple[list[int], list[int]]]:
    found = subgroups_of(selection(**columns), (given,))
    return {each.level: (np.flatnonzero(each.inside).tolist(), np.flatnonzero(each.others).tolist()) for each in found}


def test_values_bands_and_items_are_subgroups_and_missing_ones_are_in_none() -> None:
    assert levels("sex", sex=["M", "F", None, "F", ""]) == {"F": ([1, 3], [0]), "M": ([0], [1, 3])}
    assert levels("male", male=[True, False, None]) == {"False": ([1], [0]), "True": ([0], [1])}
    ages = [39.5, 40.0, None, 64.9, 65.0, 71.0]
    assert levels("age:40,65", age=ages) == {
        "under 40": ([0], [1, 3, 4, 5]),
        "40 to 65": ([1, 3], [0, 4, 5]),
        "65 and over": ([4, 5], [0, 1, 3]),
    }
    assert list(levels("age:10", age=ages)) == ["30 to 40", "40 to 50", "60 to 70", "70 to 80"]
    assert levels("age:10", age=ages)["60 to 70"] == ([3, 4], [0, 1, 5])
    assert levels("a:10", **{"a:10": ["x", "y"]}) == {"x": ([0], [1]), "y": ([1], [0])}
    flags = pa.array([["clipped:V1", "flat:I"], [], None, ["clipped:V2"]], pa.list_(pa.string()))
    assert levels("flags", flags=flags) == {"clipped": ([0, 3], [1]), "flat": ([0], [1, 3])}
    assert levels("age:10", age=pa.array([None, None], pa.float64())) == {}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("race", "Invalid value for the 'subgroups' parameter. There is no column 'race'"),
        ("x:10", "There is no column 'x'"),
        ("age", "has 40 subgroups; expected at most 30. For numbers give bands: age:10, or age:40,65"),
        ("age:1", "has 40 subgroups"),
        ("age:0", "The width of bands must be positive"),
        ("name:10", "holds values that are no numbers, so that it has no bands"),
    ],
)
def test_what_is_no_subgroup_is_refused(given: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        subgroups_of(selection(age=[float(each) for each in range(40)], name=["a"] * 40), (given,))


def test_a_column_that_is_not_there_is_refused_before_any_work(
    run: EmbeddingRun, table: pd.DataFrame, tmp_path: Path
) -> None:
    said: list[str] = []
    with pytest.raises(SettingsError, match="There is no column 'race'"):
        probe(run, table, **OPTIONS, label=("af",), subgroups=("race",), say=said.append)
    assert said == []
