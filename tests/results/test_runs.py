"""A run read back: JSON, Parquet and NPY give the same arrays, tables are aligned, and nothing is dropped in silence."""

from __future__ import annotations

import doctest
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.errors import RunError, SettingsError
from ecgfounder.ledger.ledger import LedgerWriter
from ecgfounder.results import arrays, join, several, store
from ecgfounder.results import run as runs
from ecgfounder.results.run import open_run
from ecgfounder.results.store import read_embedding
from ecgfounder.stages.pooling import pooled
from tests.builders.entries import END, HEADER, lines_from
from tests.builders.runs import BROKEN, FORMS, PATHS, STUDIES, C, Made


def test_every_example_in_the_documentation_strings_runs(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run").make()
    names = {"folder": folder, "other": Made(tmp_path / "other", data=1).make(), "open_run": open_run}
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner()
    examples = 0
    for module in (runs, arrays, join, several, store):
        for test in finder.find(module, module.__name__, extraglobs=names):
            result = runner.run(test)
            assert result.failed == 0, test.name
            examples += result.attempted
    assert examples > 15


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_arrays_and_table_have_a_row_for_each_embedding_in_the_dataset_order(
    tmp_path: Path, form: str, stored: str
) -> None:
    # Finished in another order than the dataset's, and spread over shards.
    made = Made(tmp_path / "run", format=stored, done_order=PATHS[::-1], **FORMS[form])
    run = open_run(made.make())
    X, meta = run.arrays()
    expected = [view for path in PATHS for view in made.embeddings(path)]
    assert len(run) == len(X) == meta.num_rows == len(expected)
    assert X.shape == (len(expected), *expected[0].shape)
    assert np.array_equal(np.asarray(X), expected)
    assert meta["record"].to_pylist() == [path for path in PATHS for _ in made.embeddings(path)]
    per_window = len(made.leads) if made.lead == "all" else 1
    windows = [w for w in range(made.n_windows) for _ in range(per_window)]
    assert meta["window"].to_pylist() == windows * len(PATHS)
    assert meta["window_start"].to_pylist() == [w * (made.stride or 0.0) for w in windows] * len(PATHS)
    leads = list(made.leads) * made.n_windows if made.lead == "all" else [None] * made.n_windows
    assert meta["lead"].to_pylist() == leads * len(PATHS)
    assert meta["study_id"].to_pylist() == [study for study in STUDIES for _ in windows]

    means, _ = run.arrays(pooling="mean")
    assert np.array_equal(means, [pooled(v) if v.ndim == 2 else v for v in expected])

    for number, (facts, embedding) in enumerate(run):
        assert np.array_equal(embedding, expected[number])
        assert facts == meta.slice(number, 1).to_pylist()[0]
    assert number == len(expected) - 1


@pytest.mark.parametrize("form", FORMS)
def test_a_reference_reads_the_array_that_the_json_holds(tmp_path: Path, form: str) -> None:
    as_json = Made(tmp_path / "json", **FORMS[form]).make()
    as_shards = Made(tmp_path / "shards", format="parquet", **FORMS[form]).make()
    names = [open_run(folder).manifest["output"].to_pylist()[:4] for folder in (as_json, as_shards)]
    for file, reference in zip(*names, strict=True):
        held = np.array(orjson.loads((as_json / file).read_bytes())["embedding"], np.float32)
        assert np.array_equal(read_embedding(as_json / file), held)
        assert np.array_equal(read_embedding(f"{as_shards}/{reference}"), held)
        assert held.shape == tuple(orjson.loads((as_json / file).read_bytes())["shape"])
    shutil.rmtree(as_shards / "_run")
    alone = read_embedding(as_shards / names[1][0])
    assert alone.size == held.size


def test_lengths_that_differ_are_refused_with_the_ways_out_and_have_means(tmp_path: Path) -> None:
    for stored in ("json", "parquet"):
        made = Made(tmp_path / stored, format=stored, lengths={"a/2.xml": 5})
        run = open_run(made.make())
        with pytest.raises(RunError, match=r'between 3 and 5 tokens.*pooling="mean"'):
            run.arrays()
        X, _ = run.arrays(pooling="mean")
        assert np.array_equal(X, [pooled(made.embeddings(path)[0]) for path in PATHS])
        assert [embedding.shape for _, embedding in run] == [(3, C), (5, C), (3, C), (3, C)]


def test_a_shorter_last_window_is_refused_as_an_array_and_given_one_by_one(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet", stride=2.0, n_windows=3, remainder="keep")
    run = open_run(made.make())
    with pytest.raises(RunError, match="between 1 and 3 tokens"):
        run.arrays()
    assert [len(embedding) for _, embedding in run] == [3, 3, 1] * 4
    assert run.arrays(pooling="mean")[0].shape == (12, C)
    with pytest.raises(RunError, match="differ in length"):
        read_embedding(made.folder / run.manifest["output"][0].as_py())


def test_means_that_were_kept_beside_the_maps_are_read_without_the_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path / "run", format="parquet", pooling="both", stride=2.0, n_windows=2, remainder="keep")
    run = open_run(made.make())
    views = [view for path in PATHS for view in made.embeddings(path)]
    assert all(np.array_equal(embedding, view) for (_, embedding), view in zip(run, views, strict=True))
    read: list[Any] = []
    real = pq.ParquetFile.read_row_group
    spy = lambda self, group, columns, **more: read.append(columns) or real(self, group, columns=columns, **more)  # noqa: E731
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", spy)
    X, _ = open_run(made.folder).arrays(pooling="mean")
    assert np.array_equal(X, [pooled(view) for view in views])
    assert set(map(tuple, read)) == {("embedding_mean",)}


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet", dtype="float16")
    X, _ = open_run(made.make()).arrays()
    assert np.asarray(X).dtype == X.dtype == np.float32
    assert np.array_equal(X, [made.embeddings(path)[0].astype(np.float16) for path in PATHS])


def test_a_path_that_two_dataset_rows_name_has_its_embedding_at_both(tmp_path: Path) -> None:
    rows = [("a/1.xml", 1), ("a/2.xml", 2), ("a/1.xml", 3)]
    for stored in ("json", "parquet"):
        made = Made(tmp_path / stored, format=stored, rows=rows, done_order=("a/2.xml", "a/1.xml"))
        X, meta = open_run(made.make()).arrays()
        assert meta["study_id"].to_pylist() == [1, 2, 3]
        assert np.array_equal(np.asarray(X)[2], np.asarray(X)[0])
        assert np.array_equal(X[0], made.embeddings("a/1.xml")[0])


def test_a_moved_folder_is_the_same_run(tmp_path: Path) -> None:
    for stored in ("json", "parquet"):
        folder = Made(tmp_path / stored, format=stored).make()
        before = np.asarray(open_run(folder).arrays()[0])
        moved = tmp_path / "elsewhere" / stored
        shutil.move(folder, moved)
        assert np.array_equal(open_run(moved).arrays()[0], before)


# --- lazily ----------------------------------------------------------------------------------------------------------


def test_nothing_is_read_before_it_is_used(tmp_path: Path) -> None:
    for stored, pattern in (("json", "*.json"), ("parquet", "*.parquet")):
        folder = Made(tmp_path / stored, format=stored).make()
        X, meta = open_run(folder).arrays()
        for file in folder.glob(pattern):
            file.unlink()
        assert X.shape == (4, 3, C)
        assert meta.num_rows == 4
        with pytest.raises(RunError, match="is missing"):
            np.asarray(X)


@pytest.mark.parametrize("stored", ["json", "parquet"])
@pytest.mark.parametrize(
    "index",
    [0, -1, slice(1, 3), slice(None, None, -1), [3, 0, 0], np.array([True, False, True, False]), [], (slice(None), 1)],
    ids=repr,
)
def test_indexing_gives_what_the_whole_array_would(tmp_path: Path, stored: str, index: Any) -> None:
    made = Made(tmp_path / "run", format=stored)
    X, _ = open_run(made.make()).arrays()
    expected = np.stack([made.embeddings(path)[0] for path in PATHS])[index]
    got = X[index]
    assert isinstance(got, np.ndarray)
    assert got.shape == expected.shape
    assert np.array_equal(got, expected)


@pytest.mark.parametrize("pooling", ["none", "mean", "both"])
@pytest.mark.parametrize("stored", ["json", "parquet"])
@pytest.mark.parametrize("n_windows", [1, 2])
def test_blocks_have_each_row_once(tmp_path: Path, stored: str, pooling: str, n_windows: int) -> None:
    rows = (*zip(PATHS, STUDIES, strict=True), (PATHS[1], 105), (PATHS[1], 106), BROKEN)
    made = Made(tmp_path, stored, pooling, n_windows=n_windows, rows=rows, stride=1.0 if n_windows > 1 else None)
    run = open_run(made.make())
    for kind in ("mean",) if pooling == "mean" else ("mean", "none"):
        X, _ = run.arrays(kind)
        blocks = list(X.blocks(3))
        assert sorted(np.concatenate([rows for rows, _ in blocks]).tolist()) == list(range(len(X)))
        for rows_here, block in blocks:
            np.testing.assert_array_equal(block, X[rows_here])
            assert block.dtype == np.float32


def test_blocks_leave_out_rows_of_others_and_say_what_lacks(tmp_path: Path) -> None:
    made = Made(tmp_path, "parquet", "mean", shard_size=4)
    run = open_run(made.make())
    (shard,) = tmp_path.glob("*.parquet")
    table = pq.read_table(shard)
    more = pa.concat_tables([table.slice(1, 1).set_column(0, "key", pa.array(["f" * 16])), table, table.slice(0, 2)])
    pq.write_table(more if table.column_names[0] == "key" else table, shard, row_group_size=2)
    X, _ = run.arrays("mean")
    found = {int(row): vector for rows, block in X.blocks() for row, vector in zip(rows, block, strict=True)}
    assert len(found) == len(X) == sum(len(rows) for rows, _ in X.blocks())
    for row, vector in found.items():
        np.testing.assert_array_equal(vector, made.embeddings(PATHS[row])[0])
    pq.write_table(table.slice(1), shard)
    with pytest.raises(RunError, match="lacks rows of 1 recordings"):
        list(open_run(tmp_path).arrays("mean")[0].blocks())


def test_a_row_that_is_not_there_is_an_index_error(tmp_path: Path) -> None:
    X, _ = open_run(Made(tmp_path / "run").make()).arrays()
    with pytest.raises(IndexError):
        X[4]
    assert len(list(X)) == 4


def test_an_array_saved_to_disk_is_the_array(tmp_path: Path) -> None:
    X, _ = open_run(Made(tmp_path / "run", format="parquet").make()).arrays()
    saved = X.save(tmp_path / "X.npy")
    assert isinstance(saved, np.memmap)
    assert np.array_equal(saved, X)
    assert [path.name for path in tmp_path.iterdir() if "X.npy" in path.name] == ["X.npy"]
    with pytest.raises(RunError, match="could not be written"):
        X.save(tmp_path / "no" / "such" / "folder" / "X.npy")


def test_a_pickled_array_reads_on_its_own(tmp_path: Path) -> None:
    X, _ = open_run(Made(tmp_path / "run", format="parquet").make()).arrays()
    X[0]
    assert np.array_equal(pickle.loads(pickle.dumps(X)), X)


def test_loading_decodes_every_part_of_a_shard_once_however_the_dataset_is_ordered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [f"{number:02}.xml" for number in range(24)]
    rows = [(path, 1) for path in paths]
    made = Made(tmp_path / "run", format="parquet", rows=rows, done_order=paths[::3] + paths[1::3] + paths[2::3])
    made.shard_size = 8
    monkeypatch.setattr("ecgfounder.sinks.parquet.ROW_GROUP_BYTES", 300)
    folder = made.make()
    groups = sum(pq.ParquetFile(shard).num_row_groups for shard in folder.glob("*.parquet"))
    assert groups > 6
    decoded = []
    real = store._rows_of_lists
    monkeypatch.setattr(store, "_rows_of_lists", lambda column: decoded.append(column.nbytes) or real(column))
    monkeypatch.setattr(store, "CACHE_BYTES", 1)
    X, _ = open_run(folder).arrays()
    assert np.array_equal(X, [made.embeddings(path)[0] for path in paths])
    assert len(decoded) == groups


def test_the_cache_of_parts_stays_within_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CACHE_BYTES", 1000)
    cache = store._Cache()
    for number in range(50):
        cache.put((tmp_path, number), [np.zeros(100, np.float32)])
        assert cache._bytes == sum(each.nbytes for part in cache._parts.values() for each in part) <= 1000
    assert cache.get((tmp_path, 49)) is not None
    assert cache.get((tmp_path, 0)) is None


# --- incomplete, damaged ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_an_incomplete_run_is_refused_with_the_way_on_and_read_when_asked(tmp_path: Path, stored: str) -> None:
    made = Made(tmp_path / "run", format=stored, outcome="interrupted", done_order=("b/3.xml", "a/1.xml"))
    folder = made.make()
    with pytest.raises(RunError, match=r"not complete \(outcome: interrupted\).*Finish it.*allow_incomplete"):
        open_run(folder)
    run = open_run(folder, allow_incomplete=True)
    assert not run.is_complete
    assert run.outcome == "interrupted"
    X, meta = run.arrays()
    assert meta["record"].to_pylist() == ["a/1.xml", "b/3.xml"]
    assert meta["row_index"].to_pylist() == [None, None]
    assert np.array_equal(X, [made.embeddings(path)[0] for path in ("a/1.xml", "b/3.xml")])
    assert run.failures["record"].to_pylist() == [BROKEN[0]]


def test_of_a_recording_that_was_done_again_the_latest_embedding_is_read(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet", outcome="running")
    folder = made.make()
    made.lengths = {"a/1.xml": 7}
    again = made.sink("00000000000000000002")
    again.write([made.output("a/1.xml", 0)])
    ledger = LedgerWriter(made.books.ledger.path / "00000000000000000002.jsonl", HEADER)
    uncommitted = open_run(folder, allow_incomplete=True)
    ledger.append(lines_from(again.close()))
    ledger.end(END)
    run = open_run(folder, allow_incomplete=True)
    assert [len(embedding) for _, embedding in run] == [7, 3, 3, 3]
    assert [len(embedding) for _, embedding in uncommitted] == [3, 3, 3, 3]


def test_a_folder_without_a_run_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run: expected .*run\.json"):
        open_run(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"embedding": "x"}', b'{"embedding": [[1], [1, 2]]}', b"1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    folder = Made(tmp_path / "run").make()
    (folder / "2.json").write_bytes(content)
    X, _ = open_run(folder).arrays()
    with pytest.raises(RunError, match=r"2\.json is not an embedding"):
        np.asarray(X)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run", format="parquet").make()
    shard = min(folder.glob("*.parquet"))
    X, _ = open_run(folder).arrays()
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(RunError, match="cannot be read as a run's shard"):
        np.asarray(X)
    with pytest.raises(RunError, match="holds no row of the recording 0000000000000000"):
        read_embedding(f"{max(folder.glob('*.parquet'))}::0000000000000000")


def test_a_run_without_an_embedding_opens_and_has_no_array(tmp_path: Path) -> None:
    run = open_run(Made(tmp_path / "run", done_order=(), rows=[BROKEN]).make())
    assert len(run) == 0
    assert list(run) == []
    with pytest.raises(RunError, match="no embedding"):
        run.arrays()


def test_pooling_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'none' and 'mean'"):
        open_run(Made(tmp_path / "run").make()).arrays(pooling="max")


# --- joining ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> runs.EmbeddingRun:
    return open_run(Made(tmp_path / "run").make())


@pytest.mark.parametrize(
    "labels",
    [
        pd.DataFrame({"study_id": [103, 101, 102], "age": [3, 1, 2]}),
        pd.DataFrame({"study_id": ["103", "101", "102"], "age": [3, 1, 2]}),
        pd.DataFrame({"study_id": [103.0, 101.0, 102.0], "age": [3, 1, 2]}),
        pd.DataFrame({"study_id": pd.Categorical(["103", "101", "102"]), "age": [3, 1, 2]}),
        pl.DataFrame({"study_id": [103, 101, 102], "age": [3, 1, 2]}),
        pa.table({"study_id": pa.array([103, 101, 102], pa.uint32()), "age": [3, 1, 2]}),
    ],
    ids=["numbers", "text", "floats", "categories", "polars", "arrow"],
)
def test_a_table_is_joined_whatever_type_its_keys_have(run: runs.EmbeddingRun, labels: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        joined = run.join(labels, on="study_id")
    assert joined.table["age"].to_pylist() == [1, 2, 3, 3]
    X, meta = joined.arrays(pooling="mean")
    assert meta["record"].to_pylist() == list(PATHS)
    assert np.array_equal(X, run.arrays(pooling="mean")[0])


def test_what_does_not_match_is_reported_on_both_sides(run: runs.EmbeddingRun) -> None:
    labels = pd.DataFrame({"study_id": [101.0, 103.0, 104.0, 999.0, None], "age": range(5), "status": list("abcde")})
    with pytest.warns(
        UserWarning, match=r"^3 recordings matched, 1 recording without a row, 3 rows without an embedding \(stud"
    ):
        joined = run.join(labels, on="study_id")
    assert str(joined).startswith("3 of 4 recordings have a row of the table; 2 of its 5 rows have a recording.\n")
    shown = "<Join on 'study_id': 3 recordings matched, 1 recording without a row, 3 rows without an embedding>"
    assert repr(joined) == shown
    assert "<tr><th>without a row</th><td>1 recording without a row</td></tr>" in joined._repr_html_()
    assert "<th>failed</th><td>1 failed</td>" in run._repr_html_()
    assert joined.unmatched_records["record"].to_pylist() == ["a/2.xml"]
    assert joined.unmatched_rows["age"].to_pylist() == [2, 3, 4]
    assert joined.failed_rows["study_id"].to_pylist() == [104.0]
    assert "1 of them name a recording that failed" in str(joined)
    assert joined.table["status_table"].to_pylist() == ["a", "b", "b"]
    X, meta = joined.arrays()
    assert meta["record"].to_pylist() == ["a/1.xml", "b/3.xml", "b/4.xml"]
    assert np.array_equal(X, run.arrays()[0][[0, 2, 3]])


def test_duplicate_keys_are_refused_or_reported(run: runs.EmbeddingRun) -> None:
    labels = pd.DataFrame({"study_id": [101, 102, 103, 102], "age": [1, 2, 3, 4]})
    with pytest.raises(RunError, match=r"1 keys are in more than one.*study_id: 102.*duplicates="):
        run.join(labels, on="study_id")
    with pytest.warns(UserWarning, match="2 rows with a duplicate key"):
        joined = run.join(labels, on="study_id", duplicates="first")
    assert "the first row was taken: 102" in str(joined)
    assert joined.table["age"].to_pylist() == [1, 2, 3, 3]
    assert joined.duplicate_rows["age"].to_pylist() == [2, 4]


def test_the_path_column_and_the_identifier_are_keys(tmp_path: Path, run: runs.EmbeddingRun) -> None:
    labels = pd.DataFrame({"ecg_paths": PATHS, "y": range(4)})
    assert run.join(labels, on="ecg_paths").table["y"].to_pylist() == [0, 1, 2, 3]
    by_id = Made(tmp_path / "ids", id_column="study_id", rows=[(path, n) for n, path in enumerate(PATHS)])
    labels = pd.DataFrame({"study_id": range(4), "y": range(4)})
    assert open_run(by_id.make()).join(labels, on="study_id").table["y"].to_pylist() == [0, 1, 2, 3]


def test_windows_of_a_recording_share_its_row(tmp_path: Path) -> None:
    run = open_run(Made(tmp_path / "run", format="parquet", stride=2.0, n_windows=2).make())
    labels = pd.DataFrame({"study_id": [101, 102, 103], "y": [1, 2, 3]})
    X, meta = run.join(labels, on="study_id").arrays()
    assert meta["y"].to_pylist() == [1, 1, 2, 2, 3, 3, 3, 3]
    assert len(X) == 8


def test_a_key_that_is_not_there_is_refused_with_the_way_to_get_it(run: runs.EmbeddingRun) -> None:
    labels = pd.DataFrame({"patient": [1], "fraction": [0.5]})
    with pytest.raises(RunError, match=r"no column 'patient'.*study_id.*keep_columns patient"):
        run.join(labels, on="patient")
    with pytest.raises(RunError, match="the table has no column 'study_id'"):
        run.join(labels, on="study_id")
    with pytest.raises(RunError, match="not whole"):
        run.join(pd.DataFrame({"study_id": [0.5]}), on="study_id")
    with pytest.raises(RunError, match="expected a pandas or polars DataFrame"):
        run.join(3, on="study_id")


@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_a_sample_is_spread_over_the_storage_and_always_the_same(tmp_path: Path, stored: str) -> None:
    rows = [(f"{number}.xml", number) for number in range(60)]
    made = Made(tmp_path, stored, "mean", rows=rows, done_order=[path for path, _ in reversed(rows)], shard_size=5)
    X, _ = open_run(made.make()).arrays("mean")
    chosen, block = X.sample(20, at_once=5)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert 15 < len(chosen) <= 20
    assert chosen.min() < 6
    assert chosen.max() > 53
    np.testing.assert_array_equal(block, X[chosen])
    np.testing.assert_array_equal(X.sample(20, at_once=5)[0], chosen)
    assert X.sample(60)[0].tolist() == list(range(60))
