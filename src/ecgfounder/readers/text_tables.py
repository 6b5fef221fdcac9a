"""Tables of numbers as text: CSV and TSV in many variants, and single leads exported by an Apple Watch.

In: the whole file and the user's hints. Out: a `Recording`. The hints must give what the file does not state (rate, unit, leads).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import KNOWN_LEADS, STANDARD_LEADS, canonical_lead, leads_in_context
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.source import HEAD_BYTES, Source
from ecgfounder.readers.tables import MAX_LEADS, RATE_NAMES, UNIT_NAMES, Description, plain_name, recording_of

FORMAT = "csv"

MAX_TEXT_BYTES = 64 << 20
MAX_IRREGULAR_BYTES = 4 << 20
_DELIMITERS = (";", "\t", ",", " ")

_NUMBER = re.compile(
    r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?|[+-]?(?:nan|inf(?:inity)?)|", re.IGNORECASE
)
_UNIT_OF_COLUMN = re.compile(r"(?P<name>.*?)[\s_]*[(\[/_\s][\s_]*(?P<unit>n|u|µ|μ|m|)V[)\]\s]*", re.IGNORECASE)
_TIME_COLUMN = re.compile(
    r"(?:elapsed[ _]*)?(?P<name>time|t|seconds?|secs?|milliseconds?|timestamps?|samples?(?:[ _]*(?:#|no\.?|number|index))?"
    r"|index|idx|frame|unnamed: 0|)[ _]*[(\[/_]?\s*(?P<unit>s|secs?|seconds|ms|milliseconds|us|µs|μs)?[)\]]?",
    re.IGNORECASE,
)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_REMARK = re.compile(
    r"([A-Za-z][A-Za-z _-]{0,30}?)\s*(?:[(\[]\s*([^)\]\s]{1,8})\s*[)\]])?\s*:?[:=]\s*([^\s,;:=]{1,20})"
)
_PER_SECOND = {"": 1.0, "hz": 1.0, "hertz": 1.0, "sps": 1.0, "samples/s": 1.0, "1/s": 1.0, "khz": 1e3}
_HERTZ = re.compile(r"(\d+(?:[.,]\d+)?)\s*(?:hz|hertz)", re.IGNORECASE)
_MAX_PREAMBLE_LINES = 40


def matches(source: Source) -> bool:
    """Whether the text begins with lines of numbers, possibly after a line of names."""
    head = source.head
    if b"\0" in head:
        return False
    text = head.decode("utf-8-sig", "replace")
    return _looks_like_table(text, cut_off=len(head) == HEAD_BYTES) or _preamble(text) is not None


@dataclass(frozen=True)
class _Layout:
    """The parts of a text table.

    `header` and `units` are the fields of the lines of names and units, None if there is no such line; `body` is the text of the
    lines of numbers, `first` the fields of the first of them.
    """

    delimiter: str
    header: tuple[str, ...] | None
    units: tuple[str, ...] | None
    body: str
    first: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.first)

    def rows(self) -> list[tuple[str, ...]]:
        """The fields of every row; slow, for tables that Arrow's reader cannot parse."""
        if len(self.body) > MAX_IRREGULAR_BYTES:
            raise ReadError(
                f"a table of {len(self.body):,} bytes with fields that are not plain numbers, or rows of different length; "
                f"at most {MAX_IRREGULAR_BYTES:,} bytes of such a table are read"
            )
        rows = [_fields(line, self.delimiter) for line in self.body.splitlines() if _is_row(line)]
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise ReadError(f"the rows of the table have {min(widths)} to {max(widths)} fields")
        return rows


