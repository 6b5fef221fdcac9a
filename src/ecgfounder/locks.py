"""One run at a time on an output folder: a lock that names its holder and dies with it.

In: the run's `_run` folder and its shard. Out: a held `RunLock`, or a `RunError` that says which host and process has it.
On one machine the kernel's file lock decides, so a dead process never holds; across machines, a heartbeat does.
"""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from ecgfounder.errors import RunError

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0


class RunLock:
    """Holds `<folder>/shard-I-of-N.lock` and shares `<folder>/run.lock` with the other shards of the same N.

    A run of the whole cohort is shard 1 of 1 and takes `run.lock` for itself.

    Raises
    ------
    RunError
        If another live process has the folder, with its host, process id and start.
    """

    def __init__(self, folder: Path, shard: tuple[int, int] = (1, 1)) -> None:
        self._folder = folder
        self._files: list[int] = []
        self._stop = threading.Event()
        folder.mkdir(parents=True, exist_ok=True)
        part, parts = shard
        try:
            self._take("run.lock", fcntl.LOCK_EX if parts == 1 else fcntl.LOCK_SH, shard)
            if parts > 1:
                self._take(f"shard-{part}-of-{parts}.lock", fcntl.LOCK_EX, shard)
                self._refuse_other_division(parts)
        except BaseException:
            self.release()
            raise
        self._beat = threading.Thread(target=self._heartbeat, name="ecgfounder-heartbeat", daemon=True)
        self._beat.start()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give the folder back; the next holder finds no name in the lock."""
        self._stop.set()
        for descriptor in self._files:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
        self._files = []

    def _take(self, name: str, kind: int, shard: tuple[int, int]) -> None:
        path = self._folder / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise RunError(_refusal(self._folder, holder)) from None
        except OSError:
            # A file system without locks: the holder's name and heartbeat decide alone.
            holder = _holder(descriptor)
            if holder and _alive(holder, descriptor):
                os.close(descriptor)
                raise RunError(_refusal(self._folder, holder)) from None
        else:
            holder = _holder(descriptor)
            if kind == fcntl.LOCK_EX and holder and holder["host"] != socket.gethostname() and _beats(descriptor):
                os.close(descriptor)  # another machine whose locks do not reach here
                raise RunError(_refusal(self._folder, holder))
        self._files.append(descriptor)
        name_of_holder = orjson.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": time.strftime("%Y-%m-%d %H:%M:%S"),
                "shard": list(shard),
            }
        )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, name_of_holder, 0)

    def _refuse_other_division(self, parts: int) -> None:
        """Shards of 16 and shards of 8 overlap: two divisions cannot run at the same time."""
        for path in self._folder.glob("shard-*-of-*.lock"):
            if path.name.endswith(f"-of-{parts}.lock"):
                continue
            descriptor = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(_refusal(self._folder, _holder(descriptor))) from None
            finally:
                os.close(descriptor)

    def _heartbeat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            for descriptor in list(self._files):
                try:
                    os.utime(descriptor)
                except OSError:
                    return  # the folder is gone; the run itself finds out when it writes


def _holder(descriptor: int) -> dict[str, Any] | None:
    try:
        holder = orjson.loads(os.pread(descriptor, 4096, 0))
    except orjson.JSONDecodeError:
        return None
    return holder if isinstance(holder, dict) and {"host", "pid"} <= set(holder) else None


def _beats(descriptor: int) -> bool:
    return time.time() - os.fstat(descriptor).st_mtime < STALE_SECONDS


def _alive(holder: dict[str, Any], descriptor: int) -> bool:
    return process_is_alive(holder) and _beats(descriptor)


def process_is_alive(holder: Mapping[str, Any]) -> bool:
    """Whether the process that `host` and `pid` name may still run; on another machine that cannot be known."""
    if holder["host"] != socket.gethostname():
        return True
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True


def _refusal(folder: Path, holder: dict[str, Any] | None) -> str:
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on {holder['host']}, started {holder.get('started', 'at an unknown time')}"
    return f"{folder.parent.parent} is in use by {who}. Wait for it, stop it, or choose another --output_dir."
