"""`ecgfounder verify`: check on the user's files and checkpoint that embeddings do not depend on batch, processes or engine.

In: ECG files (the first ones of a dataset, or paths) and a checkpoint. Out: a table of measured differences on standard output,
PASS or FAIL for each against its tolerance, and an exit status.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from ecgfounder.commands.arguments import (
    add_cohort_arguments,
    add_reading_arguments,
    add_signal_arguments,
    add_storage_argument,
    hints_of,
    preparation_of,
)
from ecgfounder.commands.terminal import as_flags, check_temporary_folder
from ecgfounder.errors import ECGFounderError, RunError, SettingsError
from ecgfounder.escaping import counted, one_line
from ecgfounder.storage import folder_text, locate, require_folder, storage_options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ecgfounder.engines import Engine
    from ecgfounder.network.head import Head
    from ecgfounder.preprocess.preparation import Preparation
    from ecgfounder.stages.read import ReadTask

    Array = npt.NDArray[np.float32]

ALL_AGREE, SOME_DIFFER = 0, 1

BATCH_SIZES = (2, 3, 8, 16)
INPUTS_PER_ECG = 4
LONGEST_INPUT = 30_000
"""Samples of the longest input, a minute. Inputs are cut to it, and if all are shorter, one of this length is made of them."""

BIT_IDENTICAL = 0.0
TRAINING_SECONDS = 10

FLOAT32_TOLERANCE = 1e-5
PREDICTION_TOLERANCE = 1e-4
HALF_TOLERANCE = {"bfloat16": 3e-2, "float16": 5e-3}
# Limits of the tolerances for a checkpoint that amplifies rounding; larger tolerances would be meaningless.
_WIDEST_FLOAT32 = 1e-4
_WIDEST_HALF = 0.25
_SIGNIFICAND_BITS = {"float32": 24, "bfloat16": 8, "float16": 11}
# Two float32 engines differ by two rounding errors, and the rounding error varies between ECGs, of which there is one long one.
_FLOAT32_SPREAD = 4.0
_FLOAT32_SPREAD_OF_ONE = 8.0
_INPUTS_AGAINST_FLOAT64 = 4
_INPUTS_IN_HALF = 8


# --- arguments -------------------------------------------------------------------------------------------------------


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder verify`: those of `ecgfounder embed` that determine the network's inputs."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="ECG files and folders of them; or give --dataset")
    add = add_cohort_arguments(parser, required=False)
    add_storage_argument(parser)
    add("--max_ecgs", type=int, default=16, help="number of ECGs, from the start (default: %(default)s)")
    add_reading_arguments(parser)
    add_signal_arguments(parser)
    add = parser.add_argument_group("network").add_argument
    add("--checkpoint", help="file, or folder with the mode's file (default: from the Hugging Face Hub)")
    add("--device", help="cpu: no GPU; cuda:1: that GPU (default: the CPU, and the GPU if there is one)")


def run_verify(arguments: argparse.Namespace) -> int:
    """Run all comparisons; each is printed at once.

    Returns
    -------
    int
        Exit status: 0 if everything agrees, 1 if something differs, or if standard output is closed before the end.

    Raises
    ------
    ECGFounderError
        If nothing can be compared: no checkpoint, no readable file, or flags that are not valid. The caller turns this into
        exit status 2.
    """
    from ecgfounder._version import __version__
    from ecgfounder.network.checkpoint import find_checkpoint, sha256_of

    if arguments.max_ecgs < 1:
        raise SettingsError(f"--max_ecgs must be at least 1, got {arguments.max_ecgs}.")
    check_temporary_folder()
    task, paths = _task_and_paths(arguments)
    checkpoint = find_checkpoint(arguments.checkpoint, arguments.mode, task.options)
    digest = sha256_of(checkpoint)
    material = read_material(task, paths)
    recipe = task.preparation.recipe
    title = (
        f"ecgfounder {__version__} verify: checkpoint {checkpoint.name} (sha256 {digest[:12]}), mode {arguments.mode}, "
        f"recipe {recipe.name} v{recipe.version}"
    )
    found = comparisons(material, task, checkpoint, arguments.mode, arguments.device)
    return _print_table(title, material, limits(task.preparation, material), found)


def limits(preparation: Preparation, material: Material) -> Iterator[str]:
    """What the comparisons cannot show with these settings and files, one sentence each."""
    if preparation.window is not None and preparation.stride is None:
        yield f"With --window {preparation.window:g}, samples after the first {preparation.window:g} s of an ECG are not used."
    if preparation.stride is not None:
        yield f"Of each ECG, only the first {INPUTS_PER_ECG} windows are used."
    longest = max(data.shape[1] for data in material.inputs)
    rate = preparation.recipe.sampling_rate
    if longest == LONGEST_INPUT:
        yield f"Inputs are cut to {LONGEST_INPUT / rate:g} s; longer ones are not compared."
    else:
        yield (
            f"The longest input of these files has {longest / rate:g} s. Longer ones are represented by one of "
            f"{LONGEST_INPUT / rate:g} s that consists of the others."
        )
    if longest < TRAINING_SECONDS * rate:
        yield (
            f"The network was trained on {TRAINING_SECONDS} s; the error of a lower precision may be larger for such inputs than "
            "it is here."
        )


def _print_table(title: str, material: Material, notes: Iterable[str], found: Iterable[Comparison]) -> int:
    """Print the table line by line, and the verdict; returns the exit status."""
    print("\n".join([one_line(title), material.described(), *notes, ""]))
    for path, reason in material.failures:
        print(one_line(f"left out  {path}: {as_flags(reason)}"))
    print(HEADER, flush=True)
    failed = compared = widened = 0
    for comparison in found:
        print(comparison.line(), flush=True)
        compared += not comparison.skipped
        failed += comparison.failed
        widened += comparison.widened
    if widened:
        print(WIDENED)
    if failed:
        print(f"\nFAIL: {failed} of {compared} comparisons exceed their tolerances.", flush=True)
        return SOME_DIFFER
    print(f"\nPASS: all {compared} comparisons are within their tolerances.", flush=True)
    return ALL_AGREE


def _task_and_paths(arguments: argparse.Namespace) -> tuple[ReadTask, list[str]]:
    """The reading task and the paths, from flags with the same meaning as in `ecgfounder embed`."""
    from ecgfounder.cohort.sources import default_data_dir, ecg_files, open_cohort
    from ecgfounder.stages.read import ReadTask
    from ecgfounder.storage.paths import absolute_path

    if bool(arguments.paths) == bool(arguments.dataset):
        raise SettingsError("Give either ECG files (ecgfounder verify a.xml b.xml) or --dataset.")
    options = storage_options(arguments.storage_options)
    data_dir = folder_text(arguments.data_dir or os.getcwd(), options)
    require_folder(data_dir, "data_dir", options)
    for path in arguments.paths:
        locate(path, options)
    if arguments.paths:
        paths: Iterable[str] = chain.from_iterable(
            ecg_files(path) if os.path.isdir(path) else [path] for path in arguments.paths
        )
    else:
        cohort = open_cohort(
            arguments.dataset, split=arguments.split, path_column=arguments.path_column, options=options
        )
        paths = (record.path for record in cohort.records())
        if not arguments.data_dir and (folder := default_data_dir(arguments.dataset, options)):
            data_dir = folder_text(folder, options)
    absolute = (absolute_path(path, data_dir) for path in paths)
    first = list(islice(dict.fromkeys(islice(absolute, 100 * arguments.max_ecgs)), arguments.max_ecgs))
    return ReadTask(preparation_of(arguments), arguments.reader, hints_of(arguments), options=options), first


# --- the ECGs --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Material:
    """The inputs that are embedded repeatedly.

    Attributes
    ----------
    inputs : tuple of numpy.ndarray
        float32 arrays [C, L], at most `INPUTS_PER_ECG` per recording.
    paths : tuple of str
        Paths of their recordings, in order.
    failures : tuple of tuple of (str, str)
        Path and reason of recordings that could not be read or prepared.
    """

    inputs: tuple[Array, ...]
    paths: tuple[str, ...]
    failures: tuple[tuple[str, str], ...]

    def described(self) -> str:
        lengths = sorted({data.shape[1] for data in self.inputs})
        several = f"{lengths[0]:,} to {lengths[-1]:,}" if len(lengths) > 1 else f"{lengths[0]:,}"
        return f"{counted(len(self.paths), 'ECG')}, {counted(len(self.inputs), 'network input')} of {several} samples"

    def long_input(self) -> Array | None:
        """An input of `LONGEST_INPUT` samples that consists of the others; None if one of them has that length."""
        import numpy as np

        if any(data.shape[1] >= LONGEST_INPUT for data in self.inputs):
            return None
        total = sum(data.shape[1] for data in self.inputs)
        parts = self.inputs * -(-LONGEST_INPUT // total)
        return np.ascontiguousarray(np.concatenate(parts, axis=1)[:, :LONGEST_INPUT])


def read_material(task: ReadTask, paths: Sequence[str]) -> Material:
    """Read and prepare the files.

    Raises
    ------
    RunError
        If there are no files, or none can be read; the message has the reasons.
    """
    inputs: list[Array] = []
    good: list[str] = []
    failures: list[tuple[str, str]] = []
    for path in paths:
        made = _inputs_of(task, path)
        if isinstance(made, str):
            failures.append((path, made))
        else:
            good.append(path)
            inputs += made
    if not inputs:
        reasons = "".join(f"\n  {one_line(f'{path}: {reason}')}" for path, reason in failures)
        raise RunError(f"Nothing can be verified: none of {counted(len(paths), 'ECG')} can be embedded.{reasons}")
    return Material(tuple(inputs), tuple(good), tuple(failures))


def _inputs_of(task: ReadTask, path: str) -> list[Array] | str:
    """The first inputs of one file, or the reason why there are none."""
    from ecgfounder.stages.read import Failed, Input, Job, Unread

    inputs: list[Array] = []
    for event in task.events(Job(0, path)):
        if isinstance(event, Failed | Unread):
            return event.reason
        if isinstance(event, Input):
            inputs.append(event.data[:, :LONGEST_INPUT].copy())
            if len(inputs) == INPUTS_PER_ECG:
                break
    return inputs


# --- comparisons -----------------------------------------------------------------------------------------------------

HEADER = f"{'':4}  {'engine':<22}  {'what is compared':<50}  {'difference':>13}  tolerance"


WIDENED = (
    "\nThis checkpoint amplifies rounding, as random weights do: tolerances are wider than the "
    f"{FLOAT32_TOLERANCE:.0e} between float32\nengines and the {HALF_TOLERANCE['bfloat16']:.0e} of bfloat16 that hold "
    "otherwise, in proportion to its float32 error against float64."
)


@dataclass(frozen=True)
class Comparison:
    """One line of the table.

    Attributes
    ----------
    engine, what : str
        The engine, and the comparison.
    difference : float or None
        Largest relative difference of a feature map, |a - b| / |b| (Euclidean norms); 0 for identical bytes; None if nothing
        could be compared.
    tolerance : float
        Largest allowed difference; 0 requires identical bytes.
    note : str
        Why nothing was compared.
    skipped : bool
        Whether the comparison is not required (an extra that is not installed).
    widened : bool
        Whether the tolerance is larger than stated, because the checkpoint amplifies rounding.
    """

    engine: str
    what: str
    difference: float | None
    tolerance: float = BIT_IDENTICAL
    note: str = ""
    skipped: bool = False
    widened: bool = False

    @property
    def failed(self) -> bool:
        return not self.skipped and (self.difference is None or not self.difference <= self.tolerance)

    def line(self) -> str:
        verdict = "skip" if self.skipped else "FAIL" if self.failed else "PASS"
        start = f"{verdict}  {self.engine:<22}  {self.what:<50}"
        if self.difference is None:
            return f"{start}  {self.note}"
        return f"{start}  {_told(self.difference):>13}  {_told(self.tolerance)}"


def _told(difference: float) -> str:
    if math.isnan(difference):
        return "not finite"
    return "bit-identical" if difference == 0 else f"{difference:.1e}"


def comparisons(
    material: Material, task: ReadTask, checkpoint: Path, mode: str, device: str | None = None
) -> Iterator[Comparison]:
    """Every comparison that can be made on this machine, one after the other.

    Parameters
    ----------
    material : Material
        The inputs to embed.
    task : ReadTask
        The settings for reading the files again in other processes.
    checkpoint, mode : Path, str
        The network.
    device : str, optional
        "cpu" for no GPU; the name of a GPU; None for the first GPU if there is one.
    """
    references: dict[str, list[Array]] = {}
    long = material.long_input()
    long_references: dict[str, list[Array]] = {}
    head: Head | None = None
    for kind in _kinds(device):
        if kind.missing:
            yield Comparison(kind.label, "not installed", None, note=kind.missing, skipped=True)
            continue
        try:
            with _engine(kind, checkpoint, mode) as engine:
                alone = [engine.embed(data[None])[0] for data in material.inputs]
                references[kind.label] = alone
                head = engine.head
                yield from _within(engine, kind, material, alone)
                if long is not None:
                    long_references[kind.label] = [engine.embed(long[None])[0]]
                    yield _long(engine, kind, long, long_references[kind.label])
                yield _other_processes(kind, material, alone, task, checkpoint, mode)
        except (ECGFounderError, ImportError, OSError, RuntimeError, MemoryError) as error:
            yield Comparison(kind.label, "does not work", None, note=_reason(error))
    if references:
        yield from _between(references, material, checkpoint, mode, device)
        yield from _of_head(references, material, head, checkpoint, mode)
    if long is not None and long_references:
        yield from _float32_engines(long_references, [long], checkpoint, mode, f", {_told_long()}")


def _reason(error: Exception) -> str:
    """The message of an error, with the class in front for errors of other libraries."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, ECGFounderError) else f"{type(error).__name__}: {text}"


