"""`ecgfounder probe`: test by a linear probe what embeddings know about labels.

In: arguments. Out: a folder with tables, the fitted probe and a page, and an exit status.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ecgfounder.commands.analysis_arguments import add_analysis_arguments, label_table, named_runs, opened_runs
from ecgfounder.commands.terminal import OK, Terminal
from ecgfounder.errors import SettingsError
from ecgfounder.storage import Location, folder_text, locate, output_place, storage_options

if TYPE_CHECKING:
    from ecgfounder.analysis import ProbeResult, ProbeSettings
    from ecgfounder.analysis.probing.probe import MakeRandom, Runs


def add_probe_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder probe`."""
    add_analysis_arguments(parser)
    add = parser.add_argument_group("labels").add_argument
    add(
        "--label",
        action="append",
        default=[],
        metavar="NAME",
        help="column of 0 and 1, or code of --codes; may be repeated",
    )
    add("--classes", metavar="COLUMN", help="column with one of several classes")
    add(
        "--number",
        action="append",
        default=[],
        metavar="COLUMN",
        help="column of numbers, for a regression; may be repeated",
    )
    add("--time", metavar="COLUMN", help="column with the time from the ECG to an event, or to the end of observation")
    add("--event", metavar="COLUMN", help="column of 1 (event) and 0 (end of observation) at that time")
    add(
        "--horizons",
        nargs="+",
        type=float,
        default=[],
        metavar="TIME",
        help="times up to which risks are tested (default: quartiles of the times of events)",
    )
    add("--codes", metavar="COLUMN", help="column with lists or dictionaries of codes, e.g. scp_codes of PTB-XL")
    add(
        "--code_classes",
        nargs=2,
        metavar=("TABLE", "COLUMN"),
        help="table whose first column is the code, and its class",
    )
    add("--zero_likelihood", default="positive", help="a code with likelihood 0 is positive, negative or unknown")
    add("--least_likelihood", type=float, default=0.0, help="codes with a lower likelihood are unknown")
    add("--ecg_time", metavar="COLUMN", help="column with the time of the ECG")
    add("--label_time", metavar="COLUMN", help="column with the time of the label")
    add("--days", nargs=2, type=float, metavar=("FROM", "TO"), help="a label is known only so many days after the ECG")
    add("--one_per_patient", help="first, last or random: one recording of each patient")
    add("--features", default="mean", help="mean, mean_std (over tokens) or leads (default: %(default)s)")
    add(
        "--combine",
        default="mean",
        help="mean: embeddings of windows (and leads) are averaged; logit: logits of a model fitted to windows are "
        "(default: %(default)s)",
    )
    add = parser.add_argument_group("split").add_argument
    add("--folds", default="5", metavar="N|COLUMN", help="folds by patient, or the column that gives them (default: 5)")
    add("--split", metavar="COLUMN", help="column that gives the split")
    add("--test", nargs="+", default=["test"], metavar="VALUE", help="its values for the test part (default: test)")
    add("--validation", nargs="+", default=[], metavar="VALUE", help="its values for the validation part")
    add("--test_runs", nargs="+", default=[], metavar="NAME", help="train on the other runs, test on these")
    add("--separate_patients", action="store_true", help="equal patients in different runs are different people")
    add = parser.add_argument_group("statistics").add_argument
    add(
        "--sensitivity",
        type=float,
        default=0.9,
        help="a threshold is chosen for this sensitivity (default: %(default)s)",
    )
    add("--n_draws", type=int, default=1000, help="draws of patients for an interval (default: %(default)s)")
    add(
        "--refit",
        nargs="?",
        type=int,
        const=20,
        default=0,
        metavar="N",
        help="also the spread over N further divisions into folds (20)",
    )
    add("--controls", default="sample", help="none, sample (at most 5,000 recordings) or full (default: %(default)s)")
    add(
        "--permutations",
        type=int,
        default=20,
        help="permutations of the labels; 199 give a p-value (default: %(default)s)",
    )
    add(
        "--baseline",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns whose probe is a control, e.g. age sex device",
    )
    add(
        "--subgroups",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns whose values are subgroups that are tested too; age:10 makes bands, e.g. sex age:10 site flags",
    )
    add(
        "--learning_curve",
        nargs="*",
        type=int,
        metavar="N",
        help="also train on so many patients of the rarer class, 20 times each (without numbers: 10 30 100 300 1000)",
    )
    add(
        "--label_noise",
        action="store_true",
        help="name recordings whose leave-out prediction contradicts their label",
    )
    add(
        "--recalibrate",
        action="store_true",
        help="also test logits that are recalibrated on the validation part, or in the inner folds",
    )
    add(
        "--prediction_interval",
        nargs="?",
        type=float,
        const=0.9,
        metavar="LEVEL",
        help="for numbers: prediction intervals of this level (0.9), and their coverage",
    )
    add("--interval_by", metavar="COLUMN", help="prediction intervals of their own width by this column, e.g. age:10")
    add("--against", nargs="+", default=[], metavar="RUN", help="runs of the same recordings that are compared")
    add(
        "--random",
        nargs="+",
        default=[],
        metavar="RUN",
        help="runs of networks with random weights (embed --checkpoint random:SEED), a control; else they are made",
    )
    add(
        "--random_networks",
        type=int,
        default=5,
        metavar="N",
        help="networks with random weights that embed the sample, from the cohort's files (default: %(default)s)",
    )
    add("--data_dir", metavar="DIR", help="folder of the cohort's files, if it has moved since the run")
    add(
        "--head",
        nargs="+",
        default=[],
        metavar="FILE",
        help="heads that are fitted already: the fine-tuned checkpoint that the run was made with, or a probe.safetensors",
    )
    add(
        "--score",
        action="append",
        default=[],
        metavar="LABEL=COLUMN",
        help="a score that is there already; may be repeated",
    )


