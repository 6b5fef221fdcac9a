"""The Python API: the same numbers as a run's whatever form an ECG comes in, in the input's order, with errors that name it."""

from __future__ import annotations

import ast
import doctest
import io
import itertools
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import numpy.typing as npt
import pytest
import torch

import ecgfounder
from ecgfounder import demo, embedder
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.embedder import Embedder, load, recording_from_array
from ecgfounder.engines import Engine
from ecgfounder.errors import (
    CheckpointError,
    ECGFounderError,
    EmbeddingError,
    PrepareError,
    ReadError,
    SettingsError,
)
from ecgfounder.network.checkpoint import load_state_dict
from ecgfounder.network.head import Head
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import PAPER, Recipe
from ecgfounder.readers import read_ecg
from tests.harness.kept_engines import kept_engines
from tests.places import ROOT


@pytest.fixture(scope="module")
def _cache(graph_cache: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
        yield


@pytest.fixture(scope="module")
def model(checkpoint_12lead: Path, _cache: None) -> Iterator[Embedder]:
    with load("12lead", checkpoint_12lead, threads=2) as made:
        yield made


@pytest.fixture(scope="module")
def one_lead(checkpoint_1lead: Path, _cache: None) -> Iterator[Embedder]:
    with load("1lead", checkpoint_1lead) as made:
        yield made


@pytest.fixture(scope="module")
def ecgs(demo_cohort: Path) -> Path:
    """The demo's ECG files: 12 that can be read, of three lengths and two rates, and a damaged one."""
    return demo_cohort / "ecg"


def with_preparation(model: Embedder, **choices: Any) -> Embedder:
    return Embedder(model.engine, Preparation(mode=model.mode, **choices), checkpoint=model.checkpoint)


def noise(n_samples: int = 1000, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng([seed, n_samples]).standard_normal((12, n_samples)).astype(np.float32)


def recording(n_samples: int = 1000, seed: int = 0) -> Recording:
    return recording_from_array(noise(n_samples, seed), 500, STANDARD_LEADS)


# --- one ECG in any form ---------------------------------------------------------------------------------------------


def test_a_philips_file_gives_the_official_networks_map_and_probabilities(model: Embedder, shared: Path) -> None:
    with np.load(shared / "golden" / "sierra.npz") as golden:
        expected, logits = golden["129DYPRG.map_12lead"], golden["129DYPRG.logits_12lead"]
    path = shared / "ecg" / "sierra" / "129DYPRG.XML"
    found = model.embed(path)
    assert found.shape == expected.shape == (22, 1024)
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    assert np.abs(model.predict(path) - 1 / (1 + np.exp(-logits.astype(np.float64)))).max() <= 1e-3


def test_path_recording_array_and_tensor_give_the_same_bytes(model: Embedder, ecgs: Path) -> None:
    path = ecgs / "patient_001" / "ecg_0001.xml"
    read = read_ecg(path)
    array = {"sampling_rate": read.sampling_rate, "leads": read.leads}
    expected = model.embed(path)
    assert expected.shape == (20, 1024)
    assert expected.dtype == np.float32
    for other in (
        model.embed(str(path)),
        model.embed(read),
        model.embed(read.samples, **array),
        model.embed(torch.from_numpy(read.samples).requires_grad_(), **array),
        model.embed(np.asfortranarray(read.samples.astype(np.float64)), **array),
    ):
        assert other.tobytes() == expected.tobytes()


def test_the_unit_of_an_array_is_converted_to_millivolt() -> None:
    counts = np.arange(24).reshape(2, 12)
    samples = recording_from_array(counts, 500, ["I", "II"], "uV").samples
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, counts / 1000, rtol=1e-6)


def test_masked_samples_are_missing_not_whatever_lies_under_the_mask() -> None:
    masked = np.ma.masked_equal(np.array([[1, 2, -9999, 3]]), -9999)
    assert np.isnan(recording_from_array(masked, 500, "I").samples[0]).tolist() == [False, False, True, False]


def test_what_it_gives_is_what_a_run_writes(model: Embedder, ecgs: Path, tmp_path: Path) -> None:
    from ecgfounder.cli import main

    name = "patient_006/ecg_0007.xml"
    (tmp_path / "cohort.csv").write_text(f"ecg_paths\n{name}\n")
    for pooling in ("none", "mean"):
        flags = ["--dataset", str(tmp_path / "cohort.csv"), "--data_dir", str(ecgs), "--num_workers", "0"]
        flags += ["--output_dir", str(tmp_path / pooling), "--checkpoint", str(model.checkpoint), "--pooling", pooling]
        assert main(["embed", *flags]) == 0
        written = json.loads((tmp_path / pooling / "ecg_0007.json").read_text())
        found = model.embed(ecgs / name, pooling=pooling)  # type: ignore[call-overload]
        assert written["shape"] == list(found.shape)
        assert np.asarray(written["embedding"], np.float32).tobytes() == found.tobytes()


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choices", "pooling", "shape"),
    [
        ({}, "none", (10, 1024)),
        ({}, "mean", (1024,)),
        ({"window": 2.0}, "none", (4, 1024)),
        ({"window": 2.0, "stride": 1.0}, "none", (4, 4, 1024)),
        ({"window": 2.0, "stride": 2.0, "remainder": "pad"}, "mean", (3, 1024)),
        ({"window": 2.0, "stride": 2.0, "remainder": "keep"}, "mean", (3, 1024)),
    ],
)
def test_shapes_are_the_documented_ones(
    model: Embedder, choices: dict[str, Any], pooling: Any, shape: tuple[int, ...]
) -> None:
    assert with_preparation(model, **choices).embed(recording(2500), pooling=pooling).shape == shape


