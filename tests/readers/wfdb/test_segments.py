"""WFDB records of several segments: what PhysioNet's own package reads, gaps, and headers that contradict each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare
from ecgfounder.readers import make_source, read_ecg, read_source
from ecgfounder.readers.identity import absent_from, identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.readers.wfdb import reader
from tests.builders.wfdb import random_frames, write_segments
from tests.places import SHARED

Counts = npt.NDArray[np.int64]

LAYOUT = ("I", "II", "V5", "ABP")


def physical(header: Path, names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """[n_leads, n_samples] as the `wfdb` package reads them."""
    package = pytest.importorskip("wfdb")
    record = package.rdrecord(str(header.with_suffix("")), return_res=64)
    return np.stack([record.p_signal[:, record.sig_name.index(name)] for name in names])


def test_a_fixed_layout_is_what_the_package_reads(tmp_path: Path) -> None:
    parts = [random_frames(n, 3, seed=n) for n in (40, 25, 60)]
    header = write_segments(
        tmp_path, [(("I", "II", "V1"), frames, gain) for frames, gain in zip(parts, (1000, 200, 50), strict=True)]
    )
    recording = read_ecg(header)
    assert (recording.leads, recording.sampling_rate, recording.n_samples) == (("I", "II", "V1"), 500, 125)
    np.testing.assert_allclose(recording.samples, physical(header, recording.leads), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(recording.samples[:, :40], parts[0].T / 1000, atol=1e-6)
    np.testing.assert_allclose(recording.samples[:, 65:], parts[2].T / 50, rtol=1e-6)


def test_a_segment_with_fewer_samples_a_frame_is_interpolated(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r/2 1 500 20\ns1 10\ns2 10\n")
    for name, stored in (("s1", "16x2"), ("s2", "16")):
        (tmp_path / f"{name}.hea").write_text(f"{name} 1 500 10\n{name}.dat {stored} 200 16 0 0 0 0 I\n")
        (tmp_path / f"{name}.dat").write_bytes(np.arange(20, dtype="<i2").tobytes())
    recording = read_ecg(tmp_path / "r.hea")
    assert (recording.sampling_rate, recording.samples.shape) == (1000, (1, 40))
    np.testing.assert_allclose(recording.samples[0, :20], np.arange(20) / 200, atol=1e-6)
    np.testing.assert_allclose(recording.samples[0, 20:39], np.arange(19) / 400, atol=1e-6)


def test_a_variable_layout_with_gaps_and_other_gains_is_what_the_package_reads(tmp_path: Path) -> None:
    segments = [
        (("II", "V5"), random_frames(40, 2, seed=1), 1000),
        None,
        (("V5", "II", "I"), random_frames(30, 3, seed=2), 200),
        (("ABP",), random_frames(20, 1, seed=3), 100),
        (("I", "ABP"), random_frames(50, 2, seed=4), 500),
    ]
    header = write_segments(tmp_path, segments, layout=LAYOUT, gap=35)
    recording = read_ecg(header)
    assert (recording.leads, recording.n_samples) == (("I", "II", "V5"), 175)
    np.testing.assert_allclose(recording.samples, physical(header, recording.leads), rtol=0, atol=1e-5, equal_nan=True)
    nan = np.isnan(recording.samples)
    assert nan[:, 40:75].all()
    assert nan[:, 105:125].all()
    assert nan[0, :40].all()
    assert not nan[1, :40].any()


def test_gaps_are_flagged(tmp_path: Path) -> None:
    ecg = random_frames(3000, 12, 900, seed=5)
    header = write_segments(
        tmp_path, [(STANDARD_LEADS, ecg, 1000), None, (STANDARD_LEADS, ecg, 1000)], layout=STANDARD_LEADS, gap=1000
    )
    flags = prepare(read_ecg(header), Preparation()).flags
    assert "nan_share:0.143" in flags
    assert "dropout:6,2" in flags


def test_segments_with_several_samples_a_frame_and_leads_at_another_rate(tmp_path: Path) -> None:
    frames = random_frames(50, 3, seed=6)
    header = write_segments(tmp_path, [(("II", "V1"), frames, 1000), None, (("V1", "II"), frames, 1000)],
                            layout=("II", "V1"), gap=10, per_frame={"II": 2})  # fmt: skip
    recording = read_ecg(header)
    assert (recording.sampling_rate, recording.n_samples, recording.upsampled) == (1000, 220, ("V1",))
    np.testing.assert_allclose(recording.samples[0, :100], frames[:, :2].reshape(-1) / 1000, atol=1e-6)
    np.testing.assert_allclose(recording.samples[1, :100:2], frames[:, 2] / 1000, atol=1e-6)
    np.testing.assert_allclose(recording.samples[0, 120:], frames[:, 1:].reshape(-1) / 1000, atol=1e-6)


def test_every_header_and_signal_file_is_part_of_the_identity(tmp_path: Path) -> None:
    header = write_segments(tmp_path, [(LAYOUT, random_frames(20, 4), 1000), (LAYOUT, random_frames(30, 4), 1000)])
    source = make_source(str(header), Hints())
    read_source(source)
    names = {location.basename for location in source.companions}
    assert names == {"m_1.hea", "m_1.dat", "m_2.hea", "m_2.dat"}
    before = identity_of(source)
    (tmp_path / "m_2.dat").write_bytes((tmp_path / "m_2.dat").read_bytes()[::-1])
    (tmp_path / "m_2.hea").write_text(
        (tmp_path / "m_2.hea").read_text().replace("m_2.dat", "m_2.dat").replace("# age", "# x")
    )
    again = make_source(str(header), Hints())
    again.companions.extend(source.companions)
    assert identity_of(again).sha256 != before.sha256
    (tmp_path / "m_2.dat").unlink()
    lacking = make_source(str(header), Hints())
    with pytest.raises(ReadError, match="No such file"):
        read_source(lacking)
    assert absent_from(lacking) == ("*_2.dat",)


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("m_1.hea", " 500 40", " 500 39", "39 frames, 40 are stated"),
        ("m.hea", "500 75", "500 76", "76 frames, but its segments have 75"),
        ("m.hea", "m/3", "m/4", "states 4 segments, but describes 3"),
        ("m.hea", "m/3 2", "m/3 3", "3 signals, but its first segment has 2"),
        ("m.hea", "m_1 40", "../m_1 40", "outside the header's folder"),
        ("m.hea", "m_1 40", "/etc/m_1 40", "outside the header's folder"),
        ("m.hea", "m_2 35", "nowhere 35", "a segment named in the WFDB header: No such file"),
        ("m.hea", "m_2 35", "m 35", "consists of segments"),
        ("m.hea", "m_2 35", "m_2", "the line of segment 2 is not"),
        ("m_2.hea", " 500 ", " 250 ", "250 Hz, the record 500 Hz"),
        ("m_2.hea", "/mV", "/mmHg", "another unit"),
        ("m_2.hea", " II\n", " III\n", "does not list"),
        ("m_2.hea", " II\n", " I\n", "same name"),
        ("m_2.hea", "m_2.dat", "../m_2.dat", "outside the header's folder"),
        ("m_2.hea", " 16 1000", " 16x9 1000", "more samples per frame"),
    ],
)
def test_headers_that_contradict_each_other_are_refused(
    file: str, old: str, new: str, reason: str, tmp_path: Path
) -> None:
    segments = [(("I", "II"), random_frames(40, 2), 1000), (("I", "II"), random_frames(35, 2), 1000)]
    write_segments(tmp_path, segments, layout=("I", "II"))
    changed = (tmp_path / file).read_text()
    assert old in changed
    (tmp_path / file).write_text(changed.replace(old, new))
    with pytest.raises(ReadError, match=reason):
        read_ecg(tmp_path / "m.hea")


def test_other_signals_without_a_layout_header_are_refused(tmp_path: Path) -> None:
    header = write_segments(
        tmp_path, [(("I", "II"), random_frames(9, 2), 1000), (("II", "I"), random_frames(9, 2), 1000)]
    )
    with pytest.raises(ReadError, match="different signals"):
        read_ecg(header)


def test_a_record_of_gaps_and_gaps_that_need_much_memory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = [(("I", "II"), random_frames(40, 2), 1000), None]
    header = write_segments(tmp_path, segments, layout=("I", "II"), gap=999_999_999_999)
    with pytest.raises(ReadError, match="1,999,999,999,998 missing samples"):
        read_ecg(header)
    write_segments(tmp_path, [None], layout=("I", "II"))
    with pytest.raises(ReadError, match="gaps only"):
        read_ecg(header)


def test_a_segment_in_another_storage_format_goes_through_the_package(tmp_path: Path) -> None:
    pytest.importorskip("wfdb")
    frames = random_frames(40, 2, 50)
    header = write_segments(tmp_path, [(("I", "II"), frames, 1000), (("I", "II"), frames, 1000)])
    (tmp_path / "m_2.dat").write_bytes(np.diff(frames, axis=0, prepend=frames[:1]).astype("i1").tobytes())
    (tmp_path / "m_2.hea").write_text((tmp_path / "m_2.hea").read_text().replace("m_2.dat 16 ", "m_2.dat 8 "))
    recording = read_ecg(header)
    np.testing.assert_allclose(recording.samples[:, 40:], recording.samples[:, :40], atol=1e-6)


def test_nested_segments_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.hea").write_text("m/1 2 500 20\nn 20\n")
    (tmp_path / "n.hea").write_text("n/1 2 500 20\nm 20\n")
    with pytest.raises(UnsupportedFormatError, match="consists of segments"):
        read_ecg(tmp_path / "m.hea")
    assert reader.FORMAT == "wfdb"


def test_a_real_record_of_several_segments_is_what_the_package_reads() -> None:
    folder = SHARED / "cases" / "wfdb_multisegment"
    if not folder.exists():
        pytest.skip("the folder of real recordings is not here")
    recording = read_ecg(folder / "v102s.hea")
    assert (recording.leads, recording.sampling_rate, recording.n_samples) == (("II", "V"), 250, 225_000)
    np.testing.assert_allclose(recording.samples, physical(folder / "v102s.hea", ("II", "V")), rtol=0, atol=1e-6)
