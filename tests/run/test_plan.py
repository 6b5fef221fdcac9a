"""What is left to do: a finished record stays unless its files are others now, and a share counts its own records only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from ecgfounder.cohort.cohort import Record
from ecgfounder.cohort.index import Index, index_cohort, record_key
from ecgfounder.cohort.naming import Naming
from ecgfounder.cohort.sources import open_cohort
from ecgfounder.ecg.facts import Identity
from ecgfounder.errors import RunError
from ecgfounder.ledger.entry import Commitment, Entry
from ecgfounder.ledger.ledger import LedgerState, LedgerWriter, read_ledger
from ecgfounder.readers import make_source
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.run.plan import Plan, check_foreign_outputs, make_plan, renewed
from ecgfounder.run.settings import Settings
from ecgfounder.storage import locate
from tests.builders.entries import HEADER, entry_of


class Case:
    """A cohort in `data`, its outputs in `out`, and what the ledger has of it."""

    def __init__(self, folder: Path, paths: Sequence[str]) -> None:
        self.data, self.out = folder / "data", folder / "out"
        self.out.mkdir()
        self.naming = Naming("flat", str(self.data), suffix=".json")
        (folder / "cohort.csv").write_text("\n".join(["ecg_paths", *paths]) + "\n")
        self.cohort = open_cohort(str(folder / "cohort.csv"))
        self.index: Index = index_cohort(self.cohort, self.naming, str(self.data))
        (folder / "ledger").mkdir()
        self.ledger = LedgerWriter(folder / "ledger" / "1.jsonl", HEADER)

    def key(self, path: str) -> int:
        return record_key(Record(path, 0, 0, None), str(self.data))

    def write(self, path: str, content: bytes = b"samples") -> Path:
        file = self.data / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    def identity(self, path: str, *companions: str) -> Identity:
        source = make_source(str(self.data / path), Hints())
        source.companions.extend(locate(self.data / name) for name in companions)
        return identity_of(source)

    def done(self, path: str, *companions: str) -> None:
        """Remember a record as finished, with what its files are now."""
        given = self.identity(path, *companions)
        output = self.naming.name(path)
        (self.out / output).write_bytes(b"{}")
        known = {name: getattr(given, name) for name in ("size", "mtime_ns", "sha256", "companions")}
        self.ledger.append([entry_of(self.key(path), record=path, output=output, **known)])

    def failed(self, path: str, **more: Any) -> None:
        self.ledger.append([entry_of(self.key(path), "failed", record=path, reason="damaged", **more)])

    @property
    def state(self) -> LedgerState:
        return read_ledger(locate(self.ledger.path.parent))

    def plan(self, mine: Sequence[bool] | None = None, **settings: Any) -> Plan:
        told = Settings(dataset="cohort.csv", output_dir=self.out, data_dir=str(self.data), **settings)
        share = np.ones(len(self.index), np.bool_) if mine is None else np.array(mine, np.bool_)
        return make_plan(self.cohort, self.index, share, self.state, told, self.naming, locate(self.out))


def counts(plan: Plan) -> dict[str, int]:
    """What is not zero of a plan."""
    told = {name: getattr(plan, name) for name in ("n_todo", "done", "failed", "changed", "missing", "gone")}
    return {name: number for name, number in told.items() if number}


def later(file: Path, seconds: float = 5.0) -> None:
    at = file.stat().st_mtime_ns + int(seconds * 1e9)
    os.utime(file, ns=(at, at))


# --- inside containers ------------------------------------------------------------------------------------------------

MEMBER = "exams.hdf5::tracings/1"


@pytest.fixture
def container(tmp_path: Path) -> Case:
    case = Case(tmp_path, [MEMBER])
    case.write("exams.hdf5")
    case.done(MEMBER)
    return case


def test_a_recording_inside_a_container_that_is_as_it_was_stays_done(container: Case) -> None:
    assert counts(container.plan()) == {"done": 1}


def test_a_recording_inside_a_container_of_another_size_is_done_again(container: Case) -> None:
    before = (container.data / "exams.hdf5").stat()
    container.write("exams.hdf5", b"samples and more")
    os.utime(container.data / "exams.hdf5", ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert counts(container.plan()) == {"n_todo": 1, "changed": 1}


def test_a_recording_inside_a_container_of_another_time_is_done_again(container: Case) -> None:
    later(container.data / "exams.hdf5")
    plan = container.plan()
    assert counts(plan) == {"n_todo": 1, "changed": 1}
    assert plan.had_output.tolist() == [True]
    assert plan.renewals == ()


def test_a_recording_whose_container_is_gone_has_not_changed(container: Case) -> None:
    (container.data / "exams.hdf5").unlink()
    assert counts(container.plan()) == {"done": 1}
    assert counts(container.plan(check_hashes=True)) == {"done": 1}


# --- files of their own -----------------------------------------------------------------------------------------------


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = Case(tmp_path, ["a.npy"])
    made.write("a.npy")
    made.done("a.npy")
    return made


@pytest.mark.parametrize("check_hashes", [False, True])
def test_an_input_that_is_gone_has_not_changed(case: Case, check_hashes: bool) -> None:
    (case.data / "a.npy").unlink()
    assert counts(case.plan(check_hashes=check_hashes)) == {"done": 1}


def test_an_input_of_other_content_is_done_again_whatever_its_time_says(case: Case) -> None:
    before = (case.data / "a.npy").stat().st_mtime_ns
    case.write("a.npy", b"sampleS")
    assert counts(case.plan()) == {"n_todo": 1, "changed": 1}
    os.utime(case.data / "a.npy", ns=(before, before))
    assert counts(case.plan()) == {"done": 1}  # looked at, not read
    assert counts(case.plan(check_hashes=True)) == {"n_todo": 1, "changed": 1}
    case.write("a.npy", b"longer samples")
    os.utime(case.data / "a.npy", ns=(before, before))
    assert counts(case.plan()) == {"n_todo": 1, "changed": 1}


def test_an_input_that_was_only_touched_stays_done_and_its_time_is_renewed(case: Case) -> None:
    later(case.data / "a.npy")
    plan = case.plan()
    assert counts(plan) == {"done": 1}
    (entry,) = renewed(case.state, plan.renewals)
    assert isinstance(entry, Entry)
    assert entry.input is not None
    assert entry.input.mtime_ns == (case.data / "a.npy").stat().st_mtime_ns
    assert entry.input.sha256 == case.identity("a.npy").sha256
    case.ledger.append([entry])
    assert case.plan().renewals == ()


def test_an_output_that_is_gone_is_made_again(case: Case) -> None:
    (case.out / "a.json").unlink()
    plan = case.plan()
    assert counts(plan) == {"n_todo": 1, "missing": 1}
    assert plan.had_output.tolist() == [True]


@pytest.fixture
def wfdb(tmp_path: Path) -> Case:
    made = Case(tmp_path, ["r.hea", "s"])
    for name in ("r.hea", "r.dat", "s.hea", "s.dat"):
        made.write(name)
    made.done("r.hea", "r.dat")
    made.done("s", "s.hea", "s.dat")
    return made


def test_a_recording_of_several_files_changes_with_any_of_them_and_not_when_all_are_gone(wfdb: Case) -> None:
    assert counts(wfdb.plan()) == {"done": 2}
    for name in ("r.dat", "s.dat"):
        before = wfdb.write(name, b"samples").read_bytes()
        wfdb.write(name, b"others!")
        later(wfdb.data / name)
        assert counts(wfdb.plan()) == {"n_todo": 1, "done": 1, "changed": 1}
        wfdb.write(name, before)
        (wfdb.data / name).unlink()
        assert counts(wfdb.plan()) == {"n_todo": 1, "done": 1, "changed": 1}  # it may have other companions now
        wfdb.write(name, before)
    for name in ("r.hea", "r.dat", "s.hea", "s.dat"):
        (wfdb.data / name).unlink()
    assert counts(wfdb.plan()) == {"done": 2}


# --- whose records ----------------------------------------------------------------------------------------------------


def test_a_share_counts_its_own_records_and_no_other_s(tmp_path: Path) -> None:
    names = [f"{number}.npy" for number in range(6)]
    case = Case(tmp_path, [*names, "0.npy"])
    for name in names:
        case.write(name)
    for name in names[:3]:
        case.done(name)
    case.failed("3.npy")
    every = [True] * 7
    first = [name in ("0.npy", "3.npy", "4.npy") for name in [*names, "0.npy"]]
    assert counts(case.plan(every)) == {"n_todo": 2, "done": 3, "failed": 1}
    assert counts(case.plan(first)) == {"n_todo": 1, "done": 1, "failed": 1}
    other = case.plan([not each for each in first])
    assert counts(other) == {"n_todo": 1, "done": 2}
    assert np.flatnonzero(other.todo).tolist() == [5]
    (case.out / "1.json").unlink()  # another share's to make again
    assert counts(case.plan(first)) == {"n_todo": 1, "done": 1, "failed": 1}


def test_failures_are_tried_again_only_when_asked_for(tmp_path: Path) -> None:
    case = Case(tmp_path, ["a.npy", "b.npy"])
    for name in ("a.npy", "b.npy"):
        case.write(name)
    case.done("a.npy")
    case.failed("b.npy")
    assert counts(case.plan()) == {"done": 1, "failed": 1}
    plan = case.plan(retry_failed=True)
    assert counts(plan) == {"n_todo": 1, "done": 1}
    assert plan.todo.tolist() == [False, True]
    assert plan.had_output.tolist() == [False, False]


def test_records_that_the_cohort_no_longer_names_are_gone_and_nothing_is_done_for_them(tmp_path: Path) -> None:
    case = Case(tmp_path, ["a.npy"])
    for name in ("a.npy", "b.npy"):
        case.write(name)
        case.done(name)
    assert counts(case.plan()) == {"done": 1, "gone": 1}


# --- outputs of others ------------------------------------------------------------------------------------------------


def test_the_output_of_a_finished_record_that_left_the_cohort_is_not_taken(tmp_path: Path) -> None:
    case = Case(tmp_path, ["new/X.npy"])
    case.write("old/x.npy")
    case.done("old/x.npy")
    with pytest.raises(RunError, match=r"dataset: 1\..* x\.json of old/x\.npy\. Use another"):
        check_foreign_outputs(case.index, case.state)


def test_a_record_that_failed_and_left_the_cohort_has_no_output_to_be_taken(tmp_path: Path) -> None:
    case = Case(tmp_path, ["new/x.npy"])
    case.failed("old/x.npy", removes="x.json")
    check_foreign_outputs(case.index, case.state)


def test_outputs_of_records_that_are_in_the_cohort_are_their_own(tmp_path: Path) -> None:
    case = Case(tmp_path, ["x.npy"])
    case.write("x.npy")
    case.done("x.npy")
    check_foreign_outputs(case.index, case.state)


def test_rows_of_shards_never_stand_in_anybody_s_way(tmp_path: Path) -> None:
    case = Case(tmp_path, ["new/x.npy"])
    shard = "embeddings-00000000000000000001-shard1of1-rank0of1-000000.parquet"
    key = case.key("old/x.npy")
    case.ledger.append([entry_of(key, record="old/x.npy", shard=shard), Commitment(shard, 1, 1)])
    assert len(case.state) == 1
    check_foreign_outputs(case.index, case.state)
    check_foreign_outputs(index_cohort(case.cohort, None, str(case.data)), case.state)  # none of them has a name


# --- files that were not there -----------------------------------------------------------------------------------------


def test_a_failure_for_want_of_its_file_is_tried_again_when_the_file_is_there(tmp_path: Path) -> None:
    case = Case(tmp_path, ["a.npy", "b.npy", "c.npy", "d", "e"])
    for name in ("a.npy", "b.npy", "d", "e"):
        case.failed(name, absent=("",))
    case.failed("c.npy")  # for another reason
    for name in ("a.npy", "c.npy", "e.hea"):  # e is a WFDB record that is named without a suffix
        case.write(name)
    (case.data / "d").mkdir()  # nothing that could be read
    plan = case.plan()
    assert counts(plan) == {"n_todo": 2, "failed": 3}
    assert (plan.found, plan.todo.tolist()) == (2, [True, False, False, False, True])
    assert plan.had_output.tolist() == [False] * 5
    assert case.plan([False] * 5).found == 0  # another share's
    assert counts(case.plan(retry_failed=True)) == {"n_todo": 5}


def test_a_failure_for_want_of_a_signal_file_waits_for_that_file(tmp_path: Path) -> None:
    case = Case(tmp_path, ["r.hea", "s"])
    for name in ("r.hea", "s.hea"):
        case.write(name)
        case.failed(name.removesuffix(".hea") if name == "s.hea" else name, absent=("*.dat",))
    assert counts(case.plan()) == {"failed": 2}
    case.write("s.dat")
    assert case.plan().todo.tolist() == [False, True]
    (case.data / "s.hea").unlink()
    assert counts(case.plan()) == {"failed": 2}


def test_a_file_that_may_not_be_asked_for_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, ["a.npy"])
    case.failed("a.npy", absent=("",))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    plan = case.plan()
    monkeypatch.undo()
    assert counts(plan) == {"failed": 1}


def test_ledgers_that_do_not_name_absent_files_have_them_from_the_reason(tmp_path: Path) -> None:
    case = Case(tmp_path, ["a.npy", "b.npy", "c.npy", "d.npy"])
    reasons = ("No such file or directory", "Permission denied", "damaged", "Not a directory")
    for name, reason in zip(("a.npy", "b.npy", "c.npy", "d.npy"), reasons, strict=True):
        case.write(name)
        line = {"key": f"{case.key(name):016x}", "record": name, "status": "failed", "error": "ReadError"}
        with open(case.ledger.path, "ab") as file:
            file.write(orjson.dumps(line | {"reason": reason, "output": None}) + b"\n")
    assert case.plan().todo.tolist() == [True, False, False, True]
