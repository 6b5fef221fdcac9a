"""Metrics of scores for times to an event, with a weight for each patient, for many draws of patients at once.

In: signed times (`ecgfounder.analysis.statistics.cox`) and scores of the recordings of one test part, perhaps risks up to some
times, and weights [draws, patients]. Out: arrays [draws] by the metric's name; those at a time have it after '@'.

Recordings whose observation ended are made up for by the others (inverse probability of censoring weights): a recording with
the event at t counts 1 / G(t-), one that is observed beyond t counts 1 / G(t), where G is Kaplan and Meier's estimate of being
still observed, in the test part and in each draw of its patients. At equal times an event comes before the end of observation.

- `uno_c`: Uno's concordance (2011) up to the last of the times.
- `auroc`: cumulative cases, dynamic controls (Uno 2007): an event up to the time, against observation beyond it.
- `brier`: Graf's score (1999); `scaled_brier`: 1 minus the ratio to that of Kaplan and Meier's risk for all.
- `risk`: Kaplan and Meier's risk; `calibration_ratio`: its ratio to the mean predicted risk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.cox import by_time
from ecgfounder.analysis.statistics.metrics import DRAWS_AT_ONCE_BYTES
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers

_PAIRS_AT_ONCE = 1 << 24


@dataclass(frozen=True, eq=False)
class TimeTest:
    """The recordings of one test part.

    Attributes
    ----------
    y : numpy.ndarray
        float32 [n]: signed times.
    scores : numpy.ndarray
        float64 [n]; a higher score is an earlier event.
    patient : numpy.ndarray
        int64 [n]: from 0 to n_patients - 1.
    n_patients : int
        Number of patients, also those without a recording in this part.
    horizons : sequence of float
        The times in ascending order.
    risks : numpy.ndarray or None
        float64 [n, horizons]: predicted probabilities of the event up to each time; None if the score gives none.
    """

    y: Floats
    scores: Doubles
    patient: Numbers
    n_patients: int
    horizons: Sequence[float]
    risks: Doubles | None = None

    def metrics(self, weights: Doubles | None = None) -> dict[str, Doubles]:
        """The metrics of each draw; NaN where a draw lacks an event, or recordings that are observed for longer.

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

    # --- in the order of the times -------------------------------------------------------------------------------------

    @cached_property
    def _order(self) -> Numbers:
        return by_time(self.y)

    @cached_property
    def _time(self) -> Floats:
        return np.abs(self.y[self._order])

    @cached_property
    def _event(self) -> npt.NDArray[np.bool_]:
        return self.y[self._order] > 0

    @cached_property
    def _first(self) -> Numbers:
        """Where each distinct time begins."""
        return np.flatnonzero(np.r_[True, self._time[1:] != self._time[:-1]])

    def _metrics(self, weights: Doubles) -> dict[str, Doubles]:
        w = weights[:, self.patient[self._order]]
        with np.errstate(invalid="ignore", divide="ignore"):
            observed, alive = self._survivals(w)
            found = {"uno_c": self._uno(w, observed)}
            for number, horizon in enumerate(self.horizons):
                for name, values in self._at(number, np.float32(horizon), w, observed, alive).items():
                    found[f"{name}@{horizon:g}"] = values
        return found

    def _survivals(self, w: Doubles) -> tuple[Doubles, Doubles]:
        """Kaplan and Meier's probabilities, float64 [draws, distinct times + 1], of being observed and of being without the
        event just before each distinct time; the last column is after all."""
        of_events = np.add.reduceat(np.where(self._event, w, 0.0), self._first, axis=1)
        of_ends = np.add.reduceat(np.where(self._event, 0.0, w), self._first, axis=1)
        at_risk = np.cumsum((of_events + of_ends)[:, ::-1], axis=1)[:, ::-1]
        left = at_risk - of_events
        with np.errstate(invalid="ignore", divide="ignore"):
            observed = np.cumprod(np.where(of_ends > 0, 1 - of_ends / left, 1.0), axis=1)
            alive = np.cumprod(np.where(of_events > 0, 1 - of_events / at_risk, 1.0), axis=1)
        ones = np.ones((len(w), 1))
        return np.concatenate([ones, observed], axis=1), np.concatenate([ones, alive], axis=1)

    def _counted(self, w: Doubles, observed: Doubles, rows: Numbers) -> Doubles:
        """How much each event counts: float64 [draws, rows]."""
        place = np.searchsorted(self._first, rows, side="right") - 1
        drawn = w[:, rows]
        return np.where(drawn > 0, drawn / observed[:, place], 0.0)

    def _uno(self, w: Doubles, observed: Doubles) -> Doubles:
        rows = np.flatnonzero(self._event & (self._time < np.float32(self.horizons[-1])))
        scores = self.scores[self._order]
        columns = np.arange(len(w.T))
        narrow = np.ascontiguousarray(w.T.astype(np.float32))  # counts of draws: the sums below are exact
        earlier, all_pairs = np.zeros(len(w)), np.zeros(len(w))
        place = np.searchsorted(self._first, rows, side="right") - 1
        begin = self._first[place]
        end = np.append(self._first[1:], len(scores))[place]
        for some in np.array_split(np.arange(len(rows)), max(1, len(rows) * len(scores) // _PAIRS_AT_ONCE)):
            at = rows[some]
            tied = (columns >= begin[some, None]) & (columns < end[some, None])
            later = (columns >= end[some, None]) | (tied & ~self._event)
            right = (scores < scores[at, None]) + np.float32(0.5) * (scores == scores[at, None])
            counted = self._counted(w, observed, at)
            counted = np.where(counted > 0, counted / observed[:, place[some]], 0.0)
            earlier += (counted * ((later * right).astype(np.float32) @ narrow).T).sum(axis=1)
            all_pairs += (counted * (later.astype(np.float32) @ narrow).T).sum(axis=1)
        return np.where(all_pairs > 0, earlier / all_pairs, np.nan)

    def _at(
        self, number: int, horizon: np.float32, w: Doubles, observed: Doubles, alive: Doubles
    ) -> dict[str, Doubles]:
        """The metrics at one time."""
        after = int(np.searchsorted(self._time, horizon, side="right"))
        place = int(np.searchsorted(self._time[self._first], horizon, side="right"))
        cases = np.flatnonzero(self._event[:after])
        counted = self._counted(w, observed, cases)
        beyond = w[:, after:]
        P, N = counted.sum(axis=1), beyond.sum(axis=1)
        found = {"auroc": self._auroc(cases, after, counted, beyond) / (P * N), "risk": 1 - alive[:, place]}
        if self.risks is not None:
            risk = self.risks[self._order, number]
            counted_beyond = beyond / observed[:, place, None]
            total = w.sum(axis=1)
            score = (counted @ (1 - risk[cases]) ** 2 + counted_beyond @ risk[after:] ** 2) / total
            same = found["risk"]
            of_same = (P * (1 - same) ** 2 + counted_beyond.sum(axis=1) * same**2) / total
            found["brier"] = score
            found["scaled_brier"] = 1 - score / of_same
            found["calibration_ratio"] = same / (w @ risk / total)
        lacks = (P == 0) | (N == 0)
        return {name: np.where(lacks, np.nan, values) for name, values in found.items()}

    def _auroc(self, cases: Numbers, after: int, counted: Doubles, beyond: Doubles) -> Doubles:
        """The sum over pairs of a case and a control of whether the case's score is higher; ties count one half."""
        scores = self.scores[self._order]
        controls = np.argsort(scores[after:], kind="stable")
        ordered = scores[after:][controls]
        up_to = np.concatenate([np.zeros((len(beyond), 1)), np.cumsum(beyond[:, controls], axis=1)], axis=1)
        below = np.searchsorted(ordered, scores[cases], side="left")
        tied = np.searchsorted(ordered, scores[cases], side="right")
        return np.asarray((counted * 0.5 * (up_to[:, below] + up_to[:, tied])).sum(axis=1))


def incidence(y: Floats, times: Sequence[float]) -> Doubles:
    """Kaplan and Meier's risk up to each time, in recordings with these signed times."""
    test = TimeTest(y, np.zeros(len(y)), np.arange(len(y)), len(y), (1.0,))
    _, alive = test._survivals(np.ones((1, len(y))))
    places = np.searchsorted(test._time[test._first], np.asarray(times, dtype=np.float32), side="right")
    return np.asarray(1 - alive[0, places])
