"""What the ledger says was done was done, whatever tore it; the latest word on a record counts."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ledger import ledger, liveness
from ecgfounder.ledger.entry import Commitment, Line, key_text, line_of
from ecgfounder.ledger.ledger import DONE, FAILED, LedgerWriter, lines_of, part_status, read_parts
from ecgfounder.ledger.ledger import read_ledger as read_ledger_at
from ecgfounder.storage import locate
from tests.builders.entries import END, HEADER, entry_of

KEYS = st.integers(0, 2**64 - 1)
STATUS_TEXT = st.sampled_from(["done", "failed"])


entry = entry_of


def read_ledger(folder: Path) -> ledger.LedgerState:
    return read_ledger_at(locate(folder))


def lines_in(part: Path) -> list[Line]:
    return [line for _, line in lines_of(locate(part))]


def commit(shard: str, records: int = 1) -> Commitment:
    return Commitment(shard, records, records)


def write_part(path: Path, *lines: Line, torn: bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join([b'{"part":{}}\n', *(line_of(line) + b"\n" for line in lines), torn]))
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "1.jsonl", HEADER)
    full = entry(2**64 - 1, size=123, mtime_ns=1_700_000_000_123_456_789, sha256="ff" * 32, companions=["r.dat"])
    writer.append([entry(0, "failed", reason="damaged"), full])
    writer.append([])
    writer.end(END)
    assert lines_in(writer.path) == [entry(0, "failed", reason="damaged"), full]
    assert part_status(locate(writer.path)) == (HEADER, END)
    state = read_ledger(tmp_path)
    assert state.keys.tolist() == [0, 2**64 - 1]
    assert state.status.tolist() == [FAILED, DONE]
    assert state.size.tolist() == [0, 123]
    assert state.mtime_ns.tolist() == [0, 1_700_000_000_123_456_789]
    assert state.hashes.tolist() == [0, 2**64 - 1]
    assert state.companions.tolist() == [False, True]
    assert state.shard.tolist() == [-1, -1]
    assert list(state.entries([1, 0, 1])) == [full, entry(0, "failed", reason="damaged"), full]


def test_an_entry_is_on_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    write, fsync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda fd, data: (calls.append("write"), write(fd, data))[1])
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd))[1])
    writer = LedgerWriter(tmp_path / "1.jsonl", HEADER)
    assert calls == ["write", "fsync", "fsync"]  # the part, and its name in the folder
    calls.clear()
    writer.append([entry(1), entry(2), entry(3)])
    assert calls == ["write", "fsync"]
    assert lines_in(writer.path) == [entry(1), entry(2), entry(3)]
    writer.abandon()


def test_a_write_that_is_cut_short_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    writer = LedgerWriter(tmp_path / "1.jsonl", HEADER)
    writer.append([entry(1), entry(2)])
    writer.end(END)
    assert read_ledger(tmp_path).keys.tolist() == [1, 2]


def test_a_part_is_never_continued_by_another_writer(tmp_path: Path) -> None:
    LedgerWriter(tmp_path / "1.jsonl", HEADER).end(END)
    with pytest.raises(FileExistsError):
        LedgerWriter(tmp_path / "1.jsonl", HEADER)


def test_an_abandoned_part_has_no_last_line(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "1.jsonl", HEADER)
    writer.append([entry(1)])
    writer.abandon()
    writer.abandon()
    assert part_status(locate(writer.path)) == (HEADER, None)


def test_a_part_that_cannot_be_begun_leaves_no_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    before = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        LedgerWriter(tmp_path / "1.jsonl", HEADER)
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize(
    "value",
    [np.int16(500), np.int64(3), np.uint8(7)],
    ids=lambda value: type(value),
)
def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path, value: Any) -> None:
    writer = LedgerWriter(tmp_path / "1.jsonl", HEADER)
    writer.append([entry(1, n_samples=value)])
    writer.end(END)
    (line,) = read_ledger(tmp_path).entries([0])
    assert line.facts.n_samples == value.tolist()


@given(st.lists(st.tuples(KEYS, STATUS_TEXT), min_size=1, max_size=8), st.data())
@settings(max_examples=60, deadline=None)
def test_a_part_torn_anywhere_keeps_every_whole_line_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[int, str]], data: st.DataObject
) -> None:
    path = write_part(tmp_path_factory.mktemp("torn") / "1.jsonl", *(entry(key, status) for key, status in entries))
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    expected = whole[:cut].count(b"\n")
    assert lines_in(path) == [entry(key, status) for key, status in entries][: max(0, expected - 1)]
    assert len(read_ledger(path.parent)) == len({key for key, _ in entries[: max(0, expected - 1)]})


@pytest.mark.parametrize(
    "garbage",
    [b"{", b'{"key": "00', b"\x00" * 5000, b"\xff\xfe", b"[1, 2]", b"null", b'"key"', b"", b'{"key":"0"}{"key":"1"}'],
)
def test_a_garbage_line_is_passed_over_and_those_behind_it_count(tmp_path: Path, garbage: bytes) -> None:
    path = write_part(tmp_path / "1.jsonl", entry(1), torn=garbage + b"\n")
    with open(path, "ab") as file:
        file.write(line_of(entry(2)) + b"\n")
    state = read_ledger(tmp_path)
    assert state.keys.tolist() == [1, 2]
    assert [line.record for line in state.entries([0, 1])] == ["1.xml", "2.xml"]


def test_no_parts_and_empty_parts_are_an_empty_state(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").touch()
    write_part(tmp_path / "1.jsonl")
    for state in (read_ledger(tmp_path), read_ledger(tmp_path / "gone"), read_parts(())):
        assert len(state) == 0
        assert state.find(np.array([1, 2], dtype=np.uint64)).tolist() == [-1, -1]
        assert list(state.entries([])) == []


@given(st.lists(st.lists(st.tuples(st.integers(0, 5), STATUS_TEXT), max_size=6), max_size=4))
@settings(max_examples=60, deadline=None)
def test_the_latest_entry_of_a_record_counts_across_parts(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[tuple[int, str]]]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    latest: dict[int, tuple[str, int]] = {}
    time_of_entry = 0
    for number, entries in enumerate(parts):
        lines = []
        for key, status in entries:
            time_of_entry += 1
            latest[key] = (status, time_of_entry)
            lines.append(entry(key, status, size=time_of_entry))
        write_part(folder / f"{number:020d}-shard1of1.jsonl", *lines)
    state = read_ledger(folder)
    assert state.keys.tolist() == sorted(latest)
    for row, line in enumerate(state.entries(range(len(state)))):
        status, size = latest[int(state.keys[row])]
        assert line.input is not None
        assert (line.status, line.input.size) == (status, size)
        assert state.size[row] == size
        assert state.status[row] == (DONE if status == "done" else FAILED)


def test_entries_of_a_shard_count_only_when_it_is_committed(tmp_path: Path) -> None:
    whole, half = "embeddings-a.parquet", "embeddings-b.parquet"
    write_part(
        tmp_path / "1.jsonl",
        entry(1, shard=whole),
        entry(2, shard=whole),
        commit(whole, 2),
        entry(3, shard=half),
    )
    state = read_ledger(tmp_path)
    assert state.keys.tolist() == [1, 2]
    assert state.committed == {whole: 2}
    assert [state.shards[number] for number in state.shard] == [whole, whole]


def test_an_uncommitted_shard_leaves_what_was_known_before(tmp_path: Path) -> None:
    write_part(
        tmp_path / "1.jsonl", entry(1, "failed"), entry(2, shard="embeddings-a.parquet"), commit("embeddings-a.parquet")
    )
    write_part(tmp_path / "2.jsonl", entry(1, shard="embeddings-b.parquet"), entry(2, shard="embeddings-b.parquet"))
    state = read_ledger(tmp_path)
    assert state.status.tolist() == [FAILED, DONE]
    assert [state.shards[number] if number >= 0 else None for number in state.shard] == [None, "embeddings-a.parquet"]


def test_a_shard_may_be_committed_by_a_later_part(tmp_path: Path) -> None:
    write_part(tmp_path / "1.jsonl", entry(1, shard="embeddings-a.parquet"))
    write_part(tmp_path / "2.jsonl", commit("embeddings-a.parquet"))
    assert read_ledger(tmp_path).keys.tolist() == [1]


@given(st.sets(KEYS, max_size=30), st.lists(KEYS, max_size=30))
@settings(max_examples=50, deadline=None)
def test_find_gives_a_row_for_known_keys_and_minus_one_for_others(
    tmp_path_factory: pytest.TempPathFactory, known: set[int], asked: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("find")
    write_part(folder / "1.jsonl", *map(entry, known))
    state = read_ledger(folder)
    asked = [*asked, *known, 0, 2**63, 2**64 - 1]
    for key, row in zip(asked, state.find_all(asked), strict=True):
        assert (row == -1) == (key not in known)
        assert row == -1 or int(state.keys[row]) == key


def test_the_status_of_a_part_is_known_from_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "1.jsonl"
    place = locate(path)
    assert part_status(place) == (None, None)
    path.write_bytes(b'{"part": {"pid"')
    assert part_status(place) == (None, None)
    path.unlink()
    writer = LedgerWriter(path, HEADER)
    assert part_status(place) == (HEADER, None)
    writer.append([entry(key, reason="x" * 200) for key in range(100)])
    assert part_status(place) == (HEADER, None)
    writer.end(END)
    assert part_status(place) == (HEADER, END)


def test_an_open_part_shows_that_its_process_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.01)
    for number, close in enumerate((LedgerWriter.abandon, lambda writer: writer.end(END))):
        path = tmp_path / f"{number}.jsonl"
        writer = LedgerWriter(path, HEADER)
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        close(writer)
        os.utime(path, (0, 0))
        time.sleep(0.1)
        assert path.stat().st_mtime == 0


def test_many_parts_do_not_need_many_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_PARTS_OPEN", 4)
    for number in range(40):
        write_part(tmp_path / f"{number:03d}.jsonl", entry(number))
    state = read_ledger(tmp_path)
    most, before = 0, len(os.listdir("/dev/fd"))
    for asked, line in zip([*range(40), 0, 39, 1], state.entries([*range(40), 0, 39, 1]), strict=True):
        assert line.record == f"{asked}.xml"
        most = max(most, len(os.listdir("/dev/fd")) - before)
    assert most <= 5


@pytest.mark.parametrize("key", [0, 1, 2**63, 2**64 - 1])
def test_a_key_is_sixteen_digits(key: int) -> None:
    assert len(key_text(key)) == 16
    assert int(key_text(key), 16) == key


def write_entries(folder: Path, count: int) -> None:
    """A part with `count` records in no order."""
    keys = np.random.default_rng(1).permutation(count).tolist()
    facts = orjson.dumps({"size": 1, "mtime_ns": 2, "sha256": "ab" * 32, "leads": ["I"] * 12, "flags": ["x"]})[1:]
    with open(folder / "1.jsonl", "wb") as file:
        for key in keys:
            file.write(b'{"key":"%016x","record":"a","status":"done","output":"a.json","shape":[1],%s\n' % (key, facts))


def test_a_hundred_thousand_entries_are_read_in_seconds(tmp_path: Path) -> None:
    write_entries(tmp_path, 100_000)
    began = time.process_time()  # which does not run while others have the processor
    assert len(read_ledger(tmp_path)) == 100_000
    assert time.process_time() - began < 6  # about 0.7 s


@pytest.mark.parametrize("count", [5_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_an_entry_takes_little_memory(tmp_path: Path, count: int) -> None:
    write_entries(tmp_path, count)
    tracemalloc.start()  # makes the reading ten times slower
    state = read_ledger(tmp_path)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(state) == count
    assert held < 100 * count  # bytes
    assert most < 280 * count
