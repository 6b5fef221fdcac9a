"""What embeddings know about one factor: how far apart its levels are, permutation tests, probes.

In: a `Study` and a factor. Out: its figures, and a `FactorProbe` for what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.acquisition.discrepancy import (
    Sums,
    Test,
    between_patients,
    drawn_sizes,
    within_patients,
    within_shift2,
)
from ecgfounder.analysis.acquisition.drift_result import LINEAR, NON_LINEAR, DriftSettings, Figures
from ecgfounder.analysis.acquisition.factors import FEWEST_PATIENTS, Factor
from ecgfounder.analysis.acquisition.fourier import Fourier, standard
from ecgfounder.analysis.pages.page import shown_count
from ecgfounder.analysis.probing.controls import permutations, sample_of_patients
from ecgfounder.analysis.statistics.evaluation import MACRO, Data, Evaluation, evaluate_features, evaluate_made_features
from ecgfounder.analysis.statistics.fitting import BINARY, NUMBER, Task
from ecgfounder.analysis.statistics.intervals import FEW_PATIENTS, Estimate, difference, interval
from ecgfounder.analysis.statistics.solver import Floats, Numbers
from ecgfounder.analysis.statistics.splits import Split, cross_validation, grouped_folds
from ecgfounder.escaping import counted

FOR_CHANCE = 2000
"""Recordings, from whole patients, on which the probe of permuted levels is fitted."""

PROBE_FREQUENCIES, KERNEL_FREQUENCIES = 256, 512
"""Random frequencies of the non-linear probe, and of the kernel of the discrepancy."""

SIZE_DRAWS = 200
"""Draws of patients for the intervals of sizes, at most."""

PAIRED = "paired, in the same draws of patients"
"""What the table says about a difference."""

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Study:
    """The recordings of an analysis, and what was found about them.

    Attributes
    ----------
    X : numpy.ndarray
        float32 [n, d]: embeddings.
    groups : numpy.ndarray
        int64 [n]: the number of each recording's patient, from 0 without gaps.
    settings : DriftSettings
        The settings.
    say : callable
        Called with lines on the progress.
    figures : Figures
        The figures.
    notes : list of str
        What a reader must know.
    """

    X: Floats
    groups: Numbers
    settings: DriftSettings
    say: Say
    figures: Figures
    notes: list[str] = field(default_factory=list)

    @property
    def n_patients(self) -> int:
        """The number of patients."""
        return int(self.groups.max()) + 1

    @cached_property
    def standardised(self) -> Floats:
        """float32 [n, d]: embeddings with mean 0 and standard deviation 1."""
        mean, scale = standard(self.X, np.arange(len(self.X)))
        return np.asarray((self.X - mean) / scale, dtype=np.float32)

    @cached_property
    def kernel(self) -> Floats:
        """float32 [n, 2 m]: features whose products are a Gaussian kernel of embeddings."""
        rng = np.random.default_rng([self.settings.seed, 7])
        return Fourier.of(self.X, np.arange(len(self.X)), KERNEL_FREQUENCIES, rng).features(self.X)

    def folds(self, Y: Floats, groups: Numbers) -> tuple[Split, ...]:
        """Folds by patient, stratified by labels."""
        rng = np.random.default_rng([self.settings.seed, 0])
        return tuple(cross_validation(grouped_folds(groups, Y, self.settings.folds, rng)))

    def with_fourier(self, X: Floats, split: Split) -> Floats:
        """Features, and random Fourier features of them that are made from the training part."""
        rng = np.random.default_rng([self.settings.seed, 13])
        return np.concatenate([X, Fourier.of(X, split.train, PROBE_FREQUENCIES, rng).features(X)], axis=1)


@dataclass(frozen=True, eq=False)
class FactorProbe:
    """A factor, and the data of its probe.

    Attributes
    ----------
    factor : Factor
        The factor.
    data : Data
        Its levels or numbers as labels, and splits of its own.
    """

    factor: Factor
    data: Data

    @property
    def metric(self) -> str:
        """The metric that its probes have."""
        return "r2" if self.factor.is_number else "auroc"

    @property
    def chance(self) -> float:
        """The metric without any knowledge."""
        return 0.0 if self.factor.is_number else 0.5

    def overall(self, found: Evaluation) -> str:
        """The name of the estimate that is about all levels that could be scored."""
        return MACRO if MACRO in found.estimates else found.labels[0]

    def level(self, name: str) -> str:
        """The level of a label's name."""
        return "" if name == MACRO or self.factor.is_number else name

    def numbers(self, found: Evaluation, name: str) -> tuple[int | None, int | None, int | None]:
        """Recordings, patients, patients with the level."""
        if name not in found.counts:
            known = np.isfinite(self.data.Y).any(axis=1)
            return int(known.sum()), len(np.unique(self.data.groups[known])), None
        counts = found.counts[name]
        return counts.n_records, counts.n_patients, None if self.factor.is_number else counts.n_pos_patients


