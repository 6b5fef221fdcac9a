"""Checkpoints: every form that occurs is accepted, no pickled code runs, and no weight is missing unnoticed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ecgfounder
from ecgfounder.errors import CheckpointError, SettingsError
from ecgfounder.model import BUNDLES, ft_1lead_ECGFounder, ft_12lead_ECGFounder
from ecgfounder.network import checkpoint as checkpoint_module
from ecgfounder.network.bundles import spec_of
from ecgfounder.network.checkpoint import (
    backbone_state,
    find_checkpoint,
    head_of,
    load_backbone,
    load_checkpoint,
    load_state_dict,
    sha256_of,
)
from ecgfounder.network.random_weights import random_weights, seed_of
from tests.builders.weights import overlapping_state

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state(checkpoint_1lead: Path) -> State:
    return load_state_dict(checkpoint_1lead)


@pytest.fixture(scope="module")
def overlapping() -> State:
    return overlapping_state("1lead")


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def backbone_names(state: State) -> set[str]:
    return {name for name in state if not name.startswith("dense.")}


# ------------------------------------------------------------------------------------------------------------- bundles


def test_bundles_know_leads_rate_labels_and_where_the_weights_are() -> None:
    bundle = BUNDLES["12lead"]
    assert bundle.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    assert (bundle.in_channels, bundle.sampling_rate) == (12, 500)
    assert (bundle.repo_id, bundle.filename) == ("PKUDigitalHealth/ECGFounder", "12_lead_ECGFounder.pth")
    assert BUNDLES["1lead"].leads == ("I",)
    assert BUNDLES["1lead"].filename == "1_lead_ECGFounder.pth"
    assert len(bundle.labels()) == len(set(bundle.labels())) == 150
    assert bundle.labels()[:3] == ("ABNORMAL ECG", "NORMAL SINUS RHYTHM", "NORMAL ECG")


def test_labels_are_the_published_ones(shared: Path) -> None:
    assert list(BUNDLES["12lead"].labels()) == (shared / "labels.txt").read_text().splitlines()


def test_an_unknown_mode_is_refused_with_those_that_exist() -> None:
    with pytest.raises(SettingsError, match="'12lead' and '1lead', but got '8lead'"):
        spec_of("8lead")


def test_bundles_and_finding_a_checkpoint_need_no_torch(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"x")
    code = (
        "import sys, ecgfounder.model as b, ecgfounder.network.checkpoint as m; "
        f"m.sha256_of(m.find_checkpoint({str(file)!r}, '12lead')); b.BUNDLES['12lead'].labels(); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------------- accepted forms

FORMS: dict[str, Callable[[State], object]] = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "bare": lambda s: s,
    "model_state_dict": lambda s: {"model_state_dict": s},
    "model": lambda s: {"model": s, "epoch": 1},
    "DataParallel": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "Lightning model.": lambda s: {
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {"loss.pos_weight": torch.ones(5)} | {f"model.{k}": v for k, v in s.items()},
        "hyper_parameters": {"lr": 1e-4, "tags": ["a"]},
        "callbacks": {},
    },
    "Lightning net.": lambda s: {"state_dict": {f"net.{k}": v for k, v in s.items()}},
    "compiled in DataParallel": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "without batch-norm": lambda s: {"state_dict": {k: v for k, v in s.items() if "bn" not in k}},
    "without head": lambda s: {"state_dict": {k: v for k, v in s.items() if not k.startswith("dense.")}},
    "head of 5": lambda s: {"state_dict": s | {"dense.weight": torch.zeros(5, 1024), "dense.bias": torch.zeros(5)}},
    "head of another kind": lambda s: {
        "state_dict": {k: v for k, v in s.items() if not k.startswith("dense.")}
        | {"dense.0.weight": torch.zeros(7, 1024)}
    },
}


@pytest.mark.parametrize("form", list(FORMS))
def test_forms_that_occur_in_practice_are_accepted(overlapping: State, tmp_path: Path, form: str) -> None:
    weights, head = load_backbone(saved(FORMS[form](overlapping), tmp_path / "weights.pth"), "1lead")
    expected = backbone_names(overlapping)
    if form == "without batch-norm":
        expected = {name for name in expected if "bn" not in name}
    assert set(weights) == expected
    assert all(torch.equal(weights[name], overlapping[name]) for name in expected)
    classes = {"without head": None, "head of another kind": None, "head of 5": 5}.get(form, 150)
    assert (None if head is None else head.n_classes) == classes


def test_safetensors_and_the_old_format_of_torch_are_accepted(state: State, tmp_path: Path) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    torch.save({"state_dict": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("weights.safetensors", "old.pth"):
        weights, head = load_backbone(tmp_path / name, "1lead")
        assert set(weights) == backbone_names(state)
        assert torch.equal(weights["first_conv.conv.bias"], state["first_conv.conv.bias"])
        assert head is not None


def test_half_precision_weights_become_float32(state: State) -> None:
    halves = {name: v.bfloat16() if v.is_floating_point() else v for name, v in state.items()}
    weights = backbone_state(halves, "1lead")
    assert weights["first_conv.conv.weight"].dtype == torch.float32
    assert weights["first_bn.num_batches_tracked"].dtype == torch.int64


# ----------------------------------------------------------------------------------------------------------- safe loading

SCALARS = {
    "best_auroc": np.float64(0.9),
    "loss": np.float32(0.1),
    "half": np.float16(0.5),
    "epoch": np.int64(12),
    "step": np.int32(7),
    "done": np.bool_(True),
}


def with_pickle_replaced(path: Path, old: bytes, new: bytes) -> Path:
    """A copy of a checkpoint with other bytes in its pickle."""
    copy = path.with_name(f"edited-{path.name}")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data.pkl"):
                assert old in data
                data = data.replace(old, new)
            target.writestr(name, data)
    return copy


def test_numpy_scalars_in_the_training_state_are_accepted_as_both_numpy_versions_write_them(tmp_path: Path) -> None:
    path = saved({"state_dict": {"w": torch.ones(3)}} | SCALARS, tmp_path / "weights.pth")
    ours, other = b"numpy._core.multiarray", b"numpy.core.multiarray"
    if not hasattr(np, "_core"):
        ours, other = other, ours
    for file in (path, with_pickle_replaced(path, ours, other)):
        assert torch.equal(load_state_dict(file)["w"], torch.ones(3))


def test_the_allow_list_does_not_outlive_the_loading(tmp_path: Path) -> None:
    path = saved({"state_dict": {"w": torch.ones(3)}} | SCALARS, tmp_path / "weights.pth")
    load_state_dict(path)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_checkpoint_is_never_run(tmp_path: Path, new_format: bool) -> None:
    mark = tmp_path / "mark"
    path = tmp_path / "weights.pth"
    content = {"state_dict": {"w": torch.ones(3)}, "extra": Hostile(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(CheckpointError, match=r"posix\.system.*no code from a checkpoint is ever run"):
        load_state_dict(path)
    assert not mark.exists()


def test_a_plain_pickle_with_code_is_not_run_either(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"state_dict": Hostile(mark)}))
    with pytest.raises(CheckpointError):
        load_state_dict(tmp_path / "weights.pth")
    assert not mark.exists()


@pytest.mark.parametrize("value", [np.zeros(3), Path("x"), torch.nn.Linear(2, 2)], ids=["array", "path", "module"])
def test_nothing_but_tensors_and_numbers_is_loaded(tmp_path: Path, value: object) -> None:
    path = saved({"state_dict": {"w": torch.ones(3)}, "extra": value}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="only tensors and numbers are loaded"):
        load_state_dict(path)


# ------------------------------------------------------------------------------------------------------- forms of tensors


def sparse(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_sparse()


def quantized(tensor: torch.Tensor) -> torch.Tensor:
    return torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8)


def nested(_tensor: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.zeros(3), torch.zeros(4)])


ODD_FORMS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "sparse": (sparse, "sparse_coo"),
    "sparse by rows": (lambda tensor: tensor.to_sparse_csr(), "sparse_csr"),
    "meta": (lambda tensor: tensor.to("meta"), "without values"),
    "quantized": (quantized, "qint8"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "complex64"),
    "float8": (lambda tensor: tensor.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "nested": (nested, "nested"),
    "expanded": (lambda tensor: torch.zeros(1).expand(tensor.shape), r"expanded to \[.*\]"),
    "expanded, huge": (lambda _: torch.zeros(1).expand(1 << 40, 1024), r"expanded to \[1099511627776, 1024\]"),
}


@pytest.mark.filterwarnings("ignore:.*(nested tensors|Sparse CSR|quantize_per_tensor).*:UserWarning")
@pytest.mark.parametrize("form", ODD_FORMS)
@pytest.mark.parametrize("name", ["stage_list.0.block_list.0.se_fc1.weight", "dense.weight"])
def test_tensors_that_are_no_plain_arrays_are_named(state: State, tmp_path: Path, name: str, form: str) -> None:
    change, told = ODD_FORMS[form]
    path = saved({name: change(state[name])}, tmp_path / "weights.pth")
    changed = state | load_state_dict(path)
    with pytest.raises(CheckpointError, match=rf"1 of the checkpoint's tensors are not plain .*: {name} \({told}\)"):
        head_of(changed) if name.startswith("dense.") else backbone_state(changed, "1lead")


def test_a_tensor_of_another_class_is_named(state: State) -> None:
    class Odd(torch.Tensor):
        pass

    with pytest.raises(CheckpointError, match=r"first_bn\.weight \(Odd\)"):
        backbone_state(state | {"first_bn.weight": state["first_bn.weight"].as_subclass(Odd)}, "1lead")


def test_parameters_and_tensors_that_only_look_different_are_accepted(state: State) -> None:
    name = "first_conv.conv.weight"
    for same in (torch.nn.Parameter(state[name]), torch._neg_view(-state[name])):
        assert np.array_equal(backbone_state(state | {name: same}, "1lead")[name].numpy(), state[name].numpy())
    head = head_of(state | {"dense.weight": torch.nn.Parameter(state["dense.weight"])})
    assert head is not None
    assert np.array_equal(head.weight, state["dense.weight"].numpy())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.zeros(5, 1024, dtype=torch.int32), "not of floating point"),
        (torch.full((5, 1024), torch.nan), "not finite"),
    ],
)
def test_a_damaged_head_is_named(state: State, value: torch.Tensor, message: str) -> None:
    with pytest.raises(CheckpointError, match=f"the checkpoint's head.*{message}"):
        head_of(state | {"dense.weight": value, "dense.bias": torch.zeros(5)})


def test_weights_that_are_no_tensors_are_named(overlapping: State, tmp_path: Path) -> None:
    mixed = {"state_dict": overlapping | {"first_conv.conv.bias": [1.0], "extra": 3}}
    with pytest.raises(
        CheckpointError, match=r"weights.pth: 1 weights are no tensors: first_conv\.conv\.bias \(list\)"
    ):
        load_state_dict(saved(mixed, tmp_path / "weights.pth"))


def test_names_in_a_file_cannot_make_a_message_long_or_of_several_lines(overlapping: State, tmp_path: Path) -> None:
    for content in ({"a\nb\x1b[31m" + "x" * 10_000: 1}, overlapping | {"a\nb\x1b[31m" + "x" * 10_000: torch.zeros(1)}):
        with pytest.raises(CheckpointError, match=r"a b \[31mxxx.*\.\.\.") as error:
            load_backbone(saved(content, tmp_path / "weights.pth"), "1lead")
        assert str(error.value).isprintable()
        assert len(str(error.value)) < 500 + len(str(tmp_path))


def with_header(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A safetensors file whose header says something else."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header["first_conv.conv.bias"])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    return path


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"shape": [1, 2]}, "damaged safetensors"),
        ({"shape": [1 << 62, 4]}, "damaged safetensors"),
        ({"shape": [-64]}, "damaged safetensors"),
        ({"data_offsets": [0, 1 << 60]}, "damaged safetensors"),
        ({"data_offsets": [4, 0]}, "damaged safetensors"),
        ({"dtype": "F64"}, "damaged safetensors"),
        ({"dtype": "I32"}, "not of floating point"),
        ({"dtype": "F8_E4M3", "shape": [256]}, r"first_conv\.conv\.bias \(float8_e4m3fn\)"),
    ],
)
def test_a_safetensors_header_that_lies_is_refused(
    state: State, tmp_path: Path, lie: dict[str, Any], message: str
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: state[name] for name in state if name.startswith("first_conv")}, path)
    with pytest.raises(CheckpointError, match=message):
        backbone_state(state | load_state_dict(with_header(path, lambda bias: bias.update(lie))), "1lead")


# ---------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("keep", [0.01, 0.5, 0.999])
def test_a_file_cut_short_is_an_error_that_names_it(checkpoint_1lead: Path, tmp_path: Path, keep: float) -> None:
    data = checkpoint_1lead.read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(CheckpointError, match=r"cut\.pth: damaged, cut short"):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", "not a PyTorch checkpoint nor a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"\x40\0\0\0\0\0\0\0{}", "damaged safetensors"),
        (b"\x80\x02garbage", "damaged, cut short"),
        (b"PK\x03\x04garbage", "damaged, cut short"),
    ],
)
def test_other_files_are_refused_with_what_they_are(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_state_dict(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [({"epoch": 3}, "a dictionary of 'epoch'"), ([1, 2], "an object of type list"), ({}, "a dictionary of nothing")],
)
def test_a_checkpoint_without_weights_says_what_it_holds(tmp_path: Path, content: object, found: str) -> None:
    with pytest.raises(CheckpointError, match=found):
        load_state_dict(saved(content, tmp_path / "weights.pth"))


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    for load in (load_state_dict, sha256_of):
        with pytest.raises(CheckpointError, match="No such file"):
            load(tmp_path / "none.pth")


# ------------------------------------------------------------------------------------------------------- strict weights


def test_missing_unexpected_and_misshapen_weights_are_all_named(state: State) -> None:
    wrong = dict(state)
    del wrong["stage_list.0.block_list.1.conv1.conv.weight"]
    wrong["stage_list.9.block_list.0.conv1.conv.weight"] = torch.zeros(1)
    wrong["stage_list.3.block_list.0.se_fc1.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as error:
        backbone_state(wrong, "1lead")
    message = str(error.value)
    assert "1 missing: stage_list.0.block_list.1.conv1.conv.weight" in message
    assert "1 unexpected: stage_list.9.block_list.0.conv1.conv.weight" in message
    assert "1 of another shape: stage_list.3.block_list.0.se_fc1.bias [3] instead of [200]" in message


def test_many_wrong_names_are_counted_and_the_first_shown() -> None:
    with pytest.raises(
        CheckpointError, match=r"202 missing: first_conv.conv.weight, .* and 197 more; 1 unexpected: layer"
    ):
        backbone_state({"layer": torch.zeros(1)}, "12lead")


def test_every_single_backbone_weight_is_needed(state: State) -> None:
    names = [name for name in backbone_names(state) if "bn" not in name]
    for name in names[::17]:
        with pytest.raises(CheckpointError, match=f"1 missing: {name}"):
            backbone_state({k: v for k, v in state.items() if k != name}, "1lead")


def test_weights_that_are_not_finite_or_not_of_floating_point_are_named(state: State) -> None:
    nan = state["first_conv.conv.bias"].clone()
    nan[3] = torch.nan
    with pytest.raises(CheckpointError, match=r"1 not finite: first_conv\.conv\.bias"):
        backbone_state(state | {"first_conv.conv.bias": nan}, "1lead")
    with pytest.raises(CheckpointError, match=r"1 not of floating point: first_conv.conv.bias \(torch.int64\)"):
        backbone_state(state | {"first_conv.conv.bias": torch.zeros(64, dtype=torch.int64)}, "1lead")


def test_weights_of_the_other_mode_are_recognised(checkpoint_12lead: Path, checkpoint_1lead: Path) -> None:
    with pytest.raises(CheckpointError, match=r"for 1 lead .*mode 12lead needs 12: use mode='1lead', or"):
        load_backbone(checkpoint_1lead, "12lead")
    with pytest.raises(CheckpointError, match=r"12_lead_ECGFounder.pth: these weights are for 12 leads"):
        load_backbone(checkpoint_12lead, "1lead")


def test_two_networks_in_one_checkpoint_are_not_guessed_between(state: State) -> None:
    both = {f"{prefix}.{name}": tensor for prefix in ("model", "ema") for name, tensor in state.items()}
    with pytest.raises(CheckpointError, match=r"2 ECGFounder networks, under 'ema\.', 'model\.'"):
        backbone_state(both, "1lead")


# ------------------------------------------------------------------------------------------------------ finding the file


def test_a_folder_means_the_modes_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "1_lead_ECGFounder.pth").write_bytes(b"x")
    assert find_checkpoint(tmp_path, "1lead") == tmp_path / "1_lead_ECGFounder.pth"
    with pytest.raises(
        CheckpointError, match=r"no 12_lead_ECGFounder.pth in this folder \(it holds 1_lead_ECGFounder.pth"
    ):
        find_checkpoint(tmp_path, "12lead")


def test_a_checkpoint_that_is_not_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"there is no such file.*hf download PKUDigitalHealth/ECGFounder"
    ) as error:
        find_checkpoint(tmp_path / "none.pth", "12lead")
    assert "--checkpoint" in str(error.value)


def hub_cache(folder: Path, content: bytes) -> Path:
    """A Hugging Face cache that holds the 12-lead file."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = folder / "models--PKUDigitalHealth--ECGFounder"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir()
    blob.write_bytes(content)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "12_lead_ECGFounder.pth").symlink_to(blob)
    return folder


