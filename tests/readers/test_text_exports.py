"""Texts that recorders and programs export: rdsamp, OpenSignals, BioSPPy, Apple Watch, GE MUSE."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints
from tests.builders.text_exports import (
    atm_csv,
    device,
    elapsed,
    lines_of,
    millivolts,
    muse_text,
    opensignals,
    rdsamp,
    watch,
)
from tests.places import CASES

SAMPLES = millivolts()


def read(folder: Path, text: str, hints: Hints | None = None, encoding: str = "utf-8") -> Recording:
    (folder / "x.txt").write_bytes(text.encode(encoding))
    return read_ecg(folder / "x.txt", hints=hints)


# rdsamp and PhysioBank ATM


@pytest.mark.parametrize(
    ("name", "unit", "shown"),
    [
        ("   Elapsed time", "      (seconds)", "{:15.3f}".format),
        ("   Elapsed time", "      (minutes)", lambda seconds: f"{seconds / 60:15.5f}"),
        ("   Elapsed time", "        (hours)", lambda seconds: f"{seconds / 3600:15.7f}"),
        ("   Elapsed time", "   hh:mm:ss.mmm", lambda seconds: f"{elapsed(seconds):>15}"),
        ("   Elapsed time", "   hh:mm:ss.mmm", lambda seconds: f"{elapsed(seconds + 3589):>15}"),
        ("     Time", "(hh:mm:ss.mmm)", lambda seconds: f"[12:00:{seconds:06.3f}]"),
        (
            "      Time      Date    ",
            "(hh:mm:ss.mmm dd/mm/yyyy)",
            lambda seconds: f"[12:00:{seconds:06.3f} 01/01/2000]",
        ),
        ("sample interval", "(0.0027777 sec)", lambda seconds: f"{round(seconds * 360):15d}"),
    ],
)
def test_what_rdsamp_prints_states_unit_and_rate(
    name: str, unit: str, shown: Callable[[float], str], tmp_path: Path
) -> None:
    recording = read(tmp_path, rdsamp(360, SAMPLES, name, unit, shown))
    assert (recording.leads, recording.sampling_rate) == (("MLII", "V5"), 360)
    np.testing.assert_allclose(recording.samples, SAMPLES.T, atol=1e-6)
    if "sec)" not in unit:  # without the line of units, the unit is the user's
        without = read(tmp_path, rdsamp(360, SAMPLES, name, None, shown), Hints(360, "mV"))
        assert np.array_equal(without.samples, recording.samples)


@pytest.mark.parametrize("rate", [128, 250, 257, 360, 500, 512, 1000, 1024, 2000])
def test_the_rate_is_exact_although_times_have_three_decimals(rate: float, tmp_path: Path) -> None:
    assert read(tmp_path, rdsamp(rate, SAMPLES)).sampling_rate == rate


def test_a_rate_that_is_not_usual_is_that_of_the_column(tmp_path: Path) -> None:
    assert read(tmp_path, rdsamp(128.5, SAMPLES)).sampling_rate == pytest.approx(128.5, abs=1e-3)
    steps = (f"{number * 0.00278:.5f}" for number in range(720))  # the step was rounded, not the times
    text = lines_of(steps, SAMPLES, ["time (s),I (mV),II (mV)"])
    assert read(tmp_path, text).sampling_rate == pytest.approx(1 / 0.00278)


def test_numbers_of_samples_give_no_rate(tmp_path: Path) -> None:
    head = ["'sample #','MLII','V5'"]
    text = lines_of(range(5, 725), SAMPLES * 200, head, digits=0)
    with pytest.raises(ReadError, match="sampling_rate"):
        read(tmp_path, text, Hints(unit="200"))
    recording = read(tmp_path, text, Hints(360, "200"))
    np.testing.assert_allclose(recording.samples, np.round(SAMPLES.T * 200) / 200, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "unit", "shown"),
    [
        ("Elapsed time", "hh:mm:ss.mmm", lambda seconds: f"'{elapsed(seconds)}'"),
        ("Elapsed time", "seconds", "{:.3f}".format),
        ("sample interval", "0.00277778 sec", lambda seconds: f"{round(seconds * 360)}"),
        (
            "Time and date",
            "hh:mm:ss.mmm dd/mm/yyyy",
            lambda seconds: f"'[12:00:{seconds:06.3f} 01/01/2000]'",
        ),
    ],
)
def test_the_csv_of_physiobank_states_unit_and_rate(
    name: str, unit: str, shown: Callable[[float], str], tmp_path: Path
) -> None:
    recording = read(tmp_path, atm_csv(360, SAMPLES, name, unit, shown))
    assert (recording.leads, recording.sampling_rate) == (("MLII", "V5"), 360)
    np.testing.assert_allclose(recording.samples, SAMPLES.T, atol=1e-6)


def test_times_go_on_past_midnight(tmp_path: Path) -> None:
    def shown(seconds: float) -> str:
        late = seconds - 1
        return f"'[23:59:{59 + seconds:06.3f}]'" if late < -0.0005 else f"'[00:00:{max(late, 0):06.3f}]'"

    assert read(tmp_path, atm_csv(360, SAMPLES, "Time", "hh:mm:ss.mmm", shown)).sampling_rate == 360


def test_columns_that_blanks_separate_are_read_with_their_names(tmp_path: Path) -> None:
    text = rdsamp(
        360,
        SAMPLES,
        "      Time      Date    ",
        "(hh:mm:ss.mmm dd/mm/yyyy)",
        lambda seconds: f"[12:00:{seconds:06.3f} 01/01/2000]",
    ).replace("\t", "   ")
    for version in (text, rdsamp(360, SAMPLES).replace("\t", "   ")):
        recording = read(tmp_path, version)
        assert (recording.leads, recording.sampling_rate) == (("MLII", "V5"), 360)
        np.testing.assert_allclose(recording.samples, SAMPLES.T, atol=1e-6)


def test_a_dash_is_a_sample_that_is_missing(tmp_path: Path) -> None:
    lines = rdsamp(360, SAMPLES).split("\n")
    lines[20] = lines[20].rpartition("\t")[0] + "\t      -"
    lines[30] = lines[30].split("\t")[0] + "\t      -\t      -"
    samples = read(tmp_path, "\n".join(lines)).samples
    assert np.isnan(samples[1, [18, 28]]).all()
    assert np.isnan(samples).sum() == 3


def test_a_unit_for_some_leads_alone_is_refused(tmp_path: Path) -> None:
    text = rdsamp(360, SAMPLES).replace("(mV)\t   (mV)", "(mV)\t (mmHg)")
    with pytest.raises(ReadError, match="for 1 of its 2 leads"):
        read(tmp_path, text, Hints(unit="mV"))


# GE MUSE's text


def test_the_rhythm_of_a_muse_export_is_read_without_the_median_beats(tmp_path: Path) -> None:
    rhythm, median = np.round(millivolts(500, 12) * 1000), np.round(millivolts(60, 12, seed=4) * 1000)
    hints = Hints(500, "uV", STANDARD_LEADS)
    for tables in (
        [("Rhythm signal", rhythm)],
        [("Rhythm signal", rhythm), ("Median signal", median)],
        [("Median signal", median), ("Rhythm signal", rhythm)],
    ):
        recording = read(tmp_path, muse_text(*tables), hints)
        np.testing.assert_allclose(recording.samples, rhythm.T / 1000, atol=1e-6)
        assert recording.leads == STANDARD_LEADS
    with pytest.raises(ReadError, match="found 0 beside 1"):
        read(tmp_path, muse_text(("Median signal", median)), hints)


def test_the_head_of_a_muse_export_may_state_facts(tmp_path: Path) -> None:
    text = muse_text(
        ("Rhythm signal", np.round(SAMPLES * 1000)), above="Sample rate: 250\r\nUnits: uV\r\nLeads: V1 V2\r\n"
    )
    recording = read(tmp_path, text)
    assert (recording.leads, recording.sampling_rate) == (("V1", "V2"), 250)
    np.testing.assert_allclose(recording.samples, SAMPLES.T, atol=1e-6)


@pytest.mark.parametrize(("old", "new"), [("720 X 2", "721 X 2"), ("720 X 2", "720 X 3"), ("720 X 2", "72 X 20")])
def test_a_muse_table_of_another_size_than_announced_is_refused(old: str, new: str, tmp_path: Path) -> None:
    text = muse_text(("Rhythm signal", np.round(SAMPLES * 1000))).replace(old, new)
    with pytest.raises(ReadError, match="has 720 rows of 2 to 2 columns"):
        read(tmp_path, text, Hints(500, "uV", ("I", "II")))


# OpenSignals

COUNTS = np.arange(60, dtype=np.int64) * 7 % 1024
ROWS = [[number % 16, 0, 0, 1, 1, 500, int(count)] for number, count in enumerate(COUNTS)]
COUNTED = Hints(123, "1")


def test_the_channel_with_the_ecg_sensor_is_read_at_the_rate_of_the_head(tmp_path: Path) -> None:
    for sensor in ("ECG", "ECGBIT"):
        recording = read(tmp_path, opensignals({"a": device(sensor=["RAW", sensor])}, ROWS), COUNTED)
        assert (recording.leads, recording.sampling_rate) == (("ECG",), 1000)
        np.testing.assert_array_equal(recording.samples[0], COUNTS)


@pytest.mark.parametrize("leads", [("II",), ("a", "b", "c", "d", "e", "f", "II")])
def test_the_user_names_the_ecg_channel_or_all_columns(leads: tuple[str, ...], tmp_path: Path) -> None:
    recording = read(tmp_path, opensignals({"a": device()}, ROWS), Hints(None, "1", leads))
    assert recording.leads == ("II",)
    np.testing.assert_array_equal(recording.samples[0], COUNTS)


@pytest.mark.parametrize("leads", [("I", "II"), ("a", "b", "c", "d", "e", "I", "II")])
def test_channels_of_sensors_that_are_not_said_to_be_ecg_are_leads_if_the_user_names_all(
    leads: tuple[str, ...], tmp_path: Path
) -> None:
    text = opensignals({"a": device(sensor=["RAW", "RAW"])}, ROWS)
    recording = read(tmp_path, text, Hints(None, "1", leads))
    assert recording.leads == ("I", "II")
    np.testing.assert_array_equal(recording.samples[1], COUNTS)


def test_several_ecg_channels_are_told_apart_by_labels_or_numbers(tmp_path: Path) -> None:
    both = device(sensor=["ECG", "ECG"])
    assert read(tmp_path, opensignals({"a": both}, ROWS), COUNTED).leads == ("ECG", "ECG 2")
    columns = ["nSeq", "I1", "I2", "O1", "O2", "Lead I", "Lead II"]
    labelled = device(sensor=["ECG", "ECG"], label=["Lead I", "Lead II"], column=columns)
    assert read(tmp_path, opensignals({"a": labelled}, ROWS), COUNTED).leads == ("I", "II")


def test_a_column_of_digital_input_is_not_lead_i(tmp_path: Path) -> None:
    """OpenSignals calls it DI, which is a name of lead I elsewhere."""
    settings = device(sensor=["ECG"], label=["CH1"], column=["nSeq", "DI", "CH1"])
    rows = [[number, 0, int(count)] for number, count in enumerate(COUNTS)]
    recording = read(tmp_path, opensignals({"a": settings}, rows), COUNTED)
    assert recording.leads == ("ECG",)
    np.testing.assert_array_equal(recording.samples[0], COUNTS)


def test_the_columns_of_several_devices_are_beside_each_other(tmp_path: Path) -> None:
    other = device(sensor=["EDA", "RESPIRATION"])
    for devices, rows in (
        ({"a": other, "b": device()}, [[*row[:5], 1, 2, *row] for row in ROWS]),
        ({"a": device(), "b": other}, [[*row, *row[:5], 1, 2] for row in ROWS]),
    ):
        recording = read(tmp_path, opensignals(devices, rows), COUNTED)
        np.testing.assert_array_equal(recording.samples[0], COUNTS)


def test_earlier_versions_that_name_no_columns_have_the_channels_last(tmp_path: Path) -> None:
    text = opensignals({"a": device(column=None, resolution=12)}, ROWS)
    np.testing.assert_array_equal(read(tmp_path, text, COUNTED).samples[0], COUNTS)


def test_a_long_head_does_not_hide_the_format(tmp_path: Path) -> None:
    text = opensignals({"a": device(comments="x" * 9000)}, ROWS)
    np.testing.assert_array_equal(read(tmp_path, text, COUNTED).samples[0], COUNTS)


def test_the_unit_of_counts_is_never_guessed(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="'unit' parameter"):
        read(tmp_path, opensignals({"a": device()}, ROWS))


def test_a_head_that_does_not_fit_or_has_no_ecg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="names 7 columns, and the table has 8"):
        read(tmp_path, opensignals({"a": device()}, [[*row, 1] for row in ROWS]), COUNTED)
    with pytest.raises(ReadError, match="none of the recording's 2 sensors is one of ECG"):
        read(tmp_path, opensignals({"a": device(sensor=["RAW", "RAW"])}, ROWS), COUNTED)
    slower = device(sensor=["EDA", "EDA"], **{"sampling rate": 100})
    with pytest.raises(ReadError, match="2 different sampling rates"):
        read(tmp_path, opensignals({"a": device(), "b": slower}, [[*row, *row] for row in ROWS]), COUNTED)


def write_opensignals_hdf5(path: Path, rates: tuple[float, ...] = (200,), sensor: str = "ECG") -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for number, rate in enumerate(rates):
            group = file.create_group(f"00:0{number}")
            group.attrs["sampling rate"], group.attrs["device"], group.attrs["channels"] = (
                rate,
                "biosignalsplux",
                [1, 2],
            )
            group["raw/nSeq"], group["digital/digital_1"] = COUNTS[:, None], COUNTS[:, None]
            for channel, name in enumerate(("EDA", sensor)):
                dataset = group.create_dataset(
                    f"raw/channel_{channel + 1}", data=(COUNTS * channel)[:, None].astype("u2")
                )
                dataset.attrs["sensor"], dataset.attrs["label"] = name, f"CH{channel + 1}"
            group["support/level_10/channel_1/mean"] = np.ones((6, 1))


@pytest.mark.parametrize("member", ["", "::00:00", "::00:00/raw", "::00:00/raw/channel_2"])
def test_the_ecg_channel_of_an_hdf5_file_is_found_by_its_sensor(member: str, tmp_path: Path) -> None:
    write_opensignals_hdf5(tmp_path / "x.h5")
    recording = read_ecg(f"{tmp_path}/x.h5{member}", hints=COUNTED)
    assert (recording.leads, recording.sampling_rate) == (("ECG",), 200)
    np.testing.assert_array_equal(recording.samples[0], COUNTS)


def test_several_devices_in_an_hdf5_file_must_agree(tmp_path: Path) -> None:
    write_opensignals_hdf5(tmp_path / "x.h5", (200, 200))
    assert read_ecg(tmp_path / "x.h5", hints=COUNTED).leads == ("ECG", "ECG 2")
    write_opensignals_hdf5(tmp_path / "x.h5", (200, 1000))
    with pytest.raises(ReadError, match="FILE::GROUP"):
        read_ecg(tmp_path / "x.h5", hints=COUNTED)
    assert read_ecg(f"{tmp_path}/x.h5::00:01", hints=COUNTED).sampling_rate == 1000
    write_opensignals_hdf5(tmp_path / "x.h5", sensor="RAW")
    with pytest.raises(ReadError, match="none of the recording's 2 sensors"):
        read_ecg(tmp_path / "x.h5", hints=COUNTED)


# BioSPPy


def test_remarks_of_biosppy_give_rate_and_names(tmp_path: Path) -> None:
    head = "# Simple Text Format\n# Sampling Rate (Hz):= 1000.00\n# Resolution:= 12\n# Date:= 2000-01-01T00:00:00\n"
    values = "".join(f"{first}\t{second}\n" for first, second in SAMPLES)
    one = "".join(f"{first}\n" for first, _ in SAMPLES)
    for labels, text, leads in (
        ("ECG", one, ("ECG",)),
        ("I\tII", values, ("I", "II")),
        ("ECG\tRESP", values, ("ECG",)),
    ):
        recording = read(tmp_path, f"{head}# Labels:= {labels}\n{text}", Hints(unit="mV"))
        assert (recording.leads, recording.sampling_rate) == (leads, 1000)
        np.testing.assert_allclose(recording.samples, SAMPLES.T[: len(leads)], atol=1e-6)
    named = read(tmp_path, f"{head}# Units:= uV\n# Labels:= ECG\n{one}", Hints(leads=("II",)))
    assert named.leads == ("II",)
    np.testing.assert_allclose(named.samples, SAMPLES.T[:1] / 1000, atol=1e-6)


def test_remarks_that_give_two_units_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="2 different units"):
        read(tmp_path, "# fs = 250, unit = mV\n# unit: uV\nI,II\n1,2\n3,4\n")


# Apple Watch


@pytest.mark.parametrize(
    ("rate", "lead", "unit", "mark", "expected"),
    [
        ("Sample Rate,512 hertz", "Lead,Lead I", "Unit,µV", ".", 512),
        ("Messrate,511,562\u00a0Hertz", "Ableitung,Ableitung I", "Einheit,µV", ",", 511.562),
        ('Messrate,"511,562 Hertz"', "Ableitung,Ableitung I", "Einheit,µV", ",", 511.562),
        ("Frecuencia de muestreo,512,922 hercios", "Derivación,Derivación I", "Unidad,µV", ",", 512.922),
        ("Частота,512 Гц", "Отведение,Отведение I", "Единица,мкВ", ",", 512),
        ("采样率,512赫兹", "导联,第I导联", "单位,微伏", ".", 512),
        ("サンプルレート,512ヘルツ", "誘導,I誘導", "単位,µV", ".", 512),
        ("معدل,\u0665\u0661\u0662\u066b\u0665 هرتز", "الاتجاه,الاتجاه I", "الوحدة,µV", "\u066b", 512.5),
        ("Näytetaajuus,512 hertsiä", "Kytkentä,Kytkentä I", "Yksikkö,µV", ",", 512),
        ("Rate,512 xyzzy", "Lead,I. lead", "Unit,μV", ".", 512),  # a language that nobody thought of
    ],
)
@pytest.mark.parametrize("written", ["{}", '"{}"'])
def test_what_a_watch_exports_is_found_by_its_structure(
    rate: str, lead: str, unit: str, mark: str, expected: float, written: str, tmp_path: Path
) -> None:
    recording = read(tmp_path, watch(rate, lead, unit, mark=mark, written=written))
    assert (recording.leads, recording.sampling_rate) == (("I",), expected)
    np.testing.assert_allclose(recording.samples[0], [0, 0.004998, 0.009983, -0.078111], rtol=1e-6)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_what_a_watch_exports_is_read_in_any_encoding(encoding: str, ending: str, tmp_path: Path) -> None:
    text = (watch(mark=",") + "\n\n").replace("\n", ending)
    assert read(tmp_path, text, encoding=encoding).samples[0, 1] == pytest.approx(0.004998)


def test_a_heart_rate_is_no_sampling_rate_and_a_name_no_lead(tmp_path: Path) -> None:
    text = watch(above=["Average Heart Rate,64 bpm", "Symptoms,chest V1", "Doctor,Mr II"])
    recording = read(tmp_path, text)
    assert (recording.leads, recording.sampling_rate) == (("I",), 512)
    assert read(tmp_path, watch(unit="Unit,mV")).samples[0, 1] == pytest.approx(4.998)


@pytest.mark.parametrize("samples", ["", '""', "-", "Smith", "1.234,5"])
def test_an_export_without_numbers_is_refused(samples: str, tmp_path: Path) -> None:
    text = watch().partition("\n\n0\n")[0] + f"\n\n{samples}\n"
    with pytest.raises(ReadError) as caught:
        read(tmp_path, text)
    assert "Smith" not in str(caught.value)


def test_numbers_with_minus_signs_of_typography_are_read(tmp_path: Path) -> None:
    text = watch(mark=",").replace("-78", "\u221278").replace("\n4,", "\n\u200e4,")
    np.testing.assert_allclose(read(tmp_path, text).samples[0, [1, 3]], [0.004998, -0.078111], rtol=1e-6)


# Real files, where they are at hand


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the folder of cases beside the checkout")
@pytest.mark.parametrize(
    ("name", "hints", "leads", "rate", "shape", "first"),
    [
        ("opensignals_200Hz.txt", Hints(123, "1"), ("ECG",), 200, (1, 2370), [32452, 32394, 32448]),
        ("opensignals_200Hz.txt", Hints(123, "1", ("x", "y", "I")), ("I",), 200, (1, 2370), [32452, 32394, 32448]),
        ("opensignals_200Hz.h5", Hints(123, "1"), ("ECG",), 200, (1, 2370), None),
        ("muse_text_export.txt", Hints(500, "uV", STANDARD_LEADS), STANDARD_LEADS, 500, (12, 5000), [-0.068] * 3),
        ("rdsamp_unit_line.txt", None, ("MLII", "V5"), 360, (2, 360), [-0.39, -0.395, -0.39]),
        ("apple_watch_german.csv", None, ("I",), 512, (1, 3000), [0, 0.004998, 0.009983]),
        ("remark_rate_1000Hz.txt", Hints(500, "1"), ("ECG",), 1000, (1, 6000), [2044] * 3),
        ("trailing_datetime.csv", Hints(None, "uV", STANDARD_LEADS), STANDARD_LEADS, 1000, (12, 5000), [0.1, 0.08125]),
    ],
)
def test_real_exports_have_the_right_values(
    name: str,
    hints: Hints | None,
    leads: tuple[str, ...],
    rate: float,
    shape: tuple[int, int],
    first: list[float] | None,
) -> None:
    if name.endswith("h5"):
        pytest.importorskip("h5py")
    recording = read_ecg(CASES / name, hints=hints)
    assert (recording.leads, recording.sampling_rate, recording.samples.shape) == (leads, rate, shape)
    if first is not None:
        np.testing.assert_allclose(recording.samples[0, : len(first)], first, rtol=1e-6)
