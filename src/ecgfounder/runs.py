"""A finished run read back, JSON, Parquet and NPY alike: arrays for learning, tables to join, embeddings one by one.

In: a run's output folder, wherever it lies now. Out: an `EmbeddingRun`; its embeddings are read when they are used.
Everything is in the dataset's order, and embeddings and tables are aligned row by row.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgfounder.errors import RunError
from ecgfounder.ledger import read_ledger
from ecgfounder.manifest import FAILURE_COLUMNS, SCHEMA, STAGES
from ecgfounder.recipes import check_choice
from ecgfounder.runfolder import RunFolder
from ecgfounder.sinks.parquet import EMBEDDINGS
from ecgfounder.views import pooled

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

CACHE_BYTES = 256 << 20
"""Decoded parts of shards that a run keeps, at most (one part at least)."""

POOLING_CHOICES = ("none", "mean")

MAIN, MEANS = EMBEDDINGS

_SHARDS_OPEN = 64
_RECORDS_AT_ONCE = 4096
_KEY_LENGTH = 16
_REFERENCE = re.compile(rf"(?P<shard>.+\.parquet)::(?P<key>[0-9a-f]{{{_KEY_LENGTH}}})", re.DOTALL)
_NOT_IN_META = ("status", "error", "reason", "shape", "window_starts")


def open_run(folder: str | os.PathLike[str], *, allow_incomplete: bool = False) -> EmbeddingRun:
    """Open the output folder of a run, which may have been moved since.

    Parameters
    ----------
    folder : the run's `--output_dir`.
    allow_incomplete : also open a run that was interrupted or is still at work, with what it has finished up to now.

    Raises
    ------
    RunError
        If the folder holds no run, or one that is not complete; the message says how to finish it.

    Examples
    --------
    >>> run = open_run(folder)
    >>> run
    <EmbeddingRun: 4 recordings, 1 failed, json, zscore v1, 12lead, complete>
    >>> X, meta = run.arrays(pooling="mean")
    >>> X.shape
    (4, 6)
    >>> meta["record"].to_pylist()
    ['a/1.xml', 'a/2.xml', 'b/3.xml', 'b/4.xml']
    """
    books = RunFolder(Path(folder))
    facts = books.read()
    if facts is None:
        raise RunError(f"{folder} holds no run: expected {books.run_json}. Give the --output_dir of a run.")
    whole = facts.get("outcome") == "complete" and books.manifest.exists()
    if not whole and not allow_incomplete:
        raise RunError(
            f"the run in {folder} is not complete (outcome: {facts.get('outcome')}). The command that began it finishes it, "
            "after a job array `ecgfounder merge` does, an export is begun anew in another folder; with "
            "allow_incomplete=True (--allow_incomplete) what is there now is read."
        )
    try:
        manifest = pq.read_table(books.manifest) if books.manifest.exists() else _ledger_table(books.ledger)
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{books.manifest} cannot be read: {error}. The run's command writes it again.") from error
    return EmbeddingRun(books.output_dir, facts, manifest)


def read_embedding(reference: str | os.PathLike[str]) -> Array:
    """Read one embedding by the reference that chat files and manifests have for it.

    Parameters
    ----------
    reference : path of a run's JSON (or exported NPY), or `path/to/SHARD.parquet::KEY` for the rows of a Parquet shard
        that belong to one recording. A manifest's `output` is such a reference below the run's folder.

    Returns
    -------
    float32 array
        [T, 1024], [1024] with `--pooling mean`; windows, leads, or both in front: [W, T, 1024].

    Raises
    ------
    RunError
        If there is no such embedding, it is damaged, or its windows differ in length (`open_run` gives them one by one).

    Examples
    --------
    >>> read_embedding(folder / "1.json").shape
    (3, 6)
    """
    text = os.fspath(reference)
    match = _REFERENCE.fullmatch(text)
    if match is None:
        return _read_file(Path(text))
    path = Path(match["shard"])
    shard = _Shard(path, _Cache())
    views = shard.views(match["key"])
    if len({view.shape for view in views}) > 1:
        raise RunError(f"{text}: its windows differ in length, which one array cannot hold; open_run gives one by one.")
    facts = RunFolder(path.parent).read()
    outer = shard.outer_shape(match["key"], None if facts is None else _Form.of(facts))
    return np.stack(views).reshape(*outer, *views[0].shape)


class EmbeddingRun:
    """A run's embeddings with what is known of each; made by `open_run`.

    It has a row for each embedding of a path of the dataset: one per recording, or one per window (and lead of it) where the
    run has those, as in the Parquet shards. A path that several dataset rows name has its embedding at each of them.
    `len(run)` is the number of rows; going through the run gives `(facts, embedding)` for each, one at a time, with a
    bounded amount of memory: `facts` is what `arrays` has in its table, `embedding` float32 [T, 1024] or [1024].

    Order: the dataset's, windows in sequence, leads within windows. A run that is not complete has the order of its
    records' names instead, since the dataset has not been gone through.

    Attributes
    ----------
    folder : the output folder.
    settings : the contents of run.json: settings, fingerprint, versions, checkpoint, engine, counts.
    manifest : pyarrow.Table, one row per path of the dataset, failed ones among them; `.to_pandas()` where that is
        preferred. Of a run that is not complete: one row per record that is finished, without `row_index`, kept columns and
        device settings.

    Examples
    --------
    >>> run = open_run(folder)
    >>> len(run), run.outcome, run.settings["fingerprint"]["pooling"]
    (4, 'complete', 'none')
    >>> for facts, embedding in run:
    ...     print(facts["record"], facts["study_id"], embedding.shape)
    a/1.xml 101 (3, 6)
    a/2.xml 102 (3, 6)
    b/3.xml 103 (3, 6)
    b/4.xml 103 (3, 6)
    >>> run.failures.to_pylist()[0]["reason"]
    'no such file'
    """

    def __init__(self, folder: Path, settings: dict[str, Any], manifest: pa.Table) -> None:
        self.folder = folder
        self.settings = settings
        self.manifest = manifest
        self._form = _Form.of(settings)
        self._store = _Store(folder, self._form)

    @property
    def outcome(self) -> str:
        """How the run ended: "complete", or "running", "interrupted", "incomplete"."""
        return str(self.settings.get("outcome"))

    @property
    def is_complete(self) -> bool:
        """Whether every record of the dataset is done or failed."""
        return self.outcome == "complete"

    @property
    def format(self) -> str:
        """How the embeddings are stored: "json", "parquet" or "npy"."""
        return self._form.format

    @property
    def pooling(self) -> str:
        """What the run kept: "none", the map [T, 1024]; "mean", its mean over T [1024]; "both"."""
        return self._form.pooling

    @cached_property
    def failures(self) -> pa.Table:
        """The dataset's paths that have no embedding, with the reason: row_index, path_index, record, error, reason."""
        return self.manifest.filter(pc.equal(self.manifest["status"], "failed")).select(list(FAILURE_COLUMNS))

    @cached_property
    def records(self) -> pa.Table:
        """The manifest's rows that have an embedding: one per path, however many windows it has."""
        return self.manifest.filter(pc.equal(self.manifest["status"], "done"))

    @cached_property
    def _per_record(self) -> Rows:
        """int64 [records]: the rows that each has."""
        return self._form.rows_of(self.records["shape"])

    def __len__(self) -> int:
        return int(self._per_record.sum())

    def __repr__(self) -> str:
        fingerprint = self.settings["fingerprint"]
        recipe = fingerprint["preparation"]["recipe"]
        n_records, n_rows = self.records.num_rows, len(self)
        rows = "" if n_rows == n_records else f" in {n_rows:,} rows"
        return (
            f"<EmbeddingRun: {n_records:,} recordings{rows}, {self.failures.num_rows:,} failed, {self.format}, "
            f"{recipe['name']} v{recipe['version']}, {fingerprint['preparation']['mode']}, {self.outcome}>"
        )

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Array]]:
        records = self.records.drop_columns(["status", "error", "reason", "shape"])
        for first in range(0, records.num_rows, _RECORDS_AT_ONCE):
            part = records.slice(first, _RECORDS_AT_ONCE).to_pylist()
            stored = self._store.views(records["output"].slice(first, len(part)).to_pylist())
            for facts, views in zip(part, stored, strict=True):
                starts = facts.pop("window_starts")
                places = self._form.places(len(views), starts, facts["leads"])
                for view, place in zip(views, places, strict=True):
                    yield {**facts, **place}, view.copy()  # not a view of a whole part of a shard

    @property
    def has_ragged_windows(self) -> bool:
        """Whether the last window of a recording may be shorter than the others (`--remainder keep`, maps kept)."""
        return self._form.ragged

    def stored(self, output: str, shape: list[int]) -> tuple[list[Array], list[Array], tuple[int, ...]]:
        """One record as it is stored.

        Parameters
        ----------
        output, shape : as the manifest has them.

        Returns
        -------
        views : float32 [T, 1024] or [1024] of each window and lead.
        means : float32 [1024] of each where the run kept both, else none.
        outer_shape : windows, leads, both or none, what stands in front of one view's shape.
        """
        (views,) = self._store.views([output])
        means = next(self._store.views([output], MEANS)) if self.pooling == "both" else []
        return views, means, tuple(shape[: -self._form.inner])

    def arrays(self, pooling: str = "none") -> tuple[Embeddings, pa.Table]:
        """All embeddings as one array, and the table that goes with it, row by row.

        Parameters
        ----------
        pooling : "none": as the run kept them (the maps, where it kept both). "mean": the mean over T of what the run kept
            as a map (in float64, then float32, as `--pooling mean` has it); a run that kept the mean gives it either way, and
            one that kept both has it ready.

        Returns
        -------
        X : Embeddings
            float32 [N, 1024], or [N, T, 1024] where the run kept maps. Nothing is read until it is used: `X[rows]` reads some
            rows, `np.asarray(X)` (which scikit-learn and others call) all of them, `X.save("X.npy")` puts an array on disk
            that is larger than memory.
        meta : pyarrow.Table
            N rows: row_index, path_index, record, window, window_start (s), lead, format, sampling_rate, flags, kept
            columns, and the manifest's other facts.

        Raises
        ------
        RunError
            If the maps differ in T, which one array cannot hold.

        Examples
        --------
        >>> run = open_run(folder)
        >>> X, meta = run.arrays(pooling="mean")
        >>> y = meta["study_id"].to_numpy()
        >>> X.shape, len(y), X[y == 103].shape
        ((4, 6), 4, (2, 6))
        """
        return self._arrays(self.records, self._per_record, pooling)

    def _arrays(self, records: pa.Table, per_record: Rows, pooling: str) -> tuple[Embeddings, pa.Table]:
        check_choice("pooling", pooling, POOLING_CHOICES)
        row_shape = self._row_shape(records, pooling)
        column = MEANS if pooling == "mean" and self.pooling == "both" else MAIN
        X = Embeddings(self._store, records["output"], per_record, row_shape, column)
        return X, self._meta(records, per_record)

    def _row_shape(self, records: pa.Table, pooling: str) -> tuple[int, ...]:
        if records.num_rows == 0:
            raise RunError(f"{self.folder} holds no embedding that could be put into an array")
        shapes = self._form.inner_shapes(records["shape"])
        channels = int(shapes[0, -1])
        if pooling == "mean" or self.pooling == "mean":
            return (channels,)
        tokens = shapes[:, 0]
        if self._form.ragged:
            tokens = self._store.tokens(records["output"].to_pylist())
        low, high = int(tokens.min()), int(tokens.max())
        if low != high:
            raise RunError(
                f"the maps have between {low} and {high} tokens (the recordings or windows differ in length), which one array "
                'cannot hold: use pooling="mean", go through the run one by one (`for facts, embedding in run`), or make a '
                "run with --window 10."
            )
        return low, channels

    def _meta(self, records: pa.Table, per_record: Rows) -> pa.Table:
        """The records' facts once per row, with the row's window and lead in front."""
        form = self._form
        kept = records.drop_columns([name for name in _NOT_IN_META if name in records.column_names])
        if form.one_row_each:
            starts, leads = records["window_starts"], records["leads"]
            single = pc.equal(pc.list_value_length(leads), 1)
            places = {
                "window": pa.array(np.zeros(records.num_rows, np.int32)),
                "window_start": pc.fill_null(pc.list_element(starts, 0), 0.0),
                "lead": pc.if_else(single, pc.list_element(leads, 0), pa.scalar(None, pa.string())),
            }
        else:
            lists = zip(
                per_record.tolist(), *(records[name].to_pylist() for name in ("window_starts", "leads")), strict=True
            )
            rows = [place for n_rows, starts, leads in lists for place in form.places(n_rows, starts, leads)]
            places = {
                "window": pa.array([row["window"] for row in rows], pa.int32()),
                "window_start": pa.array([row["window_start"] for row in rows], pa.float64()),
                "lead": pa.array([row["lead"] for row in rows], pa.string()),
            }
            kept = kept.take(pa.array(np.repeat(np.arange(records.num_rows), per_record)))
        for place, (name, values) in enumerate(places.items(), start=kept.column_names.index("record") + 1):
            kept = kept.add_column(place, name, values)
        return kept

    def join(self, table: Any, on: str, *, duplicates: str = "error") -> Join:
        """Bring a table of labels (or of anything else) to the recordings.

        Parameters
        ----------
        table : pandas or polars DataFrame, or pyarrow.Table.
        on : a column of both. In the run: one that `--keep_columns` kept, the dataset's `--id_column` or path column, or
            `row_index`. Whole numbers and their text are the same key (123, 123.0 and "123"; "0123" is another one).
        duplicates : what to do with keys that the table has more than once: "error" refuses them, "first" takes the first
            row. Several recordings may share a key: each gets its row.

        Returns
        -------
        Join
            What matched, and what did not. Where anything did not, a UserWarning says so too.

        Raises
        ------
        RunError
            If the column is missing on one side, or for duplicate keys.

        Examples
        --------
        >>> import pandas as pd
        >>> labels = pd.DataFrame({"study_id": [101, 102, 103], "age": [61, 47, 55]})
        >>> joined = open_run(folder).join(labels, on="study_id")
        >>> print(joined)
        4 of 4 recordings have a row of the table; 3 of its 3 rows have a recording.
        >>> X, meta = joined.arrays(pooling="mean")
        >>> meta["age"].to_pylist()
        [61, 47, 55, 55]
        """
        check_choice("duplicates", duplicates, ("error", "first"))
        given = _as_arrow(table)
        if on not in given.column_names:
            raise RunError(
                f"the table has no column {on!r}; its columns are: {', '.join(given.column_names)} "
                "(an index of pandas becomes a column with reset_index())."
            )
        return _join(self, given, on, self._key_column(on), duplicates)

    def _key_column(self, on: str) -> str:
        """The manifest's column that holds what the dataset calls `on`."""
        if on in self.manifest.column_names:
            return on
        told = self.settings.get("settings", {})
        identifier = told.get("id_column")
        if on == (told.get("path_column") if identifier is None else identifier):
            return "record"
        own = [name for name in self.manifest.column_names if name not in SCHEMA.names]
        known = ", ".join([*own, *filter(None, [identifier]), "record", "row_index"])
        raise RunError(
            f"the run's manifest has no column {on!r}; it can be joined on: {known}. The same command again with "
            f"--keep_columns {on} adds a column of the dataset; nothing is embedded anew for that."
        )

    def reference(self, key: int) -> str | None:
        """The reference, below the run's folder, of a Parquet run's record by its 64-bit key; None if it has none."""
        keys, order = self._keys
        at = int(np.searchsorted(keys, np.uint64(key)))
        if at == len(keys) or int(keys[at]) != key:
            return None
        return str(self.records["output"][int(order[at])])

    @cached_property
    def _keys(self) -> tuple[npt.NDArray[np.uint64], Rows]:
        """A Parquet run's keys in ascending order, and the record of each."""
        texts = pc.utf8_slice_codeunits(self.records["output"], -_KEY_LENGTH, 1 << 30)
        keys = np.fromiter((int(text.as_py(), 16) for text in texts), dtype=np.uint64, count=len(texts))
        order = np.argsort(keys, kind="stable")
        return keys[order], order


