"""The other processes of a launch, observed by the main process through their parts of the ledger, or their leases in a store.

In: the parts or leases that they write. Out: their counts, and how many of them died.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ecgfounder.drivers.interruption import Interruption
from ecgfounder.ledger.entry import PartEnd
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.ledger import part_status
from ecgfounder.ledger.liveness import Watch, process_is_alive
from ecgfounder.storage import Location

GRACE = 10.0
"""Seconds that the main process waits, after an interruption, for the others to commit records in progress."""
LOOK_SECONDS = 0.5
"""Seconds between two checks of the others."""


@dataclass
class Others:
    """The state of the other processes of a launch.

    Attributes
    ----------
    ended : bool
        Whether all of them have ended.
    done, failed : int
        Records that the ended processes did.
    lost : int
        Processes that died before they finished.
    """

    ended: bool = True
    done: int = 0
    failed: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Ended:
    """A process that has ended: what it did, or None if it died; its host and process id, if they are known."""

    rank: int
    end: PartEnd | None
    name: Mapping[str, Any]


def by_parts(parts: Mapping[int, Location]) -> Callable[[], Iterator[Ended]]:
    """The processes that have ended since the last call, from the parts of the ledger that they append to, by rank.

    All processes began their parts at the same time. A process on this machine is checked by its process id. A process on another
    machine is alive as long as the modification time of its part changes.
    """
    watches = {rank: Watch(part.path) for rank, part in parts.items()}

    def ended() -> Iterator[Ended]:
        for rank, watch in list(watches.items()):
            header, _ = part_status(parts[rank])
            lives = watch.is_fresh() and (header is None or process_is_alive(header.name))
            header, end = part_status(parts[rank])  # read after the check: a process that has just ended did not die
            if end is None and lives:
                continue
            del watches[rank]
            yield Ended(rank, end, {} if header is None else header.name)

    return ended


def by_leases(hold: StoreHold, world_size: int) -> Callable[[], Iterator[Ended]]:
    """The processes that have ended since the last call, from the leases of their shards; see `shard_of_rank`."""
    ranks = {shard_of_rank(rank, world_size): rank for rank in range(1, world_size)}
    fellows = hold.fellows(ranks)
    return lambda: (Ended(ranks[shard], end, holder) for shard, end, holder in fellows.ended())


def shard_of_rank(rank: int, world_size: int) -> tuple[int, int]:
    """The shard that a process of a launch locks where groups are committed: it has the records of that shard."""
    return rank + 1, world_size


def wait_for_others(
    world_size: int,
    ended: Callable[[], Iterator[Ended]],
    interruption: Interruption,
    tell: Callable[[str], None],
) -> Others:
    """Wait until each of the other processes has ended, or has died before.

    Parameters
    ----------
    ended : callable
        As of `by_parts` and `by_leases`.
    tell : callable
        Called with a message for each process that died.
    """
    others = Others()
    left = world_size - 1
    while left and not interruption.older_than(GRACE):
        for each in ended():
            left -= 1
            if each.end is not None:
                others.done += each.end.done
                others.failed += each.end.failed
            else:
                where = (
                    f" (process {each.name['pid']} on {each.name['host']})" if {"pid", "host"} <= set(each.name) else ""
                )
                tell(f"Process {each.rank + 1} of {world_size}{where} died before it finished")
                others.lost += 1
        if left:
            time.sleep(LOOK_SECONDS)
    others.ended = not left and not others.lost
    return others
