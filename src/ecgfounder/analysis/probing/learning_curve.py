"""Learning curves: what a probe knows when it is trained on few patients.

In: features, `Data`, sizes. Out: for each label and size the metric in each of many subsets of the training part.

A size is a number of patients of the rarer class (of numbers: of patients; of times: with the event). For each seed the patients
of a training part are put into a random order; the subset of a size is the beginning of that order in which there are so many.
So subsets of a seed are nested, and prevalences are those of the cohort. Penalties are chosen in grouped folds of the subset.
Seeds take the splits in turn, each with its own test part, and so the features, in all pairs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ecgfounder.analysis.pages.tables import Row
from ecgfounder.analysis.statistics.evaluation import Data, evaluate_features
from ecgfounder.analysis.statistics.fitting import NUMBER, TIME
from ecgfounder.analysis.statistics.solver import Floats, Numbers
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.analysis.statistics.windows import Windows
from ecgfounder.escaping import counted

PREFIX = "learning curve"
"""How the control's name of a curve begins, in the table of results; after ': ' it has the size."""

OWN, SHARED, RANDOM = PREFIX, f"{PREFIX}, same recordings", f"{PREFIX}, random weights"
"""The curve of the embedding; of the embedding on the recordings of the random networks; and of these."""

SIZES = (10, 30, 100, 300, 1000)
"""Sizes by default, as far as there are so many patients."""

SEEDS = 20
"""Subsets of each size."""

_LONG_SECONDS = 10


@dataclass(frozen=True)
class Point:
    """What was found at one size for one label.

    Attributes
    ----------
    curve : str
        `OWN`, `SHARED` or `RANDOM`.
    label : str
        The label.
    size : int
        Patients of the rarer class in the training subset.
    values : tuple of float
        The metric in each test part, a subset each.
    n_records, n_patients : float
        Recordings and patients of the training subsets, on average.
    """

    curve: str
    label: str
    size: int
    values: tuple[float, ...]
    n_records: float
    n_patients: float


def learning_curve(
    curve: str,
    features: Sequence[Floats | Windows],
    data: Data,
    labels: Sequence[str],
    sizes: Sequence[int],
    n_seeds: int,
    say: Callable[[str], None] = lambda line: None,
) -> list[Point]:
    """The curve of each label.

    Parameters
    ----------
    curve : str
        The name of the curve.
    features : sequence of numpy.ndarray or Windows
        Features of the recordings; of several, seeds take them in turn.
    data : Data
        Labels, patients, splits.
    labels : sequence of str
        The labels.
    sizes : sequence of int
        Sizes; one that a training part is too small for is left out.
    n_seeds : int
        Subsets of each size.
    say : callable
        Called with a line after a size that took long.
    """
    points = []
    for label in labels:
        alone = data.only([label])
        few = min(len(in_order(alone, split, 0)[1]) for split in alone.splits)
        for size in (each for each in sorted(set(sizes)) if each <= few):
            began, values, records, patients = time.monotonic(), [], [], []
            for seed in range(n_seeds):
                of_split, of_features = in_turn(seed, len(alone.splits), len(features))
                split = alone.splits[of_split]
                train = subset(alone, split, seed, size)
                part = replace(alone, splits=(Split(train, split.test),), seed=data.seed + seed, n_draws=2)
                found = evaluate_features(features[of_features], part, small_training=True)
                if label in found.estimates:
                    values.append(found.estimates[label][data.task.metric].value)
                    records.append(len(train))
                    patients.append(len(np.unique(data.groups[train])))
            if (took := time.monotonic() - began) > _LONG_SECONDS:
                say(f"{curve[0].upper()}{curve[1:]}, {label}: {size:,} patients took {took:.0f} s")
            if values:
                points.append(
                    Point(curve, label, size, tuple(values), float(np.mean(records)), float(np.mean(patients)))
                )
    return points


def in_turn(seed: int, n_splits: int, n_features: int) -> tuple[int, int]:
    """Which split and which features a seed has: both in turn, and each pair once in as many seeds as there are pairs."""
    again = seed // math.lcm(n_splits, n_features)
    return seed % n_splits, (seed + again) % n_features


def in_order(data: Data, split: Split, seed: int) -> tuple[Numbers, Numbers]:
    """The patients of a training part with a known label in a random order, and the places of those of the rarer class."""
    rows = split.train[np.isfinite(data.Y[split.train, 0])]
    patients = np.random.default_rng([data.seed, 6, seed]).permutation(np.unique(data.groups[rows]))
    if data.task.kind == NUMBER:
        return patients, np.arange(len(patients))
    positive, negative = (np.unique(data.groups[rows[kind]]) for kind in (data.Y[rows, 0] > 0, data.Y[rows, 0] <= 0))
    rarer = positive if data.task.kind == TIME or len(positive) <= len(negative) else negative
    return patients, np.flatnonzero(np.isin(patients, rarer))


def subset(data: Data, split: Split, seed: int, size: int) -> Numbers:
    """The recordings of the subset of a size, in ascending order."""
    patients, places = in_order(data, split, seed)
    return split.train[np.isin(data.groups[split.train], patients[: places[size - 1] + 1])]


def point_row(point: Point, split: str, metric: str, seed: int, which: str) -> Row:
    """The row of a point; `which` says what its size counts."""
    note = (
        f"mean and range over {counted(len(point.values), 'training subset')} with {point.size:,} patients {which}; on average "
        f"{point.n_records:,.0f} recordings of {point.n_patients:,.0f} patients"
    )
    figures = float(np.mean(point.values)), min(point.values), max(point.values)
    control = f"{point.curve}: {point.size}"
    return Row(point.label, metric, *figures, None, None, None, split, control, seed, note)
