"""The probe of a time to an event: one index ECG per patient, figures of a known hazard, controls, files, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ecgfounder.analysis import ProbeResult, ProbeSettings, probe
from ecgfounder.analysis.pages.tables import Row
from ecgfounder.analysis.probing.probe_report import page_of, write_report
from ecgfounder.analysis.statistics.cox import signed
from ecgfounder.analysis.statistics.fitting import TIME, Task, fit_split
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.errors import CheckpointError, RunError, SettingsError
from ecgfounder.network.named_head import read_head
from ecgfounder.results import EmbeddingRun, open_run
from ecgfounder.storage import locate
from tests.builders.probes import cohort, write_run
from tests.harness.times import with_hazards

OPTIONS: dict[str, Any] = {
    "time": "years",
    "event": "death",
    "horizons": (3.0, 1.0),
    "group": "patient",
    "on": "study_id",
    "n_draws": 50,
    "penalties": (1e-2, 1.0),
    "inner_folds": 2,
    "folds": 2,
    "permutations": 3,
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """300 patients; the time from a patient's first ECG depends on its `x0` and `x1`, that from later ones is not known."""
    table = cohort(300, strength=0)
    y = with_hazards(-1.5 + 1.4 * (table["x0"] - table["x1"]).to_numpy(), np.random.default_rng(5))
    first = ~table["patient"].duplicated()
    table["years"] = np.where(first, np.abs(y), np.nan)
    table["death"] = [None if not known else bool(each > 0) for known, each in zip(first, y, strict=True)]
    return table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame) -> EmbeddingRun:
    return open_run(write_run(tmp_path_factory.mktemp("times") / "run", table))


@pytest.fixture(scope="module")
def result(run: EmbeddingRun, table: pd.DataFrame) -> ProbeResult:
    return probe(run, table, **OPTIONS, baseline=("age",), score={"death": "x0"})


def row_of(result: ProbeResult, metric: str, control: str = "embedding") -> Row:
    (found,) = (row for row in result.rows if (row.metric, row.control) == (metric, control))
    return found


def test_a_known_hazard_is_found_with_intervals(result: ProbeResult, table: pd.DataFrame) -> None:
    known = table["years"].notna()
    found = row_of(result, "uno_c")
    assert found.low is not None
    assert found.estimate is not None
    assert 0.7 < found.low < found.estimate < (found.high or 0) < 0.95
    assert (found.label, found.n_records, found.n_patients) == ("death", 300, 300)
    assert found.n_pos_patients == (table.loc[known, "death"] == True).sum()  # noqa: E712
    assert result.data.task.horizons == (1, 3)
    for time in (1, 3):
        assert (row_of(result, f"auroc@{time}").estimate or 0) > 0.75
        assert (row_of(result, f"scaled_brier@{time}").low or 0) > 0
        assert row_of(result, f"calibration_ratio@{time}").estimate == pytest.approx(1, abs=0.25)
    # The observed risk is that of the exponential times, not of the deaths that were seen.
    hazards = np.exp(-1.5 + 1.4 * (table["x0"] - table["x1"])[known])
    assert row_of(result, "risk@3").estimate == pytest.approx((1 - np.exp(-3 * hazards)).mean(), abs=0.06)


def test_controls_stand_beside_it(result: ProbeResult) -> None:
    assert abs((row_of(result, "uno_c", "baseline").estimate or 0) - 0.5) < 0.12
    assert abs((row_of(result, "uno_c", "permuted labels").estimate or 0) - 0.5) < 0.12
    assert (row_of(result, "uno_c difference", "baseline").low or 0) > 0.1
    score = row_of(result, "uno_c", "score: x0")
    assert 0.6 < (score.estimate or 0) < (row_of(result, "uno_c").estimate or 0)
    assert not any(row.metric.startswith("brier") for row in result.rows if row.control == "score: x0")


