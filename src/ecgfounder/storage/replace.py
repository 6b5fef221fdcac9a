"""The one way in which a file takes its place: written aside, synced, renamed, its folder synced.

In: a target and what is to be in it. Out: the file under its name, whole and on disk; or an error, and what was there before.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import BufferedWriter
from pathlib import Path

FILES_AT_ONCE = 64
"""Files that are written before they are synced, at most."""


@contextmanager
def replacing(target: Path, *, aside: Path | None = None) -> Iterator[BufferedWriter]:
    """A file to write to that takes the place of `target` when the block ends well, and vanishes when it does not.

    When the block is left, the content is on disk, then the name.

    Parameters
    ----------
    target : the file's place; its folder is there.
    aside : where it is written, on the same file system; None takes a hidden name beside its place.

    Raises
    ------
    OSError
        If it cannot be written; what was there before stays.
    """
    aside = aside or _beside(target)
    try:
        with open(aside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
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

    One step after the other for all: files that are written while another one is synced wait for the file system's journal,
    which takes several times as long.

    Parameters
    ----------
    files : targets below `root`, and what gives the content of each. Folders between are made; `root` itself never is: if it
        has vanished, that is an error and not a fresh start.
    aside : where a target is written before it takes its place.

    Returns
    -------
    list
        For each file the error that kept it from its place, or None where it is there and on disk.
    """
    errors: list[OSError | None] = []
    folders: set[Path] = set()
    for first in range(0, len(files), FILES_AT_ONCE):
        errors += _replace_some(files[first : first + FILES_AT_ONCE], root, aside, folders)
    for folder in folders:
        sync_folder(folder)
    return errors


def _replace_some(
    files: Sequence[tuple[Path, Callable[[], bytes]]],
    root: Path,
    aside: Callable[[Path], Path],
    folders: set[Path],
) -> list[OSError | None]:
    """Write and rename a few files; adds the folders that are to be synced."""
    errors: list[OSError | None] = [None] * len(files)
    moves: list[tuple[int, Path, Path]] = []
    with ExitStack() as opened:
        written = []
        for number, (target, content) in enumerate(files):
            beside = aside(target)
            try:
                folders |= make_folders(root, target.parent)
                file = opened.enter_context(open(beside, "wb"))
                file.write(content())
                file.flush()
            except OSError as error:
                errors[number] = error
                continue
            written.append(file)
            moves.append((number, beside, target))
        for file in written:
            os.fsync(file.fileno())
    for number, beside, target in moves:
        try:
            os.replace(beside, target)
        except OSError as error:
            errors[number] = error
            beside.unlink(missing_ok=True)
            continue
        folders.add(target.parent)
    return errors


def make_folders(root: Path, folder: Path) -> set[Path]:
    """Make the folders between `root` and `folder`; returns those that got a new entry and need a sync."""
    missing: list[Path] = []
    at = folder
    while at != root and not at.is_dir():
        missing.append(at)
        at = at.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return {each.parent for each in missing}


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries (renames, new files) are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:200]}.{uuid.uuid4().hex[:8]}.part")
