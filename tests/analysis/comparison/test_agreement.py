"""Statistics of agreement are right where the truth is known: equal, rotated, independent and partly changed embeddings."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from ecgfounder.analysis.comparison.agreement import (
    Exchange,
    Figure,
    Kernels,
    cka_figure,
    cosines,
    distances,
    exchanged_overlaps,
    mean_figures,
    means_within,
    nearest,
    overlaps,
    quantile_figure,
    spread,
)
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def of_groups(rng: np.random.Generator, groups: Numbers, d: int) -> Floats:
    """Embeddings of which four fifths of the variance are their group's."""
    shared = rng.standard_normal((int(groups.max()) + 1, d))[groups]
    return (shared + 0.5 * rng.standard_normal((len(groups), d))).astype(np.float32)


def rotation(d: int) -> Floats:
    return np.linalg.qr(normal(9, d, d))[0].astype(np.float32)


def by_itself(n: int) -> Numbers:
    return np.arange(n)


def hsic_of_quadruples(K: Doubles, L: Doubles) -> float:
    """The unbiased HSIC as the mean over all ordered quadruples of different recordings."""
    terms = [K[i, j] * (L[i, j] + L[q, r] - 2 * L[i, q]) for i, j, q, r in permutations(range(len(K)), 4)]
    return float(np.mean(terms))


def test_cka_is_that_of_its_definition() -> None:
    X, Y = normal(1, 8, 3), normal(2, 8, 5)
    K, L = (each.astype(np.float64) @ each.T for each in (X, Y))
    expected = hsic_of_quadruples(K, L) / np.sqrt(hsic_of_quadruples(K, K) * hsic_of_quadruples(L, L))
    assert Kernels.of(X, Y).cka()[0] == pytest.approx(expected, rel=1e-6)


def test_cka_of_chosen_recordings_is_that_of_their_own_kernels() -> None:
    kernels = Kernels.of(normal(1, 40, 6), normal(2, 40, 6))
    chosen = np.random.default_rng(0).random((40, 3)) < 0.5
    apart = [kernels.part(np.flatnonzero(chosen[:, column])).cka()[0] for column in range(3)]
    assert kernels.cka(chosen) == pytest.approx(apart, rel=1e-9)


def test_equal_embeddings_agree_completely() -> None:
    X = normal(1, 60, 8)
    near = nearest(X, by_itself(60), 5)
    assert cosines(X, X) == pytest.approx(1)
    assert Kernels.of(X, X).cka()[0] == pytest.approx(1)
    assert overlaps(near, near).tolist() == [1] * 60
    assert distances(X, X).tolist() == [0] * 60


def test_rotated_scaled_and_shifted_embeddings_keep_cka_and_neighbours_but_not_their_cosine() -> None:
    X = normal(1, 200, 40)
    Y = 3 * X @ rotation(40) + 1
    assert Kernels.of(X, Y).cka()[0] == pytest.approx(1, abs=1e-5)
    assert overlaps(nearest(X, by_itself(200), 5), nearest(Y, by_itself(200), 5)).mean() > 0.99
    assert abs(cosines(X, Y).mean()) < 0.1


def test_independent_embeddings_have_the_reference_of_each_statistic() -> None:
    n, d, k = 60, 300, 5
    pairs = [(normal(seed, n, d), normal(seed + 100, n, d)) for seed in range(20)]
    assert np.mean([Kernels.of(X, Y).cka()[0] for X, Y in pairs]) == pytest.approx(0, abs=0.02)
    found = [overlaps(nearest(X, by_itself(n), k), nearest(Y, by_itself(n), k)).mean() for X, Y in pairs]
    assert np.mean(found) == pytest.approx(k / (n - 1), abs=0.02)
    assert np.mean([cosines(X, Y).mean() for X, Y in pairs]) == pytest.approx(0, abs=0.01)


def test_a_zero_embedding_has_no_cosine() -> None:
    X = normal(1, 3, 4)
    X[1] = 0
    assert np.isnan(cosines(X, normal(2, 3, 4))).tolist() == [False, True, False]


def test_neighbours_are_the_nearest_of_other_groups() -> None:
    groups = np.repeat(np.arange(20), 3)
    X = of_groups(np.random.default_rng(0), groups, 6)
    near = nearest(X, groups, 4)
    assert (groups[near] != groups[:, None]).all()
    centred = (X - X.mean(axis=0)).astype(np.float64)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    similar = np.where(groups[:, None] == groups, -2, unit @ unit.T)
    assert [set(row) for row in near] == [set(np.argsort(-row)[:4]) for row in similar]


def test_a_known_part_of_the_neighbours_is_found() -> None:
    a = np.array([[1, 2, 3, 4], [0, 2, 3, 4]])
    b = np.array([[4, 3, 8, 9], [5, 6, 7, 8]])
    assert overlaps(a, b).tolist() == [0.5, 0]


def test_the_spread_is_the_typical_distance_of_two_recordings() -> None:
    X = normal(3, 30, 5)
    squares = [((X[i] - X[j]) ** 2).sum() for i in range(30) for j in range(30) if i != j]
    assert spread(X) == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-5)
    assert np.isnan(spread(X[:1]))


# --- permutations and draws --------------------------------------------------------------------------------------------


