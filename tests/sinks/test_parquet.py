"""Parquet shards: documented columns in a documented order, packed as promised, readable by others."""

from __future__ import annotations

from pathlib import Path

import datasets
import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.sinks import parquet as sink_module
from ecgfounder.sinks.parquet import nested
from ecgfounder.sinks.sink import ShardWritten, Written
from tests.builders.shards import C, embeddings, map_of, output_of, read, sink_of

COLUMNS = {
    "key": "string",
    "ecg_path": "string",
    "window": "int32",
    "window_start": "double",
    "lead": "string",
    "embedding": "list<element: list<element: float>>",
    "shape": "list<element: int32>",
    "format": "string",
    "sampling_rate": "double",
    "n_samples": "int64",
    "flags": "list<element: string>",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_columns_are_the_documented_ones(folder: Path) -> None:
    sink = sink_of(folder)
    sink.write([output_of(1)])
    sink.close()
    table = read(folder)
    assert {field.name: str(field.type) for field in table.schema} == COLUMNS
    row = table.drop_columns(["embedding"]).to_pylist()[0]
    assert row == {
        "key": "0000000000000001",
        "ecg_path": "a/1.xml",
        "window": 0,
        "window_start": 0.0,
        "lead": None,
        "shape": [3, C],
        "format": "wfdb",
        "sampling_rate": 500.0,
        "n_samples": 5000,
        "flags": ["resampled:1000"],
    }
    assert np.array_equal(embeddings(table)[0], map_of(1))


def test_identifiers_stand_in_a_column_of_their_own_and_no_path_does(folder: Path) -> None:
    sink = sink_of(folder, record_column="identifier")
    sink.write([output_of(1, record="study-7")])
    sink.close()
    table = read(folder)
    assert table.column_names == ["identifier" if name == "ecg_path" else name for name in COLUMNS]
    assert table["identifier"].to_pylist() == ["study-7"]


def test_rows_of_a_shard_are_in_the_dataset_order_whatever_was_finished_first(folder: Path) -> None:
    sink = sink_of(folder, shard_size=4)
    for number in (5, 1, 7, 0, 6, 2):
        sink.write([output_of(number)])
    sink.close()
    shards = [pq.read_table(shard)["ecg_path"].to_pylist() for shard in sorted(folder.glob("*.parquet"))]
    assert shards == [[f"a/{n}.xml" for n in (0, 1, 5, 7)], [f"a/{n}.xml" for n in (2, 6)]]


def test_an_entry_comes_back_when_its_shard_is_there_and_a_last_one_commits_it(folder: Path) -> None:
    sink = sink_of(folder, shard_size=2)
    assert sink.write([output_of(1)]) == []
    assert list(folder.iterdir()) == []
    *outputs, last = sink.write([output_of(0)])
    (shard,) = folder.iterdir()
    told = [(each.output.order, each.shard, each.reference) for each in outputs if isinstance(each, Written)]
    assert told == [(n, shard.name, f"{shard.name}::{n:016x}") for n in (0, 1)]
    assert last == ShardWritten(shard.name, rows=2, records=2)
    assert list((folder.parent / "scratch").iterdir()) == []
    assert sink.close() == []


@pytest.mark.parametrize("pooled", [False, True])
def test_numbers_are_split_into_byte_streams_and_packed_with_zstd(folder: Path, pooled: bool) -> None:
    sink = sink_of(folder)
    sink.write([output_of(number, [map_of(number)[0] if pooled else map_of(number)]) for number in range(5)])
    sink.close()
    group = pq.ParquetFile(next(folder.iterdir())).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    assert {column.compression for column in columns} == {"ZSTD"}
    (numbers,) = [column for column in columns if column.path_in_schema.startswith("embedding")]
    assert "BYTE_STREAM_SPLIT" in numbers.encodings
    assert not any("DICTIONARY" in encoding for encoding in numbers.encodings)


@pytest.mark.parametrize(
    ("starts", "leads", "rows"),
    [
        ([0.0, 2.5], ["I", "II", "V1"], [(0, 0.0, None), (1, 2.5, None)]),
        ([0.0], ["I", "II"], [(0, 0.0, "I"), (0, 0.0, "II")]),
        ([0.0], ["V1"], [(0, 0.0, "V1")]),
        ([0.0, 2.5], ["I", "II"], [(0, 0.0, "I"), (0, 0.0, "II"), (1, 2.5, "I"), (1, 2.5, "II")]),
        ([1.5], ["I", "II"], [(0, 1.5, None)]),
    ],
    ids=["windows", "leads", "one lead", "windows of leads", "start trimmed"],
)
def test_a_row_says_which_window_and_lead_it_is(
    folder: Path, starts: list[float], leads: list[str], rows: list[tuple[int, float, str | None]]
) -> None:
    sink = sink_of(folder)
    views = [map_of(number) for number in range(len(rows))]
    sink.write([output_of(3, views, starts=starts, leads=leads)])
    sink.close()
    table = read(folder)
    columns = ("window", "window_start", "lead")
    assert list(zip(*(table[name].to_pylist() for name in columns), strict=True)) == rows
    assert set(table["ecg_path"].to_pylist()) == {"a/3.xml"}
    assert all(np.array_equal(a, b) for a, b in zip(embeddings(table), views, strict=True))


def test_a_shorter_last_window_keeps_its_own_shape(folder: Path) -> None:
    sink = sink_of(folder)
    views = [map_of(0, 8), map_of(1, 8), map_of(2, 3)]
    sink.write([output_of(0, views, starts=[0.0, 4.0, 8.0]), output_of(1)])
    sink.close()
    table = read(folder)
    assert table["shape"].to_pylist() == [[8, C], [8, C], [3, C], [3, C]]
    assert all(np.array_equal(a, b) for a, b in zip(embeddings(table), [*views, map_of(1)], strict=True))


def test_half_precision_is_stored_as_such(folder: Path) -> None:
    sink = sink_of(folder, dtype="float16")
    sink.write([output_of(1), output_of(2)])
    sink.close()
    table = read(folder)
    assert str(table.schema.field("embedding").type) == "list<element: list<element: halffloat>>"
    assert np.array_equal(embeddings(table)[0], map_of(1).astype(np.float16))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("form", ["maps", "means", "windows"])
def test_others_read_the_shards_as_they_are(folder: Path, tmp_path: Path, dtype: str, form: str) -> None:
    sink = sink_of(folder, dtype=dtype, shard_size=2)
    views = {"maps": [map_of(1)], "means": [map_of(1)[0]], "windows": [map_of(1), map_of(2, 1)]}[form]
    starts = [0.0, 4.0][: len(views)]
    sink.write([output_of(number, views, starts=starts) for number in range(5)])
    sink.close()
    pattern = str(folder / "*.parquet")
    expected = [view.astype(dtype) for _ in range(5) for view in views]
    loaded = datasets.load_dataset("parquet", data_files=pattern, split="train", cache_dir=str(tmp_path / "cache"))
    by_duckdb = duckdb.sql(
        f"select ecg_path, embedding from read_parquet('{pattern}') order by filename, file_row_number"
    )
    by_polars = pl.read_parquet(pattern)
    for rows in (loaded["embedding"], [row[1] for row in by_duckdb.fetchall()], by_polars["embedding"].to_list()):
        assert len(rows) == len(expected)
        assert all(np.array_equal(np.array(row, dtype), each) for row, each in zip(rows, expected, strict=True))
    assert loaded["ecg_path"][0] == by_polars["ecg_path"][0] == "a/0.xml"


def test_a_huge_recording_closes_its_shard_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = map_of(0).nbytes
    monkeypatch.setattr(sink_module, "MAX_BYTES", 4 * one)
    sink = sink_of(folder, shard_size=1000)
    assert sink.write([output_of(0), output_of(1)]) == []
    assert len(sink.write([output_of(2, [map_of(n) for n in range(6)], starts=[float(n) for n in range(6)])])) == 4
    assert sink.write([output_of(number) for number in range(3, 6)]) == []
    assert len(sink.write([output_of(6)])) == 5
    assert [len(pq.read_table(shard)) for shard in sorted(folder.iterdir())] == [8, 4]


def test_row_groups_and_chunks_are_small_and_change_no_row(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = [map_of(number) for number in range(50)]
    monkeypatch.setattr(sink_module, "CHUNK_BYTES", 7 * views[0].nbytes)
    monkeypatch.setattr(sink_module, "ROW_GROUP_BYTES", 2000)
    sink = sink_of(folder)
    sink.write([output_of(0, views, starts=[float(n) for n in range(50)]), output_of(1)])
    sink.close()
    table = read(folder)
    assert table["window"].to_pylist() == [*range(50), 0]
    assert all(np.array_equal(a, b) for a, b in zip(embeddings(table), [*views, map_of(1)], strict=True))
    assert pq.ParquetFile(next(folder.iterdir())).num_row_groups > 5


def test_means_beside_the_maps_are_a_column_packed_alike_whose_rows_stay_with_theirs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [map_of(number) for number in range(10)]
    monkeypatch.setattr(sink_module, "CHUNK_BYTES", 3 * views[0].nbytes)
    sink = sink_of(folder)
    starts = [float(n) for n in range(10)]
    means = tuple(view.mean(axis=0) for view in views)
    sink.write([output_of(0, views, starts=starts, outer_shape=(10,), means=means)])
    sink.close()
    table = read(folder)
    assert str(table.schema.field("embedding_mean").type) == "list<element: float>"
    assert np.array_equal(table["embedding_mean"].to_pylist(), [view.mean(axis=0) for view in views])
    group = pq.ParquetFile(next(folder.iterdir())).metadata.row_group(0)
    encodings = {group.column(n).path_in_schema: group.column(n).encodings for n in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in encodings["embedding_mean.list.element"]


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    channels=st.integers(1, 4),
    pooled=st.booleans(),
    kind=st.sampled_from(["float32", "float16"]),
)
def test_arrays_become_lists_and_lists_become_arrays(
    lengths: list[int], channels: int, pooled: bool, kind: str
) -> None:
    chance = np.random.default_rng(0)
    views = [chance.standard_normal((channels,) if pooled else (n, channels)).astype(kind) for n in lengths]
    column = nested(views)
    assert len(column) == len(views)
    assert all(np.array_equal(np.array(a, kind), b) for a, b in zip(column.to_pylist(), views, strict=True))