def _looks_like_table(text: str, *, cut_off: bool) -> bool:
    """Whether text begins with at least two lines with the same number of numbers, or with one long line of numbers."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "%"))]
    if cut_off and lines:
        lines[-1] = lines[-1].rpartition(_delimiter(lines[-1]))[0]  # incomplete at the end of the head
        if len(lines) == 1:
            fields = _fields(lines[0], _delimiter(lines[0]))
            return len(fields) >= 8 and all(map(_is_number, fields[1:]))
        lines = lines[:-1]
    numeric = [_fields(line, _delimiter(line)) for line in lines[:6]]
    tail = [fields for fields in numeric[-max(1, len(numeric) - 2) :] if all(map(_is_number, fields[1:]))]
    enough = len(numeric) >= 2 and len(tail) == max(1, len(numeric) - 2) and any(any(fields) for fields in tail)
    single = all(len(fields) == 1 for fields in tail)
    if single and not all(_is_number(fields[0]) and fields[0] for fields in tail):
        return False
    return enough and len({len(fields) for fields in tail}) == 1


def _delimiter(line: str) -> str:
    """The delimiter of a line; a comma only if there is no semicolon and no tab, because it may be a decimal comma."""
    return next((mark for mark in _DELIMITERS if mark in line.strip()), ",")


def _fields(line: str, delimiter: str) -> tuple[str, ...]:
    parts = line.split() if delimiter == " " else line.strip("\r\n ").split(delimiter)
    return tuple(part.strip().strip("\"'").strip() for part in parts)


def _is_number(field: str) -> bool:
    return len(field) < 64 and _NUMBER.fullmatch(field) is not None


def read(source: Source) -> Recording:
    """Read a table of numbers.

    Raises
    ------
    ReadError
        If fields are not numbers or rows differ in length; if neither file nor hints give sampling rate, unit and leads.
    """
    content = source.content
    if len(content) > MAX_TEXT_BYTES:
        raise ReadError(f"table of {len(content):,} bytes of text; at most {MAX_TEXT_BYTES:,} are read")
    text = content.decode("utf-8-sig", "replace")
    preamble = _preamble(text[:HEAD_BYTES])
    if preamble is not None:
        return _single_lead(text[preamble.end :], preamble.description, source)
    remarks, layout = _layout(text)
    description = _described_by(remarks)
    if canonical_lead(layout.first[0]) in KNOWN_LEADS:
        rows = layout.rows()
        names = tuple(row[0] for row in rows)
        values = _numbers([row[1:] for row in rows])
        return recording_of(values, replace(description, leads=names), source.hints, "csv", leads_on=0)
    hinted = source.hints.leads or ()
    if layout.header is None and hinted and layout.width == len(hinted) + 1 and not _has_rows(layout, layout.width):
        _require_index(layout)
        layout = replace(layout, header=("time", *hinted))
    if layout.header is None:
        return recording_of(_values(layout, range(layout.width)), description, source.hints, "csv")
    return _from_columns(layout, layout.header, description, source)


def _has_rows(layout: _Layout, count: int) -> bool:
    """Whether the table has exactly `count` rows."""
    lines = layout.body.splitlines() if layout.body.count("\n") <= 2 * count else []
    return sum(map(_is_row, lines)) == count


def _is_remark(line: str) -> bool:
    return line.lstrip().startswith(("#", "%"))


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not _is_remark(line)


def _described_by(remarks: list[str]) -> Description:
    """Sampling rate and unit from remarks such as '# fs = 500, unit: uV', '# Sampling Rate (Hz):= 1000.00', or a JSON object.

    Raises
    ------
    ReadError
        If remarks state several sampling rates.
    """
    rates: set[float] = set()
    scale = None
    for remark in remarks[:64]:
        content = _json_of(remark)
        if content is not None:
            rates |= set(_rates_in(content))
            continue
        for name, unit, value in _REMARK.findall(remark):
            if plain_name(name) in RATE_NAMES and unit.lower() in _PER_SECOND:
                rates |= _rate_stated(value, _PER_SECOND[unit.lower()])
            elif plain_name(name) in UNIT_NAMES:
                scale = scale or millivolts_per(value)
    if len(rates) > 1:
        raise ReadError(f"remarks above the table state {len(rates)} different sampling rates")
    return Description(rate=rates.pop() if rates else None, scale=scale)


def _rate_stated(value: str, per_second: float) -> set[float]:
    """The sampling rate in Hz in a remark's value, '500', '500Hz' or '0.5kHz'; empty if it is not a rate."""
    found = re.fullmatch(r"(\d+(?:[.,]\d+)?)\s*(k?hz)?", value, re.IGNORECASE)
    if found is None:
        return set()
    rate = float(found[1].replace(",", ".")) * (_PER_SECOND[found[2].lower()] if found[2] else per_second)
    return {rate} if rate > 0 else set()


