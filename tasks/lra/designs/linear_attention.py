"""Linear attention behind a short depthwise convolution: no T x T matrix anywhere.

Katharopoulos et al. 2020 (arXiv 2006.16236): softmax is replaced by a positive feature map
elu(x) + 1, so keys and values are summed up once, in both directions, and each query reads the
sum. The convolution gives the sharp local view that the sum lacks. Time O(T d^2 / heads),
memory O(T d). On a GPU with Triton: two kernels forwards and two backwards, which never store a
feature.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    import triton
    import triton.language as tl
except ImportError:  # the plain form below serves without it
    triton = None

KERNEL = 5
WIDEST = 256  # bytes of a head: the tiles of wider ones do not fit into shared memory
SHARE = 512  # tokens that one program sums; of the batch it must not depend, for rounding would
TILE = 64
EPSILON = 1e-6


def linear_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Return phi(q) (phi(k)^T v) / (phi(q) sum phi(k)), (B, H, T, D), over the keys in mask (B, T).

    phi = elu + 1. The rows are padded on the right.
    """
    fused = triton is not None and q.is_cuda and q.shape[-1] * q.element_size() <= WIDEST
    if fused and q.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return Fused.apply(q, k, v, mask.sum(dim=1, dtype=torch.int32))
    return plain(q, k, v, mask)


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The same without kernels."""
    q, k = F.elu(q) + 1, (F.elu(k) + 1) * mask[:, None, :, None]
    # As means, not sums, they keep their size at any length.
    k = k / mask.sum(dim=1).clamp(min=1).to(k.dtype)[:, None, None, None]
    memory = k.transpose(-1, -2) @ v  # (B, H, D, D)
    total = q @ k.sum(dim=-2)[..., None].to(q.dtype)  # (B, H, T, 1)
    return (q @ memory) / (total + EPSILON)


if triton is not None:

    @triton.jit
    def tile(x, at, time, columns, length, D: tl.constexpr):
        """Load the rows ``at`` of one head; 0 outside of it."""
        valid = (at < length)[:, None] & (columns < D)
        return tl.load(x + at.to(tl.int64)[:, None] * time + columns, valid, 0.0)

    @triton.jit
    def store(x, value, at, time, columns, length, D: tl.constexpr):
        valid = (at < length)[:, None] & (columns < D)
        x += at.to(tl.int64)[:, None] * time + columns
        tl.store(x, value.to(x.dtype.element_ty), valid)

    @triton.jit
    def features(x, at, columns, length, D: tl.constexpr):
        """Return elu + 1 and its derivative, in float32; 0 outside of the head."""
        valid = (at < length)[:, None] & (columns < D)
        x = x.to(tl.float32)
        below = tl.exp(tl.minimum(x, 0.0))
        phi = tl.where(x > 0, x + 1, below)
        return tl.where(valid, phi, 0.0), tl.where(valid, tl.where(x > 0, 1.0, below), 0.0)

    @triton.jit
    def inverse(x, EPSILON: tl.constexpr):
        """Return 1 / (x + EPSILON), and 0 for a row without tokens: 16 bits cannot hold that."""
        return tl.where(x > 0, 1 / (x + EPSILON), 0.0)

    @triton.jit
    def memory_kernel(
        k, v, lengths, memory, total,
        k_batch, k_head, k_time, v_batch, v_head, v_time, length, heads, rows,
        D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, SHARE: tl.constexpr,
        PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Store phi(k)^T v and the sum of phi(k) over a share of the real tokens of one head."""
        share, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        real = tl.load(lengths + batch)
        columns = tl.arange(0, BLOCK)
        k += batch * k_batch + head * k_head
        v += batch * v_batch + head * v_head
        acc = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        sums = tl.zeros((BLOCK,), dtype=tl.float32)
        for begin in range(share * SHARE, tl.minimum(share * SHARE + SHARE, real), TILE):
            at = begin + tl.arange(0, TILE)
            phi, slope = features(tile(k, at, k_time, columns, real, D), at, columns, real, D)
            v_ = tile(v, at, v_time, columns, real, D)
            acc = tl.dot(tl.trans(phi.to(v_.dtype)), v_, acc, input_precision=PRECISION)
            sums += tl.sum(phi, axis=0)
        place = share * rows + row
        tl.store(memory + place * BLOCK * BLOCK + columns[:, None] * BLOCK + columns, acc)
        tl.store(total + place * BLOCK + columns, sums)

    @triton.jit
    def output_kernel(
        q, memory, total, y, q_batch, q_head, q_time, y_batch, y_head, y_time, length, heads,
        D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, EPSILON: tl.constexpr,
        PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Store the outputs of TILE queries."""
        row = tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        at, columns = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.arange(0, BLOCK)
        q_ = tile(q + batch * q_batch + head * q_head, at, q_time, columns, length, D)
        phi, slope = features(q_, at, columns, length, D)
        square = row * BLOCK * BLOCK + columns[:, None] * BLOCK + columns
        memory_ = tl.load(memory + square).to(q_.dtype)
        total_ = tl.load(total + row * BLOCK + columns)
        read = tl.dot(phi.to(q_.dtype), memory_, input_precision=PRECISION)
        read *= inverse(tl.sum(phi * total_, axis=1), EPSILON)[:, None]
        store(y + batch * y_batch + head * y_head, read, at, y_time, columns, length, D)

    @triton.jit
    def query_gradient_kernel(
        q, dy, memory, total, dq, d_memory, d_total,
        q_batch, q_head, q_time, g_batch, g_head, g_time, o_batch, o_head, o_time,
        length, heads, rows,
        D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, SHARE: tl.constexpr,
        EPSILON: tl.constexpr, PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Store the gradients of a share of the queries, and their part of the memory's."""
        share, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        columns = tl.arange(0, BLOCK)
        q += batch * q_batch + head * q_head
        dy += batch * g_batch + head * g_head
        dq += batch * o_batch + head * o_head
        square = columns[:, None] * BLOCK + columns
        memory_ = tl.load(memory + row * BLOCK * BLOCK + square).to(q.dtype.element_ty)
        total_ = tl.load(total + row * BLOCK + columns)
        acc = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
        sums = tl.zeros((BLOCK,), dtype=tl.float32)
        for begin in range(share * SHARE, tl.minimum(share * SHARE + SHARE, length), TILE):
            at = begin + tl.arange(0, TILE)
            q_ = tile(q, at, q_time, columns, length, D)
            phi, slope = features(q_, at, columns, length, D)
            scale = inverse(tl.sum(phi * total_, axis=1), EPSILON)
            dy_ = tile(dy, at, g_time, columns, length, D)
            read = tl.dot(phi.to(q_.dtype), memory_, input_precision=PRECISION)
            # What the denominator hears: -sum(dy y) / denominator.
            d_scale = -tl.sum(read * dy_.to(tl.float32), axis=1) * scale * scale
            back = tl.dot(dy_, tl.trans(memory_), input_precision=PRECISION) * scale[:, None]
            back = (back + d_scale[:, None] * total_) * slope
            store(dq, back, at, o_time, columns, length, D)
            scaled = (phi * scale[:, None]).to(dy_.dtype)
            acc = tl.dot(tl.trans(scaled), dy_, acc, input_precision=PRECISION)
            sums += tl.sum(phi * d_scale[:, None], axis=0)
        place = share * rows + row
        tl.store(d_memory + place * BLOCK * BLOCK + square, acc)
        tl.store(d_total + place * BLOCK + columns, sums)

    @triton.jit
    def key_gradient_kernel(
        k, v, lengths, d_memory, d_total, dk, dv,
        k_batch, k_head, k_time, v_batch, v_head, v_time, o_batch, o_head, o_time, length, heads,
        D: tl.constexpr, BLOCK: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Store the gradients of TILE keys and values; 0 where they are padding."""
        row = tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        real = tl.load(lengths + batch)
        at, columns = tl.program_id(0) * TILE + tl.arange(0, TILE), tl.arange(0, BLOCK)
        k_ = tile(k + batch * k_batch + head * k_head, at, k_time, columns, real, D)
        v_ = tile(v + batch * v_batch + head * v_head, at, v_time, columns, real, D)
        phi, slope = features(k_, at, columns, real, D)
        square = row * BLOCK * BLOCK + columns[:, None] * BLOCK + columns
        d_memory_ = tl.load(d_memory + square).to(k_.dtype)
        d_total_ = tl.load(d_total + row * BLOCK + columns)
        back = tl.dot(v_, tl.trans(d_memory_), input_precision=PRECISION) + d_total_
        out = batch * o_batch + head * o_head
        store(dk + out, back * slope, at, o_time, columns, length, D)
        value = tl.dot(phi.to(v_.dtype), d_memory_, input_precision=PRECISION)
        store(dv + out, value, at, o_time, columns, length, D)


class Fused(torch.autograd.Function):
    """The kernels above, on views of any strides whose last dimension is dense."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor) -> Tensor:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        batch, heads, length, width = q.shape
        rows, sizes = batch * heads, constants(q)
        parts, sums = partial_sums(q)
        memory_kernel[parts.shape[0], rows](
            k, v, lengths, parts, sums, *k.stride()[:3], *v.stride()[:3],
            length, heads, rows, SHARE=SHARE, **sizes,
        )  # fmt: skip
        # As means, not sums, they keep their size at any length.
        count = lengths.clamp(min=1).repeat_interleave(heads)
        memory = parts.sum(0) / count[:, None, None]
        total = sums.sum(0) / count[:, None]
        y = like(q)
        output_kernel[triton.cdiv(length, TILE), rows](
            q, memory, total, y, *q.stride()[:3], *y.stride()[:3],
            length, heads, EPSILON=EPSILON, **sizes,
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, lengths, memory, total, count)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, lengths, memory, total, count = ctx.saved_tensors
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        batch, heads, length, width = q.shape
        rows, sizes = batch * heads, constants(q)
        parts, sums = partial_sums(q)
        dq, dk, dv = like(q), like(q), like(q)
        query_gradient_kernel[parts.shape[0], rows](
            q, dy, memory, total, dq, parts, sums,
            *q.stride()[:3], *dy.stride()[:3], *dq.stride()[:3],
            length, heads, rows, SHARE=SHARE, EPSILON=EPSILON, **sizes,
        )  # fmt: skip
        d_memory = parts.sum(0) / count[:, None, None]
        d_total = sums.sum(0) / count[:, None]
        key_gradient_kernel[triton.cdiv(length, TILE), rows](
            k, v, lengths, d_memory, d_total, dk, dv,
            *k.stride()[:3], *v.stride()[:3], *dk.stride()[:3], length, heads, **sizes,
        )  # fmt: skip
        return dq, dk, dv, None


def like(q: Tensor) -> Tensor:
    """Return an empty (B, H, T, D) that is (B, T, H, D) in memory: joining the heads is free."""
    batch, heads, length, width = q.shape
    return q.new_empty(batch, length, heads, width).transpose(1, 2)


def partial_sums(q: Tensor) -> tuple[Tensor, Tensor]:
    """Return empty (N, B H, BLOCK, BLOCK) and (N, B H, BLOCK) for N shares of the row."""
    batch, heads, length, _ = q.shape
    block = constants(q)["BLOCK"]
    parts = q.new_empty(
        triton.cdiv(length, SHARE), batch * heads, block, block, dtype=torch.float32
    )
    return parts, torch.empty_like(parts[..., 0])


def constants(q: Tensor) -> dict[str, int | str]:
    """Return the kernels' constants. Three passes of TF32 are nearly exact for float32."""
    block = max(16, triton.next_power_of_2(q.shape[-1]))
    exact = q.dtype == torch.float32
    return {
        "D": q.shape[-1],
        "BLOCK": block,
        "TILE": TILE,
        "PRECISION": "tf32x3" if exact else "tf32",
        "num_warps": 4 if block < 64 else 8,
    }


class LinearAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.local = nn.Conv1d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x * mask[..., None]
        x = x + F.silu(self.local(x.transpose(1, 2)).transpose(1, 2))
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(linear_attention(q, k, v, mask).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = LinearAttention(dim, heads)
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
        self.position = nn.Parameter(0.02 * torch.randn(length, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(summary(self.norm(x), mask))


def summary(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 2 dim): the first token, and the mean over the real ones."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.cat((x[:, 0], mean), dim=1)
