"""The interface of stores: folders, object stores, memory.

In: names of objects, with parts joined by '/' and relative to the store's root. Out: their bytes and tags, or one of five errors.
`tests/storage/test_storage.py` is the test suite for every store.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from typing import BinaryIO

from ecgfounder.errors import StorageError


class Missing(StorageError):
    """The object does not exist."""


class Denied(StorageError):
    """Access to the object is not permitted; it may or may not exist."""


class Unavailable(StorageError):
    """The store does not answer, or answers with an error; the state of the object is unknown."""


class Conflict(StorageError):
    """The object already exists, or has changed."""


class Unreadable(StorageError):
    """The object is there, but its bytes cannot be had: it is in an archive that is damaged, encrypted or not safe to read."""


class Replaced(Unavailable):
    """The archive that holds the object was replaced after its index was read; nothing is known of its objects any more."""


@dataclass(frozen=True, slots=True)
class Status:
    """Facts about an object that are available without reading it.

    Attributes
    ----------
    name : str
        Relative to the store's root.
    size : int
        In bytes.
    tag : str
        Text that changes when the content changes (an object store's ETag).
    mtime_ns : int
        Time of the last modification, in ns since 1970.
    """

    name: str
    size: int
    tag: str
    mtime_ns: int


Skip = Callable[[str], bool]


def skip_none(_name: str) -> bool:
    """Skip no folder."""
    return False


def walk_order(name: str) -> list[tuple[bool, str]]:
    """A sort key: by name, with a folder's objects before those of its subfolders."""
    *folders, last = name.split("/")
    return [*((True, folder) for folder in folders), (False, last)]


def walk_text(name: str) -> str:
    """A text whose order is that of `walk_order`: NUL, which no name has, ends a folder's name and begins an object's."""
    folder, slash, last = name.rpartition("/")
    return (f"\1{folder}\0".replace("/", "\0\1") if slash else "") + f"\0{last}"


def name_of_walk_text(text: str) -> str:
    """The name of a text of `walk_text`."""
    folder, _, last = text.rpartition("\0")
    return f"{folder[1:-1]}/{last}".replace("\0\1", "/") if folder else last


def kept_below(folder: str, skip: Skip) -> Callable[[str], bool]:
    """Whether an object is in no folder to skip below another folder."""
    start = len(folder.strip("/")) + 1 if folder.strip("/") else 0
    return lambda name: not any(map(skip, name[start:].split("/")[:-1]))


class Store(ABC):
    """Objects by name. Thread-safe and picklable: connections are opened on use.

    Every method raises `StorageError`: `Missing`, `Denied` or `Unavailable`, `Conflict` where documented, and `Unreadable` for
    what is in an archive.
    """

    @abstractmethod
    def url(self, name: str) -> str:
        """The path or URL of an object, for messages and for `ecgfounder.storage.locate`."""

    @abstractmethod
    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        """Every object below a folder (`run` does not include `run2`); none if the folder does not exist.

        A folder's objects come first, by name, then those of its subfolders, by name.

        Parameters
        ----------
        skip : Skip, optional
            Whether to skip a folder of this name, with everything below it.
        """

    def unsorted(self, folder: str = "") -> Iterator[Status]:
        """The objects of `list` in any order; each is given as soon as the store has told it."""
        return self.list(folder)

    def names(self, folder: str = "", *, skip: Skip = skip_none, follow: bool = False) -> Iterator[str]:
        """The names of `list`, which may be cheaper; they may include objects that are not readable.

        Parameters
        ----------
        skip : Skip, optional
            Whether to skip a folder of this name, with everything below it.
        follow : bool, default: False
            Whether symbolic links to folders are followed, where a store has them; each folder is listed once.
        """
        return (status.name for status in self.list(folder, skip=skip))

    def is_folder(self, name: str) -> bool:
        """Whether a folder exists; in a store without folders, whether there is anything below the name."""
        return next(iter(self.list(name)), None) is not None

    @abstractmethod
    def status(self, name: str) -> Status:
        """Size, tag and time of an object."""

    @abstractmethod
    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        """Bytes [start, stop) of an object, fewer if it ends before; `Conflict` if `tag` is given and the content has changed."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> Status:
        """Write an object, replacing an existing one; when this returns, it survives a power cut."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> Status:
        """Write a new object atomically; of several simultaneous calls, one succeeds.

        Raises
        ------
        Conflict
            If the object exists.
        """

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Delete objects; missing ones are ignored."""

    def write(self, name: str, data: bytes | BinaryIO) -> str:
        """`put`, also of an open file's content; returns the tag alone, which takes one request less in an object store."""
        return self.put(name, data if isinstance(data, bytes) else data.read()).tag

    def claim(self, name: str, data: bytes) -> None:
        """`create`, which takes one request less in an object store because it returns nothing."""
        self.create(name, data)

    def fetch(self, name: str, most: int) -> tuple[Status, bytes | None]:
        """An object's status and its content at the same moment; None instead of content of more than `most` bytes."""
        status = self.status(name)
        return status, self.read(name, 0, status.size, tag=status.tag) if status.size <= most else None

    def open(self, name: str) -> BufferedReader:
        """Open an object for reading; pieces are read on demand, all of the same content."""
        return io.BufferedReader(RangedFile(self, name))


BLOCK_BYTES = 256 << 10
_BLOCKS_KEPT = 32
_MOST_AHEAD = 16


class RangedFile(io.RawIOBase):
    """An object read by ranges, with the tag that it had when it was opened; a change of the content raises `OSError`.

    Whole blocks are read, more of them at once while reading goes straight on, and the latest ones are kept.

    Attributes
    ----------
    trouble : StorageError or None
        The store's error behind an `OSError`, for libraries that pass on neither.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.trouble: StorageError | None = None
        self._store = store
        self._status = store.status(name)
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next = 0  # the block after those that were read last
        self._ahead = 1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._status.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._status.size)
        start = self._at
        while self._at < stop:
            number, first = divmod(self._at, BLOCK_BYTES)
            piece = memoryview(self._block(number, stop))[first : first + stop - self._at]
            view[self._at - start : self._at - start + len(piece)] = piece
            self._at += len(piece)
        return max(0, self._at - start) if stop > start else 0

    def _block(self, number: int, stop: int) -> bytes:
        """A block; if it is not at hand, it is read with those after it up to `stop`, and more ahead."""
        if number not in self._blocks:
            self._read(number, -(-stop // BLOCK_BYTES))
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _read(self, number: int, end: int) -> None:
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next else 1
        end = min(max(end, number + self._ahead), number + _BLOCKS_KEPT)
        start, stop = number * BLOCK_BYTES, min(end * BLOCK_BYTES, self._status.size)
        try:
            data = self._store.read(self._status.name, start, stop, tag=self._status.tag)
            if len(data) != stop - start:
                raise Conflict(f"{self._store.url(self._status.name)}: it changed while it was read")
        except StorageError as error:
            # A new error without frames: those hold what reads this file, HDF5's objects among them, and would never be freed.
            self.trouble = type(error)(str(error))
            raise OSError(str(error)) from error
        for at in range(0, len(data), BLOCK_BYTES):
            self._blocks[number] = data[at : at + BLOCK_BYTES]
            number += 1
        self._next = number
        while len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
