"""Damaged copies of a file, the same ones at each run, and the promise that a reader keeps on them.

In: a file's bytes. Out: copies that are cut off, have flipped bits, overwritten numbers, runs moved or filled in.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from ecgfounder.errors import MissingDependencyError, ReadError
from ecgfounder.readers import read_ecg
from ecgfounder.readers.source import Hints


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
    kind = chance.randrange(7)
    if kind == 0:
        del copy[at:]
    elif kind == 1:
        copy[at] ^= 1 << chance.randrange(8)
    elif kind == 2:
        copy[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x20, 0x2D, 0x39))
    elif kind == 3:
        copy[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\0\0\0\x80"))
    elif kind == 4:
        del copy[at : at + chance.randrange(1, 64)]
    elif kind == 5:
        copy[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 32)))
    else:
        other = chance.randrange(len(copy))
        copy[at : at + 16] = copy[other : other + 16]


def is_read_or_refused(path: Path | str, hints: Hints | None = None) -> bool:
    """Read a file; true if that worked, false if it was refused as it should be: foreseen, and within a second."""
    begin = time.perf_counter()
    refusal = None
    try:
        read_ecg(path, hints=hints)
    except (ReadError, MissingDependencyError) as error:
        refusal = str(error)
    seconds = time.perf_counter() - begin
    assert seconds < 1, f"took {seconds:.1f} s"
    assert "damaged file (" not in (refusal or ""), f"unforeseen: {refusal}"
    return refusal is None
