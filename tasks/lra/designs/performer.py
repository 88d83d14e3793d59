"""Performer: softmax attention estimated by positive random features, in linear time.

Choromanski et al. 2020 (arXiv 2009.14794). exp(q k) is the expectation of phi(q) phi(k) with
phi(x) = exp(w x - |x|^2 / 2) over Gaussian w; blocks of orthogonal w lower the variance. The
directions are drawn once, by a seed of their own, and stay: redrawing them would make answers
depend on chance. Time O(T m d) for m features a head, memory O(T m heads).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 2  # times the width of a head


def orthogonal_directions(count: int, width: int, seed: int) -> Tensor:
    """Return (count, width) Gaussian rows, orthogonal within each block of ``width`` of them."""
    draw = torch.Generator().manual_seed(seed)
    blocks = []
    for _ in range(math.ceil(count / width)):
        square = torch.randn(width, width, generator=draw, dtype=torch.float64)
        # The norm of a row of its own Gaussian, so that each row alone is Gaussian.
        norms = torch.randn(width, width, generator=draw, dtype=torch.float64).norm(dim=1)
        basis, triangle = torch.linalg.qr(square)
        # Without the signs the directions would lean to one side (Mezzadri, math-ph/0609050).
        basis = basis * triangle.diagonal().sign()
        blocks.append(basis.T * norms[:, None])
    return torch.cat(blocks)[:count].float()


def favor_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, directions: Tensor) -> Tensor:
    """Return softmax attention, estimated, for (B, H, T, D) over the keys in mask (B, T).

    ``directions`` is (m, D). Computed in float32 at least, whatever the autocast.
    """
    dtype = v.dtype
    with torch.autocast(q.device.type, enabled=False):
        if dtype in (torch.bfloat16, torch.float16):
            q, k, v = q.float(), k.float(), v.float()
        width = q.shape[-1]
        q, k = q * width**-0.25, k * width**-0.25
        log_q = q @ directions.T - q.square().sum(-1, keepdim=True) / 2
        log_k = k @ directions.T - k.square().sum(-1, keepdim=True) / 2
        log_k = log_k.masked_fill(~mask[:, None, :, None], -torch.inf)
        # What is taken off cancels between numerator and denominator: per query, and per row.
        phi_q = torch.exp(log_q - log_q.amax(dim=-1, keepdim=True).detach())
        phi_k = torch.exp(log_k - log_k.amax(dim=(-2, -1), keepdim=True).detach())
        total = phi_q @ phi_k.sum(dim=-2)[..., None]
        y = phi_q @ (phi_k.transpose(-1, -2) @ v) / total.clamp(min=1e-20)
    return y.to(dtype)


class PerformerAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        width = dim // heads
        self.register_buffer("directions", orthogonal_directions(FEATURES * width, width, seed=0))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = favor_attention(q, k, v, mask, self.directions)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = PerformerAttention(dim, heads)
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
        mask = F.pad(mask[:, 1:], (1, 0), value=True)  # an empty row is read as one token
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(summary(self.norm(x), mask))


def summary(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 2 dim): the first token, and the mean over the real ones."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.cat((x[:, 0], mean), dim=1)
