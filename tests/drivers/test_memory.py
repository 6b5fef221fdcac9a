"""Large files are read together as far as the memory allows, and nobody waits for ever."""

from __future__ import annotations

import random

import pytest

from ecgfounder.drivers.memory import Memory
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.stages.read import Event, Failed, Idle, Input, Opened
from tests.harness.scripted import SCRIPTED, jobs_of


def asked(memory: Memory[str], **needs: int) -> list[str]:
    for who, need in needs.items():
        memory.ask(who, need)
    return memory.granted()


def test_jobs_that_fit_together_go_on_together() -> None:
    memory = Memory[str](10)
    assert asked(memory, a=4, b=6) == ["a", "b"]
    assert asked(memory, c=1) == []
    assert memory.waits("c")
    assert memory.is_short
    memory.release("a")
    assert memory.granted() == ["c"]
    assert not memory.is_short


def test_a_job_that_needs_more_than_the_limit_goes_on_alone() -> None:
    memory = Memory[str](10)
    assert asked(memory, a=1) == ["a"]
    assert asked(memory, big=99) == []
    assert asked(memory, c=1) == []  # it would fit, and must not keep the first from ever going on
    memory.release("a")
    assert memory.granted() == ["big"]
    assert asked(memory, d=1) == []
    memory.release("big")
    assert memory.granted() == ["c", "d"]


def test_a_need_that_turns_out_smaller_frees_the_rest() -> None:
    memory = Memory[str](10)
    assert asked(memory, a=9, b=5) == ["a"]
    assert asked(memory, a=5) == ["a", "b"]


def test_of_jobs_that_need_more_than_they_said_the_first_goes_on() -> None:
    memory = Memory[str](10)
    assert asked(memory, a=5, b=5) == ["a", "b"]
    assert asked(memory, b=8) == []
    assert asked(memory, a=8) == ["a"]
    memory.release("a")
    assert memory.granted() == ["b"]


def test_one_that_dies_while_it_waits_or_holds_is_forgotten() -> None:
    memory = Memory[str](10)
    assert asked(memory, a=10, b=10, c=10) == ["a"]
    memory.release("b")
    memory.release("a")
    assert memory.granted() == ["c"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_asked_for_everyone_ends(seed: int) -> None:
    drawn = random.Random(seed)
    memory = Memory[int](10)
    left = {who: drawn.randrange(1, 4) for who in range(8)}  # questions of each job
    running: set[int] = set()
    waiting = set(left)
    for who in left:
        memory.ask(who, drawn.randrange(25))
    while left:
        granted = memory.granted()
        running |= set(granted)
        waiting -= set(granted)
        assert running, "all wait"
        who = drawn.choice(sorted(running))
        left[who] -= 1
        running.remove(who)
        if left[who]:
            memory.ask(who, drawn.randrange(25))
            waiting.add(who)
        else:
            memory.release(who)
            del left[who]


def ends(paths: list[str], memory: int, timeout: float = 120.0) -> list[Event]:
    """The events of a pool of three processes, without those that say that nothing happens."""
    pool = ReaderPool(SCRIPTED, 3, memory=memory, timeout=timeout)
    try:
        return [event for event in pool.events(jobs_of(paths)) if not isinstance(event, Idle)]
    finally:
        pool.close()


def most_at_once(paths: list[str], memory: int, folder: str) -> int:
    """How many jobs of scripted processes went on at once after their question, from what they write."""
    ends([f"{path}:{folder}" for path in paths], memory)
    with open(folder) as file:
        marks = [int(line) for line in file]
    now = most = 0
    for mark in marks:
        now += mark
        most = max(most, now)
    assert now == 0
    assert len(marks) == 2 * len(paths)
    return most


@pytest.mark.parametrize(("memory", "most"), [(10, 1), (20, 2), (100, 3)])
def test_reading_processes_wait_until_their_job_fits(
    tmp_path_factory: pytest.TempPathFactory, memory: int, most: int
) -> None:
    folder = str(tmp_path_factory.mktemp("marks") / "marks")
    assert 1 <= most_at_once(["ask10,enter,nap,exit,small"] * 9, memory, folder) <= most


def test_jobs_that_wait_for_memory_are_not_begun_when_no_more_are_taken() -> None:
    pool = ReaderPool(SCRIPTED, 3, memory=10)
    done: list[int] = []
    try:
        for event in pool.events(jobs_of(["ask10,nap,nap,nap,nap,nap,small"] * 6)):
            if isinstance(event, Input):
                done.append(event.job.place)
            pool.stop_taking()
    finally:
        pool.close()
    assert len(done) <= 1


def test_waiting_for_memory_is_not_reading_and_dying_gives_it_back() -> None:
    paths = ["ask9,nap,kill", "ask9,nap,nap,nap,small", "ask9,ask99,nap,nap,small", "small", "ask5,refuse"] * 2
    events = ends(paths, 10, timeout=0.6)
    failed = {event.job.place for event in events if isinstance(event, Failed)}
    assert failed == {0, 4, 5, 9}
    assert {event.job.place for event in events if isinstance(event, Input)} == {1, 2, 3, 6, 7, 8}
    assert sum(isinstance(event, Opened) for event in events) == 6
