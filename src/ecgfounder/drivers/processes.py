"""Read and prepare files in worker processes.

In: an iterator of jobs. Out: events, in the order in which files are ready: `Opened`, its `Input`s, `Failed` or `Unread`. A
worker that dies or hangs is replaced, and its current job is recorded as failed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from ecgfounder.drivers.growth import Growth
from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.drivers.memory import Memory
from ecgfounder.drivers.nursery import Forked, Nursery
from ecgfounder.drivers.ring import Counts, Ring, make_ring
from ecgfounder.drivers.wire import Asked, Block, Inbox, Message, Rows, serve
from ecgfounder.errors import ReadError, RunError
from ecgfounder.machine import AwakeClock, return_freed_memory
from ecgfounder.stages.read import Event, Failed, Idle, Input, Inputs, Job, Opened, ReadTask
from ecgfounder.stages.upcoming import JOBS_UPCOMING
from ecgfounder.storage import is_url

JOBS_AHEAD = (2, 32)
"""Jobs that a worker holds: the current one and the next, so that it never waits for the main process; more if they are short."""


ROWS_TOGETHER = 8
"""Inputs that a worker puts together for a run: a batch of the engines on a CPU, and a part of one on a GPU."""


AHEAD_SECONDS = 0.02
"""The work that a worker holds beyond two jobs: so little that no other worker waits for it at the end."""


START_TIMEOUT = 300.0
"""Time limit for a worker's start, in seconds; importing from a busy network drive is slow."""


LOOK_SECONDS = 0.25
"""Seconds between two checks of workers that send nothing."""


_STARTS_THAT_MAY_FAIL = 3


_THREADS = "OPENBLAS_NUM_THREADS"


@dataclass(eq=False)
class _Worker:
    """A worker process, and the main process's state of it.

    Attributes
    ----------
    shared : Ring or Counts
        Where it counts the jobs that it has begun, and says whether it waits for an object store; that time is not a file's.
    seen : int
        Number of jobs that it had begun when it was last looked at.
    ended : int
        Number of jobs that have ended.
    jobs : deque of Job
        Jobs that it has and that have not ended. Of those that it has begun, it has yet to tell of all but the last, which may be
        in progress.
    since : float
        Time of its last message, or since when it has begun no other job, by the pool's clock (s).
    ready : bool
        Whether it has started.
    missing : int
        Number of inputs of the current job that are still to come.
    """

    process: BaseProcess | Forked
    pipe: Connection
    shared: Ring | Counts
    ring: Ring | None
    inbox: Inbox
    seen: int = 0
    ended: int = 0
    jobs: deque[Job] = field(default_factory=deque)
    since: float = 0.0
    ready: bool = False
    missing: int = 0

    def take_lost(self) -> Job | None:
        """Remove the job that it may have died of, the last one that it has begun and not told of."""
        n_begun = int(self.shared.begun.value) - self.ended
        if not 0 < n_begun <= len(self.jobs):
            return None
        lost = self.jobs[n_begun - 1]
        del self.jobs[n_begun - 1]
        return lost


