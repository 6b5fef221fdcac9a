"""XML with characters in its texts that no parser accepts: the recording is read where the samples are provably whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ecgfounder.demo.philips_encoder import encode_sierra
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ReadError
from ecgfounder.preprocess import Preparation, prepare
from ecgfounder.readers import read_ecg, read_statements
from tests.builders import cardiosoft, hl7_aecg, muse
from tests.harness.effort import measured
from tests.harness.mutations import is_read_or_refused

COUNTS = np.cumsum(np.random.default_rng(0).integers(-12, 13, (12, 1500)), axis=1)


def muse_document(text: str = "M\u00fcller", **changes: str) -> str:
    document = muse.document(muse.waveform(muse.counts_of(STANDARD_LEADS, 1500), **changes)).decode("latin-1")
    return document.replace("M\u00fcller", text)


def cardiosoft_document(text: str = "M\u00fcller", total: str | None = "1500") -> str:
    strip = cardiosoft.strip_data(cardiosoft.counts_of(STANDARD_LEADS, 1500), total=total)
    return cardiosoft.document(strip).decode("latin-1").replace("M\u00fcller", text)


def philips_document(text: str = "x", version: str = "1.04", compressed: bool = True) -> str:
    document = encode_sierra(COUNTS, version=version, compressed=compressed).decode()
    return document.replace("<lastname />", f"<lastname>{text}</lastname>")


DOCUMENTS: dict[str, tuple[Callable[[str], str], str]] = {
    "muse": (muse_document, "latin-1"),
    "cardiosoft": (cardiosoft_document, "latin-1"),
    "philips": (philips_document, "utf-8"),
    "philips 1.03": (lambda text: philips_document(text, "1.03"), "utf-8"),
    "philips plain": (lambda text: philips_document(text, compressed=False), "utf-8"),
    "philips UTF-16": (lambda text: philips_document(text).replace("UTF-8", "UTF-16", 1), "utf-16"),
}
DAMAGES = [
    "A\x01B\x0b",
    "Smith & Sons",
    "a &1; &b c",
    "&#1;&#x1F;&#xFFFF;",
    "\0" * 40,
    "<i x='\x02 &'/>",
    "\ufffe &amp &#9;",
]


def read(folder: Path, document: str, encoding: str = "latin-1") -> Recording:
    path = folder / "x.xml"
    path.write_bytes(document.encode(encoding, "replace"))
    return read_ecg(path)


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_characters_in_a_text_do_not_cost_the_recording(kind: str, damage: str, tmp_path: Path) -> None:
    make, encoding = DOCUMENTS[kind]
    if encoding == "latin-1":
        damage = damage.replace("\ufffe", "\x1a")
    whole, damaged = read(tmp_path, make("x"), encoding), read(tmp_path, make(damage), encoding)
    assert np.array_equal(whole.samples, damaged.samples)
    assert (whole.leads, whole.sampling_rate, dict(whole.meta)) == (damaged.leads, damaged.sampling_rate, damaged.meta)
    assert (whole.is_repaired, damaged.is_repaired) == (False, True)
    assert "repaired_xml" in prepare(damaged, Preparation()).flags
    assert "repaired_xml" not in prepare(whole, Preparation()).flags
    assert read_statements(tmp_path / "x.xml") is not None


@pytest.mark.parametrize("character", ["\x01", "&", "\0"])
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_damage_in_the_data_is_refused(kind: str, character: str, tmp_path: Path) -> None:
    make, encoding = DOCUMENTS[kind]
    document = make("x")
    data = max(re.finditer(r">([^<>]{500,})<", document), key=lambda found: len(found[1]))
    for place in (data.start(1) + 40, data.end(1) - 40):
        for changed in (
            document[:place] + character + document[place:],
            document[:place] + character + document[place + 1 :],
        ):
            with pytest.raises(ReadError):
                read(tmp_path, changed, encoding)


@pytest.mark.parametrize(
    "document",
    [
        muse_document("a & b", LeadDataCRC32="0"),
        muse_document("a & b", LeadSampleCountTotal=""),
        muse_document("a & b").replace("<NumberofLeads>12</NumberofLeads>", ""),
        re.sub(r"<LeadData>.*?</LeadData>", "", muse_document("a & b"), count=1, flags=re.DOTALL),
        cardiosoft_document("a & b", total=None),
        cardiosoft_document("a & b").replace("<NumberOfLeads>12</NumberOfLeads>", ""),
        re.sub(
            r"(<StripData>.*?)<WaveformData.*?</WaveformData>", r"\1", cardiosoft_document("a & b"), flags=re.DOTALL
        ),
        re.sub(r",-?\d+,", ",,", cardiosoft_document("a & b")),
    ],
)
def test_what_does_not_prove_its_samples_whole_is_refused_as_before(document: str, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="not well-formed XML"):
        read(tmp_path, document)
    assert not read(tmp_path, document.replace("a & b", "a")).is_repaired


def test_aecg_has_no_counts_and_is_refused(tmp_path: Path) -> None:
    rhythm = hl7_aecg.sequence_set(hl7_aecg.counts_of(STANDARD_LEADS, 60))
    document = hl7_aecg.document("<text>a & b</text>", hl7_aecg.series(rhythm)).decode()
    with pytest.raises(ReadError, match="not well-formed XML"):
        read(tmp_path, document, "utf-8")


@pytest.mark.parametrize(
    "change",
    [
        ("<PatientLastName>", "<\x01PatientLastName>"),
        ("<PatientLastName>", "<Patient\x01LastName>"),
        ("</PatientLastName>", "\x01/PatientLastName>"),
        ("</PatientLastName>", ""),
        ("<PatientLastName>", "<PatientLastName><"),
        ("<LeadID>V3<", "<LeadID>V3\x01<"),
        ("<SampleBase>500<", "<SampleBase>50\x010<"),
        ("<LeadAmplitudeUnits>M", "<LeadAmplitudeUnits>\x01M"),
        ("<RestingECG>", "\x01<RestingECG>"),
        ("</RestingECG>", ""),
        ('<!DOCTYPE RestingECG SYSTEM "restecg.dtd">', '<!DOCTYPE RestingECG [<!ENTITY a "b">]>'),
    ],
)
def test_damage_elsewhere_is_refused(change: tuple[str, str], tmp_path: Path) -> None:
    document = muse_document("a & b")
    assert change[0] in document
    with pytest.raises(ReadError):
        read(tmp_path, document.replace(*change))


def test_the_number_of_changes_is_limited(tmp_path: Path) -> None:
    assert read(tmp_path, muse_document("&" * 1000)).is_repaired
    with pytest.raises(ReadError, match="not well-formed XML"):
        read(tmp_path, muse_document("&" * 1001))


@pytest.mark.parametrize("piece", ["<!--", "<![CDATA[", "<?", "<", "<a '", "&", "&#", "\x01", "<a b='&'>"])
def test_no_text_takes_long(piece: str, tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_text("<RestingECG>" + piece * (2_000_000 // len(piece)), encoding="latin-1")
    assert not is_read_or_refused(path)
    with measured() as effort:
        is_read_or_refused(path)
    assert effort.lines < 400_000
