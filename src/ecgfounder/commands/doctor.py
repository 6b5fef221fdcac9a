"""`ecgfounder doctor`: check the installation, engines and checkpoint, and show how to fix problems.

In: paths of the checkpoint and the outputs. Out: a line for each part on standard output, PASS, WARN or FAIL with the fix, and an
exit status. Engines are tried in separate processes, so that a library that crashes gives a FAIL line.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import as_flags
from ecgfounder.errors import CheckpointError, ECGFounderError, RunError, StorageError
from ecgfounder.escaping import counted, one_line
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, locate, output_place, path_here, storage_options
from ecgfounder.storage.temporary import temporary_folder

if TYPE_CHECKING:
    import torch
    from packaging.requirements import Requirement

ALL_WELL, SOME_FAILED = 0, 1

OLDEST_PYTHON = (3, 11)
PURPOSE_OF_EXTRA = {
    "cpu": "ONNX Runtime, the fastest engine on CPUs if the native one was not built",
    "wfdb": "WFDB records in formats other than 16 and 16+24",
    "docs": "building the documentation",
    "hdf5": "HDF5 files (CODE-15 %)",
    "report": "drawings (inspect --plot)",
    "remote": "files in object stores (s3://, gs://, az://)",
    "aws": "profiles and single sign-on of AWS",
    "map": "maps by UMAP (view, report --map umap)",
    "ray": "runs on Ray clusters (embed --driver ray)",
    "completion": "completion of commands in shells",
}

PROBE_SAMPLES = 5000
PROBE_ROWS = 8
PROBE_TIMEOUT = 300.0
"""Time limit for trying an engine, in seconds; the first import of PyTorch from a network drive is slow."""
AGREEMENT = 1e-3
"""Relative tolerance; engines agree to 1e-5, the error of a broken one is several per cent."""

SPACE_FOR_WORK = 3 << 30
SPACE_FOR_OUTPUT = 1 << 30
SPACE_FOR_CACHE = 300 << 20
BYTES_OF_JSON, BYTES_OF_PARQUET = 217_000, 69_000
"""Bytes per feature map of a 10 s recording, measured on real recordings."""


# --- arguments -------------------------------------------------------------------------------------------------------


def add_doctor_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `ecgfounder doctor`."""
    add = parser.add_argument
    add("--checkpoint", help="file or folder to check (default: the Hugging Face cache)")
    add("--mode", choices=("12lead", "1lead"), help="network of the checkpoint (default: detected)")
    add_storage_argument(parser)
    add("--output_dir", help="output folder of the embeddings (default: not checked)")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Run all checks; each finding is printed at once.

    Returns
    -------
    int
        Exit status: 0 if nothing fails (warnings are allowed), 1 if something does.
    """
    counts = {"PASS": 0, "WARN": 0, "FAIL": 0}
    for finding in findings(
        arguments.checkpoint, arguments.mode, arguments.output_dir, storage_options(arguments.storage_options)
    ):
        print(finding.text(), flush=True)
        counts[finding.status] += 1
    print(f"\n{counts['PASS']} passed, {counts['WARN']} warnings, {counts['FAIL']} failed", flush=True)
    return SOME_FAILED if counts["FAIL"] else ALL_WELL


@dataclass(frozen=True)
class Finding:
    """One line of the report, and the fix if there is a problem."""

    status: Literal["PASS", "WARN", "FAIL"]
    subject: str
    found: str
    fix: str = ""

    def text(self) -> str:
        line = one_line(f"{self.status}  {self.subject:<12}  {self.found}")
        return f"{line}\n{'':<18}  -> {one_line(self.fix)}" if self.fix else line


def findings(
    checkpoint: str | None = None,
    mode: str | None = None,
    output_dir: str | None = None,
    options: StorageOptions = NO_OPTIONS,
) -> Iterator[Finding]:
    """All findings, in the order of their dependencies."""
    if checkpoint is not None:
        locate(checkpoint, options)
    if output_dir is not None:
        output_place(output_dir, options)
    yield _python()
    yield from _packages()
    yield from _processors()
    yield _memory()
    engines = list(_engines())
    yield from engines
    if any(finding.subject == "torch" and finding.status == "FAIL" for finding in engines):
        yield Finding("FAIL", "checkpoint", "cannot be checked without PyTorch", "fix the line 'torch' first")
    elif checkpoint is None:
        yield from _hub(mode)
    else:
        yield from _checkpoints(checkpoint, mode, options)
    yield _engine_cache()
    if output_dir is not None:
        place = output_place(output_dir, options)
        yield from _output(place) if isinstance(place, Path) else _output_elsewhere(place)


# --- what is installed -----------------------------------------------------------------------------------------------


def _python() -> Finding:
    from ecgfounder._version import __version__

    found = f"ecgfounder {__version__}, Python {platform.python_version()}, {platform.platform()}"
    if sys.version_info < OLDEST_PYTHON:
        needed = ".".join(map(str, OLDEST_PYTHON))
        return Finding("FAIL", "python", found, f"install Python {needed} or later, and ecgfounder into it")
    return Finding("PASS", "python", found)


def _packages() -> Iterator[Finding]:
    """Installed packages compared with the package's metadata: required packages, then those of each extra."""
    from importlib import metadata

    install = "pip install ecgfounder"
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding("FAIL", "packages", "packaging, which accelerate and datasets need, is not installed", install)
        return
    try:
        wanted = [Requirement(line) for line in metadata.requires("ecgfounder") or []]
    except metadata.PackageNotFoundError:
        found = "unknown: ecgfounder runs from its source code and is not installed"
        yield Finding("WARN", "packages", found, install)
        return
    required = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    bad = [problem for each in required if (problem := _problem_with(each))]
    if bad:
        yield Finding("FAIL", "packages", "; ".join(bad), "pip install --upgrade ecgfounder")
    else:
        versions = ", ".join(f"{each.name} {metadata.version(each.name)}" for each in required)
        yield Finding("PASS", "packages", versions)
    for extra, purpose in PURPOSE_OF_EXTRA.items():
        parts = [
            each for each in wanted if each not in required and each.marker and each.marker.evaluate({"extra": extra})
        ]
        bad = [problem for each in parts if (problem := _problem_with(each))]
        if bad:
            install = f"pip install 'ecgfounder[{extra}]'"
            yield Finding("WARN", f"extra {extra}", f"{'; '.join(bad)}: no {purpose}", install)
        else:
            versions = ", ".join(f"{each.name} {metadata.version(each.name)}" for each in parts)
            yield Finding("PASS", f"extra {extra}", f"{versions}: {purpose}")


