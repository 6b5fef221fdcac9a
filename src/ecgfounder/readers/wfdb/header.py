"""The header of a WFDB record: signals and their storage, or the segments that a record consists of.

In: the text of a header. Out: a `Header`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import millivolts_per

MAX_HEADER_BYTES = 1 << 20
MAX_SIGNALS = 1024
DEFAULT_RATE = 250.0  # header(5): "if missing, a value of 250 Hz is assumed"
DEFAULT_GAIN = 200.0  # header(5): "if zero or missing, a gain of 200 ADC units per physical unit is assumed"

NATIVE_FORMATS = {"16": 2.0, "61": 2.0, "160": 2.0, "80": 1.0, "212": 1.5, "24": 3.0, "32": 4.0}
"""Bytes per sample of the storage formats that are decoded here (signal(5))."""
PACKAGE_FORMATS = frozenset({"8", "310", "311", "508", "516", "524"})
"""Storage formats that the `wfdb` package decodes."""
MOST_REMEMBERED = 1000
"""Characters of a header's fields that are kept to be looked up: a hostile header must not take memory for longer."""
NOTHING = "~"
"""The name of a segment without samples, and the signal file of a layout header."""

_RECORD_LINE = re.compile(
    r"\s*(?P<name>[^\s/]+(?:/[^\s/]*[^\s/\d][^\s/]*)*)(?:/(?P<segments>\d+))?"
    r"\s+(?P<signals>\d{1,6})"
    r"(?:\s+(?P<rate>[0-9.]+(?:[eE][+-]?\d+)?)(?:/\S*)?(?:\s+(?P<samples>\d{1,15})(?!\S))?)?(?:\s.*)?"
)
_SIGNAL_LINE = re.compile(
    r"\s*(?P<file>\S+)\s+(?P<format>\d{1,3})(?:x(?P<per_frame>\d{1,6}))?(?::(?P<skew>\d{1,9}))?(?:\+(?P<offset>\d{1,12}))?"
    r"(?:\s+(?P<gain>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)?(?:\((?P<baseline>[+-]?\d{1,12})\))?(?:/(?P<unit>\S+))?"
    r"(?:\s+(?P<resolution>[+-]?\d{1,12})(?:\s+(?P<zero>[+-]?\d{1,12})(?:\s+(?P<initial>[+-]?\d{1,12})"
    r"(?:\s+(?P<checksum>[+-]?\d{1,12})(?:\s+(?P<block>[+-]?\d{1,12})(?:\s+(?P<name>\S.*?))?)?)?)?)?)?)?\s*"
)
_USUAL_LINE = re.compile(
    r"^(\S+)[ \t]+(\S+[ \t]+\S+[ \t]+\S+[ \t]+\S+)[ \t]+-?[0-9]{1,11}[ \t]+(-?[0-9]{1,11})[ \t]+-?[0-9]{1,11}[ \t]+(\S+)$",
    re.MULTILINE,
)
_SEGMENT_LINE = re.compile(r"(?P<name>\S+)\s+(?P<samples>\d{1,15})(?:\s.*)?")


class Signal(NamedTuple):
    """One signal line of a header; `gain` in counts per unit, `scale` in millivolts per unit, None if it is not a voltage."""

    file: str
    format: str
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    scale: float | None
    checksum: int | None
    name: str


@dataclass(frozen=True)
class Segment:
    """One segment line of a header: the segment's record, or `NOTHING` for a gap, and its number of frames."""

    name: str
    n_frames: int


@dataclass(frozen=True)
class Header:
    """A header; `n_frames` is None if it is not stated, so that the size of the signal file gives it.

    A record of several segments has no signals of its own, but `n_signals` of them in its segments.
    """

    rate: float
    n_frames: int | None
    n_signals: int
    signals: tuple[Signal, ...] = ()
    segments: tuple[Segment, ...] = ()

    @property
    def has_layout(self) -> bool:
        """Whether the first segment is a layout header: a list of all signals, of which each segment holds some."""
        return bool(self.segments) and self.segments[0].n_frames == 0 and self.segments[0].name != NOTHING

    @property
    def is_native(self) -> bool:
        """Whether all signals are in formats that are decoded here."""
        return all(signal.format in NATIVE_FORMATS for signal in self.signals)


