"""Reading and preparing one file, as a plain callable.

In: a `Job`. Out: events: `Opened` and its `Input`s, or `Failed`; nothing that is wrong with a file is ever raised.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ECGFounderError, PrepareError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import Signal, prepare
from ecgfounder.readers import make_source, read_source, source_statements
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import Hints


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
