"""Output of commands on a terminal: lines, a progress bar, and the counts of a run.

In: a command's work. Out: its exit status. It does not depend on the standard streams, which may be closed, full, or a pipe
without a reader. No control character of a file's name or of a flag's value reaches it.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from ecgfounder.drivers.interruption import Stopped, listening
from ecgfounder.errors import ECGFounderError, SettingsError
from ecgfounder.escaping import one_line
from ecgfounder.run.pace import Minutes, Pace

if TYPE_CHECKING:
    from ecgfounder.ledger.manifest import Tally
    from ecgfounder.storage import Location


OK, SOME_FAILED, REFUSED = 0, 1, 2
"""Exit statuses of commands; 128 + n after an interruption by signal n."""


_FLAGS = "|".join(
    (
        *(
            "allow_different",
            "allow_incomplete",
            "batch_size",
            "code_classes",
            "check_hashes",
            "cpus_per_actor",
            "data_dir",
            "dataset_name",
            "dry_run",
            "ecg_time",
            "embeddings_dirs",
            "exclude_flags",
            "gpus_per_actor",
            "group_size",
            "heart_rate",
        ),
        *(
            "id_column",
            "keep_columns",
            "keep_missing",
            "label_time",
            "least_likelihood",
            "max_samples",
            "missing_leads",
            "modality_mapping",
            "num_workers",
            "n_draws",
            "one_per_patient",
        ),
        *(
            "as_levels",
            "as_number",
            "output_dir",
            "output_file",
            "output_format",
            "path_column",
            "random_directions",
            "random_networks",
            "ray_address",
            "read_memory",
            "read_timeout",
            "retry_failed",
            "sampling_rate",
            "separate_patients",
            "test_runs",
            "zero_likelihood",
        ),
        *("shard_size", "storage_options", "target_cols", "text_cols", "trim_zero_edges", "write_slurm"),
    )
)
_WORDS = (
    "actors|baseline|by|chance|checkpoint|classes|codes|combine|compiled|controls|dataset|days|device|driver|dtype|engine|features|"
    "folds|format|group|head|label|layout|lead|leads|measure|mode|names|number|on|overwrite|permutations|pooling|port|precision|"
    "predictions|reader|"
    "recipe|refit|remainder|resampling|sample|score|seed|sensitivity|shard|split|statements|stride|test|unit|validation|where|window"
)
_SETTING = re.compile(rf"(?<![\w.'\"-])({_FLAGS}|{_WORDS})=(?:(True)\b|'([^']*)'|(\d[\d.]*\d|\d))")
_PARAMETER = re.compile(rf"the '({_FLAGS}|{_WORDS})' parameter")
_NAME = re.compile(rf"(?<![\w/.'\"=-])({_FLAGS})\b(?![\w/'\"=]|\.\w)")


def as_flags(text: str) -> str:
    """A message of the library with its parameters replaced by flags of the command line.

    >>> as_flags("layout='tree' mirrors the folders below data_dir; use overwrite=True, window=10, or the 'split' parameter")
    '--layout tree mirrors the folders below --data_dir; use --overwrite, --window 10, or --split'
    """

    def setting(found: re.Match[str]) -> str:
        name = "compile" if found[1] == "compiled" else found[1]
        return f"--{name}" if found[2] else f"--{name} {found[3] or found[4]}"

    return _NAME.sub(r"--\1", _PARAMETER.sub(r"--\1", _SETTING.sub(setting, text)))


def as_command(work: Callable[[], int]) -> int:
    """Run a command: errors of the package are printed as one line, not as a traceback; signal n gives exit status 128 + n."""
    with _steady_streams(), _log_in_lines(LineFormatter()), _seen_children(), listening(_stop):
        status = status_of(work, lambda text: print(f"ecgfounder: {text}", file=sys.stderr))
    if (ray := sys.modules.get("ecgfounder.drivers.ray")) is not None:
        ray.leave(status)
    return status


@contextmanager
def _seen_children() -> Iterator[None]:
    """See how processes end that this one has started, even if the program that started it ignores that (SIGCHLD)."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGCHLD) != signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def status_of(work: Callable[[], int], tell: Callable[[str], None]) -> int:
    """The exit status of a command's work; `tell` gets the message of an error of the package, or of a signal."""
    try:
        return work()
    except ECGFounderError as error:
        tell(_message_of(error))
        return REFUSED
    except KeyboardInterrupt as interrupt:
        number = interrupt.signal if isinstance(interrupt, Stopped) else signal.SIGINT
        tell(f"stopped by {signal.Signals(number).name}")
        return 128 + number


