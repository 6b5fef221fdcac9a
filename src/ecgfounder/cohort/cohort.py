"""The cohort: the paths of a dataset's ECG files as a stream of records.

In: batches of a dataset's rows. Out: `Record`s one by one; only one batch of rows is in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from ecgfounder.cohort.cells import is_list_text, paths_of_text
from ecgfounder.errors import CohortError

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_COLUMN = "ecg_paths"

_DEEPEST_LISTS = 2

_NAMES_SHOWN = 40

_NAMES_SUGGESTED = 2


class Record(NamedTuple):
    """One path of the cohort: the unit of work.

    Attributes
    ----------
    path : str
        As written in the dataset.
    row : int
        Its dataset row, from 0.
    position : int
        Its position among the row's paths, from 0.
    identifier : str or None
        The row's value of the identifier column; None without such a column.
    """

    path: str
    row: int
    position: int
    identifier: str | None = None


class Cohort:
    """A dataset opened for reading; rows are read in batches."""

    def __init__(
        self,
        columns: Sequence[str],
        batches: Callable[[list[str]], Iterator[pa.Table]],
        *,
        path_column: str = DEFAULT_COLUMN,
        id_column: str | None = None,
        n_rows: int | None = None,
        fingerprint: str = "",
        lists_as_text: bool = False,
    ) -> None:
        self.columns = tuple(columns)
        self.path_column = path_column
        self.id_column = id_column
        self.n_rows = n_rows
        self.fingerprint = fingerprint
        self._batches = batches
        self._lists_as_text = lists_as_text  # whether a text may be a list of paths that was written as text
        self.require(path_column, "path_column")
        if id_column is not None:
            self.require(id_column, "id_column")

    def require(self, column: str, parameter: str | None = None) -> None:
        """Refuse a column that does not exist; see `require_column`."""
        require_column(column, self.columns, parameter)

    def records(self) -> Iterator[Record]:
        """Every path, in the dataset's order: by row, and within a row in the order of the flattened list."""
        for record, _ in self.records_with(()):
            yield record

    def records_with(self, columns: Sequence[str]) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Every path, and the row's values of further columns."""
        wanted = dict.fromkeys(filter(None, (self.path_column, self.id_column, *columns)))
        row = 0
        for table in self._batches(list(wanted)):
            _refuse_depth(table.schema.field(self.path_column).type, self.path_column)
            cells = values_of(table, self.path_column, row)
            identifiers = values_of(table, self.id_column, row) if self.id_column else [None] * len(cells)
            others = rows_of(table.select(list(columns)), row) if columns else [{}] * len(cells)
            for cell, identifier, other in zip(cells, identifiers, others, strict=True):
                name = None if self.id_column is None else _identifier_text(identifier)
                if self._lists_as_text and isinstance(cell, str) and is_list_text(cell):
                    cell = self._list_of(cell, row)
                if isinstance(cell, str) and cell:
                    yield Record(cell, row, 0, name), other
                else:
                    for position, path in enumerate(flat_paths(cell, self.path_column, row)):
                        yield Record(path, row, position, name), other
                row += 1

    def _list_of(self, cell: str, row: int) -> list[str]:
        try:
            return paths_of_text(cell)
        except ValueError as error:
            raise CohortError(
                f"The '{self.path_column}' column holds a list of paths as text in row {row} that cannot be read: {error}."
            ) from error

    def rows(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Some columns in batches of rows, including rows without an ECG."""
        for column in columns:
            self.require(column)
        yield from self._batches(list(columns))

    def schema_of(self, columns: Sequence[str]) -> pa.Schema:
        """Arrow types of some columns; empty for a dataset without rows, whose types are unknown."""
        import pyarrow as pa

        first = next(self._batches(list(columns)), None) if columns else None
        return pa.schema([]) if first is None else first.schema


def _identifier_text(value: object) -> str:
    """An identifier as text; "" for a missing one, which is NaN in a column of floating-point numbers."""
    return "" if value is None or value != value else str(value)


class MissingColumnError(CohortError):
    """A column that does not exist; the message has those that do, and the parameter that names another.

    Attributes
    ----------
    column : str
        The missing column.
    """

    def __init__(self, column: str, columns: Sequence[str], parameter: str | None = None) -> None:
        self.column = column
        self._columns = columns
        close = " or ".join(map(repr, get_close_matches(column, columns, _NAMES_SUGGESTED)))
        shown = ", ".join(columns[:_NAMES_SHOWN]) or "none"
        more = f" and {len(columns) - _NAMES_SHOWN} more" if len(columns) > _NAMES_SHOWN else ""
        super().__init__(
            f"Expected {column!r} column in the dataset; its columns are: {shown}{more}. "
            + (f"Did you mean {close}? " if close else "")
            + (f"Name the right one with the '{parameter}' parameter." if parameter else "Name the right one.")
        )

    def of_parameter(self, parameter: str) -> MissingColumnError:
        """The same error for a caller whose parameter has another name."""
        return MissingColumnError(self.column, self._columns, parameter)


def require_column(column: str, columns: Sequence[str], parameter: str | None = None) -> None:
    """Refuse a column that does not exist."""
    if column not in columns:
        raise MissingColumnError(column, columns, parameter)


def values_of(table: pa.Table, column: str, row: int) -> list[Any]:
    """A column's values as Python objects; `row` is the dataset row of the table's first.

    Raises
    ------
    CohortError
        If Python cannot represent a value: text that is not UTF-8, a date beyond the year 9999, lists nested too deeply.
    """
    try:
        return cast("list[Any]", table.column(column).to_pylist())
    except (ValueError, OverflowError, RecursionError) as error:  # a UnicodeDecodeError is a ValueError
        raise CohortError(
            f"The '{column}' column has a value in rows {row} to {row + len(table) - 1} that cannot be read "
            f"({type(error).__name__})."
        ) from error


def rows_of(table: pa.Table, row: int) -> list[dict[str, Any]]:
    """A table's rows by column, with the values of `values_of`."""
    names = table.column_names
    values = [values_of(table, name, row) for name in names]
    return [dict(zip(names, of_row, strict=True)) for of_row in zip(*values, strict=True)]


def _refuse_depth(kind: pa.DataType, column: str) -> None:
    """Refuse types of lists that are nested more deeply than lists of lists."""
    import pyarrow as pa

    depth = 0
    while hasattr(kind, "value_type") and not pa.types.is_dictionary(kind):
        depth += 1
        kind = kind.value_type
    if depth > _DEEPEST_LISTS:
        raise CohortError(
            f"The '{column}' column must hold paths (text, lists of text or lists of lists of text), but it holds lists "
            f"that are nested {depth} deep."
        )


def flat_paths(cell: Any, column: str = DEFAULT_COLUMN, row: int = 0) -> Iterator[str]:
    """The paths in one cell: a string, a list of strings, or a list of lists; None and empty strings are skipped.

    Raises
    ------
    CohortError
        If the cell holds anything but text.
    """
    if cell is None or cell == "":
        return
    if isinstance(cell, str):
        yield cell
    elif isinstance(cell, bytes):
        yield os.fsdecode(cell)
    elif isinstance(cell, list | tuple):
        for part in cell:
            yield from flat_paths(part, column, row)
    else:
        raise CohortError(
            f"The '{column}' column must hold paths (text, lists of text or lists of lists of text), "
            f"but row {row} holds a {type(cell).__name__}."
        )
