"""`ecgfounder drift`: what embeddings know about how recordings were made, and what that does to the prediction of labels.

In: arguments. Out: a folder with tables and a page, a summary on standard output, and an exit status.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ecgfounder.commands.analysis_arguments import add_analysis_arguments, label_table, opened_runs
from ecgfounder.commands.terminal import OK, Terminal
from ecgfounder.storage import locate, output_place, storage_options

if TYPE_CHECKING:
    from ecgfounder.analysis import DriftSettings


def add_drift_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder drift`."""
    add_analysis_arguments(parser)
    add = parser.add_argument_group("factors").add_argument
    add(
        "--by",
        nargs="+",
        required=True,
        metavar="COLUMN",
        help="columns on the acquisition, e.g. site device_model year",
    )
    add("--as_levels", nargs="+", default=[], metavar="COLUMN", help="those whose numbers are names, e.g. of sites")
    add(
        "--as_number", nargs="+", default=[], metavar="COLUMN", help="those that are numbers, with few different values"
    )
    add = parser.add_argument_group("predicted labels").add_argument
    add(
        "--label",
        action="append",
        default=[],
        metavar="NAME",
        help="column of 0 and 1, or code of --codes; may be repeated",
    )
    add("--codes", metavar="COLUMN", help="column with lists or dictionaries of codes, e.g. scp_codes of PTB-XL")
    add = parser.add_argument_group("statistics").add_argument
    add("--features", default="mean", help="mean, mean_std (over tokens) or leads (default: %(default)s)")
    add("--folds", type=int, default=5, help="folds by patient (default: %(default)s)")
    add("--sample", type=int, default=5000, metavar="N", help="patients that are used at most (default: %(default)s)")
    add("--permutations", type=int, default=999, help="permutations for the p-value (default: %(default)s)")
    add("--chance", type=int, default=5, help="permutations for the probe's chance level (default: %(default)s)")
    add(
        "--random_directions",
        type=int,
        default=5,
        help="how often random directions are removed beside the factor's; 0 leaves the removal out (default: %(default)s)",
    )
    add("--n_draws", type=int, default=1000, help="draws of patients for an interval (default: %(default)s)")


def settings_of(arguments: argparse.Namespace) -> DriftSettings:
    """The settings from parsed arguments."""
    from ecgfounder.analysis import DriftSettings

    return DriftSettings(
        by=tuple(arguments.by),
        as_levels=tuple(arguments.as_levels),
        as_number=tuple(arguments.as_number),
        label=tuple(arguments.label),
        codes=arguments.codes,
        on=arguments.on,
        group=arguments.group,
        where=arguments.where,
        exclude_flags=tuple(arguments.exclude_flags),
        features=arguments.features,
        folds=arguments.folds,
        sample=arguments.sample,
        permutations=arguments.permutations,
        chance=arguments.chance,
        random_directions=arguments.random_directions,
        n_draws=arguments.n_draws,
        seed=arguments.seed,
    )


def run_drift(arguments: argparse.Namespace) -> int:
    """Measure drift, write the results and print a summary; returns the exit status 0.

    Raises
    ------
    ECGFounderError
        As `ecgfounder.analysis.drift` does.
    """
    settings = settings_of(arguments)
    from ecgfounder.analysis import drift
    from ecgfounder.analysis.acquisition.drift_report import MARKER, write_drift
    from ecgfounder.analysis.pages.tables import check_results_folder

    console = Terminal()
    folder = locate(output_place(arguments.output_dir, storage_options(arguments.storage_options)))
    check_results_folder(folder, MARKER)
    result = drift(opened_runs(arguments, console), label_table(arguments), settings=settings, say=console.line)
    write_drift(result, folder)
    for reason, number in result.selection.left_out.items():
        if number:
            console.line(f"Left out: {number:,} ({reason})")
    print(result)
    console.line(f"{folder / 'report.html'} shows all figures; the tables are beside it ({result.seconds:.0f} s)")
    return OK
