"""Each quality flag: something that sets it off, something close that does not, and none on a healthy ECG."""

from __future__ import annotations

import json
import time

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess import quality
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.recipes import FILTERED, PAPER, Notch, Recipe
from ecgfounder.preprocess.signals import prepare
from tests.places import RECORDINGS, ROOT

Samples = npt.NDArray[np.float32]

# Heights in mV of P, Q, R, S and T.
HEIGHTS = {
    "I": (0.08, -0.05, 0.8, -0.10, 0.20),
    "II": (0.12, -0.06, 1.1, -0.15, 0.30),
    "V1": (0.05, 0.00, 0.2, -0.90, -0.05),
    "V2": (0.06, 0.00, 0.4, -1.20, 0.35),
    "V3": (0.06, -0.02, 0.7, -0.80, 0.40),
    "V4": (0.07, -0.05, 1.3, -0.40, 0.40),
    "V5": (0.07, -0.08, 1.2, -0.20, 0.35),
    "V6": (0.07, -0.08, 1.0, -0.10, 0.25),
}


def ecg(seconds: float = 10.0, rate: float = 500.0, step: float = 0.005, seed: int = 0) -> Samples:
    """A plausible 12-lead ECG [12, n] in mV at 70 beats a minute, quantised to `step` mV, with a little noise."""
    n = round(seconds * rate)
    at = np.arange(n) / rate
    phase = (at + 0.35) % (60 / 70)
    waves = [
        np.exp(-0.5 * ((phase - centre) / width) ** 2)
        for centre, width in ((0.18, 0.025), (0.31, 0.008), (0.335, 0.010), (0.36, 0.010), (0.58, 0.045))
    ]
    noise = np.random.default_rng(seed).normal(0, 0.004, (8, n))
    lead = {name: np.tensordot(h, waves, 1) + noise[i] for i, (name, h) in enumerate(HEIGHTS.items())}
    i, ii = lead["I"], lead["II"]
    lead |= {"III": ii - i, "aVR": -(i + ii) / 2, "aVL": i - ii / 2, "aVF": ii - i / 2}
    return np.asarray(np.round(np.stack([lead[name] for name in STANDARD_LEADS]) / step) * step, dtype=np.float32)


def row(lead: str) -> int:
    return STANDARD_LEADS.index(lead)


def flags_of(
    samples: Samples, rate: float = 500.0, leads: tuple[str, ...] = STANDARD_LEADS, **settings_: object
) -> dict[str, str]:
    """Flags by name with their details, from the public way in."""
    signal = prepare(Recording(samples, rate, leads, "test"), Preparation(**settings_))  # type: ignore[arg-type]
    found = dict((flag + ":").split(":")[:2] for flag in signal.flags)
    assert len(found) == len(signal.flags), "a flag came twice"
    assert found.keys() <= quality.FLAGS.keys(), "a flag without a definition"
    return found


@pytest.mark.parametrize("rate", [250.0, 500.0, 1000.0])
@pytest.mark.parametrize("step", [0.001, 0.005, 0.01])
def test_a_healthy_ecg_has_no_flag(rate: float, step: float) -> None:
    assert not flags_of(ecg(rate=rate, step=step), rate).keys() - {"resampled", "aliasing_possible"}
    assert not flags_of(ecg(rate=rate, step=step), rate, mode="1lead").keys() - {"resampled", "aliasing_possible"}


def test_every_flag_has_a_definition_and_the_documentation_repeats_it() -> None:
    page = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
    for name, definition in quality.FLAGS.items():
        assert f"| `{name}` | {definition} |" in page


# --- leads and samples -----------------------------------------------------------------------------------------------


def test_flat_lead_is_one_that_hardly_moves_half_of_the_time() -> None:
    samples = ecg()
    samples[row("V3")] = 0.3
    samples[row("V4"), :5000] = 0.25 + np.tile([0.0, 0.01], 2500)
    samples[row("V5"), :1000] = 0  # one block of five
    assert flags_of(samples) == {"flat_lead": "V3,V4"}


