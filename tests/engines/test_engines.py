"""Engines agree, give a row the same bytes in any company and thread, and refuse what is no batch of signals."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import ecgfounder.engines.torch as torch_engine_module
from ecgfounder.engines import Engine, create_engine
from ecgfounder.engines.engine import CPU_ROWS
from ecgfounder.errors import EmbeddingError
from ecgfounder.net1d import Net1D
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.checkpoint import build_network, head_of, load_backbone, load_state_dict
from ecgfounder.network.head import pooled
from tests.builders.engines import MADE, Array, needs_native, relative, signals
from tests.builders.weights import drawn_state
from tests.harness.thinned import thinned

pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")


FLOAT32_ENGINES = ["torch", "onnx", pytest.param("native", marks=needs_native)]


@pytest.fixture(scope="module")
def every(checkpoint_12lead: Path, graph_cache: Path) -> Iterator[dict[str, Engine]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
        made = {
            name: create_engine(name, mode="12lead", checkpoint=checkpoint_12lead, device="cpu", threads=2)
            for name in MADE
        }
    yield made
    for engine in made.values():
        engine.close()


@pytest.fixture(scope="module", params=FLOAT32_ENGINES)
def engine(request: pytest.FixtureRequest, every: dict[str, Engine]) -> Engine:
    return every[request.param]


# ------------------------------------------------------------------------------------------------------------ agreement


@pytest.fixture(scope="module")
def steady(checkpoint_steady: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """Every engine with weights that do not amplify rounding.

    The drawn weights do, more with every sample: at 15,000 samples any two float32 evaluations of them, in any order of
    summation, are 1e-5 apart. With smaller residual branches, the engines' own error is what is seen.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {name: create_engine(name, mode="12lead", checkpoint=checkpoint_steady, device="cpu") for name in MADE}


