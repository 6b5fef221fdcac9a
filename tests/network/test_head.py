"""The pooled vector and the predictions: the mean of many tokens is that of float64, and each probability stands by itself."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.engines.cache import head_of_parts, head_parts
from ecgfounder.errors import CheckpointError
from ecgfounder.network.bundles import SPECS
from ecgfounder.network.head import Head, labels_of, pooled
from ecgfounder.stages.pooling import diagnostic_head, pooling_of

N_TOKENS = 20_000


@pytest.fixture(scope="module")
def long_map() -> np.ndarray:
    """A map of a day's length whose mean float32 sums lose: each token is far above the differences between them."""
    chance = np.random.default_rng(2)
    return (1000 + chance.standard_normal((N_TOKENS, 16))).astype(np.float32)


def test_the_mean_over_many_tokens_is_the_one_of_double_precision(long_map: np.ndarray) -> None:
    exact = long_map.astype(np.float64).sum(axis=0) / N_TOKENS
    assert np.array_equal(pooled(long_map), exact.astype(np.float32))
    assert not np.array_equal(long_map.mean(axis=0, dtype=np.float32), pooled(long_map))  # so that this says something


@pytest.mark.parametrize("pooling", ["mean", "both"])
def test_a_view_s_mean_is_that_of_double_precision(long_map: np.ndarray, pooling: str) -> None:
    view = pooling_of(pooling)(long_map)
    mean = view.embedding if pooling == "mean" else view.mean
    assert mean is not None
    assert mean.dtype == np.float32
    assert np.array_equal(mean, long_map.astype(np.float64).mean(axis=0).astype(np.float32))


def test_a_view_holds_what_was_asked_for_and_nothing_else() -> None:
    feature_map = np.arange(12, dtype=np.float32).reshape(3, 4)
    head = Head(np.ones((2, 4), np.float32), np.zeros(2, np.float32))
    shapes = {
        "none": ((3, 4), None),
        "mean": ((4,), None),
        "both": ((3, 4), (4,)),
    }
    for pooling, (embedding, mean) in shapes.items():
        for given in (None, head):
            view = pooling_of(pooling, given)(feature_map)
            assert view.embedding.shape == embedding
            assert (None if view.mean is None else view.mean.shape) == mean
            assert (view.probabilities is not None) == (given is not None)


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 3)])
def test_a_view_is_finite_only_where_every_number_is(place: tuple[int, int]) -> None:
    feature_map = np.ones((3, 4), np.float32)
    assert all(pooling_of(pooling)(feature_map).is_finite for pooling in ("none", "mean", "both"))
    feature_map[place] = np.nan
    assert not any(pooling_of(pooling)(feature_map).is_finite for pooling in ("none", "mean", "both"))


def test_a_probability_is_the_sigmoid_of_its_own_logit() -> None:
    weight = np.array([[1, 0], [0, 1], [1, 1], [-100, 0]], np.float32)
    head = Head(weight, np.array([0, 0.5, -1, 0], np.float32))
    maps = np.array([[[2, 0], [4, 2]], [[1, 1], [1, 1]]], np.float32)
    logits = np.array([[3, 1.5, 3, -300], [1, 1.5, 1, -100]])
    assert head.n_classes == 4
    np.testing.assert_allclose(head.logits(maps), logits, rtol=1e-6)
    with np.errstate(over="raise"):
        np.testing.assert_allclose(head.probabilities(maps), 1 / (1 + np.exp(-logits)), rtol=1e-5, atol=1e-7)


def head_with(n_classes: int, labels: tuple[str, ...] | None = None) -> Head:
    return Head(np.zeros((n_classes, 1024), np.float32), np.zeros(n_classes, np.float32), labels)


def test_a_head_is_named_by_its_own_labels_or_the_published_ones() -> None:
    assert labels_of(head_with(2, ("fast", "slow"))) == ("fast", "slow")
    assert labels_of(head_with(150)) == SPECS["12lead"].labels()
    own = tuple(f"class {number}" for number in range(150))
    assert labels_of(head_with(150, own)) == own
    assert labels_of(head_with(2)) is None
    assert labels_of(None) is None


def test_predictions_need_names_that_are_not_those_of_other_columns() -> None:
    assert diagnostic_head(head_with(2, ("fast", "slow"))).n_classes == 2
    assert diagnostic_head(head_with(150)).labels is None
    with pytest.raises(CheckpointError, match="this one has a head of 2 classes without names"):
        diagnostic_head(head_with(2))
    with pytest.raises(CheckpointError, match="this one has no head"):
        diagnostic_head(None)
    with pytest.raises(CheckpointError, match="names a class 'lead', as a column"):
        diagnostic_head(head_with(2, ("fast", "lead")))


def test_the_cache_keeps_a_heads_labels() -> None:
    for labels in (("fast", "Blöck \u2192"), None):
        parts = {name: part.reshape(-1).view(np.uint8) for name, part in head_parts(head_with(2, labels)).items()}
        found = head_of_parts(parts)
        assert found is not None
        assert found.labels == labels
