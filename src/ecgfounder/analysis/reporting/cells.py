"""Counts that may be shown: no cell of fewer than `FEWEST` patients, and none that other cells tell.

In: values of recordings, and the patient of each. Out: `Partition`s whose cells may be shown.

A count tells more than itself: a total minus the other rows of its table, or the difference of two counts of which one is known
to contain the other (the recordings of a format, and those of the devices that write it). So each table is a division of all
recordings into cells that are all large enough, small ones put together; and no cells of it together may contain cells of another
table together, or be contained in them, with a rest of a few patients. Of tables of two cells (a flag, a statement, a label), any
number that exclude each other are looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ecgfounder.analysis.reporting.sides import Mask, Sides
from ecgfounder.analysis.statistics.solver import Numbers
from ecgfounder.results.small_cells import FEWEST, OTHERS, rare_values

MOST_CELLS = 20
"""Rows of a table; the values that are less frequent are put together."""

_MOST_SETS = 10
"""Groups of cells of which all sets are looked at; of more, each one and each two with what they lead to, and all but them."""


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
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    codes: Numbers

    def __bool__(self) -> bool:
        return bool(self.names)


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
        self._shown: list[tuple[npt.NDArray[np.int32], int]] = []
        self._totals: list[Numbers] = []
        self._sides = Sides(self.few)
        self._of_patients: Cells | None = None

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
        return 0 < n < self.largest_few and self.size(mask) < FEWEST

    def size(self, mask: Mask) -> int:
        """The number of patients of some recordings."""
        there = np.zeros(self._n_patients, dtype=bool)
        there[self.patients[mask]] = True
        return int(np.count_nonzero(there))

    # --- divisions -----------------------------------------------------------------------------------------------------

    def by_name(self, names: Sequence[str], codes: Numbers, most: int = MOST_CELLS) -> Partition:
        """A division by values that have no order; `codes` are the number of each recording's value among `names`."""
        counts = np.bincount(codes, minlength=len(names))
        enough = self._enough(codes, len(names))
        there = np.flatnonzero(counts).tolist()
        ordered = sorted(there, key=lambda each: (-counts[each], names[each]))
        listed = ordered if len(ordered) <= most + 1 else ordered[:most]
        pooled = set(ordered) - {each for each in listed if enough[each]}
        trial: Trial | None = None
        place = np.zeros(len(names), dtype=np.int64)
        while True:
            alone, others = self._divided(ordered, codes, len(names), pooled)
            if not alone:
                return _nothing(codes)
            if trial is None:  # the values that are put together now stay together
                fine = np.full(len(names), len(alone))
                fine[alone] = np.arange(len(alone))
                trial, first = Trial(self, fine[codes], len(alone) + bool(others)), list(alone)
            place[others] = len(alone)
            place[alone] = np.arange(len(alone))
            coarse = np.array([place[each] for each in first] + [len(alone)] * (trial.n - len(first)), dtype=np.int64)
            offender = trial.offender(coarse, len(alone) + bool(others))
            if offender is None:
                break
            pooled = {*others, alone[min(offender, len(alone) - 1)]}
        shown = [names[each] for each in alone] + ([OTHERS] if others else [])
        return self._registered(shown, place[codes])

    def _divided(self, ordered: list[int], codes: Numbers, n: int, pooled: set[int]) -> tuple[list[int], list[int]]:
        """The values that are shown alone, and those that are put together."""

        def size_of(values: Sequence[int]) -> int:
            if len(values) == 1:
                return 0 if values[0] in pooled else FEWEST
            chosen = np.zeros(n, dtype=bool)
            chosen[list(values)] = True
            return self.size(chosen[codes])

        others = rare_values(ordered, size_of)
        inside = set(others)
        return [value for value in ordered if value not in inside], others

    def by_order(self, names: Sequence[str], codes: Numbers, unknown: str | None = None) -> Partition:
        """A division by values in an order, of which neighbours are put together.

        The name of neighbours is made of the first name and the last, or of their ends, if they are intervals "2 to 5". The first
        ones and the last ones have no other end than that of the next group: the extreme value may be that of one patient. The
        value `unknown` is outside of the order and comes last.
        """
        counts = np.bincount(codes, minlength=len(names))
        groups = [[int(each)] for each in np.flatnonzero(counts)]
        place = np.zeros(len(names), dtype=np.int64)
        trial = Trial(self, codes, len(names))
        while len(groups) > 1:
            for number, group in enumerate(groups):
                place[group] = number
            offender = trial.offender(place, len(groups))
            if offender is None:
                break
            numbers = [int(counts[group].sum()) for group in groups]
            beside = (each for each in (offender - 1, offender + 1) if 0 <= each < len(groups))
            other = min(beside, key=lambda each: numbers[each])
            first, second = sorted((offender, other))
            groups[first : second + 1] = [groups[first] + groups[second]]
        if not groups or not self.are_enough or (len(groups) == 1 and len(groups[0]) > 1):
            return _nothing(codes)  # all values together are not the same value
        for number, group in enumerate(groups):
            place[group] = number
        shown = _spans([[names[each] for each in group] for group in groups], unknown)
        return self._registered(shown, place[codes])

    def of(self, mask: Mask) -> int | None:
        """The number of some recordings; None if it may not be shown."""
        n = int(np.count_nonzero(mask))
        if not self.are_enough or self.few(mask) or self.few(~mask):
            return None
        if 0 < n < self.n:
            codes = 1 - mask.astype(np.int64)
            if Trial(self, codes, 2).offender(np.arange(2), 2) is not None:
                return None
            if not self._registered(["", ""], codes):
                return None
        return n

    def show(self, codes: Numbers, n: int) -> None:
        """Remember a division that has no offender and is shown."""
        used = np.bincount(codes, minlength=n) > 0
        self._registered([""] * int(used.sum()), (np.cumsum(used) - 1)[codes])

    def patients_by(self, partition: Partition) -> tuple[int, ...] | None:
        """The number of patients in each cell.

        None if it would tell how few patients are in several cells, not in one, in one and not in that of another partition, or
        have several recordings.
        """
        who = [
            np.bincount(self.patients[partition.codes == n], minlength=self.n_patients) > 0
            for n in range(len(partition.names))
        ]
        numbers = [int(np.count_nonzero(each)) for each in who]
        told = [self.n - self.n_patients, sum(numbers) - self.n_patients]
        told += [count - each for count, each in zip(partition.counts, numbers, strict=True)]
        if not numbers or any(0 < each < FEWEST for each in told):
            return None
        if self._of_patients is None:
            self._of_patients = Cells(np.arange(self.n_patients))
        return None if any(self._of_patients.of(each) is None for each in who) else tuple(numbers)

    def _enough(self, codes: Numbers, n: int) -> Mask:
        """Whether each code has enough patients: bool [n]."""
        counts = np.bincount(codes, minlength=n)
        enough = counts >= self.largest_few
        unsure = ~enough & (counts >= FEWEST)
        if unsure.any():
            rows = np.flatnonzero(unsure[codes])
            pairs = np.unique(codes[rows] * self._n_patients + self.patients[rows])
            enough |= np.bincount(pairs // self._n_patients, minlength=n) >= FEWEST
        return enough

    @property
    def largest_few(self) -> int:
        """So many recordings, and more, are of enough patients, whoever they are of."""
        return FEWEST * self._most_of_one

    def _registered(self, names: Sequence[str], codes: Numbers) -> Partition:
        """A division that is shown, unless it has two cells that with others tell of few."""
        if len(names) == 2 and not self._sides.accept(codes == 0, self.largest_few):
            return _nothing(codes)
        counts = np.bincount(codes, minlength=len(names))
        if len(names) > 1:
            self._shown.append((codes.astype(np.int32), len(names)))
            self._totals.append(counts)
        return Partition(tuple(names), tuple(counts.tolist()), codes)


class Trial:
    """A division that is made coarser until it may be shown.

    Two divisions tell a number exactly if cells of one together are known to contain cells of the other together. If the rest is
    of few patients, no large part that two cells have in common lies across this border: cells with large parts in common are on
    the same side of it. What is contained in what is read off the parts that cells have in common.

    Parameters
    ----------
    cells : Cells
        What is shown already.
    codes : numpy.ndarray
        int64 [n]: the finest cell of each recording.
    n : int
        The number of finest cells.
    """

    def __init__(self, cells: Cells, codes: Numbers, n: int) -> None:
        self._cells, self._codes, self.n = cells, codes, n
        self._counts = np.bincount(codes, minlength=n)
        largest = int(self._counts.argmax()) if n else 0
        rest = np.flatnonzero(codes != largest)  # what the largest cell has in common is what remains
        of_rest = codes[rest]
        self._common: list[Numbers] = []
        for others, m in cells._shown:
            common = np.bincount(of_rest * m + others[rest], minlength=n * m).reshape(n, m)
            common[largest] = cells._totals[len(self._common)] - common.sum(axis=0)
            self._common.append(common)
        self._large: dict[int, Mask] = {}

    def offender(self, coarse: Numbers, n: int) -> int | None:
        """A cell that may not be shown: of few patients, or one by which a division that is shown tells of few.

        Parameters
        ----------
        coarse : numpy.ndarray
            int64 [finest cells]: the cell that each finest one belongs to now.
        n : int
            The number of cells now.
        """
        counts = np.bincount(coarse, weights=self._counts, minlength=n).astype(np.int64)
        for cell in np.flatnonzero((counts > 0) & (counts < self._cells.largest_few)):
            if self._cells.few(coarse[self._codes] == cell):
                return int(cell)
        if np.count_nonzero(counts) < 2:
            return None
        for number, (others, m) in enumerate(self._cells._shown):
            common = np.zeros((n, m), dtype=np.int64)
            np.add.at(common, coarse, self._common[number])
            large = common >= self._cells.largest_few
            if ((common >= FEWEST) & ~large).any() and not _is_one(large):
                np.maximum.at(large, coarse, self._large_parts(number))
            for rows, columns in self._borders(common, large):
                ours, theirs = np.isin(coarse[self._codes], rows), np.isin(others, columns)
                if self._cells.few(ours ^ theirs):
                    return int(min(rows, key=lambda row: (counts[row] or self._cells.n, row)))
        return None

    def _large_parts(self, number: int) -> Mask:
        """Whether each finest cell has enough patients in common with each of a division that is shown."""
        if number not in self._large:
            others, m = self._cells._shown[number]
            self._large[number] = self._cells._enough(self._codes * m + others, self.n * m).reshape(self.n, m)
        return self._large[number]

    def _borders(self, common: Numbers, large: Mask) -> Iterator[tuple[Numbers, Numbers]]:
        """Cells of both divisions, of which one's together contain the other's together, with a rest that may be small."""
        n = len(common)
        n_groups, group = _groups(large)
        between = np.zeros((n_groups, n_groups), dtype=np.int64)
        np.add.at(between, (group[:n, None], group[None, n:]), common)
        np.fill_diagonal(between, 0)
        for inside in _closed_sets(between > 0):
            rest = int(between[np.ix_(~inside, inside)].sum())
            rows, columns = np.flatnonzero(inside[group[:n]]), np.flatnonzero(inside[group[n:]])
            if 0 < rest < self._cells.largest_few and len(columns) > 0 and len(rows) > 0:
                yield rows, columns


def _groups(large: Mask) -> tuple[int, Numbers]:
    """The number of groups of rows and columns that large parts connect; the group of each row, then of each column."""
    n, m = large.shape
    rows, columns = np.nonzero(large)
    links = csr_array((np.ones(len(rows), dtype=np.int8), (rows, n + columns)), shape=(n + m, n + m))
    n_groups, group = connected_components(links, directed=False)
    return int(n_groups), np.asarray(group, dtype=np.int64)


def _is_one(large: Mask) -> bool:
    return _groups(large)[0] == 1


def _closed_sets(leads_to: Mask) -> Iterator[Mask]:
    """Sets of nodes that no edge leaves, other than none and all.

    >>> import numpy as np
    >>> [each.tolist() for each in _closed_sets(np.array([[False, True], [False, False]]))]
    [[False, True]]
    """
    if len(leads_to) == 1:
        return
    n_parts, part = connected_components(csr_array(leads_to.astype(np.int8)), directed=True, connection="strong")
    if n_parts == 1:
        return
    starts, ends = np.nonzero(leads_to)
    edges = np.zeros((n_parts, n_parts), dtype=bool)
    edges[part[starts], part[ends]] = True
    reach = edges | np.eye(n_parts, dtype=bool)
    for _ in range(int(np.ceil(np.log2(n_parts))) + 1):
        reach = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
    sets: dict[bytes, Mask] = {}
    most = n_parts if n_parts <= _MOST_SETS else 2
    for size in range(1, most + 1):
        for chosen in combinations(range(n_parts), size):
            found: Mask = np.any(reach[list(chosen)], axis=0)
            sets.setdefault(found.tobytes(), found)
            if most < n_parts:
                apart: Mask = ~np.any(reach[:, list(chosen)], axis=1)  # all but what leads to the chosen ones
                sets.setdefault(apart.tobytes(), apart)
    yield from (found[part] for found in sets.values() if found.any() and not found.all())


def _nothing(codes: Numbers) -> Partition:
    return Partition((), (), np.full(len(codes), -1, dtype=np.int64))


def _spans(groups: Sequence[Sequence[str]], unknown: str | None) -> list[str]:
    """The names of groups of neighbours.

    >>> _spans([["2 to 5", "5 to 10"], ["10 to 15", "15 to 20"], ["20 to 25"], ["25 to 30", "40 to 50"]], None)
    ['… to 10', '10 to 20', '20 to 25', '25 to …']
    >>> _spans([["1931", "1970"], ["1971", "1972"], ["1999", "not stated"]], "not stated")
    ['under 1971', '1971 to 1972', 'over 1972 or not stated']
    """
    known = [[name for name in group if name != unknown] for group in groups]
    n = sum(map(bool, known))
    found = []
    for number, group in enumerate(groups):
        inside = known[number]
        before, after = (known[number - 1] if number else []), (known[number + 1] if number + 1 < n else [])
        names = [] if not inside else inside if len(group) == 1 else [_span(inside, before, after)]
        found.append(" or ".join([*names, *group[len(inside) :]]))
    return found


def _span(names: Sequence[str], before: Sequence[str], after: Sequence[str]) -> str:
    """The name of values together, between those of the groups before and after them."""
    if not before and not after:
        return "any value"
    first, last = names[0].partition(" to ")[0], names[-1].rpartition(" to ")[2]
    if before and after:
        return f"{first} to {last}" if len(names) > 1 else names[0]
    is_interval = " to " in names[0]
    if after:
        return f"… to {after[0].partition(' to ')[0]}" if is_interval else f"under {after[0]}"
    return f"{before[-1].rpartition(' to ')[2]} to …" if is_interval else f"over {before[-1]}"
