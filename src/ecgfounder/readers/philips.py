"""Philips Sierra XML 1.03, 1.04, 1.04.01 and 1.04.02, as Philips cardiographs and TraceMaster export it.

In: a `Source` in UTF-8 or UTF-16 whose waveforms are XLI-compressed or not. Out: a `Recording` in mV with the leads that
the file names, its limb leads restored from XLI's residuals by label.
"""

from __future__ import annotations

import binascii
import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt
from lxml import etree

from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers import xml
from ecgfounder.readers.quantities import optional_number
from ecgfounder.readers.source import Source
from ecgfounder.recording import STANDARD_LEADS, Recording, canonical_leads
from ecgfounder.statements import Statements, statements_of

try:
    from ecgfounder.readers import _xli
except ImportError:  # there was no C compiler when the package was installed
    _xli = None  # type: ignore[assignment]

FORMAT = "philips_sierra"

DOCUMENT_TYPES = ("SierraECG", "PhilipsECG")
DOCUMENT_VERSIONS = ("1.03", "1.04", "1.04.01", "1.04.02")

# A resting ECG lasts 10 s, a rhythm strip a few minutes; more than this is a file that lies about itself.
MAX_SAMPLES_PER_LEAD = 1 << 18
MAX_LEADS = 32

Counts = npt.NDArray[np.int16]


def matches(source: Source) -> bool:
    """Whether the root element is Philips' `restingecgdata`, whatever type and version the document claims."""
    root = xml.root_of(source)
    return root is not None and root.name == "restingecgdata" and (not root.namespace or "philips" in root.namespace)


def read(source: Source) -> Recording:
    """Decode one Philips Sierra document.

    Returns
    -------
    Recording
        Samples float32 [n_leads, n_samples] in mV, (counts - offset) x resolution; the rate of what is stored, which may
        differ from the rate of acquisition; leads as labelled, in the file's order.

    Raises
    ------
    UnsupportedFormatError
        For another document type or version, another compression, or other than 16 bits per sample.
    ReadError
        For whatever is damaged or contradicts itself.
    """
    root = xml.parse(source)
    version = _document_version(root)
    waveforms = _Waveforms.of(root)
    samples = waveforms.counts().astype(np.float32)
    if waveforms.offset:
        samples -= waveforms.offset
    # The product is exact for every resolution that occurs (1.25 to 20 uV), so that the quotient is correctly rounded.
    samples *= np.float32(waveforms.resolution_uv)
    samples /= 1000
    return Recording(
        samples=samples,
        sampling_rate=waveforms.sampling_rate,
        leads=waveforms.leads,
        source_format=FORMAT,
        meta={"format_version": version, "resolution_uv": waveforms.resolution_uv, **_device(root, waveforms)},
    )


# -- The document ------------------------------------------------------------------------------------------------------


def _document_version(root: etree._Element) -> str:
    """The document's version, if its type and version are among those supported."""
    kind = xml.text_of(root.find("{*}documentinfo/{*}documenttype"))
    version = xml.text_of(root.find("{*}documentinfo/{*}documentversion"))
    if kind not in DOCUMENT_TYPES:
        raise UnsupportedFormatError(
            f"a Philips document of type {_shown(kind)}; supported are {' and '.join(DOCUMENT_TYPES)}"
        )
    if version not in DOCUMENT_VERSIONS:
        raise UnsupportedFormatError(
            f"a Philips document of version {_shown(version)}; supported are {', '.join(DOCUMENT_VERSIONS)}"
        )
    return version


def _shown(text: str) -> str:
    """A short word from the file as it may be shown; anything longer could be free text about a patient."""
    return repr(text) if re.fullmatch(r"[A-Za-z0-9._-]{1,16}", text) else "that is not readable"


