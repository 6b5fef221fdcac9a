"""A store of one object that a caller holds in memory, so that bytes are read like a file.

In: bytes. Out: a `Location`; nothing is beside it, and nothing can be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ecgfounder.storage.location import Location
from ecgfounder.storage.store import Denied, Missing, Skip, Status, Store, skip_none

_NAME = "ecg"


class GivenStore(Store):
    """The store of the given bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._status = Status(_NAME, len(data), hashlib.sha256(data).hexdigest(), 0)

    def url(self, name: str) -> str:
        return name

    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        if not folder.strip("/"):
            yield self._status

    def status(self, name: str) -> Status:
        if name != _NAME:
            raise Missing("No such file or directory: the ECG was given as bytes, without other files")
        return self._status

    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        self.status(name)
        return self._data[start:stop]

    def put(self, name: str, data: bytes) -> Status:
        raise Denied(f"{name}: given bytes cannot be changed")

    def create(self, name: str, data: bytes) -> Status:
        return self.put(name, data)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.put(name, b"")


def given(data: bytes) -> Location:
    """The location of bytes in memory."""
    return Location(GivenStore(data), _NAME)
