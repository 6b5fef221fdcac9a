"""One JSON per ECG with four keys, `embedding`, `shape`, `description`, `modality`, the format of downstream training programs.

In: outputs. Out: `<output_dir>/<name>.json`, written to a temporary file, synced, renamed; a reader never sees a partial file.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ecgfounder.sinks.sink import Output, ShardWritten, Written, unwritable
from ecgfounder.storage.paths import printable
from ecgfounder.storage.replace import replace_files

try:
    import ecgfounder.sinks._numbers as _numbers
except ImportError:  # it was not built, without a C compiler
    _numbers = None  # type: ignore[assignment]


def document(embedding: npt.NDArray[np.floating[Any]], title: str) -> bytes:
    """The JSON text of one embedding.

    float32 values are written in the shortest form that reads back to the same float32.
    """
    numbers = np.ascontiguousarray(embedding)
    others = {
        "shape": list(embedding.shape),
        "description": f"ECG embedding extracted from {printable(title)} using ECGFounder",
        "modality": "ecg",
    }
    if _numbers is None or numbers.dtype != np.float32 or numbers.ndim not in (1, 2) or not numbers.flags.aligned:
        return orjson.dumps({"embedding": numbers, **others}, option=orjson.OPT_SERIALIZE_NUMPY)
    return _numbers.json(numbers, b'{"embedding":', b"," + orjson.dumps(others)[1:])


class FileSink(ABC):
    """Writes a file per output, in groups: temporary files are written, synced and renamed, then their folders synced once.

    Parameters
    ----------
    output_dir : Path
        Folder of the files.
    scratch : Path
        A folder on the same file system for temporary files.
    """

    def __init__(self, output_dir: Path, scratch: Path) -> None:
        self._output_dir = output_dir
        self._scratch = scratch
        self._token = uuid.uuid4().hex[:16]  # shards in containers may share a folder and a process id
        self._number = 0

    @staticmethod
    @abstractmethod
    def encode(output: Output) -> bytes:
        """The file's content."""

    def write(self, outputs: Sequence[Output]) -> list[Written | ShardWritten]:
        files = [(self._output_dir / output.name, partial(self.encode, output)) for output in outputs]
        errors = replace_files(files, self._output_dir, self._aside)
        return [
            Written(output, output.name) if error is None else unwritable(output, error)
            for output, error in zip(outputs, errors, strict=True)
        ]

    def close(self) -> list[Written | ShardWritten]:
        return []

    def _aside(self, target: Path) -> Path:
        self._number += 1
        return self._scratch / f"{self._token}-{self._number}.part"


class JsonSink(FileSink):
    """One JSON per ECG."""

    @staticmethod
    def encode(output: Output) -> bytes:
        return document(output.embedding, output.title)
