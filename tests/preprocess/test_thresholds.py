"""Each quality flag's threshold, from both sides: what its definition says of "more than", "at least" and "less than"."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.preprocess import quality
from ecgfounder.preprocess.calibration import without_pulses

RATE = 500.0
N = 5000

Samples = npt.NDArray[np.float32]


def waves(n_samples: int = N, seconds: float = 0.8, height: float = 1.0) -> Samples:
    """Beats as a smooth wave, in mV: far above what counts as flat."""
    at = np.arange(n_samples) / RATE
    return (height * np.sin(2 * np.pi * at / seconds)).astype(np.float32)


def names(flags: list[str]) -> list[str]:
    return [flag.partition(":")[0] for flag in flags]


def limb(i: Samples, ii: Samples, off: float, **more: Samples) -> list[str]:
    """Flags of limb leads whose III is off by a constant."""
    lead = {"I": i, "II": ii, "III": (ii - i + np.float32(off)).astype(np.float32), **more}
    return names(quality.limb_lead_flags(np.stack(list(lead.values())), tuple(lead), RATE))


# --- Einthoven --------------------------------------------------------------------------------------------------------


def test_iii_must_be_off_in_millivolt_and_in_proportion_to_violate_einthoven() -> None:
    small, large = waves(height=0.05), waves(height=0.5)
    flat = np.zeros(N, dtype=np.float32)
    # II - I is the wave; its standard deviation is 0.035 or 0.35 mV, a quarter of which is 0.009 or 0.088 mV.
    assert limb(flat, small, 0.015) == []  # more than a quarter, and less than 0.02 mV
    assert limb(flat, large, 0.05) == []  # more than 0.02 mV, and less than a quarter
    assert limb(flat, small, 0.025) == ["einthoven_violated"]
    assert limb(flat, large, 0.1) == ["einthoven_violated"]


def test_einthoven_needs_all_three_leads_as_they_were_recorded() -> None:
    i, ii = waves(), waves(seconds=0.6)
    wrong = np.stack([i, ii, waves(seconds=1.0)])
    flagged = {name: names(quality.limb_lead_flags(wrong, ("I", "II", name), RATE)) for name in ("III", "V1")}
    assert flagged == {"III": ["einthoven_violated"], "V1": []}
    for derived in ("I", "II", "III"):
        assert names(quality.limb_lead_flags(wrong, ("I", "II", "III"), RATE, derived=(derived,))) == []
    assert names(quality.limb_lead_flags(wrong, ("I", "II", "III"), RATE, derived=("aVR",))) == ["einthoven_violated"]
    for pair in (("I", "III"), ("II", "III")):
        assert names(quality.limb_lead_flags(wrong[:2], pair, RATE)) == []


# --- amplitudes -------------------------------------------------------------------------------------------------------


def with_flat_blocks(count: int, of: int = 4) -> Samples:
    """A lead of which the last blocks of 2 s do not move."""
    lead = waves(of * 1000)
    if count:
        lead[-count * 1000 :] = 0.01
    return lead


@pytest.mark.parametrize(
    ("count", "of", "flat"), [(0, 4, False), (1, 4, False), (2, 4, True), (2, 5, False), (3, 5, True)]
)
def test_a_lead_that_is_flat_in_at_least_one_half_of_its_blocks_is_flat(count: int, of: int, flat: bool) -> None:
    samples = np.stack([waves(of * 1000), with_flat_blocks(count, of)])
    found = quality.assess(samples, ("V1", "V2"), RATE)
    assert ("flat_lead:V2" in found) == flat


@pytest.mark.parametrize(("moves", "flat"), [(0.019, True), (0.021, False)])
def test_flat_is_what_moves_by_less_than_a_fiftieth_of_a_millivolt(moves: float, flat: bool) -> None:
    samples = np.stack([waves(), waves(height=moves / 2)])
    assert ("flat_lead:V2" in quality.assess(samples, ("V1", "V2"), RATE)) == flat


@pytest.mark.parametrize(("moves", "low"), [(0.049, True), (0.051, False)])
def test_no_lead_that_moves_is_a_wrong_unit(moves: float, low: bool) -> None:
    samples = np.stack([waves(height=moves / 2), waves(height=0.011)])
    assert ("implausible_amplitude:low" in quality.assess(samples, ("V1", "V2"), RATE)) == low


@pytest.mark.parametrize(("moves", "wild"), [(19.9, False), (20.1, True)])
def test_a_lead_that_moves_too_far_is_named(moves: float, wild: bool) -> None:
    samples = np.stack([waves(height=moves / 2), waves()])
    assert ("implausible_amplitude:V1" in quality.assess(samples, ("V1", "V2"), RATE)) == wild


@pytest.mark.parametrize(("n_samples", "short"), [(1249, True), (1250, False)])
def test_too_short_is_less_than_two_and_a_half_seconds(n_samples: int, short: bool) -> None:
    assert ("too_short" in quality.assess(waves(n_samples)[None] + 0.1, ("V1",), RATE)) == short


# --- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("zeros", "counted"), [(49, 0), (50, 0), (51, 51)])
def test_zeros_at_an_edge_count_when_they_last_longer_than_a_tenth_of_a_second(zeros: int, counted: int) -> None:
    samples = np.ones((2, N), dtype=np.float32)
    samples[:, :zeros] = 0
    assert quality.zero_edges(samples, RATE) == (counted, 0)
    assert quality.zero_edges(np.ascontiguousarray(samples[:, ::-1]), RATE) == (0, counted)


def test_zeros_at_both_edges_are_told_apart_and_need_every_lead() -> None:
    samples = np.ones((2, N), dtype=np.float32)
    samples[:, :100] = samples[:, -200:] = 0
    assert quality.zero_edges(samples, RATE) == (100, 200)
    samples[1, :30] = samples[1, -150:] = 1
    assert quality.zero_edges(samples, RATE) == (0, 0)
    assert quality.zero_edges(np.zeros((2, N), np.float32), RATE) == (0, 0)


# --- calibration pulses -----------------------------------------------------------------------------------------------


def pulse(first: int, length: int, height: float = 1.0, n_samples: int = N) -> Samples:
    samples = np.zeros((2, n_samples), dtype=np.float32)
    samples[:, first : first + length] = height
    return samples


@pytest.mark.parametrize(
    ("length", "found"), [(19, False), (20, True), (100, True), (300, True), (305, False), (400, False)]
)
def test_a_pulse_lasts_40_to_600_ms(length: int, found: bool) -> None:
    pulses = quality.calibration_pulses(pulse(1000, length), ("V1", "V2"), RATE)
    assert bool(pulses) == found
    if found:
        ((start, end),) = pulses
        assert 1000 <= start < 1005
        assert end == 1000 + length


@pytest.mark.parametrize(("height", "found"), [(0.89, False), (0.91, True), (1.09, True), (1.11, False)])
def test_a_pulse_is_a_millivolt_high(height: float, found: bool) -> None:
    assert bool(quality.calibration_pulses(pulse(1000, 100, height), ("V1", "V2"), RATE)) == found


def test_a_pulse_that_the_end_cuts_off_counts_where_two_leads_show_it() -> None:
    samples = pulse(N - 100, 100)
    assert quality.calibration_pulses(samples, ("V1", "V2"), RATE)
    assert not quality.calibration_pulses(samples[:1], ("V1",), RATE)


def test_what_does_not_fall_again_is_a_step_and_no_pulse() -> None:
    samples = pulse(1000, 100)
    samples[:, 1100:] = 0.5
    assert not quality.calibration_pulses(samples, ("V1", "V2"), RATE)


def test_each_pulse_is_found_once_and_the_longest_stretch_lies_between_them() -> None:
    samples = pulse(500, 100) + pulse(4000, 100)
    pulses = quality.calibration_pulses(samples, ("V1", "V2"), RATE)
    assert len(pulses) == 2
    samples[:, 700:3900] = waves(3200)  # between them, after and before zeros
    assert without_pulses(samples, pulses, 0, N) == (701, 3900)
    assert without_pulses(samples, [], 0, N) == (0, N)


# --- clipping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "drop", "clipped"), [(4, 0.2, False), (5, 0.2, True), (5, 0.09, False), (5, 0.11, True)]
)
def test_clipped_is_a_run_of_10_ms_with_a_steep_way_on_both_sides(run: int, drop: float, clipped: bool) -> None:
    lead = waves(height=0.5)
    lead[1000 - 10 : 1000 + run + 10] = 2.0 - drop
    lead[1000 : 1000 + run] = 2.0
    samples = np.stack([lead, waves()])
    assert ("clipped:V1" in quality.assess(samples, ("V1", "V2"), RATE)) == clipped
    assert ("clipped:V1" in quality.assess(-samples, ("V1", "V2"), RATE)) == clipped
    if clipped:
        lead[1000 + run : 1000 + run + 10] = 2.0 - 0.05  # it leaves slowly on one side
        assert "clipped:V1" not in quality.assess(np.stack([lead, waves()]), ("V1", "V2"), RATE)


def test_at_low_rates_three_samples_make_a_run() -> None:
    lead = waves(1000)
    lead[500:502] = 5.0
    assert "clipped:V1" not in quality.assess(lead[None], ("V1",), 100.0)
    lead[500:503] = 5.0
    assert "clipped:V1" in quality.assess(lead[None], ("V1",), 100.0)
