"""A store that is not this machine's file system, although its objects are files: several processes share it.

In: a folder. Out: a store with the habits of a bucket (tags of contents, no renames, no appending), and faults at chosen changes.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ecgfounder.storage import Conflict, Missing, Status, Store, Unavailable
from ecgfounder.storage.local import LocalStore
from ecgfounder.storage.store import Skip, skip_none, walk_order


@dataclass(frozen=True)
class Fault:
    """What happens at the `at`-th change of the store, or at the first one to an object with `name` in its name, before or after
    it is done: a signal, or an error as the reply.
    """

    at: int = 0
    name: str | None = None
    after: bool = False
    signal: int | None = signal.SIGKILL


@dataclass
class Changes:
    """The changes that this process has made, by the names of the objects, and the fault that is to come."""

    names: list[str]
    fault: Fault | None = None
    tell: Callable[[str], None] = lambda _name: None

    def _due(self, name: str) -> Fault | None:
        """The fault, if it is to happen at this change."""
        fault = self.fault
        if fault is None:
            return None
        if fault.name is None:
            return fault if fault.at == len(self.names) else None
        if fault.name not in name or name.startswith("delete"):
            return None
        self.fault = None
        return fault

    def change(self, name: str, work: Callable[[], None]) -> None:
        self.names.append(name)
        self.tell(name)
        fault = self._due(name)
        if fault is not None and not fault.after:
            _happen(fault)
        work()
        if fault is not None and fault.after:
            _happen(fault)


def _happen(fault: Fault) -> None:
    if fault.signal is None:
        raise Unavailable("the connection was reset")
    os.kill(os.getpid(), fault.signal)


CHANGES = Changes([])


@dataclass(frozen=True)
class Elsewhere(Store):
    """The objects below a folder of this machine."""

    root: str

    @property
    def _files(self) -> LocalStore:
        return LocalStore(self.root)

    def url(self, name: str) -> str:
        return f"elsewhere://{self.root}/{name}"

    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        for status in sorted(self._files.list(folder, skip=skip), key=lambda status: walk_order(status.name)):
            if not status.name.rpartition("/")[2].startswith("."):  # half written
                with suppress(Missing):  # deleted meanwhile
                    yield self.status(status.name)

    def names(self, folder: str = "", *, skip: Skip = skip_none, follow: bool = False) -> Iterator[str]:
        return (name for name in self._files.names(folder, skip=skip) if not name.rpartition("/")[2].endswith(".part"))

    def is_folder(self, name: str) -> bool:
        return next(self.names(name), None) is not None

    def status(self, name: str) -> Status:
        status, content = self._files.fetch(name, 1 << 40)
        return replace(status, tag=hashlib.md5(content or b"").hexdigest())

    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        content = self._files.read(name)
        if tag not in (None, hashlib.md5(content).hexdigest()):
            raise Conflict(f"{name}: it changed while it was read")
        return content[start:stop]

    def put(self, name: str, data: bytes) -> Status:
        CHANGES.change(name, lambda: self._files.put(name, data))
        return self.status(name)

    def create(self, name: str, data: bytes) -> Status:
        CHANGES.change(name, lambda: self._files.create(name, data))
        return self.status(name)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            CHANGES.change(f"delete {name}", lambda name=name: self._files.delete([name]))
