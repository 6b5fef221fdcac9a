"""Settings of the preparation, as one frozen object.

In: choices, from the command line or from Python. Out: a checked `Preparation`, and its part of a run's fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ecgfounder.checks import check_choice
from ecgfounder.ecg.leads import canonical_lead
from ecgfounder.errors import SettingsError
from ecgfounder.preprocess.recipes import RECIPES, ZSCORE, Recipe, check_windows
from ecgfounder.preprocess.resampling import POLYPHASE_VERSION

MODE_CHOICES = ("12lead", "1lead")
MISSING_LEADS_CHOICES = ("fail", "zero")
RESAMPLING_CHOICES = ("linear", "polyphase")

ALL_LEADS = "all"

ZERO_LEADS_VERSION = 2
"""Version of `missing_leads="zero"`, part of a run's fingerprint. In version 1 the normalisation changed the zeros."""


@dataclass(frozen=True)
class Preparation:
    """How each recording is prepared for the network.

    The recipe's default windows are filled in, so that `window`, `stride` and `remainder` are the values in use.

    Attributes
    ----------
    mode : str
        "12lead" or "1lead", the network.
    lead : str
        For "1lead": a lead's name, or "all" (each lead of the recording separately, in standard order).
    missing_leads : str
        For "12lead": "fail" refuses a recording without all leads; with "zero" the network's input has zeros for a missing
        lead, and the normalisation uses the other leads only.
    resampling : str
        "linear" interpolation, or "polyphase" filtering, to the recipe's sampling rate.
    recipe : Recipe
        Filters and normalisation; see `Recipe`.
    window : float or None
        Length of the network's input in seconds; None for the recipe's default windows, or the whole recording if it has
        none.
    stride : float or None
        Seconds from the start of one window to the next; None for one window, at the start of the recording.
    remainder : str or None
        What happens to an incomplete last window: "drop", "pad" (zeros after it) or "keep" (shorter than the others). With
        "drop", a recording shorter than one window fails. None for the recipe's default, which is "drop" for most.
    trim_zero_edges : bool
        Whether zeros at the start and end of the recording are removed first.

    Raises
    ------
    SettingsError
        If a value is not among the allowed ones.
    """

    mode: str = "12lead"
    lead: str = "I"
    missing_leads: str = "fail"
    resampling: str = "linear"
    recipe: Recipe = ZSCORE
    window: float | None = None
    stride: float | None = None
    remainder: str | None = None
    trim_zero_edges: bool = False

    def __post_init__(self) -> None:
        check_choice("mode", self.mode, MODE_CHOICES)
        check_choice("missing_leads", self.missing_leads, MISSING_LEADS_CHOICES)
        check_choice("resampling", self.resampling, RESAMPLING_CHOICES)
        if not isinstance(self.recipe, Recipe):
            raise SettingsError(
                f"Invalid value for the 'recipe' parameter. It must be a Recipe, such as one of ecgfounder.preprocess."
                f"RECIPES ({', '.join(RECIPES)}), but got {self.recipe!r} instead."
            )
        if not self.lead.strip():
            raise SettingsError(
                "Invalid value for the 'lead' parameter. It must be a lead's name or 'all', but got ''."
            )
        lead = ALL_LEADS if self.lead.strip().lower() == ALL_LEADS else canonical_lead(self.lead)
        resolved: dict[str, Any] = {"lead": lead, "remainder": self.remainder or self.recipe.remainder}
        if self.window is None:
            resolved["window"] = self.recipe.window
            resolved["stride"] = self.recipe.stride if self.stride is None else self.stride
        for name, value in resolved.items():
            object.__setattr__(self, name, value)
        check_windows(self.window, self.stride, self.remainder, self.recipe.sampling_rate)
        for name in ("window", "stride"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else float(value))
        if self.window_samples is not None and self.window_samples < self.recipe.minimum_samples():
            raise SettingsError(
                f"Invalid value for the 'window' parameter. Recipe {self.recipe.name!r} needs at least "
                f"{self.recipe.minimum_samples() / self.recipe.sampling_rate:g} s, but got {self.window} s instead."
            )

    @property
    def window_samples(self) -> int | None:
        """Length of a window in samples of the network's input; None for the whole recording."""
        return None if self.window is None else round(self.window * self.recipe.sampling_rate)

    @property
    def stride_samples(self) -> int | None:
        """Samples of the network's input from one window's start to the next; None for a single window."""
        return None if self.stride is None else round(self.stride * self.recipe.sampling_rate)

    def fingerprint(self) -> dict[str, Any]:
        """What affects the result, as JSON-serialisable values; settings without effect are null and cannot differ."""
        zero = f"zero v{ZERO_LEADS_VERSION}"
        polyphase = f"polyphase v{POLYPHASE_VERSION}"
        return {
            "mode": self.mode,
            "lead": self.lead if self.mode == "1lead" else None,
            "missing_leads": {"zero": zero}.get(self.missing_leads, self.missing_leads)
            if self.mode == "12lead"
            else None,
            "minus_aVR": "used" if self.mode == "12lead" or self.lead in (ALL_LEADS, "aVR") else None,
            "resampling": {"polyphase": polyphase}.get(self.resampling, self.resampling),
            "recipe": self.recipe.definition(),
            "window": self.window,
            "stride": self.stride,
            "remainder": self.remainder if self.window is not None else None,
            "trim_zero_edges": bool(self.trim_zero_edges),
        }


def chosen_preparation(mode: str, given: Preparation | None, choices: Mapping[str, Any]) -> Preparation:
    """The preparation that is given, or one that is made from single choices.

    Parameters
    ----------
    mode : str
        "12lead" or "1lead".
    given : Preparation or None
        A preparation; None to make one from the choices.
    choices : mapping of str to Any
        The other parameters of `Preparation`; None stands for the default. `recipe` may be a name. `window` may be "whole", for
        no windows even if the recipe has default windows.

    Raises
    ------
    SettingsError
        If a choice is unknown, or choices contradict each other.
    """
    made = {name: value for name, value in choices.items() if value is not None}
    check_choice("mode", mode, MODE_CHOICES)
    if given is not None:
        if made:
            raise SettingsError(
                f"The 'preparation' parameter contains all settings of the signal: put {', '.join(made)} into it "
                "(dataclasses.replace), or leave it out."
            )
        if given.mode != mode:
            raise SettingsError(
                f"mode {mode!r} contradicts the preparation's mode {given.mode!r}: both must be the same."
            )
        return given
    recipe = made.pop("recipe", ZSCORE)
    if isinstance(recipe, str):
        check_choice("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe]
    if made.get("window") == "whole":
        del made["window"]
        recipe = replace(recipe, window=None, stride=None)
    return Preparation(mode=mode, recipe=recipe, **made)


def preparation_from(fingerprint: Mapping[str, Any]) -> Preparation | None:
    """The preparation with a fingerprint; None if it has a user's own recipe, or is of a version that computes otherwise."""
    recipe = RECIPES.get(fingerprint.get("recipe", {}).get("name"))
    if recipe is None:
        return None
    try:
        made = Preparation(
            mode=fingerprint["mode"],
            lead=fingerprint["lead"] or "I",
            missing_leads=(fingerprint["missing_leads"] or "fail").partition(" ")[0],
            resampling=fingerprint["resampling"].partition(" ")[0],
            recipe=recipe,
            window=fingerprint["window"],
            stride=fingerprint["stride"],
            remainder=fingerprint["remainder"],
            trim_zero_edges=fingerprint["trim_zero_edges"],
        )
    except (KeyError, AttributeError, TypeError, SettingsError):
        return None
    return made if made.fingerprint() == fingerprint else None
