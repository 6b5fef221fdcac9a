"""The index of an archive: names, places and sizes of its members, in arrays of about 40 bytes each and the names.

In: the members' names and columns of numbers. Out: a `Members`, in which a name is found by bisection.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ecgfounder.storage.members import TWICE, Member, folder_key, name_of
from ecgfounder.storage.store import Skip, kept_below

MOST_MEMBERS = 20_000_000

_COLUMNS = {
    "offset": np.uint64,
    "packed": np.uint64,
    "size": np.uint64,
    "crc": np.uint32,
    "method": np.uint16,
    "header": np.int32,
    "mtime_ns": np.int64,
}


@dataclass(frozen=True)
class Members:
    """The members of an archive, in the order of `walk_order`.

    Attributes
    ----------
    tag : str
        The archive's tag when it was indexed.
    keys : bytes
        The members' keys (`key_of`), one after the other.
    starts : numpy.ndarray
        uint64 [n + 1], where each key begins.
    columns : dict of str to numpy.ndarray
        The attributes of `Member`, [n] each.
    """

    tag: str
    keys: bytes
    starts: npt.NDArray[np.uint64]
    columns: Mapping[str, npt.NDArray[np.generic]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def key(self, number: int) -> bytes:
        """The key of a member by its number."""
        starts = self.starts.data  # much faster than an element of an array
        return self.keys[starts[number] : starts[number + 1]]

    def member(self, number: int) -> Member:
        """A member by its number."""
        return Member(*(self.columns[name].data[number] for name in Member._fields))

    def find(self, key: bytes) -> Member | None:
        """The member with a key."""
        number = self.first(key)
        return self.member(number) if number < len(self) and self.key(number) == key else None

    def first(self, key: bytes) -> int:
        """The number of the first member whose key is not less."""
        return bisect_left(range(len(self)), key, key=self.key)

    def below(self, folder: str) -> range:
        """The numbers of the members below a folder."""
        at = folder.strip("/")
        return self.beginning_with(folder_key(at)) if at else range(len(self))

    def named_from(self, start: bytes, length: int, most: int) -> dict[bytes, Member] | None:
        """The members whose keys begin so, by their keys without the first `length` bytes; None if they are more than `most`."""
        found: dict[bytes, Member] = {}
        for number in range(self.first(start), len(self)):
            key = self.key(number)
            if not key.startswith(start):
                break
            if len(found) == most:
                return None
            found[key[length:]] = self.member(number)
        return found

    def beginning_with(self, start: bytes) -> range:
        """The numbers of the members whose keys begin so; the beginning must end with a byte below 255."""
        return range(self.first(start), self.first(start[:-1] + bytes([start[-1] + 1])))

    def listed(self, folder: str, skip: Skip) -> Iterator[tuple[int, str]]:
        """Numbers and names of the members below a folder, without those in folders to skip."""
        kept = kept_below(folder, skip)
        for number in self.below(folder):
            name = name_of(self.key(number))
            if kept(name):
                yield number, name


def members_of(
    tag: str, keys: list[bytes], columns: Mapping[str, Sequence[int] | npt.NDArray[np.generic]], *, latest: bool
) -> Members:
    """An index from the members in any order.

    Parameters
    ----------
    tag : str
        The archive's tag.
    keys : list of bytes
        The key of each member's name.
    columns : mapping
        The attributes of `Member`, by name.
    latest : bool
        Whether the last of several members with one name counts, as in a tar that was appended to; else none is read.
    """
    arrays = {name: np.asarray(columns[name], kind) for name, kind in _COLUMNS.items()}
    if not all(first < second for first, second in pairwise(keys)):
        order = np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)  # stable: the latest is the last
        keys = [keys[number] for number in order.tolist()]
        is_last = np.array([first != second for first, second in pairwise(keys)] + [True] * bool(keys), np.bool_)
        if not latest:
            arrays["method"][order[np.flatnonzero(~is_last) + 1]] = TWICE
        kept = np.flatnonzero(is_last)
        arrays = {name: array[order[kept]] for name, array in arrays.items()}
        keys = [keys[number] for number in kept.tolist()]
    starts = np.zeros(len(keys) + 1, np.uint64)
    np.cumsum(np.fromiter(map(len, keys), np.uint64, len(keys)), out=starts[1:])
    return Members(tag, b"".join(keys), starts, arrays)
