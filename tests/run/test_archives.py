"""Runs over cohorts in archives: the same results as over the folder, from ZIP and tar, here and in another store."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from ecgfounder.cohort.sources import default_data_dir, open_cohort
from ecgfounder.commands.embed import add_embed_arguments, settings_of
from ecgfounder.dataset import ECGDataset
from ecgfounder.errors import CohortError, ReadError, SettingsError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.readers import read_ecg
from ecgfounder.run import run as extract
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.run.summary import Summary
from ecgfounder.storage import locate
from ecgfounder.storage.archives import ArchiveStore
from tests.builders.archives import Entry, crafted_zip, files_of, tar_of, zip_of
from tests.builders.originals import ALL_SAID, built
from tests.harness.cohorts import Lines, entries, npy_of, write_formats
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine

Start = Callable[..., Summary]


@pytest.fixture
def console() -> Lines:
    return Lines()


@pytest.fixture
def start(tmp_path: Path, console: Lines) -> Start:
    """A run with an engine that costs nothing, of the command's settings for a dataset."""
    checkpoint = tmp_path / "weights.pth"
    checkpoint.write_bytes(b"weights")

    def run(dataset: str | Path, out: Path | None = None, **more: Any) -> Summary:
        data_dir = more.pop("data_dir", None) or default_data_dir(str(dataset)) or str(tmp_path)
        given: dict[str, Any] = {"num_workers": 0, "batch_size": 2, "layout": "tree"} | more
        settings = Settings(
            dataset=str(dataset),
            output_dir=out or tmp_path / "out",
            data_dir=data_dir,
            checkpoint=str(checkpoint),
            hints=ALL_SAID,
            preparation=Preparation(missing_leads="zero"),
            **given,
        )
        with mock.patch.object(extract, "create_engine", return_value=NullEngine()):
            return Run(settings, console).execute()

    return run


@pytest.fixture
def formats(tmp_path: Path) -> Path:
    """A folder with a recording of every format, and two that fail."""
    count = write_formats(tmp_path / "cohort")
    assert count > 40
    (tmp_path / "cohort" / "bad.xml").write_bytes(b"<not/>")
    (tmp_path / "cohort" / "00 alone.hea").write_bytes(b"alone 1 500 100\nnone.dat 16\n")
    return tmp_path / "cohort"


def assert_same_outputs(here: Path, there: Path) -> None:
    assert json_outputs(there) == json_outputs(here)
    known, found = ({entry["key"]: entry for entry in entries(out)} for out in (here, there))
    assert known.keys() == found.keys()
    for key, entry in known.items():
        for name in ("record", "status", "output", "facts", "shape", "absent"):
            assert entry.get(name) == found[key].get(name)
        assert entry.get("input", {}).get("sha256") == found[key].get("input", {}).get("sha256")
        assert entry.get("input", {}).get("companions") == found[key].get("input", {}).get("companions")


# --- the same as from a folder ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["zip", "tar", pytest.param("stored.zip", marks=pytest.mark.slow)])
def test_a_cohort_of_all_formats_gives_the_outputs_of_the_folder(
    kind: str, num_workers: int, formats: Path, start: Start, tmp_path: Path
) -> None:
    archive, files = tmp_path / f"study.{kind}", files_of(formats)
    archive.write_bytes(
        tar_of(files)
        if kind == "tar"
        else zip_of(files, zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED)
    )
    here, there = start(formats, tmp_path / "here"), start(archive, tmp_path / "there", num_workers=num_workers)
    assert here.tally is not None
    assert there.tally is not None
    assert (there.tally.done, there.tally.failed) == (here.tally.done, here.tally.failed)
    assert here.tally.done > 30
    assert_same_outputs(tmp_path / "here", tmp_path / "there")
    again = start(archive, tmp_path / "there")
    assert (again.processed, again.plan.done) == (0, here.tally.done)


@pytest.mark.services
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_cohort_of_all_formats_in_an_archive_in_a_bucket(
    kind: str, bucket: str, formats: Path, start: Start, tmp_path: Path
) -> None:
    files = files_of(formats)
    url = f"s3://{bucket}/exports/study.{kind}"
    locate(url).put(zip_of(files) if kind == "zip" else tar_of(files))
    start(formats, tmp_path / "here")
    there = start(url, tmp_path / "there", num_workers=2)
    assert there.outcome == "complete"
    assert_same_outputs(tmp_path / "here", tmp_path / "there")
    again = start(url, tmp_path / "there")
    assert again.processed == 0
    locate(url).put(zip_of(files | {"new.npy": npy_of(5)}) if kind == "zip" else tar_of(files | {"new.npy": npy_of(5)}))
    assert start(url, tmp_path / "there").processed == 1


