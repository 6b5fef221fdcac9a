"""The TRIPOD+AI checklist (Collins et al., BMJ 2024;385:e078378), with what a probe knows filled in.

In: a `ProbeResult`. Out: the items of methods and results, each with a text, or what the author must add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecgfounder.analysis.probing.probe import OVERLAP, ProbeResult
from ecgfounder.analysis.statistics.fitting import BINARY, NUMBER, TIME
from ecgfounder.analysis.statistics.intervals import FEW_PATIENTS

AUTHOR = "To be written by the author."

_MODELS = {
    BINARY: "Logistic regression with an L2 penalty",
    NUMBER: "Ridge regression",
    TIME: "Cox regression with an L2 penalty, Efron's correction for ties, Breslow's baseline hazard",
}


@dataclass(frozen=True)
class Item:
    """An item of the checklist: its number, topic, and what is filled in."""

    number: str
    topic: str
    text: str


def checklist(result: ProbeResult) -> list[Item]:
    """The items, in order."""
    settings, data = result.settings, result.data
    n_patients = len(np.unique(data.groups))
    unit = f"patients (column {settings.group})" if settings.group else "recordings; no patient was given"
    left = (
        "; ".join(f"{reason}: {number:,}" for reason, number in result.selection.left_out.items() if number) or "none"
    )
    model = _MODELS[result.labels.kind]
    grid = ", ".join(f"{value:g}" for value in settings.penalties)
    inner = (
        "on the validation part"
        if settings.validation
        else f"in {settings.inner_folds} grouped folds of the training part"
    )
    controls = ", ".join(control.name for control in result.controls) or "none"
    return [
        Item("1-4", "Title, abstract, background, objectives", AUTHOR),
        Item("5", "Data: source and dates", f"{AUTHOR} {OVERLAP}"),
        Item(
            "6",
            "Participants: setting, eligibility",
            f"{AUTHOR} Conditions of the command: {settings.where or 'none'}.",
        ),
        Item(
            "7",
            "Data preparation",
            "The settings of the run are in its run.json; features are standardised on the training part.",
        ),
        Item("8", "Outcome", f"{', '.join(result.labels.names)}: {result.labels.how}. {AUTHOR}"),
        Item("9", "Predictors", f"The embedding of a recording (features: {settings.features}); no other predictor."),
        Item("10", "Sample size", f"{len(data.Y):,} recordings of {n_patients:,} patients. {AUTHOR}"),
        Item(
            "11",
            "Missing data",
            f"A recording without a value of a label is left out for that label. Left out: {left}.",
        ),
        Item(
            "12",
            "Analytical methods",
            f"{model}; penalty chosen {inner} from C = {grid}; split: {settings.describe_split()}, by {unit}. "
            f"95 % intervals from {settings.n_draws:,} draws of patients of the test part. No class weights.",
        ),
        Item("13", "Class imbalance", "No weights and no resampling; the prevalence is in the table."),
        Item("14", "Fairness", f"Subgroups that were tested: {', '.join(settings.subgroups) or 'none'}. {AUTHOR}"),
        Item("15", "Model output", "Logits and probabilities; thresholds chosen without the test part."),
        Item("16", "Training versus evaluation", f"Separate {unit}; no patient is in both."),
        Item("17-19", "Ethics, open science, patient involvement", AUTHOR),
        Item(
            "20",
            "Participants in the results",
            f"Counts per label are in the table; fewer than {FEW_PATIENTS} are marked.",
        ),
        Item(
            "21",
            "Model development",
            f"Penalties: {', '.join(f'{value:g}' for value in result.final.C) if result.final else ''}.",
        ),
        Item("22", "Model specification", "probe.safetensors holds weights and intercepts, probe.json the thresholds."),
        Item("23", "Performance", f"With intervals in the table. Controls: {controls}."),
        Item("24", "Model updating", "Recalibration of logits." if settings.recalibrate else "None."),
        Item("25-27", "Interpretation, limitations, usability", AUTHOR),
    ]
