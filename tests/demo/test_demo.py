"""Promises of the built-in cohort and checkpoint."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

import ecgfounder.demo.weights as weights_module
from ecgfounder.demo.demo import WEIGHTS_NOTE, write_demo, write_demo_checkpoint, write_demo_cohort
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import ReadError, SettingsError
from ecgfounder.readers import read_ecg
from tests.places import SHARED

GOLDEN = SHARED / "golden"


@pytest.fixture(scope="module")
def cohort(demo_cohort: Path) -> Path:
    return demo_cohort


@pytest.fixture(scope="module")
def recordings(cohort: Path):
    """Every recording that can be read, by file name."""
    readable = {}
    for path in sorted((cohort / "ecg").rglob("*.xml")):
        try:
            readable[path.name] = read_ecg(path)
        except ReadError:
            continue
    return readable


def test_twelve_recordings_can_be_read_and_one_is_damaged(cohort: Path, recordings) -> None:
    assert len(list((cohort / "ecg").rglob("*.xml"))) == 13
    assert len(recordings) == 12
    with pytest.raises(ReadError, match="not well-formed"):
        read_ecg(cohort / "ecg" / "patient_012" / "ecg_0013.xml")


def test_the_recordings_are_plausible_ecgs(recordings) -> None:
    for recording in recordings.values():
        assert recording.leads == STANDARD_LEADS
        # Without the calibration pulse, which is upright in every lead.
        i, ii, iii, avr, avl, avf = recording.samples[:6, : round(10 * recording.sampling_rate)]
        np.testing.assert_allclose(iii, ii - i, atol=1e-6)
        # Half a count more or less, by rounding.
        np.testing.assert_allclose(avr, -(i + ii) / 2, atol=0.0051)
        np.testing.assert_allclose(avl, (i - iii) / 2, atol=0.0051)
        np.testing.assert_allclose(avf, (ii + iii) / 2, atol=0.0051)
        assert (recording.samples.std(axis=1) > 0.02).all()
        assert 0.8 < np.abs(recording.samples).max() < 3


def test_rates_formats_and_lengths_vary(cohort: Path, recordings) -> None:
    beats = {name: _beats_per_minute(recording) for name, recording in recordings.items()}
    assert min(beats.values()) < 50
    assert max(beats.values()) > 130
    assert {recording.sampling_rate for recording in recordings.values()} == {500, 1000}
    assert {recording.duration for recording in recordings.values()} == {10, 11}
    assert {recording.meta["format_version"] for recording in recordings.values()} == {
        *("1.03", "1.04", "1.04.01", "1.04.02")
    }
    heads = {path.read_bytes()[:2] for path in (cohort / "ecg").rglob("*.xml")}
    assert heads == {b"<?", b"\xff\xfe"}


def _beats_per_minute(recording) -> float:
    """R peaks of lead II in the first 10 s, by their height."""
    rate = int(recording.sampling_rate)
    signal = recording.samples[1, : 10 * rate]
    above = signal > 0.55 * signal.max()
    return 6 * float(np.count_nonzero(above[1:] & ~above[:-1]))


def test_the_11_s_recording_ends_in_a_calibration_pulse(recordings) -> None:
    (recording,) = (found for found in recordings.values() if found.duration == 11)
    counts = np.rint(recording.samples * 200)
    assert (counts[:, 5300:5350] == 0).all()
    assert (counts[:, 5350:5450] == 200).all()
    assert (counts[:, 5450:] == 0).all()
    assert counts[:, 5000:5300].std() > 1


def test_the_dataset_names_every_file_and_has_text_for_chats(cohort: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.load_from_disk(str(cohort / "dataset"))
    assert set(dataset.column_names) == {"study_id", "ecg_paths", "question", "report_0", "report_1"}
    named = [path for row in dataset["ecg_paths"] for path in row]
    assert sorted(named) == sorted(
        path.relative_to(cohort / "ecg").as_posix() for path in (cohort / "ecg").rglob("*.xml")
    )
    assert 2 in {len(row) for row in dataset["ecg_paths"]}
    assert all(text for column in ("study_id", "question", "report_0", "report_1") for text in dataset[column])
    assert len(set(dataset["study_id"])) == len(dataset)


def test_a_second_demo_is_the_same_bytes(cohort: Path, tmp_path: Path) -> None:
    shutil.copytree(cohort, tmp_path, dirs_exist_ok=True)
    write_demo_cohort(tmp_path)  # over an earlier one
    for path in (cohort / "ecg").rglob("*.xml"):
        assert (tmp_path / "ecg" / path.relative_to(cohort / "ecg")).read_bytes() == path.read_bytes()


def test_write_demo_says_where_everything_is(tmp_path: Path) -> None:
    paths = write_demo(tmp_path / "a" / "demo")
    assert paths.checkpoint.is_file()
    assert (paths.dataset / "state.json").is_file()
    assert (paths.data_dir / "patient_001" / "ecg_0001.xml").is_file()


def test_the_note_says_that_embeddings_are_meaningless_and_how_to_get_the_weights() -> None:
    assert "are meaningless" in WEIGHTS_NOTE
    assert "hf download PKUDigitalHealth/ECGFounder 12_lead_ECGFounder.pth" in WEIGHTS_NOTE


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="mode"):
        write_demo_checkpoint(tmp_path / "x.pth", mode="3lead")


@pytest.mark.parametrize("mode", ["12lead", "1lead"])
@pytest.mark.skipif(not GOLDEN.is_dir(), reason="../shared/golden is not here")
def test_the_checkpoint_is_the_goldens_entry_by_entry(tmp_path: Path, mode: str) -> None:
    torch = pytest.importorskip("torch")
    write_demo_checkpoint(tmp_path / "demo.pth", mode, seed=0)
    written = torch.load(tmp_path / "demo.pth", weights_only=True)["state_dict"]
    layout = json.loads((GOLDEN / f"state_dict_{mode}.json").read_text())
    assert {name: list(entry.shape) for name, entry in written.items()} == layout
    golden_tensor = runpy.run_path(str(GOLDEN / "make_checkpoint.py"))["tensor"]
    for name, shape in layout.items():
        golden = golden_tensor(name, shape, 0)
        assert written[name].dtype == golden.dtype, name
        assert torch.equal(written[name], golden), name


def test_another_seed_gives_other_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(weights_module, "whole_layout", lambda _mode, _n: {"first_conv.conv.weight": (64, 1, 16)})
    for seed in (1, 2):
        write_demo_checkpoint(tmp_path / f"{seed}.pth", "1lead", seed=seed)
    first, second = (torch.load(tmp_path / f"{seed}.pth", weights_only=True)["state_dict"] for seed in (1, 2))
    assert not torch.equal(first["first_conv.conv.weight"], second["first_conv.conv.weight"])
