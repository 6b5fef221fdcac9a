"""Tables beside the manifest: what the network's head predicts, and what the recording device itself stated.

In: ledger entries of finished records, in the dataset's order. Out: `predictions.parquet` and `.csv`, `statements.parquet`.
"""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ROWS_AT_ONCE = 2048
LIKELY = 0.5
"""The probability from which on a statement counts as a finding in the summary."""

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


def packed(values: npt.NDArray[np.float32]) -> str:
    """float32 values as text for a ledger line: base64 of their little-endian bytes."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> npt.NDArray[np.float32]:
    """What `packed` packed."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)


class _Table:
    """A table that grows row by row beside its final place and takes it in one step."""

    def __init__(self, path: Path, schema: pa.Schema, *, with_csv: bool = False) -> None:
        self._path = path
        self._schema = schema
        self._rows: list[dict[str, Any]] = []
        self._aside = path.with_name(f".{path.name}.part")
        self._writer = pq.ParquetWriter(self._aside, schema, compression="zstd")
        self._csv_aside = path.with_name(f".{path.stem}.csv.part")
        self._csv = pyarrow.csv.CSVWriter(self._csv_aside, schema) if with_csv else None

    def _append(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= ROWS_AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=self._schema)
        self._writer.write_table(table)
        if self._csv is not None:
            self._csv.write_table(table)
        self._rows = []

    def close(self) -> None:
        """Finish the table and put it in its place."""
        self._flush()
        self._writer.close()
        done = [(self._aside, self._path)]
        if self._csv is not None:
            self._csv.close()
            done.append((self._csv_aside, self._path.with_suffix(".csv")))
        for aside, path in done:
            with open(aside, "rb") as written:
                os.fsync(written.fileno())
            os.replace(aside, path)


class PredictionsTable(_Table):
    """One row per recording, window and lead: a probability in [0, 1] for each label, each by itself (sigmoid).

    Parameters
    ----------
    path : of the Parquet file; a CSV of the same name goes beside it.
    labels : names of the head's classes, in their order.
    """

    def __init__(self, path: Path, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self.likely: Counter[str] = Counter()
        places = [("record", pa.string()), ("window_start", pa.float64()), ("lead", pa.string())]
        super().__init__(path, pa.schema([*places, *((label, pa.float32()) for label in labels)]), with_csv=True)

    def add(self, record: str, entry: dict[str, Any]) -> None:
        """Take a finished record's probabilities; failures have none."""
        rows = [unpacked(text) for text in entry.get("probabilities") or ()]
        if not rows:
            return
        starts = entry.get("starts") or [0.0]
        leads = entry.get("leads") or []
        per_window = len(rows) // len(starts)
        for number, probabilities in enumerate(rows):
            lead = leads[number % per_window] if per_window == len(leads) else None
            place = {"record": record, "window_start": starts[number // per_window], "lead": lead}
            self._append(place | dict(zip(self._labels, probabilities.tolist(), strict=True)))
        highest = np.max(rows, axis=0)
        self.likely.update(self._labels[index] for index in np.flatnonzero(highest >= LIKELY))


class StatementsTable(_Table):
    """One row per recording whose file carries statements or intervals of the recording device."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, STATEMENT_SCHEMA)

    def add(self, record: str, entry: dict[str, Any]) -> None:
        """Take what a finished record's file stated."""
        stated = entry.get("statements")
        if stated:
            self._append({"record": record, **stated})
