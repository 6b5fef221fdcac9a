"""Kardia's ATC files: what is read, and that anything else is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ecgfounder import read_ecg
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from tests.builders.kardia_atc import SIGNATURE, atc, block, counts_of, format_block, info


def read(tmp_path: Path, content: bytes) -> Recording:
    path = tmp_path / "x.atc"
    path.write_bytes(content)
    return read_ecg(path, reader="kardia_atc")


@pytest.mark.parametrize("leads", [("I",), STANDARD_LEADS[:6], STANDARD_LEADS])
@pytest.mark.parametrize("version", [2, 5])
def test_samples_are_counts_of_500_nanovolts(tmp_path: Path, leads: tuple[str, ...], version: int) -> None:
    counts = counts_of(leads)
    recording = read(tmp_path, atc(counts, version=version))
    assert recording.leads == leads
    assert recording.sampling_rate == 300
    assert recording.is_unverified
    np.testing.assert_allclose(recording.samples, np.stack(list(counts.values())) * 0.0005, rtol=1e-6)


def test_a_worked_example(tmp_path: Path) -> None:
    """The example of the specification: 300 Hz, 500 nV, counts 0, -297, 393; 2000 counts are a millivolt."""
    recording = read(tmp_path, atc({"I": np.array([0, -297, 393, 2000])}))
    np.testing.assert_allclose(recording.samples, [[0, -0.1485, 0.1965, 1]], rtol=1e-6)


def test_leads_come_in_their_usual_order(tmp_path: Path) -> None:
    counts = counts_of(("V6", "II", "I"))
    recording = read(tmp_path, atc(counts))
    assert recording.leads == ("I", "II", "V6")
    np.testing.assert_allclose(recording.samples[2], counts["V6"] * 0.0005, rtol=1e-6)


def test_the_rate_and_the_resolution_are_those_of_the_file(tmp_path: Path) -> None:
    counts = counts_of(("I",))
    recording = read(tmp_path, atc(counts, before=format_block(rate=250, nanovolts=1000)))
    assert recording.sampling_rate == 250
    np.testing.assert_allclose(recording.samples[0], counts["I"] * 0.001, rtol=1e-6)


@pytest.mark.parametrize(("flags", "notch"), [(2, None), (2 | 4, 60.0), (4, 50.0), (32, 50.0)])
def test_only_the_device_and_its_filter_are_taken(tmp_path: Path, flags: int, notch: float | None) -> None:
    meta = dict(read(tmp_path, atc(counts_of(), before=info() + format_block(flags=flags))).meta)
    assert meta.pop("notch_hz", None) == notch
    assert meta == {
        "device_manufacturer": "AliveCor",
        "device_model": "kardia_mobile",
        "software_version": "Recorder 1.6",
        "resolution_uv": 0.5,
    }


def test_beats_annotations_and_unknown_blocks_are_left_out(tmp_path: Path) -> None:
    others = block(b"avg ", bytes(9)) + block(b"med ", bytes(90)) + block(b"ann ", bytes(28)) + block(b"new ", b"x")
    assert read(tmp_path, atc(counts_of(), after=others)).n_samples == 60


def test_a_checksum_may_be_a_crc_32(tmp_path: Path) -> None:
    assert read(tmp_path, atc(counts_of(), crc=True)).n_samples == 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (atc(counts_of(), after=block(b"ann ", bytes(28), checksum=1)), "checksum"),
        (atc(counts_of(), before=info()), "format block"),
        (atc(counts_of(), before=block(b"fmt ", bytes(7))), "format block"),
        (atc(counts_of(), before=format_block(rate=0)), "is 0"),
        (atc(counts_of(), before=format_block(nanovolts=0)), "is 0"),
        (atc(counts_of(), after=format_block()), "twice"),
        (atc({}), "expected a block of samples"),
        (atc({"I": np.array([], dtype="<i2")}), "no samples"),
        (atc({"I": np.zeros(5), "II": np.zeros(6)}), "different lengths"),
        (atc({}, after=block(b"ecg ", bytes(7))), "16-bit"),
        (atc({}, after=b"".join(block(number.to_bytes(4, "big"), b"") for number in range(300))), "too many"),
        (SIGNATURE + b"\2\0", "signature"),
    ],
)
def test_damage_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [(atc(counts_of(), before=format_block(kind=2)), "kind 1"), (atc(counts_of(), version=6), "version from 2 to 5")],
)
def test_what_the_specification_does_not_know_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=message):
        read(tmp_path, content)


def test_no_truncated_file_is_read_with_fewer_samples(tmp_path: Path) -> None:
    content = atc(counts_of(("I",), 9))
    for size in range(8, len(content)):
        with pytest.raises(ReadError):
            read(tmp_path, content[:size])
