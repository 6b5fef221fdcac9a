"""Whether more reading processes would help.

In: how long the caller waited and how many jobs were done. Out: a decision after each observation period.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

GROWTH_SECONDS = 0.5
"""Length of an observation period, after which it is decided whether to start more workers."""


GROWTH_PAYS = 1.2
"""Adding workers was useful if the rate of jobs grew at least by this factor."""


@dataclass
class Growth:
    """Whether more workers would help: the caller waits for the present ones, and the last increase was useful."""

    since: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    done: int = 0
    rate: float = 0.0  # jobs a second before the last increase

    def begin(self) -> None:
        """Begin an observation period."""
        self.since, self.waited, self.done = time.monotonic(), 0.0, 0

    def is_due(self) -> bool:
        """The decision at the end of an observation period, which begins a new one."""
        took = time.monotonic() - self.since
        if took < GROWTH_SECONDS:
            return False
        rate = self.done / took
        due = 2 * self.waited > took and (rate >= GROWTH_PAYS * self.rate or not self.done)
        if due:
            self.rate = rate
        elif rate < self.rate:
            self.rate = 0.0  # slower than with fewer workers: the files differ now, so the earlier rate is meaningless
        self.begin()
        return due
