"""Putting together what belongs to one record: its inputs are embedded in batches with others, and come back in any order.

In: `Embedded` rows, and failures. Out: a `Finished` record, once all of its inputs are there or one of them is known to fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ecgfounder.ecg.facts import Facts, Identity
from ecgfounder.stages.pooling import InputEmbedding
from ecgfounder.stages.read import Failed, Job, Opened


@dataclass(frozen=True, slots=True)
class Finished:
    """One record that went through: what is kept of its inputs in order, or the reason why there is nothing.

    Attributes
    ----------
    embeddings : tuple of InputEmbedding or None
        What is kept of each input, in order; None for a failure.
    kind, reason : str
        Of a failure: the error's class name, and its message.
    seconds : mapping of str to float
        By stage.
    """

    job: Job
    embeddings: tuple[InputEmbedding, ...] | None = None
    outer_shape: tuple[int, ...] = ()
    kind: str = ""
    reason: str = ""
    facts: Facts = field(default_factory=Facts)
    identity: Identity | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class Gathering:
    """A record on its way: what has come of its inputs; `over` once it was finished."""

    opened: Opened
    embeddings: list[InputEmbedding | None] = field(default_factory=list)
    left: int = 0
    seconds: float = 0.0
    over: bool = False

    def __post_init__(self) -> None:
        self.left = self.opened.n_inputs
        self.embeddings = [None] * self.left


@dataclass(frozen=True, slots=True)
class Embedded:
    """What came of one input: what is kept of its map, or the error that it has instead."""

    gathering: Gathering
    number: int
    kept: InputEmbedding | None
    seconds: float = 0.0
    kind: str = ""
    reason: str = ""


def collect(row: Embedded) -> Finished | None:
    """Put a row with those of the same record; gives the record when it is whole, or at its first failure."""
    gathering = row.gathering
    if gathering.over:
        return None  # it has failed already, for another of its inputs
    opened = gathering.opened
    if row.kept is None:
        gathering.over = True
        return Finished(opened.job, None, (), row.kind, row.reason, opened.facts, opened.identity, opened.seconds)
    gathering.embeddings[row.number] = row.kept
    gathering.left -= 1
    gathering.seconds += row.seconds
    if gathering.left:
        return None
    gathering.over = True
    return Finished(
        opened.job,
        tuple(kept for kept in gathering.embeddings if kept is not None),
        opened.outer_shape,
        facts=opened.facts,
        identity=opened.identity,
        seconds={**opened.seconds, "embed": gathering.seconds},
    )


def give_up(gathering: Gathering | None, failed: Failed) -> Finished | None:
    """Finish a record whose file failed, before or after some of its inputs were there."""
    facts, identity = failed.facts, failed.identity
    if gathering is not None:
        if gathering.over:
            return None
        gathering.over = True
        identity = identity or gathering.opened.identity
        facts = facts if facts.format is not None else gathering.opened.facts
    return Finished(failed.job, None, (), failed.kind, failed.reason, facts, identity)
