"""What is looked at: labels beside the recordings, several runs as one, conditions, what is left out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ecgfounder.errors import ECGFounderError, RunError, SettingsError
from ecgfounder.results import open_run
from ecgfounder.viewer import Viewer, open_atlas
from ecgfounder.viewer.columns import LABELS
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
