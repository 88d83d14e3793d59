"""BigBird's three patterns in one mask: window, random blocks, global tokens."""
import itertools
import random
import warnings

import torch
from torch import nn


def bigbird_mask(length: int, block: int = 4, n_random: int = 1, n_global: int = 1, seed: int = 0):
    rng = random.Random(seed)
    n = -(-length // block)
    if n < 3:
        warnings.warn(f"only {n} blocks: that is full attention", stacklevel=2)
    keep = torch.zeros(n, n, dtype=torch.bool)
    for i, j in itertools.product(range(n), repeat=2):
        keep[i, j] = abs(i - j) <= 1
    for i in range(n):
        for j in rng.sample(range(n), n_random):
            keep[i, j] = True
    globals = slice(0, n_global)
    keep[globals] = True
    keep[:, globals] = True
    return keep.repeat_interleave(block, 0).repeat_interleave(block, 1)[:length, :length]


class BigBirdLayer(nn.TransformerEncoderLayer):
    """A layer of torch's own; only the mask is ours."""

    def __init__(self, dim, heads, mlp_dim, dropout, allowed):
        super().__init__(dim, heads, mlp_dim, dropout, batch_first=True, norm_first=True)
        self.register_buffer("blocked", ~allowed, persistent=False)

    def forward(self, src, padding):
        t = src.shape[1]
        return super().forward(src, src_mask=self.blocked[:t, :t], src_key_padding_mask=padding)


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.embed = nn.Embedding(vocabulary, dim)
        self.pos = nn.Embedding(length + 1, dim)
        allowed = bigbird_mask(length + 1)
        self.layers = nn.ModuleList([BigBirdLayer(dim, heads, mlp_dim, dropout, allowed) for _ in range(depth)])
        self.head = nn.Linear(dim, classes)
        nn.init.trunc_normal_(self.cls, std=0.02)

    def forward(self, tokens, mask):
        x = torch.cat([self.cls.expand(len(tokens), -1, -1), self.embed(tokens)], dim=1)
        x = x + self.pos.weight[: x.shape[1]]
        padding = nn.functional.pad(~mask, (1, 0), value=False)
        for layer in self.layers:
            x = layer(x, padding)
        return self.head(x[:, 0])