def _json_of(remark: str) -> Any:
    """A remark's JSON object; None if it is not one."""
    if not remark.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(remark)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _rates_in(content: Any, depth: int = 0) -> Iterator[float]:
    """The sampling rates in a JSON object, at any depth up to 8."""
    if isinstance(content, dict) and depth < 8:
        for name, value in content.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if is_number and plain_name(name) in RATE_NAMES and 0 < value < 1e6:
                yield float(value)
            else:
                yield from _rates_in(value, depth + 1)
    elif isinstance(content, list) and depth < 8:
        for value in content[:MAX_LEADS]:
            yield from _rates_in(value, depth + 1)


def _layout(text: str) -> tuple[list[str], _Layout]:
    """The remarks above a table, and the table's parts."""
    if "\r" in text and "\n" not in text:
        text = text.replace("\r", "\n")
    remarks: list[str] = []
    top: list[str] = []  # the first three lines, of which two may be names and units
    position = begin = 0
    starts: list[int] = []
    while position < len(text) and len(top) < 3:
        begin = position
        position = text.find("\n", begin) + 1 or len(text)
        line = text[begin:position]
        if _is_remark(line):
            remarks.append(line.lstrip()[1:])
        elif line.strip():
            top.append(line)
            starts.append(begin)
    if not top:
        raise ReadError("the table has no rows")
    delimiter = _delimiter(
        text[starts[0] :].rstrip().rpartition("\n")[2]
    )  # of a line of numbers: names may contain blanks
    fields = [_fields(line, delimiter) for line in top]
    header = units = None
    if not all(map(_is_number, fields[0][1:])) or (len(fields[0]) == 1 and not _is_number(fields[0][0])):
        header = fields.pop(0)
        if fields and not any(field and _is_number(field) for field in fields[0]):
            units = fields.pop(0)
    if not fields:
        raise ReadError("the table has no rows of numbers")
    layout = _Layout(delimiter, header, units, text[starts[len(top) - len(fields)] :], fields[0])
    return remarks, _without_empty_end(layout)


def _without_empty_end(layout: _Layout) -> _Layout:
    """The table without the empty last column that a delimiter at the end of every row seems to add.

    A last column with a name is kept: it is a lead without samples.
    """
    names = layout.header
    while layout.delimiter != " " and layout.width > 1 and not layout.first[-1]:
        named = names is not None and len(names) == layout.width and bool(names[-1])
        if named or not all(line.rstrip("\r ").endswith(layout.delimiter) for line in _rows_of(layout.body)):
            break
        shorter = (line.rstrip("\r ")[:-1] if _is_row(line) else line for line in layout.body.split("\n"))
        layout = replace(layout, body="\n".join(shorter), first=layout.first[:-1])
        if names is not None and not names[-1]:
            names = names[:-1]
    while names is not None and len(names) > layout.width and not names[-1]:
        names = names[:-1]  # the line of names ends in a delimiter, and the rows do not
    units = layout.units[: layout.width] if layout.units and not any(layout.units[layout.width :]) else layout.units
    return replace(layout, header=names, units=units)


def _rows_of(body: str) -> Iterator[str]:
    return (line for line in body.split("\n") if _is_row(line))


def _has_index(layout: _Layout) -> bool:
    """Whether the first column is the number or the time of the rows."""
    if not _is_number(layout.first[0]):
        return False
    column = _values(layout, [0])[:, 0]
    steps = np.diff(column)
    return bool(len(column) > 1 and np.isfinite(column).all() and steps.min() > 0 and steps.max() < 2.5 * steps.min())


