"""Runs as `ecgfounder embed` leaves them, with made-up embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ecgfounder.cohort.cohort import Record
from ecgfounder.cohort.index import record_identity, record_key
from ecgfounder.cohort.naming import Naming
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.ledger.admission import create_folder
from ecgfounder.ledger.entry import Entry, key_text
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import LedgerWriter, read_ledger
from ecgfounder.ledger.manifest import write_manifest
from ecgfounder.ledger.record import CohortSettings, RunRecord
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.parquet import ParquetSink
from ecgfounder.sinks.sink import Output
from ecgfounder.stages.pooling import pooled
from ecgfounder.storage.paths import path_key
from tests.builders.entries import END, HEADER, entry_of, lines_from

C = 6
DATA_DIR = "/data"
PATHS = ("a/1.xml", "a/2.xml", "b/3.xml", "b/4.xml")
STUDIES = (101, 102, 103, 103)
BROKEN = ("b/5.xml", 104)


@dataclass
class Made:
    """A run as `ecgfounder embed` leaves it, with made-up embeddings of 6 channels.

    `embeddings` gives a recording's embeddings in order, windows first, then leads. Runs with another `data` are of
    other files. `kept` has further columns of the dataset, and `facts` what is different about some recordings, by path.
    """

    folder: Path
    format: str = "json"
    pooling: str = "none"
    stride: float | None = None
    remainder: str | None = None
    lead: str | None = None
    dtype: str = "float32"
    layout: str = "flat"
    id_column: str | None = None
    shard_size: int = 2
    outcome: str = "complete"
    lengths: Mapping[str, int] = field(default_factory=dict)
    n_windows: int = 1
    leads: Sequence[str] = ("I", "II")
    rows: Sequence[tuple[str, int]] = (*zip(PATHS, STUDIES, strict=True), BROKEN)
    done_order: Sequence[str] = PATHS
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    data: int = 0
    checkpoint: str = "0" * 64
    kept: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def books(self) -> RunFolder:
        return RunFolder(self.folder)

    def embeddings(self, path: str) -> list[npt.NDArray[np.float32]]:
        chance = np.random.default_rng([path_key(path), self.data] if self.data else path_key(path))
        n = self.n_windows * (len(self.leads) if self.lead == "all" else 1)
        tokens = [self.lengths.get(path, 3)] * n
        if self.remainder == "keep":
            tokens[-1] = 1
        maps = [chance.standard_normal((t, C)).astype(np.float32) for t in tokens]
        return [pooled(each) for each in maps] if self.pooling == "mean" else maps

    def key(self, path: str) -> str:
        """As the run would have it; `self.rows` are single paths of their rows."""
        identifier = str(dict(self.rows)[path]) if self.id_column else None
        return key_text(record_key(Record(path, 0, 0, identifier), DATA_DIR))

    def output(self, path: str, order: int) -> Output:
        views = self.embeddings(path)
        outer = (() if self.stride is None else (self.n_windows,)) + ((len(self.leads),) if self.lead == "all" else ())
        naming = Naming(self.layout, DATA_DIR)
        study = dict(self.rows)[path]
        name = naming.name_for_id(str(study)) if self.id_column else naming.name(path)
        facts: dict[str, Any] = {
            "sha256": f"{path_key(path) + self.data:064x}",
            "format": "philips_sierra",
            "sampling_rate": 500.0,
            "n_samples": 5000,
            "leads": list(self.leads),
            "flags": list(self.flags.get(path, ())),
            "starts": [number * (self.stride or 0.0) for number in range(self.n_windows)],
        }
        entry = entry_of(
            self.key(path),
            record=str(study) if self.id_column else record_identity(path, DATA_DIR),
            output=name,
            shape=[*outer, *views[0].shape],
            size=10,
            mtime_ns=1,
            seconds={"read": 0.1},
            **{**facts, **self.facts.get(path, {})},
        )
        title = str(study) if self.id_column else path.rpartition("/")[2]
        means = tuple(pooled(view) for view in views) if self.pooling == "both" else ()
        return Output(
            entry.key, entry.record, title, name, tuple(views), outer, order, means, facts=entry.facts, receipt=entry
        )

    def sink(self, prefix: str = "00000000000000000001") -> JsonSink | ParquetSink:
        if self.format == "json":
            return JsonSink(self.folder, self.books.scratch)
        column = "identifier" if self.id_column else "ecg_path"
        return ParquetSink(
            self.folder,
            self.books.scratch,
            prefix=prefix,
            shard_size=self.shard_size,
            dtype=self.dtype,
            record_column=column,
        )

    def failure(self, path: str) -> Entry:
        return entry_of(self.key(path), "failed", record=path, error="ReadError", reason="no such file")

    def make(self) -> Path:
        books = self.books
        create_folder(books)
        books.write(self.record())
        ledger = LedgerWriter(books.ledger.path / "00000000000000000001.jsonl", HEADER)
        sink = self.sink()
        order = [path for path, _ in self.rows]
        for path in self.done_order:
            ledger.append(lines_from(sink.write([self.output(path, order.index(path))])))
        ledger.append(lines_from(sink.close()))
        ledger.append([self.failure(path) for path, _ in self.rows if path == BROKEN[0]])
        ledger.end(END)
        if self.outcome == "complete":
            self.write_books()
        return self.folder

    def write_books(self) -> None:
        dataset = self.folder.parent / f"{self.folder.name}.jsonl"
        lines = [orjson.dumps({"ecg_paths": [p], "study_id": s, **self.kept.get(p, {})}) for p, s in self.rows]
        dataset.write_bytes(b"".join(line + b"\n" for line in lines))
        cohort = open_cohort(str(dataset), id_column=self.id_column)
        names = ("study_id", *next(iter(self.kept.values()), {}))
        keep = tuple(name for name in names if name != self.id_column)
        books = self.books
        state = read_ledger(books.ledger)
        write_manifest(cohort, state, DATA_DIR, keep, books.table("manifest").path, books.failures.path)

    def record(self) -> RunRecord:
        preparation = {
            "mode": "12lead" if self.lead is None else "1lead",
            "lead": self.lead,
            "stride": self.stride,
            "remainder": self.remainder,
            "recipe": {"name": "zscore", "version": "1"},
        }
        fingerprint = {"preparation": preparation, "pooling": self.pooling, "dtype": self.dtype}
        fingerprint |= {"format": self.format, "layout": self.layout, "id_column": self.id_column}
        fingerprint |= {"predictions": False, "statements": False, "checkpoint_sha256": self.checkpoint}
        told = CohortSettings(dataset="made.jsonl", data_dir=DATA_DIR, id_column=self.id_column)
        return RunRecord(outcome=self.outcome, fingerprint=fingerprint, settings=told, run_id="made", format_version=2)


FORMS: dict[str, dict[str, Any]] = {
    "maps": {},
    "means": {"pooling": "mean"},
    "windows": {"stride": 2.0, "n_windows": 3},
    "one_window_in_sequence": {"stride": 2.0},
    "window_means": {"stride": 2.0, "n_windows": 3, "pooling": "mean"},
    "every_lead": {"lead": "all", "leads": ("I", "II", "V1")},
    "windows_of_every_lead": {"lead": "all", "leads": ("I", "II", "V1"), "stride": 2.0, "n_windows": 2},
}
