"""Write finished records: outputs and ledger entries; failures get an entry only.

In: groups of `Finished`. Out: the sink's outputs, a ledger entry for each record after its output is synced, and the names of
obsolete outputs, which the driver removes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ecgfounder.errors import ECGFounderError, OutputError
from ecgfounder.ledger.entry import Commitment, Entry, Line, key_text, packed
from ecgfounder.ledger.groups.writer import GroupWriter
from ecgfounder.ledger.ledger import LedgerWriter
from ecgfounder.sinks.sink import Output, ShardWritten, Sink, Written
from ecgfounder.stages.collect import Finished
from ecgfounder.stages.read import Job
from ecgfounder.storage.paths import printable


@dataclass
class Recorder:
    """Writes the records of one process. An entry is appended only when the sink reports that its output is synced.

    Attributes
    ----------
    done, failed : int
        Number of records written to the ledger.
    obsolete : list of str
        Earlier outputs of records that have failed now.
    """

    sink: Sink
    ledger: LedgerWriter | GroupWriter
    done: int = 0
    failed: int = 0
    obsolete: list[str] = field(default_factory=list)
    _writing: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, job: Job, error: ECGFounderError) -> None:
        """Record a failure from before the file was read."""
        self.finish([Finished(job, kind=type(error).__name__, reason=str(error))])

    def finish(self, group: Sequence[Finished]) -> None:
        """Write a group of records and their entries."""
        with self._lock:
            began = time.perf_counter()
            failed = [_failure(finished) for finished in group if finished.embeddings is None]
            written = self.sink.write([_output(finished) for finished in group if finished.embeddings is not None])
            self._commit(failed, written, time.perf_counter() - began)

    def close(self) -> None:
        """Write the outputs that the sink still holds."""
        with self._lock:
            began = time.perf_counter()
            written = self.sink.close()
            self._commit([], written, time.perf_counter() - began)

    def take_obsolete(self) -> list[str]:
        """The obsolete outputs; each is returned once."""
        with self._lock:
            taken, self.obsolete = self.obsolete, []
            return taken

    def _commit(self, failed: list[Entry], written: Sequence[Written | ShardWritten], seconds: float) -> None:
        """Append entries; the time of writing since the previous commit is divided among the finished records."""
        self._writing += seconds
        n_done = sum(isinstance(each, Written) and each.error is None for each in written)
        share = 0.0
        if n_done:
            share, self._writing = self._writing / n_done, 0.0
        lines: list[Line] = [*failed, *(_line(each, share) for each in written)]
        self.ledger.append(lines)
        for line in lines:
            if isinstance(line, Entry) and line.status == "failed":
                self.failed += 1
                if line.removes:
                    self.obsolete.append(line.removes)
        self.done += n_done


def _line(written: Written | ShardWritten, seconds: float) -> Line:
    """The ledger line for a sink's output, with the time that writing took."""
    if isinstance(written, ShardWritten):
        return Commitment(written.shard, written.rows, written.records)
    finished: Finished = written.output.receipt
    if written.error is not None:
        return _failure(replace(finished, embeddings=None, kind=OutputError.__name__, reason=written.error))
    embeddings = finished.embeddings or ()
    probabilities = tuple(packed(kept.probabilities) for kept in embeddings if kept.probabilities is not None)
    return Entry(
        key=written.output.key,
        record=finished.job.record,
        status="done",
        output=written.reference,
        shard=written.shard,
        path=_path(finished.job),
        shape=(*finished.outer_shape, *embeddings[0].embedding.shape),
        input=finished.identity,
        facts=finished.facts,
        seconds={**finished.seconds, "write": seconds},
        probabilities=probabilities or None,
        tag=written.tag,
    )


def _failure(finished: Finished) -> Entry:
    job = finished.job
    return Entry(
        key=key_text(job.key),
        record=job.record,
        status="failed",
        path=_path(job),
        input=finished.identity,
        facts=finished.facts,
        seconds=finished.seconds,
        error=finished.kind,
        reason=printable(finished.reason),
        absent=finished.absent,
        file=None if job.path_key is None else printable(job.path),
        removes=job.replaces or None,
    )


def _output(finished: Finished) -> Output:
    job, embeddings = finished.job, finished.embeddings or ()
    return Output(
        key=key_text(job.key),
        record=job.record,
        title=job.title,
        name=job.output,
        embeddings=tuple(kept.embedding for kept in embeddings),
        outer_shape=finished.outer_shape,
        order=job.place,
        means=tuple(kept.mean for kept in embeddings if kept.mean is not None),
        facts=finished.facts,
        receipt=finished,
    )


def _path(job: Job) -> str | None:
    return None if job.path_key is None else key_text(job.path_key)
