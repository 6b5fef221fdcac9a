"""EDF and BDF: what edfio reads, which channels are ECG, and headers that lie."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.preprocess import Preparation, prepare
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints
from tests.builders.edf import Channel, annotations, counts, edf
from tests.harness.mutations import is_read_or_refused
from tests.places import SHARED


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.edf"
    path.write_bytes(data)
    return path


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 30),
    records=st.integers(1, 5),
    unit=st.sampled_from(["mV", "uV", "µV", "V", "nV"]),
    bdf=st.booleans(),
    low=st.sampled_from(["-5", "-320.5", "5", "0"]),
    seed=st.integers(0, 1 << 30),
)
def test_samples_round_trip(
    n: int, records: int, unit: str, bdf: bool, low: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    limit = (1 << 23) - 1 if bdf else 32767
    channels = [Channel(label, counts(n, records, limit, seed + i), unit, low, "7", (-limit - 1, limit))
                for i, label in enumerate(("ECG I", "EKG V1"))]  # fmt: skip
    recording = read_ecg(write(tmp_path_factory.mktemp("e"), edf(channels, bdf=bdf, duration="0.5")))
    expected = np.array([channel.millivolts for channel in channels])
    np.testing.assert_allclose(recording.samples, expected, rtol=1e-6, atol=1e-9)
    assert (recording.leads, recording.sampling_rate) == (("I", "V1"), n / 0.5)


def test_samples_are_those_of_edfio(tmp_path: Path) -> None:
    edfio = pytest.importorskip("edfio")
    path = write(tmp_path, edf([Channel("ECG II", counts(), "uV", "-3276.8", "3276.7"), Channel("V2", counts(seed=2))]))
    theirs = edfio.read_edf(path)
    read = read_ecg(path)
    np.testing.assert_allclose(read.samples[0], theirs.signals[0].data / 1000, rtol=1e-6)
    np.testing.assert_allclose(read.samples[1], theirs.signals[1].data, rtol=1e-6)


def test_files_that_edfio_writes_are_read(tmp_path: Path) -> None:
    edfio = pytest.importorskip("edfio")
    wave = np.sin(np.arange(1000) / 20)
    signals = [edfio.EdfSignal(wave * i, 250, label=f"ECG V{i}", physical_dimension="mV") for i in (1, 2)]
    edfio.Edf(signals, annotations=[edfio.EdfAnnotation(1, None, "x")]).write(tmp_path / "x.edf")
    recording = read_ecg(tmp_path / "x.edf")
    assert (recording.leads, recording.sampling_rate, recording.n_samples) == (("V1", "V2"), 250, 1000)
    np.testing.assert_allclose(recording.samples, [wave, wave * 2], atol=1e-4)


def test_only_ecg_is_taken_from_a_sleep_study(tmp_path: Path) -> None:
    other = [
        Channel("EEG Fpz-Cz", counts(), "uV"),
        Channel("Resp", counts(10), ""),
        Channel("HR ECG", counts(1), "bpm"),
    ]
    recording = read_ecg(write(tmp_path, edf([*other, Channel("ECG", counts(40))])))
    assert (recording.leads, recording.sampling_rate) == (("ECG",), 40)


@pytest.mark.parametrize(
    ("label", "lead"),
    [
        ("ECG I", "I"),
        ("EKG aVR", "aVR"),
        ("V6", "V6"),
        ("II", "II"),
        ("ECG V3-Ref", "V3"),
        ("ECG1", "ECG1"),
        ("ECG 1", "ECG 1"),
        ("EKG2", "EKG2"),
        ("ECG LA-RA", "ECG LA-RA"),
        ("MLII", "MLII"),
    ],
)
def test_labels_name_leads(label: str, lead: str, tmp_path: Path) -> None:
    assert read_ecg(write(tmp_path, edf([Channel(label, counts())]))).leads == (lead,)


def test_of_several_rates_that_with_most_standard_leads_is_kept(tmp_path: Path) -> None:
    channels = [Channel("ECG I", counts(20)), Channel("ECG II", counts(20)), Channel("ECG", counts(80))]
    assert read_ecg(write(tmp_path, edf(channels))).leads == ("I", "II")


def test_channels_of_one_name_are_numbered(tmp_path: Path) -> None:
    channels = [Channel("ECG", counts()), Channel("ECG", counts(seed=1))]
    assert read_ecg(write(tmp_path, edf(channels))).leads == ("ECG", "ECG 2")


def test_without_ecg_labels_the_user_must_name_the_channels(tmp_path: Path) -> None:
    path = write(tmp_path, edf([Channel("CH-A", counts()), Channel("CH-B", counts())]))
    with pytest.raises(ReadError, match="the 'leads' parameter"):
        read_ecg(path)
    assert read_ecg(path, hints=Hints(leads=("I", "II"))).leads == ("I", "II")


def test_without_a_unit_the_user_must_give_it(tmp_path: Path) -> None:
    path = write(tmp_path, edf([Channel("ECG II", counts(), "")]))
    with pytest.raises(ReadError, match="the 'unit' parameter"):
        read_ecg(path)
    assert np.abs(read_ecg(path, hints=Hints(unit="uV")).samples).max() <= 0.005


def test_a_recording_that_was_not_closed_is_read_to_its_last_whole_record(tmp_path: Path) -> None:
    data = edf([Channel("ECG II", counts())], n_records=-1)
    assert read_ecg(write(tmp_path, data[:-7])).n_samples == 40


def test_annotations_are_no_channel_and_discontinuous_files_need_times(tmp_path: Path) -> None:
    ecg = Channel("ECG II", counts())
    whole = annotations([b"+0\x14\x14", b"+1\x14\x14", b"+2\x14\x14"])
    assert read_ecg(write(tmp_path, edf([ecg, whole], "EDF+D"))).leads == ("II",)
    broken = annotations([b"+0\x14\x14", b"+1\x14\x14", b"+7\x14\x14"])
    assert read_ecg(write(tmp_path, edf([ecg, broken], "EDF+C"))).n_samples == 60
    with pytest.raises(UnsupportedFormatError, match="without the start times"):
        read_ecg(write(tmp_path, edf([ecg], "EDF+D")))


@settings(max_examples=40, deadline=None)
@given(
    pauses=st.lists(st.sampled_from([0, 0, 2, 3, 37]), min_size=1, max_size=6),
    bdf=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_gaps_between_records_are_nan(
    pauses: list[int], bdf: bool, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ten samples a second, records of 2 s; the pause before a record in samples, and rounded times."""
    n = len(pauses)
    starts = np.cumsum([20 * (i > 0) + pause for i, pause in enumerate([0, *pauses[1:]])])
    ecg = [Channel(f"ECG V{i}", counts(20, n, seed=seed + i)) for i in (1, 2)]
    texts = [f"+{100 + start / 10 + 0.004:.2f}\x14\x14\0+3\x14note\x14".encode() for start in starts]
    data = edf([*ecg, annotations(texts, bdf=bdf)], "BDF+D" if bdf else "EDF+D", duration="2", bdf=bdf)
    recording = read_ecg(write(tmp_path_factory.mktemp("e"), data))
    expected = np.full((2, starts[-1] + 20), np.nan)
    for row, channel in zip(expected, ecg, strict=True):
        for record, start in enumerate(starts):
            row[start : start + 20] = channel.millivolts[20 * record : 20 * (record + 1)]
    np.testing.assert_allclose(recording.samples, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("times", "error"),
    [
        ((0, 5, 3), "overlap or are not in the order"),
        ((0, 0.5, 1.5), "overlap or are not in the order"),
        ((0, 0, 1), "overlap or are not in the order"),
        ((5, 4, 3), "overlap or are not in the order"),
        ((0, 1, 1e9), "too large gaps"),
        ((0, 1, 1e300), "too large gaps"),
        ((0, 1e300, 2), "too large gaps"),
    ],
)
def test_impossible_times_of_records_are_refused(times: tuple[float, ...], error: str, tmp_path: Path) -> None:
    texts = [f"+{time}\x14\x14".replace("+1e+", "+1e").encode() for time in times]
    with pytest.raises(ReadError, match=error):
        read_ecg(write(tmp_path, edf([Channel("ECG II", counts()), annotations(texts)], "EDF+D")))


