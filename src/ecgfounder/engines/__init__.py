"""Engines, which compute the network. Every engine gives the same feature map for the same samples, in any batch."""

from ecgfounder.engines.choice import create_engine, gpu_available, native_usable, onnx_installed
from ecgfounder.engines.engine import Engine

__all__ = ["Engine", "create_engine", "gpu_available", "native_usable", "onnx_installed"]
