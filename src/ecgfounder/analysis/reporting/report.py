"""A report on a run: the cohort, what failed, flags, statements, labels, embeddings; counts of enough patients only.

In: an opened run or several as one, perhaps a table of labels. Out: a `Report`, all of whose counts may be shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.pages.page import rounded_count
from ecgfounder.analysis.reporting.cells import Cells, Partition, Trial
from ecgfounder.analysis.reporting.facts import Values, cohort_facts, intervals, lists_of, name_of_flag, of_column
from ecgfounder.analysis.reporting.failures import kinds_of
from ecgfounder.analysis.reporting.findings import Findings, predicted, stated
from ecgfounder.analysis.reporting.included import Included
from ecgfounder.analysis.reporting.sides import Mask
from ecgfounder.analysis.reporting.vectors import SAMPLE, Sample, has_umap, sample_of, with_umap
from ecgfounder.analysis.rows.selection import Selection, select
from ecgfounder.analysis.rows.where import columns_of, rows_where
from ecgfounder.analysis.statistics.solver import Doubles, Numbers
from ecgfounder.checks import check_choice, check_least
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.preprocess.quality import FLAGS
from ecgfounder.results import EmbeddingRun, EmbeddingRuns
from ecgfounder.results.join import as_arrow
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.results.small_cells import FEWEST

MAP_CHOICES = ("auto", "pca", "umap")
"""auto: the directions of most variance, and UMAP's map too where umap-learn is installed."""

MOST_STATEMENTS = 15
_MOST_FLAGS_BY_LEVEL = 8
_MOST_ACROSS = 12
_BESIDE = ("Format", "Device", "Filters of the device", "Sampling rate", "Duration, s", "Leads that were used")
"""Facts that are shown by the columns of `by`, too."""
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 24
_OUTSIDE = "not in the sample"
HIDDEN = "not shown"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """The settings of a report.

    Attributes
    ----------
    on, group : str or None
        The column that the table of labels and the run have in common; the column with the patient.
    where, exclude_flags : str or None, tuple of str
        Which recordings are used; see `ecgfounder.analysis.rows.where`.
    by : tuple of str
        Columns for tables and maps, as site and year; their frequent values are shown.
    label : tuple of str
        Columns with labels, for tables and maps.
    sample : int
        Recordings of which embeddings are read.
    map : str
        One of `MAP_CHOICES`.
    names : bool
        Show names of recordings.
    drawings : bool
        Show drawn ECGs.
    seed : int
        Seed of UMAP, and of the choice of recordings that are drawn.
    """

    on: str | None = None
    group: str | None = None
    where: str | None = None
    exclude_flags: tuple[str, ...] = ()
    by: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    sample: int = SAMPLE
    map: str = "auto"
    names: bool = False
    drawings: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("map", self.map, MAP_CHOICES)
        check_least("sample", self.sample, 1)
        check_least("seed", self.seed, 0)
        if self.map == "umap" and self.sample > SAMPLE:
            raise SettingsError(
                f"Invalid value for the 'sample' parameter. UMAP is fitted on at most {SAMPLE:,} recordings, got {self.sample:,}."
            )


@dataclass(frozen=True, eq=False)
class Table:
    """A division of the recordings by a fact, a column or a label; `patients` are those in each cell, if they may be shown."""

    title: str
    cells: Partition
    patients: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Joint:
    """A division by two facts at once.

    Attributes
    ----------
    title, other_title : str
        The facts.
    levels, values : tuple of str
        The values of both; some are several together.
    counts : numpy.ndarray
        int64 [levels, values]: the recordings of each pair.
    """

    title: str
    other_title: str
    levels: tuple[str, ...]
    values: tuple[str, ...]
    counts: Numbers


@dataclass(frozen=True, eq=False)
class FlagsBy:
    """The share of recordings with a flag, float64 [levels, flags], by the values of a column; some are several together."""

    title: str
    levels: tuple[str, ...]
    flags: tuple[str, ...]
    shares: Doubles


@dataclass(frozen=True, eq=False)
class Mark:
    """A flag or a statement: which recordings have it, and how many, None if that may not be shown."""

    name: str
    there: Mask
    n: int | None


@dataclass(frozen=True, eq=False)
class Failed:
    """The recordings that failed: their table, and the numbers by reason; `n` is None if it may not be shown."""

    table: pa.Table
    n: int | None
    reasons: Partition
    kinds: Values


