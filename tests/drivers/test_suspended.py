"""A job that is suspended and resumed is what it was: time in which the watcher stood still is nobody's fault."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ecgfounder.ledger.liveness import STALE_SECONDS, Watch
from ecgfounder.machine import AwakeClock

PROGRAM = """
import sys
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.stages.read import Failed, Input
from tests.harness.scripted import SCRIPTED, jobs_of

pool = ReaderPool(SCRIPTED, 2, timeout=3.0)
done = 0
for event in pool.events(jobs_of(["nap,small"] * 60)):
    if isinstance(event, Failed):
        print(event.reason)
        sys.exit(5)
    if isinstance(event, Input):
        done += 1
        print(done, flush=True)
pool.close()
sys.exit(0 if done == 60 else 6)
"""


@pytest.mark.slow
def test_a_run_that_is_suspended_for_longer_than_a_file_may_take_fails_no_file() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    for _ in range(2):
        for _ in range(8):  # each process has said something since it was last suspended
            process.stdout.readline()
        os.killpg(process.pid, signal.SIGSTOP)
        time.sleep(4.0)
        os.kill(process.pid, signal.SIGCONT)  # the watcher first: those that it watches are a moment late
        time.sleep(0.6)
        os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_time_between_two_looks_counts_up_to_what_a_process_that_is_awake_may_take(clock: list[float]) -> None:
    awake = AwakeClock(longest=1.0)
    for step, expected in ((0.25, 0.25), (0.5, 0.75), (36_000.0, 1.75), (0.25, 2.0)):
        clock[0] += step
        assert awake.now() == expected


def test_processes_that_stood_still_with_the_one_that_watches_them_are_not_taken_for_dead(
    tmp_path: Path, clock: list[float]
) -> None:
    (tmp_path / "part").write_bytes(b"")
    watch = Watch(tmp_path / "part")
    for _ in range(3):
        clock[0] += 10 * STALE_SECONDS
        assert watch.is_fresh()
    for _ in range(int(STALE_SECONDS)):
        clock[0] += 1.0
        fresh = watch.is_fresh()
    assert not fresh
