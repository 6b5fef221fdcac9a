"""Quality flags: signs that a recording, or what was done to it, should be checked.

In: the samples that are the network's input, in mV at the recording's sampling rate. Out: flags, "name" or "name:detail"; `FLAGS`
defines each name with its threshold. A flag never changes a sample and never makes a recording fail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess.amplitudes import BLOCK, Extremes, extremes_by, resolution
from ecgfounder.preprocess.baseline import SMOOTHING, ecg_shares, may_dominate
from ecgfounder.preprocess.calibration import (
    PULSE,
    PULSE_LONGEST,
    PULSE_RIPPLE,
    PULSE_RISE,
    PULSE_SHORTEST,
    Pulse,
    calibration_pulses,
    still_samples,
    without_pulses,
)
from ecgfounder.preprocess.dead_leads import DEAD_MOVES, FEWEST_BEATS, dead_leads
from ecgfounder.preprocess.limb_leads import (
    DEVIATION,
    DEVIATION_SHARE,
    DOMINANCE,
    LIMB_LEADS_AND_V6,
    LIMB_SECONDS,
    NO_POTENTIAL,
    OPPOSITE,
    SLOPE,
    SOME_POTENTIAL,
    exchanged_electrodes,
    violates_einthoven,
    violations_of_goldberger,
)
from ecgfounder.preprocess.recipes import NETWORK_RATE, Samples
from ecgfounder.preprocess.resampling import gain

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

# Seconds.
SHORTEST = 2.5
ZERO_EDGE = 0.1
CLIPPED_RUN = 0.01
DROPOUT = 1.0
STILL_BLOCK = 0.1
# Millivolt.
FLAT = 0.02
STILL = 0.01
CLIPPED_DROP = 0.1
AMPLITUDE = (0.05, 20.0)
# Shares, ratios and numbers.
FLAT_SHARE = 0.5
CLIPPED_STEPS = 6
BASELINE_SHARE = 0.5
LEAST_GAIN = 0.9
# Hz: the upper limit of most of a QRS complex's energy, and of the usual diagnostic low-pass.
QRS_FREQUENCY = 40.0

FLAGS: dict[str, str] = {
    "missing_leads": "Leads that are absent, all zero or all NaN; the network's input holds zeros instead "
    "(--missing_leads zero). Detail: leads.",
    "derived_leads": "Leads that the recording does not hold and that were computed from two of I, II and III. Detail: leads.",
    "other_rate": "Leads that the file holds at another sampling rate than those that were read, and that were left out. "
    "Detail: leads, or 'ECG' for channels without a lead's name.",
    "upsampled_leads": "Leads that the file holds at a lower sampling rate than others, and that were interpolated to theirs. "
    "Detail: leads, or 'ECG' for channels without a lead's name.",
    "unverified_format": "The file's format was read as public descriptions and programs have it; no file of a device has "
    "verified the reader.",
    "repaired_xml": "The file is not well-formed XML: control characters or ampersands in its texts were replaced to read it. "
    "Its counts and checksums show that no samples were lost.",
    "not_lead_I": "The 1-lead network, which was trained on lead I, was given another lead. Detail: the lead.",
    "other_lead": "The recording's only lead was used although another one was requested. Detail: the lead.",
    "nan_share": "Some samples of the leads in use were not finite and were replaced by 0. Detail: their share.",
    "resampled": "The recording is not at the network's sampling rate. Detail: its rate in Hz.",
    "aliasing_possible": "The recording's rate is above the network's and was reduced by interpolation, which does not remove "
    "frequencies above half the new rate (--resampling polyphase does).",
    "low_sampling_rate": f"Resampling from this rate has a gain of less than {LEAST_GAIN:g} at {QRS_FREQUENCY:g} Hz, which "
    "reduces QRS complexes. Detail: the gain of the method in use, and that of the other one.",
    "too_short": f"Less than {SHORTEST:g} s, the shortest input in published work with this network.",
    "zero_padded_edges": f"All leads are zero (or NaN) for more than {ZERO_EDGE:g} s at the start or the end "
    "(--trim_zero_edges removes these parts). Detail: seconds at the start, seconds at the end.",
    "dropout": f"All leads are zero or move by less than {STILL:g} mV for more than {DROPOUT:g} s. Not the edges that are "
    "zero_padded_edges. Detail: the first one's start in seconds, seconds in total.",
    "calibration_pulse": f"A rectangular pulse of {PULSE[0]:g} to {PULSE[1]:g} mV that rises within "
    f"{PULSE_RISE * 1e3:g} ms in all leads at once, stays within {PULSE_RIPPLE:g} mV for "
    f"{PULSE_SHORTEST * 1e3:g} to {PULSE_LONGEST * 1e3:g} ms and falls again. Leads III, aVR, aVL and aVF are "
    "ignored where there are others, because derived leads do not show it. Detail: the first pulse's start in seconds.",
    "flat_lead": f"In at least {FLAT_SHARE:.0%} of its {BLOCK:g} s blocks a lead moves by less than {FLAT:g} mV. "
    "Detail: leads.",
    "dead_lead": f"A lead that moves by less than {DEAD_MOVES:g} mV in most of its {BLOCK:g} s blocks has nothing that repeats "
    f"with the beats of the others, of which there are at least {FEWEST_BEATS}: noise or mains of a loose electrode. "
    f"Checked in the first {LIMB_SECONDS / 60:g} minutes. Detail: leads.",
    "clipped": f"A lead stays at its highest or lowest value for {CLIPPED_RUN * 1e3:g} ms (three samples at least) and "
    f"leaves it steeply: by {CLIPPED_DROP:g} mV or more, and {CLIPPED_STEPS} steps of its resolution or more, within half "
    "that run's length, on both sides. Not a calibration pulse, and not where all leads are constant. Detail: leads.",
    "implausible_amplitude": f"A lead moves by more than {AMPLITUDE[1]:g} mV within {BLOCK:g} s, or no lead moves by "
    f"{AMPLITUDE[0]:g} mV: probably a wrong unit, or sentinel values. Detail: leads, or 'low'.",
    "baseline_dominates": "Offsets and baseline wander dominate the standard deviation by which the input is divided, so that "
    f"the ECG has less than {BASELINE_SHARE:.0%} of its normal size in the input. The baseline is a moving average of "
    f"{SMOOTHING:g} s, taken twice. Not with recipes whose filters remove the baseline. Detail: the ECG's size in percent, and "
    "the number of such windows if there are several.",
    "einthoven_violated": "III is not II - I, where the recording holds all three: the difference's root mean square "
    f"is more than {DEVIATION:g} mV, a step of the resolution and {DEVIATION_SHARE:.0%} of II - I's standard deviation. "
    "Mislabelled leads, different gains or offsets, or leads that were not recorded together.",
    "goldberger_violated": "A stored aVR, aVL or aVF is not what I and II give: the difference's standard deviation is more "
    f"than {DEVIATION:g} mV, a step of the resolution and {DEVIATION_SHARE:.0%} of the expected lead's. Detail: leads; 'aVL=aVF' "
    "if aVL holds aVF, 'aVR=-aVR' if its sign is wrong.",
    "limb_leads_swapped": "Limb electrodes were probably exchanged. RA-LA: lead I points down (its deflection below "
    f"the mean is {DOMINANCE:g} times that above), V6 does not, and their {SLOPE * 1e3:g} ms slopes correlate at "
    f"{OPPOSITE:g} or less. RA-LL: the same of lead II, with aVR pointing up. RA-RL: II, or LA-RL: III, moves by less than "
    f"{NO_POTENTIAL:g} mV a beat where I moves by {SOME_POTENTIAL:g} mV or more. Checked in "
    f"the first {LIMB_SECONDS / 60:g} minutes. Detail: the electrodes.",
    "zero_padded": "The last window was filled up with zeros (--remainder pad). Detail: seconds of zeros.",
    "remainder_dropped": "The part after the last window is too short for the recipe's filters and was left out. "
    "Detail: its seconds.",
    "constant_windows": "Windows in which no lead moves; their input is all zeros. Detail: how many.",
}
"""Every flag's name and definition; a detail follows a colon, and several details are separated by commas."""


