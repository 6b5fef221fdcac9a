"""Reading processes are given up for their own time alone, and a start that succeeds forgives those that failed before it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ecgfounder.drivers import growth
from ecgfounder.drivers import processes as module
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.errors import RunError
from ecgfounder.stages.read import Event, Failed, Input, Job
from tests.harness.scripted import SCRIPTED, jobs_of


@pytest.fixture(autouse=True)
def _no_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GROWTH_SECONDS", 1e9)


def reasons(events: Iterator[Event]) -> tuple[dict[int, str], list[int]]:
    """Why jobs failed, by place, and the places of those that gave an input."""
    failed: dict[int, str] = {}
    done: list[int] = []
    for event in events:
        if isinstance(event, Failed):
            failed[event.job.place] = event.reason
        elif isinstance(event, Input):
            done.append(event.job.place)
    return failed, sorted(done)


def work(pool: ReaderPool, jobs: Iterator[Job]) -> tuple[dict[int, str], list[int]]:
    try:
        return reasons(pool.events(jobs))
    finally:
        pool.close()


def ready(pool: ReaderPool) -> None:
    """Wait until all processes are up, so that their starts take no part in what is measured."""
    for worker in pool._workers:
        assert worker.pipe.poll(60)


def test_a_worker_whose_answer_waits_for_a_busy_main_process_is_not_given_up() -> None:
    pool = ReaderPool(SCRIPTED, 2, timeout=0.5)
    ready(pool)

    def busy(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            yield event
            if isinstance(event, Input) and event.job.place == 0:
                time.sleep(1.5)  # the other's answer comes in the meantime, and waits

    try:
        failed, done = reasons(busy(pool.events(jobs_of(["small", "nap,nap,small"]))))
    finally:
        pool.close()
    assert (failed, done) == ({}, [0, 1])


def test_the_time_before_a_worker_was_given_its_job_is_not_its_own() -> None:
    pool = ReaderPool(SCRIPTED, 1, timeout=0.9)
    ready(pool)

    def slow_to_come() -> Iterator[Job]:
        yield Job(0, "small")
        yield Job(1, "small")
        time.sleep(2.0)
        yield Job(2, "nap,nap,nap,nap,nap,small")  # half a second

    assert work(pool, slow_to_come()) == ({}, [0, 1, 2])


def test_time_that_the_caller_takes_over_a_worker_s_own_inputs_is_not_the_worker_s() -> None:
    pool = ReaderPool(SCRIPTED, 1, timeout=0.9)
    ready(pool)

    def busy(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            yield event
            if isinstance(event, Input) and event.number == 0:
                time.sleep(2.0)

    try:
        # Large inputs do not fit the pipe: the second one waits to be sent, and then half a second passes.
        outcome = reasons(busy(pool.events(jobs_of(["big,big,nap,nap,nap,nap,nap,small"]))))
    finally:
        pool.close()
    assert outcome == ({}, [0, 0, 0])


def test_while_nobody_looks_no_worker_s_time_runs_out() -> None:
    pool = ReaderPool(SCRIPTED, 1, timeout=1.2)
    ready(pool)

    def busy(events: Iterator[Event]) -> Iterator[Event]:
        for event in events:
            yield event
            if isinstance(event, Input) and event.number == 0:
                time.sleep(1.5)  # the worker has nothing to show yet when the caller is back, and soon has

    try:
        outcome = reasons(busy(pool.events(jobs_of([f"small,{'nap,' * 18}small"]))))
    finally:
        pool.close()
    assert outcome == ({}, [0, 0])


def test_a_worker_that_takes_longer_than_it_may_is_given_up_with_its_job_alone() -> None:
    pool = ReaderPool(SCRIPTED, 1, timeout=0.5)
    ready(pool)
    failed, done = work(pool, jobs_of(["small", "hang", "small"]))
    assert failed == {1: "reading took longer than 0.5 s"}
    assert done == [0, 2]


class Starts:
    """Processes of a pool that die at their start, or do not, as a script says; later ones live."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
        self.script = list(script)
        self.count = 0
        start = ReaderPool._start

        def scripted(pool: ReaderPool) -> None:
            start(pool)
            self.count += 1
            if self.script and self.script.pop(0) == "x":
                pool._workers[-1].process.kill()

        monkeypatch.setattr(ReaderPool, "_start", scripted)


def test_a_start_that_succeeds_forgives_those_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, "xx.xx.x")
    failed, done = work(ReaderPool(SCRIPTED, 1), jobs_of(["small", "kill", "small", "kill", "small"]))
    assert set(failed) == {1, 3}
    assert done == [0, 2, 4]
    assert starts.count == 8


def test_starts_that_fail_in_a_row_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    starts = Starts(monkeypatch, "x" * 10)
    with pytest.raises(RunError, match="do not start"):
        work(ReaderPool(SCRIPTED, 1), jobs_of(["small"]))
    assert starts.count == module._STARTS_THAT_MAY_FAIL
