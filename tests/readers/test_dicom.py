"""DICOM ECG waveforms: what is read, and that anything else is refused."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS, select_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import dicom, dicom_stored, read_ecg
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate
from tests.builders.dicom import (
    BIG_ENDIAN,
    CT_IMAGE,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    TWELVE_LEAD,
    channel,
    coded,
    counts_of,
    ecg,
    encoded,
    group,
    item,
    rhythm,
    without_meta,
)
from tests.harness.effort import measured
from tests.places import RECORDINGS


def read(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    source = Source(locate(path))
    assert dicom.matches(source)
    return dicom.read(source)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.dcm"


needs_shared = pytest.mark.skipif(not RECORDINGS.exists(), reason="the real recordings of ../shared are not here")


@needs_shared
@pytest.mark.parametrize(("name", "rate"), [("ecgtoolkit_Example", 500), ("pydicom_waveform_ecg", 1000)])
def test_real_recording_equals_its_reference_decode(name: str, rate: float) -> None:
    key = f"dicom/{name}.dcm"
    recording = read_ecg(RECORDINGS / key)
    assert recording.source_format == "dicom"
    assert recording.sampling_rate == rate
    np.testing.assert_allclose(
        select_leads(recording).samples, np.load(RECORDINGS / "expected.npz")[key], rtol=0, atol=1e-6
    )


@needs_shared
def test_the_same_record_as_dicom_and_as_aecg_is_the_same_recording() -> None:
    first = read_ecg(RECORDINGS / "dicom" / "ecgtoolkit_Example.dcm")
    second = read_ecg(RECORDINGS / "hl7_aecg" / "ecgtoolkit_Example.xml")
    assert first.sampling_rate == second.sampling_rate
    assert set(first.leads) == set(second.leads)
    np.testing.assert_array_equal(select_leads(first).samples, select_leads(second).samples)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(STANDARD_LEADS),
    scheme=st.sampled_from(["MDC", "MDC number", "MDC id", "SCPECG", "text"]),
    syntax=st.sampled_from([IMPLICIT, EXPLICIT, DEFLATED]),
    undefined_length=st.booleans(),
    dtype=st.sampled_from(["i1", "u1", "i2", "u2", "i4"]),
    unit=st.sampled_from([("uV", 1e-3), ("mV", 1.0), ("V", 1e3), ("nV", 1e-6), ("UV\0", 1e-3)]),
    rate=st.sampled_from(["250", "500", "1000"]),
    n_samples=st.integers(1, 41),
)
def test_any_coding_syntax_depth_unit_and_rate(
    file: Path,
    order: list[str],
    scheme: str,
    syntax: str,
    undefined_length: bool,
    dtype: str,
    unit: tuple[str, float],
    rate: str,
    n_samples: int,
) -> None:
    counts = counts_of(tuple(order), n_samples, dtype=dtype)
    channels = [
        channel(
            lead,
            scheme,
            unit[0],
            ChannelSensitivity="0.25",
            ChannelSensitivityCorrectionFactor="1.5",
            ChannelBaseline="3",
        )
        for lead in order
    ]
    recording = read(file, encoded(ecg(group(counts, channels, SamplingFrequency=rate)), syntax, undefined_length))
    assert recording.leads == tuple(order)
    assert recording.sampling_rate == float(rate)
    expected = (counts.T.astype(float) * 0.25 * 1.5 + 3) * unit[1]
    np.testing.assert_allclose(recording.samples, expected, rtol=1e-6, atol=1e-9)


def test_big_endian_samples_are_swapped(file: Path) -> None:
    dataset = ecg(rhythm(("I", "II"), WaveformData=counts_of(("I", "II")).astype(">i2").tobytes()))
    recording = read(file, encoded(dataset, BIG_ENDIAN))
    np.testing.assert_allclose(recording.samples.T, counts_of(("I", "II")) * 0.005, atol=1e-6)


@pytest.mark.parametrize("implicit", [True, False])
def test_file_without_preamble_is_found_and_read(file: Path, implicit: bool) -> None:
    recording = read(file, without_meta(ecg(rhythm()), implicit))
    assert recording.leads == STANDARD_LEADS


def test_gzip_is_read_through(file: Path) -> None:
    assert read(file, gzip.compress(encoded(ecg(rhythm())))).leads == STANDARD_LEADS


def test_original_rhythm_is_taken_not_median_or_derived(file: Path) -> None:
    median = rhythm(n_samples=70, seed=1, MultiplexGroupLabel="MEDIAN BEAT", WaveformOriginality="DERIVED")
    unlabelled = rhythm(n_samples=60, seed=2, MultiplexGroupLabel=None, WaveformOriginality="DERIVED")
    recording = read(file, encoded(ecg(median, unlabelled, rhythm(n_samples=50))))
    np.testing.assert_allclose(recording.samples.T, counts_of(STANDARD_LEADS) * 0.005, atol=1e-6)
    with pytest.raises(UnsupportedFormatError, match="median"):
        read(file, encoded(ecg(median)))


def test_groups_of_three_leads_lie_on_one_time_axis(file: Path) -> None:
    groups = [
        rhythm(STANDARD_LEADS[i : i + 3], 50, seed=i, MultiplexGroupTimeOffset=str(i / 3 * 100))
        for i in range(0, 12, 3)
    ]
    recording = read(file, encoded(ecg(*groups)))
    assert recording.leads == STANDARD_LEADS
    assert recording.n_samples == 200
    np.testing.assert_allclose(recording.samples[6:9, 100:150].T, counts_of(("a",) * 3, 50, 6) * 0.005, atol=1e-6)
    assert np.isnan(recording.samples[6:9, :100]).all()


def test_group_with_the_most_standard_leads_is_taken(file: Path) -> None:
    recording = read(file, encoded(ecg(rhythm(("II",), 500), rhythm())))
    assert recording.leads == STANDARD_LEADS
    assert recording.n_samples == 50


@pytest.mark.parametrize(
    ("padding", "becomes_nan"), [(-32768, True), (32767, True), (0, False), (-1, False), (100, False)]
)
def test_padding_is_nan_only_where_no_sample_can_have_its_value(file: Path, padding: int, becomes_nan: bool) -> None:
    counts = np.array([[100], [padding], [-1], [0], [padding]], dtype="<i2")
    value = np.array(padding, "<i2").tobytes()
    samples = read(file, encoded(ecg(group(counts, [channel("I")], WaveformPaddingValue=value)))).samples[0]
    assert np.isnan(samples).tolist() == [False, becomes_nan, False, False, becomes_nan]


def test_whole_sample_skew_moves_a_channel(file: Path) -> None:
    counts = counts_of(("I", "II"), 10)
    channels = [channel("I", ChannelSampleSkew="0.3"), channel("II", ChannelSampleSkew="2")]
    samples = read(file, encoded(ecg(group(counts, channels)))).samples
    np.testing.assert_allclose(samples[0], counts[:, 0] * 0.005, atol=1e-6)
    np.testing.assert_allclose(samples[1, 2:], counts[:-2, 1] * 0.005, atol=1e-6)
    assert np.isnan(samples[1, :2]).all()


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.1.Jane", "Doe^Jane", "1.2..3", "9" * 70])
def test_an_invalid_class_is_told_nowhere(uid: str, recwarn: pytest.WarningsRecorder) -> None:
    content = encoded(ecg(rhythm())).replace(
        TWELVE_LEAD.encode(), uid.encode()[: len(TWELVE_LEAD)].ljust(len(TWELVE_LEAD))
    )
    recording = read_ecg(content)
    assert recording.leads == STANDARD_LEADS
    assert "format_version" not in recording.meta
    assert list(recwarn) == []


def test_pressures_are_left_out(file: Path) -> None:
    channels = [channel("I"), channel("V1", "text", "mm[Hg]", ChannelSourceSequence=coded("x", "L", "Aorta"))]
    assert read(file, encoded(ecg(group(counts_of(("I", "p")), channels)))).leads == ("I",)


def test_device_and_filters_are_in_meta_and_the_patient_is_not(file: Path) -> None:
    assert dict(read(file, encoded(ecg(rhythm()))).meta) == {
        "format_version": "12-lead ECG Waveform Storage",
        "device_manufacturer": "Maker",
        "device_model": "Model",
        "highpass_hz": 0.05,
        "resolution_uv": 5.0,
    }


def test_an_image_is_not_an_ecg(file: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="CT Image Storage"):
        read(file, encoded(item(SOPClassUID=CT_IMAGE, PatientName="Doe^Jane", Rows=1)))


def test_other_waveforms_are_not_an_ecg(file: Path) -> None:
    eeg = group(counts_of(("x",)), [channel("I", ChannelSourceSequence=coded("x", "L", "Fp1"))])
    with pytest.raises(UnsupportedFormatError, match="standard lead"):
        read(file, encoded(ecg(eeg, sop_class="1.2.840.10008.5.1.4.1.1.9.7.1")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NumberOfWaveformSamples": 51}, "but WaveformData has 1200"),
        ({"NumberOfWaveformSamples": 49}, "but WaveformData has 1200"),
        ({"NumberOfWaveformSamples": 2**32 - 1}, "but WaveformData has 1200"),
        ({"NumberOfWaveformSamples": 0}, "above 0"),
        ({"NumberOfWaveformChannels": 65535}, "channel definitions"),
        ({"NumberOfWaveformChannels": None}, "found none"),
        ({"SamplingFrequency": None}, "SamplingFrequency"),
        ({"SamplingFrequency": "0"}, "sampling rate"),
        ({"WaveformBitsAllocated": 8, "WaveformSampleInterpretation": "MB"}, "linear"),
        ({"WaveformBitsAllocated": 8, "WaveformSampleInterpretation": "AB"}, "linear"),
        ({"WaveformBitsAllocated": 24}, "linear"),
    ],
)
def test_a_group_that_contradicts_itself_is_refused(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, encoded(ecg(rhythm(**changes))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": None}, "sensitivity in uV"),
        ({"units": "mmHg"}, "sensitivity in uV"),
        ({"ChannelSensitivity": None}, "ChannelSensitivity"),
        ({"ChannelSensitivity": "0"}, "sensitivity is 0"),
        ({"ChannelSensitivity": "1e300"}, "kilovolt"),
        ({"ChannelSampleSkew": "1000"}, "skewed"),
    ],
)
def test_a_channel_that_contradicts_itself_is_refused(file: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, encoded(ecg(group(counts_of(("I",)), [channel("I", **changes)]))))


def test_a_deflate_bomb_is_refused_in_bounded_memory(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_stored, "MAX_UNPACKED_BYTES", 1 << 20)
    content = encoded(ecg(rhythm()), DEFLATED)
    start = content.index(DEFLATED.encode()) + len(DEFLATED)
    packer = zlib.compressobj(wbits=-15)
    bomb = content[:start] + packer.compress(bytes(64 << 20)) + packer.flush()
    with pytest.raises(ReadError, match="unpacks to more"):
        read(file, bomb)


def test_sequences_nested_without_end_are_refused_in_time(file: Path) -> None:
    start = encoded(ecg(rhythm()))
    waveforms = start.index(b"\x00\x54\x00\x01SQ")
    level = b"\x00\x54\x00\x01SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    for nested in (level * 50_000, level * 50_000 + closing * 50_000):
        with measured() as effort, pytest.raises(ReadError):
            read(file, start[:waveforms] + nested)
        assert effort.lines < 100_000  # one recursion deeper for each level, up to the limit: 22,500


def test_every_truncation_is_read_or_refused(file: Path) -> None:
    content = encoded(ecg(rhythm(n_samples=5)))
    for length in range(132, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(ReadError):
            dicom.read(Source(locate(file)))
