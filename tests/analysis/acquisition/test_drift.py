"""Drift as a whole: simulations with and without confounding in which the truth is known, figures, files, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ecgfounder.analysis import DriftResult, DriftSettings, drift
from ecgfounder.analysis.acquisition.drift_labels import prevalence_scores
from ecgfounder.analysis.acquisition.drift_report import page_of, write_drift
from ecgfounder.analysis.statistics.evaluation import Data
from ecgfounder.analysis.statistics.fitting import Task
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results import EmbeddingRun, open_run
from ecgfounder.storage import locate
from tests.builders.probes import write_run
from tests.builders.sites import sites_cohort
from tests.harness.drift import CONTROLS, coverage_across_sites

QUICK: dict[str, Any] = {
    "folds": 2,
    "inner_folds": 2,
    "penalties": (1e-2, 1.0),
    "n_draws": 60,
    "permutations": 99,
    "chance": 2,
    "random_directions": 2,
    "group": "patient",
    "on": "study_id",
}


def opened(folder: Path, table: pd.DataFrame) -> EmbeddingRun:
    return open_run(write_run(folder / "run", table))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The embedding knows the site, and the label is more frequent at some."""
    found = sites_cohort(260, prevalence=(0.2, 0.5, 0.8), of_site=1.5)
    found["highpass_hz"] = np.where(np.arange(len(found)) % 3 == 0, np.nan, 0.05)
    found["serial"] = found["patient"]
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame) -> EmbeddingRun:
    return opened(tmp_path_factory.mktemp("drift"), table)


@pytest.fixture(scope="module")
def result(run: EmbeddingRun, table: pd.DataFrame) -> DriftResult:
    by = ("site", "device", "year", "highpass_hz", "serial")
    return drift(run, table, by=by, label=("af",), **QUICK)


def value(result: DriftResult, *key: str) -> float:
    found = result.row(*key).estimate
    assert found is not None
    return found


# --- the truth ---------------------------------------------------------------------------------------------------------


def test_a_site_that_the_embedding_knows_is_found(result: DriftResult, table: pd.DataFrame) -> None:
    for control in ("linear", "non-linear"):
        row = result.row("site", "auroc", control, level="site A")
        assert row.low is not None
        assert 0.85 < row.low < value(result, "site", "auroc", control, "", "site A") < 1
        assert row.n_pos_patients == table.loc[table["site"] == "site A", "patient"].nunique()
    assert value(result, "site", "p-value", "between patients") == 0.01
    chance = result.row("site", "auroc", "permuted levels")
    assert chance.chance == 0.5
    assert abs((chance.estimate or 0) - 0.5) < 0.1
    share = result.row("site", "kernel share", "all recordings")
    assert share.low is not None
    assert share.low > 0.03
    # Sites are 1.5 apart in one of six features of variance 1 to 2.5: site A is at 0, the others at 2.25 on average.
    assert value(result, "site", "shift", "all recordings", "", "site A") == pytest.approx(0.5, abs=0.15)


def test_what_the_embedding_does_not_know_is_at_chance(result: DriftResult) -> None:
    for control in ("linear", "non-linear"):
        row = result.row("device", "auroc", control)
        assert row.low is not None
        assert row.high is not None
        assert row.low < 0.56
        assert row.high > 0.44
    assert value(result, "year", "r2", "linear") < 0.05
    for how in ("between patients", "within patients"):
        assert value(result, "device", "p-value", how) > 0.01
        assert value(result, "year", "p-value", how) > 0.01
    assert value(result, "device", "shift", "same patients", "", "new") < 0.15
    assert value(result, "year", "mae", "linear") == pytest.approx(result.row("year", "mae", "linear").chance, rel=0.1)


def test_a_confounded_label_is_worth_less_within_a_site(result: DriftResult) -> None:
    pooled, within, prevalence = (
        value(result, "site", "auroc", each, "af") for each in ("pooled", "within", "prevalence alone")
    )
    assert within < pooled
    assert prevalence > 0.65
    gap = result.row("site", "auroc difference", "pooled minus within", "af")
    assert gap.estimate == pytest.approx(pooled - within)
    assert gap.low is not None
    assert gap.low < pooled - within
    # By a factor that has nothing to do with either, they are the same.
    assert abs(value(result, "device", "auroc difference", "pooled minus within", "af")) < 0.03
    pairs = [value(result, "site", "auroc", each, "af") for each in ("within", "between")]
    assert min(pairs) < pooled < max(pairs)


