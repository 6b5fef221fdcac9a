"""Workers as actors of a Ray cluster: started where there is room, given groups, watched.

In: the address of a cluster, a function that opens a worker, groups. Out: events: workers that opened, were refused or died, and
the results of groups. It knows neither what a group is nor what a result means, and moves no signals.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import math
import os
import pickle
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ecgfounder._version import __version__
from ecgfounder.drivers.actors import ADDRESS, ActorSettings
from ecgfounder.drivers.interruption import ENDING_SIGNALS
from ecgfounder.errors import ECGFounderError, MissingDependencyError, RunError
from ecgfounder.machine import usable_cores

OBJECT_STORE_BYTES = 100 << 20
"""Memory of Ray's object store in a cluster that this program starts: only small messages pass through it."""
MOST_CORES = 8
"""Cores of a worker without a GPU by default; on larger machines there are several workers."""
IN_HAND = 2
"""Groups that a worker has: one is read while the other is finished."""
TELL_SECONDS = 60.0
"""Time without a worker after which a message names what is missing, and between two such messages."""
CONNECT_SECONDS = 10.0
PATIENCE_SECONDS = 1800.0
"""Time without a result after which a worker that has groups counts as dead: three times as long as a group takes records."""
OPENING_SECONDS = 120.0
"""Time for which a worker that has not opened is waited for where a group should be done on another machine."""
LOOK_SECONDS = 5.0
"""Time between two looks at the cluster's machines."""
ANSWER_SECONDS = 5.0
"""Time for which an answer of the cluster's head is waited for before the last one is used."""
HEAD_SECONDS = 40.0
"""Time without an answer of the head after which it counts as lost: Ray itself ends the process after 60 s."""
SHUTDOWN_SECONDS = 15.0
"""Time for the end of the connection, which a head that does not answer holds up for ever."""

log = logging.getLogger(__name__)

MOST_SAID = 300
"""Characters of a message of Ray that are shown."""
_IDENTIFIER = re.compile(r"(class_name|actor_id|pid|name|namespace|ip): ")
_NODE_DIED = re.compile(r"node (has )?died|node was (terminated|preempted|drained)|node is dead", re.IGNORECASE)


def require_ray() -> Any:
    """The package ray.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingDependencyError("ray", "driver='ray'", "ray") from error


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """The package ray, connected to a cluster; a cluster that this starts is ended with the block.

    A connection that the caller has made before is used, and left open.

    Raises
    ------
    RunError
        If no cluster answers.
    MissingDependencyError
        If Ray is not installed.
    """
    address = address or ("auto" if os.environ.get("RAY_ADDRESS") else "local")
    if address == "local" and "ray" not in sys.modules:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # which keeps all its ports on loopback
    ray = require_ray()
    if ray.is_initialized():
        yield ray
        return
    _refuse_deaf(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    own: dict[str, Any] = {}
    if address == "local":
        own = {"num_cpus": usable_cores(), "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    with _own_signals():
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True, **own)
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"No Ray cluster can be used at {address!r} (ray_address): {reason}") from error
    try:
        yield ray
    finally:
        with _own_signals():
            _disconnect(ray)


def _disconnect(ray: Any) -> None:
    """End the connection, or leave it behind if the cluster's head holds that up."""
    global _left_behind
    ending = threading.Thread(target=ray.shutdown, name="ecgfounder-ray-shutdown", daemon=True)
    ending.start()
    ending.join(SHUTDOWN_SECONDS)
    if ending.is_alive():
        _left_behind = True
        atexit.unregister(ray.shutdown)


_left_behind = False


def leave(status: int) -> None:
    """End this process, a command, with this exit status if it has left a connection behind, else do nothing.

    Ray's code crashes at the usual end of an interpreter that still has such a connection.
    """
    if _left_behind:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _refuse_deaf(address: str) -> None:
    """Refuse an address at which nothing listens: Ray would try it for minutes."""
    if ADDRESS.fullmatch(address) is None:
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
            return
    except (OSError, OverflowError) as error:
        raise RunError(f"No Ray cluster answers at {address} (ray_address): {error}") from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray replaces handlers of signals: keep those of this program."""
    try:
        before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
        yield
    finally:
        for number, handler in before.items():
            with suppress(ValueError):  # not in the main thread, where Ray sets none either
                signal.signal(number, handler)


# --- in the cluster ----------------------------------------------------------------------------------------------------


class Result(Protocol):
    """The part of a group's result that is shown as metrics."""

    @property
    def done(self) -> int: ...

    @property
    def reasons(self) -> Mapping[str, int]: ...

    @property
    def seconds(self) -> Mapping[str, float]: ...


