"""Metrics with weights and ties are those of scikit-learn; thresholds and calibration are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.analysis.statistics.metrics import (
    BinaryTest,
    NumberTest,
    calibration_curve,
    f_max_threshold,
    net_benefit,
    recalibrated,
    sensitivity_threshold,
    youden_threshold,
)


@pytest.fixture
def part() -> BinaryTest:
    rng = np.random.default_rng(3)
    n, n_patients = 400, 90
    y = rng.random(n) < 0.3
    scores = np.round(rng.standard_normal(n) + y, 1)  # with ties
    return BinaryTest(y, scores, rng.integers(0, n_patients, n), n_patients, {"zero": 0.0, "one": 1.0})


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 4, (6, 90)).astype(float)


def test_auroc_auprc_and_brier_are_those_of_scikit_learn_with_weights_and_ties(
    part: BinaryTest, weights: np.ndarray
) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="the oracle is scikit-learn")
    found = part.metrics(weights)
    probability = 1 / (1 + np.exp(-part.scores))
    for draw, of_patients in enumerate(weights):
        weight = of_patients[part.patient]
        told = {"sample_weight": weight}
        assert abs(found["auroc"][draw] - metrics.roc_auc_score(part.y, part.scores, **told)) < 1e-12
        assert abs(found["auprc"][draw] - metrics.average_precision_score(part.y, part.scores, **told)) < 1e-12
        assert abs(found["brier"][draw] - metrics.brier_score_loss(part.y, probability, **told)) < 1e-12


def test_a_weight_is_a_number_of_copies(part: BinaryTest, weights: np.ndarray) -> None:
    copies = weights[0][part.patient].astype(int)
    copied = BinaryTest(
        np.repeat(part.y, copies), np.repeat(part.scores, copies), np.repeat(part.patient, copies), 90, part.thresholds
    )
    found, expected = part.metrics(weights[:1]), copied.metrics()
    for name in expected:
        if not name.startswith("calibration"):
            assert found[name][0] == pytest.approx(expected[name][0], abs=1e-12), name
    # One Newton step from the estimate.
    assert found["calibration_slope"][0] == pytest.approx(expected["calibration_slope"][0], abs=0.02)
    assert found["calibration_intercept"][0] == pytest.approx(expected["calibration_intercept"][0], abs=0.02)


def test_rates_are_those_of_the_confusion_matrix() -> None:
    y = np.array([True, True, True, False, False, False, False, False])
    scores = np.array([2.0, 1.0, -1.0, 3.0, 0.0, -1.0, -2.0, -3.0])
    found = BinaryTest(y, scores, np.arange(8), 8, {"t": 1.0}).metrics()
    rates = {name: float(found[f"{name}@t"][0]) for name in ("sensitivity", "specificity", "ppv", "npv", "f1")}
    assert rates == pytest.approx({"sensitivity": 2 / 3, "specificity": 4 / 5, "ppv": 2 / 3, "npv": 4 / 5, "f1": 2 / 3})
    assert found["prevalence"][0] == pytest.approx(3 / 8)


def test_a_draw_without_one_of_the_classes_is_nan() -> None:
    part = BinaryTest(np.array([True, False]), np.array([1.0, 0.0]), np.array([0, 1]), 2, {"t": 0.5})
    found = part.metrics(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]]))
    assert found["auroc"][0] == 1
    for values in found.values():
        assert np.isnan(values[1:]).all()


def test_a_score_that_is_no_probability_has_no_calibration() -> None:
    part = BinaryTest(np.array([True, False]), np.array([70.0, 60.0]), np.array([0, 1]), 2, {}, is_logit=False)
    assert set(part.metrics()) == {"auroc", "auprc", "prevalence"}


def test_calibration_finds_what_was_done_to_the_logits() -> None:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(200_000) * 1.5
    y = rng.random(len(logits)) < 1 / (1 + np.exp(-logits))
    assert recalibrated(y, (logits - 0.7) * 2, with_slope=True) == pytest.approx((0.7, 0.5), abs=0.02)
    assert recalibrated(y, logits - 0.7, with_slope=False) == pytest.approx((0.7, 1.0), abs=0.02)
    separated = np.array([False, False, True, True])
    assert np.isnan(recalibrated(separated, np.array([-2.0, -1.0, 1.0, 2.0]), with_slope=True)).all()


def test_thresholds_are_where_their_criterion_is_best() -> None:
    y = np.array([False, False, True, False, True, True, False, True])
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    best = {}
    for at in scores:
        above = scores >= at
        tp, fp = (above & y).sum(), (above & ~y).sum()
        best[float(at)] = (tp / 4 - fp / 4, 2 * tp / (tp + fp + 4), tp / 4)
    assert best[youden_threshold(y, scores)][0] == max(each[0] for each in best.values())
    assert best[f_max_threshold(y, scores)][1] == max(each[1] for each in best.values())
    assert sensitivity_threshold(y, scores, 0.75) == max(at for at, each in best.items() if each[2] >= 0.75)
    assert sensitivity_threshold(y, scores, 1.0) == 0.3


def test_numbers_have_error_r2_and_slope() -> None:
    rng = np.random.default_rng(0)
    y = rng.standard_normal(500) + 50
    predicted = 50 + (y - 50) * 0.5 + 0.1 * rng.standard_normal(500)
    found = {name: values[0] for name, values in NumberTest(y, predicted, np.arange(500), 500).metrics().items()}
    assert found["mae"] == pytest.approx(np.abs(y - predicted).mean())
    assert found["r2"] == pytest.approx(1 - ((y - predicted) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert found["calibration_slope"] == pytest.approx(np.polyfit(predicted, y, 1)[0])


def test_curves_leave_out_small_bins_and_treating_none_has_no_benefit() -> None:
    probability = np.linspace(0.05, 0.95, 120)
    y = probability > 0.5
    bins = calibration_curve(y, probability)
    assert [count for _, _, count in bins] == [12] * 10
    assert bins[0][1] == 0
    assert bins[-1][1] == 1
    assert calibration_curve(y[:50], probability[:50]) == []
    assert net_benefit(y, np.zeros(120), [0.2]).tolist() == [0.0]
    assert net_benefit(y, np.ones(120), [0.2])[0] == pytest.approx(0.5 - 0.25 * 0.5)
