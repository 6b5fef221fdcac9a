"""The ledger: one line per record that is done or failed, appended after its output is synced. It alone decides what to resume.

In: entries of finished records. Out: `<run>/ledger/*.jsonl`, one part (file) per process and attempt, written by that process
alone; and from all parts together a `LedgerState` in NumPy columns, about 85 bytes per record.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt
import orjson

from ecgfounder.ledger.entry import Commitment, Entry, Line, PartEnd, PartHeader, line_of, parse_frame, parse_line
from ecgfounder.ledger.groups.epochs import PART_SUFFIX, counting_parts
from ecgfounder.ledger.liveness import Heartbeat
from ecgfounder.storage import Location, Missing
from ecgfounder.storage.copies import copies_of
from ecgfounder.storage.paths import path_key, tag_key
from ecgfounder.storage.replace import sync, sync_folder

DONE, FAILED = 1, 2
STATUS = {"done": DONE, "failed": FAILED}

_LAST_LINE_BYTES = 4096
_PARTS_OPEN = 128


class LedgerWriter:
    """One process's part; `append` returns when the lines are synced to disk, and a heartbeat shows that the process lives.

    A part is a header line (`{"part": ...}`), entries, lines that commit shards, and a last line (`{"end": ...}`).
    """

    def __init__(self, path: Path, header: PartHeader) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._heartbeat: Heartbeat | None = None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)  # minus the umask
        try:
            self._append([orjson.dumps({"part": asdict(header)})])
            sync_folder(path.parent)
            self._heartbeat = Heartbeat(self._file)
        except BaseException:
            self.abandon()
            raise

    def append(self, lines: Sequence[Line]) -> None:
        """Add entries and commitments, in order, and wait until they are on disk.

        Raises
        ------
        OSError
            If they cannot be written; a part with a torn line is read up to that line.
        """
        if lines:
            with self._lock:
                self._append([line_of(line) for line in lines])

    def end(self, end: PartEnd) -> None:
        """Write the last line and close the part."""
        with self._lock:
            self._append([orjson.dumps({"end": asdict(end)})])
            self._close()

    def abandon(self) -> None:
        """Close the part without a last line, which marks it as incomplete."""
        with self._lock:
            if self._file >= 0:
                self._close()

    def _close(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        os.close(self._file)
        self._file = -1

    def _append(self, lines: Sequence[bytes]) -> None:
        view = memoryview(b"".join(line + b"\n" for line in lines))
        while view:
            view = view[os.write(self._file, view) :]
        sync(self._file)


def lines_of(part: Location) -> Iterator[tuple[int, Line]]:
    """Every entry and commitment of a part with its offset in bytes.

    Lines that are torn, damaged or were not written by this program are left out: their records count as not done.
    """
    offset = 0
    try:
        opened = part.open()
    except Missing:  # a dangling symbolic link
        return
    with opened as file:
        for raw in file:
            if raw.endswith(b"\n"):
                line = parse_line(raw)
                if line is not None:
                    yield offset, line
            offset += len(raw)


def part_status(part: Location) -> tuple[PartHeader | None, PartEnd | None]:
    """A part's first and last line, each None if it does not exist yet, without reading the rest."""
    try:
        file = part.open()
    except Missing:
        return None, None
    with file:
        first = file.readline()
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LAST_LINE_BYTES))
        tail = file.read()
    header = parse_frame(first, "part", PartHeader) if first.endswith(b"\n") else None
    end = None
    if header is not None and tail.endswith(b"}\n"):
        end = parse_frame(tail[:-1].rpartition(b"\n")[2], "end", PartEnd)
    return header, end


@dataclass(frozen=True)
class LedgerState:
    """The latest entry of every record, as columns sorted by key.

    Attributes
    ----------
    keys : numpy.ndarray
        uint64 [n].
    status : numpy.ndarray
        uint8 [n] of DONE, FAILED.
    size, mtime_ns : numpy.ndarray
        int64 [n], size and modification time of the recording's file.
    hashes : numpy.ndarray
        uint64 [n], first eight bytes of the file's SHA-256, 0 if unknown.
    tags : numpy.ndarray
        uint64 [n], key (`tag_key`) of the file's tag in its store, 0 for files on this machine.
    part : numpy.ndarray
        int32 [n], index into `parts`.
    offset : numpy.ndarray
        int64 [n], offset of the entry's line in its part.
    committed : mapping of str to int
        The complete shards, and the number of records that each held when it was written.
    shard : numpy.ndarray
        int32 [n], index into `shards`, -1 for outputs that are separate files.
    companions : numpy.ndarray
        bool [n], whether the entry names companion files, among those that were read or those that were absent.
    paths : numpy.ndarray
        uint64 [n], hash of the file's path if the record has an identifier, else 0.
    absent : numpy.ndarray
        bool [n], whether the entry is a failure because of files that did not exist.
    names : numpy.ndarray
        uint64 [n], hash (`Naming.key`) of the name of the output file, or of the output that a failure makes obsolete; 0
        if there is no separate file.
    outputs : numpy.ndarray
        uint64 [n], key (`path_key`) of the output's tag in its store, 0 if it is unknown.
    """

    parts: tuple[Location, ...]
    shards: tuple[str, ...]
    committed: Mapping[str, int]
    keys: npt.NDArray[np.uint64]
    status: npt.NDArray[np.uint8]
    size: npt.NDArray[np.int64]
    mtime_ns: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    tags: npt.NDArray[np.uint64]
    part: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int32]
    companions: npt.NDArray[np.bool_]
    absent: npt.NDArray[np.bool_]
    paths: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint64]
    outputs: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """For each key its row, or -1."""
        if len(self.keys) == 0:
            return np.full(len(keys), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1).astype(np.int64)

    def find_all(self, keys: Sequence[int]) -> list[int]:
        """`find` for a list of keys."""
        return [int(row) for row in self.find(np.array(keys, dtype=np.uint64))]

    def entries(self, rows: Iterable[int]) -> Iterator[Entry]:
        """The entries of some rows, read from the parts."""
        with ExitStack() as opened:
            contents: dict[int, mmap.mmap | bytes] = {}
            for row in rows:
                part, offset = int(self.part[row]), int(self.offset[row])
                if part not in contents:
                    if len(contents) == _PARTS_OPEN:  # a job array may leave more parts than a process may open
                        opened.close()
                        contents.clear()
                    contents[part] = _content_of(self.parts[part], opened)
                content = contents[part]
                entry = parse_line(content[offset : content.find(b"\n", offset)])
                assert isinstance(entry, Entry)  # it was an entry when the part was read
                yield entry


