"""Archives are read as `zipfile` and `tarfile` read them; those that lie, or are not safe, are refused in one line."""

from __future__ import annotations

import io
import pickle
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder.errors import SettingsError, StorageError
from ecgfounder.readers import excerpt_of, make_source
from ecgfounder.readers.source import Hints
from ecgfounder.storage import (
    Conflict,
    Denied,
    Location,
    Missing,
    Replaced,
    Unreadable,
    archives,
    locate,
    locate_folder,
    locate_output,
)
from ecgfounder.storage.archives import UNPACKED_LIMIT, ArchiveStore
from ecgfounder.storage.memory import MemoryStore
from ecgfounder.storage.paths import absolute_path, split_archive
from ecgfounder.storage.store import walk_order
from tests.builders.archives import Entry, crafted_zip, streamed_zip_of, tar_of, zip_of

Write = Callable[[bytes], Location]

FILES = {
    "z.xml": b"<z/>" * 3000,
    "a/b/record.hea": b"record 1 500 5000\n",
    "a/b/record.dat": random.Random(1).randbytes(70_000),
    "a/empty.csv": b"",
    "ä ö/ß.xml": b"\0" * 5000,
    "a.b/::odd [1].txt": b"odd",
}
FORMS = {
    "deflated": (".zip", zip_of(FILES)),
    "stored": (".zip", zip_of(FILES, zipfile.ZIP_STORED, folders=["a", "a/b"])),
    "streamed": (".zip", streamed_zip_of(FILES)),
    "self-extracting": (".zip", b"#!/bin/sh\nunzip\n" * 9 + zip_of(FILES)),
    "gnu": (".tar", tar_of(FILES)),
    "ustar": (".tar", tar_of(FILES, tarfile.USTAR_FORMAT)),
    "pax": (".TAR", tar_of(FILES, tarfile.PAX_FORMAT, start="./")),
}

