"""Collect the embeddings of a record, whose inputs are in batches with others and finish in any order.

In: `Embedded` rows, and failures. Out: a `Finished` record, when all its inputs are embedded or one has failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ecgfounder.ecg.facts import Facts, Identity
from ecgfounder.stages.pooling import InputEmbedding
from ecgfounder.stages.read import Failed, Job, Opened


@dataclass(frozen=True, slots=True)
class Finished:
    """One finished record: the embeddings of its inputs in order, or the reason for its failure.

    Attributes
    ----------
    embeddings : tuple of InputEmbedding or None
        The embedding of each input, in order; None for a failure.
    kind, reason : str
        Of a failure: the error's class name, and its message.
    seconds : mapping of str to float
        Time by stage.
    absent : tuple of str
        Of a failure: the files that the recording lacks.
    """

    job: Job
    embeddings: tuple[InputEmbedding, ...] | None = None
    outer_shape: tuple[int, ...] = ()
    kind: str = ""
    reason: str = ""
    facts: Facts = field(default_factory=Facts)
    identity: Identity | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclass(eq=False)
class Gathering:
    """A record in progress: the embeddings of its inputs so far; `over` when it is finished."""

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
    """The result of one input: its embedding, or its error."""

    gathering: Gathering
    number: int
    kept: InputEmbedding | None
    seconds: float = 0.0
    kind: str = ""
    reason: str = ""


def collect(row: Embedded) -> Finished | None:
    """Add a row to its record; returns the record when it is complete, or at its first failure."""
    gathering = row.gathering
    if gathering.over:
        return None  # it has already failed, because of another input
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
    """Finish a record whose file failed, before or after some of its inputs were read."""
    facts, identity = failed.facts, failed.identity
    if gathering is not None:
        if gathering.over:
            return None
        gathering.over = True
        identity = identity or gathering.opened.identity
        facts = facts if facts.format is not None else gathering.opened.facts
    return Finished(failed.job, None, (), failed.kind, failed.reason, facts, identity, absent=failed.absent)
