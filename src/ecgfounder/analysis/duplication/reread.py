"""The signals of a run's recordings, read again from the cohort's files.

In: recordings of an opened run, or of several. Out: the `Recording` or the `Trace` of each, or why there is none; nothing of the
file is quoted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ecgfounder.analysis.duplication.same_signal import Trace
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ECGFounderError, MissingDependencyError, ReadError, StorageError
from ecgfounder.readers import make_source, read_source
from ecgfounder.readers.identity import absent_from, identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.results import EmbeddingRun, EmbeddingRuns
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.storage import StorageOptions
from ecgfounder.storage.paths import absolute_path

GONE, UNREADABLE, CHANGED, NO_PATH = (
    "a file is not there",
    "a file cannot be read",
    "a file has changed since the run",
    "the dataset that has the paths cannot be opened",
)
"""Why a recording has no signal to show or to compare."""

_KEPT = 2_000
"""Traces in memory."""


class Files:
    """Reads recordings again.

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The run.
    table : pyarrow.Table
        Rows of its manifest.
    data_dir : str or None
        Folder that the paths of all runs are relative to; None for that of each run.
    options : StorageOptions
        Options of object stores.
    """

    def __init__(
        self, run: EmbeddingRun | EmbeddingRuns, table: pa.Table, data_dir: str | None, options: StorageOptions
    ) -> None:
        several = isinstance(run, EmbeddingRuns)
        self._runs: Mapping[str, EmbeddingRun] = (
            dict(zip(run.names, run.runs, strict=True)) if isinstance(run, EmbeddingRuns) else {"": run}
        )
        self._table = table.select([*([RUN_COLUMN] if several else []), *_NEEDED])
        self._data_dir, self._options = data_dir, options
        self._traces: OrderedDict[int, Trace] = OrderedDict()
        self._reasons: dict[int, str] = {}
        self._paths: dict[str, dict[tuple[int, int], str] | None] = {}

    def trace(self, row: int) -> Trace | str:
        """The trace of a row of the table, or a reason."""
        if row in self._reasons:
            return self._reasons[row]
        if row in self._traces:
            self._traces.move_to_end(row)
            return self._traces[row]
        found = self._read(row)
        if isinstance(found, str):
            self._reasons[row] = found
            return found
        self._traces[row] = found
        if len(self._traces) > _KEPT:
            self._traces.popitem(last=False)
        return found

    def _read(self, row: int) -> Trace | str:
        found = self.recording(row)
        return found if isinstance(found, str) else Trace.of(found)

    def recording(self, row: int) -> Recording | str:
        """The recording of a row of the table as it was read by the run, or a reason; it is not kept."""
        facts = self._table.slice(row, 1).to_pylist()[0]
        run = self._runs[facts.get(RUN_COLUMN, "")]
        path = self._path(facts, run)
        if path is None:
            return NO_PATH
        fingerprint = run.record.fingerprint
        given = fingerprint.get("hints", {})
        leads = given.get("leads")
        hints = Hints(given.get("sampling_rate"), given.get("unit"), None if leads is None else tuple(leads))
        try:
            source = make_source(path, hints, self._options)
        except (ReadError, StorageError):
            return UNREADABLE
        try:
            recording, identity = read_source(source, reader=fingerprint.get("reader", "auto")), identity_of(source)
        except MissingDependencyError:
            raise
        except (ReadError, StorageError):
            return GONE if absent_from(source) else UNREADABLE
        if None not in (facts["input_sha256"], identity.sha256) and facts["input_sha256"] != identity.sha256:
            return CHANGED
        return recording

    def _path(self, facts: Mapping[str, Any], run: EmbeddingRun) -> str | None:
        """Where the file is: below the folder of the paths, or, for a run with identifiers, where the dataset says."""
        told = run.record.settings
        name: str | None = str(facts["record"])
        if told.id_column is not None:
            paths = self._paths_of(str(facts.get(RUN_COLUMN, "")), run)
            name = None if paths is None else paths.get((facts["row_index"], facts["path_index"]))
        return None if name is None else absolute_path(name, self._data_dir or told.data_dir)

    def _paths_of(self, name: str, run: EmbeddingRun) -> dict[tuple[int, int], str] | None:
        """The paths of a run with identifiers, by row and position; None if its dataset cannot be opened any more."""
        if name not in self._paths:
            told = run.record.settings
            try:
                cohort = open_cohort(
                    told.dataset,
                    split=told.split,
                    path_column=told.path_column,
                    id_column=told.id_column,
                    options=self._options,
                )
                self._paths[name] = {(each.row, each.position): each.path for each in cohort.records()}
            except ECGFounderError:
                self._paths[name] = None
        return self._paths[name]


_NEEDED = ("record", "row_index", "path_index", "input_sha256")
