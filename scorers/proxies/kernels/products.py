"""The products of the batched trainer, written in Triton: each reads its inputs from memory once.

A candidate's rows are multiplied by its own matrix, and the norm before, the ReLU after or the
residual sum are part of the same kernel: the proxies are narrow, so moving activations costs more
than multiplying them. Activations of all candidates are (E, T, D), float32; those inside a block
are (G, T, N), bfloat16, for its G ``members``. T counts the tokens of a batch, batch x length.

Sizes of tiles and the order of every sum depend on the shape of one candidate, never on how many
there are: what is trained together does not change a candidate's result by a bit. Sums over tokens
are made in parts that are added in order, without atomics.

Widths of the model and of heads are powers of two (``blocks.Recipe``); other widths are padded to
multiples of 16 with columns of zeros.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from scorers.proxies.blocks import EPSILON
from scorers.proxies.kernels.tiles import Tile

PART = 2048
"""Tokens of which a part of a weight's gradient is the sum."""

PROJECT: Tile = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 2}
ADD: Tile = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 3}
BACK: Tile = {"ROWS": 128, "COLUMNS": 64, "num_warps": 8, "num_stages": 4}
GRADIENT: Tile = {"ROWS": 32, "HEIGHT": 128, "WIDTH": 128, "num_warps": 4, "num_stages": 3}
"""Sizes of tiles, in tokens and columns, that were fastest on an H200."""

