"""Several machines that share a folder do one cohort under one launch, also when one of them dies.

The other machine is simulated: its processes have another host name and another kernel identifier, so that nothing but the
shared folder and the network tells the first one of them.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.machine import usable_cores
from tests.builders.cohorts import write_cohort
from tests.harness.outputs import json_outputs
from tests.places import ROOT

pytestmark = pytest.mark.services

STALE = 3.0
COUNT = 40

PROGRAM = f"""
import os, sys, time
from unittest import mock
sys.path.insert(0, {str(ROOT)!r})
from ecgfounder import cli
from ecgfounder.errors import RunError
from ecgfounder.ledger import liveness
from ecgfounder.run import run as extract
from tests.harness.stand_ins import NullEngine
liveness.STALE_SECONDS, liveness.HEARTBEAT_SECONDS = {STALE}, {STALE / 10}
pause, first_pause = float(os.environ.get("PAUSE", "0")), [float(os.environ.get("FIRST_PAUSE", "0"))]

class SlowEngine(NullEngine):
    def embed(self, batch):
        time.sleep(first_pause.pop() if first_pause else pause)
        return super().embed(batch)

def create_engine(*_, threads, **__):
    print(f"threads {{threads}}", file=sys.stderr)
    if "REFUSE" in os.environ:
        raise RunError(os.environ["REFUSE"])
    return SlowEngine(1)

if __name__ == "__main__":
    with mock.patch.object(extract, "create_engine", create_engine):
        sys.exit(cli.embed_main())
"""

AS_ANOTHER_MACHINE = 'hostname "$0" && mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What to put before a command so that it runs on another machine, as far as it can tell."""
    boot_id = tmp_path_factory.mktemp("machine") / "boot_id"
    boot_id.write_text("00000000-0000-4000-8000-000000000000\n")
    namespaces = ["unshare", "--user", "--uts", "--mount", "--map-root-user", "sh", "-c", AS_ANOTHER_MACHINE]
    words = [*namespaces, "hostb", str(boot_id)]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a second machine cannot be simulated: this system gives its users no namespaces")
    return words


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "embed.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machines") / "cohort"
    write_cohort(folder, COUNT)
    return folder


@pytest.fixture
def flags(cohort: Path, tmp_path: Path) -> list[str]:
    return flags_for(cohort, tmp_path)


def flags_for(cohort: Path, folder: Path) -> list[str]:
    (folder / "weights.pth").write_bytes(b"weights")
    return [
        *("--dataset", str(cohort), "--output_dir", str(folder / "out"), "--checkpoint", str(folder / "weights.pth")),
        *("--sampling_rate", "500", "--unit", "mV", "--leads", ",".join(STANDARD_LEADS)),
        *("--num_workers", "0", "--batch_size", "2"),
    ]


