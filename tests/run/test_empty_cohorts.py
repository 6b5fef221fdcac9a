"""A dataset without a path is refused; a shard without a record of a cohort that has some is not."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from ecgfounder import cli
from ecgfounder.drivers.processes import ReaderPool


@pytest.mark.parametrize("content", ["ecg_paths\n", 'ecg_paths,id\n"",1\n,2\n'], ids=["no rows", "no paths"])
@pytest.mark.parametrize("more", [[], ["--shard", "1/2"], ["--dry_run"]], ids=["whole", "shard", "dry run"])
def test_a_dataset_without_a_path_is_refused_before_anything_is_written(
    content: str, more: list[str], checkpoint_1lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = set(multiprocessing.active_children())
    (tmp_path / "data.csv").write_text(content)
    command = [
        "embed",
        "--dataset",
        str(tmp_path / "data.csv"),
        "--checkpoint",
        str(checkpoint_1lead),
        "--mode",
        "1lead",
    ]
    assert cli.main([*command, "--output_dir", str(tmp_path / "out"), *more]) == 2
    assert "names no ECG file: the column 'ecg_paths' has no path in any row" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert set(multiprocessing.active_children()) <= others  # one had been started already


def test_no_more_reading_processes_are_started_than_there_are_recordings(
    checkpoint_1lead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savetxt(tmp_path / "a.csv", np.random.default_rng(0).normal(size=(2000, 1)), header="I", comments="")
    limits: list[int] = []
    others = set(multiprocessing.active_children())
    monkeypatch.setattr(ReaderPool, "limit", lambda _pool, n_workers: limits.append(n_workers))
    (tmp_path / "list.csv").write_text(f"ecg_paths\n{tmp_path}/a.csv\n")
    command = ["embed", "--dataset", str(tmp_path / "list.csv"), "--checkpoint", str(checkpoint_1lead)]
    command += ["--mode", "1lead", "--output_dir", str(tmp_path / "out"), "--num_workers", "3"]
    command += ["--sampling_rate", "500", "--unit", "mV"]
    assert [cli.main(command), cli.main(command)] == [0, 0]
    assert limits == [1, 0]
    assert set(multiprocessing.active_children()) <= others


@pytest.mark.slow
def test_a_shard_without_records_of_a_cohort_that_has_some_succeeds(checkpoint_1lead: Path, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", np.random.default_rng(0).normal(size=(2000, 1)), header="I", comments="")
    (tmp_path / "data.csv").write_text(f"ecg_paths\n{tmp_path}/a.csv\n")
    command = [
        "embed",
        "--dataset",
        str(tmp_path / "data.csv"),
        "--checkpoint",
        str(checkpoint_1lead),
        "--mode",
        "1lead",
    ]
    command += ["--sampling_rate", "500", "--unit", "mV", "--output_dir", str(tmp_path / "out"), "--num_workers", "0"]
    assert [cli.main([*command, "--shard", f"{shard}/2"]) for shard in (1, 2)] == [0, 0]
    assert (tmp_path / "out" / "a.json").exists()