@dataclass(frozen=True)
class _Kind:
    """An engine to check; `missing` says how to install it if it is not installed."""

    choice: str
    device: str
    precision: str = "float32"
    missing: str = ""

    @property
    def label(self) -> str:
        name = self.choice if self.device == "cpu" else f"{self.choice} {self.device}"
        return f"{name} {self.precision}"

    @property
    def tolerance(self) -> float:
        """Tolerance of an engine with itself: identical bytes, except for PyTorch on a GPU, where cuDNN's algorithm varies."""
        return FLOAT32_TOLERANCE if self.choice == "torch" and self.device != "cpu" else BIT_IDENTICAL


def _kinds(device: str | None) -> list[_Kind]:
    from ecgfounder.engines import gpu_available, native_usable, onnx_installed

    kinds = [
        _Kind("torch", "cpu"),
        _Kind("onnx", "cpu", missing="" if onnx_installed() else "pip install 'ecgfounder[cpu]'"),
        _Kind("native", "cpu", missing="" if native_usable() else "see the line 'native' of ecgfounder doctor"),
    ]
    gpu = device if device not in (None, "cpu") else "cuda" if device is None and gpu_available() else None
    if gpu is None:
        return kinds
    from ecgfounder.engines.triton import NEEDS, triton_usable

    return [*kinds, _Kind("torch", gpu), _Kind("triton", gpu, missing="" if triton_usable(gpu) else f"needs {NEEDS}")]


