"""Splits of recordings by patient: stratified grouped folds, given folds, a given train/validation/test column, other runs.

In: each recording's patient, and labels or a column to split by. Out: `Split`s, whose parts have no patient in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.solver import Floats, Numbers
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import counted


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of one training part and one test part, and of a validation part if there is one.

    Attributes
    ----------
    train, test : numpy.ndarray
        int64: rows in ascending order.
    validation : numpy.ndarray or None
        int64: rows; None where penalty and thresholds are chosen in grouped folds of the training part.
    """

    train: Numbers
    test: Numbers
    validation: Numbers | None = None


def grouped_folds(groups: Numbers, Y: Floats, n_folds: int, rng: np.random.Generator) -> Numbers:
    """Divide recordings into folds so that all recordings of a group are in one fold and labels are equally frequent in all.

    As scikit-learn's `StratifiedGroupKFold`, for several labels: groups are taken in the order of how much they weigh, and each
    goes to the fold that has had least of its labels.

    Parameters
    ----------
    groups : numpy.ndarray
        int64 [n], from 0 without gaps.
    Y : numpy.ndarray
        float32 [n, n_labels], NaN where unknown.
    n_folds : int
        Number of folds.
    rng : numpy.random.Generator
        Decides the order of groups that weigh the same.

    Returns
    -------
    numpy.ndarray
        int64 [n]: the fold of each recording.
    """
    n_groups = int(groups.max()) + 1
    if n_groups < n_folds:
        raise SettingsError(
            f"there are {counted(n_groups, 'patient')}, which cannot be divided into {n_folds} folds: use fewer folds"
        )
    columns = [np.ones(len(groups))]
    columns += [np.nan_to_num(Y[:, label]).astype(np.float64) for label in range(Y.shape[1])]
    counts = np.stack([np.bincount(groups, each, n_groups) for each in columns], axis=1)
    counts = counts / np.maximum(
        counts.sum(axis=0), 1e-12
    )  # shares, so that rare labels weigh as much as frequent ones
    order = rng.permutation(n_groups)
    order = order[np.argsort(-np.sqrt((counts[order] ** 2).sum(axis=1)), kind="stable")]
    loads = np.zeros((n_folds, counts.shape[1]))
    fold_of = np.empty(n_groups, dtype=np.int64)
    for group in order:
        # Of all folds, the one with which the squares of the loads grow least.
        fold = int(np.argmin(loads @ counts[group]))
        loads[fold] += counts[group]
        fold_of[group] = fold
    return fold_of[groups]


def cross_validation(fold: npt.NDArray[np.int64]) -> list[Split]:
    """A split for each fold, which is its test part; the other folds are its training part. A fold of -1 is in no part."""
    folds = np.unique(fold[fold >= 0])
    return [Split(np.flatnonzero((fold != each) & (fold >= 0)), np.flatnonzero(fold == each)) for each in folds]


def given_folds(values: Sequence[str | None], groups: Numbers) -> list[Split]:
    """Cross-validation over the values of a column."""
    names = sorted({value for value in values if value is not None})
    if len(names) < 2:
        raise SettingsError("the 'folds' column has fewer than two values; expected a value for each fold")
    fold = np.array([-1 if value is None else names.index(value) for value in values], dtype=np.int64)
    refuse_shared_groups(groups, fold, "fold")
    return cross_validation(fold)


def given_split(
    values: Sequence[str | None], groups: Numbers, test: Sequence[str], validation: Sequence[str]
) -> list[Split]:
    """The split that a column gives: its values `test` and `validation`; all other values are the training part."""
    known = {value for value in values if value is not None}
    for name, wanted in (("test", test), ("validation", validation)):
        absent = [value for value in wanted if value not in known]
        if absent:
            raise SettingsError(
                f"the split column has no value {absent[0]!r} for the {name} part; its values are: "
                f"{', '.join(sorted(known)[:20])}"
            )
    side = np.array(
        [-1 if value is None else 2 if value in test else 1 if value in validation else 0 for value in values],
        dtype=np.int64,
    )
    refuse_shared_groups(groups, side, "part")
    part = [np.flatnonzero(side == each) for each in range(3)]
    for rows, name in ((part[0], "training"), (part[2], "test")):
        if not len(rows):
            raise SettingsError(f"the split column leaves no recording for the {name} part")
    return [Split(part[0], part[2], part[1] if len(part[1]) else None)]


def refuse_shared_groups(groups: Numbers, side: Numbers, what: str) -> None:
    """Refuse a split that has a patient's recordings on several sides; a side of -1 is in no part."""
    used = side >= 0
    pairs = np.unique(np.stack([groups[used], side[used]], axis=1), axis=0)
    shared = int((np.bincount(pairs[:, 0]) > 1).sum()) if len(pairs) else 0
    if shared:
        raise SettingsError(
            f"{counted(shared, 'patient')} {'has' if shared == 1 else 'have'} recordings in more than one {what}, so that the "
            "probe would be tested on patients that it knows: split by patient"
        )
