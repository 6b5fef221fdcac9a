"""The ledger of a process whose store cannot append: entries are gathered, and published as one part for a group of records.

In: entries and commitments, as for `LedgerWriter`. Out: parts that are created once and never change.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import orjson

from ecgfounder.ledger.entry import Commitment, Line, PartEnd, PartHeader, line_of
from ecgfounder.ledger.groups.epochs import Epoch
from ecgfounder.ledger.groups.names import part_of_group
from ecgfounder.ledger.groups.publish import Lost, publish
from ecgfounder.storage import Location

GROUP, DRIVER = "group", "driver"
"""Kinds of parts: of a group of records, and of what the driver decides itself."""


@dataclass(frozen=True)
class Bounds:
    """What a group holds at most: records, and seconds since its first record; with `shards`, it ends with each shard."""

    records: int = 500
    seconds: float = 30.0
    shards: bool = True


USUAL = Bounds()
GIVEN = Bounds(sys.maxsize, math.inf, shards=False)
"""For a group whose records are given: it is published at its end alone."""


def part_content(header: PartHeader, lines: Sequence[Line], end: PartEnd) -> bytes:
    """A whole part; `header.attempt` tells it from another attempt's."""
    frame = [orjson.dumps({"part": asdict(header)}), *map(line_of, lines), orjson.dumps({"end": asdict(end)})]
    return b"".join(line + b"\n" for line in frame)


def publish_part(ledger: Location, epoch: Epoch, kind: str, number: int, content: bytes) -> bool:
    """Publish a group's part; False if another attempt at the group published its own first.

    Raises
    ------
    Undecided
        If it is not known whether it was published.
    """
    return publish(ledger / part_of_group(epoch.stamp, epoch.shard, epoch.number, kind, number), content)


def close_group(ledger: Location, epoch: Epoch, number: int, header: PartHeader) -> bool:
    """Publish a group's part as `split`, without records, so that the group can be cut anew; False if the group is done.

    Until this returns, an attempt at the group may still publish its part; afterwards none can.
    """
    content = part_content(header, (), PartEnd(outcome="split"))
    return publish_part(ledger, epoch, GROUP, number, content)


class GroupWriter:
    """One process's ledger in an epoch. A group ends with a shard, or when it is full or old enough.

    Parameters
    ----------
    ledger : Location
        Folder of the parts.
    header : PartHeader
        The process.
    check : callable
        Called before each publication; raises if this process must not write any more.
    numbers : iterator of int
        The numbers of the epoch's next parts of this kind.
    kind : str
        `GROUP` or `DRIVER`.
    """

    def __init__(
        self,
        ledger: Location,
        epoch: Epoch,
        header: PartHeader,
        check: Callable[[], None],
        numbers: Iterator[int],
        *,
        kind: str = GROUP,
        bounds: Bounds = USUAL,
    ) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._header = replace(header, attempt=uuid.uuid4().hex)
        self._check = check
        self._kind = kind
        self._bounds = bounds
        self._lock = threading.Lock()
        self._lines: list[Line] = []
        self._since = 0.0
        self._numbers = numbers

    def append(self, lines: Sequence[Line]) -> None:
        """Add entries and commitments; publishes them if the group is at its end.

        Raises
        ------
        StorageError
            If a part cannot be published. `Undecided` and `Superseded`: nothing more may be written. `Lost`: another attempt at
            the group has published its part.
        """
        with self._lock:
            if lines and not self._lines:
                self._since = time.monotonic()
            self._lines += lines
            if self._is_due(lines):
                self._publish("")

    def end(self, end: PartEnd) -> None:
        """Publish the rest."""
        with self._lock:
            if self._lines:
                self._publish(end.outcome)

    def abandon(self) -> None:
        """Forget what has not been published; its records are done again by the next attempt."""
        with self._lock:
            self._lines = []

    def _is_due(self, added: Sequence[Line]) -> bool:
        if not self._lines:
            return False
        return (
            (self._bounds.shards and any(isinstance(line, Commitment) for line in added))
            or len(self._lines) >= self._bounds.records
            or time.monotonic() - self._since >= self._bounds.seconds
        )

    def _publish(self, outcome: str) -> None:
        self._check()
        statuses = [getattr(line, "status", None) for line in self._lines]
        end = PartEnd(outcome=outcome, done=statuses.count("done"), failed=statuses.count("failed"))
        content = part_content(self._header, self._lines, end)
        number = next(self._numbers)
        if not publish_part(self._ledger, self._epoch, self._kind, number, content):
            raise Lost(f"{self._ledger}: another process published the records of group {number}")
        self._lines = []
