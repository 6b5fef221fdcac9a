"""A run, or several as one, as it is looked at: its recordings, where they lie, its failures.

In: an opened run, a table of labels. Out: an `Atlas`, which answers questions about recordings by their row.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.duplication.reread import Files
from ecgfounder.analysis.rows.selection import Selection, as_name, select
from ecgfounder.analysis.rows.where import rows_where
from ecgfounder.errors import SettingsError
from ecgfounder.results import EmbeddingRun, EmbeddingRuns
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.storage import NO_OPTIONS, StorageOptions
from ecgfounder.viewer.columns import Columns, texts_of
from ecgfounder.viewer.places import Places

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

MOST_FOUND = 50
"""Recordings that a search gives."""

_NUMBER = "__row"
_LABELLED = "__label"


@dataclass(frozen=True)
class Found:
    """What a search found: rows, the column and the text by which each was found, and how many there are in all."""

    rows: tuple[int, ...]
    by: tuple[tuple[str, str], ...]
    total: int


class Atlas:
    """Recordings to look at; made by `open_atlas`.

    Attributes
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run.
    selection : Selection
        Its recordings that have an embedding; a row of `selection.table` is a point of the map.
    columns : Columns
        What they can be coloured and filtered by.
    places : Places
        Where they lie on the map.
    group : str or None
        The column with the patient.
    files : Files
        Their signals, from the cohort's files.
    """

    def __init__(
        self,
        selection: Selection,
        columns: Columns,
        *,
        group: str | None,
        data_dir: str | None,
        options: StorageOptions,
    ) -> None:
        self.run = selection.run
        self.selection = selection
        self.columns = columns
        self.group = group
        self.places = Places(selection)
        self.files = Files(self.run, selection.table, data_dir, options)

    def __len__(self) -> int:
        return int(self.selection.table.num_rows)

    @property
    def runs(self) -> Sequence[tuple[str, EmbeddingRun]]:
        """The runs and their names."""
        if isinstance(self.run, EmbeddingRuns):
            return tuple(zip(self.run.names, self.run.runs, strict=True))
        return ((self.run.folder.basename or str(self.run.folder), self.run),)

    def where(self, expression: str) -> Mask:
        """The recordings for which a condition is true; any column may be named, made ones with `col("flag: clipped")`.

        Raises
        ------
        SettingsError
            If it is no such condition.
        """
        mask = rows_where(self.columns, expression)
        return np.asarray(mask.to_numpy(zero_copy_only=False), dtype=bool)

    def find(self, text: str) -> Found:
        """Recordings whose name contains a text, then those with that text in any other column of texts or whole numbers."""
        found: dict[int, tuple[str, str]] = {}
        total = np.zeros(len(self), dtype=bool)
        for name, texts in texts_of(self.selection.table):
            mask = pc.match_substring(texts, text, ignore_case=True) if name == "record" else pc.equal(texts, text)
            rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy())
            total[rows] = True
            for row in rows[:MOST_FOUND].tolist():
                found.setdefault(row, (name, str(texts[row].as_py())))
        first = tuple(found)[:MOST_FOUND]
        return Found(first, tuple(found[row] for row in first), int(total.sum()))

    def names(self, rows: Sequence[int] | Numbers) -> list[dict[str, Any]]:
        """The row, name and run of some recordings, and their patient if the column is known."""
        columns = [name for name in ("record", RUN_COLUMN, self.group) if name in self.selection.table.column_names]
        part = self.selection.table.select(list(dict.fromkeys(columns))).take(pa.array(np.asarray(rows, np.int64)))
        texts = [
            {name: None if value is None else as_name(value) for name, value in each.items()}
            for each in part.to_pylist()
        ]
        return [{"row": int(row), **each} for row, each in zip(rows, texts, strict=True)]

    def of_same_patient(self, row: int) -> Numbers:
        """The rows of the patient's other recordings; none without a column of patients, or without a patient."""
        if self.group is None:
            return np.empty(0, np.int64)
        column = self.selection.column(self.group, "group")
        own = column[row]
        if not own.is_valid or own.as_py() == "":
            return np.empty(0, np.int64)
        rows = np.flatnonzero(pc.fill_null(pc.equal(column, own), False).to_numpy())
        others: Numbers = rows[rows != row]
        return others

    @cached_property
    def failures(self) -> pa.Table:
        """The recordings that failed: run, record, reason."""
        table = self.run.failures
        names = [name for name in (RUN_COLUMN, "record", "error", "reason") if name in table.column_names]
        return table.select(names)

    @cached_property
    def reasons(self) -> list[tuple[str, str, int]]:
        """Error and reason of the failures, and how many there are, the most frequent first."""
        counts = self.failures.group_by(["error", "reason"], use_threads=False).aggregate([([], "count_all")])
        rows = [(each["error"] or "", each["reason"] or "", each["count_all"]) for each in counts.to_pylist()]
        return sorted(rows, key=lambda each: (-each[2], each[:2]))

    def close(self) -> None:
        """End what is done in the background."""
        self.places.close()


def open_atlas(
    run: EmbeddingRun | EmbeddingRuns,
    labels: Any = None,
    on: str | None = None,
    *,
    group: str | None = None,
    where: str | None = None,
    exclude_flags: Collection[str] = (),
    data_dir: str | None = None,
    options: StorageOptions = NO_OPTIONS,
) -> Atlas:
    """Choose the recordings to look at; those without a row in the table of labels are among them.

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run, complete or not.
    labels : Any, optional
        A table of labels (pandas, polars or pyarrow).
    on : str, optional
        The column that the table and the run have in common.
    group : str, optional
        The column with the patient.
    where : str, optional
        A condition on the columns, see `ecgfounder.analysis.rows.where`.
    exclude_flags : collection of str
        Names of quality flags; recordings that have one are left out.
    data_dir : str, optional
        The folder that the paths of recordings are relative to now; None for that of the run.
    options : StorageOptions
        Options of object stores.

    Raises
    ------
    SettingsError, RunError
        If a column does not exist, or the condition or the table is not valid.
    """
    if (labels is None) != (on is None):
        raise SettingsError(
            "labels and on belong together: the table, and the column that it has in common with the run"
        )
    if run.records.num_rows:
        selection = select(run, exclude_flags=exclude_flags)
    else:
        selection = Selection(run, run.records, {"failed": run.failures.num_rows})
    names: list[str] = []
    if on is not None:
        selection, names = _labelled(selection, labels, on)
    if where is not None and len(selection.table):
        selection = selection.kept(rows_where(Columns(selection), where), f"where: {where}")
    if group is not None:
        selection.column(group, "group")
    return Atlas(selection, Columns(selection, names), group=group, data_dir=data_dir, options=options)


def _labelled(selection: Selection, labels: Any, on: str) -> tuple[Selection, list[str]]:
    """The same recordings with the columns of a table of labels, and the names of these columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of rows that match nothing: the page shows missing values
        joined = selection.run.join(labels, on).table
    names = [name for name in joined.column_names if name not in selection.table.column_names]
    keys = [name for name in (RUN_COLUMN, "output") if name in joined.column_names]
    numbered = joined.select(keys).append_column(_LABELLED, pa.array(np.arange(joined.num_rows)))
    first = numbered.group_by(keys, use_threads=False).aggregate([(_LABELLED, "min")])
    own = selection.table.select(keys).append_column(_NUMBER, pa.array(np.arange(selection.table.num_rows)))
    found = own.join(first, keys, join_type="left outer", use_threads=False).sort_by(_NUMBER)
    rows = found[f"{_LABELLED}_min"].combine_chunks()
    table = selection.table
    for name in names:
        table = table.append_column(name, joined[name].take(rows))
    return Selection(selection.run, table, selection.left_out), names
