"""Mamba-2 between its two matrices: convolution, steps, recurrence, gate, norm; as in ``blocks``.

The recurrence is masked attention (arXiv 2405.21060, section 3), whose square never leaves a tile.
Columns of x are the gate (inner), what is convolved (inner + 2 state: values of all heads, B, C),
and the steps (one a head), with zeros after them.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from scorers.proxies.blocks import EPSILON
from scorers.proxies.kernels.products import summed
from scorers.proxies.kernels.tiles import Tile, head, power, wide

CONVOLVE: Tile = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4}
GATE: Tile = {"ROWS": 16, "num_warps": 4}
FORTH: Tile = {"SQUARE": 64, "num_warps": 2, "num_stages": 2}
BACK: Tile = {"SQUARE": 64, "num_warps": 2, "num_stages": 2}
SPAN = 512
"""Tokens of which one part of a sum over tokens is made."""


@triton.jit
def _sigmoid(x):
    return 1.0 / (1.0 + power(-x))


@triton.jit
def _before(x, kernel, bias, row, position, c, stride, columns, real, TAPS: tl.constexpr):
    """Return what the convolution makes of rows (rows, columns) before its SiLU, in float32."""
    total = tl.load(bias + c, mask=c < columns, other=0.0)[None, :]
    for tap in tl.static_range(TAPS):  # the last tap is the present token
        ago = TAPS - 1 - tap
        there = real & (position[:, None] >= ago)
        past = tl.load(x + (row[:, None] - ago) * stride + c[None, :], mask=there, other=0.0)
        weight = tl.load(kernel + tap * columns + c, mask=c < columns, other=0.0)
        total += past.to(tl.float32) * weight[None, :]
    return total


@triton.jit
def _convolve_kernel(
    x, kernel, bias, mixed, tokens, length, stride, inner, columns,
    TAPS: tl.constexpr, UNDO: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write convolution and SiLU to ``mixed``; or take the gradient there back through the SiLU."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    group = tl.program_id(2).to(tl.int64)
    x += group * tokens * stride + inner
    real = (row[:, None] < tokens) & (c[None, :] < columns)
    made = _before(
        x, kernel + group * TAPS * columns, bias + group * columns, row, row % length, c, stride,
        columns, real, TAPS,
    )  # fmt: skip
    share = _sigmoid(made)
    place = mixed + group * tokens * columns + row[:, None] * columns + c[None, :]
    if UNDO:
        result = tl.load(place, mask=real, other=0.0).to(tl.float32)
        result *= share * (1.0 + made * (1.0 - share))
    else:
        result = made * share
    tl.store(place, result.to(mixed.dtype.element_ty), mask=real)


@triton.jit
def _convolve_back_kernel(
    x, kernel, above, below, parts, tokens, length, stride, inner, columns,
    TAPS: tl.constexpr, SUMS: tl.constexpr, SPAN: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Parts hold TAPS sums for the kernel, and one for the bias."""
    span = tl.program_id(0)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    group = tl.program_id(2).to(tl.int64)
    x += group * tokens * stride + inner
    below += group * tokens * stride + inner
    above += group * tokens * columns
    kernel += group * TAPS * columns
    known = c < columns
    which = tl.arange(0, SUMS)[:, None]
    sums = tl.zeros((SUMS, COLUMNS), tl.float32)
    for first in range(span * SPAN, min(tokens, (span + 1) * SPAN), ROWS):
        row = first + tl.arange(0, ROWS)
        real = (row[:, None] < tokens) & known[None, :]
        own = tl.load(x + row[:, None] * stride + c[None, :], mask=real, other=0.0).to(tl.float32)
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for later in tl.static_range(TAPS):  # a token was heard by itself and by those after it
            tap = TAPS - 1 - later
            there = real & ((row % length)[:, None] + later < length)
            place = above + (row[:, None] + later) * columns + c[None, :]
            slope = tl.load(place, mask=there, other=0.0).to(tl.float32)
            total += slope * tl.load(kernel + tap * columns + c, mask=known, other=0.0)[None, :]
            sums += tl.where(which == tap, tl.sum(slope * own, 0)[None, :], 0.0)
            if later == 0:
                sums += tl.where(which == TAPS, tl.sum(slope, 0)[None, :], 0.0)
        place = below + row[:, None] * stride + c[None, :]
        tl.store(place, total.to(below.dtype.element_ty), mask=real)
    parts += (group * tl.num_programs(0) + span) * (TAPS + 1) * columns
    place = parts + which * columns + c[None, :]
    tl.store(place, sums, mask=(which <= TAPS) & known[None, :])


