"""What an analysis of drift is told, and what it gives: settings, figures, tables.

In: settings; figures as they are found. Out: `DriftSettings`, a `DriftResult` with tables and a summary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from ecgfounder.analysis.acquisition.factors import FEWEST_PATIENTS, Factor
from ecgfounder.analysis.pages.tables import SCHEMA
from ecgfounder.analysis.rows.selection import FEATURE_CHOICES, Selection
from ecgfounder.analysis.statistics.fitting import INNER_FOLDS, PENALTIES
from ecgfounder.analysis.statistics.intervals import Estimate
from ecgfounder.analysis.statistics.solver import Numbers
from ecgfounder.checks import check_choice, check_least
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import one_line

SAMPLE = 5000
"""Patients that are used by default; of more, a sample."""

LINEAR, NON_LINEAR = "linear", "non-linear"
POOLED, WITHIN, BETWEEN, LEFT_OUT, PREVALENCE = "pooled", "within", "between", "leave one out", "prevalence alone"
LEACE, RANDOM = "LEACE", "random directions"

SCHEMA_OF_DRIFT = pa.schema(
    [
        ("factor", pa.string()),
        ("level", pa.string()),
        *SCHEMA,
        ("chance", pa.float64()),
    ]
)

LEVELS = pa.schema(
    [
        ("factor", pa.string()),
        ("level", pa.string()),
        ("n_records", pa.int64()),
        ("n_patients", pa.int64()),
        ("tested", pa.string()),
    ]
)


_MOST_NAMED = 3

_IN_SUMMARY = ("kernel share", "p-value", "auroc", "r2")
"""Metrics that are in the summary; all are in the table."""


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """The settings of an analysis of drift.

    Attributes
    ----------
    by : tuple of str
        Columns that say how recordings were made.
    as_levels, as_number : tuple of str
        Those of them that are taken as levels, or as numbers, whatever their values are.
    label : tuple of str
        Columns of binary labels, or with `codes` the codes that become labels.
    codes : str or None
        A column of lists or dictionaries of codes.
    on, group : str or None
        The column that the table of labels and the run have in common; the column with the patient.
    where, exclude_flags : str or None, tuple of str
        Which recordings are used; see `ecgfounder.analysis.rows.where`.
    features : str
        "mean", "mean_std" or "leads".
    folds, inner_folds, penalties : int, int, tuple of float
        See `ecgfounder.analysis.ProbeSettings`.
    sample : int
        Patients that are used; of more, a sample.
    permutations : int
        Permutations of the levels for the discrepancy's p-value.
    chance : int
        Permutations of the levels for the probe's chance level, on at most 2,000 recordings.
    random_directions : int
        How often random directions are removed beside the factor's; 0 leaves the removal out.
    n_draws : int
        Draws of patients for an interval.
    seed : int
        Seed of everything that is random.
    """

    by: tuple[str, ...]
    as_levels: tuple[str, ...] = ()
    as_number: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    codes: str | None = None
    on: str | None = None
    group: str | None = None
    where: str | None = None
    exclude_flags: tuple[str, ...] = ()
    features: str = "mean"
    folds: int = 5
    inner_folds: int = INNER_FOLDS
    penalties: tuple[float, ...] = PENALTIES
    sample: int = SAMPLE
    permutations: int = 999
    chance: int = 5
    random_directions: int = 5
    n_draws: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("features", self.features, FEATURE_CHOICES)
        least = {"folds": 2, "inner_folds": 2, "sample": 2 * FEWEST_PATIENTS, "permutations": 1, "n_draws": 2}
        for name, smallest in {**least, "chance": 0, "random_directions": 0, "seed": 0}.items():
            check_least(name, getattr(self, name), smallest)
        if not self.by:
            raise SettingsError("Invalid value for the 'by' parameter. It must name columns, got none.")
        if not self.penalties or any(not value > 0 for value in self.penalties):
            raise SettingsError("Invalid value for the 'penalties' parameter. They must be positive numbers.")
        for name in ("as_levels", "as_number"):
            for column in getattr(self, name):
                if column not in self.by:
                    raise SettingsError(
                        f"Invalid value for the '{name}' parameter. It must name columns of the 'by' parameter, got {column!r}."
                    )
        if both := set(self.as_levels) & set(self.as_number):
            raise SettingsError(f"as_levels and as_number contradict each other for {sorted(both)[0]!r}: choose one")
        if self.codes is not None and not self.label:
            raise SettingsError("codes needs the codes that become labels as 'label'")


@dataclass(frozen=True)
class DriftRow:
    """One figure.

    Attributes
    ----------
    factor, level : str
        The factor, and its level; "" for all levels together.
    label : str
        The label whose prediction it is about; "" for the prediction of the factor itself, and for sizes.
    metric, control : str
        What was measured, and how; docs/drift.md lists them.
    estimate, low, high : float or None
        The figure and its 95 % interval; for what is repeated at random, mean and range.
    chance : float or None
        What the figure would be if there were nothing to know.
    n_records, n_patients, n_pos_patients : int or None
        Recordings and patients, and patients with the level or the label.
    split : str
        The split in words.
    seed : int
        The seed.
    note : str
        What a reader must know.
    """

    factor: str
    level: str
    label: str
    metric: str
    control: str
    estimate: float | None
    low: float | None
    high: float | None
    chance: float | None
    n_records: int | None
    n_patients: int | None
    n_pos_patients: int | None
    split: str
    seed: int
    note: str = ""


@dataclass(frozen=True, eq=False)
class DriftResult:
    """The result of an analysis of drift; `print` it for its summary.

    Attributes
    ----------
    settings : DriftSettings
        The settings.
    selection : Selection
        The recordings that were used, and how many each rule left out.
    factors : tuple of Factor
        The factors.
    labels : tuple of str
        The labels.
    how : str
        Where the labels come from.
    n_records, n_patients : int
        Recordings and patients before the sample was taken.
    groups : numpy.ndarray
        int64: the number of each used recording's patient.
    rows : tuple of DriftRow
        All figures.
    not_tested : dict of str to str
        The factors that could not be tested, and why.
    notes : tuple of str
        What a reader must know.
    seconds : float
        The time that it took.
    """

    settings: DriftSettings
    selection: Selection
    factors: tuple[Factor, ...]
    labels: tuple[str, ...]
    how: str
    n_records: int
    n_patients: int
    groups: Numbers
    rows: tuple[DriftRow, ...]
    not_tested: dict[str, str]
    notes: tuple[str, ...]
    seconds: float

    @property
    def table(self) -> pa.Table:
        """All figures as a table."""
        return pa.Table.from_pylist([asdict(row) for row in self.rows], schema=SCHEMA_OF_DRIFT)

    @property
    def levels_table(self) -> pa.Table:
        """The levels of all factors as a table: factor, level, n_records, n_patients, tested ("alone", "pooled", "no")."""
        rows = []
        for factor in self.factors:
            alone = factor.why_not is None
            for level in factor.levels:
                if not level.pooled:
                    rows.append(
                        (factor.name, level.name, level.n_records, level.n_patients, "alone" if alone else "no")
                    )
            pooled = "pooled" if alone and factor.has_pool else "no"
            rows += [(factor.name, each.name, each.n_records, each.n_patients, pooled) for each in factor.rare]
        return pa.table([list(column) for column in zip(*rows, strict=True)] or [[]] * len(LEVELS), schema=LEVELS)

    @property
    def without_figure(self) -> list[str]:
        """What has no figure, and why."""
        levels: dict[tuple[str, str, str], list[str]] = {}
        for row in self.rows:
            if row.metric == "none":
                levels.setdefault((row.factor, row.control, row.note), []).append(row.level)
        return [f"{factor}, {control}: {note}{_which(names)}" for (factor, control, note), names in levels.items()]

    def row(self, factor: str, metric: str, control: str, label: str = "", level: str = "") -> DriftRow:
        """One figure; raises `KeyError` if it is not there."""
        wanted = (factor, metric, control, label, level)
        for row in self.rows:
            if (row.factor, row.metric, row.control, row.label, row.level) == wanted:
                return row
        raise KeyError(wanted)

    def __str__(self) -> str:
        return "\n".join(one_line(line) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        for name, reason in self.not_tested.items():
            yield f"{name}: not tested: {reason}"
        yield from self.without_figure
        for row in self.rows:
            where = f"{row.factor}, {row.label}" if row.label else row.factor
            if not row.level and row.metric in _IN_SUMMARY and row.estimate is not None:
                chance = "" if row.chance is None else f"; chance {rounded(row.chance)}"
                yield f"{where}: {row.metric}, {row.control}: {told(row)}{chance}"
        for note in self.notes:
            yield f"Note: {note}"


def _which(levels: list[str]) -> str:
    named = [level for level in levels if level]
    if not named:
        return ""
    return f" ({', '.join(named)})" if len(named) <= _MOST_NAMED else f" ({len(named):,} levels)"


def told(row: DriftRow) -> str:
    """A figure with its interval, in words."""
    if row.estimate is None:
        return "–"
    if row.metric == "p-value":
        return f"{row.estimate:.3g}"
    if row.low is None or row.high is None:
        return rounded(row.estimate)
    return f"{rounded(row.estimate)} ({rounded(row.low)} to {rounded(row.high)})"


def rounded(value: float) -> str:
    """A figure with three decimals, without any if it is large; 0 without a sign."""
    return f"{round(value, 3) + 0.0:.3f}" if abs(value) < 100 else f"{value:,.0f}"


class Figures:
    """Collects the figures of an analysis.

    Attributes
    ----------
    rows : list of DriftRow
        What was found so far.
    """

    def __init__(self, settings: DriftSettings) -> None:
        self.rows: list[DriftRow] = []
        self._settings = settings

    def add(
        self,
        factor: Factor,
        metric: str,
        control: str,
        estimate: Estimate,
        numbers: tuple[int | None, int | None, int | None],
        *,
        level: str = "",
        label: str = "",
        chance: float | None = None,
        note: str = "",
        split: str | None = None,
    ) -> None:
        """Add one; `numbers` are recordings, patients, and patients with the level or label."""
        value, low, high = (_finite(each) for each in (estimate.value, estimate.low, estimate.high))
        if estimate.n_unscored:
            note = f"{note}; {estimate.unscored}".removeprefix("; ")
        split = f"{self._settings.folds} folds by patient" if split is None else split
        seed = self._settings.seed
        self.rows.append(
            DriftRow(factor.name, level, label, metric, control, value, low, high, chance, *numbers, split, seed, note)
        )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
