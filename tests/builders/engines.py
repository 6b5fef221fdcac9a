"""Engines of both networks, and signals for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.engines import Engine, create_engine, native_usable

needs_native = pytest.mark.skipif(
    not native_usable(), reason="the native engine was not built, or not for this processor"
)
MADE = ("torch", "onnx", "native") if native_usable() else ("torch", "onnx")
Array = npt.NDArray[np.float32]


def signals(rows: int, length: int, channels: int = 12, seed: int = 0) -> Array:
    return np.random.default_rng([seed, length]).standard_normal((rows, channels, length)).astype(np.float32)


def relative(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def made(checkpoint: Path, name: str = "onnx") -> Engine:
    return create_engine(name, mode="1lead", checkpoint=checkpoint)
