"""What a terminal is told: flags as the command line has them, one process's words, and counts that add up."""

from __future__ import annotations

import io
import sys
from collections import Counter
from pathlib import Path

import pytest

from ecgfounder.commands.terminal import Terminal, as_flags, print_tally
from ecgfounder.ledger.manifest import Tally


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen_of(monkeypatch: pytest.MonkeyPatch, rank: str | None = None) -> Screen:
    """A terminal in the place of standard error, of a process of that rank."""
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    made = Screen()
    monkeypatch.setattr(sys, "stderr", made)
    return made


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("layout='tree' mirrors data_dir", "--layout tree mirrors --data_dir"),
        ("overwrite=True would do", "--overwrite would do"),
        ("window=10 or 2.5", "--window 10 or 2.5"),
        ("compiled=True", "--compile"),
        ("the 'split' parameter", "--split"),
        ("Invalid value for the 'batch_size' parameter.", "Invalid value for --batch_size."),
        ("/data/id_column/x.xml", "/data/id_column/x.xml"),
        ("id_column.csv", "id_column.csv"),
        ("--id_column", "--id_column"),
        ("the unit is wrong", "the unit is wrong"),
        ("my_layout='tree'", "my_layout='tree'"),
    ],
)
def test_a_message_of_the_library_names_flags_and_nothing_else_is_changed(message: str, shown: str) -> None:
    assert as_flags(message) == shown


def test_lines_go_to_standard_error_as_flags(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().line("use overwrite=True")
    assert capsys.readouterr() == ("", "use --overwrite\n")


def test_in_a_pipe_there_is_no_progress_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = Terminal()
    console.progress(1, 0, 10)
    console.close()
    assert capsys.readouterr() == ("", "")


def test_the_progress_line_counts_what_is_done_and_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    console = Terminal()
    for done, failed in ((1, 0), (4, 2), (7, 3)):
        console.progress(done, failed, 10)
    console.line("in between")
    console.close()
    said = screen.getvalue()
    assert "10/10" in said
    assert "failed 3" in said
    assert "in between\n" in said
    console.line("after it")
    assert screen.getvalue().endswith("after it\n")


@pytest.mark.parametrize(("rank", "quiet"), [("0", False), ("", False), ("1", True)])
def test_only_the_main_process_of_a_launch_shows_progress(
    monkeypatch: pytest.MonkeyPatch, rank: str, quiet: bool
) -> None:
    screen = screen_of(monkeypatch, rank)
    console = Terminal()
    console.progress(1, 0, 10)
    console.close()
    assert (screen.getvalue() == "") == quiet


def told(tally: Tally, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_tally(tally, Path("/out"), Terminal())
    return capsys.readouterr().err.splitlines()


def test_a_run_without_trouble_says_no_more_than_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(Tally(done=3), capsys) == []
    assert told(Tally(done=3, seconds={"read": 1.25, "write": 0.04, "other": 9.0}), capsys) == [
        "Time by stage, all processes and threads together: read 1.2 s, write 0.0 s"
    ]


def test_findings_are_shares_of_what_is_done_the_most_frequent_first(capsys: pytest.CaptureFixture[str]) -> None:
    likely = Counter({"A": 1, "B": 4, "C": 2, "D": 3, "E": 1, "F": 8})
    assert told(Tally(done=8, failed=2, likely=likely, failures=[("x", "damaged")]), capsys) == [
        "Statements with a probability of one half or more: F 100%, B 50%, D 38%, C 25%, A 12%",
        "FAILED x: damaged",
        "All failures with their reasons: /out/_run/failures.csv",
        "2 failed; --retry_failed tries them again",
    ]


def test_calibration_pulses_and_missing_files_come_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    flags = Counter({"calibration_pulse": 1200, "flat_lead": 5})
    lines = told(Tally(done=1500, failed=1, absent=1, flags=flags, failures=[("x", "No such file")]), capsys)
    assert lines[0].startswith("1,200 of 1,500 recordings include a 1 mV calibration pulse")
    assert lines[2].startswith("Recordings without a file: 1. Relative paths are relative to --data_dir")


def test_a_resume_with_nothing_but_earlier_failures_says_how_to_try_them_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number, line in ((1, "1 failed before; --retry_failed tries it again"), (1200, "1,200 failed before; ")):
        print_tally(Tally(failed=number), Path("/out"), Terminal(), all_before=True)
        assert capsys.readouterr().err.splitlines()[-1].startswith(line)
