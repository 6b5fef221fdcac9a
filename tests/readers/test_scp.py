"""SCP-ECG: the standard's ways of packing, written here by a small encoder, and the one real file."""

from __future__ import annotations

import binascii
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecgfounder.ecg.leads import STANDARD_LEADS, select_leads
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import read_ecg, read_statements
from tests.builders.scp import (
    Plain,
    assemble,
    beats_section,
    data_section,
    leads_section,
    pack,
    to_bytes,
    waves,
)
from tests.harness.mutations import is_read_or_refused, mutations
from tests.places import SHARED

REAL = SHARED / "ecg/scp/ecgtoolkit_Example.scp"
FROM_0 = SHARED / "cases/scp_first_sample_0.scp"


def read_bytes(folder: Path, data: bytes) -> object:
    path = folder / "x.scp"
    path.write_bytes(data)
    return read_ecg(path)


def with_record_checksum(data: bytes) -> bytes:
    return struct.pack("<H", binascii.crc_hqx(data[2:], 0xFFFF)) + data[2:]


def samples(folder: Path, data: bytes) -> npt.NDArray[np.float32]:
    path = folder / "x.scp"
    path.write_bytes(data)
    return read_ecg(path).samples


def test_the_real_file_equals_its_reference_decode() -> None:
    if not REAL.exists():
        pytest.skip("the folder of real recordings is not here")
    recording = read_ecg(REAL)
    expected = np.load(SHARED / "ecg/expected.npz")["scp/ecgtoolkit_Example.scp"]
    np.testing.assert_allclose(select_leads(recording).samples, expected, rtol=0, atol=1e-6)
    assert (recording.sampling_rate, recording.source_format) == (500, "scp_ecg")


def test_every_sample_of_a_device_that_counts_from_0_is_read() -> None:
    if not FROM_0.exists():
        pytest.skip("the folder of real recordings is not here")
    recording = read_ecg(FROM_0)
    data = FROM_0.read_bytes()
    (begin,) = struct.unpack_from("<I", data, data.index(b"\6\0" + struct.pack("<I", 160038)) + 6)
    counts = np.frombuffer(data, "<i2", 80_000, begin - 1 + 16 + 6 + 2 * 8).reshape(8, 10_000)
    np.testing.assert_allclose(recording.samples, counts * 183e-6, rtol=1e-6)
    assert (recording.leads[0], recording.leads[-1], recording.sampling_rate) == ("I", "V6", 1000)
    assert (round(float(recording.samples.min()), 3), round(float(recording.samples.max()), 3)) == (-1.433, 0.855)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 80),
    order=st.sampled_from([0, 1, 2]),
    huffman=st.booleans(),
    size=st.sampled_from([3, 9, 140, 9000, 32767]),
    seed=st.integers(0, 1 << 30),
)
def test_plain_data_round_trips(
    n: int, order: int, huffman: bool, size: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = waves(n, 2, seed, size)
    read = samples(tmp_path_factory.mktemp("s"), Plain(rows, order, huffman).write())
    np.testing.assert_allclose(read, rows * 0.0025, rtol=1e-6)


def test_a_table_of_the_file_with_switches_between_tables_is_followed(tmp_path: Path) -> None:
    """Table 1: 0 -> +1, 10 -> table 2, 11 + 6 bits. Table 2: 1 -> -5, 01 -> table 1, 00 + 8 bits + base 3."""
    row = [1, 1, -5, -5, 30, 100, 1, -20, -5]
    bits = "0 0 10 1 1 01 11011110 10 0001100001 01 0 11101100 10 1".replace(" ", "")

    def code(prefix: str, total: int, mode: int, value: int) -> bytes:
        return struct.pack("<BBBhI", len(prefix), total, mode, value, int(prefix[::-1], 2))

    first = code("0", 1, 1, 1) + code("10", 2, 0, 2) + code("11", 8, 1, 0)
    second = code("1", 1, 1, -5) + code("01", 2, 0, 1) + code("00", 10, 1, 3)
    bodies = {2: struct.pack("<HH", 2, 3) + first + struct.pack("<H", 3) + second}
    bodies[3] = leads_section(["I"], [(1, len(row))])
    bodies[6] = data_section([to_bytes(bits)], 1000, 2000, 0)
    np.testing.assert_allclose(samples(tmp_path, assemble(bodies))[0], np.array(row) * 0.001, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 30), longest=st.sampled_from([6, 20]))
