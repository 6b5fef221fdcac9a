"""The parts of the benchmark, each a function from a `Bench` to JSON-serialisable facts.

In: files and sizes. Out: figures. Compared programs are measured alternately, in rounds; ratios are computed within rounds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import inputs
from benchmarks.measure import (
    Child,
    Facts,
    cpu_seconds,
    ratio,
    run_child,
    run_children,
    spread,
    usable_cores,
    wall_seconds,
)

if TYPE_CHECKING:
    from ecgfounder.sinks.sink import Output

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements."""

    rounds: int = 3
    recordings: int = 1000
    baseline: int = 64
    stage_files: int = 60
    scaling: int = 200
    batches: tuple[int, ...] = (1, 4, 8, 16)
    batch_length: int = inputs.LENGTH
    lengths: tuple[int, ...] = (1250, 2500, 5000, 5500, 15000)
    growth: tuple[int, ...] = (100, 1_000, 10_000)
    delays: tuple[float, ...] = (0.0, 0.02, 0.1)
    matrix: int = 3072
    gpu_batch: int = 256
    gpu_length: int = 5000
    gpu_batches: tuple[int, ...] = (1, 8, 32, 64, 128, 512)
    gpu_lengths: tuple[int, ...] = (1250, 2500, 5500, 15000)
    gpu_recordings: int = 4000
    gpu_repeats: int = 60
    drift: int = 200_000
    drift_features: int = 1024
    probe: int = 200_000
    probe_sample: int = 5_000
    probe_features: int = 1024
    probe_labels: int = 10
    analysis: tuple[int, ...] = (20_000, 200_000)
    viewer: tuple[int, ...] = (100_000, 1_000_000)


QUICK = Sizes(
    rounds=1,
    recordings=12,
    baseline=4,
    stage_files=2,
    scaling=4,
    batches=(2,),
    batch_length=300,
    lengths=(300,),
    growth=(10, 20),
    delays=(0.0,),
    matrix=256,
    gpu_batch=2,
    gpu_length=300,
    gpu_batches=(1,),
    gpu_lengths=(257,),
    gpu_recordings=4,
    gpu_repeats=2,
    drift=600,
    drift_features=16,
    probe=2000,
    probe_sample=300,
    probe_features=16,
    probe_labels=2,
    analysis=(400,),
    viewer=(2000,),
)


@dataclass(frozen=True)
class Bench:
    """A folder for inputs and outputs, and sizes."""

    folder: Path
    sizes: Sizes

    @cached_property
    def cohort(self) -> Path:
        return inputs.write_cohort(self.folder, self.sizes.recordings)

    @cached_property
    def checkpoint(self) -> Path:
        return inputs.write_checkpoint(self.folder)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables, with a separate cache for the engines."""
        return {"ECGFOUNDER_CACHE": str(self.folder / "cache")}

    def network_gflop(self, length: int) -> float:
        return network_gflop(length)

    def output(self, name: str) -> Path:
        """An output folder that does not exist yet."""
        path = self.folder / "out" / name
        shutil.rmtree(path, ignore_errors=True)
        return path

    def request(self, output: Path, **settings: Any) -> Facts:
        """A run over the cohort with the program's defaults."""
        return {
            "dataset": str(self.cohort),
            "data_dir": str(self.cohort),
            "checkpoint": str(self.checkpoint),
            "output_dir": str(output),
            **settings,
        }

    def few(self, n: int) -> Path:
        """A separate cohort with the first `n` files."""
        return inputs.write_cohort(self.folder, min(n, self.sizes.recordings))

    def run(self, name: str, *, cores: list[int] | None = None, resume: bool = False, **settings: Any) -> Child:
        """One run in a separate process; `resume` resumes the run of this name."""
        child = run_child(
            "benchmarks.child",
            self.request(self.folder / "out" / name if resume else self.output(name), **settings),
            cores=cores,
            environment=self.environment,
        )
        _require_all_done(child)
        return child


def _require_all_done(child: Child) -> None:
    if child.report["failed"]:
        raise RuntimeError(f"{child.report['failed']} recordings failed")


