"""Launches of several processes, each started by itself as a launcher would, on this machine and on a simulated other one.

In: flags. Out: processes of the embed command with an engine that costs nothing. The other machine has another host name and
another kernel identifier, so that nothing but what is shared and the network tells one machine of the other.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from ecgfounder.ecg.leads import STANDARD_LEADS
from tests.places import ROOT

STALE = 3.0
"""Seconds without a sign of life after which a process counts as dead."""

PROGRAM = f"""
import functools, os, sys, time
from unittest import mock
sys.path.insert(0, {str(ROOT)!r})
from ecgfounder import cli
from ecgfounder.errors import RunError
from ecgfounder.ledger import liveness
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.groups.lease import Intervals
from ecgfounder.ledger.groups.writer import Bounds
from ecgfounder.run import run as extract
from tests.harness.stand_ins import NullEngine
liveness.STALE_SECONDS, liveness.HEARTBEAT_SECONDS = {STALE}, {STALE / 10}
held = functools.partial(StoreHold, intervals=Intervals({STALE / 10}, {STALE}, 30.0, 0.1), bounds=Bounds(5, 0.5))
pause, first_pause = float(os.environ.get("PAUSE", "0")), [float(os.environ.get("FIRST_PAUSE", "0"))]

class SlowEngine(NullEngine):
    def embed(self, batch):
        time.sleep(first_pause.pop() if first_pause else pause)
        return super().embed(batch)

def create_engine(*_, threads, **__):
    print(f"threads {{threads}}", file=sys.stderr)
    if "REFUSE" in os.environ:
        raise RunError(os.environ["REFUSE"])
    return SlowEngine(1)

if __name__ == "__main__":
    if "TELL_WAITING" in os.environ:
        import accelerate, torch
        print("waiting", file=sys.stderr, flush=True)
    with mock.patch.multiple(extract, create_engine=create_engine, StoreHold=held, TICK_SECONDS=0.1):
        sys.exit(cli.embed_main())
"""

AS_ANOTHER_MACHINE = 'hostname "$0" && mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"'


def write_program(folder: Path) -> Path:
    """The embed command with an engine that costs nothing, and with short times before a process counts as dead."""
    path = folder / "embed.py"
    path.write_text(PROGRAM)
    return path


def program_flags(cohort: Path, output_dir: Path | str, folder: Path) -> list[str]:
    """Flags of the program; the checkpoint is written to `folder`."""
    (folder / "weights.pth").write_bytes(b"weights")
    return [
        *("--dataset", str(cohort), "--output_dir", str(output_dir), "--checkpoint", str(folder / "weights.pth")),
        *("--sampling_rate", "500", "--unit", "mV", "--leads", ",".join(STANDARD_LEADS)),
        *("--num_workers", "0", "--batch_size", "2"),
    ]


def as_another_machine(folder: Path) -> list[str] | None:
    """What to put before a command so that it runs on another machine, as far as it can tell; None if that cannot be had."""
    boot_id = folder / "boot_id"
    boot_id.write_text("00000000-0000-4000-8000-000000000000\n")
    namespaces = ["unshare", "--user", "--uts", "--mount", "--map-root-user", "sh", "-c", AS_ANOTHER_MACHINE]
    words = [*namespaces, "hostb", str(boot_id)]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        return None
    return words


def launch_of(world_size: int) -> dict[str, str]:
    """The environment of a launch, without the rank."""
    launch = {"WORLD_SIZE": str(world_size), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return launch | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Process:
    """A command that runs in the background."""

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self.said = ""
        self.began = time.monotonic()
        variables = {name: value for name, value in os.environ.items() if "RANK" not in name and "WORLD" not in name}
        self.process = subprocess.Popen(
            command, env=variables | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def end(self, seconds: float = 120.0) -> int:
        """Wait for it; the exit status."""
        try:
            self.said += self.process.communicate(timeout=seconds)[1]
        finally:
            self.process.kill()
        return self.process.returncode
