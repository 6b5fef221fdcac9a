"""Quality flags: cheap signs that a recording, or what was done to it, deserves a second look.

In: the samples that go into the network, in mV at the recording's own rate. Out: flags "name" or "name:detail"; `FLAGS`
defines each name with its threshold. A flag never changes a sample and never stops a recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

# Seconds.
BLOCK = 2.0  # holds at least one beat at 30 a minute
SHORTEST = 2.5
ZERO_EDGE = 0.1
CLIPPED_RUN = 0.01
PULSE_RISE = 0.01
PULSE_SHORTEST = 0.04
PULSE_LONGEST = 0.6
SLOPE = 0.02
LIMB_SECONDS = 600.0
# Millivolt.
FLAT = 0.02
CLIPPED_DROP = 0.1
PULSE = (0.9, 1.1)
PULSE_RIPPLE = 0.1
AMPLITUDE = (0.05, 20.0)
EINTHOVEN = 0.02
NO_POTENTIAL = 0.1
SOME_POTENTIAL = 0.4
# Shares and ratios.
FLAT_SHARE = 0.5
EINTHOVEN_SHARE = 0.25
DOMINANCE = 1.5
OPPOSITE = -0.5

FLAGS: dict[str, str] = {
    "missing_leads": "Leads that are absent, all zero or all NaN, and went in as zeros (--missing_leads zero). "
    "Detail: leads.",
    "derived_leads": "Leads that were computed from I and II because the recording does not hold them. Detail: leads.",
    "other_rate": "Leads that the file holds at another sampling rate than those that were read, and that were left out. "
    "Detail: leads, or 'ECG' for channels that are named no further.",
    "not_lead_I": "The 1-lead network, which was trained on lead I, was given another lead. Detail: the lead.",
    "other_lead": "The recording's only lead was taken although another one was asked for. Detail: the lead.",
    "nan_share": "Some samples of the leads in use were not finite; they went in as 0. Detail: their share.",
    "resampled": "The recording is not at the network's sampling rate. Detail: its rate in Hz.",
    "aliasing_possible": "The recording's rate is above the network's and was brought down by interpolation, which "
    "does not take out what is faster than half the new rate (--resampling polyphase does).",
    "too_short": f"Less than {SHORTEST:g} s, the shortest input that published work feeds to this network.",
    "zero_padded_edges": f"All leads are zero (or NaN) for more than {ZERO_EDGE:g} s at the start or the end "
    "(--trim_zero_edges takes that off). Detail: seconds at the start, seconds at the end.",
    "calibration_pulse": f"A rectangular pulse of {PULSE[0]:g} to {PULSE[1]:g} mV that rises within "
    f"{PULSE_RISE * 1e3:g} ms in all leads at once, stays within {PULSE_RIPPLE:g} mV for "
    f"{PULSE_SHORTEST * 1e3:g} to {PULSE_LONGEST * 1e3:g} ms and falls again. Leads III, aVR, aVL and aVF are "
    "left out of this where others are there, as derived ones do not show it. Detail: the first pulse's start in seconds.",
    "flat_lead": f"In at least {FLAT_SHARE:.0%} of its {BLOCK:g} s blocks a lead moves by less than {FLAT:g} mV. "
    "Detail: leads.",
    "clipped": f"A lead stays at its highest or lowest value for {CLIPPED_RUN * 1e3:g} ms (three samples at least) and "
    f"leaves it steeply: by {CLIPPED_DROP:g} mV or more within half that run's length, on both sides. Detail: leads.",
    "implausible_amplitude": f"A lead moves by more than {AMPLITUDE[1]:g} mV within {BLOCK:g} s, or no lead moves by "
    f"{AMPLITUDE[0]:g} mV: probably a wrong unit, or sentinel values. Detail: leads, or 'low'.",
    "einthoven_violated": "III is not II - I, where the recording holds all three: the difference's root mean square "
    f"is more than {EINTHOVEN:g} mV and more than {EINTHOVEN_SHARE:.0%} of II - I's standard deviation. Mislabelled leads, "
    "different gains or offsets, or leads that were not recorded together.",
    "limb_leads_swapped": "Limb electrodes were probably exchanged. RA-LA: lead I points down (its deflection below "
    f"the mean is {DOMINANCE:g} times that above), V6 does not, and their {SLOPE * 1e3:g} ms slopes correlate at "
    f"{OPPOSITE:g} or less. RA-LL: the same of lead II, with aVR pointing up. RA-RL: II, or LA-RL: III, moves by less than "
    f"{NO_POTENTIAL:g} mV a beat where I moves by {SOME_POTENTIAL:g} mV or more. Looked for in "
    f"the first {LIMB_SECONDS / 60:g} minutes. Detail: the electrodes.",
    "zero_padded": "The last window was filled up with zeros (--remainder pad). Detail: seconds of zeros.",
    "remainder_dropped": "What is left after the last window is too short for the recipe's filters and was left out. "
    "Detail: its seconds.",
    "constant_windows": "Windows in which no lead moves; their input is all zeros. Detail: how many.",
}
"""Every flag's name and definition; a detail follows a colon, several are separated by commas."""


