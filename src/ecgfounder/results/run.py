"""Read a run of JSON, Parquet or NPY: arrays, joins with tables, embeddings one by one.

In: a run's output folder, which may have been moved, or several. Out: an `EmbeddingRun` or `EmbeddingRuns`, which read embeddings
on use.
Everything is in the dataset's order, and embeddings and tables are aligned row by row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import RunError, SettingsError, StorageError
from ecgfounder.escaping import counted, facts_as_html
from ecgfounder.ledger.folder import RunFolder, leads_out
from ecgfounder.ledger.ledger import read_ledger
from ecgfounder.ledger.manifest import FAILURE_COLUMNS, SCHEMA, manifest_schema, row_of
from ecgfounder.ledger.record import RunRecord
from ecgfounder.results.arrays import Embeddings, arrays_of
from ecgfounder.results.join import Join, check_join, join_table
from ecgfounder.results.several import EmbeddingRuns
from ecgfounder.results.store import MEANS, Array, EmbeddingStore, Form, RowNumbers, key_of
from ecgfounder.storage import Location, StorageOptions
from ecgfounder.storage import storage_options as make_options

_RECORDS_AT_ONCE = 4096


Folder = str | os.PathLike[str] | Location


@overload
def open_run(  # type: ignore[overload-overlap]
    folder: Folder,
    *,
    names: None = None,
    allow_different: bool = False,
    allow_incomplete: bool = False,
    storage_options: Mapping[str, object] | StorageOptions | None = None,
) -> EmbeddingRun: ...


@overload
def open_run(
    folder: Sequence[Folder],
    *,
    names: Sequence[str] | None = None,
    allow_different: bool = False,
    allow_incomplete: bool = False,
    storage_options: Mapping[str, object] | StorageOptions | None = None,
) -> EmbeddingRuns: ...


def open_run(
    folder: Folder | Sequence[Folder],
    *,
    names: Sequence[str] | None = None,
    allow_different: bool = False,
    allow_incomplete: bool = False,
    storage_options: Mapping[str, object] | StorageOptions | None = None,
) -> EmbeddingRun | EmbeddingRuns:
    """Open the output folder of a run, which may have been moved since, or of several runs as one.

    Parameters
    ----------
    folder : str or os.PathLike or Location, or a sequence of them
        The run's `--output_dir`, a path or a URL (s3://, gs://, az://). A sequence gives an `EmbeddingRuns`.
    names : sequence of str, optional
        For a sequence, the names of the runs in the column `run`; None for the names of the folders.
    allow_different : bool, default: False
        For a sequence, also open runs that differ in what decides a vector: checkpoint, preparation, reader, precision, dtype.
    allow_incomplete : bool, default: False
        Also open a run that was interrupted or is still running, with the records that are finished.
    storage_options : mapping, optional
        Options of object stores that are not in the environment, as for `embed_cohort`.

    Returns
    -------
    EmbeddingRun or EmbeddingRuns
        The run; for a sequence, the runs as one. Recordings that are in several of them are named in a UserWarning.

    Raises
    ------
    RunError
        If a folder holds no run, or one that is not complete (the message says how to finish it), or if runs differ in what
        decides a vector.
    SettingsError
        If names are missing or are not unique.

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
    if isinstance(folder, str | os.PathLike | Location):
        if names is not None:
            raise SettingsError("Invalid value for the 'names' parameter. It is for a list of folders, got one folder.")
        return _open_one(folder, allow_incomplete, storage_options)
    opened = [_open_one(each, allow_incomplete, storage_options) for each in folder]
    return EmbeddingRuns(opened, names, allow_different=allow_different)