TYPES = {torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


def padded(width: int) -> int:
    """Return the least multiple of 16 that is not below ``width``."""
    return -(-width // 16) * 16


@triton.jit
def _project_kernel(
    x, members, gain, weights, mask, out, kept, tokens, columns,
    D: tl.constexpr, EPS: tl.constexpr, NORM: tl.constexpr, RELU: tl.constexpr,
    MASK: tl.constexpr, KEEP: tl.constexpr, TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    group = tl.program_id(1).to(tl.int64)
    member = tl.load(members + group).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row[:, None] < tokens
    d = tl.arange(0, D)
    place = row[:, None] * D + d[None, :]
    values = tl.load(x + member * tokens * D + place, mask=inside, other=0.0)
    if NORM:
        scale = tl.rsqrt(tl.sum(values * values, 1) / D + EPS)
        values = values * scale[:, None] * tl.load(gain + group * D + d)[None, :]
    values = values.to(weights.dtype.element_ty)
    if KEEP:
        tl.store(kept + group * tokens * D + place, values, mask=inside)
    weights += group * D * columns
    for first in range(0, columns, COLUMNS):
        n = first + tl.arange(0, COLUMNS)
        real = n[None, :] < columns
        where = n[None, :] * D + d[:, None] if TRANSPOSED else d[:, None] * columns + n[None, :]
        result = tl.dot(values, tl.load(weights + where, mask=real, other=0.0))
        target = group * tokens * columns + row[:, None] * columns + n[None, :]
        if RELU:
            result = tl.maximum(result, 0.0)
        if MASK:
            shown = tl.load(mask + target, mask=inside & real, other=0.0)
            result = tl.where(shown > 0, result, 0.0)
        tl.store(out + target, result.to(out.dtype.element_ty), mask=inside & real)


@triton.jit
def _add_kernel(
    h, weights, x, members, out, gain, above, parts, tokens, columns,
    D: tl.constexpr, EPS: tl.constexpr, BACK: tl.constexpr, ADD: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    group = tl.program_id(1).to(tl.int64)
    member = tl.load(members + group).to(tl.int64)
    row = tile * ROWS + tl.arange(0, ROWS)
    inside = row[:, None] < tokens
    d = tl.arange(0, D)
    place = member * tokens * D + row[:, None] * D + d[None, :]
    values = tl.load(x + place, mask=inside, other=0.0)  # on its way while the product is made
    total = tl.zeros((ROWS, D), tl.float32)
    h += group * tokens * columns
    weights += group * D * columns
    for first in range(0, columns, COLUMNS):
        k = first + tl.arange(0, COLUMNS)
        real = k < columns
        left = tl.load(
            h + row[:, None] * columns + k[None, :], mask=inside & real[None, :], other=0.0
        )
        where = d[None, :] * columns + k[:, None] if BACK else k[:, None] * D + d[None, :]
        total = tl.dot(left, tl.load(weights + where, mask=real[:, None], other=0.0), total)
    if BACK:  # through the norm
        scale = tl.rsqrt(tl.sum(values * values, 1) / D + EPS)
        values = values * scale[:, None]
        tl.store(parts + (group * tl.num_programs(0) + tile) * D + d, tl.sum(total * values, 0))
        total = total * tl.load(gain + group * D + d)[None, :]
        total = (total - values * (tl.sum(total * values, 1) / D)[:, None]) * scale[:, None]
        if ADD:
            total += tl.load(above + place, mask=inside, other=0.0)
    else:
        total += values
    tl.store(out + place, total, mask=inside)


@triton.jit
def _gradient_kernel(
    left, right, members, parts, tokens, height, width, apart,
    PART: tl.constexpr, ONE_HOT: tl.constexpr, GATHER: tl.constexpr, SHORT: tl.constexpr,
    ROWS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(width, WIDTH)
    k = (tl.program_id(0) // across) * HEIGHT + tl.arange(0, HEIGHT)
    n = (tl.program_id(0) % across) * WIDTH + tl.arange(0, WIDTH)
    part = tl.program_id(1)
    group = tl.program_id(2).to(tl.int64)
    source = group
    if GATHER:
        source = tl.load(members + group).to(tl.int64)
    right += source * tokens * width
    left += group * apart
    total = tl.zeros((HEIGHT, WIDTH), tl.float32)
    for first in range(part * PART, min(tokens, (part + 1) * PART), ROWS):
        row = first + tl.arange(0, ROWS)
        if ONE_HOT:
            ids = tl.load(left + row, mask=row < tokens, other=-1)
            a = (ids[:, None] == k[None, :]).to(SHORT)
        else:
            a = tl.load(
                left + row[:, None] * height + k[None, :],
                mask=(row[:, None] < tokens) & (k[None, :] < height), other=0.0,
            )  # fmt: skip
        b = tl.load(
            right + row[:, None] * width + n[None, :],
            mask=(row[:, None] < tokens) & (n[None, :] < width), other=0.0,
        )  # fmt: skip
        total = tl.dot(tl.trans(a), b.to(SHORT), total)
    parts += (group * tl.num_programs(1) + part) * height * width
    tl.store(
        parts + k[:, None] * width + n[None, :], total,
        mask=(k[:, None] < height) & (n[None, :] < width),
    )  # fmt: skip


@triton.jit
def _sum_kernel(parts, out, count, size, BLOCK: tl.constexpr):
    group = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for part in range(count):
        total += tl.load(parts + (group * count + part) * size + i, mask=i < size, other=0.0)
    tl.store(out + group * size + i, total, mask=i < size)


def project(
    x: Tensor, members: Tensor, weights: Tensor, *, gain: Tensor | None = None,
    relu: bool = False, mask: Tensor | None = None, transposed: bool = False, keep: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return the members' rows of x (E, T, D) by their weights, (G, T, N), and their rows if kept.

    Weights are (G, D, N), or (G, N, D) if ``transposed``. Rows are normed first with a ``gain``
    (G, D). The result passes a ReLU, or is 0 where ``mask`` (G, T, N) is not positive.
    """
    groups, (tokens, dim) = len(members), x.shape[1:]
    columns = weights.shape[1 if transposed else 2]
    out = x.new_empty((groups, tokens, columns), dtype=weights.dtype)
    kept = x.new_empty((groups, tokens, dim), dtype=weights.dtype) if keep else out
    _project_kernel[(triton.cdiv(tokens, PROJECT["ROWS"]), groups)](
        x, members, x if gain is None else gain, weights, out if mask is None else mask, out, kept,
        tokens, columns,
        D=dim, EPS=EPSILON, NORM=gain is not None, RELU=relu, MASK=mask is not None, KEEP=keep,
        TRANSPOSED=transposed, **PROJECT,
    )  # fmt: skip
    return out, kept


def add_projected(h: Tensor, weights: Tensor, x: Tensor, members: Tensor, out: Tensor) -> None:
    """Set the members' rows of out (E, T, D): those of x plus h (G, T, N) by weights (G, N, D)."""
    tokens, dim = x.shape[1:]
    _add_kernel[(triton.cdiv(tokens, ADD["ROWS"]), len(members))](
        h, weights, x, members, out, x, x, x, tokens, h.shape[2],
        D=dim, EPS=EPSILON, BACK=False, ADD=False, **ADD,
    )  # fmt: skip


def project_back(
    h: Tensor, weights: Tensor, x: Tensor, members: Tensor, out: Tensor, gain: Tensor,
    above: Tensor | None,
) -> Tensor:  # fmt: skip
    """Set the members' rows of out (E, T, D) to the gradient of ``project`` with a gain.

    h (G, T, N) is the gradient of what it returned, ``above`` (E, T, D) is added. Returns the
    gradient of the gain (G, D).
    """
    tokens, dim = x.shape[1:]
    tiles = triton.cdiv(tokens, BACK["ROWS"])
    parts = x.new_empty((len(members), tiles, dim))
    _add_kernel[(tiles, len(members))](
        h, weights, x, members, out, gain, x if above is None else above, parts, tokens, h.shape[2],
        D=dim, EPS=EPSILON, BACK=True, ADD=above is not None, **BACK,
    )  # fmt: skip
    return summed(parts, (len(members), dim))


def weight_gradient(left: Tensor, right: Tensor, members: Tensor | None = None) -> Tensor:
    """Return the sums over tokens of left (G, T, K) times right (G, T, N): (G, K, N), float32.

    With ``members``, right is (E, T, N), and theirs are taken.
    """
    groups, tokens, height = left.shape
    return _gradient(left, right, groups, tokens, height, members, left.dtype, one_hot=False)


def embedding_gradient(ids: Tensor, above: Tensor, vocabulary: int, short: torch.dtype) -> Tensor:
    """Return the sum of above (E, T, D) over the tokens with each id: (E, vocabulary, D), float32.

    ids are (E, T), or (1, T) for all.
    """
    return _gradient(ids, above, len(above), ids.shape[1], vocabulary, None, short, one_hot=True)


def _gradient(
    left: Tensor, right: Tensor, groups: int, tokens: int, height: int, members: Tensor | None,
    short: torch.dtype, *, one_hot: bool,
) -> Tensor:  # fmt: skip
    width, count = right.shape[2], triton.cdiv(tokens, PART)
    parts = right.new_empty((groups, count, height, width), dtype=torch.float32)
    tiles = triton.cdiv(height, GRADIENT["HEIGHT"]) * triton.cdiv(width, GRADIENT["WIDTH"])
    _gradient_kernel[(tiles, count, groups)](
        left, right, left if members is None else members, parts, tokens, height, width,
        left[0].numel() if len(left) == groups else 0,
        PART=PART, ONE_HOT=one_hot, GATHER=members is not None, SHORT=TYPES[short],
        **GRADIENT,
    )  # fmt: skip
    return summed(parts, (groups, height, width))


def summed(parts: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the sum of parts (G, count, ...) over the second axis, in order."""
    groups, count = parts.shape[:2]
    if count == 1:
        return parts.view(shape)
    out = parts.new_empty(shape)
    size = out[0].numel()
    _sum_kernel[(triton.cdiv(size, 1024), groups)](parts, out, count, size, BLOCK=1024)
    return out
