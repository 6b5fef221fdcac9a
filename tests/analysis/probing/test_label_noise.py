"""Label noise: recordings with known errors are found, planted ones say how many, and names are in no page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ecgfounder.analysis import ProbeSettings, probe
from ecgfounder.analysis.probing import probe as probe_module
from ecgfounder.analysis.probing.label_noise import contradictions, planted, with_errors
from ecgfounder.analysis.probing.probe_report import page_of, write_report
from ecgfounder.analysis.statistics.evaluation import Data, Evaluation, evaluate_features
from ecgfounder.analysis.statistics.fitting import Task
from ecgfounder.analysis.statistics.splits import Split, cross_validation, grouped_folds
from ecgfounder.errors import SettingsError
from ecgfounder.results import open_run
from ecgfounder.storage import locate
from tests.builders.probes import cohort, write_run


def remade(Y: np.ndarray, data: Data) -> Data:
    fold = grouped_folds(data.groups, Y, 3, np.random.default_rng(0))
    return replace(data, Y=Y, splits=tuple(cross_validation(fold)))


def noisy(
    prevalence: float, *, strength: float = 3.0, seed: int = 0
) -> tuple[np.ndarray, Data, Evaluation, np.ndarray]:
    """Features that know the true label well, labels of which some are wrong, the probe of these, and which are wrong."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(500), rng.integers(1, 4, 500))
    truth = rng.random(len(groups)) < prevalence
    X = rng.standard_normal((len(groups), 6)).astype(np.float32)
    X[:, 0] += strength * truth
    X[:, 1] += strength / 2 * truth
    Y, (wrong,) = with_errors(truth[:, None].astype(np.float32), rng)
    task = Task(("af",), penalties=(1e-2, 1.0), inner_folds=2)
    data = remade(Y, Data(Y, groups, (), task, n_draws=2))
    return X, data, evaluate_features(X, data), wrong


@pytest.mark.parametrize(("prevalence", "precision"), [(0.4, 0.85), (0.1, 0.6)])
def test_known_errors_are_found_with_measured_precision(prevalence: float, precision: float) -> None:
    hits, flagged, errors, first = 0, 0, 0, []
    for seed in range(3):
        _, data, evaluation, wrong = noisy(prevalence, seed=seed)
        found = contradictions(evaluation, data, "af")
        hits += np.isin(found.rows, wrong).sum()
        flagged, errors = flagged + len(found.rows), errors + len(wrong)
        first.append(np.isin(found.ranked[: len(wrong)], wrong).mean())
        confidence = found.confidence[found.ranked]
        assert (np.diff(confidence) >= 0).all()  # the most contradictory first
        assert len(found.ranked) == len(data.Y)
    assert hits / flagged >= precision
    assert hits / errors >= 0.6
    assert np.mean(first) >= 0.45


def test_planted_errors_say_how_many_are_found() -> None:
    X, data, evaluation, wrong = noisy(0.4, seed=5)
    (told,) = planted(X, data, evaluation, remade, 3)
    found = contradictions(evaluation, data, "af")
    recall = np.isin(wrong, found.rows).mean()
    assert np.mean(told.found) == pytest.approx(recall, abs=0.15)
    # As many errors were there already, which are no planted ones: the share is a lower bound of the precision.
    assert 0.35 < np.mean(told.among) < np.isin(found.rows, wrong).mean()
    assert len(told.first) == 3
    assert told.n_planted == len(wrong)
    clean = np.where(np.isin(np.arange(len(data.Y)), wrong)[:, None], 1 - data.Y, data.Y)
    cleaned = remade(clean, data)
    (told,) = planted(X, cleaned, evaluate_features(X, cleaned), remade, 3)
    assert np.mean(told.among) > 0.85


def test_embeddings_that_know_nothing_find_nothing_more_than_chance() -> None:
    X, data, _, wrong = noisy(0.4)
    X = np.random.default_rng(9).standard_normal(X.shape).astype(np.float32)
    (told,) = planted(X, data, evaluate_features(X, data), remade, 3)
    chance = len(wrong) / len(data.Y)
    assert abs(np.mean(told.first) - chance) < 0.08
    assert abs(np.mean(told.among) - chance) < 0.05


