"""The run: the stages put together, nothing else.

In: `Settings`. Out: the embeddings in `output_dir`, the books in `output_dir/_run`, and a `Summary`.
"""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from ecgfounder import __version__
from ecgfounder.budget import Budget, make_budget
from ecgfounder.cohort import Cohort, Index, index_cohort, indexed_records, open_cohort, output_name, record_identity
from ecgfounder.engines import Engine, create_engine
from ecgfounder.errors import ECGFounderError, EmbeddingError, PrepareError, RunError
from ecgfounder.findings import PredictionsTable, StatementsTable, packed
from ecgfounder.launch import Launch, join_launch
from ecgfounder.ledger import LedgerState, LedgerWriter, key_text, part_status, read_ledger, read_parts
from ecgfounder.locks import RunLock, process_is_alive
from ecgfounder.manifest import Account, Tally, check_kept_columns, write_manifest
from ecgfounder.model import bundle_of, find_checkpoint, sha256_of
from ecgfounder.naming import Layout, Naming, absolute_path, path_key, printable
from ecgfounder.pipeline import Finished, Interruption, Pipeline
from ecgfounder.resume import Plan, make_plan
from ecgfounder.runfolder import RunFolder, new_stamp, part_name
from ecgfounder.settings import Settings, differences
from ecgfounder.sinks import Entry, Output, Sink
from ecgfounder.sinks.json import JsonSink
from ecgfounder.views import View, diagnostic_head, view_of
from ecgfounder.workers import Job, ReaderPool, ReadTask

