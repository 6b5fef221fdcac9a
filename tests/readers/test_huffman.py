"""Huffman codes of SCP-ECG, in C and in Python: the same numbers and the same errors, for any table and any bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.errors import ReadError
from ecgfounder.readers import scp

needs_compiled = pytest.mark.skipif(scp._loops is None, reason="the module in C was not built")


@st.composite
def tables(draw: st.DrawFn) -> tuple[scp._Code, ...]:
    """Codes that may be incomplete, or prefixes of each other."""
    if draw(st.booleans()):
        return scp._default_table()
    codes = []
    for _ in range(draw(st.integers(1, 12))):
        bits = draw(st.integers(1, 16))
        extra = draw(st.sampled_from([0, 0, 0, 1, 8, 16, 32]))
        codes.append(scp._Code(bits, extra, draw(st.integers(0, (1 << bits) - 1)), draw(st.integers(-9, 9)), None))
    return tuple(codes)


def told(function: object, *arguments: object) -> object:
    try:
        return function(*arguments).tolist()  # type: ignore[operator]
    except ReadError as error:
        return str(error)


@needs_compiled
@given(tables(), st.binary(max_size=60), st.integers(1, 60))
@settings(max_examples=400, deadline=None)
def test_both_give_the_same(table: tuple[scp._Code, ...], data: bytes, n_samples: int) -> None:
    assert told(scp._decode_compiled, data, n_samples, table) == told(scp._decode_in_python, data, n_samples, table)


@needs_compiled
@pytest.mark.parametrize(
    "change",
    [
        {"longest": 17},
        {"longest": 0},
        {"lookup": np.zeros(3, np.uint16)},
        {"lookup": np.full(2, 7, np.uint16)},
        {"entries": np.array([[0, 0, 1, 1]], np.int64)},
        {"entries": np.array([[1, 33, 1, 1]], np.int64)},
        {"entries": np.array([[-1, 0, 1, 1]], np.int64)},
    ],
)
def test_a_table_that_would_lead_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    whole = {
        "entries": np.array([[1, 0, 5, 1]], np.int64),
        "lookup": np.zeros(2, np.uint16),
        "longest": 1,
    } | change
    with pytest.raises(ValueError, match="not a table"):
        scp._loops.huffman(b"\xff", *whole.values(), np.zeros(4, np.int64))
    out = np.zeros(4, np.int64)
    assert scp._loops.huffman(b"\xff", np.array([[1, 0, 5, 1]], np.int64), np.zeros(2, np.uint16), 1, out) == 0
    assert out.tolist() == [5, 5, 5, 5]
