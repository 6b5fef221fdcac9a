"""Every job ends in exactly one call of `finish`, and whatever breaks, nothing hangs and nothing piles up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.drivers.interruption import Interruption
from ecgfounder.drivers.local import Pipeline
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.errors import EmbeddingError, RunError
from ecgfounder.stages.collect import Finished
from ecgfounder.stages.embed import EmbedStage
from ecgfounder.stages.pooling import InputEmbedding, pooling_of
from ecgfounder.stages.read import Event, Failed, Idle, Input, Inputs, Job, Opened
from tests.harness.scripted import SCRIPTED

Array = npt.NDArray[np.float32]

pytestmark = pytest.mark.timeout(60)


@dataclass(frozen=True)
class Plan:
    """What becomes of one record: the lengths of its inputs, and before which of them it fails, if it does."""

    lengths: tuple[int, ...] = (5,)
    fails_before: int | None = None

    @property
    def fails(self) -> bool:
        return self.fails_before is not None and self.fails_before < len(self.lengths)

    def events(self, job: Job) -> Iterator[Event]:
        if self.fails_before != 0:
            yield Opened(job, len(self.lengths), (len(self.lengths),), seconds={"read": 1.0})
        for number, length in enumerate(self.lengths):
            if number == self.fails_before:
                break
            yield Input(job, number, np.full((12, length), job.place * 100 + number, dtype=np.float32))
        if self.fails:
            yield Failed(job, "ReadError", "damaged")


@dataclass
class Pool:
    """Stands in for the reading processes: several files are in hand at a time, their events interleaved."""

    plans: Sequence[Plan]
    in_hand: int = 1
    taken: int = 0
    stopped: bool = False
    before_event: Callable[[Event], None] = lambda _event: None
    waited: float = 0.0

    def stop_taking(self) -> None:
        self.stopped = True

    def events(self, jobs: Iterator[Job]) -> Iterator[Event]:
        hands: list[Iterator[Event]] = []
        while True:
            while len(hands) < self.in_hand and not self.stopped and (job := next(jobs, None)) is not None:
                self.taken += 1
                hands.append(self.plans[job.place].events(job))
            if not hands:
                return
            for hand in list(hands):
                event = next(hand, None)
                if event is None:
                    hands.remove(hand)
                else:
                    self.before_event(event)
                    yield event
            yield Idle()


@dataclass
class Engine:
    """Gives each input's first sample back as its map [T, 4]."""

    threads: int = 1
    seconds: float = 0.0
    fails_at: int | None = None
    stuck: threading.Event | None = None
    batches: list[tuple[int, ...]] = field(default_factory=list)

    def embed(self, batch: Array) -> Array:
        self.batches.append(batch.shape)
        if self.fails_at is not None and len(self.batches) > self.fails_at:
            raise ZeroDivisionError("the engine broke")
        if self.stuck is not None:
            self.stuck.wait()
        time.sleep(self.seconds)
        return np.repeat(batch[:, 0, :1, None], 4, axis=2)


@dataclass
class Finish:
    """Collects what was finished."""

    seconds: float = 0.0
    fails_at: int | None = None
    finished: list[Finished] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def __call__(self, group: Sequence[Finished]) -> None:
        self.threads.add(threading.current_thread().name)
        if self.fails_at is not None and len(self.finished) >= self.fails_at:
            raise OSError(28, "No space left on device")
        time.sleep(self.seconds)
        self.finished += group


def pipeline_of(pool: Any, engine: Engine, finish: Any, batch_size: int = 4, **options: Any) -> Pipeline:
    stage = EmbedStage(
        engine, options.pop("keep", InputEmbedding), single_threaded=options.pop("single_threaded", False)
    )
    return Pipeline(pool, stage, finish, batch_size, **options)


def jobs(count: int) -> Iterator[Job]:
    return (Job(ticket, f"{ticket}.xml") for ticket in range(count))


def our_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("ecgfounder-")}


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = our_threads()
    yield
    deadline = time.monotonic() + 5
    while left := our_threads() - before:
        assert time.monotonic() < deadline, f"still running: {[each.name for each in left]}"
        time.sleep(0.02)


