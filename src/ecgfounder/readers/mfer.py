"""MFER (Medical waveform Format Encoding Rules, ISO 22077-1): definitions of tag, length and value, then the samples.

In: a file with the preamble 'MFR '. Out: a `Recording`, marked as of an unverified format: the layout was taken from the
published rules and from public programs that read it, which agree; no file of a device was at hand. Only one frame of
integers with one rate for all channels is read; definitions beyond that are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import KNOWN_LEADS, LEAD_OF_SCP_CODE
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.errors import ReadError, UnsupportedFormatError
from ecgfounder.readers.quantities import to_millivolts
from ecgfounder.readers.source import Source
from ecgfounder.readers.timeline import in_words

FORMAT = "mfer"

_NOTHING, _BYTE_ORDER, _BLOCK, _CHANNELS, _SEQUENCES, _WAVEFORM, _LEAD = 0x00, 0x01, 0x04, 0x05, 0x06, 0x08, 0x09
_DATA_TYPE, _INTERVAL, _SENSITIVITY, _NO_SAMPLE, _MANUFACTURER, _WAVE = 0x0A, 0x0B, 0x0C, 0x12, 0x17, 0x1E
_OF_CHANNEL, _PREAMBLE, _GROUP, _END = 0x3F, 0x40, 0x67, 0x80
_NOT_IN_USE = {0x0D: "MWF_OFF", 0x0E: "MWF_CMP", 0x0F: "MWF_IPD", 0x43: "MWF_SKW"}
"""Definitions that change what samples mean; they are read only where they are zero."""
_FOR_ALL_CHANNELS = (_BLOCK, _SEQUENCES, _DATA_TYPE, _INTERVAL)

_ECG = (0, 1, 2, 4, 20, 21)  # not specified; standard 12-lead, long-term and stress ECG; monitoring
_SAMPLE_TYPES = {0: "i2", 1: "u2", 2: "i4", 3: "u1", 5: "i1", 6: "u4"}
_HERTZ, _SECONDS, _VOLT = 0, 1, 0
_MOST_CHANNELS = 256
_MOST_EXPONENT = 12


def matches(source: Source) -> bool:
    """Whether the file begins with a preamble whose text begins with 'MFR '."""
    head = source.head
    return head[:1] == bytes((_PREAMBLE,)) and head[2:6] == b"MFR "


def read(source: Source) -> Recording:
    """Decode the only frame of an ECG.

    Returns
    -------
    Recording
        float32 [n_leads, n_samples] in mV; NaN where a sample has the value that the file defines as none.

    Raises
    ------
    ReadError
        If the file is damaged, or definitions contradict the data.
    UnsupportedFormatError
        If there is no frame of an ECG, or several; if definitions are in use that are not read.
    """
    contents = _contents(source.content)
    frames = [frame for frame in contents.frames if frame.waveform in _ECG]
    if len(frames) != 1:
        raise UnsupportedFormatError(f"expected one frame of an ECG, found {len(frames)}")
    frame = frames[0]
    counts = frame.counts()
    kept = [channel for channel in range(len(counts)) if frame.is_voltage(channel)]
    leads = tuple(frame.lead(channel) for channel in kept)
    if KNOWN_LEADS.isdisjoint(leads):
        raise UnsupportedFormatError("expected channels with the codes of leads (MWF_LDN), found none")
    samples = np.empty((len(kept), counts.shape[1]), dtype=np.float32)
    for row, channel in zip(samples, kept, strict=True):
        frame.fill(row, counts[channel], channel)
    return Recording(
        samples=samples,
        sampling_rate=frame.rate(),
        leads=leads,
        source_format=FORMAT,
        meta=contents.device,
        is_unverified=True,
    )


# --- Definitions -----------------------------------------------------------------------------------------------------


def _definitions(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Tag, channel and value of each definition; channel -1 where the tag is not MWF_ATT's."""
    position = 0
    while position < len(data):
        tag = data[position]
        position += 1
        if tag == _NOTHING:
            continue
        if tag == _END:
            return
        channel = -1
        if tag == _OF_CHANNEL:
            channel, position = _channel_number(data, position)
        length, position = _length(data, position)
        if position + length > len(data):
            raise ReadError("a definition ends beyond the file: truncated or damaged")
        yield tag, channel, data[position : position + length]
        position += length


