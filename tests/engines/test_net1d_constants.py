"""The constants of `_net1d.c` fit the published network."""

from __future__ import annotations

import pytest

from ecgfounder.network.bundles import ARCHITECTURE

_net1d = pytest.importorskip("ecgfounder.engines._net1d", reason="the extension was not built: no C compiler")


def test_panels_and_kernels_are_the_networks() -> None:
    assert ARCHITECTURE.groups_width == _net1d.PANEL
    assert ARCHITECTURE.kernel_size == _net1d.KERNEL


@pytest.mark.parametrize("stride", [1, ARCHITECTURE.stride])
@pytest.mark.parametrize("length", [5000, 5001])
def test_zeros_at_both_ends_are_those_of_same_padding(stride: int, length: int) -> None:
    outputs = -(-length // stride)
    total = max(0, (outputs - 1) * stride + _net1d.KERNEL - length)
    assert total // 2 == _net1d.LEFT
    assert total - total // 2 in (_net1d.RIGHT, _net1d.RIGHT - 1)  # the last zero is unread where the length is even


def test_the_alignment_is_a_power_of_two_that_holds_whole_vectors() -> None:
    assert _net1d.ALIGNMENT % 64 == 0
    assert _net1d.ALIGNMENT & (_net1d.ALIGNMENT - 1) == 0
