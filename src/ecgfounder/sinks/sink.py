"""Writing embeddings: a sink takes outputs and says when they are safe on disk.

In: `Output`s. Out: files; a `Written` for each output that would survive a power cut, and a `ShardWritten` for each shard.
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
        Which record it is, 16 hexadecimal digits, and what it is called in tables.
    title : str
        What the description calls the recording: its file name, or its identifier.
    name : str
        Relative to the output folder, where it has a file of its own.
    embeddings : tuple of numpy.ndarray
        What is kept of each input, in order: float32 (float16 once a sink has rounded it) [T, C] or [C]. All of one shape,
        except that a shorter last window has a smaller T.
    outer_shape : tuple of int
        What stands in front of one embedding: () or windows, leads, or both.
    order : int
        The record's place in the dataset.
    means : tuple of numpy.ndarray
        A second embedding [C] of each input, where one was asked for.
    facts : Facts
        What is known of the ECG.
    receipt : Any
        Whatever the caller wants to have again with the output.
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
        """The embeddings as one array: [T, C], [C], or with windows in front [W, T, C], [W, C]."""
        return np.stack(self.embeddings).reshape(*self.outer_shape, *self.embeddings[0].shape)

    @property
    def nbytes(self) -> int:
        return sum(embedding.nbytes for embedding in self.embeddings)


@dataclass(frozen=True, eq=False)
class Written:
    """An output that is safe, or that cannot be written.

    Attributes
    ----------
    reference : str
        How it is referred to, below the output folder: a file's name, or `SHARD.parquet::KEY`.
    shard : str or None
        The Parquet shard that holds it; None for a file of its own.
    error : str or None
        Why it cannot be written (its name is too long for this file system, a value beyond the numbers that are written);
        None where it was.
    """

    output: Output
    reference: str
    shard: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ShardWritten:
    """A shard that is whole on disk, after the outputs in it."""

    shard: str
    rows: int
    records: int


class Sink(Protocol):
    """Where outputs go."""

    def write(self, outputs: Sequence[Output]) -> list[Written | ShardWritten]:
        """Write outputs; returns what is now durable, which may be earlier ones or none.

        Raises
        ------
        OSError
            If writing as such does not work (disk full, read-only, gone): the run cannot go on.
        """
        ...

    def close(self) -> list[Written | ShardWritten]:
        """Write what is still open; returns what this made durable."""
        ...


# What concerns one output's name alone; anything else (ENOSPC, EIO, EROFS, ...) concerns the folder.
_ONE_NAME = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EILSEQ}


def unwritable(output: Output, error: OSError) -> Written:
    """An output that cannot be written for its name alone; raises the error where it concerns the folder."""
    if error.errno not in _ONE_NAME:
        raise error
    return Written(output, output.name, error=f"the output {output.name} cannot be written: {error.strerror}")
