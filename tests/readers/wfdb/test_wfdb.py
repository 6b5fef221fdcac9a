"""WFDB records: what PhysioNet's own package reads, and what no reader should believe."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS, select_leads
from ecgfounder.errors import MissingDependencyError, ReadError, UnsupportedFormatError
from ecgfounder.readers import read_ecg
from ecgfounder.readers import wfdb as wfdb_reader
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate
from tests.builders.wfdb import RANGES, encode, random_frames, write_record
from tests.harness.effort import measured
from tests.places import SHARED

HALF_A_KILOVOLT = 500_000_000  # in counts of 1 µV: what lies above a kilovolt is refused


@pytest.mark.parametrize("name", ["wfdb/E07500.hea", "wfdb/s0010_re.hea"])
def test_real_records_equal_their_reference_decode(name: str) -> None:
    if not SHARED.exists():
        pytest.skip("the folder of real recordings is not here")
    expected = np.load(SHARED / "ecg/expected.npz")[name]
    recording = read_ecg(SHARED / "ecg" / name)
    np.testing.assert_allclose(select_leads(recording).samples, expected, rtol=0, atol=1e-6)
    assert recording.source_format == "wfdb"


def test_a_record_is_found_by_its_header_its_signal_file_and_its_bare_name() -> None:
    if not SHARED.exists():
        pytest.skip("the folder of real recordings is not here")
    record = SHARED / "ecg/wfdb/E07500"
    read = [read_ecg(path).samples for path in (f"{record}.hea", f"{record}.mat", record)]
    assert np.array_equal(read[0], read[1])
    assert np.array_equal(read[0], read[2])


def test_fifteen_leads_in_lower_case_and_two_files_get_their_canonical_names() -> None:
    if not SHARED.exists():
        pytest.skip("the folder of real recordings is not here")
    recording = read_ecg(SHARED / "ecg/wfdb/s0010_re.hea")
    assert recording.leads == (*STANDARD_LEADS, "vx", "vy", "vz")
    assert recording.sampling_rate == 1000


@settings(max_examples=60, deadline=None)
@given(
    fmt=st.sampled_from(sorted(RANGES)), n=st.integers(1, 40), signals=st.integers(1, 5), seed=st.integers(0, 1 << 30)
)
def test_every_native_format_round_trips(
    fmt: str, n: int, signals: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    frames = random_frames(n, signals, min(RANGES[fmt], HALF_A_KILOVOLT), seed)
    header = write_record(tmp_path_factory.mktemp("w"), frames, fmt)
    recording = read_ecg(header)
    np.testing.assert_allclose(recording.samples, frames.T / 1000, rtol=1e-6, atol=1e-9)
    assert recording.leads == STANDARD_LEADS[:signals]


@pytest.mark.parametrize("fmt", ["16", "212", "80", "24", "32"])
def test_samples_are_those_of_the_wfdb_package(fmt: str, tmp_path: Path) -> None:
    package = pytest.importorskip("wfdb")
    frames = random_frames(101, 3, min(RANGES[fmt], HALF_A_KILOVOLT))
    frames[7, 1] = -RANGES[fmt]  # "no sample"
    header = write_record(tmp_path, frames, fmt)
    theirs = package.rdrecord(str(header.with_suffix("")), return_res=64).p_signal.T
    ours = read_ecg(header).samples
    np.testing.assert_allclose(ours, theirs.astype(np.float32), rtol=1e-6, atol=1e-6)
    assert math.isnan(ours[1, 7])
    assert np.isnan(ours).sum() == 1


def test_samples_of_more_than_a_kilovolt_are_refused(tmp_path: Path) -> None:
    frames = random_frames(20, 2)
    frames[3, 0] = 1_000_000_001
    with pytest.raises(ReadError, match="kilovolt"):
        read_ecg(write_record(tmp_path, frames, "32"))


def test_skew_shifts_a_signal_as_the_wfdb_package_does(tmp_path: Path) -> None:
    package = pytest.importorskip("wfdb")
    header = write_record(tmp_path, random_frames(50, 2))
    header.write_text(header.read_text().replace("r.dat 16 ", "r.dat 16:3 ", 1))
    theirs = package.rdrecord(str(header.with_suffix("")), return_res=64).p_signal.T
    np.testing.assert_allclose(read_ecg(header).samples, theirs, rtol=1e-6)


def test_gain_baseline_and_unit_give_millivolts(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(np.array([[1024, 100, 7], [1224, 300, 7]], dtype="<i2").tobytes())
    header = tmp_path / "r.hea"
    header.write_text(
        "r 3 360 2\nr.dat 16 200 11 1024 0 0 0 I\nr.dat 16 2(100)/uV 16 0 0 0 0 II\nr.dat 16 0 16 0 0 0 0 V1\n"
    )
    expected = [[0, 1], [0, 0.1], [0.035, 0.035]]  # a gain of 0 stands for 200
    np.testing.assert_allclose(read_ecg(header).samples, expected, rtol=1e-6)


def test_signals_that_are_no_voltages_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(np.arange(20, dtype="<i2").tobytes())
    header = tmp_path / "r.hea"
    header.write_text("r 2 360 10\nr.dat 16 100/mmHg 16 0 0 0 0 ABP\nr.dat 16 1000/mV 16 0 0 0 0 V5\n")
    assert read_ecg(header).leads == ("V5",)


def test_several_samples_a_frame_multiply_the_rate(tmp_path: Path) -> None:
    frames = random_frames(10, 3)
    (tmp_path / "r.dat").write_bytes(encode(frames, "16"))
    header = tmp_path / "r.hea"
    header.write_text("r 2 250 10\nr.dat 16x2 1000/mV 16 0 0 0 0 II\nr.dat 16 1000/mV 16 0 0 0 0 V1\n")
    recording = read_ecg(header)
    assert recording.sampling_rate == 500
    assert (recording.leads, recording.upsampled) == (("II", "V1"), ("V1",))
    np.testing.assert_allclose(recording.samples[0], frames[:, :2].reshape(-1) / 1000, rtol=1e-6)


def test_the_length_comes_from_the_file_where_the_header_leaves_it_out(tmp_path: Path) -> None:
    header = write_record(tmp_path, random_frames(33, 2))
    header.write_text(header.read_text().replace("500 33", "500"))
    assert read_ecg(header).n_samples == 33


@pytest.mark.parametrize(
    "record", ["r.mat 2 500 20 05-May-2020 09:49:17", "r 2 500.0/360(0) 20 10:00:00", "  r  2\t500 20"]
)
def test_record_lines_as_real_datasets_have_them_are_read(record: str, tmp_path: Path) -> None:
    header = write_record(tmp_path, random_frames())
    header.write_text("# a remark\r\n" + record + "\r\n" + "\r\n".join(header.read_text().splitlines()[1:]))
    assert read_ecg(header).n_samples == 20


def test_a_missing_unit_is_millivolt_and_a_missing_rate_250(tmp_path: Path) -> None:
    (tmp_path / "r.dat").write_bytes(np.array([200, 400], dtype="<i2").tobytes())
    (tmp_path / "r.hea").write_text("r 1\nr.dat 16\n")
    recording = read_ecg(tmp_path / "r.hea")
    assert recording.sampling_rate == 250
    np.testing.assert_allclose(recording.samples, [[1, 2]])


def test_a_damaged_sample_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    header = write_record(tmp_path, random_frames())
    data = bytearray((tmp_path / "r.dat").read_bytes())
    data[9] ^= 4
    (tmp_path / "r.dat").write_bytes(data)
    with pytest.raises(ReadError, match="checksum"):
        read_ecg(header)


def test_checksums_may_be_unsigned_or_never_computed(tmp_path: Path) -> None:
    frames = np.full((4, 1), -1000)
    header = write_record(tmp_path, frames)
    text = header.read_text()
    header.write_text(text.replace(" -4000 ", f" {(1 << 16) - 4000} "))
    assert read_ecg(header).n_samples == 4
    header.write_text(text.replace(" -4000 ", " 0 "))
    assert read_ecg(header).n_samples == 4


def test_a_signal_file_that_looks_like_gzip_is_not_unpacked(tmp_path: Path) -> None:
    frames = random_frames()
    frames[0, 0] = int(np.frombuffer(b"\x1f\x8b", "<i2")[0])
    assert read_ecg(write_record(tmp_path, frames)).n_samples == 20


@pytest.mark.parametrize("file", ["../../etc/passwd", "/etc/passwd", "a/../r.dat", "..", "C:r.dat", "\\\\host\\r.dat"])
def test_signal_files_elsewhere_are_refused(file: str, tmp_path: Path) -> None:
    header = write_record(tmp_path, random_frames())
    header.write_text(header.read_text().replace("r.dat", file))
    with pytest.raises(ReadError, match="outside the header's folder"):
        read_ecg(header)


def test_a_signal_file_in_a_folder_below_and_a_header_after_its_signal_file_are_read(tmp_path: Path) -> None:
    frames = random_frames()
    header = write_record(tmp_path, frames)
    plain = read_ecg(header).samples
    (tmp_path / "below").mkdir()
    (tmp_path / "r.dat").rename(tmp_path / "below" / "r.dat")
    header.write_text(header.read_text().replace("r.dat", "below/r.dat"))
    np.testing.assert_array_equal(read_ecg(header).samples, plain)
    other = tmp_path / "other"
    other.mkdir()
    write_record(other, frames).rename(other / "r.dat.hea")
    for name in ("r.dat", "r.dat.hea"):
        np.testing.assert_array_equal(read_ecg(other / name).samples, plain)


@pytest.mark.parametrize("file", ["-", "~"])
def test_signals_in_no_file_are_refused(file: str, tmp_path: Path) -> None:
    header = write_record(tmp_path, random_frames())
    header.write_text(header.read_text().replace("r.dat", file))
    with pytest.raises(UnsupportedFormatError):
        read_ecg(header)


def test_a_signal_file_that_is_a_folder_or_missing_is_refused(tmp_path: Path) -> None:
    header = write_record(tmp_path, random_frames())
    (tmp_path / "r.dat").unlink()
    with pytest.raises(ReadError, match="signal file"):
        read_ecg(header)
    (tmp_path / "r.dat").mkdir()
    with pytest.raises(ReadError, match="signal file"):
        read_ecg(header)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("500 20", "500 21"),
        ("500 20", "500 999999999999"),
        ("r 2 ", "r 3 "),
        ("r 2 ", "r 0 "),
        ("r 2 ", "r 999999 "),
        ("500 20", "0 20"),
        ("500 20", "1e999 20"),
        ("1000(0)", "1e-99(0)"),
        ("r.dat 16 ", "r.dat 16x999999 "),
        ("r.dat 16 ", "r.dat 16:20 "),
        ("r.dat 16 ", "r.dat 16+999999999999 "),
        ("r.dat 16 ", "r.dat 17 "),
        ("r.dat 16 ", "r.dat 212 "),
        (" II\n", " I\n"),
    ],
)
def test_headers_that_lie_are_refused_without_doing_what_they_say(old: str, new: str, tmp_path: Path) -> None:
    header = write_record(tmp_path, random_frames())
    header.write_text(header.read_text().replace(old, new, 1))
    with pytest.raises(ReadError):  # once before it counts: readers are imported where they are tried
        read_ecg(header)
    with measured() as effort, pytest.raises(ReadError):
        read_ecg(header)
    assert effort.lines < 10_000  # reading the record as it was takes 700
    assert effort.peak_bytes < 1 << 20


def test_formats_beyond_the_native_ones_need_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = random_frames(20, 2, 100)
    header = write_record(tmp_path, frames)
    (tmp_path / "r.dat").write_bytes(np.diff(frames, axis=0, prepend=0).astype("i1").tobytes())
    header.write_text(header.read_text().replace("r.dat 16 ", "r.dat 8 "))
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(MissingDependencyError, match=r"ecgfounder\[wfdb\]"):
        read_ecg(header)


def test_flac_records_are_read_through_the_extra(tmp_path: Path) -> None:
    package = pytest.importorskip("wfdb")
    pytest.importorskip("soundfile")
    frames = random_frames(500, 2)
    package.wrsamp("f", fs=500, units=["mV"] * 2, sig_name=["I", "II"], d_signal=frames, fmt=["516"] * 2, adc_gain=[1000.0] * 2,
                   baseline=[0, 0], write_dir=str(tmp_path))  # fmt: skip
    np.testing.assert_allclose(read_ecg(tmp_path / "f.hea").samples, frames.T / 1000, rtol=1e-6)


def test_a_header_that_the_package_fails_at_is_an_error_of_the_file(tmp_path: Path) -> None:
    """A signal of format 8 takes the samples through the package, which raises a TypeError at the lines after the third."""
    pytest.importorskip("wfdb")
    (tmp_path / "r.dat").write_bytes(bytes(180))
    lines = "r.dat 80 1000(0)/mV 16 0 -7 0 0 I\nr.dat 8\n" + "r.dat 80 1000(0)/mV 16 0 3 0 0 II\n" * 3
    (tmp_path / "r.hea").write_text(f"r 3 500 60\n{lines}")
    with pytest.raises(ReadError, match="the wfdb package cannot decode the record"):
        read_ecg(tmp_path / "r.hea")


def test_a_text_that_is_no_header_is_not_taken_for_one(tmp_path: Path) -> None:
    for text in ("1 2 3\n4 5 6\n", "a,b\n1,2\n", "Dear 2 all\nof you 16\n", "<x/>"):
        path = tmp_path / "x.txt"
        path.write_text(text)
        assert not wfdb_reader.matches(Source(locate(path)))
