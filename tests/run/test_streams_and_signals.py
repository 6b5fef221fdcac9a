"""Standard streams never matter to the work; a signal ends a command at any moment, with status 128 + its number."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import orjson
import pytest

from ecgfounder import cli
from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.run import run as run_module
from tests.builders.cohorts import write_cohort
from tests.harness.outputs import json_outputs
from tests.harness.stand_ins import NullEngine
from tests.harness.thinned import thinned

FAILS_AT_EXIT = 120
"""Python's exit status where it cannot write what is left for a standard stream."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    write_cohort(folder / "cohort")
    (folder / "weights.pth").write_bytes(b"weights")
    return folder


@pytest.fixture
def embed(inputs: Path, tmp_path: Path) -> list[str]:
    """A whole run's arguments; two of its recordings fail."""
    return [
        *("embed", "--dataset", str(inputs / "cohort"), "--checkpoint", str(inputs / "weights.pth")),
        *("--output_dir", str(tmp_path / "out"), "--sampling_rate", "500", "--unit", "mV"),
        *("--leads", ",".join(STANDARD_LEADS), "--num_workers", "0", "--batch_size", "2"),
    ]


def closed(number: int) -> None:
    os.close(number)


def full(number: int) -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), number)


def nobody_reads(number: int) -> None:
    reads, writes = os.pipe()
    os.dup2(writes, number)
    os.close(reads)
    os.close(writes)


def forked(arguments: list[str], state: Callable[[int], None], streams: tuple[int, ...]) -> int:
    """The command in a process whose standard streams are in a state from its start; its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 99
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            if number in streams:
                state(number)
            is_there = state is not closed or number not in streams
            setattr(sys, name, os.fdopen(number, "w", closefd=False) if is_there else None)
        engine = NullEngine()
        with mock.patch.object(run_module, "create_engine", return_value=engine):
            try:
                status = cli.main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except OSError:
                status = FAILS_AT_EXIT
    finally:
        os._exit(status)


STATES = [closed, full, nobody_reads]


@pytest.mark.parametrize("streams", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("state", STATES)
def test_streams_that_are_missing_full_or_gone_change_nothing_of_a_run(
    state: Callable[[int], None], streams: tuple[int, ...], embed: list[str], tmp_path: Path
) -> None:
    assert forked([*embed, "--dry_run"], state, streams) == 0
    assert forked(embed, state, streams) == 1
    assert orjson.loads((tmp_path / "out" / "_run" / "run.json").read_bytes())["outcome"] == "complete"
    assert len(json_outputs(tmp_path / "out")) == 19
    ledger = b"".join(part.read_bytes() for part in (tmp_path / "out" / "_run" / "ledger").iterdir())
    assert all(line.startswith(b"{") for line in ledger.splitlines())  # nothing was printed into it
    assert forked([*embed, "--dry_run", "--pooling", "mean"], state, streams) == 2


@pytest.mark.parametrize("state", STATES)
def test_streams_that_are_missing_full_or_gone_change_nothing_of_any_command(
    state: Callable[[int], None], embed: list[str], inputs: Path, tmp_path: Path
) -> None:
    out, file = str(tmp_path / "out"), str(inputs / "cohort" / "ecg_00.npy")
    hints = ["--sampling_rate", "500", "--unit", "mV", "--leads", ",".join(STANDARD_LEADS)]
    commands = [
        (embed, 1),
        (["merge", out], 1),
        (["upgrade", out], 0),
        (["export", out, "--to", "npy", "--output_dir", f"{out}-npy"], 0),
        (["inspect", file, *hints], 0),
        (["inspect", file, "--json", *hints], 0),
        (["inspect", str(inputs / "cohort" / "ecg_07.npy"), *hints], 1),
        (["merge", str(tmp_path / "nothing")], 2),
        (["no_such_command"], 2),
        (["--help"], 0),
        (["--version"], 0),
    ]
    for arguments, expected in commands:
        assert forked(arguments, state, (1, 2)) == expected, arguments


def test_lines_that_are_lost_for_want_of_space_are_spoken_of(
    embed: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert forked([*embed, "--dry_run"], full, (1,)) == 0
    assert "some output could not be printed: [Errno 28] No space left on device" in capfd.readouterr().err


def started(program: str, arguments: list[str]) -> subprocess.Popen[str]:
    """A program that says when it may be sent a signal."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n", process.communicate()
    return process


