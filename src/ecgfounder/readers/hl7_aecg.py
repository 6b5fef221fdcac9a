"""HL7 annotated ECG (aECG, root AnnotatedECG, implementation guide of 2005): sequences of digits with origin and scale.

In: a file of any vendor, with or without the namespace urn:hl7-org:v3. Out: a `Recording` of the rhythm series with the most
standard leads. Derived series and representative beats are never read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from lxml import etree

from ecgfounder.ecg.leads import STANDARD_LEADS, canonical_lead
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.ecg.statements import Statements, statements_of
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import millivolts_in, millivolts_per, optional_number
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import Piece, in_words, join, standard_leads_in
from ecgfounder.readers.xml import number, parse, root_of, text_of

FORMAT = "hl7_aecg"

_SECONDS_PER = {
    "s": 1.0,
    "sec": 1.0,
    "ms": 1e-3,
    "msec": 1e-3,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "ns": 1e-9,
}
_BEAT_CODES = ("REPRESENTATIVE", "MEDIAN", "AVERAGE", "TEMPLATE")


def matches(source: Source) -> bool:
    """Whether the document's root element is AnnotatedECG, in any namespace or none."""
    root = root_of(source)
    return root is not None and root.name == "AnnotatedECG"


def read(source: Source) -> Recording:
    """Decode the rhythm series with the most standard leads, the first of several.

    Each sample is origin + scale x digit. Sequence sets of a series with different leads (pages of 3 x 4 leads) are joined on one
    time axis, with NaN where a lead was not recorded (`timeline.join`).

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in millivolts; the sampling rate is that of the time sequence's increment.

    Raises
    ------
    ReadError
        If the XML is damaged, or increment, units or digits are missing or not valid.
    UnsupportedFormatError
        If there is no rhythm series, but only annotations or representative beats.
    """
    root = parse(source)
    series = [
        (names, element, sets)
        for element in root.iter("{*}series")
        if _is_rhythm(element) and (names := _lead_names(sets := _sets_in(element)))
    ]
    if not series:
        raise UnsupportedFormatError(
            "expected a series of rhythm waveforms, found none; representative beats are not read"
        )
    _names, chosen, sets = max(series, key=lambda each: standard_leads_in(each[0]))
    pieces = [piece for sequences in sets if (piece := _piece(sequences)) is not None]
    whole = join(pieces)
    return Recording(
        samples=whole.samples,
        sampling_rate=whole.sampling_rate,
        leads=whole.leads,
        source_format=FORMAT,
        meta=_meta(chosen, sets),
    )


def _is_rhythm(series: etree._Element) -> bool:
    code = _code(series).upper()
    return not any(beat in code for beat in _BEAT_CODES)


def _children(element: etree._Element, *names: str) -> list[etree._Element | None]:
    """The first child of each name, in any namespace; in one pass, because there are many elements."""
    found: dict[str, etree._Element] = {}
    for child in element:
        found.setdefault(child.tag.rpartition("}")[2], child)
    return [found.get(name) for name in names]


def _code(element: etree._Element) -> str:
    return _code_in(_children(element, "code")[0])


def _code_in(code: etree._Element | None) -> str:
    return "" if code is None else (code.get("code") or "").strip()


class _Sequence(NamedTuple):
    """A sequence of times or voltages; `digits` is empty if there are only blanks."""

    code: str
    value: etree._Element | None
    origin: etree._Element | None
    scale: etree._Element | None
    digits: str

    @property
    def is_time(self) -> bool:
        return self.code.upper().startswith("TIME")


def _sets(series: etree._Element) -> Iterator[etree._Element]:
    """The sequence sets of the series, without those of derived series, which are below its derivation element."""
    yield from series.iterfind("{*}component/{*}sequenceSet")
    yield from series.iterfind("{*}sequenceSet")


def _sets_in(series: etree._Element) -> list[list[_Sequence]]:
    """The sequences of each sequence set."""
    return [[_sequence(each) for each in _sequences(sequence_set)] for sequence_set in _sets(series)]


def _sequences(sequence_set: etree._Element) -> Iterator[etree._Element]:
    yield from sequence_set.iterfind("{*}component/{*}sequence")
    yield from sequence_set.iterfind("{*}sequence")


