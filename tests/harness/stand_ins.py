"""What stands in for the dear and the talkative parts of a run."""

from __future__ import annotations

import numpy as np

from ecgfounder.network.head import pooled


class NullEngine:
    """Maps that depend on every sample of their own row and on nothing else, computed in no time."""

    name, precision, device, head, samples_per_pass = "null", "float32", "cpu", None, None
    in_channels, batch_size = 12, 8

    def __init__(self, threads: int = 2) -> None:
        self.threads = threads

    def embed(self, batch: np.ndarray) -> np.ndarray:
        steps = -(-batch.shape[2] // 256)
        padded = np.pad(batch, ((0, 0), (0, 0), (0, steps * 256 - batch.shape[2])))
        return padded.reshape(len(batch), batch.shape[1], steps, 256).sum(axis=3).transpose(0, 2, 1).copy()

    def means(self, batch: np.ndarray) -> np.ndarray:
        return np.stack([pooled(each) for each in self.embed(batch)])

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.empty(shape, np.float32)

    def describe(self) -> str:
        return "null"

    def close(self) -> None: ...


class Silent:
    """A console that says nothing."""

    def line(self, text: str) -> None: ...

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None: ...
