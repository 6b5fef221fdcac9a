"""The ledger: one line per ECG that was done or failed, appended once its output is safe. It alone decides what is resumed.

In: entries of finished records. Out: `<run>/ledger/*.jsonl`, one part per process and start, never appended to by another;
and from all parts together a `LedgerState` in numpy columns, about 50 bytes a record.
"""

from __future__ import annotations

import mmap
import os
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ecgfounder.ledger.liveness import Heartbeat
from ecgfounder.sinks.sink import Entry, sync_folder
from ecgfounder.storage.paths import path_key

DONE, FAILED = 1, 2
_LAST_LINE_BYTES = 4096
STATUS = {"done": DONE, "failed": FAILED}

_PARTS_OPEN = 128


class LedgerWriter:
    """One process's part; every append is on disk when it returns, and the open part shows that its process lives.

    A part is a header line (`{"part": ...}`), entries, lines that commit shards, and a last line (`{"end": ...}`).
    """

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._heartbeat: Heartbeat | None = None
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)  # less the umask
        try:
            self._append([{"part": header}])
            sync_folder(path.parent)
            self._heartbeat = Heartbeat(self._file)
        except BaseException:
            self.abandon()
            raise

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries, in order, and wait until they are on disk.

        Raises
        ------
        OSError
            If they cannot be written; a part that was torn that way is read up to the tear.
        """
        if entries:
            with self._lock:
                self._append(entries)

    def end(self, summary: dict[str, Any]) -> None:
        """Close the part with what came of it."""
        with self._lock:
            self._append([{"end": summary}])
            self._close()

    def abandon(self) -> None:
        """Close the part without a last line: whoever reads it sees that it is not complete."""
        with self._lock:
            if self._file >= 0:
                self._close()

    def _close(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        os.close(self._file)
        self._file = -1

    def _append(self, entries: Sequence[dict[str, Any]]) -> None:
        # A reader's numbers may be numpy's; that must not be found out here.
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
        data = b"".join(orjson.dumps(entry, option=options) for entry in entries)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)


def entry_lines(part: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every whole line of a part with its offset in bytes.

    What a crash tore (a last line without its end, or one that is not JSON) is left out: its record counts as not done.
    """
    offset = 0
    with open(part, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                try:
                    entry = orjson.loads(line)
                except orjson.JSONDecodeError:
                    entry = None
                if isinstance(entry, dict):
                    yield offset, entry
            offset += len(line)


def part_status(part: Path) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """A part's header and what its last line says, each None where it is not there yet, without reading the rest."""
    try:
        with open(part, "rb") as file:
            first = file.readline()
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_LINE_BYTES))
            tail = file.read()
    except FileNotFoundError:
        return None, None
    if not first.endswith(b"\n"):
        return None, None
    header: dict[str, Any] = orjson.loads(first)["part"]
    last = tail[:-1].rpartition(b"\n")[2]
    if not (tail.endswith(b"}\n") and last.startswith(b'{"end":')):
        return header, None
    end: dict[str, Any] = orjson.loads(last)["end"]
    return header, end


