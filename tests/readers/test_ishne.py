"""ISHNE Holter files, written here by the layout of the standard."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.errors import ReadError
from ecgfounder.readers import read_ecg
from tests.builders.ishne import frames_of, ishne
from tests.harness.mutations import is_read_or_refused


def write(folder: Path, data: bytes) -> Path:
    path = folder / "x.ecg"
    path.write_bytes(data)
    return path


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), variable=st.binary(max_size=40), seed=st.integers(0, 1 << 30), nv=st.integers(1, 32767))
def test_samples_round_trip(
    n: int, variable: bytes, seed: int, nv: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    frames = frames_of(n, 2, seed)
    path = write(tmp_path_factory.mktemp("i"), ishne(frames, variable=variable, resolutions=(nv, 1000)))
    recording = read_ecg(path)
    np.testing.assert_allclose(recording.samples, frames.T * np.array([[nv], [1000]]) * 1e-6, rtol=1e-6)
    assert (recording.leads, recording.sampling_rate, recording.source_format) == (("I", "V5"), 200, "ishne")


def test_lead_faults_are_nan(tmp_path: Path) -> None:
    frames = frames_of()
    frames[3, 1] = -32768
    read = read_ecg(write(tmp_path, ishne(frames))).samples
    assert np.argwhere(np.isnan(read)).tolist() == [[1, 3]]


def test_leads_without_names_stay_apart_and_pass_for_no_standard_lead(tmp_path: Path) -> None:
    data = ishne(frames_of(leads=3), ("bipolar", "bipolar", "unknown"), (1000, 1000, 1000))
    assert read_ecg(write(tmp_path, data)).leads == ("bipolar", "bipolar 2", "unknown lead")


def test_meta_holds_the_recorder_and_nothing_of_the_subject(tmp_path: Path) -> None:
    meta = read_ecg(write(tmp_path, ishne(frames_of(), recorder=b"H12+", resolutions=(1000, 1000)))).meta
    assert dict(meta) == {"format_version": "1.0", "resolution_uv": 1.0, "device_model": "H12+"}


def test_the_number_of_samples_may_be_of_all_leads_or_left_out(tmp_path: Path) -> None:
    for declared in (40, 80, 0, -1):
        assert read_ecg(write(tmp_path, ishne(frames_of(), declared=declared))).n_samples == 40


def test_a_header_that_does_not_match_its_checksum_is_refused(tmp_path: Path) -> None:
    data = bytearray(ishne(frames_of()))
    data[272] ^= 1
    with pytest.raises(ReadError, match="checksum"):
        read_ecg(write(tmp_path, bytes(data)))


def test_checksums_in_the_other_byte_order_or_never_computed_are_accepted(tmp_path: Path) -> None:
    data = ishne(frames_of())
    for checksum in (data[9:10] + data[8:9], b"\0\0"):
        assert read_ecg(write(tmp_path, data[:8] + checksum + data[10:])).n_samples == 40


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    data = ishne(frames_of())
    for size in (8, 9, 300, 521, 522, 523, len(data) - 1):
        assert not is_read_or_refused(write(tmp_path, data[:size]))


@pytest.mark.parametrize(
    ("at", "value"), [(156, 0), (156, 13), (156, -1), (272, 0), (272, -5), (206, 0), (206, -9), (10, -1), (10, 30000)]
)
def test_impossible_headers_are_refused(at: int, value: int, tmp_path: Path) -> None:
    data = bytearray(ishne(frames_of()))
    struct.pack_into("<h", data, at, value)
    if at == 10:
        struct.pack_into("<i", data, at, value)
    data[8:10] = b"\0\0"
    assert not is_read_or_refused(write(tmp_path, bytes(data)))
