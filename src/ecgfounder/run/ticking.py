"""Call a function every so often while a block runs, from a thread of its own.

In: the function and the time between two calls. Out: its first error, raised in the block's thread where it asks for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from ecgfounder.errors import StorageError


class Ticking:
    """Calls `tick` every `seconds` until the block ends or a `StorageError` is raised, with which `tell` is called."""

    def __init__(self, tick: Callable[[], None], seconds: float, tell: Callable[[str], None]) -> None:
        self._tick = tick
        self._seconds = seconds
        self._tell = tell
        self._error: StorageError | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ecgfounder-tick", daemon=True)

    def __enter__(self) -> Ticking:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """Raise the error of an earlier call, if there was one."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                self._tick()
            except StorageError as error:
                self._error = error
                self._tell(str(error))
                return
