"""Atomic replacement of files: written to a temporary file, synced, renamed, the folder synced.

In: a target and its new content. Out: the complete file under its name, synced to disk; or an error, and the previous file.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedWriter
from pathlib import Path
from typing import BinaryIO

from ecgfounder.machine import usable_cores

log = logging.getLogger("ecgfounder")

_NOT_OFFERED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
"""Errors of fsync on a file system that does not offer it: for folders (CIFS, some FUSE file systems) or for all files."""

_NO_LINKS = {
    errno.EPERM,
    errno.EACCES,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EXDEV,
    errno.EINVAL,
}
_CLAIM_SECONDS = 5.0
"""Maximum time between two steps of `take_free_place` on a file system without hard links (s)."""

FILES_AT_ONCE = 64
"""Maximum number of files that are written before they are synced."""

_MOST_THREADS = 4
_FILES_PER_THREAD = 8  # fewer are not worth a thread


@contextmanager
def replacing(target: Path, *, aside: Path | None = None) -> Iterator[BufferedWriter]:
    """A temporary file that replaces `target` when the block ends without an error, and is removed otherwise.

    At the end of the block the content is synced, then the file is renamed and the folder is synced.

    Parameters
    ----------
    target : Path
        The file to replace; its folder must exist.
    aside : Path, optional
        The temporary file, on the same file system; None for a hidden file in the same folder.

    Raises
    ------
    OSError
        If it cannot be written; a previous file is kept.
    """
    aside = aside or _beside(target)
    try:
        with open(aside, "wb", opener=_own) as file:
            yield file
            file.flush()
            sync(file.fileno())
        os.replace(aside, target)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def replace_file(target: Path, data: bytes, *, aside: Path | None = None) -> None:
    """`replacing`, for content that is in memory."""
    with replacing(target, aside=aside) as file:
        file.write(data)


def replace_files(
    files: Sequence[tuple[Path, Callable[[], bytes]]], root: Path, aside: Callable[[Path], Path]
) -> list[OSError | None]:
    """Replace several files, with one sync of each folder for all of them.

    Each step is done for all files before the next step: writing a file while another one is synced waits for the file system's
    journal, which takes several times as long. Several threads write many files, and sync them.

    Parameters
    ----------
    files : sequence of tuple of (Path, callable)
        Targets below `root`, and a function for the content of each, which may be called in another thread. Missing folders
        between are made, but not `root`: if it no longer exists, that is an error.
    aside : callable
        Gives the temporary file of a target.

    Returns
    -------
    list
        For each file its error, or None if it was replaced and synced.
    """
    errors: list[OSError | None] = []
    folders: set[Path] = set()
    # No further ones on few cores, where they would take from what else the run does.
    n_threads = max(1, min(_MOST_THREADS, usable_cores() // 2, len(files) // _FILES_PER_THREAD))
    for first in range(0, len(files), FILES_AT_ONCE):
        errors += _replace_some(files[first : first + FILES_AT_ONCE], root, aside, folders, n_threads)
    for folder in folders:
        sync_folder(folder)
    return errors


def _replace_some(
    files: Sequence[tuple[Path, Callable[[], bytes]]],
    root: Path,
    aside: Callable[[Path], Path],
    folders: set[Path],
    n_threads: int,
) -> list[OSError | None]:
    """Write and rename some files; adds the folders to sync to a set."""
    errors: list[OSError | None] = [None] * len(files)
    asides = [aside(target) for target, _ in files]
    written: dict[int, BinaryIO] = {}

    def write(number: int) -> None:
        try:
            written[number] = _written(asides[number], files[number][1]())
        except OSError as error:
            errors[number] = error

    def settle(number: int) -> None:
        try:
            with written[number] as file:
                sync(file.fileno())
        except OSError as error:
            errors[number] = error

    for number, (target, _) in enumerate(files):
        try:
            refuse_link(root, target.parent)
            folders |= make_folders(root, target.parent)
        except OSError as error:
            errors[number] = error
    try:
        _each(write, [number for number, error in enumerate(errors) if error is None], n_threads)
        _each(settle, sorted(written), n_threads)
    except BaseException:
        for file in list(written.values()):
            file.close()
        raise
    for number, (target, _) in enumerate(files):
        if errors[number] is None:
            try:
                os.replace(asides[number], target)
                folders.add(target.parent)
                continue
            except OSError as error:
                errors[number] = error
        with suppress(OSError):
            asides[number].unlink(missing_ok=True)
    return errors


def _each(step: Callable[[int], None], numbers: Sequence[int], n_threads: int) -> None:
    """Do a step for each number, in this thread and others.

    After an error in any of them no further step is begun, and those in progress are waited for before it is raised.
    """
    left = deque(numbers)
    errors: list[BaseException] = []

    def work() -> None:
        with suppress(IndexError):
            while True:
                number = left.popleft()
                try:
                    step(number)
                except BaseException as error:  # noqa: BLE001 - raised below, in the caller's thread
                    errors.append(error)
                    left.clear()

    helpers = [threading.Thread(target=work, name="ecgfounder-file", daemon=True) for _ in range(n_threads - 1)]
    try:
        with suppress(RuntimeError):  # no more threads: the system's limit, or the program is ending
            for helper in helpers:
                helper.start()
        work()
    finally:
        left.clear()
        for helper in helpers:
            if helper.is_alive():
                helper.join()
    if errors:
        raise errors[0]


def _written(path: Path, content: bytes) -> BinaryIO:
    """Write a file and leave it open, so that it can be synced."""
    file = open(path, "wb", buffering=0, opener=_own)  # noqa: SIM115 - the caller's to close
    try:
        left = memoryview(content)
        while left:
            left = left[file.write(left) :]
    except BaseException:
        file.close()
        raise
    return file


def take_free_place(aside: Path, target: Path) -> None:
    """Give a file its name if no other file has it: by a hard link which, unlike a rename, never replaces an existing file.

    On a file system without hard links, by a rename under a claim that only one process can have at a time.
    """
    try:
        os.link(aside, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return
    claim = target.with_name(f".{target.name}.claim")
    _claim(claim)
    try:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.replace(aside, target)
    finally:
        claim.unlink(missing_ok=True)


def _claim(claim: Path) -> None:
    """Make a claim, a file that must not exist; one that is not removed in time was left by a process that was killed."""
    patience = time.monotonic() + _CLAIM_SECONDS
    while True:
        try:
            os.close(os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return
        except FileExistsError:
            time.sleep(0.01)
            if time.monotonic() > patience:
                claim.unlink(missing_ok=True)
                patience = time.monotonic() + _CLAIM_SECONDS


def _own(path: str, flags: int) -> int:
    """Open a file for writing; a symbolic link is not followed."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)  # minus the umask


