"""What `prepare` promises: leads by name, exact lengths, windows that lose nothing, and clear refusals."""

from __future__ import annotations

import json
import math
import pickle
import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import PrepareError, SettingsError
from ecgfounder.preprocess import windows
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import FILTERED, PAPER, ZSCORE, Recipe
from ecgfounder.preprocess.resampling import resample
from ecgfounder.preprocess.signals import Signal, prepare, token_times

PLAIN = Recipe("plain", "1", normalization="none")
"""Windows and resampling as they are, without filter or normalisation."""


def recording(
    n_samples: int = 5000,
    sampling_rate: float = 500.0,
    leads: tuple[str, ...] = STANDARD_LEADS,
    seed: int = 0,
) -> Recording:
    samples = np.random.default_rng(seed).standard_normal((len(leads), n_samples)).astype(np.float32)
    return Recording(samples, sampling_rate, leads, "test")


def names(signal: Signal) -> set[str]:
    return {flag.partition(":")[0] for flag in signal.flags}


def expected_zscore(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    x = samples.astype(np.float64)
    return ((x - x.mean()) / (x.std() + 1e-8)).astype(np.float32)


# --- the default -----------------------------------------------------------------------------------------------------


def test_a_whole_recording_is_one_input_z_scored_over_all_leads_and_samples() -> None:
    ecg = recording(5500)
    signal = prepare(ecg, Preparation())
    assert (signal.outer_shape, signal.starts, signal.leads, signal.sampling_rate) == (
        (),
        (0.0,),
        STANDARD_LEADS,
        500.0,
    )
    (only,) = signal.inputs
    assert only.dtype == np.float32
    assert only.flags.c_contiguous
    np.testing.assert_allclose(only, expected_zscore(ecg.samples), rtol=0, atol=1e-6)


def test_the_unit_of_the_samples_does_not_change_the_input() -> None:
    ecg = recording()
    counts = Recording(ecg.samples * 200, 500.0, ecg.leads, "test")
    np.testing.assert_allclose(
        prepare(ecg, Preparation()).inputs[0], prepare(counts, Preparation()).inputs[0], rtol=0, atol=1e-5
    )


def test_preparing_leaves_the_recording_as_it_was() -> None:
    ecg = recording(7000)
    ecg.samples[3, 10] = np.nan
    before = ecg.samples.copy()
    for recipe in (ZSCORE, FILTERED, PAPER):
        list(prepare(ecg, Preparation(recipe=recipe, trim_zero_edges=True)).inputs)
    np.testing.assert_array_equal(ecg.samples, before)


def test_a_preparation_and_a_signal_survive_pickling() -> None:
    ecg = recording(12_000)
    for preparation in (
        Preparation(),
        Preparation(recipe=PAPER),
        Preparation(mode="1lead", lead="all", window=2, stride=1),
    ):
        again = pickle.loads(pickle.dumps(preparation))
        assert again == preparation
        signal = prepare(ecg, preparation)
        copied = pickle.loads(pickle.dumps(signal))
        for a, b in zip(signal.inputs, copied.inputs, strict=True):
            np.testing.assert_array_equal(a, b)


# --- leads -----------------------------------------------------------------------------------------------------------


def test_leads_go_in_by_name_whatever_their_order_in_the_file() -> None:
    ecg = recording()
    order = ["II", "vx", "V6", "aVF", "aVL", "I", "V1", "V2", "III", "V3", "aVR", "V4", "V5"]
    rows = np.stack([ecg.samples[STANDARD_LEADS.index(lead)] if lead != "vx" else ecg.samples[0] * 9 for lead in order])
    shuffled = Recording(rows, 500.0, tuple(order), "test")
    np.testing.assert_array_equal(prepare(shuffled, Preparation()).inputs[0], prepare(ecg, Preparation()).inputs[0])


def test_limb_leads_are_derived_from_I_and_II_and_flagged() -> None:
    ecg = recording(leads=("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"))
    signal = prepare(ecg, Preparation(recipe=PLAIN))
    assert "derived_leads:III,aVR,aVL,aVF" in signal.flags
    i, ii = ecg.samples[:2].astype(np.float64)
    for row, expected in ((2, ii - i), (3, -(i + ii) / 2), (4, i - ii / 2), (5, ii - i / 2)):
        np.testing.assert_allclose(signal.inputs[0][row], expected, rtol=0, atol=1e-6)
    assert "derived_leads" not in names(prepare(recording(), Preparation()))


@pytest.mark.parametrize("value", [0.0, math.nan])
def test_a_missing_lead_fails_by_name_and_zero_is_a_flagged_choice(value: float) -> None:
    ecg = recording()
    ecg.samples[[8, 10]] = value
    with pytest.raises(PrepareError, match=r"missing leads V3, V5: .*missing_leads='zero'"):
        prepare(ecg, Preparation())
    signal = prepare(ecg, Preparation(missing_leads="zero", recipe=PLAIN))
    assert "missing_leads:V3,V5" in signal.flags
    assert "nan_share" not in names(signal)
    assert not signal.inputs[0][[8, 10]].any()
    assert signal.inputs[0][9].any()


@pytest.mark.parametrize("recipe", [ZSCORE, FILTERED, Recipe("per_lead", "1", normalization="zscore_per_lead")])
@pytest.mark.parametrize("windows_", [{}, {"window": 2.0, "stride": 1.5, "remainder": "pad"}])
def test_a_missing_lead_is_zero_in_the_input_and_takes_no_part_in_the_normalisation(
    recipe: Recipe, windows_: dict[str, object]
) -> None:
    ecg = recording()
    ecg.samples[:] += 3.0  # a mean that would move the zeros
    ecg.samples[[2, 8]] = 0.0
    kept = [row for row in range(12) if row not in (2, 8)]
    settings_ = {"recipe": recipe, "missing_leads": "zero", **windows_}
    signal = prepare(
        Recording(ecg.samples[kept], 500.0, tuple(STANDARD_LEADS[row] for row in kept), "test"),
        Preparation(**settings_),
    )  # type: ignore[arg-type]
    assert "missing_leads:V3" in signal.flags
    for one in signal.inputs:
        assert not one[8].any()
        assert one[2].any()  # derived
        present = one[[row for row in range(12) if row != 8]].astype(np.float64)
        if recipe.normalization == "zscore":
            assert abs(present.mean()) < 1e-4
            assert present.std() == pytest.approx(1, abs=1e-4)


def test_an_absent_lead_is_named_and_unknown_channel_names_are_not_quoted() -> None:
    ecg = recording(leads=("I", "II", "V1", "JOHN DOE"))
    with pytest.raises(
        PrepareError, match=r"missing leads V2, V3, V4, V5, V6: .* I, II, V1, 1 of unknown name"
    ) as caught:
        prepare(ecg, Preparation())
    assert "JOHN" not in str(caught.value)


def test_nothing_but_zeros_fails_even_where_missing_leads_may_be_zero() -> None:
    ecg = Recording(np.zeros((12, 5000), np.float32), 500.0, STANDARD_LEADS, "test")
    with pytest.raises(PrepareError, match="missing leads"):
        prepare(ecg, Preparation(missing_leads="zero"))


def test_a_constant_recording_fails() -> None:
    samples = np.repeat(np.arange(1, 13, dtype=np.float32)[:, np.newaxis], 5000, axis=1)
    with pytest.raises(PrepareError, match="constant"):
        prepare(Recording(samples, 500.0, STANDARD_LEADS, "test"), Preparation())


def test_non_finite_samples_become_zero_and_are_flagged() -> None:
    ecg = recording()
    ecg.samples[1, 100:160] = np.nan
    ecg.samples[4, 7] = np.inf
    signal = prepare(ecg, Preparation(recipe=PLAIN))
    assert "nan_share:0.00102" in signal.flags
    assert not signal.inputs[0][1, 100:160].any()
    assert signal.inputs[0][4, 7] == 0
    for recipe in (ZSCORE, FILTERED, PAPER):
        assert all(np.isfinite(x).all() for x in prepare(ecg, Preparation(recipe=recipe)).inputs)


def test_non_finite_samples_outside_the_window_are_not_flagged() -> None:
    ecg = recording(5500)
    ecg.samples[:, 5400:] = np.nan
    assert "nan_share" not in names(prepare(ecg, Preparation(window=10)))
    assert "nan_share" in names(prepare(ecg, Preparation()))


def test_the_1_lead_network_gets_lead_I_or_the_lead_asked_for() -> None:
    ecg = recording()
    for lead, row in (("I", 0), ("v5", 10), ("AVR", 3)):
        signal = prepare(ecg, Preparation(mode="1lead", lead=lead, recipe=PLAIN))
        assert signal.inputs[0].shape == (1, 5000)
        np.testing.assert_array_equal(signal.inputs[0][0], ecg.samples[row])
        assert signal.leads == (STANDARD_LEADS[row],)
        assert ("not_lead_I" in names(signal)) is (lead != "I")
    np.testing.assert_allclose(
        prepare(ecg, Preparation(mode="1lead")).inputs[0], expected_zscore(ecg.samples[:1]), rtol=0, atol=1e-6
    )


def test_a_lead_that_is_not_there_fails_by_name() -> None:
    with pytest.raises(PrepareError, match=r"missing lead V9: .* I, II, III"):
        prepare(recording(), Preparation(mode="1lead", lead="V9"))


def test_a_single_lead_is_taken_as_it_is_and_flagged_when_it_is_not_lead_I() -> None:
    def one(name: str, lead: str = "I") -> Signal:
        return prepare(recording(leads=(name,)), Preparation(mode="1lead", lead=lead))

    assert one("I").flags == ()
    assert one("II").leads == ("II",)
    assert one("II").flags == ("not_lead_I:II",)
    assert one("JOHN DOE").leads == ("channel 1",)
    assert one("JOHN DOE").flags == ("not_lead_I:channel 1",)
    assert one("I", lead="V5").flags == ("other_lead:I",)


def test_all_leads_are_inputs_of_their_own_in_standard_order_then_the_others() -> None:
    ecg = recording(leads=("V1", "II", "MLII", "I", "secret"))
    signal = prepare(ecg, Preparation(mode="1lead", lead="all"))
    assert signal.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "MLII", "channel 5")
    assert signal.outer_shape == (9,)
    assert [x.shape for x in signal.inputs] == [(1, 5000)] * 9
    np.testing.assert_allclose(signal.inputs[0], expected_zscore(ecg.samples[3:4]), rtol=0, atol=1e-6)
    np.testing.assert_allclose(signal.inputs[7], expected_zscore(ecg.samples[2:3]), rtol=0, atol=1e-6)
    windows = prepare(ecg, Preparation(mode="1lead", lead="ALL", window=4, stride=4, recipe=PLAIN))
    assert windows.outer_shape == (2, 9)
    assert len(windows.inputs) == 18
    np.testing.assert_array_equal(windows.inputs[9 + 6][0], ecg.samples[0, 2000:4000])


