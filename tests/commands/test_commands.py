"""The main job end to end: what the README and the seed's commands promise, on the demo cohort and on real recordings."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import orjson
import pyarrow.parquet as pq
import pytest

from ecgfounder.cli import embed_main, main
from tests.harness.finished_demo import FinishedDemo
from tests.places import ROOT

pytestmark = pytest.mark.usefixtures("known_files")

SCRIPT = ROOT / "scripts" / "ecg_fm" / "inference.py"


PATIENTS = ("001", "003", "006", "007", "011", "012")
"""Of the demo cohort: two recordings of one patient, 11 s, 1000 Hz, the damaged file; some of them in each of 3 shards."""


@pytest.fixture(scope="session")
def cohort(demo_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some patients of the demo cohort, 6 recordings and the damaged one; not to be changed."""
    folder = tmp_path_factory.mktemp("cohort")
    for patient in PATIENTS:
        shutil.copytree(demo_cohort / "ecg" / f"patient_{patient}", folder / "ecg" / f"patient_{patient}")
    rows = datasets.load_from_disk(str(demo_cohort / "dataset")).to_list()
    kept = [row for row in rows if row["study_id"].removeprefix("demo_") in PATIENTS]
    assert len(kept) == len(PATIENTS)
    datasets.Dataset.from_list(kept).save_to_disk(str(folder / "dataset"))
    return folder


@pytest.fixture
def flags(cohort: Path, checkpoint_12lead: Path, tmp_path: Path) -> list[str]:
    return [
        *("--dataset", str(cohort / "dataset"), "--data_dir", str(cohort / "ecg")),
        *("--output_dir", str(tmp_path / "out"), "--checkpoint", str(checkpoint_12lead)),
    ]


@pytest.fixture
def folder_flags(cohort: Path, checkpoint_12lead: Path, tmp_path: Path) -> list[str]:
    """The same recordings without the dataset, whose package takes longer to import than they take to be embedded."""
    return [
        *("--dataset", str(cohort / "ecg")),
        *("--output_dir", str(tmp_path / "out"), "--checkpoint", str(checkpoint_12lead)),
    ]


