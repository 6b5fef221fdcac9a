"""Epochs: which parts of a ledger count. A start takes the next epoch of what it locks, by exclusive creation.

In: a run's folder. Out: an `Epoch`, which names the parts before it that count; a finished run seals its epoch, which names all.
A part counts if it is of the newest epoch, or named by what came after it. So nothing that a process writes too late counts.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

import msgspec
import orjson

from ecgfounder.errors import RunError
from ecgfounder.ledger.groups.names import WHOLE, PartName, Shard, parse_part, scope_of, shard_of
from ecgfounder.ledger.groups.publish import Superseded, publish
from ecgfounder.storage import Location, Missing

EPOCHS, LEDGER = "epochs", "ledger"
PART_SUFFIX = ".jsonl"

_SEAL, _BEGUN = ".seal.json", ".json"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One start's epoch, as its object says.

    Attributes
    ----------
    shard : tuple of (int, int)
        What it locks: (1, 1) for the whole run, or a shard.
    number : int
        From 1, in its own sequence for the whole run and for each shard.
    stamp : int
        In ns; parts of a later epoch sort after those of an earlier one.
    base : int
        For a shard: the newest epoch of the whole run when it began. A newer one ends it.
    token : str
        Tells the attempt from all others.
    parts : tuple of str
        The parts before it that count: of all, for the whole run, or of this shard since `base`.
    """

    shard: Shard
    number: int
    stamp: int
    base: int
    token: str
    parts: tuple[str, ...]

    @property
    def prefix(self) -> str:
        """How the names of its Parquet shards begin, after the word that all have."""
        return f"{self.stamp:020d}-shard{self.shard[0]}of{self.shard[1]}-epoch{self.number:06d}"


@dataclass(frozen=True, kw_only=True)
class _Seal:
    """The end of an epoch: all parts that count, its own among them."""

    token: str
    parts: tuple[str, ...]


def has_epochs(run: Location) -> bool:
    """Whether a run's parts count by epochs: groups have been committed to it, in a store or by a distributed driver."""
    return bool(_newest(run))


def is_visible(run: Location, epoch: Epoch) -> bool:
    """Whether a folder, as this machine sees it, is that in which the epoch was begun.

    Raises
    ------
    StorageError
        If the store does not answer.
    """
    try:
        return epoch.token.encode() in _place(run, epoch.shard, epoch.number, _BEGUN).read()
    except Missing:
        return False


def take_epoch(run: Location, shard: Shard, *, fresh: bool = False) -> Epoch:
    """Begin the next epoch; only for the holder of the lease.

    Parameters
    ----------
    fresh : bool, default: False
        Whether nothing from before counts any more.

    Raises
    ------
    RunError
        If another process begins one at the same time, or an epoch cannot be read.
    StorageError
        If the store does not answer.
    """
    view = _View(run / LEDGER)
    if fresh:
        counting: tuple[str, ...] = ()
    else:
        counting = view.all_parts() if shard == WHOLE else view.parts_of(shard)
    stamps = (name.partition("-")[0] for name in view.names)
    stamp = max(time.time_ns(), 1 + max((int(stamp) for stamp in stamps if stamp.isdecimal()), default=0))
    number = view.newest.get(shard, 0) + 1
    base = view.newest.get(WHOLE, 0)
    epoch = Epoch(shard=shard, number=number, stamp=stamp, base=base, token=uuid.uuid4().hex, parts=counting)
    if not publish(_place(run, shard, number, _BEGUN), orjson.dumps(asdict(epoch))):
        raise RunError(f"{run.folder} is in use: another process began at the same time. Start again later.")
    if shard != WHOLE and _newest(run).get(WHOLE, 0) != base:
        raise RunError(f"{run.folder} is in use: the whole run was begun or merged meanwhile. Start again later.")
    return epoch


def seal_epoch(run: Location, epoch: Epoch) -> list[str]:
    """End an epoch: from now on, exactly the parts that count now count; returns the names of the others.

    Raises
    ------
    Superseded
        If a newer epoch has begun.
    """
    view = _View(run / LEDGER)
    _refuse_older(view, epoch)
    parts = view.all_parts() if epoch.shard == WHOLE else view.parts_of(epoch.shard)
    body = orjson.dumps(asdict(_Seal(token=epoch.token, parts=parts)))
    if not publish(_place(run, epoch.shard, epoch.number, _SEAL), body):
        raise Superseded(f"{run.folder} was sealed by another process")
    view = _View(run / LEDGER)
    _refuse_older(view, epoch)  # this process may have stood still before it sealed
    return sorted(view.names - set(view.all_parts()))


