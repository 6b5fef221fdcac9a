"""AUROC over pairs of one stratum only: of one site, of one fold.

In: labels, scores, strata and patients of recordings; how often each patient was drawn. Out: pairs of a positive and a negative
recording of one stratum, and how many of them the scores order correctly (ties count one half).

With the fold as the stratum, this is the AUROC in which scores of different models are never compared. With fold and site, a
probe gains nothing from knowing the site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.intervals import drawn_patients
from ecgfounder.analysis.statistics.solver import Doubles, Numbers

_BYTES_AT_ONCE = 64 << 20


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of a positive and a negative recording that have the same stratum.

    Attributes
    ----------
    y : numpy.ndarray
        bool [n].
    scores : numpy.ndarray
        float64 [n].
    stratum, patient : numpy.ndarray
        int64 [n].
    """

    y: npt.NDArray[np.bool_]
    scores: Doubles
    stratum: Numbers
    patient: Numbers

    @property
    def rarer(self) -> int:
        """The number of patients with a recording of the class of which there are fewer."""
        return min(len(np.unique(self.patient[self.y])), len(np.unique(self.patient[~self.y])))

    def at(self, rows: npt.NDArray[np.bool_]) -> Pairs:
        """Those of some recordings."""
        return Pairs(self.y[rows], self.scores[rows], self.stratum[rows], self.patient[rows])

    def within(self, stratum: Numbers) -> Pairs:
        """Those that have another stratum in common, too."""
        _, both = np.unique(np.stack([self.stratum, stratum], axis=1), axis=0, return_inverse=True)
        return Pairs(self.y, self.scores, both.reshape(-1).astype(np.int64), self.patient)

    @cached_property
    def _places(self) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers, Numbers]:
        """The order by stratum and score; of each positive its place, and where its stratum and its ties begin and end."""
        order = np.lexsort((self.scores, self.stratum))
        stratum, scores = self.stratum[order], self.scores[order]
        other = np.r_[True, stratum[1:] != stratum[:-1]] if len(order) else np.zeros(0, bool)
        positives = np.flatnonzero(self.y[order])

        def ends(begins: npt.NDArray[np.bool_]) -> tuple[Numbers, Numbers]:
            first = np.flatnonzero(begins)
            at = np.searchsorted(first, positives, side="right") - 1
            return first[at], np.append(first[1:], len(order))[at]

        begin, end = ends(other)
        tied, past = ends(other | np.r_[True, scores[1:] != scores[:-1]]) if len(order) else (begin, end)
        return order, positives, begin, end, tied, past

    def sums(self, weights: Doubles | None = None) -> tuple[Doubles, Doubles]:
        """The pairs in correct order, and all pairs, of each draw: float64 [draws].

        Parameters
        ----------
        weights : numpy.ndarray, optional
            float64 [draws, patients]; None for one draw that has each patient once.
        """
        if weights is None:
            weights = np.ones((1, int(self.patient.max(initial=-1)) + 1))
        order, positives, begin, end, tied, past = self._places
        at_once = max(1, _BYTES_AT_ONCE // (16 * max(1, len(order))))
        correct, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        patient, negative = self.patient[order], ~self.y[order]
        for first in range(0, len(weights) if len(positives) else 0, at_once):
            some = slice(first, first + at_once)
            drawn = weights[some][:, patient]
            before = np.zeros((len(drawn), len(order) + 1))
            np.cumsum(drawn * negative, axis=1, out=before[:, 1:])
            of_positive = drawn[:, positives]
            lower = 0.5 * (before[:, tied] + before[:, past]) - before[:, begin]
            correct[some] = (of_positive * lower).sum(axis=1)
            pairs[some] = (of_positive * (before[:, end] - before[:, begin])).sum(axis=1)
        return correct, pairs


def areas(
    tests: Mapping[str, Pairs], n_patients: int, n_draws: int, rng: np.random.Generator
) -> dict[str, tuple[Doubles, Doubles]]:
    """Pairs in correct order and all pairs of several tests, in the same draws of patients.

    Returns
    -------
    dict of str to (numpy.ndarray, numpy.ndarray)
        float64 [1 + n_draws] each: of the recordings themselves, then of each draw.
    """
    found: dict[str, list[tuple[Doubles, Doubles]]] = {name: [test.sums()] for name, test in tests.items()}
    at_once = max(1, _BYTES_AT_ONCE // (8 * max(1, n_patients)))
    for first in range(0, n_draws, at_once):
        weights = drawn_patients(n_patients, min(at_once, n_draws - first), rng)
        for name, test in tests.items():
            found[name].append(test.sums(weights))
    return {
        name: (np.concatenate([each[0] for each in parts]), np.concatenate([each[1] for each in parts]))
        for name, parts in found.items()
    }


def ratio(correct: Doubles, pairs: Doubles) -> Doubles:
    """The AUROC of each draw; NaN where a draw has no pair."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(pairs > 0, correct / pairs, np.nan))
