"""Lead names, order and derivation; and what a recording refuses to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.ecg.leads import (
    KNOWN_LEADS,
    LEAD_OF_SCP_CODE,
    STANDARD_LEADS,
    canonical_lead,
    canonical_leads,
    channel_label,
    has_signal,
    select_leads,
)
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare


def recording(leads: tuple[str, ...], n_samples: int = 1000) -> Recording:
    samples = np.random.default_rng(5).standard_normal((len(leads), n_samples)).astype(np.float32)
    return Recording(samples, 500.0, leads, "test")


@pytest.mark.parametrize(
    ("names", "lead"),
    [
        ("I i LeadI lead_i DI D1 MDC_ECG_LEAD_I MDC_ECG_ELEC_POTL_I I_mV", "I"),
        ("ii II MDC_ECG_LEAD_II Lead2 DII", "II"),
        ("avr AVR aVR MDC_ECG_LEAD_AVR MDC_ECG_LEAD_aVR LEAD_AVR aV-R", "aVR"),
        ("v3 V3 C3 MDC_ECG_LEAD_V3 ECG-V3 ekg_v3 V-3 LeadV3 V3[uV]", "V3"),
        ("vx VX MDC_ECG_LEAD_X", "vx"),
        ("MLII mlii", "MLII"),
        ("-aVR MDC_ECG_LEAD_AVRneg", "-aVR"),
        ("v4r MDC_ECG_LEAD_V4R", "V4R"),
    ],
)
def test_every_spelling_of_a_lead_gives_one_name(names: str, lead: str) -> None:
    assert {canonical_lead(name) for name in names.split()} == {lead}


def test_spellings_with_blanks_are_known_too() -> None:
    named = canonical_leads(
        [" V1 ", "Lead aVL", "Lead I (Einthoven)", "ECG II", "EKG lead V6", "V 2", "Lead 3", "V5 (mV)"]
    )
    assert named == ("V1", "aVL", "I", "II", "V6", "V2", "III", "V5")


@pytest.mark.parametrize(
    "name", ["ECG 1", "1", "2", "I-II", "V1-V2", "X", "Resp", "ECG", "", "V", "-aVR", "MLII", "V7"]
)
def test_what_is_no_standard_lead_never_becomes_one(name: str) -> None:
    assert canonical_lead(name) not in STANDARD_LEADS


@given(st.text(max_size=12))
def test_naming_is_idempotent(name: str) -> None:
    assert canonical_lead(canonical_lead(name)) == canonical_lead(name)


def test_scp_codes_name_the_twelve_leads_as_the_standard_numbers_them() -> None:
    codes = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
    assert tuple(LEAD_OF_SCP_CODE[code] for code in codes) == STANDARD_LEADS
    assert LEAD_OF_SCP_CODE[11] == "V3R"
    assert len(set(LEAD_OF_SCP_CODE.values())) == len(LEAD_OF_SCP_CODE)


def test_a_channel_of_unknown_name_is_shown_by_its_number() -> None:
    ecg = recording(("V1", "John Doe"))
    assert channel_label(ecg, "V1") == "V1"
    assert channel_label(ecg, "John Doe") == "channel 2"
    assert set(STANDARD_LEADS) < KNOWN_LEADS


def test_leads_are_taken_by_name_whatever_the_order() -> None:
    mimic_order = ("I", "II", "III", "aVR", "aVF", "aVL", "V1", "V2", "V3", "V4", "V5", "V6")
    ecg = recording(mimic_order)
    selection = select_leads(ecg)
    for lead, row in zip(selection.leads, selection.samples, strict=True):
        np.testing.assert_array_equal(row, ecg.samples[mimic_order.index(lead)])
    assert (selection.derived, selection.missing) == ((), ())


def test_fifteen_leads_give_the_twelve() -> None:
    ecg = recording((*STANDARD_LEADS, "vx", "vy", "vz"))
    np.testing.assert_array_equal(select_leads(ecg).samples, ecg.samples[:12])


def test_limb_leads_are_derived_by_einthoven_and_goldberger() -> None:
    ecg = recording(("II", "V1", "I"))
    selection = select_leads(ecg, STANDARD_LEADS[:6])
    ii, _, i = ecg.samples.astype(np.float64)
    expected = (i, ii, ii - i, -(i + ii) / 2, i - ii / 2, ii - i / 2)
    np.testing.assert_allclose(selection.samples, expected, rtol=0, atol=1e-6)
    assert selection.derived == ("III", "aVR", "aVL", "aVF")


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf])
def test_a_lead_without_signal_is_derived_where_possible_and_missing_elsewhere(nothing: float) -> None:
    ecg = recording(STANDARD_LEADS)
    ecg.samples[[2, 7]] = nothing
    selection = select_leads(ecg)
    assert (selection.derived, selection.missing) == (("III",), ("V2",))
    np.testing.assert_allclose(selection.samples[2], ecg.samples[1] - ecg.samples[0], rtol=0, atol=1e-6)
    assert not selection.samples[7].any()


@pytest.mark.parametrize("pair", [("I", "II"), ("II", "III"), ("III", "I")])
def test_any_two_of_the_limb_leads_give_the_others(pair: tuple[str, str]) -> None:
    of_i_and_ii = recording(("I", "II"))
    whole = select_leads(of_i_and_ii, STANDARD_LEADS[:6]).samples
    two = np.stack([whole[STANDARD_LEADS.index(lead)] for lead in pair])
    selection = select_leads(Recording(two, 500.0, pair, "test"), STANDARD_LEADS[:6])
    np.testing.assert_allclose(selection.samples, whole, rtol=0, atol=2e-6)
    assert selection.derived == tuple(lead for lead in STANDARD_LEADS[:6] if lead not in pair)
    assert selection.missing == ()


def test_one_limb_lead_gives_no_other() -> None:
    for lead in ("I", "II", "III", "aVR", "aVF"):
        assert len(select_leads(recording((lead, "V1")), STANDARD_LEADS[:6]).missing) == 5


def test_a_lead_minus_avr_is_avr_with_its_sign_turned() -> None:
    cabrera = ("aVL", "I", "-aVR", "II", "aVF", "III", "V1", "V2", "V3", "V4", "V5", "V6")
    ecg = recording(cabrera)  # not what I and II give, so that a derived lead would be another one
    selection = select_leads(ecg)
    np.testing.assert_array_equal(selection.samples[3], -ecg.samples[2])
    assert (selection.derived, selection.missing) == ((), ())
    both = recording((*STANDARD_LEADS, "-aVR"))
    np.testing.assert_array_equal(select_leads(both).samples[3], both.samples[3])
    alone = recording(("-aVR", "V1"))
    np.testing.assert_array_equal(select_leads(alone, ("aVR",)).samples[0], -alone.samples[0])


def test_has_signal_looks_at_the_whole_lead() -> None:
    lead = np.zeros(1000, np.float32)
    lead[:100] = np.nan
    assert not has_signal(lead)
    lead[999] = 0.001
    assert has_signal(lead)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": np.zeros((2, 10))}, "float32"),
        ({"samples": np.zeros(10, np.float32)}, "n_leads, n_samples"),
        ({"samples": np.zeros((3, 10), np.float32)}, "3 rows of samples but 2 lead names"),
        ({"samples": np.zeros((2, 0), np.float32)}, "no samples"),
        ({"sampling_rate": 0.0}, "impossible sampling rate"),
        ({"sampling_rate": float("nan")}, "impossible sampling rate"),
        ({"leads": ("I", "I")}, "channels 1 and 2 have the same lead name"),
        ({"meta": {"patient_name": "x"}}, "not allowed in meta: patient_name"),
    ],
)
def test_a_recording_that_contradicts_itself_is_refused(change: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {
        "samples": np.zeros((2, 10), np.float32),
        "sampling_rate": 500.0,
        "leads": ("I", "II"),
        "source_format": "test",
    }
    with pytest.raises(ReadError, match=message):
        Recording(**(parts | change))


def test_duration_and_repr_say_what_was_read() -> None:
    ecg = recording(("I", "II"), 1250)
    assert (ecg.n_samples, ecg.duration) == (1250, 2.5)
    assert "2 leads I II, 1250 samples at 500 Hz, 2.5 s" in repr(ecg)


@pytest.mark.parametrize("n_samples", [1, 1500])
def test_samples_in_any_memory_layout_are_prepared_alike(n_samples: int) -> None:
    plain = recording(STANDARD_LEADS, n_samples)
    samples = plain.samples
    wide = np.repeat(samples, 2, axis=1)
    layouts = [
        np.asfortranarray(samples),
        np.ascontiguousarray(samples.T).T,
        np.ascontiguousarray(samples[:, ::-1])[:, ::-1],
        np.ascontiguousarray(samples[::-1])[::-1],
        wide[:, ::2],
    ]
    for layout in layouts:
        found = Recording(layout, 500.0, STANDARD_LEADS, "test")
        np.testing.assert_array_equal(found.samples, samples)
        if n_samples > 1:
            one, other = prepare(plain, Preparation()), prepare(found, Preparation())
            assert one.flags == other.flags
            assert one.inputs[0].tobytes() == other.inputs[0].tobytes()