def _open_one(
    folder: Folder, allow_incomplete: bool, storage_options: Mapping[str, object] | StorageOptions | None
) -> EmbeddingRun:
    place = RunFolder(folder, make_options(storage_options))
    record = place.read()
    if record is None:
        raise RunError(f"{place.output_dir} holds no run: expected {place.run_json}. Give the output_dir of a run.")
    table = place.find_table("manifest")
    if not (record.is_complete and table is not None) and not allow_incomplete:
        raise RunError(
            f"the run in {place.output_dir} is not complete (outcome: {record.outcome}). Finish it with the command that began "
            "it, a job array with `ecgfounder merge`; begin an export again in another folder. To read what is there now, "
            "pass allow_incomplete=True."
        )
    try:
        # Without threads: one that releases Python's memory while a short program ends would abort it.
        manifest = (
            _ledger_table(place.ledger, manifest_schema(heart_rate=record.form.heart_rate))
            if table is None
            else pq.ParquetFile(pa.BufferReader(table.read())).read(use_threads=False)
        )
    except (OSError, pa.ArrowException, StorageError) as error:
        raise RunError(f"{table} cannot be read: {error}. The run's command writes it again.") from error
    return EmbeddingRun(place.output_dir, record, manifest)


class EmbeddingRun:
    """A run's embeddings and metadata; made by `open_run`.

    It has one row per embedding: one per recording, or one per window (and lead), as in the Parquet shards. If several
    dataset rows name the same path, its embedding is repeated for each of them. `len(run)` is the number of rows. Iterating
    yields `(facts, embedding)` for each row, with bounded memory: `facts` is a row of the table of `arrays` as a dictionary,
    `embedding` is float32 [T, 1024] or [1024].

    Rows are in the dataset's order, then by window, then by lead. In a run that is not complete, records are ordered by
    their names, because the dataset has not been read to its end.

    Attributes
    ----------
    folder : Location
        The output folder.
    record : RunRecord
        The contents of run.json as a typed object.
    settings : dict
        The contents of run.json as a dictionary: settings, fingerprint, versions, checkpoint, engine, counts.
    manifest : pyarrow.Table
        One row per path of the dataset, including failed ones; `.to_pandas()` converts it. For a run that is not complete:
        one row per finished record, without `row_index`, kept columns and device settings.

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

    def __init__(self, folder: Location, record: RunRecord, manifest: pa.Table) -> None:
        self.folder = folder
        self.record = record
        self.settings = record.as_dict()
        self.manifest = manifest
        self._form = Form.of(record)
        self._store = EmbeddingStore(folder, self._form)

    @property
    def outcome(self) -> str:
        """The outcome of the run: "complete", "running", "interrupted" or "incomplete"."""
        return self.record.outcome

    @property
    def is_complete(self) -> bool:
        """Whether every record of the dataset is done or failed."""
        return self.record.is_complete

    @property
    def format(self) -> str:
        """How the embeddings are stored: "json", "parquet" or "npy"."""
        return self._form.format

    @property
    def pooling(self) -> str:
        """The pooling of the embeddings: "none", feature maps [T, 1024]; "mean", their mean over T [1024]; "both"."""
        return self._form.pooling

    @cached_property
    def failures(self) -> pa.Table:
        """The failed rows of the manifest: row_index, path_index, record, error, reason."""
        return self.manifest.filter(pc.equal(self.manifest["status"], "failed")).select(list(FAILURE_COLUMNS))

    @cached_property
    def predictions(self) -> pa.Table | None:
        """The head's probabilities of a run with predictions, a row per recording, window and lead; None without them."""
        return self._beside("predictions")

    @cached_property
    def statements(self) -> pa.Table | None:
        """The devices' statements and intervals of a run with statements, a row per recording that has any; None without them."""
        return self._beside("statements")

    def _beside(self, name: str) -> pa.Table | None:
        file = self._file_beside(name)
        with self._damage(name):
            return None if file is None else file.read(use_threads=False)

    def batches(self, name: str, rows_at_once: int = 1 << 16) -> Iterator[pa.Table]:
        """The table "predictions" or "statements", a part at a time, to need less memory; nothing if the run does not have it."""
        file = self._file_beside(name)
        with self._damage(name):
            for batch in () if file is None else file.iter_batches(rows_at_once, use_threads=False):
                yield pa.Table.from_batches([batch])

    def _file_beside(self, name: str) -> pq.ParquetFile | None:
        place = RunFolder(self.folder)
        table = place.find_table(name)
        if table is None:
            return None
        if leads_out(place.run, table.basename):
            raise RunError(f"{table} leads out of the run's folder; expected a file in it")
        with self._damage(name):
            return pq.ParquetFile(str(table.path) if table.is_local else pa.BufferReader(table.read()))

    @contextmanager
    def _damage(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, pa.ArrowException, StorageError) as error:
            table = RunFolder(self.folder).find_table(name)
            raise RunError(f"{table} cannot be read: {error}. The run's command writes it again.") from error

    @cached_property
    def records(self) -> pa.Table:
        """The rows of the manifest that have an embedding: one per path, for any number of windows."""
        done = pc.equal(self.manifest["status"], "done")
        return self.manifest if pc.all(done, skip_nulls=False).as_py() else self.manifest.filter(done)

    @cached_property
    def _per_record(self) -> RowNumbers:
        """int64 [records]: the number of rows of each."""
        return self._form.rows_of(self.records["shape"])

    def __len__(self) -> int:
        return int(self._per_record.sum())

    def __repr__(self) -> str:
        return f"<EmbeddingRun: {', '.join(text for _, text in self._facts())}>"

    def _repr_html_(self) -> str:
        return facts_as_html("EmbeddingRun", [("folder", str(self.folder)), *self._facts()])

    def _facts(self) -> list[tuple[str, str]]:
        """What a reader wants to know first, by name."""
        form = self.record.form
        name, version = form.recipe
        n_records, n_rows = self.records.num_rows, len(self)
        rows = "" if n_rows == n_records else f" in {counted(n_rows, 'row')}"
        return [
            ("recordings", f"{counted(n_records, 'recording')}{rows}"),
            ("failed", f"{self.failures.num_rows:,} failed"),
            ("format", self.format),
            ("recipe", f"{name} v{version}"),
            ("mode", form.mode),
            ("outcome", self.outcome),
        ]

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Array]]:
        records = self.records.drop_columns(["status", "error", "reason", "shape"])
        for first in range(0, records.num_rows, _RECORDS_AT_ONCE):
            part = records.slice(first, _RECORDS_AT_ONCE).to_pylist()
            stored = self._store.embeddings(records["output"].slice(first, len(part)).to_pylist())
            for facts, embeddings in zip(part, stored, strict=True):
                starts = facts.pop("window_starts")
                places = self._form.places(len(embeddings), starts, facts["leads"])
                for embedding, place in zip(embeddings, places, strict=True):
                    yield {**facts, **place}, embedding.copy()  # a view would keep a part of a shard

    @property
    def has_ragged_windows(self) -> bool:
        """Whether the last window of a recording may be shorter than the others (`--remainder keep`, feature maps)."""
        return self._form.ragged

    def stored(self, output: str, shape: list[int]) -> tuple[list[Array], list[Array], tuple[int, ...]]:
        """Read the stored embeddings of one record.

        Parameters
        ----------
        output, shape : str, list of int
            Values of the manifest's row.

        Returns
        -------
        embeddings : list of numpy.ndarray
            float32 [T, 1024] or [1024] of each window and lead.
        means : list of numpy.ndarray
            float32 [1024] of each with `pooling` "both", else empty.
        outer_shape : tuple of int
            The leading dimensions for windows, leads, both or none.
        """
        (embeddings,) = self._store.embeddings([output])
        means = next(self._store.embeddings([output], MEANS)) if self.pooling == "both" else []
        return embeddings, means, tuple(shape[: -self._form.inner])

    def digest(self) -> str:
        """SHA-256 of the run's settings and of the names, sizes and tags of its outputs: another one if an embedding changes."""
        statuses = sorted((each.name, each.size, each.tag) for each in self.folder.list(skip=RUN_FOLDER.__eq__))
        fingerprint = orjson.dumps(self.record.fingerprint, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(fingerprint + orjson.dumps(statuses)).hexdigest()

    def arrays(self, pooling: str = "none") -> tuple[Embeddings, pa.Table]:
        """All embeddings as one array, and a table with the same rows.

        Parameters
        ----------
        pooling : str, default: "none"
            "none": the stored embeddings; feature maps if the run kept both. "mean": the mean over T of stored feature maps
            (computed in float64, then float32, as by `--pooling mean`), or the stored mean. A run with `--pooling mean`
            gives the mean in both cases.

        Returns
        -------
        X : Embeddings
            float32 [N, 1024], or [N, T, 1024] for feature maps. Embeddings are read on use: `X[rows]` reads some rows,
            `np.asarray(X)` (which scikit-learn calls) reads all of them, `X.save("X.npy")` writes them to disk, also if
            they are larger than memory.
        meta : pyarrow.Table
            N rows: row_index, path_index, record, window, window_start (s), lead, format, sampling_rate, flags, kept
            columns, and the manifest's other columns.

        Raises
        ------
        RunError
            If the feature maps differ in T, so that one array cannot hold them.

        Examples
        --------
        >>> run = open_run(folder)
        >>> X, meta = run.arrays(pooling="mean")
        >>> y = meta["study_id"].to_numpy()
        >>> X.shape, len(y), X[y == 103].shape
        ((4, 6), 4, (2, 6))
        """
        return self.arrays_of(self.records, pooling)

    def arrays_of(self, records: pa.Table, pooling: str) -> tuple[Embeddings, pa.Table]:
        """`arrays` for some rows of `records`, which may have further columns."""
        return arrays_of(self._store, records, pooling)

    def join(self, table: Any, on: str, *, duplicates: str = "error") -> Join:
        """Join the recordings with a table, for example of labels.

        Parameters
        ----------
        table : Any
            Pandas or polars DataFrame, or pyarrow.Table.
        on : str
            A column of both. In the run: a column of `--keep_columns`, the dataset's `--id_column` or path column, or
            `row_index`. Integers and their text are the same key (123, 123.0 and "123"; "0123" is a different one).
        duplicates : str, default: "error"
            For duplicate keys in the table: "error" refuses them, "first" takes the first row. Several recordings may have
            the same key: each gets its row.

        Returns
        -------
        Join
            The matched rows, and those that did not match. If there are any of the latter, a UserWarning counts them.

        Raises
        ------
        RunError
            If a side lacks the column, or for duplicate keys.

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
        given = check_join(table, on, duplicates)
        return join_table(self.manifest, self.arrays_of, given, on, self.key_column(on), duplicates)

    def key_column(self, on: str) -> str:
        """The manifest's column for the dataset's column `on`; raises `RunError` if there is none."""
        if on in self.manifest.column_names:
            return on
        told = self.record.settings
        identifier = told.id_column
        if on == (told.path_column if identifier is None else identifier):
            return "record"
        own = [name for name in self.manifest.column_names if name not in (*SCHEMA.names, "heart_rate")]
        known = ", ".join([*own, *filter(None, [identifier]), "record", "row_index"])
        raise RunError(
            f"the run's manifest has no column {on!r}; it can be joined on: {known}. The same command again with "
            f"keep_columns {on} adds a column of the dataset; nothing is embedded again for that."
        )

    def reference(self, key: int) -> str | None:
        """The reference, below the run's folder, of a Parquet run's record by its 64-bit key; None if it has none."""
        keys, order = self._keys
        at = int(np.searchsorted(keys, np.uint64(key)))
        if at == len(keys) or int(keys[at]) != key:
            return None
        return str(self.records["output"][int(order[at])])

    @cached_property
    def _keys(self) -> tuple[npt.NDArray[np.uint64], RowNumbers]:
        """A Parquet run's keys in ascending order, and the record of each."""
        keys, places = [], []
        for place, output in enumerate(self.records["output"].to_pylist()):
            key = key_of(output)
            if key is not None:
                keys.append(key)
                places.append(place)
        order = np.argsort(np.array(keys, dtype=np.uint64), kind="stable")
        return np.array(keys, dtype=np.uint64)[order], np.array(places, dtype=np.int64)[order]


def _ledger_table(ledger: Location, schema: pa.Schema) -> pa.Table:
    """The finished records of a run that is not complete, in the manifest's form, ordered by name."""
    state = read_ledger(ledger)
    entries = state.entries(range(len(state)))
    parts = [pa.Table.from_pylist([], schema=schema)]
    while chunk := [row_of(entry.record, entry) for entry in islice(entries, _RECORDS_AT_ONCE)]:
        parts.append(pa.Table.from_pylist(chunk, schema=schema))
    return pa.concat_tables(parts).sort_by("record")
