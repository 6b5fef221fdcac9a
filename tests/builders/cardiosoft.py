"""GE CardioSoft XML, written as the program does."""

from __future__ import annotations

import numpy as np

from ecgfounder.ecg.leads import STANDARD_LEADS


def counts_of(leads: tuple[str, ...], n_samples: int = 50, seed: int = 0) -> dict[str, list[int]]:
    rng = np.random.default_rng(seed)
    return {lead: rng.integers(-2000, 2000, n_samples).tolist() for lead in leads}


def waveforms(leads: dict[str, list[int]], attribute: str = "lead") -> str:
    return "".join(
        f'<WaveformData {attribute}="{lead}">\t\t\t' + wrapped(values) + "\r\n</WaveformData>"
        for lead, values in leads.items()
    )


def wrapped(values: list[int]) -> str:
    """Comma-separated, with a line break and tabs after every 20th number, as CardioSoft writes it."""
    return "".join(
        f"{value}" + ("" if n == len(values) else ",\r\n\t\t" if n % 20 == 0 else ",")
        for n, value in enumerate(values, 1)
    )


def strip_data(
    leads: dict[str, list[int]],
    rate: str = "500",
    resolution: str = "5",
    units: str | None = "uVperLsb",
    total: str | None = None,
) -> str:
    units_attribute = "" if units is None else f' units="{units}"'
    stated = "" if total is None else f"<ChannelSampleCountTotal>{total}</ChannelSampleCountTotal>"
    return (
        f'<StripData><NumberOfLeads>{len(leads)}</NumberOfLeads><SampleRate units="Hz">{rate}</SampleRate>{stated}'
        f"<Resolution{units_attribute}>{resolution}</Resolution>{waveforms(leads)}</StripData>"
    )


def document(*parts: str) -> bytes:
    median = (
        '<RestingECGMeasurements><MedianSamples><SampleRate units="Hz">500</SampleRate>'
        f'<Resolution units="uVperLsb">5</Resolution>{waveforms(counts_of(STANDARD_LEADS, 30, seed=9))}'
        "</MedianSamples></RestingECGMeasurements>"
    )
    disclosure = "<FullDisclosure><FullDisclosureData>1,2,3,4,</FullDisclosureData></FullDisclosure>"
    filters = (
        "<FilterSetting><Filter50Hz>No</Filter50Hz><Filter60Hz>Yes</Filter60Hz><LowPass>40</LowPass></FilterSetting>"
    )
    name = "<PatientInfo><Name><FamilyName>M\u00fcller</FamilyName></Name></PatientInfo>"
    return (
        '<?xml version="1.0" encoding="ISO-8859-1" ?><CardiologyXML><ObservationType>RestECG</ObservationType>'
        f"{name}{filters}{median}{''.join(parts)}{disclosure}</CardiologyXML>"
    ).encode("iso-8859-1")
