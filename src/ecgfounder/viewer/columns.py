"""The columns that recordings are coloured, filtered and compared by.

In: a selection of recordings, with its predictions and device statements if the run has them. Out: names of columns; a column as
it is; a column as typed numbers for the page.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.network.head import PLACE_COLUMNS
from ecgfounder.results.several import RUN_COLUMN

FLAG, PROBABILITY, DEVICE = "flag: ", "probability: ", "device: "
"""What names of columns begin with that are made from quality flags, the network's predictions and the device's measurements."""

OTHER, MISSING = 254, 255
"""Codes of values that are too rare for a code of their own, and of missing ones."""

MOST_WHOLE = 12
"""A column of whole numbers with at most so many different ones is shown as categories."""

LARGEST_WHOLE = 2**53
"""Whole numbers below it are exact in float64."""
LARGEST_FLOAT32 = 2**24
"""Whole numbers up to it are exact in float32."""

LABELS, RECORDING, FLAGS, MEASURED, PREDICTED = (
    "labels",
    "recording",
    "quality flags",
    "measured by the device",
    "predicted by the network",
)
"""Groups of columns, in the order in which they are offered."""

_NOT_SHOWN = (
    *("row_index", "path_index", "record", "status", "output", "error", "reason", "shape", "window_starts", "flags"),
    "input_sha256",
)
_SECONDS_OF_DAY = 86_400
_FEW = 5
"""Recordings of a value that may be a name of theirs."""

Kind = Literal["category", "number", "time"]


@dataclass(frozen=True, eq=False)
class Encoded:
    """A column for the page.

    Attributes
    ----------
    kind : str
        "category": uint8 codes; "number": float32, or float64 for whole numbers that need it; "time": float32, days since 1970.
    values : numpy.ndarray
        One for each recording; NaN is missing.
    categories : tuple of str
        The name of each code from 0, the most frequent first.
    counts : tuple of int
        How many recordings have each.
    n_other, n_missing : int
        Recordings with the codes `OTHER`, and without a value.
    names_few : bool
        Whether most recordings have a value that hardly any other has, as identifiers are.
    """

    kind: Kind
    values: npt.NDArray[Any]
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    n_other: int = 0
    n_missing: int = 0
    names_few: bool = False

    def about(self) -> dict[str, Any]:
        """What the page must know to read and explain the values."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "n_missing": self.n_missing,
            "names_few": self.names_few,
            "n_bytes": self.values.itemsize,
        }
        if self.kind == "category":
            return told | {"categories": self.categories, "counts": self.counts, "n_other": self.n_other}
        finite = self.values[np.isfinite(self.values)]
        ends = [float(each) for each in np.quantile(finite, (0, 0.01, 0.99, 1))] if len(finite) else [0.0] * 4
        return told | {"range": ends}


