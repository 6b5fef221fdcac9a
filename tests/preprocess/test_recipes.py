"""What each recipe does, against published figures and against SciPy step by step; and recipes of one's own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import PrepareError, SettingsError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import (
    FILTERED,
    PAPER,
    RECIPES,
    ZSCORE,
    Butterworth,
    MedianBaseline,
    Notch,
    Recipe,
    running_median,
)
from ecgfounder.preprocess.signals import prepare
from tests.places import SHARED

GOLDEN = SHARED / "golden" / "sierra.npz"


def recording(n_samples: int = 5000, seed: int = 0) -> Recording:
    samples = np.random.default_rng(seed).standard_normal((12, n_samples)).astype(np.float32)
    return Recording(samples, 500.0, STANDARD_LEADS, "test")


def zscore(samples: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    x = np.asarray(samples, dtype=np.float64)
    out: npt.NDArray[np.float64] = (x - x.mean()) / (x.std() + 1e-8)
    return out


def published_chain(lead: npt.NDArray[Any], rate: float = 500.0) -> npt.NDArray[np.float64]:
    """The chain of recipe 'filtered' for one lead, written out with SciPy's own functions."""
    x = scipy_signal.filtfilt(*scipy_signal.iirnotch(50, 30, rate), lead)
    x = scipy_signal.filtfilt(*scipy_signal.butter(4, [0.67, 40], "bandpass", fs=rate), x)
    size = int(0.4 * rate) + 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a kernel longer than the signal is what is tested
        out: npt.NDArray[np.float64] = x - scipy_signal.medfilt(x, size + 1 - size % 2)
    return out


# --- filtered --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.exists(), reason="needs ../shared/golden, which is not part of the repository")
@pytest.mark.parametrize("stem", ["129DYPRG", "3191723_ZZDEMOPTONLY_1-04_orig"])
def test_filtered_equals_the_golden_filter_chain(stem: str) -> None:
    with np.load(GOLDEN) as golden:
        counts, expected = golden[f"{stem}.samples"], golden[f"{stem}.filtered"].astype(np.float64)
    out = FILTERED.filtered(counts)
    # Where `filtfilt` begins is the solution of an ill-conditioned system: processors with other LAPACK kernels are 4e-7 apart.
    assert np.linalg.norm(out - expected) <= 1e-6 * np.linalg.norm(expected)
    millivolt = Recording((counts * 0.005).astype(np.float32), 500.0, STANDARD_LEADS, "test")
    network_input = prepare(millivolt, Preparation(recipe=FILTERED)).inputs[0]
    assert np.linalg.norm(network_input - zscore(expected)) <= 1e-5 * np.linalg.norm(zscore(expected))


@pytest.mark.parametrize("n_samples", [28, 100, 201, 5000, 5500])
def test_filtered_is_the_published_chain_of_scipy_functions_at_any_length(n_samples: int) -> None:
    ecg = recording(n_samples)
    expected = np.stack([published_chain(lead) for lead in ecg.samples.astype(np.float64)])
    np.testing.assert_allclose(FILTERED.filtered(ecg.samples), expected, rtol=0, atol=1e-12)
    network_input = prepare(ecg, Preparation(recipe=FILTERED)).inputs[0]
    np.testing.assert_allclose(network_input, zscore(expected), rtol=0, atol=1e-5)


def test_a_recording_too_short_to_filter_fails_with_that_reason() -> None:
    with pytest.raises(PrepareError, match=r"0\.054 s are too short: recipe 'filtered' needs 0\.056 s"):
        prepare(recording(27), Preparation(recipe=FILTERED))
    assert prepare(recording(28), Preparation(recipe=FILTERED)).inputs[0].shape == (12, 28)