@triton.jit
def _step(x, bias, rates, place, real, group, h, heads):
    """Return raw steps, their softplus, and how fast a head forgets, in float32."""
    raw = tl.load(x + place, mask=real, other=0.0).to(tl.float32)
    raw += tl.load(bias + group * heads + h, mask=h < heads, other=0.0)[None, :]
    step = tl.maximum(raw, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raw)))
    speed = tl.exp(tl.load(rates + group * heads + h, mask=h < heads, other=0.0))[None, :]
    return raw, step, speed


@triton.jit
def _steps_kernel(
    x, bias, rates, steps, sums, batch, length, stride, first, heads,
    LENGTH: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    t = tl.arange(0, LENGTH)
    h = tl.arange(0, HEADS)
    sequence = tl.program_id(0).to(tl.int64)
    group = sequence // batch
    real = (t[:, None] < length) & (h[None, :] < heads)
    place = (sequence * length + t[:, None]) * stride + first + h[None, :]
    _, step, speed = _step(x, bias, rates, place, real, group, h, heads)
    place = (sequence * length + t[:, None]) * heads + h[None, :]
    tl.store(steps + place, step, mask=real)
    tl.store(sums + place, tl.cumsum(tl.where(real, -step * speed, 0.0), 0), mask=real)


@triton.jit
def _steps_back_kernel(
    x, bias, rates, steps_back, early, late, below, parts, batch, length, stride, first, heads,
    LENGTH: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    t = tl.arange(0, LENGTH)
    h = tl.arange(0, HEADS)
    sequence = tl.program_id(0).to(tl.int64)
    group = sequence // batch
    known = h < heads
    real = (t[:, None] < length) & known[None, :]
    start = (sequence * length + t[:, None]) * stride + first + h[None, :]
    raw, step, speed = _step(x, bias, rates, start, real, group, h, heads)
    place = (sequence * length + t[:, None]) * heads + h[None, :]
    slope = tl.load(early + place, mask=real, other=0.0)
    slope += tl.load(late + place, mask=real, other=0.0)
    # A decay is in the sums of its own token and of all later ones.
    decay = tl.sum(slope, 0)[None, :] - tl.cumsum(slope, 0) + slope
    rate = tl.where(real, -decay * step * speed, 0.0)
    slope = tl.load(steps_back + place, mask=real, other=0.0) - decay * speed
    slope = tl.where(real, slope * _sigmoid(raw), 0.0)
    here = (t[:, None] < length) & (first + h[None, :] < stride)
    tl.store(below + start, slope.to(below.dtype.element_ty), mask=here)
    # Padding is less than 16 columns, and those that the heads' tile did not hold are zeros too.
    rest = first + HEADS + tl.arange(0, 16)[None, :]
    place = below + (sequence * length + t[:, None]) * stride + rest
    zeros = tl.zeros((LENGTH, 16), below.dtype.element_ty)
    tl.store(place, zeros, mask=(t[:, None] < length) & (rest < stride))
    tl.store(parts + sequence * 2 * heads + h, tl.sum(slope, 0), mask=known)
    tl.store(parts + sequence * 2 * heads + heads + h, tl.sum(rate, 0), mask=known)


@triton.jit
def _gate_kernel(
    x, y, gain, out, tokens, stride, inner,
    EPS: tl.constexpr, INNER: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None]
    group = tl.program_id(1).to(tl.int64)
    c = tl.arange(0, INNER)
    real = (row < tokens) & (c[None, :] < inner)
    place = group * tokens * inner + row * inner + c[None, :]
    z = tl.load(x + group * tokens * stride + row * stride + c[None, :], mask=real, other=0.0)
    z = z.to(tl.float32)
    made = tl.load(y + place, mask=real, other=0.0).to(tl.float32) * z * _sigmoid(z)
    made *= tl.rsqrt(tl.sum(made * made, 1) / inner + EPS)[:, None]
    made *= tl.load(gain + group * inner + c, mask=c < inner, other=0.0)[None, :]
    tl.store(out + place, made.to(out.dtype.element_ty), mask=real)


@triton.jit
def _gate_back_kernel(
    x, y, gain, above, below, y_back, parts, tokens, stride, inner,
    EPS: tl.constexpr, INNER: tl.constexpr, SPAN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    span = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    c = tl.arange(0, INNER)
    gains = tl.load(gain + group * inner + c, mask=c < inner, other=0.0)[None, :]
    sums = tl.zeros((ROWS, INNER), tl.float32)
    for first in range(span * SPAN, min(tokens, (span + 1) * SPAN), ROWS):
        row = (first + tl.arange(0, ROWS))[:, None]
        real = (row < tokens) & (c[None, :] < inner)
        place = group * tokens * inner + row * inner + c[None, :]
        gate = group * tokens * stride + row * stride + c[None, :]
        z = tl.load(x + gate, mask=real, other=0.0).to(tl.float32)
        made = tl.load(y + place, mask=real, other=0.0).to(tl.float32)
        slope = tl.load(above + place, mask=real, other=0.0).to(tl.float32)
        share = _sigmoid(z)
        gated = made * z * share
        scale = tl.rsqrt(tl.sum(gated * gated, 1) / inner + EPS)[:, None]
        gated *= scale
        sums += slope * gated
        slope *= gains
        slope = (slope - gated * (tl.sum(slope * gated, 1) / inner)[:, None]) * scale
        tl.store(y_back + place, (slope * z * share).to(y_back.dtype.element_ty), mask=real)
        slope *= made * share * (1.0 + z * (1.0 - share))
        tl.store(below + gate, slope.to(below.dtype.element_ty), mask=real)
    part = parts + (group * tl.num_programs(0) + span) * inner + c
    tl.store(part, tl.sum(sums, 0), mask=c < inner)


@triton.jit
def _sums(base, at, length, heads, other: tl.constexpr):
    return tl.load(base + at * heads, mask=at < length, other=other)


@triton.jit
def _scan_kernel(
    mixed, steps, sums, skips, out, batch, length, heads,
    SIZE: tl.constexpr, STATE: tl.constexpr, WIDE: tl.constexpr, WIDE_STATE: tl.constexpr,
    SQUARE: tl.constexpr,
):  # fmt: skip
    begin = tl.program_id(0) * SQUARE
    to = begin + tl.arange(0, SQUARE)
    number = tl.program_id(1)
    sequence = tl.program_id(2).to(tl.int64)
    start = sequence * length
    inner = heads * SIZE
    stride = inner + 2 * STATE
    mixed += start * stride
    steps += start * heads + number
    sums += start * heads + number
    c = head(mixed + inner + STATE, to, length, stride, STATE, WIDE_STATE)
    late = _sums(sums, to, length, heads, -float("inf"))
    skip = tl.load(skips + sequence // batch * heads + number)
    total = head(mixed + number * SIZE, to, length, stride, SIZE, WIDE).to(tl.float32) * skip
    for first in range(0, begin + SQUARE, SQUARE):
        at = first + tl.arange(0, SQUARE)
        b = head(mixed + inner, at, length, stride, STATE, WIDE_STATE)
        step = _sums(steps, at, length, heads, 0.0)
        value = head(mixed + number * SIZE, at, length, stride, SIZE, WIDE) * step[:, None]
        gaps = late[:, None] - _sums(sums, at, length, heads, 0.0)[None, :]
        gaps = tl.where(to[:, None] >= at[None, :], gaps, -float("inf"))
        shares = tl.dot(c, tl.trans(b)) * power(gaps)
        total = tl.dot(shares.to(mixed.dtype.element_ty), value.to(mixed.dtype.element_ty), total)
    n = tl.arange(0, WIDE)[None, :]
    place = out + (start + to[:, None]) * inner + number * SIZE + n
    tl.store(place, total.to(out.dtype.element_ty), mask=(to[:, None] < length) & (n < SIZE))


@triton.jit
def _scan_back_early_kernel(
    mixed, steps, sums, skips, above, below, steps_back, sums_back, parts, batch, length, heads,
    SIZE: tl.constexpr, STATE: tl.constexpr, WIDE: tl.constexpr, WIDE_STATE: tl.constexpr,
    SQUARE: tl.constexpr,
):  # fmt: skip
    """Tokens as sources: values, B, steps, skips, and what their sums take. Rows are sources."""
    tile = tl.program_id(0)
    begin = tile * SQUARE
    at = begin + tl.arange(0, SQUARE)
    real = at < length
    sequence = tl.program_id(1).to(tl.int64)
    start = sequence * length
    inner = heads * SIZE
    stride = inner + 2 * STATE
    mixed += start * stride
    below += start * stride
    parts += (sequence * tl.num_programs(0) + tile) * heads
    b = head(mixed + inner, at, length, stride, STATE, WIDE_STATE)
    b_back = tl.zeros((SQUARE, WIDE_STATE), tl.float32)
    n = tl.arange(0, WIDE)[None, :]
    for number in range(heads):
        step = _sums(steps + start * heads + number, at, length, heads, 0.0)
        early = _sums(sums + start * heads + number, at, length, heads, 0.0)
        bare = head(mixed + number * SIZE, at, length, stride, SIZE, WIDE).to(tl.float32)
        value = (bare * step[:, None]).to(mixed.dtype.element_ty)
        value_back = tl.zeros((SQUARE, WIDE), tl.float32)
        sum_back = tl.zeros((SQUARE,), tl.float32)
        got_of = above + start * inner + number * SIZE
        for first in range(begin, length, SQUARE):
            to = first + tl.arange(0, SQUARE)
            c = head(mixed + inner + STATE, to, length, stride, STATE, WIDE_STATE)
            got = head(got_of, to, length, inner, SIZE, WIDE)
            late = _sums(sums + start * heads + number, to, length, heads, -float("inf"))
            gaps = late[None, :] - early[:, None]
            gaps = tl.where(to[None, :] >= at[:, None], gaps, -float("inf"))
            kept = power(gaps)
            shares = tl.dot(b, tl.trans(c)) * kept
            value_back = tl.dot(shares.to(mixed.dtype.element_ty), got, value_back)
            slopes = tl.dot(value, tl.trans(got))
            sum_back -= tl.sum(slopes * shares, 1)
            b_back = tl.dot((slopes * kept).to(mixed.dtype.element_ty), c, b_back)
        place = (start + at) * heads + number
        tl.store(steps_back + place, tl.sum(value_back * bare, 1), mask=real)
        tl.store(sums_back + place, sum_back, mask=real)
        own = head(got_of, at, length, inner, SIZE, WIDE).to(tl.float32)
        tl.store(parts + number, tl.sum(own * bare))
        skip = tl.load(skips + sequence // batch * heads + number)
        target = below + at[:, None] * stride + number * SIZE + n
        value_back = value_back * step[:, None] + own * skip
        tl.store(target, value_back.to(mixed.dtype.element_ty), mask=real[:, None] & (n < SIZE))
    n = tl.arange(0, WIDE_STATE)[None, :]
    target = below + at[:, None] * stride + inner + n
    tl.store(target, b_back.to(mixed.dtype.element_ty), mask=real[:, None] & (n < STATE))


@triton.jit
def _scan_back_late_kernel(
    mixed, steps, sums, above, below, sums_back, length, heads,
    SIZE: tl.constexpr, STATE: tl.constexpr, WIDE: tl.constexpr, WIDE_STATE: tl.constexpr,
    SQUARE: tl.constexpr,
):  # fmt: skip
    """Tokens as readers: C, and what their sums let through. Rows are readers."""
    begin = tl.program_id(0) * SQUARE
    to = begin + tl.arange(0, SQUARE)
    start = tl.program_id(1).to(tl.int64) * length
    inner = heads * SIZE
    stride = inner + 2 * STATE
    mixed += start * stride
    below += start * stride
    c = head(mixed + inner + STATE, to, length, stride, STATE, WIDE_STATE)
    c_back = tl.zeros((SQUARE, WIDE_STATE), tl.float32)
    for number in range(heads):
        got = head(above + start * inner + number * SIZE, to, length, inner, SIZE, WIDE)
        late = _sums(sums + start * heads + number, to, length, heads, -float("inf"))
        sum_back = tl.zeros((SQUARE,), tl.float32)
        for first in range(0, begin + SQUARE, SQUARE):
            at = first + tl.arange(0, SQUARE)
            b = head(mixed + inner, at, length, stride, STATE, WIDE_STATE)
            step = _sums(steps + start * heads + number, at, length, heads, 0.0)
            value = head(mixed + number * SIZE, at, length, stride, SIZE, WIDE) * step[:, None]
            slopes = tl.dot(got, tl.trans(value.to(mixed.dtype.element_ty)))
            early = _sums(sums + start * heads + number, at, length, heads, 0.0)
            gaps = late[:, None] - early[None, :]
            gaps = tl.where(to[:, None] >= at[None, :], gaps, -float("inf"))
            slopes *= power(gaps)
            sum_back += tl.sum(slopes * tl.dot(c, tl.trans(b)), 1)
            c_back = tl.dot(slopes.to(mixed.dtype.element_ty), b, c_back)
        tl.store(sums_back + (start + to) * heads + number, sum_back, mask=to < length)
    n = tl.arange(0, WIDE_STATE)[None, :]
    target = below + to[:, None] * stride + inner + STATE + n
    real = (to[:, None] < length) & (n < STATE)
    tl.store(target, c_back.to(mixed.dtype.element_ty), mask=real)


class Mamba(torch.autograd.Function):
    """Mamba-2 between its matrices: x (G, batch, length, .) to (G, batch, length, inner)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kernel: Tensor,
        bias: Tensor,
        step_bias: Tensor,
        rates: Tensor,
        skips: Tensor,
        gain: Tensor,
        state: int,
    ) -> Tensor:
        groups, batch, length, stride = x.shape
        tokens, taps, columns = batch * length, kernel.shape[1], kernel.shape[2]
        inner, heads = gain.shape[1], rates.shape[1]
        first = inner + columns
        size = inner // heads
        ctx.across = {"WIDE": wide(size), "WIDE_STATE": wide(state), "SIZE": size, "STATE": state}
        ctx.along = {
            "LENGTH": triton.next_power_of_2(length),
            "HEADS": triton.next_power_of_2(heads),
            "num_warps": 8,
        }
        mixed = x.new_empty((groups, batch, length, columns))
        tiles = triton.cdiv(tokens, CONVOLVE["ROWS"]), triton.cdiv(columns, CONVOLVE["COLUMNS"])
        _convolve_kernel[(*tiles, groups)](
            x, kernel, bias, mixed, tokens, length, stride, inner, columns,
            TAPS=taps, UNDO=False, **CONVOLVE,
        )  # fmt: skip
        steps = x.new_empty((groups, batch, length, heads), dtype=torch.float32)
        sums = torch.empty_like(steps)
        _steps_kernel[(groups * batch,)](
            x, step_bias, rates, steps, sums, batch, length, stride, first, heads, **ctx.along
        )
        y, out = (x.new_empty((groups, batch, length, inner)) for _ in range(2))
        _scan_kernel[(triton.cdiv(length, FORTH["SQUARE"]), heads, groups * batch)](
            mixed, steps, sums, skips, y, batch, length, heads, **ctx.across, **FORTH
        )
        _gate_kernel[(triton.cdiv(tokens, GATE["ROWS"]), groups)](
            x, y, gain, out, tokens, stride, inner,
            EPS=EPSILON, INNER=triton.next_power_of_2(inner), **GATE,
        )  # fmt: skip
        ctx.save_for_backward(x, kernel, bias, step_bias, rates, skips, gain, mixed, steps, sums, y)
        return out

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, bias, step_bias, rates, skips, gain, mixed, steps, sums, y = ctx.saved_tensors
        groups, batch, length, stride = x.shape
        tokens, taps, columns = batch * length, kernel.shape[1], kernel.shape[2]
        inner, heads = gain.shape[1], rates.shape[1]
        above, below, y_back = above.contiguous(), torch.empty_like(x), torch.empty_like(y)
        spans = triton.cdiv(tokens, SPAN)
        parts = gain.new_empty((groups, spans, inner))
        _gate_back_kernel[(spans, groups)](
            x, y, gain, above, below, y_back, parts, tokens, stride, inner,
            EPS=EPSILON, INNER=triton.next_power_of_2(inner), SPAN=SPAN, **GATE,
        )  # fmt: skip
        gained = summed(parts, gain.shape)
        tiles = triton.cdiv(length, BACK["SQUARE"])
        mixed_back = torch.empty_like(mixed)
        steps_back, early, late = (torch.empty_like(steps) for _ in range(3))
        parts = gain.new_empty((groups, batch * tiles, heads))
        _scan_back_early_kernel[(tiles, groups * batch)](
            mixed, steps, sums, skips, y_back, mixed_back, steps_back, early, parts, batch, length,
            heads, **ctx.across, **BACK,
        )  # fmt: skip
        skipped = summed(parts, skips.shape)
        _scan_back_late_kernel[(tiles, groups * batch)](
            mixed, steps, sums, y_back, mixed_back, late, length, heads, **ctx.across, **BACK
        )
        parts = gain.new_empty((groups, batch, 2, heads))
        _steps_back_kernel[(groups * batch,)](
            x, step_bias, rates, steps_back, early, late, below, parts, batch, length, stride,
            inner + columns, heads, **ctx.along,
        )  # fmt: skip
        step_biased, rated = summed(parts, (groups, 2, heads)).unbind(1)
        tiles = triton.cdiv(tokens, CONVOLVE["ROWS"]), triton.cdiv(columns, CONVOLVE["COLUMNS"])
        _convolve_kernel[(*tiles, groups)](
            x, kernel, bias, mixed_back, tokens, length, stride, inner, columns,
            TAPS=taps, UNDO=True, **CONVOLVE,
        )  # fmt: skip
        parts = gain.new_empty((groups, spans, taps + 1, columns))
        _convolve_back_kernel[(spans, tiles[1], groups)](
            x, kernel, mixed_back, below, parts, tokens, length, stride, inner, columns,
            TAPS=taps, SUMS=triton.next_power_of_2(taps + 1), SPAN=SPAN, **CONVOLVE,
        )  # fmt: skip
        convolved = summed(parts, (groups, taps + 1, columns))
        return (
            below, convolved[:, :taps], convolved[:, taps], step_biased, rated, skipped, gained,
            None,
        )  # fmt: skip
