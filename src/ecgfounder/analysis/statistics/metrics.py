"""Metrics of scores for labels, with a weight for each patient, for many draws of patients at once.

In: scores and labels of the recordings of one test part, the number of each recording's patient, and weights [draws, patients].
Out: arrays [draws] by the metric's name. A weight is how often a patient was drawn; weights of 1 give the metric itself.

A score is a logit; the probability is its sigmoid. AUROC counts ties as one half; AUPRC is the average precision (without
interpolation). The calibration intercept is that with the slope fixed at 1; the calibration slope has its own intercept. In a
draw both are one Newton step from the estimate, which is exact to second order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.solver import Doubles, Numbers, sigmoid

DRAWS_AT_ONCE_BYTES = 64 << 20

RATES = ("sensitivity", "specificity", "ppv", "npv")

UNIT_METRICS = ("auroc", "auprc", "brier", "prevalence", "f1", *RATES, "uno_c", "risk", "coverage")
"""Metrics between 0 and 1; a metric at a threshold has the threshold's name after '@'."""


@dataclass(frozen=True, eq=False)
class BinaryTest:
    """The recordings of one test part for a binary label.

    Attributes
    ----------
    y : numpy.ndarray
        bool [n].
    scores : numpy.ndarray
        float64 [n]; logits, or any numbers where `is_logit` is false.
    patient : numpy.ndarray
        int64 [n]: from 0 to n_patients - 1.
    n_patients : int
        Number of patients, also those without a recording in this part.
    thresholds : mapping of str to float
        Thresholds by name; a score at or above is positive.
    is_logit : bool
        Whether the score's sigmoid is a probability: only then there are Brier scores and calibration.
    """

    y: npt.NDArray[np.bool_]
    scores: Doubles
    patient: Numbers
    n_patients: int
    thresholds: Mapping[str, float]
    is_logit: bool = True

    def metrics(self, weights: Doubles | None = None) -> dict[str, Doubles]:
        """The metrics of each draw; NaN where a draw lacks a class.

        Parameters
        ----------
        weights : numpy.ndarray, optional
            float64 [draws, n_patients]; None for one draw that has each patient once.
        """
        if weights is None:
            weights = np.ones((1, self.n_patients))
        at_once = max(1, DRAWS_AT_ONCE_BYTES // (8 * max(1, len(self.y))))
        parts = [self._metrics(weights[first : first + at_once]) for first in range(0, len(weights), at_once)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    @cached_property
    def _order(self) -> Numbers:
        return np.argsort(-self.scores, kind="stable")

    @cached_property
    def _ties(self) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Of the groups of equal scores with a positive, in descending order: first and last place, the places of the
        positives, and where each group's begin among them."""
        ordered = self.scores[self._order]
        first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
        last = np.r_[first[1:], len(ordered)] - 1
        positives = np.flatnonzero(self.y[self._order])
        group = np.searchsorted(first, positives, side="right") - 1
        groups, begin = np.unique(group, return_index=True)
        return first[groups], last[groups], positives, begin

    def _metrics(self, weights: Doubles) -> dict[str, Doubles]:
        sums = weights @ self._sums
        P, N = sums[:, 0], sums[:, 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = self._ranking(weights, P, N)
            found["prevalence"] = P / (P + N)
            if self.is_logit:
                found["brier"] = sums[:, 2] / (P + N)
                prevalence = found["prevalence"]
                found["scaled_brier"] = 1 - found["brier"] / (prevalence * (1 - prevalence))
                found |= self._calibration(sums)
            column = self._n_fixed
            for name in self.thresholds:
                tp, fp = sums[:, column], sums[:, column + 1]
                fn, tn = P - tp, N - fp
                column += 2
                found[f"sensitivity@{name}"] = tp / P
                found[f"specificity@{name}"] = tn / N
                found[f"ppv@{name}"] = tp / (tp + fp)
                found[f"npv@{name}"] = tn / (tn + fn)
                found[f"f1@{name}"] = 2 * tp / (2 * tp + fp + fn)
        lacks = (P == 0) | (N == 0)
        for values in found.values():
            values[lacks] = np.nan
        return found

    def _ranking(self, weights: Doubles, P: Doubles, N: Doubles) -> dict[str, Doubles]:
        first, last, positives, begin = self._ties
        if not len(begin):
            return {"auroc": np.full(len(weights), np.nan), "auprc": np.full(len(weights), np.nan)}
        ordered = weights[:, self.patient[self._order]]
        up_to = np.cumsum(ordered, axis=1)
        tp = np.add.reduceat(ordered[:, positives], begin, axis=1)
        end = up_to[:, last]
        inside = end - (up_to[:, first] - ordered[:, first])
        tp_end = np.cumsum(tp, axis=1)
        fp_end, fp_inside = end - tp_end, inside - tp
        wins = (tp * (N[:, None] - fp_end + 0.5 * fp_inside)).sum(axis=1)
        precision = np.where(end > 0, tp_end / np.maximum(end, 1e-300), 0.0)
        return {"auroc": wins / (P * N), "auprc": (tp * precision).sum(axis=1) / P}

    # --- what is a sum over recordings, by patient ---------------------------------------------------------------------

    @property
    def _n_fixed(self) -> int:
        return 10 if self.is_logit else 2

    @cached_property
    def _sums(self) -> Doubles:
        """float64 [n_patients, k]: positives, negatives, squared errors, terms of the calibration, and per threshold the
        positives and negatives above it."""
        y = self.y.astype(np.float64)
        columns = [y, 1 - y]
        if self.is_logit:
            intercept, (shift, slope) = self.calibration_intercept, self._calibration_line
            columns.append((sigmoid(self.scores) - y) ** 2)
            p = sigmoid(self.scores + intercept)
            columns += [y - p, p * (1 - p)]
            q = sigmoid(shift + slope * self.scores)
            spread = q * (1 - q)
            columns += [y - q, (y - q) * self.scores, spread, spread * self.scores, spread * self.scores**2]
        for threshold in self.thresholds.values():
            above = (self.scores >= threshold).astype(np.float64)
            columns += [above * y, above * (1 - y)]
        return np.stack([np.bincount(self.patient, each, self.n_patients) for each in columns], axis=1)

    def _calibration(self, sums: Doubles) -> dict[str, Doubles]:
        g, h = sums[:, 3], sums[:, 4]
        g0, g1, h00, h01, h11 = sums[:, 5:10].T
        step = (h00 * g1 - h01 * g0) / (h00 * h11 - h01**2)
        return {
            "calibration_intercept": self.calibration_intercept + g / h,
            "calibration_slope": self._calibration_line[1] + step,
        }

    @cached_property
    def calibration_intercept(self) -> float:
        """The number to add to all logits so that the mean probability is the prevalence; NaN without both classes."""
        line = recalibrated(self.y, self.scores, with_slope=False)
        return line[0]

    @cached_property
    def _calibration_line(self) -> tuple[float, float]:
        return recalibrated(self.y, self.scores, with_slope=True)


_MOST_STEPS = 50
_CLOSE = 1e-8


def recalibrated(y: npt.NDArray[np.bool_], scores: Doubles, *, with_slope: bool) -> tuple[float, float]:
    """Intercept and slope of a logistic regression of a label on its scores (slope 1 without `with_slope`), by Newton's method.

    NaN if a class is missing or the scores separate the classes, so that there is no such slope.
    """
    if not y.any() or y.all():
        return np.nan, np.nan
    X = np.stack([np.ones(len(scores)), scores], axis=1) if with_slope else np.ones((len(scores), 1))
    offset = np.zeros(len(scores)) if with_slope else scores
    at = np.array([0.0, 1.0] if with_slope else [0.0])

    def loss(at: Doubles) -> float:
        logits = X @ at + offset
        return float((np.logaddexp(0, logits) - y * logits).sum())

    before = loss(at)
    for _ in range(_MOST_STEPS):
        q = sigmoid(X @ at + offset)
        hessian = (X * (q * (1 - q))[:, None]).T @ X
        if not np.linalg.det(hessian) > 1e-12 * np.prod(np.diag(hessian)) > 0:
            return np.nan, np.nan
        step = np.linalg.solve(hessian, X.T @ (y - q))
        after = loss(at + step)
        while after > before * (1 + 1e-12) and np.abs(step).max() > 1e-12:
            step /= 2
            after = loss(at + step)
        at, before = at + step, after
        if np.abs(step).max() < _CLOSE:
            return float(at[0]), float(at[1]) if with_slope else 1.0
    return np.nan, np.nan


@dataclass(frozen=True, eq=False)
class NumberTest:
    """The recordings of one test part for a number: mean absolute error, R², calibration slope; see `BinaryTest`.

    With `reach` [n], how far a number may be from its prediction: the share that is not farther, and the width of the intervals.
    In both each patient counts once, divided among the recordings, as in the quantile that the reach is.
    """

    y: Doubles
    predicted: Doubles
    patient: Numbers
    n_patients: int
    reach: Doubles | None = None

    @cached_property
    def _sums(self) -> Doubles:
        y, p = self.y - self.y.mean(), self.predicted - self.y.mean()
        columns = [np.ones(len(y)), np.abs(y - p), (y - p) ** 2, y, y**2, p, p**2, y * p]
        if self.reach is not None:
            part = 1.0 / np.bincount(self.patient, minlength=self.n_patients)[self.patient]
            columns += [part, part * (np.abs(y - p) <= self.reach), part * 2 * self.reach]
        return np.stack([np.bincount(self.patient, each, self.n_patients) for each in columns], axis=1)

    def metrics(self, weights: Doubles | None = None) -> dict[str, Doubles]:
        """The metrics of each draw."""
        sums = (np.ones((1, self.n_patients)) if weights is None else weights) @ self._sums
        n, absolute, squared, y, yy, p, pp, yp = sums.T[:8]
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {
                "mae": absolute / n,
                "r2": 1 - squared / (yy - y**2 / n),
                "calibration_slope": (yp - y * p / n) / (pp - p**2 / n),
            }
            if self.reach is not None:
                found |= {"coverage": sums[:, 9] / sums[:, 8], "interval_width": sums[:, 10] / sums[:, 8]}
            return found


# --- thresholds ---------------------------------------------------------------------------------------------------------


def youden_threshold(y: npt.NDArray[np.bool_], scores: Doubles) -> float:
    """The threshold with the largest sum of sensitivity and specificity."""
    values, tp, fp = _above(y, scores)
    return _at_best(values, tp / max(1, y.sum()) - fp / max(1, (~y).sum()))


def f_max_threshold(y: npt.NDArray[np.bool_], scores: Doubles) -> float:
    """The threshold with the largest F1."""
    values, tp, fp = _above(y, scores)
    return _at_best(values, 2 * tp / (tp + fp + max(1, y.sum())))


def sensitivity_threshold(y: npt.NDArray[np.bool_], scores: Doubles, sensitivity: float) -> float:
    """The highest threshold with at least this sensitivity."""
    values, tp, _ = _above(y, scores)
    return float(values[np.flatnonzero(tp >= sensitivity * y.sum() - 1e-9)[0]])


def _at_best(values: Doubles, criterion: Doubles) -> float:
    return float(values[np.argmax(criterion)])


def _above(y: npt.NDArray[np.bool_], scores: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """The distinct scores in descending order, with the positives and negatives at or above each."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.r_[ordered[1:] != ordered[:-1], True])
    tp = np.cumsum(y[order].astype(np.float64))[last]
    return ordered[last], tp, last + 1.0 - tp


# --- curves ------------------------------------------------------------------------------------------------------------


def calibration_curve(
    y: npt.NDArray[np.bool_], probability: Doubles, n_bins: int = 10, fewest: int = 11
) -> list[tuple[float, float, int]]:
    """Mean probability, share of positives and number of recordings in bins of equal size, of at least `fewest` recordings."""
    order = np.argsort(probability, kind="stable")
    bins = [part for part in np.array_split(order, n_bins) if len(part) >= fewest]
    return [(float(probability[part].mean()), float(y[part].mean()), len(part)) for part in bins]


def net_benefit(y: npt.NDArray[np.bool_], probability: Doubles, thresholds: Sequence[float]) -> Doubles:
    """The net benefit of treating above each threshold probability (Vickers and Elkin 2006)."""
    benefits = []
    for threshold in thresholds:
        above = probability >= threshold
        odds = threshold / (1 - threshold)
        benefits.append((np.sum(above & y) - odds * np.sum(above & ~y)) / max(1, len(y)))
    return np.array(benefits)
