"""`ecgfounder inspect`: show what the readers find in ECG files, as text (details or a table) or as JSON lines.

In: paths of files and folders, and hints for files that do not state all facts. Out: lines on standard output, optionally a
drawing, and an exit status. No patient data is printed: `Recording` does not hold any.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ecgfounder.commands.arguments import (
    add_network_arguments,
    add_signal_arguments,
    add_storage_argument,
    loaded_network,
    preparation_of,
)
from ecgfounder.commands.evidence import Explainer, Shown, add_evidence_arguments
from ecgfounder.commands.terminal import as_flags
from ecgfounder.errors import MissingDependencyError, PrepareError, ReadError, RunError, SettingsError, StorageError
from ecgfounder.escaping import counted, one_line
from ecgfounder.storage import (
    NO_OPTIONS,
    StorageOptions,
    Unavailable,
    is_url,
    locate_folder,
    names_archive,
    path_here,
    storage_options,
)
from ecgfounder.storage.paths import split_archive

if TYPE_CHECKING:
    from ecgfounder.ecg.recording import Recording
    from ecgfounder.preprocess.preparation import Preparation
    from ecgfounder.readers.source import Hints

    LookAt = Callable[[str], "tuple[Finding, Recording | None]"]

ALL_GOOD, SOME_NOT = 0, 1
MOST_REASONS = 20
"""Maximum number of failure reasons in the final counts; a damaged archive can have very many."""


# --- arguments -------------------------------------------------------------------------------------------------------


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder inspect`."""
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="ECG file, container::member, or folder")
    add(
        "--plot",
        metavar="OUT",
        help="draw at 25 mm/s and 10 mm/mV: one recording into this .png or .svg file, several into this folder (default: no "
        "drawing)",
    )
    add(
        "--title",
        help="heading of the drawings, with {name} for the file's name, which is the default; '' for none",
    )
    add("--json", action="store_true", help="one JSON object per file and line")
    add_storage_argument(parser)
    add_signal_arguments(parser)
    add_evidence_arguments(parser)
    add_network_arguments(parser)
    add = parser.add_argument_group("reading").add_argument
    add("--sampling_rate", type=float, help="in Hz, for formats that do not state it")
    add("--unit", help="mV, uV, V or a number of units per mV, for formats that do not state it")
    add("--leads", help="lead names in the file's order, comma-separated, for formats that do not state them")


def run_inspect(arguments: argparse.Namespace) -> int:
    """Inspect files.

    Returns
    -------
    int
        Exit status: 0 if all files can be embedded with these flags, 1 if some cannot, or are not readable.

    Raises
    ------
    SettingsError, MissingDependencyError, RunError, CheckpointError
        If the flags are not valid, matplotlib is needed and not installed, the lines or a drawing cannot be written, or the
        checkpoint of evidence cannot be used; the caller turns this into exit status 2.
    """
    options = storage_options(arguments.storage_options)
    look = partial(find_out, hints=_hints(arguments), preparation=preparation_of(arguments), options=options)
    alone = len(arguments.paths) == 1 and not _is_folder(arguments.paths[0], options)
    drawings = None
    if arguments.plot is not None:
        drawings = Drawings(_checked_plot(arguments.plot, alone=alone), arguments.title)
    elif arguments.title is not None:
        raise SettingsError("the 'title' parameter is the heading of a drawing: it needs the 'plot' parameter too.")
    if arguments.occlusion and not arguments.evidence:
        raise SettingsError(
            "the 'occlusion' parameter needs the 'evidence' parameter: the statements that are asked for."
        )
    with ExitStack() as stack:
        explain = None
        if arguments.evidence:
            model = stack.enter_context(loaded_network(arguments))
            draws = drawings is not None
            explain = Explainer.of(model, arguments.evidence, occlusion=arguments.occlusion, draws=draws)
        if alone:
            return _inspect_one(arguments.paths[0], look, drawings, explain, as_json=arguments.json)
        return _inspect_many(arguments.paths, look, drawings, explain, options, as_json=arguments.json)


def _shown(explain: Explainer | None, finding: Finding, recording: Recording | None) -> Shown | None:
    if explain is None or recording is None or finding.problem is not None:
        return None
    return explain.show(recording)


@dataclass(frozen=True)
class Drawings:
    """Where drawings go: a file, or a folder for several; and their heading, None for the file's name."""

    place: Path
    title: str | None

    def draw(self, finding: Finding, recording: Recording, out: Path, shown: Shown | None) -> None:
        """Draw one recording, with the bands of its evidence."""
        from ecgfounder.ecg.plot import plot_recording

        name = os.path.basename(finding.path.rstrip("/"))
        title = name if self.title is None else self.title.replace("{name}", name)
        bands = () if shown is None else shown.bands
        plot_recording(recording, out, title, heart_rate=finding.heart_rate, bands=bands)


