"""A probe's result as files: tables, predictions, the fitted probe, a page.

In: a `ProbeResult` and a folder. Out: results.pq and .csv, predictions.pq and .csv, checklist.csv, probe.safetensors, probe.json,
report.html, figures/.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from safetensors.numpy import save

from ecgfounder._version import __version__
from ecgfounder.analysis.pages.charts import N_STYLES, Axis, Bar, Series, interval_chart, line_chart, unit_axis
from ecgfounder.analysis.pages.page import Page, shown_count
from ecgfounder.analysis.pages.tables import (
    EMBEDDING,
    Row,
    check_results_folder,
    make_folder,
    with_interval,
    write_table,
)
from ecgfounder.analysis.probing.checklist import checklist
from ecgfounder.analysis.probing.curve_section import curve_section
from ecgfounder.analysis.probing.label_noise import AMONG, FIRST, FOUND
from ecgfounder.analysis.probing.label_noise import CONTROL as NOISE
from ecgfounder.analysis.probing.learning_curve import PREFIX as CURVE
from ecgfounder.analysis.probing.probe import CONTROLS_FOLDER, OVERLAP, RECALIBRATED, ProbeResult
from ecgfounder.analysis.probing.risk_figures import risk_figures
from ecgfounder.analysis.probing.subgroup_section import subgroup_section
from ecgfounder.analysis.probing.subgroups import PREFIX
from ecgfounder.analysis.statistics.evaluation import Evaluation
from ecgfounder.analysis.statistics.fitting import BINARY, NUMBER, TIME
from ecgfounder.analysis.statistics.metrics import calibration_curve, net_benefit
from ecgfounder.analysis.statistics.recalibration import reaches, recalibration
from ecgfounder.errors import RunError, StorageError
from ecgfounder.network.named_head import HAZARDS, NUMBERS, PROBABILITIES, metadata_of
from ecgfounder.results.small_cells import FEWEST, rounded_count
from ecgfounder.storage import Location
from ecgfounder.storage.writing import write_whole

MARKER = "probe.json"
"""The file by which a folder is known as that of a probe."""

FIGURES = "figures"
"""The folder with the page's figures as files."""

_BENEFIT_THRESHOLDS = tuple(float(each) for each in np.round(np.arange(0.01, 0.61, 0.01), 2))