def test_a_single_table_of_the_file_round_trips(
    seed: int, longest: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Codes 1, 01, 001 ... for values, and the longest for 16 bits as they are; short and long tables differ inside."""
    values = list(range(-2, longest - 3))
    prefixes = ["0" * i + "1" for i in range(len(values))]
    table = [(prefix, len(prefix), value) for prefix, value in zip(prefixes, values, strict=True)]
    escape = "0" * len(values)
    row = np.random.default_rng(seed).integers(-4, longest, 50).tolist()
    known = dict(zip(values, prefixes, strict=True))
    bits = "".join(known.get(value) or escape + f"{value & 0xFFFF:016b}" for value in row)
    body = struct.pack("<HH", 1, len(table) + 1)
    for prefix, total, value in [*table, (escape, len(escape) + 16, 0)]:
        body += struct.pack("<BBBhI", len(prefix), total, 1, value, int(prefix[::-1], 2))
    bodies = {2: body, 3: leads_section(["I"], [(1, 50)]), 6: data_section([to_bytes(bits)], 1000, 2000, 0)}
    read = samples(tmp_path_factory.mktemp("s"), assemble(bodies))
    np.testing.assert_allclose(read[0], np.array(row) * 0.001, rtol=1e-6)


@pytest.mark.parametrize("huffman", [True, False])
def test_subtracted_reference_beats_are_added_back(huffman: bool, tmp_path: Path) -> None:
    """Beats of type 0 are subtracted, others not; both amplitudes have their own multiplier."""
    rows = waves(100, 1, size=100)
    beat = np.arange(10) * 7 - 20
    residual = rows[0] * 4 - 0  # in units of 1000 nV, the signal itself in 4000 nV
    for fiducial in (20, 60):
        begin = fiducial - 4  # the beat's fiducial point is its 4th sample
        residual[begin : begin + 10] -= beat * 2
    beats = [(0, 17, 20, 26), (1, 37, 40, 46), (0, 57, 60, 66)]
    bodies = {3: leads_section(["II"], [(1, 100)], flags=5), 4: beats_section(20, 4, beats, [(0, 0)] * 3)}
    bodies[5] = data_section([pack(beat.tolist(), 1, huffman)], 2000, 2000, 1)
    bodies[6] = data_section([pack(residual.tolist(), 2, huffman)], 1000, 2000, 2)
    if huffman:
        bodies[2] = struct.pack("<H", 19999)
    np.testing.assert_allclose(samples(tmp_path, assemble(bodies))[0], rows[0] * 0.004, rtol=1e-5, atol=1e-9)


def test_bimodal_compression_is_undone(tmp_path: Path) -> None:
    """Full rate in protected zones, one average of four elsewhere; a straight line is rebuilt but for the block ends."""
    line = np.arange(1, 101) * 4
    zones = [(21, 33), (58, 62)]
    stored: list[int] = []
    at = 0
    for first, last in [*zones, (101, 100)]:
        free = line[at : first - 1]
        blocks = len(free) // 4
        stored += free[: blocks * 4].reshape(blocks, 4)[:, 2].tolist() + free[blocks * 4 :].tolist()
        stored += line[first - 1 : last].tolist()
        at = last
    bodies = {2: struct.pack("<H", 19999), 3: leads_section(["V1"], [(1, 100)])}
    bodies[4] = beats_section(20, 4, [(0, 0, 0, 0)] * 2, zones)
    bodies[5] = data_section([pack([0] * 10, 2, True)], 1000, 2000, 2)
    bodies[6] = data_section([pack(stored, 2, True)], 1000, 8000, 2, bimodal=1)
    path = tmp_path / "x.scp"
    path.write_bytes(assemble(bodies))
    recording = read_ecg(path)
    assert recording.sampling_rate == 500
    assert recording.n_samples == 100
    difference = np.abs(recording.samples[0] * 1000 - line)
    assert difference.max() <= 8.01  # held for two samples at the ends of a stretch
    assert (difference[20:33] < 1e-3).all()
    assert (difference[2:18] < 1e-3).all()


def test_rare_leads_keep_their_names(tmp_path: Path) -> None:
    """Some carts record V3R and V7 in place of V3 and V5: nothing may pass for V3."""
    path = tmp_path / "x.scp"
    path.write_bytes(Plain(waves(20, 4), leads=("I", "II", "V3R", "V7")).write())
    recording = read_ecg(path)
    assert recording.leads == ("I", "II", "V3R", "V7")
    assert "V3" in select_leads(recording).missing


def test_leads_recorded_in_turn_are_placed_in_time(tmp_path: Path) -> None:
    rows = waves(10, 2)
    bodies = {3: leads_section(["I", "II"], [(1, 10), (11, 20)], flags=0)}
    bodies[6] = data_section([pack(row, 0, False) for row in rows.tolist()], 1000, 2000, 0)
    read = samples(tmp_path, assemble(bodies))
    assert read.shape == (2, 20)
    assert np.isnan(read[0, 10:]).all()
    assert np.isnan(read[1, :10]).all()
    np.testing.assert_allclose(read[1, 10:], rows[1] * 0.001, rtol=1e-6)


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize(("last", "padding"), [(10, b""), (10, b"\0\0"), (9, b""), (9, b"\0\0")])
def test_leads_counted_from_0_hold_what_the_data_holds(
    last: int, padding: bytes, huffman: bool, tmp_path: Path
) -> None:
    """Ten samples: stated as 0 to 9 (the last one), or as 0 to 10 (the one after it)."""
    rows = waves(10, 2)
    packed = [pack(row, 2, huffman) + padding for row in rows.tolist()]
    bodies = {3: leads_section(["I", "II"], [(0, last)] * 2), 6: data_section(packed, 1000, 2000, 2)}
    if huffman:
        bodies[2] = struct.pack("<H", 19999)
    np.testing.assert_allclose(samples(tmp_path, assemble(bodies)), rows * 0.001, rtol=1e-6)


def test_leads_recorded_in_turn_may_count_from_0(tmp_path: Path) -> None:
    rows = waves(10, 2)
    packed = [pack(row, 0, False) for row in rows.tolist()]
    for ranges in ([(0, 9), (10, 19)], [(0, 10), (10, 20)]):
        bodies = {3: leads_section(["I", "II"], ranges, flags=0), 6: data_section(packed, 1000, 2000, 0)}
        read = samples(tmp_path, assemble(bodies))
        assert read.shape == (2, 20)
        np.testing.assert_allclose(read[1, 10:], rows[1] * 0.001, rtol=1e-6)


def test_beats_in_leads_that_count_from_0_are_refused(tmp_path: Path) -> None:
    """Whether the beats count from 0 too is not known."""
    bodies = {3: leads_section(["II"], [(0, 99)], flags=5), 4: beats_section(20, 4, [(0, 17, 20, 26)], [(0, 0)])}
    bodies[5] = data_section([pack([5] * 10, 1, False)], 2000, 2000, 1)
    bodies[6] = data_section([pack([7] * 100, 2, False)], 1000, 2000, 2)
    with pytest.raises(UnsupportedFormatError, match="begin at sample 0"):
        read_bytes(tmp_path, assemble(bodies))


def test_without_subtracted_beats_no_reference_beat_is_needed(tmp_path: Path) -> None:
    """The flag of section 3 is set, but section 4 lists no beat, or none from which the reference was subtracted."""
    rows = waves(100, 1)
    for beats in ([], [(1, 17, 20, 26)]):
        bodies = {3: leads_section(["II"], [(1, 100)], flags=5), 4: beats_section(20, 4, beats, [])}
        bodies[6] = data_section([pack(rows[0].tolist(), 2, False)], 1000, 2000, 2)
        np.testing.assert_allclose(samples(tmp_path, assemble(bodies)), rows * 0.001, rtol=1e-6)
    del bodies[4]
    with pytest.raises(ReadError, match="without section 4"):
        read_bytes(tmp_path, assemble(bodies))


def test_pointers_may_be_in_any_order_and_point_to_other_sections(tmp_path: Path) -> None:
    data = Plain(waves(), extra={1: b"\xff\0\0", 10: b"text", 11: b"text"}).write()
    pointers = [data[at : at + 10] for at in range(32, 142, 10)]
    pointers[-1] = struct.pack("<HII", 200, 20, 60_000)  # a manufacturer's section, outside the file
    changed = data[:32] + b"".join(pointers[::-1]) + data[142:]
    assert np.array_equal(samples(tmp_path, with_record_checksum(changed)), samples(tmp_path, data))


@pytest.mark.parametrize(("interval", "rate"), [(2000, 500), (4167, 240), (4166, 240), (1000, 1000), (7813, 128)])
def test_rates_from_whole_microseconds_are_whole(interval: int, rate: int, tmp_path: Path) -> None:
    path = tmp_path / "x.scp"
    path.write_bytes(Plain(waves(), interval=interval).write())
    assert read_ecg(path).sampling_rate == rate


def test_of_section_1_only_device_and_filters_are_taken(tmp_path: Path) -> None:
    device = bytearray(36)
    device[8:14] = b"CART7\0"
    tags = [(0, b"SURNAME\0"), (2, b"4711\0"), (14, bytes(device) + b"AN\0SN123\0SW 9.1\0SCP\0ACME\0")]
    tags += [(27, struct.pack("<H", 5)), (28, struct.pack("<H", 150)), (29, b"\x02"), (255, b"")]
    body = b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in tags)
    path = tmp_path / "x.scp"
    path.write_bytes(Plain(waves(), extra={1: body}).write())
    assert dict(read_ecg(path).meta) == {
        "resolution_uv": 2.5,
        "format_version": "2.0",
        "device_model": "CART7",
        "software_version": "SW 9.1",
        "device_manufacturer": "ACME",
        "highpass_hz": 0.05,
        "lowpass_hz": 150.0,
        "notch_hz": 50.0,
    }


def test_a_name_blanked_out_afterwards_does_not_make_the_ecg_unreadable(tmp_path: Path) -> None:
    """Only section 1 and the whole record fail their checksums then; what is decoded is intact."""
    data = Plain(waves(), extra={1: struct.pack("<BH", 0, 8) + b"SURNAME\0" + b"\xff\0\0"}).write()
    recording = samples(tmp_path, data.replace(b"SURNAME", b"xxxxxxx"))
    assert np.array_equal(recording, samples(tmp_path, data))


@pytest.mark.parametrize("number", [2, 3, 6])
def test_a_flipped_bit_in_what_is_decoded_is_refused(number: int, tmp_path: Path) -> None:
    data = bytearray(Plain(waves()).write())
    (index,) = struct.unpack_from("<I", data, 22 + 10 * number + 6)
    data[index - 1 + 16] ^= 1
    with pytest.raises(ReadError, match="checksum"):
        read_bytes(tmp_path, bytes(data))


def test_without_section_checksums_the_whole_one_must_be_right(tmp_path: Path) -> None:
    data = bytearray(Plain(waves()).write())
    for number in (2, 3, 6):
        (index,) = struct.unpack_from("<I", data, 22 + 10 * number + 6)
        data[index - 1 : index + 1] = b"\0\0"
    with pytest.raises(ReadError, match="checksum"):
        read_bytes(tmp_path, bytes(data))
    assert samples(tmp_path, with_record_checksum(bytes(data))).shape == (2, 60)


@pytest.mark.parametrize("size", [0, 22, 100, 1 << 31])
def test_a_wrong_size_of_the_record_leaves_the_checksums_of_sections(size: int, tmp_path: Path) -> None:
    data = Plain(waves()).write()
    changed = data[:2] + struct.pack("<I", size) + data[6:]
    assert np.array_equal(samples(tmp_path, changed), samples(tmp_path, data))


def test_a_record_vouches_only_for_the_sections_in_it(tmp_path: Path) -> None:
    data = bytearray(Plain(waves()).write())
    (index,) = struct.unpack_from("<I", data, 22 + 10 * 6 + 6)
    data[index - 1] ^= 0xFF
    assert samples(tmp_path, with_record_checksum(bytes(data))).shape == (2, 60)
    data[2:6] = struct.pack("<I", index + 20)
    data[:2] = struct.pack("<H", binascii.crc_hqx(bytes(data[2 : index + 20]), 0xFFFF))
    with pytest.raises(ReadError, match="checksum"):
        read_bytes(tmp_path, bytes(data))


def test_huffman_codes_are_not_taken_as_numbers_because_a_pointer_is_damaged(tmp_path: Path) -> None:
    """Codes of 26 bits have room for samples of 16."""
    data = bytearray(Plain(waves(size=32767), order=0).write())
    data[22 + 20 + 2 : 22 + 20 + 10] = bytes(8)
    with pytest.raises(ReadError, match="section 0"):
        read_bytes(tmp_path, bytes(data))


def test_damage_after_the_samples_does_not_matter(tmp_path: Path) -> None:
    """Sections 7 and 8, the analysis, are cut off, or something else is there."""
    data = Plain(waves(), extra={7: bytes(40), 8: bytes(40)}).write()
    whole = samples(tmp_path, data)
    assert np.array_equal(samples(tmp_path, data[:-60]), whole)
    assert np.array_equal(samples(tmp_path, data[:-60] + bytes(60)), whole)
    assert read_statements(tmp_path / "x.scp") is not None


def test_wrong_checksums_of_sections_in_a_record_with_a_right_one_are_programs_mistakes(tmp_path: Path) -> None:
    data = bytearray(Plain(waves()).write())
    for number in (2, 3, 6):
        (index,) = struct.unpack_from("<I", data, 22 + 10 * number + 6)
        data[index - 1] ^= 0xFF
    with pytest.raises(ReadError, match="checksum"):
        read_bytes(tmp_path, bytes(data))
    assert samples(tmp_path, with_record_checksum(bytes(data))).shape == (2, 60)


def test_long_term_files_without_section_6_are_refused_clearly(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="section 6"):
        read_bytes(tmp_path, assemble({3: leads_section(["I"], [(1, 5)])}, version=30))


@pytest.mark.parametrize("span", [(0, 0), (5, 4), (1, 4_000_000_000), (1, 100_000)])
def test_sections_that_lie_about_lengths_are_refused(span: tuple[int, int], tmp_path: Path) -> None:
    bodies = {3: leads_section(["I"], [span]), 6: data_section([b"\0" * 64], 1000, 2000, 0)}
    for packing in ({}, {2: struct.pack("<H", 19999)}):
        path = tmp_path / "x.scp"
        path.write_bytes(assemble(bodies | packing))
        assert not is_read_or_refused(path)


@pytest.mark.parametrize("size", [0, 5, 21, 40, 158, 300, 500])
def test_files_that_are_cut_off_are_refused(size: int, tmp_path: Path) -> None:
    path = tmp_path / "x.scp"
    path.write_bytes(Plain(waves()).write()[:size])
    assert not is_read_or_refused(path)


def test_damaged_sections_with_right_checksums_are_read_or_refused(tmp_path: Path) -> None:
    """Checksums stop accidents; what is wrong on purpose comes with right ones."""
    path = tmp_path / "x.scp"
    beat = data_section([pack([5] * 10, 1, True)] * 2, 2000, 2000, 1)
    stored = [pack(row, 2, True) for row in waves(43, 2).tolist()]
    bodies = {2: struct.pack("<H", 19999), 3: leads_section(["I", "II"], [(1, 100)] * 2, flags=5), 5: beat}
    bodies |= {4: beats_section(20, 4, [(0, 17, 20, 26)], [(10, 30)]), 6: data_section(stored, 1000, 8000, 2, 1)}
    table = struct.pack("<HH", 1, 2) + struct.pack("<BBBhI", 1, 1, 1, 0, 0) + struct.pack("<BBBhI", 1, 17, 1, 0, 1)
    for number in (2, 3, 4, 5, 6):
        source = table if number == 2 else bodies[number]
        for copy in mutations(source, 60, seed=number):
            path.write_bytes(assemble(bodies | {number: copy}))
            is_read_or_refused(path)


def test_standard_leads_all_have_codes(tmp_path: Path) -> None:
    codes = dict(zip(STANDARD_LEADS, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True))
    body = bytes((12, 4)) + b"".join(struct.pack("<IIB", 1, 5, codes[lead]) for lead in STANDARD_LEADS)
    parts = [pack([1, 2, 3, 4, 5], 0, False)] * 12
    path = tmp_path / "x.scp"
    path.write_bytes(assemble({3: body, 6: data_section(parts, 1000, 2000, 0)}))
    assert read_ecg(path).leads == STANDARD_LEADS