@contextmanager
def _engine(kind: _Kind, checkpoint: Path, mode: str, threads: int = 2) -> Iterator[Engine]:
    from ecgfounder.engines import create_engine

    engine = create_engine(
        kind.choice,
        mode=mode,
        checkpoint=checkpoint,
        precision=kind.precision,
        device=kind.device,
        threads=threads,
        batch_size=max(BATCH_SIZES),
    )
    try:
        yield engine
    finally:
        engine.close()


def _within(engine: Engine, kind: _Kind, material: Material, alone: list[Array]) -> Iterator[Comparison]:
    """Compare an engine with itself: each input alone, and in batches with others."""

    def compared(what: str, maps: list[Array]) -> Comparison:
        return Comparison(kind.label, what, largest_difference(maps, alone), kind.tolerance)

    inputs = material.inputs
    for size in BATCH_SIZES:
        what = f"each ECG alone, in batches of {size}"
        yield compared(what, _in_batches(engine.embed, inputs, range(len(inputs)), size))
    yield compared("each ECG alone, among zeros, noise, huge values", _among_strangers(engine, inputs))
    backwards = range(len(inputs) - 1, -1, -1)
    yield compared("in reversed order, in batches of 8", _in_batches(engine.embed, inputs, backwards, 8))
    for threads in (1, 4):
        with ThreadPoolExecutor(threads) as pool:
            maps = list(pool.map(lambda data: engine.embed(data[None])[0], inputs))
        yield compared(f"called from {threads} thread{'s at once' if threads > 1 else ''}", maps)


