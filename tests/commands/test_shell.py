"""Help by purpose, with defaults and an example; completion in shells."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ecgfounder import cli
from ecgfounder.cli import COMMANDS, EXAMPLES, GROUPS, main

HAS_DEFAULT = re.compile(r"\(default: .+\)")


def parsers() -> dict[str, argparse.ArgumentParser]:
    return dict(cli._parsers(list(COMMANDS))[1].choices)


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_every_command_is_in_one_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)
    assert set(EXAMPLES) == set(COMMANDS)


def test_the_program_s_help_has_the_commands_by_purpose(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys)
    assert said.startswith("usage: ecgfounder [-h] [--version] [--print_completion SHELL] COMMAND ...\n")
    at = [said.index(f"\n{group}:\n") for group in GROUPS]
    assert at == sorted(at)
    for name, what in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", said, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_help_has_its_example_which_it_takes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys, name)
    assert said.startswith(f"usage: ecgfounder {name} ")
    assert said.endswith(f"\nexample:\n  ecgfounder {EXAMPLES[name]}\n")
    command, *words = shlex.split(EXAMPLES[name])
    assert command == name
    parsers()[name].parse_args(words)


def test_every_flag_of_embed_is_in_a_group_with_its_default() -> None:
    parser = parsers()["embed"]
    groups = {group.title: group._group_actions for group in parser._action_groups if group._group_actions}
    assert list(groups) == [
        "options",
        "cohort",
        "outputs",
        "signal",
        "network",
        "run",
        "before a run",
        "reading",
        "speed and limits",
        "several machines",
        "object stores",
    ]
    assert [action.dest for action in groups.pop("options")] == ["help"]
    for action in (action for actions in groups.values() for action in actions):
        takes_value = action.nargs != 0
        assert action.help
        if takes_value and not action.required:
            told = action.help % {"default": action.default}
            assert HAS_DEFAULT.search(told), action.dest
            if isinstance(action.default, int | float | str):
                assert f"default: {action.default}" in told, action.dest


def test_an_error_of_embed_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["embed", "--dataset", "d"])
    assert capsys.readouterr().err == (
        "usage: ecgfounder embed --dataset DATASET --output_dir OUTPUT_DIR [flags]\n"
        "ecgfounder embed: error: the following arguments are required: --output_dir\n"
    )


# --- completion --------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script of a shell."""
    pytest.importorskip("shtab", reason="shtab is not installed; the extra [completion]")
    assert main(["--print_completion", request.param]) == 0
    path = tmp_path / f"completion.{request.param}"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ecgfounder sta", {"status"}),
        ("ecgfounder embed --keep", {"--keep_columns"}),
        ("ecgfounder embed --pooling ", {"none", "mean", "both"}),
        ("ecgfounder embed --mode 1", {"12lead", "1lead"}),
        ("ecgfounder export --to p", {"parquet", "page"}),
        ("ecgfounder --print_completion f", {"fish"}),
    ],
)
def test_bash_completes_commands_flags_and_values(script: Path, typed: str, offered: set[str]) -> None:
    words = typed.split(" ")
    ask = f"""
        source {script}
        COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(typed)}; COMP_POINT={len(typed)}
        complete=$(complete -p ecgfounder | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        $complete ecgfounder {shlex.join(words[-1:])} {shlex.join(words[-2:-1])}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
    assert set(run.stdout.split()) == offered, run.stderr


@pytest.mark.parametrize("script", ["bash", "zsh", "fish"], indirect=True)
def test_a_script_has_every_command_and_is_taken_by_its_shell(script: Path) -> None:
    text = script.read_text()
    for name, parser in parsers().items():
        assert name in text
        for action in parser._actions:
            assert all(flag.lstrip("-") in text for flag in action.option_strings)
    shell = shutil.which(script.suffix[1:])
    if shell is None:
        pytest.skip(f"{script.suffix[1:]} is not installed")
    assert subprocess.run([shell, "-n", str(script)], timeout=60).returncode == 0


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_other_shells_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--print_completion", *words])
    assert stop.value.code == 2
    assert "--print_completion: expected one of bash, zsh, fish" in capsys.readouterr().err


def test_without_shtab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print_completion", "bash"]) == 2
    assert capsys.readouterr().err == (
        "ecgfounder: completion in shells needs the package 'shtab': pip install 'ecgfounder[completion]'\n"
    )