def test_as_many_of_both_classes_get_the_other_label_and_unknown_ones_stay() -> None:
    Y = np.array([[1.0] * 100 + [0.0] * 500 + [np.nan] * 50, [1.0] * 650], np.float32).T
    found, wrong = with_errors(Y, np.random.default_rng(0))
    assert [len(each) for each in wrong] == [10, 0]
    assert (Y[wrong[0], 0] == 1).sum() == 5
    changed = np.flatnonzero((found != Y) & ~(np.isnan(found) & np.isnan(Y)))
    assert len(changed) == 10
    assert np.isnan(found[600:, 0]).all()


def test_only_tested_recordings_are_named_and_thresholds_are_those_of_their_part() -> None:
    X, data, _, _ = noisy(0.4)
    part = data.groups % 2
    split = Split(np.flatnonzero(part == 0), np.flatnonzero(part == 1))
    alone = replace(data, splits=(split,))
    found = contradictions(evaluate_features(X, alone), alone, "af")
    assert set(found.ranked) == set(split.test)
    assert set(found.rows) <= set(split.test)
    assert np.isnan(found.confidence[split.train]).all()
    # Written out for the part: a probability of the other class as large as usual for that class, and its own smaller.
    probability = found.confidence[split.test]
    positive = data.Y[split.test, 0] > 0.5
    usual = {side: probability[positive == side].mean() for side in (True, False)}
    expected = {
        int(row)
        for row, own, side in zip(split.test, probability, positive, strict=True)
        if 1 - own >= usual[not side] and (own < usual[bool(side)] or own < 0.5)
    }
    assert set(found.rows.tolist()) == expected


def test_names_are_in_a_table_and_in_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table: pd.DataFrame = cohort(220, strength=3)
    wrong = np.random.default_rng(1).choice(len(table), 20, replace=False)
    table.loc[wrong, "af"] = ~table.loc[wrong, "af"]
    options: dict[str, Any] = {
        "n_draws": 20,
        "penalties": (1e-2, 1.0),
        "inner_folds": 2,
        "folds": 2,
        "controls": "none",
    }
    options |= {"group": "patient", "on": "study_id", "label": ("af",), "label_noise": True}
    monkeypatch.setattr(probe_module, "SAMPLE", 350)
    run = open_run(write_run(tmp_path / "run", table))
    result = probe(run, table, **options)
    write_report(result, locate(tmp_path / "out"))
    named = pq.read_table(tmp_path / "out" / "label_noise.pq").to_pandas()
    assert list(named.columns) == ["record", "label", "value", "confidence", "rank", "fold"]
    assert named["rank"].tolist() == list(range(1, len(named) + 1))
    assert named["confidence"].is_monotonic_increasing
    assert np.isin(named["record"], table["ecg"].iloc[wrong]).mean() > 0.5
    assert (named["value"] == table.set_index("ecg").loc[named["record"], "af"].to_numpy(float)).all()
    rows = {row.metric: row for row in result.rows if row.control == "label noise"}
    assert set(rows) == {"planted errors found", "planted among contradictions", "planted among the first"}
    assert (rows["planted errors found"].estimate or 0) > 0.5
    assert 300 < (rows["planted errors found"].n_records or 0) <= 350
    assert rows["planted errors found"].note.startswith("mean and range over 5 plantings of ")
    page = page_of(result)
    section = page.partition(">Label noise</h2>")[2].partition("<h2")[0]
    assert f">{len(table)}<" in section
    assert "Planted errors found" in section
    assert not any(name in page for name in table["ecg"])
    plain = probe(run, table, **{**options, "label_noise": False})
    assert plain.contradictions.num_rows == 0
    assert "Label noise" not in page_of(plain)


def test_numbers_and_times_have_no_label_noise() -> None:
    for options in ({"number": ("age",)}, {"time": "years", "event": "death"}):
        with pytest.raises(SettingsError, match="label_noise is for labels"):
            ProbeSettings(**options, label_noise=True)  # type: ignore[arg-type]
