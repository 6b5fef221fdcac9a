"""`ecgfounder verify` passes what agrees, fails what does not, and says why where nothing can be compared."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.commands import verify
from ecgfounder.commands.verify import (
    ALL_AGREE,
    SOME_DIFFER,
    Comparison,
    Material,
    add_verify_arguments,
    comparisons,
    float32_rounding,
    largest_difference,
    read_material,
    run_verify,
)
from ecgfounder.engines import Engine, native_usable
from ecgfounder.errors import CheckpointError, RunError, SettingsError
from ecgfounder.network.head import Head
from ecgfounder.preprocess.preparation import Preparation

Array = npt.NDArray[np.float32]


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_verify_arguments(parser)
    return parser.parse_args(flags)


def write_arrays(folder: Path, lengths: list[int]) -> list[str]:
    folder.mkdir(exist_ok=True)
    for number, length in enumerate(lengths):
        np.save(folder / f"{number}.npy", np.random.default_rng(number).standard_normal((12, length)))
    return [str(folder / f"{number}.npy") for number in range(len(lengths))]


HINTS = ("--sampling_rate", "500", "--unit", "mV", "--leads", "I,II,III,aVR,aVL,aVF,V1,V2,V3,V4,V5,V6")


# --- the whole -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_engine_passes_on_files_of_several_lengths(
    tmp_path: Path, checkpoint_12lead: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")
    if not native_usable():
        pytest.skip("the native engine was not built, or not for this processor")
    files = write_arrays(tmp_path, [600, 600, 700])
    (tmp_path / "damaged.xml").write_text("<restingecgdata")
    status = run_verify(parsed(*files, str(tmp_path / "damaged.xml"), "--checkpoint", str(checkpoint_12lead), *HINTS))
    said = capsys.readouterr().out
    assert status == ALL_AGREE, said
    assert "3 ECGs, 3 network inputs of 600 to 700 samples" in said
    assert f"left out  {tmp_path / 'damaged.xml'}: " in said
    lines = [line for line in said.splitlines() if line.startswith(("PASS  ", "FAIL  ", "skip  "))]
    assert all(line.startswith("PASS  ") for line in lines)
    for engine in ("torch float32", "onnx float32", "native float32"):
        identical = [line for line in lines if line[6:].startswith(engine) and line.count("bit-identical") == 2]
        assert len(identical) == 10
        assert any("two new processes" in line for line in identical)
        assert any("30,000 samples, alone, in batches of 2" in line for line in identical)
        assert any(line[6:].startswith(engine) and "predictions against float64" in line for line in lines)
        assert any(line[6:].startswith(engine) and line[30:].count("30,000 samples") for line in lines)
    assert [line for line in lines if "torch bfloat16" in line and "against torch float32" in line]
    assert "PASS: all 41 comparisons" in said
    assert "The longest input of these files has 1.4 s" in said


def test_a_comparison_that_fails_makes_the_exit_status_1(
    tmp_path: Path, checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Comparison("torch", "a", 0.0), Comparison("torch", "b", 2e-5, 1e-5), Comparison("onnx", "c", None)]
    monkeypatch.setattr(verify, "comparisons", lambda *_: iter(found))
    status = run_verify(parsed(*write_arrays(tmp_path, [300]), "--checkpoint", str(checkpoint_12lead), *HINTS))
    said = capsys.readouterr().out
    assert status == SOME_DIFFER
    assert "FAIL: 2 of 3 comparisons" in said


@pytest.mark.slow
def test_engines_that_are_not_there_are_skipped_with_what_would_help(
    tmp_path: Path, checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecgfounder.engines.onnx_installed", lambda: False)
    monkeypatch.setattr("ecgfounder.engines.native_usable", lambda: False)
    monkeypatch.setattr(verify, "_within", lambda *_: iter(()))
    monkeypatch.setattr(verify, "_other_processes", lambda *_: Comparison("torch float32", "processes", 0.0))
    task, paths = verify._task_and_paths(parsed(*write_arrays(tmp_path, [300]), *HINTS))
    found = list(comparisons(read_material(task, paths), task, checkpoint_12lead, "12lead", "cpu"))
    assert [each.skipped for each in found] == [False, False, True, True, *[False] * 5]
    assert "pip install 'ecgfounder[cpu]'" in found[2].line()
    assert "ecgfounder doctor" in found[3].line()
    assert not any(each.failed for each in found)


def test_an_engine_that_does_not_work_is_a_failed_line_not_a_traceback(tmp_path: Path) -> None:
    task, paths = verify._task_and_paths(parsed(*write_arrays(tmp_path, [300]), *HINTS))
    (tmp_path / "empty.pth").touch()
    found = list(comparisons(read_material(task, paths), task, tmp_path / "empty.pth", "12lead", "cpu"))
    assert found
    assert all(each.failed or each.skipped for each in found)
    assert "the file is empty" in found[0].line()


# --- what is caught --------------------------------------------------------------------------------------------------


class FlawedEngine(Engine):
    """Gives the samples themselves as the map, with a flaw."""

    name = "flawed"

    def __init__(self, flaw: Callable[[Array, Array], Array]) -> None:
        super().__init__(precision="float32", device="cpu", threads=2, batch_size=8, in_channels=12, head=None)
        self.flaw = flaw

    def _embed(self, batch: Array) -> Array:
        return np.asarray(self.flaw(batch.mean(axis=1)[..., None], batch), np.float32)

    def describe(self) -> str:
        return "flawed"

    def close(self) -> None:
        """Nothing is held."""


def failed_with(flaw: Callable[[Array, Array], Array]) -> set[str]:
    rng = np.random.default_rng(0)
    inputs = tuple(rng.standard_normal((12, length)).astype(np.float32) for length in (100, 100, 120, 100))
    engine = FlawedEngine(flaw)
    alone = [engine.embed(data[None])[0] for data in inputs]
    kind = verify._Kind("torch", "cpu")
    return {each.what for each in verify._within(engine, kind, Material(inputs, (), ()), alone) if each.failed}


def test_an_engine_without_flaw_passes_every_comparison() -> None:
    assert failed_with(lambda maps, _: maps) == set()


def test_dependence_on_the_batchs_size_is_caught() -> None:
    found = failed_with(lambda maps, batch: maps * np.float32(1 + 1e-6 * (len(batch) > 8)))
    assert found == {"each ECG alone, in batches of 16"}


def test_dependence_on_batch_mates_is_caught() -> None:
    found = failed_with(lambda maps, batch: maps + 1e-3 * np.abs(batch).max())
    assert "each ECG alone, among zeros, noise, huge values" in found


def test_dependence_on_the_place_in_the_batch_is_caught() -> None:
    places = np.arange(64, dtype=np.float32)
    found = failed_with(lambda maps, batch: maps + places[: len(batch), None, None])
    assert "in reversed order, in batches of 8" in found
    assert "each ECG alone, in batches of 2" in found


def test_maps_that_are_not_finite_fail_although_they_agree() -> None:
    assert len(failed_with(lambda maps, _: maps * np.float32(np.nan))) == 8


# --- measuring -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20), st.integers(0, 19))
def test_only_identical_bytes_differ_by_nothing(values: list[float], place: int) -> None:
    a = np.array(values, np.float32)
    b = a.copy()
    assert largest_difference([a], [b]) == 0
    at = place % len(values)
    b[at] = np.nextafter(b[at], np.float32(np.inf))
    assert largest_difference([a], [b]) > 0


def test_the_difference_is_relative_and_the_largest() -> None:
    one = np.ones((3, 4), np.float32)
    assert largest_difference([one * 1.5, one * 1.25], [one, one]) == pytest.approx(0.5)
    assert math.isnan(largest_difference([one], [one[:2]]))
    assert math.isnan(largest_difference([one], []))
    assert Comparison("torch", "shapes", math.nan, 1.0).failed


def test_rounding_tells_well_behaved_weights_from_those_that_amplify(
    checkpoint_steady: Path, checkpoint_12lead: Path
) -> None:
    inputs = [np.random.default_rng(0).standard_normal((12, 2500)).astype(np.float32)]
    steady = float32_rounding(inputs, checkpoint_steady, "12lead")
    drawn = float32_rounding(inputs, checkpoint_12lead, "12lead")
    assert 0 < steady < 1e-6 < drawn < 1e-4


def test_predictions_are_those_of_the_whole_network_and_a_wrong_head_is_caught(checkpoint_12lead: Path) -> None:
    rng = np.random.default_rng(0)
    material = Material(tuple(rng.standard_normal((12, 600)).astype(np.float32) for _ in range(3)), (), ())
    with verify._engine(verify._Kind("torch", "cpu"), checkpoint_12lead, "12lead") as engine:
        maps = {"torch float32": [engine.embed(data[None])[0] for data in material.inputs]}
        head = engine.head
    assert head is not None
    good = list(verify._of_head(maps, material, head, checkpoint_12lead, "12lead"))
    assert [each.failed for each in good] == [False, False]

    class Flawed(Head):
        def logits(self, feature_map: Array) -> Array:
            return super().logits(feature_map) * np.float32(1 + 1e-3 * len(feature_map))

    flawed = Flawed(head.weight, head.bias)
    assert [each.failed for each in verify._of_head(maps, material, flawed, checkpoint_12lead, "12lead")] == [
        True,
        True,
    ]
    without = list(verify._of_head(maps, material, None, checkpoint_12lead, "12lead"))
    assert [(each.failed, each.skipped) for each in without] == [(False, True)]


def test_a_long_input_is_made_of_short_ones_and_dependence_on_its_batch_is_caught() -> None:
    rng = np.random.default_rng(0)
    short = tuple(rng.standard_normal((12, length)).astype(np.float32) for length in (5000, 4000))
    long = Material(short, (), ()).long_input()
    assert long is not None
    assert long.shape == (12, verify.LONGEST_INPUT)
    np.testing.assert_array_equal(long[:, 9000:14000], short[0])
    assert Material((*short, long), (), ()).long_input() is None
    kind = verify._Kind("torch", "cpu")
    flawed = FlawedEngine(
        lambda maps, batch: maps * np.float32(1 + 1e-6 * (len(batch) > 1 and batch.shape[2] > 20_000))
    )
    alone = [flawed.embed(long[None])[0]]
    assert verify._long(flawed, kind, long, alone).failed
    assert not verify._long(FlawedEngine(lambda maps, _: maps), kind, long, alone).failed


@pytest.mark.parametrize(
    ("preparation", "length", "said"),
    [
        (Preparation(window=2), 1000, ("after the first 2 s", "has 2 s. Longer", "trained on 10 s")),
        (Preparation(window=10, stride=10), 5000, ("only the first 4 windows", "has 10 s. Longer")),
        (Preparation(), 5000, ("has 10 s. Longer",)),
        (Preparation(), verify.LONGEST_INPUT, ("cut to 60 s",)),
    ],
)
def test_what_cannot_be_seen_is_said(preparation: Preparation, length: int, said: tuple[str, ...]) -> None:
    notes = list(verify.limits(preparation, Material((np.zeros((12, length), np.float32),), (), ())))
    assert len(notes) == len(said)
    for part, note in zip(said, notes, strict=True):
        assert part in note


# --- what is looked at -----------------------------------------------------------------------------------------------


def test_files_folders_and_datasets_give_the_first_ecgs(tmp_path: Path, demo_cohort: Path) -> None:
    ecgs = demo_cohort / "ecg"
    first = str(ecgs / "patient_001" / "ecg_0001.xml")

    def paths(*flags: str) -> list[str]:
        return verify._task_and_paths(parsed(*flags))[1]

    assert len(paths(str(ecgs))) == 13
    assert paths(str(ecgs), "--max_ecgs", "2")[0] == first
    assert paths(first, first) == [first]
    assert paths("patient_001/ecg_0001.xml", "--data_dir", str(ecgs)) == [first]
    assert len(paths("--dataset", str(ecgs))) == 13
    assert paths("--dataset", str(demo_cohort / "dataset"), "--data_dir", str(ecgs), "--max_ecgs", "1") == [first]
    (tmp_path / "cohort.csv").write_text("path\npatient_001/ecg_0001.xml\n")
    table = ("--dataset", str(tmp_path / "cohort.csv"), "--data_dir", str(ecgs), "--path_column", "path")
    assert paths(*table) == [first]


def test_signal_flags_are_those_of_a_run(tmp_path: Path) -> None:
    flags = ("--recipe", "filtered", "--window", "2", "--stride", "1", "--remainder", "pad", *HINTS)
    task, paths = verify._task_and_paths(parsed(*write_arrays(tmp_path, [6000]), *flags))
    assert task.preparation.recipe.name == "filtered"
    assert (task.preparation.window, task.preparation.stride, task.preparation.remainder) == (2, 1, "pad")
    material = read_material(task, paths)
    assert [data.shape for data in material.inputs] == [(12, 1000)] * verify.INPUTS_PER_ECG


@pytest.mark.parametrize("flags", [(), ("a.xml", "--dataset", "b"), ("a.xml", "--max_ecgs", "0")])
def test_flags_that_make_no_sense_are_refused(flags: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError):
        run_verify(parsed(*flags))


def test_nothing_to_verify_with_is_refused_with_the_reasons(tmp_path: Path, checkpoint_12lead: Path) -> None:
    (tmp_path / "empty.xml").touch()
    with pytest.raises(RunError, match=r"none of 1 ECG can be embedded\.\n  .*empty\.xml: the file is empty"):
        run_verify(parsed(str(tmp_path / "empty.xml"), "--checkpoint", str(checkpoint_12lead)))
    with pytest.raises(CheckpointError, match="no such file"):
        run_verify(parsed(str(tmp_path / "empty.xml"), "--checkpoint", str(tmp_path / "absent.pth")))
