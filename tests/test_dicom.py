"""DICOM ECG waveforms: what is read, and that anything else is refused."""

from __future__ import annotations

import gzip
import io
import time
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.sequence import Sequence

from ecgfounder.ecg.leads import STANDARD_LEADS, select_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import dicom, read_ecg
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "ecg"
TWELVE_LEAD = "1.2.840.10008.5.1.4.1.1.9.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
NUMBER_OF_LEAD = {"I": 1, "II": 2, "III": 61, "aVR": 62, "aVL": 63, "aVF": 64} | {f"V{i}": i + 2 for i in range(1, 7)}


def counts_of(leads: tuple[str, ...], n_samples: int = 50, seed: int = 0, dtype: str = "i2") -> np.ndarray:
    info = np.iinfo(dtype)
    low, high = max(info.min + 1, -2000), min(info.max, 2000)
    return np.random.default_rng(seed).integers(low, high, (n_samples, len(leads))).astype(dtype)


def item(**elements: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def coded(value: str | None, scheme: str, meaning: str) -> Sequence:
    return Sequence([item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)])


def source_of(lead: str, scheme: str) -> Sequence:
    number = NUMBER_OF_LEAD[lead]
    value = {
        "MDC": f"2:{number}",
        "MDC number": str((2 << 16) + number),
        "MDC id": f"MDC_ECG_LEAD_{lead.upper()}",
        "SCPECG": f"5.6.3-9-{number}",
        "text": "local",
    }[scheme]
    # A text that contradicts the code must lose; without a known code it is all that there is.
    return coded(value, scheme.split()[0], f"Lead {lead} (Einthoven)" if scheme == "text" else "Lead V9")


def channel(lead: str, scheme: str = "MDC", units: str | None = "uV", **changes: Any) -> Dataset:
    elements: dict[str, Any] = {
        "ChannelSourceSequence": source_of(lead, scheme),
        "ChannelSensitivity": "5",
        "ChannelSensitivityUnitsSequence": None if units is None else coded(units, "UCUM", "unit"),
        "ChannelSensitivityCorrectionFactor": "1",
        "ChannelBaseline": "0",
        "ChannelSampleSkew": "0",
        "WaveformBitsStored": 16,
        "FilterLowFrequency": "0.05",
    }
    return item(**(elements | changes))


def group(counts: np.ndarray, channels: list[Dataset], **changes: Any) -> Dataset:
    elements: dict[str, Any] = {
        "MultiplexGroupTimeOffset": "0",
        "WaveformOriginality": "ORIGINAL",
        "NumberOfWaveformChannels": counts.shape[1],
        "NumberOfWaveformSamples": counts.shape[0],
        "SamplingFrequency": "500",
        "MultiplexGroupLabel": "RHYTHM",
        "ChannelDefinitionSequence": Sequence(channels),
        "WaveformBitsAllocated": counts.dtype.itemsize * 8,
        "WaveformSampleInterpretation": {"i1": "SB", "u1": "UB", "i2": "SS", "u2": "US", "i4": "SL", "u4": "UL"}[
            counts.dtype.str[1:]
        ],
        "WaveformData": counts.tobytes() + b"\0" * (counts.nbytes % 2),
    }
    result = item(**(elements | changes))
    result["WaveformData"].VR = "OW"
    if "WaveformPaddingValue" in result:
        result["WaveformPaddingValue"].VR = "OW"
    return result


def rhythm(leads: tuple[str, ...] = STANDARD_LEADS, n_samples: int = 50, seed: int = 0, **changes: Any) -> Dataset:
    return group(counts_of(leads, n_samples, seed), [channel(lead) for lead in leads], **changes)


def ecg(*groups: Dataset, sop_class: str = TWELVE_LEAD) -> Dataset:
    annotations = [item(UnformattedTextValue="SINUS RHYTHM") for _ in range(3)]
    dataset = item(
        SOPClassUID=sop_class,
        Manufacturer="Maker",
        ManufacturerModelName="Model",
        PatientName="Doe^Jane",
        WaveformAnnotationSequence=Sequence(annotations),
    )
    dataset["WaveformAnnotationSequence"].is_undefined_length = True
    dataset.WaveformSequence = Sequence(list(groups))
    return dataset


def encoded(dataset: Dataset, syntax: str = EXPLICIT, undefined_length: bool = False) -> bytes:
    """A DICOM file with preamble."""
    if undefined_length and "WaveformSequence" in dataset:
        dataset["WaveformSequence"].is_undefined_length = True
        for each in dataset.WaveformSequence:
            each.is_undefined_length_sequence_item = True
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = syntax
    dataset.file_meta = meta
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def without_meta(dataset: Dataset, implicit: bool) -> bytes:
    """The data set alone, as files without preamble and file meta information have it."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = implicit, True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def read(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    source = Source(locate(path))
    assert dicom.matches(source)
    return dicom.read(source)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.dcm"


needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real recordings of ../shared are not here")


@needs_shared
@pytest.mark.parametrize(("name", "rate"), [("ecgtoolkit_Example", 500), ("pydicom_waveform_ecg", 1000)])
def test_real_recording_equals_its_reference_decode(name: str, rate: float) -> None:
    key = f"dicom/{name}.dcm"
    recording = read_ecg(SHARED / key)
    assert recording.source_format == "dicom"
    assert recording.sampling_rate == rate
    np.testing.assert_allclose(
        select_leads(recording).samples, np.load(SHARED / "expected.npz")[key], rtol=0, atol=1e-6
    )


@needs_shared
def test_the_same_record_as_dicom_and_as_aecg_is_the_same_recording() -> None:
    first = read_ecg(SHARED / "dicom" / "ecgtoolkit_Example.dcm")
    second = read_ecg(SHARED / "hl7_aecg" / "ecgtoolkit_Example.xml")
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
        ({"NumberOfWaveformSamples": 51}, "WaveformData holds"),
        ({"NumberOfWaveformSamples": 49}, "WaveformData holds"),
        ({"NumberOfWaveformSamples": 2**32 - 1}, "WaveformData holds"),
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
    monkeypatch.setattr(dicom, "MAX_UNPACKED_BYTES", 1 << 20)
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
        begin = time.perf_counter()
        with pytest.raises(ReadError):
            read(file, start[:waveforms] + nested)
        assert time.perf_counter() - begin < 1


def test_every_truncation_is_read_or_refused(file: Path) -> None:
    content = encoded(ecg(rhythm(n_samples=5)))
    for length in range(132, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(ReadError):
            dicom.read(Source(locate(file)))
