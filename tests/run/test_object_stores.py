"""Runs over cohorts in a bucket: the same results as over the folder, and a store's trouble ends a run and fails no record."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.errors import CohortError, ECGFounderError, SettingsError, StorageError
from ecgfounder.network.checkpoint import find_checkpoint
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.run import run as extract
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.run.summary import Summary
from ecgfounder.storage import locate, storage_options
from tests.builders.originals import ALL_SAID, built
from tests.harness.cohorts import Lines, entries, npy_of, write_formats
from tests.harness.object_server import SECRET, Gateway, ObjectServer, Request
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine

pytestmark = pytest.mark.services

Start = Callable[..., Summary]


@pytest.fixture
def console() -> Lines:
    return Lines()


@pytest.fixture
def start(tmp_path: Path, console: Lines) -> Start:
    """A run with an engine that costs nothing; data_dir is the dataset unless it is given."""
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")

    def run(dataset: str, out: Path | None = None, **more: Any) -> Summary:
        given: dict[str, Any] = {"data_dir": dataset, "num_workers": 0, "batch_size": 2, "layout": "tree"} | more
        settings = Settings(
            dataset=dataset,
            output_dir=out or tmp_path / "out",
            checkpoint=str(checkpoint),
            hints=ALL_SAID,
            preparation=Preparation(missing_leads="zero"),
            **given,
        )
        with mock.patch.object(extract, "create_engine", return_value=NullEngine()):
            return Run(settings, console).execute()

    return run


def upload(folder: Path, url: str) -> str:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            locate(f"{url}/{path.relative_to(folder).as_posix()}").put(path.read_bytes())
    return url


def fill(url: str, count: int) -> list[str]:
    names = [f"{number:02d}.npy" for number in range(count)]
    for number, name in enumerate(names):
        locate(f"{url}/{name}").put(npy_of(number))
    return names


def manifest(out: Path) -> dict[str, dict[str, Any]]:
    """The manifest's rows by the paths of their outputs, or of failed records by their names."""
    rows = pq.read_table(out / "_run" / "manifest.pq").to_pylist()
    return {row["record"].rpartition("/")[2]: row for row in rows}


# --- the same as from a folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_cohort_of_all_formats_gives_the_outputs_of_the_folder(
    num_workers: int, bucket: str, start: Start, tmp_path: Path
) -> None:
    count = write_formats(tmp_path / "cohort")
    (tmp_path / "cohort" / "bad.xml").write_bytes(b"<not/>")
    url = upload(tmp_path / "cohort", f"s3://{bucket}/study")
    here = start(str(tmp_path / "cohort"), tmp_path / "here")
    there = start(url, tmp_path / "there", num_workers=num_workers)
    assert here.tally is not None
    assert there.tally is not None
    assert (there.tally.done, there.tally.failed) == (here.tally.done, here.tally.failed)
    assert here.tally.failed < count // 2
    known, found = json_outputs(tmp_path / "here"), json_outputs(tmp_path / "there")
    assert found == known
    rows = [{entry["key"]: entry for entry in entries(tmp_path / out)} for out in ("here", "there")]
    assert rows[0].keys() == rows[1].keys()
    for key, entry in rows[0].items():
        for name in ("record", "status", "output", "reason", "facts", "shape"):
            assert entry.get(name) == rows[1][key].get(name)
        assert entry.get("input", {}).get("sha256") == rows[1][key].get("input", {}).get("sha256")


def test_a_cohort_that_is_moved_to_another_bucket_or_to_a_folder_is_done(
    object_server: ObjectServer, bucket: str, start: Start, tmp_path: Path
) -> None:
    fill(f"s3://{bucket}/study", 4)
    assert start(f"s3://{bucket}/study").processed == 4
    moved = object_server.new_bucket()
    fill(f"s3://{moved}/other/place", 4)
    again = start(f"s3://{moved}/other/place")
    assert (again.processed, again.plan.done) == (0, 4)
    (tmp_path / "folder").mkdir()
    for number in range(4):
        (tmp_path / "folder" / f"{number:02d}.npy").write_bytes(npy_of(number))
    again = start(str(tmp_path / "folder"))
    assert (again.processed, again.plan.done) == (0, 4)
    again = start(f"s3://{bucket}/study")
    assert (again.processed, again.plan.done) == (0, 4)


