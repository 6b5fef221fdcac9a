"""`ecgfounder merge`: finish the run record of a run that was done in shards."""

from __future__ import annotations

import argparse

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import OK, SOME_FAILED, Terminal, print_tally
from ecgfounder.escaping import counted
from ecgfounder.storage import output_place, storage_options


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder merge`."""
    parser.add_argument("output_dir", help="the run's output folder")
    add_storage_argument(parser)


def run_merge(arguments: argparse.Namespace) -> int:
    """Finish the run record; exit status 1 if recordings failed or are still to do."""
    from ecgfounder.ledger.conclusion import merge

    options = storage_options(arguments.storage_options)
    tally = merge(arguments.output_dir, options)
    console = Terminal()
    console.line(f"{counted(tally.done, 'recording')} embedded, {tally.failed:,} failed, {tally.pending:,} still to do")
    print_tally(tally, output_place(arguments.output_dir, options), console)
    return SOME_FAILED if tally.failed or tally.pending else OK
