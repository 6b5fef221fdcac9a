"""Runs on a Ray cluster: the same results as one process gives, whatever happens to workers, machines and drivers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ledger.ledger import read_ledger
from ecgfounder.storage import locate, storage_options
from tests.builders.cohorts import write_cohort
from tests.harness.filters import DEADLY
from tests.harness.object_server import Gateway
from tests.harness.outputs import json_outputs
from tests.harness.ray_runs import (
    COMPLETE,
    REFUSED,
    STOPPED,
    Driver,
    Machines,
    cluster,
    parts,
    python_path,
    until,
    workers,
)
from tests.harness.ray_started import Started, started
from tests.harness.store_faults import check_sealed, json_objects, rows_of_shards

# One group, so that processes of pytest-xdist share a cluster.
pytestmark = [pytest.mark.services, pytest.mark.timeout(280), pytest.mark.xdist_group("ray")]
ray = pytest.importorskip("ray", reason="Ray is not installed (make test-services)")

COUNT, FAILED = 61, 2


@pytest.fixture(scope="session")
def machines() -> Iterator[Machines]:
    """Two machines with a core each, which all tests share."""
    with cluster(1, 1) as made:
        yield made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort, and a checkpoint."""
    from ecgfounder.demo.demo import write_demo_checkpoint

    folder = tmp_path_factory.mktemp("made")
    write_cohort(folder / "cohort", COUNT)
    write_demo_checkpoint(folder / "weights.pth")
    return folder


Begin = Callable[..., Driver]


@pytest.fixture
def begin(made: Path, tmp_path: Path, graph_cache: Path) -> Iterator[Begin]:
    begun: list[Driver] = []

    def begin(out: Path | str, **more: Any) -> Driver:
        given = {
            "dataset": str(made / "cohort"),
            "output_dir": str(out),
            "checkpoint": str(made / "weights.pth"),
            "leads": list(STANDARD_LEADS),
            "num_workers": 0,
            "driver": "ray",
            "group_size": 8,
        }
        begun.append(Driver(given | more, tmp_path, ECGFOUNDER_CACHE=str(graph_cache)))
        return begun[-1]

    yield begin
    for driver in begun:
        if driver.process.poll() is None:
            driver.process.kill()
        driver.process.wait()


LOCAL: dict[str, Any] = {"driver": "local", "group_size": None}


def result(out: Path, form: str) -> Any:
    if form == "json":
        return json_outputs(out)
    tables = [pq.read_table(shard) for shard in sorted(out.glob("*.parquet"))]
    return sorted(pa.concat_tables(tables).to_pylist(), key=lambda row: row["key"])


@pytest.fixture(scope="session")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory, graph_cache: Path) -> dict[str, Any]:
    """What one process gives."""
    found = {}
    for form in ("json", "parquet"):
        folder = tmp_path_factory.mktemp("expected")
        given = {"dataset": str(made / "cohort"), "output_dir": str(folder / "out"), "leads": list(STANDARD_LEADS)}
        given |= {"checkpoint": str(made / "weights.pth"), "num_workers": 0, "format": form}
        local = Driver(given, folder, ECGFOUNDER_CACHE=str(graph_cache))
        assert local.end() == COMPLETE, local.said
        found[form] = result(folder / "out", form)
    return found


def check(out: Path, form: str, expected: dict[str, Any], failed: int = FAILED) -> None:
    """Each record once, as one process gives it."""
    found = result(out, form)
    assert found == expected[form]
    manifest = pq.read_table(out / "_run" / "manifest.pq")
    assert sorted(manifest["status"].to_pylist()) == ["done"] * (COUNT - failed) + ["failed"] * failed
    state = read_ledger(locate(out / "_run" / "ledger"))
    assert len(state) == COUNT
    named = {output.partition("::")[0] for output in manifest["output"].to_pylist() if output}
    assert {path.name for path in out.iterdir()} - {"_run", ".huggingface.yaml"} == named