def print_error(program: str, error: Exception) -> None:
    """Print an error of the package: a line, and the indented lines of a list after it, if the message has one."""
    print(f"{program}: {_message_of(error)}", file=sys.stderr)


def _message_of(error: Exception) -> str:
    return "\n  ".join(one_line(line) for line in as_flags(str(error)).split("\n  "))


_FLAG = re.compile(r"--[A-Za-z][\w-]*")


class Parser(argparse.ArgumentParser):
    """A parser whose errors, which repeat what was given, are one line; so are those of its commands."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As `argparse` does; before it complains of anything else, a flag that looks like one that exists is named with it."""
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # the flags after a command are for the command's own parser
            for word in takewhile(lambda word: word != "--", words):
                if close := self._close_flag(word):
                    self.error(f"unrecognized arguments: {word.partition('=')[0]} (did you mean {close}?)")
        return super().parse_known_args(words, namespace)

    def _close_flag(self, word: str) -> str | None:
        """The flag that was meant by an unknown one; None if it is a flag, the beginning of one, or like none."""
        name = word.partition("=")[0]
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        if _FLAG.fullmatch(name) is None or any(flag.startswith(name) for flag in flags):
            return None
        same = "--" + name[2:].replace("-", "_").lower()
        return same if same in flags else next(iter(get_close_matches(same, flags, 1)), None)


class LineFormatter(logging.Formatter):
    """Log messages as one line each."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


@contextmanager
def _log_in_lines(formatter: logging.Formatter) -> Iterator[None]:
    """Print each log message as one line: commands set no handler, so that `logging.lastResort` prints warnings."""
    handler = logging.lastResort
    if handler is None:
        yield
        return
    before = handler.formatter
    handler.setFormatter(formatter)
    try:
        yield
    finally:
        handler.setFormatter(before)


def check_working_folder() -> None:
    """Refuse to work in a working directory that no longer exists: no relative path could be resolved.

    Raises
    ------
    SettingsError
        If it no longer exists; the message says how to fix it.
    """
    from ecgfounder.storage import working_folder

    working_folder()


def check_temporary_folder() -> None:
    """Refuse to work without a folder for temporary files, for commands that need PyTorch or `datasets`: these need one.

    Raises
    ------
    SettingsError
        If there is none; the message says how to fix it.
    """
    try:
        tempfile.gettempdir()
    except OSError as error:
        raise SettingsError(f"{error.strerror or error}: set TMPDIR to a folder with space.") from error


def _stop(number: int) -> None:
    raise Stopped(number)


@contextmanager
def _steady_streams() -> Iterator[None]:
    """Make printing to the standard streams safe: lines that cannot be printed are dropped, without any other effect."""
    _open_missing()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:
        sys.stdout, sys.stderr = (cast(TextIO, SteadyStream(stream or nowhere)) for stream in before)
        try:
            yield
        finally:
            sys.stdout.flush()  # not when Python exits, because a failure then changes the exit status
            sys.stderr.flush()
            sys.stdout, sys.stderr = before


def _open_missing() -> None:
    """Open streams that the parent process closed (`2>&-`), so that no file gets their numbers, and with it printed lines."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            os.dup2(opened, number)
            if opened != number:
                os.close(opened)


