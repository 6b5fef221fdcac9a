"""The one interface to whatever keeps bytes: a folder, an object store, memory.

In: names of objects, joined by '/' and relative to the store's root. Out: their bytes and tags, or one of four errors.
`tests/storage/test_storage.py` is the suite that every store passes.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader

from ecgfounder.errors import StorageError


class Missing(StorageError):
    """There is no such object."""


class Denied(StorageError):
    """The object is there, or may be, and must not be touched."""


class Unavailable(StorageError):
    """The store does not answer, or answers with an error of its own: nothing is known of the object."""


class Conflict(StorageError):
    """The object is there already, or is not the one that it was."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a store knows of an object without reading it.

    Attributes
    ----------
    name : str
        Relative to the store's root.
    size : int
        In bytes.
    tag : str
        Text that is another one when the content is another one (an object store's ETag).
    mtime_ns : int
        When it was last written, in ns since 1970.
    """

    name: str
    size: int
    tag: str
    mtime_ns: int


Skip = Callable[[str], bool]


def skip_none(_name: str) -> bool:
    """Leave no folder out."""
    return False


def walk_order(name: str) -> list[tuple[bool, str]]:
    """A sort key that puts a folder's objects before those of its subfolders, both by name."""
    *folders, last = name.split("/")
    return [*((True, folder) for folder in folders), (False, last)]


class Store(ABC):
    """Objects by name. Safe to use from several threads, and picklable: connections are opened where it is used.

    Every method raises `StorageError`: `Missing`, `Denied` or `Unavailable`, and `Conflict` where it says so.
    """

    @abstractmethod
    def url(self, name: str) -> str:
        """How an object is written for people and for `ecgfounder.storage.locate`: a path or a URL."""

    @abstractmethod
    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        """Every object below a folder (`run` has nothing to do with `run2`); none where there is no such folder.

        A folder's own objects come together, by name, before those of its subfolders, which come by name too.

        Parameters
        ----------
        skip : Skip, optional
            Folders, by their last names, that are left out with all that is below them.
        """

    def names(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[str]:
        """The names that `list` gives, where it is cheaper to know no more; what turns out not to be readable among them."""
        return (status.name for status in self.list(folder, skip=skip))

    @abstractmethod
    def status(self, name: str) -> Status:
        """Size, tag and time of an object."""

    @abstractmethod
    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        """Bytes [start, stop) of an object, fewer where it ends before; with `tag`, of that very content or `Conflict`."""

    @abstractmethod
    def put(self, name: str, data: bytes) -> Status:
        """Write an object whole, in the place of one that is there; when this returns, it survives a power cut."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> Status:
        """Write an object that is not there yet, whole or not at all; of several that try at once, one succeeds.

        Raises
        ------
        Conflict
            If it is there.
        """

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are as good as removed."""

    def fetch(self, name: str, most: int) -> tuple[Status, bytes | None]:
        """An object's status and its whole content, of one moment; None instead of content that is larger than `most` bytes."""
        status = self.status(name)
        return status, self.read(name, 0, status.size, tag=status.tag) if status.size <= most else None

    def open(self, name: str) -> BufferedReader:
        """An object as a file for reading: pieces are read as they are asked for, all of one content."""
        return io.BufferedReader(RangedFile(self, name))


class RangedFile(io.RawIOBase):
    """An object read by ranges, all under the tag that it had when it was opened; content that changes is an `OSError`."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._status = store.status(name)
        self._at = 0

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
        stop = min(self._at + len(buffer), self._status.size)
        if stop <= self._at:
            return 0
        try:
            data = self._store.read(self._status.name, self._at, stop, tag=self._status.tag)
        except StorageError as error:
            raise OSError(str(error)) from error
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
