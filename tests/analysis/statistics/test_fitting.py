"""What is chosen is chosen without the test part: a leak planted in any step makes one of these fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ecgfounder.analysis.statistics.evaluation import Data, evaluate_features, evaluate_scores
from ecgfounder.analysis.statistics.fitting import BINARY, NUMBER, Task, fit_split
from ecgfounder.analysis.statistics.splits import Split

TASK = Task(("a", "b"), penalties=(1e-3, 1e-1, 10.0))


def data(n_patients: int = 150, *, validation: bool = False, is_number: bool = False) -> tuple[np.ndarray, Data]:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_patients), 3)
    X = rng.standard_normal((len(groups), 6)).astype(np.float32)
    Y = (X[:, :2] + rng.standard_normal((len(groups), 2)) > 0.5).astype(np.float32)
    if is_number:
        Y = (50 + 5 * X[:, :2] + rng.standard_normal((len(groups), 2))).astype(np.float32)
    train, held, test = (np.flatnonzero(part) for part in (groups % 5 < 3, groups % 5 == 3, groups % 5 == 4))
    split = Split(train, test, held) if validation else Split(np.sort(np.concatenate([train, held])), test)
    return X, Data(Y, groups, (split,), replace(TASK, kind=NUMBER if is_number else BINARY), n_draws=20)


@pytest.mark.parametrize("validation", [False, True], ids=["inner folds", "validation part"])
@pytest.mark.parametrize("is_number", [False, True], ids=["binary", "numbers"])
def test_nothing_of_the_test_part_changes_what_is_fitted(validation: bool, is_number: bool) -> None:
    """Scaling, rotation, penalty, weights and thresholds are the same bytes whatever the test part holds."""
    X, given = data(validation=validation, is_number=is_number)
    (split,) = given.splits
    before = fit_split(X, given.Y, given.groups, split, given.task, 0)
    other_X, other_Y = X.copy(), given.Y.copy()
    rng = np.random.default_rng(1)
    other_X[split.test] = 1000 * rng.standard_normal((len(split.test), 6))
    other_Y[split.test] = 1 - other_Y[split.test]
    after = fit_split(other_X, other_Y, given.groups, split, given.task, 0)
    assert before.weights.weight.tobytes() == after.weights.weight.tobytes()
    assert before.weights.bias.tobytes() == after.weights.bias.tobytes()
    assert (before.C, before.thresholds) == (after.C, after.thresholds)


def test_thresholds_and_penalty_come_from_the_validation_part_alone() -> None:
    X, given = data(validation=True)
    (split,) = given.splits
    assert split.validation is not None
    before = fit_split(X, given.Y, given.groups, split, given.task, 0)
    flipped = given.Y.copy()
    flipped[split.validation] = 1 - flipped[split.validation]
    after = fit_split(X, flipped, given.groups, split, given.task, 0)
    assert after.C == (1e-3, 1e-3)  # what was learnt is wrong there, so that the smallest weights lose least
    assert after.thresholds != before.thresholds
    train_only = fit_split(X, given.Y, given.groups, replace(split, test=split.test[:1]), given.task, 0)
    assert train_only.weights.weight.tobytes() == before.weights.weight.tobytes()


def test_inner_folds_keep_patients_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of a patient's recordings would be recognised, were they in the fold that chooses the penalty."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(120), 4)
    X = np.repeat(rng.standard_normal((120, 200)), 4, axis=0).astype(np.float32)
    Y = np.repeat(rng.random((120, 1)) < 0.5, 4, axis=0).astype(np.float32)
    task = Task(("noise",), penalties=(1e-6, 10.0))
    split = Split(np.arange(len(groups)), np.arange(0))
    assert fit_split(X, Y, groups, split, task, 0).C == (1e-6,)
    # The leak: each recording is its own group.
    assert fit_split(X, Y, np.arange(len(groups)), split, task, 0).C == (10.0,)


def test_missing_labels_are_left_out_of_fit_and_test() -> None:
    X, given = data()
    Y = given.Y.copy()
    hidden = np.random.default_rng(2).random(len(Y)) < 0.4
    Y[hidden, 1] = np.nan
    found = evaluate_features(X, replace(given, Y=Y))
    (split,) = given.splits
    assert found.counts["b"].n_records == np.isfinite(Y[split.test, 1]).sum()
    assert found.counts["a"].n_records == len(split.test)
    # A different value where the label is unknown cannot matter.
    guess = np.where(hidden, 1 - given.Y[:, 1], given.Y[:, 1])
    assert not np.array_equal(guess, given.Y[:, 1])
    assert 0.6 < found.estimates["b"]["auroc"].value < 0.95


def test_a_label_with_too_few_patients_is_counted_and_not_scored() -> None:
    X, given = data()
    Y = given.Y.copy()
    (split,) = given.splits
    Y[:, 1] = 0
    Y[np.isin(given.groups, np.unique(given.groups[split.train])[:40]), 1] = 1
    Y[np.isin(given.groups, np.unique(given.groups[split.test])[:9]), 1] = 1
    found = evaluate_features(X, replace(given, Y=Y))
    assert found.labels == ("a",)
    assert found.not_scored == {"b": "fewer than 10 patients of the rarer class in the test part"}
    assert found.counts["b"].n_pos_patients == 9
    assert "(macro)" not in found.estimates


def test_scores_of_several_folds_are_never_ranked_together() -> None:
    """A score that is shifted in each fold has the same AUROC in each, and so has their mean."""
    rng = np.random.default_rng(0)
    n = 400
    y = (rng.random(n) < 0.4).astype(np.float32)
    scores = y + rng.standard_normal(n)
    fold = np.arange(n) % 4
    splits = tuple(Split(np.flatnonzero(fold != each), np.flatnonzero(fold == each)) for each in range(4))
    given = Data(y[:, None], np.arange(n), splits, Task(("a",)), n_draws=10)
    found = [
        evaluate_scores((scores + shift * fold)[:, None], given, is_logit=False).estimates["a"]["auroc"].value
        for shift in (0, 100)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_given_scores_take_their_thresholds_from_the_other_parts() -> None:
    _, given = data()
    (split,) = given.splits
    scores = given.Y * 2.0 + np.random.default_rng(0).standard_normal(given.Y.shape)
    before = evaluate_scores(scores, given, is_logit=True)
    # Thresholds for the training part, where the score now is 10 higher, are too high for the test part.
    shifted = scores.copy()
    shifted[split.train] += 10
    after = evaluate_scores(shifted, given, is_logit=True)
    assert after.estimates["a"]["auroc"].value == before.estimates["a"]["auroc"].value
    assert after.estimates["a"]["sensitivity@youden"].value == 0
