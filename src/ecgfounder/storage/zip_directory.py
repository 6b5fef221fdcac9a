"""The directory of a ZIP archive, read into arrays without an object per member.

In: a function that reads a range of the archive's bytes, its size and tag. Out: its `Members`. Archives of more than 4 GB
(zip64), and archives with other bytes before them (self-extracting), are read; archives in several parts are refused.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ecgfounder.storage.archive_index import MOST_MEMBERS, Members, members_of
from ecgfounder.storage.members import (
    DEFLATED,
    ENCRYPTED,
    LINK,
    SPECIAL,
    STORED,
    UNTRUE,
    ZIP_HEADER,
    key_of,
    plain_name,
)
from ecgfounder.storage.store import Unreadable

ReadRange = Callable[[int, int], bytes]

END, LOCATOR, END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sLQL"), struct.Struct("<4sQ2H2L4Q")
_MOST_COMMENT = (1 << 16) - 1
_MOST_DIRECTORY = 4 << 30
_PIECE_BYTES = 8 << 20
_ENTRY = np.dtype(
    [
        *(("signature", "S4"), ("made_by", "u1"), ("host", "u1"), ("needed", "<u2"), ("flags", "<u2")),
        *(("method", "<u2"), ("time", "<u2"), ("date", "<u2"), ("crc", "<u4"), ("packed", "<u4"), ("size", "<u4")),
        *(("n_name", "<u2"), ("n_extra", "<u2"), ("n_comment", "<u2"), ("disk", "<u2"), ("internal", "<u2")),
        *(("attributes", "<u4"), ("offset", "<u4")),
    ]
)
_LENGTHS = struct.Struct("<3H")
_AT_ONCE = 1 << 16
_IS_ENCRYPTED, _IS_UTF8 = 0x2041, 0x800  # encrypted, strongly encrypted, with hidden fields
_IS_PATCH = 0x20
_UNIX_HOSTS = (3, 19)  # Unix, macOS
_DOS_HOSTS = (0, 6, 10, 11, 14)  # FAT, OS/2, Windows
_MOST_RATIO = 1032
"""A byte of deflated data cannot stand for more bytes."""


def zip_members(read: ReadRange, size: int, tag: str) -> Members:
    """The members of a ZIP archive.

    Raises
    ------
    Unreadable
        If it is none, is cut off or in several parts, has members with unsafe names, or says what cannot be true.
    """
    count, start, stop, shift, is_exact = _find_directory(read, size)
    directory = b"".join(read(at, min(at + _PIECE_BYTES, stop)) for at in range(start, stop, _PIECE_BYTES))
    if len(directory) != stop - start:
        raise Unreadable("the archive ends early")
    places = _places_in(directory)
    if len(places) != count and (is_exact or len(places) % (1 << 16) != count):
        raise Unreadable(f"damaged ZIP archive: it has {len(places):,} members, and its end says {count:,}")
    table = _table(directory, places)
    columns = _columns(directory, places, table, shift)
    _refuse_overlaps(columns, start)
    kept, keys = _names(directory, places, table)
    return members_of(tag, keys, {name: column[kept] for name, column in columns.items()}, latest=False)


def _find_directory(read: ReadRange, size: int) -> tuple[int, int, int, int, bool]:
    """The directory's number of members, begin and end, what to add to its offsets, and whether the number is exact."""
    tail = read(max(0, size - END.size - _MOST_COMMENT - LOCATOR.size - END64.size), size)
    base = size - len(tail)
    ends = []
    at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if len(tail) - at >= END.size and at + END.size + END.unpack_from(tail, at)[-1] == len(tail):
            ends.append(at)
        at = tail.rfind(b"PK\5\6", 0, at)
    if len(ends) != 1:
        raise Unreadable(
            "not a ZIP archive, or cut off, or followed by other bytes: the directory of a ZIP archive is at its end"
            if not ends
            else "damaged ZIP archive: it has several ends"
        )
    _, disk, first_disk, here, count, length, offset, _ = END.unpack_from(tail, ends[0])
    stop, is_exact = base + ends[0], False
    if ends[0] >= LOCATOR.size and tail.startswith(b"PK\6\7", ends[0] - LOCATOR.size):
        count, length, offset, stop = _end64(tail, ends[0] - LOCATOR.size, base)
        disk = first_disk = 0
        here, is_exact = count, True
    if (disk, first_disk, here) != (0, 0, count):
        raise Unreadable("a part of a ZIP archive that was split; join its parts first")
    start = stop - length
    shift = start - offset
    if start < 0 or shift < 0:
        raise Unreadable("damaged ZIP archive: its end names a directory that is not in it")
    if count > MOST_MEMBERS or length > _MOST_DIRECTORY:
        raise Unreadable(f"a ZIP archive with {count:,} members; at most {MOST_MEMBERS:,} are read")
    return count, start, stop, shift, is_exact


