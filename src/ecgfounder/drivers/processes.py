"""Reading and preparing in processes of our own, each with a known path in hand.

In: an iterator of jobs. Out: events, in the order in which files get ready: `Opened`, its `Input`s, or
`Failed`. A worker that dies or hangs is replaced, and the path that it had in hand is the one recorded as failed.
"""

from __future__ import annotations

import multiprocessing
import pickle
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ecgfounder.drivers.growth import Growth
from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.drivers.wire import receive, serve
from ecgfounder.errors import ReadError, RunError
from ecgfounder.machine import AwakeClock
from ecgfounder.stages.read import Event, Failed, Idle, Input, Job, Opened, ReadTask

JOBS_AHEAD = 2
"""Jobs that a worker holds: the one in hand and the next, so that it never waits for the main process."""


START_TIMEOUT = 300.0
"""Seconds that a worker may take to start; importing from a busy network drive is slow, waiting for ever is worse."""


LOOK_SECONDS = 0.25
"""Seconds between two looks at workers that send nothing."""


_STARTS_THAT_MAY_FAIL = 3


@dataclass
class _Worker:
    """A process, and what the main process knows of it.

    Attributes
    ----------
    begun : Any
        Jobs that it has taken up, counted by itself in memory that both see.
    ended : int
        Those that all is known of.
    jobs : deque of Job
        What it was given and has not ended; the first one is in its hands if it has begun more than ended.
    since : float
        When it last gave a sign of life, by the pool's clock (s).
    ready : bool
        Whether it has come up.
    missing : int
        Inputs of the job in its hands that are still to come.
    """

    process: BaseProcess
    pipe: Connection
    begun: Any
    ended: int = 0
    jobs: deque[Job] = field(default_factory=deque)
    since: float = 0.0
    ready: bool = False
    missing: int = 0

    @property
    def has_one_in_hand(self) -> bool:
        return bool(self.begun.value > self.ended)


class ReaderPool:
    """Processes that read and prepare; with `n_workers` 0 the caller's own process does it.

    Parameters
    ----------
    task : ReadTask
        What is done with a path.
    n_workers : int
        How many processes at most.
    n_started : int, optional
        How many of them are started at once; twice as many follow each time that the caller mostly waits for them, as
        long as that helps. A process costs a third of a second of a core to start. None starts all.
    timeout : float, default: 120.0
        Seconds after which one file is given up and its worker replaced. Those in which this process itself stood still do not
        count.

    Attributes
    ----------
    waited : float
        Seconds that the caller has waited for something to be read.
    """

    def __init__(self, task: ReadTask, n_workers: int, *, n_started: int | None = None, timeout: float = 120.0) -> None:
        self._task = task
        self._n_workers = n_workers
        self._timeout = timeout
        self.waited = 0.0
        self._context = multiprocessing.get_context("spawn")
        self._failed_starts = 0
        self._stopping = False
        self._clock = AwakeClock(longest=4 * LOOK_SECONDS)
        self._growth = Growth()
        self._selector = selectors.DefaultSelector()
        self._workers = [self._start() for _ in range(min(n_workers, n_started or n_workers))]

    def stop_taking(self) -> None:
        """Take no more jobs; `events` ends when those in hand are done."""
        self._stopping = True

    def events(self, jobs: Iterator[Job]) -> Iterator[Event]:
        """Work through the jobs; each gives `Opened` and its inputs, or `Failed`. Slow consumers slow the workers."""
        if not self._workers:
            while not self._stopping and (job := next(jobs, None)) is not None:
                yield from self._timed(self._task.events(job))
            return
        waiting: deque[Job] = deque()
        while True:
            self._assign(waiting, jobs)
            busy = [worker for worker in self._workers if worker.jobs]
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

    def _timed(self, events: Iterator[Event]) -> Iterator[Event]:
        """Events that this process makes itself."""
        while True:
            began = time.monotonic()
            event = next(events, None)
            self.waited += time.monotonic() - began
            if event is None:
                return
            yield event

    def close(self, patience: float = 2.0) -> None:
        """End the workers: those that are idle at once, others by force after `patience` seconds."""
        for worker in self._workers:
            worker.pipe.close()  # an idle worker sees the end of its pipe and leaves
        deadline = time.monotonic() + patience
        for worker in self._workers:
            _end(worker.process, max(0.0, deadline - time.monotonic()))
        self._workers = []
        self._selector.close()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe(duplex=True)
        begun = self._shared_counter()
        process = self._context.Process(
            target=serve, args=(theirs, self._task, begun), name="ecgfounder-reader", daemon=True
        )
        resource_tracker.ensure_running()  # it would lift the block below
        # The new process inherits the block, so that a signal to all processes of a job cannot end it before `serve`
        # ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
        try:
            with _without_main_module(self._task):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        worker = _Worker(process, ours, begun)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _shared_counter(self) -> Any:
        try:
            return self._context.RawValue("Q")
        except OSError as error:
            raise RunError(
                f"Reading processes need a temporary folder to share memory in, and there is none: {error}. Set TMPDIR to a "
                "folder with room; num_workers=0 reads without."
            ) from error

    def _assign(self, waiting: deque[Job], jobs: Iterator[Job]) -> None:
        for depth in range(JOBS_AHEAD):
            for worker in self._workers:
                if len(worker.jobs) > depth:
                    continue
                job = self._next(waiting, jobs)
                if job is None:
                    return
                if not worker.jobs:
                    worker.since = self._clock.now()
                worker.jobs.append(job)
                try:
                    worker.pipe.send(job)
                except OSError:
                    continue  # it died: its pipe reports that to `_receive`, which deals with its jobs

    def _grow(self) -> None:
        """Start as many workers again as there are, where all of them have their hands full and more would help."""
        room = self._n_workers - len(self._workers)
        if room <= 0 or self._stopping:
            return
        if not all(worker.ready and len(worker.jobs) == JOBS_AHEAD for worker in self._workers):
            self._growth.begin()
        elif self._growth.is_due():
            self._workers += [self._start() for _ in range(min(room, len(self._workers)))]

    def _next(self, waiting: deque[Job], jobs: Iterator[Job]) -> Job | None:
        if self._stopping:
            return None
        return waiting.popleft() if waiting else next(jobs, None)

    def _receive(self, worker: _Worker, waiting: deque[Job]) -> Iterator[Event]:
        try:
            events = receive(worker.pipe, worker.jobs[0] if worker.jobs else None)
        except (EOFError, OSError):
            yield from self._replace(worker, waiting, None)
            return
        worker.since = self._clock.now()
        if not events:  # it is up
            worker.ready = True
            self._failed_starts = 0
            self._growth.begin()  # not to count how long its start took
            return
        for event in events:
            if isinstance(event, Input):
                worker.missing -= 1
            else:
                worker.missing = event.n_inputs if isinstance(event, Opened) else 0
        if worker.missing == 0:
            worker.jobs.popleft()
            worker.ended += 1
            self._growth.done += 1
        yield from events
        worker.since = self._clock.now()  # the caller may have been slow

    def _give_up(self, waiting: deque[Job]) -> Iterator[Event]:
        now = self._clock.now()
        for worker in list(self._workers):
            patience = self._timeout if worker.ready else max(self._timeout, START_TIMEOUT)
            # A pipe with something in it is not a hung worker but a main process that was busy.
            if worker.jobs and now - worker.since > patience and not worker.pipe.poll():
                worker.process.kill()
                yield from self._replace(worker, waiting, f"reading took longer than {self._timeout:g} s")

    def _replace(self, worker: _Worker, waiting: deque[Job], reason: str | None) -> Iterator[Event]:
        """A worker is gone: the job that it had in hand fails, those that it had not begun go to others."""
        self._selector.unregister(worker.pipe)
        worker.pipe.close()
        code = _end(worker.process)
        self._workers.remove(worker)
        lost = worker.jobs.popleft() if worker.has_one_in_hand else None
        waiting.extendleft(reversed(worker.jobs))
        if not worker.ready:
            self._failed_starts += 1
        starts_fail = self._failed_starts >= _STARTS_THAT_MAY_FAIL
        if starts_fail and not any(each.ready for each in self._workers):
            raise RunError(f"Reading processes do not start ({_death(code)}); num_workers=0 shows the error.")
        if starts_fail:
            self._n_workers = len(self._workers)  # those that there are go on alone
        elif not self._stopping:
            self._workers.append(self._start())
        if lost is not None:
            yield Failed(lost, ReadError.__name__, reason or f"the reading process died ({_death(code)})")


@contextmanager
def _without_main_module(task: ReadTask) -> Iterator[None]:
    """Keep a new process from importing the user's program once more, which costs time and may start everything again.

    Where a class of that program travels with the task (a recipe's own filter), it is imported after all.
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


def _end(process: BaseProcess, patience: float = 5.0) -> int | None:
    """Wait for a process that is about to end, by force after `patience` seconds; gives its exit status."""
    process.join(patience)
    if process.is_alive():
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    return code


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return f"exit status {code}"