def _problem_with(requirement: Requirement) -> str | None:
    from importlib import metadata

    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} is not {requirement.specifier}"
    return None


# --- the machine -----------------------------------------------------------------------------------------------------


def _processors() -> Iterator[Finding]:
    from ecgfounder.machine import usable_cores

    cores = usable_cores()
    found = f"{cores} of {os.cpu_count() or cores} for this process"
    quota = _container_cores()
    if quota is not None and quota < cores:
        yield Finding(
            "WARN",
            "cores",
            f"{found}, but its container is limited to {quota:g}",
            f"taskset --cpu-list 0-{max(1, math.floor(quota)) - 1} ecgfounder ...: more threads than cores slow each other down",
        )
    else:
        yield Finding("PASS", "cores", found)
    world = os.environ.get("WORLD_SIZE", "1") or "1"
    if world != "1":
        yield Finding(
            "WARN",
            "launcher",
            f"WORLD_SIZE={world} is set: a run acts as one of {world} processes",
            "correct under accelerate launch; otherwise: unset WORLD_SIZE RANK LOCAL_RANK",
        )


def _container_cores(file: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    """The container's CPU limit in cores (Linux, cgroup version 2); None without a limit."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such file, or "max"
        return None


def _memory(file: Path = Path("/proc/meminfo")) -> Finding:
    try:
        lines = dict(line.split(":", 1) for line in file.read_text(encoding="ascii").splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        return Finding("PASS", "memory", "not known on this system")
    if free < SPACE_FOR_WORK:
        return Finding(
            "WARN",
            "memory",
            f"{_size(free)} free; a run needs about {_size(SPACE_FOR_WORK)}",
            "--num_workers 1 needs less; or close other programs",
        )
    return Finding("PASS", "memory", f"{_size(free)} free")


# --- engines ---------------------------------------------------------------------------------------------------------


def _engines() -> Iterator[Finding]:
    """Try each engine that this machine can use, and compare their results."""
    from ecgfounder.engines import native_usable, onnx_installed

    try:
        tempfile.gettempdir()
    except OSError as error:
        yield Finding("FAIL", "temporary folder", f"none can be used: {error}", "set TMPDIR to a folder with space")
        return
    with temporary_folder() as place:
        folder = str(place)
        reference = probe_in_process("torch", "cpu", folder)
        yield _engine_finding("torch", reference, None)
        if native_usable():
            yield _engine_finding("native", probe_in_process("native", "cpu", folder), reference)
        else:
            without = "not built, or not supported by this processor: on a CPU a slower engine is used"
            yield Finding("WARN", "native", without, "install a C compiler, then " + _reinstall("native"))
        if onnx_installed():
            yield _engine_finding("onnx", probe_in_process("onnx", "cpu", folder), reference)
        if not _gpu_device_files():
            yield Finding("PASS", "gpu", "none; the CPU is used")
            return
        gpu = probe_in_process("torch", "cuda", folder)
        if "no_gpu" in gpu:
            yield Finding(
                "WARN",
                "gpu",
                f"the driver is installed, but PyTorch cannot use it: {gpu['no_gpu']}",
                "install a CUDA build of PyTorch that matches the driver: https://pytorch.org/get-started/locally",
            )
            return
        yield _engine_finding("gpu", gpu, reference)
        triton = probe_in_process("triton", "cuda", folder)
        if "no_triton" in triton:
            without = f"PyTorch's kernels are used, which are slower: {triton['no_triton']}"
            yield Finding("WARN", "triton", without, "use an NVIDIA GPU of 2020 or later and PyTorch's build for CUDA")
        else:
            yield _engine_finding("triton", triton, reference)


def _engine_finding(subject: str, trial: dict[str, Any], reference: dict[str, Any] | None) -> Finding:
    reinstall = _reinstall(subject)
    if "error" in trial:
        return Finding("FAIL", subject, f"does not work: {trial['error']}", reinstall)
    if reference is not None and "values" in reference:
        apart = max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(trial["values"], reference["values"], strict=True))
        if not apart <= AGREEMENT:
            wrong = f"gives different results than PyTorch on the CPU (relative difference {apart:.1e})"
            return Finding("FAIL", subject, wrong, f"{reinstall}, or use --engine torch --device cpu")
    speed = f"{trial['per_second']:.3g} ECG/s" + ("" if subject in ("gpu", "triton") else " on one core")
    return Finding("PASS", subject, f"{trial['engine']}: {speed}")


def _reinstall(subject: str) -> str:
    """The command that reinstalls an engine."""
    if subject == "native":
        return "pip install --no-deps -e . in ecgfounder's folder"
    package = {"onnx": "'ecgfounder[cpu]'"}.get(subject, "torch")
    return f"pip install --force-reinstall {package}"


def _gpu_device_files() -> bool:
    return any((Path("/dev") / name).exists() for name in ("nvidiactl", "nvidia0", "nvidia-uvm", "kfd", "dxg"))


def probe_in_process(choice: str, device: str, folder: str) -> dict[str, Any]:
    """The result of `probe` in a separate process; {"error": reason} if the process crashes or hangs."""
    program = f"from ecgfounder.commands.doctor import probe; probe({choice!r}, {device!r}, {folder!r})"
    # Random weights must not be stored in the user's cache.
    environment = {**os.environ, "ECGFOUNDER_CACHE": os.path.join(folder, "cache")}
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {PROBE_TIMEOUT:g} s"}
    except OSError as error:
        return {"error": f"no process can be started ({error})"}
    try:
        answer = json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        answer = None
    if isinstance(answer, dict):
        return answer
    last = next((line.strip() for line in reversed(ended.stderr.splitlines()) if line.strip()), "")
    killed = f"its process was ended by signal {-ended.returncode}" if ended.returncode < 0 else ""
    return {"error": killed or last[:300] or f"its process ended with status {ended.returncode}"}


def probe(choice: str, device: str, folder: str) -> None:
    """Embed a batch of noise with random weights and print the result as a line of JSON.

    Parameters
    ----------
    choice, device : str
        As in `ecgfounder.engines.create_engine`.
    folder : str
        Folder that keeps the weights for the next probe.
    """
    import numpy as np
    import torch

    from ecgfounder.engines import create_engine
    from ecgfounder.engines.triton import NEEDS, triton_usable
    from ecgfounder.network.checkpoint import build_network

    if device == "cuda" and not torch.cuda.is_available():
        print(json.dumps({"no_gpu": f"PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}"}))
        return
    checkpoint = Path(folder) / "weights.pth"
    if choice == "triton" and not triton_usable(device):
        print(json.dumps({"no_triton": f"the engine needs {NEEDS}"}))
        return
    if not checkpoint.exists():
        torch.manual_seed(0)
        torch.save(build_network({}, "12lead", 1).state_dict(), checkpoint)
    signals = np.random.default_rng(0).standard_normal((PROBE_ROWS, 12, PROBE_SAMPLES)).astype(np.float32)
    try:
        engine = create_engine(choice, mode="12lead", checkpoint=checkpoint, device=device, batch_size=PROBE_ROWS)
        first = engine.embed(signals)
        began = time.perf_counter()
        engine.embed(signals)
        took = time.perf_counter() - began
    except ECGFounderError as error:
        print(json.dumps({"error": as_flags(str(error))}))
        return
    values = np.sqrt(np.square(first, dtype=np.float64).mean(axis=(1, 2))).tolist()
    print(json.dumps({"engine": engine.describe(), "values": values, "per_second": PROBE_ROWS / took}))


# --- the checkpoint --------------------------------------------------------------------------------------------------


def _hub(mode: str | None) -> Iterator[Finding]:
    """Check the weights of the Hugging Face Hub, if no checkpoint is given."""
    from huggingface_hub import constants, try_to_load_from_cache

    from ecgfounder.network.bundles import SPECS

    offline = bool(constants.HF_HUB_OFFLINE)
    state = "offline (HF_HUB_OFFLINE)" if offline else "online"
    yield Finding("PASS", "hub", f"cache {constants.HF_HUB_CACHE}, {state}")
    for bundle in SPECS.values():
        if mode not in (None, bundle.mode):
            continue
        try:
            cached = try_to_load_from_cache(bundle.repo_id, bundle.filename)
        except (OSError, ValueError) as error:
            yield Finding("FAIL", "checkpoint", f"the cache cannot be read: {error}", "set HF_HOME to another folder")
            continue
        if isinstance(cached, str):
            yield from _checkpoint(Path(cached), bundle.mode)
            continue
        get = f"hf download {bundle.repo_id} {bundle.filename} --local-dir checkpoints"
        if offline:
            fix = f"on a machine with internet: {get}; then --checkpoint checkpoints/{bundle.filename}"
        else:
            fix = f"none needed if this machine has internet: the first run downloads it; to do it now: {get}"
        failed = offline and mode == bundle.mode
        found = f"{bundle.filename} is not in the cache (--mode {bundle.mode} without --checkpoint needs it)"
        yield Finding("FAIL" if failed else "WARN", "checkpoint", found, fix)


def _checkpoints(checkpoint: str, mode: str | None, options: StorageOptions = NO_OPTIONS) -> Iterator[Finding]:
    """Check a file, or the published files in a folder."""
    from ecgfounder.network.bundles import SPECS
    from ecgfounder.network.checkpoint import find_checkpoint

    inside: list[str] = []
    if locate(checkpoint, options).is_local:
        path = path_here(checkpoint, "checkpoint").expanduser()
        inside = [name for name, bundle in SPECS.items() if path.is_dir() and (path / bundle.filename).is_file()]
    modes: list[str | None] = [mode] if mode is not None else [*inside] or [None]
    for each in modes:
        try:
            file = find_checkpoint(checkpoint, each or "12lead", options)
        except CheckpointError as error:
            yield Finding("FAIL", "checkpoint", as_flags(str(error)), "give an existing file with --checkpoint")
            continue
        yield from _checkpoint(file, each)


def _checkpoint(path: Path, mode: str | None) -> Iterator[Finding]:
    """Check one file: its layout, its mode, and its head."""
    from ecgfounder.network.bundles import N_STATEMENTS, spec_of
    from ecgfounder.network.checkpoint import backbone_state, load_checkpoint, sha256_of
    from ecgfounder.network.head import labels_of

    try:
        content = load_checkpoint(path)
        found_mode = mode or _mode_of(content.tensors)
        backbone_state(content.tensors, found_mode)
        head, digest, size = content.head(), sha256_of(path), path.stat().st_size
    except (ECGFounderError, OSError, MemoryError) as error:
        fix = "use one of the published files: hf download PKUDigitalHealth/ECGFounder --local-dir checkpoints"
        yield Finding("FAIL", "checkpoint", as_flags(str(error)) or type(error).__name__, fix)
        return
    official = f"{path} (sha256 {digest[:12]}, {_size(size)}): the official layout, --mode {found_mode}"
    yield Finding("PASS", "checkpoint", official)
    labels = labels_of(head)
    if labels is not None and head is not None:
        own = "" if head.labels is None else f" of its own ({', '.join(labels[:3])}{' ...' if len(labels) > 3 else ''})"
        yield Finding("PASS", "head", f"{counted(len(labels), 'statement')}{own}: predictions work")
    else:
        has = "none" if head is None else f"{head.n_classes} classes without names"
        found = f"{has} instead of {N_STATEMENTS} statements: embeddings work, predictions do not"
        yield Finding("WARN", "head", found, f"for predictions use the published {spec_of(found_mode).filename}")


def _mode_of(state: dict[str, torch.Tensor]) -> str:
    """The mode that matches the first convolution's number of leads; "12lead" if there is none, which is refused later."""
    from ecgfounder.network.bundles import SPECS

    first = [t for name, t in state.items() if name.endswith("first_conv.conv.weight") and t.ndim == 3]
    leads = int(first[0].shape[1]) if first and not first[0].is_nested else 0
    return next((bundle.mode for bundle in SPECS.values() if bundle.in_channels == leads), "12lead")


# --- folders ---------------------------------------------------------------------------------------------------------


def _engine_cache() -> Finding:
    """Check the folder of packed weights and graphs; without it, each run makes them again."""
    from ecgfounder.engines.cache import why_untrusted
    from ecgfounder.machine import cache_folder

    folder = cache_folder()
    problem = _why_not_writable(folder) or (why_untrusted(folder.stat()) if folder.exists() else None)
    free = _free(folder)
    if problem:
        found = f"{folder}: {problem}; the engine's weights are converted again for every run"
        return Finding(
            "WARN", "engine cache", found, "set ECGFOUNDER_CACHE to a folder that you, and no other user, can write to"
        )
    if free < SPACE_FOR_CACHE:
        found = f"{folder}: {_size(free)} free, a cached checkpoint takes 125 MB"
        return Finding("WARN", "engine cache", found, "set ECGFOUNDER_CACHE to a folder with more space")
    return Finding("PASS", "engine cache", f"{folder}, {_size(free)} free")


def _output(folder: Path) -> Iterator[Finding]:
    from ecgfounder.cohort.naming import RUN_FOLDER

    another = "choose another --output_dir"
    problem = _why_not_writable(folder)
    if problem:
        yield Finding("FAIL", "output_dir", f"{folder}: {problem}", another)
        return
    free = _free(folder)
    room = f"space for about {free // BYTES_OF_JSON:,} ECGs as JSON, {free // BYTES_OF_PARQUET:,} as Parquet"
    if free < SPACE_FOR_OUTPUT:
        less = "--format parquet or --pooling mean take less; or choose another --output_dir"
        yield Finding("WARN", "output_dir", f"{folder}: {_size(free)} free, {room}", less)
    else:
        yield Finding("PASS", "output_dir", f"{folder}: {_size(free)} free, {room}")
    if (folder / RUN_FOLDER).exists():
        yield Finding("PASS", "output_dir", "holds a run, which the same settings resume")
    elif folder.is_dir() and any(folder.iterdir()):
        found = f"is not empty and has no {RUN_FOLDER}/ of an earlier run: a run refuses to write there"
        yield Finding("FAIL", "output_dir", found, another)


def _output_elsewhere(place: Location) -> Iterator[Finding]:
    from ecgfounder.ledger.folder import RunFolder
    from ecgfounder.ledger.groups.hold import refuse_other_objects

    try:
        refuse_other_objects(RunFolder(place))
    except RunError as error:
        yield Finding("FAIL", "output_dir", str(error), "choose another --output_dir")
    except StorageError as error:
        yield Finding("FAIL", "output_dir", f"{place}: {error}", "see the page about object stores (docs/storage.md)")
    else:
        yield Finding("PASS", "output_dir", f"{place} can be listed; whether it can be written to, a run finds out")


def _existing(folder: Path) -> Path:
    """The folder, or its nearest existing parent."""
    at = folder.expanduser().absolute()
    while not at.exists() and at != at.parent:
        at = at.parent
    return at


def _why_not_writable(folder: Path) -> str | None:
    """Why no file can be written there, found by writing one, because permissions are not reliable on every file system."""
    at = _existing(folder)
    if not at.is_dir():
        return f"{at} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=at) as file:
            file.write(b"\0")
    except OSError as error:
        return f"{at} cannot be written to: {error.strerror or error}"
    return None


def _free(folder: Path) -> int:
    """Free bytes on the folder's file system; 0 if unknown."""
    try:
        return shutil.disk_usage(_existing(folder)).free
    except OSError:
        return 0


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"
