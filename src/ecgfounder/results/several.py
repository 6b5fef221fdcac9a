"""Several runs as one: their manifests with a column `run`, their embeddings as one array.

In: opened runs and their names. Out: an `EmbeddingRuns`, which is used like an `EmbeddingRun`; or a `RunError` that says in what
the runs differ. Rows are in the order of the runs, then in the order of each dataset.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.errors import RunError, SettingsError
from ecgfounder.escaping import counted
from ecgfounder.ledger.record import differences
from ecgfounder.results.arrays import Embeddings
from ecgfounder.results.join import Join, check_join, join_table
from ecgfounder.results.store import Array

if TYPE_CHECKING:
    from ecgfounder.results.run import EmbeddingRun

RUN_COLUMN = "run"
"""The column with the name of a recording's run."""

KEPT_RUN_COLUMN = "run_kept"
"""The name of a kept column `run`."""

NOT_DECIDING = ("pooling", "predictions", "statements", "heart_rate", "format", "layout", "id_column")
"""Settings of a fingerprint that do not decide a recording's vector: the mean over T can be taken of any pooling."""

_NAMED = 5


class EmbeddingRuns:
    """Several runs as one; made by `open_run` of a list.

    It has the attributes and methods of `EmbeddingRun` for the recordings of all runs. Each table has the column `run` in front,
    with the name of the recording's run.

    Attributes
    ----------
    names : tuple of str
        The names of the runs.
    runs : tuple of EmbeddingRun
        The runs, in the same order.
    manifest : pyarrow.Table
        The rows of all manifests. A kept column that only some runs have is null for the others; one with the name `run` is
        `run_kept`.
    differences : tuple of str
        In what the runs differ that decides a vector, if they were opened with `allow_different`.

    Examples
    --------
    >>> runs = open_run([folder, other], names=["old", "new"])
    >>> runs
    <EmbeddingRuns: 8 recordings of 2 runs: old, new>
    >>> X, meta = runs.arrays(pooling="mean")
    >>> X.shape, meta["run"].to_pylist()[3:5]
    ((8, 6), ['old', 'new'])
    """

    def __init__(
        self, runs: Sequence[EmbeddingRun], names: Sequence[str] | None = None, *, allow_different: bool = False
    ) -> None:
        self.runs = tuple(runs)
        self.names = _names(self.runs, names)
        self.differences = _differences(self.runs, self.names)
        if self.differences and not allow_different:
            raise RunError(
                "the runs differ in what decides a vector, so that their embeddings cannot be compared: "
                f"{'; '.join(self.differences)}. Embed them with the same settings; to open them all the same, pass "
                "allow_different=True."
            )
        self.manifest = _with_names([run.manifest for run in self.runs], self.names)
        if self.repeated.num_rows:
            warnings.warn(self._repeated_text(), UserWarning, stacklevel=3)

    @property
    def is_complete(self) -> bool:
        """Whether every run is complete."""
        return all(run.is_complete for run in self.runs)

    @cached_property
    def failures(self) -> pa.Table:
        """The failed rows of all manifests: run, row_index, path_index, record, error, reason."""
        return _with_names([run.failures for run in self.runs], self.names)

    @cached_property
    def predictions(self) -> pa.Table | None:
        """`EmbeddingRun.predictions` of all runs that have them."""
        return self._beside([run.predictions for run in self.runs])

    @cached_property
    def statements(self) -> pa.Table | None:
        """`EmbeddingRun.statements` of all runs that have them."""
        return self._beside([run.statements for run in self.runs])

    def _beside(self, tables: Sequence[pa.Table | None]) -> pa.Table | None:
        found = [(name, table) for name, table in zip(self.names, tables, strict=True) if table is not None]
        return _with_names([table for _, table in found], [name for name, _ in found]) if found else None

    @cached_property
    def records(self) -> pa.Table:
        """The rows of the manifest that have an embedding."""
        return self.manifest.filter(pc.equal(self.manifest["status"], "done"))

    @cached_property
    def repeated(self) -> pa.Table:
        """The recordings that are in several runs: run and record, one row for each run, and the `key` that they share.

        The key is the SHA-256 of the files, or the record's name for members of containers, which have none.
        """
        keys = pc.coalesce(self.records["input_sha256"], self.records["record"]).combine_chunks()
        each = pa.table({RUN_COLUMN: self.records[RUN_COLUMN], "record": self.records["record"], "key": keys})
        once = each.group_by([RUN_COLUMN, "key"], use_threads=False).aggregate([("record", "min")])
        counts = pc.value_counts(once["key"])
        often = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
        found = once.rename_columns({"record_min": "record"}).select([RUN_COLUMN, "record", "key"])
        return found.filter(pc.is_in(found["key"], often)).sort_by([("key", "ascending"), ("record", "ascending")])

    def _repeated_text(self) -> str:
        n_recordings = len(pc.unique(self.repeated["key"]))
        shown = ", ".join(
            f"{each['record']} ({each[RUN_COLUMN]})" for each in islice(self.repeated.to_pylist(), _NAMED)
        )
        more = self.repeated.num_rows - _NAMED
        verb = "is" if n_recordings == 1 else "are"
        return (
            f"{counted(n_recordings, 'recording')} {verb} in several runs (`repeated` lists them): {shown}"
            f"{f' and {more:,} more' if more > 0 else ''}"
        )

    def __len__(self) -> int:
        return sum(len(run) for run in self.runs)

    def __repr__(self) -> str:
        return (
            f"<EmbeddingRuns: {counted(self.records.num_rows, 'recording')} of {counted(len(self.runs), 'run')}: "
            f"{', '.join(self.names)}>"
        )

    def __iter__(self) -> Iterator[tuple[dict[str, Any], Array]]:
        for name, run in zip(self.names, self.runs, strict=True):
            for facts, embedding in run:
                yield {RUN_COLUMN: name, **facts}, embedding

    def digest(self) -> str:
        """`EmbeddingRun.digest` of all runs."""
        return hashlib.sha256("".join(run.digest() for run in self.runs).encode()).hexdigest()

    def arrays(self, pooling: str = "none") -> tuple[Embeddings, pa.Table]:
        """`EmbeddingRun.arrays` for the recordings of all runs, one run after the other.

        Parameters
        ----------
        pooling : str, default: "none"
            "none" or "mean".

        Returns
        -------
        X : Embeddings
            float32 [N, 1024], or [N, T, 1024] for feature maps.
        meta : pyarrow.Table
            N rows; the column `run` is in front.

        Raises
        ------
        RunError
            If the embeddings of the runs differ in shape.
        """
        return self.arrays_of(self.records, pooling)

    def arrays_of(self, records: pa.Table, pooling: str) -> tuple[Embeddings, pa.Table]:
        """`arrays` for some rows of `records`, which may have further columns; rows are ordered by run."""
        found: list[tuple[Embeddings, pa.Table]] = []
        names = []
        for name, run in zip(self.names, self.runs, strict=True):
            own = records.filter(pc.equal(records[RUN_COLUMN], name))
            if own.num_rows:
                found.append(run.arrays_of(own, pooling))
                names.append(name)
        if not found:
            raise RunError(f"the runs {', '.join(self.names)} hold no embedding that could be put into an array")
        shapes = {name: X.shape[1:] for name, (X, _) in zip(names, found, strict=True)}
        if len(set(shapes.values())) > 1:
            told = ", ".join(f"{name}: {list(shape)}" for name, shape in shapes.items())
            raise RunError(
                f'the embeddings of the runs differ in shape ({told}), which one array cannot hold: use pooling="mean".'
            )
        return Embeddings.stacked([X for X, _ in found]), _concatenated([meta for _, meta in found])

    def join(self, table: Any, on: str, *, duplicates: str = "error") -> Join:
        """`EmbeddingRun.join` for the recordings of all runs.

        Parameters
        ----------
        table : Any
            Pandas or polars DataFrame, or pyarrow.Table.
        on : str
            A column of the table and of every run.
        duplicates : str, default: "error"
            "error" or "first".

        Returns
        -------
        Join
            The matched rows, and those that did not match.

        Raises
        ------
        RunError
            If the table or a run lacks the column, or for duplicate keys.
        """
        given = check_join(table, on, duplicates)
        columns = [run.key_column(on) for run in self.runs]
        manifest, column = self.manifest, columns[0]
        if len(set(columns)) > 1:
            column = on
            keys = [run.manifest[each].cast(pa.string()) for run, each in zip(self.runs, columns, strict=True)]
            merged = pa.chunked_array([chunk for key in keys for chunk in key.chunks], pa.string())
            at = manifest.column_names.index(on) if on in manifest.column_names else None
            manifest = manifest.append_column(on, merged) if at is None else manifest.set_column(at, on, merged)
        return join_table(manifest, self.arrays_of, given, on, column, duplicates)