def test_reading_processes_make_no_index(start: Start, tmp_path: Path) -> None:
    """In them, making one ends the process."""
    files = {f"{number % 5}/{number:03d}.npy": npy_of(number, 50) for number in range(40)}
    (tmp_path / "study.zip").write_bytes(zip_of(files))
    code = "import ecgfounder.storage.archives as a, os; a.ArchiveStore._indexed = lambda *_: os._exit(3)\n"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import sys, multiprocessing.spawn\n"
        "if '--multiprocessing-fork' in sys.argv:\n"
        f"    try:\n        {code.strip()}\n    except ImportError: raise SystemExit(4)\n"
    )
    path = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with mock.patch.dict(os.environ, PYTHONPATH=path):
        summary = start(tmp_path / "study.zip", num_workers=2)
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (40, 0)


# --- tables ----------------------------------------------------------------------------------------------------------

TOP = "mimic-iv-ecg-diagnostic-electrocardiogram-matched-subset-1.0"


def mimic() -> dict[str, bytes]:
    """An archive of PhysioNet's layout: all is below one folder, with a table of paths without suffixes."""
    original = next(each for each in built() if each.format == "wfdb" and each.name == "format 16")
    lines = ["subject_id,study_id,file_name,ecg_time,path"]
    files = {f"{TOP}/LICENSE.txt": b"Licence", f"{TOP}/RECORDS": b"", "__MACOSX/._x.xml": b"\0"}
    for number in range(6):
        study, folder = 40_689_238 + number, f"files/p100{number % 2}/p1000{number}032/s{40_689_238 + number}"
        for name, data in original.files.items():
            data = data.replace(b"r.dat", b"%d.dat" % study).replace(b"r 3", b"%d 3" % study)
            files[f"{TOP}/{folder}/{study}{Path(name).suffix}"] = data
        lines.append(f"1000{number}032,{study},{study},2180-07-23 08:44:00,{folder}/{study}")
    files[f"{TOP}/record_list.csv"] = "\n".join(lines).encode() + b"\n"
    return files


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_of_the_layout_of_mimic_runs_from_its_own_table(kind: str, start: Start, tmp_path: Path) -> None:
    files = mimic()
    archive = tmp_path / f"mimic.{kind}"
    archive.write_bytes(zip_of(files) if kind == "zip" else tar_of(files))
    for name, data in files.items():
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).write_bytes(data)
    given: dict[str, Any] = {"path_column": "path", "id_column": "study_id", "layout": "flat", "num_workers": 1}
    here = start(
        tmp_path / "folder" / TOP / "record_list.csv",
        tmp_path / "here",
        data_dir=str(tmp_path / "folder" / TOP),
        **given,
    )
    there = start(f"{archive}::{TOP}/record_list.csv", tmp_path / "there", **given)
    assert here.tally is not None
    assert there.tally is not None
    assert (there.tally.done, there.tally.failed) == (here.tally.done, here.tally.failed) == (6, 0)
    assert_same_outputs(tmp_path / "here", tmp_path / "there")
    assert "40689238.json" in json_outputs(tmp_path / "there")
    # The table may lie elsewhere, and the data folder is then named.
    (tmp_path / "mine.csv").write_bytes(files[f"{TOP}/record_list.csv"])
    again = start(tmp_path / "mine.csv", tmp_path / "there", data_dir=f"{archive}::{TOP}/", **given)
    assert (again.processed, again.plan.done) == (0, 6)


def test_the_data_folder_of_an_archive_may_be_named_without_a_mark(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of({"x/1.npy": npy_of(1), "2.npy": npy_of(2)}))
    (tmp_path / "table.csv").write_text(
        f"ecg_paths\nx/1.npy\n./2.npy\nx/../2.npy\n../2.npy\n{tmp_path}/a.zip::2.npy\n/2.npy\n"
    )
    from ecgfounder.storage import folder_text

    assert folder_text(tmp_path / "a.zip") == f"{tmp_path}/a.zip::"
    summary = start(
        tmp_path / "table.csv", data_dir=folder_text(str(tmp_path / "a.zip")), layout="flat", format="parquet"
    )
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (2, 2)  # two that lead out of the archive
    records = {entry["record"]: entry["status"] for entry in entries(tmp_path / "out")}
    assert records == {"x/1.npy": "done", "2.npy": "done", "../2.npy": "failed", "/2.npy": "failed"}