@given(n=st.integers(1, 600), size=st.integers(1, 301), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_the_running_median_is_the_median_of_the_zero_padded_neighbourhood(n: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal((2, n)) * 5) / 5  # with ties
    odd = size + 1 - size % 2
    padded = np.pad(x, ((0, 0), (odd // 2, odd // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, odd, axis=1)
    np.testing.assert_array_equal(running_median(x, size), np.median(windows, axis=-1))


# --- zscore and paper ------------------------------------------------------------------------------------------------


def test_zscore_filters_nothing_and_normalises_in_float64() -> None:
    ecg = recording()
    assert ZSCORE.filters == ()
    offset = Recording(ecg.samples + np.float32(4096), 500.0, STANDARD_LEADS, "test")  # float32 sums would lose digits
    np.testing.assert_allclose(prepare(offset, Preparation()).inputs[0], zscore(offset.samples), rtol=0, atol=1e-6)


def test_zscore_adds_its_epsilon_to_the_standard_deviation() -> None:
    samples = recording().samples * np.float32(1e-8)
    ecg = Recording(samples, 500.0, STANDARD_LEADS, "test")
    spread = prepare(ecg, Preparation()).inputs[0].std()
    assert spread == pytest.approx(0.5, abs=0.01)


def test_paper_filters_the_recording_then_cuts_pads_and_normalises_each_window() -> None:
    ecg = recording(7500)
    x = ecg.samples.astype(np.float64)
    for coefficients in (
        scipy_signal.butter(2, 0.5, "highpass", fs=500),
        scipy_signal.butter(2, 50, "lowpass", fs=500),
        scipy_signal.iirnotch(50, 30, 500),
        scipy_signal.iirnotch(60, 30, 500),
    ):
        x = scipy_signal.filtfilt(*coefficients, x, axis=-1)
    signal = prepare(ecg, Preparation(recipe=PAPER))
    assert (signal.outer_shape, signal.starts) == ((2,), (0.0, 10.0))
    np.testing.assert_allclose(signal.inputs[0], zscore(x[:, :5000]), rtol=0, atol=1e-5)
    np.testing.assert_allclose(signal.inputs[1], zscore(np.pad(x[:, 5000:], ((0, 0), (0, 2500)))), rtol=0, atol=1e-5)
    assert "zero_padded:5" in signal.flags


@pytest.mark.parametrize(
    ("recipe", "frequency", "passes"),
    [
        (FILTERED, 0.2, False),
        (FILTERED, 10.0, True),
        (FILTERED, 50.0, False),
        (FILTERED, 100.0, False),
        (PAPER, 0.1, False),
        (PAPER, 10.0, True),
        (PAPER, 50.0, False),
        (PAPER, 60.0, False),
        (PAPER, 150.0, False),
        (ZSCORE, 50.0, True),
    ],
)
def test_recipes_pass_the_ecg_band_and_stop_wander_and_mains(recipe: Recipe, frequency: float, passes: bool) -> None:
    wave = np.sin(2 * np.pi * frequency * np.arange(15_000) / 500)[np.newaxis]
    amplitude = np.abs(recipe.filtered(wave)[0, 5000:10_000]).max()
    assert (amplitude > 0.8) if passes else (amplitude < 0.2)


# --- recipes as objects ----------------------------------------------------------------------------------------------


def test_recipes_are_found_by_name_and_every_definition_is_distinct() -> None:
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {
        name: name for name in ("zscore", "filtered", "paper")
    }
    definitions = [repr(recipe.definition()) for recipe in RECIPES.values()]
    assert len(set(definitions)) == 3


def test_a_definition_holds_every_parameter_of_every_step() -> None:
    assert FILTERED.definition() == {
        "name": "filtered",
        "version": "1",
        "filters": [
            {"filter": "notch", "frequency": 50.0, "quality": 30.0},
            {"filter": "butterworth", "kind": "bandpass", "cutoffs": [0.67, 40.0], "order": 4},
            {"filter": "median_baseline", "seconds": 0.4},
        ],
        "filter_scope": "window",
        "normalization": "zscore",
        "sampling_rate": 500.0,
    }


class Gain:
    """A filter as a user would write it."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def definition(self) -> dict[str, Any]:
        return {"filter": "gain", "factor": self.factor}

    def minimum_samples(self, sampling_rate: float) -> int:
        return 1

    def apply(self, samples: npt.NDArray[np.float64], sampling_rate: float) -> npt.NDArray[np.float64]:
        return samples * self.factor


def test_a_recipe_of_ones_own_is_applied_and_lands_in_the_fingerprint() -> None:
    ecg = recording()
    recipe = Recipe("gain", "3", filters=(Gain(2.0),), normalization="none")
    np.testing.assert_array_equal(prepare(ecg, Preparation(recipe=recipe)).inputs[0], ecg.samples * 2)
    fingerprint = Preparation(recipe=recipe).fingerprint()["recipe"]
    assert fingerprint["filters"] == [{"filter": "gain", "factor": 2.0}]
    assert fingerprint["version"] == "3"


def test_a_z_score_per_lead_is_a_choice() -> None:
    ecg = recording()
    recipe = Recipe("per-lead", "1", normalization="zscore_per_lead")
    out = prepare(ecg, Preparation(recipe=recipe)).inputs[0]
    np.testing.assert_allclose(out, np.stack([zscore(lead) for lead in ecg.samples]), rtol=0, atol=1e-6)


def test_a_recipe_with_another_rate_gives_inputs_at_that_rate() -> None:
    recipe = Recipe("slow", "1", normalization="none", sampling_rate=250.0)
    signal = prepare(recording(), Preparation(recipe=recipe, window=4, stride=4))
    assert signal.sampling_rate == 250.0
    assert [x.shape for x in signal.inputs] == [(12, 1000), (12, 1000)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normalization": "minmax"}, "Allowed values are 'zscore', 'zscore_per_lead' and 'none', but got 'minmax'"),
        ({"filter_scope": "x"}, "Allowed values are 'window' and 'recording', but got 'x' instead."),
        ({"filters": (abs,)}, "definition, minimum_samples and apply"),
        ({"stride": 10.0}, "needs the 'window' parameter"),
        ({"sampling_rate": 0.0}, "at least 25 Hz"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Recipe("mine", "1", **arguments)
    assert message in str(caught.value)


def test_filters_do_not_change_their_input() -> None:
    x = np.random.default_rng(0).standard_normal((2, 400))
    before = x.copy()
    for step in (Notch(50.0), Butterworth("bandpass", (0.67, 40.0), 4), MedianBaseline(0.4)):
        step.apply(x, 500.0)
    np.testing.assert_array_equal(x, before)