def flag(name: str, details: Iterable[str] = ()) -> str:
    """A flag in its written form: 'flat_lead:V3,V4'."""
    detail = ",".join(details)
    return f"{name}:{detail}" if detail else name


_LOW = flag("implausible_amplitude", ("low",))


def assess(
    samples: Samples,
    leads: Sequence[str],
    sampling_rate: float,
    derived: Collection[str] = (),
    span: tuple[int, int] | None = None,
    edges: Extremes | None = None,
    is_unremarkable: Callable[[Samples], bool] | None = None,
) -> list[str]:
    """Flags from the samples.

    Parameters
    ----------
    samples : numpy.ndarray
        Finite float32 [n_leads, n_samples], in mV, without leads that have no signal.
    leads : sequence of str
        A name for each row.
    sampling_rate : float
        In Hz.
    derived : collection of str, optional
        Those of `leads` that were computed from others.
    span : tuple of (int, int), optional
        First sample and end of what the network sees. A calibration pulse that the span cuts is found by its samples outside.
    edges : Extremes, optional
        Of the samples; shared with other flags, so that each part's extremes are computed once.
    is_unremarkable : callable, optional
        A quick test whether a part without calibration pulses has no other flag.

    Returns
    -------
    list of str
        Flags as `flag` writes them, each name once. Times are seconds from the first sample.
    """
    first, end = span or (0, samples.shape[1])
    seen = samples[:, first:end]
    flags = derived_flags(derived)
    if seen.shape[1] < SHORTEST * sampling_rate:
        flags.append("too_short")
    before, after = zero_edges(seen, sampling_rate)
    if before or after:
        flags.append(flag("zero_padded_edges", (f"{before / sampling_rate:.3g}", f"{after / sampling_rate:.3g}")))
    pulses = pulses_within(samples, leads, sampling_rate, (first, end))
    if pulses:
        flags.append(flag("calibration_pulse", (f"{pulses[0][0] / sampling_rate:.4g}",)))
    start, stop = without_pulses(samples, pulses, first + before, end - after)
    heart = samples[:, start:stop]
    if pulses and is_unremarkable is not None and is_unremarkable(heart):
        return flags
    low, high = (edges or Extremes(samples, sampling_rate)).of(start, stop)
    amplitude = _amplitude_flags(heart, leads, sampling_rate, low, high)
    dropouts = _dropouts(heart, sampling_rate) if amplitude != [_LOW] else []
    if dropouts:
        total = sum(until - since for since, until in dropouts) / sampling_rate
        flags.append(flag("dropout", (f"{(start + dropouts[0][0]) / sampling_rate:.4g}", f"{total:.3g}")))
    return flags + amplitude + limb_lead_flags(heart, leads, sampling_rate, derived, (low, high))


