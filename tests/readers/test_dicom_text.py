"""DICOM objects as XML and as JSON: the recording of the same object as a DICOM file; hostile documents are refused."""

from __future__ import annotations

import base64
import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from ecgfounder import read_ecg
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import read_statements
from tests.builders.dicom import CT_IMAGE, TWELVE_LEAD, channel, counts_of, ecg, encoded, group, item, rhythm
from tests.builders.dicom_text import as_json, as_xml, members
from tests.places import RECORDINGS, SHARED

REAL_DICOM = RECORDINGS / "dicom" / "ecgtoolkit_Example.dcm"
REAL_XML = SHARED / "cases" / "dicom_native.xml"
needs_real = pytest.mark.skipif(
    not (REAL_DICOM.is_file() and REAL_XML.is_file()), reason=f"the real recordings are not here ({SHARED})"
)

CLASS, GROUPS, DATA = "00080016", "54000100", "54001010"
Writer = Callable[[Any], bytes]
both = pytest.mark.parametrize("write", [as_xml, as_json])


def attributes(*groups: Any) -> dict[str, Any]:
    return members(ecg(*(groups or (rhythm(),))))


def first_group(found: dict[str, Any]) -> dict[str, Any]:
    return found[GROUPS]["Value"][0]


def read(tmp_path: Path, content: bytes) -> Any:
    path = tmp_path / "x"
    path.write_bytes(content)
    return read_ecg(path)


# The same object


@both
def test_the_recording_is_that_of_the_dicom_file(tmp_path: Path, write: Writer) -> None:
    groups = (
        rhythm(n_samples=40, seed=2, MultiplexGroupLabel="MEDIAN BEAT"),
        group(
            counts_of(("I", "II"), 60),
            [channel("I", "SCPECG"), channel("II", "text", "mV", ChannelBaseline="3", ChannelSampleSkew="2")],
            WaveformPaddingValue=np.int16(-32768).tobytes(),
        ),
    )
    dataset = ecg(*groups)
    expected = read(tmp_path, encoded(dataset))
    recording = read(tmp_path, write(members(dataset)))
    assert recording.source_format == ("dicom_xml" if write is as_xml else "dicom_json")
    assert (recording.leads, recording.sampling_rate, recording.meta) == (
        expected.leads,
        expected.sampling_rate,
        expected.meta,
    )
    np.testing.assert_array_equal(recording.samples, expected.samples)


@both
def test_statements_are_those_of_the_dicom_file(tmp_path: Path, write: Writer) -> None:
    dataset = ecg(rhythm())
    dataset.WaveformAnnotationSequence.append(
        item(ConceptNameCodeSequence=[item(CodeMeaning="QT Interval")], NumericValue="400")
    )
    (tmp_path / "x.dcm").write_bytes(encoded(dataset))
    (tmp_path / "x").write_bytes(write(members(dataset)))
    found = read_statements(tmp_path / "x")
    assert found is not None
    assert found.qt_ms == 400
    assert found == read_statements(tmp_path / "x.dcm")


@pytest.mark.parametrize(
    "form", [as_json, lambda found: as_json([found]), lambda found: b"\xef\xbb\xbf" + as_json(found)]
)
def test_json_may_be_an_array_of_one_object_and_begin_with_a_byte_order_mark(tmp_path: Path, form: Writer) -> None:
    assert read(tmp_path, form(attributes())).source_format == "dicom_json"


def test_decimal_strings_may_be_texts_and_numbers_in_json(tmp_path: Path) -> None:
    found = attributes()
    for value in (250, 250.0, "250"):
        first_group(found)["003A001A"]["Value"] = [value]
        assert read(tmp_path, as_json(found)).sampling_rate == 250


def test_xml_is_read_without_a_namespace(tmp_path: Path) -> None:
    assert read(tmp_path, as_xml(attributes(), namespace="")).source_format == "dicom_xml"


@needs_real
def test_a_real_document_with_the_real_waveforms_is_the_real_dicom_file(tmp_path: Path) -> None:
    """The document states one sample less than the file and holds none: it gets as many of the file's as it states.

    Its third axis is called QRS Axis again, not T Axis.
    """
    waveforms = [bytes(each.WaveformData) for each in pydicom.dcmread(REAL_DICOM).WaveformSequence]
    text = REAL_XML.read_text()
    lengths = [int(length) for length in re.findall(r"<BulkData[^>]*length=(\d+)", text)]
    assert lengths == [2 * 12 * 4999, 2 * 12 * 599]
    for length, data in zip(lengths, waveforms, strict=True):
        inline = f"<InlineBinary>{base64.encodebytes(data[:length]).decode()}</InlineBinary>"
        text = re.sub("<BulkData[^>]*/>", inline, text, count=1)
    recording, expected = read(tmp_path, text.encode()), read_ecg(REAL_DICOM)
    assert expected.n_samples == 5000
    np.testing.assert_array_equal(recording.samples, expected.samples[:, :4999])
    assert (recording.leads, recording.sampling_rate) == (expected.leads, expected.sampling_rate)
    assert recording.meta == expected.meta
    stated = read_statements(REAL_DICOM)
    assert stated is not None
    assert read_statements(tmp_path / "x") == replace(stated, t_axis=None)


# What is not in the document


