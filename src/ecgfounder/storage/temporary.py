"""Temporary folders. If a process is killed, its folders are removed by the next process that makes one.

Out: a folder that only this user can read. The kernel's lock on it says that it is in use.
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
_MARK = ".made-by-ecgfounder"


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
    """A descriptor of the folder with the lock. On a file system without locks, nobody else removes the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    (folder / _MARK).touch()  # from now on, no lock means no process
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
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if (folder / _MARK).exists():  # else it is another program's, or is being made
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)
