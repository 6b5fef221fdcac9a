"""Samples of reading processes arrive as they were, through shared memory or the pipe, however they are cut on the way."""

from __future__ import annotations

import multiprocessing
import pickle
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest

from ecgfounder.drivers import ring as rings
from ecgfounder.drivers.processes import JOBS_AHEAD, ReaderPool
from ecgfounder.drivers.ring import RING_BYTES, make_ring
from ecgfounder.drivers.wire import Inbox, Outbox, Rows
from ecgfounder.ecg.facts import Facts
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import Empty, anywhere
from ecgfounder.stages.read import Ask, Event, Failed, Input, Inputs, Job, Opened, ReadTask
from tests.harness.known_arrays import SMALL_RING, KnownArraysTask, fails, known_arrays

SOME = np.arange(24, dtype=np.float32).reshape(12, 2)


def test_positions_go_on_behind_the_end_and_no_array_is_split() -> None:
    ring = make_ring()
    assert ring is not None
    rng = np.random.default_rng(0)
    kept: list[tuple[int, np.ndarray]] = []
    refused = 0
    for number in range(600):
        data = np.full((12, int(rng.integers(1, 30_000))), number, np.float32)
        while (position := ring.put(data)) is None:
            refused += 1
            first, expected = kept.pop(0)
            view, give_back = ring.take(first, expected.shape)
            np.testing.assert_array_equal(view, expected)
            give_back()
        kept.append((position, data))
        assert position % RING_BYTES + data.nbytes <= RING_BYTES
    assert refused > 300
    ring.close()


def test_arrays_that_are_made_in_the_ring_are_not_copied_and_others_are() -> None:
    ring = make_ring()
    assert ring is not None
    one, other, lost = (ring.empty(SOME.shape) for _ in range(3))
    one[...], other[...], lost[...] = SOME, SOME + 1, SOME + 2
    assert [ring.put(one), ring.put(other)] == [0, SOME.nbytes]
    assert ring.put(SOME + 3) is None  # it may still be sent
    ring.forget()
    assert ring.put(SOME + 3) == 2 * SOME.nbytes
    view, _give_back = ring.take(0, (3, *SOME.shape))
    np.testing.assert_array_equal(view, [SOME, SOME + 1, SOME + 3])
    ring.forget()
    assert ring.put(ring.empty((1, RING_BYTES))) is None  # made elsewhere
    ring.close()