def test_clipped_is_a_lead_that_was_cut_off() -> None:
    samples = ecg()
    samples[row("V2")] = np.clip(samples[row("V2")], -0.7, None)
    samples[row("V4")] = np.clip(samples[row("V4")], None, 0.6)
    assert flags_of(samples) == {"clipped": "V2,V4"}


def test_a_lead_at_the_rail_for_a_second_is_clipped() -> None:
    samples = ecg()
    samples[row("V1"), 1000:1500] = 5.0
    assert flags_of(samples) == {"clipped": "V1", "baseline_dominates": "47%"}


@pytest.mark.parametrize("step", [0.001, 0.005, 0.02, 0.05])
def test_clipping_is_found_at_any_resolution_and_resolution_is_not_clipping(step: float) -> None:
    samples = ecg(step=step)
    assert "clipped" not in flags_of(samples)
    samples[row("V4")] = np.clip(samples[row("V4")], None, 0.6)
    assert flags_of(samples)["clipped"] == "V4"


@pytest.mark.parametrize("seconds", [10.62, 10.65, 10.705, 10.72, 10.8, 10.85, 10.9, 10.95])
@pytest.mark.parametrize("lead", ["all", "I", "aVR"])
def test_no_part_of_a_calibration_pulse_is_clipping(seconds: float, lead: str) -> None:
    samples = with_pulse(ecg(11), 5350)
    one: dict[str, object] = {} if lead == "all" else {"mode": "1lead", "lead": lead}
    for settings_ in ({"window": seconds}, {"window": seconds, "trim_zero_edges": True}):
        assert "clipped" not in flags_of(samples, **one, **settings_)
    # A file that ends there: what follows is not known.
    assert "clipped" not in flags_of(samples[:, : round(seconds * 500)], **one)


def test_a_pulse_that_the_window_cuts_after_20_ms_is_flagged_and_one_after_the_window_is_not() -> None:
    samples = with_pulse(ecg(11), 5350)
    assert flags_of(samples, window=10.72) == {"calibration_pulse": "10.7"}
    assert flags_of(samples, window=10.7) == {}
    assert flags_of(samples, window=10.72, mode="1lead") == {"calibration_pulse": "10.7"}


def test_the_quantised_top_of_a_slow_wave_is_not_clipped() -> None:
    samples = ecg(step=0.01)
    wave = 1.5 * np.sin(2 * np.pi * 0.3 * np.arange(5000) / 500)
    samples[row("V1")] = np.round((samples[row("V1")] * 0.1 + wave) / 0.01) * 0.01
    assert "clipped" not in flags_of(samples)


def test_nan_share_counts_samples_that_are_not_finite() -> None:
    samples = ecg()
    samples[0, :600] = np.nan
    assert flags_of(samples)["nan_share"] == "0.01"
    assert "nan_share" not in flags_of(ecg())


def test_missing_and_derived_leads_are_named() -> None:
    samples = ecg()
    samples[[row("aVL"), row("V1"), row("V2")]] = 0
    assert flags_of(samples, missing_leads="zero") == {"missing_leads": "V1,V2", "derived_leads": "aVL"}
    eight = ("II", "III", "V1", "V2", "V3", "V4", "V5", "V6")
    stored = ecg()[[row(lead) for lead in eight]]
    assert flags_of(stored, leads=eight) == {"derived_leads": "I,aVR,aVL,aVF"}
    cabrera = (*STANDARD_LEADS[:3], "-aVR", *STANDARD_LEADS[4:])
    turned = ecg()
    turned[3] *= -1
    assert flags_of(turned, leads=cabrera) == {}