def settings_of(arguments: argparse.Namespace) -> ProbeSettings:
    """The settings from parsed arguments."""
    from ecgfounder.analysis import ProbeSettings

    scores = {}
    for each in arguments.score:
        label, equals, column = each.partition("=")
        if not (equals and label and column):
            raise SettingsError(f"Invalid value for the 'score' parameter. It must be LABEL=COLUMN, got {each!r}.")
        scores[label] = column
    return ProbeSettings(
        label=tuple(arguments.label),
        classes=arguments.classes,
        number=tuple(arguments.number),
        time=arguments.time,
        event=arguments.event,
        horizons=tuple(arguments.horizons),
        codes=arguments.codes,
        code_classes=_code_classes(arguments),
        zero_likelihood=arguments.zero_likelihood,
        least_likelihood=arguments.least_likelihood,
        on=arguments.on,
        group=arguments.group,
        separate_patients=arguments.separate_patients,
        where=arguments.where,
        exclude_flags=tuple(arguments.exclude_flags),
        ecg_time=arguments.ecg_time,
        label_time=arguments.label_time,
        days=None if arguments.days is None else tuple(arguments.days),
        features=arguments.features,
        combine=arguments.combine,
        one_per_patient=arguments.one_per_patient,
        folds=int(arguments.folds) if arguments.folds.isdecimal() else arguments.folds,
        split=arguments.split,
        test=tuple(arguments.test),
        validation=tuple(arguments.validation),
        test_runs=tuple(arguments.test_runs),
        sensitivity=arguments.sensitivity,
        n_draws=arguments.n_draws,
        controls=arguments.controls,
        permutations=arguments.permutations,
        baseline=tuple(arguments.baseline),
        score=scores,
        subgroups=tuple(arguments.subgroups),
        learning_curve=None if arguments.learning_curve is None else tuple(arguments.learning_curve),
        label_noise=arguments.label_noise,
        recalibrate=arguments.recalibrate,
        prediction_interval=arguments.prediction_interval,
        interval_by=arguments.interval_by,
        refit=arguments.refit,
        seed=arguments.seed,
    )


