"""The results of other analyses as tables of a report: probe, drift, duplicates, compare.

In: a folder that one of these commands wrote. Out: `Included`, with the figures of enough patients. Counts are rounded, because
the difference between one of them and a count of the cohort could be small; notes and conditions, which may quote values or
exact counts, and names of other runs are not taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ecgfounder.analysis.acquisition.drift_report import MARKER as DRIFT
from ecgfounder.analysis.comparison.compare import MARKER as COMPARISON
from ecgfounder.analysis.duplication.duplicates_report import MARKER as DUPLICATES
from ecgfounder.analysis.pages.page import rounded_count
from ecgfounder.analysis.probing.learning_curve import PREFIX as CURVE
from ecgfounder.analysis.probing.probe_report import MARKER as PROBE
from ecgfounder.analysis.probing.subgroups import PREFIX as SUBGROUP
from ecgfounder.analysis.reporting.facts import short_name
from ecgfounder.analysis.statistics.evaluation import MACRO
from ecgfounder.errors import RunError, StorageError
from ecgfounder.results.small_cells import FEWEST
from ecgfounder.storage import Location

Rows = list[dict[str, Any]]

_MOST_ROWS = 60


@dataclass(frozen=True)
class IncludedTable:
    """A table: its caption, the names of its columns, its rows, and how many columns from the left are texts."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True)
class Included:
    """What a report shows of another analysis."""

    title: str
    text: str
    tables: tuple[IncludedTable, ...]


def read_included(folder: Location) -> Included:
    """The results in a folder.

    Raises
    ------
    RunError
        If it holds none, or they cannot be read.
    """
    kinds: dict[str, Callable[[Location], Included]] = {
        PROBE: _probe,
        DRIFT: _drift,
        DUPLICATES: _duplicates,
        COMPARISON: _comparison,
    }
    try:
        for marker, read in kinds.items():
            if (folder / marker).exists():
                return read(folder)
    except (OSError, StorageError, pa.ArrowException, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"the results in {folder} cannot be read ({type(error).__name__}): expected what `ecgfounder probe`, drift, "
            "duplicates or compare writes"
        ) from error
    raise RunError(
        f"{folder} holds no results to include: expected {', '.join(kinds)}, which `ecgfounder probe`, drift, duplicates and "
        "compare write"
    )


def _rows(folder: Location, stem: str) -> Rows:
    found: Rows = pq.ParquetFile(pa.BufferReader((folder / f"{stem}.pq").read())).read(use_threads=False).to_pylist()
    return found


def _about(folder: Location, marker: str) -> dict[str, Any]:
    found = orjson.loads((folder / marker).read())
    if not isinstance(found, dict):
        raise TypeError("not an object")
    return found


def _enough(row: dict[str, Any]) -> bool:
    """Whether a figure is of enough patients, with the label and without it."""
    n, positive = row["n_patients"], row["n_pos_patients"]
    known = [each for each in (n, positive, None if None in (n, positive) else n - positive) if each is not None]
    return bool(known) and all(each >= FEWEST for each in known)


_RANGE = "mean and range"
"""In the notes of figures that are means over networks, permutations or splits, with the smallest and the largest."""


def _figure(row: dict[str, Any], digits: int = 3) -> str:
    numbers = [row["estimate"], row["low"], row["high"]]
    texts = [f"{round(float(each), digits) + 0.0:.{digits}f}" for each in numbers if each is not None]
    what = "range " if _RANGE in (row.get("note") or "") else ""
    return texts[0] if len(texts) < 3 else f"{texts[0]} ({what}{texts[1]} to {texts[2]})"


# --- probe -------------------------------------------------------------------------------------------------------------

_METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "scaled_brier": "Scaled Brier score",
    "calibration_intercept": "Calibration intercept",
    "calibration_slope": "Calibration slope",
    "r2": "R²",
    "uno_c": "Uno's C",
    "mae": "Mean absolute error",
    "kernel share": "Share of the kernel's variance",
    "variance share": "Share of the variance",
    "p-value": "p-value",
    "shift": "Shift",
    "mmd2": "MMD²",
}