def test_no_array_is_copied_onto_one_that_is_not_sent_yet() -> None:
    ring = make_ring()
    assert ring is not None
    shape = (1, RING_BYTES // 16)
    first = [ring.put(np.zeros(shape, np.float32)) for _ in range(3)]
    given = [ring.take(position, shape)[1] for position in first if position is not None]
    made = [ring.empty(shape), ring.empty(shape)]  # the second one elsewhere, because there is no room
    given[0]()
    made.append(ring.empty(shape))
    given[1]()
    for value, array in enumerate(made, 7):
        array[...] = value
    sent = [(array, ring.put(array)) for array in made]
    values = [(array if at is None else ring.view(at, shape))[0, 0] for array, at in sent]
    assert values == [7, 8, 9]
    given[2]()
    assert ring.put(ring.empty(shape)) is not None  # the ring is used again
    ring.close()


def test_arrays_at_the_end_and_at_the_beginning_are_not_one() -> None:
    ours, theirs = multiprocessing.Pipe()
    ring = make_ring(8)
    assert ring is not None
    outbox, inbox = Outbox(theirs, ring, 8, first=8), Inbox(ours, ring)
    quarter = (1, RING_BYTES // 16)  # so large that no room is kept for eight of them

    def sent(values: range) -> list[int]:
        """Send arrays as one job does; the numbers that came together."""
        for value in values:
            array = ring.empty(quarter)
            array[...] = value
            outbox.add(None, 0, array)
        outbox.flush()
        came = []
        found = iter(values)
        while sum(came) < len(values):
            for message, block in inbox.read():
                assert isinstance(message, Rows)
                assert block is not None
                assert [float(each[0, 0]) for each in block.samples] == [next(found) for _ in message.inputs]
                came.append(len(message.inputs))
                block.give_back()
        return came

    assert sent(range(2)) == [2]
    assert sent(range(2, 6)) == [2, 2]
    ring.close()


def test_space_is_free_up_to_the_first_array_that_is_still_held() -> None:
    ring = make_ring()
    assert ring is not None
    half = np.zeros((1, RING_BYTES // 8), np.float32)
    first, second = ring.put(half), ring.put(half)
    assert first is not None
    assert second is not None
    given = [ring.take(position, half.shape)[1] for position in (first, second)]
    given[1]()
    assert ring.put(half) is None
    given[0]()
    assert ring.put(half) == RING_BYTES
    assert ring.put(half) == RING_BYTES + half.nbytes
    ring.close()


def test_what_is_larger_than_the_ring_has_no_room() -> None:
    ring = make_ring()
    assert ring is not None
    assert ring.put(np.zeros((1, RING_BYTES // 4 + 1), np.float32)) is None
    assert ring.put(np.zeros((1, RING_BYTES // 4), np.float32)) == 0
    assert ring.put(SOME) is None
    ring.close()


@pytest.mark.parametrize("cut", [1, 7, 100, 10_000])
def test_messages_and_samples_that_come_in_pieces_are_whole(cut: int) -> None:
    ours, theirs = multiprocessing.Pipe()
    inbox = Inbox(ours, None)
    job = Job(3, "a")
    content = b""
    for message in (None, Opened(job, 2), Rows(SOME.shape, None, [(None, 0)]), Failed(job, "ReadError", "damaged")):
        packed = pickle.dumps(message)
        content += struct.pack("<?Q", False, len(packed)) + packed
        if isinstance(message, Rows):
            content += SOME.tobytes()
    found = []
    for start in range(0, len(content), cut):
        theirs._send(content[start : start + cut])  # type: ignore[attr-defined]
        while ours.poll(0):
            found += list(inbox.read())
    theirs.close()
    with pytest.raises(EOFError):
        list(inbox.read())
    assert [type(message) for message, _ in found] == [type(None), Opened, Rows, Failed]
    block = found[2][1]
    assert block is not None
    np.testing.assert_array_equal(block.samples, SOME[None])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_inputs_of_many_jobs_are_those_of_the_jobs(rows: int, shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one kind after the other; positions go round several times with each."""
    if not shared:
        monkeypatch.delattr(rings.os, "memfd_create")
    monkeypatch.setattr(rings, "RING_BYTES", SMALL_RING)
    n_jobs = {"random": 100, "equal": 300, "large": 60}
    pool = ReaderPool(KnownArraysTask(Preparation()), 2, rows=rows)
    expected_of = lru_cache(maxsize=32)(known_arrays)
    seen, together, failed = Counter[tuple[str, int]](), Counter[str](), 0
    held: list[Inputs] = []

    def check(job: Job, number: int, data: np.ndarray) -> None:
        np.testing.assert_array_equal(data, expected_of(job.path, job.place)[number])
        seen[job.path, job.place] += 1

    def give_back() -> None:
        for each in reversed(held):  # in another order than they came
            for (job, number), data in zip(each.inputs, each.data, strict=True):
                check(job, number, data)
            each.give_back()
        held.clear()

    try:
        for event in pool.events(Job(place, kind) for kind, count in n_jobs.items() for place in range(count)):
            failed += isinstance(event, Failed)
            if isinstance(event, Input):
                check(event.job, event.number, event.data)
            elif isinstance(event, Inputs):
                kind = event.inputs[0][0].path
                together[kind] = max(together[kind], len(event.inputs))
                held.append(event)
                if len(held) == 3:
                    give_back()
        give_back()
    finally:
        pool.close()
    jobs = [(kind, place) for kind, count in n_jobs.items() for place in range(count)]
    sound = [job for job in jobs if not fails(*job)]
    assert seen == {job: len(known_arrays(*job)) for job in sound}
    assert failed == len(jobs) - len(sound) > 20
    assert together["equal"] == (rows if shared and rows > 1 else 0)


def test_short_jobs_are_given_several_at_once() -> None:
    pool = ReaderPool(KnownArraysTask(Preparation()), 1)
    taken, furthest = 0, 0

    def jobs() -> Iterator[Job]:
        nonlocal taken
        for place in range(200):
            taken += 1
            yield Job(place, "random")

    try:
        ended = 0
        for event in pool.events(jobs()):
            ended += isinstance(event, Opened)
            furthest = max(furthest, taken - ended)
    finally:
        pool.close()
    assert max(JOBS_AHEAD) - 1 <= furthest <= max(JOBS_AHEAD) + 1


@dataclass(frozen=True)
class OddTask(ReadTask):
    """Facts that need more than a msgpack row: NumPy's numbers, large numbers, names that are not UTF-8."""

    def events(self, job: Job, ask: Ask = lambda _need: None, empty: Empty = anywhere) -> Iterator[Event]:
        device = {"number": np.float32(0.5), "count": np.int64(3), "text": job.path, "large": 1 << 80}
        facts = Facts("odd", np.float64(500), n_samples=np.int64(2), device=device)  # type: ignore[arg-type]
        yield Opened(job, 1, facts=facts if job.place else Facts("odd", np.float64(500)))
        yield Input(job, 0, SOME)


def test_what_no_row_can_say_arrives_too() -> None:
    pool = ReaderPool(OddTask(Preparation()), 1)
    try:
        events = list(pool.events(iter([Job(0, "a"), Job(1, "b\udcff")])))
    finally:
        pool.close()
    opened = [event for event in events if isinstance(event, Opened)]
    assert [event.job.path for event in opened] == ["a", "b\udcff"]
    assert opened[0].facts.sampling_rate == 500.0
    assert opened[1].facts.device["large"] == 1 << 80
    assert opened[1].facts.n_samples == 2


def test_the_first_inputs_do_not_wait_for_many_others() -> None:
    ours, theirs = multiprocessing.Pipe()
    ring = make_ring(8)
    assert ring is not None
    outbox, inbox = Outbox(theirs, ring, 8), Inbox(ours, ring)
    came: list[int] = []
    for _ in range(31):
        outbox.add(None, 0, ring.empty((12, 100)))
        while ours.poll():
            for message, block in inbox.read():
                assert isinstance(message, Rows)
                assert block is not None
                came.append(len(message.inputs))
                block.give_back()
    assert came == [1, 2, 4, 8, 8, 8]
    ring.close()
