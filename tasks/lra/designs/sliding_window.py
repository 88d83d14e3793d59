"""Sliding-window attention with rotary positions: every token sees its neighbourhood only.

Beltagy et al. 2020, Longformer (arXiv 2004.05150), without global tokens: what is far away reaches
a token through the layers between, and the mean over all tokens at the end. Rotary positions (Su et
al. 2021, arXiv 2104.09864), for inside a window the distance is what matters. Time O(T w d) for a
window of w tokens to each side, memory O(T d) with the kernels (O(T w heads) without). On a GPU
with Triton: one kernel forwards and two backwards, in the manner of FlashAttention (arXiv
2205.14135).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    import triton
    import triton.language as tl
except ImportError:  # the plain form below serves without it
    triton = None

WINDOW = 128
WIDEST = 256  # bytes of a head: the tiles of wider ones do not fit into shared memory
BASE = 10_000.0


def window_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, window: int) -> Tensor:
    """Return softmax attention (B, H, T, D) over the keys j with |i - j| <= window and mask (B, T).

    A query sees its own key even where the mask is False, so that padding stays finite. The rows
    are padded on the right.
    """
    fused = triton is not None and q.is_cuda and q.shape[-1] * q.element_size() <= WIDEST
    if fused and q.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return Fused.apply(q, k, v, mask.sum(dim=1, dtype=torch.int32), window)
    return blocked(q, k, v, mask, window)


def blocked(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, window: int) -> Tensor:
    """The plain form: blocks of ``window`` queries, each with the three blocks of keys around."""
    batch, _, length, _ = q.shape
    window = min(window, length)
    count = math.ceil(length / window)
    missing = count * window - length

    def queries(x: Tensor) -> Tensor:  # (B N, H, W, D)
        x = F.pad(x, (0, 0, 0, missing)).unflatten(2, (count, window))
        return x.transpose(1, 2).flatten(0, 1)

    def keys(x: Tensor) -> Tensor:  # (B N, H, 3 W, D), a block overlapping the next two
        x = F.pad(x, (0, 0, window, window + missing)).unfold(2, 3 * window, window)
        return x.permute(0, 2, 1, 4, 3).flatten(0, 1)

    real = F.pad(mask, (window, window + missing)).unfold(1, 3 * window, window)  # (B, N, 3 W)
    i = torch.arange(window, device=q.device)[:, None] + window
    j = torch.arange(3 * window, device=q.device)
    seen = ((i - j).abs() <= window) & (real[:, :, None] | (i == j))
    y = F.scaled_dot_product_attention(queries(q), keys(k), keys(v), seen.flatten(0, 1)[:, None])
    y = y.unflatten(0, (batch, count)).transpose(1, 2).flatten(2, 3)
    return y[:, :, :length]


if triton is not None:

    def configs(*choices: tuple[int, int, int, int]) -> list["triton.Config"]:
        # Not many: each is compiled once in every fresh sandbox. The interpreter cannot choose.
        choices = choices[:1] if triton.knobs.runtime.interpret else choices
        return [
            triton.Config({"M": m, "N": n}, num_warps=warps, num_stages=stages)
            for m, n, warps, stages in choices
        ]

    @triton.jit
    def tile(x, at, time, columns, length, D: tl.constexpr):
        """Load the rows ``at`` of one head; 0 outside of it."""
        valid = (at < length)[:, None] & (columns < D)
        return tl.load(x + at.to(tl.int64)[:, None] * time + columns, valid, 0.0)

    @triton.jit
    def visible(i, j, real, length, WINDOW: tl.constexpr):
        """Return whether query i sees key j."""
        near = (i - j <= WINDOW) & (j - i <= WINDOW) & (i < length)
        return near & ((j < real) | ((i == j) & (j < length)))

    # The batch is not in the key: the tiles, and so the rounding, of a row must not depend on it.
    @triton.autotune(configs((64, 64, 4, 3), (128, 64, 8, 3)), key=["length", "D"])
    @triton.jit
    def forward_kernel(
        q, k, v, lengths, y, lse,
        q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time,
        y_batch, y_head, y_time, length, heads, scale,
        D: tl.constexpr, BLOCK: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
        M: tl.constexpr, N: tl.constexpr,
    ):  # fmt: skip
        """Store M outputs of one head, and the logarithms (base 2) of their denominators."""
        row = tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        real = tl.load(lengths + batch)
        start = tl.program_id(0) * M
        i, columns = start + tl.arange(0, M), tl.arange(0, BLOCK)
        k += batch * k_batch + head * k_head
        v += batch * v_batch + head * v_head
        q_ = tile(q + batch * q_batch + head * q_head, i, q_time, columns, length, D)
        # Finite, so that a block of which a query sees nothing leaves no NaN; it is scaled away.
        largest = tl.full((M,), -1e30, dtype=tl.float32)
        total = tl.zeros((M,), dtype=tl.float32)
        acc = tl.zeros((M, BLOCK), dtype=tl.float32)
        first = tl.maximum(start - WINDOW, 0) // N * N
        for begin in range(first, tl.minimum(start + M + WINDOW, length), N):
            j = begin + tl.arange(0, N)
            k_ = tile(k, j, k_time, columns, length, D)
            scores = tl.dot(q_, tl.trans(k_), input_precision=PRECISION) * scale
            seen = visible(i[:, None], j[None, :], real, length, WINDOW)
            scores = tl.where(seen, scores, -1e30)
            larger = tl.maximum(largest, tl.max(scores, axis=1))
            p = tl.exp2(scores - larger[:, None])
            shrink = tl.exp2(largest - larger)
            total = total * shrink + tl.sum(p, axis=1)
            v_ = tile(v, j, v_time, columns, length, D)
            acc = acc * shrink[:, None]
            acc = tl.dot(p.to(v_.dtype), v_, acc, input_precision=PRECISION)
            largest = larger
        y += batch * y_batch + head * y_head + i.to(tl.int64)[:, None] * y_time + columns
        valid = (i < length)[:, None] & (columns < D)
        tl.store(y, (acc / total[:, None]).to(y.dtype.element_ty), valid)
        tl.store(lse + row * length + i, largest + tl.log2(total), i < length)

    @triton.autotune(configs((64, 64, 4, 3), (128, 64, 8, 3)), key=["length", "D"])
    @triton.jit
    def query_gradient_kernel(
        q, k, v, lengths, y, dy, lse, delta, dq,
        q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time,
        y_batch, y_head, y_time, g_batch, g_head, g_time, o_batch, o_head, o_time,
        length, heads, scale,
        D: tl.constexpr, BLOCK: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
        M: tl.constexpr, N: tl.constexpr,
    ):  # fmt: skip
        """Store the gradients of M queries, and delta = sum(dy y), which the keys' need."""
        row = tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        real = tl.load(lengths + batch)
        start = tl.program_id(0) * M
        i, columns = start + tl.arange(0, M), tl.arange(0, BLOCK)
        k += batch * k_batch + head * k_head
        v += batch * v_batch + head * v_head
        q_ = tile(q + batch * q_batch + head * q_head, i, q_time, columns, length, D)
        y_ = tile(y + batch * y_batch + head * y_head, i, y_time, columns, length, D)
        dy_ = tile(dy + batch * g_batch + head * g_head, i, g_time, columns, length, D)
        delta_ = tl.sum(y_.to(tl.float32) * dy_.to(tl.float32), axis=1)
        tl.store(delta + row * length + i, delta_, i < length)
        lse_ = tl.load(lse + row * length + i, i < length, 0.0)
        acc = tl.zeros((M, BLOCK), dtype=tl.float32)
        first = tl.maximum(start - WINDOW, 0) // N * N
        for begin in range(first, tl.minimum(start + M + WINDOW, length), N):
            j = begin + tl.arange(0, N)
            k_ = tile(k, j, k_time, columns, length, D)
            v_ = tile(v, j, v_time, columns, length, D)
            scores = tl.dot(q_, tl.trans(k_), input_precision=PRECISION) * scale
            seen = visible(i[:, None], j[None, :], real, length, WINDOW)
            p = tl.exp2(tl.where(seen, scores - lse_[:, None], -1e30))
            dp = tl.dot(dy_, tl.trans(v_), input_precision=PRECISION)
            ds = (p * (dp - delta_[:, None])).to(k_.dtype)
            acc = tl.dot(ds, k_, acc, input_precision=PRECISION)
        dq += batch * o_batch + head * o_head + i.to(tl.int64)[:, None] * o_time + columns
        valid = (i < length)[:, None] & (columns < D)
        # The scale is in base 2; its natural logarithm is the one that was differentiated.
        tl.store(dq, (acc * (scale * 0.6931471805599453)).to(dq.dtype.element_ty), valid)

    @triton.autotune(configs((64, 64, 4, 3), (64, 128, 8, 3)), key=["length", "D"])
    @triton.jit
    def key_gradient_kernel(
        q, k, v, lengths, dy, lse, delta, dk, dv,
        q_batch, q_head, q_time, k_batch, k_head, k_time, v_batch, v_head, v_time,
        g_batch, g_head, g_time, o_batch, o_head, o_time, length, heads, scale,
        D: tl.constexpr, BLOCK: tl.constexpr, WINDOW: tl.constexpr, PRECISION: tl.constexpr,
        M: tl.constexpr, N: tl.constexpr,
    ):  # fmt: skip
        """Store the gradients of N keys and their values."""
        row = tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        real = tl.load(lengths + batch)
        start = tl.program_id(0) * N
        j, columns = start + tl.arange(0, N), tl.arange(0, BLOCK)
        q += batch * q_batch + head * q_head
        dy += batch * g_batch + head * g_head
        k_ = tile(k + batch * k_batch + head * k_head, j, k_time, columns, length, D)
        v_ = tile(v + batch * v_batch + head * v_head, j, v_time, columns, length, D)
        dk_ = tl.zeros((N, BLOCK), dtype=tl.float32)
        dv_ = tl.zeros((N, BLOCK), dtype=tl.float32)
        first = tl.maximum(start - WINDOW, 0) // M * M
        for begin in range(first, tl.minimum(start + N + WINDOW, length), M):
            i = begin + tl.arange(0, M)
            q_ = tile(q, i, q_time, columns, length, D)
            dy_ = tile(dy, i, g_time, columns, length, D)
            lse_ = tl.load(lse + row * length + i, i < length, 0.0)
            delta_ = tl.load(delta + row * length + i, i < length, 0.0)
            scores = tl.dot(k_, tl.trans(q_), input_precision=PRECISION) * scale
            seen = visible(i[None, :], j[:, None], real, length, WINDOW)
            p = tl.exp2(tl.where(seen, scores - lse_[None, :], -1e30))
            dv_ = tl.dot(p.to(dy_.dtype), dy_, dv_, input_precision=PRECISION)
            dp = tl.dot(v_, tl.trans(dy_), input_precision=PRECISION)
            ds = (p * (dp - delta_[None, :])).to(q_.dtype)
            dk_ = tl.dot(ds, q_, dk_, input_precision=PRECISION)
        out = batch * o_batch + head * o_head + j.to(tl.int64)[:, None] * o_time + columns
        valid = (j < length)[:, None] & (columns < D)
        dk_ = dk_ * (scale * 0.6931471805599453)
        tl.store(dk + out, dk_.to(dk.dtype.element_ty), valid)
        tl.store(dv + out, dv_.to(dv.dtype.element_ty), valid)


