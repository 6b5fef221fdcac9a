"""Leads: their names, order and derivation.

In: lead names from files; a `Recording`. Out: canonical names; rows by lead name, derived if possible.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ecgfounder.ecg.recording import Recording, Samples

STANDARD_LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The twelve standard leads in the order of the network's training."""


LEAD_OF_SCP_CODE: dict[int, str] = {1: "I", 2: "II", 61: "III", 62: "aVR", 63: "aVL", 64: "aVF", 65: "-aVR"}
"""Leads by their number N in SCP-ECG (EN 1064), also in MDC codes '2:N' and DICOM's SCPECG codes '5.6.3-9-N'."""


LEAD_OF_SCP_CODE |= {2 + i: f"V{i}" for i in range(1, 8)} | {66: "V8", 67: "V9"}


LEAD_OF_SCP_CODE |= {8 + i: f"V{i}R" for i in range(2, 8)} | {68: "V8R", 69: "V9R"}


LEAD_OF_SCP_CODE |= {16: "vx", 17: "vy", 18: "vz", 19: "CC5", 20: "CM5", 21: "LA", 22: "RA", 23: "LL"}


LEAD_OF_SCP_CODE |= {70: "D", 71: "A", 72: "J"}


_ALIASES: dict[str, str] = {name.upper(): name for name in STANDARD_LEADS}


_ALIASES |= {f"LEAD{name.upper()}": name for name in STANDARD_LEADS}


_ALIASES |= {f"C{i}": f"V{i}" for i in range(1, 7)}  # C1..C6: the German and IEC names of the chest leads


# A name of 1, 2 or 3 is not an alias: it may be a column's number as well as a limb lead.
_ALIASES |= {"D1": "I", "D2": "II", "D3": "III", "DI": "I", "DII": "II", "DIII": "III"}


_ALIASES |= {"LEAD1": "I", "LEAD2": "II", "LEAD3": "III", "-AVR": "-aVR", "AVRNEG": "-aVR"}


# Leads beyond the twelve have one spelling each; none of them replaces a standard lead. Single letters (X, A, D) are not lead
# names, because other signals have these names too.
_ALIASES |= {f"{prefix}{axis.upper()}": f"v{axis}" for axis in "xyz" for prefix in ("V", "MDC_ECG_LEAD_")}


_ALIASES |= {name: name for name in ("MLI", "MLII", "MLIII", "ML5", "MV1", "MV2", "MV5", "CM1", "CM2", "CM4")}


_ALIASES |= {name: name for name in ("CM5", "CC5", "V7", "V8", "V9")}


_ALIASES |= {f"V{i}R": f"V{i}R" for i in range(1, 10)} | {f"MCL{i}": f"MCL{i}" for i in range(1, 7)}


KNOWN_LEADS: frozenset[str] = frozenset(_ALIASES.values())
"""All canonical names, of the twelve leads and others; any other name is free text from a file."""


_ECG_PREFIX = re.compile(r"^(?:MDC_ECG_LEAD_|MDC_ECG_ELEC_POTL_|(?:ECG|EKG)[ _:.-]+)", re.IGNORECASE)


_LEAD_PREFIX = re.compile(r"^LEAD[ _:.-]+", re.IGNORECASE)


# A unit or an author after the name: 'V1 [uV]', 'Lead I (Einthoven)'.
_SUFFIX = re.compile(r"(?:[ _]*[([](?:[mµμun]?V|einthoven|goldberger|wilson)[)\]]|_[mun]V)$", re.IGNORECASE)


# 'V 1', 'aV-R', 'Lead 1'; never 'I-II', which is a difference of two leads.
_GAP = re.compile(r"(?<=[VCDL])[ _-](?=[1-9RLF])")


