"""Names never leave the output folder, never change from run to run, and collide only where that can be seen."""

from __future__ import annotations

import os
import posixpath
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.cohort.naming import MAX_NAME_BYTES, TEMPORARY_BYTES, Naming, stem_of
from ecgfounder.errors import PrepareError, SettingsError
from ecgfounder.storage.paths import KNOWN_SUFFIXES, absolute_path, path_key, split_member

# Any text, lone surrogates (file names that are not UTF-8) among it, and text that looks like a path gone wrong.
ANYTHING = st.text(st.characters(), max_size=40)
PARTS = st.sampled_from(
    [
        "..",
        ".",
        "",
        "a",
        "A",
        "x.xml",
        "x.dcm",
        "x.XML.gz",
        "_run",
        "_RUN",
        "~",
        "e.h5::t/1",
        "e.h5::",
        "::",
        "\udcff",
        " ",
    ]
)
PATHS = st.one_of(ANYTHING, st.lists(PARTS, min_size=1, max_size=6).map("/".join))
NAMINGS = st.builds(
    Naming,
    layout=st.sampled_from(["flat", "tree"]),
    data_dir=st.sampled_from(["/data", "/", ".", "/data/a", "../x"]),
    suffix=st.sampled_from([".json", ".npy", ""]),
)


def assert_stays_inside(name: str) -> None:
    folder = "/out/of/run"
    place = posixpath.normpath(f"{folder}/{name}")
    assert place == f"{folder}/{name}"
    assert not name.startswith("/")
    assert name.split("/")[0].casefold() != "_run"
    assert "\0" not in name
    parts = name.split("/")
    assert all(len(os.fsencode(part)) <= MAX_NAME_BYTES for part in parts)
    assert len(os.fsencode(parts[-1])) + TEMPORARY_BYTES <= MAX_NAME_BYTES


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("deid_3.xml", "deid_3"),
        ("a/b.c.xml", "b.c"),
        ("x.XML.gz", "x"),
        ("x.gz", "x"),
        ("x.xml.xml", "x.xml"),
        ("files/p1000/s40689238/40689238", "40689238"),
        ("40689238.hea", "40689238"),
        ("2020.12.31", "2020.12.31"),
        ("report.pdf", "report.pdf"),
        (".xml", ".xml"),
        ("..xml", "..xml"),
        (".gz", ".gz"),
        ("exams.hdf5::tracings/12", "exams.tracings.12"),
        ("a/exams.h5.gz::/tracings/12/", "exams.tracings.12"),
        ("Müller::1.xml", "Müller::1"),
        ("ward::2/x.xml", "x"),
        ("exams.hdf5::", "exams.hdf5::"),
    ],
)
def test_stem_loses_one_known_suffix_and_gz_and_nothing_else(path: str, stem: str) -> None:
    assert stem_of(path) == stem


def test_known_suffixes_are_lower_case_with_a_dot() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in KNOWN_SUFFIXES)


@given(stem=st.text(st.characters(exclude_characters="/:\0", codec="utf-8"), min_size=1, max_size=20))
def test_stem_with_dots_survives_any_known_suffix(stem: str) -> None:
    if not stem.strip("."):
        return
    for suffix in (".xml", ".HEA", ".csv.gz", ".hdf5"):
        assert stem_of(f"folder.with.dots/{stem}{suffix}") == stem


@given(naming=NAMINGS, path=PATHS)
def test_no_path_gives_a_name_outside_the_output_folder(naming: Naming, path: str) -> None:
    try:
        name = naming.name(path)
    except PrepareError:
        return
    assert_stays_inside(name)
    assert name.endswith(naming.suffix)


@given(naming=NAMINGS, identifier=ANYTHING)
def test_no_identifier_gives_a_name_outside_the_output_folder(naming: Naming, identifier: str) -> None:
    try:
        name = naming.name_for_id(identifier)
    except PrepareError:
        return
    assert_stays_inside(name)
    assert "/" not in name
    assert not name.startswith(".") or identifier.strip() == ""


@given(identifier=ANYTHING)
def test_different_identifiers_have_different_names(identifier: str) -> None:
    try:
        name = Naming().name_for_id(identifier)
    except PrepareError:
        return
    if identifier.isascii():
        assert unquote(name).removesuffix(".json") == identifier


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("00123", "00123.json"),
        ("a.xml", "a.xml.json"),
        ("..", "%2E..json"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd.json"),
        ("50%", "50%25.json"),
        ("a\0b\n", "a%00b%0A.json"),
        ("_run", "_run.json"),
    ],
)
def test_identifiers_are_escaped_as_in_a_url(identifier: str, name: str) -> None:
    assert Naming().name_for_id(identifier) == name


@pytest.mark.parametrize("identifier", ["", "  ", "x" * 239, "ü" * 120])
def test_identifiers_that_cannot_be_a_name_are_refused(identifier: str) -> None:
    with pytest.raises(PrepareError):
        Naming().name_for_id(identifier)


@given(paths=st.lists(PATHS, min_size=2, max_size=2), data_dir=st.sampled_from(["/data", "/"]))
def test_tree_keeps_different_paths_apart_unless_only_the_suffix_differs(paths: list[str], data_dir: str) -> None:
    naming = Naming("tree", data_dir)
    try:
        one, other = (naming.name(path) for path in paths)
    except PrepareError:
        return
    first, second = (absolute_path(path, data_dir) for path in paths)
    if one != other:
        assert first != second
    elif first != second:
        folders = [split_member(path)[0].rpartition("/")[0] for path in (first, second)]
        assert folders[0] == folders[1]
        assert stem_of(first) == stem_of(second)
        assert naming.key(one) == naming.key(other)


