"""The stages in parallel: reading processes, engine threads and a writing thread, with bounded queues between them.

In: jobs, a reader pool, an engine, and a callback for finished records. Out: a call of `finish` for every job, from one thread.
A slow stage slows the stages before it, so that memory is bounded.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecgfounder.drivers.interruption import Interruption
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.machine import keep_freed_memory
from ecgfounder.stages.batch import Batch, Batcher
from ecgfounder.stages.collect import Embedded, Finished, Gathering, collect, give_up
from ecgfounder.stages.embed import EmbedStage, Tag
from ecgfounder.stages.read import Event, Failed, Input, Inputs, Job, Opened
from ecgfounder.stages.trouble import StoreTrouble

Row = Embedded | tuple[Gathering | None, Failed]
"""An item for the writing thread: an input's embedding, or a failed file with its record in progress, if any."""

_LOOK_UP = 0.25
"""Seconds after which a waiting stage checks whether the run is over."""

NOTICEABLE = 0.25
"""Minimum share of the time that others wait for a stage for it to count as the bottleneck."""


@dataclass
class Pipeline:
    """One process's stages.

    Parameters
    ----------
    pool : ReaderPool
        Reads and prepares files.
    embed : EmbedStage
        The embedding stage, called from as many threads as the engine can use.
    finish : callable
        Called from one thread with groups of finished records, in the order in which they finish.
    batch_size : int
        Rows in a full batch.
    interruption : Interruption
        When requested, no more jobs are taken, and records in progress are finished.
    grace : float, default: 8.0
        Seconds after an interruption until records still in progress are abandoned.
    trouble : StoreTrouble
        Decides about files that a store did not give; with `trouble.reason`, no more jobs are taken, and the rest is finished.
    """

    pool: ReaderPool
    embed: EmbedStage
    finish: Callable[[Sequence[Finished]], None]
    batch_size: int
    interruption: Interruption = field(default_factory=Interruption)
    grace: float = 8.0
    trouble: StoreTrouble = field(default_factory=StoreTrouble)

    def __post_init__(self) -> None:
        threads = self.embed.network.threads
        self._batcher: Batcher[Tag] = Batcher(self.batch_size, empty=self.embed.empty)
        self._arriving: dict[int, Gathering] = {}  # records with inputs still to be read, by place
        self._to_embed: queue.Queue[Batch[Tag] | None] = queue.Queue(threads + 1)
        self._to_finish: queue.Queue[list[Row] | None] = queue.Queue(4 * threads + 4)
        self.seconds = 0.0
        self._began: float | None = None  # when the first file was read: before, the reading processes started
        self._waited = {"read": 0.0, "embed": 0.0, "write": 0.0}  # seconds that others waited for a stage
        self._counting = threading.Lock()
        self._handed_on = 0  # batches, counted by the main thread
        self._embedded = 0  # of them, counted by the engine's threads
        self._error: BaseException | None = None
        self._left = False  # the grace period is over, or the run failed: no stage waits any more
        self._embedders = [
            threading.Thread(target=self._guard, args=(self._embed,), name=f"ecgfounder-embed-{number}", daemon=True)
            for number in range(threads)
        ]
        self._finisher = threading.Thread(
            target=self._guard, args=(self._finish,), name="ecgfounder-write", daemon=True
        )

    def run(self, jobs: Iterator[Job]) -> None:
        """Process all jobs; returns when all are finished, or after an interruption.

        No call of `finish` begins after this has returned or raised.

        Raises
        ------
        BaseException
            Any error of an engine or of `finish`, which stops the run.
        """
        self.read(jobs)
        self.complete()

    def read(self, jobs: Iterator[Job]) -> None:
        """The first half of `run`: returns when all files are read; their last records may still be embedded and finished.

        Then the pool is free for the jobs of another pipeline.
        """
        keep_freed_memory()
        for thread in (*self._embedders, self._finisher):
            thread.start()
        try:
            for event in self.trouble.judged(self.pool.events(jobs), self.pool.stop_taking):
                if self._began is None:
                    self._began, self._waited["read"] = time.monotonic(), -self.pool.waited
                self._take(event)
                if self.interruption.requested:
                    self.pool.stop_taking()
                if self._is_over():
                    break
            self._hand_on(self._batcher.flush())
        except BaseException:
            self._left = True
            self._shut_down()
            raise
        finally:
            self._waited["read"] += self.pool.waited

    def complete(self) -> None:
        """The second half of `run`: returns when all records are finished."""
        self._shut_down()
        self.seconds = 0.0 if self._began is None else time.monotonic() - self._began
        if self._error:
            raise self._error

    @property
    def slowest(self) -> str:
        """The bottleneck: "read", "embed" or "write"; "main", this process's main thread, if it was none of these.

        Stages are checked from the last to the first, because a slow stage makes the stages before it wait too.
        """
        waited = {
            "write": self._waited["write"] / len(self._embedders),
            "embed": self._waited["embed"],
            "read": self._waited["read"],
        }
        for stage, seconds in waited.items():
            if seconds >= NOTICEABLE * self.seconds:
                return stage
        return "main"

    def _take(self, event: Event) -> None:
        if isinstance(event, Input):
            self._hand_on(self._batcher.add(event.data, self._tag(event.job, event.number)))
            self._occupy()
            return
        if isinstance(event, Inputs):
            tags = [self._tag(job, number) for job, number in event.inputs]
            self._hand_on(self._batcher.add_all(event.data, tags, event.give_back))
            self._occupy()
            return
        if isinstance(event, Opened):
            self._arriving[event.job.place] = Gathering(event)
            return
        if isinstance(event, Failed):
            self._put(self._to_finish, [(self._arriving.pop(event.job.place, None), event)])
        self._hand_on(self._batcher.due())

    def _hand_on(self, batches: Iterator[Batch[Tag]]) -> None:
        """Put batches into the queue of the engine's threads, in parts where several have no work."""
        for batch in batches:
            for part in batch.parts(self._idle):
                self._handed_on += 1
                self._put(self._to_embed, part)

    def _occupy(self) -> None:
        """Let no thread of a CPU wait until a batch is full."""
        if self._idle > 0:
            self._hand_on(self._batcher.oldest())

    @property
    def _idle(self) -> int:
        """Threads without work, if each computes alone; 0 otherwise."""
        return len(self._embedders) - (self._handed_on - self._embedded) if self.embed.single_threaded else 0

    def _tag(self, job: Job, number: int) -> Tag:
        """The record of an input, which has arrived with its last one."""
        gathering = self._arriving[job.place]
        if number + 1 == gathering.opened.n_inputs:
            del self._arriving[job.place]
        return gathering, number

    @property
    def is_abandoned(self) -> bool:
        """Whether records in progress were abandoned, so that the pool may still have some of them."""
        return self._left

    def _is_over(self) -> bool:
        """Whether records still in progress are abandoned."""
        self._left = self._left or self._error is not None or self.interruption.older_than(self.grace)
        return self._left

    def _put(self, stage: queue.Queue[Any], work: Any) -> None:
        """Put work into a queue; waits until there is space, or the run is over."""
        began = time.monotonic()
        while not self._is_over():
            try:
                stage.put(work, timeout=_LOOK_UP)
                break
            except queue.Full:
                continue
        with self._counting:
            self._waited["embed" if stage is self._to_embed else "write"] += time.monotonic() - began

    def _get(self, stage: queue.Queue[Any]) -> Any:
        """The next work for a stage; None at the end."""
        while not self._is_over():
            try:
                return stage.get(timeout=_LOOK_UP)
            except queue.Empty:
                continue
        return None

    def _shut_down(self) -> None:
        """Finish the stages one after the other; if the run is over, wait only for the step that each has begun."""
        for _ in self._embedders:
            self._put(self._to_embed, None)
        began = time.monotonic()
        for thread in self._embedders:
            while thread.is_alive() and not self._is_over():
                thread.join(_LOOK_UP)
        with self._counting:
            self._waited["embed"] += time.monotonic() - began
        self._give_back_rest()
        self._put(self._to_finish, None)
        # An engine cannot be stopped, and its result is not needed any more. A group that is being written must be finished,
        # because otherwise the outputs and the run record would not agree.
        began = time.monotonic()
        self._finisher.join()
        with self._counting:  # counted as if all embedding threads had waited
            self._waited["write"] += (time.monotonic() - began) * len(self._embedders)

    def _give_back_rest(self) -> None:
        """Give the memory of batches back that will not be embedded: the pool may have jobs of another pipeline."""
        while True:
            try:
                batch = self._to_embed.get_nowait()
            except queue.Empty:
                return
            if batch is not None:
                batch.give_back()

    def _guard(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 - handed to `run`, which raises it in the caller's thread
            self._error = self._error or error

    def _embed(self) -> None:
        while (batch := self._get(self._to_embed)) is not None:
            try:
                rows = self.embed(batch)
            finally:
                batch.give_back()
            self._put(self._to_finish, rows)
            with self._counting:
                self._embedded += 1

    def _finish(self) -> None:
        while (work := self._get(self._to_finish)) is not None:
            done = [finished for row in (*work, *self._more_to_finish()) if (finished := _collected(row)) is not None]
            if done:
                self.finish(done)

    def _more_to_finish(self) -> Iterator[Row]:
        """Further waiting items: a group is synced together, so that groups are large if writing is the bottleneck."""
        for _ in range(self._to_finish.maxsize):
            try:
                work = self._to_finish.get_nowait()
            except queue.Empty:
                return
            if work is None:
                self._to_finish.put(None)  # put the end marker back for `_finish`
                return
            yield from work


def _collected(row: Row) -> Finished | None:
    return collect(row) if isinstance(row, Embedded) else give_up(*row)
