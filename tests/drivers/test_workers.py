"""A file is read once, by a process that may die or hang without harm to any other file."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from ecgfounder.drivers import growth
from ecgfounder.drivers import processes as workers
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.ecg.facts import Identity
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import RunError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.stages import read as read_stage
from ecgfounder.stages.read import Event, Idle, Input, Inputs, Job, Opened, ReadTask
from tests.builders.cohorts import HINTS, write_good_and_bad
from tests.harness.process_states import is_running
from tests.harness.scripted import SCRIPTED, SleepingTask, StillbornTask, jobs_of
from tests.places import ROOT

TASK = ReadTask(Preparation(), hints=HINTS)


@dataclass
class Outcome:
    """What came of each ticket; that it came once is checked on the way."""

    inputs: dict[int, list[np.ndarray[Any, Any]]]
    facts: dict[int, Opened]
    reasons: dict[int, str]


def outcome_of(events: Iterator[Event]) -> Outcome:
    expected: dict[int, int] = {}
    outcome = Outcome({}, {}, {})
    for event in one_by_one(events):
        if isinstance(event, Idle):
            continue
        assert event.job.place not in outcome.reasons, f"ticket {event.job.place} goes on after its failure"
        if isinstance(event, Opened):
            assert event.job.place not in expected, f"ticket {event.job.place} was opened twice"
            expected[event.job.place] = event.n_inputs
            outcome.facts[event.job.place] = event
            outcome.inputs[event.job.place] = []
        elif isinstance(event, Input):
            assert event.number == len(outcome.inputs[event.job.place])
            outcome.inputs[event.job.place].append(event.data)
        else:
            assert len(outcome.inputs.get(event.job.place, [])) < expected.get(event.job.place, 1), (
                "failed after it was done"
            )
            outcome.reasons[event.job.place] = event.reason
    for ticket, count in expected.items():
        assert ticket in outcome.reasons or len(outcome.inputs[ticket]) == count
    return outcome


def one_by_one(events: Iterator[Event]) -> Iterator[Event]:
    """The events, with inputs that came together as single ones."""
    for event in events:
        if isinstance(event, Inputs):
            for (job, number), data in zip(event.inputs, event.data.copy(), strict=True):
                yield Input(job, number, data)
            event.give_back()
        else:
            yield event


def run(paths: list[str], n_workers: int = 2, **options: Any) -> Outcome:
    pool = ReaderPool(options.pop("task", SCRIPTED), n_workers, **options)
    try:
        return outcome_of(pool.events(jobs_of(paths)))
    finally:
        pool.close()


@pytest.fixture
def recordings(tmp_path: Path) -> list[str]:
    return write_good_and_bad(tmp_path)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_files_become_inputs_and_bad_ones_failures_with_a_reason(recordings: list[str], n_workers: int) -> None:
    outcome = run(recordings, n_workers, task=TASK)
    assert sorted(outcome.inputs) == [0, 4]
    for inputs in outcome.inputs.values():
        (data,) = inputs
        assert data.shape == (12, 5000)
        assert data.dtype == np.float32
        assert abs(float(data.mean())) < 1e-3  # z-scored
    assert outcome.reasons == {1: "No such file or directory", 2: "the file is empty", 3: "not a regular file"}


def test_the_facts_of_a_file_identify_it(recordings: list[str]) -> None:
    opened = run(recordings[:1], 0, task=TASK).facts[0]
    path = Path(recordings[0])
    assert opened.identity == Identity(
        size=path.stat().st_size,
        mtime_ns=path.stat().st_mtime_ns,
        sha256=hashlib.sha256(hashlib.sha256(path.read_bytes()).digest()).hexdigest(),
    )
    assert (opened.facts.n_samples, opened.facts.sampling_rate, opened.facts.leads) == (5000, 500.0, STANDARD_LEADS)
    assert set(opened.seconds) == {"read", "prepare"}


@pytest.mark.parametrize("error", [ValueError, OSError, RecursionError, ZeroDivisionError])
def test_a_slip_in_the_preparation_fails_one_file_and_quotes_nothing(
    recordings: list[str], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def slip(*_: object) -> None:
        raise error("Jane Doe")

    monkeypatch.setattr(read_stage, "prepare", slip)
    reason = run(recordings[:1], 0, task=TASK).reasons[0]
    assert error.__name__ in reason
    assert "Jane" not in reason


@pytest.mark.parametrize("rows", [1, 8])
def test_a_worker_killed_in_the_middle_of_a_file_costs_that_file_alone(rows: int) -> None:
    paths = [f"small:{number}" for number in range(40)]
    paths[7] = "kill"
    paths[8] = "small,kill,small"  # after it had begun to hand over
    paths[20] = "kill"
    outcome = run(paths, rows=rows)
    died = "the reading process died (killed by SIGKILL)"
    assert outcome.reasons == {7: died, 8: died, 20: died}
    assert [ticket for ticket in range(40) if len(outcome.inputs.get(ticket, [])) == 1 and ticket != 8] == [
        ticket for ticket in range(40) if ticket not in (7, 8, 20)
    ]


@pytest.mark.parametrize("rows", [1, 8])
def test_deaths_of_every_kind_are_named_and_the_rest_goes_on(rows: int) -> None:
    paths = ["leave", "small", "break", "small", "unpicklable", "small,refuse,small", "refuse", "small"]
    outcome = run(paths, rows=rows)
    assert sorted(outcome.reasons) == [0, 2, 4, 5, 6]
    assert outcome.reasons[0] == "the reading process died (exit status 7)"
    assert outcome.reasons[2] == outcome.reasons[4] == "the reading process died (exit status 1)"
    assert outcome.reasons[5] == outcome.reasons[6] == "damaged"
    assert {1, 3, 7} <= set(outcome.inputs)


def test_more_deaths_than_starts_may_fail_do_not_end_the_run() -> None:
    outcome = run(["leave"] * 6 + ["small"] * 3, n_workers=1)
    assert len(outcome.reasons) == 6
    assert sorted(outcome.inputs) == [6, 7, 8]


def test_a_worker_that_dies_after_its_last_input_has_not_failed() -> None:
    outcome = run(["small,kill:a", "small,leave:b", "small", "small"])
    assert outcome.reasons == {}
    assert sorted(outcome.inputs) == [0, 1, 2, 3]


@pytest.mark.parametrize("rows", [1, 8])
def test_a_file_that_takes_too_long_is_given_up_and_its_worker_replaced(rows: int) -> None:
    began = time.monotonic()
    outcome = run(["small", "hang", "small", "small,hang,small", *["small"] * 6], timeout=1.0, rows=rows)
    assert time.monotonic() - began < 60
    assert outcome.reasons == {1: "reading took longer than 1 s", 3: "reading took longer than 1 s"}
    assert outcome.inputs.keys() - {3} == {0, 2, *range(4, 10)}


def test_files_that_were_read_and_not_told_of_are_read_again_when_their_process_dies() -> None:
    paths = [*["small"] * 5, "kill", *["small"] * 5]
    outcome = run(paths, n_workers=1, rows=8)  # the five before wait for others when their process dies
    assert list(outcome.reasons) == [5]
    assert sorted(outcome.inputs) == [place for place in range(11) if place != 5]
    assert all(np.array_equal(data, np.full_like(data, place)) for place, (data,) in outcome.inputs.items())


def test_a_slow_file_after_quick_ones_is_not_blamed_for_their_time() -> None:
    outcome = run(["small"] * 3 + ["nap,nap,nap,nap,small"] * 4 + ["small"] * 3, n_workers=1, rows=8, timeout=1.0)
    assert outcome.reasons == {}
    assert len(outcome.inputs) == 10


def test_a_slow_consumer_does_not_make_workers_look_hung() -> None:
    pool = ReaderPool(SCRIPTED, 2, timeout=0.3)

    def slowly() -> Iterator[Event]:
        for number, event in enumerate(pool.events(jobs_of(["big", "small", "small,big", "big", "small"]))):
            if number < 4 or isinstance(event, Opened):
                time.sleep(0.5)  # longer than a worker may take
            yield event

    try:
        outcome = outcome_of(slowly())
    finally:
        pool.close()
    assert outcome.reasons == {}
    assert {ticket: len(inputs) for ticket, inputs in outcome.inputs.items()} == {0: 1, 1: 1, 2: 2, 3: 1, 4: 1}


def test_inputs_of_many_megabytes_arrive_whole() -> None:
    outcome = run(["big,big", "small", "big"])
    for ticket, shapes in {0: [(12, 400_000)] * 2, 1: [(12, 50)], 2: [(12, 400_000)]}.items():
        assert [data.shape for data in outcome.inputs[ticket]] == shapes
        assert all((data == ticket).all() for data in outcome.inputs[ticket])


def test_workers_leave_signals_to_the_main_process() -> None:
    outcome = run(["signals,small", "signals,small", "small"])
    assert outcome.reasons == {}
    assert len(outcome.inputs) == 3


@pytest.mark.parametrize("n_workers", [1, 2])  # 2: they are forked from the process that is starting
def test_a_signal_to_all_processes_does_not_end_workers_that_are_starting(n_workers: int) -> None:
    pool = ReaderPool(SCRIPTED, n_workers)
    try:
        workers = list(pool._workers)
        for pid in [*(worker.process.pid for worker in workers), *(each._process.pid for each in pool._nurseries)]:
            if pid is None:
                continue  # not forked yet
            os.kill(pid, signal.SIGTERM)  # at an instant when Python has hardly begun
            os.kill(pid, signal.SIGINT)
        outcome = outcome_of(pool.events(jobs_of(["small"] * 4)))
        assert pool._workers == workers  # none had to be replaced
    finally:
        pool.close()
    assert len(outcome.inputs) == 4


def test_starting_workers_leaves_the_signals_of_the_main_process_as_they_were() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    pool = ReaderPool(SCRIPTED, 1)
    pool.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_workers_that_never_start_end_the_run_with_the_way_to_see_why() -> None:
    with pytest.raises(RunError, match=r"do not start \(exit status 3\).*num_workers=0"):
        run(["small"] * 4, task=StillbornTask(Preparation()))


def test_workers_that_hang_at_their_start_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "START_TIMEOUT", 0.5)
    with pytest.raises(RunError, match="do not start"):
        run(["small"] * 4, task=SleepingTask(Preparation()), timeout=0.1)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_no_more_is_taken_after_a_stop_and_what_was_taken_is_finished(n_workers: int) -> None:
    taken = 0

    def endless() -> Iterator[Job]:
        nonlocal taken
        for ticket in itertools.count():
            taken += 1
            yield Job(ticket, "small")

    pool = ReaderPool(SCRIPTED, n_workers)
    finished = []
    try:
        for event in pool.events(endless()):
            if isinstance(event, Input):
                finished.append(event.job.place)
                if len(finished) == 10:
                    pool.stop_taking()
                    taken_at_stop = taken
    finally:
        pool.close()
    assert taken == taken_at_stop
    assert sorted(finished) == list(range(taken))


def test_a_stop_before_the_start_takes_nothing() -> None:
    pool = ReaderPool(SCRIPTED, 0)
    pool.stop_taking()
    jobs = jobs_of(["small"])
    assert list(pool.events(jobs)) == []
    assert next(jobs) == Job(0, "small")


def test_no_more_jobs_are_taken_than_workers_can_hold() -> None:
    taken = Counter[str]()

    def counted() -> Iterator[Job]:
        for job in jobs_of(["small"] * 50):
            taken["jobs"] += 1
            yield job

    pool = ReaderPool(SCRIPTED, 2)
    try:
        done = 0
        for event in pool.events(counted()):
            assert taken["jobs"] - done <= 2 * max(workers.JOBS_AHEAD) + 1
            done += isinstance(event, Input)
    finally:
        pool.close()
    assert done == 50


def processes_used(paths: list[str], n_workers: int, consumer_sleeps: float = 0.0) -> int:
    """How many processes a pool that starts with one has come to."""
    pool = ReaderPool(SCRIPTED, n_workers, n_started=1)
    try:
        assert len(pool._workers) == 1
        for event in pool.events(jobs_of(paths)):
            if isinstance(event, Input):
                time.sleep(consumer_sleeps)
        return len(pool._workers)
    finally:
        pool.close()


def test_more_workers_are_started_where_they_keep_the_caller_waiting_and_never_more_than_allowed() -> None:
    pool = ReaderPool(SCRIPTED, 3, n_started=1)
    try:
        numbers = (
            len(pool._workers) for event in pool.events(jobs_of(["nap,small"] * 1000)) if isinstance(event, Input)
        )
        assert any(number == 3 for number in numbers)  # as soon as that is; a busy machine starts processes slowly
        assert all(number == 3 for number in islice(numbers, 20))
    finally:
        pool.close()


def test_a_limit_that_is_set_later_holds() -> None:
    pool = ReaderPool(SCRIPTED, 3, n_started=1)
    try:
        pool.limit(2)
        numbers = {len(pool._workers) for _ in pool.events(jobs_of(["nap,small"] * 60))}
        assert numbers == {1, 2}
    finally:
        pool.close()


class SlowToStart:
    """A task that takes half a minute to arrive in a process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (30,)


