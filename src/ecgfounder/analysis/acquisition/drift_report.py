"""The result of an analysis of drift as files: tables, and one page.

In: a `DriftResult` and a folder. Out: results.pq and .csv, levels.pq and .csv, drift.json, report.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import orjson

from ecgfounder._version import __version__
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
    DriftResult,
    DriftRow,
    rounded,
    told,
)
from ecgfounder.analysis.acquisition.factors import Factor
from ecgfounder.analysis.pages.charts import Axis, Bar, interval_chart
from ecgfounder.analysis.pages.page import Page, rounded_count, shown_count
from ecgfounder.analysis.pages.tables import check_results_folder, write_table
from ecgfounder.errors import RunError, StorageError
from ecgfounder.escaping import counted
from ecgfounder.results.small_cells import FEWEST
from ecgfounder.storage import Location
from ecgfounder.storage.writing import write_whole

MARKER = "drift.json"
"""The file by which a folder is known as that of an analysis of drift."""

_MOST_NAMED = 20


def write_drift(result: DriftResult, folder: Location) -> None:
    """Write all files of a result.

    Raises
    ------
    RunError
        If the folder cannot be written, or holds other things.
    """
    check_results_folder(folder, MARKER)
    fingerprints = [each.record.fingerprint for each in getattr(result.selection.run, "runs", [result.selection.run])]
    about = {
        "program": {"name": "ecgfounder", "version": __version__},
        "settings": asdict(result.settings),
        "factors": {factor.name: factor.how for factor in result.factors},
        "not_tested": result.not_tested,
        "labels": {"names": list(result.labels), "how": result.how},
        "n_records": result.n_records,
        "n_patients": result.n_patients,
        "n_records_used": len(result.groups),
        "n_patients_used": len(np.unique(result.groups)),
        "left_out": result.selection.left_out,
        "notes": list(result.notes),
        "fingerprints": fingerprints,
    }
    try:
        if folder.is_local:
            folder.path.mkdir(parents=True, exist_ok=True)
        write_whole(folder / MARKER, orjson.dumps(about, option=orjson.OPT_INDENT_2))
        write_table(result.table, folder, "results")
        write_table(result.levels_table, folder, "levels")
        write_whole(folder / "report.html", page_of(result).encode())
    except (OSError, StorageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(f"{folder} could not be written: {reason}") from error


# --- the page ----------------------------------------------------------------------------------------------------------


def page_of(result: DriftResult) -> str:
    """The HTML page of a result; it holds aggregates only."""
    names = ", ".join(factor.name for factor in result.factors)
    page = Page("What do the embeddings know of the acquisition?", f"Drift by {names}; ecgfounder {__version__}")
    page.section("Summary")
    n_patients = len(np.unique(result.groups))
    unit = "patients" if result.settings.group else "groups (no patient was given: each recording is its own)"
    page.text(
        f"{len(result.groups):,} recordings of {n_patients:,} {unit}. Probes are tested on patients that they were not trained "
        "on; intervals (95 %) are over patients. Whole patients are permuted, or the recordings within each patient."
    )
    not_tested = [f"{name} is not tested: {reason}" for name, reason in result.not_tested.items()]
    page.notes([*result.notes, *not_tested, *result.without_figure])
    _overview(page, result)
    for factor in result.factors:
        if factor.why_not is None:
            page.section(factor.name)
            _factor(page, result, factor)
            _left_of_factor(page, result, factor)
            for label in result.labels:
                _label(page, result, factor, label)
    page.section("Recordings and method")
    _method(page, result)
    return page.html


def _rows(
    result: DriftResult, factor: Factor, metrics: Sequence[str], *, label: str = "", with_level: bool = False
) -> list[DriftRow]:
    """The figures of a factor and a label, of all levels together or of each."""
    return [
        row
        for row in result.rows
        if row.factor == factor.name
        and row.label == label
        and row.metric in metrics
        and bool(row.level) is with_level
        and row.estimate is not None
    ]


def _overview(page: Page, result: DriftResult) -> None:
    for metric, name, reference in (("auroc", "AUROC", 0.5), ("r2", "R²", 0.0)):
        bars, spoken = [], []
        for factor in result.factors:
            for row in _rows(result, factor, [metric]):
                if row.control in (LINEAR, NON_LINEAR, "permuted levels"):
                    bars.append(_bar(row, f"{row.factor}, {row.control}", main=row.control != "permuted levels"))
                    spoken.append(f"{row.factor}, {row.control} {told(row)}")
        if bars:
            chart = interval_chart(
                bars, _axis(name, bars, reference), f"{name}: {'; '.join(spoken)}", reference=reference
            )
            page.figure(
                chart,
                f"{name} of probes of each factor, with 95 % intervals; chance is {reference:g}. Permuted levels (dashed): mean "
                "and range.",
            )


def _bar(row: DriftRow, name: str, *, main: bool = True) -> Bar:
    value = row.estimate or 0.0
    low, high = (value if each is None else each for each in (row.low, row.high))
    return Bar(name, value, low, high, main)


def _axis(name: str, bars: Sequence[Bar], reference: float) -> Axis:
    lowest = min([reference, *(bar.low for bar in bars)])
    step = 0.1 if lowest >= 0 else 0.2
    low = max(-1.0, step * float(np.floor(lowest / step)))
    return Axis(name, low, 1.0, [round(low + step * number, 1) for number in range(round((1 - low) / step) + 1)])


def _factor(page: Page, result: DriftResult, factor: Factor) -> None:
    page.text(f"Taken as {factor.how}.")
    shares = _rows(result, factor, ["kernel share", "variance share", "p-value"])
    if shares:
        rows = [(_NAMES[row.metric], row.control, told(row), _chance(row), row.note) for row in shares]
        header = ("Figure", "Of", "Estimate", "Chance", "Note")
        page.table("How much of the variance lies between levels, and permutation tests", header, rows, texts=5)
    found = _rows(result, factor, ["auroc", "r2", "mae", "auroc difference", "r2 difference"])
    probes = [row for row in found if not _is_removal(row)]
    rows = [(_NAMES[row.metric], row.control, told(row), _chance(row), row.note) for row in probes]
    page.table("Probes of the factor", ("Figure", "Probe", "Estimate", "Chance", "Note"), rows, texts=5)
    _levels(page, result, factor)


_NAMES = {
    "kernel share": "Share of the kernel's variance",
    "variance share": "Share of the variance",
    "p-value": "p-value",
    "auroc": "AUROC",
    "auroc difference": "Difference of AUROC",
    "r2": "R²",
    "r2 difference": "Difference of R²",
    "mae": "Mean absolute error",
    "variance removed": "Variance removed",
}


def _chance(row: DriftRow) -> str:
    return "" if row.chance is None else rounded(row.chance)


def _levels(page: Page, result: DriftResult, factor: Factor) -> None:
    figures = {
        (row.level, row.metric, row.control): told(row)
        for row in _rows(result, factor, ["auroc", "shift", "mmd2"], with_level=True)
    }
    columns = [
        ("shift", "all recordings", "Shift"),
        ("shift", "same patients", "Shift, same patients"),
        ("mmd2", "all recordings", "MMD²"),
        ("auroc", LINEAR, "AUROC, linear"),
        ("auroc", NON_LINEAR, "AUROC, non-linear"),
    ]
    used = [each for each in columns if any(key[1:] == each[:2] for key in figures)]
    table = [
        (
            level.name,
            rounded_count(level.n_records),
            rounded_count(level.n_patients),
            *(figures.get((level.name, metric, control), "–") for metric, control, _ in used),
        )
        for level in factor.levels
    ]
    page.table(
        "Each level against all others", ("Level", "Recordings", "Patients", *(name for _, _, name in used)), table
    )
    if factor.rare:
        named = [level.name for level in factor.rare if level.n_patients >= FEWEST]
        others = len(factor.rare) - len(named[:_MOST_NAMED])
        what = f"pooled as {factor.names[-1]}" if factor.has_pool else "left out"
        told_names = f"{', '.join(named[:_MOST_NAMED])}; and {others:,} others" if named else f"{others:,} levels"
        page.text(f"Rare levels, {what}: {told_names}. The table of levels has all.")


_ORDER = (
    POOLED,
    WITHIN,
    BETWEEN,
    LEFT_OUT,
    PREVALENCE,
    f"{POOLED} after {LEACE}",
    f"{WITHIN} after {LEACE}",
    f"{POOLED} after {RANDOM}",
    f"{WITHIN} after {RANDOM}",
)


def _label(page: Page, result: DriftResult, factor: Factor, label: str) -> None:
    rows = sorted(_rows(result, factor, ["auroc"], label=label), key=lambda row: _ORDER.index(row.control))
    if not rows:
        return
    page.heading(f"{label}, by {factor.name}")
    bars = [_bar(row, row.control, main=row.control not in _ORDER[5:]) for row in rows]
    spoken = "; ".join(f"{row.control} {told(row)}" for row in rows)
    chart = interval_chart(
        bars, _axis("AUROC", bars, 0.5), f"AUROC of {label} by {factor.name}: {spoken}", reference=0.5
    )
    page.figure(
        chart,
        f"AUROC of {label}: of all pairs of recordings, of pairs within a level of {factor.name} and between levels, for levels "
        f"that were left out of the training, and of the level's share of {label} alone. Dashed: a sensitivity check.",
    )
    differences = _rows(result, factor, ["auroc difference"], label=label)
    table = [(row.control, told(row), row.note) for row in [*rows, *differences]]
    page.table(f"AUROC of {label}, and differences", ("What", "Estimate", "Note"), table, texts=3)
    by_level = _rows(result, factor, ["auroc"], label=label, with_level=True)
    if by_level:
        names = list(dict.fromkeys(row.level for row in by_level))
        found = {(row.level, row.control): told(row) for row in by_level}
        shown = [(name, found.get((name, WITHIN), "–"), found.get((name, LEFT_OUT), "–")) for name in names]
        header = (factor.name, "Trained on all levels", "Trained on the others")
        page.table(f"AUROC of {label} in each level with enough patients", header, shown)


def _left_of_factor(page: Page, result: DriftResult, factor: Factor) -> None:
    rows = [row for row in _rows(result, factor, ["auroc", "r2", "variance removed"]) if _is_removal(row)]
    if rows:
        table = [(row.control, _NAMES[row.metric], told(row), row.note) for row in rows]
        header = ("Removal", "Figure", "Estimate", "Note")
        page.table(f"What is left of {factor.name} after a removal", header, table, texts=4)
        page.text(
            f"After LEACE, embeddings know nothing linear of {factor.name} in the training part. Where {factor.name} and a label "
            f"go together, this takes what is known of the label too: what the label then loses is no estimate of what "
            f"{factor.name} contributed. The removal of random directions of equal variance shows what any removal does."
        )


def _is_removal(row: DriftRow) -> bool:
    return row.metric == "variance removed" or " after " in row.control


def _method(page: Page, result: DriftResult) -> None:
    left = [(reason, shown_count(number)) for reason, number in result.selection.left_out.items()]
    page.table("Recordings that were left out", ("Rule", "Recordings"), left)
    settings = result.settings
    page.text(
        "The variance is that of embeddings whose features have a standard deviation of 1. Shift: the distance between the mean "
        "of a level and that of all others, over the root mean square distance of two recordings of different patients; same "
        "patients: the mean difference between recordings of the same patient. Both, the shares and MMD² are estimated without "
        "bias from pairs of different patients, so that they are 0 on average where there is no difference, and shares and MMD² "
        "may be below 0.",
        "Kernel: Gaussian, of the median distance, by random Fourier features. p = (1 + b) / (1 + B), with b of B = "
        f"{settings.permutations:,} permutations at least as large. Patients with one level: levels of whole patients are "
        "permuted among patients with about as many recordings. Patients with several: levels are permuted within each patient.",
        "Probes: logistic regression (numbers: ridge regression) with an L2 penalty chosen in "
        f"{settings.inner_folds} inner folds; {counted(settings.folds, 'fold')} by patient; non-linear: with random Fourier "
        f"features beside the embedding. Labels: {result.how or 'none'}. Features: {settings.features}. Seed {settings.seed}. "
        "Each figure is by itself, without a correction for their number.",
    )
