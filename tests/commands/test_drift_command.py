"""`ecgfounder drift`: each flag is its setting and no other; what cannot work is refused before any work."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ecgfounder.analysis import DriftSettings
from ecgfounder.cli import main
from ecgfounder.commands.drift import add_drift_arguments, settings_of
from tests.builders.probes import write_run
from tests.builders.sites import sites_cohort

QUICK = ("--folds", "2", "--n_draws", "20", "--permutations", "19", "--chance", "0", "--random_directions", "0")


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("", {}),
        (
            "--by site year --as_levels site --as_number year",
            {"by": ("site", "year"), "as_levels": ("site",), "as_number": ("year",)},
        ),
        ("--label af --label vt", {"label": ("af", "vt")}),
        ("--codes c --label AFIB", {"codes": "c", "label": ("AFIB",)}),
        ("--on study", {"on": "study"}),
        ("--group p", {"group": "p"}),
        ("--where age>3", {"where": "age>3"}),
        ("--exclude_flags clipped flat", {"exclude_flags": ("clipped", "flat")}),
        ("--features mean_std", {"features": "mean_std"}),
        ("--folds 3", {"folds": 3}),
        ("--sample 400", {"sample": 400}),
        ("--permutations 99", {"permutations": 99}),
        ("--chance 0", {"chance": 0}),
        ("--random_directions 2", {"random_directions": 2}),
        ("--n_draws 50", {"n_draws": 50}),
        ("--seed 4", {"seed": 4}),
    ],
)
def test_each_flag_is_its_setting(words: str, settings: dict[str, Any]) -> None:
    parser = argparse.ArgumentParser()
    add_drift_arguments(parser)
    told = settings_of(parser.parse_args(["run", "--output_dir", "out", "--by", "site", *words.split()]))
    usual = DriftSettings(by=("site",))
    names = [each.name for each in fields(told)]
    assert {name: getattr(told, name) for name in names if getattr(told, name) != getattr(usual, name)} == settings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drift-command")
    table = sites_cohort(120, prevalence=(0.3, 0.7), of_site=2.0, per_patient=(1, 2))
    write_run(folder / "run", table)
    table.assign(word="the same\x1b[2J").to_csv(folder / "labels.csv", index=False)
    return folder


def words(place: Path, *further: str) -> list[str]:
    labels = ["--labels", str(place / "labels.csv"), "--on", "study_id"]
    return ["drift", str(place / "run"), *labels, "--group", "patient", *QUICK, *further]


def test_the_command_writes_its_folder_and_prints_the_summary(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(words(place, "--by", "site", "word", "--label", "af", "--output_dir", str(out))) == 0
    said = capsys.readouterr()
    assert "site: auroc, linear: 0.9" in said.out
    assert "site: p-value, between patients: 0.05" in said.out
    assert "word: not tested: all values are the same" in said.out
    assert "site, af: auroc, leave one out: 0." in said.out
    assert f"{out / 'report.html'} shows all figures" in said.err
    assert "\x1b" not in said.out
    assert {each.name for each in out.iterdir()} >= {
        "results.pq",
        "results.csv",
        "levels.csv",
        "drift.json",
        "report.html",
    }


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--by", "ward"], "Invalid value for --by. There is no column 'ward'"),
        (["--by", "site", "--group", "subject"], "Invalid value for --group. There is no column 'subject'"),
        (["--by", "site", "--label", "vt"], "Invalid value for --label. There is no column 'vt'"),
        (
            ["--by", "site", "--as_number", "year"],
            "Invalid value for --as_number. It must name columns of --by, got 'year'",
        ),
        (["--by", "site", "--as_number", "site"], "the column 'site' of --as_number holds values that are no numbers"),
        (["--by", "word"], "no factor can be tested: word: all values are the same"),
        (["--by", "site", "--where", "1"], "Invalid value for --where"),
        (["--by", "site", "--folds", "1"], "Invalid value for --folds. It must be at least 2"),
    ],
)
def test_what_cannot_work_is_refused_with_status_2_and_leaves_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    assert main(words(place, *given, "--output_dir", str(tmp_path / "out"))) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_refused_before_any_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    assert main(["drift", str(place / "absent"), "--by", "site", "--output_dir", str(tmp_path)]) == 2
    assert "is not empty and holds no drift.json" in capsys.readouterr().err