def _require_index(layout: _Layout) -> None:
    """Refuse a table with one column more than there are leads, unless its first column is a number or time of the rows.

    Raises
    ------
    ReadError
        If it is not: then it is not known which of the columns is not a lead.
    """
    if _has_index(layout):
        return
    raise ReadError(
        f"the table has {layout.width} columns, one more than there are names of leads, and the first of them is neither the "
        "number nor the time of the rows; give the names of all columns by the 'leads' parameter"
    )


def _values(layout: _Layout, columns: Sequence[int]) -> npt.NDArray[np.float64]:
    """The numbers of some columns, [rows, columns]; NaN for empty fields; a decimal comma is read as a point."""
    values = _plain_values(layout, columns) if layout.delimiter != " " and layout.width <= MAX_LEADS else None
    if values is None:
        values = _numbers([tuple(row[column] for column in columns) for row in layout.rows()])
    return values


def _plain_values(layout: _Layout, columns: Sequence[int]) -> npt.NDArray[np.float64] | None:
    """`_values` by Arrow's reader, which is ten times as fast; None if it cannot parse the table."""
    import pyarrow as pa
    from pyarrow import csv

    data = layout.body.encode()
    # Without `use_threads` too, a thread of Arrow's reads ahead. It may release memory of Arrow's own at any time, also while the
    # interpreter ends; the memory of Python objects it may not.
    copy = pa.BufferOutputStream()
    copy.write(data)
    names = [str(column) for column in range(layout.width)]
    chosen = [names[column] for column in columns]
    try:
        table = csv.read_csv(
            pa.BufferReader(copy.getvalue()),
            csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
            csv.ParseOptions(delimiter=layout.delimiter),
            csv.ConvertOptions(
                include_columns=chosen,
                column_types=dict.fromkeys(chosen, pa.float64()),
                null_values=["", "nan", "NaN", "NAN"],
                decimal_point="," if layout.delimiter != "," and "," in layout.body else ".",
            ),
        )
    except pa.ArrowException:
        return None
    return np.stack([column.to_numpy() for column in table.columns], axis=1)


def _numbers(rows: Sequence[tuple[str, ...]]) -> npt.NDArray[np.float64]:
    """The numbers of fields, [rows, columns]; NaN for empty fields."""
    if not all(_is_number(field) for row in rows for field in row):
        raise ReadError("the table has fields that are not numbers")
    plain = [[float(field.replace(",", ".") or "nan") for field in row] for row in rows]
    return np.array(plain, dtype=np.float64).reshape(len(rows), -1)


def _from_columns(layout: _Layout, header: tuple[str, ...], description: Description, source: Source) -> Recording:
    """A table with one column for each lead, named in its first line, possibly after a column of times."""
    width = layout.width
    if len(header) == width - 1:
        _require_index(layout)
        header = ("", *header)  # an index without a name
    elif (
        len(header) == width > 1 and not header[-1] and canonical_lead(header[0]) in KNOWN_LEADS and _has_index(layout)
    ):
        raise ReadError(
            f"the table's line of names has {width - 1} names and ends in a delimiter, and its rows have {width} columns, of "
            "which the first is a number or time of the rows: it is not known whether the names begin there or one column later"
        )
    if len(header) != width or width > MAX_LEADS:
        raise ReadError(f"the table has {len(header)} names for {width} columns; at most {MAX_LEADS} columns are read")
    timed = _TIME_COLUMN.fullmatch(header[0]) if width > 1 and canonical_lead(header[0]) not in KNOWN_LEADS else None
    first = 0 if timed is None else 1
    titles, scales = _named_columns(header[first:], layout.units[first:] if layout.units else None)
    names = leads_in_context(titles)
    chosen = _chosen_columns(names, source)
    values = _values(layout, [first + column for column in chosen])
    if timed is not None and description.rate is None:
        unit = layout.units[0] if layout.units and len(layout.units) == width else ""
        description = replace(description, rate=_rate_of(timed, unit, layout))
    units = {scales[column] for column in chosen}
    if None not in units:
        values *= [scales[column] or 1.0 for column in chosen]
        description = replace(description, scale=1.0)
    leads = tuple(names[column] for column in chosen)
    if source.hints.leads and KNOWN_LEADS.isdisjoint(leads):
        leads = source.hints.leads
    description = replace(description, leads=leads)
    return recording_of(values, description, source.hints, "csv", leads_on=1)