@needs_real
def test_a_real_document_without_its_waveforms_says_that_they_are_elsewhere() -> None:
    with pytest.raises(UnsupportedFormatError, match=r"WaveformData is not in this file.*BulkData") as caught:
        read_ecg(REAL_XML)
    assert "file:" not in str(caught.value)


@both
def test_waveforms_that_are_elsewhere_are_never_looked_for(tmp_path: Path, write: Writer) -> None:
    found = attributes()
    (tmp_path / "waveform").write_bytes(base64.b64decode(first_group(found)[DATA]["InlineBinary"]))
    first_group(found)[DATA] = {"vr": "OW", "BulkDataURI": (tmp_path / "waveform").as_uri()}
    with pytest.raises(UnsupportedFormatError, match="only names a place elsewhere"):
        read(tmp_path, write(found))


@both
def test_an_object_without_waveforms_is_named_by_its_class(tmp_path: Path, write: Writer) -> None:
    found = attributes()
    del found[GROUPS]
    found[CLASS]["Value"] = [CT_IMAGE]
    with pytest.raises(UnsupportedFormatError, match="found CT Image Storage"):
        read(tmp_path, write(found))


def test_several_objects_in_one_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="array of 2"):
        read(tmp_path, as_json([attributes(), attributes()]))


# Hostile documents


@both
@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        (DATA, {"vr": "OW", "InlineBinary": "A" * 4_000_000}, "but WaveformData has 3000000"),
        (DATA, {"vr": "OW", "InlineBinary": "not base64!"}, "WaveformData is not base64"),
        (DATA, {"vr": "OW"}, "but WaveformData has 0"),
        (DATA, {"vr": "UN", "InlineBinary": "AAAA"}, "value representation OB or OW"),
        ("003A001A", {"vr": "LO", "Value": ["Jane"]}, "value representation DS"),
        ("003A001A", {"vr": "DS", "Value": ["Jane"]}, "SamplingFrequency is not a number"),
        ("003A001A", {"vr": "DS", "Value": ["nan"]}, "SamplingFrequency is not a number"),
        ("003A001A", {"vr": "DS", "Value": ["1", "2"]}, "TypeError"),
        ("003A0010", {"vr": "UL", "Value": [10**12]}, "samples of 12 channels"),
        ("003A0200", {"vr": "SQ", "Value": []}, "channel definitions"),
    ],
)
def test_values_that_their_element_does_not_allow_are_refused(
    tmp_path: Path, write: Writer, tag: str, value: Any, message: str
) -> None:
    found = copy.deepcopy(attributes())
    first_group(found)[tag] = value
    with pytest.raises(ReadError, match=message) as caught:
        read(tmp_path, write(found))
    assert "Jane" not in str(caught.value)


@both
def test_big_endian_objects_are_refused(tmp_path: Path, write: Writer) -> None:
    syntax = {"00020010": {"vr": "UI", "Value": ["1.2.840.10008.1.2.2"]}}
    with pytest.raises(UnsupportedFormatError, match="big-endian"):
        read(tmp_path, write(syntax | attributes()))


@both
@pytest.mark.parametrize("levels", [20, 150])
def test_sequences_that_are_nested_too_deep_are_refused(tmp_path: Path, write: Writer, levels: int) -> None:
    nested: dict[str, Any] = {}
    for _ in range(levels):
        nested = {GROUPS: {"vr": "SQ", "Value": [nested]}}
    with pytest.raises(ReadError, match=r"nested too deep|not well-formed"):
        read(tmp_path, write({CLASS: {"vr": "UI", "Value": [TWELVE_LEAD]}} | nested))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"00080016": {"vr": "UI", "Value": ' + b"[" * 100_000, "not well-formed JSON"),
        (b'{"00080016": {"vr": "UI", "Value": ["x"]}', "not well-formed JSON"),
        (b'{"00080016": {"vr": "UI", "Value": "Jane"}}', "Value that is not an array"),
        (b'{"00080016": {"vr": "UI", "Value": [7]}}', "SOPClassUID is not a text"),
        (b'{"00080016": {"vr": "UI"}, "54000100": 5}', "expected a JSON object"),
        (b'{"00080016": {"vr": "UI"}, "54000100": {"vr": "SQ", "Value": ["Jane"]}}', "expected a JSON object"),
        (b'{"00080016": {"vr": "UI"}, "54000100": {"vr": ["SQ"], "Value": []}}', "value representation SQ"),
        (b'{"003A001A": {"vr": "DS", "Value": [true]}}', "not a number"),
    ],
)
def test_json_that_is_no_dicom_object_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ReadError, match=message) as caught:
        read(tmp_path, content)
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b'{"embedding": [[1, 2]], "shape": [1, 2]}', b"[1, 2, 3]", b'{"20200101": {"rate": 500}}', b"{}"]
)
def test_other_json_is_not_taken_for_dicom(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(UnsupportedFormatError, match="not a known ECG format"):
        read(tmp_path, content)


def test_an_element_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    content = as_xml(attributes())
    twice = content.replace(b"<DicomAttribute", b'<DicomAttribute tag="00080016" vr="UI"/><DicomAttribute', 1)
    with pytest.raises(ReadError, match="SOPClassUID occurs twice"):
        read(tmp_path, twice)


def test_entities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="entities"):
        read(tmp_path, as_xml(attributes(), doctype='<!DOCTYPE x [<!ENTITY a "x">]>'))
