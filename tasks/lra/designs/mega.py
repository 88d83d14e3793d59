"""MEGA: a damped moving average of several dimensions a channel, then one head of gated attention.

Ma et al. 2022 (arXiv 2209.10655). The average, in both directions, gives every token its
surroundings; queries and keys are scaled and shifted copies of one small projection of it, values
come from the input; a reset gate and an update gate decide what of the attention enters. The
average is computed as a convolution by FFT. Without the published relative bias, which would need
the T x T matrix of scores: the average already tells order. Time O(T^2 d), memory O(T d).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AVERAGES = 8  # a channel and direction
WIDTH = 64  # of queries and keys, at most


def average_kernel(
    entry: Tensor, decay: Tensor, damping: Tensor, leave: Tensor, length: int
) -> Tensor:
    """Return K_t = sum_j leave_j entry_j a_j (1 - a_j d_j)^t, (..., length); all (..., AVERAGES).

    a = sigmoid(decay), d = sigmoid(damping).
    """
    a = decay.sigmoid()
    log_keep = torch.log1p(-a * damping.sigmoid())
    # t = inner t1 + t2, so that the T powers are products of a few.
    inner = 2 ** math.ceil(math.log2(max(1, length)) / 2)
    outer = math.ceil(length / inner)
    t2 = torch.arange(inner, device=a.device)
    t1 = torch.arange(outer, device=a.device) * inner
    left = (leave * entry * a)[..., None, :] * torch.exp(log_keep[..., None, :] * t1[:, None])
    right = torch.exp(log_keep[..., :, None] * t2)
    return (left @ right).flatten(-2)[..., :length]


def two_sided_convolution(u: Tensor, forwards: Tensor, backwards: Tensor) -> Tensor:
    """Return y_t = sum_{s <= t} F_{t-s} u_s + sum_{s > t} B_{s-t-1} u_s for u (B, d, T), by FFT."""
    length = u.shape[-1]
    # A kernel of 2T: the forward one from 0 on, the backward one wrapped round the end.
    both = F.pad(forwards, (0, length)) + F.pad(backwards.flip(-1), (length, 0))
    spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(both, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length]


class MovingAverage(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shape = (2, dim, AVERAGES)
        size = 2 * dim * AVERAGES
        # Flat, so that the shell does not pull them towards 0. Initialised as published.
        self.entry = nn.Parameter(torch.ones(size) * torch.tensor([1.0, -1.0]).repeat(size // 2))
        self.decay = nn.Parameter(0.2 * torch.randn(size))
        self.damping = nn.Parameter(0.2 * torch.randn(size))
        self.leave = nn.Parameter(torch.randn(size) / math.sqrt(AVERAGES))
        self.skip = nn.Parameter(torch.randn(dim))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            u = (x * mask[..., None]).transpose(1, 2).float()
            shaped = (
                p.view(self.shape) for p in (self.entry, self.decay, self.damping, self.leave)
            )
            forwards, backwards = average_kernel(*shaped, u.shape[-1])
            y = two_sided_convolution(u, forwards, backwards) + u * self.skip[:, None]
        return F.silu(y.transpose(1, 2)).to(x.dtype)


class GatedAttention(nn.Module):
    """The sub-layer with its own gated residual: it returns the new x, not what is added to it."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.width, self.dropout = min(WIDTH, dim), dropout
        self.norm = nn.LayerNorm(dim)
        self.average = MovingAverage(dim)
        self.shared = nn.Linear(dim, self.width)
        self.scales = nn.Parameter(torch.ones(2 * self.width))
        self.shifts = nn.Parameter(0.02 * torch.randn(2 * self.width))
        self.value = nn.Linear(dim, dim)
        self.gates = nn.Linear(dim, 3 * dim)
        self.attended = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm(x)
        surroundings = self.average(normed, mask)
        shared = F.silu(self.shared(surroundings))
        q, k = (shared.repeat(1, 1, 2) * self.scales + self.shifts).chunk(2, dim=-1)
        v = F.silu(self.value(normed))
        heard = F.scaled_dot_product_attention(
            q.to(v.dtype)[:, None],
            k.to(v.dtype)[:, None],
            v[:, None],
            mask[:, None, None, :],
            self.dropout if self.training else 0.0,
        )[:, 0]
        reset, update, hidden = self.gates(surroundings).chunk(3, dim=-1)
        candidate = F.silu(hidden + self.attended(heard * F.silu(reset)))
        update = torch.sigmoid(update)
        return x + update * (F.dropout(candidate, self.dropout, self.training) - x)


class Block(nn.Module):
    def __init__(self, dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mixer = GatedAttention(dim, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.mixer(x, mask)
        return x + self.drop(self.mlp(self.norm(x)))


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
        self.blocks = nn.ModuleList(Block(dim, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        mask = F.pad(mask[:, 1:], (1, 0), value=True)  # an empty row is read as one token
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(summary(self.norm(x), mask))


def summary(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 2 dim): the first token, and the mean over the real ones."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.cat((x[:, 0], mean), dim=1)
