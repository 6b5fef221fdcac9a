"""The store for objects in a bucket of S3, Google Cloud Storage or Azure, through obstore.

In: names of objects (keys). Out: bytes, size and ETag. Connections are opened on use, in the process that uses them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from operator import methodcaller
from typing import Any, BinaryIO, TypeVar

from ecgfounder.errors import SettingsError
from ecgfounder.storage.connect import RANGE_NOT_SATISFIABLE, BrokenReply, Connection, connection_to, require_obstore
from ecgfounder.storage.options import NO_OPTIONS, StorageOptions
from ecgfounder.storage.store import (
    Conflict,
    Missing,
    Skip,
    Status,
    Store,
    Unavailable,
    kept_below,
    name_of_walk_text,
    skip_none,
    walk_text,
)

SCHEMES = ("s3", "gs", "az")

T = TypeVar("T")

_PAUSES = (0.1, 0.5, 2.0)
"""Seconds before a request is made again whose reply broke."""

_DELETED_AT_ONCE = 1000
_LISTED_AT_ONCE = 1000


@dataclass(frozen=True)
class ObjectStore(Store):
    """The objects of one bucket; `scheme` is one of `SCHEMES`.

    Raises
    ------
    MissingDependencyError
        If obstore is not installed.
    """

    scheme: str
    bucket: str
    options: StorageOptions = field(default=NO_OPTIONS)

    def __post_init__(self) -> None:
        require_obstore()

    @property
    def _connection(self) -> Connection:
        return connection_to(self.scheme, self.bucket, self.options)

    def url(self, name: str) -> str:
        return f"{self.scheme}://{self.bucket}/{name}"

    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        kept = kept_below(folder, skip)
        return (
            status
            for status in sorted(self.unsorted(folder), key=lambda status: walk_text(status.name))
            if kept(status.name)
        )

    def names(self, folder: str = "", *, skip: Skip = skip_none, follow: bool = False) -> Iterator[str]:
        kept = kept_below(folder, skip)
        found = [walk_text(status.name) for status in self.unsorted(folder) if kept(status.name)]
        found.sort()  # texts alone, because there may be millions
        return map(name_of_walk_text, found)

    def unsorted(self, folder: str = "") -> Iterator[Status]:
        at = folder.strip("/")
        if at and not is_key(at):
            return

        pages: Any = None
        last: str | None = None

        def next_page(client: Any) -> Any:
            nonlocal pages
            if pages is None:  # at the beginning, or after a reply that broke
                pages = client.list(at or None, offset=last, chunk_size=_LISTED_AT_ONCE)  # which asks for nothing yet
            try:
                return next(pages, None)
            except Exception:
                pages = None
                raise

        while page := self._asked(next_page):
            yield from map(_status, page)
            last = page[-1]["path"]

    def is_folder(self, name: str) -> bool:
        at = name.strip("/")
        if at and not is_key(at):
            return False
        return self._connection.ask(lambda client: any(page for page in client.list(at or None, chunk_size=1)))

    def status(self, name: str) -> Status:
        key = _checked(name)
        return self._connection.ask(lambda client: _status(client.head(key)))

    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        key = _checked(name)
        if stop is not None and stop <= start:
            return self._nothing(key, tag)
        options: dict[str, Any] = {} if tag is None else {"if_match": tag}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}

        def get(client: Any) -> bytes:
            answer = client.get(key, options=options or None)
            if tag not in (None, _status(answer.meta).tag):  # not every server heeds `if_match`
                raise Conflict("it has changed")
            return bytes(answer.bytes())

        try:
            return self._asked(get)
        except Conflict as error:
            raise Conflict(f"{self.url(name)}: it changed while it was read") from error
        except Unavailable as error:
            if RANGE_NOT_SATISFIABLE in str(error):  # the object ends before `start`
                return self._nothing(key, tag)
            raise

    def _nothing(self, name: str, tag: str | None) -> bytes:
        """No bytes, of an object that exists and has this tag."""
        if tag not in (None, self.status(name).tag):
            raise Conflict(f"{self.url(name)}: it changed while it was read")
        return b""

    def fetch(self, name: str, most: int) -> tuple[Status, bytes | None]:
        key = _checked(name)

        def get(client: Any) -> tuple[Status, bytes | None]:
            answer = client.get(key)
            status = _status(answer.meta)
            return status, bytes(answer.bytes()) if status.size <= most else None

        return self._asked(get)

    def put(self, name: str, data: bytes) -> Status:
        self.write(name, data)
        return self.status(name)

    def create(self, name: str, data: bytes) -> Status:
        self.claim(name, data)
        return self.status(name)

    def write(self, name: str, data: bytes | BinaryIO) -> str:
        key = _checked(name)

        def put(client: Any) -> str | None:
            if not isinstance(data, bytes):
                data.seek(0)
            tag: str | None = client.put(key, data)["e_tag"]
            return tag

        tag = self._connection.ask(put)
        return _quoted(tag) if tag else self.status(key).tag

    def claim(self, name: str, data: bytes) -> None:
        key = _checked(name)
        try:
            self._connection.ask(lambda client: client.put(key, data, mode="create"))
        except Conflict as error:
            raise Conflict(f"{self.url(name)}: it already exists") from error

    def delete(self, names: Iterable[str]) -> None:
        keys = iter([name for name in names if is_key(name)])
        while some := list(itertools.islice(keys, _DELETED_AT_ONCE)):
            self._asked(methodcaller("delete", some))

    def _asked(self, work: Callable[[Any], T]) -> T:
        """`Connection.ask`; what may be asked twice is asked again if the connection breaks in the middle of the reply."""
        for pause in _PAUSES:
            try:
                return self._connection.ask(work)
            except BrokenReply:
                time.sleep(pause)
        return self._connection.ask(work)


def is_key(name: str) -> bool:
    """Whether a name can be that of an object: obstore cannot name those with empty, '.' or '..' parts."""
    if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def object_location(url: str, scheme: str, rest: str, options: StorageOptions) -> tuple[ObjectStore, str]:
    """The store and the name of an object or a folder, from the parts of its URL.

    Raises
    ------
    SettingsError
        If the URL has no bucket, or a key that cannot be named.
    MissingDependencyError
        If obstore is not installed.
    """
    bucket, _, key = rest.partition("/")
    if not bucket or not set(bucket).isdisjoint("@:?#%\\ "):
        raise SettingsError(
            f"{scheme}://{bucket.rpartition('@')[2]}: expected the name of a bucket after {scheme}://; credentials belong in "
            "the environment or in the 'storage_options' parameter"
        )
    name = key.removesuffix("/")
    if name and not is_key(name):
        raise SettingsError(
            f"{url}: this key cannot be read: its parts between slashes must not be empty, '.' or '..'; rename the object"
        )
    return ObjectStore(scheme, bucket, options), name


def _checked(name: str) -> str:
    if not is_key(name):
        raise Missing("no object can have this name")
    return name


def _status(meta: Mapping[str, Any]) -> Status:
    modified: datetime = meta["last_modified"]
    mtime_ns = round(modified.timestamp() * 1e6) * 1000
    tag = meta.get("e_tag") or meta.get("version") or f"{mtime_ns:x}-{meta['size']:x}"
    return Status(meta["path"], meta["size"], _quoted(tag), mtime_ns)


def _quoted(tag: str) -> str:
    """A tag in quotes, which some listings omit."""
    return tag if '"' in tag else f'"{tag}"'
