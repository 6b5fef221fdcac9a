"""What a run will take, from embedding some of its recordings to a temporary folder.

In: settings, and the number of recordings to do. Out: a `Forecast`; nothing is written to the output folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ecgfounder.drivers.interruption import Interruption, Stopped
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import read_ledger
from ecgfounder.machine import is_launched
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.run.summary import Summary
from ecgfounder.storage import is_url
from ecgfounder.storage.temporary import temporary_folder

MEASURED = 50
"""Recordings that are embedded at first."""
_FEW_BATCHES, _MANY_BATCHES = 4, 8
"""If the first recordings are fewer than so many batches, as on a GPU, further ones are embedded and measured."""


@dataclass(frozen=True)
class Forecast:
    """What was measured, and what it means for all recordings to do.

    Attributes
    ----------
    measured, failed : int
        Recordings that were embedded, and those that failed among them.
    rate : float
        Recordings per second, from the first one that was read to the last one that was embedded.
    engine : str
        The engine's description.
    n_todo : int
        Recordings to do.
    seconds : float
        Time for them, on this machine.
    bytes : int
        Size of their outputs and of the run record.
    reads : int or None
        Requests to read them from an object store; None for files on this machine.
    """

    measured: int
    failed: int
    rate: float
    engine: str
    n_todo: int
    seconds: float
    bytes: int
    reads: int | None


def forecast(settings: Settings, n_todo: int, interruption: Interruption) -> Forecast:
    """Embed some recordings, spread over the cohort, and forecast the rest.

    Raises
    ------
    ECGFounderError
        If the run would be refused, or this process is one of several of a launch.
    Stopped
        If it is interrupted.
    """
    if is_launched():
        raise SettingsError("the 'measure' parameter needs a single process: leave out the launcher.")
    with temporary_folder() as folder:
        out = folder / "out"
        trial = replace(
            settings,
            output_dir=out,
            shard=(1, 1),
            overwrite=False,
            retry_failed=False,
            check_hashes=False,
            sample=MEASURED,
        )
        summary = _embed(trial, interruption)
        record = RunFolder(out).read()
        assert record is not None  # the trial has written it
        batch_size = record.settings.batch_size
        if _FEW_BATCHES * batch_size > MEASURED and n_todo > MEASURED:
            second = _embed(replace(trial, sample=MEASURED + _MANY_BATCHES * batch_size), interruption)
            summary = second if second.processed else summary
        if not summary.working_seconds:
            raise RunError("nothing was measured: no recording of the sample could be given to a reader.")
        tally = summary.tally
        assert tally is not None  # a whole run that was not interrupted
        measured = tally.done + tally.failed
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        objects = list(_objects(RunFolder(out)))
    rate = summary.processed / summary.working_seconds
    return Forecast(
        measured=measured,
        failed=tally.failed,
        rate=rate,
        engine=summary.engine,
        n_todo=n_todo,
        seconds=n_todo / rate,
        bytes=round(n_todo * size / measured),
        reads=round(n_todo * sum(objects) / measured) if is_url(settings.data_dir) else None,
    )


def _embed(trial: Settings, interruption: Interruption) -> Summary:
    summary = Run(trial, _Silent(), interruption).execute()
    if summary.signal is not None:
        raise Stopped(summary.signal)
    if summary.trouble is not None:
        raise RunError(f"the measurement stopped: {summary.trouble}")
    return summary


def _objects(folder: RunFolder) -> Iterator[int]:
    """The number of objects that each record was read from."""
    state = read_ledger(folder.ledger)
    for entry in state.entries(range(len(state))):
        yield 1 + (0 if entry.input is None else len(entry.input.companions))


class _Silent:
    """A console that says nothing."""

    def line(self, text: str) -> None: ...

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None: ...
