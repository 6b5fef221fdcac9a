"""EDF, EDF+ and BDF, BDF+ (European Data Format, 16 bits; BioSemi's of 24 bits).

In: the whole file. Out: a `Recording` of the channels whose labels are those of ECG; other signals are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import KNOWN_LEADS, STANDARD_LEADS, canonical_lead, leads_in_context, says_ecg
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import hinted_scale, millivolts_per, to_millivolts
from ecgfounder.readers.signals import numbered
from ecgfounder.readers.source import Hints, Source

FORMAT = "edf"

_EDF = b"0       "
_BDF = b"\xffBIOSEMI"
_BLOCK = 256
_WIDTHS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # the fields of a signal: label, transducer, unit, ranges, filters, count
_REFERENCE = re.compile(r"[-_ ]*\b(?:REF|AVG)$", re.IGNORECASE)
_FILTER = re.compile(r"\b(HP|LP|N):\s*(\d+(?:\.\d+)?)\s*Hz", re.IGNORECASE)
_FILTER_KEYS = {"HP": "highpass_hz", "LP": "lowpass_hz", "N": "notch_hz"}
_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d{1,3})?")
_MAX_RECORDS_CHECKED = 1 << 20
_MAX_GAP_BYTES = 256 << 20


@dataclass(frozen=True)
class _Channel:
    """One signal of the header; `start` and `count` are in samples of a data record."""

    name: str
    unit: str
    physical: tuple[str, str]
    digital: tuple[str, str]
    filters: str
    start: int
    count: int

    @property
    def is_annotations(self) -> bool:
        return self.name.casefold() in ("edf annotations", "bdf annotations")


@dataclass(frozen=True)
class _Header:
    kind: str
    width: int  # bytes of a sample
    data_start: int
    n_records: int  # -1: unknown when the header was written
    duration: float
    channels: tuple[_Channel, ...]

    @property
    def record_samples(self) -> int:
        return sum(channel.count for channel in self.channels)


def matches(source: Source) -> bool:
    """Whether the file begins with the version field and sizes of EDF or BDF."""
    head = source.head
    if len(head) < _BLOCK or not head.startswith((_EDF, _BDF)):
        return False
    return head[184:192].strip(b" \0").isdigit() and head[252:256].strip(b" \0").isdigit()


def read(source: Source) -> Recording:
    """Read the ECG channels of an EDF or BDF file.

    A channel is ECG if its label is the name of a lead, or contains ECG or EKG. Names that EEG channels have too count as leads
    only beside other leads (`leads_in_context`). Of ECG channels with several sampling rates, those with the most standard leads
    are kept (then those with the highest rate); the others are in `Recording.left_out`. If no label is that of ECG, `hints.leads`
    may name the channels that are voltages, in the file's order. Samples in gaps between data records (EDF+D, BDF+D) are NaN.

    Raises
    ------
    ReadError
        If the header is damaged, the file is shorter than stated in the header, or there are no ECG channels or no unit; if the
        data records of a discontinuous file overlap, are not in order, or are too far apart.
    UnsupportedFormatError
        For EDF+D and BDF+D files without the times of their data records.
    """
    content = source.content
    header = _parse_header(content)
    records = _records(content, header)
    chosen = _ecg_channels(header, source.hints)
    channels = list(chosen.kept)
    count = channels[0].count
    starts = _starts(records, header, count, len(channels)) if header.kind.endswith("D") else None
    n_samples = len(records) * count if starts is None else starts[-1] + count
    samples = np.empty((len(channels), n_samples), dtype=np.float32)
    for out, channel in zip(samples, channels, strict=True):
        calibration = _calibration(channel, source.hints)
        for first, end, place in _stretches(starts, len(records), count):
            stretch = out[place : place + (end - first) * count].reshape(end - first, count)
            _fill(stretch, records[first:end], channel, header.width, calibration)
    if starts is not None:
        _mark_gaps(samples, starts, count)
    return Recording(
        samples=samples,
        sampling_rate=count / header.duration,
        leads=numbered(list(chosen.kept.values())),
        source_format=FORMAT,
        meta=_meta(header, channels),
        left_out=chosen.left_out,
    )


def _parse_header(content: bytes) -> _Header:
    if len(content) < _BLOCK:
        raise ReadError(f"EDF file of {len(content)} bytes, truncated in its header")
    n_channels = int(_number(content[252:256].decode("latin-1"), "the number of signals"))
    data_start = _BLOCK * (n_channels + 1)
    if n_channels < 1 or data_start > len(content):
        raise ReadError(f"EDF file of {len(content):,} bytes, but its header states {n_channels} signals")
    if int(_number(content[184:192].decode("latin-1"), "the header's size")) != data_start:
        raise ReadError(f"damaged EDF header: the stated size is not that of {n_channels} signals")
    duration = _number(content[244:252].decode("latin-1"), "the duration of a data record")
    n_records = int(_number(content[236:244].decode("latin-1"), "the number of data records"))
    is_bdf = content.startswith(_BDF)
    kind = content[192:197].decode("latin-1").strip()
    return _Header(
        kind=kind if kind in ("EDF+C", "EDF+D", "BDF+C", "BDF+D") else ("BDF" if is_bdf else "EDF"),
        width=3 if is_bdf else 2,
        data_start=data_start,
        n_records=n_records,
        duration=duration,
        channels=_parse_channels(content[_BLOCK:data_start].decode("latin-1"), n_channels),
    )


def _parse_channels(text: str, n_channels: int) -> tuple[_Channel, ...]:
    """Parse the signals' fields, which are grouped by kind: all labels, then all transducers, and so on."""
    columns: list[list[str]] = []
    at = 0
    for width in _WIDTHS:
        columns.append([text[at + width * i : at + width * (i + 1)].strip(" \0") for i in range(n_channels)])
        at += width * n_channels
    labels, _, units, low, high, digital_low, digital_high, filters, counts, _ = columns
    channels: list[_Channel] = []
    start = 0
    for i in range(n_channels):
        count = int(_number(counts[i], "the number of samples of a signal"))
        if count < 0:
            raise ReadError(f"damaged EDF header: {count} samples in a data record")
        physical, digital = (low[i], high[i]), (digital_low[i], digital_high[i])
        channels.append(_Channel(labels[i], units[i], physical, digital, filters[i], start, count))
        start += count
    return tuple(channels)


