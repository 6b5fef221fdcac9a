"""The results as Markdown tables; `python -m benchmarks.report [RESULTS] [DOCUMENT]` writes them between a page's markers.

In: the JSON that `python -m benchmarks` writes. Out: tables.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

Facts = dict[str, Any]


def tables(results: Facts) -> str:
    """All parts that were measured, as Markdown."""
    parts = [_machine(results)]
    parts += [render(results["parts"][name]) for name, render in _RENDERERS.items() if name in results["parts"]]
    return "\n\n".join(parts)


def insert(document: str, rendered: str) -> str:
    """A page with the text between its markers replaced.

    Raises
    ------
    ValueError
        If the markers are missing.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected the markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{rendered}\n\n{END}{after}"


def _table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"### {title}", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _spread(facts: Facts) -> str:
    """Median, and the range if there are several measurements."""
    if facts["n"] == 1:
        return _number(facts["median"])
    return f"{_number(facts['median'])} ({_number(facts['min'])} to {_number(facts['max'])})"


def _machine(results: Facts) -> str:
    machine, sizes = results["machine"], results["sizes"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB{gpu}; {machine['system']}; "
        f"load before and after {machine['load_before']:.2f} and {machine['load_after']:.2f}. {versions}. "
        f"Medians of {sizes['rounds']} rounds, with the smallest and the largest."
    )


def _end_to_end(facts: Facts) -> str:
    rows = [
        ("baseline, ECG/s without start-up", "plain_ecg_per_second"),
        ("baseline, start-up, s", "plain_start_seconds"),
        ("baseline, core-ms per ECG, in total", "plain_core_ms"),
        ("`ecgfounder embed`, ECG/s without start-up", "ecg_per_second"),
        ("`ecgfounder embed`, whole run, s", "whole_seconds"),
        ("`ecgfounder embed`, start-up and end, s", "start_seconds"),
        ("`ecgfounder embed`, core-ms per ECG, in total", "core_ms"),
        ("first embedding after the command, warm cache, s", "first_embedding_seconds"),
        ("**speed ratio, with start-up**", "times_with_start"),
        ("**speed ratio, without start-up**", "times_without_start"),
        ("float32 peak of all cores (matrix product), GFLOP/s", "peak_gflops"),
        ("**share of that peak, end to end**", "share_of_peak"),
    ]
    title = (
        f"End to end: {facts['recordings']:,} recordings of 11 s (baseline: {facts['baseline_recordings']}), float32"
    )
    limit = (
        f"The network takes {facts['network_gflop']:.3f} GFLOP per recording, so that the peak allows "
        f"{facts['limit_ecg_per_second']:.0f} ECG/s. Largest relative difference between the embeddings of both: "
        f"{facts['largest_relative_difference']:.1e}."
    )
    return _table(title, ("", "median (range)"), [(name, _spread(facts[key])) for name, key in rows]) + f"\n\n{limit}"


def _stages(facts: Facts) -> str:
    rows = [(name, _spread(value)) for name, value in facts["core_ms"].items()]
    return _table("Each stage alone, in one thread", ("stage", "core-ms per ECG"), rows)


def _engines(facts: Facts) -> str:
    header = (
        "engine",
        "precision",
        "device",
        "batch",
        "samples",
        "inputs/s",
        "speed ratio to torch float32",
        "relative error",
    )
    rows = [
        (
            row["engine"],
            row["precision"],
            row["device"],
            str(row["batch"]),
            str(row["length"]),
            _spread(row["inputs_per_second"]),
            _spread(row["times_torch_float32"]),
            f"{row['relative_error']:.1e}",
        )
        for row in facts["rows"]
    ]
    return _table(f"Engines, {facts['threads']} calling threads", header, rows)


