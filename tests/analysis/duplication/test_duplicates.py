"""Duplicates are found by class, with which recording to keep and what leaks; hostile input is named."""

from __future__ import annotations

import doctest
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.parquet as pq
import pytest

from benchmarks import planted
from ecgfounder.analysis import Duplicates, DuplicateSettings, duplicates
from ecgfounder.analysis import duplicates as module_of_function
from ecgfounder.analysis.duplication.duplicates_report import page_of
from ecgfounder.analysis.duplication.reread import CHANGED, GONE, NO_PATH, UNREADABLE
from ecgfounder.analysis.duplication.same_signal import FLAT
from ecgfounder.cli import main
from ecgfounder.demo.philips_encoder import encode_sierra
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results import open_run
from tests.builders.runs import Made

Floats = npt.NDArray[np.float32]
D = 16
SURE = ["--false_pairs", "0.01"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))


@dataclass
class Known(Made):
    """A run of Parquet with given vectors."""

    format: str = "parquet"
    pooling: str = "mean"
    shard_size: int = 500
    vectors: Mapping[str, Floats] = field(default_factory=dict)

    def embeddings(self, path: str) -> list[Floats]:
        return [self.vectors[path]]


@dataclass
class Cohort:
    """Recordings with vectors, patients, a split, and perhaps files; the first 60 are of 30 patients and differ."""

    folder: Path
    names: list[str] = field(default_factory=list)
    vectors: list[Floats] = field(default_factory=list)
    kept: dict[str, dict[str, Any]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "ecg").mkdir(parents=True, exist_ok=True)
        X = np.random.default_rng(0).standard_normal((60, D)).astype(np.float32)
        for number, vector in enumerate(X):
            self.add(f"{number:02d}.xml", vector, f"P{number // 2}", "train" if number < 40 else "test")

    def add(
        self, name: str, vector: Floats, patient: str | None, split: str, content: bytes | None = None, **facts: Any
    ) -> None:
        self.names.append(name)
        self.vectors.append(vector)
        self.kept[name] = {"patient": patient, "part": split}
        if content is not None:
            (self.folder / "ecg" / name).write_bytes(content)
            facts = {"sha256": digest(content)} | facts
        self.facts[name] = facts

    def alike(
        self, row: int, name: str, patient: str | None, split: str, content: bytes | None = None, **facts: Any
    ) -> None:
        """A recording whose embedding is nearly that of another."""
        noise = np.random.default_rng(len(self.names)).standard_normal(D)
        self.add(name, (self.vectors[row] + 1e-3 * noise).astype(np.float32), patient, split, content, **facts)

    def make(self, name: str = "run") -> Path:
        rows = [(each, number) for number, each in enumerate(self.names)]
        vectors = dict(zip(self.names, self.vectors, strict=True))
        options = {"rows": rows, "done_order": self.names, "kept": self.kept, "facts": self.facts} | self.options
        return Known(self.folder / name, vectors=vectors, **options).make()

    def search(self, **options: Any) -> Duplicates:
        options = {"group": "patient", "data_dir": str(self.folder / "ecg"), "false_pairs": 0.01} | options
        return duplicates(open_run(self.make(f"run{len(list(self.folder.iterdir()))}")), **options)


def digest(content: bytes) -> str:
    """The manifest's hash of a recording of one file."""
    return hashlib.sha256(hashlib.sha256(content).digest()).hexdigest()


def file_of(patient: int, number: int = 0, *, start: int = 0, gain: float = 1) -> bytes:
    signal = planted.synthetic(patient, number)[:, start:] * gain
    return encode_sierra(np.rint(signal * 200).astype(np.int64))


def pairs_of(found: Duplicates, kind: str | None = None) -> set[tuple[str, str]]:
    return {(row["record_a"], row["record_b"]) for row in found.pairs.to_pylist() if kind in (None, row["class"])}


def told(found: Duplicates) -> str:
    return "\n".join(map(str, found.notes))


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path)


@pytest.fixture
def mixed(cohort: Cohort) -> Cohort:
    """Two copies of a file, a shifted signal, and another patient that looks alike."""
    cohort.facts["00.xml"] = {"sha256": "a" * 64}
    cohort.add("copy.xml", cohort.vectors[0], "P0", "test", sha256="a" * 64)
    for name, content in (("04.xml", file_of(4)), ("06.xml", file_of(6))):
        (cohort.folder / "ecg" / name).write_bytes(content)
        cohort.facts[name] = {"sha256": digest(content)}
    cohort.alike(4, "shifted.xml", "P70", "test", file_of(4, start=250, gain=2), n_samples=4750)
    cohort.alike(6, "other.xml", "P71", "test", file_of(7))
    return cohort


