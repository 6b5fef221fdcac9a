"""`ecgfounder report`: one HTML page about a run, fit for a methods supplement.

In: arguments. Out: a folder with the page and its figures, and an exit status.
"""

from __future__ import annotations

import argparse

from ecgfounder.commands.analysis_arguments import add_analysis_arguments, label_table, opened_runs
from ecgfounder.commands.terminal import OK, Terminal
from ecgfounder.storage import folder_text, locate, output_place, storage_options


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder report`."""
    add_analysis_arguments(parser, run_names="--run_names")
    add = parser.add_argument_group("what the page shows").add_argument
    add("--by", nargs="+", default=[], metavar="COLUMN", help="columns for tables and maps, e.g. site year")
    add("--label", nargs="+", default=[], metavar="COLUMN", help="columns with labels, for tables and maps")
    add("--include", nargs="+", default=[], metavar="DIR", help="results of probe, drift, duplicates and compare")
    add("--names", action="store_true", help="show names of recordings: outliers, failures, flags")
    add("--drawings", action="store_true", help="show a few ECGs of each flag and reason of failure, on paper")
    add("--data_dir", metavar="DIR", help="folder of the cohort's files for --drawings, if it has moved since the run")
    add(
        "--sample",
        type=int,
        default=50_000,
        metavar="N",
        help="recordings whose embeddings are read, for norms and maps (default: %(default)s)",
    )
    add(
        "--map",
        choices=("auto", "pca", "umap"),
        default="auto",
        help="pca: directions of most variance; umap: UMAP, too; auto: UMAP where umap-learn is installed (default)",
    )


def run_report(arguments: argparse.Namespace) -> int:
    """Write the page; returns the exit status 0.

    Raises
    ------
    ECGFounderError
        As `ecgfounder.analysis.report` does.
    """
    from ecgfounder.analysis import ReportSettings, report
    from ecgfounder.analysis.pages.tables import check_results_folder
    from ecgfounder.analysis.reporting.drawings import draw
    from ecgfounder.analysis.reporting.included import read_included
    from ecgfounder.analysis.reporting.report_page import MARKER, PAGE, write_report_page

    settings = ReportSettings(
        on=arguments.on,
        group=arguments.group,
        where=arguments.where,
        exclude_flags=tuple(arguments.exclude_flags),
        by=tuple(arguments.by),
        label=tuple(arguments.label),
        sample=arguments.sample,
        map=arguments.map,
        names=arguments.names,
        drawings=arguments.drawings,
        seed=arguments.seed,
    )
    console = Terminal()
    options = storage_options(arguments.storage_options)
    folder = locate(output_place(arguments.output_dir, options))
    check_results_folder(folder, MARKER)
    data_dir = None if arguments.data_dir is None else folder_text(arguments.data_dir, options)
    included = [read_included(locate(output_place(each, options))) for each in arguments.include]
    run = opened_runs(arguments, console)
    found = report(run, label_table(arguments), settings=settings, included=included, say=console.line)
    drawings, n_unread = draw(found, data_dir, options) if settings.drawings else ([], 0)
    write_report_page(found, folder, drawings, n_unread)
    console.line(f"{folder / PAGE} is the page; its figures are beside it")
    return OK