PLANS = st.lists(
    st.builds(
        Plan,
        st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple),
        st.one_of(st.none(), st.none(), st.integers(0, 3)),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(PLANS, st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_every_ticket_is_finished_exactly_once_with_its_own_embeddings_in_order(
    plans: list[Plan], batch_size: int, threads: int, in_hand: int, single_threaded: bool
) -> None:
    finish = Finish()
    pipeline = pipeline_of(Pool(plans, in_hand), Engine(threads), finish, batch_size, single_threaded=single_threaded)
    pipeline.run(jobs(len(plans)))
    assert Counter(each.job.place for each in finish.finished) == Counter(range(len(plans)))
    for each in finish.finished:
        plan = plans[each.job.place]
        assert (each.embeddings is None) == plan.fails
        if each.embeddings is None:
            assert (each.kind, each.reason) == ("ReadError", "damaged")
            continue
        assert each.outer_shape == (len(plan.lengths),)
        assert [float(view.embedding[0, 0]) for view in each.embeddings] == [
            each.job.place * 100 + number for number in range(len(plan.lengths))
        ]
        assert set(each.seconds) == {"read", "embed"}


def test_only_inputs_of_one_shape_share_a_batch() -> None:
    engine = Engine()
    plans = [Plan((5, 6)), Plan((6, 7)), Plan((5,))]
    pipeline_of(Pool(plans), engine, Finish(), 8).run(jobs(3))
    assert sorted(engine.batches) == [(1, 12, 7), (2, 12, 5), (2, 12, 6)]


def test_the_view_is_applied_to_each_input() -> None:
    finish = Finish()
    pipeline_of(Pool([Plan((5, 6))]), Engine(), finish, keep=pooling_of("mean")).run(jobs(1))
    (finished,) = finish.finished
    assert finished.embeddings is not None
    assert [each.embedding.shape for each in finished.embeddings] == [(4,), (4,)]


def test_all_calls_of_finish_come_from_one_thread() -> None:
    finish = Finish()
    pipeline_of(Pool([Plan()] * 50, 4), Engine(threads=3), finish).run(jobs(50))
    assert finish.threads == {"ecgfounder-write"}


@pytest.mark.parametrize("stage", ["read", "embed", "write", "main"])
def test_the_stage_that_the_others_waited_for_is_named(stage: str) -> None:
    pool: Any = Pool([Plan()] * 60, before_event=lambda _: time.sleep(0.01 if stage == "main" else 0.0))
    if stage == "read":
        pool = ReaderPool(SCRIPTED, 0)

    def finish(group: Sequence[Finished]) -> None:
        time.sleep(0.01 * len(group) if stage == "write" else 0.0)

    pipeline = pipeline_of(pool, Engine(threads=2, seconds=0.1 if stage == "embed" else 0.0), finish)
    pipeline.run((Job(ticket, "nap,small") for ticket in range(5)) if stage == "read" else jobs(60))
    assert pipeline.slowest == stage


def test_the_start_of_the_readers_is_no_time_of_a_stage() -> None:
    class LatePool(Pool):
        def events(self, jobs: Iterator[Job]) -> Iterator[Event]:
            time.sleep(0.5)
            self.waited += 0.5
            yield from super().events(jobs)

    pipeline = pipeline_of(LatePool([Plan()] * 4), Engine(threads=1, seconds=0.05), Finish())
    pipeline.run(jobs(4))
    assert pipeline.seconds < 0.5
    assert pipeline.slowest == "embed"


def test_a_network_that_takes_long_over_few_records_is_the_slowest_stage() -> None:
    class SlowPool(Pool):
        def events(self, jobs: Iterator[Job]) -> Iterator[Event]:
            for event in super().events(jobs):
                time.sleep(0.02)
                self.waited += 0.02
                yield event

    pipeline = pipeline_of(SlowPool([Plan()] * 4), Engine(threads=1, seconds=0.4), Finish())
    pipeline.run(jobs(4))  # nothing waits until the last record was read
    assert pipeline.slowest == "embed"


@pytest.mark.parametrize("fails_at", [0, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_an_engine_that_breaks_ends_the_run_with_its_error(fails_at: int, threads: int) -> None:
    pool = Pool([Plan()] * 1000)
    with pytest.raises(ZeroDivisionError, match="the engine broke"):
        pipeline_of(pool, Engine(threads, fails_at=fails_at), Finish()).run(jobs(1000))
    assert pool.taken < 200


@pytest.mark.parametrize("fails_at", [0, 6])
def test_a_finish_that_breaks_ends_the_run_with_its_error_and_is_not_called_again(fails_at: int) -> None:
    pool, finish = Pool([Plan()] * 1000), Finish(fails_at=fails_at)
    with pytest.raises(OSError, match="No space left"):
        pipeline_of(pool, Engine(), finish).run(jobs(1000))
    done = len(finish.finished)
    assert fails_at <= done < 200
    time.sleep(0.3)
    assert len(finish.finished) == done


def test_a_finish_that_breaks_on_the_last_record_is_not_overlooked() -> None:
    with pytest.raises(OSError, match="No space left"):
        pipeline_of(Pool([Plan()] * 4), Engine(), Finish(fails_at=0)).run(jobs(4))


@pytest.mark.parametrize("fails_before", [None, 2])
def test_a_record_that_cannot_be_computed_fails_once_and_alone(fails_before: int | None) -> None:
    class Choosy(Engine):
        def embed(self, batch: Array) -> Array:
            if (batch[:, 0, 0] // 100 == 1).any():  # any input of ticket 1
                raise EmbeddingError("not computable")
            return super().embed(batch)

    finish = Finish()
    plans = [Plan((5, 5)), Plan((5, 5, 5), fails_before), Plan((5,))]
    # One reading process after the other, so that the engine has said no before the reader gives the record up.
    pipeline_of(Pool(plans, before_event=lambda _event: time.sleep(0.05)), Choosy(), finish, 2).run(jobs(3))
    assert Counter(each.job.place for each in finish.finished) == Counter(range(3))
    assert {each.job.place for each in finish.finished if each.embeddings is None} == {1}


def test_an_engine_with_too_few_rows_is_not_believed() -> None:
    class Careless(Engine):
        def embed(self, batch: Array) -> Array:
            return super().embed(batch)[:-1]

    with pytest.raises(ValueError, match="shorter"):
        pipeline_of(Pool([Plan()] * 8), Careless(), Finish()).run(jobs(8))


def test_readers_that_break_end_the_run_with_their_error() -> None:
    def refuse(_event: Event) -> None:
        raise RunError("Reading processes do not start")

    with pytest.raises(RunError):
        pipeline_of(Pool([Plan()], before_event=refuse), Engine(), Finish()).run(jobs(1))


def test_a_dataset_that_breaks_half_way_ends_the_run_with_its_error() -> None:
    def some() -> Iterator[Job]:
        yield from jobs(10)
        raise OSError("the dataset is gone")

    with pytest.raises(OSError, match="dataset is gone"):
        pipeline_of(Pool([Plan()] * 20), Engine(), Finish()).run(some())


def test_an_interruption_finishes_what_is_in_flight_and_takes_no_more() -> None:
    interruption, finish = Interruption(), Finish()
    pool = Pool([Plan((5, 6))] * 1000, in_hand=3)

    def interrupt(_event: Event) -> None:
        if pool.taken >= 10 and not interruption.requested:
            interruption.request(15)

    pool.before_event = interrupt
    pipeline_of(pool, Engine(seconds=0.01), finish, interruption=interruption).run(jobs(1000))
    assert sorted(each.job.place for each in finish.finished) == list(range(pool.taken))
    assert 10 <= pool.taken <= 13


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interruption_does_not_wait_for_an_engine_beyond_its_grace(threads: int) -> None:
    interruption, stuck = Interruption(), threading.Event()
    pipeline = pipeline_of(
        Pool([Plan()] * 1000), Engine(threads, stuck=stuck), Finish(), interruption=interruption, grace=0.5
    )
    threading.Timer(0.3, interruption.request, [2]).start()
    began = time.monotonic()
    try:
        pipeline.run(jobs(1000))
    finally:
        stuck.set()
    assert time.monotonic() - began < 3


def test_a_group_that_is_being_written_is_waited_for_beyond_the_grace() -> None:
    interruption, finish = Interruption(), Finish(seconds=1.0)
    pipeline = pipeline_of(Pool([Plan()] * 100), Engine(), finish, 1, interruption=interruption, grace=0.2)
    threading.Timer(0.3, interruption.request, [15]).start()
    pipeline.run(jobs(100))
    written = len(finish.finished)
    assert written >= 1
    time.sleep(1.3)
    assert len(finish.finished) == written  # whoever closes the books now has them to himself


@pytest.mark.parametrize(("engine_seconds", "finish_seconds"), [(0.02, 0.0), (0.0, 0.02)])
def test_a_slow_stage_bounds_what_is_in_flight(engine_seconds: float, finish_seconds: float) -> None:
    finish = Finish(seconds=finish_seconds)
    pool = Pool([Plan()] * 150)
    most = 0

    def look(_event: Event) -> None:
        nonlocal most
        most = max(most, pool.taken - len(finish.finished))

    pool.before_event = look
    pipeline_of(pool, Engine(seconds=engine_seconds), finish, batch_size=2).run(jobs(150))
    assert len(finish.finished) == 150
    assert most < 50


def test_an_odd_length_does_not_wait_for_company_that_never_comes() -> None:
    finish = Finish()
    arrived = threading.Event()

    class Noticing(Engine):
        def embed(self, batch: Array) -> Array:
            arrived.set()
            return super().embed(batch)

    class Patient(Pool):
        def events(self, jobs: Iterator[Job]) -> Iterator[Event]:
            yield from self.plans[(job := next(jobs)).place].events(job)
            deadline = time.monotonic() + 20
            while not arrived.is_set() and time.monotonic() < deadline:
                time.sleep(0.05)
                yield Idle()

    pipeline_of(Patient([Plan((7,))]), Noticing(), finish, 64).run(jobs(1))
    assert arrived.is_set()
    assert len(finish.finished) == 1


@dataclass
class Together:
    """Stands in for reading processes whose inputs come together, in memory that is used again: whoever reads it then has NaN."""

    sizes: Sequence[int]
    before: Callable[[int], None] = lambda _number: None
    waited: float = 0.0
    given_back: Counter[int] = field(default_factory=Counter)

    def stop_taking(self) -> None:
        self.sizes = ()

    def events(self, jobs: Iterator[Job]) -> Iterator[Event]:
        for number, size in enumerate(self.sizes):
            self.before(number)
            some = [next(jobs) for _ in range(size)]
            yield from (Opened(job, 1, (1,), seconds={"read": 0.0}) for job in some)
            data = np.stack([np.full((12, 5), job.place, np.float32) for job in some])

            def give_back(number: int = number, data: Array = data) -> None:
                self.given_back[number] += 1
                data[...] = np.nan

            yield Inputs(tuple((job, 0) for job in some), data, give_back)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=25), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_inputs_that_come_together_are_used_before_their_memory_is_given_back(
    sizes: list[int], batch_size: int, threads: int, single_threaded: bool
) -> None:
    pool, finish = Together(sizes), Finish()
    pipeline_of(pool, Engine(threads), finish, batch_size, single_threaded=single_threaded).run(jobs(sum(sizes)))
    assert Counter(each.job.place for each in finish.finished) == Counter(range(sum(sizes)))
    for each in finish.finished:
        assert each.embeddings is not None
        assert float(each.embeddings[0].embedding[0, 0]) == each.job.place
    assert pool.given_back == Counter(range(len(sizes)))


def test_threads_that_compute_alone_share_a_batch() -> None:
    engine = Engine(threads=2)
    pipeline_of(Together([8]), engine, Finish(), batch_size=8, single_threaded=True).run(jobs(8))
    assert [shape[0] for shape in engine.batches] == [4, 4]


def test_threads_that_compute_alone_do_not_wait_for_full_batches() -> None:
    begun = threading.Semaphore(0)

    @dataclass
    class Told(Engine):
        def embed(self, batch: Array) -> Array:
            begun.release()
            return super().embed(batch)

    engine = Told(threads=2, stuck=threading.Event())

    def before(number: int) -> None:
        """The third input comes when both threads have one of the first two; they go on when all have come."""
        if number == 2:
            assert begun.acquire(timeout=20)
            assert begun.acquire(timeout=20)
        if number == 17:
            assert engine.stuck is not None
            engine.stuck.set()

    pipeline_of(Together([1] * 18, before), engine, Finish(), batch_size=8, single_threaded=True).run(jobs(18))
    assert [shape[0] for shape in engine.batches[:3]] == [1, 1, 8]  # what came while both had work went together
    assert sum(shape[0] for shape in engine.batches) == 18


def test_other_engines_get_full_batches() -> None:
    engine = Engine(threads=2)
    pipeline_of(Pool([Plan()] * 20), engine, Finish(), batch_size=8).run(jobs(20))
    assert sorted(shape[0] for shape in engine.batches) == [4, 8, 8]