def test_paths_of_a_table_into_several_archives(start: Start, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["tracings"] = np.random.default_rng(0).standard_normal((5, 600, 12)).astype(np.float32)
    big = content.getvalue() + bytes(5 << 20)  # more than is read at once
    (tmp_path / "a.zip").write_bytes(zip_of({"d/exams.h5": big, "1.npy": npy_of(1)}))
    (tmp_path / "b.zip").write_bytes(zip_of({"d/exams.h5": big}, zipfile.ZIP_STORED))
    (tmp_path / "c.tar").write_bytes(tar_of({"d/exams.h5": big}))
    paths = [f"{name}::d/exams.h5::tracings/{row}" for name in ("a.zip", "b.zip", "c.tar") for row in (0, 3)]
    (tmp_path / "table.csv").write_text(
        "\n".join(["ecg_paths", *paths, "a.zip::1.npy", "none.zip::1.npy", "a.zip::2.npy"])
    )
    for num_workers in (0, 1):
        summary = start(
            tmp_path / "table.csv",
            tmp_path / f"{num_workers}",
            format="parquet",
            layout="flat",
            num_workers=num_workers,
        )
        assert summary.tally is not None
        assert (summary.tally.done, summary.tally.failed, summary.tally.absent) == (7, 2, 2)
    found = {entry["record"]: entry for entry in entries(tmp_path / "1")}
    assert found[paths[0]]["shape"] == found[paths[2]]["shape"] == found[paths[5]]["shape"]
    first, second = (read_ecg(f"{tmp_path}/{path}", hints=ALL_SAID) for path in (paths[1], paths[5]))
    np.testing.assert_array_equal(first.samples, second.samples)
    assert start(tmp_path / "table.csv", tmp_path / "1", format="parquet", layout="flat").processed == 0


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_replaced_archive_is_done_again_where_the_content_differs(kind: str, start: Start, tmp_path: Path) -> None:
    archive, pack = tmp_path / f"a.{kind}", zip_of if kind == "zip" else tar_of
    files = {f"{number}.npy": npy_of(number) for number in range(5)}
    archive.write_bytes(pack(files))
    assert start(archive).processed == 5
    archive.write_bytes(pack({"new.npy": npy_of(9)} | files | {"3.npy": npy_of(33)}))
    again = start(archive)
    assert (again.processed, again.plan.changed, again.plan.done) == (2, 1, 4)
    assert start(archive).processed == 0


def test_a_cohort_that_is_packed_or_unpacked_is_not_done_again(start: Start, tmp_path: Path) -> None:
    files = {f"w/{number}.npy": npy_of(number) for number in range(5)}
    (tmp_path / "f" / "w").mkdir(parents=True)
    for name, data in files.items():
        (tmp_path / "f" / name).write_bytes(data)
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    (tmp_path / "a.tar").write_bytes(tar_of(files))
    assert start(tmp_path / "f").processed == 5
    for dataset in ("a.zip", "a.tar", "f", "a.tar"):
        again = start(tmp_path / dataset)
        assert (again.processed, again.plan.done) == (0, 5)


def test_resuming_asks_the_index_and_not_the_archive(start: Start, tmp_path: Path) -> None:
    files = {f"{number:04d}.npy": npy_of(number, 50) for number in range(300)}
    (tmp_path / "a.zip").write_bytes(zip_of(files))
    assert start(tmp_path / "a.zip", format="parquet", layout="flat").processed == 300
    with mock.patch.object(ArchiveStore, "_of_archive", autospec=True, side_effect=ArchiveStore._of_archive) as asked:
        assert start(tmp_path / "a.zip", format="parquet", layout="flat").processed == 0
    assert asked.call_count == 0


def test_an_archive_that_is_replaced_during_a_run_ends_it(start: Start, tmp_path: Path, console: Lines) -> None:
    files = {f"{number:02d}.npy": npy_of(number) for number in range(20)}
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(files))
    reading, n_read = ArchiveStore._whole, 0

    def replace_it(self: ArchiveStore, *arguments: Any) -> bytes:
        nonlocal n_read
        n_read += 1
        if n_read == 5:
            archive.write_bytes(zip_of({name: data for name, data in files.items() if name != "00.npy"}))
        return reading(self, *arguments)

    with mock.patch.object(ArchiveStore, "_whole", replace_it):
        first = start(archive)
    assert first.outcome == "interrupted"
    assert first.trouble is not None
    assert "replaced while it was read" in first.trouble
    assert first.failed_now == 0
    again = start(archive)
    assert again.tally is not None
    assert again.tally.failed == 0
    assert again.plan.done + again.processed == 19


