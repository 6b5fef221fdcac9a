"""The files of jobs that come next, fetched ahead from stores elsewhere.

In: jobs in order. Out: an `Ahead` that has their files, for the job in hand; what it does not use is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ecgfounder.errors import ECGFounderError
from ecgfounder.readers import likely_files
from ecgfounder.readers.source import SMALL_BYTES
from ecgfounder.storage import Location, StorageOptions, is_url
from ecgfounder.storage.ahead import Ahead

if TYPE_CHECKING:
    from ecgfounder.stages.read import Job

JOBS_UPCOMING = 64
"""Jobs whose files are fetched ahead, if they are in stores elsewhere."""

_WRONG_GUESSES = 4


class Upcoming:
    """Fetches the files of upcoming jobs.

    Files of a recording beside the one that its path names are guessed, until a few recordings in a row have not used them.

    Parameters
    ----------
    options : StorageOptions
        The options of the stores.
    """

    def __init__(self, options: StorageOptions) -> None:
        self.ahead = Ahead(SMALL_BYTES)
        self._options = options
        self._files: dict[int, list[Location]] = {}
        self._wrong = 0

    def expect(self, jobs: Iterable[Job]) -> None:
        """Begin to fetch the files of jobs, in this order."""
        for job in jobs:
            if not is_url(job.path) or job.excerpt is not None:
                continue
            try:
                named, *guessed = likely_files(job.path, self._options)
            except (ECGFounderError, ValueError):
                continue  # the job itself finds out what is wrong, or needs no whole file
            files = [named, *(guessed if self._wrong < _WRONG_GUESSES else ())]
            self._files[job.place] = files
            self.ahead.expect(files)

    def end(self, job: Job) -> None:
        """Drop what a job has not used."""
        files = self._files.pop(job.place, [])
        unused = self.ahead.forget(files)
        if len(files) > 1 and self._wrong < _WRONG_GUESSES:
            self._wrong = self._wrong + 1 if unused else 0
