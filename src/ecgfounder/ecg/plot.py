"""Draw a recording as a paper ECG: 25 mm/s and 10 mm/mV at true scale on a pink millimetre grid.

In: a `Recording`. Out: a PNG or SVG file that can be measured with a ruler when printed at 100 %. `rows_of` makes the layout, in
seconds and millivolts; `figure_of` draws it, in millimetres. matplotlib is in the extra "report".
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ecgfounder.ecg.leads import STANDARD_LEADS, channel_label, select_leads
from ecgfounder.ecg.recorder import recorder_of
from ecgfounder.ecg.recording import Recording, Samples
from ecgfounder.errors import MissingDependencyError, RunError, SettingsError
from ecgfounder.escaping import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MM_PER_SECOND = 25.0
MM_PER_MILLIVOLT = 10.0
PLOT_SUFFIXES = (".png", ".svg")
MOST_LETTERS = 70
"""Of the recorder's name in a heading."""
DPI = 254
"""Dots per inch of a PNG: ten pixels per millimetre, so that grid lines are at whole pixels."""

STANDARD_ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
COLUMN_SECONDS = 2.5
STRIP_SECONDS = 10.0
# Twelve leads of less than this are too short for four consecutive columns: the last one would show hardly a beat.
SHORTEST_SEQUENCE = 9.0
# A recording of at least this length has a rhythm strip: one lead continues in further rows of 10 s, up to this many.
LONG_SECONDS = 15.0
MAX_STRIPS = 6
# Of more leads than this, only the first ones are drawn.
MAX_ROWS = 24

# Millimetres. Traces start, and baselines are, on the bold lines, which are 5 mm apart.
MARGIN = 6.0
TITLE_HEIGHT = 7.0
FOOTER_HEIGHT = 10.0
LEAD_IN = 10.0
TAIL = 5.0
NARROWEST_CHART = 180.0
CALIBRATION_WIDTH = 5.0
LEAST_UP, LEAST_DOWN = 14.0, 8.0
MOST = 40.0
LABEL_WIDTH, LABEL_HEIGHT, LABEL_GAP = 9.0, 3.5, 1.5
LETTER_WIDTH = 2.1
"""Of the heading: a little more than its letters need on average."""
BAND_HEIGHT, LONGEST_BAR, BAR_GAP = 10.0, 4.5, 0.3
LINE_HEIGHT = 3.8
FOOTER_LETTER_WIDTH = 1.25

FINE_LINE, BOLD_LINE, INK = "#f8d3d9", "#ea9aa8", "black"
BOUNDARY = "#3d62a8"  # between leads of a row: a colour that no trace has
FOR, AGAINST = "#1b5e9e", "#8c8c8c"  # bars of a band, up and down
FONT = "DejaVu Sans"  # comes with matplotlib

Millivolts = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trace:
    """A stretch of one lead.

    Attributes
    ----------
    label : str
        The lead's name.
    start : float
        Seconds from the start of the recording to its first sample.
    place : float
        Seconds from the start of the row to its first sample.
    millivolts : Millivolts
        float64 [n_samples], minus the median; NaN for missing samples; empty for a lead without samples.
    """

    label: str
    start: float
    place: float
    millivolts: Millivolts


@dataclass(frozen=True, eq=False)
class Band:
    """Values over time, drawn as bars below the rows: up in blue for positive ones, down in grey for negative ones.

    Attributes
    ----------
    name : str
        One short word, drawn before it.
    spans : numpy.ndarray
        float64 [n, 2]: start and end of each value in seconds from the start of the recording.
    values : numpy.ndarray
        [n]; the longest bar is that of the largest absolute value of all.
    caption : tuple of str
        Lines of the footer.
    """

    name: str
    spans: Millivolts
    values: npt.NDArray[np.floating[Any]]
    caption: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """Traces side by side, and the row's height above and below its baseline, in multiples of 5 mm."""

    traces: tuple[Trace, ...]
    up: float
    down: float

    def label_height(self, trace: Trace, sampling_rate: float) -> float:
        """Height of the trace's label above the baseline in mm, above the waves below it."""
        return _label_height(trace.millivolts, sampling_rate, self.up)

    @property
    def cut_off(self) -> tuple[str, ...]:
        """Labels of the traces that are clipped at `MOST` millimetres from the baseline."""
        return tuple(
            trace.label
            for trace in self.traces
            if np.any(np.abs(trace.millivolts[np.isfinite(trace.millivolts)]) * MM_PER_MILLIVOLT > MOST)
        )


