"""Arrays without an ECG format around them: CSV and TSV, NPY and NPZ, MATLAB files up to version 7.2.

In: the whole file and the user's hints. Out: a `Recording`. What a file does not say (rate, unit, leads) the hints must.
"""

from __future__ import annotations

import io
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError
from ecgfounder.readers import matlab
from ecgfounder.readers.quantities import millivolts_per
from ecgfounder.readers.source import MAX_UNPACKED_BYTES, Source
from ecgfounder.readers.tables import (
    MAX_LEADS,
    RATE_NAMES,
    SIGNAL_NAMES,
    UNIT_NAMES,
    Array,
    Description,
    describe,
    find_signal,
    lead_arrays,
    plain_name,
    recording_of,
)
from ecgfounder.recording import KNOWN_LEADS, Recording, canonical_lead

FORMAT = "array"

MAX_TEXT_BYTES = 64 << 20
MAX_IRREGULAR_BYTES = 4 << 20
MAX_ZIP_MEMBERS = 4096
_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"
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
_REMARK = re.compile(r"([A-Za-z][A-Za-z _-]{0,30}?)\s*[:=]\s*([^\s,;:=]{1,20})")


def matches(source: Source) -> bool:
    """Whether the content is an array file: NPY, a ZIP of NPY, a MATLAB matrix, or lines of numbers."""
    head = source.head
    if head.startswith((_NPY_MAGIC, matlab.LEVEL_5_TEXT)):
        return True
    if head.startswith(_ZIP_MAGIC):
        return b".npy" in head
    return matlab.looks_like_level_4(head) or _looks_like_table(head)


def read(source: Source) -> Recording:
    """Read an array file. Of NPZ and MAT files, `source.member` names the array, where it is not plain which.

    Raises
    ------
    ReadError
        On damaged data; where rate, unit or leads are said neither by the file nor by the hints; on arrays of Python
        objects, which are never unpickled.
    """
    head = source.head
    if head.startswith(_NPY_MAGIC):
        source.refuse_member("NPY")
        return recording_of(_npy(source.content), Description(), source.hints, "npy")
    if head.startswith(_ZIP_MAGIC):
        return _from_named(_npz(source.content), source, "npz")
    if head.startswith(matlab.LEVEL_5_TEXT) or matlab.looks_like_level_4(head):
        return _from_named(matlab.variables(source.content), source, "mat")
    source.refuse_member("CSV")
    return _csv(source)


def _from_named(arrays: dict[str, Array], source: Source, source_format: str) -> Recording:
    description = describe(arrays)
    signal = find_signal(arrays, source.member)
    rows = lead_arrays(arrays) if source.member is None else {}
    leads_on = None
    if rows and (signal is None or signal.ndim < 2 or min(signal.shape) == 1):
        names = tuple(name.rpartition(".")[2] for name in rows)
        signal, description, leads_on = np.stack(list(rows.values())), replace(description, leads=names), 0
    if signal is None:
        raise ReadError(
            f"none of the {len(arrays)} arrays of the {source_format} file is named {', '.join(SIGNAL_NAMES[:5])} ...; "
            "name the one with the ECG after the path: FILE::ARRAY"
        )
    return recording_of(signal, description, source.hints, source_format, leads_on=leads_on)


def _npy(data: bytes) -> Array:
    """The array of an NPY file: what its header claims must be there, and no Python objects."""
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of Python 2 are fine
            version = np.lib.format.read_magic(file)
            if version == (1, 0):
                shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
            elif version == (2, 0):
                shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
            else:
                raise ReadError(f"NPY file of version {version[0]}.{version[1]}; 1.0 and 2.0 are read")
    except (ValueError, TypeError, SyntaxError, KeyError, RecursionError, MemoryError, tokenize.TokenError) as error:
        raise ReadError(f"damaged header of an NPY file ({type(error).__name__})") from error
    if dtype.hasobject or dtype.kind not in "iufUSb":
        raise ReadError(f"NPY file of {dtype.name}: arrays of numbers are read, Python objects never")
    count = 1
    for size in shape:
        count *= size
    available = len(data) - file.tell()
    if any(size < 0 for size in shape) or len(shape) > 32 or count * dtype.itemsize > available:
        raise ReadError(f"NPY file with {available:,} bytes of data for {count:,} values of {dtype.name}")
    if count == 0 or dtype.itemsize == 0:
        return np.empty(0, dtype=np.float32)
    flat = np.frombuffer(data, dtype, count, file.tell())
    return flat.reshape(shape[::-1]).T if by_column else flat.reshape(shape)