class Embeddings:
    """A run's embeddings as an array that is read when it is used; made by `EmbeddingRun.arrays`.

    It has `shape`, `dtype`, `ndim` and `len()`. `X[rows]` (a number, a slice, a mask or an array of numbers) reads those rows and
    gives a float32 array; `np.asarray(X)` reads everything once and keeps it, so that what follows is as fast as an array.
    Shards are read one after the other, a part at a time, into the array that is asked for: memory is that array and
    `CACHE_BYTES`. It can be pickled, to be read in the workers of a data loader.

    Examples
    --------
    >>> import numpy as np
    >>> X, meta = open_run(folder).arrays(pooling="mean")
    >>> X[0].shape, X[1:3].shape, np.asarray(X).mean(axis=0).shape
    ((6,), (2, 6), (6,))
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, store: _Store, outputs: pa.ChunkedArray, per_record: Rows, row_shape: tuple[int, ...], column: str
    ) -> None:
        self._store = store
        self._outputs = outputs
        self._starts = np.concatenate([[0], np.cumsum(per_record)])
        self._column = column
        self._loaded: Array | None = None
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *row_shape)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the whole array in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        state = "not read yet" if self._loaded is None else "in memory"
        return f"<Embeddings: float32 {list(self.shape)}, {self.nbytes / 1e6:,.1f} MB, {state}>"

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if self._loaded is None:
            self._loaded = self._read(np.empty(self.shape, self.dtype), np.arange(len(self)))
        if dtype is not None and np.dtype(dtype) != self.dtype:
            return self._loaded.astype(dtype)
        return self._loaded.copy() if copy else self._loaded

    def __getitem__(self, index: Any) -> Array:
        if self._loaded is not None or isinstance(index, tuple):
            return np.asarray(np.asarray(self)[index])
        rows = np.arange(len(self))[index]
        wanted = np.atleast_1d(rows)
        out = self._read(np.empty((len(wanted), *self.shape[1:]), self.dtype), wanted)
        return out if np.ndim(rows) else out[0]

    def save(self, path: str | os.PathLike[str]) -> Array:
        """Write the whole array as a .npy file, whatever its size, and give it back as one that stays on disk.

        Parameters
        ----------
        path : where to; a file there is replaced once the new one is complete.

        Returns
        -------
        float32 array (numpy.memmap), of this object's shape; `numpy.load(path, mmap_mode="r")` gives it again.
        """
        target = Path(path)
        aside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            out = np.lib.format.open_memmap(aside, mode="w+", dtype=self.dtype, shape=self.shape)
            self._read(out, np.arange(len(self)))
            out.flush()
            os.replace(aside, target)
        except OSError as error:
            raise RunError(f"{target} could not be written: {error.strerror or error}") from error
        finally:
            aside.unlink(missing_ok=True)
        return np.asanyarray(np.load(target, mmap_mode="r"))

    def _read(self, out: Array, wanted: Rows) -> Array:
        """Fill `out[i]` with row `wanted[i]`, going through the storage once."""
        records = np.searchsorted(self._starts, wanted, side="right") - 1
        needed, place = np.unique(records, return_inverse=True)
        outputs = self._outputs.take(pa.array(needed)).to_pylist()
        by_record = np.argsort(place, kind="stable")
        bounds = np.searchsorted(place[by_record], np.arange(len(needed) + 1))
        order = np.array(storage_order(outputs), dtype=np.int64)
        stored = self._store.views([outputs[each] for each in order], self._column)
        for number, views in zip(order, stored, strict=True):
            for at in by_record[bounds[number] : bounds[number + 1]]:
                view = views[wanted[at] - self._starts[needed[number]]]
                out[at] = pooled(view) if view.ndim > len(self.shape) - 1 else view
        return out


@dataclass(frozen=True, eq=False)
class Join:
    """A run's recordings with the rows of a table that belong to them; made by `EmbeddingRun.join`.

    Attributes
    ----------
    table : pyarrow.Table, one row per recording that matched, in the dataset's order: the manifest's columns, then the
        table's. A column that both have gets "_table" at the end of its name.
    unmatched_records : pyarrow.Table, manifest rows of recordings that have an embedding and no row of the table.
    unmatched_rows : pyarrow.Table, the table's rows that have no recording with an embedding.
    failed_rows : pyarrow.Table, those of them that have one that failed.
    duplicate_rows : pyarrow.Table, the table's rows whose key it has more than once.

    `print(join)` says it in numbers.
    """

    run: EmbeddingRun
    on: str
    table: pa.Table
    unmatched_records: pa.Table
    unmatched_rows: pa.Table
    failed_rows: pa.Table
    duplicate_rows: pa.Table
    n_rows: int

    def arrays(self, pooling: str = "none") -> tuple[Embeddings, pa.Table]:
        """As `EmbeddingRun.arrays`, of the recordings that matched; the table's columns are in `meta`."""
        return self.run._arrays(self.table, self.run._form.rows_of(self.table["shape"]), pooling)

    def __str__(self) -> str:
        matched = self.table.num_rows
        used = self.n_rows - self.unmatched_rows.num_rows
        lines = [
            f"{matched:,} of {matched + self.unmatched_records.num_rows:,} recordings have a row of the table; "
            f"{used:,} of its {self.n_rows:,} rows have a recording."
        ]
        column = self.run._key_column(self.on)
        if self.unmatched_records.num_rows:
            lines.append(f"Recordings without a row ({self.on}): {_some(self.unmatched_records[column])}")
        if self.unmatched_rows.num_rows:
            failed = self.failed_rows.num_rows
            lines.append(
                f"Rows without an embedding ({self.on}): {_some(self.unmatched_rows[self.on])}"
                + (f"; {failed:,} of them name a recording that failed" if failed else "")
            )
        if self.duplicate_rows.num_rows:
            lines.append(
                f"More than once in the table, the first row was taken: {_some(pc.unique(self.duplicate_rows[self.on]))}"
            )
        return "\n".join(lines)