def test_files_hold_risks_and_what_makes_them(result: ProbeResult, tmp_path: Path, table: pd.DataFrame) -> None:
    write_report(result, locate(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out" / "predictions.pq").to_pandas()
    assert list(found.columns) == ["record", "label", "time", "event", "score", "risk@1", "risk@3", "fold"]
    known = table.set_index("ecg").loc[found["record"]]
    assert np.array_equal(found["time"], known["years"].astype(np.float32))
    assert (found["event"] == (known["death"].to_numpy() == True)).all()  # noqa: E712
    assert ((found["risk@1"] < found["risk@3"]) & (found["risk@1"] > 0) & (found["risk@3"] <= 1)).mean() > 0.95
    about = orjson.loads((tmp_path / "out" / "probe.json").read_bytes())
    assert set(about["baseline_hazard"]) == {"1", "3"}
    hazard = result.final.baseline.at(3.0) if result.final and result.final.baseline else 0
    assert about["baseline_hazard"]["3"] == hazard > 0
    with pytest.raises(CheckpointError, match="predicts logarithms of hazards, not probabilities"):
        read_head(tmp_path / "out" / "probe.safetensors")
    page = page_of(result)
    assert "Uno&#x27;s C" in page
    assert "Kaplan and Meier" in page
    assert "Cox regression with an L2 penalty" in page
    assert not any(name in page for name in table["ecg"])


def test_a_patient_has_one_index_ecg(run: EmbeddingRun, table: pd.DataFrame) -> None:
    rng = np.random.default_rng(0)
    every = table.assign(years=rng.exponential(5, len(table)), death=rng.random(len(table)) < 0.6)
    quick = {**OPTIONS, "controls": "none"}
    with pytest.raises(
        SettingsError, match="patients have several recordings with a time, of which one is the index ECG"
    ):
        probe(run, every, **quick)
    found = probe(run, every, **quick, one_per_patient="first", ecg_time="year")
    firsts = every[~every["patient"].duplicated()]
    assert set(found.predictions["record"].to_pylist()) == set(firsts["ecg"])


def test_what_is_not_after_the_ecg_is_left_out_and_counted(run: EmbeddingRun, table: pd.DataFrame) -> None:
    """The index ECG is chosen first: a later ECG does not take the place of one after whose event it came."""
    before = table.copy()
    rows = before.index[before["years"].notna()]
    before.loc[rows[:7], "years"] = 0.0
    before.loc[rows[7:12], "years"] = -2.0
    found = probe(run, before, **{**OPTIONS, "controls": "none"}, one_per_patient="first", ecg_time="year")
    assert found.selection.left_out["the event, or the end of observation, not after the ECG"] == 12
    assert row_of(found, "uno_c").n_patients == 288


def test_a_later_ecg_does_not_take_the_place_of_an_index_ecg_without_a_time(
    run: EmbeddingRun, table: pd.DataFrame
) -> None:
    every = table.assign(years=table["years"].fillna(1.5), death=table["death"].fillna(True))
    firsts = every.index[~every["patient"].duplicated()]
    every.loc[firsts[:9], "years"] = np.nan
    found = probe(run, every, **{**OPTIONS, "controls": "none"}, one_per_patient="first", ecg_time="year")
    assert set(found.predictions["record"].to_pylist()) == set(every.loc[firsts[9:], "ecg"])
    assert found.selection.left_out["no known label"] == 9


@pytest.mark.parametrize(
    ("options", "changes", "said"),
    [
        ({"one_per_patient": "last", "ecg_time": "year"}, {}, "the index ECG is the first: one_per_patient='first'"),
        ({"one_per_patient": "random"}, {}, "the index ECG is the first: one_per_patient='first'"),
        ({"event": None}, {}, "time and event belong together"),
        ({"label": ("af",)}, {}, "give the labels in one way"),
        ({"combine": "logit"}, {}, "combine='logit' fits windows"),
        ({"horizons": (0.0,)}, {}, "'horizons' parameter. They must be positive"),
        ({"horizons": (1e4,)}, {}, "In a test part no recording is observed beyond 10000; the longest time there is"),
        ({"time": "ecg"}, {}, "the column 'ecg' of the 'time' parameter holds values that are no numbers"),
        (
            {"event": "x0"},
            {},
            "other values than 0, 1, true, false and missing ones. Competing risks are not supported",
        ),
        ({}, {"death": False}, "no recording has the event"),
        ({}, {"years": -1.0}, "no recording with a known label is left"),
    ],
)
def test_what_cannot_be_is_refused(
    run: EmbeddingRun, table: pd.DataFrame, options: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    given = {**OPTIONS, **({"horizons": ()} if "death" in changes else {}), "controls": "none", **options}
    with pytest.raises((SettingsError, RunError), match=said):
        probe(run, table.assign(**changes), **given)
    with pytest.raises(SettingsError, match="they need time and event"):
        ProbeSettings(label=("af",), horizons=(1.0,))


def test_horizons_are_quartiles_of_the_times_of_events_by_default(run: EmbeddingRun, table: pd.DataFrame) -> None:
    found = probe(run, table, **{**OPTIONS, "horizons": (), "controls": "none"})
    events = table.loc[table["death"] == True, "years"]  # noqa: E712
    assert found.data.task.horizons == pytest.approx(events.quantile([0.25, 0.5, 0.75]).tolist(), rel=0.05)


def test_too_few_events_are_named_and_not_scored(run: EmbeddingRun, table: pd.DataFrame) -> None:
    few = table.copy()
    few.loc[few.index[few["death"] == True][18:], "death"] = False  # noqa: E712
    with pytest.raises(RunError, match="death: fewer than 20 patients with the event in the training part"):
        probe(run, few, **{**OPTIONS, "controls": "none"})


@pytest.mark.parametrize("validation", [False, True])
def test_nothing_that_is_chosen_depends_on_the_test_part(validation: bool) -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((300, 4)).astype(np.float32)
    y = with_hazards(X[:, 0].astype(np.float64), rng, digits=1)
    parts = np.split(rng.permutation(300), [150, 220])
    train, middle, test = (np.sort(part) for part in parts)
    split = Split(train, test, middle) if validation else Split(np.union1d(train, middle), test)
    task = Task(("death",), TIME, penalties=(1e-4, 1e-2, 1.0), inner_folds=2, horizons=(1.0,))
    own = fit_split(X, y[:, None], np.arange(300), split, task, 0)
    X[test], y[test] = np.nan, np.nan
    other = fit_split(X, y[:, None], np.arange(300), split, task, 0)
    assert np.array_equal(own.weights.weight, other.weights.weight)
    assert own.C == other.C
    assert own.baseline is not None
    assert other.baseline is not None
    assert np.array_equal(own.baseline.hazard, other.baseline.hazard)


def test_the_penalty_is_large_where_there_is_nothing_to_know_and_small_where_there_is() -> None:
    rng = np.random.default_rng(4)
    X = rng.standard_normal((400, 30)).astype(np.float32)
    task = Task(("death",), TIME, penalties=(1e-5, 1e-3, 1e-1, 10.0), horizons=(1.0,))
    split = Split(np.arange(400), np.arange(0))
    nothing = with_hazards(np.zeros(400), rng)
    assert fit_split(X, nothing[:, None], np.arange(400), split, task, 0).C[0] <= 1e-3
    strong = with_hazards(2.0 * X[:, 0].astype(np.float64), rng)
    assert fit_split(X, strong[:, None], np.arange(400), split, task, 0).C[0] >= 1e-1


def test_times_are_signed() -> None:
    assert signed(np.array([1.0, 2.5]), np.array([True, False])).tolist() == [1.0, -2.5]


def test_the_same_seed_gives_the_same_bytes(run: EmbeddingRun, table: pd.DataFrame) -> None:
    found = [probe(run, table, **{**OPTIONS, "controls": "none"}) for _ in range(2)]
    assert found[0].table.equals(found[1].table)
    assert replace(found[0].settings, seed=1) != found[0].settings
