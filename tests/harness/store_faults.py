"""A run to a store that is hurt on purpose: killed, stopped, or refused at a chosen change; then started again until it ends.

In: settings whose output folder is in a store, and a fault. Out: what is in the store afterwards. Each start is a forked child
with an engine that costs nothing.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.drivers.launch import Launch
from ecgfounder.errors import ECGFounderError
from ecgfounder.ledger import liveness
from ecgfounder.ledger.groups import lease
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.groups.lease import Intervals
from ecgfounder.ledger.groups.writer import Bounds
from ecgfounder.run import run as extract
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location
from tests.harness.elsewhere import CHANGES, Fault
from tests.harness.faults import BROKEN, COMPLETE, CRASHED
from tests.harness.stand_ins import NullEngine, Silent

QUICK = Intervals(renew=0.1, stale=1.5, give_up=30.0, look=0.05)
"""Short, but a holder on a busy machine is neither taken over nor gives up."""
SMALL = Bounds(records=5, seconds=0.5)

PERMANENT = ("run.json", "manifest.pq", "failures.csv")
"""What a complete run has in `_run/` beside ledger, epochs and leases."""


@dataclass(frozen=True)
class Machine:
    """What a start takes for its machine: another one cannot see whether its process lives."""

    name: str = ""


HERE = Machine()


def start(
    settings: Settings,
    fault: Fault | None = None,
    told: Path | None = None,
    *,
    machine: Machine = HERE,
    intervals: Intervals = QUICK,
) -> int:
    """Begin a start in a forked child; its process id. The names of its changes go to the file `told`."""
    child = os.fork()
    if child == 0:
        _child(settings, fault, told, machine, intervals)
    return child


def wait(child: int) -> int:
    """The exit status of a start; negative: a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _child(settings: Settings, fault: Fault | None, told: Path | None, machine: Machine, intervals: Intervals) -> None:
    """One start in this (forked) process; never returns."""
    gc.freeze()
    CHANGES.names.clear()
    CHANGES.fault = fault
    if told is not None:
        file = open(told, "w", buffering=1)  # noqa: SIM115 - until the process ends
        CHANGES.tell = lambda name: file.write(f"{name}\n") and None
    run_here(settings, machine, intervals)


def run_here(settings: Settings, machine: Machine, intervals: Intervals) -> None:
    """Run in this process, and end it with the outcome as its status."""
    status = CRASHED
    try:
        with ExitStack() as stack:
            patch = mock.patch.object
            stack.enter_context(patch(extract, "create_engine", return_value=NullEngine()))
            stack.enter_context(patch(extract, "join_launch", return_value=Launch()))
            held = partial(StoreHold, intervals=intervals, bounds=SMALL)
            stack.enter_context(patch(extract, "StoreHold", held))
            stack.enter_context(patch(extract, "TICK_SECONDS", 0.1))
            if machine.name:
                named = liveness.own_name() | {"boot": machine.name, "host": machine.name}
                for module in (lease, liveness):
                    stack.enter_context(patch(module, "own_name", return_value=named))
            summary = extract.Run(settings, Silent()).execute()
        whole = settings.shard[1] == 1
        status = COMPLETE if summary.outcome == "complete" or (not whole and summary.trouble is None) else BROKEN
        if summary.trouble is not None:
            print(f"stopped: {summary.trouble}", file=sys.stderr)
    except ECGFounderError as error:
        print(f"refused: {error}", file=sys.stderr)
        status = BROKEN
    except BaseException:  # noqa: BLE001 - the process reports it and ends as crashed
        traceback.print_exc()
    finally:
        os._exit(status)


def run_to_the_end(
    settings: Settings, faults: Iterator[Fault], *, machines: Iterator[Machine], starts: int = 40
) -> int:
    """Start again and again, each time with the next fault, until it ends by itself; how many starts that took."""
    for number in range(1, starts + 1):
        status = wait(start(settings, next(faults, None), machine=next(machines)))
        assert status != CRASHED, "an exception that no user should see"
        if status == COMPLETE:
            return number
    raise AssertionError(f"not complete after {starts} starts")


# --- what is in the store ---------------------------------------------------------------------------------------------


def json_objects(out: Location) -> dict[str, bytes]:
    """The outputs of a JSON run."""
    names = out.names(skip=RUN_FOLDER.__eq__)
    return {name: (out / name).read() for name in names if name.endswith(".json") and not name.startswith(".")}


def rows_of_shards(out: Location) -> list[dict[str, Any]]:
    """The rows of all shards that are there, by key."""
    shards = [name for name in out.names(skip=RUN_FOLDER.__eq__) if name.endswith(".parquet")]
    tables = [pq.read_table(pa.BufferReader((out / name).read())) for name in shards]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["key"])


def result(settings: Settings) -> Any:
    out = settings.output_dir
    assert isinstance(out, Location)
    return json_objects(out) if settings.format == "json" else rows_of_shards(out)


def check_sealed(out: Location, done: int, failed: int) -> None:
    """A complete run, and nothing else: every output and every part is named, every record is there once."""
    run = out / RUN_FOLDER
    assert orjson.loads((run / "run.json").read())["outcome"] == "complete"
    manifest = pq.read_table(pa.BufferReader((run / "manifest.pq").read()))
    assert sorted(manifest.column("status").to_pylist()) == ["done"] * done + ["failed"] * failed
    named = {output.partition("::")[0] for output in manifest.column("output").to_pylist() if output}
    outputs = set(out.names(skip=RUN_FOLDER.__eq__)) - {".huggingface.yaml"}
    assert outputs == named
    seals = sorted(name for name in (run / "epochs" / "whole").names() if name.endswith(".seal.json"))
    parts = set(orjson.loads((run / "epochs" / "whole" / seals[-1]).read())["parts"])
    assert set((run / "ledger").names()) == parts
    entries = [
        orjson.loads(line)["key"]
        for part in parts
        for line in (run / "ledger" / part).read().splitlines()
        if b'"key"' in line
    ]
    assert len(set(entries)) == done + failed
    others = {name for name in run.names() if name.partition("/")[0] not in ("ledger", "epochs", "leases")}
    assert others == set(PERMANENT)
    assert len(list((run / "leases" / "whole").names())) == 1