# --- what is drawn ---------------------------------------------------------------------------------------------------


def rows_of(recording: Recording) -> tuple[Row, ...]:
    """The layout of a recording, row by row.

    Twelve leads (including derived ones) of 9 s or more: three rows of four consecutive columns of 2.5 s, then lead II over
    10 s, then the leads beyond the twelve over 10 s each. Other recordings: a row for each lead, with its first 10 s. In a
    recording of 15 s or more, lead II, or the first one, continues in further rows as a rhythm strip, up to a minute. Each trace
    is centred on its median, because leads without a high-pass filter may be millivolts away from zero.
    """
    rate = recording.sampling_rate
    samples, labels = _leads_to_draw(recording)
    if set(STANDARD_LEADS) <= set(labels) and recording.duration >= SHORTEST_SEQUENCE:
        of = {label: samples[row] for row, label in enumerate(labels)}
        starts = [column * COLUMN_SECONDS for column in range(4)]
        rows = [
            [
                _trace(of[lead], lead, rate, start, COLUMN_SECONDS, in_sequence=True)
                for lead, start in zip(leads, starts, strict=True)
            ]
            for leads in STANDARD_ROWS
        ]
        rows += [[_trace(of["II"], "II", rate, 0.0, STRIP_SECONDS)], *_rhythm_strip(of["II"], "II", recording)]
        others = (label for label in labels if label not in STANDARD_LEADS)
        rows += [[_trace(of[lead], lead, rate, 0.0, STRIP_SECONDS)] for lead in others]
    else:
        rows = [[_trace(lead, label, rate, 0.0, STRIP_SECONDS)] for lead, label in zip(samples, labels, strict=True)]
        rhythm = labels.index("II") if "II" in labels else 0
        strip = _rhythm_strip(samples[rhythm], labels[rhythm], recording, alone=len(labels) == 1)
        rows = rows[: MAX_ROWS - len(strip)] + strip
    return tuple(_row(traces, rate) for traces in rows[:MAX_ROWS])


def _rhythm_strip(lead: Samples, label: str, recording: Recording, *, alone: bool = False) -> list[list[Trace]]:
    """The rows of a long recording's lead that follow its first 10 s."""
    if recording.duration < LONG_SECONDS and not alone:
        return []
    starts = [number * STRIP_SECONDS for number in range(1, MAX_STRIPS) if number * STRIP_SECONDS < recording.duration]
    return [[_trace(lead, label, recording.sampling_rate, start, STRIP_SECONDS)] for start in starts]


def _leads_to_draw(recording: Recording) -> tuple[Samples, list[str]]:
    """Stored leads, and III, aVR, aVL, aVF if they can be derived: the standard ones first, in their order.

    A stored lead without a signal is drawn as a flat line or a gap.
    """
    others = tuple(lead for lead in recording.leads if lead not in STANDARD_LEADS)
    stop = math.ceil(MAX_STRIPS * STRIP_SECONDS * recording.sampling_rate)
    part = Recording(
        recording.samples[:, :stop], recording.sampling_rate, recording.leads, recording.source_format, recording.meta
    )
    selection = select_leads(part, STANDARD_LEADS + others)
    samples, labels = [], []
    for row, lead in enumerate(selection.leads):
        if lead not in selection.missing:
            samples.append(selection.samples[row])
        elif lead in part.leads:
            samples.append(part.samples[part.leads.index(lead)])
        else:
            continue
        labels.append(channel_label(recording, lead))
    return np.stack(samples), labels


def _trace(
    lead: Samples, label: str, sampling_rate: float, start: float, seconds: float, *, in_sequence: bool = False
) -> Trace:
    first = round(start * sampling_rate)
    cut = lead[first : max(first + 1, round((start + seconds) * sampling_rate))].astype(np.float64)
    finite = np.isfinite(cut)
    cut[~finite] = np.nan
    if finite.any():
        cut -= np.median(cut[finite])
    start = first / sampling_rate
    return Trace(label, start, start if in_sequence else 0.0, cut)


