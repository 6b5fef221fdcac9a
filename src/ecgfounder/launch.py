"""Where this process stands among those that were launched together: rank, world size, device, threads.

In: the environment that `accelerate launch` (or torchrun) leaves. Out: a `Launch`. Accelerate is imported only when there
is more than one process or a GPU to find; nothing is ever gathered through it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from ecgfounder.errors import RunError

_WORLD_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


@dataclass(frozen=True)
class Launch:
    """One process among `world_size`, of which `local_size` are on this machine."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1
    device: str | None = None
    accelerator: Any = None

    def __enter__(self) -> Launch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.accelerator is not None:
            self.accelerator.end_training()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def threads(self) -> int:
        """Cores for this process: those that it may use, shared with the other processes of this machine."""
        return max(1, usable_cores() // self.local_size)

    def share(self, value: Any) -> Any:
        """The main process's value, in every process."""
        if self.world_size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value], from_process=0)[0]


def join_launch(device: str | None = None) -> Launch:
    """Find out who we are; without a launcher's environment, a process alone.

    Without a GPU, Accelerate is asked for the CPU explicitly: it would otherwise take each of `--multi_gpu`'s processes for
    the only one, and everything would be done several times.

    Raises
    ------
    RunError
        If the environment speaks of several processes and Accelerate does not see them.
    """
    expected = int(os.environ.get("WORLD_SIZE", "1") or "1")
    if expected <= 1:
        return Launch()
    import torch
    from accelerate import Accelerator

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    accelerator = Accelerator(cpu=on_cpu)
    if accelerator.num_processes != expected:
        raise RunError(
            f"The launcher started {expected} processes (WORLD_SIZE) but Accelerate sees {accelerator.num_processes}: "
            "every record would be done several times. Start with 'accelerate launch --num_processes N', "
            f"or unset {', '.join(_WORLD_VARIABLES)} to run alone."
        )
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "0") or "0") or expected
    return Launch(
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        local_rank=accelerator.local_process_index,
        local_size=local_size,
        device="cpu" if accelerator.device.type == "cpu" else str(accelerator.device),
        accelerator=accelerator,
    )


def usable_cores() -> int:
    """Cores that this process may run on (a scheduler may allow fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
