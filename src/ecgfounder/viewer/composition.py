"""How a selection differs from the rest, column by column.

In: columns for the page, a mask. Out: a row for each value of a column (or for a column of numbers), those that differ
most first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ecgfounder.viewer.columns import MISSING, OTHER, PREDICTED, Columns, Encoded

Mask = npt.NDArray[np.bool_]

VALUES_SHOWN = 12
"""Values of a column, those that differ most."""

_SORTED = 50_000
"""Numbers of which a distribution is taken at most, to order columns by."""

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Share:
    """A value of a column in the selection and in the rest.

    Attributes
    ----------
    value : str or None
        The value; None for a missing one.
    selected, rest : int
        Recordings with it.
    difference, low, high : float
        Difference of the shares, with the 95 % interval of Newcombe, which takes recordings as independent.
    """

    value: str | None
    selected: int
    rest: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """A column of numbers: its quartiles (25, 50, 75 %) in the selection and in the rest; None where there is no value."""

    selected: tuple[float, float, float] | None
    rest: tuple[float, float, float] | None
    n_selected: int
    n_rest: int


@dataclass(frozen=True)
class Compared:
    """A column in the selection and in the rest.

    Attributes
    ----------
    name, group, kind : str
        Of the column.
    distance : float
        From 0 to 1: the total variation distance of the shares, or the largest difference of the distributions of numbers
        (Kolmogorov-Smirnov).
    shares : tuple of Share
        Its values, for categories.
    spread : Spread or None
        Its quartiles, for numbers and times.
    """

    name: str
    group: str
    kind: str
    distance: float
    shares: tuple[Share, ...] = ()
    spread: Spread | None = None


def composition(columns: Columns, mask: Mask, *, predicted: bool = False) -> list[Compared]:
    """The columns that are shown, or those that the network predicts, those in which the selection differs most first.

    Columns of identifiers are left out: hardly any two recordings have the same.
    """
    shown = {name: group for name, group in columns.shown.items() if (group == PREDICTED) is predicted}
    pairs = ((name, columns.encoded(name)) for name in shown)
    found = [compared(name, shown[name], column, mask) for name, column in pairs if not column.names_few]
    return sorted(found, key=lambda each: -each.distance)


def compared(name: str, group: str, column: Encoded, mask: Mask) -> Compared:
    """One column."""
    if column.kind == "category":
        shares = tuple(_shares(column, mask))
        distance = sum(abs(each.difference) for each in shares) / 2
        shown = sorted(shares, key=lambda each: -abs(each.difference))[:VALUES_SHOWN]
        return Compared(name, group, column.kind, min(1.0, distance), tuple(shown))
    inside, outside = (column.values[each & np.isfinite(column.values)] for each in (mask, ~mask))
    spread = Spread(_quartiles(inside), _quartiles(outside), len(inside), len(outside))
    return Compared(name, group, column.kind, _distance(inside, outside), spread=spread)


def _shares(column: Encoded, mask: Mask) -> Iterator[Share]:
    counts = np.bincount(column.values, minlength=256)
    inside = np.bincount(column.values[mask], minlength=256)
    n_inside, n_outside = int(mask.sum()), int((~mask).sum())
    names = [*enumerate(column.categories), (OTHER, "other values"), (MISSING, None)]
    for code, name in names:
        if counts[code]:
            selected, rest = int(inside[code]), int(counts[code] - inside[code])
            yield Share(name, selected, rest, *difference(selected, n_inside, rest, n_outside))


def difference(one: int, of_one: int, other: int, of_other: int) -> tuple[float, float, float]:
    """The difference of two shares and its 95 % interval (Newcombe 1998, method 10).

    >>> [round(each, 4) for each in difference(56, 70, 48, 80)]
    [0.2, 0.0524, 0.3339]
    """
    if not (of_one and of_other):
        return 0.0, -1.0, 1.0
    p, q = one / of_one, other / of_other
    (p_low, p_high), (q_low, q_high) = _wilson(p, of_one), _wilson(q, of_other)
    low = p - q - ((p - p_low) ** 2 + (q_high - q) ** 2) ** 0.5
    high = p - q + ((p_high - p) ** 2 + (q - q_low) ** 2) ** 0.5
    return p - q, low, high


def _wilson(share: float, n: int) -> tuple[float, float]:
    centre = share + _Z**2 / (2 * n)
    half = _Z * (share * (1 - share) / n + _Z**2 / (4 * n**2)) ** 0.5
    return (centre - half) / (1 + _Z**2 / n), (centre + half) / (1 + _Z**2 / n)


def _quartiles(values: npt.NDArray[np.float32]) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def _distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """The largest difference of the two distribution functions; of many values, of some that are spread evenly."""
    if not (len(one) and len(other)):
        return 0.0
    one, other = (np.sort(each[:: 1 + len(each) // _SORTED]) for each in (one, other))
    everywhere = np.concatenate([one, other])
    at = [np.searchsorted(each, everywhere, side="right") / len(each) for each in (one, other)]
    return float(np.abs(at[0] - at[1]).max())
