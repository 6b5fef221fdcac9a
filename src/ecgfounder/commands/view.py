"""`ecgfounder view`: look at a run, or several as one, in a browser on this machine.

In: arguments. Out: a link, and a server until it is interrupted.
"""

from __future__ import annotations

import argparse

from ecgfounder.commands.analysis_arguments import add_analysis_arguments, label_table, network_of, opened_runs
from ecgfounder.commands.evidence import Explainer
from ecgfounder.commands.terminal import OK, Terminal
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import counted

_LARGEST_PORT = 65_535


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder view`."""
    add_analysis_arguments(parser, looks=True)
    add = parser.add_argument_group("page").add_argument
    add("--data_dir", metavar="DIR", help="folder of the ECG files now (default: that of the run)")
    add(
        "--evidence",
        action="append",
        metavar="LABEL",
        help="draw below each ECG what each half second contributes to this statement of --checkpoint; may be repeated",
    )
    add("--checkpoint", help="of the run, for --evidence (default: the published one)")
    add("--engine", default="auto", help="for --evidence, as in embed (default: %(default)s)")
    add("--device", help="for --evidence, as in embed (default: the GPU if there is one)")
    add("--port", type=int, default=0, help="port on this machine (default: any that is free)")


def run_view(arguments: argparse.Namespace) -> int:
    """Serve until an interruption; returns the exit status."""
    from ecgfounder.storage import storage_options
    from ecgfounder.viewer import Atlas, Server, Viewer, open_atlas

    console = Terminal()
    if not 0 <= arguments.port <= _LARGEST_PORT:
        raise SettingsError(
            f"Invalid value for the 'port' parameter. It must be from 0 to {_LARGEST_PORT}, got {arguments.port}."
        )
    labels = label_table(arguments)

    def opened() -> Atlas:
        return open_atlas(
            opened_runs(arguments, console),
            labels,
            arguments.on,
            group=arguments.group,
            where=arguments.where,
            exclude_flags=arguments.exclude_flags,
            data_dir=arguments.data_dir,
            options=storage_options(arguments.storage_options),
        )

    bands_of = None
    if arguments.evidence:
        model, _hints = network_of(opened_runs(arguments, console), arguments)
        bands_of = Explainer.of(model, arguments.evidence, occlusion=False, draws=True).bands
    viewer = Viewer(opened, bands_of)
    try:
        server = Server(viewer, arguments.port)
    except OSError as error:
        viewer.close()
        raise SettingsError(
            f"Invalid value for the 'port' parameter. Port {arguments.port} cannot be used: {error.strerror or error}."
        ) from error
    try:
        print(server.link, flush=True)
        console.line(
            f"{counted(len(viewer.atlas), 'recording')}, {viewer.atlas.failures.num_rows:,} failed. Open the link in a browser "
            "on this machine; it works once. It shows names and ECGs: do not pass it on. Ctrl-C ends."
        )
        server.serve_forever()
    finally:
        server.server_close()
        viewer.close()
    return OK
