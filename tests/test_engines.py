"""Engines agree, give a row the same bytes in any company and thread, start from a cache, and refuse what they cannot do."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import ecgfounder.engines.native as native_engine
import ecgfounder.engines.onnx as onnx_engine
import ecgfounder.engines.torch as torch_engine_module
from conftest import drawn_state
from ecgfounder.engines import Engine, choice, create_engine, gpu_available, native_usable
from ecgfounder.engines.cache import cache_folder, from_cache
from ecgfounder.engines.engine import CPU_ROWS
from ecgfounder.engines.native import NativeEngine, instructions
from ecgfounder.engines.torch import TorchEngine
from ecgfounder.errors import CheckpointError, EmbeddingError, MissingDependencyError, SettingsError
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.checkpoint import build_network, head_of, load_backbone, load_state_dict, sha256_of

pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")

needs_native = pytest.mark.skipif(
    not native_usable(), reason="the native engine was not built, or not for this processor"
)

FLOAT32_ENGINES = ["torch", "onnx", pytest.param("native", marks=needs_native)]
MADE = ("torch", "onnx", "native") if native_usable() else ("torch", "onnx")

Array = npt.NDArray[np.float32]


def signals(rows: int, length: int, channels: int = 12, seed: int = 0) -> Array:
    return np.random.default_rng([seed, length]).standard_normal((rows, channels, length)).astype(np.float32)


def relative(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


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
    "length", [*range(1, 20), 127, 128, 129, 255, 256, 257, 511, 513, 599, 600, 1001, 2500, 4999, 5000, 5500, 15000]
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


@pytest.mark.parametrize("length", [5000, 5500])
def test_no_engine_is_further_from_double_precision_than_rounding_allows(
    checkpoint_12lead: Path, every: dict[str, Engine], length: int
) -> None:
    weights, _ = load_backbone(checkpoint_12lead, "12lead")
    batch = signals(1, length)
    with torch.inference_mode():
        net = build_network(weights, "12lead", 1).eval().double()
        expected = net.feature_map(torch.from_numpy(batch).double()).numpy()
    for each in every.values():
        assert relative(each.embed(batch), expected) < 2e-5


@pytest.mark.parametrize("name", FLOAT32_ENGINES)
@pytest.mark.parametrize("mode", ["12lead", "1lead"])
def test_golden_maps_come_out_of_every_engine(
    shared: Path, request: pytest.FixtureRequest, name: str, mode: str
) -> None:
    made = create_engine(name, mode=mode, checkpoint=request.getfixturevalue(f"checkpoint_{mode}"), device="cpu")
    channels = made.in_channels
    with np.load(shared / "golden" / "net1d.npz") as golden:
        for length in (257, 1000, 4999, 5000, 5500, 15000):
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


@pytest.mark.parametrize("length", [37, pytest.param(300, marks=pytest.mark.slow), 1375])
def test_a_row_has_the_same_bytes_in_any_batch_slot_and_order(engine: Engine, length: int) -> None:
    batch = signals(2 * CPU_ROWS + 3, length)
    expected = engine.embed(batch)
    for rows in (1, 2, 3, 5, CPU_ROWS - 1, CPU_ROWS, CPU_ROWS + 1):
        assert np.array_equal(engine.embed(batch[:rows]), expected[:rows])
    order = np.random.default_rng(1).permutation(len(batch))
    assert np.array_equal(engine.embed(batch[order]), expected[order])
    assert np.array_equal(engine.embed(np.repeat(batch[4:5], 9, axis=0)), np.repeat(expected[4:5], 9, axis=0))


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
    batches = [signals(rows, length, seed=rows) for rows in (1, 3, 8, 9) for length in (256, 700, 701)]
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


def test_an_empty_batch_gives_an_empty_result(engine: Engine) -> None:
    assert engine.embed(np.zeros((0, 12, 5500), np.float32)).shape == (0, 22, FEATURES)


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


# ------------------------------------------------------------------------------------------------------------- choosing


def test_auto_takes_the_fastest_engine_that_is_there(checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> str:
        return create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead).name

    monkeypatch.setattr(choice, "gpu_available", lambda: False)  # or whatever this machine has
    if native_usable():
        assert taken() == "native"
    monkeypatch.setattr(choice, "native_usable", lambda: False)
    assert taken() == "onnx"
    monkeypatch.setattr(choice, "onnx_installed", lambda: False)
    assert taken() == "torch"


def test_auto_takes_torch_for_another_precision(checkpoint_12lead: Path) -> None:
    made = create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead, precision="bfloat16", device="cpu")
    assert (made.name, made.precision) == ("torch", "bfloat16")


def test_an_engine_that_is_not_installed_is_named_with_its_extra(
    checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"ecgfounder\[cpu\]"):
        create_engine("onnx", mode="12lead", checkpoint=checkpoint_12lead)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": "tensorflow"}, "Allowed values are .*'torch'.*but got 'tensorflow'"),
        ({"precision": "int8"}, "Allowed values are .*but got 'int8'"),
        ({"mode": "8lead"}, "but got '8lead'"),
        ({"choice": "onnx", "precision": "bfloat16"}, "float32 only: use engine='torch'"),
        ({"choice": "onnx", "device": "cuda"}, "on the CPU only"),
        ({"choice": "native", "precision": "float16"}, "float32 only: use engine='torch'"),
        ({"choice": "native", "device": "cuda"}, "on the CPU only"),
        ({"choice": "native", "compiled": True}, "compiled=True with engine='torch'"),
        ({"choice": "onnx", "compiled": True}, "compiled=True with engine='torch'"),
        ({"choice": "torch", "device": "cpu", "precision": "float16"}, "float16 needs a GPU"),
        ({"choice": "torch", "device": "nonsense"}, "the device 'nonsense' cannot be used"),
    ],
)
def test_choices_that_cannot_be_are_refused_before_anything_is_loaded(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        create_engine(**({"mode": "12lead", "checkpoint": tmp_path / "none.pth"} | options))


def test_without_a_gpu_driver_torch_is_not_imported_to_look_for_one() -> None:
    if any((Path("/dev") / name).exists() for name in ("nvidiactl", "nvidia0", "nvidia-uvm", "kfd", "dxg")):
        pytest.skip("this machine has a GPU driver")
    code = (
        "import sys; from ecgfounder.engines import gpu_available; "
        "assert not gpu_available(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert not gpu_available()


# ------------------------------------------------------------------------------------------------------------ the cache


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(folder))
    return folder


def made(checkpoint: Path, name: str = "onnx") -> Engine:
    return create_engine(name, mode="1lead", checkpoint=checkpoint)


@pytest.fixture(scope="module")
def written_cache(checkpoint_1lead: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with what the engines keep of the 1-lead checkpoint; not to be changed."""
    folder = tmp_path_factory.mktemp("written") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(folder))
        for name in MADE[1:]:
            made(checkpoint_1lead, name).close()
    return folder