class Opened(Protocol):
    """A worker, as the function that opens it returns it."""

    facts: Any

    def submit(self, group: Any) -> Future[Any]: ...

    def stop(self) -> None: ...

    def outlive(self) -> None:
        """Return when its driver is gone for good, and what it had in hand is finished or left."""


class Host:
    """The actor: holds one worker. Its methods return what went wrong as a text that quotes no file."""

    def __init__(self) -> None:
        self._worker: Opened | None = None
        self._meters: dict[str, Any] = {}

    def open(self, version: str, opener: bytes, share: float, pieces: Sequence[Any] | None) -> tuple[str, Any]:
        """Open the worker: "opened" with its facts, "absent" (the checkpoint must be sent) or "refused" with the reason."""
        if version != __version__:
            return "refused", (
                f"{socket.gethostname()} has version {__version__} of ecgfounder, and the driver version {version}: install the "
                "same version on all machines"
            )
        ray = importlib.import_module("ray")
        content = None if pieces is None else (ray.get(piece) for piece in pieces)
        try:
            self._worker = pickle.loads(opener)(content, share)
        except ECGFounderError as error:
            kind = "absent" if type(error).__name__ == "CheckpointAbsent" else "refused"
            return kind, str(error)
        except Exception as error:  # noqa: BLE001 - whatever this machine lacks: no recording has been read yet
            return "refused", f"{socket.gethostname()}: {type(error).__name__}: {error}"
        assert self._worker is not None
        threading.Thread(target=_end_without_driver, args=(self._worker,), name="ecgfounder-end", daemon=True).start()
        return "opened", (self._worker.facts, ray.get_runtime_context().get_node_id())

    def do(self, group: Any) -> tuple[str, Any]:
        """Do a group: "done" with its result, or "broken" with the kind of the error."""
        assert self._worker is not None
        try:
            result = self._worker.submit(group).result()
        except ECGFounderError as error:
            return "broken", str(error)
        except Exception as error:  # noqa: BLE001 - its message may quote a file
            return "broken", type(error).__name__
        self._measure(result)
        return "done", result

    def stop(self) -> None:
        """Take no more records."""
        if self._worker is not None:
            self._worker.stop()

    def _measure(self, result: Result) -> None:
        """Ray's metrics, which its dashboard and Prometheus show."""
        if not self._meters:
            metrics = importlib.import_module("ray.util.metrics")
            self._meters = {
                "done": metrics.Counter("ecgfounder_recordings_done", "Recordings that were embedded"),
                "failed": metrics.Counter("ecgfounder_recordings_failed", "Recordings that failed", ("reason",)),
                "seconds": metrics.Counter("ecgfounder_stage_seconds", "Time by stage, of all threads", ("stage",)),
            }
        if result.done:
            self._meters["done"].inc(result.done)
        for reason, count in result.reasons.items():
            self._meters["failed"].inc(count, {"reason": reason})
        for stage, seconds in result.seconds.items():
            if seconds > 0:
                self._meters["seconds"].inc(seconds, {"stage": stage})


def _end_without_driver(worker: Opened) -> None:
    """End this process when its driver is gone: a cluster without a head does not do it."""
    worker.outlive()
    os._exit(1)


# --- at the driver -----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Actor:
    """A worker, as the driver sees it.

    Attributes
    ----------
    machine : str
        The identifier of its node; "" before Ray has chosen one.
    host : str
        The node's name.
    facts : Any
        What the worker says of itself; None until it is open.
    groups : dict
        The groups that it has, by the reference of the result.
    heard : float
        When it got its first group, or gave its last result.
    is_leaving : bool
        Whether its machine is about to be taken away: it gets no more groups.
    """

    handle: Any
    machine: str
    host: str
    share: float
    since: float
    facts: Any = None
    opening: Any = None
    groups: dict[Any, Any] = field(default_factory=dict)
    heard: float = 0.0
    paused_until: float = 0.0
    is_leaving: bool = False

    @property
    def is_open(self) -> bool:
        return self.facts is not None and not self.is_leaving

    @property
    def has_room(self) -> bool:
        return self.is_open and len(self.groups) < IN_HAND and time.monotonic() >= self.paused_until


