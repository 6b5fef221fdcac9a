"""The memory that jobs of reading processes may hold together.

In: what processes ask for, and when their jobs end. Out: which of them may go on.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Asker = TypeVar("Asker", bound=Hashable)


class Memory(Generic[Asker]):
    """Who holds how much memory for its job, and who waits.

    Each process asks for all that its job needs, and may ask again when it knows better. It goes on when its need fits beside
    what the others hold. One goes on in any case: the one whose job holds memory for the longest, or, if no job holds any, the
    one that has asked first. So a job that needs more than the limit runs alone, and no two wait for each other.

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[Asker, int] = {}  # in the order in which they began to hold memory
        self._asked: dict[Asker, int] = {}  # in the order in which they asked

    def ask(self, who: Asker, need: int) -> None:
        """Note that a process waits until it may hold `need` bytes in all."""
        self._asked[who] = need

    def release(self, who: Asker) -> None:
        """Note that a process's job has ended."""
        self._held.pop(who, None)
        self._asked.pop(who, None)

    def waits(self, who: Asker) -> bool:
        return who in self._asked

    @property
    def is_short(self) -> bool:
        """Whether anyone waits."""
        return bool(self._asked)

    def is_at_the_start(self, who: Asker) -> bool:
        """Whether it waits, and its job holds no memory yet."""
        return who in self._asked and who not in self._held

    def granted(self, *, ending: bool = False) -> list[Asker]:
        """Those who wait and may go on now; their need counts as held from here on. None at the start of its job if `ending`."""
        if not self._asked:
            return []
        granted = []
        again = [who for who in self._held if who in self._asked]
        for who in (*again, *(who for who in self._asked if who not in self._held and not ending)):
            others = sum(self._held.values()) - self._held.get(who, 0)
            if others + self._asked[who] <= self._limit or next(iter(self._held), who) == who:
                self._held[who] = self._asked[who]
                granted.append(who)
            elif who not in self._held:
                break  # those who ask after it must not keep it waiting for ever
        for who in granted:
            del self._asked[who]
        return granted
