"""What the acquisition does to the prediction of labels: within levels, across levels, without what is known of the factor.

In: a `Study`, labels, factors with their probes. Out: figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from ecgfounder.analysis.acquisition.drift_factor import PAIRED, FactorProbe, Study, add_probe_rows
from ecgfounder.analysis.acquisition.drift_result import (
    BETWEEN,
    LEACE,
    LEFT_OUT,
    LINEAR,
    NON_LINEAR,
    POOLED,
    PREVALENCE,
    RANDOM,
    WITHIN,
)
from ecgfounder.analysis.acquisition.erasure import Eraser, Erasers
from ecgfounder.analysis.acquisition.factors import Factor
from ecgfounder.analysis.rows.labels import LabelSet
from ecgfounder.analysis.statistics.evaluation import FEWEST_IN_TEST, Data, evaluate_features, evaluate_made_features
from ecgfounder.analysis.statistics.fitting import Task
from ecgfounder.analysis.statistics.intervals import FEW_PATIENTS, Estimate, difference, interval
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.analysis.statistics.strata import Pairs, areas, ratio
from ecgfounder.escaping import counted, one_line


def measure_labels(study: Study, labels: LabelSet, probes: Sequence[FactorProbe]) -> None:
    """Add all figures about the prediction of labels across the levels of factors."""
    settings = study.settings
    task = Task(labels.names, penalties=settings.penalties, inner_folds=settings.inner_folds)
    data = Data(labels.Y, study.groups, study.folds(labels.Y, study.groups), task, settings.seed, n_draws=2)
    study.say(f"{counted(len(labels.names), 'label')}: {', '.join(map(one_line, labels.names))}")
    own = evaluate_features(study.X, data)
    for name, reason in own.not_scored.items():
        study.notes.append(f"the label {name} is not scored: {reason}")
    if not own.labels:
        return
    data = data.only(own.labels)
    for probe in probes:
        factor = probe.factor
        study.say(f"{one_line(factor.name)}: labels within its levels, and levels left out")
        scores = {POOLED: own.scores, PREVALENCE: prevalence_scores(data, factor.sites)}
        scores[LEFT_OUT] = _left_out(study, data, factor)
        if settings.random_directions:
            scores |= _removed(study, data, probe)
        for number, name in enumerate(data.task.labels):
            of_label = {key: each[:, number] for key, each in scores.items()}
            _LabelFigures(study, factor, name, data.Y[:, number], own.fold, of_label).add()


def _left_out(study: Study, data: Data, factor: Factor) -> Doubles:
    """The scores of each level's recordings by probes that were trained on the other levels, without its patients."""
    scores = np.full(data.Y.shape, np.nan)
    for number, level in enumerate(factor.levels):
        test = np.flatnonzero(factor.codes == number)
        own = np.isin(study.groups, study.groups[test])
        train = np.flatnonzero((factor.sites >= 0) & (factor.codes != number) & ~own)
        if level.pooled or not len(train):
            continue
        found = evaluate_features(study.X, replace(data, splits=(Split(train, test),)))
        for column, name in enumerate(found.labels):
            scores[test, data.task.labels.index(name)] = found.scores[test, column]
    return scores


# --- without what the embedding knows of the factor ---------------------------------------------------------------------


class _Removal:
    """What is removed in each split: made from its training part."""

    def __init__(self, study: Study, factor: Factor) -> None:
        self._study, self._concept, self._known = study, factor.concept(), factor.codes >= 0
        self._made: dict[bytes, Erasers] = {}

    def leace(self, split: Split) -> Eraser:
        return self._of(split).leace

    def random(self, number: int, split: Split) -> Eraser:
        rng = np.random.default_rng([self._study.settings.seed, 11, number, int(split.test[0])])
        return self._of(split).random(rng)

    def without(self, split: Split) -> Floats:
        """The embeddings after LEACE."""
        return self.leace(split).features(self._study.X)

    def without_random(self, number: int, split: Split) -> Floats:
        """The embeddings after the removal of random directions."""
        return self.random(number, split).features(self._study.X)

    def _of(self, split: Split) -> Erasers:
        key = split.test.tobytes()
        if key not in self._made:
            self._made[key] = Erasers.of(self._study.X, self._concept, split.train[self._known[split.train]])
        return self._made[key]