def write_report(result: ProbeResult, folder: Location) -> None:
    """Write all files of a result.

    Raises
    ------
    RunError
        If the folder cannot be written, or holds other things.
    """
    check_results_folder(folder, MARKER, CONTROLS_FOLDER)
    try:
        make_folder(folder)
        write_whole(folder / MARKER, orjson.dumps(_about(result), option=orjson.OPT_INDENT_2))
        write_table(result.table, folder, "results")
        write_table(result.predictions, folder, "predictions")
        if result.settings.label_noise:
            write_table(result.contradictions, folder, "label_noise")
        write_table(pa.Table.from_pylist([asdict(item) for item in checklist(result)]), folder, "checklist")
        if result.final is not None:
            weights = result.final.weights
            tensors = {
                "weight": np.ascontiguousarray(weights.weight.T, dtype=np.float32),
                "bias": weights.bias.astype(np.float32),
            }
            write_whole(folder / "probe.safetensors", save(tensors, _metadata(result)))
            if result.settings.recalibrate and result.final.held is not None:
                intercept, slope = np.array(_final_lines(result)).T
                tensors = {
                    "weight": np.ascontiguousarray((slope * weights.weight).T, dtype=np.float32),
                    "bias": (intercept + slope * weights.bias).astype(np.float32),
                }
                write_whole(folder / "probe_recalibrated.safetensors", save(tensors, _metadata(result)))
        page = _page(result)
        make_folder(folder / FIGURES)
        if folder.is_local:  # those of an earlier probe with other labels
            for old in (folder / FIGURES).path.glob("[0-9][0-9]*-*.svg"):
                old.unlink()
        for name, content in page.files.items():
            write_whole(folder / FIGURES / name, content)
        write_whole(folder / "report.html", page.html.encode())
    except (OSError, StorageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(f"{folder} could not be written: {reason}") from error


_PREDICTED = {BINARY: PROBABILITIES, NUMBER: NUMBERS, TIME: HAZARDS}


def _metadata(result: ProbeResult) -> dict[str, str]:
    runs = [run for run, rows in result.selection.by_run() if len(rows)]
    checkpoints = sorted({str(run.record.fingerprint["checkpoint_sha256"]) for run in runs})
    return metadata_of(result.evaluation.labels, tuple(checkpoints), _PREDICTED[result.labels.kind])


def _about(result: ProbeResult) -> dict[str, Any]:
    """The settings, what was left out, and the fitted probe's thresholds."""
    settings = {name: value for name, value in asdict(result.settings).items() if name != "code_classes"}
    fingerprints = [each.record.fingerprint for each in getattr(result.selection.run, "runs", [result.selection.run])]
    final = result.final
    models = [] if final is None else zip(result.evaluation.labels, final.C, final.thresholds, strict=True)
    return {
        "program": {"name": "ecgfounder", "version": __version__},
        "settings": settings,
        "labels": {"names": list(result.labels.names), "how": result.labels.how},
        "left_out": result.selection.left_out,
        "not_scored": result.evaluation.not_scored,
        "split": result.settings.describe_split(),
        "probe": [{"label": label, "C": C, "thresholds": dict(thresholds)} for label, C, thresholds in models],
        "baseline_hazard": _baseline(result),
        "prediction_intervals": _half_widths(result),
        "controls": [{"name": control.name, "what": control.what} for control in result.controls],
        "warnings": list(result.warnings),
        "fingerprints": fingerprints,
    }


def _final_lines(result: ProbeResult) -> list[tuple[float, float]]:
    """The intercept and slope of each label of the probe to be used on other recordings."""
    if result.final is None or result.final.held is None:
        return []
    return recalibration(result.final.held, result.data.only(result.evaluation.labels).Y)


def _half_widths(result: ProbeResult) -> dict[str, dict[str, float]]:
    """Of each number, half the width of the prediction intervals of the probe to be used on other recordings, by band."""
    data, final = result.data, result.final
    if data.task.interval is None or final is None or final.held is None:
        return {}
    labels = result.evaluation.labels
    bands = np.full(len(data.Y), -1) if data.bands is None else data.bands
    found = reaches(final.held, data.only(labels).Y, data.groups, bands, data.task.interval)
    names = {-1: "all", **dict(enumerate(result.band_names))}
    return {
        label: {names[band]: width for band, width in own.items()} for label, own in zip(labels, found, strict=True)
    }


def _baseline(result: ProbeResult) -> dict[str, float]:
    """Of a time to an event, the cumulative hazard at a score of 0: a score s has the risk 1 - exp(-hazard * exp(s))."""
    if result.final is None or result.final.baseline is None:
        return {}
    return {f"{time:g}": result.final.baseline.at(time) for time in result.data.task.horizons}


# --- the page ----------------------------------------------------------------------------------------------------------


def page_of(result: ProbeResult) -> str:
    """The HTML page of a result; it holds aggregates only."""
    return _page(result).html


def _page(result: ProbeResult) -> Page:
    data = result.data
    page = Page(
        "What do the embeddings know?",
        f"A linear probe of {', '.join(result.labels.names[:6])}{' and others' if len(result.labels.names) > 6 else ''}; "
        f"ecgfounder {__version__}",
    )
    n_patients = len(np.unique(data.groups))
    page.section("Summary")
    unit = "patients" if result.settings.group else "groups (no patient was given: each recording is its own)"
    page.text(
        f"{len(data.Y):,} recordings of {n_patients:,} {unit}; split: {result.settings.describe_split()}. A recording is scored "
        "once; intervals (95 %) are over patients, and are about the fitted probe on new patients."
    )
    page.notes(result.warnings)
    main = result.data.task.metric
    _overview(page, result, main)
    page.section("Metrics")
    _metrics(page, result)
    page.section("Controls")
    _controls(page, result, main)
    if result.settings.recalibrate:
        page.section("Recalibration")
        _recalibration(page, result)
    if result.settings.subgroups or result.band_names:
        own = [row for row in result.rows if row.metric == main and row.control.startswith((EMBEDDING, PREFIX))]
        subgroup_section(page, result, _axis(main, own), _NAMES[main])
    if result.settings.label_noise:
        page.section("Label noise")
        _noise(page, result)
    if result.curves:
        own = [row for row in result.rows if row.metric == main and row.control.startswith(CURVE)]
        curve_section(page, result, _axis(main, own), _NAMES[main])
    if result.labels.kind == BINARY:
        page.section("Calibration and decisions")
        _curves(page, result)
    elif result.labels.kind == TIME:
        page.section("Risks")
        risk_figures(page, result)
    page.section("Recordings and method")
    _method(page, result)
    page.section("TRIPOD+AI checklist")
    page.text("Items that begin with 'To be written' are the author's.")
    items = [(item.number, item.topic, item.text) for item in checklist(result)]
    page.table("What the command knows is filled in", ("Item", "Topic", "Text"), items, texts=3)
    return page


def _overview(page: Page, result: ProbeResult, metric: str) -> None:
    chosen = [
        row for row in result.rows if row.metric == metric and row.control == EMBEDDING and row.estimate is not None
    ]
    page.figure(
        interval_chart(
            [_bar(row, row.label) for row in chosen],
            _axis(metric, chosen),
            f"{_NAMES[metric]} of each label with its 95 % interval: {_spoken(chosen)}",
            reference=0.0 if metric == "r2" else 0.5,
        ),
        f"{_NAMES[metric]} of the probe on patients that it was not trained on, with 95 % intervals.",
    )


_NAMES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "brier": "Brier score",
    "scaled_brier": "Scaled Brier score",
    "r2": "R²",
    "mae": "MAE",
    "ppv": "PPV",
    "npv": "NPV",
    "uno_c": "Uno's C",
    "risk": "Observed risk",
    "calibration_ratio": "Observed / predicted risk",
}


