"""The manifest has a row for every path of the dataset, in its order, and reads everywhere."""

from __future__ import annotations

import csv
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import duckdb
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.cohort.cohort import Cohort
from ecgfounder.cohort.index import record_identity
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.errors import CohortError, SettingsError
from ecgfounder.ledger.entry import key_text
from ecgfounder.ledger.ledger import LedgerState, read_ledger
from ecgfounder.ledger.manifest import (
    FAILURE_COLUMNS,
    RECORDS_AT_ONCE,
    SCHEMA,
    Tally,
    check_kept_columns,
    write_manifest,
)
from ecgfounder.storage import locate
from ecgfounder.storage.paths import path_key

DATA_DIR = "/data"

DONE: dict[str, Any] = {
    "status": "done",
    "output": "x.json",
    "format": "philips_sierra",
    "sampling_rate": 500.0,
    "n_samples": 5500,
    "leads": ["I", "II"],
    "shape": [22, 1024],
    "starts": [0.0],
    "flags": ["calibration_pulse:10.7", "flat:V1"],
    "size": 12345,
    "mtime_ns": 1_700_000_000_123_456_789,
    "sha256": "ab" * 32,
    "seconds": {"read": 0.25, "prepare": 0.5, "embed": 1.0, "write": 0.125},
    "device": {"device_manufacturer": "Philips", "format_version": 1.04, "resolution_uv": "5", "notch_hz": "off"},
}
REASON = 'damaged, "quoted"; and\non two lines, Größe \\xff'
FAILED: dict[str, Any] = {"status": "failed", "output": None, "error": "ReadError", "reason": REASON}

ROWS: list[dict[str, Any]] = [
    {"ecg_paths": ["a.xml", "b.xml"], "age": 61, "site": "north", "when": datetime.date(2020, 1, 2), "tags": ["x"]},
    {"ecg_paths": None, "age": 1, "site": "no ECG", "when": None, "tags": None},
    {"ecg_paths": ["/data/a.xml"], "age": None, "site": None, "when": None, "tags": []},
    {"ecg_paths": ["c.xml", "./b.xml", "/elsewhere/a.xml"], "age": 3, "site": "süd", "when": None, "tags": ["y", None]},
]


def state_of(folder: Path, entries: dict[str, dict[str, Any]]) -> LedgerState:
    folder.mkdir(exist_ok=True)
    with open(folder / "1.jsonl", "wb") as file:
        for path, facts in entries.items():
            key = key_text(path_key(record_identity(path, DATA_DIR)))
            file.write(orjson.dumps({"key": key, "record": path, **facts}) + b"\n")
    return read_ledger(locate(folder))


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "cohort")
    return open_cohort(str(tmp_path / "cohort"))


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return tmp_path / "manifest.parquet"


@pytest.fixture
def failures(tmp_path: Path) -> Path:
    return tmp_path / "failures.csv"


@pytest.fixture
def tally(tmp_path: Path, cohort: Cohort, manifest: Path, failures: Path) -> Tally:
    """Of a.xml, b.xml, c.xml and the other a.xml, the first is done, the second failed, the others are to do."""
    state = state_of(tmp_path / "ledger", {"a.xml": DONE, "b.xml": FAILED})
    return write_manifest(cohort, state, DATA_DIR, ("age", "site", "when", "tags"), manifest, failures)


@pytest.mark.usefixtures("tally")
def test_rows_stand_in_the_order_of_the_dataset_with_what_it_says_of_them(manifest: Path) -> None:
    rows = pq.read_table(manifest).to_pylist()
    assert [(row["row_index"], row["path_index"], row["record"], row["status"]) for row in rows] == [
        (0, 0, "a.xml", "done"),
        (0, 1, "b.xml", "failed"),
        (2, 0, "/data/a.xml", "done"),
        (3, 0, "c.xml", "pending"),
        (3, 1, "./b.xml", "failed"),
        (3, 2, "/elsewhere/a.xml", "pending"),
    ]
    for row in rows:
        assert {name: row[name] for name in ("age", "site", "when", "tags")} == {
            name: value for name, value in ROWS[row["row_index"]].items() if name != "ecg_paths"
        }


@pytest.mark.usefixtures("tally")
def test_a_done_row_has_the_facts_of_the_ledger(manifest: Path) -> None:
    table = pq.read_table(manifest)
    assert table.schema.names[: len(SCHEMA)] == SCHEMA.names
    first, again = table.slice(0, 1), table.slice(2, 1)
    (row,) = first.drop_columns("input_mtime").to_pylist()
    for name in ("status", "output", "format", "sampling_rate", "n_samples", "leads", "shape", "flags"):
        assert row[name] == DONE[name]
    assert row["window_starts"] == DONE["starts"]
    assert row["input_bytes"] == DONE["size"]
    assert row["input_sha256"] == DONE["sha256"]
    assert first.column("input_mtime").cast(pa.int64()).to_pylist() == [DONE["mtime_ns"]]
    assert [row[f"seconds_{stage}"] for stage in ("read", "prepare", "embed", "write")] == [0.25, 0.5, 1.0, 0.125]
    # Whatever a reader made of a device's settings, a column has one type.
    assert (row["device_manufacturer"], row["format_version"]) == ("Philips", "1.04")
    assert (row["resolution_uv"], row["notch_hz"], row["highpass_hz"]) == (5.0, None, None)
    unlike = ("row_index", "path_index", "record", "age", "site", "when", "tags")
    assert first.drop_columns(list(unlike)).equals(again.drop_columns(list(unlike)))