def _number(text: str, what: str) -> float:
    text = text.strip(" \0")
    if not _NUMBER.fullmatch(text):
        raise ReadError(f"damaged EDF header: {what} is not a number")
    value = float(text.replace(",", "."))
    if not math.isfinite(value):
        raise ReadError(f"damaged EDF header: {what} is too large")
    return value


def _records(content: bytes, header: _Header) -> npt.NDArray[np.uint8]:
    """The data records, as bytes [n_records, bytes of a record]."""
    record_bytes = header.record_samples * header.width
    if record_bytes == 0 or header.duration <= 0:
        raise ReadError(f"damaged EDF header: data records of {record_bytes} bytes and {header.duration:g} s")
    stored = (len(content) - header.data_start) // record_bytes
    n_records = stored if header.n_records == -1 else header.n_records
    if not 1 <= n_records <= stored:
        raise ReadError(f"EDF file with {stored:,} complete data records, but its header states {header.n_records:,}")
    return np.frombuffer(content, np.uint8, n_records * record_bytes, header.data_start).reshape(n_records, -1)


def _starts(
    records: npt.NDArray[np.uint8], header: _Header, count: int, n_channels: int
) -> npt.NDArray[np.int64] | None:
    """The place of each data record's first sample on the time axis of a discontinuous file; None if there are no gaps.

    The first annotation of each data record is its start.
    """
    annotations = next((channel for channel in header.channels if channel.is_annotations), None)
    if annotations is None or len(records) > _MAX_RECORDS_CHECKED:
        raise UnsupportedFormatError(f"{header.kind} file without the start times of its data records")
    begin = annotations.start * header.width
    onsets: list[float] = []
    for record in records[:, begin : begin + annotations.count * header.width]:
        onset = record.tobytes().split(b"\x14", 1)[0].decode("latin-1")
        onsets.append(_number(onset, "the time of a data record"))
    rate = count / header.duration
    since = (np.asarray(onsets) - onsets[0]) * rate
    without_gaps = count * np.arange(len(onsets))
    if np.abs(since - without_gaps).max() <= 1:  # times are rounded; a sample is no gap
        return None
    if not since.max() <= len(records) * count + _MAX_GAP_BYTES // (4 * n_channels):
        hours = (onsets[-1] - onsets[0]) / 3600
        raise ReadError(
            f"{header.kind} file of {len(records):,} data records in {hours:,.0f} h: too large gaps in time"
        )
    starts = np.rint(since).astype(np.int64)
    # A record that begins a sample before the previous one ends is one whose time was rounded.
    ends = np.maximum.accumulate(starts - without_gaps) + without_gaps + count
    if (starts[1:] < ends[:-1] - 1).any():
        raise ReadError(f"{header.kind} file with data records that overlap or are not in the order of their times")
    return ends - count