def test_tree_mirrors_the_folders_below_the_data_folder() -> None:
    naming = Naming("tree", "/data")
    assert naming.name("p1/a/x.xml") == "p1/a/x.json"
    assert naming.name("/data/p1/./b/../a/x.xml.gz") == "p1/a/x.json"
    assert naming.name("p1/exams.hdf5::tracings/12") == "p1/exams.tracings.12.json"
    assert naming.name("x.xml") == "x.json"
    assert Naming("tree", "/").name("/a/x.xml") == "a/x.json"


@pytest.mark.parametrize("path", ["../x.xml", "/elsewhere/x.xml", "/database/x.xml", "a/../../x.xml", "/data"])
def test_tree_refuses_a_path_outside_the_data_folder(path: str) -> None:
    with pytest.raises(PrepareError, match="outside data_dir"):
        Naming("tree", "/data").name(path)
    if path != "/data":
        assert Naming("flat", "/data").name(path) == "x.json"


def test_tree_refuses_the_folder_of_the_runs_books() -> None:
    for path in ("_run/x.xml", "_RUN/a/x.xml"):
        with pytest.raises(PrepareError, match="_run"):
            Naming("tree", "/data").name(path)
    with pytest.raises(PrepareError, match="_run"):
        Naming("flat", "/data", suffix="").name("_run")
    assert Naming("tree", "/data").name("a/_run/x.xml") == "a/_run/x.json"


def test_names_too_long_for_a_file_system_are_refused_with_the_way_out() -> None:
    room = MAX_NAME_BYTES - TEMPORARY_BYTES - len(".json")
    assert Naming().name("x" * room + ".xml") == "x" * room + ".json"
    for path in ("x" * (room + 1) + ".xml", "ü" * (room // 2 + 1) + ".xml"):
        with pytest.raises(PrepareError, match="id_column"):
            Naming().name(path)


@pytest.mark.parametrize("path", ["", "/", "a\0b.xml", "\ud800.xml"])
def test_paths_that_name_no_file_are_refused(path: str) -> None:
    with pytest.raises(PrepareError):
        Naming("flat", "/").name(path)


def test_file_names_that_are_not_utf8_are_named_and_can_be_created(tmp_path: Path) -> None:
    path = os.fsdecode(b"caf\xe9.xml")
    name = Naming("tree", str(tmp_path)).name(path)
    assert name == "caf\\xe9.json"
    assert isinstance(path_key(absolute_path(path, "/data")), int)


@pytest.mark.parametrize(
    ("path", "data_dir", "absolute"),
    [
        ("a/x.xml", "/data", "/data/a/x.xml"),
        ("/other/x.xml", "/data", "/other/x.xml"),
        ("./a//b/../x.xml", "/data/", "/data/a/x.xml"),
        ("//data/x.xml", "/", "/data/x.xml"),
        ("../x.xml", "/data", "/x.xml"),
        ("e.h5::t/../1", "/data", "/data/e.h5::t/../1"),
        ("b/../e.h5::t", "/data", "/data/e.h5::t"),
    ],
)
def test_absolute_path_is_normalised_and_keeps_the_member(path: str, data_dir: str, absolute: str) -> None:
    assert absolute_path(path, data_dir) == absolute


@given(path=PATHS, data_dir=st.sampled_from(["/data", "/", "data", "."]))
def test_absolute_path_is_absolute_and_stays_the_same_when_taken_again(path: str, data_dir: str) -> None:
    absolute = absolute_path(path, data_dir)
    assert absolute.startswith("/")
    assert absolute_path(absolute, data_dir) == absolute
    assert absolute_path(absolute, "/another") == absolute


def test_absolute_path_leaves_symbolic_links_alone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert absolute_path("link/x.xml", str(tmp_path)) == f"{tmp_path}/link/x.xml"


def test_relative_data_folder_is_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    naming = Naming("tree", "cohort")
    monkeypatch.chdir("/")
    assert naming.data_dir == f"{tmp_path}/cohort"
    assert naming.name(f"{tmp_path}/cohort/a/x.xml") == "a/x.json"


@given(path=ANYTHING)
def test_every_path_has_a_key_of_64_bits(path: str) -> None:
    assert 0 <= path_key(path) < 1 << 64


def test_keys_are_the_same_in_every_process() -> None:
    # BLAKE2b-64 of the UTF-8 bytes, little endian; a changed value would orphan every ledger.
    code = "from ecgfounder.storage.paths import path_key; print(path_key('/data/a/x.xml'))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(printed.stdout) == path_key("/data/a/x.xml") == 1_810_686_820_196_448_140


def test_names_that_differ_in_case_only_have_one_key() -> None:
    naming = Naming()
    assert naming.key("ECG_1.json") == naming.key("ecg_1.json")
    assert naming.key("STRASSE.json") == naming.key("straße.json")
    assert naming.key("ecg_1.json") != naming.key("ecg_2.json")


def test_settings_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SettingsError, match="'flat' and 'tree'"):
        Naming(layout="nested")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="suffix"):
        Naming(suffix="/x.json")
