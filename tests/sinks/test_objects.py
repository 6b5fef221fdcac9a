"""Sinks of stores write many objects at once within bounds, and say of an output that it is there only when it is."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.sinks import objects
from ecgfounder.sinks.json import JsonSink
from ecgfounder.sinks.npy import NpySink
from ecgfounder.sinks.objects import ObjectSink, ParquetObjectSink
from ecgfounder.sinks.parquet import SHARD_NAME, ParquetSink
from ecgfounder.sinks.sink import Output, ShardWritten, Written
from ecgfounder.storage import Location, Unavailable
from ecgfounder.storage.memory import MemoryStore


class Slow(MemoryStore):
    """A store whose writes take a while; it counts those at the same time."""

    seconds = 0.05
    now = most = 0
    fails: frozenset[str] = frozenset()

    def put(self, name: str, data: bytes) -> object:  # type: ignore[override]
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        if name.rpartition("/")[2] in self.fails:
            raise Unavailable("the store does not answer: no answer in time")
        return super().put(name, data)


@pytest.fixture
def store() -> Slow:
    return Slow(uuid.uuid4().hex)


@pytest.fixture
def folder(store: Slow) -> Location:
    return Location(store, "study/out")


def outputs(count: int, size: int = 6) -> Iterator[Output]:
    for number in range(count):
        embedding = np.full((2, size), number, dtype=np.float32)
        yield Output(
            f"{number:016x}", f"{number}.npy", f"{number}.npy", f"{number:04d}.json", (embedding,), order=number
        )


@pytest.mark.parametrize("kind", [JsonSink, NpySink])
def test_objects_have_the_bytes_of_files_and_their_tags_are_told(kind: type, folder: Location) -> None:
    sink = ObjectSink(folder, kind)
    written = [*sink.write(list(outputs(5))), *sink.close()]
    assert sorted(each.reference for each in written if isinstance(each, Written)) == [
        f"{n:04d}.json" for n in range(5)
    ]
    for each in written:
        assert isinstance(each, Written)
        assert each.tag == (folder / each.reference).status().tag
        assert (folder / each.reference).read() == kind.encode(each.output)


def test_many_are_written_at_once_and_no_more_than_are_allowed(folder: Location, store: Slow) -> None:
    sink = ObjectSink(folder, JsonSink)
    began = time.monotonic()
    told = [each for output in outputs(200) for each in sink.write([output])]
    assert 0 < len(told) < 200  # the pipeline goes on before they are there
    told += sink.close()
    assert len({each.reference for each in told if isinstance(each, Written)}) == 200
    assert time.monotonic() - began < 200 * store.seconds / 4
    assert 4 < store.most <= objects.AT_ONCE


def test_bytes_in_flight_are_bounded(folder: Location, store: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1000
    monkeypatch.setattr(objects, "IN_FLIGHT_BYTES", 3 * 2 * size * 4)
    sink = ObjectSink(folder, JsonSink)
    for output in outputs(12, size):
        sink.write([output])
    sink.close()
    assert 2 <= store.most <= 3


def test_an_output_is_told_only_when_it_is_there(folder: Location, store: Slow) -> None:
    store.seconds = 0.3
    sink = ObjectSink(folder, JsonSink)
    assert sink.write(list(outputs(3))) == []
    assert list(folder.names()) == []
    time.sleep(0.6)
    assert len(sink.write([])) == 3
    assert sink.close() == []


def test_a_store_that_fails_is_an_error_and_no_output_of_it_is_told(folder: Location, store: Slow) -> None:
    store.fails = frozenset(["0002.json"])
    before = set(threading.enumerate())
    sink = ObjectSink(folder, JsonSink)
    assert sink.write(list(outputs(4))) == []
    threads = [each for each in set(threading.enumerate()) - before if each.name.startswith("ecgfounder-upload")]
    assert threads
    with pytest.raises(Unavailable, match="no answer in time"):
        sink.close()
    assert sorted(folder.names()) == ["0000.json", "0001.json", "0003.json"]
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()


def test_a_name_that_is_too_long_fails_its_record_alone(folder: Location) -> None:
    sink = ObjectSink(folder, JsonSink)
    good, long = outputs(2)
    long = Output(long.key, long.record, long.title, "ä" * 600 + ".json", long.embeddings)
    told = [*sink.write([long, good]), *sink.close()]
    errors = {each.reference: each.error for each in told if isinstance(each, Written)}
    assert errors[good.name] is None
    assert "its name is longer than 1024 bytes" in str(errors[long.name])
    assert list(folder.names()) == [good.name]


def test_shards_hold_the_rows_of_files_under_names_of_this_attempt(folder: Location, tmp_path: Path) -> None:
    prefix = f"{7:020d}-shard1of1-epoch000001"
    names = set()
    for _ in range(2):
        sink = ParquetObjectSink(folder, prefix=prefix, shard_size=4)
        told = [*sink.write(list(outputs(10))), *sink.close()]
        shards = [each for each in told if isinstance(each, ShardWritten)]
        assert [each.records for each in shards] == [4, 4, 2]
        for each in shards:
            assert SHARD_NAME.fullmatch(each.shard)
            before = told[: told.index(each)]
            assert sum(isinstance(row, Written) and row.shard == each.shard for row in before) == each.records
        names |= {each.shard for each in shards}
    assert len(names) == 6
    assert set(folder.names()) == names
    files = ParquetSink(tmp_path, tmp_path, prefix=prefix, shard_size=4)
    files.write(list(outputs(10)))
    files.close()
    expected = pa.concat_tables([pq.read_table(path) for path in sorted(tmp_path.glob("*.parquet"))])
    for suffix in {name[-17:] for name in names}:
        own = sorted(name for name in names if name.endswith(suffix))
        found = pa.concat_tables([pq.read_table(pa.BufferReader((folder / name).read())) for name in own])
        assert found.equals(expected)
