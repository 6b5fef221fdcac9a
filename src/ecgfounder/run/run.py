"""The run: the stages put together, nothing else.

In: `Settings`. Out: the embeddings in `output_dir`, the run record in `output_dir/_run`, and a `Summary`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol, cast

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
from ecgfounder.drivers.processes import ROWS_TOGETHER, ReaderPool
from ecgfounder.engines import Engine, create_engine
from ecgfounder.engines.metered import MeteredEngine
from ecgfounder.engines.trial import refuse_overflow
from ecgfounder.errors import CohortError, RunError, StorageError
from ecgfounder.escaping import counted
from ecgfounder.ledger.admission import admit, changed_settings, previous, take_folder
from ecgfounder.ledger.compaction import tidy_shards
from ecgfounder.ledger.conclusion import bring_up_to_date, close_record, conclude
from ecgfounder.ledger.entry import PartEnd, PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.epochs import Epoch, has_epochs, seal_epoch, take_epoch
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.groups.names import WHOLE, part_of_group
from ecgfounder.ledger.groups.outputs import outputs_there
from ecgfounder.ledger.groups.writer import DRIVER, GroupWriter
from ecgfounder.ledger.ledger import DONE, LedgerState, LedgerWriter, new_stamp, part_name, read_ledger, read_parts
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.manifest import check_kept_columns
from ecgfounder.ledger.record import (
    FORMAT_VERSION,
    MOST_SIZES,
    CheckpointRecord,
    CohortSettings,
    EngineRecord,
    RunRecord,
    new_run_id,
    now,
    versions,
)
from ecgfounder.ledger.removal import clean_scratch, remove_left_behind, remove_obsolete, remove_tables
from ecgfounder.machine import is_launched, leaving_old_objects_alone, usable_memory
from ecgfounder.network.checkpoint import find_checkpoint, labels_in, sha256_of
from ecgfounder.network.head import Head
from ecgfounder.network.named_head import read_head
from ecgfounder.run.budget import make_budget
from ecgfounder.run.jobs import jobs_of, refuse_collisions, refuse_decimal_ids
from ecgfounder.run.others import Ended, Others, by_leases, by_parts, shard_of_rank, wait_for_others
from ecgfounder.run.plan import Plan, check_foreign_outputs, make_plan, renewed
from ecgfounder.run.presence import FIRST_SAMPLE, SAMPLE, Presence, look
from ecgfounder.run.settings import Settings
from ecgfounder.run.summary import Console, Preview, Summary
from ecgfounder.run.ticking import Ticking
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.sink import Sink
from ecgfounder.stages.collect import Finished
from ecgfounder.stages.embed import EmbedStage, Network
from ecgfounder.stages.pooling import chosen_head
from ecgfounder.stages.read import Job, ReadTask
from ecgfounder.stages.record import Recorder
from ecgfounder.stages.trouble import StoreTrouble
from ecgfounder.storage import release_commits, require_folder

ENTRIES_AT_ONCE = 1000

READING_SHARE = 0.25
"""Share of the memory that reading large files may take by default."""

TICK_SECONDS = 1.0
"""Seconds between two looks whether a group is old enough to be published."""

REPAIRS = 3
"""Times that replaced outputs are written again, at most."""

RANK = "rank"
"""The kind of parts that processes of this machine append to, in a folder to which groups were committed."""

SHORT_SECONDS = 10.0
"""Shorter attempts, from the first recording on, get no advice on performance."""


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


class EngineInUse(Protocol):
    """What a run tells of its engine, which may be on other machines."""

    @property
    def name(self) -> str: ...

    @property
    def precision(self) -> str: ...

    @property
    def device(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def samples_per_pass(self) -> int | None: ...

    def describe(self) -> str: ...


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
    pool : ReaderPool or None
        The reading processes of this process, if it reads files itself.
    head : Head or None
        The head, for predictions.
    """

    opening: Opening
    launch: Launch
    stamp: int
    run_id: str
    plan: Plan
    engine: EngineInUse
    began: float
    pool: ReaderPool | None = None
    head: Head | None = None


