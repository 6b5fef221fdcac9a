"""`ecgfounder status`: how far a run is, also while it works.

In: arguments. Out: the shards and processes on standard output, and an exit status: 0 complete without failures or still working,
1 recordings failed or shards must be started again, 2 no run.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import OK, SOME_FAILED
from ecgfounder.escaping import counted, one_line
from ecgfounder.run.pace import duration
from ecgfounder.storage import output_place, storage_options

if TYPE_CHECKING:
    from ecgfounder.ledger.status import RunStatus, ShardStatus, Worker

MOST_ROWS = 60
"""Rows of the table; shards that are complete are left out first."""
_COLUMNS = ("shard", "process", "state", "done", "failed", "to do", "ECG/s", "where")


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder status`."""
    parser.add_argument("run", metavar="RUN", help="output folder of a run, or its URL (s3://, gs://, az://)")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")
    add_storage_argument(parser)


def run_status(arguments: argparse.Namespace) -> int:
    """Print the status; returns the exit status.

    Raises
    ------
    ECGFounderError
        If there is no run, or its store does not answer.
    """
    from ecgfounder.ledger import status
    from ecgfounder.ledger.folder import RunFolder

    options = storage_options(arguments.storage_options)
    place = output_place(arguments.run, options)
    found = status.run_status(RunFolder(place, options))
    if arguments.json:
        print(_as_json(found))
    else:
        for line in _lines(found, str(place)):
            print(one_line(line))
    return SOME_FAILED if found.again or (found.failed and found.state != "working") else OK


def _as_json(found: RunStatus) -> str:
    import orjson

    shards = [{**asdict(each), "state": each.state, "pending": each.pending} for each in found.shards]
    told = {
        "outcome": found.record.outcome,
        "state": found.state,
        "done": found.done,
        "failed": found.failed,
        "pending": found.pending,
        "rate": found.rate,
        "again": ["/".join(map(str, shard)) for shard in found.again],
        "shards": shards,
    }
    return orjson.dumps(told, option=orjson.OPT_INDENT_2).decode()


def _lines(found: RunStatus, place: str) -> Iterable[str]:
    record = found.record
    division = "" if len(found.shards) == 1 else f", {len(found.shards):,} shards"
    yield f"run         {place}: {found.state}{division}, begun {record.started}"
    total = None if found.pending is None else found.done + found.failed + found.pending
    of = "" if total is None else f" of {counted(total, 'recording')}"
    yield f"done        {found.done:,}{of}, {found.failed:,} failed" + (
        "" if found.pending is None else f", {found.pending:,} to do"
    )
    if found.rate:
        left = "" if not found.pending else f", about {duration(found.pending / found.rate)} left"
        yield f"rate        {found.rate:.1f} ECG/s{left}"
    rows = _rows(found.shards)
    if len(found.shards) > 1 or found.state in ("working", "died"):
        yield from _table(rows[:MOST_ROWS])
        if len(rows) > MOST_ROWS:
            yield f"{len(rows) - MOST_ROWS:,} more rows: --json has all"
    yield from _advice(found, place)


def _rows(shards: Sequence[ShardStatus]) -> list[tuple[str, ...]]:
    """A row for each process of each shard, those that are not complete first if there are many."""
    rows = [(shard.state == "complete", _row(shard, worker)) for shard in shards for worker in shard.workers or (None,)]
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda each: each[0])
    return [row for _, row in rows]


def _row(shard: ShardStatus, worker: Worker | None) -> tuple[str, ...]:
    name = f"{shard.shard[0]}/{shard.shard[1]}"
    pending = "" if shard.pending is None else f"{shard.pending:,}"
    if worker is None:
        return (name, "", shard.state, f"{shard.done:,}", f"{shard.failed:,}", pending, "", "")
    alone = worker.processes == 1
    done, failed = (shard.done, shard.failed) if alone else (worker.done, worker.failed)
    where = "" if worker.host is None else f"process {worker.pid} on {worker.host}"
    if worker.state == "died":
        where += f", silent for {duration(worker.silent)}"
    process = "" if alone else f"{worker.rank + 1}/{worker.processes}"
    state = shard.state if alone else worker.state
    rate = f"{worker.rate:.1f}" if worker.done + worker.failed else ""
    return (name, process, state, f"{done:,}", f"{failed:,}", pending if worker.rank == 0 else "", rate, where)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    """Rows below their headings, without columns that are empty."""
    used = [i for i in range(len(_COLUMNS)) if any(row[i] for row in rows)]
    every = [tuple(row[i] for i in used) for row in (_COLUMNS, *rows)]
    numbers = {_COLUMNS.index(name) for name in ("done", "failed", "to do", "ECG/s")}
    widths = [max(len(row[i]) for row in every) for i in range(len(used))]
    for row in every:
        cells = (
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for cell, width, column in zip(row, widths, used, strict=True)
        )
        yield "  ".join(cells).rstrip()


def _advice(found: RunStatus, place: str) -> Iterable[str]:
    """What to do next."""
    if found.to_merge:
        yield f"next        ecgfounder merge {shlex.quote(place)}"
    elif found.again and len(found.shards) == 1:
        yield "again       the same command resumes the run"
    elif found.again:
        numbers = [shard for shard, _ in found.again]
        what = "shard" if len(numbers) == 1 else "shards"
        yield (
            f"again       {what} {ranges(numbers)} of {len(found.shards)}: sbatch --array={ranges(numbers)} SCRIPT, or embed "
            f"--shard I/{len(found.shards)}"
        )
    if found.failed and found.state == "complete" and found.record.exported is None:
        yield "failed      --retry_failed tries them again; _run/failures.csv has the reasons"


def ranges(numbers: Iterable[int]) -> str:
    """Numbers in ascending order as a scheduler takes them.

    >>> ranges([1, 2, 3, 7, 9, 10])
    '1-3,7,9-10'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, each)) for each in runs)
