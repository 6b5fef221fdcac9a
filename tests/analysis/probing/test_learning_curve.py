"""Learning curves: nested subsets of whole patients, a curve that rises to a known limit, and the random networks beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from ecgfounder.analysis import ProbeResult, ProbeSettings, probe
from ecgfounder.analysis.probing.learning_curve import in_order, in_turn, learning_curve, subset
from ecgfounder.analysis.probing.probe_report import page_of
from ecgfounder.analysis.statistics.evaluation import Data
from ecgfounder.analysis.statistics.fitting import NUMBER, TIME, Task
from ecgfounder.analysis.statistics.splits import cross_validation, grouped_folds
from ecgfounder.errors import SettingsError
from ecgfounder.results import open_run
from tests.builders.probes import cohort, write_run
from tests.harness.times import with_hazards

WIDTH, SHIFT = 12, 1.2


def known(n_patients: int = 600, seed: int = 0) -> tuple[np.ndarray, Data]:
    """Features of which the first is shifted by the label, so that the best AUROC is that of two normal distributions."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 3, n_patients))
    y = (rng.random(n_patients) < 0.3)[groups]
    X = rng.standard_normal((len(groups), WIDTH)).astype(np.float32)
    X[:, 0] += SHIFT * y
    Y = y[:, None].astype(np.float32)
    splits = tuple(cross_validation(grouped_folds(groups, Y, 3, rng)))
    return X, Data(Y, groups, splits, Task(("af",), penalties=(1e-3, 1e-1, 10.0), inner_folds=2), n_draws=2)


def test_subsets_are_nested_whole_patients_of_the_training_part_with_so_many_of_the_rarer_class() -> None:
    _, data = known()
    for seed in range(3):
        split = data.splits[seed]
        before = np.arange(0)
        for size in (10, 30, 90):
            rows = subset(data, split, seed, size)
            patients = np.unique(data.groups[rows])
            assert len(np.unique(data.groups[rows[data.Y[rows, 0] == 1]])) == size
            assert set(before) < set(rows) <= set(split.train)
            assert len(rows) == np.isin(data.groups, patients).sum()  # all recordings of each patient
            before = rows
    assert not np.array_equal(subset(data, data.splits[0], 0, 30), subset(data, data.splits[0], 3, 30))
    assert np.array_equal(subset(data, data.splits[0], 3, 30), subset(data, data.splits[0], 3, 30))


def test_the_rarer_class_is_counted_of_numbers_all_patients_and_of_times_those_with_the_event() -> None:
    _, data = known(120)
    split = data.splits[0]
    n = len(np.unique(data.groups[split.train]))
    often = Data(1 - data.Y, data.groups, data.splits, data.task)
    assert len(in_order(often, split, 0)[1]) == len(in_order(data, split, 0)[1]) < n / 2
    number = Data(data.Y, data.groups, data.splits, Task(("age",), NUMBER))
    assert len(in_order(number, split, 0)[1]) == n
    y = np.where(data.Y[:, 0] > 0, -1, 2).astype(np.float32)[:, None]  # more with the event than without
    times = Data(y, data.groups, data.splits, Task(("death",), TIME, horizons=(1.0,)))
    assert len(in_order(times, split, 0)[1]) == n - len(in_order(data, split, 0)[1])
    unknown = Data(np.where(np.arange(len(data.Y))[:, None] % 2, np.nan, data.Y), data.groups, data.splits, data.task)
    assert len(in_order(unknown, split, 0)[0]) < n


def test_a_curve_rises_to_what_there_is_to_know_and_one_of_noise_does_not() -> None:
    X, data = known()
    sizes = (10, 30, 100, 1000)
    points = learning_curve("own", [X], data, ("af",), sizes, 6)
    assert [point.size for point in points] == [10, 30, 100]  # there are no 1,000
    means = [float(np.mean(point.values)) for point in points]
    best = norm.cdf(SHIFT / np.sqrt(2))
    assert means[0] < means[1] < means[2] + 0.01
    assert means[2] == pytest.approx(best, abs=0.04)
    assert means[0] < best - 0.03
    assert all(len(point.values) == 6 for point in points)
    assert points[0].n_patients == pytest.approx(10 / 0.3, rel=0.3)
    noise = [np.random.default_rng(seed).standard_normal(X.shape).astype(np.float32) for seed in range(2)]
    flat = learning_curve("random", noise, data, ("af",), (100,), 6)
    assert abs(np.mean(flat[0].values) - 0.5) < 0.06
    assert (
        learning_curve("own", [X], data, ("af",), (30,), 6) == points[1:2]
    )  # the same subsets, whatever other sizes there are


