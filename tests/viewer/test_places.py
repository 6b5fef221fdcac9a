"""Where recordings lie: principal components of what is compared, in runs of every form, and UMAP beside them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.analysis.similarity.search import InMemory
from ecgfounder.analysis.similarity.space import Space
from ecgfounder.errors import ECGFounderError, MissingDependencyError, RunError, SettingsError
from ecgfounder.results import open_run
from ecgfounder.viewer import Atlas, open_atlas, places
from ecgfounder.viewer.places import LARGEST, as_places
from ecgfounder.viewer.umap_process import placed
from tests.builders.atlas import Shown
from tests.builders.runs import BROKEN, FORMS, Made


def opened(made: Made) -> Atlas:
    atlas = open_atlas(open_run(made.make(), allow_incomplete=made.outcome != "complete"))
    atlas.places.wait(60)
    return atlas


@pytest.mark.parametrize("form", FORMS)
def test_a_recording_is_one_point_in_every_form(tmp_path: Path, form: str) -> None:
    atlas = opened(Made(tmp_path / "run", **FORMS[form]))
    assert atlas.places.pca.state == "ready"
    assert len(atlas) == len(atlas.places.coordinates("pca")) == 4
    rows, similarity, exact = atlas.places.nearest(0)
    assert sorted(rows.tolist()) == [1, 2, 3]
    assert exact
    features = atlas.selection.features()
    units = Space.of(features).units(features)
    assert np.allclose(similarity, (units[0] @ units[1:].T)[rows - 1], atol=1e-5)


def test_components_are_those_of_the_space(shown: Shown, atlas: Atlas) -> None:
    features = atlas.selection.features()
    units = Space.of(features).units(features).astype(np.float64)
    _, sizes, axes = np.linalg.svd(units - units.mean(axis=0), full_matrices=False)
    expected = (units - units.mean(axis=0)) @ axes[:2].T
    found = atlas.places.coordinates("pca").astype(np.float64)
    for axis in range(2):
        assert abs(np.corrcoef(found[:, axis], expected[:, axis])[0, 1]) > 0.9999
    assert np.allclose(atlas.places.explained, sizes[:2] ** 2 / (sizes**2).sum(), atol=1e-3)


def test_one_recording(tmp_path: Path) -> None:
    atlas = opened(Made(tmp_path / "run", rows=[("a/1.xml", 101)], done_order=["a/1.xml"]))
    assert atlas.places.coordinates("pca").tolist() == [[LARGEST // 2] * 2]
    with pytest.raises(RunError, match="no other recordings"):
        atlas.places.nearest(0)


def test_all_failed(tmp_path: Path) -> None:
    atlas = opened(Made(tmp_path / "run", rows=[BROKEN], done_order=[]))
    assert (len(atlas), atlas.failures.num_rows) == (0, 1)
    assert atlas.places.pca.state == "ready"
    assert atlas.places.coordinates("pca").shape == (0, 2)
    assert atlas.find("x").total == 0
    assert len(atlas.where("study_id == 3")) == 0
    assert atlas.columns.shown == {}


def test_no_recordings(tmp_path: Path) -> None:
    atlas = opened(Made(tmp_path / "run", rows=[], done_order=[], outcome="interrupted"))
    assert (len(atlas), atlas.failures.num_rows, atlas.reasons) == (0, 0, [])


def test_the_same_embedding_everywhere(tmp_path: Path) -> None:
    class Same(Made):
        def embeddings(self, path: str) -> list[np.ndarray]:
            return [np.ones((3, 6), np.float32)]

    atlas = opened(Same(tmp_path / "run"))
    assert atlas.places.pca.state == "ready"
    assert len(np.unique(atlas.places.coordinates("pca"))) == 1


def test_an_unfinished_run_shows_what_there_is(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", outcome="interrupted", done_order=["a/1.xml", "a/2.xml", "b/3.xml"])
    atlas = opened(made)
    assert (len(atlas), atlas.failures.num_rows) == (3, 1)
    assert atlas.places.pca.state == "ready"


def test_outputs_that_are_gone_are_a_reason(tmp_path: Path) -> None:
    made = Made(tmp_path / "run", format="parquet")
    folder = made.make()
    for shard in folder.glob("*.parquet"):
        shard.unlink()
    atlas = open_atlas(open_run(folder))
    atlas.places.wait(60)
    assert atlas.places.pca.state == "failed"
    assert "run" in atlas.places.pca.phase
    with pytest.raises(ECGFounderError):
        atlas.places.nearest(0)


def test_the_index_is_kept_outside_the_run(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(each.name for each in shown.folder.rglob("*"))
    first = open_atlas(open_run(shown.folder))
    first.places.wait(60)

    def never(*_: object) -> None:
        raise AssertionError("the index was made again")

    monkeypatch.setattr(places, "open_index", never)
    again = open_atlas(open_run(shown.folder))
    again.places.wait(60)
    assert np.array_equal(again.places.coordinates("pca"), first.places.coordinates("pca"))
    assert sorted(each.name for each in shown.folder.rglob("*")) == before


def test_both_axes_have_the_same_scale() -> None:
    found = as_places(np.array([[0, 0], [10, 0], [0, 5]], np.float32))
    assert found.tolist() == [[0, 16384], [65535, 16384], [0, 49151]]
    assert (as_places(np.ones((3, 2), np.float32)) == LARGEST // 2).all()


def test_umap_needs_its_package_and_enough_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = opened(Made(tmp_path / "run"))
    monkeypatch.setattr(places, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"\[map\]"):
        atlas.places.start_umap()
    monkeypatch.setattr(places, "find_spec", lambda _: object())
    with pytest.raises(RunError, match="at least 20"):
        atlas.places.start_umap()
    with pytest.raises(SettingsError):
        atlas.places.coordinates("umap")


def test_others_are_placed_by_the_nearest_that_are_fitted() -> None:
    rng = np.random.default_rng(3)
    centres = 8 * np.eye(3, 16, dtype=np.float32)
    cluster = rng.integers(3, size=600)
    directions = (centres[cluster] + rng.standard_normal((600, 16))).astype(np.float32)
    places_of_clusters = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    fitted = places_of_clusters[cluster[:300]] + rng.standard_normal((300, 2)).astype(np.float32) / 10
    found = placed(directions[300:], directions[:300], fitted)
    nearest = np.linalg.norm(found[:, None] - places_of_clusters, axis=2).argmin(axis=1)
    assert np.array_equal(nearest, cluster[300:])
    again = placed(directions[:50], directions[:300], fitted)
    assert np.linalg.norm(again - fitted[:50], axis=1).mean() < 0.15  # a fitted one is nearest to itself


def test_what_a_library_says_of_unreadable_embeddings_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: object) -> None:
        raise OSError("SMITH^JOHN")

    monkeypatch.setattr(places, "vectors_of", unreadable)
    atlas = opened(Made(tmp_path / "run"))
    assert (atlas.places.pca.state, atlas.places.pca.phase) == ("failed", "the embeddings cannot be read (OSError)")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_embedding_that_is_not_finite_is_a_reason(tmp_path: Path, value: float) -> None:
    class NotFinite(Made):
        def embeddings(self, path: str) -> list[np.ndarray]:
            return [each * value if path == "a/2.xml" else each for each in super().embeddings(path)]

    atlas = opened(NotFinite(tmp_path / "run"))
    assert (atlas.places.pca.state, "not finite" in atlas.places.pca.phase) == ("failed", True)
    with pytest.raises(RunError, match="not finite"):
        atlas.places.nearest(0)


def test_whatever_goes_wrong_in_the_background_is_told_by_its_kind(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a secret")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places.Places, "_principal", broken)
        failed = open_atlas(open_run(shown.folder))
        failed.places.wait(60)
    assert failed.places.pca.phase == "the embeddings cannot be read (KeyError)"
    atlas = open_atlas(open_run(shown.folder))
    atlas.places.wait(60)
    monkeypatch.setattr(places.Places, "_run_umap", broken)
    monkeypatch.setattr(places, "find_spec", lambda _: object())
    with pytest.raises(RunError, match=r"^UMAP failed \(KeyError\)$"):
        atlas.places.make_umap()


def test_building_an_index_ends_when_the_run_is_closed(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path))
    begun, go_on = threading.Event(), threading.Event()

    class Slow(InMemory):
        def blocks(self, rows_at_once: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for number, block in enumerate(super().blocks(10)):
                yield block
                begun.set()
                assert go_on.wait(30)
                assert number < 3

    monkeypatch.setattr(places, "vectors_of", lambda selection: Slow(selection.features()))
    atlas = open_atlas(open_run(shown.folder))
    assert begun.wait(30)
    assert len(list((tmp_path / "neighbours").glob(".building-*"))) == 1
    threading.Timer(0.2, go_on.set).start()
    atlas.close()
    assert not atlas.places._reading.is_alive()
    assert list((tmp_path / "neighbours").iterdir()) == []