def _told_long() -> str:
    return f"{LONGEST_INPUT:,} samples"


def _long(engine: Engine, kind: _Kind, long: Array, alone: list[Array]) -> Comparison:
    """Compare the longest input alone with the same input at both places of a batch of two."""
    import numpy as np

    other = np.random.default_rng(0).standard_normal(long.shape).astype(np.float32)
    maps = [engine.embed(np.stack([long, other]))[0], engine.embed(np.stack([other, long]))[1]]
    what = f"{_told_long()}, alone, in batches of 2"
    return Comparison(kind.label, what, largest_difference(maps, alone * 2), kind.tolerance)


def _in_batches(
    embed: Callable[[Array], Array], inputs: Sequence[Array], order: Iterable[int], size: int
) -> list[Array]:
    """Feature maps of all inputs, computed in batches of equal length; incomplete batches are filled with synthetic rows."""
    import numpy as np

    by_shape: dict[tuple[int, ...], list[int]] = {}
    for number in order:
        by_shape.setdefault(inputs[number].shape, []).append(number)
    maps: dict[int, Array] = {}
    for shape, numbers in by_shape.items():
        for start in range(0, len(numbers), size):
            batch = np.zeros((size, *shape), np.float32)
            taken = numbers[start : start + size]
            batch[: len(taken)] = [inputs[number] for number in taken]
            batch[len(taken) :] = inputs[taken[0]][None] * 0.5
            maps.update(zip(taken, embed(batch)[: len(taken)], strict=True))
    return [maps[number] for number in range(len(inputs))]


