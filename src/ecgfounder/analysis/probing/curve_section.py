"""The section on learning curves of a probe's page.

In: a page, and the result of a probe. Out: for each label a figure and a table.
"""

from __future__ import annotations

import numpy as np

from ecgfounder.analysis.pages.charts import Axis, Series, line_chart
from ecgfounder.analysis.pages.page import Page
from ecgfounder.analysis.probing.learning_curve import OWN, RANDOM, SHARED
from ecgfounder.analysis.probing.probe import ProbeResult

_NAMES = {OWN: "embedding", SHARED: "embedding, same recordings", RANDOM: "random weights"}
_MOST_LABELS = 20


def curve_section(page: Page, result: ProbeResult, axis: Axis, name: str) -> None:
    """Add the section; `axis` and `name` are those of the metric by which features are compared."""
    page.section("Learning curves")
    which = result.evaluation.counts[result.evaluation.labels[0]].which
    size = f"Patients {which}"
    page.text(
        "The probe trained on few patients, and tested on the same test parts: means over training subsets, which are nested "
        "from size to size. Networks with random weights may be tested on a sample; then the embedding has a second curve on it."
    )
    labels = list(dict.fromkeys(point.label for point in result.curves))
    for label in labels[:_MOST_LABELS]:
        points = [point for point in result.curves if point.label == label]
        lines = []
        for curve in dict.fromkeys(point.curve for point in points):
            means = [
                (float(np.log10(each.size)), float(np.mean(each.values))) for each in points if each.curve == curve
            ]
            lines.append(Series(_NAMES[curve], means, dots=True))
        sizes = sorted({point.size for point in points})
        places = [float(np.log10(each)) for each in sizes]
        x = Axis(f"{size} in training", places[0] - 0.1, places[-1] + 0.1, places, [f"{each:,}" for each in sizes])
        about = "; ".join(f"{_NAMES[each.curve]}, {each.size}: {np.mean(each.values):.3f}" for each in points)
        chart = line_chart(
            lines, x, axis, f"{name} of {label} by the size of the training part: {about}", legend="below"
        )
        page.figures([(chart, f"Learning curve, {label}")])
        rows = [
            (
                _NAMES[each.curve],
                f"{each.size:,}",
                f"{each.n_patients:,.0f}",
                f"{each.n_records:,.0f}",
                f"{np.mean(each.values):.3f} ({min(each.values):.3f}, {max(each.values):.3f})",
            )
            for each in points
        ]
        header = ("Probe of", size, "Patients in training", "Recordings in training", f"{name}, mean and range")
        page.table(f"{label}: {len(points[0].values)} training subsets of each size", header, rows)
    if len(labels) > _MOST_LABELS:
        page.text(f"The first {_MOST_LABELS} labels are shown; results.pq has all.")
