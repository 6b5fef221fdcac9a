"""Formats without a file of a device: recognised, read only where they are named, and flagged; formats that are not read."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from ecgfounder import read_ecg
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import UnsupportedFormatError
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare
from ecgfounder.readers import READER_CHOICES, READERS, UNVERIFIED, read_statements
from tests.builders import kardia_atc, kardia_json, mfer, mortara_eli, muse

FILES = {
    "mortara_eli": mortara_eli.document(
        *(mortara_eli.channel(lead, counts) for lead, counts in mortara_eli.counts_of(n_samples=5000).items())
    ),
    "mfer": mfer.mfer(mfer.counts_of(n_samples=5000)),
    "kardia_atc": kardia_atc.atc(kardia_atc.counts_of(STANDARD_LEADS, n_samples=9000)),
    "kardia_json": kardia_json.answer(kardia_json.counts_of(9000)),
}
each = pytest.mark.parametrize("reader", sorted(UNVERIFIED))


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "x"
    path.write_bytes(content)
    return path


def test_every_unverified_reader_is_tried_here() -> None:
    assert FILES.keys() == UNVERIFIED.keys()
    assert set(UNVERIFIED) <= set(READERS) & set(READER_CHOICES)


@each
def test_it_is_recognised_and_refused_by_its_name(tmp_path: Path, reader: str) -> None:
    path = written(tmp_path, FILES[reader])
    with pytest.raises(UnsupportedFormatError) as caught:
        read_ecg(path)
    assert f"{UNVERIFIED[reader]}: not verified" in str(caught.value)
    assert f"reader='{reader}'" in str(caught.value)


@each
def test_it_is_read_where_it_is_named_and_flagged(tmp_path: Path, reader: str) -> None:
    recording = read_ecg(written(tmp_path, FILES[reader]), reader=reader)
    assert recording.source_format == reader
    assert "unverified_format" in prepare(recording, Preparation(missing_leads="zero")).flags


@each
def test_a_named_reader_refuses_other_formats(tmp_path: Path, reader: str) -> None:
    path = written(tmp_path, muse.document(muse.waveform(muse.counts_of(muse.STORED))))
    with pytest.raises(UnsupportedFormatError, match="found another format"):
        read_ecg(path, reader=reader)


@each
def test_it_has_no_statements(tmp_path: Path, reader: str) -> None:
    assert read_statements(written(tmp_path, FILES[reader])) is None


def test_verified_formats_are_not_flagged(tmp_path: Path) -> None:
    path = written(tmp_path, muse.document(muse.waveform(muse.counts_of(muse.STORED, 5000))))
    assert "unverified_format" not in prepare(read_ecg(path), Preparation()).flags


def test_nihon_kohden_eeg_is_refused_by_its_name(tmp_path: Path) -> None:
    content = bytearray(1024)
    content[:16] = content[0x81:0x91] = b"EEG-1100C V01.00"
    with pytest.raises(UnsupportedFormatError, match="Nihon Kohden EEG: this format is not read"):
        read_ecg(written(tmp_path, bytes(content)))
    content[0x81] = 0
    with pytest.raises(UnsupportedFormatError, match="not a known ECG format"):
        read_ecg(written(tmp_path, bytes(content)))


def pec(system: bytes = b"01002350K", kind: int = 1) -> bytes:
    """The first sections of a Nihon Kohden ECG."""
    sections = (0, bytes(40)), (kind, system.ljust(20, b"\0"))
    return b"".join(
        bytes(10) + struct.pack(">HH", 14 + len(data), number) + data + b"\x12\x34" for number, data in sections
    )


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (pec() + bytes(999), "Nihon Kohden ECG (PEC): this format is not read; export the ECG as HL7 aECG"),
        (
            b"\0\1" * 50 + b"\0FX-8322\0" + bytes(999),
            "Fukuda Denshi ECG: this format is not read; export the ECG as HL7 aECG",
        ),
    ],
)
def test_other_formats_are_refused_by_their_names(tmp_path: Path, content: bytes, name: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=re.escape(name)):
        read_ecg(written(tmp_path, content))


@pytest.mark.parametrize(
    "content",
    [
        pec(kind=2) + bytes(999),
        pec(system=b"Doe") + bytes(999),
        b"\0\1" * 50 + b"xFX-8322\0" + bytes(999),
        b"FX-8322 and other words",
        b'{"recordedAt": "2020"}',
        bytes(4096),
    ],
)
def test_what_only_resembles_them_is_not_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="not a known ECG format"):
        read_ecg(written(tmp_path, content))


def test_the_least_and_greatest_samples_of_both_formats_agree(tmp_path: Path) -> None:
    """The same counts at 2.5 uV each, written in both formats."""
    counts = mortara_eli.counts_of(n_samples=500, seed=3)
    eli = mortara_eli.document(*(mortara_eli.channel(lead, row) for lead, row in counts.items()))
    recordings = [
        read_ecg(written(tmp_path, eli), reader="mortara_eli"),
        read_ecg(written(tmp_path, mfer.mfer(counts)), reader="mfer"),
    ]
    assert recordings[0].leads == recordings[1].leads
    assert recordings[0].sampling_rate == recordings[1].sampling_rate
    np.testing.assert_allclose(recordings[0].samples, recordings[1].samples, atol=1e-6)