def test_an_object_that_was_replaced_is_done_again(bucket: str, start: Start) -> None:
    url = f"s3://{bucket}/study"
    fill(url, 4)
    start(url)
    locate(f"{url}/01.npy").put(npy_of(99))  # of the same size
    locate(f"{url}/02.npy").put(npy_of(2))  # the same content
    again = start(url)
    assert (again.processed, again.plan.changed, again.plan.done) == (1, 1, 3)
    assert start(url).processed == 0


def test_a_signal_file_that_was_replaced_is_done_again(bucket: str, start: Start, tmp_path: Path) -> None:
    original = next(each for each in built() if each.format == "wfdb")
    url = f"s3://{bucket}/study"
    for name, data in original.files.items():
        locate(f"{url}/{name}").put(data)
    first = start(url)
    assert (first.processed, start(url).processed) == (1, 0)
    data = bytearray(original.files["r.dat"])
    data[10] ^= 1
    locate(f"{url}/r.dat").put(bytes(data))
    assert start(url).plan.changed == 1


def write_table(path: Path, paths: list[str]) -> str:
    pq.write_table(pa.table({"ecg_paths": paths}), path)
    return str(path)


@pytest.mark.parametrize("may_list", [True, False])
def test_objects_elsewhere_and_members_of_containers_are_known_by_their_tags(
    may_list: bool, bucket: str, gateway: Gateway, start: Start, tmp_path: Path
) -> None:
    exams = next(original for original in built() if original.name == "many").files["x"]
    url = f"s3://{bucket}/study"
    names = fill(url, 3)
    locate(f"{url}/exams.h5").put(exams)
    paths = [*(f"{url}/{name}" for name in names), f"{url}/exams.h5::tracings/700", f"{url}/exams.h5::tracings/703"]
    table = write_table(tmp_path / "t.parquet", paths)
    gateway.rule = lambda request: None if may_list or request.key or request.method != "GET" else 403
    given = {"data_dir": url if may_list else str(tmp_path), "layout": "flat"}
    assert start(table, **given).processed == 5
    assert start(table, **given).processed == 0
    locate(f"{url}/01.npy").put(npy_of(99))
    assert start(table, **given).plan.changed == 1
    locate(f"{url}/exams.h5").put(exams[:-1] + b"x")
    assert start(table, **given).plan.changed == 2
    locate(f"{url}/02.npy").store.delete(["study/02.npy"])
    assert start(table, **given).processed == 0  # what is gone stays done


def test_what_did_not_exist_is_tried_when_it_does(bucket: str, start: Start, tmp_path: Path) -> None:
    url = f"s3://{bucket}/study"
    fill(url, 2)
    table = write_table(tmp_path / "t.parquet", ["00.npy", "01.npy", "late.npy"])
    first = start(table, data_dir=url)
    assert first.tally is not None
    assert (first.tally.done, first.tally.failed, first.tally.absent) == (2, 1, 1)
    locate(f"{url}/late.npy").put(npy_of(7))
    again = start(table, data_dir=url)
    assert (again.plan.found, again.processed, again.failed_now) == (1, 1, 0)


def test_resuming_lists_the_folder_once_and_asks_for_no_object(bucket: str, gateway: Gateway, start: Start) -> None:
    url = f"s3://{bucket}/study"
    fill(url, 30)
    start(url)
    del gateway.requests[:]
    assert start(url).processed == 0
    assert sum(bool(request.key) for request in gateway.requests) <= 2  # whether it is a saved dataset
    assert gateway.count("GET") <= 4  # listings: whether it exists, of the cohort, of what is done


def test_a_new_cohort_takes_one_request_per_file(bucket: str, gateway: Gateway, start: Start) -> None:
    url = f"s3://{bucket}/study"
    names = fill(url, 20)
    del gateway.requests[:]
    assert start(url).processed == 20
    asked = [request for request in gateway.requests if request.key.removeprefix("study/") in names]
    assert len(asked) == 21, gateway.requests  # and one that looks whether files exist
    assert len(gateway.requests) <= 21 + 4


def test_a_prefix_is_a_folder_and_odd_names_are_names(bucket: str, start: Start, tmp_path: Path) -> None:
    names = ["a b.npy", "50%.npy", "a%20b.npy", "x#1.npy", "what?.npy", "a+b.npy", "späße.npy", "deep/er/ü.npy"]
    for number, name in enumerate(names):
        locate(f"s3://{bucket}/run").store.put(f"run/{name}", npy_of(number))
    locate(f"s3://{bucket}/run2/other.npy").put(npy_of(0))
    locate(f"s3://{bucket}/run.npy").put(npy_of(0))
    summary = start(f"s3://{bucket}/run")
    assert summary.tally is not None
    assert summary.tally.as_dict()["done"] == len(names)
    assert {entry["record"] for entry in entries(tmp_path / "out")} == set(names)


