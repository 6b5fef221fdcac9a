"""Draw the documentation's figures: `python docs/figures/make_figures.py [FOLDER]`.

In: the package's demo recordings and random weights. Out: first.png, flow.svg, recipes.png and paper.png in FOLDER (this one by
default). paper.png is what the tutorial's command draws.
Needs matplotlib (`pip install 'ecgfounder[report]'`); the same matplotlib gives the same bytes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from ecgfounder import RECIPES, Preparation, Recording, cli, load, prepare, read_ecg
from ecgfounder.demo.demo import write_demo

CALIBRATED = "patient_006/ecg_0007.xml"
"""The demo's recording of 11 s, which ends with a calibration pulse, as from a Philips cardiograph."""

INSPECTED = "patient_001/ecg_0001.xml"
"""The demo's recording of 10 s that the tutorial inspects."""

SHOWN = 48
"""Numbers of a token that the first figure shows."""

INK, TRACE, ACCENT, PAPER = "#263238", "#00695c", "#b71c1c", "#eceff1"

STAGES = (
    ("cohort", "dataset,\ntable or folder\nof ECG files"),
    ("read", "any format\nto millivolts,\nleads by name"),
    ("prepare", "500 Hz,\nwindows,\nrecipe"),
    ("batch", "equal lengths\nonly, never\npadded"),
    ("embed", "feature map,\nits mean,\nprobabilities"),
    ("write", "a JSON per ECG\nor Parquet\nshards"),
    ("ledger", "outcome of\neach record,\nwith reasons"),
)


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    folder.mkdir(parents=True, exist_ok=True)
    # Text elements keep the files small; a fixed salt makes the names in them reproducible.
    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ecgfounder", "font.family": "sans-serif"})
    with tempfile.TemporaryDirectory() as temporary:
        demo = write_demo(Path(temporary))
        recording = read_ecg(demo.data_dir / CALIBRATED)
        inspected = str(demo.data_dir / INSPECTED)
        if cli.main(["inspect", inspected, "--plot", str(folder / "paper.png")]):
            raise SystemExit(f"{INSPECTED} cannot be drawn")
        embedder = load(checkpoint=demo.checkpoint)
        _save(_first(folder / "paper.png", embedder.embed(inspected)), folder / "first.png")
    _save(_flow(), folder / "flow.svg")
    _save(_recipes(recording), folder / "recipes.png")
    for name in ("first.png", "recipes.png", "paper.png"):
        _few_colours(folder / name)


def _save(figure: Any, path: Path) -> None:
    unwanted = dict.fromkeys(("Date", "Creator", "Format", "Type")) if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, facecolor="white", bbox_inches="tight", dpi=120, metadata=unwanted)
    plt.close(figure)


