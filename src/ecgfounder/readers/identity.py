"""The identity of the files of a recording, to detect later changes: size, time and hash; and which files it lacks.

In: a `Source` that was read. Out: its `Identity`, for the ledger; or the names of its files that do not exist.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable

from ecgfounder.ecg.facts import Identity
from ecgfounder.errors import ReadError, StorageError
from ecgfounder.readers.source import Source, as_read_error, open_file
from ecgfounder.storage import Location, Status
from ecgfounder.storage.paths import printable


def identity_of(source: Source) -> Identity:
    """The identity of the files of one recording: that of the bytes that were read, even if the files have changed since.

    Raises
    ------
    ReadError
        If a file that a library read has changed since, or can no longer be read.
    """
    digest = hashlib.sha256()
    seen: list[Status] = []
    for location in source.files:
        status, whole = _read_as(source, location)
        seen.append(status)
        digest.update(whole)
    return Identity(
        size=sum(status.size for status in seen),
        mtime_ns=max((status.mtime_ns for status in seen), default=0),
        sha256=digest.hexdigest() if source.member is None else None,
        tag=tag_of(source, seen),
        companions=tuple(_companion_name(source, location) for location in source.companions),
    )


def tag_of(source: Source, seen: Iterable[Status]) -> str | None:
    """The tags of a recording's files, which change with their contents; None on this machine, where times tell."""
    return None if source.location.is_local else " ".join(status.tag for status in seen)


def _read_as(source: Source, location: Location) -> tuple[Status, bytes]:
    """A file's status and SHA-256 when it was read; it is empty for a member of a container, which is not read completely."""
    if location == source.location and source.small is not None:
        status, content = source.small
        return status, hashlib.sha256(content).digest()
    seen = source.seen.get(location)
    if seen is not None and seen.sha256 is not None:
        return seen.status, seen.sha256
    whole = b""
    if source.member is None:
        with open_file(location) as file:
            whole = hashlib.file_digest(file, "sha256").digest()
    with as_read_error(location):
        status = location.status()
    if seen is not None and (seen.status.tag, seen.status.size) != (status.tag, status.size):
        raise ReadError("the file was changed while it was read")
    return status, whole


def _companion_name(source: Source, location: Location) -> str:
    """A companion's name, relative to the recording's folder; '*' stands for the recording's name, which is not repeated."""
    folder, _, name = location.name.rpartition("/")
    if folder != source.location.folder.name:
        name = posixpath.relpath(location.name, source.location.folder.name or ".")
    name = printable(name)
    stem = printable(source.location.stem)
    if name.startswith(stem):
        return f"*{name.removeprefix(stem)}"
    return name if not name.startswith("*") else f"./{name}"


def companions_of(source: Source, names: Iterable[str]) -> list[Location]:
    """The locations of an identity's `companions`."""
    folder, stem = source.location.folder, source.location.stem
    return [folder / (f"{stem}{name[1:]}" if name.startswith("*") else name) for name in names]


ITSELF = ""
"""In `absent_from`, the file at the recording's own path."""


def absent_from(source: Source) -> tuple[str, ...]:
    """The files that a recording needs and that do not exist, after reading it has failed.

    Returns
    -------
    tuple of str
        `ITSELF` for the file at its path, which is also absent if it is no regular file; companions are named as in
        `Identity.companions`. Files that cannot be asked for (no permission, no answer) are not among them.
    """
    lacks_itself = (ITSELF,) if _is_absent(source.location) and _is_absent(_header_beside(source)) else ()
    lacking = (_companion_name(source, location) for location in source.companions if _is_absent(location))
    return lacks_itself or tuple(lacking)


def are_there(source: Source, names: Iterable[str]) -> bool:
    """Whether all files exist now that `absent_from` named."""
    named = tuple(names)
    itself = ITSELF not in named or source.location.exists() or _header_beside(source).exists()
    return itself and all(each.exists() for each in companions_of(source, (name for name in named if name != ITSELF)))


def _header_beside(source: Source) -> Location:
    """The header of a WFDB record that is named without a suffix."""
    return source.location.beside(f"{source.location.basename}.hea")


def _is_absent(location: Location) -> bool:
    try:
        return not location.exists()
    except StorageError:
        return False
