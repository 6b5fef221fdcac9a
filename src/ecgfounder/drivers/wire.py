"""Both ends of the pipe between the main process and a reading process.

In and out: jobs in one direction, events and questions for memory in the other. Samples go through shared memory (`Ring`), or
through the pipe as raw memory.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import struct
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.drivers.ring import Ring
from ecgfounder.machine import keep_freed_memory, return_freed_memory
from ecgfounder.stages.read import Event, Input, Job, Opened, ReadTask
from ecgfounder.storage.connect import tell_waiting

_FRAME = struct.Struct("<?Q")  # whether it is a row in msgpack, which is several times as fast as pickle; its length
_READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Asked:
    """A reading process waits until its job may take `need` bytes in all; None is the answer."""

    need: int


@dataclass(frozen=True)
class Row:
    """An input of the current job, without its samples; the first one comes with `opened`.

    Attributes
    ----------
    position : int or None
        Where its samples are in the ring; None if they follow in the pipe.
    """

    opened: Opened | None
    number: int
    shape: tuple[int, ...]
    position: int | None


Message = Event | Asked | Row | None
"""What a reading process sends; None when it has started."""


def serve(pipe: Connection, task: ReadTask, begun: Any, waits: Any, ring: Ring | None) -> None:
    """A worker's main loop: lists of jobs in, events out, until the pipe ends.

    In shared memory, it counts the jobs that it has begun, and says whether it waits for an object store.

    Only the main process handles signals. A scheduler sends them to every process of a job, and this must not make a file fail.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    _die_with_parent()
    keep_freed_memory()
    tell_waiting(partial(setattr, waits, "value"))
    jobs: deque[Job] = deque()
    asked = False

    def ask(need: int) -> None:
        nonlocal asked
        asked = True
        _send(Asked(need), pipe)
        while (message := pipe.recv()) is not None:
            task.expect(message)
            jobs.extend(message)

    try:
        _send(None, pipe)
        while True:
            while not jobs or pipe.poll():
                message = pipe.recv()
                task.expect(message)
                jobs.extend(message)
            job = jobs.popleft()
            begun.value += 1
            _tell(task.events(job, ask), pipe, ring)
            if asked:
                return_freed_memory()
                asked = False
    except (EOFError, OSError):
        return  # the main process closed the pipe, or died


def _tell(events: Iterator[Event], pipe: Connection, ring: Ring | None) -> None:
    """Send one job's events; `Opened` is sent with the first input, because every message costs time on both sides."""
    opened: Opened | None = None
    left = 0
    for event in events:
        if isinstance(event, Input):
            position = None if ring is None else ring.put(event.data)
            _send(Row(opened, event.number, event.data.shape, position), pipe)
            if position is None:
                _write(np.ascontiguousarray(event.data).data.cast("B"), pipe)
            opened = None
            left -= 1
            if left == 0:
                return  # the main process ends the job with this input
        elif isinstance(event, Opened) and event.n_inputs:
            opened, left = event, event.n_inputs
        else:
            if opened is not None:
                _send(opened, pipe)
            _send(event, pipe)


def _send(message: Message, pipe: Connection) -> None:
    is_row = isinstance(message, Row)
    try:
        content = _PACKER.encode(message) if is_row else pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    except (ValueError, OverflowError):  # a path that is not UTF-8, or a number that is too large
        is_row, content = False, pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    _write(memoryview(_FRAME.pack(is_row, len(content)) + content), pipe)


def _plain(value: Any) -> Any:
    """A Python number for one of NumPy's, which a reader may have left."""
    if isinstance(value, np.generic):
        return value.item()
    raise ValueError(f"{type(value).__name__} in a message")


_PACKER = msgspec.msgpack.Encoder(enc_hook=_plain)
_ROWS = msgspec.msgpack.Decoder(Row)


def _write(content: memoryview, pipe: Connection) -> None:
    while content:
        content = content[os.write(pipe.fileno(), content) :]


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
        self._row: Row | None = None  # whose samples are coming through the pipe
        self._samples = np.empty(0, np.float32)
        self._missing = memoryview(b"")

    def read(self) -> Iterator[tuple[Message, npt.NDArray[np.float32] | None]]:
        """The messages that have come, with the samples of each `Row`; samples in the ring are valid until the next one.

        Raises
        ------
        EOFError, OSError
            If the process has died.
        """
        if self._row is not None:
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
        while self._row is None and len(self._bytes) >= _FRAME.size:
            is_row, length = _FRAME.unpack_from(self._bytes)
            end = _FRAME.size + length
            if len(self._bytes) < end:
                return
            content = self._bytes[_FRAME.size : end]
            message: Message = _ROWS.decode(content) if is_row else pickle.loads(content)
            del self._bytes[:end]
            if not isinstance(message, Row):
                yield message, None
            elif message.position is not None and self._ring is not None:
                samples = self._ring.view(message.position, message.shape)
                yield message, samples
                self._ring.give_back(message.position, samples)
            else:
                self._await(message)
                yield from self._complete()

    def _await(self, row: Row) -> None:
        """Take the samples of a row out of what was read, and expect the rest."""
        self._row, self._samples = row, np.empty(row.shape, np.float32)
        room = self._samples.data.cast("B")
        known = min(len(room), len(self._bytes))
        room[:known] = self._bytes[:known]
        del self._bytes[:known]
        self._missing = room[known:]

    def _complete(self) -> Iterator[tuple[Message, npt.NDArray[np.float32] | None]]:
        if self._row is not None and not self._missing:
            row, samples = self._row, self._samples
            self._row, self._samples, self._missing = None, np.empty(0, np.float32), memoryview(b"")
            yield row, samples


def _die_with_parent() -> None:
    """On Linux, make the kernel kill this process when the main process is killed, even while it reads a file."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(parent_death_signal, signal.SIGKILL)
