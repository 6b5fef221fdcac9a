"""The machine: its cores, its cache folder, a clock of the time that a process was awake, and the treatment of memory.

In: nothing. Out: the number of cores that this process may use; a path; a clock; freed memory that is kept for the next array;
garbage collections that are short.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_TOP_PAD = -1, -3, -2  # of malloc.h
_LARGEST_KEPT = 1 << 30
_GROWTH = 16 << 20


def keep_freed_memory() -> None:
    """Make glibc keep freed memory instead of returning it to the system.

    By default every array of more than 128 kB is allocated as new pages, which the kernel clears one by one. This takes a
    third of the time to prepare a recording, and a tenth of PyTorch's time. The process keeps the largest amount of memory
    that it has used. No effect without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_TOP_PAD, _GROWTH)


@contextmanager
def leaving_old_objects_alone() -> Iterator[None]:
    """Let Python's cyclic garbage collector look at objects alone that are made within the block.

    A collection that looks at all objects of PyTorch and pyarrow takes a tenth of a second, again and again.
    """
    if gc.get_freeze_count():  # the program has done so itself
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def return_freed_memory() -> None:
    """Return to the system what `keep_freed_memory` kept, after work that took unusually much."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)


def own_memory(n_bytes: int) -> mmap.mmap:
    """Anonymous memory that is filled at once, as weights are: the system is asked for all its pages together, where it can be.

    Not for huge pages: in a virtual machine, one that its host has to provide takes a millisecond or two.
    """
    return mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0))


def usable_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that the processes of this job may use: the machine's, or less if a control group has a limit.

    Parameters
    ----------
    root : Path
        The folder of `proc` and `sys`; another one in tests.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                mount, name = root / "sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                mount, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            # A limit of a group above holds too. In a container, the path may be that of the host.
            own = mount / path.lstrip("/")
            for folder in {own, *own.parents, mount}:
                if folder == mount or mount in folder.parents:
                    with suppress(OSError, ValueError):  # "max": no limit
                        limits.append(int((folder / name).read_text()))
    return min(limits)


def cache_folder() -> Path:
    """The folder of cached files: $ECGFOUNDER_CACHE, or `ecgfounder` in $XDG_CACHE_HOME, or ~/.cache/ecgfounder."""
    own = os.environ.get("ECGFOUNDER_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "ecgfounder"


def usable_cores() -> int:
    """Number of cores that this process may run on (a scheduler may allow fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_launched() -> bool:
    """Whether a launcher (accelerate, torchrun) started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "").strip() not in ("", "0", "1")


class AwakeClock:
    """Seconds for which the calling process was awake, for time limits on processes that are suspended together with it.

    A process may be suspended for hours and resumed (SIGSTOP, a scheduler that suspends jobs, a closed laptop), together with the
    processes that it watches. So the time between two calls of `now` counts up to `longest` seconds.

    Parameters
    ----------
    longest : float
        Well above the time between two calls in a process that is awake.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._seconds = 0.0
        self._looked = time.monotonic()

    def now(self) -> float:
        """Seconds since the clock was made."""
        looked = time.monotonic()
        self._seconds += min(looked - self._looked, self._longest)
        self._looked = looked
        return self._seconds


_ANSWER_SECONDS = 1.2
"""How long a server may take to accept a connection."""


def is_reachable(url: str) -> bool:
    """Whether the server of a URL, or the proxy in front of it, accepts a connection soon; names are looked up in that time."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    proxies = {} if proxy_bypass(parts.hostname or "") else getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if proxy is not None:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    answers = threading.Event()

    def connect() -> None:
        with suppress(OSError, ValueError), socket.create_connection((host, port), timeout=_ANSWER_SECONDS):
            answers.set()
        done.set()

    done = threading.Event()
    threading.Thread(
        target=connect, name="ecgfounder-connect", daemon=True
    ).start()  # a look-up has no time limit itself
    done.wait(_ANSWER_SECONDS)
    return answers.is_set()
