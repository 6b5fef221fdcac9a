"""Chat files for training multimodal language models on embeddings: dataset rows and embedding files in, JSON out.

In: a dataset's rows (ECG paths, text columns, target columns) and the folder of a run's embeddings. Out: a file of conversations,
as JSON or JSONL, with references to the embeddings of their ECGs.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Any

import orjson

from ecgfounder.chat.rows import ChatRow, ChatRows, LeftOut
from ecgfounder.chat.settings import ChatSettings
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.escaping import counted, one_line
from ecgfounder.storage.replace import replacing

logger = logging.getLogger("ecgfounder.chat")


_ROWS_BETWEEN_LINES = 100_000


@dataclass
class ChatSummary:
    """Counts of rows written and left out; `examples` has one instance of each reason, for the log."""

    rows: int = 0
    written: int = 0
    left_out: Counter[LeftOut] = field(default_factory=Counter)
    examples: dict[LeftOut, str] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """The summary as text: a line for the total, and one for each reason why rows were left out."""
        yield f"{self.written:,} of {counted(self.rows, 'row')} written, {self.left_out.total():,} left out"
        for reason, count in self.left_out.most_common():
            yield one_line(f"left out, {reason}: {count:,} (first: {self.examples[reason]})")


def write_chat(settings: ChatSettings, form: Callable[[ChatRow], Any]) -> ChatSummary:
    """Write a chat file atomically.

    Parameters
    ----------
    settings : ChatSettings
        The dataset, the columns, the embeddings and the output.
    form : callable
        The form of a sample, e.g. `conversation` or `embedding_chat`.

    Returns
    -------
    ChatSummary
        Counts of rows written, and of rows left out by reason.

    Raises
    ------
    SettingsError, CohortError
        Before anything is read: if the output cannot be written, or a folder or column does not exist.
    RunError
        If no row could be written, names collide, or the disk is full.
    """
    with _replacing(settings.output_file) as file:
        summary = ChatSummary()
        lines = (orjson.dumps(form(sample)) for sample in _kept(ChatRows(settings), summary))
        _write(file, lines, settings.output_format)
        if not summary.written:
            raise RunError("\n  ".join([f"{settings.output_file} was not written: no row is left", *summary.lines()]))
    return summary


def _kept(rows: Iterable[ChatRow | tuple[LeftOut, str]], summary: ChatSummary) -> Iterator[ChatRow]:
    for row in rows:
        summary.rows += 1
        if isinstance(row, ChatRow):
            summary.written += 1
            yield row
        else:
            reason, seen = row
            summary.left_out[reason] += 1
            summary.examples.setdefault(reason, seen)
            logger.debug("left out, %s: %s", reason, seen)
        if summary.rows % _ROWS_BETWEEN_LINES == 0:
            logger.info("%s rows", f"{summary.rows:,}")


def _write(file: BufferedWriter, lines: Iterable[bytes], output_format: str) -> None:
    first, between, last = (b"[\n", b",\n", b"\n]\n") if output_format == "json" else (b"", b"\n", b"\n")
    before = first
    for line in lines:
        file.write(before + line)
        before = between
    file.write(last)


@contextmanager
def _replacing(target: Path) -> Iterator[BufferedWriter]:
    """A temporary file that replaces `target` when the block ends without an error, and is removed otherwise."""
    path = Path(os.path.realpath(target))
    if path.exists() and not path.is_file():
        raise SettingsError(f"output_file {target} is not a regular file; expected the name of a file to write")
    with ExitStack() as opened:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = opened.enter_context(replacing(path))
        except OSError as error:
            raise SettingsError(f"output_file {target} cannot be written: {error.strerror}") from error
        written = opened.pop_all()
    try:
        with written:
            yield file
    except OSError as error:
        raise RunError(f"{target} could not be written: {error.strerror or error}") from error
