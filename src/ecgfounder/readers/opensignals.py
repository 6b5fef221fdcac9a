"""Recordings by OpenSignals (BITalino, biosignalsplux): which channels are ECG.

In: the JSON object in the head of a text file. Out: the table's columns that are channels.

The samples are counts of the converter. The unit is not derived from them: the head has the converter's resolution, but not the
gain of the sensor, which PLUX states as 1000 or 1019 in different data sheets of the same sensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecgfounder.ecg.leads import KNOWN_LEADS, leads_in_context, says_ecg
from ecgfounder.errors import ReadError
from ecgfounder.readers.tables import MAX_LEADS

_TITLE = "# OpenSignals Text File Format"
_MAX_DEVICES = 16


def has_title(head: str) -> bool:
    """Whether a text begins with the line that OpenSignals writes."""
    return head.startswith(_TITLE)


def channels_of(content: Mapping[str, Any] | None, width: int) -> dict[int, str] | None:
    """The columns of a text file's table that are channels, with their names (`channel_name`).

    The other columns are numbers of samples and digital inputs and outputs; 'DI' is one of these, not lead I.

    Parameters
    ----------
    content : mapping or None
        The JSON object: a mapping of each device to its settings.
    width : int
        The number of columns of the table: those of the first device, of the second, and so on.

    Returns
    -------
    dict of int to str
        None if the object is not one of OpenSignals.

    Raises
    ------
    ReadError
        If the settings do not name as many columns as the table has.
    """
    devices = [settings for settings in (content or {}).values() if isinstance(settings, dict) and "sensor" in settings]
    if not devices or len(devices) != len(content or {}) or len(devices) > _MAX_DEVICES:
        return None
    channels: dict[int, str] = {}
    begin = 0
    for settings in devices:
        sensors, labels, columns = (_texts(settings.get(name)) for name in ("sensor", "label", "column"))
        # Earlier versions do not name the columns. The channels are last in all versions.
        count = len(columns) or (width if len(devices) == 1 else 0)
        if not 0 < len(sensors) <= count:
            raise ReadError(f"the head names {len(sensors)} sensors for {count} columns")
        at = [columns.index(label) for label in labels if columns.count(label) == 1]
        if len(at) != len(sensors):
            at = list(range(count - len(sensors), count))
        named = [*labels, *[""] * len(sensors)]
        for column, sensor, label in zip(at, sensors, named, strict=False):
            channels[begin + column] = channel_name(sensor, label)
        begin += count
    if begin != width:
        raise ReadError(f"the head names {begin} columns, and the table has {width}")
    return channels


def channel_name(sensor: str, label: str) -> str:
    """The name of a channel: its label if that is a lead's name, 'ECG' if the sensor or the label says so, else the sensor."""
    lead = leads_in_context((label,))[0]
    if lead in KNOWN_LEADS:
        return lead
    return "ECG" if says_ecg(sensor) or says_ecg(label) else sensor or label


def _texts(value: Any) -> Sequence[str]:
    is_list = isinstance(value, list) and len(value) <= MAX_LEADS and all(isinstance(text, str) for text in value)
    return value if is_list else ()
