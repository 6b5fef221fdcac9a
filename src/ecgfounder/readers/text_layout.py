"""The parts of a table in a text: remarks, names, units, and the lines of numbers.

In: a text. Out: a `Layout`, which gives the numbers or texts of some columns. What the columns mean is decided elsewhere.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError
from ecgfounder.readers.tables import MAX_LEADS

MAX_IRREGULAR_BYTES = 4 << 20
_DELIMITERS = (";", "\t", ",", " ")
_NUMBER = re.compile(
    r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d{1,3})?|[+-]?(?:nan|inf(?:inity)?)|-?", re.IGNORECASE | re.ASCII
)
_GROUPED = re.compile(r"\[[^\]]*\]|'[^']*'|\"[^\"]*\"|\S+")
_FEW_SAMPLES = 8  # fewer are no row of a lead
_MAX_OTHER_LINES = 10_000  # above the numbers, and below them


@dataclass(frozen=True)
class Layout:
    """The parts of a text table.

    Attributes
    ----------
    delimiter : str
        What separates fields: a semicolon, a tab, a comma, or any number of blanks (' ').
    header, units : tuple of str or None
        The fields of the lines of names and units; None if there is no such line.
    body : str
        The text of the lines of numbers.
    first, last : tuple of str
        The fields of the first and the last of them.
    line_of_names : str
        The text of the line of names; empty if there is none.
    """

    delimiter: str
    header: tuple[str, ...] | None
    units: tuple[str, ...] | None
    body: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    line_of_names: str = ""

    @property
    def width(self) -> int:
        return len(self.first)

    @property
    def text_columns(self) -> frozenset[int]:
        """The columns that are no numbers: dates, times of day, words."""
        if len(self.last) != self.width:
            return frozenset()
        ends = zip(self.first, self.last, strict=True)
        return frozenset(
            column for column, (first, last) in enumerate(ends) if not (is_number(first) or is_number(last))
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The fields of every row; slow, for tables that Arrow's reader cannot parse."""
        if len(self.body) > MAX_IRREGULAR_BYTES:
            raise ReadError(
                f"a table of {len(self.body):,} bytes with fields that are not plain numbers, or rows of different length; "
                f"at most {MAX_IRREGULAR_BYTES:,} bytes of such a table are read"
            )
        rows = [fields_of(line, self.delimiter) for line in self.body.splitlines() if is_row(line)]
        widths = {len(row) for row in rows}
        if len(widths) > 1:
            raise ReadError(f"the rows of the table have {min(widths)} to {max(widths)} fields")
        return rows

    def has_rows(self, count: int) -> bool:
        """Whether the table has exactly `count` rows."""
        lines = self.body.splitlines() if self.body.count("\n") <= 2 * count else []
        return sum(map(is_row, lines)) == count

    def has_more_rows(self, count: int) -> bool:
        """Whether the table has more than `count` rows; only that many are looked at."""
        return sum(1 for _, line in zip(range(count + 1), rows_of(self.body), strict=False) if line) > count

    def first_fields(self, column: int, count: int) -> list[str]:
        """The fields of a column in the first `count` lines, of those that have it."""
        lines = self.body.split("\n", count)[:count]
        rows = (fields_of(line, self.delimiter) for line in lines if is_row(line))
        return [row[column] for row in rows if len(row) > column]

    def texts(self, column: int) -> list[str]:
        """The fields of a column as text."""
        arrays = self._by_arrow([column], as_text=True)
        if arrays is None:
            return [row[column] for row in self.rows()]
        return [str(text or "").strip().strip("\"'").strip() for text in arrays[0].tolist()]

    def values(self, columns: Sequence[int]) -> npt.NDArray[np.float64]:
        """The numbers of some columns, [rows, columns]; NaN for empty fields; a decimal comma is read as a point.

        Raises
        ------
        ReadError
            If fields are not numbers, or rows differ in length.
        """
        plain = self.plain_values(columns)
        return numbers([tuple(row[column] for column in columns) for row in self.rows()]) if plain is None else plain

    def plain_values(self, columns: Sequence[int]) -> npt.NDArray[np.float64] | None:
        """`values`, if Arrow's reader can parse the table; else None."""
        arrays = self._by_arrow(columns) if self.width <= MAX_LEADS else None
        return None if arrays is None else np.stack(arrays, axis=1)

    def without_repeated_names(self) -> Layout | None:
        """The table without further lines of names (and units), which some programs write on every page; None if it has none."""
        if not self.line_of_names or self.line_of_names not in self.body:
            return None
        kept: list[str] = []
        dropped = False
        for line in self.body.split("\n"):
            is_unit = dropped and self.units is not None and fields_of(line, self.delimiter) == self.units
            dropped = line.strip() == self.line_of_names or is_unit
            if not dropped:
                kept.append(line)
        return replace(self, body="\n".join(kept), line_of_names="")

    def _by_arrow(self, columns: Sequence[int], *, as_text: bool = False) -> list[npt.NDArray[np.generic]] | None:
        """Columns by Arrow's reader, which is ten times as fast as `rows`; None if it cannot parse the table."""
        if self.delimiter != " ":
            found = self._parsed(self.body, columns, as_text)
            if found is None:
                ends = f"{self.delimiter}\r\n"
                without_marks, count = re.subn(rf" *(?<![^ {ends}])-(?= *[{ends}]| *$)", "", self.body)
                found = self._parsed(without_marks, columns, as_text) if count else None
            return found
        if any(mark in self.body for mark in "'\"[\t"):
            return None
        return self._parsed("\n".join(" ".join(line.split()) for line in self.body.split("\n")), columns, as_text)

    def _parsed(self, body: str, columns: Sequence[int], as_text: bool) -> list[npt.NDArray[np.generic]] | None:
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        data = body.encode("utf-8", "replace")
        # Without `use_threads` too, a thread of Arrow's reads ahead. It may release memory of Arrow's own at any time, also while
        # the interpreter ends; the memory of Python objects it may not.
        copy = pa.BufferOutputStream()
        copy.write(data)
        names = [str(column) for column in range(self.width)]
        chosen = [names[column] for column in columns]
        may_be_comma = self.delimiter != "," or '"' in body
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(copy.getvalue()),
                arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(data) + 1),
                arrow_csv.ParseOptions(delimiter=self.delimiter),
                arrow_csv.ConvertOptions(
                    include_columns=list(dict.fromkeys(chosen)),
                    column_types=dict.fromkeys(chosen, pa.string() if as_text else pa.float64()),
                    null_values=["", "nan", "NaN", "NAN"],
                    decimal_point="," if may_be_comma and _has_decimal_comma(self, body) else ".",
                ),
            )
        except pa.ArrowException:
            return None
        return [table[name].to_numpy() for name in chosen]


