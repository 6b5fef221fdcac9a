"""Figures of a time to an event: observed against predicted risks, and observed risks of groups by predicted risk.

In: a page, and the result of a probe. Out: figures on the page, of aggregates only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecgfounder.analysis.pages.charts import Axis, Series, line_chart
from ecgfounder.analysis.pages.page import Page
from ecgfounder.analysis.probing.probe import ProbeResult
from ecgfounder.analysis.statistics.solver import Doubles, Floats
from ecgfounder.analysis.statistics.time_metrics import incidence
from ecgfounder.results.small_cells import FEWEST

_BINS, _GROUPS = 10, ("low", "middle", "high")
_POINTS = 60


def risk_figures(page: Page, result: ProbeResult) -> None:
    """Add the figures."""
    evaluation, horizons = result.evaluation, result.data.task.horizons
    if evaluation.risks is None:
        return
    tested = np.isfinite(evaluation.risks).all(axis=1)
    y, risks = result.data.Y[tested, 0], evaluation.risks[tested]
    page.text(
        "Left: observed risk (Kaplan and Meier) against the mean predicted risk, in bins of equal size by predicted risk, up to "
        "each time. Right: observed risk of the thirds with the lowest, middle and highest predicted risk. Each recording's "
        "prediction is that of a model which was not trained on its patient."
    )
    label = result.labels.names[0]
    counts = evaluation.counts[label]
    scored = [at for at, each in enumerate(horizons) if counts.of(f"risk@{each:g}").why_not_scored(0) is None]
    page.figures(
        [
            (_calibration(y, risks[:, scored], [horizons[at] for at in scored]), f"Calibration, {label}"),
            (_thirds(y, risks[:, -1], horizons[-1]), f"Risk over time by predicted risk, {label}"),
        ]
    )


def _calibration(y: Floats, risks: Doubles, horizons: Sequence[float]) -> str:
    lines = []
    for number, horizon in enumerate(horizons):
        order = np.argsort(risks[:, number], kind="stable")
        bins = [part for part in np.array_split(order, _BINS) if len(part) >= FEWEST]
        points = [
            (float(risks[part, number].mean()), float(incidence(y[part], (horizon,))[0]))
            for part in bins
            if np.abs(y[part]).max() > horizon
        ]
        lines.append(Series(f"to {horizon:g}", points, dots=True))
    top = _up(max([max(point) for line in lines for point in line.points] or [1.0]))
    ticks = [round(top * part / 5, 4) for part in range(6)]
    axes = Axis("Predicted risk", 0.0, top, ticks), Axis("Observed risk", 0.0, top, ticks)
    return line_chart(lines, *axes, "Observed against predicted risk", diagonal=True)


def _thirds(y: Floats, risk: Doubles, last: float) -> str:
    times = np.linspace(0.0, last, _POINTS)
    lines = []
    for name, part in zip(_GROUPS, np.array_split(np.argsort(risk, kind="stable"), len(_GROUPS)), strict=True):
        if len(part) >= FEWEST:
            lines.append(
                Series(name, list(zip(times.tolist(), incidence(y[part], times.tolist()).tolist(), strict=True)))
            )
    top = _up(max([point[1] for line in lines for point in line.points] or [1.0]))
    x = Axis("Time", 0.0, last, [round(last * part / 4, 4) for part in range(5)])
    risks = Axis("Observed risk", 0.0, top, [round(top * part / 5, 4) for part in range(6)])
    return line_chart(lines, x, risks, "Observed risk over time of thirds by predicted risk")


def _up(value: float) -> float:
    """The end of an axis from 0 that has room for a value."""
    for end in (0.05, 0.1, 0.2, 0.3, 0.5, 1.0):
        if value <= end:
            return end
    return 1.0
