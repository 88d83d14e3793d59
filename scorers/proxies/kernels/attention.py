"""Causal attention over many short sequences with small heads: its square never leaves a tile."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from scorers.proxies.blocks import positions
from scorers.proxies.kernels.tiles import LOG2_E, Tile, head, wide

FORTH: Tile = {"SQUARE": 64, "num_warps": 4, "num_stages": 2}
BACK: Tile = {"SQUARE": 64, "num_warps": 2, "num_stages": 1, "maxnreg": 168}


@triton.jit
def _turn_kernel(
    qkv, cos, sin, rows, length, sign,
    D: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Turn queries and keys by their positions, in place.

    Entry i of a head's first half and of its second half are a pair.
    """
    row = (tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS))[:, None]
    pair = tl.arange(0, D)[None, :]  # of queries and keys together
    inside = row < rows
    place = qkv + row * 3 * D + pair // HALF * 2 * HALF + pair % HALF
    first = tl.load(place, mask=inside).to(tl.float32)
    second = tl.load(place + HALF, mask=inside).to(tl.float32)
    angle = row % length * HALF + pair % HALF
    x, y = tl.load(cos + angle, mask=inside), tl.load(sin + angle, mask=inside) * sign
    tl.store(place, (first * x - second * y).to(qkv.dtype.element_ty), mask=inside)
    tl.store(place + HALF, (first * y + second * x).to(qkv.dtype.element_ty), mask=inside)


@triton.jit
def _attended(
    query, to, top, total, mixed, qkv, first, length, scale,
    D: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, SQUARE: tl.constexpr,
    DIAGONAL: tl.constexpr,
):  # fmt: skip
    """Take in one tile of keys: a running maximum, a sum of shares, and the mix of values."""
    at = first + tl.arange(0, SQUARE)
    key = head(qkv + D, at, length, 3 * D, SIZE, WIDE)
    value = head(qkv + 2 * D, at, length, 3 * D, SIZE, WIDE)
    scores = tl.dot(query, tl.trans(key))
    if DIAGONAL:
        scores = tl.where(to[:, None] >= at[None, :], scores, -float("inf"))
    higher = tl.maximum(top, tl.max(scores, 1) * scale)
    shares = tl.exp2(scores * scale - higher[:, None])
    shrink = tl.exp2(top - higher)
    total = total * shrink + tl.sum(shares, 1)
    mixed = tl.dot(shares.to(qkv.dtype.element_ty), value, mixed * shrink[:, None])
    return higher, total, mixed


@triton.jit
def _attend_kernel(
    qkv, out, logs, length, scale,
    D: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, SQUARE: tl.constexpr,
):  # fmt: skip
    begin = tl.program_id(0) * SQUARE
    to = begin + tl.arange(0, SQUARE)
    number = tl.program_id(1)
    sequence = tl.program_id(2).to(tl.int64)
    qkv += sequence * length * 3 * D + number * SIZE
    query = head(qkv, to, length, 3 * D, SIZE, WIDE)
    top = tl.full((SQUARE,), -float("inf"), tl.float32)
    total = tl.zeros((SQUARE,), tl.float32)
    mixed = tl.zeros((SQUARE, WIDE), tl.float32)
    for first in range(0, begin, SQUARE):
        top, total, mixed = _attended(
            query, to, top, total, mixed, qkv, first, length, scale, D, SIZE, WIDE, SQUARE, False
        )
    top, total, mixed = _attended(
        query, to, top, total, mixed, qkv, begin, length, scale, D, SIZE, WIDE, SQUARE, True
    )
    c = tl.arange(0, WIDE)[None, :]
    inside = to[:, None] < length
    place = out + sequence * length * D + number * SIZE + to[:, None] * D + c
    tl.store(place, (mixed / total[:, None]).to(qkv.dtype.element_ty), mask=inside & (c < SIZE))
    place = logs + (sequence * tl.num_programs(1) + number) * length + to
    tl.store(place, top + tl.log2(total), mask=to < length)


@triton.jit
def _learned(
    key, value, at, key_back, value_back, qkv, above, logs, deltas, first, length, scale,
    D: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, SQUARE: tl.constexpr,
    DIAGONAL: tl.constexpr,
):  # fmt: skip
    """Take in one tile of queries; return what it adds to keys and values, and its own gradient.

    Rows are keys and columns are queries: then only the queries' product needs a transpose.
    """
    to = first + tl.arange(0, SQUARE)
    query = head(qkv, to, length, 3 * D, SIZE, WIDE)
    got = head(above, to, length, D, SIZE, WIDE)
    log = tl.load(logs + to, mask=to < length, other=float("inf"))
    delta = tl.load(deltas + to, mask=to < length, other=0.0)
    shares = tl.exp2(tl.dot(key, tl.trans(query)) * scale - log[None, :])
    if DIAGONAL:
        shares = tl.where(to[None, :] >= at[:, None], shares, 0.0)
    value_back = tl.dot(shares.to(qkv.dtype.element_ty), got, value_back)
    slopes = shares * (tl.dot(value, tl.trans(got)) - delta[None, :])
    slopes = slopes.to(qkv.dtype.element_ty)
    key_back = tl.dot(slopes, query, key_back)
    return key_back, value_back, tl.dot(tl.trans(slopes), key)