def test_implausible_amplitude_is_a_wrong_unit_or_a_sentinel() -> None:
    assert flags_of(ecg() * np.float32(1000))["implausible_amplitude"] == ",".join(STANDARD_LEADS)
    assert flags_of(ecg() * np.float32(0.001)) == {"implausible_amplitude": "low"}
    samples = ecg()
    samples[row("V6"), 77] = -163.84
    assert flags_of(samples)["implausible_amplitude"] == "V6"
    assert "implausible_amplitude" not in flags_of(ecg() + np.float32(300))  # an electrode's offset


# --- what the z-score makes small -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("millivolt", "share"), [(1.0, 0.22), (3.0, 0.075), (100.0, 0.002)])
def test_an_offset_that_dominates_says_how_much_of_the_ecg_is_left(millivolt: float, share: float) -> None:
    samples = ecg()
    scale = np.std(samples)
    offsets = np.random.default_rng(1).normal(0, millivolt, (12, 1)).astype(np.float32)
    found = flags_of(samples + offsets)
    left = float(found["baseline_dominates"].removesuffix("%")) / 100
    assert left == pytest.approx(scale / np.std(samples + offsets), rel=0.1)
    assert left == pytest.approx(share, rel=0.8)
    # An offset of all leads is removed with the mean.
    assert "baseline_dominates" not in flags_of(samples + np.float32(millivolt))


def test_wander_that_dominates_is_flagged_and_ordinary_wander_is_not() -> None:
    wander = np.sin(2 * np.pi * 0.25 * np.arange(5000) / 500).astype(np.float32)
    for millivolt, flagged in ((0.15, False), (1.0, True), (3.0, True)):
        for settings_ in ({}, {"mode": "1lead"}):
            found = flags_of(ecg() + millivolt * wander, **settings_)  # type: ignore[arg-type]
            assert ("baseline_dominates" in found) == flagged, (millivolt, settings_)


def test_a_recipe_that_removes_the_baseline_is_not_flagged() -> None:
    samples = ecg() + np.arange(12, dtype=np.float32)[:, None]
    for recipe in (FILTERED, PAPER):
        assert "baseline_dominates" not in flags_of(samples, recipe=recipe)
    keeps = Recipe("keeps", "1", filters=(Notch(50.0),))
    assert "baseline_dominates" in flags_of(samples, recipe=keeps)
    per_lead = Recipe("per_lead", "1", normalization="zscore_per_lead")
    assert "baseline_dominates" not in flags_of(samples, recipe=per_lead)
    assert "baseline_dominates" not in flags_of(samples, recipe=Recipe("none", "1", normalization="none"))


def test_of_several_windows_those_with_a_baseline_are_counted() -> None:
    samples = ecg(30.0)
    samples[row("V3"), 5000:10000] += 3
    assert flags_of(samples, window=10, stride=10)["baseline_dominates"].endswith("%,1 windows")


# --- dropouts and dead leads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "found"), [(0.98, False), (1.02, True), (2.0, True), (4.0, True)])
@pytest.mark.parametrize("at", [1.0, 3.37])
@pytest.mark.parametrize("level", ["zero", "still"])
def test_a_dropout_is_more_than_a_second_in_which_no_lead_moves(
    seconds: float, found: bool, at: float, level: str
) -> None:
    samples = ecg()
    start, stop = round(at * 500), round((at + seconds) * 500)
    samples[:, start:stop] = 0 if level == "zero" else samples[:, start : start + 1]
    flags = flags_of(samples)
    assert ("dropout" in flags) == found
    if found:
        began, total = map(float, flags["dropout"].split(","))
        assert began == pytest.approx(at, abs=0.012)
        assert total == pytest.approx(seconds, abs=0.03)
    assert flags.keys() <= {"dropout"}


def test_one_lead_that_goes_on_is_no_dropout_and_gaps_of_nan_are() -> None:
    samples = ecg()
    samples[:11, 1000:2500] = 0
    assert "dropout" not in flags_of(samples)
    gaps = ecg()
    gaps[:, 500:1100] = gaps[:, 3000:4000] = np.nan
    assert flags_of(gaps)["dropout"] == "1,3.2"


