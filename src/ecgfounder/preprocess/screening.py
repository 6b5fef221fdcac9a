"""One quick look at all samples: whether any quality flag can be raised at all.

In: the samples that are the network's input, in mV at the recording's sampling rate. Out: a `Screening`. Most recordings have
nothing to flag, and need no examination after it; without the compiled module, every recording is examined.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ecgfounder.preprocess import baseline, calibration, dead_leads, limb_leads, quality
from ecgfounder.preprocess.amplitudes import BLOCK
from ecgfounder.preprocess.recipes import Samples

try:
    import ecgfounder.preprocess._passes as _passes
except ImportError:  # not built
    _passes = None  # type: ignore[assignment]

Rows = npt.NDArray[np.int64]

_UNREMARKABLE, _SMALL_BASELINE = 1, 2

# In the order of the enumeration in _passes.c.
_LIMITS = np.array(
    [
        *quality.AMPLITUDE,
        quality.FLAT,
        quality.FLAT_SHARE,
        quality.STILL,
        dead_leads.DEAD_MOVES,
        dead_leads.LEAST_SLOPE,
        dead_leads.PEAKED,
        *calibration.PULSE,
        calibration.PULSE_RIPPLE,
        quality.CLIPPED_DROP,
        limb_leads.DEVIATION,
        limb_leads.NO_POTENTIAL,
        limb_leads.SOME_POTENTIAL,
        limb_leads.DOMINANCE,
        limb_leads.OPPOSITE,
        baseline.USUAL_SPREAD,
        quality.BASELINE_SHARE,
    ]
)


@dataclass(frozen=True)
class Screening:
    """What is certain about some samples.

    Attributes
    ----------
    is_unremarkable : bool
        Whether `quality.assess` gives no flag but that of derived leads.
    has_small_baseline : bool
        Whether `quality.baseline_flags` gives none for a single window.
    """

    is_unremarkable: bool = False
    has_small_baseline: bool = False


def screen(
    samples: Samples,
    leads: Sequence[str],
    sampling_rate: float,
    derived: Collection[str] = (),
    *,
    per_lead: bool | None,
) -> Screening:
    """Look at samples; they are as for `quality.assess`, and `per_lead` is as for `quality.baseline_flags`.

    With None for `per_lead` the baseline is left out.
    """
    if _passes is None or not 0 < samples.shape[1] <= limb_leads.LIMB_SECONDS * sampling_rate:
        return Screening()
    rows = _rows(tuple(leads), tuple(derived))
    found = _passes.screen(samples, *rows, _lengths(sampling_rate), _LIMITS, per_lead is not None, bool(per_lead))
    return Screening(bool(found & _UNREMARKABLE), bool(found & _SMALL_BASELINE))


@lru_cache(maxsize=256)  # the files of a cohort have the same leads
def _rows(leads: tuple[str, ...], derived: tuple[str, ...]) -> tuple[Rows, Rows, Rows]:
    """Rows of the limb leads and V6, the same of those that are stored, and the rows that show a calibration pulse."""
    row_of = {lead: row for row, lead in enumerate(leads)}
    present = [row_of.get(lead, -1) for lead in limb_leads.LIMB_LEADS_AND_V6]
    stored = [-1 if lead in derived else row_of.get(lead, -1) for lead in limb_leads.LIMB_LEADS_AND_V6]
    return np.array(present, np.int64), np.array(stored, np.int64), calibration.rows_with_pulses(leads)


@lru_cache(maxsize=64)
def _lengths(sampling_rate: float) -> Rows:
    """Numbers of samples, in the order of the enumeration in _passes.c."""
    fewest = round(quality.DROPOUT / quality.STILL_BLOCK) - 1
    every, size = baseline.block_sizes(sampling_rate)
    lengths = (
        math.ceil(quality.SHORTEST * sampling_rate),
        round(BLOCK * sampling_rate),
        round(quality.STILL_BLOCK * sampling_rate),
        fewest,
        max(3, math.ceil(quality.CLIPPED_RUN * sampling_rate)),
        round(calibration.PULSE_RISE * sampling_rate),
        round(calibration.PULSE_SHORTEST * sampling_rate),
        round(dead_leads.SLOPE * sampling_rate),
        int(sampling_rate / baseline.ROUGHLY),
        every,
        size,
        baseline.smoothing_width(sampling_rate, every * size),
    )
    return np.array([max(1, length) for length in lengths], np.int64)
