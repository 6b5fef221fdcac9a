"""Files are read alike from a path, from their content and from a file object."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from ecgfounder import read_ecg
from ecgfounder.errors import ReadError, SettingsError
from ecgfounder.readers import read_statements, source_of
from ecgfounder.readers import source as source_module
from ecgfounder.readers.source import Hints
from tests.builders.originals import Original, built
from tests.builders.philips import philips


class Stream(io.RawIOBase):
    """A stream that can neither be sought nor named, and gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._inner = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        return self._inner.readinto(memoryview(buffer)[:1000])


@pytest.mark.parametrize(
    "original",
    [each for each in built() if len(each.files) == 1 and "::" not in each.opened],
    ids=lambda each: f"{each.format} {each.name}",
)
def test_every_format_is_read_alike_however_it_is_given(original: Original, tmp_path: Path) -> None:
    path = Path(original.write(tmp_path))
    options: dict[str, Any] = {"hints": original.hints, "reader": original.reader}
    content = path.read_bytes()
    expected = read_ecg(path, **options)
    ways = [content, bytearray(content), memoryview(content), io.BytesIO(content), io.BufferedReader(Stream(content))]
    with path.open("rb") as file, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(content)
        spooled.seek(0)
        for way in (*ways, file, spooled):
            found = read_ecg(way, **options)  # type: ignore[arg-type]
            np.testing.assert_array_equal(found.samples, expected.samples)
            assert (found.leads, found.sampling_rate, found.meta) == (
                expected.leads,
                expected.sampling_rate,
                expected.meta,
            )


def test_a_file_object_is_read_from_its_position() -> None:
    content = philips()
    file = io.BytesIO(b"something else" + content)
    file.seek(14)
    np.testing.assert_array_equal(read_ecg(file).samples, read_ecg(content).samples)
    assert read_statements(content) == read_statements(io.BytesIO(content))


def test_errors_name_what_was_given(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_bytes(b"<a/>")
    for damaged, name in ((b"", "the given bytes"), (io.BytesIO(b"<a/>"), "the given file object")):
        with pytest.raises(ReadError, match=f"^{name}: "):
            read_ecg(damaged)
    with (tmp_path / "x.xml").open("rb") as file, pytest.raises(ReadError, match=r"^\S*x\.xml: not a known"):
        read_ecg(file)
    with pytest.raises(ReadError, match="closed"):
        read_ecg(file)
    with (tmp_path / "x.xml").open() as text, pytest.raises(SettingsError, match="binary mode"):
        read_ecg(text)  # type: ignore[arg-type]


def test_a_wfdb_header_without_its_folder_says_what_it_lacks() -> None:
    header = b"r 2 500 20\nr.dat 16 1000/mV 16 0 0 0 0 I\nr.dat 16 1000/mV 16 0 0 0 0 II\n"
    with pytest.raises(ReadError, match=r"^the given bytes: .*given as bytes, without other files"):
        read_ecg(header)


def test_a_stream_that_fails_or_does_not_end_is_a_read_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.RawIOBase):
        def read(self, _size: int = -1) -> bytes:
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ReadError, match=r"^the given file object: Connection reset by peer"):
        read_ecg(Broken())  # type: ignore[arg-type]

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            assert size > 0
            return b"x" * size

    monkeypatch.setattr("ecgfounder.readers.MAX_FILE_BYTES", 1 << 16)
    with pytest.raises(ReadError, match="more than 65,536 bytes"):
        read_ecg(Endless())  # type: ignore[arg-type]


def test_given_bytes_cannot_be_written() -> None:
    location = source_of(b"abc", Hints()).location
    assert [status.size for status in location.store.list()] == [3]
    for change in (lambda: location.put(b"x"), lambda: location.create(b"x"), lambda: location.store.delete(["ecg"])):
        with pytest.raises(source_module.StorageError, match="cannot be changed"):
            change()
    assert isinstance(location.open(), io.BufferedReader)
    file: BinaryIO = location.open()
    assert file.read() == b"abc"
