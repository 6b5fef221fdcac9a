"""Stand-ins: an engine that does not compute and a reader that does not read, to measure the rest of the pipeline.

In: the arguments of the real ones. Out: results of the same shape and type.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ecgfounder.ecg.facts import Facts, Identity
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.engines import Engine
from ecgfounder.engines.engine import Array
from ecgfounder.preprocess.recipes import Empty, anywhere
from ecgfounder.stages.read import Ask, Event, Input, Job, Opened, ReadTask

_LENGTH = 5500


class NullEngine(Engine):
    """Returns precomputed feature maps of the right shape, with as many digits as real ones."""

    name = "null"

    def __init__(self, threads: int) -> None:
        super().__init__(precision="float32", device="cpu", threads=threads, batch_size=8, in_channels=12, head=None)
        self._maps: dict[tuple[int, int], Array] = {}

    def _embed(self, batch: Array) -> Array:
        shape = (len(batch), -(-batch.shape[2] // 256))
        if shape not in self._maps:
            self._maps[shape] = np.random.default_rng(0).standard_normal((*shape, 1024), dtype=np.float32)
        return self._maps[shape]

    def describe(self) -> str:
        return "null"

    def close(self) -> None:
        self._maps.clear()


@dataclass(frozen=True)
class SyntheticTask(ReadTask):
    """Gives the same recording of 11 s for every path, without reading."""

    @cached_property
    def _samples(self) -> Array:
        return np.random.default_rng(1).standard_normal((12, _LENGTH), dtype=np.float32)

    def events(self, job: Job, ask: Ask | None = None, empty: Empty = anywhere) -> Iterator[Event]:
        began = time.perf_counter()
        identity = Identity(size=60_000, mtime_ns=1, sha256=f"{job.place:064x}")
        facts = Facts("synthetic", 500.0, _LENGTH, leads=STANDARD_LEADS, starts=(0.0,))
        seconds = {"read": time.perf_counter() - began, "prepare": 0.0}
        yield Opened(job, 1, (), facts, identity, seconds)
        yield Input(job, 0, self._samples)
