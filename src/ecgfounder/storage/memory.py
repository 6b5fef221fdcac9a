"""A store in memory, for tests; the simplest implementation of a store.

In and out: as every store. It exists as long as its process, and is identified by its name.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterable, Iterator

from ecgfounder.storage.store import Conflict, Missing, Skip, Status, Store, skip_none, walk_order


class MemoryStore(Store):
    """The store with a name in this process; `MemoryStore("a") is MemoryStore("a")`."""

    _stores: dict[str, MemoryStore] = {}  # noqa: RUF012 - shared by all on purpose
    _making = threading.Lock()

    def __new__(cls, name: str) -> MemoryStore:
        with cls._making:
            if name not in cls._stores:
                store = super().__new__(cls)
                store.name = name
                store._objects = {}
                store._lock = threading.Lock()
                cls._stores[name] = store
            return cls._stores[name]

    name: str
    _objects: dict[str, tuple[bytes, Status]]
    _lock: threading.Lock

    def __reduce__(self) -> tuple[type[MemoryStore], tuple[str]]:
        return MemoryStore, (self.name,)

    def url(self, name: str) -> str:
        return f"memory://{self.name}/{name}"

    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        below = folder.strip("/") + "/" if folder.strip("/") else ""
        with self._lock:
            found = [status for name, (_, status) in self._objects.items() if name.startswith(below)]
        for status in sorted(found, key=lambda status: walk_order(status.name)):
            if not any(map(skip, status.name[len(below) :].split("/")[:-1])):
                yield status

    def status(self, name: str) -> Status:
        return self._find(name)[1]

    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        data, status = self._find(name)
        if tag is not None and tag != status.tag:
            raise Conflict(f"{self.url(name)}: it changed while it was read")
        return data[start:stop]

    def put(self, name: str, data: bytes) -> Status:
        with self._lock:
            return self._keep(name, data)

    def create(self, name: str, data: bytes) -> Status:
        with self._lock:
            if name in self._objects:
                raise Conflict(f"{self.url(name)}: it already exists")
            return self._keep(name, data)

    def delete(self, names: Iterable[str]) -> None:
        gone = list(names)  # `names` may be a listing of this store
        with self._lock:
            for name in gone:
                self._objects.pop(name, None)

    def _find(self, name: str) -> tuple[bytes, Status]:
        with self._lock:
            found = self._objects.get(name)
        if found is None:
            raise Missing("No such file or directory")
        return found

    def _keep(self, name: str, data: bytes) -> Status:
        status = Status(name, len(data), hashlib.blake2b(data, digest_size=8).hexdigest(), time.time_ns())
        self._objects[name] = bytes(data), status
        return status
