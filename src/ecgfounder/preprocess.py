"""From a recording to network inputs: leads by name, 500 Hz, windows, and a recipe's filters and normalisation.

In: a `Recording` in mV at any sampling rate, and a `Preparation` that says what is to be done. Out: a `Signal`: float32
inputs [C, L] as the network takes them, with their places in time and the quality flags seen on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ecgfounder import quality
from ecgfounder.errors import PrepareError, SettingsError
from ecgfounder.recipes import (
    FILTERED,
    LOWEST_SAMPLING_RATE,
    NETWORK_RATE,
    PAPER,
    RECIPES,
    REMAINDER_CHOICES,
    ZSCORE,
    Butterworth,
    Filter,
    MedianBaseline,
    Notch,
    Recipe,
    Samples,
    Samples64,
    check_choice,
    check_windows,
)
from ecgfounder.recording import STANDARD_LEADS, Recording, canonical_lead, channel_label, has_signal, select_leads

__all__ = [
    "FILTERED",
    "PAPER",
    "RECIPES",
    "REMAINDER_CHOICES",
    "ZSCORE",
    "Butterworth",
    "Filter",
    "MedianBaseline",
    "Notch",
    "Preparation",
    "Recipe",
    "Signal",
    "prepare",
    "resample",
    "token_times",
]

TOKEN_STRIDE = 256
"""Samples of the input that one token of the feature map stands for (eight halvings)."""

MODE_CHOICES = ("12lead", "1lead")
MISSING_LEADS_CHOICES = ("fail", "zero")
RESAMPLING_CHOICES = ("linear", "polyphase")

ALL_LEADS = "all"
# Recordings longer than this, in seconds, are filtered block by block (recipes that filter before they cut). A block
# sees `FILTER_MARGIN` more on both sides, after which every filter here has died down below float32's rounding.
FILTER_BLOCK = 300.0
FILTER_MARGIN = 30.0
# Polyphase resampling takes the ratio of rates as a fraction with at most this denominator: 1e-8 off at worst.
_LARGEST_DENOMINATOR = 10_000
_POLYPHASE_HALF_LENGTH = 10  # in samples of the slower rate; scipy.signal.resample_poly's own choice


# --- settings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """What is done to each recording before the network.

    Attributes
    ----------
    mode : "12lead" or "1lead", the network.
    lead : for "1lead": a lead's name, or "all" (each lead of the recording on its own, in standard order).
    missing_leads : for "12lead": "fail" refuses a recording that lacks a lead, "zero" puts zeros in its place.
    resampling : "linear" interpolation, or "polyphase" filtering, to the recipe's sampling rate.
    recipe : filters and normalisation; see `Recipe`.
    window : length of the network's input in seconds; None takes the windows that the recipe brings, if any, and else
        the whole recording.
    stride : seconds from the start of one window to the next; None takes one window, from the start of the recording.
    remainder : what happens to a last window that the recording does not fill: "drop", "pad" (zeros after it) or
        "keep" (shorter than the others). A recording shorter than one window fails under "drop". None takes the
        recipe's own choice, "drop" for most.
    trim_zero_edges : whether stretches of zeros at the start and end of the recording are taken off first.

    `window`, `stride` and `remainder` hold what applies once the object is made: a recipe's own windows are filled in.

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
        """What decides the result, as JSON-able values; settings without effect are null and so cannot differ."""
        return {
            "mode": self.mode,
            "lead": self.lead if self.mode == "1lead" else None,
            "missing_leads": self.missing_leads if self.mode == "12lead" else None,
            "resampling": self.resampling,
            "recipe": self.recipe.definition(),
            "window": self.window,
            "stride": self.stride,
            "remainder": self.remainder if self.window is not None else None,
            "trim_zero_edges": bool(self.trim_zero_edges),
        }