def test_a_pool_that_is_not_needed_after_all_ends_before_its_processes_have_started() -> None:
    pool = ReaderPool(SlowToStart(), 2)  # type: ignore[arg-type]
    assert [worker.process.pid for worker in pool._workers] == [None, None]  # they are forked later
    processes = [nursery._process.pid for nursery in pool._nurseries]
    assert len(processes) == 1
    began = time.monotonic()
    pool.close(patience=60)
    assert time.monotonic() - began < 20
    for pid in processes:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_signal_while_processes_are_started_leaves_none_behind() -> None:
    """Python raises at the end of the part in which signals are blocked."""

    class Interrupted(Exception):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    def start_and_interrupt(process: Any) -> None:
        start(process)
        os.kill(os.getpid(), signal.SIGINT)

    others = set(multiprocessing.active_children())
    kind = multiprocessing.get_context("spawn").Process
    start, before = kind.start, signal.signal(signal.SIGINT, interrupt)
    try:
        with mock.patch.object(kind, "start", start_and_interrupt), pytest.raises(Interrupted) as caught:
            ReaderPool(SCRIPTED, 2)
    finally:
        signal.signal(signal.SIGINT, before)
    assert caught.value.__traceback__ is not None  # which keeps the pool
    assert set(multiprocessing.active_children()) <= others


