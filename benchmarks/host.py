"""Everything but the network, against another commit: `python -m benchmarks.host --commit 539fce8`.

In: a commit, which is cloned and installed in a folder of its own, and rounds. Out: core-ms per recording of both in each round,
and the ratios, as a table: the slope between runs of two sizes with a network that computes nothing. Rounds alternate between
both; other programs of the machine disturb them less than a difference of wall times. A case's outputs are deleted after its last
run: file systems (ext4) search for a new file's place past all those that were deleted in the last minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import inputs

HERE = Path(__file__).resolve().parents[1]
OUTPUTS = "host_outputs"

CASES: dict[str, dict[str, Any]] = {
    "WFDB (10 s, format 16), pooled Parquet": {"files": "wfdb", "format": "parquet", "pooling": "mean"},
    "Philips (11 s), pooled Parquet": {"files": "philips", "format": "parquet", "pooling": "mean"},
    "Philips, recipe filtered, --window 10, pooled Parquet": {
        "files": "philips",
        "format": "parquet",
        "pooling": "mean",
        "recipe": "filtered",
        "window": 10,
    },
    "Philips, JSON feature maps": {"files": "philips", "format": "json", "pooling": "none"},
}

# Runs `benchmarks.child` of the tree that is on the path. Earlier commits have the recipes elsewhere.
_RUN = """
import json, sys
request = json.loads(sys.argv[1])
recipe, window = request.pop("recipe", None), request.pop("window", None)
if __name__ == "__main__":
    from benchmarks import child
    if recipe is not None:
        try:
            from ecgfounder.preprocess.preparation import Preparation
            from ecgfounder.preprocess.recipes import RECIPES
        except ImportError:
            from ecgfounder.preprocess import Preparation
            from ecgfounder.recipes import RECIPES
        request["preparation"] = Preparation(recipe=RECIPES[recipe], window=window)
    print(json.dumps(child.main(request)))
"""


@dataclass(frozen=True)
class Cost:
    """One pair of runs: core-ms per recording of all processes, and of the main process, whose slope is not taken."""

    total: float
    main: float | None


def cloned(commit: str, folder: Path) -> Path:
    """A clone of this repository at a commit, with what is installed of it in `installed/`; made once and reused.

    Compiled modules decide about the figures: without a C compiler, both are measured in Python.
    """
    tree = folder / f"commit_{commit}"
    if not (tree / ".built").exists():
        shutil.rmtree(tree, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", str(HERE), str(tree)], check=True)
        subprocess.run(["git", "-C", str(tree), "checkout", "--quiet", commit], check=True)
        install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps")
        subprocess.run([*install, "--target", str(tree / "installed"), str(tree)], check=True)
        (tree / ".built").touch()
    return tree


def run(
    tree: Path, case: dict[str, Any], n: int, folder: Path, output: Path, workers: int
) -> tuple[float, float | None]:
    """One run of `n` recordings: core-seconds of all its processes, and of the main process if the tree tells."""
    write = inputs.write_wfdb_cohort if case["files"] == "wfdb" else inputs.write_cohort
    cohort = write(folder, n)
    request = {
        **{name: value for name, value in case.items() if name != "files"},
        "dataset": str(cohort),
        "data_dir": str(cohort),
        "output_dir": str(output),
        "device": "cpu",
        "checkpoint": str(inputs.write_checkpoint(folder)),
        "num_workers": workers,
        "batch_size": 8,
        "stand_ins": ["engine"],
    }
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (tree / "installed", tree / "src", tree))),
        "ECGFOUNDER_CACHE": str(folder / "cache"),
    }
    program = subprocess.Popen(
        [sys.executable, "-c", _RUN, json.dumps(request)], stdout=subprocess.PIPE, env=environment, cwd=tree
    )
    assert program.stdout is not None
    told = program.stdout.read()
    _, status, used = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        raise SystemExit(f"a run of {tree} failed")
    result = json.loads(told.splitlines()[-1])
    if result["failed"] or result["records"] != n:
        raise SystemExit(f"a run of {tree} embedded {result['records']} of {n}, and {result['failed']} failed")
    return used.ru_utime + used.ru_stime, result.get("main_cpu")


def cost(tree: Path, case: dict[str, Any], sizes: tuple[int, int], folder: Path, workers: int) -> Cost:
    """The slope between runs of two sizes, whose outputs stay."""
    few, many = (
        run(tree, case, n, folder, Path(tempfile.mkdtemp(dir=folder / OUTPUTS)) / "output", workers) for n in sizes
    )
    main = None if many[1] is None else 1e3 * many[1] / sizes[1]
    return Cost(1e3 * (many[0] - few[0]) / (sizes[1] - sizes[0]), main)


def row(name: str, then: list[Cost], now: list[Cost]) -> str:
    """A table row: medians, and the ratio's median, smallest and largest."""
    ratios = sorted(new.total / old.total for old, new in zip(then, now, strict=True))
    totals = (statistics.median(each.total for each in costs) for costs in (then, now))
    mains = [each.main for each in now if each.main is not None]
    cells = [name, *(f"{total:.2f}" for total in totals)]
    cells += [f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"]
    return f"| {' | '.join([*cells, f'{statistics.median(mains):.2f}' if mains else ''])} |"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.host", description=__doc__)
    parser.add_argument("--commit", default="539fce8", help="the commit to compare with (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of each case (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs=2, default=(600, 3000), help="recordings of the two runs of a slope")
    parser.add_argument("--workers", type=int, default=2, help="reading processes (default: %(default)s)")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="(default: all)")
    parser.add_argument("--folder", type=Path, default=Path("build/benchmarks"), help="inputs and outputs")
    chosen = parser.parse_args(arguments)
    folder, sizes = chosen.folder.absolute(), (chosen.sizes[0], chosen.sizes[1])
    folder.mkdir(parents=True, exist_ok=True)
    then = cloned(chosen.commit, folder)
    print(
        f"| core-ms per recording | at {chosen.commit} | here | ratio | of it the main process |\n|---|---|---|---|---|"
    )
    for name in chosen.cases:
        (folder / OUTPUTS).mkdir(exist_ok=True)
        pairs = [
            tuple(cost(tree, CASES[name], sizes, folder, chosen.workers) for tree in (then, HERE))
            for _ in range(chosen.rounds)
        ]
        print(row(name, [pair[0] for pair in pairs], [pair[1] for pair in pairs]), flush=True)
        shutil.rmtree(folder / OUTPUTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
