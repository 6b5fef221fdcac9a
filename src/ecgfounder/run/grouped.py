"""A run whose records are done in groups by workers elsewhere: it plans, locks, cuts groups and reads results; no signals pass.

In: `Settings` with a driver. Out: as `ecgfounder.run.run.Run`. The subclass of a driver carries the groups to its workers.
"""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ecgfounder.distributed.checkpoint import pieces_of
from ecgfounder.distributed.schedule import Schedule
from ecgfounder.distributed.work import Facts, Group, NetworkChoice, Outcome, Work
from ecgfounder.drivers.launch import Launch
from ecgfounder.errors import EmbeddingError, RunError, StorageError
from ecgfounder.escaping import counted
from ecgfounder.ledger.admission import take_folder
from ecgfounder.ledger.entry import Entry, PartEnd, PartHeader
from ecgfounder.ledger.groups.hold import StoreHold
from ecgfounder.ledger.groups.lease import USUAL
from ecgfounder.ledger.groups.names import part_of_group
from ecgfounder.ledger.groups.writer import DRIVER, GROUP, close_group
from ecgfounder.ledger.ledger import lines_of, read_ledger
from ecgfounder.ledger.liveness import own_name
from ecgfounder.ledger.record import now
from ecgfounder.ledger.removal import remove_obsolete
from ecgfounder.machine import is_launched
from ecgfounder.network.head import Head
from ecgfounder.run.budget import make_budget
from ecgfounder.run.run import SHORT_SECONDS, Opening, Run, Started
from ecgfounder.run.summary import Summary
from ecgfounder.sinks.sink import FailuresOnly
from ecgfounder.stages.collect import Finished
from ecgfounder.stages.pooling import chosen_head
from ecgfounder.stages.read import Job, ReadTask
from ecgfounder.stages.record import Recorder
from ecgfounder.storage import is_url

TROUBLES = 3
"""Groups in a row that workers give back because of the same or other trouble, until the run ends."""

KILLS_ITS_WORKER = "the process that embeds it died each time, and not with another recording"


@dataclass
class EngineElsewhere:
    """The engine of the workers, as the first of them describes it; updated by what they measure."""

    name: str
    precision: str
    device: str
    batch_size: int
    description: str
    samples_per_pass: int | None = None
    relative_error: float | None = None
    is_known: bool = True

    def describe(self) -> str:
        return self.description

    @classmethod
    def of(cls, facts: Facts) -> EngineElsewhere:
        return cls(facts.engine, facts.precision, facts.device, facts.batch_size, facts.description)

    def learn(self, facts: Facts) -> None:
        """Become what a worker says of its engine."""
        self.name, self.precision, self.device = facts.engine, facts.precision, facts.device
        self.description, self.is_known = facts.description, True


