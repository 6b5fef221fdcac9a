"""`ecgfounder localisation`: measure how far evidence lies where the event is, on synthetic ECGs with one premature beat.

In: a checkpoint and settings. Out: a table on standard output; what was measured is kept in the cache, for `ecgfounder inspect
--evidence`. Or a cohort with such events, to train a network on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ecgfounder.commands.arguments import (
    add_network_arguments,
    add_signal_arguments,
    add_storage_argument,
    loaded_network,
)
from ecgfounder.commands.terminal import Terminal
from ecgfounder.errors import RunError, SettingsError
from ecgfounder.escaping import one_line
from ecgfounder.storage import path_here

if TYPE_CHECKING:
    from ecgfounder.localisation import Localisation

CONTROL = "random:1"
"""The network with random weights that is measured beside the checkpoint."""


def add_localisation_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder localisation`."""
    add = parser.add_argument
    add("--label", help="the checkpoint's statement for premature beats (default: the published one, or the only one)")
    add("--recordings", type=int, default=200, help="with the event, and as many without (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the synthetic recordings (default: %(default)s)")
    add(
        "--write_cohort",
        metavar="DIR",
        help="only write such recordings, and a table of labels, into this folder, to train a network on",
    )
    add_network_arguments(parser)
    add_signal_arguments(parser)
    add_storage_argument(parser)


def run_localisation(arguments: argparse.Namespace) -> int:
    """Measure, print and remember; or write a cohort.

    Raises
    ------
    ECGFounderError
        If the flags are not valid, or the checkpoint cannot be used; the caller turns this into exit status 2.
    """
    from ecgfounder.demo.planted import EVENT, write_planted_cohort
    from ecgfounder.localisation import FEWEST, measure, remember

    console = Terminal()
    if arguments.recordings < FEWEST:
        raise SettingsError(
            f"Invalid value for the 'recordings' parameter. It must be {FEWEST} or more, got {arguments.recordings}."
        )
    if arguments.write_cohort is not None:
        folder = path_here(arguments.write_cohort, "write_cohort")
        try:
            table = write_planted_cohort(folder, 2 * arguments.recordings, arguments.seed)
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror or error}") from error
        console.line(f"written: {table} (label {EVENT}, patients patient) and {folder / 'ecg'}")
        return 0
    with loaded_network(arguments) as model, loaded_network(arguments, checkpoint=CONTROL) as control:
        found = measure(model, control, arguments.label, n=arguments.recordings, seed=arguments.seed, say=console.line)
        for line in table_of(found):
            print(one_line(line))
        console.line(f"kept for this checkpoint and its settings: {remember(model, found)}")
    return 0


def table_of(found: Localisation) -> Iterator[str]:
    """The lines of a table."""
    yield f"{found.label}: {found.n_recordings} synthetic ECGs with one premature beat, and as many without ({found.settings})"
    yield f"{'':<44} {'checkpoint':<26} {'random weights':<26} chance"
    network, control = found.network, found.control
    yield f"{'AUROC of the statement':<44} {network.auroc:<26.3f} {control.auroc:<26.3f} 0.500"
    rows = (
        ("positive evidence at the beat, share", network.share, control.share, f"{found.chance:.3f}"),
        ("highest evidence at the beat, share of ECGs", network.highest, control.highest, f"{found.chance:.3f}"),
        ("largest occlusion at the beat, share of ECGs", network.occluded, control.occluded, f"{found.chance:.3f}"),
        ("logit falls, highest fifth of time deleted", network.top_drop, control.top_drop, ""),
        ("logit falls, another fifth of time deleted", network.random_drop, control.random_drop, ""),
    )
    for name, of_network, of_control, chance in rows:
        yield f"{name:<44} {of_network!s:<26} {of_control!s:<26} {chance}".rstrip()
