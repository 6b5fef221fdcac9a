"""AUROC over pairs of one stratum: against all pairs, one by one; the same draws for all."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.analysis.statistics.intervals import drawn_patients
from ecgfounder.analysis.statistics.metrics import BinaryTest
from ecgfounder.analysis.statistics.strata import Pairs, areas, ratio


def pairs(n: int = 120, seed: int = 0) -> Pairs:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.standard_normal(n), 1)  # with ties
    return Pairs(rng.random(n) < 0.4, scores, rng.integers(5, size=n), rng.integers(40, size=n))


def one_by_one(test: Pairs, weights: np.ndarray) -> tuple[float, float]:
    correct = total = 0.0
    for p in np.flatnonzero(test.y):
        for n in np.flatnonzero(~test.y):
            if test.stratum[p] == test.stratum[n]:
                weight = weights[test.patient[p]] * weights[test.patient[n]]
                total += weight
                correct += weight * ((test.scores[p] > test.scores[n]) + 0.5 * (test.scores[p] == test.scores[n]))
    return correct, total


def test_it_counts_the_pairs_of_one_stratum_with_the_patients_weights() -> None:
    test = pairs()
    weights = np.concatenate([np.ones((1, 40)), drawn_patients(40, 6, np.random.default_rng(1))])
    correct, total = test.sums(weights)
    for draw, each in enumerate(weights):
        assert (correct[draw], total[draw]) == pytest.approx(one_by_one(test, each))
    assert test.sums()[0][0] == correct[0]


def test_in_one_stratum_it_is_the_auroc() -> None:
    test = pairs()
    whole = Pairs(test.y, test.scores, np.zeros_like(test.stratum), test.patient)
    expected = BinaryTest(test.y, test.scores, test.patient, 40, {}, is_logit=False).metrics()["auroc"][0]
    assert ratio(*whole.sums())[0] == pytest.approx(expected, abs=1e-12)


def test_a_further_stratum_leaves_pairs_of_both_only() -> None:
    test = pairs()
    site = np.random.default_rng(2).integers(3, size=len(test.y))
    both = Pairs(test.y, test.scores, 10 * test.stratum + site, test.patient)
    for mine, theirs in zip(test.within(site).sums(), both.sums(), strict=True):
        assert mine[0] == theirs[0]


def test_what_all_strata_share_gains_nothing_within_them() -> None:
    """A score that only knows the stratum is 0.5 within strata, whatever it is across them."""
    test = pairs(400)
    y = np.random.default_rng(3).random(400) < (test.stratum + 1) / 6
    by_stratum = Pairs(y, test.stratum.astype(float), test.stratum, test.patient)
    assert ratio(*by_stratum.sums())[0] == 0.5
    assert ratio(*Pairs(y, by_stratum.scores, 0 * test.stratum, test.patient).sums())[0] > 0.7


def test_all_tests_have_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    test = pairs()
    found = areas({"a": test, "b": test}, 40, 50, np.random.default_rng(0))
    assert np.array_equal(found["a"][0], found["b"][0])
    assert found["a"][0].shape == (51,)
    monkeypatch.setattr("ecgfounder.analysis.statistics.strata._BYTES_AT_ONCE", 8 * 40 * 7)  # seven draws at once
    again = areas({"a": test}, 40, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(found["a"][0], again["a"][0])


@pytest.mark.parametrize("y", [[], [True, True], [False]])
def test_without_pairs_there_is_no_auroc(y: list[bool]) -> None:
    n = len(y)
    test = Pairs(np.array(y, bool), np.zeros(n), np.zeros(n, np.int64), np.arange(n))
    correct, total = test.sums(np.ones((2, max(n, 1))))
    assert total.tolist() == [0, 0]
    assert np.isnan(ratio(correct, total)).all()
    assert test.rarer == 0
