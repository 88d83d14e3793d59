"""Transformer with rotary positions, RMS norms and a gated MLP: attention that sees distances.

Su et al. 2021, RoFormer (arXiv 2104.09864): queries and keys are turned by angles that grow with
the position, so a score depends on the distance alone. RMS norm: Zhang, Sennrich 2019 (arXiv
1910.07467); SwiGLU: Shazeer 2020 (arXiv 2002.05202), at the size that keeps the parameters.
Rotary positions bring Transformers close to state spaces on these tasks (arXiv 2501.14850).
Time O(T^2 d), memory O(T d) with the fused kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BASE = 10_000.0


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


def rotary_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, dropout: float = 0.0) -> Tensor:
    """Return attention with rotary positions for (B, H, T, D) over the keys in mask (B, T)."""
    return F.scaled_dot_product_attention(rotate(q), rotate(k), v, mask[:, None, None, :], dropout)


class RotaryAttention(nn.Module):
    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = rotary_attention(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.out(y.transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        width = max(1, 2 * mlp_dim // 3)
        self.up, self.down = (
            nn.Linear(dim, 2 * width, bias=False),
            nn.Linear(width, dim, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(x).chunk(2, dim=-1)
        return self.down(value * F.silu(gate))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.mixer = RotaryAttention(dim, heads, dropout)
        self.mlp = GatedMLP(dim, mlp_dim)
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
        self.norm = nn.RMSNorm(dim)
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
