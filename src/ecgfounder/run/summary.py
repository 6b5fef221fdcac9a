"""What came of an attempt, or would come of it.

In: a run that ended, or one that was only looked at. Out: a `Summary` or a `Preview`, for commands and for Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ecgfounder.ledger.manifest import Tally
from ecgfounder.run.budget import Budget
from ecgfounder.run.plan import Plan


class Console(Protocol):
    """Where a run tells what it does; the command line's writes to the terminal, Python's may be silent."""

    def line(self, text: str) -> None: ...

    def progress(self, done: int, failed: int, total: int) -> None: ...


@dataclass(frozen=True)
class Summary:
    """What came of an attempt.

    Attributes
    ----------
    outcome : str
        "complete", "interrupted", or "incomplete" where other shards or processes are still to finish.
    tally : Tally or None
        All records of the cohort as the ledger has them; None where another process tells.
    processed, failed_now : int
        Records that this attempt did, and those among them that failed; the main process counts those of the others too.
    slowest : str or None
        The stage that this process's others waited for (`Pipeline.slowest`); None where it was too short to say.
    lost : int
        Processes that died before their end, as the main one found out.
    is_main : bool
        Whether this is the process that speaks for all of a launch.
    seconds : float
        Wall time.
    engine, device : str
        The engine as it describes itself, and what it computes on.
    precision_error : float or None
        Relative error of the maps against float32, where a lower precision was asked for.
    samples_per_pass : int or None
        What the device's memory was found to hold, rows times samples; None if it never ran out.
    """

    outcome: str
    tally: Tally | None
    plan: Plan
    processed: int
    failed_now: int
    seconds: float
    engine: str
    device: str
    precision_error: float | None = None
    samples_per_pass: int | None = None
    signal: int | None = None
    slowest: str | None = None
    lost: int = 0
    is_main: bool = True


@dataclass(frozen=True)
class Preview:
    """What an attempt would do.

    Attributes
    ----------
    n_records : int
        Different recordings in the cohort; colliding_names : output names that several would share.
    resumes : bool
        Whether there is a run to go on with; differences : why it cannot be gone on with.
    """

    n_records: int
    colliding_names: int
    plan: Plan
    budget: Budget
    resumes: bool
    differences: list[str]
