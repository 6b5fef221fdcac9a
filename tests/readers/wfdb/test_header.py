"""The signal lines of headers: the usual form, parsed quickly, as any other."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgfounder.errors import ReadError
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
def test_a_usual_signal_line_is_parsed_as_any(fields: list[str], between: str) -> None:
    line = between.join(fields)

    def parsed(parse: Callable[..., header.Signal]) -> object:
        try:
            return parse(line, 3, layout=False)
        except ReadError as error:
            return str(error)

    assert parsed(header._parse_signal) == parsed(header._any_signal)


def test_the_usual_form_is_parsed_quickly() -> None:
    assert header._usual_signal("a.dat 16 200.0(0)/mV 16 0 -119 1508 0 I") is not None