@pytest.fixture(scope="session")
def undisturbed(cohort: Path, checkpoint_12lead: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Every output of a plain run, by name."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    flags = ["--dataset", str(cohort / "dataset"), "--data_dir", str(cohort / "ecg"), "--output_dir", str(out)]
    run = command([sys.executable, str(SCRIPT), *flags, "--checkpoint", str(checkpoint_12lead)])
    assert run.returncode == 1, run.stderr
    return outputs(out)


def command(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=240, check=False, **options)


def outputs(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.json"))
        if "_run" not in path.parts
    }


def embed(flags: Sequence[str], *more: str) -> int:
    """The command in this process, reading in it too."""
    return embed_main([*flags, "--num_workers", "0", *more])


def run_json(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((folder / "_run" / "run.json").read_bytes())
    return found


def test_seed_command_writes_one_json_per_recording_and_reports_the_failure(undisturbed: dict[str, bytes]) -> None:
    assert len(undisturbed) == 6
    for name, text in undisturbed.items():
        found = orjson.loads(text)
        assert list(found) == ["embedding", "shape", "description", "modality"]
        assert found["description"] == f"ECG embedding extracted from {name.removesuffix('.json')}.xml using ECGFounder"
        assert found["modality"] == "ecg"
        embedding = np.array(found["embedding"], dtype=np.float32)
        assert list(embedding.shape) == found["shape"]
        assert embedding.shape in {(20, 1024), (22, 1024)}


@pytest.mark.parametrize("mode", ["12lead", "1lead"])
def test_real_recordings_give_the_golden_maps(
    mode: str, shared: Path, checkpoint_12lead: Path, checkpoint_1lead: Path, tmp_path: Path
) -> None:
    checkpoint = {"12lead": checkpoint_12lead, "1lead": checkpoint_1lead}[mode]
    flags = ["--dataset", str(shared / "ecg" / "sierra"), "--output_dir", str(tmp_path / "out")]
    assert embed([*flags, "--mode", mode, "--checkpoint", str(checkpoint)]) == 1
    golden = np.load(shared / "golden" / "sierra.npz")
    found = outputs(tmp_path / "out")
    assert len(found) == 2
    for name, text in found.items():
        embedding = np.array(orjson.loads(text)["embedding"], dtype=np.float32)
        expected = golden[f"{name.removesuffix('.json')}.map_{mode}"]
        assert np.linalg.norm(embedding - expected) <= 1e-4 * np.linalg.norm(expected)


def test_recipe_filtered_gives_the_golden_maps(shared: Path, checkpoint_12lead: Path, tmp_path: Path) -> None:
    flags = ["--dataset", str(shared / "ecg" / "sierra"), "--output_dir", str(tmp_path / "out")]
    assert embed([*flags, "--recipe", "filtered", "--checkpoint", str(checkpoint_12lead)]) == 1
    golden = np.load(shared / "golden" / "sierra.npz")
    for name, text in outputs(tmp_path / "out").items():
        embedding = np.array(orjson.loads(text)["embedding"], dtype=np.float32)
        expected = golden[f"{name.removesuffix('.json')}.map_12lead_filtered"]
        assert np.linalg.norm(embedding - expected) <= 1e-4 * np.linalg.norm(expected)


def test_two_processes_under_accelerate_do_each_record_once_with_the_same_bytes(
    folder_flags: list[str], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    launcher = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "2", "--multi_gpu"]
    run = command([*launcher, str(SCRIPT), *folder_flags])
    assert run.returncode == 0, run.stderr
    assert outputs(tmp_path / "out") == undisturbed
    lines = [
        orjson.loads(line)
        for part in sorted((tmp_path / "out" / "_run" / "ledger").glob("*.jsonl"))
        for line in part.read_bytes().splitlines()
    ]
    assert sum("part" in line for line in lines) == 2
    keys = [line["key"] for line in lines if "key" in line]
    assert len(keys) == len(set(keys)) == 7
    assert run_json(tmp_path / "out")["outcome"] == "complete"
    assert "6 of 7 recordings embedded, 1 failed" in run.stderr


@pytest.mark.parametrize("more", [["--batch_size", "1"], ["--batch_size", "2"], ["--num_workers", "1"]])
def test_bytes_do_not_depend_on_batch_size_or_workers(
    more: list[str], flags: list[str], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    assert embed(flags, *more) == 1
    assert outputs(tmp_path / "out") == undisturbed


def test_same_command_again_reads_nothing_and_changes_nothing(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(flags) == 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json") if "_run" not in path.parts}
    capsys.readouterr()
    assert embed(flags) == 1
    assert "to do: 0, done before: 6, failed before: 1" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_lost_outputs_changed_inputs_and_retried_failures_are_done_again(
    cohort: Path, checkpoint_12lead: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    mine = tmp_path / "cohort"
    shutil.copytree(cohort, mine)
    out = tmp_path / "out"
    flags = ["--dataset", str(mine / "ecg"), "--output_dir", str(out), "--checkpoint", str(checkpoint_12lead)]
    assert embed(flags) == 1
    (out / "ecg_0001.json").unlink()
    shutil.copyfile(mine / "ecg/patient_001/ecg_0001.xml", mine / "ecg/patient_003/ecg_0003.xml")  # another content
    os.utime(mine / "ecg/patient_007/ecg_0008.xml")  # only the time
    shutil.copyfile(mine / "ecg/patient_001/ecg_0001.xml", mine / "ecg/patient_012/ecg_0013.xml")  # mended
    assert embed(flags) == 1
    found = outputs(out)
    assert found["ecg_0001.json"] == undisturbed["ecg_0001.json"]
    same = orjson.loads(found["ecg_0003.json"])["embedding"] == orjson.loads(found["ecg_0001.json"])["embedding"]
    assert same
    assert "ecg_0013.json" not in found
    assert embed(flags, "--retry_failed") == 0
    assert "ecg_0013.json" in outputs(out)


def test_record_that_fails_after_it_was_done_loses_its_old_output(
    cohort: Path, checkpoint_12lead: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "cohort"
    shutil.copytree(cohort, mine)
    out = tmp_path / "out"
    flags = ["--dataset", str(mine / "ecg"), "--output_dir", str(out), "--checkpoint", str(checkpoint_12lead)]
    assert embed(flags) == 1
    (mine / "ecg/patient_001/ecg_0001.xml").write_bytes(b"<html/>")
    assert embed(flags) == 1
    assert "ecg_0001.json" not in outputs(out)
    failures = (out / "_run" / "failures.csv").read_text()
    assert "ecg_0001.xml" in failures


def test_other_settings_are_refused_and_named_and_overwrite_starts_anew(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(flags) == 1
    keep = tmp_path / "out" / "mine.txt"
    keep.write_text("not the run's")
    for more in (["--recipe", "filtered"], ["--window", "5"], ["--pooling", "mean"], ["--missing_leads", "zero"]):
        capsys.readouterr()
        assert embed(flags, *more) == 2
        assert "other settings" in capsys.readouterr().err
    assert embed(flags, "--window", "5", "--overwrite") == 1
    assert keep.read_text() == "not the run's"
    assert all(orjson.loads(text)["shape"] == [10, 1024] for text in outputs(tmp_path / "out").values())


def test_colliding_names_stop_the_run_before_any_work(
    cohort: Path, checkpoint_12lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next((cohort / "ecg").rglob("*.xml"))
    for name in ("a/x.xml", "b/X.xml", "b/y.xml"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, tmp_path / "in" / name)
    out = tmp_path / "out"
    flags = ["--dataset", str(tmp_path / "in"), "--output_dir", str(out), "--checkpoint", str(checkpoint_12lead)]
    assert embed(flags) == 2
    said = capsys.readouterr().err
    assert "a/x.xml" in said
    assert "b/X.xml" in said
    assert "--layout tree" in said
    assert "y.xml" not in said
    assert outputs(out) == {}
    assert embed(flags, "--layout", "tree") == 0
    assert set(outputs(out)) == {"a/x.json", "b/X.json", "b/y.json"}


def test_identifiers_name_outputs_and_no_path_is_in_what_can_be_shared(
    cohort: Path, checkpoint_12lead: Path, tmp_path: Path
) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text("study,age,ecg_paths\n007,70,patient_001/ecg_0001.xml\n008,50,patient_003/ecg_0003.xml\n")
    out = tmp_path / "out"
    flags = ["--dataset", str(table), "--data_dir", str(cohort / "ecg"), "--output_dir", str(out)]
    more = ["--checkpoint", str(checkpoint_12lead), "--id_column", "study", "--keep_columns", "age"]
    assert embed([*flags, *more]) == 0
    found = outputs(out)
    assert set(found) == {"007.json", "008.json"}
    assert orjson.loads(found["007.json"])["description"] == "ECG embedding extracted from 007 using ECGFounder"
    manifest = pq.read_table(out / "_run" / "manifest.pq")
    assert manifest.column("record").to_pylist() == ["007", "008"]
    assert manifest.column("age").to_pylist() == [70, 50]
    assert "patient_00" not in str(manifest.to_pylist())


def test_missing_column_is_named_with_those_that_are_there(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(flags, "--path_column", "filename_hr") == 2
    said = capsys.readouterr().err
    assert "Expected 'filename_hr' column in the dataset" in said
    assert "ecg_paths" in said


def test_checkpoint_of_the_other_network_is_refused_before_any_output(
    flags: list[str], checkpoint_1lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(flags, "--checkpoint", str(checkpoint_1lead)) == 2
    assert "1lead" in capsys.readouterr().err
    assert outputs(tmp_path / "out") == {}


def test_folder_of_others_is_not_written_into(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    assert embed(flags) == 2
    assert "not empty" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["thesis.tex"]


def test_dry_run_says_what_would_be_done_and_writes_nothing(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(flags, "--dry_run") == 0
    assert "to do       7" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert embed(flags) == 1
    capsys.readouterr()
    assert embed(flags, "--dry_run", "--recipe", "filtered") == 2
    assert "preparation.recipe.name: zscore, now filtered" in capsys.readouterr().out


def test_shards_done_by_separate_commands_come_to_the_same_as_one_run(
    flags: list[str], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    for shard in ("1/3", "2/3", "3/3"):
        assert embed(flags, "--shard", shard) in (0, 1)
    assert outputs(tmp_path / "out") == undisturbed
    assert run_json(tmp_path / "out")["outcome"] != "complete"
    assert main(["merge", str(tmp_path / "out")]) == 1
    assert run_json(tmp_path / "out")["outcome"] == "complete"
    assert pq.read_table(tmp_path / "out" / "_run" / "manifest.pq").num_rows == 7


def test_parquet_holds_the_same_numbers_as_json(
    flags: list[str], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    assert embed(flags, "--format", "parquet", "--shard_size", "2") == 1
    shards = sorted((tmp_path / "out").glob("*.parquet"))
    assert len(shards) == 3
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert len(rows) == 6
    for row in rows:
        expected = orjson.loads(undisturbed[Path(row["ecg_path"]).stem + ".json"])["embedding"]
        assert np.array_equal(np.array(row["embedding"], np.float32), np.array(expected, np.float32))


def test_several_views_of_one_pass_agree(flags: list[str], tmp_path: Path, checkpoint_12lead: Path) -> None:
    from ecgfounder.engines import create_engine
    from ecgfounder.model import BUNDLES

    assert (
        embed(flags, "--format", "parquet", "--pooling", "both", "--predictions", "--window", "4", "--stride", "3") == 1
    )
    rows = [row for shard in sorted((tmp_path / "out").glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]
    predictions = {
        (row["record"], row["window_start"]): row
        for row in pq.read_table(tmp_path / "out" / "_run" / "predictions.pq").to_pylist()
    }
    assert len(rows) == len(predictions) == 6 * 3  # 10 s and 11 s hold three windows of 4 s
    head = create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead).head
    assert head is not None
    labels = BUNDLES["12lead"].labels()
    for row in rows:
        embedding = np.array(row["embedding"], np.float32)
        assert row["shape"] == [8, 1024] == list(embedding.shape)
        assert np.allclose(row["embedding_mean"], embedding.mean(axis=0), rtol=1e-5, atol=1e-5)
        found = predictions[row["ecg_path"], row["window_start"]]
        assert np.allclose([found[label] for label in labels], head.probabilities(embedding[None])[0], atol=1e-6)
    assert len((tmp_path / "out" / "_run" / "predictions.csv").read_text().splitlines()) == 19


def test_predictions_without_the_published_head_are_refused(
    flags: list[str], checkpoint_12lead: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    state = torch.load(checkpoint_12lead, weights_only=True)["state_dict"]
    torch.save({"state_dict": {k: v for k, v in state.items() if not k.startswith("dense.")}}, tmp_path / "no_head.pth")
    assert embed([*flags, "--checkpoint", str(tmp_path / "no_head.pth")], "--predictions") == 2
    assert "has no head" in capsys.readouterr().err


def test_every_lead_through_the_one_lead_network(cohort: Path, checkpoint_1lead: Path, tmp_path: Path) -> None:
    flags = ["--dataset", str(cohort / "ecg" / "patient_001"), "--output_dir", str(tmp_path / "all")]
    one = ["--mode", "1lead", "--checkpoint", str(checkpoint_1lead)]
    assert embed([*flags, *one, "--lead", "all"]) == 0
    assert embed([*flags[:3], str(tmp_path / "V2"), *one, "--lead", "V2"]) == 0
    every = np.array(orjson.loads(outputs(tmp_path / "all")["ecg_0001.json"])["embedding"], np.float32)
    single = np.array(orjson.loads(outputs(tmp_path / "V2")["ecg_0001.json"])["embedding"], np.float32)
    assert every.shape == (12, 20, 1024)
    assert np.array_equal(every[7], single)  # I II III aVR aVL aVF V1 V2


def test_statements_come_out_only_when_asked_for(shared: Path, checkpoint_12lead: Path, tmp_path: Path) -> None:
    flags = ["--dataset", str(shared / "ecg" / "cardiosoft"), "--checkpoint", str(checkpoint_12lead)]
    assert embed([*flags, "--output_dir", str(tmp_path / "without")]) == 0
    assert not (tmp_path / "without" / "_run" / "statements.pq").exists()
    assert embed([*flags, "--output_dir", str(tmp_path / "with"), "--statements"]) == 0
    rows = pq.read_table(tmp_path / "with" / "_run" / "statements.pq").to_pylist()
    assert len(rows) == 1
    assert rows[0]["statements"]
    assert 20 < rows[0]["heart_rate"] < 250


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_run_commits_what_is_in_flight_and_goes_on(
    number: signal.Signals, cohort: Path, checkpoint_12lead: Path, tmp_path: Path
) -> None:
    source = (cohort / "ecg/patient_001/ecg_0001.xml").read_bytes()
    (tmp_path / "in").mkdir()
    for index in range(400):
        (tmp_path / "in" / f"{index:03d}.xml").write_bytes(source)
    out = tmp_path / "out"
    words = [sys.executable, str(SCRIPT), "--dataset", str(tmp_path / "in"), "--output_dir", str(out)]
    words += ["--checkpoint", str(checkpoint_12lead), "--num_workers", "1", "--batch_size", "2"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.json"))) < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    asked = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - asked < 15
    assert process.returncode == 128 + number
    assert "The same command resumes" in said
    done = len(list(out.glob("*.json")))
    assert 8 <= done < 400
    ledger = b"".join(part.read_bytes() for part in (out / "_run" / "ledger").glob("*.jsonl"))
    assert ledger.count(b'"status":"done"') == done
    assert run_json(out)["outcome"] == "interrupted"


def test_a_second_run_on_the_same_folder_is_refused_with_the_first_one_s_process(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ecgfounder.ledger.locks import RunLock

    (tmp_path / "out" / "_run").mkdir(parents=True)
    with RunLock(tmp_path / "out" / "_run" / "locks"):
        assert embed(flags) == 2
    assert f"process {os.getpid()}" in capsys.readouterr().err
    assert embed(flags) == 1


def test_demo_command_makes_a_cohort_and_embeds_it(finished_demo: FinishedDemo) -> None:
    said = finished_demo.said
    assert finished_demo.status == 0
    assert "12 of 13 recordings embedded, 1 failed" in said
    assert "1 of 12 recordings include a 1 mV calibration pulse" in said
    assert "random weights" in said
    assert len(outputs(finished_demo.folder / "embeddings")) == 12


def test_a_run_goes_on_where_nobody_reads_its_lines_any_more(
    folder_flags: list[str], tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    words = [sys.executable, "-m", "ecgfounder.cli", "embed", *folder_flags, "--num_workers", "1"]
    with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(120) == 1  # one recording fails, as ever
    assert outputs(tmp_path / "out") == undisturbed


def test_script_without_the_package_prints_the_install_command(tmp_path: Path) -> None:
    run = command([sys.executable, "-S", "-I", str(SCRIPT), "--help"], cwd=tmp_path)
    assert run.returncode != 0
    assert "pip install -e" in run.stderr


def test_lower_precision_is_measured_on_the_run_s_own_recordings(
    cohort: Path,
    checkpoint_12lead: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    undisturbed: dict[str, bytes],
) -> None:
    flags = ["--dataset", str(cohort / "ecg" / "patient_003"), "--checkpoint", str(checkpoint_12lead)]
    flags += ["--output_dir", str(tmp_path / "out")]
    assert embed(flags, "--engine", "torch", "--precision", "bfloat16") == 0
    told = run_json(tmp_path / "out")["engine"]["relative_error_to_float32"]
    assert "Measured error of bfloat16 against float32" in capsys.readouterr().err
    name = "ecg_0003.json"
    lower, exact = (
        np.array(orjson.loads(each[name])["embedding"]) for each in (outputs(tmp_path / "out"), undisturbed)
    )
    seen = np.linalg.norm(lower - exact) / np.linalg.norm(exact)
    assert 1e-4 < seen < 0.3
    assert seen / 5 < told < seen * 5


@pytest.mark.parametrize(
    ("word", "given", "expected"), [("embed", None, "1"), ("embed", "3", "3"), ("verify", None, "")]
)
def test_a_run_computes_on_the_cpu_in_its_own_threads_alone(
    tmp_path: Path, word: str, given: str | None, expected: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    program = (
        "import os, sys; from ecgfounder.cli import main; "
        "code = main(sys.argv[1:]); print(os.environ.get('OMP_NUM_THREADS', '')); sys.exit(code)"
    )
    flags = ["--checkpoint", str(tmp_path / "none.pth")]
    if word == "embed":
        flags += ["--dataset", str(tmp_path / "none.csv"), "--output_dir", str(tmp_path / "out")]
    done = command(
        [sys.executable, "-c", program, word, *flags],
        env=environment | ({} if given is None else {"OMP_NUM_THREADS": given}),
    )
    assert (done.returncode, done.stdout.strip()) == (2, expected), done.stderr
