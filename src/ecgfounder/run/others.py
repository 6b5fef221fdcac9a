"""The other processes of a launch, observed by the main process through their parts of the ledger.

In: the parts that they write. Out: their counts, and how many of them died.
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


def wait_for_others(parts: dict[int, Location], interruption: Interruption, tell: Callable[[str], None]) -> Others:
    """Wait until each of the other processes has written its last ledger line, or has died without one.

    All processes began their parts at the same time. A process on this machine is checked by its process id. A process on another
    machine is alive as long as the modification time of its part changes.

    Parameters
    ----------
    parts : dict of int to Location
        Each process's part of the ledger, by rank.
    tell : callable
        Called with a message for each process that died.
    """
    others = Others()
    watches = {rank: Watch(part.path) for rank, part in parts.items()}
    while watches and not interruption.older_than(GRACE):
        for rank, watch in list(watches.items()):
            header, _ = part_status(parts[rank])
            lives = watch.is_fresh() and (header is None or process_is_alive(header.name))
            header, end = part_status(parts[rank])  # read after the check: a process that has just ended did not die
            if end is not None:
                others.done += end.done
                others.failed += end.failed
            elif lives:
                continue
            else:
                where = "" if header is None else f" (process {header.pid} on {header.host})"
                tell(f"Process {rank + 1} of {len(parts) + 1}{where} died before it finished")
                others.lost += 1
            del watches[rank]
        if watches:
            time.sleep(LOOK_SECONDS)
    others.ended = not watches and not others.lost
    return others
