"""The samples of a WFDB record's signal files.

In: the header of a record with signals. Out: counts, or millivolts, of each signal. Formats 16, 24, 32, 61, 80, 160 and 212 are
decoded here, others by the `wfdb` package.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.recording import Samples
from ecgfounder.errors import MissingDependencyError, ReadError
from ecgfounder.readers.quantities import check_millivolts, to_millivolts
from ecgfounder.readers.source import Source
from ecgfounder.readers.wfdb.header import Header
from ecgfounder.readers.wfdb.signals import NATIVE_FORMATS, Signal
from ecgfounder.storage import Location
from ecgfounder.storage.temporary import temporary_folder

try:
    import ecgfounder.readers._loops as _loops
except ImportError:  # not built
    _loops = None  # type: ignore[assignment]

Counts = npt.NDArray[np.integer[Any]]

MAX_PACKAGE_SAMPLES = 1 << 26  # formats decoded by the package may be compressed, so that the file's size is no limit

# signal(5): the value of a missing sample, by format.
_NO_SAMPLE = {"16": -(1 << 15), "61": -(1 << 15), "160": -(1 << 15), "80": -128, "212": -2048}
_NO_SAMPLE |= {"24": -(1 << 23), "32": -(1 << 31)}


def columns_of(source: Source, folder: Location, header: Header) -> list[Counts]:
    """The counts of every signal, as one array per signal, in the header's order; checksums are verified."""
    columns: list[Counts] = []
    seen: set[str] = set()
    for file, run in groupby(zip(header.files, header.signals, strict=True), key=lambda each: each[0]):
        group = [signal for _file, signal in run]
        if file in seen:
            raise ReadError("damaged WFDB header: the signals of one file are not consecutive")
        seen.add(file)
        if len({(signal.format, signal.offset) for signal in group}) > 1:
            raise ReadError("damaged WFDB header: one signal file has several storage formats")
        columns += _decode_file(_signal_bytes(source, folder / file), group, header.n_frames)
    if len({len(column) // signal.per_frame for column, signal in zip(columns, header.signals, strict=True)}) > 1:
        raise ReadError("the signal files of the WFDB record are of different lengths")
    _verify_checksums(header.checksums, map(_sum_modulo_2_16, columns), header.n_frames)
    return columns


def all_in_millivolts(source: Source, file: Location, header: Header) -> Samples | None:
    """All signals of a record of one file, whose signals are usual (`Signals.is_usual`), in mV; None if that was not compiled.

    The result is that of `columns_of` and `fill_millivolts`, in a third of the time.
    """
    if _loops is None:
        return None
    signals, data = header.signals, _signal_bytes(source, file)
    offset, (steps, offsets) = signals[0].offset, signals.scaling
    n_frames = _frames_in(data, "16", offset, signals.per_frame, header.n_frames)
    samples, facts = np.empty((len(signals), n_frames), np.float32), np.empty((len(signals), 4), np.int64)
    _loops.interleaved(data, offset, n_frames, steps, offsets, samples, facts)
    _verify_checksums(header.checksums, facts[:, 0].tolist(), header.n_frames)
    if not signals.is_bounded:
        for (_sum, low, high, n_missing), step, offset_mv in zip(
            facts.tolist(), steps.tolist(), offsets.tolist(), strict=True
        ):
            if n_missing < n_frames:
                check_millivolts(low, high, step, offset_mv, "a signal")
    return samples


def _signal_bytes(source: Source, location: Location) -> bytes:
    try:
        return source.fetch(location)  # not unpacked: a signal may begin with the magic bytes of gzip
    except ReadError as error:
        raise ReadError(f"the signal file named in the WFDB header: {error}") from error


def _decode_file(data: bytes, group: Sequence[Signal], n_frames: int | None) -> list[Counts]:
    fmt, offset = group[0].format, group[0].offset
    per_frame = sum(signal.per_frame for signal in group)
    n_frames = _frames_in(data, fmt, offset, per_frame, n_frames)
    frames = _decode(data, fmt, offset, n_frames * per_frame).reshape(n_frames, per_frame)
    if per_frame == len(group):
        return list(np.ascontiguousarray(frames.T))  # one copy is faster than strided access in all later steps
    columns: list[Counts] = []
    first = 0
    for signal in group:
        columns.append(frames[:, first : first + signal.per_frame].reshape(-1))
        first += signal.per_frame
    return columns


def _frames_in(data: bytes, fmt: str, offset: int, per_frame: int, n_frames: int | None) -> int:
    """The number of frames in a signal file, if it has as many as the header states."""
    available = max(0, len(data) - offset)
    stored = int(available / NATIVE_FORMATS[fmt]) // per_frame
    if n_frames is None:
        n_frames = stored
    if n_frames > stored or n_frames == 0:
        raise ReadError(
            f"signal file of {len(data):,} bytes, but {n_frames:,} frames of {per_frame} samples in format {fmt} "
            f"need {offset + math.ceil(n_frames * per_frame * NATIVE_FORMATS[fmt]):,}"
        )
    return n_frames


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


def _verify_checksums(checksums: Sequence[int | None], sums: Iterable[int], n_frames: int | None) -> None:
    """Compare each signal's checksum with the sum of its samples modulo 2^16 (header(5)), which some programs write as signed.

    A checksum of 0 was usually not computed and is not checked. If the header does not state the number of samples, it is not
    known which samples were summed.
    """
    if n_frames is None:
        return
    for row, (checksum, found) in enumerate(zip(checksums, sums, strict=True)):
        if checksum and (found - checksum) & 0xFFFF:
            raise ReadError(
                f"the samples of signal {row} do not match their checksum in the WFDB header: the signal file is "
                "damaged or belongs to another header (a checksum of 0 is not checked)"
            )


def _sum_modulo_2_16(column: Counts) -> int:
    if column.dtype == np.dtype("<i2"):  # a 16-bit sum that wraps around is sufficient, and several times as fast
        return int(column.view("<u2").sum(dtype=np.uint16))
    return int(column.sum(dtype=np.int64))


def fill_millivolts(column: Counts, signal: Signal, out: Samples) -> None:
    """Fill `out` with (count - baseline) / gain in millivolts, shifted by the skew; NaN for missing samples."""
    skew = signal.skew * signal.per_frame
    if skew >= len(out):
        raise ReadError(f"damaged WFDB header: a skew of {signal.skew} frames, in a record of {len(out)} samples")
    kept = column[skew : len(out)]
    step = signal.step
    no_sample = _NO_SAMPLE[signal.format]
    to_millivolts(kept, step, -signal.baseline * step, "a signal", no_sample=no_sample, out=out[: len(kept)])
    out[len(kept) :] = np.nan


# Errors of the package to which damaged headers lead; their messages may quote the file and are not shown.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def through_package(source: Source, location: Location, header: Header, rows: Sequence[int]) -> list[Samples]:
    """Samples in millivolts of some signals, decoded by the `wfdb` package.

    The header has been checked, so that no file outside its folder is opened.
    """
    try:
        package = importlib.import_module("wfdb")
    except ImportError as error:
        formats = ", ".join(sorted({signal.format for signal in header.signals} - set(NATIVE_FORMATS)))
        raise MissingDependencyError("wfdb", f"WFDB format {formats}", "wfdb") from error
    if location.suffix != ".hea":
        raise ReadError("for this WFDB storage format, the header must be an uncompressed file NAME.hea")
    total = header.signals.per_frame * (header.n_frames or 0)
    if not 0 < total <= MAX_PACKAGE_SAMPLES:
        raise ReadError(f"expected 1 to {MAX_PACKAGE_SAMPLES:,} samples in this WFDB storage format, found {total:,}")
    files = {file: _signal_bytes(source, location.folder / file) for file in set(header.files)}
    files[location.basename] = source.fetch(location)
    # The package decodes the bytes that were read, even if the files have changed since.
    with temporary_folder() as folder:
        for file, content in files.items():
            place = folder / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        try:
            record = package.rdrecord(str(folder / location.stem), physical=True, smooth_frames=False, return_res=64)
        except _DAMAGE as error:
            raise ReadError("the wfdb package cannot decode the record: damaged") from error
    scales = [header.signals[row].scale or 1.0 for row in rows]
    physical = [np.asarray(record.e_p_signal[row], dtype=np.float64) for row in rows]
    return [np.asarray(each * scale, dtype=np.float32) for each, scale in zip(physical, scales, strict=True)]