def link_between(root: Path, folder: Path) -> Path | None:
    """The first symbolic link in the path from `root` to a folder below it; None if there is none."""
    at = root
    for part in folder.relative_to(root).parts:
        at /= part
        if at.is_symlink():
            return at
    return None


def refuse_link(root: Path, folder: Path) -> None:
    """Refuse to write to a folder below `root` through a symbolic link.

    Raises
    ------
    OSError
        ELOOP, if there is a link.
    """
    link = link_between(root, folder)
    if link is not None:
        raise OSError(errno.ELOOP, "nothing is written through a symbolic link", str(link))


def make_folders(root: Path, folder: Path) -> set[Path]:
    """Make the folders between `root` and `folder`; returns those with a new entry, which need a sync."""
    missing: list[Path] = []
    at = folder
    while at != root and not at.is_dir():
        missing.append(at)
        at = at.parent
    for each in reversed(missing):
        try:
            each.mkdir(exist_ok=True)
        except FileExistsError as error:  # a file in its place
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each)) from error
    return {each.parent for each in missing}


def reserve(path: Path) -> None:
    """Take the disk space of a file that has its size and not yet its content, such as a new memory map.

    Without it, a process that writes to the map when the disk is full is ended by SIGBUS.

    Raises
    ------
    OSError
        If there is not enough space.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # file systems that cannot
            raise
    finally:
        os.close(descriptor)


def place_folder(aside: Path, target: Path) -> None:
    """Rename a complete folder to its place; if another process was faster, its folder stays, and `aside` too."""
    try:
        os.replace(aside, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries (renames, new files) are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until a file or folder is on disk; if the file system does not offer this, warn once.

    Raises
    ------
    OSError
        If it could not be written.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        _tell_unsynced(error.strerror or str(error))


@cache
def _tell_unsynced(reason: str) -> None:
    log.warning(
        "The file system of the output folder cannot confirm that data is on disk (fsync: %s). The run continues. After a power "
        "cut, the outputs that were written last may be lost although the ledger lists them.",
        reason,
    )


def _beside(target: Path) -> Path:
    return target.with_name(f".{uuid.uuid4().hex}.part")
