"""What a run will take, held against what there is room for: never less than it will be, and refused when it does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ecgfounder.drivers.launch import Launch
from ecgfounder.errors import RunError
from ecgfounder.ledger.ledger import LedgerState, LedgerWriter, read_ledger, read_parts
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.run import run as run_module
from ecgfounder.run.budget import LEDGER_BYTES, Budget, make_budget, megabytes
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.storage import locate
from tests.builders.entries import HEADER, entry_of
from tests.harness.stand_ins import Silent

NOTHING = read_parts(())


def budget(n_todo: int, tmp_path: Path, state: LedgerState = NOTHING, **settings: Any) -> Budget:
    told = Settings(dataset="a.csv", output_dir=tmp_path / "out", **settings)
    return make_budget(n_todo, told, state, locate(tmp_path / "out"))


def values(n_todo: int, made: Budget, bytes_per_value: float) -> float:
    """Numbers per record that an estimate stands for."""
    return (made.bytes / n_todo - LEDGER_BYTES) / bytes_per_value


@pytest.mark.parametrize(("n_todo", "files"), [(0, 0), (1, 1), (7, 1), (8, 2), (14, 2), (15, 3)])
def test_a_shard_that_is_not_full_is_a_file_too(tmp_path: Path, n_todo: int, files: int) -> None:
    assert budget(n_todo, tmp_path, format="parquet", shard_size=7).files == files
    assert budget(n_todo, tmp_path, format="json", shard_size=7).files == n_todo


def test_before_there_is_a_result_a_recording_counts_as_ten_seconds(tmp_path: Path) -> None:
    # 5,000 samples are 19.5 tokens, of which the network makes 20.
    assert values(10, budget(10, tmp_path), 10.6) == pytest.approx(20 * 1024, abs=1)
    assert values(10, budget(10, tmp_path, pooling="mean"), 10.6) == pytest.approx(1024, abs=1)
    every_lead = Preparation(mode="1lead", lead="all")
    assert values(10, budget(10, tmp_path, preparation=every_lead), 10.6) == pytest.approx(12 * 20 * 1024, abs=1)
    one_lead = Preparation(mode="1lead", lead="II")
    assert values(10, budget(10, tmp_path, preparation=one_lead), 10.6) == pytest.approx(20 * 1024, abs=1)


@pytest.mark.parametrize(
    ("form", "dtype", "each"), [("json", "float32", 10.6), ("parquet", "float32", 3.4), ("parquet", "float16", 2.0)]
)
def test_a_number_takes_what_its_form_takes(tmp_path: Path, form: str, dtype: str, each: float) -> None:
    made = budget(10, tmp_path, format=form, dtype=dtype)
    assert made.bytes == int(10 * (20 * 1024 * each + LEDGER_BYTES))


def test_the_shapes_of_finished_records_say_more_than_a_guess(tmp_path: Path) -> None:
    ledger = LedgerWriter(tmp_path / "1.jsonl", HEADER)
    ledger.append([entry_of(n, shape=[n, 4]) for n in (1, 2, 6)])
    ledger.append([entry_of(9, "failed", reason="damaged")])
    ledger.abandon()
    assert values(10, budget(10, tmp_path, read_ledger(locate(tmp_path))), 10.6) == pytest.approx(3 * 4, abs=0.1)


def test_the_room_is_that_of_the_file_system_of_a_folder_that_is_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def statvfs(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_bavail=5, f_bfree=9, f_frsize=1000, f_bsize=7, f_favail=3, f_ffree=4, f_files=inodes)

    monkeypatch.setattr(os, "statvfs", statvfs)
    inodes = 10
    made = budget(1, tmp_path)
    assert (asked, made.free_bytes, made.free_files) == ([tmp_path], 5000, 3)
    inodes = 0  # a file system that does not count them
    assert budget(1, tmp_path).free_files is None


@pytest.mark.parametrize(
    ("needs", "free", "fits"),
    [
        ((100, 10), (100, 10), True),
        ((101, 10), (100, 10), False),
        ((100, 11), (100, 10), False),
        ((100, 11), (100, None), True),
        ((101, 1), (100, None), False),
    ],
)
def test_what_fills_the_disk_to_its_end_fits_and_one_more_does_not(
    needs: tuple[int, int], free: tuple[int, int | None], fits: bool
) -> None:
    made = Budget(*needs, *free)
    assert made.fits == fits
    if fits:
        made.check(locate("/out"))
    else:
        with pytest.raises(RunError, match=r"The embeddings need about .* and /out has room for"):
            made.check(locate("/out"))


def test_a_refusal_names_both_numbers_and_files_only_where_they_are_counted() -> None:
    with pytest.raises(
        RunError, match=r"need about 2\.5 GB in 1,200 files, and /out has room for 1\.0 MB and 7 files\."
    ):
        Budget(2_500_000_000, 1200, 1_000_000, 7).check(locate("/out"))
    with pytest.raises(RunError, match=r"has room for 1\.0 MB\. format"):
        Budget(2_500_000_000, 1200, 1_000_000, None).check(locate("/out"))


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0.0 MB"),
        (1_460_000, "1.5 MB"),
        (999_999_999, "1,000.0 MB"),
        (1_000_000_000, "1.0 GB"),
        (1_234_567_890_123, "1,234.6 GB"),
    ],
)
def test_a_number_of_bytes_is_shown_in_what_people_read(count: int, text: str) -> None:
    assert megabytes(count) == text


@pytest.mark.parametrize(("given", "expected"), [(None, 1 << 30), (2.0, 1 << 29)])
def test_memory_for_reading_is_divided_by_the_processes_on_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: float | None, expected: int
) -> None:
    made: dict[str, Any] = {}
    monkeypatch.setattr(run_module, "ReaderPool", lambda *_, **options: made.update(options))
    monkeypatch.setattr(run_module, "usable_memory", lambda: 16 << 30)
    settings = Settings(dataset="a.csv", output_dir=tmp_path, read_memory=given)
    Run(settings, Silent())._pool(Launch(local_size=4))
    assert made["memory"] == expected
