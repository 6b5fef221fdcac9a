"""Temporary folders: those of processes that were killed are removed, and no others."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from ecgfounder.storage import temporary
from ecgfounder.storage.temporary import make_temporary_folder, temporary_folder

MAKE = "from ecgfounder.storage.temporary import make_temporary_folder as make; print(make()[0], flush=True); "


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of temporary files, for a process that has made none yet."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    temporary._remove_left_ones.cache_clear()
    yield tmp_path
    temporary._remove_left_ones.cache_clear()


def test_a_folder_is_this_users_alone_and_goes_at_the_end_of_its_block(place: Path) -> None:
    with temporary_folder() as folder:
        assert folder.parent == place
        assert folder.stat().st_mode & 0o077 == 0
        (folder / "a" / "b").mkdir(parents=True)
    with pytest.raises(KeyError), temporary_folder():
        raise KeyError
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next() -> None:
    child = subprocess.Popen([sys.executable, "-c", MAKE + "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        left = Path(os.fsdecode(child.stdout.readline()).strip())
        (left / "copy").write_text("of a patient's file")
        with temporary_folder() as folder:  # while it lives
            assert left.is_dir()
            assert folder.is_dir()
        child.send_signal(signal.SIGKILL)
    temporary._remove_left_ones.cache_clear()
    with temporary_folder() as folder:
        assert not left.exists()
        assert folder.is_dir()


def test_a_folder_that_cannot_be_marked_is_removed_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(Path, "write_text", mock.Mock(side_effect=full))
    n_open = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="No space"):
        make_temporary_folder()
    assert list(place.iterdir()) == []
    assert len(os.listdir("/dev/fd")) == n_open


def left_in(place: Path, machine: str) -> Path:
    """A folder whose process has ended."""
    folder = place / "ecgfounder-left"
    (folder / "inner").mkdir(parents=True)
    for name in ("copy", "inner/copy", "z"):
        (folder / name).touch()
    (folder / "link").symlink_to(place)
    (folder / temporary._MARK).write_text(machine)
    return folder


def test_a_removal_that_is_interrupted_is_done_by_the_next(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = left_in(place, platform.node())
    removed: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(temporary, "_remove_path", lambda path: removed.append(path.name))
        patch.setattr(temporary.shutil, "rmtree", mock.Mock(side_effect=OSError("killed")))
        make_temporary_folder()
    assert sorted(removed) == ["copy", "inner", "link", "z"]  # and the mark last
    temporary._remove_left_ones.cache_clear()
    make_temporary_folder()
    assert not left.exists()


def test_a_folder_of_another_machine_is_left_to_it(place: Path) -> None:
    left = left_in(place, "another.example")
    with temporary_folder():
        assert (left / "inner" / "copy").exists()


def test_folders_of_this_process_and_of_its_children_are_kept() -> None:
    mine, remove = make_temporary_folder()
    temporary._remove_left_ones.cache_clear()
    with temporary_folder():
        assert mine.is_dir()
    remove()
    assert not mine.exists()


def test_a_folder_of_an_ended_process_whose_child_goes_on_is_kept() -> None:
    # The child has the lock of the process that forked it.
    code = MAKE + "import os, sys, time; os.fork() and os._exit(0); os.read(0, 1)"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    folder = Path(os.fsdecode(child.stdout.readline()).strip())
    child.wait()
    with temporary_folder():
        assert folder.is_dir()
    child.stdin.close()
    child.stdout.read()  # until the grandchild has ended too
    child.stdout.close()
    temporary._remove_left_ones.cache_clear()
    with temporary_folder():
        assert not folder.exists()


def test_what_others_have_put_there_is_not_touched(place: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / temporary._MARK).touch()
    (place / "ecgfounder-link").symlink_to(elsewhere)
    (place / "ecgfounder-file").touch()
    (place / "ecgfounder-being-made").mkdir()
    (place / "ecgfounder-of-another-program").mkdir()
    (place / "ecgfounder-of-another-program" / "file").touch()
    os.mkfifo(place / "ecgfounder-fifo")
    before = sorted(place.rglob("*"))
    with temporary_folder() as folder:
        assert sorted(path for path in place.rglob("*") if not path.is_relative_to(folder)) == before
    assert (elsewhere / temporary._MARK).exists()


def test_another_users_folder_is_left_to_that_user(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "ecgfounder-theirs").mkdir()
    (place / "ecgfounder-theirs" / temporary._MARK).touch()
    user = os.geteuid()
    monkeypatch.setattr(temporary.os, "geteuid", lambda: user + 1)
    with temporary_folder():
        assert (place / "ecgfounder-theirs").is_dir()


def test_without_locks_folders_are_made_and_none_is_taken_for_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    left, remove = make_temporary_folder()
    temporary._remove_left_ones.cache_clear()
    with temporary_folder() as folder:
        assert left.is_dir()
        assert folder.is_dir()
    remove()
    assert list(place.iterdir()) == []