def _refuse_older(view: _View, epoch: Epoch) -> None:
    """Refuse an epoch that is not the newest any more."""
    if view.newest.get(epoch.shard) != epoch.number or (
        epoch.shard != WHOLE and view.newest.get(WHOLE, 0) != epoch.base
    ):
        raise Superseded(f"{view.run.folder} was taken over by another process")


def counting_parts(ledger: Location) -> tuple[str, ...]:
    """The names of the parts in a ledger's folder that count, in the order of their epochs.

    Raises
    ------
    RunError
        If an epoch cannot be read.
    """
    return _View(ledger).all_parts()


def latest_epochs(run: Location) -> dict[Shard, tuple[Epoch, Location | None]]:
    """The newest epoch of the whole run and of each shard, with the place of its seal if it has ended.

    Raises
    ------
    RunError
        If an epoch cannot be read.
    """
    sealed: set[tuple[Shard, int]] = set()
    return {
        shard: (
            _read(_place(run, shard, number, _BEGUN), Epoch),
            _place(run, shard, number, _SEAL) if (shard, number) in sealed else None,
        )
        for shard, number in _newest(run, sealed).items()
    }


class _View:
    """The epochs and parts of a run, as they are now. Epochs are listed first: what is older than the parts names fewer."""

    def __init__(self, ledger: Location) -> None:
        self.run = ledger.folder
        self._sealed: set[tuple[Shard, int]] = set()
        self.newest = _newest(self.run, self._sealed)
        self.names = {name for name in ledger.names() if name.endswith(PART_SUFFIX) and "/" not in name}
        self._by_epoch: dict[PartName | None, list[str]] = {}
        for name in self.names:
            self._by_epoch.setdefault(parse_part(name), []).append(name)

    def all_parts(self) -> tuple[str, ...]:
        """The parts of all shards that count."""
        counting = {name for shard in self.newest if shard != WHOLE for name in self.parts_of(shard)}
        whole = self.newest.get(WHOLE, 0)
        if whole:
            counting.update(self._of_newest(WHOLE, whole))
        else:
            counting.update(self._by_epoch.get(None, ()))  # appended without epochs: before the first
        return tuple(sorted(counting))

    def parts_of(self, shard: Shard) -> tuple[str, ...]:
        """The parts of one shard since the newest epoch of the whole run."""
        number = self.newest.get(shard, 0)
        if not number or self._begun(shard, number).base != self.newest.get(WHOLE, 0):
            return ()
        return tuple(sorted(self._of_newest(shard, number)))

    def _of_newest(self, shard: Shard, number: int) -> Iterator[str]:
        if (shard, number) in self._sealed:
            named: Iterable[str] = _read(_place(self.run, shard, number, _SEAL), _Seal).parts
        else:
            named = self._begun(shard, number).parts
            yield from self._by_epoch.get(PartName(shard, number), ())
        yield from self.names.intersection(named)

    def _begun(self, shard: Shard, number: int) -> Epoch:
        return _read(_place(self.run, shard, number, _BEGUN), Epoch)


def _newest(run: Location, sealed: set[tuple[Shard, int]] | None = None) -> dict[Shard, int]:
    """The number of the newest epoch of the whole run and of each shard; collects the sealed ones."""
    newest: dict[Shard, int] = {}
    for name in (run / EPOCHS).names():
        scope, _, last = name.partition("/")
        shard, digits = shard_of(scope), last.partition(".")[0]
        if shard is None or not digits.isdecimal():
            continue
        newest[shard] = max(int(digits), newest.get(shard, 0))
        if sealed is not None and last.endswith(_SEAL):
            sealed.add((shard, int(digits)))
    return newest


def _place(run: Location, shard: Shard, number: int, suffix: str) -> Location:
    return run / EPOCHS / scope_of(shard) / f"{number:06d}{suffix}"


T = TypeVar("T", Epoch, _Seal)


def _read(place: Location, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(place.read(), type=kind)
    except msgspec.DecodeError as error:
        raise RunError(f"{place} is damaged: which results of the run count is not known. {error}") from error
