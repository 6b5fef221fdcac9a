"""A table of labels in a file: CSV and its relatives, JSON, Parquet, Feather.

In: a path or URL. Out: a pyarrow table; or a `CohortError` with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import pyarrow as pa

from ecgfounder.cohort.tables import TABLE_SUFFIXES, table_of_file, table_suffix
from ecgfounder.errors import CohortError, StorageError
from ecgfounder.storage import StorageOptions, locate_output
from ecgfounder.storage import storage_options as make_options
from ecgfounder.storage.temporary import temporary_folder


def read_table(
    place: str | os.PathLike[str], on: str, *, storage_options: Mapping[str, object] | StorageOptions | None = None
) -> pa.Table:
    """Read a table with a column of keys, which is read as text in text tables, so that 00123 stays what it is.

    Parameters
    ----------
    place : str or os.PathLike
        A path or URL with a suffix of `ecgfounder.cohort.tables.TABLE_SUFFIXES`.
    on : str
        The column of keys.
    storage_options : mapping, optional
        Options of object stores that are not in the environment.

    Raises
    ------
    CohortError
        If the file does not exist, is no table, or lacks the column.
    """
    return _read(place, on, storage_options)


def read_columns(
    place: str | os.PathLike[str], *, storage_options: Mapping[str, object] | StorageOptions | None = None
) -> pa.Table:
    """Read a table of any columns; the first may have no name. Raises `CohortError` as `read_table` does."""
    return _read(place, None, storage_options)


def _read(
    place: str | os.PathLike[str], on: str | None, options: Mapping[str, object] | StorageOptions | None
) -> pa.Table:
    location = locate_output(os.fspath(place), make_options(options))
    suffix = table_suffix(location.basename)
    if not suffix:
        raise CohortError(f"{location} is no table; expected a file with one of: {', '.join(TABLE_SUFFIXES)}")
    if location.is_local:
        if not location.path.is_file():
            raise CohortError(f"{location} does not exist; expected a table")
        return table_of_file(str(location.path), on)
    try:
        content = location.read()
    except StorageError as error:
        raise CohortError(f"{location} cannot be read: {error}") from error
    with temporary_folder() as folder:
        copy = folder / f"table{suffix}"
        copy.write_bytes(content)
        return table_of_file(str(copy), on)
