"""`ecgfounder.analysis.drift` on synthetic embeddings in memory: `python -m benchmarks.drift REQUEST`.

In: a request as JSON: recordings, features, and settings. Out: a line of JSON: what was used, seconds of processor time and wall
time, peak memory. Reading the embeddings of a run has no part in it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any, cast

import numpy as np
import pyarrow as pa

from ecgfounder.analysis import drift
from ecgfounder.results import EmbeddingRun

PER_PATIENT = (1, 2, 3, 6)
SITES = 8
DIRECTIONS = 64
"""Directions in which embeddings differ much; those of a network vary in few, too."""


class Synthetic:
    """Stands in for an opened run: recordings of patients at sites, with a device and a year, and their embeddings."""

    def __init__(self, n_recordings: int, n_features: int) -> None:
        rng = np.random.default_rng(0)
        patient = np.repeat(np.arange(n_recordings), rng.choice(PER_PATIENT, n_recordings))[:n_recordings]
        site = rng.integers(SITES, size=n_recordings)[patient]
        af = (rng.random(n_recordings) < 0.05 + 0.03 * np.arange(SITES)[site]) & (rng.random(n_recordings) < 0.9)
        mixing = rng.standard_normal((DIRECTIONS, n_features)).astype(np.float32)
        known = rng.standard_normal((n_recordings, DIRECTIONS)).astype(np.float32)
        known[:, 0] += af
        known[:, 1] += 0.3 * site
        self.X = known @ mixing
        self.X += 0.3 * rng.standard_normal(self.X.shape, dtype=np.float32)
        names = [f"{number}.xml" for number in range(n_recordings)]
        self.records = pa.table(
            {
                "record": names,
                "output": names,
                "patient": patient,
                "site": np.array([f"site {number}" for number in range(SITES)])[site],
                "device": rng.choice(["old", "new"], n_recordings),
                "year": 2000 + 20 * rng.random(n_recordings),
                "af": af.astype(np.int64),
            }
        )
        self.failures = self.records.slice(0, 0)

    def arrays_of(self, table: pa.Table, pooling: str) -> tuple[np.ndarray, pa.Table]:
        """The embeddings of some recordings."""
        rows = np.array([int(name[:-4]) for name in table["record"].to_pylist()])
        return self.X[rows], table


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    run = Synthetic(request.pop("recordings"), request.pop("features"))
    process, wall = time.process_time(), time.perf_counter()
    result = drift(cast(EmbeddingRun, run), group="patient", **request)
    facts = {
        "recordings": result.n_records,
        "patients": result.n_patients,
        "used_recordings": len(result.groups),
        "used_patients": len(np.unique(result.groups)),
        "cpu_seconds": round(time.process_time() - process, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "embeddings_mib": round(run.X.nbytes / 2**20),
    }
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
