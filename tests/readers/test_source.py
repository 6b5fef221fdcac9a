"""A file as a reader sees it: whole or refused, never cut, and read once."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from ecgfounder.errors import ReadError
from ecgfounder.readers import make_source, source
from ecgfounder.readers.identity import companions_of, identity_of
from ecgfounder.readers.source import HEAD_BYTES, Hints, Source
from ecgfounder.storage import locate


def source_of(path: Path, content: bytes) -> Source:
    path.write_bytes(content)
    return Source(locate(path))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.xml"


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can reach."""
    monkeypatch.setattr(source, "SMALL_BYTES", 6000)
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 10_000)
    monkeypatch.setattr(source, "MAX_UNPACKED_BYTES", 50_000)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("byte", [b"\0", b"x"])
def test_gzip_that_unpacks_to_the_limit_is_read_whole_and_one_byte_more_is_refused(file: Path, byte: bytes) -> None:
    whole = byte * 50_000
    assert source_of(file, gzip.compress(whole)).content == whole
    with pytest.raises(ReadError, match="unpacks to more than 50,000 bytes"):
        _ = source_of(file, gzip.compress(whole + byte)).content
    with pytest.raises(ReadError, match="unpacks to more than 50,000 bytes"):
        _ = source_of(file, gzip.compress(whole) + gzip.compress(byte)).content  # in several members


@pytest.mark.usefixtures("limits")
def test_a_file_of_the_limit_is_read_whole_and_one_byte_more_is_refused(file: Path) -> None:
    for size in (0, 5999, 6000, 6001, 10_000):
        content = os.urandom(size)
        found = source_of(file, content)
        assert found.content == content
        assert found.head == content[:HEAD_BYTES]
        assert Source(locate(file)).fetch(locate(file)) == content
        assert (found.small is not None) == (size <= 6000)
    with pytest.raises(ReadError, match=r"file of 10,001 bytes; at most 10,000 are read"):
        _ = source_of(file, os.urandom(10_001)).content
    with pytest.raises(ReadError, match=r"file of 10,001 bytes; at most 10,000 are read"):
        Source(locate(file)).fetch(locate(file))


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("size", [100, 9000])
def test_the_head_of_a_packed_file_is_unpacked_whatever_its_size(file: Path, size: int) -> None:
    content = os.urandom(size)
    packed = source_of(file, gzip.compress(content))
    assert packed.is_gzip
    assert packed.head == content[:HEAD_BYTES]
    assert packed.content == content
    assert not source_of(file, content).is_gzip


def test_a_head_is_given_of_a_packed_file_that_is_too_large_as_a_whole(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_UNPACKED_BYTES", 50_000)
    assert source_of(file, gzip.compress(b"<" * 60_000)).head == b"<" * HEAD_BYTES


@pytest.mark.parametrize("damage", ["cut", "checksum", "length", "body"])
def test_damaged_gzip_is_refused_and_never_given_in_part(file: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(os.urandom(20_000), mtime=0))
    if damage == "cut":
        del packed[-100:]
    else:
        packed[{"checksum": -6, "length": -2, "body": 5000}[damage]] ^= 0xFF
    with pytest.raises(ReadError, match="damaged gzip data"):
        _ = source_of(file, bytes(packed)).content


def test_a_small_file_is_opened_once_whatever_is_asked_of_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source_of(file, gzip.compress(b"<a/>"))
    opened: list[str] = []
    real = os.open

    def counted(path: str, *arguments: int) -> int:
        opened.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", counted)
    assert (found.head, found.content, found.is_gzip) == (b"<a/>", b"<a/>", True)
    assert identity_of(found).size == len(gzip.compress(b"<a/>"))
    assert opened == [str(file)]


def test_a_format_of_one_recording_has_no_members(file: Path) -> None:
    file.write_bytes(b"x")
    make_source(str(file), Hints()).refuse_member("EDF")
    with pytest.raises(ReadError, match="a EDF file holds one recording"):
        Source(locate(file), member="1").refuse_member("EDF")


def test_the_identity_of_several_files_is_their_size_together_and_the_latest_time(tmp_path: Path) -> None:
    header, samples, more = (tmp_path / name for name in ("r.hea", "r.dat", "x.dat"))
    for number, path in enumerate((header, samples, more)):
        path.write_bytes(b"." * (number + 1))
        os.utime(path, ns=(0, 10**18 + (5, 9, 7)[number]))
    found = Source(locate(header), companions=[locate(samples), locate(more)])
    told = identity_of(found)
    assert (told.size, told.mtime_ns, told.companions) == (6, 10**18 + 9, ("*.dat", "x.dat"))
    assert identity_of(Source(locate(header), companions=[locate(more), locate(samples)])).sha256 != told.sha256
    assert [each.path for each in companions_of(found, told.companions)] == [samples, more]


@pytest.mark.parametrize("kind", ["folder", "fifo", "nowhere"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    place = tmp_path / kind
    make: dict[str, Any] = {"folder": place.mkdir, "fifo": lambda: os.mkfifo(place), "nowhere": lambda: None}
    make[kind]()
    for ask in ("head", "content", "is_gzip"):
        with pytest.raises(ReadError, match=r"not a regular file|No such file"):
            getattr(Source(locate(place)), ask)
