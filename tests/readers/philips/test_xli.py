"""The compiled XLI loops give what those in Python give, byte for byte and error for error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.demo.philips_encoder import compress_lead
from ecgfounder.errors import ReadError
from ecgfounder.readers.philips import xli

pytestmark = pytest.mark.skipif(xli._xli is None, reason="the extension was not built: no C compiler")

MOST_BYTES = 11_001


def in_python(payload: bytes) -> bytes | str:
    codes, n_codes = xli._codes([payload])
    try:
        return xli._expand(codes[0, : n_codes[0]].tolist(), MOST_BYTES)
    except ReadError as error:
        return str(error)


def compiled(payload: bytes) -> bytes | str:
    try:
        return xli._expand_compiled(payload, MOST_BYTES)
    except ReadError as error:
        return str(error)


def packed(codes: list[int]) -> bytes:
    bits = "".join(f"{code:010b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


@st.composite
def code_streams(draw: st.DrawFn) -> bytes:
    """Mostly possible codes, up to the newest string; now and then one that is not, or an end."""
    n_codes = draw(st.integers(0, 1100))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    codes = [int(rng.integers(256 + min(number, 767))) for number in range(n_codes)]
    for number in draw(st.lists(st.integers(0, max(n_codes - 1, 0)), max_size=2)):
        codes[number : number + 1] = [draw(st.integers(0, 1023))]
    return packed(codes)


@given(code_streams())
def test_any_codes(payload: bytes) -> None:
    assert compiled(payload) == in_python(payload)


@given(st.binary(max_size=60))
def test_any_bytes(payload: bytes) -> None:
    assert compiled(payload) == in_python(payload)


@given(st.integers(0, 2**32), st.integers(0, 400), st.integers(0, 7))
def test_a_real_lead_with_a_bit_turned_over(seed: int, place: int, bit: int) -> None:
    rng = np.random.default_rng(seed)
    lead = np.cumsum(rng.integers(-3, 4, 1500)).astype(np.int16)
    chunk = bytearray(compress_lead(lead)[8:])
    assert compiled(bytes(chunk)) == in_python(bytes(chunk))
    chunk[place % len(chunk)] ^= 1 << bit
    assert compiled(bytes(chunk)) == in_python(bytes(chunk))


def test_many_codes_that_stand_for_more_than_was_announced_are_refused() -> None:
    payload = packed([65, *(256 + min(number, 766) for number in range(20_000))])
    assert compiled(payload) == in_python(payload) == "more samples than the document states"


@pytest.mark.parametrize("codes", [[], [65], [300], [1023], [65, 1023], [65, 256], [65, 257], [300, 65], [65, 66, 258]])
def test_few_codes(codes: list[int]) -> None:
    assert compiled(packed(codes)) == in_python(packed(codes))


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 3))
def test_sums_over_any_words(seed: int, n_samples: int, n_leads: int) -> None:
    rng = np.random.default_rng(seed)
    texts = [rng.bytes(2 * n_samples) for _ in range(n_leads)]
    first = rng.integers(-(2**15), 2**15, n_leads).tolist()
    found = xli._integrate_compiled(texts, first)
    assert found.dtype == np.int16
    assert np.array_equal(found, xli._integrate(texts, first))


def test_sums_need_two_bytes_a_sample() -> None:
    for text, n_samples in ((b"abc", 1), (b"abcd", 1), (b"abc", 2)):
        with pytest.raises(ValueError, match="two bytes"):
            xli._xli.integrate(text, 0, np.empty(n_samples, "<i2"))