def test_gaps_are_flagged_by_their_share(tmp_path: Path) -> None:
    ecg = [Channel(f"ECG {lead}", counts(500, 4, seed=i)) for i, lead in enumerate(STANDARD_LEADS)]
    times = annotations([f"+{time}\x14\x14".encode() for time in (0, 1, 4, 5)])
    signal = prepare(read_ecg(write(tmp_path, edf([*ecg, times], "EDF+D"))), Preparation())
    assert "nan_share:0.333" in signal.flags


@pytest.mark.parametrize(("unit", "encoding"), [("µV", "utf-8"), ("μV", "utf-8"), ("µV", "cp437"), ("µV", "latin-1")])
def test_microvolts_are_known_in_every_encoding(unit: str, encoding: str, tmp_path: Path) -> None:
    channels = [Channel(f"ECG {lead}", counts(), unit) for lead in ("I", "II")]
    recording = read_ecg(write(tmp_path, edf(channels, encoding=encoding)))
    np.testing.assert_allclose(recording.samples[0], channels[0].millivolts, rtol=1e-6, atol=1e-9)


def test_an_error_about_units_does_not_speak_of_names(tmp_path: Path) -> None:
    path = write(tmp_path, edf([Channel("ECG II", counts(), "mV"), Channel("V1", counts(), "?V")]))
    with pytest.raises(ReadError, match=r"a unit of an ECG signal that is none of .* the 'unit' parameter") as refusal:
        read_ecg(path)
    assert "'leads'" not in str(refusal.value)
    recording = read_ecg(path, hints=Hints(unit="uV"))
    assert recording.leads == ("II", "V1")
    assert 1 < np.abs(recording.samples[0]).max() <= 5
    assert np.abs(recording.samples[1]).max() <= 0.005
    with pytest.raises(ReadError, match=r"1 of the EDF file's 1 signals have the label of an ECG, but .* not voltages"):
        read_ecg(write(tmp_path, edf([Channel("V1", counts(), "%")])))


