"""Mortara (Burdick, Welch Allyn) ELI XML: root element ECG, a CHANNEL element for each lead, base64 of integers.

In: an export of an ELI electrocardiograph. Out: a `Recording`, marked as of an unverified format: the layout was taken from
public programs that read it (BRAVEHEART, EDFbrowser, ecgdatakit), which agree; no file of a device was at hand. What
these programs take differently, such as OFFSET, is refused.
"""

from __future__ import annotations

import numpy as np
from lxml import etree

from ecgfounder.ecg.leads import canonical_lead
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.base64_data import decoded
from ecgfounder.readers.quantities import to_millivolts
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import in_words
from ecgfounder.readers.xml import integer, number, parse, root_of

FORMAT = "mortara_eli"

_MARKS = (b"<CHANNEL", b"<TYPICAL_CYCLE", b"ACQUISITION_TIME=", b"UNITS_PER_MV=")
_ENCODING = {"BITS": "16", "FORMAT": "SIGNED", "ENCODING": "BASE64"}


def matches(source: Source) -> bool:
    """Whether the root element is ECG, and names of ELI's elements or attributes are in the first bytes."""
    root = root_of(source)
    if root is None or root.name != "ECG":
        return False
    head = source.head.replace(b"\0", b"")  # UTF-16
    return any(mark in head for mark in _MARKS)


def read(source: Source) -> Recording:
    """Decode the CHANNEL elements; the typical cycle, an averaged beat, is left out.

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in mV: 16-bit little-endian integers / UNITS_PER_MV.

    Raises
    ------
    ReadError
        If the XML is damaged, or attributes contradict the data or each other.
    UnsupportedFormatError
        If there is no CHANNEL, or samples are encoded or shifted in another way than the known one.
    """
    root = parse(source)
    channels = root.findall("{*}CHANNEL")
    if not channels:
        raise UnsupportedFormatError("expected CHANNEL elements, found none; a typical cycle alone is not read")
    rates = {number(channel.get("SAMPLE_FREQ"), "SAMPLE_FREQ") for channel in channels}
    if len(rates) != 1:
        raise UnsupportedFormatError("expected one SAMPLE_FREQ for all channels, found several")
    rows = [_samples(channel) for channel in channels]
    if len({len(row) for row in rows}) != 1:
        raise ReadError("the channels have different lengths")
    return Recording(
        samples=np.stack(rows),
        sampling_rate=rates.pop(),
        leads=tuple(_name(channel) for channel in channels),
        source_format=FORMAT,
        meta=_meta(root, channels),
        is_unverified=True,
    )


def _name(channel: etree._Element) -> str:
    name = canonical_lead(channel.get("NAME", ""))
    if not name:
        raise ReadError("a CHANNEL element has no NAME")
    return name


def _samples(channel: etree._Element) -> Samples:
    called = in_words(_name(channel))
    for attribute, expected in _ENCODING.items():
        if channel.get(attribute, "").strip().upper() != expected:
            raise UnsupportedFormatError(f"{called}: expected {attribute} {expected}, found another")
    if integer(channel.get("OFFSET"), f"{called}: OFFSET") != 0:
        raise UnsupportedFormatError(f"{called}: expected OFFSET 0, found another, whose meaning is not known")
    per_millivolt = number(channel.get("UNITS_PER_MV"), f"{called}: UNITS_PER_MV")
    if per_millivolt <= 0:
        raise ReadError(f"{called}: UNITS_PER_MV must be above 0")
    data = decoded(channel.get("DATA", ""), f"{called}: DATA")
    stated = integer(channel.get("DURATION"), f"{called}: DURATION")
    if len(data) != 2 * stated:
        raise ReadError(f"{called}: DURATION is {stated} samples, but DATA has {len(data)} bytes")
    return to_millivolts(np.frombuffer(data, dtype="<i2"), 1 / per_millivolt, 0.0, called)


def _meta(root: etree._Element, channels: list[etree._Element]) -> dict[str, str | float]:
    device = root.find("{*}SOURCE")
    attributes = {"device_manufacturer": "MANUFACTURER", "device_model": "MODEL"}
    texts = {} if device is None else {key: device.get(name, "").strip() for key, name in attributes.items()}
    meta: dict[str, str | float] = {key: text[:64] for key, text in texts.items() if text}
    resolutions = {channel.get("UNITS_PER_MV") for channel in channels}
    if len(resolutions) == 1:
        meta["resolution_uv"] = round(1000 / number(resolutions.pop(), "UNITS_PER_MV"), 9)
    return meta
