"""The right of a start to write to a run where groups are committed: its lease, and the epoch that it has begun.

In: a run's folder. Out: a held `StoreHold`, or a `RunError` with the reason why not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import count
from types import TracebackType

from ecgfounder.cohort.naming import RUN_FOLDER
from ecgfounder.errors import RunError
from ecgfounder.ledger.entry import PartEnd, PartHeader
from ecgfounder.ledger.folder import RunFolder
from ecgfounder.ledger.groups.epochs import Epoch, seal_epoch, take_epoch
from ecgfounder.ledger.groups.fellows import Fellows
from ecgfounder.ledger.groups.lease import USUAL, Intervals, Lease
from ecgfounder.ledger.groups.names import Shard
from ecgfounder.ledger.groups.writer import DRIVER, GROUP, Bounds, GroupWriter
from ecgfounder.ledger.groups.writer import USUAL as USUAL_BOUNDS
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.record import now
from ecgfounder.ledger.removal import named_outputs, remove_obsolete, remove_tables
from ecgfounder.storage import Denied, Missing
from ecgfounder.storage.copies import copies_of

LEASES = "leases"


class StoreHold:
    """A run's folder, locked for the whole run or one shard by a lease; it is released at the end of a `with` block.

    A folder on this machine also needs the lock of `ecgfounder.ledger.admission.take_folder`, which local drivers look at.

    Raises
    ------
    RunError
        If another live process holds it, it is neither empty nor of a run, it cannot be written to, or its store ignores
        conditions.
    StorageError
        If the store does not answer.
    """

    def __init__(
        self,
        folder: RunFolder,
        shard: Shard,
        *,
        intervals: Intervals = USUAL,
        bounds: Bounds = USUAL_BOUNDS,
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._folder = folder
        self._shard = shard
        self._bounds = bounds
        self._intervals = intervals
        self._epoch: Epoch | None = None
        self._end: PartEnd | None = None
        self._numbers: dict[str, Iterator[int]] = {GROUP: count(1), DRIVER: count(1)}
        try:
            refuse_other_objects(folder)
            leases = folder.run / LEASES
            self._lease = Lease(leases, shard, str(folder.output_dir), intervals=intervals, tell=tell)
        except Denied as error:
            raise RunError(f"{folder.output_dir} cannot be written to: {error}") from error
        except Missing as error:  # the bucket
            raise RunError(f"{folder.output_dir} cannot be used: {error}") from error

    def __enter__(self) -> StoreHold:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def release(self) -> None:
        """Give back the lease."""
        self._lease.release(**({} if self._end is None else {"end": asdict(self._end)}))

    def leave(self, end: PartEnd) -> None:
        """Say what this process did; the others of a launch are told when the lease is given back, else they take it for dead."""
        self._end = end

    def fellows(self, shards: Iterable[Shard]) -> Fellows:
        """The processes that hold other shards."""
        return Fellows(self._folder.run / LEASES, shards, self._intervals)

    def check(self) -> None:
        """`Lease.check`."""
        self._lease.check()

    @property
    def epoch(self) -> Epoch:
        """The epoch of `begin`."""
        if self._epoch is None:
            raise RuntimeError("no epoch was begun")
        return self._epoch

    def begin(self, *, fresh: bool = False) -> Epoch:
        """Begin the next epoch; with `fresh`, nothing from before counts any more."""
        self._epoch = take_epoch(self._folder.run, self._shard, fresh=fresh)
        return self._epoch

    def begin_again(self) -> Epoch:
        """Begin the next epoch, for which nothing counts that was there before; then remove it."""
        folder = self._folder
        names = [name for name in folder.ledger.names() if "/" not in name]
        outputs = set(named_outputs(copies_of([folder.ledger / name for name in names])))
        self._epoch = take_epoch(folder.run, self._shard, fresh=True)
        folder.run_json.folder.delete([folder.run_json.basename])
        remove_tables(folder)
        remove_obsolete(folder, outputs)
        folder.ledger.delete(names)
        return self._epoch

    def writer(self, kind: str = GROUP, header: PartHeader | None = None) -> GroupWriter:
        """A writer of parts of the epoch; by default, `header` is that of this process."""
        header = header or PartHeader(**own_name(), started=now())
        numbers, bounds = self._numbers[kind], self._bounds
        return GroupWriter(self._folder.ledger, self.epoch, header, self.check, numbers, kind=kind, bounds=bounds)

    def next_number(self, kind: str = GROUP) -> int:
        """The number of the epoch's next part."""
        return next(self._numbers[kind])

    def seal(self) -> None:
        """End the epoch, and remove parts that do not count."""
        self.check()
        self._folder.ledger.delete(seal_epoch(self._folder.run, self.epoch))


def refuse_other_objects(folder: RunFolder) -> None:
    """Refuse a place that holds objects and no run.

    Raises
    ------
    RunError
        If there are any.
    """
    if not folder.run.is_folder() and folder.output_dir.is_folder():
        raise RunError(
            f"{folder.output_dir} is not empty and has no {RUN_FOLDER}/ of an earlier run, so it may hold other objects: "
            "nothing was written. Choose another output_dir."
        )
