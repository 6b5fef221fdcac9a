"""Whether the process that wrote a file is still alive: the file names the process, which touches it while it lives.

In: files of processes on this machine and on others that share the folder. Out: whether a process may be alive, from the name
and from a `Watch` or the file's age. Process ids and host names are not enough: containers may share them.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgfounder.machine import AwakeClock

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0
"""Seconds without a sign of life after which a process counts as dead; a network file system may show one a minute late."""
LONGEST_LOOK_SECONDS = 15.0
"""Maximum number of seconds that count between two checks of a `Watch`: several checks, which may be slow on a network drive."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = "/proc/self/ns/pid"


def own_name() -> dict[str, Any]:
    """The name that this process writes into its files.

    `host` and `pid` are for messages. `boot`, an identifier of the running kernel, distinguishes machines with the same host name
    and recognises a machine with several (containers). `pid_namespace` is the namespace of `pid`.
    """
    host = socket.gethostname()
    try:
        boot = _BOOT_ID.read_text().strip()
    except OSError:  # not Linux, or hidden
        boot = host
    try:
        pid_namespace = os.readlink(_PID_NAMESPACE)
    except OSError:
        pid_namespace = boot
    return {"host": host, "pid": os.getpid(), "boot": boot, "pid_namespace": pid_namespace}


def process_is_alive(name: Mapping[str, Any]) -> bool:
    """Whether the process of this name may be alive; always true for another machine or container, where it is unknown."""
    ours = own_name()
    if any(name.get(key) != ours[key] for key in ("boot", "pid_namespace")):
        return True
    try:
        os.kill(int(name["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # a process of another user
    return not _is_zombie(int(name["pid"]))


def is_this_process(name: Mapping[str, Any]) -> bool:
    """Whether this is the name of the present process."""
    ours = own_name()
    return all(name.get(key) == ours[key] for key in ("boot", "pid_namespace", "pid"))


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and its parent has not collected its exit status."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or gone by now
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]


def is_fresh(status: os.stat_result) -> bool:
    """Whether a file was touched recently by this machine's clock; for a file that has not been watched."""
    return time.time() - status.st_mtime < STALE_SECONDS


class Heartbeat:
    """A thread that touches an open file until it is stopped; stop it before closing the file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="ecgfounder-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; afterwards the descriptor is not used any more and may be reused for another file."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self._descriptor)
            except OSError:
                continue  # a network drive may come back; if not, the run fails when it writes


class Watch:
    """Watches a file repeatedly: it is fresh while it changes, measured by this machine's clock because clocks differ.

    A file that does not exist counts as unchanged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._look()
        self._clock = AwakeClock(LONGEST_LOOK_SECONDS)
        self._since = self._clock.now()

    def is_fresh(self) -> bool:
        """Whether a change of the file was observed within the last `STALE_SECONDS`.

        Time in which this process was suspended does not count, because the watched process may have been suspended with it.
        """
        seen, now = self._look(), self._clock.now()
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since < STALE_SECONDS

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
