"""`ecgfounder merge`: finish the record of a run whose shards were done by separate jobs."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecgfounder.commands.terminal import OK, SOME_FAILED, Terminal, print_tally


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder merge`."""
    parser.add_argument("output_dir", help="the run's output folder")


def run_merge(arguments: argparse.Namespace) -> int:
    """Finish the run's record; exit status 1 where recordings failed or are still to do."""
    from ecgfounder.ledger.conclusion import merge

    tally = merge(arguments.output_dir)
    console = Terminal()
    console.line(f"{tally.done:,} recordings embedded, {tally.failed:,} failed, {tally.pending:,} still to do")
    print_tally(tally, Path(arguments.output_dir), console)
    return SOME_FAILED if tally.failed or tally.pending else OK