def test_no_more_workers_are_started_where_the_caller_is_the_slower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GROWTH_SECONDS", 0.4)
    assert processes_used(["small"] * 20, 4, consumer_sleeps=0.1) == 1


def test_workers_are_started_for_slow_files_that_come_after_fast_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "GROWTH_SECONDS", 0.3)
    assert processes_used([*["refuse"] * 3000, *["nap,small"] * 60], 3) == 3


def test_workers_that_die_at_their_start_beside_others_that_work_do_not_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(growth, "GROWTH_SECONDS", 0.2)
    start = ReaderPool._start

    def killed(pool: ReaderPool) -> None:
        start(pool)
        if len(started) >= 1:
            pool._workers[-1].process.kill()
        started.append(pool._workers[-1])

    started: list[Any] = []
    monkeypatch.setattr(ReaderPool, "_start", killed)
    pool = ReaderPool(SCRIPTED, 4, n_started=1)
    try:
        outcome = outcome_of(pool.events(jobs_of(["nap,small"] * 40)))
    finally:
        pool.close()
    assert len(outcome.inputs) == 40
    assert len(started) > 2
    assert outcome.reasons == {}


def test_a_file_that_hangs_does_not_hold_up_the_others() -> None:
    began = time.monotonic()
    pool = ReaderPool(SCRIPTED, 2, n_started=1)
    events = pool.events(jobs_of(["hang", *["small"] * 6]))
    try:
        done = {event.job.place for event in itertools.islice((e for e in events if isinstance(e, Input)), 5)}
    finally:
        pool.close(patience=0.1)
    assert done <= set(range(1, 7))
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("n_workers", [0, 3])
def test_no_jobs_no_events(n_workers: int) -> None:
    assert run([], n_workers) == Outcome({}, {}, {})


