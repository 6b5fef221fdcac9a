"""`ecgfounder.analysis.report` on synthetic runs: `python -m benchmarks.reporting REQUEST`.

In: a request as JSON: the folder of a run of `benchmarks.alike`. Out: a line of JSON: seconds of processor time and wall time,
peak memory, the size of the page. The run is opened before the clock starts.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.alike import write_run
from benchmarks.measure import Facts, run_child


def reported(folder: Path, environment: dict[str, str], sizes: tuple[int, ...]) -> Facts:
    """Reports on runs of several sizes, each in a process of its own."""
    rows = [
        run_child("benchmarks.reporting", {"run": str(write_run(folder, n))}, environment=environment).report
        for n in sizes
    ]
    return {"rows": rows}


def main() -> int:
    request: dict[str, Any] = json.loads(sys.argv[1])
    from ecgfounder import open_run
    from ecgfounder.analysis import report, report_html

    run = open_run(request["run"])
    process, wall = time.process_time(), time.perf_counter()
    page = report_html(report(run, group="patient", by=("site", "year"), map="pca"))
    facts = {
        "recordings": run.records.num_rows,
        "cpu_seconds": round(time.process_time() - process, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "page_mb": round(len(page) / 1e6, 2),
    }
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