# --- datasets and checkpoints ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "saved"])
def test_tables_and_saved_datasets_are_copied_once(
    suffix: str, bucket: str, gateway: Gateway, start: Start, tmp_path: Path
) -> None:
    names = fill(f"s3://{bucket}/study", 3)
    rows = {"ecg_paths": [*names[:2], f"s3://{bucket}/study/02.npy"], "age": [1, 2, 3]}
    table = pa.table(rows)
    url = f"s3://{bucket}/tables/cohort.{suffix}"
    if suffix == "saved":
        datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "saved")
        upload(tmp_path / "saved", url)
    elif suffix == "parquet":
        pq.write_table(table, tmp_path / "t.parquet")
        locate(url).put((tmp_path / "t.parquet").read_bytes())
    elif suffix == "csv":
        locate(url).put("\n".join(["ecg_paths,age", *map("{},1".format, rows["ecg_paths"])]).encode())
    else:
        locate(url).put("\n".join(json.dumps(row) for row in table.to_pylist()).encode())
    for attempt in range(2):
        del gateway.requests[:]
        summary = start(url, data_dir=f"s3://{bucket}/study/")
        assert summary.tally is not None
        assert summary.tally.as_dict()["done"] == 3
        copied = [r for r in gateway.requests if r.method == "GET" and r.key.startswith("tables/")]
        assert bool(copied) == (attempt == 0)
    assert set(manifest(tmp_path / "out")) == set(names)


def test_a_checkpoint_is_copied_once_and_again_when_it_changes(
    bucket: str, gateway: Gateway, checkpoint_12lead: Path
) -> None:
    url = f"s3://{bucket}/weights/12_lead_ECGFounder.pth"
    locate(url).put(b"weights" * 3_000_000)
    assert find_checkpoint(url, "12lead").read_bytes() == b"weights" * 3_000_000
    del gateway.requests[:]
    assert find_checkpoint(f"s3://{bucket}/weights", "12lead").name == "12_lead_ECGFounder.pth"
    assert gateway.count("GET") == 0
    locate(url).put(b"others")
    assert find_checkpoint(url, "12lead").read_bytes() == b"others"
    with pytest.raises(ECGFounderError, match=f"s3://{bucket}/nothing: there is no such file"):
        find_checkpoint(f"s3://{bucket}/nothing", "12lead")


def test_what_is_not_there_is_refused_by_name(bucket: str, start: Start) -> None:
    fill(f"s3://{bucket}/study", 1)
    with pytest.raises(SettingsError, match=r"must be an existing folder.*nothing below it"):
        start(f"s3://{bucket}/stud")
    with pytest.raises(CohortError, match="holds no ECG files"):
        start(f"s3://{bucket}/stud", data_dir=f"s3://{bucket}/study")
    with pytest.raises(CohortError, match=r"s3://.*/gone.csv: no such object"):
        start(f"s3://{bucket}/gone.csv", data_dir=f"s3://{bucket}/study")


# --- trouble ---------------------------------------------------------------------------------------------------------


def rule_for(name: str, what: int) -> Callable[[Request], int | None]:
    return lambda request: what if request.key.endswith(name) and request.method == "GET" else None


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", ["00.npy", "03.npy", "07.npy"])
def test_one_object_that_is_denied_is_one_failed_record(
    name: str, num_workers: int, bucket: str, gateway: Gateway, start: Start, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/study"
    fill(url, 8)
    gateway.rule = rule_for(name, 403)
    summary = start(url, num_workers=num_workers)
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed, summary.trouble) == (7, 1, None)
    assert "access denied" in manifest(tmp_path / "out")[name]["reason"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_access_that_is_denied_from_some_time_on_ends_the_run_and_fails_no_record(
    num_workers: int, bucket: str, gateway: Gateway, start: Start, tmp_path: Path
) -> None:
    url = f"s3://{bucket}/study"
    fill(url, 12)
    seen: list[str] = []

    def expire(request: Request) -> int | None:
        if request.key.endswith(".npy") and request.method == "GET":
            seen.append(request.key)
        return 403 if len(seen) > 4 else None

    gateway.rule = expire
    summary = start(url, num_workers=num_workers)
    assert summary.trouble is not None
    assert "access denied" in summary.trouble
    assert summary.outcome == "interrupted"
    assert {entry["status"] for entry in entries(tmp_path / "out")} <= {"done"}
    # Objects are fetched at the same time: one behind the first that is denied may have been given, and is left, too.
    n_done = len(json_outputs(tmp_path / "out"))
    assert n_done <= 4
    gateway.rule = lambda _request: None
    again = start(url, num_workers=num_workers)
    assert again.tally is not None
    assert (again.plan.done, again.processed) == (n_done, 12 - n_done)
    assert (again.tally.done, again.tally.failed) == (12, 0)


def test_where_everything_is_denied_the_run_is_refused_or_stops(
    bucket: str, gateway: Gateway, start: Start, tmp_path: Path
) -> None:
    names = fill(f"s3://{bucket}/study", 3)
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["ecg_paths", *(f"s3://{bucket}/study/{name}" for name in names)]))
    gateway.rule = lambda _request: 403
    with pytest.raises(StorageError, match=r"00.npy: access denied"):
        start(str(table), data_dir=str(tmp_path))
    gateway.rule = lambda request: 403 if request.method == "GET" else None
    summary = start(str(table), data_dir=str(tmp_path), layout="flat")
    assert summary.trouble is not None
    assert entries(tmp_path / "out") == []