def _axis(metric: str, rows: Sequence[Row]) -> Axis:
    lows = [row.low for row in rows if row.low is not None] or [0.5]
    if metric == "r2":
        low = min(0.0, float(np.floor(min(lows) * 5) / 5))
        return Axis(_NAMES[metric], max(low, -1.0), 1.0, [each / 5 for each in range(int(max(low, -1.0) * 5), 6)])
    low = min(0.4, float(np.floor(min(lows) * 10) / 10))
    return Axis(_NAMES[metric], low, 1.0, [each / 10 for each in range(round(low * 10), 11)])


def _bar(row: Row, name: str) -> Bar:
    value = row.estimate or 0.0
    return Bar(
        name,
        value,
        value if row.low is None else row.low,
        value if row.high is None else row.high,
        row.control == EMBEDDING,
    )


def _spoken(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row.label} {with_interval(row)}" for row in rows[:20])


def _metrics(page: Page, result: ProbeResult) -> None:
    own = [row for row in result.rows if row.control == EMBEDDING]
    metrics = list(dict.fromkeys(row.metric for row in own if row.metric != "none"))
    plain = [name for name in metrics if "@" not in name]
    labels = list(dict.fromkeys(row.label for row in own))
    counts = {}
    for label in labels:
        first = next(row for row in own if row.label == label)
        without = (first.n_patients or 0) - (first.n_pos_patients or 0)
        of_label = rounded_count if 0 < without < FEWEST else shown_count  # else the few others could be counted
        counts[label] = (shown_count(first.n_records), shown_count(first.n_patients), of_label(first.n_pos_patients))
    table = [(label, *counts[label], *_cells(own, label, plain[:_IN_ONE_TABLE])) for label in labels]
    header = (
        "Label",
        "Recordings",
        "Patients",
        "With the event" if result.labels.kind == TIME else "With the label",
        *map(_name_of, plain[:_IN_ONE_TABLE]),
    )
    page.table("Test parts together; with several folds, the mean of the folds' metrics", header, table)
    if further := plain[_IN_ONE_TABLE:]:
        table = [(label, *_cells(own, label, further)) for label in labels if label not in result.evaluation.not_scored]
        page.table(
            "Further figures" if result.labels.kind == NUMBER else "Probabilities",
            ("Label", *map(_name_of, further)),
            table,
        )
    for label, reason in result.evaluation.not_scored.items():
        page.text(f"{label} is not scored: {reason}.")
    at = list(dict.fromkeys(name.partition("@")[2] for name in metrics if "@" in name))
    kinds = list(dict.fromkeys(name.partition("@")[0] for name in metrics if "@" in name))
    if at:
        table = [
            (label, threshold, *_cells(own, label, [f"{kind}@{threshold}" for kind in kinds], digits=2))
            for label in result.evaluation.labels
            for threshold in at
        ]
        is_time = result.labels.kind == TIME
        page.table(
            f"Up to each time (the unit is that of {result.settings.time})"
            if is_time
            else "At thresholds chosen without the test part",
            ("Label", "Time" if is_time else "Threshold", *map(_name_of, kinds)),
            table,
            texts=2,
        )


