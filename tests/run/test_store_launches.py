"""Several processes of one launch write to a bucket, on one machine and on two, also when one of them dies or all are stopped."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from ecgfounder.storage import Location, locate
from tests.builders.cohorts import write_cohort
from tests.harness.launches import STALE, Process, as_another_machine, launch_of, program_flags, write_program
from tests.harness.outputs import json_outputs
from tests.harness.store_faults import check_sealed, json_objects, rows_of_shards

pytestmark = pytest.mark.services

COUNT, DONE, FAILED = 40, 38, 2

Launch = Callable[..., list[Process]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_program(tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("launches") / "cohort"
    write_cohort(folder, COUNT)
    return folder


@pytest.fixture
def out(bucket: str) -> Location:
    return locate(f"s3://{bucket}/run")


@pytest.fixture
def undisturbed(cohort: Path, program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outputs of one process in a folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    alone = Process([sys.executable, str(program), *program_flags(cohort, folder / "out", folder)])
    assert alone.end() == 1, alone.said
    return json_outputs(folder / "out")


@pytest.fixture
def launch(out: Location, program: Path, cohort: Path, tmp_path: Path) -> Iterator[Launch]:
    """Start the processes of a launch; `pauses` are those of each rank, `before` stands before the last one's command."""
    processes: list[Process] = []

    def start(*more: str, pauses: tuple[float, ...] = (0, 0), before: list[str] | None = None) -> list[Process]:
        command = [sys.executable, str(program), *program_flags(cohort, str(out), tmp_path), *more]
        environment = launch_of(len(pauses)) if len(pauses) > 1 else {}
        for rank, pause in enumerate(pauses):
            words = [*(before or []), *command] if rank == len(pauses) - 1 else command
            processes.append(Process(words, **environment, RANK=str(rank), PAUSE=str(pause)))
        return processes[-len(pauses) :]

    yield start
    for each in processes:
        each.process.kill()
        each.process.wait()
        assert each.process.stderr is not None
        each.process.stderr.close()


def ends(processes: list[Process]) -> list[int]:
    return [each.end() for each in processes]


def wait_for_parts(out: Location, shard: str, number: int) -> None:
    deadline = time.monotonic() + 60
    while sum(f"-shard{shard}-" in name for name in (out / "_run" / "ledger").names()) < number:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_processes_of_a_launch_do_each_record_once(
    launch: Launch, out: Location, undisturbed: dict[str, bytes]
) -> None:
    processes = launch(pauses=(0, 0, 0))
    assert ends(processes) == [0, 0, 0], processes[0].said
    assert json_objects(out) == undisturbed
    check_sealed(out, DONE, FAILED)
    assert f"{DONE} of {COUNT} recordings embedded, {FAILED} failed; {COUNT} in this attempt" in processes[0].said
    assert "recordings" not in processes[1].said
    names = list((out / "_run" / "ledger").names())
    assert all(any(f"-shard{rank}of3-" in name for name in names) for rank in (1, 2, 3))
    alone = launch(pauses=(0,))  # another number of processes finds everything done
    assert ends(alone) == [1], alone[0].said
    assert f"to do: 0, done before: {DONE}" in alone[0].said


def test_shards_of_rows_are_written_by_all_and_overwritten_as_a_whole(launch: Launch, out: Location) -> None:
    flags = ("--format", "parquet", "--layout", "flat", "--shard_size", "6")
    assert ends(launch(*flags)) == [0, 0]
    rows = rows_of_shards(out)
    check_sealed(out, DONE, FAILED)
    processes = launch(*flags, "--overwrite")
    assert ends(processes) == [0, 0], processes[0].said
    assert rows_of_shards(out) == rows
    check_sealed(out, DONE, FAILED)


@pytest.mark.parametrize("other", [pytest.param("here", marks=pytest.mark.slow), "there"])
def test_a_process_that_dies_is_noticed_and_any_number_of_processes_does_what_it_left(
    other: str, launch: Launch, out: Location, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    before = as_another_machine(tmp_path) if other == "there" else []
    if before is None:
        pytest.skip("a second machine cannot be simulated: this system gives its users no namespaces")
    main, dying = launch(pauses=(0, 0.5), before=before)
    wait_for_parts(out, "2of2", 1)
    dying.process.kill()
    killed = time.monotonic()
    assert main.end() == 1
    assert time.monotonic() - killed < STALE + 12
    assert f"Process 2 of 2 (process {dying.process.pid} on " in main.said
    assert "died before it finished" in main.said
    assert orjson.loads((out / "_run" / "run.json").read())["outcome"] == "incomplete"
    n_done = len(json_objects(out))
    assert 0 < n_done < DONE
    again = launch(pauses=(0,) if other == "here" else (0, 0, 0))
    assert set(ends(again)) == ({1} if other == "here" else {0}), again[0].said
    assert json_objects(out) == undisturbed
    check_sealed(out, DONE, FAILED)


def test_a_launch_that_is_stopped_is_resumed_and_meanwhile_no_other_begins(
    launch: Launch, out: Location, undisturbed: dict[str, bytes]
) -> None:
    first = launch(pauses=(4, 4))  # longer than the second needs to be refused
    wait_for_parts(out, "1of2", 1)
    wait_for_parts(out, "2of2", 1)
    second = launch(pauses=(0, 0))
    assert ends(second) == [2, 2]
    assert f"is in use by process {first[0].process.pid} on" in second[0].said
    for each in first:
        each.process.send_signal(signal.SIGTERM)
    assert ends(first) == [128 + signal.SIGTERM] * 2, first[0].said
    assert orjson.loads((out / "_run" / "run.json").read())["outcome"] == "interrupted"
    assert 0 < len(json_objects(out)) < DONE
    assert ends(launch()) == [0, 0]
    assert json_objects(out) == undisturbed
    check_sealed(out, DONE, FAILED)


def test_a_launch_cannot_be_one_of_several_shards(launch: Launch, out: Location) -> None:
    processes = launch("--shard", "1/2")
    assert ends(processes) == [2, 2]
    assert "start the shards without a launcher" in processes[0].said
    assert list(out.names()) == []
