"""The manifest, `manifest.pq`, with one row per path of the dataset, and `failures.csv` with the failed ones.

In: the cohort and the ledger. Out: tables for pandas, polars and DuckDB, and the counts of the summary.
"""

from __future__ import annotations

import csv
import io
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.cohort.cohort import Cohort, Record
from ecgfounder.cohort.index import record_key
from ecgfounder.ecg.recording import META_KEYS
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import as_cell
from ecgfounder.ledger.entry import Entry
from ecgfounder.ledger.ledger import LedgerState
from ecgfounder.storage.paths import printable
from ecgfounder.storage.writing import Place, writing

RECORDS_AT_ONCE = 4096
STAGES = ("read", "prepare", "embed", "write")

FAILURE_COLUMNS = ("row_index", "path_index", "record", "error", "reason")

_TEXT_META = ("format_version", "device_manufacturer", "device_model", "software_version")

SCHEMA = pa.schema(
    [
        ("row_index", pa.int64()),
        ("path_index", pa.int32()),
        ("record", pa.string()),
        ("status", pa.string()),
        ("output", pa.string()),
        ("error", pa.string()),
        ("reason", pa.string()),
        ("format", pa.string()),
        ("sampling_rate", pa.float64()),
        ("n_samples", pa.int64()),
        ("leads", pa.list_(pa.string())),
        ("shape", pa.list_(pa.int32())),
        ("window_starts", pa.list_(pa.float64())),
        ("flags", pa.list_(pa.string())),
        ("input_bytes", pa.int64()),
        ("input_mtime", pa.timestamp("ns", tz="UTC")),
        ("input_sha256", pa.string()),
        *((f"seconds_{stage}", pa.float64()) for stage in STAGES),
        *((key, pa.string() if key in _TEXT_META else pa.float64()) for key in sorted(META_KEYS)),
    ]
)


HEART_RATE = pa.field("heart_rate", pa.float64())
"""The column of the heart rate, in beats per minute, if the run measures it."""


def manifest_schema(*, heart_rate: bool) -> pa.Schema:
    """The manifest's own columns."""
    return SCHEMA.append(HEART_RATE) if heart_rate else SCHEMA


class Account(Protocol):
    """A receiver of every record that is done or failed."""

    def add(self, record: str, entry: Entry) -> None: ...


@dataclass
class Tally:
    """Counts of a run's records; a record that appears in several rows counts once.

    Attributes
    ----------
    absent : int
        The failed records that lack a file.
    failures : list of (str, str)
        The first failed records, with the paths of those that have identifiers, and the reasons. It is for the terminal only.
    pending_by_shard : Counter of str
        The number of pending records of each shard ("3/16") that has any, if the run is done in shards.
    """

    done: int = 0
    failed: int = 0
    pending: int = 0
    absent: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[tuple[str, str]] = field(default_factory=list)
    likely: Counter[str] = field(default_factory=Counter)
    pending_by_shard: Counter[str] = field(default_factory=Counter)

    def add(self, record: str, entry: Entry) -> None:
        """Count a record that is done or failed."""
        for stage, seconds in entry.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        if entry.status == "failed":
            self.failed += 1
            self.absent += bool(entry.absent)
            if len(self.failures) < 20:
                shown = record if entry.file is None else f"{record} ({entry.file})"
                self.failures.append((shown, str(entry.reason)))
            return
        self.done += 1
        self.formats[str(entry.facts.format)] += 1
        self.flags.update({flag.partition(":")[0] for flag in entry.facts.flags})

    def as_dict(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "failed": self.failed,
            "pending": self.pending,
            "flags": dict(self.flags),
            "formats": dict(self.formats),
            "likely": dict(self.likely.most_common(20)),
            "seconds": {stage: round(seconds, 3) for stage, seconds in self.seconds.items()},
        }


def check_kept_columns(cohort: Cohort, columns: Sequence[str], *, heart_rate: bool = False) -> None:
    """Refuse columns that do not exist, that cannot be read completely, or whose names the manifest uses itself."""
    for column in columns:
        cohort.require(column, "keep_columns")
        if column in manifest_schema(heart_rate=heart_rate).names:
            raise SettingsError(
                f"keep_columns {column}: the manifest has a column of that name; rename it in the dataset."
            )
    if columns:  # find a value that does not fit its column now, not at the end of the run
        deque(cohort.rows(columns), maxlen=0)


