"""Chat files name only embeddings that are there, keep the rows' order, and are the same bytes at every run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from ecgfounder.chat.forms import ECG_QUESTIONS, conversation, question_for
from ecgfounder.chat.rows import EmbeddingFolder, LeftOut, texts
from ecgfounder.chat.settings import ChatSettings
from ecgfounder.chat.write import ChatSummary, write_chat
from ecgfounder.cohort.cohort import Record
from ecgfounder.cohort.naming import Naming
from ecgfounder.commands.chat import dummy_main, mimic_main, parse_columns, parse_mapping
from ecgfounder.errors import CohortError, RunError, SettingsError
from ecgfounder.results.store import read_embedding
from test_runs import DATA_DIR, Made

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts" / "ecg_fm" / "sample_data"

ROWS: list[dict[str, Any]] = [
    {"ecg_paths": [["a/x1.xml"]], "note": " chest pain ", "age": 61, "report_0": "Sinus rhythm", "report_1": "Normal"},
    {"ecg_paths": [["b/x2.xml", "b/x3.xml.gz"]], "note": "nan", "age": None, "report_0": "AF", "report_1": None},
    {"ecg_paths": [["a/x1.xml"]], "note": "", "age": 1, "report_0": "  ", "report_1": "NaN"},  # no target
    {"ecg_paths": None, "note": "n", "age": 2, "report_0": "no ECG", "report_1": None},
    {"ecg_paths": [[]], "note": "n", "age": 3, "report_0": "no ECG either", "report_1": None},
    {"ecg_paths": [["a/x1.xml"], ["a/gone.xml"]], "note": "n", "age": 4, "report_0": "one is gone", "report_1": None},
    {"ecg_paths": [["c/x.4.xml"]], "note": None, "age": 77, "report_0": None, "report_1": "Übergang ≥ V4 \U0001f493"},
    {"ecg_paths": [["a/x1.xml"]], "note": "see <m1>", "age": 5, "report_0": "tag in text", "report_1": None},
]
KEPT = [0, 1, 6]
INPUTS = ["a/x1.xml", "b/x2.xml", "b/x3.xml.gz", "c/x.4.xml"]


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """A save_to_disk folder with rows of every kind."""
    folder = tmp_path / "cohort"
    datasets.Dataset.from_list(ROWS).save_to_disk(folder)
    return folder


def write_embeddings(folder: Path, naming: Naming, paths: list[str] = INPUTS) -> Path:
    for path in paths:
        file = folder / naming.name(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps({"embedding": [[0.5, 1.0]], "shape": [1, 2], "description": path, "modality": "ecg"})
        )
    return folder


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    return write_embeddings(tmp_path / "embeddings", Naming("flat", str(tmp_path)))


def flags(cohort: Path, embeddings: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--dataset_name", str(cohort), "--text_cols", '["note", "age"]', "--target_cols", '["report_0", "report_1"]'),
        *("--modality_mapping", '{"ecg_paths": "m1"}', "--embeddings_dirs", json.dumps({"ecg_paths": str(embeddings)})),
        *("--output_file", str(output), *more),
    ]


def load(path: Path, tmp_path: Path) -> datasets.Dataset:
    return datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))


def assert_readable_embedding(path: str, of: str) -> None:
    content = json.loads(Path(path).read_text())
    assert content["shape"] == [len(content["embedding"]), len(content["embedding"][0])]
    assert content["description"] == of


@pytest.mark.parametrize("output_format", ["json", "jsonl"])
def test_embedding_chat_loads_with_datasets_and_every_path_leads_to_its_embedding(
    cohort: Path, embeddings: Path, tmp_path: Path, output_format: str
) -> None:
    output = tmp_path / f"chat.{output_format}"
    arguments = flags(cohort, embeddings, output, "--no_include_prompts", "--output_format", output_format)
    assert mimic_main(arguments) == 0
    loaded = list(load(output, tmp_path))
    assert [row["messages"][0]["content"] for row in loaded] == ["<m1>chest pain 61", "<m1><m1>", "<m1>77"]
    assert [row["messages"][1]["content"] for row in loaded] == ["Sinus rhythm\nNormal", "AF", ROWS[6]["report_1"]]
    assert [[message["role"] for message in row["messages"]] for row in loaded] == [["user", "assistant"]] * 3
    paths = [path for row in loaded for path in row["embeddings"]["m1"]]
    assert len(paths) == len(INPUTS)
    for path, source in zip(paths, INPUTS, strict=True):
        assert_readable_embedding(path, source)


def test_openai_chat_has_the_documented_form_and_its_paths_lead_to_embeddings(
    cohort: Path, embeddings: Path, tmp_path: Path
) -> None:
    output = tmp_path / "chat.json"
    assert dummy_main(flags(cohort, embeddings, output)) == 0
    conversations = json.loads(output.read_text())
    assert conversations[0] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "chest pain 61"},
                {"type": "m1", "m1": str(embeddings / "x1.json")},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Sinus rhythm Normal"}]},
    ]
    assert conversations[1][0]["content"] == [
        {"type": "m1", "m1": str(embeddings / "x2.json")},
        {"type": "m1", "m1": str(embeddings / "x3.json")},
    ]
    assert len(conversations) == len(KEPT)
    # datasets names the columns of an array of arrays by number
    loaded = list(load(output, tmp_path))
    paths = [part["m1"] for row in loaded for part in row["0"]["content"] if part["type"] == "m1"]
    for path, source in zip(paths, INPUTS, strict=True):
        assert_readable_embedding(path, source)


def test_openai_chat_as_jsonl_loads_with_datasets_under_its_key(cohort: Path, embeddings: Path, tmp_path: Path) -> None:
    output = tmp_path / "chat.jsonl"
    assert dummy_main(flags(cohort, embeddings, output, "--output_format", "jsonl")) == 0
    loaded = list(load(output, tmp_path))
    paths = [part["m1"] for row in loaded for part in row["messages"][0]["content"] if part["type"] == "m1"]
    for path, source in zip(paths, INPUTS, strict=True):
        assert_readable_embedding(path, source)


def test_json_and_jsonl_hold_the_same(cohort: Path, embeddings: Path, tmp_path: Path) -> None:
    array, lines, bare = tmp_path / "a.json", tmp_path / "b.jsonl", tmp_path / "c.jsonl"
    for main in (dummy_main, mimic_main):
        assert main(flags(cohort, embeddings, array)) == 0
        assert main(flags(cohort, embeddings, lines, "--output_format", "jsonl")) == 0
        rows = [json.loads(line) for line in lines.read_text().splitlines()]
        assert json.loads(array.read_text()) == ([row["messages"] for row in rows] if main is dummy_main else rows)
    assert dummy_main(flags(cohort, embeddings, array, "--output_format", "openai")) == 0
    assert dummy_main(flags(cohort, embeddings, bare, "--output_format", "jsonl", "--messages_key", "")) == 0
    assert json.loads(array.read_text()) == [json.loads(line) for line in bare.read_text().splitlines()]


def test_same_bytes_at_every_run_and_with_any_number_of_workers(cohort: Path, embeddings: Path, tmp_path: Path) -> None:
    written = []
    for workers in ("0", "1", "2", "8", "2"):
        output = tmp_path / f"{len(written)}.json"
        assert mimic_main(flags(cohort, embeddings, output, "--num_workers", workers, "--seed", "5")) == 0
        written.append(output.read_bytes())
    assert len(set(written)) == 1


def test_a_rows_question_depends_on_seed_and_row_alone(cohort: Path, embeddings: Path, tmp_path: Path) -> None:
    def users(*more: str) -> list[str]:
        output = tmp_path / "chat.json"
        assert mimic_main(flags(cohort, embeddings, output, *more)) == 0
        return [row["messages"][0]["content"] for row in json.loads(output.read_text())]

    everything = users("--seed", "3")
    assert users("--seed", "3", "--max_samples", "2") == everything[:2]
    assert everything == [
        f"<m1>chest pain 61\n\n{question_for(0, 3)}",
        f"<m1><m1>{question_for(1, 3)}",
        f"<m1>77\n\n{question_for(6, 3)}",
    ]
    drawn = {question_for(row, 3) for row in range(500)}
    assert drawn == set(ECG_QUESTIONS)
    assert [question_for(row, 3) for row in range(50)] != [question_for(row, 4) for row in range(50)]


def test_every_row_left_out_is_counted_under_its_reason(cohort: Path, embeddings: Path, tmp_path: Path) -> None:
    settings = ChatSettings(
        str(cohort), tmp_path / "c.json", {"ecg_paths": str(embeddings)}, ("report_0", "report_1"), ("note",)
    )
    summary = write_chat(settings, conversation)
    assert (summary.rows, summary.written) == (len(ROWS), len(KEPT))
    assert summary.left_out == {
        LeftOut.NO_ECG: 2,
        LeftOut.NO_TARGET: 1,
        LeftOut.NO_EMBEDDING: 1,
        LeftOut.TAG_IN_TEXT: 1,
    }
    text = "\n".join(summary.lines())
    assert "3 of 8 rows written, 5 left out" in text
    assert f"no embedding file for one of its ECGs: 1 (first: row 5, {embeddings / 'gone.json'})" in text


def test_dangling_paths_only_when_asked_for(cohort: Path, embeddings: Path, tmp_path: Path) -> None:
    output = tmp_path / "chat.jsonl"
    (embeddings / "x2.json").write_bytes(b"")  # a file without content is no embedding
    assert mimic_main(flags(cohort, embeddings, output, "--output_format", "jsonl")) == 0
    assert len(output.read_text().splitlines()) == 2
    assert mimic_main(flags(cohort, embeddings, output, "--output_format", "jsonl", "--keep_missing")) == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert rows[2]["embeddings"]["m1"] == [str(embeddings / "x1.json"), str(embeddings / "gone.json")]
    absent = tmp_path / "not_yet"
    assert mimic_main(flags(cohort, absent, output, "--keep_missing")) == 0


def test_tree_layout_finds_the_embeddings_below_their_folders(cohort: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    embeddings = write_embeddings(tmp_path / "tree", Naming("tree", str(data_dir)))
    output = tmp_path / "chat.json"
    more = ("--layout", "tree", "--data_dir", str(data_dir))
    assert mimic_main(flags(cohort, embeddings, output, *more)) == 0
    paths = [path for row in json.loads(output.read_text()) for path in row["embeddings"]["m1"]]
    assert [os.path.relpath(path, embeddings) for path in paths] == [
        "a/x1.json",
        "b/x2.json",
        "b/x3.json",
        "c/x.4.json",
    ]
    assert mimic_main(flags(cohort, embeddings, output)) == 1  # the other layout finds none of them


def test_a_path_that_tree_layout_cannot_name_leaves_its_row_out(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    cohort = tmp_path / "cohort"
    rows = {"ecg_paths": ["a/x1.xml", "../outside.xml"], "report_0": ["in", "out"]}
    datasets.Dataset.from_dict(rows).save_to_disk(cohort)
    embeddings = write_embeddings(tmp_path / "tree", Naming("tree", str(data_dir)), ["a/x1.xml"])
    settings = ChatSettings(
        str(cohort),
        tmp_path / "c.json",
        {"ecg_paths": str(embeddings)},
        ("report_0",),
        data_dir=str(data_dir),
        layout="tree",
    )
    assert write_chat(settings, conversation).left_out == {LeftOut.NO_NAME: 1}


def test_identifiers_name_the_embeddings_when_asked_for(tmp_path: Path) -> None:
    cohort, embeddings, output = tmp_path / "cohort", tmp_path / "embeddings", tmp_path / "chat.json"
    studies = [["s1/ecg.xml"], ["s2/ecg.xml", "s3/ecg.xml"], ["s4/17.xml"]]
    rows = {"ecg_paths": studies, "study": [17, 4, None], "report_0": ["a", "b", "no identifier, no name"]}
    datasets.Dataset.from_dict(rows).save_to_disk(cohort)
    embeddings.mkdir()
    for name in ("17.json", "4.json", "4_1.json"):
        (embeddings / name).write_text("{}")
    common = ["--dataset_name", str(cohort), "--embeddings_dirs", str(embeddings), "--output_file", str(output)]
    assert mimic_main([*common, "--id_column", "study"]) == 0
    paths = [row["embeddings"]["m1"] for row in json.loads(output.read_text())]
    assert paths == [[str(embeddings / "17.json")], [str(embeddings / "4.json"), str(embeddings / "4_1.json")]]


def test_ecgs_that_would_share_an_embedding_stop_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, embeddings = tmp_path / "cohort", tmp_path / "embeddings"
    rows = {"ecg_paths": ["s1/ecg.xml", "s2/ecg.xml"], "report_0": ["a", "b"]}
    datasets.Dataset.from_dict(rows).save_to_disk(cohort)
    embeddings.mkdir()
    (embeddings / "ecg.json").write_text("{}")
    output = tmp_path / "chat.json"
    arguments = ["--dataset_name", str(cohort), "--embeddings_dirs", str(embeddings), "--output_file", str(output)]
    assert mimic_main(arguments) == 1
    assert "--layout tree" in capsys.readouterr().err
    assert not output.exists()


def test_two_modalities_keep_their_own_tags_and_folders(tmp_path: Path) -> None:
    cohort, output = tmp_path / "cohort", tmp_path / "chat.json"
    rows = {"ecg": [["x.xml"], None], "echo": [["y.dcm", "z.dcm"], ["y.dcm"]], "t": ["one", "two"]}
    datasets.Dataset.from_dict(rows).save_to_disk(cohort)
    folders = {"ecg": str(tmp_path / "ecg"), "echo": str(tmp_path / "echo")}
    write_embeddings(tmp_path / "ecg", Naming(), ["x.xml"])
    write_embeddings(tmp_path / "echo", Naming(), ["y.dcm", "z.dcm"])
    mapping = json.dumps({"ecg": "m1", "echo": "m2"})
    arguments = ["--dataset_name", str(cohort), "--target_cols", "t", "--modality_mapping", mapping]
    arguments += ["--embeddings_dirs", json.dumps(folders), "--output_file", str(output), "--no_include_prompts"]
    assert mimic_main(arguments) == 0
    first, second = json.loads(output.read_text())
    assert first["messages"][0]["content"] == "<m1><m2><m2>"
    assert first["embeddings"]["m2"] == [f"{tmp_path}/echo/y.json", f"{tmp_path}/echo/z.json"]
    assert second["messages"][0]["content"] == "<m2>"
    assert list(second["embeddings"]) == ["m2"]


def test_split_of_a_dataset_dict_and_max_samples(embeddings: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "dict", tmp_path / "chat.json"
    parts = {"train": datasets.Dataset.from_list(ROWS[:1]), "test": datasets.Dataset.from_list(ROWS[6:7] + ROWS[:1])}
    datasets.DatasetDict(parts).save_to_disk(folder)
    assert mimic_main(flags(folder, embeddings, output, "--split", "test")) == 0
    assert len(json.loads(output.read_text())) == 2
    assert mimic_main(flags(folder, embeddings, output, "--split", "test", "--max_samples", "1")) == 0
    assert [row["embeddings"]["m1"] for row in json.loads(output.read_text())] == [[str(embeddings / "x.4.json")]]
    assert mimic_main(flags(folder, embeddings, output, "--split", "validation")) == 2


def test_max_samples_counts_rows_across_batches(tmp_path: Path) -> None:
    cohort = tmp_path / "cohort"
    n = 3000
    rows = {"ecg_paths": [f"{i}.xml" for i in range(n)], "report_0": [f"report {i}" for i in range(n)]}
    datasets.Dataset.from_dict(rows).save_to_disk(cohort)
    output = tmp_path / "chat.jsonl"
    settings = ChatSettings(
        str(cohort),
        output,
        {"ecg_paths": str(tmp_path / "none")},
        None,
        output_format="jsonl",
        keep_missing=True,
        max_samples=2500,
    )
    assert write_chat(settings, conversation) == ChatSummary(rows=2500, written=2500)
    lines = output.read_text().splitlines()
    assert [json.loads(line)[1]["content"][0]["text"] for line in lines] == [f"report {i}" for i in range(2500)]


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
        (("--modality_mapping", '{"ecgs": "m1"}', "--embeddings_dirs", "/tmp"), "Expected 'ecgs' column"),
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


def test_a_folder_of_parquet_shards_is_refused_by_name(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "part-0.parquet").write_bytes(b"PAR1")
    assert mimic_main(flags(cohort, shards, tmp_path / "c.json")) == 2
    assert "--format json" in capsys.readouterr().err


def test_a_file_that_was_there_stays_until_the_new_one_is_complete(
    cohort: Path, embeddings: Path, tmp_path: Path
) -> None:
    output = tmp_path / "chat.json"
    output.write_text("before")

    def fails_late(sample: Any) -> Any:
        if sample.row == KEPT[-1]:
            raise KeyboardInterrupt
        return conversation(sample)

    settings = ChatSettings(str(cohort), output, {"ecg_paths": str(embeddings)}, ("report_0", "report_1"))
    with pytest.raises(KeyboardInterrupt):
        write_chat(settings, fails_late)
    assert output.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []
    write_chat(settings, conversation)
    assert len(json.loads(output.read_text())) == len(KEPT) + 1  # without its text, the row with a tag has a place


def test_a_file_without_a_single_row_is_not_written(cohort: Path, tmp_path: Path) -> None:
    empty, output = tmp_path / "empty", tmp_path / "chat.json"
    empty.mkdir()
    settings = ChatSettings(str(cohort), output, {"ecg_paths": str(empty)}, ("report_0", "report_1"))
    with pytest.raises(RunError, match=r"no embedding file.*row 0, .*x1\.json"):
        write_chat(settings, conversation)
    assert not output.exists()


def test_mimic_reports_are_the_targets_unless_others_are_named(
    cohort: Path, embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "chat.json"
    common = ["--embeddings_dirs", str(embeddings), "--output_file", str(output), "--no_include_prompts"]
    assert mimic_main(["--dataset_name", str(cohort), *common]) == 0
    assert json.loads(output.read_text())[0]["messages"][1]["content"] == "Sinus rhythm\nNormal"
    without = tmp_path / "without"
    datasets.Dataset.from_dict({"ecg_paths": ["a.xml"]}).save_to_disk(without)
    assert mimic_main(["--dataset_name", str(without), *common]) == 2
    assert "Expected 'report_0' column" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (None, []),
        (math.nan, []),
        ("NaN", []),
        (" \n", []),
        ("none", ["none"]),
        (" a b ", ["a b"]),
        (0, ["0"]),
        (61.5, ["61.5"]),
        (["a", None, ["nan", "b"]], ["a", "b"]),
    ],
)
def test_null_nan_and_blank_texts_are_passed_over_and_nothing_else(cell: Any, expected: list[str]) -> None:
    assert list(texts(cell, "note", 0)) == expected


def test_a_column_without_text_is_refused() -> None:
    with pytest.raises(CohortError, match=r"'note' column must hold text .* row 7 holds a dict"):
        list(texts({"a": 1}, "note", 7))


@pytest.mark.parametrize("words", [['["a", "b c"]'], ['["a",', '"b c"]'], ["a,b c"], ["a", "b c"], ["a,", "b c"]])
def test_column_names_are_taken_as_json_or_as_words(words: list[str]) -> None:
    assert parse_columns(words) == ("a", "b c")


def test_mapping_must_be_a_json_object_of_texts() -> None:
    assert parse_mapping('{"a": "b"}', "--x") == {"a": "b"}
    for text in ("{", "3", '{"a": 1}', '{"a": ""}', "[" * 100_000):
        with pytest.raises(SettingsError, match="--x"):
            parse_mapping(text, "--x")


def test_an_embedding_is_found_by_the_name_the_run_gave_it(tmp_path: Path) -> None:
    folder = EmbeddingFolder(tmp_path, Naming("flat", "/data"))
    assert folder.path_for(Record("p/x.xml", 0, 0)) is None
    (tmp_path / "x.json").write_text("{}")
    assert folder.path_for(Record("p/x.xml", 0, 0)) == tmp_path / "x.json"
    (tmp_path / "y.json").mkdir()
    assert folder.path_for(Record("p/y.xml", 0, 0)) is None


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


# --- runs with books: shards, and flags -------------------------------------------------------------------------------


def reports(tmp_path: Path, paths: list[Any]) -> Path:
    folder = tmp_path / "reports"
    datasets.Dataset.from_dict(
        {"ecg_paths": paths, "report_0": [f"report {number}" for number in range(len(paths))]}
    ).save_to_disk(folder)
    return folder


def chat_of(dataset: Path, embeddings: Path, tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    output = tmp_path / "chat.json"
    words = ["--dataset_name", str(dataset), "--embeddings_dirs", str(embeddings), "--output_file", str(output)]
    assert mimic_main([*words, "--data_dir", DATA_DIR, *more]) == 0
    return list(json.loads(output.read_text()))


@pytest.mark.parametrize("outcome", ["complete", "interrupted"])
def test_rows_of_shards_are_named_by_references_that_read_back(tmp_path: Path, outcome: str) -> None:
    made = Made(tmp_path / "run", format="parquet", outcome=outcome, stride=2.0, n_windows=2)
    dataset = reports(tmp_path, [["a/1.xml"], ["b/5.xml"], ["/data/b/4.xml", "./a/../a/2.xml"], ["a/none.xml"]])
    chat = chat_of(dataset, made.make(), tmp_path)
    assert [row["messages"][1]["content"] for row in chat] == ["report 0", "report 2"]
    references = [reference for row in chat for reference in row["embeddings"]["m1"]]
    for reference, path in zip(references, ["a/1.xml", "b/4.xml", "a/2.xml"], strict=True):
        assert reference.startswith(f"{made.folder}/embeddings-")
        assert np.array_equal(read_embedding(reference), made.embeddings(path))


def test_rows_of_shards_are_found_where_names_would_collide(tmp_path: Path) -> None:
    paths = ["s1/ecg.xml", "s2/ecg.xml"]
    made = Made(tmp_path / "run", format="parquet", rows=[(path, 1) for path in paths], done_order=paths)
    chat = chat_of(reports(tmp_path, paths), made.make(), tmp_path)
    for row, path in zip(chat, paths, strict=True):
        assert np.array_equal(read_embedding(row["embeddings"]["m1"][0]), made.embeddings(path)[0])


def test_rows_of_shards_with_identifiers_are_found_by_them_wherever_the_recordings_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path / "run", format="parquet", id_column="study_id", rows=[("a/1.xml", 7), ("a/2.xml", 8)])
    made.done_order = ["a/1.xml", "a/2.xml"]
    dataset = tmp_path / "reports"
    cells = {"ecg_paths": ["moved/2.xml", "moved/1.xml"], "study_id": [8, 7], "report_0": ["eight", "seven"]}
    datasets.Dataset.from_dict(cells).save_to_disk(dataset)
    chat = chat_of(dataset, made.make(), tmp_path, "--id_column", "study_id")
    assert [row["messages"][1]["content"] for row in chat] == ["eight", "seven"]
    for row, path in zip(chat, ["a/2.xml", "a/1.xml"], strict=True):
        assert np.array_equal(read_embedding(row["embeddings"]["m1"][0]), made.embeddings(path)[0])
    words = [
        "--dataset_name",
        str(dataset),
        "--embeddings_dirs",
        str(made.folder),
        "--output_file",
        str(tmp_path / "no"),
    ]
    assert mimic_main(words) == 2
    assert "give their column as --id_column" in capsys.readouterr().err


def test_an_identifier_of_several_recordings_is_refused_over_shards_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Made(tmp_path / "run", format="parquet", id_column="study_id", rows=[("a/1.xml", 7)], done_order=["a/1.xml"])
    dataset = tmp_path / "reports"
    cells = {"ecg_paths": ["a/1.xml", "a/2.xml"], "study_id": [7, 7], "report_0": ["its own", "another's"]}
    datasets.Dataset.from_dict(cells).save_to_disk(dataset)
    words = ["--dataset_name", str(dataset), "--embeddings_dirs", str(made.make()), "--id_column", "study_id"]
    assert mimic_main([*words, "--output_file", str(tmp_path / "no")]) == 1
    assert "shared by several ECGs" in capsys.readouterr().err


def test_a_relative_data_folder_is_one_folder_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = reports(tmp_path, ["1.xml", "./1.xml", f"{tmp_path}/1.xml"])
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "1.json").write_text("{}")
    words = ["--dataset_name", str(dataset), "--embeddings_dirs", "embeddings", "--data_dir", "."]
    assert mimic_main([*words, "--output_file", str(tmp_path / "chat.json")]) == 0
    assert len(json.loads((tmp_path / "chat.json").read_text())) == 3


def test_rows_of_shards_without_identifiers_are_found_by_paths_whatever_the_dataset_has(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet")
    chat = chat_of(reports(tmp_path, ["a/2.xml"]), made.make(), tmp_path, "--id_column", "report_0")
    assert np.array_equal(read_embedding(chat[0]["embeddings"]["m1"][0]), made.embeddings("a/2.xml")[0])


@pytest.mark.parametrize("stored", ["json", "parquet"])
def test_rows_with_a_flag_that_is_excluded_are_left_out_and_counted(tmp_path: Path, stored: str) -> None:
    flags = {
        "a/1.xml": ["calibration_pulse:10.7"],
        "b/3.xml": ["resampled:250", "flat_lead:V1"],
        "b/4.xml": ["clipped"],
    }
    folder = Made(tmp_path / "run", format=stored, flags=flags).make()
    dataset = reports(tmp_path, [["a/1.xml"], ["a/2.xml"], ["a/2.xml", "b/3.xml"], ["b/4.xml"]])

    def kept(*names: str) -> list[str]:
        more = ["--exclude_flags", *names] if names else []
        return [row["messages"][1]["content"] for row in chat_of(dataset, folder, tmp_path, *more)]

    assert kept() == ["report 0", "report 1", "report 2", "report 3"]
    assert kept("calibration_pulse") == ["report 1", "report 2", "report 3"]
    assert kept("calibration_pulse", "flat_lead") == ["report 1", "report 3"]
    settings = ChatSettings(
        str(dataset),
        tmp_path / "c.json",
        {"ecg_paths": str(folder)},
        ("report_0",),
        data_dir=DATA_DIR,
        exclude_flags=("clipped",),
    )
    assert write_chat(settings, conversation).left_out == {LeftOut.FLAGGED: 1}


def test_what_flags_and_shards_cannot_do_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, shards = reports(tmp_path, ["a/1.xml"]), Made(tmp_path / "run", format="parquet").make()
    (tmp_path / "bare").mkdir()
    refused = [
        (shards, ["--exclude_flags", "pulse"], "'calibration_pulse'"),
        (tmp_path / "bare", ["--exclude_flags", "clipped"], "--exclude_flags: the flags are in the run's _run/"),
        (shards, ["--exclude_flags", "clipped", "--keep_missing"], "choose one"),
        (shards, ["--keep_missing"], "holds a run's Parquet shards"),
    ]
    for folder, more, said in refused:
        words = ["--dataset_name", str(dataset), "--embeddings_dirs", str(folder), *more]
        assert mimic_main([*words, "--output_file", str(tmp_path / "c.json")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()
