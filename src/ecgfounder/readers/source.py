"""The input of a reader: an ECG file's location, its first bytes, its whole content, and the user's hints.

In: a location. Out: bytes, read at most once, gzip data unpacked, both up to a limit. Only regular files are opened.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import BinaryIO

from ecgfounder.ecg.leads import canonical_leads
from ecgfounder.errors import ReadError, StorageError
from ecgfounder.storage import Denied, Location, Missing, Replaced, Status, Unavailable
from ecgfounder.storage.ahead import Ahead
from ecgfounder.storage.archives import UNPACKED_LIMIT

HEAD_BYTES = 4096
SMALL_BYTES = 4 << 20
"""Files up to this size are read completely at the first access."""
MAX_FILE_BYTES = 1 << 30
MAX_UNPACKED_BYTES = UNPACKED_LIMIT
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Hints:
    """Facts from the user about files that do not state them (CSV, NPY, MAT, HDF5).

    Attributes
    ----------
    sampling_rate : float or None
        In Hz.
    unit : str or None
        "mV", "uV" or "V", or a number of units per millivolt as text ("200").
    leads : tuple of str or None
        Lead names in the order of the file's rows or columns, in any spelling; they are stored in canonical form.
    """

    sampling_rate: float | None = None
    unit: str | None = None
    leads: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.leads is not None:
            object.__setattr__(self, "leads", canonical_leads(self.leads))


@dataclass(frozen=True)
class Seen:
    """The status of a file when it was read; `sha256` is that of the bytes read, None if a library read them."""

    status: Status
    sha256: bytes | None = None


@dataclass(frozen=True)
class Source:
    """One file to read.

    Attributes
    ----------
    location : Location
        The file.
    member : str or None
        The part after '::' of a path into a container ('exams.hdf5::tracings/12').
    hints : Hints
        The user's hints.
    companions : list of Location
        Other files of this recording (the signal files of a WFDB header), added by the reader.
    seen : dict of Location to Seen
        The status of each file when it was read.
    ask : callable or None
        Called before large files are read into memory, with the bytes of all files of the recording; it may wait.
    ahead : Ahead or None
        Has files that were fetched ahead.
    """

    location: Location
    member: str | None = None
    hints: Hints = field(default_factory=Hints)
    companions: list[Location] = field(default_factory=list, compare=False)
    seen: dict[Location, Seen] = field(default_factory=dict, compare=False, repr=False)
    ask: Callable[[int], None] | None = field(default=None, compare=False, repr=False)
    ahead: Ahead | None = field(default=None, compare=False, repr=False)

    @property
    def files(self) -> list[Location]:
        """All files of the recording; for a WFDB record without a suffix these are the companions alone."""
        return [*([self.location] if self.exists else []), *self.companions]

    @cached_property
    def exists(self) -> bool:
        """Whether there is a file at the location. It is read for that, since it is needed anyway."""
        if self.location.archive is not None:
            return self.location.exists()
        try:
            self._fetched  # noqa: B018
        except Missing:
            return False
        except StorageError:
            if not self.location.is_local:
                raise
            return self.location.exists()
        return True

    @cached_property
    def _fetched(self) -> tuple[Status, bytes | None]:
        return self._fetch(self.location)

    @cached_property
    def _kept(self) -> dict[Location, tuple[Status, bytes | None]]:
        """Files that `has` has found elsewhere."""
        return {}

    def _fetch(self, location: Location) -> tuple[Status, bytes | None]:
        fetched = self._kept.pop(location, None)
        if fetched is None and self.ahead is not None:
            fetched = self.ahead.take(location)
        return location.fetch(SMALL_BYTES) if fetched is None else fetched

    def has(self, location: Location) -> bool:
        """Whether there is a file that the recording needs; one in another store is read for that."""
        if location.is_local or location.archive is not None:
            return location.exists()
        try:
            self._kept[location] = self._fetch(location)
        except Missing:
            return False
        return True

    @cached_property
    def small(self) -> tuple[Status, bytes] | None:
        """The file as stored, with its status; None if it is larger than `SMALL_BYTES`."""
        with as_read_error(self.location):
            status, content = self._fetched
        if content is None:
            self.seen[self.location] = Seen(status)
            return None
        return status, content

    @cached_property
    def head(self) -> bytes:
        """The first `HEAD_BYTES` bytes; of a gzip file, unpacked."""
        if not self.is_gzip:
            return self._start
        if self.small is not None:
            return _unpack(io.BytesIO(self.small[1]), HEAD_BYTES, whole=False)
        with open_file(self.location) as file:
            return _unpack(file, HEAD_BYTES, whole=False)

    @cached_property
    def _start(self) -> bytes:
        """The first bytes as stored."""
        if self.small is not None:
            return self.small[1][:HEAD_BYTES]
        with as_read_error(self.location):
            return self.location.read(0, HEAD_BYTES)

    @cached_property
    def content(self) -> bytes:
        """The whole file; of a gzip file, unpacked.

        Raises
        ------
        ReadError
            If it is larger than `MAX_FILE_BYTES`, or unpacks to more than `MAX_UNPACKED_BYTES`.
        """
        data = self.fetch(self.location) if self.small is None else self.small[1]
        if self.ask is not None and data.startswith(_GZIP_MAGIC):
            n_unpacked = int.from_bytes(data[-4:], "little")  # modulo 2^32
            if n_unpacked > SMALL_BYTES:
                self.ask(len(data) + min(n_unpacked, MAX_UNPACKED_BYTES))
        return unpacked(data)

    def fetch(self, location: Location) -> bytes:
        """A whole file as stored, this one or a companion, never unpacked.

        Raises
        ------
        ReadError
            If it cannot be read, or is larger than `MAX_FILE_BYTES`.
        """
        if location == self.location and self.small is not None:
            return self.small[1]
        with as_read_error(location):
            status, content = self._fetch(location)
            if content is None and status.size <= MAX_FILE_BYTES:
                if self.ask is not None:
                    self.ask(self._size_with_companions(status.size))
                status, content = location.fetch(MAX_FILE_BYTES)
        if content is None:
            raise ReadError(f"file of {status.size:,} bytes; at most {MAX_FILE_BYTES:,} are read at once")
        self.seen[location] = Seen(status, hashlib.sha256(content).digest())
        return content

    def _size_with_companions(self, size: int) -> int:
        """The bytes of all files of the recording, of which one has `size`."""
        return max(size, sum(each.status().size for each in self.companions if each.exists()))

    def refuse_member(self, format_name: str) -> None:
        """Raise `ReadError` if the path names a member ('file::member') of a format that holds one recording."""
        if self.member is not None:
            raise ReadError(
                f"a {format_name} file holds one recording; give its path without '::' and the part after it"
            )

    @property
    def is_gzip(self) -> bool:
        """Whether the file as stored is gzip data."""
        return self._start.startswith(_GZIP_MAGIC)


def unpacked(data: bytes) -> bytes:
    """Unpacked gzip data; other data unchanged.

    Raises
    ------
    ReadError
        If it is damaged, or unpacks to more than `MAX_UNPACKED_BYTES`.
    """
    return _unpack(io.BytesIO(data), MAX_UNPACKED_BYTES, whole=True) if data.startswith(_GZIP_MAGIC) else data


@contextmanager
def open_file(location: Location) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading; errors of the store become a `ReadError`, as `as_read_error` says.

    An error that occurs within the block is replaced by that of the store behind it, if there is one.
    """
    with as_read_error(location):
        file = location.open()
    try:
        with file:
            yield file
    except Exception:
        trouble = getattr(file.raw, "trouble", None)
        if trouble is None:
            raise
        with as_read_error(location):
            raise type(trouble)(str(trouble)) from None  # a new one, for the reason that `RangedFile` makes one


class as_read_error:
    """Turn errors of a store into a `ReadError`: faults of a file.

    That a store elsewhere does not answer, or does not permit access, is not a fault of the file, nor that its archive was
    replaced: these errors are raised as they are.
    """

    __slots__ = ("_location",)

    def __init__(self, location: Location) -> None:
        self._location = location

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if not isinstance(error, StorageError) or isinstance(error, Replaced):
            return
        if not self._location.is_here and isinstance(error, Denied | Unavailable):
            return
        raise ReadError(str(error)) from error


def _unpack(file: BinaryIO, limit: int, *, whole: bool) -> bytes:
    """Unpack gzip data up to `limit` bytes; with `whole`, more than that is an error."""
    try:
        with gzip.GzipFile(fileobj=file) as unpacked:
            data = unpacked.read(limit + 1 if whole else limit)
    except EOFError as error:
        raise ReadError("damaged gzip data: it ends early") from error
    except (OSError, zlib.error) as error:  # their messages quote bytes
        raise ReadError("damaged gzip data") from error
    if len(data) > limit:
        raise ReadError(f"gzip data that unpacks to more than {limit:,} bytes")
    return data