@pytest.mark.parametrize(("n_splits", "n_features"), [(5, 5), (3, 2), (2, 4), (6, 4), (1, 5), (5, 1)])
def test_seeds_take_test_parts_and_networks_in_all_pairs(n_splits: int, n_features: int) -> None:
    pairs = [in_turn(seed, n_splits, n_features) for seed in range(n_splits * n_features)]
    assert sorted(pairs) == [(split, each) for split in range(n_splits) for each in range(n_features)]
    assert [split for split, _ in pairs[:n_splits]] == list(range(n_splits))


def test_each_network_is_tested_on_each_test_part() -> None:
    """Features of which the second know the label, not in the first test part."""
    X, data = known(200)
    half = data.splits[0].test
    two = Data(data.Y, data.groups, data.splits[:2], data.task, n_draws=2)
    nothing = np.random.default_rng(0).standard_normal(X.shape).astype(np.float32)
    knows = nothing + 9 * data.Y
    knows[half] = nothing[half]
    (point,) = learning_curve("random", [nothing, knows], two, ("af",), (20,), 4)
    assert [value > 0.9 for value in point.values] == [False, True, False, False]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ProbeResult:
    folder = tmp_path_factory.mktemp("curves")
    table = cohort(220)
    noise = table[table["patient"] < "P0200"].copy()
    noise[[f"x{each}" for each in range(6)]] = np.random.default_rng(0).standard_normal((len(noise), 6))
    random = open_run(write_run(folder / "random", noise))
    options: dict[str, Any] = {
        "n_draws": 20,
        "penalties": (1e-2, 1.0),
        "inner_folds": 2,
        "folds": 2,
        "controls": "none",
    }
    options |= {"group": "patient", "on": "study_id", "label": ("af", "sinus"), "curve_seeds": 3}
    run = open_run(write_run(folder / "run", table))
    return probe(run, table, **options, learning_curve=(10, 30), random=[random])


def test_the_curve_is_in_the_table_with_the_random_networks_beside_it(result: ProbeResult) -> None:
    rows = {(row.label, row.control): row for row in result.rows if row.control.startswith("learning curve")}
    names = ["learning curve", "learning curve, same recordings", "learning curve, random weights"]
    assert set(rows) == {(label, f"{name}: {size}") for label in ("af", "sinus") for name in names for size in (10, 30)}
    row = rows["af", "learning curve: 30"]
    assert row.metric == "auroc"
    assert (row.low or 0) <= (row.estimate or 0) <= (row.high or 0)
    assert row.note.startswith(
        "mean and range over 3 training subsets with 30 patients of the rarer class; on average "
    )
    assert (rows["af", "learning curve, random weights: 30"].estimate or 1) < 0.65 < (row.estimate or 0)
    assert (rows["af", "learning curve, same recordings: 30"].estimate or 0) > 0.8


def test_the_page_shows_the_curves_apart_from_the_controls(result: ProbeResult) -> None:
    page = page_of(result)
    section = page.partition(">Learning curves</h2>")[2].partition("<h2")[0]
    assert "Learning curve, af" in section
    assert "Patients of the rarer class in training" in section
    assert ">10</text>" in section
    assert "learning curve: 10" not in page.partition(">Controls</h2>")[2].partition("<h2")[0]


def test_sizes_are_checked_and_a_label_without_a_curve_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'learning_curve' parameter"):
        ProbeSettings(label=("af",), learning_curve=(3,))
    table: pd.DataFrame = cohort(90)
    y = with_hazards(-1.0 + table["x2"].to_numpy(), np.random.default_rng(1))
    table = table.assign(time=np.abs(y), death=y > 0)
    options: dict[str, Any] = {"n_draws": 20, "penalties": (1.0,), "inner_folds": 2, "folds": 2, "controls": "none"}
    options |= {"group": "patient", "on": "study_id", "curve_seeds": 2, "one_per_patient": "first", "ecg_time": "year"}
    run = open_run(write_run(tmp_path / "run", table))
    found = probe(run, table, **options, time="time", event="death", horizons=(1.0,), learning_curve=(10, 5000))
    assert [point.size for point in found.curves] == [10]
    assert any("training subsets with 10 patients with the event" in row.note for row in found.rows)
    none = probe(run, table, **options, number=("age",), learning_curve=(5000,))
    assert none.curves == ()
    assert any(each.startswith("No learning curve of age") for each in none.warnings)