_IN_ONE_TABLE = 3


def _name_of(metric: str) -> str:
    return _NAMES.get(metric, metric.replace("_", " ").capitalize())


def _cells(rows: Sequence[Row], label: str, metrics: Sequence[str], digits: int = 3) -> list[str]:
    """A label's metrics with their intervals."""
    found = {row.metric: row for row in rows if row.label == label}
    return [with_interval(found[name], digits) if name in found else "–" for name in metrics]


def _controls(page: Page, result: ProbeResult, metric: str) -> None:
    rows = [row for row in result.rows if row.metric == metric and row.estimate is not None]
    rows = [row for row in rows if not row.control.startswith((PREFIX, CURVE, RECALIBRATED))]
    for label in dict.fromkeys(row.label for row in rows):
        of_label = [row for row in rows if row.label == label]
        if len(of_label) < 2:
            continue
        page.figure(
            interval_chart(
                [_bar(row, row.control) for row in of_label],
                _axis(metric, of_label),
                f"{_NAMES[metric]} of {label} by control: "
                + "; ".join(f"{row.control} {with_interval(row)}" for row in of_label),
                reference=0.0 if metric == "r2" else 0.5,
            ),
            f"{label}: {_NAMES[metric]} of the embedding and of the controls.",
        )
    facts = {control.name: control.what for control in result.controls if control.name != RECALIBRATED}
    facts |= {row.control: row.note for row in rows if row.control not in (EMBEDDING, *facts)}
    if facts:
        page.table("What each control is", ("Control", "Meaning"), list(facts.items()), texts=2)
    else:
        page.text("There is no control. A figure without controls says little about an embedding.")
    compared = [row for row in result.rows if row.metric.endswith("difference") or row.metric.startswith("p-value")]
    if compared:
        table = [(row.label, row.control, row.metric, with_interval(row), row.note) for row in compared]
        page.table(
            "Differences in the same draws of patients, and p-values",
            ("Label", "Control", "Figure", "Estimate", "Note"),
            table,
            texts=5,
        )


def _recalibration(page: Page, result: ProbeResult) -> None:
    where = "the validation part" if result.settings.validation else "the inner folds of the training part"
    page.text(
        f"Logits were changed by an intercept and a slope that were fitted on {where}, never on the test part. Ranks within a "
        "test part, and so the AUROC, stay as they are."
    )
    rows = {(row.label, row.control, row.metric): row for row in result.rows}
    metrics = ("brier", "calibration_intercept", "calibration_slope")
    table = [
        (label, name, *(with_interval(rows[label, control, metric]) for metric in metrics))
        for label in result.evaluation.labels
        for name, control in (("as fitted", EMBEDDING), ("recalibrated", RECALIBRATED))
    ]
    page.table("Before and after", ("Label", "Logits", *map(_name_of, metrics)), table, texts=2)


