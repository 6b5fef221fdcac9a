"""Lists of paths that were written as text, as tables without lists hold them.

In: a cell's text: JSON (`["a.xml", "b.xml"]`), or what Python and NumPy print (`['a.xml', 'b.xml']`, `['a.xml' 'b.xml']`).
Out: its paths.
"""

from __future__ import annotations

import ast
import json
import re

_TEXT = r"'(?:[^'\\]|\\.)*+'|\"(?:[^\"\\]|\\.)*+\""
_TOKEN = re.compile(rf"[\s,]*+(?:(?P<text>{_TEXT})|(?P<none>None|null|nan|NaN)|(?P<bracket>[\[\]]))", re.DOTALL)
_BEGINS = re.compile(r"\s*+\[[\s\[]*+['\"]")
_EMPTY = re.compile(r"\s*+\[(?:[\s,\[\]]|None|null|nan|NaN)*+")


def is_list_text(cell: str) -> bool:
    """Whether a text is a list, by how it begins; no path begins with a bracket and a quotation mark."""
    if cell.lstrip()[:1] != "[":
        return False
    return _BEGINS.match(cell) is not None or (cell.rstrip().endswith("]") and _EMPTY.fullmatch(cell) is not None)


def paths_of_text(cell: str) -> list[str]:
    """The paths of a list that was written as text, flattened; None and empty texts are left out.

    Raises
    ------
    ValueError
        If it is cut, shortened by '...', or holds something else.
    """
    paths: list[str] = []
    at = depth = 0
    cell = cell.strip()
    while at < len(cell):
        token = _TOKEN.match(cell, at)
        if token is None or (depth == 0 and at):
            raise ValueError("not a list of paths")
        at = token.end()
        if token["text"]:
            paths.append(_unquoted(token["text"]))
        elif token["bracket"]:
            depth += 1 if token["bracket"] == "[" else -1
    if depth:
        raise ValueError("a list without an end")
    return list(filter(None, paths))


def _unquoted(text: str) -> str:
    if "\\" not in text:
        return text[1:-1]
    try:
        return str(json.loads(text))
    except ValueError:
        try:
            return str(ast.literal_eval(text))
        except SyntaxError as error:
            raise ValueError("a text that cannot be read") from error
