"""A map by UMAP: made in a process of its own, kept beside the index, and ended with the program that asked for it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgfounder.analysis.similarity.search import InMemory, open_index
from ecgfounder.analysis.similarity.space import Space
from ecgfounder.results import open_run
from ecgfounder.viewer import Atlas, open_atlas
from ecgfounder.viewer import places as module
from tests.builders.atlas import Shown, write_shown
from tests.builders.vectors import made_up

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def until(holds: Callable[[], bool], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def opened(shown: Shown) -> Atlas:
    atlas = open_atlas(open_run(shown.folder))
    atlas.places.wait(60)
    return atlas


def test_clusters_stay_together_and_the_map_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("umap", reason="the extra [map] is not installed")
    monkeypatch.setattr(module, "FITTED", 200)  # a third of the recordings is placed by those
    shown = write_shown(tmp_path / "shown", 300)
    atlas = opened(shown)
    atlas.places.start_umap()
    phases = set()
    until(lambda: phases.add(atlas.places.umap.phase) or atlas.places.umap.state != "working")  # type: ignore[func-returns-value]
    assert atlas.places.umap.state == "ready", atlas.places.umap.phase
    assert "laying out" in phases
    found = atlas.places.coordinates("umap").astype(float)
    rhythm = shown.table["rhythm"].to_numpy()
    centres = pd.DataFrame(found).groupby(rhythm).median().to_numpy()
    nearest = np.linalg.norm(found[:, None] - centres[None], axis=2).argmin(axis=1)
    assert (np.array(sorted(set(rhythm)))[nearest] == rhythm).mean() > 0.97
    again = opened(shown)
    assert again.places.umap.state == "ready"
    assert np.array_equal(again.places.coordinates("umap"), atlas.places.coordinates("umap"))


def test_a_process_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = opened(write_shown(tmp_path / "shown", 60))
    monkeypatch.setattr(module, "find_spec", lambda _: object())
    monkeypatch.setattr(module, "FITTED", "no number")
    atlas.places.start_umap()
    until(lambda: atlas.places.umap.state != "working")
    assert (atlas.places.umap.state, atlas.places.umap.phase) == ("failed", "UMAP ended with status 1")


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    vectors = made_up(3000, 16, 4)
    index = open_index(tmp_path / "cache", "key", InMemory(vectors), Space.of(vectors))
    words = [sys.executable, "-m", "ecgfounder.viewer.umap_process", str(index.folder), str(tmp_path / "x.npy"), "3000"]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    child.stdin.close()  # as when the parent is killed
    assert child.wait(60) != 0
    child.stdout.close()
    assert not (tmp_path / "x.npy").exists()
