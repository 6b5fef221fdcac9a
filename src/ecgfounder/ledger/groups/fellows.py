"""The processes that work on the same run in a store, each on a shard of its own, observed through their leases.

In: the folder of the leases, the shards. Out: which processes have ended, with what they said; and which have died.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ecgfounder.ledger.entry import PartEnd
from ecgfounder.ledger.groups.lease import HELD, Intervals, newest_leases, read_lease
from ecgfounder.ledger.groups.names import Shard
from ecgfounder.ledger.liveness import LONGEST_LOOK_SECONDS, process_is_alive
from ecgfounder.machine import AwakeClock
from ecgfounder.storage import Location


@dataclass(eq=False)
class _Fellow:
    """The newest lease of a process, and when it was first seen."""

    number: int = 0
    since: float = 0.0
    holder: Mapping[str, Any] | None = None


class Fellows:
    """The holders of some shards' leases. A lease's age is judged by this process's clock, from when it was first seen.

    Parameters
    ----------
    folder : Location
        The folder of the leases.
    shards : iterable of (int, int)
        Each must be held, or have been, by a process of this launch.
    """

    def __init__(self, folder: Location, shards: Iterable[Shard], intervals: Intervals) -> None:
        self._folder = folder
        self._intervals = intervals
        self._clock = AwakeClock(max(LONGEST_LOOK_SECONDS, 2 * intervals.look))
        self._left = {shard: _Fellow(since=self._clock.now()) for shard in shards}

    def ended(self) -> Iterator[tuple[Shard, PartEnd | None, Mapping[str, Any]]]:
        """Those that have ended since the last call: what they did, or None for one that died; and the holder's name.

        Raises
        ------
        StorageError
            If the store does not answer.
        """
        numbers = newest_leases(self._folder, self._left.__contains__)
        for shard, fellow in list(self._left.items()):
            number = numbers.get(shard, 0)
            if number > fellow.number:
                holder = read_lease(self._folder, shard, number)
                if holder is None:  # renewed since it was listed
                    continue
                fellow.number, fellow.since, fellow.holder = number, self._clock.now(), holder
            holder = fellow.holder or {}
            if fellow.holder is not None and holder.get("state") != HELD:
                yield shard, _end_of(holder), holder
            elif self._is_dead(fellow):
                yield shard, None, holder
            else:
                continue
            del self._left[shard]

    def _is_dead(self, fellow: _Fellow) -> bool:
        silent = self._clock.now() - fellow.since
        return silent >= self._intervals.stale or (fellow.holder is not None and not process_is_alive(fellow.holder))


def _end_of(holder: Mapping[str, Any]) -> PartEnd | None:
    """What a process said when it gave its lease back; None if it ended without a word."""
    said = holder.get("end")
    if not isinstance(said, dict):
        return None
    return PartEnd(
        outcome=str(said.get("outcome", "")), done=int(said.get("done", 0)), failed=int(said.get("failed", 0))
    )
