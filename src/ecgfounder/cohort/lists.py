"""Lists of recordings without columns: PhysioNet's RECORDS files, text files of paths, and patterns.

In: a list's location, or a pattern. Out: paths. Lists are read line by line.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import takewhile

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import CohortError
from ecgfounder.storage import Location
from ecgfounder.storage.paths import KNOWN_SUFFIXES, printable

LIST_SUFFIX = ".txt"


_RECORDS = re.compile(r"RECORDS(?:[-_][^./]*)?")
"""Names of PhysioNet's lists: RECORDS, RECORDS-waveforms."""


_WILD = re.compile(r"[*?\[]")


_MAC_FOLDER = "__MACOSX"
"""A folder that macOS adds to archives, with no file of theirs in it."""


MOST_PATH_BYTES = 4096
"""Longest path of a list."""


_DEEPEST_RECORDS = 8
"""How many lists may lead from one to the next."""


_NUMBERS = re.compile(rb"\s*(?:[-+]?\d*\.\d+|[-+.\deE]+(?:[\s,;|]+[-+.\deE]+)+[\s,;|]*)\s*")
"""A line of samples; one whole number may be the name of a recording."""


def is_records(name: str) -> bool:
    """Whether a path is that of a list of PhysioNet's, by its name."""
    return _RECORDS.fullmatch(name.rpartition("/")[2].rpartition("::")[2]) is not None


def is_list(name: str) -> bool:
    """Whether a path is that of a list, by its name."""
    return is_records(name) or name.lower().endswith(LIST_SUFFIX)


def is_pattern(name: str) -> bool:
    """Whether a path has a wildcard."""
    return _WILD.search(name) is not None


def is_left_out(folder: str) -> bool:
    """Whether no recordings are looked for in a folder of this name."""
    return folder.startswith(".") or folder in (RUN_FOLDER, _MAC_FOLDER)


def listed(place: Location) -> Iterator[str]:
    """The paths of a list: of a text file as they are; of a RECORDS file, the places of the headers.

    Raises
    ------
    CohortError
        If it is empty or no list, or a name of a RECORDS file leads out of its folder.
    StorageError
        If it cannot be read.
    """
    found = False
    for path in _records(place, 0, set()) if is_records(place.basename) else map(os.fsdecode, _lines(place)):
        found = True
        yield path
    if not found:
        raise CohortError(f"{place}: the list is empty")


def _lines(place: Location) -> Iterator[bytes]:
    """The lines that are not empty."""
    shown = printable(str(place))
    try:
        with place.open() as file:
            number = 0
            while line := file.readline(MOST_PATH_BYTES + 2):
                number += 1
                line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                path = line.rstrip(b"\r\n")
                if len(path) > MOST_PATH_BYTES or b"\0" in path:
                    raise CohortError(f"{shown}: line {number} is no path; a list has one path in a line")
                if number == 1 and place.suffix and _NUMBERS.fullmatch(path):
                    raise CohortError(
                        f"{shown}: a list of paths was expected, and line {number} holds numbers. A recording in a text file is "
                        "read if a list, a table or its folder names it"
                    )
                if path.strip():
                    yield path.strip()
    except OSError as error:
        raise CohortError(f"{shown}: {error.strerror or error}") from error


def _records(place: Location, depth: int, seen: set[str]) -> Iterator[str]:
    """The recordings of a RECORDS file; a name that ends in a slash is a folder with such a file of its own.

    Each file is read once: `seen` has those that were read.
    """
    seen.add(place.name)
    for line in _lines(place):
        name = os.fsdecode(line)
        folder = place.folder
        inner = posixpath.normpath(name)
        if name.startswith("/") or "::" in name or inner.split("/")[0] == "..":
            raise CohortError(f"{printable(str(place))}: a name in it leads out of its folder")
        if not name.endswith("/"):
            suffix = os.path.splitext(name)[1].lower()
            yield str(folder / (inner if suffix in KNOWN_SUFFIXES else f"{inner}.hea"))
        elif depth == _DEEPEST_RECORDS:
            raise CohortError(
                f"{printable(str(place))}: more than {_DEEPEST_RECORDS} RECORDS files lead from one to the next"
            )
        else:
            other = (folder if inner == "." else folder / inner) / "RECORDS"
            if other.name not in seen:
                yield from _records(other, depth + 1, seen)


def pattern_folder(pattern: Location) -> Location:
    """The folder before a pattern's first wildcard."""
    parts = pattern.name.split("/")
    return Location(pattern.store, "/".join(takewhile(lambda part: not is_pattern(part), parts)))


def matching(pattern: Location) -> Iterator[str]:
    """Names of the files that match a pattern, below `pattern_folder`, in sorted order.

    '*' and '?' stand for characters other than '/', and a part '**' for any number of folders. Hidden folders and files, and
    those of runs, match nothing.

    Raises
    ------
    StorageError
        If a folder cannot be listed.
    """
    base = pattern_folder(pattern)
    parts = pattern.name[len(base.name) :].strip("/").split("/")
    if "**" in parts or not base.is_local:
        names = base.names(skip=is_left_out, follow=True)
    else:
        names = iter(sorted(_level_by_level(base, "", parts)))
    for name in names:
        if not name.rpartition("/")[2].startswith(".") and _fits(name.split("/"), parts):
            yield name


def _fits(names: list[str], parts: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[start:], parts[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def _level_by_level(base: Location, inside: str, parts: list[str]) -> Iterator[str]:
    """Names below a folder of this machine, of as many parts as the pattern has; folders that cannot match are not listed."""
    folder = base / inside if inside else base
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if fnmatchcase(entry.name, parts[0]) and not is_left_out(entry.name)]
    except OSError as error:
        raise CohortError(f"{printable(str(folder))} cannot be listed: {error.strerror or error}") from error
    for entry in found:
        name = f"{inside}/{entry.name}" if inside else entry.name
        if len(parts) > 1 and entry.is_dir():
            yield from _level_by_level(base, name, parts[1:])
        elif len(parts) == 1 and not entry.is_dir():
            yield name
