"""`ecgfounder report`: each flag is its setting; the page is where the command says; a run's end names the command."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from ecgfounder.analysis import ReportSettings
from ecgfounder.cli import main
from ecgfounder.commands.report import add_report_arguments, settings_of
from tests.builders.reports import write_hospital_run


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_report_arguments(parser)
    return parser.parse_args(["run", "--output_dir", "out", *words])


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("", {}),
        ("--by site year", {"by": ("site", "year")}),
        ("--label af", {"label": ("af",)}),
        ("--on study", {"on": "study"}),
        ("--group p", {"group": "p"}),
        ("--where age>3", {"where": "age>3"}),
        ("--exclude_flags clipped", {"exclude_flags": ("clipped",)}),
        ("--sample 5", {"sample": 5}),
        ("--map umap", {"map": "umap"}),
        ("--names", {"names": True}),
        ("--drawings", {"drawings": True}),
        ("--seed 3", {"seed": 3}),
    ],
)
def test_each_flag_is_its_setting_and_no_other(words: str, settings: dict[str, Any]) -> None:
    assert settings_of(parsed(*words.split())) == ReportSettings(**settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hospital_run(tmp_path_factory.mktemp("run") / "hospital", 30)


def test_the_page_is_written(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "report",
        str(run),
        "--group",
        "patient",
        "--by",
        "site",
        "--map",
        "pca",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    assert f"{tmp_path / 'out' / 'report.html'} is the page" in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_several_runs_have_names_of_their_own(run: Path, tmp_path: Path) -> None:
    other = write_hospital_run(tmp_path / "hospital", 30, data=5)
    words = [
        "report",
        str(run),
        str(other),
        "--run_names",
        "a",
        "b",
        "--map",
        "pca",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    assert "120 recordings were embedded" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "nothing"], "There is no column 'nothing'"),
        (["--include", "."], "holds no results to include"),
        (["--labels", "table.csv"], "labels and on belong together"),
    ],
)
def test_what_cannot_work_gives_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    if words == ["--include", "."]:
        words = ["--include", str(tmp_path)]
    assert main(["report", str(run), "--output_dir", str(tmp_path / "out"), *words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "counting" not in line]
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_another_folder_is_not_overwritten(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--output_dir", str(run)]) == 2
    assert "report.json" in capsys.readouterr().err
