"""Perceiver: a few latents read the row again and again; torch's own attention does the work."""
import math
import torch
from torch import nn, Tensor

def fourier_positions(length: int, bands: int) -> Tensor:
    p = torch.linspace(-1, 1, length)[:, None]
    freq = torch.logspace(0, math.log2(length / 2), bands, base=2)[None] * math.pi
    return torch.cat([p, torch.sin(p * freq), torch.cos(p * freq)], dim=-1)

class Attend(nn.Module):
    def __init__(self, dim, ctx_dim, heads, mlp_dim, dropout):
        super().__init__()
        self.ln_q, self.ln_kv = nn.LayerNorm(dim), nn.LayerNorm(ctx_dim)
        self.mha = nn.MultiheadAttention(dim, heads, dropout, kdim=ctx_dim, vdim=ctx_dim, batch_first=True)
        self.ff = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * mlp_dim), nn.GLU(), nn.Linear(mlp_dim, dim))
    def forward(self, x, context, padding=None):
        kv = self.ln_kv(context)
        out, _ = self.mha(self.ln_q(x), kv, kv, key_padding_mask=padding, need_weights=False)
        x = x + out
        return x + self.ff(x)

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout, latents=6, bands=4):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.register_buffer('pos', fourier_positions(length, bands), persistent=False)
        ctx = dim + self.pos.shape[-1]
        self.latents = nn.Parameter(torch.randn(latents, dim) * 0.02)
        self.reads = nn.ModuleList(Attend(dim, ctx, heads, mlp_dim, dropout) for _ in range(depth))
        self.thinks = nn.ModuleList(Attend(dim, dim, heads, mlp_dim, dropout) for _ in range(depth))
        self.out = nn.Linear(dim, classes)
    def forward(self, tokens, mask):
        x = self.embed(tokens)
        context = torch.cat([x, self.pos[: x.size(1)].expand(x.size(0), -1, -1)], dim=-1)
        z = self.latents.expand(x.size(0), -1, -1)
        for read, think in zip(self.reads, self.thinks):
            z = read(z, context, ~mask)
            z = think(z, z)
        return self.out(z.mean(1))
