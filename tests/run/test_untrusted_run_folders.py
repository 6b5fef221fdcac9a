"""A run's folder that somebody else made: nothing outside of it is ever removed, read as an output, or written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.errors import ECGFounderError, RunError
from ecgfounder.ledger.conclusion import merge, upgrade
from ecgfounder.results.export import export_run
from ecgfounder.results.run import open_run
from ecgfounder.run import run as run_module
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.stand_ins import NullEngine, Silent

NAMES = [f"{folder}/ecg_{number}" for folder in ("a", "b") for number in range(3)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run in tree layout, half done: `a/...` and `b/...`, the last recording of each to be done; not to be changed."""
    folder = tmp_path_factory.mktemp("untrusted")
    write_cohort(folder / "flat", 6)
    for number, name in enumerate(NAMES):
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "flat" / f"ecg_{number if number != 3 else 0:02d}.npy", folder / "in" / f"{name}.npy")
    (folder / "weights.pth").write_bytes(b"weights")
    settings = settings_for(folder / "in", folder / "out", folder / "weights.pth", layout="tree")
    start(settings)
    return settings


@pytest.fixture
def made(run: Settings, tmp_path: Path) -> Settings:
    """A copy of the run; and someone else's folder."""
    settings, theirs = replace(run, output_dir=tmp_path / "out"), tmp_path / "theirs"
    shutil.copytree(run.output_dir, settings.output_dir)
    shutil.copytree(run.output_dir, theirs)  # so that every name that may be followed is there
    (theirs / "deep" / "empty").mkdir(parents=True)
    (theirs / "x.part").write_text("precious")
    return settings


def start(settings: Settings) -> Any:
    with mock.patch.object(run_module, "create_engine", return_value=NullEngine(1)):
        return Run(settings, Silent()).execute()


