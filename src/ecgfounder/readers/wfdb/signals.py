"""The signal lines of a WFDB header: how each signal is stored, and which signals are read.

In: lines of text. Out: `SignalLines`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import KNOWN_LEADS, leads_in_context, says_ecg
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import MAX_MILLIVOLTS, millivolts_per
from ecgfounder.readers.signals import numbered

DEFAULT_GAIN = 200.0  # header(5): "if zero or missing, a gain of 200 ADC units per physical unit is assumed"

NATIVE_FORMATS = {"16": 2.0, "61": 2.0, "160": 2.0, "80": 1.0, "212": 1.5, "24": 3.0, "32": 4.0}
"""Bytes per sample of the storage formats that are decoded here (signal(5))."""
PACKAGE_FORMATS = frozenset({"8", "310", "311", "508", "516", "524"})
"""Storage formats that the `wfdb` package decodes."""
NOTHING = "~"
"""The name of a segment without samples, and the signal file of a layout header."""

_MOST_REMEMBERED = 2000  # characters of a header's lines: a hostile header must not take memory for longer

_LINE = re.compile(
    r"\s*(?P<file>\S+)\s+(?P<format>\d{1,3})(?:x(?P<per_frame>\d{1,6}))?(?::(?P<skew>\d{1,9}))?(?:\+(?P<offset>\d{1,12}))?"
    r"(?:\s+(?P<gain>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)?(?:\((?P<baseline>[+-]?\d{1,12})\))?(?:/(?P<unit>\S+))?"
    r"(?:\s+(?P<resolution>[+-]?\d{1,12})(?:\s+(?P<zero>[+-]?\d{1,12})(?:\s+(?P<initial>[+-]?\d{1,12})"
    r"(?:\s+(?P<checksum>[+-]?\d{1,12})(?:\s+(?P<block>[+-]?\d{1,12})(?:\s+(?P<name>\S.*?))?)?)?)?)?)?)?\s*"
)
_USUAL_LINE = re.compile(
    r"^(\S+)[ \t]+(\S+[ \t]+\S+[ \t]+\S+[ \t]+\S+)[ \t]+-?[0-9]{1,11}[ \t]+(-?[0-9]{1,11})[ \t]+-?[0-9]{1,11}[ \t]+(\S+)$",
    re.MULTILINE,
)


class Signal(NamedTuple):
    """How one signal is stored; `gain` in counts per unit, `scale` in millivolts per unit, None if it is not a voltage."""

    format: str
    per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: int
    scale: float | None
    name: str

    @property
    def step(self) -> float:
        """Millivolts per count; signals that are no voltages are not read."""
        return (self.scale or 1.0) / self.gain


@dataclass(frozen=True)
class Choice:
    """Rows of the signals to read, and the samples per frame that all of them get; `upsampled` leads have fewer.

    `leads` are the rows' names, and `meta` is that of the recording.
    """

    rows: tuple[int, ...]
    per_frame: int
    leads: tuple[str, ...]
    upsampled: tuple[str, ...]
    meta: Mapping[str, float]


class Signals(tuple[Signal, ...]):
    """How the signals of a record are stored; the records of a cohort mostly share one such object."""

    @cached_property
    def choice(self) -> Choice:
        """The voltages: those with the most samples per frame of any lead, and leads with fewer."""
        voltages = [row for row, signal in enumerate(self) if signal.scale is not None]
        if not voltages:
            raise ReadError("no signal of the WFDB record has the unit V, mV, uV or nV")
        leads = leads_in_context([signal.name for signal in self])
        ecg = {row for row in voltages if leads[row] in KNOWN_LEADS or says_ecg(self[row].name)}
        most = max(self[row].per_frame for row in ecg or voltages)
        rows = tuple(row for row in voltages if self[row].per_frame == most or row in ecg)
        steps = {1000 * (self[row].scale or 1.0) / abs(self[row].gain) for row in rows}
        upsampled = {leads[row] if leads[row] in KNOWN_LEADS else "ECG" for row in rows if self[row].per_frame != most}
        return Choice(
            rows,
            most,
            leads=numbered([leads[row] for row in rows]),
            upsampled=tuple(sorted(upsampled)),
            meta={"resolution_uv": steps.pop()} if len(steps) == 1 else {},
        )

    @cached_property
    def per_frame(self) -> int:
        """Samples of all signals in a frame."""
        return sum(signal.per_frame for signal in self)

    @cached_property
    def is_native(self) -> bool:
        """Whether all signals are in formats that are decoded here."""
        return all(signal.format in NATIVE_FORMATS for signal in self)

    @cached_property
    def is_usual(self) -> bool:
        """Whether all signals are in format 16 with one sample per frame and no skew, behind one offset."""
        return all(signal[:4] == ("16", 1, 0, self[0].offset) for signal in self)

    @cached_property
    def is_bounded(self) -> bool:
        """Whether no 16-bit count of any signal is too many millivolts."""
        steps, offsets = self.scaling
        return bool(np.all(np.abs(steps) * (1 << 15) + np.abs(offsets) <= MAX_MILLIVOLTS))

    @cached_property
    def scaling(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Millivolts per count and at a count of 0: float64 [n_signals] each."""
        steps = np.array([signal.step for signal in self])
        offsets = np.array([-signal.baseline * signal.step for signal in self])
        for each in (steps, offsets):
            each.setflags(write=False)  # records share them
        return steps, offsets


