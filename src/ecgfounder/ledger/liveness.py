"""Whether the process that left a file behind still lives: it names itself there, and touches the file as long as it does.

In: files of processes, of this machine and of others that share the folder. Out: `may_live`, from the name and from a `Watch`
or the file's age. Neither a process id nor a host name says enough: containers share the one and machines the other.
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
"""What counts between two looks of a `Watch`, at most: some looks long, as those at a network drive may take."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = "/proc/self/ns/pid"


def own_name() -> dict[str, Any]:
    """This process as it names itself in its files.

    `host` and `pid` are for people. `boot`, an identifier of the running kernel, tells machines apart that have one host name
    and recognises one that has several (containers); `pid_namespace` says among which processes `pid` is one.
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
    """Whether the process that so named itself may still run; on another machine or in another container nobody can know."""
    ours = own_name()
    if any(name.get(key) != ours[key] for key in ("boot", "pid_namespace")):
        return True
    try:
        os.kill(int(name["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return not _is_zombie(int(name["pid"]))


def is_this_process(name: Mapping[str, Any]) -> bool:
    """Whether it was this process that so named itself."""
    ours = own_name()
    return all(name.get(key) == ours[key] for key in ("boot", "pid_namespace", "pid"))


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only its parent has not asked yet how."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux, or gone by now
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]


def is_fresh(status: os.stat_result) -> bool:
    """Whether a file was touched lately by this machine's clock; for a file that has not been watched."""
    return time.time() - status.st_mtime < STALE_SECONDS


class Heartbeat:
    """A thread that touches an open file until it is stopped; to be stopped before the file is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="ecgfounder-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; when this returns, the descriptor is not touched any more and may stand for another file."""
        self._stopped.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._stopped.wait(HEARTBEAT_SECONDS):
            try:
                os.utime(self._descriptor)
            except OSError:
                continue  # a network drive may come back; if not, the run itself finds out when it writes


class Watch:
    """Looks at a file again and again: it is fresh while it changes, by our own clock, since those of machines differ.

    A file that is not there is one that does not change.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = self._look()
        self._clock = AwakeClock(LONGEST_LOOK_SECONDS)
        self._since = self._clock.now()

    def is_fresh(self) -> bool:
        """Whether the file has changed within `STALE_SECONDS`, as far as the looks at it can tell.

        Time in which this process stood still does not count: those that it watches may have stood still with it.
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