@dataclass(frozen=True)
class Started:
    """A worker is open."""

    actor: Actor


@dataclass(frozen=True)
class Refused:
    """A machine cannot do the work, for this reason."""

    actor: Actor
    reason: str


@dataclass(frozen=True)
class Done:
    """A group came back."""

    actor: Actor
    group: Any
    result: Any


@dataclass(frozen=True)
class Died:
    """A worker is gone, with these groups.

    Attributes
    ----------
    with_machine : bool
        Whether its machine is gone, so that the groups are not the cause.
    preempted : bool
        Whether the machine was taken away by whoever lends it.
    was_open : bool
        Whether it had started.
    """

    actor: Actor
    groups: tuple[Any, ...]
    reason: str
    with_machine: bool
    was_open: bool
    preempted: bool = False


Event = Started | Refused | Done | Died


@dataclass(frozen=True)
class View:
    """The cluster, as its head has described it.

    Attributes
    ----------
    machines : tuple of mapping
        Those that are alive.
    leaving : mapping of str to int
        By the identifiers of machines that will be taken away: when, in ms since 1970; 0 if that is not known.
    free : mapping of str to float
        Resources of all machines that nobody has.
    at : float
        When the head was asked.
    """

    machines: tuple[Mapping[str, Any], ...]
    leaving: Mapping[str, int]
    free: Mapping[str, float]
    at: float