class GroupedRun(Run):
    """One attempt of a run whose groups are carried to workers."""

    work: Work
    intervals = USUAL

    def execute(self) -> Summary:
        """`Run.execute`."""
        began = time.monotonic()
        if is_launched():
            raise RunError(
                f"driver={self.settings.driver!r} starts its own workers: start the command once, without a launcher "
                "(accelerate, torchrun)."
            )
        return self._execute(Launch(), began)

    # --- the start ---------------------------------------------------------------------------------------------------

    def _take_folder(self, stack: ExitStack) -> None:
        if not self.folder.is_remote:
            stack.enter_context(take_folder(self.folder, self.settings.shard))
        self._hold = stack.enter_context(self._hold_of(self.settings.shard))

    def _hold_of(self, shard: tuple[int, int]) -> StoreHold:
        return StoreHold(self.folder, shard, intervals=self.intervals, tell=self.console.line)

    def _start(self, launch: Launch, stack: ExitStack, began: float) -> Started:
        opening = self._open()
        stamp, run_id = self._open_folder(opening, stack)
        state = self._state or read_ledger(self.folder.ledger)
        plan = self._plan(opening, launch, state)
        self._state = state if plan.renewals else None
        make_budget(plan.n_todo, self.settings, state, self.folder.output_dir).check(self.folder.output_dir)
        self.work = self._work(opening)
        if plan.n_todo:
            engine = self._open_workers(opening, plan.n_todo, stack)
        else:
            engine = self._unknown_engine("not started")
            before = self.folder.read()
            if before is not None:  # its results are those of that engine
                engine.name, engine.precision, engine.device = (
                    before.engine.name,
                    before.engine.precision,
                    before.engine.device,
                )
        started = Started(opening, launch, stamp, run_id, plan, engine, began)
        self._announce(started)
        self._begin_record(started)
        return started

    def _unknown_engine(self, description: str) -> EngineElsewhere:
        """The engine that was asked for, where no worker has described its own."""
        settings = self.settings
        size = settings.batch_size or 0
        return EngineElsewhere(
            settings.engine, settings.precision, settings.device or "", size, description, is_known=False
        )

    def note_engine(self, facts: Facts, started: Started) -> None:
        """Record the engine, as the first worker describes it that is heard of."""
        engine = started.engine
        if not isinstance(engine, EngineElsewhere) or engine.is_known or not facts.engine:
            return
        engine.learn(facts)
        record = self.folder.read()
        if record is not None and self.settings.shard[1] == 1:
            self.folder.write(replace(record, engine=self._record(started).engine))

    @abstractmethod
    def _open_workers(self, opening: Opening, n_todo: int, stack: ExitStack) -> EngineElsewhere:
        """Begin to open workers; returns what the first one says of its engine. The stack gets what must be closed later."""

    def _work(self, opening: Opening) -> Work:
        settings = self.settings
        given = settings.checkpoint
        elsewhere = given is None or is_url(given) or not os.path.exists(Path(given).expanduser())
        return Work(
            output_dir=self.folder.output_dir,
            data_dir=settings.data_dir,
            epoch=self._store_hold.epoch,
            task=ReadTask(
                settings.preparation,
                settings.reader,
                settings.hints,
                settings.statements,
                settings.storage_options,
                settings.heart_rate,
            ),
            network=NetworkChoice(
                mode=settings.mode,
                checkpoint=given,
                can_download=elsewhere,
                path=str(opening.checkpoint.absolute()),
                sha256=opening.digest,
                engine=settings.engine,
                precision=settings.precision,
                device=settings.device,
                compiled=settings.compile,
                batch_size=settings.batch_size,
            ),
            pooling=settings.pooling,
            predictions=_predictions(settings.predictions),
            format=settings.format,
            dtype=settings.dtype,
            shard_size=settings.shard_size,
            record_column=self._record_column,
            num_workers=settings.num_workers,
            read_timeout=settings.read_timeout,
            read_memory=settings.read_memory,
            intervals=self.intervals,
        )

    def _pieces(self) -> Iterable[bytes]:
        """The checkpoint's content, for machines that have none."""
        return pieces_of(Path(self.work.network.path))

    # --- the groups --------------------------------------------------------------------------------------------------

    def _process(self, started: Started) -> Recorder:
        """Let workers do the records; the recorder has what this process decides itself, and the counts of all."""
        ledger = self._store_hold.writer(DRIVER)
        self._renew(started, ledger)
        recorder = Recorder(FailuresOnly(), ledger)
        schedule = Schedule(
            self._jobs(started, recorder),
            started.plan.n_todo,
            self.settings.records_per_group,
            self._store_hold.next_number,
        )
        returned = Returned(self, started, schedule, recorder)
        began = time.monotonic()
        try:
            self._carry(schedule, returned)
            ledger.end(PartEnd())
            remove_obsolete(self.folder, recorder.take_obsolete())
        except StorageError as error:
            ledger.abandon()
            self._trouble.end(str(error))
        except BaseException:
            ledger.abandon()
            raise
        recorder.done += schedule.done
        recorder.failed += schedule.failed
        if time.monotonic() - began > SHORT_SECONDS and schedule.slowest:
            self._slowest = schedule.slowest.most_common(1)[0][0]
        return recorder

    def _process_again(self, started: Started) -> Recorder:
        return self._process(started)

    def _repaired(self, started: Started, recorder: Recorder) -> Recorder:
        # Without anything to do, no worker was opened.
        return super()._repaired(started, recorder) if started.plan.n_todo else recorder

    @abstractmethod
    def _carry(self, schedule: Schedule, returned: Returned) -> None:
        """Hand out the schedule's groups until it is over, or the attempt is cut short."""

    def check(self) -> None:
        """Return if this process may still write.

        Raises
        ------
        StorageError
            If another has taken over, or the lease could not be renewed.
        """
        self._store_hold.check()

    def end(self, reason: str) -> None:
        """Hand out no more groups, because of trouble that does not pass."""
        self._trouble.end(reason)

    def _precision_error(self, started: Started) -> float | None:
        return started.engine.relative_error if isinstance(started.engine, EngineElsewhere) else None


