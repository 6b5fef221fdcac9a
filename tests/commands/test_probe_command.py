"""`ecgfounder probe`: each flag is its setting and no other; what cannot work is refused before any work."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ecgfounder.analysis import ProbeSettings
from ecgfounder.cli import main
from ecgfounder.commands.probe import add_probe_arguments, settings_of
from ecgfounder.errors import SettingsError
from tests.builders.probes import cohort, write_run

QUICK = ("--n_draws", "20", "--folds", "2", "--controls", "none")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_probe_arguments(parser)
    return parser.parse_args(["run", "--output_dir", "out", *words])


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("", {}),
        ("--label vt", {"label": ("af", "vt")}),
        ("--on study", {"on": "study"}),
        ("--group p", {"group": "p"}),
        ("--separate_patients", {"separate_patients": True}),
        ("--where age>3", {"where": "age>3"}),
        ("--exclude_flags clipped flat", {"exclude_flags": ("clipped", "flat")}),
        ("--ecg_time a --label_time b --days -1 30", {"ecg_time": "a", "label_time": "b", "days": (-1.0, 30.0)}),
        ("--codes c", {"codes": "c"}),
        ("--zero_likelihood unknown", {"zero_likelihood": "unknown"}),
        ("--least_likelihood 50", {"least_likelihood": 50.0}),
        ("--features mean_std", {"features": "mean_std"}),
        ("--combine logit", {"combine": "logit"}),
        ("--one_per_patient random --group p", {"one_per_patient": "random", "group": "p"}),
        ("--folds 3", {"folds": 3}),
        ("--folds strat_fold", {"folds": "strat_fold"}),
        ("--split s --test 9 10 --validation 8", {"split": "s", "test": ("9", "10"), "validation": ("8",)}),
        ("--test_runs b", {"test_runs": ("b",)}),
        ("--sensitivity 0.95", {"sensitivity": 0.95}),
        ("--n_draws 50", {"n_draws": 50}),
        ("--refit", {"refit": 20}),
        ("--refit 5", {"refit": 5}),
        ("--controls full", {"controls": "full"}),
        ("--permutations 199", {"permutations": 199}),
        ("--baseline age sex", {"baseline": ("age", "sex")}),
        ("--score af=ATRIAL=X", {"score": {"af": "ATRIAL=X"}}),
        ("--subgroups sex age:10", {"subgroups": ("sex", "age:10")}),
        ("--learning_curve", {"learning_curve": ()}),
        ("--learning_curve 10 50", {"learning_curve": (10, 50)}),
        ("--label_noise", {"label_noise": True}),
        ("--recalibrate", {"recalibrate": True}),
        ("--seed 4", {"seed": 4}),
    ],
)
def test_each_flag_is_its_setting(words: str, settings: dict[str, Any]) -> None:
    told, usual = settings_of(parsed("--label", "af", *words.split())), ProbeSettings(label=("af",))
    names = [each.name for each in fields(told)]
    changed = {name: getattr(told, name) for name in names if getattr(told, name) != getattr(usual, name)}
    assert changed == settings


def test_numbers_and_classes_are_labels_too() -> None:
    assert settings_of(parsed("--number", "age", "--number", "lvef")).number == ("age", "lvef")
    assert settings_of(parsed("--classes", "rhythm")).classes == "rhythm"
    told = settings_of(parsed("--number", "age", "--prediction_interval", "--interval_by", "sex"))
    assert (told.prediction_interval, told.interval_by) == (0.9, "sex")
    told = settings_of(parsed("--time", "years", "--event", "death", "--horizons", "1", "5"))
    assert (told.time, told.event, told.horizons) == ("years", "death", (1.0, 5.0))
    with pytest.raises(SettingsError, match="must be LABEL=COLUMN, got 'af'"):
        settings_of(parsed("--label", "af", "--score", "af"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("command")
    table = cohort(120)
    write_run(folder / "run", table)
    table.to_csv(folder / "labels.csv", index=False)
    (folder / "codes.csv").write_text(",class\nA,x\n")
    return folder


def test_the_command_writes_its_folder_and_prints_the_figures(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["probe", str(place / "run"), "--labels", str(place / "labels.csv"), "--on", "study_id", "--label", "af"]
    assert main([*words, "--group", "patient", *QUICK, "--output_dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "af, embedding: AUROC 0.9" in said
    assert f"{tmp_path / 'out' / 'report.html'} shows all figures" in said
    names = {each.name for each in (tmp_path / "out").iterdir()}
    assert {"results.pq", "results.csv", "predictions.pq", "probe.safetensors", "probe.json", "report.html"} <= names


def test_several_runs_are_one_and_a_recording_in_both_is_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cohort(120, seed=1).head(40)
    other["study_id"] += 1000
    other["ecg"] = [*cohort(120)["ecg"].head(1), *("other/" + other["ecg"].iloc[1:])]
    write_run(tmp_path / "more", other)
    words = [
        "probe",
        str(place / "run"),
        str(tmp_path / "more"),
        "--labels",
        str(place / "labels.csv"),
        "--on",
        "study_id",
    ]
    assert main([*words, "--label", "af", *QUICK, "--output_dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "1 recording is in several runs" in said
    assert "Left out: 1 (the same recording in an earlier run)" in said
    assert "No group was given" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--label", "vt"], "Invalid value for --label. There is no column 'vt'"),
        (["--label", "af", "--group", "subject"], "Invalid value for --group. There is no column 'subject'"),
        (["--label", "x0"], "holds other values than 0, 1"),
        (["--label", "af", "--where", "1"], "Invalid value for --where"),
        (["--label", "af", "--labels", "absent.csv"], "absent.csv does not exist"),
        (["--label", "af", "--labels", "labels.docx"], "is no table; expected a file with one of: .csv"),
        (["--label", "af", "--on", "record_id"], "Expected 'record_id' column"),
        (["--label", "af", "--code_classes", "CODES", "class"], "code_classes needs codes"),
        (["--codes", "patient", "--code_classes", "CODES", "kind"], "has no column 'kind'; its columns are: , class"),
        (["--label", "af", "--names", "a", "b"], "Invalid value for --names"),
        (["--label", "af", "--random", "no/such/run"], "holds no run"),
        (["--label", "af", "--head", "no/such/head.pth"], "No such file"),
        (["--label", "af", "--random_networks", "-1"], "Invalid value for --random_networks"),
        ([], "give the labels in one way"),
    ],
)
def test_what_cannot_work_is_refused_with_status_2_and_leaves_nothing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    words = [str(place / "codes.csv") if word == "CODES" else word for word in words]
    given = ["probe", str(place / "run"), "--labels", str(place / "labels.csv"), "--on", "study_id", *QUICK, *words]
    assert main([*given, "--output_dir", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_is_refused_before_any_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.doc").write_text("mine")
    assert main(["probe", str(place / "absent"), "--label", "af", "--output_dir", str(tmp_path)]) == 2
    assert "is not empty and holds no probe.json" in capsys.readouterr().err
