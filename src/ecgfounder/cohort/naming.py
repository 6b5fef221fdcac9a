"""Names of outputs, from paths or identifiers. This module does not access the file system.

In: paths of a cohort (relative to the data folder or absolute), or identifiers. Out: output names relative to the output
folder, and 64-bit keys to detect collisions.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from ecgfounder.errors import PrepareError, SettingsError
from ecgfounder.storage.paths import (
    KNOWN_SUFFIXES,
    absolute_path,
    below,
    is_plain,
    path_key,
    printable,
    split_archive,
    split_member,
)

Layout = Literal["flat", "tree"]
LAYOUT_CHOICES = ("flat", "tree")


RUN_FOLDER = "_run"
"""The folder inside the output folder that holds the run record; no output may have this name or be inside it."""


MAX_NAME_BYTES = 255
"""Maximum length of a name on common file systems."""


TEMPORARY_BYTES = 12
"""Bytes reserved for the suffix that a sink adds to a name while it writes the file."""


_TO_ESCAPE = re.compile(r"[%/\x00-\x1f\x7f]|\A\.")


def stem_of(path: str) -> str:
    """The part of a path that names its output: the file's name without '.gz' and without one known suffix.

    'a/b.c.xml' gives 'b.c', 'x.XML.gz' gives 'x', 'record.0012' stays 'record.0012', and a name that would become empty
    ('.xml') stays. The stem of a recording in a container is that of the file and the member, joined by dots:
    'exams.hdf5::tracings/12' gives 'exams.tracings.12'. '::' separates a member only after a known suffix; elsewhere it is
    part of a file's name. An archive is like a folder: 'study.zip::a/x.xml' gives 'x'.
    """
    archive, within = split_archive(path)
    container, member = split_member(archive if within is None else within)
    name = container.rstrip("/").rpartition("/")[2]
    for suffixes in (_GZIP, KNOWN_SUFFIXES):
        stem, dot, last = name.rpartition(".")
        if dot and stem.strip(".") and f".{last.lower()}" in suffixes:
            name = stem
    return f"{name}.{member.strip('/').replace('/', '.')}" if member else name


_GZIP = frozenset({".gz"})


@dataclass(frozen=True)
class Naming:
    """The rules for output names.

    Attributes
    ----------
    layout : Layout
        "flat", every output directly in the output folder; "tree", folders as below `data_dir`.
    data_dir : str
        The folder that relative paths are relative to; converted to an absolute path.
    suffix : str
        The suffix after the stem, ".json" for one JSON per ECG.

    Raises
    ------
    SettingsError
        For an unknown layout, or a suffix that contains a slash.
    """

    layout: Layout = "flat"
    data_dir: str = "."
    suffix: str = ".json"
    _below: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        if self.layout not in get_args(Layout):
            raise SettingsError(
                f"Invalid value for the 'layout' parameter. Allowed values are 'flat' and 'tree', got {self.layout!r}."
            )
        if "/" in self.suffix or "\0" in self.suffix:
            raise SettingsError(f"the suffix of output names must not contain '/' or NUL, got {self.suffix!r}")
        root = absolute_path(os.fspath(self.data_dir), "")
        root = root.rstrip("/") or "/"  # of a URL
        object.__setattr__(self, "data_dir", root)
        object.__setattr__(self, "_below", below(root))

    def absolute(self, path: str) -> str:
        """`absolute_path` of a path below `data_dir` or of an absolute one."""
        return self._below + path if is_plain(path) else absolute_path(path, self.data_dir)

    def name(self, path: str) -> str:
        """The output's name for the path of an ECG: relative to the output folder, parts joined by '/'.

        It never begins with a slash, contains no '..' and is never inside the folder of the run record. Different paths may
        have the same name ('x.xml' and 'x.dcm'): compare `key` before any work.

        Raises
        ------
        PrepareError
            If there is no valid name: a path outside `data_dir` in the layout "tree", or a name too long for a file system.
        """
        absolute = self.absolute(path)
        stem = stem_of(absolute)
        if not path or not stem:
            raise PrepareError("the path names no file; expected the path of an ECG")
        if self.layout == "flat":
            return _checked(stem + self.suffix)
        container, _ = split_member(absolute)
        if not container.startswith(self._below):
            raise PrepareError(
                f"the path is outside data_dir ({self.data_dir}), which layout 'tree' mirrors: "
                "use a data_dir above all files, layout='flat', or id_column"
            )
        folder = container[len(self._below) :].rpartition("/")[0]
        return _checked((f"{folder}/{stem}" if folder else stem) + self.suffix)

    def name_for_id(self, identifier: str) -> str:
        """The output's name for an identifier (`--id_column`), one file name without folders.

        '/', '%', control characters and a leading dot become %XX, as in a URL (`urllib.parse.unquote` reverses this), so that
        the names of different identifiers differ, except for identifiers that differ only in case.

        Raises
        ------
        PrepareError
            If the identifier is empty or blank, or too long for a file system.
        """
        if not identifier.strip():
            raise PrepareError("the identifier is empty; expected a name for the output")
        safe = _TO_ESCAPE.sub(lambda found: f"%{ord(found[0]):02X}", identifier)
        return _checked(safe + self.suffix)

    def key(self, name: str) -> int:
        """A 64-bit key of an output's name with case folded: names with equal keys collide on some file system."""
        return path_key(name.casefold())


def _checked(name: str) -> str:
    """`name`, with bytes that are not UTF-8 escaped; refused if it cannot be created or is outside the output folder."""
    if "\0" in name:
        raise PrepareError("the path contains a NUL character, which no file name can")
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise PrepareError("no safe output name can be made from the path; use id_column to name outputs yourself")
    if parts[0].casefold() == RUN_FOLDER:
        raise PrepareError(
            f"the output would lie in '{RUN_FOLDER}', where the run keeps its run record; rename the file"
        )
    if not name.isascii():
        try:
            name = printable(name)
        except UnicodeEncodeError as error:
            raise PrepareError("the name contains a lone surrogate, which no file name can") from error
        parts = name.split("/")
    lengths = [len(part.encode()) for part in parts]
    lengths[-1] += TEMPORARY_BYTES
    if max(lengths) > MAX_NAME_BYTES:
        raise PrepareError(
            f"the output's name is too long: a part of it takes {max(lengths)} bytes with the {TEMPORARY_BYTES} that "
            f"writing needs, file systems allow {MAX_NAME_BYTES}; use id_column to give shorter names"
        )
    return name
