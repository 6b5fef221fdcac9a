"""Which channels are ECG, and what a file says about them: names that EEG has too, empty columns, rates wherever they stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS, leads_in_context
from ecgfounder.errors import PrepareError, ReadError
from ecgfounder.preprocess import Preparation, prepare
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints
from tests.builders.edf import Channel, edf
from tests.builders.wfdb import write_record

GERMAN = ("I", "II", "III", "aVR", "aVL", "aVF", "C1", "C2", "C3", "C4", "C5", "C6")
SPANISH = ("D1", "D2", "D3", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
EEG = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "Cz")
SAID = Hints(sampling_rate=500, unit="mV")


# ------------------------------------------------------------------------------------------------------------ the names


@pytest.mark.parametrize("names", [STANDARD_LEADS, GERMAN, SPANISH, tuple(f"Lead {name}" for name in GERMAN)])
def test_names_of_leads_in_every_country_are_those_of_the_twelve(names: tuple[str, ...]) -> None:
    assert leads_in_context(names) == STANDARD_LEADS


@pytest.mark.parametrize(
    "names",
    [
        ("C3", "C4"),  # nothing else says what they are
        ("C1", "C2", "C3", "C4", "C5", "C6"),
        ("D1", "D2", "D3"),
        (*EEG, "I"),
        ("C3-REF", "C4-REF", "II"),
        ("EEG 1", "C3", "V1"),
        ("ECG II", "C3", "C4"),  # who names one channel as ECG does not leave the others to be guessed
        ("T3", "D1", "aVR"),
    ],
)
def test_names_that_eeg_has_too_are_no_leads_without_their_context(names: tuple[str, ...]) -> None:
    doubtful = [
        lead for name, lead in zip(names, leads_in_context(names), strict=True) if name[0] in "CD" and name[1].isdigit()
    ]
    assert not set(doubtful) & set(STANDARD_LEADS)


def test_a_qualified_name_needs_no_context() -> None:
    assert leads_in_context(["Lead C1", "ECG C2", *EEG])[:2] == ("V1", "V2")


def counts(records: int = 4, count: int = 100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-2000, 2000, (records, count))


def written(folder: Path, data: bytes) -> Path:
    path = folder / "x.edf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("bdf", [False, True])
def test_an_eeg_is_refused_and_said_to_hold_no_ecg(bdf: bool, tmp_path: Path) -> None:
    path = written(tmp_path, edf([Channel(name, counts()) for name in EEG], bdf=bdf))
    with pytest.raises(ReadError, match="none of the EDF file's 11 signals has the label of an ECG"):
        read_ecg(path)


def test_beside_electrodes_of_eeg_the_channel_that_says_ecg_is_taken(tmp_path: Path) -> None:
    ecg = Channel("ECG", counts(count=200, seed=1))
    path = written(tmp_path, edf([Channel("C3-REF", counts()), Channel("C4-REF", counts()), ecg]))
    recording = read_ecg(path)
    assert (recording.leads, recording.sampling_rate, recording.left_out) == (("ECG",), 200, ())
    np.testing.assert_allclose(recording.samples[0], ecg.millivolts, atol=1e-6)


def test_chest_leads_by_their_german_names_are_read_from_edf_and_wfdb(tmp_path: Path) -> None:
    assert read_ecg(written(tmp_path, edf([Channel(name, counts()) for name in GERMAN]))).leads == STANDARD_LEADS
    frames = np.random.default_rng(0).integers(-99, 99, (50, 12))
    assert read_ecg(write_record(tmp_path, frames, "16", names=GERMAN)).leads == STANDARD_LEADS
    assert "V3" not in read_ecg(write_record(tmp_path, frames[:, :11], "16", names=EEG)).leads


def test_columns_named_after_electrodes_of_eeg_are_no_leads(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(0, 1, (50, len(EEG)))
    path = tmp_path / "x.csv"
    np.savetxt(path, rows, delimiter=",", header=",".join(EEG), comments="")
    with pytest.raises(ReadError, match="none of the 11 columns of the table is named after a lead"):
        read_ecg(path, hints=SAID)
    np.savez(tmp_path / "x.npz", **{name: rows[:, column] for column, name in enumerate(EEG)})
    with pytest.raises(ReadError):
        read_ecg(tmp_path / "x.npz", hints=SAID)


# ------------------------------------------------------------------------------------- rows that end in a separator

ROWS = np.round(np.random.default_rng(7).normal(0, 1, (40, 3)), 3)
NAMES = ("I", "II", "V1")


def table(delimiter: str, names: tuple[str, ...] = (), *, ends: bool, header_ends: bool, index: bool = False) -> str:
    rows = [[*([str(number)] if index else []), *(f"{value:.3f}" for value in row)] for number, row in enumerate(ROWS)]
    lines = [delimiter.join(row) + delimiter * ends for row in rows]
    header = [delimiter.join(names) + delimiter * header_ends] if names else []
    return "\n".join([*header, *lines]) + "\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "], ids=["comma", "semicolon", "tab", "blank"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("header", ["none", "plain", "ends too"])
@pytest.mark.parametrize("index", [True, False])
def test_rows_that_end_in_a_separator_have_no_further_column(
    delimiter: str, ending: str, ends: bool, header: str, index: bool, tmp_path: Path
) -> None:
    names = () if header == "none" else NAMES
    text = table(delimiter, names, ends=ends, header_ends=header == "ends too", index=index)
    (tmp_path / "x.csv").write_bytes(text.replace("\n", ending).encode())
    hints = Hints(sampling_rate=500, unit="mV", leads=None if names else NAMES)
    if index and header == "ends too" and not ends and delimiter != " ":
        with pytest.raises(ReadError, match="not known whether the names begin there or one column later"):
            read_ecg(tmp_path / "x.csv", hints=hints)
        return
    recording = read_ecg(tmp_path / "x.csv", hints=hints)
    assert recording.leads == NAMES
    np.testing.assert_allclose(recording.samples, ROWS.T, atol=1e-6)


def test_rows_of_leads_that_end_in_a_separator_have_no_further_sample(tmp_path: Path) -> None:
    lines = [
        f"{name};" + ";".join(f"{value:.3f}" for value in row) + ";" for name, row in zip(NAMES, ROWS.T, strict=True)
    ]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    np.testing.assert_allclose(read_ecg(tmp_path / "x.csv", hints=SAID).samples, ROWS.T, atol=1e-6)


def test_a_last_column_with_a_name_and_nothing_in_it_is_a_lead_without_samples(tmp_path: Path) -> None:
    text = table(",", (*NAMES, "V6"), ends=True, header_ends=False)
    (tmp_path / "x.csv").write_text(text)
    recording = read_ecg(tmp_path / "x.csv", hints=SAID)
    assert recording.leads == (*NAMES, "V6")
    np.testing.assert_allclose(recording.samples[:3], ROWS.T, atol=1e-6)
    assert np.isnan(recording.samples[3]).all()


@pytest.mark.parametrize("header", [True, False])
def test_one_column_more_than_names_is_refused_unless_it_counts_or_tells_the_time(header: bool, tmp_path: Path) -> None:
    lines = [",".join(f"{value:.3f}" for value in (*row[::-1], *row[:1])) for row in ROWS]
    (tmp_path / "x.csv").write_text("\n".join([*([",".join(NAMES)] if header else []), *lines]))
    with pytest.raises(ReadError, match="neither the number nor the time of the rows"):
        read_ecg(tmp_path / "x.csv", hints=Hints(500, "mV", None if header else NAMES))


# ------------------------------------------------------------------------------------------- rates, wherever they stand


@pytest.mark.parametrize(
    ("remark", "rate"),
    [
        ("Sampling Rate (Hz):= 1000.00", 1000),
        ("Frequency (Hz) = 250", 250),
        ("sampling rate [kHz]: 0.5", 500),
        ("fs=360Hz", 360),
        ('{"00:07:80": {"sensor": ["ECG"], "sampling rate": 200, "resolution": [4, 1, 16]}}', 200),
    ],
)
def test_a_rate_in_a_remark_comes_before_the_flag(remark: str, rate: float, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text(f"# {remark}\n" + "\n".join(f"{value:.3f}" for value in ROWS[:, 0]))
    assert read_ecg(tmp_path / "x.txt", hints=Hints(123, "mV", ("I",))).sampling_rate == rate


def test_remarks_that_give_two_rates_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("# fs = 250\n# sampling rate: 500\n1\n2\n3\n")
    with pytest.raises(ReadError, match="2 different sampling rates"):
        read_ecg(tmp_path / "x.txt", hints=Hints(123, "mV", ("I",)))


@pytest.mark.parametrize("owner", ["/", "device", "device/raw", "device/raw/ecg"])
def test_a_rate_on_any_group_around_the_dataset_comes_before_the_flag(owner: str, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["device/raw/ecg"] = np.arange(100.0)
        file[owner].attrs["sampling rate"] = 200
    recording = read_ecg(f"{tmp_path}/x.h5::device/raw/ecg", hints=Hints(123, "mV", ("I",)))
    assert recording.sampling_rate == 200


def test_of_several_rates_around_a_dataset_the_nearest_counts(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/ecg"], file["a/fs"] = np.arange(100.0), 250.0
        file.attrs["fs"] = 1000
        file["labels"] = ["x", "y"]
    recording = read_ecg(f"{tmp_path}/x.h5::a/ecg", hints=Hints(123, "mV", ("I",)))
    assert (recording.sampling_rate, recording.leads) == (250, ("I",))


# ------------------------------------------------------------------------------------------------ leads at another rate


def test_leads_at_another_rate_are_named_and_flagged(tmp_path: Path) -> None:
    twelve = [Channel(name, counts(count=500, seed=row)) for row, name in enumerate(STANDARD_LEADS)]
    recording = read_ecg(written(tmp_path, edf([*twelve, Channel("V7", counts(count=250)), Channel("ECG", counts())])))
    assert recording.leads == STANDARD_LEADS
    assert recording.left_out == ("ECG", "V7")
    assert "other_rate:ECG,V7" in prepare(recording, Preparation()).flags


def test_where_a_lead_that_is_needed_has_another_rate_the_error_says_so(tmp_path: Path) -> None:
    rest = [Channel(name, counts(count=500, seed=row)) for row, name in enumerate(STANDARD_LEADS[:11])]
    recording = read_ecg(written(tmp_path, edf([*rest, Channel("V6", counts(count=250))])))
    with pytest.raises(PrepareError, match=r"missing leads V6.*at another sampling rate: V6"):
        prepare(recording, Preparation())


def test_leads_of_wfdb_at_fewer_samples_a_frame_are_interpolated_and_named(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(-500, 500, (600, 5)).astype("<i2")
    (tmp_path / "r.dat").write_bytes(frames.tobytes())
    lines = [
        "r 3 250 600",
        *(f"r.dat 16{x} 1000(0)/mV 16 0 0 0 0 {name}" for x, name in (("x2", "I"), ("x2", "II"), ("", "V5"))),
    ]
    (tmp_path / "r.hea").write_text("\n".join(lines) + "\n")
    recording = read_ecg(tmp_path / "r.hea")
    assert (recording.leads, recording.sampling_rate, recording.left_out) == (("I", "II", "V5"), 500, ())
    assert recording.upsampled == ("V5",)
    stored = frames[:, 4] / 1000
    np.testing.assert_allclose(recording.samples[2, ::2], stored, atol=1e-6)
    np.testing.assert_allclose(recording.samples[2, 1:-1:2], (stored[1:] + stored[:-1]) / 2, atol=1e-6)
    assert recording.samples[2, -1] == recording.samples[2, -2]
    assert "upsampled_leads:V5" in prepare(recording, Preparation(mode="1lead")).flags


def test_a_faster_signal_that_is_no_ecg_does_not_push_out_the_leads(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(-500, 500, (600, 4)).astype("<i2")
    (tmp_path / "r.dat").write_bytes(frames.tobytes())
    lines = [
        "r 3 250 600",
        *(f"r.dat 16{x} 1000(0)/mV 16 0 0 0 0 {name}" for x, name in (("", "I"), ("", "II"), ("x2", "EMG"))),
    ]
    (tmp_path / "r.hea").write_text("\n".join(lines) + "\n")
    recording = read_ecg(tmp_path / "r.hea")
    assert (recording.leads, recording.sampling_rate) == (("I", "II"), 250)
