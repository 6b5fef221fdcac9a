"""Runs on Ray in processes of their own, with short times, which can be killed; and clusters on this machine for them.

In: what `embed_cohort` takes. Out: an exit status, the lines that were said, the processes that belong to the run.

    python -m tests.harness.ray_runs '{"dataset": ..., "output_dir": ...}'
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tests.places import ROOT

COMPLETE, STOPPED, REFUSED = 0, 3, 2
OBJECT_STORE_BYTES = 80 << 20

HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


@dataclass
class Machines:
    """A cluster: its address, and a way to add and lose machines."""

    address: str
    cluster: Any

    def add(self, cpus: int = 1) -> Any:
        return self.cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES)

    def lose(self, node: Any) -> None:
        self.cluster.remove_node(node, allow_graceful=False)


@contextmanager
def cluster(head_cpus: int = 1, *others: int, dashboard: int | None = None) -> Iterator[Machines]:
    """A cluster of several machines, as far as Ray can tell; it ends with the block, with all that it started.

    With `dashboard`, its dashboard listens on that port.
    """
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory() as home:
        before = dict(os.environ)
        os.environ |= {"HOME": home, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": python_path()}
        os.environ.pop("RAY_ADDRESS", None)
        made = None
        try:
            head = {
                "num_cpus": head_cpus,
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": dashboard is not None,
                "_system_config": HEALTH,
            }
            if dashboard is not None:
                head |= {"dashboard_host": "127.0.0.1", "dashboard_port": dashboard}
                head["dashboard_agent_listen_port"] = dashboard + 1  # another cluster here may have the usual one
            made = Cluster(initialize_head=True, head_node_args=head)
            machines = Machines(made.address, made)
            for cpus in others:
                machines.add(cpus)
            yield machines
        finally:
            if made is not None:
                made.shutdown()
            os.environ.clear()
            os.environ |= before


def python_path() -> str:
    """The path for modules of processes that are started: that of this one."""
    return os.pathsep.join([str(ROOT), *(path for path in sys.path if path)])


class Driver:
    """A run in a process of its own."""

    def __init__(self, given: dict[str, Any], folder: Path, **environment: str) -> None:
        self._said = folder / f"said-{time.monotonic_ns()}"
        environment = os.environ | {"PYTHONPATH": python_path(), "RAY_DEDUP_LOGS": "0"} | environment
        with open(self._said, "wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.ray_runs", json.dumps(given)],
                stdout=said,
                stderr=said,
                env=environment,
                cwd=ROOT,
            )

    @property
    def said(self) -> str:
        return self._said.read_text(errors="replace")

    def end(self, timeout: float = 120.0) -> int:
        """Wait for its end; its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end in {timeout} s:\n{self.said[-4000:]}") from None

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)


def until(what: Callable[[], Any], timeout: float = 150.0) -> Any:
    """Wait until something is true; what it was."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {timeout} s")


def parts(out: Path) -> list[Path]:
    """The parts of groups that are published."""
    return sorted((out / "_run" / "ledger").glob("*-group*.jsonl"))


def workers(address: str) -> list[int]:
    """The process ids of a cluster's actors."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if folder.joinpath("cmdline").read_bytes().startswith(b"ray::Host"):
                    parent = folder.joinpath("stat").read_text().rpartition(")")[2].split()[1]
                    if address in Path(f"/proc/{parent}/cmdline").read_text():
                        found.append(int(folder.name))
            except OSError:  # it has ended
                continue
    return found


def main(text: str) -> int:
    """Run what was given, with short times; 0 complete, 2 refused, 3 stopped by trouble, 128 + n by signal n."""
    import logging

    from ecgfounder import embed_cohort, embedding
    from ecgfounder.drivers import ray as driver
    from ecgfounder.drivers.interruption import listening
    from ecgfounder.errors import ECGFounderError, StorageError
    from ecgfounder.ledger.groups.lease import Intervals
    from ecgfounder.preprocess.recipes import Recipe
    from ecgfounder.run import grouped, on_ray
    from tests.harness.device_memory import open_with_little_memory
    from tests.harness.filters import Deadly, Slow

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = json.loads(text)
    grouped.GroupedRun.intervals = Intervals(renew=0.3, stale=5.0, give_up=6.0, look=0.1)
    driver.TELL_SECONDS = given.pop("tell", 60.0)
    driver.PATIENCE_SECONDS = given.pop("patience", 1800.0)
    driver.HEAD_SECONDS = given.pop("head", 40.0)
    if "memory" in given:
        on_ray.RayRun.opener = staticmethod(partial(open_with_little_memory, *given.pop("memory")))
    embedding.MINUTE = 1.0
    driver.LOOK_SECONDS = 0.5
    on_ray.PAUSE_SECONDS = 0.5
    steps = {
        "slow": Slow,
        "deadly": lambda _: Deadly(),
        "deadly_while": Deadly,
        "deadly_once": lambda flag: Deadly(once=flag),
    }
    filters = tuple(steps[name](value) for name, value in given.pop("filters", {"slow": 0.0}).items())
    given |= {"recipe": Recipe("steps", "1", filters=filters), "sampling_rate": 500.0, "unit": "mV"}
    for name in ("actors", "shard"):
        if name in given:
            given[name] = tuple(given[name])

    def end(number: int) -> None:
        raise KeyboardInterrupt

    try:
        with listening(end):
            done = embed_cohort(**given)
    except (ECGFounderError, KeyboardInterrupt) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return STOPPED if isinstance(error, StorageError | KeyboardInterrupt) else REFUSED
    tally = done.summary.tally  # None for a shard
    counts = {} if tally is None else tally.as_dict()
    print(orjson.dumps({"processed": done.summary.processed, **counts}).decode(), flush=True)
    return COMPLETE


if __name__ == "__main__":
    ended = main(sys.argv[1])
    from ecgfounder.drivers.ray import leave

    leave(ended)
    sys.exit(ended)
