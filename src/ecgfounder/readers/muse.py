"""GE MUSE XML (root RestingECG): the rhythm waveform, for each lead little-endian integers in base64.

In: a file exported by MUSE 5 to 9, or written by a converter. Out: a `Recording` of the stored leads, usually I, II, V1 to V6;
III, aVR, aVL and aVF are not stored, and are derived later (`ecg.leads`).
"""

from __future__ import annotations

import base64
import binascii
import zlib

import numpy as np
import numpy.typing as npt
from lxml import etree

from ecgfounder.ecg.leads import canonical_lead
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.ecg.statements import Statements, statements_of
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import millivolts_per, optional_number, to_millivolts
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import in_words, standard_leads_in
from ecgfounder.readers.xml import integer, number, parse_or_repair, root_of, text_of

FORMAT = "ge_muse"

_SAMPLE_TYPES = {1: "<i1", 2: "<i2", 4: "<i4"}


def matches(source: Source) -> bool:
    """Whether the document's root element is RestingECG (Philips' is restingecgdata)."""
    root = root_of(source)
    return root is not None and root.name == "RestingECG"


def read(source: Source) -> Recording:
    """Decode the rhythm waveform with the most standard leads.

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in millivolts; the sampling rate is SampleBase x 10^SampleExponent Hz. If leads begin or end
        at different times (LeadOffsetFirstSample), missing samples are NaN.

    Raises
    ------
    ReadError
        If the XML is damaged, or counts, units or checksums (LeadDataCRC32, the CRC-32 of zlib) do not match the data.
    UnsupportedFormatError
        If the file has no rhythm waveform, but only a median beat.
    """
    document = parse_or_repair(source)
    waveform = _rhythm(document.root)
    leads = [_Lead(element) for element in waveform.iterfind("{*}LeadData")]
    document.refuse_unless(lambda: _is_whole(waveform), [lead.name for lead in leads])
    rate = number(_text(waveform, "SampleBase"), "SampleBase") * 10.0 ** _exponent(waveform)
    return Recording(
        samples=_aligned(leads),
        sampling_rate=rate,
        leads=tuple(lead.name for lead in leads),
        source_format=FORMAT,
        meta=_meta(document.root, waveform, leads),
        is_repaired=document.damage is not None,
    )


def _is_whole(waveform: etree._Element) -> bool:
    """Whether the number of leads is stated, and each lead, which was decoded, has a count and a checksum."""
    leads = waveform.findall("{*}LeadData")
    return optional_number(_text(waveform, "NumberofLeads")) == len(leads) and all(
        _text(lead, "LeadSampleCountTotal") and optional_number(_text(lead, "LeadDataCRC32")) for lead in leads
    )


def _rhythm(root: etree._Element) -> etree._Element:
    waveforms = root.findall("{*}Waveform")
    rhythms = [waveform for waveform in waveforms if "rhythm" in _text(waveform, "WaveformType").casefold()]
    if not rhythms:
        raise UnsupportedFormatError(
            f"expected a waveform of type Rhythm, found {len(waveforms)} of other types; "
            "export the full ECG, not the median beat alone"
        )
    rhythm = max(rhythms, key=lambda waveform: standard_leads_in(_names(waveform)))
    kind = _text(rhythm, "SampleType").upper()
    if kind and "CONTINUOUS" not in kind:
        raise UnsupportedFormatError("expected SampleType CONTINUOUS_SAMPLES, found another")
    return rhythm


def _names(waveform: etree._Element) -> list[str]:
    return [canonical_lead(_text(lead, "LeadID")) for lead in waveform.iterfind("{*}LeadData")]


def _exponent(waveform: etree._Element) -> int:
    text = _text(waveform, "SampleExponent")
    exponent = integer(text, "SampleExponent") if text else 0
    if abs(exponent) > 9:
        raise ReadError(f"expected a SampleExponent of -9 to 9, found {exponent}")
    return exponent


class _Lead:
    """One LeadData element: its name, its first sample's position and its samples in mV."""

    def __init__(self, element: etree._Element) -> None:
        self.name = canonical_lead(_text(element, "LeadID"))
        if not self.name:
            raise ReadError("a LeadData element has no LeadID")
        called = in_words(self.name)
        self.resolution_mv = _resolution_mv(element, called)
        self.samples = to_millivolts(_counts(element, called), self.resolution_mv, 0.0, called)
        offset = _text(element, "LeadOffsetFirstSample")
        self.first = integer(offset, "LeadOffsetFirstSample") if offset else 0


def _resolution_mv(element: etree._Element, called: str) -> float:
    text = _text(element, "LeadAmplitudeUnitsPerBit")
    if text.count(",") == 1 and "." not in text:  # a decimal comma
        text = text.replace(",", ".")
    unit = _text(element, "LeadAmplitudeUnits") or "MICROVOLTS"  # the default of GE's restecg.dtd
    factor = millivolts_per(unit)
    if factor is None:
        raise ReadError(f"{called}: LeadAmplitudeUnits is not a known unit of voltage")
    resolution = number(text, f"{called}: LeadAmplitudeUnitsPerBit") * factor
    if resolution == 0:
        raise ReadError(f"{called}: LeadAmplitudeUnitsPerBit is 0")
    return resolution