# --- signals ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Signal:
    """Network inputs made from one recording.

    Attributes
    ----------
    inputs : float32 arrays [C, L], C-contiguous, in the order windows, then leads; C is 12, or 1 in mode "1lead". With
        windows they are made when they are taken, so that a recording of a day needs the memory of a window.
    outer_shape : () for a single input; (W,) for windows in sequence; (n_leads,) for all leads; (W, n_leads) for both.
        Its product is the number of inputs.
    starts : each window's start in seconds from the start of the recording.
    leads : the leads that went in, in order.
    flags : quality flags, "name" or "name:detail"; `ecgfounder.quality.FLAGS` defines them.
    sampling_rate : of the inputs, in Hz.
    """

    inputs: Sequence[Samples]
    outer_shape: tuple[int, ...]
    starts: tuple[float, ...]
    leads: tuple[str, ...]
    flags: tuple[str, ...]
    sampling_rate: float = NETWORK_RATE


def prepare(recording: Recording, preparation: Preparation) -> Signal:
    """Turn a recording into network inputs.

    Leads are taken by name and derived where that is possible; non-finite samples become 0; zeros at the edges are
    trimmed if asked for; then resampling, windows, filters and normalisation as the preparation says.

    Raises
    ------
    PrepareError
        If a lead that is needed is missing, the recording is constant, too short, or of an unusable sampling rate.
    """
    if recording.sampling_rate < LOWEST_SAMPLING_RATE:
        raise PrepareError(
            f"sampling rate of {recording.sampling_rate:g} Hz; an ECG needs at least {LOWEST_SAMPLING_RATE:g} Hz"
        )
    chosen = _choose_leads(recording, preparation)
    rate, target = recording.sampling_rate, preparation.recipe.sampling_rate
    samples, finite = _finite(chosen.samples)
    first, stop = _edges_off(samples, rate) if preparation.trim_zero_edges else (0, samples.shape[1])
    samples = samples[:, first:stop]
    length = round(samples.shape[1] * target / rate)
    spans, notes = _cut(length, preparation)
    used = samples[:, : math.ceil(spans[-1][1] * rate / target)]
    if not any(np.any(lead != lead[0]) for lead in used):
        raise PrepareError("the signal is constant: no lead moves at all")
    inputs = _Inputs(samples, rate, length, tuple(spans), preparation)
    flags = [
        *chosen.flags,
        *([] if finite is None else quality.share_of_non_finite(finite[:, first : first + used.shape[1]])),
        *_signal_flags(recording, chosen, used, first),
        *_resampling_flags(rate, preparation),
        *notes,
        *(inputs.constant_windows() if preparation.stride is not None else ()),
    ]
    outer: tuple[int, ...] = (len(spans),) if preparation.stride is not None else ()
    if preparation.mode == "1lead" and preparation.lead == ALL_LEADS:
        outer += (len(chosen.leads),)
    return Signal(
        inputs=inputs if preparation.stride is not None else tuple(inputs),
        outer_shape=outer,
        starts=tuple(start / target + first / rate for start, _stop in spans),
        leads=chosen.leads,
        flags=tuple(flags),
        sampling_rate=target,
    )


