"""Results as tables: a row per label, metric and control.

In: evaluations. Out: `Row`s, a pyarrow table, and files as Parquet and CSV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ecgfounder.analysis.statistics.evaluation import MACRO, Counts, Evaluation
from ecgfounder.analysis.statistics.intervals import Estimate
from ecgfounder.errors import RunError
from ecgfounder.escaping import as_cell
from ecgfounder.storage import Location
from ecgfounder.storage.writing import writing

EMBEDDING = "embedding"
"""The value of `control` of the probe itself."""

SCHEMA = pa.schema(
    [
        ("label", pa.string()),
        ("metric", pa.string()),
        ("estimate", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n_records", pa.int64()),
        ("n_patients", pa.int64()),
        ("n_pos_patients", pa.int64()),
        ("split", pa.string()),
        ("control", pa.string()),
        ("seed", pa.int64()),
        ("note", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """One figure.

    Attributes
    ----------
    label, metric, control, split : str
        Which label ("(macro)" for their mean), metric, control ("embedding" for the probe itself) and split.
    estimate, low, high : float or None
        The figure and its 95 % interval.
    n_records, n_patients, n_pos_patients : int or None
        Recordings and patients of the test parts whose label is known, and patients with a positive label.
    seed : int
        Seed of splits, draws and permutations.
    note : str
        What a reader must know: few patients, draws that could not be scored, why there is no figure.
    """

    label: str
    metric: str
    estimate: float | None
    low: float | None
    high: float | None
    n_records: int | None
    n_patients: int | None
    n_pos_patients: int | None
    split: str
    control: str
    seed: int
    note: str = ""


def rows_of(evaluation: Evaluation, control: str, split: str, seed: int, few: int) -> list[Row]:
    """The rows of an evaluation; labels that are not scored have one row with the reason.

    `few` is the number of patients of the rarer class below which an interval is marked.
    """
    rows = []
    for label, counts in evaluation.counts.items():
        if label in evaluation.not_scored:
            reason = f"not scored: {evaluation.not_scored[label]}"
            numbers = numbers_of(counts)
            rows.append(Row(label, "none", None, None, None, *numbers, split, control, seed, reason))
    for label, metrics in evaluation.estimates.items():
        known = evaluation.counts.get(label)
        for metric, estimate in metrics.items():
            rows.append(_row(label, metric, estimate, known, evaluation, (split, control, seed), few))
    return rows


def numbers_of(counts: Counts | None) -> tuple[int | None, int | None, int | None]:
    """The values of n_records, n_patients and n_pos_patients; None for a mean over labels."""
    return (None, None, None) if counts is None else (counts.n_records, counts.n_patients, counts.n_pos_patients)


def _row(
    label: str,
    metric: str,
    estimate: Estimate,
    counts: Counts | None,
    evaluation: Evaluation,
    where: tuple[str, str, int],
    few: int,
) -> Row:
    notes = []
    labels = evaluation.labels if counts is None else (label,)
    rarest = min((evaluation.counts[name].of(metric) for name in labels), key=lambda each: each.rarer)
    if (reason := rarest.why_not_scored(0)) is not None:
        return Row(label, metric, None, None, None, *numbers_of(rarest), *where, f"not scored: {reason}")
    if rarest.rarer < few:
        notes.append(f"few patients (fewer than {few} {rarest.which})")
    if estimate.n_unscored:
        notes.append(estimate.unscored)
    if finite(estimate.low) is None and finite(estimate.value) is not None and estimate.n_unscored < estimate.n_draws:
        notes.append("no interval: the same in every draw")
    if label == MACRO:
        notes.append(f"mean of {len(evaluation.labels)} labels")
    numbers = numbers_of(None if counts is None else rarest)
    return Row(
        label,
        metric,
        finite(estimate.value),
        finite(estimate.low),
        finite(estimate.high),
        *numbers,
        *where,
        "; ".join(notes),
    )


def finite(value: float) -> float | None:
    """The value, or None for one that is not finite."""
    return float(value) if value == value and abs(value) != float("inf") else None


def as_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def with_interval(row: Row | None, digits: int = 3) -> str:
    """An estimate with its interval as text; a dash where there is none."""
    if row is None or row.estimate is None:
        return "–"
    numbers = [
        f"{round(each, digits) + 0.0:.{digits}f}" for each in (row.estimate, row.low, row.high) if each is not None
    ]
    return numbers[0] if len(numbers) < 3 else f"{numbers[0]} ({numbers[1]}, {numbers[2]})"


def check_results_folder(folder: Location, marker: str, begun: str | None = None) -> None:
    """Refuse a folder that holds other things than the results of an earlier analysis, which have a file of this name.

    One with nothing but the folder `begun` is that of an analysis that was interrupted.

    Raises
    ------
    RunError
        If it is not empty and has no such file.
    """
    if folder.is_local:
        if folder.path.exists() and not folder.path.is_dir():
            raise RunError(f"{folder} is a file; expected a folder for the output_dir")
        other = folder.path.is_dir() and any(each.name != begun for each in folder.path.iterdir())
    else:
        other = any(True for _ in folder.names(skip=lambda name: name == begun))
    if other and not (folder / marker).exists():
        raise RunError(f"{folder} is not empty and holds no {marker}: give a new folder as the output_dir")


def make_folder(folder: Location) -> None:
    """Make a folder and those above it; a store elsewhere needs none."""
    if folder.is_local:
        folder.path.mkdir(parents=True, exist_ok=True)


def write_table(table: pa.Table, folder: Location, stem: str) -> None:
    """Write a table as Parquet and CSV."""
    with writing(folder / f"{stem}.pq") as file:
        pq.write_table(table, file, compression="zstd")
    with writing(folder / f"{stem}.csv") as file:
        pyarrow.csv.write_csv(_as_cells(table), file)


def _as_cells(table: pa.Table) -> pa.Table:
    """A table whose texts no spreadsheet runs as formulas."""
    for at, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            cells = [None if value is None else as_cell(value) for value in table[field.name].to_pylist()]
            table = table.set_column(at, field.name, pa.chunked_array([pa.array(cells, pa.string())]))
    return table
