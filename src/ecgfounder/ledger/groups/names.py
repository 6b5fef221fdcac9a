"""Names in a run's folder: of what is locked (the whole run, or a shard of it), and of the parts that groups publish.

In: a shard, an epoch, a group's number. Out: names, and from a name its parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Shard = tuple[int, int]

WHOLE: Shard = (1, 1)

_SCOPE = re.compile(r"shard-(\d+)-of-(\d+)")
_PART = re.compile(
    r"(?P<stamp>\d{20})-shard(?P<i>\d+)of(?P<n>\d+)-epoch(?P<epoch>\d{6,})-(?P<kind>[a-z]+)\d{6,}\.jsonl"
)


def scope_of(shard: Shard) -> str:
    """What a start locks, as the name of a folder: "whole", or "shard-3-of-16"."""
    return "whole" if shard[1] == 1 else f"shard-{shard[0]}-of-{shard[1]}"


def shard_of(scope: str) -> Shard | None:
    """The shard of a name of `scope_of`; None for anything else."""
    found = _SCOPE.fullmatch(scope)
    if found is None:
        return WHOLE if scope == "whole" else None
    return int(found[1]), int(found[2])


def conflict(one: Shard, other: Shard) -> bool:
    """Whether two different starts must not work at the same time: only shards of the same division may."""
    return one != other and (one[1] == 1 or one[1] != other[1])


@dataclass(frozen=True)
class PartName:
    """A part's name: what its epoch locked, and the epoch's number."""

    shard: Shard
    epoch: int


def part_of_group(stamp: int, shard: Shard, epoch: int, kind: str, number: int) -> str:
    """The name of a group's part, the same for all attempts at the group; names sort by the stamps of epochs."""
    return f"{stamp:020d}-shard{shard[0]}of{shard[1]}-epoch{epoch:06d}-{kind}{number:06d}.jsonl"


def parse_part(name: str) -> PartName | None:
    """The epoch of a part; None for one that a process appended to, without epochs."""
    found = _PART.fullmatch(name)
    return None if found is None else PartName((int(found["i"]), int(found["n"])), int(found["epoch"]))
