"""A task for reading processes whose inputs are known arrays: of random sizes, of equal ones, or large ones.

In: jobs whose paths name a kind. Out: their events, and for the tests the arrays. Apart from the tests, so that no reading
process has to import pytest. Sizes are for a ring of `SMALL_RING` bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess.recipes import Empty, anywhere
from ecgfounder.stages.read import Ask, Event, Failed, Input, Job, Opened, ReadTask

Arrays = list[npt.NDArray[np.float32]]

SMALL_RING = 1 << 20
"""Bytes of a ring in which positions go round often with few bytes in all."""


@dataclass(frozen=True)
class KnownArraysTask(ReadTask):
    """Inputs of the kind that a path names: `random`, `equal` or `large`."""

    def events(self, job: Job, ask: Ask = lambda _need: None, empty: Empty = anywhere) -> Iterator[Event]:
        arrays = known_arrays(job.path, job.place)
        if job.path == "equal":
            made = [empty(each.shape) if number % 4 or len(arrays) > 1 else each for number, each in enumerate(arrays)]
        elif job.path == "large":
            made = [empty(each.shape) for each in arrays]
        else:
            made = arrays
        for array, each in zip(made, arrays, strict=True):
            array[...] = each
        if fails(job.path, job.place):
            yield Failed(job, "ReadError", "damaged")
            return
        yield Opened(job, len(made), seconds={"read": 1e-4})
        for number, data in enumerate(made):
            yield Input(job, number, data)


def known_arrays(kind: str, place: int) -> Arrays:
    """The inputs of a job.

    `random`: of random numbers and sizes, most of which fit into the ring; `equal`: of one shape, most of them made in the ring,
    several for some jobs; `large`: several that are all made before the first is sent, the ring has room for those of two jobs.
    """
    rng = np.random.default_rng(place)
    if kind == "random":
        longest = 25_000 if place % 9 == 0 else 2_500
        return [rng.random((12, int(rng.integers(1, longest))), np.float32) for _ in range(int(rng.integers(1, 5)))]
    if kind == "equal":
        return [rng.random((12, 500), np.float32) for _ in range(5 if place % 7 == 0 else 1)]
    return [np.full((1, 16_250), 100 * place + number, np.float32) for number in range(12)]


def fails(kind: str, place: int) -> bool:
    """Whether a job fails after its arrays were made."""
    return kind == "equal" and place % 13 == 0