class SteadyStream:
    """A text stream that never fails: after the first write that fails, all text is dropped.

    Of the characters that are not printable only line breaks pass, and what moves the cursor of a progress bar; others are
    escaped (`ecgfounder.escaping`).

    Attributes
    ----------
    is_gone : bool
        Whether it was a pipe whose reader has ended.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.is_gone = self._is_told = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(_printable(text).encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._give_up(error)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        # The stream's buffer goes to the null device too: Python's flush at exit must not fail either.
        with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())
        self.is_gone = getattr(error, "errno", None) == errno.EPIPE
        # Not reported: a reader that has ended (`head`), and a stream that was closed (a library's log may keep one).
        if isinstance(error, OSError) and not (self.is_gone or self._is_told or sys.stderr is self):
            self._is_told = True
            print(f"ecgfounder: some output could not be printed: {error}", file=sys.stderr)


_CURSOR = re.compile(r"(?:\n|\x1b\[A)*")
"""What tqdm writes between several progress bars: line breaks, or commands that move the cursor up."""


def _printable(text: str) -> str:
    if _CURSOR.fullmatch(text):
        return text
    start = "\r" if text.startswith("\r") else ""  # each state of a progress bar begins with it
    return start + "\n".join(one_line(line) for line in text[len(start) :].split("\n"))


class Terminal:
    """Lines on standard error, and the progress: a bar on a terminal, elsewhere a line a minute."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._quiet = int(os.environ.get("RANK", "0") or "0") > 0
        self._minutes = Minutes(self.minute)
        self._printing = threading.Lock()

    def line(self, text: str) -> None:
        """Print a message of the library or of a command."""
        self._print(one_line(as_flags(text)))

    def minute(self, pace: Pace) -> None:
        """Print how far the run is, where there is no progress bar."""
        size = int(os.environ.get("WORLD_SIZE", "1") or "1")
        who = f"process 1 of {size}: " if size > 1 else ""  # the others have about as many records
        self._print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {who}{pace}")

    def event(self, name: str, **values: object) -> None:
        """What only machines need to know; see `JsonTerminal`."""

    def progress(self, done: int, failed: int, total: int, detail: str = "") -> None:
        """Show how far the run is; on the main process only."""
        if self._quiet:
            return
        if not self._has_bar:
            self._minutes.count(done, failed, total, one_line(detail))
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="ECG", file=sys.stderr, smoothing=0.05)
        self._bar.set_postfix_str(f"failed {failed}{', ' if detail else ''}{one_line(detail)}", refresh=False)
        self._bar.update(done + failed - self._bar.n)

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Print the UserWarnings of a block as lines."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
        for each in caught:
            self.line(str(each.message))

    def close(self) -> None:
        """End the progress."""
        self._minutes.close()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def _has_bar(self) -> bool:
        return sys.stderr.isatty()

    def _print(self, text: str) -> None:
        with suppress(OSError), self._printing:  # a run continues if standard error is closed
            if self._bar is not None:
                self._bar.write(text, file=sys.stderr)
            else:
                print(text, file=sys.stderr, flush=True)


class JsonTerminal(Terminal):
    """A JSON object a line on standard error, for programs that read logs; warnings of the log are such lines too.

    Each has "time" (UTC) and "event": "message" and "error" with "message", "progress" with the fields of `Pace`, "end" with the
    outcome.
    """

    def line(self, text: str) -> None:
        self.event("message", message=one_line(as_flags(text)))

    def minute(self, pace: Pace) -> None:
        self.event("progress", **{name: value for name, value in asdict(pace).items() if value != ""})

    def event(self, name: str, **values: object) -> None:
        self._print(json_line(name, **values))

    def error(self, text: str) -> None:
        """Print the message of an error; the lines of a list stay apart."""
        self.event("error", message=text)

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Within the block, print messages of the log as JSON too."""
        with _log_in_lines(_JsonFormatter()):
            yield

    @property
    def _has_bar(self) -> bool:
        return False


def json_line(event: str, **values: object) -> str:
    """A line of a log for programs."""
    import orjson

    return orjson.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "event": event, **values}).decode()


class _JsonFormatter(logging.Formatter):
    """Log messages as lines of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        return json_line("message", message=one_line(super().format(record)))


def print_tally(
    tally: Tally, output_dir: Path | Location, console: Terminal, *, all_before: bool = False, idle: bool = False
) -> None:
    """Print the counts of a run.

    Parameters
    ----------
    all_before : bool
        Whether its records failed in earlier attempts only.
    idle : bool
        Whether this attempt did no record; the times of earlier attempts are left out.
    """
    from ecgfounder.ledger.manifest import STAGES

    if tally.seconds and not idle:
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
    if tally.absent:
        console.line(
            f"Recordings without a file: {tally.absent:,}. Relative paths are relative to --data_dir (by default the working "
            "directory): check that it is right. The same command tries these recordings again when their files exist."
        )
    if tally.failed:
        console.line(f"All failures with their reasons: {output_dir / '_run/failures.csv'}")
        print_retry(tally.failed, console, all_before=all_before)


def print_retry(failed: int, console: Terminal, *, all_before: bool) -> None:
    """Print how failed recordings are tried again; `all_before` says that they failed in earlier attempts only."""
    them = "it" if failed == 1 else "them"
    console.line(f"{failed:,} failed{' before' if all_before else ''}; --retry_failed tries {them} again")
