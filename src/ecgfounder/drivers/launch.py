"""This process's place among launched processes: rank, world size, device, threads.

In: the environment of `accelerate launch` (or torchrun). Out: a `Launch`. Accelerate is imported only if there are several
processes or a GPU to find. It transfers only a few values at the start.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from ecgfounder.errors import RunError
from ecgfounder.machine import is_launched, usable_cores

_WORLD_VARIABLES = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


@dataclass(frozen=True)
class Launch:
    """One process of `world_size`, of which `local_size` are on this machine."""

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
        """Number of cores for this process: the usable ones, divided by the number of processes on this machine."""
        return max(1, usable_cores() // self.local_size)

    @contextmanager
    def together(self) -> Iterator[dict[str, Any]]:
        """A block that either all processes complete or none; the main process's dictionary is sent to all.

        Raises
        ------
        RunError
            If another process raised an error in the block, with its reason; or if the connection was lost.
        """
        said: dict[str, Any] = {}
        try:
            yield said
        except Exception as error:
            with suppress(RunError):  # the process's own error is more specific
                self._exchange({"refused": str(error) or type(error).__name__})
            raise
        answers = self._exchange(said)
        for rank, answer in enumerate(answers):
            if "refused" in answer:
                who = "" if rank == 0 else f"process {rank + 1} of {self.world_size}: "
                raise RunError(who + answer["refused"])
        said.update(answers[0])

    def _exchange(self, word: dict[str, Any]) -> list[dict[str, Any]]:
        """The value of each process, by rank."""
        if self.world_size == 1:
            return [word]
        from accelerate.utils import gather_object

        try:
            return list(_interruptible(lambda: gather_object([word])))
        except RuntimeError as error:
            raise RunError(
                f"The processes of this launch lost their connection before the run began: {error}. "
                "If one of them ended, its last lines say why; start the same command again."
            ) from error


def join_launch(device: str | None = None) -> Launch:
    """Read the launcher's environment; without one, this is the only process.

    Accelerate is used in CPU mode. The processes exchange only a few values, for which NCCL is not needed, and NCCL refuses two
    processes on the same GPU. Without a GPU, Accelerate in GPU mode would treat each process of `--multi_gpu` as the only one,
    and all records would be done several times. GPUs are assigned by the rank on a machine.

    Raises
    ------
    RunError
        If the environment describes several processes but Accelerate finds only one, or if another process does not come.
    """
    if not is_launched():
        return Launch()
    expected = int(os.environ["WORLD_SIZE"])
    import torch
    from accelerate import Accelerator

    try:
        accelerator = _interruptible(lambda: Accelerator(cpu=True))
    except RuntimeError as error:
        raise RunError(
            f"The {expected} processes of this launch did not come together: {error}. If one of them ended, its last lines say "
            "why; start the same command again."
        ) from error
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


T = TypeVar("T")


def _interruptible(work: Callable[[], T]) -> T:
    """The result of work that waits for other processes in code that is not Python, where signals would not be handled.

    It is done in another thread, while this one handles signals. If a handler raises an exception, that thread is left waiting
    until the process ends.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            outcome.set_exception(error)

    threading.Thread(target=run, name="ecgfounder-launch", daemon=True).start()
    return outcome.result()
