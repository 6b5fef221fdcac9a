"""Every recording that is left out is counted under its rule; windows are never counted as recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ecgfounder.analysis.rows import selection
from ecgfounder.analysis.rows.selection import Selection, one_per_group, select
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results import open_run
from tests.builders.runs import PATHS, C, Made

LABELS = pd.DataFrame({"study_id": [101, 102, 103], "patient": ["a", "b", None], "age": [61, 47, 55]})


def run(folder: Path, **options: object) -> Path:
    return Made(folder, **options).make()  # type: ignore[arg-type]


def test_each_rule_counts_what_it_leaves_out(tmp_path: Path) -> None:
    flags = {PATHS[0]: ["clipped:I"]}
    opened = open_run(run(tmp_path / "run", flags=flags))
    found = select(opened, LABELS.iloc[:2], "study_id", exclude_flags=["clipped"], where="age < 90", group="patient")
    assert found.table["record"].to_pylist() == [PATHS[1]]
    assert {reason: number for reason, number in found.left_out.items() if number} == {
        "failed": 1,
        "no row in the table of labels": 2,
        "flags: clipped": 1,
    }
    without_patient = select(opened, LABELS, "study_id", group="patient")
    assert without_patient.left_out["no patient"] == 2
    assert without_patient.groups("patient").tolist() == [0, 1]


def test_a_patient_s_number_is_the_same_with_and_without_decimals(tmp_path: Path) -> None:
    labels = pd.DataFrame({"study_id": [101, 102, 103], "patient": [15.0, 7.5, np.nan], "name": ["1.0", "1", "v2.0"]})
    found = select(open_run(run(tmp_path / "run")), labels, "study_id")
    assert found.texts("patient", "group")[:2] == ["15", "7.5"]
    assert found.texts("name", "group") == ["1.0", "1", "v2.0", "v2.0"]  # texts are left as they are


def test_kept_columns_need_no_table(tmp_path: Path) -> None:
    found = select(open_run(run(tmp_path / "run")), where="study_id > 101")
    assert found.table.num_rows == 3
    assert found.left_out["where: study_id > 101"] == 1


def test_a_recording_in_several_rows_or_runs_counts_once(tmp_path: Path) -> None:
    rows = ((PATHS[0], 101), (PATHS[0], 102), (PATHS[1], 102))
    twice = open_run(run(tmp_path / "twice", rows=rows, done_order=PATHS[:2]))
    found = select(twice)
    assert found.table["record"].to_pylist() == [*PATHS[:2]]
    assert found.left_out["the same recording in another row"] == 1
    with pytest.warns(UserWarning, match="in several runs"):
        runs = open_run([tmp_path / "twice", run(tmp_path / "other")])
    found = select(runs)
    assert found.table["run"].to_pylist() == ["twice", "twice", "other", "other"]
    assert found.left_out["the same recording in an earlier run"] == 2


def test_windows_and_leads_of_a_recording_are_averaged(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet", stride=2.0, n_windows=3, pooling="mean")
    X = select(open_run(made.make())).features()
    expected = [np.mean([each.astype(float) for each in made.embeddings(path)], axis=0) for path in PATHS]
    assert X.shape == (4, C)
    assert np.allclose(X, expected, atol=1e-6)


def test_features_by_lead_are_one_after_the_other(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", lead="all", leads=("I", "II"), pooling="mean", stride=2.0, n_windows=2)
    X = select(open_run(made.make())).features("leads")
    views = made.embeddings(PATHS[1])  # by window, then by lead
    assert np.allclose(X[1], np.concatenate([(views[0] + views[2]) / 2, (views[1] + views[3]) / 2]), atol=1e-6)


def test_mean_and_deviation_over_tokens_need_feature_maps(tmp_path: Path) -> None:
    made = Made(tmp_path / "maps")
    X = select(open_run(made.make())).features("mean_std")
    (first,) = made.embeddings(PATHS[0])
    assert np.allclose(X[0], np.concatenate([first.mean(axis=0), first.std(axis=0)]), atol=1e-6)
    pooled = select(open_run(run(tmp_path / "means", pooling="mean")))
    with pytest.raises(SettingsError, match="needs feature maps"):
        pooled.features("mean_std")
    with pytest.raises(SettingsError, match="an embedding per lead"):
        pooled.features("leads")


def test_one_recording_of_each_patient(tmp_path: Path) -> None:
    found = select(open_run(run(tmp_path / "run")))
    groups = np.array([0, 0, 1, 1])
    assert one_per_group(found, groups, "first", "study_id", 0).table["record"].to_pylist() == [PATHS[0], PATHS[2]]
    last = one_per_group(found, groups, "last", "study_id", 0)
    assert last.table["record"].to_pylist() == [PATHS[1], PATHS[2]]
    assert last.left_out["not the last recording of its patient"] == 2
    assert one_per_group(found, groups, "random", None, 0).table.num_rows == 2
    with pytest.raises(SettingsError, match="need the column of the time"):
        one_per_group(found, groups, "first", None, 0)


@pytest.mark.parametrize(
    ("times", "first"),
    [
        (["2019-09-01", "2020-10-01 08:00"], 0),
        (["2020-10-01T08:00:00Z", "2020-10-01T08:00:00-05:00"], 0),
        ([2020.5, 2019.5], 1),
    ],
)
def test_the_first_recording_is_that_of_the_earliest_time(times: list[object], first: int) -> None:
    found = Selection(None, pa.table({"record": ["a", "b"], "time": times}), {})  # type: ignore[arg-type]
    assert one_per_group(found, np.zeros(2), "first", "time", 0).table["record"].to_pylist() == ["ab"[first]]


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (["9/1/2019", "10/1/2020"], "holds values that are no times, such as 2020-01-31 12:00:00"),
        (["2020-01-01T00:00:00Z", "2020-01-01T00:00:00"], "holds values that are no times"),
        (["2020-01-01", ""], "has missing values"),
        ([1.0, None], "has missing values"),
    ],
)
def test_times_without_a_certain_order_are_refused(times: list[object], said: str) -> None:
    found = Selection(None, pa.table({"record": ["a", "b"], "time": times}), {})  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=said):
        one_per_group(found, np.zeros(2), "first", "time", 0)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"where": "study_id > 900"}, RunError, r"no recording is left. Left out: failed: 1; where: study_id > 900: 4"),
        ({"group": "subject"}, SettingsError, "'group' parameter. There is no column 'subject'"),
        ({"exclude_flags": ["cliped"]}, SettingsError, "'exclude_flags' parameter"),
        ({"on": "study_id"}, SettingsError, "belong together"),
    ],
)
def test_what_cannot_be_chosen_is_refused(
    tmp_path: Path, options: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        select(open_run(run(tmp_path / "run")), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_chunks", [0, 1, 3])
@pytest.mark.parametrize("ends", ["different", "repeated text", "repeated end", "short", "missing"])
def test_texts_with_different_ends_are_known_to_differ(ends: str, n_chunks: int) -> None:
    shard = "embeddings-0.parquet::"
    texts: list[str | None] = [f"{shard}{number:016x}" for number in range(50)]
    if ends == "repeated text":
        texts[30] = texts[3]
    elif ends == "repeated end":
        texts[30] = f"other {texts[3]}"
    elif ends == "short":
        texts[30] = "short"
    elif ends == "missing":
        texts[30] = None
    parts = [texts[number::n_chunks] for number in range(n_chunks)]
    column = pa.chunked_array(parts, pa.string())
    assert selection._ends_differ(column) == (ends == "different" or not n_chunks)
    table = pa.table({"output": column})
    values = column.to_pylist()
    expected = [value not in values[:number] for number, value in enumerate(values)]
    assert selection._first_of(table, ["output"]).tolist() == expected
