"""A checkpoint of the official layout with random weights, the same at every call.

In: a path. Out: a file.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecgfounder.network.bundles import spec_of
from ecgfounder.network.checkpoint import build_network

if TYPE_CHECKING:
    import torch


def write_demo_checkpoint(path: Path, mode: str = "12lead", seed: int = 0) -> None:
    """Write a checkpoint {"state_dict": ...} of the official layout, head and batch-norm entries included.

    The weights are random, of a size that keeps signals alive through all layers, and do not depend on anything but the
    seed and each entry's name.

    Parameters
    ----------
    path : Path
        File to write; its folder is created.
    mode : str, default: "12lead"
        "12lead" or "1lead".
    seed : int, default: 0
        Of the weights.

    Raises
    ------
    SettingsError
        If there is no such mode.
    OSError
        If the file cannot be written.
    """
    import torch

    n_classes = len(spec_of(mode).labels())
    with torch.device("meta"):  # names and shapes alone
        layout = build_network({}, mode, n_classes).state_dict()
    weights = {name: _random_entry(name, tuple(entry.shape), seed) for name, entry in layout.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": weights}, path)


def _random_entry(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """One entry, from a generator of its own: default_rng([seed, crc32(name)])."""
    import torch

    if name.endswith("num_batches_tracked"):
        return torch.tensor(1234)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    *_, layer, kind = name.split(".")
    if layer == "first_bn" or layer.startswith("bn"):
        # The network never applies these; values that would show if it did.
        is_scale = kind in ("weight", "running_var")
        values = rng.uniform(0.5, 2.0, shape) if is_scale else rng.standard_normal(shape)
    elif kind == "bias":
        values = rng.standard_normal(shape) * 0.1
    else:  # variance 2 / fan-in (He et al. 2015)
        values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))
