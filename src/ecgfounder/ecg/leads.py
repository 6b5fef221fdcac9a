"""Leads: their names, order and derivation, which live here alone.

In: names as files spell them; a `Recording`. Out: canonical names; rows taken by name, derived where that is possible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ecgfounder.ecg.recording import Recording, Samples

STANDARD_LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads in the order that the network was trained on."""


LEAD_OF_SCP_CODE: dict[int, str] = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR"}
"""Leads by their number in SCP-ECG (EN 1064), which MDC codes '2:N' and DICOM's SCPECG codes '5.6.3-9-N' share."""


LEAD_OF_SCP_CODE |= {2 + i: f"V{i}" for i in range(1, 8)} | {66: "V8", 67: "V9"}


LEAD_OF_SCP_CODE |= {8 + i: f"V{i}R" for i in range(2, 8)} | {68: "V8R", 69: "V9R"}


LEAD_OF_SCP_CODE |= {16: "vx", 17: "vy", 18: "vz", 19: "CC5", 20: "CM5", 21: "LA", 22: "RA", 23: "LL"}


LEAD_OF_SCP_CODE |= {70: "D", 71: "A", 72: "J"}


_ALIASES: dict[str, str] = {name.upper(): name for name in STANDARD_LEADS}


_ALIASES |= {f"LEAD{name.upper()}": name for name in STANDARD_LEADS}


_ALIASES |= {f"C{i}": f"V{i}" for i in range(1, 7)}  # C1..C6: the German and IEC names of the chest leads


# A bare 1, 2 or 3 is left alone: it is as often a column's number as a limb lead's.
_ALIASES |= {"D1": "I", "D2": "II", "D3": "III", "DI": "I", "DII": "II", "DIII": "III"}


_ALIASES |= {"LEAD1": "I", "LEAD2": "II", "LEAD3": "III", "-AVR": "-aVR", "AVRNEG": "-aVR"}


# Leads that exist beside the twelve keep one spelling each; none of them stands in for a standard lead. Bare letters
# (X, A, D) are none: other signals are called so too.
_ALIASES |= {f"{prefix}{axis.upper()}": f"v{axis}" for axis in "xyz" for prefix in ("V", "MDC_ECG_LEAD_")}


_ALIASES |= {name: name for name in ("MLI", "MLII", "MLIII", "ML5", "MV1", "MV2", "MV5", "CM1", "CM2", "CM4")}


_ALIASES |= {name: name for name in ("CM5", "CC5", "V7", "V8", "V9")}


_ALIASES |= {f"V{i}R": f"V{i}R" for i in range(1, 10)} | {f"MCL{i}": f"MCL{i}" for i in range(1, 7)}


KNOWN_LEADS: frozenset[str] = frozenset(_ALIASES.values())
"""Every canonical name, the twelve and the others; anything else is text that some file gave a channel."""


_ECG_PREFIX = re.compile(r"^(?:MDC_ECG_LEAD_|MDC_ECG_ELEC_POTL_|(?:ECG|EKG)[ _:.-]+)", re.IGNORECASE)


_LEAD_PREFIX = re.compile(r"^LEAD[ _:.-]+", re.IGNORECASE)


# A unit, or whose lead it is, behind the name: 'V1 [uV]', 'Lead I (Einthoven)'.
_SUFFIX = re.compile(r"(?:[ _]*[([](?:[mµμun]?V|einthoven|goldberger|wilson)[)\]]|_[mun]V)$", re.IGNORECASE)


# 'V 1', 'aV-R', 'Lead 1'; never 'I-II', which is a difference of two leads.
_GAP = re.compile(r"(?<=[VCDL])[ _-](?=[1-9RLF])")


@lru_cache(maxsize=1024)
def canonical_lead(name: str) -> str:
    """One spelling for each lead: 'avr', 'AVR', 'MDC_ECG_LEAD_AVR', 'Lead aVR', 'aVR [uV]' are all 'aVR'.

    A name that is not known is returned without its surrounding blanks, so that it can be shown; it never equals a
    standard lead. 'ECG 1' is the first channel of a recorder, not lead I, and stays what it is.
    """
    whole = _SUFFIX.sub("", name.strip()).strip()
    without_ecg = _ECG_PREFIX.sub("", whole)
    for candidate in (whole, without_ecg, _LEAD_PREFIX.sub("", without_ecg)):
        known = _ALIASES.get(_GAP.sub("", candidate.upper()))
        if known is not None:
            return known
    return name.strip()


def channel_label(recording: Recording, lead: str) -> str:
    """How a lead of a recording is called where others see it: its name if it is a known lead's, else 'channel N'.

    A name that is not known is free text from inside the file, which stays there. N counts the recording's rows from 1.
    """
    return lead if lead in KNOWN_LEADS else f"channel {recording.leads.index(lead) + 1}"


@dataclass(frozen=True, eq=False)
class LeadSelection:
    """Rows taken from a recording by lead name.

    Attributes
    ----------
    samples : numpy.ndarray
        float32 array [len(leads), n_samples], in millivolt; rows of zeros for `missing` leads. It may share memory with
        the recording's, and must not be changed.
    leads : tuple of str
        The names asked for, in that order.
    derived : tuple of str
        Those that were computed from leads I and II.
    missing : tuple of str
        Those that are absent and cannot be derived, or hold nothing but zeros or nothing but NaN.
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
    wanted = tuple(leads)
    row_of = {lead: row for row, lead in enumerate(recording.leads) if has_signal(recording.samples[row])}
    if wanted == recording.leads[: len(wanted)] and all(lead in row_of for lead in wanted):
        return LeadSelection(recording.samples[: len(wanted)], wanted, (), ())
    taken = np.zeros((len(wanted), recording.n_samples), dtype=np.float32)
    derived: list[str] = []
    missing: list[str] = []
    for row, lead in enumerate(wanted):
        if lead in row_of:
            taken[row] = recording.samples[row_of[lead]]
        elif lead in _DERIVATION and {"I", "II"} <= row_of.keys():
            of_i, of_ii = _DERIVATION[lead]
            with np.errstate(invalid="ignore", over="ignore"):  # infinite samples, which the next stage looks after
                i, ii = (recording.samples[row_of[limb]].astype(np.float64) for limb in ("I", "II"))
                taken[row] = of_i * i + of_ii * ii
            derived.append(lead)
        else:
            missing.append(lead)
    return LeadSelection(taken, wanted, tuple(derived), tuple(missing))


_DERIVATION: dict[str, tuple[float, float]] = {
    "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5),
    "aVL": (1.0, -0.5),
    "aVF": (-0.5, 1.0),
}


def has_signal(samples: Samples) -> bool:
    """Whether a lead holds anything but zeros and non-finite samples."""
    if any(value and math.isfinite(value) for value in samples[:8].tolist()):
        return True  # as for nearly every lead, without a look at the rest
    return bool(np.any(np.isfinite(samples) & (samples != 0)))


def canonical_leads(names: Iterable[str]) -> tuple[str, ...]:
    """`canonical_lead` of each name, in order."""
    return tuple(canonical_lead(name) for name in names)
