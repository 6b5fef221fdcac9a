"""Every path of a dataset comes out, in its order, from whatever holds it; the memory that it takes does not grow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.cohort.cohort import Cohort, Record, flat_paths
from ecgfounder.cohort.index import index_cohort, output_name, record_identity
from ecgfounder.cohort.naming import Naming
from ecgfounder.cohort.sources import ROWS_AT_ONCE, ecg_files, is_ecg_folder, open_cohort
from ecgfounder.errors import CohortError, ReadError
from ecgfounder.readers import read_ecg
from ecgfounder.storage import Location
from ecgfounder.storage.paths import absolute_path, path_key
from tests.builders.elsewhere import copied, write_recordings

CELLS: list[Any] = [["a.xml", "b/c.xml"], None, [], ["/abs/d.xml"], ["", None, "e.xml"], ["a.xml"]]
PATHS_OF_CELLS = [
    ("a.xml", 0, 0),
    ("b/c.xml", 0, 1),
    ("/abs/d.xml", 3, 0),
    ("e.xml", 4, 0),
    ("a.xml", 5, 0),
]


def triples(cohort: Cohort) -> list[tuple[str, int, int]]:
    return [(record.path, record.row, record.position) for record in cohort.records()]


def paths_of(dataset: str | Path, **options: Any) -> list[str]:
    return [record.path for record in open_cohort(str(dataset), **options).records()]


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def cohort_of(paths: list[Any], **columns: list[Any]) -> Cohort:
    table = pa.table({"ecg_paths": paths, **columns})
    return Cohort(table.column_names, lambda names: iter([table.select(names)]), id_column=next(iter(columns), None))


# --- Hugging Face datasets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [
        CELLS,
        [None if cell is None else [cell] for cell in CELLS],
        [None if cell is None else [[path] for path in cell] for cell in CELLS],
        [None if cell is None else [[], *([path] for path in cell), None] for cell in CELLS],
    ],
    ids=["lists", "lists of one list", "lists of lists of one", "lists with holes"],
)
def test_a_saved_dataset_gives_its_flattened_paths_with_their_places(tmp_path: Path, cells: list[Any]) -> None:
    datasets.Dataset.from_dict({"note": list(range(6)), "ecg_paths": cells}).save_to_disk(tmp_path / "ds")
    cohort = open_cohort(str(tmp_path / "ds"))
    assert triples(cohort) == PATHS_OF_CELLS
    assert triples(cohort) == PATHS_OF_CELLS  # as often as one asks
    assert cohort.n_rows == 6
    assert cohort.fingerprint


def test_a_column_of_plain_text_is_one_path_a_row(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"ecg_paths": ["a.xml", None, "", "b.xml"]}).save_to_disk(tmp_path / "ds")
    assert triples(open_cohort(str(tmp_path / "ds"))) == [("a.xml", 0, 0), ("b.xml", 3, 0)]


def test_a_shuffled_and_filtered_dataset_gives_its_own_order(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict({"ecg_paths": [f"{number}.xml" for number in range(50)]})
    dataset = dataset.shuffle(seed=1).select(range(3, 20))
    dataset.save_to_disk(tmp_path / "ds")
    assert paths_of(tmp_path / "ds") == dataset["ecg_paths"][:]


def test_more_rows_than_one_batch_keep_counting(tmp_path: Path) -> None:
    count = 2 * ROWS_AT_ONCE + 3
    cells = [[f"{row}.xml"] if row % 2 else None for row in range(count)]
    datasets.Dataset.from_dict({"ecg_paths": cells}).save_to_disk(tmp_path / "ds")
    assert triples(open_cohort(str(tmp_path / "ds"))) == [(f"{row}.xml", row, 0) for row in range(1, count, 2)]


def test_a_row_with_ten_thousand_paths(tmp_path: Path) -> None:
    paths = [
        f"some/folder/with/a/name/that/takes/room/p{number:08d}/recording-{number}.xml" for number in range(10_000)
    ]
    assert len(json.dumps(paths)) > 1 << 19
    datasets.Dataset.from_dict({"ecg_paths": [paths, paths[:1]]}).save_to_disk(tmp_path / "ds")
    line = json.dumps({"ecg_paths": [paths, paths, paths]}) + "\n"
    for dataset in (tmp_path / "ds", write(tmp_path / "rows.jsonl", line * 2 + json.dumps({"ecg_paths": [paths[:1]]}))):
        found = paths_of(dataset)
        assert found[:10_000] == paths
        assert len(found) == (10_001 if dataset.is_dir() else 60_001)


def test_the_split_decides_in_a_dataset_dict(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"ecg_paths": [f"{name}.xml"]}) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "dict")
    assert paths_of(tmp_path / "dict") == ["train.xml"]
    assert paths_of(tmp_path / "dict", split="test") == ["test.xml"]
    with pytest.raises(CohortError, match=r"no split 'validation'; its splits are: train, test.*the 'split' parameter"):
        open_cohort(str(tmp_path / "dict"), split="validation")


@pytest.mark.parametrize("damage", ["state.json", "dataset_info.json", "data-00000-of-00001.arrow", "rows"])
def test_a_damaged_saved_dataset_is_refused(tmp_path: Path, damage: str) -> None:
    rows = [] if damage == "rows" else ["a.xml"]
    datasets.Dataset.from_dict({"ecg_paths": rows}).save_to_disk(tmp_path / "ds")
    if damage != "rows":
        (tmp_path / "ds" / damage).write_bytes(b"{")
    with pytest.raises(CohortError, match="ds"):
        paths_of(tmp_path / "ds")


def test_a_name_on_the_hub_is_loaded_by_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def load(name: str, *, split: str) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_dict({"ecg_paths": [["a.xml"]]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert paths_of("someone/ecgs", split="test") == ["a.xml"]
    assert asked == [("someone/ecgs", "test")]


@pytest.fixture
def hub_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as `hf download` leaves a dataset, and a cache of our own."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    copy = tmp_path / "someone" / "ecgs"
    write(copy / "README.md", "---\nlicense: mit\n---\n")
    for split in ("train", "test"):
        (copy / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table({"ecg_paths": [[f"{split}.xml"]]}), copy / "data" / f"{split}-00000-of-00001.parquet")
    return copy


def test_a_folder_copied_from_the_hub_is_loaded_as_the_dataset_that_it_is(hub_copy: Path) -> None:
    assert not is_ecg_folder(str(hub_copy))
    assert paths_of(hub_copy) == ["train.xml"]
    assert paths_of(hub_copy, split="test") == ["test.xml"]
    with pytest.raises(CohortError, match="validation"):
        open_cohort(str(hub_copy), split="validation")


def test_a_relative_name_that_is_a_folder_here_is_that_folder(hub_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub_copy.parents[1])
    assert paths_of("someone/ecgs") == ["train.xml"]


def test_a_name_that_is_nowhere_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CohortError) as refused:
        open_cohort("nobody-at-all/nothing-at-all")
    message = str(refused.value)
    assert "'nobody-at-all/nothing-at-all' is neither a file or folder here" in message
    assert "Hugging Face Hub" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "name", ["/no/such/folder", "./gone", "../gone/x", "a/b/c", "~/gone", "gone.csv", "x/gone.PARQUET"]
)
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(CohortError, match="no such file or folder"):
        open_cohort(name)


# --- columns -----------------------------------------------------------------------------------------------------------


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"path": ["a.xml"], "age": [1]}).save_to_disk(tmp_path / "ds")
    table = write(tmp_path / "t.csv", "path,age\na.xml,1\n")
    for dataset in (tmp_path / "ds", table):
        with pytest.raises(CohortError, match="Expected 'ecg_paths' column in the dataset; its columns are: path, age"):
            open_cohort(str(dataset))
        with pytest.raises(CohortError, match="Expected 'filename_hr' column in the dataset"):
            open_cohort(str(dataset), path_column="filename_hr")
        with pytest.raises(CohortError, match="Expected 'id' column in the dataset"):
            open_cohort(str(dataset), path_column="path", id_column="id")
        assert paths_of(dataset, path_column="path") == ["a.xml"]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [([1, 2], "int"), ([1.5], "float"), ([{"path": "a"}], "dict"), ([[[1]]], "int"), ([True], "bool")],
    ids=["int", "float", "dict", "nested int", "bool"],
)
def test_cells_that_are_no_paths_are_refused_with_their_row(tmp_path: Path, cells: list[Any], kind: str) -> None:
    rows = [None, *cells]
    datasets.Dataset.from_dict({"ecg_paths": rows}).save_to_disk(tmp_path / "ds")
    with pytest.raises(CohortError, match=f"The 'ecg_paths' column must hold paths .* but row 1 holds a {kind}"):
        paths_of(tmp_path / "ds")


@given(
    st.recursive(st.one_of(st.none(), st.text(max_size=3)), lambda inner: st.lists(inner, max_size=4), max_leaves=12)
)
def test_flattening_keeps_every_path_and_its_order(cell: Any) -> None:
    def flatten(part: Any) -> list[str]:
        return [each for inner in part for each in flatten(inner)] if isinstance(part, list) else [part] if part else []

    assert list(flat_paths(cell)) == flatten(cell)


def test_other_columns_come_with_their_row(tmp_path: Path) -> None:
    datasets.Dataset.from_dict(
        {"ecg_paths": [["a", "b"], None, ["c"]], "age": [1, 2, None], "site": ["x", "y", "z"]}
    ).save_to_disk(tmp_path / "ds")
    found = list(open_cohort(str(tmp_path / "ds")).records_with(("site", "age")))
    assert [(record.path, other) for record, other in found] == [
        ("a", {"site": "x", "age": 1}),
        ("b", {"site": "x", "age": 1}),
        ("c", {"site": "z", "age": None}),
    ]


def test_rows_without_an_ecg_are_among_the_rows(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "ecg_paths,age\na.xml,1\n,2\n")
    assert pa.concat_tables(open_cohort(str(table)).rows(["age"])).to_pylist() == [{"age": 1}, {"age": 2}]


# --- tables ------------------------------------------------------------------------------------------------------------

ROWS: list[dict[str, Any]] = [
    {"ecg_paths": "p/a.xml", "id": "00123", "age": 61},
    {"ecg_paths": None, "id": "7", "age": None},
    {"ecg_paths": "/abs/b.xml", "id": "1e5", "age": 3},
]


def as_csv(path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(path, index=False)


def as_tsv(path: Path) -> None:
    pd.DataFrame(ROWS).to_csv(path, index=False, sep="\t")


def as_parquet(path: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(path)


def as_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.mark.parametrize(
    ("name", "save"),
    [("t.csv", as_csv), ("T.CSV", as_csv), ("t.tsv", as_tsv), ("t.parquet", as_parquet), ("t.jsonl", as_jsonl)],
)
def test_tables_give_paths_and_identifiers_as_text(tmp_path: Path, name: str, save: Callable[[Path], None]) -> None:
    save(tmp_path / name)
    cohort = open_cohort(str(tmp_path / name), id_column="id")
    assert list(cohort.records()) == [Record("p/a.xml", 0, 0, "00123"), Record("/abs/b.xml", 2, 0, "1e5")]
    assert cohort.columns == ("ecg_paths", "id", "age")


def nested(depth: int, between: str = "") -> str:
    """A row of JSON whose path is in lists of lists."""
    return '{"ecg_paths": ' + f"[{between}" * depth + '"a"' + f"]{between}" * depth + "}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (nested(3), "holds lists that are nested 3 deep"),
        (nested(63), "holds lists that are nested 63 deep"),
        ('{"ecg_paths": "a"}\n' + nested(3_000), "line 2 is nested more than 64 levels deep"),
        (nested(200_000), "line 1 is nested more than 64 levels deep"),
        (nested(200_000, "\n"), "line 64 is nested more than 64 levels deep"),
        (
            '{"ecg_paths": "a", "x": ' + '{"y": ' * 3_000 + "1" + "}" * 3_001,
            "line 1 is nested more than 64 levels deep",
        ),
        ('{"ecg_paths": "\udcff"}', r"rows 0 to 0 that cannot be read \(UnicodeDecodeError\)"),
    ],
)
def test_rows_that_cannot_be_represented_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CohortError, match=message) as error:
        paths_of(tmp_path / "t.jsonl")
    assert "\n" not in str(error.value)


def test_one_row_without_a_line_break_is_read(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl", '{"ecg_paths": ["a", "b"]}')
    assert paths_of(tmp_path / "t.jsonl") == ["a", "b"]


def test_brackets_in_text_and_side_by_side_are_no_nesting(tmp_path: Path) -> None:
    row = {"ecg_paths": "[" * 3_000 + '"\\', "x": [[1]] * 3_000}
    write(tmp_path / "t.jsonl", (json.dumps(row) + "\n") * 2)
    assert paths_of(tmp_path / "t.jsonl") == [row["ecg_paths"]] * 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([2**31 - 1], pa.date32()), r"cannot be read \(OverflowError\)"),
        (pa.array([2**62], pa.duration("s")), r"cannot be read \(OverflowError\)"),
        (pa.array([[[["a"]]]]), "nested 3 deep"),
    ],
)
def test_types_that_hold_no_paths_are_refused(tmp_path: Path, values: pa.Array, message: str) -> None:
    pq.write_table(pa.table({"ecg_paths": values}), tmp_path / "t.parquet")
    with pytest.raises(CohortError, match=message):
        paths_of(tmp_path / "t.parquet")


def test_lists_in_parquet_and_jsonl_are_flattened(tmp_path: Path) -> None:
    pq.write_table(pa.table({"ecg_paths": [["a", "b"], None, [], ["c"]]}), tmp_path / "t.parquet")
    write(tmp_path / "t.jsonl", '{"ecg_paths": [["a"], ["b"]]}\n{"x": 1}\n{"ecg_paths": []}\n{"ecg_paths": [["c"]]}\n')
    for name in ("t.parquet", "t.jsonl"):
        assert triples(open_cohort(str(tmp_path / name))) == [("a", 0, 0), ("b", 0, 1), ("c", 3, 0)]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.binary()], ids=str)
def test_text_of_every_arrow_type_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(
        pa.table({"ecg_paths": pa.array(["a.xml", None, "b.xml", "a.xml"]).cast(kind)}), tmp_path / "t.parquet"
    )
    assert paths_of(tmp_path / "t.parquet") == ["a.xml", "b.xml", "a.xml"]


def test_spreadsheets_csv_quirks_are_understood(tmp_path: Path) -> None:
    text = '\ufeffecg_paths,report,id\r\na.xml,"Sinus rhythm,\r\nnormal ""ECG""",007\r\n"b, c.xml",,08\r\n'
    cohort = open_cohort(str(write(tmp_path / "t.csv", text)), id_column="id")
    assert [(record.path, record.identifier) for record in cohort.records()] == [("a.xml", "007"), ("b, c.xml", "08")]


