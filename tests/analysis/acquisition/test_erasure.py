"""LEACE leaves no covariance with the concept, by the least change, as it is defined; the random removal is as large."""

from __future__ import annotations

import numpy as np
import pytest

from ecgfounder.analysis.acquisition.erasure import Eraser, Erasers
from ecgfounder.analysis.statistics.solver import Doubles, Floats


def material(n: int = 400, d: int = 12, k: int = 3, seed: int = 0) -> tuple[Floats, Doubles]:
    """Correlated features of very different variance, and a concept of `k` levels that they know."""
    rng = np.random.default_rng(seed)
    level = rng.integers(k, size=n)
    mixing = rng.standard_normal((d, d)) * np.logspace(0, -2, d)
    X = rng.standard_normal((n, d)) @ mixing + rng.standard_normal((k, d))[level] * np.logspace(0, -2, d) + 5
    return X.astype(np.float32), (level[:, None] == np.arange(k)).astype(np.float64)


def cross_covariance(X: Floats, Z: Doubles) -> Doubles:
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    return centred.T @ (Z - Z.mean(axis=0)) / len(X)


def test_no_covariance_with_the_concept_is_left_in_the_training_part() -> None:
    X, Z = material()
    eraser = Erasers.of(X, Z, np.arange(len(X))).leace
    assert eraser.n_directions == 2  # three levels differ in two directions
    before, after = (np.abs(cross_covariance(each, Z)).max() for each in (X, eraser.features(X)))
    assert after < 1e-6 * before


def test_no_other_affine_map_that_does_it_changes_the_features_less() -> None:
    """All maps x - P (x - mean) without covariance have P C = C; they are LEACE's plus any N with N C = 0."""
    X, Z = material()
    eraser = Erasers.of(X, Z, np.arange(len(X))).leace
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    covariance, C = centred.T @ centred / len(X), cross_covariance(X, Z)
    own = (eraser.inward @ eraser.outward).T
    np.testing.assert_allclose(own @ C, C, atol=1e-6)

    def change(P: Doubles) -> float:
        return float(np.trace(P @ covariance @ P.T))

    left, sizes, _ = np.linalg.svd(C, full_matrices=False)
    span = left[:, sizes > 1e-10 * sizes[0]]
    assert change(span @ span.T) > 1.001 * change(own)  # the projection along the differences of means
    outside = np.eye(len(C)) - span @ span.T
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-2, 1.0):
        for _ in range(20):
            N = size * rng.standard_normal(C.shape[:1] * 2) @ outside
            assert change(own + N) >= change(own)
    assert eraser.removed == pytest.approx(change(own) / np.trace(covariance), rel=1e-6)


def test_it_is_the_closed_form_of_its_paper() -> None:
    X, Z = material(d=6)
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(X))
    W, W_inverse = (vectors @ np.diag(values**power) @ vectors.T for power in (-0.5, 0.5))
    WC = W @ cross_covariance(X, Z)
    P = WC @ np.linalg.pinv(WC)
    expected = X - centred @ (W_inverse @ P @ W).T
    np.testing.assert_allclose(Erasers.of(X, Z, np.arange(len(X))).leace.features(X), expected, atol=1e-4)


def test_what_the_other_recordings_are_has_no_part_in_it() -> None:
    X, Z = material()
    rows = np.arange(0, len(X), 2)
    changed = X.copy()
    changed[1::2] = 1e6
    first, second = (Erasers.of(each, Z, rows).leace for each in (X, changed))
    assert np.array_equal(first.inward, second.inward)
    assert np.array_equal(first.features(X), second.features(X))


def test_random_directions_are_as_many_of_equal_variance_and_leave_the_concept() -> None:
    X, Z = material(n=2000, d=60)
    erasers = Erasers.of(X, Z, np.arange(len(X)))
    leace = erasers.leace
    drawn = [erasers.random(np.random.default_rng(seed)) for seed in range(5)]
    for each in drawn:
        assert each.n_directions == leace.n_directions
        assert each.removed == pytest.approx(leace.removed, rel=0.02)
        # The concept's directions are whole: orthogonal where all variances are 1.
        left = cross_covariance(each.features(X), Z)
        np.testing.assert_allclose(left, cross_covariance(X, Z), atol=1e-5)
    assert not np.allclose(drawn[0].inward, drawn[1].inward)
    assert np.array_equal(drawn[0].inward, erasers.random(np.random.default_rng(0)).inward)


def test_a_variance_that_no_other_direction_has_is_approached() -> None:
    rng = np.random.default_rng(0)
    Z = np.repeat([[1.0, 0.0], [0.0, 1.0]], 200, axis=0)
    X = (0.1 * rng.standard_normal((400, 5))).astype(np.float32)
    X[:, 0] += 10 * Z[:, 0].astype(np.float32)
    erasers = Erasers.of(X, Z, np.arange(400))
    assert erasers.leace.removed > 0.99
    assert erasers.random(rng).removed < 0.01


@pytest.mark.parametrize("n_features", [1, 2])
def test_a_concept_in_all_directions_leaves_nothing_for_random_ones(n_features: int) -> None:
    X, Z = material(d=n_features)
    erasers = Erasers.of(X, Z, np.arange(len(X)))
    leace, other = erasers.leace, erasers.random(np.random.default_rng(0))
    assert leace.n_directions == n_features
    np.testing.assert_allclose(leace.features(X), np.broadcast_to(leace.mean, X.shape), rtol=1e-5)
    assert other.n_directions == 0
    assert np.array_equal(other.features(X), X)


def test_features_that_do_not_vary_and_a_constant_concept_do_no_harm() -> None:
    X, Z = material()
    X[:, 3] = 7
    eraser = Erasers.of(X, Z, np.arange(len(X))).leace
    assert np.isfinite(eraser.features(X)).all()
    np.testing.assert_allclose(eraser.features(X)[:, 3], 7, rtol=1e-6)
    constant: Eraser = Erasers.of(X, np.ones((len(X), 1)), np.arange(len(X))).leace
    assert constant.n_directions == 0
    assert np.array_equal(constant.features(X), X)
