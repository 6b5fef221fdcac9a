"""WFDB records in the native formats of signal(5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import STANDARD_LEADS

Counts = npt.NDArray[np.int64]
RANGES = {"16": 1 << 15, "61": 1 << 15, "160": 1 << 15, "80": 1 << 7, "212": 1 << 11, "24": 1 << 23, "32": 1 << 31}


def encode(frames: Counts, fmt: str) -> bytes:
    """Samples in frame order as signal(5) stores them."""
    flat = [int(value) for value in frames.reshape(-1)]
    if fmt == "16":
        return np.array(flat).astype("<i2").tobytes()
    if fmt == "61":
        return np.array(flat).astype(">i2").tobytes()
    if fmt == "160":
        return (np.array(flat) + (1 << 15)).astype("<u2").tobytes()
    if fmt == "80":
        return (np.array(flat) + 128).astype("u1").tobytes()
    if fmt in ("24", "32"):
        return b"".join(value.to_bytes(int(fmt) // 8, "little", signed=True) for value in flat)
    packed = bytearray()
    for i in range(0, len(flat), 2):
        first = flat[i] & 0xFFF
        second = flat[i + 1] & 0xFFF if i + 1 < len(flat) else 0
        packed += bytes((first & 0xFF, first >> 8 | second >> 8 << 4, second & 0xFF))
    return bytes(packed) if len(flat) % 2 == 0 else bytes(packed[:-1])


def checksum(values: Counts) -> int:
    return int((int(values.sum()) + (1 << 15)) % (1 << 16) - (1 << 15))


def write_record(
    folder: Path,
    frames: Counts,
    fmt: str = "16",
    names: tuple[str, ...] | None = None,
    extra: str = "",
    rate: str = "500",
) -> Path:
    """A record of [n_samples, n_signals] with gain 1000/mV, in one signal file; returns its header."""
    n, signals = frames.shape
    names = names or STANDARD_LEADS[:signals]
    (folder / "r.dat").write_bytes(encode(frames, fmt))
    lines = [f"r {signals} {rate} {n}"]
    for i, name in enumerate(names):
        lines.append(f"r.dat {fmt}{extra} 1000(0)/mV 16 0 {frames[0, i]} {checksum(frames[:, i])} 0 {name}")
    header = folder / "r.hea"
    header.write_text("\n".join(lines) + "\n# age: 77\n")
    return header


def random_frames(n: int = 20, signals: int = 2, limit: int = 1 << 11, seed: int = 1) -> Counts:
    return np.random.default_rng(seed).integers(-limit + 1, limit, (n, signals))


Part = tuple[tuple[str, ...], Counts, int]
"""Names of the signals, frames [n, samples per frame of all], and gain."""


def write_segments(
    folder: Path,
    segments: Sequence[Part | None],
    *,
    layout: tuple[str, ...] | None = None,
    gap: int = 10,
    per_frame: Mapping[str, int] | None = None,
    rate: str = "500",
) -> Path:
    """A record `m` of segments m_1, m_2 ... in format 16, with a layout header if `layout` is given; None is a gap."""
    of = per_frame or {}
    lines = [] if layout is None else ["m_layout 0"]
    total = 0
    for number, part in enumerate(segments, 1):
        if part is None:
            lines.append(f"~ {gap}")
            total += gap
            continue
        names, frames, gain = part
        name, n = f"m_{number}", len(frames)
        (folder / f"{name}.dat").write_bytes(encode(frames, "16"))
        described, first = [f"{name} {len(names)} {rate} {n}"], 0
        for each in names:
            columns = frames[:, first : first + of.get(each, 1)]
            first += of.get(each, 1)
            times = f"x{of[each]}" if each in of else ""
            unit = "mmHg" if each == "ABP" else "mV"
            described.append(f"{name}.dat 16{times} {gain}(0)/{unit} 16 0 {columns[0, 0]} {checksum(columns)} 0 {each}")
        (folder / f"{name}.hea").write_text("\n".join(described) + "\n# age: 77\n")
        lines.append(f"{name} {n}")
        total += n
    n_signals = len(layout) if layout is not None else len(next(part for part in segments if part is not None)[0])
    if layout is not None:
        listed = [
            f"~ 0{f'x{of[name]}' if name in of else ''} 1000(0)/{'mmHg' if name == 'ABP' else 'mV'} 16 0 0 0 0 {name}"
            for name in layout
        ]
        (folder / "m_layout.hea").write_text("\n".join([f"m_layout {n_signals} {rate} 0", *listed]) + "\n")
    header = folder / "m.hea"
    header.write_text("\n".join([f"m/{len(lines)} {n_signals} {rate} {total}", *lines]) + "\n")
    return header
