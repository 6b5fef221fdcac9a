"""WFDB records (PhysioNet): a text header `NAME.hea` and the signal files named in it.

In: the header, a signal file, or the record's name without suffix. Out: a `Recording` of the signals that are voltages. Formats
16, 24, 32, 61, 80, 160 and 212 are decoded here, others by the `wfdb` package.
"""

from __future__ import annotations

import importlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import KNOWN_LEADS, leads_in_context, says_ecg
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.errors import MissingDependencyError, ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import millivolts_per, to_millivolts
from ecgfounder.readers.signals import numbered
from ecgfounder.readers.source import Source, unpacked
from ecgfounder.storage import Location

FORMAT = "wfdb"

Counts = npt.NDArray[np.integer[Any]]

MAX_HEADER_BYTES = 1 << 20
MAX_SIGNALS = 1024
MAX_PACKAGE_SAMPLES = 1 << 26  # formats decoded by the package may be compressed, so that the file's size is no limit
DEFAULT_RATE = 250.0  # header(5): "if missing, a value of 250 Hz is assumed"
DEFAULT_GAIN = 200.0  # header(5): "if zero or missing, a gain of 200 ADC units per physical unit is assumed"

# signal(5): the value of a missing sample, by format.
_NO_SAMPLE = {"16": -(1 << 15), "61": -(1 << 15), "160": -(1 << 15), "80": -128, "212": -2048}
_NO_SAMPLE |= {"24": -(1 << 23), "32": -(1 << 31)}
_BYTES = {"16": 2.0, "61": 2.0, "160": 2.0, "80": 1.0, "212": 1.5, "24": 3.0, "32": 4.0}
_PACKAGE_FORMATS = frozenset({"8", "310", "311", "508", "516", "524"})

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
# A header with another suffix: a record line, then a line with a file's name and a storage format.
_HEADER_TEXT = re.compile(
    rb"\s*(?:#[^\n]*\n\s*)*[^\s,;#<{/]+(?:/\d+)?[ \t]+\d{1,4}(?:[ \t]+[0-9.][^\n]{0,200})?\r?\n"
    rb"\s*(?:#[^\n]*\n\s*)*[^\s,;]*[^\s,;0-9.+-][^\s,;]*[ \t]+"
    rb"(?:8|16|24|32|61|80|160|212|310|311|508|516|524)(?:x\d+)?(?::\d+)?(?:\+\d+)?(?=\s)"
)
_RECORD_TEXT = re.compile(rb"\s*(?:#[^\n]*\n\s*)*[^\s,;#<{]+[ \t]+\d{1,4}(?=\s|$)")


@dataclass(frozen=True)
class _Signal:
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
class _Header:
    """A header; `n_frames` is None if it is not stated, so that the size of the signal file gives it."""

    rate: float
    n_frames: int | None
    signals: tuple[_Signal, ...]


def matches(source: Source) -> bool:
    """Whether the path is that of a WFDB header, a signal file beside its header, or a record's name without suffix."""
    location = source.location
    suffix = location.suffix.lower()
    if suffix in (".dat", ".mat"):
        header = location.beside(f"{location.stem}.hea")
        return header.exists() and location.basename.encode() in Source(header).head.split()
    if not location.exists():
        return location.beside(f"{location.basename}.hea").exists()
    if suffix == ".hea" or location.basename.lower().endswith(".hea.gz"):
        return _RECORD_TEXT.match(source.head) is not None
    return _HEADER_TEXT.match(source.head) is not None


