"""The header of a WFDB record: its signals, or the segments that it consists of.

In: the text of a header. Out: a `Header`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ecgfounder.errors import ReadError
from ecgfounder.readers.wfdb.signals import NO_SIGNALS, NOTHING, Signals, is_below, parse_signals

MAX_HEADER_BYTES = 1 << 20
MAX_SIGNALS = 1024
DEFAULT_RATE = 250.0  # header(5): "if missing, a value of 250 Hz is assumed"

_RECORD_LINE = re.compile(
    r"\s*(?P<name>[^\s/]+(?:/[^\s/]*[^\s/\d][^\s/]*)*)(?:/(?P<segments>\d+))?"
    r"\s+(?P<signals>\d{1,6})"
    r"(?:\s+(?P<rate>[0-9.]+(?:[eE][+-]?\d+)?)(?:/\S*)?(?:\s+(?P<samples>\d{1,15})(?!\S))?)?(?:\s.*)?"
)
_SEGMENT_LINE = re.compile(r"(?P<name>\S+)\s+(?P<samples>\d{1,15})(?:\s.*)?")


@dataclass(frozen=True)
class Segment:
    """One segment line of a header: the segment's record, or `NOTHING` for a gap, and its number of frames."""

    name: str
    n_frames: int


@dataclass(frozen=True)
class Header:
    """A header; `n_frames` is None if it is not stated, so that the size of the signal file gives it.

    `files` and `checksums` are those of each signal. A record of several segments has no signals of its own, but `n_signals` of
    them in its segments.
    """

    rate: float
    n_frames: int | None
    n_signals: int
    files: tuple[str, ...] = ()
    checksums: tuple[int | None, ...] = ()
    signals: Signals = NO_SIGNALS
    segments: tuple[Segment, ...] = ()

    @property
    def has_layout(self) -> bool:
        """Whether the first segment is a layout header: a list of all signals, of which each segment holds some."""
        return bool(self.segments) and self.segments[0].n_frames == 0 and self.segments[0].name != NOTHING


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
    files, checksums, signals = parse_signals(described, layout=layout)
    return Header(_rate(record["rate"]), n_frames, n_signals, files, checksums, signals)


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
    if field["name"] != NOTHING and not is_below(field["name"]):
        raise ReadError(f"WFDB segment {row} is outside the header's folder, which is refused")
    return Segment(field["name"], int(field["samples"]))
