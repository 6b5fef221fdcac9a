"""Which records go to which worker: groups cut from the records to do, and what becomes of groups that were not finished.

In: jobs, outcomes, workers that died. Out: `Group`s; the record that kills its worker each time, when it has been found. It knows
neither the engine that carries the groups nor the ledger; its caller closes a group before its records are handed out again.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from ecgfounder.distributed.work import Group, Outcome
from ecgfounder.stages.read import Job

SHARES = 3
"""Towards the end, a group holds this part of what each worker has left to do, so that none is waited for long."""
SMALLEST = 16
"""Records of a group at the end, at least, unless `group_size` is smaller."""

LOSSES_TO_SPLIT = 2
"""Workers that died with a group before it is halved: the first may have died for another reason."""


@dataclass
class Schedule:
    """The records of one attempt.

    Parameters
    ----------
    jobs : iterator of Job
        The records to do.
    total : int
        Their number.
    group_size : int
        Records in a group, at most.
    next_number : callable
        The next group's number.

    Attributes
    ----------
    done, failed : int
        Records that are published.
    """

    jobs: Iterator[Job]
    total: int
    group_size: int
    next_number: Callable[[], int]
    done: int = 0
    failed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    slowest: Counter[str] = field(default_factory=Counter)
    _good: Job | None = None
    _first: tuple[Job, ...] = ()
    _cut: int = 0
    _again: deque[Group] = field(default_factory=deque)
    _given: dict[int, Group] = field(default_factory=dict)
    _ended: bool = False

    @property
    def is_over(self) -> bool:
        """Whether all records have been handed out and come back."""
        return self._ended and not self._again and not self._given

    @property
    def waiting(self) -> int:
        """Records that no worker has."""
        return self.total - self._cut + sum(len(group.jobs) for group in self._again)

    @property
    def open_records(self) -> int:
        """Records that are not published, whether a worker has them or not."""
        return self.waiting + sum(len(group.jobs) for group in self._given.values())

    def given(self, number: int) -> Group:
        """A group that was handed out."""
        return self._given[number]

    def next(self, workers: int, machine: str = "", *, others: bool = False, idle: bool = True) -> Group | None:
        """A group for a worker; None if there is nothing to hand out to it now.

        Parameters
        ----------
        workers : int
            Number of workers among which the rest is divided.
        machine : str
            The worker's machine.
        others : bool
            Whether there are workers on other machines, which take groups with which a worker on this one has died.
        idle : bool
            Whether the worker has no other group. A group with which a worker has died is done alone, so that it is known what
            the next one dies of.
        """
        for at, group in enumerate(self._again):
            elsewhere = others and group.avoid and group.avoid == machine
            if not elsewhere and (idle or not group.losses):
                del self._again[at]
                return self._hand_out(group)
        if self._ended:
            return None
        jobs = tuple(islice(self.jobs, self._size(workers)))
        self._cut += len(jobs)
        self._first = self._first or jobs[:2]
        if not jobs:
            self._ended = True
            return None
        return self._hand_out(Group(0, jobs))

    def _hand_out(self, group: Group) -> Group:
        group = replace(group, number=self.next_number())
        self._given[group.number] = group
        return group

    def _size(self, workers: int) -> int:
        left = max(0, self.total - self._cut)
        share = math.ceil(left / (SHARES * max(1, workers)))
        return min(self.group_size, max(share, min(SMALLEST, self.group_size)))

    def finish(self, outcome: Outcome, machine: str = "") -> None:
        """Count a group that came back from a machine, and keep what it has left for other groups."""
        group = self._given.pop(outcome.number)
        self.count(outcome.done, outcome.failed)
        self.reasons.update(outcome.reasons)
        self.seconds.update(outcome.seconds)
        if outcome.slowest is not None:
            self.slowest[outcome.slowest] += 1
        left = set(outcome.left)
        if self._good is None and outcome.good is not None:
            self._good = next((job for job in group.jobs if job.place == outcome.good), None)
        large = left.intersection(outcome.too_large)
        self._put_back([job for job in group.jobs if job.place in left - large], group.losses, group.avoid)
        self._put_back([job for job in group.jobs if job.place in large], max(1, group.losses), machine)

    def count(self, done: int, failed: int) -> None:
        """Count records that are published."""
        self.done += done
        self.failed += failed

    def put_back(self, number: int) -> None:
        """A group whose worker is gone through no fault of the records: they are done again."""
        group = self._given.pop(number)
        self._put_back(group.jobs, group.losses, group.avoid)

    def lose(self, number: int, machine: str) -> Job | None:
        """A group whose worker died: its records are done again, in halves if it is not the first time.

        Returns a record that was alone each time: it is not handed out again.
        """
        group = self._given.pop(number)
        losses = group.losses + 1
        if losses < LOSSES_TO_SPLIT:
            self._put_back(group.jobs, losses, machine)
            return None
        if len(group.jobs) == 1:
            return group.jobs[0]
        middle = len(group.jobs) // 2
        # Before all others, so that it is soon known which record it is, or that it is none.
        for half in (group.jobs[middle:], group.jobs[:middle]):
            self._again.appendleft(Group(0, half, losses - 1, machine))
        return None

    def control(self, suspect: Job) -> Job | None:
        """A recording to try before a suspect is blamed: one that was done before, else another one, if there is any."""
        return self._good or next((job for job in self._first if job.place != suspect.place), None)

    def _put_back(self, jobs: Sequence[Job], losses: int, machine: str) -> None:
        if jobs:
            self._again.append(Group(0, tuple(jobs), losses, machine))
