"""Several runs are used as one: rows in order, named by run; what would be wrong is refused or named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results.run import open_run
from tests.builders.runs import BROKEN, PATHS, STUDIES, C, Made

OTHERS = (("c/1.xml", 201), ("c/2.xml", 202))


def made(folder: Path, rows: tuple[tuple[str, int], ...] = OTHERS, **options: object) -> Path:
    return Made(folder, rows=rows, done_order=[path for path, _ in rows], **options).make()  # type: ignore[arg-type]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [Made(tmp_path / "one").make(), made(tmp_path / "two", format="parquet", pooling="mean")]


def test_rows_are_those_of_the_runs_one_after_the_other(folders: list[Path]) -> None:
    runs = open_run(folders)
    X, meta = runs.arrays(pooling="mean")
    each = [open_run(folder).arrays(pooling="mean") for folder in folders]
    assert np.array_equal(X, np.concatenate([np.asarray(part) for part, _ in each]))
    assert meta.column_names[0] == "run"
    assert meta["run"].to_pylist() == ["one"] * 4 + ["two"] * 2
    assert meta["record"].to_pylist() == [*PATHS, "c/1.xml", "c/2.xml"]
    assert len(runs) == len(X) == runs.records.num_rows == 6
    assert runs.failures.select(["run", "record"]).to_pylist() == [{"run": "one", "record": BROKEN[0]}]
    assert runs.manifest.num_rows == 7
    assert runs.is_complete


def test_some_rows_are_read_from_both_runs_in_the_order_asked_for(folders: list[Path]) -> None:
    X, _ = open_run(folders).arrays(pooling="mean")
    wanted = [5, 0, 4, 3]
    some = X[wanted]
    assert some.shape == (4, C)
    assert np.array_equal(some, np.asarray(X)[wanted])


def test_iterating_yields_the_run_with_each_row(folders: list[Path]) -> None:
    runs = open_run(folders, names=["a", "b"])
    assert [(facts["run"], facts["record"]) for facts, _ in runs] == [
        *(("a", path) for path in PATHS),
        ("b", "c/1.xml"),
        ("b", "c/2.xml"),
    ]


def test_a_join_matches_the_recordings_of_all_runs(folders: list[Path]) -> None:
    labels = pd.DataFrame({"study_id": [101, 102, 103, 201, 202], "y": range(5)})
    joined = open_run(folders).join(labels, on="study_id")
    assert joined.table["y"].to_pylist() == [0, 1, 2, 2, 3, 4]
    X, meta = joined.arrays(pooling="mean")
    assert meta["run"].to_pylist() == ["one"] * 4 + ["two"] * 2
    assert np.array_equal(X, open_run(folders).arrays(pooling="mean")[0])


def test_runs_that_name_their_records_differently_are_joined_on_the_same_column(tmp_path: Path) -> None:
    folders = [Made(tmp_path / "paths").make(), made(tmp_path / "ids", id_column="study_id")]
    labels = pd.DataFrame({"study_id": ["101", "102", "103", "201", "202"], "y": range(5)})
    joined = open_run(folders).join(labels, on="study_id")
    assert joined.table["y"].to_pylist() == [0, 1, 2, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": "f" * 64}, f"two: checkpoint_sha256: {'0' * 64} in one, here {'f' * 64}"),
        ({"stride": 2.0}, "two: preparation.stride: None in one, here 2.0"),
        ({"dtype": "float16", "format": "parquet"}, "two: dtype: float32 in one, here float16"),
    ],
)
def test_runs_that_differ_in_what_decides_a_vector_are_refused_unless_told(
    tmp_path: Path, options: dict[str, object], said: str
) -> None:
    folders = [Made(tmp_path / "one").make(), made(tmp_path / "two", **options)]
    with pytest.raises(RunError, match="differ in what decides a vector") as refused:
        open_run(folders)
    assert said in str(refused.value)
    runs = open_run(folders, allow_different=True)
    assert runs.differences == (said,)
    assert len(runs.arrays(pooling="mean")[0]) == 6


def test_what_is_told_beside_the_vectors_may_differ(folders: list[Path]) -> None:
    path = folders[0] / "_run" / "run.json"
    told = json.loads(path.read_text())
    told["fingerprint"] |= {"predictions": True, "statements": True, "heart_rate": True}
    path.write_text(json.dumps(told))
    assert open_run(folders).differences == ()


def test_a_recording_in_two_runs_is_named(tmp_path: Path) -> None:
    folders = [Made(tmp_path / "one").make(), made(tmp_path / "two", ((PATHS[0], 101), *OTHERS))]
    with pytest.warns(UserWarning, match=r"1 recording is in several runs .*a/1\.xml \(one\), a/1\.xml \(two\)"):
        runs = open_run(folders)
    assert runs.repeated.select(["run", "record"]).to_pylist() == [
        {"run": "one", "record": PATHS[0]},
        {"run": "two", "record": PATHS[0]},
    ]


def test_a_path_that_several_rows_of_one_run_name_is_in_one_run(tmp_path: Path) -> None:
    rows = ((PATHS[0], 101), (PATHS[0], 102))
    twice = Made(tmp_path / "twice", rows=rows, done_order=[PATHS[0]]).make()
    assert open_run([twice, made(tmp_path / "two")]).repeated.num_rows == 0


def test_feature_maps_of_another_shape_are_refused_with_the_way_out(folders: list[Path]) -> None:
    with pytest.raises(RunError, match=r"differ in shape \(one: \[3, 6\], two: \[6\]\).*pooling=\"mean\""):
        open_run(folders).arrays()


@pytest.mark.parametrize(
    ("names", "said"), [(["a"], "a name for each of 2 runs, got 1"), (["a", "a"], "must differ, got a, a")]
)
def test_names_that_do_not_tell_runs_apart_are_refused(folders: list[Path], names: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        open_run(folders, names=names)


def test_names_are_for_a_list_and_a_list_has_a_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="for a list of folders"):
        open_run(Made(tmp_path / "run").make(), names=["a"])  # type: ignore[call-overload]
    with pytest.raises(SettingsError, match="at least one run"):
        open_run([])


def test_a_kept_column_with_the_name_of_the_run_is_kept(tmp_path: Path) -> None:
    kept = {path: {"run": f"acquisition {number}"} for number, path in enumerate(PATHS)}
    kept[BROKEN[0]] = {"run": "acquisition 4"}
    runs = open_run([Made(tmp_path / "one", kept=kept).make(), made(tmp_path / "two")])
    assert runs.records["run"].to_pylist() == ["one"] * 4 + ["two"] * 2
    assert runs.records["run_kept"].to_pylist() == [f"acquisition {number}" for number in range(4)] + [None, None]


def test_kept_columns_of_other_types_become_text_and_missing_ones_null(tmp_path: Path) -> None:
    folders = [Made(tmp_path / "one").make(), made(tmp_path / "two", id_column="study_id")]
    assert open_run(folders).records["study_id"].to_pylist() == [*STUDIES, None, None]