class Fused(torch.autograd.Function):
    """The kernels above, on views of any strides whose last dimension is dense."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, window: int) -> Tensor:
        q, k, v = (dense(x) for x in (q, k, v))
        batch, heads, length, width = q.shape
        y = like(q)
        lse = torch.empty(batch * heads, length, dtype=torch.float32, device=q.device)
        forward_kernel[lambda meta: (triton.cdiv(length, meta["M"]), batch * heads)](
            q, k, v, lengths, y, lse,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *y.stride()[:3],
            length, heads, scale(width), **sizes(q, window),
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, lengths, y, lse)
        ctx.window = window
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, lengths, y, lse = ctx.saved_tensors
        batch, heads, length, width = q.shape
        dy = dense(dy)
        dq, dk, dv = like(q), like(q), like(q)
        delta = torch.empty_like(lse)
        query_gradient_kernel[lambda meta: (triton.cdiv(length, meta["M"]), batch * heads)](
            q, k, v, lengths, y, dy, lse, delta, dq,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *y.stride()[:3], *dy.stride()[:3],
            *dq.stride()[:3], length, heads, scale(width), **sizes(q, ctx.window),
        )  # fmt: skip
        key_gradient_kernel[lambda meta: (triton.cdiv(length, meta["N"]), batch * heads)](
            q, k, v, lengths, dy, lse, delta, dk, dv,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *dy.stride()[:3],
            *dk.stride()[:3], length, heads, scale(width), **sizes(q, ctx.window),
        )  # fmt: skip
        return dq, dk, dv, None, None


def dense(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def like(q: Tensor) -> Tensor:
    """Return an empty (B, H, T, D) that is (B, T, H, D) in memory: joining the heads is free."""
    batch, heads, length, width = q.shape
    return q.new_empty(batch, length, heads, width).transpose(1, 2)


def scale(width: int) -> float:
    """Return what scores are multiplied with, for powers of 2 in place of e."""
    return width**-0.5 / math.log(2)


def sizes(q: Tensor, window: int) -> dict[str, int | str]:
    """Return the kernels' constants. Three passes of TF32 are nearly exact for float32."""
    width = q.shape[-1]
    exact = q.dtype == torch.float32
    return {
        "D": width,
        "BLOCK": max(16, triton.next_power_of_2(width)),
        "WINDOW": window,
        "PRECISION": "tf32x3" if exact else "tf32",
    }


