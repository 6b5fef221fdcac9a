"""What tests build again and again: ledger entries and the outputs that go with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

from ecgfounder.ecg.facts import Facts, Identity
from ecgfounder.ledger.entry import Commitment, Entry, Line, PartEnd, PartHeader, key_text
from ecgfounder.sinks.sink import ShardWritten, Written

HEADER = PartHeader(host="here", pid=1)
END = PartEnd(outcome="complete")

_FACTS = frozenset(each.name for each in fields(Facts))
_IDENTITY = frozenset(each.name for each in fields(Identity))


def entry_of(key: int | str, status: str = "done", **flat: Any) -> Entry:
    """An entry from values side by side: those of its input and of its facts find their places; lists become tuples."""
    flat = {name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()}
    identity = {name: flat.pop(name) for name in _IDENTITY & set(flat) - {"tag"}}
    facts = {name: flat.pop(name) for name in _FACTS & set(flat)}
    key = key_text(key) if isinstance(key, int) else key
    if status == "done":
        flat.setdefault("shape", (3, 4))
        shard = flat.get("shard")
        flat.setdefault("output", "x.json" if shard is None else f"{shard}::{key}")
    return Entry(
        key=key,
        record=flat.pop("record", f"{int(key, 16)}.xml"),
        status=status,  # type: ignore[arg-type]
        input=Identity(**{"size": 0, "mtime_ns": 0} | identity) if identity else None,
        facts=Facts(**facts),
        **flat,
    )


def lines_from(written: Iterable[Written | ShardWritten]) -> list[Line]:
    """What a run's ledger says of what a sink wrote, as far as the outputs tell."""
    return [
        Commitment(each.shard, each.rows, each.records)
        if isinstance(each, ShardWritten)
        else replace(
            each.output.receipt or entry_of(each.output.key, record=each.output.record),
            output=each.reference,
            shard=each.shard,
        )
        for each in written
    ]