# -- Limits of the machine ---------------------------------------------------------------------------------------------


def peak_gflops(size: int) -> float:
    """The fastest of several float32 matrix products on all cores, by PyTorch and by NumPy, in GFLOP/s."""
    import torch

    torch.set_num_threads(len(usable_cores()))
    a, b = torch.randn(size, size), torch.randn(size, size)
    products: tuple[Callable[[], object], ...] = (lambda: a @ b, lambda: a.numpy() @ b.numpy())
    return 2 * size**3 / min(wall_seconds(product) for _ in range(3) for product in products) / 1e9


def network_gflop(length: int) -> float:
    """Multiplications and additions of the backbone's convolutions and linear layers on one input [12, length]."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ecgfounder.network.checkpoint import build_network

    with torch.device("meta"):
        net = build_network({}, "12lead", 1).eval()
        with FlopCounterMode(display=False) as counter:
            net.feature_map(torch.empty(1, 12, length))
    return counter.get_total_flops() / 1e9


# -- (a) and (d) End to end --------------------------------------------------------------------------------------------


def end_to_end(bench: Bench) -> Facts:
    """Whole runs compared with the baseline, and the share of the cores' peak that they reach."""
    sizes = bench.sizes
    paths = [str(path) for path in inputs.cohort_files(bench.cohort, sizes.baseline)]
    bench.run("warm", dataset=str(bench.few(sizes.baseline)))  # builds the engine's cache, as a first run does
    plain, ours, first, peaks, difference = [], [], [], [], 0.0
    for number in range(sizes.rounds):
        peaks.append(peak_gflops(sizes.matrix))
        seed_output = bench.output("seed")
        request = {
            "paths": paths,
            "checkpoint": str(bench.checkpoint),
            "output_dir": str(seed_output),
            "threads": len(usable_cores()),
        }
        plain.append(run_child("benchmarks.seed_way", request))
        ours.append(bench.run("ours"))
        peaks.append(peak_gflops(sizes.matrix))
        difference = max(difference, _difference(seed_output, bench.folder / "out" / "ours"))
        first.append(bench.run("first", dataset=str(bench.few(8))).report["first"])
        if number + 1 < sizes.rounds:
            shutil.rmtree(bench.folder / "out" / "ours")
    if difference > TOLERANCE:
        raise RuntimeError(f"the outputs differ by {difference:.2g}; {TOLERANCE:g} was allowed")
    return _end_to_end_facts(sizes, plain, ours, first, peaks, difference)


def _end_to_end_facts(
    sizes: Sizes, plain: list[Child], ours: list[Child], first: list[float], peaks: list[float], difference: float
) -> Facts:
    n = sizes.recordings
    plain_each = [child.report["seconds"] / child.report["records"] for child in plain]
    plain_start = [child.wall - child.report["seconds"] for child in plain]
    plain_whole = [start + n * each for start, each in zip(plain_start, plain_each, strict=True)]
    ours_each = [child.report["seconds"] / n for child in ours]
    gflop, peak = network_gflop(inputs.LENGTH), max(peaks)
    return {
        "recordings": n,
        "baseline_recordings": sizes.baseline,
        "largest_relative_difference": difference,
        "plain_ecg_per_second": spread(1 / each for each in plain_each),
        "plain_start_seconds": spread(plain_start),
        "plain_core_ms": spread(1e3 * child.cpu / child.report["records"] for child in plain),
        "ecg_per_second": spread(1 / each for each in ours_each),
        "whole_seconds": spread(child.wall for child in ours),
        "start_seconds": spread(child.wall - child.report["seconds"] for child in ours),
        "core_ms": spread(1e3 * child.cpu / n for child in ours),
        "first_embedding_seconds": spread(first),
        "times_with_start": ratio(plain_whole, [child.wall for child in ours]),
        "times_without_start": ratio(plain_each, ours_each),
        "network_gflop": gflop,
        "peak_gflops": spread(peaks),
        "limit_ecg_per_second": peak / gflop,
        "share_of_peak": spread(gflop / each / peak for each in ours_each),
    }


