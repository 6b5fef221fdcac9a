"""Mortara ELI XML: what is read, and that anything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder import read_ecg
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError, UnsupportedFormatError
from tests.builders.mortara_eli import channel, counts_of, document


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.xml"


def read(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    return read_ecg(path, reader="mortara_eli")


def test_channels_are_read_in_millivolt_and_the_typical_cycle_is_left_out(file: Path) -> None:
    counts = counts_of()
    recording = read(file, document(*(channel(lead, row) for lead, row in counts.items())))
    assert recording.leads == STANDARD_LEADS
    assert recording.sampling_rate == 500
    assert recording.is_unverified
    np.testing.assert_allclose(recording.samples, np.stack(list(counts.values())) / 400, rtol=1e-6, atol=1e-7)
    assert recording.meta == {
        "device_manufacturer": "Mortara Instrument, Inc.",
        "device_model": "ELI 250c",
        "resolution_uv": 2.5,
    }


def test_utf_16_is_recognised(file: Path) -> None:
    text = document(*(channel(lead, row) for lead, row in counts_of().items())).decode().replace("UTF-8", "UTF-16")
    assert read(file, text.encode("utf-16")).leads == STANDARD_LEADS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"OFFSET": 5}, "OFFSET 0"),
        ({"OFFSET": None}, "OFFSET is not a number"),
        ({"BITS": 8}, "BITS 16"),
        ({"FORMAT": "UNSIGNED"}, "FORMAT SIGNED"),
        ({"ENCODING": "HEX"}, "ENCODING BASE64"),
        ({"UNITS_PER_MV": 0}, "UNITS_PER_MV must be above 0"),
        ({"UNITS_PER_MV": "1e-9"}, "kilovolt"),
        ({"DURATION": 49}, "DURATION is 49 samples"),
        ({"DATA": "!!"}, "not base64"),
        ({"SAMPLE_FREQ": 0}, "impossible sampling rate"),
        ({"NAME": ""}, "has no NAME"),
    ],
)
def test_contradictions_and_what_is_not_certain_are_refused(file: Path, changes: Any, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, document(channel("I", counts_of()["I"], **changes)))


def test_channels_of_several_rates_or_lengths_are_refused(file: Path) -> None:
    row = counts_of()["I"]
    with pytest.raises(UnsupportedFormatError, match="one SAMPLE_FREQ"):
        read(file, document(channel("I", row), channel("II", row, SAMPLE_FREQ=250)))
    with pytest.raises(ReadError, match="different lengths"):
        read(file, document(channel("I", row), channel("II", row[:9])))


def test_a_typical_cycle_alone_is_refused(file: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="typical cycle alone"):
        read(file, document())


def test_entities_and_free_text_are_refused(file: Path) -> None:
    row = counts_of()["I"]
    with pytest.raises(ReadError, match="entities"):
        read(file, document(channel("I", row), doctype='<!DOCTYPE ECG [<!ENTITY a "x">]>'))
    with pytest.raises(ReadError) as caught:
        read(file, document(channel("JANE DOE", row, DURATION=1)))
    assert "JANE" not in str(caught.value)


def test_another_document_of_that_root_is_not_taken_for_it(file: Path) -> None:
    file.write_text("<ECG><lead>I</lead></ECG>")
    with pytest.raises(UnsupportedFormatError, match="not a known ECG format"):
        read_ecg(file)
