"""Networks with random weights embed a cohort's files again, with the settings of its run, in ordinary runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ecgfounder.run.run as run_module
from ecgfounder import random_networks as module
from ecgfounder.analysis.probing.probe import Originals, probe
from ecgfounder.analysis.rows.selection import Selection, select
from ecgfounder.cli import main
from ecgfounder.embedding import embed_cohort
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.random_networks import RandomNetworks
from ecgfounder.results import EmbeddingRun, open_run
from ecgfounder.storage import locate
from tests.builders.probes import write_signals
from tests.harness.kept_engines import kept_engines

N = 80
SETTINGS: dict[str, Any] = {"format": "parquet", "pooling": "mean", "num_workers": 0, "window": 1.2, "stride": 1.2}


@pytest.fixture(scope="module", autouse=True)
def _kept_engine() -> Iterator[None]:
    with kept_engines(run_module):
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """Files, and a run of them with two windows each."""
    folder = tmp_path_factory.mktemp("networks")
    table = write_signals(folder / "ecg", N)
    embed_cohort(
        table,
        folder / "run",
        data_dir=folder / "ecg",
        checkpoint="random:9",
        keep_columns=["patient", "fast"],
        **SETTINGS,
    )
    return folder, table


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The settings of each call of `embed_cohort`, which is done with the run's own network: its weights are at hand."""
    calls: list[dict[str, Any]] = []

    def embed(cohort: Any, output_dir: Path, **settings: Any) -> Any:
        calls.append(settings)
        return embed_cohort(cohort, output_dir, **{**settings, "checkpoint": "random:9"})

    monkeypatch.setattr(module, "embed_cohort", embed)
    return calls


def some(run: EmbeddingRun, n: int) -> Selection:
    selection = select(run)
    return replace(selection, table=selection.table.slice(0, n))


