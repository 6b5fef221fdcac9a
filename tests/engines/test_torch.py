"""The PyTorch engine: compiled networks, and memory that runs out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgfounder.engines import create_engine
from ecgfounder.engines.engine import CPU_ROWS
from ecgfounder.engines.torch import TorchEngine
from ecgfounder.errors import OutOfMemoryError, SettingsError
from ecgfounder.network.bundles import FEATURES
from tests.builders.engines import Array, made, relative, signals


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


@pytest.fixture(scope="module")
def plain(checkpoint_1lead: Path) -> TorchEngine:
    """An engine that compiles nothing; not to be changed."""
    made = create_engine("torch", mode="1lead", checkpoint=checkpoint_1lead, device="cpu")
    assert isinstance(made, TorchEngine)
    return made


def compiled_engine(checkpoint: Path) -> TorchEngine:
    made = create_engine("auto", mode="1lead", checkpoint=checkpoint, device="cpu", compiled=True)
    assert isinstance(made, TorchEngine)
    return made


def test_a_compiled_network_gives_the_same_maps_from_passes_of_one_shape(
    checkpoint_1lead: Path, plain: TorchEngine, compiler: Compiler
) -> None:
    engine = compiled_engine(checkpoint_1lead)
    assert "compiled" in engine.describe()
    compiler.shapes.clear()
    for rows, length in ((3, 300), (11, 300), (1, 257)):
        batch = signals(rows, length, channels=1)
        assert relative(engine.embed(batch), plain.embed(batch)) < 1e-5
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


@pytest.fixture
def torch_engine(plain: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> TorchEngine:
    """The plain engine with other settings, which a test may change."""
    monkeypatch.setattr(plain, "batch_size", 16)
    monkeypatch.setattr(plain, "samples_per_pass", plain.samples_per_pass)
    return plain


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
    with pytest.raises(OutOfMemoryError, match=r"could not compute a batch of \[1, 1, 500\]: .*can't allocate memory"):
        torch_engine.embed(signals(1, 500, channels=1))


def test_batches_have_memory_also_where_none_can_be_pinned(
    checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine("torch", mode="12lead", checkpoint=checkpoint_12lead, device="cpu")
    monkeypatch.setattr(engine, "_device", torch.device("cuda"))
    if torch.cuda.is_available():

        def refused(*_: object, **__: object) -> None:
            raise RuntimeError("CUDA error: out of memory")

        monkeypatch.setattr(torch, "empty", refused)
    batch = engine.empty((2, 12, 50))
    assert (batch.shape, batch.dtype) == ((2, 12, 50), np.float32)
