"""Which leads go into the network: by name, derived where that is possible, absent ones refused or filled with zeros.

In: a recording and a preparation. Out: rows in the network's order, and the flags that this calls for.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecgfounder.ecg.leads import STANDARD_LEADS, channel_label, has_signal, select_leads
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import PrepareError
from ecgfounder.preprocess import quality
from ecgfounder.preprocess.preparation import ALL_LEADS, Preparation
from ecgfounder.preprocess.recipes import Samples


@dataclass(frozen=True)
class ChosenLeads:
    """Leads for the network, before anything is done to them; `present` are the rows that hold a signal."""

    samples: Samples
    leads: tuple[str, ...]
    present: tuple[int, ...]
    derived: tuple[str, ...]
    flags: tuple[str, ...]


def choose_leads(recording: Recording, preparation: Preparation) -> ChosenLeads:
    if preparation.mode == "12lead":
        return _twelve_leads(recording, preparation.missing_leads)
    if preparation.lead == ALL_LEADS:
        return _every_lead(recording)
    return _one_lead(recording, preparation.lead)


def _twelve_leads(recording: Recording, missing_leads: str) -> ChosenLeads:
    selection = select_leads(recording)
    flags: list[str] = []
    if selection.missing:
        if missing_leads == "fail" or len(selection.missing) == len(STANDARD_LEADS):
            raise PrepareError(
                f"missing leads {', '.join(selection.missing)}: absent, or without any signal; the recording has "
                f"{_leads_of(recording)}" + ("" if missing_leads == "zero" else " (missing_leads='zero' goes on)")
            )
        flags.append(quality.flag("missing_leads", selection.missing))
    present = tuple(row for row, lead in enumerate(selection.leads) if lead not in selection.missing)
    return ChosenLeads(selection.samples, selection.leads, present, selection.derived, tuple(flags))


def _every_lead(recording: Recording) -> ChosenLeads:
    """The standard leads that are there or can be derived, in their order, then the others in the recording's order."""
    others = tuple(lead for lead in recording.leads if lead not in STANDARD_LEADS)
    selection = select_leads(recording, STANDARD_LEADS + others)
    present = [row for row, lead in enumerate(selection.leads) if lead not in selection.missing]
    if not present:
        raise PrepareError("no lead holds any signal")
    labels = tuple(channel_label(recording, selection.leads[row]) for row in present)
    return ChosenLeads(selection.samples[present], labels, tuple(range(len(present))), selection.derived, ())


def _one_lead(recording: Recording, lead: str) -> ChosenLeads:
    flags: list[str] = []
    if len(recording.leads) == 1:
        only = recording.leads[0]
        if not has_signal(recording.samples[0]):
            raise PrepareError("the only lead holds no signal")
        label = only if only == lead else channel_label(recording, only)
        samples: Samples = recording.samples
        derived: tuple[str, ...] = ()
        if only != lead and lead != "I":
            flags.append(quality.flag("other_lead", (label,)))
    else:
        selection = select_leads(recording, (lead,))
        if selection.missing:
            raise PrepareError(
                f"missing lead {lead}: absent, or without any signal; the recording has {_leads_of(recording)}"
            )
        samples, label, derived = selection.samples, lead, selection.derived
    if label != "I":
        flags.append(quality.flag("not_lead_I", (label,)))
    return ChosenLeads(samples, (label,), (0,), derived, tuple(flags))


def _leads_of(recording: Recording) -> str:
    """The recording's lead names for a message; names that are not known leads are counted, as they are free text."""
    labels = [lead for lead in recording.leads if channel_label(recording, lead) == lead]
    unknown = len(recording.leads) - len(labels)
    elsewhere = f", and at another sampling rate {', '.join(recording.left_out)}" if recording.left_out else ""
    return ", ".join(labels + ([f"{unknown} of unknown name"] if unknown else [])) + elsewhere
