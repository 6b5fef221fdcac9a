"""Shards of one division work side by side; another division, or a whole run, waits until none of them is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgfounder.errors import RunError
from ecgfounder.ledger.admission import create_folder, hold_folder
from ecgfounder.ledger.entry import PartEnd, PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.ledger import LedgerWriter, part_name

ELSEWHERE = PartHeader(host="node17", pid=4242, boot="another", pid_namespace="another")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path / "out")
    create_folder(made)
    return made


def at_work(folder: RunFolder, shard: tuple[int, int]) -> LedgerWriter:
    """A process of that shard on another machine, whose main one has died and left the lock."""
    return LedgerWriter(folder.ledger.path / part_name(1, shard, 1, 2), ELSEWHERE)


def may_start(folder: RunFolder, shard: tuple[int, int]) -> bool:
    try:
        hold_folder(folder, shard).release()
    except RunError as error:
        assert "in use by process 4242 on node17" in str(error)  # noqa: PT017 - some are let in
        return False
    return True


@pytest.mark.parametrize(
    ("working", "starting", "side_by_side"),
    [
        ((2, 3), (1, 3), True),
        ((2, 3), (3, 3), True),
        ((2, 3), (2, 3), False),  # the same shard again
        ((2, 3), (1, 4), False),  # another division shares records with it
        ((2, 3), (2, 4), False),
        ((2, 3), (1, 1), False),
        ((2, 3), (3, 2 * 3), False),
        ((1, 1), (1, 1), False),
        ((1, 1), (1, 3), False),
        ((1, 1), (2, 3), False),
    ],
)
def test_a_shard_starts_beside_other_shards_of_its_division_alone(
    folder: RunFolder, working: tuple[int, int], starting: tuple[int, int], side_by_side: bool
) -> None:
    other = at_work(folder, working)
    assert may_start(folder, starting) == side_by_side
    other.end(PartEnd(outcome="interrupted"))
    assert may_start(folder, starting)


@pytest.mark.parametrize("name", ["1-shard2of33-rank1of2.jsonl", "1-shard12of3-rank1of2.jsonl", "1.jsonl"])
def test_a_part_is_of_the_division_that_its_whole_name_says(folder: RunFolder, name: str) -> None:
    other = LedgerWriter(folder.ledger.path / name, ELSEWHERE)
    assert may_start(folder, (2, 3)) == (name == "1-shard12of3-rank1of2.jsonl")
    other.abandon()
