"""Join a run's recordings with a table, for example of labels.

In: a run and a table with a column in common. Out: a `Join` with the matched rows, and those that did not match.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.checks import check_choice
from ecgfounder.errors import RunError
from ecgfounder.escaping import facts_as_html
from ecgfounder.results.arrays import Embeddings

ArraysOf = Callable[[pa.Table, str], tuple[Embeddings, pa.Table]]
"""The embeddings of some rows of a manifest with a pooling, and a table with the same rows."""


@dataclass(frozen=True, eq=False)
class Join:
    """A run's recordings joined with the rows of a table; made by `EmbeddingRun.join`.

    Attributes
    ----------
    table : pyarrow.Table
        One row per matched recording, in the dataset's order: the manifest's columns, then the table's. If both have a
        column of the same name, the table's gets the suffix "_table".
    unmatched_records : pyarrow.Table
        Manifest rows of recordings with an embedding, but without a row of the table.
    unmatched_rows : pyarrow.Table
        Rows of the table without an embedded recording.
    failed_rows : pyarrow.Table
        The rows of `unmatched_rows` whose recording failed.
    duplicate_rows : pyarrow.Table
        Rows of the table whose key is duplicate.

    `print(join)` names what does not match.
    """

    on: str
    table: pa.Table
    unmatched_records: pa.Table
    unmatched_rows: pa.Table
    failed_rows: pa.Table
    duplicate_rows: pa.Table
    n_rows: int
    _column: str
    _arrays_of: ArraysOf

    def arrays(self, pooling: str = "none") -> tuple[Embeddings, pa.Table]:
        """`EmbeddingRun.arrays` for the matched recordings; the table's columns are in `meta`."""
        return self._arrays_of(self.table, pooling)

    def __repr__(self) -> str:
        return f"<Join on {self.on!r}: {', '.join(text for _, text in self._facts())}>"

    def _repr_html_(self) -> str:
        return facts_as_html(f"Join on {self.on!r}", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """The counts by name; those of what does not match only if there is any."""
        counts = [
            ("matched", self.table, "recording matched", "recordings matched"),
            ("without a row", self.unmatched_records, "recording without a row", "recordings without a row"),
            ("without a recording", self.unmatched_rows, "row without an embedding", "rows without an embedding"),
            ("duplicate", self.duplicate_rows, "row with a duplicate key", "rows with a duplicate key"),
        ]
        return [
            (name, f"{table.num_rows:,} {one if table.num_rows == 1 else many}")
            for name, table, one, many in counts
            if table.num_rows or name == "matched"
        ]

    def __str__(self) -> str:
        matched = self.table.num_rows
        used = self.n_rows - self.unmatched_rows.num_rows
        lines = [
            f"{matched:,} of {matched + self.unmatched_records.num_rows:,} recordings have a row of the table; "
            f"{used:,} of its {self.n_rows:,} rows have a recording."
        ]
        if self.unmatched_records.num_rows:
            lines.append(f"Recordings without a row ({self.on}): {_some(self.unmatched_records[self._column])}")
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


def check_join(table: Any, on: str, duplicates: str) -> pa.Table:
    """The table of a join as a pyarrow.Table; refuses one without the column, and unknown values of `duplicates`."""
    check_choice("duplicates", duplicates, ("error", "first"))
    given = as_arrow(table)
    if on not in given.column_names:
        raise RunError(
            f"the table has no column {on!r}; its columns are: {', '.join(given.column_names)} "
            "(an index of pandas becomes a column with reset_index())."
        )
    return given


def join_table(manifest: pa.Table, read: ArraysOf, given: pa.Table, on: str, column: str, duplicates: str) -> Join:
    """Join the rows of `given` and `manifest` with the same key: `on` in `given`, `column` in the manifest."""
    is_done = pc.equal(manifest["status"], "done")
    records, without_embedding = manifest.filter(is_done), manifest.filter(pc.invert(is_done))
    left, right = _comparable(records[column], given[on], on)
    counted = pc.value_counts(right.drop_null())
    often = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    repeated = given.filter(pc.is_in(right, often, skip_nulls=True))
    if len(often) and duplicates == "error":
        raise RunError(
            f"{len(often):,} keys are in more than one of the table's rows, so that a recording's row is ambiguous "
            f'({on}: {_some(often)}): keep one row of each, or take the first with duplicates="first".'
        )
    at = pc.index_in(left, right, skip_nulls=True)
    has_row = pc.is_valid(at)
    others = given.drop_columns([on]) if column == on else given
    found = others.take(at.filter(has_row))
    table = records.filter(has_row)
    for name in found.column_names:
        told = name
        while told in table.column_names:
            told += "_table"
        table = table.append_column(told, found[name])
    without = pc.invert(pc.is_in(right, left, skip_nulls=True))
    failed_keys, keys = _comparable(without_embedding[column], given[on], on)
    joined = Join(
        on,
        table,
        unmatched_records=records.filter(pc.invert(has_row)),
        unmatched_rows=given.filter(without),
        failed_rows=given.filter(pc.and_(without, pc.is_in(keys, failed_keys, skip_nulls=True))),
        duplicate_rows=repeated,
        n_rows=given.num_rows,
        _column=column,
        _arrays_of=read,
    )
    if joined.unmatched_records.num_rows or joined.unmatched_rows.num_rows or repeated.num_rows:
        counts = ", ".join(text for _, text in joined._facts())
        warnings.warn(f"{counts} ({on}); print the join to see which", UserWarning, stacklevel=3)
    return joined


def as_arrow(table: Any) -> pa.Table:
    """A table of the user as pyarrow.Table, with texts of one kind: polars has large ones and views."""
    if hasattr(table, "iloc"):
        given = pa.Table.from_pandas(table, preserve_index=False)
    else:
        try:
            given = table if isinstance(table, pa.Table) else pa.table(table)
        except (TypeError, ValueError, pa.ArrowException) as error:
            raise RunError(
                f"expected a pandas or polars DataFrame or a pyarrow.Table, got a {type(table).__name__}"
            ) from error
    try:
        return pa.table([_plain(column) for column in given.columns], names=given.column_names)
    except pa.ArrowException as error:
        raise RunError(f"the table has texts that are too long ({type(error).__name__})") from error


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column with `string` for all kinds of texts, in lists and dictionaries too."""
    kind = column.type
    if pa.types.is_dictionary(kind) and _plain_type(kind.value_type) != kind.value_type:
        chunks = [
            pa.DictionaryArray.from_arrays(each.indices, each.dictionary.cast(_plain_type(kind.value_type)))
            for each in column.chunks
        ]
        return pa.chunked_array(chunks, pa.dictionary(kind.index_type, _plain_type(kind.value_type)))
    plain = _plain_type(kind)
    return column if plain == kind else column.cast(plain)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        value = _plain_type(kind.value_type)
        return kind if value == kind.value_type else pa.list_(value)
    return kind


_POINT_ZERO = r"\.0+$"


def _comparable(left: pa.ChunkedArray, right: pa.ChunkedArray, on: str) -> tuple[pa.Array, pa.Array]:
    """Two columns of keys with the same type: integers if both are, else text.

    Text with a decimal point (40689238.0) is made whole if the other column's keys have none.
    """
    keys = [_as_keys(column, on) for column in (left, right)]
    if keys[0].type == keys[1].type != pa.string():
        return keys[0], keys[1]
    keys = [each.cast(pa.string()) for each in keys]
    decimal = [_all_decimal(each) for each in keys]
    for side, other in ((0, 1), (1, 0)):
        if decimal[side] and not pc.any(pc.match_substring(keys[other], "."), min_count=0).as_py():
            keys[side] = pc.replace_substring_regex(keys[side], _POINT_ZERO, "")
    return keys[0], keys[1]


def _all_decimal(keys: pa.Array) -> bool:
    """Whether all keys are whole numbers with a decimal point, as of a column that a library has made floating-point."""
    given = keys.drop_null()
    return len(given) > 0 and bool(pc.all(pc.match_substring_regex(given, rf"^-?\d+{_POINT_ZERO}")).as_py())


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
    """The first five of many values, for a message."""
    texts = [str(value) for value in islice(values, 5)]
    return ", ".join(texts) + (f" and {len(values) - 5:,} more" if len(values) > 5 else "")
