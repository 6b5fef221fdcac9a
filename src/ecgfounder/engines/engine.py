"""The interface of engines: a loaded network that gives the same feature map for the same samples, in any batch.

In: signals of equal length, float32 [B, C, L]. Out: their feature maps, float32 [B, T, 1024], T = ceil(L / 256).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import EmbeddingError, OutOfMemoryError
from ecgfounder.network.bundles import FEATURES, SAMPLES_PER_TOKEN, spec_of
from ecgfounder.network.head import Head, pooled

Array = npt.NDArray[np.float32]


CPU_ROWS = 8
"""Rows per pass on a CPU: with fewer, weights are read more often; with more, data does not fit the caches."""


class Engine(ABC):
    """One loaded network.

    Attributes
    ----------
    name : str
        "torch", "triton", "onnx" or "native".
    precision : str
        Precision of the arithmetic, one of `PRECISION_CHOICES`; feature maps are always float32.
    device : str
        "cpu", "cuda:0" ...
    threads : int
        Number of threads that should call `embed` concurrently. On a CPU each call computes in its calling thread alone. On a
        GPU, one call's transfers overlap with the other's arithmetic.
    single_threaded : bool
        Whether a call computes in its calling thread alone, and half a batch in half the time: threads without work should get
        a part of it.
    batch_size : int
        Best number of rows for a call of `embed`; any number is allowed.
    in_channels : int
        Number of leads of the network's input.
    samples_per_pass : int or None
        Limit of rows times samples per pass, set when the device's memory has run out; None before.
    head : Head or None
        The checkpoint's head, for predictions from a feature map; None if the checkpoint has no head.
    """

    name: str
    single_threaded: bool = False
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
        """Feature maps of signals of equal length. May be called from several threads concurrently.

        Parameters
        ----------
        batch : numpy.ndarray
            float32 array [B, in_channels, L], L >= 1, at 500 Hz, after the recipe.

        Returns
        -------
        numpy.ndarray
            float32 [B, T, 1024], T = ceil(L / 256). On a CPU, and with Triton, a row's bytes depend only on that row, not on
            the batch's size or order, nor on the calling thread. Values that are not finite are not replaced.

        Raises
        ------
        EmbeddingError
            If the batch has another form, or cannot be computed.
        OutOfMemoryError
            If it is too large for the memory; on a GPU, if one row is.
        """
        self._check_form(batch)
        if len(batch) == 0:
            return np.zeros((0, -(-batch.shape[2] // SAMPLES_PER_TOKEN), FEATURES), np.float32)
        return self._embed(batch)

    def means(self, batch: Array) -> Array:
        """The mean over T of each feature map, float32 [B, 1024]: the bytes of `ecgfounder.network.head.pooled`.

        Parameters and errors: as for `embed`.
        """
        self._check_form(batch)
        return self._means(batch) if len(batch) else np.zeros((0, FEATURES), np.float32)

    def empty(self, shape: tuple[int, ...]) -> Array:
        """A float32 array for a batch, its values undefined, in memory from which the engine computes without another copy."""
        return np.empty(shape, np.float32)

    def _check_form(self, batch: Array) -> None:
        if batch.ndim != 3 or batch.dtype != np.float32 or batch.shape[1] != self.in_channels or batch.shape[2] < 1:
            raise EmbeddingError(
                f"expected float32 signals [B, {self.in_channels}, L >= 1], got {batch.dtype} {list(batch.shape)}"
            )

    @abstractmethod
    def _embed(self, batch: Array) -> Array:
        """`embed` for a valid batch that is not empty."""

    def _means(self, batch: Array) -> Array:
        """`means` for a valid batch that is not empty."""
        return pooled(self._embed(batch))

    @abstractmethod
    def describe(self) -> str:
        """A human-readable line: library and version, device, precision, threads."""

    @abstractmethod
    def close(self) -> None:
        """Free the network's memory; `embed` must not be called afterwards."""


class CpuEngine(Engine):
    """An engine that computes float32 on a CPU, each call in the calling thread, a few rows at a time."""

    single_threaded = True

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
            raise OutOfMemoryError(f"a batch of {list(batch.shape)} cannot be computed: not enough memory") from error
        return maps

    @abstractmethod
    def _fill(self, maps: Array, rows: Array) -> None:
        """Compute the feature maps [N, T, 1024] of at most `CPU_ROWS` signals [N, C, L]; both arrays are contiguous."""
