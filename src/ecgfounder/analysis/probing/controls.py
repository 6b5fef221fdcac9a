"""Controls: what else than the embedding would give such figures.

In: the data of a probe, other features, or none. Out: `Control`s, each with an evaluation on the same splits.

A probe says little without them: a patient's age, the device or the flags may predict a label; random weights often come near
to trained ones; and a leak shows where labels that were exchanged between patients are still predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ecgfounder.analysis.rows.selection import Selection
from ecgfounder.analysis.statistics.evaluation import MACRO, Data, Evaluation, evaluate_features
from ecgfounder.analysis.statistics.solver import Basis, Floats, Numbers
from ecgfounder.analysis.statistics.windows import Windows
from ecgfounder.errors import SettingsError

SAMPLE = 5000
"""Recordings of the sample on which controls are evaluated by default, from whole patients."""

MOST_CATEGORIES = 30
"""Categories of a text column that become features; rarer ones are one category together."""

ACQUISITION = ("format", "sampling_rate", "n_samples", "device_manufacturer", "device_model", "software_version")
"""Columns of the manifest that say how a recording was made, beside its flags and filters."""

Remake = Callable[[Floats, Data], Data]
"""Makes the splits of other labels, as those of the probe were made."""


@dataclass(frozen=True, eq=False)
class Control:
    """One control.

    Attributes
    ----------
    name : str
        Its name in the tables.
    what : str
        A sentence for reports.
    evaluation : Evaluation
        Its metrics.
    """

    name: str
    what: str
    evaluation: Evaluation


def sample_of_patients(groups: Numbers, size: int, seed: int) -> Numbers:
    """Recordings of whole patients, at most `size` of them, patients drawn at random."""
    if len(groups) <= size:
        return np.arange(len(groups))
    counts = np.bincount(groups)
    order = np.random.default_rng([seed, 4]).permutation(len(counts))
    taken = order[np.cumsum(counts[order]) <= size]
    return np.flatnonzero(np.isin(groups, taken))


def column_features(table: pa.Table, names: Sequence[str], parameter: str) -> tuple[Floats, list[str]]:
    """Columns as features: numbers as they are, with a column for missing ones; texts as one column per category.

    Returns
    -------
    X : numpy.ndarray
        float32 [n, k]; columns that do not vary are left out.
    used : list of str
        The columns that have a part in it.
    """
    parts, used = [], []
    for name in names:
        if name not in table.column_names:
            raise SettingsError(
                f"Invalid value for the '{parameter}' parameter. There is no column {name!r}; the columns are: "
                f"{', '.join(table.column_names)}."
            )
        columns = _as_features(table[name])
        varying = columns[:, columns.min(axis=0) < columns.max(axis=0)]
        if varying.shape[1]:
            parts.append(varying)
            used.append(name)
    return np.concatenate(parts, axis=1).astype(np.float32) if parts else np.zeros(
        (table.num_rows, 0), np.float32
    ), used


def _as_features(column: pa.ChunkedArray) -> np.ndarray:
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        values = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        known = np.isfinite(values)
        filled = np.where(known, values, values[known].mean() if known.any() else 0.0)
        return np.stack([filled, ~known], axis=1)
    cells = column.to_pylist()
    sets = [
        {str(each).partition(":")[0] for each in cell}
        if isinstance(cell, list)
        else {"" if cell is None else str(cell)}
        for cell in cells
    ]
    counts: dict[str, int] = {}
    for each in sets:
        for value in each:
            counts[value] = counts.get(value, 0) + 1
    frequent = sorted(counts, key=lambda value: (-counts[value], value))[:MOST_CATEGORIES]
    X = np.zeros((len(sets), len(frequent) + 1))
    at = {value: number for number, value in enumerate(frequent)}
    for row, values in enumerate(sets):
        for value in values:
            X[row, at.get(value, len(frequent))] = 1
    return X


def effective_rank(X: Floats) -> float:
    """In how many directions features vary: the exponential of the entropy of the shares of variance (Roy and Vetterli 2007)."""
    values = Basis.of(X).variances[:-1]
    shares = values / values.sum() if values.sum() > 0 else np.ones(1)
    return float(np.exp(-(shares * np.log(np.maximum(shares, 1e-300))).sum()))


def acquisition_features(selection: Selection) -> tuple[Floats, list[str]]:
    """How recordings were made, from the manifest: flags, format, rate, length, device, filters."""
    names = [name for name in (*ACQUISITION, "flags") if name in selection.table.column_names]
    names += [name for name in selection.table.column_names if name.endswith("_hz") and name not in names]
    return column_features(selection.table, names, "controls")


def signal_features(simple: pa.Table, selection: Selection) -> tuple[Floats, list[str]]:
    """Heart rate, amplitude and deviation of the leads that the network has seen, and the quality flags."""
    seen = {lead for leads in selection.table["leads"].to_pylist() for lead in leads or ()}
    names = [name for name in simple.column_names if "_" not in name or name.partition("_")[2] in {*seen, "rate"}]
    table = simple.select(names).append_column("flags", selection.table["flags"])
    return column_features(table, table.column_names, "controls")


def measurement_features(selection: Selection, statements: pa.Table) -> tuple[Floats, list[str]]:
    """The measurements of the recording devices, from the run's table of statements: rate, intervals, axes."""
    names = [name for name in statements.column_names if pa.types.is_floating(statements.schema.field(name).type)]
    places = selection.places_in(statements)
    rows = np.full(selection.table.num_rows, -1, dtype=np.int64)
    rows[places[places >= 0]] = np.flatnonzero(places >= 0)
    taken = statements.select(names).take(pa.array(rows, mask=rows < 0))
    return column_features(taken, names, "controls")


