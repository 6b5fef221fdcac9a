"""A sample of a cohort, which is resumed to the whole, and the forecast from embedding some recordings."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pytest

import ecgfounder
from ecgfounder.cli import main
from ecgfounder.cohort.index import Index, index_cohort
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.drivers.interruption import Interruption, Stopped
from ecgfounder.errors import SettingsError
from ecgfounder.run.forecast import forecast
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location
from tests.harness.cohorts import npy_of
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine, Silent

N = 200


def index_of(tmp_path: Path, n_folders: int = 20, per_folder: int = 10) -> Index:
    table = tmp_path / "cohort.csv"
    paths = [f"{folder:02d}/{number:03d}.xml" for folder in range(n_folders) for number in range(per_folder)]
    table.write_text("ecg_paths\n" + "\n".join([*paths, paths[0]]) + "\n")
    return index_cohort(open_cohort(str(table)), None, "/data")


def test_a_sample_has_its_size_is_spread_and_grows(tmp_path: Path) -> None:
    index = index_of(tmp_path)
    samples = {size: index.sample(size) for size in (1, 20, 40, 199, 200, 1000)}
    assert {size: int(sample.sum()) for size, sample in samples.items()} == {size: min(size, 200) for size in samples}
    assert not (samples[20] & ~samples[40]).any()
    assert not (samples[1000] & ~index.first).any()
    folders = np.flatnonzero(samples[40]) // 10
    assert len(set(folders.tolist())) >= 12  # of 20; 17 expected


@pytest.fixture
def flags(demo_cohort: Path, checkpoint_12lead: Path, tmp_path: Path) -> list[str]:
    cohort = ["--dataset", str(demo_cohort / "ecg"), "--checkpoint", str(checkpoint_12lead), "--num_workers", "0"]
    return ["embed", *cohort, "--output_dir", str(tmp_path / "out"), "--pooling", "mean"]


@pytest.fixture
def engine() -> Any:
    """An engine that costs nothing."""
    made = NullEngine()
    with mock.patch("ecgfounder.run.run.create_engine", return_value=made):
        yield made


def outcome(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((out / "_run" / "run.json").read_bytes())
    return found


def test_a_sample_is_resumed_to_the_whole(
    flags: list[str], engine: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, weights = tmp_path / "out", tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    flags = [*flags, "--checkpoint", str(weights)]
    assert main([*flags, "--sample", "4"]) == 0
    said = capsys.readouterr().err
    assert ", of which a sample of 4 is taken; to do: 4, done before: 0" in said
    assert "Still to do: 9 recordings; the same command without --sample does them" in said
    small = json_outputs(out)
    assert len(small) == 4
    assert (outcome(out)["outcome"], outcome(out)["records"]["pending"]) == ("incomplete", 9)
    assert main([*flags, "--sample", "4"]) == 0
    assert "to do: 0, done before: 4" in capsys.readouterr().err
    assert main([*flags, "--sample", "6"]) == 0
    assert "to do: 2, done before: 4" in capsys.readouterr().err
    assert main(flags) == 1  # one recording is damaged
    assert re.search(r"to do: 7, done before: 6", capsys.readouterr().err)
    assert outcome(out)["outcome"] == "complete"
    whole = json_outputs(out)
    assert len(whole) == 12
    assert small.items() <= whole.items()
    assert main([*flags, "--output_dir", str(tmp_path / "at once")]) == 1
    assert json_outputs(tmp_path / "at once") == whole


@pytest.mark.slow
def test_shards_of_a_sample_are_parts_of_the_same_sample(flags: list[str], tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        main([*flags, "--sample", "6", "--shard", shard])
    at_once = [*flags, "--output_dir", str(tmp_path / "at once"), "--sample", "6"]
    main(at_once)
    assert json_outputs(tmp_path / "out") == json_outputs(tmp_path / "at once")


def test_a_sample_from_python(demo_cohort: Path, checkpoint_12lead: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"checkpoint": checkpoint_12lead, "num_workers": 0, "pooling": "mean"}
    done = ecgfounder.embed_cohort(demo_cohort / "ecg", tmp_path / "out", sample=3, **given)
    assert done.summary.tally is not None
    assert (done.summary.tally.done + done.summary.tally.failed, done.summary.outcome) == (3, "incomplete")
    assert len(done.run) == done.summary.tally.done


@pytest.mark.parametrize("size", ["0", "-1"])
def test_a_sample_of_nothing_is_refused(size: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, f"--sample={size}"]) == 2
    assert "--sample" in capsys.readouterr().err


# --- the forecast ------------------------------------------------------------------------------------------------------


def test_a_dry_run_measures_and_writes_nothing(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    assert main([*flags, "--dry_run", "--measure"]) == 0
    said = capsys.readouterr().out
    measured, told = said.splitlines()[-2:]
    assert re.fullmatch(r"measured    13 recordings, 1 failed, \d+\.\d ECG/s on this machine, engine .+", measured)
    assert re.fullmatch(r"forecast    \d\d:\d\d:\d\d for 13 recordings, 0\.\d MB in 13 files", told)
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "temporary").iterdir())
    main(flags)
    capsys.readouterr()
    assert main([*flags, "--dry_run", "--measure"]) == 0
    assert "measured" not in capsys.readouterr().out  # nothing to do


def test_measuring_without_a_dry_run_is_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*flags, "--measure"]) == 2
    assert "--measure needs --dry_run" in capsys.readouterr().err


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A cohort of 200 recordings."""
    folder = tmp_path / "cohort"
    folder.mkdir()
    for number in range(N):
        (folder / f"{number}.npy").write_bytes(npy_of(number))
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")
    return Settings(
        dataset=str(folder),
        data_dir=str(folder),
        output_dir=tmp_path / "out",
        checkpoint=str(checkpoint),
        num_workers=0,
        format="parquet",
        hints=ecgfounder.Hints(500.0, "mV", ecgfounder.STANDARD_LEADS),
    )


