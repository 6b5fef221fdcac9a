"""Every store keeps the same promises; on this machine a file takes its place in one way only, or not at all."""

from __future__ import annotations

import ast
import errno
import io
import os
import pickle
import re
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ecgfounder
from ecgfounder.errors import ECGFounderError, SettingsError, StorageError
from ecgfounder.storage import Conflict, Denied, Location, Missing, Unavailable, is_url, locate, path_here
from ecgfounder.storage import replace as replace_module
from ecgfounder.storage.hub import HubStore
from ecgfounder.storage.local import LocalStore
from ecgfounder.storage.memory import MemoryStore
from ecgfounder.storage.objects import ObjectStore
from ecgfounder.storage.replace import FILES_AT_ONCE, replace_file, replace_files, replacing, reserve
from ecgfounder.storage.store import BLOCK_BYTES, RangedFile, Status, Store, walk_order
from tests.harness.hub_server import CommittedStore

STORES = ["local", "memory", *(pytest.param(name, marks=pytest.mark.services) for name in ("hub", "objects"))]
"""Every store there is; another one joins here."""

ODD_NAMES = [
    *(
        "with blank",
        "50%",
        "50%25",
        "%2e%2e",
        "a#b",
        "what?",
        "a+b",
        "späße",
        "日本",
        "e\u0301",
        "a&b=c;d",
        "a:b",
        "::",
    ),
    *("it's", 'a "quote"', "~", ".hidden", "-rf", "ends.", "back\\slash", "[a]*", "folder ü/50% of #1?/a+b.json"),
]
IMPOSSIBLE_NAMES = ["a\0b", "half\ud800", "folder\0/a", "x" * 300, "x" * 300 + "/a"]

with_a_store = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "objects":
        return ObjectStore("s3", request.getfixturevalue("bucket"))
    if request.param == "hub":
        return CommittedStore.of(request.getfixturevalue("hub"), f"clinic/{uuid.uuid4().hex}")
    if request.param == "memory":
        return MemoryStore(f"{tmp_path.name}-{uuid.uuid4().hex}")
    (tmp_path / "store").mkdir()
    return LocalStore(str(tmp_path / "store"))


@pytest.fixture
def local(tmp_path: Path) -> LocalStore:
    """An empty store of files."""
    (tmp_path / "files").mkdir()
    return LocalStore(str(tmp_path / "files"))