@dataclass(frozen=True)
class LedgerState:
    """The latest entry of every record, as columns sorted by key.

    Attributes
    ----------
    keys : uint64 [n]. status : uint8 [n] of DONE, FAILED.
    size, mtime_ns : int64 [n], of the input; hashes : uint64 [n], first eight bytes of its SHA-256, 0 where unknown.
    part : int32 [n], index into `parts`; offset : int64 [n], where the entry's line begins.
    committed : the shards that are whole on disk, and how many records each held when it was written.
    shard : int32 [n], index into `shards`, -1 for outputs that are files of their own.
    companions : bool [n], whether the entry names further input files.
    paths : uint64 [n], hash of the input's path where the record is known by an identifier, else 0.
    names : uint64 [n], hash of the name of its output file, as `Naming.key` gives it; 0 where it has none of its own.
    """

    parts: tuple[Path, ...]
    shards: tuple[str, ...]
    committed: Mapping[str, int]
    keys: npt.NDArray[np.uint64]
    status: npt.NDArray[np.uint8]
    size: npt.NDArray[np.int64]
    mtime_ns: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    part: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    shard: npt.NDArray[np.int32]
    companions: npt.NDArray[np.bool_]
    paths: npt.NDArray[np.uint64]
    names: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """For each key its row here, or -1."""
        if len(self.keys) == 0:
            return np.full(len(keys), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, at, -1).astype(np.int64)

    def find_all(self, keys: Sequence[int]) -> list[int]:
        """`find` for a list of keys."""
        return [int(row) for row in self.find(np.array(keys, dtype=np.uint64))]

    def entries(self, rows: Iterable[int]) -> Iterator[dict[str, Any]]:
        """The ledger lines of some rows, read from the parts."""
        with ExitStack() as opened:
            maps: dict[int, mmap.mmap] = {}
            for row in rows:
                part, offset = int(self.part[row]), int(self.offset[row])
                if part not in maps:
                    if len(maps) == _PARTS_OPEN:  # a job array leaves more parts than a process may open files
                        opened.close()
                        maps.clear()
                    with open(self.parts[part], "rb") as file:
                        maps[part] = opened.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
                yield orjson.loads(maps[part][offset : maps[part].find(b"\n", offset)])


_COLUMNS: dict[str, tuple[str, type[np.generic]]] = {
    "keys": ("Q", np.uint64),
    "status": ("B", np.uint8),
    "size": ("q", np.int64),
    "mtime_ns": ("q", np.int64),
    "hashes": ("Q", np.uint64),
    "part": ("i", np.int32),
    "offset": ("q", np.int64),
    "shard": ("i", np.int32),
    "companions": ("B", np.bool_),
    "paths": ("Q", np.uint64),
    "names": ("Q", np.uint64),
}
"""A `LedgerState`'s columns, as they grow and as they are kept."""


def _values(entry: Entry, part: int, offset: int, shards: dict[str, int]) -> tuple[int, ...]:
    """An entry's values for `_COLUMNS`; a shard that is new gets a number."""
    get = entry.get
    shard, output = get("shard"), get("output")
    return (
        int(entry["key"], 16),
        STATUS[entry["status"]],
        get("size") or 0,
        get("mtime_ns") or 0,
        int((get("sha256") or "0")[:16], 16),
        part,
        offset,
        -1 if shard is None else shards.setdefault(shard, len(shards)),
        "companions" in entry,
        int(get("path") or "0", 16),
        path_key(output.casefold()) if output and shard is None else 0,
    )


def read_ledger(folder: Path) -> LedgerState:
    """The state that all parts in a ledger's folder come to; a folder that is not there has none."""
    return read_parts(tuple(sorted(folder.glob("*.jsonl"))))


def read_parts(parts: tuple[Path, ...]) -> LedgerState:
    """Read parts in order; of several entries for one record the latest counts.

    Entries of a shard that was never committed do not count: the shard may be half there.
    """
    shards: dict[str, int] = {}
    committed: dict[str, int] = {}
    columns = {name: array(kind) for name, (kind, _) in _COLUMNS.items()}
    append = [column.append for column in columns.values()]
    for number, part in enumerate(parts):
        for offset, entry in entry_lines(part):
            if "key" in entry:
                for add, value in zip(append, _values(entry, number, offset, shards), strict=True):
                    add(value)
            elif "shard" in entry:
                shards.setdefault(entry["shard"], len(shards))
                committed[entry["shard"]] = entry.get("records", 0)
    arrays = {name: np.array(columns.pop(name), dtype) for name, (_, dtype) in _COLUMNS.items()}
    loose = arrays["shard"] < 0
    whole = np.array([name in committed for name in shards] + [False])  # the last one is for records without a shard
    kept = np.flatnonzero(loose | whole[arrays["shard"]])
    # Latest first, so that np.unique's first occurrence of a key is its latest entry.
    latest = kept[::-1][np.unique(arrays["keys"][kept][::-1], return_index=True)[1]]
    return LedgerState(parts, tuple(shards), committed, **{name: values[latest] for name, values in arrays.items()})


def key_text(key: int) -> str:
    """A record's key as it stands in the ledger: 16 hexadecimal digits."""
    return f"{key:016x}"
