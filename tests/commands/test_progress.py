"""The progress of a run in logs: a line a minute, and JSON for programs."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from ecgfounder.cli import main
from ecgfounder.commands.terminal import JsonTerminal, Terminal
from ecgfounder.errors import StorageError
from ecgfounder.run import pace
from ecgfounder.run.pace import Minutes, Pace, duration


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time."""
    now = [1000.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 1000.0 + seconds)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute lasts a twentieth of a second."""
    monkeypatch.setattr(Minutes.__init__, "__defaults__", (0.05,))


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def events(text: str) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in text.splitlines()]


def test_the_rate_is_that_of_the_last_five_minutes(clock: Callable[[float], None]) -> None:
    told: list[Pace] = []
    minutes = Minutes(told.append, 10_000)
    minutes.count(0, 0, 1000)
    for minute, done in enumerate((60, 120, 180, 240, 300, 310, 310), start=1):
        clock(60.0 * minute)
        minutes.count(done - 10, 10, 1000)
        minutes._tick()
    minutes.close()
    assert told[0] == Pace(50, 10, 1000, 1.0, 940.0)
    assert told[4] == Pace(290, 10, 1000, 1.0, 700.0)
    assert told[6] == Pace(300, 10, 1000, (310 - 120) / 300, pytest.approx(690 / (190 / 300)))


def test_without_work_in_the_last_minutes_no_time_is_predicted(clock: Callable[[float], None]) -> None:
    told: list[Pace] = []
    minutes = Minutes(told.append, 10_000)
    minutes.count(5, 1, 10)
    clock(60)
    minutes._tick()
    minutes.count(0, 0, 4)  # outputs are written again: counted from 0
    clock(120)
    minutes._tick()
    minutes.close()
    assert told == [Pace(5, 1, 10, 0.0, None), Pace(0, 0, 4, 0.0, None)]
    assert str(told[0]) == "done 5 of 10, failed 1, 0.0 ECG/s"
    assert (
        str(Pace(1200, 3, 800_000, 20.25, 39_451.0))
        == "done 1,200 of 800,000, failed 3, 20.2 ECG/s, about 10:57:31 left"
    )
    assert str(Pace(5, 1, 10, 0.0, None, "3 workers")) == "done 5 of 10, failed 1, 0.0 ECG/s; 3 workers"


def test_a_line_comes_also_while_nothing_is_done_and_none_after_the_end(
    quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    said = ""

    def lines() -> list[str]:
        nonlocal said
        said += capsys.readouterr().err
        return said.splitlines()

    console = Terminal()
    console.progress(2, 1, 10)
    wait_until(lambda: len(lines()) >= 2)
    console.close()
    stopped = lines()
    time.sleep(0.2)
    assert lines() == stopped
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  done 2 of 10, failed 1, 0\.0 ECG/s", line) for line in stopped
    )
    assert not [thread for thread in threading.enumerate() if thread.name == "ecgfounder-tick"]
    console.progress(0, 0, 7)  # of another run
    wait_until(lambda: any("done 0 of 7, failed 0" in line for line in lines()))
    console.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "ecgfounder-tick"]


def test_what_a_run_says_of_its_workers_is_in_the_same_line(
    quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    for console in (Terminal(), JsonTerminal()):
        console.progress(2, 1, 10, "3 workers")
        said = ""

        def lines() -> list[str]:
            nonlocal said
            said += capsys.readouterr().err
            return said.splitlines()

        wait_until(lambda lines=lines: len(lines()) >= 2)
        console.close()
        assert all(line.endswith(("0.0 ECG/s; 3 workers", '"detail":"3 workers"}')) for line in said.splitlines())


def test_the_main_process_of_a_launch_says_that_the_counts_are_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    Terminal().minute(Pace(2, 1, 10, 0.0, None))
    assert capsys.readouterr().err.endswith("  process 1 of 4: done 2 of 10, failed 1, 0.0 ECG/s\n")


def test_other_processes_of_a_launch_say_nothing(
    quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    console = Terminal()
    console.progress(2, 1, 10)
    time.sleep(0.2)
    console.close()
    assert capsys.readouterr() == ("", "")


def test_for_programs_everything_is_an_object(
    quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, which a command does not have
    console = JsonTerminal()
    console.line("use overwrite=True\n\x1b[2J")
    with console.logged():
        logging.getLogger("ecgfounder.test_progress").warning("cannot sync")
    console.error("refused:\n  x")
    said = capsys.readouterr().err
    console.progress(2, 1, 10)
    more = ""

    def lines() -> int:
        nonlocal more
        more += capsys.readouterr().err
        return len(more.splitlines())

    wait_until(lambda: lines() >= 1)
    console.close()
    found = events(said) + events(more)[:1]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", each.pop("time")) for each in found)
    assert found == [
        {"event": "message", "message": r"use --overwrite\n\x1b[2J"},
        {"event": "message", "message": "cannot sync"},
        {"event": "error", "message": "refused:\n  x"},
        {"event": "progress", "done": 2, "failed": 1, "total": 10, "rate": 0.0, "seconds_left": None},
    ]


def test_a_run_can_be_followed_by_a_program(demo_cohort: Path, checkpoint_12lead: Path, tmp_path: Path) -> None:
    words = ["embed", "--dataset", str(demo_cohort / "ecg"), "--checkpoint", str(checkpoint_12lead), "--log_json"]
    words += ["--output_dir", str(tmp_path / "out"), "--pooling", "mean", "--num_workers", "0"]
    run = subprocess.run([sys.executable, "-m", "ecgfounder.cli", *words], capture_output=True, text=True, timeout=240)
    assert (run.returncode, run.stdout) == (1, "")
    found = events(run.stderr)
    assert {each["event"] for each in found} == {"message", "end"}
    end = found[-1]
    assert end == end | {"status": 1, "outcome": "complete", "done": 12, "failed": 1, "pending": 0, "processed": 13}
    assert end["rate"] == pytest.approx(13 / end["seconds"], rel=0.01)
    assert any("12 of 13 recordings embedded, 1 failed" in each.get("message", "") for each in found)


def test_a_refusal_is_an_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embed", "--dataset", str(tmp_path / "none.csv"), "--output_dir", str(tmp_path / "out"), "--log_json"]
    assert main([*words, "--checkpoint", str(tmp_path / "none.pth")]) == 2
    (error,) = events(capsys.readouterr().err)
    assert error["event"] == "error"
    assert "none.pth" in error["message"]


def test_a_failing_receiver_ends_nothing() -> None:
    called = threading.Event()

    def tell(_pace: Pace) -> None:
        called.set()
        raise StorageError("no")

    minutes = Minutes(tell, 0.01)
    minutes.count(0, 0, 1)
    assert called.wait(20)
    minutes.close()


def test_a_day_has_more_than_24_hours() -> None:
    assert [duration(each) for each in (0, 59.6, 3599, 360_000)] == ["00:00:00", "00:01:00", "00:59:59", "100:00:00"]
