"""Which engine computes: the one that is asked for, or the fastest that works here.

In: a checkpoint and what is asked for. Out: a loaded `Engine`; imported with its library when it is made.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

from ecgfounder.checks import check_choice
from ecgfounder.engines.engine import Engine
from ecgfounder.errors import MissingDependencyError, SettingsError
from ecgfounder.network.bundles import spec_of

log = logging.getLogger(__name__)

ENGINE_CHOICES = ("auto", "torch", "triton", "onnx", "native")
PRECISION_CHOICES = ("float32", "bfloat16", "float16")


def create_engine(
    choice: str = "auto",
    *,
    mode: str,
    checkpoint: Path,
    precision: str = "float32",
    device: str | None = None,
    threads: int = 1,
    batch_size: int | None = None,
    checkpoint_sha256: str | None = None,
    compiled: bool = False,
) -> Engine:
    """Load a checkpoint into an engine.

    Parameters
    ----------
    choice : str, default: "auto"
        "torch", "triton" (our own kernels, NVIDIA GPUs), "onnx" (ONNX Runtime, CPU, float32), "native" (our own, CPU,
        float32), or "auto". On a GPU that is triton where it can be used, else torch; on a CPU native where it was
        built and the processor can, else ONNX Runtime where it is installed, else torch, and torch for other
        precisions. What is to be compiled is torch's.
    mode : str
        "12lead" or "1lead".
    checkpoint : Path
        An existing file (`ecgfounder.network.checkpoint.find_checkpoint`).
    precision : str, default: "float32"
        One of `PRECISION_CHOICES`; float16 needs a GPU.
    device : str, optional
        "cpu", "cuda", "cuda:1" ...; None takes the first GPU if there is one.
    threads : int, default: 1
        Python threads that will call `embed` at once.
    batch_size : int, optional
        Rows that a GPU computes at once, 128 if None; on a CPU the arithmetic has a fixed size.
    checkpoint_sha256 : str, optional
        The file's SHA-256 where it is known already; spares reading the file once.
    compiled : bool, default: False
        Whether PyTorch compiles the network (`torch.compile`), for each length of signals again.

    Raises
    ------
    SettingsError
        If a choice is unknown, or choices contradict each other.
    MissingDependencyError
        If the engine named needs an extra that is not installed.
    CheckpointError
        As `ecgfounder.network.checkpoint.load_backbone` does.
    """
    check_choice("engine", choice, ENGINE_CHOICES)
    check_choice("precision", precision, PRECISION_CHOICES)
    spec_of(mode)
    automatic = choice == "auto"
    if automatic:
        choice = "torch" if compiled else _automatic(precision, device)
    if choice in ("onnx", "native"):
        _check_cpu_engine(choice, precision, device)
    if compiled and choice != "torch":
        raise SettingsError(f"the engine {choice!r} is not compiled: use compiled=True with engine='torch'")
    if choice == "native":
        from ecgfounder.engines.native import NativeEngine

        return NativeEngine(mode, checkpoint, threads=threads, checkpoint_sha256=checkpoint_sha256)
    if choice == "onnx":
        from ecgfounder.engines.onnx import OnnxEngine

        return OnnxEngine(mode, checkpoint, threads=threads, checkpoint_sha256=checkpoint_sha256)
    device = device or ("cuda" if choice == "triton" or gpu_available() else "cpu")
    if choice == "triton":
        from ecgfounder.engines.triton import TritonEngine

        try:
            return TritonEngine(
                mode, checkpoint, precision=precision, device=device, threads=threads, batch_size=batch_size
            )
        except SettingsError as error:
            if not automatic:
                raise
            log.warning("%s; using engine='torch' instead", error)

    from ecgfounder.engines.torch import TorchEngine

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
    if not on_cpu:
        from ecgfounder.engines.triton import triton_usable

        return "triton" if triton_usable(device) else "torch"
    if precision != "float32":
        return "torch"
    if native_usable():
        return "native"
    return "onnx" if onnx_installed() else "torch"


def _check_cpu_engine(choice: str, precision: str, device: str | None) -> None:
    if precision != "float32":
        raise SettingsError(f"the engine {choice!r} computes in float32 only: use engine='torch' for {precision}")
    if device not in (None, "cpu"):
        raise SettingsError(f"the engine {choice!r} computes on the CPU only: use engine='torch' for device {device!r}")
    if choice == "onnx" and not onnx_installed():
        missing = [name for name in ("onnxruntime", "onnx") if importlib.util.find_spec(name) is None]
        raise MissingDependencyError(missing[0], "the engine 'onnx'", "cpu")
