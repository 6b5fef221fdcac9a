"""A search for duplicates as files: tables, and a page with counts only.

In: a `Duplicates` and a folder. Out: pairs, recordings and leakage as .pq and .csv, duplicates.json, report.html.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import orjson

from ecgfounder._version import __version__
from ecgfounder.analysis.duplication.duplicates import CANDIDATE, SAME_FILE, SAME_PATIENT, SAME_SIGNAL, Duplicates
from ecgfounder.analysis.duplication.same_signal import ONLY_HERE, OVERLAP, SAME
from ecgfounder.analysis.duplication.strangers import WIDE_OF_DUPLICATES, WINDOW
from ecgfounder.analysis.pages.charts import Axis, Series, line_chart
from ecgfounder.analysis.pages.page import Page, shown_count
from ecgfounder.analysis.pages.tables import check_results_folder, write_table
from ecgfounder.errors import RunError, StorageError
from ecgfounder.results.small_cells import rounded_count
from ecgfounder.storage import Location
from ecgfounder.storage.writing import write_whole

MARKER = "duplicates.json"
"""The file by which a folder is known as that of a search for duplicates."""

_MEANING = {
    SAME_FILE: "byte for byte the same file (SHA-256)",
    SAME_SIGNAL: "the signals, read again and aligned, are the same",
    SAME_PATIENT: "different patients with other signals, as alike as one patient; not confirmed",
    CANDIDATE: "alike, but the signals could not be compared or do not decide; not confirmed",
}
_CLASSES_OF_LEAKAGE = {
    "cluster": "same file or signal: clusters",
    "same_group": "the same patient, by the column: patients",
    SAME_PATIENT: "as alike as one patient: pairs",
    CANDIDATE: "candidates: pairs",
}
_SIZES = ((2, 2, "2"), (3, 5, "3 to 5"), (6, 10, "6 to 10"), (11, 100, "11 to 100"), (101, None, "more than 100"))
_POINTS = 80


def write_duplicates(found: Duplicates, folder: Location) -> None:
    """Write all files of a result.

    Raises
    ------
    RunError
        If the folder cannot be written, or holds other things.
    """
    check_results_folder(folder, MARKER)
    about = {
        "program": {"name": "ecgfounder", "version": __version__},
        "settings": asdict(found.settings),
        "counts": found.counts,
        "pairs": found.n_of,
        "threshold": found.threshold if np.isfinite(found.threshold) else None,
        "strangers": None if found.strangers is None else asdict(found.strangers),
        "notes": [str(note) for note in found.notes],
        "seconds": round(found.seconds, 1),
    }
    tables = {"pairs": found.pairs, "recordings": found.recordings, "leakage": found.leakage}
    try:
        if folder.is_local:
            folder.path.mkdir(parents=True, exist_ok=True)
        write_whole(folder / MARKER, orjson.dumps(about, option=orjson.OPT_INDENT_2))
        for name, table in tables.items():
            write_table(table, folder, name)
        write_whole(folder / "report.html", page_of(found).encode())
    except (OSError, StorageError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise RunError(f"{folder} could not be written: {reason}") from error


def page_of(found: Duplicates) -> str:
    """The HTML page of a result; it holds aggregates only."""
    page = Page("Which recordings are there more than once?", f"A search for duplicates; ecgfounder {__version__}")
    page.section("Summary")
    used, more = found.counts["used"], sum(found.sizes) - len(found.sizes)
    page.text(
        f"{shown_count(used)} recordings were searched. If one of each cluster of the same file or signal is kept, "
        f"{rounded_count(more)} can be left out. Which ones is in the table of recordings beside this page, in the column keep."
    )
    page.notes([note.for_page() for note in found.notes])
    rows = [(name, _MEANING[name], shown_count(number)) for name, number in found.n_of.items()]
    page.table("Pairs of each class", ("Class", "What it means", "Pairs"), rows, texts=2)
    if found.sizes:
        sizes = np.array(found.sizes)
        clusters = [
            (name, rounded_count(int(((sizes >= low) & (sizes <= (high or sizes.max()))).sum())))
            for low, high, name in _SIZES
        ]
        page.table("Clusters of the same file or signal", ("Recordings in the cluster", "Clusters"), clusters)
    if found.leakage.num_rows:
        page.section("What parts have in common")
        _leakage(page, found)
    page.section("Different patients, and the threshold")
    page.text(f"{found.how}.")
    if found.strangers is not None:
        page.figure(
            _curve(found),
            "Pairs of different patients in the whole search with at least this similarity, as powers of ten: found among the "
            "nearest ones of a sample, known duplicates left out, and expected by the fitted distribution.",
        )
    page.section("Method")
    _method(page, found)
    return page.html


def _leakage(page: Page, found: Duplicates) -> None:
    page.text(
        "Recordings that two parts of a split have in common make results on one of them too good, if the other was trained on."
    )
    for by in dict.fromkeys(found.leakage["by"].to_pylist()):
        rows = [
            (
                f"{row['a']} and {row['b']}",
                _CLASSES_OF_LEAKAGE[row["class"]],
                *(shown_count(row[name]) for name in _NUMBERS),
            )
            for row in found.leakage.to_pylist()
            if row["by"] == by
        ]
        header = ("Parts", "What they have in common", "Number", "Recordings, first", "Second")
        page.table(f"By {by}", header, rows, texts=2)


_NUMBERS = ("n", "n_recordings_a", "n_recordings_b")


def _curve(found: Duplicates) -> str:
    """Found and expected pairs by similarity."""
    assert found.strangers is not None
    nearest = found.nearest[np.isfinite(found.nearest)].astype(np.float64)
    low = max(0.0, float(np.floor(np.quantile(nearest, 0.05) * 10) / 10))
    places = np.linspace(low, 1, _POINTS)
    half = found.strangers.n / 2
    seen = np.array([(nearest >= place).mean() * half for place in places])
    expected = found.strangers.expected(places)
    bottom, top = np.floor(np.log10(min(0.1, found.settings.false_pairs))), np.ceil(np.log10(max(half, 1)))
    series = []
    for name, values in (("found", seen), ("expected", expected)):
        drawn = [
            (place, float(np.log10(value))) for place, value in zip(places, values, strict=True) if value >= 10**bottom
        ]
        if len(drawn) > 1:
            series.append(Series(name, drawn))
    ticks = [float(each) for each in np.arange(bottom, top + 1)]
    step = 0.2 if low < 0.5 else 0.1
    x = Axis("similarity", low, 1.0, [float(each) for each in np.round(np.arange(1, low - 1e-9, -step), 2)])
    about = (
        f"Pairs by similarity: {half:,.0f} recordings' pairs at {low:.1f}; the expected number falls to "
        f"{found.settings.false_pairs:g} at {found.threshold:.3f}."
    )
    return line_chart(
        series, x, Axis("pairs, as power of ten", float(bottom), float(top), ticks), about, legend="right"
    )


def _method(page: Page, found: Duplicates) -> None:
    settings = found.settings
    other = "another recording" if settings.group is None else f"another patient (column {settings.group})"
    low, high = WINDOW if settings.signals else WIDE_OF_DUPLICATES
    compared = shown_count(found.counts["pairs whose signals were compared"])
    page.text(
        "The same file: files with equal SHA-256. Embeddings are means over tokens, windows and leads, from which the mean of "
        "the cohort is subtracted; the similarity is their cosine. The largest similarity s of each recording of a sample with "
        f"one of {other} is described by a Gumbel distribution of -log(1 - s²) / 2, fitted between its {low:.0%} and {high:.0%} "
        "quantiles, known duplicates left out. The threshold is the similarity above which "
        f"{settings.false_pairs:g} {'pair' if settings.false_pairs == 1 else 'pairs'} of different patients can be expected "
        "in the whole search.",
        (
            f"The same signal: the files of {compared} pairs were read again. Both signals are brought to 100 Hz and "
            "differentiated; they are the same if, at the best of all shifts at which they have "
            f"{OVERLAP:.0%} of the shorter one in common, the correlation over all common leads is at least {SAME:g}, and what "
            f"it leaves unexplained is less than {ONLY_HERE:.0%} of that at any other shift."
        )
        if settings.signals
        else "The signals were not compared: no pair is confirmed but by its file.",
        "Of each cluster, the recording with most leads is kept; of equal ones the longest, then that with the highest sampling "
        "rate, with fewest flags, and the first.",
    )