def pattern(size: int) -> bytes:
    """Content in which no two pieces are alike."""
    return np.arange(-(-size // 4), dtype=">u4").tobytes()[:size]


def names_in(statuses: Iterable[Status]) -> list[str]:
    return [status.name for status in statuses]


def files_below(folder: str | Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if not path.is_dir()}


# What every store promises.


@pytest.mark.parametrize("size", [0, 1, 5_000_003])
@pytest.mark.parametrize("way", ["put", "create"])
def test_what_is_written_is_read_back(store: Store, way: str, size: int) -> None:
    written = getattr(store, way)("run/a.bin", pattern(size))
    assert store.read("run/a.bin") == pattern(size)
    assert (written.name, written.size) == ("run/a.bin", size)
    assert written == store.status("run/a.bin")
    assert written.mtime_ns > 0 or isinstance(store, HubStore)  # whose files have no times


def test_a_put_replaces_what_is_there(store: Store) -> None:
    for content in (b"a longer first content", b"short", b"", b"again"):
        assert store.put("a", content) == store.status("a")
        assert store.read("a") == content
    assert names_in(store.list()) == ["a"]


@given(start=st.integers(0, 120), stop=st.none() | st.integers(0, 120), size=st.sampled_from([0, 1, 100]))
@with_a_store
def test_a_range_is_a_slice_of_the_whole(store: Store, start: int, stop: int | None, size: int) -> None:
    status = store.put("a", pattern(size))
    assert store.read("a", start, stop) == pattern(size)[start:stop]
    assert store.read("a", start, stop, tag=status.tag) == pattern(size)[start:stop]


@pytest.mark.parametrize("content", [b"other", b"longer than before", b""])
def test_a_read_under_a_tag_of_content_that_has_changed_is_a_conflict(store: Store, content: bytes) -> None:
    before = store.put("a", b"first")
    store.put("a", content)
    for some in ((0, None), (0, 1), (2, 2), (90, 99)):
        with pytest.raises(Conflict):
            store.read("a", *some, tag=before.tag)
    assert store.read("a", tag=store.status("a").tag) == content
    store.delete(["a"])
    with pytest.raises((Missing, Conflict)):
        store.read("a", tag=before.tag)


def test_tags_are_the_same_while_nothing_changes_and_others_for_other_content(store: Store) -> None:
    seen = {}
    for number in range(50):
        content = b"%05d" % (number % 25)
        tag = store.put("a", content).tag
        assert tag
        assert {store.status("a").tag for _ in range(3)} == {tag}
        store.read("a")
        store.put("b", b"something else")
        assert store.status("a").tag == tag
        assert seen.setdefault(tag, content) == content


def test_an_object_is_created_once_and_the_first_one_stays(store: Store) -> None:
    first = store.create("run/lock", b"first")
    for content in (b"second", b"first", b""):
        with pytest.raises(Conflict):
            store.create("run/lock", content)
    assert store.read("run/lock") == b"first"
    assert store.status("run/lock") == first
    assert names_in(store.list()) == ["run/lock"]
    store.delete(["run/lock"])
    store.create("run/lock", b"second")
    assert store.read("run/lock") == b"second"
    store.put("put", b"")
    with pytest.raises(Conflict):
        store.create("put", b"second")


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What some threads give, or the store's errors, that begin together."""
    gate = threading.Barrier(count)

    def begin(number: int) -> Any:
        gate.wait()
        try:
            return work(number)
        except StorageError as error:
            return error

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(begin, range(count)))


def test_of_sixteen_that_create_at_once_exactly_one_wins(store: Store) -> None:
    store.put(
        "first", b""
    )  # the tests' server takes seconds for a bucket's first object, and first answers are awaited less long
    for attempt in range(2 if isinstance(store, ObjectStore) else 20):  # each takes seconds there
        name = f"folder{attempt}/lock"
        contents = [bytes([number]) * 10_000 for number in range(16)]
        came = at_once(16, lambda number, name=name, contents=contents: store.create(name, contents[number]))
        winners = [number for number, what in enumerate(came) if isinstance(what, Status)]
        assert len(winners) == 1
        others = [what for number, what in enumerate(came) if number not in winners]
        assert [what for what in others if not isinstance(what, Conflict)] == []
        assert store.read(name) == contents[winners[0]]
        assert names_in(store.list(f"folder{attempt}")) == [name]


def test_of_several_that_put_at_once_one_is_there_whole(store: Store) -> None:
    contents = [bytes([number]) * (100_000 + number) for number in range(16)]
    came = at_once(16, lambda number: store.put("new/folder/a", contents[number]))
    assert all(isinstance(what, Status) for what in came)
    assert store.read("new/folder/a") in contents
    assert names_in(store.list()) == ["new/folder/a"]


@pytest.mark.parametrize("name", ["a", "folder", "folder/b", "folder2", "other/a", "a/below", "a/below/it", ""])
def test_what_is_not_there_is_missing(store: Store, name: str) -> None:
    store.put("folder/a", b"in a folder")
    if name.startswith("a/"):
        store.put("a", b"not a folder")
    asked: list[Callable[[], Any]] = [
        lambda: store.status(name),
        lambda: store.read(name),
        lambda: store.fetch(name, 100),
        lambda: store.open(name),
        lambda: RangedFile(store, name),
    ]
    for ask in asked:
        with pytest.raises(Missing):
            ask()
    with pytest.raises((Missing, Conflict)):
        store.read(name, 3, 5, tag="a tag")
    assert not Location(store, name).exists()


@pytest.mark.parametrize("name", IMPOSSIBLE_NAMES, ids=["NUL", "half", "folder with NUL", "long", "long folder"])
def test_a_name_that_no_file_can_have_is_never_more_than_an_error_of_the_store(store: Store, name: str) -> None:
    """A store that has room for such a name may keep it."""
    asked: list[Callable[[], Any]] = [
        lambda: store.status(name),
        lambda: store.read(name),
        lambda: store.fetch(name, 1),
        lambda: store.open(name).close(),
        lambda: list(store.list(name)),
        lambda: list(store.names(name)),
        lambda: store.put(name, b"x"),
        lambda: store.create(name, b"x"),
        lambda: store.delete([name]),
    ]
    for ask in asked:
        with suppress(StorageError):
            ask()


TREE = [
    "A",
    "a",
    "b/a",
    "b/b/a",
    "b/c",
    "b!/a",
    "b-/a",
    "b.json",
    "c",
    "c d/e",
    "run/a",
    "run/b/c",
    "run2/a",
    "run.json",
]
IN_ORDER = [
    *("A", "a", "b.json", "c", "run.json", "b/a", "b/c", "b/b/a", "b!/a", "b-/a", "c d/e", "run/a", "run/b/c", "run2/a")
]


def test_a_listing_has_a_folders_objects_by_name_before_those_of_its_subfolders(store: Store) -> None:
    for name in TREE:
        store.put(name, name.encode())
    assert names_in(store.list()) == IN_ORDER == sorted(TREE, key=walk_order)
    assert names_in(store.list("b")) == ["b/a", "b/c", "b/b/a"]
    assert names_in(store.list("b/b")) == names_in(store.list("/b/b/")) == ["b/b/a"]


@given(
    st.sets(
        st.lists(st.sampled_from(["a", "b", "a!", "a-", "a0", "aa", "ä", "B"]), min_size=1, max_size=4).map("/".join)
    )
)
@with_a_store
def test_any_listing_is_in_the_order_of_a_walk(store: Store, names: set[str]) -> None:
    names = {f"{name}.x" for name in names}  # so that no object has a folder's name, which a file system does not allow
    store.delete(list(store.names()))
    for name in names:
        store.put(name, b"")
    assert names_in(store.list()) == list(store.names()) == sorted(names, key=walk_order)


def test_a_listing_of_a_folder_has_nothing_of_one_whose_name_goes_on(store: Store) -> None:
    for name in TREE:
        store.put(name, name.encode())
    assert names_in(store.list("run")) == ["run/a", "run/b/c"]
    assert names_in(store.list("run2")) == ["run2/a"]
    assert names_in(store.list("ru")) == []


def test_a_listing_says_of_each_object_what_its_status_says(store: Store) -> None:
    for number, name in enumerate(TREE):
        store.put(name, b"x" * number)
    for folder in ("", "run"):
        found = list(store.list(folder))
        assert found == [store.status(status.name) for status in found]
        assert names_in(found) == list(store.names(folder))
    assert {status.size for status in store.list()} == set(range(len(TREE)))


def test_a_skipped_folder_is_left_out_with_all_that_is_below_it(store: Store) -> None:
    kept = ["deep/er/a", "deep/file_run", "deep/a", "deeper/x_run/a"]
    left = ["_run/a", "_run/b/c", "deep/_run/a", "deep/er/_run/a/b"]
    objects = ["deep/er/er/_run"]  # an object is not a folder, whatever its name
    for name in (*kept, *left, *objects):
        store.put(name, b"")
    for listed in (names_in(store.list(skip="_run".__eq__)), list(store.names(skip="_run".__eq__))):
        assert listed == sorted((*kept, *objects), key=walk_order)
    assert names_in(store.list("_run", skip="_run".__eq__)) == ["_run/a", "_run/b/c"]  # it was asked for
    assert names_in(store.list("deep", skip={"_run", "er"}.__contains__)) == ["deep/a", "deep/file_run"]


@pytest.mark.parametrize("folder", ["gone", "a/gone", "run/gone", "ru", "object", "object/below", "x" * 300])
def test_a_listing_of_a_folder_that_is_not_there_is_empty(store: Store, folder: str) -> None:
    store.put("object", b"")
    store.put("run/a", b"")
    assert list(store.list(folder)) == []
    assert list(store.names(folder)) == []


def test_deleting_removes_what_is_there_and_is_quiet_about_the_rest(store: Store) -> None:
    for name in ("a", "b", "folder/a", "folder/b"):
        store.put(name, b"")
    store.delete(["a", "gone", "folder/b", "a", "folder/gone", "gone/a"])
    assert names_in(store.list()) == ["b", "folder/a"]
    store.delete([])
    store.delete(iter(["b", "folder/a"]))
    assert names_in(store.list()) == []
    store.put("a", b"back")
    assert store.read("a") == b"back"


@pytest.mark.parametrize("name", ["object/below", "object/below/it", *IMPOSSIBLE_NAMES])
def test_deleting_what_cannot_be_there_is_quiet(store: Store, name: str) -> None:
    store.put("object", b"")
    store.put("last", b"")
    store.delete([name, "last"])
    assert names_in(store.list()) == ["object"]


@pytest.mark.timeout(30)
def test_objects_can_be_deleted_while_they_are_listed(store: Store) -> None:
    for name in TREE:
        store.put(name, b"")
    worker = threading.Thread(target=lambda: store.delete(store.names("b")), daemon=True)
    worker.start()
    worker.join(10)
    assert not worker.is_alive()
    assert names_in(store.list()) == [name for name in IN_ORDER if not name.startswith("b/")]


def possible_in(store: Store, names: Iterable[str]) -> list[str]:
    """The names that a store keeps as they are: SeaweedFS makes a slash of a backslash."""
    return [name for name in names if not (isinstance(store, ObjectStore) and "\\" in name)]


@pytest.mark.parametrize("name", [*ODD_NAMES, "ü" * 126, "x" * 255], ids=lambda name: name[:12])
def test_odd_names_are_names_like_others(store: Store, name: str) -> None:
    if not possible_in(store, [name]):
        pytest.skip("the server of the tests has no such names")
    content = name.encode()
    store.put("beside", b"")
    for write in (store.put, store.create):
        status = write(name, content)
        assert (status.name, status.size) == (name, len(content))
        assert store.status(name) == status
        assert store.read(name) == content
        assert store.fetch(name, 1000) == (status, content)
        with store.open(name) as file:
            assert file.read() == content
        assert set(names_in(store.list())) == set(store.names()) == {"beside", name}
        assert locate(store.url(name)).read() == content
        store.delete([name])
        assert list(store.names()) == ["beside"]


def test_odd_names_do_not_stand_for_each_other(store: Store) -> None:
    names = possible_in(store, ODD_NAMES)
    for name in names:
        store.put(f"all/{name}", name.encode())
    assert {name: store.read(name) for name in store.names("all")} == {f"all/{name}": name.encode() for name in names}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 20_000)),
        st.tuples(st.just("read"), st.sampled_from([-1, 0, 1, 8191, 8192, 8193])),
        st.tuples(st.just("readinto"), st.integers(0, 20_000)),
        st.tuples(
            st.just("seek"), st.integers(-30_000, 30_000), st.sampled_from([io.SEEK_SET, io.SEEK_CUR, io.SEEK_END])
        ),
        st.tuples(st.just("readline")),
    ),
    max_size=12,
)


