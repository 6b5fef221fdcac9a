"""Filters in C and SciPy's: the same numbers."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from scipy.signal import butter, filtfilt, iirnotch

from ecgfounder.preprocess import recipes
from ecgfounder.preprocess.recipes import FILTERED, PAPER, Butterworth, Notch, running_median

pytestmark = pytest.mark.skipif(recipes._filters is None, reason="the module in C was not built")

SAME_ORDER = platform.machine() in ("x86_64", "AMD64")
"""Elsewhere SciPy may be compiled with fused multiplication and addition, which rounds once."""


def check_equal(found: np.ndarray, expected: np.ndarray) -> None:
    if SAME_ORDER:
        np.testing.assert_array_equal(found, expected)
    else:
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_leads", [1, 3, 4, 5, 12])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 8, 9])
@pytest.mark.parametrize(("kind", "cutoffs"), [("highpass", (0.5,)), ("lowpass", (40.0,)), ("bandpass", (0.67, 40.0))])
def test_butterworth_filters_are_those_of_scipy(
    kind: str, cutoffs: tuple[float, ...], order: int, n_leads: int
) -> None:
    samples = np.cumsum(np.random.default_rng(order).standard_normal((n_leads, 700)), axis=1)
    b, a = butter(order, cutoffs if len(cutoffs) > 1 else cutoffs[0], kind, fs=500)
    before = samples.copy()
    check_equal(Butterworth(kind, cutoffs, order).apply(samples, 500.0), filtfilt(b, a, samples))  # type: ignore[arg-type]
    np.testing.assert_array_equal(samples, before)


@given(n=st.integers(10, 900), columns=st.booleans(), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_notches_are_those_of_scipy_at_any_length_and_in_any_layout(n: int, columns: bool, seed: int) -> None:
    samples = np.random.default_rng(seed).standard_normal((6, n)) * 10.0 ** np.arange(-3, 3)[:, None]
    samples = np.asfortranarray(samples) if columns else samples[::2, : n - 1 if n > 10 else n]
    check_equal(Notch(50.0).apply(samples, 500.0), filtfilt(*iirnotch(50.0, 30.0, 500.0), samples))


@pytest.mark.parametrize("recipe", [FILTERED, PAPER], ids=lambda recipe: recipe.name)
def test_recipes_are_the_same_without_the_module_in_c(recipe: recipes.Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.cumsum(np.random.default_rng(1).standard_normal((12, 5000)), axis=1).astype(np.float32) / 50
    compiled = recipe.filtered(samples)
    monkeypatch.setattr(recipes, "_filters", None)
    check_equal(compiled, recipe.filtered(samples))


@st.composite
def rows(draw: st.DrawFn) -> np.ndarray:
    """Rows with ties, steps, tiny differences around a large offset, or huge and infinite values."""
    n = draw(st.integers(1, 300) | st.integers(4090, 4100) | st.just(8300))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    values = rng.standard_normal((2, n))
    kind = draw(st.sampled_from(["plain", "ties", "offset", "huge", "steps"]))
    if kind == "ties":
        values = np.round(values * draw(st.integers(0, 5)))
    elif kind == "offset":
        values = 1.0 + values * 1e-12
    elif kind == "huge":
        values = np.where(rng.random((2, n)) < 0.1, np.inf, values * 1e300) * rng.choice([1.0, -1.0], (2, n))
    elif kind == "steps":
        values = np.sort(values, axis=1)[:, :: draw(st.sampled_from([1, -1]))]
    return values


@given(rows(), st.integers(0, 260))
@settings(deadline=None, max_examples=150)
def test_running_medians_are_those_of_scipy(values: np.ndarray, half: int) -> None:
    size = 2 * half + 1
    expected = np.stack([median_filter(row, size=size, mode="constant", cval=0.0) for row in values])
    np.testing.assert_array_equal(running_median(values, size), expected)


def test_rows_with_nan_are_left_to_scipy() -> None:
    values = np.zeros((1, 50))
    values[0, 20] = np.nan
    assert not recipes._filters.running_median(values, 1, 5, np.empty_like(values))
    assert running_median(values, 5).shape == values.shape


def test_arguments_that_do_not_fit_together_are_refused() -> None:
    module, samples, out = recipes._filters, np.zeros((2, 40)), np.zeros((2, 40))
    b, a, states = np.ones(3), np.array([1.0, 0.5, 0.25]), np.zeros(2)
    for wrong in (
        (b, a[:2], states, 9, samples, 2, out),
        (b, a, states[:1], 9, samples, 2, out),
        (b, a * 2, states, 9, samples, 2, out),
        (b, a, states, 40, samples, 2, out),
        (b, a, states, -1, samples, 2, out),
        (b, a, states, 9, samples, 3, out),
        (b, a, states, 9, samples, 0, out),
        (b, a, states, 9, samples, 2, out[:1]),
        (np.ones(40), np.ones(40), np.zeros(39), 9, samples, 2, out),
    ):
        with pytest.raises(ValueError, match=r"are needed|must be"):
            module.forwards_and_backwards(*wrong)
    for n_rows, size in ((2, 4), (2, 0), (2, -3), (0, 3), (3, 3)):
        with pytest.raises(ValueError, match="must be"):
            module.running_median(samples, n_rows, size, out)
    with pytest.raises(ValueError, match="must be"):
        module.running_median(samples, 2, 3, out[:1])