def _finite(samples: Samples) -> tuple[Samples, npt.NDArray[np.bool_] | None]:
    """Samples with zeros for what is not finite, and where they were finite; None if they were everywhere."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(samples.sum()):  # as nearly always, at a tenth of the time of a look at each
            return samples, None
    finite = np.isfinite(samples)
    return (samples, None) if finite.all() else (np.where(finite, samples, np.float32(0)), finite)


def _edges_off(samples: Samples, sampling_rate: float) -> tuple[int, int]:
    """First sample and end of what lies between zero-padded edges."""
    before, after = quality.zero_edges(samples, sampling_rate)
    return before, samples.shape[1] - after


def _signal_flags(recording: Recording, chosen: _Chosen, used: Samples, first: int) -> list[str]:
    """What `quality` sees in the samples that go in, and in the limb leads where they do not all go in."""
    rows = used if len(chosen.present) == len(used) else used[list(chosen.present)]
    leads = tuple(chosen.leads[row] for row in chosen.present)
    flags = quality.assess(rows, leads, recording.sampling_rate, derived=chosen.derived)
    if len(leads) == 1 and len(recording.leads) > 1:
        start, stop = quality.between_pulses(rows, leads, recording.sampling_rate)
        flags += _limb_lead_flags(recording, first + start, first + stop)
    return flags


def _limb_lead_flags(recording: Recording, start: int, stop: int) -> list[str]:
    """Flags of the limb leads that are in the recording, whichever lead goes in: lead I itself may be another one."""
    row_of = {lead: row for row, lead in enumerate(recording.leads) if lead in quality.LIMB_LEADS_AND_V6}
    row_of = {lead: row for lead, row in row_of.items() if has_signal(recording.samples[row])}
    stop = min(stop, start + round(quality.LIMB_SECONDS * recording.sampling_rate))
    part, _where = _finite(recording.samples[list(row_of.values()), start:stop])
    return quality.limb_lead_flags(part, tuple(row_of), recording.sampling_rate)


@dataclass(frozen=True)
class _Chosen:
    """Leads for the network, before anything is done to them; `present` are the rows that hold a signal."""

    samples: Samples
    leads: tuple[str, ...]
    present: tuple[int, ...]
    derived: tuple[str, ...]
    flags: tuple[str, ...]


def _choose_leads(recording: Recording, preparation: Preparation) -> _Chosen:
    if preparation.mode == "12lead":
        return _twelve_leads(recording, preparation.missing_leads)
    if preparation.lead == ALL_LEADS:
        return _every_lead(recording)
    return _one_lead(recording, preparation.lead)


def _twelve_leads(recording: Recording, missing_leads: str) -> _Chosen:
    selection = select_leads(recording)
    flags: list[str] = []
    if selection.missing:
        if missing_leads == "fail" or len(selection.missing) == len(STANDARD_LEADS):
            raise PrepareError(
                f"missing leads {', '.join(selection.missing)}: absent, or without any signal; the recording has "
                f"{_leads_of(recording)}" + ("" if missing_leads == "zero" else " (--missing_leads zero goes on)")
            )
        flags.append(quality.flag("missing_leads", selection.missing))
    present = tuple(row for row, lead in enumerate(selection.leads) if lead not in selection.missing)
    return _Chosen(selection.samples, selection.leads, present, selection.derived, tuple(flags))


def _every_lead(recording: Recording) -> _Chosen:
    """The standard leads that are there or can be derived, in their order, then the others in the recording's order."""
    others = tuple(lead for lead in recording.leads if lead not in STANDARD_LEADS)
    selection = select_leads(recording, STANDARD_LEADS + others)
    present = [row for row, lead in enumerate(selection.leads) if lead not in selection.missing]
    if not present:
        raise PrepareError("no lead holds any signal")
    labels = tuple(channel_label(recording, selection.leads[row]) for row in present)
    return _Chosen(selection.samples[present], labels, tuple(range(len(present))), selection.derived, ())


def _one_lead(recording: Recording, lead: str) -> _Chosen:
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
    return _Chosen(samples, (label,), (0,), derived, tuple(flags))


def _leads_of(recording: Recording) -> str:
    """The recording's lead names for a message; names that are not known leads are counted, as they are free text."""
    labels = [lead for lead in recording.leads if channel_label(recording, lead) == lead]
    unknown = len(recording.leads) - len(labels)
    return ", ".join(labels + ([f"{unknown} of unknown name"] if unknown else []))


def _resampling_flags(sampling_rate: float, preparation: Preparation) -> list[str]:
    target = preparation.recipe.sampling_rate
    if sampling_rate == target:
        return []
    flags = [quality.flag("resampled", (f"{sampling_rate:g}",))]
    # The polyphase filter removes what 500 Hz cannot hold; interpolation folds it back.
    if sampling_rate > target and preparation.resampling == "linear":
        flags.append("aliasing_possible")
    return flags


# --- resampling ------------------------------------------------------------------------------------------------------