@dataclass(frozen=True)
class _Waveforms:
    """What the document says of its `parsedwaveforms`, checked.

    `signal` is what the acquisition section says; `duration_samples` is durationperchannel x rate and may be fractional;
    `offset` is subtracted from every count.
    """

    element: etree._Element
    signal: dict[str, str]
    leads: tuple[str, ...]
    duration_samples: float
    sampling_rate: float
    resolution_uv: float
    offset: int
    signed: bool
    encoding: str
    compressed: bool

    @classmethod
    def of(cls, root: etree._Element) -> _Waveforms:
        element = _required_waveforms(root)
        signal = _signal_characteristics(root)
        rate = xml.number(_setting(element, "samplespersecond", signal, "samplingrate"), "the sampling rate")
        duration = xml.number(element.get("durationperchannel"), "the duration per channel")
        resolution = xml.number(_setting(element, "resolution", signal, "signalresolution"), "the resolution")
        if not 0 < rate <= 100_000:
            raise ReadError(f"impossible sampling rate: {rate:g} Hz")
        if not 0 < resolution <= 10_000:
            raise ReadError(f"impossible resolution: {resolution:g} uV per bit")
        if not 0.5 < duration * rate / 1000 <= MAX_SAMPLES_PER_LEAD:
            raise ReadError(
                f"{duration:g} ms at {rate:g} Hz is not a resting ECG (1 to {MAX_SAMPLES_PER_LEAD} samples per lead)"
            )
        encoding = element.get("dataencoding", "").strip().casefold()
        if encoding != "plain" and encoding not in _DECODERS:
            raise UnsupportedFormatError("the waveforms' data encoding is not Base64, Hex or Plain")
        waveforms = cls(
            element=element,
            signal=signal,
            leads=_leads(element, signal),
            duration_samples=duration * rate / 1000,
            sampling_rate=rate,
            resolution_uv=resolution,
            offset=xml.integer(element.get("signaloffset") or "0", "the signal offset"),
            signed=element.get("signalsigned", "True").strip().casefold() != "false",
            encoding=encoding,
            compressed=encoding != "plain" and _is_compressed(element),
        )
        _refuse_unknown_words(element, waveforms)
        return waveforms

    def counts(self) -> npt.NDArray[np.signedinteger]:
        """The samples as stored, [n_leads, n_samples], limb leads restored."""
        text = self.element.text or ""
        if not text.strip():
            raise ReadError("the waveforms are empty")
        if self.encoding == "plain":
            return _split(_plain(text), len(self.leads), self.duration_samples)
        data = _DECODERS[self.encoding](text)
        if self.compressed:
            counts = restore_limb_leads(decode_xli(data, len(self.leads), self.duration_samples), self.leads)
            _refuse_jumps(counts)
            return counts
        if len(data) % 2:
            raise ReadError(
                f"uncompressed waveforms of {len(data)} bytes, which is not a whole number of 16-bit samples"
            )
        stored = np.frombuffer(data, dtype="<i2" if self.signed else "<u2").astype(np.int32)
        return _split(stored, len(self.leads), self.duration_samples)


def _required_waveforms(root: etree._Element) -> etree._Element:
    element = root.find("{*}waveforms/{*}parsedwaveforms")
    if element is None:
        element = next(root.iter("{*}parsedwaveforms"), None)
    if element is not None:
        return element
    for other in ("unparsedwaveforms", "leadwaveforms"):
        if next(root.iter(f"{{*}}{other}"), None) is not None:
            raise UnsupportedFormatError(f"the waveforms are stored as {other}; only parsedwaveforms can be read")
    raise ReadError("the document holds no waveforms (no parsedwaveforms element)")


def _signal_characteristics(root: etree._Element) -> dict[str, str]:
    """The acquisition section's settings by name, those that are empty left out."""
    section = root.find("{*}dataacquisition/{*}signalcharacteristics")
    settings = (
        {} if section is None else {xml.local_name(child): xml.text_of(child) for child in section.iterchildren("*")}
    )
    return {name: text for name, text in settings.items() if text}


def _setting(element: etree._Element, attribute: str, signal: dict[str, str], *names: str) -> str | None:
    """An attribute of the waveforms or, where it is not given (1.03), what the acquisition section says."""
    value = element.get(attribute)
    if value is not None:
        return value
    return next((signal[name] for name in (attribute, *names) if name in signal), None)


def _is_compressed(element: etree._Element) -> bool:
    """Whether the data is XLI; `compressmethod` is 1.03's name for what is `compression` later."""
    method = (element.get("compressmethod") or element.get("compression") or "").strip().casefold()
    if method in ("", "uncompressed", "none") or element.get("compressflag", "").strip().casefold() == "false":
        return False
    if method != "xli":
        raise UnsupportedFormatError("the waveforms' compression is not XLI")
    return True