class Head:
    """The head of the cluster, asked from a thread, because Ray waits for its answer without end."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._asked = threading.Event()
        self._closed = False
        self._answered = threading.Condition()
        self.view = View((), {}, {}, time.monotonic())
        self._thread = threading.Thread(target=self._watch, name="ecgfounder-ray-head", daemon=True)
        self._thread.start()

    @property
    def silence(self) -> float:
        """Seconds since the last question that was answered."""
        return time.monotonic() - self.view.at

    def look(self) -> View:
        """A view that is newer than this call; the last one, if the head does not answer, or has not for some time."""
        began = time.monotonic()
        self._asked.set()
        if self.silence > LOOK_SECONDS + ANSWER_SECONDS:
            return self.view
        with self._answered:
            self._answered.wait_for(lambda: self.view.at >= began, ANSWER_SECONDS)
        return self.view

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        self._asked.set()
        self._thread.join(ANSWER_SECONDS)

    def _watch(self) -> None:
        while not self._closed:
            self._asked.clear()
            began = time.monotonic()
            try:
                view = self._ask(began)
            except Exception as error:  # noqa: BLE001 - Ray raises nothing narrower; `silence` tells
                log.debug("the head of the Ray cluster does not answer: %s", error)
            else:
                with self._answered:
                    self.view = view
                    self._answered.notify_all()
            self._asked.wait(LOOK_SECONDS)

    def _ask(self, began: float) -> View:
        machines = tuple(node for node in self._ray.nodes() if node["Alive"])
        # Ray has no public question for it; its own libraries use this one.
        leaving = self._ray._private.state.state.get_draining_nodes()
        return View(machines, leaving, self._ray.available_resources(), began)


class Fleet:
    """The workers of one attempt.

    Parameters
    ----------
    ray : module
        Connected.
    settings : ActorSettings
        What each worker has.
    opener : callable
        Picklable; called in the worker with the checkpoint's pieces or None, and the worker's share of its machine.
    pieces : callable
        The checkpoint's content, for machines that have none.
    tell : callable
        Called with messages.
    needs : Needs
        What each worker needs.
    """

    def __init__(
        self,
        ray: Any,
        settings: ActorSettings,
        opener: Callable[[Iterable[bytes] | None, float], Any],
        pieces: Callable[[], Iterable[bytes]],
        tell: Callable[[str], None],
        *,
        needs: Needs,
    ) -> None:
        self._ray = ray
        self._settings = settings
        self._opener = pickle.dumps(opener)
        self._pieces = pieces
        self._sent: list[Any] | None = None
        self._tell = tell
        self.needs = needs
        self.actors: list[Actor] = []
        self._refused: set[str] = set()
        self._leaving: set[str] = set()
        self._looked = -math.inf
        self._told = time.monotonic()
        self._head = Head(ray)
        self._kind = ray.remote(Host)
        self._options: dict[str, Any] = {
            "num_cpus": needs.cpus,
            "num_gpus": needs.gpus,
            "max_concurrency": IN_HAND + 2,
            "max_restarts": 0,
            "max_task_retries": 0,
        }

    @property
    def open_actors(self) -> list[Actor]:
        return [actor for actor in self.actors if actor.is_open]

    @property
    def machines(self) -> set[str]:
        """The machines that have workers, or soon will."""
        since = time.monotonic() - OPENING_SECONDS
        opening = [actor for actor in self.actors if actor.facts is None and actor.machine and actor.since > since]
        return {actor.machine for actor in self.open_actors + opening}

    @property
    def lost(self) -> str | None:
        """Why the cluster cannot be used any more; None while its head answers."""
        silence = self._head.silence
        return f"the head of the Ray cluster has not answered for {silence:.0f} s" if silence > HEAD_SECONDS else None

    def tend(self, wanted: int) -> None:
        """Start workers where there is room, up to the number that is wanted; tell if none can start."""
        now = time.monotonic()
        view = self._head.view if self._looked > 0 else self._head.look()
        if view.at > self._looked:
            self._looked = view.at
            self._let_go(view)
            self._grow(max(wanted, self._settings.least), view)
        for actor in [actor for actor in self.actors if actor.is_leaving and not actor.groups]:
            self.release(actor)
        if self.open_actors:
            self._told = now
        elif now - self._told >= TELL_SECONDS:
            self._told = now
            self._tell(self._what_is_missing(view))

    def _let_go(self, view: View) -> None:
        """Let workers on machines that will be taken away finish what they have begun, and no more."""
        for actor in self.actors:
            if actor.machine not in view.leaving or actor.is_leaving:
                continue
            actor.is_leaving = True
            if actor.facts is not None:
                actor.handle.stop.remote()
            if actor.machine not in self._leaving:
                self._leaving.add(actor.machine)
                left = view.leaving[actor.machine] / 1000 - time.time()
                when = f" in {max(0.0, left):.0f} s" if view.leaving[actor.machine] else ""
                self._tell(
                    f"{actor.host} will be taken away{when} (pre-emption): its workers finish what they have begun, and the rest "
                    "of their groups is done by others"
                )

    def _grow(self, wanted: int, view: View) -> None:
        most = min(wanted, self._settings.most or wanted)
        waiting = sum(not actor.machine for actor in self.actors)  # for any machine
        for node in view.machines:
            if node["NodeID"] in self._refused or node["NodeID"] in view.leaving:
                continue
            here = sum(actor.machine == node["NodeID"] for actor in self.actors)
            for _ in range(self.needs.fit(node) - here - waiting):
                if self._staying >= most:
                    return
                self._start(node)
        if not waiting and self._staying < min(self._settings.least, most) and not self._refused:
            self._start(None)  # a cluster that grows makes a machine for it

    @property
    def _staying(self) -> int:
        return sum(not actor.is_leaving for actor in self.actors)

    def _start(self, node: Mapping[str, Any] | None) -> None:
        options, machine, host, share = self._options, "", "a new machine", 1.0
        if node is not None:
            strategy = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
            machine, host = node["NodeID"], node["NodeManagerHostname"]
            options = options | {"scheduling_strategy": strategy(machine, soft=False)}
            share = min(1.0, 1 / max(1, self.needs.fit(node)))
        actor = Actor(self._kind.options(**options).remote(), machine, host, share, time.monotonic())
        actor.opening = actor.handle.open.remote(__version__, self._opener, share, None)
        self.actors.append(actor)

    def _what_is_missing(self, view: View) -> str:
        nodes, free = view.machines, view.free
        has = {name: sum(node["Resources"].get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
        wanted = [f"{self.needs.cpus:g} CPUs"] + ([f"{self.needs.gpus:g} GPUs"] if self.needs.gpus else [])
        shown = ", ".join(f"{free.get(name, 0.0):g} of {total:g} {name}s free" for name, total in has.items())
        too_small = "" if any(self.needs.fit(node) for node in nodes) else "; no machine is large enough for one"
        return (
            f"No worker has started for {TELL_SECONDS:.0f} s; still waiting. Each needs {' and '.join(wanted)} on one machine; "
            f"the cluster has {len(nodes)} machines with {shown}{too_small}. Set cpus_per_actor and gpus_per_actor."
        )

    def give(self, actor: Actor, group: Any) -> None:
        """Hand a group to a worker."""
        if not actor.groups:
            actor.heard = time.monotonic()
        actor.groups[actor.handle.do.remote(group)] = group

    def events(self, timeout: float) -> list[Event]:
        """What has happened; waits for at most `timeout` seconds."""
        waiting: dict[Any, Actor] = {}
        for actor in self.actors:
            waiting.update(dict.fromkeys(actor.groups, actor))
            if actor.opening is not None:
                waiting[actor.opening] = actor
        if not waiting:
            time.sleep(timeout)
            return []
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=timeout)
        if ready:
            ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        found: list[Event] = []
        for reference in ready:
            actor = waiting[reference]
            if actor in self.actors:  # it may have gone with an event before
                found += self._event(actor, reference)
        now = time.monotonic()
        silent = [actor for actor in self.actors if actor.groups and now - actor.heard > PATIENCE_SECONDS]
        return found + [self._lose(actor, f"no result for {PATIENCE_SECONDS:.0f} s") for actor in silent]

    def _event(self, actor: Actor, reference: Any) -> list[Event]:
        try:
            kind, value = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return [self._lose(actor, _why(error), error)]
        if kind == "opened":
            (actor.facts, machine), actor.opening = value, None
            if not actor.machine:
                names = {node["NodeID"]: node["NodeManagerHostname"] for node in self._head.look().machines}
                actor.machine, actor.host = machine, names.get(machine, actor.facts.host)
            return [Started(actor)]
        if kind == "absent":
            if self._sent is None:
                self._sent = [self._ray.put(piece) for piece in self._pieces()]
            actor.opening = actor.handle.open.remote(__version__, self._opener, actor.share, self._sent)
            return []
        if kind == "refused":
            self._refused.add(actor.machine)
            self.release(actor)
            return [Refused(actor, value)]
        if kind == "broken":
            return [self._lose(actor, value)]
        actor.heard = time.monotonic()
        return [Done(actor, actor.groups.pop(reference), value)]

    def _lose(self, actor: Actor, reason: str, error: Exception | None = None) -> Died:
        groups = tuple(actor.groups.values())
        was_open = actor.facts is not None
        self.release(actor)
        alive = {node["NodeID"] for node in self._head.look().machines}
        preempted = bool(getattr(error, "preempted", False))
        gone = (
            preempted
            or isinstance(error, self._ray.exceptions.ActorUnschedulableError)
            or bool(_NODE_DIED.search(reason))
            or bool(actor.machine and actor.machine not in alive)
        )
        return Died(actor, groups, reason, gone, was_open, preempted)

    def release(self, actor: Actor) -> None:
        """End a worker."""
        if actor in self.actors:
            self.actors.remove(actor)
        with suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(actor.handle)

    def stop(self) -> None:
        """Let all workers take no more records."""
        for actor in self.open_actors:
            actor.handle.stop.remote()

    def close(self) -> None:
        """End all workers."""
        self._head.close()
        for actor in list(self.actors):
            self.release(actor)


def _why(error: Exception) -> str:
    """What Ray says of the death of a worker, in one line: the first line says nothing, and others are identifiers."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not _IDENTIFIER.match(line)]
    return " ".join(said[1:] or said)[:MOST_SAID]


@dataclass(frozen=True)
class Needs:
    """What a worker needs."""

    cpus: float
    gpus: float

    def fit(self, node: Mapping[str, Any]) -> int:
        """Number of workers for which a machine has room when it is empty."""
        has = node["Resources"]
        fits = has.get("CPU", 0.0) // self.cpus
        return int(min(fits, has.get("GPU", 0.0) // self.gpus) if self.gpus else fits)


def needs_of(ray: Any, settings: ActorSettings, *, on_cpu: bool) -> Needs:
    """What each worker needs: as told, or what suits the cluster's present machines.

    With GPUs, one for each worker, and the cores that go with it; without, all cores of a machine, at most `MOST_CORES`.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    has_gpus = [machine for machine in machines if machine.get("GPU", 0) > 0]
    gpus = settings.gpus
    if gpus is None:
        gpus = 1.0 if has_gpus and not on_cpu else 0.0
    if settings.cpus is not None:
        return Needs(settings.cpus, gpus)
    if gpus and has_gpus:
        return Needs(min(max(1, machine["CPU"] * gpus // machine["GPU"]) for machine in has_gpus), gpus)
    return Needs(min([MOST_CORES, *(int(machine["CPU"]) for machine in machines)]), gpus)
