"""Reading and preparing in processes of our own, each with a known path in hand.

In: an iterator of jobs (a ticket and a path). Out: events, in the order in which files get ready: `Opened`, its `Input`s, or
`Failed`. A worker that dies or hangs is replaced, and the path that it had in hand is the one recorded as failed.
"""

from __future__ import annotations

import ctypes
import hashlib
import multiprocessing
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ECGFounderError, PrepareError, ReadError, RunError
from ecgfounder.memory import keep_freed_memory
from ecgfounder.naming import printable
from ecgfounder.preprocess import Preparation, Signal, prepare
from ecgfounder.readers import make_source, read_source, source_statements
from ecgfounder.readers.source import Hints, Source, open_regular

JOBS_AHEAD = 2
"""Jobs that a worker holds: the one in hand and the next, so that it never waits for the main process."""

START_TIMEOUT = 300.0
"""Seconds that a worker may take to start; importing from a busy network drive is slow, waiting for ever is worse."""

GROWTH_SECONDS = 0.5
"""How long workers are watched before it is decided whether more are started."""
GROWTH_PAYS = 1.2
"""More workers were worth it if they did so many times as many jobs as those before them."""

_STARTS_THAT_MAY_FAIL = 3
_MAIN_PROCESS_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Job:
    """One file to read; `ticket` is the caller's and comes back with every event."""

    ticket: int
    path: str


@dataclass(frozen=True)
class Opened:
    """A file that was read and prepared; `n_inputs` inputs follow. `facts` are for the ledger."""

    ticket: int
    facts: dict[str, Any]
    outer_shape: tuple[int, ...]
    n_inputs: int


@dataclass(frozen=True)
class Input:
    """One network input of an opened file: float32 [C, L]."""

    ticket: int
    number: int
    data: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Failed:
    """A file that gave no inputs, or not all of them; `kind` is the error's class name."""

    ticket: int
    facts: dict[str, Any]
    kind: str
    reason: str


@dataclass(frozen=True)
class Idle:
    """Nothing came for a while; lets the caller look after what waits."""


Event = Opened | Input | Failed | Idle


@dataclass(frozen=True)
class ReadTask:
    """How a path becomes a signal; sent to every worker once."""

    preparation: Preparation
    reader: str = "auto"
    hints: Hints = field(default_factory=Hints)
    statements: bool = False

    def events(self, job: Job) -> Iterator[Event]:
        """Read and prepare one file; never raises for what is wrong with the file."""
        facts: dict[str, Any] = {}
        try:
            signal_ = self._signal(job.path, facts)
            yield Opened(job.ticket, facts, signal_.outer_shape, len(signal_.inputs))
            for number, data in enumerate(signal_.inputs):
                yield Input(job.ticket, number, data)
        except ECGFounderError as error:
            yield Failed(job.ticket, facts, type(error).__name__, str(error))
        except MemoryError:
            yield Failed(job.ticket, facts, PrepareError.__name__, "needs more memory than there is")
        except Exception as error:  # noqa: BLE001 - a slip of ours or a library's concerns this file, not the run
            # Its message is left out: it may quote the file.
            yield Failed(job.ticket, facts, PrepareError.__name__, f"cannot be prepared ({type(error).__name__})")

    def _signal(self, path: str, facts: dict[str, Any]) -> Signal:
        began = time.perf_counter()
        source = make_source(path, self.hints)
        recording = read_source(source, reader=self.reader)
        facts |= identity_of(source)
        facts |= {
            "format": recording.source_format,
            "sampling_rate": recording.sampling_rate,
            "n_samples": recording.n_samples,
            "device": dict(recording.meta),
        }
        if self.statements:
            stated = source_statements(source)
            facts["statements"] = None if stated is None else asdict(stated)
        hashed = time.perf_counter()
        prepared = prepare(recording, self.preparation)
        facts |= {"leads": list(prepared.leads), "flags": list(prepared.flags), "starts": list(prepared.starts)}
        facts["seconds"] = {"read": hashed - began, "prepare": time.perf_counter() - hashed}
        return prepared