def test_without_a_checkpoint_the_hubs_local_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub_cache(tmp_path, b"weights")))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = find_checkpoint(None, "12lead")
    assert found.name == "12_lead_ECGFounder.pth"
    assert found.read_bytes() == b"weights"


def test_offline_without_a_cache_the_error_says_what_to_download_and_where_to_put_it(tmp_path: Path) -> None:
    code = (
        "from ecgfounder.network.checkpoint import find_checkpoint\nfrom ecgfounder.errors import CheckpointError\n"
        "try:\n    find_checkpoint(None, '1lead')\nexcept CheckpointError as error:\n    print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert "hf download PKUDigitalHealth/ECGFounder 1_lead_ECGFounder.pth --local-dir checkpoints" in found.stdout
    assert "--checkpoint checkpoints/1_lead_ECGFounder.pth" in found.stdout


def test_a_download_that_fails_is_a_checkpoint_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, local_files_only: bool = False, **__: object) -> str:
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(checkpoint_module, "is_reachable", lambda _: True)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded.*\(ConnectionError\).*hf download"):
        find_checkpoint(None, "12lead")


def test_a_repository_of_the_hub_is_taken_where_there_is_no_such_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(repo_id: str, filename: str, **_: object) -> str:
        asked.append(f"{repo_id} {filename}")
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("someone/my-ECGs", "1lead") == tmp_path / "1_lead_ECGFounder.pth"
    assert asked == ["someone/my-ECGs 1_lead_ECGFounder.pth"]
    (tmp_path / "folder").mkdir()
    for path in ("folder/none", "someone/x.pth", "/someone/x", "./someone/x", "a/b/c", "name"):
        with pytest.raises(CheckpointError, match="there is no such file"):
            find_checkpoint(path, "1lead")
    assert len(asked) == 1


