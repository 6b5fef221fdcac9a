"""The writing end of a run: finished records become outputs and ledger entries, failures become entries.

In: groups of `Finished` from the pipeline. Out: what the sink wrote, and a ledger line for each record once it is safe.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ecgfounder.drivers.local import Finished
from ecgfounder.errors import ECGFounderError, EmbeddingError
from ecgfounder.ledger.ledger import LedgerWriter, key_text
from ecgfounder.ledger.tables import packed
from ecgfounder.run.settings import Settings
from ecgfounder.sinks.sink import Entry, Output, Sink
from ecgfounder.stages.view import View
from ecgfounder.storage.paths import printable


@dataclass
class Task:
    """What is known of a record between its job and its entry.

    Attributes
    ----------
    key, record : its key, and what it is called in the books.
    title : what it is called in its output.
    output : the name of its output, where it has one of its own; had_output : whether one is there from before.
    path : its path's hash, where it is known by an identifier.
    """

    key: int
    record: str
    title: str
    output: str = ""
    had_output: bool = False
    path: int | None = None


@dataclass
class Recorder:
    """The writing end: finished records become outputs and ledger entries, failures become entries.

    An entry is appended only when the sink says that its output is safe.
    """

    sink: Sink
    ledger: LedgerWriter
    output_dir: Path
    settings: Settings
    tasks: dict[int, Task] = field(default_factory=dict)
    done: int = 0
    failed: int = 0
    _writing: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, ticket: int, error: ECGFounderError) -> None:
        """Record a failure that came up before the file was read."""
        self.finish([Finished(ticket, {}, kind=type(error).__name__, reason=str(error))])

    def finish(self, group: Sequence[Finished]) -> None:
        """Write a group of records and their entries."""
        with self._lock:
            self._finish(group)

    def _finish(self, group: Sequence[Finished]) -> None:
        began = time.perf_counter()
        outputs: list[Output] = []
        entries: list[Entry] = []
        for finished in group:
            task = self.tasks.pop(finished.ticket)
            output = self._output(finished, task)
            if isinstance(output, Output):
                outputs.append(output)
            else:
                if task.had_output and task.output and self.settings.format == "json":
                    (self.output_dir / task.output).unlink(missing_ok=True)
                entries.append(output)
        entries += self.sink.write(outputs)
        self._commit(entries, time.perf_counter() - began)

    def close(self) -> None:
        """Write what the sink still holds."""
        with self._lock:
            began = time.perf_counter()
            entries = self.sink.close()
            self._commit(entries, time.perf_counter() - began)

    def _commit(self, entries: list[Entry], seconds: float) -> None:
        """Append entries; those that are done share the seconds of writing since the last ones that were."""
        self._writing += seconds
        done = [entry for entry in entries if entry.get("status") == "done"]
        for entry in done:
            entry["seconds"] = {**entry.get("seconds", {}), "write": self._writing / len(done)}
        if done:
            self._writing = 0.0
        self.ledger.append(entries)
        for entry in entries:
            if entry.get("status") == "failed":
                self.failed += 1
            elif entry.get("status") == "done":
                self.done += 1

    def _output(self, finished: Finished, task: Task) -> Output | Entry:
        entry: Entry = {"key": key_text(task.key), "record": task.record}
        if task.path is not None:
            entry["path"] = key_text(task.path)
        views: tuple[View, ...] | None = finished.views
        if views is None:
            return entry | finished.facts | failure(finished.kind, finished.reason)
        if not all(view.is_finite for view in views):
            reason = "the network's output is not finite: the samples' values are beyond what it can take"
            return entry | finished.facts | failure(EmbeddingError.__name__, reason)
        shape = [*finished.outer_shape, *views[0].embedding.shape]
        entry |= {"status": "done", "output": task.output, "shape": shape, **finished.facts}
        probabilities = [view.probabilities for view in views if view.probabilities is not None]
        if probabilities:
            entry["probabilities"] = [packed(each) for each in probabilities]
        return Output(
            entry,
            task.title,
            tuple(view.embedding for view in views),
            finished.outer_shape,
            finished.ticket,
            tuple(view.mean for view in views if view.mean is not None),
        )


def failure(kind: str, reason: str) -> Entry:
    """The part of an entry that says why there is no output."""
    return {"status": "failed", "output": None, "error": kind, "reason": printable(reason)}
