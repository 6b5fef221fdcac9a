"""Paths as text: which file one names, normalised, and 64-bit keys by which ten million of them fit in memory.

In: paths as a cohort lists them (relative or absolute, 'container::member'). Out: absolute paths, keys, printable text.
Nothing here touches the file system.
"""

from __future__ import annotations

import os
import posixpath
from hashlib import blake2b

KNOWN_SUFFIXES: frozenset[str] = frozenset(
    {".xml", ".hea", ".dat", ".mat", ".dcm", ".dicom", ".scp", ".edf", ".bdf", ".rec", ".ecg", ".ishne", ".csv", ".tsv"}
    | {".txt", ".npy", ".npz", ".h5", ".hdf5", ".hdf", ".json", ".xyz"}
)
"""Suffixes, in lower case, that a name loses: those of files that may hold an ECG. '.gz' around them goes too."""


_MEMBER = "::"


def split_member(path: str) -> tuple[str, str]:
    """'exams.hdf5::tracings/12' as ('exams.hdf5', 'tracings/12'); (path, '') when it addresses a file as a whole."""
    if _MEMBER not in path:
        return path, ""
    container, _, member = path.rpartition(_MEMBER)
    suffix = container.rpartition("/")[2].lower().removesuffix(".gz").rpartition(".")[2]
    if member.strip("/") and f".{suffix}" in KNOWN_SUFFIXES:
        return container, member
    return path, ""


def absolute_path(path: str, data_dir: str) -> str:
    """The path by which a record is known: absolute, without '.', '..' and doubled slashes, symbolic links unresolved.

    Two records are the same exactly when these are equal. A member ('::tracings/12') is kept as it stands. Give an
    absolute `data_dir` where there are many paths: a relative one costs a look at the working directory each time.
    """
    container, member = split_member(path)
    joined = posixpath.join(data_dir, container)
    if not joined.startswith("/"):
        joined = posixpath.join(os.getcwd(), joined)
    # No file has a NUL in its name, and Python 3.11's normpath cuts a path off there: two records would become one.
    normal = posixpath.normpath(joined) if "\0" not in joined else joined
    if normal.startswith("//"):  # normpath keeps two leading slashes, which POSIX lets mean anything; here they do not
        normal = normal[1:]
    return normal + _MEMBER + member if member else normal


def is_plain(path: str) -> bool:
    """Whether a path is relative, of one file, and normalised as it stands; quickly found out of a million of them."""
    return (
        not path.startswith((".", "/"))
        and _MEMBER not in path
        and "\0" not in path  # normpath would cut it off there
        and posixpath.normpath(path) == path
    )


def path_key(absolute: str) -> int:
    """A 64-bit key of a record, the same in every process and on every machine (BLAKE2b), for `absolute_path`."""
    # surrogatepass: every str has a key, also those that stand for file names that are not UTF-8
    return int.from_bytes(blake2b(absolute.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def printable(text: str) -> str:
    """Text that JSON, CSV and Arrow can hold: bytes of a name that are not UTF-8 are shown as \\xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
