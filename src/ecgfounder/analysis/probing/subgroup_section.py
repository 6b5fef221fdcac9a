"""The section on subgroups of a probe's page.

In: a page, and the result of a probe. Out: for each label a figure and a table, of aggregates only.
"""

from __future__ import annotations

from collections.abc import Sequence

from ecgfounder.analysis.pages.charts import Axis, Bar, interval_chart
from ecgfounder.analysis.pages.page import Page
from ecgfounder.analysis.pages.tables import EMBEDDING, Row, with_interval
from ecgfounder.analysis.probing.probe import ProbeResult
from ecgfounder.analysis.probing.subgroups import GAP, PREFIX
from ecgfounder.analysis.statistics.fitting import TIME
from ecgfounder.escaping import counted
from ecgfounder.results.small_cells import rounded_count

_MOST_LABELS = 20

_SHOWN = ("calibration_slope", "mae", "coverage", "interval_width")
"""Beside the metric by which features are compared: those that the table has, where there are such."""


def subgroup_section(page: Page, result: ProbeResult, axis: Axis, name: str) -> None:
    """Add the section.

    Parameters
    ----------
    page : Page
        The page.
    result : ProbeResult
        The result.
    axis, name : Axis, str
        The axis and the name of the metric by which features are compared.
    """
    page.section("Subgroups")
    page.text(
        "The same models and thresholds, tested on the recordings of each subgroup. A gap is the subgroup's figure minus that of "
        "the other recordings of the column, in the same draws of patients. A subgroup whose members are more alike, such as a "
        "band of ages, may have a lower figure for that alone. Counts are rounded: what exact ones leave of all could be small."
    )
    metric = result.data.task.metric
    for label in result.evaluation.labels[:_MOST_LABELS]:
        rows = [row for row in result.rows if row.label == label and row.control.startswith(PREFIX)]
        own = [row for row in result.rows if (row.label, row.control, row.metric) == (label, EMBEDDING, metric)]
        scored = [row for row in rows if row.metric == metric and row.estimate is not None]
        if not scored:
            page.text(f"{label}: no subgroup has enough patients.")
            continue
        page.heading(label)
        bars = [_bar(row, "all" if row.control == EMBEDDING else row.control[len(PREFIX) :]) for row in [*own, *scored]]
        spoken = "; ".join(f"{bar.name} {bar.value:.3f}" for bar in bars)
        page.figure(
            interval_chart(bars, axis, f"{name} of {label} by subgroup: {spoken}"), f"{label}: {name} by subgroup."
        )
        _table(page, label, rows, metric, name, "With the event" if result.labels.kind == TIME else "With the label")
    if len(result.evaluation.labels) > _MOST_LABELS:
        page.text(f"The first {_MOST_LABELS} labels are shown; results.pq has all.")


def _bar(row: Row, name: str) -> Bar:
    value = row.estimate or 0.0
    low, high = (value if each is None else each for each in (row.low, row.high))
    return Bar(name, value, low, high, row.control == EMBEDDING)


def _table(page: Page, label: str, rows: Sequence[Row], metric: str, name: str, with_it: str) -> None:
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row.control, {})[row.metric] = row
    scored = {control: each for control, each in found.items() if "none" not in each}
    further = [
        each
        for each in dict.fromkeys(each for metrics in scored.values() for each in metrics)
        if not each.endswith(GAP) and each.partition("@")[0] != metric and (each in _SHOWN or _at_youden(each))
    ]
    header = ("Subgroup", "Recordings", "Patients", with_it, name, "Gap")
    table = []
    for control, metrics in scored.items():
        first = next(iter(metrics.values()))
        counts = map(rounded_count, (first.n_records, first.n_patients, first.n_pos_patients))
        cells = [with_interval(metrics.get(each)) for each in (metric, f"{metric}{GAP}")]
        table.append((control[len(PREFIX) :], *counts, *cells))
    page.table(f"{label} by subgroup", header, table)
    if further:
        more = [
            (control[len(PREFIX) :], *(with_interval(metrics.get(each)) for each in further))
            for control, metrics in scored.items()
        ]
        page.table(
            "Calibration, and the common threshold 'youden'"
            if any("@youden" in each for each in further)
            else "Further figures",
            ("Subgroup", *map(_name_of, further)),
            more,
        )
    left = len(found) - len(scored)
    if left:
        page.text(f"Not scored, for too few patients: {counted(left, 'subgroup')}, named in results.pq.")


def _name_of(metric: str) -> str:
    words = metric.replace("_", " ").replace("@", " at ")
    return words.replace("ppv", "PPV").replace("mae", "MAE") if metric[:3] in ("ppv", "mae") else words.capitalize()


def _at_youden(metric: str) -> bool:
    kind, _, at = metric.partition("@")
    return (at == "youden" and kind in ("sensitivity", "specificity", "ppv")) or kind == "calibration_ratio"
