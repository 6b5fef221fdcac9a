"""Signals that end a run: for the main process alone to handle, and once only where a launcher passes them on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from ecgfounder.drivers.interruption import ENDING_SIGNALS, Interruption, Stopped, listening
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.stages.read import Failed, Input
from tests.builders.cohorts import write_cohort
from tests.harness.scripted import SCRIPTED, jobs_of

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = f"""
import os, sys, time
from unittest import mock
sys.path.insert(0, {str(ROOT)!r})
from ecgfounder import cli
from ecgfounder.run import run as extract
from tests.harness.stand_ins import NullEngine

class SlowEngine(NullEngine):
    def embed(self, batch):
        time.sleep(0.3)
        return super().embed(batch)

if __name__ == "__main__":
    with mock.patch.object(extract, "create_engine", lambda *_, **__: SlowEngine(1)):
        status = cli.embed_main()
    with open(os.environ["STATUSES"] + os.environ["RANK"], "w") as file:
        file.write(str(status))
    sys.exit(status)
"""


def test_reading_processes_leave_every_ending_signal_to_the_main_process() -> None:
    pool = ReaderPool(SCRIPTED, 2)
    failed = done = 0
    try:
        for event in pool.events(jobs_of(["nap,small"] * 12)):
            failed += isinstance(event, Failed)
            done += isinstance(event, Input)
            pids = [worker.process.pid for worker in pool._workers]  # None for one that is not forked yet
            for pid in filter(None, [*pids, *(nursery._process.pid for nursery in pool._nurseries)]):
                for number in ENDING_SIGNALS:
                    os.kill(pid, number)
    finally:
        pool.close()
    assert (done, failed) == (12, 0)


def heard_of(count: int) -> list[int]:
    heard: list[int] = []
    with listening(heard.append):
        for _ in range(count):
            signal.raise_signal(signal.SIGUSR2)
    return heard


def test_a_signal_that_a_launcher_passes_on_is_heard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert heard_of(3) == [signal.SIGUSR2]


def test_a_second_signal_is_not_waited_for_by_a_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    child = os.fork()
    if child == 0:
        heard_of(2)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGUSR2


def test_of_listeners_within_each_other_the_inner_one_hears_and_all_is_as_before_in_the_end() -> None:
    before = [signal.getsignal(number) for number in ENDING_SIGNALS]
    outer: list[int] = []
    inner: list[int] = []
    with listening(outer.append):
        with listening(inner.append):
            signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGHUP)
    assert (inner, outer) == ([signal.SIGUSR1], [signal.SIGHUP])
    assert [signal.getsignal(number) for number in ENDING_SIGNALS] == before


def test_an_exception_that_a_library_swallowed_ends_the_start_all_the_same() -> None:
    interruption = Interruption()

    def start() -> None:
        with interruption.at_once(), suppress(Stopped):  # as in a callback of C code
            interruption.request(signal.SIGTERM)

    with pytest.raises(Stopped) as caught:
        start()
    assert caught.value.signal == signal.SIGTERM
    interruption.request(signal.SIGTERM)  # and from then on it is only wished for


class Launched:
    """Two processes under torchrun, with a cohort that takes them a while, in Parquet shards that stay open to the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        write_cohort(folder / "in", 60)
        (folder / "weights.pth").write_bytes(b"weights")
        (folder / "program.py").write_text(PROGRAM)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", port]
        flags = [
            *("--dataset", str(folder / "in"), "--output_dir", str(self.out), "--format", "parquet"),
            *("--checkpoint", str(folder / "weights.pth"), "--sampling_rate", "500", "--unit", "mV"),
            *("--leads", ",".join(STANDARD_LEADS), "--num_workers", "0", "--batch_size", "1"),
        ]
        self.process = subprocess.Popen(
            [*torchrun, str(folder / "program.py"), *flags],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "STATUSES": str(folder / "status"), "GLOO_SOCKET_IFNAME": "lo"},
        )

    def lines(self, rank: int) -> list[dict[str, Any]]:
        parts = (self.out / "_run" / "ledger").glob(f"*-rank{rank}of2.jsonl")
        return [orjson.loads(line) for part in parts for line in part.read_bytes().splitlines()]

    def pid(self, rank: int) -> int:
        """Of a process that is at work."""
        deadline = time.monotonic() + 120
        while not (found := self.lines(rank)):
            assert time.monotonic() < deadline
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.1)
        pid: int = found[0]["part"]["pid"]
        return pid

    def has_committed(self, rank: int) -> bool:
        """Whether a process's open shard was written, and its part has an end."""
        lines = self.lines(rank)
        return any("records" in line for line in lines) and lines[-1].get("end", {}).get("outcome") == "interrupted"

    def status(self, rank: int) -> str:
        return (self.folder / f"status{rank}").read_text()


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    launched = Launched(tmp_path)
    yield launched
    launched.process.kill()
    launched.process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_where_one_process_of_a_launch_dies_the_other_commits_what_it_has(dead: int, launched: Launched) -> None:
    pids = [launched.pid(rank) for rank in (0, 1)]
    time.sleep(2.0)
    os.kill(pids[dead], signal.SIGKILL)
    _, said = launched.process.communicate(timeout=60)
    assert launched.process.returncode != 0
    assert launched.has_committed(1 - dead), said
    assert launched.status(1 - dead) == "143"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_launcher_and_its_processes_at_once_loses_nothing_that_was_in_flight(
    number: signal.Signals, launched: Launched
) -> None:
    pids = [launched.pid(rank) for rank in (0, 1)]
    time.sleep(2.0)
    for pid in (*pids, launched.process.pid):  # as a scheduler does; the launcher passes it on
        os.kill(pid, number)
    _, said = launched.process.communicate(timeout=60)
    for rank in (0, 1):
        assert launched.has_committed(rank), said
        assert launched.status(rank) == str(128 + number)
