"""The signal lines of headers: the usual form, parsed quickly, as any other."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgfounder.readers.wfdb import header, signals

STORED = ["16", "212", "9", "16x2", "16+8", "16:3", "200", "200.0(0)/mV", "1e400", "0/V", "(5)/uV"]
OTHERS = ["a.dat", "b/a.dat", "../a.dat", "~", "-", "12", "0", "-1", "+7", "1_0", "\u0663", "9" * 13, "I", "V5", "#"]


@given(st.lists(st.sampled_from(STORED + OTHERS), min_size=1, max_size=11), st.sampled_from([" ", "  ", "\t"]))
@settings(max_examples=400, deadline=None)
@example(["a.dat", "16", "200.0(0)/mV", "16", "0", "-1", "12", "0", "I"], " ")
@example(["a.dat", "16", "200.0(0)/mV", "16", "0", "-1", "+12", "0", "I"], " ")
@example(["a.dat", "16", "200.0(0)/mV", "16", "0", "-1", "12", "0", "\u0663"], " ")
@example(["a.dat", "16", "0/V", "12", "0", "-1", "12", "0", "I", "x"], " ")
@example(["a.dat", "9", "0/V", "12", "0", "-1", "12", "0", "I"], " ")
@example(["../a.dat", "16", "0/V", "12", "0", "-1", "12", "0", "I"], " ")
def test_usual_signal_lines_are_parsed_as_any(fields: list[str], between: str) -> None:
    lines = ["a.dat 16 200.0(0)/mV 16 0 -119 1508 0 I", between.join(fields)]
    usual = signals._usual_signals(lines)
    if usual is not None:
        assert list(zip(*usual, strict=True)) == [
            signals._parse_signal(line, row, layout=False) for row, line in enumerate(lines)
        ]


def test_the_usual_form_is_parsed_quickly_and_other_lines_are_not() -> None:
    line = "a.dat 16 200.0(0)/mV 16 0 -119 1508 0 I"
    one, twelve = signals._usual_signals([line]), signals._usual_signals([line] * 12)
    assert one is not None
    assert twelve is not None
    assert twelve == tuple(part * 12 for part in one)
    again = signals._usual_signals([line.replace("a.dat", "b.dat").replace("1508", "-7")])
    assert again == (("b.dat",), (-7,), one.signals)
    assert again.signals is one.signals
    for other in (f"{line} x", line[:-2], "", f"../{line}", f"~{line[5:]}", f"-{line[5:]}"):
        assert signals._usual_signals([line, other, line]) is None


def test_lines_that_another_program_separated_in_other_ways_are_as_good() -> None:
    lines = ["r 2 500 10", *["a.dat 16 200.0(0)/mV 16 0 -119 1508 0 I"] * 2]
    expected = header.parse_header("\n".join(lines).encode())
    for separator in ("\r\n", "\r", "\n\n", " \n\t", "\n# a comment\n"):
        assert header.parse_header(separator.join(lines).encode()) == expected


def test_signal_lines_of_a_hostile_header_are_not_remembered() -> None:
    remembered = signals._stored_as.cache_info().currsize
    long = f"a.dat 16 200.0(0)/mV 16 0 -119 1508 0 {'I' * 5000}"
    parsed = signals.parse_signals([long], layout=False)
    assert parsed.signals[0].name == "I" * 5000
    assert signals._stored_as.cache_info().currsize == remembered


@pytest.mark.parametrize(
    ("stored", "is_bounded"), [("200(0)/mV", True), ("0.01(0)/V", False), ("1(2000000)/mV", False), ("-0.5(0)", True)]
)
def test_only_where_counts_may_be_kilovolts_each_record_is_asked(stored: str, is_bounded: bool) -> None:
    parsed = signals.parse_signals([f"a.dat 16 {stored} 16 0 0 0 0 I"], layout=False)
    assert parsed.signals.is_bounded is is_bounded
