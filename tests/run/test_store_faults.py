"""Runs to a store: after any kill, the same command again ends in exactly the result of an undisturbed run."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ecgfounder.ledger.conclusion import merge
from ecgfounder.run.settings import Settings
from ecgfounder.storage import Location
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness import faults as faults_of_disks
from tests.harness.elsewhere import Elsewhere, Fault
from tests.harness.faults import BROKEN, COMPLETE, with_shard
from tests.harness.outputs import json_outputs
from tests.harness.store_faults import HERE, QUICK, Machine, check_sealed, result, run_to_the_end, start, wait

pytestmark = pytest.mark.services

FORMATS = ("json", "parquet")
DONE, FAILED = 19, 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store_faults") / "cohort"
    write_cohort(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine of these tests has no weights; the file is only hashed."""
    path = tmp_path_factory.mktemp("store_faults") / "weights.pth"
    path.write_bytes(b"weights")
    return path


def settings_in(folder: Path, cohort: Path, checkpoint: Path, form: str, **more: Any) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    out = Location(Elsewhere(str(folder)), "runs/out")
    return settings_for(cohort, out, checkpoint, format=form, **more)


@pytest.fixture(scope="module")
def undisturbed(
    cohort: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Any, list[str]]]:
    """For each format the result of a run that nothing happens to, and its changes of the store."""
    found = {}
    for form in FORMATS:
        folder = tmp_path_factory.mktemp("undisturbed")
        settings = settings_in(folder / "store", cohort, checkpoint, form)
        assert wait(start(settings, told=folder / "told")) == COMPLETE
        check_sealed(settings.output_dir, DONE, FAILED)
        found[form] = (result(settings), (folder / "told").read_text().splitlines())
    return found


def test_a_run_to_a_store_writes_the_bytes_of_a_run_to_a_folder(
    cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_for(cohort, tmp_path / "out", checkpoint, format="json")
    assert faults_of_disks.start(settings, None, tmp_path / "count")[0] == [COMPLETE]
    assert undisturbed["json"][0] == json_outputs(tmp_path / "out")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_killed_at_any_change_of_the_store_nothing_is_lost_and_nothing_left(
    every: int, form: str, after: bool, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    expected, changes = undisturbed[form]
    for at in range(1 + after, len(changes) + 1, every):
        settings = settings_in(tmp_path / str(at), cohort, checkpoint, form)
        run_to_the_end(settings, iter([Fault(at, after=after)]), machines=itertools.repeat(HERE))
        assert result(settings) == expected, changes[at - 1]
        check_sealed(settings.output_dir, DONE, FAILED)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 25))])
def test_killed_again_and_again_on_two_machines(
    seed: int, form: str, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    expected, changes = undisturbed[form]
    chance = random.Random(seed)
    faults = (Fault(chance.randint(1, len(changes)), after=chance.random() < 0.5) for _ in range(5))
    machines = itertools.cycle([Machine("one"), Machine("two")])
    settings = settings_in(tmp_path / "store", cohort, checkpoint, form)
    run_to_the_end(settings, faults, machines=machines)
    assert result(settings) == expected
    check_sealed(settings.output_dir, DONE, FAILED)


# --- what the store says is not what it did --------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_a_reply_that_is_dropped_after_the_work_was_done_loses_nothing(
    every: int, form: str, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    expected, changes = undisturbed[form]
    for at in range(1, len(changes) + 1, every):
        settings = settings_in(tmp_path / str(at), cohort, checkpoint, form)
        fault = Fault(at, after=True, signal=None)
        run_to_the_end(settings, iter([fault]), machines=itertools.repeat(HERE))
        assert result(settings) == expected, changes[at - 1]
        check_sealed(settings.output_dir, DONE, FAILED)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", ["leases/whole/lease.000000000001", "000001.json", "-group000001", "seal.json"])
def test_a_winner_that_believes_that_it_lost_goes_on(
    what: str, form: str, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_in(tmp_path / "store", cohort, checkpoint, form)
    fault = Fault(name=what, after=True, signal=None)
    assert run_to_the_end(settings, iter([fault]), machines=itertools.repeat(HERE)) == 1
    assert result(settings) == undisturbed[form][0]
    check_sealed(settings.output_dir, DONE, FAILED)


# --- zombies -----------------------------------------------------------------------------------------------------------


def wait_until_stopped(child: int) -> None:
    assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", ["epochs/", "group000001", "output", "seal.json", "manifest.pq"])
def test_a_late_zombie_changes_nothing(
    what: str, form: str, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """A start stands still before a change, another one takes over and completes the run; then the first goes on."""
    expected = undisturbed[form][0]
    wanted = {"json": "ecg_08.json", "parquet": "-000001-"}[form] if what == "output" else what
    settings = settings_in(tmp_path / "store", cohort, checkpoint, form)
    zombie = start(settings, Fault(name=wanted, signal=signal.SIGSTOP))
    wait_until_stopped(zombie)
    began = time.monotonic()
    assert wait(start(settings)) == COMPLETE
    assert time.monotonic() - began >= QUICK.stale  # the process is there, so that only its silence tells
    check_sealed(settings.output_dir, DONE, FAILED)
    os.kill(zombie, signal.SIGCONT)
    assert wait(zombie) == BROKEN
    if form == "json":
        assert result(settings) == expected
    assert wait(start(settings)) == COMPLETE
    assert result(settings) == expected
    check_sealed(settings.output_dir, DONE, FAILED)


# --- shards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 8))])
def test_shards_that_die_are_started_again_and_merged(
    seed: int, form: str, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    expected, changes = undisturbed[form]
    settings = settings_in(tmp_path / "store", cohort, checkpoint, form)
    chance = random.Random(seed)
    for part in (1, 2, 3):
        faults = (Fault(chance.randint(1, len(changes)), after=chance.random() < 0.5) for _ in range(3))
        run_to_the_end(with_shard(settings, part, 3), faults, machines=itertools.repeat(HERE))
    assert isinstance(settings.output_dir, Location)
    tally = merge(settings.output_dir)
    assert (tally.done, tally.failed, tally.pending) == (DONE, FAILED, 0)
    assert result(settings) == expected


def test_shards_at_once_do_their_own_records(
    cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_in(tmp_path / "store", cohort, checkpoint, "parquet")
    children = [start(with_shard(settings, part, 3)) for part in (1, 2, 3)]
    assert [wait(child) for child in children] == [COMPLETE] * 3
    tally = merge(settings.output_dir)
    assert (tally.done, tally.failed, tally.pending) == (DONE, FAILED, 0)
    assert result(settings) == undisturbed["parquet"][0]


def test_two_starts_at_once_one_wins_and_nothing_is_done_twice(
    cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    settings = settings_in(tmp_path / "store", cohort, checkpoint, "parquet")
    children = [start(settings, told=tmp_path / str(number)) for number in range(3)]
    statuses = sorted(wait(child) for child in children)
    assert statuses[0] == COMPLETE
    assert set(statuses) <= {COMPLETE, BROKEN}  # one that comes when the run is complete has nothing to do
    assert result(settings) == undisturbed["parquet"][0]
    check_sealed(settings.output_dir, DONE, FAILED)
