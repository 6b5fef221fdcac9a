"""The page of a report in a real browser: it loads nothing and complains of nothing, in all the ways in which it is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ecgfounder import open_run
from ecgfounder.analysis import report
from ecgfounder.analysis.reporting.drawings import Drawing, png_of
from ecgfounder.analysis.reporting.report_page import report_html
from ecgfounder.demo.demo import write_demo_cohort
from ecgfounder.readers import read_ecg
from tests.builders.reports import CANARIES, write_hospital_run
from tests.harness.browser import Browser, Tab

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("browser")]

CONTRAST = """(() => {
  const channel = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  };
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = getComputedStyle(each).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const texts = [...document.querySelectorAll("p, li, a, h1, h2, h3, caption, th, td, figcaption, pre, svg text")];
  const ratios = texts.filter(each => each.getClientRects().length).map(each => {
    const style = getComputedStyle(each);
    const colours = [each instanceof SVGElement ? style.fill : style.color, ground(each)];
    const [low, high] = colours.map(luminance).sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), each.tagName];
  });
  return ratios.sort((a, b) => a[0] - b[0])[0];
})()"""
"""The lowest contrast of any text, and the element that has it (WCAG 2: 4.5 for text)."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("page")
    run = open_run(write_hospital_run(place / "run", 600))
    write_demo_cohort(place / "demo")
    recording = read_ecg(sorted((place / "demo").rglob("*.xml"))[0])
    found = report(run, group="patient", by=("site", "year"), label=("af",), map="pca", drawings=True)
    (place / "report.html").write_text(report_html(found, [Drawing("flag clipped", png_of(recording), None)]))
    return place / "report.html"


@pytest.fixture
def tab(browser: Browser, page: Path) -> Iterator[Tab]:
    opened = browser.open(page)
    yield opened
    opened.close()


def test_it_asks_for_nothing_and_complains_of_nothing(tab: Tab, page: Path) -> None:
    assert tab.errors == []
    assert tab.requests == [page.as_uri()]
    assert tab.evaluate("document.scripts.length") == 0
    assert tab.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 700)")
    text = tab.evaluate("document.documentElement.innerText + document.documentElement.outerHTML")
    assert [each for each in CANARIES if each in text] == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_contrast(tab: Tab, dark: bool) -> None:
    tab.show(dark=dark)
    ratio, element = tab.evaluate(CONTRAST)
    assert ratio >= 4.5, element
    light = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is not dark


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(tab: Tab, width: int) -> None:
    tab.size(width, 800, phone=width < 500)
    assert tab.evaluate("innerWidth") == width
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wide = tab.evaluate(
        "[...document.querySelectorAll('table')].filter(e => e.scrollWidth > e.parentElement.clientWidth).length"
    )
    assert (wide > 0) is (width < 400)  # these scroll by themselves


def test_it_can_be_read_with_the_keyboard(tab: Tab) -> None:
    tab.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    tab.press("Enter")
    assert tab.evaluate("location.hash") == "#main"
    tab.evaluate("document.activeElement.blur(), location.hash = '', document.querySelector('nav a').focus()")
    tab.press("Tab", "Enter")
    assert tab.evaluate("document.querySelector(location.hash).textContent") == "Cohort"
    assert tab.evaluate("document.querySelector(location.hash).getBoundingClientRect().top") < 50
    tab.size(320, 800)
    reached = set()
    for _ in range(80):
        tab.press("Tab")
        reached.add(tab.evaluate("document.activeElement.tagName + (document.activeElement.className || '')"))
    assert {"PRE", "DIVwide"} <= reached  # what scrolls, and what is to be copied


def test_everything_has_a_name_for_those_who_cannot_see_it(tab: Tab) -> None:
    def all_of(what: str, condition: str) -> bool:
        return bool(tab.evaluate(f"[...document.querySelectorAll('{what}')].every(e => {condition})"))

    assert tab.evaluate("document.documentElement.lang") == "en"
    assert all_of("svg", "e.getAttribute('role') == 'img' && e.querySelector('title').textContent.length > 20")
    assert all_of("img", "e.alt.length > 10")
    assert all_of("table", "e.caption && e.querySelector('th[scope=col]') && e.querySelector('th[scope=row]')")
    levels = tab.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert max(after - before for before, after in pairwise(levels)) == 1


def test_it_prints_in_black_on_white(tab: Tab, tmp_path: Path) -> None:
    tab.show(dark=True, printed=True)
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    printed = tab.pdf(tmp_path / "report.pdf")
    assert 3 <= printed.count(b"/Type /Page\n") + printed.count(b"/Type/Page\n") <= 40


def test_maps_have_coloured_squares(tab: Tab) -> None:
    kinds = tab.evaluate("[...document.querySelectorAll('svg path')].map(e => e.getAttribute('class'))")
    assert {"d0", "d1", "d2"} <= set(kinds)
    styles = tab.evaluate(
        "['d0', 'd1', 'd2'].map(c => getComputedStyle(document.querySelector('path.' + c))).map(s => s.fill + s.fillOpacity)"
    )
    assert len(set(styles)) == 3
