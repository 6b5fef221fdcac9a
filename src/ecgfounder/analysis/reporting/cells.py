"""Counts that may be shown: no cell of fewer than `FEWEST` patients, and none that other cells tell.

In: values of recordings, and the patient of each. Out: `Partition`s whose cells may be shown.

A count tells more than itself: a total minus the other rows of its table, or the difference of two counts of which one is known
to contain the other (the recordings of a format, and those of the devices that write it). So each table is a division of all
recordings into cells that are all large enough, small ones put together; and no cells of it together may contain cells of another
table together, or be contained in them, with a rest of a few patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.solver import Numbers
from ecgfounder.results.small_cells import FEWEST, OTHERS, rare_values

Mask = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint16]

MOST_CELLS = 20
"""Rows of a table; the values that are less frequent are put together."""

_MOST_GROUPS = 10

_ONES = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class Partition:
    """A division of all recordings into cells that may be shown.

    Attributes
    ----------
    names : tuple of str
        The names of the cells.
    counts : tuple of int
        Their numbers of recordings, which add up to that of all recordings; empty if nothing may be shown.
    codes : numpy.ndarray
        int64 [n]: the cell of each recording; -1 if nothing may be shown.
    has_others : bool
        Whether the last cell is several values together.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    codes: Numbers
    has_others: bool = False

    def __bool__(self) -> bool:
        return bool(self.names)


@dataclass(frozen=True, eq=False)
class _Cell:
    """A set of recordings as bits, and their number."""

    bits: Bits
    size: int


