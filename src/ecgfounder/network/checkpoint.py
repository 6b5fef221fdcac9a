"""Safe, strict loading of checkpoints. Torch is imported only to read weights.

In: a checkpoint file, or none for the one on the Hugging Face Hub. Out: the backbone's weights, checked by name and shape, and
the head if there is one, with the names of its classes.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgfounder.errors import CheckpointError, StorageError
from ecgfounder.machine import cache_folder, is_reachable
from ecgfounder.network.bundles import ARCHITECTURE, FEATURES, SPECS, NetworkSpec, spec_of
from ecgfounder.network.head import Head, labels_of
from ecgfounder.network.named_head import NamedHead, is_head, read_head
from ecgfounder.network.random_weights import INITIALISATION, random_weights, seed_of
from ecgfounder.storage import NO_OPTIONS, Location, StorageOptions, is_url, locate, path_here
from ecgfounder.storage.copies import copy_of
from ecgfounder.storage.replace import replace_file

if TYPE_CHECKING:
    import torch

    from ecgfounder.net1d import Net1D


_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_checkpoint(checkpoint: str | os.PathLike[str] | None, mode: str, options: StorageOptions = NO_OPTIONS) -> Path:
    """The checkpoint file to load.

    Parameters
    ----------
    checkpoint : str or os.PathLike or None
        A file; a folder that holds the mode's published file; OWNER/NAME of a repository of the Hugging Face Hub that holds
        it, if there is no such path; "random:SEED" for random weights, see `ecgfounder.network.random_weights`; or None for the
        published repository. The Hub's local cache is
        checked first, so that a cached file needs no internet access and does not change between runs. A file in an object
        store is copied to the cache once.
    mode : str
        "12lead" or "1lead".
    options : StorageOptions
        Options of object stores.

    Raises
    ------
    CheckpointError
        If the file does not exist, or cannot be downloaded from the Hub; the message says how to get it.
    """
    spec = spec_of(mode)
    if checkpoint is None:
        return _from_hub(spec)
    if (seed := seed_of(os.fspath(checkpoint))) is not None:
        return _random(spec, seed)
    if is_url(os.fspath(checkpoint)) and not (place := locate(checkpoint, options)).is_local:
        return _from_store(place, spec)
    path = path_here(checkpoint, "checkpoint").expanduser()
    if path.is_dir():
        inside = path / spec.filename
        if inside.is_file():
            return inside
        others = sorted(p.name for p in path.iterdir() if p.suffix in _SUFFIXES)
        found = f"it holds {', '.join(others[:5])}" if others else "it holds no checkpoint"
        raise CheckpointError(f"{path}: no {spec.filename} in this folder ({found}); name the file itself")
    if not path.exists() and _is_repository(checkpoint):
        return _from_hub(replace(spec, repo_id=str(checkpoint)))
    if not path.is_file():
        what = "is not a regular file" if path.exists() else "there is no such file"
        raise CheckpointError(f"{path}: {what}. {_how_to_get(spec)}")
    return path


def looks_like_checkpoint(text: str) -> bool:
    """Whether a text is rather the path or URL of a checkpoint than a word."""
    return "/" in text or text.lower().endswith(_SUFFIXES)


def _is_repository(checkpoint: str | os.PathLike[str]) -> bool:
    """Whether a path that does not exist has the form OWNER/NAME, and OWNER is no folder here."""
    text = os.fspath(checkpoint)
    owner = text.partition("/")[0]
    return (
        _REPOSITORY.fullmatch(text) is not None and not text.lower().endswith(_SUFFIXES) and not os.path.exists(owner)
    )


def _from_store(place: Location, spec: NetworkSpec) -> Path:
    """A copy of a checkpoint that is not on this machine, a file or in a folder."""
    try:
        for each in (place, place / spec.filename):
            if each.exists():
                return copy_of(each)
    except StorageError as error:
        raise CheckpointError(f"{place}: {error}") from error
    raise CheckpointError(f"{place}: there is no such file, and no {spec.filename} in a folder of this name")


def _random(spec: NetworkSpec, seed: int) -> Path:
    """A file of random weights in the cache."""
    from safetensors.torch import save

    path = cache_folder() / "random" / f"{spec.mode}-{INITIALISATION}-seed{seed}.safetensors"
    if not path.is_file():
        content = save(random_weights(whole_layout(spec.mode, len(spec.labels())), seed))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be written: {error.strerror or error}. Set ECGFOUNDER_CACHE to a folder with 130 MB of space."
            ) from error
    return path


def _from_hub(spec: NetworkSpec) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(spec.repo_id, spec.filename, local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # not in the cache yet: download it
    if constants.HF_HUB_OFFLINE:
        raise CheckpointError(_not_downloaded(spec, "HF_HUB_OFFLINE is set"))
    if not is_reachable(constants.ENDPOINT):
        raise CheckpointError(_not_downloaded(spec, f"{constants.ENDPOINT} does not answer"))
    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.CRITICAL)  # the error has what matters
    try:
        return Path(hf_hub_download(spec.repo_id, spec.filename))
    except Exception as error:  # the Hub's client passes on errors of its HTTP library
        raise CheckpointError(_not_downloaded(spec, type(error).__name__)) from error
    finally:
        client.setLevel(level)


def _not_downloaded(spec: NetworkSpec, reason: str) -> str:
    return (
        f"{spec.filename} is not in the Hugging Face cache and cannot be downloaded from {spec.repo_id} ({reason}). "
        f"{_how_to_get(spec)}"
    )


def _how_to_get(spec: NetworkSpec) -> str:
    return (
        f"To get the weights, on a machine with internet: hf download {spec.repo_id} {spec.filename} "
        f"--local-dir checkpoints; then pass --checkpoint checkpoints/{spec.filename}"
    )


def sha256_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises
    ------
    CheckpointError
        If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error.strerror or error}") from error


# Keys of the weights in a checkpoint, in the order in which they are tried.
_CONTAINERS = ("state_dict", "model_state_dict", "model")


# The parameter by which the backbone's prefix ('module.', 'model.', 'net.', any combination) is recognised.
_ANCHOR = "first_conv.conv.weight"


_BATCH_NORM = re.compile(r"(?:^|\.)(?:first_bn|bn[123])\.(?:weight|bias|running_mean|running_var|num_batches_tracked)$")


# A name that only a tensor has.
_WEIGHT = re.compile(r"\.(?:weight|bias|running_mean|running_var)$")


_NAMES_SHOWN = 5

_LONGEST_LABEL = 200


@dataclass(frozen=True, eq=False)
class CheckpointContent:
    """What a checkpoint file holds.

    Attributes
    ----------
    tensors : dict of str to torch.Tensor
        As returned by `load_state_dict`.
    labels : object
        What the file has as names of the head's classes, not checked: its entry "labels", of a safetensors file the JSON in its
        metadata of that name; None if it has none.
    """

    tensors: dict[str, torch.Tensor]
    labels: object = None

    def head(self) -> Head | None:
        """The head, if there is one (`head_of`), with its labels if they are a list of one distinct name per class."""
        head, labels = head_of(self.tensors), self.labels
        if head is None or not isinstance(labels, list | tuple) or len(labels) != head.n_classes:
            return head
        if not all(isinstance(label, str) and label.strip() and label.isprintable() for label in labels):
            return head
        if len(set(labels)) < len(labels) or max(map(len, labels)) > _LONGEST_LABEL:
            return head
        return replace(head, labels=tuple(labels))


def load_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of `load_checkpoint`."""
    return load_checkpoint(path).tensors


