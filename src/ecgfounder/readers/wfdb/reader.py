"""Reading of WFDB records, of one or of several segments.

In: the header, a signal file, or the record's name without suffix. Out: a `Recording` of the signals that are voltages.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.signals import raised
from ecgfounder.readers.source import Source, unpacked
from ecgfounder.readers.wfdb.header import Header, Segment, parse_header
from ecgfounder.readers.wfdb.signals import NOTHING, Choice
from ecgfounder.readers.wfdb.stored import all_in_millivolts, columns_of, fill_millivolts, through_package
from ecgfounder.storage import Location

FORMAT = "wfdb"

MAX_GAP_SAMPLES = 1 << 28
"""Samples of all leads in gaps between segments: no file's size limits them."""

# A header with another suffix: a record line, then a line with a file's name and a storage format.
_HEADER_TEXT = re.compile(
    rb"\s*(?:#[^\n]*\n\s*)*[^\s,;#<{/]+(?:/\d+)?[ \t]+\d{1,4}(?:[ \t]+[0-9.][^\n]{0,200})?\r?\n"
    rb"\s*(?:#[^\n]*\n\s*)*[^\s,;]*[^\s,;0-9.+-][^\s,;]*[ \t]+"
    rb"(?:8|16|24|32|61|80|160|212|310|311|508|516|524)(?:x\d+)?(?::\d+)?(?:\+\d+)?(?=\s)"
)
_RECORD_TEXT = re.compile(rb"\s*(?:#[^\n]*\n\s*)*[^\s,;#<{]+[ \t]+\d{1,4}(?=\s|$)")


def matches(source: Source) -> bool:
    """Whether the path is a WFDB header, a signal file beside its header, or a record's name without extension."""
    location = source.location
    suffix = location.suffix.lower()
    if suffix in (".dat", ".mat"):
        return _header_beside(location) is not None
    if not source.exists:
        return source.has(location.beside(f"{location.basename}.hea"))
    if suffix == ".hea" or location.basename.lower().endswith(".hea.gz"):
        return _RECORD_TEXT.match(source.head) is not None
    return _HEADER_TEXT.match(source.head) is not None


def read(source: Source) -> Recording:
    """Read a WFDB record.

    Signals whose unit is not a voltage (pressure, respiration) are left out. If signals have different numbers of samples per
    frame, the largest number of an ECG lead gives the sampling rate; leads with fewer samples are interpolated, and are in
    `Recording.upsampled`. Samples that the format marks as missing are NaN, and so are gaps between segments, leads that a
    segment does not hold, and the last samples of a signal with skew. Checksums in the header that are not 0 must match.

    Raises
    ------
    ReadError
        If a header is damaged, contradicts another one or names files outside its folder, or a signal file is missing, shorter
        than stated in the header, or does not match its checksums.
    MissingDependencyError
        If a signal is in a format that needs the `wfdb` package, which is not installed.

    References
    ----------
    WFDB Applications Guide, header(5) and signal(5).
    """
    location = _header_location(source)
    if location != source.location:
        source.companions.append(location)
    header = parse_header(source.content if location == source.location else unpacked(source.fetch(location)))
    if header.segments:
        return _read_segments(source, location, header)
    chosen = header.signals.choice
    samples = _filled(source, location, header, chosen)
    return _recording(samples, header.rate, chosen)


def _header_location(source: Source) -> Location:
    location = source.location
    if location.suffix.lower() in (".dat", ".mat"):
        return _header_beside(location) or location.beside(f"{location.stem}.hea")
    if not source.exists:
        return location.beside(f"{location.basename}.hea")
    return location


def _header_beside(location: Location) -> Location | None:
    """The header of a signal file, NAME.hea or NAME.dat.hea, if there is one that names the file."""
    for name in (f"{location.stem}.hea", f"{location.basename}.hea"):
        header = location.beside(name)
        if header.exists() and location.basename.encode() in Source(header).head.split():
            return header
    return None


def _recording(samples: Samples, rate: float, chosen: Choice) -> Recording:
    return Recording(
        samples=samples,
        sampling_rate=rate * chosen.per_frame,
        leads=chosen.leads,
        source_format=FORMAT,
        meta=dict(chosen.meta),
        upsampled=chosen.upsampled,
    )


# --- samples ---------------------------------------------------------------------------------------------------------


