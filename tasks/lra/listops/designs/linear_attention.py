"""Linear attention behind a short depthwise convolution: no T x T matrix anywhere.

Katharopoulos et al. 2020 (arXiv 2006.16236): softmax is replaced by a positive feature map
elu(x) + 1, so keys and values are summed up once, in both directions, and each query reads the
sum. The convolution gives the sharp local view that the sum lacks. Time O(T d^2 / heads).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL = 5


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
        q, k = F.elu(q) + 1, (F.elu(k) + 1) * mask[:, None, :, None]
        memory = k.transpose(-1, -2) @ v  # (B, heads, d, d)
        total = q @ k.sum(dim=-2)[..., None]  # (B, heads, T, 1)
        y = (q @ memory) / (total + 1e-6)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention = LinearAttention(dim, heads)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.drop(self.attention(self.norm1(x), mask))
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
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        # The first token is the root operator: it stands where the answer belongs.
        return self.head(self.norm(x[:, 0]))