def _among_strangers(engine: Engine, inputs: Sequence[Array]) -> list[Array]:
    """Each input at a different position of a batch with zeros, noise and huge values."""
    import numpy as np

    rng = np.random.default_rng(0)
    maps: list[Array] = []
    for number, data in enumerate(inputs):
        noise = rng.standard_normal(data.shape).astype(np.float32)
        batch = np.stack([np.zeros_like(data), noise, noise * 1e4, -data])
        place = number % (len(batch) + 1)
        maps.append(engine.embed(np.insert(batch, place, data, axis=0))[place])
    return maps


# --- other processes -------------------------------------------------------------------------------------------------


def _other_processes(
    kind: _Kind, material: Material, alone: list[Array], task: ReadTask, checkpoint: Path, mode: str
) -> Comparison:
    """Compare with two new processes, each of which reads, prepares and embeds half of the files."""
    what = "one process, two new processes"
    halves = [material.paths[part::2] for part in range(2) if material.paths[part::2]]
    try:
        with ProcessPoolExecutor(len(halves), mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(_maps_of_files, kind, half, task, checkpoint, mode) for half in halves]
            by_path = {path: maps for job in jobs for path, maps in job.result().items()}
    except (BrokenProcessPool, OSError) as error:
        return Comparison(kind.label, what, None, note=f"a process died ({error})")
    maps = [each for path in material.paths for each in by_path[path]]
    return Comparison(kind.label, what, largest_difference(maps, alone), kind.tolerance)