# --- resampling ------------------------------------------------------------------------------------------------------


def test_500_hz_is_left_alone_and_not_flagged() -> None:
    ecg = recording()
    signal = prepare(ecg, Preparation(recipe=PLAIN))
    np.testing.assert_array_equal(signal.inputs[0], ecg.samples)
    assert not {"resampled", "aliasing_possible"} & names(signal)


def test_1000_hz_is_every_second_sample() -> None:
    ecg = recording(10_000, 1000.0)
    signal = prepare(ecg, Preparation(recipe=PLAIN))
    np.testing.assert_array_equal(signal.inputs[0], ecg.samples[:, ::2])
    assert {"resampled:1000", "aliasing_possible"} <= set(signal.flags)
    polyphase = prepare(ecg, Preparation(recipe=PLAIN, resampling="polyphase"))
    assert "resampled:1000" in polyphase.flags
    assert "aliasing_possible" not in polyphase.flags
    assert "aliasing_possible" not in prepare(recording(2500, 250.0), Preparation()).flags


@given(
    n=st.integers(1, 900), rate=st.sampled_from([25.0, 100.0, 125.0, 128.0, 250.0, 257.0, 360.0, 999.5, 1000.0, 2048.0])
)
@settings(deadline=None, max_examples=60)
def test_linear_resampling_interpolates_in_time_and_holds_the_ends(n: int, rate: float) -> None:
    x = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    out = resample(x, rate)
    length = round(n * 500 / rate)
    assert out.shape == (2, length)
    at = np.arange(length) / 500
    for row in range(2):
        expected = np.interp(at, np.arange(n) / rate, x[row].astype(np.float64))
        np.testing.assert_allclose(out[row], expected, rtol=0, atol=1e-5)


