"""The threshold is exceeded by as many pairs of different patients as it says, where the truth is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.analysis.duplication.strangers import FEWEST, WIDE_OF_DUPLICATES, Strangers, fit
from ecgfounder.analysis.similarity.search import search_units
from ecgfounder.analysis.similarity.space import Space


def nearest(X: npt.NDArray[np.float64], groups: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.float32]:
    units = Space.of(X.astype(np.float32)).units(X)
    return search_units(units, 1, groups).similarity[:, 0]


@pytest.mark.parametrize("dimensions", [8, 25])
def test_as_many_pairs_are_above_the_threshold_as_are_expected(dimensions: int) -> None:
    counts = []
    for seed in range(6):
        found = nearest(np.random.default_rng(seed).standard_normal((2500, dimensions)))
        strangers = fit([found[::2]], [len(found)], len(found))
        assert strangers is not None
        assert strangers.dimensions == pytest.approx(dimensions, rel=0.3)
        counts.append([(found >= strangers.threshold(expected)).sum() / 2 for expected in (2, 20)])
    few, more = np.mean(counts, axis=0)  # a pair is the nearest of both, mostly
    assert 0.5 < few < 6
    assert 12 < more < 32


def test_duplicates_among_the_nearest_do_not_lower_the_threshold() -> None:
    found = nearest(np.random.default_rng(0).standard_normal((2000, 20)))
    clean = fit([found], [2000], 2000)
    found[::25] = 0.999
    with_some = fit([found], [2000], 2000)
    assert clean is not None
    assert with_some is not None
    assert clean.threshold(1) <= with_some.threshold(1) < 0.999


def test_where_none_is_known_a_fifth_may_be_duplicates() -> None:
    found = nearest(np.random.default_rng(0).standard_normal((2000, 20)))
    clean = fit([found], [2000], 2000)
    found[::5] = 0.999
    robust, other = fit([found], [2000], 2000, WIDE_OF_DUPLICATES), fit([found], [2000], 2000)
    assert clean is not None
    assert robust is not None
    assert other is not None
    assert clean.threshold(1) < robust.threshold(1) < 0.95
    assert other.threshold(1) > 0.99


def test_a_search_among_more_recordings_has_a_higher_threshold() -> None:
    rng = np.random.default_rng(1)
    small, large = nearest(rng.standard_normal((500, 20))), nearest(rng.standard_normal((4000, 20)))
    told, true = fit([small], [500], 4000), fit([large], [4000], 4000)
    assert told is not None
    assert true is not None
    assert told.threshold(1) == pytest.approx(true.threshold(1), abs=0.04)
    assert told.n == 4000


def test_threshold_and_expected_number_are_inverse() -> None:
    strangers = Strangers(1000, 0.4, 0.05)
    for pairs in (0.01, 1, 100):
        assert strangers.expected(np.array(strangers.threshold(pairs))) == pytest.approx(pairs)
    assert strangers.threshold(500) == 0
    assert Strangers(1000, 0.4, 3).threshold(1) == float("inf")


def test_without_enough_or_different_recordings_there_is_no_threshold() -> None:
    rng = np.random.default_rng(0)
    assert fit([rng.uniform(0, 1, FEWEST - 1)], [FEWEST - 1], FEWEST - 1) is None
    assert fit([np.ones(1000)], [1000], 1000) is None
    assert fit([np.full(1000, 0.5)], [1000], 1000) is None
    assert fit([np.full(1000, -np.inf)], [1000], 1000) is None
    assert fit([], [], 10) is None
