"""Schiller SEMA XML: what is read, and that anything else is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder import read_ecg
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.ecg.statements import Statements
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import read_statements, schiller_sema
from ecgfounder.readers.source import Source
from ecgfounder.storage import locate
from tests.builders.schiller_sema import counts_of, document, event, wave
from tests.places import SHARED

REAL = SHARED / "cases" / "schiller_sema.xml"
needs_real = pytest.mark.skipif(not REAL.is_file(), reason=f"the real recording is not here ({REAL})")


def read(path: Path, content: bytes) -> Recording:
    path.write_bytes(content)
    return schiller_sema.read(Source(locate(path)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ecg.xml"


def average(**changes: Any) -> str:
    return wave(counts_of(n_samples=20, seed=1), "ECG_AVERAGES", **changes)


@needs_real
def test_the_real_recording_equals_an_independent_decode() -> None:
    recording = read_ecg(REAL)
    rhythm = REAL.read_text("utf-8-sig").partition("ECG_RHYTHMS")[2]
    rows = re.findall(r"<name>(\w+)</name>\s*<data>([-\d,]+)</data>", rhythm)
    assert [name for name, _ in rows] == [lead.upper() for lead in STANDARD_LEADS]
    assert recording.source_format == "schiller_sema"
    assert recording.leads == STANDARD_LEADS
    assert recording.sampling_rate == 500
    expected = np.array([numbers.split(",") for _, numbers in rows], dtype=float) / 1000
    assert expected.shape == (12, 4998)
    np.testing.assert_allclose(recording.samples, expected, rtol=0, atol=1e-6)


@needs_real
def test_the_real_files_measurements_show_its_rate_and_its_unit() -> None:
    text = REAL.read_text("utf-8-sig")
    measured = {
        name: float(value)
        for name, value in re.findall(r"<annotation_global>\s*<name>(\w+)</name>\s*<value>(-?[\d.]+)", text)
    }
    limits = (("QT", "QRS_ON", "T_OFF"), ("QRS", "QRS_ON", "QRS_OFF"), ("PQ", "P_ON", "QRS_ON"), ("P", "P_ON", "P_OFF"))
    for interval, first, last in limits:
        assert (measured[last] - measured[first]) / 500 * 1000 == measured[interval]
    averages = text.partition("ECG_AVERAGES")[2].partition("ECG_RHYTHMS")[0]
    tall = 0
    for channel in averages.split("<channel>")[1:]:
        (numbers,) = re.findall(r"<data>([-\d,]+)</data>", channel)
        r_millivolt = float(re.findall(r"<name>R_AMPL</name>\s*<value>([-\d.]+)", channel)[0])
        highest = np.array(numbers.split(","), dtype=float).max() / 1000
        if r_millivolt > 0.5:
            tall += 1
            assert abs(r_millivolt - highest) < 0.02
    assert tall >= 4
    assert recorded_statements(REAL) == Statements((), 59, 214, 146, 458, 454, 91, -67, -30)


def recorded_statements(path: Path) -> Statements:
    found = read_statements(path)
    assert found is not None
    return found


def test_the_rhythm_is_read_though_the_averages_come_first(file: Path) -> None:
    counts = counts_of(n_samples=60)
    recording = read(file, document(event(average(), wave(counts))))
    assert recording.leads == STANDARD_LEADS
    assert recording.sampling_rate == 500
    np.testing.assert_allclose(recording.samples, np.stack(list(counts.values())) * 0.0025, rtol=1e-6, atol=1e-7)
    assert read_ecg(file).source_format == "schiller_sema"


def test_only_device_and_filters_are_taken_from_the_header(file: Path) -> None:
    recording = read(file, document(event(average(), wave(counts_of()))))
    assert recording.meta == {
        "device_manufacturer": "Schiller",
        "device_model": "AT-110",
        "software_version": "2.64.0",
        "highpass_hz": 0.05,
        "lowpass_hz": 150,
        "resolution_uv": 2.5,
    }
    assert recorded_statements(file) == Statements(heart_rate=59, qt_ms=458)


@pytest.mark.parametrize(
    ("rate", "exponent", "expected"), [(1000, 1, 1000), (500, 0, 500), (500, None, 500), (5, 2, 500), (50, 1, 500)]
)
def test_the_exponent_means_what_the_qt_interval_shows(file: Path, rate: int, exponent: Any, expected: float) -> None:
    power = {"rate": rate, "exponent": exponent}
    assert read(file, document(event(average(**power), wave(counts_of(), **power)))).sampling_rate == expected


@pytest.mark.parametrize(("exponent", "expected"), [(0, 250), (1, 250), (None, 250)])
def test_without_a_qt_interval_the_value_is_the_rate(file: Path, exponent: Any, expected: float) -> None:
    content = document(event(wave(counts_of(), rate=250, exponent=exponent), measured={}))
    assert read(file, content).sampling_rate == expected


@pytest.mark.parametrize(
    ("waves", "message"),
    [
        ((average(rate=3000), wave(counts_of(), rate=3000)), "contradicts"),
        ((average(exponent=0), wave(counts_of())), "differ"),
        ((wave(counts_of(), exponent=2),), "exponent of 0 or 1"),
        ((average(exponent=99), wave(counts_of(), exponent=99)), "exponent of -6 to 6, found 99"),
        ((wave(counts_of(), rate="fast"),), "not a number"),
        ((wave(counts_of(), rate=0),), "impossible sampling rate"),
    ],
)
def test_a_rate_that_is_not_certain_is_refused(file: Path, waves: tuple[str, ...], message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, document(event(*waves)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samplecount": 49}, "samplecount is 49"),
        ({"samplecount": None}, "samplecount"),
        ({"datastype": "BASE64"}, "COMMASEPARATE"),
        ({"data": "1,2,Jane"}, "not part of a number"),
        ({"data": "", "samplecount": 0}, "no samples"),
        ({"name": ""}, "has no name"),
        ({"name": "V1"}, "have the same lead name"),
        ({"per_bit": 0}, "must be above 0"),
        ({"per_bit": "1e9"}, "kilovolt"),
        ({"units": "BPM"}, "not uV, mV, V or nV"),
    ],
)
def test_contradictions_and_what_is_no_voltage_are_refused(file: Path, changes: Any, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        read(file, document(event(wave(counts_of(("I", "II")), **changes))))


def test_leads_of_different_lengths_are_refused(file: Path) -> None:
    with pytest.raises(ReadError, match="different lengths"):
        read(file, document(event(wave(counts_of(("I",), 50) | counts_of(("II",), 40)))))


def test_averages_alone_are_refused(file: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="averaged beats are not read"):
        read(file, document(event(average())))


def test_entities_are_refused(file: Path) -> None:
    doctype = '<!DOCTYPE x [<!ENTITY a "x">]>'
    with pytest.raises(ReadError, match="entities"):
        read(file, document(event(wave(counts_of())), doctype=doctype))


def test_errors_quote_no_text_of_the_file(file: Path) -> None:
    with pytest.raises(ReadError) as caught:
        read(file, document(event(wave(counts_of(("JANE DOE",)), samplecount=1))))
    assert "JANE" not in str(caught.value).upper()
