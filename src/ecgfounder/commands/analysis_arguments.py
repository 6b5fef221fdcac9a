"""The flags that all analysis commands share, and what they open.

In: an argument parser, parsed arguments. Out: the shared flags; the opened run or runs, and the table of labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.errors import SettingsError
from ecgfounder.storage import storage_options

if TYPE_CHECKING:
    import pyarrow as pa

    from ecgfounder.commands.terminal import Terminal
    from ecgfounder.embedder import Embedder
    from ecgfounder.results import EmbeddingRun, EmbeddingRuns


def add_analysis_arguments(
    parser: argparse.ArgumentParser, *, writes: bool = True, looks: bool = False, run_names: str = "--names"
) -> None:
    """The flags of all analysis commands.

    `writes` says whether a folder for the results is required. A command that only `looks` has none, draws nothing at random, and
    takes runs that are not complete. `run_names` is what the flag for the names of runs is called.
    """
    parser.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a run; several are used as one")
    add = parser.add_argument_group("recordings").add_argument
    what = "names of several runs (default: those of their folders)"
    add(run_names, dest="run_names", nargs="+", metavar="NAME", help=what)
    add("--allow_different", action="store_true", help="use runs together that differ in what decides a vector")
    if looks:
        parser.set_defaults(allow_incomplete=True)
    else:
        add("--allow_incomplete", action="store_true", help="use what there is of runs that are not complete")
    add("--labels", metavar="TABLE", help="table of labels; not needed for columns of --keep_columns")
    add("--on", metavar="COLUMN", help="column that the table and the runs have in common, e.g. study_id")
    add("--group", metavar="COLUMN", help="column with the patient")
    add("--where", metavar="EXPR", help="only these recordings, e.g. 'age >= 18 and not has(flags, \"clipped\")'")
    add("--exclude_flags", nargs="+", default=[], metavar="FLAG", help="leave out recordings with one of these flags")
    if not looks:
        add("--seed", type=int, default=0, help="seed of everything that is random (default: %(default)s)")
        add("--output_dir", required=writes, help="new folder for the results, or a URL")
    add_storage_argument(parser)


def opened_runs(arguments: argparse.Namespace, console: Terminal) -> EmbeddingRun | EmbeddingRuns:
    """The run, or the runs as one; recordings that are in several are named."""
    from ecgfounder.results import open_run
    from ecgfounder.storage import storage_options

    options = storage_options(arguments.storage_options)
    folders: Sequence[str] = arguments.runs
    if len(folders) == 1 and arguments.run_names is None:
        return open_run(folders[0], allow_incomplete=arguments.allow_incomplete, storage_options=options)
    with console.warnings():
        return open_run(
            list(folders),
            names=arguments.run_names,
            allow_different=arguments.allow_different,
            allow_incomplete=arguments.allow_incomplete,
            storage_options=options,
        )


def named_runs(folders: Sequence[str], arguments: argparse.Namespace) -> dict[str, EmbeddingRun]:
    """Further runs, by the names of their folders."""
    from ecgfounder.results import open_run
    from ecgfounder.storage import storage_options

    options = storage_options(arguments.storage_options)
    found = {}
    for folder in folders:
        run = open_run(folder, allow_incomplete=arguments.allow_incomplete, storage_options=options)
        name = run.folder.basename or str(run.folder)
        if name in found:
            raise SettingsError(f"two runs have the name {name}, which tables could not tell apart")
        found[name] = run
    return found


def label_table(arguments: argparse.Namespace) -> pa.Table | None:
    """The table of `--labels`; None if there is none."""
    from ecgfounder.results.label_table import read_table
    from ecgfounder.storage import storage_options

    if (arguments.labels is None) != (arguments.on is None):
        raise SettingsError(
            "labels and on belong together: the table, and the column that it has in common with the runs"
        )
    if arguments.labels is None:
        return None
    return read_table(arguments.labels, arguments.on, storage_options=storage_options(arguments.storage_options))


def network_of(run: EmbeddingRun | EmbeddingRuns, arguments: argparse.Namespace) -> tuple[Embedder, dict[str, Any]]:
    """An embedder with the settings of the run, and its hints.

    Raises
    ------
    SettingsError
        If the run has settings that cannot be made from its record, the checkpoint is another one, or runs differ in these.
    """
    from ecgfounder.embedder import load
    from ecgfounder.network.checkpoint import sha256_of
    from ecgfounder.preprocess.preparation import preparation_from
    from ecgfounder.results import EmbeddingRuns

    every = run.runs if isinstance(run, EmbeddingRuns) else (run,)
    first, fingerprint = every[0], every[0].record.fingerprint
    for other in every[1:]:
        if any(other.record.fingerprint[name] != fingerprint[name] for name in ("checkpoint_sha256", "preparation")):
            raise SettingsError(
                "The runs have different checkpoints or preparations: files can be embedded as one run's."
            )
    preparation = preparation_from(fingerprint["preparation"])
    if preparation is None:
        raise SettingsError(
            "The run has a recipe that is not built in, or of another version: files cannot be embedded as the run's were. "
            "Use Python (ecgfounder.load with that recipe)."
        )
    embedder = load(
        preparation.mode,
        arguments.checkpoint,
        engine=arguments.engine,
        precision=fingerprint["precision"],
        device=arguments.device,
        preparation=preparation,
        reader=fingerprint["reader"],
        storage_options=dict(storage_options(arguments.storage_options).items),
    )
    if sha256_of(embedder.checkpoint) != fingerprint["checkpoint_sha256"]:
        raise SettingsError(
            f"Invalid value for the 'checkpoint' parameter. The run was made with {first.record.checkpoint.name} (SHA-256 "
            f"{fingerprint['checkpoint_sha256'][:12]}...), and {embedder.checkpoint.name} is another file."
        )
    return embedder, fingerprint["hints"]
