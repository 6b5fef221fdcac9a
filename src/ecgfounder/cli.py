"""The command line: arguments become settings and one call; a subcommand's work lives in its own module.

In: `sys.argv`. Out: an exit status: 0 all done, 1 some recordings failed, 2 refused at the start, 130 or 143 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence

from ecgfounder._version import __version__
from ecgfounder.commands.embed import add_embed_arguments, run_embed
from ecgfounder.commands.terminal import REFUSED, SOME_FAILED, as_flags
from ecgfounder.errors import ECGFounderError

# Name -> what it does. The module `ecgfounder.commands.NAME` has `add_NAME_arguments` and `run_NAME`; only the chosen command's
# is imported.
COMMANDS: dict[str, str] = {
    "embed": "embed every ECG of a dataset",
    "merge": "finish the run record of a run that was done in shards",
    "upgrade": "convert a run's folder of an older version to the current layout",
    "export": "write a run's embeddings in another format",
    "inspect": "show what is in ECG files",
    "verify": "check that embeddings do not depend on batch, processes or engine",
    "doctor": "check the installation and a checkpoint",
    "demo": "make a small cohort and embed it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """`ecgfounder COMMAND ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ecgfounder", description="ECGFounder embeddings from the ECG files of hospitals and cohorts."
    )
    parser.add_argument("--version", action="version", version=f"ecgfounder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        if words[:1] == [name]:
            room = importlib.import_module(f"ecgfounder.commands.{name}")
            getattr(room, f"add_{name}_arguments")(command)
            command.set_defaults(work=getattr(room, f"run_{name}"))
    arguments = parser.parse_args(words)
    return _guarded(arguments.work, arguments)


def embed_main(argv: Sequence[str] | None = None) -> int:
    """`scripts/ecg_fm/inference.py ...`, the same as `ecgfounder embed ...`."""
    parser = argparse.ArgumentParser(description="Embed every ECG of a dataset with ECGFounder.")
    add_embed_arguments(parser)
    return _guarded(run_embed, parser.parse_args(argv))


def _guarded(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; what users can mend becomes one line, not a traceback."""
    # NumPy's threads have nothing to do here, and burn a tenth of a second of a core in every process to find that out.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        return work(arguments)
    except ECGFounderError as error:
        print(f"ecgfounder: {as_flags(str(error))}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:
        # Whoever read our lines (head, less) has seen enough; Python's flush at its end must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except KeyboardInterrupt:
        print("ecgfounder: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