def _stretches(starts: npt.NDArray[np.int64] | None, n_records: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Data records without gaps between them: the first one, the one after the last, and the place of their first sample."""
    if starts is None:
        yield 0, n_records, 0
        return
    breaks = [0, *(np.flatnonzero(np.diff(starts) != count) + 1).tolist(), n_records]
    for first, end in pairwise(breaks):
        yield first, end, int(starts[first])


def _mark_gaps(samples: Samples, starts: npt.NDArray[np.int64], count: int) -> None:
    for record in np.flatnonzero(np.diff(starts) != count):
        samples[:, starts[record] + count : starts[record + 1]] = np.nan


@dataclass(frozen=True)
class _Chosen:
    """The channels of the recording with their lead names, and the leads at other sampling rates."""

    kept: dict[_Channel, str]
    left_out: tuple[str, ...]


def _ecg_channels(header: _Header, hints: Hints) -> _Chosen:
    signals = [channel for channel in header.channels if not channel.is_annotations and channel.count]
    named = _named_as_ecg(signals)
    # A heart rate "from ECG" in beats per minute is not an ECG; a signal without a unit may be one.
    ecg = {channel: name for channel, name in named.items() if _may_be_voltage(channel)}
    ecg = ecg or _named_by_user(signals, hints, named)
    best = max({channel.count for channel in ecg}, key=lambda count: _worth(ecg, count))
    kept = {channel: name for channel, name in ecg.items() if channel.count == best}
    left_out = [name if name in KNOWN_LEADS else "ECG" for channel, name in ecg.items() if channel.count != best]
    return _Chosen(kept, tuple(sorted(set(left_out) - set(kept.values()))))


def _named_as_ecg(signals: Sequence[_Channel]) -> dict[_Channel, str]:
    """The channels whose labels are names of leads, or contain ECG."""
    names = leads_in_context([_without_reference(channel.name) for channel in signals])
    return {
        channel: name
        for channel, name in zip(signals, names, strict=True)
        if name in KNOWN_LEADS or says_ecg(channel.name)
    }


def _without_reference(label: str) -> str:
    """A label without its reference: 'V1-REF' is V1, but 'C3-REF' is an electrode of EEG and is not changed."""
    name = _REFERENCE.sub("", label)
    return name if leads_in_context([name]) == (canonical_lead(name),) else label


def _may_be_voltage(channel: _Channel) -> bool:
    """Whether the unit is a voltage, or is not stated, or is one with a prefix that cannot be read ('?V')."""
    return not channel.unit or channel.unit[-1] in "Vv" or millivolts_per(channel.unit) is not None


def _named_by_user(signals: Sequence[_Channel], hints: Hints, named: Mapping[_Channel, str]) -> dict[_Channel, str]:
    """The channels that are voltages, with the user's names."""
    voltages = [channel for channel in signals if millivolts_per(channel.unit) is not None]
    if hints.leads is not None and len(hints.leads) == len(voltages):
        return dict(zip(voltages, hints.leads, strict=True))
    if named:
        raise ReadError(
            f"{len(named)} of the EDF file's {len(signals)} signals have the label of an ECG, but their units are not voltages"
        )
    problem = f"none of the EDF file's {len(signals)} signals has the label of an ECG"
    if not voltages:
        raise ReadError(f"{problem}, and none is a voltage")
    if hints.leads is None:
        raise ReadError(f"{problem}; give the names of the {len(voltages)} that are voltages by the 'leads' parameter")
    raise ReadError(f"{problem}; {len(voltages)} are voltages, but the 'leads' parameter has {len(hints.leads)} names")


def _worth(ecg: Mapping[_Channel, str], count: int) -> tuple[int, int]:
    leads = {name for channel, name in ecg.items() if channel.count == count}
    return len(leads.intersection(STANDARD_LEADS)), count


def _calibration(channel: _Channel, hints: Hints) -> tuple[float, float]:
    """Millivolts per count, and millivolts at count 0."""
    unit = millivolts_per(channel.unit) or hinted_scale(hints)
    if unit is None:
        problem = (
            "has a unit of an ECG signal that is none of V, mV, uV and nV"
            if channel.unit
            else "does not state the unit of an ECG signal"
        )
        raise ReadError(f"the EDF file {problem}; give it by the 'unit' parameter")
    low, high = (_number(text, "a physical limit") for text in channel.physical)
    digital_low, digital_high = (_number(text, "a digital limit") for text in channel.digital)
    if digital_high <= digital_low or high == low:
        ranges = f"of {low:g} to {high:g} for counts {digital_low:g} to {digital_high:g}"
        raise ReadError(f"damaged EDF header: an ECG signal {ranges}")
    per_count = (high - low) / (digital_high - digital_low)
    return per_count * unit, (low - digital_low * per_count) * unit


def _fill(
    out: npt.NDArray[np.float32],
    records: npt.NDArray[np.uint8],
    channel: _Channel,
    width: int,
    calibration: tuple[float, float],
) -> None:
    """Fill `out` [n_records, count] with one channel in millivolts, in blocks of records."""
    begin, end = channel.start * width, (channel.start + channel.count) * width
    step = max(1, (1 << 20) // channel.count)
    for first in range(0, len(records), step):
        stored = np.ascontiguousarray(records[first : first + step, begin:end])
        if width == 2:
            counts: npt.NDArray[np.signedinteger] = stored.view("<i2").reshape(-1)
        else:
            words = np.zeros((stored.size // 3, 4), dtype=np.uint8)
            words[:, 1:] = stored.reshape(-1, 3)
            counts = words.view("<i4").reshape(-1) >> 8  # the arithmetic shift extends the sign
        to_millivolts(counts, *calibration, "an ECG signal", out=out[first : first + step].reshape(-1))


def _meta(header: _Header, channels: Sequence[_Channel]) -> dict[str, str | float]:
    """The kind of file, and the filters if they are the same for all ECG channels."""
    meta: dict[str, str | float] = {"format_version": header.kind}
    settings = {channel.filters for channel in channels}
    if len(settings) == 1:
        for key, value in _FILTER.findall(settings.pop()):
            meta[_FILTER_KEYS[key.upper()]] = float(value)
    return meta