def test_an_archive_that_cannot_be_read_fails_its_records_or_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_bytes(zip_of({"1.npy": npy_of(1)})[:-9])
    (tmp_path / "table.csv").write_text("ecg_paths\nbad.zip::1.npy\nbad.zip::2.npy\n")
    summary = start(tmp_path / "table.csv", format="parquet", layout="flat")
    assert summary.tally is not None
    assert summary.tally.failed == 2
    assert all("directory of a ZIP archive is at its end" in entry["reason"] for entry in entries(tmp_path / "out"))
    with pytest.raises((CohortError, SettingsError), match="directory of a ZIP archive is at its end"):
        start(tmp_path / "bad.zip", tmp_path / "other", data_dir=str(tmp_path))


def test_one_bad_member_fails_alone_and_nothing_is_written_outside(start: Start, tmp_path: Path) -> None:
    good = [Entry(f"{number}.npy".encode(), npy_of(number), 8) for number in range(3)]
    bad = [
        Entry(b"encrypted.npy", npy_of(4), flags=1),
        Entry(b"link.npy", b"/etc/passwd", attributes=0o120777 << 16),
        Entry(b"lzma.npy", npy_of(5), 14),
        Entry(b"crc.npy", npy_of(6), 8, crc=5),
    ]
    (tmp_path / "a.zip").write_bytes(crafted_zip(*good, *bad))
    before = set(tmp_path.rglob("*"))
    summary = start(tmp_path / "a.zip", num_workers=1)
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed) == (3, 4)
    reasons = {entry["record"]: entry.get("reason") for entry in entries(tmp_path / "out")}
    assert "encrypted" in reasons["encrypted.npy"]
    assert "link" in reasons["link.npy"]
    assert "LZMA" in reasons["lzma.npy"]
    assert "CRC-32" in reasons["crc.npy"]
    assert {path for path in tmp_path.rglob("*") if tmp_path / "out" not in (path, *path.parents)} == before


# --- other ways in ---------------------------------------------------------------------------------------------------


def test_the_command_takes_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    monkeypatch.chdir(tmp_path)
    Path("a.zip").write_bytes(zip_of({"top/1.npy": npy_of(1), "top/list.jsonl": b'{"ecg_paths": "1.npy"}\n'}))
    Path("b.tar.gz").write_bytes(b"")
    parser = argparse.ArgumentParser()
    add_embed_arguments(parser)
    for dataset, data_dir in (
        ("a.zip", f"{tmp_path}/a.zip::"),
        ("a.zip::top", f"{tmp_path}/a.zip::top"),
        ("a.zip::top/list.jsonl", f"{tmp_path}/a.zip::top"),
    ):
        settings = settings_of(parser.parse_args(["--dataset", dataset, "--output_dir", "out"]))
        assert settings.data_dir == data_dir
        assert len(list(open_cohort(dataset).records())) == 1
    for flags in (["--dataset", "b.tar.gz"], ["--dataset", "a.zip", "--data_dir", "b.tar.gz"]):
        with pytest.raises(SettingsError, match="tar -xf"):
            settings_of(parser.parse_args([*flags, "--output_dir", "out"]))


def test_the_python_interface_reads_from_archives(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of({"x/1.npy": npy_of(1), "list.jsonl": b'{"ecg_paths": "x/1.npy"}\n'}))
    (tmp_path / "1.npy").write_bytes(npy_of(1))
    path = f"{tmp_path}/a.zip::x/1.npy"
    known, found = read_ecg(tmp_path / "1.npy", hints=ALL_SAID), read_ecg(path, hints=ALL_SAID)
    np.testing.assert_array_equal(known.samples, found.samples)
    with pytest.raises(ReadError, match=r"a\.zip::x/2\.npy: there is no such file in the archive"):
        read_ecg(f"{tmp_path}/a.zip::x/2.npy")
    given: dict[str, Any] = {"hints": ALL_SAID}
    for ecgs in (
        ECGDataset([path], **given),
        ECGDataset(["x/1.npy"], data_dir=tmp_path / "a.zip", **given),
        ECGDataset.from_cohort(tmp_path / "a.zip", **given),
        ECGDataset.from_cohort(f"{tmp_path}/a.zip::list.jsonl", **given),
    ):
        assert torch.equal(ecgs[0], ECGDataset([tmp_path / "1.npy"], **given)[0])
