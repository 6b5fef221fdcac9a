"""WFDB records in the native formats of signal(5)."""

from __future__ import annotations

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
