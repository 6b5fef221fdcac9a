"""The browser of the tests sees what a page shows, asks for and complains about."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.browser import Browser, BrowserError

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("browser")]

PAGE = """<!DOCTYPE html><html><head><title>a page</title><style>
body { color: #111; width: 500px; height: 2000px } @media (prefers-color-scheme: dark) { body { color: #eee } }
@media print { body { color: #123456 } }</style></head>
<body><a href="#there">link</a><input id="field"><img src="missing.png">
<script>console.error("complaint", 3); setTimeout(() => { throw new Error("late") }, 20)</script></body></html>"""


def test_sees_what_a_page_does(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGE)
    tab = browser.open(page)
    assert [each.rpartition("/")[2] for each in tab.requests] == ["page.html", "missing.png"]
    assert [each.rpartition("/")[2] for each in tab.failed] == ["missing.png"]
    assert any("complaint 3" in each for each in tab.errors)
    assert any("late" in each for each in tab.errors)
    tab.press("Tab", "Tab", "a", "Shift+Tab")
    assert tab.evaluate("[document.activeElement.tagName, field.value]") == ["A", "a"]
    with pytest.raises(BrowserError, match="absent"):
        tab.evaluate("absent.value")
    tab.close()


def test_shows_a_page_in_another_way(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(PAGE.replace("console.error", "console.log"))
    tab = browser.open(page)

    def colour() -> str:
        return str(tab.evaluate("getComputedStyle(document.body).color"))

    assert colour() == "rgb(17, 17, 17)"
    tab.show(dark=True)
    assert colour() == "rgb(238, 238, 238)"
    tab.show(dark=False, printed=True)
    assert colour() == "rgb(18, 52, 86)"
    tab.size(390, 800)
    assert tab.evaluate("innerWidth") == 390
    picture = tab.screenshot(tmp_path / "page.png")
    assert picture[:4] == b"\x89PNG"
    assert int.from_bytes(picture[20:24]) > 1900  # the whole page's height
    assert tab.pdf()[:5] == b"%PDF-"
    tab.close()
