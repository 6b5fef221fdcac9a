"""Mortara ELI XML, as public programs that read it expect it, with whatever a test wants to be wrong in it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS


def counts_of(leads: tuple[str, ...] = STANDARD_LEADS, n_samples: int = 50, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-2000, 2000, n_samples).astype("<i2") for lead in leads}


def channel(lead: str, counts: np.ndarray, **changes: Any) -> str:
    attributes: dict[str, Any] = {
        "OFFSET": 0,
        "BITS": counts.dtype.itemsize * 8,
        "FORMAT": "SIGNED",
        "UNITS_PER_MV": 400,
        "DURATION": len(counts),
        "SAMPLE_FREQ": 500,
        "NAME": lead,
        "ENCODING": "BASE64",
        "DATA": base64.b64encode(counts.tobytes()).decode(),
    } | changes
    written = " ".join(f'{name}="{value}"' for name, value in attributes.items() if value is not None)
    return f"<CHANNEL {written} />\n"


def document(*channels: str, doctype: str = "") -> bytes:
    beat = base64.b64encode(np.arange(9, dtype="<i2").tobytes()).decode()
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n{doctype}<ECG ACQUISITION_TIME="20231201120000" COMMENT="Chest pain">\n'
        '<SUBJECT LAST_NAME="Doe" FIRST_NAME="Jane" />\n'
        '<SOURCE TYPE="RESTING" MANUFACTURER="Mortara Instrument, Inc." MODEL="ELI 250c" />\n'
        '<TYPICAL_CYCLE BITS="16" FORMAT="SIGNED" UNITS_PER_MV="200" DURATION="9" SAMPLE_FREQ="250" ENCODING="BASE64">\n'
        f'<TYPICAL_CYCLE_CHANNEL NAME="I" DATA="{beat}" />\n</TYPICAL_CYCLE>\n{"".join(channels)}</ECG>\n'
    )
    return text.encode()
