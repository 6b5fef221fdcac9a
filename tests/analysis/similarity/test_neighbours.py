"""Neighbours in runs: rows and tables fit the manifest, hubs are named, and the command does what the function does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder import open_run
from ecgfounder.analysis import Neighbours, neighbours
from ecgfounder.analysis.similarity.search import search_units
from ecgfounder.analysis.similarity.space import Space
from ecgfounder.cli import main
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import SettingsError
from tests.builders.probes import cohort, write_run
from tests.builders.runs import Made


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def table() -> pd.DataFrame:
    return cohort(60)


def plain(table: pd.DataFrame) -> np.ndarray:
    X = table[[f"x{each}" for each in range(6)]].to_numpy(np.float32).astype(np.float64)
    X -= X.mean(axis=0)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    similarity = X @ X.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1)


@pytest.mark.parametrize("index", [None, True, False])
def test_all_recordings_have_their_nearest_in_the_order_of_the_manifest(
    tmp_path: Path, table: pd.DataFrame, index: bool | None
) -> None:
    run = open_run(write_run(tmp_path / "run", table))
    found = neighbours(run, k=3, index=index)
    np.testing.assert_array_equal(found.rows, plain(table)[:, :3])
    assert found.queries == tuple(table["ecg"])
    assert found.records["record"].to_pylist() == table["ecg"].tolist()
    assert (found.exact, found.recall) == ((True, None) if index is False else (False, 1.0))
    rows = found.table.to_pylist()
    assert len(rows) == 3 * len(table)
    assert [row["record"] for row in rows[:3]] == [table["ecg"][row] for row in plain(table)[0, :3]]
    assert [row["rank"] for row in rows[:3]] == [1, 2, 3]
    assert found.lists is not None
    assert found.lists.sum() == 3 * len(table)


def test_queries_are_names_or_embeddings(tmp_path: Path, table: pd.DataFrame) -> None:
    run = open_run(write_run(tmp_path / "run", table))
    by_name = neighbours(run, ["p3/0.xml", "p5/0.xml"], k=4)
    rows = [table["ecg"].tolist().index(name) for name in by_name.queries]
    np.testing.assert_array_equal(by_name.rows, plain(table)[rows, :4])
    assert by_name.exact
    X = run.arrays("mean")[0][:]
    by_vector = neighbours(run, X[rows[0]], k=5, names=["mine"])
    assert by_vector.rows[0].tolist() == [rows[0], *plain(table)[rows[0], :4]]
    assert by_vector.table["query"].to_pylist() == ["mine"] * 5
    one = neighbours(run, "p3/0.xml", k=4)
    np.testing.assert_array_equal(one.rows[0], by_name.rows[0])


def test_an_index_is_of_the_contents_and_is_used_when_it_is_there(
    tmp_path: Path, table: pd.DataFrame, own_cache: Path
) -> None:
    run = open_run(write_run(tmp_path / "run", table))
    neighbours(run, "p3/0.xml")
    assert not own_cache.exists()
    first = neighbours(run, "p3/0.xml", index=True)
    assert first.exact
    assert first.lists is not None
    assert len(list((own_cache / "neighbours").iterdir())) == 1
    assert neighbours(run, "p3/0.xml").lists is not None  # the index
    other = table.copy()
    other["x0"] += np.arange(len(other))
    changed = open_run(write_run(tmp_path / "other", other))
    assert neighbours(changed, "p3/0.xml").lists is None
    neighbours(changed, "p3/0.xml", index=True)
    neighbours(run, "p3/0.xml", index=True, whiten=True)
    neighbours(run, "p3/0.xml", index=True, where="record != 'p0/0.xml'")
    assert len(list((own_cache / "neighbours").iterdir())) == 4


def test_recordings_of_the_same_patient_and_those_left_out_are_no_neighbours(
    tmp_path: Path, table: pd.DataFrame
) -> None:
    run = open_run(write_run(tmp_path / "run", table))
    labels = table[["study_id", "patient", "year"]]
    found = neighbours(run, k=5, labels=labels, on="study_id", group="patient", where="year > 2000")
    kept = table[table["year"] > 2000].reset_index(drop=True)
    assert found.records["record"].to_pylist() == kept["ecg"].tolist()
    patients = kept["patient"].to_numpy()
    assert (patients[found.rows] != patients[:, None]).all()


def test_a_recording_near_to_many_is_a_hub() -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 64)).astype(np.float32)
    X[:250, 0] += 8
    X[7] = 0
    X[7, 0] = 8  # what half of them have in common
    found = search_units(Space.of(X).units(X), 5)
    lists = np.bincount(found.rows.ravel(), minlength=500)
    names = tuple(f"{number}.xml" for number in range(500))
    records = pa.table({"record": names, "flags": [["noisy", "clipped"]] * 500})
    result = Neighbours(names, records, found.rows, found.similarity, True, None, lists, 500, 5)
    assert result.hubs.tolist() == [7]
    assert result.hub_table().to_pylist() == [{"record": "7.xml", "flags": "noisy; clipped", "in_lists": int(lists[7])}]
    assert lists[7] > 100
    assert result.skewness is not None
    assert result.skewness > 5
    assert result.orphans == pytest.approx((lists == 0).mean())


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_windows_are_averaged(tmp_path: Path, form: str) -> None:
    made = Made(tmp_path / "run", form, "none", n_windows=2, stride=1.0)
    run = open_run(made.make())
    found = neighbours(run, k=3, index=False)
    means = np.array(
        [np.mean([each.mean(axis=0) for each in made.embeddings(path)], axis=0) for path in made.done_order]
    )
    means -= means.mean(axis=0)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    similarity = means @ means.T
    np.fill_diagonal(similarity, -np.inf)
    np.testing.assert_array_equal(found.rows, np.argsort(-similarity, axis=1)[:, :3])
    named = neighbours(run, list(found.queries), k=3)
    np.testing.assert_array_equal(named.rows, found.rows)


def test_what_is_not_valid_is_refused(tmp_path: Path, table: pd.DataFrame) -> None:
    run = open_run(write_run(tmp_path / "run", table))
    with pytest.raises(SettingsError, match="'nothing' is no recording"):
        neighbours(run, ["nothing"])
    with pytest.raises(SettingsError, match=r"finite embeddings \[q, 6\]"):
        neighbours(run, np.zeros(5))
    with pytest.raises(SettingsError, match="finite embeddings"):
        neighbours(run, np.full(6, np.nan))
    with pytest.raises(SettingsError, match="'k' parameter"):
        neighbours(run, k=0)
    with pytest.raises(SettingsError, match="Expected 1 names"):
        neighbours(run, np.zeros(6), names=["a", "b"])


def test_the_command_prints_and_writes(tmp_path: Path, table: pd.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_run(tmp_path / "run", table)
    assert main(["neighbours", str(folder), "--record", "p3/0.xml", "-k", "2"]) == 0
    said = capsys.readouterr().out
    row = table["ecg"].tolist().index("p3/0.xml")
    nearest = [table["ecg"][each] for each in plain(table)[row, :2]]
    assert f"p3/0.xml: 2 nearest of {len(table)} recordings, exact" in said
    assert [line.split()[-1] for line in said.splitlines()[1:]] == nearest
    out = tmp_path / "out"
    assert main(["neighbours", str(folder), "-k", "2", "--output_dir", str(out)]) == 0
    assert "recall 1.0000" in capsys.readouterr().out
    written = pq.read_table(out / "neighbours.pq")
    assert written.num_rows == 2 * len(table)
    assert (out / "hubs.csv").read_text().startswith('"record"')
    assert main(["neighbours", str(folder), "-k", "2"]) == 2
    assert "needs a folder" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    assert main(["neighbours", str(folder), "--output_dir", str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.slow
def test_files_are_embedded_as_the_run_was(
    tmp_path: Path, checkpoint_12lead: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ecgs").mkdir()
    for number in range(5):
        signal = np.random.default_rng(number).standard_normal((12, 1500)).cumsum(axis=1) / 20
        np.save(tmp_path / "ecgs" / f"{number}.npy", signal.astype(np.float32))
    hints = ["--sampling_rate", "250", "--unit", "mV", "--leads", ",".join(STANDARD_LEADS)]
    network = ["--checkpoint", str(checkpoint_12lead)]
    form = ["--recipe", "filtered", "--window", "5", "--format", "parquet", "--pooling", "mean"]
    run = str(tmp_path / "run")
    assert main(["embed", "--dataset", str(tmp_path / "ecgs"), "--output_dir", run, *network, *hints, *form]) == 0
    (tmp_path / "bad.npy").write_bytes(b"no array")
    capsys.readouterr()
    queries = ["--query", str(tmp_path / "ecgs" / "3.npy"), str(tmp_path / "bad.npy")]
    assert main(["neighbours", run, *queries, *network, "-k", "2"]) == 1
    said = capsys.readouterr()
    assert "3.npy: 2 nearest of 5 recordings, exact" in said.out
    assert said.out.splitlines()[1].split()[:2] == ["1", "1.0000"]
    assert said.out.splitlines()[1].endswith("3.npy")
    assert "FAILED" in said.err
    assert "bad.npy" in said.err
    other = tmp_path / "other"
    other.mkdir()
    other_weights = other / checkpoint_12lead.name
    other_weights.write_bytes(checkpoint_12lead.read_bytes() + b"0")
    assert main(["neighbours", run, *queries, "--checkpoint", str(other_weights)]) == 2