def flag(name: str, details: Iterable[str] = ()) -> str:
    """A flag as it is written: 'flat_lead:V3,V4'."""
    detail = ",".join(details)
    return f"{name}:{detail}" if detail else name


def assess(samples: Samples, leads: Sequence[str], sampling_rate: float, derived: Sequence[str] = ()) -> list[str]:
    """Flags that the samples themselves give rise to.

    Parameters
    ----------
    samples : numpy.ndarray
        Finite float32 [n_leads, n_samples], in mV; leads without any signal left out.
    leads : sequence of str
        A name for each row.
    sampling_rate : float
        In Hz.
    derived : sequence of str, optional
        Those of `leads` that were computed from others.

    Returns
    -------
    list of str
        Flags as `flag` writes them, at most one of each name.
    """
    flags = [flag("derived_leads", derived)] if derived else []
    if samples.shape[1] < SHORTEST * sampling_rate:
        flags.append("too_short")
    before, after = zero_edges(samples, sampling_rate)
    if before or after:
        flags.append(flag("zero_padded_edges", (f"{before / sampling_rate:.3g}", f"{after / sampling_rate:.3g}")))
    pulses = calibration_pulses(samples, leads, sampling_rate)
    if pulses:
        flags.append(flag("calibration_pulse", (f"{pulses[0][0] / sampling_rate:.4g}",)))
    start, stop = _longest_between(pulses, before, samples.shape[1] - after)
    heart = samples[:, start:stop]
    return flags + _amplitude_flags(heart, leads, sampling_rate) + limb_lead_flags(heart, leads, sampling_rate, derived)


def share_of_non_finite(finite: npt.NDArray[np.bool_]) -> list[str]:
    """The flag for samples that are not finite, if any: `finite` is True where one is."""
    if finite.all():
        return []
    return [flag("nan_share", (f"{1 - np.count_nonzero(finite) / finite.size:.3g}",))]


def zero_edges(samples: Samples, sampling_rate: float) -> tuple[int, int]:
    """Samples at the start and at the end in which all leads are zero; 0 for what is not longer than `ZERO_EDGE`."""
    if samples[:, 0].any() and samples[:, -1].any():
        return 0, 0
    used: npt.NDArray[np.bool_] = np.asarray(samples.any(axis=0))
    if not used.any():
        return 0, 0
    before, after = int(used.argmax()), int(used[::-1].argmax())
    least = ZERO_EDGE * sampling_rate
    return before if before > least else 0, after if after > least else 0


# --- calibration pulse -----------------------------------------------------------------------------------------------

# Computed from others by a device or a reader, they hold combinations of the pulse rather than the pulse.
_AUGMENTED = ("III", "aVR", "aVL", "aVF")
_CHUNK = 1 << 20


def calibration_pulses(samples: Samples, leads: Sequence[str], sampling_rate: float) -> list[tuple[int, int]]:
    """Where calibration pulses are: (first sample, end) of each; `FLAGS` has the definition.

    A pulse that the end of the samples cuts off counts where there is more than one lead.
    """
    rows = [row for row, lead in enumerate(leads) if lead not in _AUGMENTED] or list(range(len(leads)))
    lag = max(1, round(PULSE_RISE * sampling_rate))
    shortest, longest = round(PULSE_SHORTEST * sampling_rate), round(PULSE_LONGEST * sampling_rate)
    pulses: list[tuple[int, int]] = []
    for start in _starts_of_plateaus(samples, rows, lag, shortest):
        if pulses and start < pulses[-1][1]:
            continue
        plateau = samples[rows, start : start + longest + 1]
        off = np.any(np.abs(plateau - plateau[:, :1]) >= PULSE_RIPPLE, axis=0)
        length = int(off.argmax()) if off.any() else off.size
        end = start + length
        if not shortest <= length <= longest:
            continue
        if end == samples.shape[1]:
            ends_there = len(rows) > 1
        else:
            fall = samples[rows, end - 1] - samples[rows, min(end + lag, samples.shape[1]) - 1]
            ends_there = bool(((fall > PULSE[0]) & (fall < PULSE[1])).all())
        if ends_there:
            pulses.append((start, end))
    return pulses