def _difference(theirs: Path, ours: Path) -> float:
    """Largest relative difference (Frobenius norm) between two folders' embeddings of the same names."""
    largest = 0.0
    for path in sorted(theirs.glob("*.json")):
        a, b = (np.array(json.loads((folder / path.name).read_bytes())["embedding"]) for folder in (theirs, ours))
        largest = max(largest, float(np.linalg.norm(a - b) / np.linalg.norm(a)))
    return largest


# -- (b) Stages --------------------------------------------------------------------------------------------------------


def stages(bench: Bench) -> Facts:
    """CPU time per recording of each stage alone, in one thread, and of the baseline's stages."""
    from benchmarks import seed_way
    from ecgfounder.machine import keep_freed_memory
    from ecgfounder.preprocess.preparation import Preparation
    from ecgfounder.preprocess.recipes import FILTERED
    from ecgfounder.preprocess.signals import prepare
    from ecgfounder.readers import read_ecg
    from ecgfounder.stages.read import Job, ReadTask

    keep_freed_memory()  # as the reading processes do
    paths = [str(path) for path in inputs.cohort_files(bench.cohort, bench.sizes.stage_files)]
    few = paths[: max(2, len(paths) // 12)]
    recordings = [read_ecg(path) for path in paths]
    task, filtered = ReadTask(Preparation()), Preparation(recipe=FILTERED)
    outputs = _outputs(paths)
    embedding = outputs[0].embedding
    work: dict[str, tuple[int, Callable[[Path], object]]] = {
        "read": (len(paths), lambda _: [read_ecg(path) for path in paths]),
        "prepare": (len(paths), lambda _: [prepare(recording, task.preparation) for recording in recordings]),
        "prepare, recipe filtered": (len(few), lambda _: [prepare(each, filtered) for each in recordings[: len(few)]]),
        "read and prepare, with the file's hash": (
            len(paths),
            lambda _: [list(task.events(Job(0, path))) for path in paths],
        ),
        "write JSON, synced": (len(paths), lambda folder: _write_json(folder, outputs)),
        "write Parquet, synced": (len(paths), lambda folder: _write_parquet(folder, outputs)),
        "baseline: read and z-score": (len(few), lambda _: [seed_way.read(path) for path in few]),
        "baseline: write": (len(few), lambda folder: [seed_way.write(folder, path, embedding) for path in few]),
    }
    took: dict[str, list[float]] = {name: [] for name in work}
    for number in range(2 * bench.sizes.rounds + 1):
        for name, (n, call) in work.items():
            folder = bench.output("stage")
            (folder / "scratch").mkdir(parents=True)
            seconds = cpu_seconds(lambda call=call, folder=folder: call(folder))
            if number:  # the first round warms up
                took[name].append(1e3 * seconds / n)
    return {"core_ms": {name: spread(values) for name, values in took.items()}}


def _outputs(paths: list[str]) -> list[Output]:
    """Outputs for the sinks, one for each path."""
    from ecgfounder.sinks.sink import Output

    maps = np.random.default_rng(0).standard_normal((8, 22, 1024), dtype=np.float32)
    return [
        Output(
            key=f"{number:016x}",
            record=path,
            title=Path(path).name,
            name=f"{Path(path).stem}.json",
            embeddings=(maps[number % len(maps)],),
        )
        for number, path in enumerate(paths)
    ]


def _write_json(folder: Path, outputs: list[Output]) -> None:
    from ecgfounder.sinks.json import JsonSink

    sink = JsonSink(folder, folder / "scratch")
    for start in range(0, len(outputs), 8):
        sink.write(outputs[start : start + 8])


def _write_parquet(folder: Path, outputs: list[Output]) -> None:
    from ecgfounder.sinks.parquet import ParquetSink

    sink = ParquetSink(folder, folder / "scratch", prefix="bench")
    sink.write(outputs)
    sink.close()


# -- (c) Engines -------------------------------------------------------------------------------------------------------


def engines(bench: Bench) -> Facts:
    """Inputs per second of every engine and precision, over batch sizes and lengths, with one calling thread per core."""
    from ecgfounder.engines import create_engine, gpu_available, native_usable, onnx_installed

    os.environ.update(bench.environment)
    choices = [("torch", "float32", "cpu"), ("torch", "bfloat16", "cpu")]
    choices += [("onnx", "float32", "cpu")] if onnx_installed() else []
    choices += [("native", "float32", "cpu")] if native_usable() else []
    if gpu_available():
        choices += [("torch", precision, "cuda") for precision in ("float32", "bfloat16", "float16")]
    threads = len(usable_cores())
    made = {
        (name, precision, device): create_engine(
            name,
            mode="12lead",
            checkpoint=bench.checkpoint,
            precision=precision,
            device=device,
            threads=threads,
            batch_size=max(bench.sizes.batches),
        )
        for name, precision, device in choices
    }
    shapes = [(batch, bench.sizes.batch_length) for batch in bench.sizes.batches]
    shapes += [(8, length) for length in bench.sizes.lengths if (8, length) not in shapes]
    rows = []
    for batch, length in shapes:
        signals = signals_of(batch, length)
        reference = made["torch", "float32", "cpu"].embed(signals)
        took: dict[tuple[str, str, str], list[float]] = {key: [] for key in made}
        for _ in range(bench.sizes.rounds + 1):
            for key, engine in made.items():
                took[key].append(seconds_per_input(engine, signals))
        for key, engine in made.items():
            error = np.linalg.norm(engine.embed(signals) - reference) / np.linalg.norm(reference)
            rows.append(
                {
                    **dict(zip(("engine", "precision", "device"), key, strict=True)),
                    "batch": batch,
                    "length": length,
                    "inputs_per_second": spread(1 / each for each in took[key][1:]),
                    "times_torch_float32": ratio(took["torch", "float32", "cpu"][1:], took[key][1:]),
                    "relative_error": float(error),
                }
            )
    for engine in made.values():
        engine.close()
    return {"threads": threads, "rows": rows}


def signals_of(batch: int, length: int) -> Any:
    """z-scored recordings, float32 [batch, 12, length], cropped or repeated to that length."""
    signals = np.stack([np.resize(inputs.counts(number).T, (length, 12)).T for number in range(batch)]).astype(float)
    signals -= signals.mean(axis=(1, 2), keepdims=True)
    return np.ascontiguousarray(signals / signals.std(axis=(1, 2), keepdims=True), dtype=np.float32)


def seconds_per_input(engine: Any, signals: Any, calls: int = 2) -> float:
    """Seconds per input while all of the engine's threads embed batches, with `calls` calls each."""
    from concurrent.futures import ThreadPoolExecutor

    calls *= engine.threads
    with ThreadPoolExecutor(engine.threads) as pool:
        seconds = wall_seconds(lambda: list(pool.map(engine.embed, [signals] * calls)))
    return seconds / (calls * len(signals))


# -- (e) Growth, (f) null engine ---------------------------------------------------------------------------------------


def growth(bench: Bench) -> Facts:
    """Runs of growing size without reading and computing: time per record and memory should not grow.

    Each run is then resumed with one recording more, to measure how long it takes to find the record that is left to do.
    """
    rows = []
    for n in bench.sizes.growth:
        took, again = [], []
        options: Facts = {"format": "parquet", "pooling": "mean", "stand_ins": ["engine", "reader"]}
        tables = [str(inputs.write_table(bench.folder, size)) for size in (n, n + 1)]
        for _ in range(min(bench.sizes.rounds, 2)):
            took.append(bench.run("growth", dataset=tables[0], **options))
            again.append(bench.run("growth", dataset=tables[1], resume=True, **options))
            if again[-1].report["records"] != 1:
                raise RuntimeError(f"{again[-1].report['records']} recordings were done again; 1 was left")
        rows.append(
            {
                "recordings": n,
                "ms_per_record": spread(1e3 * child.report["seconds"] / n for child in took),
                "whole_seconds": spread(child.wall for child in took),
                "core_ms": spread(1e3 * child.cpu / n for child in took),
                "memory_mib": spread(child.report["memory_mib"] for child in took),
                "reader_memory_mib": spread(child.report["reader_memory_mib"] for child in took),
                "resumed_first_job_seconds": spread(child.report["first_job"] for child in again),
                "resumed_memory_mib": spread(child.report["memory_at_first_job_mib"] for child in again),
            }
        )
    return {"rows": rows}


def null_engine(bench: Bench) -> Facts:
    """The whole pipeline on real files without a network: the work of a GPU's host per recording.

    CPU time per recording is the slope between a small run and the whole one, which excludes start-up.
    """
    few = max(1, bench.sizes.recordings // 5)
    small_cohort = bench.few(few)
    small, whole, plain = [], [], []
    for _ in range(bench.sizes.rounds):
        small.append(bench.run("null_small", dataset=str(small_cohort), stand_ins=["engine"]))
        whole.append(bench.run("null", stand_ins=["engine"]))
        plain.append(_plain_ms(bench))
    n = bench.sizes.recordings - few
    slopes = [1e3 * (b.cpu - a.cpu) / n for a, b in zip(small, whole, strict=True)]
    return {
        "recordings": bench.sizes.recordings,
        "ecg_per_second": spread(bench.sizes.recordings / child.report["seconds"] for child in whole),
        "core_ms": spread(slopes),
        "start_core_seconds": spread(a.cpu - few * each / 1e3 for a, each in zip(small, slopes, strict=True)),
        "plain_core_ms": spread(plain),
        "times_plain": ratio(plain, slopes),
    }


def _plain_ms(bench: Bench) -> float:
    """CPU ms of the baseline for reading, z-scoring and writing one recording."""
    from benchmarks import seed_way

    output = bench.output("plain_null")
    output.mkdir(parents=True)
    plain_map = np.random.default_rng(0).standard_normal((22, 1024), dtype=np.float32)
    paths = [str(path) for path in inputs.cohort_files(bench.cohort, max(2, bench.sizes.stage_files // 6))]

    def work() -> None:
        for path in paths:
            seed_way.read(path)
            seed_way.write(output, path, plain_map)

    return 1e3 * cpu_seconds(work) / len(paths)


# -- (g) Scaling -------------------------------------------------------------------------------------------------------


def scaling(bench: Bench) -> Facts:
    """One process on one core, then two shards at once on a core each; recordings per second without start-up."""
    cores = usable_cores()[:2]
    n = bench.sizes.scaling
    one_cohort, two_cohort = (str(inputs.write_cohort(bench.folder, size)) for size in (n, 2 * n))
    one, two = [], []
    for _ in range(min(bench.sizes.rounds, 2)):
        one.append(n / bench.run("one", dataset=one_cohort, cores=cores[:1]).report["seconds"])
        output = bench.output("two")
        requests = [bench.request(output, dataset=two_cohort, shard=[part, 2]) for part in (1, 2)]
        pair = run_children(
            "benchmarks.child",
            requests,
            cores=[[cores[0]], [cores[-1]]],
            environment=bench.environment,
        )
        # Shards have nearly equal sizes, so their rates are measured while both compute.
        two.append(sum(child.report["records"] / child.report["seconds"] for child in pair))
    return {"one_ecg_per_second": spread(one), "two_ecg_per_second": spread(two), "times": ratio(two, one)}


def latency(bench: Bench) -> Facts:
    """Runs without a network over a folder, and over a stand-in for an object store that waits before each answer."""
    if importlib.util.find_spec("obstore") is None:
        return {"skipped": "obstore is not installed", "rows": []}
    n, rows = bench.sizes.recordings, []
    cohorts = {"Philips": inputs.write_cohort(bench.folder, n), "WFDB": inputs.write_wfdb_cohort(bench.folder, n)}
    for name, folder in cohorts.items():
        table = bench.folder / f"table_{folder.name}.csv"
        files = sorted(path.name for path in folder.iterdir() if path.suffix in (".xml", ".hea"))
        table.write_text("ecg_paths\n" + "\n".join(files) + "\n", encoding="utf-8")
        for delay in (None, *bench.sizes.delays):
            runs = [_run_with_latency(bench, table, folder, delay) for _ in range(bench.sizes.rounds)]
            rows.append(
                {
                    "what": name,
                    "delay": delay,
                    "ecg_per_second": spread(n / run.report["seconds"] for run in runs),
                    "core_ms": spread(1e3 * run.cpu / n for run in runs),
                }
            )
    return {"recordings": n, "rows": rows}


def _run_with_latency(bench: Bench, table: Path, folder: Path, delay: float | None) -> Child:
    settings = {"dataset": str(table), "format": "parquet", "pooling": "mean", "stand_ins": ["engine"]}
    if delay is None:
        return bench.run("latency", data_dir=str(folder), **settings)
    command = [sys.executable, "-m", "benchmarks.slow_store", str(folder), str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as store:
        assert store.stdout is not None
        endpoint = f"http://127.0.0.1:{store.stdout.readline().strip()}"
        options = {"endpoint": endpoint, "skip_signature": True, "region": "us-east-1", "allow_http": True}
        run = bench.run("latency", data_dir="s3://cohort", storage_options=options, **settings)
        store.communicate("")
    return run


def starting(bench: Bench) -> Facts:
    """`ecgfounder --help`, from the command to the last line."""
    command = [sys.executable, "-m", "ecgfounder.cli", "--help"]
    took = [
        wall_seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))
        for _ in range(2 * bench.sizes.rounds + 1)
    ]
    return {"help_seconds": spread(took[1:])}


def drift(bench: Bench) -> Facts:
    """`ecgfounder.analysis.drift` by site, without and with a label, on one core each: `benchmarks.drift`."""
    request = {"recordings": bench.sizes.drift, "features": bench.sizes.drift_features, "by": ["site"]}
    rows = []
    for what, further in (("a factor", {}), ("a factor and a label", {"label": ["af"]})):
        child = run_child("benchmarks.drift", {**request, **further}, environment={"OPENBLAS_NUM_THREADS": "1"})
        rows.append({"what": what, **child.report})
    return {"features": bench.sizes.drift_features, "rows": rows}


def probe(bench: Bench) -> Facts:
    """The evaluation of a probe, and of one on the sample of its controls, on one core each: `benchmarks.probe`."""
    sizes = bench.sizes
    rows = []
    for what, recordings, folds, draws in (
        ("5 folds, 3 inner ones", sizes.probe, 5, 1000),
        ("a given split", sizes.probe, 1, 1000),
        ("a control on the sample", sizes.probe_sample, 5, 1000),
        ("a permutation on the sample", sizes.probe_sample, 5, 2),
    ):
        request = {"recordings": recordings, "features": sizes.probe_features, "labels": sizes.probe_labels}
        child = run_child(
            "benchmarks.probe", {**request, "folds": folds, "draws": draws}, environment={"OPENBLAS_NUM_THREADS": "1"}
        )
        rows.append({"what": what, **child.report})
    return {"features": sizes.probe_features, "rows": rows}


def gpu(bench: Bench) -> Facts:
    """The GPU, if there is one: `benchmarks.gpu`."""
    from benchmarks.gpu import gpu as measured

    return measured(bench)


def analysis(bench: Bench) -> Facts:
    """Neighbours and duplicates in runs of several sizes: `benchmarks.alike`."""
    from benchmarks.alike import alike

    return alike(bench.folder, bench.environment, bench.sizes.analysis, bench.sizes.rounds)


def report(bench: Bench) -> Facts:
    """A report on runs of several sizes: `benchmarks.reporting`."""
    from benchmarks.reporting import reported

    return reported(bench.folder, bench.environment, bench.sizes.analysis)


def viewer(bench: Bench) -> Facts:
    """The viewer's page in a browser: `benchmarks.view`."""
    from benchmarks.view import viewed

    return viewed(bench.environment, bench.sizes.viewer, bench.sizes.rounds)


PARTS: dict[str, Callable[[Bench], Facts]] = {
    "end_to_end": end_to_end,
    "stages": stages,
    "engines": engines,
    "growth": growth,
    "null_engine": null_engine,
    "scaling": scaling,
    "starting": starting,
    "latency": latency,
    "analysis": analysis,
    "gpu": gpu,
    "drift": drift,
    "probe": probe,
    "report": report,
    "viewer": viewer,
}
