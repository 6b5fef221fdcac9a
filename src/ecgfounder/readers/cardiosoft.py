"""GE CardioSoft XML (root CardiologyXML, as in UK Biobank): the strip of all leads, as numbers separated by commas.

In: a resting ECG with its leads directly below StripData, or an exercise ECG with Strip elements below StripData. Out: a
`Recording` of the strip with the most standard leads. Median beats, vector loops and the full disclosure are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from lxml import etree

from ecgfounder.ecg.leads import canonical_lead
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.ecg.statements import Statements, statements_of
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import millivolts_in, millivolts_per, optional_number
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import in_words, standard_leads_in
from ecgfounder.readers.xml import integer, number, parse_or_repair, root_of, text_of

FORMAT = "ge_cardiosoft"

_VOLTAGE_PER_COUNT = re.compile(r"(\w+?)\s*(?:per|/)\s*(?:lsb|bit|count|sample)", re.IGNORECASE)


def matches(source: Source) -> bool:
    """Whether the document's root element is CardiologyXML."""
    root = root_of(source)
    return root is not None and root.name == "CardiologyXML"


def read(source: Source) -> Recording:
    """Decode the strip with the most standard leads, the first of several.

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in millivolts; NaN for empty fields, and after the end of a lead that is shorter than the
        others.

    Raises
    ------
    ReadError
        If the XML is damaged, or sampling rate, resolution, counts or numbers are not valid.
    UnsupportedFormatError
        If there is no strip, but only a full disclosure or median beats.
    """
    document = parse_or_repair(source)
    strips = [strip for data in document.root.iter("{*}StripData") for strip in _strips(data)]
    if not strips:
        raise UnsupportedFormatError(
            "expected a StripData element with WaveformData for each lead, found none; "
            "median beats and the full disclosure are not read"
        )
    strip = max(strips, key=lambda strip: standard_leads_in([_name(lead) for lead in _leads(strip)]))
    leads = list(_leads(strip))
    resolution_mv = _resolution_mv(_setting(strip, "Resolution"))
    samples = _samples(strip, leads, resolution_mv)
    names = tuple(_name(lead) for lead in leads)
    document.refuse_unless(lambda: _is_whole(strip, samples), names)
    return Recording(
        samples=samples,
        sampling_rate=_rate(_setting(strip, "SampleRate")),
        leads=names,
        source_format=FORMAT,
        meta=_meta(document.root, resolution_mv),
        is_repaired=document.damage is not None,
    )


def _is_whole(strip: etree._Element, samples: Samples) -> bool:
    """Whether the stated numbers of leads and of samples are those of the leads, and no field is empty."""
    stated = [
        optional_number(text_of(strip.find(f"{{*}}{tag}"))) for tag in ("NumberOfLeads", "ChannelSampleCountTotal")
    ]
    return tuple(stated) == samples.shape and not np.isnan(samples).any()


def _strips(data: etree._Element) -> Iterator[etree._Element]:
    """The elements with WaveformData: StripData itself, or the Strip elements of an exercise ECG."""
    for element in (data, *data.iterfind("{*}Strip")):
        if element.find("{*}WaveformData") is not None:
            yield element


def _leads(strip: etree._Element) -> Iterator[etree._Element]:
    return strip.iterfind("{*}WaveformData")


def _name(lead: etree._Element) -> str:
    name = canonical_lead(lead.get("lead") or lead.get("Lead") or "")
    if not name:
        raise ReadError("a WaveformData element has no lead name")
    return name


def _setting(strip: etree._Element, tag: str) -> etree._Element:
    """The element for sampling rate or resolution: in the strip, or in a parent if several strips share it."""
    element: etree._Element | None = strip
    while element is not None:
        found = element.find(f"{{*}}{tag}")
        if found is not None:
            return found
        element = element.getparent()
    raise ReadError(f"expected a {tag} element in StripData, found none")


def _rate(element: etree._Element) -> float:
    unit = element.get("units", "Hz").strip().casefold()
    if unit != "hz":
        raise ReadError("the SampleRate is not in Hz")
    return number(text_of(element), "SampleRate")


def _resolution_mv(element: etree._Element) -> float:
    unit = _VOLTAGE_PER_COUNT.fullmatch(element.get("units", "uVperLsb").strip())
    factor = millivolts_per(unit[1]) if unit else None
    if factor is None:
        raise ReadError("the Resolution is not in uV, mV, V or nV per bit")
    resolution = number(text_of(element), "Resolution") * factor
    if resolution <= 0:
        raise ReadError("the Resolution must be above 0")
    return resolution


def _samples(strip: etree._Element, leads: list[etree._Element], resolution_mv: float) -> Samples:
    rows = [
        millivolts_in(lead.text or "", resolution_mv, 0.0, f"{in_words(_name(lead))}: WaveformData") for lead in leads
    ]
    longest = max(len(row) for row in rows)
    stated = text_of(strip.find("{*}ChannelSampleCountTotal"))
    if stated and (total := integer(stated, "ChannelSampleCountTotal")) != longest:
        raise ReadError(f"ChannelSampleCountTotal is {total}, but the leads have {longest} samples")
    samples = np.full((len(leads), longest), np.nan, dtype=np.float32)
    for filled, row in zip(samples, rows, strict=True):
        filled[: len(row)] = row
    return samples


def _meta(root: etree._Element, resolution_mv: float) -> dict[str, str | float]:
    texts = {
        "device_model": text_of(root.find("{*}ClinicalInfo/{*}DeviceInfo/{*}Desc")),
        "software_version": text_of(root.find("{*}ClinicalInfo/{*}DeviceInfo/{*}SoftwareVer")),
    }
    filters = root.find("{*}FilterSetting")
    settings: dict[str, float | None] = {"resolution_uv": round(resolution_mv * 1000, 9)}
    if filters is not None:
        settings["highpass_hz"] = optional_number(text_of(filters.find("{*}HighPass")))
        settings["lowpass_hz"] = optional_number(text_of(filters.find("{*}LowPass")))
        for mains in (50.0, 60.0):
            if text_of(filters.find(f"{{*}}Filter{mains:.0f}Hz")).casefold() == "yes":
                settings["notch_hz"] = mains
    meta: dict[str, str | float] = {key: text[:64] for key, text in texts.items() if text}
    return meta | {key: value for key, value in settings.items() if value}


_MEASUREMENTS = {
    "heart_rate": "VentricularRate",
    "pr_ms": "PQInterval",
    "qrs_ms": "QRSDuration",
    "qt_ms": "QTInterval",
    "qtc_ms": "QTCInterval",
    "p_axis": "PAxis",
    "qrs_axis": "RAxis",
    "t_axis": "TAxis",
}


def statements(source: Source) -> Statements:
    """The program's statements, Interpretation/Diagnosis; a physician's, Interpretation/Conclusion, are never read."""
    root = parse_or_repair(source).root
    lines = [text_of(line) for line in root.iterfind("{*}Interpretation/{*}Diagnosis/{*}DiagnosisText")]
    measured = root.find("{*}RestingECGMeasurements")
    found = {} if measured is None else {key: measured.find(f"{{*}}{tag}") for key, tag in _MEASUREMENTS.items()}
    return statements_of(lines, **{key: optional_number(text_of(element)) for key, element in found.items()})
