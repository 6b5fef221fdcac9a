"""Runs whose groups are done elsewhere give what a local run gives, and each goes on where another was interrupted."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.distributed import Group, Outcome, Work, do_group
from ecgfounder.distributed import worker as workers
from ecgfounder.drivers.actors import ActorSettings
from ecgfounder.drivers.interruption import Interruption
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.ledger.conclusion import merge
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.status import run_status
from ecgfounder.results.run import open_run
from ecgfounder.run import run as extract
from ecgfounder.run.choice import make_run
from ecgfounder.run.grouped import CalledRun
from ecgfounder.run.settings import Carrier, shard_and_group
from ecgfounder.run.summary import Summary
from ecgfounder.storage import Location
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.cohorts import Lines
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine
from tests.harness.store_faults import check_sealed, rows_of_shards
from tests.harness.thinned import thinned

FORMS = ("json", "parquet")
DONE, FAILED = 19, 2
COUNT = DONE + FAILED


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with (
        mock.patch.object(workers, "create_engine", side_effect=lambda *_, **__: NullEngine(1)),
        mock.patch.object(extract, "create_engine", side_effect=lambda *_, **__: NullEngine(1)),
    ):
        yield
    if workers._worker is not None:
        workers._worker[1].close()
        workers._worker = None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_cohort(folder / "cohort")
    (folder / "weights.pth").write_bytes(b"weights")
    return folder


def here(work: Work, groups: Iterator[Group]) -> Iterable[Outcome]:
    """A driver that does all groups in this process."""
    return (do_group(work, group) for group in groups)


def first(count: int) -> Carrier:
    """A driver that is interrupted after so many groups."""

    def carry(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        for _, group in zip(range(count), groups, strict=False):
            yield do_group(work, group)
        raise Stop

    return carry


class Stop(Exception):
    """The driver ends in the middle."""


Start = Callable[..., Summary]


@pytest.fixture
def console() -> Lines:
    return Lines()


@pytest.fixture
def start(made: Path, console: Lines) -> Start:
    def start(out: Any, form: str = "json", carrier: Carrier | None = here, **more: Any) -> Summary:
        given = {"driver": "local"} if carrier is None else {"driver": "called", "carrier": carrier, "group_size": 4}
        settings = settings_for(made / "cohort", out, made / "weights.pth", format=form, **(given | more))
        return make_run(settings, console).execute()

    return start


def result(out: Path, form: str) -> Any:
    if form == "json":
        return json_outputs(out)
    tables = [pq.read_table(shard) for shard in sorted(out.glob("*.parquet"))]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["key"])


def check_complete(out: Path, summary: Summary, expected: Any, form: str) -> None:
    """All records are there once, as one local run gives them, and nothing else."""
    assert summary.outcome == "complete"
    assert summary.tally is not None
    assert (summary.tally.done, summary.tally.failed, summary.tally.pending) == (DONE, FAILED, 0)
    assert result(out, form) == expected
    manifest = pq.read_table(out / "_run" / "manifest.pq")
    assert sorted(manifest["status"].to_pylist()) == ["done"] * DONE + ["failed"] * FAILED
    named = {output.partition("::")[0] for output in manifest["output"].to_pylist() if output}
    assert {path.name for path in out.iterdir()} - {"_run", ".huggingface.yaml"} == named
    assert list((out / "_run" / "scratch").iterdir()) == []


@pytest.fixture
def expected(start: Start, made: Path) -> Callable[[str], Any]:
    """What a local run gives, which is made once for each form."""

    def expected(form: str) -> Any:
        out = made / "local" / form
        if not out.exists():
            start(out, form, None)
        return result(out, form)

    return expected


@pytest.mark.parametrize("form", FORMS)
def test_groups_give_what_one_process_gives(
    form: str, start: Start, expected: Callable[[str], Any], made: Path, tmp_path: Path
) -> None:
    summary = start(tmp_path / "out", form)
    check_complete(tmp_path / "out", summary, expected(form), form)
    folders = (made / "local" / form, tmp_path / "out")
    before, after = (orjson.loads((out / "_run/run.json").read_bytes()) for out in folders)
    assert before["fingerprint"] == after["fingerprint"]
    assert after["engine"] == before["engine"]
    assert after["engine"]["name"] == "null"
    again = start(tmp_path / "out", form)
    assert (again.processed, again.plan.done, again.plan.failed) == (0, DONE, FAILED)
    assert orjson.loads((tmp_path / "out/_run/run.json").read_bytes())["engine"] == before["engine"]


@pytest.mark.parametrize("form", FORMS)
def test_groups_in_a_store(form: str, start: Start, elsewhere: Location, expected: Callable[[str], Any]) -> None:
    assert start(elsewhere, form).outcome == "complete"
    check_sealed(elsewhere, DONE, FAILED)
    if form == "parquet":
        assert rows_of_shards(elsewhere) == expected(form)


def cut_locally(start: Start, out: Path, form: str) -> None:
    """A local attempt that ends in the middle."""
    real, seen = NullEngine.embed, []

    def embed(self: NullEngine, batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        if sum(seen) > 6:
            raise Stop
        return real(self, batch)

    with mock.patch.object(NullEngine, "embed", embed), pytest.raises(Stop):
        start(out, form, None)


def cut_in_groups(start: Start, out: Path, form: str) -> None:
    with pytest.raises(Stop):
        start(out, form, first(1))


CUTS = {"local": cut_locally, "groups": cut_in_groups}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("finisher", ["local", "groups", "array"])
@pytest.mark.parametrize(
    "beginners", thinned([["local", "groups", "local"], ["groups", "local"], ["local"], ["groups"]], 2)
)
def test_a_run_goes_on_with_another_driver(
    beginners: list[str], finisher: str, form: str, start: Start, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for beginner in beginners:
        CUTS[beginner](start, out, form)
    if finisher == "array":
        summaries = [start(out, form, None, shard=(number, 3)) for number in (1, 2, 3)]
        processed = sum(summary.processed for summary in summaries)
        tally = merge(out)
        summary = start(out, form, None)
        assert (tally.done, tally.pending, summary.processed) == (DONE, 0, 0)
    else:
        summary = start(out, form, here if finisher == "groups" else None)
        processed = summary.processed
    assert 0 < processed <= COUNT - 4 * beginners.count("groups")
    check_complete(out, summary, expected(form), form)
    assert open_run(out).failures.num_rows == FAILED


@pytest.mark.parametrize("form", FORMS)
def test_shards_may_be_done_by_different_drivers_at_the_same_time(
    form: str, start: Start, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cut_in_groups(start, out, form)
    start(out, form, here, shard=(1, 2))
    start(out, form, None, shard=(2, 2))
    assert merge(out).pending == 0
    check_complete(out, start(out, form, here), expected(form), form)


@pytest.mark.parametrize("carrier", [here, None], ids=["groups", "local"])
def test_overwriting_begins_again_and_leaves_nothing(
    carrier: Carrier | None, start: Start, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    cut_in_groups(start, out, "parquet")
    summary = start(out, "parquet", carrier, overwrite=True)
    assert summary.processed == COUNT
    check_complete(out, summary, expected("parquet"), "parquet")


def test_a_part_that_appears_after_a_local_attempt_has_begun_counts_for_nothing(
    start: Start, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    out, late = tmp_path / "out", []

    def carry(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        late.append((work, next(groups)))
        raise Stop
        yield

    with pytest.raises(Stop):
        start(out, "parquet", carry)
    summary = start(out, "parquet", None)
    work, group = late[0]
    with mock.patch.object(workers.LeaseSight, "check"):
        assert do_group(work, group).published  # a worker that did not notice that its driver is gone
    again = start(out, "parquet", None)
    assert again.processed == 0
    check_complete(out, again, expected("parquet"), "parquet")
    assert summary.processed == COUNT


def test_the_status_is_that_of_the_newest_attempt(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cut_in_groups(start, out, "json")
    (worker,) = run_status(RunFolder(out)).shards[0].workers
    assert (worker.state, worker.done + worker.failed) == ("interrupted", 4)
    start(out, "json", None)
    (worker,) = run_status(RunFolder(out)).shards[0].workers
    assert (worker.state, worker.processes, worker.done + worker.failed) == ("complete", 1, COUNT - 4)


def test_a_local_run_keeps_its_ledger_and_needs_no_epochs(start: Start, tmp_path: Path) -> None:
    start(tmp_path / "out", "json", None)
    assert sorted(path.name for path in (tmp_path / "out/_run").iterdir() if path.is_dir()) == [
        "ledger",
        "locks",
        "scratch",
    ]


# --- what the driver does with outcomes --------------------------------------------------------------------------------


def test_outcomes_that_never_come_are_looked_up_or_done_again(
    start: Start, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    """Of the groups that bring nothing, some were published, some not."""
    calls: list[int] = []

    def carry(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        for number, group in enumerate(groups):
            calls.append(group.number)
            if number % 3 == 0:
                yield do_group(work, group)
            elif number % 3 == 1:
                do_group(work, group)

    summary = start(tmp_path / "out", "parquet", carry)
    check_complete(tmp_path / "out", summary, expected("parquet"), "parquet")
    assert calls == sorted(set(calls))
    assert len(calls) > 6


def test_a_group_done_twice_counts_once(start: Start, expected: Callable[[str], Any], tmp_path: Path) -> None:
    def carry(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        for group in groups:
            outcomes = [do_group(work, group) for _ in range(2)]
            assert [outcome.lost for outcome in outcomes] == [False, True]
            yield from outcomes

    summary = start(tmp_path / "out", "parquet", carry)
    assert summary.processed == COUNT
    check_complete(tmp_path / "out", summary, expected("parquet"), "parquet")


def test_a_driver_that_brings_nothing_ends_the_run(start: Start, tmp_path: Path) -> None:
    summary = start(tmp_path / "out", "json", lambda _work, _groups: [])
    assert (summary.outcome, summary.trouble) == ("interrupted", "the driver's function brought no results")


def test_a_signal_ends_the_run_and_the_next_attempt_goes_on(
    made: Path, console: Lines, start: Start, expected: Callable[[str], Any], tmp_path: Path
) -> None:
    interruption = Interruption()

    def carry(work: Work, groups: Iterator[Group]) -> Iterator[Outcome]:
        for group in groups:
            yield do_group(work, group)
            interruption.request(signal.SIGTERM)

    settings = settings_for(
        made / "cohort", tmp_path / "out", made / "weights.pth", driver="called", carrier=carry, group_size=4
    )
    summary = make_run(settings, console, interruption).execute()
    assert (summary.signal, summary.processed, summary.outcome) == (signal.SIGTERM, 4, "interrupted")
    again = start(tmp_path / "out")
    assert again.processed == COUNT - 4
    check_complete(tmp_path / "out", again, expected("json"), "json")


def test_an_output_that_became_obsolete_is_removed(start: Start, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "cohort", tmp_path / "cohort")
    out = tmp_path / "out"
    settings = settings_for(tmp_path / "cohort", out, made / "weights.pth", driver="called", carrier=here, group_size=4)
    make_run(settings, Lines()).execute()
    assert (out / "ecg_05.json").exists()
    (tmp_path / "cohort" / "ecg_05.npy").write_bytes(b"no recording any more")
    again = make_run(settings, Lines()).execute()
    assert again.tally is not None
    assert (again.tally.done, again.tally.failed) == (DONE - 1, FAILED + 1)
    assert not (out / "ecg_05.json").exists()


# --- refused -----------------------------------------------------------------------------------------------------------


def test_a_launcher_is_refused(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="starts its own workers"):
        start(tmp_path / "out")


def test_a_group_is_a_shard(made: Path, tmp_path: Path) -> None:
    assert shard_and_group(None, None, "parquet") == (1000, None)
    assert shard_and_group(None, 300, "parquet") == (300, 300)
    assert shard_and_group(200, None, "parquet") == (200, None)
    assert shard_and_group(200, 300, "json") == (200, 300)
    with pytest.raises(SettingsError, match="shard_size=200 and group_size=300 contradict each other"):
        shard_and_group(200, 300, "parquet")
    settings = settings_for(made / "cohort", tmp_path / "out", made / "weights.pth", driver="ray", format="parquet")
    assert settings.records_per_group == settings.shard_size == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"driver": "local", "group_size": 5}, "'group_size' parameter needs driver='ray'"),
        ({"driver": "local", "actors": ActorSettings("auto")}, "need driver='ray'"),
        ({"driver": "spark"}, "Allowed values are 'local', 'ray'"),
        ({"driver": "ray", "group_size": 0}, "at least 1, got 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    given: dict[str, Any], message: str, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        settings_for(made / "cohort", tmp_path / "out", made / "weights.pth", **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"address": "ray://head:10001"}, "address of the Ray Client"),
        ({"address": "head"}, "It must be 'auto', 'local' or HOST:PORT, got 'head'"),
        ({"address": "http://head:1"}, "HOST:PORT"),
        ({"gpus": -1.0}, "at least 0"),
        ({"gpus": float("nan")}, "at least 0"),
        ({"cpus": 0}, "at least 1"),
        ({"least": 0}, "MIN:MAX"),
        ({"least": 3, "most": 2}, "got 3:2"),
    ],
)
def test_settings_of_workers_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        ActorSettings(**given)


def test_without_work_no_worker_is_wanted(start: Start, tmp_path: Path) -> None:
    start(tmp_path / "out")
    with mock.patch.object(CalledRun, "_open_workers", side_effect=AssertionError):
        assert start(tmp_path / "out").processed == 0
