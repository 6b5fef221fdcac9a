"""`python -m benchmarks`: measures, prints tables, writes JSON. `--quick` runs everything with small sizes.

In: flags. Out: `build/benchmarks/results.json`, and the same figures as tables on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.measure import machine
from benchmarks.parts import PARTS, QUICK, Bench, Sizes
from benchmarks.report import tables


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether it works, not how fast it is")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=list(PARTS), help="parts (default: all)")
    parser.add_argument("--rounds", type=int, help="how often each comparison is repeated (default: 3)")
    parser.add_argument("--recordings", type=int, help="recordings end to end (default: 1000)")
    parser.add_argument("--gpu_recordings", type=int, help="recordings of each run on a GPU (default: 4000)")
    parser.add_argument("--growth", type=int, nargs="+", help="sizes of the growing runs (default: 100 1000 10000)")
    parser.add_argument("--analysis", type=int, nargs="+", help="recordings of searches (default: 20000 200000)")
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"), help="inputs and outputs")
    parser.add_argument("--json", type=Path, help="results (default: results.json in --folder)")
    chosen = parser.parse_args(arguments)
    results = measure(sizes_of(chosen), chosen.folder.absolute(), chosen.only)
    path = chosen.json or chosen.folder / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(tables(results))
    print(f"written: {path}", file=sys.stderr)
    return 0


def sizes_of(chosen: argparse.Namespace) -> Sizes:
    sizes = QUICK if chosen.quick else Sizes()
    given = {name: getattr(chosen, name) for name in ("rounds", "recordings", "gpu_recordings", "growth", "analysis")}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value}
    return replace(sizes, **given)


def measure(sizes: Sizes, folder: Path, parts: Sequence[str]) -> dict[str, Any]:
    """All results: the machine, the sizes, and each part's figures and duration."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, sizes)
    results: dict[str, Any] = {"machine": machine(), "sizes": vars(sizes), "parts": {}, "seconds": {}}
    for name in parts:
        began = time.perf_counter()
        print(f"{name} ...", file=sys.stderr, flush=True)
        results["parts"][name] = PARTS[name](bench)
        results["seconds"][name] = round(time.perf_counter() - began, 1)
    results["machine"]["load_after"] = os.getloadavg()[0]
    return results


if __name__ == "__main__":
    sys.exit(main())