def _sequence(element: etree._Element) -> _Sequence:
    code, value = _children(element, "code", "value")
    if value is None:
        return _Sequence(_code_in(code), None, None, None, "")
    origin, scale, digits = _children(value, "origin", "scale", "digits")
    text = "" if digits is None else digits.text or ""  # may be long
    return _Sequence(_code_in(code), value, origin, scale, "" if text.isspace() else text)


def _lead_names(sets: list[list[_Sequence]]) -> list[str]:
    return [canonical_lead(sequence.code) for sequences in sets for sequence in sequences if sequence.digits]


def _piece(sequences: list[_Sequence]) -> Piece | None:
    """The leads of one sequence set, which were recorded together; None if it has no voltages."""
    leads = [lead for sequence in sequences if not sequence.is_time and (lead := _lead(sequence))]
    if not leads:
        return None
    times = [sequence.value for sequence in sequences if sequence.is_time]
    if not times or times[0] is None:
        raise ReadError("expected a time sequence (TIME_ABSOLUTE or TIME_RELATIVE) beside the leads, found none")
    together = np.full((len(leads), max(len(lead.samples) for lead in leads)), np.nan, dtype=np.float32)
    for row, lead in zip(together, leads, strict=True):
        row[: len(lead.samples)] = lead.samples
    return Piece(together, _rate(times[0]), tuple(lead.name for lead in leads), _start(times[0]))


class _Lead(NamedTuple):
    """One lead's samples in millivolts."""

    name: str
    samples: Samples


def _lead(sequence: _Sequence) -> _Lead | None:
    """A lead; None for an empty one, and for a sequence that is neither a lead nor a voltage."""
    if not sequence.digits:
        return None
    name, scale = canonical_lead(sequence.code), sequence.scale
    if not name:
        raise ReadError("a sequence has no code for its lead")
    called = in_words(name)
    unit = "" if scale is None else scale.get("unit") or ""
    factor = millivolts_per(unit)
    if scale is None or factor is None:
        if name in STANDARD_LEADS:
            raise ReadError(f"{called}: expected a scale with a unit of voltage (uV, mV, V, nV), found none")
        return None
    scale_mv = number(scale.get("value"), f"{called}: scale") * factor
    if scale_mv == 0:
        raise ReadError(f"{called}: the scale is 0")
    origin_mv = _origin_mv(sequence.origin, unit, called)
    return _Lead(name, millivolts_in(sequence.digits, scale_mv, origin_mv, f"{called}: digits"))


def _origin_mv(origin: etree._Element | None, scale_unit: str, called: str) -> float:
    if origin is None or not origin.get("value"):
        return 0.0
    factor = millivolts_per(origin.get("unit") or scale_unit)
    if factor is None:
        raise ReadError(f"{called}: the unit of the origin is not a voltage")
    return number(origin.get("value"), f"{called}: origin") * factor


def _rate(time: etree._Element) -> float:
    """Sampling rate in Hz, from the increment between samples.

    For an increment that was rounded in the file (0.003333 s), the result is the integer rate (300 Hz).
    """
    increment = time.find("{*}increment")
    if increment is None:
        raise ReadError("expected an increment in the time sequence, found none")
    seconds = _seconds(increment, "increment")
    if seconds is None or seconds <= 0:
        raise ReadError("expected an increment above 0 in s, ms or us, found another number or another unit")
    rate = 1 / seconds
    return float(round(rate)) if abs(rate - round(rate)) < 2e-4 * rate else rate


def _seconds(quantity: etree._Element, what: str) -> float | None:
    factor = _SECONDS_PER.get((quantity.get("unit") or "").strip().casefold())
    return None if factor is None else number(quantity.get("value"), what) * factor


