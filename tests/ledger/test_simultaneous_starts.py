"""Attempts that start at the same instant: shards of one division work side by side, and of identical ones exactly one works."""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import orjson
import pyarrow.parquet as pq
import pytest

from ecgfounder import cli
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import RunError
from ecgfounder.ledger.admission import take_folder
from ecgfounder.ledger.conclusion import merge
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.record import CohortSettings, RunRecord
from ecgfounder.ledger.removal import clean_scratch
from ecgfounder.run import run as run_module
from tests.builders.cohorts import write_cohort
from tests.harness.stand_ins import NullEngine

AT_ONCE = 4
SHARDS = [(number, AT_ONCE) for number in range(1, AT_ONCE + 1)]
WHOLE = [(1, 1)] * AT_ONCE

fork = multiprocessing.get_context("fork")


def take_and_hold(pipe: Connection, barrier: Any, shard: tuple[int, int]) -> None:
    """Rounds of one process: take a folder, work in its scratch folder while the others try, let go."""
    while (output_dir := pipe.recv()) is not None:
        folder = RunFolder(output_dir)
        barrier.wait()
        said: str | None = None
        lock = None
        try:
            lock = take_folder(folder, shard)
            if shard == (1, 1):
                clean_scratch(folder)
            unfinished = folder.scratch / f"{os.getpid()}.part"
            unfinished.write_text("in the middle of it")
        except RunError as error:
            said = str(error)
        except Exception:  # noqa: BLE001 - reported by the test
            said = traceback.format_exc()
        barrier.wait()
        if lock is not None:
            disturbed = not unfinished.exists()
            lock.release()
            said = "disturbed" if disturbed else None
        pipe.send(said)
        barrier.wait()


@contextmanager
def contenders(shards: list[tuple[int, int]]) -> Iterator[tuple[list[Connection], list[int]]]:
    barrier = fork.Barrier(len(shards))
    pipes, processes = [], []
    for shard in shards:
        ours, theirs = fork.Pipe()
        processes.append(fork.Process(target=take_and_hold, args=(theirs, barrier, shard), daemon=True))
        processes[-1].start()
        pipes.append(ours)
    try:
        yield pipes, [process.pid or 0 for process in processes]
        for pipe in pipes:
            pipe.send(None)
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def answers(pipes: list[Connection], output_dir: Path) -> list[str | None]:
    for pipe in pipes:
        pipe.send(output_dir)
    return [pipe.recv() for pipe in pipes]


@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_shards_that_start_at_the_same_instant_are_all_admitted(rounds: int, tmp_path: Path) -> None:
    with contenders(SHARDS) as (pipes, _):
        for number in range(rounds):
            assert answers(pipes, tmp_path / str(number)) == [None] * AT_ONCE, f"in round {number}"


