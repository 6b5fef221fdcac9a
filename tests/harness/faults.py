"""A run that is hurt on purpose: killed, or refused a write, at a chosen file operation; then started again until it ends.

In: settings and a fault. Out: what is on disk afterwards. Each start is a forked child with an engine that costs nothing, so
that hundreds of starts take seconds. The operations counted are those that change the disk, in the order of the run.
"""

from __future__ import annotations

import builtins
import errno
import gc
import importlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from ecgfounder.drivers.launch import Launch
from ecgfounder.errors import ECGFounderError, RunError
from ecgfounder.ledger.record import versions
from ecgfounder.readers import READERS
from ecgfounder.run import run as extract
from ecgfounder.run.settings import Settings
from tests.harness.stand_ins import NullEngine, Silent

# What a run imports when it needs it is imported here, once, and not by each of hundreds of children.
for _name in (
    *(f"ecgfounder.readers.{_reader}" for _reader in READERS),
    *("ecgfounder.sinks.parquet", "pandas", "pyarrow.pandas_compat"),
):
    importlib.import_module(_name)

_VERSIONS = versions()  # they are looked up in files, too
COMPLETE, BROKEN, CRASHED = 0, 3, 4
_OPERATIONS = ("write", "replace", "fsync", "unlink", "mkdir", "ftruncate")


@dataclass(frozen=True)
class Fault:
    """What happens at the `at`-th operation: SIGKILL (with half of a write done), or an error of the disk."""

    at: int
    error: int | None = None


@contextmanager
def _faulty(fault: Fault | None, counter: list[int]) -> Iterator[None]:
    """Count the operations that change the disk, and let one of them go wrong."""

    def counted(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counter[0] += 1
            if fault is not None and counter[0] == fault.at:
                if fault.error is not None:
                    raise OSError(fault.error, os.strerror(fault.error))
                if name == "write":
                    real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call

    real_open = builtins.open

    def opened(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return (counted(real_open, "open") if set(mode) & set("wax+") else real_open)(file, mode, *arguments, **options)

    operations = {name: counted(getattr(os, name), name) for name in _OPERATIONS}
    with mock.patch.multiple(os, **operations), mock.patch.object(builtins, "open", opened):
        yield


class _Pair(Launch):
    """Two processes on this machine that speak to each other through a pipe."""

    def _exchange(self, word: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            self.accelerator.send(word)
            other = self.accelerator.recv()
        except (EOFError, OSError) as error:
            raise RunError("the other process is gone") from error
        return [word, other] if self.is_main else [other, word]

    def __exit__(self, *_: object) -> None:
        return None


def _child(settings: Settings, launch: Launch, fault: Fault | None, count_to: int) -> None:
    """One start in this (forked) process; never returns."""
    gc.freeze()  # collecting what was here before would copy the parent's memory
    status, counter = CRASHED, [0]
    try:
        with (
            mock.patch.object(extract, "create_engine", return_value=NullEngine()),
            mock.patch.object(extract, "join_launch", return_value=launch),
            mock.patch.object(extract, "versions", return_value=_VERSIONS),
            _faulty(fault, counter),
        ):
            summary = extract.Run(settings, Silent()).execute()
        status = COMPLETE if summary.outcome == "complete" or not launch.is_main else BROKEN
        if settings.shard[1] > 1:
            status = COMPLETE
    except OSError:
        status = BROKEN
    except ECGFounderError:
        status = BROKEN
    except BaseException:  # noqa: BLE001 - the child reports it and ends as crashed
        traceback.print_exc()
    finally:
        os.pwrite(count_to, counter[0].to_bytes(8, "little"), 0)
        os._exit(status)


def start(settings: Settings, fault: Fault | None, scratch: Path, *, processes: int = 1) -> tuple[list[int], int]:
    """One start with a fault in its last process; exit statuses (negative: a signal) and operations counted."""
    ends = multiprocessing.Pipe()
    count = os.open(scratch, os.O_RDWR | os.O_CREAT, 0o600)
    children = []
    for rank in range(processes):
        child = os.fork()
        if child == 0:
            if processes == 1:
                _child(settings, Launch(), fault, count)
            ends[1 - rank].close()
            launch = _Pair(rank, processes, processes, accelerator=ends[rank])
            _child(settings, launch, fault if rank else None, count)
        children.append(child)
    for end in ends:
        end.close()
    statuses = dict(os.wait() for _ in children)
    counted = int.from_bytes(os.pread(count, 8, 0), "little")
    os.close(count)
    return [os.waitstatus_to_exitcode(statuses[child]) for child in children], counted


def run_to_the_end(
    settings: Settings, faults: Iterator[Fault], scratch: Path, *, processes: int = 1, starts: int = 30
) -> int:
    """Start again and again, each time with the next fault, until it ends by itself; how many starts that took."""
    for number in range(1, starts + 1):
        statuses, _ = start(settings, next(faults, None), scratch, processes=processes)
        assert CRASHED not in statuses, "an exception that no user should see"
        if all(status == COMPLETE for status in statuses):
            return number
    raise AssertionError(f"not complete after {starts} starts")


def with_shard(settings: Settings, part: int, parts: int) -> Settings:
    return replace(settings, shard=(part, parts))


DISK_ERRORS = (errno.ENOSPC, errno.EIO)
