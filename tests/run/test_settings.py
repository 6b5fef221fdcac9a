"""The settings of a run: what is refused, what may differ from start to start, and what makes it another run."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ecgfounder.drivers.actors import ActorSettings
from ecgfounder.errors import SettingsError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import PAPER
from ecgfounder.readers.source import Hints
from ecgfounder.run.settings import Settings
from ecgfounder.storage import storage_options

SHARDS = Settings(dataset="a.csv", output_dir=Path("out"), data_dir="/data", format="parquet")

OTHER_RESULTS: dict[str, list[Any]] = {
    "preparation": [Preparation(mode="1lead"), Preparation(recipe=PAPER), Preparation(window=5)],
    "reader": ["sierraecg", "mortara_eli", "mfer", "kardia_atc", "kardia_json"],
    "hints": [Hints(sampling_rate=500.0), Hints(unit="uV"), Hints(unit="200"), Hints(leads=("I", "II"))],
    "precision": ["bfloat16", "float16"],
    "pooling": ["mean", "both"],
    "predictions": [True],
    "statements": [True],
    "heart_rate": [True],
    "dtype": ["float16"],
    "format": ["json"],
    "layout": ["tree"],
    "id_column": ["study"],
}
SAME_RESULTS: dict[str, Any] = {
    "dataset": "b.csv",
    "output_dir": Path("elsewhere"),
    "split": "test",
    "path_column": "path",
    "keep_columns": ("age",),
    "data_dir": "/moved",
    "checkpoint": "same_weights.pth",
    "engine": "torch",
    "device": "cuda:1",
    "compile": True,
    "shard_size": 7,
    "batch_size": 3,
    "num_workers": 0,
    "shard": (2, 3),
    "overwrite": True,
    "retry_failed": True,
    "check_hashes": True,
    "read_timeout": 1.0,
    "read_memory": 0.5,
    "storage_options": storage_options({"region": "somewhere"}),
    "driver": "ray",
    "sample": 50,
    "group_size": 7,
    "actors": ActorSettings("auto"),
    "carrier": lambda _work, _groups: (),
}


def test_every_setting_is_either_part_of_the_fingerprint_or_free() -> None:
    assert {*OTHER_RESULTS, *SAME_RESULTS} == {each.name for each in fields(Settings)}
    assert not OTHER_RESULTS.keys() & SAME_RESULTS.keys()


def test_each_setting_that_changes_results_makes_another_fingerprint() -> None:
    variants = [replace(SHARDS, **{name: value}) for name, values in OTHER_RESULTS.items() for value in values]
    prints = [orjson.dumps(each.fingerprint("ab"), option=orjson.OPT_SORT_KEYS) for each in (SHARDS, *variants)]
    assert len(set(prints)) == len(prints)
    assert SHARDS.fingerprint("cd") != SHARDS.fingerprint("ab")


@pytest.mark.parametrize("name", SAME_RESULTS)
def test_what_says_how_fast_or_where_leaves_the_fingerprint_as_it_is(name: str) -> None:
    more = {"driver": "ray"} | {name: SAME_RESULTS[name]}  # which some settings need
    assert replace(SHARDS, **more).fingerprint("ab") == SHARDS.fingerprint("ab")


def test_a_fingerprint_says_what_it_is_of() -> None:
    hints = Hints(250.0, "200", ("I", "II"))
    told = replace(SHARDS, hints=hints, statements=True, predictions=True, id_column="study").fingerprint("ab")
    assert told == {
        "checkpoint_sha256": "ab",
        "preparation": Preparation().fingerprint(),
        "reader": "auto",
        "hints": {"sampling_rate": 250.0, "unit": "200", "leads": ["I", "II"]},
        "precision": "float32",
        "pooling": "none",
        "predictions": True,
        "statements": True,
        "heart_rate": False,
        "dtype": "float32",
        "format": "parquet",
        "layout": "flat",
        "id_column": "study",
    }
    assert orjson.loads(orjson.dumps(told)) == told  # as it comes back from run.json


def test_without_more_a_run_writes_whole_maps_as_json_from_the_working_directory() -> None:
    plain = Settings(dataset="a.csv", output_dir=Path("out"))
    assert (plain.format, plain.pooling, plain.dtype, plain.layout, plain.mode) == (
        "json",
        "none",
        "float32",
        "flat",
        "12lead",
    )
    assert (plain.data_dir, plain.shard, plain.num_workers, plain.batch_size) == (os.getcwd(), (1, 1), 4, None)
    switches = ("overwrite", "retry_failed", "check_hashes", "predictions", "statements", "heart_rate", "compile")
    assert not any(getattr(plain, name) for name in switches)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("engine", "native", "tensorflow"),
        ("precision", "float16", "float64"),
        ("pooling", "both", "max"),
        ("dtype", "float16", "float64"),
        ("format", "parquet", "npy"),
        ("layout", "tree", "deep"),
        ("reader", "sierraecg", "edf"),
        ("batch_size", 1, 0),
        ("batch_size", None, -1),
        ("num_workers", 0, -1),
        ("shard_size", 1, 0),
        ("shard", (1, 1), (0, 1)),
        ("shard", (3, 3), (4, 3)),
        ("read_timeout", 0.001, 0.0),
        ("read_timeout", 1e9, float("inf")),
        ("read_timeout", 1.0, float("nan")),
        ("read_timeout", 1.0, -1.0),
        ("read_memory", None, 0.0),
        ("read_memory", 0.001, -1.0),
        ("read_memory", 1e9, float("inf")),
        ("read_memory", 1.0, float("nan")),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_parameter_and_the_last_one_that_can_is_not(
    name: str, good: Any, bad: Any
) -> None:
    assert getattr(replace(SHARDS, **{name: good}), name) == good
    with pytest.raises(SettingsError, match=f"'{name}' parameter"):
        replace(SHARDS, **{name: bad})


@pytest.mark.parametrize("rate", [0.0, -500.0, float("nan"), float("inf")])
def test_an_impossible_sampling_rate_of_the_user_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="'sampling_rate' parameter"):
        replace(SHARDS, hints=Hints(sampling_rate=rate))


@pytest.mark.parametrize("unit", ["parsec", "0", "-200", "inf", "nan", ""])
def test_a_unit_that_is_none_is_refused_as_a_setting(unit: str) -> None:
    with pytest.raises(SettingsError, match="'unit' parameter"):
        replace(SHARDS, hints=Hints(unit=unit))


RAGGED = Preparation(window=2, stride=2, remainder="keep")


@pytest.mark.parametrize(
    ("together", "apart", "said"),
    [
        ({"overwrite": True, "shard": (1, 2)}, {"shard": (1, 1)}, "overwrite=True"),
        ({"dtype": "float16", "format": "json"}, {"format": "parquet"}, "dtype='float16'"),
        ({"layout": "tree", "id_column": "study"}, {"layout": "flat"}, "layout='tree'"),
        ({"pooling": "both", "format": "json"}, {"format": "parquet"}, "pooling='both'"),
        ({"preparation": RAGGED, "format": "json"}, {"format": "parquet"}, "remainder='keep'"),
        ({"preparation": RAGGED, "format": "json"}, {"pooling": "mean"}, "remainder='keep'"),
        (
            {"preparation": RAGGED, "format": "json"},
            {"preparation": Preparation(window=2, remainder="keep")},
            "remainder='keep'",
        ),
        (
            {"preparation": RAGGED, "format": "json"},
            {"preparation": Preparation(window=2, stride=2, remainder="pad")},
            "remainder='keep'",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused_and_each_alone_is_not(
    together: dict[str, Any], apart: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        replace(SHARDS, **together)
    replace(SHARDS, **(together | apart))
