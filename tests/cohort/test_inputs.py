"""Lists, patterns, tables of every form and tables in memory give the recordings that they name."""

from __future__ import annotations

import gzip
import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pytest

from ecgfounder.cohort.cells import is_list_text, paths_of_text
from ecgfounder.cohort.cohort import Cohort
from ecgfounder.cohort.in_memory import file_of
from ecgfounder.cohort.sources import default_data_dir, lasting_name, open_cohort
from ecgfounder.errors import CohortError
from ecgfounder.storage import Location, locate
from tests.builders.elsewhere import copied


def paths_of(dataset: str | Path | Location, **options: Any) -> list[str]:
    told = dataset if isinstance(dataset, Location) else str(dataset)
    return [record.path for record in open_cohort(told, **options).records()]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(dataset: str | Path, **options: Any) -> str:
    with pytest.raises(CohortError) as error:
        paths_of(dataset, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- lists -------------------------------------------------------------------------------------------------------------


def test_a_records_file_names_wfdb_headers_in_its_own_folder(tmp_path: Path) -> None:
    place = write(tmp_path / "db" / "RECORDS", "records100/00001_lr\r\n\nr.2\n./x/y\ne.edf\n")
    names = ("records100/00001_lr.hea", "r.2.hea", "x/y.hea", "e.edf")
    assert paths_of(place) == [str(tmp_path / "db" / name) for name in names]
    assert default_data_dir(str(place)) == str(tmp_path / "db")
    assert open_cohort(str(place)).fingerprint.startswith("RECORDS:")
    assert len(paths_of(write(tmp_path / "db" / "RECORDS-waveforms", "a\n"))) == 1


def test_a_records_file_of_folders_leads_to_theirs(tmp_path: Path) -> None:
    write(tmp_path / "RECORDS", "training/a/\ntraining/b/\n")
    write(tmp_path / "training" / "a" / "RECORDS", "1\n2\n")
    write(tmp_path / "training" / "b" / "RECORDS", "3\n")
    names = ("training/a/1.hea", "training/a/2.hea", "training/b/3.hea")
    assert paths_of(tmp_path / "RECORDS") == [str(tmp_path / name) for name in names]
    write(tmp_path / "training" / "a" / "RECORDS", "1\n./\n2\n")  # itself, once
    assert paths_of(tmp_path / "RECORDS") == [str(tmp_path / name) for name in names]
    write(tmp_path / "RECORDS", "up/\n")
    (tmp_path / "up").symlink_to(tmp_path)
    assert "lead from one to the next" in refused(tmp_path / "RECORDS")


@pytest.mark.parametrize("name", ["../r", "/etc/r", "a/../../r", "study.zip::r", "..", "../"])
def test_a_name_of_a_records_file_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    assert "leads out of its folder" in refused(write(tmp_path / "RECORDS", f"a\n{name}\n"))


def test_a_text_file_has_a_path_in_each_line(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfa.xml\r\n\r\n /b c.xml \ngr\xf6\xdfe.xml\ns3://x/y.xml"
    found = paths_of(write(tmp_path / "list.txt", content))
    assert found == ["a.xml", "/b c.xml", "gr\udcf6\udcdfe.xml", "s3://x/y.xml"]
    assert default_data_dir(str(tmp_path / "list.txt")) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the list is empty"),
        (b"\n\n \n", "the list is empty"),
        (b"0.1\t0.2\n0.3\t0.4\n", "a list of paths was expected, and line 1 holds numbers"),
        (b"-0.153\n-0.154\n", "a list of paths was expected, and line 1 holds numbers"),
        (b"a.xml\n" + b"x" * 5_000_000, "line 2 is no path"),
        (b"a\0b\n", "line 1 is no path"),
    ],
)
def test_a_text_file_that_is_no_list_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refused(write(tmp_path / "list.txt", content))


def test_a_list_has_no_columns(tmp_path: Path) -> None:
    assert "is a list of paths and has no columns" in refused(write(tmp_path / "list.txt", "a.xml\n"), id_column="id")


# --- one file, patterns ------------------------------------------------------------------------------------------------


