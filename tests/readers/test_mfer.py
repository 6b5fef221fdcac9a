"""MFER: what is read, and that anything else is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder import read_ecg
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from tests.builders.mfer import (
    BLOCK,
    BYTE_ORDER,
    CHANNELS,
    DATA_TYPE,
    INTERVAL,
    NO_SAMPLE,
    SENSITIVITY,
    SEQUENCES,
    WAVE,
    WAVEFORM,
    counts_of,
    definition,
    mfer,
    of_channel,
)


def read(tmp_path: Path, content: bytes) -> Recording:
    path = tmp_path / "x.mwf"
    path.write_bytes(content)
    return read_ecg(path, reader="mfer")


def stacked(counts: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.stack(list(counts.values())).astype(float)


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize("block", [1, 20, 60])
@pytest.mark.parametrize("kind", ["i2", "i4"])
def test_any_block_and_byte_order(tmp_path: Path, little_endian: bool, block: int, kind: str) -> None:
    counts = {lead: row.astype(kind) for lead, row in counts_of().items()}
    recording = read(tmp_path, mfer(counts, block=block, little_endian=little_endian))
    assert recording.leads == STANDARD_LEADS
    assert recording.sampling_rate == pytest.approx(500)
    assert recording.is_unverified
    np.testing.assert_allclose(recording.samples, stacked(counts) * 0.0025, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1"])
def test_other_integers(tmp_path: Path, kind: str) -> None:
    counts = {lead: (row % 100).astype(kind) for lead, row in counts_of(("I", "II")).items()}
    np.testing.assert_allclose(read(tmp_path, mfer(counts)).samples, stacked(counts) * 0.0025, rtol=1e-6)


def test_only_the_device_is_taken_from_the_header(tmp_path: Path) -> None:
    assert read(tmp_path, mfer(counts_of())).meta == {
        "device_manufacturer": "Maker",
        "device_model": "Model",
        "software_version": "1.2",
    }


@pytest.mark.parametrize(
    ("interval", "rate"), [(b"\x00\x00\xfa\x00", 250), (b"\x01\xfc\x28\x00", 250), (b"\x00\x02\x05", 500)]
)
def test_a_rate_or_an_interval(tmp_path: Path, interval: bytes, rate: float) -> None:
    assert read(tmp_path, mfer(counts_of(), changes={INTERVAL: interval})).sampling_rate == pytest.approx(rate)


def test_a_channel_may_have_a_sensitivity_of_its_own(tmp_path: Path) -> None:
    counts = counts_of(("I", "II"))
    recording = read(tmp_path, mfer(counts, channel_changes={SENSITIVITY: b"\x00\xfa\x05\x00"}))
    np.testing.assert_allclose(recording.samples, stacked(counts) * [[0.005], [0.0025]], rtol=1e-6)


def test_the_value_that_stands_for_no_sample_is_nan(tmp_path: Path) -> None:
    counts = counts_of(("I", "II"))
    counts["I"][3] = -32768
    recording = read(tmp_path, mfer(counts, changes={NO_SAMPLE: b"\x00\x80"}))
    assert np.argwhere(np.isnan(recording.samples)).tolist() == [[0, 3]]


def test_channels_that_are_no_voltage_are_left_out(tmp_path: Path) -> None:
    counts = counts_of(("pressure", "II"))
    assert read(tmp_path, mfer(counts, channel_changes={SENSITIVITY: b"\x01\x00\x01"})).leads == ("II",)


def test_sequences_need_not_be_stated(tmp_path: Path) -> None:
    assert read(tmp_path, mfer(counts_of(), block=20, changes={SEQUENCES: None})).n_samples == 60


def test_dominant_beats_are_left_out(tmp_path: Path) -> None:
    beat = definition(WAVEFORM, b"\x09\x00") + definition(WAVE, bytes(12 * 2 * 60))
    assert read(tmp_path, mfer(counts_of(), more=beat)).n_samples == 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({SEQUENCES: b"\x3b"}, "contradict"),
        ({SEQUENCES: b"\xff\xff\xff\xff"}, "contradict"),
        ({BLOCK: b"\0"}, "blocks of 0 samples"),
        ({CHANNELS: b"\0"}, "0 channels"),
        ({CHANNELS: b"\x0b"}, "does not exist"),
        ({CHANNELS: b"\xff\xff\xff\xff"}, "channels"),
        ({CHANNELS: b"\1\0\0\0\0"}, "more than four bytes"),
        ({DATA_TYPE: b"\x09"}, "integer samples"),
        ({DATA_TYPE: b"\x07"}, "integer samples"),
        ({INTERVAL: None}, "MWF_IVL.*missing"),
        ({INTERVAL: b"\x02\x00\x01"}, "neither in Hz nor in seconds"),
        ({INTERVAL: b"\x01\x00\x00"}, "not above 0"),
        ({INTERVAL: b"\x01\x7f\x01"}, "exponent of 127"),
        ({SENSITIVITY: None}, "MWF_SEN.*missing"),
        ({SENSITIVITY: b"\x01\x00\x01"}, "lead I: the sensitivity .* not in volt"),
        ({SENSITIVITY: b"\x00\x00\x00"}, "not above 0"),
        ({SENSITIVITY: b"\x00\x06\x01"}, "kilovolt"),
        ({WAVEFORM: b"\x28\x00"}, "one frame of an ECG, found 0"),
        ({0x0D: b"\x01\x00"}, "MWF_OFF"),
        ({0x0E: b"\x01\x00"}, "MWF_CMP"),
        ({0x67: b""}, "groups"),
        ({BYTE_ORDER: b"\x02"}, "byte order"),
    ],
)
def test_contradictions_and_what_is_not_read_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(tmp_path, mfer(counts_of(), changes=changes))


def test_several_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="one frame of an ECG, found 2"):
        read(tmp_path, mfer(counts_of(), more=definition(WAVE, bytes(12 * 2 * 60))))


@pytest.mark.parametrize("tag", [BLOCK, SEQUENCES, DATA_TYPE, INTERVAL])
def test_channels_of_several_rates_are_refused(tmp_path: Path, tag: int) -> None:
    with pytest.raises(UnsupportedFormatError, match="for all channels"):
        read(tmp_path, mfer(counts_of(), channel_changes={tag: b"\x07"}))


def test_channels_without_a_leads_code_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="codes of leads"):
        read(tmp_path, mfer(counts_of(("x", "y"))))


def test_a_channel_within_a_channel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="belongs to the file"):
        read(tmp_path, mfer(counts_of(), channel_changes={WAVE: b"\0\0"}))


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = mfer(counts_of(("I", "II"), 9))
    for size in range(8, len(content) - 2):
        with pytest.raises(ReadError):
            read(tmp_path, content[:size])


def test_lengths_that_are_not_stated_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="stated length"):
        read(tmp_path, b"\x40\x04MFR " + of_channel(0)[:2] + b"\x80")