def test_every_lead_stands_between_windows_and_tokens(one_lead: Embedder) -> None:
    every = with_preparation(one_lead, lead="all")
    windows = with_preparation(one_lead, lead="all", window=2.0, stride=2.0)
    assert one_lead.embed(recording(2500)).shape == (10, 1024)
    assert every.embed(recording(2500)).shape == (12, 10, 1024)
    assert windows.embed(recording(2500)).shape == (2, 12, 4, 1024)
    assert every.predict(recording(2500)).shape == (12, 150)
    lead_v3 = with_preparation(one_lead, lead="V3").embed(recording(2500))
    assert lead_v3.tobytes() == every.embed(recording(2500))[8].tobytes()


def test_mean_pooling_is_the_mean_over_tokens(model: Embedder) -> None:
    whole = model.embed(recording(5000))
    pooled = model.embed(recording(5000), pooling="mean")
    np.testing.assert_allclose(pooled, whole.mean(axis=0), rtol=1e-5, atol=1e-6)


def test_a_single_row_needs_no_lead_name_for_the_1_lead_network(one_lead: Embedder) -> None:
    row = noise(1000)[0]
    named = one_lead.embed(row, sampling_rate=500, leads="I")
    for other in (row, row[None]):
        assert one_lead.embed(other, sampling_rate=500).tobytes() == named.tobytes()


def test_prepare_shows_what_goes_in_and_where_it_stands(model: Embedder) -> None:
    signal = with_preparation(model, window=2.0, stride=1.0).prepare(
        noise(2500), sampling_rate=500, leads=STANDARD_LEADS
    )
    assert signal.starts == (0.0, 1.0, 2.0, 3.0)
    assert [data.shape for data in signal.inputs] == [(12, 1000)] * 4


def test_tensors_are_given_where_they_are_asked_for(model: Embedder) -> None:
    one = model.embed(recording(), as_tensor=True)
    several = model.embed([recording(), recording(seed=1)], as_tensor=True)
    assert isinstance(one, torch.Tensor)
    assert [type(each) for each in several] == [torch.Tensor] * 2
    assert torch.equal(one, several[0])


# --- several ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_an_iterable_gives_each_ecgs_own_bytes_in_order(model: Embedder, batch_size: int) -> None:
    lengths = (1000, 600, 1000, 1000, 300, 600, 1000, 257)
    several = [recording(length, seed) for seed, length in enumerate(lengths)]
    alone = [model.embed(each) for each in several]
    together = model.embed(several, batch_size=batch_size)
    backwards = model.embed(reversed(several), batch_size=batch_size)
    assert [each.tobytes() for each in together] == [each.tobytes() for each in alone]
    assert [each.tobytes() for each in backwards[::-1]] == [each.tobytes() for each in alone]


