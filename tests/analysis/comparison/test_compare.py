"""Two runs are compared: what differs in settings, records, flags and facts, and how far the embeddings agree."""

from __future__ import annotations

import doctest
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from ecgfounder import cli
from ecgfounder.analysis import Comparison, compare
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.results import open_run
from tests.builders.runs import BROKEN, PATHS, Made

Floats = npt.NDArray[np.float32]

N, D = 120, 16
NAMES = tuple(f"x/{number:03d}.xml" for number in range(N))
PATIENTS = tuple(1000 + number // 2 for number in range(N))
FEW: dict[str, Any] = {"n_draws": 20, "permutations": 10}


@dataclass
class Cohort(Made):
    """A run of Parquet with given vectors, of two recordings a patient (the column study_id)."""

    format: str = "parquet"
    pooling: str = "mean"
    shard_size: int = 50
    vectors: Mapping[str, Floats] = field(default_factory=dict)

    def embeddings(self, path: str) -> list[Floats]:
        return [self.vectors[path]]


def vectors(seed: int, n: int = N) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def cohort(folder: Path, X: Floats, **options: Any) -> Path:
    options = {"rows": tuple(zip(NAMES, PATIENTS, strict=True)), "done_order": NAMES} | options
    return Cohort(folder, vectors=dict(zip(NAMES, X, strict=True)), **options).make()


def compared(a: Path, b: Path, **options: Any) -> Comparison:
    return compare(open_run(a), open_run(b), **{**FEW, **options})


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort(tmp_path_factory.mktemp("first") / "a", vectors(1))


# --- settings, records, flags, facts -----------------------------------------------------------------------------------


def test_a_run_is_the_same_as_itself(first: Path) -> None:
    found = compared(first, first)
    assert found.differences == ()
    assert found.counts["embedded in both"] == N
    assert found.records.num_rows == found.facts_table.num_rows == 0
    assert [found.figure(name).value for name in ("cosine", "centred_cosine", "cka", "overlap")] == pytest.approx(
        [1] * 4
    )
    assert [found.figure(name).value for name in ("move", "changed", "move_95")] == [0, 0, 0]
    assert "No setting that decides a vector differs" in str(found)


def test_runs_of_other_forms_are_compared_by_the_mean_of_each_recording(tmp_path: Path) -> None:
    maps = Made(tmp_path / "maps").make()
    means = Made(tmp_path / "means", format="parquet", pooling="mean", shard_size=3).make()
    windows = Made(tmp_path / "windows", stride=2.0, n_windows=3, format="parquet").make()
    window_means = Made(tmp_path / "window_means", stride=2.0, n_windows=3, pooling="mean").make()
    found = compared(maps, means)
    assert found.figure("changed").value == 0
    assert compared(windows, window_means).figure("move").value == pytest.approx(0, abs=1e-6)
    X, _ = open_run(window_means).arrays("mean")
    Y, _ = open_run(means).arrays("mean")
    mean_of_windows = np.asarray(X).reshape(4, 3, -1).mean(axis=1)
    apart = np.linalg.norm(mean_of_windows - np.asarray(Y), axis=1) / np.sqrt(
        2 * mean_of_windows.var(axis=0, ddof=1).sum()
    )
    assert compared(window_means, means).figure("move").value == pytest.approx(apart.mean(), rel=1e-5)


def test_settings_that_differ_are_named_those_that_decide_a_vector_first(tmp_path: Path) -> None:
    a = Made(tmp_path / "a").make()
    b = Made(tmp_path / "b", checkpoint="f" * 64, format="parquet", dtype="float16").make()
    found = compared(a, b)
    decides = {each.setting: each.decides for each in found.differences}
    assert decides == {
        "fingerprint.checkpoint_sha256": True,
        "fingerprint.dtype": True,
        "fingerprint.format": False,
    }
    assert [each.decides for each in found.differences] == sorted(decides.values(), reverse=True)
    (dtype,) = (each for each in found.differences if each.setting == "fingerprint.dtype")
    assert (dtype.a, dtype.b) == ("float32", "float16")
    assert "Setting that decides a vector, fingerprint.dtype: float32 in a, float16 in b" in str(found)


def test_a_long_value_of_a_setting_is_cut(tmp_path: Path) -> None:
    a, b = Made(tmp_path / "a").make(), Made(tmp_path / "b", checkpoint="f" * 5000).make()
    assert max(len(each.b) for each in compared(a, b).differences) < 300


def test_records_of_one_run_only_and_failed_ones_are_listed(tmp_path: Path) -> None:
    a = Made(tmp_path / "a").make()
    rows = ((PATHS[0], 101), (PATHS[1], 102), (BROKEN[0], 104), ("c/9.xml", 9))
    done = [PATHS[0], BROKEN[0], "c/9.xml"]
    b = Made(tmp_path / "b", rows=rows, done_order=done)
    b.failure = lambda path: Made.failure(b, PATHS[1])  # type: ignore[method-assign]
    found = compared(a, b.make())
    counts = {name: number for name, number in found.counts.items() if number}
    assert counts == {
        "embedded in both": 1,
        "only in a": 2,
        "only in b": 1,
        "failed in a only": 1,
        "failed in b only": 1,
    }
    listed = {row["key"]: row for row in found.records.to_pylist()}
    assert listed[PATHS[1]] | {"key": ""} == {
        "key": "",
        "outcome": "failed in b only",
        "status_a": "done",
        "status_b": "failed",
        "error_a": None,
        "error_b": "ReadError",
        "reason_a": None,
        "reason_b": "no such file",
    }
    assert listed["c/9.xml"]["outcome"] == "only in b"
    assert (listed[PATHS[2]]["status_a"], listed[PATHS[2]]["status_b"]) == ("done", None)
    assert "failed in a only 1" in str(found)


def test_flags_and_facts_that_differ_are_counted(tmp_path: Path) -> None:
    a = Made(
        tmp_path / "a", flags={PATHS[0]: ["clipped:V1"], PATHS[1]: ["noise", "flat:I"], PATHS[2]: ["noise"]}
    ).make()
    b = Made(
        tmp_path / "b",
        flags={PATHS[0]: ["clipped:V2"], PATHS[1]: ["noise"], PATHS[3]: ["clipped:I"]},
        facts={PATHS[3]: {"sampling_rate": 250.0, "sha256": "0" * 64}},
    ).make()
    found = compared(a, b)
    columns = ("flag", "in_a", "in_b", "only_in_a", "only_in_b", "other_detail")
    rows = [tuple(row[name] for name in columns) for row in found.flags.to_pylist()]
    assert rows == [("clipped", 1, 2, 0, 1, 1), ("flat", 1, 0, 1, 0, 0), ("noise", 2, 1, 1, 0, 0)]
    assert found.facts == {"sampling_rate": 1, "input_sha256": 1}
    changes = dict(zip(*(found.moves[name].to_pylist() for name in ("record", "changes")), strict=True))
    assert changes == {
        PATHS[0]: "-clipped:V1; +clipped:V2",
        PATHS[1]: "-flat:I",
        PATHS[2]: "-noise",
        PATHS[3]: "+clipped:I; sampling_rate 500 -> 250; input_sha256",
    }
    assert "Flag missing_leads" not in str(found)
    assert "sampling_rate differs in 1 recording" in str(found)


# --- agreement ---------------------------------------------------------------------------------------------------------


def test_a_known_share_of_changed_recordings_is_found(first: Path, tmp_path: Path) -> None:
    X = vectors(1)
    changed = np.random.default_rng(2).permutation(N)[:12]
    X[changed] = vectors(3)[changed]
    found = compared(first, cohort(tmp_path / "b", X), group="study_id")
    assert found.figure("changed").value == found.figure("moved_0.1").value == 0.1
    assert 0 <= found.figure("changed").low < 0.1 < found.figure("changed").high < 0.25
    assert set(found.moves["record"].to_pylist()[:12]) == {NAMES[number] for number in changed}
    assert found.moves["equal"].to_pylist() == [False] * 12 + [True] * (N - 12)
    assert 0.7 < found.figure("cka").value < 0.95
    assert (found.figure("cosine").n_recordings, found.figure("cosine").n_groups) == (N, N // 2)


def test_noise_of_a_known_size_moves_recordings_by_it(first: Path, tmp_path: Path) -> None:
    found = compared(first, cohort(tmp_path / "b", vectors(1) + 0.1 * vectors(4)))
    assert found.figure("move").value == pytest.approx(0.1 / np.sqrt(2), rel=0.05)
    assert found.figure("cosine").value == pytest.approx(1 / np.sqrt(1.01), rel=0.01)
    assert found.figure("changed").value == 1
    assert found.figure("move").reference == pytest.approx(1, rel=0.05)


def test_rotated_embeddings_have_another_cosine_and_the_same_cka(first: Path, tmp_path: Path) -> None:
    rotation = np.linalg.qr(np.random.default_rng(5).standard_normal((D, D)))[0]
    found = compared(first, cohort(tmp_path / "b", (vectors(1) @ rotation).astype(np.float32)))
    assert found.figure("cka").value == pytest.approx(1, abs=1e-5)
    assert found.figure("overlap").value > 0.99
    assert abs(found.figure("cosine").value) < 0.5


def test_independent_embeddings_are_where_the_reference_is(first: Path, tmp_path: Path) -> None:
    found = compared(first, cohort(tmp_path / "b", vectors(6)), permutations=60)
    for name in ("cosine", "centred_cosine", "cka", "overlap"):
        figure = found.figure(name)
        width = figure.reference_high - figure.reference_low
        assert figure.reference_low - width / 2 <= figure.value <= figure.reference_high + width / 2, name
    assert found.figure("overlap").reference == pytest.approx(10 / (N - 1), rel=0.1)


def test_parts_are_looked_at_by_format_rate_and_flag_where_there_are_enough(tmp_path: Path) -> None:
    X = vectors(1)
    facts = {name: {"format": "muse"} for name in NAMES[:60]} | {NAMES[119]: {"format": "scp", "sampling_rate": 250.0}}
    flags = {name: ["noise:V1"] for name in NAMES[:25]}
    a = cohort(tmp_path / "a", X, facts=facts, flags=flags)
    Y = X.copy()
    Y[:60] += vectors(8)[:60]
    found = compared(a, cohort(tmp_path / "b", Y, facts=facts, flags=flags))
    assert found.figure("changed", "format", "muse").value == 1
    assert found.figure("changed", "format", "philips_sierra").value == 0
    assert found.figure("cka", "format", "muse").value < 0.9
    assert found.figure("cka", "format", "philips_sierra").value == pytest.approx(1)
    assert found.figure("cosine", "flag", "noise").n_recordings == 25
    assert found.figure("cosine", "flag", "(none)").n_recordings == N - 25
    notes = {(each.by, each.value, each.statistic): each.note for each in found.agreement if each.note}
    assert notes == {
        ("format", "scp", "none"): "fewer than 20 recordings",
        ("sampling_rate", "250", "none"): "fewer than 20 recordings",
        ("flag", "noise", "cka"): "fewer than 50 recordings in the sample",
    }


def test_of_many_values_only_the_most_frequent_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {name: {"sampling_rate": 400 + number / 100} for number, name in enumerate(NAMES[:40])}
    rates |= {NAMES[40]: {"sampling_rate": float("nan")}, NAMES[41]: {"sampling_rate": float("nan")}}
    monkeypatch.setattr(sys.modules["ecgfounder.analysis.comparison.compare"], "MOST_VALUES", 5)
    a = cohort(tmp_path / "a", vectors(1), facts=rates)
    found = compared(a, a)
    by_rate = [each for each in found.agreement if each.by == "sampling_rate"]
    assert len({each.value for each in by_rate}) == 5
    assert found.figure("cosine", "sampling_rate", "500").n_recordings == N - 42
    assert any("the 5 most frequent of 42 values" in note for note in found.notes)


def test_recordings_that_another_reader_read_are_a_part_of_their_own(first: Path, tmp_path: Path) -> None:
    facts = {name: {"format": "muse"} for name in NAMES[:30]}
    found = compared(first, cohort(tmp_path / "b", vectors(1), facts=facts))
    assert found.figure("changed", "format", "philips_sierra -> muse").n_recordings == 30


def test_a_large_cohort_is_compared_in_parts_and_by_a_sample(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = cohort(tmp_path / "b", vectors(1) + 0.1 * vectors(4), done_order=NAMES[::-1])
    whole = compared(first, b)
    monkeypatch.setattr(sys.modules["ecgfounder.analysis.comparison.compare"], "PAIRS_AT_ONCE", 32)
    said: list[str] = []
    found = compared(first, b, sample=60, say=said.append)
    assert found.n_sample == 60
    assert found.figure("cosine").n_recordings == N
    assert found.figure("cka").n_recordings == found.figure("overlap").n_recordings == 60
    by_record = [
        dict(zip(each.moves["record"].to_pylist(), each.moves["cosine"].to_pylist(), strict=True))
        for each in (whole, found)
    ]
    assert by_record[0] == by_record[1]
    assert said[-1] == "120 of 120 recordings compared"
    assert len(found.moves.filter(found.moves["overlap"].is_valid())) == 60
    assert compared(first, b, sample=60).agreement_table == found.agreement_table
    assert compared(first, b, sample=60, seed=1).agreement_table != found.agreement_table


def test_embeddings_that_are_not_finite_are_left_out_and_counted(first: Path, tmp_path: Path) -> None:
    X = vectors(1)
    X[3, 5] = np.nan
    found = compared(first, cohort(tmp_path / "b", X))
    assert found.figure("cosine").n_recordings == found.figure("changed").n_recordings == found.n_sample == N - 1
    assert found.moves["record"].to_pylist()[-1] == NAMES[3]
    assert any("1 recording without a cosine" in note for note in found.notes)


def test_few_recordings_have_no_cka_and_no_overlap(tmp_path: Path) -> None:
    found = compared(Made(tmp_path / "a").make(), Made(tmp_path / "b").make())
    assert "fewer than 20 groups: intervals may be too narrow" in found.notes
    notes = {each.statistic: each.note for each in found.agreement if each.by == "all" and each.note}
    assert notes == {
        "cka": "fewer than 50 recordings in the sample",
        "overlap": "fewer than 20 recordings of other groups in the sample, for 10 neighbours",
    }


def test_one_recording_is_compared(tmp_path: Path) -> None:
    rows = ((PATHS[0], 101),)
    runs = [Made(tmp_path / name, rows=rows, done_order=[PATHS[0]]).make() for name in "ab"]
    found = compared(*runs)
    assert found.figure("cosine").value == pytest.approx(1)
    assert np.isnan(found.figure("move").value)


def test_networks_of_other_widths_are_refused(first: Path, tmp_path: Path) -> None:
    wide = np.concatenate([vectors(1), vectors(2)], axis=1)
    with pytest.raises(RunError, match="16 numbers in a and 32 in b"):
        compared(first, cohort(tmp_path / "b", wide))


# --- matching and groups -----------------------------------------------------------------------------------------------


def test_recordings_are_matched_by_a_column_where_names_differ(tmp_path: Path) -> None:
    rows = tuple((path, number) for number, path in enumerate(PATHS))
    a = Made(tmp_path / "a", rows=rows).make()
    b = Made(tmp_path / "b", rows=rows, id_column="study_id").make()
    with pytest.raises(
        RunError, match=r"no recording is embedded in both .*only in a: 4;.*'on' parameter, for example input_sha256"
    ):
        compared(a, b)
    for on in ("input_sha256", "study_id"):
        found = compared(a, b, on=on)
        assert found.counts["embedded in both"] == 4
        assert found.figure("changed").value == 0
        assert found.moves["record_b"].to_pylist() == [
            str(PATHS.index(name)) for name in found.moves["record"].to_pylist()
        ]


def test_a_column_that_names_recordings_twice_is_refused(tmp_path: Path) -> None:
    a, b = Made(tmp_path / "a").make(), Made(tmp_path / "b").make()
    with pytest.raises(RunError, match="1 value of 'study_id' in run a belong to several recordings"):
        compared(a, b, on="study_id")
    with pytest.raises(RunError, match="no column 'nothing'"):
        compared(a, b, on="nothing")
    with pytest.raises(RunError, match="'leads' holds lists"):
        compared(a, b, on="leads")


def test_a_path_that_several_rows_name_counts_once(tmp_path: Path) -> None:
    rows = ((PATHS[0], 101), (PATHS[1], 102), (PATHS[0], 103))
    a = Made(tmp_path / "a", rows=rows, done_order=PATHS[:2]).make()
    found = compared(a, Made(tmp_path / "b").make())
    assert found.counts["embedded in both"] == found.moves.num_rows == 2


def test_the_patient_is_the_group_and_those_without_one_are_by_themselves(first: Path) -> None:
    without, grouped = compared(first, first), compared(first, first, group="study_id")
    assert (without.figure("cosine").n_groups, grouped.figure("cosine").n_groups) == (N, N // 2)
    assert any("without a group" in note for note in without.notes)
    assert not grouped.notes
    unknown = compared(first, first, group="device_model")
    assert unknown.figure("cosine").n_groups == N
    assert unknown.notes == (f"{N} recordings without a device_model: each counts as a group of its own",)
    with pytest.raises(SettingsError, match=r"'group' parameter.*no column 'nothing'"):
        compared(first, first, group="nothing")


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"sample": 1}, {"permutations": -1}, {"n_draws": 1}, {"seed": -1}],
    ids=lambda each: next(iter(each)),
)
def test_values_that_cannot_be_are_refused(first: Path, options: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=f"'{next(iter(options))}' parameter"):
        compared(first, first, **options)


def test_several_runs_as_one_are_refused(first: Path, tmp_path: Path) -> None:
    several = open_run([first])
    with pytest.raises(SettingsError, match="expected two opened runs, got a EmbeddingRuns"):
        compare(several, several)  # type: ignore[arg-type]


def test_the_example_is_right(tmp_path: Path) -> None:
    names = {"open_run": open_run, "folder": Made(tmp_path / "a").make(), "other": Made(tmp_path / "b").make()}
    result = doctest.testmod(sys.modules["ecgfounder.analysis.comparison.compare"], extraglobs=names)
    assert (result.failed, result.attempted) == (0, 2)


# --- the command -------------------------------------------------------------------------------------------------------


def test_the_command_writes_tables_and_prints_the_summary(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b = cohort(tmp_path / "b", vectors(1) + 0.1 * vectors(4), checkpoint="f" * 64)
    out = tmp_path / "out"
    words = ["compare", str(first), str(b), "--group", "study_id", "--n_draws", "20", "--permutations", "10"]
    assert cli.main([*words, "--output_dir", str(out)]) == 0
    said = capsys.readouterr()
    assert f"fingerprint.checkpoint_sha256: {'0' * 64} in a, {'f' * 64} in b" in said.out
    assert "Recordings: embedded in both 120" in said.out
    assert "moves.csv lists the recordings that move most" in said.err
    tables = {"settings": 1, "records": 0, "flags": 0, "facts": 0, "agreement": 11, "moves": N}
    for name, rows in tables.items():
        assert pq.read_table(out / f"{name}.pq").num_rows == rows, name
        assert pyarrow.csv.read_csv(out / f"{name}.csv").column_names == pq.read_table(out / f"{name}.pq").column_names
    about = orjson.loads((out / "comparison.json").read_bytes())
    assert about["counts"]["embedded in both"] == about["n_sample"] == N
    assert about["settings"]["group"] == "study_id"
    found = compared(first, b, group="study_id")
    assert pq.read_table(out / "agreement.pq") == found.agreement_table
    assert cli.main([*words, "--output_dir", str(out)]) == 0  # an earlier comparison is replaced


def test_the_command_refuses_folders_of_other_things_and_incomplete_runs(
    first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("")
    begun = cohort(tmp_path / "begun", vectors(1), outcome="interrupted", done_order=NAMES[:30])
    for words, told in (
        ([first, "--output_dir", tmp_path / "full"], "is not empty and holds no comparison.json"),
        ([first, "--output_dir", tmp_path / "file"], "is a file; expected a folder for the --output_dir"),
        ([begun, "--output_dir", tmp_path / "out"], "is not complete"),
        (
            [first, "--output_dir", tmp_path / "out", "--group", "nothing"],
            "Invalid value for --group: the run's manifest has no",
        ),
        (
            [first, "--output_dir", tmp_path / "out", "-k", "0"],
            "Invalid value for the 'k' parameter. It must be at least 1",
        ),
    ):
        assert cli.main(["compare", str(first), *map(str, words)]) == 2
        assert told in capsys.readouterr().err
    assert (tmp_path / "full" / "thesis.txt").read_text() == "all of it"
    assert not (tmp_path / "out").exists()
    words = ["compare", str(first), str(begun), "--allow_incomplete", "--n_draws", "9", "--permutations", "9"]
    assert cli.main([*words, "--output_dir", str(tmp_path / "out")]) == 0
    assert "embedded in both 30; only in a 90" in capsys.readouterr().out


def test_names_that_are_formulas_or_commands_of_a_terminal_do_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "=cmd()/\x1b[2J.xml"
    rows = ((PATHS[0], 1), (name, 2))
    a = Made(tmp_path / "a", rows=rows, done_order=[PATHS[0], name], flags={PATHS[0]: ["=1+1\x1b[2J"]}).make()
    b = Made(tmp_path / "b", rows=rows[:1], done_order=[PATHS[0]]).make()
    assert cli.main(["compare", str(a), str(b), "--output_dir", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    cells = pyarrow.csv.read_csv(tmp_path / "out" / "records.csv")["key"].to_pylist()
    assert cells[0].startswith("'=cmd()")
    assert pyarrow.csv.read_csv(tmp_path / "out" / "flags.csv")["flag"].to_pylist()[0].startswith("'=1+1")
