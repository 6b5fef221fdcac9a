"""The ONNX Runtime engine: the fastest one on a CPU if the native engine was not built.

In: float32 [B, C, L]. Out: float32 [B, T, 1024]. The graph is written directly from the checkpoint's weights, once per
checkpoint, and cached. With a cached graph, neither torch nor the checkpoint's tensors are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgfounder.engines.cache import Parts, from_cache, head_of_parts, head_parts
from ecgfounder.engines.engine import Array, CpuEngine
from ecgfounder.errors import EmbeddingError
from ecgfounder.network.bundles import ARCHITECTURE, FEATURES, spec_of
from ecgfounder.network.checkpoint import load_backbone, sha256_of

GRAPH_VERSION = 2
"""Part of the cache's key: raise it if `build_graph` changes the graph, or `head_parts` the head."""

_GRAPH = "graph"

_OPSET, _IR_VERSION = 17, 8  # the oldest versions with all operators used, for older ONNX Runtimes


class OnnxEngine(CpuEngine):
    """The network in ONNX Runtime on a CPU, float32. Parameters and errors: `ecgfounder.engines.create_engine`.

    All calling threads share one session: it has no state between runs, computes each run in the calling thread, and holds the
    weights once.
    """

    name = "onnx"

    def __init__(self, mode: str, checkpoint: Path, *, threads: int, checkpoint_sha256: str | None = None) -> None:
        self._session, head = from_cache(
            f"{checkpoint_sha256 or sha256_of(checkpoint)}-{mode}-v{GRAPH_VERSION}",
            build=lambda: _build_parts(checkpoint, mode),
            load=lambda parts: (_session(parts[_GRAPH].tobytes()), head_of_parts(parts)),
        )
        super().__init__(mode, threads=threads, head=head)

    def _fill(self, maps: Array, rows: Array) -> None:
        try:
            (maps[:],) = self._session.run(["map"], {"signals": rows})
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            reason = " ".join(str(error).split())[:200]
            raise EmbeddingError(f"ONNX Runtime could not compute a batch of {list(rows.shape)}: {reason}") from error

    def describe(self) -> str:
        import onnxruntime

        return f"ONNX Runtime {onnxruntime.__version__}, CPU, float32, {self.threads} threads"

    def close(self) -> None:
        self._session = None


# ---------------------------------------------------------------------------------------------------------- the session


def _build_parts(checkpoint: Path, mode: str) -> Parts:
    tensors, head = load_backbone(checkpoint, mode)
    graph = build_graph({name: tensor.numpy() for name, tensor in tensors.items()}, mode)
    return {**head_parts(head), _GRAPH: np.frombuffer(graph, np.uint8)}


def _session(graph: bytes) -> Any:
    """A session that computes every run in the calling thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Memory plans would be kept for each shape, and recordings have many lengths.
    options.enable_mem_pattern = False
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


# ---------------------------------------------------------------------------------------------------------- the graph


def build_graph(weights: Mapping[str, npt.NDArray[np.float32]], mode: str) -> bytes:
    """The backbone as an ONNX model: `signals` float32 [N, C, L] to `map` float32 [N, T, 1024], for any N and L.

    Every convolution is two-dimensional over [N, C, 1, L], because ONNX Runtime has blocked (NCHWc) kernels only for these; they
    make it about 1.7 times as fast. Fixed padding of 7 and 8 zeros gives ECGFounder's "SAME" padding for every L >= 1: with
    stride 2 and an even length, the last zero is never read.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
        Name to array, with the names of `ecgfounder.network.checkpoint.backbone_state`.
    mode : str
        "12lead" or "1lead".
    """
    import onnx
    from onnx import TensorProto, helper

    graph = _Graph(weights)
    x = graph.add("Unsqueeze", "signals", graph.integers([2]))
    x = graph.swish(graph.conv(x, "first_conv.conv", stride=ARCHITECTURE.stride))
    width = ARCHITECTURE.base_filters
    for stage, (filters, blocks) in enumerate(zip(ARCHITECTURE.filter_list, ARCHITECTURE.m_blocks_list, strict=True)):
        for block in range(blocks):
            x = _add_block(graph, x, f"stage_list.{stage}.block_list.{block}", width, filters, first=block == 0)
            width = filters
    x = graph.add("Squeeze", x, graph.integers([2]))
    graph.add("Transpose", x, output="map", perm=[0, 2, 1])

    signals = helper.make_tensor_value_info("signals", TensorProto.FLOAT, ["N", spec_of(mode).in_channels, "L"])
    maps = helper.make_tensor_value_info("map", TensorProto.FLOAT, ["N", "T", FEATURES])
    model = helper.make_model(
        helper.make_graph(graph.nodes, "ECGFounder", [signals], [maps], graph.initializers),
        producer_name="ecgfounder",
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _add_block(graph: _Graph, x: str, name: str, width: int, filters: int, *, first: bool) -> str:
    """Add a block (`ecgfounder.net1d.Block`); the `first` of a stage halves the sampling rate and may add channels."""
    identity = x
    if name != "stage_list.0.block_list.0":
        x = graph.swish(x)
    x = graph.swish(graph.conv(x, f"{name}.conv1.conv"))
    groups = filters // ARCHITECTURE.groups_width
    x = graph.swish(graph.conv(x, f"{name}.conv2.conv", stride=ARCHITECTURE.stride if first else 1, groups=groups))
    x = graph.conv(x, f"{name}.conv3.conv")
    scale = graph.swish(graph.conv(graph.add("GlobalAveragePool", x), f"{name}.se_fc1"))
    scale = graph.add("Sigmoid", graph.conv(scale, f"{name}.se_fc2"))
    if first:
        # An explicit zero on the right, because the pooling itself would pad with minus infinity.
        padded = graph.add("Pad", identity, graph.integers([0, 0, 0, 0, 0, 0, 0, 1]))
        identity = graph.add("MaxPool", padded, kernel_shape=[1, 2], strides=[1, 2])
        if filters > width:
            before = (filters - width) // 2
            pads = graph.integers([0, before, 0, 0, 0, filters - width - before, 0, 0])
            identity = graph.add("Pad", identity, pads)
    return graph.add("Add", graph.add("Mul", x, scale), identity)


class _Graph:
    """Nodes and initializers of a graph while it is written; every value has a unique name."""

    def __init__(self, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._weights = weights

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def swish(self, x: str) -> str:
        return self.add("Mul", x, self.add("Sigmoid", x))  # ONNX Runtime fuses the two

    def conv(self, x: str, name: str, *, stride: int = 1, groups: int = 1) -> str:
        """The convolution, or the linear layer over one sample, with the weights `name`.weight and `name`.bias."""
        weight = self._weights[f"{name}.weight"]
        out_channels, in_channels, kernel = weight.shape if weight.ndim == 3 else (*weight.shape, 1)
        left = (kernel - 1) // 2
        return self.add(
            "Conv",
            x,
            self._initializer(f"{name}.weight", weight.reshape(out_channels, in_channels, 1, kernel)),
            self._initializer(f"{name}.bias", self._weights[f"{name}.bias"]),
            kernel_shape=[1, kernel],
            strides=[1, stride],
            pads=[0, left, 0, kernel - 1 - left],
            group=groups,
        )

    def integers(self, values: list[int]) -> str:
        return self._initializer(f"integers{len(self.initializers)}", np.array(values, np.int64))

    def _initializer(self, name: str, array: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name