@pytest.mark.parametrize("way", [Store.open, RangedFile, LocalStore.open], ids=["buffered", "raw", "own"])
@given(size=st.sampled_from([0, 1, 100, 8192, 25_000]), steps=STEPS)
@with_a_store
def test_an_object_that_is_opened_reads_like_its_bytes(
    store: Store, way: Callable[[Store, str], io.BytesIO], size: int, steps: Sequence[tuple[Any, ...]]
) -> None:
    store.put("a", pattern(size))
    with store.open("a") if way is LocalStore.open else way(store, "a") as file, io.BytesIO(pattern(size)) as expected:
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        for step, *arguments in steps:
            if step == "readinto":
                buffers = bytearray(arguments[0]), bytearray(arguments[0])
                assert file.readinto(buffers[0]) == expected.readinto(buffers[1])
                assert buffers[0] == buffers[1]
                continue
            if step == "seek":
                offset, whence = arguments
                start = {io.SEEK_SET: 0, io.SEEK_CUR: expected.tell(), io.SEEK_END: size}[whence]
                if start + offset < 0:
                    with pytest.raises((OSError, ValueError)):
                        file.seek(offset, whence)
                    file.seek(expected.tell())
                    continue
            assert getattr(file, step)(*arguments) == getattr(expected, step)(*arguments)
            assert file.tell() == expected.tell()


