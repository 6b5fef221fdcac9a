"""Tasks for reading processes that follow a script instead of reading files.

In: jobs whose paths say what happens. Out: their events. Apart from the tests, so that no reading process has to import pytest.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgfounder.ecg.facts import Facts
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import Empty, anywhere
from ecgfounder.stages.read import Ask, Event, Failed, Input, Job, Opened, ReadTask


@dataclass(frozen=True)
class ScriptedTask(ReadTask):
    """Reads no file: the path says what happens, in words joined by commas."""

    def events(self, job: Job, ask: Ask = lambda _need: None, empty: Empty = anywhere) -> Iterator[Event]:
        words = job.path.partition(":")[0].split(",")
        n_inputs = sum(word in ("small", "big") for word in words)
        if n_inputs:
            yield Opened(job, n_inputs, facts=Facts(device={"pid": float(os.getpid())}))
        numbers = itertools.count()
        for word in words:
            if word in ("small", "big"):
                length = 50 if word == "small" else 400_000
                yield Input(job, next(numbers), np.full((12, length), job.place, dtype=np.float32))
            elif word.startswith("ask"):
                ask(int(word.removeprefix("ask")))
            else:
                yield from ACTIONS[word](job)
            if word == "refuse":
                return


def kill(_job: Job) -> Iterator[Event]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield from ()


def leave(_job: Job) -> Iterator[Event]:
    os._exit(7)
    yield from ()


def hang(_job: Job) -> Iterator[Event]:
    time.sleep(600)
    yield from ()


def nap(_job: Job) -> Iterator[Event]:
    time.sleep(0.1)
    yield from ()


def enter(job: Job) -> Iterator[Event]:
    _mark(job, "1")
    yield from ()


def exit_again(job: Job) -> Iterator[Event]:
    _mark(job, "-1")
    yield from ()


def _mark(job: Job, mark: str) -> None:
    """Append a line to the file after the colon; one short write is never mixed with another's."""
    with open(job.path.partition(":")[2], "a") as file:
        file.write(f"{mark}\n")


def break_down(_job: Job) -> Iterator[Event]:
    class Strange(Exception):  # of a class that no other process can look up
        pass

    raise Strange(lambda: None)
    yield from ()


def refuse(job: Job) -> Iterator[Event]:
    yield Failed(job, "ReadError", "damaged")


def send_oneself_signals(_job: Job) -> Iterator[Event]:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    yield from ()


def unpicklable(job: Job) -> Iterator[Event]:
    yield Failed(job, "ReadError", "damaged", facts=threading.Lock())  # type: ignore[arg-type]


ACTIONS: dict[str, Callable[[Job], Iterator[Event]]] = {
    "kill": kill,
    "leave": leave,
    "hang": hang,
    "nap": nap,
    "enter": enter,
    "exit": exit_again,
    "break": break_down,
    "refuse": refuse,
    "signals": send_oneself_signals,
    "unpicklable": unpicklable,
}

SCRIPTED = ScriptedTask(Preparation())


def jobs_of(paths: list[str]) -> Iterator[Job]:
    return (Job(place, path) for place, path in enumerate(paths))


@dataclass(frozen=True)
class StillbornTask(ScriptedTask):
    """Ends every process that receives it, before the process is ready."""

    def __setstate__(self, _state: dict[str, Any]) -> None:
        os._exit(3)


@dataclass(frozen=True)
class FewProcessesTask(ScriptedTask):
    """Lets the process that receives it fork a few times."""

    allowed: int = 0

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        left = iter(range(self.allowed))
        fork = os.fork

        def fork_or_not() -> int:
            if next(left, None) is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            return fork()

        os.fork = fork_or_not


@dataclass(frozen=True)
class SleepingTask(ScriptedTask):
    """Keeps every process that receives it from getting ready."""

    def __setstate__(self, _state: dict[str, Any]) -> None:
        time.sleep(600)
