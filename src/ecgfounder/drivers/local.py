"""The stages put in parallel: reading processes, engine threads, one writing thread, bounded queues between them.

In: jobs, a reader pool, an engine, and what to do with a finished record. Out: a call of `finish` for every job, from one thread.
No stage waits for another without need, and a slow one slows those before it instead of filling memory.
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
from ecgfounder.stages.read import Event, Failed, Input, Job, Opened

Row = Embedded | tuple[Gathering | None, Failed]
"""What comes to the finishing thread: an input's view, or a file that failed, with what was there of it."""

_LOOK_UP = 0.25
"""Seconds after which a stage that waits looks whether all is over."""

NOTICEABLE = 0.25
"""The share of the time for which a stage has to be waited for to count as the slowest."""


@dataclass
class Pipeline:
    """One process's stages.

    Parameters
    ----------
    pool : ReaderPool
        Reads and prepares.
    embed : EmbedStage
        The embedding stage, called from as many threads as its network can use.
    finish : callable
        Called from one thread with groups of finished records, in the order in which they get ready.
    batch_size : int
        Rows in a full batch.
    interruption : Interruption
        When requested, no more jobs are taken and what is in flight is finished.
    grace : float, default: 8.0
        Seconds after an interruption after which what is still in flight is left.
    """

    pool: ReaderPool
    embed: EmbedStage
    finish: Callable[[Sequence[Finished]], None]
    batch_size: int
    interruption: Interruption = field(default_factory=Interruption)
    grace: float = 8.0

    def __post_init__(self) -> None:
        threads = self.embed.network.threads
        self._batcher: Batcher[Tag] = Batcher(self.batch_size)
        self._arriving: dict[int, Gathering] = {}  # records whose inputs have not all been read yet, by their places
        self._to_embed: queue.Queue[Batch[Tag] | None] = queue.Queue(threads + 1)
        self._to_finish: queue.Queue[list[Row] | None] = queue.Queue(4 * threads + 4)
        self._seconds = 0.0
        self._waited = {"embed": 0.0, "write": 0.0}  # seconds for which a stage had no room for what came
        self._counting = threading.Lock()
        self._error: BaseException | None = None
        self._left = False  # the interruption's grace is over, or the run failed: no stage waits for another any more
        self._embedders = [
            threading.Thread(target=self._guard, args=(self._embed,), name=f"ecgfounder-embed-{number}", daemon=True)
            for number in range(threads)
        ]
        self._finisher = threading.Thread(
            target=self._guard, args=(self._finish,), name="ecgfounder-write", daemon=True
        )

    def run(self, jobs: Iterator[Job]) -> None:
        """Put all jobs through; returns when every one was finished, or after an interruption.

        No call of `finish` begins after this has returned or raised.

        Raises
        ------
        BaseException
            What an engine or `finish` raised: the run cannot go on.
        """
        keep_freed_memory()
        began = time.monotonic()
        for thread in (*self._embedders, self._finisher):
            thread.start()
        try:
            for event in self.pool.events(jobs):
                self._take(event)
                if self.interruption.requested:
                    self.pool.stop_taking()
                if self._is_over():
                    break
            for batch in self._batcher.flush():
                self._put(self._to_embed, batch)
        except BaseException:
            self._left = True
            raise
        finally:
            self._shut_down()
            self._seconds = time.monotonic() - began
        if self._error:
            raise self._error

    @property
    def slowest(self) -> str:
        """The stage that the others waited for: "read", "embed" or "write"; "main", this process's own thread, if none was.

        Stages are looked at from the end: one that is waited for makes those before it wait too.
        """
        waited = {
            "write": self._waited["write"] / len(self._embedders),
            "embed": self._waited["embed"],
            "read": self.pool.waited,
        }
        for stage, seconds in waited.items():
            if seconds >= NOTICEABLE * self._seconds:
                return stage
        return "main"

    def _take(self, event: Event) -> None:
        if isinstance(event, Input):
            gathering = self._arriving[event.job.place]
            if event.number + 1 == gathering.opened.n_inputs:
                del self._arriving[event.job.place]
            for batch in self._batcher.add(event.data, (gathering, event.number)):
                self._put(self._to_embed, batch)
            return
        if isinstance(event, Opened):
            self._arriving[event.job.place] = Gathering(event)
        elif isinstance(event, Failed):
            self._put(self._to_finish, [(self._arriving.pop(event.job.place, None), event)])
        for batch in self._batcher.due():
            self._put(self._to_embed, batch)

    def _is_over(self) -> bool:
        """Whether what is still in flight is left as it is."""
        self._left = self._left or self._error is not None or self.interruption.older_than(self.grace)
        return self._left

    def _put(self, stage: queue.Queue[Any], work: Any) -> None:
        """Hand work on, however long it takes, unless all is over."""
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
        """The next work for a stage; None when no more comes."""
        while not self._is_over():
            try:
                return stage.get(timeout=_LOOK_UP)
            except queue.Empty:
                continue
        return None

    def _shut_down(self) -> None:
        """Let the stages run dry, one after the other; when all is over, wait for the step that each has begun."""
        for _ in self._embedders:
            self._put(self._to_embed, None)
        began = time.monotonic()
        for thread in self._embedders:
            while thread.is_alive() and not self._is_over():
                thread.join(_LOOK_UP)
        with self._counting:
            self._waited["embed"] += time.monotonic() - began
        self._put(self._to_finish, None)
        # An engine cannot be stopped, and what it gives now is lost in any case. A group that is being written must be
        # waited for: what it writes and the run's record would not agree otherwise.
        began = time.monotonic()
        self._finisher.join()
        with self._counting:  # as if every embedding thread had waited, which they would for more records
            self._waited["write"] += (time.monotonic() - began) * len(self._embedders)

    def _guard(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 - handed to `run`, which raises it in the caller's thread
            self._error = self._error or error

    def _embed(self) -> None:
        while (batch := self._get(self._to_embed)) is not None:
            self._put(self._to_finish, self.embed(batch))

    def _finish(self) -> None:
        while (work := self._get(self._to_finish)) is not None:
            done = [finished for row in (*work, *self._more_to_finish()) if (finished := _collected(row)) is not None]
            if done:
                self.finish(done)

    def _more_to_finish(self) -> Iterator[Row]:
        """What else is there by now: a group is synced at once, and where writing is the slow stage groups are large."""
        for _ in range(self._to_finish.maxsize):
            try:
                work = self._to_finish.get_nowait()
            except queue.Empty:
                return
            if work is None:
                self._to_finish.put(None)  # the end, for `_finish` to find
                return
            yield from work


def _collected(row: Row) -> Finished | None:
    return collect(row) if isinstance(row, Embedded) else give_up(*row)
