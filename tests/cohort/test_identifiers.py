"""Identifiers that a table library has made floating-point numbers: seen before the run, and in a join."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pytest

import ecgfounder
from ecgfounder.cli import main
from ecgfounder.cohort.index import index_cohort
from ecgfounder.cohort.naming import Naming
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.errors import RunError
from ecgfounder.results.join import _comparable

PATHS = ["a.xml", "b.xml", "c.xml"]


def is_decimal(table: Path) -> bool:
    cohort = open_cohort(str(table), id_column="study")
    return index_cohort(cohort, Naming(), "/data").decimal_ids


@pytest.mark.parametrize(
    ("identifiers", "found"),
    [
        ([40689238.0, None, 1.0], True),
        ([40689238.0, np.nan, 1e17], True),
        (["40689238.0", "", "1.0"], True),
        (["1.0", "1.1", "2.0"], False),
        (["40689238.0", "x"], False),
        ([40689238, 2, 3], False),
        (["", None, ""], False),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_whole_numbers_with_a_decimal_point_are_seen(
    identifiers: list[Any], found: bool, suffix: str, tmp_path: Path
) -> None:
    rows = pd.DataFrame({"ecg_paths": PATHS[: len(identifiers)], "study": pd.Series(identifiers)})
    place = tmp_path / f"cohort.{suffix}"
    getattr(rows, f"to_{suffix}")(place, index=False)
    assert is_decimal(place) == found


def test_a_missing_number_is_no_identifier(tmp_path: Path) -> None:
    table = pa.table({"ecg_paths": PATHS, "study": pa.array([1.5, float("nan"), None])})
    pa.parquet.write_table(table, tmp_path / "cohort.parquet")
    records = open_cohort(str(tmp_path / "cohort.parquet"), id_column="study").records()
    assert [record.identifier for record in records] == ["1.5", "", ""]


@pytest.fixture
def command(tmp_path: Path, demo_cohort: Path, checkpoint_12lead: Path) -> Callable[..., int]:
    (tmp_path / "cohort.csv").write_text("ecg_paths,study\npatient_001/ecg_0001.xml,40689238.0\n,\n")

    def run(*more: str) -> int:
        words = ["embed", "--dataset", str(tmp_path / "cohort.csv"), "--data_dir", str(demo_cohort / "ecg")]
        words += ["--checkpoint", str(checkpoint_12lead), "--output_dir", str(tmp_path / "out"), "--num_workers", "0"]
        return main([*words, "--pooling", "mean", "--id_column", "study", *more])

    return run


def test_a_new_run_with_such_identifiers_is_refused_and_nothing_is_removed_before(
    command: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for more in (["--dry_run"], []):
        assert command(*more) == 2
        said = capsys.readouterr().err
        assert "all identifiers in the column 'study' are whole numbers with a decimal point" in said
        assert 'table["study"].astype("Int64")' in said
        assert "40689238" not in said
    assert not list(tmp_path.glob("out/*.json"))
    with monkeypatch.context() as patch:  # a run that an earlier version began
        patch.setattr("ecgfounder.run.run.refuse_decimal_ids", lambda *_: None)
        assert command() == 0
    assert command() == 0
    assert (tmp_path / "out" / "40689238.0.json").exists()
    assert command("--overwrite") == 2
    assert (tmp_path / "out" / "40689238.0.json").exists()
    joined = ecgfounder.open_run(tmp_path / "out").join(pd.DataFrame({"study": [40689238], "age": [61]}), on="study")
    assert joined.table["age"].to_pylist() == [61]


@pytest.mark.parametrize(
    ("left", "right", "matches"),
    [
        (["40689238.0", "7.0"], [7, 40689238], [1, 0]),
        (["40689238.0", None], ["40689238", "x"], [0, None]),
        ([40689238, 7], ["7.0", None, "40689238.00"], [2, 0]),
        (["1.0", "1.1"], ["1", "1.0"], [1, None]),  # versions, not numbers
        (["1.0"], ["1.0", "1.1"], [0]),
        (["1.0", "2.0"], ["2.0", "1.0"], [1, 0]),
        (["0123"], [123], [None]),
        ([], ["1.0"], []),
        ([None, None], [1], [None, None]),
    ],
)
def test_keys_with_a_decimal_point_match_whole_ones(left: list[Any], right: list[Any], matches: list[Any]) -> None:
    keys, others = _comparable(pa.chunked_array([pa.array(left)]), pa.chunked_array([pa.array(right)]), "study")
    assert pa.compute.index_in(keys, others, skip_nulls=True).to_pylist() == matches
    others, keys = _comparable(pa.chunked_array([pa.array(right)]), pa.chunked_array([pa.array(left)]), "study")
    assert pa.compute.index_in(keys, others, skip_nulls=True).to_pylist() == matches


def test_numbers_that_are_not_whole_are_refused() -> None:
    with pytest.raises(RunError, match="not whole"):
        _comparable(pa.chunked_array([pa.array([1.5])]), pa.chunked_array([pa.array([1])]), "study")
