"""Gated linear recurrence in both directions (Mamba-2 and gated linear attention), chunked.

A state per head, a matrix, decays by a factor that depends on the token, and takes in its key and
value; the query reads it. Dao, Gu 2024, Mamba-2 (arXiv 2405.21060); Yang et al. 2023, GLA (arXiv
2312.06635); both directions as one quasi-separable matrix: Hwang et al. 2024, Hydra (arXiv
2407.09941). Within a chunk of C tokens it is masked attention, between chunks the states are
handed on. Time O(T (C + d / heads) d), memory O(T d). On a GPU with Triton: two kernels forwards,
three backwards, which recompute the states instead of keeping them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

try:
    import triton
    import triton.language as tl
except ImportError:  # the plain form below serves without it
    triton = None

CHUNK = 64
WIDEST = 256  # bytes of a head: the tiles of wider ones do not fit into shared memory
CONVOLUTION = 5
PROGRAMS = 256  # keep a GPU of 132 multiprocessors busy


def gated_recurrence(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Return y_i = sum_j W_ij (q_i k_j) v_j for q, k, v (B, T, H, D) and log_decay (B, T, 2, H).

    With f = log_decay[:, :, 0] and b = log_decay[:, :, 1], none of them positive,
    W_ij = exp(sum_{m = j + 1 .. i} f_m) for j <= i, and exp(sum_{m = i .. j - 1} b_m) for j > i.
    These are two recurrences, S_i = e^{f_i} S_{i-1} + k_i v_i^T and
    R_i = e^{b_i} (R_{i+1} + k_{i+1} v_{i+1}^T), read as q_i (S_i + R_i).
    """
    fused = triton is not None and q.is_cuda and q.shape[-1] * q.element_size() <= WIDEST
    if fused and q.dtype in (torch.float32, torch.bfloat16, torch.float16):
        return Fused.apply(q, k, v, log_decay)
    return chunked(q, k, v, log_decay)


def chunked(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """The plain form: matrix products only, no loop over time."""
    batch, length, heads, width = q.shape
    count = math.ceil(length / CHUNK)
    missing = (0, 0, 0, 0, 0, count * CHUNK - length)

    def cut(x: Tensor) -> Tensor:
        return F.pad(x, missing).unflatten(1, (count, CHUNK))

    q, k, v = (cut(x).permute(0, 3, 1, 2, 4) for x in (q, k, v))  # (B, H, N, C, D)
    f, b = cut(log_decay).permute(3, 0, 4, 1, 2)  # (B, H, N, C) each
    from_start, before = f.cumsum(-1), b.cumsum(-1) - b
    total_f, total_b = from_start[..., -1:], before[..., -1:] + b[..., -1:]

    place = torch.arange(CHUNK, device=q.device)
    forwards = from_start[..., :, None] - from_start[..., None, :]
    backwards = before[..., None, :] - before[..., :, None]
    # Chosen before the exponential: what is not chosen may overflow.
    weight = torch.where(place[:, None] >= place, forwards, backwards).exp()
    y = (q @ k.transpose(-1, -2) * weight) @ v

    written_f = (k * (total_f - from_start).exp()[..., None]).transpose(-1, -2) @ v
    written_b = (k * before.exp()[..., None]).transpose(-1, -2) @ v  # (B, H, N, D, D)
    carried_f = carry(total_f[..., 0]) @ written_f.flatten(-2)
    carried_b = carry(total_b[..., 0].flip(-1)).flip(-1, -2) @ written_b.flatten(-2)
    square = (width, v.shape[-1])
    y = y + (q @ carried_f.unflatten(-1, square)) * from_start.exp()[..., None]
    y = y + (q @ carried_b.unflatten(-1, square)) * (total_b - before).exp()[..., None]
    return y.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :length].to(v.dtype)


def carry(total: Tensor) -> Tensor:
    """Return (..., N, N): what is left in chunk i of what chunk j < i wrote; 0 for j >= i."""
    count = total.shape[-1]
    passed = F.pad(total.cumsum(-1), (1, 0))
    gap = passed[..., :-1, None] - passed[..., None, 1:]  # the chunks between j and i
    place = torch.arange(count, device=total.device)
    return gap.masked_fill(place[:, None] <= place, -torch.inf).exp()


