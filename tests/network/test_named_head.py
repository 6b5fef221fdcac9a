"""A probe's file is read as a head; what is none is refused with the reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from ecgfounder.errors import CheckpointError
from ecgfounder.network.checkpoint import head_in
from ecgfounder.network.named_head import PROBABILITIES, metadata_of, read_head

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.standard_normal((2, 1024)).astype(np.float32), np.array([0.5, -1.0], np.float32)
TOLD = metadata_of(("af", "a\nb"), ("0" * 64,), PROBABILITIES)


def written(path: Path, weight: Any = WEIGHT, bias: Any = BIAS, told: dict[str, str] | None = None) -> Path:
    path.write_bytes(save({"weight": weight, "bias": bias}, TOLD if told is None else told))
    return path


def test_a_probe_is_a_head_with_names(tmp_path: Path) -> None:
    path = written(tmp_path / "probe.safetensors")
    found = read_head(path)
    assert found.head.labels == ("af", "a\nb")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    features = RNG.standard_normal((3, 1, 1024)).astype(np.float32)
    expected = 1 / (1 + np.exp(-(features[:, 0] @ WEIGHT.T + BIAS)))
    assert np.allclose(found.head.probabilities(features), expected, atol=1e-5)


def test_a_probe_is_for_the_checkpoint_that_it_was_fitted_on(tmp_path: Path) -> None:
    found = read_head(written(tmp_path / "probe.safetensors"))
    found.check("0" * 64)
    with pytest.raises(CheckpointError, match="was fitted on embeddings of another checkpoint"):
        found.check("1" * 64)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weight": WEIGHT[:, :6]}, r"expected finite weights \[2, 1024\].*got \[2, 6\]"),
        ({"bias": BIAS[:1]}, "expected finite weights"),
        ({"weight": WEIGHT * np.float32(np.inf)}, "expected finite weights"),
        ({"weight": WEIGHT.astype(np.int32)}, "expected finite weights"),
        ({"told": {**TOLD, "kind": "numbers"}}, "predicts numbers, not probabilities"),
        ({"told": {**TOLD, "labels": json.dumps(["af", "af"])}}, "labels must have names"),
        ({"told": {**TOLD, "labels": json.dumps(["af", "x" * 201])}}, "labels must have names"),
        ({"told": {**TOLD, "labels": json.dumps(["af", 3])}}, "is not the probe.safetensors of a probe"),
        ({"told": {**TOLD, "labels": "[" * 5000}}, "is not the probe.safetensors of a probe"),
        ({"told": {}}, "is not the probe.safetensors of a probe"),
    ],
)
def test_another_head_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_head(written(tmp_path / "probe.safetensors", **change))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{}      "])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "probe.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not the probe\.safetensors of a probe"):
        read_head(path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_head(tmp_path / "absent.safetensors")


def test_a_fine_tuned_checkpoint_has_a_head_with_names_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    state = {"dense.weight": torch.from_numpy(WEIGHT), "dense.bias": torch.from_numpy(BIAS)}
    path = tmp_path / "finetuned.pth"
    torch.save({"state_dict": state, "labels": ["af", "lbbb"]}, path)
    found = head_in(path)
    assert (found.head.labels, found.name) == (("af", "lbbb"), "finetuned.pth")
    assert np.array_equal(found.head.weight, WEIGHT)
    found.check(hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(CheckpointError, match="another checkpoint"):
        found.check("0" * 64)
    assert head_in(written(tmp_path / "probe.safetensors")).head.labels == ("af", "a\nb")
    torch.save({"state_dict": state}, path)
    with pytest.raises(CheckpointError, match="a head of 2 classes without names"):
        head_in(path)
    torch.save({"state_dict": {"other.weight": torch.zeros(2)}}, path)
    with pytest.raises(CheckpointError, match="has no head"):
        head_in(path)
