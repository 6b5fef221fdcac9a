"""Choice of the leads for the network: by name, derived if possible; missing ones are refused or replaced by zeros.

In: a recording and a preparation. Out: rows in the network's order, and flags.
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
    """Leads for the network, before resampling and filters.

    Attributes
    ----------
    samples : numpy.ndarray
        float32 [n_leads, n_samples], in mV, at the recording's sampling rate.
    leads : tuple of str
        A name for each row.
    present : tuple of int
        The rows that hold a signal.
    derived : tuple of str
        Leads that were computed from others.
    flags : tuple of str
        Flags about the choice.
    """

    samples: Samples
    leads: tuple[str, ...]
    present: tuple[int, ...]
    derived: tuple[str, ...]
    flags: tuple[str, ...]


_ALL_ROWS = tuple(range(len(STANDARD_LEADS)))


def choose_leads(recording: Recording, preparation: Preparation) -> ChosenLeads:
    """Choose the leads as the preparation says.

    Raises
    ------
    PrepareError
        If a lead that is needed is missing.
    """
    if preparation.mode == "12lead":
        return _twelve_leads(recording, preparation.missing_leads)
    if preparation.lead == ALL_LEADS:
        return _every_lead(recording)
    return _one_lead(recording, preparation.lead)


def _twelve_leads(recording: Recording, missing_leads: str) -> ChosenLeads:
    selection = select_leads(recording)
    if not selection.missing:
        return ChosenLeads(selection.samples, selection.leads, _ALL_ROWS, selection.derived, ())
    if missing_leads == "fail" or len(selection.missing) == len(STANDARD_LEADS):
        raise PrepareError(
            f"missing leads {', '.join(selection.missing)}: absent, or without a signal; the recording has "
            f"{_leads_of(recording)}" + ("" if missing_leads == "zero" else " (missing_leads='zero' allows that)")
        )
    present = tuple(row for row, lead in enumerate(selection.leads) if lead not in selection.missing)
    flags = (quality.flag("missing_leads", selection.missing),)
    return ChosenLeads(selection.samples, selection.leads, present, selection.derived, flags)


def _every_lead(recording: Recording) -> ChosenLeads:
    """The standard leads that are there or can be derived, in their order, then the others in the recording's order."""
    # A lead -aVR is used as aVR where there is no aVR.
    used = STANDARD_LEADS if "aVR" in recording.leads else (*STANDARD_LEADS, "-aVR")
    others = tuple(lead for lead in recording.leads if lead not in used)
    selection = select_leads(recording, STANDARD_LEADS + others)
    present = [row for row, lead in enumerate(selection.leads) if lead not in selection.missing]
    if not present:
        raise PrepareError("no lead has a signal")
    labels = tuple(channel_label(recording, selection.leads[row]) for row in present)
    return ChosenLeads(selection.samples[present], labels, tuple(range(len(present))), selection.derived, ())


def _one_lead(recording: Recording, lead: str) -> ChosenLeads:
    flags: list[str] = []
    if len(recording.leads) == 1:
        only = recording.leads[0]
        if not has_signal(recording.samples[0]):
            raise PrepareError("the only lead has no signal")
        label = only if only == lead else channel_label(recording, only)
        samples: Samples = recording.samples
        derived: tuple[str, ...] = ()
        if only != lead and lead != "I":
            flags.append(quality.flag("other_lead", (label,)))
    else:
        selection = select_leads(recording, (lead,))
        if selection.missing:
            raise PrepareError(
                f"missing lead {lead}: absent, or without a signal; the recording has {_leads_of(recording)}"
            )
        samples, label, derived = selection.samples, lead, selection.derived
    if label != "I":
        flags.append(quality.flag("not_lead_I", (label,)))
    return ChosenLeads(samples, (label,), (0,), derived, tuple(flags))


def _leads_of(recording: Recording) -> str:
    """The recording's lead names for a message; unknown names are free text from the file, and only counted."""
    labels = [lead for lead in recording.leads if channel_label(recording, lead) == lead]
    unknown = len(recording.leads) - len(labels)
    elsewhere = f"; at another sampling rate: {', '.join(recording.left_out)}" if recording.left_out else ""
    return ", ".join(labels + ([f"{unknown} of unknown name"] if unknown else [])) + elsewhere
