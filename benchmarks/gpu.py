"""GPU benchmarks: the network alone in every implementation and precision, through the engines, and whole runs; one table.

In: a `Bench`. Out: rows. The network's rows need torch, numpy and safetensors; a measurement that lacks a package or a GPU gives
a row that says so. Without a GPU the benchmarks run on the CPU as far as possible, to check that they work.
"""

from __future__ import annotations

import copy
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import inputs
from benchmarks.measure import Facts, run_children, spread, usable_cores, wall_seconds
from ecgfounder.net1d import Block, Net1D, SamePadConv1d, same_padding

if TYPE_CHECKING:
    from benchmarks.parts import Bench

Maps = Callable[[Tensor], Tensor]

RUN_PACKAGES = (
    "accelerate",
    "datasets",
    "lxml",
    "msgspec",
    "orjson",
    "pyarrow",
    "pydicom",
    "scipy",
    "sierraecg",
    "tqdm",
)
DTYPES = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ERROR_ROWS = 2
PASSES_SECONDS = 0.2


def gpu(bench: Bench) -> Facts:
    """Rows of the network, of engines and of runs, and the GPU's peaks."""
    card = _Card(bench)
    rows = []
    for row in chain(card.network(), card.sizes(), card.engines(), _memory(card), _runs(card)):
        print(_told(row), file=sys.stderr, flush=True)  # in case the machine is lost before the end
        rows.append(row)
    return {"card": card.facts(), "rows": rows}


def _told(row: Facts) -> str:
    rate = f"{row['per_second']['median']:,.0f}/s" if "per_second" in row else row.get("skipped", "")
    return " ".join(str(row[name]) for name in ("what", "precision", "batch", "length") if name in row) + f": {rate}"


