"""Objects of stores elsewhere that are fetched before they are asked for, so that latency is not waited for one by one.

In: the objects that will be asked for, in order. Out: their content, once. Threads only fetch: files are decoded one at a time as
before, so that it is known which one ends a process. What is held is limited in bytes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from queue import SimpleQueue

from ecgfounder.errors import StorageError
from ecgfounder.storage.connect import waiting
from ecgfounder.storage.location import Location
from ecgfounder.storage.store import Denied, Status, Unavailable

AHEAD_THREADS = 64
AHEAD_BYTES = 64 << 20
_USUAL_BYTES = 100_000  # of an object, until some have been seen

Content = tuple[Status, bytes | None]


@dataclass(eq=False)
class _Expected:
    """An object that will be asked for."""

    location: Location
    begun: bool = False
    dropped: bool = False
    come: threading.Event = field(default_factory=threading.Event)
    outcome: Content | StorageError | None = None


class Ahead:
    """Fetches objects ahead of their use, in daemon threads that are started as needed.

    Parameters
    ----------
    most : int
        Objects of more bytes are not fetched; of these only the status is known.
    n_threads : int
        Objects that are fetched at the same time.
    n_bytes : int
        Bytes that are held, or expected of objects that are being fetched.
    """

    def __init__(self, most: int, *, n_threads: int = AHEAD_THREADS, n_bytes: int = AHEAD_BYTES) -> None:
        self._most, self._n_threads, self._n_bytes = most, n_threads, n_bytes
        self._lock = threading.Lock()
        self._expected: dict[Location, _Expected] = {}
        self._later: deque[_Expected] = deque()  # not begun
        self._work: SimpleQueue[_Expected] = SimpleQueue()
        self._threads = 0
        self._fetching = 0
        self._held = 0
        self._usual = _USUAL_BYTES

    def expect(self, locations: Iterable[Location]) -> None:
        """Fetch objects in this order, as soon as there is room; one that is expected already is not fetched twice."""
        with self._lock:
            for location in locations:
                if location not in self._expected:
                    expected = self._expected[location] = _Expected(location)
                    self._later.append(expected)
            self._begin()

    def take(self, location: Location) -> Content | None:
        """An object's status and content, as `Location.fetch` gives them; None if it has to be fetched now.

        Raises
        ------
        Missing, Unavailable
            As `Location.fetch` would have raised it.
        """
        with self._lock:
            expected = self._expected.pop(location, None)
            if expected is None:
                return None
            if not expected.begun:
                self._later.remove(expected)
                return None
        with waiting():
            expected.come.wait()
        with self._lock:
            self._let_go(expected)
        if isinstance(expected.outcome, Denied):
            return None  # asked again, because credentials may have been found meanwhile
        if isinstance(expected.outcome, StorageError):
            raise expected.outcome
        return expected.outcome

    def forget(self, locations: Iterable[Location]) -> int:
        """Drop objects that nobody will ask for; returns how many there were."""
        dropped = 0
        with self._lock:
            for location in locations:
                expected = self._expected.pop(location, None)
                if expected is None:
                    continue
                dropped += 1
                if not expected.begun:
                    self._later.remove(expected)
                elif expected.come.is_set():
                    self._let_go(expected)
                else:
                    expected.dropped = True
        return dropped

    def _begin(self) -> None:
        while self._later and (
            self._held + self._fetching * self._usual < self._n_bytes and self._fetching < self._n_threads
        ):
            expected = self._later.popleft()
            expected.begun = True
            self._fetching += 1
            if self._threads < self._fetching:
                self._threads += 1
                threading.Thread(target=self._fetch, name="ecgfounder-fetch", daemon=True).start()
            self._work.put(expected)

    def _fetch(self) -> None:
        while True:
            expected = self._work.get()
            try:
                outcome: Content | StorageError = expected.location.fetch(self._most)
            except StorageError as error:
                outcome = error
            except Exception as error:  # noqa: BLE001 - a thread that ends would leave the one that waits for ever
                outcome = Unavailable(f"{expected.location}: {type(error).__name__}")
            with self._lock:
                self._fetching -= 1
                expected.outcome = outcome
                n_bytes = _size_of(outcome)
                self._held += n_bytes
                self._usual += (n_bytes - self._usual) // 8
                expected.come.set()
                if expected.dropped:
                    self._let_go(expected)
                self._begin()

    def _let_go(self, expected: _Expected) -> None:
        self._held -= _size_of(expected.outcome)
        self._begin()


def _size_of(outcome: Content | StorageError | None) -> int:
    return len(outcome[1] or b"") if isinstance(outcome, tuple) else 0
