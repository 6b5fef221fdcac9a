"""The flags that all analysis commands share, and what they open.

In: an argument parser, parsed arguments. Out: the shared flags; the opened run or runs, and the table of labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.errors import SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

    from ecgfounder.commands.terminal import Terminal
    from ecgfounder.results import EmbeddingRun, EmbeddingRuns


def add_analysis_arguments(
    parser: argparse.ArgumentParser, *, writes: bool = True, looks: bool = False, run_names: str = "--names"
) -> None:
    """The flags of all analysis commands.

    `writes` says whether a folder for the results is required. A command that only `looks` has none, draws nothing at random, and
    takes runs that are not complete. `run_names` is what the flag for the names of runs is called.
    """
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a run; several are used as one")
    add = parser.add_argument_group("recordings").add_argument
    what = "names of several runs (default: those of their folders)"
    add(run_names, dest="run_names", nargs="+", metavar="NAME", help=what)
    add("--allow_different", action="store_true", help="use runs together that differ in what decides a vector")
    if looks:
        parser.set_defaults(allow_incomplete=True)
    else:
        add("--allow_incomplete", action="store_true", help="use what there is of runs that are not complete")
    add("--labels", metavar="TABLE", help="table of labels; not needed for columns of --keep_columns")
    add("--on", metavar="COLUMN", help="column that the table and the runs have in common, e.g. study_id")
    add("--group", metavar="COLUMN", help="column with the patient")
    add("--where", metavar="EXPR", help="only these recordings, e.g. 'age >= 18 and not has(flags, \"clipped\")'")
    add("--exclude_flags", nargs="+", default=[], metavar="FLAG", help="leave out recordings with one of these flags")
    if not looks:
        add("--seed", type=int, default=0, help="seed of everything that is random (default: %(default)s)")
        add("--output_dir", required=writes, help="new folder for the results, or a URL")
    add_storage_argument(parser)


def opened_runs(arguments: argparse.Namespace, console: Terminal) -> EmbeddingRun | EmbeddingRuns:
    """The run, or the runs as one; recordings that are in several are named."""
    from ecgfounder.results import open_run
    from ecgfounder.storage import storage_options

    options = storage_options(arguments.storage_options)
    folders: Sequence[str] = arguments.runs
    if len(folders) == 1 and arguments.run_names is None:
        return open_run(folders[0], allow_incomplete=arguments.allow_incomplete, storage_options=options)
    with console.warnings():
        return open_run(
            list(folders),
            names=arguments.run_names,
            allow_different=arguments.allow_different,
            allow_incomplete=arguments.allow_incomplete,
            storage_options=options,
        )


def named_runs(folders: Sequence[str], arguments: argparse.Namespace) -> dict[str, EmbeddingRun]:
    """Further runs, by the names of their folders."""
    from ecgfounder.results import open_run
    from ecgfounder.storage import storage_options

    options = storage_options(arguments.storage_options)
    found = {}
    for folder in folders:
        run = open_run(folder, allow_incomplete=arguments.allow_incomplete, storage_options=options)
        name = run.folder.basename or str(run.folder)
        if name in found:
            raise SettingsError(f"two runs have the name {name}, which tables could not tell apart")
        found[name] = run
    return found


def label_table(arguments: argparse.Namespace) -> pa.Table | None:
    """The table of `--labels`; None if there is none."""
    from ecgfounder.results.label_table import read_table
    from ecgfounder.storage import storage_options

    if (arguments.labels is None) != (arguments.on is None):
        raise SettingsError(
            "labels and on belong together: the table, and the column that it has in common with the runs"
        )
    if arguments.labels is None:
        return None
    return read_table(arguments.labels, arguments.on, storage_options=storage_options(arguments.storage_options))