def test_one_ecg_file_is_a_cohort(tmp_path: Path) -> None:
    write(tmp_path / "r.hea", b"")
    for name in ("a.xml", "b.XML.gz", "r.dat", "r.hea", "s.dat"):
        write(tmp_path / name, b"x")
        assert paths_of(tmp_path / name) == [str(tmp_path / name.replace("r.dat", "r.hea"))]
        assert default_data_dir(str(tmp_path / name)) == str(tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    names = ("a/1.xml", "a/2.xml", "a/b/3.xml", "a/b/3.dcm", "c/r.hea", "c/r.dat", ".h/4.xml", "_run/5.xml", "a/.6.xml")
    for name in names:
        write(tmp_path / "data" / name, b"x")
    return tmp_path / "data"


PATTERNS = [
    ("**/*.xml", ["a/1.xml", "a/2.xml", "a/b/3.xml"]),
    ("a/*.xml", ["a/1.xml", "a/2.xml"]),
    ("*/?.xml", ["a/1.xml", "a/2.xml"]),
    ("a/[2-9].*", ["a/2.xml"]),
    ("c/*", ["c/r.hea"]),
    ("c/*.dat", ["c/r.dat"]),
    ("a/**", ["a/1.xml", "a/2.xml", "a/b/3.dcm", "a/b/3.xml"]),
    ("a/**/b/*.dcm", ["a/b/3.dcm"]),
]


@pytest.mark.parametrize(("pattern", "names"), PATTERNS)
def test_a_pattern_gives_what_matches_it(tree: Path, pattern: str, names: list[str]) -> None:
    assert paths_of(f"{tree}/{pattern}") == [str(tree / name) for name in names]


@pytest.mark.parametrize(("pattern", "names"), PATTERNS)
def test_a_pattern_matches_alike_in_other_stores_and_archives(
    tree: Path, elsewhere: Location, pattern: str, names: list[str]
) -> None:
    copied(tree, elsewhere)
    assert paths_of(f"{elsewhere}/{pattern}") == [f"{elsewhere}/{name}" for name in names]
    with zipfile.ZipFile(tree.parent / "study.zip", "w") as archive:
        for path in filter(Path.is_file, tree.rglob("*")):
            archive.write(path, path.relative_to(tree))
    assert paths_of(f"{tree.parent}/study.zip::{pattern}") == [f"{tree.parent}/study.zip::{name}" for name in names]


def test_a_pattern_s_data_folder_and_lasting_name(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data_dir(f"{tree}/a/*/*.xml") == f"{tree}/a"
    monkeypatch.chdir(tree)
    assert lasting_name("a/*.xml") == f"{tree}/a/*.xml"
    assert lasting_name("a") == f"{tree}/a"
    assert lasting_name("someone/ecgs") == "someone/ecgs"
    assert lasting_name("s3://x/*.xml") == "s3://x/*.xml"
    assert paths_of("a/*.xml") == [str(tree / "a" / name) for name in ("1.xml", "2.xml")]


def test_a_pattern_that_matches_nothing_is_refused(tree: Path) -> None:
    assert "no file matches this pattern" in refused(f"{tree}/*.scp")
    assert "cannot be listed" in refused(f"{tree}/none/*.scp")
    write(tree / "x[1].xml", b"x")
    assert paths_of(tree / "x[1].xml") == [str(tree / "x[1].xml")]  # a name is itself


def test_links_in_circles_end(tree: Path) -> None:
    (tree / "a" / "up").symlink_to(tree)
    (tree / "a" / "self").symlink_to(tree / "a")
    began = time.monotonic()
    assert len(paths_of(f"{tree}/**/1.xml")) == 1
    assert time.monotonic() - began < 5


# --- tables ------------------------------------------------------------------------------------------------------------

ROWS = [{"ecg_paths": "p/a.xml", "id": "00123"}, {"ecg_paths": "/b;x,|.xml", "id": "7"}]


def as_text(separator: str, *, packed: bool = False) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        text = pd.DataFrame(ROWS).to_csv(index=False, sep=separator).encode()
        path.write_bytes(gzip.compress(text) if packed else text)

    return save


def as_json(value: Any) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        path.write_text(value if isinstance(value, str) else json.dumps(value, indent=1))

    return save


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
COLUMNS = {name: [row[name] for row in ROWS] for name in ("ecg_paths", "id")}


@pytest.mark.parametrize(
    ("name", "save"),
    [
        *((name, as_text(separator)) for name in ("t.csv", "t.TSV") for separator in ",;\t|"),
        ("t.csv.gz", as_text(";", packed=True)),
        ("t.tsv.gz", as_text("\t", packed=True)),
        ("t.json", as_json(ROWS)),
        ("t.json", as_json(COLUMNS)),
        (
            "t.json",
            as_json({name: {str(at): cell for at, cell in enumerate(cells)} for name, cells in COLUMNS.items()}),
        ),
        ("t.json", as_json(LINES)),
        ("t.json", as_json(LINES.rstrip())),
        ("t.ndjson", as_json(LINES)),
        ("t.feather", lambda path: pyarrow.feather.write_feather(pa.table(COLUMNS), path)),
    ],
)
def test_tables_of_every_form(
    tmp_path: Path, elsewhere: Location, name: str, save: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    save(tmp_path / name)
    (elsewhere / name).put((tmp_path / name).read_bytes())
    for dataset in (str(tmp_path / name), f"{elsewhere}/{name}"):
        cohort = open_cohort(dataset, id_column="id")
        assert [(record.path, record.identifier) for record in cohort.records()] == [
            ("p/a.xml", "00123"),
            ("/b;x,|.xml", "7"),
        ]
        assert cohort.fingerprint.startswith(f"{name}:")


def test_lists_of_paths_in_json(tmp_path: Path) -> None:
    assert paths_of(write(tmp_path / "t.json", '["a.xml", "b.xml"]')) == ["a.xml", "b.xml"]
    assert paths_of(write(tmp_path / "t.json", '[{"ecg_paths": ["a", "b"]}, {"x": 1}, {"ecg_paths": null}]')) == [
        "a",
        "b",
    ]
    assert paths_of(write(tmp_path / "t.json", '{"ecg_paths": "a.xml"}')) == ["a.xml"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.json", b"", "empty"),
        ("t.json", b"  \n", "empty"),
        ("t.json", b"{", "cannot be read as .json"),
        ("t.json", b"\xff\xfe[]", "cannot be read as .json"),
        ("t.json", b"[" * 200_000, "nested"),
        ("t.json", b"3", "array of rows"),
        ("t.json", b'[1, "a"]', "array of rows"),
        ("t.json", b'{"ecg_paths": ["a"],\n "x": []}', "array of rows"),
        ("t.json", b'[{"ecg_paths": ' + b"9" * 30 + b"}]", "t.json"),
        ("t.json", b'[{"ecg_paths": "\\ud800"}]', "t.json"),
        ("t.json", b'[{"ecg_paths": ' + b"[" * 900 + b"]" * 900 + b"}]", "nested 900 deep"),
        ("t.json", b"[]", "its columns are: none"),
        ("t.json", b'[{"ecg_paths": "a"}, {"ecg_paths": ["b"]}]', "t.json"),
        ("t.json", b'[{"path": "a"}]', "its columns are: path"),
        ("t.ndjson", b'{"ecg_paths": "a"\n', "t.ndjson"),
        ("t.feather", b"ARROW1\0\0ARR", "cannot be read as .feather"),
        ("t.feather", b"", "cannot be read as .feather"),
        ("t.csv.gz", b"ecg_paths\na.xml\n", "cannot be read as .csv.gz"),
        ("t.csv.gz", gzip.compress(b"ecg_paths\n" + b"a.xml\n" * 5000, mtime=0)[:40], "cannot be read as .csv.gz"),
        ("t.csv", b"a;b\n1;2\n", "its columns are: a, b"),
        ("t.csv", b'"' + b"x" * 300_000, "t.csv"),
    ],
)
def test_damaged_empty_and_hostile_tables_get_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    assert message in refused(write(tmp_path / name, content))


def test_a_small_file_of_one_huge_line_gets_one_line(tmp_path: Path) -> None:
    assert "t.csv.gz" in refused(write(tmp_path / "t.csv.gz", gzip.compress(b"x" * 50_000_000, mtime=0)))


def test_the_separator_is_that_of_the_header(tmp_path: Path) -> None:
    assert paths_of(write(tmp_path / "t.csv", "ecg_paths\na;b.xml\n")) == ["a;b.xml"]
    text = '"note, long";"age|years";ecg_paths\n1,5;3;a.xml\n'
    assert paths_of(write(tmp_path / "t.csv", text)) == ["a.xml"]
    assert open_cohort(str(tmp_path / "t.csv")).columns == ("note, long", "age|years", "ecg_paths")


# --- lists as text -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "paths"),
    [
        ("['a.xml', 'b.xml']", ["a.xml", "b.xml"]),
        ('["a.xml", "b\\u00e4.xml"]', ["a.xml", "bä.xml"]),
        ("['a.xml' 'b.xml'\n 'c.xml']", ["a.xml", "b.xml", "c.xml"]),
        ("[['a'], ['b', None]]", ["a", "b"]),
        ('["it\'s.xml"]', ["it's.xml"]),
        ("['it\\'s.xml', '']", ["it's.xml"]),
        ("[]", []),
        ("[None]", []),
        (" [ 'a' , ] ", ["a"]),
    ],
)
def test_a_list_as_text_is_a_list(cell: str, paths: list[str]) -> None:
    assert is_list_text(cell)
    assert paths_of_text(cell) == paths


@pytest.mark.parametrize(
    "cell", ["['a', ", "['a' ... 'b']", "['a'] x", "['a", "['\\N{x}']", "['a', 3]", "[" * 9_999 + "'"]
)
def test_a_list_as_text_that_is_cut_is_refused(cell: str) -> None:
    assert is_list_text(cell)
    with pytest.raises(ValueError, match=r"list|text"):
        paths_of_text(cell)


@pytest.mark.parametrize("cell", ["a.xml", "[1].xml", "[a]", "", "a['b']", "[a", "[" * 99_999])
def test_other_texts_are_no_lists(cell: str) -> None:
    assert not is_list_text(cell)


def test_lists_in_cells_are_as_lists_in_a_dataset(tmp_path: Path) -> None:
    cells: list[Any] = [["a.xml", "b, c.xml"], [], ["d.xml"]]
    pd.DataFrame({"ecg_paths": cells, "id": [1, 2, 3]}).to_csv(tmp_path / "t.csv", index=False)
    found = [tuple(record) for record in open_cohort(str(tmp_path / "t.csv"), id_column="id").records()]
    assert found == [("a.xml", 0, 0, "1"), ("b, c.xml", 0, 1, "1"), ("d.xml", 2, 0, "3")]
    write(tmp_path / "t.csv", "ecg_paths\na.xml\n\"['a' ... 'b']\"\n")
    assert "list of paths as text in row 1 that cannot be read" in refused(tmp_path / "t.csv")


# --- in memory ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


TABLE = {"ecg_paths": [["a.xml", "b.xml"], ["c.xml"]], "id": ["001", "2"], "secret": ["x", "y"]}


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table], ids=["pandas", "polars", "pyarrow"])
def test_a_table_in_memory_is_a_file_with_the_columns_in_use(cache: Path, make: Callable[[Any], Any]) -> None:
    path = file_of(make(TABLE), "ecg_paths", "id")
    cohort = open_cohort(path, id_column="id")
    assert [tuple(record) for record in cohort.records()] == [
        ("a.xml", 0, 0, "001"),
        ("b.xml", 0, 1, "001"),
        ("c.xml", 1, 0, "2"),
    ]
    assert cohort.columns == ("ecg_paths", "id")
    fingerprint = cohort.fingerprint
    assert file_of(make(TABLE), "ecg_paths", "id") == path
    assert open_cohort(path, id_column="id").fingerprint == fingerprint  # not written again
    assert Path(path).is_relative_to(cache)