_CONTROL = re.compile(
    r"(?:(?:embedding|random|networks?|weights|simple|features|acquisition|permut(?:ed|ations?)|labels|levels|baseline|and|against|"
    r"head|score|linear|non-linear|recalibrated|pooled|within|between|leave|one|out|prevalence|alone|all|recordings|same|patients|after|LEACE|"
    r"directions|whole|sample|mean|range|\d+)(?: |$))+"
)
"""What is shown of a control's name: words of these analyses only."""


_APART = (SUBGROUP, CURVE)
"""How the names of a probe's controls begin that are not shown: subgroups, which may be of few patients, and learning curves."""


def _control(name: str) -> str:
    """The kind of a control, without the name of a run, a file or a column.

    >>> _control("against: ward 7"), _control("random network 3"), _control("ward 7"), _control("embedding (shared with ward 7)")
    ('against', 'random network 3', 'another control', 'embedding')
    """
    plain = name.partition(":")[0].partition(" (")[0]
    return plain if _CONTROL.fullmatch(plain) else "another control"


def _probe(folder: Location) -> Included:
    rows = [row for row in _rows(folder, "results") if row["estimate"] is not None and row["metric"] in _METRICS]
    rows = [row for row in rows if not row["control"].startswith(_APART)]
    labels = [label for label in dict.fromkeys(row["label"] for row in rows) if label != MACRO]
    shown = [label for label in labels if all(_enough(row) for row in rows if row["label"] == label)]
    with_mean = [*shown, *([MACRO] if shown == labels else [])]  # else the mean would tell what is left out
    table = tuple(
        (
            "mean of the labels" if row["label"] == MACRO else short_name(row["label"]),
            _METRICS[row["metric"]],
            _control(row["control"]),
            _figure(row),
            rounded_count(row["n_patients"]),
            rounded_count(row["n_pos_patients"]),
        )
        for row in rows
        if row["label"] in with_mean
    )
    header = ("Label", "Metric", "Of", "Estimate (95 % interval)", "Patients", "With the label")
    hidden = len(labels) - len(shown)
    note = f" Labels with fewer than {FEWEST} patients, or without it, are not shown." if hidden else ""
    return Included(
        "Linear probe",
        "How well a linear model reads labels from the embeddings, on patients that it was not trained on; intervals are over "
        "patients, ranges from the smallest to the largest figure of several networks, permutations or splits."
        f"{note} A figure without its controls says little.",
        _in_parts("Metrics and controls", header, table, 3),
    )


def _in_parts(
    caption: str, header: tuple[str, ...], rows: Sequence[tuple[str, ...]], texts: int
) -> tuple[IncludedTable, ...]:
    more = f"; the first {_MOST_ROWS} rows" if len(rows) > _MOST_ROWS else ""
    return (IncludedTable(caption + more, header, tuple(rows[:_MOST_ROWS]), texts),) if rows else ()


# --- drift -------------------------------------------------------------------------------------------------------------


def _drift(folder: Location) -> Included:
    levels = {(row["factor"], row["level"]): row["n_patients"] for row in _rows(folder, "levels")}
    rows = [row for row in _rows(folder, "results") if row["estimate"] is not None and row["metric"] in _METRICS]
    overall = tuple(
        (short_name(row["factor"]), short_name(row["label"] or "–"), _METRICS[row["metric"]], *_drift_cells(row))
        for row in rows
        if not row["level"] and (row["n_patients"] or 0) >= FEWEST and (not row["label"] or _enough(row))
    )
    by_level = tuple(
        (short_name(row["factor"]), short_name(row["level"]), _METRICS[row["metric"]], *_drift_cells(row))
        for row in rows
        if row["level"] and not row["label"] and _level_is_large(row, levels)
    )
    tables = (
        *_in_parts(
            "All levels together", ("Factor", "Label", "Figure", "By", "Estimate (95 % interval)", "Chance"), overall, 4
        ),
        *_in_parts(
            "Each level against the others",
            ("Factor", "Level", "Figure", "By", "Estimate (95 % interval)", "Chance"),
            by_level,
            4,
        ),
    )
    return Included(
        "Drift",
        "What the embeddings know of how recordings were made: how well a factor can be predicted on other patients, and how "
        f"much of the variance lies between its levels. Levels of fewer than {FEWEST} patients are not shown.",
        tables,
    )


