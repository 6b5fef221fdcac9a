"""Pairs that are alike are found in a cohort of any size, and many copies do not make many pairs."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from ecgfounder.analysis.similarity import near
from ecgfounder.analysis.similarity.near import near_pairs
from ecgfounder.analysis.similarity.search import Index, InMemory, open_index
from ecgfounder.analysis.similarity.space import Space
from tests.builders.vectors import brute, made_up


def index_of(X: np.ndarray, folder: Path) -> Index:
    return open_index(folder, "a", InMemory(X), Space.of(X))


def test_all_pairs_above_the_floor_are_found_the_most_similar_first(tmp_path: Path) -> None:
    X = made_up(400, 200, 6)
    similarity = brute(X)
    expected = {(a, b) for a, b in np.argwhere(similarity > 0.9).tolist() if a < b}
    assert len(expected) > 20
    found = near_pairs(index_of(X, tmp_path), 0.9, 400)
    assert {tuple(pair) for pair in found.rows.tolist()} == expected
    np.testing.assert_allclose(found.similarity, similarity[found.rows[:, 0], found.rows[:, 1]], atol=1e-5)
    assert (np.diff(found.similarity) <= 0).all()


@pytest.mark.parametrize("bulge", [0, 400])
def test_copies_are_found_by_parts(tmp_path: Path, bulge: int) -> None:
    X = made_up(2000, 40, 20)
    X[:bulge] = X[0] + 0.01 * X[:bulge]  # a cluster that has to be cut
    copies = np.arange(1900, 2000)
    X[copies] = X[copies - 1000] + 0.02 * np.random.default_rng(1).standard_normal((100, 40)).astype(np.float32)
    index = index_of(X, tmp_path)
    with mock.patch.multiple(near, REACH=300, PART=60):
        sizes = [len(part) for part in near._parts(torch.from_numpy(index.directions()), seed=0)]
        found = near_pairs(index, 0.99, 10)
    assert sum(sizes) == 2000
    assert max(sizes) <= 60
    assert len(sizes) > 30
    pairs = {tuple(pair) for pair in found.rows.tolist()}
    assert np.mean([(copy - 1000, copy) in pairs for copy in copies.tolist()]) > 0.98
    assert len(found) <= 2000 * 10


def test_nothing_is_found_where_nothing_is_alike(tmp_path: Path) -> None:
    X = np.eye(20, dtype=np.float32)
    assert len(near_pairs(index_of(X, tmp_path), 0.5, 10)) == 0
