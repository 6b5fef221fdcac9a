"""ZIP and tar archives: of files in memory, of folders, and such as no honest program writes.

In: content by name. Out: an archive's bytes.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


def files_of(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by their names in it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def zip_of(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED, *, folders: Sequence[str] = ()) -> bytes:
    """A ZIP archive, with entries for folders too."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name in folders:
            archive.writestr(f"{name}/", b"")
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def streamed_zip_of(files: Mapping[str, bytes]) -> bytes:
    """A ZIP archive as it is written into a pipe: sizes follow the data."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.pieces: list[bytes] = []

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.pieces.append(bytes(data))
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            archive.writestr(name, data)
    return b"".join(pipe.pieces)


def tar_of(files: Mapping[str, bytes], form: int = tarfile.GNU_FORMAT, *, start: str = "") -> bytes:
    """A tar archive; every name begins with `start`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(start + name)
            member.size, member.mtime = len(data), 1_600_000_000
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


@dataclass
class Entry:
    """A member of a ZIP archive that may say anything; None stands for the truth."""

    name: bytes
    data: bytes = b"data"
    method: int = 0
    flags: int = 0
    host: int = 3
    attributes: int = 0
    crc: int | None = None
    size: int | None = None
    packed: int | None = None
    offset: int | None = None
    extra: bytes = b""
    local_name: bytes | None = None
    local_extra: bytes = b""
    local_method: int | None = None


def crafted_zip(
    *entries: Entry, comment: bytes = b"", count: int | None = None, before: bytes = b"", after: bytes = b""
) -> bytes:
    """A ZIP archive from entries, as they say it."""
    body, directory = before, b""
    for entry in entries:
        deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = deflated.compress(entry.data) + deflated.flush() if entry.method == 8 else entry.data
        crc = zlib.crc32(entry.data) if entry.crc is None else entry.crc
        size = len(entry.data) if entry.size is None else entry.size
        n_packed = len(packed) if entry.packed is None else entry.packed
        at = len(body) - len(before) if entry.offset is None else entry.offset
        told = (entry.flags, entry.method, 0, 0x5821, crc, n_packed, size, len(entry.name), len(entry.extra))
        directory += struct.pack("<4sBB5H3L2H", b"PK\1\2", 20, entry.host, 20, *told)
        directory += struct.pack("<3H2L", 0, 0, 0, entry.attributes, at) + entry.name + entry.extra
        name = entry.name if entry.local_name is None else entry.local_name
        method = entry.method if entry.local_method is None else entry.local_method
        lengths = len(name), len(entry.local_extra)
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, entry.flags, method, 0, 0x5821, crc, 0, 0, *lengths)
        body += name + entry.local_extra + packed
    n = len(entries) if count is None else count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, n, n, len(directory), len(body) - len(before), len(comment))
    return body + directory + end + comment + after
