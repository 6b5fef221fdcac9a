"""After any kill and any disk error, the same command again ends in exactly the result of an undisturbed run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from ecgfounder.ledger.conclusion import merge
from ecgfounder.run.settings import Settings
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.faults import DISK_ERRORS, Fault, run_to_the_end, start, with_shard
from tests.harness.outputs import json_outputs, parquet_rows
from tests.harness.thinned import thinned

FORMATS = ("json", "parquet")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "cohort"
    write_cohort(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engine of these tests has no weights; the file is only hashed."""
    path = tmp_path_factory.mktemp("faults") / "weights.pth"
    path.write_bytes(b"weights")
    return path


def result(settings: Settings) -> Any:
    return json_outputs(settings.output_dir) if settings.format == "json" else parquet_rows(settings.output_dir)


@pytest.fixture(scope="module")
def undisturbed(cohort: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """For each format the result of a run that nothing happens to, and how many operations it took."""
    found: dict[str, Any] = {}
    for name in FORMATS:
        folder = tmp_path_factory.mktemp("undisturbed")
        settings = settings_for(cohort, folder / "out", checkpoint, format=name)
        statuses, count = start(settings, None, folder / "count")
        assert statuses == [0]
        found[name] = (result(settings), count)
    assert len(found["json"][0]) == len(found["parquet"][0]) == 19
    return found


def check_whole(settings: Settings, expected: Any) -> None:
    assert result(settings) == expected
    books = settings.output_dir / "_run"
    assert orjson.loads((books / "run.json").read_bytes())["outcome"] == "complete"
    statuses = pq.read_table(books / "manifest.pq").column("status").to_pylist()
    assert sorted(statuses) == ["done"] * 19 + ["failed"] * 2
    assert list((books / "scratch").iterdir()) == []


def kills(seed: int, operations: int) -> Iterator[Fault]:
    """Kills at random points, each time within what an undisturbed run does."""
    chance = random.Random(seed)
    for _ in range(6):
        yield Fault(chance.randint(1, operations))


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", thinned(range(53), 1))
def test_killed_and_resumed_until_it_ends_gives_the_undisturbed_result(
    seed: int, form: str, processes: int, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    expected, operations = undisturbed[form]
    settings = settings_for(cohort, tmp_path / "out", checkpoint, format=form)
    run_to_the_end(settings, kills(seed, operations), tmp_path / "count", processes=processes)
    check_whole(settings, expected)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", thinned([None, *DISK_ERRORS], 1))
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 11])
def test_fault_at_any_operation_loses_nothing(
    every: int, kind: int | None, form: str, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    expected, operations = undisturbed[form]
    for at in range(every // 2 + 1, operations + 1, every):
        folder = tmp_path / str(at)
        folder.mkdir()
        settings = settings_for(cohort, folder / "out", checkpoint, format=form)
        run_to_the_end(settings, iter([Fault(at, kind)]), folder / "count")
        check_whole(settings, expected)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, 6))])
def test_shards_that_die_are_started_again_and_merged(
    seed: int, form: str, cohort: Path, checkpoint: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    expected, operations = undisturbed[form]
    settings = settings_for(cohort, tmp_path / "out", checkpoint, format=form)
    for part in (1, 2, 3):
        run_to_the_end(with_shard(settings, part, 3), kills(seed * 10 + part, operations // 2), tmp_path / "count")
    merge(settings.output_dir)
    check_whole(settings, expected)
