"""Escaped text does nothing where it is shown, and nothing of it is lost."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.escaping import as_cell, counted, one_line

NOT_PRINTABLE = (
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *("\u200e", "\u200f", "\u061c", "\u202a", "\u202b", "\u202c", "\u202d", "\u202e"),
    *("\u2066", "\u2067", "\u2068", "\u2069", "\u2028", "\u2029", "\ufeff", "\ud800", "\udc80", "\udfff"),
)


@pytest.mark.parametrize("character", NOT_PRINTABLE, ids=ascii)
def test_a_control_character_is_written_out(character: str) -> None:
    shown = one_line(f"a{character}b")
    assert shown.isprintable()
    assert re.fullmatch(r"a\\(?:[tnr]|x[0-9a-f]{2}|u[0-9a-f]{4})b", shown)


@pytest.mark.parametrize("text", ["", "a/b c.xml", "größe-心電図-😀.xml", "back\\slash", "'quoted'"])
def test_printable_text_is_unchanged(text: str) -> None:
    assert one_line(text) == text


FORMULAS = (
    *("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\tx", "\rx", "＝1+1", "＋1+1", "－1+1", "＠SUM(A1)", "−1+1"),
    *(
        " =1",
        "\u00a0=1",
        "\ufeff=1",
        "\n=1",
        "\x00=1",
        "'=1",
        '"=1',
        " ' \"=1",
        "\u201c=1",
        "--1",
        "-x",
        "-",
        "+",
        "=",
        "@",
    ),
)


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_a_formula_is_no_longer_one(text: str) -> None:
    assert as_cell(text).startswith("'")
    assert without_apostrophes(as_cell(text)) == text


@pytest.mark.parametrize("between", [";", "\t", "\n", "\r", "; ", ";'"], ids=ascii)
def test_a_formula_after_another_programs_separator_is_none_either(between: str) -> None:
    """A spreadsheet that expects semicolons begins a cell there, whatever the quotes of the comma's dialect."""
    cell = as_cell(f"a{between}=1")
    assert cell[:3] == f"a{between[0]}'"
    assert without_apostrophes(cell) == f"a{between}=1"


@pytest.mark.parametrize(
    "text", ["", "-5", "+5", "-0.25", "-1e-05", "a=1", "a-b.xml", "x@y", "a; b", "a\nb", "'a'", "damaged, -3 samples"]
)
def test_numbers_and_plain_text_are_unchanged(text: str) -> None:
    assert as_cell(text) == text


def without_apostrophes(cell: str) -> str:
    """A cell's text again, as docs/outputs.md describes it: one apostrophe less wherever a formula begins."""
    blank, sign = (
        r"[\s\x00-\x20\ufeff\u200b-\u200f\u2060'\"\u2018\u2019\u201c\u201d]*?",
        r"[=+\-@\t\r＝＋－＠﹦﹢﹣﹫−]",
    )
    return re.sub(rf"((?:\A|(?<=[;\t\r\n])))'(?={blank}{sign})", "", cell)


@given(st.text(alphabet="=+-@'\"; \t\r\n\ufeffＡ＝a1,.", max_size=12))
def test_the_apostrophes_can_be_removed_without_doubt(text: str) -> None:
    assert without_apostrophes(as_cell(text)) == text


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1001, "1,001 files"), (-1, "-1 files")]
)
def test_one_is_singular(number: int, words: str) -> None:
    assert counted(number, "file") == words