class Returned:
    """What comes back from the workers of an attempt: outcomes, and groups of workers that died."""

    def __init__(self, run: GroupedRun, started: Started, schedule: Schedule, recorder: Recorder) -> None:
        self._run = run
        self._started = started
        self._schedule = schedule
        self._recorder = recorder
        self._troubles = 0

    def take(self, outcome: Outcome, machine: str = "") -> bool:
        """Count an outcome that came from a machine; returns whether the worker had trouble."""
        if outcome.lost:
            self._schedule.finish(self.published(outcome.number))
            return False
        if outcome.undecided:
            self.close(outcome.number)
            return self._troubled(outcome.trouble or "")
        self._schedule.finish(outcome, machine)
        remove_obsolete(self._run.folder, outcome.obsolete)
        self._run.note_engine(outcome.facts, self._started)
        engine = self._started.engine
        if isinstance(engine, EngineElsewhere):
            engine.samples_per_pass = outcome.samples_per_pass or engine.samples_per_pass
            errors = [error for error in (engine.relative_error, outcome.relative_error) if error is not None]
            engine.relative_error = max(errors, default=None)
        if outcome.trouble is not None:
            return self._troubled(f"{outcome.facts.host}: {outcome.trouble}")
        if outcome.published:
            self._troubles = 0
        return False

    def _troubled(self, reason: str) -> bool:
        self._troubles += 1
        if self._troubles >= TROUBLES:
            self._run.end(reason)
        return True

    def close(self, number: int) -> None:
        """Give a group's records to others, unless its part is there after all."""
        if self._is_closed(number):
            self._schedule.put_back(number)
        else:
            self._schedule.finish(self.published(number))

    def lose(self, number: int, machine: str) -> Job | None:
        """`close`, for a group whose worker died; returns a record that was alone with it each time."""
        if self._is_closed(number):
            return self._schedule.lose(number, machine)
        self._schedule.finish(self.published(number))
        return None

    def _is_closed(self, number: int) -> bool:
        """Publish a group's part as `split`, after which no attempt can publish it; False if it was published before."""
        header = PartHeader(**own_name(), started=now())
        return close_group(self._run.folder.ledger, self._run.work.epoch, number, header)

    def published(self, number: int) -> Outcome:
        """The outcome of a group from its part of the ledger."""
        epoch = self._run.work.epoch
        name = part_of_group(epoch.stamp, epoch.shard, epoch.number, GROUP, number)
        entries = [line for _, line in lines_of(self._run.folder.ledger / name) if isinstance(line, Entry)]
        failed = [entry for entry in entries if entry.status == "failed"]
        keys = {entry.number for entry in entries}
        remove_obsolete(self._run.folder, [entry.removes for entry in failed if entry.removes])
        reasons: dict[str, int] = {}
        for entry in failed:
            reasons[str(entry.error)] = reasons.get(str(entry.error), 0) + 1
        return Outcome(
            number=number,
            facts=Facts(host="", pid=0, engine="", precision="", device="", description="", batch_size=0),
            published=True,
            done=len(entries) - len(failed),
            failed=len(failed),
            reasons=reasons,
            left=tuple(job.place for job in self._schedule.given(number).jobs if job.key not in keys),
        )

    def blame(self, job: Job) -> None:
        """Let a record fail because its worker died each time."""
        self._recorder.finish([Finished(job, kind=EmbeddingError.__name__, reason=KILLS_ITS_WORKER)])

    def tick(self, workers: int) -> None:
        """Called often: check the lease, publish what the driver decided, show progress.

        Raises
        ------
        StorageError
            If this process must not write any more.
        """
        self._run.check()
        self._recorder.finish([])
        done, failed = self._schedule.done, self._schedule.failed + self._recorder.failed
        self._run.console.progress(done, failed, self._schedule.total, self._detail(workers))

    def _detail(self, workers: int) -> str:
        """The workers, their bottleneck, and the most frequent reasons of failures."""
        slowest = self._schedule.slowest.most_common(1)
        reasons = ", ".join(f"{kind} {count:,}" for kind, count in self._schedule.reasons.most_common(3))
        said = [counted(workers, "worker")] if workers else []
        said += [f"slowest stage: {slowest[0][0]}"] if slowest else []
        return ", ".join([*said, *([f"failures: {reasons}"] if reasons else [])])


class CalledRun(GroupedRun):
    """A run whose groups are carried by a function of the caller."""

    def _open_workers(self, opening: Opening, n_todo: int, stack: ExitStack) -> EngineElsewhere:
        return self._unknown_engine("of the workers")

    def _carry(self, schedule: Schedule, returned: Returned) -> None:
        """Call the function until nothing is left, or a call brings nothing."""
        carrier = self.settings.carrier
        assert carrier is not None
        while not (schedule.is_over or self._is_cut_short):
            before = schedule.done + schedule.failed
            given: list[int] = []
            for outcome in carrier(self.work, self._groups(schedule, given)):
                if outcome.number in given:  # a second attempt may have brought it before
                    given.remove(outcome.number)
                    returned.take(outcome)
                returned.tick(0)
                if self._is_cut_short:
                    return
            for number in list(given):
                returned.close(number)
            if schedule.done + schedule.failed == before and not schedule.is_over:
                self.end("the driver's function brought no results")

    def _groups(self, schedule: Schedule, given: list[int]) -> Iterator[Group]:
        while not self._is_cut_short and (group := schedule.next(1)) is not None:
            given.append(group.number)
            yield group


def _predictions(predictions: bool | str) -> bool | Head:
    """What workers, which may not see a probe's file, are told of the predictions."""
    return chosen_head(predictions, None) or False if isinstance(predictions, str) else predictions
