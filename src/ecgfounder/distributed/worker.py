"""A worker of a distributed run: one engine and its own reading processes, kept from group to group.

In: a `Work`, then `Group`s. Out: for each an `Outcome`, when its outputs are written and its part of the ledger is published. The
files of the next group are read while the last records of a group are embedded and written.
"""

from __future__ import annotations

import atexit
import os
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder._version import __version__
from ecgfounder.distributed.checkpoint import checkpoint_here
from ecgfounder.distributed.work import Facts, Group, Outcome, Work
from ecgfounder.drivers.interruption import Interruption
from ecgfounder.drivers.local import Pipeline
from ecgfounder.drivers.processes import ROWS_TOGETHER, ReaderPool
from ecgfounder.engines import Engine, create_engine
from ecgfounder.engines.metered import MeteredEngine
from ecgfounder.engines.trial import refuse_overflow, synthetic_ecg
from ecgfounder.errors import OutOfMemoryError, RunError, SettingsError, StorageError
from ecgfounder.ledger.entry import Commitment, Entry, Line, PartEnd, PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.epochs import Epoch, is_visible
from ecgfounder.ledger.groups.hold import LEASES
from ecgfounder.ledger.groups.lease import LeaseSight
from ecgfounder.ledger.groups.publish import Lost, Undecided
from ecgfounder.ledger.groups.writer import GIVEN, GroupWriter
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.record import now
from ecgfounder.machine import usable_cores, usable_memory
from ecgfounder.sinks.sink import Sink
from ecgfounder.stages.collect import Finished
from ecgfounder.stages.embed import EmbedStage
from ecgfounder.stages.pooling import chosen_head
from ecgfounder.stages.read import Job
from ecgfounder.stages.record import Recorder
from ecgfounder.stages.trouble import StoreTrouble
from ecgfounder.storage import Location, is_url, require_folder

READING_SHARE = 0.25
"""Share of a machine's memory that reading large files may take by default."""

IN_HAND = 2
"""Groups in hand: one that is read, and one that is finished."""
LAST_SECONDS = 12.0
"""Time for the end of groups in hand when the driver is gone: a pipeline leaves what is in progress sooner."""

Array = npt.NDArray[np.float32]


