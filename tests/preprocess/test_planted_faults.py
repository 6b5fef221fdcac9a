"""Faults planted into real recordings: how many each flag finds, and how many recordings without a fault it marks.

docs/quality.md has the counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.signals import prepare
from tests.builders.recorded import SECONDS, recordings
from tests.places import RECORDINGS

Samples = npt.NDArray[np.float32]
Planter = Callable[[Samples, float, np.random.Generator], Iterator[tuple[Samples, str]]]

DRAWN = "hl7_aecg/liryc_example.xml"
I, II, AVR, AVL, AVF = 0, 1, 3, 4, 5  # noqa: E741


def found(samples: Samples, rate: float, **settings: object) -> dict[str, str]:
    signal = prepare(Recording(samples, rate, STANDARD_LEADS, "test"), Preparation(**settings))  # type: ignore[arg-type]
    return dict((flag + ":").split(":")[:2] for flag in signal.flags)


# --- the faults: each gives changed samples, and the detail by which the flag has to name the fault --------------------


def dead(samples: Samples, rate: float, rng: np.random.Generator) -> Iterator[tuple[Samples, str]]:
    n = samples.shape[1]
    at = np.arange(n) / rate
    for lead in range(12):
        for rms in (0.004, 0.01, 0.02, 0.05):
            noise, phase = rng.standard_normal(n), rng.uniform(0, 2 * np.pi)
            mains = {hz: np.sqrt(2) * np.sin(2 * np.pi * hz * at + phase) for hz in (50, 60)}
            for alone in (noise, mains[50], mains[60], (noise + mains[50]) / np.sqrt(2)):
                changed = samples.copy()
                changed[lead] = np.round((0.1 + rms * alone) / 0.005) * 0.005
                yield changed, STANDARD_LEADS[lead]


def dropout(samples: Samples, rate: float, rng: np.random.Generator) -> Iterator[tuple[Samples, str]]:
    for seconds in (1.1, 2.0, 4.0):
        start = round(rng.uniform(0.5, SECONDS - 4.5) * rate)
        stop = start + round(seconds * rate)
        for level in (np.float32(0), samples[:, start : start + 1]):
            changed = samples.copy()
            changed[:, start:stop] = level
            yield changed, ""


def offset(samples: Samples, _rate: float, rng: np.random.Generator) -> Iterator[tuple[Samples, str]]:
    for millivolt in (1.0, 3.0, 100.0):
        yield samples + rng.normal(0, millivolt, (12, 1)).astype(np.float32), "%"


def wander(samples: Samples, rate: float, rng: np.random.Generator) -> Iterator[tuple[Samples, str]]:
    at = np.arange(samples.shape[1]) / rate
    for millivolt in (1.0, 3.0):
        phases = rng.uniform(0, 2 * np.pi, (12, 1))
        yield samples + (millivolt * np.sin(2 * np.pi * 0.2 * at + phases)).astype(np.float32), "%"


def augmented(samples: Samples, _rate: float, _rng: np.random.Generator) -> Iterator[tuple[Samples, str]]:
    changed = samples.copy()
    changed[[AVL, AVF]] = samples[[AVF, AVL]]
    yield changed, "aVL=aVF,aVF=aVL"
    changed = samples.copy()
    changed[AVR] *= -1
    yield changed, "aVR=-aVR"


def clipped(samples: Samples, _rate: float, _rng: np.random.Generator) -> Iterator[tuple[Samples, str]]:
    for step in (0.001, 0.01, 0.05):
        for lead in np.argsort(-np.ptp(samples, axis=1))[:4].tolist():
            changed = np.round(samples / step) * np.float32(step)
            middle, top = float(np.median(changed[lead])), float(changed[lead].max())
            low = float(changed[lead].min())
            limit = (middle + 0.4 * (top - middle), middle + 0.4 * (low - middle))
            changed[lead] = (
                np.minimum(changed[lead], limit[0])
                if top - middle > middle - low
                else np.maximum(changed[lead], limit[1])
            )
            yield changed.astype(np.float32), STANDARD_LEADS[lead]


def slow(samples: Samples, rate: float, _rng: np.random.Generator) -> Iterator[tuple[Samples, str]]:
    for low in (100.0, 125.0):
        step = round(rate / low)
        if step > 1:
            yield np.ascontiguousarray(samples[:, ::step]), "linear"


PLANTED: dict[str, tuple[str, Planter, float]] = {
    "dead lead": ("dead_lead", dead, 0.95),
    "dropout": ("dropout", dropout, 1.0),
    "offsets": ("baseline_dominates", offset, 1.0),
    "wander": ("baseline_dominates", wander, 1.0),
    "augmented leads": ("goldberger_violated", augmented, 1.0),
    "clipping": ("clipped", clipped, 0.9),
    "low rate": ("low_sampling_rate", slow, 1.0),
}

needs_recordings = pytest.mark.skipif(
    not (RECORDINGS / "expected.npz").exists(), reason="needs ../shared/ecg, which is not in the repository"
)


def counted(kind: str) -> tuple[int, int]:
    """How many planted faults are found, and how many there are; a lead that moves by less than 0.02 mV may be flat instead."""
    flag, planter, _least = PLANTED[kind]
    hits = total = 0
    for name, samples, rate in recordings():
        if name.startswith(DRAWN):
            continue
        for changed, detail in planter(samples, rate, np.random.default_rng(len(name))):
            flags = found(changed, rate if kind != "low rate" else rate / (samples.shape[1] / changed.shape[1]))
            total += 1
            hits += flag in flags and detail in flags[flag]
            hits += kind == "dead lead" and detail in flags.get("flat_lead", "").split(",")
    return hits, total


@needs_recordings
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind == "dead lead" else kind for kind in PLANTED]
)
def test_planted_faults_are_found(kind: str) -> None:
    hits, total = counted(kind)
    assert total >= 10
    assert hits / total >= PLANTED[kind][2], (hits, total)


ORDINARY = {"resampled", "aliasing_possible", "derived_leads", "calibration_pulse"}


@needs_recordings
@pytest.mark.parametrize("step", [0.0, 0.005, 0.01, 0.02, 0.05])
def test_recordings_without_a_fault_have_no_flag_at_any_resolution(step: float) -> None:
    marked = {}
    for name, samples, rate in recordings():
        if not name.startswith(DRAWN):
            changed = (np.round(samples / step) * step).astype(np.float32) if step else samples
            if found(changed, rate).keys() - ORDINARY:
                marked[name] = found(changed, rate)
    assert not marked
