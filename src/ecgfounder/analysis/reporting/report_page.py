"""A report as one HTML page, and as files.

In: a `Report`. Out: the page; report.html, figures/ and report.json in a folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import orjson
import pyarrow as pa

from ecgfounder._version import __version__
from ecgfounder.analysis.pages.charts import bar_chart
from ecgfounder.analysis.pages.page import Page, rounded_count
from ecgfounder.analysis.pages.tables import check_results_folder, make_folder
from ecgfounder.analysis.reporting.cells import Partition
from ecgfounder.analysis.reporting.density import Plane, centre_and_spread, drawing, legend
from ecgfounder.analysis.reporting.drawings import Drawing
from ecgfounder.analysis.reporting.methods import methods_text, settings_of
from ecgfounder.analysis.reporting.report import HIDDEN, Embedded, Joint, Mark, Report, Table
from ecgfounder.analysis.reporting.sides import Mask
from ecgfounder.analysis.reporting.vectors import FAR, Sample
from ecgfounder.analysis.statistics.solver import Floats
from ecgfounder.errors import RunError, StorageError
from ecgfounder.escaping import counted, one_line
from ecgfounder.preprocess.quality import FLAGS
from ecgfounder.results.dataset_card import CITATION
from ecgfounder.results.small_cells import FEWEST, OTHERS
from ecgfounder.storage import Location
from ecgfounder.storage.writing import write_whole

MARKER = "report.json"
"""The file by which a folder is known as that of a report."""

PAGE = "report.html"
FIGURES = "figures"

_MOST_PANELS = 9
_MOST_NAMED = 20
_IN_CHARTS = ("Duration, s", "Heart rate, per minute")


def write_report_page(report: Report, folder: Location, drawings: Sequence[Drawing] = (), n_unread: int = 0) -> None:
    """Write the page and its figures.

    Raises
    ------
    RunError
        If the folder cannot be written, or holds other things.
    """
    check_results_folder(folder, MARKER)
    page = _page(report, drawings, n_unread)
    told = {
        "program": {"name": "ecgfounder", "version": __version__},
        "names": report.settings.names,
        "drawings": report.settings.drawings,
    }
    try:
        make_folder(folder)
        write_whole(folder / MARKER, orjson.dumps(told, option=orjson.OPT_INDENT_2))
        make_folder(folder / FIGURES)
        if folder.is_local:  # those of an earlier report
            for old in (folder / FIGURES).path.glob("[0-9][0-9]*-*.svg"):
                old.unlink()
        for name, content in page.files.items():
            write_whole(folder / FIGURES / name, content)
        write_whole(folder / PAGE, page.html.encode())
    except (OSError, StorageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(f"{folder} could not be written: {reason}") from error


def report_html(report: Report, drawings: Sequence[Drawing] = (), n_unread: int = 0) -> str:
    """The HTML page of a report; it holds aggregates only, unless names or drawings were asked for."""
    return _page(report, drawings, n_unread).html


def _page(report: Report, drawings: Sequence[Drawing], n_unread: int) -> Page:
    page = Page("Embeddings of a cohort of ECGs", f"A methods supplement; ecgfounder {__version__}")
    page.section("Summary")
    _summary(page, report)
    page.section("Cohort")
    _cohort(page, report)
    for table in report.by:
        page.section(f"By {table.title}")
        _by(page, report, table)
    page.section("Failures")
    _failures(page, report)
    page.section("Quality flags")
    _flags(page, report)
    if report.n_predicted is not None or report.n_stated is not None or report.predicted or report.stated:
        page.section("Diagnostic statements")
        _statements(page, report)
    if report.labels:
        page.section("Labels")
        for table in report.labels:
            _table(page, report, table)
    page.section("Embeddings")
    _embeddings(page, report)
    if report.embedded is not None:
        page.section("Map")
        _maps(page, report, report.embedded)
    for each in report.included:
        page.section(each.title)
        page.text(each.text)
        for inner in each.tables:
            page.table(inner.caption, inner.header, inner.rows, texts=inner.texts)
        if not each.tables:
            page.text(f"No figure is of {FEWEST} patients or more.")
    if report.settings.names:
        page.section("Recordings to look at")
        _named(page, report)
    if drawings or n_unread:
        page.section("Drawn ECGs")
        _drawn(page, drawings, n_unread)
    page.section("Settings and versions")
    _settings(page, report)
    page.section("Methods text and citation")
    _methods(page, report)
    return page


# --- recordings --------------------------------------------------------------------------------------------------------


def _summary(page: Page, report: Report) -> None:
    page.text(f"{_recordings(report)} {_outcome(report)}")
    page.notes(report.notes)
    unit = "patients" if report.settings.group is not None else "recordings (the column of patients was not given)"
    shown = [
        *(["names of recordings"] if report.settings.names else []),
        *(["drawn ECGs"] if report.settings.drawings else []),
    ]
    beside = f"; beside them, {' and '.join(shown)}, as was asked for" if shown else ""
    page.text(
        f"The page shows counts of at least {FEWEST} {unit}{beside}. Smaller values are put together as '{OTHERS}' or with their "
        f"neighbours, together with so many others that no small count can be computed from one or two tables; '{HIDDEN}' stands "
        "where that cannot be done. Percentages are of all embedded recordings, unless a table says otherwise."
    )
    if report.left_out:
        page.table(
            "Recordings that rules left out", ("Rule", "Recordings"), [(_line(a), b) for a, b in report.left_out]
        )


def _recordings(report: Report) -> str:
    if report.n is None:
        return f"{_few(report)} were embedded."
    if report.n_patients is not None:
        return f"{counted(report.n, 'recording')} of {counted(report.n_patients, 'patient')} were embedded."
    return f"{counted(report.n, 'recording')} {'was' if report.n == 1 else 'were'} embedded."


def _outcome(report: Report) -> str:
    if report.failed.n is None:
        return f"{_few(report)} failed."
    return "None failed." if report.failed.n == 0 else f"{counted(report.failed.n, 'recording')} failed."


def _few(report: Report) -> str:
    """What is too little to be counted, at the beginning of a sentence."""
    few = f"ewer than {FEWEST}"
    return f"Recordings of f{few} patients" if report.settings.group is not None else f"F{few} recordings"


def _unit(report: Report) -> str:
    return "recordings" if report.settings.group is None else "patients"


def _line(text: str) -> str:
    return one_line(text)


def _share(n: int, total: int | None) -> str:
    return "" if not total else f"{n / total:.1%}"


def _cohort(page: Page, report: Report) -> None:
    if not report.facts:
        page.text("There are no recordings.")
    same = [table for table in report.facts if len(table.cells.names) == 1]
    for table in report.facts:
        if table not in same:
            _table(page, report, table, with_chart=table.title in _IN_CHARTS)
    if same:
        page.table(
            "The same in all recordings", ("", "Value"), [(each.title, each.cells.names[0]) for each in same], texts=2
        )


def _table(page: Page, report: Report, table: Table, *, with_chart: bool = False) -> None:
    cells = table.cells
    if not cells:
        page.text(f"{table.title}: {HIDDEN}, because the numbers would tell of fewer than {FEWEST} {_unit(report)}.")
        return
    total = sum(cells.counts)
    patients = [] if table.patients is None else [f"{each:,}" for each in table.patients]
    columns = zip(cells.names, cells.counts, patients or [""] * len(cells.names), strict=True)
    rows = [(name, f"{n:,}", _share(n, total), *([of] if patients else [])) for name, n, of in columns]
    header = (table.title, "Recordings", "Share", *(["Patients"] if patients else []))
    page.table(f"Recordings by {_lower(table.title)}", header, rows)
    if with_chart and len(cells.names) > 2:
        caption = f"Recordings by {_lower(table.title)}; the numbers are in the table"
        page.figures([(_chart(cells, f"Recordings by {_lower(table.title)}"), caption)])


def _lower(title: str) -> str:
    """A title within a sentence; names of columns stay as they are."""
    return title[0].lower() + title[1:] if title[:1].isupper() and title[1:2].islower() else title


def _chart(cells: Partition, title: str) -> str:
    spoken = "; ".join(f"{name}: {n:,}" for name, n in zip(cells.names, cells.counts, strict=True))
    return bar_chart(
        [(name, float(n)) for name, n in zip(cells.names, cells.counts, strict=True)], title, f"{title}. {spoken}"
    )


def _by(page: Page, report: Report, table: Table) -> None:
    _table(page, report, table, with_chart=True)
    for joint in report.joint:
        if joint.title == table.title:
            _joint(page, joint)
    for flags in report.flags_by_level:
        if flags.title == table.title:
            rows = [
                (level, *(f"{n:.1%}" for n in line))
                for level, line in zip(flags.levels, flags.shares.tolist(), strict=True)
            ]
            page.table(f"Share of recordings with a flag, by {_lower(table.title)}", (table.title, *flags.flags), rows)


def _joint(page: Page, joint: Joint) -> None:
    """The fact with more values is in the rows, so that the table fits a page."""
    down, across = (joint.title, joint.levels), (joint.other_title, joint.values)
    counts = joint.counts
    if len(across[1]) > len(down[1]):
        down, across, counts = across, down, counts.T
    rows = [(name, *(f"{n:,}" for n in line)) for name, line in zip(down[1], counts.tolist(), strict=True)]
    page.table(f"Recordings by {_lower(down[0])} and {_lower(across[0])}", (down[0], *across[1]), rows)


def _failures(page: Page, report: Report) -> None:
    failed = report.failed
    page.text(_outcome(report))
    if failed.n and failed.reasons:
        rows = [(name, f"{n:,}") for name, n in zip(failed.reasons.names, failed.reasons.counts, strict=True)]
        page.table("Why recordings failed", ("Reason", "Recordings"), rows)
    elif failed.n:
        page.text(f"Their reasons are {HIDDEN}, because the numbers would tell of fewer than {FEWEST} {_unit(report)}.")


def _flags(page: Page, report: Report) -> None:
    page.text("A flag marks a recording that should be looked at. It changes no sample, and no recording fails by it.")
    if not report.flags:
        page.text("No recording has a flag.")
        return
    rows = [(mark.name, FLAGS[mark.name], *_number(mark, report.n)) for mark in report.flags]
    page.table("Flags of the embedded recordings", ("Flag", "Meaning", "Recordings", "Share"), rows, texts=2)


def _number(mark: Mark, total: int | None) -> tuple[str, str]:
    return (HIDDEN, "") if mark.n is None else (f"{mark.n:,}", _share(mark.n, total))


def _statements(page: Page, report: Report) -> None:
    for marks, n, told, what in (
        (report.predicted, report.n_predicted, "have predictions", "predicted with a probability of at least one half"),
        (report.stated, report.n_stated, "have a statement of the device", "printed by the device"),
    ):
        if n is not None:
            page.text(
                f"{n:,} of the recordings {told}. Statements are counted in the words of the network's classes alone."
            )
        if marks:
            rows = [(mark.name, *_number(mark, report.n)) for mark in marks]
            page.table(f"The most frequent statements, {what}", ("Statement", "Recordings", "Share"), rows)


# --- embeddings --------------------------------------------------------------------------------------------------------


def _embeddings(page: Page, report: Report) -> None:
    found = report.embedded
    if found is None:
        page.text("There are no embeddings.")
        return
    n = len(found.sample.rows)
    page.text(
        f"The embeddings of {rounded_count(n)} recordings were read: the mean over time, windows and leads, "
        f"{found.sample.width:,} numbers. The norm is the Euclidean length of this vector."
    )
    if found.quantiles:
        rows = [(f"{share:.0%}", f"{value:.4g}") for share, value in found.quantiles]
        page.table("Quantiles of the norm", ("Share of recordings below", "Norm"), rows)
    if len(found.norms.names) > 1:
        rows = [(name, f"{n:,}") for name, n in zip(found.norms.names, found.norms.counts, strict=True)]
        page.figures([(_chart(found.norms, "Recordings by norm"), "Recordings by norm; the numbers are in the table")])
        page.table("Norms of the embeddings", ("Norm", "Recordings"), rows)
    rows = [
        (f"Norm more than {FAR:g} standard deviations from the median", _shown(found.norm_outliers)),
        (f"Distance from the mean more than {FAR:g} standard deviations above the median", _shown(found.distant)),
    ]
    page.table(
        "Outliers; standard deviations are estimated from the quartiles, which outliers do not change",
        ("Embedding", "Recordings"),
        rows,
    )


def _shown(n: int | None) -> str:
    return HIDDEN if n is None else f"{n:,}"


def _maps(page: Page, report: Report, found: Embedded) -> None:
    sample = found.sample
    shares = sample.shares[:2]
    page.text(
        f"Each square is coloured by how many recordings of the sample lie in it; squares of fewer than {FEWEST} "
        f"{_unit(report)} are empty, and squares are larger in maps of few recordings. Squares at the border include "
        "what lies beyond it."
    )
    page.heading("Two directions of most variance (PCA)")
    everyone = np.ones(len(sample.rows), dtype=bool)
    if (
        report.n is not None and report.cells.size(_in_all(report, sample, everyone)) >= FEWEST
    ):  # few have no further directions
        page.text(f"They hold {shares[0]:.0%} and {shares[1]:.0%} of the variance.")
    _map(page, report, sample, sample.components, "PCA")
    if sample.map is not None:
        page.heading("UMAP")
        page.text(
            "UMAP keeps neighbours together; distances between clusters, their sizes and their shapes mean little, and another "
            "seed gives another picture."
        )
        _map(page, report, sample, sample.map, "UMAP")


def _map(page: Page, report: Report, sample: Sample, places: Floats, method: str) -> None:
    patients = report.cells.patients[sample.rows]
    everything = Plane.of(places, patients, len(places)).classes()
    if not everything.any():
        page.text(f"No square of the map has {FEWEST} {_unit(report)} or more.")
        return
    n_coloured = np.count_nonzero(everything)
    whole = f"Density of {rounded_count(len(sample.rows))} recordings by {method}: {n_coloured:,} squares are coloured."
    page.figures(
        [
            (drawing(everything, None, whole), f"All recordings of the sample, {method}"),
            (legend(), "Recordings in a square"),
        ]
    )
    for title, panels in _panels(report, sample):
        shown, hidden, rows = [], 0, []
        for name, mask in panels:
            plane = Plane.of(places, patients, int(np.count_nonzero(mask)))
            grid = plane.classes(mask)
            if report.cells.few(_in_all(report, sample, mask)) or report.cells.few(_in_all(report, sample, ~mask)):
                hidden += 1
                continue
            if grid.any():
                alone = f"{title}: {name}, among all recordings; {np.count_nonzero(grid):,} squares are coloured."
                shown.append((drawing(plane.classes(), grid, alone), f"{title}: {name} ({method})"))
            if mask.any():
                rows.append((name, *(f"{each:.2f}" for each in centre_and_spread(places, mask))))
        if shown:
            page.heading(f"{title}, {method}")
            page.figures(shown, small=True)
        if rows:
            header = (title, "Centre, x", "Centre, y", "Spread, x", "Spread, y")
            page.table(
                f"Centre and spread on the map by {title}, in standard deviations of all recordings", header, rows
            )
        if hidden:
            page.text(f"{title}: {counted(hidden, 'map')} {'is' if hidden == 1 else 'are'} {HIDDEN}.")


def _in_all(report: Report, sample: Sample, mask: Mask) -> Mask:
    """A mask of the sample as one of its recordings among all; the others are not there."""
    found = np.zeros(report.cells.n, dtype=bool)
    found[sample.rows[mask]] = True
    return found


def _panels(report: Report, sample: Sample) -> Iterator[tuple[str, list[tuple[str, Mask]]]]:
    """What maps are drawn of: names, and which recordings of the sample."""
    titles = ("Device", "Format", "Sampling rate")
    tables = [*(each for title in titles for each in report.facts if each.title == title), *report.by, *report.labels]
    for number, table in enumerate(tables):
        same = any(np.array_equal(table.cells.codes, each.cells.codes) for each in tables[:number])
        if len(table.cells.names) > 1 and not same:
            codes = table.cells.codes[sample.rows]
            order = np.argsort([-n for n in table.cells.counts], kind="stable")[:_MOST_PANELS]
            yield table.title, [(table.cells.names[each], codes == each) for each in sorted(order.tolist())]
    for title, marks in (
        ("Flag", report.flags),
        ("Predicted statement", report.predicted),
        ("Statement of the device", report.stated),
    ):
        chosen = [mark for mark in marks if mark.n not in (None, 0, report.n)][:_MOST_PANELS]
        if chosen:
            yield title, [(mark.name, mark.there[sample.rows]) for mark in chosen]


# --- single recordings -------------------------------------------------------------------------------------------------


def _named(page: Page, report: Report) -> None:
    names = report.selection.table["record"]
    page.text("Names of recordings are shown because they were asked for: look at them before this page is given away.")
    if report.embedded is not None:
        sample = report.embedded.sample
        order = np.argsort(-sample.distances, kind="stable")[:_MOST_NAMED]
        far = [
            (_line(str(names[int(sample.rows[each])])), f"{sample.distances[each]:.2f}", f"{sample.norms[each]:.4g}")
            for each in order
        ]
        page.table("The most distant embeddings of the sample", ("Recording", "Distance from the mean", "Norm"), far)
    failed = report.failed.table.slice(0, _MOST_NAMED).select(["record", "reason"]).to_pylist()
    if failed:
        rows = [(_line(str(row["record"])), _line(str(row["reason"]))) for row in failed]
        page.table("Failed recordings, the first ones", ("Recording", "Reason"), rows, texts=2)
    marked = [names.take(pa.array(np.flatnonzero(mark.there)[:3])).to_pylist() for mark in report.flags]
    if marked:
        rows = [
            (mark.name, _line(", ".join(map(str, first)))) for mark, first in zip(report.flags, marked, strict=True)
        ]
        page.table("Recordings with each flag, the first three", ("Flag", "Recordings"), rows, texts=2)


def _drawn(page: Page, drawings: Sequence[Drawing], n_unread: int) -> None:
    page.text(
        "ECGs of single patients are drawn because they were asked for: a few of each flag and of each reason of failure, by "
        "chance. 25 mm/s and 10 mm/mV, on a grid of 1 mm."
    )
    for each in drawings:
        named = "" if each.name is None else f": {_line(each.name)}"
        page.picture(each.png, f"An ECG on paper; {each.why}", f"{each.why}{named}")
    if n_unread:
        page.text(f"{counted(n_unread, 'chosen file')} could not be read again, or changed since the run.")


# --- how it was made ---------------------------------------------------------------------------------------------------


def _settings(page: Page, report: Report) -> None:
    told = [dict(settings_of(run)) for run in report.runs]
    names = list(dict.fromkeys(name for each in told for name in each))
    if len(told) == 1:
        page.table("The run", ("Setting", "Value"), [(name, told[0][name]) for name in names], texts=2)
        return
    header = ("Setting", *(f"Run {number}" for number in range(1, len(told) + 1)))
    rows = [(name, *(each.get(name, "–") for each in told)) for name in names]
    page.table("The runs", header, rows, texts=len(header))


def _methods(page: Page, report: Report) -> None:
    quality = _outcome(report)
    shown = [mark for mark in report.flags if mark.n not in (None, 0)][:3]
    if shown:
        quality += (
            " The most frequent quality flags were " + ", ".join(f"{mark.name} ({mark.n:,})" for mark in shown) + "."
        )
    page.text("A draft for a methods section, to be checked and completed by the authors:")
    page.quote("\n\n".join(methods_text(report.runs[0], _recordings(report), quality)), "Methods text")
    if len(report.runs) > 1:
        page.text("The text describes the first of the runs; the table above has the settings of all.")
    page.text("To cite, as BibTeX:")
    page.quote(CITATION, "BibTeX")
