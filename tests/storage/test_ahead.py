"""Objects fetched ahead: each once, in bounded memory, with the errors of a fetch; only the main thread's waits are told."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from typing import cast

import pytest

from ecgfounder.storage import Denied, Location, Missing, Status, Unavailable
from ecgfounder.storage.ahead import Ahead
from ecgfounder.storage.connect import tell_waiting, waiting
from ecgfounder.storage.memory import MemoryStore


class Slow(MemoryStore):
    """A store that counts requests and those at the same time; `gate` holds them."""

    gate: threading.Event
    asked: list[str]
    peak: list[int]
    lock: threading.Lock

    def fetch(self, name: str, most: int) -> tuple[Status, bytes | None]:
        with self.lock:
            self.asked.append(name)
            self.peak[0] += 1
            self.peak[1] = max(self.peak)
        self.gate.wait(20)
        try:
            if name.startswith("denied"):
                raise Denied("no")
            if name.startswith("away"):
                raise Unavailable("away")
            if name.startswith("odd"):
                raise KeyError(name)
            return super().fetch(name, most)
        finally:
            with self.lock:
                self.peak[0] -= 1


@pytest.fixture
def store() -> Slow:
    store = cast(Slow, Slow(uuid.uuid4().hex))
    store.gate, store.asked, store.peak, store.lock = threading.Event(), [], [0, 0], threading.Lock()
    for number in range(40):
        store.put(f"{number:02d}", bytes([number]) * 1000)
    return store


def locations(store: Slow, *names: str) -> list[Location]:
    return [Location(store, name) for name in names]


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_objects_are_fetched_at_the_same_time_in_order_and_taken_once(store: Slow) -> None:
    ahead = Ahead(4096, n_threads=8)
    expected = locations(store, *(f"{number:02d}" for number in range(40)))
    ahead.expect(expected)
    wait_until(lambda: len(store.asked) == 8)
    assert sorted(store.asked) == [f"{number:02d}" for number in range(8)]
    store.gate.set()
    for number, location in enumerate(expected):
        content = ahead.take(location)
        fetched = (location.status(), bytes([number]) * 1000)
        assert content in (fetched, None)  # None: its turn had not come, and it is fetched by the caller
        assert ahead.take(location) is None
    assert store.peak[1] <= 8
    assert len(store.asked) == len(set(store.asked))


def test_larger_objects_are_not_held(store: Slow) -> None:
    store.gate.set()
    ahead = Ahead(999)
    (location,) = locations(store, "05")
    ahead.expect([location])
    assert ahead.take(location) == (location.status(), None)


def test_bytes_that_are_held_are_limited(store: Slow) -> None:
    store.gate.set()
    ahead = Ahead(4096, n_threads=1, n_bytes=100_001)
    names = [f"{number:02d}" for number in range(40)]
    ahead._usual = 1000
    ahead._n_bytes = 10_000
    ahead.expect(locations(store, *names))
    wait_until(lambda: len(store.asked) == 10)
    time.sleep(0.1)
    assert len(store.asked) == 10
    assert ahead.forget(locations(store, *names[:5])) == 5
    wait_until(lambda: len(store.asked) == 15)
    assert ahead.forget(locations(store, *names)) == 35
    wait_until(lambda: ahead._held == 0)


def test_what_is_dropped_while_it_is_fetched_is_not_held(store: Slow) -> None:
    ahead = Ahead(4096)
    ahead.expect(locations(store, "01", "02"))
    wait_until(lambda: len(store.asked) == 2)
    assert ahead.forget(locations(store, "01", "02", "03")) == 2
    store.gate.set()
    wait_until(lambda: ahead._fetching == 0)
    assert ahead._held == 0


@pytest.mark.parametrize(("name", "error"), [("none", Missing), ("away", Unavailable), ("odd", Unavailable)])
def test_an_error_is_that_of_the_object_and_ends_no_thread(name: str, error: type[Exception], store: Slow) -> None:
    store.gate.set()
    ahead = Ahead(4096, n_threads=1)
    bad, good = locations(store, name, "07")
    ahead.expect([bad, good])
    with pytest.raises(error):
        ahead.take(bad)
    wait_until(lambda: "07" in store.asked)
    content = ahead.take(good)
    assert content is not None
    assert content[1] == bytes([7]) * 1000


def test_a_denied_object_is_asked_for_again_by_the_caller(store: Slow) -> None:
    store.gate.set()
    ahead = Ahead(4096)
    (denied,) = locations(store, "denied")
    ahead.expect([denied])
    wait_until(lambda: store.asked)
    assert ahead.take(denied) is None


@pytest.fixture
def told() -> Iterator[list[bool]]:
    told: list[bool] = []
    tell_waiting(told.append)
    yield told
    tell_waiting(lambda _waits: None)


def test_a_request_of_another_thread_is_no_wait(told: list[bool], store: Slow) -> None:
    def ask() -> None:
        with waiting():
            pass

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert told == []
    ahead = Ahead(4096)
    (location,) = locations(store, "01")
    ahead.expect([location])
    wait_until(lambda: store.asked)
    threading.Timer(0.2, store.gate.set).start()
    assert ahead.take(location) is not None
    assert told == [True, False]
