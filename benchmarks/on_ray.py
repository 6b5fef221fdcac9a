"""What Ray adds to a run on one machine: paired runs with the local driver and on an own cluster.

In: two numbers of recordings, a network. Out: recordings per second and core-ms per recording of each driver, from the difference
of both runs, so that start-up does not count; core time is that of the driver, the workers and their readers.

    python -m benchmarks.on_ray --records 4000 12000 --rounds 3            # nothing is read, and the network costs nothing
    python -m benchmarks.on_ray --records 100 500 --network CHECKPOINT     # a real network on synthetic recordings
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import psutil

from benchmarks.stand_ins import NullEngine, SyntheticTask
from ecgfounder.distributed import Work, Worker
from ecgfounder.distributed import worker as workers
from ecgfounder.distributed.worker import open_worker
from ecgfounder.run import grouped
from ecgfounder.run import run as local
from ecgfounder.run.on_ray import RayRun
from ecgfounder.run.run import Run
from ecgfounder.run.settings import Settings

GROUP_SIZE = 1000


def open_null(work: Work, pieces: Iterable[bytes] | None, share: float) -> Worker:
    """A worker whose network costs nothing."""
    with mock.patch.object(workers, "create_engine", side_effect=lambda *_, threads, **__: NullEngine(threads)):
        return open_worker(work, pieces, share)


class Quiet:
    """A console that says nothing."""

    def line(self, text: str) -> None:
        print(text, file=sys.stderr)

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None: ...


def core_seconds() -> float:
    """Of the driver and its workers with their reading processes; without Ray's own processes, which take about 0.05 cores."""
    here = psutil.Process()
    family = [here]
    for process in here.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.name().startswith("ray::Host"):
                family += [process, *process.children()]
            elif process.ppid() == here.pid and any("multiprocessing" in word for word in process.cmdline()):
                family.append(process)
    total = 0.0
    for process in family:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def measure(driver: str, records: int, network: str | None) -> dict[str, float]:
    """One run in this process: seconds and core-seconds from the first record to the last."""
    found: dict[str, float] = {}
    kind: type[Run] = RayRun if driver == "ray" else Run

    class Measured(kind):  # type: ignore[misc, valid-type]
        def _process(self, started: Any) -> Any:
            began, used = time.perf_counter(), core_seconds()
            recorder = super()._process(started)
            found.update(seconds=time.perf_counter() - began, core_seconds=core_seconds() - used)
            return recorder

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cohort, weights = Path(folder) / "cohort.txt", Path(folder) / "weights.pth"
        cohort.write_text("\n".join(f"p{number // 1000:04d}/s{number:08d}.xml" for number in range(records)))
        weights.write_bytes(b"weights")
        for module in (local, grouped):
            stack.enter_context(mock.patch.object(module, "ReadTask", SyntheticTask))
        if network is None:
            engine = mock.patch.object(
                local, "create_engine", side_effect=lambda *_, threads, **__: NullEngine(threads)
            )
            stack.enter_context(engine)
            stack.enter_context(mock.patch.object(RayRun, "opener", staticmethod(open_null)))
        settings = Settings(
            dataset=str(cohort),
            data_dir=folder,
            output_dir=Path(folder) / "out",
            checkpoint=network or str(weights),
            format="parquet",
            pooling="mean",
            num_workers=1,
            driver=driver,
            shard_size=GROUP_SIZE if network is None else 100,
        )
        summary = Measured(settings, Quiet()).execute()
        assert (summary.processed, summary.failed_now) == (records, 0)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_ray", description=__doc__)
    parser.add_argument("--records", type=int, nargs=2, default=[4000, 12000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", help="a checkpoint; without it, a network that costs nothing")
    parser.add_argument("--one", help="measure one driver in this process")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure(chosen.one, chosen.records[0], chosen.network)))
        return 0
    for _ in range(chosen.rounds):
        for driver in ("local", "ray"):
            few, many = (_alone(driver, records, chosen.network) for records in chosen.records)
            records = chosen.records[1] - chosen.records[0]
            rate = records / (many["seconds"] - few["seconds"])
            cores = 1000 * (many["core_seconds"] - few["core_seconds"]) / records
            print(f"{driver:<6} {rate:8.1f} ECG/s {cores:8.3f} core-ms per recording", flush=True)
    return 0


def _alone(driver: str, records: int, network: str | None) -> dict[str, float]:
    program = "import sys; from benchmarks.on_ray import main; sys.exit(main())"  # workers cannot import a main module
    command = [sys.executable, "-c", program, f"--one={driver}", "--records", str(records), "0"]
    done = subprocess.run(
        [*command, *([] if network is None else [f"--network={network}"])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


if __name__ == "__main__":
    sys.exit(main())