def _join(run: EmbeddingRun, given: pa.Table, on: str, column: str, duplicates: str) -> Join:
    left, right = _comparable(run.records[column], given[on], on)
    counted = pc.value_counts(right.drop_null())
    often = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    repeated = given.filter(pc.is_in(right, often, skip_nulls=True))
    if len(often) and duplicates == "error":
        raise RunError(
            f"{len(often):,} keys are in more than one of the table's rows, so that it is open which belongs to the recording "
            f'({on}: {_some(often)}): keep one row of each, or take the first with duplicates="first".'
        )
    at = pc.index_in(left, right, skip_nulls=True)
    has_row = pc.is_valid(at)
    others = given.drop_columns([on]) if column == on else given
    found = others.take(at.filter(has_row))
    table = run.records.filter(has_row)
    for name in found.column_names:
        table = table.append_column(f"{name}_table" if name in table.column_names else name, found[name])
    without = pc.invert(pc.is_in(right, left, skip_nulls=True))
    failed_keys, keys = _comparable(
        run.manifest.filter(pc.not_equal(run.manifest["status"], "done"))[column], given[on], on
    )
    joined = Join(
        run,
        on,
        table,
        unmatched_records=run.records.filter(pc.invert(has_row)),
        unmatched_rows=given.filter(without),
        failed_rows=given.filter(pc.and_(without, pc.is_in(keys, failed_keys, skip_nulls=True))),
        duplicate_rows=repeated,
        n_rows=given.num_rows,
    )
    if joined.unmatched_records.num_rows or joined.unmatched_rows.num_rows or repeated.num_rows:
        warnings.warn(str(joined), UserWarning, stacklevel=3)
    return joined


