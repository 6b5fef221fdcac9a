"""Paths as text: normalisation, and 64-bit keys, of which ten million fit in memory.

In: paths of a cohort (relative or absolute, 'container::member'). Out: absolute paths, keys, printable text. This module does
not access the file system.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from hashlib import blake2b

KNOWN_SUFFIXES: frozenset[str] = frozenset(
    {".xml", ".hea", ".dat", ".mat", ".dcm", ".dicom", ".scp", ".edf", ".bdf", ".rec", ".ecg", ".ishne", ".csv", ".tsv"}
    | {".txt", ".npy", ".npz", ".h5", ".hdf5", ".hdf", ".json", ".xyz", ".mwf", ".atc"}
)
"""Suffixes of files that may hold an ECG, in lower case; output names omit them, and '.gz' after them."""


ARCHIVE_SUFFIXES: tuple[str, ...] = (".zip", ".tar")
"""Suffixes of archives, whose members are paths 'archive.zip::folder/file.xml'."""

_MEMBER = "::"
_UNUSUAL = re.compile(r"//|/\.\.?(?:/|\Z)|/\Z|::|\0")  # what may change when a path is normalised, or begins a member
_ARCHIVE = re.compile(r"(.+?\.(?:zip|tar))::(.*)", re.IGNORECASE | re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def split_member(path: str) -> tuple[str, str]:
    """'exams.hdf5::tracings/12' as ('exams.hdf5', 'tracings/12'); (path, '') if the path is that of a whole file."""
    if _MEMBER not in path:
        return path, ""
    container, _, member = path.rpartition(_MEMBER)
    suffix = container.rpartition("/")[2].lower().removesuffix(".gz").rpartition(".")[2]
    if member.strip("/") and f".{suffix}" in KNOWN_SUFFIXES:
        return container, member
    return path, ""


def split_archive(path: str) -> tuple[str, str | None]:
    """'study.zip::a/b.xml' as ('study.zip', 'a/b.xml'); (path, None) if the path is not that of a member of an archive.

    What follows the first archive may be a member of a container itself: 'study.zip::exams.h5::tracings/12'.
    """
    found = _ARCHIVE.fullmatch(path) if _MEMBER in path else None
    return (path, None) if found is None else (found[1], found[2])


def below(folder: str) -> str:
    """What the absolute paths below a folder begin with; an archive's folder ends in '::'."""
    return folder if folder.endswith(_MEMBER) else folder.rstrip("/") + "/"


def absolute_path(path: str, data_dir: str) -> str:
    """The path that identifies a record: absolute, without '.', '..' and double slashes; symbolic links are not resolved.

    Two records are the same if and only if these paths are equal. A member ('::tracings/12') is not changed. For many paths,
    pass an absolute `data_dir`: a relative one needs the working directory for every path. A URL stays as it is, and a path
    below a `data_dir` that is a URL becomes one. A path below a `data_dir` in an archive ('study.zip::a') is one in that archive.
    """
    if path.startswith("/") and not _UNUSUAL.search(path):
        return path
    archive, within = split_archive(path)
    if within is not None:
        return absolute_path(archive, data_dir) + _MEMBER + path_within(within)
    if _URL.match(path):
        return path
    archive, folder = split_archive(data_dir)
    if folder is not None and not path.startswith("/"):
        return absolute_path(archive, "") + _MEMBER + path_within(posixpath.join(folder, path))
    container, member = split_member(path)
    there = _URL.match(data_dir) if not container.startswith("/") else None
    if there is not None:
        host, _, at = data_dir[there.end() :].partition("/")
        normal = f"{there[0]}{host}{absolute_path(container, f'/{at}')}"
        return normal + _MEMBER + member if member else normal
    joined = posixpath.join(data_dir, container)
    if not joined.startswith("/"):
        joined = posixpath.join(os.getcwd(), joined)
    # Python 3.11's normpath truncates a path at a NUL, so that two records would become one; no file name contains a NUL.
    normal = posixpath.normpath(joined) if "\0" not in joined else joined
    if normal.startswith("//"):  # normpath keeps two leading slashes, whose meaning POSIX leaves open
        normal = normal[1:]
    return normal + _MEMBER + member if member else normal


def path_within(path: str) -> str:
    """A normalised path in an archive; one that begins with '..' or '/' stays, and names nothing in any archive."""
    container, member = split_member(path)
    if container and "\0" not in container:
        normal = posixpath.normpath(container)
        container = "" if normal == "." else normal
    return container + _MEMBER + member if member else container


def is_plain(path: str) -> bool:
    """Whether a path is relative, without a member, and already normalised; a fast check for millions of paths."""
    return bool(path) and not path.startswith((".", "/")) and not _UNUSUAL.search(path)


def path_key(absolute: str) -> int:
    """A 64-bit key of a record, the same in every process and on every machine (BLAKE2b), for `absolute_path`."""
    # surrogatepass: every str has a key, including file names that are not UTF-8
    return int.from_bytes(blake2b(absolute.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def tag_key(tag: str) -> int:
    """A 64-bit key of a recording's tag, which has the tags of its files, separated by blanks."""
    return joint_key([path_key(each) for each in tag.split(" ")])


def joint_key(keys: Sequence[int]) -> int:
    """The key of several keys in this order; of one key, that key."""
    return keys[0] if len(keys) == 1 else path_key(" ".join(f"{key:016x}" for key in keys))


def printable(text: str) -> str:
    """Text for JSON, CSV and Arrow: bytes of a name that are not UTF-8 are shown as \\xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