def _has_decimal_comma(layout: Layout, body: str) -> bool:
    if layout.delimiter != ",":
        return "," in body
    return any("," in field for field in layout.first + layout.last)


def numbers(rows: Sequence[tuple[str, ...]]) -> npt.NDArray[np.float64]:
    """The numbers of fields, [rows, columns]; NaN for empty fields.

    Raises
    ------
    ReadError
        If fields are not numbers.
    """
    if not all(is_number(field) for row in rows for field in row):
        raise ReadError("the table has fields that are not numbers")
    try:
        plain = [[float(field.replace(",", ".") or "nan") for field in row] for row in rows]
    except ValueError:  # of '-'
        plain = [[float("nan" if field in ("", "-") else field.replace(",", ".")) for field in row] for row in rows]
    return np.array(plain, dtype=np.float64).reshape(len(rows), -1)


def is_number(field: str) -> bool:
    """Whether a field is a number, or marks a missing one: empty, or '-', as the program rdsamp writes."""
    return len(field) < 64 and _NUMBER.fullmatch(field) is not None


def is_remark(line: str) -> bool:
    return line.lstrip().startswith(("#", "%"))


def is_row(line: str) -> bool:
    return bool(line.strip()) and not is_remark(line)


def _is_separator_line(line: str) -> bool:
    """Whether a line tells a spreadsheet program the separator: 'sep=;'."""
    return line[:4].lower() == "sep=" and len(line.strip("\r\n")) == 5


