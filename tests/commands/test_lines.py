"""What a terminal is told: flags as the command line has them, one process's words, and counts that add up."""

from __future__ import annotations

import io
import logging
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ecgfounder import cli
from ecgfounder.commands import chat
from ecgfounder.commands.terminal import Terminal, as_command, as_flags, print_tally
from ecgfounder.errors import RunError
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


# --- control characters ----------------------------------------------------------------------------------------------

HOSTILE = "a\x1b[2J\n\r\x00\x7f\x9b\u202e\u2066\u2028\udc80 b"
ESCAPED = r"a\x1b[2J\n\r\x00\x7f\x9b\u202e\u2066\u2028\udc80 b"
IN_UTF8 = HOSTILE.replace("\udc80", "")  # pytest records log lines, and cannot send the surrogate
AS_ARGUMENT = HOSTILE.replace("\x00", "")


def is_harmless(said: str) -> bool:
    return all(line.isprintable() for line in said.split("\n"))


def test_whatever_a_command_prints_holds_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
        logging.getLogger("ecgfounder.test_lines").warning("%s", IN_UTF8)
        return 0

    assert as_command(work) == 0
    said = capsys.readouterr()
    assert said.out == ESCAPED.replace(r"\n", "\n") + "\n"
    assert is_harmless(said.err)


def test_a_warning_of_the_log_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's, which a command does not have

    def work() -> int:
        logging.getLogger("ecgfounder.test_lines").warning("cannot write %s", HOSTILE)
        return 0

    assert as_command(work) == 0
    assert capsys.readouterr().err == f"cannot write {ESCAPED}\n"


def test_a_name_in_a_line_cannot_begin_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    Terminal().line(f"FAILED {HOSTILE}: damaged")
    assert capsys.readouterr().err == f"FAILED {ESCAPED}: damaged\n"


def test_an_error_is_one_line_and_the_lines_of_its_list(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise RunError(f"{HOSTILE}, the first ones:\n  x\n  y")

    assert as_command(work) == 2
    assert capsys.readouterr().err == f"ecgfounder: {ESCAPED}, the first ones:\n  x\n  y\n"


@pytest.mark.parametrize(
    "words",
    [
        [AS_ARGUMENT],
        ["embed", "--dataset", "d", "--output_dir", "o", AS_ARGUMENT],
        ["embed", "--dataset", "d", "--output_dir", "o", f"--{AS_ARGUMENT}"],
        ["embed", "--batch_size", AS_ARGUMENT],
        ["embed", "--dataset", AS_ARGUMENT, "--output_dir", "o"],
        ["embed", "--dataset", "d", "--output_dir", "o", "--mode", AS_ARGUMENT],
        ["embed", "--dataset", "d", "--output_dir", "o", "--window", AS_ARGUMENT],
        ["merge", AS_ARGUMENT],
        ["upgrade", AS_ARGUMENT],
        ["export", AS_ARGUMENT, "--to", "json", "--output_dir", "o"],
        ["export", "o", "--to", AS_ARGUMENT, "--output_dir", "o"],
        ["inspect", AS_ARGUMENT],
        ["inspect", AS_ARGUMENT, "b"],
        ["inspect", "a", "--unit", AS_ARGUMENT],
        ["inspect", "a", "--plot", AS_ARGUMENT],
        ["verify", "--dataset", AS_ARGUMENT],
    ],
    ids=lambda words: " ".join(words).replace(AS_ARGUMENT, "HOSTILE"),
)
def test_a_value_given_is_repeated_without_its_control_characters(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with suppress(SystemExit):
        cli.main(words)
    said = capsys.readouterr()
    assert said.out + said.err
    assert is_harmless(said.out + said.err)
    assert not any(line.startswith("\\r") for line in (said.out + said.err).split("\n"))  # of the name's second line


@pytest.mark.parametrize("main", [chat.dummy_main, chat.mimic_main])
@pytest.mark.parametrize("flag", ["--dataset_name", "--embeddings_dirs", "--text_cols", "--layout", "--none"])
def test_a_value_given_to_the_chat_commands_is_repeated_without_its_control_characters(
    main: Callable[[list[str]], int], flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "--dataset_name",
        "d",
        "--embeddings_dirs",
        str(tmp_path),
        "--output_file",
        str(tmp_path / "o"),
        "--target_cols",
    ]
    with suppress(SystemExit):
        main([*words, "x", flag, AS_ARGUMENT if flag != "--text_cols" else f'["{AS_ARGUMENT}"'])
    said = capsys.readouterr()
    assert said.err
    assert is_harmless(said.out + said.err)
    assert not any(line.startswith("\\r") for line in said.err.split("\n"))


def test_several_progress_bars_still_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        for text in ("\n", "\r 10%", "\x1b[A", "\x1b[A\x1b[A", "\r", "\r x\r"):
            sys.stderr.write(text)
        return 0

    as_command(work)
    assert capsys.readouterr().err == "\n\r 10%\x1b[A\x1b[A\x1b[A\r\r x\\r"
