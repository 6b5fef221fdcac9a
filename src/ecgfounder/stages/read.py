"""Read and prepare one file, as a plain callable.

In: a `Job`. Out: events: `Opened` and its `Input`s, `Failed`, or `Unread`. Faults of a file are never raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.facts import Facts, Identity
from ecgfounder.errors import ECGFounderError, PrepareError, ReadError, StorageError
from ecgfounder.preprocess.beats import heart_rate
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import Empty, anywhere
from ecgfounder.preprocess.signals import Signal, prepare
from ecgfounder.readers import make_source, read_source, source_statements
from ecgfounder.readers.identity import absent_from, identity_of
from ecgfounder.readers.source import Hints, Source
from ecgfounder.stages.memory import LARGE_BYTES, to_prepare, to_read
from ecgfounder.stages.upcoming import Upcoming
from ecgfounder.storage import NO_OPTIONS, Denied, StorageOptions
from ecgfounder.storage.archives import Excerpt


@dataclass(frozen=True)
class Job:
    """One record to do, with all facts that the stages need.

    Attributes
    ----------
    place : int
        Its position in the cohort, from 0; unique among the jobs of a run.
    path : str
        The file to read.
    key, record : int, str
        Its key, and its name in the run record.
    title : str
        Its name in the output.
    output : str
        The name of its output, if it is a separate file.
    replaces : str
        Its earlier output, which becomes obsolete if the record fails; "" for none.
    path_key : int or None
        Hash of its path, if the record has an identifier.
    excerpt : Excerpt or None
        Where its bytes are, if it is in an archive: reading processes have no index of archives.
    """

    place: int
    path: str
    key: int = 0
    record: str = ""
    title: str = ""
    output: str = ""
    replaces: str = ""
    path_key: int | None = None
    excerpt: Excerpt | None = None


@dataclass(frozen=True)
class Opened:
    """A file that was read and prepared; `n_inputs` inputs follow."""

    job: Job
    n_inputs: int
    outer_shape: tuple[int, ...] = ()
    facts: Facts = field(default_factory=Facts)
    identity: Identity | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """One network input of an opened file: float32 [C, L]. A driver may reuse the memory of `data` after the next event."""

    job: Job
    number: int
    data: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Inputs:
    """Network inputs of one shape, of one or several opened files.

    Attributes
    ----------
    inputs : tuple of tuple of (Job, int)
        The job of each, and its number there.
    data : numpy.ndarray
        float32 [n, C, L].
    give_back : callable
        To be called, from any thread, when `data` is not needed any more.
    """

    inputs: tuple[tuple[Job, int], ...]
    data: npt.NDArray[np.float32]
    give_back: Callable[[], None]


@dataclass(frozen=True)
class Failed:
    """A file that could not be read or prepared completely.

    Attributes
    ----------
    kind, reason : str
        The error's class name, and its message.
    absent : tuple of str
        The files that the recording lacks (`ecgfounder.readers.identity.absent_from`).
    """

    job: Job
    kind: str
    reason: str
    facts: Facts = field(default_factory=Facts)
    identity: Identity | None = None
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unread:
    """A file that its store did not give, which may not be the file's fault (`ecgfounder.stages.trouble` decides).

    Attributes
    ----------
    denied : bool
        Whether access was denied; else the store did not answer.
    reason : str
        The error's message.
    """

    job: Job
    denied: bool
    reason: str


@dataclass(frozen=True)
class Idle:
    """No event for a while; lets the caller release waiting batches."""


Event = Opened | Input | Inputs | Failed | Unread | Idle


Ask = Callable[[int], None]
"""Called with the bytes of memory that a job needs in all; returns when it may have them."""


def _ask_nobody(_need: int) -> None:
    pass


@dataclass
class _Known:
    """The facts about a file that are known so far."""

    source: Source | None = None
    told: dict[str, Any] = field(default_factory=dict)
    identity: Identity | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        return Facts(**self.told)

    def absent(self) -> tuple[str, ...]:
        return () if self.source is None else absent_from(self.source)


@dataclass(frozen=True)
class ReadTask:
    """The settings for reading and preparing a path; sent to every reading process once."""

    preparation: Preparation
    reader: str = "auto"
    hints: Hints = field(default_factory=Hints)
    statements: bool = False
    options: StorageOptions = NO_OPTIONS
    heart_rate: bool = False

    @cached_property
    def _upcoming(self) -> Upcoming:
        return Upcoming(self.options)

    def __getstate__(self) -> dict[str, Any]:
        """The settings alone: each process fetches its own files."""
        return {name: value for name, value in vars(self).items() if name != "_upcoming"}

    def expect(self, jobs: Iterable[Job]) -> None:
        """Begin to fetch the files of jobs that will be read next in this process, if they are in stores elsewhere."""
        self._upcoming.expect(jobs)

    def events(self, job: Job, ask: Ask = _ask_nobody, empty: Empty = anywhere) -> Iterator[Event]:
        """Read and prepare one file; never raises for faults of the file.

        If that takes much memory, `ask` is called before, and again when more is known; it may wait. Inputs are in memory of
        `empty` where they can be made there.
        """
        known = _Known()
        try:
            signal = self._signal(job, known, ask, empty)
            yield Opened(job, len(signal.inputs), signal.outer_shape, known.facts, known.identity, known.seconds)
            for number, data in enumerate(signal.inputs):
                yield Input(job, number, data)
        except ReadError as error:
            yield Failed(job, type(error).__name__, str(error), known.facts, known.identity, known.absent())
        except StorageError as error:  # of a store elsewhere: what happens on this machine is a fault of the file
            yield Unread(job, isinstance(error, Denied), str(error))
        except ECGFounderError as error:
            yield Failed(job, type(error).__name__, str(error), known.facts, known.identity)
        except MemoryError:
            reason = "needs more memory than is available"
            yield Failed(job, PrepareError.__name__, reason, known.facts, known.identity)
        except Exception as error:  # noqa: BLE001 - a slip of ours or a library's concerns this file, not the run
            # Its message is left out: it may quote the file.
            reason = f"cannot be prepared ({type(error).__name__})"
            yield Failed(job, PrepareError.__name__, reason, known.facts, known.identity)

    def _signal(self, job: Job, known: _Known, ask: Ask, empty: Empty) -> Signal:
        began = time.perf_counter()
        n_bytes = 0

        def ask_to_read(size: int) -> None:
            nonlocal n_bytes
            if size > n_bytes:
                n_bytes = size
                head = b"" if source.companions else source.head  # signal files beside a header are binary
                ask(to_read(size, head, self.preparation))

        known.source = source = make_source(
            job.path, self.hints, self.options, job.excerpt, ask=ask_to_read, ahead=self._upcoming.ahead
        )
        try:
            recording = read_source(source, reader=self.reader)
            known.identity = identity_of(source)
        finally:
            self._upcoming.end(job)
        known.told = {
            "format": recording.source_format,
            "sampling_rate": recording.sampling_rate,
            "n_samples": recording.n_samples,
            "device": dict(recording.meta),
            "statements": source_statements(source) if self.statements else None,
            "heart_rate": heart_rate(recording) if self.heart_rate else None,
        }
        need = to_prepare(recording, n_bytes, self.preparation)
        if n_bytes or need > LARGE_BYTES:
            ask(need)
        read = time.perf_counter()
        signal = prepare(recording, self.preparation, empty)
        known.told |= {"leads": signal.leads, "flags": signal.flags, "starts": signal.starts}
        known.seconds = {"read": read - began, "prepare": time.perf_counter() - read}
        return signal