def _growth(facts: Facts) -> str:
    columns = {
        "ms each": "ms_per_record",
        "core-ms each, with start-up": "core_ms",
        "main process, MiB": "memory_mib",
        "largest reader, MiB": "reader_memory_mib",
        "resumed: time to the first record, s": "resumed_first_job_seconds",
        "main process then, MiB": "resumed_memory_mib",
    }
    rows = [(f"{row['recordings']:,}", *(_spread(row[key]) for key in columns.values())) for row in facts["rows"]]
    return _table("Growth: synthetic recordings, no network, Parquet", ("recordings", *columns), rows)


def _null_engine(facts: Facts) -> str:
    rows = [
        ("ECG/s", "ecg_per_second"),
        ("core-ms per ECG: read, prepare, transfer, write", "core_ms"),
        ("start-up, core-s", "start_core_seconds"),
        ("the baseline's reading, z-score and writing, core-ms", "plain_core_ms"),
        ("**ratio**", "times_plain"),
    ]
    title = f"The pipeline without a network: {facts['recordings']:,} Philips files to JSON"
    return _table(title, ("", "median (range)"), [(name, _spread(facts[key])) for name, key in rows])


def _latency(facts: Facts) -> str:
    title = "Object stores with latency, without a network, pooled Parquet"
    if not facts["rows"]:
        return f"### {title}\n\n{facts['skipped']}"
    rows = [
        (
            row["what"],
            "a folder" if row["delay"] is None else f"{1e3 * row['delay']:g} ms",
            _spread(row["ecg_per_second"]),
            _spread(row["core_ms"]),
        )
        for row in facts["rows"]
    ]
    return _table(title, ("files", "latency", "ECG/s", "core-ms per ECG, with start-up"), rows)


def _scaling(facts: Facts) -> str:
    rows = [
        ("one process on one core, ECG/s", "one_ecg_per_second"),
        ("two shards, a core each, ECG/s", "two_ecg_per_second"),
        ("**speed ratio**", "times"),
    ]
    return _table(
        "From one process to two", ("", "median (range)"), [(name, _spread(facts[key])) for name, key in rows]
    )


def _starting(facts: Facts) -> str:
    return _table("Start-up", ("", "median (range)"), [("`ecgfounder --help`, s", _spread(facts["help_seconds"]))])


_SEARCHES = {
    "query": "the 10 nearest of one, all embeddings read",
    "build": "the same, and an index built",
    "indexed": "the same with the index",
    "bulk": "the 10 nearest of all, with the index",
    "duplicates": "duplicates, without the signals",
}


def _analysis(facts: Facts) -> str:
    rows = [
        (
            f"{row['recordings']:,}",
            _SEARCHES[row["what"]],
            *(_spread(row[name]) for name in ("seconds", "core_seconds", "memory_mib")),
            row["found"],
        )
        for row in facts["rows"]
    ]
    header = ("recordings", "search", "s", "core-s", "memory, MiB", "found")
    return _table("Searches in embeddings: synthetic, float16 [1024] in Parquet, one process", header, rows)


def _gpu(facts: Facts) -> str:
    card = facts["card"]
    peaks = ", ".join(f"{name} {_number(value)}" for name, value in card["peak_tflops"].items())
    title = f"The GPU: {card['name']}" if "name" in card else "The GPU: none here; measured on the CPU where possible"
    clocks = (
        f" Clocks, power, temperature before: {card['clocks_before']}; after: {card['clocks_after']}."
        if "name" in card
        else ""
    )
    header = (
        "measurement",
        "precision",
        "batch",
        "samples",
        "recordings/s",
        "TFLOP/s",
        "of the peak",
        "relative error",
        "same bytes",
        "notes",
    )
    rows = [
        (
            row["what"],
            row.get("precision", ""),
            str(row.get("batch", "")),
            str(row.get("length", "")),
            _spread(row["per_second"]) if "per_second" in row else "",
            _number(row["tflops"]) if "tflops" in row else "",
            f"{row['share_of_peak']:.0%}" if "share_of_peak" in row else "",
            f"{row['relative_error']:.1e}" if "relative_error" in row else "",
            {True: "yes", False: "no"}.get(row.get("same_bytes", ""), ""),
            row["skipped"] if "skipped" in row else row.get("note", ""),
        )
        for row in facts["rows"]
    ]
    peak = f"Peaks of a matrix product, TFLOP/s: {peaks}.{clocks}"
    return _table(title, header, rows) + f"\n\n{peak}"