@pytest.mark.usefixtures("tally")
def test_rows_that_are_to_do_have_no_facts(manifest: Path) -> None:
    (row,) = pq.read_table(manifest).slice(3, 1).to_pylist()
    known = {"row_index", "path_index", "record", "status", "age", "site", "tags"}
    assert {name for name, value in row.items() if value is not None} == known


def test_the_tally_counts_each_record_once(tally: Tally) -> None:
    assert (tally.done, tally.failed, tally.pending) == (1, 1, 2)
    assert tally.flags == {"calibration_pulse": 1, "flat": 1}
    assert tally.formats == {"philips_sierra": 1}
    assert tally.seconds == {"read": 0.25, "prepare": 0.5, "embed": 1.0, "write": 0.125}
    assert tally.failures == [("b.xml", REASON)]
    assert orjson.loads(orjson.dumps(tally.as_dict()))["pending"] == 2


EXPECTED_FAILURES = [(0, 1, "b.xml", "ReadError", REASON), (3, 1, "./b.xml", "ReadError", REASON)]


@pytest.mark.usefixtures("tally")
class TestFailures:
    def test_with_csv(self, failures: Path) -> None:
        with open(failures, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert tuple(header) == FAILURE_COLUMNS
        assert [(int(row), int(path), *rest) for row, path, *rest in rows] == EXPECTED_FAILURES

    def test_with_pandas(self, failures: Path) -> None:
        assert list(pd.read_csv(failures).itertuples(index=False, name=None)) == EXPECTED_FAILURES

    def test_with_polars(self, failures: Path) -> None:
        assert pl.read_csv(failures).rows() == EXPECTED_FAILURES

    def test_with_duckdb(self, failures: Path) -> None:
        assert duckdb.sql(f"select * from '{failures}'").fetchall() == EXPECTED_FAILURES


@pytest.mark.usefixtures("tally")
class TestManifestReadsEverywhere:
    def test_with_pandas(self, manifest: Path) -> None:
        frame = pd.read_parquet(manifest)
        assert frame["status"].tolist() == ["done", "failed", "done", "pending", "failed", "pending"]
        assert frame["input_mtime"][0] == pd.Timestamp(DONE["mtime_ns"], tz="UTC")

    def test_with_polars(self, manifest: Path) -> None:
        done = pl.read_parquet(manifest).filter(pl.col("status") == "done")
        assert done["flags"].to_list() == [DONE["flags"]] * 2

    def test_with_duckdb(self, manifest: Path) -> None:
        found = duckdb.sql(f"select site, shape[1] from '{manifest}' where 'flat:V1' in flags").fetchall()
        assert found == [("north", 22), (None, 22)]

    def test_with_datasets(self, manifest: Path, tmp_path: Path) -> None:
        loaded = datasets.load_dataset(
            "parquet", data_files=str(manifest), split="train", cache_dir=str(tmp_path / "c")
        )
        assert loaded["record"][:2] == ["a.xml", "b.xml"]
        assert "age" in loaded.column_names


def test_no_failures_still_make_a_table(cohort: Cohort, tmp_path: Path, manifest: Path, failures: Path) -> None:
    write_manifest(cohort, state_of(tmp_path / "ledger", {"a.xml": DONE}), DATA_DIR, (), manifest, failures)
    assert failures.read_text().splitlines() == [",".join(FAILURE_COLUMNS)]
    assert len(pd.read_csv(failures)) == len(pl.read_csv(failures)) == 0
    assert duckdb.sql(f"select * from '{failures}'").columns == list(FAILURE_COLUMNS)


def test_a_dataset_without_rows_makes_empty_tables(tmp_path: Path, manifest: Path, failures: Path) -> None:
    (tmp_path / "empty.csv").write_text("ecg_paths,age\n")
    cohort = open_cohort(str(tmp_path / "empty.csv"))
    tally = write_manifest(cohort, state_of(tmp_path / "ledger", {}), DATA_DIR, ("age",), manifest, failures)
    assert (tally.done, tally.failed, tally.pending) == (0, 0, 0)
    assert len(pd.read_parquet(manifest)) == 0


def test_identifiers_stand_in_for_paths_where_they_name_the_outputs(
    tmp_path: Path, manifest: Path, failures: Path
) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text("ecg_paths,id\nsmith_john.xml,007\nb.xml,008\n")
    cohort = open_cohort(str(table), id_column="id")
    state = state_of(tmp_path / "ledger", {"smith_john.xml": FAILED, "b.xml": DONE})
    write_manifest(cohort, state, DATA_DIR, (), manifest, failures)
    assert pq.read_table(manifest).column("record").to_pylist() == ["007", "008"]
    assert b"smith" not in manifest.read_bytes()
    assert "smith" not in failures.read_text()


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_kept_columns_of_a_table_keep_their_types(tmp_path: Path, manifest: Path, failures: Path, suffix: str) -> None:
    frame = pd.DataFrame(
        {
            "ecg_paths": ["a.xml", "b.xml", "c.xml"],
            "count": [1, 2, 3],
            "weight": [1.5, None, 3.25],
            "sex": pd.Categorical(["f", "m", "f"]),
            "acute": [True, False, True],
        }
    )
    path = tmp_path / f"cohort.{suffix}"
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    cohort = open_cohort(str(path))
    kept = ("count", "weight", "sex", "acute", "count")
    check_kept_columns(cohort, kept)
    write_manifest(cohort, state_of(tmp_path / "ledger", {}), DATA_DIR, kept, manifest, failures)
    rows = pq.read_table(manifest).select(["count", "weight", "sex", "acute"]).to_pylist()
    assert rows == [
        {"count": 1, "weight": 1.5, "sex": "f", "acute": True},
        {"count": 2, "weight": None, "sex": "m", "acute": False},
        {"count": 3, "weight": 3.25, "sex": "f", "acute": True},
    ]


def test_kept_columns_that_are_not_there_or_are_the_manifests_own_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="Expected 'weight' column in the dataset; its columns are: ecg_paths, age"):
        check_kept_columns(cohort, ("age", "weight"))
    table = tmp_path / "t.csv"
    table.write_text("ecg_paths,status\na.xml,good\n")
    with pytest.raises(SettingsError, match="keep_columns status"):
        check_kept_columns(open_cohort(str(table)), ("status",))