def _row(traces: Sequence[Trace], sampling_rate: float) -> Row:
    """A row with space for the calibration mark, the waves and the labels, in multiples of 5 mm."""
    up, down = LEAST_UP, LEAST_DOWN
    for trace in traces:
        finite = trace.millivolts[np.isfinite(trace.millivolts)] * MM_PER_MILLIVOLT
        if finite.size:
            up, down = max(up, float(finite.max()) + 1), max(down, 1 - float(finite.min()))
        up = max(up, _label_height(trace.millivolts, sampling_rate, MOST) + LABEL_HEIGHT)
    return Row(tuple(traces), min(MOST, math.ceil(up / 5) * 5.0), min(MOST, math.ceil(down / 5) * 5.0))


def _label_height(millivolts: Millivolts, sampling_rate: float, row_up: float) -> float:
    beneath = millivolts[: math.ceil(LABEL_WIDTH / MM_PER_SECOND * sampling_rate) + 1]
    beneath = beneath[np.isfinite(beneath)] * MM_PER_MILLIVOLT
    height = max(3.0, float(beneath.max())) if beneath.size else 3.0
    return min(height + LABEL_GAP, row_up - LABEL_HEIGHT)


# --- on paper --------------------------------------------------------------------------------------------------------


def plot_recording(
    recording: Recording,
    out: Path,
    title: str | None = None,
    *,
    heart_rate: float | None = None,
    bands: Sequence[Band] = (),
) -> None:
    """Draw a recording into a file.

    Parameters
    ----------
    recording : Recording
        The recording to draw; see `rows_of` for the layout.
    out : Path
        The file to write, ending in .png (254 dots per inch) or .svg; an existing file is replaced.
    title : str, optional
        Text above the chart, on the left. On the right is the recorder (`ecgfounder.ecg.recorder`).
    heart_rate : float, optional
        In beats per minute (`ecgfounder.preprocess.beats.heart_rate`), to be written beside the recorder.
    bands : sequence of Band, optional
        Drawn below the last row of each stretch of time.

    Raises
    ------
    SettingsError
        If `out` ends in anything else.
    MissingDependencyError
        If matplotlib is not installed.
    RunError
        If the file cannot be written.
    """
    check_plot_path(out)
    figure = figure_of(recording, title, heart_rate, bands)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    drawn = io.BytesIO()
    # Not `Figure.savefig`, which may crop or scale the page because of the user's matplotlibrc.
    if out.suffix.lower() == ".png":
        FigureCanvasAgg(figure).print_png(drawn)
    else:
        FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None})
    try:
        out.write_bytes(drawn.getvalue())
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from error


def check_plot_path(out: Path) -> None:
    """Refuse a file name with another suffix than .png or .svg."""
    if out.suffix.lower() not in PLOT_SUFFIXES:
        raise SettingsError(
            f"Invalid value for the 'plot' parameter. The file must end in {' or '.join(PLOT_SUFFIXES)}, got {out.name!r}."
        )


