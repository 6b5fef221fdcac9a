"""Runs over cohorts on the Hugging Face Hub, by a stand-in: one commit in all processes, resuming, trouble, no token kept."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecgfounder.cohort.sources import default_data_dir
from ecgfounder.run import run as extract
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.run.summary import Summary
from ecgfounder.storage import hub as module
from tests.builders.originals import ALL_SAID
from tests.harness.hub_server import TOKEN, Hub, Repository
from tests.harness.object_server import Request
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine, Silent

pytestmark = pytest.mark.services

Start = Callable[..., Summary]


def npy_of(seed: int) -> bytes:
    content = io.BytesIO()
    np.save(content, np.random.default_rng(seed).standard_normal((12, 600)).astype(np.float32))
    return content.getvalue()


FILES = {f"study/{number}.npy": npy_of(number) for number in range(6)}
OTHERS = {name: npy_of(100 + number) for number, name in enumerate(FILES)}


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """A run with an engine that costs nothing; data_dir is the dataset's unless it is given."""
    (tmp_path / "weights.pth").write_bytes(b"weights")

    def run(dataset: str, out: Path, **more: Any) -> Summary:
        given: dict[str, Any] = {"data_dir": default_data_dir(dataset) or str(tmp_path), "num_workers": 0} | more
        checkpoint = given.pop("checkpoint", str(tmp_path / "weights.pth"))
        settings = Settings(
            dataset=dataset, output_dir=out, checkpoint=checkpoint, hints=ALL_SAID, batch_size=2, layout="flat", **given
        )
        with mock.patch.object(extract, "create_engine", return_value=NullEngine()):
            return Run(settings, Silent()).execute()

    return run


@pytest.fixture
def repository(hub: Hub) -> Repository:
    return hub.new("datasets/clinic/ecgs", dict(FILES))


def of_folder(start: Start, tmp_path: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """The outputs of the same files from a folder."""
    folder = tmp_path / f"folder{len(list(tmp_path.iterdir()))}"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    start(str(folder / "study"), folder / "out")
    return json_outputs(folder / "out")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_reads_one_commit_though_the_repository_moves_on(
    hub: Hub, repository: Repository, start: Start, tmp_path: Path, num_workers: int
) -> None:
    def move_on(request: Request) -> None:
        if request.path.endswith("/tree/" + repository.branches["main"] + "/study?recursive=true"):
            hub.rule = lambda _request: None
            repository.commit(OTHERS)

    hub.rule = move_on
    summary = start("hf://datasets/clinic/ecgs/study", tmp_path / "out", num_workers=num_workers)
    assert (summary.outcome, len(repository.commits)) == ("complete", 2)
    assert json_outputs(tmp_path / "out") == of_folder(start, tmp_path, FILES)
    asked = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert len({path.split("/")[5] for path in asked}) == 1


def test_a_resumed_run_does_again_what_another_commit_has_changed(
    hub: Hub, repository: Repository, start: Start, tmp_path: Path
) -> None:
    for expected in (6, 0):
        del hub.requests[:]
        assert start("hf://datasets/clinic/ecgs/study", tmp_path / "out").processed == expected
    assert not any("/resolve/" in request.path and request.method == "GET" for request in hub.requests)
    changed = {**FILES, "study/1.npy": OTHERS["study/1.npy"], "study/new.npy": OTHERS["study/2.npy"]}
    repository.commit(changed)
    assert start("hf://datasets/clinic/ecgs/study", tmp_path / "out").processed == 2
    assert json_outputs(tmp_path / "out") == of_folder(start, tmp_path, changed)


def test_a_table_an_archive_and_a_checkpoint_of_the_hub(
    hub: Hub, repository: Repository, start: Start, tmp_path: Path
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    absolute = [f"hf://datasets/clinic/ecgs@main/{name}" for name in FILES]
    tables = {"relative.csv": list(FILES), "absolute.csv": absolute}
    repository.commit(
        FILES
        | {name: "\n".join(["ecg_paths", *rows]).encode() for name, rows in tables.items()}
        | {"s.zip": content.getvalue()}
    )
    hub.new("models/lab/net", {"w.pth": b"weights"})
    expected = of_folder(start, tmp_path, FILES)
    for number, (dataset, data_dir) in enumerate(
        (
            ("relative.csv", "hf://datasets/clinic/ecgs"),
            ("absolute.csv", str(tmp_path)),
            ("s.zip", "hf://datasets/clinic/ecgs/s.zip::"),
            ("s.zip::study", "hf://datasets/clinic/ecgs/s.zip::study"),
        )
    ):
        summary = start(
            f"hf://datasets/clinic/ecgs/{dataset}",
            tmp_path / f"out{number}",
            data_dir=data_dir,
            checkpoint="hf://lab/net/w.pth",
        )
        assert summary.outcome == "complete"
        assert json_outputs(tmp_path / f"out{number}") == expected


def test_a_record_of_another_repository_fails_alone(
    hub: Hub, repository: Repository, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.rule = lambda request: 403 if "study/3.npy" in request.path else None
    names = [*FILES, "hf://datasets/clinic/none/a.npy", "gone.npy", "hf://datasets/clinic/ecgs/../none/b.npy"]
    (tmp_path / "list.csv").write_text("\n".join(["ecg_paths", *names]))
    summary = start(str(tmp_path / "list.csv"), tmp_path / "out", data_dir="hf://datasets/clinic/ecgs")
    rows = pq.read_table(tmp_path / "out" / "_run" / "manifest.pq").to_pylist()
    failed = {row["record"]: row["reason"] for row in rows if row["error"]}
    assert (summary.processed - summary.failed_now, sorted(failed)) == (5, sorted([*names[6:], "study/3.npy"]))
    assert "no such repository" in failed[names[6]]
    assert "access denied (status 403)" in failed["study/3.npy"]
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes()


def test_trouble_of_the_hub_ends_a_run_that_resumes(
    hub: Hub, repository: Repository, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", (1.0, 2, 0.05))
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.01)
    hub.rule = lambda request: 503 if "study/3.npy" in request.path else None
    summary = start("hf://datasets/clinic/ecgs/study", tmp_path / "out")
    assert (summary.outcome, summary.failed_now) == ("interrupted", 0)
    assert "the Hub answers with an error (status 503)" in str(summary.trouble)
    hub.rule = lambda _request: None
    assert start("hf://datasets/clinic/ecgs/study", tmp_path / "out").outcome == "complete"
    assert json_outputs(tmp_path / "out") == of_folder(start, tmp_path, FILES)