@lru_cache(maxsize=1024)
def canonical_lead(name: str) -> str:
    """One spelling for each lead: 'avr', 'AVR', 'MDC_ECG_LEAD_AVR', 'Lead aVR', 'aVR [uV]' are all 'aVR'.

    An unknown name is returned without surrounding spaces; it never equals a standard lead. 'ECG 1' is the first channel of a
    recorder, not lead I, and is not changed.
    """
    whole = _SUFFIX.sub("", name.strip()).strip()
    without_ecg = _ECG_PREFIX.sub("", whole)
    for candidate in (whole, without_ecg, _LEAD_PREFIX.sub("", without_ecg)):
        known = _ALIASES.get(_GAP.sub("", candidate.upper()))
        if known is not None:
            return known
    return name.strip()


# Names that other recordings use too: C1 to C6 are electrodes of the 10-10 system, D1 to D3 those of depth electrodes.
_AMBIGUOUS = frozenset({*(f"C{i}" for i in range(1, 7)), *(f"D{i}" for i in range(1, 4))})

# Electrodes of the 10-20 and 10-10 systems, alone or against another one, and channels that say EEG.
_EEG = re.compile(
    r"EEG\b.*|(?:FP|AF|F|FC|FT|CP|T|TP|PO|O)(?:Z|\d{1,2})(?:[-_ ].*)?|(?:C|P)Z(?:[-_ ].*)?|P[3-8](?:[-_ ].*)?"
    r"|[CD][1-6][-_ ]*(?:REF|AVG|LE|[ACMP]\d|[CP]Z)",
    re.IGNORECASE,
)


def leads_in_context(names: Sequence[str]) -> tuple[str, ...]:
    """`canonical_lead` of each channel's name, where one that other recordings use too needs the others' word.

    C1 to C6 and D1 to D3 are leads beside a lead with an unambiguous name (I, aVR, V1), if no channel is named as EEG and none
    says ECG in its name. Elsewhere they stay what they are, and are no leads.

    Parameters
    ----------
    names : sequence of str
        Names of all of a file's channels, as they are in the file.
    """
    return _leads_in_context(tuple(names))


@lru_cache(maxsize=1024)  # the files of a cohort have the same names
def _leads_in_context(names: tuple[str, ...]) -> tuple[str, ...]:
    plain = [_GAP.sub("", _SUFFIX.sub("", name.strip()).strip().upper()) for name in names]
    leads = canonical_leads(names)
    if _AMBIGUOUS.isdisjoint(plain):
        return leads
    certain = any(lead in STANDARD_LEADS and name not in _AMBIGUOUS for lead, name in zip(leads, plain, strict=True))
    other = any(_EEG.fullmatch(name.strip()) or _SAYS_ECG.search(name) for name in names)
    if certain and not other:
        return leads
    return tuple(
        name.strip() if spelled in _AMBIGUOUS else lead for name, spelled, lead in zip(names, plain, leads, strict=True)
    )


def says_ecg(name: str) -> bool:
    """Whether a channel's name says ECG or EKG: 'ECG', 'ECG1', 'EKG-II', 'Holter ECG', never 'SECGEN'."""
    return _SAYS_ECG.search(name) is not None


_SAYS_ECG = re.compile(r"(?:^|[^A-Za-z])(?:ECG|EKG)(?![A-Za-z])|^(?:ECG|EKG)", re.IGNORECASE)


def channel_label(recording: Recording, lead: str) -> str:
    """A lead's name for output: its name if it is known, else 'channel N', with N from 1.

    An unknown name is free text from the file, which may identify a patient and is never shown.
    """
    return lead if lead in KNOWN_LEADS else f"channel {recording.leads.index(lead) + 1}"


@dataclass(frozen=True, eq=False)
class LeadSelection:
    """Rows taken from a recording by lead name.

    Attributes
    ----------
    samples : numpy.ndarray
        float32 array [len(leads), n_samples], in millivolts; rows of zeros for `missing` leads. It may share memory with the
        recording's samples and must not be changed.
    leads : tuple of str
        The requested names, in that order.
    derived : tuple of str
        Leads that were computed from two of I, II and III.
    missing : tuple of str
        Leads that are absent and cannot be derived, or are all zero or all NaN.
    """

    samples: Samples
    leads: tuple[str, ...]
    derived: tuple[str, ...]
    missing: tuple[str, ...]


