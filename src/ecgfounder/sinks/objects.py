"""Sinks for stores: objects are written in threads, many at once, while the pipeline goes on.

In: outputs. Out: JSON objects under their final names, or Parquet shards under names of this attempt, both by plain writes; an
output is returned, by a later call, when its object is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

from ecgfounder.sinks.json import FileSink
from ecgfounder.sinks.parquet import Shard, ShardSink, attempt_suffix, write_table
from ecgfounder.sinks.sink import Output, ShardWritten, Written
from ecgfounder.storage import Location

AT_ONCE = 32
"""Objects that are written at the same time."""
IN_FLIGHT_BYTES = 256 << 20
"""Bytes of embeddings that may wait to be written; a larger one is written alone."""
SHARDS_AT_ONCE = 2

LONGEST_KEY = 1024
"""Bytes of an object's name in S3 and Google Cloud Storage, in UTF-8."""

Done = list[Written | ShardWritten]


@dataclass(eq=False)
class _Upload:
    """An object that is being written: its size in memory, and what is returned when it is there."""

    future: Future[Done]
    nbytes: int


class Uploads:
    """Writes in threads, with a bounded number in flight and bounded bytes."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="ecgfounder-upload")
        self._pending: deque[_Upload] = deque()
        self._bytes = 0

    def add(self, work: Callable[[], Done], nbytes: int) -> Done:
        """Begin an upload, when there is room; returns what has been written meanwhile."""
        done: Done = []
        while self._pending and (len(self._pending) >= 2 * self._at_once or self._bytes + nbytes > IN_FLIGHT_BYTES):
            wait([upload.future for upload in self._pending], return_when=FIRST_COMPLETED)
            done += self.done()
        self._pending.append(_Upload(self._threads.submit(work), nbytes))
        self._bytes += nbytes
        return done

    def done(self) -> Done:
        """What has been written since the last call.

        Raises
        ------
        StorageError
            If an object could not be written.
        """
        done: Done = []
        for upload in [each for each in self._pending if each.future.done()]:
            self._pending.remove(upload)
            self._bytes -= upload.nbytes
            done += upload.future.result()
        return done

    def close(self) -> Done:
        """Wait for all uploads; returns those that were not returned before."""
        try:
            wait([upload.future for upload in self._pending])
            return self.done()
        finally:
            self._threads.shutdown(cancel_futures=True)


class ObjectSink:
    """An object per ECG, with the bytes that a sink of files writes.

    Parameters
    ----------
    output_dir : Location
        Folder of the objects.
    kind : type of FileSink
        The sink whose encoding is used.
    """

    def __init__(self, output_dir: Location, kind: type[FileSink]) -> None:
        self._output_dir = output_dir
        self._encode = kind.encode
        self._uploads = Uploads(AT_ONCE)

    def write(self, outputs: Sequence[Output]) -> Done:
        done: Done = []
        for output in outputs:
            place = self._output_dir / output.name
            if len(place.name.encode()) > LONGEST_KEY:
                error = f"the output {output.name} cannot be written: its name is longer than {LONGEST_KEY} bytes"
                done.append(Written(output, output.name, error=error))
                continue
            done += self._uploads.add(partial(self._put, output, place), output.nbytes)
        return done + self._uploads.done()

    def close(self) -> Done:
        return self._uploads.close()

    def _put(self, output: Output, place: Location) -> Done:
        return [Written(output, output.name, tag=place.write(self._encode(output)))]


class ParquetObjectSink(ShardSink):
    """Parquet shards as objects, under names that no other attempt at the same records uses.

    Parameters
    ----------
    folder : Location
        Folder of the shards.
    """

    def __init__(self, folder: Location, **options: Any) -> None:
        super().__init__(suffix=attempt_suffix(), **options)
        self._folder = folder
        self._uploads = Uploads(SHARDS_AT_ONCE)

    def write(self, outputs: Sequence[Output]) -> Done:
        return [*super().write(outputs), *self._uploads.done()]

    def close(self) -> Done:
        return [*super().close(), *self._uploads.close()]

    def _save(self, shard: Shard, nbytes: int) -> Done:
        return self._uploads.add(partial(self._put, shard), nbytes)

    def _put(self, shard: Shard) -> Done:
        content = BytesIO()
        write_table(shard.table, content)
        (self._folder / shard.name).write(content.getvalue())
        return shard.written()