@given(
    n=st.integers(50, 3000),
    rate=st.sampled_from([100.0, 128.0, 250.0, 360.0, 500.0, 976.5625, 1000.0, 333.3]),
    method=st.sampled_from(["linear", "polyphase"]),
    data=st.data(),
)
@settings(deadline=None, max_examples=60)
def test_a_piece_of_a_resampled_signal_equals_that_piece_of_the_whole(
    n: int, rate: float, method: str, data: st.DataObject
) -> None:
    x = np.random.default_rng(n).standard_normal((1, n)).astype(np.float32)
    whole = resample(x, rate, method=method)
    start = data.draw(st.integers(0, whole.shape[1] - 1))
    stop = data.draw(st.integers(start + 1, whole.shape[1]))
    np.testing.assert_allclose(
        resample(x, rate, method=method, start=start, stop=stop), whole[:, start:stop], rtol=0, atol=1e-6
    )


def test_polyphase_takes_out_what_500_hz_cannot_hold_and_keeps_the_rest() -> None:
    at = np.arange(10_000) / 1000
    low, high = np.sin(2 * np.pi * 10 * at), np.sin(2 * np.pi * 440 * at)
    out = resample((low + high)[np.newaxis].astype(np.float32), 1000.0, method="polyphase")[0]
    np.testing.assert_allclose(out[100:-100], low[::2][100:-100], rtol=0, atol=0.01)


