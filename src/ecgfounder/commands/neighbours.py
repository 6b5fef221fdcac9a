"""`ecgfounder neighbours`: the recordings that are most similar to files, to recordings of a run, or to each recording of a run.

In: arguments. Out: tables, printed or in a folder, and an exit status.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ecgfounder.commands.analysis_arguments import add_analysis_arguments, label_table, network_of, opened_runs
from ecgfounder.commands.terminal import OK, SOME_FAILED, Terminal
from ecgfounder.errors import ECGFounderError, RunError, SettingsError, StorageError
from ecgfounder.escaping import counted, one_line
from ecgfounder.storage import Location, locate, output_place, storage_options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ecgfounder.analysis import Neighbours
    from ecgfounder.results import EmbeddingRun, EmbeddingRuns

_SHOWN_HUBS = 5


def add_neighbours_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder neighbours`."""
    add_analysis_arguments(parser, writes=False)
    add = parser.add_argument_group("search").add_argument
    add("--query", nargs="+", default=[], metavar="FILE", help="ECG files whose neighbours are looked for")
    add("--record", nargs="+", default=[], metavar="NAME", help="recordings of the run whose neighbours are looked for")
    add("-k", type=int, default=10, help="neighbours of each (default: %(default)s)")
    add("--whiten", action="store_true", help="divide principal directions by their deviations first")
    add(
        "--index",
        choices=("auto", "use", "none"),
        default="auto",
        help="an index on disk makes later searches fast: auto uses one that is there, and builds one to search for all "
        "recordings (default); use builds it; none reads all embeddings",
    )
    add = parser.add_argument_group("network, for --query").add_argument
    add("--checkpoint", metavar="PATH", help="the checkpoint of the run; default: the published one")
    add("--engine", default="auto", help="auto, native, onnx, torch or triton (default: %(default)s)")
    add("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")


def run_neighbours(arguments: argparse.Namespace) -> int:
    """Search and report; exit status 1 if a file could not be embedded."""
    from ecgfounder.analysis import neighbours
    from ecgfounder.analysis.pages.tables import check_results_folder

    console = Terminal()
    if arguments.query and arguments.record:
        raise SettingsError("Invalid value for the 'query' parameter. It cannot be combined with 'record'.")
    if not (arguments.query or arguments.record or arguments.output_dir):
        raise SettingsError(
            "Invalid value for the 'output_dir' parameter. Without 'query' and 'record', the neighbours of all recordings are "
            "looked for, which needs a folder for them."
        )
    out = None
    if arguments.output_dir is not None:
        out = locate(output_place(arguments.output_dir, storage_options(arguments.storage_options)))
        check_results_folder(out, "neighbours.pq")
    run = opened_runs(arguments, console)
    x: Sequence[str] | npt.NDArray[np.floating] | None = arguments.record or None
    names: list[str] | None = None
    if arguments.query:
        names, x = _embedded(run, arguments, console)
        if not names:
            return SOME_FAILED
    found = neighbours(
        run,
        x,
        k=arguments.k,
        whiten=arguments.whiten,
        labels=label_table(arguments),
        on=arguments.on,
        group=None if arguments.query else arguments.group,
        where=arguments.where,
        exclude_flags=arguments.exclude_flags,
        index={"auto": None, "use": True, "none": False}[arguments.index],
        names=names,
    )
    if x is None:
        _report_all(found, console)
    else:
        _report(found)
    if out is not None:
        _write(found, out, console)
    return SOME_FAILED if names is not None and len(names) < len(arguments.query) else OK


def _embedded(
    run: EmbeddingRun | EmbeddingRuns, arguments: argparse.Namespace, console: Terminal
) -> tuple[list[str], npt.NDArray[np.floating]]:
    """The names and embeddings of the files that can be embedded."""
    import numpy as np

    embedder, hints = network_of(run, arguments)
    names, embeddings = [], []
    for path in arguments.query:
        try:
            embedding = embedder.embed(
                path, pooling="mean", sampling_rate=hints["sampling_rate"], unit=hints["unit"], leads=hints["leads"]
            )
        except ECGFounderError as error:
            console.line(f"FAILED {one_line(path)}: {error}")
            continue
        names.append(Path(path).name)
        embeddings.append(np.asarray(embedding).reshape(-1, np.shape(embedding)[-1]).mean(axis=0))
    return names, np.array(embeddings)


def _report(found: Neighbours) -> None:
    columns = found.table.to_pylist()
    for query in found.queries:
        print(
            f"{one_line(query)}: {found.rows.shape[1]} nearest of {counted(found.records.num_rows, 'recording')}, {found.how}"
        )
        for row in (row for row in columns if row["query"] == query):
            hub = ""
            if row.get("in_lists", 0) and found.lists is not None and _is_hub(found, row["in_lists"]):
                hub = f"   near to many: among the {found.n_each} nearest of {row['in_lists']:,} of {found.n_lists:,}"
            print(f"  {row['rank']:>3}  {row['similarity']:7.4f}  {one_line(row['record'])}{hub}")


def _is_hub(found: Neighbours, count: int) -> bool:
    return bool(len(found.hubs)) and found.lists is not None and count >= found.lists[found.hubs].min()


def _report_all(found: Neighbours, console: Terminal) -> None:
    n, k = found.rows.shape
    print(f"the {k} nearest of each of {counted(n, 'recording')}, {found.how}")
    skewness, orphans = found.skewness, found.orphans
    if skewness is not None and orphans is not None:
        print(
            f"among the nearest of others: {1 - orphans:.1%} of the recordings; skewness of the number of lists {skewness:.2f}"
        )
    for row in found.hub_table().slice(0, _SHOWN_HUBS).to_pylist():
        print(f"  near to many: {one_line(row['record'])}, in {row['in_lists']:,} lists")
    if len(found.hubs) > _SHOWN_HUBS:
        console.line(f"{len(found.hubs) - _SHOWN_HUBS:,} more are near to many; hubs.csv has all")


def _write(found: Neighbours, out: Location, console: Terminal) -> None:
    from ecgfounder.analysis.pages.tables import write_table
    from ecgfounder.storage.replace import make_folders

    try:
        if out.is_local:
            make_folders(Path(out.path.anchor), out.path)
        write_table(found.table, out, "neighbours")
        if found.lists is not None:
            write_table(found.hub_table(), out, "hubs")
    except (OSError, StorageError) as error:
        raise RunError(f"{out} could not be written: {error}") from error
    console.line(f"Tables in {out}: neighbours{', hubs' if found.lists is not None else ''} (.pq and .csv)")
