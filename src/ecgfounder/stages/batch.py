"""Batches of inputs of the same shape; nothing is ever padded.

In: inputs [C, L] in any order and of any length. Out: batches [B, C, L], with the tag of every row. Waiting inputs are limited
in bytes and in age, so that an input of a rare length does not wait indefinitely.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess.recipes import Empty, anywhere

Tag = TypeVar("Tag")
Array = npt.NDArray[np.float32]


def _nothing_to_give_back() -> None:
    pass


@dataclass(frozen=True)
class Batch(Generic[Tag]):
    """Inputs of one shape.

    Attributes
    ----------
    data : numpy.ndarray
        float32 [B, C, L].
    tags : tuple of Tag
        B entries in the same order.
    give_back : callable
        To be called when `data` is not needed any more.
    """

    data: Array
    tags: tuple[Tag, ...]
    give_back: Callable[[], None] = _nothing_to_give_back

    def parts(self, n: int) -> list[Batch[Tag]]:
        """At most `n` batches of about equal size, which together are this one; the last one used gives its data back."""
        n = min(n, len(self.tags))
        if n <= 1:
            return [self]
        edges = [len(self.tags) * part // n for part in range(n + 1)]
        give_back = _last_of(n, self.give_back)
        return [Batch(self.data[first:end], self.tags[first:end], give_back) for first, end in pairwise(edges)]


def _last_of(n: int, call: Callable[[], None]) -> Callable[[], None]:
    """A function whose `n`-th call, from any thread, calls another one."""
    left, counting = n, threading.Lock()

    def used() -> None:
        nonlocal left
        with counting:
            left -= 1
            is_last = left == 0
        if is_last:
            call()

    return used


class _Bucket(Generic[Tag]):
    """Inputs of one shape, copied into an array that grows up to `most` rows."""

    def __init__(self, since: float, shape: tuple[int, ...], rows: int, most: int, empty: Empty) -> None:
        self.since = since
        self.tags: list[Tag] = []
        self._most = most
        self._empty = empty
        self._data = empty((min(rows, most), *shape))

    def add(self, data: Array, tags: Sequence[Tag]) -> None:
        used, needed = len(self.tags), len(self.tags) + len(tags)
        if needed > len(self._data):
            grown = self._empty((min(max(2 * used, needed), self._most), *data.shape[1:]))
            grown[:used] = self._data[:used]
            self._data = grown
        self._data[used:needed] = data
        self.tags += tags

    def batch(self) -> Batch[Tag]:
        return Batch(self._data[: len(self.tags)], tuple(self.tags))

    @property
    def nbytes(self) -> int:
        return self._data[: len(self.tags)].nbytes


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
    empty : callable, optional
        Makes the arrays of batches.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        max_bytes: int = 256 << 20,
        max_age: float = 2.0,
        empty: Empty = anywhere,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.batch_size = batch_size
        self.max_bytes = max_bytes
        self.max_age = max_age
        self._empty = empty
        self._clock = clock
        self._buckets: OrderedDict[tuple[int, ...], _Bucket[Tag]] = OrderedDict()
        self._waiting_bytes = 0
        self._filled: tuple[int, ...] = ()  # the shape of the last full batch

    def add(self, data: Array, tag: Tag) -> Iterator[Batch[Tag]]:
        """Copy one input [C, L] into a batch; yields the batches that became due."""
        yield from self._copied(data[None], (tag,))
        yield from self.due()

    def add_all(self, data: Array, tags: Sequence[Tag], give_back: Callable[[], None]) -> Iterator[Batch[Tag]]:
        """Put inputs [n, C, L] into batches, without a copy if they are a full one; `give_back` is called after the last use."""
        if len(tags) == self.batch_size:
            yield Batch(data, tuple(tags), give_back)
        else:
            for first in range(0, len(tags), self.batch_size):
                part = slice(first, first + self.batch_size)
                yield from self._copied(data[part], tags[part])
            give_back()
        yield from self.due()

    def _copied(self, data: Array, tags: Sequence[Tag]) -> Iterator[Batch[Tag]]:
        """Copy inputs [n, C, L], at most a full batch, into one that waits and perhaps the next one."""
        shape = data.shape[1:]
        bucket = self._buckets.get(shape)
        if bucket is None:
            rows = self.batch_size if shape == self._filled else len(tags)
            bucket = self._buckets[shape] = _Bucket(self._clock(), shape, rows, self.batch_size, self._empty)
        fits = min(len(tags), self.batch_size - len(bucket.tags))
        bucket.add(data[:fits], tags[:fits])
        self._waiting_bytes += data[:fits].nbytes
        if len(bucket.tags) >= self.batch_size:
            self._filled = shape
            yield self._take(shape)
        while self._waiting_bytes > self.max_bytes:
            yield self._take(next(iter(self._buckets)))
        if fits < len(tags):
            yield from self._copied(data[fits:], tags[fits:])

    def due(self) -> Iterator[Batch[Tag]]:
        """Batches that have waited longer than `max_age`."""
        now = self._clock()
        while self._buckets:
            shape, bucket = next(iter(self._buckets.items()))
            if now - bucket.since <= self.max_age:
                return
            yield self._take(shape)

    def oldest(self) -> Iterator[Batch[Tag]]:
        """The bucket that has waited longest, if there is one."""
        if self._buckets:
            yield self._take(next(iter(self._buckets)))

    def flush(self) -> Iterator[Batch[Tag]]:
        """All waiting inputs, oldest bucket first."""
        while self._buckets:
            yield self._take(next(iter(self._buckets)))

    def _take(self, shape: tuple[int, ...]) -> Batch[Tag]:
        bucket = self._buckets.pop(shape)
        self._waiting_bytes -= bucket.nbytes
        return bucket.batch()
