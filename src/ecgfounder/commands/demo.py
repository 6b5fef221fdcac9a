"""`ecgfounder demo`: make the demo cohort and embed it."""

from __future__ import annotations

import argparse
import sys

from ecgfounder.commands.embed import add_embed_arguments, run_embed
from ecgfounder.commands.terminal import OK, SOME_FAILED, Parser, check_temporary_folder
from ecgfounder.escaping import one_line
from ecgfounder.storage import path_here


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder demo`."""
    parser.add_argument("folder", nargs="?", default="demo", help="where to make it (default: %(default)s)")


def run_demo(arguments: argparse.Namespace) -> int:
    """Make the demo cohort and checkpoint, and embed the cohort."""
    check_temporary_folder()
    from ecgfounder.demo.demo import WEIGHTS_NOTE, write_demo

    folder = path_here(arguments.folder, "folder")
    paths = write_demo(folder)
    command = [
        *("--dataset", str(paths.dataset), "--data_dir", str(paths.data_dir)),
        *("--checkpoint", str(paths.checkpoint), "--output_dir", str(folder / "embeddings")),
    ]
    print(one_line(f"ecgfounder embed {' '.join(command)}"), file=sys.stderr)
    parser = Parser()
    add_embed_arguments(parser)
    status = run_embed(parser.parse_args([*command, "--overwrite"]))
    print(WEIGHTS_NOTE, file=sys.stderr)
    # The cohort has a damaged file, so "some failed" is the expected status.
    return OK if status == SOME_FAILED else status
