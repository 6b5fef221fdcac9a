"""Draw the documentation's figures: `python docs/figures/make_figures.py [FOLDER]`.

In: the package's demo recordings. Out: flow.svg, recipes.png and paper.png in FOLDER (this one by default).
Needs matplotlib (`pip install 'ecgfounder[report]'`); the same matplotlib gives the same bytes.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from ecgfounder import RECIPES, Preparation, Recording, prepare, read_ecg
from ecgfounder.demo.demo import write_demo_cohort
from ecgfounder.ecg.plot import plot_recording

CALIBRATED = "patient_006/ecg_0007.xml"
"""The demo's recording of 11 s, which ends with a calibration pulse, as from a Philips cardiograph."""

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
    with tempfile.TemporaryDirectory() as cohort:
        write_demo_cohort(Path(cohort))
        recording = read_ecg(Path(cohort) / "ecg" / CALIBRATED)
    _save(_flow(), folder / "flow.svg")
    _save(_recipes(recording), folder / "recipes.png")
    plot_recording(replace(recording, samples=recording.samples[:, :5000]), folder / "paper.png")
    for name in ("recipes.png", "paper.png"):
        _few_colours(folder / name)


def _save(figure: Any, path: Path) -> None:
    unwanted = dict.fromkeys(("Date", "Creator", "Format", "Type")) if path.suffix == ".svg" else {"Software": None}
    figure.savefig(path, facecolor="white", bbox_inches="tight", dpi=120, metadata=unwanted)
    plt.close(figure)


def _few_colours(path: Path) -> None:
    """Store a drawing with 128 colours, which needs a third of the space and looks the same."""
    with Image.open(path) as image:
        image.convert("RGB").quantize(128).save(path, optimize=True, dpi=image.info.get("dpi"))


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
