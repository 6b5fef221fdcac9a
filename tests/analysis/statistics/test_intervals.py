"""Intervals cover the fitted probe's true value when patients are drawn; with recordings drawn they would not."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.analysis.statistics.intervals import Estimate, combined, difference, drawn_patients, interval
from ecgfounder.analysis.statistics.metrics import BinaryTest
from tests.harness.probes import bca, coverage, delong_error, obuchowski_error, simulated

KINDS = ("auto", "percentile", "bca")


def test_a_draw_takes_as_many_patients_as_there_are() -> None:
    weights = drawn_patients(50, 400, np.random.default_rng(0))
    assert weights.shape == (400, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.var() == pytest.approx(1, abs=0.05)


def test_with_one_recording_a_patient_the_standard_error_is_delongs() -> None:
    for seed in range(2):
        part = simulated(400, np.random.default_rng(seed), per_patient=(1,))
        draws = part.metrics(drawn_patients(400, 1000, np.random.default_rng(1)))["auroc"]
        assert draws.std() == pytest.approx(delong_error(part), rel=0.1)


def test_with_several_recordings_the_standard_error_is_obuchowskis() -> None:
    for seed in range(2):
        part = simulated(300, np.random.default_rng(seed))
        draws = part.metrics(drawn_patients(300, 1000, np.random.default_rng(1)))["auroc"]
        assert draws.std() == pytest.approx(obuchowski_error(part), rel=0.1)
        assert draws.std() > 1.2 * delong_error(part)


def test_intervals_over_patients_cover_the_true_value() -> None:
    """200 simulations of 180 patients, about 72 in the rarer class; 1,000 with other designs are a slow test."""
    found = coverage(200, n_patients=180, n_draws=200)
    for metric in ("auroc", "auprc", "brier"):
        assert 0.89 <= found[metric] <= 0.99, (metric, found[metric])


@pytest.mark.slow
@pytest.mark.parametrize("intraclass", [0.3, 0.5, 0.7])
def test_intervals_cover_in_a_thousand_simulations_and_those_over_recordings_do_not(intraclass: float) -> None:
    found = coverage(1000, n_patients=200, n_draws=1000, intraclass=intraclass)
    for metric in ("auroc", "auprc", "brier"):
        assert 0.92 <= found[metric] <= 0.98, (metric, found[metric])
    if intraclass == 0.7:
        of_recordings = coverage(300, n_patients=200, n_draws=500, intraclass=intraclass, draw_recordings=True)
        assert of_recordings["auroc"] < 0.85


@pytest.mark.slow
def test_with_few_patients_the_logit_scale_covers_best() -> None:
    """The figures of 1,000 simulations are in docs/probe.md: they decided for the kind of interval."""
    found = {kind: coverage(500, n_patients=200, n_draws=500, prevalence=0.05, kind=kind) for kind in KINDS}
    assert found["auto"]["auroc"] > found["bca"]["auroc"] > found["percentile"]["auroc"]
    assert all(each["auprc"] <= found["auto"]["auprc"] + 0.01 for each in found.values())


def test_bca_is_the_percentile_interval_where_nothing_is_skewed() -> None:
    part = simulated(150, np.random.default_rng(0))
    draws = drawn_patients(150, 400, np.random.default_rng(1))
    corrected = bca(part, draws)["brier"]
    plain = combined([part.metrics()], [part.metrics(draws)], "percentile")[0]["brier"]
    width = plain.high - plain.low
    assert corrected.low == pytest.approx(plain.low, abs=0.1 * width)
    assert corrected.high == pytest.approx(plain.high, abs=0.1 * width)


def test_draws_that_lack_a_class_are_counted() -> None:
    part = BinaryTest(np.array([True, False, False]), np.array([1.0, 0.0, 2.0]), np.arange(3), 3, {})
    weights = drawn_patients(3, 200, np.random.default_rng(0))
    found, _ = combined([part.metrics()], [part.metrics(weights)])
    lacking = int(((weights[:, 0] == 0) | (weights[:, 0] == 3)).sum())
    assert found["auroc"].n_unscored == lacking > 20
    assert found["auroc"].n_draws == 200


def test_a_metric_between_0_and_1_has_its_interval_there() -> None:
    rng = np.random.default_rng(0)
    draws = 1 / (1 + np.exp(-(4 + 0.8 * rng.standard_normal(4000))))
    found = interval(float(1 / (1 + np.exp(-4))), draws, "logit")
    assert 0 < found.low < found.value < found.high < 1
    assert np.log(found.low / (1 - found.low)) == pytest.approx(4 - 1.96 * 0.8, abs=0.08)


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(2000)
    found = difference(shared + 0.1, shared + 0.01 * rng.standard_normal(2000), 0.1)
    assert found.low == pytest.approx(0.1 - 0.0196, abs=0.003)


def test_a_metric_of_1_in_every_draw_has_no_interval() -> None:
    found = interval(1.0, np.ones(200), "logit")
    assert (found.value, found.n_draws, found.n_unscored) == (1.0, 200, 0)
    assert np.isnan(found.low)
    some = interval(1.0, np.r_[np.ones(150), np.full(50, 0.9)], "logit")
    assert (some.low, some.high) == (0.9, 1.0)


def test_without_draws_there_is_no_interval() -> None:
    found = interval(0.7, np.array([np.nan, np.nan]), "normal")
    assert isinstance(found, Estimate)
    assert np.isnan(found.low)
    assert found.n_unscored == 2