SEVERAL_BLOCKS = 4 * BLOCK_BYTES - 5


def replaced(store: Store) -> None:
    store.put("a", b"B" * SEVERAL_BLOCKS)


def shortened(store: Store) -> None:
    store.put("a", b"B" * 10)


def removed(store: Store) -> None:
    store.delete(["a"])


@pytest.mark.parametrize("change", [replaced, shortened, removed])
@pytest.mark.parametrize("way", [Store.open, RangedFile], ids=["buffered", "raw"])
def test_content_that_changes_while_ranges_of_it_are_read_is_an_error(
    store: Store, way: Callable[[Store, str], io.BytesIO], change: Callable[[Store], None]
) -> None:
    store.put("a", b"A" * SEVERAL_BLOCKS)
    with way(store, "a") as file:
        assert file.read(10) == b"A" * 10
        change(store)
        with pytest.raises(OSError, match=r"\w"):
            file.read()


def counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The ranges that are read of a store from now on."""
    read, ranges = type(store).read, []

    def count(self: Store, name: str, start: int, stop: int, *, tag: str) -> bytes:
        ranges.append((start, stop))
        return read(self, name, start, stop, tag=tag)

    monkeypatch.setattr(type(store), "read", count)
    return ranges


def test_blocks_are_kept_and_more_are_read_at_once_when_reading_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    store, size = MemoryStore(uuid.uuid4().hex), 60 * BLOCK_BYTES + 7
    content = pattern(size)
    store.put("a", content)
    ranges = counted(store, monkeypatch)
    with store.open("a") as file:
        for at in (0, 5, 40, 7 * BLOCK_BYTES - 10, 7 * BLOCK_BYTES, 1000):
            file.seek(at)
            assert file.read(20) == content[at : at + 20]
        assert ranges == [(0, 2 * BLOCK_BYTES), (6 * BLOCK_BYTES, 8 * BLOCK_BYTES)]
        file.seek(0)
        del ranges[:]
        while file.read(10_000):
            pass
    assert len(ranges) < 10
    assert sum(stop - start for start, stop in ranges) < size + 8 * BLOCK_BYTES
    with RangedFile(store, "a") as raw:
        del ranges[:]
        assert raw.read() == content
    assert len(ranges) < 8


@pytest.mark.parametrize("change", [replaced, shortened, removed])
def test_an_object_that_is_opened_never_mixes_two_contents(store: Store, change: Callable[[Store], None]) -> None:
    store.put("a", b"A" * SEVERAL_BLOCKS)
    with store.open("a") as file:
        first = file.read(10)
        change(store)
        with suppress(OSError):
            assert first + file.read() == b"A" * SEVERAL_BLOCKS


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 100])
def test_a_fetch_gives_the_status_and_the_content_that_is_not_too_large(store: Store, content: bytes) -> None:
    status = store.put("a", content)
    for most in (len(content), len(content) + 1, 1 << 40):
        assert store.fetch("a", most) == (status, content)
    assert store.fetch("a", len(content) - 1) == (status, None)


def test_what_is_read_is_of_one_moment_while_others_write(store: Store) -> None:
    contents = [bytes([number]) * (1_000 * number + 1) for number in range(5)]
    tags = {store.put("a", content).size: content for content in contents}
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for content in contents:
                store.put("a", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            assert store.read("a") in contents
            with suppress(Conflict):
                status, content = store.fetch("a", 1 << 20)
                assert content == tags[status.size]
            with suppress(Conflict):
                status = store.status("a")
                assert store.read("a", tag=status.tag) == tags[status.size]
    finally:
        done.set()
        writer.join()


def test_stores_and_locations_that_were_pickled_reach_the_same_objects(store: Store) -> None:
    store.put("folder/a", b"content")
    again: Store = pickle.loads(pickle.dumps(store))
    place: Location = pickle.loads(pickle.dumps(Location(store, "folder/a")))
    assert again == store
    assert again.read("folder/a") == place.read() == b"content"
    assert place == Location(store, "folder/a")
    assert hash(place) == hash(Location(store, "folder/a"))
    place.put(b"changed")
    assert store.read("folder/a") == b"changed"
    again.delete(["folder/a"])
    assert list(store.list()) == []


def test_a_location_does_what_its_store_does(store: Store) -> None:
    folder = Location(store, "") / "run"
    place = folder / "sub" / "a.b.json"
    status = place.put(b"content")
    assert (place.name, place.basename, place.stem, place.suffix) == ("run/sub/a.b.json", "a.b.json", "a.b", ".json")
    assert place.folder == folder / "sub"
    assert place.beside("c") == folder / "sub" / "c"
    assert place.exists()
    assert place.status() == store.status("run/sub/a.b.json") == status
    assert place.fetch(100) == (status, b"content")
    assert place.read(3, tag=status.tag) == b"tent"
    with place.open() as file:
        assert file.read(4) == b"cont"
    with pytest.raises(Conflict):
        place.create(b"other")
    assert place.beside(".hidden").create(b"").name == "run/sub/.hidden"
    assert place.beside(".hidden").suffix == ""
    assert list(folder.list()) == list(store.list("run"))
    assert list(folder.names()) == ["sub/.hidden", "sub/a.b.json"]
    assert list(Location(store, "").names(skip="sub".__eq__)) == []
    assert str(place) == store.url("run/sub/a.b.json")
    folder.delete(["sub/a.b.json", "gone"])
    assert list(folder.names()) == ["sub/.hidden"]


def test_every_error_of_a_store_is_one_that_users_may_see() -> None:
    for kind in (Missing, Denied, Unavailable, Conflict):
        assert issubclass(kind, StorageError)
        assert issubclass(kind, ECGFounderError)
    assert not issubclass(StorageError, OSError)


# What files promise beside.


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["folder", "FIFO", "device", "socket", "link to nowhere", "loop", "link to a FIFO"])
def test_what_is_no_regular_file_is_never_waited_for_and_is_missing(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(local.root)  # a socket's path must be short
    at = Path(local.root, "it")
    os.mkfifo("pipe")
    if kind == "folder":
        at.mkdir()
    elif kind == "FIFO":
        os.mkfifo(at)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("it")
    else:
        at.symlink_to({"device": "/dev/zero", "link to nowhere": "gone", "loop": "it", "link to a FIFO": "pipe"}[kind])
    asked: list[Callable[[], Any]] = [
        lambda: local.status("it"),
        lambda: local.read("it"),
        lambda: local.read("it", 0, 10, tag="a tag"),
        lambda: local.fetch("it", 1 << 40),
        lambda: local.open("it"),
    ]
    before = len(os.listdir("/dev/fd"))
    for ask in asked:
        with pytest.raises(Missing):
            ask()
    assert len(os.listdir("/dev/fd")) == before
    assert list(local.list()) == []
    assert set(local.names()) == ({"pipe"} if kind == "folder" else {"it", "pipe"})


def test_devices_are_missing_by_their_own_names() -> None:
    for name in ("dev/zero", "dev/null", "dev", ""):
        with pytest.raises(Missing, match="not a regular file"):
            LocalStore().read(name)
        with pytest.raises(Missing, match="not a regular file"):
            LocalStore().status(name)


@pytest.mark.parametrize("way", ["put", "create"])
def test_nothing_is_written_through_a_link_to_nowhere(local: LocalStore, tmp_path: Path, way: str) -> None:
    Path(local.root, "a").symlink_to(tmp_path / "nowhere")
    with suppress(Conflict):
        getattr(local, way)("a", b"content")
    assert not (tmp_path / "nowhere").exists()
    assert list(local.names()) == ["a"]


def test_a_link_to_a_file_is_read_and_one_to_a_folder_is_not_gone_into(local: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"content")
    Path(local.root, "link").symlink_to(tmp_path / "elsewhere" / "file")
    Path(local.root, "folder").symlink_to(tmp_path / "elsewhere")
    assert local.read("link") == b"content"
    assert names_in(local.list()) == ["link"]
    local.delete(["link", "folder"])
    assert files_below(tmp_path) == {"elsewhere/file"}


def test_deleting_leaves_folders_and_what_is_in_them(local: LocalStore) -> None:
    local.put("folder/a", b"")
    with suppress(StorageError):
        local.delete(["folder"])
    assert files_below(local.root) == {"folder/a"}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((number, Missing) for number in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)),
        *((number, Denied) for number in (errno.EACCES, errno.EPERM, errno.EROFS)),
        *((number, Unavailable) for number in (errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT)),
    ],
    ids=lambda value: errno.errorcode.get(value) if isinstance(value, int) else None,
)
def test_the_systems_errors_are_told_in_its_own_words(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StorageError]
) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    local.put("a", b"")
    for name in ("open", "stat", "unlink", "replace", "link"):
        monkeypatch.setattr(os, name, refuse)
    asked: list[Callable[[], Any]] = [
        lambda: local.read("a"),
        lambda: local.fetch("a", 1),
        lambda: local.open("a"),
        lambda: local.status("a"),
        lambda: local.put("a", b"x"),
        lambda: local.create("b", b"x"),
    ]
    for ask in asked:
        with pytest.raises(kind, match=os.strerror(number)):
            ask()


def test_a_put_or_create_leaves_no_other_file(local: LocalStore) -> None:
    for number in range(3):
        local.put("folder/a", bytes(number))
        local.create(f"folder/b{number}", b"")
    assert files_below(local.root) == {"folder/a", "folder/b0", "folder/b1", "folder/b2"}


def failing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """From now on a system call fails."""

    def fail(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, name, fail)


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_put_that_fails_leaves_what_was_there_and_nothing_else(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = local.put("a", b"before")
    failing(monkeypatch, call)
    with pytest.raises(Unavailable, match="Input/output error"):
        local.put("a", b"after")
    with pytest.raises(Unavailable, match="Input/output error"):
        local.put("b", b"after")
    assert local.read("a") == b"before"
    assert local.status("a") == before
    assert files_below(local.root) == {"a"}


@pytest.mark.parametrize("call", ["link", "fsync"])
def test_a_create_that_fails_leaves_nothing(local: LocalStore, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    failing(monkeypatch, call)
    with pytest.raises(Unavailable, match="Input/output error"):
        local.create("a", b"content")
    assert files_below(local.root) == set()


@pytest.mark.parametrize("way", ["put", "create"])
def test_a_file_has_its_name_only_when_it_is_whole_and_on_disk(
    local: LocalStore, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    place, content = Path(local.root, "a"), pattern(3_000_000)
    synced: list[int] = []
    fsync, replace, link = os.fsync, os.replace, os.link

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            assert not place.exists()
            synced.append(status.st_ino)
        fsync(descriptor)

    def named(real: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        def call(source: Any, target: Any) -> None:
            assert not place.exists()
            assert Path(source).read_bytes() == content
            assert os.stat(source).st_ino in synced
            real(source, target)

        return call

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", named(replace))
    monkeypatch.setattr(os, "link", named(link))
    getattr(local, way)("a", content)
    assert place.read_bytes() == content
    assert len(synced) == 1


def test_a_store_whose_folder_has_vanished_does_not_make_it_again(tmp_path: Path) -> None:
    gone = LocalStore(str(tmp_path / "gone"))
    for write in (gone.put, gone.create):
        for name in ("a", "folder/a"):
            with pytest.raises(StorageError):
                write(name, b"content")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("way", ["put", "create"])
def test_an_object_cannot_lie_below_another_file_and_that_is_no_conflict(local: LocalStore, way: str) -> None:
    local.put("a", b"a file")
    for name in ("a/b", "a/b/c"):
        with pytest.raises(StorageError) as refused:
            getattr(local, way)(name, b"content")
        assert not isinstance(refused.value, Conflict)  # it is not there already
    assert files_below(local.root) == {"a"}


# How a file takes its place.


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("aside", [None, "aside"])
def test_a_file_that_is_being_written_vanishes_when_that_breaks_off(
    tmp_path: Path, error: type[BaseException], aside: str | None
) -> None:
    def break_off(target: Path) -> None:
        with replacing(target, aside=None if aside is None else tmp_path / aside) as file:
            file.write(b"half")
            raise error

    (tmp_path / "a").write_bytes(b"before")
    for target in (tmp_path / "a", tmp_path / "new"):
        with pytest.raises(error):
            break_off(target)
    assert files_below(tmp_path) == {"a"}
    assert (tmp_path / "a").read_bytes() == b"before"


def test_a_file_takes_its_place_only_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    with replacing(tmp_path / "a") as file:
        file.write(b"aft")
        file.flush()
        assert (tmp_path / "a").read_bytes() == b"before"
        assert Path(file.name).parent == tmp_path  # the same file system
        assert Path(file.name).name.startswith(".")
        file.write(b"er")
    assert (tmp_path / "a").read_bytes() == b"after"
    replace_file(tmp_path / "b", b"new", aside=tmp_path / "aside")
    assert (tmp_path / "b").read_bytes() == b"new"
    assert files_below(tmp_path) == {"a", "b"}


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 126, "日" * 85, "\U0001fac0" * 63], ids=lambda name: name[0])
def test_every_name_that_a_file_may_have_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"before")
    replace_file(tmp_path / name, b"after")
    assert (tmp_path / name).read_bytes() == b"after"
    assert files_below(tmp_path) == {name}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What is done to the disk: ("sync" or "sync folder" or "replace", inode)."""
    done: list[tuple[str, int]] = []
    fsync, replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        done.append(("sync folder" if stat.S_ISDIR(status.st_mode) else "sync", status.st_ino))
        fsync(descriptor)

    def move(source: Any, target: Any) -> None:
        done.append(("replace", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", move)
    return done


def test_a_files_content_is_on_disk_before_its_name_and_the_name_before_the_next_step(
    tmp_path: Path, steps: list[tuple[str, int]]
) -> None:
    replace_file(tmp_path / "a", b"content")
    inode, folder = (tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino
    assert steps == [("sync", inode), ("replace", inode), ("sync folder", folder)]


def contents(folder: Path, names: Iterable[str]) -> list[tuple[Path, Callable[[], bytes]]]:
    return [(folder / name, lambda name=name: f"content of {name}".encode()) for name in names]  # type: ignore[misc]


@pytest.fixture
def room(tmp_path: Path) -> tuple[Path, Path, Callable[[Path], Path]]:
    """A folder for files, one for those that are being written, and where each of these is."""
    root, scratch = tmp_path / "root", tmp_path / "scratch"
    root.mkdir()
    scratch.mkdir()
    return root, scratch, lambda _target: scratch / uuid.uuid4().hex


def test_several_files_are_synced_before_they_are_renamed_and_their_folders_last(
    room: tuple[Path, Path, Callable[[Path], Path]], steps: list[tuple[str, int]]
) -> None:
    root, _, aside = room
    names = ["a", "b", "new/c", "new/deep/d", "new/deep/e"]
    assert replace_files(contents(root, names), root, aside) == [None] * 5
    inodes = [(root / name).stat().st_ino for name in names]
    folders = {folder.stat().st_ino for folder in (root, root / "new", root / "new" / "deep")}
    assert steps[:10] == [*(("sync", inode) for inode in inodes), *(("replace", inode) for inode in inodes)]
    assert {kind for kind, _ in steps[10:]} == {"sync folder"}
    assert sorted(inode for _, inode in steps[10:]) == sorted(folders)  # each once


@pytest.mark.parametrize("cores", [2, 16])
def test_more_files_than_are_open_at_once_all_arrive(
    room: tuple[Path, Path, Callable[[Path], Path]],
    steps: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
) -> None:
    monkeypatch.setattr(replace_module, "usable_cores", lambda: cores)
    root, scratch, aside = room
    names = [f"{number % 3}/{number}" for number in range(2 * FILES_AT_ONCE + 5)]
    assert replace_files(contents(root, names), root, aside) == [None] * len(names)
    assert files_below(root) == set(names)
    assert files_below(scratch) == set()
    for name in names:
        assert (root / name).read_text() == f"content of {name}"
        inode = (root / name).stat().st_ino
        assert steps.index(("sync", inode)) < steps.index(("replace", inode))
    last = max(place for place, (kind, _) in enumerate(steps) if kind == "replace")
    assert all(kind == "sync folder" for kind, _ in steps[last + 1 :])
    assert len(steps) == last + 1 + 4


def test_of_files_that_threads_write_each_failure_is_that_of_its_file(
    room: tuple[Path, Path, Callable[[Path], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replace_module, "usable_cores", lambda: 16)
    root, scratch, aside = room
    writers, together = set(), threading.Barrier(4, timeout=20)

    def content(number: int) -> bytes:
        if number < 4:  # the first four are written at once, each by another thread
            together.wait()
            writers.add(threading.get_ident())
        if number % 7 == 3:
            raise OSError(errno.EIO, f"Input/output error {number}")
        return b"%d" % number

    errors = replace_files([(root / f"{number}", partial(content, number)) for number in range(150)], root, aside)
    for number, error in enumerate(errors):
        assert (str(error) if error else None) == (
            f"[Errno 5] Input/output error {number}" if number % 7 == 3 else None
        )
        assert (root / f"{number}").exists() == (number % 7 != 3)
    assert len(writers) == 4
    assert files_below(scratch) == set()

    def broken() -> bytes:
        raise MemoryError

    n_open = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    with pytest.raises(MemoryError):
        replace_files([*contents(root, map(str, range(40))), (root / "new", broken)], root, aside)
    assert not (root / "new").exists()
    if n_open:
        assert len(os.listdir("/proc/self/fd")) == n_open


def test_files_are_written_where_no_thread_can_be_started(
    room: tuple[Path, Path, Callable[[Path], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(replace_module, "usable_cores", lambda: 16)
    monkeypatch.setattr(threading.Thread, "start", refused)
    root, _, aside = room
    names = [str(number) for number in range(100)]
    assert replace_files(contents(root, names), root, aside) == [None] * 100
    assert files_below(root) == set(names)


def test_an_interruption_while_threads_write_is_passed_on_when_none_writes_any_more(
    room: tuple[Path, Path, Callable[[Path], Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        """As that of a signal, which arrives in the calling thread."""

    monkeypatch.setattr(replace_module, "usable_cores", lambda: 16)
    root, _, aside = room
    busy, begun = set[int](), []

    def content(number: int) -> bytes:
        begun.append(number)
        busy.add(number)
        time.sleep(0.02)
        if threading.current_thread() is threading.main_thread() and len(begun) > 20:
            busy.discard(number)
            raise Interrupted
        busy.discard(number)
        return b"content"

    with pytest.raises(Interrupted):
        replace_files([(root / f"{number}", partial(content, number)) for number in range(64)], root, aside)
    assert busy == set()
    assert len(begun) < 40
    assert files_below(root) == set()


def too_long(root: Path, _scratch: Path, _monkeypatch: pytest.MonkeyPatch) -> Path:
    return root / ("x" * 300)


def in_a_folders_place(root: Path, _scratch: Path, _monkeypatch: pytest.MonkeyPatch) -> Path:
    (root / "bad" / "inner").mkdir(parents=True)
    return root / "bad"


def below_a_file(root: Path, _scratch: Path, _monkeypatch: pytest.MonkeyPatch) -> Path:
    (root / "file").write_bytes(b"")
    return root / "file" / "bad"


def full_disk(root: Path, scratch: Path, _monkeypatch: pytest.MonkeyPatch) -> Path:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no device that is always full")
    (scratch / "bad").symlink_to("/dev/full")
    return root / "bad"


def unsynced(root: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    fsync = os.fsync

    def fail(descriptor: int) -> None:
        if (scratch / "bad").exists() and os.fstat(descriptor).st_ino == (scratch / "bad").stat().st_ino:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    return root / "bad"


@pytest.mark.parametrize("trouble", [too_long, in_a_folders_place, below_a_file, full_disk, unsynced])
def test_the_one_file_that_cannot_be_written_is_told_and_the_others_arrive(
    room: tuple[Path, Path, Callable[[Path], Path]],
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[Path, Path, pytest.MonkeyPatch], Path],
) -> None:
    root, scratch, aside = room
    bad = trouble(root, scratch, monkeypatch)
    before = files_below(root)
    files = contents(root, ["a", "new/b"])
    files.insert(1, (bad, lambda: b"content"))
    errors = replace_files(files, root, lambda target: scratch / "bad" if target == bad else aside(target))
    assert [type(error) for error in errors] == [type(None), type(errors[1]), type(None)]
    assert isinstance(errors[1], OSError)
    assert errors[1].strerror
    assert files_below(root) == before | {"a", "new/b"}
    assert files_below(scratch) == set()


def test_content_that_cannot_be_had_leaves_nothing_of_its_file(
    room: tuple[Path, Path, Callable[[Path], Path]],
) -> None:
    def broken() -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    root, scratch, aside = room
    errors = replace_files([(root / "bad", broken), *contents(root, ["a"])], root, aside)
    assert [str(error) for error in errors] == ["[Errno 5] Input/output error", "None"]
    assert (files_below(root), files_below(scratch)) == ({"a"}, set())


def test_a_root_that_has_vanished_is_an_error_for_each_file_and_not_made_again(
    room: tuple[Path, Path, Callable[[Path], Path]],
) -> None:
    root, scratch, aside = room
    root.rmdir()
    errors = replace_files(contents(root, ["a", "new/b"]), root, aside)
    assert all(isinstance(error, FileNotFoundError) for error in errors)
    assert not root.exists()
    assert files_below(scratch) == set()


# Paths and URLs.


def test_a_path_is_a_location_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b%20").write_bytes(b"content")
    for place in (
        *(f"{tmp_path}/a b%20", tmp_path / "a b%20", "a b%20", "./a b%20", Path("a b%20")),
        *(f"file://{tmp_path}/a%20b%2520", f"file://localhost{tmp_path}/a%20b%2520", f"FILE://{tmp_path}/a%20b%2520"),
    ):
        found = locate(place)
        assert found.is_local
        assert found.read() == b"content"
        assert os.path.samefile(found, tmp_path / "a b%20")
        assert os.path.samefile(found.path, str(found))
    monkeypatch.chdir("/")
    assert found.read() == b"content"


def test_a_relative_path_stays_where_it_was_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = locate("folder") / "a"
    monkeypatch.chdir("/")
    assert place.path == tmp_path / "folder" / "a"
    assert os.fspath(locate("/")) == "/"
    assert os.fspath(locate("/") / "etc") == "/etc"


def test_a_relative_path_has_no_parts_that_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, name in ((".", ""), ("./", ""), ("./a/./b//c", "/a/b/c"), ("a/../b", "/a/../b"), (".hidden", "/.hidden")):
        assert str(locate(text)) == f"{tmp_path}{name}", text
    assert str(locate(".") / "a.xml") == f"{tmp_path}/a.xml"


def test_a_url_of_memory_is_a_location_in_the_store_of_that_name() -> None:
    name = uuid.uuid4().hex
    place = locate(f"memory://{name}/a/b c%20")
    assert place == Location(MemoryStore(name), "a/b c%20")
    place.put(b"content")
    assert MemoryStore(name).read("a/b c%20") == b"content"
    assert locate(str(place)).read() == b"content"
    assert locate(f"memory://{name}") == locate(f"memory://{name}/") == Location(MemoryStore(name), "")
    assert not place.is_local
    for ask in (lambda: place.path, lambda: os.fspath(place), lambda: os.stat(place)):
        with pytest.raises(TypeError, match="not a file on this machine"):
            ask()


def test_a_location_stays_as_it_is(store: Store) -> None:
    place = Location(store, "a/b")
    assert locate(place) is place


@pytest.mark.parametrize("url", ["file://otherhost/path", "file://10.0.0.1/path", "file://~/path", "file://./path"])
def test_a_file_of_another_host_is_refused_with_the_host(url: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(url.split("/")[2])):
        locate(url)


@pytest.mark.parametrize("scheme", ["gcs", "http", "https", "HTTPS", "sftp", "abfs+x", "hdfs", "dbfs"])
def test_a_scheme_that_is_not_known_is_refused_and_never_a_folders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for url in (f"{scheme}://bucket/x", f"{scheme}://bucket", f"{scheme}:///x"):
        (tmp_path / url).mkdir(parents=True, exist_ok=True)  # even where there is such a folder
        assert is_url(url)
        with pytest.raises(SettingsError, match=rf"(?i)\b{re.escape(scheme)}://"):
            locate(url)
        with pytest.raises(SettingsError, match=rf"(?i)\b{re.escape(scheme)}://"):
            path_here(url, "output_dir")


@pytest.mark.parametrize(
    "path", ["/s3://bucket/x", "./s3://bucket", "a b://c", "://x", "s3:/bucket", "C:\\x", "a:b", "::", ""]
)
def test_a_path_that_only_looks_like_a_url_is_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert not is_url(path)
    assert locate(path).is_local
    assert path_here(path, "output_dir") == Path(path)


def test_a_path_that_must_be_here_names_the_parameter_where_it_is_not(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'output_dir'.*on this machine.*memory://somewhere/a"):
        path_here("memory://somewhere/a", "output_dir")
    assert path_here(tmp_path, "output_dir") == tmp_path
    assert path_here("relative/a", "output_dir") == Path("relative/a")
    assert path_here(f"file://{tmp_path}/a%20b", "output_dir") == tmp_path / "a b"


# The source.


def test_files_are_replaced_in_one_way_only() -> None:
    """Nothing but `storage/replace.py` moves a file into its place."""
    source = Path(ecgfounder.__file__).parent
    found: set[tuple[str, str]] = set()
    for path in sorted(source.rglob("*.py")):
        name = path.relative_to(source).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
                moving = {"rename", "renames", "replace", "move", "link"}
                found |= {(name, f"{node.module}.{each.name}") for each in node.names if each.name in moving}
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            called = f"{owner if owner in ('os', 'shutil') else ''}.{node.func.attr}"
            if called in ("os.rename", "os.renames", "os.replace", "shutil.move", ".rename"):
                found.add((name, called))
            if called == ".replace" and len(node.args) == 1 and not node.keywords:  # a path's: a text's takes two
                found.add((name, called))
    assert found == {("storage/replace.py", "os.replace")}


def test_a_memory_map_has_its_space_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    made = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(1 << 20,))
    reserve(path)
    assert path.stat().st_blocks * 512 >= 4 << 20
    made[:] = 1
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch.object(os, "posix_fallocate", side_effect=full), pytest.raises(OSError, match="No space left"):
        reserve(path)
    with mock.patch.object(os, "posix_fallocate", side_effect=OSError(errno.EOPNOTSUPP, "")):
        reserve(path)