def _as_arrow(table: Any) -> pa.Table:
    if isinstance(table, pa.Table):
        return table
    if hasattr(table, "iloc"):
        return pa.Table.from_pandas(table, preserve_index=False)
    try:
        return pa.table(table)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise RunError(
            f"expected a pandas or polars DataFrame or a pyarrow.Table, got a {type(table).__name__}"
        ) from error


def _comparable(left: pa.ChunkedArray, right: pa.ChunkedArray, on: str) -> tuple[pa.Array, pa.Array]:
    """Two columns of keys as one type: whole numbers where both are, else text."""
    keys = [_as_keys(column, on) for column in (left, right)]
    if keys[0].type != keys[1].type:
        keys = [each.cast(pa.string()) for each in keys]
    return keys[0], keys[1]


def _as_keys(column: pa.ChunkedArray, on: str) -> pa.Array:
    keys = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    kind = keys.type
    if pa.types.is_dictionary(kind):
        keys, kind = keys.dictionary_decode(), kind.value_type
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return keys.cast(pa.string())
    if pa.types.is_floating(kind):
        keys = pc.if_else(pc.is_nan(keys), pa.scalar(None, kind), keys)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        try:
            return keys.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise RunError(f"{on!r} holds numbers that are not whole; keys are text or whole numbers") from error
    return keys


