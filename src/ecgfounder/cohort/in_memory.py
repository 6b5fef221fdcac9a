"""Cohorts in memory: lists of paths, and tables of pandas, Polars and PyArrow.

In: a list or a table. Out: a Parquet file in the cache, with the columns that a run uses, named by its content: the same cohort
has the same name, so that a run is resumed and its shards merged as with any table.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from ecgfounder.cohort.cohort import require_column
from ecgfounder.errors import CohortError
from ecgfounder.machine import cache_folder
from ecgfounder.storage.replace import replacing


class Table(Protocol):
    """A table in memory: pandas, Polars, PyArrow."""

    @property
    def columns(self) -> Any: ...


def file_of(
    dataset: object,
    path_column: str,
    id_column: str | None,
    keep_columns: Sequence[str] = (),
    kept_by: str = "keep_columns",
) -> str:
    """The path of a file with a cohort that is in memory.

    Parameters
    ----------
    dataset : object
        Paths, or a table (pandas, Polars, PyArrow, or anything that offers itself to Arrow as a stream).
    path_column, id_column, keep_columns : str, str or None, sequence of str
        The columns to write; a list of paths becomes a table with the first one.
    kept_by : str, default: "keep_columns"
        The caller's parameter that names `keep_columns`, for messages.

    Raises
    ------
    CohortError
        If it is neither a list of paths nor a table, lacks a column, or a column holds values of several types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = _column_names(dataset)
    try:
        if names is None:
            table = pa.table({path_column: _path_values(dataset)})
        else:
            wanted = [("path_column", path_column), ("id_column", id_column)]
            wanted += [(kept_by, column) for column in keep_columns]
            for parameter, column in wanted:
                if column is not None:
                    require_column(column, names, parameter)
            table = _arrow(dataset, list(dict.fromkeys(column for _, column in wanted if column is not None)))
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata(None), content)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        first_line = str(error).partition("\n")[0]
        raise CohortError(f"The dataset cannot be made a table: {first_line}") from error
    data = content.getvalue()
    folder = cache_folder() / "cohorts"
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.parquet"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != len(data):
            with replacing(path) as file:
                file.write(data)
    except OSError as error:
        raise CohortError(
            f"The dataset cannot be written to the cache {folder} ({error.strerror or error}): set ECGFOUNDER_CACHE to a folder "
            "with space"
        ) from error
    return str(path)


def _column_names(dataset: object) -> list[str] | None:
    """The names of a table's columns; None for what is no table."""
    for attribute in ("column_names", "columns"):
        names = getattr(dataset, attribute, None)
        if names is not None:
            return [str(name) for name in names]
    return None


def _arrow(dataset: Any, columns: list[str]) -> Any:
    import pyarrow as pa

    if not any(hasattr(dataset, way) for way in ("to_arrow", "__arrow_c_stream__", "__dataframe__")):
        raise _neither(dataset)
    chosen = dataset.select(columns) if hasattr(dataset, "select") else dataset[columns]
    return chosen.to_arrow() if hasattr(chosen, "to_arrow") else pa.table(chosen)


def _path_values(dataset: object) -> list[str] | list[bytes]:
    if isinstance(dataset, bytes) or not isinstance(dataset, Iterable):
        raise _neither(dataset)
    paths: list[str] = []
    for position, path in enumerate(dataset):
        if not isinstance(path, str | os.PathLike):
            raise CohortError(f"A list of paths was expected, but its item {position} is a {type(path).__name__}.")
        paths.append(os.fsdecode(path))
    if all(path.isprintable() for path in paths):
        return paths
    return [os.fsencode(path) for path in paths]  # a name may not be valid UTF-8, as Arrow's text must be


def _neither(dataset: object) -> CohortError:
    return CohortError(
        f"The dataset is a {type(dataset).__name__}; expected a path, a list of paths, or a table of pandas, Polars or PyArrow."
    )