def _refuse_unknown_words(element: etree._Element, waveforms: _Waveforms) -> None:
    """Samples are 16-bit words; XLI of other words, unsigned or shifted ones has never been described."""
    bits = element.get("bitspersample") or element.get("nbitspersample")
    if bits is not None and waveforms.encoding != "plain" and xml.number(bits, "bits per sample") != 16:
        raise UnsupportedFormatError(f"samples of {_shown(bits.strip())} bits; only 16-bit samples can be read")
    if abs(waveforms.offset) >= 1 << 16:
        raise ReadError("impossible signal offset: more than 16 bits")
    if waveforms.compressed and (waveforms.offset or not waveforms.signed):
        raise UnsupportedFormatError("XLI data of unsigned samples, or with a signal offset, cannot be read")


def _leads(element: etree._Element, signal: dict[str, str]) -> tuple[str, ...]:
    """Lead names in stored order: the labels or, in 1.03, what the acquisition type says."""
    labels = element.get("leadlabels", "").split()
    if labels:
        n_leads = xml.integer(element.get("numberofleads") or str(len(labels)), "the number of leads")
        labels = labels[: max(n_leads, 0)]
    else:
        n_leads = xml.integer(signal.get("numberchannelsallocated"), "the number of channels")
        if signal.get("acquisitiontype") not in ("STD-12", "10-WIRE"):
            raise UnsupportedFormatError("no lead labels, and an acquisition type that does not give the leads' order")
        extra = range(len(STANDARD_LEADS) + 1, min(n_leads, MAX_LEADS + 1) + 1)
        labels = [*STANDARD_LEADS[: max(n_leads, 0)], *(f"Channel {number}" for number in extra)]
    if not 1 <= len(labels) <= MAX_LEADS:
        raise ReadError(f"{len(labels) or 'no'} leads; 1 to {MAX_LEADS} were expected")
    return canonical_leads(labels)


def _device(root: etree._Element, waveforms: _Waveforms) -> dict[str, str | float]:
    """Device and filters of the stored signal; the filters of the printed report are not applied to it."""
    meta: dict[str, str | float] = {"device_manufacturer": "Philips"}
    machine = root.find("{*}dataacquisition/{*}machine")
    if machine is not None:
        model = xml.text_of(machine)
        # "manufacturer:model:software revision", by the schema's convention
        parts = [part.strip() for part in machine.get("detaildescription", "").split(":")]
        if len(parts) == 3:
            meta |= {"device_manufacturer": parts[0], "device_model": parts[1], "software_version": parts[2]}
        if model:
            meta["device_model"] = model
    element, signal = waveforms.element, waveforms.signal
    band = signal.get("signalbandwidth", "").partition("-")
    filters = {
        "highpass_hz": _setting(element, "hipass", signal) or band[0],
        "lowpass_hz": _setting(element, "lowpass", signal) or band[2],
    }
    if (_setting(element, "notchfiltered", signal) or "").strip().casefold() == "true":
        # The mains frequency comes first, its harmonics after it.
        frequencies = (_setting(element, "notchfilterfreqs", signal) or "").split()
        filters["notch_hz"] = frequencies[0] if frequencies else ""
    for key, text in filters.items():
        if re.fullmatch(r"\d{1,5}(\.\d{1,6})?", text.strip()):
            meta[key] = float(text)
    return {key: value for key, value in meta.items() if not isinstance(value, str) or _is_device_name(value)}


def _is_device_name(text: str) -> bool:
    """Short and plain, as the names of devices and revisions are."""
    return re.fullmatch(r"[A-Za-z0-9 ./_+-]{1,48}", text) is not None


# -- From text to stored words -----------------------------------------------------------------------------------------

_BLANKS = b" \t\r\n"
_LONGEST_NUMBER = 7  # characters: 24 bits with a sign


