"""The headers of a tar archive, read in one pass into arrays: ustar, long names of GNU, pax.

In: an open archive, its size and tag. Out: its `Members`. The bytes of members are skipped, where that is possible.
"""

from __future__ import annotations

import tarfile
from array import array
from io import BufferedReader

from ecgfounder.storage.archive_index import MOST_MEMBERS, Members, members_of
from ecgfounder.storage.members import LINK, SPARSE, SPECIAL, STORED, key_of, plain_name
from ecgfounder.storage.store import Unreadable

_MOST_HEADER = 1 << 20
"""Bytes of a header at most: one with a name of a megabyte is no file's."""

_UNSAFE = (tarfile.TarError, ValueError, OverflowError, RecursionError, LookupError)
_FAR_TIME = 1 << 33


class _Headers:
    """What `tarfile` reads headers from: no more than a header at once."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self.tell = file.tell
        self.seek = file.seek

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise tarfile.HeaderError
        return self._file.read(size)


def tar_members(file: BufferedReader, size: int, tag: str) -> Members:
    """The members of a tar archive.

    Raises
    ------
    Unreadable
        If it is none, is damaged or cut off, or has members with unsafe names.
    OSError
        As the file raises it.
    """
    columns = {name: array("q") for name in ("offset", "packed", "method", "mtime_ns")}
    keys: list[bytes] = []
    number = end = 0
    try:
        headers = _Headers(file)
        tar = tarfile.TarFile(fileobj=headers, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined] # else they all are kept
            number += 1
            if tar.offset <= end or member.size < 0 or number > MOST_MEMBERS:
                raise Unreadable("damaged tar archive: its headers cannot be true")
            end = tar.offset
            if member.isdir():
                continue
            name, method = plain_name(member.name, number), _method_of(member)
            length = member.size if method == STORED else 0
            if member.offset_data + length > size:
                raise Unreadable("the archive is cut off: it ends within a member")
            keys.append(key_of(name))
            time = float(member.mtime)
            columns["offset"].append(member.offset_data)
            columns["packed"].append(length)
            columns["method"].append(method)
            columns["mtime_ns"].append(round(time * 1e9) if abs(time) < _FAR_TIME else 0)
        _require_end(file, max(end, tar.offset))
    except _UNSAFE as error:
        raise Unreadable(f"not a tar archive, or a damaged one ({type(error).__name__})") from error
    lengths = len(keys)
    return members_of(
        tag,
        keys,
        {**columns, "size": columns["packed"], "crc": array("q", [0]) * lengths, "header": array("q", [-1]) * lengths},
        latest=True,
    )


def _method_of(member: tarfile.TarInfo) -> int:
    if member.issparse():
        return SPARSE
    if member.islnk() or member.issym():
        return LINK
    return STORED if member.isreg() else SPECIAL


def _require_end(file: BufferedReader, at: int) -> None:
    """Refuse an archive without the block of zeros that ends it: members after a damaged header would be missing silently."""
    file.seek(at)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise Unreadable("the archive is cut off: the end of a tar archive is missing")
    if block.strip(b"\0"):
        raise Unreadable("damaged tar archive: a header is none")