class Run:
    """One attempt of a run in one process; `execute` runs it."""

    def __init__(self, settings: Settings, console: Console, interruption: Interruption | None = None) -> None:
        self.settings = settings
        self.console = console
        self.interruption = interruption or Interruption()
        self.folder = RunFolder(settings.output_dir, settings.storage_options)
        self._hold: StoreHold | None = None
        self._epoch: Epoch | None = None  # of a folder to which groups were committed, for this process's appended part
        self._state: LedgerState | None = None
        self._slowest: str | None = None
        self._working_seconds = 0.0
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
        if self.folder.is_remote and is_launched() and self.settings.shard[1] > 1:
            raise RunError(
                "In an object store each process of a launch is a shard of its own, so that a launch cannot be one of several "
                "shards. Leave out the 'shard' parameter, start the shards without a launcher, or write to a folder."
            )
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
        if before is None:
            refuse_decimal_ids(opening.index, self.settings.id_column)
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
        release_commits()  # those of an earlier attempt in this process
        require_folder(self.naming.data_dir, "data_dir", settings.storage_options)
        checkpoint = find_checkpoint(settings.checkpoint, settings.mode, settings.storage_options)
        digest = sha256_of(checkpoint)
        if isinstance(settings.predictions, str):
            read_head(settings.predictions).check(digest)
        cohort = open_cohort(
            settings.dataset,
            split=settings.split,
            path_column=settings.path_column,
            id_column=settings.id_column,
            options=settings.storage_options,
        )
        check_kept_columns(cohort, settings.keep_columns, heart_rate=settings.heart_rate)
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
                    started = self._start(launch, stack, began)
            except OSError as error:
                raise RunError(
                    f"The run cannot begin: {error}. Nothing was done; correct this and start again."
                ) from error
            recorder = self._process(started)
            if self._hold is not None:
                recorder = self._repaired(started, recorder)
            return self._conclude(started, recorder)

    def _start(self, launch: Launch, stack: ExitStack, began: float) -> Started:
        """Do everything before the first record; the stack gets what must be closed later."""
        pool = self._pool(launch)  # a reading process starts while the checkpoint is looked at
        stack.callback(pool.close)
        opening = self._open()
        with launch.together() as said:
            if launch.is_main:
                with ExitStack() as until_others_begin:
                    alone = launch.world_size == 1 or not self.folder.is_remote
                    said["stamp"], said["run_id"] = self._open_folder(opening, stack if alone else until_others_begin)
                said["epoch"] = self._epoch
        self._epoch = said["epoch"]
        with launch.together():
            if launch.world_size > 1 and self.folder.is_remote:
                self._hold = stack.enter_context(self._hold_of(shard_of_rank(launch.rank, launch.world_size)))
                self._hold.begin()
            state = self._state or read_ledger(self.folder.ledger)
            plan = self._plan(opening, launch, state)
            self._state = state if plan.renewals else None
            if launch.is_main:  # the other processes have about as many records
                budget = make_budget(plan.n_todo * launch.world_size, self.settings, state, self.folder.output_dir)
                budget.check(self.folder.output_dir)
            pool.limit(plan.n_todo)
            engine = self._engine(launch, opening)
            head = chosen_head(self.settings.predictions, engine.head)
            started = Started(opening, launch, said["stamp"], said["run_id"], plan, engine, began, pool, head)
        # Written when no process can be refused any more, and before any process has a result.
        with launch.together():
            if launch.is_main:
                self._announce(started)
                self._begin_record(started)
        return started

    def _open_folder(self, opening: Opening, stack: ExitStack) -> tuple[int, str]:
        """Make or admit the folder and lock it; returns the attempt's stamp and the run's identifier.

        In a store, a launch locks the whole run first; afterwards each of its processes locks a shard of it.
        """
        folder, settings = self.folder, self.settings
        self._take_folder(stack)
        refuse_collisions(opening.cohort, opening.index, self.naming, folder.collisions)
        if settings.overwrite or not folder.run_json.exists():  # a run that has begun with them goes on
            refuse_decimal_ids(opening.index, settings.id_column)
        before = admit(folder, settings.fingerprint(opening.digest), overwrite=settings.overwrite)
        stamp = self._begin_epoch()
        if self.settings.shard[1] == 1:
            clean_scratch(folder)
            self._state = tidy_shards(folder, compacting=False)
            remove_left_behind(folder, self._state)
            before = None if before is None else bring_up_to_date(folder, before)
        else:
            self._state = read_ledger(folder.ledger)
        check_foreign_outputs(opening.index, self._state)
        run_id = None if before is None else before.run_id
        return stamp or new_stamp(folder.ledger), run_id or new_run_id()

    def _take_folder(self, stack: ExitStack) -> None:
        """Lock the folder until the stack is closed; groups are committed where `_hold` is set."""
        if self.folder.is_remote:
            self._hold = stack.enter_context(self._hold_of(self.settings.shard))
        else:
            stack.enter_context(take_folder(self.folder, self.settings.shard))

    def _hold_of(self, shard: tuple[int, int]) -> StoreHold:
        return StoreHold(self.folder, shard, tell=self.console.line)

    def _begin_epoch(self) -> int | None:
        """Begin the attempt's epoch where groups are or were committed; returns its stamp."""
        overwrite, run = self.settings.overwrite, self.folder.run
        if self._hold is not None:
            again = overwrite and self.folder.is_remote  # in a folder on this machine, all was removed before
            return (self._hold.begin_again() if again else self._hold.begin(fresh=overwrite)).stamp
        if not has_epochs(run):
            return None
        self._epoch = take_epoch(run, self.settings.shard, fresh=overwrite)
        return self._epoch.stamp

    @property
    def _store_hold(self) -> StoreHold:
        assert self._hold is not None  # only asked for where groups are committed
        return self._hold

    def _plan(self, opening: Opening, launch: Launch, state: LedgerState) -> Plan:
        mine = self._share(opening.index, launch)
        return make_plan(opening.cohort, opening.index, mine, state, self.settings, self.naming, self.folder.output_dir)

    def _share(self, index: Index, launch: Launch) -> npt.NDArray[np.bool_]:
        """The paths of this process: by shard, then by rank, so that shards may have different numbers of processes.

        A sample is one of the whole cohort, of which each process has its part.
        """
        part, parts = self.settings.shard
        in_shard = index.keys % np.uint64(parts) == part - 1
        of_rank = index.keys // np.uint64(parts) % np.uint64(launch.world_size) == launch.rank
        mine = in_shard & of_rank
        if self.settings.sample is not None:
            mine &= index.sample(self.settings.sample)
        return np.asarray(mine, dtype=np.bool_)

    def _pool(self, launch: Launch) -> ReaderPool:
        settings = self.settings
        task = ReadTask(
            settings.preparation,
            settings.reader,
            settings.hints,
            settings.statements,
            settings.storage_options,
            settings.heart_rate,
        )
        memory = usable_memory() * READING_SHARE if settings.read_memory is None else settings.read_memory * (1 << 30)
        return ReaderPool(
            task,
            settings.num_workers,
            n_started=1,
            timeout=settings.read_timeout,
            memory=int(memory / launch.local_size),
            rows=min(settings.batch_size or ROWS_TOGETHER, ROWS_TOGETHER),
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
        sample = "" if settings.sample is None else f", of which a sample of {settings.sample:,} is taken"
        self.console.line(
            f"{counted(opening.index.n_records, 'recording')} in {settings.dataset}{sample}; to do: {plan.n_todo:,}{share}, "
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
        if self._hold is not None:
            self._hold.check()
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

    def _batch_size(self, engine: EngineInUse) -> int:
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
            checkpoint=CheckpointRecord(
                name=opening.checkpoint.name,
                sha256=opening.digest,
                labels=self._labels(started),
            ),
            engine=EngineRecord(name=engine.name, precision=engine.precision, device=engine.device),
            processes=started.launch.world_size,
            dataset_fingerprint=opening.cohort.fingerprint,
            versions=versions(),
            shard_sizes=tuple(opening.index.shard_sizes(settings.shard[1])) if settings.shard[1] <= MOST_SIZES else (),
        )

    def _labels(self, started: Started) -> tuple[str, ...] | None:
        """The names of the head's classes, if predictions are written and it has names; the engine may be elsewhere."""
        if not self.settings.predictions:
            return None
        if isinstance(self.settings.predictions, str):
            return read_head(self.settings.predictions).head.labels
        return labels_in(started.opening.checkpoint) if started.head is None else started.head.labels

    def _process(self, started: Started) -> Recorder:
        n_renewed = 0 if self._state is None else len(started.plan.renewals)
        ledger = self._ledger(self._part_name(started, started.launch.rank), n_renewed=n_renewed)
        self._renew(started, ledger)
        recorder = Recorder(self._sink(started), ledger)
        try:
            with self._keeping(recorder) as check:
                self._line(started, recorder, check)
                recorder.close()
                remove_obsolete(self.folder, recorder.take_obsolete())
            ledger.end(self._part_end(recorder))
        except StorageError as error:
            ledger.abandon()
            if self._hold is None:
                raise
            self._trouble.end(str(error))
        except BaseException:
            ledger.abandon()
            raise
        return recorder

    def _part_end(self, recorder: Recorder) -> PartEnd:
        outcome = "interrupted" if self._is_cut_short else "complete"
        return PartEnd(outcome=outcome, done=recorder.done, failed=recorder.failed)

    def _ledger(self, name: str, n_renewed: int) -> LedgerWriter | GroupWriter:
        """The ledger of this process: a part that lines are appended to or, in a store, a part for each group."""
        if self._hold is not None:
            return self._hold.writer()
        return LedgerWriter(self.folder.ledger.path / name, PartHeader(**own_name(), started=now(), renewed=n_renewed))

    def _renew(self, started: Started, ledger: LedgerWriter | GroupWriter) -> None:
        """Write the plan's renewals; in a store, to parts of the driver's own."""
        if self._state is None:
            return
        if self._hold is not None:
            ledger = self._hold.writer(DRIVER)
        entries = renewed(self._state, started.plan.renewals)
        while chunk := list(islice(entries, ENTRIES_AT_ONCE)):
            ledger.append(chunk)
        if self._hold is not None:
            ledger.end(PartEnd())
        self._state = None

    @contextmanager
    def _keeping(self, recorder: Recorder) -> Iterator[Callable[[], None]]:
        """In a store: publish groups that are old enough even if no record finishes; the block gets what raises its errors."""
        if self._hold is None:
            yield lambda: None
            return

        def tick() -> None:
            self._store_hold.check()
            recorder.finish([])

        with Ticking(tick, TICK_SECONDS, self._trouble.end) as ticking:
            yield ticking.check

    def _line(self, started: Started, recorder: Recorder, check: Callable[[], None]) -> None:
        """Let the records pass through the stages."""

        def finish(group: Sequence[Finished]) -> None:
            check()
            recorder.finish(group)
            remove_obsolete(self.folder, recorder.take_obsolete())
            self.console.progress(recorder.done, recorder.failed, started.plan.n_todo)

        if started.plan.n_todo:
            self.console.progress(0, 0, started.plan.n_todo)
        assert started.pool is not None
        assert isinstance(started.engine, Network)
        stage = EmbedStage.of(started.engine, self.settings.pooling, started.head)
        size = self._batch_size(started.engine)
        pipeline = Pipeline(started.pool, stage, finish, size, self.interruption, trouble=self._trouble)
        with leaving_old_objects_alone():
            pipeline.run(self._jobs(started, recorder))
        self._working_seconds = pipeline.seconds
        if pipeline.seconds > SHORT_SECONDS:
            self._slowest = pipeline.slowest

    @property
    def _is_cut_short(self) -> bool:
        """Whether records were left to the next attempt, because of a signal or the trouble of a store."""
        return self.interruption.requested or self._trouble.reason is not None

    def _repaired(self, started: Started, recorder: Recorder) -> Recorder:
        """Do records again whose objects were replaced since they were written, by a process that should have ended."""
        try:
            for _ in range(REPAIRS):
                if self._is_cut_short or not (differing := self._differing(started)).any():
                    return recorder
                self._state = None
                self.console.line(f"{counted(int(differing.sum()), 'output')} replaced meanwhile, to be written again")
                plan = replace(started.plan, todo=differing, had_output=differing, renewals=())
                recorder.failed += self._process_again(replace(started, plan=plan)).failed
            if self._differing(started).any():
                self._trouble.end(f"{self.folder.output_dir}: another program keeps replacing outputs")
        except StorageError as error:
            self._trouble.end(str(error))
        return recorder

    def _process_again(self, started: Started) -> Recorder:
        pool = self._pool(started.launch)
        pool.limit(started.plan.n_todo)
        try:
            return self._process(replace(started, pool=pool))
        finally:
            pool.close()

    def _differing(self, started: Started) -> npt.NDArray[np.bool_]:
        """The paths whose objects in a store are not those that were written: bool [n]."""
        self._state, index = read_ledger(self.folder.ledger), started.opening.index
        state = self._state
        differs = (state.status == DONE) & ~outputs_there(self.folder.output_dir, state)
        return index.first & self._share(index, started.launch) & np.isin(index.keys, state.keys[differs])

    def _part_name(self, started: Started, rank: int) -> str:
        if self._epoch is not None:
            return part_of_group(self._epoch.stamp, self._epoch.shard, self._epoch.number, RANK, rank)
        return part_name(started.stamp, self.settings.shard, rank, started.launch.world_size)

    def _sink(self, started: Started) -> Sink:
        if self._hold is not None:
            return self._object_sink(self._hold)
        output_dir, scratch = self.folder.output_dir.path, self.folder.scratch
        if self.settings.format == "json":
            return JsonSink(output_dir, scratch)
        from ecgfounder.sinks.parquet import ParquetSink

        launch = started.launch
        part = part_name(started.stamp, self.settings.shard, launch.rank, launch.world_size)
        return ParquetSink(
            output_dir,
            scratch,
            prefix=part.removesuffix(".jsonl"),
            shard_size=self.settings.shard_size,
            dtype=self.settings.dtype,
            record_column=self._record_column,
        )

    def _object_sink(self, hold: StoreHold) -> Sink:
        from ecgfounder.sinks.objects import ObjectSink, ParquetObjectSink

        if self.settings.format == "json":
            return ObjectSink(self.folder.output_dir, JsonSink)
        return ParquetObjectSink(
            self.folder.output_dir,
            prefix=hold.epoch.prefix,
            shard_size=self.settings.shard_size,
            dtype=self.settings.dtype,
            record_column=self._record_column,
        )

    @property
    def _record_column(self) -> str:
        return "ecg_path" if self.settings.id_column is None else "identifier"

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

    def _end_epoch(self) -> None:
        """Let nothing count any more that is written later; a run that was cut short stays as it is, for the next attempt."""
        if self._hold is not None:
            self._hold.check()
        if self._is_cut_short:
            return
        if self._hold is not None:
            self._hold.seal()
        elif self._epoch is not None:
            self.folder.ledger.delete(seal_epoch(self.folder.run, self._epoch))

    def _precision_error(self, started: Started) -> float | None:
        """The measured relative error of a lower precision."""
        return started.engine.relative_error if isinstance(started.engine, MeteredEngine) else None

    def _take_whole(self, shard: StoreHold, stack: ExitStack) -> StoreHold:
        """Lock the whole run again, after all processes of the launch have given back their shards; the stack releases it."""
        shard.seal()
        shard.release()
        whole = stack.enter_context(self._hold_of(WHOLE))
        whole.begin()
        self._state = None  # it lacks what the others wrote
        return whole

    def _ended(self, started: Started) -> Callable[[], Iterator[Ended]]:
        """The other processes of the launch that have ended since the last call."""
        world_size = started.launch.world_size
        if self._hold is not None:
            return by_leases(self._hold, world_size)
        return by_parts({rank: self.folder.ledger / self._part_name(started, rank) for rank in range(1, world_size)})

    def _conclude(self, started: Started, recorder: Recorder) -> Summary:
        """Finish the attempt; the main process of a whole run waits for the others and writes the tables."""
        launch, engine = started.launch, started.engine
        outcome, tally = "incomplete", None
        if self._is_cut_short:
            outcome = "interrupted"
        others = Others()
        if launch.is_main:
            others = wait_for_others(launch.world_size, self._ended(started), self.interruption, self.console.line)
        is_whole = launch.is_main and self.settings.shard[1] == 1
        error = self._precision_error(started)
        try:
            with ExitStack() as stack:
                if is_whole and others.ended and not self._is_cut_short:
                    if self._hold is not None and launch.world_size > 1:
                        self._hold = self._take_whole(self._hold, stack)
                    tally = conclude(self.folder, started.opening.cohort, self._record(started), self._state)
                    outcome = "complete" if tally.pending == 0 else "incomplete"
                if self._hold is not None or (launch.is_main and others.ended):
                    self._end_epoch()
                if self._hold is not None:
                    self._hold.leave(self._part_end(recorder))
                if is_whole:
                    close_record(self.folder, outcome, tally, precision_error=error)
        except StorageError as trouble:
            if self._hold is None:
                raise
            self._trouble.end(str(trouble))
            outcome, tally = "interrupted", None
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
            working_seconds=self._working_seconds,
            lost=others.lost,
            is_main=launch.is_main,
        )
