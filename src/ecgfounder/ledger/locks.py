"""One run at a time on an output folder: a lock that names its holder and is released when the holder dies.

In: the run's `_run` folder and its shard. Out: a held `RunLock`, or a `RunError` that names the host and process of the holder.
On one machine the kernel's file lock decides, so a dead process never holds it; across machines, a heartbeat decides.
"""

from __future__ import annotations

import fcntl
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from ecgfounder.errors import RunError
from ecgfounder.ledger.liveness import Heartbeat, is_fresh, own_name, process_is_alive

_WHOLE = "run.lock"

_NAMING_SECONDS = 1.0
"""Maximum time from taking a lock to writing the name into it (s)."""
_LOOK_SECONDS = 0.01


class RunLock:
    """A lock of a folder: `run.lock` for a run of the whole cohort, `shard-I-of-N.lock` for one shard of N.

    Shards of the same N may run at the same time.

    Raises
    ------
    RunError
        If another live process holds the folder; the message has its host, process id and start time.
    """

    def __init__(self, folder: Path, shard: tuple[int, int] = (1, 1)) -> None:
        self._folder = folder
        self._file: int | None = None
        self._heartbeat: Heartbeat | None = None
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if shard[1] == 1:
                self._take(_WHOLE, shard)
                self._refuse_beside("shard-*-of-*.lock")
            else:
                # Lock first, then check others: of two processes that start at once, at least one sees the other.
                self._take(f"shard-{shard[0]}-of-{shard[1]}.lock", shard)
                self._refuse_beside(_WHOLE)
                self._refuse_beside("shard-*-of-*.lock", but=f"-of-{shard[1]}.lock")
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Release the folder and remove the name from the lock."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._heartbeat = None
        if self._file is not None:
            descriptor, self._file = self._file, None
            try:
                os.ftruncate(descriptor, 0)
            finally:
                os.close(descriptor)

    def _take(self, name: str, shard: tuple[int, int]) -> None:
        """Lock a file and write this process's name into it."""
        descriptor = _open(self._folder / name)
        try:
            free = _lock(descriptor, fcntl.LOCK_EX)
            self._refuse_if_held(descriptor, free)
            ours = own_name() | {
                "mount": os.fstat(descriptor).st_dev,
                "started": time.strftime("%Y-%m-%d %H:%M:%S"),
                "shard": list(shard),
                "token": uuid.uuid4().hex,
            }
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, orjson.dumps(ours), 0)
            if free is None:
                self._refuse_if_taken(descriptor, ours)
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor
        self._heartbeat = Heartbeat(descriptor)

    def _refuse_if_taken(self, descriptor: int, ours: Mapping[str, Any]) -> None:
        """Without kernel locks: wait until all processes that start at once have written their names; the last one holds it."""
        time.sleep(_NAMING_SECONDS)
        holder = _holder(descriptor)
        if holder is not None and holder != ours:
            raise RunError(_refusal(self._folder, holder))

    def _refuse_beside(self, pattern: str, but: str | None = None) -> None:
        """Refuse if a conflicting lock file is held: a whole run and any shard conflict, and shards of different N."""
        for path in sorted(self._folder.glob(pattern)):
            if but and path.name.endswith(but):
                continue
            descriptor = _open(path)
            try:
                # A shared lock, released at once: processes that check at the same time do not refuse each other.
                self._refuse_if_held(descriptor, _lock(descriptor, fcntl.LOCK_SH))
            finally:
                os.close(descriptor)

    def _refuse_if_held(self, descriptor: int, free: bool | None) -> None:
        holder = _holder(descriptor)
        if not _is_held(descriptor, free, holder):
            return
        patience = time.monotonic() + _NAMING_SECONDS
        while holder is None and time.monotonic() < patience:  # it has locked the file, but not written its name yet
            time.sleep(_LOOK_SECONDS)
            holder = _holder(descriptor)
        raise RunError(_refusal(self._folder, holder))


def _open(path: Path) -> int:
    try:
        # The mode is reduced by the umask: a group may share a folder.
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        why = "It is a symbolic link" if path.is_symlink() else "Another user may have started this run"
        raise RunError(f"{path} cannot be opened: {error.strerror}. {why}.") from error


def _lock(descriptor: int, kind: int) -> bool | None:
    """Take the kernel's lock: True if it was free, False if not, None if the file system has no locks."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_held(descriptor: int, free: bool | None, holder: Mapping[str, Any] | None) -> bool:
    """Whether a live process holds a lock file, from the result of `_lock` and the name in the file."""
    if free is False:
        return True
    if holder is None or not is_fresh(os.fstat(descriptor)):
        return False
    # The name decides where kernel locks do not work: across machines, or on a file system without locks.
    return _is_elsewhere(descriptor, holder) or (free is None and process_is_alive(holder))


def _holder(descriptor: int) -> dict[str, Any] | None:
    try:
        holder = orjson.loads(os.pread(descriptor, 4096, 0))
    except orjson.JSONDecodeError:
        return None
    return holder if isinstance(holder, dict) and {"host", "pid"} <= set(holder) else None


def _is_elsewhere(descriptor: int, holder: Mapping[str, Any]) -> bool:
    """Whether the holder may hold the file without a lock that this kernel shows: on another machine, or by another mount."""
    return (holder.get("boot"), holder.get("mount")) != (own_name()["boot"], os.fstat(descriptor).st_dev)


def _refusal(folder: Path, holder: dict[str, Any] | None) -> str:
    who = "another process"
    if holder:
        who = f"process {holder['pid']} on {holder['host']}, started {holder.get('started', 'at an unknown time')}"
    return f"{folder.parent.parent} is in use by {who}. Wait for it, stop it, or choose another output_dir."
