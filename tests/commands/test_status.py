"""`ecgfounder status`: what it says of a run that works, has died, was interrupted or is complete, in a folder and in a store."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ecgfounder.cli import main
from ecgfounder.commands.status import ranges
from ecgfounder.ledger.entry import PartEnd, PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.epochs import seal_epoch, take_epoch
from ecgfounder.ledger.groups.hold import LEASES
from ecgfounder.ledger.groups.lease import Lease
from ecgfounder.ledger.groups.names import part_of_group
from ecgfounder.ledger.groups.writer import DRIVER, GROUP, GroupWriter
from ecgfounder.ledger.ledger import LedgerWriter, part_name
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.record import CohortSettings, RunRecord, now
from ecgfounder.ledger.status import run_status
from ecgfounder.storage import Location
from tests.builders.entries import entry_of
from tests.places import ROOT

pytestmark = pytest.mark.usefixtures("known_files")

Embed = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def flags(demo_cohort: Path, checkpoint_12lead: Path) -> list[str]:
    cohort = ["--dataset", str(demo_cohort / "ecg"), "--checkpoint", str(checkpoint_12lead)]
    return ["embed", *cohort, "--window", "1", "--pooling", "mean", "--num_workers", "0"]


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    status = main(["status", *words])
    return status, capsys.readouterr().out


def test_a_complete_run_says_so_and_what_failed(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main([*flags, "--output_dir", out]) == 1
    status, said = shown(capsys, out)
    assert status == 1  # one recording is damaged
    assert re.fullmatch(
        rf"run         {re.escape(out)}: complete, begun \S+Z\n"
        r"done        12 of 13 recordings, 1 failed, 0 to do\n"
        r"failed      --retry_failed tries them again; _run/failures.csv has the reasons\n",
        said,
    )


def test_shards_that_were_not_begun_are_named_and_a_merge_follows(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    for shard in (1, 3):
        main([*flags, "--output_dir", out, "--shard", f"{shard}/4"])
    status, said = shown(capsys, out)
    assert status == 1
    lines = said.splitlines()
    assert lines[0].startswith(f"run         {out}: incomplete, 4 shards, begun ")
    assert [line.split()[:3] for line in lines if "/4 " in line and "SCRIPT" not in line] == [
        ["1/4", "complete", "3"],
        ["2/4", "not", "begun"],
        ["3/4", "complete", "4"],
        ["4/4", "not", "begun"],
    ]
    assert lines[-1] == "again       shards 2,4 of 4: sbatch --array=2,4 SCRIPT, or embed --shard I/4"
    for shard in (2, 4):
        main([*flags, "--output_dir", out, "--shard", f"{shard}/4"])
    status, said = shown(capsys, out)
    assert said.splitlines()[-2:] == [
        f"next        ecgfounder merge {out}",
        "failed      --retry_failed tries them again; _run/failures.csv has the reasons",
    ]
    main(["merge", out])
    assert "merge" not in shown(capsys, out)[1]


def test_json_has_every_shard_and_process(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    main([*flags, "--output_dir", out, "--shard", "1/2"])
    found = orjson.loads(shown(capsys, out, "--json")[1])
    assert (found["outcome"], found["state"], found["again"]) == ("running", "incomplete", ["2/2"])
    first, second = found["shards"]
    assert first["state"] == "complete"
    assert first["done"] + first["failed"] == first["recordings"] == 13 - second["recordings"]
    (worker,) = first["workers"]
    assert (worker["state"], worker["pid"], worker["rank"], worker["processes"]) == ("complete", os.getpid(), 0, 1)
    assert (worker["done"], worker["failed"]) == (first["done"], first["failed"])
    assert second == second | {"state": "not begun", "workers": [], "pending": second["recordings"]}


def test_a_place_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


N_COPIES = 400


@pytest.fixture
def working(flags: list[str], tmp_path: Path, demo_cohort: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has done some of its recordings, and is suspended."""
    (content,) = (path.read_bytes() for path in demo_cohort.rglob("ecg_0001.xml"))
    (tmp_path / "cohort").mkdir()
    for number in range(N_COPIES):
        (tmp_path / "cohort" / f"{number}.xml").write_bytes(content)
    words = [*flags, "--dataset", str(tmp_path / "cohort"), "--output_dir", str(tmp_path / "out"), "--batch_size", "1"]
    process = subprocess.Popen([sys.executable, "-m", "ecgfounder.cli", *words], stderr=subprocess.DEVNULL, text=True)
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "out").glob("*.json"))) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)
    yield process
    process.kill()
    process.wait()


