"""Limb leads that contradict each other, and exchanged limb electrodes.

In: the limb leads and V6 by name, in mV, as they were recorded. Out: what contradicts what.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from ecgfounder.ecg.leads import FROM_I_AND_II
from ecgfounder.preprocess.amplitudes import extremes, moments, resolution
from ecgfounder.preprocess.recipes import Samples

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

LIMB_LEADS_AND_V6 = ("I", "II", "III", "aVR", "aVL", "aVF", "V6")
"""The leads that this module uses."""

LIMB_SECONDS = 600.0
"""Seconds of the recording that are examined: leads are not exchanged later on."""

# Seconds.
SLOPE = 0.02
# Millivolt.
DEVIATION = 0.02
NO_POTENTIAL = 0.1
SOME_POTENTIAL = 0.4
# Shares and ratios.
DEVIATION_SHARE = 0.25
DOMINANCE = 1.5
OPPOSITE = -0.5

_AUGMENTED = {lead: weights for lead, weights in FROM_I_AND_II.items() if lead != "III"}


def violates_einthoven(lead: Mapping[str, Samples], derived: Collection[str] = ()) -> bool:
    """Whether III differs from II - I; False unless all three are there and none is derived."""
    if not {"I", "II", "III"} <= lead.keys() - set(derived):
        return False
    off = _rms_off(lead, (-1.0, 1.0), "III")
    if off <= DEVIATION or off <= DEVIATION_SHARE * _deviation(lead["II"] - lead["I"]):
        return False
    return off > max(resolution(lead[name]) for name in ("I", "II", "III"))


def _rms_off(lead: Mapping[str, Samples], weights: tuple[float, float], name: str) -> float:
    """Root mean square of what a lead differs from a combination of I and II."""
    of_i, of_ii = weights
    if _passes is not None:
        return _passes.combination_rms(lead["I"], of_i, lead["II"], of_ii, lead[name])
    off = (of_i * lead["I"] + of_ii * lead["II"] - lead[name]).astype(np.float64)
    return math.sqrt(float(np.square(off).mean()))


def _rms(samples: Samples) -> float:
    return math.sqrt(float(np.dot(samples, samples)) / samples.size)


def _deviation(samples: Samples) -> float:
    """Standard deviation, by products that are faster than `numpy.std`."""
    return _rms(samples - samples.mean())


def violations_of_goldberger(lead: Mapping[str, Samples], derived: Collection[str] = ()) -> list[str]:
    """The augmented leads that differ from what I and II give, and the lead that they are instead.

    Returns
    -------
    list of str
        'aVL=aVF' for a lead aVL that holds aVF, 'aVR=-aVR' for a wrong sign, 'aVL' if it is no augmented lead. Empty without I
        or II.
    """
    stored = [name for name in _AUGMENTED if name in lead and name not in derived]
    if not stored or not {"I", "II"} <= lead.keys():
        return []
    # A standard deviation is at most the root mean square, which takes less time.
    suspects = [name for name in stored if _rms_off(lead, _AUGMENTED[name], name) > DEVIATION]
    if not suspects:
        return []
    expected = {name: of_i * lead["I"] + of_ii * lead["II"] for name, (of_i, of_ii) in _AUGMENTED.items()}
    step = max(resolution(lead[name]) for name in ("I", "II"))
    limit = {name: max(DEVIATION, step, DEVIATION_SHARE * _deviation(samples)) for name, samples in expected.items()}
    found: list[str] = []
    for name in suspects:
        if _deviation(lead[name] - expected[name]) <= limit[name]:
            continue
        fits = {
            f"{name}={sign}{other}": _deviation(lead[name] + (expected[other] if sign else -expected[other]))
            for other in _AUGMENTED
            for sign in ("", "-")
        }
        best = min(fits, key=lambda label: fits[label])
        found.append(best if fits[best] <= limit[best.partition("=")[2].lstrip("-")] else name)
    return found


def exchanged_electrodes(
    samples: Samples, leads: Sequence[str], sampling_rate: float, edges: tuple[Samples, Samples] | None = None
) -> str | None:
    """The pair of limb electrodes that was probably exchanged; None if there is none, or I or II is missing.

    Exchanging right and left arm inverts lead I; exchanging right arm and left leg inverts lead II and makes aVR what aVF was.
    Both leads normally resemble V6, which depends little on the limb electrodes. With the right leg's electrode on an arm, the
    lead between the two legs has hardly any potential. `edges` are the `extremes` of the samples, if they are known.
    """
    lead = dict(zip(leads, samples, strict=True))
    if not {"I", "II"} <= lead.keys():
        return None
    up, down = _deflections(samples, leads, edges or extremes(samples, sampling_rate))
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
    # Either exchange can invert both leads; the one that is more clearly V6 inverted decides.
    return {"I": "RA-LA", "II": "RA-LL"}[min(opposite, key=lambda name: opposite[name])]


def _deflections(
    samples: Samples, leads: Sequence[str], edges: tuple[Samples, Samples]
) -> tuple[dict[str, float], dict[str, float]]:
    """How far each lead's beats go above and below its mean, in mV: the median over blocks, because of artefacts."""
    low, high = (np.sort(extreme, axis=1) for extreme in edges)
    middle = low.shape[1] // 2
    mean, _variance = moments(samples, 4)  # every fourth sample suffices for the mean
    up, down = high[:, middle] - mean, mean - low[:, middle]
    return dict(zip(leads, up.tolist(), strict=True)), dict(zip(leads, down.tolist(), strict=True))


def _correlation_of_slopes(one: Samples, other: Samples, sampling_rate: float) -> float:
    """Pearson correlation of two leads' slopes, which QRS complexes determine and baseline wander does not."""
    lag = max(1, round(SLOPE * sampling_rate))
    if one.size <= lag + 1:
        return 0.0
    a, b = one[lag:] - one[:-lag], other[lag:] - other[:-lag]
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(np.dot(a, a)) * float(np.dot(b, b)))
    return float(np.dot(a, b)) / scale if scale > 0 else 0.0
