"""Gated linear attention in chunks, recomputed in the backward pass."""
from functools import partial
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
import torch.nn.functional as F


def chunk_gla(q, k, v, log_gate, chunk: int):
    """q, k, v: (B, H, T, D); log_gate: (B, H, T, D), at most 0."""
    B, H, T, D = q.shape
    state = q.new_zeros(B, H, D, v.shape[-1])
    outputs = []
    for start in range(0, T, chunk):
        qc, kc, vc, gc = (z[:, :, start : start + chunk] for z in (q, k, v, log_gate))
        cum = gc.cumsum(dim=2)
        inner = (qc * cum.exp()) @ (kc * (-cum).exp()).transpose(-1, -2)
        outputs.append(inner.tril() @ vc + (qc * cum.exp()) @ state)
        rest = cum[:, :, -1:]
        state = state * rest.exp().transpose(-1, -2) + (kc * (rest - cum).exp()).transpose(-1, -2) @ vc
    return torch.cat(outputs, dim=2)


class GatedLinearAttention(nn.Module):
    def __init__(self, hidden_size: int, num_heads: int, gate_low_rank: int = 4, chunk: int = 4):
        super().__init__()
        self.num_heads, self.chunk = num_heads, chunk
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.gk = nn.Sequential(nn.Linear(hidden_size, gate_low_rank, bias=False), nn.Linear(gate_low_rank, hidden_size))
        self.g = nn.Linear(hidden_size, hidden_size)
        self.o = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x, mask):
        heads = partial(torch.unflatten, dim=-1, sizes=(self.num_heads, -1))
        gate = F.logsigmoid(self.gk(x)) / 16 * mask[..., None]
        q, k, v, gk = (heads(z).transpose(1, 2) for z in (*self.qkv(x).chunk(3, -1), gate))
        k = k * mask[:, None, :, None]
        if self.training:
            o = checkpoint(chunk_gla, q, k, v, gk, self.chunk, use_reentrant=False)
        else:
            o = chunk_gla(q, k, v, gk, self.chunk)
        o = F.rms_norm(o, o.shape[-1:]).transpose(1, 2).flatten(2)
        return self.o(o * F.silu(self.g(x)))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embeddings = nn.Embedding(vocabulary, dim)
        self.mixers = nn.ModuleList([GatedLinearAttention(dim, heads) for _ in range(depth)])
        self.mlps = nn.ModuleList([nn.Sequential(nn.Linear(dim, mlp_dim), nn.SiLU(), nn.Linear(mlp_dim, dim)) for _ in range(depth)])
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        h = self.embeddings(tokens)
        for mixer, mlp in zip(self.mixers, self.mlps):
            h = h + mixer(self.norm(h), mask)
            h = h + mlp(self.norm(h))
        last = mask.sum(1) - 1
        return self.head(h[torch.arange(len(h), device=h.device), last])
