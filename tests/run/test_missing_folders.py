"""A working directory, a temporary folder or a data folder that cannot be had: refused in one line, before any work."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import heap
from pathlib import Path
from unittest import mock

import pytest

import ecgfounder
from ecgfounder import cli
from ecgfounder.checks import check_folder
from ecgfounder.commands import chat, doctor
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import one_line
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.run import run as run_module
from tests.builders.cohorts import write_cohort
from tests.harness.stand_ins import NullEngine


@pytest.fixture
def embed(tmp_path: Path) -> list[str]:
    write_cohort(tmp_path / "in")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return [
        *("embed", "--dataset", str(tmp_path / "in"), "--checkpoint", str(tmp_path / "weights.pth")),
        *("--output_dir", str(tmp_path / "out"), "--sampling_rate", "500", "--unit", "mV"),
        *("--leads", ",".join(STANDARD_LEADS), "--num_workers", "2", "--batch_size", "2"),
    ]


def forked(work: Callable[[], int]) -> int:
    """The exit status of what is done in a process of its own."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        with mock.patch.object(run_module, "create_engine", return_value=NullEngine()):
            status = work()
    finally:
        os._exit(status)


def test_every_command_refuses_a_working_directory_that_is_gone_in_one_line(
    embed: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    commands: list[Callable[[], int]] = [
        lambda: cli.main(embed),
        lambda: cli.main([*embed, "--dry_run"]),
        lambda: cli.main(["merge", out]),
        lambda: cli.main(["upgrade", "out"]),
        lambda: cli.main(["export", out, "--to", "npy", "--output_dir", "npy"]),
        lambda: cli.main(["inspect", "a.xml"]),
        lambda: cli.main(["demo"]),
        lambda: cli.main(["verify", "--dataset", out]),
        lambda: cli.embed_main(embed[1:]),
        lambda: chat.mimic_main(["--dataset_name", out, "--embeddings_dirs", out, "--output_file", "a.json"]),
    ]
    for number, command in enumerate(commands):
        gone = tmp_path / f"gone{number}"
        gone.mkdir()

        def there(gone: Path = gone, command: Callable[[], int] = command) -> int:
            os.chdir(gone)
            gone.rmdir()
            return command()

        assert forked(there) == 2, number
        said = capfd.readouterr().err
        assert said.count("\n") == 1, said
        assert "The working directory no longer exists (No such file or directory)" in said
    assert not (tmp_path / "out").exists()


def test_from_python_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(os, "getcwd", gone)
    with pytest.raises(SettingsError, match="working directory no longer exists"):
        RunFolder("out")
    with pytest.raises(SettingsError, match="working directory no longer exists"):
        ecgfounder.embed_cohort("cohort.csv", "out")
    RunFolder(tmp_path)  # an absolute path needs none


def without_temporary_folder() -> None:
    tempfile.tempdir = None
    mock.patch.object(tempfile, "_candidate_tempdir_list", return_value=["/nowhere"]).start()
    mock.patch.object(heap.Arena, "_dir_candidates", []).start()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere counts are in a file")
def test_a_run_needs_no_temporary_folder_for_its_reading_processes(embed: list[str], tmp_path: Path) -> None:
    def there() -> int:
        without_temporary_folder()
        return cli.main(embed)

    assert forked(there) == 1  # one recording is damaged, and one is constant
    assert len(list((tmp_path / "out").glob("*.json"))) == 19


def test_without_shared_memory_and_a_temporary_folder_a_run_is_refused_in_one_line(
    embed: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    def there() -> int:
        without_temporary_folder()
        if hasattr(os, "memfd_create"):
            del os.memfd_create
        return cli.main(embed)

    assert forked(there) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "Set TMPDIR to a folder with space, or set --num_workers 0." in said


def test_other_commands_that_need_a_temporary_folder_are_refused_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    commands: list[Callable[[], int]] = [
        lambda: cli.main(["demo", out]),
        lambda: cli.main(["verify", "--checkpoint", out]),
        lambda: chat.mimic_main(["--dataset_name", out, "--embeddings_dirs", out, "--output_file", out]),
    ]
    for number, command in enumerate(commands):

        def there(command: Callable[[], int] = command) -> int:
            without_temporary_folder()
            return command()

        assert forked(there) == 2, number
        said = capfd.readouterr().err
        assert said.count("\n") == 1, said
        assert "No usable temporary directory found" in said
        assert "set TMPDIR to a folder with space" in said
    assert not (tmp_path / "out").exists()


def test_doctor_says_that_there_is_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    found = list(doctor._engines())
    assert [finding.status for finding in found] == ["FAIL"]
    assert "TMPDIR" in found[0].text()


def test_whatever_the_system_refuses_before_the_first_recording_is_one_line(
    embed: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    def there() -> int:
        with mock.patch.object(run_module, "make_plan", side_effect=OSError(24, "Too many open files")):
            return cli.main(embed)

    assert forked(there) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "The run cannot begin: [Errno 24] Too many open files" in said


# --- the data folder --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--dry_run",), ("--id_column", "ecg_paths")])
@pytest.mark.parametrize(
    ("folder", "reason"),
    [("gone", "No such file or directory"), ("weights.pth", "Not a directory"), ("a\0b", "embedded null byte")],
)
def test_a_data_folder_that_is_none_is_refused_in_one_line(
    folder: str,
    reason: str,
    more: tuple[str, ...],
    embed: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([*embed, "--data_dir", str(tmp_path / folder), *more]) == 2
    assert capsys.readouterr().err == (
        f"ecgfounder: Invalid value for --data_dir. It must be an existing folder, got {one_line(str(tmp_path / folder))}: "
        f"{reason}.\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_data_folder_that_cannot_be_entered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: str) -> None:
        assert path == f"{tmp_path}/."  # whoever may not enter the folder may not ask for this
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(SettingsError, match=r"'data_dir' parameter.*: Permission denied"):
        check_folder("data_dir", str(tmp_path))


def test_the_data_folder_is_looked_at_by_every_command_that_reads_from_it(
    embed: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SettingsError, match="existing folder"):
        ecgfounder.embed_cohort(tmp_path / "in", tmp_path / "out", data_dir=tmp_path / "gone")
    words = ["verify", *embed[1:3], "--data_dir", str(tmp_path / "gone"), "--checkpoint", str(tmp_path / "weights.pth")]
    assert cli.main(words) == 2
    assert "existing folder" in capsys.readouterr().err
