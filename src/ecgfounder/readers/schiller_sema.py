"""Schiller SEMA XML (root element ...SchillerEDI): the rhythm of all leads, as numbers separated by commas.

In: an exported resting ECG, whose averaged beats come before the rhythm. Out: a `Recording` of the rhythm.

The sampling rate is written as a value and an exponent. In files of real devices the exponent is 1 and the value is the
rate in Hz, not a tenth of it: the device's QT interval in milliseconds and its limits as sample numbers show it. Other
exponents are read only in files in which these two say what the exponent means.
"""

from __future__ import annotations

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
from ecgfounder.readers.xml import integer, number, parse, root_of, text_of

FORMAT = "schiller_sema"

_RHYTHM = ("ECG_RHYTHMS", "ECG_RHYTHM")
_AVERAGES = "ECG_AVERAGES"
_PLAIN_EXPONENTS = (0, 1)
_MOST_EXPONENT = 6
_SAME_MAGNITUDE = 2.5  # the exponent's meaning is a factor of 10; sample numbers may be of another rate by 2


def matches(source: Source) -> bool:
    """Whether the root element is SchillerEDI, with the Java package in front of it that SEMA writes, or without."""
    root = root_of(source)
    return root is not None and root.name.rpartition(".")[2] == "SchillerEDI"


def read(source: Source) -> Recording:
    """Decode the rhythm with the most standard leads; of several equals, the first.

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in mV; NaN where a number is left blank.

    Raises
    ------
    ReadError
        If the XML is damaged, rate, resolution, counts or numbers make no sense, the leads are of different lengths, or
        the rate contradicts the device's QT interval.
    UnsupportedFormatError
        If there is no rhythm, only averaged beats, or the samples are not written as numbers separated by commas.
    """
    root = parse(source)
    rhythms = [wave for wave in root.iterfind("{*}eventdata/{*}event/{*}wavedata") if _type(wave) in _RHYTHM]
    if not rhythms:
        raise UnsupportedFormatError("expected wavedata of type ECG_RHYTHMS, found none; averaged beats are not read")
    rhythm = max(rhythms, key=lambda wave: standard_leads_in([_name(channel) for channel in _channels(wave)]))
    resolution_mv = _resolution_mv(rhythm)
    return Recording(
        samples=_samples(rhythm, resolution_mv),
        sampling_rate=_rate(rhythm),
        leads=tuple(_name(channel) for channel in _channels(rhythm)),
        source_format=FORMAT,
        meta=_meta(root, rhythm, resolution_mv),
    )


def _type(wave: etree._Element) -> str:
    return _text(wave, "type").upper()


def _channels(wave: etree._Element) -> Iterator[etree._Element]:
    return wave.iterfind("{*}channel")


def _name(channel: etree._Element) -> str:
    name = canonical_lead(_text(channel, "name"))
    if not name:
        raise ReadError("a channel element has no name")
    return name


# --- Rate and resolution ---------------------------------------------------------------------------------------------


def _rate(rhythm: etree._Element) -> float:
    """The rhythm's rate in Hz, its exponent understood as the event's averaged beats show it."""
    value, exponent = _value_and_exponent(rhythm)
    event = rhythm.getparent()
    averages = None if event is None else next((wave for wave in _waves(event) if _type(wave) == _AVERAGES), None)
    shown = None if event is None or averages is None else _rate_shown_by_qt(event)
    if averages is None or shown is None:
        if exponent not in _PLAIN_EXPONENTS:
            raise UnsupportedFormatError(f"expected a samplerate exponent of 0 or 1, found {exponent}")
        return value
    average_value, average_exponent = _value_and_exponent(averages)
    if average_exponent != exponent:
        raise ReadError("the samplerate exponents of averaged beats and rhythm differ")
    if _is_near(average_value, shown):
        return value
    if _is_near(average_value * 10.0**exponent, shown):
        return value * 10.0**exponent
    raise ReadError("the samplerate contradicts the QT interval and its limits")


def _waves(event: etree._Element) -> Iterator[etree._Element]:
    return event.iterfind("{*}wavedata")


def _value_and_exponent(wave: etree._Element) -> tuple[float, int]:
    value = number(_text(wave, "resolution/{*}samplerate/{*}value"), "samplerate value")
    text = _text(wave, "resolution/{*}samplerate/{*}exponent")
    exponent = integer(text, "samplerate exponent") if text else 0
    if abs(exponent) > _MOST_EXPONENT:
        raise ReadError(f"expected a samplerate exponent of -{_MOST_EXPONENT} to {_MOST_EXPONENT}, found {exponent}")
    return value, exponent