def test_the_classes_are_told_apart(mixed: Cohort) -> None:
    found = mixed.search()
    assert pairs_of(found, "same_file") == {("00.xml", "copy.xml")}
    assert pairs_of(found, "same_signal") == {("04.xml", "shifted.xml")}
    assert pairs_of(found, "same_patient") == {("06.xml", "other.xml")}
    assert found.n_of == {"same_file": 1, "same_signal": 1, "same_patient": 1, "candidate": 0}
    (same,) = (row for row in found.pairs.to_pylist() if row["class"] == "same_signal")
    assert same["shift"] == pytest.approx(0.5, abs=0.01)
    assert same["gain"] == pytest.approx(2, abs=0.05)
    assert "shift 0.50 s; gain 2" in same["differs"]
    assert same["same_group"] is False
    assert same["expected_false"] < 1e-3
    assert found.sizes == (2, 2)


def test_one_of_each_cluster_is_kept_the_most_complete(mixed: Cohort) -> None:
    mixed.add("again.xml", np.full(D, 9, np.float32), "P72", "train", sha256="b" * 64, flags=["noise"])
    mixed.add("clean.xml", np.full(D, 7, np.float32), "P72", "train", sha256="b" * 64)
    found = mixed.search()
    kept = {row["record"]: row["keep"] for row in found.recordings.to_pylist() if row["cluster"] is not None}
    pairs = {
        "00.xml": True,
        "copy.xml": False,
        "04.xml": True,
        "shifted.xml": False,
        "again.xml": False,
        "clean.xml": True,
    }
    assert kept == pairs
    assert found.recordings.num_rows == len(mixed.names)
    assert sum(found.recordings["keep"].to_pylist()) == len(mixed.names) - 3
    marked = {row["record"] for row in found.recordings.to_pylist() if row["same_patient"]}
    assert marked == {"06.xml", "other.xml"}


def test_what_splits_have_in_common_is_counted(mixed: Cohort) -> None:
    rows = {(row["class"], row["a"], row["b"]): row for row in mixed.search(split=("part",)).leakage.to_pylist()}
    counts = {key: (row["n"], row["n_recordings_a"], row["n_recordings_b"]) for key, row in rows.items()}
    assert counts["cluster", "test", "train"] == (2, 2, 2)
    assert counts["same_patient", "test", "train"] == (1, 1, 1)
    assert counts["candidate", "test", "train"] == (0, 0, 0)
    assert counts["same_group", "test", "train"] == (1, 1, 2)  # P0


def test_without_a_group_no_patient_is_named(mixed: Cohort) -> None:
    found = mixed.search(group=None)
    assert pairs_of(found) == {("00.xml", "copy.xml"), ("04.xml", "shifted.xml")}
    assert "1 pair above the threshold with other signals" in told(found)
    assert "without a group" in told(found)
    assert found.pairs["same_group"].null_count == 2


@pytest.mark.parametrize(
    ("content", "sha256", "reason"),
    [
        (None, None, GONE),
        (b"no ECG", None, UNREADABLE),
        (file_of(6), "c" * 64, CHANGED),
        (encode_sierra(np.zeros((12, 5000), np.int64)), None, FLAT),
    ],
)
def test_files_that_cannot_be_compared_make_candidates(
    mixed: Cohort, content: bytes | None, sha256: str | None, reason: str
) -> None:
    if content is None:
        (mixed.folder / "ecg" / "06.xml").unlink()
    else:
        (mixed.folder / "ecg" / "06.xml").write_bytes(content)
        mixed.facts["06.xml"] = {"sha256": sha256 or digest(content)}
    found = mixed.search()
    (row,) = (row for row in found.pairs.to_pylist() if row["class"] == "candidate")
    assert (row["record_a"], row["record_b"], row["reason"], row["cluster"]) == ("06.xml", "other.xml", reason, None)
    assert all(each["keep"] for each in found.recordings.to_pylist() if each["record"] in ("06.xml", "other.xml"))
    assert (reason == FLAT) or f"not compared: {reason}" in told(found)