@pytest.fixture(scope="module")
def undisturbed(cohort: Path, program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outputs of one process on one machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    alone = Process([sys.executable, str(program), *flags_for(cohort, folder)])
    assert alone.end() == 1, alone.said
    found = json_outputs(folder / "out")
    assert len(found) == COUNT - 2
    return found


class Process:
    """A command that runs in the background."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self.said = ""
        self.began = time.monotonic()
        variables = {name: value for name, value in os.environ.items() if "RANK" not in name and "WORLD" not in name}
        self.process = subprocess.Popen(
            command, env=variables | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def end(self, seconds: float = 120.0) -> int:
        """Wait for it; the exit status."""
        try:
            self.said += self.process.communicate(timeout=seconds)[1]
        finally:
            self.process.kill()
        return self.process.returncode


Start = Callable[..., tuple[Process, Process]]


@pytest.fixture
def start(elsewhere: list[str], program: Path, flags: list[str]) -> Iterator[Start]:
    """Start one process here (rank 0) and one on the other machine (rank 1), as a launcher on each would."""
    processes: list[Process] = []

    def both(*more: str, here: dict[str, str] | None = None, there: dict[str, str] | None = None) -> Any:
        command = [sys.executable, str(program), *flags, *more]
        launch = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
        launch |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
        processes.append(Process(command, **launch, RANK="0", **(here or {})))
        processes.append(Process([*elsewhere, *command], **launch, RANK="1", **(there or {})))
        return processes[-2:]

    yield both
    for each in processes:
        each.process.kill()
        each.process.wait()
        assert each.process.stderr is not None
        each.process.stderr.close()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def lines(out: Path, part: str = "*") -> list[dict[str, Any]]:
    """What the ledger says."""
    found = sorted((out / "_run" / "ledger").glob(f"{part}.jsonl"))
    return [orjson.loads(line) for path in found for line in path.read_bytes().splitlines() if line.endswith(b"}")]


def wait_for_records(out: Path, part: str, number: int) -> None:
    deadline = time.monotonic() + 60
    while sum("key" in line for line in lines(out, part)) < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run_json(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((out / "_run" / "run.json").read_bytes())
    return found


def check_whole(out: Path, undisturbed: dict[str, bytes]) -> None:
    assert json_outputs(out) == undisturbed
    assert run_json(out)["outcome"] == "complete"
    statuses = pq.read_table(out / "_run" / "manifest.pq").column("status").to_pylist()
    assert sorted(statuses) == ["done"] * (COUNT - 2) + ["failed"] * 2
    assert list((out / "_run" / "scratch").iterdir()) == []


def test_two_machines_do_each_record_once_with_all_their_cores(
    start: Start, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    here, there = start(there={"FIRST_PAUSE": str(STALE * 2)})  # that its part does not grow for so long is no matter
    assert (here.end(), there.end()) == (0, 0), here.said + there.said
    check_whole(tmp_path / "out", undisturbed)
    headers = [line["part"] for line in lines(tmp_path / "out") if "part" in line]
    assert {header["host"] for header in headers} == {socket.gethostname(), "hostb"}
    keys = [line["key"] for line in lines(tmp_path / "out") if "key" in line]
    assert len(keys) == len(set(keys)) == COUNT
    assert min(sum("key" in line for line in lines(tmp_path / "out", f"*rank{rank}of2")) for rank in (0, 1)) > 5
    for each in (here, there):
        assert f"threads {usable_cores()}\n" in each.said
    assert f"{COUNT - 2} of {COUNT} recordings embedded, 2 failed; {COUNT} in this attempt" in here.said
    assert "recordings" not in there.said


def test_a_machine_that_dies_in_the_middle_is_noticed_and_the_same_command_does_what_it_left(
    start: Start, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    here, there = start(there={"PAUSE": "0.5"})
    wait_for_records(out, "*rank1of2", 2)
    there.process.kill()
    killed = time.monotonic()
    assert here.end() == 1
    assert time.monotonic() - killed < STALE + 10
    assert f"Process 2 of 2 (process {there.process.pid} on hostb) died before it finished" in here.said
    assert "1 of the processes died. The same command resumes" in here.said
    assert run_json(out)["outcome"] == "incomplete"
    assert not (out / "_run" / "manifest.pq").exists()
    assert 0 < len(json_outputs(out)) < len(undisturbed)
    here, there = start()
    assert (here.end(), there.end()) == (0, 0), here.said + there.said
    check_whole(out, undisturbed)


@pytest.mark.slow
def test_where_the_main_process_dies_the_other_ends_by_itself_and_is_not_disturbed(
    start: Start, program: Path, flags: list[str], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    here, there = start(here={"PAUSE": "1"}, there={"PAUSE": "1"})
    wait_for_records(out, "*rank0of2", 2)
    wait_for_records(out, "*rank1of2", 2)
    here.process.kill()
    assert here.end() == -signal.SIGKILL
    too_early = Process([sys.executable, str(program), *flags])
    assert too_early.end() == 2
    assert f"in use by process {there.process.pid} on hostb" in too_early.said
    assert there.end() == 0, there.said
    assert run_json(out)["outcome"] == "running"
    here, there = start()
    assert (here.end(), there.end()) == (0, 0), here.said + there.said
    check_whole(out, undisturbed)


@pytest.mark.parametrize("refused", [pytest.param("here", marks=pytest.mark.slow), "there"])
def test_what_one_machine_refuses_none_begins(refused: str, start: Start, tmp_path: Path) -> None:
    here, there = start(**{refused: {"REFUSE": "no such engine"}})
    assert (here.end(), there.end()) == (2, 2)
    assert "no such engine" in here.said
    assert "no such engine" in there.said
    assert lines(tmp_path / "out") == []
    assert not (tmp_path / "out" / "_run" / "run.json").exists()


@pytest.mark.slow
def test_a_shard_that_was_launched_says_what_it_did_and_how_to_go_on(start: Start, tmp_path: Path) -> None:
    here, there = start("--shard", "1/2")
    assert (here.end(), there.end()) == (0, 0)
    keys = sum("key" in line for line in lines(tmp_path / "out"))
    assert f"Shard 1/2: {keys} recordings," in here.said
    assert f"ecgfounder merge {tmp_path / 'out'}" in here.said
    assert "Shard" not in there.said