if triton is not None:

    def safe(configs: list["triton.Config"], _: dict, **constants: int | str) -> list:
        # Triton 3.6 on Hopper: with 8 warps, narrow heads in float32 read shared memory that is
        # not theirs (compute-sanitizer, at 16 numbers a head).
        wide = constants["BLOCK"] >= 64 or constants["PRECISION"] == "tf32"
        return [c for c in configs if wide or c.num_warps == 4] or configs

    def tuned(*pairs: tuple[int, int]) -> Callable[["triton.JITFunction"], "triton.Autotuner"]:
        # Not many: each is compiled once in every fresh sandbox. The interpreter cannot choose.
        pairs = pairs[:1] if triton.knobs.runtime.interpret else pairs
        configs = [triton.Config({}, num_warps=warps, num_stages=n) for warps, n in pairs]
        # The batch is not in the key: the rounding of a row must not depend on its company.
        rule = {"early_config_prune": safe}
        return triton.autotune(configs, key=["length", "D"], prune_configs_by=rule)

    @triton.jit
    def tile(x, batch, time, head, at, columns, valid):
        """Load (C, BLOCK) of one head; 0 outside of the row and the head."""
        return tl.load(x + batch + head + at * time + columns, valid, 0.0)

    @triton.jit
    def decays(x, first, places, length, time):
        """Return a chunk's log decays, their inclusive cumulative sum, and their total."""
        at = first + places
        x = tl.load(x + at.to(tl.int64) * time, mask=at < length, other=0.0).to(tl.float32)
        return x, tl.cumsum(x, axis=0), tl.sum(x, axis=0)

    @triton.jit
    def weights(g, h, places):
        """Return W within a chunk, from the sums up to (g) and before (h) each place."""
        lower = places[:, None] >= places
        return tl.exp(tl.where(lower, g[:, None] - g, h - h[:, None]))

    @tuned((4, 3), (8, 3))
    @triton.jit
    def states_kernel(
        left, right, decay, states,
        l_batch, l_time, l_head, r_batch, r_time, r_head, d_batch, d_time, d_way, d_head,
        length, chunks, heads, bh,
        D: tl.constexpr, BLOCK: tl.constexpr, PART: tl.constexpr, C: tl.constexpr,
        GRADIENT: tl.constexpr, PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Store, for every chunk, the state that reaches it: forwards in half 0, backwards in 1.

        A chunk adds left^T right, weighted. With GRADIENT the same for the gradients of the
        states, which run the other way: left is q, right is dy.
        """
        part, row, way = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2)
        batch, head, way = row // heads, row % heads, way.to(tl.int64)
        decay += batch * d_batch + way * d_way + head * d_head
        states += (row + way * bh) * chunks * BLOCK * BLOCK
        places, rows = tl.arange(0, C), tl.arange(0, BLOCK)
        columns = part * PART + tl.arange(0, PART)
        to_the_end = (way == 0) != GRADIENT
        state = tl.zeros((BLOCK, PART), dtype=tl.float32)
        for i in range(chunks):
            chunk = tl.where(to_the_end, i, chunks - 1 - i)
            out = states + chunk.to(tl.int64) * BLOCK * BLOCK
            tl.store(out + rows[:, None] * BLOCK + columns, state.to(states.dtype.element_ty))
            x, cumulative, total = decays(decay, chunk * C, places, length, d_time)
            cumulative = tl.where(way == 0, cumulative, cumulative - x)
            weight = tl.exp(tl.where(to_the_end, total - cumulative, cumulative))
            at = chunk * C + places
            inside, at = (at < length)[:, None], at.to(tl.int64)[:, None]
            a = tile(left, batch * l_batch, l_time, head * l_head, at, rows, inside & (rows < D))
            valid = inside & (columns < D)
            b = tile(right, batch * r_batch, r_time, head * r_head, at, columns, valid)
            a = (a * weight[:, None]).to(b.dtype)
            state = tl.dot(tl.trans(a), b, state * tl.exp(total), input_precision=PRECISION)

    @tuned((4, 1), (8, 1))
    @triton.jit
    def output_kernel(
        q, k, v, decay, states, y,
        q_batch, q_time, q_head, k_batch, k_time, k_head, v_batch, v_time, v_head,
        d_batch, d_time, d_way, d_head, y_batch, y_time, y_head,
        length, chunks, heads, bh,
        D: tl.constexpr, BLOCK: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Store a chunk's outputs: its own tokens, and the states that reach it."""
        chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        places, columns = tl.arange(0, C), tl.arange(0, BLOCK)
        at = chunk * C + places
        valid = (at < length)[:, None] & (columns < D)
        at = at.to(tl.int64)[:, None]
        decay += batch * d_batch + head * d_head
        x, g, total = decays(decay, chunk * C, places, length, d_time)
        x, h, total = decays(decay + d_way, chunk * C, places, length, d_time)
        h -= x
        states += columns[:, None] * BLOCK + columns
        forwards = tl.load(states + (row * chunks + chunk) * BLOCK * BLOCK)
        backwards = tl.load(states + ((row + bh) * chunks + chunk) * BLOCK * BLOCK)

        q_ = tile(q, batch * q_batch, q_time, head * q_head, at, columns, valid)
        acc = tl.dot(q_, forwards, input_precision=PRECISION) * tl.exp(g)[:, None]
        acc += tl.dot(q_, backwards, input_precision=PRECISION) * tl.exp(total - h)[:, None]
        k_ = tile(k, batch * k_batch, k_time, head * k_head, at, columns, valid)
        scores = tl.dot(q_, tl.trans(k_), input_precision=PRECISION) * weights(g, h, places)
        v_ = tile(v, batch * v_batch, v_time, head * v_head, at, columns, valid)
        acc = tl.dot(scores.to(v_.dtype), v_, acc, input_precision=PRECISION)
        out = y + batch * y_batch + head * y_head + at * y_time + columns
        tl.store(out, acc.to(y.dtype.element_ty), valid)

    @tuned((8, 1), (4, 1))
    @triton.jit
    def gradient_kernel(  # noqa: PLR0915  # one pass over what was loaded is the point
        q, k, v, dy, decay, states, d_states, dq, dk, dv, d_decay,
        q_batch, q_time, q_head, k_batch, k_time, k_head, v_batch, v_time, v_head,
        y_batch, y_time, y_head, d_batch, d_time, d_way, d_head, o_batch, o_time, o_head,
        e_batch, e_time, e_way, e_head,
        length, chunks, heads, bh,
        D: tl.constexpr, BLOCK: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr,
    ):  # fmt: skip
        """Store a chunk's gradients.

        With P_ij the part of the loss's change that goes through W_ij, the gradient of f_t is the
        sum of all P_ij with j < t <= i, that of b_t the sum with i <= t < j. Each is put together
        of what stays in the chunk, comes in, goes out, and passes over it: no difference of large
        sums over the whole row, which would lose the small ones.
        """
        chunk, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
        batch, head = row // heads, row % heads
        places, columns = tl.arange(0, C), tl.arange(0, BLOCK)
        at = chunk * C + places
        inside = at < length
        valid = inside[:, None] & (columns < D)
        times = at.to(tl.int64)
        at = times[:, None]
        decay += batch * d_batch + head * d_head
        x, g, total_f = decays(decay, chunk * C, places, length, d_time)
        x, h, total_b = decays(decay + d_way, chunk * C, places, length, d_time)
        h -= x
        square = columns[:, None] * BLOCK + columns
        forwards = (row * chunks + chunk) * BLOCK * BLOCK + square
        backwards = ((row + bh) * chunks + chunk) * BLOCK * BLOCK + square
        out = batch * o_batch + head * o_head + at * o_time + columns

        q_ = tile(q, batch * q_batch, q_time, head * q_head, at, columns, valid)
        k_ = tile(k, batch * k_batch, k_time, head * k_head, at, columns, valid)
        v_ = tile(v, batch * v_batch, v_time, head * v_head, at, columns, valid)
        dy_ = tile(dy, batch * y_batch, y_time, head * y_head, at, columns, valid)

        weight = weights(g, h, places)
        scores = tl.dot(q_, tl.trans(k_), input_precision=PRECISION) * weight
        d_scores = tl.dot(dy_, tl.trans(v_), input_precision=PRECISION)
        flow = scores * d_scores
        flow_f = tl.where(places[:, None] > places, flow, 0.0)
        flow_b = tl.where(places[:, None] < places, flow, 0.0)
        ends_f = tl.sum(flow_f, axis=1) - tl.sum(flow_f, axis=0)
        ends_b = tl.sum(flow_b, axis=1) - tl.sum(flow_b, axis=0)
        scores = scores.to(q_.dtype)
        d_scores = (d_scores * weight).to(q_.dtype)

        # Stored one after the other, so that only one of the three is held at a time.
        s = tl.load(states + forwards)
        acc = tl.dot(dy_, tl.trans(s), input_precision=PRECISION) * tl.exp(g)[:, None]
        ends_f += tl.sum(acc * q_, axis=1)
        s = tl.load(states + backwards)
        part = tl.dot(dy_, tl.trans(s), input_precision=PRECISION) * tl.exp(total_b - h)[:, None]
        ends_b += tl.sum(part * q_, axis=1)
        acc = tl.dot(d_scores, k_, acc + part, input_precision=PRECISION)
        tl.store(dq + out, acc.to(dq.dtype.element_ty), valid)

        rest_f, rest_b = tl.exp(total_f - g)[:, None], tl.exp(h)[:, None]
        ds_f, ds_b = tl.load(d_states + forwards), tl.load(d_states + backwards)
        acc = tl.dot(v_, tl.trans(ds_f), input_precision=PRECISION) * rest_f
        starts_f = tl.sum(acc * k_, axis=1)
        part = tl.dot(v_, tl.trans(ds_b), input_precision=PRECISION) * rest_b
        starts_b = tl.sum(part * k_, axis=1)
        acc = tl.dot(tl.trans(d_scores), q_, acc + part, input_precision=PRECISION)
        tl.store(dk + out, acc.to(dk.dtype.element_ty), valid)

        acc = tl.dot(k_, ds_f, input_precision=PRECISION) * rest_f
        acc += tl.dot(k_, ds_b, input_precision=PRECISION) * rest_b
        acc = tl.dot(tl.trans(scores), dy_, acc, input_precision=PRECISION)
        tl.store(dv + out, acc.to(dv.dtype.element_ty), valid)

        s = tl.load(states + forwards).to(tl.float32)
        over_f = tl.exp(total_f) * tl.sum(tl.sum(s * ds_f.to(tl.float32), 1), 0)
        s = tl.load(states + backwards).to(tl.float32)
        over_b = tl.exp(total_b) * tl.sum(tl.sum(s * ds_b.to(tl.float32), 1), 0)
        # Sums over i >= t of what ends there, and over j < t of what starts there; and mirrored.
        d_f = tl.sum(ends_f, 0) - tl.cumsum(ends_f, 0) + ends_f + over_f
        d_f += tl.cumsum(starts_f, 0) - starts_f
        d_b = tl.cumsum(ends_b, 0) + over_b
        d_b += tl.sum(starts_b, 0) - tl.cumsum(starts_b, 0)
        d_decay += batch * e_batch + head * e_head + times * e_time
        tl.store(d_decay, d_f, inside)
        tl.store(d_decay + e_way, d_b, inside)


def strides(x: Tensor) -> tuple[int, ...]:
    """Return the strides of all dimensions but the last, which must be dense."""
    return x.stride()[:-1]


class Fused(torch.autograd.Function):
    """The kernels above; nothing of size T is kept for the backward pass but the inputs."""

    @staticmethod
    def states(left: Tensor, right: Tensor, log_decay: Tensor, gradient: bool) -> Tensor:
        """Return (2, B H, N, BLOCK, BLOCK), in the inputs' type."""
        batch, length, heads, width = left.shape
        chunks, block = triton.cdiv(length, CHUNK), max(16, triton.next_power_of_2(width))
        part = min(block, 64)
        while part > 16 and 2 * batch * heads * block // part < PROGRAMS:
            part //= 2  # columns of a state are independent
        out = left.new_empty(2, batch * heads, chunks, block, block)
        states_kernel[block // part, batch * heads, 2](
            left, right, log_decay, out,
            *strides(left), *strides(right), *log_decay.stride(),
            length, chunks, heads, batch * heads,
            D=width, BLOCK=block, PART=part, C=CHUNK, GRADIENT=gradient,
            PRECISION=precision(left),
        )  # fmt: skip
        return out

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
        q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
        batch, length, heads, width = q.shape
        states = Fused.states(k, v, log_decay, gradient=False)
        chunks, block = states.shape[2:4]
        y = q.new_empty(batch, length, heads, width)
        output_kernel[chunks, batch * heads](
            q, k, v, log_decay, states, y,
            *strides(q), *strides(k), *strides(v), *log_decay.stride(), *strides(y),
            length, chunks, heads, batch * heads,
            D=width, BLOCK=block, C=CHUNK, PRECISION=precision(q),
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, log_decay)
        return y

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, ...]:
        q, k, v, log_decay = ctx.saved_tensors
        batch, length, heads, width = q.shape
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        states = Fused.states(k, v, log_decay, gradient=False)
        d_states = Fused.states(q, dy, log_decay, gradient=True)
        chunks, block = states.shape[2:4]
        dq, dk, dv = (q.new_empty(batch, length, heads, width) for _ in range(3))
        d_decay = torch.empty_like(log_decay, memory_format=torch.contiguous_format)
        gradient_kernel[chunks, batch * heads](
            q, k, v, dy, log_decay, states, d_states, dq, dk, dv, d_decay,
            *strides(q), *strides(k), *strides(v), *strides(dy), *log_decay.stride(),
            *strides(dq), *d_decay.stride(),
            length, chunks, heads, batch * heads,
            D=width, BLOCK=block, C=CHUNK, PRECISION=precision(q),
        )  # fmt: skip
        return dq, dk, dv, d_decay


