"""A location in a store: a file or folder on this machine, or an object elsewhere.

In: a path or a URL. Out: a `Location`. An unknown URL scheme is refused; it is never read as a folder's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from ecgfounder.checks import check_folder
from ecgfounder.errors import SettingsError, StorageError
from ecgfounder.storage.archives import ArchiveStore
from ecgfounder.storage.hub import HUB_SCHEME, HubStore, hub_location
from ecgfounder.storage.local import LocalStore
from ecgfounder.storage.memory import MemoryStore
from ecgfounder.storage.objects import SCHEMES, object_location
from ecgfounder.storage.options import NO_OPTIONS, StorageOptions
from ecgfounder.storage.paths import ARCHIVE_SUFFIXES, path_within, split_archive
from ecgfounder.storage.store import Denied, Missing, Skip, Status, Store, skip_none

_COMPRESSED = re.compile(r"(.+\.)(tar\.(?:gz|bz2|xz|zst)|tgz|tbz2?|txz|tzst)(?:::.*)?", re.IGNORECASE | re.DOTALL)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

HERE = LocalStore()
"""The store of files on this machine."""


@dataclass(frozen=True, slots=True)
class Location:
    """The name of an object or folder in a store.

    `str(location)` is the path or URL; `os.fspath(location)` is the path, only for files on this machine.
    """

    store: Store
    name: str

    def __str__(self) -> str:
        return self.store.url(self.name)

    def __fspath__(self) -> str:
        if not isinstance(self.store, LocalStore):
            raise TypeError(f"{self} is not a file on this machine")
        return self.store.path(self.name)

    def __truediv__(self, part: str) -> Location:
        return Location(self.store, f"{self.name}/{part}" if self.name else part)

    @property
    def is_local(self) -> bool:
        """Whether the location is on a file system of this machine."""
        return isinstance(self.store, LocalStore)

    @property
    def archive(self) -> Location | None:
        """The ZIP or tar archive that it is in; None for other locations."""
        return Location(self.store.inside, self.store.archive) if isinstance(self.store, ArchiveStore) else None

    @property
    def is_here(self) -> bool:
        """Whether it is on a file system of this machine, or in an archive there."""
        return isinstance(self.store.inside if isinstance(self.store, ArchiveStore) else self.store, LocalStore)

    @property
    def path(self) -> Path:
        """The path of a file or folder on this machine.

        Raises
        ------
        TypeError
            If the location is in another store.
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
        """The folder that contains it."""
        return Location(self.store, self.name.rpartition("/")[0])

    def beside(self, basename: str) -> Location:
        """The object with another name in the same folder."""
        return self.folder / basename

    def list(self, *, skip: Skip = skip_none) -> Iterator[Status]:
        """`Store.list` of this folder; names are relative to the store."""
        return self.store.list(self.name, skip=skip)

    def names(self, *, skip: Skip = skip_none, follow: bool = False) -> Iterator[str]:
        """`Store.names` of this folder; names are relative to the folder."""
        start = len(self.name) + 1 if self.name else 0
        return (name[start:] for name in self.store.names(self.name, skip=skip, follow=follow))

    def is_folder(self) -> bool:
        """`Store.is_folder` of this location."""
        return self.store.is_folder(self.name)

    def status(self) -> Status:
        """Size, tag and time of the object."""
        return self.store.status(self.name)

    def exists(self) -> bool:
        """Whether the object exists."""
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

    def write(self, data: bytes | BinaryIO) -> str:
        """`Store.write` of the object."""
        return self.store.write(self.name, data)

    def claim(self, data: bytes) -> None:
        """`Store.claim` of the object."""
        self.store.claim(self.name, data)

    def delete(self, parts: Iterable[str]) -> None:
        """Delete objects below this location."""
        self.store.delete((self / part).name for part in parts)


def is_url(text: str) -> bool:
    """Whether a text has the form of a URL, whatever its scheme."""
    return _SCHEME.match(text) is not None