def _filled(source: Source, location: Location, header: Header, chosen: Choice) -> Samples:
    """Samples [n_leads, n_samples] in mV of the chosen signals of a record without segments."""
    files = [location.folder / name for name in dict.fromkeys(header.files)]
    source.companions.extend(file for file in files if file != source.location and file not in source.companions)
    is_all = chosen.rows == tuple(range(len(header.signals))) and chosen.per_frame == 1
    if header.signals.is_usual and len(files) == 1 and is_all:
        usual = all_in_millivolts(source, files[0], header)
        if usual is not None:
            return usual
    signals = [header.signals[row] for row in chosen.rows]
    if header.signals.is_native:
        columns = columns_of(source, location.folder, header)
        n_frames = min(len(columns[row]) // header.signals[row].per_frame for row in chosen.rows)
        samples = np.empty((len(signals), n_frames * chosen.per_frame), dtype=np.float32)
        for out, row, signal in zip(samples, chosen.rows, signals, strict=True):
            if signal.per_frame == chosen.per_frame:
                fill_millivolts(columns[row], signal, out)
            else:
                fewer = np.empty(n_frames * signal.per_frame, dtype=np.float32)
                fill_millivolts(columns[row], signal, fewer)
                out[:] = raised(fewer, len(out))
        return samples
    decoded = through_package(source, location, header, chosen.rows)
    n_frames = min(len(each) // signal.per_frame for each, signal in zip(decoded, signals, strict=True))
    return np.stack([raised(each, n_frames * chosen.per_frame) for each in decoded])


# --- several segments ------------------------------------------------------------------------------------------------


def _read_segments(source: Source, location: Location, header: Header) -> Recording:
    """Read a record of several segments, of fixed or variable layout (header(5))."""
    segments = header.segments[1:] if header.has_layout else header.segments
    headers = _Headers(source, location, header.rate)
    first = next((segment for segment in segments if segment.name != NOTHING), None)
    if first is None:
        raise ReadError("the WFDB record consists of gaps only")
    layout = headers.layout(header.segments[0]) if header.has_layout else headers.of(first)
    if len(layout.signals) != header.n_signals:
        raise ReadError(f"WFDB header of {header.n_signals} signals, but its first segment has {len(layout.signals)}")
    total = sum(segment.n_frames for segment in segments)
    if header.n_frames is not None and header.n_frames != total:
        raise ReadError(f"WFDB record of {header.n_frames:,} frames, but its segments have {total:,}")
    chosen = layout.signals.choice
    rows_of = [
        _rows_in(headers.of(segment), layout, header.has_layout, chosen)
        if segment.name != NOTHING and segment.n_frames
        else []
        for segment in segments
    ]
    _refuse_long_gaps(segments, rows_of, chosen)
    samples = np.empty((len(chosen.rows), total * chosen.per_frame), dtype=np.float32)
    begin = 0
    for segment, rows in zip(segments, rows_of, strict=True):
        end = begin + segment.n_frames * chosen.per_frame
        if segment.name == NOTHING:
            samples[:, begin:end] = np.nan
        elif segment.n_frames:
            _fill_segment(headers, segment, rows, chosen, samples[:, begin:end])
        begin = end
    return _recording(samples, header.rate, chosen)


class _Headers:
    """The headers of a record's segments, each parsed once."""

    def __init__(self, source: Source, location: Location, rate: float) -> None:
        self.source = source
        self.location = location
        self.rate = rate
        self._parsed: dict[str, Header] = {}

    def place(self, segment: Segment) -> Location:
        return self.location.folder / f"{segment.name}.hea"

    def of(self, segment: Segment) -> Header:
        """The header of a segment with samples; it must agree with the record's header."""
        header = self._parse(segment, layout=False)
        if header.segments:
            raise UnsupportedFormatError("a segment of the WFDB record consists of segments")
        if header.rate != self.rate:
            raise ReadError(f"a segment of the WFDB record has {header.rate:g} Hz, the record {self.rate:g} Hz")
        if header.n_frames not in (None, segment.n_frames):
            raise ReadError(
                f"a segment of the WFDB record has {header.n_frames:,} frames, {segment.n_frames:,} are stated for it"
            )
        return replace(header, n_frames=segment.n_frames)

    def layout(self, segment: Segment) -> Header:
        """The layout header, which lists the signals."""
        return self._parse(segment, layout=True)

    def _parse(self, segment: Segment, *, layout: bool) -> Header:
        if segment.name not in self._parsed:
            place = self.place(segment)
            self.source.companions.append(place)
            try:
                self._parsed[segment.name] = parse_header(unpacked(self.source.fetch(place)), layout=layout)
            except ReadError as error:
                raise ReadError(f"a segment named in the WFDB header: {error}") from error
        return self._parsed[segment.name]


def _rows_in(held: Header, layout: Header, by_name: bool, chosen: Choice) -> list[int | None]:
    """For each chosen row, the row of the same signal in a segment; None if the segment does not hold it."""
    names = [signal.name for signal in held.signals]
    if not by_name:
        if names != [signal.name for signal in layout.signals]:
            raise ReadError("the segments of the WFDB record have different signals, but there is no layout header")
        return list(chosen.rows)
    listed = {signal.name for signal in layout.signals}
    if len(set(names)) < len(names) or len(listed) < len(layout.signals):
        raise ReadError("signals of the same name in a WFDB record with a layout header")
    if not set(names) <= listed:
        raise ReadError("a segment of the WFDB record has a signal that the layout header does not list")
    of = {name: row for row, name in enumerate(names)}
    return [of.get(layout.signals[row].name) for row in chosen.rows]


def _fill_segment(
    headers: _Headers, segment: Segment, rows: Sequence[int | None], chosen: Choice, out: Samples
) -> None:
    """Fill `out` [n_leads, n_samples] with a segment's samples; NaN for leads that it does not hold."""
    held = headers.of(segment)
    present = [row for row in rows if row is not None]
    if any(held.signals[row].scale is None for row in present):
        raise ReadError("a segment of the WFDB record has another unit for a signal than the layout header")
    if any(held.signals[row].per_frame > chosen.per_frame for row in present):
        raise ReadError("a segment of the WFDB record has more samples per frame than the layout header states")
    out[[place for place, row in enumerate(rows) if row is None]] = np.nan
    if present:
        part = _filled(headers.source, headers.place(segment), held, replace(chosen, rows=tuple(present)))
        out[[place for place, row in enumerate(rows) if row is not None]] = part


def _refuse_long_gaps(segments: Sequence[Segment], rows_of: Sequence[Sequence[int | None]], chosen: Choice) -> None:
    """Refuse a record whose gaps would need much memory; the sizes of its files are no limit for them."""
    missing = 0
    for segment, rows in zip(segments, rows_of, strict=True):
        held = sum(row is not None for row in rows)
        missing += (len(chosen.rows) - held) * segment.n_frames * chosen.per_frame
    if missing > MAX_GAP_SAMPLES:
        raise ReadError(
            f"WFDB record with {missing:,} missing samples between its segments; at most {MAX_GAP_SAMPLES:,} are read"
        )
