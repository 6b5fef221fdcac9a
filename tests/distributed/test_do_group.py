"""One group of records, wherever it is done: outputs and a part of the ledger, published once; and what a worker refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from ecgfounder.distributed import Group, Outcome, Work, Worker, do_group
from ecgfounder.distributed import worker as workers
from ecgfounder.distributed.checkpoint import CheckpointAbsent, checkpoint_here, pieces_of
from ecgfounder.distributed.work import NetworkChoice
from ecgfounder.errors import CheckpointError, OutOfMemoryError, RunError
from ecgfounder.ledger.entry import PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.epochs import take_epoch
from ecgfounder.ledger.groups.lease import Intervals, Lease
from ecgfounder.ledger.groups.names import WHOLE
from ecgfounder.ledger.groups.publish import Superseded
from ecgfounder.ledger.groups.writer import close_group
from ecgfounder.ledger.ledger import read_ledger
from ecgfounder.ledger.liveness import own_name
from ecgfounder.network.checkpoint import sha256_of
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.stages.read import Job, ReadTask
from ecgfounder.storage import Location, Unavailable, locate
from tests.builders.cohorts import HINTS, write_cohort
from tests.harness.stand_ins import NullEngine

FORMS = ("json", "parquet")
PLACES = ("folder", "store")
COUNT, BAD = 9, 2


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with mock.patch.object(workers, "create_engine", side_effect=lambda *_, **__: NullEngine(1)):
        yield


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    write_cohort(tmp_path / "cohort", COUNT)
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return tmp_path / "cohort"


Make = Callable[..., Work]


@pytest.fixture
def make(cohort: Path, tmp_path: Path, elsewhere: Location) -> Make:
    def make(place: str = "folder", form: str = "json", **more: Any) -> Work:
        out = elsewhere if place == "store" else locate(tmp_path / "out")
        folder = RunFolder(out)
        if place == "folder":
            folder.scratch.mkdir(parents=True, exist_ok=True)
        weights = tmp_path / "weights.pth"
        network = NetworkChoice(
            mode="12lead", checkpoint=str(weights), can_download=False, path=str(weights), sha256=sha256_of(weights)
        )
        given: dict[str, Any] = {"num_workers": 0, "format": form, "cores": 1}
        return Work(
            output_dir=out,
            data_dir=str(cohort),
            epoch=take_epoch(folder.run, WHOLE),
            task=ReadTask(Preparation(), hints=HINTS),
            network=network,
            **(given | more),
        )

    return make


@pytest.fixture
def jobs(cohort: Path) -> tuple[Job, ...]:
    paths = sorted(cohort.iterdir())
    return tuple(
        Job(place, str(path), 1 + place, path.name, path.name, f"{path.stem}.json") for place, path in enumerate(paths)
    )


@pytest.fixture
def open_worker() -> Iterator[Callable[[Work], Worker]]:
    opened: list[Worker] = []

    def open_(work: Work) -> Worker:
        opened.append(Worker(work))
        return opened[-1]

    yield open_
    for each in opened:
        each.close()


Open = Callable[[Work], Worker]


def outputs_of(work: Work) -> set[str]:
    names = work.output_dir.names(skip="_run".__eq__)
    return {name for name in names if name.endswith((".json", ".parquet"))}


def entries_of(work: Work) -> dict[int, str]:
    state = read_ledger(RunFolder(work.output_dir).ledger)
    return {entry.number: entry.status for entry in state.entries(range(len(state)))}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_a_group_is_embedded_and_published(
    form: str, place: str, make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make(place, form)
    outcome = open_worker(work).submit(Group(1, jobs)).result(60)
    assert (outcome.published, outcome.done, outcome.failed, outcome.left) == (True, COUNT - BAD, BAD, ())
    assert outcome.good == 0
    assert sum(outcome.reasons.values()) == BAD
    assert set(outcome.seconds) >= {"read", "embed", "write"}
    found = entries_of(work)
    assert sorted(found) == [job.key for job in jobs]
    assert [key for key, status in found.items() if status == "failed"] == [4, 8]
    assert len(outputs_of(work)) == (COUNT - BAD if form == "json" else 1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_of_two_attempts_at_a_group_one_counts_and_the_other_removes_its_shard(
    form: str, place: str, make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make(place, form)
    results = [open_worker(work).submit(Group(1, jobs)) for _ in range(2)]
    outcomes = [result.result(60) for result in results]
    assert sorted(outcome.lost for outcome in outcomes) == [False, True]
    assert sorted(outcome.done for outcome in outcomes) == [0, COUNT - BAD]
    assert len(list(RunFolder(work.output_dir).ledger.names())) == 1
    assert len(outputs_of(work)) == (COUNT - BAD if form == "json" else 1)


@pytest.mark.parametrize("form", FORMS)
def test_a_group_that_the_driver_has_closed_is_lost(
    form: str, make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make("store", form)
    assert close_group(RunFolder(work.output_dir).ledger, work.epoch, 1, PartHeader(**own_name()))
    outcome = open_worker(work).submit(Group(1, jobs)).result(60)
    assert (outcome.lost, outcome.done) == (True, 0)
    assert entries_of(work) == {}
    if form == "parquet":
        assert outputs_of(work) == set()


def test_groups_follow_each_other_and_each_has_its_own_records(
    make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make("folder", "parquet", num_workers=1)
    worker = open_worker(work)
    results = [worker.submit(Group(number, jobs[number - 1 :: 3])) for number in (1, 2, 3)]
    outcomes = [result.result(60) for result in results]
    assert [outcome.done + outcome.failed for outcome in outcomes] == [3, 3, 3]
    assert [outcome.left for outcome in outcomes] == [()] * 3
    assert len(outputs_of(work)) == 3


def test_the_next_group_is_read_while_the_last_one_is_written(
    make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make("store", "parquet")
    read, written = threading.Event(), []
    real = workers.sink_of

    def sink_of(work: Work, number: int) -> Any:
        sink = real(work, number)
        if number == 1:
            close = sink.close
            sink.close = lambda: (written.append(read.wait(20)), close())[1]
        else:
            read.set()
        return sink

    with mock.patch.object(workers, "sink_of", sink_of):
        worker = open_worker(work)
        results = [worker.submit(Group(1, jobs[:4])), worker.submit(Group(2, jobs[4:]))]
        assert all(result.result(60).published for result in results)
    assert written == [True]


def test_a_group_whose_time_is_over_leaves_the_rest(make: Make, jobs: tuple[Job, ...], open_worker: Open) -> None:
    work = make(seconds=-1.0)
    outcome = open_worker(work).submit(Group(1, jobs)).result(60)
    assert (outcome.done, outcome.published, outcome.left) == (0, False, tuple(range(COUNT)))
    assert outcome.trouble is None


def test_a_worker_that_is_stopped_leaves_the_rest(make: Make, jobs: tuple[Job, ...], open_worker: Open) -> None:
    worker = open_worker(make())
    worker.stop()
    assert worker.submit(Group(1, jobs)).result(60).left == tuple(range(COUNT))


def test_a_trial_writes_nothing(make: Make, jobs: tuple[Job, ...], open_worker: Open) -> None:
    work = make()
    worker = open_worker(work)
    for group in (Group(0, jobs[:1]), Group(0, ())):
        outcome = worker.submit(group).result(60)
        assert (outcome.number, outcome.published, outcome.trouble) == (0, False, None)
    assert outputs_of(work) == set()
    assert list(RunFolder(work.output_dir).ledger.names()) == []


@pytest.mark.parametrize("form", FORMS)
def test_a_store_that_does_not_answer_leaves_all_records(
    form: str, make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make("store", form)
    worker = open_worker(work)
    with mock.patch.object(type(work.output_dir.store), "put", side_effect=Unavailable("gone")):
        outcome = worker.submit(Group(1, jobs)).result(60)
    assert (outcome.trouble, outcome.left, outcome.published) == ("gone", tuple(range(COUNT)), False)
    again = worker.submit(Group(2, jobs)).result(60)
    assert again.done == COUNT - BAD


class LittleMemory(NullEngine):
    """An engine with memory for so many samples of one row, or for none."""

    def __init__(self, samples: int) -> None:
        super().__init__(1)
        self.samples = samples

    def embed(self, batch: np.ndarray) -> np.ndarray:
        if batch.shape[2] > self.samples:
            raise OutOfMemoryError("CUDA out of memory")
        return super().embed(batch)


def test_recordings_too_large_for_the_device_are_left_once_and_fail_the_second_time(
    make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make()
    long = np.random.default_rng(1).standard_normal((12, 8000)).astype(np.float32)
    np.save(jobs[2].path, long)
    with mock.patch.object(workers, "create_engine", side_effect=lambda *_, **__: LittleMemory(6000)):
        worker = open_worker(work)
    outcome = worker.submit(Group(1, jobs)).result(60)
    assert (outcome.left, outcome.too_large, outcome.trouble) == ((2,), (2,), None)
    assert (outcome.done, outcome.failed) == (COUNT - BAD - 1, BAD)
    again = worker.submit(Group(2, jobs[2:3], losses=1)).result(60)
    assert (again.left, again.too_large, again.reasons) == ((), (), {"OutOfMemoryError": 1})
    assert entries_of(work)[jobs[2].key] == "failed"


@pytest.mark.parametrize("losses", [0, 1])
def test_a_device_without_memory_for_any_recording_is_trouble_and_no_recording_fails(
    losses: int, make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    with mock.patch.object(workers, "create_engine", side_effect=lambda *_, **__: LittleMemory(6000)):
        worker = open_worker(make())
    with mock.patch.object(worker._engine, "samples", 10):
        outcome = worker.submit(Group(1, jobs, losses=losses)).result(60)
    assert (outcome.done, outcome.failed, len(outcome.left)) == (0, BAD, COUNT - BAD)
    assert outcome.trouble == "cpu has not enough memory for a recording of 10 s: CUDA out of memory"


def test_an_error_that_nobody_expects_is_raised_and_the_worker_goes_on(
    make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    worker = open_worker(make())
    with (
        mock.patch.object(NullEngine, "embed", side_effect=ZeroDivisionError),
        pytest.raises(ZeroDivisionError),
    ):
        worker.submit(Group(1, jobs)).result(60)
    assert worker.submit(Group(2, jobs)).result(60).done == COUNT - BAD


def test_a_worker_without_a_driver_stops_and_publishes_nothing(
    make: Make, jobs: tuple[Job, ...], open_worker: Open
) -> None:
    work = make("store", intervals=Intervals(renew=0.02, stale=5.0, give_up=0.2, look=0.01))
    worker = open_worker(work)
    threading.Event().wait(1.0)
    outcome = worker.submit(Group(1, jobs)).result(60)
    assert (outcome.left, outcome.published) == (tuple(range(COUNT)), False)
    with pytest.raises(Superseded):
        worker._sight.check()


def test_a_worker_with_a_driver_goes_on(make: Make, jobs: tuple[Job, ...], open_worker: Open) -> None:
    intervals = Intervals(renew=0.05, stale=5.0, give_up=1.0, look=0.01)
    work = make("store", intervals=intervals)
    folder = RunFolder(work.output_dir)
    with Lease(folder.run / "leases", WHOLE, "out", intervals=intervals):
        worker = open_worker(work)
        threading.Event().wait(2.0)
        assert worker.submit(Group(1, jobs)).result(60).published


# --- refused machines --------------------------------------------------------------------------------------------------


def test_another_version_another_folder_and_absent_recordings_are_refused_by_name(make: Make, tmp_path: Path) -> None:
    work = make()
    with pytest.raises(RunError, match=r"has version .* and the driver version 9.9"):
        Worker(replace(work, version="9.9"))
    with pytest.raises(RunError, match=r"does not see the driver's output folder at .*other"):
        Worker(replace(work, output_dir=locate(tmp_path / "other")))
    with pytest.raises(RunError, match=r"does not see the recordings: .*gone"):
        Worker(replace(work, data_dir=str(tmp_path / "gone")))
    with pytest.raises(CheckpointError, match=r"weights.pth on .* is another checkpoint .sha256 .* than the driver's"):
        Worker(replace(work, network=replace(work.network, sha256="0" * 64)))


def test_a_checkpoint_reaches_a_machine_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    network = make().network
    content = list(pieces_of(Path(network.path)))
    absent = replace(network, path=str(tmp_path / "not here" / "weights.pth"))
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointAbsent, match=r"not here/weights.pth is not on"):
        checkpoint_here(absent)
    taken: list[int] = []

    def pieces() -> Iterator[bytes]:
        taken.append(1)
        yield from content

    paths = [checkpoint_here(absent, pieces=pieces()) for _ in range(3)]
    assert len(taken) == 1
    assert {path.read_bytes() for path in paths} == {b"weights"}
    paths[0].write_bytes(b"other")
    with pytest.raises(CheckpointError, match="another checkpoint"):
        checkpoint_here(absent, pieces=pieces())


def test_a_process_keeps_its_worker_from_group_to_group(make: Make, jobs: tuple[Job, ...]) -> None:
    work = make("folder", "json", num_workers=1)
    with mock.patch.object(workers, "Worker", side_effect=Worker) as opened:
        outcomes: list[Outcome] = [do_group(work, Group(number, jobs[number : number + 1])) for number in (1, 2)]
        assert opened.call_count == 1
        other = make("store", "json")
        outcomes.append(do_group(other, Group(1, jobs[:1])))
        assert opened.call_count == 2
    assert [outcome.done for outcome in outcomes] == [1, 1, 1]
    assert workers._worker is not None
    workers._worker[1].close()
    workers._worker = None


def test_rows_of_a_shard_are_those_of_its_group(make: Make, jobs: tuple[Job, ...], open_worker: Open) -> None:
    import pyarrow.parquet as pq

    work = make("folder", "parquet", shard_size=3)
    outcome = open_worker(work).submit(Group(7, jobs)).result(60)
    shards = sorted(outputs_of(work))
    assert len(shards) == 3  # a group with more records than a shard
    assert all("-epoch000001-group000007-" in shard for shard in shards)
    rows = [row for shard in shards for row in pq.read_table(work.output_dir.path / shard)["key"].to_pylist()]
    assert len(set(rows)) == len(rows) == outcome.done
    assert np.isfinite(pq.read_table(work.output_dir.path / shards[0])["embedding"].to_pylist()[0]).all()