class Columns:
    """Columns of a selection by name; it can be given to `rows_where` in place of a table.

    Parameters
    ----------
    selection : Selection
        The recordings.
    labels : collection of str
        Which columns of its table are of a table of labels.
    """

    def __init__(self, selection: Selection, labels: Collection[str] = ()) -> None:
        self._selection = selection
        self._labels = frozenset(labels)
        self._encoded: dict[str, Encoded] = {}
        self._lock = threading.RLock()

    @cached_property
    def column_names(self) -> list[str]:
        """All names: of the table, then of what is made from flags, measurements and predictions."""
        return [*self._selection.table.column_names, *self._flags, *self._measured, *self._predicted]

    @cached_property
    def shown(self) -> dict[str, str]:
        """The columns to colour and to compare by, each with its group; labels first."""
        table = self._selection.table
        own = [name for name in table.column_names if name not in _NOT_SHOWN and table[name].null_count < len(table)]
        found = {name: LABELS for name in own if name in self._labels}
        found |= {name: RECORDING for name in own if name not in self._labels}
        for group, names in ((FLAGS, self._flags), (MEASURED, self._measured), (PREDICTED, self._predicted)):
            found |= dict.fromkeys(names, group)
        return found

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        with self._lock:
            if name in self._flags:
                mask = np.zeros(self._selection.table.num_rows, dtype=bool)
                mask[self._flags[name]] = True
                return pa.chunked_array([pa.array(mask)])
            if self._statements is not None and name in self._measured:
                return self._statements.mean(name.removeprefix(DEVICE))
            if self._predictions is not None and name in self._predicted:
                return self._predictions.mean(name.removeprefix(PROBABILITY))
            return self._selection.table[name]

    def encoded(self, name: str) -> Encoded:
        """A column of `shown` for the page."""
        with self._lock:
            found = self._encoded.get(name)
            if found is None:
                found = encoded(self[name])
                if self.shown.get(name) != PREDICTED:  # there are 150 of them
                    self._encoded[name] = found
            return found

    @cached_property
    def _flags(self) -> dict[str, npt.NDArray[np.int64]]:
        """The name of each flag that a recording has, without its detail, and the rows that have it."""
        column = self._selection.table["flags"].combine_chunks()
        if not len(column):
            return {}
        rows = pc.list_parent_indices(column).to_numpy()
        names = pc.list_element(pc.split_pattern(pc.list_flatten(column), ":", max_splits=1), 0).to_numpy(False)
        return {f"{FLAG}{each}": rows[names == each].astype(np.int64) for each in sorted(set(names))}

    @cached_property
    def _measured(self) -> tuple[str, ...]:
        names = [] if self._statements is None else self._statements.table.column_names
        return tuple(f"{DEVICE}{each}" for each in names if each not in ("record", RUN_COLUMN, "statements"))

    @cached_property
    def _predicted(self) -> tuple[str, ...]:
        names = [] if self._predictions is None else self._predictions.table.column_names
        return tuple(f"{PROBABILITY}{each}" for each in names if each not in (*PLACE_COLUMNS, RUN_COLUMN))

    @cached_property
    def _predictions(self) -> _Beside | None:
        return _Beside.of(self._selection, self._selection.run.predictions)

    @cached_property
    def _statements(self) -> _Beside | None:
        return _Beside.of(self._selection, self._selection.run.statements)

    def statements_of(self, row: int) -> list[str]:
        """The device's diagnostic statements of a recording."""
        found = None if self._statements is None else self._statements.of_row(row)
        lists = [] if found is None else found["statements"].to_pylist()
        return [text for texts in lists for text in texts or ()]

    def probabilities_of(self, row: int) -> list[tuple[str, float]]:
        """The network's probabilities for a recording, the highest first; the mean over windows and leads."""
        found = None if self._predictions is None else self._predictions.of_row(row)
        if found is None or not found.num_rows:
            return []
        names = [name.removeprefix(PROBABILITY) for name in self._predicted]
        means = [(name, float(np.mean(found[name].to_numpy()))) for name in names]
        return sorted(means, key=lambda each: -each[1])


class _Beside:
    """A table beside the manifest, with rows for some recordings of a selection."""

    def __init__(self, selection: Selection, table: pa.Table) -> None:
        self.table = table
        self._selection = selection

    @classmethod
    def of(cls, selection: Selection, table: pa.Table | None) -> _Beside | None:
        return None if table is None else cls(selection, table)

    @cached_property
    def owner(self) -> npt.NDArray[np.int64]:
        """The recording that each row is of; -1 for one that is not selected."""
        return self._selection.places_in(self.table)

    def of_row(self, row: int) -> pa.Table:
        """The rows of a recording."""
        return self.table.take(pa.array(np.flatnonzero(self.owner == row)))

    def mean(self, name: str) -> pa.ChunkedArray:
        """The mean of a column of numbers over the rows of each recording; null without any."""
        values = self.table[name].to_numpy().astype(np.float64)
        used = (self.owner >= 0) & np.isfinite(values)
        n = self._selection.table.num_rows
        sums = np.bincount(self.owner[used], values[used], minlength=n)
        counts = np.bincount(self.owner[used], minlength=n)
        means = np.divide(sums, counts, out=np.zeros(n), where=counts > 0)
        return pa.chunked_array([pa.array(means, mask=counts == 0)])


