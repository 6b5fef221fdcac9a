"""`ecgfounder export`: write a run's embeddings in another format.

In: arguments. Out: a new run's folder, and an exit status.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ecgfounder.cohort.naming import LAYOUT_CHOICES
from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import Terminal
from ecgfounder.escaping import counted, one_line
from ecgfounder.results.export import TARGETS, export_run, export_runs
from ecgfounder.storage import storage_options as make_options


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder export`."""
    add = parser.add_argument
    add(
        "runs", nargs="+", metavar="RUN", help="output folder of a run; several are written to folders with their names"
    )
    add("--names", nargs="+", metavar="NAME", help="names of several runs (default: those of their folders)")
    add("--to", required=True, choices=TARGETS, help="json: a file per ECG; npy: the same as arrays; parquet: shards")
    add("--output_dir", required=True, help="new or empty folder to write to")
    add_storage_argument(parser)
    add("--layout", choices=LAYOUT_CHOICES, help="how files are named (default: as in the run)")
    add("--shard_size", type=int, default=1000, help="recordings per Parquet shard (default: %(default)s)")
    add("--allow_incomplete", action="store_true", help="export what there is of a run that is not complete")


def run_export(arguments: argparse.Namespace) -> int:
    """Export a run and print the number of embeddings; returns the exit status 0.

    Raises
    ------
    ECGFounderError
        As `export_run` does.
    """
    options = {
        "layout": arguments.layout,
        "shard_size": arguments.shard_size,
        "allow_incomplete": arguments.allow_incomplete,
        "storage_options": make_options(arguments.storage_options),
    }
    if len(arguments.runs) > 1 or arguments.names is not None:
        return _export_several(arguments, options)
    n_records = export_run(arguments.runs[0], arguments.output_dir, arguments.to, **options)
    print(
        one_line(
            f"{counted(n_records, 'embedding')} of {arguments.runs[0]} written to {arguments.output_dir} as {arguments.to}"
        ),
        file=sys.stderr,
    )
    return 0


def _export_several(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    console = Terminal()
    with console.warnings():
        written = export_runs(arguments.runs, arguments.output_dir, arguments.to, names=arguments.names, **options)
    for name, n_records in written.items():
        console.line(f"{counted(n_records, 'embedding')} written to {arguments.output_dir}/{name} as {arguments.to}")
    return 0
