"""The decoded ECG: samples in millivolt, sampling rate, lead names. Lead names, order and derivation live here alone.

In: what a reader decoded. Out: a `Recording`, from which the next stage takes leads by name, never by position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ecgfounder.errors import ReadError

Samples = npt.NDArray[np.float32]

STANDARD_LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads in the order that the network was trained on."""

# What may be in `Recording.meta`: the recording device and its filters, never anything about the patient.
META_KEYS = frozenset(
    {
        "format_version",
        "device_manufacturer",
        "device_model",
        "software_version",
        "highpass_hz",
        "lowpass_hz",
        "notch_hz",
        "resolution_uv",
    }
)

# MDC (ISO/IEEE 11073-10101) and SCP-ECG (EN 1064, table of section 3) spell some leads in their own way.
_ALIASES: dict[str, str] = {name.upper(): name for name in STANDARD_LEADS}
_ALIASES |= {f"LEAD{name.upper()}": name for name in STANDARD_LEADS}
_ALIASES |= {f"C{i}": f"V{i}" for i in range(1, 7)}  # C1..C6: the German and IEC names of the chest leads
_ALIASES |= {"1": "I", "2": "II", "3": "III", "D1": "I", "D2": "II", "D3": "III", "DI": "I", "DII": "II", "DIII": "III"}
_ALIASES |= {"AVR": "aVR", "AVL": "aVL", "AVF": "aVF", "-AVR": "-aVR"}
# Leads that exist beside the twelve keep one spelling each; none of them stands in for a standard lead.
_ALIASES |= {"VX": "vx", "VY": "vy", "VZ": "vz", "MLII": "MLII", "MLI": "MLI", "MLIII": "MLIII"}
_ALIASES |= {f"V{i}R": f"V{i}R" for i in range(1, 8)} | {"V7": "V7", "V8": "V8", "V9": "V9"}

KNOWN_LEADS: frozenset[str] = frozenset(_ALIASES.values())
"""Every canonical name, the twelve and the others; anything else is text that some file gave a channel."""

_PREFIX = re.compile(r"^(?:MDC_ECG_LEAD_|MDC_ECG_ELEC_POTL_|ECG[ _-]+|LEAD[ _-]+)", re.IGNORECASE)


def canonical_lead(name: str) -> str:
    """One spelling for each lead: 'avr', 'AVR', 'MDC_ECG_LEAD_AVR', 'Lead aVR' are all 'aVR'.

    A name that is not known is returned without its surrounding blanks, so that it can be shown; it never equals a
    standard lead.
    """
    bare = _PREFIX.sub("", name.strip()).strip()
    return _ALIASES.get(bare.replace(" ", "").upper(), name.strip())


def channel_label(recording: Recording, lead: str) -> str:
    """How a lead of a recording is called where others see it: its name if it is a known lead's, else 'channel N'.

    A name that is not known is free text from inside the file, which stays there. N counts the recording's rows from 1.
    """
    return lead if lead in KNOWN_LEADS else f"channel {recording.leads.index(lead) + 1}"


@dataclass(frozen=True, eq=False)
class Recording:
    """One ECG as it was recorded.

    Attributes
    ----------
    samples : float32 array [n_leads, n_samples], in millivolt; NaN where the file says that there is no sample.
    sampling_rate : samples per second, in Hz.
    leads : one canonical name for each row of `samples` (`canonical_lead`).
    source_format : name of the reader that decoded it, e.g. "philips_sierra".
    meta : device and filter settings; keys are from the closed list `META_KEYS`.

    Raises
    ------
    ReadError
        If the parts contradict each other: shapes, an impossible rate, a lead named twice, no samples.
    """

    samples: Samples
    sampling_rate: float
    leads: tuple[str, ...]
    source_format: str
    meta: Mapping[str, str | float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.dtype != np.float32:
            raise ReadError(
                f"samples must be float32 [n_leads, n_samples], not {self.samples.dtype} {self.samples.shape}"
            )
        if self.samples.shape[0] != len(self.leads):
            raise ReadError(f"{self.samples.shape[0]} rows of samples but {len(self.leads)} lead names")
        if self.samples.size == 0:
            raise ReadError("the file holds no samples")
        if not (math.isfinite(self.sampling_rate) and 0 < self.sampling_rate <= 1_000_000):
            raise ReadError(f"impossible sampling rate: {self.sampling_rate} Hz")
        twice = sorted({lead for lead in self.leads if self.leads.count(lead) > 1})
        if twice:
            raise ReadError(f"leads named more than once: {', '.join(twice)}")
        unknown = set(self.meta) - META_KEYS
        if unknown:
            raise ReadError(f"not allowed in meta: {', '.join(sorted(unknown))}")

    @property
    def n_samples(self) -> int:
        return int(self.samples.shape[1])

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.n_samples / self.sampling_rate

    def __repr__(self) -> str:
        return (
            f"Recording({self.source_format}, {len(self.leads)} leads {' '.join(self.leads)}, "
            f"{self.n_samples} samples at {self.sampling_rate:g} Hz, {self.duration:g} s)"
        )


@dataclass(frozen=True, eq=False)
class LeadSelection:
    """Rows taken from a recording by lead name.

    Attributes
    ----------
    samples : float32 array [len(leads), n_samples], in millivolt; rows of zeros for `missing` leads.
    leads : the names asked for, in that order.
    derived : those that were computed from leads I and II.
    missing : those that are absent and cannot be derived, or hold nothing but zeros or nothing but NaN.
    """

    samples: Samples
    leads: tuple[str, ...]
    derived: tuple[str, ...]
    missing: tuple[str, ...]


def select_leads(recording: Recording, leads: Sequence[str] = STANDARD_LEADS) -> LeadSelection:
    """Take leads by name, deriving III, aVR, aVL and aVF where I and II are there (Einthoven, Goldberger).

    III = II - I;  aVR = -(I + II) / 2;  aVL = I - II / 2;  aVF = II - I / 2.

    A lead that is in the file but all zero or all NaN is derived too where that is possible.
    """
    row_of = {lead: row for row, lead in enumerate(recording.leads)}

    def stored(lead: str) -> Samples | None:
        row = row_of.get(lead)
        if row is None:
            return None
        samples = recording.samples[row]
        return samples if has_signal(samples) else None

    taken = np.zeros((len(leads), recording.n_samples), dtype=np.float32)
    derived: list[str] = []
    missing: list[str] = []
    for row, lead in enumerate(leads):
        samples = stored(lead)
        if samples is not None:
            taken[row] = samples
            continue
        i, ii = stored("I"), stored("II")
        if lead in _DERIVATION and i is not None and ii is not None:
            of_i, of_ii = _DERIVATION[lead]
            taken[row] = of_i * i.astype(np.float64) + of_ii * ii.astype(np.float64)
            derived.append(lead)
        else:
            missing.append(lead)
    return LeadSelection(taken, tuple(leads), tuple(derived), tuple(missing))


_DERIVATION: dict[str, tuple[float, float]] = {
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}


def has_signal(samples: Samples) -> bool:
    """Whether a lead holds anything but zeros and non-finite samples."""
    return bool(np.any(np.isfinite(samples) & (samples != 0)))


def canonical_leads(names: Iterable[str]) -> tuple[str, ...]:
    """`canonical_lead` of each name, in order."""
    return tuple(canonical_lead(name) for name in names)
