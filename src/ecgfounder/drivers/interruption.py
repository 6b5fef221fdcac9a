"""An interruption request: set by a signal handler, checked by drivers between steps.

In: a signal. Out: whether and since when an interruption is requested.
"""

from __future__ import annotations

import time


class Interruption:
    """A request to stop, set by a signal handler and checked between steps."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.since = 0.0

    def request(self, signal_number: int) -> None:
        self.signal = signal_number
        self.since = time.monotonic()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    def older_than(self, seconds: float) -> bool:
        return self.requested and time.monotonic() - self.since > seconds
