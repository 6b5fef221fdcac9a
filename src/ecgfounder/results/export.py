"""`ecgfounder export`: write a run's embeddings in another format, with the sinks of a run.

In: a run's output folder. Out: a new folder that is a run itself, of JSON, Parquet or NPY: embeddings, ledger, manifest,
failures, run.json. An export to JSON writes the same bytes as a JSON run.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder._version import __version__
from ecgfounder.checks import check_choice
from ecgfounder.cohort.cohort import Record
from ecgfounder.cohort.index import output_name
from ecgfounder.cohort.naming import LAYOUT_CHOICES, Layout, Naming
from ecgfounder.errors import PrepareError, RunError, SettingsError, StorageError
from ecgfounder.escaping import one_line
from ecgfounder.ledger.admission import take_folder
from ecgfounder.ledger.entry import Commitment, Entry, Line, PartEnd, PartHeader
from ecgfounder.ledger.folder import OLD_TABLE_SUFFIX, TABLE_SUFFIX, RunFolder, leads_out
from ecgfounder.ledger.groups.epochs import Epoch
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.groups.names import WHOLE
from ecgfounder.ledger.groups.writer import GroupWriter
from ecgfounder.ledger.ledger import DONE, FAILED, LedgerState, LedgerWriter, part_name, read_ledger
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.locks import RunLock
from ecgfounder.ledger.record import FORMAT_VERSION, RunRecord, new_run_id, now
from ecgfounder.results.run import EmbeddingRun, open_run
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.npy import NpySink
from ecgfounder.sinks.objects import ObjectSink, ParquetObjectSink
from ecgfounder.sinks.parquet import ParquetSink
from ecgfounder.sinks.sink import Output, ShardWritten, Sink, Written
from ecgfounder.storage import Location, StorageOptions
from ecgfounder.storage import storage_options as make_options
from ecgfounder.storage.paths import path_key
from ecgfounder.storage.writing import writing

TARGETS = ("json", "npy", "parquet")


COLLISIONS_SHOWN = 20


RECORDS_AT_ONCE = 64


def export_run(
    run: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    to: str,
    *,
    layout: str | None = None,
    shard_size: int = 1000,
    allow_incomplete: bool = False,
    storage_options: Mapping[str, object] | StorageOptions | None = None,
) -> int:
    """Write a run's embeddings in another format.

    Parameters
    ----------
    run : str or os.PathLike
        The run's output folder, a path or a URL; it is only read.
    output_dir : str or os.PathLike
        A new or empty folder, a path or a URL (s3://, gs://, az://), which becomes a run of the new format. `open_run` reads it.
        If `ecgfounder embed` writes this format, the run's command with the new `--format` can resume it.
    to : str
        "json" and "npy": a file per recording, [T, 1024], [1024], or with windows [W, T, 1024] (feature maps for a run with
        `--pooling both`); "parquet": shards. Numbers are float32, except in Parquet for a run with `--dtype float16`.
    layout : str, optional
        "flat" or "tree", for files; None for the run's layout.
    shard_size : int, default: 1000
        Recordings per Parquet shard.
    allow_incomplete : bool, default: False
        Also export a run that is not complete; the export is then incomplete too.
    storage_options : mapping, optional
        Options of object stores that are not in the environment, as for `embed_cohort`.

    Returns
    -------
    int
        Number of recordings written.

    Raises
    ------
    RunError
        If the run does not exist or is not complete, the folder is not empty, names collide, windows differ in length (only
        Parquet can hold them), an embedding is missing, or writing fails. Outputs written until then are kept, as a run that
        is not complete.
    SettingsError
        For an unknown format or layout.
    """
    check_choice("to", to, TARGETS)
    source = open_run(run, allow_incomplete=allow_incomplete, storage_options=storage_options)
    layout = layout or source.record.form.layout
    check_choice("layout", layout, LAYOUT_CHOICES)
    if source.has_ragged_windows and to != "parquet":
        raise RunError(
            f"the run's last windows are shorter than the others (remainder='keep'): one {to} array cannot hold a recording's "
            "windows. Export to parquet, or go through the run with ecgfounder.open_run."
        )
    target = RunFolder(output_dir, make_options(storage_options))
    _refuse_folder(target.output_dir, source.folder)
    export = _Export(source, target, to, layout, shard_size)
    try:
        return export.execute()
    except (OSError, StorageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(
            f"{target.output_dir} could not be written: {reason}. It is not complete; remove it and start again."
        ) from error


def export_runs(
    runs: Sequence[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    to: str,
    *,
    names: Sequence[str] | None = None,
    layout: str | None = None,
    shard_size: int = 1000,
    allow_incomplete: bool = False,
    storage_options: Mapping[str, object] | StorageOptions | None = None,
) -> dict[str, int]:
    """Write several runs in another format: each becomes a run in a folder with its name in `output_dir`.

    Recordings that are in several runs are named in a UserWarning.

    Parameters
    ----------
    runs : sequence of str or os.PathLike
        The runs' output folders.
    output_dir : str or os.PathLike
        The folder of the new folders, which must be new or empty.
    to : str
        "json", "npy" or "parquet".
    names : sequence of str, optional
        The names of the new folders; None for those of the runs' folders.
    layout, shard_size, allow_incomplete, storage_options
        As for `export_run`.

    Returns
    -------
    dict of str to int
        Number of recordings written, by name.

    Raises
    ------
    RunError, SettingsError
        As `export_run` and `open_run` do; also if a name cannot be that of a folder. Folders are checked before any work.
    """
    options = make_options(storage_options)
    opened = open_run(
        list(runs), names=names, allow_different=True, allow_incomplete=allow_incomplete, storage_options=options
    )
    for name in opened.names:
        if not _FOLDER_NAME.fullmatch(name):
            raise SettingsError(
                f"Invalid value for the 'names' parameter. Each must be the name of a folder, of letters, digits, '_', '-' and "
                f"'.', got {name!r}."
            )
    targets = {name: RunFolder(output_dir, options).output_dir / name for name in opened.names}
    for name, run in zip(opened.names, opened.runs, strict=True):
        _refuse_folder(targets[name], run.folder)
    return {
        name: export_run(
            str(run.folder),
            str(targets[name]),
            to,
            layout=layout,
            shard_size=shard_size,
            allow_incomplete=allow_incomplete,
            storage_options=options,
        )
        for name, run in zip(opened.names, opened.runs, strict=True)
    }


_FOLDER_NAME = re.compile(r"\w[\w.-]*")


def _refuse_folder(target: Location, run: Location) -> None:
    if not target.is_local:
        if target.store == run.store and f"{target.name}/".startswith(f"{run.name}/" if run.name else ""):
            raise RunError(f"{target} is inside the exported run; choose a folder outside of it")
        if target.is_folder():
            raise RunError(f"{target} is not empty: an export is written into a new or empty folder")
        return
    output_dir = target.path
    if run.is_local and Path(os.path.realpath(output_dir)).is_relative_to(os.path.realpath(run)):
        raise RunError(f"{output_dir} is inside the exported run; choose a folder outside of it")
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise RunError(f"{output_dir} is not empty: an export is written into a new or empty folder")


def _refuse_run(target: RunFolder) -> None:
    if target.read() is not None:
        raise RunError(f"{target.output_dir} contains a run now: an export is written into a new or empty folder")


class _Export:
    """One export; `execute` runs it.

    A record here is an output of the source: several dataset rows with the same path share it.
    """

    def __init__(self, source: EmbeddingRun, target: RunFolder, to: str, layout: str, shard_size: int) -> None:
        self.source = source
        self.target = target
        self.to = to
        self.layout = layout
        self.told = source.record.settings
        self.named_by_id = self.told.id_column is not None
        self.shard_size = shard_size
        self.naming = Naming(cast(Layout, layout), self.told.data_dir, suffix=f".{to}")
        self.ledger = read_ledger(RunFolder(source.folder).ledger)
        encoded = source.records["output"].combine_chunks().dictionary_encode()
        self.record_of_row: npt.NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
        _, first = np.unique(self.record_of_row, return_index=True)
        self.first_rows = np.sort(first)  # the dictionary has values in the order of their first occurrence

    def execute(self) -> int:
        rows = _ledger_rows(self.source, self.ledger, self.first_rows)
        if self.to != "parquet" or self.named_by_id:
            self._refuse_collisions(rows)
        with StoreHold(self.target, WHOLE) if self.target.is_remote else take_folder(self.target) as hold:
            _refuse_run(self.target)  # another export may have started at the same time
            if isinstance(hold, StoreHold):
                hold.begin()
            return self._write_run(rows, hold)

    def _write_run(self, rows: npt.NDArray[np.int64], hold: RunLock | StoreHold) -> int:
        record = self._record()
        self.target.write(replace(record, outcome="exporting"))
        self.target.write_card(record)
        name = part_name(time.time_ns(), (1, 1), 0, 1)
        header = PartHeader(**own_name(), exported=True, started=now())
        writer: LedgerWriter | GroupWriter
        if isinstance(hold, StoreHold):
            writer, sink = hold.writer(header=header), self._object_sink(hold.epoch)
        else:
            writer, sink = LedgerWriter(self.target.ledger.path / name, header), self._sink(name)
        try:
            outputs = self._write(rows, sink, writer)
            writer.append(list(self._failed()))
            writer.end(PartEnd(outcome="complete", done=len(outputs)))
        finally:
            writer.abandon()
        if self.source.is_complete:
            self._write_tables(outputs)
        if isinstance(hold, StoreHold):
            hold.seal()
        self.target.write(record)
        return len(outputs)

    def _record(self) -> RunRecord:
        """The source's run record, with the export's changes."""
        record = self.source.record
        fingerprint = {**record.fingerprint, "format": self.to, "layout": self.layout}
        if self.to != "parquet" and self.source.pooling == "both":
            fingerprint["pooling"] = "none"  # a file holds one embedding
        exported = {"from": self.source.format, "version": __version__, "at": now()}
        return replace(
            record, fingerprint=fingerprint, exported=exported, run_id=new_run_id(), format_version=FORMAT_VERSION
        )

    def _object_sink(self, epoch: Epoch) -> Sink:
        if self.to == "parquet":
            return ParquetObjectSink(
                self.target.output_dir,
                prefix=epoch.prefix,
                shard_size=self.shard_size,
                dtype=self.source.record.form.dtype,
                record_column="identifier" if self.named_by_id else "ecg_path",
            )
        return ObjectSink(self.target.output_dir, JsonSink if self.to == "json" else NpySink)

    def _sink(self, part: str) -> Sink:
        if self.to == "parquet":
            return ParquetSink(
                self.target.output_dir.path,
                self.target.scratch,
                prefix=part.removesuffix(".jsonl"),
                shard_size=self.shard_size,
                dtype=self.source.record.form.dtype,
                record_column="identifier" if self.named_by_id else "ecg_path",
            )
        kind = JsonSink if self.to == "json" else NpySink
        return kind(self.target.output_dir.path, self.target.scratch)

    def _write(self, rows: npt.NDArray[np.int64], sink: Sink, writer: LedgerWriter | GroupWriter) -> pa.ChunkedArray:
        """Write every record; the new outputs, in the records' order."""
        new: list[str | None] = [None] * len(rows)

        def commit(written: list[Written | ShardWritten]) -> None:
            lines: list[Line] = []
            for each in written:
                if isinstance(each, ShardWritten):
                    lines.append(Commitment(each.shard, each.rows, each.records))
                    continue
                if each.error is not None:
                    raise RunError(f"{each.error}. The export is not complete; remove {self.target.output_dir}.")
                lines.append(replace(each.output.receipt, output=each.reference, shard=each.shard, tag=each.tag))
                new[each.output.order] = each.reference
            writer.append(lines)

        outputs = self._outputs(rows)
        while group := list(islice(outputs, RECORDS_AT_ONCE)):
            commit(sink.write(group))
        commit(sink.close())
        return pa.chunked_array([pa.array(new, pa.string())])

    def _outputs(self, rows: npt.NDArray[np.int64]) -> Iterator[Output]:
        for number, (entry, position) in enumerate(self._entries(rows)):
            old = self.source.records["output"][int(self.first_rows[number])].as_py()
            embeddings, means, outer = self.source.stored(old, list(entry.shape or ()))
            yield Output(
                key=entry.key,
                record=entry.record,
                title=entry.record if self.named_by_id else os.path.basename(entry.record),
                name="" if self.to == "parquet" else self._name(entry, position),
                embeddings=tuple(embeddings),
                outer_shape=outer,
                order=number,
                means=tuple(means),
                facts=entry.facts,
                receipt=entry,
            )

    def _entries(self, rows: npt.NDArray[np.int64]) -> Iterator[tuple[Entry, int]]:
        """Each record's ledger entry, and the position of its path in the dataset row."""
        positions = self.source.records["path_index"].take(pa.array(self.first_rows)).fill_null(0)
        for entry, position in zip(self.ledger.entries(rows.tolist()), positions, strict=True):
            yield entry, position.as_py()

    def _failed(self) -> Iterator[Entry]:
        yield from self.ledger.entries(np.flatnonzero(self.ledger.status == FAILED).tolist())

    def _name(self, entry: Entry, position: int) -> str:
        """The output's name in a run with this layout."""
        record = entry.record
        if self.named_by_id:
            return output_name(Record("", 0, position, record), self.naming)
        return self.naming.name(record)

    def _refuse_collisions(self, rows: npt.NDArray[np.int64]) -> None:
        """Refuse, before any work, recordings that would share an output name or cannot have one."""
        keys = np.empty(len(rows), dtype=np.uint64)
        for number, (entry, position) in enumerate(self._entries(rows)):
            try:
                keys[number] = self.naming.key(self._name(entry, position))
            except PrepareError as error:
                raise RunError(f"{entry.record} cannot be exported to {self.to}: {error}") from error
        values, counts = np.unique(keys, return_counts=True)
        colliding = values[counts > 1]
        if not len(colliding):
            return
        numbers = np.flatnonzero(np.isin(keys, colliding))
        entries = self.ledger.entries(rows[numbers[:COLLISIONS_SHOWN]].tolist())
        shown = "".join(f"\n  {one_line(entry.record)}" for entry in entries)
        raise RunError(
            f"{len(colliding):,} names would be shared by different recordings (upper and lower case count as equal). "
            f"layout='tree' mirrors the folders below the run's data_dir. Recordings that would share a name:{shown}"
        )

    def _write_tables(self, outputs: pa.ChunkedArray) -> None:
        """Write the source's manifest with the new outputs, and copy its other tables."""
        manifest = self.source.manifest
        place = np.full(manifest.num_rows, -1, dtype=np.int64)
        done = np.flatnonzero(manifest["status"].to_numpy() == "done")
        place[done] = self.record_of_row
        new = outputs.take(pa.array(place, mask=place < 0))
        column = manifest.column_names.index("output")
        with writing(self.target.table("manifest")) as file:
            pq.write_table(manifest.set_column(column, "output", new), file, compression="zstd")
        source = RunFolder(self.source.folder)
        for table in source.tables():
            if table.stem != "manifest":
                if leads_out(source.run, table.basename):
                    raise RunError(
                        f"{table} is a link out of the run's folder; copy the run with the files that its links lead to (cp -rL)"
                    )
                name = table.basename.replace(OLD_TABLE_SUFFIX, TABLE_SUFFIX)
                (self.target.run / name).put(table.read())


def _ledger_rows(source: EmbeddingRun, ledger: LedgerState, first_rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ledger's row of each record, found by its output."""
    done = np.flatnonzero(ledger.status == DONE)
    known = np.fromiter((path_key(entry.output or "") for entry in ledger.entries(done.tolist())), np.uint64, len(done))
    order = np.argsort(known)
    outputs = source.records["output"].take(pa.array(first_rows))
    wanted = np.fromiter((path_key(output.as_py()) for output in outputs), np.uint64, len(outputs))
    at = np.minimum(np.searchsorted(known[order], wanted), max(0, len(known) - 1))
    if len(wanted) and (not len(known) or np.any(known[order][at] != wanted)):
        raise RunError(f"the ledger and the manifest of {source.folder} do not agree; the run's command repairs this")
    return done[order[at]] if len(wanted) else np.empty(0, dtype=np.int64)