def write_manifest(
    cohort: Cohort,
    state: LedgerState,
    data_dir: str,
    keep_columns: Sequence[str],
    manifest: Place,
    failures: Place,
    tables: Sequence[Account] = (),
    *,
    shards: int = 1,
    heart_rate: bool = False,
) -> Tally:
    """Look up every path of the cohort in the ledger and write both tables, each atomically.

    Each of `tables` receives every record once, in the dataset's order. Rows are in the dataset's order; a path that occurs
    several times has the same facts in each row.
    """
    tally = Tally()
    keep_columns = list(dict.fromkeys(keep_columns))
    schema = pa.unify_schemas([manifest_schema(heart_rate=heart_rate), cohort.schema_of(keep_columns)])
    told = np.zeros(len(state), dtype=np.bool_)
    pending = array("Q")
    with writing(manifest) as aside, writing(failures) as failures_aside:
        text = io.TextIOWrapper(failures_aside, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text)
        table.writerow(FAILURE_COLUMNS)
        with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
            paths = cohort.records_with(keep_columns)
            while chunk := list(islice(paths, RECORDS_AT_ONCE)):
                rows = _rows(chunk, state, data_dir, told, pending, (tally, *tables))
                table.writerows(_cells(row) for row in rows if row["status"] == "failed")
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        text.detach()
    left = np.unique(np.array(pending, np.uint64))
    tally.pending = len(left)
    if shards > 1:
        parts, counts = np.unique(left % np.uint64(shards), return_counts=True)
        tally.pending_by_shard.update(
            {f"{part + 1}/{shards}": int(count) for part, count in zip(parts, counts, strict=True)}
        )
    return tally


def _cells(row: dict[str, Any]) -> list[Any]:
    """A row of failures.csv."""
    values = (row[name] for name in FAILURE_COLUMNS)
    return [as_cell(value) if isinstance(value, str) else value for value in values]


def _rows(
    chunk: list[tuple[Record, dict[str, Any]]],
    state: LedgerState,
    data_dir: str,
    told: npt.NDArray[np.bool_],
    pending: array[int],
    accounts: Sequence[Account],
) -> list[dict[str, Any]]:
    """Manifest rows; each record is passed to the accounts once: `told` marks the ledger's, `pending` collects other keys."""
    keys = [record_key(record, data_dir) for record, _ in chunk]
    found = state.find_all(keys)
    lines = state.entries([row for row in found if row >= 0])
    rows: list[dict[str, Any]] = []
    for (record, kept), key, at in zip(chunk, keys, found, strict=True):
        entry = next(lines) if at >= 0 else None
        shown = printable(record.path if record.identifier is None else record.identifier)
        if entry is None:
            pending.append(key)
        elif not told[at]:
            told[at] = True
            for account in accounts:
                account.add(shown, entry)
        place = {"row_index": record.row, "path_index": record.position}
        rows.append(kept | place | row_of(shown, entry))
    return rows


def row_of(record: str, entry: Entry | None) -> dict[str, Any]:
    """The manifest's columns of a record, except its position in the dataset; `entry` is None if it is still to do."""
    if entry is None:
        return {"record": record, "status": "pending"}
    facts, given = entry.facts, entry.input
    return {
        "record": record,
        "status": entry.status,
        "output": entry.output,
        "error": entry.error,
        "reason": entry.reason,
        "format": facts.format,
        "sampling_rate": facts.sampling_rate,
        "n_samples": facts.n_samples,
        "leads": facts.leads or None,
        "shape": entry.shape,
        "window_starts": facts.starts or None,
        "flags": facts.flags if facts.leads or entry.status == "done" else None,
        "input_bytes": None if given is None else given.size,
        "input_mtime": None if given is None else given.mtime_ns,
        "input_sha256": None if given is None else given.sha256,
        **{f"seconds_{stage}": entry.seconds.get(stage) for stage in STAGES},
        **({} if facts.heart_rate is None else {HEART_RATE.name: facts.heart_rate}),
        **{key: _meta_value(key, value) for key, value in facts.device.items() if key in META_KEYS},
    }


def _meta_value(key: str, value: str | float | None) -> str | float | None:
    """A device setting converted to its column's type; None if that is not possible."""
    if value is None or key in _TEXT_META:
        return value if value is None else str(value)
    try:
        return float(value)
    except ValueError:
        return None
