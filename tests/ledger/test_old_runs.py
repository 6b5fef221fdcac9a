"""Runs of version 0.1.0 are opened, resumed and brought up to date; what a newer version wrote is refused by name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest

from ecgfounder.cli import main
from ecgfounder.errors import RunError
from ecgfounder.ledger import record as record_module
from ecgfounder.ledger.record import FORMAT_VERSION, RunRecord, differences
from ecgfounder.results import open_run
from ecgfounder.run import run as run_module
from tests.builders.fixed_checkpoint import SHA256, write_fixed_checkpoint
from tests.harness.stand_ins import NullEngine
from tests.places import DATA

KEPT = DATA / "run_0_1_0"
FLAGS = {"json": ("--pooling", "mean"), "parquet": ("--format", "parquet", "--predictions")}
FORMATS = ("json", "parquet")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("fixed") / "weights.safetensors"
    write_fixed_checkpoint(path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def again(checkpoint: Path, graph_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cohort and its two runs, computed by this version; not to be changed."""
    folder = Path(shutil.copytree(KEPT, tmp_path_factory.mktemp("again") / "kept"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(graph_cache))
        for stored in FORMATS:
            shutil.rmtree(folder / stored)
            assert embed(folder, stored, checkpoint) == 1
    return folder


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "create_engine", lambda *_, **__: NullEngine())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The cohort and its two runs, to be worked on."""
    return Path(shutil.copytree(KEPT, tmp_path / "kept"))


def embed(kept: Path, stored: str, checkpoint: Path, *more: str) -> int:
    return main(
        [
            *("embed", "--dataset", str(kept / "cohort.csv"), "--data_dir", str(kept / "ecg"), "--mode", "1lead"),
            *("--checkpoint", str(checkpoint), "--sampling_rate", "500", "--unit", "mV", "--leads", "I"),
            *("--keep_columns", "study_id", "--num_workers", "0", "--output_dir", str(kept / stored)),
            *FLAGS[stored],
            *more,
        ]
    )


def run_json(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((folder / "_run" / "run.json").read_bytes())
    return found


def grow(kept: Path) -> None:
    with open(kept / "cohort.csv", "a", encoding="utf-8") as file:
        file.write("ecg_3.csv,103\n")


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("e*.*")}


def test_the_fixed_checkpoint_has_the_bytes_that_it_had(checkpoint: Path) -> None:
    assert hashlib.sha256(checkpoint.read_bytes()).hexdigest() == SHA256


@pytest.mark.parametrize("stored", FORMATS)
def test_a_run_of_0_1_0_is_opened_as_it_is(stored: str) -> None:
    run = open_run(KEPT / stored)
    assert (len(run), run.failures.num_rows, run.is_complete) == (3, 1, True)
    X, meta = run.arrays(pooling="mean")
    assert X.shape == (3, 1024)
    assert meta["study_id"].to_pylist() == [100, 101, 102]
    assert np.isfinite(np.asarray(X)).all()
    assert (run.record.format_version, run.record.run_id) == (1, None)


@pytest.mark.parametrize("stored", FORMATS)
def test_a_run_of_0_1_0_goes_on_and_keeps_what_it_has(kept: Path, checkpoint: Path, stored: str) -> None:
    before = outputs(kept / stored)
    grow(kept)
    assert embed(kept, stored, checkpoint, "--dry_run") == 0
    assert embed(kept, stored, checkpoint) == 1  # one of them is damaged
    after = outputs(kept / stored)
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 1
    run = open_run(kept / stored)
    assert run.records["record"].to_pylist() == ["ecg_0.csv", "ecg_1.csv", "ecg_2.csv", "ecg_3.csv"]
    assert run.record.records is not None
    assert (run.record.records["done"], run.record.records["failed"]) == (4, 1)
    assert run.record.format_version == FORMAT_VERSION
    assert run.record.run_id
    # Of what was computed then and what is computed now the same can be asked for.
    X, _ = run.arrays(pooling="mean")
    assert np.linalg.norm(np.asarray(X), axis=1).min() > 0
    assert not list((kept / stored / "_run").glob("*.parquet"))


@pytest.mark.parametrize("stored", FORMATS)
def test_what_is_computed_again_is_what_0_1_0_computed(again: Path, stored: str) -> None:
    then, now = (np.asarray(open_run(folder / stored).arrays()[0]) for folder in (KEPT, again))
    assert np.linalg.norm(now - then) <= 1e-4 * np.linalg.norm(then)


@pytest.mark.usefixtures("_no_network")
def test_a_resumed_run_keeps_its_identifier(kept: Path, checkpoint: Path) -> None:
    assert embed(kept, "json", checkpoint) == 1
    name = run_json(kept / "json")["run_id"]
    grow(kept)
    assert embed(kept, "json", checkpoint) == 1
    assert run_json(kept / "json")["run_id"] == name
    assert embed(kept, "json", checkpoint, "--overwrite") == 1
    assert run_json(kept / "json")["run_id"] != name


@pytest.mark.parametrize("stored", FORMATS)
def test_one_command_brings_a_folder_into_todays_layout(kept: Path, stored: str) -> None:
    folder = kept / stored
    table = pq.read_table(folder / "_run" / "manifest.parquet")
    before = outputs(folder)
    assert main(["upgrade", str(folder)]) == 0
    assert outputs(folder) == before
    assert pq.read_table(folder / "_run" / "manifest.pq").equals(table)
    assert not list((folder / "_run").glob("*.parquet"))
    assert run_json(folder)["format_version"] == FORMAT_VERSION
    assert open_run(folder).arrays()[0].shape[0] == 3
    name = run_json(folder)["run_id"]
    assert main(["upgrade", str(folder)]) == 0
    assert run_json(folder)["run_id"] == name


def test_upgrading_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upgrade", str(tmp_path)]) == 2
    assert "holds no run" in capsys.readouterr().err


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("stored", FORMATS)
def test_peoples_tools_read_the_embeddings_of_a_folder_and_nothing_else(
    kept: Path, again: Path, tmp_path: Path, stored: str, is_new: bool
) -> None:
    folder = (again if is_new else kept) / stored
    if not is_new:
        main(["upgrade", str(folder)])
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 3
    assert "embedding" in loaded.column_names
    if stored == "parquet":
        assert set(loaded["ecg_path"]) == {"ecg_0.csv", "ecg_1.csv", "ecg_2.csv"}
        everything = f"{folder}/**/*.parquet"
        assert pl.scan_parquet(everything).select("ecg_path").collect().height == 3
        assert duckdb.sql(f"select count(*) from read_parquet('{everything}')").fetchall() == [(3,)]
    else:
        assert {len(each) for each in loaded["embedding"]} == {1024}
        files = f"{folder}/*.json"
        assert pl.read_ndjson(files).height == 3
        assert duckdb.sql(f"select count(*) from read_json('{files}')").fetchall() == [(3,)]


@pytest.mark.usefixtures("_no_network")
def test_folders_as_below_the_cohort_are_a_dataset_too(kept: Path, checkpoint: Path, tmp_path: Path) -> None:
    (kept / "ecg" / "a").mkdir()
    (kept / "ecg" / "ecg_0.csv").rename(kept / "ecg" / "a" / "ecg_0.csv")
    table = (kept / "cohort.csv").read_text().replace("ecg_0.csv", "a/ecg_0.csv")
    (kept / "cohort.csv").write_text(table)
    shutil.rmtree(kept / "json")
    assert embed(kept, "json", checkpoint, "--layout", "tree") == 1
    loaded = datasets.load_dataset(str(kept / "json"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 3


@pytest.mark.usefixtures("_no_network")
def test_a_file_of_the_users_own_that_says_what_is_data_stays(kept: Path, checkpoint: Path) -> None:
    own = kept / "json" / ".huggingface.yaml"
    own.write_text("configs: []\n")
    main(["upgrade", str(kept / "json")])
    embed(kept, "json", checkpoint, "--overwrite")
    assert own.read_text() == "configs: []\n"


def test_a_folder_of_a_newer_version_is_refused_by_name(kept: Path, checkpoint: Path) -> None:
    folder = kept / "json"
    newer = run_json(folder) | {"format_version": FORMAT_VERSION + 1, "program": {"name": "x", "version": "9.1.0"}}
    (folder / "_run" / "run.json").write_bytes(orjson.dumps(newer))
    with pytest.raises(RunError, match=rf"ecgfounder 9\.1\.0, in format_version {FORMAT_VERSION + 1}"):
        open_run(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for command in (["merge", str(folder)], ["upgrade", str(folder)]):
        assert main(command) == 2
    assert embed(kept, "json", checkpoint) == 2
    assert embed(kept, "json", checkpoint, "--dry_run") == 2
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.lock"}
    assert after == {path: content for path, content in before.items() if path.name != "run.lock"}


def test_an_option_that_an_old_run_could_not_name_refuses_it_only_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old = RunRecord.parse((KEPT / "json" / "_run" / "run.json").read_bytes(), "run.json")
    now = {**old.fingerprint, "clean_signal": "no"}
    assert differences(old.fingerprint, now) == ["clean_signal: None, now no"]
    monkeypatch.setitem(record_module.FINGERPRINT_DEFAULTS, "clean_signal", "no")
    monkeypatch.setitem(record_module.FINGERPRINT_DEFAULTS, "preparation.smoothing", None)
    old = RunRecord.parse((KEPT / "json" / "_run" / "run.json").read_bytes(), "run.json")
    now["preparation"] = {**now["preparation"], "smoothing": None}
    assert differences(old.fingerprint, now) == []
    assert differences(old.fingerprint, now | {"clean_signal": "yes"}) == ["clean_signal: no, now yes"]


@pytest.mark.usefixtures("_no_network")
def test_every_field_of_a_record_is_in_run_json(kept: Path, checkpoint: Path) -> None:
    embed(kept, "json", checkpoint)
    assert {each.name for each in fields(RunRecord)} - {"exported"} == set(run_json(kept / "json"))