def _counts(element: etree._Element, called: str) -> npt.NDArray[np.int64]:
    size = integer(_text(element, "LeadSampleSize") or "2", f"{called}: LeadSampleSize")
    if size not in _SAMPLE_TYPES:
        raise UnsupportedFormatError(f"{called}: expected samples of 1, 2 or 4 bytes, found {size}")
    data = _decoded(element, called)
    for tag, found in (("LeadByteCountTotal", len(data)), ("LeadSampleCountTotal", len(data) // size)):
        stated = _text(element, tag)
        if stated and (count := integer(stated, f"{called}: {tag}")) != found:
            raise ReadError(f"{called}: {tag} is {count}, but the data has {found}")
    if len(data) % size:
        raise ReadError(f"{called}: {len(data)} bytes are not a whole number of {size}-byte samples")
    _check_crc(element, data, called)
    return np.frombuffer(data, dtype=_SAMPLE_TYPES[size]).astype(np.int64)


def _decoded(element: etree._Element, called: str) -> bytes:
    packed = "".join(_text(element, "WaveFormData").split())
    packed += "=" * (-len(packed) % 4)  # some converters omit the padding
    try:
        return base64.b64decode(packed, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ReadError(f"{called}: WaveFormData is not base64") from error


def _check_crc(element: etree._Element, data: bytes, called: str) -> None:
    text = _text(element, "LeadDataCRC32")
    stated = integer(text, f"{called}: LeadDataCRC32") if text else 0
    # Converters that do not compute it write 0; some programs write the 32 bits as a signed number.
    if stated and stated % (1 << 32) != zlib.crc32(data):
        raise ReadError(f"{called}: the samples do not match their checksum (LeadDataCRC32): damaged or edited")


def _aligned(leads: list[_Lead]) -> Samples:
    """The leads as rows, on a time axis from the first sample of the earliest lead."""
    if not leads:
        raise ReadError("the rhythm waveform has no leads")
    longest = max(len(lead.samples) for lead in leads)
    earliest = min(lead.first for lead in leads)
    if max(lead.first for lead in leads) - earliest > len(leads) * longest:
        raise ReadError("LeadOffsetFirstSample is far outside the recording")
    n_samples = max(lead.first - earliest + len(lead.samples) for lead in leads)
    samples = np.full((len(leads), n_samples), np.nan, dtype=np.float32)
    for row, lead in zip(samples, leads, strict=True):
        row[lead.first - earliest :][: len(lead.samples)] = lead.samples
    return samples


def _meta(root: etree._Element, waveform: etree._Element, leads: list[_Lead]) -> dict[str, str | float]:
    texts = {
        "format_version": root.find("{*}MuseInfo/{*}MuseVersion"),
        "device_model": root.find("{*}TestDemographics/{*}AcquisitionDevice"),
        "software_version": root.find("{*}TestDemographics/{*}AcquisitionSoftwareVersion"),
    }
    meta: dict[str, str | float] = {key: text_of(element)[:64] for key, element in texts.items() if text_of(element)}
    high_pass = optional_number(_text(waveform, "HighPassFilter"))
    settings = {
        "highpass_hz": None if high_pass is None else high_pass / 100,  # stored in hundredths of a hertz
        "lowpass_hz": optional_number(_text(waveform, "LowPassFilter")),
        "notch_hz": optional_number(_text(waveform, "ACFilter")),  # "NONE" if it is off
    }
    meta |= {key: value for key, value in settings.items() if value}
    resolutions = {lead.resolution_mv for lead in leads}
    if len(resolutions) == 1:
        meta["resolution_uv"] = round(resolutions.pop() * 1000, 9)
    return meta


def _text(element: etree._Element, tag: str) -> str:
    return text_of(element.find(f"{{*}}{tag}"))


_MEASUREMENTS = {
    "heart_rate": "VentricularRate",
    "pr_ms": "PRInterval",
    "qrs_ms": "QRSDuration",
    "qt_ms": "QTInterval",
    "qtc_ms": "QTCorrected",
    "p_axis": "PAxis",
    "qrs_axis": "RAxis",
    "t_axis": "TAxis",
}


def statements(source: Source) -> Statements:
    """The unedited analysis of the 12SL program: OriginalDiagnosis and OriginalRestingECGMeasurements.

    Diagnosis, which contains a physician's edits, is never read; RestingECGMeasurements are read if there are no original ones.
    """
    root = parse_or_repair(source).root
    lines: list[str] = [""]
    for statement in root.iterfind("{*}OriginalDiagnosis/{*}DiagnosisStatement"):
        lines[-1] += f" {_text(statement, 'StmtText')}"
        if any("ENDSLINE" in text_of(flag).upper() for flag in statement.iterfind("{*}StmtFlag")):
            lines.append("")
    measured = root.find("{*}OriginalRestingECGMeasurements")
    if measured is None:
        measured = root.find("{*}RestingECGMeasurements")
    numbers = {} if measured is None else {key: _text(measured, tag) for key, tag in _MEASUREMENTS.items()}
    return statements_of(lines, **{key: optional_number(text) for key, text in numbers.items()})
