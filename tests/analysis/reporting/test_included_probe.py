"""What a report shows of a probe: the probe and its controls, without subgroups and learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ecgfounder.analysis import probe
from ecgfounder.analysis.probing.probe_report import write_report
from ecgfounder.analysis.reporting.included import read_included
from ecgfounder.results import open_run
from ecgfounder.storage import locate
from tests.builders.probes import cohort, write_run


def test_subgroups_and_learning_curves_neither_come_in_nor_hide_a_label(tmp_path: Path) -> None:
    table: pd.DataFrame = cohort(160)
    table["site"] = ["north" if number % 2 else "south" for number in range(len(table))]
    options: dict[str, Any] = {"n_draws": 20, "penalties": (1.0,), "inner_folds": 2, "folds": 2, "controls": "none"}
    options |= {"group": "patient", "on": "study_id", "curve_seeds": 2}
    run = open_run(write_run(tmp_path / "run", table))
    more: dict[str, Any] = {"subgroups": ("site",), "learning_curve": (10,), "recalibrate": True}
    write_report(probe(run, table, **options, label=("af",), **more), locate(tmp_path / "out"))
    (shown,) = read_included(locate(tmp_path / "out")).tables
    assert {row[0] for row in shown.rows} == {"af"}
    assert {row[2] for row in shown.rows} == {"embedding", "recalibrated"}
    assert "AUROC" in {row[1] for row in shown.rows}
