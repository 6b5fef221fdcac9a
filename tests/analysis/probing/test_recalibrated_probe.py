"""The recalibrated probe and prediction intervals as a whole: rows, files, the page, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from ecgfounder.analysis import ProbeSettings, probe
from ecgfounder.analysis.probing.probe_report import page_of, write_report
from ecgfounder.errors import SettingsError
from ecgfounder.results import EmbeddingRun, open_run
from ecgfounder.storage import locate
from tests.builders.probes import cohort, write_run

OPTIONS: dict[str, Any] = {
    "group": "patient",
    "on": "study_id",
    "n_draws": 40,
    "penalties": (1e-2, 1.0),
    "inner_folds": 2,
    "folds": 2,
    "controls": "none",
}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    table = cohort(260)
    patient = table["patient"].str[1:].astype(int)
    table["years"] = 30 + patient % 60
    table["sex"] = np.where(patient % 2 == 0, "F", "M")
    rng = np.random.default_rng(3)
    table["ef"] = 60 + 4 * table["x3"] + np.where(table["sex"] == "M", 6, 2) * rng.standard_normal(len(table))
    return table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, table: pd.DataFrame) -> EmbeddingRun:
    return open_run(write_run(tmp_path_factory.mktemp("recalibrated") / "run", table))


def test_the_recalibrated_probe_is_beside_the_fitted_one(
    run: EmbeddingRun, table: pd.DataFrame, tmp_path: Path
) -> None:
    result = probe(run, table, **OPTIONS, label=("af", "sinus"), recalibrate=True)
    rows = {(row.label, row.metric): row for row in result.rows if row.control == "recalibrated"}
    assert rows["af", "brier"].low is not None
    assert rows["af", "recalibration slope"].note == "mean and range over 2 splits"
    assert rows["af", "brier difference"].note == "embedding minus recalibrated, paired"
    assert rows["af", "brier difference"].estimate == pytest.approx(0, abs=0.01)
    page = page_of(result)
    section = page.partition(">Recalibration</h2>")[2].partition("<h2")[0]
    assert section.count("as fitted") == section.count("recalibrated</td>") == 2
    assert "the inner folds of the training part" in section
    assert "Recalibration of logits." in page
    assert "There is no control." in page  # it is none
    write_report(result, locate(tmp_path / "out"))
    own, new = (load_file(tmp_path / "out" / f"probe{each}.safetensors") for each in ("", "_recalibrated"))
    # The same directions: each label's weights by its slope.
    ratio = new["weight"] / own["weight"]
    assert np.allclose(ratio, ratio[:, :1], rtol=1e-3)
    assert (ratio > 0).all()
    assert not np.allclose(ratio, 1)


def test_prediction_intervals_are_in_the_tables_and_by_band(
    run: EmbeddingRun, table: pd.DataFrame, tmp_path: Path
) -> None:
    result = probe(
        run, table, **OPTIONS, number=("ef",), prediction_interval=0.8, interval_by="sex", subgroups=("years:20",)
    )
    rows = {(row.control, row.metric): row for row in result.rows}
    whole = rows["embedding", "coverage"]
    assert whole.estimate == pytest.approx(0.8, abs=0.08)
    assert (whole.low or 1) < (whole.estimate or 0) < (whole.high or 0)
    women, men = (rows[f"subgroup: sex={each}", "interval_width"].estimate or 0 for each in "FM")
    assert men > 2 * women > 0
    for each in "FM":
        assert rows[f"subgroup: sex={each}", "coverage"].estimate == pytest.approx(0.8, abs=0.1)
    assert ("subgroup: years=40 to 60", "coverage") in rows
    write_report(result, locate(tmp_path / "out"))
    found = pq.read_table(tmp_path / "out" / "predictions.pq").to_pandas()
    assert list(found.columns) == ["record", "label", "value", "score", "low", "high", "fold"]
    found["inside"] = (found["value"] >= found["low"]) & (found["value"] <= found["high"])
    patient = found["record"].map(table.set_index("ecg")["patient"])
    by_patient = found.groupby([found["fold"], patient])["inside"].mean()
    assert by_patient.groupby(level=0).mean().mean() == pytest.approx(whole.estimate, abs=1e-9)
    told = orjson.loads((tmp_path / "out" / "probe.json").read_bytes())["prediction_intervals"]["ef"]
    assert set(told) == {"all", "F", "M"}
    assert told["F"] < told["all"] < told["M"]
    page = page_of(result)
    assert "Interval width" in page
    assert "sex=M" in page.partition(">Subgroups</h2>")[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"number": ("age",), "recalibrate": True}, "recalibrate is for probabilities"),
        ({"label": ("af",), "prediction_interval": 0.9}, "prediction_interval is for numbers"),
        ({"number": ("age",), "prediction_interval": 1.0}, "a level between 0 and 1"),
        ({"number": ("age",), "interval_by": "sex"}, "interval_by needs prediction_interval"),
        (
            {"number": ("age",), "baseline": ("sex", "age")},
            "the baseline has the column 'age', which is what the probe",
        ),
        ({"time": "t", "event": "e", "baseline": ("t",)}, "the baseline has the column 't', which is what the probe"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ProbeSettings(**options)


def test_a_column_of_bands_that_is_not_there_is_named_by_its_parameter(run: EmbeddingRun, table: pd.DataFrame) -> None:
    with pytest.raises(SettingsError, match=r"'interval_by' parameter\. There is no column 'race'"):
        probe(run, table, **OPTIONS, number=("ef",), prediction_interval=0.9, interval_by="race")


@pytest.mark.parametrize("by", ["ef", "ef:10"])
def test_bands_of_the_number_that_is_predicted_are_refused(run: EmbeddingRun, table: pd.DataFrame, by: str) -> None:
    few = table.assign(ef=(table["ef"] / 10).round() * 10)
    with pytest.raises(SettingsError, match="The column 'ef' is the number that is predicted"):
        probe(run, few, **OPTIONS, number=("ef",), prediction_interval=0.9, interval_by=by)


def test_a_level_that_so_few_patients_cannot_have_gives_no_interval_and_is_named(
    run: EmbeddingRun, table: pd.DataFrame, tmp_path: Path
) -> None:
    result = probe(run, table, **OPTIONS, number=("ef",), prediction_interval=0.9999)
    assert not [row for row in result.rows if row.metric in ("coverage", "interval_width")]
    assert any(each.startswith("No prediction intervals of ef in a test part") for each in result.warnings)
    assert result.predictions["low"].null_count == result.predictions.num_rows
    write_report(result, locate(tmp_path / "out"))
    told = orjson.loads((tmp_path / "out" / "probe.json").read_bytes())["prediction_intervals"]
    assert told == {"ef": {"all": None}}
