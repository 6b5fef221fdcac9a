"""The command line: parses arguments and calls the module of a command.

In: `sys.argv`. Out: an exit status: 0 all done, 1 some recordings failed, 2 refused at the start, 128 + n stopped by signal n.
Few modules are imported before signals are handled, so that an early signal ends a command as a later one does.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import cast

from ecgfounder._version import __version__
from ecgfounder.commands.terminal import Parser, as_command, check_working_folder

# Name -> description. The module `ecgfounder.commands.NAME` has `add_NAME_arguments` and `run_NAME`; only the chosen
# command's module is imported.
COMMANDS: dict[str, str] = {
    "embed": "embed every ECG of a dataset",
    "merge": "finish the run record of a run that was done in shards",
    "upgrade": "convert a run's folder of an older version to the current layout",
    "export": "write a run's embeddings in another format",
    "probe": "test what embeddings know about labels by a linear probe",
    "inspect": "show what is in ECG files",
    "verify": "check that embeddings do not depend on batch, processes or engine",
    "doctor": "check the installation and a checkpoint",
    "demo": "make a small cohort and embed it",
}

CALCULATING = ("probe",)
"""Commands that calculate with NumPy, on all cores."""


def main(argv: Sequence[str] | None = None) -> int:
    """`ecgfounder COMMAND ...`."""
    return as_command(lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(words: list[str]) -> int:
    parser = Parser(prog="ecgfounder", description="ECGFounder embeddings from the ECG files of hospitals and cohorts.")
    parser.add_argument("--version", action="version", version=f"ecgfounder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, what in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        if words[:1] == [name]:
            room = importlib.import_module(f"ecgfounder.commands.{name}")
            getattr(room, f"add_{name}_arguments")(command)
            command.set_defaults(work=getattr(room, f"run_{name}"))
    arguments = parser.parse_args(words)
    check_working_folder()
    if words[0] not in CALCULATING:
        _spare_threads()
    return cast(int, arguments.work(arguments))


def embed_main(argv: Sequence[str] | None = None) -> int:
    """`scripts/ecg_fm/inference.py ...`, the same as `ecgfounder embed ...`."""
    return as_command(lambda: _embed_main(argv))


def _embed_main(argv: Sequence[str] | None) -> int:
    from ecgfounder.commands.embed import add_embed_arguments, run_embed

    parser = Parser(description="Embed every ECG of a dataset with ECGFounder.")
    add_embed_arguments(parser)
    arguments = parser.parse_args(argv)
    check_working_folder()
    _spare_threads()
    return run_embed(arguments)


def _spare_threads() -> None:
    """NumPy's threads are not needed, and cost a tenth of a core-second in every process."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


if __name__ == "__main__":
    sys.exit(main())