def load_checkpoint(path: str | os.PathLike[str]) -> CheckpointContent:
    """Read a checkpoint's tensors and labels, without running code from its pickle.

    Accepted are {"state_dict": ...} (the published files, PyTorch Lightning), {"model_state_dict": ...}, {"model": ...} and a
    state dict alone, each with or without a prefix on its names, and safetensors.

    Returns
    -------
    CheckpointContent
        Its tensors are CPU tensors by name, as in the file; input of `backbone_state` and `head_of`.

    Raises
    ------
    CheckpointError
        If the file is missing, empty, truncated, not a checkpoint, or contains anything but tensors and numbers.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: a Git LFS pointer, not the weights themselves; run `git lfs pull` in its folder"
        )
    if head[8:9] == b"{":
        return CheckpointContent(*_read_safetensors(path))
    if head.startswith(b"PK\x03\x04") or head[:1] == b"\x80":
        content = _read_pickle(path)
        return CheckpointContent(
            _tensors(content, path), content.get("labels") if isinstance(content, Mapping) else None
        )
    raise CheckpointError(f"{path}: not a PyTorch checkpoint nor a safetensors file (first bytes {head[:8]!r})")


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], object]:
    """The tensors, and the labels in the metadata if they are JSON."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        content = load_file(path)
    except Exception as error:  # a damaged header can raise any error
        raise CheckpointError(f"{path}: damaged safetensors file ({_short(str(error), 200)})") from error
    try:
        labels = json.loads(metadata.get("labels", "null"))
    except (ValueError, RecursionError):
        labels = None
    return _tensors(content, path), labels


