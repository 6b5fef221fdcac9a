"""Answers of the Kardia API, with whatever a test wants to be wrong in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

NAMES = {"I": "leadI", "II": "leadII", "III": "leadIII", "aVR": "AVR", "aVL": "AVL", "aVF": "AVF"}


def counts_of(n_samples: int = 60, leads: tuple[str, ...] = tuple(NAMES), seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-4000, 4000, n_samples) for lead in leads}


def signal(counts: Mapping[str, np.ndarray], **changes: Any) -> dict[str, Any]:
    samples = {NAMES[lead]: row.tolist() for lead, row in counts.items()}
    usual = {
        "frequency": 300,
        "mainsFrequency": 50,
        "samples": samples,
        "amplitudeResolution": 500,
        "numLeads": len(samples),
    }
    return usual | changes


def answer(counts: Mapping[str, np.ndarray], *, raw: Any = None, **changes: Any) -> bytes:
    """A recording; `raw` takes the place of the unfiltered signal. A change to None leaves a part out."""
    filtered = {lead: row // 2 for lead, row in counts.items()}
    whole = {
        "id": "a1b2",
        "patientID": "c3d4",
        "heartRate": 70,
        "duration": 30000,
        "recordedAt": "2021-04-16T15:19:09+05:30",
        "algorithmDetermination": "normal",
        "data": {"raw": signal(counts) if raw is None else raw, "enhanced": signal(filtered)},
        "deviceInfo": {"hardwareType": "kardia_6l", "firmwareRevision": "1.3.4", "serialNumber": "5"},
        "tags": [],
    } | changes
    return orjson.dumps({name: value for name, value in whole.items() if value is not None})
