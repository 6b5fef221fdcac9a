"""Simple features of files: what they are, that no file is read twice, and that files which are gone or changed are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ecgfounder.analysis.probing import simple_features as module
from ecgfounder.analysis.probing.controls import signal_features
from ecgfounder.analysis.probing.probe import Originals, probe
from ecgfounder.analysis.probing.probe_report import page_of
from ecgfounder.analysis.probing.simple_features import KEPT, Original, features_of, originals_of, simple_features
from ecgfounder.analysis.rows.selection import select
from ecgfounder.ecg.recording import Recording
from ecgfounder.readers import make_source, read_source
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.results import EmbeddingRun, open_run
from ecgfounder.storage import NO_OPTIONS, Unavailable, locate
from tests.builders.probes import write_run, write_signals
from tests.builders.wfdb import random_frames, write_record

N = 88


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("signals")
    return folder, write_signals(folder, N)


def sha256_of(path: Path) -> str | None:
    source = make_source(str(path), Hints())
    read_source(source)
    return identity_of(source).sha256


@pytest.fixture(scope="module")
def run(files: tuple[Path, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> EmbeddingRun:
    """A run of these files, whose embeddings know the label a little."""
    folder, labels = files
    table = labels.rename(columns={"ecg_paths": "ecg"})
    noise = np.random.default_rng(0).standard_normal((N, 6))
    noise[:, 0] += table["fast"]
    table[[f"x{each}" for each in range(6)]] = noise
    facts = {path: {"sha256": sha256_of(folder / path), "leads": ["I", "II", "V1"]} for path in table["ecg"]}
    return open_run(write_run(tmp_path_factory.mktemp("run") / "run", table, keep=("patient", "fast"), facts=facts))


def original(path: Path) -> Original:
    return Original(str(path), str(path))


def test_features_are_rate_amplitude_and_deviation_of_each_lead() -> None:
    times = np.arange(2500) / 250
    beats = np.exp(-((((times % 0.75) - 0.3) / 0.012) ** 2))
    samples = np.stack([2 * beats, np.sin(2 * np.pi * 0.5 * times), np.full(2500, np.nan), beats, -beats])
    found = features_of(Recording(samples.astype(np.float32), 250.0, ("II", "V1", "V2", "V5", "V6"), "made"))
    assert found["heart_rate"] == pytest.approx(80, abs=1)
    assert found["amplitude_II"] == pytest.approx(np.log2(2.0), abs=0.05)
    assert found["deviation_V1"] == pytest.approx(np.log2(np.sqrt(0.5)), abs=0.02)
    assert found["amplitude_I"] is None  # a lead that the file lacks
    assert found["amplitude_V2"] == pytest.approx(np.log2(1e-3))
    assert len(found) == 25


def test_a_file_is_read_once(files: tuple[Path, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [files[0] / name for name in files[1]["ecg_paths"][:6]]
    folder = locate(tmp_path / "controls")
    first = simple_features([original(path) for path in paths[:4]], folder)
    read: list[str] = []
    measured = module._measured

    def counting(each: Original, options: Any) -> Any:
        read.append(each.path)
        return measured(each, options)

    monkeypatch.setattr(module, "_measured", counting)
    again = simple_features([original(path) for path in [*paths, paths[0]]], folder)
    assert read == [str(path) for path in paths[4:]]
    assert again.table.slice(0, 4).equals(first.table)
    assert again.table.slice(6, 1).equals(first.table.slice(0, 1))
    (tmp_path / "controls" / KEPT).write_bytes(b"PAR1 cut")
    read.clear()
    assert simple_features([original(path) for path in paths], folder).table.equals(again.table.slice(0, 6))
    assert len(read) == 6


def test_files_that_are_gone_changed_or_damaged_are_named(tmp_path: Path) -> None:
    write_signals(tmp_path, 3)
    paths = [tmp_path / f"p{number:03d}" / "r.hea" for number in range(3)]
    kept = [Original(str(path), str(path), sha256_of(path)) for path in paths]
    (tmp_path / "p000" / "r.dat").unlink()
    write_record(tmp_path / "p001", random_frames(600, 12))
    found = simple_features(kept)
    assert set(found.not_read) == {0, 1}
    assert found.not_read[1] == "the file has changed since the run read it"
    assert found.table["heart_rate"].to_pylist()[:2] == [None, None]
    assert found.table["deviation_I"].to_pylist()[2] is not None


def test_a_store_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def away(path: str, *_: Any) -> Any:
        asked.append(path)
        raise Unavailable("no answer")

    monkeypatch.setattr(module, "make_source", away)
    found = simple_features([Original(f"s3://b/{each}", str(each)) for each in range(4)], locate(tmp_path / "out"))
    assert asked == ["s3://b/0"]
    assert found.not_read == dict.fromkeys(range(4), "no answer")
    assert not (tmp_path / "out").exists()


def test_features_are_those_of_the_leads_that_the_network_has_seen(run: EmbeddingRun) -> None:
    selection = select(run)
    columns = {name: [float(row) for row in range(N)] for name in module.NAMES}
    _, used = signal_features(pa.table(columns), selection)
    assert used == [
        "heart_rate",
        *(f"{what}_{lead}" for what in ("amplitude", "deviation") for lead in ("I", "II", "V1")),
    ]


def options(folder: Path | None = None, data_dir: Path | None = None) -> dict[str, Any]:
    where = Originals(None if data_dir is None else str(data_dir), folder)
    return {
        "label": ("fast",),
        "group": "patient",
        "folds": 2,
        "n_draws": 50,
        "permutations": 0,
        "penalties": (1e-2, 1.0),
        "originals": where,
    }


def test_the_control_predicts_what_the_signal_says_simply(
    run: EmbeddingRun, files: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    found = probe(run, **options(tmp_path / "controls", files[0]))
    of = {row.control: row for row in found.rows if row.metric == "auroc"}
    assert (of["simple features"].estimate or 0) > 0.95 > (of["embedding"].estimate or 1)
    assert of["simple features"].n_records == N
    (difference,) = (row for row in found.rows if row.metric == "auroc difference" and row.control == "simple features")
    assert (difference.high or 0) < 0
    assert "what the signal says simply: heart rate, amplitude and deviation of I II V1" in page_of(found)
    # Without the files, what was measured is still there.
    assert probe(run, **options(tmp_path / "controls", tmp_path)).table.equals(found.table)


def test_a_cohort_that_has_moved_is_said_and_its_recordings_are_listed(
    run: EmbeddingRun, files: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    said: list[str] = []
    gone = probe(run, **options(tmp_path / "controls"), say=said.append)
    assert not any(row.control == "simple features" for row in gone.rows)
    (warning,) = (each for each in gone.warnings if "could not be read again" in each)
    assert f"the files of {N} of {N} recordings" in warning
    assert "there is none. controls/not_read.csv names them. data_dir says" in warning
    assert len(pd.read_csv(tmp_path / "controls" / "not_read.csv")) == N
    assert sum(line.startswith("Not read again: p0") for line in said) == 5
    assert not any(path in page_of(gone) for path in files[1]["ecg_paths"])


def test_the_control_is_on_the_files_that_are_there(
    run: EmbeddingRun, files: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    kept = select(run)
    originals = originals_of(kept, str(files[0]), NO_OPTIONS)
    simple_features(originals[: N - 4], locate(tmp_path / "controls"))
    found = probe(run, **options(tmp_path / "controls", tmp_path))  # the last four have no file
    of = {row.control: row for row in found.rows if row.metric == "auroc"}
    assert of["simple features"].n_records == of["embedding (with files)"].n_records == N - 4
    assert of["embedding"].n_records == N
    assert "it is on the other 84" in " ".join(found.warnings)