def parse_header(content: bytes, *, layout: bool = False) -> Header:
    """Parse a header.

    Parameters
    ----------
    content : bytes
        The header, not compressed.
    layout : bool, default: False
        Whether it is a layout header, whose signals have no signal file.

    Raises
    ------
    ReadError
        If it is damaged, or names files outside its folder.
    """
    if len(content) > MAX_HEADER_BYTES:
        raise ReadError(f"WFDB header of {len(content):,} bytes; at most {MAX_HEADER_BYTES:,} are expected")
    text = [line.strip() for line in content.decode("latin-1").splitlines()]
    lines = [line for line in text if line and not line.startswith("#")]
    record = _RECORD_LINE.fullmatch(lines[0]) if lines else None
    if record is None:
        raise ReadError("damaged WFDB header: the record line is not 'NAME SIGNALS RATE SAMPLES'")
    n_signals = int(record["signals"])
    if not 1 <= n_signals <= MAX_SIGNALS:
        raise ReadError(f"expected a WFDB header with 1 to {MAX_SIGNALS} signals, found {n_signals}")
    what, stated = ("segments", int(record["segments"])) if record["segments"] is not None else ("signals", n_signals)
    described = lines[1 : stated + 1]
    if not described or len(described) < stated:
        raise ReadError(f"damaged WFDB header: it states {stated} {what}, but describes {len(described)}")
    n_frames = int(record["samples"] or 0) or None
    if what == "segments":
        segments = tuple(_parse_segment(line, row) for row, line in enumerate(described))
        return Header(_rate(record["rate"]), n_frames, n_signals, segments=segments)
    signals = (None if layout else _usual_signals(described)) or tuple(
        _parse_signal(line, row, layout=layout) for row, line in enumerate(described)
    )
    return Header(_rate(record["rate"]), n_frames, n_signals, signals)


def _rate(text: str | None) -> float:
    if text is None:
        return DEFAULT_RATE
    try:
        rate = float(text)
    except ValueError:
        raise ReadError("damaged WFDB header: the sampling rate is not a number") from None
    if not (math.isfinite(rate) and 0 < rate <= 1_000_000):
        raise ReadError(f"impossible sampling rate in the WFDB header: {rate} Hz")
    return rate


def _parse_segment(line: str, row: int) -> Segment:
    field = _SEGMENT_LINE.fullmatch(line)
    if field is None:
        raise ReadError(f"damaged WFDB header: the line of segment {row} is not 'NAME SAMPLES'")
    if field["name"] != NOTHING and not _is_below(field["name"]):
        raise ReadError(f"WFDB segment {row} is outside the header's folder, which is refused")
    return Segment(field["name"], int(field["samples"]))


def _usual_signals(lines: list[str]) -> tuple[Signal, ...] | None:
    """Signal lines that all have nine fields: most of these are the same in all lines of a cohort. None for other lines."""
    found = _USUAL_LINE.findall("\n".join(lines))
    if len(found) != len(lines):
        return None
    signals: list[Signal] = []
    for file, storage, checksum, name in found:
        stored = (_stored_as if len(storage) <= MOST_REMEMBERED else _stored_as.__wrapped__)(storage)
        if stored is None or file == "-" or file.startswith(NOTHING) or not _is_below(file):
            return None
        signals.append(Signal(file, *stored[1:-2], int(checksum), name))
    return tuple(signals)


@lru_cache(1024)
def _stored_as(fields: str) -> Signal | None:
    """The signal of a line whose other fields are like any, None if the fields are not sound."""
    try:
        return _parse_signal(f"any {fields} 0 0 0 any", 0, layout=False)
    except ReadError:
        return None


def _parse_signal(line: str, row: int, *, layout: bool) -> Signal:
    field = _SIGNAL_LINE.fullmatch(line)
    if field is None:
        raise ReadError(f"damaged WFDB header: the line of signal {row} is not 'FILE FORMAT GAIN ...'")
    file, fmt, per_frame, skew, offset, gain, baseline, unit, _resolution, zero, _initial, checksum, _block, name = (
        field.groups()
    )
    if not layout:
        _check_storage(file, fmt, row)
    per_frame = int(per_frame or 1)
    if per_frame < 1:
        raise ReadError(f"damaged WFDB header: signal {row} has {per_frame} samples per frame")
    gain = float(gain or 0) or DEFAULT_GAIN
    if not math.isfinite(gain) or abs(gain) < 1e-30:
        raise ReadError(f"damaged WFDB header: the gain of signal {row} is {gain}")
    return Signal(
        file=file,
        format=fmt,
        per_frame=per_frame,
        skew=int(skew or 0),
        offset=int(offset or 0),
        gain=gain,
        baseline=int((zero or 0) if baseline is None else baseline),
        scale=millivolts_per(unit) if unit else 1.0,
        checksum=None if checksum is None else int(checksum),
        name=name or f"signal {row}",
    )


def _check_storage(file: str, fmt: str, row: int) -> None:
    """Refuse unknown formats, and files outside the header's folder, which could be an attempt to read other files."""
    if fmt not in NATIVE_FORMATS and fmt not in PACKAGE_FORMATS:
        raise UnsupportedFormatError(f"WFDB signal {row} has an unknown storage format")
    if file == "-" or file.startswith(NOTHING):
        raise UnsupportedFormatError(f"WFDB signal {row} has no signal file")
    if not _is_below(file):
        raise ReadError(f"the signal file of WFDB signal {row} is outside the header's folder, which is refused")


@lru_cache(16)
def _is_below(name: str) -> bool:
    """Whether a file is in the header's folder or a folder below it."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts)
