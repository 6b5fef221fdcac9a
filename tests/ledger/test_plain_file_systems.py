"""File systems that offer less: no fsync of folders (CIFS, FUSE), no hard links, no maps; a run needs none of them."""

from __future__ import annotations

import errno
import logging
import mmap
import multiprocessing
import os
import stat
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from ecgfounder.ledger.conclusion import merge
from ecgfounder.run import run as run_module
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Conflict, locate
from ecgfounder.storage import replace as replace_module
from ecgfounder.storage.local import LocalStore
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.faults import with_shard
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine, Silent

NO_LINKS = [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK]


@pytest.fixture(autouse=True)
def _nothing_told_yet() -> Iterator[None]:
    replace_module._tell_unsynced.cache_clear()
    yield
    replace_module._tell_unsynced.cache_clear()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_cohort(tmp_path / "in")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return settings_for(tmp_path / "in", tmp_path / "out", tmp_path / "weights.pth")


def start(settings: Settings) -> Any:
    with mock.patch.object(run_module, "create_engine", return_value=NullEngine(1)):
        return Run(settings, Silent()).execute()


def without_sync(monkeypatch: pytest.MonkeyPatch, number: int, *, files_too: bool) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if files_too or stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def refuse_links(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("files_too", [False, True])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_where_folders_cannot_be_synced_a_run_goes_on_and_says_so_once(
    number: int,
    files_too: bool,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    without_sync(monkeypatch, number, files_too=files_too)
    with caplog.at_level(logging.WARNING):
        assert start(settings).outcome == "complete"
    assert len(json_outputs(settings.output_dir)) == 19
    assert len([line for line in caplog.messages if "cannot confirm that data is on disk" in line]) == 1


def test_a_disk_error_while_a_folder_is_synced_stays_one(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    start(settings)
    (settings.output_dir / "ecg_00.json").unlink()
    real = os.replace

    def replaced(source: Any, target: Any) -> None:
        real(source, target)
        if str(target).endswith("ecg_00.json"):
            without_sync(monkeypatch, errno.EIO, files_too=False)

    monkeypatch.setattr(os, "replace", replaced)
    with pytest.raises(OSError, match="Input/output error"):
        start(settings)


@pytest.mark.parametrize("number", NO_LINKS)
def test_where_there_are_no_links_shards_make_a_run_as_ever(
    number: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_links(monkeypatch, number)
    for part in (1, 2, 3):
        start(with_shard(settings, part, 3))
    assert merge(settings.output_dir).done == 19


@pytest.mark.parametrize("number", NO_LINKS)
def test_without_links_an_object_is_made_once_and_whole(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_links(monkeypatch, number)
    store = LocalStore(str(tmp_path))
    store.create("a/b", b"first")
    with pytest.raises(Conflict):
        store.create("a/b", b"second")
    assert store.read("a/b") == b"first"
    assert list(store.names()) == ["a/b"]


def test_a_claim_that_a_killed_process_left_does_not_stay_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_links(monkeypatch, errno.EPERM)
    monkeypatch.setattr("ecgfounder.storage.replace._CLAIM_SECONDS", 0.1)
    (tmp_path / ".a.claim").touch()
    locate(tmp_path / "a").create(b"here")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def _create(pipe: Connection, barrier: Any, folder: Path, mine: bytes) -> None:
    for number in range(100):
        barrier.wait()
        try:
            LocalStore(str(folder)).create(str(number), mine)
        except Conflict:
            continue
        pipe.send(number)
    pipe.send(None)


def test_without_links_one_of_several_that_make_an_object_at_once_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_links(monkeypatch, errno.EPERM)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    ends = [context.Pipe() for _ in range(3)]
    processes = [
        context.Process(target=_create, args=(theirs, barrier, tmp_path, bytes([number])), daemon=True)
        for number, (_, theirs) in enumerate(ends)
    ]
    for process in processes:
        process.start()
    made: dict[int, list[int]] = {}
    for number, (ours, _) in enumerate(ends):
        while (place := ours.recv()) is not None:
            made.setdefault(place, []).append(number)
    for process in processes:
        process.join()
    assert sorted(made) == list(range(100))
    for place, makers in made.items():
        assert len(makers) == 1
        assert (tmp_path / str(place)).read_bytes() == bytes(makers)


def test_a_ledger_that_cannot_be_mapped_is_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    start(settings)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert merge(settings.output_dir).done == 19
