"""Starts of a run one after the other: a later one has a later stamp and the last word, whatever the clock says."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ecgfounder.ledger.entry import Entry
from ecgfounder.ledger.ledger import LedgerWriter, ledger_parts, new_stamp, part_name, read_ledger
from ecgfounder.storage import Location, locate
from tests.builders.entries import HEADER, entry_of

NOW = 1_700_000_000_000_000_000


@pytest.fixture
def ledger(tmp_path: Path) -> Location:
    return locate(tmp_path)


def begin(ledger: Location, *entries: Entry, shard: tuple[int, int] = (1, 1), rank: int = 0) -> int:
    """A start with these entries; its stamp."""
    stamp = new_stamp(ledger)
    writer = LedgerWriter(ledger.path / part_name(stamp, shard, rank, 2), HEADER)
    writer.append(entries)
    writer.abandon()
    return stamp


def test_a_stamp_is_the_time(ledger: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    assert new_stamp(ledger) == NOW
    assert new_stamp(ledger / "nowhere") == NOW


@pytest.mark.parametrize("clock", [NOW, NOW - 1, NOW - 3600 * 10**9, 5])
def test_a_start_after_the_clock_was_set_back_has_a_later_stamp_and_the_last_word(
    ledger: Location, monkeypatch: pytest.MonkeyPatch, clock: int
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    first = begin(ledger, entry_of(1, output="before.json"), entry_of(2, "failed", reason="before"))
    monkeypatch.setattr(time, "time_ns", lambda: clock)
    stamps = [first, begin(ledger, entry_of(1, output="after.json")), begin(ledger, entry_of(2, output="b.json"))]
    assert stamps == [NOW, NOW + 1, NOW + 2]
    state = read_ledger(ledger)
    assert [entry.output for entry in state.entries(state.find_all([1, 2]))] == ["after.json", "b.json"]
    assert len(ledger_parts(ledger)) == 3  # none was continued or written over


def test_every_part_counts_whatever_its_shard_and_rank(ledger: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    begin(ledger, shard=(2, 3), rank=1)
    assert new_stamp(ledger) == NOW + 1


def test_other_files_in_the_folder_are_no_starts(ledger: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: NOW)
    for name in ("notes.jsonl", f"{NOW * 2}-shard1of1-rank0of1.txt", "-shard.jsonl", "²-shard1of1-rank0of1.jsonl"):
        (ledger.path / name).touch()
    assert new_stamp(ledger) == NOW
