"""The viewer's page in a headless Chromium with software rendering; `python -m benchmarks.view N` serves a synthetic run.

In: a number of recordings. Out: seconds until the map can be used, frames while it is moved, zoomed and recoloured, a lasso, the
composition of a selection, the memory of the browser's process of the page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa

from benchmarks.measure import Facts, spread
from tests.harness.browser import Tab, browser_program, running_browser

GROUPS = 12
FEATURES = 16

_N_FRAMES = 30
_FRAMES = """new Promise((done) => {
  const times = [], stage = document.getElementById("stage"), box = stage.getBoundingClientRect();
  let last = 0;
  const step = (now) => {
    if (last) times.push(now - last);
    last = now;
    if (times.length === N_FRAMES) return done(times);
    DO;
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""
"""Milliseconds from frame to frame while something is done in each."""

_ZOOM = """stage.dispatchEvent(new WheelEvent("wheel", {deltaY: times.length % 2 ? 60 : -60, cancelable: true,
  clientX: box.left + box.width / 2, clientY: box.top + box.height / 2}))"""
_MOVE = """stage.dispatchEvent(new KeyboardEvent("keydown", {key: times.length % 2 ? "ArrowLeft" : "ArrowRight"}))"""


class Synthetic:
    """Stands in for an opened run: recordings in groups, with columns of every kind."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        group = rng.integers(GROUPS, size=n)
        self.X = (4 * rng.standard_normal((GROUPS, FEATURES))[group] + rng.standard_normal((n, FEATURES))).astype(
            np.float32
        )
        names = pa.array([f"p{at // 3:06d}/{at:07d}.xml" for at in range(n)])
        flags = [[], ["clipped:V1"], ["short"], [], []]
        self.records = pa.table(
            {
                "row_index": np.arange(n),
                "path_index": np.zeros(n, np.int32),
                "record": names,
                "output": names,
                "input_sha256": names,
                "status": pa.array(["done"]).take(pa.array(np.zeros(n, np.int64))),
                "flags": pa.array(flags, pa.list_(pa.string())).take(pa.array(rng.integers(5, size=n))),
                "rhythm": pa.array([f"rhythm {at}" for at in range(GROUPS)]).take(pa.array(group)),
                "device": pa.array(["old", "new", None]).take(pa.array(rng.integers(3, size=n))),
                "age": np.round(40 + 2 * group + 10 * rng.standard_normal(n)),
                "heart_rate": 70 + 10 * rng.standard_normal(n),
            }
        )
        self.manifest = self.records
        self.failures = pa.table({name: pa.array([], pa.string()) for name in ("record", "error", "reason")})
        self.predictions = self.statements = None
        self.is_complete = True
        self.folder = SimpleNamespace(basename="synthetic")
        self.record = SimpleNamespace(settings=SimpleNamespace(data_dir="/", id_column=None), fingerprint={})

    def arrays_of(self, table: pa.Table, pooling: str) -> tuple[Any, pa.Table]:
        from ecgfounder.analysis.similarity.search import InMemory

        return InMemory(self.X), table

    def digest(self) -> str:
        return f"synthetic {len(self.X)}"


def serve(n: int) -> None:
    """Serve a synthetic run until the process is ended; the link is printed when the map is ready."""
    from ecgfounder.analysis.rows.selection import Selection
    from ecgfounder.results import EmbeddingRun
    from ecgfounder.storage import NO_OPTIONS
    from ecgfounder.viewer import Atlas, Server, Viewer
    from ecgfounder.viewer.columns import Columns

    run = cast(EmbeddingRun, Synthetic(n))
    selection = Selection(run, run.records, {})
    atlas = Atlas(selection, Columns(selection), group=None, data_dir=None, options=NO_OPTIONS)
    atlas.places.wait()
    server = Server(Viewer(lambda: atlas))
    print(server.link, flush=True)
    server.serve_forever()


def viewed(environment: Mapping[str, str], sizes: Sequence[int], rounds: int) -> Facts:
    """What is measured on the pages of runs of several sizes; nothing without a browser."""
    program = browser_program()
    if program is None:
        return {"rows": []}
    rows = []
    for n in sizes:
        rounds_of_n = [_round(program, environment, n) for _ in range(rounds)]
        spreads = {name: spread([value for each in rounds_of_n for value in each[name]]) for name in rounds_of_n[0]}
        rows.append({"recordings": n, **spreads})
    return {"rows": rows}


def _round(program: str, environment: Mapping[str, str], n: int) -> dict[str, list[float]]:
    """The measurements on the page of a run with n recordings, in a new browser."""
    words = [sys.executable, "-m", "benchmarks.view", str(n)]
    with tempfile.TemporaryDirectory() as cache:
        given = {**os.environ, **environment, "ECGFOUNDER_CACHE": cache}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=given) as child:
            try:
                assert child.stdout is not None
                link = child.stdout.readline().strip()
                with running_browser(program) as browser:
                    return _of_page(browser.open(link, settle=0.0))
            finally:
                child.kill()


def _of_page(tab: Tab) -> dict[str, list[float]]:
    drawn = "performance.getEntriesByName('draw', 'measure')"
    tab.wait_for(f"document.documentElement?.dataset.map === 'pca' && {drawn}.length")
    last = f"{drawn}.at(-1)"
    facts = {"usable_seconds": [tab.evaluate(f"({last}.startTime + {last}.duration) / 1000")]}
    tab.settle(0.5)
    renderer = _renderer(tab)
    for name, does in (("move", _MOVE), ("zoom", _ZOOM)):
        before = _cpu_seconds(renderer)
        facts[f"{name}_ms"] = tab.evaluate(_FRAMES.replace("DO", does).replace("N_FRAMES", str(_N_FRAMES)))
        facts[f"{name}_core_ms"] = [(_cpu_seconds(renderer) - before) / _N_FRAMES * 1000]
    facts["recolour_ms"] = [_recolour(tab, name) for name in ("rhythm", "age", "rhythm", "heart_rate")]
    _choose(tab, "rhythm")
    facts["lasso_ms"] = [_lasso(tab) for _ in range(3)]
    facts["composition_seconds"] = [_composition(tab)]
    facts["renderer_mb"] = [_memory_mb(renderer)]
    return facts


def _choose(tab: Tab, name: str) -> None:
    tab.evaluate(
        f"(() => {{const each = document.getElementById('colour'); each.value = '{name}';"
        " each.dispatchEvent(new Event('change'))})()"
    )
    tab.wait_for(f"document.documentElement.dataset.colour === '{name}'")


def _recolour(tab: Tab, name: str) -> float:
    """Milliseconds to give all recordings the colours of a column that has arrived, and to draw them."""
    _choose(tab, name)
    tab.settle(0.3)
    last = "performance.getEntriesByName('{}', 'measure').at(-1).duration"
    return float(tab.evaluate(f"{last.format('colour')} + {last.format('draw')}"))


def _lasso(tab: Tab) -> float:
    """Milliseconds from the release of the mouse to the frame that shows the selection."""
    left, top, width, height = tab.evaluate(
        "(({left, top, width, height}) => [left, top, width, height])(stage.getBoundingClientRect())"
    )
    around = [
        (left + width * (0.5 + 0.4 * np.cos(angle)), top + height * (0.5 + 0.4 * np.sin(angle)))
        for angle in np.linspace(0, 2 * np.pi, 60)
    ]
    tab.mouse("mousePressed", *around[0], modifiers=8)
    for x, y in around[1:]:
        tab.mouse("mouseMoved", x, y, modifiers=8, buttons=1)
    tab.settle(0.3)
    tab.evaluate(
        """addEventListener("pointerup", () => { window.began = performance.now();
        requestAnimationFrame(() => requestAnimationFrame(() => { window.took = performance.now() - window.began; })); },
        {once: true, capture: true}); window.took = 0"""
    )
    tab.mouse("mouseReleased", *around[-1], modifiers=8)
    tab.wait_for("window.took")
    took = float(tab.evaluate("window.took"))
    tab.settle(0.5)
    return took


def _composition(tab: Tab) -> float:
    """Seconds until the composition of another selection is shown."""
    tab.evaluate(
        "document.querySelector('#composition')?.remove(); document.querySelector('#legend li button').click()"
    )
    began = time.perf_counter()
    tab.wait_for("document.querySelector('#composition table')")
    return time.perf_counter() - began


def _renderer(tab: Tab) -> int:
    """The browser's process of the page, which is its largest one of this kind."""
    processes = tab.browser.command("SystemInfo.getProcessInfo")["processInfo"]
    return max((each["id"] for each in processes if each["type"] == "renderer"), key=_memory_mb)


def _memory_mb(process: int) -> float:
    """Memory of a process, pages that it shares counted in part."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024 / 1e6


def _cpu_seconds(process: int) -> float:
    """Processor time of a process, of all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
