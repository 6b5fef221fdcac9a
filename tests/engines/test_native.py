"""The native engine: the same bytes on any machine, nothing read or written beside its arrays."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import ecgfounder.engines.native as native_engine
from ecgfounder.engines import Engine, create_engine, native_usable
from ecgfounder.engines.engine import CPU_ROWS
from ecgfounder.engines.native import NativeEngine, instructions, sound_instructions
from ecgfounder.errors import EmbeddingError, OutOfMemoryError, SettingsError
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.checkpoint import build_network, load_backbone
from tests.builders.engines import Array, made, needs_native, signals
from tests.harness.thinned import thinned


@pytest.fixture(scope="module")
def native(checkpoint_1lead: Path, graph_cache: Path) -> NativeEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
        engine = create_engine("native", mode="1lead", checkpoint=checkpoint_1lead)
    assert isinstance(engine, NativeEngine)
    return engine


@pytest.fixture(scope="module")
def in_pytorch(checkpoint_1lead: Path) -> Engine:
    return made(checkpoint_1lead, "torch")


@needs_native
def test_maps_have_the_same_bytes_with_any_instructions_on_any_machine(native: NativeEngine) -> None:
    batch = signals(2, 515, channels=1)
    maps = np.empty((2, 3, FEATURES), np.float32)
    for name in instructions():
        spectra = native_engine._spectra(name, native._layout, native._weights)
        space = np.empty(native_engine._net1d.workspace(native._layout, 2, 515), np.uint8)
        native_engine._net1d.embed(name, native._layout, native._weights, spectra, batch, maps, space, 2, 515)
        assert (
            hashlib.sha256(maps.tobytes()).hexdigest()
            == "4d09b103809ab8df805439e86ce9279cd1e3f0dc40fa804689715f631c72fb9b"
        ), name


@needs_native
def test_instructions_that_give_other_numbers_are_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trial = native_engine._trial

    def tried(name: str) -> Array:
        maps = trial(instructions()[-1])
        if name == "broken":
            maps[0, 0, 0] = np.nextafter(maps[0, 0, 0], np.float32(np.inf))
        return maps

    def chosen(*names: str) -> str:
        monkeypatch.setattr(native_engine, "instructions", lambda: list(names))
        sound_instructions.cache_clear()
        return sound_instructions()

    narrowest = instructions()[-1]
    monkeypatch.setattr(native_engine, "_trial", tried)
    try:
        assert chosen("broken", "sound", narrowest) == "sound"
        assert "broken instructions do not give" in caplog.text
        assert chosen("broken", narrowest) == narrowest
    finally:
        sound_instructions.cache_clear()


@needs_native
def test_a_trial_computes_with_all_of_its_network() -> None:
    maps = native_engine._trial(instructions()[0])
    assert np.isfinite(maps).all()
    assert np.median(maps.std(axis=1)) > 0.1


def _loud_beside_quiet(part: slice) -> Array:
    """A recording of which some samples are a thousand times as large as the others."""
    samples = signals(1, 5000, channels=1)
    samples[:, :, part] *= 1000
    return samples / samples.std()


@needs_native
@pytest.mark.parametrize(
    "samples",
    [
        signals(1, 5001, channels=1),
        _loud_beside_quiet(slice(200, None, 700)),
        _loud_beside_quiet(slice(2500, None)),
        np.eye(1, 3000, 1500, dtype=np.float32)[None] * 50,
        np.repeat(np.float32([0, 3]), 2500)[None, None],
        np.zeros((1, 1, 700), np.float32),
    ],
    ids=["noise", "spikes", "loud half", "one sample", "a step", "zeros"],
)
def test_rounding_errors_are_like_those_of_pytorch(
    native: NativeEngine, in_pytorch: Engine, checkpoint_1lead: Path, samples: Array
) -> None:
    network = build_network(load_backbone(checkpoint_1lead, "1lead")[0], "1lead", n_classes=1).eval().double()
    with torch.no_grad():
        exact = network.feature_map(torch.from_numpy(samples).double()).numpy().reshape(-1, FEATURES)

    def errors(maps: Array) -> tuple[float, float]:
        """Of the whole map, and of the token with the largest one."""
        off = maps[0] - exact
        by_token = np.linalg.norm(off, axis=1) / np.linalg.norm(exact, axis=1)
        return float(np.linalg.norm(off) / np.linalg.norm(exact)), float(by_token.max())

    found, usual = errors(native.embed(samples)), errors(in_pytorch.embed(samples))
    assert found[0] < 2 * usual[0] + 1e-7
    assert found[1] < 4 * usual[1] + 1e-7


@needs_native
@pytest.mark.parametrize("rows", [1, 3, CPU_ROWS])
def test_no_more_memory_is_written_than_was_asked_for(native: NativeEngine, rows: int) -> None:
    module = native_engine._net1d
    for length in (1, 2, 255, 257, 1375, 5501):
        batch = signals(rows, length, channels=1)
        expected = native.embed(batch)
        n_bytes = module.workspace(native._layout, rows, length)
        space = np.full(n_bytes + 4096, 0xFF, np.uint8)  # NaN, should it be read
        maps = np.full((rows + 1, *expected.shape[1:]), 7, np.float32)
        arrays = (native._layout, native._weights, native._spectra, batch, maps[:rows], space[:n_bytes])
        module.embed(native.instructions, *arrays, rows, length)
        assert np.array_equal(maps[:rows], expected)  # from memory that held rubbish, too
        assert (maps[rows] == 7).all()
        assert (space[n_bytes:] == 0xFF).all()


@needs_native
@pytest.mark.parametrize(
    "wrong", ["instructions", "layout", "weights", "spectra", "signals", "maps", "space", "n", "length"]
)
def test_arrays_that_do_not_belong_together_are_refused_before_anything_is_read(
    native: NativeEngine, wrong: str
) -> None:
    module = native_engine._net1d
    layout = native_engine._layout(1)
    n, length = 2, 300
    arguments = {
        "instructions": instructions()[0],
        "layout": layout,
        "weights": np.zeros_like(native._weights),
        "spectra": np.zeros_like(native._spectra),
        "signals": np.zeros((n, 1, length), np.float32),
        "maps": np.ones((n, 2, FEATURES), np.float32),
        "space": np.empty(module.workspace(layout, n, length), np.uint8),
        "n": n,
        "length": length,
    }
    module.embed(*arguments.values())
    assert not arguments["maps"].any()  # all weights are zero: the sizes above are the right ones
    arguments["maps"][:] = 1
    arguments[wrong] = {
        "instructions": "MMX",
        "layout": layout[:-1],
        "n": 3,
        "length": 2**60,
    }.get(wrong, arguments[wrong][:-1] if isinstance(arguments[wrong], np.ndarray) else None)
    with pytest.raises(ValueError):
        module.embed(*arguments.values())
    assert arguments["maps"].all()


@needs_native
@pytest.mark.parametrize(
    "layout",
    [
        [],
        [1, 64, 64, 64, 64, 1, 1, 1],
        [1, *[64] * 5, 1, 1, 1],
        [0, 64, 64, 64, 64, 64, 2, 1, 1, 1],
        [17, 64, 64, 64, 64, 64, 2, 1, 1, 1],
        [1, 60, 64, 64, 64, 64, 2, 1, 1, 1],
        [1, 64, 64, 48, 64, 64, 2, 1, 1, 1],
        [1, 64, 64, 64, 64, 64, 1, 1, 0, 1],
        [1, 64, *[64] * 17, *[1] * 17],
    ],
    ids=[
        "nothing",
        "few stages",
        "odd",
        "no lead",
        "many leads",
        "part of a panel",
        "narrower",
        "no block",
        "many",
    ],
)
def test_networks_that_it_was_not_written_for_are_refused(layout: list[int]) -> None:
    for function, rest in (("workspace", (1, 300)), ("sizes", ())):
        with pytest.raises(ValueError, match="not a network"):
            getattr(native_engine._net1d, function)(np.array(layout, np.int32), *rest)


@needs_native
@pytest.mark.parametrize("wrong", ["instructions", "layout", "weights", "spectra"])
def test_spectra_are_made_of_all_weights_in_arrays_that_belong_together(native: NativeEngine, wrong: str) -> None:
    module = native_engine._net1d
    arguments = {
        "instructions": instructions()[0],
        "layout": native._layout,
        "weights": native._weights,
        "spectra": np.zeros_like(native._spectra),
    }
    module.spectra(*arguments.values())
    assert np.array_equal(arguments["spectra"], native._spectra)
    arguments["spectra"][:] = 0
    arguments[wrong] = "MMX" if wrong == "instructions" else arguments[wrong][:-1]
    with pytest.raises(ValueError):
        module.spectra(*arguments.values())
    assert not arguments["spectra"].any()


@needs_native
def test_memory_that_is_not_there_is_an_embedding_error(native: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_engine: NativeEngine, _n_bytes: int) -> Array:
        raise MemoryError

    monkeypatch.setattr(NativeEngine, "_space", fail)
    with pytest.raises(OutOfMemoryError, match=r"\[1, 1, 500\] cannot be computed: not enough memory"):
        native.embed(signals(1, 500, channels=1))


@needs_native
def test_memory_of_a_thread_is_kept_unless_it_is_large(native: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    large = native._space(10_000_000)
    assert native._space(9_000_000) is large
    assert large.ctypes.data % 64 == 0
    monkeypatch.setattr(native_engine, "_KEPT_BYTES", 20_000_000)
    larger = native._space(30_000_000)
    assert native._space(30_000_000) is not larger


def test_where_it_was_not_built_the_native_engine_says_what_it_needs(
    checkpoint_1lead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_engine, "_net1d", None)
    assert not native_usable()
    with pytest.raises(SettingsError, match=r"needs a C compiler .*engine='onnx'"):
        create_engine("native", mode="1lead", checkpoint=checkpoint_1lead)


@needs_native
@pytest.mark.parametrize("bits", thinned([0x7FC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], 2), ids=hex)
def test_any_nan_spreads_as_it_does_in_pytorch(native: NativeEngine, in_pytorch: Engine, bits: int) -> None:
    batch = signals(1, 8000, channels=1)
    batch.view(np.uint32)[0, 0, 7600] = bits
    expected = in_pytorch.embed(batch)
    assert np.array_equal(np.isnan(native.embed(batch)), np.isnan(expected))
    assert np.isnan(expected).all()


@needs_native
def test_an_engine_that_was_closed_says_so(checkpoint_1lead: Path) -> None:
    engine = made(checkpoint_1lead, "native")
    engine.close()
    with pytest.raises(EmbeddingError, match="was closed"):
        engine.embed(signals(1, 300, channels=1))
