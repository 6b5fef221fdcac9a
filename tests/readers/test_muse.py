"""GE MUSE XML: what is read, and that anything else is refused."""

from __future__ import annotations

import base64
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import select_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import muse, read_ecg
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate
from tests.builders.muse import STORED, counts_of, document, lead_data, waveform
from tests.places import RECORDINGS


def read(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    return muse.read(Source(locate(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.xml"


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the real recordings of ../shared are not here")
def test_real_recording_equals_its_reference_decode() -> None:
    name = "muse/braveheart_example1.xml"
    recording = read_ecg(RECORDINGS / name)
    assert recording.source_format == "ge_muse"
    assert recording.sampling_rate == 500
    assert recording.leads == STORED
    selection = select_leads(recording)
    assert selection.derived == ("III", "aVR", "aVL", "aVF")
    np.testing.assert_allclose(selection.samples, np.load(RECORDINGS / "expected.npz")[name], rtol=0, atol=1e-6)
    assert recording.meta["highpass_hz"] == 0.16
    assert recording.meta["notch_hz"] == 60


def test_rhythm_is_taken_though_the_median_comes_first(file: Path) -> None:
    median, rhythm = counts_of(STORED, 60, seed=1), counts_of(STORED, 500, seed=2)
    recording = read(file, document(waveform(median, "Median"), waveform(rhythm)))
    assert recording.n_samples == 500
    np.testing.assert_allclose(recording.samples[0], rhythm["I"] * 0.00488, atol=1e-6)


def test_found_by_content_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "noname"
    path.write_bytes(document(waveform(counts_of(STORED))))
    assert read_ecg(path).source_format == "ge_muse"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    leads=st.permutations((*STORED, "V3R", "V4R", "V7")).map(tuple),
    base_exponent=st.sampled_from([(500, 0), (250, 0), (1000, 0), (5, 2), (24, 1), (5000, -1)]),
    unit=st.sampled_from([("MICROVOLTS", 1e-3), ("MILLIVOLTS", 1.0), ("uV", 1e-3), (None, 1e-3)]),
    dtype=st.sampled_from(["<i2", "<i4"]),
    seed=st.integers(0, 1000),
)
def test_any_lead_order_rate_unit_and_sample_size(
    file: Path,
    leads: tuple[str, ...],
    base_exponent: tuple[int, int],
    unit: tuple[str | None, float],
    dtype: str,
    seed: int,
) -> None:
    counts = {lead: values.astype(dtype) for lead, values in counts_of(leads, 40, seed).items()}
    base, exponent = base_exponent
    recording = read(file, document(waveform(counts, base=base, exponent=exponent, LeadAmplitudeUnits=unit[0])))
    assert recording.leads == leads
    assert recording.sampling_rate == pytest.approx(base * 10.0**exponent)
    for row, lead in zip(recording.samples, leads, strict=True):
        np.testing.assert_allclose(row, counts[lead] * 4.88 * unit[1], rtol=1e-6, atol=1e-6)


def test_fifteen_leads_keep_their_names(file: Path) -> None:
    leads = (*STORED, "V3R", "V4R", "V7")
    recording = read(file, document(waveform(counts_of(leads))))
    assert recording.leads == leads
    assert select_leads(recording).missing == ()


def test_decimal_comma_and_missing_base64_padding_are_understood(file: Path) -> None:
    samples = counts_of(("I",), 5)["I"]
    stripped = base64.b64encode(samples.tobytes()).decode().rstrip("=")
    recording = read(file, document(waveform({"I": samples}, LeadAmplitudeUnitsPerBit="2,44", WaveFormData=stripped)))
    np.testing.assert_allclose(recording.samples[0], samples * 0.00244, atol=1e-6)


def test_leads_of_different_start_and_length_are_nan_where_not_recorded(file: Path) -> None:
    counts = counts_of(("I", "II"), 20)
    late = lead_data("II", counts["II"][:10], LeadOffsetFirstSample=5)
    content = document(waveform({"I": counts["I"]}).replace("</Waveform>", late + "</Waveform>"))
    recording = read(file, content)
    assert np.isnan(recording.samples[1]).nonzero()[0].tolist() == [*range(5), *range(15, 20)]
    np.testing.assert_allclose(recording.samples[1, 5:15], counts["II"][:10] * 0.00488, atol=1e-6)


@pytest.mark.parametrize("crc", [None, "0", ""])
def test_absent_checksum_is_not_an_error(file: Path, crc: str | None) -> None:
    assert read(file, document(waveform(counts_of(STORED), LeadDataCRC32=crc))).leads == STORED


def test_signed_checksum_is_understood(file: Path) -> None:
    samples = counts_of(("I",), seed=2)["I"]
    crc = zlib.crc32(samples.tobytes())
    assert crc >= 1 << 31  # below, a signed number is the same
    assert read(file, document(waveform({"I": samples}, LeadDataCRC32=crc - (1 << 32)))).leads == ("I",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"LeadDataCRC32": 12345}, "checksum"),
        ({"LeadByteCountTotal": 99}, "LeadByteCountTotal"),
        ({"LeadSampleCountTotal": 10**9}, "LeadSampleCountTotal"),
        ({"LeadSampleSize": 3}, "1, 2 or 4 bytes"),
        ({"LeadAmplitudeUnits": "PARSEC"}, "unit of voltage"),
        ({"LeadAmplitudeUnitsPerBit": "0"}, "is 0"),
        ({"LeadAmplitudeUnitsPerBit": "nan"}, "not a number"),
        ({"LeadAmplitudeUnitsPerBit": "1e300"}, "kilovolt"),
        ({"LeadAmplitudeUnitsPerBit": None}, "not a number"),
        ({"WaveFormData": "!!!!"}, "base64"),
        ({"LeadID": ""}, "LeadID"),
    ],
)
def test_a_lead_that_contradicts_itself_is_refused(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, document(waveform(counts_of(("I",)), **changes)))


def test_an_offset_far_outside_the_recording_needs_no_memory(file: Path) -> None:
    counts = counts_of(("I", "II"))
    late = lead_data("II", counts["II"], LeadOffsetFirstSample=10**12)
    with pytest.raises(ReadError, match="LeadOffsetFirstSample"):
        read(file, document(waveform({"I": counts["I"]}).replace("</Waveform>", late + "</Waveform>")))


def test_median_beat_alone_is_refused(file: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="Rhythm"):
        read(file, document(waveform(counts_of(STORED), "Median")))


def test_errors_do_not_quote_unknown_lead_names(file: Path) -> None:
    with pytest.raises(ReadError) as caught:
        read(file, document(waveform(counts_of(("JOHN DOE",)), LeadDataCRC32=1)))
    assert "JOHN" not in str(caught.value)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE RestingECG [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE RestingECG [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_entities_are_refused(file: Path, doctype: str) -> None:
    with pytest.raises(ReadError):
        read(file, document(waveform(counts_of(STORED)), doctype=doctype))


def test_deep_nesting_is_refused(file: Path) -> None:
    with pytest.raises(ReadError):
        read(file, document("<a>" * 100_000 + "</a>" * 100_000))