def identity_of(source: Source) -> dict[str, Any]:
    """Size in bytes, latest modification time in ns and SHA-256 of the files that one recording was read from.

    A recording inside a container has no hash: its container can be many gigabytes, and its time decides.
    """
    digest = hashlib.sha256()
    size, modified = 0, 0
    for path in source.files:
        if path == source.path and source.small is not None:
            status, content = source.small  # what was read, whatever is there by now
            whole = hashlib.sha256(content)
        else:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                whole = hashlib.file_digest(file, "sha256") if source.member is None else hashlib.sha256()
        size, modified = size + status.st_size, max(modified, status.st_mtime_ns)
        digest.update(whole.digest())
    identity: dict[str, Any] = {"size": size, "mtime_ns": modified}
    identity["sha256"] = digest.hexdigest() if source.member is None else None
    if source.companions:
        identity["companions"] = [_companion_name(source, path) for path in source.companions]
    return identity


def _companion_name(source: Source, path: Path) -> str:
    """A companion's place beside its recording; '*' stands for the recording's own name, which need not be told twice."""
    name, stem = printable(os.path.relpath(path, source.path.parent)), printable(source.path.stem)
    if name.startswith(stem):
        return f"*{name.removeprefix(stem)}"
    return name if not name.startswith("*") else f"./{name}"


def companions_of(source: Source, names: Iterable[str]) -> list[Path]:
    """The files that an identity's `companions` name."""
    folder = source.path.parent
    return [folder / (f"{source.path.stem}{name[1:]}" if name.startswith("*") else name) for name in names]


