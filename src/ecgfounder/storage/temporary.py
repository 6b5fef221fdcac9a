"""Temporary folders. If a process is killed, its folders are removed by the next process that makes one.

Out: a folder that only this user can read. The kernel's lock on it says that it is in use.
"""

from __future__ import annotations

import fcntl
import os
import platform
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
    try:
        descriptor = _held(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, partial(_remove, folder, descriptor)


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
    try:
        (folder / _MARK).write_text(platform.node())  # from now on, no lock means no process of this machine
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _remove(folder: Path, descriptor: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(descriptor)


def _remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


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
        if (
            folder / _MARK
        ).read_text() == platform.node():  # else it is another program's or machine's, or is being made
            for path in folder.iterdir():
                if path.name != _MARK:  # it goes last: this process may be killed too
                    _remove_path(path)
            shutil.rmtree(folder)
    finally:
        os.close(descriptor)