def _npz(content: bytes) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    budget = MAX_UNPACKED_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if len(members) > MAX_ZIP_MEMBERS:
                raise ReadError(f"NPZ file of {len(members):,} arrays; {MAX_ZIP_MEMBERS:,} are read at most")
            if sum(info.file_size for info in members) > budget:
                raise ReadError(f"NPZ file that unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
            for info in members:
                with archive.open(info) as file:
                    data = file.read(budget + 1)
                budget -= len(data)
                if budget < 0:
                    raise ReadError(f"NPZ file that unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
                if data.startswith(_NPY_MAGIC):
                    arrays[info.filename.removesuffix(".npy")] = _npy(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise ReadError(f"damaged NPZ file ({type(error).__name__})") from error
    return arrays


@dataclass(frozen=True)
class _Layout:
    """How a text table is written; `header` and `units` are the fields of such lines, if there are any.

    `body` is the lines of numbers as text, `first` the fields of the first of them.
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
        """The fields of every row, which takes its time: for tables that are not written as plainly as most are."""
        if len(self.body) > MAX_IRREGULAR_BYTES:
            raise ReadError(
                f"a table of {len(self.body):,} bytes with fields that are not plain numbers, or rows of different "
                f"length; up to {MAX_IRREGULAR_BYTES:,} bytes such a table is looked at row by row"
            )
        rows = [_fields(line, self.delimiter) for line in self.body.splitlines() if _is_row(line)]
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise ReadError(f"the rows of the table have {min(widths)} to {max(widths)} fields")
        return rows


def _looks_like_table(head: bytes) -> bool:
    """Whether text begins with at least two lines of as many numbers each, or one long line of them."""
    if b"\0" in head:
        return False
    text = head.decode("latin-1").removeprefix("\xef\xbb\xbf")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "%"))]
    if len(head) == 4096 and lines:
        lines[-1] = lines[-1].rpartition(_delimiter(lines[-1]))[0]  # cut off by the head's end
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
    """The delimiter of a line; a comma only where neither semicolon nor tab is, as it may be a decimal comma."""
    return next((mark for mark in _DELIMITERS if mark in line.strip()), ",")


def _fields(line: str, delimiter: str) -> tuple[str, ...]:
    parts = line.split() if delimiter == " " else line.strip("\r\n ").split(delimiter)
    return tuple(part.strip().strip("\"'").strip() for part in parts)


def _is_number(field: str) -> bool:
    return len(field) < 64 and _NUMBER.fullmatch(field) is not None


def _csv(source: Source) -> Recording:
    content = source.content
    if len(content) > MAX_TEXT_BYTES:
        raise ReadError(f"table of {len(content):,} bytes of text; {MAX_TEXT_BYTES:,} are read at most")
    remarks, layout = _layout(content.decode("utf-8-sig", "replace"))
    description = _described_by(remarks)
    if canonical_lead(layout.first[0]) in KNOWN_LEADS:
        rows = layout.rows()
        names = tuple(row[0] for row in rows)
        values = _numbers([row[1:] for row in rows])
        return recording_of(values, replace(description, leads=names), source.hints, "csv", leads_on=0)
    hinted = source.hints.leads or ()
    if layout.header is None and hinted and layout.width == len(hinted) + 1 and not _has_rows(layout, layout.width):
        layout = replace(layout, header=("time", *hinted))
    if layout.header is None:
        return recording_of(_values(layout, range(layout.width)), description, source.hints, "csv")
    return _from_columns(layout, layout.header, description, source)


def _has_rows(layout: _Layout, count: int) -> bool:
    """Whether the table has just so many rows."""
    lines = layout.body.splitlines() if layout.body.count("\n") <= 2 * count else []
    return sum(map(_is_row, lines)) == count


def _is_remark(line: str) -> bool:
    return line.lstrip().startswith(("#", "%"))


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not _is_remark(line)


def _described_by(remarks: list[str]) -> Description:
    """Rate and unit from remarks such as '# fs = 500, unit: uV'."""
    rate, scale = None, None
    for name, value in (pair for remark in remarks[:64] for pair in _REMARK.findall(remark)):
        if plain_name(name) in RATE_NAMES and _is_number(value.removesuffix("Hz")):
            rate = rate or float(value.removesuffix("Hz") or "nan")
        elif plain_name(name) in UNIT_NAMES:
            scale = scale or millivolts_per(value)
    return Description(rate=rate, scale=scale)


def _layout(text: str) -> tuple[list[str], _Layout]:
    """The remarks above a table, and the table."""
    if "\r" in text and "\n" not in text:
        text = text.replace("\r", "\n")
    remarks: list[str] = []
    top: list[str] = []  # the first three rows, of which two may be names and units
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
    delimiter = _delimiter(text[starts[0] :].rstrip().rpartition("\n")[2])  # of numbers: a title may have blanks
    fields = [_fields(line, delimiter) for line in top]
    header = units = None
    if not all(map(_is_number, fields[0][1:])) or (len(fields[0]) == 1 and not _is_number(fields[0][0])):
        header = fields.pop(0)
        if fields and not any(field and _is_number(field) for field in fields[0]):
            units = fields.pop(0)
    if not fields:
        raise ReadError("the table has no rows of numbers")
    return remarks, _Layout(delimiter, header, units, text[starts[len(top) - len(fields)] :], fields[0])


def _values(layout: _Layout, columns: Sequence[int]) -> npt.NDArray[np.float64]:
    """The numbers of some columns, [rows, columns]; NaN for blank fields; a decimal comma is read as a point."""
    values = _plain_values(layout, columns) if layout.delimiter != " " and layout.width <= MAX_LEADS else None
    if values is None:
        values = _numbers([tuple(row[column] for column in columns) for row in layout.rows()])
    return values


def _plain_values(layout: _Layout, columns: Sequence[int]) -> npt.NDArray[np.float64] | None:
    """`_values` by Arrow's reader, which is ten times as fast; None where the table is not plain enough for it."""
    import pyarrow as pa
    from pyarrow import csv

    data = layout.body.encode()
    names = [str(column) for column in range(layout.width)]
    chosen = [names[column] for column in columns]
    try:
        table = csv.read_csv(
            pa.BufferReader(data),
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
    """The numbers of fields, [rows, columns]; NaN for blank fields."""
    if not all(_is_number(field) for row in rows for field in row):
        raise ReadError("the table has fields that are not numbers")
    plain = [[float(field.replace(",", ".") or "nan") for field in row] for row in rows]
    return np.array(plain, dtype=np.float64).reshape(len(rows), -1)


def _from_columns(layout: _Layout, header: tuple[str, ...], description: Description, source: Source) -> Recording:
    """A table with one column for each lead, named in its first line, perhaps with a column of times before them."""
    width = layout.width
    if len(header) == width - 1:
        header = ("", *header)  # an index without a name
    if len(header) != width or width > MAX_LEADS:
        raise ReadError(f"the table has {len(header)} names for {width} columns; at most {MAX_LEADS} are read")
    timed = _TIME_COLUMN.fullmatch(header[0]) if width > 1 and canonical_lead(header[0]) not in KNOWN_LEADS else None
    first = 0 if timed is None else 1
    names, scales = _named_columns(header[first:], layout.units[first:] if layout.units else None)
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
    if source.hints.leads and not any(canonical_lead(name) in KNOWN_LEADS for name in leads):
        leads = source.hints.leads
    description = replace(description, leads=leads)
    return recording_of(values, description, source.hints, "csv", leads_on=1)


def _named_columns(header: tuple[str, ...], units: tuple[str, ...] | None) -> tuple[list[str], list[float | None]]:
    """Lead names and mV per unit of columns called 'I', 'I (mV)', 'V1_uV', or with their units in a line of their own."""
    names: list[str] = []
    scales: list[float | None] = []
    for column, title in enumerate(header):
        found = _UNIT_OF_COLUMN.fullmatch(title)
        names.append(found["name"] if found and found["name"] else title)
        in_title = millivolts_per(f"{found['unit']}V") if found else None
        below = millivolts_per(units[column]) if units and column < len(units) else None
        scales.append(in_title or below)
    return names, scales


def _chosen_columns(names: list[str], source: Source) -> list[int]:
    """The columns named after leads; without any, all of them if the user names as many, or the only one."""
    known = [column for column, name in enumerate(names) if canonical_lead(name) in KNOWN_LEADS]
    if known:
        return known
    if len(names) == 1 or (source.hints.leads and len(source.hints.leads) == len(names)):
        return list(range(len(names)))
    raise ReadError(f"none of the {len(names)} columns of the table is named after a lead; --leads names them in order")


def _rate_of(timed: re.Match[str], unit_below: str, layout: _Layout) -> float | None:
    """The sampling rate from a column of times, if its unit is known: named, or seconds where that is plausible."""
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
