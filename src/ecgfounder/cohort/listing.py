"""The list of a folder's ECG files, kept while a run reads it several times: listing an object store takes long.

In: paths. Out: the same paths, as often as wanted. They are in a temporary file, because there may be millions.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator

_END = b"\0"
_BYTES_AT_ONCE = 1 << 20


class Listing:
    """Paths in a temporary file without a name, which vanishes with the process."""

    def __init__(self, paths: Iterable[str]) -> None:
        self.n_paths = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object exists
        for path in paths:
            self._file.write(os.fsencode(path) + _END)
            self.n_paths += 1
        self._file.flush()

    def __iter__(self) -> Iterator[str]:
        at, rest = 0, b""
        while some := os.pread(self._file.fileno(), _BYTES_AT_ONCE, at):
            at += len(some)
            *whole, rest = (rest + some).split(_END)
            yield from map(os.fsdecode, whole)

    def __del__(self) -> None:
        self._file.close()
