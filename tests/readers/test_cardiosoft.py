"""GE CardioSoft XML: what is read, and that anything else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS, select_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import cardiosoft, read_ecg
from ecgfounder.readers.quantities import numbers_of
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate
from tests.builders.cardiosoft import counts_of, document, strip_data, waveforms
from tests.places import RECORDINGS


def read(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    return cardiosoft.read(Source(locate(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.xml"


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the real recordings of ../shared are not here")
def test_real_recording_equals_its_reference_decode() -> None:
    name = "cardiosoft/ecgprocess_XML1.xml"
    recording = read_ecg(RECORDINGS / name)
    assert recording.source_format == "ge_cardiosoft"
    assert recording.sampling_rate == 500
    np.testing.assert_allclose(
        select_leads(recording).samples, np.load(RECORDINGS / "expected.npz")[name], rtol=0, atol=1e-6
    )
    assert recording.meta["notch_hz"] == 50


def test_strip_is_taken_not_median_or_full_disclosure(file: Path) -> None:
    leads = counts_of(STANDARD_LEADS, 100)
    recording = read(file, document(strip_data(leads, total="100")))
    assert recording.n_samples == 100
    np.testing.assert_allclose(recording.samples[0], np.array(leads["I"]) * 0.005, atol=1e-6)
    assert recording.meta["notch_hz"] == 60
    assert recording.meta["lowpass_hz"] == 40


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(STANDARD_LEADS),
    upper=st.booleans(),
    rate=st.sampled_from(["250", "500", "1000"]),
    scale=st.sampled_from(
        [
            ("5", "uVperLsb", 5e-3),
            ("4.88", "uVperLsb", 4.88e-3),
            ("2.5", "uvpersample", 2.5e-3),
            ("0.005", "mVperLsb", 5e-3),
            ("5", None, 5e-3),
        ]
    ),
    seed=st.integers(0, 1000),
)
def test_any_lead_order_case_rate_and_resolution(
    file: Path, order: list[str], upper: bool, rate: str, scale: tuple[str, str | None, float], seed: int
) -> None:
    leads = counts_of(tuple(lead.upper() if upper else lead for lead in order), 33, seed)
    recording = read(file, document(strip_data(leads, rate, scale[0], scale[1])))
    assert recording.leads == tuple(order)
    assert recording.sampling_rate == float(rate)
    np.testing.assert_allclose(recording.samples, np.array(list(leads.values())) * scale[2], rtol=1e-6, atol=1e-6)


def test_first_strip_of_an_exercise_ecg_is_taken(file: Path) -> None:
    first, second = counts_of(("I", "II", "V5"), 40, seed=1), counts_of(("I", "II", "V5"), 40, seed=2)
    shared = '<SampleRate units="Hz">500</SampleRate><Resolution units="uVperLsb">5</Resolution>'
    strips = f"<Strip>{waveforms(first)}</Strip><Strip>{waveforms(second)}</Strip>"
    recording = read(file, document(f"<StripData>{shared}{strips}</StripData>"))
    np.testing.assert_allclose(recording.samples[2], np.array(first["V5"]) * 0.005, atol=1e-6)


def test_a_blank_number_is_nan_and_shifts_nothing(file: Path) -> None:
    content = document(strip_data({"I": [1, 2, 3, 4], "II": [5, 6, 7, 8]})).replace(b"5,6,7,8", b"5, ,7,8,")
    samples = read(file, content).samples
    np.testing.assert_allclose(samples[1], [0.025, np.nan, 0.035, 0.04], atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (document(strip_data({"I": [1, 2, 3]}, total="4")), "ChannelSampleCountTotal"),
        (document(strip_data({"I": [1, 2, 3]}, units="mmPerLsb")), "not in uV, mV"),
        (document(strip_data({"I": [1, 2, 3]}, resolution="0")), "above 0"),
        (document(strip_data({"I": [1, 2, 3]}, resolution="")), "not a number"),
        (document(strip_data({"I": [1, 2, 3]}, rate="")), "not a number"),
        (document(strip_data({"I": [1, 2, 3]}, rate="0")), "sampling rate"),
        (document(strip_data({"": [1, 2, 3]})), "lead name"),
        (document(strip_data({"I": []})), "no samples"),
        (document(strip_data({"I": [1, 2, 3]})).replace(b"1,2,3", b"1,2,x"), "not part of a number"),
        (document(strip_data({"I": [1, 2, 3]})).replace(b"1,2,3", b"1,2-3"), "not a number"),
        (document(strip_data({"I": [1, 2, 3]})).replace(b"1,2,3", b"1,2,9e99"), "kilovolt"),
        (document(strip_data({"I": [1, 2, 3]})).replace(b"1,2,3", b"1 2,3"), "not a number"),
    ],
)
def test_contradictions_are_refused(file: Path, content: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, content)


def test_file_without_strip_is_refused(file: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="StripData"):
        read(file, document())


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(-(10**11), 10**11), max_size=30),
    separator=st.sampled_from([",", " ", "\n\t", ", ", ",\r\n\t"]),
    ends=st.booleans(),
)
def test_whole_numbers_are_parsed_exactly(values: list[int], separator: str, ends: bool) -> None:
    text = separator.join(map(str, values)) + (separator if ends and values else "")
    assert numbers_of(text, "text").tolist() == [float(value) for value in values]


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), max_size=30), separator=st.sampled_from([",", " ", ", "]))
def test_decimal_numbers_are_parsed_exactly(values: list[float], separator: str) -> None:
    assert numbers_of(separator.join(map(repr, values)), "text").tolist() == values


@settings(max_examples=200, deadline=None)
@given(text=st.text("0123456789+-., \n", max_size=12))
def test_any_text_is_parsed_as_python_does_or_refused(text: str) -> None:
    fields = text.split(",") if "," in text else text.split()
    if fields and not fields[-1].strip():
        fields.pop()
    try:
        expected = [float(field) if field.strip() else np.nan for field in fields]
    except ValueError:
        with pytest.raises(ReadError):
            numbers_of(text, "text")
    else:
        np.testing.assert_array_equal(numbers_of(text, "text"), expected)
