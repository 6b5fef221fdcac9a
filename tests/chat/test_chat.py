"""Chat files name only embeddings that are there, keep the rows' order, and are the same bytes at every run."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest

from ecgfounder.chat.forms import ECG_QUESTIONS, QUESTIONS_OF_SEVERAL, conversation, question_for
from ecgfounder.chat.rows import ChatRow, EmbeddingFolder, LeftOut, texts
from ecgfounder.chat.settings import ChatSettings
from ecgfounder.chat.write import ChatSummary, write_chat
from ecgfounder.cohort.cohort import Record
from ecgfounder.cohort.naming import Naming
from ecgfounder.commands.chat import dummy_main, mimic_main
from ecgfounder.errors import CohortError, RunError
from tests.builders.chat import INPUTS, KEPT, ROWS, flags, write_embeddings, write_rows


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "cohort")


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    return write_embeddings(tmp_path / "embeddings", Naming("flat", str(tmp_path)))


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
                {"type": "text", "text": "chest pain 61", "m1": ""},
                {"type": "m1", "text": "", "m1": str(embeddings / "x1.json")},
            ],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "Sinus rhythm Normal", "m1": ""}]},
    ]
    assert conversations[1][0]["content"] == [
        {"type": "m1", "text": "", "m1": str(embeddings / "x2.json")},
        {"type": "m1", "text": "", "m1": str(embeddings / "x3.json")},
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
    assert dummy_main(flags(cohort, embeddings, array, "--messages_key", "messages")) == 0
    assert [row["messages"] for row in json.loads(array.read_text())] == [
        json.loads(line) for line in bare.read_text().splitlines()
    ]


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
        f"<m1>chest pain 61\n\n{question_of(0, 3)}",
        f"<m1><m1>{question_of(1, 3, n_ecgs=2)}",
        f"<m1>77\n\n{question_of(6, 3)}",
    ]
    assert {question_of(row, 3) for row in range(500)} == set(ECG_QUESTIONS)
    assert [question_of(row, 3) for row in range(50)] != [question_of(row, 4) for row in range(50)]


def question_of(row: int, seed: int, n_ecgs: int = 1) -> str:
    return question_for(ChatRow(row, (), ("a",), (("m1", "a.json"),) * n_ecgs, ("m1",)), seed)


def test_several_ecgs_are_spoken_of_in_the_plural() -> None:
    several = {question_of(row, 0, n_ecgs=3) for row in range(500)}
    assert several == set(QUESTIONS_OF_SEVERAL)
    pairs = list(zip(ECG_QUESTIONS, QUESTIONS_OF_SEVERAL, strict=True))
    assert {(question_of(row, 0), question_of(row, 0, n_ecgs=2)) for row in range(500)} == set(pairs)
    of_one = re.compile(r"\b(this|it is|tracing|recording|ECG|electrocardiogram)\b")
    assert [question for question in several if of_one.search(question)] == []
    assert [question for question in ECG_QUESTIONS if re.search(r"\bthese\b|ECGs", question)] == []


# --- `datasets` ------------------------------------------------------------------------------------------------------

FORMS = [
    (dummy_main, ()),
    (dummy_main, ("--messages_key", "messages")),
    (dummy_main, ("--output_format", "jsonl")),
    (mimic_main, ()),
    (mimic_main, ("--output_format", "jsonl")),
]


@pytest.fixture(params=FORMS, ids=["openai json", "openai json by key", "openai jsonl", "chat json", "chat jsonl"])
def chat_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file of every form, of rows with no, one and several ECGs of each of two modalities, with and without a text."""
    rows = {
        "ecg": [["x.xml"], None, ["x.xml", "w.xml"]],
        "echo": [None, ["y.dcm", "z.dcm"], ["y.dcm"]],
        "note": ["", "pain", None],
        "t": ["one", "two", "three"],
    }
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "cohort")
    write_embeddings(tmp_path / "ecg", Naming(), ["x.xml", "w.xml"])
    write_embeddings(tmp_path / "echo", Naming(), ["y.dcm", "z.dcm"])
    main, more = request.param
    output = tmp_path / ("chat.jsonl" if "jsonl" in more else "chat.json")
    folders = json.dumps({"ecg": str(tmp_path / "ecg"), "echo": str(tmp_path / "echo")})
    arguments = ["--dataset_name", str(tmp_path / "cohort"), "--target_cols", "t", "--text_cols", "note"]
    arguments += ["--modality_mapping", '{"ecg": "m1", "echo": "m2"}', "--embeddings_dirs", folders]
    assert main([*arguments, "--output_file", str(output), *more]) == 0
    return output


def rows_of(chat_file: Path) -> list[Any]:
    if chat_file.suffix == ".json":
        rows: list[Any] = json.loads(chat_file.read_text())
        return rows
    return [json.loads(line) for line in chat_file.read_text().splitlines()]


def as_loaded(rows: list[Any]) -> list[Any]:
    """What a table of the rows must give: the rows; `datasets` names the columns of lists by number."""
    return [{str(place): each for place, each in enumerate(row)} if isinstance(row, list) else row for row in rows]


def keys_by_place(value: Any, place: str = "") -> Iterator[tuple[str, object]]:
    """The keys of each object and the type of each other value, with the place where it is in a row."""
    if isinstance(value, dict):
        yield place, tuple(sorted(value))
        for name, each in value.items():
            yield from keys_by_place(each, f"{place}.{name}")
    elif isinstance(value, list):
        for each in value:
            yield from keys_by_place(each, f"{place}[]")
    else:
        yield place, type(value)


def test_every_row_has_the_same_keys_and_types_so_that_a_table_fills_in_nothing(chat_file: Path) -> None:
    seen = set(keys_by_place(rows_of(chat_file)))
    assert len(seen) == len({place for place, _ in seen})


def test_a_table_of_the_file_gives_the_file_again(chat_file: Path, tmp_path: Path) -> None:
    rows = as_loaded(rows_of(chat_file))
    assert list(load(chat_file, tmp_path)) == rows
    assert (
        pa.Table.from_pylist(rows).to_pylist() == rows
    )  # as in versions of `datasets` that know nothing but Arrow's types


@pytest.mark.services
@pytest.mark.parametrize("version", ["3.6.0", "4.0.0"])
def test_earlier_versions_of_datasets_give_the_same(chat_file: Path, tmp_path: Path, version: str) -> None:
    folder = next((found for each in sys.path if (found := Path(each) / "datasets_versions" / version).is_dir()), None)
    if folder is None:
        pytest.skip(f"datasets {version} is not installed (make test-services)")
    program = (
        "import datasets, json, sys\n"
        f"assert datasets.__version__ == {version!r}\n"
        "rows = datasets.load_dataset('json', data_files=sys.argv[1], split='train', cache_dir=sys.argv[2])\n"
        "print(json.dumps(list(rows)))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", program, str(chat_file), str(tmp_path / "cache")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout.splitlines()[-1]) == as_loaded(rows_of(chat_file))


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
    assert second["embeddings"]["m1"] == []
    assert len(second["embeddings"]["m2"]) == 1


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


def test_an_embedding_is_found_by_the_name_the_run_gave_it(tmp_path: Path) -> None:
    folder = EmbeddingFolder(tmp_path, Naming("flat", "/data"))
    assert folder.path_for(Record("p/x.xml", 0, 0)) is None
    (tmp_path / "x.json").write_text("{}")
    assert folder.path_for(Record("p/x.xml", 0, 0)) == tmp_path / "x.json"
    (tmp_path / "y.json").mkdir()
    assert folder.path_for(Record("p/y.xml", 0, 0)) is None
