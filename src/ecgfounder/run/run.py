"""The run: the stages put together, nothing else.

In: `Settings`. Out: the embeddings in `output_dir`, the books in `output_dir/_run`, and a `Summary`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from ecgfounder import __version__
from ecgfounder.cohort.cohort import Cohort, Record
from ecgfounder.cohort.index import Index, index_cohort, indexed_records, output_name, record_identity
from ecgfounder.cohort.naming import Layout, Naming
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.drivers.launch import Launch, join_launch
from ecgfounder.drivers.local import Finished, Interruption, Pipeline
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.engines import Engine, create_engine
from ecgfounder.engines.metered import MeteredEngine
from ecgfounder.errors import PrepareError, RunError
from ecgfounder.ledger.conclusion import close_run_json, finish_books, now, tidy_shards, versions
from ecgfounder.ledger.folder import RunFolder, differences, new_stamp, part_name
from ecgfounder.ledger.ledger import LedgerState, LedgerWriter, part_status, read_ledger, read_parts
from ecgfounder.ledger.liveness import Watch, own_name, process_is_alive
from ecgfounder.ledger.manifest import Tally, check_kept_columns
from ecgfounder.network.checkpoint import find_checkpoint, sha256_of
from ecgfounder.network.head import Head
from ecgfounder.run.budget import Budget, make_budget
from ecgfounder.run.plan import Plan, check_foreign_outputs, make_plan, renewed
from ecgfounder.run.settings import Settings
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.sink import Sink
from ecgfounder.stages.read import Job, ReadTask
from ecgfounder.stages.record import Recorder, Task
from ecgfounder.stages.view import diagnostic_head, view_of
from ecgfounder.storage.paths import path_key, printable

COLLISIONS_SHOWN = 20
MAX_PATH_BYTES = 4096
ENTRIES_AT_ONCE = 1000

OTHERS_GRACE = 10.0
"""Seconds that the main process waits, after an interruption, for the others to commit what they have in flight."""
SHORT_SECONDS = 10.0
"""What takes no longer is not worth advice on how it could be faster."""
LOOK_SECONDS = 0.5
"""Seconds between two looks at what the others do."""


class Console(Protocol):
    """Where a run tells what it does; the command line's writes to the terminal, Python's may be silent."""

    def line(self, text: str) -> None: ...

    def progress(self, done: int, failed: int, total: int) -> None: ...


@dataclass(frozen=True)
class Summary:
    """What came of a start.

    Attributes
    ----------
    outcome : "complete", "interrupted", or "incomplete" where other shards or processes are still to finish.
    tally : all records of the cohort as the ledger has them; None where another process tells.
    processed, failed_now : records that this start did, and those among them that failed; the main process counts those of
        the others too.
    slowest : the stage that this process's others waited for (`Pipeline.slowest`); None where it was too short to say.
    lost : processes that died before their end, as the main one found out.
    is_main : whether this is the process that speaks for all of a launch.
    seconds : wall time.
    engine, device : the engine as it describes itself, and what it computes on.
    precision_error : relative error of the maps against float32, where a lower precision was asked for.
    samples_per_pass : what the device's memory was found to hold, rows times samples; None if it never ran out.
    """

    outcome: str
    tally: Tally | None
    plan: Plan
    processed: int
    failed_now: int
    seconds: float
    engine: str
    device: str
    precision_error: float | None = None
    samples_per_pass: int | None = None
    signal: int | None = None
    slowest: str | None = None
    lost: int = 0
    is_main: bool = True


@dataclass
class Others:
    """What the main process knows of those that were launched with it.

    Attributes
    ----------
    ended : whether all have come to their end; done, failed : what those that have did.
    lost : those that died before.
    """

    ended: bool = True
    done: int = 0
    failed: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Preview:
    """What a start would do.

    Attributes
    ----------
    n_records : different recordings in the cohort; colliding_names : output names that several would share.
    resumes : whether there is a run to go on with; differences : why it cannot be gone on with.
    """

    n_records: int
    colliding_names: int
    plan: Plan
    budget: Budget
    resumes: bool
    differences: list[str]


@dataclass(frozen=True)
class Started:
    """What one start of a run works with, once it was not refused.

    Attributes
    ----------
    stamp : the start's time in ns, the same in all its processes. began : monotonic seconds.
    digest : SHA-256 of the checkpoint.
    """

    launch: Launch
    stamp: int
    cohort: Cohort
    index: Index
    plan: Plan
    engine: Engine
    checkpoint: Path
    digest: str
    began: float


class Run:
    """One start of a run in one process; `execute` does it all."""

    def __init__(self, settings: Settings, console: Console, interruption: Interruption | None = None) -> None:
        self.settings = settings
        self.console = console
        self.interruption = interruption or Interruption()
        self.folder = RunFolder(settings.output_dir)
        self._state: LedgerState | None = None
        self._slowest: str | None = None
        self.naming = Naming(layout=cast(Layout, settings.layout), data_dir=settings.data_dir, suffix=".json")

    def execute(self) -> Summary:
        """Do the run.

        Raises
        ------
        ECGFounderError
            If it is refused before any work.
        OSError
            If the output folder stops working in the middle; what was committed stays, and the run can be resumed.
        """
        began = time.monotonic()
        launch = join_launch(self.settings.device)
        with launch:
            return self._execute(launch, began)

    def _execute(self, launch: Launch, began: float) -> Summary:
        checkpoint = find_checkpoint(self.settings.checkpoint, self.settings.mode)
        digest = sha256_of(checkpoint)
        cohort = self._open_cohort()
        index = index_cohort(cohort, self.naming if self._named else None, self.naming.data_dir)
        with ExitStack() as stack:
            with launch.together() as said:
                if launch.is_main:
                    said["stamp"] = self._open_folder(cohort, index, digest, stack)
            with launch.together():
                plan = self._plan(launch, cohort, index)
                pool = ReaderPool(
                    ReadTask(
                        self.settings.preparation, self.settings.reader, self.settings.hints, self.settings.statements
                    ),
                    min(self.settings.num_workers, plan.n_todo),
                    n_started=1,
                    timeout=self.settings.read_timeout,
                )
                stack.callback(pool.close)
                engine = self._engine(launch, checkpoint, digest)
                head = diagnostic_head(engine.head, self.settings.mode) if self.settings.predictions else None
                started = Started(launch, said["stamp"], cohort, index, plan, engine, checkpoint, digest, began)
            # Written once no process can be refused any more, and before any has a result.
            with launch.together():
                if launch.is_main:
                    self._announce(started)
                    self._write_run_json(started)
            recorder = self._process(started, pool, head)
            return self._conclude(started, recorder)

    @property
    def _named(self) -> bool:
        """Whether records have names that must be unique: a file each, or an identifier."""
        return self.settings.format == "json" or self.settings.id_column is not None

    def _open_cohort(self) -> Cohort:
        settings = self.settings
        cohort = open_cohort(
            settings.dataset, split=settings.split, path_column=settings.path_column, id_column=settings.id_column
        )
        check_kept_columns(cohort, settings.keep_columns)
        return cohort

    def _open_folder(self, cohort: Cohort, index: Index, digest: str, stack: ExitStack) -> int:
        """Make or admit the folder and lock it; the start's stamp."""
        self.folder.create()
        stack.enter_context(self.folder.hold(self.settings.shard))
        self._refuse_collisions(cohort, index)
        self.folder.admit(self.settings.fingerprint(digest), overwrite=self.settings.overwrite)
        if self.settings.shard[1] == 1:
            self.folder.clean_scratch()
            self._state = tidy_shards(self.folder, compacting=False)
        else:
            self._state = read_ledger(self.folder.ledger)
        check_foreign_outputs(index, self._state)
        return new_stamp(self.folder.ledger)

    def _refuse_collisions(self, cohort: Cohort, index: Index) -> None:
        colliding = set(index.colliding_names().tolist())
        if not colliding:
            return
        by_id = self.settings.id_column is not None
        groups: dict[int, list[str]] = {}
        for record, first, name in zip(cohort.records(), index.first, index.names, strict=True):
            if (first or by_id) and int(name) in colliding:
                shown = f"row {record.row} ({record.identifier})" if by_id else printable(record.path)
                groups.setdefault(int(name), []).append(shown)
        lines = [f"{self._shown_name(who[0])}{', '.join(who)}" for who in groups.values()]
        self.folder.collisions.write_text("\n".join(lines) + "\n", encoding="utf-8")
        shown = "\n  ".join(lines[:COLLISIONS_SHOWN])
        raise RunError(
            f"{len(groups)} output names would be shared by different recordings (upper and lower case count as equal):\n"
            f"  {shown}\nAll of them are in {self.folder.collisions}. "
            + (
                "The values of --id_column must be unique."
                if by_id
                else "--layout tree mirrors the folders below --data_dir; --id_column names outputs by an identifier."
            )
        )

    def _shown_name(self, path: str) -> str:
        return f"{printable(self.naming.name(path))}: " if self.settings.id_column is None else ""

    def _plan(self, launch: Launch, cohort: Cohort, index: Index) -> Plan:
        mine = self._share(index, launch)
        state = self._state or read_ledger(self.folder.ledger)
        plan = make_plan(cohort, index, mine, state, self.settings, self.naming, self.folder.output_dir)
        self._state = state if plan.renewals else None
        if launch.is_main:  # the others have about as much to do
            n_todo = plan.n_todo * launch.world_size
            make_budget(n_todo, self.settings, state, self.folder.output_dir).check(self.folder.output_dir)
        return plan

    def _share(self, index: Index, launch: Launch) -> npt.NDArray[np.bool_]:
        """The paths that are this process's: first by shard, so that shards may differ in their processes, then by rank."""
        part, parts = self.settings.shard
        in_shard = index.keys % np.uint64(parts) == part - 1
        of_rank = index.keys // np.uint64(parts) % np.uint64(launch.world_size) == launch.rank
        return np.asarray(in_shard & of_rank, dtype=np.bool_)

    def preview(self) -> Preview:
        """What `execute` would do, without writing anything.

        Raises
        ------
        ECGFounderError
            Where `execute` would refuse before it looks at the output folder.
        """
        digest = sha256_of(find_checkpoint(self.settings.checkpoint, self.settings.mode))
        cohort = self._open_cohort()
        index = index_cohort(cohort, self.naming if self._named else None, self.naming.data_dir)
        before = None if self.settings.overwrite else self.folder.previous()
        changed = differences(before["fingerprint"], self.settings.fingerprint(digest)) if before else []
        state = read_ledger(self.folder.ledger) if before else read_parts(())
        mine = self._share(index, Launch())
        plan = make_plan(cohort, index, mine, state, self.settings, self.naming, self.folder.output_dir)
        budget = make_budget(plan.n_todo, self.settings, state, self.folder.output_dir)
        return Preview(index.n_records, len(index.colliding_names()), plan, budget, before is not None, changed)

    def _engine(self, launch: Launch, checkpoint: Path, digest: str) -> Engine:
        """The engine; one of lower precision is held against float32 on the run's own first recordings."""

        def create(precision: str, compiled: bool) -> Engine:
            return create_engine(
                self.settings.engine,
                mode=self.settings.mode,
                checkpoint=checkpoint,
                precision=precision,
                device=self.settings.device or launch.device,
                threads=launch.threads,
                batch_size=self.settings.batch_size,
                checkpoint_sha256=digest,
                compiled=compiled,
            )

        engine = create(self.settings.precision, self.settings.compile)
        return engine if self.settings.precision == "float32" else MeteredEngine(engine, create("float32", False))

    def _announce(self, started: Started) -> None:
        settings, launch, plan = self.settings, started.launch, started.plan
        recipe = settings.preparation.recipe
        self.console.line(
            f"ecgfounder {__version__}: recipe {recipe.name} v{recipe.version}, mode {settings.mode}, "
            f"checkpoint {started.checkpoint.name} (sha256 {started.digest[:12]}), engine {started.engine.describe()}"
        )
        share = "" if launch.world_size == 1 else f" (this is process 1 of {launch.world_size})"
        self.console.line(
            f"{started.index.n_records:,} recordings in {settings.dataset}; to do: {plan.n_todo:,}{share}, "
            f"done before: {plan.done:,}, failed before: {plan.failed:,}"
        )
        for number, what in (
            (plan.changed, "changed since they were embedded and are done again"),
            (plan.missing, "lost their outputs and are done again"),
            (plan.gone, "are in the output folder and no longer in the dataset; their outputs are left alone"),
        ):
            if number:
                self.console.line(f"{number:,} recordings {what}")

    def _write_run_json(self, started: Started) -> None:
        settings, engine = self.settings, started.engine
        told = {
            "dataset": os.path.abspath(settings.dataset) if os.path.exists(settings.dataset) else settings.dataset,
            "split": settings.split,
            "data_dir": self.naming.data_dir,
            "path_column": settings.path_column,
            "id_column": settings.id_column,
            "keep_columns": list(settings.keep_columns),
            "batch_size": settings.batch_size,
            "num_workers": settings.num_workers,
            "shards": settings.shard[1],
        }
        before = None
        if settings.shard[1] > 1:  # another shard with other settings may have begun in the meantime
            self.folder.admit(settings.fingerprint(started.digest), overwrite=False)
            before = self.folder.read()
        is_told = before is not None and before["outcome"] == "running" and before["settings"] == told
        if is_told and before is not None and before["dataset_fingerprint"] == started.cohort.fingerprint:
            return  # another shard of the same run has written it
        self.folder.remove_tables()
        self.folder.write(
            {
                "program": {"name": "ecgfounder", "version": __version__},
                "outcome": "running",
                "started": now(),
                "ended": None,
                "fingerprint": settings.fingerprint(started.digest),
                "settings": told,
                "checkpoint": {"name": started.checkpoint.name, "sha256": started.digest},
                "engine": {"name": engine.name, "precision": engine.precision, "device": engine.device},
                "processes": started.launch.world_size,
                "dataset_fingerprint": started.cohort.fingerprint,
                "versions": versions(),
            }
        )

    def _process(self, started: Started, pool: ReaderPool, head: Head | None) -> Recorder:
        name = self._part_name(started, started.launch.rank)
        ledger = LedgerWriter(self.folder.ledger / name, own_name() | {"started": now()})
        if self._state is not None:
            entries = renewed(self._state, started.plan.renewals)
            while chunk := list(islice(entries, ENTRIES_AT_ONCE)):
                ledger.append(chunk)
            self._state = None
        recorder = Recorder(self._sink(name), ledger, self.folder.output_dir, self.settings)

        def finish(group: Sequence[Finished]) -> None:
            recorder.finish(group)
            self.console.progress(recorder.done, recorder.failed, started.plan.n_todo)

        pipeline = Pipeline(
            pool,
            started.engine,
            finish,
            self.settings.batch_size,
            view_of(self.settings.pooling, head),
            self.interruption,
        )
        try:
            pipeline.run(self._jobs(started, recorder))
            if time.monotonic() - started.began > SHORT_SECONDS:
                self._slowest = pipeline.slowest
            recorder.close()
            outcome = "interrupted" if self.interruption.requested else "complete"
            ledger.end({"outcome": outcome, "done": recorder.done, "failed": recorder.failed})
        except BaseException:
            ledger.abandon()
            raise
        return recorder

    def _part_name(self, started: Started, rank: int) -> str:
        return part_name(started.stamp, self.settings.shard, rank, started.launch.world_size)

    def _sink(self, part: str) -> Sink:
        if self.settings.format == "json":
            return JsonSink(self.folder.output_dir, self.folder.scratch)
        from ecgfounder.sinks.parquet import ParquetSink

        return ParquetSink(
            self.folder.output_dir,
            self.folder.scratch,
            prefix=part.removesuffix(".jsonl"),
            shard_size=self.settings.shard_size,
            dtype=self.settings.dtype,
            record_column="ecg_path" if self.settings.id_column is None else "identifier",
        )

    def _jobs(self, started: Started, recorder: Recorder) -> Iterator[Job]:
        """The records to do, in the dataset's order; one whose output cannot be named fails here."""
        data_dir, plan = self.naming.data_dir, started.plan
        given = np.zeros(len(started.index), dtype=np.bool_)
        for ticket, record in indexed_records(started.cohort, started.index, data_dir):
            if not plan.todo[ticket] or given[ticket]:
                continue
            given[ticket] = True
            task = recorder.tasks[ticket] = self._task(record, int(started.index.keys[ticket]))
            task.had_output = bool(plan.had_output[ticket])
            try:
                if len(os.fsencode(record.path)) > MAX_PATH_BYTES:
                    raise PrepareError(f"the path is longer than {MAX_PATH_BYTES} bytes, which no system opens")
                task.output = output_name(record, self.naming) if self._named else ""
            except PrepareError as error:
                recorder.refuse(ticket, error)
                continue
            yield Job(ticket, self.naming.absolute(record.path))

    def _task(self, record: Record, key: int) -> Task:
        identity = record_identity(record.path, self.naming.data_dir)
        if record.identifier is None:
            return Task(key, printable(identity), os.path.basename(record.path))
        return Task(key, printable(record.identifier), record.identifier, path=path_key(identity))

    def _conclude(self, started: Started, recorder: Recorder) -> Summary:
        """The main process of a whole run waits for the others and writes the tables; everyone gives a summary."""
        launch, engine = started.launch, started.engine
        outcome, tally = "incomplete", None
        if self.interruption.requested:
            outcome = "interrupted"
        others = self._wait_for_others(started) if launch.is_main else Others()
        is_whole = launch.is_main and self.settings.shard[1] == 1
        if is_whole and others.ended and not self.interruption.requested:
            tally = finish_books(
                self.folder,
                started.cohort,
                self.naming.data_dir,
                self.settings.keep_columns,
                self.settings.fingerprint(""),
            )
            outcome = "complete" if tally.pending == 0 else "incomplete"
        if is_whole:
            error = engine.relative_error if isinstance(engine, MeteredEngine) else None
            close_run_json(self.folder, outcome, tally, precision_error=error)
        return Summary(
            outcome,
            tally,
            started.plan,
            processed=recorder.done + recorder.failed + others.done + others.failed,
            failed_now=recorder.failed + others.failed,
            seconds=time.monotonic() - started.began,
            engine=engine.describe(),
            device=engine.device,
            precision_error=engine.relative_error if isinstance(engine, MeteredEngine) else None,
            samples_per_pass=engine.samples_per_pass,
            signal=self.interruption.signal,
            slowest=self._slowest,
            lost=others.lost,
            is_main=launch.is_main,
        )

    def _wait_for_others(self, started: Started) -> Others:
        """Wait until each of the other processes has written its last line in the ledger, or died without.

        All began their parts when this one did. One on this machine is looked for by its process id; one elsewhere lives as long
        as its part changes, if only in its time.
        """
        world_size, others = started.launch.world_size, Others()
        watches = {rank: Watch(self.folder.ledger / self._part_name(started, rank)) for rank in range(1, world_size)}
        while watches and not self.interruption.older_than(OTHERS_GRACE):
            for rank, watch in list(watches.items()):
                header, _ = part_status(watch.path)
                lives = watch.is_fresh() and (header is None or process_is_alive(header))
                header, end = part_status(watch.path)  # after that: one that has just ended is not one that died
                if end is not None:
                    others.done += end["done"]
                    others.failed += end["failed"]
                elif lives:
                    continue
                else:
                    where = "" if header is None else f" (process {header['pid']} on {header['host']})"
                    self.console.line(f"Process {rank + 1} of {world_size}{where} died before its end")
                    others.lost += 1
                del watches[rank]
            if watches:
                time.sleep(LOOK_SECONDS)
        others.ended = not watches and not others.lost
        return others
