"""`ecgfounder compare`: what differs between two runs, and how far the embeddings of the same recordings agree.

In: arguments. Out: a summary on standard output, a folder with tables, and an exit status.
"""

from __future__ import annotations

import argparse

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import OK, Terminal
from ecgfounder.storage import locate, output_place, storage_options


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder compare`."""
    add = parser.add_argument
    add("a", metavar="RUN_A", help="output folder of a run, or its URL (s3://, gs://, az://)")
    add("b", metavar="RUN_B", help="output folder of the run that is compared with it")
    add("--output_dir", required=True, help="new folder for the tables, or a URL")
    add(
        "--on",
        metavar="COLUMN",
        help="column that names a recording in both runs, e.g. input_sha256 (default: the record)",
    )
    add("--group", metavar="COLUMN", help="kept column of RUN_A with the patient (default: each recording by itself)")
    add("-k", type=int, default=10, help="number of nearest neighbours (default: %(default)s)")
    add(
        "--sample",
        type=int,
        default=3000,
        metavar="N",
        help="recordings for CKA, neighbours and reference distributions (default: %(default)s)",
    )
    add(
        "--permutations", type=int, default=99, help="permutations of the groups for a reference (default: %(default)s)"
    )
    add("--n_draws", type=int, default=200, help="draws of groups for an interval (default: %(default)s)")
    add("--seed", type=int, default=0, help="seed of everything that is random (default: %(default)s)")
    add("--allow_incomplete", action="store_true", help="compare what there is of runs that are not complete")
    add_storage_argument(parser)


def run_compare(arguments: argparse.Namespace) -> int:
    """Compare two runs, write the tables and print a summary; returns the exit status 0.

    Raises
    ------
    ECGFounderError
        As `ecgfounder.analysis.compare` does.
    """
    from ecgfounder.analysis.comparison.compare import MARKER, CompareSettings, compare, write_comparison
    from ecgfounder.analysis.pages.tables import check_results_folder
    from ecgfounder.results import open_run

    settings = CompareSettings(
        on=arguments.on,
        group=arguments.group,
        k=arguments.k,
        sample=arguments.sample,
        permutations=arguments.permutations,
        n_draws=arguments.n_draws,
        seed=arguments.seed,
    )
    options = storage_options(arguments.storage_options)
    folder = locate(output_place(arguments.output_dir, options))
    check_results_folder(folder, MARKER)
    a, b = (
        open_run(each, allow_incomplete=arguments.allow_incomplete, storage_options=options)
        for each in (arguments.a, arguments.b)
    )
    console = Terminal()
    comparison = compare(a, b, settings=settings, say=console.line)
    write_comparison(comparison, folder)
    print(comparison)
    console.line(f"{folder} has the tables; moves.csv lists the recordings that move most ({comparison.seconds:.0f} s)")
    return OK
