"""The quick look at all samples: what it calls unremarkable has no flag, and most recordings are unremarkable."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from ecgfounder.ecg.leads import STANDARD_LEADS
from ecgfounder.ecg.recording import Recording
from ecgfounder.preprocess import quality, screening, signals
from ecgfounder.preprocess.preparation import Preparation
from ecgfounder.preprocess.screening import Screening, screen
from ecgfounder.preprocess.signals import prepare
from tests.builders.recorded import recordings, synthetic
from tests.places import RECORDINGS

Samples = npt.NDArray[np.float32]
Fault = Callable[[Samples, float, np.random.Generator], Samples]

needs_compiled = pytest.mark.skipif(screening._passes is None, reason="the module in C was not built")


def _lead(samples: Samples, rng: np.random.Generator) -> int:
    return int(rng.integers(len(samples)))


def scaled(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    factor = rng.choice([0.02, 0.1, 0.3, 3, 10, 40]).astype(np.float32)
    if rng.random() < 0.5:
        return samples * factor
    samples[_lead(samples, rng)] *= factor
    return samples


def offset(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    return samples + rng.normal(0, rng.choice([0.2, 1, 5]), (len(samples), 1)).astype(np.float32)


def wandering(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    at = np.arange(samples.shape[1]) / rate
    wave = rng.choice([0.3, 1, 3]) * np.sin(2 * np.pi * rng.uniform(0.05, 0.6) * at + rng.uniform(0, 6))
    return samples + wave.astype(np.float32)


def inverted(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    samples[_lead(samples, rng)] *= -1
    return samples


def exchanged(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    one, other = rng.permutation(len(samples))[:2] if len(samples) > 1 else (0, 0)
    samples[[one, other]] = samples[[other, one]]
    return samples


def noise(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    samples[_lead(samples, rng)] = rng.normal(0, rng.choice([0.002, 0.01, 0.05, 0.3]), samples.shape[1])
    return samples


def clipped(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    row = _lead(samples, rng)
    samples[row] = np.clip(samples[row], *np.quantile(samples[row], [rng.uniform(0, 0.02), rng.uniform(0.98, 1)]))
    return samples


def still(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    start = int(rng.integers(samples.shape[1]))
    stop = start + round(rng.uniform(0.05, 3) * rate)
    samples[:, start:stop] = 0 if rng.random() < 0.5 else samples[:, start : start + 1]
    return samples


def pulsed(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    start = int(rng.integers(samples.shape[1]))
    samples[:, start : start + round(rng.uniform(0.03, 0.3) * rate)] = samples[:, start : start + 1] + np.float32(1)
    return samples


def coarse(samples: Samples, rate: float, rng: np.random.Generator) -> Samples:
    step = np.float32(rng.choice([0.005, 0.02, 0.1]))
    return np.round(samples / step) * step


FAULTS: tuple[Fault, ...] = (*(scaled, offset, wandering, inverted, exchanged, noise, clipped, still, pulsed, coarse),)


def _spoilt(number: int) -> tuple[Samples, tuple[str, ...], float, tuple[str, ...]]:
    """A part of a real recording with up to three faults, perhaps of some leads alone: samples, leads, rate, derived ones."""
    rng = np.random.default_rng(number)
    samples, rate = PARTS[int(rng.integers(len(PARTS)))]
    stop = int(rng.integers(2, samples.shape[1] + 1)) if rng.random() < 0.2 else samples.shape[1]
    changed = samples[:, :stop].copy()
    for fault in rng.choice(len(FAULTS), int(rng.integers(0, 4))):
        changed = FAULTS[fault](changed, rate, rng)
    rows = np.sort(rng.permutation(12)[: int(rng.integers(1, 13))]) if rng.random() < 0.3 else np.arange(12)
    leads = tuple(STANDARD_LEADS[row] for row in rows)
    derived = tuple(lead for lead in leads if rng.random() < 0.5) if rng.random() < 0.2 else ()
    return np.ascontiguousarray(changed[rows], np.float32), leads, rate, derived


PARTS = [*synthetic(20)]
if (RECORDINGS / "expected.npz").exists():
    PARTS += [(samples, rate) for _name, samples, rate in recordings()]


@needs_compiled
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_what_is_unremarkable_has_no_flag(seed: int) -> None:
    counts = np.zeros(2, int)
    for number in range(1500 * seed, 1500 * (seed + 1)):
        samples, leads, rate, derived = _spoilt(number)
        per_lead = number % 2 == 0
        found = screen(samples, leads, rate, derived, per_lead=per_lead)
        counts += found.is_unremarkable, found.has_small_baseline
        if found.is_unremarkable:
            assert quality.assess(samples, leads, rate, derived) == quality.derived_flags(derived), number
        if found.has_small_baseline:
            whole = [(0, samples.shape[1])]
            assert not quality.baseline_flags(samples, rate, whole, per_lead=per_lead), number
    assert min(counts) > 150  # else this has shown nothing


@needs_compiled
@pytest.mark.parametrize("settings", [{}, {"window": 5.0}, {"mode": "1lead"}, {"window": 4.0, "stride": 2.0}])
def test_flags_and_inputs_are_those_without_it(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = Preparation(**settings)  # type: ignore[arg-type]

    def prepared(number: int) -> object:
        samples, leads, rate, _derived = _spoilt(number)
        try:
            signal = prepare(Recording(samples, rate, leads, "test"), chosen)
        except signals.PrepareError as error:
            return str(error)
        return signal.flags, [each.tobytes() for each in signal.inputs]

    quick = [prepared(number) for number in range(150)]
    monkeypatch.setattr(signals, "screen", lambda *_arguments, **_settings: Screening())
    assert quick == [prepared(number) for number in range(150)]


def _flags_of_both(recording: Recording, chosen: Preparation) -> tuple[list[str], list[str]]:
    """The flags with the quick look, and without it."""
    quick = list(prepare(recording, chosen).flags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "screen", lambda *_arguments, **_settings: Screening())
        return quick, list(prepare(recording, chosen).flags)


@needs_compiled
def test_a_window_that_ends_between_two_samples_has_the_same_flags() -> None:
    rate, n = (
        1024.0,
        3120,
    )  # the window is one sample shorter than what is looked at, and so are the blocks of its baseline
    at = np.arange(n) / rate
    found = set()
    for wander in np.linspace(0.45, 0.55, 21):
        wave = wander * np.sin(2 * np.pi * 0.15 * at + 1)
        for beat in (0.5, 1.3, 2.1, 2.9, n / rate - 0.05):
            wave += np.maximum(0, 1 - np.abs(at - beat) / 0.04)
        lead = {
            "I": wave,
            "II": 1.3 * wave,
            "III": 0.3 * wave,
            "aVR": -1.15 * wave,
            "aVL": 0.35 * wave,
            "aVF": 0.8 * wave,
        }
        samples = np.stack([lead.get(name, wave) for name in STANDARD_LEADS]).astype(np.float32)
        quick, full = _flags_of_both(Recording(samples, rate, STANDARD_LEADS, "test"), Preparation())
        assert quick == full
        found.add(any(flag.startswith("baseline_dominates") for flag in full))
    assert found == {False, True}


@needs_compiled
def test_a_lead_that_does_not_move_has_no_baseline() -> None:
    rng, at = np.random.default_rng(7), np.arange(1353) / 100
    beats = np.maximum(0, 1 - np.abs(at % 0.8 - 0.4) / 0.06) + 0.3 * np.sin(2 * np.pi * 0.3 * at)
    for level in (-3.9739366, *rng.normal(0, 3, 100), 1e5):
        samples = np.stack([beats, np.full(len(at), level)]).astype(np.float32)
        quick, full = _flags_of_both(
            Recording(samples, 100, ("I", "V1"), "test"), Preparation(mode="1lead", lead="all")
        )
        assert quick == full
        assert not any(flag.startswith("baseline_dominates") for flag in full)


@needs_compiled
@pytest.mark.parametrize("exponent", [-25, -10, 4, 6, 7, 8])
def test_offsets_and_amplitudes_of_any_size_have_the_same_baseline(exponent: int) -> None:
    rng = np.random.default_rng(exponent + 30)
    for samples, rate in PARTS[:10]:
        changed = samples + (rng.normal(0, 10.0**exponent, (12, 1)) if exponent > 0 else 0)
        changed = (changed * (10.0**exponent if exponent < 0 else 1)).astype(np.float32)
        for per_lead in (False, True):
            if screen(changed, STANDARD_LEADS, rate, per_lead=per_lead).has_small_baseline:
                assert not quality.baseline_flags(changed, rate, [(0, changed.shape[1])], per_lead=per_lead)


@needs_compiled
def test_most_recordings_are_unremarkable() -> None:
    clean = [samples for samples in PARTS if not quality.assess(samples[0], STANDARD_LEADS, samples[1])]
    looks = [screen(samples, STANDARD_LEADS, rate, per_lead=False) for samples, rate in clean]
    assert sum(each.is_unremarkable for each in looks) >= 0.9 * len(clean)
    assert sum(each.has_small_baseline for each in looks) >= 0.8 * len(clean)


@needs_compiled
def test_a_pulse_that_the_window_cuts_off_is_found() -> None:
    samples, rate = next((samples.copy(), rate) for samples, rate in PARTS if rate == 500)
    stop = round(5 * rate)
    samples[:, stop - 50 : stop + 80] = samples[:, stop - 51 : stop - 50]
    samples[:, stop - 30 : stop + 60] += np.float32(1)
    signal = prepare(Recording(samples, rate, STANDARD_LEADS, "test"), Preparation(window=5.0))
    assert any(flag.startswith("calibration_pulse") for flag in signal.flags)


@needs_compiled
def test_rows_and_lengths_that_do_not_fit_are_refused() -> None:
    passes = screening._passes
    assert passes is not None
    samples = np.zeros((2, 100), np.float32)
    rows, lengths, limits = np.full(7, -1), np.ones(12, np.int64), np.zeros(19)
    sound = [samples, rows, rows, np.zeros(1, np.int64), lengths, limits]
    assert passes.screen(*sound, True, False) >= 0
    for place, wrong in (
        *((place, np.full(7, value)) for place in (1, 2) for value in (-2, 2)),
        *((place, rows[:6]) for place in (1, 2)),
        *((3, np.array(chosen, np.int64)) for chosen in ([], [2], [-1])),
        *((4, values) for values in (lengths[:11], 0 * lengths, lengths << 40)),
        (5, limits[:18]),
        (0, samples[:, ::2]),
        (0, samples[:, :0]),
        (0, samples.astype(np.float64)),
    ):
        given = [*sound]
        given[place] = wrong
        with pytest.raises(ValueError, match=r"must be|are needed"):
            passes.screen(*given, True, False)
