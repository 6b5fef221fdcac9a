"""What is looked at: labels beside the recordings, several runs as one, conditions, what is left out."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from ecgfounder.errors import ECGFounderError, RunError, SettingsError
from ecgfounder.results import open_run
from ecgfounder.viewer import Viewer, open_atlas
from ecgfounder.viewer.columns import LABELS, encoded
from ecgfounder.viewer.details import facts_of
from ecgfounder.viewer.saving import saved
from tests.builders.atlas import Shown
from tests.builders.runs import BROKEN, Made


def test_recordings_without_labels_are_shown_too(shown: Shown) -> None:
    labels = pd.DataFrame({"study_id": [5004, 5002, 9999], "score": [0.5, 1.5, 9.0]})
    atlas = open_atlas(open_run(shown.folder), labels, "study_id")
    assert len(atlas) == len(shown.table)
    assert atlas.columns.shown["score"] == LABELS
    assert next(iter(atlas.columns.shown)) == "score"
    scores = atlas.selection.table["score"].to_pylist()
    assert [(row, each) for row, each in enumerate(scores) if each is not None] == [(2, 1.5), (4, 0.5)]
    assert atlas.where("score > 1").nonzero()[0].tolist() == [2]


def test_a_condition_may_name_labels_and_made_columns(shown: Shown) -> None:
    labels = pd.DataFrame({"study_id": shown.table["study_id"], "score": range(len(shown.table))})
    atlas = open_atlas(open_run(shown.folder), labels, "study_id", where='score < 50 and col("flag: clipped")')
    assert len(atlas) == 10
    assert atlas.selection.left_out['where: score < 50 and col("flag: clipped")'] == 290
    atlas = open_atlas(open_run(shown.folder), exclude_flags=["clipped"])
    assert len(atlas) == 240


def test_what_is_wrong_is_said_before_anything_is_served(shown: Shown) -> None:
    run = open_run(shown.folder)
    with pytest.raises(SettingsError, match="group"):
        open_atlas(run, group="patient")
    with pytest.raises(SettingsError, match="where"):
        open_atlas(run, where="nothing > 3")
    with pytest.raises(SettingsError, match="labels and on"):
        open_atlas(run, on="study_id")
    with pytest.raises(RunError, match="more than one"):
        open_atlas(run, pd.DataFrame({"study_id": [1, 1]}), "study_id")


def test_several_runs_as_one(tmp_path: Path) -> None:
    folders = [Made(tmp_path / name, data=number).make() for number, name in enumerate(("old", "new"))]
    viewer = Viewer(lambda: open_atlas(open_run(folders), group="study_id"))
    viewer.atlas.places.wait(60)
    opening = viewer.opening
    told = opening.about()
    assert (told["runs"], told["n"], told["n_failed"]) == (["old", "new"], 8, 2)
    assert [each["run"] for each in opening.search("a/1.xml")["found"]] == ["old", "new"]
    assert opening.failures("", 0)["rows"][1]["run"] == "new"
    others = opening.recording(2)["others"]
    assert [(each["run"], each["record"]) for each in others] == [
        ("old", "b/4.xml"),
        ("new", "b/3.xml"),
        ("new", "b/4.xml"),
    ]
    assert opening.column("run")[0]["categories"] == ("new", "old")
    viewer.close()


def test_labels_beside_several_runs(tmp_path: Path) -> None:
    folders = [Made(tmp_path / name, data=number).make() for number, name in enumerate(("old", "new"))]
    labels = pd.DataFrame({"study_id": [101, 103], "record": ["x", "y"]})
    atlas = open_atlas(open_run(folders), labels, "study_id")
    assert atlas.selection.table["record_table"].to_pylist() == ["x", None, "y", "y"] * 2


def test_labels_beside_a_run_in_which_all_failed(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run", rows=[BROKEN], done_order=[]).make()
    atlas = open_atlas(
        open_run(folder), pd.DataFrame({"study_id": [104], "score": [1.0]}), "study_id", where="score > 0"
    )
    assert (len(atlas), atlas.failures.num_rows) == (0, 1)


def test_selections_are_forgotten_in_order(shown: Shown) -> None:
    viewer = Viewer(lambda: open_atlas(open_run(shown.folder)))
    opening = viewer.opening
    masks = [viewer.atlas.where(f"study_id == {5000 + number}") for number in range(10)]
    numbers = [opening.select(mask)["selection"] for mask in masks]
    assert opening.rows(numbers[-1], 0)["rows"][0]["row"] == 9
    assert opening.rows(numbers[2], 0)["rows"][0]["row"] == 2
    with pytest.raises(ECGFounderError, match="select again"):
        opening.rows(numbers[0], 0)
    viewer.close()


def test_an_unfinished_run_tells_its_progress_and_is_read_again(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", outcome="interrupted", done_order=["a/1.xml", "a/2.xml"])
    folder = made.make()
    viewer = Viewer(lambda: open_atlas(open_run(folder, allow_incomplete=True)))
    (told,) = viewer.status()["runs"]
    assert (told["name"], told["done"], told["failed"]) == ("run", 2, 1)
    assert viewer.opening.about()["is_complete"] is False
    again = viewer.reopen()
    assert again["n"] == 2
    viewer.close()


def test_a_complete_run_has_no_progress(shown: Shown) -> None:
    viewer = Viewer(lambda: open_atlas(open_run(shown.folder)))
    assert viewer.status() == {"runs": []}
    viewer.close()


def test_columns_of_polars_are_found_saved_as_cells_and_shown_as_they_are(shown: Shown) -> None:
    n = len(shown.table)
    labels = pl.DataFrame(
        {
            "study_id": shown.table["study_id"],
            "note": ["=1+1", *(f"note {number}" for number in range(1, n))],
            "kind": pl.Series(["=2+2", *["b"] * (n - 1)], dtype=pl.Categorical),
            "person": [10_000_033.0, None, *map(float, range(2, n))],
            "dose": pl.Series([0.1] * n, dtype=pl.Float32),
            "pca_x": [1] * n,
            "=x": [1] * n,
            "'=x": [2] * n,
        }
    )
    for given in (labels, texts_as(labels, pa.large_string()), texts_as(labels, pa.string_view())):
        atlas = open_atlas(open_run(shown.folder), given, "study_id", group="person")
        atlas.places.wait(60)
        assert atlas.find("note 7").rows == (7,)
        assert atlas.find("=2+2").rows == (0,)
        assert encoded(atlas.selection.table["note"]).names_few
        assert atlas.names([0])[0]["person"] == "10000033"
        facts = dict(facts_of(atlas, 0)["facts"])
        assert (facts["person"], facts["dose"], facts["age"]) == ("10000033", "0.1", str(shown.table["age"][0]))
        mask = np.arange(n) < 3
        cells = pd.read_csv(io.BytesIO(b"".join(saved(atlas, mask, "csv"))))
        assert cells["note"].tolist() == ["'=1+1", "note 1", "note 2"]
        assert cells["kind"].tolist() == ["'=2+2", "b", "b"]
        assert (cells["'=x"].tolist(), cells["''=x"].tolist()) == ([1] * 3, [2] * 3)
        for table in (cells, pd.read_parquet(io.BytesIO(b"".join(saved(atlas, mask, "parquet"))))):
            assert table["pca_x"].tolist() == [1] * 3
            assert table["pca_x_2"].tolist() == atlas.places.coordinates("pca")[:3, 0].tolist()
        atlas.close()


def texts_as(table: pl.DataFrame, kind: pa.DataType) -> pa.Table:
    """The table with this kind of texts, in dictionaries too where they can be."""
    made = table.to_arrow()
    note = made["note"].cast(pa.string()).cast(kind)
    decoded = made["kind"].cast(pa.string()).cast(kind)
    made = made.set_column(made.column_names.index("note"), "note", note)
    coded = decoded if kind == pa.string_view() else decoded.dictionary_encode()
    return made.set_column(made.column_names.index("kind"), "kind", coded)
