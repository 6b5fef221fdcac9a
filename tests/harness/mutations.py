"""Damaged copies of a file, the same ones at each run, and the promise that a reader keeps on them.

In: a file's bytes. Out: copies that are cut off, have flipped bits, overwritten numbers, runs moved or filled in.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

from ecgfounder.errors import MissingDependencyError, ReadError
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints

WITHIN_SECONDS = 1.0

_LIES = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80", b"\0\0\xff\x7f", b"\1\0\0\0")
_LYING_TEXT = (b"0", b"-1", b"1", b"65535", b"2147483648", b"99999999999999999999", b"1e308", b"nan", b"", b"0.0000001")
_DIGITS = re.compile(rb"\d+")


def mutations(data: bytes, count: int, seed: int = 20260101) -> Iterator[bytes]:
    """`count` damaged copies of `data`; a third of the damage is in the first 600 bytes, where headers are."""
    chance = random.Random(seed)
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            if copy:
                _damage(copy, chance)
        yield bytes(copy)


def _damage(copy: bytearray, chance: random.Random) -> None:
    reach = min(len(copy), 600) if chance.random() < 0.34 else len(copy)
    at = chance.randrange(reach)
    kind = chance.randrange(9)
    if kind == 0:
        del copy[at:]
    elif kind == 1:
        copy[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        copy[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x2D, 0x39))
    elif kind == 3:
        copy[at : at + 4] = chance.choice(_LIES)
    elif kind == 4:
        del copy[at : at + chance.randrange(1, 64)]
    elif kind == 5:
        copy[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 32)))
    elif kind == 6:
        number = _DIGITS.search(copy, at)
        if number:  # a count, size or rate in writing that lies
            copy[number.start() : number.end()] = chance.choice(_LYING_TEXT)
    elif kind == 7:
        begin, length = chance.randrange(len(copy)), chance.choice((4, 50, 1000))
        copy[at:at] = copy[begin : begin + length]
    else:
        other = chance.randrange(len(copy))
        copy[at : at + 16] = copy[other : other + 16]


def is_read_or_refused(path: Path | str, hints: Hints | None = None, reader: str = "auto") -> bool:
    """Read a file; true if that worked, false if it was refused as it should be: foreseen, and within a second.

    Raises
    ------
    AssertionError
        If it took longer, or was refused by accident. Any other exception is one that leaked from a reader.
    """
    seconds, refusal = _timed(path, hints, reader)
    if seconds > WITHIN_SECONDS:  # another process may have had the processor: once more before it counts
        seconds = min(seconds, _timed(path, hints, reader)[0])
    assert seconds <= WITHIN_SECONDS, f"took {seconds:.1f} s"
    assert "damaged file (" not in (refusal or ""), f"unforeseen: {refusal}"
    assert "needs more memory" not in (refusal or ""), f"unbounded: {refusal}"
    return refusal is None


def _timed(path: Path | str, hints: Hints | None, reader: str) -> tuple[float, str | None]:
    begin = time.perf_counter()
    try:
        read_ecg(path, hints=hints, reader=reader)
    except (ReadError, MissingDependencyError) as error:
        return time.perf_counter() - begin, str(error)
    return time.perf_counter() - begin, None
