"""A wish to stop: set by a signal handler, looked at by drivers between steps.

In: a signal. Out: whether and since when it is wished; before there is any work, an end at once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ecgfounder.machine import is_launched

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that end a run. Schedulers send any of them before a job's time is up; a terminal that closes sends SIGHUP."""


class Stopped(KeyboardInterrupt):
    """A signal came where nothing was at work yet that would have to be brought to an end.

    Attributes
    ----------
    signal : int
        Its number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal = number


class Interruption:
    """A wish to stop, set by a signal handler and looked at between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0
        self._ends_at_once = False

    def request(self, signal_number: int) -> None:
        """Wish it; of several wishes the first one counts."""
        if self.signal is None:
            self.signal, self.since = signal_number, time.monotonic()
        if self._ends_at_once:
            raise Stopped(self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a request leaves at once, in the main thread: nothing has begun in it that must be brought to an end.

        Raises
        ------
        Stopped
            If it is wished for.
        """
        self._ends_at_once = True
        try:
            self._check()
            yield
        finally:
            self._ends_at_once = False
        self._check()  # an exception is lost where a handler runs in a callback

    def _check(self) -> None:
        if self.signal is not None:
            raise Stopped(self.signal)

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def older_than(self, seconds: float) -> bool:
        return self.requested and time.monotonic() - self.since > seconds


_listeners: list[Callable[[int], None]] = []
"""Who is told of a signal: the last one."""


@contextmanager
def listening(handle: Callable[[int], None]) -> Iterator[None]:
    """Within the block, hand the first one of each ending signal to `handle`; within another such block, to the inner one's.

    A second one is not waited for: it ends the process. Among processes that were launched together it changes nothing, for a
    launcher passes on what a scheduler or a terminal has sent to each of them already.

    A signal that is ignored (by `nohup`, or in the background of a script) stays ignored. Signals are the main thread's: in any
    other one nothing changes.
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
