"""Subgroups of a probe: sex, bands of age, sites, devices, quality flags.

In: columns, and the result of a probe. Out: the subgroups with their recordings, and rows of results: each metric in each
subgroup, and the gap to the others of the same column.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.pages.tables import Row, finite, numbers_of
from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.analysis.statistics.evaluation import FEWEST_IN_TEST, Data, Evaluation
from ecgfounder.analysis.statistics.intervals import FEW_PATIENTS, Estimate
from ecgfounder.analysis.statistics.solver import Doubles
from ecgfounder.analysis.statistics.subsets import Mask, Subset, evaluate_subsets
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import one_line

MOST_LEVELS = 30
"""Values of a column that become subgroups."""

PREFIX = "subgroup: "
"""How the control's name of a subgroup begins, in the table of results."""

GAP = " gap"
"""How the name of a metric's gap to the others ends."""

_BANDS = re.compile(r"(.+):([0-9.]+(?:,[0-9.]+)*)")
_MISSING = ("", "nan", "none")
_LONGEST = 40


@dataclass(frozen=True, eq=False)
class Subgroup:
    """One subgroup.

    Attributes
    ----------
    column, level : str
        The column, and the value or band.
    inside, others : numpy.ndarray
        bool [n]: its recordings, and those of the other subgroups of the column. A recording without a value is in neither.
    """

    column: str
    level: str
    inside: Mask
    others: Mask

    @property
    def name(self) -> str:
        return f"{PREFIX}{self.column}={self.level}"


def subgroups_of(selection: Selection, columns: Sequence[str], parameter: str = "subgroups") -> list[Subgroup]:
    """The subgroups of columns.

    Parameters
    ----------
    selection : Selection
        The recordings.
    columns : sequence of str
        Columns: of texts or few numbers, each value is a subgroup; of lists, such as the quality flags, each item. `age:10`
        makes bands of ten, `age:40,65` bands with these limits.
    parameter : str, default: "subgroups"
        The parameter that names the columns, for messages.

    Raises
    ------
    SettingsError
        If there is no such column, it has too many values, or bands are asked for of what is no number.
    """
    found: list[Subgroup] = []
    for given in columns:
        bands = None if given in selection.table.column_names else _BANDS.fullmatch(given)
        name = given if bands is None else bands[1]
        column = selection.column(name, parameter)
        if bands is not None:
            found += _bands(name, column, [float(each) for each in bands[2].split(",")])
        elif pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            found += _items(name, column.to_pylist())
        else:
            found += _values(name, selection.texts(name, parameter))
    return found


def _bands(name: str, column: pa.ChunkedArray, limits: list[float]) -> Iterable[Subgroup]:
    try:
        values: Doubles = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SettingsError(
            f"the column {name!r} of the 'subgroups' parameter holds values that are no numbers, so that it has no bands"
        ) from error
    known = np.isfinite(values)
    if not known.any():
        return []
    if len(limits) == 1:
        if not limits[0] > 0:
            raise SettingsError("Invalid value for the 'subgroups' parameter. The width of bands must be positive.")
        first, last = (int(np.floor(each / limits[0])) for each in (values[known].min(), values[known].max()))
        if last - first >= MOST_LEVELS:
            raise _too_many(name, last - first + 1)
        edges = [limits[0] * number for number in range(first, last + 2)]
        names = [f"{low:.12g} to {high:.12g}" for low, high in pairwise(edges)]
        band = np.searchsorted(edges, values, side="right") - 1
    else:
        edges = sorted(set(limits))
        between = [f"{low:.12g} to {high:.12g}" for low, high in pairwise(edges)]
        names = [f"under {edges[0]:.12g}", *between, f"{edges[-1]:.12g} and over"]
        band = np.searchsorted(edges, values, side="right")
    return [
        Subgroup(name, names[each], known & (band == each), known & (band != each)) for each in np.unique(band[known])
    ]


