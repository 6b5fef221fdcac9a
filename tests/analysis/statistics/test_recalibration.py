"""Recalibration and prediction intervals from held-out recordings: simulated truth, and nothing of the test part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgfounder.analysis.statistics.evaluation import Data, evaluate_features, evaluate_recalibrated
from ecgfounder.analysis.statistics.fitting import NUMBER, Held, Task, fit_split
from ecgfounder.analysis.statistics.metrics import NumberTest
from ecgfounder.analysis.statistics.recalibration import FEWEST_IN_BAND, reach_of, reaches, recalibration
from ecgfounder.analysis.statistics.splits import Split, cross_validation, grouped_folds


def shifted(seed: int = 0) -> tuple[np.ndarray, Data]:
    """A training part with half positives; a validation and a test part of another place, with fewer and a weaker effect."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((3000, 4)).astype(np.float32)
    place = np.repeat([0, 1, 1], 1000)
    logit = np.where(place == 0, 2.0 * X[:, 0], -2.0 + 1.0 * X[:, 0])
    Y = (rng.random(3000) < 1 / (1 + np.exp(-logit)))[:, None].astype(np.float32)
    train, validation, test = np.split(np.arange(3000), 3)
    task = Task(("af",), penalties=(1.0,))
    return X, Data(Y, np.arange(3000), (Split(train, test, validation),), task, n_draws=100)


def test_recalibration_on_the_validation_part_mends_a_known_shift() -> None:
    X, data = shifted()
    before = evaluate_features(X, data)
    after, ((line,),) = evaluate_recalibrated(before, data)
    assert line == pytest.approx((-2.0, 0.5), abs=0.25)
    own, new = before.estimates["af"], after.estimates["af"]
    assert own["calibration_intercept"].high < -1
    assert new["calibration_intercept"].low < 0 < new["calibration_intercept"].high
    assert new["calibration_slope"].low < 1 < new["calibration_slope"].high
    assert new["brier"].value < own["brier"].value - 0.03
    assert new["auroc"].value == pytest.approx(own["auroc"].value, abs=1e-12)
    # Thresholds move with the logits, so that the same recordings are above them.
    for name in own:
        if "@" in name:
            assert new[name].value == pytest.approx(own[name].value, abs=1e-12)


def test_without_a_validation_part_the_inner_folds_recalibrate_and_a_good_model_hardly_moves() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(500), 2)
    X = rng.standard_normal((1000, 4)).astype(np.float32)
    Y = (rng.random(1000) < 1 / (1 + np.exp(-1.5 * X[:, 0])))[:, None].astype(np.float32)
    splits = tuple(cross_validation(grouped_folds(groups, Y, 2, rng)))
    data = Data(Y, groups, splits, Task(("af",), penalties=(1e-2, 1.0)), n_draws=20)
    own = evaluate_features(X, data)
    after, lines = evaluate_recalibrated(own, data)
    assert all(line == pytest.approx((0, 1), abs=0.35) for (line,) in lines)
    assert after.estimates["af"]["brier"].value == pytest.approx(own.estimates["af"]["brier"].value, abs=0.005)
    for number, models in enumerate(own.fitted):
        assert models.held is not None
        assert sorted(models.held.rows) == splits[number].train.tolist()
        assert len(np.unique(models.held.part)) == data.task.inner_folds
        for part in range(3):  # a patient is in one inner fold
            inside = groups[models.held.rows[models.held.part == part]]
            assert not np.isin(inside, groups[models.held.rows[models.held.part != part]]).any()


def test_nothing_of_the_test_part_recalibrates() -> None:
    X, data = shifted()
    (split,) = data.splits
    held = fit_split(X, data.Y, data.groups, split, data.task, 0).held
    X[split.test], data.Y[split.test] = np.nan, np.nan
    again = fit_split(X, data.Y, data.groups, split, data.task, 0).held
    assert held is not None
    assert again is not None
    assert np.array_equal(held.scores, again.scores)
    assert recalibration(held, data.Y) == recalibration(again, data.Y)


def test_without_a_positive_slope_the_intercept_alone_is_fitted_and_without_both_classes_nothing() -> None:
    rng = np.random.default_rng(2)
    scores = rng.standard_normal((400, 3))
    against = rng.random(400) < 1 / (1 + np.exp(scores[:, 0] + 1))
    Y = np.stack([against, np.ones(400), np.full(400, np.nan)], axis=1).astype(np.float32)
    found = recalibration(Held(np.arange(400), scores, np.zeros(400, np.int64)), Y)
    assert found[0][1] == 1
    assert found[0][0] == pytest.approx(-1, abs=0.5)
    assert found[1:] == [(0.0, 1.0), (0.0, 1.0)]


# --- prediction intervals ----------------------------------------------------------------------------------------------


