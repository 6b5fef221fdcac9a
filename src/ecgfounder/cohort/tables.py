"""Tables as cohorts: CSV and its relatives, JSON, Parquet, Feather.

In: a table's file on this machine. Out: a `Cohort`. Of all but .json, only one batch of rows is in memory.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from ecgfounder.cohort.cohort import Cohort, require_column
from ecgfounder.errors import CohortError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 1024


_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".csv.gz": "csv",
    ".tsv.gz": "csv",
    ".parquet": "parquet",
    ".feather": "feather",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
}

TABLE_SUFFIXES = tuple(_FORMATS)
"""Suffixes of tables, in lower case."""


_SEPARATORS = ",;\t|"


_HEADER_BYTES = 64 << 10
"""How much of a table is read to find out its separator."""


_BLOCK_BYTES = 4 << 20


MOST_JSON_BYTES = 256 << 20
"""Largest .json file, which is in memory as a whole."""


MOST_NESTED = 64
"""Levels of objects and arrays in a line of JSON; Arrow's parser and Python recurse into each."""


_BRACKETS = (b"[", b"{"), (b"]", b"}")


_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"')


def table_suffix(name: str) -> str:
    """The suffix that makes a name that of a table, in lower case; '' for another name."""
    lower = name.lower()
    return next((suffix for suffix in TABLE_SUFFIXES if lower.endswith(suffix)), "")


def file_fingerprint(path: str) -> str:
    """A text that changes when a file of this machine does."""
    status = os.stat(path)
    return f"{os.path.basename(path)}:{status.st_size}:{status.st_mtime_ns}"


def open_table(path: str, path_column: str, id_column: str | None, *, fingerprint: str = "") -> Cohort:
    """Open a table.

    Parameters
    ----------
    path : str
        A file whose name has a suffix of `TABLE_SUFFIXES`.
    path_column, id_column : str, str or None
        The columns with the paths and with the identifiers.
    fingerprint : str
        The cohort's, if not that of the file.

    Raises
    ------
    CohortError
        If it cannot be read, or a column does not exist.
    """
    names, batches = _opened(path, path_column, id_column)
    return Cohort(
        names,
        batches,
        path_column=path_column,
        id_column=id_column,
        fingerprint=fingerprint or file_fingerprint(path),
        lists_as_text=_FORMATS[table_suffix(path)] != "json",
    )


def table_of_file(path: str, key_column: str | None) -> pa.Table:
    """A whole table in memory, which is no cohort: a table of labels, for example.

    Parameters
    ----------
    path : str
        A file whose name has a suffix of `TABLE_SUFFIXES`.
    key_column : str or None
        A column that must exist, and that is text in text tables.

    Raises
    ------
    CohortError
        If it cannot be read, or the column does not exist.
    """
    import pyarrow as pa

    names, batches = _opened(path, key_column or "", None)
    if key_column is not None:
        require_column(key_column, names, "on")
    parts = list(batches(names))
    empty = pa.table({name: pa.array([], pa.string()) for name in names})
    return pa.concat_tables(parts, promote_options="permissive") if parts else empty


