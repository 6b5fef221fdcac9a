"""Factors of acquisition: what a column says about how recordings were made, as levels or as numbers.

In: a column of a selection, each recording's patient. Out: a `Factor`, with the levels that have enough patients, or the reason
why there is nothing to test.

Numbers with more than `MOST_AS_LEVELS` different values, and times, are tested as numbers; where levels are needed, they are
quarters of the recordings. All else are levels. Levels with few patients are pooled into one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.analysis.rows.times import dates_in
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import counted, one_line

FEWEST_PATIENTS = 10
"""A level of fewer patients is pooled with others, and without enough others left out."""

MOST_LEVELS = 30
"""Levels, those with the most patients; the others are pooled."""

MOST_AS_LEVELS = 10
"""Different values up to which numbers are taken as levels."""

POOLED = "(other levels)"

_QUARTERS = (0.25, 0.5, 0.75)
_MISSING = ("", "nan", "none", "null", "<na>", "nat")
_LONGEST_NAME = 60
_LARGEST = 1e30  # beyond it, numbers mean nothing, and their squares are not finite
_SECONDS_A_YEAR = 365.2425 * 24 * 3600


@dataclass(frozen=True)
class Level:
    """A level of a factor: its recordings and patients, and whether it was pooled with others or left out as too small."""

    name: str
    n_records: int
    n_patients: int
    pooled: bool = False


@dataclass(frozen=True, eq=False)
class Factor:
    """What a column says about each recording.

    Attributes
    ----------
    name : str
        The column.
    how : str
        How it was taken, for reports.
    values : numpy.ndarray or None
        float64 [n]: the numbers, NaN where missing; None for a factor that has levels only.
    levels : tuple of Level
        Those that are tested; the last one may be the pooled levels.
    codes : numpy.ndarray
        int64 [n]: the level of each recording; -1 where it is missing or left out.
    sites : numpy.ndarray
        int64 [n]: the same before levels were pooled; -1 where it is missing.
    rare : tuple of Level
        The levels that were pooled.
    n_missing, n_left_out : int
        Recordings without a value, and those of rare levels that are too few even together.
    """

    name: str
    how: str
    values: Doubles | None
    levels: tuple[Level, ...]
    codes: Numbers
    sites: Numbers
    rare: tuple[Level, ...]
    n_missing: int
    n_left_out: int

    @property
    def is_number(self) -> bool:
        """Whether it is tested as a number."""
        return self.values is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the levels that are tested."""
        return tuple(level.name for level in self.levels)

    @property
    def has_pool(self) -> bool:
        """Whether the last level is several together."""
        return any(level.name == self.levels[-1].name and level.pooled for level in self.levels)

    @property
    def why_not(self) -> str | None:
        """Why there is nothing to test; None if there is."""
        if len(self.levels) >= 2:
            return None
        if not (self.sites >= 0).any():
            return "no recording has a value"
        n = int(self.sites.max()) + 1
        if self.is_number:
            return "its values do not differ enough for two groups of recordings"
        if n == 1:
            return "all values are the same"
        return f"of {n:,} levels, fewer than two have {FEWEST_PATIENTS} patients or more"

    def labels(self) -> Floats:
        """What a probe of the factor predicts: float32 [n, k], NaN where unknown.

        The number, or a column for each level; of two levels, the second one only.
        """
        if self.values is not None:
            return self.values.astype(np.float32)[:, None]
        chosen = range(len(self.levels)) if len(self.levels) > 2 else range(1, len(self.levels))
        Y = np.stack([self.codes == level for level in chosen], axis=1).astype(np.float32)
        Y[self.codes < 0] = np.nan
        return Y

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the columns of `labels`."""
        return (self.name,) if self.is_number else self.names if len(self.levels) > 2 else self.names[1:]

    def concept(self) -> Doubles:
        """float64 [n, k]: the standardised number, or a column for each level; 0 where unknown."""
        if self.values is not None:
            known = np.isfinite(self.values)
            some = self.values[known]
            found = np.zeros(len(self.values))
            found[known] = (some - some.mean()) / max(float(some.std()), 1e-300)
            return found[:, None]
        return np.asarray(self.codes[:, None] == np.arange(len(self.levels)), dtype=np.float64)

    @property
    def known(self) -> Numbers:
        """int64: the recordings whose level is known."""
        return np.flatnonzero(self.codes >= 0)


def factor_of(selection: Selection, name: str, groups: Numbers, *, as_levels: bool, as_number: bool) -> Factor:
    """A column as a factor.

    Parameters
    ----------
    selection : Selection
        The recordings.
    name : str
        The column.
    groups : numpy.ndarray
        int64 [n]: each recording's patient.
    as_levels, as_number : bool
        Whether to take it as levels, or as numbers, whatever its values are.

    Raises
    ------
    SettingsError
        If there is no such column, or it holds neither texts nor numbers.
    """
    column = selection.column(name, "by")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    dates = dates_in(column)
    values = _years(dates) if dates is not None else _numbers(column, name, required=as_number)
    if values is not None and not as_levels:
        known = np.isfinite(values)
        if as_number or dates is not None or len(np.unique(values[known])) > MOST_AS_LEVELS:
            return _number_factor(name, values, groups, is_time=dates is not None)
    if not (values is not None or _is_text(column.type)):
        raise SettingsError(f"the column {name!r} of the 'by' parameter holds neither texts nor numbers")
    return _level_factor(name, selection.texts(name, "by"), groups)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _years(dates: pa.ChunkedArray) -> Doubles:
    microseconds = pc.cast(pc.cast(dates, pa.int64()), pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return np.asarray(1970 + microseconds.astype(np.float64) / 1e6 / _SECONDS_A_YEAR, dtype=np.float64)


def _numbers(column: pa.ChunkedArray, name: str, *, required: bool) -> Doubles | None:
    """The values as numbers; None for texts."""
    kind = column.type
    try:
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        if is_number or pa.types.is_boolean(kind) or (required and _is_text(kind)):
            found: Doubles = pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False).astype(np.float64)
            return np.where(np.abs(found) < _LARGEST, found, np.nan)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SettingsError(
            f"the column {name!r} of the 'as_number' parameter holds values that are no numbers"
        ) from error
    if required:
        raise SettingsError(f"the column {name!r} of the 'as_number' parameter holds values that are no numbers")
    return None


def _number_factor(name: str, values: Doubles, groups: Numbers, *, is_time: bool) -> Factor:
    known = np.flatnonzero(np.isfinite(values))
    codes = np.full(len(values), -1, dtype=np.int64)
    names: list[str] = []
    if len(known):
        some = values[known]
        edges = np.unique(np.quantile(some, _QUARTERS, method="higher"))
        _, codes[known] = np.unique(np.searchsorted(edges, some, side="left"), return_inverse=True)
        for code in range(int(codes.max()) + 1):
            inside = values[codes == code]
            names.append(f"{_told(inside.min())} to {_told(inside.max())}")
    what = "years of a time" if is_time else f"numbers, {len(np.unique(values[known])):,} different ones"
    how = f"{what}; where groups are needed, quarters of the recordings"
    levels, used, rare, left_out = _enough(names, codes, groups)
    return Factor(name, how, values, levels, used, codes, rare, len(values) - len(known), left_out)


def _told(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.6g}"


def _level_factor(name: str, texts: list[str | None], groups: Numbers) -> Factor:
    cells = [None if text is None or text.strip().lower() in _MISSING else text.strip() for text in texts]
    names = sorted({cell for cell in cells if cell is not None})
    at = {each: number for number, each in enumerate(names)}
    sites = np.array([-1 if cell is None else at[cell] for cell in cells], dtype=np.int64)
    levels, codes, rare, left_out = _enough([_short(each) for each in names], sites, groups)
    how = counted(len(names), "level")
    return Factor(name, how, None, levels, codes, sites, rare, int((sites < 0).sum()), left_out)


def _short(name: str) -> str:
    shown = one_line(name)
    return shown if len(shown) <= _LONGEST_NAME else f"{shown[: _LONGEST_NAME - 1]}…"


def _enough(
    names: list[str], sites: Numbers, groups: Numbers
) -> tuple[tuple[Level, ...], Numbers, tuple[Level, ...], int]:
    """The levels that have enough patients, the level of each recording, the rare levels, and the recordings left out."""
    n = len(names)
    known = np.flatnonzero(sites >= 0)
    records = np.bincount(sites[known], minlength=n)
    pairs = np.unique(np.stack([sites[known], groups[known]], axis=1), axis=0)
    patients = np.bincount(pairs[:, 0], minlength=n)
    by_size = sorted(range(n), key=lambda site: (-patients[site], site))
    kept = sorted(site for site in by_size[:MOST_LEVELS] if patients[site] >= FEWEST_PATIENTS)
    rare = [site for site in by_size if site not in set(kept)]
    taken: dict[str, int] = {}
    levels = []
    for site in kept:
        taken[names[site]] = taken.get(names[site], 0) + 1
        name = names[site] if taken[names[site]] == 1 else f"{names[site]} ({taken[names[site]]})"
        levels.append(Level(name, int(records[site]), int(patients[site])))
    new = np.full(n + 1, -1, dtype=np.int64)
    new[kept] = np.arange(len(kept))
    in_rare = np.isin(sites, rare)
    n_in_rare = len(np.unique(groups[in_rare]))
    left_out = int(in_rare.sum())
    if n_in_rare >= FEWEST_PATIENTS and len(rare) > 0 and kept:
        new[rare] = len(kept)
        name = POOLED if POOLED not in taken else f"{POOLED}*"
        levels.append(Level(name, left_out, n_in_rare, pooled=True))
        left_out = 0
    those = tuple(Level(names[site], int(records[site]), int(patients[site]), True) for site in rare)
    return tuple(levels), new[sites], those, left_out