def _read_pickle(path: Path) -> object:
    import torch

    try:
        with _numpy_scalars_allowed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about TorchScript archives before it refuses them
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise any error
        raise CheckpointError(f"{path}: {_why_refused(error)}") from error


def _why_refused(error: Exception) -> str:
    """The reason for a refusal, because torch's message recommends to load the file unsafely."""
    text = _short(str(error), 1000)
    asked_for = re.search(r"GLOBAL (\S+)", text)
    if asked_for is not None:
        return (
            f"its pickle asks for {asked_for.group(1)!r}, which is refused: only tensors and numbers are loaded, and no "
            "code from a checkpoint is ever run. If you trust the file, save its weights alone where you can load it: "
            "torch.save({'state_dict': model.state_dict()}, 'weights.pth')"
        )
    detail = "" if "weights_only" in text else f": {text[:200]}"
    return f"damaged, cut short, or not a checkpoint of weights ({type(error).__name__}{detail})"


@contextmanager
def _numpy_scalars_allowed() -> Iterator[None]:
    """Allow NumPy's scalars with `weights_only`: the published files have some in their training state."""
    import torch

    with torch.serialization.safe_globals(_numpy_scalar_globals()):
        yield


@cache
def _numpy_scalar_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    # The function that restores a scalar moved in NumPy 2; older files name its old module.
    multiarray = importlib.import_module("numpy._core.multiarray" if hasattr(np, "_core") else "numpy.core.multiarray")
    kinds = ["Bool", "Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64"]
    kinds += ["Float16", "Float32", "Float64"]
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [np.dtype]
    allowed += [(multiarray.scalar, f"numpy.{place}.multiarray.scalar") for place in ("core", "_core")]
    allowed += [getattr(np.dtypes, f"{kind}DType") for kind in kinds]
    return allowed


