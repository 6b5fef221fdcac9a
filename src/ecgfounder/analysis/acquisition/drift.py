"""Drift: what embeddings know about how recordings were made, and what that does to the prediction of labels.

In: an opened run or several, columns of acquisition, perhaps labels, `DriftSettings`. Out: a `DriftResult`: tables, and lines
that sum them up.

The recording is the unit, the patient the group: no patient is in training and test, and permutations keep patients whole or stay
within patients. docs/drift.md describes the method.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ecgfounder.analysis.acquisition.drift_factor import Say, Study, measure_factor
from ecgfounder.analysis.acquisition.drift_labels import measure_labels
from ecgfounder.analysis.acquisition.drift_result import DriftResult, DriftSettings, Figures
from ecgfounder.analysis.acquisition.factors import FEWEST_PATIENTS, Factor, factor_of
from ecgfounder.analysis.pages.page import shown_count
from ecgfounder.analysis.probing.controls import sample_of_patients
from ecgfounder.analysis.rows import labels as label_columns
from ecgfounder.analysis.rows.labels import LabelSet
from ecgfounder.analysis.rows.selection import Selection, select
from ecgfounder.analysis.statistics.solver import Numbers
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.escaping import counted, one_line
from ecgfounder.results import EmbeddingRun, EmbeddingRuns

MOST_PER_PATIENT = 10
"""Recordings that are used, for each patient of the sample, on average at most."""


def drift(
    run: EmbeddingRun | EmbeddingRuns,
    labels: Any = None,
    *,
    settings: DriftSettings | None = None,
    say: Say | None = None,
    **options: Any,
) -> DriftResult:
    """Measure what embeddings know about how recordings were made, and what that does to the prediction of labels.

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run, or several.
    labels : Any, optional
        A table (pandas, polars or pyarrow) with the column `on` and further columns for `by`, `group` and `label`; None if they
        are columns of the manifest.
    settings : DriftSettings, optional
        The settings; None makes them of `options`.
    say : callable, optional
        Called with lines on the progress.
    **options : Any
        Attributes of `DriftSettings`.

    Returns
    -------
    DriftResult
        Tables, and a summary.

    Raises
    ------
    SettingsError, RunError
        If a column does not exist, or no factor can be tested.
    """
    if settings is not None and options:
        raise SettingsError("give settings or options, not both")
    for name in ("by", "as_levels", "as_number", "label"):
        if isinstance(options.get(name), str):
            options[name] = (options[name],)
    return _Drift(run, labels, settings or DriftSettings(**options), say or (lambda line: None)).execute()


class _Drift:
    def __init__(self, run: EmbeddingRun | EmbeddingRuns, table: Any, settings: DriftSettings, say: Say) -> None:
        self.run, self.settings = run, settings
        self.started = time.monotonic()
        selection = select(
            run, table, settings.on, group=settings.group, where=settings.where, exclude_flags=settings.exclude_flags
        )
        labels = _labels(selection, settings)  # of all recordings, so that a column that cannot be is refused
        for name in settings.by:
            selection.column(name, "by")
        groups = selection.groups(settings.group)
        self.n_records, self.n_patients = len(groups), len(np.unique(groups))
        rows = self._sample(groups)
        selection = replace(selection, table=selection.table.take(pa.array(rows)))
        X = selection.features(settings.features)
        finite = np.isfinite(X).all(axis=1)
        self.is_sample = len(rows) < self.n_records
        if not finite.all():
            selection = selection.kept(finite, "an embedding that is not finite")
            X, rows = X[finite], rows[finite]
        if not len(rows):
            raise RunError("no recording has a finite embedding")
        self.selection, self.labels = selection, None if labels is None else replace(labels, Y=labels.Y[rows])
        _, numbers = np.unique(groups[rows], return_inverse=True)
        self.study = Study(X, numbers.astype(np.int64), settings, say, Figures(settings))
        self.factors = tuple(self._factor(name) for name in dict.fromkeys(settings.by))

    def _factor(self, name: str) -> Factor:
        as_levels, as_number = name in self.settings.as_levels, name in self.settings.as_number
        column, others = name, f"{name}_table"  # the table's column, where the manifest has one of this name
        if others in self.selection.table.column_names:
            of_table = self.selection.table[name].null_count == self.selection.table.num_rows
            column = others if of_table else name
            used = (
                "the manifest has no value, those of the table are used"
                if of_table
                else "those of the manifest are used"
            )
            self.study.notes.append(f"{name} is a column of the manifest and of the table: {used}")
        factor = factor_of(self.selection, column, self.study.groups, as_levels=as_levels, as_number=as_number)
        return replace(factor, name=name)

    def _sample(self, groups: Numbers) -> Numbers:
        """Recordings of at most so many patients, and of these at most ten times as many."""
        settings = self.settings
        rows = np.arange(len(groups))
        if self.n_patients > settings.sample:
            patients = np.random.default_rng([settings.seed, 6]).permutation(np.unique(groups))[: settings.sample]
            rows = np.flatnonzero(np.isin(groups, patients))
        _, own = np.unique(groups[rows], return_inverse=True)
        return rows[sample_of_patients(own, MOST_PER_PATIENT * settings.sample, settings.seed)]

    def execute(self) -> DriftResult:
        settings, study = self.settings, self.study
        not_tested = {factor.name: str(factor.why_not) for factor in self.factors if factor.why_not is not None}
        tested = [factor for factor in self.factors if factor.why_not is None]
        if not tested:
            told = "; ".join(f"{one_line(name)}: {reason}" for name, reason in not_tested.items())
            raise RunError(f"no factor can be tested: {told}")
        self._say_what_is_used()
        probes = []
        for factor in tested:
            study.say(f"{one_line(factor.name)}: {factor.how}")
            self._note_left_out(factor)
            probes.append(measure_factor(study, factor))
        if self.labels is not None:
            measure_labels(study, self.labels, probes)
        if isinstance(self.run, EmbeddingRuns) and self.run.differences:
            study.notes.append(f"the runs differ in what decides a vector: {'; '.join(self.run.differences)}")
        return DriftResult(
            settings,
            self.selection,
            self.factors,
            () if self.labels is None else self.labels.names,
            "" if self.labels is None else self.labels.how,
            self.n_records,
            self.n_patients,
            study.groups,
            tuple(study.figures.rows),
            not_tested,
            tuple(study.notes),
            time.monotonic() - self.started,
        )

    def _say_what_is_used(self) -> None:
        study = self.study
        used = f"{counted(len(study.groups), 'recording')} of {counted(study.n_patients, 'patient')}"
        if self.is_sample:
            used = (
                f"a sample of {used} is used, of {counted(self.n_records, 'recording')} of "
                f"{counted(self.n_patients, 'patient')} (sample={self.settings.sample})"
            )
            study.notes.append(used)
        study.say(f"{used}; {counted(len(self.factors), 'factor')}")
        if self.settings.group is None:
            study.notes.append(
                "no group was given: if patients have several recordings, the probe is tested on patients that it knows, "
                "intervals are too narrow and p-values too small"
            )

    def _note_left_out(self, factor: Factor) -> None:
        notes = self.study.notes
        if factor.n_missing:
            notes.append(f"{factor.name}: {shown_count(factor.n_missing)} recordings without a value, left out of it")
        if factor.n_left_out:
            recordings = f"{shown_count(factor.n_left_out)} recordings"
            notes.append(
                f"{factor.name}: {recordings} of levels with fewer than {FEWEST_PATIENTS} patients, left out of it"
            )
        elif factor.has_pool:
            notes.append(f"{factor.name}: {counted(len(factor.rare), 'rare level')} pooled as {factor.names[-1]}")


def _labels(selection: Selection, settings: DriftSettings) -> LabelSet | None:
    if not settings.label:
        return None
    if settings.codes is not None:
        return label_columns.code_labels(selection.table, settings.codes, settings.label)
    return label_columns.binary_labels(selection.table, settings.label)