def test_the_digest_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == hashlib.sha256(b"abc").hexdigest()


# ------------------------------------------------------------------------------------------------- what uses the weights


def test_the_fine_tuning_wrappers_put_a_new_head_on_the_loaded_backbone(checkpoint_1lead: Path, state: State) -> None:
    net = ft_1lead_ECGFounder(torch.device("cpu"), str(checkpoint_1lead), 7)
    assert net.training
    assert net.dense.weight.shape == (7, 1024)
    own = net.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in backbone_names(state))
    net(torch.randn(2, 1, 256)).sum().backward()
    assert all(parameter.grad is not None for name, parameter in net.named_parameters() if "bn" not in name)
    assert net.first_conv.conv.weight.grad is not None
    assert net.first_conv.conv.weight.grad.abs().sum() > 0


def test_a_linear_probe_trains_the_head_alone(checkpoint_12lead: Path) -> None:
    net = ft_12lead_ECGFounder("cpu", checkpoint_12lead, 3, linear_prob=True)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == {"dense.weight", "dense.bias"}
    net(torch.randn(1, 12, 256)).sum().backward()
    assert net.dense.weight.grad is not None
    assert net.first_conv.conv.weight.grad is None


def test_the_fine_tuning_wrappers_never_leave_random_weights(tmp_path: Path, overlapping: State) -> None:
    renamed = saved(
        {"state_dict": {f"x{name}": tensor for name, tensor in overlapping.items()}}, tmp_path / "weights.pth"
    )
    with pytest.raises(CheckpointError, match="missing"):
        ft_1lead_ECGFounder("cpu", renamed, 1)


