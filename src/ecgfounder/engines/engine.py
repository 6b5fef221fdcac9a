"""What an engine is: the network loaded, which gives the same map for the same samples, whatever its batch.

In: equal-length signals, float32 [B, C, L]. Out: their feature maps, float32 [B, T, 1024], T = ceil(L / 256).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import EmbeddingError
from ecgfounder.network.bundles import FEATURES, SAMPLES_PER_TOKEN, spec_of
from ecgfounder.network.head import Head

Array = npt.NDArray[np.float32]


CPU_ROWS = 8
"""Rows that the network is given at once on a CPU: fewer waste weight reads, more spill out of the caches."""


class Engine(ABC):
    """One loaded network.

    Attributes
    ----------
    name : str
        "torch", "onnx" or "native".
    precision : str
        Of the arithmetic, one of `PRECISION_CHOICES`; maps are float32 whatever it is.
    device : str
        "cpu", "cuda:0" ...
    threads : int
        How many threads may call `embed` at once to use what the engine was given: on a CPU each call computes in its
        own thread alone; on a GPU the second call's transfers overlap with the first one's arithmetic.
    batch_size : int
        Rows for one call of `embed` that suit the engine best; any number is right.
    in_channels : int
        Leads that the network takes.
    samples_per_pass : int or None
        Rows times samples that one pass is held to since the device's memory ran out; None before.
    head : Head or None
        The checkpoint's classification head, for predictions from a map; None where the checkpoint has none.
    """

    name: str
    samples_per_pass: int | None = None

    def __init__(
        self, *, precision: str, device: str, threads: int, batch_size: int, in_channels: int, head: Head | None
    ) -> None:
        self.precision = precision
        self.device = device
        self.threads = threads
        self.batch_size = batch_size
        self.in_channels = in_channels
        self.head = head

    def embed(self, batch: Array) -> Array:
        """Feature maps of signals of equal length. May be called from several threads at once.

        Parameters
        ----------
        batch : numpy.ndarray
            float32 array [B, in_channels, L], L >= 1, at 500 Hz, after the recipe.

        Returns
        -------
        numpy.ndarray
            float32 [B, T, 1024], T = ceil(L / 256). On a CPU, and with Triton, a row's bytes depend on nothing but that
            row: not on the batch's size or order, nor on the calling thread. Values that are not finite are passed on.

        Raises
        ------
        EmbeddingError
            If the batch is not of that form, or cannot be computed (too long for the memory).
        """
        if batch.ndim != 3 or batch.dtype != np.float32 or batch.shape[1] != self.in_channels or batch.shape[2] < 1:
            raise EmbeddingError(
                f"expected float32 signals [B, {self.in_channels}, L >= 1], got {batch.dtype} {list(batch.shape)}"
            )
        if len(batch) == 0:
            return np.zeros((0, -(-batch.shape[2] // SAMPLES_PER_TOKEN), FEATURES), np.float32)
        return self._embed(batch)

    @abstractmethod
    def _embed(self, batch: Array) -> Array:
        """`embed` for a batch that is known to be well-formed and not empty."""

    @abstractmethod
    def describe(self) -> str:
        """One line for people: library and version, device, precision, threads."""

    @abstractmethod
    def close(self) -> None:
        """Give the network's memory back; `embed` must not be called afterwards."""


class CpuEngine(Engine):
    """An engine that computes float32 on a CPU, each call in the calling thread, a few rows at a time."""

    def __init__(self, mode: str, *, threads: int, head: Head | None) -> None:
        super().__init__(
            precision="float32",
            device="cpu",
            threads=threads,
            batch_size=CPU_ROWS,
            in_channels=spec_of(mode).in_channels,
            head=head,
        )

    def _embed(self, batch: Array) -> Array:
        n, _, length = batch.shape
        try:
            maps = np.empty((n, -(-length // SAMPLES_PER_TOKEN), FEATURES), np.float32)
            for start in range(0, n, CPU_ROWS):
                rows = np.ascontiguousarray(batch[start : start + CPU_ROWS])
                self._fill(maps[start : start + CPU_ROWS], rows)
        except MemoryError as error:
            raise EmbeddingError(f"a batch of {list(batch.shape)} cannot be computed: not enough memory") from error
        return maps

    @abstractmethod
    def _fill(self, maps: Array, rows: Array) -> None:
        """Compute the maps [N, T, 1024] of at most `CPU_ROWS` signals [N, C, L]; both arrays are contiguous."""
