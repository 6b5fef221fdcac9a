"""A run's folder takes nothing that is not its own, and removes nothing that is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ecgfounder.errors import RunError
from ecgfounder.ledger.admission import admit, create_folder, hold_folder, previous
from ecgfounder.ledger.entry import PartHeader, key_text
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import LedgerWriter, part_name
from ecgfounder.ledger.liveness import STALE_SECONDS, own_name
from ecgfounder.ledger.locks import RunLock
from ecgfounder.ledger.record import CohortSettings, RunRecord
from ecgfounder.ledger.removal import clean_scratch
from ecgfounder.preprocess.preparation import Preparation
from tests.builders.entries import END, HEADER, entry_of

FINGERPRINT: dict[str, Any] = {
    "checkpoint_sha256": "ab" * 32,
    "pooling": "none",
    "preparation": {"mode": "12lead", "recipe": {"name": "zscore", "version": 1}, "minus_aVR": None},
    "heart_rate": False,
}
RECORD = RunRecord(fingerprint=FINGERPRINT, settings=CohortSettings(dataset="a.csv"), run_id="ab", format_version=2)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run's folder as a start leaves it."""
    made = RunFolder(tmp_path / "out")
    create_folder(made)
    made.write(RECORD)
    return made


def remember(folder: RunFolder, *outputs: str, **more: Any) -> None:
    """Outputs as a run leaves them: the files, and their ledger lines."""
    writer = LedgerWriter(folder.ledger.path / part_name(1, (1, 1), 0, 1), HEADER)
    for number, name in enumerate(outputs):
        path = folder.output_dir.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        output = f"{name}::{key_text(number)}" if "shard" in more else name
        writer.append([entry_of(number, output=output, **more)])
    writer.append([entry_of(99, "failed", reason="damaged")])
    writer.end(END)


def with_preparation(**more: str | None) -> dict[str, Any]:
    return FINGERPRINT | {"preparation": FINGERPRINT["preparation"] | more}


@pytest.mark.parametrize(
    ("flags", "admitted"),
    [
        ((), True),
        (("derived_leads:III,aVR,aVL,aVF", "resampled:250"), True),  # a file with I and II alone
        (("derived_leads:aVR",), False),  # a file with -aVR in its place, perhaps
    ],
)
def test_a_run_from_before_minus_avr_was_used_is_refused_where_its_results_may_differ(
    folder: RunFolder, flags: tuple[str, ...], admitted: bool
) -> None:
    remember(folder, "a.json", flags=flags)
    now = with_preparation(minus_aVR="used")
    if admitted:
        assert admit(folder, now, overwrite=False)
    else:
        with pytest.raises(RunError, match="minus_aVR: None, now used"):
            admit(folder, now, overwrite=False)
    with pytest.raises(RunError, match=r"pooling: none, now mean\n.*minus_aVR: None, now used"):
        admit(folder, now | {"pooling": "mean"}, overwrite=False)


@pytest.mark.parametrize(
    ("setting", "before"), [({"resampling": "polyphase"}, "polyphase"), ({"missing_leads": "zero"}, "zero")]
)
def test_a_run_that_was_begun_with_an_older_method_is_refused_by_name(
    folder: RunFolder, setting: dict[str, str], before: str
) -> None:
    now = Preparation(**setting).fingerprint()  # type: ignore[arg-type]
    (name,) = setting
    folder.write(replace(RECORD, fingerprint=FINGERPRINT | {"preparation": now | {name: before}}))
    with pytest.raises(RunError, match=rf"preparation\.{name}: {before}, now {before} v2"):
        admit(folder, FINGERPRINT | {"preparation": now}, overwrite=False)


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["new", "new/with/parents", "there"])
def test_a_new_or_empty_folder_is_made_ready(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    folder = RunFolder(tmp_path / name)
    create_folder(folder)
    assert everything_in(folder.output_dir.path) == {"_run", "_run/ledger", "_run/scratch", "_run/locks"}
    assert folder.read() is None
    assert not admit(folder, FINGERPRINT, overwrite=False)
    create_folder(folder)  # a second start finds it as it is


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "folder"])
def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name == "folder" else (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="is not empty and has no _run/"):
        create_folder(RunFolder(tmp_path))
    assert everything_in(tmp_path) == {name}


