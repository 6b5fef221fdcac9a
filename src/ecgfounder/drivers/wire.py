"""Both ends of the pipe between the main process and a reading process.

In and out: jobs in one direction, events and questions for memory in the other. Samples are sent as raw memory, without a copy.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.machine import keep_freed_memory, return_freed_memory
from ecgfounder.stages.read import Event, Input, Job, Opened, ReadTask
from ecgfounder.storage.connect import tell_waiting


@dataclass(frozen=True)
class Asked:
    """A reading process waits until its job may take `need` bytes in all; None is the answer."""

    need: int


def serve(pipe: Connection, task: ReadTask, begun: Any, waits: Any) -> None:
    """A worker's main loop: jobs in, events out, until the pipe ends.

    In shared memory, it counts the jobs that it has begun, and says whether it waits for an object store.

    Only the main process handles signals. A scheduler sends them to every process of a job, and this must not make a file fail.
    """
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
    _die_with_parent()
    keep_freed_memory()
    tell_waiting(partial(setattr, waits, "value"))
    jobs: deque[Job] = deque()  # that came while the one before waited for memory
    asked = False

    def ask(need: int) -> None:
        nonlocal asked
        asked = True
        pipe.send(Asked(need))
        while (message := pipe.recv()) is not None:
            jobs.append(message)

    try:
        pipe.send(None)
        while True:
            job = jobs.popleft() if jobs else pipe.recv()
            begun.value += 1
            _tell(task.events(job, ask), pipe)
            if asked:
                return_freed_memory()
                asked = False
    except (EOFError, OSError):
        return  # the main process closed the pipe, or died


def _tell(events: Iterator[Event], pipe: Connection) -> None:
    """Send one job's events; `Opened` is sent with the first input, because every message costs time on both sides."""
    opened: Opened | None = None
    left = 0
    for event in events:
        if isinstance(event, Input):
            pipe.send((opened, event.number, event.data.shape))
            _send(event.data, pipe)
            opened = None
            left -= 1
            if left == 0:
                return  # the main process ends the job with this input
        elif isinstance(event, Opened) and event.n_inputs:
            opened, left = event, event.n_inputs
        else:
            if opened is not None:
                pipe.send(opened)
            pipe.send(event)


def _send(samples: npt.NDArray[np.float32], pipe: Connection) -> None:
    """Send samples as raw memory; `Connection.send_bytes` would copy them, on both sides."""
    left = np.ascontiguousarray(samples).data.cast("B")
    while left:
        left = left[os.write(pipe.fileno(), left) :]


def receive(pipe: Connection, job: Job | None) -> list[Event] | Asked:
    """The next one or two events of a reading process's current job, or its question; no events: the process has started.

    Raises
    ------
    EOFError, OSError
        If the process has died.
    """
    message = pipe.recv()
    if message is None:
        return []
    if isinstance(message, Asked):
        return message
    if not isinstance(message, tuple):
        return [message]
    assert job is not None
    opened, number, shape = message  # samples follow
    data = np.empty(shape, dtype=np.float32)
    _receive_into(data, pipe)
    row = Input(job, number, data)
    return [row] if opened is None else [opened, row]


def _receive_into(samples: npt.NDArray[np.float32], pipe: Connection) -> None:
    """Receive the samples of `_send` into an array of their shape."""
    left = samples.data.cast("B")
    while left:
        received = os.readv(pipe.fileno(), [left])
        if received == 0:
            raise EOFError
        left = left[received:]


def _die_with_parent() -> None:
    """On Linux, make the kernel kill this process when the main process is killed, even while it reads a file."""
    if sys.platform == "linux":
        parent_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None, use_errno=True).prctl(parent_death_signal, signal.SIGKILL)
