"""How far a run is: its shards and processes, read from the run record while others may write to it. Nothing is locked.

In: an output folder in any store. Out: a `RunStatus`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal

import numpy as np

from ecgfounder.errors import RunError
from ecgfounder.ledger.entry import PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.epochs import Epoch, latest_epochs
from ecgfounder.ledger.groups.hold import LEASES
from ecgfounder.ledger.groups.lease import HELD, newest_lease
from ecgfounder.ledger.groups.names import WHOLE, Shard, scope_of
from ecgfounder.ledger.groups.writer import GROUP
from ecgfounder.ledger.ledger import DONE, FAILED, LedgerState, ledger_parts, part_status, read_ledger
from ecgfounder.ledger.liveness import STALE_SECONDS, process_is_alive
from ecgfounder.ledger.record import RunRecord
from ecgfounder.storage import Location, Missing

State = Literal["not begun", "working", "died", "interrupted", "incomplete", "complete"]
"""Of a process, a shard or a run. "interrupted": ended by a signal, or by the trouble of a store. "incomplete": its processes
have completed, and recordings are left: the rest of a sample, or of a cohort that has grown."""
_WORST: tuple[State, ...] = ("working", "died", "interrupted", "incomplete")

_PART = re.compile(
    r"(?P<stamp>\d{20})-shard(?P<i>\d+)of(?P<n>\d+)-(?:epoch\d{6,}-)?rank(?P<rank>\d+)(?:of(?P<size>\d+))?\.jsonl"
)
"""Parts that processes append to; those in a folder to which groups were committed belong to an epoch."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process of the newest attempt at a shard.

    Attributes
    ----------
    rank, processes : int
        Its number in its launch, from 0, and the number of processes.
    host, pid : str or None, int or None
        The machine and the process, if they are known.
    done, failed : int
        Records in this attempt.
    rate : float
        Records per second since the process began.
    silent : float
        Seconds since its last sign of life, by this machine's clock.
    """

    rank: int
    processes: int
    state: State
    host: str | None
    pid: int | None
    done: int
    failed: int
    rate: float
    silent: float


@dataclass(frozen=True, kw_only=True)
class ShardStatus:
    """A shard of the run; the whole run is the only one of its kind.

    Attributes
    ----------
    shard : tuple of (int, int)
        (i, n).
    recordings : int or None
        Recordings of the cohort in it; None if the run record does not say.
    done, failed : int
        Records by their latest entry, of all attempts.
    workers : tuple of Worker
        The processes of the newest attempt.
    """

    shard: Shard
    recordings: int | None
    done: int
    failed: int
    workers: tuple[Worker, ...]

    @property
    def pending(self) -> int | None:
        """Recordings that are still to do; None if it is not known."""
        return None if self.recordings is None else max(0, self.recordings - self.done - self.failed)

    @property
    def state(self) -> State:
        """The state of the shard, by what is left to do and by its processes."""
        states = {worker.state for worker in self.workers}
        if self.pending == 0 and "working" not in states:
            return "complete"
        if states <= {"complete"}:
            return "not begun" if not states else "incomplete" if self.pending else "complete"
        return next(state for state in _WORST if state in states)


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """A run, as it is now.

    Attributes
    ----------
    record : RunRecord
        The contents of run.json.
    shards : tuple of ShardStatus
        All shards of the last division.
    """

    record: RunRecord
    shards: tuple[ShardStatus, ...]

    @property
    def done(self) -> int:
        return sum(shard.done for shard in self.shards)

    @property
    def failed(self) -> int:
        return sum(shard.failed for shard in self.shards)

    @property
    def pending(self) -> int | None:
        """Recordings that are still to do; None if it is not known."""
        each = [shard.pending for shard in self.shards]
        return None if None in each else sum(number or 0 for number in each)

    @property
    def rate(self) -> float:
        """Records per second of all processes that work."""
        return sum(worker.rate for shard in self.shards for worker in shard.workers if worker.state == "working")

    @property
    def state(self) -> State:
        """The state of the run: of its shards, the first that is "working", "died", "interrupted" or "incomplete"."""
        states = {shard.state for shard in self.shards}
        if len(states) == 1:
            return states.pop()
        return next((state for state in _WORST if state in states), "incomplete")

    @property
    def again(self) -> tuple[Shard, ...]:
        """The shards that must be started, or started again: no process works on them, and they are not complete."""
        return tuple(each.shard for each in self.shards if each.state not in ("working", "complete"))

    @property
    def to_merge(self) -> bool:
        """Whether all shards are complete and `ecgfounder merge` has not been run since."""
        return len(self.shards) > 1 and self.state == "complete" and not self.record.is_complete


def run_status(folder: RunFolder) -> RunStatus:
    """Read the status of a run.

    Raises
    ------
    RunError
        If the folder holds no run, or its record is damaged.
    StorageError
        If the store does not answer.
    """
    record = folder.read()
    if record is None:
        raise RunError(f"{folder.output_dir} holds no run: expected {folder.run_json}. Give the output_dir of a run.")
    n_shards = record.settings.shards
    if n_shards < 1:
        raise RunError(f"{folder.run_json} is not a run record: it has {n_shards} shards.")
    state = read_ledger(folder.ledger)
    working = _workers(folder, state, record)
    sizes = record.shard_sizes if len(record.shard_sizes) == n_shards else (None,) * n_shards
    number = (state.keys % np.uint64(n_shards)).astype(np.int64)
    done, failed = (np.bincount(number[state.status == each], minlength=n_shards) for each in (DONE, FAILED))
    shards = tuple(
        ShardStatus(
            shard=(i + 1, n_shards),
            recordings=sizes[i],
            done=int(done[i]),
            failed=int(failed[i]),
            workers=working.get((i + 1, n_shards), ()),
        )
        for i in range(n_shards)
    )
    return RunStatus(record=record, shards=shards)


Attempt = tuple[int, Callable[[], Iterator["Worker"]]]
"""The stamp of an attempt, and what reads its processes."""


def _workers(folder: RunFolder, state: LedgerState, record: RunRecord) -> dict[Shard, tuple[Worker, ...]]:
    """The processes of the newest attempt at each shard, whether they append to parts or commit groups."""
    newest: dict[Shard, Attempt] = {}
    for shard, attempt in (*_appending(folder, state), *_committing(folder, state, record.processes)):
        if shard[1] == record.settings.shards and attempt[0] > newest.get(shard, (-1,))[0]:
            newest[shard] = attempt
    return {shard: tuple(workers()) for shard, (_, workers) in newest.items()}


def _appending(folder: RunFolder, state: LedgerState) -> Iterator[tuple[Shard, Attempt]]:
    """The attempts whose processes append to parts of the ledger."""
    counts = _counts(state)
    attempts: dict[tuple[Shard, int], list[tuple[re.Match[str], Location]]] = {}
    for part in ledger_parts(folder.ledger):
        if found := _PART.fullmatch(part.basename):
            attempts.setdefault(((int(found["i"]), int(found["n"])), int(found["stamp"])), []).append((found, part))

    def read(parts: list[tuple[re.Match[str], Location]]) -> Iterator[Worker]:
        for found, part in sorted(parts, key=lambda each: int(each[0]["rank"])):
            yield _of_part(found, part, counts.get(part.basename, (0, 0)), len(parts))

    for (shard, stamp), parts in attempts.items():
        yield shard, (stamp, partial(read, parts))


def _committing(folder: RunFolder, state: LedgerState, processes: int) -> Iterator[tuple[Shard, Attempt]]:
    """The attempts that commit groups. Each process of a launch has an epoch of its own, as a shard of the whole run."""
    counts = _counts(state)

    def read(epochs: list[tuple[Epoch, Location | None]]) -> Iterator[Worker]:
        for rank, (epoch, seal) in enumerate(epochs):
            yield _of_epoch(folder, epoch, seal, counts, rank, len(epochs))

    latest = latest_epochs(folder.run)
    for shard, each in latest.items():
        yield shard, (each[0].stamp, partial(read, [each]))
    launched = [latest[shard] for rank in range(processes) if (shard := (rank + 1, processes)) in latest]
    if processes > 1 and len(launched) == processes:
        yield WHOLE, (max(epoch.stamp for epoch, _ in launched), partial(read, launched))


def _counts(state: LedgerState) -> dict[str, tuple[int, int]]:
    """Records done and failed in each part of a ledger, by its name."""
    done, failed = (
        np.bincount(state.part[state.status == each], minlength=len(state.parts)).tolist() for each in (DONE, FAILED)
    )
    return {part.basename: (done[i], failed[i]) for i, part in enumerate(state.parts)}


def _of_part(found: re.Match[str], part: Location, counts: tuple[int, int], processes: int) -> Worker:
    """The process that appends, or appended, to a part."""
    header, end = part_status(part)
    seen = _seen(part)
    silent = time.time() - seen
    began = _began(header)
    done, failed = counts
    if end is not None:
        state: State = "complete" if end.outcome == "complete" else "interrupted"
        done, failed = end.done, end.failed
    else:
        lives = silent < STALE_SECONDS and (header is None or process_is_alive(header.name))
        state = "working" if lives else "died"
        done = max(0, done - (0 if header is None else header.renewed))
    return Worker(
        rank=int(found["rank"]),
        processes=int(found["size"] or processes),
        state=state,
        host=None if header is None else header.host,
        pid=None if header is None else header.pid,
        done=done,
        failed=failed,
        rate=_rate(done + failed, 0.0 if began is None else seen - began),
        silent=max(0.0, silent),
    )


def _of_epoch(
    folder: RunFolder,
    epoch: Epoch,
    seal: Location | None,
    counts: dict[str, tuple[int, int]],
    rank: int,
    processes: int,
) -> Worker:
    """The process that commits, or committed, groups in an epoch."""
    own = [each for name, each in counts.items() if name.startswith(f"{epoch.prefix}-{GROUP}")]
    done, failed = (sum(each[position] for each in own) for position in (0, 1))
    holder, lease = newest_lease(folder.run / LEASES / scope_of(epoch.shard))
    place = lease if seal is None else seal
    began = epoch.stamp / 1e9
    seen = began if place is None else _seen(place, began)
    silent = time.time() - seen
    if seal is not None:
        state: State = "complete"
    elif holder.get("state") == HELD:
        state = "working" if silent < STALE_SECONDS and process_is_alive(holder) else "died"
    else:
        state = "interrupted"
    return Worker(
        rank=rank,
        processes=processes,
        state=state,
        host=_text(holder.get("host")),
        pid=holder.get("pid"),
        done=done,
        failed=failed,
        rate=_rate(done + failed, seen - began),
        silent=max(0.0, silent),
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _seen(place: Location, default: float = 0.0) -> float:
    """When a file was touched last, in seconds since 1970."""
    try:
        return place.status().mtime_ns / 1e9
    except Missing:  # a lease that was renewed meanwhile
        return default


def _began(header: PartHeader | None) -> float | None:
    """When a process began, in seconds since 1970."""
    if header is None or header.started is None:
        return None
    try:
        return datetime.strptime(header.started, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _rate(records: int, seconds: float) -> float:
    return records / seconds if seconds > 0 else 0.0
