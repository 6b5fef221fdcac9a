"""An export is the run that would have been made in that form, byte for byte and row for row, and is refused otherwise."""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.cli import embed_main
from ecgfounder.commands.export import add_export_arguments, run_export
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.ledger.entry import key_text
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import LedgerWriter, read_ledger
from ecgfounder.results.export import export_run, export_runs
from ecgfounder.results.run import open_run
from ecgfounder.sinks.json import JsonSink
from ecgfounder.stages.pooling import pooled
from ecgfounder.storage.paths import path_key
from tests.builders.entries import END, HEADER
from tests.builders.runs import DATA_DIR, FORMS, PATHS, Made


def files(folder: Path) -> dict[str, bytes]:
    """A run's outputs by name, without its books."""
    paths = (path for path in folder.rglob("[!.]*") if path.is_file() and "_run" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows of a run's shards."""
    table = pa.concat_tables([pq.read_table(shard) for shard in folder.glob("*.parquet")])
    return sorted(table.to_pylist(), key=lambda row: (row["key"], row["window"], str(row["lead"])))


def facts(folder: Path) -> list[dict[str, Any]]:
    """A manifest's rows without where the embeddings lie."""
    return open_run(folder).manifest.drop_columns(["output"]).to_pylist()


@pytest.mark.parametrize("form", FORMS)
def test_an_export_is_what_a_run_of_that_form_writes(tmp_path: Path, form: str) -> None:
    as_json = Made(tmp_path / "json", **FORMS[form]).make()
    as_shards = Made(tmp_path / "shards", format="parquet", **FORMS[form]).make()
    assert export_run(as_shards, tmp_path / "to_json", "json") == 4
    assert files(tmp_path / "to_json") == files(as_json)
    assert export_run(as_json, tmp_path / "to_shards", "parquet", shard_size=3) == 4
    assert rows(tmp_path / "to_shards") == rows(as_shards)
    assert [len(pq.read_table(shard)) > 0 for shard in (tmp_path / "to_shards").glob("*.parquet")] == [True, True]
    assert export_run(as_shards, tmp_path / "to_npy", "npy") == 4
    assert export_run(tmp_path / "to_npy", tmp_path / "back", "json") == 4
    assert files(tmp_path / "back") == files(as_json)
    for name in ("to_json", "to_shards", "to_npy", "back"):
        assert facts(tmp_path / name) == facts(as_json)
        failures = tmp_path / name / "_run" / "failures.csv"
        assert failures.read_bytes() == (as_json / "_run" / "failures.csv").read_bytes()
        assert np.array_equal(open_run(tmp_path / name).arrays()[0], open_run(as_json).arrays()[0])
        assert list((tmp_path / name / "_run" / "scratch").iterdir()) == []


def test_npy_files_are_float32_arrays_of_the_documented_shape(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet", stride=2.0, n_windows=3, layout="tree")
    export_run(made.make(), tmp_path / "out", "npy")
    assert sorted(files(tmp_path / "out")) == [path.replace(".xml", ".npy") for path in PATHS]
    array = np.load(tmp_path / "out" / "a" / "1.npy", allow_pickle=False)
    assert array.dtype == np.float32
    assert np.array_equal(array, made.embeddings("a/1.xml"))


@pytest.fixture(scope="module")
def cohort(demo_cohort: Path) -> Path:
    return demo_cohort


def test_a_real_run_of_one_form_and_an_export_to_it_are_the_same_and_it_can_be_resumed(
    cohort: Path, checkpoint_12lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def embed(name: str, form: str) -> str:
        words = ["--dataset", str(cohort / "dataset"), "--data_dir", str(cohort / "ecg"), "--num_workers", "0"]
        words += ["--output_dir", str(tmp_path / name), "--checkpoint", str(checkpoint_12lead), "--format", form]
        assert embed_main([*words, "--batch_size", "4", "--window", "10"]) == 1
        return capsys.readouterr().err

    embed("json", "json")
    embed("shards", "parquet")
    n_done = export_run(tmp_path / "shards", tmp_path / "to_json", "json")
    assert files(tmp_path / "to_json") == files(tmp_path / "json")
    assert len(files(tmp_path / "json")) == n_done > 5
    export_run(tmp_path / "json", tmp_path / "to_shards", "parquet")
    assert rows(tmp_path / "to_shards") == rows(tmp_path / "shards")
    for name, form in (("to_json", "json"), ("to_shards", "parquet")):
        assert f"to do: 0, done before: {n_done}" in embed(name, form)
    assert files(tmp_path / "to_json") == files(tmp_path / "json")
    assert rows(tmp_path / "to_shards") == rows(tmp_path / "shards")


def test_maps_with_their_means_stay_both_in_shards_and_become_maps_in_files(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet", pooling="both")
    folder = made.make()
    export_run(folder, tmp_path / "shards", "parquet", shard_size=1)
    assert rows(tmp_path / "shards") == rows(folder)
    export_run(folder, tmp_path / "json", "json")
    run = open_run(tmp_path / "json")
    assert run.pooling == "none"
    assert np.array_equal(run.arrays(pooling="mean")[0], [pooled(made.embeddings(path)[0]) for path in PATHS])


def test_half_precision_stays_so_in_shards_and_becomes_float32_in_files(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run", format="parquet", dtype="float16").make()
    export_run(folder, tmp_path / "shards", "parquet")
    assert rows(tmp_path / "shards") == rows(folder)
    export_run(folder, tmp_path / "json", "json")
    assert np.array_equal(open_run(tmp_path / "json").arrays()[0], open_run(folder).arrays()[0])


def test_windows_of_several_lengths_go_to_shards_only(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run", format="parquet", stride=2.0, n_windows=2, remainder="keep").make()
    for to in ("json", "npy"):
        with pytest.raises(RunError, match="Export to parquet"):
            export_run(folder, tmp_path / to, to)
        assert not (tmp_path / to).exists()
    export_run(folder, tmp_path / "shards", "parquet")
    assert rows(tmp_path / "shards") == rows(folder)


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_that_would_collide_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    paths = ("a/x.xml", "b/X.xml", "c/y.xml")
    made = Made(tmp_path / "run", format="parquet", rows=[(path, 1) for path in paths], done_order=paths)
    folder = made.make()
    with pytest.raises(RunError, match=r"1 names would be shared.*layout='tree'.*:\n  a/x\.xml\n  b/X\.xml\Z"):
        export_run(folder, tmp_path / "out", "json")
    assert not (tmp_path / "out").exists()
    export_run(folder, tmp_path / "out", "json", layout="tree")
    assert sorted(files(tmp_path / "out")) == ["a/x.json", "b/X.json", "c/y.json"]
    assert open_run(tmp_path / "out").settings["fingerprint"]["layout"] == "tree"


def test_a_path_outside_the_data_folder_has_no_place_in_a_tree(tmp_path: Path) -> None:
    paths = ("/elsewhere/x.xml",)
    folder = Made(tmp_path / "run", format="parquet", rows=[(paths[0], 1)], done_order=paths).make()
    with pytest.raises(RunError, match=r"/elsewhere/x\.xml cannot be exported.*outside data_dir"):
        export_run(folder, tmp_path / "out", "json", layout="tree")
    export_run(folder, tmp_path / "out", "json")
    assert list(files(tmp_path / "out")) == ["x.json"]


def test_a_name_that_is_not_utf8_is_written_out(tmp_path: Path) -> None:
    class NotUtf8(Made):
        """Records whose names the books can only show."""

        def output(self, path: str, order: int) -> Any:
            output = super().output(path, order)
            raw = os.fsdecode(b"a/\xff1.xml")
            entry = replace(output.receipt, record="a/\\xff1.xml", key=key_text(path_key(raw)))
            return replace(output, record=entry.record, key=entry.key, receipt=entry)

    made = NotUtf8(tmp_path / "run", format="parquet", rows=[("a/1.xml", 1)], done_order=["a/1.xml"], outcome="stopped")
    export_run(made.make(), tmp_path / "out", "json", allow_incomplete=True)
    assert "\\xff1.json" in os.listdir(tmp_path / "out")
    X, meta = open_run(tmp_path / "out", allow_incomplete=True).arrays()
    assert meta["output"].to_pylist() == ["\\xff1.json"]
    assert np.array_equal(X[0], made.embeddings("a/1.xml")[0])


def test_identifiers_name_the_files_and_no_path_shows(tmp_path: Path) -> None:
    study = [(path, 7 + number) for number, path in enumerate(PATHS)]
    by_id: dict[str, Any] = {"id_column": "study_id", "rows": study}
    as_json = Made(tmp_path / "json", **by_id).make()
    as_shards = Made(tmp_path / "shards", format="parquet", **by_id).make()
    export_run(as_shards, tmp_path / "to_json", "json")
    assert files(tmp_path / "to_json") == files(as_json)
    assert sorted(files(as_json)) == ["10.json", "7.json", "8.json", "9.json"]
    export_run(as_json, tmp_path / "to_shards", "parquet")
    assert rows(tmp_path / "to_shards") == rows(as_shards)
    for shard in (tmp_path / "to_shards").glob("*.parquet"):
        assert "ecg_path" not in pq.read_schema(shard).names
        assert b".xml" not in shard.read_bytes()


def test_a_path_that_two_rows_name_is_exported_once(tmp_path: Path) -> None:
    rows_ = [("a/1.xml", 1), ("a/2.xml", 2), ("a/1.xml", 3)]
    made = Made(tmp_path / "run", format="parquet", rows=rows_, done_order=("a/2.xml", "a/1.xml"))
    folder = made.make()
    assert export_run(folder, tmp_path / "out", "json") == 2
    before, after = open_run(folder), open_run(tmp_path / "out")
    assert np.array_equal(before.arrays()[0], after.arrays()[0])
    assert before.arrays()[1].drop_columns(["output"]) == after.arrays()[1].drop_columns(["output"])


# --- what is refused, and what is left -------------------------------------------------------------------------------


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run").make()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    before = files(folder)
    for out in (tmp_path / "out", tmp_path / "out" / "mine.txt"):
        with pytest.raises(RunError, match="is not empty"):
            export_run(folder, out, "npy")
    for out in (folder, folder / "npy", tmp_path / "out" / ".." / "run" / "npy"):
        with pytest.raises(RunError, match="is inside the exported run"):
            export_run(folder, out, "npy")
    assert files(folder) == before
    assert files(tmp_path / "out") == {"mine.txt": b"mine"}
    with pytest.raises(SettingsError, match="'json', 'npy' and 'parquet'"):
        export_run(folder, tmp_path / "new", "csv")


@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_an_incomplete_run_is_exported_only_when_asked_and_stays_incomplete(tmp_path: Path, stored: str) -> None:
    made = Made(tmp_path / "run", format=stored, outcome="interrupted", done_order=("b/3.xml", "a/1.xml"))
    folder = made.make()
    with pytest.raises(RunError, match="allow_incomplete=True"):
        export_run(folder, tmp_path / "out", "json")
    assert export_run(folder, tmp_path / "out", "json", allow_incomplete=True) == 2
    assert sorted(files(tmp_path / "out")) == ["1.json", "3.json"]
    with pytest.raises(RunError, match="interrupted"):
        open_run(tmp_path / "out")
    state = read_ledger(RunFolder(tmp_path / "out").ledger)
    assert np.array_equal(state.keys, read_ledger(made.books.ledger).keys)
    assert sorted(state.status) == [1, 1, 2]


def test_an_export_that_breaks_off_is_seen_to_be_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Made(tmp_path / "run", format="parquet").make()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(JsonSink, "write", full)
    with pytest.raises(RunError, match=r"No space left on device\. It is not complete"):
        export_run(folder, tmp_path / "out", "json")
    with pytest.raises(RunError, match=r"not complete \(outcome: exporting\)"):
        open_run(tmp_path / "out")


def test_an_embedding_that_is_gone_stops_the_export_with_its_name(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run").make()
    (folder / "3.json").unlink()
    with pytest.raises(RunError, match=r"3\.json is missing"):
        export_run(folder, tmp_path / "out", "npy")


def test_a_ledger_of_another_run_is_noticed(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run").make()
    shutil.rmtree(folder / "_run" / "ledger")
    (folder / "_run" / "ledger").mkdir()
    LedgerWriter(folder / "_run" / "ledger" / "1.jsonl", HEADER).end(END)
    with pytest.raises(RunError, match="do not agree"):
        export_run(folder, tmp_path / "out", "npy")


def test_a_moved_run_exports_as_before(tmp_path: Path) -> None:
    folder = Made(tmp_path / "run", layout="tree").make()
    before = files(folder)
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    export_run(moved, tmp_path / "shards", "parquet")
    export_run(tmp_path / "shards", tmp_path / "out", "json")
    assert files(tmp_path / "out") == before
    assert open_run(tmp_path / "out").settings["settings"]["data_dir"] == DATA_DIR


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    add_export_arguments(made)
    return made


def test_the_command_says_what_it_wrote(
    tmp_path: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Made(tmp_path / "run", format="parquet").make()
    words = [str(folder), "--to", "json", "--output_dir", str(tmp_path / "out"), "--layout", "tree"]
    assert run_export(parser.parse_args(words)) == 0
    assert f"4 embeddings of {folder} written to {tmp_path / 'out'} as json" in capsys.readouterr().err
    assert sorted(files(tmp_path / "out")) == ["a/1.json", "a/2.json", "b/3.json", "b/4.json"]


def test_several_runs_are_written_to_folders_with_their_names(
    tmp_path: Path, parser: argparse.ArgumentParser, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ((PATHS[0], 101), ("c/9.xml", 201))
    other = Made(tmp_path / "two", rows=rows, done_order=[path for path, _ in rows])
    folders = [str(Made(tmp_path / "one", format="parquet").make()), str(other.make())]
    words = [*folders, "--to", "json", "--output_dir", str(tmp_path / "out")]
    assert run_export(parser.parse_args(words)) == 0
    said = capsys.readouterr().err
    assert f"4 embeddings written to {tmp_path / 'out'}/one as json" in said
    assert f"2 embeddings written to {tmp_path / 'out'}/two as json" in said
    assert "1 recording is in several runs" in said
    with pytest.warns(UserWarning, match="in several runs"):
        before, after = open_run(folders), open_run([tmp_path / "out" / "one", tmp_path / "out" / "two"])
    assert np.array_equal(before.arrays()[0], after.arrays()[0])
    assert before.arrays()[1]["record"].equals(after.arrays()[1]["record"])


def test_of_several_runs_none_is_written_if_one_cannot_be(tmp_path: Path) -> None:
    folders = [Made(tmp_path / "one").make(), Made(tmp_path / "two", data=1).make()]
    taken = tmp_path / "out" / "two"
    taken.mkdir(parents=True)
    (taken / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="is not empty"):
        export_runs(folders, tmp_path / "out", "npy")
    assert not (tmp_path / "out" / "one").exists()
    for name in ("../x", "a/b", ""):
        with pytest.raises(SettingsError, match="must be the name of a folder"):
            export_runs(folders, tmp_path / "new", "npy", names=["a", name])
    assert not (tmp_path / "new").exists()
