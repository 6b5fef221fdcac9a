"""The index of an archive: names, places and sizes of its members, in arrays of about 40 bytes each and the names.

In: the members' names and columns of numbers. Out: a `Members`, in which a name is found by bisection.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ecgfounder.storage.store import Skip, Unreadable, kept_below, name_of_walk_text, walk_text

STORED, DEFLATED = 0, 8
"""Methods of storing a member that are read; the numbers up to 99 are those of the ZIP format."""

ENCRYPTED, LINK, SPARSE, SPECIAL, TWICE, UNTRUE = range(1000, 1006)
"""Kinds of members that are not read."""

MOST_MEMBERS = 20_000_000

_REFUSED = {
    ENCRYPTED: "it is encrypted in the archive; unpack the archive and use the folder",
    LINK: "it is a link in the archive; links are not followed",
    SPARSE: "it is a sparse file in the archive; unpack the archive and use the folder",
    SPECIAL: "it is no regular file in the archive",
    TWICE: "the archive has several members of this name",
    UNTRUE: "its sizes in the archive's directory cannot be true",
}
_ZIP_METHODS = {
    1: "shrink",
    6: "implode",
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "XZ",
    98: "PPMd",
}
_COLUMNS = {
    "offset": np.uint64,
    "packed": np.uint64,
    "size": np.uint64,
    "crc": np.uint32,
    "method": np.uint16,
    "header": np.int32,
    "mtime_ns": np.int64,
}
_ODD_PARTS = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)")


class Member(NamedTuple):
    """Where a member is, and what is said of it.

    Attributes
    ----------
    offset : int
        Where its header begins, or, without a header, its bytes.
    packed, size : int
        Bytes in the archive, and unpacked.
    crc : int
        CRC-32 of the unpacked bytes; only of members with a header.
    method : int
        `STORED`, `DEFLATED`, or what is not read.
    header : int
        Length of its name in its header; -1 without a header (tar).
    mtime_ns : int
        Time of the last modification, in ns since 1970.
    """

    offset: int
    packed: int
    size: int
    crc: int
    method: int
    header: int
    mtime_ns: int

    def require_readable(self) -> None:
        """Refuse a member that is not read.

        Raises
        ------
        Unreadable
            With the reason.
        """
        if self.method in (STORED, DEFLATED):
            return
        method = _ZIP_METHODS.get(self.method, f"number {self.method}")
        raise Unreadable(
            _REFUSED.get(self.method)
            or f"it is compressed with a method that is not read ({method}); unpack the archive and use the folder"
        )


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


def key_of(name: str) -> bytes:
    """The key of a name; keys have the order of `walk_order`."""
    return walk_text(name).encode("utf-8", "surrogatepass")


def name_of(key: bytes) -> str:
    """The name of a key."""
    return name_of_walk_text(key.decode("utf-8", "surrogatepass"))


def folder_key(folder: str) -> bytes:
    """What the keys of all members below a folder begin with."""
    return ("\1" + folder.replace("/", "\0\1") + "\0").encode("utf-8", "surrogatepass")


def plain_name(name: str, number: int) -> str:
    """A member's name, without '.' and empty parts; `number` is the member's, from 1.

    Raises
    ------
    Unreadable
        If the name is not one of a file in the archive's own folder; the message does not quote it.
    """
    if "\0" in name or name.startswith("/") or not name:
        what = "is absolute" if name.startswith("/") else "is none" if not name else "contains a NUL character"
        raise Unreadable(f"the name of member {number:,} {what}; such an archive is not read")
    if not _ODD_PARTS.search(name):
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise Unreadable(f"the name of member {number:,} leads out of the archive ('..'); such an archive is not read")
    return "/".join(parts)


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
