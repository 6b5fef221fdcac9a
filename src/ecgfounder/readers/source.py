"""One ECG file as a reader sees it: its path, its first bytes, its whole content, and what the user said about it.

Bytes are read at most once, gzip is unpacked on the way, and neither can exceed a limit. Only regular files are opened.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from ecgfounder.errors import ReadError

HEAD_BYTES = 4096
SMALL_BYTES = 4 << 20
"""Files up to this size are opened and read once, whatever is asked of them."""
MAX_FILE_BYTES = 1 << 30
MAX_UNPACKED_BYTES = 256 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Hints:
    """What a user says about formats that do not say it themselves (CSV, NPY, MAT, HDF5).

    Attributes
    ----------
    sampling_rate : in Hz.
    unit : "mV", "uV" or "V", or a number of units per millivolt as text ("200").
    leads : lead names in the order of the file's rows or columns.
    """

    sampling_rate: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Source:
    """One file to read.

    Attributes
    ----------
    path : the file.
    member : what follows '::' in a path into a container ('exams.hdf5::tracings/12').
    hints : what the user said about it.
    companions : other files that the reader opened for this recording (the signal files of a WFDB header).
    """

    path: Path
    member: str | None = None
    hints: Hints = field(default_factory=Hints)
    companions: list[Path] = field(default_factory=list, compare=False)

    @property
    def files(self) -> list[Path]:
        """Every file that the recording was read from; a WFDB record without a suffix is its companions alone."""
        return [*([self.path] if os.path.lexists(self.path) else []), *self.companions]

    @cached_property
    def small(self) -> tuple[os.stat_result, bytes] | None:
        """The file as it lies on disk, read in one go with its status; None if it is larger than `SMALL_BYTES`."""
        with open_regular(self.path) as file:
            status = os.fstat(file.fileno())
            return (status, file.read(SMALL_BYTES)) if status.st_size <= SMALL_BYTES else None

    @cached_property
    def head(self) -> bytes:
        """The first `HEAD_BYTES` bytes, unpacked if the file is gzip."""
        if self.small is not None:
            return self._head_of(io.BytesIO(self.small[1]))
        with open_regular(self.path) as file:
            return self._head_of(file)

    @staticmethod
    def _head_of(file: io.BufferedReader | io.BytesIO) -> bytes:
        head = file.read(HEAD_BYTES)
        if not head.startswith(_GZIP_MAGIC):
            return head
        file.seek(0)
        return _unpack(file, HEAD_BYTES, whole=False)

    @cached_property
    def content(self) -> bytes:
        """The whole file, unpacked if it is gzip.

        Raises
        ------
        ReadError
            If it is larger than `MAX_FILE_BYTES`, or unpacks to more than `MAX_UNPACKED_BYTES`.
        """
        data = self._large() if self.small is None else self.small[1]
        if not data.startswith(_GZIP_MAGIC):
            return data
        return _unpack(io.BytesIO(data), MAX_UNPACKED_BYTES, whole=True)

    def _large(self) -> bytes:
        with open_regular(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE_BYTES:
                raise ReadError(f"file of {size:,} bytes; at most {MAX_FILE_BYTES:,} are read at once")
            return file.read(size)  # not more: a larger limit would be allocated for every file

    def refuse_member(self, format_name: str) -> None:
        """Raise `ReadError` if the path asks for a member ('file::member') of a format that holds one recording."""
        if self.member is not None:
            raise ReadError(f"a {format_name} file holds one recording; give its path without '::' and what follows")

    @property
    def is_gzip(self) -> bool:
        """Whether the file is packed as it lies on disk."""
        if self.small is not None:
            return self.small[1].startswith(_GZIP_MAGIC)
        with open_regular(self.path) as file:
            return file.read(2) == _GZIP_MAGIC


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file for reading, refusing FIFOs, devices, sockets and folders without ever blocking on them."""
    try:
        # O_NONBLOCK: opening a FIFO with no writer would wait forever otherwise.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise ReadError(error.strerror or str(error)) from error
    except ValueError as error:  # a NUL character in the name
        raise ReadError(f"not a valid path: {error}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ReadError("not a regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _unpack(file: io.BufferedReader | io.BytesIO, limit: int, *, whole: bool) -> bytes:
    """Unpack gzip data up to `limit` bytes; with `whole`, more than that is an error."""
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            data = unpacked.read(limit + 1 if whole else limit)
    except (OSError, EOFError, zlib.error) as error:
        raise ReadError(f"damaged gzip data: {error}") from error
    if len(data) > limit:
        raise ReadError(f"gzip data that unpacks to more than {limit:,} bytes")
    return data
