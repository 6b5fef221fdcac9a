"""Sizes are unbiased, with intervals that cover; p-values are uniform where there is nothing to find, of whole patients."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from ecgfounder.analysis.acquisition.discrepancy import (
    Sums,
    between_patients,
    drawn_sizes,
    strata_of_counts,
    within_patients,
    within_shift2,
)
from ecgfounder.analysis.acquisition.fourier import Fourier
from ecgfounder.analysis.statistics.intervals import interval
from tests.builders.sites import features_of
from tests.harness.drift import null_p_values, null_test


def study(seed: int, apart: float = 0.0, n_patients: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), rng.choice((1, 2, 4), n_patients))
    level = rng.integers(2, size=n_patients)[patient]
    X = features_of(rng, patient, apart * level, 0 * level, 0.6)
    return X.astype(np.float32), patient, level


def test_sizes_are_those_of_all_pairs_of_different_patients() -> None:
    X, patient, level = study(0, 1.0, n_patients=20)
    level = np.random.default_rng(0).integers(3, size=len(patient))  # which varies within patients
    sizes = Sums.of(X, patient, level, 3).sizes()
    others = patient[:, None] != patient[None, :]
    centred = X.astype(float) - X.mean(axis=0)
    products = centred @ centred.T
    for each in range(3):
        inside = level == each
        means = [
            products[np.ix_(a, b)][others[np.ix_(a, b)]].mean()
            for a, b in ((inside, inside), (~inside, ~inside), (inside, ~inside))
        ]
        assert sizes.mmd2[0, each] == pytest.approx(means[0] + means[1] - 2 * means[2], abs=1e-4)
        assert sizes.shares[0, each] == pytest.approx(inside.mean())
    distances = ((X[:, None] - X[None]).astype(float) ** 2).sum(axis=2)
    typical = (np.diag(products).mean() - products[others].mean()) * 2
    assert 2 * sizes.variance[0] == pytest.approx(typical, rel=1e-5)
    assert typical == pytest.approx(distances[others].mean(), rel=0.05)


def test_without_a_difference_they_are_zero_on_average_and_with_one_what_it_is() -> None:
    found = {apart: [] for apart in (0.0, 1.0)}  # type: dict[float, list[float]]
    for apart, values in found.items():
        for seed in range(60):
            values.append(float(Sums.of(*study(seed, apart), 2).sizes().mmd2[0, 0]))
    for apart, values in found.items():
        error = np.std(values) / np.sqrt(len(values))
        assert abs(np.mean(values) - apart**2) < 4 * error
        assert error < 0.1


def test_intervals_of_sizes_cover_them() -> None:
    inside = []
    for seed in range(100):
        sums = Sums.of(*study(seed, 1.5), 2)
        drawn = drawn_sizes(sums, 100, np.random.default_rng(seed)).mmd2[:, 0]
        estimate = interval(float(sums.sizes().mmd2[0, 0]), drawn, "normal")
        inside.append(estimate.low <= 1.5**2 <= estimate.high)
    assert 0.87 <= np.mean(inside) <= 1


def test_the_share_between_levels_is_that_of_an_analysis_of_variance() -> None:
    rng = np.random.default_rng(0)
    level = np.repeat([0, 1, 2], [2000, 3000, 5000])
    X = rng.standard_normal((10_000, 2)).astype(np.float32)
    X[:, 0] += level
    means = np.array([X[level == each].mean(axis=0) for each in range(3)])[level]
    expected = ((means - X.mean(axis=0)) ** 2).sum() / ((X - X.mean(axis=0)) ** 2).sum()
    assert Sums.of(X, np.arange(10_000), level, 3).sizes().between[0] == pytest.approx(expected, rel=2e-3)


# --- permutations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("per_patient", [(4,), (2, 3, 6)])
def test_p_values_are_uniform_where_there_is_nothing_to_find(within: bool, per_patient: tuple[int, ...]) -> None:
    p = null_p_values(300, within=within, per_patient=per_patient, n_permutations=99)
    assert 0.02 <= (p <= 0.05).mean() <= 0.09
    # p takes steps of 1 / 100; with half a step at random it is continuous.
    smooth = p - np.random.default_rng(0).random(len(p)) / 100
    assert scipy.stats.kstest(smooth, "uniform").pvalue > 0.001


def test_patients_keep_the_level_where_permuted_recordings_find_what_is_not_there() -> None:
    design = {"n_patients": 60, "per_patient": (4,), "intraclass": 0.6, "n_features": 100}
    assert (null_p_values(200, **design) <= 0.05).mean() <= 0.1
    assert (null_p_values(60, permute_recordings=True, **design) <= 0.05).mean() >= 0.95


@pytest.mark.slow
def test_p_values_are_uniform_in_thousands_of_simulations() -> None:
    for within in (False, True):
        p = null_p_values(4000, within=within, per_patient=(1, 2, 4), n_permutations=199)
        for level in (0.01, 0.05, 0.1, 0.5):
            assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / len(p))


def test_what_is_there_is_found_between_and_within_patients() -> None:
    assert null_test(0, of_level=1.5).p_value == 0.01
    assert null_test(0, of_level=1.5, within=True).p_value == 0.01


def test_a_p_value_counts_the_real_levels_too() -> None:
    found = null_test(1, of_level=0.3, n_permutations=19)
    b = int((found.permuted >= found.statistic).sum())
    assert found.p_value == (1 + b) / 20
    assert len(found.permuted) == 19


def test_in_parts_permutations_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for within in (False, True):
        whole = null_test(3, within=within)
        monkeypatch.setattr("ecgfounder.analysis.acquisition.discrepancy._BYTES_AT_ONCE", 1)
        parts = null_test(3, within=within)
        monkeypatch.undo()
        np.testing.assert_allclose(whole.permuted, parts.permuted, rtol=1e-4, atol=1e-6)


def test_strata_are_patients_with_about_as_many_recordings() -> None:
    counts = np.array([1] * 30 + [2] * 15 + [3] * 10 + [7] * 3, float)
    strata = strata_of_counts(counts)
    assert [sorted(set(counts[each])) for each in strata] == [[1], [2, 3, 7]]
    assert sorted(np.concatenate(strata).tolist()) == list(range(58))
    assert len(strata_of_counts(np.ones(3))) == 1


def test_within_a_patient_a_difference_is_free_of_what_patients_are() -> None:
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(200), 4)
    inside = np.tile([True, True, False, False], 200)
    X = 3 * rng.standard_normal((200, 6))[patient] + 0.3 * rng.standard_normal((800, 6))
    X[inside, 0] += 0.5
    found, n = within_shift2(X.astype(np.float32), patient, inside, 200, rng)
    estimate = interval(float(found[0]), found[1:], "normal")
    assert n == 200
    assert estimate.low < 0.25 < estimate.high
    assert estimate.high - estimate.low < 0.15
    none, n = within_shift2(X.astype(np.float32), patient, patient < 100, 3, rng)
    assert n == 0
    assert np.isnan(none).all()


# --- the kernel --------------------------------------------------------------------------------------------------------


def test_fourier_features_are_a_gaussian_kernel_of_standardised_features() -> None:
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((300, 4)) * [1, 10, 0.1, 3] + [5, -3, 0, 100]).astype(np.float32)
    made = Fourier.of(X, np.arange(300), 4000, rng).features(X)
    Z = (X - X.mean(axis=0)) / X.std(axis=0)
    distances = ((Z[:, None] - Z[None]) ** 2).sum(axis=2)
    width = np.median(distances[np.triu_indices(300, 1)])
    np.testing.assert_allclose(made @ made.T, np.exp(-distances / (2 * width)), atol=0.08)
    np.testing.assert_allclose((made**2).sum(axis=1), 1, rtol=1e-5)


def test_a_difference_of_spread_alone_is_found() -> None:
    """Both levels have the same mean; a linear statistic would not see it."""
    rng = np.random.default_rng(0)
    patient, level = np.arange(300), np.repeat([0, 1], 150)
    X = (rng.standard_normal((300, 3)) * (1 + 2 * level[:, None])).astype(np.float32)
    kernel = Fourier.of(X, patient, 256, rng).features(X)
    assert between_patients(kernel, patient, level, 2, 99, rng).p_value == 0.01


def test_constant_features_have_a_map_too() -> None:
    X = np.ones((20, 3), np.float32)
    made = Fourier.of(X, np.arange(20), 8, np.random.default_rng(0)).features(X)
    assert np.isfinite(made).all()
    level = np.arange(20) % 2
    found = within_patients(made, np.arange(20) // 4, level, 2, 9, np.random.default_rng(0))
    assert found.p_value == 1
