"""Weights of a published checkpoint, drawn from their names."""

from __future__ import annotations

import math
import zlib
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def drawn_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """The weight that the golden figures were computed with: a function of its name and a seed alone."""
    import torch  # not above: most test modules need none of it

    if name.endswith("num_batches_tracked"):
        return torch.tensor(1234)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if ".bn" in name or name.startswith("first_bn"):
        uniform = name.endswith((".weight", ".running_var"))
        values = rng.uniform(0.5, 2.0, shape) if uniform else rng.standard_normal(shape)
    elif name.endswith(".bias"):
        values = rng.standard_normal(shape) * 0.1
    else:
        values = rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@cache
def drawn_state(mode: str) -> dict[str, torch.Tensor]:
    """Every entry of a published checkpoint, drawn once in a test session; not to be changed."""
    from ecgfounder.network.checkpoint import checkpoint_layout

    return {name: drawn_tensor(name, shape) for name, shape in checkpoint_layout(mode).items()}


@cache
def overlapping_state(mode: str) -> dict[str, torch.Tensor]:
    """Every entry of a checkpoint with numbers of its own, as views of one storage: a file of them is small."""
    import torch

    from ecgfounder.network.checkpoint import checkpoint_layout

    layout = checkpoint_layout(mode)
    longest = max(math.prod(shape) for shape in layout.values())
    numbers = torch.randn(longest + len(layout), generator=torch.Generator().manual_seed(0)) / 20
    return {
        name: numbers[start : start + math.prod(shape)].view(shape) if shape else torch.tensor(1234)
        for start, (name, shape) in enumerate(layout.items())
    }
