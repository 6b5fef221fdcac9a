"""Whether more reading processes would help.

In: how long the caller waited and how many jobs were done. Out: a verdict, each time that they were watched for long enough.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

GROWTH_SECONDS = 0.5
"""How long workers are watched before it is decided whether more are started."""


GROWTH_PAYS = 1.2
"""More workers were worth it if they did so many times as many jobs as those before them."""


@dataclass
class Growth:
    """Whether more workers would help: those that there are keep the caller waiting, and the last ones paid."""

    since: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    done: int = 0
    rate: float = 0.0  # jobs a second before the last workers came

    def begin(self) -> None:
        """Watch from now on."""
        self.since, self.waited, self.done = time.monotonic(), 0.0, 0

    def is_due(self) -> bool:
        """The verdict, once workers were watched for long enough; they are watched again from then on."""
        took = time.monotonic() - self.since
        if took < GROWTH_SECONDS:
            return False
        rate = self.done / took
        due = 2 * self.waited > took and (rate >= GROWTH_PAYS * self.rate or not self.done)
        if due:
            self.rate = rate
        elif rate < self.rate:
            self.rate = 0.0  # fewer than with fewer workers: the files are others now, and what was seen says nothing
        self.begin()
        return due