@pytest.mark.parametrize("dataset", ["x/RECORDS", "x/*.npy", "**/0?.npy", "list.txt", "t.json", "t.csv.gz", "x/01.npy"])
def test_lists_patterns_and_tables_of_a_bucket(bucket: str, start: Start, dataset: str) -> None:
    url = f"s3://{bucket}/study"
    fill(f"{url}/x", 3)
    names = [f"x/{number:02d}.npy" for number in range(3)]
    for name, content in {
        "x/RECORDS": b"00.npy\n01.npy\n02.npy\n",
        "list.txt": "\n".join(names).encode(),
        "t.json": json.dumps(names).encode(),
        "t.csv.gz": gzip.compress("\n".join(["ecg_paths;n", *(f"{name};1" for name in names)]).encode()),
    }.items():
        locate(f"{url}/{name}").put(content)
    count = 1 if dataset == "x/01.npy" else 3
    for processed in (count, 0):
        summary = start(f"{url}/{dataset}", data_dir=url)
        assert summary.processed == processed
        assert summary.tally is not None
        assert (summary.tally.done, summary.tally.failed) == (count, 0)


def test_a_short_outage_is_waited_for(bucket: str, gateway: Gateway, start: Start) -> None:
    url = f"s3://{bucket}/study"
    fill(url, 6)
    failures = iter([503, 500, 503] * 2)
    gateway.rule = lambda request: next(failures, None) if request.key.endswith("03.npy") else None
    summary = start(url)
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (6, 0)


def test_a_store_that_does_not_answer_any_more_ends_the_run(
    bucket: str, gateway: Gateway, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgfounder.storage import connect

    monkeypatch.setattr(connect, "PATIENCE", (connect.PATIENCE[0], 2, 2.0))
    url = f"s3://{bucket}/study"
    fill(url, 6)
    gateway.rule = rule_for("03.npy", 503)
    summary = start(url)
    assert summary.trouble is not None
    assert "03.npy: the store answers with an error (status 503)" in summary.trouble
    assert {entry["status"] for entry in entries(tmp_path / "out")} <= {"done"}
    gateway.rule = lambda _request: None
    again = start(url)
    assert again.tally is not None
    assert (again.tally.done, again.tally.failed) == (6, 0)


def test_time_in_which_an_object_arrives_is_not_that_of_reading_it(bucket: str, gateway: Gateway, start: Start) -> None:
    url = f"s3://{bucket}/study"
    fill(url, 3)
    gateway.rule = lambda request: 4.0 if request.key.endswith("01.npy") and request.method == "GET" else None
    summary = start(url, num_workers=1, read_timeout=1.5)
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (3, 0)


# --- the command line ------------------------------------------------------------------------------------------------


def command(*words: str, environment: dict[str, str] | None = None, cwd: Path) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "ecgfounder.cli", *words],
        cwd=cwd,
        env=variables | {"HF_HUB_OFFLINE": "1"} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_commands_take_urls(object_server: ObjectServer, bucket: str, tmp_path: Path, checkpoint_12lead: Path) -> None:
    hints = ["--sampling_rate", "500", "--unit", "uV", "--leads", ",".join(ALL_SAID.leads or ())]
    fill(f"s3://{bucket}/study", 4)
    locate(f"s3://{bucket}/weights/w.pth").put(checkpoint_12lead.read_bytes())
    weights = ["--checkpoint", f"s3://{bucket}/weights/w.pth"]
    embed = ["embed", "--dataset", f"s3://{bucket}/study", *weights, "--output_dir", "out", *hints]

    def run(*words: str) -> str:
        done = command(*words, environment=object_server.environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "4 of 4 found" in run(*embed, "--dry_run")
    for part in ("1/2", "2/2"):
        run(*embed, "--shard", part)
    assert "4 recordings embedded, 0 failed" in run("merge", "out")
    assert "done before: 4" in run(*embed)
    assert "4 files: 4 read" in run("inspect", f"s3://{bucket}/study", *hints)
    assert "npy" in run("inspect", f"s3://{bucket}/study/01.npy", *hints)
    assert "w.pth" in run("doctor", *weights)


def test_an_endpoint_that_does_not_exist_is_refused_within_seconds(tmp_path: Path) -> None:
    environment = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    began = time.monotonic()
    done = command("embed", "--dataset", "s3://bucket/x", "--output_dir", "out", environment=environment, cwd=tmp_path)
    assert time.monotonic() - began < 15
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "ecgfounder: s3://bucket/x: the store does not answer: the connection is refused"
    ]
    assert not (tmp_path / "out").exists()