def _named_columns(header: tuple[str, ...], units: tuple[str, ...] | None) -> tuple[list[str], list[float | None]]:
    """Lead names and millivolts per unit of columns named 'I', 'I (mV)', 'V1_uV', or with a separate line of units."""
    names: list[str] = []
    scales: list[float | None] = []
    for column, title in enumerate(header):
        found = _UNIT_OF_COLUMN.fullmatch(title)
        names.append(found["name"] if found and found["name"] else title)
        in_title = millivolts_per(f"{found['unit']}V") if found else None
        below = millivolts_per(units[column]) if units and column < len(units) else None
        scales.append(in_title or below)
    return names, scales


def _chosen_columns(names: Sequence[str], source: Source) -> list[int]:
    """The columns named after leads; if there are none, all columns if the user gives as many names, or the only column."""
    known = [column for column, name in enumerate(names) if name in KNOWN_LEADS]
    if known:
        return known
    if len(names) == 1 or (source.hints.leads and len(source.hints.leads) == len(names)):
        return list(range(len(names)))
    raise ReadError(
        f"none of the {len(names)} columns of the table is named after a lead; give their names in order by the 'leads' parameter"
    )


def _rate_of(timed: re.Match[str], unit_below: str, layout: _Layout) -> float | None:
    """The sampling rate from a column of times, if its unit is known: by its name, or seconds if that is plausible."""
    if not _is_number(layout.first[0]):
        return None
    times = _values(layout, [0])[:, 0]
    if len(times) < 2 or not np.isfinite(times).all():
        return None
    step = (times[-1] - times[0]) / (len(times) - 1)
    if step <= 0 or np.abs(np.diff(times) - step).max() > 0.51 * step:
        return None
    unit = (timed["unit"] or unit_below).lower().replace("µ", "u").replace("μ", "u").strip("()[] ")
    if unit.startswith(("sec", "milli")):
        unit = "ms" if unit.startswith("milli") else "s"
    name = (timed["name"] or "").lower()
    if unit not in _SECONDS:
        if name.startswith("milli"):
            unit = "ms"
        elif name.startswith("sec") or (name in ("time", "t", "timestamp") and 1e-5 <= step <= 0.05):
            unit = "s"
        else:
            return None
    rate = 1 / (step * _SECONDS[unit])
    return float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate and round(rate) else rate


@dataclass(frozen=True)
class _Preamble:
    """The description in lines of 'name,value' above a single column of numbers, and the position of the numbers."""

    description: Description
    end: int


def _preamble(text: str) -> _Preamble | None:
    """The lines above the numbers in an export of an Apple Watch; None if the text does not begin with such lines.

    They are recognised by their values, because their names are in the user's language: a number in hertz, a unit of voltage or
    the name of a lead. Other lines are about the patient and are not read.
    """
    rate, scale, leads = None, None, None
    position = 0
    for _ in range(_MAX_PREAMBLE_LINES):
        end = text.find("\n", position)
        if end < 0:
            return None
        line = text[position:end].strip()
        if line and _is_number(line):
            is_known = rate is not None and (scale is not None or leads is not None)
            return _Preamble(Description(rate, scale, leads), position) if is_known else None
        name, comma, value = (part.strip(' "') for part in line.partition(","))
        if line and not (name and comma):
            return None
        hertz, lead = _HERTZ.fullmatch(value), canonical_lead(value.rpartition(" ")[2])
        rate = float(hertz[1].replace(",", ".")) if hertz else rate
        scale = scale or millivolts_per(value)
        leads = (lead,) if lead in STANDARD_LEADS else leads
        position = end + 1
    return None


def _single_lead(body: str, description: Description, source: Source) -> Recording:
    """One number per line, in some languages with a decimal comma."""
    body = body.replace(",", ".")
    layout = _Layout(";", None, None, body, (body.split(maxsplit=1)[0],))
    return recording_of(_values(layout, [0])[:, 0], description, source.hints, "csv")