@pytest.mark.parametrize("rate", [499.98, 500.02, 257.31, 1000.3, 360.0001, 333.333333])
def test_polyphase_keeps_time_over_hours_at_any_rate(rate: float) -> None:
    hours, hz = 2, 3.7
    at = np.arange(round(hours * 3600 * rate)) / rate
    x = np.sin(2 * np.pi * hz * at)[np.newaxis].astype(np.float32)
    length = round(x.shape[1] * 500 / rate)
    for stop in (10_000, length - 1000):
        out = resample(x, rate, method="polyphase", start=stop - 2000, stop=stop)[0]
        expected = np.sin(2 * np.pi * hz * np.arange(stop - 2000, stop) / 500)
        np.testing.assert_allclose(out[100:], expected[100:], rtol=0, atol=2e-3)  # 0.1 ms late would be 2.3e-3


@pytest.mark.parametrize("rate", [100.0, 360.0, 999.0])
def test_both_ways_to_compute_polyphase_agree(rate: float) -> None:
    at = np.arange(2000) / rate
    x = np.stack([np.sin(2 * np.pi * hz * at) for hz in (1, 17, 40)]).astype(np.float32)
    small = resample(x, rate, method="polyphase")
    near = resample(x, rate * (1 + 1e-9), method="polyphase")
    np.testing.assert_allclose(near[:, 100:-100], small[:, 100:-100], rtol=0, atol=4e-3)


def test_polyphase_gives_a_constant_back_up_to_its_ends() -> None:
    out = resample(np.full((1, 777), 3.0, np.float32), 360.0, method="polyphase")
    np.testing.assert_allclose(out, 3.0, rtol=0, atol=0.01)


def test_an_impossible_sampling_rate_fails_before_memory_is_asked_for() -> None:
    ecg = Recording(np.ones((12, 1000), np.float32), 1e-6, STANDARD_LEADS, "test")
    with pytest.raises(PrepareError, match="25 Hz"):
        prepare(ecg, Preparation())