def _some(values: Any) -> str:
    """A few of many, for a message."""
    texts = [str(value) for value in islice(values, 5)]
    return ", ".join(texts) + (f" and {len(values) - 5:,} more" if len(values) > 5 else "")


# --- what is stored where --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """What a run's fingerprint says about the form of its embeddings."""

    format: str
    pooling: str
    windows: bool
    every_lead: bool
    ragged: bool

    @classmethod
    def of(cls, facts: dict[str, Any]) -> _Form:
        try:
            fingerprint = facts["fingerprint"]
            preparation = fingerprint["preparation"]
            windows = preparation["stride"] is not None
            pooling = str(fingerprint["pooling"])
            return cls(
                format=str(fingerprint["format"]),
                pooling=pooling,
                windows=windows,
                every_lead=preparation["lead"] == "all",
                ragged=windows and preparation["remainder"] == "keep" and pooling != "mean",
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"run.json is not a run's record: {error} is missing in it") from error

    @property
    def one_row_each(self) -> bool:
        return not (self.windows or self.every_lead)

    @property
    def inner(self) -> int:
        """Dimensions of one row's embedding."""
        return 1 if self.pooling == "mean" else 2

    def rows_of(self, shapes: pa.ChunkedArray) -> Rows:
        """int64 [records]: how many rows each has, the product of what its shape has in front of one embedding's."""
        if self.one_row_each:
            return np.ones(len(shapes), dtype=np.int64)
        return np.array([np.prod(shape[: -self.inner], dtype=np.int64) for shape in shapes.to_pylist()], dtype=np.int64)

    def inner_shapes(self, shapes: pa.ChunkedArray) -> Rows:
        """int64 [records, 1 or 2]: [C] or [T, C] of each record's (first) embedding."""
        lists = shapes.combine_chunks()
        ends = np.cumsum(lists.value_lengths().to_numpy())
        values = lists.flatten().to_numpy().astype(np.int64)
        return np.asarray(np.stack([values[ends - back] for back in range(self.inner, 0, -1)], axis=1))

    def places(self, n_rows: int, starts: list[float] | None, leads: list[str] | None) -> Iterator[dict[str, Any]]:
        """Which window, from when on, and which lead each row of a record is."""
        starts = starts or [0.0]
        names: list[str | None] = list(leads or [])
        per_window = n_rows // len(starts)
        if per_window == 1 and len(names) != 1:
            names = [None]
        for window, start in enumerate(starts):
            for lead in names:
                yield {"window": window, "window_start": start, "lead": lead}

    def outer_shape(self, n_windows: int, n_leads: int) -> tuple[int, ...]:
        """What stands in front of one row's shape in the array of a whole record."""
        return ((n_windows,) if self.windows else ()) + ((n_leads,) if self.every_lead else ())


