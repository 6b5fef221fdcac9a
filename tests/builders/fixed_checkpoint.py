"""A checkpoint made of fixed numbers: the same bytes on every machine, whatever the versions of torch, NumPy and safetensors.

In: a mode. Out: a safetensors file whose SHA-256 never changes, for runs that are kept as test data.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from ecgfounder.network.checkpoint import _BATCH_NORM, checkpoint_layout

SHA256 = "f33f1ef0c364b24212c3caec0f48901d20cf57491b1c3c2ccbb1e8c5171e5096"
"""Of the file for the mode "1lead"."""


def write_fixed_checkpoint(path: Path, mode: str = "1lead") -> None:
    """Weights from a multiplicative hash of their places, scaled so that the network keeps the size of its signals."""
    layout = {name: shape for name, shape in checkpoint_layout(mode).items() if not _BATCH_NORM.search(name)}
    header: dict[str, object] = {}
    offset = 0
    for name, shape in layout.items():
        n_bytes = 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + n_bytes]}
        offset += n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        first = 0
        for shape in layout.values():
            count = math.prod(shape)
            places = np.arange(first, first + count, dtype=np.uint64)
            mixed = (places * np.uint64(2654435761)) % np.uint64(1 << 32)
            scale = 1.7 / math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 0.02
            file.write(((mixed.astype(np.float64) / 2**32 - 0.5) * 2 * scale).astype("<f4").tobytes())
            first += count