def test_without_signals_what_is_alike_is_a_candidate(mixed: Cohort) -> None:
    found = mixed.search(signals=False)
    assert pairs_of(found, "candidate") == {("04.xml", "shifted.xml"), ("06.xml", "other.xml")}
    assert pairs_of(found, "same_file") == {("00.xml", "copy.xml")}
    assert found.counts["pairs whose signals were compared"] == 0


def test_a_run_with_identifiers_reads_its_dataset_for_the_paths(mixed: Cohort) -> None:
    mixed.options = {"id_column": "study_id"}
    run = open_run(mixed.make())
    found = duplicates(run, group="patient")
    assert "not compared: " + NO_PATH in told(found)
    object.__setattr__(run.record.settings, "dataset", str(mixed.folder / "run.jsonl"))
    again = duplicates(run, group="patient", data_dir=str(mixed.folder / "ecg"))
    assert pairs_of(again, "same_signal") == {("4", "61")}


def test_many_copies_make_few_pairs_and_one_cluster(cohort: Cohort) -> None:
    for number in range(500):
        cohort.add(f"copy{number}.xml", cohort.vectors[0], "P0", "train", sha256="d" * 64)
    found = cohort.search()
    assert found.n_of["same_file"] == 499
    assert found.sizes == (500,)
    assert sum(found.recordings["keep"].to_pylist()) == 61


def test_many_files_with_one_embedding_and_no_signal_are_named_once(cohort: Cohort) -> None:
    flat = encode_sierra(np.zeros((12, 5000), np.int64))
    for number in range(150):
        cohort.add(f"flat{number}.xml", np.ones(D, np.float32), f"F{number}", "train", flat, sha256=f"{number:064x}")
    found = cohort.search()
    assert not pairs_of(found)
    assert "150 different files have one and the same embedding" in told(found)
    assert found.sizes == ()


def test_where_all_embeddings_are_the_same_that_is_said(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path)
    cohort.vectors = [np.ones(D, np.float32)] * len(cohort.vectors)
    found = cohort.search(signals=False)
    assert found.n_of["candidate"] == 59
    assert found.strangers is None
    assert found.how.startswith("Threshold: none")


def test_where_all_are_alike_there_is_no_threshold_and_no_pair(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path)
    line = np.linspace(1, 2, len(cohort.vectors))
    cohort.vectors = [(each * np.ones(D)).astype(np.float32) for each in line]  # similarities are 1 and -1
    found = cohort.search(signals=False)
    assert not pairs_of(found)
    assert "none" in found.how


def test_embeddings_that_are_not_finite_are_left_out_by_number(mixed: Cohort) -> None:
    mixed.vectors[10] = np.full(D, np.nan, np.float32)
    mixed.vectors[11] = np.full(D, np.inf, np.float32)
    found = mixed.search()
    assert "2 recordings with an embedding that is not finite" in told(found)
    assert pairs_of(found, "same_signal") == {("04.xml", "shifted.xml")}


def test_two_identical_runs_share_everything(mixed: Cohort) -> None:
    folders = [mixed.make("a"), mixed.make("b")]
    with pytest.warns(UserWarning, match="in several runs"):
        runs = open_run(folders)
    found = duplicates(runs, group="patient", data_dir=str(mixed.folder / "ecg"))
    assert found.n_of["same_file"] == len(mixed.names) + 1
    (row,) = (row for row in found.leakage.to_pylist() if row["by"] == "run" and row["class"] == "cluster")
    assert (row["a"], row["b"], row["n"]) == ("a", "b", len(mixed.names) - 2)
    assert row["n_recordings_a"] == row["n_recordings_b"] == len(mixed.names)
    assert sum(found.recordings["keep"].to_pylist()) == len(mixed.names) - 2
    assert {row["run"] for row in found.recordings.to_pylist() if row["keep"]} == {"a"}


def test_a_path_in_two_parts_of_a_split_leaks(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path)
    cohort.options = {"rows": [*((name, number) for number, name in enumerate(cohort.names)), ("00.xml", 99)]}
    found = cohort.search(signals=False, split=("study_id",), where="study_id == 0 or study_id == 99 or study_id == 7")
    rows = {(row["a"], row["b"]): row["n"] for row in found.leakage.to_pylist() if row["class"] == "cluster"}
    assert rows["0", "99"] == 1
    assert found.recordings["record"].to_pylist() == ["00.xml", "07.xml"]
    assert all(found.recordings["keep"].to_pylist())


