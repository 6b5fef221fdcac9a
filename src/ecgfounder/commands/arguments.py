"""The command line's flags, by stage, and their conversion to settings.

In: an argument parser, parsed arguments. Out: common flags of several commands; `Preparation`, `Hints`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from ecgfounder.errors import SettingsError
from ecgfounder.storage import storage_options

if TYPE_CHECKING:
    from ecgfounder.drivers.actors import ActorSettings
    from ecgfounder.embedder import Embedder
    from ecgfounder.preprocess.preparation import Preparation
    from ecgfounder.readers.source import Hints


def add_cohort_arguments(parser: argparse.ArgumentParser, *, required: bool) -> Callable[..., object]:
    """Flags for the dataset; returns a function that adds further flags to this group."""
    add = parser.add_argument_group("cohort").add_argument
    add(
        "--dataset",
        required=required,
        help="Hugging Face dataset (save_to_disk folder or Hub name), table (.csv, .tsv, .csv.gz, .json, .jsonl, .ndjson, "
        ".parquet, .feather), list of paths (.txt, RECORDS), folder of ECG files, quoted pattern ('data/**/*.xml'), or one ECG "
        "file; a path or a URL (s3://, gs://, az://, hf://datasets/); .zip and .tar files are folders, ARCHIVE::PATH is in one",
    )
    add("--split", default="train", help="split of a DatasetDict or Hub dataset (default: %(default)s)")
    add(
        "--data_dir", help="folder, archive or URL that relative paths are relative to (default: the working directory)"
    )
    add("--path_column", default="ecg_paths", help="column with the paths (default: %(default)s)")
    return add


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for reading files."""
    add = parser.add_argument_group("reading").add_argument
    add(
        "--reader",
        default="auto",
        help="auto (by content), sierraecg (that package, for Philips files), mortara_eli, mfer, kardia_atc or kardia_json "
        "(not verified with real files) (default: %(default)s)",
    )
    add("--sampling_rate", type=float, help="in Hz, for formats that do not state it (default: the file's)")
    add("--unit", help="mV, uV, V or a number of units per mV, for formats that do not state it (default: the file's)")
    add(
        "--leads",
        help="lead names in the file's order, comma-separated, for formats that do not state them (default: the file's)",
    )


def add_storage_argument(parser: argparse.ArgumentParser) -> None:
    """The flag for object stores; its value is validated by `ecgfounder.storage.storage_options`."""
    parser.add_argument_group("object stores").add_argument(
        "--storage_options",
        metavar="JSON",
        help="credentials, region, endpoint and others, e.g. '{\"skip_signature\": true}' (default: from the environment)",
    )


def add_signal_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for preparing the network's inputs."""
    add = parser.add_argument_group("signal").add_argument
    add("--mode", choices=("12lead", "1lead"), default="12lead", help="network (default: %(default)s)")
    add("--lead", default="I", help="lead for --mode 1lead, or 'all' (default: %(default)s)")
    add("--missing_leads", default="fail", help="fail, or zero: a missing lead is zeros (default: %(default)s)")
    add("--recipe", help="zscore, filtered or paper (default: zscore)")
    add("--resampling", default="linear", help="linear or polyphase (default: %(default)s)")
    add("--window", help="'whole', or seconds from the start (default: the recipe's, mostly whole)")
    add("--stride", type=float, help="seconds between windows (default: the recipe's, mostly one window)")
    add(
        "--remainder",
        help="drop, pad or keep what is left after the last window (default: the recipe's, mostly drop)",
    )
    add("--trim_zero_edges", action="store_true", help="remove zero-padded edges first")


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for the network and its engine."""
    add = parser.add_argument_group("network").add_argument
    add(
        "--checkpoint",
        help="file or URL, folder with the mode's file, OWNER/NAME on the Hugging Face Hub, or random:SEED for random weights "
        "(default: the published one)",
    )
    add("--engine", default="auto", help="auto, torch, triton, onnx or native (default: %(default)s)")
    add("--precision", default="float32", help="float32, bfloat16 or float16 (default: %(default)s)")
    add("--device", help="torch device, e.g. cuda:0 or cpu (default: the GPU if there is one)")


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for speed, memory and patience, which do not change results."""
    add = parser.add_argument_group("speed and limits").add_argument
    add("--batch_size", type=int, help="recordings per batch (default: 8 on a CPU, 128 on a GPU)")
    add(
        "--num_workers",
        type=int,
        default=4,
        help="maximum number of reading processes per process, started as needed (default: %(default)s)",
    )
    add(
        "--compile",
        action="store_true",
        help="let PyTorch compile the network for each length of recordings, about a minute each; best with --window",
    )
    add("--read_timeout", type=float, default=120.0, help="seconds for decoding one file (default: %(default)s)")
    add(
        "--read_memory",
        type=float,
        help="GiB for reading large files, all processes together (default: a quarter of the memory)",
    )


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for outputs."""
    add = parser.add_argument_group("outputs").add_argument
    add(
        "--output_dir",
        required=True,
        help="folder of the embeddings, or a URL (s3://, gs://, az://); its subfolder _run/ holds the run record",
    )
    add("--pooling", default="none", help="none: [T, 1024]; mean: [1024]; both, in Parquet (default: %(default)s)")
    add(
        "--predictions",
        nargs="?",
        const=True,
        default=False,
        metavar="PROBE",
        help="the head's probabilities too, in _run/predictions.pq; or those of the probe in a probe.safetensors "
        "(default: %(default)s)",
    )
    add(
        "--statements",
        action="store_true",
        help="the device's diagnostic statements and intervals too, in _run/statements.pq",
    )
    add("--heart_rate", action="store_true", help="measure the heart rate, for the manifest's column heart_rate")
    add("--format", default="json", help="json: a file per ECG; parquet: shards (default: %(default)s)")
    add("--shard_size", type=int, help="recordings per Parquet shard (default: 1000)")
    add("--dtype", default="float32", help="float32, or float16 with --format parquet (default: %(default)s)")
    add("--layout", default="flat", help="flat, or tree: folders as below --data_dir (default: %(default)s)")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for an attempt of a run, and for what is done before one."""
    add = parser.add_argument_group("run").add_argument
    add("--shard", default="1/1", metavar="I/N", help="do the I-th of N shards of the cohort (default: %(default)s)")
    add(
        "--sample",
        type=int,
        metavar="N",
        help="do only N recordings, spread over the cohort; the same command without it does the others (default: all)",
    )
    add("--overwrite", action="store_true", help="begin again: remove the outputs of the run in --output_dir first")
    add("--retry_failed", action="store_true", help="try again all recordings that failed before, for any reason")
    add("--check_hashes", action="store_true", help="compare the contents of finished inputs, not only size and time")
    add("--log_json", action="store_true", help="print messages and the progress as a JSON object a line, for programs")
    add = parser.add_argument_group("before a run").add_argument
    add("--dry_run", action="store_true", help="report what would be done, and write nothing")
    add(
        "--measure",
        action="store_true",
        help="with --dry_run: embed about 50 recordings to a temporary folder, and forecast time, space and requests",
    )
    add(
        "--write_slurm",
        metavar="FILE",
        help="check everything as --dry_run does, and write a SLURM script for an array of N tasks (--shard 1/N) (default: run "
        "here)",
    )