def test_whole_groups_are_exchanged_with_groups_of_their_size() -> None:
    groups = np.array([7, 7, 1, 2, 3, 3, 4, 5, 5, 5, 6])
    exchange = Exchange(groups)
    assert exchange.rows.tolist() == [0, 1, 2, 3, 4, 5, 6, 10]  # no other group has three recordings
    for partner in exchange.partners(20, 0):
        assert (partner[[7, 8, 9]] == -1).all()
        assert sorted(partner[exchange.rows]) == exchange.rows.tolist()
        assert (groups[partner[exchange.rows]] != groups[exchange.rows]).all()
        for group in (7, 3):
            assert len(set(groups[partner[groups == group]])) == 1


def test_groups_without_a_counterpart_have_no_reference() -> None:
    exchange = Exchange(np.array([0, 0, 1]))
    assert not len(exchange.rows)
    assert not len(Kernels.of(normal(1, 3, 2), normal(2, 3, 2)).permuted(exchange, exchange.partners(5, 0)))
    assert Figure(0.5).against(np.full(3, np.nan)) == Figure(0.5)


def test_permuted_cka_is_the_cka_of_permuted_recordings() -> None:
    X, Y = normal(1, 30, 5), normal(2, 30, 5)
    exchange = Exchange(by_itself(30))
    found = Kernels.of(X, Y).permuted(exchange, exchange.partners(3, 0))
    expected = [Kernels.of(X, Y[partner]).cka()[0] for partner in exchange.partners(3, 0)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_exchanged_overlaps_are_those_of_permuted_embeddings() -> None:
    X, Y = normal(1, 50, 4), normal(2, 50, 4)
    groups = by_itself(50)
    (partner,) = Exchange(groups).partners(1, 0)
    near = nearest(X, groups, 5), nearest(Y, groups, 5)
    expected = overlaps(near[0], nearest(Y[partner], groups, 5))
    assert exchanged_overlaps(*near, partner).tolist() == expected.tolist()


def test_permuting_groups_keeps_a_true_null_where_permuting_recordings_does_not() -> None:
    groups = np.repeat(np.arange(20), 4)
    rng = np.random.default_rng(5)
    inside = {"groups": 0, "recordings": 0}
    for number in range(20):
        kernels = Kernels.of(of_groups(rng, groups, 5), of_groups(rng, groups, 5))
        for name, exchanged in (("groups", groups), ("recordings", by_itself(80))):
            exchange = Exchange(exchanged)
            figure = Figure(float(kernels.cka()[0])).against(kernels.permuted(exchange, exchange.partners(60, number)))
            inside[name] += figure.reference_low <= figure.value <= figure.reference_high
    assert inside["groups"] >= 15
    assert inside["recordings"] <= 6


def test_intervals_cover_the_mean_if_groups_are_drawn_and_not_if_recordings_are() -> None:
    groups = np.repeat(np.arange(30), 4)
    rng = np.random.default_rng(6)
    covered = {"groups": 0, "recordings": 0}
    for number in range(60):
        values = of_groups(rng, groups, 1).astype(np.float64)
        for name, drawn in (("groups", groups), ("recordings", by_itself(120))):
            (figure,) = mean_figures(values, drawn, 40, number)
            covered[name] += figure.low <= 0 <= figure.high
    assert covered["groups"] >= 50
    assert covered["recordings"] <= 48


def test_the_interval_of_cka_is_as_wide_as_its_chance() -> None:
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(40), 2)
    values, widths = [], []
    for number in range(60):
        X = of_groups(rng, groups, 8)
        figure = cka_figure(Kernels.of(X, X + of_groups(rng, groups, 8)), groups, 60, number)
        values.append(figure.value)
        widths.append((figure.high - figure.low) / (2 * 1.96))
        assert (figure.n_recordings, figure.n_groups) == (80, 40)
    assert np.mean(widths) == pytest.approx(np.std(values, ddof=1), rel=0.35)


def test_the_interval_of_a_quantile_covers_it() -> None:
    rng = np.random.default_rng(8)
    figures = [quantile_figure(rng.standard_normal(200), 0.5, by_itself(200), 100, number) for number in range(50)]
    assert 42 <= sum(each.low <= 0 <= each.high for each in figures) <= 50


def test_values_that_do_not_differ_have_no_interval_and_missing_ones_are_left_out() -> None:
    values = np.array([[1.0, 2.0], [1.0, np.nan], [1.0, 4.0], [1.0, 6.0]])
    same, different = mean_figures(values, by_itself(4), 50, 0)
    assert (same.value, same.n_recordings) == (1, 4)
    assert np.isnan(same.low)
    assert (different.value, different.n_recordings, different.n_groups) == (4, 3, 3)
    assert 2 <= different.low < 4 < different.high <= 6
    assert quantile_figure(values[:, 1], 0.5, by_itself(4), 50, 0).value == 4
    assert np.isnan(quantile_figure(np.array([np.nan]), 0.5, by_itself(1), 50, 0).value)
    assert np.isnan(mean_figures(values, np.zeros(4, np.int64), 50, 0)[1].low)


def test_the_reference_of_a_part_is_the_mean_over_its_recordings() -> None:
    permuted = np.array([[1.0, 2.0, np.nan], [3.0, 5.0, 7.0]])
    assert means_within(permuted, np.array([False, True, True])).tolist() == [2, 6]