class Cells:
    """What is shown of some recordings.

    Parameters
    ----------
    patients : numpy.ndarray
        int64 [n]: the patient of each recording, from 0 without gaps; each recording by itself if they are not known.
    """

    def __init__(self, patients: Numbers) -> None:
        self.patients = patients
        self._n_patients = int(patients.max()) + 1 if len(patients) else 0
        self._most_of_one = int(np.bincount(patients).max()) if len(patients) else 0
        self._shown: list[list[_Cell]] = []

    @property
    def n(self) -> int:
        """The number of recordings."""
        return len(self.patients)

    @property
    def n_patients(self) -> int:
        """The number of patients."""
        return self._n_patients

    @property
    def are_enough(self) -> bool:
        """Whether the number of all recordings may be shown."""
        return self._n_patients >= FEWEST

    def few(self, mask: Mask) -> bool:
        """Whether some recordings, but not none, are of too few patients."""
        n = int(np.count_nonzero(mask))
        return 0 < n < FEWEST * self._most_of_one and self.size(mask) < FEWEST

    def size(self, mask: Mask) -> int:
        """The number of patients of some recordings."""
        there = np.zeros(self._n_patients, dtype=bool)
        there[self.patients[mask]] = True
        return int(np.count_nonzero(there))

    # --- divisions -----------------------------------------------------------------------------------------------------

    def by_name(self, names: Sequence[str], codes: Numbers, most: int = MOST_CELLS) -> Partition:
        """A division by values that have no order; `codes` are the number of each recording's value among `names`."""
        counts = np.bincount(codes, minlength=len(names))
        sizes = self._sizes(codes, len(names))
        there = np.flatnonzero(counts).tolist()
        ordered = sorted(there, key=lambda each: (-counts[each], names[each]))
        pooled = {each for each in ordered[most:] if len(ordered) > most + 1} | {
            x for x in ordered if sizes[x] < FEWEST
        }
        while True:
            alone, others = self._divided(ordered, codes, len(names), pooled)
            if not alone:
                return _nothing(codes)
            place = np.full(len(names), len(alone))
            place[alone] = np.arange(len(alone))
            found = place[codes]
            offender = self._offender(found, len(alone) + bool(others))
            if offender is None:
                break
            pooled = {*others, alone[min(offender, len(alone) - 1)]}
        shown = [names[each] for each in alone] + ([OTHERS] if others else [])
        return self._registered(shown, found, has_others=bool(others))

    def _divided(self, ordered: list[int], codes: Numbers, n: int, pooled: set[int]) -> tuple[list[int], list[int]]:
        """The values that are shown alone, and those that are put together."""

        def size_of(values: Sequence[int]) -> int:
            if len(values) == 1 and values[0] not in pooled:
                return FEWEST
            if len(values) == 1:
                return 0
            chosen = np.zeros(n, dtype=bool)
            chosen[list(values)] = True
            return self.size(chosen[codes])

        others = rare_values(ordered, size_of)
        inside = set(others)
        return [value for value in ordered if value not in inside], others

    def by_order(self, names: Sequence[str], codes: Numbers, unknown: str | None = None) -> Partition:
        """A division by values in an order, of which neighbours are put together.

        The name of neighbours is made of the first name and the last, or of their ends, if they are intervals "2 to 5". The value
        `unknown` is outside of the order and comes last.
        """
        counts = np.bincount(codes, minlength=len(names))
        groups = [[int(each)] for each in np.flatnonzero(counts)]
        place = np.zeros(len(names), dtype=np.int64)
        while len(groups) > 1:
            for number, group in enumerate(groups):
                place[group] = number
            found = place[codes]
            sizes = self._sizes(found, len(groups))
            small = [number for number in range(len(groups)) if sizes[number] < FEWEST]
            offender = small[0] if small else self._offender(found, len(groups))
            if offender is None:
                break
            numbers = [int(counts[group].sum()) for group in groups]
            other = min(
                (each for each in (offender - 1, offender + 1) if 0 <= each < len(groups)),
                key=lambda each: numbers[each],
            )
            first, second = sorted((offender, other))
            groups[first : second + 1] = [groups[first] + groups[second]]
        if not groups or not self.are_enough:
            return _nothing(codes)
        for number, group in enumerate(groups):
            place[group] = number
        shown = [_span([names[each] for each in group], unknown) for group in groups]
        return self._registered(shown, place[codes])

    def offender(self, codes: Numbers, n: int) -> int | None:
        """A cell of a division that may not be shown as it is: of few patients, or one by which another table tells of few."""
        sizes = self._sizes(codes, n)
        small = [number for number in range(n) if 0 < sizes[number] < FEWEST]
        if small:
            return small[0]
        used, found = np.unique(codes, return_inverse=True)
        at = self._offender(found.astype(np.int64), len(used)) if len(used) > 1 else None
        return None if at is None else int(used[at])

    def show(self, names: Sequence[str], codes: Numbers) -> Partition:
        """A division that has no `offender`; cells without recordings are left out."""
        used, found = np.unique(codes, return_inverse=True)
        return self._registered([names[each] for each in used], found.astype(np.int64))

    def of(self, mask: Mask) -> int | None:
        """The number of some recordings; None if it may not be shown."""
        n = int(np.count_nonzero(mask))
        if not self.are_enough or self.few(mask) or self.few(~mask):
            return None
        found = 1 - mask.astype(np.int64)
        if 0 < n < self.n:
            if self._offender(found, 2) is not None:
                return None
            self._registered(["", ""], found)
        return n

    def patients_by(self, partition: Partition) -> tuple[int, ...] | None:
        """The number of patients in each cell.

        None if it would tell how few patients are in several cells, not in one, or have several recordings.
        """
        numbers = [self.size(partition.codes == each) for each in range(len(partition.names))]
        told = [self.n - self.n_patients, sum(numbers) - self.n_patients]
        told += [self.n_patients - each for each in numbers]
        told += [count - each for count, each in zip(partition.counts, numbers, strict=True)]
        return None if any(0 < each < FEWEST for each in told) or not numbers else tuple(numbers)

    # --- what cells tell -----------------------------------------------------------------------------------------------

    def _sizes(self, codes: Numbers, n: int) -> Numbers:
        """The number of patients of each code."""
        pairs = np.unique(codes * max(self._n_patients, 1) + self.patients)
        return np.bincount(pairs // max(self._n_patients, 1), minlength=n)

    def _offender(self, codes: Numbers, n: int) -> int | None:
        """A cell of a division that would tell of a few patients, together with a division that is shown already.

        Two divisions tell a number exactly if cells of one together are known to contain cells of the other together. If the rest
        is of few patients, no part of both that is large lies across this border: it is enough to look at the groups of cells
        that have large parts in common.
        """
        cells = [_cell(codes == number) for number in range(n)]
        for shown in self._shown:
            common = np.array([[_ones(cell.bits & other.bits) for other in shown] for cell in cells])
            group = _groups(common, lambda row, column, a=cells, b=shown: self._few_bits(a[row].bits & b[column].bits))  # type: ignore[misc]
            for inside in _subsets(group):
                rows = [number for number in range(n) if group[number] in inside]
                columns = [number for number in range(len(shown)) if group[n + number] in inside]
                ours, theirs = _together(cells, rows), _together(shown, columns)
                if ours is None or theirs is None:
                    continue
                more, less = ours & ~theirs, theirs & ~ours
                if not (more.any() and less.any()) and (self._few_bits(more) or self._few_bits(less)):
                    return int(min(rows, key=lambda row: cells[row].size))
        return None

    def _few_bits(self, bits: Bits) -> bool:
        n = _ones(bits)
        if not 0 < n < FEWEST * self._most_of_one:
            return False
        return self.few(np.unpackbits(bits.view(np.uint8), count=self.n).astype(bool))

    def _registered(self, names: Sequence[str], codes: Numbers, *, has_others: bool = False) -> Partition:
        """A division that is shown."""
        cells = [_cell(codes == number) for number in range(len(names))]
        if len(cells) > 1:
            self._shown.append(cells)
        return Partition(tuple(names), tuple(each.size for each in cells), codes, has_others)


def _nothing(codes: Numbers) -> Partition:
    return Partition((), (), np.full(len(codes), -1, dtype=np.int64))


def _cell(mask: Mask) -> _Cell:
    packed = np.packbits(mask)
    bits = np.zeros(-(-len(packed) // 2) * 2, dtype=np.uint8)
    bits[: len(packed)] = packed
    return _Cell(bits.view(np.uint16), int(np.count_nonzero(mask)))


def _together(cells: Sequence[_Cell], chosen: Sequence[int]) -> Bits | None:
    """The recordings of some cells; None for none or all of them, which tell nothing."""
    if not 0 < len(chosen) < len(cells):
        return None
    return reduce(np.bitwise_or, (cells[each].bits for each in chosen))


def _groups(common: Numbers, is_few: Callable[[int, int], bool]) -> list[int]:
    """The number of each row's group, then of each column's: those are in one that have a large part in common."""
    n_rows, n_columns = common.shape
    group = list(range(n_rows + n_columns))
    for row, column in zip(*np.nonzero(common), strict=True):
        ours, theirs = group[row], group[n_rows + column]
        if ours != theirs and not is_few(row, column):
            group = [ours if each == theirs else each for each in group]
    return group


def _subsets(group: Sequence[int]) -> Iterator[set[int]]:
    """Sets of groups, each or the rest of each; of many groups only those of one or two."""
    names = sorted(set(group))
    most = len(names) // 2 if len(names) <= _MOST_GROUPS else 2
    for size in range(1, most + 1):
        yield from map(set, combinations(names, size))


def _ones(bits: Bits) -> int:
    return int(_ONES[bits].sum(dtype=np.int64))


def _span(names: Sequence[str], unknown: str | None) -> str:
    """
    >>> _span(["2 to 5", "5 to 10", "10 to 15"], None), _span(["2001", "2004", "not stated"], "not stated")
    ('2 to 15', '2001 to 2004 or not stated')
    """
    if len(names) > 1 and names[-1] == unknown:
        return f"{_span(names[:-1], None)} or {unknown}"
    if len(names) == 1:
        return names[0]
    return f"{names[0].partition(' to ')[0]} to {names[-1].rpartition(' to ')[2]}"