def test_reports_of_several_lines_do_not_cut_rows_anywhere(tmp_path: Path) -> None:
    count = 120_000
    report = '"' + "line\n" * 10 + '"'
    table = write(tmp_path / "t.csv", "ecg_paths,report\n" + "".join(f"{row}.xml,{report}\n" for row in range(count)))
    assert table.stat().st_size > 6e6  # more than one block
    assert paths_of(table) == [f"{row}.xml" for row in range(count)]


def test_paths_that_begin_far_down_are_still_text(tmp_path: Path) -> None:
    text = "age,ecg_paths\n" + "1,\n" * 700_000 + "2,0001\n3,late.xml\n"
    assert paths_of(write(tmp_path / "t.csv", text)) == ["0001", "late.xml"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.csv", b""),
        ("empty.jsonl", b""),
        ("ragged.csv", b"ecg_paths,id\na.xml,1\nb.xml\n"),
        ("twice.csv", b"ecg_paths,ecg_paths\na,b\n"),
        ("latin.csv", "größe,ecg_paths\n1,a.xml\n".encode("latin-1")),
        ("cell.csv", "ecg_paths,x\nä.xml,1\n".encode("latin-1")),
        ("broken.jsonl", b'{"ecg_paths": "a"\n{"ecg_paths": "b"}\n'),
        ("mixed.jsonl", b'{"ecg_paths": "a"}\n{"ecg_paths": ["b"]}\n'),
        ("cut.parquet", b"PAR1\x00\x00PAR"),
        ("list.xlsx", b"PK"),
        ("list", b"a.xml\n"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_name_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(CohortError) as refused:
        paths_of(write(tmp_path / name, content))
    assert name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_that_breaks_far_down_is_refused_when_it_is_indexed(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", "ecg_paths,id\n" + f"{'a' * 200}.xml,1\n" * 35_000 + "b.xml\n")
    cohort = open_cohort(str(table))
    with pytest.raises(CohortError, match=r"t\.csv"):
        index_cohort(cohort, None, "/data")


# --- folders -----------------------------------------------------------------------------------------------------------


def test_a_folder_gives_its_ecg_files_in_sorted_order(tmp_path: Path) -> None:
    for name in (
        "b.xml",
        "a.XML",
        "a.xml.gz",
        "x/y.dcm",
        "x/b.scp",
        "Z.edf",
        "w/r.hea",
        "w/r.dat",
        "w/r.xyz",
        "w/q.mat",
    ):
        write(tmp_path / name, b"")
    for name in (".hidden.xml", ".git/a.xml", "_run/manifest.csv", "notes.pdf", "x/a.json", "README", "a.jpg"):
        write(tmp_path / name, b"")
    assert is_ecg_folder(str(tmp_path))
    found = [os.path.relpath(path, tmp_path) for path in paths_of(tmp_path)]
    assert found == ["Z.edf", "a.XML", "a.xml.gz", "b.xml", "w/q.mat", "w/r.hea", "x/b.scp", "x/y.dcm"]


def test_another_recording_beside_a_wfdb_header_is_not_its_signal_file(tmp_path: Path) -> None:
    for name in ("r.hea", "r.mat", "r.xml"):
        write(tmp_path / name, b"")
    assert [os.path.basename(path) for path in paths_of(tmp_path)] == ["r.hea", "r.xml"]


def test_a_folders_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in" / "a.xml", b"")
    monkeypatch.chdir(tmp_path)
    assert paths_of("in") == [str(tmp_path / "in" / "a.xml")]


def test_a_name_that_is_not_utf8_comes_out_as_a_name_that_opens_the_file(tmp_path: Path) -> None:
    name = os.fsencode(str(tmp_path)) + b"/gr\xf6\xdfe.xml"
    with open(name, "wb") as file:
        file.write(b"content")
    (path,) = paths_of(tmp_path)
    assert os.fsencode(path) == name
    with open(path, "rb") as file:
        assert file.read() == b"content"
    index_cohort(open_cohort(str(tmp_path)), Naming(), "/data")


def test_linked_folders_are_followed_and_each_folder_is_listed_once(tmp_path: Path) -> None:
    cohort, disk = tmp_path / "cohort", tmp_path / "disk"
    for path in (cohort / "own" / "a.xml", disk / "2019" / "b.xml", disk / "2020" / "c.xml"):
        write(path, b"")
    (cohort / "all").symlink_to(disk)
    (cohort / "last").symlink_to(disk / "2020")  # below what is listed already
    (cohort / "again").symlink_to(cohort / "own")
    (disk / "2019" / "back").symlink_to(cohort)
    (disk / "2019" / "up").symlink_to(disk)
    (disk / "2020" / "around").symlink_to(tmp_path)
    assert paths_of(cohort) == [str(cohort / name) for name in ("all/2019/b.xml", "all/2020/c.xml", "own/a.xml")]


def test_a_cohort_folder_that_is_itself_a_link_is_listed(tmp_path: Path) -> None:
    write(tmp_path / "disk" / "a" / "b.xml", b"")
    (tmp_path / "cohort").symlink_to(tmp_path / "disk")
    assert paths_of(tmp_path / "cohort") == [str(tmp_path / "cohort" / "a" / "b.xml")]


def test_the_working_directory_as_a_cohort_has_plain_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a" / "b.xml", b"")
    monkeypatch.chdir(tmp_path)
    for name in (".", "./", "./a"):
        assert [record.path for record in open_cohort(name).records()] == [str(tmp_path / "a" / "b.xml")]


def test_a_link_that_leads_nowhere_is_a_record_that_fails(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", b"")
    (tmp_path / "site2").symlink_to(tmp_path / "not mounted")
    (tmp_path / "b.xml").symlink_to(tmp_path / "gone.xml")
    assert paths_of(tmp_path) == [str(tmp_path / name) for name in ("a.xml", "b.xml", "site2")]
    for name in ("b.xml", "site2"):
        with pytest.raises(ReadError, match="No such file"):
            read_ecg(tmp_path / name)


def test_a_loop_of_symbolic_links_ends(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", b"")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert paths_of(tmp_path) == [str(tmp_path / "a.xml")]


def test_a_folder_that_cannot_be_listed_is_refused_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.xml", b"")
    write(tmp_path / "closed" / "b.xml", b"")
    scandir = os.scandir

    def guarded(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(CohortError, match=r"closed cannot be listed: Permission denied"):
        paths_of(tmp_path)
    with pytest.raises(CohortError, match=r"gone cannot be listed: No such file"):
        list(ecg_files(str(tmp_path / "gone")))


def test_a_folder_without_ecgs_or_dataset_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "notes.pdf", b"")
    assert not is_ecg_folder(str(tmp_path))
    with pytest.raises(CohortError, match=r"holds no ECG files.*\.xml"):
        open_cohort(str(tmp_path))


def test_a_folder_has_no_identifiers(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", b"")
    with pytest.raises(CohortError, match="id_column needs a dataset or a table"):
        open_cohort(str(tmp_path), id_column="id")


# --- streaming and the index -------------------------------------------------------------------------------------------


def memory_of(work: Callable[[], Any]) -> int:
    """Bytes of Python and numpy objects at the most while `work` runs."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def drain(records: Iterator[Record]) -> int:
    return sum(1 for _ in records)


def large_cohort(path: Path, count: int) -> Cohort:
    pq.write_table(pa.table({"ecg_paths": [[f"files/p{n % 1000:04d}/s{n}/{n}.xml"] for n in range(count)]}), path)
    return open_cohort(str(path))


def test_paths_are_streamed_and_never_a_list(tmp_path: Path) -> None:
    cohort = large_cohort(tmp_path / "t.parquet", 50_000)
    assert memory_of(lambda: drain(cohort.records())) < 1_500_000  # a list of them would take 4 MB


def test_an_index_takes_few_bytes_a_path(tmp_path: Path) -> None:
    cohort = large_cohort(tmp_path / "t.parquet", 15_000)
    peak = memory_of(lambda: index_cohort(cohort, Naming(data_dir="/data"), "/data"))
    assert peak < 15_000 * 120
    index = index_cohort(cohort, None, "/data")
    arrays = (index.keys, index.names, index.first, index.marks, index.shared)
    assert sum(array.nbytes for array in arrays) == 25 * 15_000


def test_a_saved_dataset_is_streamed_too(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"ecg_paths": [f"files/{n}.xml" for n in range(50_000)]}).save_to_disk(tmp_path / "ds")
    cohort = open_cohort(str(tmp_path / "ds"))
    assert memory_of(lambda: drain(cohort.records())) < 2_000_000


def test_the_first_of_repeated_paths_is_marked_however_they_are_written() -> None:
    cohort = cohort_of(
        [["a.xml", "b.xml"], ["/data/a.xml", "./b.xml"], ["x/../a.xml", "/data//a.xml", "c.xml"], ["A.xml"]]
    )
    index = index_cohort(cohort, Naming("tree", "/data"), "/data")
    assert index.first.tolist() == [True, True, False, False, False, False, True, True]
    assert index.n_records == 4


@given(st.lists(st.sampled_from(["a.xml", "b.xml", "x/a.xml", "/data/b.xml", "./x/a.xml", "/c.xml"]), max_size=20))
def test_first_marks_exactly_one_of_each_record(paths: list[str]) -> None:
    index = index_cohort(cohort_of([paths]), Naming(), "/data")
    wholes = [absolute_path(path, "/data") for path in paths]
    assert index.first.tolist() == [whole not in wholes[:place] for place, whole in enumerate(wholes)]
    assert len(set(index.keys.tolist())) == len(set(wholes)) == index.n_records


def test_a_cohort_that_moves_with_its_data_folder_keeps_its_records() -> None:
    paths = ["a.xml", "b/c.xml"]
    keys = [
        index_cohort(cohort_of([written]), Naming(data_dir=root), root).keys.tolist()
        for root, written in (("/data", paths), ("/moved", paths), ("/moved", [f"/moved/{path}" for path in paths]))
    ]
    assert keys[0] == keys[1] == keys[2]
    assert record_identity("/data2/a.xml", "/data") == "/data2/a.xml"  # below is not the same as beginning alike
    assert record_identity("a.xml", "/") == "a.xml"


@pytest.mark.parametrize(
    ("layout", "paths", "collide"),
    [
        ("flat", ["a/x.xml", "b/x.xml"], True),
        ("tree", ["a/x.xml", "b/x.xml"], False),
        ("tree", ["a/x.xml", "a/x.dcm"], True),
        ("tree", ["a/x.xml", "A/X.xml"], True),
        ("flat", ["Straße.xml", "STRASSE.xml"], True),
        ("flat", ["x.xml", "./x.xml", "/data/x.xml"], False),
        ("flat", ["x.xml", "x.xml.gz"], True),
        ("flat", ["n" * 300 + ".xml", "b/" + "n" * 300 + ".xml"], False),
    ],
)
def test_names_that_two_records_would_share_are_found(layout: Any, paths: list[str], collide: bool) -> None:
    naming = Naming(layout, "/data")
    index = index_cohort(cohort_of([paths]), naming, "/data")
    assert (len(index.colliding_names()) == 1) == collide
    if collide:
        assert index.colliding_names()[0] == naming.key(naming.name(paths[0]))


def test_a_path_that_cannot_be_given_a_name_is_in_the_index_without_one() -> None:
    paths = ["n" * 300 + ".xml", "a.xml", "/outside/b.xml"]
    index = index_cohort(cohort_of([paths]), Naming("tree", "/data"), "/data")
    assert (index.names == 0).tolist() == [True, False, True]
    assert index.n_records == 3


def test_without_names_nothing_collides() -> None:
    assert len(index_cohort(cohort_of([["a/x.xml", "b/x.xml"]]), None, "/data").colliding_names()) == 0


def test_outputs_are_named_by_identifiers_where_there_is_a_column_of_them() -> None:
    naming = Naming(data_dir="/data")
    records = list(cohort_of([["a.xml", "b.xml"], ["c.xml"], ["d.xml"]], id=["007", None, "x/y"]).records())
    assert [record.identifier for record in records] == ["007", "007", "", "x/y"]
    assert [output_name(records[place], naming) for place in (0, 1, 3)] == ["007.json", "007_1.json", "x%2Fy.json"]
    index = index_cohort(cohort_of([["a.xml"], ["b.xml"], ["c.xml"]], id=["1", "1", "2"]), naming, "/data")
    assert index.colliding_names().tolist() == [naming.key("1.json")]
    assert index_cohort(cohort_of([["c.xml"]], id=[None]), naming, "/data").names.tolist() == [0]


def test_a_recording_with_an_identifier_is_known_by_it_and_nothing_tells_its_path() -> None:
    naming = Naming(data_dir="/data")
    here, elsewhere = (
        index_cohort(
            cohort_of([[f"{folder}/a.xml", f"{folder}/b.xml"], [f"{folder}/c.xml"]], id=["1", "2"]), naming, "/data"
        )
        for folder in ("x", "/y")
    )
    assert here.keys.tolist() == elsewhere.keys.tolist()
    assert here.n_records == 3
    assert len(here.colliding_names()) == 0


def test_an_identifier_of_two_recordings_collides_and_one_of_the_same_recording_twice_does_not() -> None:
    naming = Naming(data_dir="/data")
    twice = index_cohort(cohort_of([["a.xml"], ["./a.xml"], ["c.xml"]], id=["1", "1", "2"]), naming, "/data")
    assert twice.first.tolist() == [True, False, True]
    assert len(twice.colliding_names()) == 0
    several = index_cohort(
        cohort_of([["a.xml", "b.xml"], ["c.xml"], ["a.xml"], ["d.xml"]], id=["1", "1_1", "1", "3"]), naming, "/data"
    )
    assert several.colliding_names().tolist() == [naming.key("1_1.json")]
    last = index_cohort(cohort_of([["a.xml"], ["a.xml"], ["b.xml"]], id=["1", "1", "1"]), naming, "/data")
    assert last.colliding_names().tolist() == [naming.key("1.json")]


def test_keys_are_those_of_the_record_s_identity() -> None:
    index = index_cohort(cohort_of([["/data/a.xml", "/b.xml"]]), Naming(), "/data")
    assert index.keys.tolist() == [path_key("a.xml"), path_key("/b.xml")]


def test_a_folder_of_recordings_is_listed_alike_in_any_store(tmp_path: Path, elsewhere: Location) -> None:
    write_recordings(tmp_path)
    for name in (".hidden/x.xml", "_run/y.xml", "z.txt", "notes.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    copied(tmp_path, elsewhere)
    expected = ["a.npy", "b.npy.gz", "exams.hdf5", "z.txt", "wfdb/r.hea"]
    assert [path.removeprefix(f"{tmp_path}/") for path in ecg_files(tmp_path)] == expected
    assert [path.removeprefix(f"{elsewhere}/") for path in ecg_files(elsewhere)] == expected
    assert [record.path for record in open_cohort(elsewhere).records()] == list(ecg_files(elsewhere))


def test_a_folder_is_looked_at_without_loading_what_takes_longer_than_the_rest(tmp_path: Path) -> None:
    """pandas, which pyarrow loads to make an array of a list, doubles the time to the first recording."""
    (tmp_path / "a.xml").write_bytes(b"<x/>")
    program = (
        "import sys, ecgfounder.run.run as run; from ecgfounder.cohort.sources import open_cohort\n"
        "records = [record.path for record in open_cohort(sys.argv[1]).records()]\n"
        "loaded = {'pandas', 'pyarrow.compute', 'torch', 'scipy', 'urllib.request', 'ray'} & set(sys.modules)\n"
        "print(records, sorted(loaded))"
    )
    found = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert found.stdout == f"['{tmp_path}/a.xml'] []\n"
