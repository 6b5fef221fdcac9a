"""The other processes of a launch, as the main one sees them: through their parts of the ledger.

In: the parts that they write. Out: what they came to, and which of them died.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ecgfounder.drivers.interruption import Interruption
from ecgfounder.ledger.ledger import part_status
from ecgfounder.ledger.liveness import Watch, process_is_alive
from ecgfounder.storage import Location

GRACE = 10.0
"""Seconds that the main process waits, after an interruption, for the others to commit what they have in flight."""
LOOK_SECONDS = 0.5
"""Seconds between two looks at what the others do."""


@dataclass
class Others:
    """What the main process knows of those that were launched with it.

    Attributes
    ----------
    ended : bool
        Whether all have come to their end; done, failed : what those that have did.
    lost : int
        Those that died before.
    """

    ended: bool = True
    done: int = 0
    failed: int = 0
    lost: int = 0


def wait_for_others(parts: dict[int, Location], interruption: Interruption, tell: Callable[[str], None]) -> Others:
    """Wait until each of the other processes has written its last line in the ledger, or died without.

    All began their parts when this one did. One on this machine is looked for by its process id; one elsewhere lives as long
    as its part changes, if only in its time.

    Parameters
    ----------
    parts : dict of int to Location
        Each one's part of the ledger, by rank.
    tell : callable
        Is told of those that died.
    """
    others = Others()
    watches = {rank: Watch(part.path) for rank, part in parts.items()}
    while watches and not interruption.older_than(GRACE):
        for rank, watch in list(watches.items()):
            header, _ = part_status(parts[rank])
            lives = watch.is_fresh() and (header is None or process_is_alive(header.name))
            header, end = part_status(parts[rank])  # after that: one that has just ended is not one that died
            if end is not None:
                others.done += end.done
                others.failed += end.failed
            elif lives:
                continue
            else:
                where = "" if header is None else f" (process {header.pid} on {header.host})"
                tell(f"Process {rank + 1} of {len(parts) + 1}{where} died before its end")
                others.lost += 1
            del watches[rank]
        if watches:
            time.sleep(LOOK_SECONDS)
    others.ended = not watches and not others.lost
    return others
