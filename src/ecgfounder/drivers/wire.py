"""Both ends of the pipe between the main process and a reading process.

In and out: jobs in one direction, events and questions for memory in the other. Samples go through shared memory (`Ring`), or
through the pipe as raw memory. Inputs of several short jobs are sent in one message, because each costs time on both sides.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import select
import signal
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.drivers.ring import Counts, Ring
from ecgfounder.ecg.facts import Facts, Identity
from ecgfounder.machine import keep_freed_memory, return_freed_memory
from ecgfounder.preprocess.recipes import anywhere
from ecgfounder.stages.read import Event, Input, Job, Opened, ReadTask
from ecgfounder.storage import is_url
from ecgfounder.storage.connect import tell_waiting

_FRAME = struct.Struct("<?Q")  # whether it is `Rows` in msgpack, which is several times as fast as pickle; its length
_READ_BYTES = 1 << 16

KEPT_SECONDS = 0.05
"""Seconds after which inputs are sent that wait for others, when the next job has ended."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Asked:
    """A reading process waits until its job may take `need` bytes in all; None is the answer."""

    need: int


class Told(msgspec.Struct, frozen=True, array_like=True):
    """`Opened`, without its job, which the main process knows: the first one in progress."""

    n_inputs: int
    outer_shape: tuple[int, ...]
    facts: bytes  # in msgpack, and mostly those of the last file
    identity: Identity | None
    seconds: Mapping[str, float]

    @classmethod
    def of(cls, opened: Opened) -> Told:
        facts = _PACKER.encode(opened.facts)
        return cls(opened.n_inputs, opened.outer_shape, facts, opened.identity, opened.seconds)

    def opened(self, job: Job) -> Opened:
        facts = _usual_facts(self.facts) if len(self.facts) <= _USUAL_BYTES else _FACTS.decode(self.facts)
        return Opened(job, self.n_inputs, self.outer_shape, facts, self.identity, self.seconds)


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """Inputs of one shape, without their samples: of the job in progress, and of those after it.

    Attributes
    ----------
    shape : tuple of int
        Of the samples of each.
    position : int or None
        Where the samples of the first are in the ring, directly followed by the others'; None if they follow in the pipe, which
        are those of one input.
    inputs : list of tuple of (Told or None, int)
        For each its number, and, before a job's first, what is told of the job.
    """

    shape: tuple[int, ...]
    position: int | None
    inputs: list[tuple[Told | None, int]]


Message = Event | Asked | Rows | None
"""What a reading process sends; None when it has started."""


def serve(pipe: Connection, task: ReadTask, shared: Ring | Counts, rows: int) -> None:
    """A worker's main loop: lists of jobs in, events out, until the pipe ends; at most `rows` inputs are sent together.

    In shared memory, it counts the jobs that it has begun, and says whether it waits for an object store.

    Only the main process handles signals. A scheduler sends them to every process of a job, and this must not make a file fail.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    die_with_parent()
    keep_freed_memory()
    gc.freeze()  # collections need not look at what was imported
    tell_waiting(partial(setattr, shared.waits, "value"))
    jobs: deque[Job] = deque()
    ring = shared if isinstance(shared, Ring) else None
    outbox = Outbox(pipe, ring, rows)
    has_come = select.poll()  # in a tenth of the time of `pipe.poll`
    has_come.register(pipe.fileno(), select.POLLIN)
    empty = anywhere if ring is None else ring.empty
    asked = False

    def ask(need: int) -> None:
        nonlocal asked
        asked = True
        outbox.send(Asked(need))
        while (message := pipe.recv()) is not None:
            task.expect(message)
            jobs.extend(message)

    try:
        outbox.send(None)
        while True:
            while not jobs or has_come.poll(0):
                if not jobs:
                    outbox.flush()
                message = pipe.recv()
                task.expect(message)
                jobs.extend(message)
            job = jobs.popleft()
            if is_url(job.path):  # it may take long: what has been read must not wait for it
                outbox.flush()
            shared.begun.value += 1
            if ring is not None:
                ring.forget()
            _tell(task.events(job, ask, empty), outbox)
            if asked:
                outbox.flush()  # others wait for its memory
                return_freed_memory()
                asked = False
    except (EOFError, OSError):
        return  # the main process closed the pipe, or died


def _tell(events: Iterator[Event], outbox: Outbox) -> None:
    """Send one job's events; what is told of it is sent with its first input."""
    opened: Opened | None = None
    left = 0
    for event in events:
        if isinstance(event, Input):
            outbox.add(opened, event.number, event.data)
            opened = None
            left -= 1
            if left == 0:
                if event.number:  # only whole jobs wait for others: such a job is done again if this process dies
                    outbox.flush()
                outbox.flush_if_old()
                return  # the main process ends the job with this input
        elif isinstance(event, Opened) and event.n_inputs:
            opened, left = event, event.n_inputs
        else:
            if opened is not None:
                outbox.send(opened)
                opened = None
            outbox.send(event)