@pytest.mark.parametrize("rms", [0.004, 0.01, 0.05])
@pytest.mark.parametrize("kind", ["noise", "50 Hz", "60 Hz", "both"])
def test_a_lead_with_noise_and_mains_alone_is_dead(rms: float, kind: str) -> None:
    rng = np.random.default_rng(3)
    at = np.arange(5000) / 500
    noise = rng.normal(0, 1, 5000)
    mains = {hz: np.sqrt(2) * np.sin(2 * np.pi * hz * at + 1) for hz in (50, 60)}
    alone = {"noise": noise, "50 Hz": mains[50], "60 Hz": mains[60], "both": (noise + mains[50]) / np.sqrt(2)}[kind]
    for lead in ("aVL", "V3"):
        samples = ecg(step=0.001)
        samples[row(lead)] = 0.1 + rms * alone
        found = flags_of(samples)
        smooth = rms == 0.004 and kind.endswith("Hz")  # it moves by 11 uV
        assert found["flat_lead" if smooth else "dead_lead"] == lead
        assert found.keys() <= {"dead_lead", "flat_lead", "goldberger_violated"}


def test_a_weak_lead_in_noise_is_not_dead() -> None:
    rng = np.random.default_rng(4)
    for weak, noise in ((0.03, 0.004), (0.06, 0.015), (0.1, 0.02)):
        samples = ecg(step=0.001)
        samples[row("V3")] = weak * samples[row("V3")] + rng.normal(0, noise, 5000)
        assert "dead_lead" not in flags_of(samples)


def test_beats_that_alternate_in_sign_are_not_dead() -> None:
    samples = ecg(20.0, step=0.001)
    beat = np.floor((np.arange(10000) / 500 + 0.35) / (60 / 70)).astype(int)
    samples[row("V3")] = 0.2 * samples[row("V3")] * np.where(beat % 2, 1, -1)
    assert "dead_lead" not in flags_of(samples)


def test_without_beats_in_the_others_no_lead_is_dead() -> None:
    rng = np.random.default_rng(5)
    assert "dead_lead" not in flags_of(rng.normal(0, 0.05, (12, 5000)).astype(np.float32))
    assert "dead_lead" not in flags_of(ecg(4.0))  # too few beats
    assert "dead_lead" not in flags_of(ecg()[:1], leads=("I",), mode="1lead")


# --- edges and pulses ------------------------------------------------------------------------------------------------


def with_pulse(samples: Samples, at: int, rate: float = 500.0, height: float = 1.0, seconds: float = 0.2) -> Samples:
    """The last second of `samples` as Philips records have it: zeros, a pulse at sample `at`, zeros."""
    out = samples.copy()
    out[:, at - round(0.1 * rate) :] = 0
    out[:, at : at + round(seconds * rate)] = height
    return out


@pytest.mark.parametrize("rate", [250.0, 500.0, 1000.0])
def test_a_calibration_pulse_is_found_at_any_rate(rate: float) -> None:
    found = flags_of(with_pulse(ecg(11, rate), round(10.7 * rate), rate), rate)
    assert found["calibration_pulse"] == "10.7"
    assert not found.keys() - {"calibration_pulse", "resampled", "aliasing_possible"}


def test_a_calibration_pulse_is_found_at_the_start_and_in_a_single_lead() -> None:
    samples = ecg(11)
    samples[:, :500] = 0
    samples[:, 150:250] = 1
    assert flags_of(samples)["calibration_pulse"] == "0.3"
    assert flags_of(with_pulse(ecg(11), 5350), mode="1lead") == {"calibration_pulse": "10.7"}


def test_a_calibration_pulse_that_derived_leads_do_not_show_is_found() -> None:
    samples = with_pulse(ecg(11), 5350)
    eight = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
    stored = samples[[row(lead) for lead in eight]]
    assert flags_of(stored, leads=eight) == {"calibration_pulse": "10.7", "derived_leads": "III,aVR,aVL,aVF"}