def test_the_head_predicts_what_the_network_predicts(checkpoint_1lead: Path) -> None:
    net = BUNDLES["1lead"].load(checkpoint_1lead)
    head = head_of(load_state_dict(checkpoint_1lead))
    assert head is not None
    signals = torch.randn(3, 1, 700, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        feature_map, logits = net.feature_map(signals).numpy(), net(signals)
    np.testing.assert_allclose(head.logits(feature_map), logits.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(head.probabilities(feature_map), logits.sigmoid().numpy(), atol=1e-5)
    assert head.probabilities(feature_map).dtype == np.float32
    assert np.array_equal(head.logits(feature_map)[1:2], head.logits(feature_map[1:2]))
    assert np.isfinite(head.probabilities(feature_map * 1e6)).all()


# --- names of the head's classes -------------------------------------------------------------------------------------


HEAD_OF_2 = {"dense.weight": torch.zeros(2, 1024), "dense.bias": torch.zeros(2)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_labels_beside_the_weights_name_the_heads_classes(
    state: State, overlapping: State, tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"tuned{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": overlapping | HEAD_OF_2, "labels": ["fast", "slow"]}, path)
    else:
        save_file(state | HEAD_OF_2, path, metadata={"labels": json.dumps(["fast", "slow"])})
    _, head = load_backbone(path, "1lead")
    assert head is not None
    assert head.labels == ("fast", "slow")
    with ecgfounder.load("1lead", path) as model:  # packed, and again from the cache
        assert model.labels == ("fast", "slow")
    with ecgfounder.load("1lead", path) as model:
        assert model.predict(np.random.default_rng(0).standard_normal(600), sampling_rate=500).shape == (2,)


@pytest.mark.parametrize(
    "labels",
    [
        ["fast"],
        ["fast", "fast"],
        ["fast", " "],
        ["fast", "a\nb"],
        ["fast", "x" * 201],
        ["fast", 2],
        "ab",
        {"fast": 0, "slow": 1},
        torch.zeros(2),
    ],
    ids=str,
)
def test_labels_that_name_no_class_are_none_and_stop_predictions_alone(
    overlapping: State, tmp_path: Path, labels: object
) -> None:
    torch.save({"state_dict": overlapping | HEAD_OF_2, "labels": labels}, tmp_path / "tuned.pth")
    _, head = load_backbone(tmp_path / "tuned.pth", "1lead")
    assert head is not None
    assert (head.n_classes, head.labels) == (2, None)


def test_metadata_that_is_not_json_names_nothing(tmp_path: Path) -> None:
    for text in ("fast, slow", "[" * 100_000):
        save_file(HEAD_OF_2, tmp_path / "tuned.safetensors", metadata={"labels": text})
        head = load_checkpoint(tmp_path / "tuned.safetensors").head()
        assert head is not None
        assert head.labels is None


# --- random weights ----------------------------------------------------------------------------------------------------


def test_random_weights_are_a_checkpoint_of_the_layout_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", str(tmp_path / "cache"))
    path = find_checkpoint("random:3", "1lead")
    assert path == tmp_path / "cache" / "random" / "1lead-he-normal-v1-seed3.safetensors"
    digest, made = sha256_of(path), path.stat().st_mtime_ns
    weights, head = load_backbone(path, "1lead")
    assert head is not None
    assert find_checkpoint("random:3", "1lead").stat().st_mtime_ns == made
    path.unlink()
    assert sha256_of(find_checkpoint("random:3", "1lead")) == digest
    # Features of noise neither vanish nor explode, and differ between inputs.
    network = checkpoint_module.build_network(weights, "1lead", 2)
    signals = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 1, 2000)).astype(np.float32))
    with torch.inference_mode():
        features = network.features(signals).mean(dim=2).numpy()
    assert 1e-3 < features.std() < 1e3
    assert (np.abs(np.corrcoef(features))[np.triu_indices(3, 1)] < 1 - 1e-6).all()


def test_a_cache_that_cannot_be_written_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGFOUNDER_CACHE", "/proc/nothing")
    with pytest.raises(CheckpointError, match=r"cannot be written: .*Set ECGFOUNDER_CACHE"):
        find_checkpoint("random:1", "1lead")


def test_only_a_seed_makes_random_weights() -> None:
    assert seed_of("random:12") == 12
    assert [seed_of(text) for text in ("random:", "random:-1", "random:1.5", "random", "x/random:1")] == [None] * 5
    one, other = (random_weights({"a.conv.weight": (4, 3, 2), "a.conv.bias": (4,)}, seed) for seed in (1, 2))
    assert not torch.equal(one["a.conv.weight"], other["a.conv.weight"])
