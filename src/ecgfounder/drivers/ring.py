"""Memory that a reading process shares with the main process, through which samples need no system call and no copy.

In: arrays, which the reading process makes there or copies there. Out: views of them in the main process, of several arrays of
one shape as one; the main process gives the space back. Only where the kernel has anonymous files (Linux); elsewhere, and for
what does not fit, samples are sent through the pipe.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

RING_BYTES = 8 << 20
"""Room for over thirty recordings of 10 s; a process that is further ahead sends through its pipe, and waits there."""

_HEADER = 64  # bytes before the ring
_RETURNED, _BEGUN, _WAITS = 0, 8, 16  # places in the header


@dataclass(frozen=True)
class Counts:
    """What a reading process tells of its work in shared memory, where there is no ring.

    Attributes
    ----------
    begun, waits : ctypes object
        As those of `Ring`.
    """

    begun: Any
    waits: Any


class Ring:
    """Shared memory in which positions count up for ever, and are taken modulo its size.

    Parameters
    ----------
    file : int
        Descriptor of a file of `_HEADER + size` bytes, which the ring owns.
    size : int
        Bytes for arrays.
    together : int
        How many arrays of one shape shall follow each other as one, if there is room.

    Attributes
    ----------
    begun : ctypes.c_uint64
        Number of jobs that the reading process has begun, which it counts.
    waits : ctypes.c_bool
        Whether it waits for an object store.
    """

    def __init__(self, file: int, size: int, together: int = 1) -> None:
        self._file, self._size, self._together = file, size, together
        self._memory = mmap.mmap(file, _HEADER + size)
        self._returned = np.frombuffer(self._memory, np.uint64, 1, _RETURNED)  # up to where space was given back
        self.begun = ctypes.c_uint64.from_buffer(self._memory, _BEGUN)
        self.waits = ctypes.c_bool.from_buffer(self._memory, _WAITS)
        # Of the writer.
        self._written = 0
        self._made: deque[tuple[int, Array]] = deque()  # arrays that were made and not sent yet, and their positions
        self._begins = True  # whether the next array is the first of several
        self._is_full = False  # whether an array had to be made elsewhere
        # Of the reader.
        self._lock = threading.Lock()
        self._held: deque[_Held] = deque()

    def __reduce__(self) -> tuple[Callable[..., Ring], tuple[Any, ...]]:
        return _rebuilt, (reduction.DupFd(self._file), self._size, self._together)

    def fileno(self) -> int:
        """The descriptor of its file."""
        return self._file

    # --- the writer's part -----------------------------------------------------------------------------------------------

    def empty(self, shape: tuple[int, ...]) -> Array:
        """An array for `put`, its values undefined: in the ring, or elsewhere if there is no room.

        Arrays after one that is elsewhere are elsewhere too until they are sent, even if space was given back meanwhile: `put`
        gets them in the order in which they were made, and would copy the former onto the latter.
        """
        after = self._made[-1][0] + self._made[-1][1].nbytes if self._made else self._written
        position = None if self._is_full else self._room(after, math.prod(shape) * np.dtype(np.float32).itemsize)
        if position is None:
            self._is_full = True
            return np.empty(shape, np.float32)
        array = self.view(position, shape)
        self._made.append((position, array))
        return array

    def put(self, samples: Array) -> int | None:
        """The position of an array: its own, if `empty` made it in the ring, else that of a copy; None if there is no room."""
        position: int | None = None
        if self._made and samples is self._made[0][1]:
            position = self._made.popleft()[0]
        elif not self._made:  # else its copy would overwrite arrays that are not sent yet
            position = self._room(self._written, samples.nbytes)
            if position is not None:
                self.view(position, samples.shape)[...] = samples
        if position is not None:
            self._written, self._begins = position + samples.nbytes, False
        self._is_full = self._is_full and bool(self._made)
        return position

    def begin_anew(self) -> None:
        """Note that the next array does not belong to those before it."""
        self._begins = True

    def forget(self) -> None:
        """Use the space of arrays again that were made for the last job, and not sent."""
        self._made.clear()
        self._is_full = False

    def is_first(self, position: int) -> bool:
        """Whether an array is at the beginning of the ring, so that none before it is part of the same piece of memory."""
        return position % self._size == 0

    def _room(self, after: int, n_bytes: int) -> int | None:
        """The first position from `after` on with as many bytes in one piece, if they have been given back."""
        at = after % self._size
        wanted = n_bytes * self._together if self._begins and n_bytes * self._together <= self._size else n_bytes
        position = after if at + wanted <= self._size else after + self._size - at
        return None if position + n_bytes - int(self._returned[0]) > self._size else position

    # --- the reader's part -----------------------------------------------------------------------------------------------

    def take(self, position: int, shape: tuple[int, ...]) -> tuple[Array, Callable[[], None]]:
        """The array at a position, and the function that gives its space back; arrays are taken in the order of `put`."""
        array = self.view(position, shape)
        held = _Held(position + array.nbytes)
        self._held.append(held)

        def give_back() -> None:
            with self._lock:
                held.is_free = True
                while self._held and self._held[0].is_free:
                    self._returned[0] = self._held.popleft().end

        return array, give_back

    def view(self, position: int, shape: tuple[int, ...]) -> Array:
        """The array at a position, without a copy."""
        return np.ndarray(shape, np.float32, self._memory, _HEADER + position % self._size)

    def close(self) -> None:
        """Close this process's file; its memory goes when no view of it is left."""
        os.close(self._file)


class _Held:
    """The end of an array that was taken, and whether it was given back; space is free up to the first that was not."""

    __slots__ = ("end", "is_free")

    def __init__(self, end: int) -> None:
        self.end, self.is_free = end, False


def make_ring(together: int = 1) -> Ring | None:
    """A new ring; None where the kernel has no anonymous files, or no memory for one."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        file = os.memfd_create("ecgfounder-samples", os.MFD_CLOEXEC)
    except OSError:
        return None
    try:
        os.posix_fallocate(file, 0, _HEADER + RING_BYTES)
        return Ring(file, RING_BYTES, together)
    except OSError:
        os.close(file)
        return None


def ring_at(file: int, together: int) -> Ring:
    """The ring in a file of `make_ring`, which it then owns."""
    return Ring(file, os.fstat(file).st_size - _HEADER, together)


def _rebuilt(file: Any, size: int, together: int) -> Ring:
    return Ring(file.detach(), size, together)