@dataclass
class _Worker:
    """A process, and what the main process knows of it.

    Attributes
    ----------
    begun : jobs that it has taken up, counted by itself in memory that both see; ended : those that all is known of.
    jobs : what it was given and has not ended; the first one is in its hands if it has begun more than ended.
    since : when it last gave a sign of life (s); ready : whether it has come up.
    missing : inputs of the job in its hands that are still to come.
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


@dataclass
class _Growth:
    """Whether more workers would help: those that there are keep the caller waiting, and the last ones paid."""

    since: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    done: int = 0
    rate: float = 0.0  # jobs a second before the last workers came

    def begin(self) -> None:
        """Watch from now on."""
        self.since, self.waited, self.done = time.monotonic(), 0.0, 0

    def is_due(self) -> bool:
        """The verdict, once workers were watched for long enough; they are watched anew from then on."""
        took = time.monotonic() - self.since
        if took < GROWTH_SECONDS:
            return False
        rate = self.done / took
        due = 2 * self.waited > took and (rate >= GROWTH_PAYS * self.rate or not self.done)
        if due:
            self.rate = rate
        elif rate < self.rate:
            self.rate = 0.0  # fewer than with fewer workers: the files are others now, and what was seen says nothing
        self.begin()
        return due


class ReaderPool:
    """Processes that read and prepare; with `n_workers` 0 the caller's own process does it.

    Parameters
    ----------
    task : what is done with a path.
    n_workers : how many processes at most.
    n_started : how many of them are started at once; twice as many follow each time that the caller mostly waits for
        them, as long as that helps. A process costs a third of a second of a core to start. None starts all.
    timeout : seconds after which one file is given up and its worker replaced.

    Attributes
    ----------
    waited : seconds that the caller has waited for something to be read.
    """

    def __init__(self, task: ReadTask, n_workers: int, *, n_started: int | None = None, timeout: float = 120.0) -> None:
        self._task = task
        self._n_workers = n_workers
        self._timeout = timeout
        self.waited = 0.0
        self._context = multiprocessing.get_context("spawn")
        self._failed_starts = 0
        self._stopping = False
        self._growth = _Growth()
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
            came = self._selector.select(timeout=0.25)
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
        begun = self._context.RawValue("Q")
        process = self._context.Process(
            target=_serve, args=(theirs, self._task, begun), name="ecgfounder-reader", daemon=True
        )
        resource_tracker.ensure_running()  # it would lift the block below
        # The new process inherits the block, so that a signal to all processes of a job cannot end it before `_serve`
        # ignores it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _MAIN_PROCESS_SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        worker = _Worker(process, ours, begun)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _assign(self, waiting: deque[Job], jobs: Iterator[Job]) -> None:
        for depth in range(JOBS_AHEAD):
            for worker in self._workers:
                if len(worker.jobs) > depth:
                    continue
                job = self._next(waiting, jobs)
                if job is None:
                    return
                if not worker.jobs:
                    worker.since = time.monotonic()
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
        opened: Opened | None = None
        try:
            message = worker.pipe.recv()
            if isinstance(
                message, tuple
            ):  # `Opened` with the first input, number and shape of the input; samples follow
                opened, number, shape = message
                data = np.empty(shape, dtype=np.float32)
                _receive_into(data, worker.pipe)
        except (EOFError, OSError):
            yield from self._replace(worker, waiting, None)
            return
        worker.since = time.monotonic()
        if message is None:  # it is up
            worker.ready = True
            self._failed_starts = 0
            self._growth.begin()  # not to count how long its start took
            return
        ticket = worker.jobs[0].ticket
        if isinstance(message, tuple):
            worker.missing = (worker.missing if opened is None else opened.n_inputs) - 1
            events: list[Event] = [] if opened is None else [opened]
            events.append(Input(ticket, number, data))
        else:
            worker.missing = message.n_inputs if isinstance(message, Opened) else 0
            events = [message]
        if worker.missing == 0:
            worker.jobs.popleft()
            worker.ended += 1
            self._growth.done += 1
        yield from events
        worker.since = time.monotonic()  # the caller may have been slow

    def _give_up(self, waiting: deque[Job]) -> Iterator[Event]:
        now = time.monotonic()
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
            raise RunError(f"Reading processes do not start ({_death(code)}); --num_workers 0 shows the error.")
        if starts_fail:
            self._n_workers = len(self._workers)  # those that there are go on alone
        elif not self._stopping:
            self._workers.append(self._start())
        if lost is not None:
            yield Failed(lost.ticket, {}, ReadError.__name__, reason or f"the reading process died ({_death(code)})")


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


def _serve(pipe: Connection, task: ReadTask, begun: Any) -> None:
    """A worker's life: jobs in, events out, until the pipe ends.

    Signals are the main process's to handle: a scheduler sends SIGTERM to every process of a job, and a file must not be
    recorded as failed for that.
    """
    for number in _MAIN_PROCESS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MAIN_PROCESS_SIGNALS)
    _die_with_parent()
    keep_freed_memory()
    try:
        pipe.send(None)
        while True:
            job = pipe.recv()
            begun.value += 1
            _tell(task.events(job), pipe)
    except (EOFError, OSError):
        return  # the main process closed the pipe, or is gone


def _tell(events: Iterator[Event], pipe: Connection) -> None:
    """Send one job's events; `Opened` goes with the first input, as every message costs both sides time."""
    opened: Opened | None = None
    left = 0
    for event in events:
        if isinstance(event, Input):
            pipe.send((opened, event.number, event.data.shape))
            _send(event.data, pipe)
            opened = None
            left -= 1
            if left == 0:
                return  # the main process has ended the job with it
        elif isinstance(event, Opened) and event.n_inputs:
            opened, left = event, event.n_inputs
        else:
            if opened is not None:
                pipe.send(opened)
            pipe.send(event)


def _send(samples: npt.NDArray[np.float32], pipe: Connection) -> None:
    """Samples as they lie in memory: a `Connection` would copy them on the way, here and at the other end."""
    left = np.ascontiguousarray(samples).data.cast("B")
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def _receive_into(samples: npt.NDArray[np.float32], pipe: Connection) -> None:
    """What `_send` sent, into an array of its shape."""
    left = samples.data.cast("B")
    while left:
        received = os.readv(pipe.fileno(), [left])
        if received == 0:
            raise EOFError
        left = left[received:]


def _die_with_parent() -> None:
    """On Linux, ask the kernel to end this process when the main process is killed, even in the middle of a file."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(parent_death_signal, signal.SIGKILL)
