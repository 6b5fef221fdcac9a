"""The probe commands of the cohorts' pages run on runs and tables of the same layout."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ecgfounder.cli import main
from tests.builders.probes import cohort, write_run
from tests.harness.pages import DOCS, blocks_of, commands_of
from tests.harness.times import with_hazards

QUICK = ("--n_draws", "20", "--permutations", "1")


def probe_command(page: str, data: Path, output: str) -> list[str]:
    """The words of the page's probe command with this output, with the data's folder for /data/."""
    for block in blocks_of(DOCS / "cohorts" / f"{page}.md"):
        if block.kind == "bash":
            for words, _ in commands_of(block.text.replace("/data/", f"{data}/")):
                if words[:2] == ["ecgfounder", "probe"] and words[-1] == f"probes/{output}":
                    return words[1:]
    raise AssertionError(f"{page} has no probe command")


@pytest.fixture
def table() -> pd.DataFrame:
    return cohort(200, per_patient=(1, 2))


def scored(folder: Path, metric: str) -> set[str]:
    """The labels that have a metric of the embedding's own."""
    rows = pq.read_table(folder / "results.pq").to_pylist()
    return {row["label"] for row in rows if row["metric"] == metric and row["control"] == "embedding"}


def run_page(
    page: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    further: Sequence[str] = QUICK,
    *,
    output: str | None = None,
    metric: str = "auroc",
) -> set[str]:
    output = output or page
    monkeypatch.chdir(folder)
    assert main([*probe_command(page, folder / "data", output), *further]) == 0
    assert (folder / "probes" / output / "report.html").stat().st_size > 5000
    return scored(folder / "probes" / output, metric)


def test_ptb_xl(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "ptb-xl").mkdir(parents=True)
    rng = np.random.default_rng(0)
    patients = table["patient"].str[1:].astype(int)
    # As in ptbxl_database.csv: numbers of patients with a decimal, a fold of 1 to 10 for each patient, codes as text.
    table["patient_id"] = 15000.0 + patients
    table["strat_fold"] = patients % 3 + 8
    table["scp_codes"] = [
        str({"IMI": float(rng.choice([0, 50, 100])), "SR": 0.0} if af else {"NORM": 100.0, "SR": 0.0})
        for af in table["af"]
    ]
    assert ast.literal_eval(table["scp_codes"][0])["SR"] == 0
    statements = {"description": ["", "", ""], "diagnostic": [1.0, 1.0, None], "diagnostic_class": ["NORM", "MI", None]}
    pd.DataFrame(statements, index=["NORM", "IMI", "SR"]).to_csv(tmp_path / "data" / "ptb-xl" / "scp_statements.csv")
    keep = ["patient_id", "strat_fold", "scp_codes"]
    write_run(tmp_path / "embeddings" / "ptb-xl", table, keep=keep, id_column="study_id")
    assert run_page("ptb-xl", tmp_path, monkeypatch) == {"NORM", "MI", "(macro)"}


def test_code_15(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table["patient_id"] = table["patient"].str[1:].astype(int)
    table["age"] = table["age"].round()
    table["is_male"] = rng.random(len(table)) < 0.5
    names = ["1dAVb", "RBBB", "LBBB", "SB", "AF", "ST"]
    for name in names:
        table[name] = table["af"] if name == "AF" else rng.random(len(table)) < 0.3
    # Of first exams alone: years to death, or to the end of follow-up.
    y = with_hazards(-2.0 + 1.5 * table["x0"].to_numpy(), rng, digits=2)
    first = ~table["patient"].duplicated()
    table["timey"] = [float(abs(each)) if one else None for each, one in zip(y, first, strict=True)]
    table["death"] = [bool(each > 0) if one else None for each, one in zip(y, first, strict=True)]
    keep = ["patient_id", "age", "is_male", *names, "death", "timey"]
    write_run(tmp_path / "embeddings" / "code-15", table, keep=keep, id_column="study_id")
    assert run_page("code-15", tmp_path, monkeypatch) == {*names, "(macro)"}
    mortality = {"output": "code-15-mortality", "metric": "auroc@3"}
    assert run_page("code-15", tmp_path, monkeypatch, (*QUICK, "--folds", "2"), **mortality) == {"death"}


def test_mimic(tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    table["subject_id"] = 10_000_000 + table["patient"].str[1:].astype(int)
    table["study_id"] += 40_000_000
    table[["study_id", "af"]].to_csv(tmp_path / "mimic_labels.csv", index=False)
    write_run(tmp_path / "embeddings" / "mimic-iv-ecg", table, keep=["subject_id"], id_column="study_id")
    assert run_page("mimic-iv-ecg", tmp_path, monkeypatch) == {"af"}
