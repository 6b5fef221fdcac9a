"""Temporary folders. If a process is killed, its folders are removed by the next process that makes one.

Out: a folder that only this user can read. The kernel's lock on a file in it says that it is in use.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path

PREFIX = "ecgfounder-"
_LOCK = ".in-use"


def make_temporary_folder() -> tuple[Path, Callable[[], None]]:
    """A new folder, and the function that removes it.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    _remove_left_ones()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    return folder, partial(_remove, folder, _held(folder))


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder, which is removed at the end of the block."""
    folder, remove = make_temporary_folder()
    try:
        yield folder
    finally:
        remove()


def _held(folder: Path) -> int:
    """A descriptor with the lock. On a file system without locks, nobody else removes the folder."""
    aside = folder / f"{_LOCK}-soon"
    descriptor = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.rename(aside, folder / _LOCK)  # it gets its name when it is locked
    return descriptor


def _remove(folder: Path, descriptor: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


@cache  # once in a process
def _remove_left_ones() -> None:
    """Remove this user's folders whose processes have ended without removing them."""
    with suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    _remove_if_left(Path(entry.path))


def _remove_if_left(folder: Path) -> None:
    if folder.lstat().st_uid != os.geteuid():
        return
    # A folder without this file is another program's, or is being made.
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)