def resample(
    samples: Samples,
    sampling_rate: float,
    target: float = NETWORK_RATE,
    *,
    method: str = "linear",
    start: int = 0,
    stop: int | None = None,
) -> Samples:
    """Samples [n_leads, n] at `sampling_rate` Hz as they are at `target` Hz.

    The result has round(n * target / sampling_rate) samples, the k-th at time k / target; beyond the last sample that
    was recorded, it is held. `start` and `stop` ask for a piece of the result without computing the rest.

    Parameters
    ----------
    method : "linear": interpolation between the two neighbours, so that halving the rate takes every second sample.
        "polyphase": `scipy.signal.resample_poly` with its default filter, which takes out what the new rate cannot
        hold.

    Returns
    -------
    float32 array [n_leads, stop - start].
    """
    length = round(samples.shape[1] * target / sampling_rate)
    stop = length if stop is None else min(stop, length)
    if sampling_rate == target:
        return samples[:, start:stop]
    if method == "polyphase":
        return _polyphase(samples, sampling_rate, target, start, stop)
    ratio = sampling_rate / target
    if ratio == int(ratio):
        step = int(ratio)
        return samples[:, start * step : (stop - 1) * step + 1 : step]
    last = samples.shape[1] - 1
    position = np.minimum(np.arange(start, stop) * sampling_rate / target, last)
    left = position.astype(np.int64)
    share = position - left
    here, after = samples[:, left], samples[:, np.minimum(left + 1, last)]
    return np.asarray(here * (1.0 - share) + after * share, dtype=np.float32)