def read(source: Source) -> Recording:
    """Read a WFDB record.

    Signals whose unit is not a voltage (pressure, respiration) are left out. If signals have different numbers of samples per
    frame, those with the largest number among ECG leads are kept, and give the sampling rate; other leads are in
    `Recording.left_out`. Samples that the format marks as missing are NaN, and so are the last samples of a signal with skew.
    Checksums in the header that are not 0 must match.

    Raises
    ------
    ReadError
        If the header is damaged or names files outside its folder, or a signal file is missing, shorter than stated in the
        header, or does not match its checksums.
    MissingDependencyError
        If a signal is in a format that needs the `wfdb` package, which is not installed.

    References
    ----------
    WFDB Applications Guide, header(5) and signal(5).
    """
    location = _header_location(source.location)
    header = _parse_header(source.content if location == source.location else unpacked(source.fetch(location)))
    files = [location.beside(name) for name in dict.fromkeys(signal.file for signal in header.signals)]
    source.companions.extend(file for file in (location, *files) if file != source.location)
    chosen, left_out = _chosen(header.signals)
    if all(signal.format in _BYTES for signal in header.signals):
        columns = _columns(source, location.folder, header)
        _verify_checksums(header.signals, columns, header.n_frames)
        n_samples = min(len(columns[row]) for row in chosen)
        samples = np.empty((len(chosen), n_samples), dtype=np.float32)
        for out, row in zip(samples, chosen, strict=True):
            _to_millivolt(columns[row], header.signals[row], out)
    else:
        samples = _through_package(source, location, header, chosen)
    signals = [header.signals[row] for row in chosen]
    leads = leads_in_context([signal.name for signal in header.signals])
    return Recording(
        samples=samples,
        sampling_rate=header.rate * signals[0].per_frame,
        leads=numbered([leads[row] for row in chosen]),
        source_format=FORMAT,
        meta=_meta(signals),
        left_out=tuple(sorted({lead if lead in KNOWN_LEADS else "ECG" for lead in (leads[row] for row in left_out)})),
    )


def _header_location(location: Location) -> Location:
    if location.suffix.lower() in (".dat", ".mat"):
        return location.beside(f"{location.stem}.hea")
    if not location.exists():
        return location.beside(f"{location.basename}.hea")
    return location


def _parse_header(content: bytes) -> _Header:
    if len(content) > MAX_HEADER_BYTES:
        raise ReadError(f"WFDB header of {len(content):,} bytes; at most {MAX_HEADER_BYTES:,} are expected")
    text = [line.strip() for line in content.decode("latin-1").splitlines()]
    lines = [line for line in text if line and not line.startswith("#")]
    record = _RECORD_LINE.fullmatch(lines[0]) if lines else None
    if record is None:
        raise ReadError("damaged WFDB header: the record line is not 'NAME SIGNALS RATE SAMPLES'")
    if record["segments"] is not None:
        raise UnsupportedFormatError(
            f"WFDB record of {int(record['segments'])} segments: give the path of each segment's header instead"
        )
    n_signals = int(record["signals"])
    if not 1 <= n_signals <= MAX_SIGNALS:
        raise ReadError(f"expected a WFDB header with 1 to {MAX_SIGNALS} signals, found {n_signals}")
    if len(lines) <= n_signals:
        raise ReadError(f"damaged WFDB header: it states {n_signals} signals, but describes {len(lines) - 1}")
    return _Header(
        rate=_rate(record["rate"]),
        n_frames=int(record["samples"] or 0) or None,
        signals=tuple(_parse_signal(line, row) for row, line in enumerate(lines[1 : n_signals + 1])),
    )


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


def _parse_signal(line: str, row: int) -> _Signal:
    field = _SIGNAL_LINE.fullmatch(line)
    if field is None:
        raise ReadError(f"damaged WFDB header: the line of signal {row} is not 'FILE FORMAT GAIN ...'")
    if field["format"] not in _BYTES and field["format"] not in _PACKAGE_FORMATS:
        raise UnsupportedFormatError(f"WFDB signal {row} has an unknown storage format")
    _check_file_name(field["file"], row)
    per_frame = int(field["per_frame"] or 1)
    if per_frame < 1:
        raise ReadError(f"damaged WFDB header: signal {row} has {per_frame} samples per frame")
    gain = float(field["gain"] or 0) or DEFAULT_GAIN
    if not math.isfinite(gain) or abs(gain) < 1e-30:
        raise ReadError(f"damaged WFDB header: the gain of signal {row} is {gain}")
    zero = int(field["zero"] or 0)
    return _Signal(
        file=field["file"],
        format=field["format"],
        per_frame=per_frame,
        skew=int(field["skew"] or 0),
        offset=int(field["offset"] or 0),
        gain=gain,
        baseline=zero if field["baseline"] is None else int(field["baseline"]),
        scale=millivolts_per(field["unit"]) if field["unit"] else 1.0,
        checksum=None if field["checksum"] is None else int(field["checksum"]),
        name=field["name"] or f"signal {row}",
    )