def add_driver_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags for runs on several machines."""
    add = parser.add_argument_group("several machines").add_argument
    add("--driver", default="local", help="local, or ray: workers on a Ray cluster (default: %(default)s)")
    add(
        "--ray_address",
        help="auto (this machine's cluster), HOST:PORT, or local: an own one (default: auto if RAY_ADDRESS is set, else local)",
    )
    add(
        "--group_size", type=int, help="recordings that a worker commits together (default: --shard_size; 500 for JSON)"
    )
    add("--gpus_per_actor", type=float, help="GPUs of each worker, may be a fraction (default: 1 if there are any)")
    add("--cpus_per_actor", type=int, help="cores of each worker (default: a GPU's share of its machine, or at most 8)")
    add("--actors", metavar="MIN:MAX", help="number of workers (default: 1: as many as there is room for)")


def actors_of(arguments: argparse.Namespace) -> ActorSettings:
    """The settings of workers from the flags of `add_driver_arguments`."""
    from ecgfounder.drivers.actors import ActorSettings

    least, most = 1, None
    if arguments.actors is not None:
        first, colon, last = arguments.actors.partition(":")
        if not (first.isdecimal() and (last.isdecimal() or not last)):
            raise SettingsError(
                f"Invalid value for the 'actors' parameter. It must be MIN:MAX, e.g. 2:16, got {arguments.actors!r}."
            )
        least = int(first)
        most = int(last) if last else None if colon else least
    return ActorSettings(arguments.ray_address, arguments.gpus_per_actor, arguments.cpus_per_actor, least, most)


def preparation_of(arguments: argparse.Namespace) -> Preparation:
    """The preparation from the flags of `add_signal_arguments`."""
    from ecgfounder.preprocess.preparation import chosen_preparation

    try:
        window = arguments.window if arguments.window in (None, "whole") else float(arguments.window)
    except ValueError:
        raise SettingsError(
            f"Invalid value for the 'window' parameter. It must be 'whole' or seconds, got {arguments.window!r}."
        ) from None
    choices = {
        "lead": arguments.lead,
        "missing_leads": arguments.missing_leads,
        "resampling": arguments.resampling,
        "recipe": arguments.recipe,
        "window": window,
        "stride": arguments.stride,
        "remainder": arguments.remainder,
        "trim_zero_edges": arguments.trim_zero_edges,
    }
    return chosen_preparation(arguments.mode, None, choices)


def loaded_network(arguments: argparse.Namespace, checkpoint: str | None = None) -> Embedder:
    """The network from the flags of `add_network_arguments`, `add_signal_arguments` and `add_storage_argument`."""
    from ecgfounder.embedder import load

    return load(
        arguments.mode,
        checkpoint or arguments.checkpoint,
        engine=arguments.engine,
        precision=arguments.precision,
        device=arguments.device,
        preparation=preparation_of(arguments),
        storage_options=dict(storage_options(arguments.storage_options).items),
    )


def hints_of(arguments: argparse.Namespace) -> Hints:
    """The hints from the flags of `add_reading_arguments`."""
    from ecgfounder.ecg.leads import canonical_lead
    from ecgfounder.readers.source import Hints

    leads = tuple(canonical_lead(name) for name in arguments.leads.split(",")) if arguments.leads else None
    return Hints(arguments.sampling_rate, arguments.unit, leads)
