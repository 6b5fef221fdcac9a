"""`ecgfounder embed`: embed a cohort.

In: arguments. Out: a run, and an exit status: 0 all done, 1 some recordings failed, 2 refused, 128 + n interrupted by signal n.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from typing import TYPE_CHECKING

from ecgfounder.commands.arguments import (
    add_cohort_arguments,
    add_network_arguments,
    add_output_arguments,
    add_reading_arguments,
    add_run_arguments,
    add_signal_arguments,
    add_storage_argument,
    hints_of,
    preparation_of,
)
from ecgfounder.commands.terminal import OK, REFUSED, SOME_FAILED, Terminal, as_flags, print_retry, print_tally
from ecgfounder.drivers.interruption import Interruption, listening
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import counted, one_line
from ecgfounder.machine import is_launched
from ecgfounder.storage import folder_text, output_place, storage_options

if TYPE_CHECKING:
    from ecgfounder.ledger.manifest import Tally
    from ecgfounder.run.presence import Presence
    from ecgfounder.run.settings import Settings
    from ecgfounder.run.summary import Preview, Summary


def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder embed`."""
    add = add_cohort_arguments(parser, required=True)
    add("--id_column", help="name outputs by this column's values instead of by path")
    add("--keep_columns", nargs="+", default=[], metavar="COLUMN", help="columns to copy into the manifest")
    add_storage_argument(parser)
    add_reading_arguments(parser)
    add_signal_arguments(parser)
    add_network_arguments(parser)
    add_output_arguments(parser)
    add_run_arguments(parser)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings from parsed arguments; refuses contradicting ones."""
    from ecgfounder.cohort.sources import default_data_dir
    from ecgfounder.run.settings import Settings

    part, slash, parts = arguments.shard.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise SettingsError(
            f"Invalid value for the 'shard' parameter. It must be I/N, e.g. 3/16, got {arguments.shard!r}."
        )
    options = storage_options(arguments.storage_options)
    output_dir = output_place(arguments.output_dir, options)
    data_dir = arguments.data_dir or default_data_dir(arguments.dataset, options) or os.getcwd()
    return Settings(
        dataset=arguments.dataset,
        output_dir=output_dir,
        split=arguments.split,
        path_column=arguments.path_column,
        id_column=arguments.id_column,
        keep_columns=tuple(arguments.keep_columns),
        data_dir=folder_text(data_dir, options),
        checkpoint=arguments.checkpoint,
        preparation=preparation_of(arguments),
        reader=arguments.reader,
        hints=hints_of(arguments),
        engine=arguments.engine,
        precision=arguments.precision,
        device=arguments.device,
        compile=arguments.compile,
        pooling=arguments.pooling,
        predictions=arguments.predictions,
        statements=arguments.statements,
        heart_rate=arguments.heart_rate,
        format=arguments.format,
        shard_size=arguments.shard_size,
        dtype=arguments.dtype,
        layout=arguments.layout,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        shard=(int(part), int(parts)),
        overwrite=arguments.overwrite,
        retry_failed=arguments.retry_failed,
        check_hashes=arguments.check_hashes,
        read_timeout=arguments.read_timeout,
        read_memory=arguments.read_memory,
        storage_options=options,
    )


def run_embed(arguments: argparse.Namespace) -> int:
    """Embed the cohort; returns the exit status."""
    settings = settings_of(arguments)
    from ecgfounder.run.run import Run

    if arguments.dry_run:
        return print_preview(Run(settings, Terminal()).preview(), settings)
    interruption = Interruption()
    console = Terminal()
    try:
        with listening(interruption.request):
            summary = Run(settings, console, interruption).execute()
    except OSError as error:
        console.line(
            f"ecgfounder: the run stopped: {error}. Finished recordings are kept; the same command resumes the run."
        )
        return SOME_FAILED
    finally:
        console.close()
    return report(summary, settings, console)


def advice(slowest: str, settings: Settings, device: str) -> str:
    """A message with the bottleneck, and what would help."""
    on_gpu = device != "cpu"
    what, helps = {
        "read": ("Reading", f"--num_workers above {settings.num_workers} or faster storage"),
        "embed": (
            "The network",
            "more GPUs or --precision bfloat16" if on_gpu else "a GPU, more cores or more machines",
        ),
        "write": ("Writing", "--format parquet, --pooling mean or a faster disk"),
        "main": ("The main process", "several of them (accelerate launch --num_processes N, or --shard)"),
    }[slowest]
    return f"{what} was the bottleneck: {helps} would make the run faster"


def report(summary: Summary, settings: Settings, console: Terminal) -> int:
    """Print the outcome of the run; returns the exit status."""
    if summary.signal is not None:
        name = signal.Signals(summary.signal).name
        console.line(
            f"Stopped by {name} after {counted(summary.processed, 'recording')}; finished recordings are committed. "
            "The same command resumes the run."
        )
        return 128 + summary.signal
    if summary.trouble is not None:
        console.line(
            f"ecgfounder: the run stopped: {summary.trouble}. Finished recordings are kept; the same command resumes the run."
        )
        return SOME_FAILED
    if not summary.is_main:
        return OK
    if summary.lost:
        console.line(
            f"{counted(summary.processed, 'recording')} in this attempt, {summary.failed_now:,} failed; {summary.lost:,} of the "
            "processes died. The same command resumes the run."
        )
        return SOME_FAILED  # the others have ended, so the launcher cannot stop them
    if summary.slowest is not None:
        console.line(advice(summary.slowest, settings, summary.device))
    if summary.tally is None:
        _report_shard(summary, settings, console)
        some_failed = bool(summary.failed_now or summary.plan.failed)
    else:
        _report_run(summary, summary.tally, settings, console)
        if summary.tally.pending:
            return SOME_FAILED
        some_failed = bool(summary.tally.failed)
    # A launcher kills all processes if one fails.
    return SOME_FAILED if some_failed and not is_launched() else OK


def _rate(summary: Summary) -> float:
    """Recordings per second in this attempt."""
    return summary.processed / summary.seconds if summary.seconds else 0.0


def _report_shard(summary: Summary, settings: Settings, console: Terminal) -> None:
    """Print the counts of one shard."""
    console.line(
        f"Shard {settings.shard[0]}/{settings.shard[1]}: {counted(summary.processed, 'recording')}, "
        f"{summary.failed_now:,} failed, {_rate(summary):.1f} ECG/s. "
        f"When all shards are done: ecgfounder merge {settings.output_dir}"
    )
    if failed := summary.failed_now + summary.plan.failed:
        print_retry(failed, console, all_before=not summary.failed_now)


def _report_run(summary: Summary, tally: Tally, settings: Settings, console: Terminal) -> None:
    """Print the counts of a whole run."""
    took = time.strftime("%H:%M:%S", time.gmtime(summary.seconds))
    now = f"{summary.processed:,} in this attempt, {took}, {_rate(summary):.1f} ECG/s"
    console.line(
        f"{tally.done:,} of {counted(tally.done + tally.failed + tally.pending, 'recording')} embedded, {tally.failed:,} failed; "
        f"{now if summary.processed else 'nothing was left to do'}"
    )
    if summary.precision_error is not None:
        console.line(f"Measured error of {settings.precision} against float32: {summary.precision_error:.1e} relative")
    if summary.samples_per_pass is not None:
        fits = max(1, summary.samples_per_pass // 5000)
        console.line(
            f"The device's memory ran out; batches of {counted(fits, 'recording')} of 10 s fitted (--batch_size {fits})"
        )
    print_tally(tally, settings.output_dir, console, all_before=not summary.failed_now, idle=not summary.processed)
    if tally.pending:
        console.line(f"Still to do: {counted(tally.pending, 'recording')}; the same command does them")


_MEANINGS = {
    "changed": "to do again: their files differ from those that were embedded",
    "missing": "to do again: their outputs are no longer in the output folder",
    "found": "to do again: their files did not exist, and exist now",
    "gone": "in the output folder, but no longer in the dataset; their outputs are kept",
}
"""What the counts of a dry run mean."""


def print_preview(preview: Preview, settings: Settings) -> int:
    """Print the result of --dry_run; the exit status says whether an attempt would be refused."""
    from ecgfounder.run.budget import MANY_FILES, megabytes

    plan, budget = preview.plan, preview.budget
    print(f"recordings  {preview.n_records:,}")
    for name in ("n_todo", "done", "failed", "changed", "missing", "found", "gone"):
        shown = {"n_todo": "to do", "found": "found again"}.get(name, name)
        number = getattr(plan, name)
        print(f"{shown:<11} {number:,}{f'  ({_MEANINGS[name]})' if number and name in _MEANINGS else ''}")
    _print_presence(preview.presence)
    verdict = "resumes the existing run" if preview.resumes else "new run"
    if preview.differences:
        verdict = "REFUSED, other settings:\n  " + "\n  ".join(map(one_line, preview.differences))
    print(f"fingerprint {verdict}")
    room = "" if budget.free_bytes is None else f"; free: {megabytes(budget.free_bytes)}"
    print(f"output      about {megabytes(budget.bytes)} in {budget.files:,} files{room}")
    if budget.requests is not None:
        print(f"requests    about {budget.requests:,} to write them")
    if not budget.fits:
        print("space       REFUSED, not enough space")
    if preview.colliding_names:
        names = "name" if preview.colliding_names == 1 else "names"
        print(
            f"names       REFUSED, {preview.colliding_names:,} output {names} would be shared (--layout tree, --id_column)"
        )
    if settings.format == "json" and budget.files > MANY_FILES:
        print(f"advice      more than {MANY_FILES:,} files are slow to handle: consider --format parquet")
    return REFUSED if preview.differences or preview.colliding_names or not budget.fits else OK


def _print_presence(presence: Presence) -> None:
    """Print whether the files exist, and what may be wrong if most of them do not."""
    sample = "a sample of " if presence.looked_at < presence.of else ""
    example = f"; no file at {presence.example}, for example" if presence.absent else ""
    found = presence.looked_at - presence.absent
    print(f"files       {found:,} of {sample}{presence.looked_at:,} found{example}")
    if 2 * presence.absent > presence.looked_at:
        print(f"advice      {as_flags(presence.advice)}")
