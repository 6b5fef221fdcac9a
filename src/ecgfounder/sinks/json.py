"""One JSON per ECG with four keys, `embedding`, `shape`, `description`, `modality`, as the trainers downstream read it.

In: outputs. Out: `<output_dir>/<name>.json`, written aside, synced, renamed; a reader never sees half a file.
"""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from ecgfounder.sinks.sink import Entry, Output, failed_entry, sync_folder
from ecgfounder.storage.paths import printable

_FILES_OPEN = 64
"""Files that are written before they are synced, at most."""


def document(embedding: npt.NDArray[np.float32], title: str) -> bytes:
    """The JSON text of one embedding.

    float32 values are written in their shortest form, which reads back to the same float32.
    """
    return orjson.dumps(
        {
            "embedding": np.ascontiguousarray(embedding),
            "shape": list(embedding.shape),
            "description": f"ECG embedding extracted from {printable(title)} using ECGFounder",
            "modality": "ecg",
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


class FileSink(ABC):
    """Writes a file per output, a group at a time: every file aside, synced and renamed, then their folders synced once.

    Parameters
    ----------
    output_dir : where the files go.
    scratch : a folder on the same file system for files that are not finished.
    """

    def __init__(self, output_dir: Path, scratch: Path) -> None:
        self._output_dir = output_dir
        self._scratch = scratch
        self._token = uuid.uuid4().hex[:16]  # shards in containers may share a folder and a process number
        self._number = 0

    @staticmethod
    @abstractmethod
    def encode(output: Output) -> bytes:
        """The file's content."""

    def write(self, outputs: Sequence[Output]) -> list[Entry]:
        entries: list[Entry] = []
        folders: set[Path] = set()
        for first in range(0, len(outputs), _FILES_OPEN):
            entries += self._write(outputs[first : first + _FILES_OPEN], folders)
        for folder in folders:
            sync_folder(folder)
        return entries

    def _write(self, outputs: Sequence[Output], folders: set[Path]) -> list[Entry]:
        """Write a few outputs, add the folders that are to be synced.

        One stage after the other for all of them: files that are written while another one is synced wait for the
        file system's journal, which takes several times as long.
        """
        entries: list[Entry] = []
        moves: list[tuple[int, Path, Path]] = []  # place in `entries`, from, to
        with ExitStack() as opened:
            files = []
            for output in outputs:
                target = self._output_dir / output.entry["output"]
                entries.append(output.entry)
                self._number += 1
                aside = self._scratch / f"{self._token}-{self._number}{target.suffix}"
                try:
                    folders |= make_folders(self._output_dir, target.parent)
                    file = opened.enter_context(open(aside, "wb"))
                    file.write(self.encode(output))
                    file.flush()
                except OSError as error:
                    entries[-1] = _failed(entries[-1], error)
                    continue
                files.append(file)
                moves.append((len(entries) - 1, aside, target))
            for file in files:
                os.fsync(file.fileno())
        for place, aside, target in moves:
            try:
                os.replace(aside, target)
            except OSError as error:
                entries[place] = _failed(entries[place], error)
                aside.unlink(missing_ok=True)
                continue
            folders.add(target.parent)
        return entries

    def close(self) -> list[Entry]:
        return []


class JsonSink(FileSink):
    """One JSON per ECG."""

    @staticmethod
    def encode(output: Output) -> bytes:
        return document(output.embedding, output.title)


def _failed(entry: Entry, error: OSError) -> Entry:
    """The entry of an output that its folder cannot hold; raises the error where it concerns more than this output."""
    failed = failed_entry(entry, error)
    if failed is None:
        raise error
    return failed


def make_folders(root: Path, folder: Path) -> set[Path]:
    """Make the folders between `root` and `folder`; returns those that got a new entry and need a sync.

    `root` itself is never made: if it vanished during a run, that is an error and not a fresh start.
    """
    missing: list[Path] = []
    at = folder
    while at != root and not at.is_dir():
        missing.append(at)
        at = at.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
    return {each.parent for each in missing}
