"""Hostile days: each kind of trouble is refused before the start or recorded, and never gives a wrong or misplaced output."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.drivers.launch import Launch
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import CohortError, RunError
from ecgfounder.ledger import liveness
from ecgfounder.ledger.conclusion import merge
from ecgfounder.results.run import open_run
from ecgfounder.run import plan as resume
from ecgfounder.run import run as extract
from ecgfounder.run.budget import Budget
from ecgfounder.run.run import Run, Summary
from ecgfounder.stages.read import Job
from tests.builders.cohorts import settings_for
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine, Silent

Start = Callable[..., Summary]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A run over `tmp_path/in` or a table, with an engine that costs nothing."""
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")

    def run(cohort: Path | None = None, out: Path | None = None, **more: Any) -> Summary:
        settings = settings_for(cohort or tmp_path / "in", out or tmp_path / "out", checkpoint, **more)
        with mock.patch.object(extract, "create_engine", return_value=NullEngine()):
            return Run(settings, Silent()).execute()

    return run


def save(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.save(file, np.random.default_rng(seed).standard_normal((12, 600)).astype(np.float32))
    return path


def manifest(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(out / "_run" / "manifest.pq").to_pylist()
    return rows


def table(path: Path, cells: list[Any]) -> Path:
    pq.write_table(pa.table({"ecg_paths": cells}), path)
    return path


def reasons(out: Path) -> dict[str, str]:
    return {Path(row["record"]).name: row["reason"] for row in manifest(out) if row["status"] == "failed"}


def test_fifo_device_folder_and_loop_are_recorded_failures(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "good.npy")
    os.mkfifo(tmp_path / "in" / "pipe.npy")
    (tmp_path / "in" / "loop.npy").symlink_to(tmp_path / "in" / "loop.npy")
    (tmp_path / "in" / "folder.npy").mkdir()
    paths = [str(tmp_path / "in" / name) for name in ("good.npy", "pipe.npy", "loop.npy", "folder.npy")]
    cohort = table(tmp_path / "c.parquet", [[*paths, "/dev/zero", "nowhere.npy", "nul\0.npy"]])
    summary = start(cohort, data_dir=str(tmp_path / "in"))
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (1, 6)
    found = reasons(tmp_path / "out")
    assert "not a regular file" in found["pipe.npy"]
    assert "not a regular file" in found["folder.npy"]
    assert "not a regular file" in found["zero"]
    assert "symbolic link" in found["loop.npy"]
    assert "No such file" in found["nowhere.npy"]
    assert list(json_outputs(tmp_path / "out")) == ["good.json"]


@pytest.mark.parametrize("count", [2_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_row_of_thousands_of_paths_is_as_many_records(count: int, start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy")
    paths = [f"missing_{number}.npy" for number in range(count - 1)]
    cohort = table(tmp_path / "c.parquet", [["a.npy", *paths]])
    summary = start(cohort, data_dir=str(tmp_path / "in"), format="parquet")
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (1, count - 1)
    assert [row["path_index"] for row in manifest(tmp_path / "out")] == list(range(count))


def test_tree_layout_never_leaves_the_output_folder(start: Start, tmp_path: Path) -> None:
    inside, outside = save(tmp_path / "in" / "sub" / "a.npy"), save(tmp_path / "elsewhere" / "b.npy", 1)
    cells = ["sub/a.npy", "../elsewhere/b.npy", str(outside.parent / "." / "b.npy"), str(inside)]
    cohort = table(tmp_path / "c.parquet", cells)
    summary = start(cohort, data_dir=str(tmp_path / "in"), layout="tree")
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (1, 1)  # each path is one record, however it is written
    assert "outside data_dir" in reasons(tmp_path / "out")["b.npy"]
    written = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json") if "_run" not in path.parts]
    assert written == ["out/sub/a.json"]
    assert len(manifest(tmp_path / "out")) == 4


def test_long_and_odd_names(start: Start, tmp_path: Path) -> None:
    long_name = "x" * 246 + ".npy"  # the file can be there, its output's name would be too long
    for number, name in enumerate((long_name, "a.b.c.npy", "späße.npy", "with blank.npy", "-rf.npy", "x.json.npy")):
        save(tmp_path / "in" / name, number)
    raw = os.fsencode(tmp_path / "in") + b"/caf\xe9.npy"
    shutil.copyfile(tmp_path / "in" / "a.b.c.npy", raw)
    summary = start()
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (6, 1)
    assert "too long" in reasons(tmp_path / "out")[long_name]
    names = set(json_outputs(tmp_path / "out"))
    assert names == {"a.b.c.json", "späße.json", "with blank.json", "-rf.json", "x.json.json", "caf\\xe9.json"}
    again = start()
    assert again.plan.done == 6


def test_output_folder_that_cannot_be_made_is_refused_before_any_work(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be written to"):
        start(out=tmp_path / "file" / "out")


def test_output_folder_that_vanishes_ends_the_run_and_is_not_made_again(start: Start, tmp_path: Path) -> None:
    for number in range(30):
        save(tmp_path / "in" / f"{number}.npy", number)
    out, calls = tmp_path / "out", itertools.count()

    def embed(engine: NullEngine, batch: np.ndarray) -> np.ndarray:
        late = next(calls) >= 8
        while late and out.exists() and len(list(out.glob("*.json"))) < 4:
            time.sleep(0.01)  # the first batches' records are on their way
        if late and out.exists():
            out.rename(tmp_path / "moved")
        return original(engine, batch)

    original = NullEngine.embed
    with mock.patch.object(NullEngine, "embed", embed), pytest.raises(OSError, match="No such file"):
        start()
    assert not out.exists()
    (tmp_path / "moved").rename(out)
    summary = start()
    assert summary.outcome == "complete"
    assert len(json_outputs(out)) == 30


def test_folder_in_the_place_of_an_output_fails_that_record_alone(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy")
    save(tmp_path / "in" / "b.npy")
    start()
    (tmp_path / "out" / "a.json").unlink()
    (tmp_path / "out" / "a.json").mkdir()
    save(tmp_path / "in" / "a.npy", 9)
    summary = start()
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (1, 1)
    assert "cannot be written" in reasons(tmp_path / "out")["a.npy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_a_recorded_failure(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy").chmod(0)
    start()
    assert "Permission denied" in reasons(tmp_path / "out")["a.npy"]


def test_unreadable_file_as_the_system_reports_it_is_a_recorded_failure(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy")
    denied = save(tmp_path / "in" / "denied.npy")
    real = os.open

    def refuse(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if os.fspath(path) == str(denied):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *more, **options)

    with mock.patch.object(os, "open", refuse):
        summary = start()
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (1, 1)
    assert reasons(tmp_path / "out")["denied.npy"] == "Permission denied"


def test_empty_cohort_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(CohortError):
        start()
    assert not (tmp_path / "out" / "_run" / "run.json").exists()


def test_files_that_arrive_during_a_run_are_left_to_the_next_start(start: Start, tmp_path: Path) -> None:
    for number in range(6):
        save(tmp_path / "in" / f"m{number}.npy", number)
    real = Run._announce

    def announce(run: Run, *arguments: Any) -> None:
        save(tmp_path / "in" / "a_new.npy", 50)  # sorts before all others and shifts every place
        real(run, *arguments)

    with mock.patch.object(Run, "_announce", announce):
        start()
    before = json_outputs(tmp_path / "out")
    assert set(before) == {f"m{number}.json" for number in range(6)}
    summary = start()
    assert summary.plan.done == 6
    after = json_outputs(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert "a_new.json" in after


def test_outputs_are_readable_by_others_as_the_umask_says(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy")
    before = os.umask(0o022)
    try:
        start()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out" / "a.json").stat().st_mode) == 0o644


def test_not_finite_output_of_the_network_is_a_failure_and_never_null_in_json(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy", 1)
    save(tmp_path / "in" / "b.npy", 2)

    def embed(engine: NullEngine, batch: np.ndarray) -> np.ndarray:
        maps = original(engine, batch)
        if len(batch) > 1:  # not the trial before the first recording
            maps[0, 0, 0] = np.nan
        return maps

    original = NullEngine.embed
    with mock.patch.object(NullEngine, "embed", embed):
        summary = start(batch_size=8)
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (1, 1)
    assert all(b"null" not in text for text in json_outputs(tmp_path / "out").values())
    assert any("not finite" in reason for reason in reasons(tmp_path / "out").values())


def test_interruption_while_the_only_batch_waits_for_company_commits_it(start: Start, tmp_path: Path) -> None:
    for number in range(200):
        save(tmp_path / "in" / f"{number:03d}.npy", number)
    real = Run._jobs
    handled: list[int] = []

    def jobs(run: Run, *arguments: Any) -> Iterator[Job]:
        signal.signal(signal.SIGUSR1, lambda number, _frame: (handled.append(number), run.interruption.request(15)))
        for number, job in enumerate(real(run, *arguments)):
            if number == 10:
                signal.raise_signal(signal.SIGUSR1)
            yield job

    with mock.patch.object(Run, "_jobs", jobs):
        summary = start(batch_size=64)
    assert handled
    assert summary.outcome == "interrupted"
    ledger = b"".join(part.read_bytes() for part in (tmp_path / "out" / "_run" / "ledger").glob("*.jsonl"))
    done = ledger.count(b'"status":"done"')
    assert 0 < done == len(json_outputs(tmp_path / "out")) < 200
    assert orjson.loads((tmp_path / "out" / "_run" / "run.json").read_bytes())["outcome"] == "interrupted"


def test_shards_may_differ_in_their_number_of_processes() -> None:
    from ecgfounder.cohort.index import Index
    from ecgfounder.drivers.launch import Launch
    from ecgfounder.run.settings import Settings

    keys = np.random.default_rng(3).integers(0, 2**63, 5_000).astype(np.uint64)
    index = Index(keys, keys, np.ones(5_000, bool), np.arange(5_000), np.empty(0, np.uint64))
    times_done = np.zeros(5_000, int)
    for part, processes in ((1, 1), (2, 3), (3, 2)):
        run = Run(Settings(dataset="x", output_dir=Path("out"), shard=(part, 3)), Silent())
        for rank in range(processes):
            times_done += run._share(index, Launch(rank, processes))
    assert np.all(times_done == 1)


def test_output_of_a_recording_that_left_the_dataset_is_not_written_over(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a" / "x.npy", 1)
    save(tmp_path / "in" / "b" / "x.npy", 2)
    one, other = (table(tmp_path / f"{name}.parquet", [f"{name}/x.npy"]) for name in "ab")
    start(one, data_dir=str(tmp_path / "in"))
    before = json_outputs(tmp_path / "out")
    with pytest.raises(RunError, match=r"x\.json of a/x\.npy"):
        start(other, data_dir=str(tmp_path / "in"))
    assert json_outputs(tmp_path / "out") == before


@pytest.mark.parametrize("format_", ["json", "parquet"])
def test_exchanged_identifiers_never_leave_one_recording_under_the_other_s_name(
    start: Start, tmp_path: Path, format_: str
) -> None:
    for number, name in enumerate("abc"):
        save(tmp_path / "in" / f"{name}.npy", number)
        os.utime(tmp_path / "in" / f"{name}.npy", (1, 1))  # nor do sizes and times tell them apart

    def cohort(*identifiers: str) -> Path:
        pq.write_table(
            pa.table({"ecg_paths": ["a.npy", "b.npy", "c.npy"], "id": list(identifiers)}), tmp_path / "c.parquet"
        )
        return tmp_path / "c.parquet"

    def embeddings() -> dict[str, np.ndarray]:
        return {facts["record"]: embedding for facts, embedding in open_run(tmp_path / "out")}

    options = {"data_dir": str(tmp_path / "in"), "id_column": "id", "format": format_}
    start(cohort("A", "B", "C"), **options)
    before = embeddings()
    summary = start(cohort("B", "A", "C"), **options)
    assert (summary.plan.changed, summary.plan.done) == (2, 1)
    after = embeddings()
    assert np.array_equal(after["A"], before["B"])
    assert np.array_equal(after["B"], before["A"])
    assert np.array_equal(after["C"], before["C"])
    assert start(cohort("B", "A", "C"), **options).processed == 0
    with pytest.raises(RunError, match="must be unique"):
        start(cohort("A", "a", "C"), **options)
    with pytest.raises(RunError, match="must be unique"):
        start(cohort("A", "A", "C"), **options)


def wfdb(header: Path, signal: str, seed: int) -> None:
    """A record of twelve leads whose samples are in a file of any name."""
    header.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-500, 500, (600, 12)).astype("<i2")
    samples.tofile(header.parent / signal)
    lines = [f"{signal} 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in STANDARD_LEADS]
    header.write_text("\n".join([f"{header.stem} 12 500 600", *lines]) + "\n")


@pytest.mark.parametrize("format_", ["json", "parquet"])
def test_an_input_that_was_only_touched_is_looked_into_once(start: Start, tmp_path: Path, format_: str) -> None:
    for name in "ab":
        save(tmp_path / "in" / f"{name}.npy")
    start(format=format_)
    os.utime(tmp_path / "in" / "a.npy", (1, 1))
    before = {row["record"]: row for row in manifest(tmp_path / "out")}
    with mock.patch.object(resume, "identity_of", wraps=resume.identity_of) as hashed:
        for times in (1, 1):
            summary = start(format=format_)
            assert (summary.plan.done, summary.plan.changed, summary.processed) == (2, 0, 0)
            assert hashed.call_count == times
    after = {row["record"]: row for row in manifest(tmp_path / "out")}
    (touched,) = [record for record in after if record.endswith("a.npy")]
    time = after[touched]["input_mtime"]
    assert time.timestamp() == 1
    assert after == before | {touched: before[touched] | {"input_mtime": time}}
    assert len(open_run(tmp_path / "out")) == 2


def one_row(path: Path, recording: str) -> Path:
    pq.write_table(pa.table({"ecg_paths": [recording], "id": ["A"]}), path)
    return path


@pytest.mark.parametrize("other", ["b.hea", "x.npy", "b"])
@pytest.mark.parametrize("check_hashes", [False, True])
def test_an_identifier_never_keeps_the_embedding_of_a_record_with_other_files(
    start: Start, tmp_path: Path, other: str, check_hashes: bool
) -> None:
    wfdb(tmp_path / "in" / "a.hea", "a.dat", 1)
    wfdb(tmp_path / "in" / "b.hea", "b_signal.dat", 2)
    save(tmp_path / "in" / "x.npy", 3)
    options = {"data_dir": str(tmp_path / "in"), "id_column": "id", "check_hashes": check_hashes}
    start(one_row(tmp_path / "c.parquet", "a.hea"), **options)
    before = json_outputs(tmp_path / "out")
    summary = start(one_row(tmp_path / "c.parquet", other), **options)
    assert summary.plan.changed == 1
    assert json_outputs(tmp_path / "out") != before


def test_a_header_that_names_other_samples_now_is_read_again(start: Start, tmp_path: Path) -> None:
    wfdb(tmp_path / "in" / "a.hea", "a.dat", 1)
    start()
    (tmp_path / "in" / "a.dat").unlink()
    wfdb(tmp_path / "in" / "a.hea", "other.dat", 2)
    assert start().plan.changed == 1


def test_an_input_that_is_gone_has_not_changed(start: Start, tmp_path: Path) -> None:
    wfdb(tmp_path / "in" / "a.hea", "other.dat", 1)
    save(tmp_path / "in" / "b.npy")
    cohort = table(tmp_path / "c.parquet", ["a.hea", "b.npy"])  # which goes on naming them, as a folder does not
    assert start(cohort, data_dir=str(tmp_path / "in")).processed == 2
    before = json_outputs(tmp_path / "out")
    shutil.rmtree(tmp_path / "in")
    (tmp_path / "in").mkdir()  # as of a drive that is not mounted
    summary = start(cohort, data_dir=str(tmp_path / "in"))
    assert (summary.plan.changed, summary.plan.done, summary.processed) == (0, 2, 0)
    assert json_outputs(tmp_path / "out") == before


def test_a_failed_identifier_is_tried_again_where_its_path_was_put_right(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "good.npy")
    options = {"data_dir": str(tmp_path / "in"), "id_column": "id"}
    assert start(one_row(tmp_path / "c.parquet", "wrong.npy"), **options).failed_now == 1
    assert start(one_row(tmp_path / "c.parquet", "wrong.npy"), **options).processed == 0
    summary = start(one_row(tmp_path / "c.parquet", "good.npy"), **options)
    assert (summary.processed, summary.failed_now) == (1, 0)


def test_recordings_with_identifiers_may_move_as_they_like(start: Start, tmp_path: Path) -> None:
    looked_into = mock.patch.object(resume, "identity_of", wraps=resume.identity_of)
    for place in ("in", "elsewhere"):
        save(tmp_path / place / "a.npy", 1)
    options = {"data_dir": str(tmp_path), "id_column": "id"}
    with looked_into as hashed:
        for path, processed, times in (("in/a.npy", 1, 0), ("elsewhere/a.npy", 0, 1), ("elsewhere/a.npy", 0, 1)):
            assert start(one_row(tmp_path / "c.parquet", path), **options).processed == processed
            assert hashed.call_count == times


def test_file_of_someone_else_in_the_output_folder_stays(start: Start, tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.npy")
    start()
    theirs = tmp_path / "out" / "embeddings-mine.parquet"
    theirs.write_bytes(b"precious")
    start()
    start(overwrite=True)
    assert theirs.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "wrong",
    [
        {"reader": "nope"},
        {"read_timeout": 0.0},
        {"overwrite": True, "shard": (1, 2)},
        {"pooling": "both"},
        {"dtype": "float16"},
        {"shard": (3, 2)},
        {"batch_size": 0},
        {"num_workers": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], start: Start, tmp_path: Path) -> None:
    from ecgfounder.errors import SettingsError

    save(tmp_path / "in" / "a.npy")
    with pytest.raises(SettingsError):
        start(**wrong)
    assert not (tmp_path / "out").exists()


class SecondProcessIsGone(Launch):
    """The main process of two, of which the other says at the start what it should and then nothing any more."""

    def _exchange(self, word: dict[str, Any]) -> list[dict[str, Any]]:
        self.accelerator()
        return [word, {}]

    def __exit__(self, *_: object) -> None:
        return None


def test_run_json_is_there_before_any_process_may_have_a_result(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        save(tmp_path / "in" / f"{number}.npy", number)
    books = tmp_path / "out" / "_run"
    seen: list[tuple[bool, int]] = []
    look = lambda: seen.append(((books / "run.json").exists(), len(list((books / "ledger").iterdir()))))  # noqa: E731
    launch = SecondProcessIsGone(0, 2, 2, accelerator=look)
    monkeypatch.setattr(extract, "join_launch", lambda _device: launch)
    monkeypatch.setattr(liveness, "STALE_SECONDS", 0.2)
    summary = start()
    assert seen == [(False, 0), (False, 0), (True, 0)]
    assert (summary.outcome, summary.lost, summary.tally) == ("incomplete", 1, None)
    assert orjson.loads((books / "run.json").read_bytes())["outcome"] == "incomplete"


def test_a_start_that_is_refused_leaves_the_books_of_a_complete_run_as_they_are(start: Start, tmp_path: Path) -> None:
    from ecgfounder.errors import CheckpointError

    def books() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "out" / "_run").iterdir() if path.is_file()}

    save(tmp_path / "in" / "a.npy", 1)
    with pytest.raises(CheckpointError, match="no head"):
        start(predictions=True)
    assert books() == {}  # so that other settings are not refused now
    start()
    before = books()
    assert {"run.json", "manifest.pq"} <= set(before)
    save(tmp_path / "in" / "b.npy", 2)
    nothing_fits = mock.patch.object(Budget, "check", side_effect=RunError("it does not fit"))
    broken_engine = mock.patch.object(extract.Run, "_engine", side_effect=RunError("no such engine"))
    for refusal in (nothing_fits, broken_engine):
        with refusal, pytest.raises(RunError):
            start()
        assert books() == before


def test_shards_of_different_divisions_come_to_a_whole_run(start: Start, tmp_path: Path) -> None:
    for number in range(24):
        save(tmp_path / "in" / f"{number}.npy", number)
    start(out=tmp_path / "whole")
    done = 0
    for shard, pending in (((1, 4), 1), ((1, 2), 1), ((2, 3), 1), ((2, 2), 0), ((3, 5), 0)):
        done += start(shard=shard).processed
        tally = merge(tmp_path / "out")
        assert tally.pending == 24 - done
        assert bool(tally.pending) == bool(pending)
    assert done == 24
    assert json_outputs(tmp_path / "out") == json_outputs(tmp_path / "whole")
    assert len(manifest(tmp_path / "out")) == 24


def test_shards_that_start_at_once_with_other_settings_are_not_mixed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "in" / "a.npy", 1)
    create = Run._engine

    def meanwhile(run: Run, *arguments: Any) -> Any:
        monkeypatch.setattr(Run, "_engine", create)
        start(shard=(2, 2), pooling="mean")
        return create(run, *arguments)

    monkeypatch.setattr(Run, "_engine", meanwhile)
    with pytest.raises(RunError, match="pooling: mean, now none"):
        start(shard=(1, 2))