def _few_colours(path: Path) -> None:
    """Store a drawing with 128 colours, which needs a third of the space and looks the same."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(128).save(path, optimize=True, dpi=image.info.get("dpi"))


def _first(drawing: Path, feature_map: Any) -> Any:
    """An ECG as `ecgfounder inspect` draws it, and its feature map below the rhythm strip, token by token."""
    with Image.open(drawing) as image:
        pixels_per_second = image.info["dpi"][0] / 25.4 * 25  # at 25 mm/s
        grey = image.convert("L")
        left, top, right, bottom = grey.point(lambda value: 255 * (value < 250)).getbbox()
        pixels = np.asarray(image.convert("RGB").crop((left, top, right, bottom)))
        dark = np.flatnonzero((np.asarray(grey)[(top + bottom) // 2 :, left:right] < 90).any(axis=0))
    height, width = pixels.shape[:2]
    inches = 10 * height / width  # the squares of the paper stay squares
    total = inches + 3.2
    figure = plt.figure(figsize=(10, total))
    paper = figure.add_axes((0.0, 2.7 / total, 1.0, inches / total))
    paper.imshow(pixels, aspect="auto")
    paper.axis("off")
    ends = dark[-1] / width
    begins = ends - 10 * pixels_per_second / width
    tokens = figure.add_axes((begins, 0.3 / total, ends - begins, 1.9 / total))
    values = np.asarray(feature_map)
    scaled = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    seconds = 0.512 * len(values)
    tokens.imshow(
        scaled.T[:SHOWN],
        aspect="auto",
        cmap="PuOr",
        vmin=-2.5,
        vmax=2.5,
        interpolation="nearest",
        extent=(0, seconds, 0, 1),
    )
    tokens.set_xlim(0, 10)
    tokens.set_xticks(range(11), [f"{second} s" for second in range(11)])
    tokens.set_yticks([])
    tokens.tick_params(labelsize=9, length=3)
    tokens.spines[:].set_visible(False)
    for token in range(1, len(values)):
        tokens.axvline(0.512 * token, color="white", lw=1.6)
    for y, text in (
        (1 - 0.3 / total, "an ECG file"),
        (
            2.3 / total,
            f"its embedding: {len(values)} tokens of 1024 numbers ({SHOWN} of them are shown), one per 0.512 s",
        ),
    ):
        figure.text(begins, y, text, size=12, weight="bold", color=TRACE)
    return figure


def _flow() -> Any:
    """A run's stages as boxes with arrows between them."""
    figure, axes = plt.subplots(figsize=(11.5, 1.7))
    axes.set_xlim(0, len(STAGES))
    axes.set_ylim(0, 1)
    axes.axis("off")
    for place, (name, what) in enumerate(STAGES):
        box = FancyBboxPatch(
            (place + 0.07, 0.06), 0.78, 0.88, boxstyle="round,pad=0,rounding_size=0.06", fc=PAPER, ec=TRACE, lw=1.2
        )
        axes.add_patch(box)
        axes.text(place + 0.46, 0.78, name, ha="center", va="center", weight="bold", size=12, color=TRACE)
        axes.text(place + 0.46, 0.36, what, ha="center", va="center", size=7.8, color=INK, linespacing=1.4)
        if place:
            arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.2}
            axes.annotate("", xy=(place + 0.07, 0.5), xytext=(place - 0.15, 0.5), arrowprops=arrow)
    return figure


def _recipes(recording: Recording) -> Any:
    """Lead II of one recording as recorded, and after each recipe."""
    lead = recording.leads.index("II")
    rows = [
        ("as recorded: 11 s; the last second has a calibration pulse", None),
        ("zscore: the same shape; the pulse affects mean and standard deviation", Preparation()),
        ("zscore, --window 10: without the pulse, the amplitude is larger", Preparation(window=10.0)),
        (
            "filtered, --window 10: no baseline wander, no noise; the running median causes dips beside the waves",
            Preparation(recipe=RECIPES["filtered"], window=10.0),
        ),
        (
            "paper: less wander and noise; the second window (red) is 1 s of signal and 9 s of zeros",
            Preparation(recipe=RECIPES["paper"]),
        ),
    ]
    figure, panels = plt.subplots(len(rows), 1, figsize=(9.5, 8.6), sharex=True)
    for panel, (title, preparation) in zip(panels, rows, strict=True):
        if preparation is None:
            windows = [recording.samples[lead]]
        else:
            windows = [window[lead] for window in prepare(recording, preparation).inputs]
        for number, samples in enumerate(windows):
            times = 10 * number + np.arange(len(samples)) / 500
            shown = times < 11
            panel.plot(times[shown], samples[shown], color=TRACE if number == 0 else ACCENT, lw=0.8)
        panel.set_title(title, loc="left", size=9, color=INK)
        panel.set_ylabel("mV" if preparation is None else "SD", size=8)
        if preparation is not None:
            panel.set_ylim(-4.5, 7.5)  # the same for all, so that scales can be compared
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color=PAPER, lw=0.8)
    panels[-1].set_xlim(0, 11)
    panels[-1].set_xlabel("s", size=8)
    figure.align_ylabels()
    figure.tight_layout()
    return figure


if __name__ == "__main__":
    main(sys.argv[1:])