def precision(x: Tensor) -> str:
    """Return how products of float32 are taken: three passes of TF32 are nearly exact."""
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


class GatedRecurrence(nn.Module):
    """Short convolution, the recurrence in both directions, norm per head, gate."""

    def __init__(self, dim: int, heads: int, length: int) -> None:
        super().__init__()
        self.heads = heads
        self.local = nn.Conv1d(dim, dim, CONVOLUTION, padding=CONVOLUTION // 2, groups=dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.decay = nn.Linear(dim, 2 * heads)
        self.gate = nn.Linear(dim, dim)
        self.norm = nn.RMSNorm(dim // heads)
        self.out = nn.Linear(dim, dim)
        # The heads remember from 8 tokens to the whole row, in each direction.
        rate = torch.exp(-torch.linspace(math.log(8), math.log(max(16, length)), heads))
        with torch.no_grad():
            self.decay.bias.copy_(torch.log(torch.expm1(rate)).repeat(2))
            self.decay.weight.mul_(0.5)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None]
        local = self.local((x * real).transpose(1, 2)).transpose(1, 2)
        x = x + F.silu(local)
        qkv = F.silu(self.qkv(x)) * real  # padding writes nothing
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(2)
        log_decay = -F.softplus(self.decay(x).float()).unflatten(-1, (2, self.heads))
        y = gated_recurrence(q, k, v, log_decay)
        y = self.norm(y.float()).to(y.dtype).flatten(2)
        return self.out(y * F.silu(self.gate(x)))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, length: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = GatedRecurrence(dim, heads, length)
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
        self.blocks = nn.ModuleList(
            Block(dim, heads, length, mlp_dim, dropout) for _ in range(depth)
        )
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
