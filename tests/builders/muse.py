"""GE MUSE XML, written as the cardiographs do, with whatever a test wants to be wrong in it."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np

STORED = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")


def counts_of(leads: tuple[str, ...], n_samples: int = 50, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-2000, 2000, n_samples).astype("<i2") for lead in leads}


def lead_data(lead: str, samples: np.ndarray, **changes: Any) -> str:
    data = samples.tobytes()
    fields: dict[str, Any] = {
        "LeadByteCountTotal": len(data),
        "LeadSampleCountTotal": len(samples),
        "LeadAmplitudeUnitsPerBit": "4.88",
        "LeadAmplitudeUnits": "MICROVOLTS",
        "LeadID": lead,
        "LeadOffsetFirstSample": 0,
        "LeadSampleSize": samples.dtype.itemsize,
        "LeadDataCRC32": zlib.crc32(data),
        "WaveFormData": "\r\n" + base64.encodebytes(data).decode() + "\r\n         ",
    } | changes
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in fields.items() if value is not None)
    return f"<LeadData>{inner}</LeadData>"


def waveform(
    leads: dict[str, np.ndarray], kind: str = "Rhythm", base: Any = 500, exponent: Any = 0, **changes: Any
) -> str:
    return (
        f"<Waveform><WaveformType>{kind}</WaveformType><SampleType>CONTINUOUS_SAMPLES</SampleType>"
        f"<SampleBase>{base}</SampleBase><SampleExponent>{exponent}</SampleExponent>"
        "<HighPassFilter>5</HighPassFilter><LowPassFilter>150</LowPassFilter><ACFilter>NONE</ACFilter>"
        f"<NumberofLeads>{len(leads)}</NumberofLeads>"
        + "".join(lead_data(lead, samples, **changes) for lead, samples in leads.items())
        + "</Waveform>"
    )


def document(*waveforms: str, doctype: str = '<!DOCTYPE RestingECG SYSTEM "restecg.dtd">') -> bytes:
    patient = "<PatientDemographics><PatientLastName>M\u00fcller</PatientLastName></PatientDemographics>"
    text = f'<?xml version="1.0" encoding="ISO-8859-1"?>{doctype}<RestingECG>{patient}{"".join(waveforms)}</RestingECG>'
    return text.encode("iso-8859-1")
