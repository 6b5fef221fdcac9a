"""`ecgfounder export`: write a run's embeddings in another format, a copy for sharing, or a dataset card.

In: arguments. Out: a new run's folder, a folder of shards, or Markdown; and an exit status.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ecgfounder.cohort.naming import LAYOUT_CHOICES
from ecgfounder.commands.analysis_arguments import label_table, opened_runs
from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import Terminal
from ecgfounder.errors import RunError, SettingsError, StorageError
from ecgfounder.escaping import counted, one_line
from ecgfounder.results.dataset_card import CARD_NAME, dataset_card
from ecgfounder.results.export import TARGETS, export_run, export_runs
from ecgfounder.results.revealed import identifying, n_rare, what_it_reveals
from ecgfounder.results.run import open_run
from ecgfounder.results.share import share_run
from ecgfounder.results.small_cells import FEWEST
from ecgfounder.storage import locate, output_place
from ecgfounder.storage import storage_options as make_options

MAPS = ("map", "page")
_SHARD_SIZE = 1000

_OF_TARGETS = {
    ("columns",): ("share", *MAPS),
    ("group", "keys"): ("share",),
    ("labels", "on", "where", "umap"): MAPS,
    ("drawings", "data_dir"): ("page",),
    ("layout",): TARGETS,
    ("shard_size",): (*TARGETS, "share"),
}
"""Flags, and the targets that they are for."""


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder export`."""
    add = parser.add_argument
    add(
        "runs", nargs="+", metavar="RUN", help="output folder of a run; several are written to folders with their names"
    )
    add("--names", nargs="+", metavar="NAME", help="names of several runs (default: those of their folders)")
    add(
        "--to",
        required=True,
        choices=(*TARGETS, "share", "card", *MAPS),
        help="json: a file per ECG; npy: the same as arrays; parquet: shards; share: a copy without what leads back to the "
        "files; card: the dataset card of the folder, and what sharing it would reveal; map: places on a map and neighbours, for "
        "other viewers; page: the map as a page that opens from disk",
    )
    add("--output_dir", help="new or empty folder to write to (card: default is standard output)")
    add_storage_argument(parser)
    add("--layout", choices=LAYOUT_CHOICES, help="how files are named (default: as in the run)")
    add("--shard_size", type=int, help=f"recordings per Parquet shard (default: {_SHARD_SIZE})")
    add("--allow_incomplete", action="store_true", help="export what there is of a run that is not complete")
    only = parser.add_argument_group("with --to share, map or page").add_argument
    only("--columns", nargs="+", default=[], metavar="COLUMN", help="columns of the manifest to copy (default: none)")
    only = parser.add_argument_group("with --to map or page").add_argument
    only("--labels", metavar="TABLE", help="table of labels, whose columns may be copied")
    only("--on", metavar="COLUMN", help="column that the table and the runs have in common, e.g. study_id")
    only("--where", metavar="EXPR", help="only these recordings, e.g. 'age >= 18'")
    only("--umap", action="store_true", help="make a map by UMAP, too")
    only("--drawings", action="store_true", help="page: with the ECGs, of a few recordings")
    only("--data_dir", metavar="DIR", help="page, --drawings: folder of the ECG files now (default: that of the run)")
    only = parser.add_argument_group("with --to share").add_argument
    only("--group", metavar="COLUMN", help="column of patients, which get random names")
    only("--keys", metavar="FILE", help="new Parquet file, not to be shared, that says which key is which recording")


def run_export(arguments: argparse.Namespace) -> int:
    """Export a run and print the number of embeddings; returns the exit status 0.

    Raises
    ------
    ECGFounderError
        As `export_run` does.
    """
    for names, targets in _OF_TARGETS.items():
        wrong = [name for name in names if getattr(arguments, name) not in (None, False, [])]
        if wrong and arguments.to not in targets:
            raise SettingsError(
                f"--{wrong[0]} is for --to {', '.join(targets[:-1])}{' or ' if targets[1:] else ''}{targets[-1]}"
            )
    if arguments.to in ("card", "share"):
        if len(arguments.runs) > 1 or arguments.names is not None:
            raise SettingsError(f"--to {arguments.to} takes one run")
        return _card(arguments) if arguments.to == "card" else _share(arguments)
    _require_folder(arguments)
    if arguments.to in MAPS:
        return _map(arguments)
    options = {
        "layout": arguments.layout,
        "shard_size": _SHARD_SIZE if arguments.shard_size is None else arguments.shard_size,
        "allow_incomplete": arguments.allow_incomplete,
        "storage_options": make_options(arguments.storage_options),
    }
    if len(arguments.runs) > 1 or arguments.names is not None:
        return _export_several(arguments, options)
    n_records = export_run(arguments.runs[0], arguments.output_dir, arguments.to, **options)
    print(
        one_line(
            f"{counted(n_records, 'embedding')} of {arguments.runs[0]} written to {arguments.output_dir} as {arguments.to}"
        ),
        file=sys.stderr,
    )
    return 0


