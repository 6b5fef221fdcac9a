"""The linear probe: what a run's embeddings know about labels.

In: an opened run or several, a table of labels, `ProbeSettings`. Out: a `ProbeResult`: tables, predictions, the fitted probe.

The recording is scored, the patient is the group. Everything that is chosen is chosen inside the training part; every figure
comes with an interval over patients and with controls. docs/probe.md describes the method.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.pages.tables import EMBEDDING, Row, as_table, make_folder, numbers_of, rows_of, write_table
from ecgfounder.analysis.probing.controls import (
    SAMPLE,
    Control,
    Permutations,
    acquisition_features,
    column_features,
    effective_rank,
    measurement_features,
    permutations,
    sample_of_patients,
    signal_features,
)
from ecgfounder.analysis.probing.label_noise import (
    PLANTINGS,
    Contradictions,
    contradictions,
    planted,
    planted_rows,
)
from ecgfounder.analysis.probing.learning_curve import (
    OWN,
    RANDOM,
    SEEDS,
    SHARED,
    SIZES,
    Point,
    learning_curve,
    point_row,
)
from ecgfounder.analysis.probing.simple_features import originals_of, simple_features
from ecgfounder.analysis.probing.subgroups import subgroup_rows, subgroups_of
from ecgfounder.analysis.rows import labels as label_columns
from ecgfounder.analysis.rows.labels import LabelSet
from ecgfounder.analysis.rows.selection import (
    COMBINE_CHOICES,
    FEATURE_CHOICES,
    ONE_PER_PATIENT_CHOICES,
    Selection,
    one_per_group,
    select,
)
from ecgfounder.analysis.statistics.evaluation import (
    MACRO,
    Data,
    Evaluation,
    evaluate_features,
    evaluate_recalibrated,
    evaluate_scores,
)
from ecgfounder.analysis.statistics.fitting import BINARY, INNER_FOLDS, NUMBER, PENALTIES, TIME, Fitted, Task, fit_split
from ecgfounder.analysis.statistics.intervals import FEW_PATIENTS, difference
from ecgfounder.analysis.statistics.solver import Doubles, Floats, Numbers
from ecgfounder.analysis.statistics.splits import (
    Split,
    cross_validation,
    given_folds,
    given_split,
    grouped_folds,
    refuse_shared_groups,
)
from ecgfounder.analysis.statistics.windows import Windows, means_of, with_columns
from ecgfounder.checks import check_choice, check_least
from ecgfounder.errors import ECGFounderError, RunError, SettingsError
from ecgfounder.escaping import counted
from ecgfounder.network.named_head import NamedHead
from ecgfounder.results import EmbeddingRun, EmbeddingRuns
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, locate

CONTROL_CHOICES = ("none", "sample", "full")

_STRAW_MAN = 20
"""A random network that varies in so many times fewer directions than the embedding is named."""

OVERLAP = "Overlap of these recordings with the network's pretraining data cannot be excluded."

Say = Callable[[str], None]

Runs = Sequence[EmbeddingRun | EmbeddingRuns]

MakeRandom = Callable[[Selection], Runs]
"""Makes, or goes on with, runs of some recordings by networks with random weights (`ecgfounder.random_networks`)."""

CONTROLS_FOLDER = "controls"
"""The folder, below that of the results, with what controls were made of: features of files, runs of random networks."""

NOT_READ = "not_read"
"""The name of the table of recordings whose file could not be read again."""


@dataclass(frozen=True)
class Originals:
    """Where a cohort's files are, for the controls that need them.

    Attributes
    ----------
    data_dir : str or None
        The folder that relative paths are relative to; None for the one that the run had.
    folder : str or os.PathLike or Location or None
        Where what was measured is kept.
    options : StorageOptions
        Options of object stores.
    """

    data_dir: str | None = None
    folder: str | os.PathLike[str] | Location | None = None
    options: StorageOptions = NO_OPTIONS

    @property
    def place(self) -> Location | None:
        """The folder as a location."""
        return None if self.folder is None else locate(self.folder)


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """The settings of a probe.

    Attributes
    ----------
    label : tuple of str
        Columns of binary labels, or with `codes` the codes (or classes of codes) that become labels.
    classes : str or None
        A column with one of several classes, each of which becomes a label.
    number : tuple of str
        Columns of numbers, for a regression.
    time, event : str or None
        The column of the time from the ECG to an event or to the end of observation, and the column that says which (1 or 0),
        for a Cox regression.
    horizons : tuple of float
        The times up to which risks are tested; empty for the quartiles of the times of events.
    codes : str or None
        A column of lists or dictionaries of codes.
    code_classes : mapping of str to str or None
        The class of each code.
    zero_likelihood, least_likelihood : str, float
        What a code with the likelihood 0 is ("positive", "negative", "unknown"), and below which likelihood a code is unknown.
    on : str or None
        The column that the table of labels and the run have in common.
    group : str or None
        The column with the patient.
    separate_patients : bool
        With `test_runs`: equal values of `group` in different runs are different patients.
    where, exclude_flags : str or None, tuple of str
        Which recordings are used; see `ecgfounder.analysis.rows.where`.
    ecg_time, label_time, days : str or None, str or None, tuple of (float, float) or None
        Columns of times, and the days after the ECG between which a label's time must be; other labels are unknown.
    features : str
        "mean", "mean_std" or "leads".
    combine : str
        How the windows (or leads) of a recording become one score. "mean": their embeddings are averaged, then the model is
        fitted. "logit": the model is fitted to windows, each of which weighs as the part of its recording that it is, and their
        logits are averaged.
    one_per_patient : str or None
        "first", "last" (by `ecg_time`) or "random": one recording of each patient.
    folds : int or str
        Number of folds of a cross-validation by patient, or the column that gives them.
    split, test, validation : str or None, tuple of str, tuple of str
        A column that gives the split, its values for the test part and for the validation part.
    test_runs : tuple of str
        Names of runs whose recordings are the test part; the others are the training part.
    inner_folds, penalties, sensitivity : int, tuple of float, float
        See `ecgfounder.analysis.statistics.fitting.Task`.
    n_draws : int
        Draws of patients for an interval.
    controls : str
        "none", "sample" (at most 5,000 recordings of whole patients) or "full".
    permutations : int
        Permutations of the labels, a control for leaks; 199 or more give a p-value.
    baseline : tuple of str
        Columns, such as age, sex and device, whose probe is a control, alone and with the embedding.
    score : mapping of str to str
        For labels, columns with scores that are there already.
    subgroups : tuple of str
        Columns whose values are subgroups, in which all is tested too; see `ecgfounder.analysis.probing.subgroups`.
    learning_curve : tuple of int or None
        Numbers of patients of the rarer class (for numbers, of patients; for times, with the event) to train on, for learning
        curves; an empty one is for `ecgfounder.analysis.probing.learning_curve.SIZES`.
    curve_seeds : int
        Training subsets of each size.
    label_noise : bool
        Name recordings whose leave-out prediction contradicts their label, and measure by planted errors how many are found.
    recalibrate : bool
        Also test logits that are recalibrated on the validation part, or in the inner folds.
    prediction_interval : float or None
        For numbers: the level of prediction intervals (0.9), whose coverage is tested.
    interval_by : str or None
        The column whose values, or bands (`age:10`), have prediction intervals of their own width.
    refit : int
        Repeat the cross-validation with so many further seeds, for the spread between training sets.
    seed : int
        Seed of everything that is random.
    """

    label: tuple[str, ...] = ()
    classes: str | None = None
    number: tuple[str, ...] = ()
    time: str | None = None
    event: str | None = None
    horizons: tuple[float, ...] = ()
    codes: str | None = None
    code_classes: Mapping[str, str] | None = None
    zero_likelihood: str = "positive"
    least_likelihood: float = 0.0
    on: str | None = None
    group: str | None = None
    separate_patients: bool = False
    where: str | None = None
    exclude_flags: tuple[str, ...] = ()
    ecg_time: str | None = None
    label_time: str | None = None
    days: tuple[float, float] | None = None
    features: str = "mean"
    combine: str = "mean"
    one_per_patient: str | None = None
    folds: int | str = 5
    split: str | None = None
    test: tuple[str, ...] = ("test",)
    validation: tuple[str, ...] = ()
    test_runs: tuple[str, ...] = ()
    inner_folds: int = INNER_FOLDS
    penalties: tuple[float, ...] = PENALTIES
    sensitivity: float = 0.9
    n_draws: int = 1000
    controls: str = "sample"
    permutations: int = 20
    baseline: tuple[str, ...] = ()
    score: Mapping[str, str] = field(default_factory=dict)
    subgroups: tuple[str, ...] = ()
    learning_curve: tuple[int, ...] | None = None
    curve_seeds: int = SEEDS
    label_noise: bool = False
    recalibrate: bool = False
    prediction_interval: float | None = None
    interval_by: str | None = None
    refit: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("controls", self.controls, CONTROL_CHOICES)
        check_choice("features", self.features, FEATURE_CHOICES)
        check_choice("combine", self.combine, COMBINE_CHOICES)
        check_choice("zero_likelihood", self.zero_likelihood, label_columns.ZERO_CHOICES)
        if self.one_per_patient is not None:
            check_choice("one_per_patient", self.one_per_patient, ONE_PER_PATIENT_CHOICES)
            if self.group is None:
                raise SettingsError("one_per_patient needs the column of the patient as 'group'")
        for name, least in (
            ("inner_folds", 2),
            ("n_draws", 2),
            ("permutations", 0),
            ("refit", 0),
            ("curve_seeds", 1),
            ("seed", 0),
        ):
            check_least(name, getattr(self, name), least)
        for size in self.learning_curve or ():
            check_least("learning_curve", size, _SMALLEST_CURVE)
        if isinstance(self.folds, int):
            check_least("folds", self.folds, 2)
        if not 0 < self.sensitivity < 1:
            raise SettingsError("Invalid value for the 'sensitivity' parameter. It must be between 0 and 1.")
        if not self.penalties or any(not value > 0 for value in self.penalties):
            raise SettingsError("Invalid value for the 'penalties' parameter. They must be positive numbers.")
        if (self.time is None) != (self.event is None):
            raise SettingsError("time and event belong together: the time, and whether the event was at its end")
        kinds = [bool(self.number), self.classes is not None, self.codes is not None or bool(self.label)]
        if sum((*kinds, self.time is not None)) != 1:
            raise SettingsError(
                "give the labels in one way: label (with codes or not), classes, number, or time with event"
            )
        self._check_times()
        if self.recalibrate and (self.number or self.time is not None):
            raise SettingsError("recalibrate is for probabilities of labels, not for numbers and times")
        if self.prediction_interval is not None and not (self.number and 0 < self.prediction_interval < 1):
            raise SettingsError("prediction_interval is for numbers, and a level between 0 and 1")
        if self.interval_by is not None and self.prediction_interval is None:
            raise SettingsError("interval_by needs prediction_interval")
        if self.label_noise and (self.number or self.time is not None):
            raise SettingsError("label_noise is for labels of two or more classes, not for numbers and times")
        labels = (*self.label, *self.number, self.classes, self.codes, self.time, self.event)
        for name in self.baseline:
            if name in labels:
                raise SettingsError(f"the baseline has the column {name!r}, which is what the probe predicts")
        if self.split is not None and self.test_runs:
            raise SettingsError("split and test_runs contradict each other: choose one")
        if self.refit and not self.is_cross_validation:
            raise SettingsError(
                "refit repeats the division into folds, so that it needs a cross-validation without given folds"
            )
        dates = (self.ecg_time, self.label_time, self.days)
        if self.days is not None and None in dates:
            raise SettingsError("days needs the columns of the times, ecg_time and label_time")

    def _check_times(self) -> None:
        if self.time is None:
            if self.horizons:
                raise SettingsError("horizons are times up to which risks are tested: they need time and event")
            return
        if not all(0 < each < float("inf") for each in self.horizons):
            raise SettingsError("Invalid value for the 'horizons' parameter. They must be positive numbers.")
        if self.one_per_patient not in (None, "first"):
            raise SettingsError(
                "with a time to an event the index ECG is the first: one_per_patient='first'. Which one is the last, or may be "
                "drawn, depends on how long the patient lived."
            )
        if self.combine == "logit":
            raise SettingsError("combine='logit' fits windows; with a time to an event use 'mean'")
        if self.days is not None:
            raise SettingsError("days says when a label is known; with a time to an event use 'where'")

    @property
    def is_cross_validation(self) -> bool:
        """Whether the folds are made here."""
        return self.split is None and not self.test_runs and isinstance(self.folds, int)

    def describe_split(self) -> str:
        """The split in words, for the tables."""
        if self.split is not None:
            validation = f", validation {'+'.join(self.validation)}" if self.validation else ""
            return f"{self.split}: test {'+'.join(self.test)}{validation}"
        if self.test_runs:
            return f"external: test {'+'.join(self.test_runs)}"
        return f"folds by {self.folds}" if isinstance(self.folds, str) else f"{self.folds} folds by patient"


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The result of a probe.

    Attributes
    ----------
    settings : ProbeSettings
        The settings.
    labels : LabelSet
        The labels of the recordings.
    selection : Selection
        The recordings, and how many each rule left out.
    data : Data
        Labels, patients and splits.
    evaluation : Evaluation
        The probe's own.
    controls : tuple of Control
        The controls, each with its evaluation.
    noise : tuple of Contradictions
        With `label_noise`: the recordings of each label that contradict it.
    curves : tuple of Point
        The points of the learning curves.
    rows : tuple of Row
        All figures.
    final : Fitted or None
        The probe to be used on other recordings: that of the split; after a cross-validation one that is fitted to all
        recordings.
    warnings : tuple of str
        What a reader must know.
    seconds : float
        The time that it took.
    band_names : tuple of str
        The bands with prediction intervals of their own, by their numbers in `data.bands`.
    """

    settings: ProbeSettings
    labels: LabelSet
    selection: Selection
    data: Data
    evaluation: Evaluation
    controls: tuple[Control, ...]
    noise: tuple[Contradictions, ...]
    curves: tuple[Point, ...]
    rows: tuple[Row, ...]
    final: Fitted | None
    warnings: tuple[str, ...]
    seconds: float
    band_names: tuple[str, ...] = ()

    @property
    def table(self) -> pa.Table:
        """All figures as a table."""
        return as_table(self.rows)

    @property
    def predictions(self) -> pa.Table:
        """A row per tested recording and label: record, label, value, score (logit or number), probability, fold.

        For times: time and event, the score (the logarithm of the hazard ratio), and the risk up to each horizon.
        """
        n, labels = len(self.data.Y), self.evaluation.labels
        rows = np.flatnonzero(self.evaluation.fold >= 0)
        parts = []
        names = [name for name in (RUN_COLUMN, "record") if name in self.selection.table.column_names]
        facts = self.selection.table.select(names).take(pa.array(rows))
        for number, label in enumerate(labels):
            scores = self.evaluation.scores[rows, number]
            known = self.data.Y[rows, self.data.task.labels.index(label)].astype(np.float64)
            part = facts.append_column("label", pa.array([label] * len(rows), pa.string()))
            if self.labels.kind == TIME:
                part = part.append_column("time", pa.array(np.abs(known).astype(np.float32), from_pandas=True))
                part = part.append_column("event", pa.array(known > 0))
            else:
                part = part.append_column("value", pa.array(known, from_pandas=True))
            part = part.append_column("score", pa.array(scores, from_pandas=True))
            for at, horizon in enumerate(self.data.task.horizons):
                risks = np.empty(0) if self.evaluation.risks is None else self.evaluation.risks[rows, at]
                part = part.append_column(f"risk@{horizon:g}", pa.array(risks, from_pandas=True))
            if self.data.task.interval is not None and self.evaluation.reach is not None:
                reach = self.evaluation.reach[rows, number]
                part = part.append_column("low", pa.array(scores - reach, from_pandas=True))
                part = part.append_column("high", pa.array(scores + reach, from_pandas=True))
            if self.labels.kind == BINARY:
                part = part.append_column("probability", pa.array(0.5 * (1 + np.tanh(scores / 2)), from_pandas=True))
            parts.append(part.append_column("fold", pa.array(self.evaluation.fold[rows])))
        return pa.concat_tables(parts) if parts else facts.slice(0, 0) if n else facts

    @property
    def contradictions(self) -> pa.Table:
        """With `label_noise`: a row per label and recording that contradicts it, the most contradictory first.

        Its columns: (run,) record, label, value, confidence (the probability of the label that it has), rank, fold.
        """
        names = [name for name in (RUN_COLUMN, "record") if name in self.selection.table.column_names]
        parts = []
        for each in self.noise:
            part = self.selection.table.select(names).take(pa.array(each.rows))
            values = self.data.Y[each.rows, self.data.task.labels.index(each.label)].astype(np.float64)
            columns = {
                "label": pa.array([each.label] * len(each.rows), pa.string()),
                "value": pa.array(values),
                "confidence": pa.array(each.confidence[each.rows]),
                "rank": pa.array(np.arange(1, len(each.rows) + 1)),
                "fold": pa.array(self.evaluation.fold[each.rows]),
            }
            for name, column in columns.items():
                part = part.append_column(name, column)
            parts.append(part)
        return pa.concat_tables(parts) if parts else self.selection.table.select(names).slice(0, 0)