class Outbox:
    """A reading process's end: inputs of one shape, which wait for others in the ring, and messages after them.

    Parameters
    ----------
    pipe : Connection
        The pipe.
    ring : Ring or None
        The memory that both processes share.
    most : int
        Inputs that are sent together.
    first : int, default: 1
        Inputs of the first message, a number that is doubled from message to message: the engine need not wait for a full batch.
    """

    def __init__(self, pipe: Connection, ring: Ring | None, most: int, first: int = 1) -> None:
        self._pipe, self._ring, self._most = pipe, ring, most
        self._together = min(first, most)
        self._waiting: list[tuple[Told | None, int]] = []
        self._shape: tuple[int, ...] = ()
        self._position = self._end = 0  # of the inputs that wait
        self._since = 0.0

    def add(self, opened: Opened | None, number: int, data: Array) -> None:
        """Send an input soon, or when others follow; `opened` is that of a job's first."""
        told: Told | None = None
        if opened is not None:
            try:
                told = Told.of(opened)
            except (ValueError, OverflowError):  # text that is not UTF-8, or a number that is too large
                self.send(opened)
        position = None if self._ring is None else self._ring.put(data)
        is_apart = position is None or self._ring is None or self._ring.is_first(position)
        if is_apart or position != self._end or data.shape != self._shape:
            self.flush()
        if position is None:
            _send(Rows(data.shape, None, [(told, number)]), self._pipe)
            _write(np.ascontiguousarray(data).data.cast("B"), self._pipe)
            return
        if not self._waiting:
            self._position, self._shape, self._since = position, data.shape, time.monotonic()
        self._waiting.append((told, number))
        self._end = position + data.nbytes
        if len(self._waiting) >= self._together:
            self._together = min(2 * self._together, self._most)
            self.flush()

    def send(self, message: Message) -> None:
        """Send a message, after all inputs."""
        self.flush()
        _send(message, self._pipe)

    def flush(self) -> None:
        """Send the inputs that wait."""
        if self._waiting:
            rows, self._waiting = Rows(self._shape, self._position, self._waiting), []
            _send(rows, self._pipe)
            if self._ring is not None:
                self._ring.begin_anew()

    def flush_if_old(self) -> None:
        """Send the inputs that have waited for others for long enough."""
        if self._waiting and time.monotonic() - self._since > KEPT_SECONDS:
            self.flush()


def _send(message: Message, pipe: Connection) -> None:
    is_packed = isinstance(message, Rows)
    try:
        content = _PACKER.encode(message) if is_packed else pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    except (ValueError, OverflowError):  # text that is not UTF-8, or a number that is too large
        is_packed, content = False, pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    _write(memoryview(_FRAME.pack(is_packed, len(content)) + content), pipe)


def _plain(value: Any) -> Any:
    """A Python number for one of NumPy's, which a reader may have left."""
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(f"{type(value).__name__} in a message")


_PACKER = msgspec.msgpack.Encoder(enc_hook=_plain)
_ROWS = msgspec.msgpack.Decoder(Rows)
_FACTS = msgspec.msgpack.Decoder(Facts)
_USUAL_BYTES = 1024


@lru_cache(maxsize=1024)
def _usual_facts(content: bytes) -> Facts:
    return _FACTS.decode(content)


def _write(content: memoryview, pipe: Connection) -> None:
    while content:
        content = content[os.write(pipe.fileno(), content) :]


def _nothing_to_give_back() -> None:
    pass


class Block(NamedTuple):
    """The samples of `Rows`: float32 [n, C, L], and the function that gives their space in the ring back."""

    samples: Array
    give_back: Callable[[], None] = _nothing_to_give_back


class Inbox:
    """The main process's end: messages of a reading process as they come. It never waits for the rest of one.

    Parameters
    ----------
    pipe : Connection
        The pipe.
    ring : Ring or None
        The memory that both share.
    """

    def __init__(self, pipe: Connection, ring: Ring | None) -> None:
        self._pipe, self._ring = pipe, ring
        self._bytes = bytearray()
        self._rows: Rows | None = None  # whose samples are coming through the pipe
        self._samples = np.empty(0, np.float32)
        self._missing = memoryview(b"")

    def read(self) -> Iterator[tuple[Message, Block | None]]:
        """The messages that have come, with the samples of `Rows`.

        Raises
        ------
        EOFError, OSError
            If the process has died.
        """
        if self._rows is not None:
            received = os.readv(self._pipe.fileno(), [self._missing])
            if received == 0:
                raise EOFError
            self._missing = self._missing[received:]
            yield from self._complete()
            return
        came = os.read(self._pipe.fileno(), _READ_BYTES)
        if not came:
            raise EOFError
        self._bytes += came
        while self._rows is None and len(self._bytes) >= _FRAME.size:
            is_packed, length = _FRAME.unpack_from(self._bytes)
            end = _FRAME.size + length
            if len(self._bytes) < end:
                return
            content = self._bytes[_FRAME.size : end]
            message: Message = _ROWS.decode(content) if is_packed else pickle.loads(content)
            del self._bytes[:end]
            if not isinstance(message, Rows):
                yield message, None
            elif message.position is not None and self._ring is not None:
                yield message, Block(*self._ring.take(message.position, (len(message.inputs), *message.shape)))
            else:
                self._await(message)
                yield from self._complete()

    def _await(self, rows: Rows) -> None:
        """Take the samples of one input out of what was read, and expect the rest."""
        self._rows, self._samples = rows, np.empty((1, *rows.shape), np.float32)
        room = self._samples.data.cast("B")
        known = min(len(room), len(self._bytes))
        room[:known] = self._bytes[:known]
        del self._bytes[:known]
        self._missing = room[known:]

    def _complete(self) -> Iterator[tuple[Message, Block | None]]:
        if self._rows is not None and not self._missing:
            rows, samples = self._rows, self._samples
            self._rows, self._samples, self._missing = None, np.empty(0, np.float32), memoryview(b"")
            yield rows, Block(samples)


def die_with_parent() -> None:
    """On Linux, make the kernel kill this process when the main process is killed, even while it reads a file."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(parent_death_signal, signal.SIGKILL)