@pytest.mark.parametrize("rounds", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_of_identical_starts_at_the_same_instant_one_works_and_the_others_name_it_and_disturb_nothing(
    rounds: int, tmp_path: Path
) -> None:
    with contenders(WHOLE) as (pipes, pids):
        for number in range(rounds):
            said = answers(pipes, tmp_path / str(number // 2))  # a new folder, and one that was used
            winners = [pid for pid, word in zip(pids, said, strict=True) if word is None]
            assert len(winners) == 1, f"in round {number}: {said}"
            for word in filter(None, said):
                assert f"is in use by process {winners[0]} on " in word, f"in round {number}"


def test_a_folder_that_another_start_makes_meanwhile_is_not_taken_for_someone_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, look = RunFolder(tmp_path / "out"), Path.iterdir

    def late(path: Path) -> Iterator[Path]:
        if path == folder.output_dir.path:
            (path / "_run").mkdir(exist_ok=True)
            (path / "a.json").touch()
        return look(path)

    monkeypatch.setattr(Path, "iterdir", late)
    take_folder(folder, (1, 4)).release()


def test_where_locks_are_not_offered_one_of_several_starts_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _kind: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    with contenders(WHOLE) as (pipes, _):
        for number in range(3):
            said = answers(pipes, tmp_path / str(number))
            assert said.count(None) == 1, said
            assert all("is in use by process" in word for word in filter(None, said))


def test_of_records_that_are_begun_at_once_one_stands(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.path.mkdir()
    first, second = (
        RunRecord(
            fingerprint={"pooling": pooling}, settings=CohortSettings(dataset="a.csv"), run_id=pooling, format_version=2
        )
        for pooling in ("none", "mean")
    )
    assert folder.create(first)
    assert not folder.create(second)
    found = folder.read()
    assert found is not None
    assert found.run_id == "none"


def command(arguments: list[str], go: int, lines: Path) -> NoReturn:
    """A whole command in this (forked) process, all but its imports and the network; it begins when `go` is written to."""
    status = 99
    try:
        file = os.open(lines, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 2)
        sys.stderr = os.fdopen(2, "w", closefd=False)
        os.read(go, 1)
        with mock.patch.object(run_module, "create_engine", return_value=NullEngine()):
            status = cli.main(arguments)
    finally:
        os._exit(status)


def commands(arguments: list[str], shards: list[tuple[int, int]], scratch: Path) -> list[tuple[int, str]]:
    """Commands that begin at the same instant; exit status and lines of each."""
    reads, writes = os.pipe()
    children = []
    for number, (part, parts) in enumerate(shards):
        child = os.fork()
        if child == 0:
            command(["embed", *arguments, "--shard", f"{part}/{parts}"], reads, scratch / f"lines{number}")
        children.append(child)
    os.write(writes, b"." * len(shards))
    os.close(reads)
    os.close(writes)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    said = [(scratch / f"lines{number}") for number in range(len(shards))]
    ended = [(status, lines.read_text()) for status, lines in zip(statuses, said, strict=True)]
    for lines in said:
        lines.unlink()
    return ended


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("at_once")
    write_cohort(folder / "cohort")
    (folder / "weights.pth").write_bytes(b"weights")
    flags = ["--dataset", str(folder / "cohort"), "--checkpoint", str(folder / "weights.pth"), "--sampling_rate", "500"]
    return [*flags, "--unit", "mV", "--num_workers", "0", "--batch_size", "2", "--leads", ",".join(STANDARD_LEADS)]


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_commands_of_a_job_array_that_start_at_once_do_the_whole_cohort(
    rounds: int, arguments: list[str], tmp_path: Path
) -> None:
    for number in range(rounds):
        out = tmp_path / str(number)
        for status, lines in commands([*arguments, "--output_dir", str(out)], SHARDS, tmp_path):
            assert status in (0, 1), lines
            assert "When all shards are done" in lines
        tally = merge(out)
        assert (tally.done, tally.failed, tally.pending) == (19, 2, 0)


@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_of_identical_commands_that_start_at_once_one_does_it_all(
    rounds: int, arguments: list[str], tmp_path: Path
) -> None:
    for number in range(rounds):
        out = tmp_path / str(number)
        ended = commands([*arguments, "--output_dir", str(out)], WHOLE, tmp_path)
        refused = [lines for status, lines in ended if status == 2]
        # A command that was slow to begin may find the first one's run complete, and has nothing to do.
        assert all(re.search(r"is in use by process \d+ on ", lines) for lines in refused), ended
        worked = [lines for status, lines in ended if status == 1]
        assert worked
        assert len(worked) + len(refused) == AT_ONCE, ended
        assert sum("to do: 21" in lines for lines in worked) == 1, ended
        assert orjson.loads((out / "_run" / "run.json").read_bytes())["outcome"] == "complete"
        statuses = pq.read_table(out / "_run" / "manifest.pq").column("status").to_pylist()
        assert sorted(statuses) == ["done"] * 19 + ["failed"] * 2
        assert list((out / "_run" / "scratch").iterdir()) == []
