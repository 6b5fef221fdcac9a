"""Labels of recordings from columns of a table: binary, codes in lists or dictionaries, classes, numbers, times to an event.

In: a table with a row per recording. Out: a `LabelSet`; a missing value is unknown (NaN), never negative.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.rows.times import times_of
from ecgfounder.analysis.statistics.fitting import BINARY, NUMBER, TIME
from ecgfounder.analysis.statistics.solver import Doubles, Floats
from ecgfounder.checks import check_choice
from ecgfounder.errors import SettingsError

ZERO_CHOICES = ("positive", "negative", "unknown")
"""What a code with the likelihood 0 is. In PTB-XL, 0 means that no likelihood was stated."""

MOST_CLASSES = 50

_LONGEST_CELL = 20_000
_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Labels.

    Attributes
    ----------
    names : tuple of str
        The names of the labels.
    Y : numpy.ndarray
        float32 [n, n_labels]; 0 and 1, numbers, or signed times; NaN where unknown.
    kind : str
        "binary", "number" or "time".
    how : str
        Where they come from, for reports.
    """

    names: tuple[str, ...]
    Y: Floats
    kind: str
    how: str


def binary_labels(table: pa.Table, names: Sequence[str]) -> LabelSet:
    """Columns of true and false, 0 and 1, or such texts.

    Raises
    ------
    SettingsError
        If a column does not exist, or holds something else.
    """
    Y = np.stack([_binary(_column(table, name), name) for name in names], axis=1)
    return LabelSet(tuple(names), Y, BINARY, "columns of 0 and 1")


def _column(table: pa.Table, name: str, parameter: str = "label") -> pa.ChunkedArray:
    if name not in table.column_names:
        raise SettingsError(
            f"Invalid value for the '{parameter}' parameter. There is no column {name!r}; the columns are: "
            f"{', '.join(table.column_names)}."
        )
    return table[name]


def _binary(column: pa.ChunkedArray, name: str) -> Floats:
    texts = [None if value is None else str(value).strip().lower() for value in column.to_pylist()]
    y = np.full(len(texts), np.nan, np.float32)
    for row, text in enumerate(texts):
        if text in _TRUE:
            y[row] = 1
        elif text in _FALSE:
            y[row] = 0
        elif text not in (None, "", "nan", "none"):
            raise SettingsError(
                f"the label {name!r} holds other values than 0, 1, true, false and missing ones. For one of several classes use "
                "classes, for numbers use number, for codes in lists or dictionaries use codes."
            )
    return y


def class_labels(table: pa.Table, name: str) -> LabelSet:
    """A column with one of several classes as a binary label per class, each against all others."""
    texts = [None if value is None else str(value) for value in _column(table, name, "classes").to_pylist()]
    classes = sorted({text for text in texts if text})
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise SettingsError(
            f"the column {name!r} has {len(classes)} classes; expected between 2 and {MOST_CLASSES}: a probe is fitted for each"
        )
    Y = np.array([[np.nan if not text else text == each for each in classes] for text in texts], np.float32)
    return LabelSet(
        tuple(f"{name}={each}" for each in classes), Y, BINARY, f"classes of {name}, each against all others"
    )


def time_labels(table: pa.Table, time: str, event: str) -> LabelSet:
    """A column of times from the ECG to an event, or to the end of observation, and a column that says which.

    A label is a signed time (`ecgfounder.analysis.statistics.cox`). It is unknown where one of both is, and 0 where the time is
    not after the ECG.

    Raises
    ------
    SettingsError
        If the times are no numbers, or the events are others than one and none.
    """
    times = _numbers(table, time, "time")
    texts = [
        None if value is None else str(value).strip().lower() for value in _column(table, event, "event").to_pylist()
    ]
    others = {text for text in texts if text not in (*_TRUE, *_FALSE, None, "", "nan", "none")}
    if others:
        raise SettingsError(
            f"the column {event!r} of the 'event' parameter holds other values than 0, 1, true, false and missing "
            "ones. Competing risks are not supported: a probe has one event, 1, and all else ends the observation, 0; where "
            "other events are common, its risks are too high then, and its hazard is that of the event's cause."
        )
    events = _binary(table[event], event)
    y = np.where(np.isnan(events), np.nan, np.where(events == 1, times, -times))
    y = np.where(times > 0, y, np.where(np.isnan(times) | np.isnan(events), np.nan, 0.0))
    return LabelSet((event,), y.astype(np.float32)[:, None], TIME, f"time to {event}, observed for {time}")


