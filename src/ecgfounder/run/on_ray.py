"""A run on a Ray cluster: its groups are done by actors.

In: `Settings` with driver "ray". Out: as `ecgfounder.run.run.Run`.
"""

from __future__ import annotations

import math
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from ecgfounder.distributed.schedule import SMALLEST, Schedule
from ecgfounder.distributed.work import Group, Work
from ecgfounder.distributed.worker import open_worker
from ecgfounder.drivers.ray import Actor, Died, Done, Event, Fleet, Needs, Refused, connected, needs_of
from ecgfounder.errors import RunError
from ecgfounder.escaping import counted
from ecgfounder.run.grouped import EngineElsewhere, GroupedRun, Returned
from ecgfounder.run.run import Opening
from ecgfounder.stages.read import Job

LOOK_SECONDS = 0.25
GRACE = 12.0
"""Seconds after an interruption until workers are ended that have not come back."""
PAUSE_SECONDS = 10.0
"""Time for which a worker gets no group after trouble."""
STARTS_THAT_MAY_FAIL = 3
"""Workers in a row that may die while they start."""


class RayRun(GroupedRun):
    """One attempt of a run whose workers are actors of Ray."""

    opener = staticmethod(open_worker)
    _fleet: Fleet
    _failed_starts = 0

    def _open_workers(self, opening: Opening, n_todo: int, stack: ExitStack) -> EngineElsewhere:
        settings = self.settings
        ray = stack.enter_context(connected(settings.actors.address))
        needs = needs_of(ray, settings.actors, on_cpu=settings.device == "cpu")
        self._fleet = Fleet(
            ray,
            settings.actors,
            partial(self.opener, self._work_for(needs)),
            self._pieces,
            self.console.line,
            needs=needs,
        )
        stack.callback(self._fleet.close)
        while not self._fleet.open_actors:
            self._fleet.tend(_wanted(n_todo))
            if self._fleet.lost is not None:
                raise RunError(f"No worker has started: {self._fleet.lost}")
            for event in self._fleet.events(LOOK_SECONDS):
                if isinstance(event, Refused) and not self._fleet.actors:
                    raise RunError(event.reason)
                self._note(event)
        return EngineElsewhere.of(self._fleet.open_actors[0].facts)

    def _work_for(self, needs: Needs) -> Work:
        """The work with each worker's cores; without a GPU of its own, a worker does not look for one."""
        network = self.work.network if needs.gpus else replace(self.work.network, device="cpu")
        return replace(self.work, network=network, cores=max(1, int(needs.cpus)))

    def _note(self, event: Event) -> None:
        """Say what became of workers.

        Raises
        ------
        RunError
            If workers die each time they start.
        """
        if isinstance(event, Refused):
            self.console.line(f"A machine takes no part: {event.reason}")
        elif not isinstance(event, Died):
            self._failed_starts = 0
        elif event.was_open:
            self.console.line(_obituary(event))
        elif not event.with_machine:
            self._failed_starts += 1
            if self._failed_starts >= STARTS_THAT_MAY_FAIL:
                raise RunError(f"Workers do not start on {event.actor.host}: {event.reason}")

    def _carry(self, schedule: Schedule, returned: Returned) -> None:
        """Hand out groups as workers have room for them."""
        if schedule.total == 0:
            return
        loop = _Loop(self, self._fleet, schedule, returned)
        try:
            while not loop.is_over and not self._is_cut_short:
                self._fleet.tend(_wanted(schedule.open_records))
                if self._fleet.lost is not None:
                    self.end(self._fleet.lost)
                    break
                loop.hand_out()
                for event in self._fleet.events(LOOK_SECONDS):
                    self._note(event)
                    loop.take(event)
                returned.tick(len(self._fleet.open_actors))
            self._fleet.stop()
            deadline = time.monotonic() + GRACE
            while loop.is_waiting and time.monotonic() < deadline:
                for event in self._fleet.events(LOOK_SECONDS):
                    loop.take(event)
                self.check()
        except BaseException:
            self._fleet.close()
            raise


class _Loop:
    """The driver's loop: groups go to workers with room, and what comes back goes to `Returned`."""

    def __init__(self, run: RayRun, fleet: Fleet, schedule: Schedule, returned: Returned) -> None:
        self._run = run
        self._fleet = fleet
        self._schedule = schedule
        self._returned = returned
        self._suspects: deque[Job] = deque()
        self._tester: Actor | None = None  # which does a recording that was done before

    @property
    def is_over(self) -> bool:
        return self._schedule.is_over and not self._suspects

    @property
    def is_waiting(self) -> bool:
        """Whether workers have groups."""
        return any(actor.groups for actor in self._fleet.actors)

    def hand_out(self) -> None:
        """Give groups to workers with room; end workers that are not needed any more."""
        actors = self._fleet.open_actors
        machines = self._fleet.machines
        # One group for each before the next one, so that the last groups go to different workers.
        for depth in range(2):
            for actor in actors:
                alone = any(group.is_alone for group in actor.groups.values())
                if alone or not actor.has_room or len(actor.groups) > depth:
                    continue
                if self._suspects and self._tester is None:
                    if not actor.groups:
                        self._test(actor)
                    continue
                group = self._schedule.next(len(actors), actor.machine, others=len(machines) > 1, idle=not actor.groups)
                if group is not None:
                    self._fleet.give(actor, group)
        if not self._schedule.waiting and not self._suspects:
            for actor in actors:
                if not actor.groups and self.is_waiting:
                    self._fleet.release(actor)

    def _test(self, actor: Actor) -> None:
        """Let a worker do another recording before the first suspect is blamed: without any other, a synthetic one."""
        control = self._schedule.control(self._suspects[0])
        self._tester = actor
        self._fleet.give(actor, Group(0, () if control is None else (control,)))

    def take(self, event: Event) -> None:
        """Do what an event asks for."""
        if isinstance(event, Done) and event.group.is_trial:
            self._tester = None
            self._returned.blame(self._suspects.popleft())
        elif isinstance(event, Done):
            if self._returned.take(event.result, event.actor.machine):
                event.actor.paused_until = time.monotonic() + PAUSE_SECONDS
        elif isinstance(event, Died):
            self._lose(event)

    def _lose(self, event: Died) -> None:
        if event.actor is self._tester:
            self._tester = None
        for group in event.groups:
            if group.is_trial:
                if not event.with_machine:
                    self._run.end(
                        f"a worker on {event.actor.host} cannot work: it died with two different recordings, each alone "
                        f"({event.reason})"
                    )
            elif event.with_machine:
                self._returned.close(group.number)
            else:
                suspect = self._returned.lose(group.number, event.actor.machine)
                if suspect is not None:
                    self._suspects.append(suspect)


def _obituary(event: Died) -> str:
    """What is said of a worker that has died."""
    if event.preempted:
        what = f"{event.actor.host} was taken away (pre-emption)"
    elif event.with_machine:
        what = f"{event.actor.host} is lost"
    else:
        what = f"a worker on {event.actor.host} died"
    again = sum(len(group.jobs) for group in event.groups if not group.is_trial)
    rest = f"; {counted(again, 'recording')} that it had are done again, unless they are published" if again else ""
    return f"{what}: {event.reason}{rest}"


def _wanted(records: int) -> int:
    """Number of workers for which there is work."""
    return max(1, math.ceil(records / SMALLEST))
