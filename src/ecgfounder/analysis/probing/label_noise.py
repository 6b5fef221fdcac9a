"""Recordings whose leave-out prediction contradicts their label, and how many planted errors are found in this way.

In: the evaluation of a probe. Out: which recordings contradict their label, for a table to look at; and shares of planted errors.

By confident learning (Northcutt et al. 2021): in each test part the threshold of a class is the mean probability of it among the
recordings that have it as their label. A recording contradicts its label if its probability of the other class reaches that
class's threshold, and either that of its own does not, or it is the smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ecgfounder.analysis.pages.tables import Row, numbers_of
from ecgfounder.analysis.probing.controls import Remake
from ecgfounder.analysis.statistics.evaluation import Data, Evaluation, evaluate_features
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers, sigmoid
from ecgfounder.analysis.statistics.windows import Windows
from ecgfounder.escaping import counted

CONTROL = "label noise"
"""The value of `control` of its rows in the table of results."""

PLANTINGS = 5
"""How often errors are planted."""

SHARE = 0.05
"""Of the recordings of the rarer class, how many get the other label; as many of the other class do."""

FOUND, AMONG, FIRST = "planted errors found", "planted among contradictions", "planted among the first"


@dataclass(frozen=True, eq=False)
class Contradictions:
    """The tested recordings of a label.

    Attributes
    ----------
    label : str
        The label.
    rows : numpy.ndarray
        int64: the recordings that contradict their label, the most contradictory first.
    ranked : numpy.ndarray
        int64: all tested recordings with a known label, in the same order.
    confidence : numpy.ndarray
        float64 [n]: the probability of the label that a recording has; NaN for one that was not tested.
    """

    label: str
    rows: Numbers
    ranked: Numbers
    confidence: Doubles


def contradictions(evaluation: Evaluation, data: Data, label: str) -> Contradictions:
    """The recordings that contradict a label which is scored."""
    y = data.Y[:, data.task.labels.index(label)]
    probability = np.asarray(sigmoid(evaluation.scores[:, evaluation.labels.index(label)]), dtype=np.float64)
    tested = np.isfinite(y) & np.isfinite(probability)
    positive = y > 0.5
    own = np.where(tested, np.where(positive, probability, 1 - probability), np.nan)
    against = np.zeros(len(y), dtype=bool)
    for number in range(len(data.splits)):
        part = tested & (evaluation.fold == number)
        if not (part & positive).any() or not (part & ~positive).any():
            continue
        usual = {side: own[part & (positive == side)].mean() for side in (True, False)}
        of_own, of_other = (np.where(positive, usual[side], usual[not side]) for side in (True, False))
        against |= part & (1 - own >= of_other) & ((own < of_own) | (own < 0.5))
    ranked = np.flatnonzero(tested)
    ranked = ranked[np.argsort(own[ranked], kind="stable")]
    return Contradictions(label, ranked[against[ranked]], ranked, own)


@dataclass(frozen=True)
class Planted:
    """How many planted errors were found, each of which is a share for each planting.

    Attributes
    ----------
    label : str
        The label.
    found : tuple of float
        Of the planted errors, those that contradict their label.
    among : tuple of float
        Of the recordings that contradict their label, the planted errors. The others may be errors that were there already.
    first : tuple of float
        Of as many of the most contradictory recordings as there are planted errors, the planted ones.
    n_planted : int
        Planted errors in each planting.
    """

    label: str
    found: tuple[float, ...]
    among: tuple[float, ...]
    first: tuple[float, ...]
    n_planted: int


def planted(
    X: Floats | Windows, data: Data, observed: Evaluation, remake: Remake, n_plantings: int = PLANTINGS
) -> list[Planted]:
    """Plant errors in the labels of random recordings, train and test again, and count how many contradict their label."""
    shares: dict[str, list[tuple[float, float, float]]] = {label: [] for label in observed.labels}
    sizes = {}
    for number in range(n_plantings):
        Y, wrong = with_errors(data.Y, np.random.default_rng([data.seed, 7, number]))
        again = replace(remake(Y, data), n_draws=2)
        evaluation = evaluate_features(X, again)
        for label in observed.labels:
            if label not in evaluation.labels:
                continue
            found = contradictions(evaluation, again, label)
            errors = np.intersect1d(wrong[data.task.labels.index(label)], found.ranked)
            if not len(errors):
                continue
            sizes[label] = len(errors)
            inside = np.isin(found.rows, errors).sum()
            first = np.isin(found.ranked[: len(errors)], errors).mean()
            shares[label].append((inside / len(errors), inside / max(1, len(found.rows)), float(first)))
    points = []
    for label, rows in shares.items():
        if rows:
            columns = [tuple(map(float, column)) for column in np.array(rows).T]
            points.append(Planted(label, columns[0], columns[1], columns[2], sizes[label]))
    return points


def with_errors(Y: Floats, rng: np.random.Generator) -> tuple[Floats, list[Numbers]]:
    """Labels with errors, and which recordings have one, for each label."""
    wrong, with_them = [], Y.copy()
    for label in range(Y.shape[1]):
        sides = [np.flatnonzero(Y[:, label] == value) for value in (0, 1)]
        n = max(1, round(SHARE * min(map(len, sides)))) if min(map(len, sides)) else 0
        rows = np.sort(np.concatenate([rng.choice(side, n, replace=False) for side in sides]))
        with_them[rows, label] = 1 - with_them[rows, label]
        wrong.append(rows)
    return with_them, wrong


def planted_rows(found: list[Planted], evaluation: Evaluation, split: str, seed: int) -> Iterator[Row]:
    """The rows of what was planted."""
    for each in found:
        numbers = numbers_of(evaluation.counts[each.label])
        for metric, values in ((FOUND, each.found), (AMONG, each.among), (FIRST, each.first)):
            note = f"mean and range over {counted(len(values), 'planting')} of {each.n_planted} errors"
            figures = float(np.mean(values)), min(values), max(values)
            yield Row(each.label, metric, *figures, *numbers, split, CONTROL, seed, note)
