"""The store for files on this machine's file systems, including network drives.

In: names below a root folder. Out: bytes; errors of the operating system are converted to those of a store.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from ecgfounder.errors import StorageError
from ecgfounder.storage.replace import make_folders, replace_file, sync, sync_folder, take_free_place
from ecgfounder.storage.store import Conflict, Denied, Missing, Skip, Status, Store, Unavailable, skip_none

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO}  # ENXIO: a socket
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


@dataclass(frozen=True)
class LocalStore(Store):
    """Files below `root`; "/" for any file on the machine."""

    root: str = "/"

    def url(self, name: str) -> str:
        return self.path(name)

    def path(self, name: str) -> str:
        """The file's path."""
        return f"/{name}" if self.root == "/" else f"{self.root}/{name}"

    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        for name in self.names(folder, skip=skip):
            try:
                status = os.stat(self.path(name))
            except OSError:
                continue  # deleted meanwhile, or a dangling symbolic link
            if stat.S_ISREG(status.st_mode):
                yield _status(name, status)

    def names(self, folder: str = "", *, skip: Skip = skip_none, follow: bool = False) -> Iterator[str]:
        pending = [folder.strip("/")]
        links = _Links(self.path(pending[0])) if follow else None
        while pending:
            at = pending.pop()
            if links is not None and not links.enter(self.path(at)):
                continue
            below = f"{at}/" if at else ""
            try:
                with os.scandir(self.path(at)) as entries:
                    found = [(entry.name, _is_folder(entry, links)) for entry in entries]
            except ValueError:  # a NUL in the name
                continue
            except OSError as error:
                if error.errno in _MISSING:
                    continue
                raise _kind_of(error)(f"{self.path(at)} cannot be listed: {error.strerror or error}") from error
            found.sort()
            yield from (below + name for name, is_folder in found if not is_folder)
            pending += [below + name for name, is_folder in reversed(found) if is_folder and not skip(name)]

    def is_folder(self, name: str) -> bool:
        return os.path.isdir(self.path(name))

    def status(self, name: str) -> Status:
        with _told(name):
            status = os.stat(self.path(name))
        if not stat.S_ISREG(status.st_mode):
            raise Missing(f"{self.path(name)}: not a regular file")
        return _status(name, status)

    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        with _told(name), self.open(name) as file:
            if tag is not None and _status(name, os.fstat(file.fileno())).tag != tag:
                raise Conflict(f"{self.path(name)}: it changed while it was read")
            file.seek(start)
            data = file.read() if stop is None else file.read(max(0, stop - start))
            if tag is not None and _status(name, os.fstat(file.fileno())).tag != tag:
                raise Conflict(f"{self.path(name)}: it changed while it was read")
            return data

    def fetch(self, name: str, most: int) -> tuple[Status, bytes | None]:
        with _told(name):
            descriptor, status = self._opened(name)
            try:
                content = _read(descriptor, status.st_size) if status.st_size <= most else None
            finally:
                os.close(descriptor)
        return _status(name, status), content

    def open(self, name: str) -> BufferedReader:
        """Open a regular file for reading; FIFOs, devices, sockets and folders are refused without blocking."""
        with _told(name):
            descriptor, _status = self._opened(name)
            try:
                return os.fdopen(descriptor, "rb")
            except BaseException:
                os.close(descriptor)
                raise

    def _opened(self, name: str) -> tuple[int, os.stat_result]:
        """A regular file's descriptor, and its status."""
        # O_NONBLOCK: otherwise, opening a FIFO without a writer would block.
        descriptor = os.open(self.path(name), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Missing("not a regular file")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, status

    def put(self, name: str, data: bytes) -> Status:
        target = Path(self.path(name))
        with _told(name):
            self._make_folders(target)
            replace_file(target, data)
        return self.status(name)

    def create(self, name: str, data: bytes) -> Status:
        target = Path(self.path(name))
        with _told(name):
            self._make_folders(target)
            aside = target.with_name(f".{uuid.uuid4().hex}.part")
            try:
                with open(aside, "xb") as file:
                    file.write(data)
                    file.flush()
                    sync(file.fileno())
                take_free_place(aside, target)
            finally:
                aside.unlink(missing_ok=True)
            sync_folder(target.parent)
        return self.status(name)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(Missing), _told(name):
                os.unlink(self.path(name))

    def _make_folders(self, target: Path) -> None:
        root = Path(self.root)
        for folder in make_folders(root, target.parent):
            sync_folder(folder)


class _Links:
    """Which symbolic links a listing follows, so that it lists each folder once.

    A link to a folder below the root is not followed, since that folder is listed under its own name; nor is a link to a
    folder around the root.
    """

    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._entered: set[tuple[int, int]] = set()

    def follow(self, path: str) -> bool:
        """Whether to follow the link at a path."""
        target = os.path.realpath(path)
        return os.path.isdir(target) and not _is_below(target, self._root) and not _is_below(self._root, target)

    def enter(self, path: str) -> bool:
        """Whether a folder has not been entered before, by this name or another."""
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return True  # the listing itself finds out what is wrong
        known = (status.st_dev, status.st_ino) in self._entered
        self._entered.add((status.st_dev, status.st_ino))
        return not known


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_folder(entry: os.DirEntry[str], links: _Links | None) -> bool:
    return entry.is_dir(follow_symlinks=False) or (
        links is not None and entry.is_symlink() and links.follow(entry.path)
    )


def _read(descriptor: int, size: int) -> bytes:
    """The first `size` bytes of a file, or all if it has become shorter."""
    content = os.read(descriptor, size)
    if len(content) == size:
        return content
    parts = [content]
    while parts[-1] and sum(map(len, parts)) < size:  # a network drive may give less than was asked for
        parts.append(os.read(descriptor, size - sum(map(len, parts))))
    return b"".join(parts)


def _status(name: str, status: os.stat_result) -> Status:
    return Status(
        name, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}-{status.st_ino:x}", status.st_mtime_ns
    )


class _told:
    """Convert errors of the operating system to those of a store, with the system's message as the reason.

    As a generator, it would take as long as a system call.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, FileExistsError):
            raise Conflict(f"{self._name}: it already exists") from error
        if isinstance(error, ValueError):  # a NUL character in the name
            raise Missing(f"not a valid path: {error}") from error
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise _kind_of(error)(error.strerror or str(error)) from error


def _kind_of(error: OSError) -> type[StorageError]:
    return Missing if error.errno in _MISSING else Denied if error.errno in _DENIED else Unavailable
