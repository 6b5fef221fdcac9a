"""Ranges of deflated data, which can only be unpacked from the beginning: the state is kept at some places, to go on from there.

In: a function that reads a range of the deflated bytes. Out: ranges of what they unpack to, in little memory whatever its size.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ecgfounder.storage.store import Unreadable

BLOCK_BYTES = 1 << 20
_READ_AT_ONCE = 1 << 20
_BLOCKS_KEPT = 32
_BLOCKS_BETWEEN_MARKS = 16
_STATES_KEPT = 4


@dataclass
class _State:
    """Where unpacking is: the next block, what of the deflated bytes was read, and zlib's state (about 40 kB)."""

    block: int
    at: int
    inflate: Any

    def copy(self) -> _State:
        return _State(self.block, self.at, self.inflate.copy())


class Inflating:
    """Deflated data that are read in ranges, the latest of which are kept; for several threads.

    Parameters
    ----------
    read : callable
        Reads the deflated bytes [start, stop).
    n_packed, size : int
        Number of deflated bytes, and of those that they unpack to.
    crc : int
        CRC-32 of what they unpack to, which is checked when the end is reached for the first time.
    """

    def __init__(self, read: Callable[[int, int], bytes], n_packed: int, size: int, crc: int) -> None:
        self._read, self._n_packed, self._size, self._crc = read, n_packed, size, crc
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._marks = {0: _State(0, 0, zlib.decompressobj(-zlib.MAX_WBITS))}
        self._states: OrderedDict[int, _State] = OrderedDict()
        self._furthest, self._crc_so_far = 0, 0

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop), both within the size.

        Raises
        ------
        Unreadable
            If the data are none, or unpack to another size or CRC than they should.
        """
        with self._lock:
            pieces = []
            for number in range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)):
                first = number * BLOCK_BYTES
                pieces.append(self._block(number)[max(0, start - first) : stop - first])
            return b"".join(pieces)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            state = self._nearest(number)
            while state.block <= number:
                self._go_on(state)
            self._states[state.block] = state
            while len(self._states) > _STATES_KEPT:
                self._states.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _nearest(self, number: int) -> _State:
        """The state from which least is to be unpacked: one of the latest, or a copy of a mark."""
        mark = number // _BLOCKS_BETWEEN_MARKS * _BLOCKS_BETWEEN_MARKS
        while mark not in self._marks:
            mark -= _BLOCKS_BETWEEN_MARKS
        latest = max((block for block in self._states if block <= number), default=-1)
        return self._states.pop(latest) if latest >= mark else self._marks[mark].copy()

    def _go_on(self, state: _State) -> None:
        """Unpack the next block."""
        wanted = min(BLOCK_BYTES, self._size - state.block * BLOCK_BYTES)
        is_last = (state.block + 1) * BLOCK_BYTES >= self._size
        pieces: list[bytes] = []
        while wanted > 0 or (is_last and not state.inflate.eof):
            data = state.inflate.unconsumed_tail
            if not data and state.at < self._n_packed:
                stop = min(state.at + _READ_AT_ONCE, self._n_packed)
                data, state.at = self._read(state.at, stop), stop
            try:
                # At the end one byte more, which must not be there. Without data, what zlib may still hold.
                pieces.append(state.inflate.decompress(data, wanted + is_last))
            except zlib.error:
                raise Unreadable("it is damaged in the archive: its compressed data are none") from None
            wanted -= len(pieces[-1])
            if wanted < 0 or not (data or pieces[-1]):
                break
        if wanted != 0 or (is_last and not state.inflate.eof):
            raise Unreadable(
                "it is damaged in the archive: it unpacks to another size than the archive's directory says"
            )
        self._keep(state.block, b"".join(pieces), is_last=is_last)
        state.block += 1
        if state.block % _BLOCKS_BETWEEN_MARKS == 0 and state.block not in self._marks and not is_last:
            self._marks[state.block] = state.copy()

    def _keep(self, number: int, data: bytes, *, is_last: bool) -> None:
        if number == self._furthest:
            crc = zlib.crc32(data, self._crc_so_far)
            if is_last and crc != self._crc:
                raise Unreadable("it is damaged in the archive: its CRC-32 is another")
            self._furthest, self._crc_so_far = number + 1, crc
        self._blocks[number] = data
        while len(self._blocks) > _BLOCKS_KEPT:
            self._blocks.popitem(last=False)
