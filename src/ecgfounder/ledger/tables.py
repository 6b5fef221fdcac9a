"""Tables beside the manifest: predictions of the network's head, and diagnostic statements of the recording device.

In: ledger entries of finished records, in the dataset's order. Out: `predictions.pq` and `.csv`, `statements.pq`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ecgfounder.errors import RunError
from ecgfounder.escaping import as_cell
from ecgfounder.ledger.entry import Entry, unpacked
from ecgfounder.network.head import LIKELY, PLACE_COLUMNS
from ecgfounder.storage import locate
from ecgfounder.storage.writing import Place, writing

ROWS_AT_ONCE = 2048

STATEMENT_SCHEMA = pa.schema(
    [
        ("record", pa.string()),
        ("statements", pa.list_(pa.string())),
        *(
            (name, pa.float64())
            for name in ("heart_rate", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "p_axis", "qrs_axis", "t_axis")
        ),
    ]
)


class _Table:
    """A table that is written row by row to a temporary file, which replaces the target when the block ends without an error."""

    def __init__(self, place: Place, schema: pa.Schema, *, with_csv: bool = False) -> None:
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        place = locate(place)
        with ExitStack() as opened:
            file = opened.enter_context(writing(place))
            self._writer = opened.enter_context(pq.ParquetWriter(file, schema, compression="zstd"))
            self._csv = None
            if with_csv:
                text = opened.enter_context(writing(place.beside(f"{place.stem}.csv")))
                self._csv = opened.enter_context(pyarrow.csv.CSVWriter(text, schema))
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._opened.__exit__(kind, error, trace)

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        self._writer.write_table(table)
        if self._csv is not None:
            self._csv.write_table(_as_cells(table))
        self._rows = []


def _as_cells(table: pa.Table) -> pa.Table:
    """A table whose columns of text are cells of a CSV file; numbers are not changed."""
    for position, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            texts = [None if text is None else as_cell(text) for text in table.column(position).to_pylist()]
            table = table.set_column(position, column, pa.array(texts, column.type))
    return table


class PredictionsTable(_Table):
    """One row per recording, window and lead, with an independent probability (sigmoid) for each label.

    Parameters
    ----------
    place : str or os.PathLike or Location
        The Parquet file; a CSV file of the same name is written beside it.
    labels : sequence of str
        Names of the head's classes, in their order.
    """

    def __init__(self, place: Place, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self.likely: Counter[str] = Counter()
        places = zip(PLACE_COLUMNS, (pa.string(), pa.float64(), pa.string()), strict=True)
        super().__init__(place, pa.schema([*places, *((label, pa.float32()) for label in labels)]), with_csv=True)

    def add(self, record: str, entry: Entry) -> None:
        """Add a finished record's probabilities; failures have none.

        Raises
        ------
        RunError
            If there is not one for each label.
        """
        rows = [unpacked(text) for text in entry.probabilities or ()]
        if not rows:
            return
        if len(rows[0]) != len(self._labels):
            raise RunError(
                f"the ledger has predictions of {len(rows[0])} statements, and the run's checkpoint has {len(self._labels)}: "
                "another program has changed the run's folder. Begin again in another output_dir, or with overwrite=True."
            )
        starts = entry.facts.starts or (0.0,)
        leads = entry.facts.leads
        per_window = len(rows) // len(starts)
        for number, probabilities in enumerate(rows):
            lead = leads[number % per_window] if per_window == len(leads) else None
            place = {"record": record, "window_start": starts[number // per_window], "lead": lead}
            self._append(place | dict(zip(self._labels, probabilities.tolist(), strict=True)))
        highest = np.max(rows, axis=0)
        self.likely.update(self._labels[index] for index in np.flatnonzero(highest >= LIKELY))


class StatementsTable(_Table):
    """One row per recording whose file has statements or intervals of the recording device."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, STATEMENT_SCHEMA)

    def add(self, record: str, entry: Entry) -> None:
        """Add the statements of a finished record."""
        if entry.facts.statements is not None:
            self._append({"record": record, **asdict(entry.facts.statements)})