def derived_flags(derived: Collection[str]) -> list[str]:
    """The flag for leads that were computed from others, if there are any."""
    return [flag("derived_leads", derived)] if derived else []


def share_of_non_finite(finite: npt.NDArray[np.bool_]) -> list[str]:
    """The flag for samples that are not finite, if there are any: `finite` is True where one is."""
    if finite.all():
        return []
    return [flag("nan_share", (f"{1 - np.count_nonzero(finite) / finite.size:.3g}",))]


def zero_edges(samples: Samples, sampling_rate: float) -> tuple[int, int]:
    """Samples at the start and at the end in which all leads are zero; 0 for a part of at most `ZERO_EDGE`."""
    before = still_samples(samples, of_zero=True)
    if before == samples.shape[1]:
        return 0, 0
    after = still_samples(samples, at_end=True, of_zero=True)
    least = ZERO_EDGE * sampling_rate
    return before if before > least else 0, after if after > least else 0


def pulses_within(samples: Samples, leads: Sequence[str], sampling_rate: float, span: tuple[int, int]) -> list[Pulse]:
    """Calibration pulses of which the span holds a part; they may begin before it and end after it."""
    first, end = span
    reach = math.ceil((PULSE_LONGEST + 2 * PULSE_RISE) * sampling_rate) + 1
    begin = max(0, first - reach)
    found = calibration_pulses(samples[:, begin : end + reach], leads, sampling_rate)
    pulses = [(begin + since, begin + until) for since, until in found]
    return [pulse for pulse in pulses if pulse[0] < end and pulse[1] > first]


# --- amplitude -------------------------------------------------------------------------------------------------------


