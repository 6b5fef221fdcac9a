"""Runs of a cohort's recordings by networks with random weights, the control of `ecgfounder.analysis.probe`.

In: recordings of an opened run, and a folder. Out: a run for each seed, made with the settings of the opened one. They are
ordinary runs: what is finished is not done again, and an interrupted one goes on.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass

import orjson
import pyarrow as pa

from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.embedding import CohortRun, embed_cohort
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.escaping import counted
from ecgfounder.preprocess.preparation import preparation_from
from ecgfounder.results import EmbeddingRun, EmbeddingRuns, open_run
from ecgfounder.results.originals import original_paths
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, locate

MEASURED = 64
"""Recordings that are embedded first, for the forecast."""

_PATH_COLUMN, _ID_COLUMN = "ecg_paths", "identifier"


@dataclass(frozen=True)
class RandomNetworks:
    """Makes runs of recordings by networks with random weights; give it to `ecgfounder.analysis.probe` as `random`.

    Attributes
    ----------
    folder : str or os.PathLike or Location
        The folder in which each run has one of its own.
    n : int
        Number of networks; their seeds are 1 to n.
    features : str
        As in `ProbeSettings`: "mean_std" needs feature maps.
    data_dir : str or None
        The folder that relative paths are relative to now; None for the one that the opened run had.
    options : StorageOptions
        Options of object stores.
    num_workers : int
        Reading processes.
    say : callable
        Called with lines on the progress.
    progress : callable or None
        As in `ecgfounder.embed_cohort`.
    ended : callable
        Called when a run has ended.
    """

    folder: str | os.PathLike[str] | Location
    n: int = 5
    features: str = "mean"
    data_dir: str | None = None
    options: StorageOptions = NO_OPTIONS
    num_workers: int = 4
    say: Callable[[str], None] = lambda line: None
    progress: Callable[[int, int, int], None] | None = None
    ended: Callable[[], None] = lambda: None

    def __call__(self, selection: Selection) -> list[EmbeddingRun | EmbeddingRuns]:
        """The runs of these recordings, one for each seed; for recordings of several runs, several as one.

        Raises
        ------
        RunError, SettingsError
            If the opened run's settings cannot be made again, or its files are not where they were.
        """
        parts = [
            _Part(self, run, selection.table.take(pa.array(rows)), number)
            for number, (run, rows) in enumerate(selection.by_run())
            if len(rows)
        ]
        seeds = range(1, self.n + 1)
        todo = [(part, seed, n) for part in parts for seed in seeds if (n := part.n_absent(seed))]
        if todo:
            self._forecast(*todo[0][:2], sum(n for *_, n in todo))
        runs = [[part.embedded(seed) for part in parts] for seed in seeds]
        if len(parts) == 1:
            return [of_seed[0] for of_seed in runs]
        told = isinstance(selection.run, EmbeddingRuns) and bool(selection.run.differences)  # then these differ as well
        names = [str(part.number) for part in parts]
        return [open_run([run.folder for run in of_seed], names=names, allow_different=told) for of_seed in runs]

    def _forecast(self, part: _Part, seed: int, n_todo: int) -> None:
        """Embed some recordings of the first run, and say how long all will take."""
        self.say(
            f"{counted(self.n, 'network')} with random weights: {counted(n_todo, 'recording')} to embed below {self.folder}; "
            "a few are measured first"
        )
        seconds = part.seconds_each(seed) * n_todo
        told = f"{seconds / 60:.0f} min" if seconds > 100 else f"{seconds:.0f} s"
        self.say(
            f"about {told} (what is embedded is kept, and an interrupted run goes on; random_networks=0 leaves them out)"
        )


class _Part:
    """The recordings of one opened run."""

    def __init__(self, maker: RandomNetworks, run: EmbeddingRun, records: pa.Table, number: int) -> None:
        self.maker, self.number = maker, number
        told, self.fingerprint = run.record.settings, run.record.fingerprint
        preparation = preparation_from(self.fingerprint["preparation"])
        if preparation is None:
            raise SettingsError(
                "the run has a recipe that is not built in, or of another version, so that its settings cannot be made again"
            )
        self.preparation = preparation
        self.data_dir = maker.data_dir or told.data_dir
        self.cohort = records.select(["record"]).rename_columns([_PATH_COLUMN])
        self.id_column = None
        if told.id_column is not None:  # the path is no part of the new run either
            self.id_column = _ID_COLUMN
            paths = original_paths(run, records, maker.data_dir, maker.options)
            self.cohort = pa.table({_PATH_COLUMN: paths, _ID_COLUMN: records["record"]})
        self.pooling = "none" if maker.features == "mean_std" else "mean"
        form = orjson.dumps([number, self.pooling, preparation.fingerprint(), self.fingerprint["hints"]])
        self.key = hashlib.sha256(form).hexdigest()[:8]

    def folder(self, seed: int) -> Location:
        """The folder of a seed's run; runs with other settings have another one."""
        return locate(self.maker.folder) / f"random-{seed}-{self.key}"

    def n_absent(self, seed: int) -> int:
        """The number of recordings that a seed's run lacks."""
        run = self._run(seed)
        if run is None:
            return len(self.cohort)
        done = set(run.manifest["record"].to_pylist())
        return sum(name not in done for name in self.cohort[self.id_column or _PATH_COLUMN].to_pylist())

    def _run(self, seed: int) -> EmbeddingRun | None:
        """A seed's run as far as it is; None if it has not begun."""
        try:
            return open_run(self.folder(seed), allow_incomplete=True)
        except RunError:
            return None

    def seconds_each(self, seed: int) -> float:
        """Seconds per recording, from embedding a few."""
        summary = self._embed(seed, MEASURED).summary
        return float(summary.working_seconds) / max(summary.processed, 1)

    def embedded(self, seed: int) -> EmbeddingRun:
        """The complete run of a seed."""
        run = self._run(seed)
        if run is None or not run.is_complete or self.n_absent(seed):
            run = self._embed(seed, None).run
        if not run.records.num_rows:
            raise RunError(f"none of the files could be embedded again ({run.folder} has the reasons)")
        return run

    def _embed(self, seed: int, sample: int | None) -> CohortRun:
        hints = self.fingerprint["hints"]
        done = embed_cohort(
            self.cohort,
            self.folder(seed).path if self.folder(seed).is_local else str(self.folder(seed)),
            checkpoint=f"random:{seed}",
            mode=self.preparation.mode,
            data_dir=self.data_dir,
            id_column=self.id_column,
            preparation=self.preparation,
            reader=self.fingerprint["reader"],
            sampling_rate=hints["sampling_rate"],
            leads=hints["leads"],
            unit=hints["unit"],
            precision=self.fingerprint["precision"],
            pooling=self.pooling,
            format="parquet",
            num_workers=self.maker.num_workers,
            sample=sample,
            storage_options=dict(self.maker.options.items),
            progress=self.maker.progress or False,
        )
        self.maker.ended()
        return done
