"""Engines: what computes the network. Every engine gives the same map for the same samples, whatever its batch.

In: equal-length signals, float32 [B, C, L]. Out: their feature maps, float32 [B, T, 1024], T = ceil(L / 256).
An engine's module, and the library behind it, is imported when that engine is made.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import EmbeddingError, MissingDependencyError, SettingsError
from ecgfounder.model import FEATURES, SAMPLES_PER_STEP, Head, bundle_of
from ecgfounder.recipes import check_choice
from ecgfounder.settings import ENGINE_CHOICES, PRECISION_CHOICES

Batch = npt.NDArray[np.float32]

CPU_ROWS = 8
"""Rows that the network is given at once on a CPU: fewer waste weight reads, more spill out of the caches."""


class Engine(ABC):
    """One loaded network.

    Attributes
    ----------
    name : "torch", "onnx" or "native".
    precision : of the arithmetic, one of `ecgfounder.settings.PRECISION_CHOICES`; maps are float32 whatever it is.
    device : "cpu", "cuda:0" ...
    threads : how many threads may call `embed` at once to use what the engine was given: on a CPU each call computes
        in its own thread alone; on a GPU the second call's transfers overlap with the first one's arithmetic.
    batch_size : rows for one call of `embed` that suit the engine best; any number is right.
    in_channels : leads that the network takes.
    samples_per_pass : rows times samples that one pass is held to since the device's memory ran out; None before.
    head : the checkpoint's classification head, for predictions from a map; None where the checkpoint has none.
    """

    name: str
    samples_per_pass: int | None = None

    def __init__(
        self, *, precision: str, device: str, threads: int, batch_size: int, in_channels: int, head: Head | None
    ) -> None:
        self.precision = precision
        self.device = device
        self.threads = threads
        self.batch_size = batch_size
        self.in_channels = in_channels
        self.head = head

    def embed(self, batch: Batch) -> Batch:
        """Feature maps of signals of equal length. May be called from several threads at once.

        Parameters
        ----------
        batch : float32 array [B, in_channels, L], L >= 1, at 500 Hz, after the recipe.

        Returns
        -------
        float32 array [B, T, 1024], T = ceil(L / 256). On a CPU a row's bytes depend on nothing but that row: not on the
        batch's size or order, nor on the calling thread. Values that are not finite are passed on.

        Raises
        ------
        EmbeddingError
            If the batch is not of that form, or cannot be computed (too long for the memory).
        """
        if batch.ndim != 3 or batch.dtype != np.float32 or batch.shape[1] != self.in_channels or batch.shape[2] < 1:
            raise EmbeddingError(
                f"expected float32 signals [B, {self.in_channels}, L >= 1], got {batch.dtype} {list(batch.shape)}"
            )
        if len(batch) == 0:
            return np.zeros((0, -(-batch.shape[2] // SAMPLES_PER_STEP), FEATURES), np.float32)
        return self._embed(batch)

    @abstractmethod
    def _embed(self, batch: Batch) -> Batch:
        """`embed` for a batch that is known to be well-formed and not empty."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people: library and version, device, precision, threads."""

    @abstractmethod
    def close(self) -> None:
        """Give the network's memory back; `embed` must not be called afterwards."""