def _tensors(content: object, path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name, from any of the known places in the checkpoint."""
    import torch

    if isinstance(content, Mapping):
        for inner in [content.get(key) for key in _CONTAINERS] + [content]:
            if isinstance(inner, Mapping):
                named = {name: value for name, value in inner.items() if isinstance(name, str)}
                tensors = {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
                others = {name: value for name, value in named.items() if name not in tensors and _WEIGHT.search(name)}
                if others:
                    shown = _some(f"{_short(name, 80)} ({type(value).__name__})" for name, value in others.items())
                    raise CheckpointError(f"{path}: {len(others)} weights are no tensors: {shown}")
                if tensors:
                    return tensors
        keys = ", ".join(repr(_short(str(key))) for key in list(content)[:_NAMES_SHOWN])
        found = f"a dictionary of {keys or 'nothing'}"
    else:
        found = f"an object of type {type(content).__name__}"
    raise CheckpointError(
        f"{path}: expected weights by name, or a dictionary with them under 'state_dict'; found {found}"
    )


@cache
def checkpoint_layout(mode: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published checkpoint's state dict, in its order, including head and batch-norm."""
    import torch

    with torch.device("meta"):
        net = _new_network(mode, len(spec_of(mode).labels()))
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def backbone_state(state: Mapping[str, torch.Tensor], mode: str) -> dict[str, torch.Tensor]:
    """The backbone's weights from a checkpoint's tensors, complete and checked.

    Parameters
    ----------
    state : mapping of str to torch.Tensor
        The result of `load_state_dict`. Names may have a prefix ('module.', 'model.', 'net.' ...); the head `dense.*` may have
        any number of classes and is left out.
    mode : str
        "12lead" or "1lead".

    Returns
    -------
    dict
        Name without prefix to float32 tensor, including batch-norm parameters, which the network never applies, if present.

    Raises
    ------
    CheckpointError
        If a weight is missing, unexpected, of another shape or not finite, or belongs to the other mode's network.
    """
    layout = {name: shape for name, shape in checkpoint_layout(mode).items() if not name.startswith("dense.")}
    prefix = _prefix_of(state)
    inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    inner = {name: tensor for name, tensor in inner.items() if not name.startswith("dense.")}
    _refuse_odd_forms(inner)
    _check_mode(inner, spec_of(mode))

    missing = [name for name in layout if name not in inner and not _BATCH_NORM.search(name)]
    unexpected = [name for name in inner if name not in layout]
    misshapen = [
        f"{name} {list(inner[name].shape)} instead of {list(shape)}"
        for name, shape in layout.items()
        if name in inner and tuple(inner[name].shape) != shape
    ]
    _refuse_if_any({"missing": missing, "unexpected": unexpected, "of another shape": misshapen}, len(layout))

    weights = {name: _resolved(inner[name]) for name in layout if name in inner}
    applied = {name: tensor for name, tensor in weights.items() if not _BATCH_NORM.search(name)}
    not_numbers = [f"{name} ({tensor.dtype})" for name, tensor in applied.items() if not tensor.is_floating_point()]
    _refuse_if_any({"not of floating point": not_numbers}, len(layout))
    not_finite = [name for name, tensor in applied.items() if not tensor.isfinite().all()]
    _refuse_if_any({"not finite": not_finite}, len(layout))
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def load_backbone(path: str | os.PathLike[str], mode: str) -> tuple[dict[str, torch.Tensor], Head | None]:
    """A checkpoint's backbone (`backbone_state`) and, if it has one, its head.

    Raises
    ------
    CheckpointError
        As `load_state_dict` and `backbone_state` do, with the path in front.
    """
    content = load_checkpoint(path)
    try:
        return backbone_state(content.tensors, mode), content.head()
    except CheckpointError as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error


def labels_in(path: str | os.PathLike[str]) -> tuple[str, ...] | None:
    """A checkpoint's own names of its head's classes; None if it has none.

    Raises
    ------
    CheckpointError
        As `load_checkpoint` and `head_of` do.
    """
    head = load_checkpoint(path).head()
    return None if head is None else head.labels


def head_in(path: str | os.PathLike[str]) -> NamedHead:
    """The head with names of a fine-tuned checkpoint, of a published one, or of a probe's file.

    Raises
    ------
    CheckpointError
        As `load_checkpoint` and `read_head` do, or if the checkpoint has no head, or one without names.
    """
    if is_head(path):
        return read_head(path)
    head = load_checkpoint(path).head()
    labels = labels_of(head)
    if head is None or labels is None:
        found = "no head" if head is None else f"a head of {head.n_classes} classes without names"
        raise CheckpointError(
            f"{os.fspath(path)} has {found}; expected a list of distinct names under 'labels', or a probe.safetensors"
        )
    sha256 = sha256_of(path)
    return NamedHead(replace(head, labels=labels), sha256, (sha256,), os.path.basename(path))


def head_of(state: Mapping[str, torch.Tensor]) -> Head | None:
    """The head in a checkpoint's tensors, or None if there is no head of the published form.

    Raises
    ------
    CheckpointError
        If its tensors are of another form or type than weights, or not finite.
    """
    prefix = _prefix_of(state)
    weight, bias = state.get(f"{prefix}dense.weight"), state.get(f"{prefix}dense.bias")
    if weight is None or bias is None:
        return None
    head = {"dense.weight": weight, "dense.bias": bias}
    _refuse_odd_forms(head)
    if weight.ndim != 2 or weight.shape[1] != FEATURES:
        return None
    if tuple(bias.shape) != (weight.shape[0],):
        return None
    for name, tensor in head.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"the checkpoint's head is not of floating point: {name} ({tensor.dtype})")
        if not tensor.isfinite().all():
            raise CheckpointError(f"the checkpoint's head is damaged: values of {name} are not finite")
    values, offsets = (_resolved(tensor).float().numpy().copy() for tensor in (weight, bias))
    return Head(values, offsets)