def probe(
    run: EmbeddingRun | EmbeddingRuns,
    labels: Any = None,
    *,
    settings: ProbeSettings | None = None,
    against: Mapping[str, EmbeddingRun | EmbeddingRuns] | None = None,
    random: Runs | MakeRandom = (),
    heads: Sequence[NamedHead] = (),
    originals: Originals | None = None,
    say: Say | None = None,
    **options: Any,
) -> ProbeResult:
    """Test by a linear probe what embeddings know about labels.

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run, or several.
    labels : Any, optional
        A table of labels (pandas, polars or pyarrow) with the column `on`; None if the labels are kept columns of the manifest.
    settings : ProbeSettings, optional
        The settings; None makes them of `options`.
    against : mapping of str to EmbeddingRun or EmbeddingRuns, optional
        Other runs of these recordings, by name, whose probes are compared on the recordings that both have.
    random : sequence of EmbeddingRun or EmbeddingRuns, or callable
        Runs of these recordings, or some of them, by networks with random weights (`checkpoint="random:SEED"`), a control; or
        a function that makes them, as `ecgfounder.random_networks.RandomNetworks` does.
    heads : sequence of NamedHead
        Heads that are fitted already (`ecgfounder.network.checkpoint.head_in`): of a fine-tuned checkpoint, if the run was made
        with it, or of another probe. Their logits for labels of the same names go through the same metrics.
    originals : Originals, optional
        Where the cohort's files are, if they have moved, and where what controls measure in them is kept.
    say : callable, optional
        Called with lines on the progress.
    **options : Any
        Attributes of `ProbeSettings`.

    Returns
    -------
    ProbeResult
        Tables, predictions, the fitted probe.

    Raises
    ------
    SettingsError, RunError
        If a column does not exist, a patient is on two sides of a split, or no label can be scored.
    """
    if settings is not None and options:
        raise SettingsError("give settings or options, not both")
    settings = settings or ProbeSettings(**options)
    doing = _Probe(run, labels, settings, originals or Originals(), say or (lambda line: None))
    return doing.execute(against or {}, random, heads)


