"""Where the files of a run's recordings are, as its record tells; whether they are there still is not asked.

In: an opened run, rows of its manifest. Out: an absolute path or URL for each.
"""

from __future__ import annotations

import pyarrow as pa

from ecgfounder.cohort.sources import open_cohort
from ecgfounder.errors import CohortError, RunError
from ecgfounder.results.run import EmbeddingRun
from ecgfounder.storage import NO_OPTIONS, StorageOptions
from ecgfounder.storage.paths import absolute_path


def original_paths(
    run: EmbeddingRun, records: pa.Table, data_dir: str | None = None, options: StorageOptions = NO_OPTIONS
) -> list[str]:
    """The path of each recording's file.

    Parameters
    ----------
    run : EmbeddingRun
        The run.
    records : pyarrow.Table
        Rows of its manifest.
    data_dir : str, optional
        The folder that relative paths are relative to now; None for the one that the run had.
    options : StorageOptions
        Options of object stores.

    Raises
    ------
    RunError
        If recordings have identifiers instead of paths, and the dataset that has their paths is not there any more.
    """
    told = run.record.settings
    folder = told.data_dir if data_dir is None else data_dir
    names: list[str] = records["record"].to_pylist()
    if told.id_column is None:
        return [absolute_path(name, folder) for name in names]
    try:
        cohort = open_cohort(
            told.dataset, split=told.split, path_column=told.path_column, id_column=told.id_column, options=options
        )
        wanted = set(names)
        paths = {
            record.identifier: record.path
            for record in cohort.records()
            if record.identifier is not None and record.identifier in wanted
        }
    except CohortError as error:
        raise RunError(f"the run has identifiers instead of paths, and its dataset cannot be read: {error}") from error
    absent = [name for name in names if name not in paths]
    if absent:
        raise RunError(
            f"the run has identifiers instead of paths, and its dataset lacks {len(absent):,} of {len(names):,} now"
        )
    return [absolute_path(paths[name], folder) for name in names]