# --- the small share ---------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_loses_nothing(
    machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = begin(out, format="parquet", ray_address=machines.address, filters={"slow": 0.1})
    until(lambda: parts(out))
    os.kill(workers(machines.address)[0], signal.SIGKILL)
    assert driver.end() == COMPLETE, driver.said
    check(out, "parquet", expected)
    assert '"processed":61' in driver.said
    workers_too = r"\d workers?, slowest stage: \w+, failures: \w+Error \d"
    assert re.search(rf"done \d+ of 61, failed \d+, [0-9.]+ ECG/s, about [0-9:]+ left; {workers_too}", driver.said)
    assert re.search(
        r"a worker on \S+ died: .*process has died.*; \d+ recordings? that it had are done again", driver.said
    )


def test_a_driver_that_is_killed_takes_its_workers_along_and_a_local_run_goes_on(
    machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = begin(out, ray_address=machines.address, filters={"slow": 0.1})
    until(lambda: len(parts(out)) >= 2)
    driver.kill()
    killed = time.monotonic()
    until(lambda: not workers(machines.address), 30)
    assert time.monotonic() - killed < 30
    driver = begin(out, **LOCAL)
    assert driver.end() == COMPLETE, driver.said
    assert '"processed":61' not in driver.said
    check(out, "json", expected)


def test_a_recording_that_kills_its_worker_is_found_and_fails_alone(
    machines: Machines, begin: Begin, made: Path, tmp_path: Path
) -> None:
    cohort = tmp_path / "cohort"
    write_cohort(cohort, 24)
    samples = np.load(cohort / "ecg_11.npy")
    samples[0, 0] = DEADLY
    np.save(cohort / "ecg_11.npy", samples)
    driver = begin(
        tmp_path / "out", dataset=str(cohort), ray_address=machines.address, filters={"deadly": False}, group_size=4
    )
    assert driver.end(200) == COMPLETE, driver.said
    failures = (tmp_path / "out/_run/failures.csv").read_text()
    assert "ecg_11.npy" in failures
    assert "the process that embeds it died each time" in failures
    manifest = pq.read_table(tmp_path / "out/_run/manifest.pq")
    assert sorted(manifest["status"].to_pylist()) == ["done"] * 21 + ["failed"] * 3


def test_a_signal_ends_the_run_in_order_and_ray_goes_on(
    machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = begin(out, format="parquet", ray_address=machines.address, filters={"slow": 0.1})
    until(lambda: parts(out))
    driver.kill(signal.SIGINT)
    assert driver.end() == STOPPED
    assert "KeyboardInterrupt: stopped after" in driver.said
    driver = begin(out, format="parquet", ray_address=machines.address)
    assert driver.end() == COMPLETE, driver.said
    check(out, "parquet", expected)


def test_what_is_missing_is_named_again_and_again_and_is_no_error(
    machines: Machines, begin: Begin, tmp_path: Path
) -> None:
    driver = begin(tmp_path / "out", ray_address=machines.address, cpus_per_actor=64, tell=1.0)
    until(lambda: driver.said.count("No worker has started for 1 s; still waiting. Each needs 64 CPUs") >= 2)
    assert "no machine is large enough for one" in driver.said
    driver.kill(signal.SIGINT)
    assert driver.end() == STOPPED
    assert not parts(tmp_path / "out")


# --- slow --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_own_cluster_on_this_machine_listens_on_loopback_alone(
    begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    out = tmp_path / "out"
    os.environ["HOME"], home = str(tmp_path / "home"), os.environ.get("HOME", "/")
    try:
        driver = begin(out, ray_address="local", filters={"slow": 0.05})
        until(lambda: parts(out))
        listening = open_ports(family_of(driver.process.pid))
        assert driver.end() == COMPLETE, driver.said
    finally:
        os.environ["HOME"] = home
    check(out, "json", expected)
    assert listening
    assert listening <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def family_of(pid: int) -> set[int]:
    """A process and all that it has started."""
    return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}


def open_ports(pids: set[int]) -> set[str]:
    """The addresses on which processes listen."""
    found = psutil.net_connections("tcp")
    return {each.laddr.ip for each in found if each.status == psutil.CONN_LISTEN and each.pid in pids}


@pytest.mark.slow
@pytest.mark.parametrize("done_before", [True, False])
def test_workers_that_cannot_work_end_the_run_and_blame_no_recording(
    done_before: bool, machines: Machines, begin: Begin, made: Path, tmp_path: Path
) -> None:
    flag = tmp_path / "deadly"
    driver = begin(tmp_path / "out", ray_address=machines.address, filters={"deadly_while": str(flag), "slow": 0.1})
    if done_before:
        until(lambda: parts(tmp_path / "out"))
    flag.touch()
    assert driver.end(250) == STOPPED, driver.said
    assert "cannot work: it died with two different recordings" in driver.said
    state = read_ledger(locate(tmp_path / "out/_run/ledger"))
    assert (state.status == 2).sum() <= FAILED
    assert bool(len(state)) == done_before


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_machine_that_is_lost_and_one_that_is_added(
    form: str, machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    lost = machines.add(1)
    out = tmp_path / "out"
    driver = begin(out, format=form, ray_address=machines.address, filters={"slow": 0.3}, group_size=4)
    until(lambda: len(workers(machines.address)) == 3)
    until(lambda: parts(out))
    machines.lose(lost)
    until(lambda: len(workers(machines.address)) == 2)
    added = machines.add(1)
    until(lambda: len(workers(machines.address)) == 3)
    assert driver.end(200) == COMPLETE, driver.said
    machines.lose(added)
    check(out, form, expected)
    assert "cannot work" not in driver.said


@pytest.mark.slow
def test_a_worker_that_stood_still_comes_too_late(
    machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    """A driver dies, its workers stand still and go on when another driver has finished."""
    out = tmp_path / "out"
    driver = begin(out, format="parquet", ray_address=machines.address, filters={"slow": 0.2})
    until(lambda: parts(out))
    still = workers(machines.address)
    for pid in still:
        os.kill(pid, signal.SIGSTOP)
    driver.kill()
    driver.end()
    again = begin(out, format="parquet", **LOCAL, filters={"slow": 0.0})
    assert again.end() == COMPLETE, again.said
    for pid in still:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    until(lambda: not set(workers(machines.address)) & set(still), 60)
    finished = begin(out, format="parquet", ray_address=machines.address)
    assert finished.end() == COMPLETE, finished.said
    check(out, "parquet", expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_run_begun_locally_goes_on_on_ray_and_is_finished_by_a_job_array(
    form: str, machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = begin(out, **LOCAL, format=form, filters={"slow": 0.2}, shard_size=4)
    until(lambda: (out / "_run/ledger").is_dir() and len(read_ledger(locate(out / "_run/ledger"))) >= 4)
    driver.kill()
    driver.end()
    driver = begin(out, format=form, ray_address=machines.address, filters={"slow": 0.2})
    until(lambda: parts(out))
    driver.kill(signal.SIGTERM)
    driver.end()
    array = [begin(out, **LOCAL, format=form, shard=(number, 2)) for number in (1, 2)]
    for task in array:
        assert task.end() == COMPLETE, task.said
    finished = begin(out, **LOCAL, format=form)
    assert finished.end() == COMPLETE
    assert '"processed":0' in finished.said
    check(out, form, expected)


@pytest.mark.slow
def test_a_recording_whose_worker_died_once_is_not_blamed(
    machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    """As when a worker has run out of memory beside another program."""
    out = tmp_path / "out"
    driver = begin(out, ray_address=machines.address, filters={"deadly_once": str(tmp_path / "died")})
    assert driver.end() == COMPLETE, driver.said
    assert (tmp_path / "died").exists()
    check(out, "json", expected)


@pytest.mark.slow
def test_a_worker_that_stands_still_is_replaced(
    machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = begin(out, format="parquet", ray_address=machines.address, filters={"slow": 0.2}, patience=8.0)
    until(lambda: parts(out))
    still = workers(machines.address)[0]
    os.kill(still, signal.SIGSTOP)
    try:
        assert driver.end(200) == COMPLETE, driver.said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(still, signal.SIGCONT)
    check(out, "parquet", expected)


@pytest.mark.slow
def test_a_store_that_is_gone_for_some_time(
    bucket: str, gateway: Gateway, machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    """The run waits or stops; started again, it goes on, and no recording has failed for it."""
    options = store_options_here()
    out = locate(f"s3://{bucket}/study", storage_options(options))
    given = {"format": "parquet", "ray_address": machines.address, "storage_options": options}
    driver = begin(f"s3://{bucket}/study", **given, filters={"slow": 0.2})
    until(lambda: [name for name in (out / "_run/ledger").names() if "-group" in name])
    gateway.rule = lambda _request: 503
    time.sleep(15.0)
    gateway.rule = lambda _request: None
    status = driver.end(250)
    assert status in (COMPLETE, STOPPED, REFUSED), driver.said
    if status != COMPLETE:
        driver = begin(f"s3://{bucket}/study", **given)
        assert driver.end(200) == COMPLETE, driver.said
    assert rows_of_shards(out) == expected["parquet"]
    check_sealed(out, COUNT - FAILED, FAILED)


def store_options_here() -> dict[str, str]:
    """The object store of the environment as options that travel with a run."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL")
    options = {name.removeprefix("AWS_").lower().replace("_url", ""): os.environ[name] for name in names}
    return options | {"allow_http": "true"}


@pytest.mark.slow
def test_two_drivers_at_the_same_time(machines: Machines, begin: Begin, tmp_path: Path) -> None:
    out = tmp_path / "out"
    driver = begin(out, ray_address=machines.address, filters={"slow": 0.3})
    until(lambda: parts(out))
    for more in ({"ray_address": machines.address}, LOCAL):
        other = begin(out, **more)
        assert other.end() == REFUSED
        assert f"is in use by process {driver.process.pid}" in other.said
    assert driver.end() == COMPLETE, driver.said


@pytest.mark.slow
def test_a_cluster_that_ends_in_the_middle(begin: Begin, expected: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with cluster(2) as own:
        driver = begin(out, format="parquet", ray_address=own.address, filters={"slow": 0.2})
        until(lambda: parts(out))
    until(lambda: not workers(own.address), 30)
    driver.kill()
    driver.end()
    again = begin(out, format="parquet", ray_address="local")
    assert again.end() == COMPLETE, again.said
    check(out, "parquet", expected)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "parquet"])
def test_a_run_to_a_bucket_loses_a_worker(
    form: str, bucket: str, machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    options = store_options_here()
    out = locate(f"s3://{bucket}/study", storage_options(options))
    driver = begin(
        f"s3://{bucket}/study",
        format=form,
        ray_address=machines.address,
        filters={"slow": 0.2},
        storage_options=options,
    )
    until(lambda: [name for name in (out / "_run/ledger").names() if "-group" in name])
    os.kill(workers(machines.address)[0], signal.SIGKILL)
    assert driver.end() == COMPLETE, driver.said
    found = json_objects(out) if form == "json" else rows_of_shards(out)
    assert found == expected[form]
    check_sealed(out, COUNT - FAILED, FAILED)


@pytest.mark.slow
def test_reading_processes_are_kept_from_group_to_group_and_end_with_their_worker(
    machines: Machines, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = begin(
        out, format="parquet", ray_address=machines.address, num_workers=1, filters={"slow": 0.3}, group_size=4
    )
    until(lambda: len(parts(out)) >= 2)
    worker = workers(machines.address)[0]
    readers = until(lambda: readers_of(worker))
    before = len(parts(out))
    until(lambda: len(parts(out)) >= before + 2)
    assert readers_of(worker) == readers
    os.kill(worker, signal.SIGKILL)
    until(lambda: not any(map(psutil.pid_exists, readers)), 20)
    assert driver.end() == COMPLETE, driver.said
    check(out, "parquet", expected)


def readers_of(worker: int) -> set[int]:
    """The reading processes of a worker."""
    return {child.pid for child in psutil.Process(worker).children() if "spawn_main" in " ".join(child.cmdline())}


@pytest.mark.slow
def test_the_command_says_and_does_the_same_as_without_a_cluster(
    machines: Machines, made: Path, demo_cohort: Path, tmp_path: Path
) -> None:
    """The dry run, the run and the run again: exit status, standard output, and messages but for the engine and times."""

    def command(where: str, *flags: str) -> tuple[int, str, str]:
        words = [
            "--dataset",
            str(demo_cohort / "dataset"),
            "--data_dir",
            str(demo_cohort / "ecg"),
            "--num_workers",
            "2",
        ]
        words += ["--checkpoint", str(made / "weights.pth"), "--output_dir", str(tmp_path / where)]
        words += ["--driver", "ray", "--ray_address", machines.address] if where == "on_ray" else []
        program = [sys.executable, "-m", "ecgfounder.cli", "embed", *words, *flags]
        environment = os.environ | {"PYTHONPATH": python_path()}
        done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=200, check=False)
        lines = [line for line in done.stderr.splitlines() if not re.search(r" done \d+ of \d+, failed ", line)]
        varying = r"engine .*|\d\d:\d\d:\d\d.*|free: \S+ GB|\d+(\.\d+)? (s|ECG/s|ms)\b|on_ray|local"
        return done.returncode, re.sub(varying, "...", done.stdout), re.sub(varying, "...", "\n".join(lines))

    for flags in (("--dry_run",), (), ()):
        assert command("on_ray", *flags) == command("local", *flags)
    assert json_outputs(tmp_path / "on_ray") == json_outputs(tmp_path / "local")


# --- the memory of a worker's device -----------------------------------------------------------------------------------

LONG = 12_000
"""Samples of one recording that is longer than all others, which have at most 1,200."""


@pytest.fixture(scope="module")
def with_a_long_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "cohort"
    write_cohort(folder, 40)
    samples = np.random.default_rng(1).standard_normal((12, LONG)).astype(np.float32)
    np.save(folder / "ecg_09.npy", samples)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "others", "fails"),
    [(5100, None, False), (5100, 5100, True), (100, None, False)],
    ids=["another has enough", "none has enough for one", "the first has none left"],
)
def test_a_recording_for_which_device_memory_does_not_suffice_is_tried_elsewhere(
    first: int,
    others: int | None,
    fails: bool,
    machines: Machines,
    begin: Begin,
    with_a_long_one: Path,
    tmp_path: Path,
) -> None:
    """Batches are halved as in a local run, no worker dies, and a recording fails when it does not fit a second one."""
    out, local = tmp_path / "out", tmp_path / "local"
    given = {"dataset": str(with_a_long_one), "engine": "torch", "device": "cpu"}
    memory = [str(tmp_path / "claim"), first, others]
    driver = begin(out, **given, ray_address=machines.address, group_size=16, memory=memory, filters={"slow": 0.02})
    assert driver.end(200) == COMPLETE, driver.said
    alone = begin(local, **(given | LOCAL))
    assert alone.end() == COMPLETE, alone.said
    expected = json_outputs(local)
    if fails:
        del expected["ecg_09.json"]
    assert json_outputs(out) == expected
    failures = (out / "_run/failures.csv").read_text()
    assert ("ecg_09.npy" in failures) == fails
    assert ("CUDA out of memory" in failures) == fails
    assert len(failures.splitlines()) == 1 + FAILED + fails
    assert "died" not in driver.said
    assert "cannot work" not in driver.said
    assert re.search(r"GPU memory ran out on \d recordings of \d+ samples; continuing with", driver.said)


# --- nodes that are taken away, and a head that does not answer ----------------------------------------------------------


@pytest.fixture(scope="module")
def several() -> Iterator[Started]:
    """A head without cores and two nodes with one each."""
    with started(0, 1, 1) as made:
        yield made


@pytest.mark.slow
@pytest.mark.parametrize("in_time", [True, False])
def test_a_machine_that_is_taken_away_with_notice_counts_against_no_recording(
    in_time: bool, several: Started, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    """With time enough its worker leaves in order; without, it dies and Ray says that it was pre-empted."""
    out = tmp_path / "out"
    taken = several.nodes[-1]
    # Each node has recordings for 8 s in hand, and the notice is long or short of them.
    driver = begin(out, format="parquet", ray_address=several.address, filters={"slow": 0.5})
    until(lambda: len(workers(several.address)) == 2 and parts(out))
    if in_time:
        several.drain(taken, 60)
        until(lambda: f"{HOST} will be taken away in " in driver.said, 30)
        until(lambda: not taken.is_alive, 60)  # it has ended itself, because nothing is left there
    else:
        for pid in workers(several.address):
            if pid in taken.pids:
                os.kill(pid, signal.SIGSTOP)  # it cannot leave in order
        several.drain(taken, 2)
        several.lose(taken)
    several.add(1)
    assert driver.end(200) == COMPLETE, driver.said
    check(out, "parquet", expected)
    assert "cannot work" not in driver.said
    assert "Workers do not start" not in driver.said
    if in_time:
        assert "died" not in driver.said
        several.lose(taken)
    else:
        assert re.search(
            r"was taken away \(pre-emption\): .*spot instance reclaimed; \d+ recordings that it", driver.said
        )


HOST = socket.gethostname()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["head killed", "head suspended", "head and driver killed"])
def test_a_head_that_is_lost_ends_the_run_in_order_and_another_driver_goes_on(
    fault: str, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Workers on nodes that live end by themselves, publish nothing after the lease, and Ray does not kill the driver."""
    out = tmp_path / "out"
    with started(0, 1, 1) as own:
        driver = begin(out, format="parquet", ray_address=own.address, filters={"slow": 1.0}, head=8.0, group_size=4)
        until(lambda: len(workers(own.address)) == 2 and parts(out))
        lost = time.monotonic()
        own.head.signal(signal.SIGSTOP if fault == "head suspended" else signal.SIGKILL)
        if fault == "head and driver killed":
            driver.kill()
            assert driver.end() == -signal.SIGKILL
        else:
            assert driver.end(60) == STOPPED, driver.said
            assert re.search(r"stopped: the head of the Ray cluster has not answered for \d+ s", driver.said)
        until(lambda: not workers(own.address), 45)
        assert time.monotonic() - lost < 60
        published = set(parts(out))
        again = begin(out, format="parquet", **LOCAL)
        assert again.end() == COMPLETE, again.said
        assert '"processed":61' not in again.said
        own.head.signal(signal.SIGCONT)
        time.sleep(3.0)
        assert set(parts(out)) <= published
    check(out, "parquet", expected)


@pytest.mark.slow
def test_a_head_that_is_cut_off_for_some_seconds_changes_nothing(
    several: Started, begin: Begin, expected: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = begin(out, format="parquet", ray_address=several.address, filters={"slow": 0.5}, group_size=4)
    until(lambda: parts(out))
    several.head.signal(signal.SIGSTOP)
    before = len(parts(out))
    until(lambda: len(parts(out)) >= before + 2, 30)  # groups are handed out without the head
    several.head.signal(signal.SIGCONT)
    assert driver.end(200) == COMPLETE, driver.said
    check(out, "parquet", expected)


# --- jobs and metrics --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_that_is_submitted_and_its_metrics(
    made: Path, expected: dict[str, Any], tmp_path: Path, graph_cache: Path
) -> None:
    from ray.job_submission import JobStatus, JobSubmissionClient

    given = {"dataset": str(made / "cohort"), "output_dir": str(tmp_path / "out"), "leads": list(STANDARD_LEADS)}
    given |= {"checkpoint": str(made / "weights.pth"), "num_workers": 0, "driver": "ray", "group_size": 8}
    given |= {"filters": {"slow": 0.3}}
    (tmp_path / "given.json").write_text(json.dumps(given))
    port = free_port()
    with cluster(2, dashboard=port):
        client = until(lambda: connected_client(JobSubmissionClient, f"http://127.0.0.1:{port}"), 200)
        code = "import sys; from tests.harness.ray_runs import main; sys.exit(main(open(sys.argv[1]).read()))"
        environment = {"env_vars": {"PYTHONPATH": python_path(), "ECGFOUNDER_CACHE": str(graph_cache)}}
        command = f"{sys.executable} -c '{code}' {tmp_path / 'given.json'}"
        job = until(lambda: submitted(client, command, environment), 200)
        until(lambda: b"ecgfounder_recordings_done" in metrics(), 200)
        until(lambda: client.get_job_status(job).is_terminal(), 200)
        assert client.get_job_status(job) == JobStatus.SUCCEEDED, client.get_job_logs(job)
        assert '"processed":61' in client.get_job_logs(job)
    check(tmp_path / "out", "json", expected)


def connected_client(kind: Any, address: str) -> Any:
    try:
        return kind(address)
    except ConnectionError:
        return None


def submitted(client: Any, command: str, environment: dict[str, Any]) -> str | None:
    try:
        return str(client.submit_job(entrypoint=command, runtime_env=environment))
    except RuntimeError:  # the cluster's agent is still starting
        return None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def metrics() -> bytes:
    """What the agents of Ray's machines here tell to Prometheus."""
    found = b""
    for process in psutil.process_iter(["cmdline"]):
        if (process.info["cmdline"] or [""])[0] != "ray::DashboardAgent":
            continue
        for port in {each.laddr.port for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN}:
            with (
                contextlib.suppress(OSError, http.client.HTTPException),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer,
            ):
                found += answer.read()
    return found


@pytest.mark.slow
def test_no_cluster_at_an_address_is_said_in_one_line(begin: Begin, tmp_path: Path) -> None:
    driver = begin(tmp_path / "out", ray_address="127.0.0.1:1")
    assert driver.end(100) == REFUSED
    assert "No Ray cluster answers at 127.0.0.1:1 (ray_address): " in driver.said


# --- what Ray says of a death, without a cluster -------------------------------------------------------------------------


def died(reason: str, death: Any = None) -> Exception:
    from ray.core.generated.common_pb2 import ActorDiedErrorContext

    context = ActorDiedErrorContext(
        class_name="Host", actor_id=bytes(16), pid=7, node_ip_address="10.0.0.7", error_message=reason
    )
    if death is not None:
        context.node_death_info.reason = death
    return ray.exceptions.ActorDiedError(context)


def deaths() -> dict[str, tuple[Exception, bool, bool]]:
    from ray.core.generated.common_pb2 import NodeDeathInfo

    errors = ray.exceptions
    gone = "The actor died because its node has died. Node Id: 0a1b"
    taken = f"{gone}\n\tthe actor's node was preempted: spot instance reclaimed"
    low = "Task was killed due to the node running low on memory. To see the logs, use `ray logs raylet.out -ip 10.0.0.7`."
    return {
        "killed": (
            died("The actor is dead because its worker process has died. exit code 2. End of file."),
            False,
            False,
        ),
        "out of memory": (errors.OutOfMemoryError(low), False, False),
        "node lost": (died(gone), True, False),
        "pre-empted": (died(taken, NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED), True, True),
        "not startable": (errors.ActorUnschedulableError("The node specified doesn't exist any more"), True, False),
    }


@pytest.mark.parametrize("case", ["killed", "out of memory", "node lost", "pre-empted", "not startable"])
def test_only_the_death_of_a_machine_is_not_counted_against_recordings(case: str) -> None:
    from types import SimpleNamespace

    from ecgfounder.drivers.actors import ActorSettings
    from ecgfounder.drivers.ray import Actor, Fleet, Needs

    error, with_machine, preempted = deaths()[case]
    machine = {"NodeID": "m", "Alive": True, "Resources": {"CPU": 1.0}, "NodeManagerHostname": "host"}

    def get(_reference: Any) -> Any:
        raise error

    fake = SimpleNamespace(
        nodes=lambda: [machine],
        available_resources=dict,
        remote=lambda kind: kind,
        kill=lambda _handle: None,
        get=get,
        exceptions=ray.exceptions,
        _private=SimpleNamespace(state=SimpleNamespace(state=SimpleNamespace(get_draining_nodes=dict))),
    )
    fleet = Fleet(fake, ActorSettings("local"), print, list, print, needs=Needs(1, 0))
    actor = Actor(None, "m", "host", 1.0, 0.0, facts="open", groups={"result": "group"})
    fleet.actors.append(actor)
    (event,) = fleet._event(actor, "result")
    fleet.close()
    assert (event.with_machine, event.preempted, event.groups) == (with_machine, preempted, ("group",))
    assert event.reason
    assert "actor_id" not in event.reason
    assert "died unexpectedly before finishing" not in event.reason
