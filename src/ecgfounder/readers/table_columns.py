"""The columns of a text table: which are leads, in which unit, and the sampling rate from those that tell the time.

In: a `Layout`, the names of its columns, and the user's hints. Out: a `Recording`, or an error if the layout is ambiguous.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ecgfounder.ecg.leads import KNOWN_LEADS, canonical_lead, leads_in_context, says_ecg
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.source import Hints
from ecgfounder.readers.tables import MAX_LEADS, Description, recording_of
from ecgfounder.readers.text_layout import Layout, is_number
from ecgfounder.readers.time_columns import (
    Times,
    clock_times,
    interval_rate,
    is_clock,
    rate_of,
    resolution_of,
    seconds_per_unit,
    tells_time,
)

_UNIT_OF_COLUMN = re.compile(r"(?P<name>.*?)[\s_]*[(\[/_\s][\s_]*(?P<unit>n|u|µ|μ|m|)V[)\]\s]*", re.IGNORECASE)
_FIELDS_FOR_RESOLUTION = 64


def recording_of_columns(
    layout: Layout, header: tuple[str, ...], description: Description, hints: Hints, source_format: str
) -> Recording:
    """A table with one column for each lead, possibly beside columns of times, of numbers of rows, or without numbers.

    Parameters
    ----------
    layout : Layout
        The table.
    header : tuple of str
        Names of its columns; there may be one name less than columns, if the first is the number or time of the rows.
    description : Description
        What remarks state; a rate in it takes precedence over a column of times.
    hints : Hints
        The user's hints.
    source_format : str
        The format, for the recording and for error messages.

    Raises
    ------
    ReadError
        If it is not certain which columns are leads, or facts are missing.
    """
    header = _for_each_column(layout, header)
    times, candidates = _sorted_out(layout, header)
    units = layout.units if layout.units is not None and len(layout.units) == layout.width else ("",) * layout.width
    titles, scales = _named([header[column] for column in candidates], [units[column] for column in candidates])
    names = leads_in_context(titles)
    chosen = _chosen(layout, candidates, names, hints)
    columns = [candidates[place] for place in chosen]
    counted = [column for column in times if is_number(layout.first[column])]
    values = layout.plain_values([*columns, *counted])
    if values is None:
        layout = _one_recording(layout, times)
        values = layout.values([*columns, *counted])
    of_times = dict(zip(counted, values.T[len(columns) :], strict=True))
    values = values[:, : len(columns)]
    rate = description.rate
    if rate is None:
        rates = (_rate_in(layout, column, header[column], units[column], of_times.get(column)) for column in times)
        rate = next((found for found in rates if found is not None), None)
    known = [scale for place in chosen if (scale := scales[place]) is not None]
    if known and len(known) < len(chosen):
        raise ReadError(f"the table states a unit of voltage for {len(known)} of its {len(chosen)} leads")
    if known:
        values = values * known
    leads = tuple(names[place] for place in chosen)
    if hints.leads and KNOWN_LEADS.isdisjoint(leads):
        leads = hints.leads
    stated = Description(rate, 1.0 if known else description.scale, leads)
    return recording_of(values, stated, hints, source_format, leads_on=1)


def require_index(layout: Layout, column: int, n_leads: int) -> None:
    """Refuse a table with one column more than there are leads, unless the first is a number or time of the rows.

    Raises
    ------
    ReadError
        If it is not: then it is not known which of the columns is not a lead.
    """
    if _is_index(layout, column):
        return
    raise ReadError(
        f"the table has {n_leads + 1} columns, one more than there are names of leads, and the first of them is neither the "
        "number nor the time of the rows; give the names of all columns by the 'leads' parameter"
    )


def _for_each_column(layout: Layout, header: tuple[str, ...]) -> tuple[str, ...]:
    """A name for each column: an index without a name is added."""
    width = layout.width
    if len(header) == width - 1:
        if not is_clock(layout.first[0]):
            require_index(layout, 0, width - 1)
        header = ("", *header)
    elif (
        len(header) == width > 1
        and not header[-1]
        and canonical_lead(header[0]) in KNOWN_LEADS
        and _is_index(layout, 0)
    ):
        raise ReadError(
            f"the table's line of names has {width - 1} names and ends in a delimiter, and its rows have {width} columns, of "
            "which the first is a number or time of the rows: it is not known whether the names begin there or one column later"
        )
    if len(header) != width or width > MAX_LEADS:
        raise ReadError(f"the table has {len(header)} names for {width} columns; at most {MAX_LEADS} columns are read")
    return header


def _sorted_out(layout: Layout, header: Sequence[str]) -> tuple[list[int], list[int]]:
    """The columns that may tell the time, and those that may be leads."""
    width = layout.width
    known = [canonical_lead(name) in KNOWN_LEADS for name in header]
    text = {column for column in layout.text_columns if not known[column]}  # a lead that is no number is an error
    times = [
        column
        for column in range(width)
        if width > 1 and not known[column] and (header[column] or column == 0) and tells_time(header[column])
    ]
    times = times if set(times) | text < set(range(width)) else times[:1]
    times += [column for column in sorted(text) if column not in times and is_clock(layout.first[column])]
    return times, [column for column in range(width) if column not in text and column not in times]


def _named(header: Sequence[str], units: Sequence[str]) -> tuple[list[str], list[float | None]]:
    """Lead names and millivolts per unit of columns named 'I', 'I (mV)', 'V1_uV', or with a separate line of units."""
    names: list[str] = []
    scales: list[float | None] = []
    for title, below in zip(header, units, strict=True):
        found = _UNIT_OF_COLUMN.fullmatch(title)
        names.append(found["name"] if found and found["name"] else title)
        scales.append((millivolts_per(f"{found['unit']}V") if found else None) or millivolts_per(below.strip("()[] ")))
    return names, scales


def _chosen(layout: Layout, candidates: Sequence[int], names: Sequence[str], hints: Hints) -> list[int]:
    """The places among `candidates` of the leads.

    Columns that are named after leads; else those that say ECG; else all, if the user gives as many names, or there is only one;
    else all but the first, if the user gives one name less and the first is the number or time of the rows.
    """
    hinted = len(hints.leads) if hints.leads else None
    known = [place for place, name in enumerate(names) if name in KNOWN_LEADS]
    ecg = [place for place, name in enumerate(names) if says_ecg(name)]
    if known:
        return known
    if ecg and hinted in (None, len(ecg)):
        return ecg
    if len(names) == 1 or hinted == len(names):
        return list(range(len(names)))
    if hinted is not None and hinted == len(names) - 1 and _is_index(layout, candidates[0]):
        return list(range(1, len(names)))
    raise ReadError(
        f"none of the {len(names)} columns of the table is named after a lead; give their names in order by the 'leads' parameter"
    )


def _is_index(layout: Layout, column: int) -> bool:
    """Whether a column is the number or the time of the rows: it rises in equal steps, apart from rounding."""
    if not is_number(layout.first[column]):
        return False
    values = layout.values([column])[:, 0]
    steps = np.diff(values)
    return bool(len(values) > 1 and np.isfinite(values).all() and steps.min() > 0 and steps.max() < 2.5 * steps.min())


def _one_recording(layout: Layout, times: Sequence[int]) -> Layout:
    """The table without repeated lines of names.

    Raises
    ------
    ReadError
        If there are such lines, and no times or numbers of rows go on after them: then the table may be several recordings.
    """
    single = layout.without_repeated_names()
    if single is None:
        return layout
    for column in times:
        if is_clock(single.first[column]):
            clock = clock_times(single.texts(column))
            goes_on = clock is not None and rate_of(*clock) is not None
        else:
            goes_on = is_number(single.first[column]) and rate_of(single.values([column])[:, 0], 0.0) is not None
        if goes_on:
            return single
    raise ReadError(
        "the table's line of names is repeated, and no column of times goes on after it: it may be several recordings"
    )


def _rate_in(layout: Layout, column: int, name: str, unit: str, times: Times | None) -> float | None:
    """The sampling rate from a column of times; None if its unit is not known, or it does not rise evenly.

    `times` are the column's numbers; None if it has none.
    """
    if is_clock(layout.first[column]):
        clock = clock_times(layout.texts(column))
        return None if clock is None else rate_of(*clock)
    if times is None:
        return None
    by_interval = interval_rate(unit)
    if by_interval is not None:
        return by_interval
    if len(times) < 2 or not np.isfinite(times).all():
        return None
    seconds = seconds_per_unit(name, unit, (times[-1] - times[0]) / (len(times) - 1))
    if seconds is None:
        return None
    last_digit = resolution_of(layout.first_fields(column, _FIELDS_FOR_RESOLUTION))
    return rate_of(times * seconds, last_digit * seconds)