def _noise(page: Page, result: ProbeResult) -> None:
    page.text(
        "Recordings whose leave-out prediction contradicts their label, by confident learning; label_noise.csv names them, to be "
        "looked at. They may be wrong labels, or ECGs that are hard for the probe. Errors were planted in the labels of random "
        "recordings, to see how many of them would be found."
    )
    planted = {(row.label, row.metric): row for row in result.rows if row.control == NOISE}
    table = []
    for each in result.noise:
        cells = [planted.get((each.label, metric)) for metric in (FOUND, AMONG, FIRST)]
        counts = shown_count(len(each.ranked)), shown_count(len(each.rows))
        table.append((each.label, *counts, *("–" if row is None else with_interval(row, 2) for row in cells)))
    header = ("Label", "Recordings", "Contradict it", *(each.capitalize() for each in (FOUND, AMONG, FIRST)))
    page.table("Contradictions, and shares of planted errors: mean and range", header, table)


def _curves(page: Page, result: ProbeResult) -> None:
    page.text(
        "Left: the share of positive recordings in bins of equal size, by predicted probability. Right: the net benefit of acting"
        " above each threshold probability, against treating all or none."
    )
    evaluation = result.evaluation
    for number, label in enumerate(evaluation.labels[:_MOST_CURVES]):
        page.heading(label)
        page.figures(_curves_of(result, evaluation, number, label))
    if len(evaluation.labels) > _MOST_CURVES:
        page.text(
            f"Curves of the first {_MOST_CURVES} labels are shown; predictions.pq has what is needed for the others."
        )


_MOST_CURVES = 20


def _curves_of(result: ProbeResult, evaluation: Evaluation, number: int, label: str) -> list[tuple[str, str]]:
    scores = evaluation.scores[:, number]
    y = result.data.Y[:, result.data.task.labels.index(label)]
    tested = np.isfinite(scores) & np.isfinite(y)
    positive, probability = y[tested] > 0.5, 0.5 * (1 + np.tanh(scores[tested] / 2))
    folds = evaluation.fold[tested]
    lines = []
    for fold in np.unique(folds)[:N_STYLES]:
        bins = calibration_curve(positive[folds == fold], probability[folds == fold])
        lines.append(Series(f"fold {fold + 1}", [(mean, share) for mean, share, _ in bins], dots=True))
    calibration = line_chart(
        lines,
        unit_axis("Predicted probability"),
        unit_axis("Share with the label"),
        f"Calibration of {label}",
        diagonal=True,
    )
    # Probabilities, unlike ranks, may be put together across folds.
    benefit = net_benefit(positive, probability, _BENEFIT_THRESHOLDS)
    everyone = net_benefit(positive, np.ones(len(positive)), _BENEFIT_THRESHOLDS)
    prevalence = float(positive.mean())
    top = max(0.05, float(np.ceil(prevalence * 10) / 10))
    shown = [
        Series("probe", list(zip(_BENEFIT_THRESHOLDS, benefit.tolist(), strict=True))),
        Series("all", [(t, b) for t, b in zip(_BENEFIT_THRESHOLDS, everyone.tolist(), strict=True) if b > -0.05 * top]),
        Series("none", [(_BENEFIT_THRESHOLDS[0], 0.0), (_BENEFIT_THRESHOLDS[-1], 0.0)]),
    ]
    decision = line_chart(
        shown,
        Axis("Threshold probability", 0.0, 0.6, (0.0, 0.2, 0.4, 0.6)),
        Axis("Net benefit", -0.1 * top, top, (0.0, round(top / 2, 3), top)),
        f"Net benefit of {label}",
        legend="right",
    )
    return [(calibration, f"Calibration, {label}"), (decision, f"Decision curve, {label}")]


def _method(page: Page, result: ProbeResult) -> None:
    left = [(reason, shown_count(number)) for reason, number in result.selection.left_out.items()]
    page.table("Recordings that were left out", ("Rule", "Recordings"), left)
    grid = ", ".join(f"{value:g}" for value in result.settings.penalties)
    page.text(
        f"Labels: {result.labels.how}. Features: {result.settings.features}, of several windows or leads the mean of the "
        f"{'logits' if result.settings.combine == 'logit' else 'embeddings'}, standardised on the training part. Inverse "
        f"penalties C that were tried: {grid}. Seed {result.settings.seed}. {OVERLAP}"
    )