def _base64(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text.encode("ascii").translate(None, _BLANKS), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ReadError("the waveforms are damaged: not valid Base64") from error


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise ReadError("the waveforms are damaged: not valid hexadecimal") from error


def _plain(text: str) -> npt.NDArray[np.int32]:
    """Samples written as decimal numbers, separated by blanks."""
    words = text.split()
    if max(map(len, words)) > _LONGEST_NUMBER:  # NumPy would give every word the room of the longest
        raise ReadError("the waveforms are damaged: not a list of whole numbers")
    try:
        return np.array(words).astype(np.int32)
    except (ValueError, OverflowError) as error:
        raise ReadError("the waveforms are damaged: not a list of whole numbers") from error


_DECODERS = {"base64": _base64, "hex": _hex}


def _split(stored: npt.NDArray[np.int32], n_leads: int, duration_samples: float) -> npt.NDArray[np.int32]:
    """Lead after lead to [n_leads, n_samples]; leads stored beyond those that are named are left out."""
    n_samples = round(duration_samples)
    n_stored, rest = divmod(stored.size, n_samples)
    if rest or n_stored < n_leads:
        raise ReadError(
            f"uncompressed waveforms of {stored.size} samples; {n_leads} leads of {n_samples} samples were announced"
        )
    return stored.reshape(n_stored, n_samples)[:n_leads]


# -- XLI: LZW with 10-bit codes over second differences ----------------------------------------------------------------

_CHUNK_HEADER = struct.Struct("<iHh")  # payload size in bytes, a word that is always 1, first second difference
_CODE_BITS = 10
_LITERALS = [bytes([byte]) for byte in range(256)]
_END_CODE = 1023  # ends a chunk; the bits after it are padding
_MAX_ENTRIES = _END_CODE - len(_LITERALS)  # strings that are added: codes 256 to 1022
_MANY_CODES = 1 << 14  # more than 10 s need


def decode_xli(data: bytes, n_leads: int, duration_samples: float) -> Counts:
    """Decode the first `n_leads` chunks of XLI data.

    Parameters
    ----------
    data : chunks of an 8-byte header and LZW-compressed words each.
    n_leads : chunks to decode; real files hold 16 for 12 leads, and what lies behind is not looked at.
    duration_samples : samples per lead that the document announces, perhaps fractional.

    Returns
    -------
    int16 array [n_leads, n_samples]
        As stored: limb leads are residuals still (`restore_limb_leads`).

    Raises
    ------
    ReadError
        If sizes, codes or the number of samples are wrong. Nothing larger than what was announced is ever allocated.
    """
    first_differences, payloads = _chunks(data, n_leads, duration_samples)
    expand = _expander(payloads, math.ceil(2 * duration_samples) + 1)
    texts: list[bytes] = []
    for lead, payload in enumerate(payloads):
        try:
            text = expand(lead)
            n_samples = (len(text) + 1) // 2
            if abs(n_samples - duration_samples) >= 1:
                raise ReadError(f"{n_samples} samples; {duration_samples:g} were announced")
        except ReadError as error:
            _refuse_14_bit(payload, duration_samples)
            raise ReadError(f"the waveforms are damaged: lead {lead + 1} holds {error}") from error
        # The last byte is never used, and may be left away: it counts as 0, as in sierraecg.
        texts.append(text.ljust(2 * n_samples, b"\0"))
    sizes = {len(text) // 2 for text in texts}
    if len(sizes) > 1:
        raise ReadError(f"leads of unequal length: {min(sizes)} and {max(sizes)} samples")
    return _integrate_compiled(texts, first_differences) if _xli else _integrate(texts, first_differences)


def _chunks(data: bytes, n_leads: int, duration_samples: float) -> tuple[list[int], list[bytes]]:
    """First second difference and compressed payload of each lead."""
    # Every code gives one byte or more, so that a lead never needs more room than one code for each of its bytes.
    largest = int(2 * duration_samples * _CODE_BITS / 8) + 16
    first_differences, payloads = [], []
    offset = 0
    for lead in range(n_leads):
        if len(data) - offset < _CHUNK_HEADER.size:
            raise ReadError(f"the waveforms are truncated: {lead} of {n_leads} leads are there")
        size, _, first_difference = _CHUNK_HEADER.unpack_from(data, offset)
        offset += _CHUNK_HEADER.size
        if size <= 0 or size > largest:
            raise ReadError(f"the waveforms are damaged: lead {lead + 1} announces {size} bytes")
        if size > len(data) - offset:
            raise ReadError(
                f"the waveforms are truncated: lead {lead + 1} announces {size} bytes, {len(data) - offset} are left"
            )
        first_differences.append(first_difference)
        payloads.append(data[offset : offset + size])
        offset += size
    return first_differences, payloads


def _expander(payloads: list[bytes], most_bytes: int) -> Callable[[int], bytes]:
    """What gives the text of a lead, by its number: the compiled loop, or the one in Python where that was not built."""
    if _xli is not None:
        return lambda lead: _expand_compiled(payloads[lead], most_bytes)
    codes, n_codes = _codes(payloads)
    return lambda lead: _expand(codes[lead, : n_codes[lead]].tolist(), most_bytes)


def _expand_compiled(payload: bytes, most_bytes: int) -> bytes:
    """`_codes` and `_expand` of one lead."""
    assert _xli is not None
    try:
        return _xli.expand(payload, most_bytes, _MANY_CODES)
    except IndexError as error:
        raise ReadError("an impossible LZW code") from error
    except OverflowError as error:
        raise ReadError("more samples than were announced") from error


def _codes(payloads: list[bytes]) -> tuple[npt.NDArray[np.uint16], list[int]]:
    """10-bit codes, most significant bit first, [n_leads, width], and how many of each row count."""
    # Five bytes hold four codes; one group more than needed, so that every row has a place for an end.
    width = (max(map(len, payloads)) // 5 + 2) * 5
    padded = b"".join([payload.ljust(width, b"\0") for payload in payloads])
    # The big-endian 16-bit words that begin at bytes 0, 1, 2 and 3 of a group hold one code each.
    words = np.ndarray((len(padded) // 5, 4), ">u2", padded, 0, (5, 1)).astype(np.uint16)
    words >>= np.array([6, 4, 2, 0], dtype=np.uint16)
    words &= (1 << _CODE_BITS) - 1
    codes = words.reshape(len(payloads), -1)
    ends = codes == _END_CODE
    for row, payload in enumerate(payloads):
        ends[row, 8 * len(payload) // _CODE_BITS] = True
    return codes, [int(end) for end in ends.argmax(axis=1)]


def _expand(codes: list[int], most_bytes: int) -> bytes:
    """The text that one lead's LZW codes stand for; refused where it is longer than `most_bytes`.

    The string added after code k is code k's string and the first byte of code k + 1's. Keeping the first bytes in a list
    of their own leaves nothing to decide, not even where code k + 1 names the string that is being added.
    """
    if len(codes) < 2:  # of which no sample can be made
        return b""
    strings, first_bytes = _LITERALS.copy(), _LITERALS.copy()
    add_string, add_first_byte = strings.append, first_bytes.append
    try:
        # This loop is the dearest part of reading a file. It ends where the table is full.
        code = codes[0]
        for following in codes[1 : _MAX_ENTRIES + 1]:
            add_first_byte(first_bytes[code])
            add_string(strings[code] + first_bytes[following])
            code = following
        pieces = itemgetter(*codes)(strings)
    except IndexError as error:
        raise ReadError("an impossible LZW code") from error
    # A code can stand for 768 bytes: many codes are counted before they are put together.
    if len(codes) > _MANY_CODES and sum(map(len, pieces)) > most_bytes:
        raise ReadError("more samples than were announced")
    return b"".join(pieces)


def _integrate_compiled(texts: list[bytes], first_differences: list[int]) -> Counts:
    """`_integrate`, lead by lead."""
    samples = np.empty((len(texts), len(texts[0]) // 2), dtype="<i2")
    for text, first_difference, row in zip(texts, first_differences, samples, strict=True):
        _xli.integrate(text, first_difference, row)
    return samples.astype(np.int16, copy=False)


def _integrate(texts: list[bytes], first_differences: list[int]) -> Counts:
    """From the high bytes of all words, then their low bytes, to the samples in 16 bits; a row for each lead.

    The words hold x[0], x[1] and then 64 - (x[i] - 2 x[i-1] + x[i-2]) for i = 3 onwards, one place early; the second
    difference for i = 2 is minus the header's word. Devices compute in 16 bits, and so a lead that rails may wrap around
    on the way.
    """
    # In 32 bits, of which the lower 16 count: NumPy sums those several times faster than 16-bit numbers.
    both = np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(len(texts), -1).astype(np.uint32)
    n_samples = both.shape[1] // 2
    high, words = both[:, :n_samples], both[:, n_samples:]
    high <<= 8
    words += high
    starts = np.zeros((len(texts), 3), dtype=np.uint32)
    starts[:, : min(2, n_samples)] = words[:, :2]
    starts[:, 1] -= starts[:, 0]
    starts[:, 2] = -np.array(first_differences, dtype=np.int64) & 0xFFFF
    # In place, and one place further: word i - 1 becomes the second difference at i.
    np.subtract(64, words, out=words)
    samples = both[:, n_samples - 1 : -1]
    samples[:, :3] = starts[:, :n_samples]
    np.add.accumulate(samples[:, 1:], axis=1, out=samples[:, 1:])
    np.add.accumulate(samples, axis=1, out=samples)
    return samples.astype(np.uint16).view(np.int16)


def restore_limb_leads(counts: Counts, leads: tuple[str, ...]) -> Counts:
    """Replace the residuals that XLI stores for leads III, aVR, aVL and aVF by the leads themselves.

    III = II - I - r;  aVR = -r - floor((I + II) / 2);  aVL = floor((I - III) / 2) - r;  aVF = floor((II + III) / 2) - r.

    Raises
    ------
    ReadError
        If a lead that the restoration needs is not among `leads` (canonical names, one for each row).
    """
    stored = {lead: row for row, lead in enumerate(leads)}
    if "-aVR" in stored:
        raise UnsupportedFormatError("how XLI stores lead -aVR is not known")
    restored = counts.copy()
    wide: dict[str, npt.NDArray[np.int32]] = {}

    def lead(name: str) -> npt.NDArray[np.int32]:
        if name not in stored:
            raise ReadError(f"lead {name} is not stored, and the other limb leads cannot be restored without it")
        if name not in wide:
            wide[name] = restored[stored[name]].astype(np.int32)
        return wide[name]

    if "III" in stored:
        restored[stored["III"]] = (lead("II") - lead("I") - counts[stored["III"]]).astype(np.int16)
    if "aVR" in stored:
        restored[stored["aVR"]] = (-((lead("I") + lead("II")) >> 1) - counts[stored["aVR"]]).astype(np.int16)
    if "aVL" in stored:
        restored[stored["aVL"]] = (((lead("I") - lead("III")) >> 1) - counts[stored["aVL"]]).astype(np.int16)
    if "aVF" in stored:
        restored[stored["aVF"]] = (((lead("II") + lead("III")) >> 1) - counts[stored["aVF"]]).astype(np.int16)
    return restored


# A lead that rails steps over half of the 16-bit range at once; a damaged second difference makes a ramp that runs over
# its end and comes back at the other.
MAX_JUMP = 3 << 14


def _refuse_jumps(counts: Counts) -> None:
    """Refuse XLI data that decodes, but to a signal that no electrode gives."""
    if int(counts.max()) - int(counts.min()) <= MAX_JUMP:
        return
    jumps = np.abs(np.diff(counts.astype(np.int32), axis=1)).max(axis=1, initial=0)
    if jumps.max() > MAX_JUMP:
        row = int(jumps.argmax())
        raise ReadError(f"the waveforms are damaged: lead {row + 1} jumps by {jumps[row]} counts from sample to sample")


def _refuse_14_bit(payload: bytes, duration_samples: float) -> None:
    """Say so where a payload that is no sense in 10-bit codes is LZW of 14-bit codes."""
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
        raise UnsupportedFormatError("XLI data with 14-bit codes; only the 10-bit kind can be read")


# Names in version 1.03, then in 1.04.
_MEASUREMENTS = {
    "heart_rate": ("heartrate",),
    "pr_ms": ("meanprint", "print"),
    "qrs_ms": ("meanqrsdur", "qrsdur"),
    "qt_ms": ("meanqtint", "qtint"),
    "qtc_ms": ("meanqtc", "qtcb"),
    "p_axis": ("pfrontaxis",),
    "qrs_axis": ("qrsfrontaxis",),
    "t_axis": ("tfrontaxis",),
}


def statements(source: Source) -> Statements:
    """The analysis program's reading: the first interpretation, without what is marked as edited in it."""
    interpretation = xml.parse(source).find("{*}interpretations/{*}interpretation")
    if interpretation is None:
        return Statements()
    lines = [
        xml.text_of(statement.find("{*}leftstatement"))
        for statement in interpretation.iterfind("{*}statement")
        if not _is_edited(statement)
    ]
    sections = ("interpretationmeasurements", "globalmeasurements")
    found = [section for name in sections for section in interpretation.iterfind(f"{{*}}{name}")]
    measured: dict[str, float | None] = {}
    for key, names in _MEASUREMENTS.items():
        elements = [section.find(f"{{*}}{name}") for section in found for name in names]
        texts = [xml.text_of(element) for element in elements if element is not None and not _is_edited(element)]
        measured[key] = next((value for text in texts if (value := optional_number(text)) is not None), None)
    return statements_of(lines, **measured)


def _is_edited(element: etree._Element) -> bool:
    return (element.get("editedflag") or "").strip().casefold() == "true"