def _rate_shown_by_qt(event: etree._Element) -> float | None:
    """Hz by which the samples from the beginning of QRS to the end of T take the QT interval; None if one is absent."""
    measured = _measurements(event)
    first, last, milliseconds = (measured.get(name) for name in ("QRS_ON", "T_OFF", "QT"))
    if first is None or last is None or milliseconds is None or last <= first or milliseconds <= 0:
        return None
    return (last - first) / milliseconds * 1000


def _is_near(rate: float, shown: float) -> bool:
    return shown / _SAME_MAGNITUDE <= rate <= shown * _SAME_MAGNITUDE


def _resolution_mv(wave: etree._Element) -> float:
    factor = millivolts_per(_text(wave, "resolution/{*}yres/{*}units"))
    if factor is None:
        raise ReadError("the units of yres are not uV, mV, V or nV")
    resolution = number(_text(wave, "resolution/{*}yres/{*}unitperbit"), "unitperbit") * factor
    if resolution <= 0:
        raise ReadError("unitperbit must be above 0")
    return resolution


# --- Samples ---------------------------------------------------------------------------------------------------------


def _samples(wave: etree._Element, resolution_mv: float) -> Samples:
    rows = [_lead_samples(channel, resolution_mv) for channel in _channels(wave)]
    if len({len(row) for row in rows}) != 1:
        raise ReadError("the leads of the rhythm have different lengths, or there are none")
    return np.stack(rows)


def _lead_samples(channel: etree._Element, resolution_mv: float) -> Samples:
    called = in_words(_name(channel))
    if _text(channel, "datastype").upper() != "COMMASEPARATE":
        raise UnsupportedFormatError(f"{called}: expected the datastype COMMASEPARATE, found another")
    samples = millivolts_in(_text(channel, "data"), resolution_mv, 0.0, f"{called}: data")
    stated = integer(_text(channel, "samplecount"), f"{called}: samplecount")
    if stated != len(samples):
        raise ReadError(f"{called}: samplecount is {stated}, but the lead has {len(samples)} samples")
    return samples


# --- What is said beside the samples ---------------------------------------------------------------------------------


def _meta(root: etree._Element, rhythm: etree._Element, resolution_mv: float) -> dict[str, str | float]:
    device = "examdescript/{*}aquiringdevice"
    texts = {
        "device_manufacturer": _text(root, f"{device}/{{*}}hardware/{{*}}vendor"),
        "device_model": _text(root, f"{device}/{{*}}hardware/{{*}}model"),
        "software_version": _text(root, f"{device}/{{*}}software/{{*}}version"),
    }
    meta: dict[str, str | float] = {key: text[:64] for key, text in texts.items() if text}
    filters = _named_values(rhythm.getparent(), "filters_data/{*}filter")
    settings = {
        "resolution_uv": round(resolution_mv * 1000, 9),
        "highpass_hz": filters.get("HIGHPASS_CUTOFF_FREQ"),
        "lowpass_hz": filters.get("LOWPASS_CUTOFF_FREQ"),
        "notch_hz": filters.get("MAINS"),  # "-" where it is off
    }
    return meta | {key: value for key, value in settings.items() if value}


def _measurements(event: etree._Element | None) -> dict[str, float]:
    return _named_values(event, "annotation_global")


def _named_values(event: etree._Element | None, path: str) -> dict[str, float]:
    """The numbers among the event's pairs of name and value."""
    pairs = [] if event is None else event.findall(f"{{*}}{path}")
    values = {_text(pair, "name"): optional_number(_text(pair, "value")) for pair in pairs}
    return {name: value for name, value in values.items() if value is not None}


def _text(element: etree._Element, path: str) -> str:
    return text_of(element.find(f"{{*}}{path}"))


_MEASUREMENTS = {
    "heart_rate": "HR",
    "pr_ms": "PQ",
    "qrs_ms": "QRS",
    "qt_ms": "QT",
    "qtc_ms": "QTC",
    "p_axis": "AXIS_P",
    "qrs_axis": "AXIS_QRS",
    "t_axis": "AXIS_T",
}


def statements(source: Source) -> Statements:
    """The device's measurements; the interpretation is not taken, because the file does not say who wrote it."""
    measured = _measurements(parse(source).find("{*}eventdata/{*}event"))
    return statements_of([], **{key: measured.get(name) for key, name in _MEASUREMENTS.items()})
