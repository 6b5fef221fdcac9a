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
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.errors import EmbeddingError
from ecgfounder.machine import keep_freed_memory
from ecgfounder.stages.batch import AnyBatch, Batcher
from ecgfounder.stages.read import Event, Failed, Input, Job, Opened

FeatureMap = npt.NDArray[np.float32]

_LOOK_UP = 0.25
"""Seconds after which a stage that waits looks whether all is over."""

NOTICEABLE = 0.25
"""The share of the time for which a stage has to be waited for to count as the slowest."""


class Embedder(Protocol):
    """What the pipeline needs of an engine."""

    threads: int

    def embed(self, batch: FeatureMap) -> FeatureMap:
        """float32 [B, C, L] -> float32 [B, T, 1024]; may be called from `threads` threads at once."""
        ...


@dataclass(frozen=True)
class Finished:
    """One record that went through: embeddings of its inputs in order, or the reason why not.

    Attributes
    ----------
    views : what `Pipeline.view` kept of each input, in order; None for a failure.
    """

    ticket: int
    facts: dict[str, Any]
    outer_shape: tuple[int, ...] = ()
    views: tuple[Any, ...] | None = None
    kind: str = ""
    reason: str = ""


@dataclass
class _Open:
    facts: dict[str, Any]
    outer_shape: tuple[int, ...]
    views: list[Any]
    left: int
    seconds: float = 0.0


class Interruption:
    """A wish to stop, set by a signal handler and looked at between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0

    def request(self, signal_number: int) -> None:
        self.signal = signal_number
        self.since = time.monotonic()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def older_than(self, seconds: float) -> bool:
        return self.requested and time.monotonic() - self.since > seconds


@dataclass
class Pipeline:
    """One process's stages.

    Parameters
    ----------
    pool : reads and prepares.
    engine : embeds.
    finish : called from one thread with groups of finished records, in the order in which they get ready.
    batch_size : rows in a full batch.
    view : what is kept of an input's map [T, 1024]; bounds memory where it pools.
    interruption : when requested, no more jobs are taken and what is in flight is finished.
    grace : seconds after an interruption after which what is still in flight is left.
    """

    pool: ReaderPool
    engine: Embedder
    finish: Callable[[Sequence[Finished]], None]
    batch_size: int
    view: Callable[[FeatureMap], Any] = field(default=lambda feature_map: feature_map)
    interruption: Interruption = field(default_factory=Interruption)
    grace: float = 8.0

    def __post_init__(self) -> None:
        threads = self.engine.threads
        self._batcher: Batcher[tuple[int, int]] = Batcher(self.batch_size)
        self._to_embed: queue.Queue[AnyBatch | None] = queue.Queue(threads + 1)
        self._to_finish: queue.Queue[list[Any] | None] = queue.Queue(4 * threads + 4)
        self._seconds = 0.0
        self._waited = {"embed": 0.0, "write": 0.0}  # seconds for which a stage had no room for what came
        self._counting = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._not_computed: set[int] = set()
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
            for batch in self._batcher.add(event.data, (event.ticket, event.number)):
                self._put(self._to_embed, batch)
            return
        if isinstance(event, Opened | Failed):
            self._put(self._to_finish, [event])
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
        # waited for: what it writes and the books would not agree otherwise.
        self._finisher.join()

    def _guard(self, stage: Callable[[], None]) -> None:
        try:
            stage()
        except BaseException as error:  # noqa: BLE001 - handed to `run`, which raises it in the caller's thread
            self._error = self._error or error

    def _embed(self) -> None:
        while (batch := self._get(self._to_embed)) is not None:
            began = time.perf_counter()
            try:
                maps = self.engine.embed(batch.data)
                share = (time.perf_counter() - began) / len(batch.tags)
                rows = [(tag, self.view(each), share) for tag, each in zip(batch.tags, maps, strict=True)]
            except EmbeddingError:
                rows = [self._embed_alone(data, tag) for data, tag in zip(batch.data, batch.tags, strict=True)]
            self._put(self._to_finish, rows)

    def _embed_alone(self, data: FeatureMap, tag: tuple[int, int]) -> Any:
        """One row of a batch that could not be computed: its own result, or its own failure."""
        began = time.perf_counter()
        try:
            return tag, self.view(self.engine.embed(data[None])[0]), time.perf_counter() - began
        except EmbeddingError as error:
            return Failed(tag[0], {}, type(error).__name__, str(error))

    def _finish(self) -> None:
        while (work := self._get(self._to_finish)) is not None:
            done = [
                finished for each in (*work, *self._more_to_finish()) if (finished := self._collect(each)) is not None
            ]
            if done:
                self.finish(done)

    def _more_to_finish(self) -> Iterator[Any]:
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

    def _collect(self, work: Any) -> Finished | None:
        """Put an embedding with those of the same record; gives the record when it is whole."""
        if isinstance(work, Opened):
            self._open[work.ticket] = _Open(work.facts, work.outer_shape, [None] * work.n_inputs, work.n_inputs)
            return None
        if isinstance(work, Failed):
            opened = self._open.pop(work.ticket, None)
            if work.ticket in self._not_computed:
                return None  # it has failed already, for another of its inputs
            if work.kind == EmbeddingError.__name__:
                self._not_computed.add(work.ticket)
            facts = opened.facts | work.facts if opened else work.facts
            return Finished(work.ticket, facts, kind=work.kind, reason=work.reason)
        (ticket, number), view, seconds = work
        opened = self._open.get(ticket)
        if opened is None:
            return None  # an input of a record that failed later on
        opened.views[number] = view
        opened.left -= 1
        opened.seconds += seconds
        if opened.left:
            return None
        del self._open[ticket]
        opened.facts["seconds"] = {**opened.facts.get("seconds", {}), "embed": opened.seconds}
        return Finished(ticket, opened.facts, opened.outer_shape, tuple(opened.views))
