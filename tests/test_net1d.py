"""The network has the published layout and gives the published network's numbers, at every length."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from ecgfounder.model import BUNDLES
from ecgfounder.net1d import Net1D, same_padding
from ecgfounder.network.bundles import ARCHITECTURE, FEATURES
from ecgfounder.network.checkpoint import build_network, checkpoint_layout, load_backbone
from tests.harness.thinned import thinned

GOLDEN_LENGTHS = (257, 1000, 4999, 5000, 5500, 15000)

# From the published network on the weights of conftest.drawn_tensor: the map's first and last step in channels 0, 511
# and 1023, and the first three logits.
GOLDEN = {
    ("12lead", 257): (
        [3.313018, 1.231689, -3.941063],
        [-1.211956, 1.688035, -0.7482226],
        [-5.291183, 4.446765, 0.2644329],
    ),
    ("12lead", 1000): (
        [21.07312, -0.75491, -13.18739],
        [5.54972, -4.354781, -22.45465],
        [8.074149, -14.99621, -0.3031392],
    ),
    ("12lead", 4999): ([36.37093, 17.757, -11.26402], [-27.20227, -8.185208, 12.21696], [59.35448, -122.4983, 22.6257]),
    ("1lead", 257): (
        [3.628643, 3.624995, -4.247315],
        [-0.9450902, 1.107367, 1.113771],
        [-4.975712, 4.226095, 0.5015538],
    ),
    ("1lead", 1000): (
        [21.97458, -5.163482, 2.476759],
        [6.390399, 1.855324, -15.93618],
        [8.626659, -12.00706, 6.322701],
    ),
    ("1lead", 5000): (
        [-9.965115, 2.78113, -8.214159],
        [-4.024117, -12.87974, 20.36664],
        [54.7332, -90.96416, 12.79768],
    ),
}

Array = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def networks(checkpoint_12lead: Path, checkpoint_1lead: Path) -> dict[str, Net1D]:
    return {"12lead": BUNDLES["12lead"].load(checkpoint_12lead), "1lead": BUNDLES["1lead"].load(checkpoint_1lead)}


def golden_input(mode: str, length: int) -> torch.Tensor:
    channels = BUNDLES[mode].in_channels
    signal = np.random.default_rng([7, channels, length]).standard_normal((channels, length))
    return torch.from_numpy(signal.astype(np.float32))[None]


def outputs(net: Net1D, signals: torch.Tensor) -> tuple[Array, Array]:
    with torch.inference_mode():
        return net.feature_map(signals)[0].numpy(), net(signals)[0].numpy()


def relative(found: npt.NDArray[np.floating], expected: npt.NDArray[np.floating]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def small_network(**options: bool) -> Net1D:
    torch.manual_seed(0)
    return Net1D(
        in_channels=2,
        base_filters=16,
        ratio=1,
        filter_list=[16, 48],
        m_blocks_list=[1, 2],
        kernel_size=16,
        stride=2,
        groups_width=16,
        n_classes=3,
        **options,
    )


@pytest.mark.parametrize(("mode", "length"), list(GOLDEN))
def test_the_published_networks_figures_come_out(networks: dict[str, Net1D], mode: str, length: int) -> None:
    feature_map, logits = outputs(networks[mode], golden_input(mode, length))
    first, last, logit = GOLDEN[mode, length]
    found = np.concatenate([feature_map[0, [0, 511, 1023]], feature_map[-1, [0, 511, 1023]], logits[:3]])
    assert relative(found, np.array(first + last + logit)) < 1e-4


@pytest.mark.parametrize("mode", list(BUNDLES))
@pytest.mark.parametrize("length", GOLDEN_LENGTHS)
def test_golden_maps_and_logits_come_out(shared: Path, networks: dict[str, Net1D], mode: str, length: int) -> None:
    with np.load(shared / "golden" / "net1d.npz") as golden:
        expected_map, expected_logits = golden[f"map_{mode}_{length}"], golden[f"logits_{mode}_{length}"]
    feature_map, logits = outputs(networks[mode], golden_input(mode, length))
    assert feature_map.shape == (-(-length // 256), FEATURES)
    assert relative(feature_map, expected_map) < 1e-4
    assert relative(logits, expected_logits) < 1e-4


@pytest.mark.parametrize("stem", ["129DYPRG", "3191723_ZZDEMOPTONLY_1-04_orig"])
@pytest.mark.parametrize(("mode", "filtered"), [("12lead", False), ("12lead", True), ("1lead", False)])
def test_golden_maps_of_real_recordings_come_out(
    shared: Path, networks: dict[str, Net1D], stem: str, mode: str, filtered: bool
) -> None:
    suffix = "_filtered" if filtered else ""
    with np.load(shared / "golden" / "sierra.npz") as golden:
        counts = golden[f"{stem}.filtered" if filtered else f"{stem}.samples"].astype(np.float64)
        expected_map, expected_logits = golden[f"{stem}.map_{mode}{suffix}"], golden[f"{stem}.logits_{mode}{suffix}"]
    counts = counts[: BUNDLES[mode].in_channels]
    signal = ((counts - counts.mean()) / (counts.std() + 1e-8)).astype(np.float32)
    feature_map, logits = outputs(networks[mode], torch.from_numpy(signal)[None])
    assert relative(feature_map, expected_map) < 1e-4
    assert relative(logits, expected_logits) < 1e-4


@pytest.mark.parametrize("mode", list(BUNDLES))
def test_the_state_dict_is_that_of_the_published_checkpoint(shared: Path, mode: str) -> None:
    official = json.loads((shared / "golden" / f"state_dict_{mode}.json").read_text())
    found = checkpoint_layout(mode)
    assert list(found) == list(official)
    assert {name: list(shape) for name, shape in found.items()} == official


def test_the_layout_has_509_entries_and_the_known_shapes() -> None:
    layout = checkpoint_layout("12lead")
    assert len(layout) == 509
    assert layout["first_conv.conv.weight"] == (64, 12, 16)
    assert layout["stage_list.6.block_list.3.conv2.conv.weight"] == (1024, 16, 16)
    assert layout["stage_list.2.block_list.0.bn1.running_mean"] == (160,)
    assert layout["dense.weight"] == (150, 1024)
    assert checkpoint_layout("1lead")["first_conv.conv.weight"] == (64, 1, 16)


@pytest.mark.parametrize("length", [*thinned(range(1, 41), 6), 255, 256, 257, 513])
def test_every_length_gives_one_step_for_each_256_samples_begun(networks: dict[str, Net1D], length: int) -> None:
    with torch.inference_mode():
        feature_map = networks["1lead"].feature_map(golden_input("1lead", length))
    assert feature_map.shape == (1, -(-length // 256), FEATURES)
    assert feature_map.isfinite().all()


def test_the_map_is_the_features_with_time_first(networks: dict[str, Net1D]) -> None:
    signals = golden_input("12lead", 700)
    with torch.inference_mode():
        features = networks["12lead"].features(signals)
        feature_map = networks["12lead"].feature_map(signals)
        logits = networks["12lead"](signals)
        expected = networks["12lead"].dense(features.mean(-1))
    assert features.shape == (1, FEATURES, 3)
    assert feature_map.is_contiguous()
    assert torch.equal(feature_map, features.transpose(1, 2))
    assert torch.equal(logits, expected)


@given(length=st.integers(1, 40_000), stride=st.sampled_from([1, 2]))
def test_kernel_16_always_pads_seven_zeros_left_and_at_most_eight_right(length: int, stride: int) -> None:
    left, right = same_padding(length, 16, stride)
    assert left == 7
    assert right in (7, 8)
    assert (length + left + right - 16) // stride + 1 == -(-length // stride)


@given(length=st.integers(1, 2000), kernel=st.integers(1, 40), stride=st.integers(1, 5))
def test_same_padding_gives_the_length_over_the_stride(length: int, kernel: int, stride: int) -> None:
    left, right = same_padding(length, kernel, stride)
    assert 0 <= right - left <= 1
    assert (length + left + right - kernel) // stride + 1 == -(-length // stride) or kernel < stride


def test_the_last_sample_of_an_odd_length_is_pooled_with_a_real_zero() -> None:
    net = small_network(use_bn=False, use_do=False)
    block = net.stage_list[0].block_list[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)  # what is left of the block is its identity
    out = block(torch.full((1, 16, 5), -1.0))
    assert out[0, 0].tolist() == [-1.0, -1.0, 0.0]


def test_widening_pads_the_identitys_channels_around_the_middle() -> None:
    block = small_network(use_bn=False, use_do=False).stage_list[1].block_list[0]
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    out = block(torch.ones(1, 16, 4))
    assert out[0, :, 0].tolist() == [0.0] * 16 + [1.0] * 16 + [0.0] * 16


def test_batch_norm_entries_of_the_published_networks_are_never_applied(checkpoint_1lead: Path) -> None:
    weights, _ = load_backbone(checkpoint_1lead, "1lead")
    without = {name: tensor for name, tensor in weights.items() if "bn" not in name}
    signals = golden_input("1lead", 300)
    found = [build_network(state, "1lead", 1).eval().feature_map(signals) for state in (weights, without)]
    assert len(without) < len(weights)
    assert torch.equal(*found)


def test_batch_norm_and_dropout_are_applied_where_asked_for() -> None:
    signals = torch.randn(4, 2, 64, generator=torch.Generator().manual_seed(1))
    plain, normed, dropped = (
        small_network(use_bn=False, use_do=False),
        small_network(use_bn=True, use_do=False),
        small_network(use_bn=False, use_do=True),
    )
    assert not torch.allclose(plain(signals), normed(signals))
    assert not torch.allclose(plain(signals), dropped(signals))
    assert torch.equal(plain.eval()(signals), dropped.eval()(signals))


def test_squeeze_and_excitation_scales_each_channel_by_its_own_mean() -> None:
    block = small_network(use_bn=False, use_do=False).stage_list[1].block_list[1]
    x = torch.randn(2, 48, 9, generator=torch.Generator().manual_seed(2))
    out = block.conv1(F.silu(x))
    out = block.conv2(F.silu(out))
    out = block.conv3(F.silu(out))
    scale = torch.sigmoid(block.se_fc2(F.silu(block.se_fc1(out.mean(-1)))))
    assert torch.allclose(block(x), x + torch.einsum("bcl,bc->bcl", out, scale), atol=1e-6)


def test_verbose_logs_each_stages_map(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="ecgfounder.net1d"):
        small_network(use_bn=False, use_do=False, verbose=True)(torch.zeros(1, 2, 64))
    assert [record.getMessage() for record in caplog.records] == [
        "stage 0: map [1, 16, 16]",
        "stage 1: map [1, 48, 8]",
    ]


def test_the_architecture_is_the_published_one() -> None:
    parameters = {name: shape for name, shape in checkpoint_layout("12lead").items() if "bn" not in name}
    assert round(sum(int(np.prod(shape)) for shape in parameters.values()) / 1e6, 1) in (30.7, 30.8)
    assert sum(ARCHITECTURE.m_blocks_list) == 20
