"""Figures as SVG: lines, and estimates with intervals.

In: numbers. Out: markup for `pages.page`, which has the styles; each figure has a text for those who cannot see it. Series
differ in dashes as well as in colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 420, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 46

_WIDEST_NAMES, _PER_LETTER, _PLOT = 290, 6.5, 340
"""Of a chart of estimates: the width of names, at most and for each letter, and that of the plot."""

_LEAST_SCALE = 0.62
"""Letters are not made smaller than this part on a narrow page."""

N_STYLES = 5
"""Series that differ in style."""


@dataclass(frozen=True)
class Series:
    """A line: its name, and its points in order; `dots` marks each point."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its title, range and ticks, which may have names instead of numbers."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    names: Sequence[str] = ()

    @property
    def told(self) -> list[tuple[float, str]]:
        """The ticks with what is written beside them."""
        return list(zip(self.ticks, self.names or [f"{tick:g}" for tick in self.ticks], strict=True))

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value is, between two coordinates; values beyond the range are at its end."""
        inside = min(max(value, self.low), self.high)
        return start + (inside - self.low) / (self.high - self.low) * (end - start)


def unit_axis(title: str) -> Axis:
    """An axis from 0 to 1."""
    return Axis(title, 0.0, 1.0, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0))


def line_chart(
    series: Sequence[Series], x: Axis, y: Axis, about: str, *, diagonal: bool = False, legend: str = "left"
) -> str:
    """Lines.

    Parameters
    ----------
    series : sequence of Series
        At most `N_STYLES` of them differ in style.
    x, y : Axis
        The axes.
    about : str
        What the figure shows, for those who cannot see it.
    diagonal : bool, default: False
        Draw the line on which both values are equal.
    legend : str, default: "left"
        Where the names of several series are: "left" or "right" in the plot, or "below" it.
    """
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def at(point: tuple[float, float]) -> str:
        return f"{x.place(point[0], _LEFT, right):.1f},{y.place(point[1], bottom, _TOP):.1f}"

    parts = []
    for tick, name in x.told:
        where = x.place(tick, _LEFT, right)
        parts.append(f'<line class="grid" x1="{where:.1f}" x2="{where:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{where:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(name)}</text>')
    for tick, name in y.told:
        where = y.place(tick, bottom, _TOP)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{where:.1f}" y2="{where:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{where + 4:.1f}" text-anchor="end">{escape(name)}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.title)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y.title)}</text>'
    )
    if diagonal:
        ends = (max(x.low, y.low), min(x.high, y.high))
        parts.append(f'<polyline class="reference" points="{" ".join(at((end, end)) for end in ends)}"/>')
    for number, each in enumerate(series):
        style = f"s{number % N_STYLES + 1}"
        parts.append(f'<polyline class="series {style}" points="{" ".join(map(at, each.points))}"/>')
        if each.dots:
            for point in each.points:
                cx, cy = at(point).split(",")
                parts.append(f'<circle class="series dot {style}" cx="{cx}" cy="{cy}" r="3.5"/>')
    if len(series) > 1:
        parts.append(_legend([each.name for each in series], legend))
    height = _HEIGHT + (16 * len(series) + 8 if legend == "below" and len(series) > 1 else 0)
    return _svg(_WIDTH, height, about, "".join(parts))


def _legend(names: Sequence[str], where: str) -> str:
    width = 44 + round(_PER_LETTER * max(map(len, names)))
    left = _WIDTH - _RIGHT - width - 4 if where == "right" else _LEFT + 8
    top = _HEIGHT if where == "below" else _TOP + 2
    lines = [f'<rect class="back" x="{left}" y="{top}" width="{width}" height="{16 * len(names) + 8}"/>']
    for number, name in enumerate(names):
        y = top + 12 + 16 * number
        lines.append(
            f'<line class="series s{number % N_STYLES + 1}" x1="{left + 4}" x2="{left + 30}" y1="{y}" y2="{y}"/>'
        )
        lines.append(f'<text x="{left + 36}" y="{y + 4}">{escape(name)}</text>')
    return "".join(lines)


@dataclass(frozen=True)
class Bar:
    """An estimate with its interval, and whether it stands out."""

    name: str
    value: float
    low: float
    high: float
    main: bool = True


def interval_chart(bars: Sequence[Bar], x: Axis, about: str, *, reference: float | None = None) -> str:
    """Estimates with intervals, one below the other; `reference` is a vertical line."""
    left = min(_WIDEST_NAMES, round(20 + _PER_LETTER * max(len(_short(bar.name)) for bar in bars)))
    row, right = 24, left + _PLOT
    width, bottom = right + 62, 10 + row * len(bars)
    height = bottom + 44
    parts = []
    for tick in x.ticks:
        where = x.place(tick, left, right)
        parts.append(f'<line class="grid" x1="{where:.1f}" x2="{where:.1f}" y1="6" y2="{bottom}"/>')
        parts.append(f'<text x="{where:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    if reference is not None:
        where = x.place(reference, left, right)
        parts.append(f'<line class="reference" x1="{where:.1f}" x2="{where:.1f}" y1="6" y2="{bottom}"/>')
    for number, bar in enumerate(bars):
        y = 10 + row * (number + 0.5)
        style = "s1" if bar.main else "s2"
        low, value, high = (x.place(each, left, right) for each in (bar.low, bar.value, bar.high))
        parts.append(f'<text x="{left - 10}" y="{y + 4:.1f}" text-anchor="end">{escape(_short(bar.name))}</text>')
        parts.append(f'<line class="series {style}" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="series dot {style}" cx="{value:.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(f'<text x="{right + 8}" y="{y + 4:.1f}">{bar.value:.3f}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 8}" text-anchor="middle">{escape(x.title)}</text>')
    return _svg(width, height, about, "".join(parts), least=round(_LEAST_SCALE * width))


def bar_chart(bars: Sequence[tuple[str, float]], title: str, about: str) -> str:
    """Numbers as bars, one below the other, each with its number; `title` is that of the axis."""
    left, row, width = 150, 22, 420
    right, bottom = width - 64, 8 + row * len(bars)
    most = max((value for _, value in bars), default=0.0) or 1.0
    parts = []
    for number, (name, value) in enumerate(bars):
        y = 8 + row * number
        length = (right - left) * value / most
        shown = name if len(name) <= 22 else f"{name[:21]}…"
        parts.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(shown)}</text>')
        parts.append(f'<rect class="bar" x="{left}" y="{y + 3}" width="{length:.1f}" height="{row - 6}"/>')
        parts.append(f'<text x="{left + length + 6:.1f}" y="{y + 15}">{value:,.0f}</text>')
    parts.append(f'<line class="axis" x1="{left}" x2="{left}" y1="6" y2="{bottom + 2}"/>')
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 18}" text-anchor="middle">{escape(title)}</text>')
    return _svg(width, bottom + 26, about, "".join(parts))


def _short(name: str) -> str:
    return name if len(name) <= 42 else f"{name[:41]}…"


def _svg(width: int, height: int, about: str, inside: str, *, least: int = 0) -> str:
    """The markup of a figure; a page that is narrower than `least` scrolls it."""
    style = f' style="min-width: {least}px"' if least else ""
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"{style} '
        'xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(about)}</title>{inside}</svg>"
    )