@triton.jit
def _attend_back_kernel(
    qkv, out, logs, above, below, sums, deltas, length, scale, natural,
    D: tl.constexpr, SIZE: tl.constexpr, WIDE: tl.constexpr, SQUARE: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    sequence = tl.program_id(1).to(tl.int64)
    start = sequence * length * 3 * D + number * SIZE
    qkv += start
    below += start
    start = sequence * length * D + number * SIZE
    out += start
    above += start
    sums += start
    start = (sequence * tl.num_programs(0) + number) * length
    logs += start
    deltas += start
    for first in range(0, length, SQUARE):
        to = first + tl.arange(0, SQUARE)
        got = head(above, to, length, D, SIZE, WIDE).to(tl.float32)
        delta = tl.sum(got * head(out, to, length, D, SIZE, WIDE).to(tl.float32), 1)
        tl.store(deltas + to, delta, mask=to < length)
    tl.debug_barrier()
    c = tl.arange(0, WIDE)[None, :]
    for begin in range(0, length, SQUARE):
        at = begin + tl.arange(0, SQUARE)
        real = (at[:, None] < length) & (c < SIZE)
        key = head(qkv + D, at, length, 3 * D, SIZE, WIDE)
        value = head(qkv + 2 * D, at, length, 3 * D, SIZE, WIDE)
        key_back = tl.zeros((SQUARE, WIDE), tl.float32)
        value_back = tl.zeros((SQUARE, WIDE), tl.float32)
        key_back, value_back, query_back = _learned(
            key, value, at, key_back, value_back, qkv, above, logs, deltas, begin, length, scale,
            D, SIZE, WIDE, SQUARE, True,
        )  # fmt: skip
        # A query's gradient is summed over the tiles of keys, in float32 and in order. This is the
        # last tile that these queries see.
        if begin > 0:
            query_back += tl.load(sums + at[:, None] * D + c, mask=real, other=0.0)
        target = below + at[:, None] * 3 * D + c
        tl.store(target, (query_back * natural).to(qkv.dtype.element_ty), mask=real)
        for first in range(begin + SQUARE, length, SQUARE):
            key_back, value_back, query_back = _learned(
                key, value, at, key_back, value_back, qkv, above, logs, deltas, first, length,
                scale, D, SIZE, WIDE, SQUARE, False,
            )  # fmt: skip
            to = first + tl.arange(0, SQUARE)
            place = sums + to[:, None] * D + c
            later = (to[:, None] < length) & (c < SIZE)
            if begin > 0:
                query_back += tl.load(place, mask=later, other=0.0)
            tl.store(place, query_back, mask=later)
        tl.store(target + D, (key_back * natural).to(qkv.dtype.element_ty), mask=real)
        tl.store(target + 2 * D, value_back.to(qkv.dtype.element_ty), mask=real)
        tl.debug_barrier()


class Attend(torch.autograd.Function):
    """Causal attention: (G, batch, length, 3 D) to (..., D). It turns queries and keys in place."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, heads: int) -> Tensor:
        groups, batch, length, width = qkv.shape
        dim = width // 3
        size = dim // heads
        _turn(qkv, size, 1.0)
        out = qkv.new_empty((groups, batch, length, dim))
        logs = qkv.new_empty((groups, batch, heads, length), dtype=torch.float32)
        _attend_kernel[(triton.cdiv(length, FORTH["SQUARE"]), heads, groups * batch)](
            qkv, out, logs, length, size**-0.5 * LOG2_E.value,
            D=dim, SIZE=size, WIDE=wide(size), **FORTH,
        )  # fmt: skip
        ctx.save_for_backward(qkv, out, logs)
        ctx.heads = heads
        return out

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor, None]:
        qkv, out, logs = ctx.saved_tensors
        groups, batch, _, dim = out.shape
        size = dim // ctx.heads
        below, deltas = torch.empty_like(qkv), torch.empty_like(logs)
        sums = torch.empty_like(out, dtype=torch.float32)
        _attend_back_kernel[(ctx.heads, groups * batch)](
            qkv, out, logs, above.contiguous(), below, sums, deltas, out.shape[2],
            size**-0.5 * LOG2_E.value, size**-0.5, D=dim, SIZE=size, WIDE=wide(size), **BACK,
        )  # fmt: skip
        _turn(below, size, -1.0)
        return below, None


def _turn(qkv: Tensor, size: int, sign: float) -> None:
    """Turn the queries and keys of heads of ``size`` (Su et al., arXiv 2104.09864), or back."""
    *_, length, width = qkv.shape
    cos, sin = positions(length, size // 2, qkv.device, torch.float32)
    rows = qkv.numel() // width
    _turn_kernel[(triton.cdiv(rows, 32),)](
        qkv, cos, sin, rows, length, sign, D=width // 3, HALF=size // 2, ROWS=32, num_warps=4
    )
