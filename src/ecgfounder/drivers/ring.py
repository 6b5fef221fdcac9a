"""Memory that a reading process shares with the main process, through which samples need no system call and no copy.

In: arrays, written by the reading process. Out: views of them in the main process, which gives the space back in the same order.
Only where the kernel has anonymous files (Linux); elsewhere, and for what does not fit, samples are sent through the pipe.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

RING_BYTES = 4 << 20
"""Room for a dozen recordings of 10 s; a process that is further ahead sends through its pipe, and waits there."""

_HEADER = 64  # bytes before the ring, which hold the position up to which the space was given back
_ALIGNMENT = 64


class Ring:
    """Shared memory in which positions count up for ever, and are taken modulo its size.

    Parameters
    ----------
    file : int
        Descriptor of a file of `_HEADER + size` bytes, which the ring owns.
    size : int
        Bytes for arrays.
    """

    def __init__(self, file: int, size: int) -> None:
        self._file, self._size = file, size
        self._memory = mmap.mmap(file, _HEADER + size)
        self._returned = np.frombuffer(self._memory, np.uint64, 1)
        self._written = 0

    def __reduce__(self) -> tuple[Callable[..., Ring], tuple[Any, int]]:
        return _rebuilt, (reduction.DupFd(self._file), self._size)

    def put(self, samples: Array) -> int | None:
        """Copy an array into the ring; returns its position, or None if there is no room."""
        n_bytes = _aligned(samples.nbytes)
        at = self._written % self._size
        position = self._written if at + n_bytes <= self._size else self._written + self._size - at
        if position + n_bytes - int(self._returned[0]) > self._size:
            return None
        self.view(position, samples.shape)[...] = samples
        self._written = position + n_bytes
        return position

    def view(self, position: int, shape: tuple[int, ...]) -> Array:
        """The array at a position, without a copy; valid until it is given back."""
        return np.ndarray(shape, np.float32, self._memory, _HEADER + position % self._size)

    def give_back(self, position: int, samples: Array) -> None:
        """Let the writer use the space of an array, and of all before it, again."""
        self._returned[0] = position + _aligned(samples.nbytes)

    def close(self) -> None:
        """Close this process's file; its memory goes when no view of it is left."""
        os.close(self._file)


def make_ring() -> Ring | None:
    """A new ring; None where the kernel has no anonymous files, or no memory for one."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        file = os.memfd_create("ecgfounder-samples", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.posix_fallocate(file, 0, _HEADER + RING_BYTES)
        return Ring(file, RING_BYTES)
    except OSError:
        os.close(file)
        return None


def _rebuilt(file: Any, size: int) -> Ring:
    return Ring(file.detach(), size)


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT
