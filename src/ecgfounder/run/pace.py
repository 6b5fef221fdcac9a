"""Progress of a run for logs: counts every minute, with the rate and the time left.

In: the counts of records done and failed, whenever they change. Out: a `Pace` every minute, also while nothing changes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ecgfounder.run.ticking import Ticking

MINUTE = 60.0
_REMEMBERED = 6
"""Minutes over which the rate is measured, and one."""


@dataclass(frozen=True)
class Pace:
    """How far an attempt is.

    Attributes
    ----------
    done, failed, total : int
        Records of this process in this attempt, and the number that it has to do.
    rate : float
        Records per second in the last minutes.
    seconds_left : float or None
        Time left at this rate; None if nothing was done in the last minutes.
    detail : str
        What else is to be said, of workers elsewhere.
    """

    done: int
    failed: int
    total: int
    rate: float
    seconds_left: float | None
    detail: str = ""

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} left"
        more = f"; {self.detail}" if self.detail else ""
        return f"done {self.done:,} of {self.total:,}, failed {self.failed:,}, {self.rate:.1f} ECG/s{left}{more}"


class Minutes:
    """Calls `tell` every minute from the first call of `count` until `close`; a later `count` begins again.

    Parameters
    ----------
    tell : callable
        Receiver of a `Pace`.
    seconds : float
        Time between two calls.
    """

    def __init__(self, tell: Callable[[Pace], None], seconds: float = MINUTE) -> None:
        self._tell = tell
        self._seconds = seconds
        self._ticking: Ticking | None = None
        self._counts: tuple[int, int, int] | None = None
        self._detail = ""
        self._past: deque[tuple[float, int]] = deque(maxlen=_REMEMBERED)

    def count(self, done: int, failed: int, total: int, detail: str = "") -> None:
        """Set the counts, and what else is to be said."""
        self._detail = detail
        begins = self._counts is None
        self._counts = done, failed, total
        if begins:
            self._past.append((time.monotonic(), done + failed))
            self._ticking = Ticking(self._tick, self._seconds, lambda _reason: None).__enter__()

    def close(self) -> None:
        """Stop calling."""
        if self._ticking is not None:
            self._ticking.__exit__()
            self._ticking, self._counts = None, None
            self._past.clear()

    def _tick(self) -> None:
        if self._counts is None:
            return
        done, failed, total = self._counts
        if self._past[-1][1] > done + failed:  # records are done again
            self._past.clear()
        self._past.append((time.monotonic(), done + failed))
        (began, before), (now, worked) = self._past[0], self._past[-1]
        rate = (worked - before) / (now - began) if now > began else 0.0
        self._tell(Pace(done, failed, total, rate, (total - worked) / rate if rate else None, self._detail))


def duration(seconds: float) -> str:
    """Hours, minutes and seconds; there may be more than 24 hours.

    >>> duration(100_000.4)
    '27:46:40'
    """
    whole = round(seconds)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