def _drift_cells(row: dict[str, Any]) -> tuple[str, str, str]:
    chance = row.get("chance")
    return _control(row["control"]), _figure(row), "" if chance is None else f"{round(float(chance), 3) + 0.0:.3f}"


def _level_is_large(row: dict[str, Any], levels: dict[tuple[str, str], int]) -> bool:
    """Whether a level, and all others together, are of enough patients."""
    n = levels.get((row["factor"], row["level"]))
    others = sum(each for (factor, level), each in levels.items() if factor == row["factor"] and level != row["level"])
    return n is not None and min(n, others) >= FEWEST and (row["n_patients"] is None or row["n_patients"] >= FEWEST)


# --- duplicates and comparison -----------------------------------------------------------------------------------------

_CLASSES = {
    "same_file": "byte for byte the same file",
    "same_signal": "the same signal",
    "same_patient": "different patients, as alike as one; not confirmed",
    "candidate": "alike, not confirmed",
}


def _duplicates(folder: Location) -> Included:
    told = _about(folder, DUPLICATES)
    pairs = tuple(
        (what, rounded_count(int(told["pairs"][name]))) for name, what in _CLASSES.items() if name in told["pairs"]
    )
    leaks = tuple(
        (
            f"{short_name(row['a'])} and {short_name(row['b'])}",
            _LEAKS.get(row["class"], "in common"),
            rounded_count(row["n"]),
        )
        for row in _rows(folder, "leakage")
        if min(row["n"], row["n_recordings_a"], row["n_recordings_b"]) >= FEWEST
    )
    tables = (
        *_in_parts("Pairs of each class", ("Pairs that are", "Number"), pairs, 1),
        *_in_parts("What parts of a split have in common", ("Parts", "What", "Number"), leaks, 2),
    )
    searched = rounded_count(int(told["counts"]["used"]))
    return Included("Duplicates", f"Of {searched} recordings, those that are there more than once.", tables)


_LEAKS = {
    "cluster": "the same file or signal",
    "same_group": "the same patient",
    "same_patient": "as alike as one patient",
    "candidate": "candidates",
}

_STATISTICS = {
    "cosine": "Cosine",
    "centred_cosine": "Cosine after centring",
    "move": "Distance, over that of two recordings",
    "changed": "Share that changed at all",
    "cka": "CKA, debiased",
    "overlap": "Nearest neighbours in common",
}

_PARTS = {"all": "all", "format": "format", "sampling_rate": "sampling rate", "flag": "flag"}


def _comparison(folder: Location) -> Included:
    rows = [row for row in _rows(folder, "agreement") if row["statistic"] in _STATISTICS and row["by"] in _PARTS]
    most = {row["statistic"]: row["n_groups"] for row in rows if row["by"] == "all"}
    table = tuple(_agreement_rows(rows, most))
    header = ("Recordings", "Statistic", "Estimate (95 % interval)", "Of other patients")
    return Included(
        "Comparison of two runs",
        "How far two runs agree on the embeddings of the same recordings, and what the same statistic is for recordings of "
        "different patients.",
        _in_parts("Agreement", header, table, 2),
    )


def _agreement_rows(rows: Rows, most: dict[str, int]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        n = row["n_groups"] or 0
        rest = most.get(row["statistic"], 0) - n
        if row["estimate"] is None or n < FEWEST or 0 < rest < FEWEST:
            continue
        part = _PARTS[row["by"]]
        reference = "" if row["reference"] is None else f"{round(float(row['reference']), 3) + 0.0:.3f}"
        yield (
            part if row["by"] == "all" else f"{part} {short_name(row['value'])}",
            _STATISTICS[row["statistic"]],
            _figure(row),
            reference,
        )