def test_a_pulse_outside_the_window_is_not_flagged_and_one_that_the_window_cuts_is() -> None:
    samples = with_pulse(ecg(11), 5350)
    assert flags_of(samples, window=10) == {}
    assert "calibration_pulse" in flags_of(samples, window=10.8)


@pytest.mark.parametrize("height", [0.5, 2.0])
def test_a_pulse_of_another_height_is_none(height: float) -> None:
    assert "calibration_pulse" not in flags_of(with_pulse(ecg(11), 5350, height=height))


def test_a_step_in_one_lead_alone_is_no_calibration_pulse() -> None:
    samples = ecg()
    samples[row("V1"), 2000:2100] += 1
    assert "calibration_pulse" not in flags_of(samples)


def test_zero_padded_edges_are_measured_and_short_ones_let_be() -> None:
    samples = ecg()
    samples[:, :60] = 0
    samples[:, -100:] = 0
    assert flags_of(samples) == {"zero_padded_edges": "0.12,0.2"}
    samples = ecg()
    samples[:, :50] = 0
    samples[:11, -100:] = 0  # one lead goes on
    assert flags_of(samples) == {}


def test_too_short_is_less_than_two_and_a_half_seconds() -> None:
    assert flags_of(ecg(2.49)) == {"too_short": ""}
    assert flags_of(ecg(2.5)) == {}


# --- limb leads ------------------------------------------------------------------------------------------------------


def test_einthoven_is_violated_by_mislabelled_leads_and_not_by_rounding() -> None:
    samples = ecg()
    samples[[2, 4]] = samples[[4, 2]]
    assert flags_of(samples) == {"einthoven_violated": ""}
    assert flags_of(samples, mode="1lead") == {"einthoven_violated": ""}
    assert flags_of(ecg(step=0.02)) == {}


def test_einthoven_is_not_asked_of_derived_leads_and_a_pulse_does_not_violate_it() -> None:
    samples = ecg()
    samples[2] = np.nan
    assert flags_of(samples) == {"derived_leads": "III"}
    assert flags_of(with_pulse(ecg(4.1), 1900)) == {"calibration_pulse": "3.8"}


def mislabelled(**holds: str) -> Samples:
    """An ECG in which leads hold others: aVL="aVF", aVR="-aVR"."""
    samples = ecg()
    out = samples.copy()
    for lead, other in holds.items():
        out[row(lead)] = samples[row(other.lstrip("-"))] * (-1 if other.startswith("-") else 1)
    return out


@pytest.mark.parametrize(
    "holds",
    [
        {"aVL": "aVF", "aVF": "aVL"},  # the order of MIMIC-IV-ECG, read as the usual one
        {"aVR": "-aVR"},
        {"aVR": "aVL", "aVL": "aVF", "aVF": "aVR"},
        {"aVR": "aVL", "aVL": "-aVR"},
    ],
)
def test_goldberger_names_what_the_augmented_leads_hold(holds: dict[str, str]) -> None:
    expected = ",".join(f"{lead}={holds[lead]}" for lead in ("aVR", "aVL", "aVF") if lead in holds)
    assert flags_of(mislabelled(**holds)) == {"goldberger_violated": expected}
    assert flags_of(mislabelled(**holds), mode="1lead") == {"goldberger_violated": expected}
    assert flags_of(with_pulse(mislabelled(**holds), 4800))["goldberger_violated"] == expected


def test_goldberger_is_violated_by_another_scale_and_not_by_rounding_offsets_or_noise() -> None:
    samples = ecg()
    samples[row("aVF")] /= 1.5  # not augmented
    assert flags_of(samples) == {"goldberger_violated": "aVF"}
    samples = ecg(step=0.02)
    samples[row("aVL")] += 0.3
    samples[row("aVR")] += np.random.default_rng(2).normal(0, 0.01, 5000).astype(np.float32)
    assert flags_of(samples) == {}
    samples = ecg()
    samples[row("aVL"), :] = 0  # derived, and so never wrong
    assert flags_of(samples) == {"derived_leads": "aVL"}


