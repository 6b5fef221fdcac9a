"""A place in a store: what those who read and resume are handed, whether it is a folder here or an object elsewhere.

In: a path or a URL. Out: a `Location`; a scheme that is not known is refused, never taken for a folder's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from urllib.parse import unquote

from ecgfounder.errors import SettingsError
from ecgfounder.storage.local import LocalStore
from ecgfounder.storage.memory import MemoryStore
from ecgfounder.storage.store import Missing, Skip, Status, Store, skip_none

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

HERE = LocalStore()
"""The store of this machine's files."""


@dataclass(frozen=True, slots=True)
class Location:
    """A name in a store, of an object or of a folder of them.

    `str(location)` is the path or URL; `os.fspath(location)` the path, of a file on this machine only.
    """

    store: Store
    name: str

    def __str__(self) -> str:
        return self.store.url(self.name)

    def __fspath__(self) -> str:
        if not isinstance(self.store, LocalStore):
            raise TypeError(f"{self} is not a file of this machine")
        return self.store.path(self.name)

    def __truediv__(self, part: str) -> Location:
        return Location(self.store, f"{self.name}/{part}" if self.name else part)

    @property
    def is_local(self) -> bool:
        """Whether it is on a file system of this machine."""
        return isinstance(self.store, LocalStore)

    @property
    def path(self) -> Path:
        """The path of a file or folder on this machine.

        Raises
        ------
        TypeError
            If it is elsewhere.
        """
        return Path(os.fspath(self))

    @property
    def basename(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The basename's last dot and what follows it, or nothing; a dot at the start does not count."""
        return os.path.splitext(self.basename)[1]

    @property
    def stem(self) -> str:
        """The basename without its suffix."""
        return os.path.splitext(self.basename)[0]

    @property
    def folder(self) -> Location:
        """Where it lies."""
        return Location(self.store, self.name.rpartition("/")[0])

    def beside(self, basename: str) -> Location:
        """The object of another name in the same folder."""
        return self.folder / basename

    def list(self, *, skip: Skip = skip_none) -> Iterator[Status]:
        """`Store.list` of what is below it; names are relative to the store."""
        return self.store.list(self.name, skip=skip)

    def names(self, *, skip: Skip = skip_none) -> Iterator[str]:
        """`Store.names` of what is below it, as seen from here."""
        start = len(self.name) + 1 if self.name else 0
        return (name[start:] for name in self.store.names(self.name, skip=skip))

    def status(self) -> Status:
        """Size, tag and time of the object."""
        return self.store.status(self.name)

    def exists(self) -> bool:
        """Whether there is such an object."""
        try:
            self.store.status(self.name)
        except Missing:
            return False
        return True

    def read(self, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        """`Store.read` of the object."""
        return self.store.read(self.name, start, stop, tag=tag)

    def fetch(self, most: int) -> tuple[Status, bytes | None]:
        """`Store.fetch` of the object."""
        return self.store.fetch(self.name, most)

    def open(self) -> BufferedReader:
        """`Store.open` of the object."""
        return self.store.open(self.name)

    def put(self, data: bytes) -> Status:
        """`Store.put` of the object."""
        return self.store.put(self.name, data)

    def create(self, data: bytes) -> Status:
        """`Store.create` of the object."""
        return self.store.create(self.name, data)

    def delete(self, parts: Iterable[str]) -> None:
        """Remove objects below it."""
        self.store.delete((self / part).name for part in parts)


def is_url(text: str) -> bool:
    """Whether a text has the form of a URL, whatever its scheme."""
    return _SCHEME.match(text) is not None


def path_here(text: str | os.PathLike[str], parameter: str) -> Path:
    """The path of a file or folder on this machine: a path as it is, or what a `file://` URL names.

    Raises
    ------
    SettingsError
        If it is elsewhere, naming the parameter.
    """
    if not is_url(os.fspath(text)):
        return Path(text)
    place = locate(text)
    if not place.is_local:
        raise SettingsError(f"Invalid value for the {parameter!r} parameter. It must be on this machine, got {place}.")
    return place.path


def working_folder() -> str:
    """The working directory, which relative paths start from.

    Raises
    ------
    SettingsError
        If it is gone.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise SettingsError(
            f"The working directory is gone ({error.strerror}); expected one that relative paths can start from. Change to a "
            "folder that is there and start again."
        ) from error


def locate(place: str | os.PathLike[str] | Location) -> Location:
    """The location of a path or a URL (`file://`, `memory://`); relative paths start from the working directory.

    Raises
    ------
    SettingsError
        For a URL of a scheme that is not known, or a `file://` of another host.
    """
    if isinstance(place, Location):
        return place
    text = os.fspath(place)
    scheme = _SCHEME.match(text)
    if scheme is None:
        return Location(HERE, (text if text.startswith("/") else f"{working_folder()}/{text}").strip("/"))
    kind, rest = scheme[1].lower(), text[scheme.end() :]
    host, _, name = rest.partition("/")
    if kind == "memory":
        return Location(MemoryStore(host), name.strip("/"))
    if kind == "file" and host.lower() in ("", "localhost"):
        return Location(HERE, unquote(name, errors="surrogateescape").strip("/"))
    if kind == "file":
        raise SettingsError(
            f"{text}: a file:// URL names a file of this machine, file:///path, not one of host {host!r}"
        )
    raise SettingsError(
        f"{text}: {kind}:// is not supported; expected a path or file:///path. (Not taken for a folder called {kind!r}.)"
    )