def test_a_kept_column_that_breaks_far_down_is_refused_at_the_start(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("ecg_paths,age\n" + "a.xml,1\n" * 700_000 + "b.xml,unknown\n")
    cohort = open_cohort(str(table))
    check_kept_columns(cohort, ())
    with pytest.raises(CohortError, match="unknown"):
        check_kept_columns(cohort, ("age",))


def test_a_reader_of_the_folder_never_sees_half_a_table(
    cohort: Cohort, tmp_path: Path, manifest: Path, failures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest.write_bytes(b"old")
    failures.write_bytes(b"old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_manifest(cohort, state_of(tmp_path / "ledger", {}), DATA_DIR, (), manifest, failures)
    assert manifest.read_bytes() == failures.read_bytes() == b"old"


def test_more_records_than_one_chunk_keep_their_order_and_facts(tmp_path: Path, manifest: Path, failures: Path) -> None:
    count = 2 * RECORDS_AT_ONCE + 5

    def batches(columns: list[str]) -> Iterator[pa.Table]:
        for begin in range(0, count, 1000):
            rows = range(begin, min(begin + 1000, count))
            columns_of = {"ecg_paths": [f"{row % (count - 3)}.xml" for row in rows], "number": list(rows)}
            yield pa.table({name: columns_of[name] for name in columns})

    entries = {f"{row}.xml": FAILED if row % 2 else DONE | {"n_samples": row} for row in range(0, count - 3, 3)}
    cohort = Cohort(("ecg_paths", "number"), batches)
    tally = write_manifest(cohort, state_of(tmp_path / "ledger", entries), DATA_DIR, ("number",), manifest, failures)
    table = pq.read_table(manifest)
    assert table.column("number").to_pylist() == table.column("row_index").to_pylist() == list(range(count))
    for row in table.select(["record", "status", "n_samples"]).to_pylist():
        number = int(row["record"].removesuffix(".xml"))
        expected = "pending" if number % 3 else "failed" if number % 2 else "done"
        assert row["status"] == expected
        assert row["n_samples"] == (number if expected == "done" else None)
    assert tally.done + tally.failed == len(entries)
    assert tally.done + tally.failed + tally.pending == count - 3


def test_a_path_that_a_spreadsheet_would_run_is_text_in_the_csv_alone(
    tmp_path: Path, manifest: Path, failures: Path
) -> None:
    paths = ["=cmd|x.xml", "-5", "a;=1.xml", "b.xml"]
    datasets.Dataset.from_list([{"ecg_paths": paths}]).save_to_disk(tmp_path / "cohort")
    state = state_of(tmp_path / "ledger", dict.fromkeys(paths, FAILED | {"reason": "+1: damaged"}))
    write_manifest(open_cohort(str(tmp_path / "cohort")), state, DATA_DIR, (), manifest, failures)
    assert pq.read_table(manifest)["record"].to_pylist() == paths
    assert pd.read_csv(failures)["record"].to_list() == ["'=cmd|x.xml", "-5", "a;'=1.xml", "b.xml"]
    assert set(pd.read_csv(failures)["reason"]) == {"'+1: damaged"}