def _items(name: str, cells: Sequence[Sequence[object] | None]) -> Iterable[Subgroup]:
    sets = [{str(each).partition(":")[0] for each in cell or ()} for cell in cells]
    known = np.array([cell is not None for cell in cells], dtype=bool)
    levels = sorted(set().union(*sets))
    if len(levels) > MOST_LEVELS:
        raise _too_many(name, len(levels))
    found = []
    for level in levels:
        has = np.array([level in each for each in sets], dtype=bool)
        found.append(Subgroup(name, _short(level), has, known & ~has))
    return found


def _values(name: str, texts: Sequence[str | None]) -> Iterable[Subgroup]:
    cells = [None if text is None or text.strip().lower() in _MISSING else text.strip() for text in texts]
    levels = sorted({cell for cell in cells if cell is not None})
    if len(levels) > MOST_LEVELS:
        raise _too_many(name, len(levels))
    code = {level: number for number, level in enumerate(levels)}
    codes = np.array([-1 if cell is None else code[cell] for cell in cells], dtype=np.int64)
    return [
        Subgroup(name, _short(level), codes == number, (codes >= 0) & (codes != number))
        for number, level in enumerate(levels)
    ]


def _too_many(name: str, n: int) -> SettingsError:
    return SettingsError(
        f"Invalid value for the 'subgroups' parameter. The column {name!r} has {n:,} subgroups; expected at most {MOST_LEVELS}. "
        f"For numbers give bands: {name}:10, or {name}:40,65."
    )


def _short(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def subgroup_rows(
    evaluation: Evaluation, data: Data, subgroups: Sequence[Subgroup], split: str, seed: int
) -> list[Row]:
    """The rows of all scored labels in all subgroups."""
    rows = []
    for label in evaluation.labels:
        found = evaluate_subsets(evaluation, data, label, [(each.inside, each.others) for each in subgroups])
        for subgroup, subset in zip(subgroups, found, strict=True):
            where = (split, subgroup.name, seed)
            if subset.why_not is not None:
                note = f"not scored: {subset.why_not}"
                rows.append(Row(label, "none", None, None, None, *numbers_of(subset.counts), *where, note))
                continue
            for metric, own in subset.estimates.items():
                rows += _rows_of(label, metric, own, subset, len(data.splits), where)
    return rows


def _rows_of(
    label: str, metric: str, own: Estimate, subset: Subset, n_splits: int, where: tuple[str, str, int]
) -> list[Row]:
    """The row of a metric, and that of its gap."""
    counts, others = subset.counts.of(metric), subset.others.of(metric)
    if counts.rarer < FEWEST_IN_TEST:
        note = f"not scored: {counts.why_not_scored(0)}"
        return [Row(label, metric, None, None, None, *numbers_of(counts), *where, note)]
    gap = subset.gaps.get(metric)
    lines = [
        (metric, own, counts, [] if gap else [f"no gap: fewer than {FEWEST_IN_TEST} patients {others.which} elsewhere"])
    ]
    if gap is not None and finite(gap.value) is not None:
        fewer = min(counts, others, key=lambda each: each.rarer)
        lines.append((f"{metric}{GAP}", gap, fewer, ["subgroup minus the others, paired"]))
    rows = []
    for name, estimate, rarest, notes in lines:
        if rarest.rarer < FEW_PATIENTS:
            notes.append(
                f"few patients (fewer than {FEW_PATIENTS} {rarest.which}{'' if rarest is counts else ' elsewhere'})"
            )
        if subset.n_splits[metric] < n_splits:
            notes.append(f"of {subset.n_splits[metric]} of {n_splits} test parts")
        if estimate.n_unscored:
            notes.append(estimate.unscored)
        figures = finite(estimate.value), finite(estimate.low), finite(estimate.high)
        rows.append(Row(label, name, *figures, *numbers_of(counts), *where, "; ".join(notes)))
    return rows
