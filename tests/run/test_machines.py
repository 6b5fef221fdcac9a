"""Several machines that share a folder do one cohort under one launch, also when one of them dies.

The other machine is simulated: its processes have another host name and another kernel identifier, so that nothing but the
shared folder and the network tells the first one of them.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from ecgfounder.machine import usable_cores
from tests.builders.cohorts import write_cohort
from tests.harness.launches import STALE, Process, as_another_machine, launch_of, program_flags, write_program
from tests.harness.outputs import json_outputs

pytestmark = pytest.mark.services

COUNT = 40


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What to put before a command so that it runs on another machine, as far as it can tell."""
    words = as_another_machine(tmp_path_factory.mktemp("machine"))
    if words is None:
        pytest.skip("a second machine cannot be simulated: this system gives its users no namespaces")
    return words


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("machines") / "cohort"
    write_cohort(folder, COUNT)
    return folder


@pytest.fixture
def flags(cohort: Path, tmp_path: Path) -> list[str]:
    return program_flags(cohort, tmp_path / "out", tmp_path)


@pytest.fixture(scope="module")
def undisturbed(cohort: Path, program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outputs of one process on one machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    alone = Process([sys.executable, str(program), *program_flags(cohort, folder / "out", folder)])
    assert alone.end() == 1, alone.said
    found = json_outputs(folder / "out")
    assert len(found) == COUNT - 2
    return found


Start = Callable[..., tuple[Process, Process]]


@pytest.fixture
def start(elsewhere: list[str], program: Path, flags: list[str]) -> Iterator[Start]:
    """Start one process here (rank 0) and one on the other machine (rank 1), as a launcher on each would."""
    processes: list[Process] = []

    def both(*more: str, here: dict[str, str] | None = None, there: dict[str, str] | None = None) -> Any:
        command = [sys.executable, str(program), *flags, *more]
        launch = launch_of(2)
        processes.append(Process(command, **launch, RANK="0", **(here or {})))
        processes.append(Process([*elsewhere, *command], **launch, RANK="1", **(there or {})))
        return processes[-2:]

    yield both
    for each in processes:
        each.process.kill()
        each.process.wait()
        assert each.process.stderr is not None
        each.process.stderr.close()


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


@pytest.mark.parametrize("rank", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_process_that_waits_for_one_that_does_not_come_can_be_stopped(
    rank: str, program: Path, flags: list[str], tmp_path: Path
) -> None:
    alone = Process([sys.executable, str(program), *flags], **launch_of(2), RANK=rank, TELL_WAITING="1")
    assert alone.process.stderr is not None
    for line in alone.process.stderr:
        alone.said += line
        if "waiting" in line:
            break
    time.sleep(1)  # now it waits in a library
    stopped = time.monotonic()
    alone.process.terminate()
    assert alone.end() == 128 + signal.SIGTERM, alone.said
    assert time.monotonic() - stopped < 15
    assert "stopped by SIGTERM" in alone.said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_shard_that_was_launched_says_what_it_did_and_how_to_go_on(start: Start, tmp_path: Path) -> None:
    here, there = start("--shard", "1/2")
    assert (here.end(), there.end()) == (0, 0)
    keys = sum("key" in line for line in lines(tmp_path / "out"))
    assert f"Shard 1/2: {keys} recordings," in here.said
    assert f"ecgfounder merge {tmp_path / 'out'}" in here.said
    assert "Shard" not in there.said
