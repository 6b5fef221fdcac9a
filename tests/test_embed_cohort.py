"""The main job from Python is the command's: the same folder, the same bytes, one call that goes on where it was."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from safetensors.numpy import save_file

import ecgfounder
import ecgfounder.run.run as run_module
from ecgfounder.cli import main
from ecgfounder.commands.arguments import preparation_of
from ecgfounder.demo import DemoPaths
from ecgfounder.distributed import Group, Outcome, Work, do_group
from ecgfounder.embedding import embed_cohort
from ecgfounder.errors import CheckpointError, CohortError, RunError, SettingsError
from ecgfounder.network.checkpoint import sha256_of
from ecgfounder.network.named_head import PROBABILITIES, metadata_of
from ecgfounder.results.run import open_run
from ecgfounder.run.settings import Settings
from tests.harness.kept_engines import kept_engines


@pytest.fixture(scope="module")
def demo(demo_cohort: Path, checkpoint_small: Path) -> DemoPaths:
    return DemoPaths(dataset=demo_cohort / "dataset", data_dir=demo_cohort / "ecg", checkpoint=checkpoint_small)


@pytest.fixture(scope="module", autouse=True)
def _kept_engine() -> Iterator[None]:
    """Runs in this process share an engine; those of other processes open one."""
    with kept_engines(run_module):
        yield


def embed(demo: DemoPaths, out: Path, **more: Any) -> ecgfounder.CohortRun:
    given: dict[str, Any] = {"data_dir": demo.data_dir, "checkpoint": demo.checkpoint, "num_workers": 0} | more
    return embed_cohort(demo.dataset, out, **given)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.json")}


def test_a_call_does_what_the_command_does(demo: DemoPaths, tmp_path: Path) -> None:
    done = embed(demo, tmp_path / "call")
    flags = ["--data_dir", str(demo.data_dir), "--checkpoint", str(demo.checkpoint), "--num_workers", "0"]
    assert main(["embed", "--dataset", str(demo.dataset), "--output_dir", str(tmp_path / "command"), *flags]) == 1
    assert files(tmp_path / "call") == files(tmp_path / "command")
    assert len(files(tmp_path / "call")) == 12
    assert done.summary.tally is not None
    assert (done.summary.outcome, done.summary.tally.done, done.summary.tally.failed) == ("complete", 12, 1)
    assert (len(done.run), done.run.failures.num_rows) == (12, 1)
    told = [orjson.loads((tmp_path / each / "_run" / "run.json").read_bytes()) for each in ("call", "command")]
    assert told[0]["fingerprint"] == told[1]["fingerprint"]
    # What one began the other goes on with.
    again = embed(demo, tmp_path / "command")
    assert (again.summary.processed, again.run.is_complete) == (0, True)


def test_the_heart_rate_is_in_the_manifest_on_request(demo: DemoPaths, tmp_path: Path) -> None:
    table = pd.DataFrame({"ecg_paths": ["patient_002/ecg_0002.xml", "patient_012/ecg_0013.xml"], "heart_rate": [1, 2]})
    given: dict[str, Any] = {"data_dir": demo.data_dir, "checkpoint": demo.checkpoint, "num_workers": 0}
    measured = embed_cohort(table, tmp_path / "with", heart_rate=True, pooling="mean", **given)
    rates = measured.run.manifest["heart_rate"].to_pylist()
    assert rates == [pytest.approx(42, abs=1), None]
    _, meta = measured.run.arrays()
    assert meta["heart_rate"].to_pylist() == rates[:1]
    (tmp_path / "with" / "_run" / "manifest.pq").unlink()  # as while it is running
    assert open_run(tmp_path / "with", allow_incomplete=True).records["heart_rate"].to_pylist() == rates[:1]
    kept = embed_cohort(table, tmp_path / "without", keep_columns=["heart_rate"], pooling="mean", **given)
    assert kept.run.manifest["heart_rate"].to_pylist() == [1, 2]  # the dataset's column of that name
    with pytest.raises(SettingsError, match="keep_columns heart_rate: the manifest has a column of that name"):
        embed_cohort(table, tmp_path / "both", heart_rate=True, keep_columns=["heart_rate"], **given)
    with pytest.raises(RunError, match="heart_rate: False, now True"):
        embed_cohort(table, tmp_path / "without", heart_rate=True, pooling="mean", **given)


def test_a_cohort_in_memory_is_resumed(demo: DemoPaths, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "data_dir": demo.data_dir,
        "checkpoint": demo.checkpoint,
        "num_workers": 0,
        "pooling": "mean",
    }
    paths = sorted(path.relative_to(demo.data_dir) for path in demo.data_dir.rglob("*.xml"))[:3]
    first = embed_cohort(paths, tmp_path / "out", **given)
    assert [row["record"] for row in first.run.manifest.to_pylist()] == [str(path) for path in paths]
    for same in (list(map(str, paths)), pd.DataFrame({"ecg_paths": list(map(str, paths))})):
        assert embed_cohort(same, tmp_path / "out", **given).summary.processed == 0
    assert main(["merge", str(tmp_path / "out")]) == 0


def test_a_pattern_a_list_and_a_file_resume_each_other(
    demo: DemoPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"checkpoint": demo.checkpoint, "num_workers": 0, "pooling": "mean"}
    monkeypatch.chdir(demo.data_dir)
    (tmp_path / "list.txt").write_text("patient_001/ecg_0001.xml\n")
    done = [
        embed_cohort(dataset, tmp_path / "out", data_dir=demo.data_dir, **given).summary.processed
        for dataset in (tmp_path / "list.txt", "patient_001/ecg_0001.xml", "patient_001/*_0001.*")
    ]
    assert done == [1, 0, 0]
    monkeypatch.chdir(tmp_path)
    assert main(["merge", str(tmp_path / "out")]) == 0  # the pattern holds from anywhere


def test_every_setting_of_a_run_can_be_given() -> None:
    parameters = set(inspect.signature(embed_cohort).parameters)
    settings = set(inspect.signature(Settings).parameters) - {"hints", "compile", "carrier"}
    assert settings <= parameters
    assert {"sampling_rate", "leads", "unit", "compiled"} <= parameters
    signal_flags = set(inspect.signature(ecgfounder.Preparation).parameters)
    assert signal_flags <= parameters
    assert inspect.getsource(preparation_of).count("arguments.") >= len(signal_flags)


def test_progress_goes_to_a_function_and_ends_with_all(demo: DemoPaths, tmp_path: Path) -> None:
    seen: list[tuple[int, int, int]] = []
    embed(demo, tmp_path / "out", progress=lambda *numbers: seen.append(numbers))
    assert seen == sorted(seen)
    assert seen[-1] == (12, 1, 13)


def test_a_bar_can_be_shown(demo: DemoPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed(demo, tmp_path / "out", progress=True)
    assert "13/13" in capsys.readouterr().err


def test_without_progress_nothing_is_printed(
    demo: DemoPaths, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="ecgfounder"):
        embed(demo, tmp_path / "out")
    assert capfd.readouterr() == ("", "")
    assert "13 recordings in" in caplog.text


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (
            {"window": 10, "preparation": ecgfounder.Preparation()},
            SettingsError,
            "'preparation' parameter contains all settings",
        ),
        ({"recipe": "zscored"}, SettingsError, "'recipe' parameter"),
        ({"pooling": "both"}, SettingsError, "format"),
        ({"batch_size": 0}, SettingsError, "'batch_size' parameter"),
        ({"path_column": "paths"}, CohortError, "Expected 'paths' column"),
        ({"data_dir": "sftp://host/ecg"}, SettingsError, "sftp:// is not supported"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    demo: DemoPaths, tmp_path: Path, given: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        embed(demo, tmp_path / "out", **given)
    assert not list((tmp_path / "out").glob("*.json"))


def test_other_settings_are_refused_and_overwritten_when_asked(demo: DemoPaths, tmp_path: Path) -> None:
    embed(demo, tmp_path / "out")
    with pytest.raises(RunError, match="pooling: none, now mean"):
        embed(demo, tmp_path / "out", pooling="mean")
    done = embed(demo, tmp_path / "out", pooling="mean", overwrite=True)
    assert done.run.arrays()[0].shape == (12, 1024)


def test_shards_are_read_while_others_are_to_do(demo: DemoPaths, tmp_path: Path) -> None:
    first = embed(demo, tmp_path / "out", shard=(1, 2))
    assert first.summary.tally is None
    assert 0 < len(first.run) < 12
    assert not first.run.is_complete


def test_an_interrupt_commits_what_is_in_flight_and_the_same_call_goes_on(demo: DemoPaths, tmp_path: Path) -> None:
    sent: list[int] = []

    def interrupt(done: int, _failed: int, _total: int) -> None:
        if not sent:
            sent.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="the same call resumes"):
        embed(demo, tmp_path / "out", progress=interrupt, batch_size=1)
    assert signal.getsignal(signal.SIGINT) is before
    kept = files(tmp_path / "out")
    assert kept
    done = embed(demo, tmp_path / "out")
    assert done.summary.processed == 13 - len(kept) - done.summary.plan.failed
    assert done.run.is_complete
    assert {name: files(tmp_path / "out")[name] for name in kept} == kept


def test_it_works_in_a_thread_of_its_own(demo: DemoPaths, tmp_path: Path) -> None:
    done: list[ecgfounder.CohortRun] = []
    thread = threading.Thread(target=lambda: done.append(embed(demo, tmp_path / "out")))
    thread.start()
    thread.join(60)
    assert len(done[0].run) == 12


def run_program(folder: Path, text: str, *words: str) -> str:
    program = folder / "program.py"
    program.write_text(textwrap.dedent(text))
    ended = subprocess.run(
        [sys.executable, str(program), *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def words_of(demo: DemoPaths, out: Path) -> Sequence[str]:
    return [str(each) for each in (demo.dataset, out, demo.data_dir, demo.checkpoint)]


def test_a_program_needs_no_guard_and_is_not_run_again_by_reading_processes(demo: DemoPaths, tmp_path: Path) -> None:
    said = run_program(
        tmp_path,
        """
        import sys, ecgfounder
        print("begun")
        dataset, out, data_dir, checkpoint = sys.argv[1:]
        done = ecgfounder.embed_cohort(dataset, out, data_dir=data_dir, checkpoint=checkpoint, num_workers=2)
        print(len(done.run), __file__.endswith("program.py"))
        """,
        *words_of(demo, tmp_path / "out"),
    )
    assert said.split() == ["begun", "12", "True"]


def test_a_filter_of_the_programs_own_travels_to_reading_processes(demo: DemoPaths, tmp_path: Path) -> None:
    said = run_program(
        tmp_path,
        """
        import sys, ecgfounder
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class Halved:
            def definition(self):
                return {"filter": "halved"}
            def minimum_samples(self, sampling_rate):
                return 1
            def apply(self, samples, sampling_rate):
                return samples / 2

        if __name__ == "__main__":
            dataset, out, data_dir, checkpoint = sys.argv[1:]
            recipe = ecgfounder.Recipe("halved", "1", filters=(Halved(),))
            done = ecgfounder.embed_cohort(
                dataset, out, data_dir=data_dir, checkpoint=checkpoint, num_workers=1, recipe=recipe
            )
            print(len(done.run))
        """,
        *words_of(demo, tmp_path / "out"),
    )
    assert said.split() == ["12"]


def test_arrays_are_there_at_once(demo: DemoPaths, tmp_path: Path) -> None:
    X, meta = embed(demo, tmp_path / "out", pooling="mean", format="parquet", keep_columns=["ecg_paths"]).run.arrays()
    assert X.shape == (12, 1024)
    assert np.isfinite(np.asarray(X)).all()
    assert meta.num_rows == 12


def test_predictions_may_be_those_of_a_probe(demo: DemoPaths, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((2, 1024)).astype(np.float32) / 100, np.array([0.1, -0.2], np.float32)
    labels = ("af", "low ejection fraction")
    told = metadata_of(labels, (sha256_of(demo.checkpoint),), PROBABILITIES)
    probe = tmp_path / "probe.safetensors"
    save_file({"weight": weight, "bias": bias}, probe, told)
    done = embed(demo, tmp_path / "out", predictions=probe, pooling="mean", format="parquet", num_workers=0)
    predictions = done.run.predictions
    assert predictions.column_names == ["record", "window_start", "lead", *labels]
    X, meta = done.run.arrays()
    assert predictions["record"].to_pylist() == meta["record"].to_pylist()
    expected = 1 / (1 + np.exp(-(np.asarray(X) @ weight.T + bias)))
    found = np.stack([predictions[name].to_numpy() for name in labels], axis=1)
    assert np.allclose(found, expected, atol=1e-4)
    # Workers elsewhere, which may not see the probe's file, are told its weights.

    def carry(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        return (do_group(work, group) for group in groups)

    settings: dict[str, Any] = {"pooling": "mean", "format": "parquet", "shard_size": 5, "driver": carry}
    grouped = embed(demo, tmp_path / "groups", predictions=probe, **settings)
    assert grouped.run.predictions.select(["record", *labels]).equals(predictions.select(["record", *labels]))
    # Another probe is another run, and one of another checkpoint is refused.
    save_file({"weight": weight, "bias": bias + 1}, probe, told)
    with pytest.raises(RunError, match="predictions: sha256:"):
        embed(demo, tmp_path / "out", predictions=probe, pooling="mean", format="parquet")
    save_file({"weight": weight, "bias": bias}, probe, metadata_of(labels, ("0" * 64,), PROBABILITIES))
    with pytest.raises(CheckpointError, match="another checkpoint"):
        embed(demo, tmp_path / "new", predictions=str(probe))
    with pytest.raises(CheckpointError, match="No such file"):
        embed(demo, tmp_path / "new", predictions=str(tmp_path / "absent.safetensors"))
    assert not (tmp_path / "new").exists()
