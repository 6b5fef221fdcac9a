"""The backbone of ECGFounder: Net1D, a one-dimensional ResNeXt with squeeze-and-excitation.

In: signals [B, C, L] at 500 Hz. Out: feature maps [B, channels, T], and logits [B, n_classes] from their means.
Parameter names and numerics are those of the published checkpoints, including batch-norm parameters that are never applied.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

log = logging.getLogger(__name__)

SE_REDUCTION = 2
DROPOUT = 0.5


def same_padding(length: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Numbers of zeros before and after `length` samples for an output of ceil(length / stride) samples.

    As TensorFlow's "SAME" padding: if the total is odd, the extra zero is on the right.
    """
    out_length = -(-length // stride)
    total = max(0, (out_length - 1) * stride + kernel_size - length)
    return total // 2, total - total // 2


class SamePadConv1d(nn.Module):
    """Convolution whose output has ceil(L / stride) samples; its parameters are `conv.weight` and `conv.bias`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride=stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size > 1:
            left, right = same_padding(x.shape[-1], self.kernel_size, self.stride)
            if left == right:  # the convolution pads without a copy of the input
                conv = self.conv
                return F.conv1d(x, conv.weight, conv.bias, conv.stride, left, groups=conv.groups)
            x = F.pad(x, (left, right))
        out: Tensor = self.conv(x)
        return out


class Block(nn.Module):
    """Bottleneck block: 1x1, grouped k, 1x1 convolution, squeeze-and-excitation, plus identity.

    Pre-activation order: Swish (and optionally batch-norm and dropout) comes before each convolution, except before the first
    convolution of the network's first block, whose input is already activated.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ratio: float,
        kernel_size: int,
        stride: int,
        groups: int,
        *,
        is_first_block: bool,
        use_bn: bool,
        use_do: bool,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.is_first_block = is_first_block
        self.use_bn = use_bn
        self.use_do = use_do
        middle = int(out_channels * ratio)
        self.bn1 = nn.BatchNorm1d(in_channels)
        self.conv1 = SamePadConv1d(in_channels, middle, kernel_size=1)
        self.bn2 = nn.BatchNorm1d(middle)
        self.conv2 = SamePadConv1d(middle, middle, kernel_size, stride, groups)
        self.bn3 = nn.BatchNorm1d(middle)
        self.conv3 = SamePadConv1d(middle, out_channels, kernel_size=1)
        self.se_fc1 = nn.Linear(out_channels, out_channels // SE_REDUCTION)
        self.se_fc2 = nn.Linear(out_channels // SE_REDUCTION, out_channels)
        # A parameter that is never applied never gets a gradient, which DistributedDataParallel refuses at its second step.
        for norm, applied in ((self.bn1, use_bn and not is_first_block), (self.bn2, use_bn), (self.bn3, use_bn)):
            norm.requires_grad_(applied)

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.is_first_block else self._activate(x, self.bn1)
        out = self.conv1(out)
        out = self.conv2(self._activate(out, self.bn2))
        out = self.conv3(self._activate(out, self.bn3))
        scale = F.silu(self.se_fc1(out.mean(-1)))
        scale = torch.sigmoid(self.se_fc2(scale))
        # identity + out * scale in one pass over the feature map
        return torch.addcmul(self._identity(x), out, scale.unsqueeze(-1))

    def _activate(self, x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        if self.use_bn:
            x = norm(x)
        x = F.silu(x)
        return F.dropout(x, DROPOUT, self.training) if self.use_do else x

    def _identity(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            # Pad with zeros, not with minus infinity as the pooling itself does: the maximum with an odd length's last
            # sample includes 0.
            before = (self.stride - 1) // 2
            x = F.max_pool1d(F.pad(x, (before, self.stride - 1 - before)), self.stride)
        widening = self.out_channels - self.in_channels
        if widening > 0:
            x = F.pad(x, (0, 0, widening // 2, widening - widening // 2))
        return x


class Stage(nn.Module):
    """Blocks of the same width; the first one divides the sampling rate by `stride`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        ratio: float,
        kernel_size: int,
        stride: int,
        groups: int,
        m_blocks: int,
        *,
        is_first_stage: bool,
        use_bn: bool,
        use_do: bool,
    ) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(
            Block(
                in_channels if i == 0 else out_channels,
                out_channels,
                ratio,
                kernel_size,
                stride if i == 0 else 1,
                groups,
                is_first_block=is_first_stage and i == 0,
                use_bn=use_bn,
                use_do=use_do,
            )
            for i in range(m_blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block_list:
            x = block(x)
        return x


class Net1D(nn.Module):
    """The network of ECGFounder (PKUDigitalHealth; NEJM AI 2025;2(7)), with the parameters of its published code.

    Parameters
    ----------
    in_channels : int
        Number of leads of the input.
    base_filters : int
        Channels after the first convolution.
    ratio : float
        Width of a block's middle convolution relative to its output.
    filter_list : sequence of int
        Output channels of each stage; not fewer than those of the previous stage.
    m_blocks_list : sequence of int
        Number of blocks of each stage.
    kernel_size : int
        Kernel size of the first convolution and of each block's middle convolution, in samples.
    stride : int
        Factor by which each stage's first block divides the sampling rate; the first convolution always halves it.
    groups_width : int
        Channels per group of the middle convolutions.
    n_classes : int
        Number of outputs of the linear head `dense`.
    use_bn, use_do : bool, default: True
        Apply batch-norm and dropout before each convolution; the published networks apply neither. Parameters of a batch-norm
        that is not applied are in the state dict, and have `requires_grad=False`.
    verbose : bool, default: False
        Log the shape of the feature map after each stage.
    """

    def __init__(
        self,
        in_channels: int,
        base_filters: int,
        ratio: float,
        filter_list: Sequence[int],
        m_blocks_list: Sequence[int],
        kernel_size: int,
        stride: int,
        groups_width: int,
        n_classes: int,
        use_bn: bool = True,
        use_do: bool = True,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        self.use_bn = use_bn
        self.use_do = use_do
        self.verbose = verbose
        self.first_conv = SamePadConv1d(in_channels, base_filters, kernel_size, stride=2)
        self.first_bn = nn.BatchNorm1d(base_filters).requires_grad_(use_bn)
        widths = [base_filters, *filter_list]
        self.stage_list = nn.ModuleList(
            Stage(
                widths[i],
                widths[i + 1],
                ratio,
                kernel_size,
                stride,
                widths[i + 1] // groups_width,
                m_blocks,
                is_first_stage=i == 0,
                use_bn=use_bn,
                use_do=use_do,
            )
            for i, m_blocks in enumerate(m_blocks_list)
        )
        self.dense = nn.Linear(widths[-1], n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Feature map over time.

        Parameters
        ----------
        x : Tensor
            Float tensor [B, in_channels, L], L >= 1.

        Returns
        -------
        Tensor
            [B, channels, T]; for ECGFounder 1024 channels and T = ceil(L / 256). Its mean over T is what ECGFounder's
            own code calls features.
        """
        x = self.first_conv(x)
        if self.use_bn:
            x = self.first_bn(x)
        x = F.silu(x)
        for i, stage in enumerate(self.stage_list):
            x = stage(x)
            if self.verbose:
                log.info("stage %d: map %s", i, list(x.shape))
        return x

    def feature_map(self, x: Tensor) -> Tensor:
        """`features` with time before channels: [B, in_channels, L] to [B, T, channels], contiguous."""
        return self.features(x).transpose(1, 2).contiguous()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, n_classes] of signals [B, in_channels, L]."""
        logits: Tensor = self.dense(self.features(x).mean(-1))
        return logits
