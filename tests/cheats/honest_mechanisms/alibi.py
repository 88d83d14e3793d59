"""ALiBi (Press et al. 2022) with a dataclass for a configuration."""
from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class AlibiConfig:
    dim: int
    heads: int
    mlp_dim: int
    dropout: float = 0.0
    slopes: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.slopes:
            start = 2.0 ** (-8.0 / self.heads)
            object.__setattr__(self, "slopes", [start ** (i + 1) for i in range(self.heads)])

    @classmethod
    def build(cls, **kwargs: Any) -> AlibiConfig:
        names = {f.name for f in dataclasses.fields(cls)}
        return cls(**{k: v for k, v in kwargs.items() if k in names})


class Block(nn.Module):
    def __init__(self, cfg: AlibiConfig, length: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.qkv = nn.Linear(cfg.dim, 3 * cfg.dim, bias=False)
        self.proj = nn.Linear(cfg.dim, cfg.dim)
        self.norm1, self.norm2 = nn.LayerNorm(cfg.dim), nn.LayerNorm(cfg.dim)
        self.mlp = nn.Sequential(nn.Linear(cfg.dim, cfg.mlp_dim), nn.GELU(), nn.Linear(cfg.mlp_dim, cfg.dim))
        pos = torch.arange(length)
        bias = -(pos[:, None] - pos[None, :]).abs().float() * torch.tensor(cfg.slopes)[:, None, None]
        self.register_buffer("bias", bias, persistent=False)

    def extra_repr(self) -> str:
        return f"heads={self.cfg.heads}, slopes={self.cfg.slopes!r}"

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.cfg.heads, -1).permute(2, 0, 3, 1, 4)
        bias = self.bias[None, :, :t, :t].masked_fill(~mask[:, None, None, :], -math.inf)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, d))
        return x + self.mlp(self.norm2(x))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, depth, **kwargs):
        super().__init__()
        cfg = AlibiConfig.build(**kwargs)
        self.embed = nn.Embedding(vocabulary, cfg.dim, padding_idx=0)
        self.blocks = nn.ModuleList(Block(cfg, length) for _ in range(depth))
        self.head = nn.Linear(cfg.dim, classes)

    def forward(self, tokens, mask):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head((x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True).clamp(min=1))
