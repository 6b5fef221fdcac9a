"""Random weights for a network's layout, the same at every call: the demo's, and those of `checkpoint="random:SEED"`.

In: names and shapes of parameters, and a seed. Out: tensors.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

INITIALISATION = "he-normal-v1"
"""The initialisation: weights are normal with variance 2 / fan-in (He et al. 2015), biases with standard deviation 0.1."""

_RANDOM = re.compile(r"random:(\d{1,9})")


def seed_of(checkpoint: str) -> int | None:
    """The seed in "random:SEED"; None for any other text."""
    found = _RANDOM.fullmatch(checkpoint)
    return None if found is None else int(found[1])


def random_weights(layout: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    """Random tensors of some shapes, scaled so that signals neither vanish nor explode.

    They depend only on the seed and each parameter's name. The parameters of batch norms, which the network never applies, are
    random too, so that there would be a visible effect if it did.
    """
    return {name: _random_entry(name, shape, seed) for name, shape in layout.items()}


def _random_entry(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """One parameter, from a separate generator: default_rng([seed, crc32(name)])."""
    import torch

    if name.endswith("num_batches_tracked"):
        return torch.tensor(1234)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    *_, layer, kind = name.split(".")
    if layer == "first_bn" or layer.startswith("bn"):
        is_scale = kind in ("weight", "running_var")
        values = rng.uniform(0.5, 2.0, shape) if is_scale else rng.standard_normal(shape)
    elif kind == "bias":
        values = rng.standard_normal(shape) * 0.1
    else:
        values = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))
