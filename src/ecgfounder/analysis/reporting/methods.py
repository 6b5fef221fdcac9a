"""How the embeddings were made, for a methods section: settings, versions, checkpoint, a paragraph, what to cite.

In: an opened run. Out: rows of a table, and sentences. Only settings of a closed list are told: no path, no name of a
dataset, a column or a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ecgfounder._version import __version__
from ecgfounder.results import EmbeddingRun
from ecgfounder.results.dataset_card import PRETRAINING

VERSIONS = ("python", "numpy", "scipy", "torch", "onnxruntime", "lxml", "pyarrow")
"""The packages whose versions are told."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .+_-]{0,39}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DATE = re.compile(r"\d{4}-\d{2}")

RECIPES = {
    "zscore": "no filter; z-score with one mean and standard deviation over all leads and samples",
    "filtered": "50 Hz notch, 0.67 to 40 Hz Butterworth band-pass, both forwards and backwards, median filter of 0.4 s removed; "
    "z-score",
    "paper": "0.5 Hz high-pass, 50 Hz low-pass, notch, 10 s windows, z-score of each window",
}


def word(value: object) -> str:
    """A setting that is a word or a number; a dash for anything else, which a run record from elsewhere may hold.

    >>> word("zscore"), word(2.5), word(None), word("/home/miller")
    ('zscore', '2.5', '–', '–')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}"
    return value if isinstance(value, str) and _WORD.fullmatch(value) else "–"


def settings_of(run: EmbeddingRun) -> list[tuple[str, str]]:
    """The settings of a run that decide its embeddings, and what it was made with, by name."""
    record, form = run.record, run.record.form
    told = record.fingerprint
    prepared: Mapping[str, Any] = told["preparation"]
    name, version = form.recipe
    rows = [
        ("Network", f"ECGFounder, {word(form.mode)}"),
        ("Checkpoint, SHA-256", checkpoint_of(run)),
        ("Recipe", f"{word(name)}, version {word(version)}{_described(name)}"),
        ("Lead", word(prepared.get("lead"))),
        ("Missing leads", word(prepared.get("missing_leads"))),
        ("Resampling to 500 Hz", word(prepared.get("resampling"))),
        ("Window, s", word(prepared.get("window"))),
        ("Stride, s", word(prepared.get("stride"))),
        ("Incomplete last window", word(prepared.get("remainder"))),
        ("Zero edges cut off", word(prepared.get("trim_zero_edges"))),
        ("Reader", word(told.get("reader"))),
        ("Pooling", word(form.pooling)),
        ("Numbers stored as", word(form.dtype)),
        ("Engine", word(record.engine.name)),
        ("Device", word(record.engine.device.partition(":")[0])),
        ("Precision", word(record.engine.precision)),
        ("Embedded with", f"ecgfounder {word(record.program.version)}"),
        ("Begun", _month(record.started)),
        ("Outcome", word(record.outcome)),
        *((f"Version of {each}", word(record.versions[each])) for each in VERSIONS if each in record.versions),
        ("Report made with", f"ecgfounder {__version__}"),
    ]
    return [row for row in rows if row[1] != "–"]


def checkpoint_of(run: EmbeddingRun) -> str:
    """The hash of the weights."""
    sha256 = str(run.record.fingerprint.get("checkpoint_sha256"))
    return sha256 if _SHA256.fullmatch(sha256) else "–"


def _described(recipe: str) -> str:
    return f" ({RECIPES[recipe]})" if recipe in RECIPES else ""


def _month(time: str) -> str:
    return time[:7] if _DATE.match(time) else "–"


def methods_text(run: EmbeddingRun, counts: str, quality: str) -> list[str]:
    """Paragraphs for a methods section.

    Parameters
    ----------
    run : EmbeddingRun
        The run, or the first of several.
    counts : str
        A sentence about the recordings.
    quality : str
        A sentence about flags and failures.
    """
    record, form = run.record, run.record.form
    prepared: Mapping[str, Any] = record.fingerprint["preparation"]
    name, version = form.recipe
    recipe = f"the recipe {word(name)} (version {word(version)}{'; ' + RECIPES[name] if name in RECIPES else ''})"
    leads = (
        "the 12 standard leads by name, limb leads that were not stored derived from two others"
        if form.mode == "12lead"
        else "every lead by itself"
        if form.every_lead
        else f"lead {word(prepared.get('lead'))}"
    )
    windows = (
        f"in windows of {word(prepared.get('window'))} s every {word(prepared.get('stride'))} s"
        if form.windows
        else f"in a window of {word(prepared.get('window'))} s"
        if prepared.get("window") is not None
        else "over the whole recording"
    )
    channels = "12-lead" if form.mode == "12lead" else "1-lead"
    pooled = {"none": "one vector of 1,024 numbers for every 0.512 s", "mean": "the mean over time, 1,024 numbers"}
    padded = "A last window that was too short was filled with zeros. " if prepared.get("remainder") == "pad" else ""
    resampled = word(prepared.get("resampling"))
    resampling = "resampled" if resampled == "–" else f"{resampled} resampling"
    return [
        f"Embeddings of electrocardiograms were computed with ECGFounder [1], its {channels} network, by the program ecgfounder "
        f"(version {word(record.program.version)}; weights with SHA-256 {checkpoint_of(run)}). {counts}",
        f"Recordings were read in millivolts; the network was given {leads}, at 500 Hz (other rates: {resampling}), "
        f"prepared by {recipe}, {windows}. {padded}The embedding is "
        f"{pooled.get(form.pooling, 'both the vectors over time and their mean')}.",
        f"{quality} {' '.join(PRETRAINING.split())}",
        "[1] Li J, Aguirre AD, Moura Junior V, et al. An Electrocardiogram Foundation Model Built on over 10 Million Recordings. "
        "NEJM AI 2025;2(7). doi:10.1056/AIoa2401033",
    ]
