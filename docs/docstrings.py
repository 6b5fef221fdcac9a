"""How this package's docstrings become the reference: a Griffe extension, loaded by mkdocs.yml.

In: docstrings whose parameters and attributes read `name : what it is`. Out: the same with `what it is` below the name, so
that Griffe takes it for the description, and the types from the signatures.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SECTION = re.compile(r"^(?P<title>\w[\w ]*)\n-{3,}$", re.MULTILINE)
_ENTRY = re.compile(r"^(?P<names>[*\w][\w*, ]*?) : (?P<meaning>\S.*(?:\n+ +.*)*)", re.MULTILINE)


class NameAndMeaning(griffe.Extension):
    """Puts what follows a colon on a line of its own, and names that share it under one another."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        self._mend(pkg)

    def _mend(self, documented: griffe.Object | griffe.Alias) -> None:
        if isinstance(documented, griffe.Alias):
            return  # the object that it stands for is mended where it is defined
        if documented.docstring is not None:
            documented.docstring.value = with_meanings_below(documented.docstring.value)
        for member in documented.members.values():
            self._mend(member)


def with_meanings_below(docstring: str) -> str:
    """A docstring whose `Parameters` and `Attributes` have descriptions where they had types."""
    starts = list(_SECTION.finditer(docstring))
    ends = [section.start() for section in starts[1:]] + [len(docstring)]
    parts = [docstring[: starts[0].start()] if starts else docstring]
    for section, end in zip(starts, ends, strict=False):
        text = docstring[section.start() : end]
        if section["title"] in ("Parameters", "Attributes"):
            text = _ENTRY.sub(_entries, text)
        parts.append(text)
    return "".join(parts)


def _entries(found: re.Match[str]) -> str:
    return "\n".join(f"{name}\n    {found['meaning']}" for name in found["names"].split(", "))