def _names(runs: Sequence[EmbeddingRun], names: Sequence[str] | None) -> tuple[str, ...]:
    """The names of runs: those that are given, else those of their folders."""
    if not runs:
        raise SettingsError("Invalid value for the 'folder' parameter. It must name at least one run.")
    if names is not None and len(names) != len(runs):
        raise SettingsError(
            f"Invalid value for the 'names' parameter. It must have a name for each of {counted(len(runs), 'run')}, got "
            f"{len(names)}."
        )
    chosen = tuple(names) if names is not None else tuple(run.folder.basename or str(run.folder) for run in runs)
    if len(set(chosen)) < len(chosen):
        raise SettingsError(
            f"Invalid value for the 'names' parameter. The names of runs must differ, got {', '.join(chosen)}."
        )
    return chosen


def _differences(runs: Sequence[EmbeddingRun], names: Sequence[str]) -> tuple[str, ...]:
    """In what each run differs from the first, of that which decides a vector."""
    first, *others = (
        {name: value for name, value in run.record.fingerprint.items() if name not in NOT_DECIDING} for run in runs
    )
    return tuple(
        f"{name}: {line.replace(', now ', f' in {names[0]}, here ')}"
        for name, other in zip(names[1:], others, strict=True)
        for line in differences(first, other)
    )


def _with_names(tables: Sequence[pa.Table], names: Sequence[str]) -> pa.Table:
    """The rows of several tables, with the run's name in front."""
    named = []
    for name, table in zip(names, tables, strict=True):
        kept = table.rename_columns([KEPT_RUN_COLUMN if each == RUN_COLUMN else each for each in table.column_names])
        named.append(kept.add_column(0, RUN_COLUMN, pa.array([name] * kept.num_rows, pa.string())))
    return _concatenated(named)


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables one after the other; a column with types that have none in common becomes text."""
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        tables = [_as_text(table, tables) for table in tables]
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise RunError(f"the runs' manifests cannot be put together: {error}") from error


def _as_text(table: pa.Table, tables: Sequence[pa.Table]) -> pa.Table:
    """A table with those simple columns as text that have another type in another table."""
    for at, field in enumerate(table.schema):
        types = {other.schema.field(field.name).type for other in tables if field.name in other.column_names}
        if len(types) > 1 and not any(pa.types.is_nested(kind) for kind in types):
            table = table.set_column(at, field.name, table[field.name].cast(pa.string()))
    return table