def _maps_of_files(
    kind: _Kind, paths: Sequence[str], task: ReadTask, checkpoint: Path, mode: str
) -> dict[str, list[Array]]:
    """Feature maps of some files, computed with another number of threads and in other batches, in a new process."""
    made = {path: _inputs_of(task, path) for path in paths}
    inputs = [(path, data) for path, several in made.items() if not isinstance(several, str) for data in several]
    with _engine(kind, checkpoint, mode, threads=1) as engine:
        maps = _in_batches(engine.embed, [data for _, data in inputs], range(len(inputs)), 5)
    by_path: dict[str, list[Array]] = {path: [] for path in paths}
    for (path, _), each in zip(inputs, maps, strict=True):
        by_path[path].append(each)
    return by_path


# --- engines and precisions ------------------------------------------------------------------------------------------


def _between(
    references: dict[str, list[Array]], material: Material, checkpoint: Path, mode: str, device: str | None
) -> Iterator[Comparison]:
    """Compare engines with each other, and lower precisions with float32."""
    rounding = yield from _float32_engines(references, material.inputs[:_INPUTS_AGAINST_FLOAT64], checkpoint, mode)
    for kind in _kinds(device):
        if kind.choice not in ("torch", "triton"):
            continue
        for precision in ("bfloat16", "float16") if kind.device != "cpu" else ("bfloat16",):
            if kind.label in references:
                half = _Kind(kind.choice, kind.device, precision)
                yield _in_half(half, kind, references[kind.label], material, checkpoint, mode, rounding)


def _float32_engines(
    references: dict[str, list[Array]], inputs: Sequence[Array], checkpoint: Path, mode: str, of: str = ""
) -> Generator[Comparison, None, float]:
    """Compare float32 with float64 on the inputs, and engines with each other; returns the rounding error of float32."""
    labels = list(references)
    try:
        rounding = float32_rounding(inputs, checkpoint, mode)
    except (ECGFounderError, ImportError, OSError, RuntimeError, MemoryError) as error:
        yield Comparison("torch float64", "does not work", None, note=_reason(error))
        rounding = 0.0
    else:
        yield Comparison("torch float32", f"against float64 arithmetic{of}", rounding, _WIDEST_FLOAT32)
    spread = _FLOAT32_SPREAD if len(inputs) > 1 else _FLOAT32_SPREAD_OF_ONE
    tolerance = max(FLOAT32_TOLERANCE, min(spread * rounding, _WIDEST_FLOAT32))
    for other in labels[1:]:
        difference = largest_difference(references[other], references[labels[0]])
        widened = tolerance > FLOAT32_TOLERANCE
        yield Comparison(other, f"against {labels[0]}{of}", difference, tolerance, widened=widened)
    return rounding


def _of_head(
    references: dict[str, list[Array]], material: Material, head: Head | None, checkpoint: Path, mode: str
) -> Iterator[Comparison]:
    """Compare the predictions of the checkpoint's head in batches, and with the whole network in float64."""
    if head is None:
        yield Comparison(
            "predictions", "no head in this checkpoint", None, note="--predictions needs one", skipped=True
        )
        return
    first = next(iter(references.values()))
    alone = [head.probabilities(feature_map[None])[0] for feature_map in first]
    in_batches = _in_batches(head.probabilities, first, range(len(first)), 8)
    yield Comparison("predictions", "each ECG alone, in batches of 8", largest_difference(in_batches, alone))
    inputs = material.inputs[:_INPUTS_AGAINST_FLOAT64]
    try:
        exact = exact_predictions(inputs, head, checkpoint, mode)
    except (ECGFounderError, ImportError, OSError, RuntimeError, MemoryError) as error:
        yield Comparison("predictions", "of the network in float64", None, note=_reason(error))
        return
    for label, maps in references.items():
        found = [head.probabilities(feature_map[None])[0] for feature_map in maps[: len(inputs)]]
        difference = largest_difference(found, exact)
        yield Comparison(label, "predictions against float64 arithmetic", difference, PREDICTION_TOLERANCE)


