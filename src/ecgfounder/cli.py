"""The command line: arguments become settings and one call; a subcommand's work lives in its own module.

In: `sys.argv`. Out: an exit status: 0 all done, 1 some recordings failed, 2 refused at the start, 130 or 143 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgfounder import __version__
from ecgfounder.arguments import add_embed_arguments, settings_of
from ecgfounder.errors import ECGFounderError

if TYPE_CHECKING:
    from ecgfounder.extract import Preview, Summary
    from ecgfounder.manifest import Tally
    from ecgfounder.pipeline import Interruption
    from ecgfounder.settings import Settings

OK, SOME_FAILED, REFUSED = 0, 1, 2


# Name -> (what it does, the module that has `add_NAME_arguments` and `run_NAME`). Only the chosen command's module is imported.
COMMANDS: dict[str, tuple[str, str]] = {
    "embed": ("embed every ECG of a dataset", __name__),
    "merge": ("finish the books of a run that was done in shards", __name__),
    "export": ("write a run's embeddings in another form", "ecgfounder.export"),
    "inspect": ("show what is in ECG files", "ecgfounder.inspect"),
    "verify": ("show that embeddings agree however they are made", "ecgfounder.verify"),
    "doctor": ("check the installation and a checkpoint", "ecgfounder.doctor"),
    "demo": ("make a small cohort and embed it", __name__),
}


def main(argv: Sequence[str] | None = None) -> int:
    """`ecgfounder COMMAND ...`."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="ecgfounder", description="ECGFounder embeddings from the ECG files that hospitals and cohorts have."
    )
    parser.add_argument("--version", action="version", version=f"ecgfounder {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (what, module) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what[0].upper() + what[1:] + ".")
        if words[:1] == [name]:
            room = importlib.import_module(module)
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
        print(f"ecgfounder: {error}", file=sys.stderr)
        return REFUSED
    except BrokenPipeError:
        # Whoever read our lines (head, less) has seen enough; Python's flush at its end must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOME_FAILED
    except KeyboardInterrupt:
        print("ecgfounder: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def run_embed(arguments: argparse.Namespace) -> int:
    """The main job."""
    settings = settings_of(arguments)
    from ecgfounder.extract import Run
    from ecgfounder.pipeline import Interruption

    if arguments.dry_run:
        return print_preview(Run(settings, Terminal()).preview(), settings)
    interruption = Interruption()
    _listen(interruption)
    console = Terminal()
    try:
        summary = Run(settings, console, interruption).execute()
    except OSError as error:
        console.line(
            f"ecgfounder: the run broke: {error}. What is finished stays; the same command goes on from there."
        )
        return SOME_FAILED
    finally:
        console.close()
    return report(summary, settings, console)


class Terminal:
    """Lines and one progress line on standard error; in a pipe the progress line is quiet."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._quiet = int(os.environ.get("RANK", "0") or "0") > 0

    def line(self, text: str) -> None:
        with suppress(OSError):  # a run goes on where nobody reads its lines any more
            if self._bar is not None:
                self._bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)

    def progress(self, done: int, failed: int, total: int) -> None:
        if self._quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="ECG", file=sys.stderr, smoothing=0.05)
        self._bar.set_postfix_str(f"failed {failed}", refresh=False)
        self._bar.update(done + failed - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _listen(interruption: Interruption) -> None:
    """The first SIGINT or SIGTERM asks for a clean end; a second one is not waited for."""

    def handle(number: int, _frame: object) -> None:
        interruption.request(number)
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def advice(slowest: str, settings: Settings, device: str) -> str:
    """Which stage the others waited for, and what would help."""
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
    return f"{what} was what the rest waited for: {helps} would make it faster"


def report(summary: Summary, settings: Settings, console: Terminal) -> int:
    """Print what came of the run; the exit status."""
    launched = int(os.environ.get("WORLD_SIZE", "1") or "1") > 1
    rate = summary.processed / summary.seconds if summary.seconds else 0.0
    if summary.signal is not None:
        name = signal.Signals(summary.signal).name
        console.line(
            f"Stopped by {name} after {summary.processed:,} recordings; what is finished is committed. "
            "The same command goes on from there."
        )
        return 128 + summary.signal
    if not summary.is_main:
        return OK
    if summary.lost:
        console.line(
            f"{summary.processed:,} recordings in this start, {summary.failed_now:,} failed; {summary.lost:,} of its processes "
            "died. The same command goes on from there."
        )
        return SOME_FAILED  # none is left that the launcher could stop for it
    if summary.slowest is not None:
        console.line(advice(summary.slowest, settings, summary.device))
    if summary.tally is None:
        console.line(
            f"Shard {settings.shard[0]}/{settings.shard[1]}: {summary.processed:,} recordings, "
            f"{summary.failed_now:,} failed, {rate:.1f} ECG/s. "
            f"When all shards are done: ecgfounder merge {settings.output_dir}"
        )
        return SOME_FAILED if (summary.failed_now or summary.plan.failed) and not launched else OK
    tally = summary.tally
    took = time.strftime("%H:%M:%S", time.gmtime(summary.seconds))
    console.line(
        f"{tally.done:,} of {tally.done + tally.failed + tally.pending:,} recordings embedded, {tally.failed:,} failed; "
        f"{summary.processed:,} in this start, {took}, {rate:.1f} ECG/s"
    )
    if summary.precision_error is not None:
        console.line(f"Measured error of {settings.precision} against float32: {summary.precision_error:.1e} relative")
    if summary.samples_per_pass is not None:
        fits = max(1, summary.samples_per_pass // 5000)
        console.line(
            f"The device's memory ran out; what held was a batch of {fits} recordings of 10 s (--batch_size {fits})"
        )
    print_tally(tally, settings.output_dir, console)
    if tally.pending:
        console.line(f"{tally.pending:,} recordings are still to do; the same command goes on with them")
        return SOME_FAILED
    return SOME_FAILED if tally.failed and not launched else OK


def print_tally(tally: Tally, output_dir: Path, console: Terminal) -> None:
    """What the records of a run came to."""
    from ecgfounder.manifest import STAGES

    if tally.seconds:
        stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in tally.seconds.items() if stage in STAGES)
        console.line(f"Time by stage, all processes and threads together: {stages}")
    if pulses := tally.flags.get("calibration_pulse"):
        console.line(
            f"{pulses:,} of {tally.done:,} recordings include a 1 mV calibration pulse in their embedding; "
            "--window 10 leaves it out."
        )
    if tally.likely:
        shares = ", ".join(f"{label} {count / tally.done:.0%}" for label, count in tally.likely.most_common(5))
        console.line(f"Statements with a probability of one half or more: {shares}")
    for record, reason in tally.failures:
        console.line(f"FAILED {record}: {reason}")
    if any("No such file" in reason for _, reason in tally.failures):
        console.line("Relative paths start from --data_dir (by default the working directory): is it the right one?")
    if tally.failed:
        console.line(f"All failures with their reasons: {output_dir / '_run' / 'failures.csv'}")


def print_preview(preview: Preview, settings: Settings) -> int:
    """The answer to --dry_run; the exit status says whether the start would be refused."""
    from ecgfounder.budget import MANY_FILES, megabytes

    plan, budget = preview.plan, preview.budget
    print(f"recordings  {preview.n_records:,}")
    for name in ("n_todo", "done", "failed", "changed", "missing", "gone"):
        print(f"{'to do' if name == 'n_todo' else name:<11} {getattr(plan, name):,}")
    verdict = "resumes the run that is there" if preview.resumes else "new run"
    if preview.differences:
        verdict = "REFUSED, other settings:\n  " + "\n  ".join(preview.differences)
    print(f"fingerprint {verdict}")
    print(
        f"output      about {megabytes(budget.bytes)} in {budget.files:,} files; free: {megabytes(budget.free_bytes)}"
    )
    if not budget.fits:
        print("space       REFUSED, it does not fit")
    if preview.colliding_names:
        print(
            f"names       REFUSED, {preview.colliding_names:,} output names would be shared (--layout tree, --id_column)"
        )
    if settings.format == "json" and budget.files > MANY_FILES:
        print(f"advice      more than {MANY_FILES:,} files are slow to handle: consider --format parquet")
    return REFUSED if preview.differences or preview.colliding_names or not budget.fits else OK


def add_merge_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder merge`."""
    parser.add_argument("output_dir", help="the run's output folder")


def run_merge(arguments: argparse.Namespace) -> int:
    """Finish the books; exit status 1 where recordings failed or are still to do."""
    from ecgfounder.merge import merge

    tally = merge(Path(arguments.output_dir))
    console = Terminal()
    console.line(f"{tally.done:,} recordings embedded, {tally.failed:,} failed, {tally.pending:,} still to do")
    print_tally(tally, Path(arguments.output_dir), console)
    return SOME_FAILED if tally.failed or tally.pending else OK


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `ecgfounder demo`."""
    parser.add_argument("folder", nargs="?", default="demo", help="where to make it (default: %(default)s)")


def run_demo(arguments: argparse.Namespace) -> int:
    """Make the built-in cohort and checkpoint and embed them; what the README begins with."""
    from ecgfounder.demo import WEIGHTS_NOTE, write_demo

    folder = Path(arguments.folder)
    paths = write_demo(folder)
    command = [
        *("--dataset", str(paths.dataset), "--data_dir", str(paths.data_dir)),
        *("--checkpoint", str(paths.checkpoint), "--output_dir", str(folder / "embeddings")),
    ]
    print(f"ecgfounder embed {' '.join(command)}", file=sys.stderr)
    parser = argparse.ArgumentParser()
    add_embed_arguments(parser)
    status = run_embed(parser.parse_args([*command, "--overwrite"]))
    print(WEIGHTS_NOTE, file=sys.stderr)
    # The cohort holds one damaged file on purpose, so "some failed" is what should happen.
    return OK if status == SOME_FAILED else status


if __name__ == "__main__":
    sys.exit(main())