def bucket_of(url: str) -> str:
    """The part of an object's URL that names its bucket, or its repository on the Hugging Face Hub."""
    scheme, _, rest = url.partition("://")
    parts = 1 if scheme.lower() != HUB_SCHEME else 3 if rest.startswith("datasets/") else 2
    return f"{scheme}://" + "/".join(rest.split("/", parts)[:parts])


def path_here(text: str | os.PathLike[str], parameter: str) -> Path:
    """The path of a file or folder on this machine, from a path or a `file://` URL, for what only exists there (outputs).

    Raises
    ------
    SettingsError
        If it is not on this machine; the message names the parameter.
    """
    if not is_url(os.fspath(text)):
        return Path(text)
    _refuse_objects(os.fspath(text))
    place = locate(text)
    if not place.is_local:
        raise SettingsError(f"Invalid value for the {parameter!r} parameter. It must be on this machine, got {place}.")
    return place.path


def folder_text(text: str | os.PathLike[str], options: StorageOptions = NO_OPTIONS) -> str:
    """The absolute path of a folder on this machine, or the URL of one elsewhere without a slash at its end.

    An archive's file is a folder too: 'study.zip' gives '/path/study.zip::'.

    Raises
    ------
    SettingsError
        As `locate` does.
    """
    place = locate_folder(text, options)
    return os.path.abspath(place.path) if place.is_local else str(place).rstrip("/")


def require_folder(folder: str, parameter: str, options: StorageOptions = NO_OPTIONS) -> None:
    """Refuse a folder that does not exist; one in a store that may not be listed is accepted.

    Parameters
    ----------
    folder : str
        A text of `folder_text`.
    parameter : str
        Named in the message.

    Raises
    ------
    SettingsError
        If it does not exist.
    StorageError
        If a store does not answer.
    """
    place = locate_folder(folder, options)
    if place.is_local:
        check_folder(parameter, folder)
        return
    try:
        exists = place.is_folder()
    except Denied:
        return
    except StorageError as error:
        raise type(error)(f"{folder.removesuffix('::')}: {error}") from error
    if not exists:
        raise SettingsError(
            f"Invalid value for the {parameter!r} parameter. It must be an existing folder, got {folder}: there is nothing "
            "below it."
        )


def locate_output(place: str | os.PathLike[str] | Location, options: StorageOptions = NO_OPTIONS) -> Location:
    """`locate`, for outputs.

    Raises
    ------
    SettingsError
        As `locate` does, and for a place in an archive or on the Hugging Face Hub.
    """
    found = locate(place, options)
    if isinstance(found.store, HubStore):
        raise SettingsError(f"{found}: outputs are not written to repositories of the Hugging Face Hub")
    if found.archive is not None:
        raise SettingsError(f"{found}: outputs are not written to archives")
    return found


def output_place(text: str | os.PathLike[str], options: StorageOptions = NO_OPTIONS) -> Path | Location:
    """A folder for outputs: a path on this machine, or a location in an object store.

    Raises
    ------
    SettingsError
        As `locate_output` does.
    """
    place = locate_output(text, options)
    if not is_url(os.fspath(text)):
        return Path(text)
    return place.path if place.is_local else place


def _refuse_objects(text: str) -> None:
    scheme = _SCHEME.match(text)
    if scheme is not None and scheme[1].lower() in (*SCHEMES, HUB_SCHEME):
        raise _unsupported(text, scheme[1].lower())


def working_folder() -> str:
    """The working directory, from which relative paths start.

    Raises
    ------
    SettingsError
        If it no longer exists.
    """
    try:
        return os.getcwd()
    except OSError as error:
        raise SettingsError(
            f"The working directory no longer exists ({error.strerror}); relative paths start from it. Change to an existing "
            "folder and start again."
        ) from error


def _in_working_folder(text: str) -> str:
    """The absolute path of a relative one, without its '.' parts; '..' stays, because it may follow a symbolic link."""
    return "/".join([working_folder(), *(part for part in text.split("/") if part not in ("", "."))])