def _numbers(table: pa.Table, name: str, parameter: str) -> Doubles:
    try:
        cast = pc.cast(_column(table, name, parameter), pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SettingsError(
            f"the column {name!r} of the '{parameter}' parameter holds values that are no numbers"
        ) from error
    values = cast.to_numpy(zero_copy_only=False).astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def number_labels(table: pa.Table, names: Sequence[str]) -> LabelSet:
    """Columns of numbers."""
    columns = [_numbers(table, name, "number") for name in names]
    return LabelSet(tuple(names), np.stack(columns, axis=1).astype(np.float32), NUMBER, "columns of numbers")


def code_labels(
    table: pa.Table,
    column: str,
    names: Sequence[str],
    *,
    classes: Mapping[str, str] | None = None,
    zero: str = "positive",
    least: float = 0.0,
) -> LabelSet:
    """Codes in a column of lists, or of dictionaries with a likelihood for each code.

    Parameters
    ----------
    table : pyarrow.Table
        The recordings.
    column : str
        The column; lists and dictionaries may be written as text, as in PTB-XL's `scp_codes`.
    names : sequence of str
        The codes (or classes) that become labels; empty for all classes.
    classes : mapping of str to str, optional
        The class of each code: a recording has a class if it has one of its codes.
    zero : str, default: "positive"
        What a code with the likelihood 0 is: "positive", "negative" or "unknown".
    least : float, default: 0
        Codes with a likelihood below this, other than 0, are unknown.

    Raises
    ------
    SettingsError
        If a cell is neither a list nor a dictionary, or a name is in no cell.
    """
    check_choice("zero_likelihood", zero, ZERO_CHOICES)
    cells = [_codes(cell, column, row) for row, cell in enumerate(_column(table, column, "codes").to_pylist())]
    wanted = tuple(names) or tuple(sorted(set((classes or {}).values())))
    if not wanted:
        raise SettingsError(
            "Invalid value for the 'label' parameter. It must name the codes that become labels, got none."
        )
    at = {name: number for number, name in enumerate(wanted)}
    Y = np.zeros((len(cells), len(wanted)), np.float32)
    for row, cell in enumerate(cells):
        if cell is None:
            Y[row] = np.nan
            continue
        for code, likelihood in cell.items():
            name = classes.get(code) if classes is not None else code
            number = at.get(name or "")
            if number is None:
                continue
            state = zero if likelihood == 0 else "positive" if likelihood >= least else "unknown"
            if state == "positive":
                Y[row, number] = 1
            elif state == "unknown" and Y[row, number] != 1:
                Y[row, number] = np.nan
    seen = {code for cell in cells for code in cell or ()}
    absent = [name for name in wanted if name not in (seen if classes is None else classes.values())]
    if absent:
        raise SettingsError(f"{absent[0]!r} is in no row of the column {column!r}, and no class of its codes")
    rule = f"likelihood 0 is {zero}" + (f", below {least:g} unknown" if least else "")
    return LabelSet(wanted, Y, BINARY, f"codes of {column}{' by class' if classes else ''}; {rule}")


def _codes(cell: Any, column: str, row: int) -> dict[str, float] | None:
    """The codes of a cell with their likelihoods; a list's are 100."""
    if isinstance(cell, str):
        if not cell.strip():
            return None
        try:
            if len(cell) > _LONGEST_CELL:
                raise ValueError
            cell = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise _no_codes(column, row) from error
    if cell is None:
        return None
    if isinstance(cell, list) and cell and all(isinstance(each, tuple) and len(each) == 2 for each in cell):
        cell = dict(cell)  # Arrow's maps
    try:
        if isinstance(cell, dict):
            return {str(code): float(value) for code, value in cell.items() if value is not None}
        if isinstance(cell, list | tuple | set):
            return {str(code): 100.0 for code in cell}
    except (TypeError, ValueError) as error:
        raise _no_codes(column, row) from error
    raise _no_codes(column, row)


def _no_codes(column: str, row: int) -> SettingsError:
    return SettingsError(
        f"the column {column!r} of the 'codes' parameter must hold lists or dictionaries of codes, and row {row} does not"
    )


def only_within_days(labels: LabelSet, table: pa.Table, times: tuple[str, str], days: tuple[float, float]) -> LabelSet:
    """The labels whose time is within some days of the ECG's (columns `times`: ECG, label); others are unknown.

    Negative days are before the ECG.
    """
    ecg_time, label_time = times
    columns = (times_of(_column(table, name, "days"), name) for name in times)
    ecg, label = (column.to_numpy(zero_copy_only=False) for column in columns)
    with np.errstate(invalid="ignore"):
        apart = (label - ecg) / np.timedelta64(1, "D")
        inside = (apart >= days[0]) & (apart <= days[1])
    Y = np.where(inside[:, None], labels.Y, np.float32(np.nan))
    how = f"{labels.how}; {label_time} from {days[0]:g} to {days[1]:g} days after {ecg_time}, others unknown"
    return replace(labels, Y=Y, how=how)
