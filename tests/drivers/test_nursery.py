"""The process from which reading processes are forked: it saves their starts, and its end costs what theirs would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecgfounder.drivers import nursery as nurseries
from ecgfounder.drivers import ring as rings
from ecgfounder.drivers.nursery import Forked, Nursery
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.errors import RunError
from ecgfounder.stages.read import Event, Failed, Input, Inputs, Opened
from tests.harness.process_states import is_running
from tests.harness.scripted import SCRIPTED, FewProcessesTask, StillbornTask, jobs_of
from tests.places import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each reading process is started by itself")


@pytest.fixture
def pool() -> Iterator[ReaderPool]:
    pool = ReaderPool(SCRIPTED, 3)
    yield pool
    pool.close()


def send(nursery: Nursery, number: int) -> None:
    assert nursery._process.pid is not None
    os.kill(nursery._process.pid, number)


def singly(events: Iterator[Event]) -> Iterator[tuple[str, int]]:
    """The kind of each event and its job's place."""
    for event in events:
        if isinstance(event, Inputs):
            yield from (("Input", job.place) for job, _number in event.inputs)
            assert all((data == job.place).all() for (job, _), data in zip(event.inputs, event.data, strict=True))
            event.give_back()
        elif isinstance(event, Opened | Input | Failed):
            yield type(event).__name__, event.job.place


def parent_of(pid: int | None) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_all_reading_processes_have_one_parent_which_imports_for_them(pool: ReaderPool) -> None:
    assert list(singly(pool.events(jobs_of(["small"] * 30)))).count(("Input", 29)) == 1
    (nursery,) = pool._nurseries
    pids = [worker.process.pid for worker in pool._workers]
    assert len({*pids}) == 3
    assert {parent_of(pid) for pid in pids} == {nursery._process.pid}
    assert parent_of(nursery._process.pid) == os.getpid()


