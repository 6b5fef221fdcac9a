"""`ecgfounder upgrade`: a run's folder of an older version brought into today's layout.

In: arguments. Out: the folder with its tables under the names of today, and an exit status.
"""

from __future__ import annotations

import argparse
import sys

from ecgfounder.commands.terminal import OK


def add_upgrade_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder upgrade`."""
    parser.add_argument("output_dir", help="the run's output folder")


def run_upgrade(arguments: argparse.Namespace) -> int:
    """Rename the tables, say which files are embeddings, name the run; nothing is embedded again."""
    from ecgfounder.ledger.conclusion import upgrade

    changed = upgrade(arguments.output_dir)
    what = "was converted to the layout of this version" if changed else "already has the layout of this version"
    print(f"{arguments.output_dir} {what}", file=sys.stderr)
    return OK