def test_what_is_not_valid_is_refused(cohort: Cohort) -> None:
    with pytest.raises(RunError, match="at least two recordings"):
        cohort.search(where="record == '00.xml'")
    with pytest.raises(SettingsError, match="'group' parameter"):
        cohort.search(group="nothing")
    with pytest.raises(SettingsError, match="'split' parameter"):
        cohort.search(split=("nothing",))
    for name in ("false_pairs", "compared"):
        for value in (0, float("nan"), float("inf")):
            with pytest.raises(SettingsError, match=f"'{name}' parameter"):
                DuplicateSettings(**{name: value})
    with pytest.raises(SettingsError, match="'k' parameter"):
        DuplicateSettings(k=0)
    with pytest.raises(SettingsError, match="not both"):
        cohort.search(settings=DuplicateSettings())


def test_a_column_of_too_many_values_is_no_split(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path)
    for number in range(60):
        cohort.add(
            f"more{number}.xml", np.random.default_rng(number).standard_normal(D).astype(np.float32), "P", "train"
        )
    with pytest.raises(SettingsError, match="'study_id' has 120 values"):
        cohort.search(split=("study_id",), signals=False)


def test_what_counts_of_clusters_leave_is_not_told_on_the_page(mixed: Cohort) -> None:
    found = duplicates(open_run(mixed.make()), signals=False)
    page = page_of(replace(found, sizes=(3,) * 4 + (2,) * 96))
    assert "about 100 can be left out" in page  # 96 and two of each of the 4 larger ones
    assert "about 100</td>" in page
    assert ">96<" not in page


def test_the_command_writes_tables_and_a_page_without_names(mixed: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = mixed.make(), mixed.folder / "out"
    words = [
        "duplicates",
        str(run),
        "--group",
        "patient",
        "--split",
        "part",
        *SURE,
        "--data_dir",
        str(mixed.folder / "ecg"),
    ]
    assert main([*words, "--output_dir", str(out)]) == 0
    said = capsys.readouterr()
    assert "same_file 1; same_signal 1; same_patient 1; candidate 0" in said.out
    assert "part: test and train share 2 clusters (cluster), with 2 recordings and 2 recordings" in said.out
    names = {"duplicates.json", "report.html"} | {
        f"{name}.{end}" for name in ("pairs", "recordings", "leakage") for end in ("pq", "csv")
    }
    assert {each.name for each in out.iterdir()} == names
    page = (out / "report.html").read_text()
    assert "under 11" in page
    assert not any(name in page for name in mixed.names)
    assert orjson.loads((out / "duplicates.json").read_bytes())["pairs"]["same_signal"] == 1
    assert pq.read_table(out / "pairs.pq").num_rows == 3
    assert main([*words, "--output_dir", str(out)]) == 0  # again
    assert main([*words, "--output_dir", str(mixed.folder)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_other_analyses_leave_out_what_need_not_be_kept(mixed: Cohort, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(mixed.make()), mixed.folder / "out"
    main(["duplicates", run, "--group", "patient", "--data_dir", str(mixed.folder / "ecg"), "--output_dir", str(out)])
    capsys.readouterr()
    kept = ["--labels", str(out / "recordings.csv"), "--on", "record", "--where", "keep"]
    assert main(["neighbours", run, "--record", "04.xml", "-k", "1", *kept]) == 0
    said = capsys.readouterr().out
    assert f"1 nearest of {len(mixed.names) - 2} recordings" in said
    assert "shifted.xml" not in said


def test_the_example_of_the_function_is_true(tmp_path: Path) -> None:
    from ecgfounder.analysis.duplication.duplicates import duplicates as function

    assert function is module_of_function
    names = {"duplicates": function, "open_run": open_run, "folder": Made(tmp_path / "run").make()}
    (example,) = doctest.DocTestFinder().find(function, "duplicates", globs=names)
    assert doctest.DocTestRunner().run(example) == (0, 2)


def test_planted_copies_are_found_by_their_signals(tmp_path: Path, checkpoint_12lead: Path) -> None:
    facts = planted.measure(tmp_path, checkpoint_12lead, 12, 2)
    scores = facts["searches"]["signals"]["scores"]
    assert scores["(wrong)"] == {}
    assert set(scores) == {copy.name for copy in planted.COPIES} | {"(wrong)"}
    for name in ("other format", "100 Hz", "shifted by 0.5 s", "gain 2"):
        assert scores[name] == {"copies": 2, "confirmed": 2, "named": 2}, name
    assert "| 100 Hz | 2 of 2 |" in planted.rendered(facts)