def _dropouts(samples: Samples, sampling_rate: float) -> list[tuple[int, int]]:
    """Parts longer than `DROPOUT` in which no lead moves by `STILL`: (first sample, end) of each."""
    size = max(1, round(STILL_BLOCK * sampling_rate))
    count = samples.shape[1] // size
    fewest = round(DROPOUT / STILL_BLOCK) - 1  # whole blocks in the shortest dropout
    if count < fewest:
        return []
    still = np.ones(count, dtype=np.bool_)
    for row in range(len(samples)):  # the first lead that moves ends the search in nearly all recordings
        low, high = extremes_by(size, samples[row : row + 1])
        still &= (high - low)[0] < STILL
        if np.count_nonzero(still) < fewest:
            return []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], still, [False]]).astype(np.int8)))
    found: list[tuple[int, int]] = []
    for since, until in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if until - since < fewest:
            continue
        near = slice(max(0, since - 1) * size, min((until + 1) * size, samples.shape[1]))
        level = samples[:, (since + until) // 2 * size, None]
        off = np.flatnonzero(np.any(np.abs(samples[:, near] - level) >= STILL, axis=0)) + near.start
        begin = int(off[off < since * size].max(initial=near.start - 1)) + 1
        end = int(off[off >= begin].min(initial=near.stop))
        if end - begin > DROPOUT * sampling_rate:
            found.append((begin, end))
    return found


def _amplitude_flags(
    samples: Samples, leads: Sequence[str], sampling_rate: float, low: Samples, high: Samples
) -> list[str]:
    """The flags from a part's samples and their extremes by block."""
    moves = high - low
    least, most = float(moves.min()), float(moves.max())
    flags: list[str] = []
    if most < AMPLITUDE[0]:
        return [_LOW]
    if most > AMPLITUDE[1]:
        wild = np.any(moves > AMPLITUDE[1], axis=1)
        flags.append(flag("implausible_amplitude", _named(leads, wild.tolist())))
    flat = np.zeros(len(samples), np.bool_)
    if least < FLAT:
        flat = np.mean(moves < FLAT, axis=1) >= FLAT_SHARE
    if flat.any():
        flags.append(flag("flat_lead", _named(leads, flat.tolist())))
    small = np.zeros(len(samples), np.bool_)
    if least < DEAD_MOVES:
        small = ~flat & (np.sort(moves, axis=1)[:, moves.shape[1] // 2] < DEAD_MOVES)
    if small.any():
        dead = dead_leads(samples[:, : round(LIMB_SECONDS * sampling_rate)], small, sampling_rate)
        if dead:
            flags.append(flag("dead_lead", [leads[row] for row in dead]))
    clipped = _clipped(samples, flat, (high.max(axis=1), low.min(axis=1)), sampling_rate)
    if any(clipped):
        flags.append(flag("clipped", _named(leads, clipped)))
    return flags


def _named(leads: Sequence[str], chosen: Iterable[bool]) -> list[str]:
    return [lead for lead, is_chosen in zip(leads, chosen, strict=True) if is_chosen]


# --- clipping --------------------------------------------------------------------------------------------------------


def _clipped(
    samples: Samples, flat: npt.NDArray[np.bool_], rails: tuple[Samples, Samples], sampling_rate: float
) -> list[bool]:
    """Whether each lead is clipped; `rails` are its highest and lowest values."""
    least = max(3, math.ceil(CLIPPED_RUN * sampling_rate))
    clipped = [False] * len(samples)
    for rail in rails:
        for row in _rows_with_runs(samples, rail, least):
            if flat[row] or clipped[row]:
                continue
            lead = samples[row]
            places = np.flatnonzero(lead == rail[row])
            if len(samples) > 1 and _has_run(places, least):
                places = places[~_all_still(samples, places)]
            clipped[row] = _has_run(places, least) and _is_cut_off(lead, places, least)
    return clipped


def _rows_with_runs(samples: Samples, values: Samples, least: int) -> list[int]:
    """Leads that have their value in `values` for `least` samples that follow each other."""
    if _passes is not None:
        found = np.empty(len(samples), np.bool_)
        _passes.runs_at(samples, values, least, found)
        return np.flatnonzero(found).tolist()
    return [row for row, lead in enumerate(samples) if _has_run(np.flatnonzero(lead == values[row]), least)]


def _has_run(places: npt.NDArray[np.intp], least: int) -> bool:
    """Whether `least` of the places follow each other."""
    return bool(np.any(places[least - 1 :] - places[: max(0, places.size - least + 1)] == least - 1))


def _all_still(samples: Samples, places: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Whether every lead has the value of a sample beside it, at each of the places."""
    here = samples[:, places]
    still = np.zeros(places.size, dtype=np.bool_)
    for beside in (places - 1, places + 1):
        exists = (beside >= 0) & (beside < samples.shape[1])
        still |= exists & np.all(here == samples[:, np.where(exists, beside, places)], axis=0)
    return still


def _is_cut_off(lead: Samples, places: npt.NDArray[np.intp], least: int) -> bool:
    """Whether `lead` stays at its extreme, which it has at `places`, for `least` samples, with steep slopes before and after.

    The top of a smooth wave is flat too once it is quantised, but half its run's length further it is only three to five
    steps of the resolution lower; a wave that was cut off is much lower there.
    """
    steepest = 0.0
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        if run.size < least:
            continue
        reach = (run.size + 1) // 2
        before, after = int(run[0]) - reach, int(run[-1]) + reach
        sides = [abs(float(lead[place] - lead[run[0]])) for place in (before, after) if 0 <= place < lead.size]
        if len(sides) == 1 and PULSE[0] < sides[0] < PULSE[1]:
            continue  # a calibration pulse that the recording's end cuts off
        # At an end of the recording, the other side alone decides.
        steepest = max(steepest, min(sides, default=0.0))
    return steepest >= CLIPPED_DROP and steepest >= CLIPPED_STEPS * resolution(lead)


# --- limb leads ------------------------------------------------------------------------------------------------------


def limb_lead_flags(
    samples: Samples,
    leads: Sequence[str],
    sampling_rate: float,
    derived: Collection[str] = (),
    edges: tuple[Samples, Samples] | None = None,
) -> list[str]:
    """`einthoven_violated`, `goldberger_violated` and `limb_leads_swapped`, from the leads that are there; as in `assess`.

    `edges` are the extremes of all samples by block, if they are known.
    """
    enough = round(LIMB_SECONDS * sampling_rate)
    first = samples[:, :enough]
    lead: Mapping[str, Samples] = {name: first[row] for row, name in enumerate(leads) if name in LIMB_LEADS_AND_V6}
    flags: list[str] = []
    if violates_einthoven(lead, derived):
        flags.append("einthoven_violated")
    violations = violations_of_goldberger(lead, derived)
    if violations:
        flags.append(flag("goldberger_violated", violations))
    exchanged = exchanged_electrodes(first, leads, sampling_rate, edges if samples.shape[1] <= enough else None)
    if exchanged:
        flags.append(flag("limb_leads_swapped", (exchanged,)))
    return flags


# --- what was done ---------------------------------------------------------------------------------------------------


def resampling_flags(sampling_rate: float, target: float, method: str) -> list[str]:
    """`resampled`, `aliasing_possible` and `low_sampling_rate`, from the recording's rate, the network's and the method."""
    if sampling_rate == target:
        return []
    flags = [flag("resampled", (f"{sampling_rate:g}",))]
    if sampling_rate > target:
        # The polyphase filter removes what the new rate cannot hold; interpolation aliases it.
        return flags + (["aliasing_possible"] if method == "linear" else [])
    other = "polyphase" if method == "linear" else "linear"
    gains = {name: gain(QRS_FREQUENCY, sampling_rate, target, name) for name in (method, other)}
    if target == NETWORK_RATE and gains[method] < LEAST_GAIN:
        flags.append(flag("low_sampling_rate", [f"{name} {value:.3g}" for name, value in gains.items()]))
    return flags


def baseline_flags(
    samples: Samples,
    sampling_rate: float,
    spans: Sequence[tuple[int, int]],
    *,
    per_lead: bool,
    edges: tuple[Samples, Samples] | None = None,
) -> list[str]:
    """`baseline_dominates` for inputs that are divided by their standard deviation; as in `baseline.ecg_shares`.

    `edges` are the samples' extremes by block, if they are known.
    """
    long_enough = [(start, stop) for start, stop in spans if stop - start >= SHORTEST * sampling_rate]
    if not long_enough:
        return []
    if len(spans) == 1 and not may_dominate(samples, sampling_rate, per_lead=per_lead, edges=edges):
        return []
    shares = ecg_shares(samples, sampling_rate, long_enough, per_lead=per_lead).min(axis=1)
    affected = int(np.count_nonzero(shares < BASELINE_SHARE))
    if not affected:
        return []
    percent = f"{100 * float(shares.min()):.2g}%"
    return [flag("baseline_dominates", [percent, *([f"{affected} windows"] if len(spans) > 1 else [])])]
