"""Recordings by OpenSignals (BITalino, biosignalsplux): which channels are ECG.

In: the JSON object in the head of a text file, or a group of an HDF5 file. Out: the columns or datasets that are channels.

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
_MAX_MEMBERS = 256


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


def datasets_of(h5py: Any, group: Any) -> list[tuple[Any, str]] | None:
    """The datasets of an HDF5 group that are channels of a recording, with their names (`channel_name`).

    Parameters
    ----------
    h5py : module
        The library.
    group : h5py.Group
        The root, which has a group for each device, or a device's group, or its group 'raw'.

    Returns
    -------
    list of tuple
        None if the group is not one of OpenSignals.
    """
    if group.name.endswith("/raw"):
        raw_groups = [group]
    elif group.name == "/":
        raw_groups = [device["raw"] for device in _members(h5py, group) if _has_raw(h5py, device)]
    else:
        raw_groups = [group["raw"]] if _has_raw(h5py, group) else []
    members = [member for raw in raw_groups for member in _members(h5py, raw)]
    return [(member, name) for member in members if (name := channel_of(h5py, member)) is not None] or None


def channel_of(h5py: Any, member: Any) -> str | None:
    """The name of the channel that an HDF5 dataset holds; None if it is not a channel by OpenSignals."""
    if not isinstance(member, h5py.Dataset) or not member.parent.name.endswith("/raw") or "sensor" not in member.attrs:
        return None
    is_one_lead = member.shape is not None and member.size == max(member.shape, default=0)
    return channel_name(_text(member.attrs["sensor"]), _text(member.attrs.get("label", ""))) if is_one_lead else None


def _members(h5py: Any, group: Any) -> list[Any]:
    names = group if len(group) <= _MAX_MEMBERS else ()
    return [group[name] for name in names if isinstance(group.get(name, getlink=True), h5py.HardLink)]


def _has_raw(h5py: Any, device: Any) -> bool:
    if not isinstance(device, h5py.Group) or "sampling rate" not in device.attrs or "raw" not in device:
        return False
    return isinstance(device.get("raw", getlink=True), h5py.HardLink) and isinstance(device["raw"], h5py.Group)


def chosen_channels(names: Sequence[str], *, may_be_any: bool) -> list[int]:
    """The places of the ECG channels among channels; all of them if none is of ECG and they may be any.

    Raises
    ------
    ReadError
        If none is of ECG, and they may not be any.
    """
    ecg = [place for place, name in enumerate(names) if name in KNOWN_LEADS or says_ecg(name)]
    if not ecg and not may_be_any:
        raise ReadError(
            f"none of the recording's {len(names)} sensors is one of ECG; give the channels' names by the 'leads' parameter"
        )
    return ecg or list(range(len(names)))


def channel_name(sensor: str, label: str) -> str:
    """The name of a channel: its label if that is a lead's name, 'ECG' if the sensor or the label says so, else the sensor."""
    lead = leads_in_context((label,))[0]
    if lead in KNOWN_LEADS:
        return lead
    return "ECG" if says_ecg(sensor) or says_ecg(label) else sensor or label


def _text(value: Any) -> str:
    """An attribute's text; empty if it is something else."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _texts(value: Any) -> Sequence[str]:
    is_list = isinstance(value, list) and len(value) <= MAX_LEADS and all(isinstance(text, str) for text in value)
    return value if is_list else ()
