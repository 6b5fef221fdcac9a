"""`ecgfounder embed`: embed a cohort.

In: arguments. Out: a run, and an exit status: 0 all done, 1 some recordings failed, 2 refused, 128 + n interrupted by signal n.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ecgfounder.commands.arguments import (
    actors_of,
    add_cohort_arguments,
    add_driver_arguments,
    add_network_arguments,
    add_output_arguments,
    add_reading_arguments,
    add_run_arguments,
    add_signal_arguments,
    add_speed_arguments,
    add_storage_argument,
    hints_of,
    preparation_of,
)
from ecgfounder.commands.terminal import (
    OK,
    REFUSED,
    SOME_FAILED,
    JsonTerminal,
    Terminal,
    as_flags,
    print_retry,
    print_tally,
    status_of,
)
from ecgfounder.drivers.interruption import Interruption, listening
from ecgfounder.errors import SettingsError
from ecgfounder.escaping import counted, one_line
from ecgfounder.machine import is_launched
from ecgfounder.run.pace import duration
from ecgfounder.storage import folder_text, output_place, path_here, storage_options

if TYPE_CHECKING:
    from ecgfounder.ledger.manifest import Tally
    from ecgfounder.run.presence import Presence
    from ecgfounder.run.settings import Settings
    from ecgfounder.run.summary import Preview, Summary


def add_embed_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder embed`."""
    parser.usage = "%(prog)s --dataset DATASET --output_dir OUTPUT_DIR [flags]"
    add = add_cohort_arguments(parser, required=True)
    add("--id_column", help="column whose values name the outputs (default: names from paths)")
    add(
        "--keep_columns",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns to copy into the manifest (default: none)",
    )
    add_output_arguments(parser)
    add_signal_arguments(parser)
    add_network_arguments(parser)
    add_run_arguments(parser)
    add_reading_arguments(parser)
    add_speed_arguments(parser)
    add_driver_arguments(parser)
    add_storage_argument(parser)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Settings from parsed arguments; refuses contradicting ones."""
    from ecgfounder.cohort.sources import default_data_dir
    from ecgfounder.run.settings import Settings, shard_and_group

    part, slash, parts = arguments.shard.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise SettingsError(
            f"Invalid value for the 'shard' parameter. It must be I/N, e.g. 3/16, got {arguments.shard!r}."
        )
    options = storage_options(arguments.storage_options)
    shard_size, group_size = shard_and_group(arguments.shard_size, arguments.group_size, arguments.format)
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
        shard_size=shard_size,
        dtype=arguments.dtype,
        layout=arguments.layout,
        batch_size=arguments.batch_size,
        num_workers=arguments.num_workers,
        shard=(int(part), int(parts)),
        sample=arguments.sample,
        overwrite=arguments.overwrite,
        retry_failed=arguments.retry_failed,
        check_hashes=arguments.check_hashes,
        read_timeout=arguments.read_timeout,
        read_memory=arguments.read_memory,
        storage_options=options,
        driver=arguments.driver,
        group_size=group_size,
        actors=actors_of(arguments),
    )


def run_embed(arguments: argparse.Namespace) -> int:
    """Embed the cohort; returns the exit status."""
    if not arguments.log_json:
        return _embed(arguments, Terminal())
    console = JsonTerminal()
    with console.logged():
        return status_of(lambda: _embed(arguments, console), console.error)


def _embed(arguments: argparse.Namespace, console: Terminal) -> int:
    settings = settings_of(arguments)
    from ecgfounder.run.choice import make_run

    if arguments.measure and not arguments.dry_run:
        raise SettingsError("the 'measure' parameter needs dry_run=True: a run itself is not a forecast.")
    if arguments.dry_run:
        preview = make_run(settings, console).preview()
        status = print_preview(preview, settings)
        if arguments.measure and status == OK and preview.plan.n_todo:
            _measure(settings, preview)
        return status
    if arguments.write_slurm is not None:
        return _write_slurm(arguments, settings, console)
    interruption = Interruption()
    try:
        with listening(interruption.request):
            summary = make_run(settings, console, interruption).execute()
    except OSError as error:
        console.line(
            f"ecgfounder: the run stopped: {error}. Finished recordings are kept; the same command resumes the run."
        )
        return SOME_FAILED
    finally:
        console.close()
    status = report(summary, settings, console)
    _log_end(status, summary, console)
    return status


def _write_slurm(arguments: argparse.Namespace, settings: Settings, console: Terminal) -> int:
    """Check the run as `--dry_run` does, and write the script of an array that does it."""
    from ecgfounder.commands.slurm import script_of, write_script
    from ecgfounder.run.run import Run

    n_shards = settings.shard[1]
    parser = argparse.ArgumentParser(add_help=False)
    add_embed_arguments(parser)
    defaults = {name: parser.get_default(name) for name in vars(arguments)}
    script = script_of(arguments, defaults, n_shards, settings.storage_options)
    whole = replace(settings, shard=(1, 1))
    if (status := print_preview(Run(whole, console).preview(), whole)) != OK:
        return status
    path = path_here(arguments.write_slurm, "write_slurm")
    write_script(path, script)
    output_dir = str(settings.output_dir.absolute() if isinstance(settings.output_dir, Path) else settings.output_dir)
    merge = [sys.executable, "-m", "ecgfounder.cli", "merge", output_dir]
    console.line(f"{path}: {counted(n_shards, 'shard')}. Submit it: sbatch {shlex.quote(str(path))}")
    console.line(f"When all tasks have ended: sbatch --dependency=afterany:JOB --wrap={shlex.quote(shlex.join(merge))}")
    return OK


def _log_end(status: int, summary: Summary, console: Terminal) -> None:
    """The last line of a log for programs: the outcome, and the counts of the whole run or, of a shard, of this attempt."""
    tally = summary.tally
    console.event(
        "end",
        status=status,
        outcome=summary.outcome,
        done=summary.processed - summary.failed_now if tally is None else tally.done,
        failed=summary.failed_now if tally is None else tally.failed,
        pending=None if tally is None else tally.pending,
        processed=summary.processed,
        seconds=round(summary.seconds, 3),
        rate=round(_rate(summary), 3),
        trouble=summary.trouble,
    )


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
        if summary.tally.pending and settings.sample is None:
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
    now = f"{summary.processed:,} in this attempt, {duration(summary.seconds)}, {_rate(summary):.1f} ECG/s"
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
        without = "" if settings.sample is None else " without --sample"
        console.line(f"Still to do: {counted(tally.pending, 'recording')}; the same command{without} does them")
    elif tally.done:
        place, page = str(settings.output_dir), f"{settings.output_dir}-report"
        console.line(f"A page about this run: ecgfounder report {shlex.quote(place)} --output_dir {shlex.quote(page)}")


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


def _measure(settings: Settings, preview: Preview) -> None:
    """Embed some recordings, and print what all of them will take."""
    from ecgfounder.run.budget import megabytes
    from ecgfounder.run.forecast import forecast

    interruption = Interruption()
    with listening(interruption.request):
        found = forecast(settings, preview.plan.n_todo, interruption)
    print(
        f"measured    {counted(found.measured, 'recording')}, {found.failed:,} failed, {found.rate:.1f} ECG/s on this machine, "
        f"engine {found.engine}"
    )
    print(
        f"forecast    {duration(found.seconds)} for {counted(found.n_todo, 'recording')}, {megabytes(found.bytes)} in "
        f"{preview.budget.files:,} files"
    )
    if found.reads is not None or preview.budget.requests is not None:
        print(f"requests    about {found.reads or 0:,} to read and {preview.budget.requests or 0:,} to write")


def _print_presence(presence: Presence) -> None:
    """Print whether the files exist, and what may be wrong if most of them do not."""
    sample = "a sample of " if presence.looked_at < presence.of else ""
    example = f"; no file at {presence.example}, for example" if presence.absent else ""
    found = presence.looked_at - presence.absent
    print(f"files       {found:,} of {sample}{presence.looked_at:,} found{example}")
    if 2 * presence.absent > presence.looked_at:
        print(f"advice      {as_flags(presence.advice)}")
