"""XLI, the compression of Philips waveforms: LZW with 10-bit codes over second differences, and residuals of limb leads.

In: the bytes of `parsedwaveforms`. Out: millivolts, in C if a compiler was available and the data is sound; else int16 counts
[n_leads, n_samples], or what is wrong with the data.
"""

from __future__ import annotations

import math
import struct
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError, UnsupportedFormatError

# A resting ECG lasts 10 s, a rhythm strip a few minutes; a larger number is an error of the file.
MAX_SAMPLES_PER_LEAD = 1 << 18

try:
    import ecgfounder.readers.philips._xli as _xli
except ImportError:  # there was no C compiler when the package was installed
    _xli = None  # type: ignore[assignment]

Counts = npt.NDArray[np.int16]


_CHUNK_HEADER = struct.Struct("<iHh")  # size of the payload in bytes, a word that is always 1, first second difference


_CODE_BITS = 10


_LITERALS = [bytes([byte]) for byte in range(256)]


_END_CODE = 1023  # ends a chunk; the bits after it are padding


_MAX_ENTRIES = _END_CODE - len(_LITERALS)  # strings that are added to the table: codes 256 to 1022


_MANY_CODES = 1 << 14  # more than a recording of 10 s needs


def millivolts(
    data: bytes, leads: tuple[str, ...], duration_samples: float, resolution_uv: float
) -> npt.NDArray[np.float32] | None:
    """Decode XLI data to millivolts with restored limb leads, by the compiled loops.

    Returns
    -------
    numpy.ndarray or None
        float32 [n_leads, n_samples], the counts of `decode_xli` and `restore_limb_leads` x resolution / 1000. None if they,
        and `refuse_jumps`, are to be asked: the data is not plainly sound, or there are no compiled loops.
    """
    rows = None if _xli is None else _limb_rows(leads)
    if rows is None:
        return None
    out = np.empty(len(leads) * math.ceil(duration_samples), np.float32)
    largest = _largest_payload(duration_samples)
    n_samples = _xli.millivolts(data, len(leads), largest, duration_samples, resolution_uv, rows, out)
    return None if n_samples < 0 else out[: len(leads) * n_samples].reshape(len(leads), n_samples)