class ReaderPool:
    """Processes that read and prepare files; with `n_workers` 0 the caller's process does it.

    Parameters
    ----------
    task : ReadTask
        The settings for reading and preparing a path.
    n_workers : int
        Maximum number of processes.
    n_started : int, optional
        Number of processes started at the beginning; the number is doubled whenever the caller mostly waits for them, as long
        as that helps. The first costs a fifth of a core-second to start, others a tenth of that where they are forked. None
        starts all.
    timeout : float, default: 120.0
        Time limit for one file, in seconds, after which the file fails and its worker is replaced. Time in which this process
        was suspended, or the worker waited for an object store, does not count.
    memory : int, optional
        Bytes that the reading of large files may take in all processes together; a file that needs more is read while no other
        large one is. None for no limit.
    rows : int, default: 1
        Inputs of short jobs that a worker may put together, as a part of a batch.

    Attributes
    ----------
    waited : float
        Seconds that the caller has waited for files to be read.
    """

    def __init__(
        self,
        task: ReadTask,
        n_workers: int,
        *,
        n_started: int | None = None,
        timeout: float = 120.0,
        memory: int | None = None,
        rows: int = 1,
    ) -> None:
        self._task = task
        self._rows = rows
        self._n_workers = n_workers
        self._timeout = timeout
        self.waited = 0.0
        self._context = multiprocessing.get_context("spawn")
        self._failed_starts: set[object] = set()  # processes that died at their start
        self._stopping = False
        self._clock = AwakeClock(longest=4 * LOOK_SECONDS)
        self._growth = Growth()
        self._seconds = AHEAD_SECONDS  # that a job takes, on average
        self._is_elsewhere = False  # whether the last job's file is in a store elsewhere
        self._memory: Memory[_Worker] = Memory(sys.maxsize if memory is None else memory)
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._nurseries: list[Nursery] = []  # none or one
        # Without `close`, multiprocessing would wait for workers after it sent them a signal that they ignore.
        Finalize(self, _kill, (self._workers, self._nurseries), exitpriority=1)
        try:
            for _ in range(min(n_workers, n_started or n_workers)):
                self._start()
        except BaseException:
            self.close(patience=0)
            raise

    def limit(self, n_workers: int) -> None:
        """Start no more processes if there are as many as this."""
        self._n_workers = min(self._n_workers, n_workers)

    def stop_taking(self) -> None:
        """Take no more jobs; `events` ends when the current ones are done."""
        self._stopping = True

    def events(self, jobs: Iterator[Job]) -> Iterator[Event]:
        """Process the jobs; each gives `Opened` and its inputs, or `Failed`. A slow consumer slows the workers.

        The samples of an `Input` are valid until the next event; those of several `Inputs` until they are given back.
        """
        if not self._workers:
            asked: list[int] = []
            for job in self._expected(jobs):
                yield from self._timed(self._task.events(job, asked.append))
                if asked:
                    return_freed_memory()
                    asked.clear()
            return
        waiting: deque[Job] = deque()
        while True:
            self._assign(waiting, jobs)
            busy = [worker for worker in self._workers if worker.jobs and not self._is_held_back(worker)]
            if not busy and (self._stopping or not waiting):
                return
            self._grow()
            waits_since = time.monotonic()
            came = self._selector.select(timeout=LOOK_SECONDS)
            waited = time.monotonic() - waits_since
            self.waited += waited
            self._growth.waited += waited
            for key, _ in came:
                yield from self._receive(key.data, waiting)
            yield from self._give_up(waiting)
            if not came:
                yield Idle()

    def _expected(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """Jobs to do in this process; more of them are taken ahead if their files are in stores elsewhere."""
        taken: deque[Job] = deque()
        while not self._stopping:
            ahead = JOBS_UPCOMING if self._is_elsewhere else 1
            if len(taken) <= ahead // 2:
                more = list(islice(jobs, ahead - len(taken)))
                self._task.expect(more)
                taken.extend(more)
            if not taken:
                return
            self._is_elsewhere = is_url(taken[0].path)
            yield taken.popleft()

    def _timed(self, events: Iterator[Event]) -> Iterator[Event]:
        """Events from reading in this process."""
        while True:
            began = time.monotonic()
            event = next(events, None)
            self.waited += time.monotonic() - began
            if event is None:
                return
            yield event

    def close(self, patience: float = 2.0) -> None:
        """End the workers: idle and starting ones at once, others are killed after `patience` seconds."""
        for worker in self._workers:
            worker.pipe.close()  # an idle worker exits at the end of its pipe
            if worker.ring is not None:
                worker.ring.close()
        deadline = time.monotonic() + patience
        for worker in self._workers:
            _end(worker.process, max(0.0, deadline - time.monotonic()) if worker.ready else 0.0)
        self._workers.clear()
        while self._nurseries:
            self._nurseries.pop().close(patience=1.0)
        self._selector.close()

    def _start(self) -> None:
        """Start a process and add it to the workers; none is left if a signal comes in between."""
        ours, theirs = self._context.Pipe(duplex=True)
        shared = make_ring(self._rows) or self._counts()
        ring = shared if isinstance(shared, Ring) else None
        process = self._process(theirs, shared)
        resource_tracker.ensure_running()  # it would unblock the signals below
        # The new process inherits the blocked signals, so that a signal to all processes of a job cannot end it before
        # `serve` ignores the signal.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            with _without_main_module(self._task), _with_one_thread():
                process.start()
            theirs.close()
            worker = _Worker(process, ours, shared, ring, Inbox(ours, ring))
            self._selector.register(ours, selectors.EVENT_READ, worker)
            self._workers.append(worker)
        except BaseException:  # also that of a signal which another thread has received
            self._workers[:] = [each for each in self._workers if each.process is not process]
            with suppress(KeyError):
                self._selector.unregister(ours)
            if isinstance(process, Forked) or process.pid is not None:
                process.kill()
                process.join()
            if ring is not None:
                ring.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _process(self, pipe: Connection, shared: Ring | Counts) -> BaseProcess | Forked:
        """A process for a worker with these ends, not started."""
        if isinstance(shared, Counts) or self._n_workers == 1:  # a nursery would cost more than it saves
            return self._context.Process(
                target=serve, args=(pipe, self._task, shared, self._rows), name="ecgfounder-reader", daemon=True
            )
        if self._nurseries and not self._nurseries[0].is_usable:
            self._nurseries.pop().close()
        if not self._nurseries:
            self._nurseries.append(Nursery(self._context, self._task, self._rows))
        return Forked(self._nurseries[0], pipe, shared)

    def _counts(self) -> Counts:
        try:
            return Counts(self._context.RawValue("Q"), self._context.RawValue("B"))
        except OSError as error:
            raise RunError(
                f"The reading processes need a temporary folder for shared memory, and none can be used: {error}. Set TMPDIR to "
                "a folder with space, or set num_workers=0."
            ) from error

    def _assign(self, waiting: deque[Job], jobs: Iterator[Job]) -> None:
        """Give more jobs to workers that hold at most half of what they may; those that hold the fewest come first."""
        ahead = self._ahead
        needy = [worker for worker in self._workers if len(worker.jobs) <= ahead // 2]
        given: dict[int, list[Job]] = {}
        for depth in range(min((len(worker.jobs) for worker in needy), default=ahead), ahead):
            for place, worker in enumerate(needy):
                if len(worker.jobs) > depth:
                    continue
                job = self._next(waiting, jobs)
                if job is None:
                    break
                self._is_elsewhere = is_url(job.path)
                if not worker.jobs:
                    worker.since = self._clock.now()
                worker.jobs.append(job)
                given.setdefault(place, []).append(job)
        for place, some in given.items():
            with suppress(OSError):  # it died: `_receive` notices that from its pipe and handles its jobs
                needy[place].pipe.send_bytes(pickle.dumps(some))  # in half the time of `send`

    @property
    def _ahead(self) -> int:
        if self._is_elsewhere:
            return JOBS_UPCOMING
        least, most = JOBS_AHEAD
        return max(least, min(most, int(AHEAD_SECONDS / max(self._seconds, 1e-6))))

    def _grow(self) -> None:
        """Double the number of workers if all of them are busy and more would help."""
        room = self._n_workers - len(self._workers)
        if room <= 0 or self._stopping or self._memory.is_short:
            return
        if not all(worker.ready and len(worker.jobs) > self._ahead // 2 for worker in self._workers):
            self._growth.begin()
        elif self._growth.is_due():
            for _ in range(min(room, len(self._workers))):
                self._start()

    def _next(self, waiting: deque[Job], jobs: Iterator[Job]) -> Job | None:
        if self._stopping:
            return None
        return waiting.popleft() if waiting else next(jobs, None)

    def _receive(self, worker: _Worker, waiting: deque[Job]) -> Iterator[Event]:
        worker.since = self._clock.now()
        messages = worker.inbox.read()
        while True:
            try:
                message, block = next(messages)
            except StopIteration:
                worker.since = self._clock.now()  # the caller may have been slow
                return
            except (EOFError, OSError):
                yield from self._replace(worker, waiting, None)
                return
            yield from self._told(worker, message, block)

    def _told(self, worker: _Worker, message: Message, block: Block | None) -> Iterator[Event]:
        """The events of one message of a worker."""
        if isinstance(message, Asked):
            self._memory.ask(worker, message.need)
            self._grant()
            return
        if message is None:  # it has started
            worker.ready = True
            self._failed_starts.clear()
            self._growth.begin()  # excludes the time of its start
            return
        if isinstance(message, Rows):
            assert block is not None
            yield from self._inputs(worker, message, block)
            return
        if isinstance(message, Opened) and message.n_inputs:  # its inputs follow
            self._opened(worker, message)
        else:
            self._ended(worker)
        yield message

    def _inputs(self, worker: _Worker, rows: Rows, block: Block) -> Iterator[Event]:
        inputs = []
        for told, number in rows.inputs:
            job = worker.jobs[0]
            if told is not None:
                opened = told.opened(job)
                self._opened(worker, opened)
                yield opened
            inputs.append((job, number))
            worker.missing -= 1
            if worker.missing == 0:
                self._ended(worker)
        if len(inputs) == 1:
            yield Input(*inputs[0], block.samples[0])
            block.give_back()
        else:
            yield Inputs(tuple(inputs), *block)

    def _opened(self, worker: _Worker, opened: Opened) -> None:
        worker.missing = opened.n_inputs
        self._seconds += (sum(opened.seconds.values()) - self._seconds) / 8

    def _ended(self, worker: _Worker) -> None:
        """Note that a worker's first job has ended."""
        worker.missing = 0
        worker.jobs.popleft()
        worker.ended += 1
        self._growth.done += 1
        self._memory.release(worker)
        self._grant()

    def _is_held_back(self, worker: _Worker) -> bool:
        """Whether its job waits for memory that it gets no more, because no more jobs are begun."""
        return self._stopping and self._memory.is_at_the_start(worker)

    def _grant(self) -> None:
        """Tell workers whose job waited for memory to go on."""
        for worker in self._memory.granted(ending=self._stopping):
            worker.since = self._clock.now()
            with suppress(OSError):  # it died: `_receive` notices that from its pipe
                worker.pipe.send(None)

    def _give_up(self, waiting: deque[Job]) -> Iterator[Event]:
        now = self._clock.now()
        for worker in list(self._workers):
            begun = int(worker.shared.begun.value)
            if worker.shared.waits.value or begun != worker.seen:
                worker.seen = begun
                worker.since = now  # a store's own time limits end the waiting for it
            patience = self._timeout if worker.ready else max(self._timeout, START_TIMEOUT)
            # If the pipe has data, the worker does not hang; the main process was busy.
            late = worker.jobs and now - worker.since > patience and not self._memory.waits(worker)
            if late and not worker.pipe.poll():
                worker.process.kill()
                yield from self._replace(worker, waiting, f"reading took longer than {self._timeout:g} s")

    def _replace(self, worker: _Worker, waiting: deque[Job], reason: str | None) -> Iterator[Event]:
        """Replace a dead worker: its current job fails, jobs that it had not begun go to others."""
        self._selector.unregister(worker.pipe)
        worker.pipe.close()
        if worker.ring is not None:
            worker.ring.close()
        code = _end(worker.process)
        self._workers.remove(worker)
        self._memory.release(worker)
        self._grant()
        lost = worker.take_lost()
        waiting.extendleft(reversed(worker.jobs))
        if not worker.ready:
            self._failed_starts.add(worker.process.origin if isinstance(worker.process, Forked) else worker)
        starts_fail = len(self._failed_starts) >= _STARTS_THAT_MAY_FAIL
        if starts_fail and not any(each.ready for each in self._workers):
            refusal = worker.process.refusal if isinstance(worker.process, Forked) else ""
            raise RunError(
                f"Reading processes do not start ({refusal or _death(code)}); num_workers=0 shows the error."
            )
        if starts_fail:
            self._n_workers = len(self._workers)  # continue with the present workers
        elif not self._stopping:
            self._start()
        if lost is not None:
            yield Failed(lost, ReadError.__name__, reason or f"the reading process died ({_death(code)})")


@contextmanager
def _without_main_module(task: ReadTask) -> Iterator[None]:
    """Keep a new process from importing the user's main module, which costs time and may run the whole program again.

    If the task contains a class of that module (a custom filter of a recipe), the module is imported nevertheless.
    """
    main = sys.modules["__main__"]
    if b"__main__" in pickle.dumps(task):
        yield
        return
    hidden: dict[str, Any] = {name: vars(main).pop(name) for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    try:
        yield
    finally:
        del main.__spec__
        vars(main).update(hidden)


@contextmanager
def _with_one_thread() -> Iterator[None]:
    """Keep a new process from starting a thread of OpenBLAS for every core, each of which is busy for a while."""
    if _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_THREADS, None)  # two threads may do the same


def _kill(workers: list[_Worker], nurseries: list[Nursery]) -> None:
    for worker in workers:
        worker.process.kill()
    while nurseries:
        nurseries.pop().close()


def _end(process: BaseProcess | Forked, patience: float = 5.0) -> int | None:
    """Wait for a process that is about to end, kill it after `patience` seconds; returns its exit status."""
    process.join(patience)
    if process.is_alive():
        process.kill()
        process.join()
    code = process.exitcode
    with suppress(ValueError):  # its end was not seen, because SIGCHLD is ignored
        process.close()
    return code


def _death(code: int | None) -> str:
    if code is None:
        return "how is not known"
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit status {code}"