@pytest.mark.parametrize("case", ["one process", "no shared memory"])
def test_where_it_saves_nothing_there_is_none(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if case == "no shared memory":
        monkeypatch.delattr(rings.os, "memfd_create")
    pool = ReaderPool(SCRIPTED, 1 if case == "one process" else 2)
    try:
        assert list(singly(pool.events(jobs_of(["small"])))) == [("Opened", 0), ("Input", 0)]
        assert pool._nurseries == []
    finally:
        pool.close()


def test_when_it_is_killed_its_workers_end_and_others_do_the_rest(pool: ReaderPool) -> None:
    events = singly(pool.events(jobs_of([*["nap,small"] * 12, *["small"] * 200])))
    done = [next(events), next(events)]
    (before,) = pool._nurseries
    pids = [worker.process.pid for worker in pool._workers]
    send(before, signal.SIGKILL)
    done += events
    kinds = {kind: [place for each, place in done if each == kind] for kind in ("Input", "Failed")}
    assert sorted(kinds["Input"] + kinds["Failed"]) == list(range(212))
    assert len(kinds["Failed"]) <= 3  # what each worker was reading
    (after,) = pool._nurseries
    assert after is not before
    assert not any(is_running(pid) for pid in pids)


def test_one_that_dies_before_it_has_forked_is_replaced(pool: ReaderPool) -> None:
    (before,) = pool._nurseries
    send(before, signal.SIGKILL)
    done = list(singly(pool.events(jobs_of(["small"] * 30))))
    assert sorted(place for kind, place in done if kind == "Input") == list(range(30))
    assert pool._nurseries[0] is not before


def test_one_that_cannot_start_is_named_with_its_exit_status() -> None:
    pool = ReaderPool(StillbornTask(SCRIPTED.preparation), 2)
    try:
        with pytest.raises(RunError, match=r"do not start \(exit status 3\)"):
            list(pool.events(jobs_of(["small"])))
    finally:
        pool.close()


@pytest.mark.parametrize("allowed", [0, 3])
def test_a_system_that_allows_no_further_process_is_asked_a_few_times(
    allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any process the run is refused with the system's message; with some it goes on."""
    starts = []
    start = ReaderPool._start
    monkeypatch.setattr(ReaderPool, "_start", lambda pool: (starts.append(pool), start(pool)))
    pool = ReaderPool(FewProcessesTask(SCRIPTED.preparation, allowed=allowed), 3)
    try:
        if allowed:
            done = list(singly(pool.events(jobs_of(["kill", *["nap,small"] * 30]))))
            assert sorted(place for kind, place in done if kind == "Input") == list(range(1, 31))
        else:
            with pytest.raises(RunError, match=r"do not start \(Resource temporarily unavailable\)"):
                list(pool.events(jobs_of(["small"] * 30)))
    finally:
        pool.close()
    assert len(starts) < 10


def test_exit_statuses_are_those_of_the_workers(pool: ReaderPool) -> None:
    list(singly(pool.events(jobs_of(["small"] * 30))))
    one, other, _third = (worker.process for worker in pool._workers)
    assert isinstance(one, Forked)
    assert one.is_alive()
    began = time.monotonic()
    one.join(0.1)
    assert 0.1 <= time.monotonic() - began < 5
    assert one.exitcode is None
    one.kill()
    one.join()
    assert one.exitcode == -signal.SIGKILL
    assert not one.is_alive()
    one.kill()  # the number may be another process's now, which is not killed
    assert other.is_alive()
    pool._workers[1].pipe.close()
    other.join(20)
    assert other.exitcode == 0


def test_an_answer_to_a_question_that_was_interrupted_is_not_taken_for_the_next(
    pool: ReaderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(singly(pool.events(jobs_of(["small"] * 30))))
    (nursery,) = pool._nurseries
    one, other, _third = (worker.process for worker in pool._workers)
    assert one.pid is not None
    receive = nursery._receive

    def interrupted(_timeout: float | None) -> None:
        raise KeyboardInterrupt

    pool._workers[1].pipe.close()
    other.join(20)
    monkeypatch.setattr(nursery, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.join(0.0)
    monkeypatch.setattr(nursery, "_receive", receive)
    assert one.is_alive()
    one.kill()
    time.sleep(0.2)
    monkeypatch.setattr(nursery, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.join(0.0)  # it has ended, and nobody was told
    monkeypatch.setattr(nursery, "_receive", receive)
    one.join(20)
    assert one.exitcode == -signal.SIGKILL
    assert nursery.is_usable


@pytest.mark.parametrize("timeout", [0.1, None])
def test_one_that_does_not_answer_is_killed_with_its_workers(
    pool: ReaderPool, timeout: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nurseries, "_GRACE", 0.3)
    list(singly(pool.events(jobs_of(["small"] * 30))))
    (nursery,) = pool._nurseries
    send(nursery, signal.SIGSTOP)
    worker = pool._workers[0].process
    worker.kill()
    worker.join(timeout)
    assert worker.exitcode == -signal.SIGKILL
    done = list(singly(pool.events(jobs_of(["small"] * 30))))
    assert sorted(place for kind, place in done if kind != "Opened") == list(range(30))
    assert pool._nurseries[0] is not nursery


def test_each_worker_counts_for_itself(pool: ReaderPool) -> None:
    done = list(singly(pool.events(jobs_of(["nap,small"] * 12))))
    assert sorted(place for kind, place in done if kind == "Input") == list(range(12))
    assert [worker.shared.begun.value for worker in pool._workers] == [worker.ended for worker in pool._workers]
    assert sum(worker.ended for worker in pool._workers) == 12
    assert min(worker.ended for worker in pool._workers) > 0


PRINTING = """
import atexit, sys
sys.path.insert(0, sys.argv[1])
from dataclasses import dataclass
from ecgfounder.drivers.processes import ReaderPool
from tests.harness.process_states import is_running
from tests.harness.scripted import SCRIPTED, ScriptedTask, jobs_of

print("imported")
atexit.register(print, "left")

@dataclass(frozen=True)
class Task(ScriptedTask):
    def events(self, job, *more):
        print("reads", job.place)
        return super().events(job, *more)

if __name__ == "__main__":
    pool = ReaderPool(Task(SCRIPTED.preparation), 2)
    for event in pool.events(jobs_of(["nap,small"] * 6)):
        pass
    pool.close()
"""


def test_what_a_users_filter_prints_is_printed_once(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PRINTING)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, tmp_path / "program.py", ROOT], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.stderr == ""
    said = Counter(done.stdout.splitlines())
    assert [said.pop(f"reads {place}") for place in range(6)] == [1] * 6
    assert said == {"imported": 2, "left": 4}  # imported here and for the workers; left by all four processes


IGNORING = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_command_that_was_started_with_its_children_ignored_embeds(
    n_workers: int, demo_cohort: Path, checkpoint_small: Path, tmp_path: Path
) -> None:
    command = ["-m", "ecgfounder.cli", "embed", "--dataset", demo_cohort / "dataset", "--data_dir", demo_cohort]
    command += ["--checkpoint", checkpoint_small, "--output_dir", tmp_path / "out", "--num_workers", f"{n_workers}"]
    done = subprocess.run([sys.executable, "-c", IGNORING, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr  # one recording is damaged
    assert "Traceback" not in done.stderr


KILLING = """
import sys
sys.path.insert(0, sys.argv[1])
from ecgfounder.drivers.processes import ReaderPool
from ecgfounder.stages.read import Failed
from tests.harness.process_states import is_running
from tests.harness.scripted import SCRIPTED, jobs_of
if __name__ == "__main__":
    pool = ReaderPool(SCRIPTED, int(sys.argv[2]))
    events = list(pool.events(jobs_of(["nap,small", "kill", *["nap,small"] * 6])))
    pool.close()
    print([event.reason for event in events if isinstance(event, Failed)])
"""


@pytest.mark.parametrize(("n_workers", "how"), [(1, "how is not known"), (2, "killed by SIGKILL")])
def test_a_program_that_ignores_its_children_sees_its_workers_die(n_workers: int, how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(KILLING)
    command = [sys.executable, "-c", IGNORING, tmp_path / "program.py", ROOT, f"{n_workers}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"['the reading process died ({how})']\n", "")
