"""The machine: its cores, time that a process was awake, and what the C allocator does with memory that is freed.

In: nothing. Out: how many cores there are for this process; a clock; freed memory that is kept for the next array.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_TOP_PAD = -1, -3, -2  # of malloc.h
_LARGEST_KEPT = 1 << 30
_GROWTH = 16 << 20


def keep_freed_memory() -> None:
    """Tell glibc to keep what is freed rather than give it back to the system.

    Every array of more than 128 kB is otherwise made of fresh pages, which the kernel clears one by one: a third of the
    time that preparing a recording takes, and a tenth of PyTorch's. Without effect where there is no glibc.
    The process keeps the largest amount of memory that it has used.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_TOP_PAD, _GROWTH)


def usable_cores() -> int:
    """Cores that this process may run on (a scheduler may allow fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_launched() -> bool:
    """Whether a launcher (accelerate, torchrun) says that it started this process among several."""
    return os.environ.get("WORLD_SIZE", "").strip() not in ("", "0", "1")


class AwakeClock:
    """Seconds for which whoever looks at it was awake, for patience with others that sleep when it does.

    A process may stand still for hours and go on (SIGSTOP, a scheduler that suspends jobs, a closed laptop), and the processes
    that it watches with it. So the time between two looks counts up to `longest` seconds.

    Parameters
    ----------
    longest : float
        Well above the time between two looks of a process that is awake.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._seconds = 0.0
        self._looked = time.monotonic()

    def now(self) -> float:
        """Look at it: seconds since it was made."""
        looked = time.monotonic()
        self._seconds += min(looked - self._looked, self._longest)
        self._looked = looked
        return self._seconds
