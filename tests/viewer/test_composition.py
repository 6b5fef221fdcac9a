"""How a selection differs from the rest: intervals that cover, distances as SciPy has them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from ecgfounder.viewer import composition as module
from ecgfounder.viewer.composition import difference


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Newcombe 1998, table II, method 10
        ((56, 70, 48, 80), (0.0524, 0.3339)),
        ((9, 10, 3, 10), (0.1705, 0.8090)),
        ((5, 56, 0, 29), (-0.0381, 0.1926)),
        ((0, 10, 0, 10), (-0.2775, 0.2775)),
        ((10, 10, 0, 10), (0.6075, 1.0)),
    ],
)
def test_the_interval_is_newcombes(counts: tuple[int, int, int, int], expected: tuple[float, float]) -> None:
    share, low, high = difference(*counts)
    assert np.isclose(share, counts[0] / counts[1] - counts[2] / counts[3])
    assert np.allclose((low, high), expected, atol=6e-5)


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.binomial(40, 0.2, 4000), rng.binomial(300, 0.1, 4000)
    found = [difference(int(a), 40, int(b), 300) for a, b in zip(one, other, strict=True)]
    assert 0.94 < np.mean([low <= 0.1 <= high for _, low, high in found]) < 0.975


def test_distances_are_scipys() -> None:
    rng = np.random.default_rng(1)
    for one, other in ((rng.random(50), rng.random(80) + 0.3), (rng.integers(0, 3, 40), rng.integers(1, 4, 30))):
        assert np.isclose(module._distance(one, other), ks_2samp(one, other).statistic)
    assert module._distance(np.array([]), np.array([1.0])) == 0


def test_nothing_or_all_selected_is_no_error() -> None:
    assert difference(0, 0, 3, 10) == (0.0, -1.0, 1.0)
    assert difference(3, 10, 0, 0) == (0.0, -1.0, 1.0)