def test_a_run_is_seen_while_it_works_and_after_it_was_killed(
    working: subprocess.Popen[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    status, said = shown(capsys, out)
    assert status == 0
    lines = said.splitlines()
    assert lines[0].startswith(f"run         {out}: working, begun ")
    numbers = re.fullmatch(rf"done        (\d+) of {N_COPIES} recordings, 0 failed, (\d+) to do", lines[1])
    assert numbers is not None
    assert int(numbers[1]) + int(numbers[2]) == N_COPIES
    assert int(numbers[1]) >= 3
    assert re.fullmatch(r"rate        \d+\.\d ECG/s, about \d\d:\d\d:\d\d left", lines[2])
    assert f"process {working.pid} on " in lines[-1]
    working.send_signal(signal.SIGKILL)
    working.wait()
    status, said = shown(capsys, out)
    assert status == 1
    assert ": died, begun " in said
    assert re.search(
        rf"1/1 +died +\d+ +0 +\d+ +\d+\.\d  process {working.pid} on \S+, silent for \d\d:\d\d:\d\d\n", said
    )
    assert said.endswith("again       the same command resumes the run\n")


# --- what is in the folder, written by hand ----------------------------------------------------------------------------


def record(**more: Any) -> RunRecord:
    preparation = {
        "mode": "12lead",
        "lead": None,
        "stride": None,
        "remainder": "drop",
        "recipe": {"name": "a", "version": "1"},
    }
    form = {"format": "json", "pooling": "mean", "dtype": "float32", "layout": "flat"}
    fingerprint = {"preparation": preparation, **form, "predictions": False, "statements": False}
    settings = CohortSettings(dataset="d", shards=more.pop("shards", 1))
    return RunRecord(fingerprint=fingerprint, settings=settings, started=now(), format_version=2, **more)


def local_run(tmp_path: Path, made: RunRecord) -> RunFolder:
    folder = RunFolder(tmp_path / "out")
    folder.ledger.path.mkdir(parents=True)
    folder.write(made)
    return folder


def part(
    folder: RunFolder, rank: int, header: PartHeader, *, size: int = 1, shard: tuple[int, int] = (1, 1), stamp: int = 1
) -> LedgerWriter:
    return LedgerWriter(folder.ledger.path / part_name(stamp, shard, rank, size), header)


def test_the_processes_of_a_launch_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = local_run(tmp_path, record(shard_sizes=(10,)))
    here = PartHeader(**own_name(), started=now())
    ended = part(folder, 0, here, size=3)
    ended.append([entry_of(1), entry_of(2, "failed", error="ReadError", reason="damaged")])
    ended.end(PartEnd(outcome="complete", done=1, failed=1))
    gone = part(folder, 1, replace(here, pid=2**22 + 1), size=3)
    gone.append([entry_of(3)])
    gone.abandon()
    stopped = part(folder, 2, here, size=3)
    stopped.end(PartEnd(outcome="interrupted"))
    (shard,) = run_status(folder).shards
    assert [(each.rank, each.state, each.done, each.failed) for each in shard.workers] == [
        (0, "complete", 1, 1),
        (1, "died", 1, 0),
        (2, "interrupted", 0, 0),
    ]
    assert (shard.state, shard.pending) == ("died", 7)
    said = shown(capsys, str(tmp_path / "out"))[1]
    assert re.search(r"shard  process  state        done  failed  to do  ", said)
    assert re.search(r"\n1/1    2/3      died            1       0         ", said)


def test_only_the_newest_attempt_at_a_shard_says_whether_it_works(tmp_path: Path) -> None:
    folder = local_run(tmp_path, record(shard_sizes=(4, 4), shards=2))
    here = PartHeader(**own_name(), started=now())
    part(folder, 0, replace(here, pid=2**22 + 1), shard=(1, 2), stamp=1).abandon()
    newer = part(folder, 0, here, shard=(1, 2), stamp=2)
    found = run_status(folder)
    assert [shard.state for shard in found.shards] == ["working", "not begun"]
    assert found.again == ((2, 2),)
    newer.end(PartEnd(outcome="interrupted"))
    assert run_status(folder).again == ((1, 2), (2, 2))


def test_a_process_that_appends_where_groups_were_committed_is_seen(tmp_path: Path) -> None:
    folder = local_run(tmp_path, record(shard_sizes=(4,)))
    seal_epoch(folder.run, take_epoch(folder.run, (1, 1)))
    epoch = take_epoch(folder.run, (1, 1))
    name = part_of_group(epoch.stamp, (1, 1), epoch.number, "rank", 0)
    writer = LedgerWriter(folder.ledger.path / name, PartHeader(**own_name(), started=now()))
    writer.append([entry_of(1)])
    (shard,) = run_status(folder).shards
    assert [(each.rank, each.processes, each.state, each.done) for each in shard.workers] == [(0, 1, "working", 1)]
    writer.end(PartEnd(outcome="interrupted", done=1))
    assert run_status(folder).state == "interrupted"


def test_entries_that_are_renewed_are_no_work(tmp_path: Path) -> None:
    folder = local_run(tmp_path, record(shard_sizes=(3,)))
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 100))
    writer = part(folder, 0, PartHeader(**own_name(), started=began, renewed=2))
    writer.append([entry_of(1), entry_of(2), entry_of(3)])
    ((worker,),) = (shard.workers for shard in run_status(folder).shards)
    assert worker.done == 1
    assert worker.rate == pytest.approx(0.01, rel=0.05)
    writer.abandon()


