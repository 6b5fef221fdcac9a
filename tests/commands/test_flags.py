"""Flags become settings: each its own and no other, and without any a run is what `Settings` says it is."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from ecgfounder.commands.arguments import hints_of, preparation_of
from ecgfounder.commands.embed import add_embed_arguments, settings_of
from ecgfounder.drivers.actors import ActorSettings
from ecgfounder.errors import SettingsError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import FILTERED, PAPER
from ecgfounder.readers.source import Hints
from ecgfounder.run.settings import Settings

HERE = Settings(dataset="a.csv", output_dir=Path("out"), data_dir=os.getcwd())


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_embed_arguments(parser)
    return parser.parse_args(["--dataset", "a.csv", "--output_dir", "out", *words])


def changed(*words: str) -> dict[str, Any]:
    """What flags make different from a run without them."""
    told = settings_of(parsed(*words))
    return {
        each.name: getattr(told, each.name)
        for each in fields(told)
        if getattr(told, each.name) != getattr(HERE, each.name)
    }


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("", {}),
        ("--split test", {"split": "test"}),
        ("--data_dir /data", {"data_dir": "/data"}),
        ("--data_dir relative", {"data_dir": os.path.join(os.getcwd(), "relative")}),
        ("--path_column file", {"path_column": "file"}),
        ("--id_column study", {"id_column": "study"}),
        ("--keep_columns age sex", {"keep_columns": ("age", "sex")}),
        ("--reader sierraecg", {"reader": "sierraecg"}),
        ("--reader mfer", {"reader": "mfer"}),
        ("--sampling_rate 250", {"hints": Hints(250.0)}),
        ("--unit 200", {"hints": Hints(unit="200")}),
        ("--leads i,avr,C1", {"hints": Hints(leads=("I", "aVR", "V1"))}),
        ("--mode 1lead", {"preparation": Preparation(mode="1lead")}),
        ("--mode 1lead --lead all", {"preparation": Preparation(mode="1lead", lead="all")}),
        ("--missing_leads zero", {"preparation": Preparation(missing_leads="zero")}),
        ("--recipe filtered", {"preparation": Preparation(recipe=FILTERED)}),
        ("--recipe paper", {"preparation": Preparation(recipe=PAPER)}),
        ("--resampling polyphase", {"preparation": Preparation(resampling="polyphase")}),
        ("--window 10", {"preparation": Preparation(window=10)}),
        ("--window 10 --stride 5", {"preparation": Preparation(window=10, stride=5)}),
        ("--window 10 --remainder pad", {"preparation": Preparation(window=10, remainder="pad")}),
        ("--trim_zero_edges", {"preparation": Preparation(trim_zero_edges=True)}),
        ("--checkpoint w.pth", {"checkpoint": "w.pth"}),
        ("--engine onnx", {"engine": "onnx"}),
        ("--precision float16", {"precision": "float16"}),
        ("--compile", {"compile": True}),
        ("--device cuda:1", {"device": "cuda:1"}),
        ("--batch_size 3", {"batch_size": 3}),
        ("--num_workers 0", {"num_workers": 0}),
        ("--pooling mean", {"pooling": "mean"}),
        ("--predictions", {"predictions": True}),
        ("--predictions probe.safetensors", {"predictions": "probe.safetensors"}),
        ("--statements", {"statements": True}),
        ("--heart_rate", {"heart_rate": True}),
        ("--format parquet", {"format": "parquet"}),
        ("--shard_size 7", {"shard_size": 7}),
        ("--format parquet --dtype float16", {"format": "parquet", "dtype": "float16"}),
        ("--layout tree", {"layout": "tree"}),
        ("--shard 2/3", {"shard": (2, 3)}),
        ("--sample 100", {"sample": 100}),
        ("--overwrite", {"overwrite": True}),
        ("--retry_failed", {"retry_failed": True}),
        ("--check_hashes", {"check_hashes": True}),
        ("--read_timeout 5", {"read_timeout": 5.0}),
        ("--read_memory 2.5", {"read_memory": 2.5}),
        ("--driver ray", {"driver": "ray"}),
        ("--driver ray --group_size 7", {"driver": "ray", "group_size": 7}),
        (
            "--driver ray --format parquet --group_size 7",
            {"driver": "ray", "format": "parquet", "group_size": 7, "shard_size": 7},
        ),
        ("--driver ray --ray_address head:6379", {"driver": "ray", "actors": ActorSettings("head:6379")}),
        ("--driver ray --gpus_per_actor 0.5", {"driver": "ray", "actors": ActorSettings(gpus=0.5)}),
        ("--driver ray --cpus_per_actor 3", {"driver": "ray", "actors": ActorSettings(cpus=3)}),
        ("--driver ray --actors 2:5", {"driver": "ray", "actors": ActorSettings(least=2, most=5)}),
        ("--driver ray --actors 2:", {"driver": "ray", "actors": ActorSettings(least=2)}),
        ("--driver ray --actors 4", {"driver": "ray", "actors": ActorSettings(least=4, most=4)}),
    ],
)
def test_each_flag_changes_its_own_setting_and_no_other(words: str, settings: dict[str, Any]) -> None:
    assert changed(*words.split()) == settings
    assert settings_of(parsed(*words.split())) == replace(HERE, **settings)


def test_every_setting_has_a_flag() -> None:
    flags = set(vars(parsed()))
    inside = {"preparation": set(vars(Preparation())), "hints": {"sampling_rate", "unit", "leads"}}
    inside["carrier"] = set()  # a function
    for each in fields(Settings):
        assert inside.get(each.name, {each.name}) <= flags, each.name


@pytest.mark.parametrize("actors", ["", "a", "1:b", ":3", "1:2:3", "3:2", "0:2"])
def test_numbers_of_workers_that_are_none_are_refused(actors: str) -> None:
    with pytest.raises(SettingsError, match=r"the 'actors' parameter\. It must be MIN:MAX"):
        settings_of(parsed("--driver", "ray", "--actors", actors))


@pytest.mark.parametrize("shard", ["", "2", "1/", "/2", "a/b", "1/2/3", "-1/2", "1.0/2", "\u00b2/3"])
def test_a_shard_that_is_no_pair_of_numbers_is_refused(shard: str) -> None:
    with pytest.raises(SettingsError, match="'shard' parameter"):
        settings_of(parsed(f"--shard={shard}"))


def test_a_folder_of_recordings_is_where_its_paths_start(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<restingecgdata/>")
    words = ["--dataset", str(tmp_path)]
    assert settings_of(parsed(*words)).data_dir == str(tmp_path)
    assert settings_of(parsed(*words, "--data_dir", "/data")).data_dir == "/data"


@pytest.mark.parametrize(("window", "found"), [("whole", None), ("2.5", 2.5), (None, 10.0)])
def test_a_window_is_seconds_or_the_whole_recording_or_the_recipe_s(window: str | None, found: float | None) -> None:
    words = [] if window is None else ["--window", window]
    preparation = preparation_of(parsed("--recipe", "paper", *words))
    assert preparation.window == found
    assert preparation.stride == (10.0 if window is None else None)


def test_a_window_of_words_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'window' parameter. It must be 'whole' or seconds, got 'all'"):
        preparation_of(parsed("--window", "all"))


def test_without_hints_nothing_is_said() -> None:
    assert hints_of(parsed()) == Hints()
    assert hints_of(parsed("--leads", "")) == Hints()