def exchanged(samples: Samples, electrodes: str) -> Samples:
    """What the twelve leads become when two limb electrodes are exchanged."""
    lead = dict(zip(STANDARD_LEADS, samples, strict=True))
    change = {
        "RA-LA": {"I": -lead["I"], "II": lead["III"], "III": lead["II"], "aVR": lead["aVL"], "aVL": lead["aVR"]},
        "RA-LL": {"I": -lead["III"], "II": -lead["II"], "III": -lead["I"], "aVR": lead["aVF"], "aVF": lead["aVR"]},
        "LA-LL": {"I": lead["II"], "II": lead["I"], "III": -lead["III"], "aVL": lead["aVF"], "aVF": lead["aVL"]},
        # With the right leg's electrode on an arm that arm's electrode sits on a leg, at the left leg's potential.
        "RA-RL": {"I": -lead["III"], "II": 0 * lead["I"], "III": lead["III"]},
        "LA-RL": {"I": lead["II"], "II": lead["II"], "III": 0 * lead["I"]},
    }[electrodes]
    noise = np.random.default_rng(3).normal(0, 0.008, samples.shape)  # no lead is exactly zero
    out = np.stack([change.get(name, lead[name]) for name in STANDARD_LEADS]) + noise
    return out.astype(np.float32)


@pytest.mark.parametrize("electrodes", ["RA-LA", "RA-LL", "LA-RL"])
def test_exchanged_limb_electrodes_are_found(electrodes: str) -> None:
    samples = exchanged(ecg(), electrodes)
    assert flags_of(samples)["limb_leads_swapped"] == electrodes
    if electrodes == "RA-LA":
        assert flags_of(samples, mode="1lead") == {"limb_leads_swapped": "RA-LA"}


def test_a_right_leg_electrode_on_the_right_arm_is_found() -> None:
    samples = ecg()
    samples[2] *= 2  # III large enough to see
    assert flags_of(exchanged(samples, "RA-RL"))["limb_leads_swapped"] == "RA-RL"


def test_what_looks_normal_is_not_called_exchanged() -> None:
    assert "limb_leads_swapped" not in flags_of(ecg())
    assert "limb_leads_swapped" not in flags_of(exchanged(ecg(), "LA-LL"))  # cannot be told from another axis
    samples = ecg()
    samples[row("I")] *= -1  # with V6 pointing down as well: the heart lies on the right, or all leads are inverted
    samples[row("V6")] *= -1
    assert "limb_leads_swapped" not in flags_of(samples)


# --- what was done ---------------------------------------------------------------------------------------------------


def test_resampled_and_aliasing_possible_name_what_was_done() -> None:
    assert flags_of(ecg(rate=1000.0), 1000.0) == {"resampled": "1000", "aliasing_possible": ""}
    assert flags_of(ecg(rate=1000.0), 1000.0, resampling="polyphase") == {"resampled": "1000"}
    assert flags_of(ecg(rate=250.0), 250.0) == {"resampled": "250"}
    assert flags_of(ecg()) == {}


@pytest.mark.parametrize(("rate", "gain"), [(100.0, 0.585), (128.0, 0.717), (200.0, 0.88)])
def test_a_low_sampling_rate_says_what_each_method_leaves_of_40_hz(rate: float, gain: float) -> None:
    found = flags_of(ecg(rate=rate), rate)
    linear, polyphase = found["low_sampling_rate"].split(",")
    assert linear == f"linear {gain:g}"
    assert float(polyphase.removeprefix("polyphase ")) == pytest.approx(1, abs=0.003)
    assert "low_sampling_rate" not in flags_of(ecg(rate=rate), rate, resampling="polyphase")


@pytest.mark.parametrize("rate", [240.0, 250.0, 360.0, 1000.0])
def test_a_rate_that_keeps_the_qrs_is_not_low(rate: float) -> None:
    assert "low_sampling_rate" not in flags_of(ecg(rate=rate), rate)


