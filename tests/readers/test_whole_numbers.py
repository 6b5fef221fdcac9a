"""Whole numbers of a text as millivolts, in C and in Python: the same samples, the same errors."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgfounder.errors import ReadError
from ecgfounder.readers import quantities
from ecgfounder.readers.quantities import millivolts_in

needs_compiled = pytest.mark.skipif(quantities._loops is None, reason="the module in C was not built")

PIECES = st.sampled_from(
    ["0", "7", "-", "+", ",", " ", "\n", "\t", "12", "-345", "999999999", "1000000000", ".", "e", "x", "\0", "\xe4"]
)
SCALES = [(0.005, 0.0), (0.005, -0.25), (-0.001, 0.0), (1e-7, 1e-4)]
"""Millivolts per number, and at 0."""


def told(text: str, scale: float, offset: float) -> object:
    try:
        samples = millivolts_in(text, scale, offset, "digits")
    except ReadError as error:
        return str(error)
    assert samples.dtype == np.float32
    return samples.tobytes()


@needs_compiled
@given(st.lists(PIECES, max_size=40).map("".join), st.sampled_from(SCALES))
@settings(max_examples=400, deadline=None)
@example("", (1.0, 0.0))
@example("-", (1.0, 0.0))
@example("5-3", (1.0, 0.0))
@example("--3", (1.0, 0.0))
@example("1,,2", (1.0, 0.0))
@example("1,2,", (1.0, 0.0))
@example(",1", (1.0, 0.0))
@example("1 2,3", (1.0, 0.0))
@example("1234567890,-", (1.0, 0.0))
@example("-0 0", (-1.0, 0.0))
@example("1 -999999999", (0.005, 0.0))
def test_both_give_the_same(text: str, scale: tuple[float, float]) -> None:
    compiled = told(text, *scale)
    with mock.patch.object(quantities, "_loops", None):
        assert told(text, *scale) == compiled


@needs_compiled
@given(
    st.lists(st.integers(-999_999_999, 999_999_999)),
    st.sampled_from([" ", ",", ", ", "\n", "\t "]),
    st.sampled_from(SCALES),
)
def test_numbers_come_back(numbers: list[int], separator: str, scale: tuple[float, float]) -> None:
    text = separator.join(map(str, numbers))
    out = np.empty(len(text) // 2 + 1, dtype=np.float32)
    found, low, high = quantities._loops.whole_numbers(text, *scale, out)
    assert (found, low, high) == (len(numbers), min(numbers, default=0), max(numbers, default=0))
    expected = np.array(numbers, dtype=np.float64) * scale[0] + scale[1]
    np.testing.assert_array_equal(out[:found], expected.astype(np.float32))


@needs_compiled
def test_too_little_space_is_refused_before_anything_is_written() -> None:
    out = np.full(2, 77.0, dtype=np.float32)
    with pytest.raises(ValueError, match="one float32"):
        quantities._loops.whole_numbers("1 2 3 4", 1.0, 0.0, out)
    assert out.tolist() == [77.0, 77.0]
    with pytest.raises((TypeError, BufferError)):
        quantities._loops.whole_numbers("1", 1.0, 0.0, b"not writable")  # type: ignore[arg-type]


def test_more_than_a_kilovolt_is_refused_by_the_name_of_the_lead() -> None:
    with pytest.raises(ReadError, match="samples of more than a kilovolt"):
        millivolts_in("0 1000001", 1.0, 0.0, "V1")