def _require_folder(arguments: argparse.Namespace) -> None:
    if arguments.output_dir is None:
        raise SettingsError(f"--to {arguments.to} needs --output_dir, a new or empty folder")


def _card(arguments: argparse.Namespace) -> int:
    options = make_options(arguments.storage_options)
    run = open_run(arguments.runs[0], allow_incomplete=arguments.allow_incomplete, storage_options=options)
    card = dataset_card(run)
    if arguments.output_dir is None:
        print(card, end="")
    else:
        place = Path(arguments.output_dir, CARD_NAME)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "x", encoding="utf-8") as file:
                file.write(card)
        except OSError as error:
            raise RunError(f"{place} could not be written: {error.strerror or error}") from error
    console = Terminal()
    console.line(f"Sharing {arguments.runs[0]} would reveal:")
    for each in what_it_reveals(run):
        console.line(f"- {each}")
    console.line("--to share makes a copy with the embeddings alone.")
    return 0


def _share(arguments: argparse.Namespace) -> int:
    _require_folder(arguments)
    options = make_options(arguments.storage_options)
    n_records = share_run(
        arguments.runs[0],
        arguments.output_dir,
        columns=arguments.columns,
        group=arguments.group,
        keys=arguments.keys,
        shard_size=_SHARD_SIZE if arguments.shard_size is None else arguments.shard_size,
        allow_incomplete=arguments.allow_incomplete,
        storage_options=options,
    )
    console = Terminal()
    run = open_run(arguments.runs[0], allow_incomplete=arguments.allow_incomplete, storage_options=options)
    distinct = identifying(run, arguments.columns)
    for name in arguments.columns:
        if name in distinct:
            console.line(f"WARNING: the copied column {name} has another value in every recording, as identifiers have")
        elif rare := n_rare(run.records[name]):
            console.line(
                f"WARNING: the copied column {name} has {counted(rare, 'value')} of fewer than {FEWEST} recordings, which may "
                "tell a person or a place"
            )
    console.line(
        f"{counted(n_records, 'recording')} copied to {arguments.output_dir}. The copy is not anonymous: read its {CARD_NAME}, "
        "look at it, and share it under the cohort's terms."
    )
    return 0


def _map(arguments: argparse.Namespace) -> int:
    from ecgfounder.analysis.pages.tables import check_results_folder
    from ecgfounder.viewer import exporting, open_atlas

    options = make_options(arguments.storage_options)
    out = locate(output_place(arguments.output_dir, options))
    file = exporting.MAP_FILE if arguments.to == "map" else exporting.PAGE_FILE
    check_results_folder(out, file)
    console = Terminal()
    arguments.run_names, arguments.allow_different = arguments.names, False
    run = opened_runs(arguments, console)
    atlas = open_atlas(
        run,
        label_table(arguments),
        arguments.on,
        where=arguments.where,
        data_dir=arguments.data_dir,
        options=options,
    )
    try:
        if arguments.umap:
            atlas.places.make_umap()
        if arguments.to == "map":
            exporting.write_map(atlas, out, arguments.columns)
        else:
            exporting.write_page(atlas, out, arguments.columns, drawings=arguments.drawings)
    except (OSError, StorageError) as error:
        raise RunError(f"{out} could not be written: {error}") from error
    finally:
        atlas.close()
    what = f", with {', '.join(arguments.columns)}" if arguments.columns else ", without names and labels"
    ecgs = ", with ECGs" if arguments.drawings else ""
    console.line(f"{counted(len(atlas), 'recording')} written to {out / file}{what}{ecgs}")
    console.line(
        "A place on a map, and what is near, tells something of each recording: share it under the cohort's terms."
    )
    return 0


def _export_several(arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    console = Terminal()
    with console.warnings():
        written = export_runs(arguments.runs, arguments.output_dir, arguments.to, names=arguments.names, **options)
    for name, n_records in written.items():
        console.line(f"{counted(n_records, 'embedding')} written to {arguments.output_dir}/{name} as {arguments.to}")
    return 0
