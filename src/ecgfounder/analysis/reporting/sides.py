"""Numbers that exclusive sets tell: those of several sets without anything in common, and of what they leave of all.

In: the sets that are shown, each with its complement, because the total is known. Out: whether another set may be shown, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

_MOST_FAMILIES = 5000
"""So many sets of sets are looked at; if there are more, the set is taken for one that may not be shown."""


class Sides:
    """Sets of which the numbers are shown, and their complements.

    Parameters
    ----------
    few : callable
        Whether some recordings, but not none, are of too few patients.
    """

    def __init__(self, few: Callable[[Mask], bool]) -> None:
        self._few = few
        self._sides: list[Mask] = []
        self._sizes: list[int] = []
        self._apart: list[set[int]] = []

    def accept(self, mask: Mask, most: int) -> bool:
        """Whether a set may be shown; it is remembered then. `most`: so many recordings, and more, are not few."""
        common = [int(np.count_nonzero(mask & side)) for side in self._sides]
        size = int(np.count_nonzero(mask))
        if any(each == size == other for each, other in zip(common, self._sizes, strict=True)):
            return True  # it is there already
        apart = {each for each, n in enumerate(common) if n == 0}
        inside = {each for each, n in enumerate(common) if n == self._sizes[each]}
        if self._leaves_few(mask, apart, most) or self._leaves_few(~mask, inside, most):
            return False
        first = len(self._sides)
        self._sides += [mask, ~mask]
        self._sizes += [size, len(mask) - size]
        self._apart += [apart | {first + 1}, inside | {first}]
        for new, others in ((first, apart), (first + 1, inside)):
            for each in others:
                self._apart[each].add(new)
        return True

    def _leaves_few(self, mask: Mask, apart: set[int], most: int) -> bool:
        """Whether a set, with some that have nothing in common with it or each other, leaves recordings of few patients."""
        ordered = sorted(apart, key=lambda each: -self._sizes[each])
        families = self._families((), ordered, int(np.count_nonzero(~mask)), most)
        for number, (chosen, left) in enumerate(islice(families, _MOST_FAMILIES)):
            if 0 < left < most and self._few(~np.logical_or.reduce([mask, *(self._sides[each] for each in chosen)])):
                return True
            if number == _MOST_FAMILIES - 1:
                return True
        return False

    def _families(
        self, chosen: tuple[int, ...], further: list[int], left: int, most: int
    ) -> Iterator[tuple[tuple[int, ...], int]]:
        """Chosen sets, and how many recordings they leave, of which it is possible that they leave few."""
        yield chosen, left
        possible = sum(self._sizes[each] for each in further)
        for number, each in enumerate(further):
            if left - possible >= most:
                return
            possible -= self._sizes[each]
            beside = [other for other in further[number + 1 :] if other in self._apart[each]]
            yield from self._families((*chosen, each), beside, left - self._sizes[each], most)
