"""Embed a batch: run the network on its rows and pool each feature map.

In: a batch whose rows are tagged with their records. Out: an embedding or an error for each row. If a batch cannot be computed,
its rows are computed one by one, so that no record fails because of another. A network that can pools where it computes, which
saves the feature maps' way out of a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import EmbeddingError
from ecgfounder.network.head import Head
from ecgfounder.stages.batch import Batch
from ecgfounder.stages.collect import Embedded, Gathering
from ecgfounder.stages.pooling import InputEmbedding, only_mean, pooling_of

FloatArray = npt.NDArray[np.float32]
Tag = tuple[Gathering, int]
"""A row's record, and the number of its input there."""

NOT_FINITE = "the network's output is not finite: the samples' values are beyond what it can take"


@runtime_checkable
class Network(Protocol):
    """The part of an engine's interface that this stage uses."""

    threads: int

    def embed(self, batch: FloatArray) -> FloatArray:
        """float32 [B, C, L] -> float32 [B, T, 1024]; may be called from `threads` threads concurrently."""
        ...


@runtime_checkable
class PoolingNetwork(Network, Protocol):
    """A network that pools, and has memory for batches that it takes without another copy."""

    def means(self, batch: FloatArray) -> FloatArray:
        """float32 [B, C, L] -> float32 [B, 1024]: `ecgfounder.network.head.pooled` of each feature map, the same bytes."""
        ...

    def empty(self, shape: tuple[int, ...]) -> FloatArray:
        """A float32 array for a batch, its values undefined."""
        ...


@dataclass(frozen=True)
class EmbedStage:
    """The network, and the function `keep` that makes an embedding of an input's feature map [T, 1024].

    With `only_mean`, `keep` does no more than make the mean. With `single_threaded`, a call computes in its thread alone, so that
    threads without work should get a part of another's batch.
    """

    network: Network
    keep: Callable[[FloatArray], InputEmbedding]
    only_mean: bool = False
    single_threaded: bool = False

    @classmethod
    def of(cls, network: Network, pooling: str, head: Head | None) -> EmbedStage:
        """The stage for a choice of pooling; a head adds its probabilities."""
        is_single = bool(getattr(network, "single_threaded", False))
        return cls(network, pooling_of(pooling, head), only_mean(pooling, head), is_single)

    def empty(self, shape: tuple[int, ...]) -> FloatArray:
        """A float32 array for a batch, its values undefined."""
        if isinstance(self.network, PoolingNetwork):
            return self.network.empty(shape)
        return np.empty(shape, np.float32)

    def __call__(self, batch: Batch[Tag]) -> list[Embedded]:
        began = time.perf_counter()
        try:
            kept = self._kept(batch.data)
        except EmbeddingError as error:
            if len(batch.tags) == 1:
                gathering, number = batch.tags[0]
                return [Embedded(gathering, number, None, 0.0, type(error).__name__, str(error))]
            rows = (Batch(batch.data[row : row + 1], (tag,)) for row, tag in enumerate(batch.tags))
            return [self(row)[0] for row in rows]
        share = (time.perf_counter() - began) / len(batch.tags)
        return [
            Embedded(*tag, each, share)
            if is_finite
            else Embedded(*tag, None, share, EmbeddingError.__name__, NOT_FINITE)
            for tag, (each, is_finite) in zip(batch.tags, kept, strict=True)
        ]

    def _kept(self, data: FloatArray) -> Iterator[tuple[InputEmbedding, bool]]:
        """The embedding of each row, and whether it is finite."""
        if self.only_mean and isinstance(self.network, PoolingNetwork):
            means = self.network.means(data)
            finite: list[bool] = np.asarray(np.isfinite(means).all(axis=1)).tolist()
            return zip(map(InputEmbedding, means), finite, strict=True)
        kept = map(self.keep, self.network.embed(data))
        return ((each, each.is_finite) for each in kept)
