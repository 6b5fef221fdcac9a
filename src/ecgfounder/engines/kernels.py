"""The Triton engine's kernels: the layers of Net1D, for feature maps stored time by channel.

In: CUDA tensors [rows, channels], a row being one time step of one signal. Out: the same. Every value is a sum of the same
products in the same order at any position in a batch, so that the bytes of a feature map do not depend on its batch.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _silu(x):
    return x / (1 + tl.exp(-x))


@triton.jit(do_not_specialize=["rows", "length", "out_length"])
def convolve(
    x,
    weight,
    bias,
    out,
    rows,
    length,
    out_length,
    channels,
    out_channels,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    TAPS: tl.constexpr,
    STRIDE: tl.constexpr,
    LEFT: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Grouped convolution over time, bias and swish: [B * length, channels] to [B * out_length, out_channels].

    A program computes BLOCK_M rows of one group, IN channels to OUT, as a product over TAPS * IN, with LEFT zeros before the
    first sample. `weight` is [groups, TAPS * IN, OUT].
    """
    group = tl.program_id(1)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    signal = row // out_length
    first = (row - signal * out_length) * STRIDE - LEFT
    there = (row < rows)[:, None]
    origin = x + group * IN + ((signal.to(tl.int64) * length + first) * channels)[:, None]
    n = tl.arange(0, OUT)
    total = tl.zeros((BLOCK_M, OUT), dtype=tl.float32)
    for start in range(0, TAPS * IN, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        at = first[:, None] + (k // IN)[None, :]
        inside = (at >= 0) & (at < length) & there
        a = tl.load(origin + ((k // IN) * channels + k % IN)[None, :], mask=inside, other=0.0)
        b = tl.load(weight + group * TAPS * IN * OUT + k[:, None] * OUT + n[None, :])
        total = tl.dot(a, b, total, input_precision=PRODUCT)
    total = _silu(total + tl.load(bias + group * OUT + n)[None, :])
    target = out + (row.to(tl.int64) * out_channels)[:, None] + group * OUT + n[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["rows"])
def linear(
    x,
    weight,
    bias,
    out,
    rows,
    channels,
    out_channels,
    SWISH: tl.constexpr,
    WHOLE: tl.constexpr,
    PRODUCT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """[rows, channels] times `weight` [channels, out_channels], plus bias, with or without swish.

    WHOLE states that `channels` is a multiple of BLOCK_K.
    """
    blocks_n = tl.cdiv(out_channels, BLOCK_N)
    program = tl.program_id(0)
    row = (program // blocks_n) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = (program % blocks_n) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    there = (row < rows)[:, None]
    wanted = (n < out_channels)[None, :]
    a_at = x + (row.to(tl.int64) * channels)[:, None] + k[None, :]
    b_at = weight + k[:, None] * out_channels + n[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, channels, BLOCK_K):
        if WHOLE:
            a = tl.load(a_at, mask=there, other=0.0)
            b = tl.load(b_at, mask=wanted, other=0.0)
        else:
            left = channels - start
            a = tl.load(a_at, mask=there & (k < left)[None, :], other=0.0)
            b = tl.load(b_at, mask=wanted & (k < left)[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRODUCT)
        a_at += BLOCK_K
        b_at += BLOCK_K * out_channels
    total += tl.load(bias + n, mask=n < out_channels, other=0.0)[None, :]
    if SWISH:
        total = _silu(total)
    target = out + (row.to(tl.int64) * out_channels)[:, None] + n[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=there & wanted)


@triton.jit(do_not_specialize=["length", "parts", "divisor"])
def average(x, out, length, parts, divisor, channels, PART: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr):
    """Sums over PART time steps each of a signal, divided: [B * length, channels] to [B * parts, channels]."""
    signal = tl.program_id(0) // parts
    begin = (tl.program_id(0) - signal * parts) * PART
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    origin = x + (signal.to(tl.int64) * length + begin) * channels
    left = min(length - begin, PART)
    for start in range(0, left, BLOCK_T):
        t = start + tl.arange(0, BLOCK_T)
        inside = (t < left)[:, None] & (c < channels)[None, :]
        total += tl.load(origin + (t * channels)[:, None] + c[None, :], mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(total, axis=0) / divisor
    target = out + tl.program_id(0).to(tl.int64) * channels + c
    tl.store(target, mean.to(out.dtype.element_ty), mask=c < channels)


@triton.jit(do_not_specialize=["length"])
def mean(x, out, length, channels, BLOCK_C: tl.constexpr):
    """The mean over time: [B * length, channels] to float32 [B, channels]; added up in float64, one time step after the other."""
    signal = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    at = x + signal.to(tl.int64) * length * channels + c
    total = tl.load(at, mask=c < channels, other=0.0).to(tl.float64)
    for _ in range(1, length):
        at += channels
        total += tl.load(at, mask=c < channels, other=0.0).to(tl.float64)
    tl.store(out + signal.to(tl.int64) * channels + c, (total / length).to(tl.float32), mask=c < channels)


@triton.jit(do_not_specialize=["rows", "length", "out_length"])
def gate(
    x,
    residual,
    scale,
    out,
    activated,
    rows,
    length,
    out_length,
    channels,
    out_channels,
    STRIDE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """The end of a block: identity + residual * sigmoid(scale) to `out`, and its swish, for the next block.

    `x` [B * length, channels] is the block's input; the block has computed `residual` [B * out_length, out_channels] and `scale`
    [B, out_channels]. The identity is the maximum of every STRIDE rows of `x`, with zeros beyond the end, and its channels are
    in the middle of the wider feature map.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = (row < rows)[:, None] & (c < out_channels)[None, :]
    signal = row // out_length
    t = (row - signal * out_length) * STRIDE
    source = c - (out_channels - channels) // 2
    known = there & ((source >= 0) & (source < channels))[None, :]
    origin = x + ((signal.to(tl.int64) * length + t) * channels)[:, None] + source[None, :]
    identity = tl.load(origin, mask=known, other=0.0).to(tl.float32)
    if STRIDE == 2:
        after = tl.load(origin + channels, mask=known & (t + 1 < length)[:, None], other=0.0).to(tl.float32)
        identity = tl.maximum(identity, after, propagate_nan=tl.PropagateNan.ALL)
    at = (row.to(tl.int64) * out_channels)[:, None] + c[None, :]
    value = tl.load(residual + at, mask=there, other=0.0).to(tl.float32)
    factor = tl.load(scale + (signal * out_channels)[:, None] + c[None, :], mask=there, other=0.0).to(tl.float32)
    value = identity + value / (1 + tl.exp(-factor))
    tl.store(out + at, value.to(out.dtype.element_ty), mask=there)
    tl.store(activated + at, _silu(value).to(out.dtype.element_ty), mask=there)