# --- windows ---------------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 4000), window=st.integers(1, 1500), remainder=st.sampled_from(["drop", "pad", "keep"]))
@settings(deadline=None, max_examples=200)
def test_windows_in_sequence_give_the_signal_back(n: int, window: int, remainder: str) -> None:
    x = np.random.default_rng(n).standard_normal((1, n)).astype(np.float32) + 3
    x[0, 0] = 7  # never constant, unless it is one sample
    ecg = Recording(x, 500.0, ("I",), "test")
    preparation = Preparation(mode="1lead", recipe=PLAIN, window=window / 500, stride=window / 500, remainder=remainder)
    if n == 1 or (remainder == "drop" and n < window):
        with pytest.raises(PrepareError):
            prepare(ecg, preparation)
        return
    signal = prepare(ecg, preparation)
    assert signal.outer_shape == (len(signal.inputs),) == (len(signal.starts),)
    joined = np.concatenate(list(signal.inputs), axis=1)
    if remainder == "drop":
        np.testing.assert_array_equal(joined, x[:, : n // window * window])
    elif remainder == "keep":
        np.testing.assert_array_equal(joined, x)
    else:
        np.testing.assert_array_equal(joined[:, :n], x)
        assert not joined[:, n:].any()
        assert joined.shape[1] % window == 0
    assert ("zero_padded" in names(signal)) is (remainder == "pad" and n % window > 0)


@given(
    n=st.integers(1, 3000),
    window=st.integers(1, 800),
    stride=st.integers(1, 1200),
    remainder=st.sampled_from(["drop", "pad", "keep"]),
)
@settings(deadline=None, max_examples=200)
def test_every_window_is_the_stretch_of_signal_at_its_start(n: int, window: int, stride: int, remainder: str) -> None:
    x = np.arange(1, n + 1, dtype=np.float32)[np.newaxis]
    ecg = Recording(x, 500.0, ("I",), "test")
    preparation = Preparation(mode="1lead", recipe=PLAIN, window=window / 500, stride=stride / 500, remainder=remainder)
    if n == 1 or (remainder == "drop" and n < window):
        return
    try:
        signal = prepare(ecg, preparation)
    except PrepareError:
        assert window == 1  # one used sample is a constant signal
        return
    for number, (start, given_input) in enumerate(zip(signal.starts, signal.inputs, strict=True)):
        first = round(start * 500)
        assert first == number * stride
        real = x[:, first : first + window]
        np.testing.assert_array_equal(given_input[:, : real.shape[1]], real)
        assert given_input.shape[1] == window or (remainder == "keep" and number == len(signal.starts) - 1)
    full = max(0, (n - window) // stride + 1)
    assert full <= len(signal.starts) <= full + (remainder != "drop")
    if remainder != "drop" and stride <= window:
        assert round(signal.starts[-1] * 500) + window >= n  # no sample is left out


def test_one_window_from_the_start_has_no_outer_dimension() -> None:
    ecg = recording(5500)
    signal = prepare(ecg, Preparation(window=10))
    assert signal.outer_shape == ()
    assert len(signal.inputs) == 1
    np.testing.assert_allclose(signal.inputs[0], expected_zscore(ecg.samples[:, :5000]), rtol=0, atol=1e-6)


def test_a_recording_shorter_than_the_window_fails_is_padded_or_kept_as_asked() -> None:
    ecg = recording(4000)
    with pytest.raises(PrepareError, match=r"8 s are shorter than one window of 10 s \(remainder='pad' or keep"):
        prepare(ecg, Preparation(window=10))
    padded = prepare(ecg, Preparation(window=10, remainder="pad", recipe=PLAIN))
    assert padded.inputs[0].shape == (12, 5000)
    assert "zero_padded:2" in padded.flags
    assert prepare(ecg, Preparation(window=10, remainder="keep")).inputs[0].shape == (12, 4000)


@pytest.mark.parametrize("recipe", [ZSCORE, FILTERED])
def test_a_window_is_what_a_file_holding_only_that_window_would_be(recipe: Recipe) -> None:
    ecg = recording(12_000)
    signal = prepare(ecg, Preparation(recipe=recipe, window=10, stride=5))
    assert signal.starts == (0.0, 5.0, 10.0)
    for start, given_input in zip(signal.starts, signal.inputs, strict=True):
        first = round(start * 500)
        alone = Recording(ecg.samples[:, first : first + 5000].copy(), 500.0, ecg.leads, "test")
        np.testing.assert_array_equal(given_input, prepare(alone, Preparation(recipe=recipe)).inputs[0])


@pytest.mark.parametrize("rate", [250.0, 1000.0, 360.0])
@pytest.mark.parametrize("resampling", ["linear", "polyphase"])
def test_windows_of_a_resampled_recording_give_the_resampled_signal_back(rate: float, resampling: str) -> None:
    ecg = recording(7777, rate, leads=("I",))
    signal = prepare(
        ecg, Preparation(mode="1lead", recipe=PLAIN, window=2, stride=2, remainder="keep", resampling=resampling)
    )
    np.testing.assert_allclose(
        np.concatenate(list(signal.inputs), axis=1), resample(ecg.samples, rate, method=resampling), rtol=0, atol=1e-6
    )


def test_windows_in_which_nothing_moves_are_counted_and_finite() -> None:
    ecg = recording(10_000)
    ecg.samples[:, 2000:5000] = 1.5
    signal = prepare(ecg, Preparation(window=2, stride=2))
    assert "constant_windows:3" in signal.flags
    np.testing.assert_allclose(signal.inputs[2], 0, atol=1e-6)
    assert "constant_windows" not in names(prepare(recording(10_000), Preparation(window=2, stride=2)))


def test_a_remainder_too_short_for_the_filters_is_left_out_and_flagged() -> None:
    signal = prepare(recording(5010), Preparation(recipe=FILTERED, window=10, stride=10, remainder="keep"))
    assert signal.outer_shape == (1,)
    assert "remainder_dropped:0.02" in signal.flags
    assert "remainder_dropped" not in names(
        prepare(recording(5100), Preparation(recipe=FILTERED, window=10, stride=10, remainder="keep"))
    )


def test_inputs_can_be_taken_in_any_order_and_sliced() -> None:
    inputs = prepare(recording(30_000), Preparation(window=10, stride=10)).inputs
    in_order = list(inputs)
    np.testing.assert_array_equal(inputs[-1], in_order[-1])
    assert len(inputs[1:4]) == 3
    with pytest.raises(IndexError):
        inputs[6]


def test_a_day_in_windows_needs_the_memory_of_a_window() -> None:
    one_hour = np.random.default_rng(1).standard_normal((3, 200 * 3600)).astype(np.float32)
    ecg = Recording(one_hour, 200.0, ("I", "II", "V1"), "test")
    for recipe, limit in ((ZSCORE, 8 << 20), (PAPER, 90 << 20)):
        preparation = Preparation(mode="1lead", recipe=recipe, window=10, stride=10)
        tracemalloc.start()
        count = sum(1 for _ in prepare(ecg, preparation).inputs)
        _now, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 360
        assert peak < limit


def test_edges_of_zeros_are_trimmed_when_asked_for_and_starts_keep_their_time() -> None:
    samples = np.zeros((12, 4096), np.float32)
    samples[:, 648:3448] = recording(2800).samples
    ecg = Recording(samples, 400.0, STANDARD_LEADS, "test")
    whole = prepare(ecg, Preparation(recipe=PLAIN))
    assert whole.inputs[0].shape == (12, 5120)
    assert "zero_padded_edges:1.62,1.62" in whole.flags
    trimmed = prepare(ecg, Preparation(recipe=PLAIN, trim_zero_edges=True))
    assert trimmed.inputs[0].shape == (12, 3500)
    assert trimmed.starts == (1.62,)
    assert "zero_padded_edges" not in names(trimmed)
    np.testing.assert_array_equal(trimmed.inputs[0][:, 0], samples[:, 648])


def test_token_times_are_the_centres_of_256_samples() -> None:
    np.testing.assert_allclose(token_times(3), [0.255, 0.767, 1.279])
    times = token_times(20, window_start=10.0)
    assert times.dtype == np.float64
    assert times[0] == pytest.approx(10.255)
    assert np.diff(times) == pytest.approx(0.512)
    assert token_times(0).shape == (0,)


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "3lead"}, "'mode' parameter. Allowed values are '12lead' and '1lead', but got '3lead' instead."),
        ({"missing_leads": "x"}, "Allowed values are 'fail' and 'zero', but got 'x' instead."),
        ({"resampling": "cubic"}, "Allowed values are 'linear' and 'polyphase', but got 'cubic' instead."),
        ({"remainder": "x", "window": 1}, "Allowed values are 'drop', 'pad' and 'keep', but got 'x' instead."),
        ({"recipe": "zscore"}, "It must be a Recipe"),
        ({"lead": " "}, "'lead' parameter"),
        ({"window": 0}, "'window' parameter. It must be a number of seconds"),
        ({"window": math.nan}, "'window' parameter"),
        ({"window": "10"}, "'window' parameter"),
        ({"window": True}, "'window' parameter"),
        ({"window": 10, "stride": -1}, "'stride' parameter"),
        ({"stride": 5}, "needs the 'window' parameter"),
        ({"window": 0.05, "recipe": FILTERED}, "needs at least 0.056 s"),
    ],
)
def test_settings_outside_what_is_allowed_are_refused_with_what_is(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Preparation(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_every_setting_that_changes_the_input_changes_the_fingerprint() -> None:
    one_lead = Preparation(mode="1lead")
    preparations = [
        Preparation(),
        one_lead,
        Preparation(mode="1lead", lead="V5"),
        Preparation(mode="1lead", lead="all"),
        Preparation(missing_leads="zero"),
        Preparation(resampling="polyphase"),
        Preparation(recipe=FILTERED),
        Preparation(recipe=PAPER),
        Preparation(window=10),
        Preparation(window=2.5),
        Preparation(window=10, stride=10),
        Preparation(window=10, remainder="pad"),
        Preparation(trim_zero_edges=True),
        Preparation(recipe=Recipe("zscore", "2")),
        Preparation(recipe=Recipe("zscore", "1", normalization="none")),
    ]
    prints = [json.dumps(preparation.fingerprint(), sort_keys=True) for preparation in preparations]
    assert len(set(prints)) == len(prints)


def test_settings_that_mean_the_same_have_the_same_fingerprint() -> None:
    assert Preparation(lead="V5").fingerprint() == Preparation().fingerprint()
    assert Preparation(remainder="keep").fingerprint() == Preparation().fingerprint()
    assert Preparation(window=10).fingerprint() == Preparation(window=10.0).fingerprint()
    explicit = Preparation(recipe=PAPER, window=10, stride=10, remainder="pad")
    assert explicit.fingerprint() == Preparation(recipe=PAPER).fingerprint()


def test_a_recipe_brings_its_windows_and_gives_way_to_others() -> None:
    paper = Preparation(recipe=PAPER)
    assert (paper.window, paper.stride, paper.remainder) == (10.0, 10.0, "pad")
    own = Preparation(recipe=PAPER, window=5, remainder="drop")
    assert (own.window, own.stride, own.remainder) == (5.0, None, "drop")
    assert Preparation().remainder == "drop"


def test_blocks_of_a_long_recording_are_filtered_as_the_whole_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    ecg = recording(500 * 200, leads=("I",))
    preparation = Preparation(mode="1lead", recipe=PAPER)
    whole = list(prepare(ecg, preparation).inputs)
    monkeypatch.setattr(windows, "FILTER_BLOCK", 35.0)
    blocks = prepare(ecg, preparation).inputs
    for number in (19, 0, 7, 3, 4):  # in any order
        np.testing.assert_allclose(blocks[number], whole[number], rtol=0, atol=1e-5)
