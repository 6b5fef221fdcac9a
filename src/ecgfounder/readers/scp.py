"""SCP-ECG (EN 1064, ISO 11073-91064), protocol versions 1.x, 2.x and 3.0 with resting ECG in section 6.

In: the whole file. Out: a `Recording` of the rhythm data, decoded: Huffman codes, differences, decimation between beats, and
subtracted reference beats. Every section that is decoded must match its checksum, or be in a record that matches its own.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import LEAD_OF_SCP_CODE
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.ecg.statements import Statements, statements_of
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.signals import distinct_leads
from ecgfounder.readers.source import Source

FORMAT = "scp_ecg"

Counts = npt.NDArray[np.int64]

MAX_SAMPLES = 1 << 24
MAX_HUFFMAN_SAMPLES = 1 << 21
MAX_CODES = 1 << 12
_PREAMBLE = 6
_HEADER = 16
_POINTER = 10
_DEFAULT_TABLE = 19999
_DOUBLINGS = 4
_OF_SAMPLES = range(2, 7)  # sections that samples may need; the others tell about device, patient and analysis
_SUBTRACTED = 1  # section 3: the flag that reference beats were subtracted
_NOT_MEASURED = 29_999  # section 7: values from 29999 on are reasons for a missing measurement
_MAX_LOOKUP_BITS = 16


@dataclass(frozen=True)
class _Section:
    """A section of the file; `data` includes its header of 16 bytes."""

    data: bytes
    intact: bool

    @property
    def body(self) -> bytes:
        return self.data[_HEADER:]

    @property
    def protocol(self) -> int:
        return self.data[9]


@dataclass(frozen=True)
class _Lead:
    """One lead of section 3: its first and last sample, from 1 at the start of the recording, and its code."""

    first: int
    last: int
    code: int

    @property
    def n_samples(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class _Beats:
    """Section 4: the reference beat, the beats from which it was subtracted, and the zones around QRS without decimation."""

    length_ms: int
    fiducial: int
    subtracted: tuple[tuple[int, int, int], ...]  # (first sample, fiducial, last sample) of beats of type 0
    protected: tuple[tuple[int, int], ...]  # (first sample, last sample), in order


@dataclass(frozen=True)
class _Packed:
    """Section 5 or 6 as stored: `avm` in nV, `interval` in µs, `order` of the differences, a byte string for each lead."""

    avm: int
    interval: int
    order: int
    bimodal: bool
    leads: tuple[bytes, ...]


@dataclass(frozen=True)
class _Code:
    """One structure of a Huffman table; `switch_to` is the table that it selects, or None for a value."""

    prefix_bits: int
    extra_bits: int
    prefix: int
    value: int
    switch_to: int | None


_NO_BEATS = _Beats(0, 0, (), ())


Tables = tuple[tuple[_Code, ...], ...]


def matches(source: Source) -> bool:
    """Whether section 0 is at its place in SCP-ECG, with its name or a pointer to itself."""
    head = source.head
    if len(head) < _PREAMBLE + _HEADER + _POINTER or head[8:10] != b"\0\0":
        return False
    (length,) = struct.unpack_from("<I", head, 10)
    identifier, own_length, index = struct.unpack_from("<HII", head, _PREAMBLE + _HEADER)
    named = head[16:22] == b"SCPECG"
    return length >= _HEADER + _POINTER and (named or (identifier == 0 and own_length == length and index == 7))


def read(source: Source) -> Recording:
    """Read the rhythm data of an SCP-ECG file.

    Leads that were recorded one after the other are on one time axis, with NaN where a lead was not recorded. Between the
    protected zones of leads with bimodal compression, samples are interpolated linearly between the centres of the averaged
    blocks.

    Raises
    ------
    ReadError
        If the file is truncated, or its sections exceed the file, contradict each other, do not match their checksums, or contain
        codes that are not in their Huffman table.
    UnsupportedFormatError
        If there is no section 6 (long-term ECG of version 3.0), or for a decimation that the standard does not define.
    """
    sections = _sections(source.content)
    definition = _needed(sections, 3).body
    leads = _leads(definition)
    tables = _tables(_needed(sections, 2).body) if 2 in sections else ()
    n_samples = sum(lead.n_samples for lead in leads)
    if tables and n_samples > MAX_HUFFMAN_SAMPLES:
        raise ReadError(
            f"SCP-ECG file of {n_samples:,} Huffman-coded samples; at most {MAX_HUFFMAN_SAMPLES:,} are read"
        )
    packed = _packed(_needed(sections, 6).body, len(leads), 6)
    beats = _beats(_needed(sections, 4).body) if packed.bimodal or definition[1] & _SUBTRACTED else _NO_BEATS
    if packed.bimodal or beats.subtracted:
        interval, rows = _rebuilt(sections, leads, packed, tables, beats)
    else:
        interval = packed.interval
        leads = _from_1(leads, packed, tables)
        rows = [
            _unpack(data, lead.n_samples, packed.order, tables) * packed.avm
            for data, lead in zip(packed.leads, leads, strict=True)
        ]
    return Recording(
        samples=_on_one_axis(rows, leads),
        sampling_rate=_rate(interval),
        leads=distinct_leads([LEAD_OF_SCP_CODE.get(lead.code, f"SCP lead {lead.code}") for lead in leads]),
        source_format=FORMAT,
        meta=_meta(sections, packed.avm),
    )


def _sections(content: bytes) -> dict[int, _Section]:
    """The sections that section 0 points to, by number, in any order; those of other numbers are not read."""
    if len(content) < _PREAMBLE + _HEADER:
        raise ReadError(f"SCP-ECG file of {len(content)} bytes, truncated in its first section")
    crc, size = struct.unpack_from("<HI", content)
    intact = _PREAMBLE + _HEADER <= size <= len(content) and crc == binascii.crc_hqx(content[2:size], 0xFFFF)
    (length,) = struct.unpack_from("<I", content, 10)
    if not _HEADER <= length <= len(content) - _PREAMBLE:
        raise ReadError(f"SCP-ECG file of {len(content):,} bytes, but section 0 has a stated size of {length:,}")
    sections: dict[int, _Section] = {}
    for at in range(_PREAMBLE + _HEADER, _PREAMBLE + length - _POINTER + 1, _POINTER):
        number, length_there, index = struct.unpack_from("<HII", content, at)
        if not 1 <= number <= 8 or length_there <= _HEADER or number in sections:
            continue
        try:
            sections[number] = _section(content, number, index - 1, length_there, size if intact else 0)
        except ReadError:
            if number in _OF_SAMPLES:
                raise
    if 6 not in sections:
        raise UnsupportedFormatError("SCP-ECG file without section 6, the resting ECG")
    (crc_0,) = struct.unpack_from("<H", content, _PREAMBLE)
    if 2 not in sections and not intact and crc_0 not in (0, binascii.crc_hqx(content[8 : _PREAMBLE + length], 0xFFFF)):
        # Without section 2, the samples are taken as not coded: its pointer may be what is damaged.
        raise ReadError("section 0 of the SCP-ECG file does not match its checksum: the file is damaged")
    return sections


def _section(content: bytes, number: int, start: int, length: int, checked: int) -> _Section:
    """A section; `checked` is the size of the record if it matches its checksum, else 0."""
    if start < _PREAMBLE or start + length > len(content):
        raise ReadError(f"section {number} of the SCP-ECG file is outside the file of {len(content):,} bytes")
    crc, identifier, own_length = struct.unpack_from("<HHI", content, start)
    if identifier != number:
        raise ReadError(f"section 0 of the SCP-ECG file points to section {number}, but section {identifier} is there")
    # The lengths in the section and in its pointer may differ, by padding for example: the checksum decides.
    for candidate in (length, own_length):
        data = content[start : start + candidate]
        if _HEADER < candidate == len(data) and crc == binascii.crc_hqx(data[2:], 0xFFFF):
            return _Section(data, intact=True)
    # Some programs write 0 or a wrong number as checksums of sections: then the checksum of the whole record counts.
    return _Section(content[start : start + length], intact=start + length <= checked)


def _needed(sections: Mapping[int, _Section], number: int) -> _Section:
    """A section that must be decoded; refused if it is missing or damaged."""
    section = sections.get(number)
    if section is None:
        raise ReadError(f"SCP-ECG file without section {number}")
    if not section.intact:
        raise ReadError(f"section {number} of the SCP-ECG file does not match its checksum: the file is damaged")
    return section


def _leads(body: bytes) -> list[_Lead]:
    n_leads = body[0]
    if n_leads == 0 or 2 + 9 * n_leads > len(body):
        raise ReadError(f"section 3 of the SCP-ECG file states {n_leads} leads in {len(body)} bytes")
    leads = [_Lead(*struct.unpack_from("<IIB", body, 2 + 9 * i)) for i in range(n_leads)]
    if any(lead.first > lead.last for lead in leads):
        raise ReadError("section 3 of the SCP-ECG file has a lead that ends before it begins")
    total = sum(lead.n_samples for lead in leads)
    # The time axis of leads recorded one after the other is longer than each of them, but not than all of them together.
    if _axis_length(leads) > total or total > MAX_SAMPLES:
        raise ReadError(
            f"section 3 of the SCP-ECG file has too many samples ({total:,}) or leads too far apart in time"
        )
    return leads


def _from_1(leads: list[_Lead], packed: _Packed, tables: Tables) -> list[_Lead]:
    """The leads with samples counted from 1, as the standard demands; some devices count from 0.

    Of these, some state the last sample, and others the one after it. The data shows which: the leads hold a sample more or not.
    What could be padding after the samples is not taken as a sample: zeros in all leads, which also code "no difference".
    """
    if all(lead.first for lead in leads):
        return leads
    beyond = [_Lead(lead.first + 1, lead.last + 1, lead.code) for lead in leads]
    try:
        last = [_stored(data, lead.n_samples, tables)[-1] for data, lead in zip(packed.leads, beyond, strict=True)]
    except ReadError:
        last = []
    if any(last):
        return beyond
    if any(lead.first == lead.last for lead in leads):
        raise ReadError("section 3 of the SCP-ECG file has a lead that ends before it begins")
    return [_Lead(lead.first + 1, lead.last, lead.code) for lead in leads]


def _axis_length(leads: Sequence[_Lead]) -> int:
    return max(lead.last for lead in leads) - min(lead.first for lead in leads) + 1


def _packed(body: bytes, n_leads: int, number: int) -> _Packed:
    """Section 5 or 6, which have the same layout."""
    at = 6 + 2 * n_leads
    if len(body) < at:
        raise ReadError(f"section {number} of the SCP-ECG file is too short for {n_leads} leads")
    avm, interval, order, bimodal = struct.unpack_from("<HHBB", body)
    if avm == 0 or interval == 0 or order > 2:
        raise ReadError(
            f"section {number} of the SCP-ECG file has {avm} nV per count, {interval} µs per sample, differences {order}"
        )
    parts: list[bytes] = []
    for size in struct.unpack_from(f"<{n_leads}H", body, 6):
        parts.append(body[at : at + size])
        at += size
    if at > len(body):
        raise ReadError(f"section {number} of the SCP-ECG file has {len(body):,} bytes, but its leads need {at:,}")
    return _Packed(avm, interval, order, bimodal == 1 and number == 6, tuple(parts))


def _beats(body: bytes) -> _Beats:
    if len(body) < 6:
        raise ReadError("section 4 of the SCP-ECG file is truncated")
    length_ms, fiducial, n_beats = struct.unpack_from("<HHH", body)
    if 6 + 14 * n_beats > len(body):
        raise ReadError(f"section 4 of the SCP-ECG file states {n_beats} beats in {len(body)} bytes")
    beats = [struct.unpack_from("<HIII", body, 6 + 14 * i) for i in range(n_beats)]
    at = 6 + 14 * n_beats
    protected: list[tuple[int, int]] = []
    if at + 8 * n_beats <= len(body):
        protected = [struct.unpack_from("<II", body, at + 8 * i) for i in range(n_beats)]
    return _Beats(
        length_ms,
        fiducial,
        tuple((first, middle, last) for kind, first, middle, last in beats if kind == 0 and 1 <= first <= last),
        tuple(sorted((first, last) for first, last in protected if 1 <= first <= last)),
    )


def _rebuilt(
    sections: Mapping[int, _Section], leads: Sequence[_Lead], packed: _Packed, tables: Tables, beats: _Beats
) -> tuple[int, list[Counts]]:
    """Interval in µs and samples in nV of rhythm data with decimation between beats, or with reference beats subtracted."""
    if not all(lead.first for lead in leads):
        raise UnsupportedFormatError(
            "SCP-ECG file with beats in leads that begin at sample 0; the standard begins at 1"
        )
    reference = _packed(_needed(sections, 5).body, len(leads), 5)
    factor, remainder = divmod(packed.interval, reference.interval)
    if remainder or factor < 1 or (factor > 1 and not packed.bimodal):
        raise UnsupportedFormatError(
            f"SCP-ECG rhythm data at {packed.interval} µs per sample with reference beats at {reference.interval} µs"
        )
    rows: list[Counts] = []
    n_reference = beats.length_ms * 1000 // reference.interval
    for lead, data, beat_data in zip(leads, packed.leads, reference.leads, strict=True):
        if factor > 1:
            row = _interpolated(data, lead, beats.protected, factor, packed.order, tables)
        else:
            row = _unpack(data, lead.n_samples, packed.order, tables)
        row = row * packed.avm
        if beats.subtracted:
            beat = _unpack(beat_data, n_reference, reference.order, tables) * reference.avm
            _add_reference(row, lead, beat, beats)
        rows.append(row)
    return reference.interval, rows


def _add_reference(row: Counts, lead: _Lead, beat: Counts, beats: _Beats) -> None:
    """Add the reference beat, aligned by fiducial points, to the zone of each beat from which it was subtracted."""
    for first, fiducial, last in beats.subtracted:
        shift = fiducial - beats.fiducial + 1  # the number of the reference beat's first sample
        begin = max(first, lead.first, shift)
        end = min(last, lead.last, shift + len(beat) - 1)
        if begin <= end:
            row[begin - lead.first : end - lead.first + 1] += beat[begin - shift : end - shift + 1]


def _interpolated(
    data: bytes, lead: _Lead, protected: Sequence[tuple[int, int]], factor: int, order: int, tables: Tables
) -> Counts:
    """Undo bimodal compression (EN 1064, annex C): full sampling rate in protected zones, 1 of `factor` samples elsewhere."""
    stretches: list[tuple[int, bool]] = []  # (length at full rate, protected)
    at = lead.first
    for first, last in protected:
        first, last = max(first, at), min(last, lead.last)
        if first <= last:
            stretches += [(first - at, False), (last - first + 1, True)]
            at = last + 1
    stretches.append((lead.last - at + 1, False))
    sizes = [length if full else length // factor + length % factor for length, full in stretches]
    stored = _unpack(data, sum(sizes), order, tables)
    pieces: list[Counts] = []
    at = 0
    for (length, full), size in zip(stretches, sizes, strict=True):
        piece = stored[at : at + size]
        pieces.append(piece if full else _expanded(piece, length // factor, factor))
        at += size
    return np.concatenate(pieces)


def _expanded(piece: Counts, n_blocks: int, factor: int) -> Counts:
    """Replace `n_blocks` averages by `factor` samples each, linear between centres of blocks; later samples are kept."""
    if n_blocks == 0:
        return piece
    positions = np.arange(n_blocks * factor)
    centres = np.arange(n_blocks) * factor + factor // 2
    filled = np.rint(np.interp(positions, centres, piece[:n_blocks])).astype(np.int64)
    return np.concatenate([filled, piece[n_blocks:]])


def _unpack(data: bytes, n_samples: int, order: int, tables: Tables) -> Counts:
    """Samples of one lead; differences are summed."""
    values = _stored(data, n_samples, tables)
    if order == 1:
        values = np.cumsum(values)
    elif order == 2 and n_samples > 2:
        # x[0] and x[1] are stored without differences: they give the first slope, the rest are changes of slope.
        slopes = np.concatenate([values[1:2] - values[0], values[2:]]).cumsum()
        values = np.concatenate([values[:1], values[0] + slopes.cumsum()])
    return values.astype(np.int16).astype(np.int64)  # samples have 16 bits, and the arithmetic of encoders wraps around


def _stored(data: bytes, n_samples: int, tables: Tables) -> Counts:
    """The numbers of one lead as stored: Huffman codes if there are tables, else 16-bit numbers."""
    if not tables:
        if 2 * n_samples > len(data):
            raise ReadError(f"SCP-ECG lead of {n_samples:,} samples in {len(data):,} bytes")
        return np.frombuffer(data, "<i2", n_samples).astype(np.int64)
    if n_samples > 8 * len(data):
        raise ReadError(f"SCP-ECG lead of {n_samples:,} samples in {len(data):,} bytes")
    single = len(tables) == 1 and all(code.switch_to is None for code in tables[0])
    return _decode_single(data, n_samples, tables[0]) if single else _decode_switching(data, n_samples, tables)


def _tables(body: bytes) -> Tables:
    """Section 2: none (0 tables), the default table (19999), or the tables of the file."""
    if len(body) < 2:
        raise ReadError("section 2 of the SCP-ECG file is truncated")
    (n_tables,) = struct.unpack_from("<H", body)
    if n_tables == _DEFAULT_TABLE:
        return (_default_table(),)
    at = 2
    if 9 * n_tables > len(body) or len(body) > 9 * MAX_CODES:
        raise ReadError(f"section 2 of the SCP-ECG file states {n_tables} tables in {len(body):,} bytes")
    tables: list[tuple[_Code, ...]] = []
    for _ in range(n_tables):
        if at + 2 > len(body):
            raise ReadError(f"section 2 of the SCP-ECG file states {n_tables} tables in {len(body)} bytes")
        (n_codes,) = struct.unpack_from("<H", body, at)
        at += 2
        if n_codes == 0 or at + 9 * n_codes > len(body):
            raise ReadError(f"section 2 of the SCP-ECG file states {n_codes} codes in {len(body)} bytes")
        tables.append(tuple(_code(body, at + 9 * i, n_tables) for i in range(n_codes)))
        at += 9 * n_codes
    return tuple(tables)


def _code(body: bytes, at: int, n_tables: int) -> _Code:
    prefix_bits, total_bits, mode, value, stored = struct.unpack_from("<BBBhI", body, at)
    if prefix_bits > total_bits:  # some programs write the two in the other order
        prefix_bits, total_bits = total_bits, prefix_bits
    if not (1 <= prefix_bits <= 32 and total_bits - prefix_bits <= 32):
        raise ReadError(f"section 2 of the SCP-ECG file has a code of {prefix_bits} to {total_bits} bits")
    if mode == 0 and not 1 <= value <= n_tables:
        raise ReadError(f"section 2 of the SCP-ECG file switches to table {value} of {n_tables}")
    prefix = int(f"{stored & ((1 << prefix_bits) - 1):0{prefix_bits}b}"[::-1], 2)  # the first bit is the lowest
    return _Code(prefix_bits, total_bits - prefix_bits, prefix, value, value - 1 if mode == 0 else None)


def _default_table() -> tuple[_Code, ...]:
    """The default table (EN 1064, C.3.7.6): 0; k ones, a zero and the sign for k = 1 to 8; prefixes of 8 and 16 bits."""
    codes = [_Code(1, 0, 0, 0, None)]
    for size in range(1, 9):
        ones = (1 << size) - 1
        codes += [_Code(size + 2, 0, ones << 2, size, None), _Code(size + 2, 0, ones << 2 | 1, -size, None)]
    return (*codes, _Code(10, 8, 0b1111111110, 0, None), _Code(10, 16, 0b1111111111, 0, None))


def _decode_single(data: bytes, n_samples: int, table: Sequence[_Code]) -> Counts:
    """Decode with one table: the code that begins at each bit is found for all bits at once, then the chain is followed."""
    if n_samples == 0:
        return np.empty(0, dtype=np.int64)
    longest = max(code.prefix_bits + code.extra_bits for code in table)
    data = data[: (n_samples * longest + 7) // 8]
    n_bits = 8 * len(data)
    entry = _entries(data, table)
    lengths = np.array([code.prefix_bits + code.extra_bits for code in table] + [0])[entry]
    # Positions without a code, and the end, point to themselves, so that the chain needs no tests.
    following = np.arange(n_bits + 1)
    following[:-1] += lengths
    np.minimum(following, n_bits, out=following)
    at = _chain(following, n_samples)
    if at[-1] >= n_bits or at[-1] + lengths[at[-1]] > n_bits:
        raise ReadError("the SCP-ECG data ends early")
    entry = entry[at]
    if (entry == len(table)).any():
        raise ReadError("the SCP-ECG data has a code that is not in the Huffman table")
    values: Counts = np.array([code.value for code in table], dtype=np.int64)[entry]
    for number, code in enumerate(table):
        if code.extra_bits and (used := entry == number).any():
            values[used] += _extra(data, at[used], code)
    return values


def _chain(following: npt.NDArray[np.int64], n_samples: int) -> npt.NDArray[np.int64]:
    """The positions 0, following[0], following[following[0]] ..., `n_samples` of them."""
    leap = following
    for _ in range(_DOUBLINGS):
        leap = leap[leap]
    leaps = leap.data  # access to elements of a memoryview is several times faster than to those of an array
    n_leaps = -(-n_samples >> _DOUBLINGS)
    landings = [0] * n_leaps
    position = 0
    for i in range(n_leaps):
        landings[i] = position
        position = leaps[position]
    chain = np.empty((n_leaps, 1 << _DOUBLINGS), dtype=np.int64)
    chain[:, 0] = landings
    for step in range(1, 1 << _DOUBLINGS):
        chain[:, step] = following[chain[:, step - 1]]
    return chain.reshape(-1)[:n_samples]


def _entries(data: bytes, table: Sequence[_Code]) -> npt.NDArray[np.int64]:
    """The index of the code that begins at each bit, the shortest of several; `len(table)` for none."""
    longest = max(code.prefix_bits for code in table)
    windows = _windows(data, longest)
    by_length = sorted(enumerate(table), key=lambda numbered: -numbered[1].prefix_bits)
    if longest <= _MAX_LOOKUP_BITS:
        lookup = np.full(1 << longest, len(table))
        for number, code in by_length:
            first = code.prefix << (longest - code.prefix_bits)
            lookup[first : first + (1 << (longest - code.prefix_bits))] = number
        return lookup.take(windows)
    if len(table) > 256:
        raise UnsupportedFormatError(f"SCP-ECG Huffman table of {len(table)} codes of up to {longest} bits")
    entry = np.full(len(windows), len(table))
    for number, code in by_length:
        entry[windows >> (longest - code.prefix_bits) == code.prefix] = number
    return entry


def _windows(data: bytes, n_bits: int) -> npt.NDArray[np.int64]:
    """For each bit of `data`, the number in the `n_bits` bits from there on (at most 32)."""
    padded = np.frombuffer(data + bytes(5), dtype=np.uint8)
    words = np.zeros(len(data), dtype=np.int64)
    for i in range(5):
        words = words << 8 | padded[i : len(data) + i]
    shifts = 40 - n_bits - np.arange(8)
    return (words[:, None] >> shifts & ((1 << n_bits) - 1)).reshape(-1)


def _extra(data: bytes, at: npt.NDArray[np.int64], code: _Code) -> Counts:
    """The signed numbers of `extra_bits` bits after the prefixes at these bits."""
    padded = np.frombuffer(data + bytes(9), dtype=np.uint8)
    first = np.minimum(at + code.prefix_bits, 8 * len(data))
    words = np.zeros(len(at), dtype=np.int64)
    for i in range(5):
        words = words << 8 | padded[first // 8 + i]
    values = words >> (40 - code.extra_bits - first % 8) & ((1 << code.extra_bits) - 1)
    negative = values >> (code.extra_bits - 1) & 1
    signed: Counts = values - (negative << code.extra_bits)
    return signed


def _decode_switching(data: bytes, n_samples: int, tables: Tables) -> Counts:
    """Decode bit by bit if codes switch between tables; each lead begins with the first table."""
    indexes = [{(code.prefix_bits, code.prefix): code for code in reversed(table)} for table in tables]
    longest = [max(code.prefix_bits for code in table) for table in tables]
    bits = "".join(f"{byte:08b}" for byte in data)
    values = np.zeros(n_samples, dtype=np.int64)
    table, position = 0, 0
    for i in range(n_samples):
        code, position, table = _next_value(bits, position, table, indexes, longest)
        extra = bits[position : position + code.extra_bits]
        if len(extra) < code.extra_bits:
            raise ReadError("the SCP-ECG data ends early")
        position += code.extra_bits
        number = int(extra, 2) if extra else 0
        values[i] = code.value + number - (1 << len(extra) if extra[:1] == "1" else 0)
    return values


def _next_value(
    bits: str, position: int, table: int, indexes: Sequence[Mapping[tuple[int, int], _Code]], longest: Sequence[int]
) -> tuple[_Code, int, int]:
    """The next code for a value, the position after its prefix, and the current table."""
    length, prefix = 0, 0
    while position < len(bits) and length < longest[table]:
        prefix = prefix << 1 | (bits[position] == "1")
        position += 1
        length += 1
        code = indexes[table].get((length, prefix))
        if code is None:
            continue
        if code.switch_to is None:
            return code, position, table
        table, length, prefix = code.switch_to, 0, 0
    raise ReadError("the SCP-ECG data ends early, or has a code that is not in the Huffman table")


def _on_one_axis(rows: Sequence[Counts], leads: Sequence[_Lead]) -> Samples:
    """Samples in millivolts from nV, with each lead at its place in time."""
    begin = min(lead.first for lead in leads)
    samples = np.full((len(leads), _axis_length(leads)), np.nan, dtype=np.float32)
    for out, row, lead in zip(samples, rows, leads, strict=True):
        out[lead.first - begin : lead.last - begin + 1] = row * 1e-6
    return samples


def _rate(interval: int) -> float:
    """Sampling rate from integer microseconds: 4167 µs is 240 Hz, because recorders have integer rates."""
    rate = 1e6 / interval
    return float(round(rate)) if round(rate) and abs(1e6 / round(rate) - interval) < 1 else rate


def _meta(sections: Mapping[int, _Section], avm: int) -> dict[str, str | float]:
    meta: dict[str, str | float] = {"resolution_uv": avm / 1000}
    protocol = sections[6].protocol
    if 10 <= protocol <= 99:
        meta["format_version"] = f"{protocol / 10:.1f}"
    # Patient data is often overwritten in place, so that section 1 does not match its checksum.
    if 1 in sections and sections[1].intact:
        _add_device(meta, sections[1].body)
    return meta


def _add_device(meta: dict[str, str | float], body: bytes) -> None:
    """The recording device (tag 14) and its filters (tags 27 to 29); other tags of section 1 are not read."""
    at = 0
    while at + 3 <= len(body) and body[at] != 255:
        tag, size = struct.unpack_from("<BH", body, at)
        value = body[at + 3 : at + 3 + size]
        at += 3 + size
        if tag == 14 and len(value) >= 36:
            strings = value[36:].split(b"\0")
            fields = {"device_model": value[8:14], "software_version": strings[2] if len(strings) > 2 else b""}
            fields["device_manufacturer"] = strings[4] if len(strings) > 4 else b""
            meta |= {key: text for key, raw in fields.items() if (text := _text(raw))}
        elif tag == 27 and any(value[:2]):  # 0 means "not specified"
            meta["highpass_hz"] = int.from_bytes(value[:2], "little") / 100
        elif tag == 28 and any(value[:2]):
            meta["lowpass_hz"] = float(int.from_bytes(value[:2], "little"))
        elif tag == 29 and value and value[0] & 3 in (1, 2):
            meta["notch_hz"] = 60.0 if value[0] & 1 else 50.0


def _text(raw: bytes) -> str:
    """Printable ASCII up to the first NUL."""
    return "".join(chr(byte) for byte in raw.split(b"\0")[0][:64] if 32 <= byte < 127).strip()


_ORIGINAL_REPORT = 0  # section 8: 1 is a confirmed, 2 an overread report


def statements(source: Source) -> Statements:
    """Global measurements (section 7) and the original, unedited report (section 8)."""
    sections = _sections(source.content)
    measured = _measured(sections[7].body) if 7 in sections and sections[7].intact else {}
    return statements_of(_report(sections[8].body) if 8 in sections and sections[8].intact else [], **measured)


def _measured(body: bytes) -> dict[str, float | None]:
    """Heart rate, intervals and axes of the first reference beat; values from `_NOT_MEASURED` on mean "not measured"."""
    if len(body) < 20 or body[0] == 0:
        return {}
    (rr,) = struct.unpack_from("<H", body, 2)
    p_on, _, qrs_on, qrs_off, t_off, *axes = struct.unpack_from("<5H3h", body, 4 + 2)

    def between(first: int, last: int) -> float | None:
        return float(last - first) if max(first, last) < _NOT_MEASURED else None

    return {
        "heart_rate": 60_000 / rr if 0 < rr < _NOT_MEASURED else None,
        "pr_ms": between(p_on, qrs_on),
        "qrs_ms": between(qrs_on, qrs_off),
        "qt_ms": between(qrs_on, t_off),
        **{key: float(axis) for key, axis in zip(("p_axis", "qrs_axis", "t_axis"), axes, strict=True)},
    }


def _report(body: bytes) -> list[str]:
    """The statements of section 8, if they are neither confirmed nor overread."""
    if len(body) < 9 or body[0] != _ORIGINAL_REPORT:
        return []
    lines: list[str] = []
    at = 9
    for _ in range(body[8]):
        if at + 3 > len(body):
            break
        (size,) = struct.unpack_from("<H", body, at + 1)
        lines.append(body[at + 3 : at + 3 + size].split(b"\0")[0].decode("latin-1"))
        at += 3 + size
    return lines
