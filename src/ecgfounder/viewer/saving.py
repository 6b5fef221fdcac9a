"""A selection as a file: CSV for spreadsheets, Parquet.

In: an atlas, a mask of its recordings. Out: pieces of a file, a part of the recordings at a time; texts of a CSV are cells that
no spreadsheet runs as a formula.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Mapping
from itertools import chain, count
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ecgfounder.escaping import as_cell
from ecgfounder.viewer.atlas import Atlas
from ecgfounder.viewer.columns import as_text, decoded
from ecgfounder.viewer.places import Places16

FORMATS = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}
"""Formats and their media types."""

MAPS = ("pca", "umap")

_ROWS_AT_ONCE = 20_000


def saved(atlas: Atlas, mask: npt.NDArray[np.bool_], form: str) -> Iterator[bytes]:
    """The recordings of a mask, in the order of the run, with their columns and places on the maps that there are now."""
    maps = {kind: atlas.places.coordinates(kind) for kind in MAPS if getattr(atlas.places, kind).state == "ready"}
    return _pieces(atlas.selection.table, maps, np.flatnonzero(mask), form)


def _pieces(table: pa.Table, maps: Mapping[str, Places16], rows: npt.NDArray[np.int64], form: str) -> Iterator[bytes]:
    out = _Pipe()
    first = _part(table, maps, rows[:0])
    schema = _as_cells(first).schema if form == "csv" else first.schema
    writer = pyarrow.csv.CSVWriter(out, schema) if form == "csv" else pq.ParquetWriter(out, schema, compression="zstd")
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        part = _part(table, maps, rows[begin : begin + _ROWS_AT_ONCE])
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


def _part(table: pa.Table, maps: Mapping[str, Places16], rows: npt.NDArray[np.int64]) -> pa.Table:
    part = table.take(pa.array(rows))
    for kind, places in maps.items():
        for axis, name in enumerate("xy"):
            part = part.append_column(_another(f"{kind}_{name}", part.column_names), pa.array(places[rows, axis]))
    return part


def _another(name: str, others: Collection[str]) -> str:
    """A name that no other column has: with a number if need be."""
    numbered = (f"{name}_{number}" for number in count(2))
    return next(each for each in chain([name], numbered) if each not in others)


def _as_cells(table: pa.Table) -> pa.Table:
    """All columns as a CSV file has them: numbers, and everything else as cells of text, a list as one."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = decoded(table[name])
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            texts = column.to_pylist() if pa.types.is_nested(kind) else as_text(column).to_pylist()
            cells = [None if each is None else as_cell(_text(each)) for each in texts]
            column = pa.chunked_array([pa.array(cells, pa.string())])
        columns[as_cell(name)] = column
    return pa.table(columns)


def _text(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
