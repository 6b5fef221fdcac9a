"""Where this process stands among those that were launched together: rank, world size, device, threads.

In: the environment that `accelerate launch` (or torchrun) leaves. Out: a `Launch`. Accelerate is imported only when there
is more than one process or a GPU to find; nothing but a few words at the start is ever gathered through it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ecgfounder.errors import RunError
from ecgfounder.machine import is_launched, usable_cores

_WORLD_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


@dataclass(frozen=True)
class Launch:
    """One process among `world_size`, of which `local_size` are on this machine."""

    rank: int = 0
    world_size: int = 1
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

    @contextmanager
    def together(self) -> Iterator[dict[str, Any]]:
        """All processes leave the block, or none does; what the main one puts into the dictionary all have then.

        Raises
        ------
        RunError
            With the reason of the process that raised within, in those that did not; in all, if they lost each other.
        """
        said: dict[str, Any] = {}
        try:
            yield said
        except Exception as error:
            with suppress(RunError):  # its own reason is the better one
                self._exchange({"refused": str(error) or type(error).__name__})
            raise
        answers = self._exchange(said)
        for rank, answer in enumerate(answers):
            if "refused" in answer:
                who = "" if rank == 0 else f"process {rank + 1} of {self.world_size}: "
                raise RunError(who + answer["refused"])
        said.update(answers[0])

    def _exchange(self, word: dict[str, Any]) -> list[dict[str, Any]]:
        """What each process says, by rank."""
        if self.world_size == 1:
            return [word]
        from accelerate.utils import gather_object

        try:
            return list(gather_object([word]))
        except RuntimeError as error:
            raise RunError(
                f"The processes of this launch lost each other before the run began: {error}. "
                "If one of them ended, its own last lines say why; the same command starts again."
            ) from error


def join_launch(device: str | None = None) -> Launch:
    """Find out who we are; without a launcher's environment, a process alone.

    Accelerate is asked for the CPU: the processes exchange a few words, for which the GPUs' library (NCCL) is not needed,
    and it would refuse two processes on one card. Without a GPU, Accelerate would otherwise take each of `--multi_gpu`'s
    processes for the only one, and everything would be done several times. Cards are dealt out by the rank on a machine.

    Raises
    ------
    RunError
        If the environment speaks of several processes and Accelerate does not see them.
    """
    if not is_launched():
        return Launch()
    expected = int(os.environ["WORLD_SIZE"])
    import torch
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    if accelerator.num_processes != expected:
        raise RunError(
            f"The launcher started {expected} processes (WORLD_SIZE) but Accelerate sees {accelerator.num_processes}: "
            "every record would be done several times. Start with 'accelerate launch --num_processes N', "
            f"or unset {', '.join(_WORLD_VARIABLES)} to run alone."
        )
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "0") or "0") or expected
    gpus = 0 if device == "cpu" or not torch.cuda.is_available() else torch.cuda.device_count()
    return Launch(
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        local_size=local_size,
        device=f"cuda:{accelerator.local_process_index % gpus}" if gpus else "cpu",
        accelerator=accelerator,
    )