def test_no_secret_is_written_or_shown(
    object_server: ObjectServer, bucket: str, tmp_path: Path, checkpoint_12lead: Path
) -> None:
    fill(f"s3://{bucket}/study", 2)
    options = {
        "access_key_id": object_server.environment["AWS_ACCESS_KEY_ID"],
        "secret_access_key": SECRET,
        "region": "us-east-1",
        "endpoint": object_server.endpoint,
    }
    hints = ["--sampling_rate", "500", "--unit", "uV", "--leads", ",".join(ALL_SAID.leads or ())]
    common = ["embed", "--dataset", f"s3://{bucket}/study", "--checkpoint", str(checkpoint_12lead), *hints]
    good = command(*common, "--output_dir", "out", "--storage_options", json.dumps(options), cwd=tmp_path)
    assert good.returncode == 0, good.stderr
    said = [good.stdout, good.stderr]
    for wrong in (
        {**options, "endpoint": "http://127.0.0.1:1"},
        {**options, "access_key_id": "somebody-else"},
        {**options, "region": 7, "virtual_hosted_style_request": SECRET},
        {**options, "frob": 1},
        {**options, SECRET: 1},
        {"secret_access_key": [SECRET]},
        f"{{{SECRET}",
    ):
        text = wrong if isinstance(wrong, str) else json.dumps(wrong)
        refused = command(*common, "--output_dir", "bad", "--storage_options", text, cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        said += [refused.stdout, refused.stderr]
    assert not any(SECRET in text for text in said)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_options_are_not_part_of_a_run(bucket: str, start: Start) -> None:
    fill(f"s3://{bucket}/study", 2)
    start(f"s3://{bucket}/study")
    again = start(f"s3://{bucket}/study", storage_options=storage_options({"region": "us-east-1"}))
    assert (again.processed, again.plan.done) == (0, 2)
    settings = Settings("a", Path("b"), storage_options=storage_options({"secret_access_key": SECRET}))
    assert SECRET not in repr(settings)
    assert "storage_options" not in json.dumps(replace(settings).fingerprint("0"))


@pytest.mark.parametrize(("num_workers", "kind"), [(0, "npy"), (1, "npy"), (1, "wfdb")])
def test_files_of_upcoming_records_are_fetched_at_the_same_time(
    num_workers: int, kind: str, bucket: str, gateway: Gateway, start: Start
) -> None:
    now, most, lock, are_many = 0, 0, threading.Lock(), threading.Event()

    def slowly(request: Request) -> None:
        nonlocal now, most
        with lock:
            now += bool(request.key)
            most = max(most, now)
            if most >= 16:
                are_many.set()
        are_many.wait(0.6)
        with lock:
            now -= bool(request.key)

    if kind == "npy":
        fill(f"s3://{bucket}/study", 30)
    else:
        original = next(each for each in built() if each.format == "wfdb")
        for number in range(30):
            for name, data in original.files.items():
                locate(f"s3://{bucket}/study/{number:02d}/{name}").put(data)
    gateway.rule = slowly
    summary = start(f"s3://{bucket}/study", num_workers=num_workers)
    assert summary.processed == 30
    assert summary.failed_now == 0
    assert most >= 16