def test_a_rate_that_cannot_hold_40_hz_is_low_by_any_method() -> None:
    for method in ("linear", "polyphase"):
        assert flags_of(ecg(rate=75.0), 75.0, resampling=method)["low_sampling_rate"].startswith(f"{method} 0,")


def test_not_lead_I_and_other_lead_name_the_lead() -> None:
    assert flags_of(ecg(), mode="1lead", lead="II") == {"not_lead_I": "II"}
    assert flags_of(ecg()[:1], leads=("I",), mode="1lead", lead="V5") == {"other_lead": "I"}
    assert flags_of(ecg()[:1], leads=("I",), mode="1lead") == {}


def test_windows_have_their_flags() -> None:
    samples = ecg(11)
    samples[:, 1000:2000] = 0
    found = flags_of(samples, window=2, stride=2, remainder="pad")
    assert found == {"zero_padded": "1", "constant_windows": "1", "dropout": "2,2"}
    assert flags_of(ecg(10.02), recipe=FILTERED, window=2, stride=2, remainder="keep") == {"remainder_dropped": "0.02"}
    assert flags_of(ecg(), window=2, stride=2, remainder="pad") == {}


# --- any input -------------------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 1500),
    n_leads=st.integers(1, 12),
    rate=st.sampled_from([25.0, 100.0, 500.0, 8000.0]),
    kind=st.sampled_from(["noise", "steps", "ones", "huge"]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=150)
def test_any_samples_can_be_assessed(n: int, n_leads: int, rate: float, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    samples = {
        "noise": rng.standard_normal((n_leads, n)),
        "steps": np.repeat(rng.integers(-1, 2, (1, n)), n_leads, axis=0),
        "ones": np.ones((n_leads, n)),
        "huge": rng.standard_normal((n_leads, n)) * 1e30,
    }[kind].astype(np.float32)
    with np.errstate(over="ignore"):
        flags = quality.assess(samples, STANDARD_LEADS[:n_leads], rate)
    assert {flag.partition(":")[0] for flag in flags} <= quality.FLAGS.keys()
    assert len({flag.partition(":")[0] for flag in flags}) == len(flags)


def test_flags_cost_less_than_a_millisecond() -> None:
    samples = with_pulse(ecg(11), 5350)
    quality.assess(samples, STANDARD_LEADS, 500.0)
    best = min(_seconds_to_assess(samples) for _ in range(50))
    assert best < 1e-3


def _seconds_to_assess(samples: Samples) -> float:
    start = time.perf_counter()
    quality.assess(samples, STANDARD_LEADS, 500.0)
    return time.perf_counter() - start


EXPECTED = {
    "sierra/129DYPRG.XML": {"calibration_pulse": "10.7"},
    "sierra/3191723_ZZDEMOPTONLY_1-04_orig.xml": {"calibration_pulse": "10.7"},
    # Drawn, not recorded; its aVR and aVL are not what its I and II give.
    "hl7_aecg/liryc_example.xml": {
        "einthoven_violated": "",
        "goldberger_violated": "aVR=aVF,aVL",
        "resampled": "100",
        "low_sampling_rate": "linear 0.585,polyphase 1",
    },
    "dicom/pydicom_waveform_ecg.dcm": {"resampled": "1000", "aliasing_possible": ""},
    "wfdb/s0010_re.hea": {"resampled": "1000", "aliasing_possible": ""},
}


@pytest.mark.skipif(
    not (RECORDINGS / "expected.npz").exists(), reason="needs ../shared/ecg, which is not in the repository"
)
def test_real_recordings_raise_no_false_alarm() -> None:
    rates = json.loads((RECORDINGS / "expected_rates.json").read_text())
    with np.load(RECORDINGS / "expected.npz") as recordings:
        for name in recordings:
            assert flags_of(recordings[name], float(rates[name])) == EXPECTED.get(name, {}), name