IMPORTING = """
import sys, time
from ecgfounder import cli

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "ecgfounder.commands.embed":
            print("now", flush=True)
            time.sleep(60)

sys.meta_path.insert(0, Slow())
sys.exit(cli.main(sys.argv[1:]))
"""

LOADING = """
import sys, time
from unittest import mock
from ecgfounder import cli
from ecgfounder.run import run

def load(*_, **__):
    print("now", flush=True)
    time.sleep(60)

with mock.patch.object(run, "create_engine", load):
    sys.exit(cli.main(sys.argv[1:]))
"""

WORKING = """
import sys, time
from unittest import mock
from ecgfounder import cli
from ecgfounder.run import run
from tests.harness.stand_ins import NullEngine

class Engine(NullEngine):
    calls = 0
    def embed(self, batch):
        self.calls += 1
        if self.calls == 5:
            print("now", flush=True)
        time.sleep(0.1)
        return super().embed(batch)

with mock.patch.object(run, "create_engine", return_value=Engine(1)):
    sys.exit(cli.main(sys.argv[1:]))
"""


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    return process.returncode, said


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_during_imports_ends_a_command_as_later_ones_do(number: signal.Signals, embed: list[str]) -> None:
    status, said = ended(started(IMPORTING, embed), number)
    assert status == 128 + number
    assert "Traceback" not in said
    assert f"stopped by {number.name}" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_checkpoint_loads_ends_the_run_at_once_and_gives_the_folder_back(
    number: signal.Signals, embed: list[str], tmp_path: Path
) -> None:
    status, said = ended(started(LOADING, embed), number)
    assert status == 128 + number, said
    assert "Traceback" not in said
    record = tmp_path / "out" / "_run"
    assert (record / "locks" / "run.lock").read_bytes() == b""
    assert not (record / "run.json").exists()


@pytest.mark.parametrize("number", thinned(ENDING_SIGNALS, 2))
def test_every_signal_of_a_scheduler_ends_a_run_with_what_is_in_flight_committed(
    number: signal.Signals, embed: list[str], tmp_path: Path
) -> None:
    words = [*embed[:-1], "1", "--format", "parquet"]  # the shard is still open
    status, said = ended(started(WORKING, words), number)
    assert status == 128 + number, said
    assert f"Stopped by {number.name}" in said
    ledger = b"".join(part.read_bytes() for part in (tmp_path / "out" / "_run" / "ledger").iterdir())
    assert ledger.count(b'"status":"done"') >= 4
    assert ledger.count(b'"records":') == 1
    record = tmp_path / "out" / "_run"
    assert orjson.loads((record / "run.json").read_bytes())["outcome"] == "interrupted"
    assert not list((record / "scratch").iterdir())
    assert [lock.read_bytes() for lock in (record / "locks").iterdir()] == [b""]
    assert not [
        path for path in (tmp_path / "out").iterdir() if path.suffix not in (".parquet", ".yaml") and path != record
    ]


def test_a_signal_that_was_ignored_at_the_start_stays_ignored(embed: list[str], tmp_path: Path) -> None:
    program = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN){WORKING}"  # as nohup does
    status, said = ended(started(program, embed), signal.SIGHUP)
    assert status == 1, said
    assert orjson.loads((tmp_path / "out" / "_run" / "run.json").read_bytes())["outcome"] == "complete"


def test_the_command_line_is_there_before_anything_that_takes_time_to_import() -> None:
    program = "import sys; sys.modules.pop('sitecustomize', 0); import ecgfounder.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"numpy", "ecgfounder.commands.embed", "ecgfounder.storage", "importlib.resources"}.isdisjoint(loaded)