def _is_folder(path: str, options: StorageOptions) -> bool:
    if not is_url(path) and not names_archive(path):
        return os.path.isdir(path)
    place = locate_folder(path, options)
    try:
        return place.is_folder() and (place.is_local or not place.exists())
    except StorageError as error:
        raise StorageError(f"{path}: {error}") from error


def _hints(arguments: argparse.Namespace) -> Hints:
    from ecgfounder.ecg.leads import canonical_leads
    from ecgfounder.readers.quantities import hinted_scale
    from ecgfounder.readers.source import Hints

    rate = arguments.sampling_rate
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise SettingsError(
            f"Invalid value for the 'sampling_rate' parameter. It must be more than 0 Hz, got {rate:g}."
        )
    leads = canonical_leads(arguments.leads.split(",")) if arguments.leads else None
    hints = Hints(rate, arguments.unit, leads)
    try:
        hinted_scale(hints)
    except ReadError as error:  # wrong for every file, so an error of the command line
        raise SettingsError(str(error)) from error
    return hints


def _checked_plot(plot: str, *, alone: bool) -> Path:
    """The file of the drawing, or the folder of the drawings, which is made."""
    from ecgfounder.ecg.plot import PLOT_SUFFIXES, check_plot_path

    out = path_here(plot, "plot")
    if alone:
        check_plot_path(out)
    elif out.suffix.lower() in PLOT_SUFFIXES:
        raise SettingsError("--plot must be a folder for the drawings of several files, not the name of one drawing.")
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{out}: cannot be made: {error.strerror or error}") from error
    return out


