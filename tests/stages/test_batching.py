"""Every input leaves in exactly one batch, beside inputs of its own shape, and none waits for ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.stages.batch import Batch, Batcher

LENGTHS = st.lists(st.tuples(st.sampled_from([1, 12]), st.integers(1, 6)), max_size=60)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def signal(channels: int, length: int, value: float = 0.0) -> npt.NDArray[np.float32]:
    return np.full((channels, length), value, dtype=np.float32)


def add(batcher: Batcher[int], data: npt.NDArray[np.float32], tag: int) -> list[Batch[int]]:
    return list(batcher.add(data, tag))


@given(LENGTHS, st.integers(1, 9), st.integers(1, 2000), st.lists(st.floats(0, 3), max_size=60))
def test_every_input_leaves_exactly_once_in_a_batch_of_its_shape(
    shapes: list[tuple[int, int]], batch_size: int, max_bytes: int, pauses: list[float]
) -> None:
    clock = Clock()
    batcher: Batcher[int] = Batcher(batch_size, max_bytes=max_bytes, clock=clock)
    batches: list[Batch[int]] = []
    for tag, (channels, length) in enumerate(shapes):
        batches += batcher.add(signal(channels, length, tag), tag)
        clock.now += pauses[tag] if tag < len(pauses) else 0.0
    batches += batcher.flush()
    assert Counter(tag for batch in batches for tag in batch.tags) == Counter(range(len(shapes)))
    for batch in batches:
        assert 1 <= len(batch.tags) <= batch_size
        assert batch.data.dtype == np.float32
        assert batch.data.shape == (len(batch.tags), *shapes[batch.tags[0]])
        for row, tag in zip(batch.data, batch.tags, strict=True):
            assert shapes[tag] == row.shape
            assert (row == tag).all()  # its own samples, none of a neighbour's and no padding
    assert list(batcher.flush()) == []


@given(
    st.lists(st.tuples(st.integers(1, 20), st.sampled_from([1, 12]), st.integers(1, 4)), max_size=20),
    st.integers(1, 9),
    st.integers(1, 2000),
)
def test_inputs_that_come_together_leave_once_and_their_memory_is_given_back_after_that(
    blocks: list[tuple[int, int, int]], batch_size: int, max_bytes: int
) -> None:
    batcher: Batcher[int] = Batcher(batch_size, max_bytes=max_bytes, clock=Clock())
    given_back, left = Counter[int](), Counter[int]()

    def take(batches: Iterable[Batch[int]]) -> None:
        for batch in batches:
            assert 1 <= len(batch.tags) <= batch_size
            assert all((row == tag).all() for row, tag in zip(batch.data, batch.tags, strict=True))
            left.update(batch.tags)
            batch.give_back()

    n_inputs = 0
    for number, (n, channels, length) in enumerate(blocks):
        tags = range(n_inputs, n_inputs + n)
        n_inputs += n
        block = np.stack([signal(channels, length, tag) for tag in tags])

        def give_back(number: int = number, block: npt.NDArray[np.float32] = block) -> None:
            given_back[number] += 1
            block[...] = -1  # whoever uses it after that has wrong samples

        batches = list(batcher.add_all(block, list(tags), give_back))
        assert any(batch.data is block for batch in batches) == (n == batch_size)  # a full batch is not copied
        take(batches)
    take(batcher.flush())
    assert left == Counter(range(n_inputs))
    assert given_back == Counter(range(len(blocks)))


@given(LENGTHS, st.integers(1, 9), st.integers(1, 500))
def test_what_waits_never_exceeds_the_bound_in_bytes(
    shapes: list[tuple[int, int]], batch_size: int, max_bytes: int
) -> None:
    batcher: Batcher[int] = Batcher(batch_size, max_bytes=max_bytes, clock=Clock())
    waiting = 0
    for tag, (channels, length) in enumerate(shapes):
        given_out = sum(batch.data.nbytes for batch in batcher.add(signal(channels, length), tag))
        waiting += channels * length * 4 - given_out
        assert 0 <= waiting <= max_bytes


@given(st.lists(st.tuples(st.integers(1, 4), st.floats(0, 1.5)), max_size=60), st.floats(0.1, 3))
def test_nothing_waits_longer_than_the_age_bound(steps: list[tuple[int, float]], max_age: float) -> None:
    clock = Clock()
    batcher: Batcher[int] = Batcher(1000, max_age=max_age, clock=clock)
    since: dict[int, float] = {}
    for tag, (length, pause) in enumerate(steps):
        since[tag] = clock.now
        for batch in batcher.add(signal(1, length), tag):
            for left in batch.tags:
                del since[left]
        assert all(clock.now - began <= max_age for began in since.values())
        clock.now += pause
        for batch in batcher.due():
            for left in batch.tags:
                del since[left]
        assert all(clock.now - began <= max_age for began in since.values())


def test_a_full_batch_leaves_at_once_and_in_the_order_of_arrival() -> None:
    batcher: Batcher[int] = Batcher(3, clock=Clock())
    assert add(batcher, signal(12, 5), 0) == []
    assert add(batcher, signal(12, 6), 1) == []
    assert add(batcher, signal(12, 5), 2) == []
    (full,) = add(batcher, signal(12, 5), 3)
    assert full.tags == (0, 2, 3)


@given(LENGTHS)
def test_the_flush_gives_the_oldest_bucket_first(shapes: list[tuple[int, int]]) -> None:
    batcher: Batcher[int] = Batcher(1000, clock=Clock())
    for tag, shape in enumerate(shapes):
        assert add(batcher, signal(*shape), tag) == []
    firsts = [batch.tags[0] for batch in batcher.flush()]
    assert all(before < after for before, after in pairwise(firsts))
    assert len(firsts) == len(set(shapes))


def test_one_input_beyond_the_bound_is_a_batch_of_its_own() -> None:
    batcher: Batcher[int] = Batcher(8, max_bytes=100, clock=Clock())
    (batch,) = add(batcher, signal(12, 1000), 7)
    assert batch.tags == (7,)


def test_a_bucket_that_left_starts_its_age_anew() -> None:
    clock = Clock()
    batcher: Batcher[int] = Batcher(2, max_age=2.0, clock=clock)
    add(batcher, signal(1, 5), 0)
    clock.now += 1.5
    assert len(add(batcher, signal(1, 5), 1)) == 1
    add(batcher, signal(1, 5), 2)
    clock.now += 1.0  # 2.5 s after the first, 1 s after the third
    assert list(batcher.due()) == []
    clock.now += 1.5
    assert [batch.tags for batch in batcher.due()] == [(2,)]


@pytest.mark.parametrize("channels", [1, 12])
def test_a_batch_does_not_share_memory_with_its_inputs(channels: int) -> None:
    batcher: Batcher[int] = Batcher(1)
    data = signal(channels, 4, 1.0)
    (batch,) = add(batcher, data, 0)
    data[:] = 2.0
    assert (batch.data == 1.0).all()


@given(st.integers(1, 20), st.integers(0, 9))
def test_parts_are_the_batch_and_the_last_one_used_gives_its_memory_back(n_rows: int, n: int) -> None:
    given_back: list[int] = []
    data = np.arange(n_rows, dtype=np.float32).repeat(6).reshape(n_rows, 2, 3)
    parts = Batch(data, tuple(range(n_rows)), lambda: given_back.append(1)).parts(n)
    assert len(parts) == max(1, min(n, n_rows))
    sizes = [len(part.tags) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert tuple(tag for part in parts for tag in part.tags) == tuple(range(n_rows))
    assert np.array_equal(np.concatenate([part.data for part in parts]), data)
    for part in reversed(parts):
        assert given_back == []
        part.give_back()
    assert given_back == [1]
