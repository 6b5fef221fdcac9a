"""Pages of the documentation: their fenced blocks, and the commands in them.

In: a page. Out: `Block`s, and commands as words.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.places import ROOT

DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, or a command in a comment; `line` is where it begins."""

    kind: str
    text: str
    line: int


_BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$|^<!-- \$ (?P<hidden>.*?) -->$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        if found["hidden"]:
            yield Block("bash", found["hidden"], line)
        else:
            yield Block(found["kind"], found["text"], line)


def commands_of(text: str) -> Iterator[tuple[list[str], int]]:
    """The commands of a shell block as words, each with the exit status that it must have."""
    for line in text.replace("\\\n", " ").splitlines():
        command, _, remark = line.partition("  # ") if "  # " in line else (line, "", "")
        if not command.strip() or command.startswith("#"):
            continue
        stated = re.search(r"exit status (\d+)", remark)
        yield shlex.split(os.path.expandvars(command)), int(stated[1]) if stated else 0
