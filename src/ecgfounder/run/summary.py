"""The outcome of an attempt, or the preview of one.

In: an attempt that ended, or a dry run. Out: a `Summary` or a `Preview`, for commands and for Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ecgfounder.ledger.manifest import Tally
from ecgfounder.run.budget import Budget
from ecgfounder.run.plan import Plan
from ecgfounder.run.presence import Presence


class Console(Protocol):
    """The receiver of a run's messages and progress: the terminal, or a log."""

    def line(self, text: str) -> None: ...

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None:
        """The counts, and what else a log should say of them once a minute."""


@dataclass(frozen=True)
class Summary:
    """The outcome of an attempt.

    Attributes
    ----------
    outcome : str
        "complete", "interrupted", or "incomplete" if other shards or processes have not finished.
    tally : Tally or None
        Counts of all records of the cohort in the ledger; None if another process reports them.
    processed, failed_now : int
        Records that this attempt did, and the failed ones among them; for the main process, those of all processes.
    slowest : str or None
        The stage that was this process's bottleneck (`Pipeline.slowest`); None if the attempt was too short.
    lost : int
        Processes that died before they finished, for the main process.
    is_main : bool
        Whether this is the main process of a launch, which reports for all.
    seconds : float
        Wall time.
    working_seconds : float
        From the first file that this process read to the last record that it finished.
    engine, device : str
        Description of the engine, and its device.
    precision_error : float or None
        Relative error of the feature maps against float32, for a lower precision.
    trouble : str or None
        Why an object store ended the attempt; None if none did.
    samples_per_pass : int or None
        The rows times samples per pass that fitted the device's memory; None if it never ran out.
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
    trouble: str | None = None
    slowest: str | None = None
    working_seconds: float = 0.0
    lost: int = 0
    is_main: bool = True


@dataclass(frozen=True)
class Preview:
    """What an attempt would do.

    Attributes
    ----------
    n_records : int
        Different recordings in the cohort.
    colliding_names : int
        Output names that several recordings would share.
    resumes : bool
        Whether there is a run to resume.
    differences : list of str
        Differences of the settings, because of which it cannot be resumed.
    presence : Presence
        Whether the files of a sample of the cohort exist.
    """

    n_records: int
    colliding_names: int
    plan: Plan
    budget: Budget
    resumes: bool
    differences: list[str]
    presence: Presence
