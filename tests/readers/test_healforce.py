"""Heal Force: files like SCP-ECG with samples of 10 bits, written here by a small encoder, and the one real file."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import read_ecg
from tests.builders.healforce import healforce, with_checksums
from tests.harness.mutations import is_read_or_refused, mutations
from tests.places import SHARED

REAL = SHARED / "cases/healforce_180D.scp"


def counts(n: int = 60, seed: int = 0) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-512, 512, (3, n))


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.scp"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("n", "marks"), [(4, 0), (60, 3), (600, 1)])
def test_samples_round_trip(n: int, marks: int, tmp_path: Path) -> None:
    recording = read_ecg(write(tmp_path, healforce(counts(n), first=283_501, marks=marks)))
    np.testing.assert_allclose(recording.samples, counts(n) * 0.009524, rtol=1e-6, atol=1e-9)
    assert (recording.leads, recording.sampling_rate, recording.source_format) == (("I", "II", "III"), 150, "healforce")
    assert dict(recording.meta) == {"resolution_uv": 9.524}


def test_every_sample_of_the_real_file_is_as_decoded_bit_by_bit() -> None:
    if not REAL.exists():
        pytest.skip("the folder of real recordings is not here")
    data = REAL.read_bytes()
    words = struct.unpack_from("<10125H", data, 488 + 16 + 8)
    values: list[int] = []
    for i in range(0, len(words), 3):
        three = words[i : i + 3]
        nibbles = "".join(f"{word:016b}"[2:6] for word in three)
        values += [int(f"{word:016b}"[6:], 2) for word in three] + [int(nibbles[-10:], 2)]
    expected = (np.array(values).reshape(-1, 3).T - 512) * 9524e-6
    recording = read_ecg(REAL)
    np.testing.assert_allclose(recording.samples, expected, rtol=1e-6, atol=1e-9)
    assert recording.samples.shape == (3, 4500)
    one, two, three_ = recording.samples
    assert np.std(two - one - three_) < 0.15 * two.std()  # the leads are I, II and III


@pytest.mark.parametrize("change", [{"rate": 300}, {"n_leads": 1}])
def test_other_rates_and_leads_are_refused(change: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="only 3 leads at 150 Hz"):
        read_ecg(write(tmp_path, healforce(counts(), **change)))


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    data = bytearray(healforce(counts()))
    for at in (14, 30, 200, 210, 300):
        damaged = bytearray(data)
        damaged[at] ^= 4
        assert not is_read_or_refused(write(tmp_path, bytes(damaged))), at
    with pytest.raises(ReadError, match="checksum"):
        read_ecg(write(tmp_path, bytes(damaged)))


def test_damaged_copies_with_right_checksums_are_read_or_refused(tmp_path: Path) -> None:
    for copy in mutations(healforce(counts()), 200):
        is_read_or_refused(write(tmp_path, with_checksums(copy)))


def test_contec_recordings_are_refused_by_name(tmp_path: Path) -> None:
    head = b"0000012\0\0\0" + b"2000-01-01 12:00:00\0" + bytes(10) + b"\xff\0\0"
    with pytest.raises(UnsupportedFormatError, match="Contec ECG90A"):
        read_ecg(write(tmp_path, head + struct.pack("<8H", *[2048] * 8) * 50 + bytes(37)))
