"""One run of the program in a separate process: `python -m benchmarks.child REQUEST`.

In: a request as JSON: settings, and the stand-ins to use. Out: a line of JSON: seconds without start-up, seconds to the first job
and the first embedding, records done, and peak memory of the processes.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from ecgfounder.stages.read import Job

_BEGAN = time.perf_counter()

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # as in the command


class _Quiet:
    """A console that records when the first records were done."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.memory: list[tuple[int, float, float]] = []

    def line(self, text: str) -> None:
        print(text, file=sys.stderr)

    def progress(self, done: int, failed: int, total: int) -> None:
        if self.first is None and done + failed:
            self.first = time.perf_counter() - _BEGAN
        if not self.memory or done >= self.memory[-1][0] + total / 20:
            self.memory.append((done, _mib(os.getpid(), "VmRSS"), _gpu_mib()))


def _peak_mib(pid: int | None) -> float:
    """Peak memory of a process; its rusage would include the peak of a larger parent process."""
    return _mib(pid, "VmHWM")


def _mib(pid: int | None, name: str) -> float:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return int(text.partition(f"{name}:")[2].split()[0]) / 1024


def _gpu_mib() -> float:
    """GPU memory that PyTorch holds for this process."""
    if "torch" not in sys.modules:
        return 0.0
    import torch

    return torch.cuda.memory_reserved() / 2**20 if torch.cuda.is_available() else 0.0


def main(request: dict[str, Any]) -> dict[str, Any]:
    from ecgfounder.run import run as extract
    from ecgfounder.run.settings import Settings
    from ecgfounder.storage import storage_options

    stand_ins = request.pop("stand_ins", [])
    request["storage_options"] = storage_options(request.get("storage_options", {}))
    settings = Settings(
        **{**request, "output_dir": Path(request["output_dir"]), "shard": tuple(request.get("shard", (1, 1)))}
    )
    took: dict[str, float] = {}

    class TimedRun(extract.Run):
        """Measures the duration of the stages, without start-up and the final tables."""

        def _process(self, *arguments: Any, **options: Any) -> extract.Recorder:
            began, cpu = time.perf_counter(), time.process_time()
            recorder = super()._process(*arguments, **options)
            took["process"], took["cpu"] = time.perf_counter() - began, time.process_time() - cpu
            took["readers"] = max((_peak_mib(child.pid) for child in multiprocessing.active_children()), default=0.0)
            return recorder

        def _jobs(self, *arguments: Any) -> Iterator[Job]:
            for job in super()._jobs(*arguments):
                if "first_job" not in took:
                    took["first_job"] = time.perf_counter() - _BEGAN
                    took["memory_at_first_job"] = _peak_mib(os.getpid())
                yield job

        def _engine(self, launch: Any, *arguments: Any, **options: Any) -> Any:
            if "engine" not in stand_ins:
                return super()._engine(launch, *arguments, **options)
            from benchmarks.stand_ins import NullEngine

            return NullEngine(launch.threads)

    console = _Quiet()
    run = TimedRun(settings, console)
    if "reader" in stand_ins:
        from benchmarks.stand_ins import SyntheticTask

        with mock.patch.object(extract, "ReadTask", SyntheticTask):
            summary = run.execute()
    else:
        summary = run.execute()
    return {
        "outcome": summary.outcome,
        "records": summary.processed,
        "failed": summary.failed_now,
        "seconds": took["process"],
        "main_cpu": took["cpu"],
        "first": console.first,
        "first_job": took.get("first_job"),
        "memory_at_first_job_mib": took.get("memory_at_first_job"),
        "engine": summary.engine,
        "slowest": summary.slowest,
        "memory_over_time": console.memory,
        "memory_mib": _peak_mib(os.getpid()),
        "reader_memory_mib": took["readers"],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
