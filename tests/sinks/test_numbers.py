"""The text of float32 numbers, in C and by orjson: the same bytes."""

from __future__ import annotations

import json as standard
from unittest import mock

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ecgfounder.sinks import json
from ecgfounder.sinks.json import document

needs_compiled = pytest.mark.skipif(json._numbers is None, reason="the module in C was not built")

STEP = 4099
"""Every so many of all float32 numbers; a prime, so that all exponents and endings occur."""


def both(embedding: npt.NDArray[np.float32]) -> bytes:
    """The document, which is the same with and without the module in C."""
    compiled = document(embedding, "a.xml")
    with mock.patch.object(json, "_numbers", None):
        assert document(embedding, "a.xml") == compiled
    return compiled


@needs_compiled
def test_one_of_4099_of_all_numbers_and_all_near_powers_of_two_are_written_as_orjson_writes_them() -> None:
    spread = np.arange(0, 1 << 32, STEP, dtype=np.int64).astype(np.uint32)
    near_powers = (np.arange(512, dtype=np.int64)[:, None] * (1 << 23) + np.arange(-40, 40)).ravel().astype(np.uint32)
    for bits in (*np.array_split(spread, 8), near_powers):
        numbers = bits.view(np.float32)
        expected = orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)
        assert json._numbers.json(numbers, b"", b"") == expected


@given(st.lists(st.floats(width=32), max_size=600), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
@example([0.0, -0.0, float("nan"), float("inf"), float("-inf")], 1)
@example([1e-45, -1.1754944e-38, 3.4028235e38, 16777216.0, 1e-5, 1e-6, 1e-7, 9.999999e12, 1e13], 3)
def test_what_is_written_reads_back_as_the_same_number(numbers: list[float], n_rows: int) -> None:
    row = np.array(numbers, np.float32)
    read = standard.loads(both(np.tile(row, (n_rows, 1))))
    assert read["shape"] == [n_rows, len(numbers)]
    for found in read["embedding"]:
        values = np.array([np.nan if value is None else value for value in found], np.float32)
        finite = np.isfinite(row)
        assert values[finite].tobytes() == row[finite].tobytes()
        assert np.isnan(values[~finite]).all()
    assert standard.loads(both(row))["embedding"] == (read["embedding"][0] if len(row) else [])


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1, 1), (2, 257), (2, 2, 2)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    embedding = np.linspace(-2, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    read = standard.loads(both(embedding))
    assert read["shape"] == list(shape)
    assert np.array_equal(np.array(read["embedding"], np.float32).reshape(shape), embedding)
    assert list(read) == ["embedding", "shape", "description", "modality"]


def test_other_kinds_of_numbers_and_of_memory() -> None:
    numbers = np.linspace(-2, 2, 24, dtype=np.float32).reshape(4, 6)
    assert both(numbers.T) == both(np.ascontiguousarray(numbers.T))
    assert both(numbers[:, ::2]) == both(numbers[:, ::2].copy())
    assert standard.loads(both(numbers.astype(np.float64)))["embedding"] == numbers.astype(np.float64).tolist()  # type: ignore[arg-type]


@needs_compiled
def test_what_is_no_array_of_float32_is_refused() -> None:
    for wrong in (np.zeros(3), np.zeros((1, 1, 1), np.float32), np.float32(1), np.zeros(2, np.int32), b"1234"):
        with pytest.raises((ValueError, TypeError, BufferError)):
            json._numbers.json(wrong, b"", b"")  # type: ignore[arg-type]
    with pytest.raises((ValueError, BufferError)):
        json._numbers.json(np.zeros((4, 4), np.float32)[:, ::2], b"", b"")
    with pytest.raises(TypeError):
        json._numbers.json(np.zeros(1, np.float32), "text", b"")  # type: ignore[arg-type]
