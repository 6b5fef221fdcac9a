"""A store for the members of a ZIP or tar archive, which may be on this machine or in another store; nothing is unpacked to disk.

In: names of members. Out: bytes, sizes and tags. An archive is indexed once in a process. A process that gets an `Excerpt` with
its work reads what that names without an index of its own.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from ecgfounder.storage.inflating import Inflating
from ecgfounder.storage.local import LocalStore
from ecgfounder.storage.members import STORED, ZIP_HEADER, Member, folder_key, key_of
from ecgfounder.storage.paths import path_key
from ecgfounder.storage.store import (
    Conflict,
    Denied,
    Missing,
    Replaced,
    Skip,
    Status,
    Store,
    Unavailable,
    Unreadable,
    skip_none,
)

if TYPE_CHECKING:
    from ecgfounder.storage.archive_index import Members

UNPACKED_LIMIT = 256 << 20
"""Bytes to which compressed data may unpack."""

_PIECE_BYTES = 8 << 20
_USUAL_EXTRA = 64
"""Bytes of the extra field of a header that are read with it; a longer one needs one more request."""
_START_BYTES = 1 << 20
"""Of a compressed member, a range that ends before this is unpacked alone; for others, the whole member is."""
_MOST_OVERHEAD = 4096
"""Bytes, beside a thousandth, by which compressed data may be longer than what they unpack to."""
_INDEXES_KEPT = 16
_MOST_IN_EXCERPT = 32


class Excerpt(NamedTuple):
    """What an archive's index says about a recording's files, so that another process can read them without the index.

    Attributes
    ----------
    tag : str
        The archive's tag.
    folder : bytes
        What the keys of all members in the recording's folder begin with.
    name, stem : bytes
        The recording's name in its folder, and what its name and those of all its files begin with.
    members : dict of bytes to Member
        All members with this name, or with a name that begins so; by their names in the folder.
    """

    tag: str
    folder: bytes
    name: bytes
    stem: bytes
    members: dict[bytes, Member]

    def name_of(self, key: bytes) -> bytes | None:
        """The name in the folder of a member with this key, if it would be in `members`; else None."""
        if not key.startswith(self.folder):
            return None
        name = key[len(self.folder) :]
        return name if name == self.name or name.startswith(self.stem) else None


@dataclass(frozen=True)
class ArchiveStore(Store):
    """The members of an archive, which cannot be changed.

    Attributes
    ----------
    inside : Store
        The store that has the archive.
    archive : str
        The archive's name in it.
    excerpt : Excerpt or None
        What is known from another process.
    """

    inside: Store
    archive: str
    excerpt: Excerpt | None = field(default=None, compare=False, repr=False)

    def url(self, name: str) -> str:
        return f"{self.inside.url(self.archive)}::{name}"

    def list(self, folder: str = "", *, skip: Skip = skip_none) -> Iterator[Status]:
        members = self._index(is_checked=True)
        for number, name in members.listed(folder, skip):
            yield self._status(name, members.tag, members.member(number))

    def names(self, folder: str = "", *, skip: Skip = skip_none, follow: bool = False) -> Iterator[str]:
        return (name for _, name in self._index(is_checked=True).listed(folder, skip))

    def is_folder(self, name: str) -> bool:
        members = self._index(is_checked=True)
        return not name.strip("/") or len(members.below(name)) > 0

    def status(self, name: str) -> Status:
        return self._status(name, *self._find(name))

    def read(self, name: str, start: int = 0, stop: int | None = None, *, tag: str | None = None) -> bytes:
        archive_tag, member = self._find(name)
        if tag not in (None, self._status(name, archive_tag, member).tag):
            raise Conflict(f"{self.url(name)}: it changed while it was read")
        stop = member.size if stop is None else min(stop, member.size)
        if start == 0 and stop == member.size:
            return self._whole(archive_tag, member)
        if start >= stop:
            return b""
        member.require_readable()
        if member.method == STORED:
            first = self._first_byte(archive_tag, member)
            return self._of_archive(archive_tag, first + start, first + stop)
        if stop <= _START_BYTES:
            return self._unpacked(archive_tag, member, stop)[start:]
        return _inflating(self, archive_tag, member).read(start, stop)

    def fetch(self, name: str, most: int) -> tuple[Status, bytes | None]:
        archive_tag, member = self._find(name)
        status = self._status(name, archive_tag, member)
        return status, self._whole(archive_tag, member) if member.size <= most else None

    def put(self, name: str, data: bytes) -> Status:
        raise Denied(f"{self.url(name)}: archives are not written to")

    def create(self, name: str, data: bytes) -> Status:
        return self.put(name, data)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            self.put(name, b"")

    def excerpt_for(self, name: str) -> Excerpt:
        """What the index says about a recording with a name: itself, and the files beside it with its name before a dot.

        Raises
        ------
        StorageError
            If the archive cannot be indexed.
        """
        members = self._index()
        folder, _, last = name.rpartition("/")
        below = (folder_key(folder) if folder else b"") + b"\0"
        itself = last.encode("utf-8", "surrogatepass")
        found: dict[bytes, Member] | None = None
        for stem in dict.fromkeys((last.rpartition(".")[0] or last, last)):
            start = f"{stem}.".encode("utf-8", "surrogatepass")
            found = members.named_from(below + start, len(below), _MOST_IN_EXCERPT)
            if found is not None:
                break
        if found is None:
            found, start = {}, itself + b"\0"  # too many: itself alone
        if itself not in found and (member := members.find(below + itself)) is not None:
            found[itself] = member
        return Excerpt(members.tag, below, itself, start, found)

    def with_excerpt(self, excerpt: Excerpt) -> ArchiveStore:
        """The same archive, with what is known from another process."""
        return ArchiveStore(self.inside, self.archive, excerpt)

    # --- the index ---------------------------------------------------------------------------------------------------

    def _find(self, name: str) -> tuple[str, Member]:
        """The archive's tag, and a member."""
        key = key_of(name)
        if self.excerpt is not None and (in_folder := self.excerpt.name_of(key)) is not None:
            tag, member = self.excerpt.tag, self.excerpt.members.get(in_folder)
        else:
            members = self._index()
            tag, member = members.tag, members.find(key)
        if member is None:
            raise Missing("there is no such file in the archive")
        return tag, member

    def _index(self, *, is_checked: bool = False) -> Members:
        """The archive's index, of this process. One elsewhere is asked whether it has changed only if `is_checked`."""
        place = self.inside, self.archive
        with _indexing:
            known = _indexes.get(place)
            if known is None or is_checked or isinstance(self.inside, LocalStore):
                try:
                    status = self.inside.status(self.archive)
                except Missing as error:
                    raise Missing(f"the archive cannot be read: {error}") from error
                if known is None or known[0] != status.tag:
                    known = status.tag, self._indexed(status)
                    _indexes[place] = known
                    while len(_indexes) > _INDEXES_KEPT:
                        _indexes.popitem(last=False)
            _indexes.move_to_end(place)
        if isinstance(known[1], str):
            raise Unreadable(known[1])
        return known[1]

    def _indexed(self, status: Status) -> Members | str:
        """The index of the archive as it is now, or why it has none."""
        from ecgfounder.storage.zip_directory import zip_members  # numpy is not loaded without need

        try:
            if self.archive.lower().endswith(".tar"):
                return self._tar_members(status)
            return zip_members(lambda start, stop: self._of_archive(status.tag, start, stop), status.size, status.tag)
        except Unreadable as error:
            return str(error)

    def _tar_members(self, status: Status) -> Members:
        from ecgfounder.storage.tar_headers import tar_members

        with self.inside.open(self.archive) as file:
            try:
                return tar_members(file, status.size, status.tag)
            except OSError as error:
                trouble = getattr(file.raw, "trouble", None)
                if isinstance(trouble, Conflict):
                    raise Replaced(_REPLACED) from error
                if trouble is not None:
                    raise type(trouble)(str(trouble)) from error
                raise Unavailable(error.strerror or type(error).__name__) from error

    # --- bytes -------------------------------------------------------------------------------------------------------

    def _status(self, name: str, archive_tag: str, member: Member) -> Status:
        if member.header < 0:
            tag = f"{path_key(archive_tag):x}-{member.offset:x}-{member.size:x}-{member.mtime_ns:x}"
        else:
            tag = f"{member.crc:x}-{member.size:x}-{member.mtime_ns:x}"
        return Status(name, member.size, tag, member.mtime_ns)

    def _of_archive(self, tag: str, start: int, stop: int) -> bytes:
        """A range of the archive's bytes, which has this tag."""
        try:
            data = self.inside.read(self.archive, start, stop, tag=tag)
        except Conflict as error:
            _forget(self)
            raise Replaced(_REPLACED) from error
        if len(data) != stop - start:
            raise Unreadable("the archive ends within it")
        return data

    def _whole(self, tag: str, member: Member) -> bytes:
        """All bytes of a member, with the right CRC."""
        member.require_readable()
        data = self._unpacked(tag, member, member.size)
        if member.header >= 0 and zlib.crc32(data) != member.crc:
            raise Unreadable("it is damaged in the archive: its CRC-32 is another")
        return data

    def _unpacked(self, tag: str, member: Member, stop: int) -> bytes:
        """The first bytes of a member, or all, which must be what it consists of."""
        if member.method == STORED:
            return b"".join(self._packed(tag, member, stop))
        if member.packed == 0 and member.size == 0:
            return b""
        if stop > UNPACKED_LIMIT:
            raise Unreadable(
                f"it unpacks to {stop:,} bytes; at most {UNPACKED_LIMIT:,} are read from a compressed member: unpack the archive "
                "and use the folder"
            )
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        pieces: list[bytes] = []
        left = stop
        wanted = member.packed if stop == member.size else min(member.packed, stop + stop // 1000 + _MOST_OVERHEAD)
        try:
            for packed in self._packed(tag, member, wanted):
                pieces.append(unpacking.decompress(packed, left + 1))  # one more, to see whether it ends
                left -= len(pieces[-1])
                if left < 0 or (left == 0 and stop < member.size):
                    break
        except zlib.error:
            raise Unreadable("it is damaged in the archive: its compressed data are none") from None
        if stop < member.size and left <= 0:
            return b"".join(pieces)[:stop]
        if left != 0 or not unpacking.eof:
            raise Unreadable(
                "it is damaged in the archive: it unpacks to another size than the archive's directory says"
            )
        return b"".join(pieces)

    def _packed(self, tag: str, member: Member, stop: int) -> Iterator[bytes]:
        """The first bytes of a member as they are in the archive, in pieces; the header comes with the first one."""
        at = member.offset
        end = at + stop
        if member.header >= 0:
            # A directory's entry and the archive's end follow, which together are longer than a usual extra field.
            most = ZIP_HEADER.size + member.header + _USUAL_EXTRA + min(stop, _PIECE_BYTES)
            first = self._of_archive(tag, at, at + most)
            begin = _header_bytes(first, member)
            yield first[begin : begin + stop]
            end += begin
            at += max(len(first), begin)
        while at < end:
            yield self._of_archive(tag, at, min(at + _PIECE_BYTES, end))
            at += _PIECE_BYTES

    def _first_byte(self, tag: str, member: Member) -> int:
        """Where the bytes of a member begin."""
        return member.offset if member.header < 0 else _first_byte(self, tag, member)


_REPLACED = "the archive was replaced while it was read; begin again"

_indexes: OrderedDict[tuple[Store, str], tuple[str, Members | str]] = OrderedDict()
"""By archive: its tag, and its index or why it has none."""
_indexing = threading.RLock()


def _forget(store: ArchiveStore) -> None:
    with _indexing:
        _indexes.pop((store.inside, store.archive), None)


def _header_bytes(data: bytes, member: Member) -> int:
    """The length of a member's header, with its name and extra field; `data` begins with it."""
    signature, _, flags, method, *_, n_name, n_extra = ZIP_HEADER.unpack_from(data)
    if signature != b"PK\3\4" or n_name != member.header or method != member.method or flags & 1:
        raise Unreadable("damaged ZIP archive: a member's header and the directory do not agree")
    return int(ZIP_HEADER.size + n_name + n_extra)


@lru_cache(maxsize=64)
def _first_byte(store: ArchiveStore, tag: str, member: Member) -> int:
    header = store._of_archive(tag, member.offset, member.offset + ZIP_HEADER.size)
    return member.offset + _header_bytes(header, member)


class _Latest:
    """The compressed member that was read in ranges last, because several recordings in it are often read one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._what: object = None
        self._inflating: Inflating | None = None

    def get(self, what: object, make: Callable[[], Inflating]) -> Inflating:
        with self._lock:
            if self._what != what or self._inflating is None:
                self._what, self._inflating = what, make()
            return self._inflating


_latest = _Latest()


def _inflating(store: ArchiveStore, tag: str, member: Member) -> Inflating:
    def make() -> Inflating:
        first = store._first_byte(tag, member)
        return Inflating(
            lambda start, stop: store._of_archive(tag, first + start, first + stop),
            member.packed,
            member.size,
            member.crc,
        )

    return _latest.get((store, tag, member), make)
