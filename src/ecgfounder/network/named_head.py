"""A head in a file of its own, with the names of its classes: the fitted probe of `ecgfounder probe`.

In: a safetensors file with `weight` [n, 1024], `bias` [n], and in its metadata the names of the labels and the checkpoint of the
embeddings. Out: a `NamedHead`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgfounder.errors import CheckpointError
from ecgfounder.network.bundles import FEATURES
from ecgfounder.network.head import Head

LARGEST = 64 << 20
"""Bytes of the largest file that is read as a head."""

PROBABILITIES, NUMBERS, HAZARDS = "probabilities", "numbers", "logarithms of hazards"
"""What a probe predicts, in its metadata."""

_LONGEST_LABEL = 200


@dataclass(frozen=True, eq=False)
class NamedHead:
    """A head of a file.

    Attributes
    ----------
    head : Head
        Weights and biases, with the names of the classes.
    sha256 : str
        The hash of the file.
    checkpoints : tuple of str
        The hashes of the checkpoints on whose embeddings it was fitted; empty if the file does not tell.
    name : str
        The file's name, for messages.
    """

    head: Head
    sha256: str
    checkpoints: tuple[str, ...]
    name: str

    def check(self, checkpoint_sha256: str) -> None:
        """Refuse embeddings of another network than the head's.

        Raises
        ------
        CheckpointError
            If the file tells other checkpoints.
        """
        if self.checkpoints and checkpoint_sha256 not in self.checkpoints:
            raise CheckpointError(
                f"{self.name} was fitted on embeddings of another checkpoint (SHA-256 {self.checkpoints[0][:12]}...) than this "
                f"one ({checkpoint_sha256[:12]}...): its predictions would mean nothing. Use the probe's checkpoint."
            )


def metadata_of(labels: tuple[str, ...], checkpoints: tuple[str, ...], kind: str) -> dict[str, str]:
    """The metadata of a head's file."""
    return {
        "labels": json.dumps(labels),
        "kind": kind,
        "checkpoint_sha256": json.dumps(checkpoints),
    }


def is_head(path: str | os.PathLike[str]) -> bool:
    """Whether a file is rather that of a probe than a checkpoint: a safetensors file of its size with its tensors."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            names = json.loads(file.read(min(length, LARGEST)))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(names, dict) and {"weight", "bias"} <= set(names)


def read_head(path: str | os.PathLike[str]) -> NamedHead:
    """Read a head.

    Raises
    ------
    CheckpointError
        If the file does not exist, or is not a head for the mean of this network's feature map that predicts probabilities.
    """
    from safetensors.numpy import load

    file = Path(path)
    try:
        if file.stat().st_size > LARGEST:
            raise CheckpointError(f"{file} is larger than a head may be ({LARGEST >> 20} MiB)")
        content = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror or error}") from error
    try:
        tensors, told = load(content), _metadata(content)
        weight, bias = tensors["weight"], tensors["bias"]
        labels, checkpoints = (tuple(json.loads(told[name])) for name in ("labels", "checkpoint_sha256"))
        if not all(isinstance(each, str) for each in (*labels, *checkpoints)):
            raise TypeError
    except Exception as error:  # a damaged file can raise any error
        raise CheckpointError(f"{file} is not the probe.safetensors of a probe ({type(error).__name__})") from error
    if told.get("kind") != PROBABILITIES:
        predicted = HAZARDS if told.get("kind") == HAZARDS else NUMBERS
        raise CheckpointError(f"{file} predicts {predicted}, not probabilities")
    if not all(label.strip() and len(label) <= _LONGEST_LABEL for label in labels) or len(set(labels)) < len(labels):
        raise CheckpointError(f"{file}: its labels must have names of at most {_LONGEST_LABEL} letters that differ")
    is_float = all(np.issubdtype(each.dtype, np.floating) for each in (weight, bias))
    fits = weight.shape == (len(labels), FEATURES) and bias.shape == (len(labels),) and len(labels) > 0
    if not (is_float and fits and np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise CheckpointError(
            f"{file}: expected finite weights [{len(labels)}, {FEATURES}] for the mean of the feature map, got "
            f"{list(weight.shape)}; a probe of other features cannot be used here"
        )
    head = Head(weight.astype(np.float32), bias.astype(np.float32), labels)
    return NamedHead(head, hashlib.sha256(content).hexdigest(), checkpoints, file.name)


def _metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: the length of the header, then the header as JSON."""
    length = int.from_bytes(content[:8], "little")
    found: dict[str, Any] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found
