"""Maps of how many recordings lie where, without any place of few patients.

In: places in the plane, and the patient of each. Out: figures in which a square is coloured by a class of how many recordings it
has; squares of fewer than `FEWEST` patients are empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.reporting.sides import Mask
from ecgfounder.analysis.statistics.solver import Floats, Numbers
from ecgfounder.results.small_cells import FEWEST

MOST_SQUARES = 48
"""Squares along each side of a map of many recordings."""

CLASSES = (FEWEST, 2 * FEWEST, 5 * FEWEST, 10 * FEWEST)
"""The smallest number of recordings of each class."""

_IN_EACH = 15
"""Recordings in a square on average, in maps of few recordings."""

_SIZE = 240
_OUTSIDE = 0.005

Grid = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Plane:
    """The squares of a map, and the one of each recording.

    Attributes
    ----------
    side : int
        The number of squares along each side.
    square : numpy.ndarray
        int64 [n]: row * side + column; those that lie outside are in the squares at the border.
    patients : numpy.ndarray
        int64 [n].
    """

    side: int
    square: Numbers
    patients: Numbers

    @classmethod
    def of(cls, places: Floats, patients: Numbers, n: int) -> Plane:
        """The plane that holds nearly all of some places; its squares are of a size for `n` of them."""
        side = int(np.clip(np.sqrt(n / _IN_EACH), 2, MOST_SQUARES))
        columns = []
        for values in places[:, :2].T.astype(np.float64):
            low, high = np.quantile(values, [_OUTSIDE, 1 - _OUTSIDE])
            width = max(float(high - low), 1e-12) / side
            columns.append(np.clip(np.floor((values - low) / width), 0, side - 1).astype(np.int64))
        x, y = columns
        return cls(side, (side - 1 - y) * side + x, patients)

    def classes(self, chosen: Mask | None = None) -> Grid:
        """int8 [side, side]: the class of each square, from 1; 0 for squares of few patients."""
        rows = slice(None) if chosen is None else chosen
        square, patients = self.square[rows], self.patients[rows]
        n_patients = int(self.patients.max(initial=0)) + 1
        there = np.unique(square * n_patients + patients) // n_patients
        found = np.searchsorted(CLASSES, np.bincount(square, minlength=self.side**2), side="right")
        found[np.bincount(there, minlength=self.side**2) < FEWEST] = 0
        return found.reshape(self.side, self.side).astype(np.int8)


def drawing(everything: Grid, chosen: Grid | None, about: str) -> str:
    """A map as SVG: all recordings, or where some of them lie among all, which are a shadow."""
    front = everything if chosen is None else chosen
    paths = [] if chosen is None else [f'<path class="d0" d="{_path(everything > 0)}"/>']
    paths += [f'<path class="d{each}" d="{_path(front == each)}"/>' for each in np.unique(front[front > 0]).tolist()]
    inside = f'<g transform="scale({_SIZE / len(everything):.4f})" shape-rendering="crispEdges">{"".join(paths)}</g>'
    return (
        f'<svg viewBox="0 0 {_SIZE} {_SIZE}" width="{_SIZE}" height="{_SIZE}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f'<title>{escape(about)}</title>{inside}<rect class="axis" x=".5" y=".5" width="{_SIZE - 1}" '
        f'height="{_SIZE - 1}"/></svg>'
    )


def _path(squares: npt.NDArray[np.bool_]) -> str:
    """The outline of the runs of squares in each row.

    >>> import numpy as np
    >>> _path(np.array([[True, True, False], [False, False, True]]))
    'M0 0h2v1h-2zM2 1h1v1h-1z'
    """
    found = []
    for row, line in enumerate(squares):
        edges = np.flatnonzero(np.diff(np.r_[0, line.astype(np.int8), 0])).tolist()
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            found.append(f"M{start} {row}h{stop - start}v1h-{stop - start}z")
    return "".join(found)


def legend() -> str:
    """The classes as SVG."""
    names = [*(f"{low} to {high - 1}" for low, high in pairwise(CLASSES)), f"{CLASSES[-1]} or more"]
    parts = []
    for number, name in enumerate(names):
        x = 2 + 100 * number
        parts.append(f'<rect class="d{number + 1}" x="{x}" y="6" width="14" height="14"/>')
        parts.append(f'<text x="{x + 20}" y="17">{name}</text>')
    return (
        f'<svg viewBox="0 0 410 26" width="410" height="26" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>Recordings in a square, from light to strong: {'; '.join(names)}</title>{''.join(parts)}</svg>"
    )


def centre_and_spread(places: Floats, chosen: Mask) -> tuple[float, float, float, float]:
    """The means and standard deviations of some recordings along both axes, in standard deviations of all."""
    axes = places[:, :2].astype(np.float64)
    some = (axes[chosen] - axes.mean(axis=0)) / np.maximum(axes.std(axis=0), 1e-12)
    (x, y), (sd_x, sd_y) = some.mean(axis=0), some.std(axis=0)
    return float(x), float(y), float(sd_x), float(sd_y)