@pytest.mark.parametrize(
    "length",
    [
        *thinned(range(1, 20), 4),
        *thinned([127, 128, 129, 255, 256, 257, 511, 513, 599, 600, 1001, 2500], 4),
        4999,
        5000,
        15000,
    ],
)
def test_float32_engines_agree_at_every_length(steady: dict[str, Engine], length: int) -> None:
    batch = signals(2, length)
    expected = steady["torch"].embed(batch)
    assert expected.shape == (2, -(-length // 256), FEATURES)
    for name in MADE[1:]:
        found = steady[name].embed(batch)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype == np.float32
        assert relative(found, expected) < 1e-5, name


@pytest.fixture(scope="module")
def in_double_precision(checkpoint_12lead: Path) -> Net1D:
    weights, _ = load_backbone(checkpoint_12lead, "12lead")
    return build_network(weights, "12lead", 1).eval().double()


@pytest.mark.parametrize("length", [5000, 5500])
def test_no_engine_is_further_from_double_precision_than_rounding_allows(
    in_double_precision: Net1D, every: dict[str, Engine], length: int
) -> None:
    batch = signals(1, length)
    with torch.inference_mode():
        expected = in_double_precision.feature_map(torch.from_numpy(batch).double()).numpy()
    for each in every.values():
        assert relative(each.embed(batch), expected) < 2e-5


@pytest.fixture(scope="module")
def every_of_1_lead(checkpoint_1lead: Path, graph_cache: Path) -> dict[str, Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
        return {name: create_engine(name, mode="1lead", checkpoint=checkpoint_1lead, device="cpu") for name in MADE}


@pytest.mark.parametrize("length", [257, 1000, 4999, 5000, 5500, 15000])
@pytest.mark.parametrize("name", FLOAT32_ENGINES)
@pytest.mark.parametrize("mode", ["12lead", "1lead"])
def test_golden_maps_come_out_of_every_engine(
    shared: Path, every: dict[str, Engine], every_of_1_lead: dict[str, Engine], name: str, mode: str, length: int
) -> None:
    made = {"12lead": every, "1lead": every_of_1_lead}[mode][name]
    channels = made.in_channels
    with np.load(shared / "golden" / "net1d.npz") as golden:
        batch = np.random.default_rng([7, channels, length]).standard_normal((channels, length)).astype(np.float32)
        assert relative(made.embed(batch[None])[0], golden[f"map_{mode}_{length}"]) < 1e-4


def test_bfloat16_is_near_float32_and_not_it(tmp_path: Path) -> None:
    state = {name: t * 0.3 if ".conv3.conv." in name else t for name, t in drawn_state("1lead").items()}
    torch.save(state, tmp_path / "weights.pth")
    batch = signals(3, 1000, channels=1)
    exact, rough = (
        create_engine("torch", mode="1lead", checkpoint=tmp_path / "weights.pth", precision=precision, device="cpu")
        for precision in ("float32", "bfloat16")
    )
    found = rough.embed(batch)
    assert found.dtype == np.float32
    assert 1e-5 < relative(found, exact.embed(batch)) < 5e-2


@pytest.mark.parametrize("is_fast", [True, False])
def test_bfloat16_on_a_processor_without_it_comes_with_a_warning(
    checkpoint_1lead: Path, is_fast: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(torch_engine_module._has_fast_bfloat16(), bool)
    monkeypatch.setattr(torch_engine_module, "_has_fast_bfloat16", lambda: is_fast)
    create_engine("torch", mode="1lead", checkpoint=checkpoint_1lead, precision="bfloat16", device="cpu")
    assert ("many times slower" in caplog.text) is not is_fast


# ------------------------------------------------------------------------------------------------------- the same bytes


@pytest.mark.parametrize("length", [37, pytest.param(300, marks=pytest.mark.slow), 701])
def test_a_row_has_the_same_bytes_in_any_batch_slot_and_order(engine: Engine, length: int) -> None:
    batch = signals(2 * CPU_ROWS + 3, length)
    expected = engine.embed(batch)
    for rows in (1, 2, 3, 5, CPU_ROWS - 1, CPU_ROWS, CPU_ROWS + 1):
        assert np.array_equal(engine.embed(batch[:rows]), expected[:rows])
    order = np.random.default_rng(1).permutation(len(batch))
    assert np.array_equal(engine.embed(batch[order]), expected[order])
    assert np.array_equal(engine.embed(np.repeat(batch[4:5], 9, axis=0)), np.repeat(expected[4:5], 9, axis=0))


def test_means_are_the_feature_maps_pooled(engine: Engine) -> None:
    batch = engine.empty((CPU_ROWS + 1, 12, 700))
    batch[:] = signals(CPU_ROWS + 1, 700)
    expected = np.stack([pooled(feature_map) for feature_map in engine.embed(batch)])
    assert engine.means(batch).tobytes() == expected.tobytes()


def test_a_row_does_not_see_its_neighbours(engine: Engine) -> None:
    batch = signals(4, 700)
    expected = engine.embed(batch)
    batch[1] = np.nan
    batch[2] *= 1e6
    found = engine.embed(batch)
    assert np.array_equal(found[[0, 3]], expected[[0, 3]])
    assert np.isnan(found[1]).any()  # passed on: the caller decides what a failed record is


def test_views_that_are_not_contiguous_are_embedded_like_their_copies(engine: Engine) -> None:
    wide = signals(4, 1400)
    assert np.array_equal(engine.embed(wide[::2, :, ::2]), engine.embed(wide[::2, :, ::2].copy()))


def test_many_threads_at_once_get_the_same_bytes(engine: Engine) -> None:
    batches = [signals(rows, length, seed=rows) for rows in (1, 3, 9) for length in (256, 701)]
    expected = [engine.embed(batch) for batch in batches]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(engine.embed, batches * 3))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 3, strict=True))


def test_long_recordings_have_the_same_bytes_in_a_batch_and_alone(engine: Engine) -> None:
    batch = signals(3, 5500)
    expected = engine.embed(batch)
    assert np.array_equal(engine.embed(batch[2:]), expected[2:])


# -------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 12, 0), np.float32),
        np.zeros((1, 1, 500), np.float32),
        np.zeros((12, 500), np.float32),
        np.zeros((1, 12, 500), np.float64),
    ],
    ids=["no samples", "other leads", "no batch", "float64"],
)
def test_what_is_no_batch_of_signals_is_refused(engine: Engine, batch: Array) -> None:
    with pytest.raises(EmbeddingError, match=r"expected float32 signals \[B, 12, L >= 1\]"):
        engine.embed(batch)
    with pytest.raises(EmbeddingError, match="expected float32 signals"):
        engine.means(batch)


def test_an_empty_batch_gives_an_empty_result(engine: Engine) -> None:
    assert engine.embed(np.zeros((0, 12, 5500), np.float32)).shape == (0, 22, FEATURES)
    assert engine.means(np.zeros((0, 12, 5500), np.float32)).shape == (0, FEATURES)


def test_engines_say_what_they_are(every: dict[str, Engine]) -> None:
    assert "PyTorch" in every["torch"].describe()
    assert "ONNX Runtime" in every["onnx"].describe()
    for name, each in every.items():
        assert (each.name, each.precision, each.device, each.threads) == (name, "float32", "cpu", 2)
        assert each.batch_size == CPU_ROWS


def test_the_head_comes_with_the_engine(checkpoint_12lead: Path, engine: Engine) -> None:
    expected = head_of(load_state_dict(checkpoint_12lead))
    assert engine.head is not None
    assert expected is not None
    assert np.array_equal(engine.head.weight, expected.weight)
    assert np.array_equal(engine.head.bias, expected.bias)