def _channel_number(data: bytes, position: int) -> tuple[int, int]:
    """A channel's number, seven bits a byte, of which all but the last have the highest bit set."""
    number = 0
    for byte in data[position : position + 3]:
        position += 1
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, position
    raise ReadError("the number of a channel is too large or truncated")


def _length(data: bytes, position: int) -> tuple[int, int]:
    """A length: one byte below 128, or the number of the bytes that follow, the highest first."""
    if position >= len(data):
        raise ReadError("a definition has no length: truncated or damaged")
    first = data[position]
    if first < 0x80:
        return first, position + 1
    size = first - 0x80
    if not 1 <= size <= 4:
        raise UnsupportedFormatError("expected definitions of a stated length, found another")
    return int.from_bytes(data[position + 1 : position + 1 + size], "big"), position + 1 + size


@dataclass
class _Contents:
    """What a file defines, read in its order: a frame has the definitions before it."""

    device: dict[str, str | float] = field(default_factory=dict)
    frames: list[_Frame] = field(default_factory=list)


def _contents(data: bytes) -> _Contents:
    contents = _Contents()
    little_endian = False
    of_all: dict[int, bytes] = {}
    of_channel: dict[int, dict[int, bytes]] = {}
    for tag, channel, value in _definitions(data):
        if tag == _BYTE_ORDER:
            if of_all or value not in (b"\0", b"\1"):
                raise ReadError("the byte order is damaged, or defined after other definitions")
            little_endian = value == b"\1"
        elif tag == _MANUFACTURER:
            contents.device = _device(value)
        elif tag == _GROUP:
            raise UnsupportedFormatError("expected definitions without groups (MWF_SET), found one")
        elif tag == _OF_CHANNEL:
            of_channel.setdefault(channel, {}).update(_of_one_channel(value))
        elif tag == _WAVE:
            contents.frames.append(_Frame(value, little_endian, of_all.copy(), _copied(of_channel)))
        elif tag != _PREAMBLE:
            _refuse_if_in_use(tag, value)
            of_all[tag] = value
            if tag == _CHANNELS:
                of_channel = {}
    return contents