@pytest.mark.parametrize("below", ["", "/out", "/a/b"])
def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot be written to: (Not a directory|File exists)"):
        create_folder(RunFolder(Path(f"{tmp_path}/file{below}")))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(RunError, match="cannot be written to: Permission denied"):
        create_folder(RunFolder(tmp_path))


def test_a_folder_on_which_nothing_more_fits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot be written to: No space left on device"):
        create_folder(RunFolder(tmp_path / "out"))


def test_a_relative_folder_stays_where_it_was_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path("out"))
    monkeypatch.chdir("/")
    create_folder(folder)
    assert (tmp_path / "out" / "_run").is_dir()


def test_the_same_fingerprint_resumes(folder: RunFolder) -> None:
    again = orjson.loads(orjson.dumps(FINGERPRINT))
    assert admit(folder, again, overwrite=False)


def test_another_fingerprint_is_refused_with_each_difference(folder: RunFolder) -> None:
    other = {
        **FINGERPRINT,
        "pooling": "mean",
        "preparation": {"mode": "12lead", "recipe": {"name": "filtered", "version": 1}},
        "dtype": "float32",
    }
    before = everything_in(folder.output_dir.path)
    with pytest.raises(RunError) as refused:
        admit(folder, other, overwrite=False)
    message = str(refused.value)
    for line in (
        "pooling: none, now mean",
        "preparation.recipe.name: zscore, now filtered",
        "dtype: None, now float32",
    ):
        assert f"  {line}" in message.split("\n")
    assert "version" not in message
    assert "checkpoint" not in message
    assert "overwrite=True" in message
    assert everything_in(folder.output_dir.path) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_run_json_that_cannot_be_read_is_refused(folder: RunFolder, content: bytes) -> None:
    folder.run_json.path.write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json"):
        admit(folder, FINGERPRINT, overwrite=False)


def test_run_json_is_replaced_in_one_step(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_source: object, _target: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="Input/output"):
        folder.write(replace(RECORD, fingerprint={}))
    assert folder.read() == RECORD


def test_overwriting_removes_what_the_ledger_names_and_nothing_else(folder: RunFolder) -> None:
    remember(folder, "a.json", "deep/er/b.json", "deep/c.json")
    (folder.output_dir.path / "deep" / "mine.txt").write_text("mine")
    (folder.output_dir.path / "d.json").write_text("not in the ledger")
    (folder.output_dir.path / "empty").mkdir()
    folder.table("manifest").path.write_bytes(b"PAR1")
    assert not admit(folder, {"anything": "else"}, overwrite=True)
    assert everything_in(folder.output_dir.path) == {
        *("deep", "deep/mine.txt", "d.json", "empty"),
        *("_run", "_run/ledger", "_run/scratch", "_run/locks"),
    }


def test_overwriting_removes_shards(folder: RunFolder) -> None:
    remember(folder, "embeddings-x-000000.parquet", shard="embeddings-x-000000.parquet")
    admit(folder, FINGERPRINT, overwrite=True)
    assert not list(folder.output_dir.path.glob("*.parquet"))


def test_overwriting_goes_on_where_it_was_cut_off(folder: RunFolder) -> None:
    remember(folder, "a.json", "b.json")
    (folder.output_dir.path / "a.json").unlink()  # as if it had been killed after the first
    admit(folder, FINGERPRINT, overwrite=True)
    assert not list(folder.output_dir.path.glob("*.json"))


