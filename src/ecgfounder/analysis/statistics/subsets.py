"""Metrics in a subset of the tested recordings, such as women, and their difference to those in the others.

In: an evaluation, its data, and masks of recordings. Out: estimates with intervals from the same draws of patients.

The models and thresholds are those of the evaluation. A metric is computed in each test part, then averaged over those in
which it can be computed: a part without one of the classes has no figure. So it is in each draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.evaluation import FEWEST_IN_TEST, Counts, Data, Evaluation
from ecgfounder.analysis.statistics.intervals import Estimate, interval, kind_of
from ecgfounder.analysis.statistics.solver import Doubles

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Subset:
    """The result for one label in one subset.

    Attributes
    ----------
    counts, others : Counts
        Recordings and patients of the subset, and of the others.
    estimates, gaps : dict of str to Estimate
        By metric: that in the subset, and that minus the metric in the others. A metric that too few patients of the subset are
        there for is NaN; it has a gap only if enough of the others are there.
    n_splits : dict of str to int
        By metric, the number of test parts with a figure.
    why_not : str or None
        Why there is no figure.
    """

    counts: Counts
    others: Counts
    estimates: dict[str, Estimate]
    gaps: dict[str, Estimate]
    n_splits: dict[str, int]
    why_not: str | None = None


def evaluate_subsets(
    evaluation: Evaluation, data: Data, label: str, masks: Sequence[tuple[Mask, Mask]]
) -> list[Subset]:
    """Evaluate a label in subsets.

    Parameters
    ----------
    evaluation : Evaluation
        The evaluation of features.
    data : Data
        Its data.
    label : str
        A scored label.
    masks : sequence of tuple of (numpy.ndarray, numpy.ndarray)
        For each subset bool [n]: its recordings, and the others. Recordings in neither have no part in it.
    """
    counts = [tuple(counted_in(data, label, mask) for mask in pair) for pair in masks]
    parts: list[list[tuple[_Figures, _Figures]]] = [[] for _ in masks]
    for number in range(len(data.splits)):
        drawn = data.draws(number)
        for (inside, others), (own, _), found in zip(masks, counts, parts, strict=True):
            if own.of(data.task.metric).rarer >= FEWEST_IN_TEST:
                figures = _metrics(evaluation, data, number, label, inside, drawn)
                found.append((figures, _metrics(evaluation, data, number, label, others, drawn)))
    return [_subset(own, others, found, data) for (own, others), found in zip(counts, parts, strict=True)]


def _subset(counts: Counts, others: Counts, parts: Sequence[tuple[_Figures, _Figures]], data: Data) -> Subset:
    if not parts:
        return Subset(counts, others, {}, {}, {}, counts.of(data.task.metric).why_not_scored(0))
    estimates, gaps, n_splits = {}, {}, {}
    for name in dict.fromkeys(name for own, _ in parts for name in own):
        if counts.of(name).rarer < FEWEST_IN_TEST:
            estimates[name], n_splits[name] = Estimate(np.nan), 0
            continue
        own = [_of(part, name, data.n_draws) for part, _ in parts]
        estimates[name] = _estimate(own, kind_of(name))
        n_splits[name] = sum(bool(np.isfinite(value)) for value, _ in own)
        if others.of(name).rarer >= FEWEST_IN_TEST:
            theirs = [_of(part, name, data.n_draws) for _, part in parts]
            gaps[name] = _estimate([(a[0] - b[0], a[1] - b[1]) for a, b in zip(own, theirs, strict=True)], "normal")
    return Subset(counts, others, estimates, gaps, n_splits)


def counted_in(data: Data, label: str, mask: Mask) -> Counts:
    """The patients and recordings of a label in a mask; the training part is not asked for."""
    at = data.task.labels.index(label)
    Y = np.where(mask, data.Y[:, at], np.float32(np.nan))[:, None].astype(np.float32)
    task = replace(data.task, labels=(label,))
    return replace(data, Y=Y, task=task).counts()[label]


_Figure = tuple[float, Doubles]
_Figures = Mapping[str, _Figure]


def _metrics(evaluation: Evaluation, data: Data, number: int, label: str, mask: Mask, drawn: Doubles) -> _Figures:
    """The metrics of a mask in one test part, and in each draw of its patients."""
    test = evaluation.test_of(data, number, label, mask)
    if test is None:
        return {}
    draws = test.metrics(drawn)
    return {name: (float(values[0]), draws[name]) for name, values in test.metrics().items()}


def _of(part: _Figures, name: str, n_draws: int) -> _Figure:
    return part.get(name, (np.nan, np.full(n_draws, np.nan)))


def _estimate(parts: list[_Figure], kind: str) -> Estimate:
    """The mean over test parts with a figure, with its interval."""
    values = np.array([value for value, _ in parts])
    draws = np.stack([each for value, each in parts])[np.isfinite(values)]
    if not len(draws):
        return Estimate(np.nan)
    known = np.isfinite(draws)
    n = known.sum(axis=0)
    means = np.where(n > 0, np.where(known, draws, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
    return interval(float(values[np.isfinite(values)].mean()), means, kind)