NO_SIGNALS = Signals()


class SignalLines(NamedTuple):
    """The signal lines of a header: the file of each signal, its checksum, and how it is stored."""

    files: tuple[str, ...]
    checksums: tuple[int | None, ...]
    signals: Signals


def parse_signals(lines: Sequence[str], *, layout: bool) -> SignalLines:
    """Parse signal lines; those of a layout header have no signal file.

    Raises
    ------
    ReadError
        If a line is damaged, or names a file outside the header's folder.
    """
    usual = None if layout else _usual_signals(lines)
    if usual is not None:
        return usual
    files, checksums, signals = zip(
        *(_parse_signal(line, row, layout=layout) for row, line in enumerate(lines)), strict=True
    )
    return SignalLines(files, checksums, Signals(signals))


def _usual_signals(lines: Sequence[str]) -> SignalLines | None:
    """Signal lines that all have nine fields: most of these are the same in all records of a cohort. None for other lines."""
    found = _USUAL_LINE.findall("\n".join(lines))
    if len(found) != len(lines):
        return None
    files, storages, checksums, names = zip(*found, strict=True)
    if any(file == "-" or file.startswith(NOTHING) or not is_below(file) for file in dict.fromkeys(files)):
        return None
    is_short = sum(map(len, storages)) + sum(map(len, names)) <= _MOST_REMEMBERED
    signals = (_stored_as if is_short else _stored_as.__wrapped__)(storages, names)
    return None if signals is None else SignalLines(files, tuple(map(int, checksums)), signals)


@lru_cache(256)
def _stored_as(storages: tuple[str, ...], names: tuple[str, ...]) -> Signals | None:
    """The signals of lines whose other fields are like any, None if the fields are not sound."""
    lines = [f"any {storage} 0 0 0 {name}" for storage, name in zip(storages, names, strict=True)]
    try:
        return Signals(_parse_signal(line, row, layout=False)[2] for row, line in enumerate(lines))
    except ReadError:
        return None


def _parse_signal(line: str, row: int, *, layout: bool) -> tuple[str, int | None, Signal]:
    """File, checksum and storage of a signal."""
    field = _LINE.fullmatch(line)
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
    signal = Signal(
        format=fmt,
        per_frame=per_frame,
        skew=int(skew or 0),
        offset=int(offset or 0),
        gain=gain,
        baseline=int((zero or 0) if baseline is None else baseline),
        scale=millivolts_per(unit) if unit else 1.0,
        name=name or f"signal {row}",
    )
    return file, None if checksum is None else int(checksum), signal


def _check_storage(file: str, fmt: str, row: int) -> None:
    """Refuse unknown formats, and files outside the header's folder, which could be an attempt to read other files."""
    if fmt not in NATIVE_FORMATS and fmt not in PACKAGE_FORMATS:
        raise UnsupportedFormatError(f"WFDB signal {row} has an unknown storage format")
    if file == "-" or file.startswith(NOTHING):
        raise UnsupportedFormatError(f"WFDB signal {row} has no signal file")
    if not is_below(file):
        raise ReadError(f"the signal file of WFDB signal {row} is outside the header's folder, which is refused")


@lru_cache(16)
def is_below(name: str) -> bool:
    """Whether a file is in the header's folder or a folder below it."""
    parts = name.split("/")
    return not any(part in ("", ".", "..") or "\\" in part or ":" in part or "\0" in part for part in parts)
