"""No patient is on two sides, and labels are as frequent in every fold."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.analysis.statistics.splits import cross_validation, given_folds, given_split, grouped_folds
from ecgfounder.errors import SettingsError


def cohort(n_patients: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_patients), rng.integers(1, 6, n_patients))
    risk = rng.standard_normal((n_patients, 2))[groups]
    Y = (risk + rng.standard_normal((len(groups), 2)) > [1.0, 2.0]).astype(np.float32)
    Y[rng.random(Y.shape) < 0.1] = np.nan
    return groups, Y


def test_folds_keep_patients_together_and_labels_as_frequent() -> None:
    groups, Y = cohort()
    fold = grouped_folds(groups, Y, 5, np.random.default_rng(0))
    assert all(len(np.unique(fold[groups == group])) == 1 for group in np.unique(groups))
    sizes = np.bincount(fold)
    assert sizes.max() - sizes.min() <= 3
    for label in range(2):
        positive = np.array([np.nansum(Y[fold == each, label]) for each in range(5)])
        assert positive.max() - positive.min() <= 2


def test_folds_are_as_even_as_those_of_scikit_learn() -> None:
    model_selection = pytest.importorskip("sklearn.model_selection", reason="compared with scikit-learn")
    groups, Y = cohort()
    y = np.nan_to_num(Y[:, 0])
    ours = grouped_folds(groups, y[:, None], 5, np.random.default_rng(0))
    splitter = model_selection.StratifiedGroupKFold(5, shuffle=True, random_state=0)
    theirs = np.empty(len(y), int)
    for number, (_, test) in enumerate(splitter.split(y, y, groups)):
        theirs[test] = number
    spread = [np.std([y[fold == each].mean() for each in range(5)]) for fold in (ours, theirs)]
    assert spread[0] <= spread[1] + 0.002


def test_the_seed_decides_the_folds() -> None:
    groups, Y = cohort()
    first, again, other = (grouped_folds(groups, Y, 5, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_each_fold_is_the_test_part_once() -> None:
    splits = cross_validation(np.array([0, 1, 2, 0, 1]))
    assert [split.test.tolist() for split in splits] == [[0, 3], [1, 4], [2]]
    assert all(sorted([*split.train, *split.test]) == list(range(5)) for split in splits)


def test_a_column_gives_test_validation_and_training() -> None:
    values = ["1", "2", "9", "10", None, "10"]
    (split,) = given_split(values, np.arange(6), ["10"], ["9"])
    assert split.train.tolist() == [0, 1]
    assert split.validation is not None
    assert split.validation.tolist() == [2]
    assert split.test.tolist() == [3, 5]
    assert given_split(values, np.arange(6), ["10"], [])[0].validation is None


def test_given_folds_leave_out_rows_without_one() -> None:
    splits = given_folds(["a", "b", None, "a"], np.arange(4))
    assert [(split.train.tolist(), split.test.tolist()) for split in splits] == [([1], [0, 3]), ([0, 3], [1])]


@pytest.mark.parametrize(
    ("values", "groups", "said"),
    [
        (["1", "10"], [0, 0], "1 patient has recordings in more than one part"),
        (["1", "10", "9"], [0, 1, 0], "1 patient has recordings in more than one part"),
        (["1", "1", "9"], [0, 1, 2], "no value '10' for the test part; its values are: 1, 9"),
        (["10", "10", "9"], [0, 1, 2], "no recording for the training part"),
    ],
)
def test_a_split_that_would_leak_or_has_no_part_is_refused(values: list[str], groups: list[int], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        given_split(values, np.array(groups), ["10"], [] if "9" not in values else ["9"])


def test_a_patient_in_two_given_folds_is_refused() -> None:
    with pytest.raises(SettingsError, match="more than one fold"):
        given_folds(["a", "b"], np.array([0, 0]))


def test_fewer_patients_than_folds_are_refused() -> None:
    with pytest.raises(SettingsError, match="3 patients, which cannot be divided into 5 folds"):
        grouped_folds(np.array([0, 1, 2]), np.zeros((3, 1), np.float32), 5, np.random.default_rng(0))