def snapshot(folder: Path) -> dict[str, tuple[int, bytes | None]]:
    return {
        str(path.relative_to(folder)): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def link(place: Path, target: Path) -> None:
    """Put a link in the place of what is there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    elif os.path.lexists(place):
        place.unlink()
    place.symlink_to(target)


def linked(*names: str) -> Callable[[Path, Path], None]:
    def do(out: Path, theirs: Path) -> None:
        for name in names:
            link(out / name, theirs / name)

    return do


def linked_scratch_files(out: Path, theirs: Path) -> None:
    (out / "_run" / "scratch" / "x.part").symlink_to(theirs / "x.part")
    (out / "_run" / "scratch" / "new.part").symlink_to(theirs / "new.part")


def named_outside(output: str) -> Callable[[Path, Path], None]:
    """The ledger and the manifest name another output."""

    def do(out: Path, theirs: Path) -> None:
        name = output.format(theirs=theirs)
        for part in (out / "_run" / "ledger").iterdir():
            lines = [orjson.loads(line) for line in part.read_bytes().splitlines()]
            for line in lines:
                if line.get("output") == "a/ecg_0.json":
                    line["output"] = name
            more = [{"key": "00000000000000ff", "record": "x", "status": "failed", "removes": name}]
            part.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in (*lines[:-1], *more, lines[-1])))
        path = out / "_run" / "manifest.pq"
        table = pq.ParquetFile(path).read()
        outputs = [name if text == "a/ecg_0.json" else text for text in table["output"].to_pylist()]
        pq.write_table(
            table.set_column(table.column_names.index("output"), "output", pa.array(outputs, pa.string())), path
        )

    return do


HOSTILE = {
    "run record": linked("_run"),
    "ledger": linked("_run/ledger"),
    "scratch": linked("_run/scratch"),
    "scratch files": linked_scratch_files,
    "locks": linked("_run/locks"),
    "lock": linked("_run/locks/run.lock"),
    "run.json": linked("_run/run.json"),
    "tables": linked("_run/manifest.pq", "_run/failures.csv"),
    "subfolder": linked("a"),
    "output": linked("a/ecg_0.json"),
    "folder of the folder": lambda out, theirs: link(out / "a", theirs / "deep"),
    "dots": named_outside("../theirs/a/ecg_0.json"),
    "dots within": named_outside("a/../../theirs/a/ecg_0.json"),
    "absolute": named_outside("{theirs}/a/ecg_0.json"),
    "through a link": lambda out, theirs: (
        link(out / "elsewhere", theirs),
        named_outside("elsewhere/a/ecg_0.json")(out, theirs),
    )[0],
    "empty folder through a link": lambda out, theirs: (
        link(out / "elsewhere", theirs / "deep"),
        named_outside("elsewhere/empty/x.json")(out, theirs),
    )[0],
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_nothing_outside_the_folder_is_removed_or_written(
    hostile: Callable[[Path, Path], None], made: Settings, tmp_path: Path
) -> None:
    out, theirs = tmp_path / "out", tmp_path / "theirs"
    hostile(out, theirs)
    shutil.copytree(out, tmp_path / "hostile", symlinks=True)
    before = snapshot(theirs)
    actions: list[Callable[[], Any]] = [
        lambda: start(made),
        lambda: start(replace(made, retry_failed=True, check_hashes=True)),
        lambda: start(replace(made, shard=(1, 2))),
        lambda: start(replace(made, overwrite=True)),
        lambda: merge(out),
        lambda: upgrade(out),
        lambda: export_run(out, tmp_path / "exported", "npy", allow_incomplete=True),
    ]
    for action in actions:
        shutil.rmtree(out)
        shutil.copytree(tmp_path / "hostile", out, symlinks=True)
        with suppress(ECGFounderError):  # it may be refused, and may go on
            action()
        assert snapshot(theirs) == before


@pytest.mark.parametrize("name", ["_run", "_run/ledger", "_run/scratch", "_run/locks"])
def test_a_linked_folder_of_the_run_record_is_refused_with_the_way_out(
    name: str, made: Settings, tmp_path: Path
) -> None:
    linked(name)(tmp_path / "out", tmp_path / "theirs")
    with pytest.raises(RunError, match=r"is a symbolic link; expected a folder.*cp -rL"):
        start(replace(made, overwrite=True))
    with pytest.raises(RunError, match=r"is a symbolic link; expected a folder.*cp -rL"):
        merge(tmp_path / "out")


def test_a_record_whose_output_would_go_through_a_link_fails_with_the_reason(made: Settings, tmp_path: Path) -> None:
    linked("a")(tmp_path / "out", tmp_path / "theirs")
    assert start(made).tally.failed == 3
    reasons = (tmp_path / "out" / "_run" / "failures.csv").read_text()
    assert reasons.count("nothing is written through a symbolic link") == 3


@pytest.mark.parametrize("name", ["output", "subfolder", "dots", "dots within", "absolute", "through a link"])
def test_nothing_outside_the_folder_is_read_as_an_output(name: str, made: Settings, tmp_path: Path) -> None:
    secret = orjson.dumps({"embedding": np.full((3, 12), 777.0).tolist(), "shape": [3, 12]})
    (tmp_path / "theirs" / "a" / "ecg_0.json").write_bytes(secret)
    HOSTILE[name](tmp_path / "out", tmp_path / "theirs")
    run = open_run(tmp_path / "out")
    with pytest.raises(RunError, match="leads out of the run's folder"):
        run.arrays(pooling="mean")[0][:]
    for to in ("npy", "parquet"):
        with pytest.raises(RunError):
            export_run(tmp_path / "out", tmp_path / to, to)
    assert not any((np.load(path) == 777).any() for path in tmp_path.glob("npy/**/*.npy"))


def test_links_within_the_folder_are_followed(made: Settings, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "objects").mkdir()
    (out / "a" / "ecg_0.json").rename(out / "objects" / "1")
    (out / "a" / "ecg_0.json").symlink_to("../objects/1")  # as git-annex keeps files
    assert len(open_run(out).arrays(pooling="mean")[0][:]) == 6


def test_a_table_that_is_a_link_is_not_copied_into_an_export(made: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("secret")
    link(tmp_path / "out" / "_run" / "failures.csv", tmp_path / "secret.csv")
    with pytest.raises(RunError, match="is a link out of the run's folder"):
        export_run(tmp_path / "out", tmp_path / "npy", "npy")
