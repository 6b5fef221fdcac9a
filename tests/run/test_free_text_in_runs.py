"""Free text of the files, which may identify patients, is in no file that a command writes and in no line that it prints."""

from __future__ import annotations

import csv
import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from ecgfounder import load, read_ecg
from ecgfounder.cli import embed_main, main
from ecgfounder.commands.chat import dummy_main, mimic_main
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import ECGFounderError, ReadError
from ecgfounder.results.run import open_run
from tests.builders.tainted import MARKER, marked_copies, refused, tainted

HINTS = ("--sampling_rate", "500", "--unit", "uV", "--leads", ",".join(STANDARD_LEADS))


def write_tainted_cohort(folder: Path) -> None:
    """The good files, and two copies of each and others that are refused, with their paths in `cohort.csv`."""
    paths: list[str] = []
    for number, original in enumerate(tainted()):
        good = folder / f"good_{number}"
        good.mkdir(parents=True)
        paths.append(original.write(good))
        kept = 0
        for turn, files in enumerate(marked_copies(original, 60, seed=7)):
            copy = replace(original, files=files)
            damaged = folder / f"damaged_{number}_{turn}"
            damaged.mkdir()
            try:
                read_ecg(copy.write(damaged), hints=original.hints)
            except ReadError:
                paths.append(copy.write(damaged))
                kept += 1
            if kept == 2:
                break
    for number, original in enumerate(refused()):
        damaged = folder / f"damaged_field_{number}"
        damaged.mkdir()
        paths.append(original.write(damaged))
    with open(folder / "cohort.csv", "w", newline="") as file:
        rows = [("ecg_paths", "number", "answer"), *((path, number, "text") for number, path in enumerate(paths))]
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tainted")
    write_tainted_cohort(folder)
    return folder


def paths_of(cohort: Path) -> list[str]:
    with open(cohort / "cohort.csv", newline="") as file:
        return [row["ecg_paths"] for row in csv.DictReader(file)]


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    before = logging.getLogger("ecgfounder.chat").level
    caplog.set_level(logging.DEBUG)
    yield
    logging.getLogger("ecgfounder.chat").setLevel(before)


def embed(cohort: Path, out: Path, checkpoint: Path, *flags: str) -> None:
    words = ["--dataset", str(cohort / "cohort.csv"), "--data_dir", str(cohort), "--output_dir", str(out), *HINTS]
    words += ["--checkpoint", str(checkpoint), "--missing_leads", "zero", "--num_workers", "1", "--statements", *flags]
    assert embed_main(words) == 1
    assert open_run(out).manifest.filter(open_run(out).manifest["status"].to_numpy() == "done").num_rows > 15


def content_of(path: Path) -> bytes:
    """What is in a file; from a ledger, without the names of signal files, which are paths."""
    content = path.read_bytes()
    if path.suffix != ".jsonl" or path.parent.name != "ledger":
        return content
    lines = [orjson.loads(line) for line in content.splitlines()]
    return orjson.dumps([{name: value for name, value in line.items() if name != "absent"} for line in lines])


def assert_nothing_told(
    folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], *, at_least: int = 0
) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= at_least
    with_marker = [path for path in files if MARKER.encode() in content_of(path) or MARKER in str(path)]
    tables = [path for path in files if path.suffix in (".parquet", ".pq")]
    with_marker += [path for path in tables if MARKER in repr(pq.read_table(path).to_pylist())]
    assert with_marker == []
    said = capfd.readouterr()
    assert [line for line in (said.out + said.err + caplog.text).splitlines() if MARKER in line] == []


@pytest.mark.slow
def test_a_run_in_json_and_all_that_is_made_of_it(
    cohort: Path,
    checkpoint_12lead: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    embed(cohort, out, checkpoint_12lead, "--predictions", "--layout", "tree")
    assert main(["merge", str(out)]) == 1
    assert main(["export", str(out), "--to", "parquet", "--output_dir", str(tmp_path / "shards")]) == 0
    chat = [
        "--dataset_name",
        str(cohort / "cohort.csv"),
        "--data_dir",
        str(cohort),
        "--layout",
        "tree",
        "--log_level",
        "DEBUG",
    ]
    chat += ["--embeddings_dirs", str(out), "--output_file"]
    assert dummy_main([*chat, str(tmp_path / "dummy.json"), "--target_cols", "answer"]) == 0
    assert mimic_main([*chat, str(tmp_path / "mimic.json"), "--target_cols", "answer"]) == 0
    assert_nothing_told(tmp_path, caplog, capfd, at_least=30)


@pytest.mark.slow
def test_a_run_in_parquet_of_every_lead(
    cohort: Path,
    checkpoint_1lead: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    flags = ("--mode", "1lead", "--lead", "all", "--format", "parquet", "--pooling", "both", "--id_column", "number")
    embed(cohort, tmp_path / "out", checkpoint_1lead, *flags)
    assert_nothing_told(tmp_path, caplog, capfd, at_least=5)


def test_inspect(
    cohort: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = paths_of(cohort)
    assert main(["inspect", str(cohort), *HINTS]) == 1
    assert main(["inspect", *paths, "--json", *HINTS]) == 1
    for path in paths:
        main(["inspect", path, *HINTS])
    assert_nothing_told(tmp_path, caplog, capfd)


def test_the_python_api(
    cohort: Path,
    checkpoint_12lead: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with load("12lead", checkpoint_12lead, threads=2) as model:
        for path in (path for path in paths_of(cohort) if "damaged" in path):
            with pytest.raises(ECGFounderError) as caught:
                model.embed(path)
            assert MARKER not in "".join(traceback.format_exception(caught.value))
        embeddings = model.embed(paths_of(cohort), errors="skip")
    assert embeddings
    assert_nothing_told(tmp_path, caplog, capfd)


@pytest.mark.slow
def test_verify_and_doctor(
    cohort: Path,
    checkpoint_steady: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = ["--dataset", str(cohort / "cohort.csv"), "--data_dir", str(cohort), "--checkpoint", str(checkpoint_steady)]
    assert main(["verify", *words, "--missing_leads", "zero", "--max_ecgs", "12", *HINTS]) == 0
    assert main(["doctor", "--checkpoint", str(checkpoint_steady), "--output_dir", str(tmp_path)]) == 0
    assert_nothing_told(tmp_path, caplog, capfd)