def measure_factor(study: Study, factor: Factor) -> FactorProbe:
    """Add all figures about a factor; returns its probe."""
    _add_sizes(study, factor)
    _add_tests(study, factor)
    return _add_probe(study, factor)


def _add_sizes(study: Study, factor: Factor) -> None:
    """How far apart levels are."""
    settings, rows = study.settings, factor.known
    level = factor.codes[rows]
    _, patient = np.unique(study.groups[rows], return_inverse=True)
    n_draws = min(SIZE_DRAWS, settings.n_draws)
    n_patients = int(patient.max()) + 1

    def add(metric: str, control: str, estimate: Estimate, numbers: tuple[int | None, ...], name: str = "") -> None:
        n_records, n_all, n_level = numbers
        where = (n_records, n_all, n_level)
        study.figures.add(factor, metric, control, estimate, where, level=name, chance=0.0, split="")

    found = {}
    for name, F in (("kernel", study.kernel), ("variance", study.standardised)):
        sums = Sums.of(F[rows], patient, level, len(factor.levels))
        own, drawn = sums.sizes(), drawn_sizes(sums, n_draws, np.random.default_rng([settings.seed, 8]))
        share = interval(float(own.between[0]), drawn.between, "normal")
        add(f"{name} share", "all recordings", share, (len(rows), n_patients, None))
        found[name] = own, drawn
    rng = np.random.default_rng([settings.seed, 9])
    (of_kernel, drawn_kernel), (own, drawn) = found["kernel"], found["variance"]
    for number, each in enumerate(factor.levels):
        numbers = (len(rows), n_patients, each.n_patients)
        shift2 = interval(float(own.shift2[0, number]), drawn.shift2[:, number], "normal")
        add("shift", "all recordings", _root(shift2), numbers, each.name)
        values, n_both = within_shift2(study.standardised[rows], patient, level == number, n_draws, rng)
        if n_both >= FEWEST_PATIENTS:
            scaled = values / (2 * own.variance[0])
            shift2 = interval(float(scaled[0]), scaled[1:], "normal")
            add("shift", "same patients", _root(shift2), (None, n_both, n_both), each.name)
        mmd2 = interval(float(of_kernel.mmd2[0, number]), drawn_kernel.mmd2[:, number], "normal")
        add("mmd2", "all recordings", mmd2, numbers, each.name)


def _root(squared: Estimate) -> Estimate:
    """The square root of an estimate and its interval; 0 where it is negative, as it may be without bias."""
    value, low, high = (
        float(np.sqrt(max(0.0, each))) if np.isfinite(each) else float("nan")
        for each in (squared.value, squared.low, squared.high)
    )
    return replace(squared, value=value, low=low, high=high)


# --- permutation tests --------------------------------------------------------------------------------------------------


def _add_tests(study: Study, factor: Factor) -> None:
    """Permutation tests: of patients with one level, of patients with several."""
    groups, rows = study.groups, factor.known
    varies = _has_several(factor.codes[rows], groups[rows])
    if varies.any():
        n_varying = len(np.unique(groups[rows[varies]]))
        study.notes.append(
            f"{factor.name} varies within {shown_count(n_varying)} patients, whose recordings are permuted within the patient; "
            "whole patients are permuted among the others"
        )
    for test, how, at in (
        (between_patients, "between patients", rows[~varies]),
        (within_patients, "within patients", rows[varies]),
    ):
        if not len(at):
            continue
        at = at[_has_enough(factor.codes[at], groups[at])]
        if test is within_patients:  # a patient may be left with one level
            at = at[_has_several(factor.codes[at], groups[at])]
        _, level = np.unique(factor.codes[at], return_inverse=True)
        _, patient = np.unique(groups[at], return_inverse=True)
        n_levels, n_patients = (int(each.max(initial=-1)) + 1 for each in (level, patient))
        numbers = (len(at), n_patients, None)
        if n_levels < 2:
            reason = f"not tested: fewer than two levels have {FEWEST_PATIENTS} such patients"
            study.figures.add(factor, "none", how, Estimate(np.nan), numbers, note=reason, split="")
            continue
        rng = np.random.default_rng([study.settings.seed, 10])
        found = test(study.kernel[at], patient, level, n_levels, study.settings.permutations, rng)
        _add_test(study, factor, found, how, numbers)


def _add_test(study: Study, factor: Factor, found: Test, how: str, numbers: tuple[int, int, None]) -> None:
    B = len(found.permuted)
    low, high = np.quantile(found.permuted, [0.025, 0.975])
    note = f"{counted(B, 'permutation')}, of which 95 % lie between {low:.4f} and {high:.4f}"
    chance = float(found.permuted.mean())
    add = study.figures.add
    add(factor, "kernel share", how, Estimate(found.statistic), numbers, chance=chance, note=note, split="")
    note = f"{counted(B, 'permutation')}; the smallest possible value is {1 / (1 + B):.3g}"
    add(factor, "p-value", how, Estimate(found.p_value), numbers, note=note, split="")


