"""The signal lines of headers: the usual form, parsed quickly, as any other."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgfounder.readers.wfdb import header

STORED = ["16", "212", "9", "16x2", "16+8", "16:3", "200", "200.0(0)/mV", "1e400", "0/V", "(5)/uV"]
OTHERS = ["a.dat", "b/a.dat", "../a.dat", "~", "-", "12", "0", "-1", "+7", "1_0", "\u0663", "9" * 13, "I", "V5", "#"]


@given(st.lists(st.sampled_from(STORED + OTHERS), min_size=1, max_size=11), st.sampled_from([" ", "  ", "\t"]))
@settings(max_examples=1000, deadline=None)
@example(["a.dat", "16", "200.0(0)/mV", "16", "0", "-1", "12", "0", "I"], " ")
@example(["a.dat", "16", "200.0(0)/mV", "16", "0", "-1", "+12", "0", "I"], " ")
@example(["a.dat", "16", "200.0(0)/mV", "16", "0", "-1", "12", "0", "\u0663"], " ")
@example(["a.dat", "16", "0/V", "12", "0", "-1", "12", "0", "I", "x"], " ")
@example(["a.dat", "9", "0/V", "12", "0", "-1", "12", "0", "I"], " ")
@example(["../a.dat", "16", "0/V", "12", "0", "-1", "12", "0", "I"], " ")
def test_usual_signal_lines_are_parsed_as_any(fields: list[str], between: str) -> None:
    lines = ["a.dat 16 200.0(0)/mV 16 0 -119 1508 0 I", between.join(fields)]
    usual = header._usual_signals(lines)
    if usual is not None:
        assert usual == tuple(header._parse_signal(line, row, layout=False) for row, line in enumerate(lines))


def test_the_usual_form_is_parsed_quickly_and_other_lines_are_not() -> None:
    line = "a.dat 16 200.0(0)/mV 16 0 -119 1508 0 I"
    assert header._usual_signals([line]) is not None
    assert header._usual_signals([line] * 12) == header._usual_signals([line]) * 12  # type: ignore[operator]
    for other in (f"{line} x", line[:-2], "", f"../{line}", f"~{line[5:]}", f"-{line[5:]}"):
        assert header._usual_signals([line, other, line]) is None


def test_lines_that_another_program_separated_in_other_ways_are_as_good() -> None:
    lines = ["r 2 500 10", *["a.dat 16 200.0(0)/mV 16 0 -119 1508 0 I"] * 2]
    expected = header.parse_header("\n".join(lines).encode())
    for separator in ("\r\n", "\r", "\n\n", " \n\t", "\n# a comment\n"):
        assert header.parse_header(separator.join(lines).encode()) == expected
