"""Whole numbers of a text, in C and in Python: the same numbers, the same texts left to the slower function, the same errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgfounder.errors import ReadError
from ecgfounder.readers import quantities
from ecgfounder.readers.quantities import numbers_of

needs_compiled = pytest.mark.skipif(quantities._numbers is None, reason="the module in C was not built")

PIECES = st.sampled_from(
    ["0", "7", "-", "+", ",", " ", "\n", "\t", "12", "-345", "999999999", "1000000000", ".", "e", "x", "\0", "\xe4"]
)


def told(function: object, raw: bytes) -> object:
    try:
        values = function(raw, "digits")  # type: ignore[operator]
    except ReadError as error:
        return str(error)
    return None if values is None else (values.dtype, values.tolist())


@needs_compiled
@given(st.lists(PIECES, max_size=40).map("".join))
@settings(max_examples=400, deadline=None)
@example("")
@example("-")
@example("5-3")
@example("--3")
@example("1,,2")
@example("1,2,")
@example(",1")
@example("1 2,3")
@example("1234567890,-")
def test_both_give_the_same(text: str) -> None:
    raw = text.encode("latin-1")
    assert told(quantities._whole_numbers_compiled, raw) == told(quantities._whole_numbers, raw)


@needs_compiled
@given(st.lists(st.integers(-999_999_999, 999_999_999)), st.sampled_from([" ", ",", ", ", "\n", "\t "]))
def test_numbers_come_back(numbers: list[int], separator: str) -> None:
    raw = separator.join(map(str, numbers)).encode()
    found = quantities._whole_numbers_compiled(raw, "digits")
    assert found is not None
    assert found.tolist() == numbers
    assert found.tolist() == numbers_of(raw.decode(), "digits").tolist()


@needs_compiled
def test_too_little_space_is_refused_before_anything_is_written() -> None:
    out = np.full(2, 77.0)
    with pytest.raises(ValueError, match="one float64"):
        quantities._numbers.whole_numbers(b"1 2 3 4", out)
    assert out.tolist() == [77.0, 77.0]
    with pytest.raises((TypeError, BufferError)):
        quantities._numbers.whole_numbers(b"1", b"not writable")  # type: ignore[arg-type]


def test_without_the_module_in_c_numbers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["1,2,-3", " 5 6\n7 ", "1,,2", "0.5 1e3", "1234567890 1"]
    before = [numbers_of(text, "digits").tolist() for text in texts]
    monkeypatch.setattr(quantities, "_numbers", None)
    for text, values in zip(texts, before, strict=True):
        np.testing.assert_array_equal(numbers_of(text, "digits"), values)
