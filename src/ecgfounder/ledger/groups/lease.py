"""Leases: who may write to a run in a store. A sequence of objects that are created exclusively; the highest number counts.

In: a run's folder and what is to be locked. Out: a held `Lease`, renewed in a thread, or a `RunError` that names the holder.
A lease's age is judged by the challenger's own clock alone, from when it first saw it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import orjson

from ecgfounder.errors import RunError, StorageError
from ecgfounder.ledger.groups.names import Shard, conflict, scope_of, shard_of
from ecgfounder.ledger.groups.publish import Superseded, publish
from ecgfounder.ledger.liveness import LONGEST_LOOK_SECONDS, is_this_process, own_name, process_is_alive
from ecgfounder.machine import AwakeClock
from ecgfounder.storage import Denied, Location, Missing

HELD, FREE = "held", "free"
"""States of a lease; another word is none that this program writes."""

_NAME_DIGITS = 12

_held_here: set[str] = set()
"""Tokens of the leases that this process holds now."""


@dataclass(frozen=True)
class Intervals:
    """Times in seconds.

    Attributes
    ----------
    renew : float
        Between two renewals.
    stale : float
        Without a renewal, after which a lease may be taken over.
    give_up : float
        Without a renewal of its own, after which a holder stops working.
    look : float
        Between two looks of a challenger.
    """

    renew: float = 10.0
    stale: float = 120.0
    give_up: float = 60.0
    look: float = 1.0


USUAL = Intervals()


def _tell_nobody(_text: str) -> None: ...


class Lease:
    """The lease of a whole run, or of one shard. While another may hold a conflicting one, the constructor waits.

    Parameters
    ----------
    folder : Location
        The folder of the leases.
    output_dir : str
        The run's folder, for messages.
    tell : callable
        Called with a message before a long wait.

    Raises
    ------
    RunError
        If another live process holds it or a conflicting one (host, process id and start time are in the message), or the store
        ignores conditions.
    StorageError
        If the store does not answer, or denies access.
    """

    def __init__(
        self,
        folder: Location,
        shard: Shard,
        output_dir: str,
        *,
        intervals: Intervals = USUAL,
        tell: Callable[[str], None] = _tell_nobody,
    ) -> None:
        self._folder = folder / scope_of(shard)
        self._output_dir = output_dir
        self._intervals = intervals
        self._token = uuid.uuid4().hex
        self._started = time.strftime("%Y-%m-%d %H:%M:%S")
        self._number = 0
        self._lost = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="ecgfounder-lease", daemon=True)
        watch = _Watch(folder, output_dir, intervals, tell)
        free = watch.wait_for(lambda other: other == shard)
        self._clock = AwakeClock(2 * intervals.renew)
        self._counting = threading.Lock()
        _held_here.add(self._token)  # before it can be seen: another thread would take it for one of a run that is over
        try:
            self._take(free.get(scope_of(shard), 0) + 1)
            self._probe()
            self._thread.start()
            for scope, number in watch.wait_for(lambda other: conflict(shard, other)).items():
                self._close_other(folder / scope, number)
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.release()

    def check(self) -> None:
        """Return if this process still holds the lease.

        Raises
        ------
        Superseded
            If another process has taken it over, or it could not be renewed for `Intervals.give_up` seconds.
        """
        if self._lost:
            raise Superseded(f"{self._output_dir} was taken over by {_named(_read(self._folder))}")
        silent = self._now() - self._renewed
        if silent > self._intervals.give_up:
            raise Superseded(f"the lease of {self._output_dir} could not be renewed for {silent:.0f} s")

    def release(self, **said: Any) -> None:
        """Give the lease back, with a last word; if the store does not answer, another machine takes it over later."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._token not in _held_here:
            return
        _held_here.discard(self._token)
        if self._number and not self._lost:
            try:
                self._publish(FREE, **said)
            except StorageError:
                return  # a challenger waits until it is stale

    def _now(self) -> float:
        with self._counting:
            return self._clock.now()

    def _body(self, state: str, **said: Any) -> bytes:
        """A content that is never twice the same."""
        name = own_name() | {"started": self._started, "state": state, "token": self._token, "nonce": uuid.uuid4().hex}
        return orjson.dumps(name | said)

    def _is_ours(self, content: bytes) -> bool:
        return _parsed(content).get("token") == self._token

    def _take(self, number: int) -> None:
        if not publish(self._place(number), self._body(HELD), is_ours=self._is_ours):
            raise RunError(_refusal(self._output_dir, _read(self._folder)))
        if _highest(self._folder) != number:  # others have gone on meanwhile, and removed this number before
            self._folder.delete([_name(number)])
            raise RunError(_refusal(self._output_dir, _read(self._folder)))
        self._number, self._renewed = number, self._now()

    def _probe(self) -> None:
        """Create the same object again, which must be refused."""
        if publish(self._place(self._number), self._body(HELD)):
            raise RunError(
                f"{self._output_dir} cannot be used: its store replaces an object that exists although it was asked not to "
                "(conditional writes, If-None-Match), so that two runs could destroy each other's results. Choose another store."
            )

    def _publish(self, state: str, **said: Any) -> None:
        """Create the next lease, and remove the older ones."""
        number = self._number + 1
        if not publish(self._place(number), self._body(state, **said), is_ours=self._is_ours):
            self._lost = True
            return
        numbers = _numbers(self._folder)
        if max(numbers, default=number) != number:
            self._lost = True
            self._folder.delete([_name(number)])
            return
        self._number, self._renewed = number, self._now()
        self._folder.delete([_name(older) for older in numbers if older < number])

    def _keep(self) -> None:
        while not (self._lost or self._stopped.wait(self._intervals.renew)):
            self._now()  # a clock that is not read does not go on
            try:
                self._publish(HELD)
            except StorageError:
                continue  # `check` notices if this goes on

    def _close_other(self, folder: Location, number: int) -> None:
        """Take over the lease of a dead process that would conflict, so that its renewal fails if it lives after all."""
        if _read(folder).get("state") == FREE:
            return
        if not publish(folder / _name(number + 1), self._body(FREE), is_ours=self._is_ours):
            raise RunError(_refusal(self._output_dir, _read(folder)))
        folder.delete([_name(older) for older in _numbers(folder) if older <= number])

    def _place(self, number: int) -> Location:
        return self._folder / _name(number)