def _end64(tail: bytes, locator: int, base: int) -> tuple[int, int, int, int]:
    """Number of members, length and offset of the directory, and where it ends, in an archive of more than 4 GB."""
    _, _, told, disks = LOCATOR.unpack_from(tail, locator)
    at = locator - END64.size
    if at < 0 or not tail.startswith(b"PK\6\6", at):
        at = told - base  # with further data
    if not 0 <= at <= locator - END64.size or not tail.startswith(b"PK\6\6", at):
        raise Unreadable("damaged ZIP archive: its end for archives of more than 4 GB is missing")
    _, _, _, _, disk, first_disk, here, count, length, offset = END64.unpack_from(tail, at)
    if disks > 1 or (disk, first_disk, here) != (0, 0, count):
        raise Unreadable("a part of a ZIP archive that was split; join its parts first")
    return count, length, offset, base + at


def _places_in(directory: bytes) -> npt.NDArray[np.int64]:
    """Where each entry of the directory begins."""
    places = array("q")
    at, end = 0, len(directory)
    unpack, size = _LENGTHS.unpack_from, _ENTRY.itemsize
    while at + size <= end:
        places.append(at)
        name, extra, comment = unpack(directory, at + 28)
        at += size + name + extra + comment
    if at != end:
        raise Unreadable("damaged ZIP archive: its directory has an entry that is cut off")
    return np.array(places, np.int64)


def _table(directory: bytes, places: npt.NDArray[np.int64]) -> npt.NDArray[np.void]:
    """The fixed part of each entry."""
    octets, within = np.frombuffer(directory, np.uint8), np.arange(_ENTRY.itemsize)
    table = np.empty(len(places), _ENTRY)
    for at in range(0, len(places), _AT_ONCE):
        some = places[at : at + _AT_ONCE]
        table[at : at + len(some)] = octets[some[:, None] + within].view(_ENTRY)[:, 0]
    if not np.all(table["signature"] == b"PK\1\2"):
        raise Unreadable("damaged ZIP archive: its directory has an entry that is none")
    return table


def _columns(
    directory: bytes, places: npt.NDArray[np.int64], table: npt.NDArray[np.void], shift: int
) -> dict[str, npt.NDArray[np.generic]]:
    """The attributes of `Member` for every entry."""
    size, packed, offset = (table[name].astype(np.uint64) for name in ("size", "packed", "offset"))
    in_extra = (size == 0xFFFFFFFF) | (packed == 0xFFFFFFFF) | (offset == 0xFFFFFFFF)
    for number in np.flatnonzero(in_extra).tolist():
        at = int(places[number]) + _ENTRY.itemsize + int(table["n_name"][number])
        extra = directory[at : at + int(table["n_extra"][number])]
        values = iter(_extra64(extra))
        for column in (size, packed, offset):
            if column[number] == 0xFFFFFFFF:
                column[number] = next(values, 0xFFFFFFFF)
    if np.any(offset > np.uint64((1 << 63) - 1 - shift)):
        raise Unreadable("damaged ZIP archive: a member is said to be where the archive is not")
    return {
        "offset": offset + np.uint64(shift),
        "packed": packed,
        "size": size,
        "crc": table["crc"],
        "method": _methods(table, packed, size),
        "header": table["n_name"].astype(np.int32),
        "mtime_ns": _times(table["date"].astype(np.int64), table["time"].astype(np.int64)),
    }


