"""What engines keep is found again, built again where it is damaged, and done without where it cannot be kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import ecgfounder.engines.onnx as onnx_engine
from ecgfounder.engines import create_engine
from ecgfounder.engines.cache import from_cache
from ecgfounder.errors import CheckpointError, SettingsError
from ecgfounder.machine import cache_folder
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.checkpoint import sha256_of
from tests.builders.engines import MADE, made, needs_native, signals
from tests.builders.weights import drawn_state

pytest.importorskip("onnxruntime", reason="the extra [cpu] is not installed")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def written_cache(checkpoint_1lead: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with what the engines keep of the 1-lead checkpoint; not to be changed."""
    folder = tmp_path_factory.mktemp("written") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECGFOUNDER_CACHE", str(folder))
        for name in MADE[1:]:
            made(checkpoint_1lead, name).close()
    return folder


@pytest.fixture
def filled_cache(written_cache: Path, own_cache: Path) -> Path:
    """A cache of the test's own in which the graph is already."""
    shutil.copytree(written_cache, own_cache)
    return own_cache


@pytest.mark.parametrize("name", ["onnx", pytest.param("native", marks=needs_native)])
def test_with_a_filled_cache_neither_torch_nor_the_checkpoint_is_loaded(
    checkpoint_1lead: Path, filled_cache: Path, name: str
) -> None:
    expected = made(checkpoint_1lead, name).embed(signals(2, 600, channels=1))
    code = (
        "import sys, numpy as np; from pathlib import Path; from ecgfounder.engines import create_engine\n"
        f"engine = create_engine({name!r}, mode='1lead', checkpoint=Path({str(checkpoint_1lead)!r}))\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules and engine.head.n_classes == 150\n"
        "x = np.random.default_rng([0, 600]).standard_normal((2, 1, 600)).astype(np.float32)\n"
        f"np.save({str(filled_cache / 'found.npy')!r}, engine.embed(x))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"ECGFOUNDER_CACHE": str(filled_cache)})
    assert np.array_equal(np.load(filled_cache / "found.npy"), expected)


@pytest.mark.parametrize("damage", ["cut", "flipped", "digests gone", "head gone"])
@pytest.mark.parametrize("name", ["onnx", pytest.param("native", marks=needs_native)])
def test_a_damaged_cache_is_built_again(checkpoint_1lead: Path, filled_cache: Path, damage: str, name: str) -> None:
    batch = signals(2, 300, channels=1)
    expected = made(checkpoint_1lead, name).embed(batch)
    filename = {"onnx": "backbone.onnx", "native": "backbone.f32"}[name]
    (kept,) = filled_cache.glob(f"*/{filename}")
    entry, entries = kept.parent, len(list(filled_cache.iterdir()))
    data = kept.read_bytes()
    if damage == "cut":
        kept.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        kept.write_bytes(data[:-1000] + bytes([data[-1000] ^ 64]) + data[-999:])
    else:
        (entry / ("sha256.json" if damage == "digests gone" else "head.npz")).unlink()
    assert np.array_equal(made(checkpoint_1lead, name).embed(batch), expected)
    assert kept.read_bytes() == data
    assert len(list(filled_cache.iterdir())) == entries
    assert set(json.loads((entry / "sha256.json").read_text())) == {filename, "head.npz"}


def test_a_cache_that_cannot_be_written_is_done_without(
    checkpoint_1lead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        engine = made(checkpoint_1lead)
    assert engine.embed(signals(1, 300, channels=1)).shape == (1, 2, FEATURES)
    assert "built again at every start" in caplog.text


def test_an_entry_that_does_not_name_its_weights_is_built_again(checkpoint_1lead: Path, filled_cache: Path) -> None:
    for digests in filled_cache.glob("*/sha256.json"):
        named = json.loads(digests.read_text())
        digests.write_text(json.dumps({"head.npz": named["head.npz"]}))
        (digests.parent / next(name for name in named if name != "head.npz")).unlink()
    for name in MADE[1:]:
        assert made(checkpoint_1lead, name).embed(signals(1, 300, channels=1)).shape == (1, 2, FEATURES)


def test_an_entry_that_goes_away_before_it_is_loaded_is_done_without(
    filled_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def load(folder: Path) -> str:
        if folder.parent == filled_cache:
            raise FileNotFoundError(folder)
        return (folder / "what").read_text()

    found = from_cache("key", files=("what",), build=lambda folder: (folder / "what").write_text("this"), load=load)
    assert found == "this"
    assert "built again at every start" in caplog.text


def test_where_nothing_can_be_written_the_folder_that_would_help_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SettingsError, match=r"No space left on device.*ECGFOUNDER_CACHE"):
        from_cache("key", files=("what",), build=build, load=str)
    assert list((tmp_path / "cache").iterdir()) == []


def test_two_that_build_the_same_graph_at_once_do_not_disturb_each_other(
    checkpoint_1lead: Path, own_cache: Path
) -> None:
    with ThreadPoolExecutor(max_workers=2) as pool:
        first, second = pool.map(made, [checkpoint_1lead] * 2)
    batch = signals(1, 300, channels=1)
    assert np.array_equal(first.embed(batch), second.embed(batch))
    assert len(list(own_cache.iterdir())) == 1


def test_another_checkpoint_has_another_graph(checkpoint_1lead: Path, tmp_path: Path, filled_cache: Path) -> None:
    bias = "first_conv.conv.bias"
    state = drawn_state("1lead")
    torch.save(state | {bias: state[bias] + 1}, tmp_path / "other.pth")
    batch = signals(1, 300, channels=1)
    assert not np.array_equal(made(checkpoint_1lead).embed(batch), made(tmp_path / "other.pth").embed(batch))
    assert len(list(filled_cache.glob("*/backbone.onnx"))) == 2


def test_a_wrong_checkpoint_leaves_nothing_in_the_cache(checkpoint_12lead: Path, own_cache: Path) -> None:
    with pytest.raises(CheckpointError, match="for 12 leads"):
        made(checkpoint_12lead)
    assert list(own_cache.iterdir()) == []


def test_a_known_digest_is_not_computed_again(
    checkpoint_1lead: Path, filled_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256_of(checkpoint_1lead)
    hashed: list[Path] = []
    monkeypatch.setattr(onnx_engine, "sha256_of", lambda path: hashed.append(Path(path)) or sha256_of(path))
    create_engine("onnx", mode="1lead", checkpoint=checkpoint_1lead, checkpoint_sha256=digest)
    assert checkpoint_1lead not in hashed


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ECGFOUNDER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "ecgfounder"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/ecgfounder")