def exact_predictions(inputs: Sequence[Array], head: Head, checkpoint: Path, mode: str) -> list[Array]:
    """Probabilities of the whole network with its head, in float64, one [n_classes] array for each input."""
    import numpy as np
    import torch

    from ecgfounder.network.checkpoint import build_network, load_backbone

    weights, _ = load_backbone(checkpoint, mode)
    net = build_network(weights, mode, n_classes=head.n_classes)
    with torch.no_grad():
        net.dense.weight.copy_(torch.from_numpy(head.weight))
        net.dense.bias.copy_(torch.from_numpy(head.bias))
    net = net.eval().double()
    with torch.inference_mode():
        logits = [net(torch.from_numpy(data[None]).double())[0] for data in inputs]
    return [np.asarray(torch.sigmoid(each).numpy(), dtype=np.float32) for each in logits]


def _in_half(
    half: _Kind,
    whole: _Kind,
    reference: list[Array],
    material: Material,
    checkpoint: Path,
    mode: str,
    rounding: float,
) -> Comparison:
    """Compare a lower precision with float32.

    Each missing bit doubles the rounding error. For random weights of several scales, bfloat16's error was 0.2 to 0.4 times
    float32's error scaled in this way. The tolerance is half of the scaled error, if that is more than the stated tolerance.
    """
    missing_bits = _SIGNIFICAND_BITS["float32"] - _SIGNIFICAND_BITS[half.precision]
    expected = math.ldexp(rounding, missing_bits - 1)
    tolerance = max(HALF_TOLERANCE[half.precision], min(expected, _WIDEST_HALF))
    what = f"against {whole.label}"
    inputs = material.inputs[:_INPUTS_IN_HALF]
    try:
        with _engine(half, checkpoint, mode) as engine:
            maps = _in_batches(engine.embed, inputs, range(len(inputs)), 8)
    except (ECGFounderError, OSError, RuntimeError, MemoryError) as error:
        return Comparison(half.label, what, None, note=_reason(error))
    difference = largest_difference(maps, reference[: len(maps)])
    return Comparison(half.label, what, difference, tolerance, widened=tolerance > HALF_TOLERANCE[half.precision])


def float32_rounding(inputs: Sequence[Array], checkpoint: Path, mode: str) -> float:
    """Largest relative error of the network in float32, against the same network in float64.

    It measures how much the checkpoint's weights amplify rounding: about 3e-7 for trained weights; ten times that or more for
    random ones, growing with the length. Two float32 implementations of the network cannot agree better than this.
    """
    import torch

    from ecgfounder.network.checkpoint import build_network, load_backbone

    weights, _ = load_backbone(checkpoint, mode)
    exact = build_network(weights, mode, n_classes=1).eval().double()
    single = build_network(weights, mode, n_classes=1).eval()
    worst = 0.0
    with torch.inference_mode():
        for data in inputs:
            signal = torch.from_numpy(data[None])
            reference = exact.feature_map(signal.double())
            worst = max(worst, float((single.feature_map(signal) - reference).norm() / reference.norm()))
    return worst


def largest_difference(maps: Sequence[Array], references: Sequence[Array]) -> float:
    """Largest |a - b| / |b| over pairs of feature maps (Euclidean norms, in float64); 0 only if all bytes are equal.

    NaN, which exceeds every tolerance, if a feature map is not finite or has another shape.
    """
    import numpy as np

    if len(maps) != len(references):
        return math.nan
    worst = 0.0
    for found, expected in zip(maps, references, strict=True):
        if found.shape != expected.shape or not (np.isfinite(found).all() and np.isfinite(expected).all()):
            return math.nan
        if found.tobytes() == expected.tobytes():
            continue
        a, b = found.astype(np.float64), expected.astype(np.float64)
        tiny = sys.float_info.min
        worst = max(worst, float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), tiny)), tiny)
    return worst
