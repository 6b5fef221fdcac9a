"""The compiled XLI loops give what those in Python give, byte for byte, and leave to them what is not plainly sound."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.demo.philips_encoder import compress_lead
from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.errors import ECGFounderError
from ecgfounder.readers.philips import xli

pytestmark = pytest.mark.skipif(xli._xli is None, reason="the extension was not built: no C compiler")

RESOLUTION = 5.0


def in_python(data: bytes, leads: tuple[str, ...], duration: float) -> npt.NDArray[np.float32] | None:
    """Millivolts, or None for an error."""
    try:
        counts = xli.restore_limb_leads(xli.decode_xli(data, len(leads), duration), leads)
        xli.refuse_jumps(counts)
    except ECGFounderError:
        return None
    return counts.astype(np.float32) * np.float32(RESOLUTION) / np.float32(1000)


def are_equal(data: bytes, leads: tuple[str, ...], duration: float) -> bool:
    expected, found = in_python(data, leads, duration), xli.millivolts(data, leads, duration, RESOLUTION)
    if expected is None or found is None:
        return expected is found
    return found.dtype == np.float32 and found.shape == expected.shape and found.tobytes() == expected.tobytes()


def packed(codes: list[int]) -> bytes:
    bits = "".join(f"{code:010b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def chunk(payload: bytes, first: int = 0) -> bytes:
    return struct.pack("<iHh", len(payload), 1, first) + payload


def n_bytes(codes: list[int]) -> int:
    """What the codes stand for, in bytes; 2 if they are impossible."""
    lengths = [1] * 256
    for number, code in enumerate(codes):
        if number and len(lengths) < 1023:
            lengths.append(lengths[codes[number - 1]] + 1)
        if code >= len(lengths):
            return 2
    return sum(lengths[code] for code in codes)


@st.composite
def code_streams(draw: st.DrawFn) -> list[int]:
    """Mostly possible codes, up to the newest string, which is drawn often; now and then one that is not, or an end."""
    n_codes = draw(st.integers(0, 1100))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    newest = 255 + np.minimum(np.arange(n_codes), 767)
    drawn = rng.integers(newest + 1) if n_codes else newest
    codes: list[int] = np.where(rng.random(n_codes) < draw(st.sampled_from([0, 0.3, 0.9])), newest, drawn).tolist()
    for number in draw(st.lists(st.integers(0, max(n_codes - 1, 0)), max_size=1)):
        codes[number : number + 1] = [draw(st.integers(0, 1023))]
    return codes


@given(code_streams(), st.sampled_from([0, 0.4, -0.4, 1, -1, 200]), st.integers(-(2**15), 2**15 - 1))
def test_any_codes(codes: list[int], difference: float, first: int) -> None:
    duration = (n_bytes(codes) + 1) // 2 + difference
    if duration > 0.5:
        assert are_equal(chunk(packed(codes), first), ("V1",), duration)


@given(st.binary(max_size=60), st.integers(1, 60))
def test_any_bytes(payload: bytes, duration: int) -> None:
    assert are_equal(chunk(payload), ("V1",), duration)
    assert are_equal(payload, ("V1",), duration)


RNG = np.random.default_rng(7)
SOUND = b"".join(compress_lead(np.cumsum(RNG.integers(-3, 4, 700)).astype(np.int16)) for _ in range(12))


def test_sound_data_is_decoded_by_the_compiled_loops() -> None:
    assert xli.millivolts(SOUND, STANDARD_LEADS, 700, RESOLUTION) is not None
    assert are_equal(SOUND, STANDARD_LEADS, 700)


@given(st.integers(0, 8 * len(SOUND) - 1), st.integers(0, len(SOUND)))
def test_data_with_a_bit_turned_over_or_without_its_end(place: int, end: int) -> None:
    damaged = bytearray(SOUND)
    damaged[place // 8] ^= 1 << place % 8
    assert are_equal(bytes(damaged), STANDARD_LEADS, 700)
    assert are_equal(SOUND[:end], STANDARD_LEADS, 700)


@given(st.permutations([*STANDARD_LEADS, "V7"]), st.integers(1, 13), st.integers(1, 70), st.integers(0, 2**32))
def test_any_leads_in_any_order(leads: list[str], n_leads: int, n_samples: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.choice([3, 300, 9000]) * rng.integers(-1, 2, (n_leads, n_samples))
    data = b"".join(compress_lead(lead) for lead in np.cumsum(steps, axis=1).astype(np.int16))
    assert are_equal(data, tuple(leads[:n_leads]), n_samples)


@pytest.mark.parametrize("jump", [xli.MAX_JUMP, xli.MAX_JUMP + 1])
def test_the_largest_jump(jump: int) -> None:
    lead = np.repeat([-(2**15), -(2**15) + jump], 40).astype(np.int16)
    data = compress_lead(lead)
    assert are_equal(data, ("V1",), 80)
    assert (xli.millivolts(data, ("V1",), 80, RESOLUTION) is None) == (jump > xli.MAX_JUMP)


def test_a_range_of_more_than_the_largest_jump_without_one() -> None:
    lead = np.linspace(-32768, 32767, 300).astype(np.int16)
    assert xli.millivolts(compress_lead(lead), ("V1",), 300, RESOLUTION) is not None
    assert are_equal(compress_lead(lead), ("V1",), 300)


def test_many_codes_that_stand_for_more_than_was_announced_are_refused() -> None:
    payload = packed([65, *(256 + min(number, 766) for number in range(20_000))])
    assert are_equal(chunk(payload), ("V1",), 30_000)
    assert xli.millivolts(chunk(payload), ("V1",), 30_000, RESOLUTION) is None


@pytest.mark.parametrize("codes", [[], [65], [300], [1023], [65, 1023], [65, 256], [65, 257], [300, 65], [65, 66, 258]])
@pytest.mark.parametrize("duration", [0.6, 1, 1.5, 2, 3])
def test_few_codes(codes: list[int], duration: float) -> None:
    assert are_equal(chunk(packed(codes)), ("V1",), duration)


def test_leads_of_unequal_length_are_refused() -> None:
    data = compress_lead(np.arange(20, dtype=np.int16)) + compress_lead(np.arange(21, dtype=np.int16))
    assert are_equal(data, ("V1", "V2"), 20.5)
    assert xli.millivolts(data, ("V1", "V2"), 20.5, RESOLUTION) is None


def test_the_compiled_function_refuses_memory_without_room_and_rows_that_are_not_there() -> None:
    rows = np.full(6, -1, np.int64)
    for some, duration, room in (
        (rows, 21, 20),
        (rows, 0, 20),
        (rows, float("nan"), 20),
        (rows[:5], 20, 20),
        (rows + 2, 20, 20),
    ):
        with pytest.raises(ValueError, match="six rows"):
            xli._xli.millivolts(SOUND, 1, 1000, duration, RESOLUTION, some, np.empty(room, np.float32))
