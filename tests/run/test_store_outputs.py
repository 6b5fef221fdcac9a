"""What works on a folder works on a store: resuming, overwriting, retrying, reading, exporting; and what is refused there."""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import RunError
from ecgfounder.ledger.conclusion import merge, upgrade
from ecgfounder.results.export import export_run
from ecgfounder.results.run import open_run
from ecgfounder.results.store import read_embedding
from ecgfounder.run import run as extract
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings
from ecgfounder.run.summary import Preview, Summary
from ecgfounder.storage import Location, Unavailable, locate
from ecgfounder.storage.memory import MemoryStore
from tests.builders.cohorts import settings_for, write_cohort
from tests.harness.stand_ins import NullEngine
from tests.harness.store_faults import check_sealed, json_objects, result

FORMATS = ("json", "parquet")
DONE, FAILED = 19, 2

Start = Callable[..., Summary]


class Lines:
    """A console that keeps its lines; `act` is called at each progress."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.act: Callable[[], None] = lambda: None

    def line(self, text: str) -> None:
        self.lines.append(text)

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None:
        self.act()


@pytest.fixture
def console() -> Lines:
    return Lines()


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    write_cohort(tmp_path / "cohort")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    return tmp_path / "cohort"


@pytest.fixture
def out() -> Location:
    return Location(MemoryStore(uuid.uuid4().hex), "study/run")


Make = Callable[..., Run]


@pytest.fixture
def make(cohort: Path, tmp_path: Path, console: Lines) -> Make:
    def make(out: Any, form: str = "json", **more: Any) -> Run:
        return Run(settings_for(cohort, out, tmp_path / "weights.pth", format=form, **more), console)

    return make


@pytest.fixture
def start(make: Make) -> Iterator[Start]:
    with mock.patch.object(extract, "create_engine", side_effect=lambda *_, **__: NullEngine()):
        yield lambda *given, **more: make(*given, **more).execute()


def manifest_of(out: Location) -> dict[str, dict[str, Any]]:
    table = pq.read_table(pa.BufferReader((out / RUN_FOLDER / "manifest.pq").read()))
    return {row["record"].rpartition("/")[2]: row for row in table.to_pylist()}


def result_of(out: Location, form: str) -> Any:
    return result(Settings(dataset="", output_dir=out, format=form))


def writes(out: Location) -> Any:
    """A patch that keeps the names of what is written."""
    names: list[str] = []
    real = MemoryStore.put

    def put(self: MemoryStore, name: str, data: bytes) -> Any:
        names.append(name)
        return real(self, name, data)

    return mock.patch.object(MemoryStore, "put", put), names


# --- again -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_complete_run_is_not_done_again(form: str, out: Location, start: Start) -> None:
    first = start(out, form)
    assert first.outcome == "complete"
    check_sealed(out, DONE, FAILED)
    before = result_of(out, form)
    again = start(out, form)
    assert (again.plan.n_todo, again.plan.done, again.plan.failed) == (0, DONE, FAILED)
    assert result_of(out, form) == before
    check_sealed(out, DONE, FAILED)


@pytest.mark.parametrize("form", FORMATS)
def test_failed_records_are_tried_again_where_that_is_wanted(
    form: str, out: Location, start: Start, cohort: Path
) -> None:
    start(out, form)
    np.save(cohort / "ecg_07.npy", np.random.default_rng(1).standard_normal((12, 900)).astype(np.float32))
    again = start(out, form, retry_failed=True)
    assert again.plan.n_todo == 2
    assert again.tally is not None
    assert (again.tally.done, again.tally.failed) == (DONE + 1, FAILED - 1)
    assert manifest_of(out)["ecg_07.npy"]["status"] == "done"
    check_sealed(out, DONE + 1, FAILED - 1)


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_recording_is_done_again_and_its_old_rows_go(
    form: str, out: Location, start: Start, cohort: Path
) -> None:
    start(out, form)
    before = result_of(out, form)
    np.save(cohort / "ecg_04.npy", np.random.default_rng(1).standard_normal((12, 900)).astype(np.float32))
    again = start(out, form)
    assert (again.plan.changed, again.plan.n_todo) == (1, 1)
    after = result_of(out, form)
    assert len(after) == len(before)
    assert after != before
    check_sealed(out, DONE, FAILED)


def test_the_output_of_a_recording_that_fails_now_is_removed(out: Location, start: Start, cohort: Path) -> None:
    start(out)
    (cohort / "ecg_04.npy").write_bytes(b"no longer a recording")
    again = start(out)
    assert again.tally is not None
    assert (again.tally.done, again.tally.failed) == (DONE - 1, FAILED + 1)
    assert "ecg_04.json" not in json_objects(out)
    check_sealed(out, DONE - 1, FAILED + 1)


@pytest.mark.parametrize("form", FORMATS)
def test_an_output_that_is_gone_is_written_again(form: str, out: Location, start: Start) -> None:
    start(out, form)
    before = result_of(out, form)
    lost = next(name for name in out.names(skip=RUN_FOLDER.__eq__) if not name.startswith("."))
    out.delete([lost])
    again = start(out, form)
    assert again.plan.missing == (1 if form == "json" else 4)
    assert result_of(out, form) == before
    check_sealed(out, DONE, FAILED)


def test_an_output_that_was_replaced_is_written_again_at_the_next_start(out: Location, start: Start) -> None:
    start(out)
    before = json_objects(out)
    (out / "ecg_05.json").put(b"{}")
    again = start(out)
    assert (again.plan.missing, again.plan.n_todo) == (1, 1)
    assert json_objects(out) == before
    assert start(out).plan.n_todo == 0


def test_an_output_that_is_replaced_during_the_run_is_written_again_at_its_end(
    out: Location, start: Start, console: Lines
) -> None:
    """As by a process that was taken over, and that a slow request lets write late."""

    def act() -> None:
        if (out / "ecg_00.json").exists():
            (out / "ecg_00.json").put(b"{}")
            console.act = lambda: None

    console.act = act
    summary = start(out, batch_size=1)
    assert summary.outcome == "complete"
    assert "1 output replaced meanwhile, to be written again" in console.lines
    assert orjson.loads((out / "ecg_00.json").read())["modality"] == "ecg"
    assert start(out).plan.n_todo == 0
    assert len(json_objects(out)) == DONE


def test_overwriting_removes_what_was_there_and_the_epochs_go_on(out: Location, start: Start) -> None:
    start(out)
    with pytest.raises(RunError, match="holds a run with other settings"):
        start(out, "parquet")
    assert len(json_objects(out)) == DONE  # nothing has happened
    again = start(out, "parquet", overwrite=True)
    assert again.plan.n_todo == DONE + FAILED
    assert json_objects(out) == {}
    epochs = sorted((out / RUN_FOLDER / "epochs").names())
    assert epochs == ["whole/000001.json", "whole/000001.seal.json", "whole/000002.json", "whole/000002.seal.json"]
    check_sealed(out, DONE, FAILED)


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_of_a_folder_that_was_copied_to_a_store_goes_on_there(
    form: str, out: Location, start: Start, tmp_path: Path, cohort: Path
) -> None:
    shutil.move(cohort / "ecg_10.npy", tmp_path / "later.npy")
    start(tmp_path / "out", form)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            (out / path.relative_to(tmp_path / "out").as_posix()).put(path.read_bytes())
    out.delete(["_run/locks/run.lock"])
    shutil.move(tmp_path / "later.npy", cohort / "ecg_10.npy")
    there = start(out, form)
    assert there.plan.n_todo == 1
    check_sealed(out, DONE, FAILED)
    start(tmp_path / "out", form)
    here = locate(tmp_path / "out")
    assert result_of(out, form) == result_of(here, form)


# --- what is not the run's ---------------------------------------------------------------------------------------------


def test_objects_beside_the_run_are_neither_counted_nor_touched(out: Location, start: Start) -> None:
    other = {"study/run2/ecg_00.json": b"theirs", "study/run.json": b"theirs", "study/ru": b"theirs"}
    for name, content in other.items():
        out.store.put(name, content)
    start(out)
    start(out, overwrite=True)
    assert {name: out.store.read(name) for name in other} == other
    check_sealed(out, DONE, FAILED)


def test_a_place_with_other_objects_is_refused_and_nothing_is_written(out: Location, start: Start) -> None:
    (out / "notes.txt").put(b"theirs")
    with pytest.raises(RunError, match="is not empty and has no _run/ of an earlier run"):
        start(out)
    assert list(out.names()) == ["notes.txt"]


def test_a_store_that_ignores_conditions_is_refused_before_any_work(start: Start) -> None:
    class Careless(MemoryStore):
        def claim(self, name: str, data: bytes) -> None:
            self.put(name, data)

    out = Location(Careless(uuid.uuid4().hex), "run")
    with pytest.raises(RunError, match="its store replaces an object that exists although it was asked not to"):
        start(out)
    assert all(name.startswith("_run/leases/") for name in out.names())


def test_the_second_of_two_starts_is_told_who_is_at_work(out: Location, start: Start, console: Lines) -> None:
    refused: list[str] = []

    def second() -> None:
        console.act = lambda: None
        with mock.patch.object(extract, "StoreHold", quick), pytest.raises(RunError) as caught:
            start(out)
        refused.append(str(caught.value))

    from tests.harness.store_faults import QUICK

    held = extract.StoreHold

    def quick(*given: Any, **more: Any) -> Any:
        return held(*given, **more, intervals=QUICK)

    console.act = second
    with mock.patch.object(extract, "StoreHold", quick):
        assert start(out).outcome == "complete"
    assert f"{out} is in use by process " in refused[0]
    check_sealed(out, DONE, FAILED)


# --- dry runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_dry_run_forecasts_requests_and_writes_nothing(form: str, out: Location, make: Make, start: Start) -> None:
    patch, names = writes(out)
    with patch:
        preview: Preview = make(out, form).preview()
    assert names == []
    assert list(out.names()) == []
    assert preview.budget.fits
    assert preview.budget.free_bytes is None
    assert preview.budget.requests is not None
    start(out, form)
    assert make(out, form).preview().plan.n_todo == 0
    assert make(out, "parquet" if form == "json" else "json").preview().differences


# --- trouble -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("what", ["-group", ".parquet", "ecg_", "manifest.pq", "seal.json"])
def test_a_store_that_does_not_answer_ends_the_run_and_fails_no_record(
    what: str, form: str, out: Location, start: Start
) -> None:
    real, real_create = MemoryStore.put, MemoryStore.create

    def put(self: MemoryStore, name: str, data: bytes) -> Any:
        if what in name:
            raise Unavailable("the store does not answer: no answer in time")
        return real(self, name, data)

    def create(self: MemoryStore, name: str, data: bytes) -> Any:
        if what in name:
            raise Unavailable("the store does not answer: no answer in time")
        return real_create(self, name, data)

    with (
        mock.patch.object(MemoryStore, "put", put),
        mock.patch.object(MemoryStore, "create", create),
        mock.patch("ecgfounder.ledger.groups.publish._FIRST_PAUSE", 0.01),
    ):
        summary = start(out, form)
    if (what, form) in ((".parquet", "json"), ("ecg_", "parquet")):
        assert summary.outcome == "complete"
        return
    assert summary.outcome == "interrupted"
    assert "no answer in time" in str(summary.trouble)
    assert orjson.loads((out / RUN_FOLDER / "run.json").read())["outcome"] in ("interrupted", "running")
    assert start(out, form).outcome == "complete"
    check_sealed(out, DONE, FAILED)


# --- reading -----------------------------------------------------------------------------------------------------------


def npy(content: bytes) -> Any:
    return np.load(io.BytesIO(content))


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_in_a_store_is_read_and_exported_there_and_back(
    form: str, out: Location, start: Start, tmp_path: Path
) -> None:
    start(out, form)
    start(tmp_path / "here", form)
    here, there = open_run(tmp_path / "here"), open_run(str(out))
    X, _ = there.arrays(pooling="mean")
    assert np.array_equal(np.asarray(X), np.asarray(here.arrays(pooling="mean")[0]))
    assert len(there) == len(here) == DONE
    reference = there.records["output"][3].as_py()
    assert np.array_equal(read_embedding(f"{out}/{reference}"), there.stored(reference, [0, 0])[0][0])
    other = "parquet" if form == "json" else "json"
    up = Location(MemoryStore(uuid.uuid4().hex), "exported")
    for source, target in ((str(out), tmp_path / "down"), (tmp_path / "here", str(up)), (str(out), f"{up}2")):
        assert export_run(source, target, other) == DONE
    assert result_of(locate(tmp_path / "down"), other) == result_of(up, other)
    assert result_of(up, other) == result_of(locate(f"{up}2"), other)
    check_sealed(up, DONE, FAILED)
    assert len(open_run(str(up))) == DONE
    with pytest.raises(RunError, match="is not empty"):
        export_run(str(out), str(up), other)
    with pytest.raises(RunError, match="is inside the exported run"):
        export_run(str(out), f"{out}/below", other)


def test_arrays_of_files_are_exported_to_a_store(out: Location, start: Start) -> None:
    start(out)
    export_run(str(out), f"{out}-npy", "npy")
    exported = locate(f"{out}-npy")
    first = npy((exported / "ecg_00.npy").read())
    assert np.array_equal(first, np.array(orjson.loads((out / "ecg_00.json").read())["embedding"], dtype=np.float32))


def test_a_run_that_is_not_complete_is_read_from_its_ledger(out: Location, start: Start) -> None:
    start(out, shard=(1, 2))
    with pytest.raises(RunError, match="is not complete"):
        open_run(str(out))
    run = open_run(str(out), allow_incomplete=True)
    assert 0 < len(run) < DONE
    start(out, shard=(2, 2))
    tally = merge(out)
    assert (tally.done, tally.failed, tally.pending) == (DONE, FAILED, 0)
    assert len(open_run(str(out))) == DONE
    check_sealed_after_merge(out)
    assert not upgrade(out)


def check_sealed_after_merge(out: Location) -> None:
    leases = sorted(name.partition("/")[0] for name in (out / RUN_FOLDER / "leases").names())
    assert leases == ["shard-1-of-2", "shard-2-of-2", "whole"]
