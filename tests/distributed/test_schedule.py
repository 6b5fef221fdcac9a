"""Groups: how large they are, what becomes of those that do not come back, and how the record that kills its worker is found."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from ecgfounder.distributed.schedule import Schedule
from ecgfounder.distributed.work import Facts, Group, Outcome
from ecgfounder.stages.read import Job

FACTS = Facts(host="h", pid=1, engine="null", precision="float32", device="cpu", description="null", batch_size=8)


def schedule_of(total: int, group_size: int = 10) -> Schedule:
    jobs = (Job(place, f"{place}.npy", key=place) for place in range(total))
    return Schedule(jobs, total, group_size, itertools.count(1).__next__)


def outcome_of(group: Group, left: tuple[int, ...] = ()) -> Outcome:
    done = len(group.jobs) - len(left)
    return Outcome(number=group.number, facts=FACTS, published=True, done=done, left=left)


def work_off(schedule: Schedule, do: Callable[[Group], None], workers: int = 1) -> None:
    for _ in range(10_000):
        group = schedule.next(workers)
        if group is None:
            assert schedule.is_over
            return
        do(group)
    raise AssertionError("it does not end")


@pytest.mark.parametrize(("total", "workers"), [(0, 1), (1, 3), (7, 2), (1000, 4), (995, 7)])
def test_every_record_is_in_one_group_and_the_last_groups_are_small(total: int, workers: int) -> None:
    schedule = schedule_of(total, 100)
    groups: list[Group] = []

    def do(group: Group) -> None:
        groups.append(group)
        schedule.finish(outcome_of(group))

    work_off(schedule, do, workers)
    assert [job.place for group in groups for job in group.jobs] == list(range(total))
    assert (schedule.done, schedule.open_records) == (total, 0)
    sizes = [len(group.jobs) for group in groups]
    assert sizes == sorted(sizes, reverse=True)
    if total == 1000:
        assert (sizes[0], sizes[-2]) == (84, 16)


def test_what_a_group_has_left_goes_into_another_one() -> None:
    schedule = schedule_of(10)
    first = schedule.next(1)
    assert first is not None
    schedule.finish(outcome_of(first, left=(3, 4)))
    again = schedule.next(1)
    assert again is not None
    assert [job.place for job in again.jobs] == [3, 4]
    assert (again.number, schedule.done, schedule.open_records) == (2, 8, 2)


def test_groups_of_a_machine_that_is_gone_are_done_again_whole_however_often() -> None:
    schedule = schedule_of(10)
    for number in range(1, 9):
        group = schedule.next(1)
        assert group is not None
        assert (len(group.jobs), group.number) == (10, number)
        schedule.put_back(number)


@pytest.mark.parametrize("bad", [0, 41, 99])
def test_the_record_that_kills_its_worker_is_found_by_halves(bad: int) -> None:
    schedule, deaths, found = schedule_of(100, 100), 0, []

    def do(group: Group) -> None:
        nonlocal deaths
        if any(job.place == bad for job in group.jobs):
            deaths += 1
            found.append(schedule.lose(group.number, "m"))
        else:
            schedule.finish(outcome_of(group))

    work_off(schedule, do)
    assert [job.place for job in found if job is not None] == [bad]
    assert schedule.done == 99
    assert deaths <= 10


def test_a_worker_that_died_once_blames_nothing() -> None:
    schedule = schedule_of(8)
    group = schedule.next(1)
    assert group is not None
    assert schedule.lose(group.number, "m") is None
    again = schedule.next(1)
    assert again is not None
    assert again.jobs == group.jobs


def test_it_is_tried_on_another_machine_where_there_is_one() -> None:
    schedule = schedule_of(8)
    group = schedule.next(1)
    assert group is not None
    schedule.lose(group.number, "m")
    assert schedule.next(2, "m", others=True) is None
    assert schedule.next(2, "n", others=True) is not None


def test_recordings_too_large_for_a_machine_are_done_once_more_and_elsewhere() -> None:
    schedule = schedule_of(10)
    first = schedule.next(2, "m")
    assert first is not None
    schedule.finish(replace(outcome_of(first, left=(2, 5, 6)), too_large=(2, 6)), "m")
    assert (schedule.done, schedule.open_records) == (7, 3)
    here = schedule.next(2, "m", others=True)
    there = schedule.next(2, "n", others=True)
    assert here is not None
    assert there is not None
    assert [job.place for job in here.jobs] == [5]
    assert [job.place for job in there.jobs] == [2, 6]
    assert (here.losses, there.losses, there.is_alone) == (0, 1, True)


def test_after_a_death_a_group_is_done_alone() -> None:
    schedule = schedule_of(20)
    group = schedule.next(1)
    assert group is not None
    assert not group.is_alone
    schedule.lose(group.number, "m")
    other = schedule.next(1, idle=False)
    assert other is not None
    assert not set(other.jobs).intersection(group.jobs)
    again = schedule.next(1, idle=True)
    assert again is not None
    assert (again.jobs, again.is_alone) == (group.jobs, True)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_record_is_done_once_or_blamed(seed: int) -> None:
    chance = random.Random(seed)
    schedule, seen = schedule_of(300, 40), []
    bad = set(chance.sample(range(300), 3))

    def do(group: Group) -> None:
        places = [job.place for job in group.jobs]
        if bad.intersection(places):
            suspect = schedule.lose(group.number, "m")
            seen.extend([] if suspect is None else [suspect.place])
        elif chance.random() < 0.1:
            schedule.put_back(group.number)
        else:
            left = tuple(chance.sample(places, chance.randint(0, len(places) // 2)))
            seen.extend(place for place in places if place not in left)
            schedule.finish(outcome_of(group, left))

    work_off(schedule, do, chance.randint(1, 5))
    assert sorted(seen) == list(range(300))
