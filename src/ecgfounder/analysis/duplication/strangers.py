"""How similar recordings of different patients are: the nearest one of another patient, and what is expected of more of them.

In: the similarity of each recording's nearest one of another patient. Out: `Strangers`: a threshold for an expected number of
pairs that are alike by chance.

If the directions of embeddings were uniform in d dimensions, the share of pairs with a similarity above s would be proportional
to (1 - s²) to the power (d - 1) / 2 for s near 1. So with y = -log(1 - s²) / 2 it falls exponentially, and the largest of many is
Gumbel distributed: P(y_max <= y) = exp(-exp(-(y - location) / scale)), scale = 1 / (d - 1). Location and scale are fitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecgfounder.analysis.statistics.solver import Doubles, Floats

WINDOW = (0.5, 0.95)
"""Quantiles between which the distribution is fitted: what is above may be duplicates that are not known yet."""

WIDE_OF_DUPLICATES = (0.25, 0.75)
"""The same where no duplicates are known, so that there may be many: up to a quarter of the recordings may have one."""

FEWEST = 30
"""Recordings below which nothing is fitted."""

_CLOSEST = 1 - 1e-6  # similarity that rounding cannot tell from 1
_NO_SPREAD = 1e-6


def spread_out(similarity: Floats | Doubles) -> Doubles:
    """-log(1 - s²) / 2; 0 for similarities below 0."""
    s = np.clip(np.asarray(similarity, dtype=np.float64), 0, _CLOSEST)
    return np.asarray(-np.log1p(-s * s) / 2)


@dataclass(frozen=True)
class Strangers:
    """The distribution of the nearest recording of another patient.

    Attributes
    ----------
    n : int
        Recordings of the whole search.
    location, scale : float
        Of the Gumbel distribution of y, for a search among n.
    """

    n: int
    location: float
    scale: float

    @property
    def dimensions(self) -> float:
        """In how many dimensions the nearest ones differ."""
        return 1 + 1 / self.scale

    def expected(self, similarity: Floats | Doubles) -> Doubles:
        """The number of pairs of different patients in the whole search that are expected to be as similar, or more."""
        above = -np.expm1(-np.exp(-(spread_out(similarity) - self.location) / self.scale))
        return np.asarray(self.n / 2 * above)

    def threshold(self, pairs: float) -> float:
        """The similarity above which this number of pairs is expected; more than 1 if no similarity is so large."""
        share = 2 * pairs / self.n
        if share >= 1:
            return 0.0
        y = self.location - self.scale * np.log(-np.log1p(-share))
        if y >= spread_out(np.array(_CLOSEST)):
            return float("inf")
        return float(np.sqrt(-np.expm1(-2 * max(0.0, y))))


def fit(
    nearest: Sequence[Floats | Doubles], searched: Sequence[int], n: int, window: tuple[float, float] = WINDOW
) -> Strangers | None:
    """The distribution for a search among n recordings, from samples.

    Parameters
    ----------
    nearest : sequence of numpy.ndarray
        Similarity of each recording's nearest one of another patient, a sample for each part that was searched by itself.
    searched : sequence of int
        Recordings of each part.
    n : int
        Recordings of the whole search.
    window : tuple of (float, float), default: WINDOW
        Quantiles between which the distribution is fitted.

    Returns
    -------
    Strangers or None
        None if there are fewer than `FEWEST` recordings, or if those in the middle do not differ.
    """
    found = []
    for values, size in zip(nearest, searched, strict=True):
        finite = spread_out(values[np.isfinite(values)])
        y = np.sort(finite[finite < spread_out(np.array(_CLOSEST))])  # what cannot be told from 1 is no stranger
        if len(y) < max(FEWEST, len(finite) / 2):
            continue
        place = (np.arange(len(y)) + 0.5) / len(y)
        inside = (place >= window[0]) & (place <= window[1])
        scale, location = np.polyfit(-np.log(-np.log(place[inside])), y[inside], 1)
        if not scale > _NO_SPREAD:
            continue
        found.append((size, float(location + scale * np.log(n / size)), float(scale)))
    if not found:
        return None
    weights = np.array([size for size, _, _ in found], dtype=np.float64)
    location, scale = (float(np.average([each[at] for each in found], weights=weights)) for at in (1, 2))
    return Strangers(n, location, scale)
