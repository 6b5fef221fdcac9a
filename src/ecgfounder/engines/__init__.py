"""Engines: what computes the network. Every engine gives the same map for the same samples, whatever its batch."""

from ecgfounder.engines.choice import create_engine, gpu_available, native_usable, onnx_installed
from ecgfounder.engines.engine import Engine

__all__ = ["Engine", "create_engine", "gpu_available", "native_usable", "onnx_installed"]