def _check_file_name(name: str, row: int) -> None:
    """Refuse a signal file that is not beside its header: another place could be an attempt to read other files."""
    if name == "-" or name.startswith("~"):
        raise UnsupportedFormatError(f"WFDB signal {row} has no signal file")
    if "/" in name or "\\" in name or ":" in name or name in (".", "..") or "\0" in name:
        raise ReadError(f"the signal file of WFDB signal {row} is in another folder, which is refused")


def _chosen(signals: Sequence[_Signal]) -> tuple[list[int], list[int]]:
    """Rows of the signals to keep: voltages with the most samples per frame of any lead; and rows of leads with other numbers."""
    voltages = [row for row, signal in enumerate(signals) if signal.scale is not None]
    if not voltages:
        raise ReadError("no signal of the WFDB record has the unit V, mV, uV or nV")
    leads = leads_in_context([signal.name for signal in signals])
    ecg = [row for row in voltages if leads[row] in KNOWN_LEADS or says_ecg(signals[row].name)]
    most = max(signals[row].per_frame for row in ecg or voltages)
    kept = [row for row in voltages if signals[row].per_frame == most]
    return kept, [row for row in ecg if signals[row].per_frame != most]


def _columns(source: Source, folder: Location, header: _Header) -> list[Counts]:
    """The counts of every signal, as one array per signal, in the header's order."""
    columns: list[Counts] = []
    seen: set[str] = set()
    for file, run in groupby(header.signals, key=lambda signal: signal.file):
        group = list(run)
        if file in seen:
            raise ReadError("damaged WFDB header: the signals of one file are not consecutive")
        seen.add(file)
        if len({(signal.format, signal.offset) for signal in group}) > 1:
            raise ReadError("damaged WFDB header: one signal file has several storage formats")
        columns += _decode_file(_signal_bytes(source, folder / file), group, header.n_frames)
    if len({len(column) // signal.per_frame for column, signal in zip(columns, header.signals, strict=True)}) > 1:
        raise ReadError("the signal files of the WFDB record are of different lengths")
    return columns


def _signal_bytes(source: Source, location: Location) -> bytes:
    try:
        return source.fetch(location)  # not unpacked: a signal may begin with the magic bytes of gzip
    except ReadError as error:
        raise ReadError(f"the signal file named in the WFDB header: {error}") from error


def _decode_file(data: bytes, group: Sequence[_Signal], n_frames: int | None) -> list[Counts]:
    fmt, offset = group[0].format, group[0].offset
    per_frame = sum(signal.per_frame for signal in group)
    available = max(0, len(data) - offset)
    stored = int(available / _BYTES[fmt]) // per_frame
    if n_frames is None:
        n_frames = stored
    if n_frames > stored or n_frames == 0:
        raise ReadError(
            f"signal file of {len(data):,} bytes, but {n_frames:,} frames of {per_frame} samples in format {fmt} "
            f"need {offset + math.ceil(n_frames * per_frame * _BYTES[fmt]):,}"
        )
    frames = _decode(data, fmt, offset, n_frames * per_frame).reshape(n_frames, per_frame)
    if per_frame == len(group):
        return list(np.ascontiguousarray(frames.T))  # one copy is faster than strided access in all later steps
    columns: list[Counts] = []
    first = 0
    for signal in group:
        columns.append(frames[:, first : first + signal.per_frame].reshape(-1))
        first += signal.per_frame
    return columns


def _decode(data: bytes, fmt: str, offset: int, count: int) -> Counts:
    """`count` samples in storage format `fmt` (signal(5)), from byte `offset` on."""
    if fmt == "16":
        return np.frombuffer(data, "<i2", count, offset)
    if fmt == "61":
        return np.frombuffer(data, ">i2", count, offset)
    if fmt == "32":
        return np.frombuffer(data, "<i4", count, offset)
    if fmt == "80":
        return np.frombuffer(data, "u1", count, offset).astype(np.int16) - 128
    if fmt == "160":
        return (np.frombuffer(data, "<u2", count, offset).astype(np.int32) - (1 << 15)).astype(np.int16)
    if fmt == "24":
        triples = np.frombuffer(data, "u1", 3 * count, offset).reshape(count, 3)
        words = np.zeros((count, 4), dtype=np.uint8)
        words[:, 1:] = triples
        return words.view("<i4")[:, 0] >> 8  # the arithmetic shift extends the sign
    pairs = (count + 1) // 2
    stored = np.zeros(3 * pairs, dtype=np.uint8)
    n_bytes = (3 * count + 1) // 2
    stored[:n_bytes] = np.frombuffer(data, "u1", n_bytes, offset)
    first, middle, second = stored.reshape(pairs, 3).astype(np.int16).T
    samples = np.empty((pairs, 2), dtype=np.int16)
    samples[:, 0] = first | ((middle & 0x0F) << 8)
    samples[:, 1] = second | ((middle & 0xF0) << 4)
    samples[samples > 2047] -= 4096
    return samples.reshape(-1)[:count]


def _verify_checksums(signals: Sequence[_Signal], columns: Sequence[Counts], n_frames: int | None) -> None:
    """Check each signal's checksum, the sum of its samples modulo 2^16 (header(5)), which some programs write as signed.

    A checksum of 0 was usually not computed and is not checked. If the header does not state the number of samples, it is not
    known which samples were summed.
    """
    if n_frames is None:
        return
    for row, (signal, column) in enumerate(zip(signals, columns, strict=True)):
        if signal.checksum and (_sum_modulo_2_16(column) - signal.checksum) & 0xFFFF:
            raise ReadError(
                f"the samples of signal {row} do not match their checksum in the WFDB header: the signal file is "
                "damaged or belongs to another header (a checksum of 0 is not checked)"
            )


def _sum_modulo_2_16(column: Counts) -> int:
    if column.dtype == np.dtype("<i2"):  # a 16-bit sum that wraps around is sufficient, and several times as fast
        return int(column.view("<u2").sum(dtype=np.uint16))
    return int(column.sum(dtype=np.int64))


def _to_millivolt(column: Counts, signal: _Signal, out: npt.NDArray[np.float32]) -> None:
    """Fill `out` with (count - baseline) / gain in millivolts, shifted by the skew; NaN for missing samples."""
    skew = signal.skew * signal.per_frame
    if skew >= len(out):
        raise ReadError(f"damaged WFDB header: a skew of {signal.skew} frames, in a record of {len(out)} samples")
    kept = column[skew : len(out)]
    step = (signal.scale or 1.0) / signal.gain
    no_sample = _NO_SAMPLE[signal.format]
    to_millivolts(kept, step, -signal.baseline * step, "a signal", no_sample=no_sample, out=out[: len(kept)])
    out[len(kept) :] = np.nan


def _through_package(source: Source, location: Location, header: _Header, chosen: Sequence[int]) -> Samples:
    """Decode with the `wfdb` package; the header has been checked, so that no file in another folder is opened."""
    try:
        package = importlib.import_module("wfdb")
    except ImportError as error:
        formats = ", ".join(sorted({signal.format for signal in header.signals} - set(_BYTES)))
        raise MissingDependencyError("wfdb", f"WFDB format {formats}", "wfdb") from error
    if location.suffix != ".hea":
        raise ReadError("for this WFDB storage format, the header must be an uncompressed file NAME.hea")
    total = sum(signal.per_frame for signal in header.signals) * (header.n_frames or 0)
    if not 0 < total <= MAX_PACKAGE_SAMPLES:
        raise ReadError(f"expected 1 to {MAX_PACKAGE_SAMPLES:,} samples in this WFDB storage format, found {total:,}")
    files = {file: _signal_bytes(source, location.beside(file)) for file in {signal.file for signal in header.signals}}
    files[location.basename] = source.fetch(location)
    with (
        TemporaryDirectory() as folder
    ):  # the package decodes the bytes that were read, even if the files have changed since
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        name = os.path.join(folder, location.stem)
        record = package.rdrecord(name, physical=True, smooth_frames=False, return_res=64)
    rows = [np.asarray(record.e_p_signal[row], dtype=np.float64) for row in chosen]
    scales = [header.signals[row].scale or 1.0 for row in chosen]
    return np.stack([row * scale for row, scale in zip(rows, scales, strict=True)]).astype(np.float32)


def _meta(signals: Sequence[_Signal]) -> dict[str, str | float]:
    """Microvolts per count, if all leads have the same."""
    steps = {1000 * (signal.scale or 1.0) / abs(signal.gain) for signal in signals}
    return {"resolution_uv": steps.pop()} if len(steps) == 1 else {}