def _extra64(extra: bytes) -> tuple[int, ...]:
    """The numbers of more than 32 bits of an entry."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            n = min(length, len(extra) - at - 4, 24) // 8
            return struct.unpack_from(f"<{n}Q", extra, at + 4)
        at += 4 + length
    return ()


def _methods(
    table: npt.NDArray[np.void], packed: npt.NDArray[np.uint64], size: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint16]:
    method = table["method"].copy()
    # A stored member has one size; 2 bytes are the shortest deflated member.
    method[(method == STORED) & (packed != size)] = UNTRUE
    method[(method == DEFLATED) & (size > np.minimum(packed, np.uint64(1 << 52)) * np.uint64(_MOST_RATIO))] = UNTRUE
    is_unix = np.isin(table["host"], _UNIX_HOSTS)
    kind = (table["attributes"] >> 28).astype(np.int64)
    method[is_unix & (kind != 0) & (kind != 0o10)] = SPECIAL
    method[is_unix & (kind == 0o12)] = LINK
    method[(table["flags"] & _IS_PATCH) != 0] = SPECIAL
    method[((table["flags"] & _IS_ENCRYPTED) != 0) | (table["method"] == 99)] = ENCRYPTED
    return method


def _times(date: npt.NDArray[np.int64], time: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Times in ns since 1970; a ZIP archive has no time zone, and UTC is assumed."""
    month, day = (date >> 5) & 15, date & 31
    months = ((date >> 9) + 10) * 12 + month - 1
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) + day - 1
    seconds = days * 86400 + (time >> 11) * 3600 + ((time >> 5) & 63) * 60 + (time & 31) * 2
    return np.where((month > 0) & (day > 0), seconds * 10**9, 0)


def _refuse_overlaps(columns: dict[str, npt.NDArray[np.generic]], directory: int) -> None:
    """Refuse members that share bytes, as those of a bomb do, or that lie outside the archive."""
    offset, packed = columns["offset"].astype(np.int64), columns["packed"]
    if np.any(packed > np.uint64(directory)):
        raise Unreadable("damaged ZIP archive: a member is said to be larger than the archive")
    order = np.argsort(offset, kind="stable")
    ends = offset + ZIP_HEADER.size + columns["header"].astype(np.int64) + packed.astype(np.int64)
    next_ones = np.append(offset[order][1:], directory)
    if np.any(ends[order] > next_ones):
        raise Unreadable("members of the ZIP archive overlap each other or its directory; such an archive is not read")


def _names(
    directory: bytes, places: npt.NDArray[np.int64], table: npt.NDArray[np.void]
) -> tuple[npt.NDArray[np.int64], list[bytes]]:
    """Which entries are files, and the keys of their names."""
    kept: list[int] = []
    keys: list[bytes] = []
    for at in range(0, len(table), _AT_ONCE):
        some = table[at : at + _AT_ONCE]
        starts = places[at : at + _AT_ONCE] + _ENTRY.itemsize
        stops = starts + some["n_name"]
        rows = zip(starts.tolist(), stops.tolist(), some["flags"].tolist(), some["host"].tolist(), strict=True)
        for number, (start, stop, flags, host) in enumerate(rows, start=at):
            name = _decoded(directory[start:stop], flags, host)
            if not name.endswith("/"):
                kept.append(number)
                keys.append(key_of(plain_name(name, number + 1)))
    return np.array(kept, np.int64), keys


def _decoded(name: bytes, flags: int, host: int) -> str:
    """A member's name; programs on Unix write UTF-8 without saying so, and some on Windows write '\\' for '/'."""
    if name.isascii():
        text = name.decode("ascii")
    elif flags & _IS_UTF8 or host in _UNIX_HOSTS:
        try:
            text = name.decode("utf-8")
        except UnicodeDecodeError:
            text = name.decode("cp437")
    else:
        text = name.decode("cp437")
    if "\\" in text and "/" not in text and host in _DOS_HOSTS:
        text = text.replace("\\", "/")
    return f"/{text}" if host in _DOS_HOSTS and text[1:3] == ":/" else text  # an absolute name: a drive's letter
