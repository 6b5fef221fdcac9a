"""`ecgfounder upgrade`: convert a run's folder of an older version to the current layout.

In: arguments. Out: the folder with its tables under their current names, and an exit status.
"""

from __future__ import annotations

import argparse
import sys

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import OK
from ecgfounder.escaping import one_line
from ecgfounder.storage import storage_options


def add_upgrade_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder upgrade`."""
    parser.add_argument("output_dir", help="the run's output folder")
    add_storage_argument(parser)


def run_upgrade(arguments: argparse.Namespace) -> int:
    """Rename the tables, write the card and add a run identifier; nothing is embedded again."""
    from ecgfounder.ledger.conclusion import upgrade

    changed = upgrade(arguments.output_dir, storage_options(arguments.storage_options))
    what = "was converted to the layout of this version" if changed else "already has the layout of this version"
    print(one_line(f"{arguments.output_dir} {what}"), file=sys.stderr)
    return OK