class _Card:
    """The device, its peaks, the signals and the network for all rows."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.cuda else "cpu")
        self.batch, self.length = bench.sizes.gpu_batch, bench.sizes.gpu_length
        self.clocks_before = _clocks() if self.cuda else None

    @cached_property
    def net(self) -> Net1D:
        from ecgfounder.network.checkpoint import build_network, load_backbone

        weights, _ = load_backbone(self.bench.checkpoint, "12lead")
        return build_network(weights, "12lead", 1).eval().requires_grad_(False)

    @cached_property
    def exact(self) -> np.ndarray:
        """The first signals' feature maps in float64."""
        with torch.inference_mode():
            signals = torch.from_numpy(self.signals(self.batch, self.length)[:ERROR_ROWS]).double()
            return copy.deepcopy(self.net).double().feature_map(signals).numpy()

    @cached_property
    def peaks(self) -> dict[str, float]:
        """TFLOP/s of a matrix product in each precision."""
        size = 8192 if self.cuda else self.bench.sizes.matrix
        return {precision: self._peak(precision, size) for precision in (DTYPES if self.cuda else ("float32",))}

    def _peak(self, precision: str, size: int) -> float:
        with _tf32(precision):
            a, b = (torch.randn(size, size, device=self.device, dtype=DTYPES[precision]) for _ in range(2))
            self.seconds(lambda: a @ b)
            return 2 * size**3 / min(self.seconds(lambda: a @ b) for _ in range(4)) / 1e12

    def signals(self, batch: int, length: int) -> np.ndarray:
        from benchmarks.parts import signals_of

        few = signals_of(min(batch, 16), length)
        return np.ascontiguousarray(np.resize(few, (batch, *few.shape[1:])))

    def seconds(self, work: Callable[[], object]) -> float:
        def whole() -> None:
            work()
            if self.cuda:
                torch.cuda.synchronize()

        return wall_seconds(whole)

    def facts(self) -> Facts:
        names = (
            {"name": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}
            if self.cuda
            else {}
        )
        return {
            **names,
            "peak_tflops": self.peaks,
            "clocks_before": self.clocks_before,
            "clocks_after": _clocks() if self.cuda else None,
        }

    # -- The network alone

    def network(self) -> Iterator[Facts]:
        """Every implementation and precision on one batch."""
        for what, precision, make in _ways(self):
            yield self.row(what, precision, make, self.batch, self.length, checked=True)

    def sizes(self) -> Iterator[Facts]:
        """The fastest implementation, and PyTorch's, over batches and lengths."""
        sizes = self.bench.sizes
        shapes = [(batch, self.length) for batch in sizes.gpu_batches if batch != self.batch]
        shapes += [
            (max(1, self.batch * self.length // length), length)
            for length in sizes.gpu_lengths
            if length != self.length
        ]
        for what, precision, make in _ways(self):
            if precision in ("float32", "bfloat16") and what in ("torch", "triton", "triton, CUDA graph"):
                once = cache(make)
                for batch, length in shapes:
                    yield self.row(what, precision, once, batch, length, checked=False)

    def row(
        self, what: str, precision: str, make: Callable[[], Maps], batch: int, length: int, *, checked: bool
    ) -> Facts:
        row: Facts = {"what": what, "precision": precision, "batch": batch, "length": length}
        try:
            with _tf32(precision), torch.inference_mode():
                began = time.perf_counter()
                maps, x = make(), torch.from_numpy(self.signals(batch, length)).to(self.device)
                self.seconds(lambda: maps(x))
                row["first_seconds"] = time.perf_counter() - began
                row["per_second"] = self._rate(lambda: maps(x), batch)
                row["tflops"] = self.bench.network_gflop(length) * row["per_second"]["median"] / 1e3
                row["share_of_peak"] = row["tflops"] / self.peaks.get(precision, float("nan"))
                if checked:
                    row |= self._checks(maps, x)
        except (RuntimeError, ImportError) as error:  # missing compilers and libraries
            row["skipped"] = " ".join(str(error).split())[:120]
        if self.cuda:
            torch.cuda.empty_cache()
        return row

    def _rate(self, work: Callable[[], object], batch: int) -> Facts:
        passes = max(1, int(PASSES_SECONDS / self.seconds(work))) if self.cuda else 1
        return spread(
            batch * passes / self.seconds(lambda: [work() for _ in range(passes)])
            for _ in range(max(3, self.bench.sizes.rounds) if self.cuda else 1)
        )

    def _checks(self, maps: Maps, x: Tensor) -> Facts:
        """The error against float64, and whether a signal's bytes are the same in other batches."""
        whole = maps(x).clone()
        few = [rows for rows in (1, 7, 64) if rows < len(x)]
        parts = [(start, rows) for rows in few for start in (0, len(x) - rows)]
        same = all(
            torch.equal(maps(x[start : start + rows].contiguous()), whole[start : start + rows])
            for start, rows in parts
        )
        found = whole[:ERROR_ROWS].double().cpu().numpy()
        return {
            "relative_error": float(np.linalg.norm(found - self.exact) / np.linalg.norm(self.exact)),
            "same_bytes": same,
        }

    # -- Through the engines

    def engines(self) -> Iterator[Facts]:
        """From NumPy arrays to NumPy arrays, as in the program, with the engine's number of threads."""
        from benchmarks.parts import seconds_per_input
        from ecgfounder.engines import create_engine

        for precision in ("float32", "bfloat16") if self.cuda else ("float32",):
            for batch in sorted({8, 64, self.batch}) if self.cuda else (self.batch,):
                made = create_engine(
                    "auto" if self.cuda else "torch",
                    mode="12lead",
                    checkpoint=self.bench.checkpoint,
                    precision=precision,
                    device=str(self.device),
                    threads=len(usable_cores()),
                    batch_size=batch,
                )
                batches = self.signals(batch, self.length)
                seconds_per_input(made, batches)
                took = [seconds_per_input(made, batches, calls=20 if self.cuda else 1) for _ in range(3)]
                yield {
                    "what": f"engine {made.name}, arrays in and out",
                    "precision": precision,
                    "batch": batch,
                    "length": self.length,
                    "per_second": spread(1 / each for each in took),
                }
                made.close()


@contextmanager
def _tf32(precision: str) -> Iterator[None]:
    """Set whether PyTorch rounds float32 products to TF32."""
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def _clocks() -> str:
    query = "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"


# -- Implementations of the network ------------------------------------------------------------------------------------


def _ways(card: _Card) -> Iterator[tuple[str, str, Callable[[], Maps]]]:
    precisions = tuple(DTYPES) if card.cuda else ("float32",)
    ways: dict[str, tuple[tuple[str, ...], Callable[[str], Maps]]] = {
        "torch": (precisions, lambda precision: _torch(card, precision)),
        "torch, 2-D channels last": (precisions, lambda precision: _torch(card, precision, flat=True)),
        "torch, groups of 32": (("float32", "bfloat16"), lambda precision: _torch(card, precision, width=32)),
        "torch, groups of 64": (("float32", "bfloat16"), lambda precision: _torch(card, precision, width=64)),
        "torch, 2-D, groups of 64": (
            ("float32", "bfloat16"),
            lambda precision: _torch(card, precision, flat=True, width=64),
        ),
    }
    if card.cuda:
        ways |= {
            "torch, CUDA graph": (("float32", "bfloat16"), lambda precision: _graph(_torch(card, precision))),
            "torch compiled": (("float32", "bfloat16"), lambda precision: _torch(card, precision, compiled=True)),
            "torch compiled, 2-D": (("bfloat16",), lambda precision: _torch(card, precision, flat=True, compiled=True)),
            "triton": (("float32", "bfloat16", "float16"), lambda precision: _triton(card, precision)),
            "triton, CUDA graph": (("float32", "bfloat16"), lambda precision: _graph(_triton(card, precision))),
            "triton, no tensor cores": (("float32",), lambda precision: _triton(card, precision, "ieee")),
        }
    for what, (known, make) in ways.items():
        for precision in known:
            if precision in precisions:
                yield what, precision, lambda make=make, precision=precision: make(precision)


def _torch(
    card: _Card, precision: str, *, flat: bool = False, width: int | None = None, compiled: bool = False
) -> Maps:
    net = copy.deepcopy(card.net)
    if width is not None:
        _widen(net, width)
    net = net.to(card.device, DTYPES[precision])
    features: Maps = _Flat(net) if flat else net.features
    if compiled:
        features = torch.compile(features, dynamic=False)
    return lambda x: features(x.to(DTYPES[precision])).mT.float().contiguous()


def _triton(card: _Card, precision: str, product: str = "tf32x3") -> Maps:
    from ecgfounder.engines.triton import FusedNet

    fused = FusedNet(card.net, card.device, precision, product)
    return lambda x: fused.feature_map(x).float()


def _graph(maps: Maps) -> Maps:
    """A CUDA graph: the kernels of one shape, recorded once and replayed."""
    recorded: dict[tuple[int, ...], tuple[Tensor, torch.cuda.CUDAGraph, Tensor]] = {}

    def replayed(x: Tensor) -> Tensor:
        if tuple(x.shape) not in recorded:
            given, graph = x.clone(), torch.cuda.CUDAGraph()
            maps(given)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                out = maps(given)
            recorded[tuple(x.shape)] = given, graph, out
        given, graph, out = recorded[tuple(x.shape)]
        given.copy_(x)
        graph.replay()
        return out

    return replayed


def _widen(net: Net1D, width: int) -> None:
    """Replace grouped convolutions by ones with fewer, wider groups, padded with zeros, of about `width` channels."""
    for block in (module for module in net.modules() if isinstance(module, Block)):
        conv = block.conv2.conv
        narrow = conv.in_channels // conv.groups
        times = next(n for n in range(max(1, width // narrow), 0, -1) if conv.groups % n == 0)
        wide = torch.zeros(conv.out_channels, narrow * times, *conv.kernel_size)
        for group in range(conv.groups):
            rows, at = slice(group * narrow, (group + 1) * narrow), group % times * narrow
            wide[rows, at : at + narrow] = conv.weight[rows]
        conv.weight, conv.groups = nn.Parameter(wide, requires_grad=False), conv.groups // times


class _Flat:
    """Net1D over feature maps [B, C, 1, L] with channels last, for which cuDNN has special kernels."""

    def __init__(self, net: Net1D) -> None:
        self.net = net
        convs = [module for module in net.modules() if isinstance(module, SamePadConv1d)]
        self.weights = {
            conv: conv.conv.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last) for conv in convs
        }

    def __call__(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = F.silu(self._conv(self.net.first_conv, x))
        for stage in self.net.stage_list:
            for block in stage.block_list:
                x = self._block(block, x)
        return x.squeeze(2)

    def _conv(self, layer: SamePadConv1d, x: Tensor) -> Tensor:
        if layer.kernel_size > 1:
            x = F.pad(x, same_padding(x.shape[-1], layer.kernel_size, layer.stride))
        return F.conv2d(x, self.weights[layer], layer.conv.bias, (1, layer.stride), groups=layer.conv.groups)

    def _block(self, block: Block, x: Tensor) -> Tensor:
        out = self._conv(block.conv1, x if block.is_first_block else F.silu(x))
        out = self._conv(block.conv3, F.silu(self._conv(block.conv2, F.silu(out))))
        scale = torch.sigmoid(block.se_fc2(F.silu(block.se_fc1(out.mean((2, 3))))))
        if block.stride > 1:
            x = F.max_pool2d(F.pad(x, (0, 1)), (1, block.stride))
        wider = block.out_channels - block.in_channels
        x = F.pad(x, (0, 0, 0, 0, wider // 2, wider - wider // 2))
        return torch.addcmul(x, out, scale[:, :, None, None])


# -- Memory, and whole runs --------------------------------------------------------------------------------------------


def _memory(card: _Card) -> Iterator[Facts]:
    """With little free GPU memory, a batch is halved repeatedly and gives the same bytes."""
    row: Facts = {"what": "memory runs out", "precision": "float32", "batch": 4 * card.batch, "length": card.length}
    if not card.cuda:
        yield row | {"skipped": "needs a GPU"}
        return
    from ecgfounder.engines import create_engine

    made = create_engine(
        "auto", mode="12lead", checkpoint=card.bench.checkpoint, device="cuda", batch_size=4 * card.batch
    )
    batch = card.signals(4 * card.batch, card.length)
    whole = made.embed(batch)
    torch.cuda.empty_cache()
    taken = torch.empty(max(0, torch.cuda.mem_get_info()[0] - (1 << 30)), dtype=torch.uint8, device="cuda")
    same = bool(np.array_equal(made.embed(batch), whole))
    del taken
    rows = (made.samples_per_pass or 0) // card.length
    made.close()
    yield row | {"same_bytes": same, "note": f"with 1 GiB left: passes of {rows} rows, engine {made.name}"}


def _runs(card: _Card) -> Iterator[Facts]:
    """Whole runs from files to embeddings, with one process and with several on one GPU."""
    missing = [name for name in RUN_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        yield {"what": "runs", "skipped": f"not installed: {', '.join(missing)}"}
        return
    bench, n = card.bench, card.bench.sizes.gpu_recordings
    philips, wfdb = inputs.write_cohort(bench.folder, n), inputs.write_wfdb_cohort(bench.folder, n)
    common: Facts = {
        "device": str(card.device),
        "batch_size": 64 if card.cuda else 8,
        "num_workers": max(1, len(usable_cores()) - 1),
    }
    pooled: Facts = {"format": "parquet", "pooling": "mean"}
    cohorts = {"Philips": philips, "WFDB": wfdb}
    for precision in ("float32", "bfloat16") if card.cuda else ("float32",):
        for name, cohort in cohorts.items():
            for form, options in (("pooled Parquet", pooled), ("JSON maps", {})):
                settings = {
                    **common,
                    **options,
                    "dataset": str(cohort),
                    "data_dir": str(cohort),
                    "precision": precision,
                }
                yield _run(bench, f"{name} to {form}", precision, n, [settings])
    table = inputs.write_repeated(bench.folder, wfdb, bench.sizes.gpu_repeats)
    shared = {**common, **pooled, "dataset": str(table), "data_dir": str(table.parent), "precision": "float32"}
    for several in (4, 8) if card.cuda else (2,):
        workers = max(1, len(usable_cores()) // several)
        parts = [{**shared, "num_workers": workers, "shard": [part + 1, several]} for part in range(several)]
        rows = n * bench.sizes.gpu_repeats
        yield _run(bench, f"WFDB to pooled Parquet, {several} shards on one card", "float32", rows, parts)
    made_up = {
        **common,
        **pooled,
        "dataset": str(inputs.write_table(bench.folder, 4 * n)),
        "precision": "float32",
        "stand_ins": ["reader"],
    }
    yield _run(bench, "synthetic recordings to pooled Parquet", "float32", 4 * n, [made_up])
    launched = {**common, **pooled, "dataset": str(wfdb), "data_dir": str(wfdb)}
    yield _launched(bench, {**launched, "num_workers": max(1, len(usable_cores()) // 4)}, n)


def _run(bench: Bench, what: str, precision: str, n: int, parts: list[Facts]) -> Facts:
    output = bench.output("gpu")
    requests = [bench.request(output, **settings) for settings in parts]
    length = inputs.WFDB_LENGTH if what.startswith("WFDB") else inputs.LENGTH
    row: Facts = {"what": what, "precision": precision, "batch": parts[0]["batch_size"], "length": length}
    try:
        children = run_children("benchmarks.child", requests, cores=[None] * len(parts), environment=bench.environment)
    except RuntimeError as error:
        return row | {"skipped": str(error)[-300:]}
    if any(child.report["failed"] for child in children):
        return row | {"skipped": "recordings failed"}
    seconds = max(child.report["seconds"] for child in children)
    return row | {
        "per_second": spread([n / seconds]),
        "core_ms": sum(child.cpu for child in children) * 1e3 / n,
        "note": f"waits for {children[0].report['slowest']}; engine {children[0].report['engine'].partition(',')[0]}; "
        f"first job after {max(child.report['first_job'] or 0.0 for child in children):.1f} s",
        "memory": children[0].report["memory_over_time"],
        "main_core_ms": sum(child.report["main_cpu"] for child in children) * 1e3 / n,
    }


def _launched(bench: Bench, settings: Facts, n: int) -> Facts:
    """Two processes under `accelerate launch`, both on the same GPU."""
    output = bench.output("launched")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--multi_gpu"]
    command += [
        "--module",
        "ecgfounder.cli",
        "embed",
        "--output_dir",
        str(output),
        "--checkpoint",
        str(bench.checkpoint),
    ]
    for name in ("dataset", "data_dir", "format", "pooling", "batch_size", "num_workers"):
        command += [f"--{name}", str(settings[name])]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    row: Facts = {
        "what": "two processes by accelerate launch, start-up in",
        "precision": "float32",
        "length": inputs.WFDB_LENGTH,
    }
    if done.returncode:
        return row | {"skipped": f"exit status {done.returncode}: {done.stderr.strip()[-300:]}"}
    return row | {"batch": settings["batch_size"], "per_second": spread([n / (time.perf_counter() - began)])}