def _removed(study: Study, data: Data, probe: FactorProbe) -> dict[str, Doubles]:
    """Scores of the labels after LEACE, and after random directions; adds what is left of the factor."""
    factor, n_random = probe.factor, study.settings.random_directions
    study.say(f"{one_line(factor.name)}: labels without what the embedding knows linearly about it")
    removal = _Removal(study, factor)
    scores = {LEACE: evaluate_made_features(removal.without, data).scores}
    for number in range(n_random):
        without = partial(removal.without_random, number)
        scores[f"{RANDOM} {number}"] = evaluate_made_features(without, data).scores
    for control, erasers in (
        (LEACE, [removal.leace(split) for split in data.splits]),
        (RANDOM, [removal.random(number, split) for split in data.splits for number in range(n_random)]),
    ):
        removed = [each.removed for each in erasers]
        estimate = Estimate(float(np.mean(removed)), min(removed), max(removed))
        directions = counted(max(each.n_directions for each in erasers), "direction")
        note = f"share of the variance; {directions}; mean and range over training parts"
        study.figures.add(factor, "variance removed", control, estimate, (len(study.X), None, None), note=note)
    removal = _Removal(study, factor)  # the factor's probe has other splits
    for control, make in (
        (f"{LINEAR} after {LEACE}", removal.without),
        (f"{NON_LINEAR} after {LEACE}", lambda split: study.with_fourier(removal.without(split), split)),
        (f"{LINEAR} after {RANDOM}", partial(removal.without_random, 0)),
    ):
        add_probe_rows(study, probe, evaluate_made_features(make, probe.data), control)
    return scores


# --- figures of one label and factor ------------------------------------------------------------------------------------

_POOLED_WITHIN = f"{POOLED}, {WITHIN}"
_SEEN_WITHIN = f"{WITHIN}, levels left out"
"""The pairs within levels, of the levels that were left out too."""


