"""A missing value is unknown, never negative; lists, dictionaries and likelihoods follow the rule that is stated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ecgfounder.analysis.rows.labels import (
    LabelSet,
    binary_labels,
    class_labels,
    code_labels,
    number_labels,
    only_within_days,
)
from ecgfounder.errors import SettingsError

U = math.nan


def values(found: LabelSet) -> list[list[float | None]]:
    return [[None if math.isnan(each) else float(each) for each in row] for row in found.Y.tolist()]


@pytest.mark.parametrize(
    "column",
    [[True, False, None], [1, 0, None], [1.0, 0.0, U], ["yes", "No", ""], ["True", " false ", None], ["1", "0", "nan"]],
)
def test_binary_columns_of_any_kind(column: list[Any]) -> None:
    assert values(binary_labels(pa.table({"af": column}), ["af"])) == [[1], [0], [None]]


def test_another_value_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="other values than 0, 1") as refused:
        binary_labels(pa.table({"af": ["Jane Doe", "1"]}), ["af"])
    assert "Jane" not in str(refused.value)
    with pytest.raises(SettingsError, match="no column 'vt'; the columns are: af"):
        binary_labels(pa.table({"af": [1]}), ["vt"])


def test_classes_are_each_against_all_others() -> None:
    found = class_labels(pa.table({"rhythm": ["SR", "AF", None, "SR", ""]}), "rhythm")
    assert found.names == ("rhythm=AF", "rhythm=SR")
    assert values(found) == [[0, 1], [1, 0], [None, None], [0, 1], [None, None]]
    with pytest.raises(SettingsError, match="has 1 classes"):
        class_labels(pa.table({"rhythm": ["SR"]}), "rhythm")


def test_numbers_are_numbers() -> None:
    found = number_labels(pa.table({"age": ["61", None, "47.5"], "lvef": [55, 60, None]}), ["age", "lvef"])
    assert values(found) == [[61, 55], [None, 60], [47.5, None]]
    assert found.kind == "number"
    with pytest.raises(SettingsError, match="holds values that are no numbers"):
        number_labels(pa.table({"age": ["old"]}), ["age"])


PTB_XL = pa.table(
    {"scp_codes": ["{'NORM': 100.0, 'SR': 0.0}", "{'IMI': 15.0, 'AMI': 0.0}", "{}", None, "{'IMI': 80.0}"]}
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[0, 1, 0], [1, 0, 1], [0, 0, 0], [None] * 3, [1, 0, 0]]),
        ({"zero": "negative"}, [[0, 0, 0], [1, 0, 0], [0, 0, 0], [None] * 3, [1, 0, 0]]),
        ({"zero": "unknown"}, [[0, None, 0], [1, 0, None], [0, 0, 0], [None] * 3, [1, 0, 0]]),
        ({"least": 50}, [[0, 1, 0], [None, 0, 1], [0, 0, 0], [None] * 3, [1, 0, 0]]),
    ],
)
def test_likelihoods_follow_the_rule(options: dict[str, Any], expected: list[list[float | None]]) -> None:
    found = code_labels(PTB_XL, "scp_codes", ["IMI", "SR", "AMI"], **options)
    assert values(found) == expected


def test_a_code_that_is_nowhere_is_refused() -> None:
    with pytest.raises(SettingsError, match="'AFIB' is in no row of the column 'scp_codes'"):
        code_labels(PTB_XL, "scp_codes", ["AFIB"])
    with pytest.raises(SettingsError, match="'HYP' is in no row"):
        code_labels(PTB_XL, "scp_codes", ["HYP"], classes={"IMI": "MI"})
    with pytest.raises(SettingsError, match="must name the codes"):
        code_labels(PTB_XL, "scp_codes", [])


def test_a_recording_has_a_class_if_it_has_one_of_its_codes() -> None:
    found = code_labels(PTB_XL, "scp_codes", [], classes={"IMI": "MI", "AMI": "MI", "NORM": "NORM"}, zero="unknown")
    assert found.names == ("MI", "NORM")
    assert values(found) == [[0, 1], [1, 0], [0, 0], [None, None], [1, 0]]


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([["AF", "PVC"], [], None], pa.list_(pa.string())),
        pa.array(["['AF', 'PVC']", "[]", ""]),
        pa.array([[("AF", 100.0)], [("X", 100.0)], None], pa.map_(pa.string(), pa.float64())),
        pa.array([{"AF": 100.0, "X": None}, {"AF": None, "X": 100.0}, None]),
    ],
    ids=["lists", "texts", "maps", "structs"],
)
def test_lists_and_dictionaries_of_arrow_are_read_too(cells: pa.Array) -> None:
    assert values(code_labels(pa.table({"codes": cells}), "codes", ["AF"])) == [[1], [0], [None]]


@pytest.mark.parametrize(
    "cell", ["AF", "__import__('os')", "{'AF': []}", "3", "[" * 3000 + "]" * 3000, "{'AF': 1" + " " * 20_000 + "}"]
)
def test_a_cell_that_holds_no_codes_is_refused_by_its_row(cell: str) -> None:
    with pytest.raises(SettingsError, match="must hold lists or dictionaries of codes, and row 1 does not"):
        code_labels(pa.table({"codes": ["{'AF': 1}", cell]}), "codes", ["AF"])


def test_a_label_outside_the_window_of_days_is_unknown() -> None:
    table = pa.table(
        {
            "ecg": ["2020-01-10 12:00:00"] * 4,
            "echo": ["2020-01-10 12:00:00", "2020-02-20 12:00:00", "2020-01-01 12:00:00", None],
            "low": [1, 1, 0, 1],
        }
    )
    found = only_within_days(binary_labels(table, ["low"]), table, ("ecg", "echo"), (-14, 30))
    assert values(found) == [[1], [None], [0], [None]]
    assert "from -14 to 30 days" in found.how
    with pytest.raises(SettingsError, match="no times"):
        only_within_days(found, table, ("ecg", "low"), (0, 1))


def test_labels_are_float32_with_a_column_each() -> None:
    found = binary_labels(pa.table({"a": [1, 0], "b": [0, None]}), ["a", "b"])
    assert found.Y.dtype == np.float32
    assert found.Y.shape == (2, 2)