def decode_xli(data: bytes, n_leads: int, duration_samples: float) -> Counts:
    """Decode the first `n_leads` chunks of XLI data.

    Parameters
    ----------
    data : bytes
        Chunks, each with a header of 8 bytes and LZW-compressed words.
    n_leads : int
        Chunks to decode; real files have 16 chunks for 12 leads, of which the last ones are ignored.
    duration_samples : float
        Samples per lead as stated in the document, possibly fractional.

    Returns
    -------
    numpy.ndarray
        int16 [n_leads, n_samples], as stored: limb leads are residuals (`restore_limb_leads`).

    Raises
    ------
    ReadError
        If sizes, codes or the number of samples are wrong. Memory is limited by the stated number of samples.
    """
    first_differences, payloads = _chunks(data, n_leads, duration_samples)
    codes, n_codes = _codes(payloads)
    most_bytes = math.ceil(2 * duration_samples) + 1
    texts: list[bytes] = []
    for lead, payload in enumerate(payloads):
        try:
            text = _expand(codes[lead, : n_codes[lead]].tolist(), most_bytes)
            n_samples = (len(text) + 1) // 2
            if n_samples == 0 or abs(n_samples - duration_samples) >= 1:
                raise ReadError(f"{n_samples} samples, but the document states {duration_samples:g}")
        except ReadError as error:
            _refuse_14_bit(payload, duration_samples)
            raise ReadError(f"the waveforms are damaged: lead {lead + 1} has {error}") from error
        # The last byte is never used, and may be missing: it counts as 0, as in sierraecg.
        texts.append(text.ljust(2 * n_samples, b"\0"))
    sizes = {len(text) // 2 for text in texts}
    if len(sizes) > 1:
        raise ReadError(f"leads of unequal length: {min(sizes)} and {max(sizes)} samples")
    return _integrate(texts, first_differences)


def _chunks(data: bytes, n_leads: int, duration_samples: float) -> tuple[list[int], list[bytes]]:
    """First second difference and compressed payload of each lead."""
    largest = _largest_payload(duration_samples)
    first_differences, payloads = [], []
    offset = 0
    for lead in range(n_leads):
        if len(data) - offset < _CHUNK_HEADER.size:
            raise ReadError(f"the waveforms are truncated: they have {lead} of {n_leads} leads")
        size, _, first_difference = _CHUNK_HEADER.unpack_from(data, offset)
        offset += _CHUNK_HEADER.size
        if size <= 0 or size > largest:
            raise ReadError(f"the waveforms are damaged: lead {lead + 1} has a stated size of {size} bytes")
        if size > len(data) - offset:
            raise ReadError(
                f"the waveforms are truncated: lead {lead + 1} has a stated size of {size} bytes, but only "
                f"{len(data) - offset} follow"
            )
        first_differences.append(first_difference)
        payloads.append(data[offset : offset + size])
        offset += size
    return first_differences, payloads


def _largest_payload(duration_samples: float) -> int:
    """Bytes; every code gives at least one byte, so that a lead never needs more than one code for each of its bytes."""
    return int(2 * duration_samples * _CODE_BITS / 8) + 16


def _codes(payloads: list[bytes]) -> tuple[npt.NDArray[np.uint16], list[int]]:
    """10-bit codes, most significant bit first, [n_leads, width], and the number of valid codes of each row."""
    # Five bytes contain four codes; there is one group more than needed, so that every row has an end.
    width = (max(map(len, payloads)) // 5 + 2) * 5
    padded = b"".join([payload.ljust(width, b"\0") for payload in payloads])
    # The big-endian 16-bit words at bytes 0, 1, 2 and 3 of a group contain one code each.
    words = np.ndarray((len(padded) // 5, 4), ">u2", padded, 0, (5, 1)).astype(np.uint16)
    words >>= np.array([6, 4, 2, 0], dtype=np.uint16)
    words &= (1 << _CODE_BITS) - 1
    codes = words.reshape(len(payloads), -1)
    ends = codes == _END_CODE
    for row, payload in enumerate(payloads):
        ends[row, 8 * len(payload) // _CODE_BITS] = True
    return codes, [int(end) for end in ends.argmax(axis=1)]


def _expand(codes: list[int], most_bytes: int) -> bytes:
    """Decompress one lead's LZW codes; refused if the result is longer than `most_bytes`.

    The string added after code k is the string of code k and the first byte of the string of code k + 1. First bytes are in a
    separate list, so that the case in which code k + 1 is that of the added string needs no branch.
    """
    if len(codes) < 2:  # too short for a sample
        return b""
    strings, first_bytes = _LITERALS.copy(), _LITERALS.copy()
    add_string, add_first_byte = strings.append, first_bytes.append
    try:
        # This loop is the most costly part of reading a file. It ends when the table is full.
        code = codes[0]
        for following in codes[1 : _MAX_ENTRIES + 1]:
            add_first_byte(first_bytes[code])
            add_string(strings[code] + first_bytes[following])
            code = following
        pieces = itemgetter(*codes)(strings)
    except IndexError as error:
        raise ReadError("an invalid LZW code") from error
    # The string of a code has up to 768 bytes: if there are many codes, the total size is checked before they are joined.
    if len(codes) > _MANY_CODES and sum(map(len, pieces)) > most_bytes:
        raise ReadError("more samples than the document states")
    return b"".join(pieces)


def _integrate(texts: list[bytes], first_differences: list[int]) -> Counts:
    """16-bit samples, a row for each lead, from texts that hold the high bytes of all words and then their low bytes.

    The words are x[0], x[1] and then, shifted by one position, 64 - (x[i] - 2 x[i-1] + x[i-2]) for i >= 3; the second difference
    for i = 2 is the negated word of the header. Devices compute in 16 bits, so that intermediate values of a saturated lead may
    wrap around.
    """
    # Only the lower 16 of 32 bits are used: NumPy sums 32-bit numbers several times faster than 16-bit numbers.
    both = np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(len(texts), -1).astype(np.uint32)
    n_samples = both.shape[1] // 2
    high, words = both[:, :n_samples], both[:, n_samples:]
    high <<= 8
    words += high
    starts = np.zeros((len(texts), 3), dtype=np.uint32)
    starts[:, : min(2, n_samples)] = words[:, :2]
    starts[:, 1] -= starts[:, 0]
    starts[:, 2] = -np.array(first_differences, dtype=np.int64) & 0xFFFF
    # In place, shifted by one position: word i - 1 becomes the second difference at i.
    np.subtract(64, words, out=words)
    samples = both[:, n_samples - 1 : -1]
    samples[:, :3] = starts[:, :n_samples]
    np.add.accumulate(samples[:, 1:], axis=1, out=samples[:, 1:])
    np.add.accumulate(samples, axis=1, out=samples)
    return samples.astype(np.uint16).view(np.int16)


def restore_limb_leads(counts: Counts, leads: tuple[str, ...]) -> Counts:
    """Replace XLI's residuals for leads III, aVR, aVL and aVF by the leads.

    III = II - I - r;  aVR = -r - floor((I + II) / 2);  aVL = floor((I - III) / 2) - r;  aVF = floor((II + III) / 2) - r.

    Raises
    ------
    ReadError
        If a required lead is not among `leads` (canonical names, one for each row).
    """
    stored = {lead: row for row, lead in enumerate(leads)}
    if "-aVR" in stored:
        raise UnsupportedFormatError("the residuals of lead -aVR in XLI data are not documented")
    for lead, needed in _RESTORED_FROM.items():
        for other in needed if lead in stored else ():
            if other not in stored:
                raise ReadError(f"lead {other} is not stored, and other limb leads cannot be restored without it")
    restored = np.ascontiguousarray(counts, dtype=np.int16).copy()
    wide: dict[str, npt.NDArray[np.int32]] = {
        lead: restored[stored[lead]].astype(np.int32) for lead in ("I", "II") if lead in stored
    }
    if "III" in stored:
        restored[stored["III"]] = (wide["II"] - wide["I"] - counts[stored["III"]]).astype(np.int16)
        wide["III"] = restored[stored["III"]].astype(np.int32)
    if "aVR" in stored:
        restored[stored["aVR"]] = (-((wide["I"] + wide["II"]) >> 1) - counts[stored["aVR"]]).astype(np.int16)
    if "aVL" in stored:
        restored[stored["aVL"]] = (((wide["I"] - wide["III"]) >> 1) - counts[stored["aVL"]]).astype(np.int16)
    if "aVF" in stored:
        restored[stored["aVF"]] = (((wide["II"] + wide["III"]) >> 1) - counts[stored["aVF"]]).astype(np.int16)
    return restored


_RESTORED_FROM = {"III": ("II", "I"), "aVR": ("I", "II"), "aVL": ("I", "III"), "aVF": ("II", "III")}
_LIMB_LEADS = ("I", "II", *_RESTORED_FROM)


def _limb_rows(leads: tuple[str, ...]) -> npt.NDArray[np.int64] | None:
    """The rows of `_LIMB_LEADS`, -1 for one that is not there; None if `restore_limb_leads` refuses the leads."""
    stored = {lead: row for row, lead in enumerate(leads)}
    lacking = [
        other for lead, needed in _RESTORED_FROM.items() if lead in stored for other in needed if other not in stored
    ]
    return None if lacking or "-aVR" in stored else np.array([stored.get(lead, -1) for lead in _LIMB_LEADS], np.int64)


# A saturated lead changes by half of the 16-bit range at once. A damaged second difference causes a ramp that exceeds the range
# and wraps around.
MAX_JUMP = 3 << 14


def refuse_jumps(counts: Counts) -> None:
    """Refuse XLI data that decodes to a signal with impossible jumps."""
    if int(counts.max()) - int(counts.min()) <= MAX_JUMP:
        return
    jumps = np.abs(np.diff(counts.astype(np.int32), axis=1)).max(axis=1, initial=0)
    if jumps.max() > MAX_JUMP:
        row = int(jumps.argmax())
        raise ReadError(f"the waveforms are damaged: lead {row + 1} jumps by {jumps[row]} counts from sample to sample")


def _refuse_14_bit(payload: bytes, duration_samples: float) -> None:
    """Refuse a payload as unsupported if it is valid LZW data with 14-bit codes."""
    n_bits = 14
    bits = np.unpackbits(np.frombuffer(payload, dtype=np.uint8))
    codes = bits[: bits.size // n_bits * n_bits].reshape(-1, n_bits) @ (1 << np.arange(n_bits)[::-1])
    ends = np.flatnonzero(codes == (1 << n_bits) - 1)
    codes = codes[: ends[0]] if ends.size else codes
    if (codes > np.arange(codes.size) + (len(_LITERALS) - 1)).any():
        return
    lengths: list[int] = []
    for code in codes.tolist():
        lengths.append(1 if code < len(_LITERALS) else lengths[code - len(_LITERALS)] + 1)
    if abs((sum(lengths) + 1) // 2 - duration_samples) < 1:
        raise UnsupportedFormatError("expected XLI data with 10-bit codes, found 14-bit codes")
