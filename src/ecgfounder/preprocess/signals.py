"""Preparation of a recording: leads by name, 500 Hz, windows, and a recipe's filters and normalisation.

In: a `Recording` in mV at any sampling rate, and a `Preparation` with the settings. Out: a `Signal`: float32 inputs [C, L] for
the network, with their times and quality flags.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import has_signal
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import PrepareError
from ecgfounder.escaping import counted, facts_as_html
from ecgfounder.network.bundles import SAMPLES_PER_TOKEN
from ecgfounder.preprocess import quality
from ecgfounder.preprocess.amplitudes import Extremes
from ecgfounder.preprocess.calibration import without_pulses
from ecgfounder.preprocess.lead_choice import ChosenLeads, choose_leads
from ecgfounder.preprocess.limb_leads import LIMB_LEADS_AND_V6, LIMB_SECONDS
from ecgfounder.preprocess.preparation import ALL_LEADS, Preparation
from ecgfounder.preprocess.recipes import LOWEST_SAMPLING_RATE, NETWORK_RATE, Empty, Samples, anywhere
from ecgfounder.preprocess.screening import Screening, screen
from ecgfounder.preprocess.windows import Span, WindowInputs, cut_windows

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Signal:
    """Network inputs made from one recording.

    Attributes
    ----------
    inputs : sequence of numpy.ndarray
        float32 arrays [C, L], C-contiguous, in the order windows, then leads; C is 12, or 1 in mode "1lead". Windows in
        sequence are made when they are accessed, so that a 24-hour recording needs the memory of one window.
    outer_shape : tuple of int
        () for a single input; (W,) for windows in sequence; (n_leads,) for all leads; (W, n_leads) for both. The
        product is the number of inputs.
    starts : tuple of float
        Each window's start in seconds from the start of the recording.
    leads : tuple of str
        The leads of the inputs, in order.
    flags : tuple of str
        Quality flags, "name" or "name:detail"; `ecgfounder.quality.FLAGS` defines them.
    sampling_rate : float
        Of the inputs, in Hz.
    """

    inputs: Sequence[Samples]
    outer_shape: tuple[int, ...]
    starts: tuple[float, ...]
    leads: tuple[str, ...]
    flags: tuple[str, ...]
    sampling_rate: float = NETWORK_RATE

    def __repr__(self) -> str:
        return f"<Signal: {', '.join(text for _, text in self._facts())}>"

    def _repr_html_(self) -> str:
        return facts_as_html("Signal", self._facts())

    def _facts(self) -> list[tuple[str, str]]:
        """What a reader wants to know first, by name; no input is made for it."""
        n_leads = 1 if len(self.inputs) > len(self.starts) else len(self.leads)
        return [
            (
                "inputs",
                f"{counted(len(self.inputs), 'input')} of {counted(n_leads, 'lead')} at {self.sampling_rate:g} Hz",
            ),
            ("leads", " ".join(self.leads)),
            ("flags", f"flags {' '.join(self.flags)}" if self.flags else "no flags"),
        ]


def prepare(recording: Recording, preparation: Preparation, empty: Empty = anywhere) -> Signal:
    """Turn a recording into network inputs, in memory of `empty` where they can be made there.

    Leads are selected by name and derived if possible; non-finite samples are replaced by 0; zeros at the edges are removed if
    requested; then come resampling, windows, filters and normalisation as the preparation says. Leads that are missing are zeros
    in the inputs, and do not take part in the normalisation.

    Raises
    ------
    PrepareError
        If a lead is missing, or the recording is constant, too short, or of an unusable sampling rate.
    """
    if recording.sampling_rate < LOWEST_SAMPLING_RATE:
        raise PrepareError(
            f"sampling rate of {recording.sampling_rate:g} Hz; an ECG needs at least {LOWEST_SAMPLING_RATE:g} Hz"
        )
    chosen = choose_leads(recording, preparation)
    rate, target = recording.sampling_rate, preparation.recipe.sampling_rate
    whole, finite = _finite(chosen.samples)
    first, stop = _edges_off(whole, rate) if preparation.trim_zero_edges else (0, whole.shape[1])
    samples = whole[:, first:stop]
    length = round(samples.shape[1] * target / rate)
    spans, notes = cut_windows(length, preparation)
    used = samples[:, : math.ceil(spans[-1][1] * rate / target)]
    if not any(_moves(lead) for lead in used):
        raise PrepareError("the signal is constant: no lead moves")
    inputs = WindowInputs(samples, rate, length, tuple(spans), preparation, chosen.present, empty)
    seen = (first, first + used.shape[1])
    present = _with_signal(chosen, whole)
    screened = _screened(chosen, present, rate, seen, preparation)
    edges = Extremes(present, rate)
    flags = [
        *chosen.flags,
        *([quality.flag("other_rate", recording.left_out)] if recording.left_out else []),
        *([quality.flag("upsampled_leads", recording.upsampled)] if recording.upsampled else []),
        *(["unverified_format"] if recording.is_unverified else []),
        *(["repaired_xml"] if recording.is_repaired else []),
        *([] if finite is None else quality.share_of_non_finite(finite[:, slice(*seen)])),
        *_signal_flags(recording, chosen, present, seen, edges, screened),
        *_baseline_flags(present, rate, seen, spans, preparation, edges, screened),
        *quality.resampling_flags(rate, target, preparation.resampling),
        *notes,
        *(inputs.constant_windows() if preparation.stride is not None else ()),
    ]
    outer: tuple[int, ...] = (len(spans),) if preparation.stride is not None else ()
    if preparation.mode == "1lead" and preparation.lead == ALL_LEADS:
        outer += (len(chosen.leads),)
    return Signal(
        inputs=inputs if preparation.stride is not None else inputs[:],
        outer_shape=outer,
        starts=tuple(start / target + first / rate for start, _stop in spans),
        leads=chosen.leads,
        flags=tuple(flags),
        sampling_rate=target,
    )


def _moves(lead: Samples) -> bool:
    """Whether a lead has two values."""
    first = lead[:16].tolist()
    return first.count(first[0]) < len(first) or bool(np.any(lead != lead[0]))


def _finite(samples: Samples) -> tuple[Samples, npt.NDArray[np.bool_] | None]:
    """Samples with zeros instead of what is not finite, and where they were finite; None if all were."""
    if _passes is not None and samples.dtype == np.float32 and _passes.all_finite(samples):
        return samples, None
    finite = np.isfinite(samples)
    return (samples, None) if finite.all() else (np.where(finite, samples, np.float32(0)), finite)


def _edges_off(samples: Samples, sampling_rate: float) -> tuple[int, int]:
    """First sample and end of the part between zero-padded edges."""
    before, after = quality.zero_edges(samples, sampling_rate)
    return before, samples.shape[1] - after


def _screened(
    chosen: ChosenLeads, rows: Samples, sampling_rate: float, seen: Span, preparation: Preparation
) -> Screening:
    """What a quick look at the samples in the input says, `rows` of the leads with a signal."""
    part, leads = rows[:, slice(*seen)], _names(chosen)
    found = screen(part, leads, sampling_rate, chosen.derived, per_lead=_is_alone(preparation))
    if found.is_unremarkable and part.shape != rows.shape and quality.pulses_within(rows, leads, sampling_rate, seen):
        return replace(found, is_unremarkable=False)  # a pulse that the input's end cuts off
    return found


def _is_unremarkable(part: Samples, leads: tuple[str, ...], sampling_rate: float, derived: tuple[str, ...]) -> bool:
    return screen(part, leads, sampling_rate, derived, per_lead=None).is_unremarkable


def _names(chosen: ChosenLeads) -> tuple[str, ...]:
    """Names of the leads that are not missing."""
    return chosen.leads if len(chosen.present) == len(chosen.leads) else tuple(chosen.leads[i] for i in chosen.present)


def _is_alone(preparation: Preparation) -> bool:
    """Whether each lead is normalised by itself."""
    return preparation.recipe.normalization == "zscore_per_lead" or preparation.mode == "1lead"


def _signal_flags(
    recording: Recording, chosen: ChosenLeads, rows: Samples, seen: Span, edges: Extremes, screened: Screening
) -> list[str]:
    """The flags of the samples in the input, `rows` of the leads with a signal, and of limb leads even if they are not in it."""
    leads = _names(chosen)
    if screened.is_unremarkable:
        flags = quality.derived_flags(chosen.derived)
    else:
        rate, derived = recording.sampling_rate, chosen.derived
        flags = quality.assess(
            rows, leads, rate, derived, seen, edges, lambda part: _is_unremarkable(part, leads, rate, derived)
        )
    if len(leads) == 1 and len(recording.leads) > 1:
        pulses = quality.pulses_within(rows, leads, recording.sampling_rate, seen)
        flags += _limb_lead_flags(recording, *without_pulses(rows, pulses, *seen))
    return flags


def _with_signal(chosen: ChosenLeads, samples: Samples) -> Samples:
    """The rows of the leads that are not missing."""
    return samples if len(chosen.present) == len(samples) else samples[list(chosen.present)]


def _limb_lead_flags(recording: Recording, start: int, stop: int) -> list[str]:
    """Flags of the limb leads in the recording, whichever lead is the input: the lead called I may be another one."""
    row_of = {lead: row for row, lead in enumerate(recording.leads) if lead in LIMB_LEADS_AND_V6}
    row_of = {lead: row for lead, row in row_of.items() if has_signal(recording.samples[row])}
    stop = min(stop, start + round(LIMB_SECONDS * recording.sampling_rate))
    part, _where = _finite(recording.samples[list(row_of.values()), start:stop])
    return quality.limb_lead_flags(part, tuple(row_of), recording.sampling_rate)


def _baseline_flags(
    samples: Samples,
    rate: float,
    seen: Span,
    spans: Sequence[Span],
    preparation: Preparation,
    edges: Extremes,
    screened: Screening,
) -> list[str]:
    """The flag for a baseline that dominates the normalisation, if the recipe leaves the baseline in the signal."""
    recipe = preparation.recipe
    if recipe.normalization == "none" or not recipe.keeps_baseline:
        return []
    used = samples[:, slice(*seen)]
    ratio = rate / recipe.sampling_rate
    places = [(round(start * ratio), min(round(stop * ratio), used.shape[1])) for start, stop in spans]
    if screened.has_small_baseline and places == [(0, used.shape[1])]:
        return []
    return quality.baseline_flags(used, rate, places, per_lead=_is_alone(preparation), edges=edges.of(*seen))


def token_times(T: int, window_start: float = 0.0) -> npt.NDArray[np.float64]:
    """Time of each of `T` tokens in seconds: the centre of its 256 samples at 500 Hz.

    The network halves the time axis eight times (a convolution of stride 2, then seven max-pools of 2 along the identity path),
    so that token t stands for samples 256 t to 256 t + 255. Its centre is at (256 t + 127.5) / 500 s; tokens are 512 ms apart.
    This is the token's position, not its receptive field: the convolutions of 16 samples at each level add up to 24,406 samples
    (49 s), and squeeze-and-excitation averages over the whole window, so that every token of a 10 s window depends on all of it.
    If the length of a window is not a multiple of 256 samples, its last token extends beyond the end, where the network sees
    zeros.

    Parameters
    ----------
    T : int
        Number of tokens, ceil(n_samples / 256).
    window_start : float, default: 0.0
        The window's start in seconds (`Signal.starts`).

    Returns
    -------
    numpy.ndarray
        float64 [T], in seconds from the start of the recording.
    """
    return (
        window_start + (np.arange(T, dtype=np.float64) * SAMPLES_PER_TOKEN + (SAMPLES_PER_TOKEN - 1) / 2) / NETWORK_RATE
    )