def test_a_silent_process_of_another_machine_has_died(tmp_path: Path) -> None:
    folder = local_run(tmp_path, record(shard_sizes=(2,)))
    writer = part(folder, 0, PartHeader(host="node7", pid=7, boot="other", pid_namespace="other", started=now()))
    assert run_status(folder).state == "working"
    writer.abandon()
    os.utime(writer.path, (time.time() - 500, time.time() - 500))
    found = run_status(folder)
    assert found.state == "died"
    assert found.shards[0].workers[0].silent == pytest.approx(500, abs=5)


def test_a_record_without_sizes_gives_what_the_ledger_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = local_run(tmp_path, record())
    writer = part(folder, 0, PartHeader(host="here", pid=1))
    writer.append([entry_of(1)])
    writer.end(PartEnd(outcome="complete", done=1))
    found = run_status(folder)
    assert (found.pending, found.state) == (None, "complete")
    assert "done        1, 0 failed\n" in shown(capsys, str(tmp_path / "out"))[1]


@pytest.mark.parametrize("shards", [0, -3])
def test_a_record_with_an_impossible_division_is_refused(
    shards: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local_run(tmp_path, record(shards=shards))
    assert main(["status", str(tmp_path / "out")]) == 2
    assert "is not a run record" in capsys.readouterr().err


# --- in a store --------------------------------------------------------------------------------------------------------


def test_a_run_in_a_store_is_working_while_its_lease_is_held_and_complete_once_sealed(elsewhere: Location) -> None:
    folder = RunFolder(elsewhere)
    folder.write(record(shard_sizes=(2, 2), shards=2))
    with Lease(folder.run / LEASES, (1, 2), "out"):
        epoch = take_epoch(folder.run, (1, 2))
        header = PartHeader(**own_name(), started=now())
        numbers = iter(range(1, 9))
        renewals = GroupWriter(folder.ledger, epoch, header, lambda: None, numbers, kind=DRIVER)
        renewals.append([entry_of(0)])
        renewals.end(PartEnd())
        writer = GroupWriter(folder.ledger, epoch, header, lambda: None, numbers, kind=GROUP)
        writer.append([entry_of(2)])
        writer.end(PartEnd())
        first, second = run_status(folder).shards
        assert (first.state, first.done, first.pending) == ("working", 2, 0)
        assert [(each.state, each.done, each.pid) for each in first.workers] == [("working", 1, os.getpid())]
        assert second.state == "not begun"
    assert run_status(folder).shards[0].workers[0].state == "interrupted"
    seal_epoch(folder.run, epoch)
    found = run_status(folder)
    assert (found.shards[0].workers[0].state, found.again) == ("complete", ((2, 2),))


def test_each_process_of_a_launch_to_a_store_has_an_epoch_of_its_own(elsewhere: Location) -> None:
    folder = RunFolder(elsewhere)
    folder.write(record(shard_sizes=(5,), processes=2))
    seal_epoch(folder.run, take_epoch(folder.run, (1, 1)))
    with Lease(folder.run / LEASES, (1, 2), "out"):
        first, second = (take_epoch(folder.run, (i, 2)) for i in (1, 2))
        writer = GroupWriter(folder.ledger, second, PartHeader(**own_name(), started=now()), lambda: None, iter((1,)))
        writer.append([entry_of(3)])
        writer.end(PartEnd())
        (whole,) = run_status(folder).shards
        assert (whole.state, whole.done, whole.pending) == ("working", 1, 4)
        assert [(each.rank, each.processes, each.state, each.done) for each in whole.workers] == [
            (0, 2, "working", 0),
            (1, 2, "interrupted", 1),
        ]
    seal_epoch(folder.run, first)
    assert run_status(folder).again == ((1, 1),)


def test_a_run_in_a_store_whose_machine_is_gone_has_died(elsewhere: Location) -> None:
    folder = RunFolder(elsewhere)
    folder.write(record(shard_sizes=(2,)))
    lease = Lease(folder.run / LEASES, (1, 1), "out")
    take_epoch(folder.run, (1, 1))
    (name,) = (folder.run / LEASES / "whole").names()
    dead = own_name() | {"pid": 2**22 + 1, "state": "held", "token": uuid.uuid4().hex}
    (folder.run / LEASES / "whole" / name).put(orjson.dumps(dead))
    assert run_status(folder).state == "died"
    lease.release()


def test_numbers_are_written_as_schedulers_take_them() -> None:
    assert [ranges(each) for each in ([], [4], [1, 2], [1, 3, 4, 5])] == ["", "4", "1-2", "1,3-5"]


@pytest.mark.parametrize("kind", ["json", "parquet"])
def test_runs_of_version_0_1_0_have_a_status(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = shown(capsys, str(ROOT / "tests" / "data" / "run_0_1_0" / kind))
    assert status == 1
    assert ": complete, begun " in said
    assert "done        3, 1 failed\n" in said


def test_an_export_has_the_status_of_its_run_and_nothing_to_retry(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*flags, "--output_dir", str(tmp_path / "out")])
    main(["export", str(tmp_path / "out"), "--to", "npy", "--output_dir", str(tmp_path / "npy")])
    said = shown(capsys, str(tmp_path / "npy"))[1]
    assert said.endswith("done        12 of 13 recordings, 1 failed, 0 to do\n")