def storage_order(outputs: list[str]) -> list[int]:
    """The order in which to read outputs so that every shard is gone through once: by shard, else as they are."""
    return sorted(range(len(outputs)), key=lambda number: outputs[number].rpartition("::")[0])


class _Store:
    """Reads what a run wrote, with a bounded cache of shards and of their decoded parts."""

    def __init__(self, folder: Path, form: _Form) -> None:
        self._folder = folder
        self._form = form
        self._forget()

    def _forget(self) -> None:
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._cache = _Cache()

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_form": self._form}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def views(self, outputs: Iterable[str], column: str = MAIN) -> Iterator[list[Array]]:
        """For each output the embeddings of its rows, float32 [T, C] or [C] each; `column` names one of a shard's."""
        for output in outputs:
            match = _REFERENCE.fullmatch(output)
            if match is not None:
                yield self._shard(match["shard"]).views(match["key"], column)
                continue
            whole = _read_file(self._folder / output)
            inner = self._form.inner
            if whole.ndim < inner:
                raise RunError(f"{self._folder / output} is not an embedding of this run: its shape is {whole.shape}")
            yield list(whole.reshape(-1, *whole.shape[-inner:]))

    def tokens(self, outputs: Iterable[str]) -> Rows:
        """int64 [rows]: T of each row of some outputs, all of them in shards."""
        matches = [_REFERENCE.fullmatch(output) for output in outputs]
        found = [self._shard(match["shard"]).tokens(match["key"]) for match in matches if match is not None]
        return np.concatenate(found)

    def _shard(self, name: str) -> _Shard:
        if name not in self._shards:
            if len(self._shards) == _SHARDS_OPEN:
                self._shards.popitem(last=False)
            self._shards[name] = _Shard(self._folder / name, self._cache)
        self._shards.move_to_end(name)
        return self._shards[name]


