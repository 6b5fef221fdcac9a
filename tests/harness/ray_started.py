"""A cluster of `ray start` processes on this machine: each node has an address of its own on the loopback interface.

In: the cores of each node. Out: the cluster's address; nodes that can be added, lost, suspended, drained.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness.ray_runs import HEALTH, OBJECT_STORE_BYTES, python_path, until

START_SECONDS = 90.0


@dataclass(eq=False)
class Node:
    """One `ray start` with all that it has started."""

    process: subprocess.Popen[bytes]
    ip: str

    @property
    def pids(self) -> list[int]:
        """It and its descendants."""
        import psutil

        with suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid)
            return [found.pid, *(child.pid for child in found.children(recursive=True))]
        return []

    @property
    def is_alive(self) -> bool:
        """Whether it belongs to its cluster; `ray start --block` itself outlives a node that has ended in order."""
        return any(b"raylet/raylet" in _command(pid) for pid in self.pids)

    def signal(self, number: int, *, workers: bool = True) -> None:
        """Send a signal to all its processes; without `workers`, to those of Ray alone."""
        import psutil

        for pid in self.pids:
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                if workers or not _is_worker(pid):
                    os.kill(pid, number)

    def end(self) -> None:
        """Kill it."""
        self.signal(signal.SIGKILL)
        self.process.wait()


def _command(pid: int) -> bytes:
    """A process's command line; empty for one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _is_worker(pid: int) -> bool:
    return _command(pid).startswith(b"ray::Host")


@dataclass
class Started:
    """The cluster; `add` and `lose` as those of `tests.harness.ray_runs.Machines`."""

    address: str
    folder: Path
    nodes: list[Node] = field(default_factory=list)
    _number: int = 1

    @property
    def head(self) -> Node:
        return self.nodes[0]

    def add(self, cpus: int = 1) -> Node:
        """Start a node; returns when it belongs to the cluster."""
        self._number += 1
        ip = f"127.0.0.{self._number}"
        where = ["--address", self.address]
        if not self.nodes:
            where = ["--head", "--port", self.address.partition(":")[2], "--include-dashboard", "false"]
            where += ["--system-config", json.dumps(HEALTH)]
        said = self.folder / f"start-{self._number}"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--node-ip-address", ip]
        command += ["--num-cpus", str(cpus), "--object-store-memory", str(OBJECT_STORE_BYTES), "--block"]
        with open(said, "wb") as file:
            environment = os.environ | {"PYTHONPATH": python_path(), "HOME": str(self.folder)}
            environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
            environment.pop("RAY_ADDRESS", None)
            process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        self.nodes.append(Node(process, ip))

        def has_started() -> bool:
            assert process.poll() is None, said.read_text()
            return "Ray runtime started" in said.read_text()

        until(has_started, START_SECONDS)
        return self.nodes[-1]

    def lose(self, node: Node) -> None:
        """Kill a node with all its processes."""
        self.nodes.remove(node)
        node.end()

    def drain(self, node: Node, seconds: int) -> None:
        """Announce that a node is taken away, as a cloud's autoscaler does."""
        code = (
            "import sys, ray, subprocess; from ray.scripts.scripts import cli; address, ip, seconds = sys.argv[1:]\n"
            "ray.init(address=address, logging_level='ERROR')\n"
            "(node,) = [n['NodeID'] for n in ray.nodes() if n['Alive'] and n['NodeManagerAddress'] == ip]\n"
            "cli(['drain-node', '--address', address, '--node-id', node, '--reason', 'DRAIN_NODE_REASON_PREEMPTION',"
            " '--reason-message', 'spot instance reclaimed', '--deadline-remaining-seconds', seconds])"
        )
        environment = os.environ | {"PYTHONPATH": python_path(), "HOME": str(self.folder)}
        command = [sys.executable, "-c", code, self.address, node.ip, str(seconds)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr[-2000:]


@contextmanager
def started(*cpus: int) -> Iterator[Started]:
    """A cluster of a head and other nodes; it ends with the block, with all that it started."""
    with socket.socket() as listener, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        listener.bind(("127.0.0.2", 0))
        port = listener.getsockname()[1]
        listener.close()
        made = Started(f"127.0.0.2:{port}", Path(folder))
        try:
            for each in cpus:
                made.add(each)
            yield made
        finally:
            for node in made.nodes:
                node.signal(signal.SIGKILL)
            _end_agents(made.folder)
            for node in made.nodes:
                node.process.wait()


def _end_agents(home: Path) -> None:
    """End what has lost its parent: agents and workers of nodes that were killed."""
    import psutil

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left: list[Any] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("HOME") == str(home):
                    left.append(process)
        if not left:
            return
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.2)