def test_scratch_is_emptied(folder: RunFolder) -> None:
    (folder.scratch / "1-1.json").write_text("half")
    clean_scratch(folder)
    assert list(folder.scratch.iterdir()) == []


def test_parts_sort_by_the_start_they_belong_to() -> None:
    names = [part_name(stamp, (1, 2), 0, 2) for stamp in (5, 999, 1_700_000_000_000_000_000)]
    assert names == sorted(names)
    assert len({part_name(7, shard, rank, 2) for shard in ((1, 2), (2, 2)) for rank in (0, 1)}) == 4


ELSEWHERE = {"host": "node17", "pid": 4242, "boot": "another", "pid_namespace": "another"}


def leave_part(
    folder: RunFolder, shard: tuple[int, int] = (1, 1), age: float = 0.0, end: bool = False, **name: Any
) -> None:
    """A part as a second process leaves it: alive on another machine if nothing else is said."""
    part = folder.ledger.path / part_name(1, shard, 1, 2)
    writer = LedgerWriter(part, PartHeader(**ELSEWHERE | name))
    writer.end(END) if end else writer.abandon()
    os.utime(part, (time.time() - age,) * 2)


def hold(folder: RunFolder, shard: tuple[int, int] = (1, 1)) -> bool:
    """Whether the folder can be had; the one that was refused leaves no lock."""
    try:
        with hold_folder(folder, shard):
            return True
    except RunError:
        with RunLock(folder.locks, shard):
            return False


def test_a_process_that_outlived_its_main_one_keeps_the_folder(folder: RunFolder) -> None:
    leave_part(folder)
    with pytest.raises(RunError, match="in use by process 4242 on node17"):
        hold_folder(folder)
    assert not hold(folder)
    assert not hold(folder, (1, 3))


def test_a_living_process_of_this_machine_keeps_the_folder(folder: RunFolder) -> None:
    leave_part(folder, **own_name() | {"pid": os.getppid()})
    assert not hold(folder)


def test_a_process_of_another_machine_with_our_number_keeps_the_folder(folder: RunFolder) -> None:
    leave_part(folder, pid=os.getpid())
    assert not hold(folder)


def test_a_process_that_ended_or_died_does_not_keep_the_folder(folder: RunFolder) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    how: tuple[dict[str, Any], ...] = (
        {"end": True},
        {"age": STALE_SECONDS * 2},
        own_name() | {"pid": gone.pid},
        own_name(),  # a start of this very process, which broke
    )
    for each in how:
        leave_part(folder, **each)
        assert hold(folder)
        (folder.ledger.path / part_name(1, (1, 1), 1, 2)).unlink()


def test_processes_of_other_shards_work_side_by_side_in_one_division(folder: RunFolder) -> None:
    leave_part(folder, (2, 3))
    assert hold(folder, (1, 3))
    for other in ((2, 3), (2, 4), (1, 1)):
        assert not hold(folder, other)


def test_results_without_run_json_are_refused_and_can_be_overwritten(folder: RunFolder) -> None:
    remember(folder, "a.json")
    folder.run_json.path.unlink()
    with pytest.raises(RunError, match=r"run\.json is missing.*overwrite=True"):
        admit(folder, FINGERPRINT, overwrite=False)
    with pytest.raises(RunError, match=r"run\.json is missing"):
        previous(folder)  # what a dry run asks
    assert (folder.output_dir.path / "a.json").exists()
    assert not admit(folder, FINGERPRINT, overwrite=True)
    assert not (folder.output_dir.path / "a.json").exists()
    assert not admit(folder, FINGERPRINT, overwrite=False)


def test_parts_without_results_and_without_run_json_are_a_new_run(folder: RunFolder) -> None:
    folder.run_json.path.unlink()
    LedgerWriter(folder.ledger.path / part_name(1, (1, 1), 0, 1), HEADER).end(END)
    assert not admit(folder, FINGERPRINT, overwrite=False)
