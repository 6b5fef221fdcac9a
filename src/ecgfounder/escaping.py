"""Text for people and programs: names from files, escaped for terminals and spreadsheets; numbers of things.

In: any text, such as a file's name. Out: one printable line, or a cell of a CSV file that no spreadsheet runs as a formula.
In: a number and a noun. Out: both, in the singular or plural.
In: facts by name. Out: a table of them for a notebook.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable


def one_line(text: str) -> str:
    """Text for a line on a terminal or in a log: characters that are not printable are escaped as in Python source.

    These are line breaks, control characters (C0, C1, DEL), with them the commands of a terminal, characters that change the
    direction of text, and lone surrogates, which stand for bytes of a name that are not UTF-8.

    >>> print(one_line("a\x1b[2J\\n\u202eb"))
    a\\x1b[2J\\n\\u202eb
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def counted(number: int, noun: str) -> str:
    """A number and what it counts, in the singular or plural.

    >>> counted(1, "recording"), counted(1200, "recording")
    ('1 recording', '1,200 recordings')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def facts_as_html(title: str, facts: Iterable[tuple[str, str]]) -> str:
    """A small table of facts, as notebooks show an object (`_repr_html_`).

    >>> facts_as_html("Run", [("recordings", "<3>")])
    '<table><caption>Run</caption><tr><th>recordings</th><td>&lt;3&gt;</td></tr></table>'
    """
    rows = "".join(
        f"<tr><th>{html.escape(one_line(name))}</th><td>{html.escape(one_line(text))}</td></tr>" for name, text in facts
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"


# A spreadsheet ignores blanks and quotes before a formula, and may take its full-width, small or mathematical signs for the ASCII
# ones. One that expects semicolons or tabs between cells begins a cell within a text.
_IGNORED = r"[\s\x00-\x20\ufeff\u200b-\u200f\u2060'\"\u2018\u2019\u201c\u201d]*?"
_SIGNS = r"[=+\-@\t\r\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212]"
_FORMULA = re.compile(rf"(?:(?<=[;\t\r\n])|\A)(?={_IGNORED}{_SIGNS})")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


def as_cell(text: str) -> str:
    """Text for a cell of a CSV file: an apostrophe goes before whatever a spreadsheet would run as a formula.

    Numbers are no formulas and are not changed. The apostrophes can be removed again without doubt: there is one at the beginning
    of a cell, or after a semicolon, tab or line break in it, if and only if a formula follows.

    >>> as_cell("=1+1"), as_cell("a/b.xml"), as_cell("-5")
    ("'=1+1", 'a/b.xml', '-5')
    """
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub("'", text)