def encoded(column: pa.ChunkedArray) -> Encoded:
    """Any column for the page: numbers and times as they are, everything else as categories."""
    column = decoded(column)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
        return _numbers("time", pc.divide(seconds.cast(pa.float64()), _SECONDS_OF_DAY))
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
        different = pc.unique(numbers.filter(pc.is_finite(pc.fill_null(numbers, float("nan"))))).to_numpy()
        are_whole = bool(((different == np.rint(different)) & (np.abs(different) < LARGEST_WHOLE)).all())
        if len(different) <= MOST_WHOLE and are_whole:
            whole = pc.if_else(pc.is_finite(numbers), numbers, None).cast(pa.int64())
            return _categories(whole.cast(pa.string()))
        is_wide = are_whole and bool(np.abs(different).max() > LARGEST_FLOAT32)
        found = _numbers("number", numbers, is_wide=is_wide)
        n_known = len(numbers) - found.n_missing
        return replace(found, names_few=are_whole and len(different) > n_known / 2)
    return _categories(as_text(column))


def _numbers(kind: Kind, column: pa.ChunkedArray, *, is_wide: bool = False) -> Encoded:
    known = pc.fill_null(column, float("nan")).to_numpy()
    with np.errstate(over="ignore"):  # what is too large for float32 is missing
        values = known.astype(np.float64 if is_wide else np.float32)
    values[~np.isfinite(values)] = np.nan
    return Encoded(kind, values, n_missing=int(np.isnan(values).sum()))


def decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without a dictionary."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Any column as texts; bytes are hexadecimal."""
    column = decoded(column)
    kind = column.type
    if pa.types.is_boolean(kind):
        return pc.if_else(column, "yes", "no")
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return pc.binary_join(column, " ")
    if not (pa.types.is_nested(kind) or _is_binary(kind)):
        with suppress(pa.ArrowNotImplementedError):
            return column.cast(pa.string())
    texts = [
        None if each is None else each.hex() if isinstance(each, bytes) else str(each) for each in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])


def _is_binary(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return any(each(kind) for each in kinds)


def _categories(column: pa.ChunkedArray) -> Encoded:
    n = len(column)
    counted = pc.value_counts(column.drop_null())
    names, counts = counted.field("values").to_pylist(), counted.field("counts").to_numpy()
    order = sorted(range(len(names)), key=lambda at: (-counts[at], names[at]))
    kept = [names[at] for at in order[:OTHER]]
    codes = pc.index_in(column, value_set=pa.array(kept, pa.string())).combine_chunks()
    values = np.full(n, OTHER, dtype=np.uint8)
    known = pc.is_valid(codes).to_numpy(False)
    values[known] = pc.drop_null(codes).to_numpy().astype(np.uint8)
    missing = pc.is_null(column).to_numpy()
    values[missing] = MISSING
    in_each = tuple(int(counts[at]) for at in order[:OTHER])
    often = sum(count for count in in_each if count > _FEW)
    n_missing = int(missing.sum())
    names_few = often < (n - n_missing) / 2
    return Encoded(
        "category", values, tuple(kept), in_each, int((values == OTHER).sum()), n_missing, names_few=names_few
    )


def texts_of(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The columns of a table that a recording may be looked up by, as texts: texts and whole numbers, the record first."""
    for name in ["record", *(each for each in table.column_names if each != "record")]:
        column = decoded(table[name])
        kind = column.type
        if name not in ("status", "output", "error", "reason", "input_sha256", "row_index", "path_index") and (
            pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_string_view(kind)
            or pa.types.is_integer(kind)
        ):
            yield name, as_text(column)
