"""Plain Philips files and recordings that move like an ECG."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording

STORED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def counts_of(n_leads: int, n_samples: int = 5000, seed: int = 0) -> np.ndarray:
    """Something that moves like an ECG: waves of 1 mV at 5 uV per count, a little different in each lead."""
    time = np.arange(n_samples) / 500
    beats = np.maximum(0, np.sin(2 * np.pi * 1.2 * time)) ** 20
    scale = np.random.default_rng(seed).uniform(0.5, 1.0, (n_leads, 1))
    return np.asarray(np.round(200 * scale * beats + 8 * np.sin(time * 9)), dtype="<i2")


def philips(leads: Sequence[str] = STORED, counts: np.ndarray | None = None, rate: int = 500) -> bytes:
    counts = counts_of(len(leads)) if counts is None else counts
    return (
        '<?xml version="1.0"?><restingecgdata xmlns="http://www3.medical.philips.com">'
        "<documentinfo><documenttype>PhilipsECG</documenttype><documentversion>1.04</documentversion></documentinfo>"
        "<patient><generalpatientdata><patientid>77-PATIENT</patientid><name><lastname>Smith</lastname></name>"
        "</generalpatientdata></patient>"
        '<dataacquisition date="2001-02-03"><machine machineid="1" detaildescription="Philips:860315:A.1">TC50</machine>'
        "</dataacquisition><waveforms>"
        f'<parsedwaveforms dataencoding="Base64" compression="None" numberofleads="{len(leads)}" resolution="5"'
        f' durationperchannel="{counts.shape[1] * 1000 / rate:g}" samplespersecond="{rate}" hipass="0.05" lowpass="150"'
        f' notchfiltered="True" notchfilterfreqs="60 120" bitspersample="16" leadlabels="{" ".join(leads)}">'
        f"{base64.b64encode(counts.astype('<i2').tobytes()).decode()}</parsedwaveforms></waveforms></restingecgdata>"
    ).encode()


def recording_of(
    leads: Sequence[str] = STANDARD_LEADS, seconds: float = 10.0, rate: float = 500.0, **meta: float
) -> Recording:
    samples = counts_of(len(leads), round(seconds * rate)).astype(np.float32) * np.float32(0.005)
    return Recording(samples, rate, tuple(leads), "synthetic", meta)
