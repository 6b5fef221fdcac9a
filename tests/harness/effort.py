"""What something costs, whatever else the machine does meanwhile: lines of Python run, and the most memory held at once.

In: something to run. Out: its `Effort`. A loop over what a file claims shows in the lines, an array of it in the bytes.
"""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


@dataclass
class Effort:
    """Lines of Python that were run, and the peak of the memory that was taken for it, in bytes."""

    lines: int = 0
    peak_bytes: int = 0


@contextmanager
def measured() -> Iterator[Effort]:
    """Count what this thread does; the figures are there afterwards."""
    effort = Effort()

    def count(_frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
        effort.lines += event == "line"
        return count

    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    held, _ = tracemalloc.get_traced_memory()
    before = sys.gettrace()
    sys.settrace(count)
    try:
        yield effort
    finally:
        sys.settrace(before)
        effort.peak_bytes = tracemalloc.get_traced_memory()[1] - held
        if not tracing:
            tracemalloc.stop()
