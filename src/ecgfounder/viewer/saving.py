"""A selection as a file: CSV for spreadsheets, Parquet.

In: an atlas, a mask of its recordings. Out: pieces of a file, a part of the recordings at a time; texts of a CSV are cells that
no spreadsheet runs as a formula.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ecgfounder.escaping import as_cell
from ecgfounder.viewer.atlas import Atlas

FORMATS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
"""Formats and their media types."""

_ROWS_AT_ONCE = 20_000


def saved(atlas: Atlas, mask: npt.NDArray[np.bool_], form: str) -> Iterator[bytes]:
    """The recordings of a mask, in the order of the run, with their columns and places on the maps."""
    rows = np.flatnonzero(mask)
    out = _Pipe()
    first = _part(atlas, rows[:0])
    schema = _as_cells(first).schema if form == "csv" else first.schema
    writer = pyarrow.csv.CSVWriter(out, schema) if form == "csv" else pq.ParquetWriter(out, schema, compression="zstd")
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = _part(atlas, rows[begin : begin + _ROWS_AT_ONCE])
        writer.write_table(_as_cells(part) if form == "csv" else part)
        yield out.taken()
    writer.close()
    yield out.taken()


class _Pipe(io.RawIOBase):
    """A file that is read while it is written."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._written += len(piece)
        return len(piece)

    def taken(self) -> bytes:
        """What was written since the last call."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _part(atlas: Atlas, rows: npt.NDArray[np.int64]) -> pa.Table:
    table = atlas.selection.table.take(pa.array(rows))
    for kind in ("pca", "umap"):
        if getattr(atlas.places, kind).state == "ready":
            places = atlas.places.coordinates(kind)[rows]
            for axis, name in enumerate("xy"):
                table = table.append_column(f"{kind}_{name}", pa.array(places[:, axis]))
    return table


def _as_cells(table: pa.Table) -> pa.Table:
    """All columns as a CSV file has them: lists as one text, texts and names as cells."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name]
        kind = column.type
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_string(kind):
            texts = [None if each is None else as_cell(_text(each)) for each in column.to_pylist()]
            column = pa.chunked_array([pa.array(texts, pa.string())])
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            column = pc.cast(column, pa.string())
        columns[as_cell(name)] = column
    return pa.table(columns)


def _text(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
