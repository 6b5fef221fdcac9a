"""Measurements: repeated timings with their spread, child processes with their CPU time, and the machine.

In: callables or commands. Out: seconds, and JSON-serialisable facts. CPU time is the user and system time of a process and of the
processes that it waited for, so that it hardly depends on the machine's other load.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

Facts = dict[str, Any]

_PACKAGES = ("ecgfounder", "numpy", "scipy", "lxml", "torch", "onnxruntime", "onnx", "orjson", "pyarrow", "sierraecg")


def spread(values: Iterable[float]) -> Facts:
    """Median, minimum, maximum and number of some measurements."""
    found = [float(value) for value in values]
    return {"median": statistics.median(found), "min": min(found), "max": max(found), "n": len(found)}


def ratio(above: Sequence[float], below: Sequence[float]) -> Facts:
    """The spread of ratios of measurements, computed round by round."""
    return spread(a / b for a, b in zip(above, below, strict=True))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of a call, over all threads of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def wall_seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Child:
    """The result of a child process: its report, and wall and CPU seconds of it and its children."""

    report: Facts
    wall: float
    cpu: float


def run_child(
    module: str, request: Facts, *, cores: Iterable[int] | None = None, environment: Mapping[str, str] | None = None
) -> Child:
    """Run `python -m MODULE REQUEST`, whose last line of output is its report as JSON."""
    return run_children(module, [request], cores=[cores], environment=environment)[0]


def run_children(
    module: str,
    requests: Sequence[Facts],
    *,
    cores: Sequence[Iterable[int] | None],
    environment: Mapping[str, str] | None = None,
) -> list[Child]:
    """Run several child processes at once, each on its own cores if these are given."""
    running = []
    for request, own in zip(requests, cores, strict=True):
        output = tempfile.TemporaryFile()  # noqa: SIM115 - `_finished` closes it
        allowed = None if own is None else set(own)
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(request)],
            stdout=output,
            env={**os.environ, **(environment or {})},
            cwd=Path(__file__).resolve().parents[1],
            preexec_fn=None if allowed is None else _pin(allowed),
        )
        running.append((process, output, time.perf_counter()))
    return [_finished(*each) for each in running]


def _pin(cores: set[int]) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, cores)


def _finished(process: subprocess.Popen[bytes], output: Any, began: float) -> Child:
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    with output:
        output.seek(0)
        text = output.read().decode()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with exit status {process.returncode}\n{text}")
    return Child(json.loads(text.splitlines()[-1]), wall, usage.ru_utime + usage.ru_stime)


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def machine() -> Facts:
    """Processor, cores, memory, system and versions."""
    import torch

    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": len(usable_cores()),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_before": os.getloadavg()[0],
        "versions": versions,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in facts.get("flags", "").split()]
    return f"{facts.get('model name', platform.machine())} ({', '.join(wide)})"