def test_an_error_about_names_does_not_speak_of_units(tmp_path: Path) -> None:
    path = write(tmp_path, edf([Channel("CH-A", counts()), Channel("CH-B", counts())]))
    with pytest.raises(ReadError, match="2 are voltages, but the 'leads' parameter has 3 names") as refusal:
        read_ecg(path, hints=Hints(leads=("I", "II", "III")))
    assert "'unit'" not in str(refusal.value)
    with pytest.raises(
        ReadError, match="none of the EDF file's 1 signals has the label of an ECG, and none is a voltage"
    ):
        read_ecg(write(tmp_path, edf([Channel("Resp", counts(), "%")])))


def test_every_sample_of_a_real_layout_with_utf_8_is_read() -> None:
    path = SHARED / "cases/edf_micro_utf8.edf"
    if not path.exists():
        pytest.skip("the folder of real recordings is not here")
    recording = read_ecg(path)
    data = path.read_bytes()[256 * 13 :]
    stored = np.frombuffer(data, "<i2").reshape(10, 12, 500).transpose(1, 0, 2).reshape(12, 5000)
    np.testing.assert_allclose(recording.samples, stored / 1000, rtol=1e-6, atol=1e-9)
    assert (recording.leads, recording.sampling_rate) == (STANDARD_LEADS, 500)


def test_filters_and_kind_are_in_meta(tmp_path: Path) -> None:
    meta = read_ecg(write(tmp_path, edf([Channel("ECG II", counts())], "EDF+C"))).meta
    assert dict(meta) == {"format_version": "EDF+C", "highpass_hz": 0.05, "lowpass_hz": 150.0, "notch_hz": 50.0}


def test_gzip_is_read_through(tmp_path: Path) -> None:
    data = edf([Channel("ECG II", counts())])
    assert read_ecg(write(tmp_path, gzip.compress(data))).n_samples == 60


def test_a_day_of_three_channels_takes_little_more_than_its_samples(tmp_path: Path) -> None:
    import tracemalloc

    rows = np.zeros((3600, 250), dtype=np.int64)
    path = write(tmp_path, edf([Channel(f"ECG V{i}", rows[:2]) for i in (1, 2, 3)], n_records=3600))
    header = path.read_bytes()[: 256 * 4]
    path.write_bytes(header + bytes(2 * 3 * 250 * 3600))
    tracemalloc.start()
    recording = read_ecg(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert recording.n_samples == 900_000
    assert peak < 2.8 * recording.samples.nbytes + (24 << 20)


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (252, "999 "),
        (252, "0   "),
        (252, "x   "),
        (184, "256     "),
        (236, "99999999"),
        (236, "-2      "),
        (236, "0       "),
        (244, "0       "),
        (244, "-1      "),
        (244, "1e999   "),
        (244, "nan     "),
        (256 + 104, "5       "),  # the physical minimum, now as the maximum
        (256 + 120, "40000   "),  # the digital minimum, above the maximum
        (256 + 216, "-5      "),  # samples of a record
        (256 + 216, "99999999"),
        (256 + 216, "0       "),
    ],
)
def test_headers_that_lie_are_refused(at: int, text: str, tmp_path: Path) -> None:
    data = bytearray(edf([Channel("ECG II", counts())]))
    data[at : at + len(text)] = text.encode()
    assert not is_read_or_refused(write(tmp_path, bytes(data)))
