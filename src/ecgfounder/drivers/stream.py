"""The stages as a stream, for the Python API: recordings in, results out, in the same order.

In: functions that prepare a recording each, called in the caller's thread on demand. Out: finished records, or errors. Separate
threads compute the network, a few batches ahead.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ecgfounder.errors import ECGFounderError, EmbeddingError, PrepareError
from ecgfounder.preprocess.signals import Signal
from ecgfounder.stages.batch import Batch, Batcher
from ecgfounder.stages.collect import Embedded, Finished, Gathering, collect
from ecgfounder.stages.embed import EmbedStage, Tag
from ecgfounder.stages.read import Job, Opened


@dataclass(eq=False)
class _Place:
    """A recording in progress, and its outcome."""

    outcome: Finished | ECGFounderError | None = None


class Stream:
    """Recordings in, finished ones out in the same order.

    The caller's thread never computes the network, because an engine sets PyTorch's number of threads in its thread.

    Parameters
    ----------
    embed : EmbedStage
        The embedding stage.
    batch_size : int
        Rows in a full batch.
    """

    def __init__(self, embed: EmbedStage, batch_size: int) -> None:
        self._embed = embed
        self._threads = embed.network.threads
        self._batcher: Batcher[Tag] = Batcher(batch_size, max_age=math.inf, empty=embed.empty)
        # Enough that every thread has a batch even if lengths differ, and small enough to bound memory.
        self._ahead = 2 * batch_size * (self._threads + 1)
        self._places: deque[_Place] = deque()
        self._place_of: dict[int, _Place] = {}
        self._computing: deque[Future[list[Embedded]]] = deque()

    def results(self, prepared: Iterable[Callable[[], Signal]]) -> Iterator[Finished | ECGFounderError]:
        """For each function a finished record with its embeddings, or an error."""
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="ecgfounder-embed")
        try:
            for number, prepare in enumerate(prepared):
                self._take(number, prepare, pool)
                yield from self._finished(self._ahead, pool)
            yield from self._finished(0, pool)
        finally:
            pool.shutdown(cancel_futures=True)

    def _take(self, number: int, prepare: Callable[[], Signal], pool: ThreadPoolExecutor) -> None:
        place = _Place()
        self._places.append(place)
        try:
            signal = prepare()
            gathering = Gathering(Opened(Job(number, ""), len(signal.inputs), signal.outer_shape))
            self._place_of[number] = place
            for row, data in enumerate(signal.inputs):
                for batch in self._batcher.add(data, (gathering, row)):
                    self._compute(batch, pool)
        except ECGFounderError as error:
            place.outcome = error
        except MemoryError:
            place.outcome = PrepareError("needs more memory than is available")

    def _compute(self, batch: Batch[Tag], pool: ThreadPoolExecutor) -> None:
        while len(self._computing) > self._threads:
            self._collect()
        self._computing.append(pool.submit(self._embed, batch))

    def _collect(self) -> None:
        """Wait for the oldest batch and assign its rows to their recordings."""
        for row in self._computing.popleft().result():
            finished = collect(row)
            if finished is None:
                continue
            place = self._place_of.pop(finished.job.place)
            place.outcome = place.outcome or (finished if finished.embeddings else EmbeddingError(finished.reason))

    def _finished(self, most: int, pool: ThreadPoolExecutor) -> Iterator[Finished | ECGFounderError]:
        """The next outcomes in order, until at most `most` recordings are in progress."""
        while self._places:
            outcome = self._places[0].outcome
            if outcome is not None:
                self._places.popleft()
                yield outcome
            elif len(self._places) <= most:
                return
            elif self._computing:
                self._collect()
            else:
                for batch in self._batcher.flush():
                    self._compute(batch, pool)
