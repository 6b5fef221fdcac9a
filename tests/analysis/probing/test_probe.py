"""The probe as a whole: figures, controls, files, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.stats
from safetensors.numpy import load_file

from ecgfounder.analysis import ProbeResult, ProbeSettings, probe
from ecgfounder.analysis.pages.tables import Row
from ecgfounder.analysis.probing import probe as probe_module
from ecgfounder.analysis.probing.controls import (
    Permutations,
    column_features,
    effective_rank,
    permutations,
    permuted_labels,
    sample_of_patients,
)
from ecgfounder.analysis.probing.probe_report import page_of, write_report
from ecgfounder.analysis.statistics.evaluation import Data, evaluate_features
from ecgfounder.analysis.statistics.fitting import Task
from ecgfounder.analysis.statistics.splits import cross_validation, grouped_folds
from ecgfounder.errors import CheckpointError, RunError, SettingsError
from ecgfounder.network.head import Head
from ecgfounder.network.named_head import NamedHead
from ecgfounder.results import EmbeddingRun, open_run
from ecgfounder.storage import locate
from tests.builders.probes import cohort, write_run

QUICK = {
    "n_draws": 50,
    "penalties": (1e-2, 1.0),
    "inner_folds": 2,
    "permutations": 3,
    "group": "patient",
    "on": "study_id",
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return cohort(160)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame) -> EmbeddingRun:
    return open_run(write_run(tmp_path_factory.mktemp("probe") / "run", table))


@pytest.fixture(scope="module")
def result(run: EmbeddingRun, table: pd.DataFrame) -> ProbeResult:
    options: dict[str, Any] = {
        **QUICK,
        "label": ("af", "sinus", "rare"),
        "score": {"af": "x0"},
        "baseline": ("age", "year"),
    }
    return probe(run, table, **options)


def row_of(result: ProbeResult, label: str, metric: str, control: str = "embedding") -> Row:
    (found,) = (row for row in result.rows if (row.label, row.metric, row.control) == (label, metric, control))
    return found


def test_a_label_that_is_in_the_embedding_is_found_with_its_interval(result: ProbeResult, table: pd.DataFrame) -> None:
    found = row_of(result, "af", "auroc")
    assert found.estimate is not None and found.low is not None and found.high is not None  # noqa: PT018
    assert 0.85 < found.low < found.estimate < found.high < 1
    assert found.n_records == len(table)
    assert found.n_patients == table["patient"].nunique()
    assert found.n_pos_patients == table.loc[table["af"], "patient"].nunique()
    assert found.split == "5 folds by patient"
    # A label and its opposite are the same problem.
    assert row_of(result, "sinus", "auroc").estimate == pytest.approx(found.estimate, abs=1e-6)
    assert row_of(result, "(macro)", "auroc").estimate == pytest.approx(found.estimate, abs=1e-6)
    assert "mean of 2 labels" in row_of(result, "(macro)", "auroc").note


def test_a_rare_label_is_named_with_its_count_and_not_scored(result: ProbeResult) -> None:
    (row,) = (each for each in result.rows if each.label == "rare" and each.control == "embedding")
    assert (row.metric, row.estimate, row.n_pos_patients) == ("none", None, 4)
    assert row.note == "not scored: fewer than 10 patients of the rarer class in the test part"


def test_controls_stand_beside_the_embedding(result: ProbeResult) -> None:
    own = row_of(result, "af", "auroc").estimate or 0
    assert abs((row_of(result, "af", "auroc", "baseline").estimate or 0) - 0.5) < 0.15
    assert row_of(result, "af", "auroc", "baseline and embedding").estimate == pytest.approx(own, abs=0.03)
    score = row_of(result, "af", "auroc", "score: x0")
    assert 0.7 < (score.estimate or 0) < own
    assert not any(row.metric == "brier" and row.control == "score: x0" for row in result.rows)
    permuted = row_of(result, "af", "auroc", "permuted labels")
    assert abs((permuted.estimate or 0) - 0.5) < 0.12
    difference = row_of(result, "af", "auroc difference", "baseline")
    assert difference.low is not None
    assert difference.low > 0.1
    assert "'acquisition' has no column that varies" in " ".join(result.warnings)


@pytest.mark.parametrize("controls", ["none", "sample", "full"])
def test_controls_are_on_a_sample_of_whole_patients_or_on_all(
    run: EmbeddingRun, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, controls: str
) -> None:
    monkeypatch.setattr(probe_module, "SAMPLE", 300)
    options: dict[str, Any] = {**QUICK, "label": ("af",), "folds": 2, "permutations": 1, "n_draws": 20}
    said: list[str] = []
    found = probe(run, table, **options, baseline=("age",), controls=controls, say=said.append)
    on = {row.control: row.n_records for row in found.rows if row.metric == "auroc"}
    assert on["embedding"] == len(table) > 320
    if controls == "none":
        assert set(on) == {"embedding"}
        assert not any(each.startswith("Controls") for each in said)
        return
    own = {name: each for name, each in on.items() if name != "embedding"}
    expected = {"baseline", "baseline and embedding", "permuted labels"}
    assert set(own) == (expected | {"embedding (sample)"} if controls == "sample" else expected)
    (size,) = set(own.values())
    assert size == len(table) if controls == "full" else 290 < size <= 300
    assert any(each.startswith(f"Controls on {size} recordings: 5 probes") for each in said)


def test_the_same_seed_gives_the_same_table(run: EmbeddingRun, table: pd.DataFrame) -> None:
    options: dict[str, Any] = {**QUICK, "label": ("af",), "permutations": 1, "folds": 2}
    tables = [probe(run, table, **{**options, "seed": seed}).table for seed in (3, 3, 4)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


def test_a_given_split_takes_the_parts_that_its_column_names(run: EmbeddingRun, table: pd.DataFrame) -> None:
    folds = table.assign(fold=table["patient"].str[1:].astype(int) % 10 + 1.0)  # as read with missing values: 10.0
    options: dict[str, Any] = {**QUICK, "label": ("af",), "split": "fold", "test": ("9", "10"), "validation": ("8",)}
    found = probe(run, folds, **options, controls="none")
    tested = set(found.predictions["record"].to_pylist())
    assert tested == set(table.loc[folds["fold"] >= 9, "ecg"])
    assert row_of(found, "af", "auroc").split == "fold: test 9+10, validation 8"
    assert found.final is found.evaluation.fitted[0]
    with pytest.raises(SettingsError, match="recordings in more than one part"):
        probe(run, table.assign(fold=np.arange(len(table)) % 10 + 1), **options)


def test_an_external_run_is_tested_with_everything_frozen(tmp_path: Path, table: pd.DataFrame) -> None:
    other = cohort(120, seed=1).assign(patient=lambda each: "Q" + each["patient"])
    other["study_id"] += 10_000
    other["ecg"] = "other/" + other["ecg"]
    folders = [write_run(tmp_path / "here", table), write_run(tmp_path / "there", other, data=1)]
    both = pd.concat([table, other])
    options: dict[str, Any] = {**QUICK, "label": ("af",), "controls": "none", "test_runs": ("there",)}
    found = probe(open_run(folders), both, **options)
    assert set(found.predictions["run"].to_pylist()) == {"there"}
    assert (row_of(found, "af", "auroc").estimate or 0) > 0.85
    assert row_of(found, "af", "auroc").split == "external: test there"
    same_names = pd.concat([table, other.assign(patient=other["patient"].str[1:])])
    with pytest.raises(SettingsError, match="separate_patients=True"):
        probe(open_run(folders), same_names, **options)
    apart = probe(open_run(folders), same_names, **options, separate_patients=True)
    assert row_of(apart, "af", "auroc").estimate == row_of(found, "af", "auroc").estimate
    with pytest.raises(SettingsError, match="no run 'elsewhere'"):
        probe(open_run(folders), both, **{**options, "test_runs": ("elsewhere",)})


def test_the_network_s_own_statement_and_the_device_s_measurements_are_controls(
    tmp_path: Path, table: pd.DataFrame
) -> None:
    folder = write_run(tmp_path / "run", table)
    # Two windows of each recording, in another order than the manifest's, and some recordings that are not in the probe.
    logits = table["x0"].to_numpy()
    twice = pd.DataFrame(
        {
            "record": [*table["ecg"], *table["ecg"], "elsewhere.xml"],
            "AF": 1 / (1 + np.exp(-np.concatenate([logits - 1, logits + 1, [0.0]]))),
        }
    )
    predictions = twice.sample(frac=1, random_state=0)
    pq.write_table(pa.Table.from_pandas(predictions, preserve_index=False), folder / "_run" / "predictions.pq")
    rate = pa.table(
        {"record": table["ecg"], "statements": [["AF"]] * len(table), "heart_rate": 60 + 20.0 * table["af"]}
    )
    pq.write_table(rate.slice(0, len(table) - 5), folder / "_run" / "statements.pq")
    found = probe(open_run(folder), table, **{**QUICK, "label": ("af",), "permutations": 0}, score={"af": "AF"})
    same = probe(open_run(folder), table, **{**QUICK, "label": ("af",), "controls": "none"}, score={"af": "x0"})
    statement = row_of(found, "af", "auroc", "score: AF")
    assert statement.estimate == pytest.approx(row_of(same, "af", "auroc", "score: x0").estimate, abs=1e-6)
    assert row_of(found, "af", "brier", "score: AF").estimate is not None
    measured = row_of(found, "af", "auroc", "device measurements")
    assert (measured.estimate or 0) > 0.9
    assert measured.n_records == len(table)


def test_a_head_that_is_fitted_already_goes_through_the_same_metrics(run: EmbeddingRun, table: pd.DataFrame) -> None:
    folds = table.assign(fold=table["patient"].str[1:].astype(int) % 10 + 1)
    options: dict[str, Any] = {
        **QUICK,
        "label": ("af", "sinus"),
        "split": "fold",
        "test": ("9", "10"),
        "controls": "none",
    }
    first = probe(run, folds, **options)
    assert first.final is not None
    weights = first.final.weights
    head = Head(weights.weight.T.astype(np.float32)[:1], weights.bias.astype(np.float32)[:1], ("af",))
    named = NamedHead(head, "", ("0" * 64,), "probe.safetensors")
    found = probe(run, folds, **options, heads=[named])
    for metric in ("auroc", "auprc", "brier", "calibration_slope"):
        again = row_of(found, "af", metric, "head: probe.safetensors")
        assert again.estimate == pytest.approx(row_of(first, "af", metric).estimate, abs=1e-5)
        assert again.low == pytest.approx(row_of(first, "af", metric).low, abs=1e-4)
    assert not any(row.label == "sinus" and row.control.startswith("head") for row in found.rows)
    with pytest.raises(CheckpointError, match="fitted on embeddings of another checkpoint"):
        probe(run, folds, **options, heads=[replace(named, checkpoints=("1" * 64,))])
    with pytest.raises(SettingsError, match=r"names none of the labels sinus; it has: af\."):
        probe(run, folds, **{**options, "label": ("sinus",)}, heads=[named])


def test_another_run_is_compared_on_the_recordings_that_both_have(
    tmp_path: Path, run: EmbeddingRun, table: pd.DataFrame
) -> None:
    blurred = table.iloc[: len(table) - 30].copy()
    blurred[["x0", "x1"]] += 3 * np.random.default_rng(0).standard_normal((len(blurred), 2))
    other = open_run(write_run(tmp_path / "blurred", blurred))
    options: dict[str, Any] = {**QUICK, "label": ("af",), "controls": "none", "folds": 3}
    found = probe(run, table, **options, against={"blurred": other})
    assert "30 recordings of the probe are not in blurred." in found.warnings
    assert row_of(found, "af", "auroc", "embedding (shared with blurred)").n_records == len(blurred)
    assert row_of(found, "af", "auroc", "against: blurred").n_records == len(blurred)
    difference = row_of(found, "af", "auroc difference", "against: blurred")
    assert difference.low is not None
    assert difference.low > 0.1
    repeated = probe(run, table, **options, against={"blurred": other}, refit=2)
    spread = row_of(repeated, "af", "auroc difference", "refit, against: blurred")
    assert spread.low is not None
    assert 0.1 < spread.low < (spread.estimate or 0) < (spread.high or 0)
    assert (spread.n_records, spread.note) == (len(blurred), "mean and range over 2 divisions into folds")
    same = probe(run, table, **options, against={"itself": run})
    itself = row_of(same, "af", "auroc difference", "against: itself")
    assert (itself.estimate, itself.low, itself.high) == (0, 0, 0)


def test_random_networks_are_a_control_with_mean_and_range(
    tmp_path: Path, run: EmbeddingRun, table: pd.DataFrame
) -> None:
    rng = np.random.default_rng(0)
    names = [f"x{each}" for each in range(6)]
    runs = []
    for number in range(2):
        noise = table.copy()
        noise[names] = rng.standard_normal((len(table), 6))
        runs.append(open_run(write_run(tmp_path / f"random{number}", noise)))
    flat = table.copy()
    flat[names] = table[["x0"]].to_numpy() * np.ones(6)
    runs.append(open_run(write_run(tmp_path / "flat", flat)))
    found = probe(run, table, **{**QUICK, "label": ("af",), "controls": "none", "folds": 3}, random=runs)
    row = row_of(found, "af", "auroc", "random weights")
    assert row.low is not None
    assert row.high is not None
    assert row.low < 0.65
    assert row.high > 0.8
    assert row.note == f"mean and range of 3 networks with random weights (of another origin), {len(table)} recordings"
    others = cohort(3, seed=9).assign(ecg=lambda each: "z/" + each["ecg"])
    empty = open_run(write_run(tmp_path / "others", others))
    with pytest.raises(RunError, match="random network 1 has none of the recordings"):
        probe(run, table, **{**QUICK, "label": ("af",), "controls": "none"}, random=[empty])


def test_the_effective_rank_counts_directions() -> None:
    X = np.random.default_rng(0).standard_normal((2000, 8)).astype(np.float32)
    assert effective_rank(X) == pytest.approx(8, abs=0.1)
    assert effective_rank(X[:, :1] * np.ones(8, np.float32)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(np.ones((10, 3), np.float32)) == 1


def test_a_model_of_windows_scores_recordings(tmp_path: Path, table: pd.DataFrame) -> None:
    folder = write_run(tmp_path / "run", table, stride=2.0, n_windows=2)
    options: dict[str, Any] = {**QUICK, "label": ("af",), "controls": "none", "folds": 3}
    mean, logit = (probe(open_run(folder), table, **options, combine=combine) for combine in ("mean", "logit"))
    for found in (mean, logit):
        assert row_of(found, "af", "auroc").n_records == len(table)
        assert 0.8 < (row_of(found, "af", "auroc").estimate or 0) < 1
        assert found.predictions.num_rows == len(table)
    assert not np.allclose(mean.evaluation.scores, logit.evaluation.scores)
    assert "the mean of the logits" in page_of(logit)


def test_numbers_are_predicted(run: EmbeddingRun, table: pd.DataFrame) -> None:
    found = probe(run, table, **{**QUICK, "number": ("age",), "permutations": 2})
    assert (row_of(found, "age", "r2").estimate or 0) > 0.95
    assert row_of(found, "age", "calibration_slope").estimate == pytest.approx(1, abs=0.1)
    assert (row_of(found, "age", "mae").estimate or 9) < 1
    assert (row_of(found, "age", "r2", "permuted labels").estimate or 1) < 0.1
    assert "R²" in page_of(found)


def test_the_spread_between_divisions_is_asked_for(run: EmbeddingRun, table: pd.DataFrame) -> None:
    options: dict[str, Any] = {**QUICK, "label": ("af",), "folds": 2, "refit": 2, "controls": "none"}
    spread = row_of(probe(run, table, **options), "af", "auroc", "refit")
    assert spread.low is not None
    assert spread.high is not None
    assert 0.8 < spread.low < (spread.estimate or 0) < spread.high < 1


@pytest.mark.slow
def test_enough_permutations_give_a_p_value(run: EmbeddingRun, table: pd.DataFrame) -> None:
    options: dict[str, Any] = {**QUICK, "label": ("af",), "folds": 2, "permutations": 99, "n_draws": 2}
    found = row_of(probe(run, table, **options), "af", "p-value of auroc", "permuted labels")
    assert found.estimate == pytest.approx(0.01)
    assert found.note == "99 permutations; the smallest possible value is 0.01"


def test_a_p_value_counts_the_real_labels_among_the_permutations() -> None:
    found = Permutations("auroc", {"a": 0.7, "b": 0.5}, {"a": [0.5, 0.6, 0.55], "b": [0.5, 0.6, 0.4]})
    assert found.p_value("a") == 0.25
    assert found.p_value("b") == 0.75


@pytest.mark.slow
def test_p_values_are_uniform_on_their_grid_without_any_effect() -> None:
    """400 cohorts whose labels know nothing of the features, although both are alike within a patient."""
    values = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(160), rng.integers(1, 4, 160))
        X = (rng.standard_normal((160, 3))[groups] + 0.5 * rng.standard_normal((len(groups), 3))).astype(np.float32)
        Y = (rng.random(160) < 0.45)[groups, None].astype(np.float32)
        task = Task(("none",), penalties=(0.1,), inner_folds=2)
        data = remade(Y, Data(Y, groups, (), task, seed, 2))
        observed = evaluate_features(X, data)
        values.append(permutations(X, data, observed, 19, remade).p_value("none"))
    counts = np.bincount(np.rint(np.array(values) * 20).astype(int), minlength=21)[1:]
    assert counts.sum() == 400
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    assert 0.02 <= counts[0] / 400 <= 0.09


def remade(Y: np.ndarray, data: Data) -> Data:
    fold = grouped_folds(data.groups, Y, 2, np.random.default_rng(data.seed))
    return replace(data, Y=Y, splits=tuple(cross_validation(fold)))


def test_without_a_group_there_is_a_warning_that_stays(run: EmbeddingRun, table: pd.DataFrame) -> None:
    found = probe(run, table, **{**QUICK, "label": ("af",), "group": None, "controls": "none", "folds": 2})
    assert any("No group was given" in each for each in found.warnings)
    assert "No group was given" in page_of(found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give the labels in one way"),
        ({"label": ("af",), "number": ("age",)}, "give the labels in one way"),
        ({"label": ("af",), "controls": "some"}, "'controls' parameter"),
        ({"label": ("af",), "combine": "max"}, "'combine' parameter"),
        ({"label": ("af",), "folds": 1}, "'folds' parameter"),
        ({"label": ("af",), "sensitivity": 1.0}, "'sensitivity' parameter"),
        ({"label": ("af",), "split": "fold", "test_runs": ("a",)}, "contradict"),
        ({"label": ("af",), "split": "fold", "refit": 3}, "needs a cross-validation"),
        ({"label": ("af",), "one_per_patient": "first", "group": None}, "needs the column of the patient"),
        ({"label": ("af",), "days": (0, 1)}, "needs the columns of the times"),
        ({"label": ("af",), "penalties": (0.0,)}, "positive numbers"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ProbeSettings(**options)


def test_a_probe_without_a_label_that_can_be_scored_says_why(run: EmbeddingRun, table: pd.DataFrame) -> None:
    with pytest.raises(RunError, match="no label can be scored: rare: fewer than 10 patients"):
        probe(run, table, **{**QUICK, "label": ("rare",)})
    with pytest.raises(SettingsError, match="no label 'vt'"):
        probe(run, table, **{**QUICK, "label": ("af",), "score": {"vt": "x0"}})


# --- files -------------------------------------------------------------------------------------------------------------


def test_files_hold_the_figures_the_predictions_and_the_probe(
    result: ProbeResult, tmp_path: Path, run: EmbeddingRun, table: pd.DataFrame
) -> None:
    folder = tmp_path / "out"
    write_report(result, locate(folder))
    stored = pq.read_table(folder / "results.pq")
    assert stored.equals(result.table)
    as_text = pd.read_csv(folder / "results.csv")
    assert list(as_text.columns) == stored.column_names
    assert len(as_text) == stored.num_rows
    predictions = pq.read_table(folder / "predictions.pq").to_pandas()
    assert len(predictions) == 2 * len(table)
    figures = sorted((folder / "figures").iterdir())
    names = ["01-auroc-of-the-probe-on-patients-that-it-w.svg", "02-af-auroc-of-the-embedding-and-of-the-con.svg"]
    assert [each.name for each in figures][:2] == names
    for each in figures:
        root = ElementTree.parse(each).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in each.read_text()
    about = orjson.loads((folder / "probe.json").read_bytes())
    assert about["left_out"]["failed"] == 0
    assert [each["label"] for each in about["probe"]] == ["af", "sinus"]
    assert about["fingerprints"][0]["pooling"] == "mean"
    # The probe is a linear layer on the embedding: it gives what was fitted.
    tensors = load_file(folder / "probe.safetensors")
    X = np.asarray(run.arrays(pooling="mean")[0])
    scores = X @ tensors["weight"].T + tensors["bias"]
    assert result.final is not None
    assert np.allclose(scores, result.final.weights.scores(X), atol=1e-4)
    (folder / "figures" / "31-earlier.svg").write_text("")
    write_report(result, locate(folder))  # its own folder may be written again
    assert sorted((folder / "figures").iterdir()) == figures
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("mine")
    with pytest.raises(RunError, match=r"is not empty and holds no probe\.json"):
        write_report(result, locate(tmp_path / "other"))
    assert [each.name for each in (tmp_path / "other").iterdir()] == ["thesis.doc"]


class Elements(HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "line", "polyline", "circle", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("line", "polyline", "circle", "rect"):
            return
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_can_be_read_without_seeing_it(result: ProbeResult) -> None:
    text = page_of(result)
    elements = Elements()
    elements.feed(text)
    assert elements.open == []
    tags = [tag for tag, _ in elements.seen]
    assert not {"script", "img", "link", "iframe", "object"} & set(tags)
    assert not any(name in ("src", "onload", "onclick") for _, attributes in elements.seen for name in attributes)
    links = [attributes.get("href") or "" for tag, attributes in elements.seen if tag == "a"]
    assert all(link.startswith("#") for link in links)
    assert "url(" not in text
    assert ("html", {"lang": "en"}) in elements.seen
    assert tags.count("table") == tags.count("caption")
    assert all(attributes.get("role") == "img" for tag, attributes in elements.seen if tag == "svg")
    assert tags.count("svg") == tags.count("figure") == len(re.findall(r"<svg[^>]*><title>[^<]+</title>", text))
    assert tags.count("h1") == 1
    assert {"Summary", "Metrics", "Controls", "TRIPOD+AI checklist"} <= set(re.findall(r"<h2[^>]*>([^<]+)</h2>", text))
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    drawn = {"line", "polyline", "circle", "rect", "path"}
    classes = {
        each for tag, attributes in elements.seen if tag in drawn for each in (attributes.get("class") or "").split()
    }
    assert [each for each in classes if f".{each} {{" not in text] == []  # without a style, a shape is black
    assert "There is no control" not in text


def test_the_page_holds_aggregates_without_small_cells(result: ProbeResult, table: pd.DataFrame) -> None:
    text = page_of(result)
    assert not any(name in text for name in (*table["ecg"], *table["patient"]))
    row = re.search(r'<tr><th scope="row">rare</th>(.*?)</tr>', text)
    assert row is not None
    assert "under 11" in row[1]
    assert ">4<" not in row[1]
    assert "Overlap of these recordings" in text
    assert "-0.000" not in text
    rows = [
        replace(each, n_pos_patients=(each.n_patients or 4) - 4) if each.label == "rare" else each
        for each in result.rows
    ]
    row = re.search(r'<tr><th scope="row">rare</th>(.*?)</tr>', page_of(replace(result, rows=tuple(rows))))
    assert row is not None
    assert "about " in row[1]  # the number of those without it is not told by that of all


def test_text_of_the_user_is_no_markup(run: EmbeddingRun, table: pd.DataFrame) -> None:
    renamed = table.rename(columns={"af": "<script>alert(1)</script>"})
    found = probe(run, renamed, **{**QUICK, "label": ("<script>alert(1)</script>",), "controls": "none", "folds": 2})
    assert "<script" not in page_of(found)
    assert "&lt;script&gt;" in page_of(found)


# --- parts of the controls ---------------------------------------------------------------------------------------------


def test_labels_are_exchanged_between_patients_as_blocks() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), rng.integers(1, 4, 60))
    rng.shuffle(groups)
    Y = np.stack([groups, np.arange(len(groups))], axis=1).astype(np.float32)
    permuted = permuted_labels(Y, groups, rng)
    assert sorted(permuted[:, 1]) == sorted(Y[:, 1])
    moved = 0
    for group in range(60):
        of_group = permuted[groups == group]
        assert len(set(of_group[:, 0])) == 1  # all from one patient
        assert (np.diff(of_group[:, 1]) > 0).all()  # in their order
        moved += of_group[0, 0] != group
    assert moved > 40


def test_a_sample_has_whole_patients() -> None:
    groups = np.repeat(np.arange(100), 3)
    rows = sample_of_patients(groups, 50, 0)
    assert 45 <= len(rows) <= 50
    assert (np.bincount(groups[rows])[np.unique(groups[rows])] == 3).all()
    assert len(sample_of_patients(groups, 300, 0)) == 300


def test_columns_become_features() -> None:
    import pyarrow as pa

    table = pa.table(
        {
            "age": [50, None, 70],
            "sex": ["F", "M", None],
            "flags": [["clipped:I"], [], ["clipped", "noise"]],
            "one": [1] * 3,
        }
    )
    X, used = column_features(table, ["age", "sex", "flags", "one"], "baseline")
    assert used == ["age", "sex", "flags"]
    assert X[:, :2].tolist() == [[50, 0], [60, 1], [70, 0]]  # a missing number is the mean, and marked
    assert X.shape == (3, 2 + 3 + 2)
    with pytest.raises(SettingsError, match="There is no column 'height'"):
        column_features(table, ["height"], "baseline")
