"""A member of an archive: where it is, what it is named, and whether it is read.

In: what an archive's directory says. Out: a `Member`, its name, and the key by which the index has it.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from ecgfounder.storage.store import Unreadable, name_of_walk_text, walk_text

STORED, DEFLATED = 0, 8
"""Methods of storing a member that are read; the numbers up to 99 are those of the ZIP format."""

ZIP_HEADER = struct.Struct("<4s5H3L2H")
"""In front of a member's bytes in a ZIP archive: signature, version, flags, method, time, date, CRC, sizes, lengths of name and
extra field."""

ENCRYPTED, LINK, SPARSE, SPECIAL, TWICE, UNTRUE = range(1000, 1006)
"""Kinds of members that are not read."""

_REFUSED = {
    ENCRYPTED: "it is encrypted in the archive; unpack the archive and use the folder",
    LINK: "it is a link in the archive; links are not followed",
    SPARSE: "it is a sparse file in the archive; unpack the archive and use the folder",
    SPECIAL: "it is no regular file in the archive",
    TWICE: "the archive has several members of this name",
    UNTRUE: "its sizes in the archive's directory cannot be true",
}
_ZIP_METHODS = {
    1: "shrink",
    6: "implode",
    9: "Deflate64",
    12: "bzip2",
    14: "LZMA",
    93: "Zstandard",
    95: "XZ",
    98: "PPMd",
}
_ODD_PARTS = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)")


class Member(NamedTuple):
    """Where a member is, and what is said of it.

    Attributes
    ----------
    offset : int
        Where its header begins, or, without a header, its bytes.
    packed, size : int
        Bytes in the archive, and unpacked.
    crc : int
        CRC-32 of the unpacked bytes; only of members with a header.
    method : int
        `STORED`, `DEFLATED`, or what is not read.
    header : int
        Length of its name in its header; -1 without a header (tar).
    mtime_ns : int
        Time of the last modification, in ns since 1970.
    """

    offset: int
    packed: int
    size: int
    crc: int
    method: int
    header: int
    mtime_ns: int

    def require_readable(self) -> None:
        """Refuse a member that is not read.

        Raises
        ------
        Unreadable
            With the reason.
        """
        if self.method in (STORED, DEFLATED):
            return
        method = _ZIP_METHODS.get(self.method, f"number {self.method}")
        raise Unreadable(
            _REFUSED.get(self.method)
            or f"it is compressed with a method that is not read ({method}); unpack the archive and use the folder"
        )


def key_of(name: str) -> bytes:
    """The key of a name; keys have the order of `walk_order`."""
    return walk_text(name).encode("utf-8", "surrogatepass")


def name_of(key: bytes) -> str:
    """The name of a key."""
    return name_of_walk_text(key.decode("utf-8", "surrogatepass"))


def folder_key(folder: str) -> bytes:
    """What the keys of all members below a folder begin with."""
    return ("\1" + folder.replace("/", "\0\1") + "\0").encode("utf-8", "surrogatepass")


def plain_name(name: str, number: int) -> str:
    """A member's name, without '.' and empty parts; `number` is the member's, from 1.

    Raises
    ------
    Unreadable
        If the name is not one of a file in the archive's own folder; the message does not quote it.
    """
    if "\0" in name or name.startswith("/") or not name:
        what = "is absolute" if name.startswith("/") else "is none" if not name else "contains a NUL character"
        raise Unreadable(f"the name of member {number:,} {what}; such an archive is not read")
    if not _ODD_PARTS.search(name):
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or not parts:
        raise Unreadable(f"the name of member {number:,} leads out of the archive ('..'); such an archive is not read")
    return "/".join(parts)
