"""Workers whose device has little memory: PyTorch's engine on the CPU, whose passes raise what CUDA raises.

In: limits in rows times samples. Out: as `ecgfounder.distributed.worker.open_worker`. The engine's own way of making passes
smaller is in use; the memory is taken away after the worker has opened, as by another program.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import torch

from ecgfounder.distributed import Work, Worker
from ecgfounder.distributed.worker import open_worker
from ecgfounder.engines.torch import TorchEngine


def open_with_little_memory(
    claim: str, first: int | None, others: int | None, work: Work, pieces: Iterable[bytes] | None, share: float
) -> Worker:
    """A worker with one limit if it is the first that creates the file `claim`, else with the other; None is no limit."""
    worker = open_worker(work, pieces, share)
    try:
        os.close(os.open(claim, os.O_CREAT | os.O_EXCL))
        limit = first
    except FileExistsError:
        limit = others
    if limit is not None:
        take_memory(limit)
    return worker


def take_memory(limit: int) -> None:
    """Let all engines of this process have memory for so many rows times samples."""
    compute = TorchEngine._in_fixed_passes

    def fitting(self: TorchEngine, batch: np.ndarray) -> np.ndarray:
        if len(batch) * batch.shape[2] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return compute(self, batch)

    def in_passes(self: TorchEngine, batch: np.ndarray) -> np.ndarray:
        return self._in_passes_that_fit(batch, lambda rows: fitting(self, rows))

    TorchEngine._in_passes = in_passes  # type: ignore[method-assign]
