"""Batches of inputs of the same shape; nothing is ever padded.

In: inputs [C, L] in any order and of any length. Out: batches [B, C, L], with the tag of every row. Waiting inputs are limited
in bytes and in age, so that an input of a rare length does not wait indefinitely.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Tag = TypeVar("Tag")
Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Batch(Generic[Tag]):
    """Inputs of one shape; `data` is float32 [B, C, L], `tags` has B entries in the same order."""

    data: Array
    tags: tuple[Tag, ...]


@dataclass
class _Bucket(Generic[Tag]):
    since: float
    inputs: list[Array] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)

    def batch(self) -> Batch[Tag]:
        return Batch(np.stack(self.inputs), tuple(self.tags))

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.inputs)


class Batcher(Generic[Tag]):
    """Collects inputs into batches of at most `batch_size` rows of one shape.

    Parameters
    ----------
    batch_size : int
        Rows in a full batch.
    max_bytes : int, optional
        Maximum size of all waiting inputs; above it, the oldest bucket is released as a smaller batch. An input that is larger
        than this is a batch of one.
    max_age : float, default: 2.0
        Seconds after which a bucket is released as a smaller batch.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        max_bytes: int = 256 << 20,
        max_age: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batch_size = batch_size
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._clock = clock
        self._buckets: OrderedDict[tuple[int, ...], _Bucket[Tag]] = OrderedDict()
        self._waiting_bytes = 0

    def add(self, data: Array, tag: Tag) -> Iterator[Batch[Tag]]:
        """Add one input [C, L]; yields the batches that became due."""
        bucket = self._buckets.get(data.shape)
        if bucket is None:
            bucket = self._buckets[data.shape] = _Bucket(self._clock())
        bucket.inputs.append(data)
        bucket.tags.append(tag)
        self._waiting_bytes += data.nbytes
        if len(bucket.inputs) >= self.batch_size:
            yield self._take(data.shape)
        while self._waiting_bytes > self.max_bytes:
            yield self._take(next(iter(self._buckets)))
        yield from self.due()

    def due(self) -> Iterator[Batch[Tag]]:
        """Batches that have waited longer than `max_age`."""
        now = self._clock()
        while self._buckets:
            shape, bucket = next(iter(self._buckets.items()))
            if now - bucket.since <= self.max_age:
                return
            yield self._take(shape)

    def flush(self) -> Iterator[Batch[Tag]]:
        """All waiting inputs, oldest bucket first."""
        while self._buckets:
            yield self._take(next(iter(self._buckets)))

    def _take(self, shape: tuple[int, ...]) -> Batch[Tag]:
        bucket = self._buckets.pop(shape)
        self._waiting_bytes -= bucket.nbytes
        return bucket.batch()
