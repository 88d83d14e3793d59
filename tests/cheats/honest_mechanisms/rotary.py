"""Rotary positions (Su et al. 2021), in the einops style of lucidrains' repositories."""
import torch
from torch import nn, einsum
import torch.nn.functional as F
from einops import rearrange, repeat, reduce
from einops.layers.torch import Rearrange

def exists(val):
    return val is not None

def default(val, d):
    return val if exists(val) else d

def rotate_half(x):
    x1, x2 = rearrange(x, '... (d r) -> ... d r', r = 2).unbind(dim = -1)
    return rearrange(torch.stack((-x2, x1), dim = -1), '... d r -> ... (d r)')

class Attention(nn.Module):
    def __init__(self, dim, heads = 8, dim_head = None, dropout = 0.):
        super().__init__()
        dim_head = default(dim_head, dim // heads)
        self.heads, self.scale = heads, dim_head ** -0.5
        inv_freq = 1. / (10000 ** (torch.arange(0, dim_head, 2).float() / dim_head))
        self.register_buffer('inv_freq', inv_freq, persistent = False)
        self.to_qkv = nn.Sequential(nn.Linear(dim, heads * dim_head * 3, bias = False),
                                    Rearrange('b n (k h d) -> k b h n d', k = 3, h = heads))
        self.os = nn.ModuleList([nn.Linear(heads * dim_head, dim), nn.Dropout(dropout)])  # output stack

    def forward(self, x, mask = None):
        q, k, v = self.to_qkv(x)
        freqs = einsum('i, j -> i j', torch.arange(x.shape[1], device = x.device).type_as(x), self.inv_freq)
        freqs = repeat(freqs, 'n d -> n (d r)', r = 2)
        q, k = map(lambda t: t * freqs.cos() + rotate_half(t) * freqs.sin(), (q, k))
        sim = einsum('b h i d, b h j d -> b h i j', q, k) * self.scale
        if exists(mask):
            sim = sim.masked_fill(~rearrange(mask, 'b j -> b 1 1 j'), -torch.finfo(sim.dtype).max)
        out = rearrange(einsum('b h i j, b h j d -> b h i d', sim.softmax(dim = -1), v), 'b h n d -> b n (h d)')
        for layer in self.os:
            out = layer(out)
        return out

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.emb = nn.Embedding(vocabulary, dim)
        self.layers = nn.ModuleList([])
        for _ in range(depth):
            ff = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))
            self.layers.append(nn.ModuleList([nn.LayerNorm(dim), Attention(dim, heads, dropout = dropout), ff]))
        self.to_logits = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, classes))

    def forward(self, tokens, mask):
        x = self.emb(tokens)
        for norm, attn, ff in self.layers:
            x = attn(norm(x), mask = mask) + x
            x = ff(x) + x
        x = x * rearrange(mask, 'b n -> b n 1')
        return self.to_logits(reduce(x, 'b n d -> b d', 'sum') / mask.sum(dim = 1, keepdim = True))