class _Cache:
    """Decoded parts of shards; the least recently used go when there are more than `CACHE_BYTES` of them."""

    def __init__(self) -> None:
        self._parts: OrderedDict[Hashable, list[Array]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable) -> list[Array] | None:
        if key in self._parts:
            self._parts.move_to_end(key)
        return self._parts.get(key)

    def put(self, key: Hashable, part: list[Array]) -> None:
        self._parts[key] = part
        self._bytes += sum(view.nbytes for view in part)
        while self._bytes > CACHE_BYTES and len(self._parts) > 1:
            self._bytes -= sum(view.nbytes for view in self._parts.popitem(last=False)[1])


class _Shard:
    """A Parquet shard: which rows are whose, and the embeddings of some, decoded a row group at a time."""

    def __init__(self, path: Path, cache: _Cache) -> None:
        self._path = path
        self._cache = cache
        try:
            self._file = pq.ParquetFile(path)
            keys = self._column("key").to_pylist()
        except FileNotFoundError as error:
            raise RunError(f"{path} is gone. The run's command embeds what was in it again.") from error
        except (OSError, pa.ArrowException, KeyError) as error:
            raise RunError(f"{path} cannot be read as a run's shard: {error}") from error
        self._spans: dict[str, tuple[int, int]] = {}
        for row, key in enumerate(keys):
            self._spans[key] = (self._spans.get(key, (row, 0))[0], row + 1)
        groups = self._file.metadata
        self._bounds = np.cumsum([0, *(groups.row_group(group).num_rows for group in range(groups.num_row_groups))])

    def views(self, key: str, column: str = MAIN) -> list[Array]:
        """The embeddings of one record's rows, in order."""
        first, stop = self._span(key)
        group = int(np.searchsorted(self._bounds, first, side="right")) - 1
        views: list[Array] = []
        while self._bounds[group] < stop:
            begin = int(self._bounds[group])
            views += self._part(group, column)[max(0, first - begin) : stop - begin]
            group += 1
        return views

    def tokens(self, key: str) -> Rows:
        """int64 [rows]: T of each row of one record."""
        first, stop = self._span(key)
        return np.array([shape[0] for shape in self._shapes[first:stop]], dtype=np.int64)

    def outer_shape(self, key: str, form: _Form | None) -> tuple[int, ...]:
        """The windows and leads of one record; without run.json, those of which there are several."""
        first, stop = self._span(key)
        n_windows = len(pc.unique(self._column("window").slice(first, stop - first)))
        n_leads = (stop - first) // n_windows
        return tuple(n for n in (n_windows, n_leads) if n > 1) if form is None else form.outer_shape(n_windows, n_leads)

    @cached_property
    def _shapes(self) -> list[list[int]]:
        return list(self._column("shape").to_pylist())

    def _span(self, key: str) -> tuple[int, int]:
        if key not in self._spans:
            raise RunError(f"{self._path} holds no row of the recording {key}. The run's command embeds it again.")
        return self._spans[key]

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._file.read(columns=[name], use_threads=False)[name]

    def _part(self, group: int, column: str) -> list[Array]:
        part = self._cache.get((self._path, group, column))
        if part is None:
            try:
                table = self._file.read_row_group(group, columns=[column], use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise RunError(f"{self._path} is damaged: {error}") from error
            part = _rows_of_lists(table[column].combine_chunks())
            self._cache.put((self._path, group, column), part)
        return part


def _rows_of_lists(column: pa.Array) -> list[Array]:
    """A column of lists, or of lists of lists, as float32 arrays [C] or [T, C] that share one buffer."""
    lengths = column.value_lengths().to_numpy()
    is_map = pa.types.is_list(column.type.value_type)
    numbers = column.flatten().flatten() if is_map else column.flatten()
    values = numbers.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    if not is_map:
        return list(values.reshape(len(column), -1))
    maps = values.reshape(int(lengths.sum()), -1)
    return list(np.split(maps, np.cumsum(lengths)[:-1]))


def _read_file(path: Path) -> Array:
    """The array in a run's JSON or NPY."""
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        return np.array(orjson.loads(path.read_bytes())["embedding"], dtype=np.float32)
    except FileNotFoundError as error:
        raise RunError(f"{path} is gone. The run's command embeds the recording again.") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError) as error:
        raise RunError(f"{path} is not an embedding: expected the JSON or NPY of a run ({error})") from error


def _ledger_table(ledger: Path) -> pa.Table:
    """What a run that is not complete has finished, in the manifest's form, by the records' names."""
    state = read_ledger(ledger)
    entries = state.entries(range(len(state)))
    parts = [pa.Table.from_pylist([], schema=SCHEMA)]
    while chunk := [_ledger_row(entry) for entry in islice(entries, _RECORDS_AT_ONCE)]:
        parts.append(pa.Table.from_pylist(chunk, schema=SCHEMA))
    return pa.concat_tables(parts).sort_by("record")


def _ledger_row(entry: dict[str, Any]) -> dict[str, Any]:
    seconds = entry.get("seconds") or {}
    return {
        **{name: value for name, value in entry.items() if name in SCHEMA.names},
        "window_starts": entry.get("starts"),
        "input_bytes": entry.get("size"),
        "input_mtime": entry.get("mtime_ns"),
        "input_sha256": entry.get("sha256"),
        **{f"seconds_{stage}": seconds.get(stage) for stage in STAGES},
    }