def _start(time: etree._Element) -> float | None:
    """The first sample's time in seconds: a number of seconds, or a date and time (YYYYMMDDHHMMSS.ffff+ZZZZ)."""
    head = time.find("{*}head")
    text = "" if head is None else (head.get("value") or "").strip()
    if head is None or not text:
        return None
    if len(text.partition(".")[0]) < 14:
        return _seconds(head, "head") if optional_number(text) is not None else None
    moment, _, fraction = text.partition(".")
    fraction = fraction.partition("+")[0].partition("-")[0]  # the time zone is the same for all sets of a series
    try:
        whole = datetime.strptime(moment[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    since = whole - datetime(1900, 1, 1, tzinfo=UTC)
    return since / timedelta(seconds=1) + (optional_number(f"0.{fraction}") or 0.0)


def _meta(series: etree._Element, sets: list[list[_Sequence]]) -> dict[str, str | float]:
    author = series.find("{*}author/{*}seriesAuthor")
    meta: dict[str, str | float] = {}
    if author is not None:
        device = author.find("{*}manufacturedSeriesDevice")
        texts = {
            "device_manufacturer": text_of(author.find("{*}manufacturerOrganization/{*}name")),
            "device_model": "" if device is None else text_of(device.find("{*}manufacturerModelName")),
            "software_version": "" if device is None else text_of(device.find("{*}softwareName")),
        }
        meta |= {key: text[:64] for key, text in texts.items() if text}
    for key, kind in (("highpass_hz", "HIGH_PASS"), ("lowpass_hz", "LOW_PASS"), ("notch_hz", "NOTCH")):
        frequency = _filter_hz(series, kind)
        if frequency:
            meta[key] = frequency
    scales = {
        (sequence.scale.get("value"), sequence.scale.get("unit"))
        for sequences in sets
        for sequence in sequences
        if sequence.scale is not None
    }
    if len(scales) == 1:
        text, unit = scales.pop()
        value, factor = optional_number(text), millivolts_per(unit or "")
        if value is not None and factor is not None:
            meta["resolution_uv"] = round(value * factor * 1000, 9)
    return meta


def _filter_hz(series: etree._Element, kind: str) -> float | None:
    """Cut-off frequency of the filter with the control variable MDC_ECG_CTL_VBL_ATTR_FILTER_<kind>, if it is in Hz."""
    for variable in series.iterfind("{*}controlVariable//{*}controlVariable"):
        if not _code(variable).upper().endswith(f"FILTER_{kind}"):
            continue
        for inner in variable.iterfind(".//{*}controlVariable"):
            value = inner.find("{*}value")
            if value is not None and (value.get("unit") or "").casefold() == "hz":
                return optional_number(value.get("value"))
    return None


_MEASUREMENTS = {
    "MDC_ECG_HEART_RATE": "heart_rate",
    "MDC_ECG_TIME_PD_PR": "pr_ms",
    "MDC_ECG_TIME_PD_QRS": "qrs_ms",
    "MDC_ECG_TIME_PD_QT": "qt_ms",
    "MDC_ECG_TIME_PD_QTC": "qtc_ms",
    "MDC_ECG_ANGLE_P_FRONT": "p_axis",
    "MDC_ECG_ANGLE_QRS_FRONT": "qrs_axis",
    "MDC_ECG_ANGLE_T_FRONT": "t_axis",
}


def statements(source: Source) -> Statements:
    """Interpretation statements and measurements of the annotation sets without a person as author.

    Of a measurement with several values (for each beat, for each lead), the first that is not 0 is taken.
    """
    lines: list[str] = []
    measured: dict[str, float] = {}
    for annotation_set in parse(source).iter("{*}annotationSet"):
        if annotation_set.find("{*}author//{*}assignedPerson") is not None:
            continue
        for annotation in annotation_set.iter("{*}annotation"):
            code, value = _code(annotation).upper(), annotation.find("{*}value")
            if value is None:
                continue
            if code in ("MDC_ECG_INTERPRETATION_STATEMENT", "MDC_ECG_INTERPRETATION_SUMMARY"):
                lines.append(text_of(value))
            elif code in _MEASUREMENTS and (number_there := _measured(value)):
                measured.setdefault(_MEASUREMENTS[code], number_there)
    return statements_of(lines, **measured)


def _measured(value: etree._Element) -> float | None:
    """A measurement in ms, degrees or beats per minute; None if it has another unit."""
    unit = (value.get("unit") or "").strip().casefold()
    scale = 1000 * _SECONDS_PER[unit] if unit in _SECONDS_PER else 1.0
    plain = unit in _SECONDS_PER or unit in ("", "bpm", "/min", "1/min", "{beats}/min", "deg", "degrees")
    found = optional_number(value.get("value"))
    return None if found is None or not plain else found * scale