def _content_of(part: Location, opened: ExitStack) -> mmap.mmap | bytes:
    """A part as bytes: memory-mapped if it is a file on this machine."""
    if not part.is_local:
        return part.read()
    file: BufferedReader = part.open()
    with file:
        try:
            return opened.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError:  # some network file systems have no memory maps
            return file.read()


_COLUMNS: dict[str, tuple[str, type[np.generic]]] = {
    "keys": ("Q", np.uint64),
    "status": ("B", np.uint8),
    "size": ("q", np.int64),
    "mtime_ns": ("q", np.int64),
    "hashes": ("Q", np.uint64),
    "tags": ("Q", np.uint64),
    "part": ("i", np.int32),
    "offset": ("q", np.int64),
    "shard": ("i", np.int32),
    "companions": ("B", np.bool_),
    "absent": ("B", np.bool_),
    "paths": ("Q", np.uint64),
    "names": ("Q", np.uint64),
    "outputs": ("Q", np.uint64),
}
"""The columns of a `LedgerState`: type code of the growing array, and final data type."""


def _values(entry: Entry, part: int, offset: int, shards: dict[str, int]) -> tuple[int, ...]:
    """An entry's values for `_COLUMNS`; a new shard gets a number."""
    given, shard = entry.input, entry.shard
    name = entry.output if shard is None else None
    return (
        int(entry.key, 16),
        STATUS[entry.status],
        0 if given is None else given.size,
        0 if given is None else given.mtime_ns,
        0 if given is None or given.sha256 is None else int(given.sha256[:16], 16),
        0 if given is None or given.tag is None else tag_key(given.tag),
        part,
        offset,
        -1 if shard is None else shards.setdefault(shard, len(shards)),
        bool(given is not None and given.companions) or any(entry.absent),
        entry.status == "failed" and bool(entry.absent),
        0 if entry.path is None else int(entry.path, 16),
        path_key((name or entry.removes or "").casefold()) if name or entry.removes else 0,
        0 if entry.tag is None else path_key(entry.tag),
    )


def read_ledger(folder: Location) -> LedgerState:
    """The state from all parts in a ledger's folder that count; empty if the folder does not exist.

    Parts in another store are copied to this machine, for as long as the state exists.
    """
    return read_parts(copies_of(ledger_parts(folder)))


def ledger_parts(folder: Location) -> tuple[Location, ...]:
    """The parts in a ledger's folder that count, ordered by start time."""
    return tuple(folder / name for name in counting_parts(folder))


def read_parts(parts: tuple[Location, ...]) -> LedgerState:
    """Read parts in order; of several entries for one record the latest counts.

    Entries of a shard that was never committed do not count: the shard may be incomplete.
    """
    shards: dict[str, int] = {}
    committed: dict[str, int] = {}
    columns = {name: array(kind) for name, (kind, _) in _COLUMNS.items()}
    append = [column.append for column in columns.values()]
    for number, part in enumerate(parts):
        for offset, line in lines_of(part):
            if isinstance(line, Commitment):
                shards.setdefault(line.shard, len(shards))
                committed[line.shard] = line.records
                continue
            for add, value in zip(append, _values(line, number, offset, shards), strict=True):
                add(value)
    arrays = {name: np.array(columns.pop(name), dtype) for name, (_, dtype) in _COLUMNS.items()}
    loose = arrays["shard"] < 0
    whole = np.array([name in committed for name in shards] + [False])  # the last one is for records without a shard
    kept = np.flatnonzero(loose | whole[arrays["shard"]])
    # Latest first, because np.unique returns the first occurrence of a key.
    latest = kept[::-1][np.unique(arrays["keys"][kept][::-1], return_index=True)[1]]
    return LedgerState(parts, tuple(shards), committed, **{name: values[latest] for name, values in arrays.items()})


def new_stamp(ledger: Location) -> int:
    """The stamp in ns for the parts of an attempt: later than that of all existing parts, even if a clock was set back."""
    stamps = (part.basename.partition("-")[0] for part in ledger_parts(ledger))
    return max(time.time_ns(), 1 + max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0))


def part_name(stamp: int, shard: tuple[int, int], rank: int, world_size: int) -> str:
    """A part's file name; `stamp` (ns since 1970, the same for all processes of an attempt) makes names sort by attempt."""
    return f"{stamp:020d}-shard{shard[0]}of{shard[1]}-rank{rank}of{world_size}{PART_SUFFIX}"