def test_forms_may_be_mixed_in_an_iterable(model: Embedder, ecgs: Path) -> None:
    path = ecgs / "patient_001" / "ecg_0001.xml"
    found = model.embed((path, recording(), noise()), sampling_rate=500, leads=STANDARD_LEADS, pooling="mean")
    assert [each.shape for each in found] == [(1024,)] * 3
    assert found[1].tobytes() == found[2].tobytes()


def test_an_array_of_paths_is_an_iterable(model: Embedder, ecgs: Path) -> None:
    path = str(ecgs / "patient_001" / "ecg_0001.xml")
    assert len(model.embed(np.array([path, path]), pooling="mean")) == 2
    assert len(model.embed(np.array([path], dtype=object), pooling="mean")) == 1
    assert model.embed([]) == []


def test_means_of_several_are_one_array_whatever_their_lengths(model: Embedder) -> None:
    several = [recording(length, seed) for seed, length in enumerate((1000, 600, 300))]
    alone = [model.embed(each, pooling="mean") for each in several]
    together = model.embed(several, pooling="mean")
    assert together.shape == (3, model.dim)
    assert together.tobytes() == np.stack(alone).tobytes()
    tensor = model.embed(iter(several), pooling="mean", as_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert np.array_equal(tensor.numpy(), together)
    assert model.embed([], pooling="mean").shape == (0, 1024)
    assert isinstance(model.embed(several, pooling="mean", errors="return"), list)
    probabilities = model.predict(several)
    assert probabilities.shape == (3, 150)
    assert np.array_equal(probabilities[1], model.predict(several[1]))
    assert model.predict([]).shape == (0, 150)


def test_a_batch_of_samples_gives_a_batch(model: Embedder) -> None:
    batch = np.stack([noise(1000, seed) for seed in range(3)])
    known = {"sampling_rate": 250, "leads": STANDARD_LEADS}
    alone = np.stack([model.embed(each, **known) for each in batch])
    for given in (batch, torch.from_numpy(batch)):
        found = model.embed(given, **known)
        assert found.shape == (3, 8, 1024)
        assert found.tobytes() == alone.tobytes()
    assert model.embed(batch, as_tensor=True, **known).shape == (3, 8, 1024)
    assert model.embed(batch[:0], **known).shape == (0, 8, 1024)
    assert model.predict(batch, **known).shape == (3, 150)
    assert [each.shape for each in model.embed_iter(batch, **known)] == [(8, 1024)] * 3
    with pytest.raises(SettingsError, match=r"^recording 0: An array does not state its sampling_rate"):
        model.embed(batch)
    with pytest.raises(SettingsError, match=r"recording 0: .*\[N, n_leads, n_samples\]"):
        model.embed([batch], **known)


def test_what_may_differ_between_recordings_stays_a_list(model: Embedder, one_lead: Embedder) -> None:
    batch = np.stack([noise(1000, seed) for seed in range(2)])
    known = {"sampling_rate": 500, "leads": STANDARD_LEADS}
    trimmed = with_preparation(model, trim_zero_edges=True).embed(batch, **known)
    windows = with_preparation(model, window=1, stride=0.5).embed(batch, pooling="mean", **known)
    leads = with_preparation(one_lead, lead="all").embed(batch, pooling="mean", **known)
    assert [(type(each), each[0].shape) for each in (trimmed, windows, leads)] == [
        (list, (4, 1024)),
        (list, (3, 1024)),
        (list, (12, 1024)),
    ]
    short = with_preparation(model, window=10)
    assert short.embed(batch, errors="skip", **known).shape == (0, 0, 1024)


def test_a_progress_bar_counts_what_was_taken(model: Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    several = [recording(300, seed) for seed in range(3)]
    plain = model.embed(several, pooling="mean")
    assert capsys.readouterr().err == ""
    assert np.array_equal(model.embed(several, pooling="mean", progress=True), plain)
    assert "3/3" in capsys.readouterr().err
    assert len(list(model.embed_iter(iter(several), progress=True))) == 3
    assert "3ECG" in capsys.readouterr().err
    assert len(model.predict(several, progress=True)) == 3
    assert "3/3" in capsys.readouterr().err


# --- its place, and a copy elsewhere ---------------------------------------------------------------------------------


def test_a_pickled_embedder_gives_the_same_bytes_in_another_process(model: Embedder, tmp_path: Path) -> None:
    own = with_load(model, window=1.0)
    (tmp_path / "model").write_bytes(pickle.dumps(own))
    assert (tmp_path / "model").stat().st_size < 5000  # no weights
    np.save(tmp_path / "noise.npy", noise())
    program = (
        "import pickle, sys, numpy as np, ecgfounder\n"
        "with open(sys.argv[1], 'rb') as file: model = pickle.load(file)\n"
        "samples = np.load(sys.argv[2])\n"
        "np.save(sys.argv[3], model.embed(samples, sampling_rate=500, leads=ecgfounder.STANDARD_LEADS))\n"
    )
    files = [str(tmp_path / name) for name in ("model", "noise.npy", "out.npy")]
    subprocess.run([sys.executable, "-c", program, *files], check=True)
    assert np.load(tmp_path / "out.npy").tobytes() == own.embed(recording()).tobytes()


def with_load(model: Embedder, **choices: Any) -> Embedder:
    return load("12lead", model.checkpoint, engine="torch", device="cpu", **choices)


def test_it_moves_to_a_device_or_stays_where_it_is(model: Embedder) -> None:
    own = with_load(model)
    assert (own.device, own.dim) == ("cpu", 1024)
    assert own.to("cpu") is own
    before = own.embed(recording())
    with pytest.raises(SettingsError, match="the device 'cuda:99' cannot be used"):
        own.to("cuda:99")
    assert own.embed(recording()).tobytes() == before.tobytes()
    own.to(torch.device("meta"))
    assert own.device == "meta"
    assert own.to("cpu").embed(recording()).tobytes() == before.tobytes()
    assert pickle.loads(pickle.dumps(own)).device == "cpu"
    native = load("12lead", model.checkpoint, engine="native")
    with pytest.raises(SettingsError, match="on the CPU only: use engine='torch'"):
        native.to("cuda")
    assert native.device == "cpu"


def test_one_that_was_made_from_an_engine_says_that_it_cannot_be_made_again() -> None:
    made = Embedder(CountingEngine(), Preparation(), checkpoint=Path("none"))
    for attempt in (lambda: made.to("cpu"), lambda: pickle.dumps(made)):
        with pytest.raises(SettingsError, match=r"use ecgfounder\.load"):
            attempt()


def test_objects_are_shown_in_a_line_and_as_a_table_in_notebooks(model: Embedder, ecgs: Path) -> None:
    signal = model.prepare(ecgs / "patient_001" / "ecg_0001.xml")
    assert repr(signal).startswith("<Signal: 1 input of 12 leads at 500 Hz, I II III aVR")
    assert repr(signal).endswith("V6, no flags>")
    assert "<td>1 input of 12 leads at 500 Hz</td>" in signal._repr_html_()
    windows = with_preparation(model, window=2, stride=2).prepare(ecgs / "patient_006" / "ecg_0007.xml")
    assert "5 inputs of 12 leads" in repr(windows)
    assert "Embedder(12lead, recipe zscore v1, " in repr(model)
    assert f"<th>checkpoint</th><td>{model.checkpoint}</td>" in model._repr_html_()


class CountingEngine(Engine):
    """Gives zeros; for what has nothing to do with the network."""

    name = "counting"

    def __init__(self, *, fail_above: int = 1 << 60, rows: int = 1 << 60) -> None:
        super().__init__(precision="float32", device="cpu", threads=2, batch_size=8, in_channels=12, head=None)
        self.batches: list[tuple[int, ...]] = []
        self.fail_above, self.rows = fail_above, rows

    def _embed(self, batch: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        self.batches.append(batch.shape)
        if batch.shape[2] > self.fail_above or len(batch) > self.rows:
            raise EmbeddingError("too large for the memory")
        maps = np.zeros((len(batch), -(-batch.shape[2] // 256), 1024), np.float32)
        maps[np.abs(batch).max(axis=(1, 2)) > 1e6] = np.inf
        return maps

    def describe(self) -> str:
        return "counting"

    def close(self) -> None:
        self.batches.clear()


def test_a_stream_without_end_is_taken_as_it_is_needed() -> None:
    engine = CountingEngine()
    model = Embedder(engine, Preparation(), checkpoint=Path("none"))
    taken = itertools.count()
    # The first ECG has a length of its own, so that its batch never fills.
    stream = (recording(300 if next(taken) == 0 else 600) for _ in itertools.repeat(None))
    embeddings = model.embed_iter(stream, batch_size=4)
    shapes = [next(embeddings).shape for _ in range(40)]
    assert shapes == [(2, 1024)] + [(3, 1024)] * 39
    assert next(taken) <= 40 + 2 * 4 * 3 + 1
    embeddings.close()  # type: ignore[attr-defined]


def test_equal_lengths_share_batches_of_the_size_asked_for() -> None:
    engine = CountingEngine()
    model = Embedder(engine, Preparation(), checkpoint=Path("none"))
    model.embed([recording(600, seed) for seed in range(10)], batch_size=4)
    assert sorted(engine.batches) == [(2, 12, 600), (4, 12, 600), (4, 12, 600)]


def test_the_callers_number_of_threads_stays(checkpoint_12lead: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with load("12lead", checkpoint_12lead, engine="torch", device="cpu") as model:
            model.embed(recording(300))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def some_bad(ecgs: Path) -> list[Any]:
    constant = recording_from_array(np.ones((12, 1000)), 500, STANDARD_LEADS)
    return [recording(), ecgs / "patient_012" / "ecg_0013.xml", constant, None, recording(seed=1)]


def test_by_default_the_first_bad_ecg_raises_and_is_named(model: Embedder, some_bad: list[Any]) -> None:
    with pytest.raises(ReadError, match=r"ecg_0013\.xml: "):
        model.embed(some_bad)
    with pytest.raises(PrepareError, match=r"^recording 1: the signal is constant"):
        model.embed([recording(), some_bad[2]])
    with pytest.raises(SettingsError, match=r"^recording 0: Expected a path.*'NoneType'"):
        model.embed([None])


def test_bytes_and_file_objects_are_recordings_and_are_named_by_their_place(model: Embedder, ecgs: Path) -> None:
    path = next(iter(sorted(ecgs.rglob("*.xml"))))
    content = path.read_bytes()
    expected = model.embed(path, pooling="mean")
    assert model.embed(content, pooling="mean").tobytes() == expected.tobytes()
    with path.open("rb") as file:
        assert model.embed(file, pooling="mean").tobytes() == expected.tobytes()
    many = model.embed([content, io.BytesIO(content), path, b"<a/>"], pooling="mean", errors="return")
    assert [each.tobytes() for each in many[:3]] == [expected.tobytes()] * 3
    assert str(many[3]).startswith("recording 3: ")
    with pytest.raises(ReadError, match=r"^the given bytes: the file is empty"):
        model.embed(b"")


def test_exceptions_can_stand_in_the_place_of_the_bad(model: Embedder, some_bad: list[Any]) -> None:
    found = model.embed(some_bad, errors="return", pooling="mean")
    assert [type(each) for each in found] == [np.ndarray, ReadError, PrepareError, SettingsError, np.ndarray]
    assert found[4].tobytes() == model.embed(some_bad[4], pooling="mean").tobytes()


def test_the_bad_can_be_left_out_with_a_warning(
    model: Embedder, some_bad: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert len(model.embed(some_bad, errors="skip", pooling="mean")) == 2
    assert len(caplog.records) == 3
    assert "ecg_0013.xml" in caplog.text


def test_a_single_ecg_raises_whatever_the_policy(model: Embedder, some_bad: list[Any]) -> None:
    with pytest.raises(ReadError, match=r"ecg_0013\.xml"):
        model.embed(some_bad[1], errors="return")
    with pytest.raises(PrepareError, match=r"^the signal is constant"):
        model.embed(some_bad[2])


def test_a_prepare_error_names_the_file(one_lead: Embedder, ecgs: Path) -> None:
    path = ecgs / "patient_001" / "ecg_0001.xml"
    with pytest.raises(PrepareError, match=r"ecg_0001\.xml: missing lead V7"):
        with_preparation(one_lead, lead="V7").embed(path)


def test_a_batch_that_cannot_be_computed_concerns_its_ecgs_alone() -> None:
    model = Embedder(CountingEngine(fail_above=1000), Preparation(), checkpoint=Path("none"))
    found = model.embed([recording(600), recording(2000), recording(700)], errors="return")
    assert [isinstance(each, EmbeddingError) for each in found] == [False, True, False]
    assert str(found[1]) == "recording 1: too large for the memory"


def test_a_batch_that_is_too_large_is_done_row_by_row() -> None:
    model = Embedder(CountingEngine(rows=1), Preparation(), checkpoint=Path("none"))
    assert len(model.embed([recording(600, seed) for seed in range(8)])) == 8


def test_an_embedding_that_is_not_finite_is_an_error_for_predictions_too() -> None:
    preparation = Preparation(recipe=Recipe("raw", "1", normalization="none"))
    model = Embedder(CountingEngine(), preparation, checkpoint=Path("none"))
    model.engine.head = Head(np.zeros((150, 1024), np.float32), np.zeros(150, np.float32))
    huge = recording_from_array(noise() * 1e9, 500, STANDARD_LEADS)
    found = model.embed([recording(), huge, recording(seed=1)], errors="return")
    assert [isinstance(each, EmbeddingError) for each in found] == [False, True, False]
    with pytest.raises(EmbeddingError, match="not finite"):
        model.predict(huge)


@pytest.mark.parametrize(
    ("x", "given", "message"),
    [
        (noise(), {}, "does not state its sampling_rate"),
        (noise(), {"sampling_rate": 500}, "does not state its leads"),
        (noise(), {"sampling_rate": 500, "leads": ["I"]}, r"\[12, 1000\] and 1 lead names"),
        (noise().T, {"sampling_rate": 500, "leads": STANDARD_LEADS}, r"pass array\.T"),
        (noise()[None, None], {"sampling_rate": 500, "leads": STANDARD_LEADS}, r"a batch \[N, n_leads, n_samples\]"),
        (noise() * 1j, {"sampling_rate": 500, "leads": STANDARD_LEADS}, "real numbers"),
        (noise(), {"sampling_rate": 500, "leads": STANDARD_LEADS, "unit": "mm"}, "'unit' parameter"),
        (3.5, {}, "'float'"),
        (noise(), {"pooling": "max"}, "'pooling' parameter"),
        ([noise()], {"errors": "ignore"}, "'errors' parameter"),
        ([noise()], {"batch_size": 0}, "'batch_size' parameter"),
    ],
)
def test_misuse_is_answered_with_the_way_out(model: Embedder, x: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        model.embed(x, **given)


def test_windows_of_different_length_need_pooling(model: Embedder) -> None:
    ragged = with_preparation(model, window=2.0, stride=2.0, remainder="keep")
    with pytest.raises(SettingsError, match="pooling='mean'"):
        ragged.embed(recording(2500))


# --- predictions -----------------------------------------------------------------------------------------------------


def test_predictions_are_the_networks_own(model: Embedder, checkpoint_12lead: Path) -> None:
    net = ecgfounder.BUNDLES["12lead"].load(checkpoint_12lead)
    data = model.prepare(recording(2500)).inputs[0]
    with torch.inference_mode():
        expected = torch.sigmoid(net(torch.from_numpy(data[None])))[0].numpy()
    found = model.predict(recording(2500))
    assert found.shape == (150,) == (len(model.labels),)
    assert model.labels[3] == "SINUS RHYTHM"
    np.testing.assert_allclose(found, expected, atol=1e-4)
    alone, with_others = model.predict([recording(2500)]), model.predict([recording(2500), recording(2500, 1)])
    assert alone[0].tobytes() == with_others[0].tobytes() == found.tobytes()


@pytest.mark.parametrize(("classes", "found"), [(None, "no head"), (5, "a head of 5 classes")])
def test_predictions_need_the_head_of_150_statements(
    checkpoint_small: Path, tmp_path: Path, classes: int | None, found: str
) -> None:
    state = {name: tensor for name, tensor in load_state_dict(checkpoint_small).items() if "dense." not in name}
    if classes is not None:
        state |= {"dense.weight": torch.zeros(classes, 1024), "dense.bias": torch.zeros(classes)}
    torch.save(state, tmp_path / "other.pth")
    with load("12lead", tmp_path / "other.pth", engine="torch", device="cpu") as model:
        assert model.embed(recording(300)).shape == (2, 1024)
        with pytest.raises(CheckpointError, match=rf"other\.pth: expected the head of 150 statements.*found {found}"):
            model.predict(recording(300))


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def _kept_engine() -> Iterator[None]:
    with kept_engines(embedder):
        yield


@pytest.mark.usefixtures("_kept_engine")
def test_choices_become_the_preparation(checkpoint_12lead: Path) -> None:
    def prepared(**choices: Any) -> Preparation:
        with load("12lead", checkpoint_12lead, **choices) as model:
            return model.preparation

    assert prepared() == Preparation()
    assert prepared(recipe="paper") == Preparation(recipe=PAPER)
    assert prepared(recipe="paper").window == 10
    assert prepared(recipe="paper", window="whole").window is None
    assert prepared(window=10, missing_leads="zero") == Preparation(window=10, missing_leads="zero")
    assert prepared(preparation=Preparation(window=5)).window == 5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preparation": Preparation(), "window": 10}, "put window into it"),
        ({"preparation": Preparation(mode="1lead")}, "contradicts"),
        ({"recipe": "best"}, "'zscore'"),
        ({"mode": "3lead"}, "'mode' parameter"),
        ({"threads": 0}, "'threads' parameter"),
        ({"engine": "tensorflow"}, "'engine' parameter"),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(**{"mode": "12lead", "checkpoint": __file__, **given})


def test_a_missing_checkpoint_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="hf download"):
        load("12lead", tmp_path / "absent.pth")


# --- the package's own names -----------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, ecgfounder; from ecgfounder import cli; "
        "print([name for name in ('torch', 'numpy', 'scipy', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_every_public_name_is_there_and_typed() -> None:
    for name in ecgfounder.__all__:
        assert getattr(ecgfounder, name) is not None
    assert set(ecgfounder.__all__) <= set(dir(ecgfounder))
    tree = ast.parse(Path(ecgfounder.__file__).read_text(encoding="utf-8"))
    [guard] = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {alias.name for node in guard.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed | {"__version__"} == set(ecgfounder.__all__)
    with pytest.raises(AttributeError, match="no attribute 'embeddings'"):
        _ = ecgfounder.embeddings


def test_errors_have_one_base() -> None:
    for name in ecgfounder.__all__:
        if name.endswith("Error"):
            assert issubclass(getattr(ecgfounder, name), ECGFounderError)


# --- the documentation -----------------------------------------------------------------------------------------------


@pytest.fixture
def _demo_at_hand(demo_cohort: Path, checkpoint_small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What writes the demo copies it: its recordings as they are, and a checkpoint in a small file."""

    def write_cohort(folder: Path) -> None:
        shutil.copytree(demo_cohort, folder, dirs_exist_ok=True)

    def write_checkpoint(path: Path, mode: str = "12lead", seed: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoint_small, path)

    for name, write in (("write_demo_cohort", write_cohort), ("write_demo_checkpoint", write_checkpoint)):
        stand_in = create_autospec(getattr(demo, name), side_effect=write)
        for module in (demo, demo.demo):
            monkeypatch.setattr(module, name, stand_in)


@pytest.mark.usefixtures("_demo_at_hand")
@pytest.mark.parametrize("module", ["embedder", "dataset", "embedding"])
def test_the_docstrings_examples_run(module: str) -> None:
    import importlib

    result = doctest.testmod(importlib.import_module(f"ecgfounder.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.usefixtures("_demo_at_hand")
def test_the_pages_examples_run_and_print_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = [part.partition("```")[0] for part in text.split("```python\n")[1:]]
    assert len(blocks) > 5
    program: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), program)
        said = [line.partition("  # ")[2] for line in block.splitlines() if line.lstrip().startswith("print(")]
        assert capsys.readouterr().out.splitlines() == said, block