def test_the_forecast_is_what_the_measured_recordings_took_times_all(settings: Settings, engine: Any) -> None:
    found = forecast(settings, N, Interruption())
    assert (found.measured, found.failed, found.n_todo, found.reads) == (50, 0, N, None)
    assert found.seconds == pytest.approx(N / found.rate)
    assert not Path(settings.output_dir).exists()
    Run(settings, Silent()).execute()
    size = sum(path.stat().st_size for path in Path(settings.output_dir).rglob("*") if path.is_file())
    assert found.bytes == pytest.approx(size, rel=0.4)  # what a run writes once counts more among a few recordings
    assert forecast(settings, 4 * N, Interruption()).bytes == pytest.approx(4 * found.bytes, rel=0.1)


def test_an_engine_with_large_batches_is_given_more(settings: Settings, engine: Any) -> None:
    engine.batch_size = 13
    assert forecast(settings, N, Interruption()).measured == 50 + 8 * 13
    assert forecast(settings, 50, Interruption()).measured == 50


def test_objects_of_a_store_are_counted(elsewhere: Location, settings: Settings, engine: Any) -> None:
    for number in range(4):
        (elsewhere / f"{number}.npy").put(npy_of(number))
    given = {"dataset": str(elsewhere), "data_dir": str(elsewhere)}
    found = forecast(Settings(**{**vars(settings), **given}), 1000, Interruption())
    assert (found.measured, found.reads) == (4, 1000)


def test_a_launch_measures_nothing(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingsError, match="leave out the launcher"):
        forecast(settings, N, Interruption())


def test_an_interrupted_measurement_leaves_nothing(
    settings: Settings, engine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    interruption = Interruption()
    embed: Callable[..., Any] = engine.embed

    def interrupt(batch: Any) -> Any:
        interruption.request(15)
        return embed(batch)

    engine.embed = interrupt
    with pytest.raises(Stopped):
        forecast(settings, N, interruption)
    assert set(tmp_path.iterdir()) == before