def _refuse_odd_forms(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse tensors that are not plain arrays of real numbers, before anything is computed with them."""
    odd = [
        f"{_short(name, 80)} ({form})" for name, tensor in tensors.items() if (form := _odd_form(tensor)) is not None
    ]
    if odd:
        raise CheckpointError(
            f"{len(odd)} of the checkpoint's tensors are not plain arrays of real numbers: {_some(odd)}. Save the weights as "
            "dense float32 tensors"
        )


def _odd_form(tensor: torch.Tensor) -> str | None:
    """How a tensor differs from a plain array of numbers, each stored; None for a plain one."""
    import torch

    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return type(tensor).__name__
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return str(tensor.layout).removeprefix("torch.")
    if tensor.device.type != "cpu":
        return "without values" if tensor.is_meta else f"on device {tensor.device.type}"
    is_tiny = tensor.is_floating_point() and tensor.itemsize < 2
    if tensor.is_quantized or tensor.is_complex() or is_tiny:
        return str(tensor.dtype).removeprefix("torch.")
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        return f"expanded to {list(tensor.shape)}"
    return None


def _resolved(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without its gradient and without a pending negation, as NumPy needs it."""
    return tensor.detach().resolve_neg()


def _prefix_of(state: Mapping[str, torch.Tensor]) -> str:
    found = sorted(name.removesuffix(_ANCHOR) for name in state if name == _ANCHOR or name.endswith("." + _ANCHOR))
    if len(found) > 1:
        raise CheckpointError(
            f"the checkpoint holds {len(found)} ECGFounder networks, under {_some(map(repr, found))}; expected one: "
            "save the right one separately"
        )
    return found[0] if found else ""


def _check_mode(weights: Mapping[str, torch.Tensor], spec: NetworkSpec) -> None:
    """Refuse weights for another number of leads, with a clearer message than a shape mismatch."""
    first = weights.get(_ANCHOR)
    if first is None or first.ndim != 3 or first.shape[1] == spec.in_channels:
        return
    channels = int(first.shape[1])
    other = next((b for b in SPECS.values() if b.in_channels == channels), None)
    way_out = f"use mode='{other.mode}', or" if other is not None else "use"
    raise CheckpointError(
        f"these weights are for {channels} lead{'s' if channels > 1 else ''} ({_ANCHOR} is {list(first.shape)}), "
        f"but mode {spec.mode} needs {spec.in_channels}: {way_out} a checkpoint like {spec.filename}"
    )


def _refuse_if_any(problems: Mapping[str, list[str]], expected: int) -> None:
    told = [f"{len(names)} {problem}: {_some(names)}" for problem, names in problems.items() if names]
    if told:
        raise CheckpointError(
            f"the checkpoint does not hold ECGFounder's backbone of {expected} entries: " + "; ".join(told)
        )


def _some(names: Iterable[str]) -> str:
    listed = [_short(name) for name in names]
    more = len(listed) - _NAMES_SHOWN
    return ", ".join(listed[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _short(text: str, longest: int = 120) -> str:
    """Text from a file for a message: one line, without control characters, and not too long."""
    line = "".join(letter if letter.isprintable() else " " for letter in text[: 2 * longest])
    line = " ".join(line.split())
    return line if len(line) <= longest else line[:longest] + "..."


def whole_layout(mode: str, n_classes: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes of all parameters of the mode's network, with a head for `n_classes`."""
    import torch

    with torch.device("meta"):  # names and shapes alone
        return {name: tuple(entry.shape) for name, entry in build_network({}, mode, n_classes).state_dict().items()}


def build_network(weights: Mapping[str, torch.Tensor], mode: str, n_classes: int) -> Net1D:
    """A network with the given backbone; its head and missing batch-norm parameters have initial values."""
    net = _new_network(mode, n_classes)
    net.load_state_dict({**net.state_dict(), **weights}, strict=True)
    return net


def _new_network(mode: str, n_classes: int) -> Net1D:
    from ecgfounder.net1d import Net1D

    return Net1D(
        in_channels=spec_of(mode).in_channels,
        base_filters=ARCHITECTURE.base_filters,
        ratio=ARCHITECTURE.ratio,
        filter_list=ARCHITECTURE.filter_list,
        m_blocks_list=ARCHITECTURE.m_blocks_list,
        kernel_size=ARCHITECTURE.kernel_size,
        stride=ARCHITECTURE.stride,
        groups_width=ARCHITECTURE.groups_width,
        n_classes=n_classes,
        use_bn=False,
        use_do=False,
    )
