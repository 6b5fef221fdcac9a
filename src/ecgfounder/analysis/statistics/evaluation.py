"""Evaluating features, or scores that are there already, on splits.

In: features or scores, and `Data`: labels, patients, splits. Out: an `Evaluation`: metrics with intervals, scores of the test
parts, the fitted models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ecgfounder.analysis.statistics.fitting import BINARY, NUMBER, TIME, Fitted, Task, fit_split
from ecgfounder.analysis.statistics.intervals import Estimate, combined, drawn_patients, interval, kind_of
from ecgfounder.analysis.statistics.metrics import BinaryTest, NumberTest
from ecgfounder.analysis.statistics.recalibration import reach_of, reaches, recalibration
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers
from ecgfounder.analysis.statistics.splits import Split
from ecgfounder.analysis.statistics.time_metrics import TimeTest
from ecgfounder.analysis.statistics.windows import Windows, means_of

FEWEST_IN_TEST, FEWEST_IN_TRAINING = 10, 20
"""With fewer patients in the rarer class, a label is counted and not scored."""

_RARER_CLASS = "of the rarer class"

Test = BinaryTest | NumberTest | TimeTest

MACRO = "(macro)"
"""The name of the mean over labels."""


@dataclass(frozen=True, eq=False)
class Data:
    """What features are evaluated on.

    Attributes
    ----------
    Y : numpy.ndarray
        float32 [n, n_labels]; NaN where unknown.
    groups : numpy.ndarray
        int64 [n]: the number of each recording's patient.
    splits : tuple of Split
        The splits.
    task : Task
        What is predicted.
    seed : int
        Seed of inner folds and draws.
    n_draws : int
        Draws of patients for an interval.
    bands : numpy.ndarray or None
        int64 [n]: the band of each recording, or -1, for prediction intervals by band.
    """

    Y: Floats
    groups: Numbers
    splits: tuple[Split, ...]
    task: Task
    seed: int = 0
    n_draws: int = 1000
    bands: Numbers | None = None

    def counts(self) -> dict[str, Counts]:
        """The patients and recordings of each label."""
        return {name: self._counts(label) for label, name in enumerate(self.task.labels)}

    def _counts(self, label: int) -> Counts:
        y = self.Y[:, label]
        known = np.isfinite(y)
        test = np.unique(np.concatenate([split.test for split in self.splits]))
        rows = test[known[test]]

        def patients(of: Numbers, value: float) -> int:
            return len(np.unique(self.groups[of[y[of] == value]]))

        n_patients = len(np.unique(self.groups[rows]))
        if self.task.kind == NUMBER:
            in_training = min(len(np.unique(self.groups[split.train[known[split.train]]])) for split in self.splits)
            return Counts(len(rows), n_patients, n_patients, 0, n_patients, in_training, True, "with a known number")
        if self.task.kind == TIME:
            return self._counts_of_times(y, rows, n_patients)
        positive, negative = patients(rows, 1), patients(rows, 0)
        in_training = min(min(patients(split.train, 1), patients(split.train, 0)) for split in self.splits)
        both = all(patients(split.test, 1) and patients(split.test, 0) for split in self.splits)
        return Counts(
            len(rows), n_patients, positive, int((y[rows] == 1).sum()), min(positive, negative), in_training, both
        )

    def _counts_of_times(self, y: Floats, rows: Numbers, n_patients: int) -> Counts:
        """Of times, of which `rows` are tested; up to a horizon the classes are those with the event and those without."""
        time, event = np.abs(y), y > 0

        def patients(of: Numbers, mask: npt.NDArray[np.bool_]) -> int:
            return len(np.unique(self.groups[of[mask[of]]]))

        in_training = min(patients(split.train, event) for split in self.splits)

        def counts(positive: npt.NDArray[np.bool_], *classes: tuple[npt.NDArray[np.bool_], str]) -> Counts:
            each, rarer, which = min(
                (all(patients(split.test, mask) for split in self.splits), patients(rows, mask), which)
                for mask, which in classes
            )
            n_positive = patients(rows, positive), int(positive[rows].sum())
            return Counts(len(rows), n_patients, *n_positive, rarer, in_training, each, which)

        of_all = counts(event, (event, "with the event"))
        last = self.task.horizons[-1]
        before = event & (time < np.float32(last))
        at = {"": counts(event, (before, f"with the event before {last:g}"))}
        for each in self.task.horizons:
            case, control = event & (time <= np.float32(each)), time > np.float32(each)
            classes = (case, f"with the event up to {each:g}"), (control, f"observed beyond {each:g}")
            at[f"{each:g}"] = counts(case, *classes)
        return replace(of_all, at=at)

    def draws(self, number: int) -> Doubles:
        """How often each patient of a split's test part is in each draw: float64 [n_draws, patients]."""
        n_patients = len(np.unique(self.groups[self.splits[number].test]))
        return drawn_patients(n_patients, self.n_draws, np.random.default_rng([self.seed, 2, number]))

    def only(self, labels: Sequence[str]) -> Data:
        """The same with some of the labels."""
        at = [self.task.labels.index(name) for name in labels]
        return replace(self, Y=self.Y[:, at], task=replace(self.task, labels=tuple(labels)))

    def at(self, rows: Numbers) -> Data:
        """The same with some of the recordings, in ascending order."""
        place = np.full(len(self.Y), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))

        def moved(part: Numbers) -> Numbers:
            return place[part][place[part] >= 0]

        splits = tuple(
            Split(moved(each.train), moved(each.test), None if each.validation is None else moved(each.validation))
            for each in self.splits
        )
        _, groups = np.unique(self.groups[rows], return_inverse=True)
        bands = None if self.bands is None else self.bands[rows]
        return replace(self, Y=self.Y[rows], groups=groups, splits=splits, bands=bands)