NAMES = st.lists(
    st.text(st.characters(exclude_characters="/\0\\", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=4,
).map("/".join)
CONTENTS = st.dictionaries(NAMES, st.binary(max_size=300), max_size=8)

COMMENTS = st.binary(max_size=40).filter(lambda comment: b"PK\5\6" not in comment)  # zipfile is confused by these

in_one_file = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes an archive, and returns the folder that it is."""

    def to_file(data: bytes, suffix: str = ".zip") -> Location:
        path = tmp_path / f"archive{suffix}"
        path.write_bytes(data)
        return locate_folder(path)

    return to_file


@pytest.fixture(params=FORMS)
def archive(request: pytest.FixtureRequest, write: Callable[[bytes, str], Location]) -> Location:
    suffix, data = FORMS[request.param]
    return write(data, suffix)


# --- what is in it ---------------------------------------------------------------------------------------------------


def test_an_archive_is_a_folder_of_its_members(archive: Location) -> None:
    assert list(archive.names()) == sorted(FILES, key=walk_order)
    assert [status.name for status in archive.list()] == sorted(FILES, key=walk_order)
    assert list((archive / "a").names()) == ["empty.csv", "b/record.dat", "b/record.hea"]
    assert list(archive.names(skip=lambda folder: folder == "b")) == [
        name for name in sorted(FILES, key=walk_order) if "/b/" not in name
    ]
    assert (archive / "a").is_folder()
    assert not (archive / "a/b/record.dat").is_folder()
    assert not (archive / "a/b/rec").is_folder()
    for name in ("b", "a", "A/empty.csv", "a/empty", "../z.xml", "/z.xml", "z.xml/", "\0", "\ud800"):
        assert not (archive / name).exists()
    with pytest.raises(Denied):
        (archive / "new.xml").put(b"")
    with pytest.raises(Denied):
        archive.delete(["z.xml"])


@pytest.mark.parametrize("name", FILES)
def test_members_are_read_whole_and_in_ranges(archive: Location, name: str) -> None:
    member, data = archive / name, FILES[name]
    status = member.status()
    assert (status.size, status.name) == (len(data), name)
    assert member.read() == member.read(tag=status.tag) == data
    assert member.fetch(len(data)) == (status, data)
    assert not data or member.fetch(len(data) - 1) == (status, None)
    with member.open() as file:
        assert file.read() == data
        file.seek(len(data) // 2)
        assert file.read(10) == data[len(data) // 2 :][:10]
    for start, stop in ((0, 10), (7, 30), (len(data) - 3, len(data) + 9), (5, 5), (10**9, None), (2, None)):
        assert member.read(max(0, start), stop) == data[max(0, start) : stop]
    with pytest.raises(Conflict):
        member.read(tag=status.tag + "x")


def test_paths_of_members_are_texts_that_lead_to_them(archive: Location) -> None:
    for name, data in FILES.items():
        text = str(archive / name)
        assert locate(text) == archive / name
        assert locate(text).read() == data
        assert absolute_path(name, str(archive)) == text
        assert split_archive(text)[1] == name
    assert locate(f"{archive}./a//b/../empty.csv") == archive / "a/empty.csv"
    assert locate(str(archive).replace("/archive", "/x/../archive")).is_here


@given(files=CONTENTS, method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), comment=COMMENTS)
@in_one_file
def test_zip_archives_hold_what_zipfile_finds(
    files: dict[str, bytes], method: int, comment: bytes, write: Write
) -> None:
    out = io.BytesIO(zip_of(files, method))
    with zipfile.ZipFile(out, "a") as more:
        more.comment = comment
    folder = write(out.getvalue())
    with zipfile.ZipFile(out) as theirs:
        infos = {info.filename: info for info in theirs.infolist()}
        found = {status.name: status for status in folder.list()}
        assert found.keys() == infos.keys() == files.keys()
        for name, info in infos.items():
            assert (folder / name).read() == theirs.read(name)
            member = folder.store._find(name)[1]  # type: ignore[attr-defined]
            assert (member.offset, member.packed) == (info.header_offset, info.compress_size)
            assert (member.size, member.crc, member.method) == (info.file_size, info.CRC, info.compress_type)


@given(
    files=CONTENTS, form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), start=st.sampled_from(["", "./"])
)
@in_one_file
def test_tar_archives_hold_what_tarfile_finds(
    files: dict[str, bytes], form: int, start: str, write: Callable[[bytes, str], Location]
) -> None:
    long = {f"{'folder/' * 30}{name}": data for name, data in files.items()}
    data = tar_of(files | long, form, start=start)
    folder = write(data, ".tar")
    with tarfile.open(fileobj=io.BytesIO(data)) as theirs:
        infos = {info.name.removeprefix("./"): info for info in theirs.getmembers()}
        assert set(folder.names()) == infos.keys()
        for name, info in infos.items():
            assert (folder / name).read() == theirs.extractfile(info).read()  # type: ignore[union-attr]


def test_an_archive_of_more_than_4_gb_is_read(tmp_path: Path) -> None:
    """Sparse on disk: most of it are zeros that were never written."""
    path = tmp_path / "large.zip"
    with open(path, "wb") as file:
        file.seek(5 << 30)
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
    folder = locate_folder(path)
    assert {name: (folder / name).read() for name in folder.names()} == FILES
    assert min(folder.store._find(name)[1].offset for name in FILES) >= 5 << 30  # type: ignore[attr-defined]


def test_more_members_than_16_bits_count(write: Write) -> None:
    files = {f"{number % 7}/{number}.xml": b"%d" % number for number in range(66_000)}
    folder = write(zip_of(files, zipfile.ZIP_STORED))
    assert sum(1 for _ in folder.names()) == 66_000
    assert (folder / "3/65999.xml").exists() is ("3/65999.xml" in files)
    assert (folder / f"{65_999 % 7}/65999.xml").read() == b"65999"


def test_names_in_other_encodings_and_with_backslashes(write: Write) -> None:
    folder = write(
        crafted_zip(
            Entry(b"of dos \x84.xml", host=0),
            Entry("of unix ä.xml".encode(), host=3),
            Entry("flagged ä.xml".encode(), flags=0x800, host=0),
            Entry(b"not utf-8 \xff.xml", host=3),
            Entry(b"ward\\1\\a.xml", host=0),
            Entry(b"of unix\\a.xml", host=3),
            Entry(b"./b//c/./d.xml"),
        )
    )
    assert set(folder.names()) == {
        *("of dos ä.xml", "of unix ä.xml", "flagged ä.xml", "not utf-8 \xa0.xml", "ward/1/a.xml", "of unix\\a.xml"),
        "b/c/d.xml",
    }
    assert (folder / "ward/1/a.xml").read() == b"data"


def test_the_latest_of_several_members_of_a_tar_counts(write: Callable[[bytes, str], Location]) -> None:
    first, second = tar_of({"a.xml": b"old", "b.xml": b"b"}), tar_of({"a.xml": b"new"})
    folder = write(first[:2048] + second, ".tar")
    assert {name: (folder / name).read() for name in folder.names()} == {"a.xml": b"new", "b.xml": b"b"}


def test_a_header_with_a_long_extra_field(write: Write) -> None:
    folder = write(crafted_zip(Entry(b"a.xml", b"one", local_extra=b"x" * 60_000), Entry(b"b.xml", b"two", 8)))
    assert [(folder / name).read() for name in ("a.xml", "b.xml")] == [b"one", b"two"]
    assert (folder / "a.xml").read(1) == b"ne"


# --- what is refused -------------------------------------------------------------------------------------------------

LINK = (0o120777 << 16) & 0xFFFFFFFF
GOOD = Entry(b"good.xml", b"<good/>")


def end64(count: int, offset: int, at: int) -> bytes:
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, 50, offset)
    return record + struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)


WHOLE = crafted_zip(GOOD, Entry(b"b.xml"))
ZIPS_REFUSED = {
    "no archive": (b"<xml/>" * 100, "not a ZIP archive"),
    "nothing": (b"", "not a ZIP archive"),
    "cut off": (WHOLE[:-30], "cut off"),
    "cut off before": (WHOLE[40:], "directory that is not in it"),
    "followed by other bytes": (WHOLE + b"\0" * 9, "followed by other bytes"),
    "a comment that lies": (crafted_zip(GOOD, comment=b"x" * 10)[:-3], "cut off"),
    "two ends": (crafted_zip(GOOD, comment=crafted_zip(GOOD)), "several ends"),
    "fewer members": (crafted_zip(GOOD, count=3), "its end says 3"),
    "more members": (crafted_zip(GOOD, GOOD, count=1), "its end says 1"),
    "a part": (WHOLE[:-18] + b"\1" + WHOLE[-17:], "split"),
    "directory of nonsense": (WHOLE.replace(b"PK\1\2", b"PK\1\3"), "entry that is none"),
    "entry cut off": (WHOLE.replace(b"\5\0" + bytes(10), b"\5\1" + bytes(10)), "cut off"),
    "up": (crafted_zip(GOOD, Entry(b"a/../../b.xml")), r"member 2 leads out of the archive"),
    "up in Windows": (crafted_zip(Entry(b"..\\b.xml", host=0)), "leads out of the archive"),
    "absolute": (crafted_zip(Entry(b"/etc/x.xml")), "absolute"),
    "absolute in Windows": (crafted_zip(Entry(b"C:\\x.xml", host=0)), "absolute"),
    "NUL": (crafted_zip(Entry(b"a\0.xml")), "NUL"),
    "no name": (crafted_zip(Entry(b"")), "is none"),
    "dots": (crafted_zip(Entry(b".")), "leads out"),
    "overlapping": (crafted_zip(GOOD, Entry(b"b.xml", offset=0)), "overlap"),
    "into the directory": (crafted_zip(Entry(b"b.xml", packed=6, size=6)), "overlap"),
    "larger than the archive": (crafted_zip(Entry(b"b.xml", packed=1 << 31, size=1 << 31)), "larger than the archive"),
    "outside": (crafted_zip(Entry(b"b.xml", offset=1 << 30)), "overlap"),
    "64 bits that lie": (
        crafted_zip(Entry(b"b.xml", offset=0xFFFFFFFF, extra=struct.pack("<2HQ", 1, 8, (1 << 64) - 9))),
        "where the archive is not",
    ),
    "64 bits missing": (crafted_zip(Entry(b"b.xml", offset=0xFFFFFFFF)), "overlap"),
    "end of 64 bits missing": (WHOLE[:-22] + struct.pack("<4sLQL", b"PK\6\7", 0, 5, 1) + WHOLE[-22:], "is missing"),
    "end of 64 bits that lies": (WHOLE[:-22] + end64(1 << 60, 0, len(WHOLE) - 22) + WHOLE[-22:], "members"),
}


@pytest.mark.parametrize("case", ZIPS_REFUSED)
def test_zip_archives_that_lie_are_refused_in_one_line(case: str, write: Write) -> None:
    data, reason = ZIPS_REFUSED[case]
    folder = write(data)
    for ask in (
        lambda: list(folder.names()),
        (folder / "good.xml").read,
        folder.is_folder,
        (folder / "good.xml").exists,
    ):
        with pytest.raises(Unreadable, match=reason) as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert ".xml" not in str(caught.value)


MEMBERS_REFUSED = {
    "encrypted": (Entry(b"b.xml", flags=1), "encrypted"),
    "AES": (Entry(b"b.xml", method=99), "encrypted"),
    "bzip2": (Entry(b"b.xml", method=12), "bzip2"),
    "unknown method": (Entry(b"b.xml", method=77), "number 77"),
    "link": (Entry(b"b.xml", b"/etc/passwd", attributes=LINK), "link"),
    "device": (Entry(b"b.xml", attributes=(0o020777 << 16)), "no regular file"),
    "wrong CRC": (Entry(b"b.xml", crc=1), "CRC-32"),
    "wrong CRC, deflated": (Entry(b"b.xml", method=8, crc=1), "CRC-32"),
    "two sizes": (Entry(b"b.xml", size=9), "cannot be true"),
    "impossible ratio": (Entry(b"b.xml", b"a" * 99, 8, size=1 << 20), "cannot be true"),
    "too short": (Entry(b"b.xml", b"ab" * 99, 8, size=199), "another size"),
    "too long": (Entry(b"b.xml", b"ab" * 99, 8, size=197), "another size"),
    "another name": (Entry(b"b.xml", local_name=b"another.xml"), "do not agree"),
    "another method": (Entry(b"b.xml", local_method=8), "do not agree"),
}


@pytest.mark.parametrize("case", MEMBERS_REFUSED)
def test_members_that_lie_are_refused_and_others_are_read(case: str, write: Write) -> None:
    entry, reason = MEMBERS_REFUSED[case]
    folder = write(crafted_zip(GOOD, entry, Entry(b"c.xml", b"<c/>")))
    assert set(folder.names()) == {"good.xml", "b.xml", "c.xml"}
    assert (folder / "b.xml").exists()
    for ask in ((folder / "b.xml").read, lambda: (folder / "b.xml").fetch(1 << 30)):
        with pytest.raises(Unreadable, match=reason) as caught:
            ask()
        assert "\n" not in str(caught.value)
        assert "passwd" not in str(caught.value)
    assert (folder / "good.xml").read() == b"<good/>"
    assert (folder / "c.xml").read() == b"<c/>"


def test_data_that_are_not_deflated_are_refused(write: Write) -> None:
    data = crafted_zip(Entry(b"b.xml", b"abc" * 50, 8))
    folder = write(data.replace(data[35:40], b"\xff\xff\xff\xff\xff", 1))
    with pytest.raises(Unreadable, match="compressed data are none"):
        (folder / "b.xml").read()


def test_of_several_members_with_one_name_none_is_read(write: Write) -> None:
    folder = write(
        crafted_zip(Entry(b"a.xml", b"1"), Entry(b"b.xml", b"2"), Entry(b"./a.xml", b"3"), Entry(b"a.xml", b"4"))
    )
    assert list(folder.names()) == ["a.xml", "b.xml"]
    with pytest.raises(Unreadable, match="several members"):
        (folder / "a.xml").read()
    assert (folder / "b.xml").read() == b"2"


def test_a_bomb_of_honest_sizes_is_not_unpacked(write: Write) -> None:
    folder = write(zip_of({"bomb.csv": bytes(UNPACKED_LIMIT + 1), "good.xml": b"<good/>"}))
    bomb = folder / "bomb.csv"
    assert bomb.fetch(1 << 20)[1] is None
    for ask in (bomb.read, lambda: bomb.fetch(1 << 30)):
        with pytest.raises(Unreadable, match="unpack the archive"):
            ask()
    assert bomb.read(0, 100) == bytes(100)
    assert (folder / "good.xml").read() == b"<good/>"


def test_ranges_of_a_large_compressed_member_take_little_memory_and_time(write: Write) -> None:
    """Marks every 16 MiB, so that going back does not begin at the beginning."""
    rng = random.Random(3)
    pieces = [rng.randbytes(1000) * 1049 for _ in range(70)]
    data = b"".join(pieces)
    folder = write(zip_of({"large.h5": data}))
    member = folder / "large.h5"
    tracemalloc.start()
    with member.open() as file:
        for at in (len(data) - 10, 0, 50_000_000, 20_000_000, 20_100_000, 5_000_000, 66_000_000, len(data) - 3_000_000):
            file.seek(at)
            assert file.read(100_000) == data[at : at + 100_000]
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    inflating = archives._inflating(folder.store, *folder.store._find("large.h5"))  # type: ignore[arg-type, attr-defined]
    with mock.patch.object(inflating, "_go_on", wraps=inflating._go_on) as steps:
        for at in (1_000, 60_000_000, 30_000_000):
            assert inflating.read(at, at + 1000) == data[at : at + 1000]
    assert steps.call_count <= 3 * 16


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"crc": 7}, "CRC-32"), ({"size": 3_000_001}, "another size"), ({"size": 2_999_999}, "another size")],
)
def test_the_end_of_ranges_shows_what_lies(more: dict[str, int], reason: str, write: Write) -> None:
    data = random.Random(4).randbytes(1000) * 3000
    folder = write(crafted_zip(Entry(b"a.h5", data, 8, **more)))
    member = folder / "a.h5"
    assert member.read(1_500_000, 1_500_100) == data[1_500_000:1_500_100]
    for _ in range(2):
        with pytest.raises(Unreadable, match=reason):
            member.read(2_500_000, 2_900_000)


@given(
    sizes=st.lists(st.sampled_from([0, 1, 999, 70_000, 900_000]), min_size=2, max_size=8),
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 2_000_000)), max_size=6),
    level=st.sampled_from([0, 1, 9]),
)
@in_one_file
def test_ranges_are_slices_of_the_whole(
    sizes: list[int], places: list[tuple[float, int]], level: int, write: Write
) -> None:
    data = b"".join(random.Random(size).randbytes(size) + bytes(2 * size) for size in sizes)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        archive.writestr("a.h5", data)
    member = write(out.getvalue()) / "a.h5"
    for share, length in places:
        start = int(share * len(data))
        assert member.read(start, start + length) == data[start : start + length]


def tar_with(**more: object) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in (("good.xml", b"<good/>"), ("b.xml", b"data")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name == "b.xml":
                for key, value in more.items():
                    setattr(member, key, value)
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return out.getvalue()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "link"),
        ({"type": tarfile.LNKTYPE, "linkname": "good.xml"}, "link"),
        ({"type": tarfile.FIFOTYPE}, "no regular file"),
        ({"pax_headers": {"GNU.sparse.map": "0,1", "GNU.sparse.size": "4"}}, "sparse"),
    ],
)
def test_members_of_a_tar_that_are_no_files_are_refused(
    more: dict[str, object], reason: str, write: Callable[[bytes, str], Location]
) -> None:
    folder = write(tar_with(**more), ".tar")
    assert set(folder.names()) == {"good.xml", "b.xml"}
    with pytest.raises(Unreadable, match=reason):
        (folder / "b.xml").read()
    assert (folder / "good.xml").read() == b"<good/>"


TAR = tar_of(FILES)
TARS_REFUSED = {
    "no archive": (b"<xml/>" * 1000, "not a tar archive"),
    "nothing": (b"", "not a tar archive"),
    "compressed": (b"\x1f\x8b\x08" + bytes(600), "not a tar archive"),
    "cut off in a member": (TAR[: 512 + 300], "ends within a member|cut off"),
    "cut off between members": (TAR[: 512 + 12288], "cut off"),
    "a damaged header": (TAR[: 512 + 12288] + b"x" + TAR[512 + 12289 :], "a header is none"),
    "up": (tar_of({"../b.xml": b""}), "leads out of the archive"),
    "absolute": (tar_of({"/etc/b.xml": b""}), "absolute"),
    "huge": (tar_with(pax_headers={"size": str(1 << 62)}), "ends within a member|damaged"),
    "less than nothing": (tar_with(pax_headers={"size": "-1024"}), "cannot be true|damaged"),
    "no number": (tar_with(pax_headers={"size": "many"}), "damaged|cannot be true|cut off"),
    "a megabyte of a name": (tar_with(pax_headers={"comment": "x" * (2 << 20)}), "damaged"),
}


@pytest.mark.parametrize("case", TARS_REFUSED)
def test_tar_archives_that_lie_are_refused_in_one_line(case: str, write: Callable[[bytes, str], Location]) -> None:
    data, reason = TARS_REFUSED[case]
    folder = write(data, ".tar")
    with pytest.raises(Unreadable, match=reason) as caught:
        list(folder.names())
    assert "\n" not in str(caught.value)
    assert ".xml" not in str(caught.value)


def content_or_reason(member: Location) -> bytes | str:
    try:
        return member.read()
    except StorageError as error:
        return str(error)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_damaged_archives_are_read_or_refused(suffix: str, write: Callable[[bytes, str], Location]) -> None:
    good = zip_of(FILES) if suffix == ".zip" else tar_of({name: data[:900] for name, data in FILES.items()})
    rng = random.Random(2)
    n_refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            at = (
                rng.randrange(len(data))
                if suffix == ".tar" or rng.random() < 0.3
                else rng.randrange(len(data) - 500, len(data))
            )
            data[at] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        folder = write(bytes(data), suffix)
        try:
            found = {name: content_or_reason(folder / name) for name in folder.names()}
        except Unreadable:
            n_refused += 1
            continue
        n_refused += sum(isinstance(content, str) for content in found.values())
        assert all("\n" not in content for content in found.values() if isinstance(content, str))
        if suffix == ".zip":
            assert all(FILES[name] == found[name] for name in FILES.keys() & found if isinstance(found[name], bytes))
    assert n_refused > 30


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.TAR.BZ2", "a.tar.xz", "a.tar.zst", "a.tar.gz::b.xml"])
def test_a_compressed_tar_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    (tmp_path / name.partition("::")[0]).write_bytes(b"\x1f\x8b")
    with pytest.raises(SettingsError, match="mkdir FOLDER && tar -xf ARCHIVE -C FOLDER"):
        locate_folder(tmp_path / name)


def test_an_archive_in_an_archive_is_refused(write: Write) -> None:
    folder = write(zip_of({"inner.zip": zip_of(FILES)}))
    for name in ("inner.zip::z.xml", "inner.zip"):
        with pytest.raises(SettingsError, match="unpack the outer one"):
            locate(f"{folder}{name}")


def test_what_only_looks_like_an_archive(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "folder.zip" / "a.xml").write_bytes(b"in a folder")
    (tmp_path / "x.zip::a.xml").write_bytes(b"a file of this name")
    assert list(locate_folder(tmp_path / "folder.zip").names()) == ["a.xml"]
    assert locate(tmp_path / "x.zip::a.xml").read() == b"a file of this name"
    assert not locate(tmp_path / "none.zip::a.xml").exists()
    (tmp_path / "real.zip").write_bytes(zip_of(FILES))
    with pytest.raises(SettingsError, match="not written to archives"):
        locate_output(tmp_path / "real.zip::out")


# --- many processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_reading_process_needs_no_index(suffix: str, write: Callable[[bytes, str], Location]) -> None:
    folder = write(zip_of(FILES) if suffix == ".zip" else tar_of(FILES), suffix)
    for path in (f"{folder}a/b/record", f"{folder}a/b/record.hea", f"{folder}z.xml"):
        excerpt = pickle.loads(pickle.dumps(excerpt_of(path)))
        assert len(pickle.dumps(excerpt)) < 1000
        with mock.patch.object(ArchiveStore, "_index", side_effect=AssertionError):
            source = make_source(path, Hints(), excerpt=excerpt)
            if "record" in path:
                assert source.location.beside("record.hea").read() == FILES["a/b/record.hea"]
                assert source.location.beside("record.dat").read() == FILES["a/b/record.dat"]
                assert not source.location.beside("record.xyz").exists()
            else:
                assert source.content == FILES["z.xml"]
                assert not source.location.beside("z.xml.hea").exists()
    # A file that is none of the recording's by its name: the index is made after all.
    source = make_source(f"{folder}z.xml", Hints(), excerpt=excerpt_of(f"{folder}z.xml"))
    assert source.location.beside("a/empty.csv").read() == b""


def test_an_excerpt_has_few_members_beside_a_recording(write: Write) -> None:
    files = {f"1.2.{number}": b"x" for number in range(500)} | {"1.2.7.hea": b"h", "a/1": b"y"}
    folder = write(zip_of(files))
    excerpt = excerpt_of(f"{folder}1.2.7")
    assert excerpt is not None
    assert set(excerpt.members) == {b"1.2.7", b"1.2.7.hea"}
    assert excerpt_of("/some/folder/a.xml") is None
    assert excerpt_of(f"{folder}none.xml") == excerpt._replace(name=b"none.xml", stem=b"none.", members={})
    assert excerpt_of("/no/archive.zip::a.xml") is None


def test_an_archive_that_was_replaced_is_indexed_again(write: Write) -> None:
    folder = write(zip_of({"a.xml": b"old"}))
    excerpt = excerpt_of(f"{folder}a.xml")
    assert (folder / "a.xml").read() == b"old"
    write(zip_of({"b.xml": b"more", "a.xml": b"new"}))
    assert (folder / "a.xml").read() == b"new"
    with pytest.raises(Replaced, match="begin again"):
        _ = make_source(f"{folder}a.xml", Hints(), excerpt=excerpt).content


def test_an_archive_in_another_store_is_asked_once(tmp_path: Path) -> None:
    store = MemoryStore(str(tmp_path))
    store.put("study/a.zip", zip_of(FILES))
    folder = Location(ArchiveStore(store, "study/a.zip"), "")
    assert not folder.is_here
    with mock.patch.object(MemoryStore, "status", autospec=True, side_effect=MemoryStore.status) as asked:
        for name, data in FILES.items():
            assert (folder / name).read() == data
            assert (folder / name).exists()
    assert asked.call_count == 1
    with mock.patch.object(MemoryStore, "read", autospec=True, side_effect=MemoryStore.read) as asked:
        assert (folder / "z.xml").read() == FILES["z.xml"]
        assert (folder / "a/b/record.dat").read() == FILES["a/b/record.dat"]
    assert asked.call_count == 2
    store.put("study/a.zip", zip_of({"z.xml": b"new"}))
    with pytest.raises(Replaced):
        (folder / "z.xml").read()
    assert (folder / "z.xml").read() == b"new"
    store.delete(["study/a.zip"])
    with pytest.raises(Missing):
        list(folder.names())
