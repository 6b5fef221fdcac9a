"""`ecgfounder chat` and the scripts that call it: flags, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ecgfounder.cohort.naming import Naming
from ecgfounder.commands.chat import dummy_main, mimic_main, parse_columns, parse_mapping
from ecgfounder.errors import SettingsError
from tests.builders.chat import KEPT, flags, write_embeddings, write_rows
from tests.places import ROOT

SCRIPTS = ROOT / "scripts" / "ecg_fm" / "sample_data"


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "cohort")


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    return write_embeddings(tmp_path / "embeddings", Naming("flat", str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--modality_mapping", "{ecg_paths: m1}"), "--modality_mapping is not valid JSON"),
        (("--modality_mapping", '["ecg_paths"]'), "JSON object"),
        (("--modality_mapping", '{"ecg_paths": "text"}'), "cannot name a modality"),
        (("--modality_mapping", '{"ecg_paths": "<m1>"}'), "cannot name a modality"),
        (("--modality_mapping", "{}"), "--modality_mapping is empty"),
        (("--embeddings_dirs", '{"other": "/tmp"}'), "names no folder for the column 'ecg_paths'"),
        (("--embeddings_dirs", "/no/such/folder"), "No such file or directory"),
        (("--text_cols", "notes"), "Expected 'notes' column in the dataset (--text_cols)"),
        (("--target_cols", "report"), "Expected 'report' column in the dataset (--target_cols)"),
        (("--target_cols", "[1]"), "names of columns"),
        (("--dataset_name", "/no/such/dataset"), "/no/such/dataset"),
        (("--output_file", "/proc/nothing/chat.json"), "cannot be written"),
        (("--output_file", "/dev/null"), "not a regular file"),
        (("--max_samples", "0"), "Invalid value for --max_samples"),
        (("--num_workers", "-1"), "Invalid value for --num_workers"),
        (("--modality_mapping", '{"ecgs": "m1"}', "--embeddings_dirs", "/proc"), "Expected 'ecgs' column"),
        (("--id_column", "study"), "Expected 'study' column"),
    ],
)
def test_what_cannot_work_is_refused_with_status_2_and_leaves_nothing(
    cohort: Path,
    embeddings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: tuple[str, ...],
    said: str,
) -> None:
    output = tmp_path / "out" / "chat.json"
    for main in (dummy_main, mimic_main):
        assert main(flags(cohort, embeddings, output, *change)) == 2
        assert said in capsys.readouterr().err
    assert not output.parent.exists() or list(output.parent.iterdir()) == []


def test_flags_that_do_not_exist_end_with_status_2(cohort: Path, embeddings: Path, tmp_path: Path) -> None:
    for main in (dummy_main, mimic_main):
        with pytest.raises(SystemExit) as stopped:
            main(flags(cohort, embeddings, tmp_path / "c.json", "--output_format", "xml"))
        assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        dummy_main(["--dataset_name", str(cohort), "--embeddings_dirs", "/tmp", "--output_file", "c.json"])


@pytest.mark.parametrize("words", [['["a", "b c"]'], ['["a",', '"b c"]'], ["a,b c"], ["a", "b c"], ["a,", "b c"]])
def test_column_names_are_taken_as_json_or_as_words(words: list[str]) -> None:
    assert parse_columns(words) == ("a", "b c")


def test_mapping_must_be_a_json_object_of_texts() -> None:
    assert parse_mapping('{"a": "b"}', "--x") == {"a": "b"}
    for text in ("{", "3", '{"a": 1}', '{"a": ""}', "[" * 100_000):
        with pytest.raises(SettingsError, match="--x"):
            parse_mapping(text, "--x")


@pytest.mark.parametrize("script", ["create_dummy_dataset.py", "create_mimic_ecg_inputs.py"])
def test_scripts_run_from_any_folder(cohort: Path, embeddings: Path, tmp_path: Path, script: str) -> None:
    output = tmp_path / "chat.json"
    command = [sys.executable, str(SCRIPTS / script), *flags(cohort, embeddings, output)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 of 8 rows written" in done.stderr
    assert len(json.loads(output.read_text())) == len(KEPT)


@pytest.mark.parametrize("script", ["create_dummy_dataset.py", "create_mimic_ecg_inputs.py"])
def test_scripts_without_the_package_print_the_install_command(script: str) -> None:
    command = [sys.executable, "-I", "-S", str(SCRIPTS / script), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install -e ." in done.stderr
