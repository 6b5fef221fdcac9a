"""Ten-second parts of real recordings, which are not in the repository, and synthetic ones."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ecgfounder.demo.synthetic_ecg import COUNTS_PER_MV, Rhythm, synthetic_ecg
from tests.places import RECORDINGS

Samples = npt.NDArray[np.float32]

SECONDS = 10.0


def recordings() -> Iterator[tuple[str, Samples, float]]:
    """Ten-second parts of the real recordings [12, n] in mV, and their sampling rates."""
    rates = json.loads((RECORDINGS / "expected_rates.json").read_text())
    with np.load(RECORDINGS / "expected.npz") as stored:
        for name in stored:
            size = round(SECONDS * rates[name])
            for start in range(0, stored[name].shape[1] - size + 1, size):
                yield f"{name}@{start}", stored[name][:, start : start + size].astype(np.float32), float(rates[name])


def synthetic(count: int) -> Iterator[tuple[Samples, float]]:
    """Synthetic recordings [12, 5000] in mV of several rhythms, and their sampling rate."""
    for number in range(count):
        rng = np.random.default_rng(number)
        rhythm = Rhythm(
            float(rng.uniform(45, 130)), None if number % 4 == 0 else 0.16, premature=frozenset({number % 7})
        )
        counts, _early = synthetic_ecg(rhythm, rng)
        yield (counts / COUNTS_PER_MV).astype(np.float32), 500.0