def names_archive(text: str) -> bool:
    """Whether a path is that of an archive, or of something in one, by its suffix."""
    whole = text.lower().endswith(ARCHIVE_SUFFIXES) or _COMPRESSED.fullmatch(text) is not None
    return whole or split_archive(text)[1] is not None


def locate_folder(place: str | os.PathLike[str] | Location, options: StorageOptions = NO_OPTIONS) -> Location:
    """`locate` of a folder; the file of an archive is the folder of what is in it.

    Raises
    ------
    SettingsError
        As `locate` does, and for a compressed tar archive.
    """
    if not isinstance(place, Location):
        text = os.fspath(place)
        _refuse_compressed(text)
        place = locate(text, options)
        is_archive = text.lower().endswith(ARCHIVE_SUFFIXES) and place.archive is None
        if is_archive and (not place.is_local or os.path.isfile(place)):
            return Location(ArchiveStore(place.store, place.name), "")
    return place


def _refuse_compressed(text: str) -> None:
    found = _COMPRESSED.fullmatch(text)
    if found is None or (not is_url(text) and os.path.isdir(text)):
        return
    raise SettingsError(
        f"{text}: a compressed tar archive ({found[2]}) cannot be read in place, because what is in its middle needs all before "
        "it. Unpack it and use the folder: mkdir FOLDER && tar -xf ARCHIVE -C FOLDER"
    )


def _member_location(archive: str, name: str, options: StorageOptions) -> Location | None:
    """The location of a path in an archive; None if the archive is no file of this machine, nor in another store."""
    whole = locate(archive, options)
    if whole.is_local and not os.path.isfile(whole):
        return None
    if whole.archive is not None or split_archive(name)[1] is not None or name.lower().endswith(ARCHIVE_SUFFIXES):
        raise SettingsError(f"{archive}::{name}: an archive in an archive is not read; unpack the outer one")
    name = unquote(name, errors="surrogateescape") if archive.lower().startswith("file://") else name
    return Location(ArchiveStore(whole.store, whole.name), path_within(name))


def locate(place: str | os.PathLike[str] | Location, options: StorageOptions = NO_OPTIONS) -> Location:
    """The location of a path or a URL (`file://`, `s3://`, `gs://`, `az://`, `hf://`, `memory://`).

    What follows '.zip::' or '.tar::' is a name in that archive, except in a path of this machine whose archive is no file.
    Relative paths are relative to the working directory. The key of an object is taken as it is written: nothing in it is an
    escape or a query.

    Raises
    ------
    SettingsError
        For a URL of an unknown scheme, a `file://` URL of another host, or an object's URL without a bucket or repository, or
        with a key that cannot be named.
    MissingDependencyError
        If the URL needs a package that is not installed.
    """
    if isinstance(place, Location):
        return place
    text = os.fspath(place)
    archive, name = split_archive(text)
    if name is not None and (member := _member_location(archive, name, options)) is not None:
        return member
    scheme = _SCHEME.match(text)
    if scheme is None:
        if "::" in text:
            _refuse_compressed(text)
        return Location(HERE, (text if text.startswith("/") else _in_working_folder(text)).strip("/"))
    kind, rest = scheme[1].lower(), text[scheme.end() :]
    host, _, name = rest.partition("/")
    if kind in SCHEMES:
        return Location(*object_location(text, kind, rest, options))
    if kind == HUB_SCHEME:
        return Location(*hub_location(text, rest))
    if kind == "memory":
        return Location(MemoryStore(host), name.strip("/"))
    if kind == "file" and host.lower() in ("", "localhost"):
        return Location(HERE, unquote(name, errors="surrogateescape").strip("/"))
    if kind == "file":
        raise SettingsError(
            f"{text}: a file:// URL names a file of this machine, file:///path, not one of host {host!r}"
        )
    raise _unsupported(text, kind)


def _unsupported(text: str, scheme: str) -> SettingsError:
    return SettingsError(
        f"{text}: {scheme}:// is not supported; expected a path or file:///path. (It is not read as a folder called {scheme!r}.)"
    )