def test_closing_in_the_middle_of_a_file_ends_the_workers_at_once() -> None:
    pool = ReaderPool(SCRIPTED, 2)
    events = pool.events(jobs_of(["hang", "big,big,big", "small"]))
    while not isinstance(next(events), Opened):
        pass
    pids = [worker.process.pid for worker in pool._workers]
    began = time.monotonic()
    pool.close(patience=0.5)
    assert time.monotonic() - began < 10
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_reading_process_loads_scipy_and_torch_only_if_it_needs_them() -> None:
    """Each of many starts costs a core-second more otherwise."""
    program = (
        "import sys, ecgfounder.drivers.processes; print({'torch', 'scipy', 'pyarrow', 'pandas'} & set(sys.modules))"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "set()\n"
    )


ORPHANING = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.harness.process_states import is_running
from tests.harness.scripted import SCRIPTED, jobs_of
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.stages.read import Opened
if __name__ == "__main__":
    pool = ReaderPool(SCRIPTED, 2)
    events = pool.events(jobs_of(["small,hang,small", "big,hang,big"]))
    for event in events:
        if isinstance(event, Opened):
            print(int(event.facts.device["pid"]), flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels cannot end a child with its parent")
def test_workers_do_not_outlive_a_killed_main_process(tmp_path: Path) -> None:
    script = tmp_path / "orphaning.py"
    script.write_text(ORPHANING)
    command = [sys.executable, str(script), str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as main:
        assert main.stdout is not None
        pids = [int(main.stdout.readline()) for _ in range(2)]  # both are in the middle of a file
        main.kill()
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker outlived its main process"
        time.sleep(0.05)


@pytest.mark.parametrize("dropped", [True, False])
def test_a_program_that_ends_without_closing_its_pool_ends(dropped: bool, tmp_path: Path) -> None:
    script = tmp_path / "careless.py"
    script.write_text(f"{ORPHANING}            break\n    {'del pool, events' if dropped else 'sys.exit(3)'}\n")
    done = subprocess.run([sys.executable, str(script), str(ROOT)], stdout=subprocess.DEVNULL, timeout=30)
    assert done.returncode == (0 if dropped else 3)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize(("given", "expected"), [(None, b"1"), ("3", b"3")])
def test_reading_processes_start_no_threads_of_openblas(
    monkeypatch: pytest.MonkeyPatch, given: str | None, expected: bytes
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", given)
    pool = ReaderPool(TASK, 1)
    try:
        next(pool.events(iter(jobs_of(["absent.xml"]))))  # it has started
        environment = Path(f"/proc/{pool._workers[0].process.pid}/environ").read_bytes().split(b"\0")
    finally:
        pool.close()
    assert b"OPENBLAS_NUM_THREADS=" + expected in environment
    assert os.environ.get("OPENBLAS_NUM_THREADS") == given