def test_leace_leaves_no_site_and_takes_what_goes_with_it(result: DriftResult) -> None:
    assert value(result, "site", "auroc", "linear after LEACE") == pytest.approx(0.5, abs=0.1)
    assert value(result, "site", "auroc", "linear after random directions") == pytest.approx(
        value(result, "site", "auroc", "linear"), abs=0.05
    )
    lost = result.row("site", "auroc difference", "pooled after LEACE minus pooled", "af")
    assert lost.high is not None
    assert lost.high < 0
    for control in ("pooled after random directions", "within after random directions", "within after LEACE"):
        assert 0.5 < value(result, "site", "auroc", control, "af") < 1
    assert "2 directions" in result.row("site", "variance removed", "LEACE").note


@pytest.mark.parametrize("confounded", [False, True])
def test_intervals_have_the_true_auroc_of_all_within_and_across_sites(confounded: bool) -> None:
    """30 simulations; the slow test has 200."""
    prevalence, of_site = ((0.2, 0.5, 0.8), 1.0) if confounded else ((0.4, 0.4, 0.4), 0.0)
    found = coverage_across_sites(30, n_patients=200, prevalence=prevalence, of_site=of_site, n_draws=60, n_true=3000)
    for name in CONTROLS:
        assert found[name] >= 0.85, (name, found[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prevalence", "of_site"), [((0.4, 0.4, 0.4), 0.0), ((0.2, 0.5, 0.8), 1.0), ((0.1, 0.5, 0.9), 2.0)]
)
def test_intervals_cover_in_hundreds_of_simulations(prevalence: tuple[float, ...], of_site: float) -> None:
    found = coverage_across_sites(200, n_patients=300, prevalence=prevalence, of_site=of_site, n_true=10_000)
    for name in CONTROLS:
        assert 0.9 <= found[name] <= 0.99, (name, found[name])


def test_a_feature_that_only_a_curve_can_use_is_found_by_the_non_linear_probe(tmp_path: Path) -> None:
    table = sites_cohort(300, per_patient=(1, 2), of_label=0)
    first, second = (table.groupby("patient")[name].transform("mean") for name in ("x0", "x1"))
    table["scanner"] = np.where(first * second > 0, "a", "b")
    options = {**QUICK, "chance": 0}
    found = drift(opened(tmp_path, table.assign(x2=3 * first, x3=3 * second)), table, by="scanner", **options)
    assert value(found, "scanner", "auroc", "linear") < 0.65
    assert value(found, "scanner", "auroc", "non-linear") > 0.8
    more = found.row("scanner", "auroc difference", "non-linear minus linear")
    assert more.low is not None
    assert more.low > 0.1


def test_prevalence_is_that_of_the_training_part() -> None:
    sites = np.array([0, 0, 1, 1, 0, 1, -1, 2])
    Y = np.array([1, 1, 0, 0, 0, 1, 1, 0], np.float32)[:, None]
    split = Split(np.arange(4), np.arange(4, 8))
    data = Data(Y, np.arange(8), (split,), Task(("y",)))
    found = prevalence_scores(data, sites)[:, 0]
    np.testing.assert_allclose(found[4:], [2.5 / 3, 0.5 / 3, np.nan, 0.5])
    assert np.isnan(found[:4]).all()
    other = Y.copy()
    other[4:] = 1 - other[4:]
    np.testing.assert_array_equal(prevalence_scores(replace(data, Y=other), sites)[:, 0], found)


# --- hostile factors ---------------------------------------------------------------------------------------------------


def test_factors_that_say_nothing_are_named_and_the_others_go_on(result: DriftResult) -> None:
    assert result.not_tested == {
        "highpass_hz": "all values are the same",
        "serial": "of 260 levels, fewer than two have 10 patients or more",
    }
    assert {row.factor for row in result.rows} == {"site", "device", "year"}
    assert "highpass_hz is a column of the manifest and of the table: the manifest has no value" in "; ".join(
        result.notes
    )
    tested = {(row["factor"], row["tested"]) for row in result.levels_table.to_pylist()}
    assert ("site", "alone") in tested
    assert ("serial", "no") in tested


def test_no_factor_at_all_is_refused_with_the_reasons(run: EmbeddingRun, table: pd.DataFrame) -> None:
    with pytest.raises(RunError, match="no factor can be tested: highpass_hz: all values are the same; serial: of 260"):
        drift(run, table, by=("highpass_hz", "serial"), **QUICK)


def test_a_site_that_is_the_label_has_no_pairs_within(run: EmbeddingRun, table: pd.DataFrame) -> None:
    same = table.assign(site=np.where(table["af"], "ill", "well"))
    found = drift(run, same, by="site", label="af", **{**QUICK, "chance": 0, "random_directions": 1})
    assert value(found, "site", "auroc", "prevalence alone", "af") == 1
    for control in ("within", "leave one out"):
        row = found.row("site", "auroc", control, "af")
        assert row.estimate is None
        assert "no such pair of recordings" in row.note
    assert value(found, "site", "auroc", "pooled after LEACE", "af") == pytest.approx(0.5, abs=0.12)
    page_of(found)


def test_patients_of_several_sites_are_never_in_training_and_test(
    run: EmbeddingRun, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Split] = []

    def noted(X: Any, Y: Any, groups: Any, split: Split, *others: Any) -> Any:
        assert not set(groups[split.train]) & set(groups[split.test])
        seen.append(split)
        return fit(X, Y, groups, split, *others)

    from ecgfounder.analysis.statistics import evaluation

    fit = evaluation.fit_split
    monkeypatch.setattr(evaluation, "fit_split", noted)
    found = drift(run, table, by="device", label="af", **{**QUICK, "random_directions": 1})
    assert len(seen) > 10
    assert "device varies within" in "; ".join(found.notes)


def test_with_few_patients_what_can_be_said_is_said(tmp_path: Path) -> None:
    table = sites_cohort(30, prevalence=(0.5, 0.5), of_site=3.0)
    found = drift(opened(tmp_path, table), table, by="site", label="af", **QUICK)
    assert value(found, "site", "p-value", "between patients") < 0.05
    assert "not scored: fewer than 20 patients" in found.row("site", "none", "linear", level="site B").note
    assert "the label af is not scored" in "; ".join(found.notes)
    assert "site, linear: not scored: fewer than 20 patients of the rarer class in the training part (site B)" in str(
        found
    )
    page_of(found)


def test_recordings_without_a_value_are_left_out_of_that_factor(tmp_path: Path) -> None:
    table = sites_cohort(120, prevalence=(0.3, 0.7), per_patient=(1,))
    table.loc[table.index % 3 == 0, "site"] = None
    table["af"] = table["af"].where(table.index % 5 != 0, None)
    found = drift(opened(tmp_path, table), table, by="site", label="af", **{**QUICK, "random_directions": 1})
    assert found.row("site", "kernel share", "all recordings").n_records == 80
    assert found.row("site", "auroc", "pooled", "af").n_records == int(
        (table["site"].notna() & table["af"].notna()).sum()
    )
    assert "site: 40 recordings without a value" in "; ".join(found.notes)


def test_embeddings_that_are_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    table = sites_cohort(60, prevalence=(0.5, 0.5), per_patient=(1,))
    run = opened(tmp_path, table.assign(x0=[np.nan, np.inf, *table["x0"][2:]]))
    found = drift(run, table, by="site", **{**QUICK, "chance": 0})
    assert found.selection.left_out["an embedding that is not finite"] == 2
    assert found.row("site", "kernel share", "all recordings").n_records == 58


def test_a_sample_is_of_whole_patients_and_said(run: EmbeddingRun, table: pd.DataFrame) -> None:
    found = drift(run, table, by="site", sample=100, **{**QUICK, "chance": 0})
    assert len(np.unique(found.groups)) == 100
    used = found.selection.table["patient"].to_pylist()
    assert len(used) == table["patient"].isin(set(used)).sum()
    assert f"of {len(table):,} recordings of 260 patients (sample=100)" in found.notes[0]
    assert found.n_patients == 260


def test_the_same_seed_gives_the_same_table(run: EmbeddingRun, table: pd.DataFrame) -> None:
    options = {**QUICK, "chance": 1, "random_directions": 1, "penalties": (0.1,), "sample": 150}
    tables = [drift(run, table, by="site", label="af", seed=seed, **options).table for seed in (3, 3, 4)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_codes_are_labels_too(run: EmbeddingRun, table: pd.DataFrame) -> None:
    coded = table.assign(codes=["{'AFIB': 100.0}" if each else "{'SR': 0.0}" for each in table["af"]])
    options = {**QUICK, "chance": 0, "random_directions": 0}
    found = drift(run, coded, by="site", label="AFIB", codes="codes", **options)
    plain = drift(run, table, by="site", label="af", **options)
    assert value(found, "site", "auroc", "within", "AFIB") == value(plain, "site", "auroc", "within", "af")
    assert not any("LEACE" in row.control for row in found.rows)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"by": ()}, "Invalid value for the 'by' parameter. It must name columns, got none."),
        ({"by": "ward"}, "Invalid value for the 'by' parameter. There is no column 'ward'"),
        (
            {"by": "site", "as_levels": "year"},
            "'as_levels' parameter. It must name columns of the 'by' parameter, got 'year'",
        ),
        ({"by": "year", "as_levels": "year", "as_number": "year"}, "contradict each other for 'year'"),
        ({"by": "site", "label": "site"}, "the label 'site' holds other values than 0, 1"),
        ({"by": "site", "codes": "site"}, "codes needs the codes that become labels as 'label'"),
        ({"by": "site", "permutations": 0}, "'permutations' parameter. It must be at least 1"),
        ({"by": "site", "sample": 5}, "'sample' parameter. It must be at least 20"),
        ({"by": "site", "penalties": (0.0,)}, "They must be positive numbers"),
        ({"by": "site", "features": "all"}, "Invalid value for the 'features' parameter"),
        ({"by": "site", "settings": DriftSettings(by=("site",))}, "give settings or options, not both"),
    ],
)
def test_what_cannot_be_is_refused(run: EmbeddingRun, table: pd.DataFrame, options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        drift(run, table, **{**QUICK, **options})
    assert said in str(caught.value)


# --- files -------------------------------------------------------------------------------------------------------------


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [str(text) for name, text in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_files_hold_all_figures(result: DriftResult, tmp_path: Path) -> None:
    write_drift(result, locate(tmp_path / "out"))
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert names == {"results.pq", "results.csv", "levels.pq", "levels.csv", "drift.json", "report.html"}
    rows = pq.read_table(tmp_path / "out" / "results.pq").to_pylist()
    assert len(rows) == len(result.rows) == pyarrow.csv.read_csv(tmp_path / "out" / "results.csv").num_rows
    assert rows[0]["factor"] == "site"
    about = orjson.loads((tmp_path / "out" / "drift.json").read_bytes())
    assert about["settings"]["by"] == ["site", "device", "year", "highpass_hz", "serial"]
    assert about["n_patients_used"] == 260
    assert about["not_tested"] == result.not_tested
    write_drift(result, locate(tmp_path / "out"))  # over its own


def test_the_page_loads_nothing_and_names_no_recording(result: DriftResult, table: pd.DataFrame) -> None:
    page = page_of(result)
    reader = _Reader()
    reader.feed(page)
    assert all(link.startswith("#") for link in reader.links)
    text = " ".join(reader.texts)
    for name in [*table["ecg"].head(50), *table["patient"].head(50)]:
        assert name not in page
    for words in ("pooled after LEACE", "no estimate of what site contributed", "Each level against all others"):
        assert words in text
    assert "share of the site" not in text.lower()


def test_small_counts_and_names_that_are_markup_do_no_harm_on_the_page(tmp_path: Path) -> None:
    table = sites_cohort(80, prevalence=(0.5, 0.5), per_patient=(1,))
    table["site"] = np.where(table.index < 10, "<script>alert(1)</script>", table["site"])
    table.loc[10:14, "site"] = [f"ward {each}" for each in range(5)]
    found = drift(opened(tmp_path, table), table, by="site", **{**QUICK, "chance": 0})
    page = page_of(found)
    assert "<script>" not in page
    assert "ward 0" not in page  # of one patient
    assert ">under 11<" in page
    levels = re.search(r"<caption>Each level against all others</caption>(.*?)</table>", page, re.DOTALL)
    assert levels is not None
    counts = re.findall(r"</th><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td>", levels[1])
    assert len(counts) > 1
    assert all(
        each.startswith(("about ", "under ")) for both in counts for each in both
    )  # else all would tell the small level
    assert ">10<" not in page


def test_the_summary_is_of_plain_lines(result: DriftResult) -> None:
    lines = str(result).splitlines()
    assert "highpass_hz: not tested: all values are the same" in lines
    assert any(line.startswith("site, af: auroc, within: 0.") for line in lines)
    assert any(line == "site: p-value, between patients: 0.01" for line in lines)
    assert not any("mae" in line for line in lines)
