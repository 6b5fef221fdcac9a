"""Writing embeddings: a sink takes finished outputs and says when they are safe on disk.

In: `Output`s (an embedding and its ledger entry). Out: files, and the entries that may now go into the ledger; an entry is
given back only when its output would survive a power cut.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

FORMAT_CHOICES = ("json", "parquet")
DTYPE_CHOICES = ("float32", "float16")

Entry = dict[str, Any]


@dataclass(frozen=True)
class Output:
    """One ECG's result.

    Attributes
    ----------
    entry : its ledger line so far; `entry["output"]` is the name relative to the output folder.
    title : what the description calls the recording: its file name, or its identifier.
    views : what is kept of each input, in order: float32 [T, C] or [C]. All of one shape, except that a shorter last
        window has a smaller T.
    outer_shape : what stands in front of one view: () or windows, leads, or both.
    order : the record's place in the dataset.
    means : a second view [C] of each input, where one was asked for.
    """

    entry: Entry
    title: str
    views: tuple[npt.NDArray[np.float32], ...]
    outer_shape: tuple[int, ...] = ()
    order: int = 0
    means: tuple[npt.NDArray[np.float32], ...] = ()

    @property
    def embedding(self) -> npt.NDArray[np.float32]:
        """The views as one array: [T, C], [C], or with windows in front [W, T, C], [W, C]."""
        return np.stack(self.views).reshape(*self.outer_shape, *self.views[0].shape)

    @property
    def nbytes(self) -> int:
        return sum(view.nbytes for view in self.views)


class Sink(Protocol):
    """Where outputs go."""

    def write(self, outputs: Sequence[Output]) -> list[Entry]:
        """Write outputs; returns the entries that are now durable, which may be earlier ones or none.

        An output that this file system cannot hold (its name is too long for it) comes back as a failed entry.

        Raises
        ------
        OSError
            If writing as such does not work (disk full, read-only, gone): the run cannot go on.
        """
        ...

    def close(self) -> list[Entry]:
        """Write what is still open; returns the entries that this made durable."""
        ...


# What concerns one output's name alone; anything else (ENOSPC, EIO, EROFS, ...) concerns the folder.
_ONE_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EILSEQ}


def failed_entry(entry: Entry, error: OSError) -> Entry | None:
    """The entry as a recorded failure where the error concerns this one name; None where it concerns the folder."""
    if error.errno not in _ONE_NAME:
        return None
    reason = f"the output {entry['output']} cannot be written: {error.strerror}"
    return {**entry, "status": "failed", "error": "OutputError", "reason": reason, "output": None}


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on disk; the folder's entry is the caller's to sync."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries (renames, new files) are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