def rows_of(body: str) -> Iterator[str]:
    return (line for line in body.split("\n") if is_row(line))


def delimiter_of(line: str) -> str:
    """The delimiter of a line of numbers.

    A comma only if there is no semicolon and no tab, and not if it must be a decimal comma, because fields that are separated by
    blanks are all numbers and those separated by commas are not.
    """
    mark = next((mark for mark in _DELIMITERS if mark in line.strip()), ",")
    if mark == "," and " " in line.strip():
        by_blanks, by_commas = fields_of(line, " "), fields_of(line, ",")
        if all(map(is_number, by_blanks)) and not all(map(is_number, by_commas)):
            return " "
    return mark


def fields_of(line: str, delimiter: str) -> tuple[str, ...]:
    """The fields of a line, without blanks and quotes around them."""
    if delimiter == " ":
        parts = _GROUPED.findall(line) if any(mark in line for mark in "'\"[") else line.split()
    elif '"' in line:
        try:
            parts = next(csv.reader([line.strip("\r\n ")], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:  # a field that is too long: it is not a number
            parts = line.split(delimiter)
    else:
        parts = line.strip("\r\n ").split(delimiter)
    return tuple(part.strip().strip("\"'").strip() for part in parts)


def looks_like_table(text: str, *, cut_off: bool) -> bool:
    """Whether a text begins with lines of the same number of fields, most of them numbers, possibly below names and units.

    Parameters
    ----------
    text : str
        The beginning of a file.
    cut_off : bool
        Whether the file goes on after it.
    """
    lines = [line for line in text.split("\n") if is_row(line)]
    if cut_off and lines:
        last = lines.pop()
        if len(lines) < 2:  # leads as rows
            rows = [fields_of(line, delimiter_of(line)) for line in lines]
            rows.append(fields_of(last.rpartition(delimiter_of(last))[0], delimiter_of(last)))
            return len(rows[0]) >= _FEW_SAMPLES and all(is_number(field) for row in rows for field in row[1:])
    if len(lines) < 2:
        return False
    delimiter = delimiter_of(lines[min(len(lines), 6) - 1])
    rows = [fields_of(line, delimiter) for line in lines[: 6 if len(lines) > 4 else 4]]
    rows = rows[-max(1, len(rows) - 2) :]
    width = len(rows[0])
    if any(len(row) != width for row in rows) or not any(any(row) for row in rows):
        return False
    if width == 1:
        return all(row[0] and is_number(row[0]) for row in rows)
    of_numbers = sum(all(is_number(row[column]) for row in rows) for column in range(width))
    return 2 * of_numbers >= width and any(is_number(field) and field for row in rows for field in row)


def layout_of(text: str) -> tuple[list[str], Layout]:
    """The remarks above a table, and the table's parts.

    Raises
    ------
    ReadError
        If there are no rows of numbers, or it is not certain which lines are names.
    """
    end = _end_of_rows(text)
    if not end:
        raise ReadError("the table has no rows")
    last_line = text[text.rfind("\n", 0, end) + 1 : end]
    if len(last_line) > MAX_IRREGULAR_BYTES:
        raise ReadError(
            f"a table with a line of {len(last_line):,} characters; at most {MAX_IRREGULAR_BYTES:,} are read"
        )
    delimiter = delimiter_of(last_line)  # of a line of numbers: names may contain blanks
    last = fields_of(last_line, delimiter)
    remarks: list[str] = []
    names: list[tuple[str, ...]] = []
    line_of_names = ""
    position = 0
    while position < end and len(remarks) + len(names) < _MAX_OTHER_LINES:
        begin = position
        position = text.find("\n", begin, end) + 1 or end
        line = text[begin:position]
        if is_remark(line):
            remarks.append(line.lstrip()[1:])
        elif line.strip() and not _is_separator_line(line):
            if len(line) > MAX_IRREGULAR_BYTES:
                raise ReadError(f"a table with a line of {len(line):,} characters")
            fields = _names_in(line, delimiter, len(last))
            if not _are_names(fields, last, is_first=not names):
                break
            line_of_names = line_of_names or line.strip()
            if fields not in names:
                names.append(fields)
            if len(names) > 2:
                raise ReadError("the table has more lines of text above its numbers than names and units")
    else:
        raise ReadError("the table has no rows of numbers")
    header, units = (*names, None, None)[:2]
    return remarks, _without_empty_end(Layout(delimiter, header, units, text[begin:end], fields, last, line_of_names))


def _end_of_rows(text: str) -> int:
    """Where the last row ends that has more than delimiters in it; 0 if there is none.

    Raises
    ------
    ReadError
        If too many lines without numbers follow.
    """
    end = len(text.rstrip(" \t\r\n\x1a"))
    for _ in range(_MAX_OTHER_LINES):
        if not end:
            return 0
        begin = text.rfind("\n", 0, end) + 1
        if text[begin:end].strip(" \t\r,;") and not is_remark(text[begin:end]):
            line_end = text.find("\n", end)  # after delimiters at the end of the row
            return len(text) if line_end < 0 else line_end
        end = max(begin - 1, 0)
    raise ReadError(f"the table has more than {_MAX_OTHER_LINES:,} lines without numbers at its end")


def _names_in(line: str, delimiter: str, width: int) -> tuple[str, ...]:
    """The fields of a line of names; names may contain single blanks where several blanks separate columns."""
    fields = fields_of(line, delimiter)
    if delimiter == " " and len(fields) > width:
        by_gaps = tuple(part.strip("\"'") for part in re.split(r"\t|\s{2,}", line.strip()))
        if len(by_gaps) == width + 1 and [name.casefold() for name in by_gaps[:2]] == ["time", "date"]:
            by_gaps = (" ".join(by_gaps[:2]), *by_gaps[2:])  # both are in one column, in brackets
        return by_gaps if len(by_gaps) == width else fields
    return fields


def _are_names(fields: tuple[str, ...], last: tuple[str, ...], *, is_first: bool) -> bool:
    """Whether a line has names or units: text in a column that has a number in the last row.

    The first line may begin with a name, because leads may be rows; below it, units have no number at all.
    """
    if not is_first:
        return not any(field and is_number(field) for field in fields)
    if len(fields) != len(last) or len(fields) == 1:
        return not all(map(is_number, fields[1:])) or (len(fields) == 1 and not is_number(fields[0]))
    pairs = zip(fields[1:], last[1:], strict=True)
    if any(not is_number(field) and is_number(below) for field, below in pairs):
        return True
    return not is_number(fields[0]) and is_number(last[0])


def _without_empty_end(layout: Layout) -> Layout:
    """The table without the empty last column that a delimiter at the end of every row seems to add.

    A last column with a name is kept: it is a lead without samples.
    """
    names = layout.header
    while layout.delimiter != " " and layout.width > 1 and not layout.first[-1]:
        named = names is not None and len(names) == layout.width and bool(names[-1])
        if named or not all(line.rstrip("\r ").endswith(layout.delimiter) for line in rows_of(layout.body)):
            break
        shorter = (line.rstrip("\r ")[:-1] if is_row(line) else line for line in layout.body.split("\n"))
        layout = replace(layout, body="\n".join(shorter), first=layout.first[:-1], last=layout.last[:-1])
        if names is not None and not names[-1]:
            names = names[:-1]
    while names is not None and len(names) > layout.width and not names[-1]:
        names = names[:-1]  # the line of names ends in a delimiter, and the rows do not
    units = layout.units[: layout.width] if layout.units and not any(layout.units[layout.width :]) else layout.units
    return replace(layout, header=names, units=units)
