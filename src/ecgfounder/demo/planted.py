"""Synthetic ECGs with an event at a known time: one premature, wide beat in sinus rhythm.

In: a number of recordings and a seed. Out: recordings, every other one with the event; or a cohort of Philips files with a table
of labels, on which `examples/finetune.py` trains a network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ecgfounder.demo.synthetic_ecg import COUNTS_PER_MV, RESOLUTION_UV, Rhythm, synthetic_ecg
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording

EVENT = "premature_beat"
"""The column of the table of labels."""

SECONDS = 10.0
_BEFORE, _AFTER = 0.1, 0.5  # of the event's R peak, s: QRS complex and T wave
_EARLIEST, _LATEST = 1.5, 8.5
_SLOWEST, _FASTEST = 50.0, 95.0
_MOST_TRIALS = 100


@dataclass(frozen=True, eq=False)
class Planted:
    """A synthetic recording.

    Attributes
    ----------
    recording : Recording
        12 leads, 10 s, 500 Hz.
    event : tuple of (float, float) or None
        Start and end of the event in s; None if there is none.
    """

    recording: Recording
    event: tuple[float, float] | None


def planted_ecgs(n: int, seed: int = 0) -> Iterator[Planted]:
    """Recordings of different rates and noise; every other one has the event, between 1.5 and 8.5 s."""
    for number in range(n):
        yield _planted(np.random.default_rng([seed, number]), with_event=number % 2 == 1)


def _planted(rng: np.random.Generator, *, with_event: bool) -> Planted:
    for _ in range(_MOST_TRIALS):
        rate = rng.uniform(_SLOWEST, _FASTEST)
        beat = int(rng.integers(2, int(SECONDS * rate / 60))) if with_event else None
        rhythm = Rhythm(rate, jitter=0.03, premature=frozenset() if beat is None else frozenset([beat]))
        counts, early = synthetic_ecg(rhythm, rng, SECONDS)
        if not with_event or (early and _EARLIEST <= early[0] <= _LATEST):
            samples = (counts / COUNTS_PER_MV).astype(np.float32)
            event = (early[0] - _BEFORE, early[0] + _AFTER) if early else None
            return Planted(Recording(samples, 500.0, STANDARD_LEADS, "synthetic"), event)
    raise AssertionError("no beat between the bounds")


def write_planted_cohort(folder: Path, n: int, seed: int = 0) -> Path:
    """Write a cohort of `n` recordings below `folder`/ecg; returns its table `labels.csv`, with a patient for each.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """
    from ecgfounder.demo.philips_encoder import encode_sierra

    (folder / "ecg").mkdir(parents=True, exist_ok=True)
    lines = [f"ecg_paths,patient,{EVENT}"]
    for number, planted in enumerate(planted_ecgs(n, seed)):
        name = f"{number:06d}.xml"
        counts = np.rint(planted.recording.samples.astype(np.float64) * COUNTS_PER_MV).astype(np.int64)
        (folder / "ecg" / name).write_bytes(encode_sierra(counts, resolution_uv=RESOLUTION_UV))
        lines.append(f"{name},{number},{int(planted.event is not None)}")
    table = folder / "labels.csv"
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return table
