"""MFER files (ISO 22077-1), with whatever a test wants to be wrong in them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ecgfounder.ecg.leads import LEAD_OF_SCP_CODE, STANDARD_LEADS

CODE_OF_LEAD = {lead: code for code, lead in LEAD_OF_SCP_CODE.items()}
PREAMBLE, BYTE_ORDER, BLOCK, CHANNELS, SEQUENCES, WAVEFORM, LEAD = 0x40, 0x01, 0x04, 0x05, 0x06, 0x08, 0x09
DATA_TYPE, INTERVAL, SENSITIVITY, NO_SAMPLE, MANUFACTURER, WAVE, OF_CHANNEL = 0x0A, 0x0B, 0x0C, 0x12, 0x17, 0x1E, 0x3F
CODES = {"i2": 0, "u2": 1, "i4": 2, "u1": 3, "i1": 5, "u4": 6}


def counts_of(leads: tuple[str, ...] = STANDARD_LEADS, n_samples: int = 60, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-2000, 2000, n_samples).astype("i2") for lead in leads}


def definition(tag: int, value: bytes) -> bytes:
    length = bytes((len(value),)) if len(value) < 128 else b"\x84" + len(value).to_bytes(4, "big")
    return bytes((tag,)) + length + value


def of_channel(channel: int, *definitions: bytes) -> bytes:
    inner = b"".join(definitions)
    return bytes((OF_CHANNEL, channel, len(inner))) + inner


def mfer(
    counts: Mapping[str, np.ndarray],
    *,
    block: int = 1,
    little_endian: bool = True,
    changes: Mapping[int, bytes | None] | None = None,
    channel_changes: Mapping[int, bytes] | None = None,
    more: bytes = b"",
) -> bytes:
    """A file of one frame: 500 Hz as 2 ms, 2.5 uV as 2500 nV a count.

    Parameters
    ----------
    counts : mapping of str to numpy.ndarray
        Samples by lead, all of one type and length, a multiple of `block`.
    changes : mapping of int to bytes or None
        Other values of definitions by tag; None leaves one out.
    channel_changes : mapping of int to bytes
        Further definitions of the first channel.
    more : bytes
        What follows the frame.
    """
    order = "little" if little_endian else "big"
    rows = np.stack(list(counts.values()))
    n_channels, n_samples = rows.shape
    frame = rows.reshape(n_channels, n_samples // block, block).transpose(1, 0, 2)
    stored = np.ascontiguousarray(frame, dtype=rows.dtype.newbyteorder("<" if little_endian else ">"))
    definitions: dict[int, bytes | None] = {
        PREAMBLE: b"MFR standard 12 leads ECG",
        BYTE_ORDER: bytes((little_endian,)),
        MANUFACTURER: b"Maker^Model^1.2^SERIAL",
        WAVEFORM: (1).to_bytes(2, order),
        0x81: b"Doe^^Jane",
        INTERVAL: b"\x01\xfd" + (2).to_bytes(2, order),
        SENSITIVITY: b"\x00\xf7" + (2500).to_bytes(2, order),
        DATA_TYPE: bytes((CODES[rows.dtype.str[1:]],)),
        BLOCK: block.to_bytes(4, order),
        SEQUENCES: (n_samples // block).to_bytes(4, order),
        CHANNELS: bytes((n_channels,)),
    }
    definitions |= changes or {}
    leads = [[definition(LEAD, CODE_OF_LEAD.get(lead, 9999).to_bytes(2, order))] for lead in counts]
    leads[0] += [definition(tag, value) for tag, value in (channel_changes or {}).items()]
    return b"".join(
        (
            *(definition(tag, value) for tag, value in definitions.items() if value is not None),
            *(of_channel(channel, *inner) for channel, inner in enumerate(leads)),
            definition(WAVE, stored.tobytes()),
            more,
            b"\x80\x00",
        )
    )