@dataclass(frozen=True)
class Counts:
    """Of the test parts together: recordings and patients of a label.

    Attributes
    ----------
    n_records, n_patients, n_pos_patients, n_pos_records : int
        Recordings and patients whose label is known; those with a positive one. For numbers, all patients; for times, those
        with the event.
    rarer : int
        Patients of the rarer class; for times, those with the event.
    in_training : int
        Patients of the rarer class in the smallest training part.
    in_each_test : bool
        Whether every test part has both classes.
    which : str
        What `rarer` counts, in words.
    at : mapping of str to Counts
        For times, what the metrics up to each horizon rest on, by the horizon's name; by "" what the others rest on.
    """

    n_records: int
    n_patients: int
    n_pos_patients: int
    n_pos_records: int
    rarer: int
    in_training: int
    in_each_test: bool
    which: str = _RARER_CLASS
    at: Mapping[str, Counts] = field(default_factory=dict)

    def of(self, metric: str) -> Counts:
        """What a metric rests on."""
        return self.at.get(metric.partition("@")[2], self)

    def why_not_scored(self, in_training: int = FEWEST_IN_TRAINING) -> str | None:
        """The reason why the label (or, of counts of a metric, the metric) is not scored; None if it is."""
        if self.rarer < FEWEST_IN_TEST:
            return f"fewer than {FEWEST_IN_TEST} patients {self.which} in the test part"
        if self.in_training < in_training:
            return f"fewer than {in_training} patients {self.which} in the training part"
        if not self.in_each_test:
            return f"a test part without {'one of the classes' if self.which == _RARER_CLASS else f'patients {self.which}'}"
        return self.at[""].why_not_scored(in_training) if self.at else None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The result for one set of features or scores.

    Attributes
    ----------
    counts : dict of str to Counts
        Of every label, also of those that are not scored.
    not_scored : dict of str to str
        The labels that are not scored, with the reason.
    estimates : dict of str to dict of str to Estimate
        By label, then by metric; NaN of a metric that too few patients are there for. "(macro)" is the mean over labels, if there
        are several.
    draws : dict of str to dict of str to numpy.ndarray
        The same in each draw of patients.
    scores : numpy.ndarray
        float64 [n, scored labels]: logits, or predicted numbers, of the test parts; NaN elsewhere.
    fold : numpy.ndarray
        int64 [n]: the split in whose test part a recording is; -1 for none.
    labels : tuple of str
        The scored labels.
    fitted : tuple of Fitted
        The models of each split; empty for scores that were there already.
    risks : numpy.ndarray or None
        float64 [n, horizons], for times: predicted risks of the test parts; NaN elsewhere.
    reach : numpy.ndarray or None
        float64 [n, scored labels], for numbers with prediction intervals: half their width; NaN elsewhere, and where too few
        patients are there for the level.
    """

    counts: dict[str, Counts]
    not_scored: dict[str, str]
    estimates: dict[str, dict[str, Estimate]]
    draws: dict[str, dict[str, Doubles]]
    scores: Doubles
    fold: Numbers
    labels: tuple[str, ...]
    fitted: tuple[Fitted, ...] = ()
    risks: Doubles | None = None
    reach: Doubles | None = None

    def test_of(self, data: Data, number: int, label: str, mask: npt.NDArray[np.bool_]) -> Test | None:
        """The recordings of a split's test part that are in a mask [n] and whose label is known; None if there are none.

        Patients are numbered as in `Data.draws`.
        """
        split, at = data.splits[number], self.labels.index(label)
        y, of_test = data.Y[split.test, data.task.labels.index(label)], self.scores[split.test]
        known = np.isfinite(y) & np.isfinite(of_test[:, at]) & mask[split.test]
        if not known.any():
            return None
        risks = None if self.risks is None else self.risks[split.test]
        reach = None if self.reach is None or data.task.interval is None else self.reach[split.test]
        scored = _Scored(of_test, self.fitted[number].thresholds, risks, reach)
        patients, patient = np.unique(data.groups[split.test], return_inverse=True)
        return _part(y, scored, known, at, patient, len(patients), data.task, True)


@dataclass(frozen=True, eq=False)
class _Scored:
    """Of one test part: scores [n, labels], the thresholds of each label, and for times the risks [n, horizons].

    For numbers with prediction intervals, `reach` [n, labels] is half their width.
    """

    scores: Doubles
    thresholds: Sequence[Mapping[str, float]]
    risks: Doubles | None = None
    reach: Doubles | None = None


def evaluate_features(X: Floats | Windows, data: Data, *, small_training: bool = False) -> Evaluation:
    """Fit and test a probe of features on each split; `small_training` allows fewer patients in the training part."""
    return evaluate_made_features(lambda split: X, data, small_training=small_training)


def evaluate_made_features(
    make: Callable[[Split], Floats | Windows], data: Data, *, small_training: bool = False
) -> Evaluation:
    """Fit and test a probe on each split, of features [n, d] that are made for it, from its training part alone."""
    counts, not_scored = _scorable(data, 1 if small_training else FEWEST_IN_TRAINING)
    scored = data.only([name for name in data.task.labels if name not in not_scored])
    if not scored.task.labels:
        return _nothing(data, counts, not_scored)
    fitted, of_splits = [], []
    for number, split in enumerate(scored.splits):
        X = make(split)
        models = fit_split(X, scored.Y, scored.groups, split, scored.task, scored.seed + number)
        fitted.append(models)
        of_test = models.weights.scores(means_of(X[split.test]))
        risks = None if models.baseline is None else models.baseline.risks(of_test[:, 0], scored.task.horizons)
        reach = None
        if scored.task.interval is not None and models.held is not None:
            bands = np.full(len(data.Y), -1) if data.bands is None else data.bands
            own = reaches(models.held, scored.Y, scored.groups, bands, scored.task.interval)
            reach = reach_of(own, bands[split.test])
        of_splits.append(_Scored(of_test, models.thresholds, risks, reach))
    return _measured(scored, of_splits, counts, not_scored, fitted=tuple(fitted))


def evaluate_scores(scores: Doubles, data: Data, *, is_logit: bool) -> Evaluation:
    """Test scores that are there already, without any training.

    Thresholds are chosen on the validation part, or without one on the training part.

    Parameters
    ----------
    scores : numpy.ndarray
        float64 [n, n_labels]; a recording without a score counts as one without a label.
    data : Data
        Labels and splits.
    is_logit : bool
        Whether they are logits of probabilities.
    """
    Y = np.where(np.isfinite(scores), data.Y, np.float32(np.nan)).astype(np.float32)
    data = replace(data, Y=Y)
    counts, not_scored = _scorable(data)
    labels = [name for name in data.task.labels if name not in not_scored]
    if not labels:
        return _nothing(data, counts, not_scored)
    scores = scores[:, [data.task.labels.index(name) for name in labels]]
    data = data.only(labels)
    of_splits = []
    for split in data.splits:
        rows = split.train if split.validation is None else split.validation
        thresholds: list[Mapping[str, float]] = []
        for label in range(len(labels)):
            y = data.Y[rows, label]
            known = rows[np.isfinite(y)]
            positive = data.Y[known, label] > 0.5
            both = positive.any() and not positive.all()
            thresholds.append(
                data.task.thresholds(positive, scores[known, label]) if both and data.task.kind == BINARY else {}
            )
        of_splits.append(_Scored(scores[split.test], tuple(thresholds)))
    return _measured(data, of_splits, counts, not_scored, is_logit=is_logit)


def evaluate_recalibrated(evaluation: Evaluation, data: Data) -> tuple[Evaluation, list[list[tuple[float, float]]]]:
    """The evaluation with recalibrated logits and thresholds, in the same draws of patients; and the intercepts and slopes of
    each split and label."""
    scored = data.only(evaluation.labels)
    of_splits, lines = [], []
    for split, models in zip(scored.splits, evaluation.fitted, strict=True):
        if models.held is None:
            raise ValueError("recalibration needs the scores of held-out recordings")
        line = recalibration(models.held, scored.Y)
        intercept, slope = np.array(line).T
        thresholds = [
            {name: a + b * value for name, value in each.items()}
            for (a, b), each in zip(line, models.thresholds, strict=True)
        ]
        of_splits.append(_Scored(intercept + slope * evaluation.scores[split.test], thresholds))
        lines.append(line)
    found = _measured(scored, of_splits, evaluation.counts, evaluation.not_scored, fitted=evaluation.fitted)
    return found, lines


def _scorable(data: Data, in_training: int = FEWEST_IN_TRAINING) -> tuple[dict[str, Counts], dict[str, str]]:
    counts = data.counts()
    reasons = {name: each.why_not_scored(in_training) for name, each in counts.items()}
    return counts, {name: reason for name, reason in reasons.items() if reason is not None}


def _nothing(data: Data, counts: dict[str, Counts], not_scored: dict[str, str]) -> Evaluation:
    n = len(data.Y)
    return Evaluation(counts, not_scored, {}, {}, np.empty((n, 0)), np.full(n, -1, dtype=np.int64), ())


def _measured(
    data: Data,
    of_splits: Sequence[_Scored],
    counts: dict[str, Counts],
    not_scored: dict[str, str],
    *,
    is_logit: bool = True,
    fitted: tuple[Fitted, ...] = (),
) -> Evaluation:
    labels = data.task.labels
    values: list[list[dict[str, Doubles]]] = [[] for _ in labels]
    draws: list[list[dict[str, Doubles]]] = [[] for _ in labels]
    scores = np.full((len(data.Y), len(labels)), np.nan)
    fold = np.full(len(data.Y), -1, dtype=np.int64)
    risks = np.full((len(data.Y), len(data.task.horizons)), np.nan)
    reach = np.full_like(scores, np.nan)
    for number, (split, scored) in enumerate(zip(data.splits, of_splits, strict=True)):
        of_test = scored.scores
        scores[split.test], fold[split.test] = of_test, number
        if scored.risks is not None:
            risks[split.test] = scored.risks
        if scored.reach is not None:
            reach[split.test] = scored.reach
        patients, patient = np.unique(data.groups[split.test], return_inverse=True)
        drawn = data.draws(number)
        for label in range(len(labels)):
            y = data.Y[split.test, label]
            known = np.isfinite(y) & np.isfinite(of_test[:, label])
            part = _part(y, scored, known, label, patient, len(patients), data.task, is_logit)
            values[label].append(part.metrics())
            draws[label].append(part.metrics(drawn))
    estimates: dict[str, dict[str, Estimate]] = {}
    kept: dict[str, dict[str, Doubles]] = {}
    for label, name in enumerate(labels):
        estimates[name], kept[name] = combined(values[label], draws[label])
        for metric in estimates[name]:
            if counts[name].of(metric).why_not_scored(0) is not None:
                estimates[name][metric] = Estimate(np.nan)
                kept[name][metric] = np.full(data.n_draws, np.nan)
    if len(labels) > 1:
        estimates[MACRO], kept[MACRO] = _macro(estimates, kept)
    return Evaluation(counts, not_scored, estimates, kept, scores, fold, labels, fitted, risks, reach)


def _part(
    y: Floats,
    scored: _Scored,
    known: npt.NDArray[np.bool_],
    label: int,
    patient: Numbers,
    n_patients: int,
    task: Task,
    is_logit: bool,
) -> Test:
    """The recordings of a test part whose label is known."""
    scores, patient = scored.scores[known, label], patient[known]
    if task.kind == NUMBER:
        reach = None if scored.reach is None else scored.reach[known, label]
        reach = None if reach is None or np.isnan(reach).any() else reach
        return NumberTest(y[known].astype(np.float64), scores, patient, n_patients, reach)
    if task.kind == TIME:
        risks = None if scored.risks is None else scored.risks[known]
        return TimeTest(y[known], scores, patient, n_patients, task.horizons, risks)
    positive: npt.NDArray[np.bool_] = y[known] > 0.5
    return BinaryTest(positive, scores, patient, n_patients, scored.thresholds[label], is_logit)


def _macro(
    estimates: Mapping[str, Mapping[str, Estimate]], draws: Mapping[str, Mapping[str, Doubles]]
) -> tuple[dict[str, Estimate], dict[str, Doubles]]:
    """The mean over labels of the metrics that all have."""
    names = [name for name in next(iter(estimates.values())) if all(name in each for each in estimates.values())]
    means = {name: np.mean([each[name] for each in draws.values()], axis=0) for name in names}
    values = {name: float(np.mean([each[name].value for each in estimates.values()])) for name in names}
    return {name: interval(values[name], means[name], kind_of(name)) for name in names}, means