def _code_classes(arguments: argparse.Namespace) -> dict[str, str] | None:
    """The class of each code, from the table of `--code_classes`."""
    from ecgfounder.results.label_table import read_columns

    if arguments.code_classes is None:
        return None
    if arguments.codes is None:
        raise SettingsError("code_classes needs codes: the column with the codes")
    place, column = arguments.code_classes
    table = read_columns(place, storage_options=storage_options(arguments.storage_options))
    if column not in table.column_names:
        raise SettingsError(
            f"Invalid value for the 'code_classes' parameter. The table has no column {column!r}; its columns are: "
            f"{', '.join(table.column_names)}."
        )
    pairs = zip(table.column(0).to_pylist(), table[column].to_pylist(), strict=True)
    return {str(code): str(each) for code, each in pairs if code is not None and each not in (None, "")}


def run_probe(arguments: argparse.Namespace) -> int:
    """Run the probe and write its results; returns the exit status 0.

    Raises
    ------
    ECGFounderError
        As `ecgfounder.analysis.probe` does.
    """
    settings = settings_of(arguments)
    from ecgfounder.analysis import probe
    from ecgfounder.analysis.pages.tables import check_results_folder
    from ecgfounder.analysis.probing.probe import CONTROLS_FOLDER, Originals
    from ecgfounder.analysis.probing.probe_report import MARKER, write_report
    from ecgfounder.checks import check_least
    from ecgfounder.network.checkpoint import head_in

    check_least("random_networks", arguments.random_networks, 0)
    console = Terminal()
    options = storage_options(arguments.storage_options)
    folder = locate(output_place(arguments.output_dir, options))
    check_results_folder(folder, MARKER, CONTROLS_FOLDER)
    data_dir = None if arguments.data_dir is None else folder_text(arguments.data_dir, options)
    run = opened_runs(arguments, console)
    result = probe(
        run,
        label_table(arguments),
        settings=settings,
        against=named_runs(arguments.against, arguments),
        random=_random(arguments, folder / CONTROLS_FOLDER, data_dir, console),
        heads=[head_in(path) for path in arguments.head],
        originals=Originals(data_dir, folder / CONTROLS_FOLDER, options),
        say=console.line,
    )
    write_report(result, folder)
    _print(result, console)
    console.line(f"{folder / 'report.html'} shows all figures; the tables are beside it ({result.seconds:.0f} s)")
    return OK


def _random(
    arguments: argparse.Namespace, folder: Location, data_dir: str | None, console: Terminal
) -> Runs | MakeRandom:
    """The runs of `--random`, or what makes them."""
    from ecgfounder.random_networks import RandomNetworks

    if arguments.random or not arguments.random_networks or arguments.controls == "none":
        return list(named_runs(arguments.random, arguments).values())
    return RandomNetworks(
        folder,
        n=arguments.random_networks,
        features=arguments.features,
        data_dir=data_dir,
        options=storage_options(arguments.storage_options),
        say=console.line,
        progress=console.progress,
        ended=console.close,
    )


def _print(result: ProbeResult, console: Terminal) -> None:
    for reason, number in result.selection.left_out.items():
        if number:
            console.line(f"Left out: {number:,} ({reason})")
    for warning in result.warnings:
        console.line(f"Note: {warning}")
    metric = result.data.task.metric
    for row in result.rows:
        if row.metric == metric and row.estimate is not None:
            low, high = ("–" if each is None else f"{each:.3f}" for each in (row.low, row.high))
            note = f"; {row.note}" if row.note else ""
            console.line(f"{row.label}, {row.control}: {metric.upper()} {row.estimate:.3f} ({low} to {high}){note}")
