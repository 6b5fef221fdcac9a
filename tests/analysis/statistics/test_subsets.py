"""Metrics in subsets of the tested recordings: known gaps are covered, and a subset of all is the evaluation itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from ecgfounder.analysis.statistics.evaluation import Counts, Data, Evaluation, evaluate_features
from ecgfounder.analysis.statistics.fitting import Fitted, Task
from ecgfounder.analysis.statistics.solver import Weights
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.analysis.statistics.subsets import evaluate_subsets

SHIFTS = {True: 1.3, False: 0.6}
"""How far the scores of positives are from those of negatives, in standard deviations, in the subset and elsewhere."""


def scored(n_patients: int, rng: np.random.Generator, n_draws: int = 60) -> tuple[Evaluation, Data, np.ndarray]:
    """Fitted scores of patients with 3 or 4 recordings each, in two test parts; half of the patients are in the subset."""
    groups = np.repeat(np.arange(n_patients), rng.choice([3, 4], n_patients))
    y = (rng.random(n_patients) < 0.45)[groups]
    inside = (rng.random(n_patients) < 0.5)[groups]
    of_patient = rng.standard_normal(n_patients)[groups]
    noise = np.sqrt(0.5) * (of_patient + rng.standard_normal(len(groups)))
    scores = np.where(inside, SHIFTS[True], SHIFTS[False]) * y + noise
    part = groups % 2
    splits = tuple(Split(np.flatnonzero(part != each), np.flatnonzero(part == each)) for each in range(2))
    Y = y[:, None].astype(np.float32)
    data = Data(Y, groups, splits, Task(("y",)), seed=int(rng.integers(1 << 30)), n_draws=n_draws)
    fitted = Fitted(Weights(np.zeros((1, 1)), np.zeros(1)), (1.0,), ({"half": 0.5},))
    counts: dict[str, Counts] = data.counts()
    found = Evaluation(counts, {}, {}, {}, scores[:, None], part, ("y",), (fitted,) * 2)
    return found, data, inside


def coverage(n_simulations: int, n_patients: int, n_draws: int) -> dict[str, float]:
    """How often the intervals of the subset's AUROC and specificity, and of the gaps, have the true values in them."""
    area = {side: norm.cdf(shift / np.sqrt(2)) for side, shift in SHIFTS.items()}
    sensitivity = {side: norm.sf(0.5 - shift) for side, shift in SHIFTS.items()}
    inside = dict.fromkeys(("auroc", "auroc gap", "sensitivity gap"), 0)
    for seed in range(n_simulations):
        evaluation, data, mask = scored(n_patients, np.random.default_rng(seed), n_draws)
        (found,) = evaluate_subsets(evaluation, data, "y", [(mask, ~mask)])
        auroc, gap, apart = found.estimates["auroc"], found.gaps["auroc"], found.gaps["sensitivity@half"]
        inside["auroc"] += auroc.low <= area[True] <= auroc.high
        inside["auroc gap"] += gap.low <= area[True] - area[False] <= gap.high
        inside["sensitivity gap"] += apart.low <= sensitivity[True] - sensitivity[False] <= apart.high
    return {name: count / n_simulations for name, count in inside.items()}


def test_intervals_cover_a_known_gap() -> None:
    found = coverage(200, 200, 120)
    assert all(0.89 <= share <= 0.99 for share in found.values()), found


@pytest.mark.slow
@pytest.mark.parametrize("n_patients", [280, 600])
def test_intervals_cover_a_known_gap_in_1000_simulations(n_patients: int) -> None:
    found = coverage(1000, n_patients, 500)
    assert all(0.92 <= share <= 0.98 for share in found.values()), found


def test_a_subset_of_all_is_the_evaluation_itself() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(120), 2)
    X = rng.standard_normal((240, 3)).astype(np.float32)
    Y = (X[:, :1] + rng.standard_normal((240, 1)) > 0).astype(np.float32)
    part = groups % 2
    splits = tuple(Split(np.flatnonzero(part != each), np.flatnonzero(part == each)) for each in range(2))
    data = Data(Y, groups, splits, Task(("y",), penalties=(0.1,), inner_folds=2), n_draws=60)
    own = evaluate_features(X, data)
    every = np.ones(240, dtype=bool)
    (found,) = evaluate_subsets(own, data, "y", [(every, ~every)])
    assert found.counts == replace(own.counts["y"])
    assert set(found.n_splits.values()) == {2}
    for name, estimate in own.estimates["y"].items():
        assert found.estimates[name].value == pytest.approx(estimate.value, rel=1e-12)
        assert found.estimates[name].low == pytest.approx(estimate.low, rel=1e-9)
    assert found.gaps == {}  # there are no others


def test_the_gap_of_two_subsets_is_the_same_with_its_sign_inverted() -> None:
    evaluation, data, mask = scored(200, np.random.default_rng(1))
    one, other = evaluate_subsets(evaluation, data, "y", [(mask, ~mask), (~mask, mask)])
    for name, gap in one.gaps.items():
        assert gap.value == pytest.approx(-other.gaps[name].value, abs=1e-12)
        assert gap.low == pytest.approx(-other.gaps[name].high, abs=1e-9)
    own = one.estimates["auroc"].value - other.estimates["auroc"].value
    assert one.gaps["auroc"].value == pytest.approx(own, abs=1e-12)


def test_a_test_part_without_a_class_has_no_figure_and_is_counted() -> None:
    evaluation, data, mask = scored(200, np.random.default_rng(2))
    mask = mask & ~((evaluation.fold == 1) & (data.Y[:, 0] > 0))
    (found,) = evaluate_subsets(evaluation, data, "y", [(mask, ~mask)])
    assert set(found.n_splits.values()) == {1}
    alone = replace(data, splits=data.splits[:1])
    (first,) = evaluate_subsets(evaluation, alone, "y", [(mask, ~mask)])
    assert found.estimates["auroc"] == first.estimates["auroc"]


def test_a_subset_with_few_patients_is_counted_and_not_scored() -> None:
    evaluation, data, mask = scored(200, np.random.default_rng(3))
    few = mask & (data.groups < 12)
    (found,) = evaluate_subsets(evaluation, data, "y", [(few, ~few)])
    assert (found.estimates, found.gaps) == ({}, {})
    assert found.why_not == "fewer than 10 patients of the rarer class in the test part"
    assert found.counts.n_patients == len(np.unique(data.groups[few]))


def test_there_is_no_gap_to_few_others() -> None:
    """A gap to one positive patient would tell the figure that is not scored."""
    evaluation, data, mask = scored(200, np.random.default_rng(4))
    few = ~mask & (data.groups < 12)
    own, small = evaluate_subsets(evaluation, data, "y", [(mask, few), (few, mask)])
    assert own.others == small.counts
    assert own.others.rarer < 10
    assert own.estimates["auroc"].low > 0.5
    assert own.gaps == small.gaps == {}
