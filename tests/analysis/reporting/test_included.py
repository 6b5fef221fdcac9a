"""Results of other analyses in a report: figures of enough patients, rounded counts, no names."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecgfounder import open_run
from ecgfounder.analysis import compare, drift, duplicates, probe, report
from ecgfounder.analysis.acquisition.drift_report import write_drift
from ecgfounder.analysis.comparison.compare import write_comparison
from ecgfounder.analysis.duplication.duplicates_report import write_duplicates
from ecgfounder.analysis.pages.tables import Row, as_table
from ecgfounder.analysis.probing.probe_report import write_report
from ecgfounder.analysis.reporting.included import PROBE, Included, read_included
from ecgfounder.analysis.reporting.report_page import report_html
from ecgfounder.errors import RunError
from ecgfounder.storage import locate
from tests.builders.probes import cohort, write_run
from tests.builders.reports import write_hospital_run

QUICK = {"n_draws": 20, "folds": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of four analyses of a run with a rare site, a rare label and another run's name."""
    place = tmp_path_factory.mktemp("included")
    table = cohort(150, per_patient=(1, 2))
    table["site"] = ["North", "South"] * (len(table) // 2) + ["North"] * (len(table) % 2)
    of = [f"P{number:04d}" for number in range(10)]
    table.loc[table["patient"].isin(of), "site"] = "Saint Nowhere"
    keep = ["patient", "site", "af", "rare"]
    run = open_run(write_run(place / "Miller", table, keep=keep))
    moved = table.assign(x0=table["x0"] + table["x1"])
    other = open_run(write_run(place / "MRN-8675309", moved, keep=keep))
    found = probe(run, label=("af", "rare"), group="patient", controls="none", against={"MRN-8675309": other}, **QUICK)
    write_report(found, locate(place / "probe"))
    told = drift(run, by=("site",), group="patient", permutations=19, chance=2, random_directions=0, **QUICK)
    write_drift(told, locate(place / "drift"))
    write_duplicates(duplicates(run, group="patient", signals=False), locate(place / "duplicates"))
    write_comparison(compare(run, other, group="patient", permutations=9, n_draws=20), locate(place / "comparison"))
    return place


def read(folder: Path, name: str) -> Included:
    return read_included(locate(folder / name))


def test_a_probe_is_included_without_its_rare_label(folder: Path) -> None:
    found = read(folder, "probe")
    rows = [row for table in found.tables for row in table.rows]
    assert {row[0] for row in rows} == {"af"}  # `rare` has four patients; the mean would tell of it
    assert "AUROC" in {row[1] for row in rows}
    assert {row[2] for row in rows} >= {"embedding", "against"}
    assert all(row[4].startswith("about ") for row in rows)
    estimate = next(
        row for row in pq.read_table(folder / "probe" / "results.pq").to_pylist() if row["metric"] == "auroc"
    )
    assert any(row[3].startswith(f"{estimate['estimate']:.3f}") for row in rows)


def test_ranges_are_not_shown_as_intervals(tmp_path: Path) -> None:
    numbers = (1000, 500, 100, "5 folds")
    rows = [
        Row("af", "auroc", 0.9, 0.88, 0.92, *numbers, "embedding", 0),
        Row(
            "af",
            "auroc",
            0.7,
            0.66,
            0.73,
            *numbers,
            "random weights",
            0,
            "mean and range of 5 networks with random weights",
        ),
    ]
    pq.write_table(as_table(rows), tmp_path / "results.pq")
    (tmp_path / PROBE).write_text("{}")
    (shown,) = read_included(locate(tmp_path)).tables
    assert [row[3] for row in shown.rows] == ["0.900 (0.880 to 0.920)", "0.700 (range 0.660 to 0.730)"]


def test_drift_is_included_without_its_rare_level(folder: Path) -> None:
    levels = {row["level"]: row["n_patients"] for row in pq.read_table(folder / "drift" / "levels.pq").to_pylist()}
    assert levels["Saint Nowhere"] == 10
    overall, by_level = read(folder, "drift").tables
    assert {row[0] for row in overall.rows} == {"site"}
    assert {row[1] for row in by_level.rows} == {"North", "South"}


def test_duplicates_and_comparisons_are_included(folder: Path) -> None:
    found = read(folder, "duplicates")
    assert [row[0] for row in found.tables[0].rows] == [
        "byte for byte the same file",
        "the same signal",
        "different patients, as alike as one; not confirmed",
        "alike, not confirmed",
    ]
    agreement = read(folder, "comparison").tables[0]
    assert {row[1] for row in agreement.rows} >= {"Cosine", "CKA, debiased"}


@pytest.mark.parametrize("name", ["probe", "drift", "duplicates", "comparison"])
def test_no_name_and_no_exact_count_comes_along(folder: Path, name: str) -> None:
    found = read(folder, name)
    text = str(found)
    for canary in ("Miller", "8675309", "Saint Nowhere", "P0001", ".xml", str(folder)):
        assert canary not in text
    n = pq.read_table(folder / "Miller" / "_run" / "manifest.pq").num_rows
    assert str(n) not in text.replace(f"about {n}", "") or n % 10 == 0


def test_they_are_on_the_page(folder: Path, tmp_path: Path) -> None:
    run = open_run(write_hospital_run(tmp_path / "run"))
    names = ("probe", "drift", "duplicates", "comparison")
    page = html.unescape(report_html(report(run, included=[read(folder, name) for name in names], map="pca")))
    for title in ("Linear probe", "Drift", "Duplicates", "Comparison of two runs"):
        assert f">{title}</h2>" in page
    assert "Saint Nowhere" not in page


def test_what_is_not_of_enough_patients_leaves_a_sentence(tmp_path: Path) -> None:
    run = open_run(write_hospital_run(tmp_path / "run"))
    page = report_html(report(run, included=[Included("Drift", "What is known.", ())], map="pca"))
    assert "No figure is of 11 patients or more." in page


def test_a_tampered_table_gives_one_line(folder: Path, tmp_path: Path) -> None:
    changes: dict[str, Callable[[dict[str, Any]], None]] = {
        "no column": lambda row: row.pop("n_patients"),
        "text": lambda row: row.update(estimate="<b>much</b>"),
    }
    for name, change in changes.items():
        place = tmp_path / name
        place.mkdir()
        (place / "probe.json").write_bytes((folder / "probe" / "probe.json").read_bytes())
        rows = pq.read_table(folder / "probe" / "results.pq").to_pylist()
        for row in rows:
            change(row)
        pq.write_table(pa.Table.from_pylist(rows), place / "results.pq")
        with pytest.raises(RunError, match="cannot be read"):
            read_included(locate(place))
