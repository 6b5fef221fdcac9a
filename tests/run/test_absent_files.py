"""A data folder that is wrong: what a run says of it, and that the records go on once it is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from ecgfounder.cohort.index import index_cohort
from ecgfounder.cohort.naming import Naming
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.commands.embed import print_preview, report
from ecgfounder.commands.terminal import Terminal
from ecgfounder.ledger.ledger import read_ledger
from ecgfounder.run import run as run_module
from ecgfounder.run.presence import Presence, look
from ecgfounder.run.run import Run, Summary
from tests.builders.cohorts import settings_for
from tests.harness.stand_ins import NullEngine

NAMES = ("a/1.npy", "a/2.npy", "b/3.npy", "b/4.npy")


class Heard:
    """A console that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None: ...


Start = Callable[..., tuple[Summary, list[str]]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A run over a table of relative paths, with an engine that costs nothing; also returns what it said."""
    for name in NAMES:
        path = tmp_path / "right" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.random.default_rng(len(name)).standard_normal((12, 600)).astype(np.float32))
    (tmp_path / "wrong").mkdir()
    (tmp_path / "weights.pth").write_bytes(b"weights")
    rows = [f"{name},{number}" for number, name in enumerate((*NAMES, "a/gone.npy"))]
    (tmp_path / "cohort.csv").write_text("\n".join(["ecg_paths,study", *rows]) + "\n")

    def run(folder: str, **more: Any) -> tuple[Summary, list[str]]:
        given = {"data_dir": str(tmp_path / folder)} | more
        settings = replace(settings_for(tmp_path / "cohort.csv", tmp_path / "out", tmp_path / "weights.pth"), **given)
        console = Heard()
        with mock.patch.object(run_module, "create_engine", return_value=NullEngine()):
            return Run(settings, console).execute(), console.lines

    return run


def counts(summary: Summary) -> tuple[int, int, int]:
    """Records of this attempt, and of all attempts those done and those failed."""
    assert summary.tally is not None
    return summary.processed, summary.tally.done, summary.tally.failed


@pytest.mark.parametrize("more", [{}, {"format": "parquet"}, {"id_column": "study"}, {"num_workers": 1}])
def test_records_without_a_file_are_tried_again_when_the_folder_is_right(start: Start, more: dict[str, Any]) -> None:
    assert counts(start("wrong", **more)[0]) == (5, 0, 5)
    assert counts(start("wrong", **more)[0]) == (0, 0, 5)
    summary, said = start("right", **more)
    assert counts(summary) == (4, 4, 1)
    assert any(line.startswith("4 recordings failed because their files did not exist") for line in said)
    assert counts(start("right", **more)[0]) == (0, 4, 1)
    assert counts(start("wrong", **more)[0]) == (0, 4, 1)  # files that are out of reach have not changed


def test_a_failure_of_another_kind_waits_for_retry_failed(start: Start, tmp_path: Path) -> None:
    damaged = tmp_path / "right" / NAMES[0]
    sound = damaged.read_bytes()
    damaged.write_bytes(b"\x93NUMPY and no more")
    assert counts(start("right")[0]) == (5, 3, 2)
    damaged.write_bytes(sound)
    assert counts(start("right")[0]) == (0, 3, 2)
    assert counts(start("right", retry_failed=True)[0]) == (2, 4, 1)


def test_each_shard_tries_its_own_records_again(start: Start, tmp_path: Path) -> None:
    for part in (1, 2, 3):
        start("wrong", shard=(part, 3))
    done = [start("right", shard=(part, 3))[0].processed for part in (1, 2, 3)]
    assert sum(done) == 4
    state = read_ledger(Run(settings_for(tmp_path, tmp_path / "out", tmp_path), Heard()).folder.ledger)
    assert (state.status.tolist().count(1), state.absent.sum()) == (4, 1)


# --- a sample of the files ----------------------------------------------------------------------------------------------


def warnings(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("WARNING")]


def test_an_attempt_warns_if_no_file_of_a_sample_exists(start: Start, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    assert warnings(start("wrong")[1]) == [
        f"WARNING: there is no file at {wrong}/a/1.npy, nor at 4 others that were looked at: is data_dir right? It is {wrong}"
    ]
    assert warnings(start("wrong")[1]) == []  # nothing is to do
    assert warnings(start("right")[1]) == []
    absolute = tmp_path / "absolute.csv"
    absolute.write_text("ecg_paths\n/nowhere/1.npy\n")
    (said,) = warnings(start("right", dataset=str(absolute), output_dir=tmp_path / "out-2")[1])
    assert said == (
        "WARNING: there is no file at /nowhere/1.npy: the dataset's paths are absolute; were the files moved?"
    )


def presence_of(folder: Path, paths: list[str], most: int, *, until_found: bool = False) -> Presence:
    (folder / "sampled.csv").write_text("\n".join(["ecg_paths", *paths]) + "\n")
    naming = Naming("flat", str(folder / "right"))
    cohort = open_cohort(str(folder / "sampled.csv"))
    index = index_cohort(cohort, naming, naming.data_dir)
    return look(cohort, index, index.first, naming, most, until_found=until_found)


def test_a_sample_is_spread_over_the_cohort_and_the_same_each_time(tmp_path: Path) -> None:
    (tmp_path / "right").mkdir()
    paths = [f"{number}.npy" for number in range(1000)]
    for name in paths[:500]:
        (tmp_path / "right" / name).touch()
    found = presence_of(tmp_path, paths, 100)
    assert (found.looked_at, found.absent, found.of) == (100, 50, 1000)
    assert found == presence_of(tmp_path, paths, 100)
    assert presence_of(tmp_path, paths, 2000).absent == 500
    assert presence_of(tmp_path, paths, 100, until_found=True).looked_at == 1


def test_a_file_counts_as_the_readers_find_it(tmp_path: Path) -> None:
    right = tmp_path / "right"
    right.mkdir()
    for name in ("record.hea", "exams.hdf5"):
        (right / name).touch()
    (right / "folder").mkdir()
    found = presence_of(tmp_path, ["record", "exams.hdf5::tracings/1", "sftp://host/x", "folder"], 10)
    assert (found.looked_at, found.absent, found.example) == (4, 1, str(right / "folder"))


@pytest.mark.parametrize("folder", ["wrong", "right"])
def test_a_dry_run_says_how_many_files_do_not_exist(
    folder: str, start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(tmp_path / "cohort.csv", tmp_path / "out", tmp_path / "weights.pth")
    settings = replace(settings, data_dir=str(tmp_path / folder))
    assert print_preview(Run(settings, Heard()).preview(), settings) == 0
    said = capsys.readouterr().out.splitlines()
    if folder == "right":
        assert f"files       4 of 5 found; no file at {tmp_path}/right/a/gone.npy, for example" in said
        assert not any("--data_dir" in line for line in said)
        (tmp_path / "right" / "a" / "gone.npy").touch()
        assert print_preview(Run(settings, Heard()).preview(), settings) == 0
        assert "files       5 of 5 found" in capsys.readouterr().out.splitlines()
    else:
        assert f"files       0 of 5 found; no file at {tmp_path}/wrong/a/1.npy, for example" in said
        assert f"advice      is --data_dir right? It is {tmp_path}/wrong" in said


# --- what the owner sees, and what is shared -----------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"format": "parquet"}])
def test_with_identifiers_the_path_of_a_failure_is_in_the_ledger_and_on_the_terminal_alone(
    start: Start, tmp_path: Path, more: dict[str, Any]
) -> None:
    (tmp_path / "right" / NAMES[0]).write_bytes(b"\x93NUMPY and no more")
    summary, _ = start("right", id_column="study", **more)
    assert summary.tally is not None
    damaged, gone = tmp_path / "right" / NAMES[0], tmp_path / "right" / "a" / "gone.npy"
    assert [record for record, _ in summary.tally.failures] == [f"0 ({damaged})", f"4 ({gone})"]
    (part,) = (tmp_path / "out" / "_run" / "ledger").glob("*.jsonl")
    entries = [orjson.loads(line) for line in part.read_bytes().splitlines()]
    assert {entry.get("file") for entry in entries if "record" in entry} == {None, str(damaged), str(gone)}
    others = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path != part]
    assert not [path for path in others if b".npy" in path.read_bytes()]
    rows = pq.read_table(tmp_path / "out" / "_run" / "manifest.pq").to_pylist()
    assert not any(".npy" in str(value) for row in rows for value in row.values())


def test_a_shard_says_how_its_failures_are_tried_again(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(tmp_path / "cohort.csv", tmp_path / "out", tmp_path / "weights.pth")
    last = []
    for _ in range(2):
        summary = start("wrong", shard=(1, 2))[0]
        report(summary, settings, Terminal())
        last.append(capsys.readouterr().err.splitlines()[-1])
    n = summary.plan.failed
    assert last == [
        f"{n} failed; --retry_failed tries them again",
        f"{n} failed before; --retry_failed tries them again",
    ]