def permuted_labels(Y: Floats, groups: Numbers, rng: np.random.Generator) -> Floats:
    """The labels of each patient's recordings, exchanged as a block with those of a patient with as many recordings."""
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    starts = np.concatenate([[0], np.cumsum(counts)])
    permuted = np.empty_like(Y)
    for size in np.unique(counts[counts > 0]):
        patients = np.flatnonzero(counts == size)
        others = rng.permutation(patients)
        places = starts[patients][:, None] + np.arange(size)
        sources = starts[others][:, None] + np.arange(size)
        permuted[order[places.ravel()]] = Y[order[sources.ravel()]]
    return permuted


@dataclass(frozen=True, eq=False)
class Permutations:
    """The metric of labels that were exchanged between patients.

    Attributes
    ----------
    metric : str
        That by which features are compared.
    observed : dict of str to float
        By label: that of the real labels.
    values : dict of str to list of float
        By label: those of the permutations that could be scored.
    """

    metric: str
    observed: dict[str, float]
    values: dict[str, list[float]]

    def p_value(self, label: str) -> float:
        """The share of permutations, the real labels among them, that do at least as well."""
        values = np.array(self.values[label])
        return float((1 + (values >= self.observed[label]).sum()) / (1 + len(values)))


def permutations(X: Floats | Windows, data: Data, observed: Evaluation, n: int, remake: Remake) -> Permutations:
    """Evaluate the whole pipeline `n` times, on labels that were exchanged between patients."""
    metric = data.task.metric
    values: dict[str, list[float]] = {name: [] for name in observed.estimates}
    rng = np.random.default_rng([data.seed, 5])
    for _ in range(n):
        Y = permuted_labels(data.Y, data.groups, rng)
        # Its own intervals are not needed.
        evaluation = evaluate_features(X, replace(remake(Y, data), n_draws=2))
        for name, found in values.items():
            if name in evaluation.estimates and (name != MACRO or evaluation.labels == observed.labels):
                found.append(evaluation.estimates[name][metric].value)
    return Permutations(metric, {name: each[metric].value for name, each in observed.estimates.items()}, values)
