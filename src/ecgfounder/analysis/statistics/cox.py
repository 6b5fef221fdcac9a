"""Cox regression with an L2 penalty, for many penalties at once, and absolute risks.

In: the basis of the training features, times with events. Out: `Weights` whose scores are log hazard ratios to the mean of the
training part, and a `Baseline`, by which a score becomes a risk.

The loss is the negative partial log-likelihood with Efron's correction for ties, plus |w|² / (2 C). The baseline is Breslow's.

A time is positive if the event was observed then, and negative if observation ended then (`signed`), so that a label is one
number. At equal times an event comes before the end of observation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.solver import (
    TOLERANCE,
    AnyFloats,
    Basis,
    Doubles,
    Floats,
    Numbers,
    Objective,
    Weights,
)


def signed(times: Doubles, events: npt.NDArray[np.bool_]) -> Floats:
    """Times as one number each: positive with the event, negative without."""
    return np.where(events, times, -times).astype(np.float32)


def by_time(y: Floats) -> Numbers:
    """The order of ascending times."""
    return np.argsort(np.abs(y), kind="stable")


@dataclass(frozen=True, eq=False)
class _Risks:
    """Who is at risk at each event, of rows in the order of their times.

    Attributes
    ----------
    y : numpy.ndarray
        float32 [n]: signed times in ascending order.
    """

    y: Floats

    @cached_property
    def events(self) -> Numbers:
        """The rows with an event."""
        return np.flatnonzero(self.y > 0)

    @cached_property
    def begin(self) -> Numbers:
        """Of each event, the first row that is at risk at its time."""
        times = np.abs(self.y)
        return np.searchsorted(times, times[self.events], side="left")

    @cached_property
    def ties(self) -> tuple[Numbers, Numbers]:
        """Where the events of each distinct time begin among the events, and the distinct time of each event."""
        _, first, group = np.unique(self.y[self.events], return_index=True, return_inverse=True)
        return first, group

    @cached_property
    def fraction(self) -> Doubles:
        """[events, 1]: the part of its tied events that is taken as gone, by Efron: 0, 1/d ... (d - 1)/d."""
        first, group = self.ties
        counts = np.diff(np.append(first, len(self.events)))
        return ((np.arange(len(self.events)) - first[group]) / counts[group])[:, None]

    @cached_property
    def n_before(self) -> Numbers:
        """Of each row, the events up to its time."""
        times = np.abs(self.y)
        return np.searchsorted(times[self.events], times, side="right")

    def denominators(self, relative: Doubles) -> Doubles:
        """[events, columns]: the sum of relative hazards at risk, of `relative` [n, columns]."""
        at_risk = np.cumsum(relative[::-1], axis=0)[::-1][self.begin]
        if not self.fraction.any():
            return np.asarray(at_risk)
        first, group = self.ties
        tied = np.add.reduceat(relative[self.events], first, axis=0)[group]
        return np.asarray(at_risk - self.fraction * tied)

    def losses(self, S: Doubles) -> Doubles:
        """The negative partial log-likelihood of each column of scores."""
        if not len(self.events):
            return np.zeros(S.shape[1])
        top = S.max(axis=0)
        logs = np.log(self.denominators(np.exp(S - top)))
        return np.asarray(logs.sum(axis=0) + len(self.events) * top - S[self.events].sum(axis=0))

    def gradient(self, S: Doubles) -> Doubles:
        """The derivatives of `losses` by the scores, [n, columns]."""
        relative = np.exp(S - S.max(axis=0))
        inverse = 1.0 / self.denominators(relative)
        up_to = np.concatenate([np.zeros((1, S.shape[1])), np.cumsum(inverse, axis=0)])
        gradient = relative * up_to[self.n_before]
        first, group = self.ties
        gone = np.add.reduceat(self.fraction * inverse, first, axis=0)[group]
        gradient[self.events] -= relative[self.events] * gone + 1.0
        return np.asarray(gradient)


def partial_loss(y: Floats, S: Doubles) -> Doubles:
    """The negative partial log-likelihood of each column of scores [n, columns]."""
    order = by_time(y)
    return _Risks(y[order]).losses(np.asarray(S[order], dtype=np.float64))


@dataclass(frozen=True, eq=False)
class _Cox(Objective):
    """The partial log-likelihood of rows in the order of their times."""

    risks: _Risks

    def start(self, n_columns: int) -> Doubles:
        return np.zeros(n_columns)  # a constant has no part in the loss

    def gradient(self, S: AnyFloats, at: Numbers) -> tuple[Doubles, Doubles]:
        of_scores = self.risks.gradient(S.astype(np.float64))
        return (
            np.asarray(self.Z.T @ of_scores.astype(self.Z.dtype), dtype=np.float64),
            np.full(len(at), float(len(self.risks.events))),
        )

    def loss(self, S: AnyFloats, T: AnyFloats | None, step: Doubles, at: Numbers) -> Doubles:
        scores = S.astype(np.float64) if T is None else S + T.astype(np.float64) * step
        return self.risks.losses(scores)


def fit_cox(
    basis: Basis, y: Floats, C: Sequence[float], tolerance: Mapping[np.dtype[Any], float] = TOLERANCE
) -> Weights:
    """Fit Cox regressions with several penalties.

    Parameters
    ----------
    basis : Basis
        The training features, of rows in the order of their times (`by_time`).
    y : numpy.ndarray
        float32 [n]: signed times in that order, with at least one event.
    C : sequence of float
        Inverse penalties.
    tolerance : mapping of numpy.dtype to float
        See `ecgfounder.analysis.statistics.solver.fit_logistic`.

    Returns
    -------
    Weights
        A model per penalty. A score is 0 at the mean of the features.
    """
    problem = _Cox(basis.rotated, basis.variances, _Risks(y))
    W, iterations, converged = problem.solve(1.0 / np.asarray(C), tolerance[basis.rotated.dtype])
    W[-1] = 0.0
    return basis.weights(W, iterations, converged)


@dataclass(frozen=True, eq=False)
class Baseline:
    """Breslow's estimate of the cumulative hazard at a score of 0.

    Attributes
    ----------
    times, hazard : numpy.ndarray
        float64: the times of events in ascending order, and the cumulative hazard from each on.
    """

    times: Doubles
    hazard: Doubles

    @classmethod
    def of(cls, y: Floats, scores: Doubles) -> Baseline:
        """The baseline of the training part, from its signed times and scores [n]."""
        order = by_time(y)
        risks = _Risks(y[order])
        top = scores.max()
        at_risk = np.cumsum(np.exp(scores[order] - top)[::-1])[::-1]
        first, _ = risks.ties
        counts = np.diff(np.append(first, len(risks.events)))
        hazard = np.cumsum(counts / at_risk[risks.begin[first]]) * np.exp(-top)
        return cls(risks.y[risks.events[first]].astype(np.float64), hazard)

    def at(self, time: float) -> float:
        """The cumulative hazard up to a time."""
        place = int(np.searchsorted(self.times, np.float32(time), side="right"))
        return 0.0 if place == 0 else float(self.hazard[place - 1])

    def risks(self, scores: Doubles, horizons: Sequence[float]) -> Doubles:
        """The probability of the event up to each time, float64 [n, horizons]."""
        hazards = np.array([self.at(time) for time in horizons])
        with np.errstate(over="ignore"):
            return np.asarray(-np.expm1(-hazards * np.exp(scores)[:, None]))