def figure_of(
    recording: Recording, title: str | None = None, heart_rate: float | None = None, bands: Sequence[Band] = ()
) -> Figure:
    """The drawing as a matplotlib figure of true size, with millimetres of paper as coordinates.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "drawing a recording", "report") from error

    rows = rows_of(recording)
    above_bands = set(last_rows(rows)) if bands else set()
    rows = tuple(
        replace(row, down=row.down + len(bands) * BAND_HEIGHT) if number in above_bands else row
        for number, row in enumerate(rows)
    )
    rate = recording.sampling_rate
    seconds = max(trace.place + trace.millivolts.size / rate for row in rows for trace in row.traces)
    chart_width = max(NARROWEST_CHART, LEAD_IN + math.ceil(seconds * MM_PER_SECOND / 5) * 5 + TAIL)
    captions = [one_line(line) for band in bands for line in band.caption]
    letters = int(chart_width / FOOTER_LETTER_WIDTH)
    footer = [text for text in footer_of(recording, rows) if text or not bands]
    footer += [part for line in captions for part in textwrap.wrap(line, letters)]
    footer_height = FOOTER_HEIGHT + LINE_HEIGHT * max(0, len(footer) - 2)
    chart_height = sum(row.up + row.down for row in rows)
    width = chart_width + 2 * MARGIN
    height = chart_height + footer_height + MARGIN + TITLE_HEIGHT

    figure = Figure(figsize=(width / 25.4, height / 25.4), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    _draw_grid(axes, chart_width, chart_height, footer_height)
    top = footer_height + chart_height
    facts = heading_of(recording, heart_rate)
    _text(axes, MARGIN + chart_width, top + 2, facts, size=9, ha="right", gid="facts")
    if title:
        room = chart_width - len(facts) * LETTER_WIDTH - LABEL_GAP
        _text(axes, MARGIN, top + 2, shortened(title, int(room / LETTER_WIDTH)), size=9, weight="bold", gid="title")
    for number, row in enumerate(rows):
        _draw_row(axes, row, number, top - row.up, rate, MARGIN + chart_width)
        top -= row.up + row.down
        for place, band in enumerate(bands if number in above_bands else ()):
            _draw_band(axes, band, row, rate, top + BAND_HEIGHT * (len(bands) - place - 0.5), f"band-{place}-{number}")
    for line, text in enumerate(footer):
        _text(axes, MARGIN, footer_height - 4.2 - LINE_HEIGHT * line, text, size=8 if line == 0 else 7)
    return figure


def last_rows(rows: Sequence[Row]) -> list[int]:
    """The number of the last row of each stretch of time, below which bands are drawn."""
    last = {round(row.traces[0].start - row.traces[0].place, 3): number for number, row in enumerate(rows)}
    return list(last.values())


def _points(millimetres: float) -> float:
    """A line width in points."""
    return millimetres * 72 / 25.4


def _text(axes: Axes, x: float, y: float, text: str, size: float, **style: Any) -> None:
    axes.text(x, y, text, fontsize=size, family=FONT, color=INK, va="bottom", parse_math=False, **style)


def _draw_grid(axes: Axes, width: float, height: float, bottom: float) -> None:
    """Draw a line every millimetre, every fifth one bold, above `bottom`."""
    from matplotlib.collections import LineCollection

    left = MARGIN
    for bold in (False, True):
        columns = [x for x in range(round(width) + 1) if (x % 5 == 0) is bold]
        rows = [y for y in range(round(height) + 1) if (y % 5 == 0) is bold]
        lines = [((left + x, bottom), (left + x, bottom + height)) for x in columns]
        lines += [((left, bottom + y), (left + width, bottom + y)) for y in rows]
        grid = LineCollection(
            lines,
            colors=BOLD_LINE if bold else FINE_LINE,
            linewidths=_points(0.2 if bold else 0.1),
            capstyle="projecting",
            gid="grid-5mm" if bold else "grid-1mm",
            zorder=1,
        )
        axes.add_collection(grid, autolim=False)


def _draw_row(axes: Axes, row: Row, number: int, baseline: float, sampling_rate: float, right: float) -> None:
    from matplotlib.patches import Rectangle

    _draw_calibration(axes, number, baseline)
    box = Rectangle((MARGIN, baseline - row.down), right - MARGIN, row.up + row.down, transform=axes.transData)
    for trace in row.traces:
        left = MARGIN + LEAD_IN + MM_PER_SECOND * trace.place
        x = left + MM_PER_SECOND / sampling_rate * np.arange(trace.millivolts.size)
        y = baseline + MM_PER_MILLIVOLT * trace.millivolts
        (line,) = _draw_line(axes, x, y, f"trace-{number}-{trace.label}", width=0.25)
        line.set_clip_path(box)
        if trace.place:  # the boundary between two leads
            _draw_line(axes, [left, left], [baseline - 4, baseline + 4], None, width=0.4, color=BOUNDARY)
        label = trace.label if trace.start == trace.place else f"{trace.label}  {trace.start:g} s"
        height = row.label_height(trace, sampling_rate)
        _text(axes, left + 1, baseline + height, label, size=9, weight="bold", gid=f"label-{number}-{trace.label}")


def _draw_band(axes: Axes, band: Band, row: Row, sampling_rate: float, middle: float, gid: str) -> None:
    """Draw a band's values in a row's stretch of time around a line at `middle` mm."""
    from matplotlib.patches import Rectangle

    left, stop = MARGIN + LEAD_IN, _stop_of(row, sampling_rate)
    _draw_line(axes, [left, left + MM_PER_SECOND * stop], [middle, middle], f"{gid}-line", width=0.15)
    _text(axes, MARGIN + 0.5, middle - 1, band.name, size=5.5)
    for begin, end, share in bars_of(band, row, sampling_rate):
        bar = Rectangle(
            (left + MM_PER_SECOND * begin + BAR_GAP / 2, middle),
            max(0.1, MM_PER_SECOND * (end - begin) - BAR_GAP),
            share * LONGEST_BAR,
            facecolor=FOR if share > 0 else AGAINST,
            edgecolor="none",
            zorder=2,
            gid=gid,
        )
        axes.add_patch(bar)


def bars_of(band: Band, row: Row, sampling_rate: float) -> list[tuple[float, float, float]]:
    """The bars of a band below a row: start and end in seconds from the row's start, and the share of the longest bar."""
    offset, stop = row.traces[0].start - row.traces[0].place, _stop_of(row, sampling_rate)
    largest = float(np.abs(band.values).max(initial=0.0)) or 1.0
    bars = [
        (max(0.0, float(first)), min(stop, float(last)), float(value) / largest)
        for (first, last), value in zip(band.spans - offset, band.values, strict=True)
    ]
    return [(begin, end, share) for begin, end, share in bars if end > begin]