def _starts_of_plateaus(samples: Samples, rows: list[int], lag: int, shortest: int) -> list[int]:
    """Samples a pulse's height above the one `lag` before, in all rows, at whose level the signal stays."""
    last = samples.shape[1] - shortest
    found: list[npt.NDArray[np.intp]] = []
    for begin in range(0, max(0, last - lag), _CHUNK):  # one row of a day's recording at once would be large
        row = samples[rows[0], begin : min(begin + _CHUNK, last - lag) + lag]
        step = row[lag:] - row[:-lag]
        found.append(np.flatnonzero((step > PULSE[0]) & (step < PULSE[1])) + (begin + lag))
    starts = np.concatenate(found) if found else np.zeros(0, dtype=np.intp)
    every = np.array(rows)[:, None]
    for some in (every[:1], every[1:]):  # one row leaves few places to look at in the others
        if starts.size == 0:
            break
        at = samples[some, starts]
        step = at - samples[some, starts - lag]
        fits = (step > PULSE[0]) & (step < PULSE[1])
        for later in (shortest // 2, shortest - 1):
            fits &= np.abs(samples[some, starts + later] - at) < PULSE_RIPPLE
        starts = starts[fits.all(axis=0)]
    return [int(start) for start in starts]


def between_pulses(samples: Samples, leads: Sequence[str], sampling_rate: float) -> tuple[int, int]:
    """The longest stretch (first sample, end) without a calibration pulse."""
    return _longest_between(calibration_pulses(samples, leads, sampling_rate), 0, samples.shape[1])


def _longest_between(pulses: list[tuple[int, int]], start: int, stop: int) -> tuple[int, int]:
    """The longest stretch of [start, stop) without a pulse."""
    bounds = [start, *(edge for pulse in pulses for edge in pulse), stop]
    pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
    first, end = max(pairs, key=lambda pair: pair[1] - pair[0])
    return (first, end) if end > first else (start, stop)


# --- amplitude -------------------------------------------------------------------------------------------------------


def _extremes(samples: Samples, sampling_rate: float) -> tuple[Samples, Samples]:
    """Lowest and highest value of each lead in each block of `BLOCK` seconds; each [n_leads, n_blocks]."""
    size = max(1, round(BLOCK * sampling_rate))
    # What is left after the last whole block joins it: a short block could miss every beat.
    starts = np.arange(max(1, samples.shape[1] // size)) * size
    return np.minimum.reduceat(samples, starts, axis=1), np.maximum.reduceat(samples, starts, axis=1)


def _amplitude_flags(samples: Samples, leads: Sequence[str], sampling_rate: float) -> list[str]:
    low, high = _extremes(samples, sampling_rate)
    moves = high - low
    flags: list[str] = []
    if moves.max() < AMPLITUDE[0]:
        return [flag("implausible_amplitude", ("low",))]
    wild = np.any(moves > AMPLITUDE[1], axis=1)
    if wild.any():
        flags.append(flag("implausible_amplitude", _named(leads, wild.tolist())))
    flat = np.mean(moves < FLAT, axis=1) >= FLAT_SHARE
    if flat.any():
        flags.append(flag("flat_lead", _named(leads, flat.tolist())))
    least = max(3, math.ceil(CLIPPED_RUN * sampling_rate))
    clipped = [False] * len(leads)
    for rails in (high.max(axis=1), low.min(axis=1)):
        for row, lead in enumerate(samples):
            at_rail = lead == rails[row]
            if not flat[row] and np.count_nonzero(at_rail) >= least:
                clipped[row] = clipped[row] or _is_cut_off(lead, at_rail, least)
    if any(clipped):
        flags.append(flag("clipped", _named(leads, clipped)))
    return flags


def _named(leads: Sequence[str], chosen: Iterable[bool]) -> list[str]:
    return [lead for lead, is_chosen in zip(leads, chosen, strict=True) if is_chosen]


def _is_cut_off(lead: Samples, at_rail: npt.NDArray[np.bool_], least: int) -> bool:
    """Whether `lead` stays at its extreme (`at_rail`) for `least` samples or more, with a steep way to and from it.

    The top of a smooth wave is flat too once it is quantised, but half its run's length away it has gone only about two
    steps of the quantisation down; a signal that was cut off has gone far.
    """
    places = np.flatnonzero(at_rail)
    if not np.any(places[least - 1 :] - places[: places.size - least + 1] == least - 1):
        return False
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1):
        if run.size < least:
            continue
        reach = (run.size + 1) // 2
        sides = [place for place in (int(run[0]) - reach, int(run[-1]) + reach) if 0 <= place < lead.size]
        # At an end of the recording the other side alone decides.
        if sides and all(abs(float(lead[place] - lead[run[0]])) >= CLIPPED_DROP for place in sides):
            return True
    return False


# --- limb leads ------------------------------------------------------------------------------------------------------

LIMB_LEADS_AND_V6 = ("I", "II", "III", "aVR", "V6")
"""What `limb_lead_flags` looks at."""


def limb_lead_flags(
    samples: Samples, leads: Sequence[str], sampling_rate: float, derived: Sequence[str] = ()
) -> list[str]:
    """`einthoven_violated` and `limb_leads_swapped`, where the leads that they need are there; as in `assess`."""
    enough = round(LIMB_SECONDS * sampling_rate)  # electrodes do not change places later on
    lead = {name: samples[row, :enough] for row, name in enumerate(leads) if name in LIMB_LEADS_AND_V6}
    flags: list[str] = []
    if {"I", "II", "III"} <= lead.keys() and not {"I", "II", "III"} & set(derived):
        expected = lead["II"] - lead["I"]
        off = math.sqrt(float(np.mean(np.square(expected - lead["III"], dtype=np.float64))))
        if off > max(EINTHOVEN, EINTHOVEN_SHARE * float(np.std(expected))):
            flags.append("einthoven_violated")
    if {"I", "II"} <= lead.keys():
        exchanged = _exchanged_electrodes(lead, sampling_rate)
        if exchanged:
            flags.append(flag("limb_leads_swapped", (exchanged,)))
    return flags


def _exchanged_electrodes(lead: dict[str, Samples], sampling_rate: float) -> str | None:
    """Which limb electrodes were probably exchanged.

    Exchanging right and left arm turns lead I over; exchanging right arm and left leg turns lead II over and makes aVR
    what aVF was. Both leads normally resemble V6, which no exchange of limb electrodes changes much. With the right
    leg's electrode on an arm, the lead between the two legs shows hardly any potential.
    """
    up, down = _deflections(lead, sampling_rate)
    if up["I"] + down["I"] >= SOME_POTENTIAL:
        if up["II"] + down["II"] < NO_POTENTIAL:
            return "RA-RL"
        if "III" in lead and up["III"] + down["III"] < NO_POTENTIAL:
            return "LA-RL"
    if "V6" not in lead or up["V6"] < down["V6"]:
        return None
    inverted = {name: 1.0 for name in ("I", "II") if down[name] >= DOMINANCE * up[name]}
    if "II" in inverted and ("aVR" not in lead or up["aVR"] <= down["aVR"]):
        del inverted["II"]
    for name in inverted:
        inverted[name] = _correlation_of_slopes(lead[name], lead["V6"], sampling_rate)
    opposite = {name: value for name, value in inverted.items() if value <= OPPOSITE}
    if not opposite:
        return None
    # Either exchange can turn both leads over; the one that is V6 upside down was exchanged.
    return {"I": "RA-LA", "II": "RA-LL"}[min(opposite, key=lambda name: opposite[name])]


def _deflections(lead: dict[str, Samples], sampling_rate: float) -> tuple[dict[str, float], dict[str, float]]:
    """How far each lead's beats go above and below its mean, in mV: the middle of its blocks, against artefacts."""
    samples = np.stack(list(lead.values()))
    low, high = (np.sort(extreme, axis=1) for extreme in _extremes(samples, sampling_rate))
    middle = low.shape[1] // 2
    # One sample in four says where the mean is.
    mean = samples[:, ::4].mean(axis=1)
    up, down = high[:, middle] - mean, mean - low[:, middle]
    return dict(zip(lead, up.tolist(), strict=True)), dict(zip(lead, down.tolist(), strict=True))


def _correlation_of_slopes(one: Samples, other: Samples, sampling_rate: float) -> float:
    """Pearson correlation of two leads' slopes: the QRS complexes decide it, wandering baselines do not."""
    lag = max(1, round(SLOPE * sampling_rate))
    if one.size <= lag + 1:
        return 0.0
    a, b = one[lag:] - one[:-lag], other[lag:] - other[:-lag]
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b)))
    return float(np.dot(a, b)) / scale if scale > 0 else 0.0