# --- findings --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """The facts about one file.

    Attributes
    ----------
    path : str
        As given, or below the folder as given.
    error : str or None
        Why the file could not be read, without the path; the following attributes are then empty.
    format, version : str, str or None
        The reader's name, and the format's version if the file states it.
    leads : tuple of str
        The leads in the file, by canonical name; 'channel N' for unknown names.
    derived, missing : tuple of str
        Leads of the twelve that are computed from two of I, II and III, and those that are missing.
    sampling_rate, samples, seconds : float, int, float
        Sampling rate in Hz, samples per lead, and duration.
    heart_rate : float or None
        Beats per minute in the samples (`ecgfounder.preprocess.beats`); None if no beats stand out.
    resolution_uv : float or None
        Microvolts per unit of the stored samples, if the file has a single scale.
    range_mv : dict of str to tuple of (float, float) or None
        Lowest and highest sample of each lead in mV, without calibration pulses; None for a lead without finite samples.
    device : dict of str to str or float
        Manufacturer, model, software and filters of the device.
    flags : tuple of str
        Quality flags, "name" or "name:detail" (`ecgfounder.quality.FLAGS`).
    problem : str or None
        Why the recording cannot be embedded with the given settings although it was read.
    """

    path: str
    error: str | None = None
    format: str = ""
    version: str | None = None
    leads: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    sampling_rate: float = 0.0
    samples: int = 0
    seconds: float = 0.0
    heart_rate: float | None = None
    resolution_uv: float | None = None
    range_mv: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    device: dict[str, str | float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    problem: str | None = None

    def as_json(self, shown: Shown | None = None) -> str:
        """One line of ASCII; bytes of a path that are not UTF-8 are lone surrogates."""
        if self.error is not None:
            return json.dumps({"path": self.path, "error": self.error})
        return json.dumps({**asdict(self), **({} if shown is None else {"evidence": shown.as_json})}, allow_nan=False)


def find_out(
    path: str,
    hints: Hints | None = None,
    preparation: Preparation | None = None,
    options: StorageOptions = NO_OPTIONS,
) -> tuple[Finding, Recording | None]:
    """Read and examine one file; a file that cannot be read gives a finding too.

    Parameters
    ----------
    path : str
        The file.
    hints : Hints, optional
        For files that do not state all facts.
    preparation : Preparation, optional
        Settings with which the recording is to be embedded.
    options : StorageOptions
        Options of object stores.

    Returns
    -------
    Finding
        The facts about the file.
    Recording or None
        The recording, if it was read.
    """
    from ecgfounder.readers import make_source, read_source
    from ecgfounder.readers.source import Hints

    try:
        recording = read_source(make_source(path, hints or Hints(), options))
        return describe(path, recording, preparation), recording
    except (ReadError, MissingDependencyError) as error:
        return Finding(path, error=str(error) or type(error).__name__), None
    except Unavailable as error:  # other files will not be read either
        raise Unavailable(f"{path}: {error}") from error
    except StorageError as error:
        return Finding(path, error=str(error)), None
    except MemoryError:
        return Finding(path, error="needs more memory than is available"), None


def describe(path: str, recording: Recording, preparation: Preparation | None = None) -> Finding:
    """The facts about a recording, and whether it can be embedded with the given settings, if any."""
    from ecgfounder.ecg.leads import channel_label, select_leads
    from ecgfounder.preprocess.beats import heart_rate

    selection = select_leads(recording)
    flags, problem = _flags(recording, selection.missing)
    if problem is None and preparation is not None:
        problem = _problem(recording, preparation)
    meta = {key: value if isinstance(value, str) else float(value) for key, value in recording.meta.items()}
    meta = {key: value for key, value in meta.items() if isinstance(value, str) or math.isfinite(value)}
    version, resolution = meta.pop("format_version", None), meta.pop("resolution_uv", None)
    labels = tuple(channel_label(recording, lead) for lead in recording.leads)
    return Finding(
        path=path,
        format=recording.source_format,
        version=None if version is None else str(version),
        leads=labels,
        derived=selection.derived,
        missing=selection.missing,
        sampling_rate=float(recording.sampling_rate),
        samples=recording.n_samples,
        seconds=recording.duration,
        heart_rate=heart_rate(recording),
        resolution_uv=None if resolution is None else float(resolution),
        range_mv=dict(zip(labels, _ranges(recording), strict=True)),
        device=meta,
        flags=flags,
        problem=problem,
    )


def _ranges(recording: Recording) -> Iterator[tuple[float, float] | None]:
    """Lowest and highest sample of each lead, in the longest part of the recording without a calibration pulse."""
    import numpy as np

    from ecgfounder.ecg.leads import KNOWN_LEADS, has_signal
    from ecgfounder.preprocess.calibration import calibration_pulses, without_pulses

    shown = [
        row for row, lead in enumerate(recording.leads) if lead in KNOWN_LEADS and has_signal(recording.samples[row])
    ]
    pulses = []
    if shown:
        finite_samples = np.nan_to_num(recording.samples[shown], nan=0.0, posinf=0.0, neginf=0.0)
        pulses = calibration_pulses(finite_samples, [recording.leads[row] for row in shown], recording.sampling_rate)
    start, stop = without_pulses(recording.samples, pulses, 0, recording.n_samples)
    for lead in recording.samples[:, start:stop]:
        finite = lead[np.isfinite(lead)]
        # Six decimals, a nanovolt: further digits are rounding of float32.
        yield (round(float(finite.min()), 6), round(float(finite.max()), 6)) if finite.size else None


def _flags(recording: Recording, missing: tuple[str, ...]) -> tuple[tuple[str, ...], str | None]:
    """The quality flags of a run, and the reason if the recording cannot be prepared as an input.

    Uses all twelve leads if they are available or can be derived, else all leads of the recording.
    """
    from ecgfounder.preprocess.preparation import Preparation
    from ecgfounder.preprocess.quality import flag
    from ecgfounder.preprocess.signals import prepare

    flags: tuple[str, ...] = ()
    mode, lead = ("1lead", "I") if len(recording.leads) == 1 else ("1lead", "all") if missing else ("12lead", "I")
    if lead == "all":
        flags = (flag("missing_leads", missing),)
    # One window of the whole recording: windows are made on demand, and none is needed here, so that a 24-hour recording is
    # neither resampled nor normalised.
    window = recording.duration + 1
    try:
        signal = prepare(recording, Preparation(mode=mode, lead=lead, window=window, stride=window, remainder="keep"))
    except PrepareError as error:
        return flags, str(error)
    return flags + signal.flags, None


def _problem(recording: Recording, preparation: Preparation) -> str | None:
    """Why the recording cannot be embedded with these settings; None if it can be."""
    from ecgfounder.preprocess.signals import prepare

    # With a stride, inputs are made on demand, and none is needed here.
    if preparation.window is None:
        window = recording.duration + 1
        preparation = replace(preparation, window=window, stride=window, remainder="keep")
    elif preparation.stride is None:
        preparation = replace(preparation, stride=preparation.window)
    try:
        prepare(recording, preparation)
    except PrepareError as error:
        return str(error)
    return None


# --- one file --------------------------------------------------------------------------------------------------------


def _inspect_one(
    path: str, look: LookAt, drawings: Drawings | None, explain: Explainer | None, *, as_json: bool
) -> int:
    finding, recording = look(path)
    shown = _shown(explain, finding, recording)
    if as_json:
        _print(finding.as_json(shown))
    elif finding.error is not None:
        _print(f"{finding.path}: {as_flags(finding.error)}")
    else:
        for line in page(finding, shown):
            _print(line)
    if recording is None:
        return SOME_NOT
    if drawings is not None:
        drawings.draw(finding, recording, drawings.place, shown)
        print(f"drawn at 25 mm/s and 10 mm/mV: {one_line(str(drawings.place))}", file=sys.stderr)
    return ALL_GOOD if finding.problem is None else SOME_NOT


def page(finding: Finding, shown: Shown | None = None) -> Iterator[str]:
    """The lines about one file that was read, and about its evidence."""
    for name, text in _rows_of_page(finding):
        yield f"{name:<11} {text}"
    for number, (lead, extremes) in enumerate(finding.range_mv.items()):
        text = "no samples" if extremes is None else f"{extremes[0]:8.3f} to {extremes[1]:7.3f} mV"
        yield f"{'amplitude' if number == 0 else '':<11} {lead:<11} {text}"
    if not finding.flags:
        yield f"{'flags':<11} none"
    for number, flag in enumerate(finding.flags):
        yield f"{'flags' if number == 0 else '':<11} {flag}"
        yield from textwrap.wrap(_definition(flag), 108, initial_indent=" " * 14, subsequent_indent=" " * 14)
    for name, text in () if shown is None else shown.lines:
        yield from textwrap.wrap(text, 122, initial_indent=f"{name:<11} ", subsequent_indent=" " * 12)


def _rows_of_page(finding: Finding) -> Iterator[tuple[str, str]]:
    from ecgfounder.ecg.plot import filter_settings

    yield "file", finding.path
    yield "format", f"{finding.format} {finding.version or ''}".strip()
    yield "leads", f"{len(finding.leads)}: {' '.join(finding.leads)}"
    if finding.derived:
        yield "derived", f"{' '.join(finding.derived)} (from two of I, II and III)"
    if finding.missing and len(finding.leads) > 1:
        yield "missing", f"{' '.join(finding.missing)} (of the twelve; --mode 12lead needs --missing_leads zero)"
    yield "rate", f"{finding.sampling_rate:g} Hz"
    yield "duration", f"{_seconds(finding.seconds)} s, {finding.samples:,} samples per lead"
    rate = finding.heart_rate
    yield "heart rate", "no beats found" if rate is None else f"{rate:.0f} per minute, measured in the samples"
    yield "unit", "not stated" if finding.resolution_uv is None else f"{finding.resolution_uv:g} uV per stored unit"
    device = (finding.device.get(key) for key in ("device_manufacturer", "device_model", "software_version"))
    yield "device", ", ".join(str(text) for text in device if text) or "not stated"
    yield "filters", filter_settings(finding.device) or "not stated"
    if finding.problem is not None:
        yield "embedding", f"not possible: {as_flags(finding.problem)}"


def _definition(flag: str) -> str:
    from ecgfounder.preprocess.quality import FLAGS

    return FLAGS[flag.partition(":")[0]]


# --- many files ------------------------------------------------------------------------------------------------------


@dataclass
class FindingCounts:
    """Counts over the files seen so far; the files themselves are not kept."""

    formats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        if finding.error is not None:
            self.reasons[kind_of(as_flags(finding.error))] += 1
            return
        self.formats[finding.format] += 1
        self.flags.update({flag.partition(":")[0] for flag in finding.flags})
        if finding.problem is not None:
            self.problems[kind_of(as_flags(finding.problem))] += 1

    @property
    def n_failed(self) -> int:
        return self.reasons.total()

    def lines(self) -> Iterator[str]:
        """The summary: a count per format, per flag and per reason."""
        n_read, n_problems = self.formats.total(), self.problems.total()
        unable = f", {n_problems:,} of them cannot be embedded" if n_problems else ""
        yield f"{counted(n_read + self.n_failed, 'file')}: {n_read:,} read{unable}, {self.n_failed:,} not readable"
        counts = (("format", self.formats), ("flag", self.flags), ("cannot be embedded", self.problems))
        for title, counter in (*counts, ("not readable", self.reasons)):
            for name, count in counter.most_common(MOST_REASONS):
                yield f"{count:>9,}  {title}: {name}"
            others = counter.most_common()[MOST_REASONS:]
            if others:
                yield f"{sum(count for _, count in others):>9,}  {title}: of {len(others)} other kinds"


def kind_of(reason: str) -> str:
    """A reason without numbers and quoted text, which differ from file to file, for counting; an apostrophe quotes nothing."""
    without_quotes = re.sub(r"""(?<![\w'])b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", "'...'", reason)
    return re.sub(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)*(?:e[+-]?\d+)?(?!\w)", "N", without_quotes)


def _inspect_many(
    paths: Iterable[str],
    look: LookAt,
    drawings: Drawings | None,
    explain: Explainer | None,
    options: StorageOptions,
    *,
    as_json: bool,
) -> int:
    """A line per file as it is read, then the counts (on standard error beside JSON)."""
    tally = FindingCounts()
    taken: set[str] = set()
    if not as_json:
        _print(f"{'format':<15} {'leads':>6} {'Hz':>7} {'s':>9}  file  [flags]")
    for path, name in _files(paths, options):
        finding, recording = (_nothing_in(path), None) if name is None else look(path)
        shown = _shown(explain, finding, recording)
        tally.add(finding)
        _print(finding.as_json(shown) if as_json else table_line(finding, shown))
        if drawings is not None and recording is not None and name is not None:
            drawings.draw(finding, recording, _place_of(name, drawings.place, taken), shown)
        if getattr(sys.stdout, "is_gone", False):  # the reader of the lines (head, less) has ended
            break
    if not as_json:
        _print("")
    for line in tally.lines():
        _print(line, sys.stderr if as_json else sys.stdout)
    return SOME_NOT if tally.n_failed or tally.problems else ALL_GOOD


def _files(paths: Iterable[str], options: StorageOptions) -> Iterator[tuple[str, str | None]]:
    """The files and their names below the given folder; folders are replaced by their files, unless there are none."""
    from ecgfounder.cohort.sources import ecg_files

    for path in paths:
        if not _is_folder(path, options):
            yield path, os.path.basename(path.partition("::")[0]) + path[len(path.partition("::")[0]) :]
            continue
        empty = True
        for file in ecg_files(path, options):
            empty = False
            yield file, _name_below(file, path)
        if empty:
            yield path, None


def _name_below(file: str, folder: str) -> str:
    """The name of a file below a folder; in an archive, that in the archive."""
    _, within = split_archive(file)
    if within is None:
        return os.path.relpath(file, folder)
    return os.path.relpath(within, split_archive(folder)[1] or ".")


def _place_of(name: str, drawings: Path, taken: set[str]) -> Path:
    """The file of a drawing: the recording's name below its folder, with .png; made unique, and never outside `drawings`."""
    container, separator, member = name.partition("::")
    parts = [part for part in container.split("/") if part not in ("", ".", "..")]
    stem = "/".join(parts) + (separator and f"--{re.sub('[/:]+', '-', member)}")
    number = 1
    while (unique := stem if number == 1 else f"{stem}-{number}").lower() in taken:
        number += 1
    taken.add(unique.lower())
    out = drawings / f"{unique}.png"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{out.parent}: cannot be made: {error.strerror or error}") from error
    return out


def _nothing_in(folder: str) -> Finding:
    return Finding(folder, error="a folder without a file whose name ends as an ECG's does")


def table_line(finding: Finding, shown: Shown | None = None) -> str:
    """One file's line in the table, with the probabilities of the statements that are asked for."""
    if finding.error is not None:
        return f"{'-':<15} {'-':>6} {'-':>7} {'-':>9}  {finding.path}  not readable: {as_flags(finding.error)}"
    leads = f"{len(finding.leads)}+{len(finding.derived)}" if finding.derived else str(len(finding.leads))
    notes = " ".join(finding.flags)
    if finding.problem is not None:
        notes = f"{notes} cannot be embedded: {as_flags(finding.problem)}".strip()
    if shown is not None:
        asked = "; ".join(f"{label} {each['probability']:.3f}" for label, each in shown.as_json.items())
        notes = f"{notes} {asked}".strip()
    line = f"{finding.format:<15} {leads:>6} {finding.sampling_rate:>7g} {_seconds(finding.seconds):>9}  {finding.path}"
    return f"{line}  {notes}" if notes else line


def _seconds(seconds: float) -> str:
    """A duration to the millisecond, without trailing zeros."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


# --- output ----------------------------------------------------------------------------------------------------------


def _print(text: str, stream: TextIO | None = None) -> None:
    """Print one line and flush it, because reading the next file may take long."""
    print(one_line(text), file=sys.stdout if stream is None else stream, flush=True)
