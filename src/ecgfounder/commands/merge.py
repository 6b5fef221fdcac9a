"""`ecgfounder merge`: finish the run record of a run that was done in shards."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import OK, SOME_FAILED, Terminal, print_tally
from ecgfounder.escaping import counted
from ecgfounder.storage import output_place, storage_options

if TYPE_CHECKING:
    from ecgfounder.ledger.manifest import Tally

MOST_SHARDS = 100
"""How many missing shards are named."""


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
    place = output_place(arguments.output_dir, options)
    print_tally(tally, place, console)
    print_missing_shards(tally, str(place), console)
    return SOME_FAILED if tally.failed or tally.pending else OK


def print_missing_shards(tally: Tally, output_dir: str, console: Terminal) -> None:
    """Print which shards have recordings to do, and the command for each."""
    for shard, number in list(tally.pending_by_shard.items())[:MOST_SHARDS]:
        console.line(
            f"Shard {shard}: {counted(number, 'recording')} still to do: ecgfounder embed --output_dir {shlex.quote(output_dir)} "
            f"--shard {shard}, with the run's other flags"
        )
    if len(tally.pending_by_shard) > MOST_SHARDS:
        console.line(f"{len(tally.pending_by_shard) - MOST_SHARDS:,} more shards have recordings to do")
