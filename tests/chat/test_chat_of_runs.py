"""Chat files over runs with books: shards by reference, flags left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from ecgfounder.chat.forms import conversation
from ecgfounder.chat.rows import LeftOut
from ecgfounder.chat.settings import ChatSettings
from ecgfounder.chat.write import write_chat
from ecgfounder.commands.chat import mimic_main
from ecgfounder.results.store import read_embedding
from ecgfounder.storage import Location
from tests.builders.runs import DATA_DIR, Made


def reports(tmp_path: Path, paths: list[Any]) -> Path:
    folder = tmp_path / "reports"
    datasets.Dataset.from_dict(
        {"ecg_paths": paths, "report_0": [f"report {number}" for number in range(len(paths))]}
    ).save_to_disk(folder)
    return folder


def chat_of(dataset: Path, embeddings: Path | str, tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    output = tmp_path / "chat.json"
    words = ["--dataset_name", str(dataset), "--embeddings_dirs", str(embeddings), "--output_file", str(output)]
    assert mimic_main([*words, "--data_dir", DATA_DIR, *more]) == 0
    return list(json.loads(output.read_text()))


@pytest.mark.parametrize("outcome", ["complete", "interrupted"])
def test_rows_of_shards_are_named_by_references_that_read_back(tmp_path: Path, outcome: str) -> None:
    made = Made(tmp_path / "run", format="parquet", outcome=outcome, stride=2.0, n_windows=2)
    dataset = reports(tmp_path, [["a/1.xml"], ["b/5.xml"], ["/data/b/4.xml", "./a/../a/2.xml"], ["a/none.xml"]])
    chat = chat_of(dataset, made.make(), tmp_path)
    assert [row["messages"][1]["content"] for row in chat] == ["report 0", "report 2"]
    references = [reference for row in chat for reference in row["embeddings"]["m1"]]
    for reference, path in zip(references, ["a/1.xml", "b/4.xml", "a/2.xml"], strict=True):
        assert reference.startswith(f"{made.folder}/embeddings-")
        assert np.array_equal(read_embedding(reference), made.embeddings(path))


def test_rows_of_shards_are_found_where_names_would_collide(tmp_path: Path) -> None:
    paths = ["s1/ecg.xml", "s2/ecg.xml"]
    made = Made(tmp_path / "run", format="parquet", rows=[(path, 1) for path in paths], done_order=paths)
    chat = chat_of(reports(tmp_path, paths), made.make(), tmp_path)
    for row, path in zip(chat, paths, strict=True):
        assert np.array_equal(read_embedding(row["embeddings"]["m1"][0]), made.embeddings(path)[0])


def test_rows_of_shards_with_identifiers_are_found_by_them_wherever_the_recordings_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path / "run", format="parquet", id_column="study_id", rows=[("a/1.xml", 7), ("a/2.xml", 8)])
    made.done_order = ["a/1.xml", "a/2.xml"]
    dataset = tmp_path / "reports"
    cells = {"ecg_paths": ["moved/2.xml", "moved/1.xml"], "study_id": [8, 7], "report_0": ["eight", "seven"]}
    datasets.Dataset.from_dict(cells).save_to_disk(dataset)
    chat = chat_of(dataset, made.make(), tmp_path, "--id_column", "study_id")
    assert [row["messages"][1]["content"] for row in chat] == ["eight", "seven"]
    for row, path in zip(chat, ["a/2.xml", "a/1.xml"], strict=True):
        assert np.array_equal(read_embedding(row["embeddings"]["m1"][0]), made.embeddings(path)[0])
    words = [
        "--dataset_name",
        str(dataset),
        "--embeddings_dirs",
        str(made.folder),
        "--output_file",
        str(tmp_path / "no"),
    ]
    assert mimic_main(words) == 2
    assert "give their column as --id_column" in capsys.readouterr().err


def test_an_identifier_of_several_recordings_is_refused_over_shards_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path / "run", format="parquet", id_column="study_id", rows=[("a/1.xml", 7)], done_order=["a/1.xml"])
    dataset = tmp_path / "reports"
    cells = {"ecg_paths": ["a/1.xml", "a/2.xml"], "study_id": [7, 7], "report_0": ["its own", "another's"]}
    datasets.Dataset.from_dict(cells).save_to_disk(dataset)
    words = ["--dataset_name", str(dataset), "--embeddings_dirs", str(made.make()), "--id_column", "study_id"]
    assert mimic_main([*words, "--output_file", str(tmp_path / "no")]) == 1
    assert "shared by several ECGs" in capsys.readouterr().err


def test_a_relative_data_folder_is_one_folder_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = reports(tmp_path, ["1.xml", "./1.xml", f"{tmp_path}/1.xml"])
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "1.json").write_text("{}")
    words = ["--dataset_name", str(dataset), "--embeddings_dirs", "embeddings", "--data_dir", "."]
    assert mimic_main([*words, "--output_file", str(tmp_path / "chat.json")]) == 0
    assert len(json.loads((tmp_path / "chat.json").read_text())) == 3


def test_rows_of_shards_without_identifiers_are_found_by_paths_whatever_the_dataset_has(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet")
    chat = chat_of(reports(tmp_path, ["a/2.xml"]), made.make(), tmp_path, "--id_column", "report_0")
    assert np.array_equal(read_embedding(chat[0]["embeddings"]["m1"][0]), made.embeddings("a/2.xml")[0])


@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_rows_with_a_flag_that_is_excluded_are_left_out_and_counted(tmp_path: Path, stored: str) -> None:
    flags = {
        "a/1.xml": ["calibration_pulse:10.7"],
        "b/3.xml": ["resampled:250", "flat_lead:V1"],
        "b/4.xml": ["clipped"],
    }
    folder = Made(tmp_path / "run", format=stored, flags=flags).make()
    dataset = reports(tmp_path, [["a/1.xml"], ["a/2.xml"], ["a/2.xml", "b/3.xml"], ["b/4.xml"]])

    def kept(*names: str) -> list[str]:
        more = ["--exclude_flags", *names] if names else []
        return [row["messages"][1]["content"] for row in chat_of(dataset, folder, tmp_path, *more)]

    assert kept() == ["report 0", "report 1", "report 2", "report 3"]
    assert kept("calibration_pulse") == ["report 1", "report 2", "report 3"]
    assert kept("calibration_pulse", "flat_lead") == ["report 1", "report 3"]
    settings = ChatSettings(
        str(dataset),
        tmp_path / "c.json",
        {"ecg_paths": str(folder)},
        ("report_0",),
        data_dir=DATA_DIR,
        exclude_flags=("clipped",),
    )
    assert write_chat(settings, conversation).left_out == {LeftOut.FLAGGED: 1}


def test_what_flags_and_shards_cannot_do_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, shards = reports(tmp_path, ["a/1.xml"]), Made(tmp_path / "run", format="parquet").make()
    (tmp_path / "bare").mkdir()
    refused = [
        (shards, ["--exclude_flags", "pulse"], "'calibration_pulse'"),
        (tmp_path / "bare", ["--exclude_flags", "clipped"], "--exclude_flags: the flags are in the run's _run/"),
        (shards, ["--exclude_flags", "clipped", "--keep_missing"], "choose one"),
        (shards, ["--keep_missing"], "holds a run's Parquet shards"),
    ]
    for folder, more, said in refused:
        words = ["--dataset_name", str(dataset), "--embeddings_dirs", str(folder), *more]
        assert mimic_main([*words, "--output_file", str(tmp_path / "c.json")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


# --- runs that are elsewhere -----------------------------------------------------------------------------------------


def moved_elsewhere(folder: Path, elsewhere: Location) -> str:
    for path in folder.rglob("*"):
        if path.is_file():
            (elsewhere / path.relative_to(folder).as_posix()).put(path.read_bytes())
    return str(elsewhere)


@pytest.mark.parametrize("form", ["json", "parquet"])
@pytest.mark.parametrize("workers", ["0", "4"])
def test_a_run_in_a_store_gives_the_chat_file_of_the_run_in_a_folder(
    form: str, workers: str, tmp_path: Path, elsewhere: Location
) -> None:
    made = Made(tmp_path / "run", format=form, flags={"a/2.xml": ["clipped:I"]})
    folder = made.make()
    url = moved_elsewhere(folder, elsewhere)
    dataset = reports(tmp_path, ["a/1.xml", "a/2.xml", "b/5.xml", "b/4.xml", "a/none.xml"])
    for more in ((), ("--exclude_flags", "clipped")):
        here = chat_of(dataset, folder, tmp_path, "--num_workers", workers, *more)
        there = chat_of(dataset, url, tmp_path, "--num_workers", workers, *more)
        assert json.dumps(there) == json.dumps(here).replace(str(folder), url)
        assert len(there) == (2 if more else 3)
    for row in there:
        read_embedding(row["embeddings"]["m1"][0])


def test_a_folder_of_a_store_with_nothing_in_it_is_refused(
    tmp_path: Path, elsewhere: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset_name", str(reports(tmp_path, ["a/1.xml"])), "--output_file", str(tmp_path / "no")]
    assert mimic_main([*words, "--embeddings_dirs", str(elsewhere)]) == 2
    assert f"{elsewhere}: there is nothing below it" in capsys.readouterr().err