class CpuEngine(Engine):
    """An engine that computes float32 on a CPU, each call in the calling thread, a few rows at a time."""

    def __init__(self, mode: str, *, threads: int, head: Head | None) -> None:
        super().__init__(
            precision="float32",
            device="cpu",
            threads=threads,
            batch_size=CPU_ROWS,
            in_channels=bundle_of(mode).in_channels,
            head=head,
        )

    def _embed(self, batch: Batch) -> Batch:
        n, _, length = batch.shape
        try:
            maps = np.empty((n, -(-length // SAMPLES_PER_STEP), FEATURES), np.float32)
            for start in range(0, n, CPU_ROWS):
                rows = np.ascontiguousarray(batch[start : start + CPU_ROWS])
                self._fill(maps[start : start + CPU_ROWS], rows)
        except MemoryError as error:
            raise EmbeddingError(f"a batch of {list(batch.shape)} cannot be computed: not enough memory") from error
        return maps

    @abstractmethod
    def _fill(self, maps: Batch, rows: Batch) -> None:
        """Compute the maps [N, T, 1024] of at most `CPU_ROWS` signals [N, C, L]; both arrays are contiguous."""


def create_engine(
    choice: str = "auto",
    *,
    mode: str,
    checkpoint: Path,
    precision: str = "float32",
    device: str | None = None,
    threads: int = 1,
    batch_size: int = CPU_ROWS,
    checkpoint_sha256: str | None = None,
    compiled: bool = False,
) -> Engine:
    """Load a checkpoint into an engine.

    Parameters
    ----------
    choice : "torch", "onnx" (ONNX Runtime, CPU, float32), "native" (our own, CPU, float32), or "auto": torch where there is
        a GPU, or another precision or compiling is asked for, else native where it was built and the processor can, else
        ONNX Runtime where it is installed, else torch.
    mode : "12lead" or "1lead".
    checkpoint : an existing file (`ecgfounder.model.find_checkpoint`).
    precision : one of `ecgfounder.settings.PRECISION_CHOICES`; float16 needs a GPU.
    device : "cpu", "cuda", "cuda:1" ...; None takes the first GPU if there is one.
    threads : Python threads that will call `embed` at once.
    batch_size : rows that a GPU computes at once; on a CPU the arithmetic has a fixed size.
    checkpoint_sha256 : the file's SHA-256 where it is known already; spares reading the file once.
    compiled : whether PyTorch compiles the network (`torch.compile`), for each length of signals anew.

    Raises
    ------
    SettingsError
        If a choice is unknown, or choices contradict each other.
    MissingDependencyError
        If the engine named needs an extra that is not installed.
    CheckpointError
        As `ecgfounder.model.load_backbone` does.
    """
    check_choice("engine", choice, ENGINE_CHOICES)
    check_choice("precision", precision, PRECISION_CHOICES)
    bundle_of(mode)
    if choice == "auto":
        choice = "torch" if compiled else _automatic(precision, device)
    if choice != "torch":
        _check_cpu_engine(choice, precision, device)
        if compiled:
            raise SettingsError(f"the engine {choice!r} is not compiled anew: use --compile with --engine torch")
    if choice == "native":
        from ecgfounder.engines.native import NativeEngine

        return NativeEngine(mode, checkpoint, threads=threads, checkpoint_sha256=checkpoint_sha256)
    if choice == "onnx":
        from ecgfounder.engines.onnx import OnnxEngine

        return OnnxEngine(mode, checkpoint, threads=threads, checkpoint_sha256=checkpoint_sha256)

    from ecgfounder.engines.torch import TorchEngine

    device = device or ("cuda" if gpu_available() else "cpu")
    return TorchEngine(
        mode,
        checkpoint,
        precision=precision,
        device=device,
        threads=threads,
        batch_size=batch_size,
        compiled=compiled,
    )


def gpu_available() -> bool:
    """Whether PyTorch can use an NVIDIA or AMD GPU here; without a driver's device file torch is not even imported."""
    dev = Path("/dev")
    if not any((dev / name).exists() for name in ("nvidiactl", "nvidia0", "nvidia-uvm", "kfd", "dxg")):
        return False
    import torch

    return torch.cuda.is_available()


def onnx_installed() -> bool:
    """Whether the extra [cpu] is there: ONNX Runtime, and onnx to write the graph with."""
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnx"))


def native_usable() -> bool:
    """Whether the native engine was built and this processor has the instructions that it needs."""
    from ecgfounder.engines.native import instructions

    return bool(instructions())


def _automatic(precision: str, device: str | None) -> str:
    on_cpu = device == "cpu" or (device is None and not gpu_available())
    if not on_cpu or precision != "float32":
        return "torch"
    if native_usable():
        return "native"
    return "onnx" if onnx_installed() else "torch"


def _check_cpu_engine(choice: str, precision: str, device: str | None) -> None:
    if precision != "float32":
        raise SettingsError(f"the engine {choice!r} computes in float32 only: use --engine torch for {precision}")
    if device not in (None, "cpu"):
        raise SettingsError(f"the engine {choice!r} computes on the CPU only: use --engine torch for device {device!r}")
    if choice == "onnx" and not onnx_installed():
        missing = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
        raise MissingDependencyError(missing[0], "the engine 'onnx'", "cpu")