def _has_enough(codes: Numbers, groups: Numbers) -> npt.NDArray[np.bool_]:
    """Whether enough of these patients have each recording's level."""
    pairs = np.unique(np.stack([codes, groups], axis=1), axis=0)
    return np.asarray(np.bincount(pairs[:, 0])[codes] >= FEWEST_PATIENTS)


def _has_several(codes: Numbers, groups: Numbers) -> npt.NDArray[np.bool_]:
    """Whether each recording's patient has several levels."""
    pairs = np.unique(np.stack([groups, codes], axis=1), axis=0)
    return np.asarray(np.bincount(pairs[:, 0])[groups] > 1)


# --- probes -------------------------------------------------------------------------------------------------------------


def _add_probe(study: Study, factor: Factor) -> FactorProbe:
    """Linear and non-linear probes of the factor, and the linear one of permuted levels."""
    settings = study.settings
    Y = factor.labels()
    kind = NUMBER if factor.is_number else BINARY
    task = Task(factor.label_names, kind, penalties=settings.penalties, inner_folds=settings.inner_folds)
    data = Data(Y, study.groups, study.folds(_strata(factor, Y), study.groups), task, settings.seed, settings.n_draws)
    probe = FactorProbe(factor, data)
    linear = evaluate_features(study.X, data)
    add_probe_rows(study, probe, linear, LINEAR)
    if linear.labels:
        more = evaluate_made_features(lambda split: study.with_fourier(study.X, split), data)
        add_probe_rows(study, probe, more, NON_LINEAR)
        name, metric = probe.overall(linear), probe.metric
        value = more.estimates[name][metric].value - linear.estimates[name][metric].value
        paired = difference(more.draws[name][metric], linear.draws[name][metric], value)
        numbers, control = probe.numbers(linear, name), f"{NON_LINEAR} minus {LINEAR}"
        study.figures.add(factor, f"{metric} difference", control, paired, numbers, chance=0.0, note=PAIRED)
        _add_chance(study, probe)
    return probe


def _strata(factor: Factor, Y: Floats) -> Floats:
    return Y[:, :0] if factor.is_number else Y


def add_probe_rows(study: Study, probe: FactorProbe, found: Evaluation, control: str) -> None:
    """Add the figures of one probe of a factor, or say why there are none."""
    factor, metric, add = probe.factor, probe.metric, study.figures.add
    for name, reason in found.not_scored.items():
        numbers, level = probe.numbers(found, name), probe.level(name)
        add(factor, "none", control, Estimate(np.nan), numbers, level=level, note=f"not scored: {reason}")
    for name, estimates in found.estimates.items():
        rarer = min(found.counts[each].rarer for each in (found.labels if name == MACRO else (name,)))
        note = f"few patients (fewer than {FEW_PATIENTS} in the rarer class)" if rarer < FEW_PATIENTS else ""
        numbers = probe.numbers(found, name)
        levels = {probe.level(name), ""} if name == probe.overall(found) else {probe.level(name)}
        for level in sorted(levels):
            add(factor, metric, control, estimates[metric], numbers, level=level, chance=probe.chance, note=note)
    if factor.is_number and found.labels:
        y = probe.data.Y[:, 0]
        chance = float(np.nanmean(np.abs(y - np.nanmedian(y))))
        numbers = probe.numbers(found, factor.name)
        note = "in the unit of the column; chance is that of the median for all"
        add(factor, "mae", control, found.estimates[factor.name]["mae"], numbers, chance=chance, note=note)


def _add_chance(study: Study, probe: FactorProbe) -> None:
    """The linear probe of levels that were exchanged between patients, through the whole pipeline."""
    settings, factor = study.settings, probe.factor
    if not settings.chance:
        return
    kept = sample_of_patients(study.groups, FOR_CHANCE, settings.seed)
    data = replace(probe.data.at(kept), n_draws=2)
    own = evaluate_features(study.X[kept], data)
    if not own.labels:
        return

    def remade(Y: Floats, of: Data) -> Data:
        return replace(of, Y=Y, splits=study.folds(_strata(factor, Y), of.groups))

    found = permutations(study.X[kept], data, own, settings.chance, remade)
    values = found.values[probe.overall(own)]
    if values:
        note = f"mean and range of {counted(len(values), 'permutation')} on {counted(len(kept), 'recording')}"
        estimate = Estimate(float(np.mean(values)), min(values), max(values))
        numbers = (len(kept), len(np.unique(data.groups)), None)
        study.figures.add(factor, probe.metric, "permuted levels", estimate, numbers, chance=probe.chance, note=note)
