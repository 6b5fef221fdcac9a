"""GE MUSE's export as text: lines such as 'Rhythm signal: 5000 X 12', each above a table of so many rows and columns.

In: a text. Out: the table of the rhythm, checked against its line; tables of median beats are left out.
"""

from __future__ import annotations

import re

from ecgfounder.errors import ReadError

_TITLE = re.compile(
    r"^[ \t]*(?P<name>Rhythm|Median)[A-Za-z ]{0,30}:[ \t]*(?P<rows>\d{1,8}) *[xX] *(?P<columns>\d{1,4})[ \t\r]*$",
    re.MULTILINE,
)


def has_titles(head: str) -> bool:
    """Whether the beginning of a file has a line that announces a table by its rows and columns."""
    return ("Rhythm" in head or "Median" in head) and _TITLE.search(head) is not None


def rhythm_in(text: str) -> tuple[str, str]:
    """The lines above all tables, and the lines of the rhythm's table.

    Raises
    ------
    ReadError
        If there is not exactly one table of a rhythm, or it has not as many rows and columns as announced.
    """
    titles = list(_TITLE.finditer(text))
    rhythms = [number for number, title in enumerate(titles) if title["name"] == "Rhythm"]
    if len(rhythms) != 1:
        raise ReadError(f"expected one table 'Rhythm signal: N X M', found {len(rhythms)} beside {len(titles)} in all")
    title = titles[rhythms[0]]
    end = titles[rhythms[0] + 1].start() if rhythms[0] + 1 < len(titles) else len(text)
    rows = [line for line in text[title.end() : end].split("\n") if line.strip()]
    announced = int(title["rows"]), int(title["columns"])
    widths = {len(rows[0].split()), len(rows[-1].split())} if rows else {0}
    if len(rows) != announced[0] or widths != {announced[1]}:
        raise ReadError(
            f"the table announced as {announced[0]:,} X {announced[1]:,} has {len(rows):,} rows of "
            f"{min(widths):,} to {max(widths):,} columns"
        )
    return text[: titles[0].start()], "\n".join(rows)
