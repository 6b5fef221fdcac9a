"""`ecgfounder duplicates`: recordings that are there more than once, in a run or in several.

In: arguments. Out: a summary on standard output, a folder with tables and a page, and an exit status.
"""

from __future__ import annotations

import argparse

from ecgfounder.commands.analysis_arguments import add_analysis_arguments, label_table, opened_runs
from ecgfounder.commands.terminal import OK, Terminal
from ecgfounder.storage import locate, output_place, storage_options


def add_duplicates_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder duplicates`."""
    add_analysis_arguments(parser)
    add = parser.add_argument_group("search").add_argument
    add("--split", nargs="+", default=[], metavar="COLUMN", help="columns of splits or sites that should share nothing")
    add(
        "--false_pairs",
        type=float,
        default=1.0,
        metavar="N",
        help="pairs of different patients that are expected above the threshold in the whole search (default: %(default)s)",
    )
    add("-k", type=int, default=10, help="pairs of each recording that are looked at (default: %(default)s)")
    add("--no_signals", action="store_true", help="do not read the files again to compare signals")
    add(
        "--most_signals",
        type=int,
        default=20_000,
        metavar="N",
        help="pairs whose signals may be compared (default: %(default)s)",
    )
    add("--data_dir", help="folder that the paths are relative to, if the cohort was moved since")


def run_duplicates(arguments: argparse.Namespace) -> int:
    """Search, write the tables and the page, and print a summary; returns the exit status 0.

    Raises
    ------
    ECGFounderError
        As `ecgfounder.analysis.duplicates` does.
    """
    from ecgfounder.analysis.duplication.duplicates import DuplicateSettings, duplicates
    from ecgfounder.analysis.duplication.duplicates_report import MARKER, write_duplicates
    from ecgfounder.analysis.pages.tables import check_results_folder

    settings = DuplicateSettings(
        group=arguments.group,
        split=tuple(arguments.split),
        false_pairs=arguments.false_pairs,
        k=arguments.k,
        signals=not arguments.no_signals,
        most_signals=arguments.most_signals,
        data_dir=arguments.data_dir,
    )
    options = storage_options(arguments.storage_options)
    folder = locate(output_place(arguments.output_dir, options))
    check_results_folder(folder, MARKER)
    console = Terminal()
    found = duplicates(
        opened_runs(arguments, console),
        labels=label_table(arguments),
        on=arguments.on,
        where=arguments.where,
        exclude_flags=arguments.exclude_flags,
        settings=settings,
        storage_options=dict(options.items),
        say=console.line,
    )
    write_duplicates(found, folder)
    print(found)
    console.line(f"{folder} has the tables and report.html; recordings.csv says which to keep ({found.seconds:.0f} s)")
    return OK
