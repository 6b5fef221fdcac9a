"""ECGs on paper for a report: a few of each flag, and of each kind of failure whose files can be read.

In: a report, and where the files are. Out: `Drawing`s as PNG, without anything of the file but its samples.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ecgfounder.analysis.reporting.report import Report
from ecgfounder.analysis.statistics.solver import Numbers
from ecgfounder.ecg.leads import KNOWN_LEADS
from ecgfounder.ecg.plot import figure_of
from ecgfounder.ecg.recording import Recording
from ecgfounder.errors import ECGFounderError, MissingDependencyError, RunError
from ecgfounder.readers import make_source, read_source
from ecgfounder.readers.identity import identity_of
from ecgfounder.readers.source import Hints
from ecgfounder.results import EmbeddingRun
from ecgfounder.results.originals import original_paths
from ecgfounder.results.several import RUN_COLUMN
from ecgfounder.storage import StorageOptions

OF_EACH = 2
"""ECGs of a flag or a kind of failure."""

MOST = 24
_DPI = 100
_COLOURS = 32


@dataclass(frozen=True)
class Drawing:
    """A drawn ECG: why it is shown, its PNG, and its name if names are shown."""

    why: str
    png: bytes
    name: str | None


def draw(report: Report, data_dir: str | None, options: StorageOptions) -> tuple[list[Drawing], int]:
    """The drawn ECGs, and how many of those that were chosen could not be read again.

    Raises
    ------
    RunError
        If recordings have identifiers, and the dataset with their paths is not there any more.
    MissingDependencyError
        If matplotlib is not installed.
    """
    found: list[Drawing] = []
    n_unread = 0
    for why, table in _chosen(report):
        for run, rows in _by_run(report, table):
            paths = original_paths(run, rows, data_dir, options)
            names, hashes = rows["record"].to_pylist(), rows["input_sha256"].to_pylist()
            for path, name, sha256 in zip(paths, names, hashes, strict=True):
                if len(found) == MOST:
                    return found, n_unread
                recording = _read(path, run, sha256, options)
                if recording is None:
                    n_unread += 1
                else:
                    found.append(Drawing(why, png_of(recording), name if report.settings.names else None))
    return found, n_unread


def _chosen(report: Report) -> Iterator[tuple[str, pa.Table]]:
    """A few recordings of each flag and of each kind of failure, by chance, the same ones each time."""
    rng = np.random.default_rng([report.settings.seed, 7])
    for flag in report.flags:
        yield f"flag {flag.name}", report.selection.table.take(pa.array(_some(np.flatnonzero(flag.there), rng)))
    kinds = report.failed.kinds
    for number, name in enumerate(kinds.names):
        rows = np.flatnonzero(kinds.codes == number)
        yield f"failed: {name}", report.failed.table.take(pa.array(_some(rows, rng)))


def _some(rows: Numbers, rng: np.random.Generator) -> Numbers:
    return np.sort(rng.permutation(rows)[:OF_EACH])


def _by_run(report: Report, table: pa.Table) -> Iterator[tuple[EmbeddingRun, pa.Table]]:
    if RUN_COLUMN not in table.column_names or len(report.runs) == 1:
        yield report.runs[0], table
        return
    names: Sequence[str] = getattr(report.selection.run, "names", ())
    for name, run in zip(names, report.runs, strict=True):
        rows = [number for number, each in enumerate(table[RUN_COLUMN].to_pylist()) if each == name]
        if rows:
            yield run, table.take(pa.array(rows))


def _read(path: str, run: EmbeddingRun, sha256: str | None, options: StorageOptions) -> Recording | None:
    """The recording; None if it cannot be read, or is not the one that the run read."""
    told = run.record.fingerprint
    given = told.get("hints") or {}
    leads = given.get("leads")
    try:
        hints = Hints(given.get("sampling_rate"), given.get("unit"), tuple(leads) if leads else None)
        source = make_source(path, hints, options)
        recording, identity = read_source(source, reader=told.get("reader", "auto")), identity_of(source)
    except MissingDependencyError:
        raise
    except ECGFounderError:
        return None
    return None if None not in (sha256, identity.sha256) and sha256 != identity.sha256 else recording


def _without_names(recording: Recording) -> Recording:
    """The recording without the settings of its device, and without names of leads that the file chose."""
    leads = tuple(
        lead if lead in KNOWN_LEADS else f"lead {number}" for number, lead in enumerate(recording.leads, start=1)
    )
    return replace(recording, meta={}, leads=leads)


def png_of(recording: Recording) -> bytes:
    """A recording on paper, without the name and settings of its device, as a small PNG.

    Raises
    ------
    RunError
        If it cannot be drawn.
    """
    figure = figure_of(_without_names(recording))
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure.set_dpi(_DPI)
    drawn, small = io.BytesIO(), io.BytesIO()
    try:
        FigureCanvasAgg(figure).print_png(drawn)
        Image.open(drawn).convert("RGB").quantize(_COLOURS).save(small, "PNG", optimize=True)
    except (OSError, ValueError) as error:
        raise RunError("an ECG could not be drawn") from error
    return small.getvalue()