def rotate(x: Tensor, base: float = BASE) -> Tensor:
    """Turn the pair (x_i, x_{i + D/2}) of (..., T, D) at place t by the angle t base^(-2i / D).

    Computed in float32 at least: bfloat16 cannot tell place 257 from 258.
    """
    half = x.shape[-1] // 2
    dtype = torch.promote_types(x.dtype, torch.float32)
    speed = base ** (-torch.arange(half, device=x.device, dtype=dtype) / max(1, half))
    angle = torch.arange(x.shape[-2], device=x.device, dtype=dtype)[:, None] * speed
    cos, sin = angle.cos(), angle.sin()
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = (first * cos - second * sin, second * cos + first * sin, x[..., 2 * half :])
    return torch.cat([part.to(x.dtype) for part in turned], dim=-1)


class WindowAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = window_attention(rotate(q), rotate(k), v, mask, WINDOW)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = WindowAttention(dim, heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.drop(self.mixer(self.norm1(x), mask))
        return x + self.drop(self.mlp(self.norm2(x)))


class CustomEncoder(nn.Module):
    def __init__(
        self,
        *,
        vocabulary: int,
        classes: int,
        length: int,
        dim: int,
        depth: int,
        heads: int,
        mlp_dim: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(summary(self.norm(x), mask))


def summary(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 2 dim): the first token, and the mean over the real ones."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.cat((x[:, 0], mean), dim=1)