def numbers(seed: int, n: int = 900, *, per_patient: int = 2) -> tuple[np.ndarray, Data]:
    """Numbers with noise that is three times as large in one of two bands; half of its variance is the patient's."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n), per_patient)
    X = rng.standard_normal((len(groups), 3)).astype(np.float32)
    bands = groups % 2
    noise = np.sqrt(0.5) * (rng.standard_normal(n)[groups] + rng.standard_normal(len(groups)))
    Y = (60 + 5 * X[:, 0] + np.where(bands == 1, 9, 3) * noise)[:, None].astype(np.float32)
    train, validation, test = (np.flatnonzero(np.isin(groups % 3, each)) for each in (0, 1, 2))
    task = Task(("ef",), NUMBER, penalties=(1e-2, 1.0), inner_folds=2, interval=0.9)
    return X, Data(Y, groups, (Split(train, test, validation),), task, n_draws=40, bands=bands)


def shares(evaluation: object, data: Data) -> list[float]:
    """The coverage in each band of the test part."""
    (split,) = data.splits
    inside = np.abs(data.Y[:, 0] - evaluation.scores[:, 0]) <= evaluation.reach[:, 0]  # type: ignore[attr-defined]
    assert data.bands is not None
    return [float(inside[split.test][data.bands[split.test] == band].mean()) for band in (0, 1)]


def test_intervals_hold_their_level_by_band_and_one_width_for_all_does_not() -> None:
    own, same, whole = [], [], []
    for seed in range(12):
        X, data = numbers(seed)
        by_band = evaluate_features(X, data)
        one = evaluate_features(X, replace(data, bands=None))
        own.append(shares(by_band, data))
        same.append(shares(replace(by_band, reach=one.reach), data))
        whole.append((by_band.estimates["ef"]["coverage"].value, one.estimates["ef"]["coverage"].value))
        assert by_band.estimates["ef"]["interval_width"].value < one.estimates["ef"]["interval_width"].value
    assert np.mean(own, axis=0) == pytest.approx([0.9, 0.9], abs=0.02)
    assert np.mean(whole, axis=0) == pytest.approx([0.9, 0.9], abs=0.02)
    assert np.mean(same, axis=0)[0] > 0.97
    assert np.mean(same, axis=0)[1] < 0.85


def test_inner_folds_give_intervals_too_whose_coverage_has_an_interval() -> None:
    X, data = numbers(3)
    (split,) = data.splits
    assert split.validation is not None
    joined = replace(data, splits=(Split(np.union1d(split.train, split.validation), split.test),))
    found = evaluate_features(X, joined).estimates["ef"]["coverage"]
    assert found.value == pytest.approx(0.9, abs=0.05)
    assert found.low < 0.9 < found.high


def test_the_quantile_is_of_patients_and_of_one_more_than_there_are() -> None:
    held = Held(np.arange(12), np.zeros((12, 1)), np.zeros(12, np.int64))
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8])
    Y = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 20, 20, 20, 20], np.float32)[:, None]
    (own,) = reaches(held, Y, groups, np.full(12, -1), 0.8)
    assert own == {-1: 8.0}  # 9 patients: the eighth of ten
    (own,) = reaches(held, Y, groups, np.full(12, -1), 0.9)
    assert own == {-1: 20.0}
    (own,) = reaches(held, Y, groups, np.full(12, -1), 0.95)
    assert own == {-1: float("inf")}  # so few patients cannot say


def test_small_bands_have_the_width_of_all() -> None:
    n = 3 * FEWEST_IN_BAND
    rng = np.random.default_rng(0)
    held = Held(np.arange(n), np.zeros((n, 1)), np.zeros(n, np.int64))
    bands = np.r_[np.zeros(FEWEST_IN_BAND), np.ones(FEWEST_IN_BAND - 1), np.full(FEWEST_IN_BAND + 1, -1)].astype(
        np.int64
    )
    (own,) = reaches(held, rng.standard_normal((n, 1)).astype(np.float32), np.arange(n), bands, 0.8)
    assert set(own) == {-1, 0}
    assert reach_of([own], np.array([0, 1, -1]))[:, 0].tolist() == [own[0], own[-1], own[-1]]


def test_a_band_that_is_too_small_for_the_level_has_the_width_of_all() -> None:
    n = 500
    held = Held(np.arange(n), np.zeros((n, 1)), np.zeros(n, np.int64))
    bands = (np.arange(n) >= n - FEWEST_IN_BAND).astype(np.int64)
    Y = np.random.default_rng(0).standard_normal((n, 1)).astype(np.float32)
    (own,) = reaches(held, Y, np.arange(n), bands, 0.98)
    assert set(own) == {-1, 0}
    assert np.isfinite(reach_of([own], bands)).all()
    (own,) = reaches(held, Y, np.arange(n), bands, 0.9999)
    assert own == {-1: float("inf")}
    assert np.isnan(reach_of([own], bands)).all()


def test_coverage_counts_patients_as_the_quantile_does() -> None:
    """One in ten patients has twenty recordings and errors three times as large; the level is that of patients."""
    rng = np.random.default_rng(0)
    n = 4000
    patients = np.repeat(np.arange(n), np.where(np.arange(n) % 10 == 0, 20, 1))
    errors = np.where(patients % 10 == 0, 3.0, 1.0) * rng.standard_normal(len(patients))
    held = Held(np.arange(len(patients)), np.zeros((len(patients), 1)), np.zeros(len(patients), np.int64))
    (own,) = reaches(held, errors[:, None].astype(np.float32), patients, np.full(len(patients), -1), 0.9)
    reach = np.full(len(patients), own[-1])
    test = NumberTest(errors, np.zeros(len(patients)), patients, n, reach)
    found = test.metrics()
    assert found["coverage"] == pytest.approx(0.9, abs=1e-3)
    assert found["interval_width"] == pytest.approx(2 * own[-1])
    assert (np.abs(errors) <= reach).mean() < 0.75
    # A patient who is drawn twice counts twice, with the same weight for each of the recordings.
    weights = rng.poisson(1, (3, n)).astype(np.float64)
    share = np.bincount(patients, np.abs(errors) <= reach) / np.bincount(patients)
    assert test.metrics(weights)["coverage"] == pytest.approx(weights @ share / weights.sum(axis=1))
