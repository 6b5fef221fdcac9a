"""The page in a real browser: what it shows by DOM and pixels, by mouse and by keys alone, and that it asks for nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgfounder.results import open_run
from ecgfounder.storage import locate
from ecgfounder.viewer import Atlas, exporting, open_atlas
from ecgfounder.viewer import places as places_module
from ecgfounder.viewer.places import Places, Progress
from tests.builders.atlas import HOSTILE, N_FILES, Shown, bands_of, write_shown
from tests.builders.runs import BROKEN, FORMS, Made
from tests.harness.browser import Browser, Tab
from tests.harness.viewed import Served, served

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("browser")]

PIXELS = """(() => {
  const canvas = document.getElementById("points");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = {};
  for (let at = 0; at < data.length; at += 4) {
    if (!data[at + 3]) continue;
    const colour = [data[at], data[at + 1], data[at + 2]].map((each) => each >> 5).join();
    const place = (at / 4) % canvas.width, line = Math.floor(at / 4 / canvas.width);
    const box = seen[colour] ??= {n: 0, left: place, right: place, top: line, bottom: line};
    box.n++;
    box.left = Math.min(box.left, place); box.right = Math.max(box.right, place);
    box.top = Math.min(box.top, line); box.bottom = Math.max(box.bottom, line);
  }
  return seen;
})()"""
"""How many pixels of the map have which colour, roughly, and the box around them."""


class Page:
    """A tab with the viewer's page."""

    def __init__(self, tab: Tab, host: str) -> None:
        self.tab, self.host = tab, host

    def text(self, selector: str) -> str:
        return str(self.tab.evaluate(f"document.querySelector({selector!r})?.textContent ?? ''"))

    def texts(self, selector: str) -> list[str]:
        return list(self.tab.evaluate(f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)"))

    def data(self, name: str) -> str:
        return str(self.tab.evaluate(f"document.documentElement.dataset.{name} ?? ''"))

    def wait(self, script: str) -> None:
        self.tab.wait_for(script)

    def wait_data(self, name: str, value: object) -> None:
        self.tab.wait_for(f"document.documentElement.dataset.{name} === '{value}'")

    def press_button(self, selector: str) -> None:
        self.tab.evaluate(f"document.querySelector({selector!r}).click()")

    def choose(self, name: str, value: str) -> None:
        self.tab.evaluate(
            f"(() => {{const each = document.getElementById({name!r}); each.value = {value!r};"
            " each.dispatchEvent(new Event('change'))}})()".replace("}}", "}")
        )

    def write(self, name: str, value: str) -> None:
        self.tab.evaluate(f"document.getElementById({name!r}).value = {value!r}")

    def pixels(self) -> dict[str, Any]:
        """After the next frame."""
        self.tab.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return dict(self.tab.evaluate(PIXELS))

    def painted(self) -> int:
        return sum(each["n"] for each in self.pixels().values())

    def stage(self) -> tuple[float, float, float, float]:
        box = self.tab.evaluate(
            "(({left, top, width, height}) => [left, top, width, height])(stage.getBoundingClientRect())"
        )
        return tuple(box)  # type: ignore[return-value]

    def find(self, text: str) -> None:
        self.write("search-text", text)
        self.press_button("#search button")

    def is_clean(self) -> bool:
        """Nothing was complained about, and nothing asked for but of this server."""
        assert self.tab.errors == []
        assert self.tab.failed == []
        assert {each.split("/")[2] for each in self.tab.requests} == {self.host}
        return True


def opened(
    browser: Browser, running: Served, *, wait: str = "document.documentElement?.dataset.map === 'pca'", **size: int
) -> Page:
    tab = browser.open(running.server.link, **size)
    tab.wait_for(wait)
    return Page(tab, running.host)


@pytest.fixture(scope="module")
def running(atlas: Atlas) -> Iterator[Served]:
    with served(lambda: atlas) as each:
        yield each


@pytest.fixture
def page(browser: Browser, running: Served) -> Iterator[Page]:
    each = opened(browser, running)
    yield each
    assert each.is_clean()
    each.tab.close()


def test_it_loads_and_draws_every_recording(page: Page, shown: Shown) -> None:
    assert page.text("#title") == "run"
    assert page.text("#counts") == "300 recordings, 1 failed"
    (colour,) = page.pixels()
    n = page.pixels()[colour]["n"]
    assert 300 * 12 < n < 300 * 60  # points of 9 pixels, some of them over others
    assert "principal components" in page.text("#told")
    assert page.tab.evaluate("getComputedStyle(document.getElementById('waiting')).display") == "none"


def test_colours_are_those_of_the_legend(page: Page, shown: Shown) -> None:
    page.choose("colour", "rhythm")
    page.wait_data("colour", "rhythm")
    names = page.texts("#legend .name")
    assert names == shown.table["rhythm"].value_counts().index.tolist()
    counts = [int(text) for text in page.texts("#legend .soft")]
    assert counts == shown.table["rhythm"].value_counts().tolist()
    boxes = sorted(page.pixels().values(), key=lambda each: -each["n"])
    assert sum(each["n"] > 500 for each in boxes) == 3
    page.choose("colour", "age")
    page.wait_data("colour", "age")
    assert len(page.pixels()) > 6
    assert page.text("#legend").startswith(f"{shown.table['age'].quantile(0.01):.1f}"[:2])
    page.choose("colour", "")
    page.wait_data("colour", "")
    assert len(page.pixels()) == 1


def test_zoom_move_and_fit(page: Page) -> None:
    left, top, width, height = page.stage()
    before = page.pixels()
    page.tab.mouse("mouseWheel", left + width / 2, top + height / 2, deltaX=0, deltaY=-150)
    page.wait("performance.getEntriesByName('draw', 'measure').length > 1")
    assert 0 < page.painted() < sum(each["n"] for each in before.values())
    page.tab.mouse("mousePressed", left + 100, top + 100)
    page.tab.mouse("mouseMoved", left + 300, top + 250)
    page.tab.mouse("mouseReleased", left + 300, top + 250)
    moved = page.pixels()
    page.press_button("#fit")
    assert page.pixels() == before != moved


def test_only_what_a_condition_holds_for_is_shown(page: Page, shown: Shown) -> None:
    n = int((shown.table["age"] >= 60).sum())
    before = page.painted()
    page.write("condition", "age >= 60")
    page.press_button("#show-where")
    page.wait_data("shown", n)
    assert 0 < page.painted() < before
    assert page.text("#counts").startswith(f"{n} shown of 300 recordings")
    page.press_button("#show-all")
    page.wait_data("shown", 300)
    assert page.painted() == before
    page.write("condition", "age >")
    page.press_button("#select-where")
    page.wait("document.getElementById('told').textContent.includes('not an expression')")
    page.tab.failed.clear()  # the refusal is an answer
    page.tab.errors.clear()


def test_a_condition_is_written_by_choices(page: Page, shown: Shown) -> None:
    page.tab.evaluate(
        """(() => { const [column, operator] = document.querySelectorAll('.condition select');
        column.value = 'flag: clipped'; operator.value = 'is true';
        const add = [...document.querySelectorAll('.condition button')].find((each) => each.textContent === 'Add condition');
        add.click(); column.value = 'rhythm'; operator.value = '==';
        document.querySelector('.condition input[size]').value = 'af';
        add.click(); })()"""
    )
    assert page.tab.evaluate("condition.value") == 'col("flag: clipped") and rhythm == "af"'
    page.press_button("#select-where")
    page.wait_data("selected", int((shown.table["rhythm"][::5] == "af").sum()))


def lasso(page: Page, box: dict[str, float]) -> None:
    """Draw a lasso around a box, with the mouse and Shift."""
    left, top, _, _ = page.stage()
    corners = [
        (box["left"] - 4, box["top"] - 4),
        (box["right"] + 4, box["top"] - 4),
        (box["right"] + 4, box["bottom"] + 4),
        (box["left"] - 4, box["bottom"] + 4),
    ]
    (x, y), *others = corners
    page.tab.mouse("mousePressed", left + x, top + y, modifiers=8)
    for x, y in others:
        page.tab.mouse("mouseMoved", left + x, top + y, modifiers=8, buttons=1)
    page.tab.mouse("mouseReleased", left + x, top + y, modifiers=8)


def test_a_lasso_selects_a_cluster(page: Page, shown: Shown) -> None:
    page.choose("colour", "rhythm")
    page.wait_data("colour", "rhythm")
    name, n = page.texts("#legend .name")[0], int(page.texts("#legend .soft")[0])
    box = max(page.pixels().values(), key=lambda each: each["n"])
    lasso(page, box)
    page.wait("document.querySelector('#composition table')")
    selected = int(page.data("selected"))
    assert abs(selected - n) <= 0.1 * n
    assert page.texts("#composition caption")[0] == "rhythm"
    assert page.texts("#composition tbody th")[0] == name
    assert page.text("#result h2") == f"{selected} recordings selected"
    page.wait("document.querySelector('#rows table')")
    assert len(page.texts("#rows tbody tr")) == min(100, selected)
    greys = [colour for colour in page.pixels() if len(set(colour.split(","))) == 1]
    assert greys  # what is not selected
    saved = page.tab.evaluate("fetch(document.querySelector('#result a').href).then((answer) => answer.text())")
    assert len(saved.splitlines()) == selected + 1


def test_a_value_of_the_legend_selects_adds_and_takes_away(page: Page, shown: Shown) -> None:
    page.choose("colour", "rhythm")
    page.wait_data("colour", "rhythm")
    first, second, _ = shown.table["rhythm"].value_counts().tolist()
    page.press_button("#legend li:nth-child(1) button")
    page.wait_data("selected", first)
    page.choose("how", "add")
    page.press_button("#legend li:nth-child(2) button")
    page.wait_data("selected", first + second)
    page.choose("how", "take")
    page.press_button("#legend li:nth-child(1) button")
    page.wait_data("selected", second)
    page.press_button("#invert")
    page.wait_data("selected", 300 - second)
    page.press_button("#clear")
    page.wait_data("selected", 0)
    assert "Nothing is selected" in page.text("#result")


def test_predictions_of_a_selection_are_compared(page: Page) -> None:
    page.choose("colour", "rhythm")
    page.wait_data("colour", "rhythm")
    page.press_button("#legend li:nth-child(1) button")
    page.wait("document.querySelector('#predicted button')")
    page.press_button("#predicted button")
    page.wait("document.querySelector('#predicted table')")
    assert set(page.texts("#predicted tbody th")) == {"ATRIAL FIBRILLATION", "SINUS RHYTHM"}


def test_a_click_opens_a_recording(page: Page) -> None:
    left, top, _, _ = page.stage()
    box = next(iter(page.pixels().values()))
    at = page.tab.evaluate(
        f"""(() => {{ const canvas = document.getElementById('points'), line = {box["top"]} + 4;
        const data = canvas.getContext('2d').getImageData(0, line, canvas.width, 1).data;
        return [...Array(canvas.width).keys()].find((x) => data[4 * x + 3]); }})()"""
    )
    page.tab.click(left + at + 2, top + box["top"] + 4)
    page.wait("document.getElementById('record')?.textContent")
    page.wait("document.querySelector('#neighbours table')")
    assert page.tab.evaluate("document.getElementById('tab-recording').getAttribute('aria-selected')") == "true"


def test_a_name_is_shown_where_the_pointer_rests(page: Page) -> None:
    left, top, _, _ = page.stage()
    box = next(iter(page.pixels().values()))
    middle = page.tab.evaluate(
        f"""(() => {{ const canvas = document.getElementById('points'), line = {box["bottom"]} - 4;
        const data = canvas.getContext('2d').getImageData(0, line, canvas.width, 1).data;
        return [...Array(canvas.width).keys()].find((x) => data[4 * x + 3]); }})()"""
    )
    page.tab.mouse("mouseMoved", left + middle + 2, top + box["bottom"] - 4)
    page.wait("!document.getElementById('hover').hidden")
    assert page.text("#hover")


def test_search_ecg_and_a_walk_along_neighbours(page: Page) -> None:
    page.find("p001")
    page.wait("document.querySelector('svg.ecg') && document.querySelector('#neighbours table')")
    assert page.text("#record") == "p001/r.hea"
    assert page.texts("svg.ecg text.lead")[:3] == ["I", "aVR", "V1"]
    assert len(page.texts("svg.ecg path.trace")) == 13 + 4  # leads, and calibration marks
    assert "25 mm/s" in page.text("#ecg figcaption")
    neighbours = page.texts("#neighbours tbody th")
    assert len(neighbours) == 10
    page.press_button("#neighbours tbody th button")
    page.wait(f"document.getElementById('record').textContent === {neighbours[0]!r}")
    page.wait("document.querySelector('#neighbours table')")
    page.press_button("#neighbours tbody th button")
    page.wait(f"document.getElementById('record').textContent !== {neighbours[0]!r}")
    page.press_button("#back")
    page.wait(f"document.getElementById('record').textContent === {neighbours[0]!r}")
    page.press_button("#back")
    page.wait("document.getElementById('record').textContent === 'p001/r.hea'")
    assert page.tab.evaluate("document.getElementById('back').disabled")


def test_evidence_is_a_band_below_the_ecg(browser: Browser, atlas: Atlas) -> None:
    with served(lambda: atlas, bands_of=bands_of) as running:
        page = opened(browser, running)
        page.find("p001")
        page.wait("document.querySelector('svg.ecg rect.bar') && document.querySelector('#neighbours table')")
        assert len(page.texts("svg.ecg rect.bar.for")) == len(page.texts("svg.ecg rect.bar.against")) == 1
        assert "<b>told</b>" in page.text("#ecg figcaption")
        assert page.is_clean()
        page.tab.close()


def test_the_patients_other_recordings_flags_and_statements(page: Page) -> None:
    page.find("sub/00010.xml")
    page.wait("document.getElementById('record')?.textContent === 'sub/00010.xml'")
    assert page.texts("#panel-recording .link")[-1] == "sub/00011.xml"
    assert page.text("#flags strong") == "clipped: V1"
    assert page.texts("#statements li") == ["Sinus rhythm", "<b>Otherwise normal</b>"]
    page.wait("document.querySelector('#ecg').textContent.includes('a file is not there')")


def test_hostile_names_are_text(page: Page) -> None:
    page.find("<img")
    page.wait("document.getElementById('record')?.textContent")
    assert page.text("#record") == HOSTILE
    assert page.tab.evaluate("document.querySelectorAll('img').length") == 0
    page.choose("colour", "device_model")
    page.wait_data("colour", "device_model")
    assert '"><script>document.title=2</script>' in page.texts("#legend .name")
    assert page.tab.evaluate("document.title") == "run - ecgfounder"
    with pytest.raises(AssertionError):
        page.tab.evaluate("document.body.innerHTML = '<b>'")  # even a mistake of a script could not make markup
    assert [each for each in page.tab.errors if "TrustedHTML" not in each] == []
    page.tab.errors.clear()


def test_failures_have_reasons(page: Page) -> None:
    page.press_button("#tab-failures")
    page.wait("document.querySelector('#failed table')")
    assert page.texts("#failed tbody tr") == ["b/5.xmlReadErrorno such file"]
    assert page.texts("#reasons tbody tr") == ["no such fileReadError1"]
    page.press_button("#reasons button")
    page.wait("document.getElementById('failed-text').value === 'no such file'")


def test_dark_and_light(page: Page) -> None:
    page.choose("colour", "rhythm")
    page.wait_data("colour", "rhythm")
    light = set(page.pixels())
    page.tab.show(dark=True)
    page.wait_data("scheme", "dark")
    assert set(page.pixels()) != light
    channels = page.tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(channels) < 40
    ink = page.tab.evaluate("getComputedStyle(document.body).color.match(/\\d+/g).map(Number)")
    assert min(ink) > 200
    page.tab.show(dark=False)
    page.wait_data("scheme", "light")
    assert set(page.pixels()) == light


def test_by_keys_alone(page: Page) -> None:
    page.tab.evaluate("document.getElementById('fit').focus()")
    page.tab.press("Tab")
    assert page.tab.evaluate("document.activeElement.id") == "stage"
    before = page.pixels()
    page.tab.press("+", "ArrowLeft", "ArrowUp")
    assert page.pixels() != before
    page.tab.press("0")
    assert page.pixels() == before
    page.tab.press(
        "b", *["Shift+ArrowRight"] * 40, *["Shift+ArrowDown"] * 40, *["ArrowLeft"] * 25, *["ArrowUp"] * 25, "Enter"
    )
    page.wait("Number(document.documentElement.dataset.selected) > 0")
    page.tab.press("b", "Escape", "Enter")
    page.wait("document.getElementById('record')?.textContent")
    assert page.tab.evaluate("document.getElementById('tab-recording').getAttribute('aria-selected')") == "true"
    page.tab.evaluate("document.getElementById('tab-recording').focus()")
    page.tab.press("ArrowRight", "ArrowRight")
    assert page.tab.evaluate("document.activeElement.id") == "tab-failures"
    assert page.tab.evaluate("document.getElementById('panel-failures').hidden") is False
    page.tab.press("ArrowRight")
    assert page.tab.evaluate("document.activeElement.id") == "tab-selection"


def test_whatever_can_be_used_has_a_name(page: Page) -> None:
    page.find("p001")
    page.wait("document.querySelector('#neighbours table')")
    unnamed = page.tab.evaluate(
        """[...document.querySelectorAll('button, input, select, a, [role=application], svg[role=img]')].filter((each) =>
        !(each.textContent.trim() || each.getAttribute('aria-label') || each.labels?.length)).map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_a_phones_width(browser: Browser, running: Served) -> None:
    page = opened(browser, running, width=360, height=700)
    page.tab.size(360, 700, phone=True)
    page.find("p001")
    page.wait("document.querySelector('svg.ecg')")
    page.tab.settle()
    assert page.tab.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.painted() > 1000
    assert page.is_clean()
    page.tab.close()


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """As many recordings as there are files."""
    return write_shown(tmp_path_factory.mktemp("few"), N_FILES)


def test_a_second_tab_is_told_when_the_run_was_read_again(browser: Browser, tmp_path: Path) -> None:
    made = Made(tmp_path / "run", outcome="interrupted", done_order=["a/2.xml", "b/3.xml"])
    folder = made.make()
    with served(lambda: open_atlas(open_run(folder, allow_incomplete=True))) as running:
        page = opened(browser, running)
        page.wait("!!document.getElementById('again')")
        running.server.viewer.reopen()  # another tab asked for it
        page.find("a/2.xml")
        page.wait("document.getElementById('told').textContent.includes('reload the page')")
        page.tab.close()


def test_an_ecg_over_another(browser: Browser, few: Shown) -> None:
    with served(lambda: open_atlas(open_run(few.folder), data_dir=str(few.data_dir))) as running:
        page = opened(browser, running)
        page.find("p002")
        page.wait("document.querySelector('svg.ecg') && document.querySelector('#neighbours table')")
        other = page.texts("#neighbours tbody th")[0]
        page.press_button("#neighbours td button")
        page.wait("document.querySelectorAll('svg.ecg .other').length === 13")
        assert other in page.text("#ecg figcaption")
        page.press_button("#ecg figcaption button")
        page.wait("document.querySelectorAll('svg.ecg .other').length === 0")
        assert page.is_clean()
        page.tab.close()


def test_an_ecg_over_one_of_another_length_rate_and_layout(page: Page) -> None:
    """The same seconds of the same lead, wherever the other has them; its first ones if it is too short."""
    found = page.tab.evaluate(
        """import("/ecg.js").then(({ drawEcg }) => {
          const trace = (label, start, place, n, value) => ({label, start, place, height: 5, microvolts: Array(n).fill(value)});
          const row = (...traces) => ({up: 15, down: 10, traces});
          const paper = {mm_per_second: 25, mm_per_millivolt: 10, gap: -1, heading: "", footer: []};
          const short = [trace("I", 0, 0, 250, 0), trace("V1", 5, 5, 250, 0), trace("V9", 0, 0, 9, 0)];
          const one = {...paper, sampling_rate: 100, rows: [row(...short)]};
          const long = trace("V1", 0, 0, 2000, 100); long.microvolts.fill(200, 1000, 1500);
          const other = {...paper, sampling_rate: 200, rows: [row(trace("I", 0, 0, 300, 100)), row(long)]};
          return [...drawEcg(one, "about", other).querySelectorAll(".other")].map((each) => each.getAttribute("d"));
        })"""
    )
    assert len(found) == 2
    assert [each.count("L") + 1 for each in found] == [300, 500]
    assert found[0].startswith("M10.00 14.00L10.13 14.00")  # 0.1 mV above the baseline at 15 mm
    assert found[1].startswith("M135.00 13.00L")
    assert " 14.00" not in found[1]  # seconds 5 to 7.5, where it is 0.2 mV


EMPTY: dict[str, dict[str, Any]] = {
    "all_failed": {"rows": [BROKEN], "done_order": []},
    "nothing": {"rows": [], "done_order": [], "outcome": "interrupted"},
    "one": {"rows": [("a/1.xml", 101)], "done_order": ["a/1.xml"]},
    "windows": FORMS["windows"],
    "every_lead": FORMS["every_lead"],
    "unfinished": {"outcome": "interrupted", "done_order": ["a/1.xml", "a/2.xml"]},
}


@pytest.mark.parametrize("form", EMPTY)
def test_runs_of_every_form(browser: Browser, tmp_path: Path, form: str) -> None:
    folder = Made(tmp_path / "run", **EMPTY[form]).make()
    with served(lambda: open_atlas(open_run(folder, allow_incomplete=True))) as running:
        page = opened(browser, running)
        n = {"all_failed": 0, "nothing": 0, "one": 1, "unfinished": 2}.get(form, 4)
        assert page.text("#counts").startswith(f"{n} recording")
        assert (page.painted() > 0) is (n > 0)
        if not n:
            assert "no recording with an embedding" in page.text("#waiting")
        if form == "all_failed":
            page.wait("document.querySelector('#failed table')")
            assert page.tab.evaluate("document.getElementById('panel-failures').hidden") is False
        if form == "unfinished":
            page.wait("!document.getElementById('progress').hidden")
            assert "2 done" in page.text("#progress")
            page.tab.evaluate("window.isOld = true")
            page.press_button("#again")
            page.wait("!window.isOld && document.documentElement?.dataset.map === 'pca'")
        if n:
            page.find("a/1.xml")
            page.wait("document.getElementById('record')?.textContent === 'a/1.xml'")
            page.wait("document.querySelector('#neighbours')?.textContent.match(/None|Similarity/)")
            page.wait("document.querySelector('#ecg').textContent.includes('No ECG is drawn')")
        assert page.is_clean()
        page.tab.close()


def test_a_page_on_disk(browser: Browser, atlas: Atlas, few: Shown, shown: Shown, tmp_path: Path) -> None:
    exporting.write_page(atlas, locate(tmp_path / "all"), ["rhythm", "age"])
    tab = browser.open(tmp_path / "all" / "index.html")
    tab.wait_for("document.documentElement?.dataset.map === 'pca'")
    page = Page(tab, "")
    assert page.painted() > 1000
    page.choose("colour", "rhythm")
    page.wait_data("colour", "rhythm")
    n = shown.table["rhythm"].value_counts()
    page.press_button("#legend li button")
    page.wait_data("selected", n.iloc[0])
    page.wait("document.querySelector('#composition table')")
    assert page.texts("#composition caption") == ["rhythm", "age"]
    assert page.texts("#composition tbody td")[0] == f"{n.iloc[0]} (100.0 %)"
    assert "null" not in page.text("#result")
    page.press_button("#rows button.link")
    page.wait("document.querySelector('#neighbours table')")
    assert page.text("#record").startswith("recording ")
    assert len(page.texts("#neighbours tbody tr")) == 10
    page.press_button("#tab-failures")
    assert page.texts("#reasons tbody tr") == ["no such fileReadErrorunder 11"]
    assert tab.errors == []
    assert len(tab.requests) == 1
    tab.close()

    small = open_atlas(open_run(few.folder), data_dir=str(few.data_dir))
    exporting.write_page(small, locate(tmp_path / "few"), ["record"], drawings=True)
    tab = browser.open(tmp_path / "few" / "index.html")
    tab.wait_for("document.documentElement?.dataset.map === 'pca'")
    page = Page(tab, "")
    page.find("p003")
    page.wait("document.querySelector('svg.ecg')")
    assert page.text("#record") == "p003/r.hea"
    assert tab.errors == []
    tab.close()


def test_the_page_on_disk_compares_as_the_program_does(
    browser: Browser, atlas: Atlas, viewed: Served, tmp_path: Path
) -> None:
    """The same selection in the page's script and in the program: shares, intervals, quartiles, distances."""
    exporting.write_page(atlas, locate(tmp_path), ["record", "rhythm", "age", "flag: clipped", "device_model"])
    tab = browser.open(tmp_path / "index.html")
    tab.wait_for("document.documentElement?.dataset.map === 'pca'")
    page = Page(tab, "")
    page.choose("colour", "flag: clipped")
    page.wait_data("colour", "flag: clipped")
    page.press_button("#legend li:nth-child(2) button")
    page.wait("document.querySelectorAll('#composition table').length === 4")
    clipped = np.zeros(len(atlas), dtype=bool)
    clipped[::5] = True
    told = viewed.ask("/api/selection", "POST", np.packbits(clipped, bitorder="little").tobytes()).json["columns"]
    expected = {each["name"]: each for each in told}
    tables = tab.evaluate(
        "[...document.querySelectorAll('#composition table')].map((each) => [each.caption.textContent,"
        " [...each.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))])"
    )
    assert {name for name, _ in tables} == {"rhythm", "age", "flag: clipped", "device_model"}
    for name, rows in tables:
        for share, cells in zip(expected[name]["shares"], rows, strict=False):
            assert cells[0] == share["value"]
            assert cells[1].startswith(str(share["selected"]))
            assert cells[3].replace("+", "") == (
                f"{100 * share['difference']:.1f} % ({100 * share['low']:.1f} % to {100 * share['high']:.1f} %)"
            )
        if name == "age":
            median = expected[name]["spread"]["selected"][1]
            assert rows[0][1].startswith(f"{median:.4g}")
            assert rows[0][3] == f"{100 * expected[name]['distance']:.1f} %"
    assert tab.errors == []
    tab.close()


def test_a_page_on_disk_of_a_part_says_so(browser: Browser, tmp_path: Path) -> None:
    made = Made(tmp_path / "run", outcome="interrupted", done_order=["a/1.xml", "a/2.xml", "b/3.xml"])
    atlas = open_atlas(open_run(made.make(), allow_incomplete=True), where='record != "a/1.xml"')
    exporting.write_page(atlas, locate(tmp_path / "page"))
    tab = browser.open(tmp_path / "page" / "index.html")
    tab.wait_for("document.documentElement?.dataset.map === 'pca'")
    page = Page(tab, "")
    assert page.text("#counts") == (
        "2 recordings, under 11 failed; left out, condition: under 11; the run was not complete"
    )
    assert tab.errors == []
    tab.close()


def test_identifiers_on_a_page_on_disk_are_whole_and_not_compared(
    browser: Browser, shown: Shown, tmp_path: Path
) -> None:
    labels = shown.table[["study_id"]].assign(person=shown.table["study_id"] + 40_684_238)
    atlas = open_atlas(open_run(shown.folder), labels, "study_id")
    exporting.write_page(atlas, locate(tmp_path), ["record", "rhythm", "person"])
    tab = browser.open(tmp_path / "index.html")
    tab.wait_for("document.documentElement?.dataset.map === 'pca'")
    page = Page(tab, "")
    page.find("p003")
    page.wait("document.querySelector('#facts')")
    assert page.texts("#facts tbody tr")[1] == "person40689241"
    page.choose("colour", "rhythm")
    page.wait_data("colour", "rhythm")
    page.press_button("#legend li button")
    page.wait("document.querySelector('#composition table')")
    assert page.texts("#composition caption") == ["rhythm"]
    page.choose("colour", "person")
    page.wait_data("colour", "person")
    assert len(page.pixels()) > 6
    assert tab.errors == []
    tab.close()


def test_umap_in_the_background_with_progress(browser: Browser, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()

    def made(places: Places, _: object) -> None:
        places.umap.phase, places.umap.share = "laying out", 0.25
        assert goes_on.wait(60)
        places._coordinates["umap"] = places.coordinates("pca")[:, ::-1].copy()
        places.umap = Progress("ready")

    monkeypatch.setattr(Places, "_make_umap", made)
    monkeypatch.setattr(places_module, "find_spec", lambda _: None)
    with served(lambda: open_atlas(open_run(shown.folder))) as running:
        page = opened(browser, running)
        pca = page.pixels()
        page.choose("kind", "umap")
        page.wait("document.getElementById('told').textContent.includes('[map]')")  # how to install it
        assert page.tab.evaluate("document.getElementById('kind').value") == "pca"
        monkeypatch.setattr(places_module, "find_spec", lambda _: object())
        page.choose("kind", "umap")
        page.wait("document.getElementById('told').textContent.includes('laying out, 25.0 %')")
        assert page.pixels() == pca  # the map before is there meanwhile, and can be used
        page.press_button("#fit")
        goes_on.set()
        page.wait_data("map", "umap")
        assert page.pixels() != pca
        assert "UMAP" in page.text("#told")
        page.choose("kind", "pca")
        page.wait_data("map", "pca")
        assert page.pixels() == pca
        page.tab.close()