class LeaseSight:
    """A worker's view of its driver's lease, in a thread: it must stop if the lease is not renewed any more.

    Parameters
    ----------
    folder : Location
        The folder of the leases.
    shard : tuple of (int, int)
        What the driver has locked.
    ended : callable
        Called once, in the thread, when the driver is gone.

    Attributes
    ----------
    over : threading.Event
        Set when the driver is gone.
    """

    def __init__(
        self, folder: Location, shard: Shard, *, intervals: Intervals = USUAL, ended: Callable[[], None]
    ) -> None:
        self._folder = folder / scope_of(shard)
        self._intervals = intervals
        self._tell = ended
        self._stopped = threading.Event()
        self._clock = AwakeClock(3 * intervals.renew)
        self.over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="ecgfounder-lease-sight", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def check(self) -> None:
        """Return if the driver may still live.

        Raises
        ------
        Superseded
            If it is gone.
        """
        if self.over.is_set():
            raise Superseded(f"{self._folder.folder.folder.folder}: its driver does not renew its lease any more")

    def _watch(self) -> None:
        seen, since = 0, self._clock.now()
        while not self._stopped.wait(2 * self._intervals.renew):
            now = self._clock.now()
            try:
                number = _highest(self._folder)
            except StorageError:
                number = seen  # as if it had not been renewed
            if number > seen:
                seen, since = number, now
            elif now - since > self._intervals.give_up:
                self.over.set()
                self._tell()
                return


