"""A checkpoint of the official layout with random weights, the same at every call.

In: a path. Out: a file.
"""

from __future__ import annotations

from pathlib import Path

from ecgfounder.network.bundles import spec_of
from ecgfounder.network.checkpoint import whole_layout
from ecgfounder.network.random_weights import random_weights


def write_demo_checkpoint(path: Path, mode: str = "12lead", seed: int = 0) -> None:
    """Write a checkpoint {"state_dict": ...} of the official layout, including head and batch-norm parameters.

    The weights are random, scaled so that signals neither vanish nor explode, and depend only on the seed and each parameter's
    name.

    Parameters
    ----------
    path : Path
        File to write; its folder is created.
    mode : str, default: "12lead"
        "12lead" or "1lead".
    seed : int, default: 0
        Seed of the weights.

    Raises
    ------
    SettingsError
        If the mode is unknown.
    OSError
        If the file cannot be written.
    """
    import torch

    n_classes = len(spec_of(mode).labels())
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": random_weights(whole_layout(mode, n_classes), seed)}, path)