@dataclass(frozen=True, eq=False)
class Embedded:
    """What is shown of the embeddings of the sample."""

    sample: Sample
    quantiles: tuple[tuple[float, float], ...]
    norms: Partition
    norm_outliers: int | None
    distant: int | None


@dataclass(frozen=True, eq=False)
class Report:
    """What a page about a run shows.

    Attributes
    ----------
    settings : ReportSettings
        The settings.
    selection : Selection
        The recordings.
    cells : Cells
        What is shown of them.
    n, n_patients : int or None
        Recordings, and patients; None if they may not be shown, or patients are not known.
    left_out : tuple of (str, str)
        What rules left out how many recordings, in words.
    failed : Failed
        The recordings that failed.
    facts, by, labels : tuple of Table
        Tables of the manifest's facts, of the columns of `by`, and of labels.
    joint : tuple of Joint
        Tables of a column of `by` and another fact.
    flags_by_level : tuple of FlagsBy
        For columns of `by`, how many recordings have a flag.
    flags, predicted, stated : tuple of Mark
        Flags; statements of the network's head, and of the device.
    n_flags : int
        Flags that exist.
    n_predicted, n_stated : int or None
        The recordings with predictions, and with any text of a device; None if that may not be shown, or there are none.
    embedded : Embedded or None
        The sample; None without embeddings.
    included : tuple of Included
        The results of other analyses.
    notes : tuple of str
        What a reader must know.
    """

    settings: ReportSettings
    selection: Selection
    cells: Cells
    n: int | None
    n_patients: int | None
    left_out: tuple[tuple[str, str], ...]
    failed: Failed
    facts: tuple[Table, ...]
    by: tuple[Table, ...]
    labels: tuple[Table, ...]
    joint: tuple[Joint, ...]
    flags_by_level: tuple[FlagsBy, ...]
    flags: tuple[Mark, ...]
    predicted: tuple[Mark, ...]
    stated: tuple[Mark, ...]
    n_predicted: int | None
    n_stated: int | None
    embedded: Embedded | None
    included: tuple[Included, ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[EmbeddingRun, ...]:
        """The runs."""
        return _runs(self.selection.run)


def report(
    run: EmbeddingRun | EmbeddingRuns,
    labels: Any = None,
    *,
    settings: ReportSettings | None = None,
    included: Sequence[Included] = (),
    say: Say = lambda _: None,
    **choices: Any,
) -> Report:
    """Collect what a page about a run shows.

    Parameters
    ----------
    run : EmbeddingRun or EmbeddingRuns
        The opened run, or several opened as one.
    labels : Any, optional
        A table of labels or sites (pandas, polars or pyarrow); None if all columns are in the manifest.
    settings : ReportSettings, optional
        The settings; or give its attributes as keywords.
    included : sequence of Included
        Results of other analyses (`ecgfounder.analysis.read_included`).
    say : callable, optional
        Receives lines about the progress.

    Returns
    -------
    Report
        `ecgfounder.analysis.report_html` makes the page of it.

    Raises
    ------
    SettingsError, RunError
        If a column does not exist, a condition is not valid, or no recording is left by it.
    MissingDependencyError
        If map="umap" and umap-learn is not installed.
    """
    if settings is None:
        settings = ReportSettings(**choices)
    elif choices:
        raise SettingsError("give the settings of a report either as 'settings' or as keywords")
    return _Work(run, None if labels is None else as_arrow(labels), settings, say).report(tuple(included))


class _Work:
    """Collects a report."""

    def __init__(
        self, run: EmbeddingRun | EmbeddingRuns, labels: pa.Table | None, settings: ReportSettings, say: Say
    ) -> None:
        self.run, self.given, self.settings, self.say = run, labels, settings, say
        self.left_out: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.selection = self._select()
        self.cells = Cells(self._patients(self.selection))

    def report(self, included: tuple[Included, ...]) -> Report:
        self.say(f"{self.selection.table.num_rows:,} recordings: counting")
        facts = tuple(self._table(each) for each in cohort_facts(self.selection.table))
        by = tuple(self._table(self._column(name, "by"), with_patients=True) for name in self.settings.by)
        labels = tuple(self._table(self._column(name, "label"), with_patients=True) for name in self.settings.label)
        joint = tuple(self._joint_tables(by, facts))
        flags = self._flags()
        by_level = tuple(found for each in by if (found := self._flags_by(each, flags)) is not None)
        of_head, of_device = predicted(self.selection), stated(self.selection)
        known = [None if found is None else self.cells.of(found.known) for found in (of_head, of_device)]
        marks = [self._marks(of_head), self._marks(of_device)]
        return Report(
            settings=self.settings,
            selection=self.selection,
            cells=self.cells,
            n=self.cells.n if self.cells.are_enough or not self.cells.n else None,
            n_patients=self._n_patients(),
            left_out=tuple(self.left_out),
            failed=self._failed(),
            facts=facts,
            by=by,
            labels=labels,
            joint=joint,
            flags_by_level=by_level,
            flags=flags,
            predicted=marks[0],
            stated=marks[1],
            n_predicted=known[0],
            n_stated=known[1],
            embedded=self._embedded(),
            included=included,
            notes=tuple(self.notes),
        )

    # --- recordings ----------------------------------------------------------------------------------------------------

    def _select(self) -> Selection:
        settings, run = self.settings, self.run
        if not run.is_complete:
            self.notes.append("A run is not complete: the report is about the recordings that were finished.")
        if not run.records.num_rows:
            return Selection(run, run.records, {})
        selection = select(run, self.given, settings.on)
        for reason, number in selection.left_out.items():
            if number and reason != "failed":
                self.left_out.append((reason, self._about(number)))
        if settings.group is not None:
            texts = selection.texts(settings.group, "group")
            known = np.array([text not in (None, "", "nan") for text in texts], dtype=bool)
            selection = self._kept(selection, known, "the patient is not known")
        if settings.exclude_flags:
            for flag in settings.exclude_flags:
                check_choice("exclude_flags", flag, FLAGS)
            flagged = lists_of(selection.table["flags"], settings.exclude_flags, name_of_flag).any(axis=1)
            selection = self._kept(
                selection, np.logical_not(flagged), f"flags: {', '.join(sorted(settings.exclude_flags))}"
            )
        if settings.where is not None:
            mask = rows_where(selection.table, settings.where).to_numpy()
            what = settings.where if settings.names else f"a condition on {', '.join(columns_of(settings.where))}"
            selection = self._kept(selection, mask, f"not {what}")
        if not selection.table.num_rows:
            raise RunError("no recording is left by the conditions")
        return selection

    def _kept(self, selection: Selection, mask: Mask, reason: str) -> Selection:
        n = int(np.count_nonzero(~mask))
        if n:
            n_patients = len(np.unique(self._patients(selection)[~mask]))
            self.left_out.append((reason, _few_or(n, n_patients)))
        return selection.kept(mask, reason)

    def _about(self, n: int) -> str:
        """About how many recordings there are, if they are of enough patients, even of those with the most recordings."""
        group, records = self.settings.group, self.run.records
        if group is None:
            return rounded_count(n)
        known = group in records.column_names
        most = int(pc.max(pc.value_counts(records[group]).field("counts")).as_py()) if known else n
        return rounded_count(n) if n >= FEWEST * most else HIDDEN

    def _patients(self, selection: Selection) -> Numbers:
        """The number of each recording's patient, from 0 without gaps."""
        if self.settings.group is None or not selection.table.num_rows:
            return np.arange(selection.table.num_rows)
        encoded = pc.dictionary_encode(
            selection.column(self.settings.group, "group").cast(pa.string()).combine_chunks()
        )
        _, codes = np.unique(pc.fill_null(encoded.indices, -1).to_numpy(), return_inverse=True)
        return codes.astype(np.int64)

    def _n_patients(self) -> int | None:
        """The number of patients, unless it would tell how few have several recordings."""
        repeated = self.cells.n - self.cells.n_patients
        known = self.settings.group is not None and self.cells.are_enough
        return None if not known or 0 < repeated < FEWEST else self.cells.n_patients

    def _failed(self) -> Failed:
        manifest = self.run.manifest
        rows = manifest.filter(pc.equal(manifest["status"], "failed"))
        names = [name for name in (RUN_COLUMN, "record") if name in rows.column_names]
        keys = list(zip(*(rows[name].to_pylist() for name in names), strict=True))
        first = list({key: row for row, key in reversed(list(enumerate(keys)))}.values())
        rows = rows.take(pa.array(sorted(first), pa.int64()))
        cells, kinds = Cells(self._patients_of_failed(rows)), kinds_of(rows)
        shown = cells.n if cells.are_enough or not cells.n else None
        reasons = kinds.shown(cells) if cells.n else Partition((), (), np.zeros(0, dtype=np.int64))
        return Failed(rows, shown, reasons, kinds)

    def _patients_of_failed(self, rows: pa.Table) -> Numbers:
        """The patients of failed recordings; those that are not known count as one together."""
        group = self.settings.group
        if group is None:
            return np.arange(rows.num_rows)
        if group in rows.column_names:
            patients = rows[group].cast(pa.string())
        elif self.given is None or self.settings.on is None or group not in self.given.column_names:
            patients = pa.chunked_array([pa.nulls(rows.num_rows, pa.string())])
        else:
            run = _runs(self.run)[0]
            keys = self.given[self.settings.on].cast(pa.string()).combine_chunks()
            at = pc.index_in(rows[run.key_column(self.settings.on)].cast(pa.string()).combine_chunks(), value_set=keys)
            patients = self.given[group].cast(pa.string()).take(at)
        encoded = pc.dictionary_encode(patients.combine_chunks() if isinstance(patients, pa.ChunkedArray) else patients)
        _, codes = np.unique(pc.fill_null(encoded.indices, -1).to_numpy(), return_inverse=True)
        return codes.astype(np.int64)

    # --- tables --------------------------------------------------------------------------------------------------------

    def _column(self, name: str, parameter: str) -> Values:
        return of_column(name, self.selection.column(name, parameter))

    def _table(self, values: Values, *, with_patients: bool = False) -> Table:
        cells = values.shown(self.cells)
        patients = (
            self.cells.patients_by(cells) if with_patients and self.settings.group is not None and cells else None
        )
        return Table(values.title, cells, patients)

    def _joint_tables(self, by: tuple[Table, ...], facts: tuple[Table, ...]) -> Iterator[Joint]:
        of = [each for each in facts if each.title in _BESIDE]
        for number, table in enumerate(by):
            for other in [*by[number + 1 :], *of]:
                if len(table.cells.names) > 1 and len(other.cells.names) > 1:
                    found = self._joint(table, other)
                    if found is not None:
                        yield found

    def _joint(self, table: Table, other: Table) -> Joint | None:
        """A table of two facts, of which values that would tell of few patients are put together; None if that leaves nothing."""
        rows, columns = _Merged.of(table.cells), _Merged.of(other.cells)
        if min(rows.n, columns.n) > _MOST_ACROSS:
            return None
        n = columns.n
        trial = Trial(self.cells, table.cells.codes * n + other.cells.codes, rows.n * n)
        while min(rows.n, columns.n) > 1:
            pairs = (rows.place[:, None] * columns.n + columns.place[None, :]).reshape(-1)
            offender = trial.offender(pairs, rows.n * columns.n)
            if offender is None:
                codes = rows.place[table.cells.codes] * columns.n + columns.place[other.cells.codes]
                self.cells.show(codes, rows.n * columns.n)
                counts = np.bincount(codes, minlength=rows.n * columns.n).reshape(rows.n, columns.n)
                return Joint(table.title, other.title, rows.names, columns.names, counts)
            row, column = divmod(offender, columns.n)
            if rows.counts[row] <= columns.counts[column]:
                rows = rows.without(row)
            else:
                columns = columns.without(column)
        return None

    def _flags(self) -> tuple[Mark, ...]:
        names = list(FLAGS)
        there = lists_of(self.selection.table["flags"], names, name_of_flag)
        order = np.argsort(-there.sum(axis=0), kind="stable")
        found = (
            Mark(names[each], there[:, each], self.cells.of(there[:, each])) for each in order if there[:, each].any()
        )  # those that are not shown come last, by name: their place would tell their number
        return tuple(sorted(found, key=lambda mark: (mark.n is None, -(mark.n or 0), mark.name)))

    def _flags_by(self, table: Table, flags: Sequence[Mark]) -> FlagsBy | None:
        """The frequent flags by the values of a column; None if that would tell of few patients."""
        if len(table.cells.names) < 2:
            return None
        levels = _Merged.of(table.cells)
        chosen: list[Mark] = []
        for flag in [each for each in flags if each.n not in (None, 0)][:_MOST_FLAGS_BY_LEVEL]:
            trial = Trial(self.cells, table.cells.codes * 2 + flag.there, 2 * len(table.cells.names))
            merged = levels
            while merged.n > 1:
                offender = trial.offender(merged.with_flag, 2 * merged.n)
                if offender is None:
                    break
                merged = merged.without(offender // 2)
            if merged.n > 1:
                levels = merged
                chosen.append(flag)
        shown: list[Mark] = []
        codes = levels.place[table.cells.codes]
        for flag in chosen:
            trial = Trial(self.cells, codes * 2 + flag.there, 2 * levels.n)
            if trial.offender(np.arange(2 * levels.n), 2 * levels.n) is None:
                self.cells.show(codes * 2 + flag.there, 2 * levels.n)
                shown.append(flag)
        if not shown:
            return None
        totals = np.bincount(codes, minlength=levels.n)
        shares = [np.bincount(codes[flag.there], minlength=levels.n) / totals for flag in shown]
        return FlagsBy(table.title, levels.names, tuple(flag.name for flag in shown), np.column_stack(shares))

    def _marks(self, findings: Findings | None) -> tuple[Mark, ...]:
        """The most frequent statements whose numbers may be shown."""
        if findings is None:
            return ()
        totals = findings.there.sum(axis=0)
        found: list[Mark] = []
        for each in np.argsort(-totals, kind="stable"):
            if len(found) == MOST_STATEMENTS or totals[each] < FEWEST:
                break
            n = self.cells.of(findings.there[:, each])
            if n is not None:
                found.append(Mark(findings.names[each], findings.there[:, each], n))
        return tuple(found)

    # --- embeddings ----------------------------------------------------------------------------------------------------

    def _embedded(self) -> Embedded | None:
        self.say(f"embeddings of at most {self.settings.sample:,} recordings")
        sample = sample_of(self.selection, self.settings.sample)
        if sample is None:
            return None
        if self.settings.map == "umap" or (
            self.settings.map == "auto" and has_umap() and self.settings.sample <= SAMPLE
        ):
            sample = with_umap(sample, self.settings.seed, self.say)
        return Embedded(
            sample,
            self._quantiles(sample),
            self._norms(sample),
            self.cells.of(self._in_all(sample, sample.norm_outliers)),
            self.cells.of(self._in_all(sample, sample.distant)),
        )

    def _in_all(self, sample: Sample, mask: Mask) -> Mask:
        """A mask of the sample as one of all recordings."""
        found = np.zeros(self.cells.n, dtype=bool)
        found[sample.rows[mask]] = True
        return found

    def _quantiles(self, sample: Sample) -> tuple[tuple[float, float], ...]:
        """Quantiles of the norms beyond which there are enough patients on both sides."""
        found: list[tuple[float, float]] = []
        for share in _QUANTILES:
            value = float(np.quantile(sample.norms, share))
            sides = (sample.norms <= value, sample.norms >= value)
            if all(self.cells.size(self._in_all(sample, side)) >= FEWEST for side in sides):
                found.append((share, value))
        return tuple(found)

    def _norms(self, sample: Sample) -> Partition:
        """The norms in intervals of a round width; the recordings outside of the sample are a cell, too."""
        norms: Doubles = np.full(self.cells.n, np.nan)
        norms[sample.rows] = sample.norms
        low, high = (float(each) for each in np.quantile(sample.norms, [0.01, 0.99]))
        edges = np.linspace(low, high, _BINS + 1)
        digits = max(0, 3 - int(np.floor(np.log10(max(high - low, 1e-9)))))
        rounded = sorted(set(np.round(edges, digits).tolist()))
        values = intervals("Norm", norms, rounded)
        names = (*values.names[:-1], _OUTSIDE)
        return self.cells.by_order(names, values.codes, _OUTSIDE)


@dataclass(frozen=True, eq=False)
class _Merged:
    """The values of a division, some of them put together; `place` is where each is now."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    place: Numbers

    @classmethod
    def of(cls, cells: Partition) -> _Merged:
        return cls(cells.names, cells.counts, np.arange(len(cells.names)))

    @property
    def n(self) -> int:
        return len(self.names)

    @property
    def with_flag(self) -> Numbers:
        """The place of each value without a flag and with it, one after the other."""
        return (self.place[:, None] * 2 + np.arange(2)).reshape(-1)

    def without(self, value: int) -> _Merged:
        """The same with a value and the smallest other one put together."""
        other = min((each for each in range(self.n) if each != value), key=lambda each: self.counts[each])
        first, second = sorted((value, other))
        names, counts = list(self.names), list(self.counts)
        names[first], counts[first] = f"{names[first]} or {names.pop(second)}", counts[first] + counts.pop(second)
        place = np.where(self.place == second, first, self.place)
        return _Merged(tuple(names), tuple(counts), place - (place > second))


def _runs(run: EmbeddingRun | EmbeddingRuns) -> tuple[EmbeddingRun, ...]:
    return run.runs if isinstance(run, EmbeddingRuns) else (run,)


def _few_or(n: int, n_patients: int) -> str:
    return f"{n:,}" if n_patients >= FEWEST else f"of under {FEWEST} patients"