def select_leads(recording: Recording, leads: Sequence[str] = STANDARD_LEADS) -> LeadSelection:
    """Select leads by name; limb leads are derived if two of I, II and III are available (Einthoven, Goldberger).

    I = II - III;  II = I + III;  III = II - I;  aVR = -(I + II) / 2;  aVL = I - II / 2;  aVF = II - I / 2.

    Instead of deriving aVR, a lead -aVR of the file is used with its sign inverted. A lead of the file that is all zero or all
    NaN is derived too, if possible.
    """
    wanted = tuple(leads)
    samples = recording.samples
    if wanted == recording.leads[: len(wanted)] and _all_show_signal(samples[: len(wanted)]):
        return LeadSelection(samples[: len(wanted)], wanted, (), ())  # the usual case
    heads = samples[:, :_HEAD].tolist()
    row_of = {
        lead: row for row, lead in enumerate(recording.leads) if _shows_signal(heads[row]) or has_signal(samples[row])
    }
    # Some leads of such a recording may begin with zeros or NaN.
    if wanted == recording.leads[: len(wanted)] and all(lead in row_of for lead in wanted):
        return LeadSelection(recording.samples[: len(wanted)], wanted, (), ())
    taken = np.zeros((len(wanted), recording.n_samples), dtype=np.float32)
    derived: list[str] = []
    missing: list[str] = []
    for row, lead in enumerate(wanted):
        sources = _sources(lead, row_of)
        if lead in row_of:
            taken[row] = recording.samples[row_of[lead]]
        elif lead == "aVR" and "-aVR" in row_of:
            taken[row] = -recording.samples[row_of["-aVR"]]
        elif sources:
            with np.errstate(invalid="ignore", over="ignore"):  # the next stage handles infinite samples
                one, other = ((factor, recording.samples[row_of[limb]].astype(np.float64)) for limb, factor in sources)
                taken[row] = one[0] * one[1] + other[0] * other[1]
            derived.append(lead)
        else:
            missing.append(lead)
    return LeadSelection(taken, wanted, tuple(derived), tuple(missing))


def _sources(lead: str, available: Collection[str]) -> tuple[tuple[str, float], ...]:
    """Two of I, II and III and the factors by which they give the lead; empty if it cannot be derived."""
    for pair, factors in _DERIVATION.get(lead, {}).items():
        if all(limb in available for limb in pair):
            return tuple(zip(pair, factors, strict=True))
    return ()


FROM_I_AND_II = {"III": (-1.0, 1.0), "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0)}
"""Einthoven's and Goldberger's derived leads: what I and II are multiplied with."""


# I = II - III, so that a I + b II = (a + b) II - a III; II = I + III, so that a I + b II = (a + b) I + b III.
_DERIVATION: dict[str, dict[tuple[str, str], tuple[float, float]]] = {
    lead: {("I", "II"): (of_i, of_ii), ("II", "III"): (of_i + of_ii, -of_i), ("I", "III"): (of_i + of_ii, of_ii)}
    for lead, (of_i, of_ii) in {"I": (1.0, 0.0), "II": (0.0, 1.0), **FROM_I_AND_II}.items()
}


def has_signal(samples: Samples) -> bool:
    """Whether a lead holds anything but zeros and non-finite samples."""
    if _shows_signal(samples[:_HEAD].tolist()):
        return True  # the usual case, without checking all samples
    return bool(np.any(np.isfinite(samples) & (samples != 0)))


_HEAD = 8


def _all_show_signal(samples: Samples) -> bool:
    """Whether the first samples of each lead show that it has a signal."""
    heads = samples[:, :_HEAD].tolist()
    return all(map(any, heads)) and math.isfinite(sum(map(sum, heads)))


def _shows_signal(values: list[float]) -> bool:
    return any(value and math.isfinite(value) for value in values)


def canonical_leads(names: Iterable[str]) -> tuple[str, ...]:
    """`canonical_lead` of each name, in order."""
    return tuple(canonical_lead(name) for name in names)