def _polyphase(samples: Samples, sampling_rate: float, target: float, start: int, stop: int) -> Samples:
    """Outputs [start, stop) of the polyphase filter, from the inputs that they depend on alone."""
    from scipy.signal import resample_poly

    ratio = (Fraction(target) / Fraction(sampling_rate)).limit_denominator(_LARGEST_DENOMINATOR)
    up, down = ratio.numerator, ratio.denominator
    # Pieces begin where an output falls on an input (every `up` outputs, `down` inputs), so that phases agree.
    reach = math.ceil(_POLYPHASE_HALF_LENGTH * max(up, down) / up) + 1
    margin = math.ceil(reach / down)
    first = max(0, start // up - margin)
    end = min(samples.shape[1], math.ceil(stop * down / up) + reach)
    piece = samples[:, first * down : end].astype(np.float64)
    out = resample_poly(piece, up, down, axis=-1, padtype="edge")[:, start - first * up : stop - first * up]
    # A rate that is no small fraction of the target can leave the filter's output short of a sample at the end.
    short = stop - start - out.shape[1]
    if short > 0:
        out = np.pad(out, ((0, 0), (0, short)), mode="edge")
    return np.asarray(out, dtype=np.float32)


# --- windows ---------------------------------------------------------------------------------------------------------

Span = tuple[int, int]


def _cut(length: int, preparation: Preparation) -> tuple[list[Span], list[str]]:
    """Where windows begin and end in samples of the network's input, of which the recording has `length`.

    The last one may end beyond `length` (remainder "pad") or be shorter than the others ("keep").
    """
    rate = preparation.recipe.sampling_rate
    least = preparation.recipe.minimum_samples()
    if length < least:
        raise PrepareError(
            f"{length / rate:g} s are too short: recipe {preparation.recipe.name!r} needs {least / rate:g} s"
        )
    window, stride = preparation.window_samples, preparation.stride_samples
    if window is None:
        return [(0, length)], []
    if stride is None:
        spans = [(0, window)] if length >= window else []
    else:
        spans = [(start, start + window) for start in range(0, length - window + 1, stride)]
    next_start = 0 if not spans else (spans[-1][0] + stride if stride is not None else length)
    covered = spans[-1][1] if spans else 0
    if length <= covered or next_start >= length:
        return spans, []
    notes = _add_remainder(spans, (next_start, length), preparation)
    if not spans:
        raise PrepareError(
            f"{length / rate:g} s are shorter than one window of {preparation.window:g} s "
            f"(--remainder pad or keep goes on)"
        )
    return spans, notes


def _add_remainder(spans: list[Span], rest: Span, preparation: Preparation) -> list[str]:
    """Append a last window for what the others leave, as `remainder` says; the flags that this calls for."""
    start, length = rest
    rate, window = preparation.recipe.sampling_rate, preparation.window_samples
    if preparation.remainder == "drop" or window is None:
        return []
    if preparation.recipe.filter_scope == "window" and length - start < preparation.recipe.minimum_samples():
        return [quality.flag("remainder_dropped", (f"{(length - start) / rate:g}",))]
    if preparation.remainder == "keep":
        spans.append(rest)
        return []
    spans.append((start, start + window))
    return [quality.flag("zero_padded", (f"{(start + window - length) / rate:g}",))]


@dataclass(eq=False)
class _Inputs(Sequence[Samples]):
    """The network's inputs, each made when it is taken; `samples` are finite, at the recording's own rate."""

    samples: Samples
    sampling_rate: float
    length: int
    spans: tuple[Span, ...]
    preparation: Preparation
    _block: tuple[int, Samples64] | None = field(default=None, init=False, repr=False)

    @property
    def per_window(self) -> int:
        return len(self.samples) if self.preparation.mode == "1lead" else 1

    def __len__(self) -> int:
        return len(self.spans) * self.per_window

    @overload
    def __getitem__(self, index: int) -> Samples: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Samples, ...]: ...
    def __getitem__(self, index: int | slice) -> Samples | tuple[Samples, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        number, lead = divmod(range(len(self))[index], self.per_window)
        rows = slice(None) if self.preparation.mode == "12lead" else slice(lead, lead + 1)
        return self._input(rows, self.spans[number])

    def _input(self, rows: slice, span: Span) -> Samples:
        start, stop = span
        recipe = self.preparation.recipe
        end = min(stop, self.length)
        if not recipe.filters:
            cut: npt.NDArray[Any] = self._resampled(rows, start, end)
        elif recipe.filter_scope == "window":
            cut = recipe.filtered(self._resampled(rows, start, end))
        else:
            cut = self._filtered_before(rows, start, end)
        if stop > end:
            cut = np.pad(cut, ((0, 0), (0, stop - end)))
        return recipe.normalized(cut)

    def _filtered_before(self, rows: slice, start: int, end: int) -> Samples64:
        """[start, end) of the filtered recording, from a block of it that is kept for the windows that follow."""
        recipe = self.preparation.recipe
        first, last = 0, self.length
        window = self.preparation.window_samples
        if window is not None and self.length > FILTER_BLOCK * recipe.sampling_rate:
            block, margin = (round(seconds * recipe.sampling_rate) for seconds in (FILTER_BLOCK, FILTER_MARGIN))
            number = start // block  # by the window's start alone, so that it does not matter which window is first
            first = max(0, number * block - margin)
            last = min(self.length, (number + 1) * block + window + margin)
        if self._block is None or self._block[0] != first:
            self._block = first, recipe.filtered(self._resampled(slice(None), first, last))
        return self._block[1][rows, start - first : end - first]

    def constant_windows(self) -> list[str]:
        """A flag with the number of windows in which no lead moves; their input is all zeros."""
        ratio = self.sampling_rate / self.preparation.recipe.sampling_rate
        count = 0
        for start, stop in self.spans:
            part = self.samples[:, round(start * ratio) : max(round(stop * ratio), round(start * ratio) + 1)]
            count += not any(np.any(lead != lead[0]) for lead in part)
        return [quality.flag("constant_windows", (str(count),))] if count else []

    def _resampled(self, rows: slice, start: int, stop: int) -> Samples:
        return resample(
            self.samples[rows],
            self.sampling_rate,
            self.preparation.recipe.sampling_rate,
            method=self.preparation.resampling,
            start=start,
            stop=stop,
        )


def token_times(T: int, window_start: float = 0.0) -> npt.NDArray[np.float64]:
    """Place of each of `T` tokens in seconds: the centre of the 256 samples at 500 Hz that it stands for.

    Token t is what eight halvings (a convolution of stride 2, then seven max-pools of 2 along the identity path) leave of
    samples 256 t to 256 t + 255, so its centre is at (256 t + 127.5) / 500 s, 512 ms after the one before; its stretch
    starts 255 ms earlier. That is its place, not all that it sees: the convolutions of 16 samples at each level add up to
    24,406 samples (49 s), and squeeze-and-excitation averages over the whole window, so that every token of a 10 s
    window depends on all of it. The last token of a window whose length is no multiple of 256 samples reaches beyond its
    end, where the network sees zeros.

    Parameters
    ----------
    T : number of tokens, ceil(n_samples / 256).
    window_start : the window's start in seconds (`Signal.starts`).

    Returns
    -------
    float64 array [T], in seconds from the start of the recording.
    """
    return window_start + (np.arange(T, dtype=np.float64) * TOKEN_STRIDE + (TOKEN_STRIDE - 1) / 2) / NETWORK_RATE