def _stop_of(row: Row, sampling_rate: float) -> float:
    return max(trace.place + trace.millivolts.size / sampling_rate for trace in row.traces)


def _draw_calibration(axes: Axes, number: int, baseline: float) -> None:
    """Draw a pulse of 1 mV and 0.2 s before the row."""
    foot = (LEAD_IN - CALIBRATION_WIDTH) / 2 - 1
    up, down = MARGIN + 1 + foot, MARGIN + 1 + foot + CALIBRATION_WIDTH
    x = [MARGIN + 1, up, up, down, down, down + foot]
    y = [baseline + MM_PER_MILLIVOLT * millivolt for millivolt in (0, 0, 1, 1, 0, 0)]
    _draw_line(axes, x, y, f"calibration-{number}", width=0.25)


def _draw_line(axes: Axes, x: Any, y: Any, gid: str | None, width: float, color: str = INK) -> Any:
    # Settings of lines are explicit, so that a user's matplotlibrc has no effect; the axes stay in millimetres.
    style = {"linestyle": "-", "marker": "", "linewidth": _points(width), "zorder": 3}
    return axes.plot(x, y, color=color, gid=gid, scalex=False, scaley=False, **style)


# --- words -----------------------------------------------------------------------------------------------------------


def heading_of(recording: Recording, heart_rate: float | None) -> str:
    """The heart rate if it is known, and the recorder in words."""
    facts = [] if heart_rate is None else [f"heart rate {heart_rate:.0f}/min"]
    return "    ".join([*facts, shortened(recorder_of(recording), MOST_LETTERS)])


def shortened(text: str, most: int) -> str:
    """One line of at most `most` letters (12 or more), without the middle of a longer one: names differ at their ends."""
    line = one_line(text)
    most = max(12, most)
    if len(line) <= most:
        return line
    return f"{line[: most - most // 2 - 1]}…{line[len(line) - most // 2 :]}"


def footer_of(recording: Recording, rows: Sequence[Row]) -> tuple[str, str]:
    """A line with the scale and the device's filters, and a line about leads left out, derived or clipped."""
    scale = f"{MM_PER_SECOND:g} mm/s    {MM_PER_MILLIVOLT:g} mm/mV    {filter_settings(recording.meta) or 'filters not stated'}"
    notes = []
    traces = [trace for row in rows for trace in row.traces]
    shown = max(trace.start + trace.millivolts.size / recording.sampling_rate for trace in traces)
    if shown < recording.duration - 0.05:
        notes.append(f"the first {shown:g} s of {recording.duration:.6g} s")
    derived = select_leads(recording).derived
    if derived:
        notes.append(f"derived: {' '.join(derived)}")
    hidden = len({*recording.leads, *derived}) - len({trace.label for trace in traces})
    if hidden > 0:
        notes.append(f"{hidden} more leads are not drawn")
    cut_off = dict.fromkeys(label for row in rows for label in row.cut_off)
    if cut_off:
        notes.append(f"cut off at the row's edge: {' '.join(cut_off)}")
    return f"{scale}    {recording.sampling_rate:g} Hz", ";  ".join(notes)


def filter_settings(meta: Mapping[str, str | float]) -> str:
    """The device's filters in the form of a printed ECG: '0.05-150 Hz, notch 60 Hz'; empty if none is known."""
    high, low, notch = (meta.get(key) for key in ("highpass_hz", "lowpass_hz", "notch_hz"))
    words = []
    if high is not None and low is not None:
        words.append(f"{_number(high)}-{_number(low)} Hz")
    elif high is not None:
        words.append(f"high-pass {_number(high)} Hz")
    elif low is not None:
        words.append(f"low-pass {_number(low)} Hz")
    if notch is not None:
        words.append(f"notch {_number(notch)} Hz")
    return ", ".join(words)


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"