COLLISIONS_SHOWN = 20
MAX_PATH_BYTES = 4096


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
    processed, failed_now : records that this process did, and those among them that failed.
    seconds : wall time.
    samples_per_pass : what the device's memory was found to hold, rows times samples; None if it never ran out.
    """

    outcome: str
    tally: Tally | None
    plan: Plan
    processed: int
    failed_now: int
    seconds: float
    engine: str
    samples_per_pass: int | None = None
    signal: int | None = None


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


@dataclass
class _Task:
    """What is known of a record between its job and its entry."""

    key: int
    record: str
    title: str
    output: str
    had_output: bool


@dataclass
class Recorder:
    """The writing end: finished records become outputs and ledger entries, failures become entries.

    An entry is appended only when the sink says that its output is safe.
    """

    sink: Sink
    ledger: LedgerWriter
    output_dir: Path
    settings: Settings
    tasks: dict[int, _Task] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, ticket: int, error: ECGFounderError) -> None:
        """Record a failure that came up before the file was read."""
        self.finish([Finished(ticket, {}, kind=type(error).__name__, reason=str(error))])

    def finish(self, group: Sequence[Finished]) -> None:
        """Write a group of records and their entries."""
        with self._lock:
            self._finish(group)

    def _finish(self, group: Sequence[Finished]) -> None:
        began = time.perf_counter()
        outputs: list[Output] = []
        entries: list[Entry] = []
        for finished in group:
            task = self.tasks.pop(finished.ticket)
            output = self._output(finished, task)
            if isinstance(output, Output):
                outputs.append(output)
            else:
                if task.had_output and self.settings.format == "json":
                    (self.output_dir / task.output).unlink(missing_ok=True)
                entries.append(output)
        entries += self.sink.write(outputs)
        share = (time.perf_counter() - began) / max(1, len(outputs))
        for entry in entries:
            if "seconds" in entry and entry["status"] == "done":
                entry["seconds"]["write"] = share
        self._commit(entries)

    def close(self) -> None:
        """Write what the sink still holds."""
        with self._lock:
            self._commit(self.sink.close())

    def _commit(self, entries: list[Entry]) -> None:
        self.ledger.append(entries)
        for entry in entries:
            if entry.get("status") == "failed":
                self.failed += 1
            elif entry.get("status") == "done":
                self.done += 1

    def _output(self, finished: Finished, task: _Task) -> Output | Entry:
        entry: Entry = {"key": key_text(task.key), "record": task.record}
        views: tuple[View, ...] | None = finished.views
        if views is None:
            return entry | finished.facts | failure(finished.kind, finished.reason)
        if not all(view.is_finite for view in views):
            reason = "the network's output is not finite: the samples' values are beyond what it can take"
            return entry | finished.facts | failure(EmbeddingError.__name__, reason)
        shape = [*finished.outer_shape, *views[0].embedding.shape]
        entry |= {"status": "done", "output": task.output, "shape": shape, **finished.facts}
        probabilities = [view.probabilities for view in views if view.probabilities is not None]
        if probabilities:
            entry["probabilities"] = [packed(each) for each in probabilities]
        return Output(
            entry,
            task.title,
            tuple(view.embedding for view in views),
            finished.outer_shape,
            finished.ticket,
            tuple(view.mean for view in views if view.mean is not None),
        )


def failure(kind: str, reason: str) -> Entry:
    """The part of an entry that says why there is no output."""
    return {"status": "failed", "output": None, "error": kind, "reason": printable(reason)}


class Run:
    """One start of a run in one process; `execute` does it all."""

    def __init__(self, settings: Settings, console: Console, interruption: Interruption | None = None) -> None:
        self.settings = settings
        self.console = console
        self.interruption = interruption or Interruption()
        self.folder = RunFolder(settings.output_dir)
        self._state: LedgerState | None = None
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
            stamp = self._open_folder(launch, cohort, index, digest, stack)
            plan = self._plan(launch, cohort, index)
            pool = ReaderPool(
                ReadTask(
                    self.settings.preparation, self.settings.reader, self.settings.hints, self.settings.statements
                ),
                min(self.settings.num_workers, plan.n_todo),
                timeout=self.settings.read_timeout,
            )
            stack.callback(pool.close)
            engine = self._engine(launch, checkpoint, digest)
            if launch.is_main:
                self._announce(launch, engine, checkpoint, digest, plan, index)
                self._write_run_json(launch, engine, checkpoint, digest, cohort, "running")
            recorder = self._process(launch, stamp, cohort, index, plan, pool, engine)
            return self._conclude(launch, stamp, cohort, plan, recorder, engine, began)

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

    def _open_folder(self, launch: Launch, cohort: Cohort, index: Index, digest: str, stack: ExitStack) -> int:
        """The main process makes or admits the folder and locks it; every process gets the start's stamp, or its refusal."""
        answer: dict[str, Any] = {}
        if launch.is_main:
            try:
                self.folder.create()
                stack.enter_context(RunLock(self.folder.locks, self.settings.shard))
                self._refuse_collisions(cohort, index)
                self.folder.admit(self.settings.fingerprint(digest), overwrite=self.settings.overwrite)
                if self.settings.shard[1] == 1:
                    self.folder.clean_scratch()
                    self._state = tidy_shards(self.folder, compacting=False)
                answer = {"stamp": new_stamp(self.folder.ledger)}
            except RunError as error:
                answer = {"refused": str(error)}
        answer = launch.share(answer)
        if "refused" in answer:
            raise RunError(answer["refused"])
        return int(answer["stamp"])

    def _refuse_collisions(self, cohort: Cohort, index: Index) -> None:
        colliding = set(index.colliding_names().tolist())
        if not colliding:
            return
        groups: dict[int, list[str]] = {}
        for record, first, name in zip(cohort.records(), index.first, index.names, strict=True):
            if first and int(name) in colliding:
                groups.setdefault(int(name), []).append(printable(record.path))
        lines = [f"{name}: {', '.join(paths)}" for paths in groups.values() for name in [self._shown_name(paths[0])]]
        self.folder.collisions.write_text("\n".join(lines) + "\n", encoding="utf-8")
        shown = "\n  ".join(lines[:COLLISIONS_SHOWN])
        raise RunError(
            f"{len(groups)} output names would be shared by different recordings (upper and lower case count as equal):\n"
            f"  {shown}\nAll of them are in {self.folder.collisions}. "
            "--layout tree mirrors the folders below --data_dir; --id_column names outputs by an identifier."
        )

    def _shown_name(self, path: str) -> str:
        return printable(self.naming.name(path)) if self.settings.id_column is None else "one identifier"

    def _plan(self, launch: Launch, cohort: Cohort, index: Index) -> Plan:
        part, parts = self.settings.shard
        share = (part - 1) * launch.world_size + launch.rank
        mine = index.keys % np.uint64(parts * launch.world_size) == share
        state = self._state or read_ledger(self.folder.ledger)
        self._state = None
        plan = make_plan(cohort, index, mine, state, self.settings, self.naming, self.folder.output_dir)
        make_budget(plan.n_todo, self.settings, state, self.folder.output_dir).check(self.folder.output_dir)
        return plan

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
        before = None if self.settings.overwrite else self.folder.read()
        changed = differences(before["fingerprint"], self.settings.fingerprint(digest)) if before else []
        state = read_ledger(self.folder.ledger) if before else read_parts(())
        part, parts = self.settings.shard
        mine = index.keys % np.uint64(parts) == part - 1
        plan = make_plan(cohort, index, mine, state, self.settings, self.naming, self.folder.output_dir)
        budget = make_budget(plan.n_todo, self.settings, state, self.folder.output_dir)
        return Preview(index.n_records, len(index.colliding_names()), plan, budget, before is not None, changed)

    def _engine(self, launch: Launch, checkpoint: Path, digest: str) -> Engine:
        return create_engine(
            self.settings.engine,
            mode=self.settings.mode,
            checkpoint=checkpoint,
            precision=self.settings.precision,
            device=self.settings.device or launch.device,
            threads=launch.threads,
            batch_size=self.settings.batch_size,
            checkpoint_sha256=digest,
        )

    def _announce(
        self, launch: Launch, engine: Engine, checkpoint: Path, digest: str, plan: Plan, index: Index
    ) -> None:
        settings = self.settings
        recipe = settings.preparation.recipe
        self.console.line(
            f"ecgfounder {__version__}: recipe {recipe.name} v{recipe.version}, mode {settings.mode}, "
            f"checkpoint {checkpoint.name} (sha256 {digest[:12]}), engine {engine.describe()}"
        )
        share = "" if launch.world_size == 1 else f" (this is process 1 of {launch.world_size})"
        self.console.line(
            f"{index.n_records:,} recordings in {settings.dataset}; to do: {plan.n_todo:,}{share}, "
            f"done before: {plan.done:,}, failed before: {plan.failed:,}"
        )
        for number, what in (
            (plan.changed, "changed since they were embedded and are done again"),
            (plan.missing, "lost their outputs and are done again"),
            (plan.gone, "are in the output folder and no longer in the dataset; their outputs are left alone"),
        ):
            if number:
                self.console.line(f"{number:,} recordings {what}")

    def _write_run_json(
        self, launch: Launch, engine: Engine, checkpoint: Path, digest: str, cohort: Cohort, outcome: str
    ) -> None:
        settings = self.settings
        if settings.shard[1] > 1 and self.folder.read() is not None:
            return  # another shard has written it, with the same fingerprint
        self.folder.remove_tables()
        self.folder.write(
            {
                "program": {"name": "ecgfounder", "version": __version__},
                "outcome": outcome,
                "started": now(),
                "ended": None,
                "fingerprint": settings.fingerprint(digest),
                "settings": {
                    "dataset": os.path.abspath(settings.dataset)
                    if os.path.exists(settings.dataset)
                    else settings.dataset,
                    "split": settings.split,
                    "data_dir": self.naming.data_dir,
                    "path_column": settings.path_column,
                    "id_column": settings.id_column,
                    "keep_columns": list(settings.keep_columns),
                    "batch_size": settings.batch_size,
                    "num_workers": settings.num_workers,
                    "shards": settings.shard[1],
                },
                "checkpoint": {"name": checkpoint.name, "sha256": digest},
                "engine": {"name": engine.name, "precision": engine.precision, "device": engine.device},
                "processes": launch.world_size,
                "dataset_fingerprint": cohort.fingerprint,
                "versions": versions(),
            }
        )

    def _process(
        self, launch: Launch, stamp: int, cohort: Cohort, index: Index, plan: Plan, pool: ReaderPool, engine: Engine
    ) -> Recorder:
        head = diagnostic_head(engine.head, self.settings.mode) if self.settings.predictions else None
        name = part_name(stamp, self.settings.shard, launch.rank, launch.world_size)
        ledger = LedgerWriter(
            self.folder.ledger / name, {"host": socket.gethostname(), "pid": os.getpid(), "started": now()}
        )
        recorder = Recorder(self._sink(name), ledger, self.folder.output_dir, self.settings)

        def finish(group: Sequence[Finished]) -> None:
            recorder.finish(group)
            self.console.progress(recorder.done, recorder.failed, plan.n_todo)

        pipeline = Pipeline(
            pool,
            engine,
            finish,
            self.settings.batch_size,
            view_of(self.settings.pooling, head),
            self.interruption,
        )
        try:
            pipeline.run(self._jobs(cohort, index, plan, recorder))
            recorder.close()
            outcome = "interrupted" if self.interruption.requested else "complete"
            ledger.end({"outcome": outcome, "done": recorder.done, "failed": recorder.failed})
        except BaseException:
            ledger.abandon()
            raise
        return recorder

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

    def _jobs(self, cohort: Cohort, index: Index, plan: Plan, recorder: Recorder) -> Iterator[Job]:
        """The records to do, in the dataset's order; one whose output cannot be named fails here."""
        data_dir = self.naming.data_dir
        given = np.zeros(len(index), dtype=np.bool_)
        for ticket, record in indexed_records(cohort, index, data_dir):
            if not plan.todo[ticket] or given[ticket]:
                continue
            given[ticket] = True
            identity = record_identity(record.path, data_dir)
            shown = printable(identity if record.identifier is None else record.identifier)
            title = os.path.basename(record.path) if record.identifier is None else record.identifier
            task = _Task(path_key(identity), shown, title, "", bool(plan.had_output[ticket]))
            recorder.tasks[ticket] = task
            try:
                if len(os.fsencode(record.path)) > MAX_PATH_BYTES:
                    raise PrepareError(f"the path is longer than {MAX_PATH_BYTES} bytes, which no system opens")
                task.output = output_name(record, self.naming) if self._named else ""
            except PrepareError as error:
                recorder.refuse(ticket, error)
                continue
            yield Job(ticket, absolute_path(record.path, data_dir))

    def _conclude(
        self,
        launch: Launch,
        stamp: int,
        cohort: Cohort,
        plan: Plan,
        recorder: Recorder,
        engine: Engine,
        began: float,
    ) -> Summary:
        """The main process of a whole run waits for the others and writes the tables; everyone gives a summary."""
        outcome, tally = "incomplete", None
        if self.interruption.requested:
            outcome = "interrupted"
        elif launch.is_main and self.settings.shard[1] == 1 and self._others_are_done(launch, stamp):
            tally = finish_books(
                self.folder, cohort, self.naming.data_dir, self.settings.keep_columns, self.settings.fingerprint("")
            )
            outcome = "complete" if tally.pending == 0 else "incomplete"
        if launch.is_main and self.settings.shard[1] == 1:
            close_run_json(self.folder, outcome, tally)
        return Summary(
            outcome,
            tally,
            plan,
            processed=recorder.done + recorder.failed,
            failed_now=recorder.failed,
            seconds=time.monotonic() - began,
            engine=engine.describe(),
            samples_per_pass=engine.samples_per_pass,
            signal=self.interruption.signal,
        )

    def _others_are_done(self, launch: Launch, stamp: int) -> bool:
        """Wait for the other processes' last lines in the ledger; False if one of this machine died without writing it."""
        for rank in range(1, launch.world_size):
            part = self.folder.ledger / part_name(stamp, self.settings.shard, rank, launch.world_size)
            while True:
                header, has_ended = part_status(part)
                if has_ended:
                    break
                if self.interruption.requested:
                    return False
                if header is not None and not process_is_alive(header):
                    self.console.line(
                        f"process {rank + 1} of {launch.world_size} died; the same command does what it left"
                    )
                    return False
                time.sleep(0.5)
        return True


