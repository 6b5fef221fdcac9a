"""The trouble of a store, told from the faults of single objects.

In: events of reading. Out: the same events, with `Failed` for objects that alone are not readable; or the trouble that ends the
run, so that a later attempt resumes it. A store that does not answer is such a trouble. Denied access is one too, unless another
object of the same bucket can be read afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ecgfounder.errors import ECGFounderError, ReadError
from ecgfounder.readers import make_source
from ecgfounder.readers.source import Hints
from ecgfounder.stages.read import Event, Failed, Opened, Unread
from ecgfounder.storage import NO_OPTIONS, Missing, StorageOptions, bucket_of, is_url

MOST_DENIED = 50
"""Objects of one bucket that may be denied before any of it has been read."""


@dataclass
class StoreTrouble:
    """Decides about objects that were not read.

    Attributes
    ----------
    options : StorageOptions
        The options of the stores.
    reason : str or None
        The trouble that ends the run; None if there is none.
    """

    options: StorageOptions = NO_OPTIONS
    reason: str | None = None
    _read: dict[str, str] = field(default_factory=dict)  # by bucket: the latest path that was read
    _denied: dict[str, list[Unread]] = field(default_factory=dict)  # by bucket: nothing has been read since

    def judged(self, events: Iterator[Event], stop: Callable[[], None]) -> Iterator[Event]:
        """The events, without `Unread`; `stop` is called when there is trouble, and must make them end soon."""
        for event in events:
            if isinstance(event, Unread):
                yield from self._judge(event)
            else:
                yield event
                if isinstance(event, Opened) and is_url(event.job.path):
                    self._read[bucket_of(event.job.path)] = event.job.path
                    yield from self._settle(bucket_of(event.job.path))
            if self.reason is not None:
                stop()
        if self.reason is None and self._denied:
            self._end(next(iter(self._denied.values()))[0])

    def end(self, reason: str) -> None:
        """End the run, unless other trouble has ended it before."""
        self.reason = self.reason or reason

    def _judge(self, event: Unread) -> Iterator[Failed]:
        if self.reason is not None:
            return  # left to the next attempt
        if not event.denied:
            self._end(event)
            return
        bucket = bucket_of(event.job.path)
        waiting = self._denied.setdefault(bucket, [])
        waiting.append(event)
        yield from self._settle(bucket)
        if len(waiting) == MOST_DENIED and bucket in self._denied:
            self._end(waiting[0])

    def _settle(self, bucket: str) -> Iterator[Failed]:
        """Let the denied objects of a bucket fail if one that was read can be read now; else access to all is denied."""
        if bucket not in self._denied or bucket not in self._read or self.reason is not None:
            return
        waiting = self._denied.pop(bucket)
        try:
            location = make_source(self._read[bucket], Hints(), self.options).location
            (location.archive or location).status()
        except Missing:
            pass  # it was removed meanwhile, or is a record of several files; access is not denied
        except ECGFounderError:
            self._end(waiting[0])
            return
        for event in waiting:
            yield Failed(event.job, ReadError.__name__, event.reason)

    def _end(self, event: Unread) -> None:
        self.end(f"{event.job.path}: {event.reason}")