def _drift(facts: Facts) -> str:
    header = ("Drift by site", "Recordings", "Used", "Core-s", "Wall, s", "Peak memory, MiB", "of it embeddings")
    rows = [
        (
            row["what"],
            f"{row['recordings']:,} of {row['patients']:,} patients",
            f"{row['used_recordings']:,} of {row['used_patients']:,} patients",
            *(_number(row[name]) for name in ("cpu_seconds", "wall_seconds", "memory_mib", "embeddings_mib")),
        )
        for row in facts["rows"]
    ]
    return _table(f"Drift, {facts['features']:,} features, one core", header, rows)


def _probe(facts: Facts) -> str:
    header = (
        "Probe",
        "Recordings",
        "Labels, penalties, draws",
        "Core-s",
        "Wall, s",
        "Peak memory, MiB",
        "of it embeddings",
    )
    rows = [
        (
            row["what"],
            f"{row['recordings']:,} of {row['patients']:,} patients",
            f"{row['labels']}, {row['penalties']}, {row['draws']:,}",
            *(_number(row[name]) for name in ("cpu_seconds", "wall_seconds", "memory_mib", "embeddings_mib")),
        )
        for row in facts["rows"]
    ]
    return _table(f"Linear probe, {facts['features']:,} features, one core", header, rows)


def _report(facts: Facts) -> str:
    header = ("Recordings", "Core-s", "Wall, s", "Peak memory, MiB", "Page, MB")
    names = ("cpu_seconds", "wall_seconds", "memory_mib", "page_mb")
    rows = [(f"{row['recordings']:,}", *(_number(row[name]) for name in names)) for row in facts["rows"]]
    return _table("A report by site and year, without UMAP", header, rows)


_SEEN = {
    "usable_seconds": "s from opening the page to the first frame with all recordings",
    "move_ms": "ms from frame to frame while the map is moved",
    "move_core_ms": "core-ms of the page's process for such a frame",
    "zoom_ms": "ms from frame to frame while it is zoomed",
    "zoom_core_ms": "core-ms of the page's process for such a frame, zoomed",
    "recolour_ms": "ms to colour by another column that has arrived, and to draw",
    "lasso_ms": "ms from the end of a lasso to the frame that shows the selection",
    "composition_seconds": "s from a selection to its composition",
    "renderer_mb": "MB of the browser's process of the page",
}


def _viewer(facts: Facts) -> str:
    if not facts["rows"]:
        return "### The viewer's page: no Chromium is installed"
    sizes = [f"{row['recordings']:,} recordings" for row in facts["rows"]]
    rows = [(what, *(_spread(row[name]) for row in facts["rows"])) for name, what in _SEEN.items()]
    return _table("The viewer's page in a headless Chromium with software rendering", ("", *sizes), rows)


_RENDERERS: dict[str, Callable[[Facts], str]] = {
    "end_to_end": _end_to_end,
    "null_engine": _null_engine,
    "stages": _stages,
    "engines": _engines,
    "growth": _growth,
    "scaling": _scaling,
    "starting": _starting,
    "latency": _latency,
    "analysis": _analysis,
    "gpu": _gpu,
    "drift": _drift,
    "probe": _probe,
    "report": _report,
    "viewer": _viewer,
}


def main(arguments: Sequence[str] | None = None) -> int:
    given = [Path(argument) for argument in (sys.argv[1:] if arguments is None else arguments)]
    defaults = [Path("build/benchmarks/results.json"), Path("docs/performance.md")]
    results, document = given + defaults[len(given) :]
    rendered = tables(json.loads(results.read_text(encoding="utf-8")))
    document.write_text(insert(document.read_text(encoding="utf-8"), rendered), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