class Worker:
    """One engine and its reading processes, for the groups of one attempt.

    Parameters
    ----------
    work : Work
        The attempt.
    pieces : iterable of bytes, optional
        The checkpoint's content, for a machine that cannot get it in another way.

    Raises
    ------
    RunError
        If this machine runs another version of the program, or does not see the output folder or the recordings.
    CheckpointError
        If its checkpoint is another one, or cannot be loaded.
    ecgfounder.distributed.checkpoint.CheckpointAbsent
        If the checkpoint must be sent.
    """

    def __init__(self, work: Work, pieces: Iterable[bytes] | None = None) -> None:
        refuse_elsewhere(work)
        self._work = work
        checkpoint = checkpoint_here(work.network, work.task.options, pieces)
        self._engine = _engine(work, checkpoint)
        head = chosen_head(work.predictions, self._engine.head)
        self._stage = EmbedStage.of(_Shared(self._engine), work.pooling, head)
        self._size = work.network.batch_size or self._engine.batch_size
        self.facts = Facts(
            host=socket.gethostname(),
            pid=os.getpid(),
            engine=self._engine.name,
            precision=self._engine.precision,
            device=self._engine.device,
            description=self._engine.describe(),
            batch_size=self._size,
        )
        self._interruption = Interruption()
        self._pool: ReaderPool | None = None
        self._asked: queue.Queue[tuple[Group, Future[Outcome]] | None] = queue.Queue()
        self._in_hand = threading.Semaphore(IN_HAND)
        self._finisher = ThreadPoolExecutor(1, thread_name_prefix="ecgfounder-finish")
        # Reading processes end with the thread that has started them: it lives as long as the worker.
        self._reader = threading.Thread(target=self._serve, name="ecgfounder-groups", daemon=True)
        leases = RunFolder(work.output_dir).run / LEASES
        self._sight = LeaseSight(leases, work.epoch.shard, intervals=work.intervals, ended=self.stop)
        self._reader.start()

    def submit(self, group: Group) -> Future[Outcome]:
        """Do a group, after those that were submitted before."""
        result: Future[Outcome] = Future()
        self._asked.put((group, result))
        return result

    def stop(self) -> None:
        """Take no more records: what is in progress is finished and published, the rest is left."""
        self._interruption.request(0)

    def outlive(self) -> None:
        """Return when the driver is gone, and what was in hand is published or left, or has had time enough."""
        self._sight.over.wait()
        deadline = time.monotonic() + LAST_SECONDS
        for _ in range(IN_HAND):
            self._in_hand.acquire(timeout=max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """End the reading processes and free the network's memory, after the groups that were submitted."""
        self._asked.put(None)
        self._reader.join()
        self._finisher.shutdown()
        self._sight.close()
        self._engine.close()

    # --- the thread that owns the reading processes --------------------------------------------------------------------

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            group, result = asked
            self._in_hand.acquire()
            try:
                attempt = self._read(group)
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                self._in_hand.release()
                self._end_readers()
                result.set_exception(error)
                continue
            self._finisher.submit(self._finish, attempt, result)
        self._end_readers()

    def _read(self, group: Group) -> _Attempt:
        attempt = _Attempt(self._work, group, self._sight.check, self.facts, self._takes_synthetic)
        if self._pool is None:
            self._pool = self._new_pool()
        attempt.pipeline = Pipeline(
            self._pool, self._stage, attempt.finish, self._size, self._interruption, trouble=attempt.trouble
        )
        if group.is_trial and not group.jobs:
            self._stage.network.embed(self._synthetic)
        attempt.pipeline.read(self._taken(group))
        if attempt.trouble.reason is not None or attempt.pipeline.is_abandoned or self._interruption.requested:
            self._end_readers()  # they may still hold jobs of this group
        return attempt

    @property
    def _synthetic(self) -> Array:
        return synthetic_ecg(self._engine.in_channels)[None]

    def _takes_synthetic(self) -> bool:
        """Whether the device's memory suffices for a synthetic recording of 10 s."""
        try:
            self._stage.network.embed(self._synthetic)
        except OutOfMemoryError:
            return False
        return True

    def _taken(self, group: Group) -> Iterator[Job]:
        """The group's jobs, until its time is over or no more are wanted."""
        began = time.monotonic()
        for job in group.jobs:
            if self._interruption.requested or time.monotonic() - began > self._work.seconds:
                return
            yield job

    def _finish(self, attempt: _Attempt, result: Future[Outcome]) -> None:
        try:
            outcome = attempt.end()
            error = self._engine.relative_error if isinstance(self._engine, MeteredEngine) else None
            result.set_result(replace(outcome, samples_per_pass=self._engine.samples_per_pass, relative_error=error))
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            result.set_exception(error)
        finally:
            self._in_hand.release()

    def _new_pool(self) -> ReaderPool:
        work = self._work
        memory = usable_memory() * READING_SHARE if work.read_memory is None else work.read_memory * (1 << 30)
        return ReaderPool(
            work.task,
            work.num_workers,
            n_started=1,
            timeout=work.read_timeout,
            memory=int(memory * work.share),
            rows=min(self._size, ROWS_TOGETHER),
        )

    def _end_readers(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


class _Shared:
    """An engine for the threads of two pipelines: as many calls at once as it has threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.threads = engine.threads
        self._free = threading.Semaphore(engine.threads)

    def embed(self, batch: Array) -> Array:
        with self._free:
            return self._engine.embed(batch)

    def means(self, batch: Array) -> Array:
        with self._free:
            return self._engine.means(batch)

    def empty(self, shape: tuple[int, ...]) -> Array:
        return self._engine.empty(shape)


class _GroupPart(GroupWriter):
    """The part of one group, with its counts."""

    def __init__(self, ledger: Location, epoch: Epoch, check: Callable[[], None], number: int) -> None:
        header = PartHeader(**own_name(), started=now())
        super().__init__(ledger, epoch, header, check, iter((number,)), bounds=GIVEN)
        self.shards: list[str] = []
        self.entries: list[Entry] = []

    def append(self, lines: Sequence[Line]) -> None:
        super().append(lines)
        self.shards += [line.shard for line in lines if isinstance(line, Commitment)]
        self.entries += [line for line in lines if isinstance(line, Entry)]


class _Attempt:
    """One attempt at a group."""

    pipeline: Pipeline

    def __init__(
        self, work: Work, group: Group, check: Callable[[], None], facts: Facts, takes_synthetic: Callable[[], bool]
    ) -> None:
        self._work = work
        self._takes_synthetic = takes_synthetic
        self._too_large: list[Finished] = []
        self._group = group
        self._facts = facts
        self.trouble = StoreTrouble(work.task.options)
        self._part = _GroupPart(RunFolder(work.output_dir).ledger, work.epoch, check, group.number)
        self._recorder = Recorder(sink_of(work, group.number), self._part)

    def finish(self, finished: Sequence[Finished]) -> None:
        """Called with finished records, as they come."""
        if not self._group.is_trial:
            self._too_large += [each for each in finished if each.kind == OutOfMemoryError.__name__]
            self._recorder.finish([each for each in finished if each.kind != OutOfMemoryError.__name__])

    def _judge_too_large(self) -> None:
        """Let recordings fail for which the memory of a second device did not suffice, unless it does for none."""
        if not self._too_large:
            return
        if not self._takes_synthetic():
            self.trouble.end(
                f"{self._facts.device} has not enough memory for a recording of 10 s: {self._too_large[0].reason}"
            )
        elif self._group.losses:
            self._recorder.finish(self._too_large)

    def end(self) -> Outcome:
        """Wait for the last records, and publish the part."""
        outcome = Outcome(number=self._group.number, facts=self._facts)
        try:
            self.pipeline.complete()
            self._judge_too_large()
            self._recorder.close()
            if self._group.is_trial:
                return outcome
            entries = self._part.entries
            if entries:
                statuses = [entry.status for entry in entries]
                done, failed = statuses.count("done"), statuses.count("failed")
                self._part.end(PartEnd(outcome="", done=done, failed=failed))
        except Lost:
            if self._part.shards:
                self._work.output_dir.delete(self._part.shards)
            return replace(outcome, lost=True)
        except Undecided as error:
            return replace(outcome, undecided=True, trouble=str(error), left=self._places())
        except (StorageError, OSError, RunError) as error:
            return replace(outcome, trouble=str(error), left=self._places())
        written = {int(entry.key, 16) for entry in entries}
        reasons = Counter(str(entry.error) for entry in entries if entry.status == "failed")
        good = {int(entry.key, 16) for entry in entries if entry.status == "done"}
        return replace(
            outcome,
            published=bool(entries),
            done=len(entries) - reasons.total(),
            failed=reasons.total(),
            reasons=reasons,
            seconds=_seconds(entries),
            slowest=self.pipeline.slowest if self.pipeline.seconds else None,
            left=tuple(job.place for job in self._group.jobs if job.key not in written),
            too_large=tuple(each.job.place for each in self._too_large if each.job.key not in written),
            trouble=self.trouble.reason,
            obsolete=tuple(self._recorder.take_obsolete()),
            good=next((job.place for job in self._group.jobs if job.key in good), None),
        )

    def _places(self) -> tuple[int, ...]:
        return tuple(job.place for job in self._group.jobs)


def _seconds(entries: Sequence[Entry]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(entry.seconds)
    return dict(total)


def _engine(work: Work, checkpoint: Path) -> Engine:
    """The engine; one of lower precision is compared with float32 on the worker's first recordings."""
    network = work.network
    threads = work.cores or max(1, int(usable_cores() * work.share))

    def create(precision: str, compiled: bool) -> Engine:
        return create_engine(
            network.engine,
            mode=network.mode,
            checkpoint=checkpoint,
            precision=precision,
            device=network.device,
            threads=threads,
            batch_size=network.batch_size,
            checkpoint_sha256=network.sha256,
            compiled=compiled,
        )

    engine = create(network.precision, network.compiled)
    if not network.compiled:
        refuse_overflow(engine, os.path.basename(network.path))
    return engine if network.precision == "float32" else MeteredEngine(engine, create("float32", False))


def sink_of(work: Work, number: int) -> Sink:
    """The sink of one attempt at a group: JSON under final names, Parquet shards under names of this attempt alone."""
    folder = RunFolder(work.output_dir)
    if work.format == "json":
        from ecgfounder.sinks.json import JsonSink

        if not folder.is_remote:
            return JsonSink(folder.output_dir.path, folder.scratch)
        from ecgfounder.sinks.objects import ObjectSink

        return ObjectSink(folder.output_dir, JsonSink)
    options = {
        "prefix": f"{work.epoch.prefix}-group{number:06d}",
        "shard_size": work.shard_size,
        "dtype": work.dtype,
        "record_column": work.record_column,
    }
    if not folder.is_remote:
        from ecgfounder.sinks.parquet import ParquetSink, attempt_suffix

        return ParquetSink(folder.output_dir.path, folder.scratch, suffix=attempt_suffix(), **options)
    from ecgfounder.sinks.objects import ParquetObjectSink

    return ParquetObjectSink(folder.output_dir, **options)


def refuse_elsewhere(work: Work) -> None:
    """Refuse to work on a machine that has another version of the program, or does not see the run's folders.

    Raises
    ------
    RunError
        The message names the machine.
    """
    here = socket.gethostname()
    if work.version != __version__:
        raise RunError(
            f"{here} has version {__version__} of ecgfounder, and the driver version {work.version}: install the same version "
            "on all machines"
        )
    epoch = work.epoch
    if not is_visible(RunFolder(work.output_dir).run, epoch):
        raise RunError(
            f"{here} does not see the driver's output folder at {work.output_dir}: it must be a folder that all machines "
            "share, under the same path, or an object store"
        )
    if not is_url(work.data_dir):
        try:
            require_folder(work.data_dir, "data_dir", work.task.options)
        except SettingsError as error:
            raise RunError(f"{here} does not see the recordings: {error}") from error


def open_worker(work: Work, pieces: Iterable[bytes] | None, share: float) -> Worker:
    """A worker that has this share of its machine."""
    return Worker(replace(work, share=share), pieces)


# --- for engines that call a plain function ----------------------------------------------------------------------------

_worker: tuple[str, Worker] | None = None
_calls = threading.Lock()


def do_group(work: Work, group: Group) -> Outcome:
    """Embed a group of records and publish its part of the ledger, in any process on any machine.

    It may be called several times for the same group, also at the same time (retries, speculative execution): one attempt
    counts, and the others remove what they wrote. The worker that it opens is kept for the next call in this process.

    Parameters
    ----------
    work : Work
        The attempt.
    group : Group
        The records.

    Returns
    -------
    Outcome
        For the driver, which hands records that were left to other groups.

    Raises
    ------
    RunError, CheckpointError
        If this machine cannot do the work; as for `Worker`.
    """
    global _worker
    with _calls:
        key = f"{os.getpid()}-{work.epoch.token}"
        if _worker is None or _worker[0] != key:
            if _worker is not None and _worker[0].startswith(f"{os.getpid()}-"):
                _worker[1].close()
            _worker = (key, Worker(work))
            atexit.register(_worker[1].stop)
        worker = _worker[1]
    return worker.submit(group).result()
