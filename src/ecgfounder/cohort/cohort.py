"""The cohort: the paths of a dataset's ECG files as a stream of records.

In: batches of a dataset's rows. Out: `Record`s one by one; only one batch of rows is in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ecgfounder.errors import CohortError

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_COLUMN = "ecg_paths"


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
    ) -> None:
        self.columns = tuple(columns)
        self.path_column = path_column
        self.id_column = id_column
        self.n_rows = n_rows
        self.fingerprint = fingerprint
        self._batches = batches
        for column in (path_column,) if id_column is None else (path_column, id_column):
            self.require(column)

    def require(self, column: str) -> None:
        """Refuse a column that does not exist; the message lists the existing ones."""
        if column not in self.columns:
            raise CohortError(
                f"Expected '{column}' column in the dataset; its columns are: {', '.join(self.columns) or 'none'}. "
                "Name the right one."
            )

    def records(self) -> Iterator[Record]:
        """Every path, in the dataset's order: by row, and within a row in the order of the flattened list."""
        for record, _ in self.records_with(()):
            yield record

    def records_with(self, columns: Sequence[str]) -> Iterator[tuple[Record, dict[str, Any]]]:
        """Every path, and the row's values of further columns."""
        wanted = dict.fromkeys(filter(None, (self.path_column, self.id_column, *columns)))
        row = 0
        for table in self._batches(list(wanted)):
            cells = table.column(self.path_column).to_pylist()
            identifiers = table.column(self.id_column).to_pylist() if self.id_column else [None] * len(cells)
            others = table.select(list(columns)).to_pylist() if columns else [{}] * len(cells)
            for cell, identifier, other in zip(cells, identifiers, others, strict=True):
                name = None if self.id_column is None else "" if identifier is None else str(identifier)
                if isinstance(cell, str) and cell:
                    yield Record(cell, row, 0, name), other
                else:
                    for position, path in enumerate(flat_paths(cell, self.path_column, row)):
                        yield Record(path, row, position, name), other
                row += 1

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
