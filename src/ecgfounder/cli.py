"""The command line: parses arguments and calls the module of a command.

In: `sys.argv`. Out: an exit status: 0 all done, 1 some recordings failed, 2 refused at the start, 128 + n stopped by signal n.
Few modules are imported before signals are handled, so that an early signal ends a command as a later one does.
"""

from __future__ import annotations

import argparse
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
    "status": "show how far a run is, also while it works",
    "merge": "finish the run record of a run that was done in shards",
    "export": "write a run's embeddings in another format",
    "upgrade": "convert a run's folder of an older version to the current layout",
    "inspect": "show what is in ECG files",
    "view": "look at a run in a browser: a map, ECGs, failures",
    "probe": "test what embeddings know about labels by a linear probe",
    "neighbours": "find the most similar recordings",
    "drift": "measure what embeddings know about site, device or year",
    "duplicates": "find recordings that are there more than once",
    "compare": "compare two runs: settings, records, embeddings",
    "report": "make one page about a run, for a methods supplement",
    "localisation": "measure how far evidence lies where the event is",
    "doctor": "check the installation and a checkpoint",
    "verify": "check that embeddings do not depend on batch, processes or engine",
    "demo": "make a small cohort and embed it",
}

GROUPS: dict[str, tuple[str, ...]] = {
    "run": ("embed", "status", "merge", "export", "upgrade"),
    "look": ("inspect", "view"),
    "learn": ("probe", "neighbours", "drift", "duplicates", "compare", "report"),
    "check": ("doctor", "verify", "localisation", "demo"),
}
"""The commands by purpose, as `ecgfounder --help` shows them."""

EXAMPLES: dict[str, str] = {
    "embed": "embed --dataset ecgs/ --checkpoint checkpoints/ --output_dir embeddings/",
    "status": "status embeddings/",
    "merge": "merge embeddings/",
    "export": "export embeddings/ --to npy --output_dir arrays/",
    "upgrade": "upgrade embeddings/",
    "probe": "probe embeddings/ --labels labels.csv --on study_id --label af --group patient --output_dir probe/",
    "neighbours": "neighbours embeddings/ --record a/1.xml -k 5",
    "drift": "drift embeddings/ --by site device_model --group subject_id --output_dir drift/",
    "duplicates": "duplicates embeddings/ --group subject_id --split split --output_dir duplicates/",
    "compare": "compare embeddings/ filtered/ --group subject_id --output_dir comparison/",
    "report": "report embeddings/ --group subject_id --by site year --include probe/ drift/ --output_dir report/",
    "inspect": "inspect ecg.xml --plot ecg.png",
    "view": "view embeddings/ --labels labels.csv --on study_id --group subject_id",
    "doctor": "doctor --checkpoint checkpoints/",
    "verify": "verify ecgs/ --checkpoint checkpoints/",
    "localisation": "localisation --checkpoint checkpoints/",
    "demo": "demo demo/",
}
"""One example of each command."""

CALCULATING = ("view", "probe", "neighbours", "drift", "duplicates", "compare", "report")
"""Commands that calculate with NumPy, on all cores."""


def main(argv: Sequence[str] | None = None) -> int:
    """`ecgfounder COMMAND ...`."""
    return as_command(lambda: _main(list(sys.argv[1:] if argv is None else argv)))


def _main(words: list[str]) -> int:
    if words[:1] == ["--print_completion"]:
        return _print_completion(words[1:])
    parser, _ = _parsers(words[:1])
    arguments = parser.parse_args(words)
    check_working_folder()
    if words[0] not in CALCULATING:
        _spare_threads(of_torch=words[0] == "embed")
    return cast(int, arguments.work(arguments))


def _parsers(chosen: Sequence[str]) -> tuple[Parser, argparse._SubParsersAction[Parser]]:
    """The parser, and that of each command, of which the chosen ones have their flags."""
    parser = Parser(
        prog="ecgfounder",
        usage="%(prog)s [-h] [--version] [--print_completion SHELL] COMMAND ...",
        description="ECGFounder embeddings from the ECG files of hospitals and cohorts.",
        epilog=_listed_commands(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ecgfounder {__version__}")
    parser.add_argument(
        "--print_completion",
        choices=("bash", "zsh", "fish"),
        metavar="SHELL",
        help="print a script that completes commands and flags in bash, zsh or fish",
    )
    subparsers = parser.add_subparsers(prog="ecgfounder", metavar="COMMAND", required=True, help=argparse.SUPPRESS)
    for name, what in COMMANDS.items():
        command = subparsers.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=_example(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in chosen:
            room = importlib.import_module(f"ecgfounder.commands.{name}")
            getattr(room, f"add_{name}_arguments")(command)
            command.set_defaults(work=getattr(room, f"run_{name}"))
    return parser, subparsers


def _listed_commands() -> str:
    """The commands by purpose."""
    lines, width = [], max(map(len, COMMANDS))
    for group, names in GROUPS.items():
        lines += [f"{group}:", *(f"  {name:<{width}}  {COMMANDS[name]}" for name in names), ""]
    return "\n".join([*lines, "ecgfounder COMMAND --help shows the flags of a command, and an example."])


def _example(name: str) -> str:
    return f"example:\n  ecgfounder {EXAMPLES[name]}"


def _print_completion(words: Sequence[str]) -> int:
    """Print the script that completes commands and flags in a shell."""
    from ecgfounder.commands.completion import SHELLS, completion_of

    parser, commands = _parsers(list(COMMANDS))
    commands.help = "command"  # shtab leaves out what the help does not show
    if len(words) != 1 or words[0] not in SHELLS:
        parser.error(f"argument --print_completion: expected one of {', '.join(SHELLS)}")
    print(completion_of(parser, list(commands.choices.values()), words[0]))
    return 0


def embed_main(argv: Sequence[str] | None = None) -> int:
    """`scripts/ecg_fm/inference.py ...`, the same as `ecgfounder embed ...`."""
    return as_command(lambda: _embed_main(argv))


def _embed_main(argv: Sequence[str] | None) -> int:
    from ecgfounder.commands.embed import add_embed_arguments, run_embed

    parser = Parser(
        description="Embed every ECG of a dataset with ECGFounder.",
        epilog=_example("embed"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_embed_arguments(parser)
    arguments = parser.parse_args(argv)
    check_working_folder()
    _spare_threads(of_torch=True)
    return run_embed(arguments)


def _spare_threads(*, of_torch: bool) -> None:
    """NumPy's threads are not needed, and cost a tenth of a core-second in every process.

    Neither are PyTorch's on the CPU where each engine thread computes alone. They keep their cores busy while they wait for each
    other: processes that share a GPU would load their weights in several times the core time.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if of_torch:
        os.environ.setdefault("OMP_NUM_THREADS", "1")


if __name__ == "__main__":
    sys.exit(main())
