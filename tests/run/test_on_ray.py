"""What the driver of a run on Ray does with its workers, without Ray: a stand-in has its machines, and no processes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ecgfounder.distributed.schedule import Schedule
from ecgfounder.drivers import ray as driver
from ecgfounder.drivers.actors import ActorSettings
from ecgfounder.drivers.ray import Actor, Fleet, Needs
from ecgfounder.run.on_ray import _Loop
from ecgfounder.stages.read import Job


class Ray:
    """The part of the package ray that a fleet uses; `answering` is cleared for a head that does not answer."""

    def __init__(self) -> None:
        self.machines = ["m", "n"]
        self.leaving: dict[str, int] = {}
        self.killed: list[Any] = []
        self.answering = threading.Event()
        self.answering.set()
        state = SimpleNamespace(get_draining_nodes=lambda: dict(self.leaving))
        self._private = SimpleNamespace(state=SimpleNamespace(state=state))
        self.exceptions = SimpleNamespace(RayError=RuntimeError, ActorUnschedulableError=KeyError)

    def nodes(self) -> list[dict[str, Any]]:
        self.answering.wait()
        names = {"NodeManagerHostname": "host", "Resources": {"CPU": 1.0}, "Alive": True}
        return [names | {"NodeID": name} for name in self.machines]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 0.0}

    def remote(self, kind: type) -> type:
        return kind

    def kill(self, handle: Any) -> None:
        self.killed.append(handle)


class Handle:
    """A worker's handle, which counts how often the worker was told to stop, and what it was given."""

    def __init__(self) -> None:
        self.stopped = 0
        self.given: list[Any] = []
        self.stop = SimpleNamespace(remote=self._stop)
        self.do = SimpleNamespace(remote=self._do)

    def _stop(self) -> None:
        self.stopped += 1

    def _do(self, group: Any) -> object:
        self.given.append(group)
        return object()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    monkeypatch.setattr(driver, "LOOK_SECONDS", 0.01)
    made = Ray()
    yield made
    made.answering.set()


@pytest.fixture
def told() -> list[str]:
    return []


Add = Callable[..., Actor]


@pytest.fixture
def fleet(ray: Ray, told: list[str]) -> Iterator[Fleet]:
    made = Fleet(ray, ActorSettings("local"), print, list, told.append, needs=Needs(1, 0))
    yield made
    ray.answering.set()
    made.close()


@pytest.fixture
def add(fleet: Fleet) -> Add:
    def add(machine: str, facts: Any = "open", age: float = 0.0) -> Actor:
        fleet.actors.append(Actor(Handle(), machine, f"host-{machine}", 1.0, time.monotonic() - age, facts=facts))
        return fleet.actors[-1]

    return add


def wait_until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def loop_of(fleet: Fleet, total: int) -> tuple[_Loop, Schedule]:
    jobs = (Job(place, f"{place}.npy", key=place) for place in range(total))
    schedule = Schedule(jobs, total, 8, itertools.count(1).__next__)
    return _Loop(None, fleet, schedule, None), schedule  # type: ignore[arg-type]


def test_workers_without_a_group_are_ended_while_others_do_the_last_ones(fleet: Fleet, add: Add, ray: Ray) -> None:
    busy, idle = add("m"), add("n")
    loop, schedule = loop_of(fleet, 8)
    loop.hand_out()
    assert len(busy.groups) == 1
    assert schedule.waiting == 0
    assert fleet.actors == [busy]
    assert ray.killed == [idle.handle]


def test_a_group_whose_worker_died_waits_for_another_machine_that_is_about_to_open_but_not_for_ever(
    fleet: Fleet, add: Add
) -> None:
    first = add("m")
    loop, schedule = loop_of(fleet, 8)
    loop.hand_out()
    (reference, group), *_ = first.groups.items()
    del first.groups[reference]
    schedule.lose(group.number, "m")
    second = add("n", facts=None, age=driver.OPENING_SECONDS / 2)
    loop.hand_out()
    assert not first.groups
    second.since -= driver.OPENING_SECONDS
    loop.hand_out()
    assert [each.jobs for each in first.groups.values()] == [group.jobs]


def test_workers_on_a_machine_that_will_be_taken_away_finish_and_get_no_more(
    fleet: Fleet, add: Add, ray: Ray, told: list[str]
) -> None:
    going, staying = add("m"), add("n")
    going.groups["reference"] = "group"
    fleet.tend(2)
    assert told == []
    ray.leaving = {"m": round((time.time() + 30) * 1000)}
    fleet._head.look()
    for _ in range(3):
        fleet.tend(2)
    assert (going.handle.stopped, staying.handle.stopped) == (1, 0)
    (line,) = told
    assert line.startswith("host-m will be taken away in ")
    assert "(pre-emption)" in line
    assert (going.has_room, fleet.open_actors, fleet.machines) == (False, [staying], {"n"})
    assert fleet.actors == [going, staying]  # it has a group
    going.groups.clear()
    fleet.tend(2)
    assert fleet.actors == [staying]  # and none was started in its place there


def test_a_head_that_does_not_answer_is_lost_after_some_time_and_holds_up_nothing(
    fleet: Fleet, add: Add, ray: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(driver, "ANSWER_SECONDS", 0.1)
    add("m")
    add("n")
    fleet.tend(2)
    assert fleet.lost is None
    ray.answering.clear()
    wait_until(lambda: fleet.lost is not None)
    assert fleet.lost is not None
    assert fleet.lost.startswith("the head of the Ray cluster has not answered for ")
    began = time.monotonic()
    for _ in range(100):  # as when as many workers are lost with it
        fleet._head.look()
    assert time.monotonic() - began < 5
    ray.answering.set()
    wait_until(lambda: fleet.lost is None)