def test_a_run_is_made_with_the_settings_of_the_opened_one_and_goes_on(
    place: tuple[Path, pd.DataFrame], tmp_path: Path, embedded: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEASURED", 3)
    run = open_run(place[0] / "run")
    said: list[str] = []
    ends: list[int] = []
    make = RandomNetworks(
        locate(tmp_path / "controls"), n=1, num_workers=0, say=said.append, ended=lambda: ends.append(len(embedded))
    )
    (found,) = make(some(run, 6))
    assert [call["sample"] for call in embedded] == [3, None]
    assert ends == [1, 2]  # after each
    assert {call["checkpoint"] for call in embedded} == {"random:1"}
    assert found.records["record"].to_pylist() == place[1]["ecg_paths"].tolist()[:6]
    X, Z = (np.asarray(each.arrays(pooling="mean")[0]) for each in (run, found))
    assert np.array_equal(Z, X[: len(Z)])  # two windows each, as in the opened run
    assert said[0].startswith("1 network with random weights: 6 recordings to embed below")
    assert said[1].startswith("about ")
    embedded.clear()
    (again,) = make(some(run, 6))
    assert (embedded, len(said)) == ([], 2)
    assert again.record.run_id == found.record.run_id
    (more,) = make(some(run, 8))
    assert len(embedded) == 2
    assert (more.record.run_id, more.records.num_rows) == (found.record.run_id, 8)


def test_identifiers_stay_and_paths_do_not_come_in(
    place: tuple[Path, pd.DataFrame], tmp_path: Path, embedded: list[dict[str, Any]]
) -> None:
    folder, table = place
    dataset = tmp_path / "dataset.csv"
    table.head(5).to_csv(dataset, index=False)
    settings = {**SETTINGS, "data_dir": folder / "ecg", "checkpoint": "random:9", "id_column": "study_id"}
    run = embed_cohort(str(dataset), tmp_path / "run", **settings).run
    make = RandomNetworks(str(tmp_path / "controls"), n=1, num_workers=0)
    (found,) = make(select(run))
    assert found.records["record"].to_pylist() == ["0", "1", "2", "3", "4"]
    files = [path for path in (tmp_path / "controls").rglob("*") if path.is_file()]
    assert not any(b"r.hea" in path.read_bytes() for path in files)
    assert found.records["input_sha256"].to_pylist() == run.records["input_sha256"].to_pylist()
    dataset.unlink()
    with pytest.raises(RunError, match="identifiers instead of paths, and its dataset cannot be read"):
        RandomNetworks(locate(tmp_path / "other"), n=1)(select(run))


def test_several_runs_as_one_have_a_run_of_random_weights_each(
    place: tuple[Path, pd.DataFrame],
    tmp_path: Path,
    embedded: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Halves of the cohort in two runs with other windows, probed as one: each network has a run for each, with its window."""
    monkeypatch.setattr(module, "MEASURED", 2)
    folder, table = place
    halves = []
    for number, part in enumerate((table.iloc[::2], table.iloc[1::2])):
        window = {**SETTINGS, "window": 1.2 - 0.2 * number, "stride": 1.2 - 0.2 * number}
        told: dict[str, Any] = {
            "data_dir": folder / "ecg",
            "checkpoint": "random:9",
            "keep_columns": ["patient", "fast"],
        }
        halves.append(embed_cohort(part, tmp_path / f"half{number}", **told, **window).run.folder)
    both = open_run(halves, names=["even", "odd"], allow_different=True)
    make = RandomNetworks(locate(tmp_path / "controls"), n=1, num_workers=0)
    selection = select(both)
    found = make(selection)
    calls = [(call["checkpoint"], call["preparation"].window, call["sample"]) for call in embedded]
    assert calls == [("random:1", 1.2, 2), ("random:1", 1.2, None), ("random:1", 1.0, None)]
    assert len(list((tmp_path / "controls").iterdir())) == 2
    (network,) = found
    theirs, rows = select(network).in_order_of(selection.keys)
    assert rows.tolist() == list(range(len(table)))
    assert np.array_equal(theirs.features(), selection.features())
    options: dict[str, Any] = {
        "label": ("fast",),
        "group": "patient",
        "folds": 2,
        "n_draws": 20,
        "permutations": 0,
        "penalties": (1.0,),
    }
    result = probe(both, random=make, originals=Originals(folder=locate(tmp_path / "controls")), **options)
    of = {row.control: row for row in result.rows if row.metric == "auroc"}
    assert of["random weights"].n_records == len(table)
    assert of["random weights"].estimate == of["embedding"].estimate
    assert f"1 network with random weights (he-normal-v1), {len(table)} recordings" in of["random weights"].note
    assert of["simple features"].n_records == len(table)
    assert len(embedded) == 3  # what is there is not made again


def test_what_cannot_be_made_again_is_said_and_the_probe_goes_on(
    place: tuple[Path, pd.DataFrame], tmp_path: Path
) -> None:
    run = open_run(place[0] / "run")
    changed = replace(run.record, fingerprint={**run.record.fingerprint})
    changed.fingerprint["preparation"] = {**run.record.fingerprint["preparation"], "recipe": {"name": "own"}}
    monkey = select(run)
    monkey.run.record = changed
    make = RandomNetworks(locate(tmp_path / "controls"), n=1)
    with pytest.raises(SettingsError, match="a recipe that is not built in"):
        make(monkey)
    found = probe(
        monkey.run,
        label=("fast",),
        group="patient",
        folds=2,
        n_draws=20,
        permutations=0,
        penalties=(1.0,),
        random=make,
        originals=Originals(folder=locate(tmp_path / "controls")),
    )
    (warning,) = (each for each in found.warnings if "random weights" in each)
    assert warning.startswith("No control with random weights: the run has a recipe that is not built in")
    assert warning.endswith("give the runs as 'random'.")
    assert any(row.control == "simple features" for row in found.rows)


@pytest.mark.slow
def test_the_command_makes_its_controls_itself(
    place: tuple[Path, pd.DataFrame], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["probe", str(place[0] / "run"), "--label", "fast", "--group", "patient", "--folds", "2"]
    words += ["--n_draws", "20", "--permutations", "2", "--random_networks", "2", "--output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "2 networks with random weights: 160 recordings to embed below" in said
    assert "fast, random weights: AUROC" in said
    assert "mean and range of 2 networks with random weights (he-normal-v1), 80 recordings" in said
    assert "fast, simple features: AUROC 1.000" in said
    shutil.rmtree(tmp_path / "out" / "figures")
    for first in (tmp_path / "out").iterdir():
        if first.is_file():
            first.unlink()  # as if it had been interrupted before it could write
    assert main(words) == 0
    assert "to embed below" not in capsys.readouterr().err
    assert (tmp_path / "out" / "report.html").is_file()