def _of_one_channel(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for tag, _, value in _definitions(data):
        if tag in (_OF_CHANNEL, _WAVE, _GROUP, _BYTE_ORDER):
            raise ReadError("a channel's definition contains a definition that belongs to the file")
        _refuse_if_in_use(tag, value)
        found[tag] = value
    return found


def _refuse_if_in_use(tag: int, value: bytes) -> None:
    if tag in _NOT_IN_USE and any(value):
        raise UnsupportedFormatError(f"{_NOT_IN_USE[tag]} is in use, which is not read")


def _copied(of_channel: Mapping[int, dict[int, bytes]]) -> dict[int, dict[int, bytes]]:
    return {channel: found.copy() for channel, found in of_channel.items()}


def _device(value: bytes) -> dict[str, str | float]:
    """Manufacturer, model and software; the serial number, which follows, is not taken."""
    parts = value.decode("ascii", "replace").strip(" \0").split("^")
    keys = ("device_manufacturer", "device_model", "software_version")
    texts = {key: part.strip() for key, part in zip(keys, parts, strict=False)}
    return {key: text[:64] for key, text in texts.items() if text and text.isprintable()}


# --- Frames ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Samples, and the definitions that hold for them."""

    data: bytes
    little_endian: bool
    of_all: Mapping[int, bytes]
    of_channel: Mapping[int, Mapping[int, bytes]]

    def _integer(self, value: bytes, *, signed: bool = False) -> int:
        return int.from_bytes(value, "little" if self.little_endian else "big", signed=signed)

    def _stated(self, tag: int, default: int) -> int:
        value = self.of_all.get(tag)
        if not value:
            return default
        if len(value) > 4:
            raise ReadError("a number of more than four bytes")
        return self._integer(value)

    def _of(self, channel: int, tag: int) -> bytes:
        """A channel's own definition, or that of all channels."""
        return self.of_channel.get(channel, {}).get(tag) or self.of_all.get(tag, b"")

    @property
    def waveform(self) -> int:
        """The kind of the waveform; what follows the code is free text."""
        return self._integer(self.of_all.get(_WAVEFORM, b"\0")[:2])

    def _sample_type(self) -> np.dtype[Any]:
        kind = _SAMPLE_TYPES.get(self._stated(_DATA_TYPE, 0))
        if kind is None:
            raise UnsupportedFormatError("expected integer samples (MWF_DTP), found others")
        return np.dtype(kind).newbyteorder("<" if self.little_endian else ">")

    def counts(self) -> npt.NDArray[Any]:
        """Stored values [n_channels, n_samples]: in each sequence the channels follow each other, a block of each."""
        n_channels, block = self._stated(_CHANNELS, 1), self._stated(_BLOCK, 1)
        if not n_channels or not block or n_channels > _MOST_CHANNELS:
            raise ReadError(f"{n_channels} channels with blocks of {block} samples")
        for channel, found in self.of_channel.items():
            if channel >= n_channels:
                raise ReadError("a definition of a channel that does not exist")
            if any(tag in found and found[tag] != self.of_all.get(tag) for tag in _FOR_ALL_CHANNELS):
                raise UnsupportedFormatError("expected one rate, type and block for all channels, found several")
        kind = self._sample_type()
        size = n_channels * block * kind.itemsize
        sequences = self._stated(_SEQUENCES, len(self.data) // size)
        if not sequences or sequences * size != len(self.data):
            raise ReadError(
                f"{sequences} sequences of {n_channels} channels with blocks of {block} samples contradict the "
                f"{len(self.data)} bytes of samples"
            )
        ordered = np.frombuffer(self.data, dtype=kind).reshape(sequences, n_channels, block)
        return ordered.transpose(1, 0, 2).reshape(n_channels, sequences * block)

    def lead(self, channel: int) -> str:
        """The channel's lead by its code, which is SCP-ECG's; what follows the code is free text and is not read."""
        code = self._integer(self.of_channel.get(channel, {}).get(_LEAD, b"")[:2])
        return LEAD_OF_SCP_CODE.get(code, f"channel {channel + 1}")

    def rate(self) -> float:
        """In Hz; stated as such or as an interval in seconds."""
        unit, value = self._quantity(self.of_all.get(_INTERVAL, b""), "the sampling interval (MWF_IVL)")
        if unit not in (_HERTZ, _SECONDS) or value <= 0:
            raise ReadError("the sampling interval (MWF_IVL) is not above 0, or neither in Hz nor in seconds")
        return value if unit == _HERTZ else 1 / value

    def is_voltage(self, channel: int) -> bool:
        """Whether the channel's unit is the volt; a lead whose unit is another is an error."""
        unit, value = self._quantity(self._of(channel, _SENSITIVITY), "the sensitivity (MWF_SEN)")
        lead = self.lead(channel)
        if unit != _VOLT and lead in KNOWN_LEADS:
            raise ReadError(f"{in_words(lead)}: the sensitivity (MWF_SEN) is not in volt")
        if unit == _VOLT and value <= 0:
            raise ReadError(f"{in_words(lead)}: the sensitivity (MWF_SEN) is not above 0")
        return unit == _VOLT

    def fill(self, row: Samples, counts: npt.NDArray[Any], channel: int) -> None:
        """Write a channel's samples in mV into `row`."""
        _, volt = self._quantity(self._of(channel, _SENSITIVITY), "the sensitivity (MWF_SEN)")
        none = self._of(channel, _NO_SAMPLE)
        no_sample = self._integer(none, signed=counts.dtype.kind == "i") if none else None
        to_millivolts(counts, volt * 1000, 0.0, in_words(self.lead(channel)), no_sample=no_sample, out=row)

    def _quantity(self, value: bytes, what: str) -> tuple[int, float]:
        """Unit and value: a byte each for the unit and the power of ten, then an integer."""
        if not 3 <= len(value) <= 6:
            raise ReadError(f"{what} is missing or damaged")
        exponent = int.from_bytes(value[1:2], "big", signed=True)
        if abs(exponent) > _MOST_EXPONENT:
            raise ReadError(f"{what} has an exponent of {exponent}")
        return value[0], self._integer(value[2:], signed=True) * 10.0**exponent
