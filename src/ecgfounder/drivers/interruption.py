"""An interruption request: set by a signal handler, checked by drivers between steps.

In: a signal. Out: whether and since when an interruption is requested; before the first record, an immediate end.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecgfounder.machine import is_launched

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that end a run. Schedulers send any of them before a job's time limit; a terminal that closes sends SIGHUP."""


class Stopped(KeyboardInterrupt):
    """A signal arrived before any work that must end in order.

    Attributes
    ----------
    signal : int
        Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Interruption:
    """A request to stop, set by a signal handler and checked between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0
        self._ends_at_once = False

    def request(self, signal_number: int) -> None:
        """Request an interruption; of several requests the first one counts."""
        if self.signal is None:
            self.signal, self.since = signal_number, time.monotonic()
        if self._ends_at_once:
            raise Stopped(self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block, in the main thread, that a request ends at once: nothing in it must end in order.

        Raises
        ------
        Stopped
            If an interruption is requested.
        """
        self._ends_at_once = True
        try:
            self._check()
            yield
        finally:
            self._ends_at_once = False
        self._check()  # an exception is lost if a handler runs in a callback of C code

    def _check(self) -> None:
        if self.signal is not None:
            raise Stopped(self.signal)

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def older_than(self, seconds: float) -> bool:
        return self.requested and time.monotonic() - self.since > seconds


_listeners: list[Callable[[int], None]] = []
"""Functions that handle signals; the last one is called."""


@contextmanager
def listening(handle: Callable[[int], None]) -> Iterator[None]:
    """Within the block, call `handle` for the first signal of each kind in `ENDING_SIGNALS`.

    Of nested blocks, the inner one counts.

    A second signal of the same kind ends the process at once. It has no effect in processes that were launched together, because
    a launcher passes on signals that a scheduler or a terminal has already sent to each of them.

    A signal that is ignored (by `nohup`, or in the background of a script) stays ignored. In any thread but the main one, the
    block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _listeners.append(handle)
    before = {} if len(_listeners) > 1 else {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    heard = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in heard:
        signal.signal(number, _hear)
    try:
        yield
    finally:
        _listeners.pop()
        for number, handler in heard.items():
            signal.signal(number, handler)


def _hear(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_IGN if is_launched() else signal.SIG_DFL)
    if _listeners:
        _listeners[-1](number)
