"""Damaged copies of a file, seeded: truncated, bit-flipped, overwritten, spliced.

In: the bytes of a good file and a random generator. Out: the bytes of a bad one (now and then a harmless one).
`read_or_refused` asserts what every reader promises of them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

from ecgfounder.errors import ReadError
from ecgfounder.readers.source import Source
from ecgfounder.recording import Recording


def mutated(original: bytes, rng: random.Random) -> bytes:
    """One copy with one kind of damage."""
    content = bytearray(original)
    kind = rng.randrange(4)
    at = rng.randrange(len(content))
    if kind == 0:
        del content[at:]
    elif kind == 1:
        for _ in range(rng.choice([1, 3, 20])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == 2:
        content[at : at + rng.choice([1, 4, 100])] = rng.randbytes(rng.randrange(5))
    else:
        start = rng.randrange(len(content))
        content[at:at] = content[start : start + rng.choice([4, 50, 1000])]
    return bytes(content)


def read_or_refused(
    read: Callable[[Source], Recording], original: bytes, path: Path, *, seed: int, count: int
) -> tuple[int, int]:
    """Read `count` damaged copies: each gives a `Recording` or a `ReadError` within a second. Returns how many of each."""
    rng = random.Random(seed)
    n_read = n_refused = 0
    for _ in range(count):
        path.write_bytes(mutated(original, rng))
        begin = time.perf_counter()
        try:
            read(Source(path))
            n_read += 1
        except ReadError:
            n_refused += 1
        assert time.perf_counter() - begin < 1
    return n_read, n_refused