def close_run_json(folder: RunFolder, outcome: str, tally: Tally | None) -> None:
    """Write what came of the run."""
    facts = folder.read() or {}
    folder.write({**facts, "outcome": outcome, "ended": now(), "records": tally.as_dict() if tally else None})


def finish_books(
    folder: RunFolder, cohort: Cohort, data_dir: str, keep_columns: Sequence[str], fingerprint: Mapping[str, Any]
) -> Tally:
    """Bring shards and ledger together and write the manifest and the failures; no process may be writing."""
    state = tidy_shards(folder, compacting=True)
    predictions = statements = None
    if fingerprint["predictions"]:
        labels = bundle_of(fingerprint["preparation"]["mode"]).labels()
        predictions = PredictionsTable(folder.path / "predictions.parquet", labels)
    if fingerprint["statements"]:
        statements = StatementsTable(folder.path / "statements.parquet")
    tables: list[Account] = [table for table in (predictions, statements) if table is not None]
    tally = write_manifest(cohort, state, data_dir, keep_columns, folder.manifest, folder.failures, tables)
    if predictions is not None:
        predictions.close()
        tally.likely = predictions.likely
    if statements is not None:
        statements.close()
    return tally


def tidy_shards(folder: RunFolder, *, compacting: bool) -> LedgerState:
    """Remove shards that were never committed and, `compacting`, rows that later ones replaced; the ledger's state."""
    state = read_ledger(folder.ledger)
    if state.shards or any(folder.output_dir.glob("*.parquet")):
        from ecgfounder.sinks.parquet import compact, remove_orphans

        remove_orphans(folder.output_dir, state.committed)
        if compacting:
            compact(folder.output_dir, folder.scratch, state)
    return state


def now() -> str:
    """This moment in UTC, as it stands in the books."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    found = {"python": platform.python_version()}
    for package in ("numpy", "scipy", "lxml", "torch", "onnxruntime", "accelerate", "datasets", "orjson", "pyarrow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
