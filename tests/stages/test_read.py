"""What cannot be read or prepared is one failure of a known kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgfounder.errors import PrepareError, ReadError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.stages import read as read_stage
from ecgfounder.stages.read import Failed, Job, ReadTask
from tests.builders.cohorts import HINTS, write_good_and_bad
from tests.builders.wfdb import random_frames, write_record

TASK = ReadTask(Preparation(), hints=HINTS)


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    return write_good_and_bad(tmp_path)


def test_a_file_that_needs_too_much_memory_fails_alone(recordings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(read_stage, "prepare", exhaust)
    (event,) = TASK.events(Job(5, recordings[0]))
    assert isinstance(event, Failed)
    assert (event.job.place, event.kind) == (5, PrepareError.__name__)
    assert "memory" in event.reason


def test_the_reasons_of_failures_name_a_known_kind(recordings: list[str]) -> None:
    (event,) = TASK.events(Job(0, recordings[1]))
    assert isinstance(event, Failed)
    assert event.kind == ReadError.__name__


def test_a_failure_names_the_files_that_are_absent_and_no_others(recordings: list[str], tmp_path: Path) -> None:
    write_record(tmp_path, random_frames())
    (tmp_path / "r.dat").unlink()
    (tmp_path / "folder.npy").mkdir()
    absent = {"gone.npy": ("",), "gone": ("",), "gone.h5::1": ("",), "folder.npy": ("",), "nul\0.npy": ("",)}
    absent |= {"r": ("*.dat",), "r.hea": ("*.dat",), "r.dat": ("",), "empty.xml": ()}
    for name, expected in absent.items():
        (event,) = TASK.events(Job(0, str(tmp_path / name)))
        assert isinstance(event, Failed)
        assert event.absent == expected, name