def test_a_list_of_paths_is_a_cohort(cache: Path) -> None:
    paths = ["a.xml", Path("b.xml"), "gr\udcf6\udcdfe.xml"]
    path = file_of(paths, "column", None)
    assert paths_of(path, path_column="column") == ["a.xml", "b.xml", "gr\udcf6\udcdfe.xml"]
    assert file_of(pd.Series(["a.xml"]), "c", None) == file_of(["a.xml"], "c", None)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (3, "is a int; expected a path"),
        (b"a.xml", "is a bytes; expected a path"),
        (["a", 3], "its item 1 is a int"),
        (
            pd.DataFrame({"path": ["a"]}),
            r"its columns are: path\. Did you mean .path.\? Name the right one with the 'path_column' parameter",
        ),
        (pd.DataFrame({"ecg_paths": ["a", ["b"]]}), "cannot be made a table"),
    ],
)
def test_what_is_no_cohort_is_refused(cache: Path, dataset: Any, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        file_of(dataset, "ecg_paths", None)
    assert not list(cache.glob("*/*"))


def test_a_list_in_an_archive_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("db/RECORDS", "r1\nx/r2\n")
        archive.writestr("db/list.txt", "a.xml\n")
        archive.writestr("db/a.xml", "x")
    inside = f"{tmp_path}/study.zip::db"
    assert paths_of(f"{inside}/RECORDS") == [f"{inside}/r1.hea", f"{inside}/x/r2.hea"]
    assert paths_of(f"{inside}/list.txt") == ["a.xml"]
    assert paths_of(f"{inside}/a.xml") == [f"{inside}/a.xml"]
    for name in ("RECORDS", "list.txt", "a.xml"):
        assert default_data_dir(f"{inside}/{name}") == inside
    assert isinstance(open_cohort(locate(f"{inside}/RECORDS")), Cohort)
