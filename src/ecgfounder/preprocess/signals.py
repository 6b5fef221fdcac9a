"""From a recording to network inputs: leads by name, 500 Hz, windows, and a recipe's filters and normalisation.

In: a `Recording` in mV at any sampling rate, and a `Preparation` that says what is to be done. Out: a `Signal`: float32
inputs [C, L] as the network takes them, with their places in time and the quality flags seen on the way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import has_signal
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import PrepareError
from ecgfounder.network.bundles import SAMPLES_PER_TOKEN
from ecgfounder.preprocess import quality
from ecgfounder.preprocess.lead_choice import ChosenLeads, choose_leads
from ecgfounder.preprocess.preparation import ALL_LEADS, Preparation
from ecgfounder.preprocess.recipes import LOWEST_SAMPLING_RATE, NETWORK_RATE, Samples
from ecgfounder.preprocess.windows import WindowInputs, cut_windows


@dataclass(frozen=True, eq=False)
class Signal:
    """Network inputs made from one recording.

    Attributes
    ----------
    inputs : sequence of numpy.ndarray
        float32 arrays [C, L], C-contiguous, in the order windows, then leads; C is 12, or 1 in mode "1lead". With
        windows they are made when they are taken, so that a recording of a day needs the memory of a window.
    outer_shape : tuple of int
        () for a single input; (W,) for windows in sequence; (n_leads,) for all leads; (W, n_leads) for both. Its
        product is the number of inputs.
    starts : tuple of float
        Each window's start in seconds from the start of the recording.
    leads : tuple of str
        The leads that went in, in order.
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
    chosen = choose_leads(recording, preparation)
    rate, target = recording.sampling_rate, preparation.recipe.sampling_rate
    samples, finite = _finite(chosen.samples)
    first, stop = _edges_off(samples, rate) if preparation.trim_zero_edges else (0, samples.shape[1])
    samples = samples[:, first:stop]
    length = round(samples.shape[1] * target / rate)
    spans, notes = cut_windows(length, preparation)
    used = samples[:, : math.ceil(spans[-1][1] * rate / target)]
    if not any(np.any(lead != lead[0]) for lead in used):
        raise PrepareError("the signal is constant: no lead moves at all")
    inputs = WindowInputs(samples, rate, length, tuple(spans), preparation)
    flags = [
        *chosen.flags,
        *([quality.flag("other_rate", recording.left_out)] if recording.left_out else []),
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


def _signal_flags(recording: Recording, chosen: ChosenLeads, used: Samples, first: int) -> list[str]:
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


def _resampling_flags(sampling_rate: float, preparation: Preparation) -> list[str]:
    target = preparation.recipe.sampling_rate
    if sampling_rate == target:
        return []
    flags = [quality.flag("resampled", (f"{sampling_rate:g}",))]
    # The polyphase filter removes what 500 Hz cannot hold; interpolation folds it back.
    if sampling_rate > target and preparation.resampling == "linear":
        flags.append("aliasing_possible")
    return flags


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