class _Watch:
    """A challenger's view of other leases."""

    def __init__(self, folder: Location, output_dir: str, intervals: Intervals, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._output_dir = output_dir
        self._intervals = intervals
        self._tell = tell
        self._over: set[tuple[str, int]] = set()  # leases that are free, or of dead processes

    def wait_for(self, wanted: Callable[[Shard], bool]) -> dict[str, int]:
        """Wait until none of some leases is held; returns the highest number of each.

        Raises
        ------
        RunError
            If one of them is renewed.
        """
        first = tops = self._tops(wanted)
        clock = AwakeClock(max(LONGEST_LOOK_SECONDS, 2 * self._intervals.look))
        while held := [scope for scope, number in tops.items() if not self._is_over(scope, number)]:
            for scope in held:
                if first.get(scope) != tops[scope]:
                    raise RunError(_refusal(self._output_dir, _read(self._folder / scope)))
            if clock.now() >= self._intervals.stale:
                break
            if tops is first:
                self._tell(
                    f"{self._output_dir} may be in use by {_named(_read(self._folder / held[0]))}; looking whether it is "
                    f"alive, for at most {self._intervals.stale:.0f} s"
                )
            time.sleep(self._intervals.look)
            tops = self._tops(wanted)
        return tops

    def _tops(self, wanted: Callable[[Shard], bool]) -> dict[str, int]:
        return {scope_of(shard): number for shard, number in newest_leases(self._folder, wanted).items()}

    def _is_over(self, scope: str, number: int) -> bool:
        """Whether a lease is free, or its holder is known to be dead."""
        if (scope, number) not in self._over:
            try:
                holder = _parsed((self._folder / scope / _name(number)).read())
            except Missing:  # renewed since it was listed
                return False
            here = is_this_process(holder) and holder.get("token") not in _held_here
            if holder.get("state") != FREE and not here and process_is_alive(holder):
                return False
            self._over.add((scope, number))
        return True


def newest_leases(folder: Location, wanted: Callable[[Shard], bool]) -> dict[Shard, int]:
    """The highest number of each lease that is wanted, by one listing."""
    newest: dict[Shard, int] = {}
    for name in folder.names():
        scope, _, last = name.partition("/")
        shard, number = shard_of(scope), _number(last)
        if shard is not None and number is not None and wanted(shard):
            newest[shard] = max(number, newest.get(shard, 0))
    return newest


def read_lease(folder: Location, shard: Shard, number: int) -> Mapping[str, Any] | None:
    """What a lease says of its holder; None if a newer one has replaced it."""
    try:
        return _parsed((folder / scope_of(shard) / _name(number)).read())
    except Missing:
        return None


def _name(number: int) -> str:
    return f"lease.{number:0{_NAME_DIGITS}d}"


def _number(name: str) -> int | None:
    prefix, _, digits = name.partition(".")
    return int(digits) if prefix == "lease" and digits.isdecimal() else None


def _numbers(folder: Location) -> list[int]:
    return [number for name in folder.names() if (number := _number(name)) is not None]


def _highest(folder: Location) -> int:
    return max(_numbers(folder), default=0)


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid", 0), int) else {}


def _read(folder: Location) -> Mapping[str, Any]:
    """The newest lease, for messages; empty if it cannot be read."""
    try:
        return _parsed((folder / _name(_highest(folder))).read())
    except (Missing, Denied):
        return {}


def newest_lease(folder: Location) -> tuple[Mapping[str, Any], Location | None]:
    """The newest lease of a folder and its place: "state", "host", "pid" and others; empty and None if there is none."""
    number = _highest(folder)
    return (_read(folder), folder / _name(number)) if number else ({}, None)


def _named(holder: Mapping[str, Any]) -> str:
    if not {"host", "pid"} <= set(holder):
        return "another process"
    return f"process {holder['pid']} on {holder['host']}, started {holder.get('started', 'at an unknown time')}"


def _refusal(output_dir: str, holder: Mapping[str, Any]) -> str:
    return f"{output_dir} is in use by {_named(holder)}. Wait for it, stop it, or choose another output_dir."