class _Probe:
    def __init__(
        self, run: EmbeddingRun | EmbeddingRuns, table: Any, settings: ProbeSettings, originals: Originals, say: Say
    ) -> None:
        self.run, self.settings, self.originals, self.say = run, settings, originals, say
        self.started = time.monotonic()
        self.warnings: list[str] = []
        self.compared: list[tuple[str, Floats | Windows, Numbers]] = []
        """The runs that are compared: name, features, and the recordings that they have."""
        self.random_features: tuple[list[Floats | Windows], Numbers] = ([], np.arange(0))
        """The features of the random networks, and the recordings that they have."""
        selection = select(
            run,
            table,
            settings.on,
            group=settings.group,
            where=settings.where,
            exclude_flags=settings.exclude_flags,
        )
        found = self._labels(selection)
        if found.kind != TIME:
            selection, found = _with_known(selection, found)
        if settings.one_per_patient is not None:
            before = selection.table.append_column("__row", pa.array(np.arange(selection.table.num_rows)))
            selection = one_per_group(
                replace(selection, table=before),
                selection.groups(settings.group),
                settings.one_per_patient,
                settings.ecg_time,
                settings.seed,
            )
            found = replace(found, Y=found.Y[selection.table["__row"].to_numpy()])
            selection = replace(selection, table=selection.table.drop_columns(["__row"]))
        if found.kind == TIME:  # no later ECG takes the place of an index ECG whose time is unknown
            selection, found = _with_known(selection, found)
            after = found.Y[:, 0] != 0
            selection, found = selection.kept(after, _NOT_AFTER), replace(found, Y=found.Y[after])
        if not selection.table.num_rows:
            raise RunError("no recording with a known label is left")
        self.selection, self.labels = selection, found
        self.groups = self._groups()
        task = Task(found.names, found.kind, settings.sensitivity, settings.penalties, settings.inner_folds)
        if found.kind == TIME:
            self._check_one_each()
            task = replace(task, horizons=tuple(sorted(set(settings.horizons))) or default_horizons(found.Y[:, 0]))
        self.task = task = replace(task, interval=settings.prediction_interval)
        self.data = Data(
            found.Y, self.groups, self._splits(found.Y, settings.seed), task, settings.seed, settings.n_draws
        )
        if found.kind == TIME:
            self._check_horizons()
        by_band = () if settings.interval_by is None else (settings.interval_by,)
        bands = subgroups_of(selection, by_band, "interval_by")
        if known := {each.column for each in bands} & set(settings.number):
            raise SettingsError(
                f"Invalid value for the 'interval_by' parameter. The column {known.pop()!r} is the number that is predicted: "
                "where the probe is used, its bands are not known. For the coverage by band give it as subgroups."
            )
        self.band_names = tuple(each.level for each in bands)
        if bands:
            number = np.full(selection.table.num_rows, -1, dtype=np.int64)
            for at, each in enumerate(bands):
                number[each.inside] = at
            self.data = replace(self.data, bands=number)
        self.subgroups = subgroups_of(selection, tuple(dict.fromkeys((*settings.subgroups, *by_band))))
        if settings.group is None:
            self.warnings.append(
                "No group was given: if patients have several recordings, the probe is tested on patients that it knows, and the "
                "intervals are too narrow."
            )

    # --- what is tested ------------------------------------------------------------------------------------------------

    def _labels(self, selection: Selection) -> LabelSet:
        settings, table = self.settings, selection.table
        if settings.number:
            found = label_columns.number_labels(table, settings.number)
        elif settings.time is not None:
            found = label_columns.time_labels(table, settings.time, str(settings.event))
        elif settings.classes is not None:
            found = label_columns.class_labels(table, settings.classes)
        elif settings.codes is not None:
            found = label_columns.code_labels(
                table,
                settings.codes,
                settings.label,
                classes=settings.code_classes,
                zero=settings.zero_likelihood,
                least=settings.least_likelihood,
            )
        else:
            found = label_columns.binary_labels(table, settings.label)
        if settings.days is not None:
            times = (str(settings.ecg_time), str(settings.label_time))
            found = label_columns.only_within_days(found, table, times, settings.days)
        return found

    def _check_one_each(self) -> None:
        """Refuse several recordings of a patient: a patient has one time to an event."""
        several = int((np.bincount(self.groups) > 1).sum())
        if several:
            raise SettingsError(
                f"{counted(several, 'patient')} {'has' if several == 1 else 'have'} several recordings with a time, of which one "
                "is the index ECG, from which time counts: choose it with one_per_patient='first' and ecg_time"
            )

    def _check_horizons(self) -> None:
        """Refuse times that no recording of a test part is observed for."""
        longest = min(float(np.abs(self.data.Y[split.test, 0]).max()) for split in self.data.splits)
        beyond = [each for each in self.data.task.horizons if each >= longest]
        if beyond:
            raise SettingsError(
                f"Invalid value for the 'horizons' parameter. In a test part no recording is observed beyond {beyond[0]:g}; "
                f"the longest time there is {longest:g}."
            )

    def _groups(self) -> Numbers:
        groups = self.selection.groups(self.settings.group)
        if self.settings.separate_patients and self.settings.group is not None:
            runs = self.selection.texts(RUN_COLUMN, "separate_patients")
            _, groups = np.unique(
                np.array([f"{run}\x00{group}" for run, group in zip(runs, groups.tolist(), strict=True)]),
                return_inverse=True,
            )
        return groups.astype(np.int64)

    def _splits(self, Y: Floats, seed: int) -> tuple[Split, ...]:
        settings = self.settings
        if settings.split is not None:
            texts = self.selection.texts(settings.split, "split")
            return tuple(given_split(texts, self.groups, settings.test, settings.validation))
        if settings.test_runs:
            runs = self.selection.texts(RUN_COLUMN, "test_runs")
            for name in settings.test_runs:
                if name not in runs:
                    raise SettingsError(
                        f"Invalid value for the 'test_runs' parameter. There is no run {name!r} with a usable recording; "
                        f"the runs are: {', '.join(sorted({str(run) for run in runs}))}."
                    )
            side = np.array([run in settings.test_runs for run in runs], dtype=np.int64)
            refuse_shared_groups(self.groups, side, "run (separate_patients=True: equal names are different patients)")
            if side.all():
                raise SettingsError("test_runs names all runs, so that none is left to train on")
            return (Split(np.flatnonzero(side == 0), np.flatnonzero(side == 1)),)
        if isinstance(settings.folds, str):
            return tuple(given_folds(self.selection.texts(settings.folds, "folds"), self.groups))
        return self._made_folds(Y, self.groups, seed)

    def _made_folds(self, Y: Floats, groups: Numbers, seed: int) -> tuple[Split, ...]:
        strata = np.zeros_like(Y[:, :0]) if self.labels.kind == NUMBER else self.task.strata(Y)
        rng = np.random.default_rng([seed, 0])
        return tuple(cross_validation(grouped_folds(groups, strata, int(self.settings.folds), rng)))

    def _remade(self, Y: Floats, data: Data) -> Data:
        """The data with other labels; folds that were made for the labels are made again."""
        if not self.settings.is_cross_validation:
            return replace(data, Y=Y)
        return replace(data, Y=Y, splits=self._made_folds(Y, data.groups, data.seed))

    # --- the work ------------------------------------------------------------------------------------------------------

    def execute(
        self,
        against: Mapping[str, EmbeddingRun | EmbeddingRuns],
        random: Runs | MakeRandom,
        heads: Sequence[NamedHead],
    ) -> ProbeResult:
        settings = self.settings
        X = self._features(self.selection)
        n_patients = len(np.unique(self.groups))
        self.say(
            f"{counted(len(X), 'recording')} of {counted(n_patients, 'patient')}, {counted(len(self.labels.names), 'label')}, "
            f"{settings.describe_split()}"
        )
        began = time.monotonic()
        evaluation = evaluate_features(X, self.data)
        took = time.monotonic() - began
        for label, reason in evaluation.not_scored.items():
            self.say(f"Not scored: {label}: {reason}")
        if not evaluation.labels:
            told = "; ".join(f"{label}: {reason}" for label, reason in evaluation.not_scored.items())
            raise RunError(f"no label can be scored: {told}")
        self._warn_of_the_rest(evaluation)
        rows = self._rows(evaluation, EMBEDDING, self.data)
        controls = self._scores()
        for head in heads:
            controls += self._head(evaluation, head, rows)
        for name, other in against.items():
            controls += self._against(X, evaluation, name, other, rows)
        if settings.controls != "none":
            controls += self._controls(X, evaluation, took, random, rows)
        elif not callable(random):
            controls += self._random(X, evaluation, random, rows)
        if settings.recalibrate:
            controls.append(self._recalibrated(evaluation, rows))
        for control in controls:
            rows += self._rows(control.evaluation, control.name, self.data)
        rows += subgroup_rows(evaluation, self.data, self.subgroups, settings.describe_split(), settings.seed)
        noise = self._noise(X, evaluation, rows)
        curves = self._learning_curves(X, evaluation)
        for point in curves:
            which = evaluation.counts[point.label].which
            rows.append(point_row(point, settings.describe_split(), self.task.metric, settings.seed, which))
        rows += self._refits(X)
        final = self._final(X, evaluation)
        return ProbeResult(
            settings,
            self.labels,
            self.selection,
            self.data,
            evaluation,
            tuple(controls),
            tuple(noise),
            tuple(curves),
            tuple(rows),
            final,
            tuple(self.warnings),
            time.monotonic() - self.started,
            self.band_names,
        )

    def _features(self, selection: Selection) -> Floats | Windows:
        kind = self.settings.features
        return selection.windows(kind) if self.settings.combine == "logit" else selection.features(kind)

    def _rows(self, evaluation: Evaluation, control: str, data: Data) -> list[Row]:
        return rows_of(evaluation, control, self.settings.describe_split(), data.seed, FEW_PATIENTS)

    def _warn_of_the_rest(self, evaluation: Evaluation) -> None:
        counts = {name: evaluation.counts[name].of(self.task.metric) for name in evaluation.labels}
        few = [name for name, each in counts.items() if each.rarer < FEW_PATIENTS]
        if few:
            self.warnings.append(
                f"Few patients: fewer than {FEW_PATIENTS} {counts[few[0]].which} of {', '.join(few)}; their "
                "intervals may be too narrow."
            )
        for label in evaluation.labels:
            for horizon, each in evaluation.counts[label].at.items():
                if (reason := each.why_not_scored()) is not None:
                    self.warnings.append(f"Not scored: {label} up to {horizon}: {reason}.")
        if evaluation.reach is not None and self.task.interval is not None:
            reach = evaluation.reach[evaluation.fold >= 0]
            if names := [name for at, name in enumerate(evaluation.labels) if np.isnan(reach[:, at]).any()]:
                self.warnings.append(
                    f"No prediction intervals of {', '.join(names)} in a test part, and no coverage: too few patients for the "
                    f"level {self.task.interval:g}."
                )
        if len(evaluation.labels) > 1:
            self.warnings.append(
                f"{len(evaluation.labels)} labels were tested; intervals and p-values are of each by itself, without a "
                "correction for their number."
            )
        if self.subgroups:
            self.warnings.append(
                f"{counted(len(self.subgroups), 'subgroup')} were tested for each label; without any true gap, about one in 20 "
                "gaps has an interval without 0."
            )
        slow = [number for number, each in enumerate(evaluation.fitted) if not each.weights.converged]
        if slow:
            self.warnings.append(f"The solver did not reach its tolerance in {counted(len(slow), 'split')}.")
        if isinstance(self.run, EmbeddingRuns) and self.run.differences:
            self.warnings.append(f"The runs differ in what decides a vector: {'; '.join(self.run.differences)}.")
        self.warnings.append(OVERLAP)

    def _scores(self) -> list[Control]:
        """Scores that are there already, through the same metrics."""
        controls = []
        for label, column in self.settings.score.items():
            if label not in self.labels.names:
                raise SettingsError(
                    f"Invalid value for the 'score' parameter. There is no label {label!r}; the labels are: "
                    f"{', '.join(self.labels.names)}."
                )
            own = self._statement(column)
            values = self._numbers(column) if own is None else own
            finite = values[np.isfinite(values)]
            is_probability = (
                self.labels.kind == BINARY and len(finite) > 0 and bool(((finite >= 0) & (finite <= 1)).all())
            )
            if is_probability:
                inside = np.clip(values, 1e-12, 1 - 1e-12)
                values = np.log(inside / (1 - inside))
            evaluation = evaluate_scores(values[:, None], self.data.only([label]), is_logit=is_probability)
            what = f"the column {column} as a score for {label}, without any training"
            controls.append(Control(f"score: {column}", what, evaluation))
        return controls

    def _head(self, evaluation: Evaluation, named: NamedHead, rows: list[Row]) -> list[Control]:
        """A head that is fitted already, on the labels that it names."""
        for run, used in self.selection.by_run():
            if len(used):
                named.check(str(run.record.fingerprint["checkpoint_sha256"]))
        known = named.head.labels or ()
        labels = [label for label in self.labels.names if label in known]
        if not labels or self.labels.kind != BINARY:
            raise SettingsError(
                f"Invalid value for the 'head' parameter. {named.name} names none of the labels {', '.join(self.labels.names)}; "
                f"it has: {', '.join(known[:_NAMED_LABELS])}{' and others' if len(known) > _NAMED_LABELS else ''}."
            )
        at = [known.index(label) for label in labels]
        X = self.selection.features("mean")
        scores = X.astype(np.float64) @ named.head.weight[at].T.astype(np.float64) + named.head.bias[at]
        what = f"the head in {named.name}, as it is, without any training here"
        control = Control(f"head: {named.name}", what, evaluate_scores(scores, self.data.only(labels), is_logit=True))
        rows += self._differences(evaluation, [control])
        return [control]

    def _statement(self, column: str) -> Doubles | None:
        """The probability of the network's own statement: of several windows or leads, by the mean of their logits.

        None if the column is not one of the run's predictions, or is in the table too.
        """
        predictions = self.run.predictions
        if predictions is None or column not in predictions.column_names or column in self.selection.table.column_names:
            return None
        places = self.selection.places_in(predictions)
        probability = predictions[column].to_numpy(zero_copy_only=False).astype(np.float64)
        inside = np.clip(probability, 1e-12, 1 - 1e-12)
        used = places >= 0
        n = self.selection.table.num_rows
        counts = np.bincount(places[used], minlength=n)
        sums = np.bincount(places[used], np.log(inside / (1 - inside))[used], minlength=n)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(1 / (1 + np.exp(-sums / counts)))

    def _shared(self, name: str, other: EmbeddingRun | EmbeddingRuns) -> tuple[Floats | Windows, Numbers]:
        """The features of another run for the recordings that both have, and these recordings."""
        found, rows = select(other).in_order_of(self.selection.keys)
        if not len(rows):
            raise RunError(f"the run {name} has none of the recordings")
        return self._features(found), rows

    def _against(
        self,
        X: Floats | Windows,
        evaluation: Evaluation,
        name: str,
        other: EmbeddingRun | EmbeddingRuns,
        rows: list[Row],
    ) -> list[Control]:
        """The probe of another run, and the embedding's own on the recordings that both have."""
        theirs, shared = self._shared(name, other)
        if lost := len(X) - len(shared):
            self.warnings.append(
                f"{counted(lost, 'recording')} of the probe {'is' if lost == 1 else 'are'} not in {name}."
            )
        self.compared.append((name, theirs, shared))
        whole = not lost
        data = self.data if whole else self.data.at(shared)
        own = evaluation if whole else evaluate_features(X[shared], data)
        control = Control(
            f"against: {name}", f"the run {name}, on the recordings that both have", evaluate_features(theirs, data)
        )
        rows += self._differences(own, [control])
        if whole:
            return [control]
        return [
            Control(f"embedding (shared with {name})", f"the embedding's probe on the recordings that {name} has", own),
            control,
        ]

    def _random(self, X: Floats | Windows, evaluation: Evaluation, runs: Runs, rows: list[Row]) -> list[Control]:
        """The mean and range of the metric over networks with random weights, on the recordings that all have."""
        if not runs:
            return []
        features, every = [], np.arange(len(X))
        for number, run in enumerate(runs, start=1):
            theirs, shared = self._shared(f"random network {number}", run)
            features.append((theirs, shared))
            every = np.intersect1d(every, shared)
        whole = len(every) == len(X)
        data = self.data if whole else self.data.at(every)
        own = evaluation if whole else evaluate_features(X[every], data)
        own_rank = effective_rank(means_of(X[every]))
        found = []
        for number, (theirs, shared) in enumerate(features, start=1):
            chosen = theirs[np.searchsorted(shared, every)]
            rank = effective_rank(means_of(chosen))
            if rank < own_rank / _STRAW_MAN:
                self.warnings.append(
                    f"Random network {number} varies in {rank:.1f} directions, the embedding in {own_rank:.1f}: it may "
                    "be no fair control."
                )
            found.append(evaluate_features(chosen, data))
            self.random_features[0].append(chosen)
        self.random_features = self.random_features[0], every
        metric = self.data.task.metric
        where = (self.settings.describe_split(), "random weights", self.settings.seed)
        for label in own.estimates:
            values = [each.estimates[label][metric].value for each in found if label in each.estimates]
            if values:
                networks, recordings = counted(len(values), "network"), counted(len(every), "recording")
                note = f"mean and range of {networks} with random weights ({_initialisation(runs)}), {recordings}"
                numbers = numbers_of(own.counts.get(label))
                rows.append(
                    Row(label, metric, float(np.mean(values)), min(values), max(values), *numbers, *where, note)
                )
        return (
            []
            if whole
            else [
                Control("embedding (random's)", "the embedding's probe on the recordings of the random networks", own)
            ]
        )

    def _numbers(self, column: str) -> Doubles:
        try:
            cast = pc.cast(self.selection.column(column, "score"), pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SettingsError(
                f"the column {column!r} of the 'score' parameter holds values that are no numbers"
            ) from error
        numbers: Doubles = cast.to_numpy(zero_copy_only=False).astype(np.float64)
        return numbers

    def _controls(
        self, X: Floats | Windows, evaluation: Evaluation, took: float, random: Runs | MakeRandom, rows: list[Row]
    ) -> list[Control]:
        settings = self.settings
        size = SAMPLE if settings.controls == "sample" else len(X)
        kept = sample_of_patients(self.groups, size, settings.seed)
        whole = len(kept) == len(X)
        table = self.selection.table.take(pa.array(kept))
        sampled = replace(self.selection, table=table)
        data = self.data if whole else self.data.at(kept)
        features = X if whole else X[kept]
        controls = []
        began = time.monotonic()
        own = evaluation if whole else evaluate_features(features, data)
        self._forecast(len(kept), took if whole else time.monotonic() - began, table)
        if not whole:
            controls.append(Control("embedding (sample)", "the embedding's probe on the sample of the controls", own))
        simple, readable = self._simple(sampled, features, data, own, rows)
        controls += simple
        found, used = acquisition_features(sampled)
        controls += self._of_columns("acquisition", "how recordings were made", found, used, data)
        if self.run.statements is not None:
            found, used = measurement_features(sampled, self.run.statements)
            controls += self._of_columns(
                "device measurements", "the device's own intervals and axes", found, used, data
            )
        if settings.baseline:
            found, used = column_features(table, settings.baseline, "baseline")
            controls += self._of_columns("baseline", "the columns of the baseline", found, used, data)
            if used:
                both = evaluate_features(with_columns(features, found), data)
                what = f"the embedding and the columns {', '.join(used)}"
                controls.append(Control("baseline and embedding", what, both))
        rows += self._differences(own, [each for each in controls if each.name not in _COMPARED])
        if own.labels and settings.permutations:
            last = permutations(features, data, own, settings.permutations, self._remade)
            rows += self._permutation_rows(last, data)
        return controls + self._random(X, evaluation, self._made(random, readable), rows)

    def _forecast(self, n: int, took: float, table: pa.Table) -> None:
        """Say how long the controls will take; networks with random weights have a forecast of their own."""
        n_fits = self.settings.permutations + 2 + 2 * bool(self.settings.baseline)
        reading = _SECONDS_PER_FILE * n + (pc.sum(table["seconds_read"]).as_py() or 0.0)
        self.say(
            f"Controls on {counted(n, 'recording')}: {counted(n_fits, 'probe')}, about {_minutes(took * n_fits)}; simple "
            f"features of their files, at most about {_minutes(reading)} (controls='none' leaves them out)"
        )

    def _simple(
        self, sampled: Selection, features: Floats | Windows, data: Data, own: Evaluation, rows: list[Row]
    ) -> tuple[list[Control], Selection]:
        """The control of simple features of the signal, and the recordings whose file can be read again, which it is on."""
        where = self.originals
        try:
            originals = originals_of(sampled, where.data_dir, where.options)
        except RunError as error:
            self.warnings.append(f"No control '{_SIMPLE}': {error}.")
            return [], sampled
        found = simple_features(originals, where.place, where.options, self.say)
        readable = np.setdiff1d(np.arange(len(originals)), list(found.not_read))
        if found.not_read:
            self._name_not_read(sampled, found.not_read)
        whole = len(readable) == len(originals)
        taken = pa.array(readable)
        there = replace(sampled, table=sampled.table.take(taken))
        if not len(readable):
            return [], there
        data = data if whole else data.at(readable)
        X, used = signal_features(found.table.take(taken), there)
        leads = [name.removeprefix("amplitude_") for name in used if name.startswith("amplitude_")]
        others = [name.replace("_", " ") for name in used if name in ("heart_rate", "flags")]
        shown = [*others, *([f"amplitude and deviation of {' '.join(leads)}"] if leads else [])]
        controls = self._of_columns(_SIMPLE, "what the signal says simply", X, shown, data)
        own = own if whole else evaluate_features(features[readable], data)
        rows += self._differences(own, controls)
        if controls and not whole:
            told = "the embedding's probe on the recordings whose files are there still"
            controls.append(Control(_WITH_FILE, told, own))
        return controls, there

    def _name_not_read(self, sampled: Selection, not_read: Mapping[int, str]) -> None:
        """Say how many files could not be read again, and write which."""
        n, rows = sampled.table.num_rows, list(not_read)
        names = [name for name in (RUN_COLUMN, "record") if name in sampled.table.column_names]
        table = sampled.table.select(names).take(pa.array(rows))
        table = table.append_column("reason", pa.array([not_read[row] for row in rows]))
        for record, reason in zip(table["record"].to_pylist()[:_NAMED], table["reason"].to_pylist(), strict=False):
            self.say(f"Not read again: {record}: {reason}")
        listed = ""
        if (folder := self.originals.place) is not None:
            make_folder(folder)
            write_table(table, folder, NOT_READ)
            listed = f" {CONTROLS_FOLDER}/{NOT_READ}.csv names them."
        rest = "there is none" if len(rows) == n else f"it is on the other {n - len(rows):,}"
        self.warnings.append(
            f"Control '{_SIMPLE}': the files of {len(rows):,} of {counted(n, 'recording')} could not be read again, because they "
            f"are not there any more or have changed; {rest}.{listed} data_dir says where a cohort has moved to."
        )

    def _made(self, random: Runs | MakeRandom, readable: Selection) -> Runs:
        """The runs with random weights; where they cannot be made, the reason is a warning."""
        reason = "none was given, and none is made without a folder for them"
        if callable(random) and not readable.table.num_rows:
            reason = "no file of the cohort could be read again"
        elif callable(random):
            try:
                return random(readable)
            except ECGFounderError as error:
                reason = str(error)
        elif random:
            return random
        self.warnings.append(
            f"No control with random weights: {reason.rstrip('.')}. Embed these recordings, or some of them, with "
            "checkpoint random:1, random:2 ... and give the runs as 'random'."
        )
        return ()

    def _of_columns(self, name: str, what: str, X: Floats, used: Sequence[str], data: Data) -> list[Control]:
        if not X.shape[1]:
            self.warnings.append(f"The control '{name}' has no column that varies.")
            return []
        return [Control(name, f"{what}: {', '.join(used)}", evaluate_features(X, data))]

    def _differences(self, own: Evaluation, controls: Sequence[Control]) -> list[Row]:
        """The differences between the embedding and each control, in the same draws of patients."""
        rows = []
        metric = self.data.task.metric
        for control in controls:
            other = control.evaluation
            for label in own.estimates:
                if label not in other.estimates:
                    continue
                if label == MACRO and other.labels != own.labels:
                    continue
                value = own.estimates[label][metric].value - other.estimates[label][metric].value
                found = difference(own.draws[label][metric], other.draws[label][metric], value)
                counts = own.counts.get(label)
                numbers = numbers_of(counts)
                where = (self.settings.describe_split(), control.name, self.settings.seed)
                note = f"embedding minus control, paired; {found.unscored}".removesuffix("; ")
                rows.append(Row(label, f"{metric} difference", value, found.low, found.high, *numbers, *where, note))
        return rows

    def _permutation_rows(self, found: Permutations, data: Data) -> list[Row]:
        rows = []
        for label, values in found.values.items():
            if not values:
                continue
            where = (self.settings.describe_split(), "permuted labels", self.settings.seed)
            note = f"mean and range of {counted(len(values), 'permutation')} of the labels, in blocks of patients"
            numbers = (len(data.Y), len(np.unique(data.groups)), None)
            rows.append(
                Row(label, found.metric, float(np.mean(values)), min(values), max(values), *numbers, *where, note)
            )
            if len(values) >= 99:
                note = (
                    f"{counted(len(values), 'permutation')}; the smallest possible value is {1 / (1 + len(values)):.3g}"
                )
                p = found.p_value(label)
                rows.append(Row(label, f"p-value of {found.metric}", p, None, None, *numbers, *where, note))
        return rows

    def _recalibrated(self, evaluation: Evaluation, rows: list[Row]) -> Control:
        """The recalibrated probe, and what it changes of the Brier score."""
        found, lines = evaluate_recalibrated(evaluation, self.data)
        where = (self.settings.describe_split(), RECALIBRATED, self.settings.seed)
        for number, label in enumerate(evaluation.labels):
            numbers = numbers_of(evaluation.counts[label])
            before, after = evaluation.estimates[label]["brier"].value, found.estimates[label]["brier"].value
            apart = difference(evaluation.draws[label]["brier"], found.draws[label]["brier"], before - after)
            note = f"embedding minus recalibrated, paired; {apart.unscored}".removesuffix("; ")
            rows.append(Row(label, "brier difference", before - after, apart.low, apart.high, *numbers, *where, note))
            of_label = np.array([line[number] for line in lines])
            note = f"mean and range over {counted(len(lines), 'split')}"
            for at, name in enumerate(("recalibration intercept", "recalibration slope")):
                values = of_label[:, at]
                figures = float(values.mean()), float(values.min()), float(values.max())
                rows.append(Row(label, name, *figures, *numbers, *where, note))
        where_from = "the validation part" if self.settings.validation else "the inner folds"
        return Control(RECALIBRATED, f"the embedding's probe with logits recalibrated on {where_from}", found)

    def _noise(self, X: Floats | Windows, evaluation: Evaluation, rows: list[Row]) -> list[Contradictions]:
        """The recordings that contradict their labels; errors are planted in the sample of the controls."""
        settings = self.settings
        if not settings.label_noise:
            return []
        kept = sample_of_patients(self.groups, SAMPLE, settings.seed)
        whole = len(kept) == len(X)
        data = self.data if whole else self.data.at(kept)
        self.say(
            f"Label noise: {counted(PLANTINGS, 'probe')} with planted errors, on {counted(len(kept), 'recording')}"
        )
        own = evaluation if whole else evaluate_features(X[kept], replace(data, n_draws=2))
        found = planted(X if whole else X[kept], data, own, self._remade)
        rows += planted_rows(found, own, settings.describe_split(), settings.seed)
        return [contradictions(evaluation, self.data, label) for label in evaluation.labels]

    def _learning_curves(self, X: Floats | Windows, evaluation: Evaluation) -> list[Point]:
        """The curves of the embedding, and of the random networks beside it on the recordings that these have."""
        settings = self.settings
        if settings.learning_curve is None:
            return []
        sizes = settings.learning_curve or SIZES
        random, rows = self.random_features
        whole = len(rows) == len(X)
        parts: list[tuple[str, Sequence[Floats | Windows], Data]] = [(OWN, [X], self.data)]
        if random:
            data = self.data if whole else self.data.at(rows)
            parts += [] if whole else [(SHARED, [X[rows]], data)]
            parts.append((RANDOM, random, data))
        points = []
        for name, features, data in parts:
            self.say(
                f"{name[0].upper()}{name[1:]}: up to {counted(settings.curve_seeds, 'training subset')} of each size"
            )
            points += learning_curve(name, features, data, evaluation.labels, sizes, settings.curve_seeds, self.say)
        absent = [label for label in evaluation.labels if not any(point.label == label for point in points)]
        if absent:
            self.warnings.append(
                f"No learning curve of {', '.join(absent)}: each training part needs a size's patients, each test part 10."
            )
        return points

    def _refits(self, X: Floats | Windows) -> list[Row]:
        """The spread between divisions into folds: of the metric, and of its difference to that of each compared run."""
        metric = self.data.task.metric
        found: dict[tuple[str, str, str], list[float]] = {}
        for number in range(self.settings.refit):
            seed = self.settings.seed + 1 + number
            data = replace(self.data, splits=self._made_folds(self.data.Y, self.groups, seed), seed=seed, n_draws=2)
            own = evaluate_features(X, data)
            for label, estimates in own.estimates.items():
                found.setdefault((label, metric, "refit"), []).append(estimates[metric].value)
            for name, theirs, shared in self.compared:
                whole = len(shared) == len(X)
                here = data if whole else data.at(shared)
                mine = own if whole else evaluate_features(X[shared], here)
                other = evaluate_features(theirs, here)
                for label in mine.estimates:
                    if label in other.estimates and (label != MACRO or other.labels == mine.labels):
                        apart = mine.estimates[label][metric].value - other.estimates[label][metric].value
                        found.setdefault((label, f"{metric} difference", f"refit, against: {name}"), []).append(apart)
        rows = []
        n_shared = {f"refit, against: {name}": shared for name, _, shared in self.compared}
        for (label, what, control), values in found.items():
            note = f"mean and range over {counted(len(values), 'division')} into folds"
            groups = self.groups[n_shared[control]] if control in n_shared else self.groups
            numbers = (len(groups), len(np.unique(groups)), None)
            where = (self.settings.describe_split(), control, self.settings.seed)
            rows.append(Row(label, what, float(np.mean(values)), min(values), max(values), *numbers, *where, note))
        return rows

    def _final(self, X: Floats | Windows, evaluation: Evaluation) -> Fitted:
        if len(evaluation.fitted) == 1:
            return evaluation.fitted[0]
        data = self.data.only(evaluation.labels)
        everything = Split(np.arange(len(X)), np.arange(0))
        return fit_split(X, data.Y, data.groups, everything, data.task, data.seed)


_NOT_AFTER = "the event, or the end of observation, not after the ECG"

RECALIBRATED = "recalibrated"
"""The name of the recalibrated probe in the table of results."""

_SMALLEST_CURVE = 4
"""Of a learning curve: so that each inner fold has a patient of the rarer class."""

_SIMPLE, _WITH_FILE = "simple features", "embedding (with files)"

_COMPARED = ("embedding (sample)", _SIMPLE, _WITH_FILE)
"""Controls that are no other features than the embedding's, or were compared with it already."""

_NAMED = 5

_NAMED_LABELS = 20

_SECONDS_PER_FILE = 0.01
"""Of a core, for the features of a recording of ten seconds, beside reading it."""

_MADE_HERE = re.compile(r"(he-normal-v\d+)-seed\d+\.safetensors$")


def _with_known(selection: Selection, found: LabelSet) -> tuple[Selection, LabelSet]:
    """The recordings with a known label."""
    known = np.isfinite(found.Y).any(axis=1)
    return selection.kept(known, "no known label"), replace(found, Y=found.Y[known])


def default_horizons(y: Floats) -> tuple[float, ...]:
    """The quartiles of the times of events, with two digits."""
    events = y[y > 0]
    if not len(events):
        raise RunError("no recording has the event")
    return tuple(sorted({float(f"{each:.2g}") for each in np.quantile(events, (0.25, 0.5, 0.75))}))


def _initialisation(runs: Runs) -> str:
    """How the weights of runs were made, by the names of their checkpoints."""
    names = {each.record.checkpoint.name for run in runs for each in getattr(run, "runs", [run])}
    found = [_MADE_HERE.search(name) for name in sorted(names)]
    known = sorted({each[1] for each in found if each is not None})
    return ", ".join([*known, *(["of another origin"] if None in found else [])])


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