@pytest.fixture
def filled_cache(written_cache: Path, own_cache: Path) -> Path:
    """A cache of the test's own in which the graph is already."""
    shutil.copytree(written_cache, own_cache)
    return own_cache


@pytest.mark.parametrize("name", ["onnx", pytest.param("native", marks=needs_native)])
def test_with_a_filled_cache_neither_torch_nor_the_checkpoint_is_loaded(
    checkpoint_1lead: Path, filled_cache: Path, name: str
) -> None:
    expected = made(checkpoint_1lead, name).embed(signals(2, 600, channels=1))
    code = (
        "import sys, numpy as np; from pathlib import Path; from ecgfounder.engines import create_engine\n"
        f"engine = create_engine({name!r}, mode='1lead', checkpoint=Path({str(checkpoint_1lead)!r}))\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules and engine.head.n_classes == 150\n"
        "x = np.random.default_rng([0, 600]).standard_normal((2, 1, 600)).astype(np.float32)\n"
        f"np.save({str(filled_cache / 'found.npy')!r}, engine.embed(x))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"ECGFOUNDER_CACHE": str(filled_cache)})
    assert np.array_equal(np.load(filled_cache / "found.npy"), expected)


@pytest.mark.parametrize("damage", ["cut", "flipped", "digests gone", "head gone"])
@pytest.mark.parametrize("name", ["onnx", pytest.param("native", marks=needs_native)])
def test_a_damaged_cache_is_built_again(checkpoint_1lead: Path, filled_cache: Path, damage: str, name: str) -> None:
    batch = signals(2, 300, channels=1)
    expected = made(checkpoint_1lead, name).embed(batch)
    filename = {"onnx": "backbone.onnx", "native": "backbone.f32"}[name]
    (kept,) = filled_cache.glob(f"*/{filename}")
    entry, entries = kept.parent, len(list(filled_cache.iterdir()))
    data = kept.read_bytes()
    if damage == "cut":
        kept.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        kept.write_bytes(data[:-1000] + bytes([data[-1000] ^ 64]) + data[-999:])
    else:
        (entry / ("sha256.json" if damage == "digests gone" else "head.npz")).unlink()
    assert np.array_equal(made(checkpoint_1lead, name).embed(batch), expected)
    assert kept.read_bytes() == data
    assert len(list(filled_cache.iterdir())) == entries
    assert set(json.loads((entry / "sha256.json").read_text())) == {filename, "head.npz"}


def test_a_cache_that_cannot_be_written_is_done_without(
    checkpoint_1lead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        engine = made(checkpoint_1lead)
    assert engine.embed(signals(1, 300, channels=1)).shape == (1, 2, FEATURES)
    assert "built again at every start" in caplog.text


def test_an_entry_that_does_not_name_its_weights_is_built_again(checkpoint_1lead: Path, filled_cache: Path) -> None:
    for digests in filled_cache.glob("*/sha256.json"):
        named = json.loads(digests.read_text())
        digests.write_text(json.dumps({"head.npz": named["head.npz"]}))
        (digests.parent / next(name for name in named if name != "head.npz")).unlink()
    for name in MADE[1:]:
        assert made(checkpoint_1lead, name).embed(signals(1, 300, channels=1)).shape == (1, 2, FEATURES)


def test_an_entry_that_goes_away_before_it_is_loaded_is_done_without(
    filled_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load(folder: Path) -> str:
        if folder.parent == filled_cache:
            raise FileNotFoundError(folder)
        return (folder / "what").read_text()

    found = from_cache("key", files=("what",), build=lambda folder: (folder / "what").write_text("this"), load=load)
    assert found == "this"
    assert "built again at every start" in caplog.text


def test_where_nothing_can_be_written_the_folder_that_would_help_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SettingsError, match=r"No space left on device.*ECGFOUNDER_CACHE"):
        from_cache("key", files=("what",), build=build, load=str)
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_that_build_the_same_graph_at_once_do_not_disturb_each_other(
    checkpoint_1lead: Path, own_cache: Path
) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        first, second = pool.map(made, [checkpoint_1lead] * 2)
    batch = signals(1, 300, channels=1)
    assert np.array_equal(first.embed(batch), second.embed(batch))
    assert len(list(own_cache.iterdir())) == 1


def test_another_checkpoint_has_another_graph(checkpoint_1lead: Path, tmp_path: Path, filled_cache: Path) -> None:
    bias = "first_conv.conv.bias"
    state = drawn_state("1lead")
    torch.save(state | {bias: state[bias] + 1}, tmp_path / "other.pth")
    batch = signals(1, 300, channels=1)
    assert not np.array_equal(made(checkpoint_1lead).embed(batch), made(tmp_path / "other.pth").embed(batch))
    assert len(list(filled_cache.glob("*/backbone.onnx"))) == 2


def test_a_wrong_checkpoint_leaves_nothing_in_the_cache(checkpoint_12lead: Path, own_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="for 12 leads"):
        made(checkpoint_12lead)
    assert list(own_cache.iterdir()) == []


def test_a_known_digest_is_not_computed_again(
    checkpoint_1lead: Path, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256_of(checkpoint_1lead)
    hashed: list[Path] = []
    monkeypatch.setattr(onnx_engine, "sha256_of", lambda path: hashed.append(Path(path)) or sha256_of(path))
    create_engine("onnx", mode="1lead", checkpoint=checkpoint_1lead, checkpoint_sha256=digest)
    assert checkpoint_1lead not in hashed


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ECGFOUNDER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ecgfounder"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/ecgfounder")


# ----------------------------------------------------------------------------------------------------------- compiling


class Compiler:
    """In the place of `torch.compile`: calls what it was given, and remembers with which shapes."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.error: Exception | None = None

    def __call__(self, function: Callable[[torch.Tensor], torch.Tensor], *, dynamic: bool) -> Any:
        assert dynamic is False

        def compiled(x: torch.Tensor) -> torch.Tensor:
            if self.error is not None:
                raise self.error
            self.shapes.append(tuple(x.shape))
            return function(x)

        return compiled


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler()
    monkeypatch.setattr(torch, "compile", made)
    return made


def compiled_engine(checkpoint: Path) -> TorchEngine:
    made = create_engine("auto", mode="1lead", checkpoint=checkpoint, device="cpu", compiled=True)
    assert isinstance(made, TorchEngine)
    return made


def test_a_compiled_network_gives_the_same_maps_from_passes_of_one_shape(
    checkpoint_1lead: Path, compiler: Compiler
) -> None:
    engine = compiled_engine(checkpoint_1lead)
    assert "compiled" in engine.describe()
    compiler.shapes.clear()
    for rows, length in ((3, 300), (11, 300), (1, 257)):
        batch = signals(rows, length, channels=1)
        assert relative(engine.embed(batch), made(checkpoint_1lead, "torch").embed(batch)) < 1e-5
    assert compiler.shapes == [(CPU_ROWS, 1, 300)] * 3 + [(CPU_ROWS, 1, 257)]
    compiler.shapes.clear()
    batch = signals(3, 300, channels=1)
    found = engine._on_device(batch)  # as on a GPU, where passes are as large as the batch
    assert relative(found, engine.embed(batch)) < 1e-6
    assert compiler.shapes[0] == (CPU_ROWS, 1, 300)


def test_where_nothing_can_be_compiled_the_start_is_refused(checkpoint_1lead: Path, compiler: Compiler) -> None:
    compiler.error = RuntimeError("InvalidCxxCompiler: No working C++ compiler found")
    with pytest.raises(SettingsError, match=r"needs a C\+\+ compiler; or leave compiled=True out"):
        compiled_engine(checkpoint_1lead)


def test_a_network_that_cannot_be_compiled_stops_the_run_and_fails_no_recording(
    checkpoint_1lead: Path, compiler: Compiler
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    engine = compiled_engine(checkpoint_1lead)
    compiler.error = TorchDynamoException("unsupported")
    with pytest.raises(SettingsError, match="cannot compile"):
        engine.embed(signals(1, 300, channels=1))


@pytest.mark.slow
def test_every_length_is_compiled_in_whatever_thread_it_comes(
    checkpoint_1lead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[Any] = []
    compile_with_pytorch = torch.compile

    def counted(graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda f, *, dynamic: compile_with_pytorch(f, dynamic=dynamic, backend=counted)
    )
    engine = compiled_engine(checkpoint_1lead)
    graphs.clear()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for length in range(300, 312):  # more than PyTorch's own limit of eight
            pool.submit(engine.embed, signals(1, length, channels=1)).result()
    assert len(graphs) == 12


def test_memory_that_runs_out_while_compiling_halves_the_pass(checkpoint_1lead: Path, compiler: Compiler) -> None:
    from torch._dynamo.exc import TorchDynamoException

    engine = compiled_engine(checkpoint_1lead)
    compiler.error = TorchDynamoException("compiling failed")
    compiler.error.__cause__ = torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(torch.OutOfMemoryError):
        engine._features(torch.zeros(8, 1, 300))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
def test_what_pytorch_compiles_agrees_with_what_it_does_not(checkpoint_1lead: Path) -> None:
    engine, batch = compiled_engine(checkpoint_1lead), signals(3, 700, channels=1)
    assert relative(engine.embed(batch), made(checkpoint_1lead, "torch").embed(batch)) < 1e-5
    assert np.array_equal(engine.embed(batch[1:]), engine.embed(batch)[1:])


# ---------------------------------------------------------------------------------------------------- the native engine


@pytest.fixture(scope="module")
def native(checkpoint_1lead: Path, graph_cache: Path) -> NativeEngine:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
        engine = create_engine("native", mode="1lead", checkpoint=checkpoint_1lead)
    assert isinstance(engine, NativeEngine)
    return engine


@needs_native
def test_maps_have_the_same_bytes_with_any_instructions_on_any_machine(native: NativeEngine) -> None:
    batch = signals(2, 515, channels=1)
    for name in instructions():
        maps = native._embed_with(name, batch)
        assert (
            hashlib.sha256(maps.tobytes()).hexdigest()
            == "d29fb62c7d58bd40cf5ca9e065b7fd57048efee034717b32e4f3ad7c7c64b608"
        ), name


@needs_native
def test_instructions_that_give_other_numbers_are_not_used(
    native: NativeEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    embed_with = NativeEngine._embed_with

    def embedded(engine: NativeEngine, name: str, batch: Array) -> Array:
        maps = embed_with(engine, instructions()[-1], batch)
        if name == "broken":
            maps[0, 0, 0] = np.nextafter(maps[0, 0, 0], np.float32(np.inf))
        return maps

    monkeypatch.setattr(NativeEngine, "_embed_with", embedded)
    assert native._checked(["broken", "sound", instructions()[-1]]) == "sound"
    assert "broken instructions do not give" in caplog.text
    assert native._checked(["broken", instructions()[-1]]) == instructions()[-1]


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
        arrays = (native._layout, native._weights, batch, maps[:rows], space[:n_bytes])
        module.embed(native.instructions, *arrays, rows, length)
        assert np.array_equal(maps[:rows], expected)  # from memory that held rubbish, too
        assert (maps[rows] == 7).all()
        assert (space[n_bytes:] == 0xFF).all()


@needs_native
@pytest.mark.parametrize("wrong", ["instructions", "layout", "weights", "signals", "maps", "space", "n", "length"])
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
        [1, 60, 64, 64, 64, 64, 2, 1, 1, 1],
        [1, 64, 64, 48, 64, 64, 2, 1, 1, 1],
        [1, 64, 64, 72, 80, 80, 2, 1, 1, 1],
        [1, 64, 64, 64, 64, 64, 1, 1, 0, 1],
        [1, 64, *[64] * 17, *[1] * 17],
    ],
    ids=[
        "nothing",
        "few stages",
        "odd",
        "no lead",
        "part of a panel",
        "narrower",
        "part of a group",
        "no block",
        "many",
    ],
)
def test_networks_that_it_was_not_written_for_are_refused(layout: list[int]) -> None:
    with pytest.raises(ValueError, match="not a network"):
        native_engine._net1d.workspace(np.array(layout, np.int32), 1, 300)


@needs_native
def test_memory_that_is_not_there_is_an_embedding_error(native: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_engine: NativeEngine, _n_bytes: int) -> Array:
        raise MemoryError

    monkeypatch.setattr(NativeEngine, "_space", fail)
    with pytest.raises(EmbeddingError, match=r"\[1, 1, 500\] cannot be computed: not enough memory"):
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
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FC00001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001], ids=hex)
def test_any_nan_spreads_as_it_does_in_pytorch(native: NativeEngine, checkpoint_1lead: Path, bits: int) -> None:
    batch = signals(1, 20_000, channels=1)
    batch.view(np.uint32)[0, 0, 19_000] = bits
    expected = made(checkpoint_1lead, "torch").embed(batch)
    assert np.array_equal(np.isnan(native.embed(batch)), np.isnan(expected))
    assert np.isnan(expected).all()


@needs_native
def test_an_engine_that_was_closed_says_so(checkpoint_1lead: Path) -> None:
    engine = made(checkpoint_1lead, "native")
    engine.close()
    with pytest.raises(EmbeddingError, match="was closed"):
        engine.embed(signals(1, 300, channels=1))


# ------------------------------------------------------------------------------------------------- memory that runs out


@pytest.fixture
def torch_engine(checkpoint_1lead: Path) -> TorchEngine:
    made = create_engine("torch", mode="1lead", checkpoint=checkpoint_1lead, device="cpu")
    assert isinstance(made, TorchEngine)
    made.batch_size = 16
    return made


def test_when_gpu_memory_runs_out_the_pass_is_halved_and_the_run_goes_on(
    torch_engine: TorchEngine, caplog: pytest.LogCaptureFixture
) -> None:
    passes: list[int] = []

    def compute(batch: Array) -> Array:
        if batch.shape[0] * batch.shape[2] > 3000:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        passes.append(len(batch))
        return batch[:, 0, :1, None].repeat(FEATURES, axis=2)

    batch = signals(16, 500, channels=1)
    with caplog.at_level(logging.WARNING):
        maps = torch_engine._in_passes_that_fit(batch, compute)
    assert np.array_equal(maps[:, 0, 0], batch[:, 0, 0])
    assert passes == [4, 4, 4, 4]
    assert torch_engine.samples_per_pass == 2000
    assert "continuing with 4 at once" in caplog.text

    passes.clear()
    torch_engine._in_passes_that_fit(signals(16, 100, channels=1), compute)
    assert passes == [16]  # short recordings are not slowed down by the long ones before


def test_one_recording_that_does_not_fit_is_an_error(torch_engine: TorchEngine) -> None:
    def compute(batch: Array) -> Array:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        torch_engine._in_passes_that_fit(signals(3, 500, channels=1), compute)


def test_other_errors_are_not_taken_for_a_lack_of_memory(torch_engine: TorchEngine) -> None:
    calls: list[int] = []

    def compute(batch: Array) -> Array:
        calls.append(len(batch))
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        torch_engine._in_passes_that_fit(signals(4, 500, channels=1), compute)
    assert calls == [4]


def test_what_torch_cannot_compute_is_an_embedding_error(
    torch_engine: TorchEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_batch: Array) -> Array:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch_engine, "_in_fixed_passes", fail)
    with pytest.raises(EmbeddingError, match=r"could not compute a batch of \[1, 1, 500\]: .*can't allocate memory"):
        torch_engine.embed(signals(1, 500, channels=1))
