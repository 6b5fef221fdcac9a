"""The Triton engine: when it is taken, that its kernels compute the network, and on a GPU that it keeps its promises.

The kernels run without a GPU in Triton's interpreter, which takes seconds for a map: in a process of its own, for the switch is
read when they are imported.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ecgfounder.engines.triton as triton_engine
from ecgfounder.engines import choice, create_engine, gpu_available
from ecgfounder.engines.triton import TritonEngine, triton_usable
from ecgfounder.errors import SettingsError
from ecgfounder.network.head import pooled

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
needs_gpu = pytest.mark.skipif(not gpu_available() or not triton_usable(), reason="there is no GPU that Triton can use")


def signals(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng([rows, length]).standard_normal((rows, 12, length), dtype=np.float32)


# ------------------------------------------------------------------------------------------------------------- choosing


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_auto_takes_it_on_a_gpu_that_it_can_use(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setattr(choice, "gpu_available", lambda: True)
    monkeypatch.setattr(triton_engine, "triton_usable", lambda _device=None: True)
    assert choice._automatic(precision, None) == "triton"
    assert choice._automatic(precision, "cuda:1") == "triton"
    monkeypatch.setattr(triton_engine, "triton_usable", lambda _device=None: False)
    assert choice._automatic(precision, "cuda") == "torch"


def test_where_it_fails_auto_goes_on_with_torch_and_says_so(
    checkpoint_12lead: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise SettingsError("the engine 'triton' computes wrongly on this GPU (relative error 1.0e+00)")

    monkeypatch.setattr(choice, "_automatic", lambda _precision, _device: "triton")
    monkeypatch.setattr(TritonEngine, "__init__", refuse)
    with caplog.at_level(logging.WARNING):
        made = create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead, device="cpu")
    assert made.name == "torch"
    assert "computes wrongly on this GPU (relative error 1.0e+00); using engine='torch'" in caplog.text
    with pytest.raises(SettingsError, match="computes wrongly"):
        create_engine("triton", mode="12lead", checkpoint=checkpoint_12lead, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", [None, "cpu", "cuda", "cuda:3"])
def test_without_a_gpu_it_is_refused(checkpoint_12lead: Path, device: str | None) -> None:
    assert not triton_usable(device)
    with pytest.raises(SettingsError, match=r"needs an NVIDIA GPU|cannot be used by this PyTorch"):
        create_engine("triton", mode="12lead", checkpoint=checkpoint_12lead, device=device)


def test_it_is_not_compiled_anew(checkpoint_12lead: Path) -> None:
    with pytest.raises(SettingsError, match="compiled=True with engine='torch'"):
        create_engine("triton", mode="12lead", checkpoint=checkpoint_12lead, compiled=True)


# ------------------------------------------------------------------------------------------------------------ computing

INTERPRETED = """
import json, sys
from pathlib import Path

import numpy as np
import torch

import ecgfounder.engines.triton as engine
from ecgfounder.network.checkpoint import build_network, load_backbone
from ecgfounder.network.head import pooled

mode, checkpoint = sys.argv[1:]
engine._PART = 32  # so that sums have several parts
weights, _ = load_backbone(Path(checkpoint), mode)
net = build_network(weights, mode, 1).eval()
fused = engine.FusedNet(net, torch.device("cpu"), "float32")
x = torch.from_numpy(np.random.default_rng(3).standard_normal((2, net.first_conv.conv.in_channels, 301), dtype=np.float32))
with torch.inference_mode():
    expected, found, alone = net.feature_map(x), fused.feature_map(x), fused.feature_map(x[1:])
    maps = 1e3 * torch.randn((3, 70, 1024), generator=torch.Generator().manual_seed(0))
    means = [fused.mean(maps[:, :length].contiguous()).numpy() for length in (1, 2, 70)]
print(json.dumps({
    "shape": list(found.shape),
    "error": float((found - expected).norm() / expected.norm()),
    "same": torch.equal(found[1:], alone),
    "means": [
        mean.tobytes() == np.stack([pooled(each) for each in maps[:, :length].numpy()]).tobytes()
        for mean, length in zip(means, (1, 2, 70), strict=True)
    ],
}))
"""


@pytest.mark.services
@needs_triton
@pytest.mark.parametrize("mode", ["12lead", pytest.param("1lead", marks=pytest.mark.slow)])
def test_the_kernels_compute_the_network_and_a_row_alone_as_in_company(
    mode: str, request: pytest.FixtureRequest
) -> None:
    checkpoint = request.getfixturevalue(f"checkpoint_{mode}")
    done = subprocess.run(
        [sys.executable, "-c", INTERPRETED, mode, str(checkpoint)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["shape"] == [2, 2, 1024]
    assert told["error"] < 2e-6
    assert told["same"]
    assert told["means"] == [True, True, True]


# ------------------------------------------------------------------------------------------------------------- on a GPU


@needs_gpu
@pytest.mark.parametrize(("precision", "allowed"), [("float32", 3e-5), ("float16", 3e-2), ("bfloat16", 2e-1)])
def test_on_a_gpu_it_agrees_with_the_cpu_and_bytes_do_not_depend_on_the_batch(
    checkpoint_12lead: Path, precision: str, allowed: float
) -> None:
    made = create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead, precision=precision, device="cuda")
    assert made.name == "triton"
    reference = create_engine("torch", mode="12lead", checkpoint=checkpoint_12lead, device="cpu")
    for length in (1, 257, 5000, 5500):
        batch = signals(9, length)
        found, expected = made.embed(batch), reference.embed(batch)
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < allowed
        for start, stop in ((0, 1), (3, 9), (8, 9)):
            assert np.array_equal(made.embed(batch[start:stop]), found[start:stop])
        pinned = made.empty(batch.shape)
        pinned[:] = batch
        assert torch.from_numpy(pinned[1:]).is_pinned()
        assert np.array_equal(made.embed(pinned), found)
        assert made.means(pinned).tobytes() == np.stack([pooled(each) for each in found]).tobytes()
    made.close()


@needs_gpu
def test_on_a_gpu_passes_are_halved_when_memory_runs_out_to_the_same_bytes(checkpoint_12lead: Path) -> None:
    made = create_engine("auto", mode="12lead", checkpoint=checkpoint_12lead, device="cuda", batch_size=512)
    batch = signals(512, 5000)
    whole = made.embed(batch)
    torch.cuda.empty_cache()
    taken = torch.empty(torch.cuda.mem_get_info()[0] - (1 << 30), dtype=torch.uint8, device="cuda")
    assert np.array_equal(made.embed(batch), whole)
    assert made.samples_per_pass is not None
    del taken
    made.close()
