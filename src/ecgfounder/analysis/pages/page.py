"""One HTML page of an analysis: self-contained, printable, readable by screen readers, in light and dark.

In: sections of texts, tables and figures. Out: HTML that loads nothing, and the figures as files. All text is escaped; only
figures of `ecgfounder.analysis.pages.charts` are taken as markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from ecgfounder.results.small_cells import FEWEST

_LONGEST_NAME = 40

_LIGHT = {
    "page": "#fff",
    "ink": "#1b1b1b",
    "soft": "#595959",
    "line": "#c9c9c9",
    "back": "#f4f4f2",
    "c1": "#00606f",
    "c2": "#b3480f",
    "c3": "#5b4ba8",
    "c4": "#6b6b00",
    "c5": "#a11d5b",
}

_FIGURES = """
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
.axis { stroke: var(--soft); fill: none; } .grid { stroke: var(--line); stroke-width: .6; fill: none; } .reference { stroke:
var(--soft);
  stroke-dasharray: 3 4; fill: none; }
.back { fill: var(--page); fill-opacity: .85; } .bar { fill: var(--c1); stroke: none; }
.d0 { fill: var(--line); fill-opacity: .45; } .d1 { fill: var(--c1); fill-opacity: .25; }
.d2 { fill: var(--c1); fill-opacity: .45; } .d3 { fill: var(--c1); fill-opacity: .7; } .d4 { fill: var(--c1); }
.s1 { stroke: var(--c1); fill: none; } .s2 { stroke: var(--c2); fill: none; stroke-dasharray: 7 3; }
.s3 { stroke: var(--c3); fill: none; stroke-dasharray: 2 3; } .s4 { stroke: var(--c4); fill: none; stroke-dasharray: 9 3 2 3; }
.s5 { stroke: var(--c5); fill: none; stroke-dasharray: 4 2; } .series { stroke-width: 2; } .dot { stroke-dasharray: none; fill:
var(--page); }
"""

_STYLE = f"""
:root {{ color-scheme: light dark; {"; ".join(f"--{name}: {colour}" for name, colour in _LIGHT.items())}; }}
{_FIGURES}"""
_STYLE += """
@media (prefers-color-scheme: dark) { :root { --page: #161718; --ink: #ececec; --soft: #ababab; --line: #4a4a4a; --back: #212325;
  --c1: #5cc5d6; --c2: #f0975f; --c3: #b3a5f2; --c4: #cfcf5a; --c5: #f08bbb; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main, header { max-width: 62rem; margin: 0 auto; padding: 0 1.2rem; }
header { padding-top: 2rem; } h1 { font-size: 1.8rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.25rem; margin: 2.4rem 0
.6rem; } h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; } p, ul { max-width: 44rem; } .soft, figcaption, caption { color:
var(--soft); }
a { color: var(--c1); } .skip { position: absolute; left: -99rem; } .skip:focus { left: 1rem; top: 1rem; background:
var(--page); } .wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0; } caption {
text-align: left; padding-bottom: .3rem; } th, td { padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
text-align: left; vertical-align: top; } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums;
white-space: nowrap; } .notes { background: var(--back); padding: .6rem 1rem .6rem 2.2rem; border-left: 4px solid var(--c2); }
figure { margin: 1rem 0; } .figures { display: flex; flex-wrap: wrap; gap: 1.5rem; } .figures figure { flex: 1 1 20rem;
max-width: 27rem; }
.figures.small { gap: .3rem 1.2rem; }
.figures.small figure { flex: 0 1 15rem; margin: .4rem 0; }
svg { max-width: 100%; height: auto; display: block; } details { margin: .6rem 0; }
summary { cursor: pointer; } pre { background: var(--back); padding: .8rem 1rem; overflow-x: auto; white-space: pre-wrap;
overflow-wrap: anywhere; font-size: .85rem; } .picture img { max-width: 100%; height: auto; background: #fff; }
main > figure { overflow-x: auto; }
@media print { :root { --page: #fff; --ink: #000; --soft: #333; --line: #aaa; } body { font-size: 10pt; } .wide { overflow:
visible; }
  figure, tr { break-inside: avoid; } caption, thead, h3, h2 { break-after: avoid; }
  details > *:not(summary) { display: block; } }
"""


@dataclass
class Page:
    """Collects the parts of a page; `html` is the page."""

    title: str
    subtitle: str = ""
    _parts: list[str] = field(default_factory=list)
    _headings: list[str] = field(default_factory=list)
    _drawn: list[tuple[str, str]] = field(default_factory=list)
    _has_pictures: bool = False

    def section(self, heading: str) -> None:
        """Begin a section."""
        self._headings.append(heading)
        self._parts.append(f'<h2 id="s{len(self._headings)}">{escape(heading)}</h2>')

    def heading(self, text: str) -> None:
        """A heading within a section."""
        self._parts.append(f"<h3>{escape(text)}</h3>")

    def text(self, *paragraphs: str) -> None:
        """Paragraphs."""
        self._parts += [f"<p>{escape(each)}</p>" for each in paragraphs]

    def notes(self, notes: Sequence[str]) -> None:
        """A list that stands out."""
        if notes:
            self._parts.append('<ul class="notes">' + "".join(f"<li>{escape(each)}</li>" for each in notes) + "</ul>")

    def table(self, caption: str, header: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int = 1) -> None:
        """A table; the first column names its row, and columns after the first `texts` hold numbers."""
        kinds = ["" if at < texts else ' class="number"' for at in range(len(header))]
        head = "".join(f'<th scope="col"{kind}>{escape(each)}</th>' for kind, each in zip(kinds, header, strict=True))
        body = []
        for row in rows:
            first = f'<th scope="row">{escape(row[0])}</th>'
            cells = [f"<td{kind}>{escape(each)}</td>" for kind, each in zip(kinds[1:], row[1:], strict=True)]
            body.append(f"<tr>{first}{''.join(cells)}</tr>")
        self._parts.append(
            f'<div class="wide"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(body)}</tbody></table></div>"
        )

    def figures(self, figures: Sequence[tuple[str, str]], *, small: bool = False) -> None:
        """Figures beside each other, small ones closer: markup of `ecgfounder.analysis.pages.charts`, and captions."""
        self._drawn += figures
        shown = [f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" for svg, caption in figures]
        kind = "figures small" if small else "figures"
        self._parts.append(f'<div class="{kind}">{"".join(shown)}</div>')

    def figure(self, svg: str, caption: str) -> None:
        """A figure of the page's width."""
        self._drawn.append((svg, caption))
        self._parts.append(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")

    def picture(self, png: bytes, about: str, caption: str) -> None:
        """A PNG inside the page; `about` is for those who cannot see it."""
        self._has_pictures = True
        data = base64.b64encode(png).decode()
        self._parts.append(
            f'<figure class="picture"><img src="data:image/png;base64,{data}" alt="{escape(about)}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )

    def quote(self, text: str, label: str) -> None:
        """Text to copy, as it is; it can be reached with the keyboard."""
        self._parts.append(f'<pre tabindex="0" aria-label="{escape(label)}">{escape(text)}</pre>')

    @property
    def files(self) -> dict[str, bytes]:
        """The figures as SVG files for papers and slides, by name: their number, and the first words of the caption."""
        style = re.sub(r"var\(--(\w+)\)", lambda found: _LIGHT[found[1]], _FIGURES).replace("svg text", "text")
        files = {}
        for number, (svg, caption) in enumerate(self._drawn, start=1):
            words = re.sub(r"[^a-z0-9]+", "-", caption.lower())[:_LONGEST_NAME].strip("-")
            start, title, rest = svg.partition("<title>")
            files[f"{number:02d}-{words}.svg"] = f"{start}<style>{style}</style>{title}{rest}\n".encode()
        return files

    @property
    def html(self) -> str:
        """The page."""
        links = "".join(
            f'<li><a href="#s{number}">{escape(each)}</a></li>' for number, each in enumerate(self._headings, start=1)
        )
        images = "; img-src data:" if self._has_pictures else ""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'{images}\">"
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>"
            f'<a class="skip" href="#main">Skip to the results</a><header><h1>{escape(self.title)}</h1>'
            f'<p class="soft">{escape(self.subtitle)}</p><nav aria-label="Sections"><ul>{links}</ul></nav></header>'
            f'<main id="main">{"".join(self._parts)}</main></body></html>\n'
        )


def rounded_count(number: int | None) -> str:
    """A rounded count.

    >>> rounded_count(7), rounded_count(23), rounded_count(1234), rounded_count(987_654), rounded_count(None)
    ('under 11', 'about 20', 'about 1,200', 'about 990,000', '')
    """
    if number is None:
        return ""
    if number == 0:
        return "0"
    if number < FEWEST:
        return f"under {FEWEST}"
    unit = max(10, 10 ** (len(str(number)) - 2))
    return f"about {round(number / unit) * unit:,}"


def shown_count(number: int | None) -> str:
    """A count for a page: numbers from 1 to 10 are not shown.

    >>> shown_count(0), shown_count(7), shown_count(12000)
    ('0', 'under 11', '12,000')
    """
    if number is None:
        return ""
    return f"under {FEWEST}" if 0 < number < FEWEST else f"{number:,}"
