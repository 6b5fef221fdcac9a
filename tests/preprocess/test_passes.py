"""Passes over the samples, in C and in NumPy: the same numbers and the same flags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.preprocess import amplitudes, baseline, calibration, dead_leads, limb_leads, quality, recipes, signals
from ecgfounder.preprocess.recipes import ZSCORE

needs_compiled = pytest.mark.skipif(quality._passes is None, reason="the module in C was not built")
MODULES = (amplitudes, baseline, calibration, dead_leads, limb_leads, quality, recipes, signals)


@contextmanager
def in_python() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in MODULES:
            patch.setattr(module, "_passes", None)
        yield


@st.composite
def leads_of_samples(draw: st.DrawFn) -> np.ndarray:
    """Leads with offsets, plateaus and pulses, in steps of their resolution; perhaps a part of longer rows."""
    n_leads, n_samples = draw(st.integers(1, 4)), draw(st.integers(2, 700))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    whole = rng.normal(rng.normal(0, 3), draw(st.sampled_from([0.01, 0.5, 30.0])), (n_leads, n_samples + 5))
    for _ in range(draw(st.integers(0, 4))):
        start, length = rng.integers(0, n_samples), rng.integers(1, 60)
        rows = slice(None) if rng.random() < 0.5 else int(rng.integers(n_leads))
        level = rng.choice([0.0, 1.0, -1.0, 0.95, 1.1])
        whole[rows, start : start + length] = level if rng.random() < 0.5 else whole.max()
        whole[rows, max(0, start - 20) : start] = level - 1.0
    step = draw(st.sampled_from([0.005, 0.1, 1e-4]))
    quantised = (np.round(whole / step) * step).astype(np.float32)
    return quantised[:, 3:-2] if draw(st.booleans()) else np.ascontiguousarray(quantised[:, 3:-2])


@needs_compiled
@given(leads_of_samples(), st.sampled_from([100.0, 250.0, 500.0]))
@settings(max_examples=400, deadline=None)
def test_extremes_and_flags_are_the_same(samples: np.ndarray, rate: float) -> None:
    leads = ("I", "II", "V1", "V2")[: len(samples)]

    def found() -> object:
        low, high = amplitudes.extremes(samples, rate)
        pulses = calibration.calibration_pulses(samples, leads, rate)
        rows = quality._rows_with_runs(samples, high.max(axis=1), 3)
        return low.tolist(), high.tolist(), pulses, rows, quality.assess(samples, leads, rate)

    compiled = found()
    with in_python():
        assert found() == compiled


@needs_compiled
@given(leads_of_samples(), st.integers(0, 40), st.integers(0, 40), st.booleans(), st.data())
@settings(max_examples=200, deadline=None)
def test_still_ends_and_plateaus_are_the_same(
    samples: np.ndarray, before: int, after: int, is_zero: bool, data: st.DataObject
) -> None:
    held = samples.copy()
    held[:, :before] = -0.0 if is_zero else held[:, :1]
    held[:, held.shape[1] - after :] = 0.0 if is_zero else held[:, -1:]
    part = np.tile(held, (1, 2))[:, : held.shape[1]]  # a part of longer rows
    start = data.draw(st.integers(0, held.shape[1] - 1))
    most, rate = data.draw(st.integers(0, 60)), data.draw(st.sampled_from([20.0, 500.0]))
    rows = np.array(data.draw(st.lists(st.integers(0, len(held) - 1), min_size=1, max_size=4)), np.int64)

    def found(which: np.ndarray) -> object:
        still = [
            calibration.still_samples(which[:, :stop], at_end=at_end, of_zero=of_zero)
            for stop in (0, start + 1, which.shape[1])
            for at_end in (False, True)
            for of_zero in (False, True)
        ]
        length = calibration._length_of_plateau(which, rows, start, most)
        return still, length, quality.zero_edges(which, rate)

    compiled = found(held), found(part)
    with in_python():
        assert (found(held), found(part)) == compiled
    n_still = calibration.still_samples(held)
    assert (held[:, :n_still] == held[:, :1]).all()
    assert n_still == held.shape[1] or (held[:, n_still] != held[:, 0]).any()
    length = calibration._length_of_plateau(held, rows, start, most)
    offs = np.abs(held[rows, start : start + most] - held[rows, start, None]).max(axis=0, initial=0)
    assert (offs[:length] < np.float32(calibration.PULSE_RIPPLE)).all()
    assert length == len(offs) or offs[length] >= np.float32(calibration.PULSE_RIPPLE)


@needs_compiled
@given(leads_of_samples(), st.sampled_from([1, 3, 16]), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_moments_are_the_same_to_rounding(samples: np.ndarray, every: int, size: int) -> None:
    rate, off = 50.0 * size, 2.0 * float(np.abs(samples).max())

    def found() -> list[object]:
        lead = dict(zip(("I", "II", "III"), np.resize(samples, (3, samples.shape[1])), strict=True))
        return [
            *amplitudes.moments(samples, every),
            *baseline._by_block(samples, every, size),
            *(dead_leads._peaks(row, rate) for row in samples if row.size > round(rate * dead_leads.SLOPE)),
            limb_leads._rms_off(lead, (-0.5, 1.0), "III"),
        ]

    compiled = found()
    with in_python():
        for one, other in zip(compiled, found(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * (1 + off * off))


@needs_compiled
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_wherever_it_is(value: float) -> None:
    samples = np.full((3, 50), np.finfo(np.float32).max)  # the sum overflows, every sample is finite
    assert signals._finite(samples)[1] is None
    for place in ((0, 0), (1, 31), (2, 49)):
        spoilt = samples.copy()
        spoilt[place] = value
        replaced, finite = signals._finite(spoilt)
        assert finite is not None
        assert np.argwhere(~finite).tolist() == [list(place)]
        assert replaced[place] == 0
        assert (signals._finite(spoilt[:, :30])[1] is None) == (place[1] >= 30)


@needs_compiled
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40), st.integers(1, 9))
@settings(max_examples=500, deadline=None)
def test_runs_are_found_wherever_they_are(values: list[float], least: int) -> None:
    row = np.array([values], np.float32)
    text = "".join(str(int(value)) for value in values)
    assert quality._rows_with_runs(row, np.ones(1, np.float32), least) == ([0] if "1" * least in text else [])


@needs_compiled
@given(leads_of_samples(), st.sampled_from([1, 7, 8, 9, 128, 129, 1000, 5000]), st.booleans())
@settings(max_examples=300, deadline=None)
def test_the_z_score_has_the_same_bytes(samples: np.ndarray, length: int, is_filtered: bool) -> None:
    longer = np.tile(samples, (1, -(-length // samples.shape[1])))[:, :length]
    for part in (samples, longer, longer[:1]):
        given_samples = part.astype(np.float64) * 1.1 if is_filtered else part
        compiled = ZSCORE.normalized(given_samples)
        with in_python():
            assert ZSCORE.normalized(given_samples).tobytes() == compiled.tobytes()
        assert compiled.flags.c_contiguous


@needs_compiled
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_z_score_of_zeros_has_the_same_signs(dtype: type) -> None:
    for zeros in (np.zeros((7, 64), dtype), -np.zeros((7, 64), dtype)):
        compiled = ZSCORE.normalized(zeros)
        with in_python():
            assert ZSCORE.normalized(zeros).tobytes() == compiled.tobytes()


@needs_compiled
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_z_score_of_a_cohort_has_the_same_bytes(dtype: type) -> None:
    rng = np.random.default_rng(0)
    for n in (12 * 5000, 12 * 4999, 12 * 5111, 8192, 8193, 24577):
        samples = (rng.standard_t(3, (12, n // 12)) * rng.choice([1e-3, 1, 50]) + rng.normal(0, 2)).astype(dtype)
        compiled = ZSCORE.normalized(samples)
        with in_python():
            assert ZSCORE.normalized(samples).tobytes() == compiled.tobytes()


@needs_compiled
def test_quotients_are_exact_in_the_middle_between_two_floats() -> None:
    """There a product with the reciprocal, which is not the quotient, would be rounded to another float."""
    assert quality._passes is not None
    rng = np.random.default_rng(0)
    halves = rng.integers(1 << 23, 1 << 24, 4000) + 0.5
    quotients = np.concatenate([halves, np.nextafter(halves, 0), np.nextafter(halves, np.inf), [0.0, 1e-40, 1e-320]])
    n_wrong = 0
    for scale in (*range(3, 200, 2), 1e-6 / 3, 1e6 / 7):
        samples = quotients * scale
        spread = np.sqrt(np.square(samples).mean())
        out = np.empty(samples.shape, np.float32)
        quality._passes.zscore(samples, 0.0, float(scale - spread), out)  # divides by their sum
        divisor = spread + float(scale - spread)
        with np.errstate(over="ignore"):
            exact = (samples / divisor).astype(np.float32)
            n_wrong += np.count_nonzero((samples * (1 / divisor)).astype(np.float32) != exact)
        assert out.tobytes() == exact.tobytes()
    assert n_wrong > 0


@needs_compiled
def test_arrays_of_other_sizes_are_refused() -> None:
    passes = quality._passes
    assert passes is not None
    two, few, rows = np.zeros((2, 10), np.float32), np.zeros(1, np.float32), np.arange(2)
    wrong = [
        lambda: passes.block_extremes(two, 5, few, few),
        lambda: passes.block_extremes(two, 0, np.zeros(4, np.float32), np.zeros(4, np.float32)),
        lambda: passes.block_extremes(two[:, ::2], 5, np.zeros(2, np.float32), np.zeros(2, np.float32)),
        lambda: passes.block_extremes(two.astype(np.float64), 5, np.zeros(4, np.float32), np.zeros(4, np.float32)),
        lambda: passes.runs_at(two, few, 1, np.zeros(2, np.bool_)),
        lambda: passes.runs_at(two, two[:, 0].copy(), 1, np.zeros(3, np.bool_)),
        lambda: passes.runs_at(two, two[:, 0].copy(), 0, np.zeros(2, np.bool_)),
        lambda: passes.plateau_starts(two, rows + 1, 1, 2, 0.9, 1.1, 0.1),
        lambda: passes.plateau_starts(two, rows - 1, 1, 2, 0.9, 1.1, 0.1),
        lambda: passes.plateau_starts(two, rows, 0, 2, 0.9, 1.1, 0.1),
        lambda: passes.plateau_length(two, rows + 1, 0, 5, 0.1),
        lambda: passes.plateau_length(two, rows, 10, 5, 0.1),
        lambda: passes.plateau_length(two, rows, -1, 5, 0.1),
        lambda: passes.plateau_length(two, rows, 0, -1, 0.1),
        lambda: passes.plateau_length(two, rows[:0], 0, 5, 0.1),
        lambda: passes.still_samples(two.astype(np.float64), False, False),
        lambda: passes.still_samples(two[:, ::-1], False, False),
        lambda: passes.row_moments(two, 0, np.zeros(2), np.zeros(2)),
        lambda: passes.row_moments(two, 1, np.zeros(2), np.zeros(3)),
        lambda: passes.row_moments(np.zeros((2, 0), np.float32), 1, np.zeros(2), np.zeros(2)),
        lambda: passes.block_moments(two, 1, 6, np.zeros(4), np.zeros(4)),
        lambda: passes.block_moments(two, 5, 2, np.zeros(4), np.zeros(4)),
        lambda: passes.block_moments(two, 1, 1 << 62, np.zeros(4), np.zeros(4)),
        lambda: passes.block_moments(two, 1, 0, np.zeros(2), np.zeros(2)),
        lambda: passes.block_moments(two, 1, 2, np.zeros(3), np.zeros(3)),
        lambda: passes.slopes(few, 1, 5),
        lambda: passes.slopes(two[0].astype(np.float64), 1, 5),
        lambda: passes.slopes(two[0], 1, 0),
        lambda: passes.combination_rms(two[0], 1.0, two[1], 1.0, few),
        lambda: passes.combination_rms(few[:0], 1.0, few[:0], 1.0, few[:0]),
        lambda: passes.zscore(two, 0.0, 1e-8, few),
        lambda: passes.zscore(np.zeros((0, 0), np.float32), 0.0, 1e-8, np.zeros((0, 0), np.float32)),
        lambda: passes.zscore(two.astype(np.int16), 0.0, 1e-8, np.zeros((2, 10), np.float32)),
        lambda: passes.zscore(two, 0.0, 1e-8, np.zeros((2, 10))),
        lambda: passes.mean(two.astype(np.int16)),
        lambda: passes.mean(two[:, :0]),
    ]
    for call in wrong:
        with pytest.raises(ValueError, match=r"must be|are needed"):
            call()
