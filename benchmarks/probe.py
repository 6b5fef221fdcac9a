"""The evaluation of `ecgfounder.analysis.probe` on synthetic embeddings in memory: `python -m benchmarks.probe REQUEST`.

In: a request as JSON: recordings, features, labels, and the outer folds (1: a given split with a validation part). Out: a line of
JSON: seconds of processor time and wall time, peak memory. Reading embeddings, and files for controls, has no part in it.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np

from ecgfounder.analysis.statistics.evaluation import Data, evaluate_features
from ecgfounder.analysis.statistics.fitting import PENALTIES, Task
from ecgfounder.analysis.statistics.splits import Split, cross_validation, grouped_folds

PER_PATIENT = (1, 2, 3, 6)
DIRECTIONS = 64
"""Directions in which embeddings differ much; those of a network vary in few, too."""


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    n, width, n_labels = request["recordings"], request["features"], request["labels"]
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n), rng.choice(PER_PATIENT, n))[:n]
    known = rng.standard_normal((n, DIRECTIONS)).astype(np.float32)
    X = known @ rng.standard_normal((DIRECTIONS, width)).astype(np.float32)
    X += 0.3 * rng.standard_normal(X.shape, dtype=np.float32)
    risk = known @ rng.standard_normal((DIRECTIONS, n_labels)) / np.sqrt(DIRECTIONS)
    Y = (2 * risk + rng.logistic(size=risk.shape) > rng.uniform(1, 4, n_labels)).astype(np.float32)
    if request["folds"] > 1:
        splits = cross_validation(grouped_folds(groups, Y, request["folds"], rng))
    else:
        part = grouped_folds(groups, Y, 10, rng)
        splits = [Split(*(np.flatnonzero(rows) for rows in (part < 8, part == 9, part == 8)))]
    task = Task(tuple(f"label {number}" for number in range(n_labels)))
    data = Data(Y, groups, tuple(splits), task, n_draws=request["draws"])
    process, wall = time.process_time(), time.perf_counter()
    found = evaluate_features(X, data)
    facts = {
        "recordings": n,
        "patients": int(groups.max()) + 1,
        "labels": len(found.labels),
        "penalties": len(PENALTIES),
        "draws": request["draws"],
        "cpu_seconds": round(time.process_time() - process, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "embeddings_mib": round(X.nbytes / 2**20),
    }
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
