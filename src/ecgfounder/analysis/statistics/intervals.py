"""Confidence intervals by drawing patients.

In: the metrics of the test parts, each with its patients. Out: estimates with 95 % intervals, and the draws that could not be
scored.

Patients of each test part are drawn with replacement, as many as there are; all recordings of a drawn patient come with it. The
fitted probe stays as it is: an interval is about this probe on new patients. With several test parts (cross-validation) each
draw gives a metric per part, and their mean. A metric between 0 and 1 has its interval on the
logit scale, from the standard deviation of the draws there; others have the estimate plus and minus 1.96 standard deviations.
docs/probe.md has the measured coverage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ecgfounder.analysis.statistics.metrics import UNIT_METRICS
from ecgfounder.analysis.statistics.solver import Doubles

LEVEL = 0.95

FEW_PATIENTS = 60
"""With fewer patients in the rarer class, an interval's coverage may be below its level."""

_NUMBERS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval.

    Attributes
    ----------
    value, low, high : float
        The metric and its 95 % interval; NaN where there is none.
    n_draws, n_unscored : int
        Draws, and how many of them lacked a class and were left out.
    """

    value: float
    low: float = np.nan
    high: float = np.nan
    n_draws: int = 0
    n_unscored: int = 0

    @property
    def unscored(self) -> str:
        """The note on draws that were left out; empty if there are none."""
        return f"{self.n_unscored} of {self.n_draws} draws could not be scored" if self.n_unscored else ""


def drawn_patients(n_patients: int, n_draws: int, rng: np.random.Generator) -> Doubles:
    """How often each patient is in each draw: float64 [n_draws, n_patients]."""
    weights = np.empty((n_draws, n_patients))
    at_once = max(1, _NUMBERS_AT_ONCE // n_patients)
    for first in range(0, n_draws, at_once):
        some = weights[first : first + at_once]
        places = rng.integers(n_patients, size=some.shape) + n_patients * np.arange(len(some))[:, None]
        some[:] = np.bincount(places.ravel(), minlength=some.size).reshape(some.shape)
    return weights


def combined(
    values: Sequence[Mapping[str, Doubles]], draws: Sequence[Mapping[str, Doubles]], kind: str = "auto"
) -> tuple[dict[str, Estimate], dict[str, Doubles]]:
    """The mean over test parts of every metric that all have, with its interval.

    Parameters
    ----------
    values : sequence of mapping of str to numpy.ndarray
        The metrics of each test part, [1].
    draws : sequence of mapping of str to numpy.ndarray
        The metrics of each test part in draws of its patients, [n_draws].
    kind : str, default: "auto"
        "logit", "normal", "percentile", or "auto": logit for metrics between 0 and 1, else normal.

    Returns
    -------
    estimates : dict of str to Estimate
        By metric.
    draws : dict of str to numpy.ndarray
        float64 [n_draws]: the mean over test parts in each draw.
    """
    found: dict[str, Estimate] = {}
    kept: dict[str, Doubles] = {}
    for name in values[0]:
        if all(name in each for each in values):
            value = float(np.mean([each[name][0] for each in values]))
            kept[name] = np.mean([each[name] for each in draws], axis=0)
            found[name] = interval(value, kept[name], kind_of(name) if kind == "auto" else kind)
    return found, kept


def kind_of(metric: str) -> str:
    """The kind of interval of a metric."""
    return "logit" if metric.partition("@")[0] in UNIT_METRICS else "normal"


def interval(value: float, draws: Doubles, kind: str) -> Estimate:
    """The interval of a metric from its values in draws of patients."""
    finite = draws[np.isfinite(draws)]
    unscored = len(draws) - len(finite)
    if len(finite) < 2 or not np.isfinite(value):
        return Estimate(value, n_draws=len(draws), n_unscored=unscored)
    if kind == "logit" and not 0 < value < 1 and np.ptp(finite) == 0:
        return Estimate(value, n_draws=len(draws), n_unscored=unscored)  # no draw shows what may happen
    tail = (1 - LEVEL) / 2
    if kind == "logit" and 0 < value < 1:
        inside = finite[(finite > 0) & (finite < 1)]
        if len(inside) > 0.9 * len(finite):
            centre = np.log(value / (1 - value))
            reach = NormalDist().inv_cdf(1 - tail) * np.std(np.log(inside / (1 - inside)), ddof=1)
            low, high = (1 / (1 + np.exp(-(centre + sign * reach))) for sign in (-1, 1))
            return Estimate(value, float(low), float(high), len(draws), unscored)
    if kind == "normal":
        reach = NormalDist().inv_cdf(1 - tail) * np.std(finite, ddof=1)
        return Estimate(value, float(value - reach), float(value + reach), len(draws), unscored)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), len(draws), unscored)


def difference(first: Doubles, second: Doubles, value: float) -> Estimate:
    """The interval of a difference of two metrics in the same draws (paired), from the standard deviation."""
    return interval(value, first - second, "normal")