def _opened(
    path: str, path_column: str, id_column: str | None
) -> tuple[list[str], Callable[[list[str]], Iterator[pa.Table]]]:
    """The names of a table's columns, and what gives its rows in batches of some columns."""
    import pyarrow as pa
    import pyarrow.dataset

    suffix = table_suffix(path)
    try:
        columns: dict[str, list[Any]] | None = None
        table: Any = None
        if suffix == ".json":
            columns = _json_columns(path, path_column)
        if columns is None:
            text_format = _table_format(path, suffix, path_column, id_column)
            table = _lone_row(path) if _FORMATS[suffix] == "json" else None
            if table is None:
                table = pyarrow.dataset.dataset(path, format=text_format)
        names = list(columns) if columns is not None else table.schema.names
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise CohortError(f"{path}: cannot be read as {suffix}: {_first_line(error)}") from error

    def batches(wanted: list[str]) -> Iterator[pa.Table]:
        try:
            if columns is not None:
                yield from _slices(columns, wanted)
                return
            for batch in table.to_batches(columns=wanted, batch_size=ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise CohortError(f"{path}: {_first_line(error)}") from error

    return names, batches


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _slices(columns: dict[str, list[Any]], wanted: list[str]) -> Iterator[pa.Table]:
    import pyarrow as pa

    table = pa.table({name: columns[name] for name in wanted})
    for start in range(0, len(table), ROWS_AT_ONCE):
        yield table.slice(start, ROWS_AT_ONCE)


# --- JSON --------------------------------------------------------------------------------------------------------------


def _json_columns(path: str, path_column: str) -> dict[str, list[Any]] | None:
    """The columns of a .json file; None if it has a row in each line, as .jsonl files have.

    It holds an array of rows, an array of paths, or an object of columns, whose cells are in an array or in an object.
    """
    if os.path.getsize(path) > MOST_JSON_BYTES:
        raise CohortError(
            f"{path}: a .json file is read as a whole and may have {MOST_JSON_BYTES >> 20} MiB; use .jsonl or .parquet"
        )
    with open(path, "rb") as file:
        content = file.read()
    if len(content.strip()) == 0:
        raise CohortError(f"{path}: the file is empty")
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise CohortError(f"{path}: nested more than {MOST_NESTED} levels deep") from error
    except ValueError as error:
        first, _, rest = content.strip().partition(b"\n")
        if rest and first.rstrip().endswith(b"}"):
            return None
        raise CohortError(f"{path}: cannot be read as .json: {_first_line(error)}") from error
    if isinstance(value, list) and all(isinstance(row, dict) for row in value):
        return {name: [row.get(name) for row in value] for name in dict.fromkeys(name for row in value for name in row)}
    if isinstance(value, list) and all(isinstance(row, str) for row in value):
        return {path_column: value}
    if isinstance(value, dict):
        cells = {name: _cells_of(column) for name, column in value.items()}
        if all(cell is not None for cell in cells.values()) and len({len(cell or ()) for cell in cells.values()}) == 1:
            return cast("dict[str, list[Any]]", cells)
        if b"\n" not in content.strip():
            return None  # one row
    raise CohortError(
        f"{path}: a .json dataset holds an array of rows, an array of paths, or an object of columns of the same length"
    )


def _cells_of(column: object) -> list[Any] | None:
    if isinstance(column, list):
        return column
    return list(column.values()) if isinstance(column, dict) else None


def _lone_row(path: str) -> Any:
    """The row of a .jsonl file without a line break, which Arrow skips; None if the file has a line break or no row."""
    import pyarrow.dataset
    import pyarrow.json

    with open(path, "rb") as file:
        line = file.readline()
    if line.endswith(b"\n") or not line.strip():
        return None
    return pyarrow.dataset.dataset(pyarrow.json.read_json(io.BytesIO(line + b"\n")))


def _json_lines(path: str) -> Any:
    """The format of a file with a row in each line.

    Arrow may silently skip rows that are longer than a block, and nesting that is deep enough crashes it.
    """
    import pyarrow.dataset
    import pyarrow.json

    longest = level = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            longest = max(longest, len(line))
            opened, closed = (sum(map(line.count, brackets)) for brackets in _BRACKETS)
            if level or opened != closed or opened > MOST_NESTED:
                deepest, level = _depths(line, level)
                if deepest > MOST_NESTED:
                    raise CohortError(f"{path}: line {number} is nested more than {MOST_NESTED} levels deep")
    options = pyarrow.json.ReadOptions(block_size=max(_BLOCK_BYTES, longest + 1))
    return pyarrow.dataset.JsonFileFormat(read_options=options)


def _depths(line: bytes, level: int) -> tuple[int, int]:
    """How deeply a line of JSON that begins at a level of nesting is nested, and the level at its end."""
    codes = np.frombuffer(_JSON_TEXT.sub(b"", line), np.uint8)
    opens, closes = (np.isin(codes, [ord(bracket) for bracket in brackets]) for brackets in _BRACKETS)
    levels = level + np.cumsum(opens.astype(np.int64) - closes)
    return int(levels.max(initial=level)), max(0, int(levels[-1])) if len(levels) else level


# --- text with separators ----------------------------------------------------------------------------------------------


def _table_format(path: str, suffix: str, path_column: str, id_column: str | None) -> Any:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.dataset

    if _FORMATS[suffix] == "json":
        return _json_lines(path)
    if _FORMATS[suffix] != "csv":
        return _FORMATS[suffix]
    # Identifiers such as 00123 must stay text, and a column of paths whose first block is empty must not become null.
    text = {name: pa.string() for name in filter(None, (path_column, id_column))}
    return pyarrow.dataset.CsvFileFormat(
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=_separator(path, "\t" if suffix.startswith(".tsv") else ",", path_column), newlines_in_values=True
        ),
        convert_options=pyarrow.csv.ConvertOptions(column_types=text, strings_can_be_null=True),
    )


def _separator(path: str, usual: str, path_column: str) -> str:
    """The separator of a table: that with which its header has the column of paths, else most columns, else the usual one."""
    opened: Callable[[str, str], Any] = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rb") as file:
        header = _header(file)

    def likeliness(separator: str) -> tuple[bool, int, bool]:
        fields = next(csv.reader(io.StringIO(header, newline=""), delimiter=separator), [])
        return path_column in fields, len(fields), separator == usual

    return max(_SEPARATORS, key=likeliness)


def _header(file: BinaryIO) -> str:
    """The beginning of a table, which holds its header."""
    return file.read(_HEADER_BYTES).decode("utf-8-sig", "replace")