class _LabelFigures:
    """The figures of a label across the levels of a factor, from scores of different probes."""

    def __init__(
        self, study: Study, factor: Factor, label: str, y: Floats, fold: Numbers, scores: Mapping[str, Doubles]
    ) -> None:
        self._study, self._factor, self._label = study, factor, label
        used = np.isfinite(y) & (factor.sites >= 0) & (fold >= 0)
        self._tests: dict[str, Pairs] = {}
        self._of_levels: list[tuple[str, str, str]] = []
        for name, each in scores.items():
            at = np.flatnonzero(used & np.isfinite(each))
            stratum = factor.sites if name == LEFT_OUT else fold
            test = Pairs(y[at] > 0.5, each[at], stratum[at], study.groups[at])
            self._tests[name] = test
            if name in (LEFT_OUT, PREVALENCE):
                continue
            within = self._tests[f"{name}, {WITHIN}"] = test.within(factor.sites[at])
            if name == POOLED:
                self._tests[_SEEN_WITHIN] = within.at(np.isfinite(scores[LEFT_OUT][at]))
                self._by_level(WITHIN, within, at)
        left_out = self._tests[LEFT_OUT]
        self._by_level(LEFT_OUT, left_out, np.flatnonzero(used & np.isfinite(scores[LEFT_OUT])))
        rng = np.random.default_rng([study.settings.seed, 12])
        found = areas(self._tests, study.n_patients, study.settings.n_draws, rng)
        pooled, within_pairs = found[POOLED], found[_POOLED_WITHIN]
        found[BETWEEN] = pooled[0] - within_pairs[0], pooled[1] - within_pairs[1]
        self._tests[BETWEEN] = self._tests[POOLED]
        self._drawn = {name: ratio(*each) for name, each in found.items()}
        self._share = float(within_pairs[1][0] / pooled[1][0]) if pooled[1][0] else np.nan

    def _by_level(self, control: str, test: Pairs, at: Numbers) -> None:
        """The same pairs of each level by itself, if it has enough patients."""
        for number, level in enumerate(self._factor.levels):
            own = test.at(self._factor.codes[at] == number)
            if not level.pooled and own.rarer >= FEWEST_IN_TEST:
                key = f"{control}: {number}"
                self._tests[key] = own
                self._of_levels.append((key, control, level.name))

    def add(self) -> None:
        """Add them."""
        share = "" if np.isnan(self._share) else f": {self._share:.1%} of all pairs"
        self._put(POOLED, POOLED)
        self._put(WITHIN, _POOLED_WITHIN, f"pairs of one level only{share}")
        self._put(BETWEEN, BETWEEN, "pairs of different levels only")
        self._put(LEFT_OUT, LEFT_OUT, "pairs of one level only, which the probe has not seen")
        self._put(PREVALENCE, PREVALENCE, "the score is the level's share of the label in the training part")
        self._difference(POOLED, POOLED, WITHIN, _POOLED_WITHIN)
        self._difference(LEFT_OUT, LEFT_OUT, WITHIN, _SEEN_WITHIN, "on the same levels")
        if LEACE in self._tests:
            self._put(f"{POOLED} after {LEACE}", LEACE)
            self._put(f"{WITHIN} after {LEACE}", f"{LEACE}, {WITHIN}")
            self._random(POOLED, "")
            self._random(WITHIN, f", {WITHIN}")
            self._difference(f"{POOLED} after {LEACE}", LEACE, POOLED, POOLED)
        for key, control, level in self._of_levels:
            self._put(control, key, level=level)

    def _put(self, control: str, key: str, note: str = "", *, level: str = "") -> None:
        values, test = self._drawn[key], self._tests[key]
        notes = [note] if note else []
        if not np.isfinite(values[0]):
            notes.append("no such pair of recordings with and without the label")
        elif test.rarer < FEW_PATIENTS:
            notes.append(f"few patients (fewer than {FEW_PATIENTS} in the rarer class)")
        self._row("auroc", control, interval(float(values[0]), values[1:], "logit"), test, "; ".join(notes), 0.5, level)

    def _difference(self, first: str, first_key: str, second: str, second_key: str, note: str = "") -> None:
        a, b = self._drawn[first_key], self._drawn[second_key]
        if np.isfinite(a[0]) and np.isfinite(b[0]):
            estimate = difference(a[1:], b[1:], float(a[0] - b[0]))
            note = f"{PAIRED}; {note}" if note else PAIRED
            self._row("auroc difference", f"{first} minus {second}", estimate, self._tests[first_key], note, 0.0)

    def _random(self, control: str, suffix: str) -> None:
        """Mean and range over removals of random directions."""
        keys = [f"{RANDOM} {number}{suffix}" for number in range(self._study.settings.random_directions)]
        values = np.array([self._drawn[key][0] for key in keys])
        if np.isfinite(values).all():
            note = f"mean and range of {counted(len(values), 'removal')} of random directions of equal variance"
            estimate = Estimate(float(values.mean()), float(values.min()), float(values.max()))
            self._row("auroc", f"{control} after {RANDOM}", estimate, self._tests[keys[0]], note, 0.5)

    def _row(
        self,
        metric: str,
        control: str,
        estimate: Estimate,
        test: Pairs,
        note: str,
        chance: float,
        level: str = "",
    ) -> None:
        numbers = (len(test.y), len(np.unique(test.patient)), len(np.unique(test.patient[test.y])))
        split = f"one level of {self._factor.name} left out" if control == LEFT_OUT else None
        self._study.figures.add(
            self._factor,
            metric,
            control,
            estimate,
            numbers,
            label=self._label,
            level=level,
            chance=chance,
            note=note,
            split=split,
        )


def prevalence_scores(data: Data, sites: Numbers) -> Doubles:
    """The share of each label in the site of each tested recording, in the training part: float64 [n, n_labels].

    One recording with the share of the whole training part is counted with each site, for those that have few. NaN where the
    site is unknown.
    """
    scores = np.full(data.Y.shape, np.nan)
    n_sites = int(sites.max(initial=-1)) + 1
    for split in data.splits:
        for label in range(data.Y.shape[1]):
            y = data.Y[split.train, label]
            known = split.train[np.isfinite(y) & (sites[split.train] >= 0)]
            share = float(data.Y[known, label].mean()) if len(known) else 0.5
            positive = np.bincount(sites[known], data.Y[known, label].astype(np.float64), n_sites)
            by_site = (positive + share) / (np.bincount(sites[known], minlength=n_sites) + 1)
            test = split.test[sites[split.test] >= 0]
            scores[test, label] = by_site[sites[test]]
    return scores
