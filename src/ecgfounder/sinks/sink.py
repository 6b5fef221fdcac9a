"""The interface of sinks: a sink writes outputs and reports when they are synced to disk.

In: `Output`s. Out: files; a `Written` for each synced output, and a `ShardWritten` for each shard.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.facts import Facts

FORMAT_CHOICES = ("json", "parquet")
DTYPE_CHOICES = ("float32", "float16")


@dataclass(frozen=True, eq=False)
class Output:
    """One ECG's result.

    Attributes
    ----------
    key, record : str
        The record's key, 16 hexadecimal digits, and its name in tables.
    title : str
        The recording's name in the description: its file name, or its identifier.
    name : str
        The file's name relative to the output folder, if the output is a separate file.
    embeddings : tuple of numpy.ndarray
        The embedding of each input, in order: float32 (float16 after a sink has rounded it) [T, C] or [C]. All have the same
        shape, except that a shorter last window has a smaller T.
    outer_shape : tuple of int
        Leading dimensions before one embedding: (), windows, leads, or both.
    order : int
        The record's position in the dataset.
    means : tuple of numpy.ndarray
        The mean [C] of each input in addition to its feature map, if requested.
    facts : Facts
        Metadata of the ECG.
    receipt : Any
        A value of the caller, returned with the output.
    """

    key: str
    record: str
    title: str
    name: str
    embeddings: tuple[npt.NDArray[np.floating[Any]], ...]
    outer_shape: tuple[int, ...] = ()
    order: int = 0
    means: tuple[npt.NDArray[np.floating[Any]], ...] = ()
    facts: Facts = field(default_factory=Facts)
    receipt: Any = None

    @property
    def embedding(self) -> npt.NDArray[np.floating[Any]]:
        """The embeddings as one array: [T, C], [C], or with windows [W, T, C], [W, C]; a single one is not copied."""
        if len(self.embeddings) == 1:
            return self.embeddings[0].reshape(*self.outer_shape, *self.embeddings[0].shape)
        return np.stack(self.embeddings).reshape(*self.outer_shape, *self.embeddings[0].shape)

    @property
    def nbytes(self) -> int:
        return sum(embedding.nbytes for embedding in self.embeddings)


@dataclass(frozen=True, eq=False)
class Written:
    """An output that is synced to disk, or that cannot be written.

    Attributes
    ----------
    reference : str
        Its reference, relative to the output folder: a file's name, or `SHARD.parquet::KEY`.
    shard : str or None
        The Parquet shard that holds it; None for a separate file.
    error : str or None
        Why it cannot be written (its name is too long for this file system, a value is beyond the range of its dtype); None if
        it was written.
    tag : str or None
        A separate object's tag in its store; None for a file on this machine.
    """

    output: Output
    reference: str
    shard: str | None = None
    error: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class ShardWritten:
    """A shard that is synced to disk; returned after its outputs."""

    shard: str
    rows: int
    records: int


class Sink(Protocol):
    """The interface of a sink."""

    def write(self, outputs: Sequence[Output]) -> list[Written | ShardWritten]:
        """Write outputs; returns the outputs that are now synced, which may be earlier ones or none.

        Raises
        ------
        OSError
            If the folder cannot be written to (disk full, read-only, missing), which stops the run.
        """
        ...

    def close(self) -> list[Written | ShardWritten]:
        """Write the remaining outputs; returns those that are now synced."""
        ...


class FailuresOnly:
    """A sink for records that failed: no output is written."""

    def write(self, outputs: Sequence[Output]) -> list[Written | ShardWritten]:
        if outputs:
            raise ValueError("an output where there can be none")
        return []

    def close(self) -> list[Written | ShardWritten]:
        return []


# Errors of a single output's name; any other error (ENOSPC, EIO, EROFS, ...) concerns the folder.
_ONE_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EILSEQ}


def unwritable(output: Output, error: OSError) -> Written:
    """An output that cannot be written because of its name; raises the error if it concerns the folder."""
    if error.errno not in _ONE_NAME:
        raise error
    return Written(output, output.name, error=f"the output {output.name} cannot be written: {error.strerror}")
