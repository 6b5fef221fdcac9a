"""The run: the stages put together, nothing else.

In: `Settings`. Out: the embeddings in `output_dir`, the run record in `output_dir/_run`, and a `Summary`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from ecgfounder._version import __version__
from ecgfounder.cohort.cohort import Cohort
from ecgfounder.cohort.index import Index, index_cohort
from ecgfounder.cohort.naming import Layout, Naming
from ecgfounder.cohort.sources import lasting_name, open_cohort
from ecgfounder.drivers.interruption import Interruption
from ecgfounder.drivers.launch import Launch, join_launch
from ecgfounder.drivers.local import Pipeline
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.engines import Engine, create_engine
from ecgfounder.engines.metered import MeteredEngine
from ecgfounder.engines.trial import refuse_overflow
from ecgfounder.errors import CohortError, RunError
from ecgfounder.escaping import counted
from ecgfounder.ledger.admission import admit, changed_settings, previous, take_folder
from ecgfounder.ledger.compaction import tidy_shards
from ecgfounder.ledger.conclusion import bring_up_to_date, close_record, conclude
from ecgfounder.ledger.entry import PartEnd, PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import LedgerState, LedgerWriter, new_stamp, part_name, read_ledger, read_parts
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.manifest import check_kept_columns
from ecgfounder.ledger.record import (
    FORMAT_VERSION,
    CheckpointRecord,
    CohortSettings,
    EngineRecord,
    RunRecord,
    new_run_id,
    now,
    versions,
)
from ecgfounder.ledger.removal import clean_scratch, remove_left_behind, remove_obsolete, remove_tables
from ecgfounder.machine import usable_memory
from ecgfounder.network.checkpoint import find_checkpoint, sha256_of
from ecgfounder.network.head import Head
from ecgfounder.run.budget import make_budget
from ecgfounder.run.jobs import jobs_of, refuse_collisions
from ecgfounder.run.others import Others, wait_for_others
from ecgfounder.run.plan import Plan, check_foreign_outputs, make_plan, renewed
from ecgfounder.run.presence import FIRST_SAMPLE, SAMPLE, Presence, look
from ecgfounder.run.settings import Settings
from ecgfounder.run.summary import Console, Preview, Summary
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.sink import Sink
from ecgfounder.stages.collect import Finished
from ecgfounder.stages.embed import EmbedStage
from ecgfounder.stages.pooling import diagnostic_head, pooling_of
from ecgfounder.stages.read import Job, ReadTask
from ecgfounder.stages.record import Recorder
from ecgfounder.stages.trouble import StoreTrouble
from ecgfounder.storage import require_folder

ENTRIES_AT_ONCE = 1000

READING_SHARE = 0.25
"""Share of the memory that reading large files may take by default."""

SHORT_SECONDS = 10.0
"""Shorter attempts get no advice on performance."""


@dataclass(frozen=True)
class Opening:
    """The checkpoint and the cohort, opened at the start of every attempt and dry run.

    Attributes
    ----------
    digest : str
        SHA-256 of the checkpoint.
    """

    checkpoint: Path
    digest: str
    cohort: Cohort
    index: Index


@dataclass(frozen=True)
class Started:
    """The state of an attempt that was not refused.

    Attributes
    ----------
    stamp : int
        The attempt's start time in ns, the same in all its processes.
    run_id : str
        The run's identifier, from an earlier attempt if there was one.
    began : float
        The attempt's start in monotonic seconds.
    """

    opening: Opening
    launch: Launch
    stamp: int
    run_id: str
    plan: Plan
    engine: Engine
    began: float


class Run:
    """One attempt of a run in one process; `execute` runs it."""

    def __init__(self, settings: Settings, console: Console, interruption: Interruption | None = None) -> None:
        self.settings = settings
        self.console = console
        self.interruption = interruption or Interruption()
        self.folder = RunFolder(settings.output_dir)
        self._state: LedgerState | None = None
        self._slowest: str | None = None
        self._trouble = StoreTrouble(settings.storage_options)
        self.naming = Naming(layout=cast(Layout, settings.layout), data_dir=settings.data_dir, suffix=".json")

    def execute(self) -> Summary:
        """Run the attempt.

        Raises
        ------
        ECGFounderError
            If it is refused before any work.
        OSError
            If the output folder becomes unusable during the run; committed records are kept, and the run can be resumed.
        Stopped
            If it is interrupted before its first record.
        """
        began = time.monotonic()
        with self.interruption.at_once():
            launch = join_launch(self.settings.device)
        with launch:
            return self._execute(launch, began)

    def preview(self) -> Preview:
        """What `execute` would do, without writing anything.

        Raises
        ------
        ECGFounderError
            If `execute` would be refused before it checks the output folder.
        """
        opening = self._open()
        before = None if self.settings.overwrite else previous(self.folder)
        changed = changed_settings(self.folder, before, self.settings.fingerprint(opening.digest)) if before else []
        state = read_ledger(self.folder.ledger) if before else read_parts(())
        plan = self._plan(opening, Launch(), state)
        budget = make_budget(plan.n_todo, self.settings, state, self.folder.output_dir)
        colliding = len(opening.index.colliding_names())
        mine = opening.index.first & self._share(opening.index, Launch())
        presence = self._look(opening, mine, SAMPLE)
        return Preview(opening.index.n_records, colliding, plan, budget, before is not None, changed, presence)

    def _open(self) -> Opening:
        settings = self.settings
        require_folder(self.naming.data_dir, "data_dir", settings.storage_options)
        checkpoint = find_checkpoint(settings.checkpoint, settings.mode, settings.storage_options)
        digest = sha256_of(checkpoint)
        cohort = open_cohort(
            settings.dataset,
            split=settings.split,
            path_column=settings.path_column,
            id_column=settings.id_column,
            options=settings.storage_options,
        )
        check_kept_columns(cohort, settings.keep_columns)
        index = index_cohort(cohort, self.naming if self._named else None, self.naming.data_dir)
        if index.n_records == 0:
            raise CohortError(
                f"{settings.dataset} names no ECG file: the column {cohort.path_column!r} has no path in any row. Use the "
                "'path_column' parameter for another column."
            )
        return Opening(checkpoint, digest, cohort, index)

    @property
    def _named(self) -> bool:
        """Whether records have names that must be unique: separate files, or identifiers."""
        return self.settings.format == "json" or self.settings.id_column is not None

    def _execute(self, launch: Launch, began: float) -> Summary:
        with ExitStack() as stack:
            try:
                with self.interruption.at_once():
                    started, pool, head = self._start(launch, stack, began)
            except OSError as error:
                raise RunError(
                    f"The run cannot begin: {error}. Nothing was done; correct this and start again."
                ) from error
            recorder = self._process(started, pool, head)
            return self._conclude(started, recorder)

    def _start(self, launch: Launch, stack: ExitStack, began: float) -> tuple[Started, ReaderPool, Head | None]:
        """Do everything before the first record; the stack gets what must be closed later."""
        opening = self._open()
        with launch.together() as said:
            if launch.is_main:
                said["stamp"], said["run_id"] = self._open_folder(opening, stack)
        with launch.together():
            state = self._state or read_ledger(self.folder.ledger)
            plan = self._plan(opening, launch, state)
            self._state = state if plan.renewals else None
            if launch.is_main:  # the other processes have about as many records
                budget = make_budget(plan.n_todo * launch.world_size, self.settings, state, self.folder.output_dir)
                budget.check(self.folder.output_dir)
            pool = self._pool(plan, launch)
            stack.callback(pool.close)
            engine = self._engine(launch, opening)
            head = diagnostic_head(engine.head, self.settings.mode) if self.settings.predictions else None
            started = Started(opening, launch, said["stamp"], said["run_id"], plan, engine, began)
        # Written when no process can be refused any more, and before any process has a result.
        with launch.together():
            if launch.is_main:
                self._announce(started)
                self._begin_record(started)
        return started, pool, head

    def _open_folder(self, opening: Opening, stack: ExitStack) -> tuple[int, str]:
        """Make or admit the folder and lock it; returns the attempt's stamp and the run's identifier."""
        folder = self.folder
        stack.enter_context(take_folder(folder, self.settings.shard))
        refuse_collisions(opening.cohort, opening.index, self.naming, folder.collisions)
        before = admit(folder, self.settings.fingerprint(opening.digest), overwrite=self.settings.overwrite)
        if self.settings.shard[1] == 1:
            clean_scratch(folder)
            self._state = tidy_shards(folder, compacting=False)
            remove_left_behind(folder, self._state)
            before = None if before is None else bring_up_to_date(folder, before)
        else:
            self._state = read_ledger(folder.ledger)
        check_foreign_outputs(opening.index, self._state)
        run_id = None if before is None else before.run_id
        return new_stamp(folder.ledger), run_id or new_run_id()

    def _plan(self, opening: Opening, launch: Launch, state: LedgerState) -> Plan:
        mine = self._share(opening.index, launch)
        return make_plan(opening.cohort, opening.index, mine, state, self.settings, self.naming, self.folder.output_dir)

    def _share(self, index: Index, launch: Launch) -> npt.NDArray[np.bool_]:
        """The paths of this process: by shard, then by rank, so that shards may have different numbers of processes."""
        part, parts = self.settings.shard
        in_shard = index.keys % np.uint64(parts) == part - 1
        of_rank = index.keys // np.uint64(parts) % np.uint64(launch.world_size) == launch.rank
        return np.asarray(in_shard & of_rank, dtype=np.bool_)

    def _pool(self, plan: Plan, launch: Launch) -> ReaderPool:
        settings = self.settings
        task = ReadTask(
            settings.preparation, settings.reader, settings.hints, settings.statements, settings.storage_options
        )
        n_workers = min(settings.num_workers, plan.n_todo)
        memory = usable_memory() * READING_SHARE if settings.read_memory is None else settings.read_memory * (1 << 30)
        return ReaderPool(
            task, n_workers, n_started=1, timeout=settings.read_timeout, memory=int(memory / launch.local_size)
        )

    def _engine(self, launch: Launch, opening: Opening) -> Engine:
        """The engine; an engine of lower precision is compared with float32 on the first recordings of the run."""

        def create(precision: str, compiled: bool) -> Engine:
            return create_engine(
                self.settings.engine,
                mode=self.settings.mode,
                checkpoint=opening.checkpoint,
                precision=precision,
                device=self.settings.device or launch.device,
                threads=launch.threads,
                batch_size=self.settings.batch_size,
                checkpoint_sha256=opening.digest,
                compiled=compiled,
            )

        engine = create(self.settings.precision, self.settings.compile)
        if not self.settings.compile:  # it would be compiled for the length of this signal alone
            refuse_overflow(engine, opening.checkpoint.name)
        return engine if self.settings.precision == "float32" else MeteredEngine(engine, create("float32", False))

    def _announce(self, started: Started) -> None:
        settings, opening, plan = self.settings, started.opening, started.plan
        recipe, world_size = settings.preparation.recipe, started.launch.world_size
        self.console.line(
            f"ecgfounder {__version__}: recipe {recipe.name} v{recipe.version}, mode {settings.mode}, "
            f"checkpoint {opening.checkpoint.name} (sha256 {opening.digest[:12]}), engine {started.engine.describe()}"
        )
        share = "" if world_size == 1 else f" (this is process 1 of {world_size})"
        self.console.line(
            f"{counted(opening.index.n_records, 'recording')} in {settings.dataset}; to do: {plan.n_todo:,}{share}, "
            f"done before: {plan.done:,}, failed before: {plan.failed:,}"
        )
        for number, what in (
            (plan.changed, "changed after the last attempt, and will be done again"),
            (plan.missing, "without an output any more will be done again"),
            (plan.found, "failed because their files did not exist; the files exist now, and will be tried again"),
            (plan.gone, "in the output folder but no longer in the dataset; outputs are kept"),
        ):
            if number:
                self.console.line(f"{counted(number, 'recording')} {what}")
        presence = self._look(opening, plan.todo, FIRST_SAMPLE, until_found=True)
        if presence.absent and presence.absent == presence.looked_at:
            others = f", nor at {presence.absent - 1} others that were looked at" if presence.absent > 1 else ""
            self.console.line(f"WARNING: there is no file at {presence.example}{others}: {presence.advice}")

    def _look(
        self, opening: Opening, which: npt.NDArray[np.bool_], most: int, *, until_found: bool = False
    ) -> Presence:
        options = self.settings.storage_options
        return look(opening.cohort, opening.index, which, self.naming, most, until_found=until_found, options=options)

    def _begin_record(self, started: Started) -> None:
        """Write the attempt's settings to run.json, unless another shard of the same run has done so."""
        record = self._record(started)
        if self.settings.shard[1] > 1:
            before = self._begun(record)
            told = (record.settings, record.dataset_fingerprint)
            if before.outcome == "running" and (before.settings, before.dataset_fingerprint) == told:
                return
            record = replace(record, run_id=before.run_id or record.run_id)
        remove_tables(self.folder)
        self.folder.write(record)
        self.folder.write_card(record)

    def _begun(self, record: RunRecord) -> RunRecord:
        """The run record that this shard or another one has begun; a shard with other settings may begin at the same time."""
        while (before := admit(self.folder, record.fingerprint, overwrite=False)) is None:
            if self.folder.create(record):
                remove_tables(self.folder)
                self.folder.write_card(record)
                return record
        return before

    def _batch_size(self, engine: Engine) -> int:
        return self.settings.batch_size or engine.batch_size

    def _record(self, started: Started) -> RunRecord:
        settings, opening, engine = self.settings, started.opening, started.engine
        return RunRecord(
            fingerprint=settings.fingerprint(opening.digest),
            settings=CohortSettings(
                dataset=lasting_name(settings.dataset),
                split=settings.split,
                data_dir=self.naming.data_dir,
                path_column=settings.path_column,
                id_column=settings.id_column,
                keep_columns=settings.keep_columns,
                batch_size=self._batch_size(engine),
                num_workers=settings.num_workers,
                shards=settings.shard[1],
            ),
            started=now(),
            run_id=started.run_id,
            format_version=FORMAT_VERSION,
            checkpoint=CheckpointRecord(name=opening.checkpoint.name, sha256=opening.digest),
            engine=EngineRecord(name=engine.name, precision=engine.precision, device=engine.device),
            processes=started.launch.world_size,
            dataset_fingerprint=opening.cohort.fingerprint,
            versions=versions(),
        )

    def _process(self, started: Started, pool: ReaderPool, head: Head | None) -> Recorder:
        name = self._part_name(started, started.launch.rank)
        ledger = LedgerWriter(self.folder.ledger.path / name, PartHeader(**own_name(), started=now()))
        if self._state is not None:
            entries = renewed(self._state, started.plan.renewals)
            while chunk := list(islice(entries, ENTRIES_AT_ONCE)):
                ledger.append(chunk)
            self._state = None
        recorder = Recorder(self._sink(name), ledger)

        def finish(group: Sequence[Finished]) -> None:
            recorder.finish(group)
            remove_obsolete(self.folder, recorder.take_obsolete())
            self.console.progress(recorder.done, recorder.failed, started.plan.n_todo)

        stage = EmbedStage(started.engine, pooling_of(self.settings.pooling, head))
        pipeline = Pipeline(
            pool, stage, finish, self._batch_size(started.engine), self.interruption, trouble=self._trouble
        )
        try:
            pipeline.run(self._jobs(started, recorder))
            if time.monotonic() - started.began > SHORT_SECONDS:
                self._slowest = pipeline.slowest
            recorder.close()
            remove_obsolete(self.folder, recorder.take_obsolete())
            outcome = "interrupted" if self._is_cut_short else "complete"
            ledger.end(PartEnd(outcome=outcome, done=recorder.done, failed=recorder.failed))
        except BaseException:
            ledger.abandon()
            raise
        return recorder

    @property
    def _is_cut_short(self) -> bool:
        """Whether records were left to the next attempt, because of a signal or the trouble of a store."""
        return self.interruption.requested or self._trouble.reason is not None

    def _part_name(self, started: Started, rank: int) -> str:
        return part_name(started.stamp, self.settings.shard, rank, started.launch.world_size)

    def _sink(self, part: str) -> Sink:
        output_dir, scratch = self.folder.output_dir.path, self.folder.scratch
        if self.settings.format == "json":
            return JsonSink(output_dir, scratch)
        from ecgfounder.sinks.parquet import ParquetSink

        return ParquetSink(
            output_dir,
            scratch,
            prefix=part.removesuffix(".jsonl"),
            shard_size=self.settings.shard_size,
            dtype=self.settings.dtype,
            record_column="ecg_path" if self.settings.id_column is None else "identifier",
        )

    def _jobs(self, started: Started, recorder: Recorder) -> Iterator[Job]:
        opening = started.opening
        return jobs_of(
            opening.cohort,
            opening.index,
            started.plan,
            self.naming,
            named=self._named,
            removable=self.settings.format == "json",
            refuse=recorder.refuse,
            options=self.settings.storage_options,
        )

    def _conclude(self, started: Started, recorder: Recorder) -> Summary:
        """Finish the attempt; the main process of a whole run waits for the others and writes the tables."""
        launch, engine = started.launch, started.engine
        outcome, tally = "incomplete", None
        if self._is_cut_short:
            outcome = "interrupted"
        others = Others()
        if launch.is_main:
            parts = {rank: self.folder.ledger / self._part_name(started, rank) for rank in range(1, launch.world_size)}
            others = wait_for_others(parts, self.interruption, self.console.line)
        is_whole = launch.is_main and self.settings.shard[1] == 1
        if is_whole and others.ended and not self._is_cut_short:
            tally = conclude(self.folder, started.opening.cohort, self._record(started))
            outcome = "complete" if tally.pending == 0 else "incomplete"
        error = engine.relative_error if isinstance(engine, MeteredEngine) else None
        if is_whole:
            close_record(self.folder, outcome, tally, precision_error=error)
        return Summary(
            outcome,
            tally,
            started.plan,
            processed=recorder.done + recorder.failed + others.done + others.failed,
            failed_now=recorder.failed + others.failed,
            seconds=time.monotonic() - started.began,
            engine=engine.describe(),
            device=engine.device,
            precision_error=error,
            samples_per_pass=engine.samples_per_pass,
            signal=self.interruption.signal,
            trouble=self._trouble.reason,
            slowest=self._slowest,
            lost=others.lost,
            is_main=launch.is_main,
        )
