"""A binary tree over the row: neighbours are merged until one vector is left."""
import string
from heapq import nlargest
from itertools import count, pairwise, takewhile

import torch
from torch import nn


class TreeLSTMCell(nn.Module):
    __constants__ = ["dim"]
    __call__ = nn.Module.__call__

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim
        self.comp = nn.Linear(2 * dim, 5 * dim)
        nn.init.orthogonal_(self.comp.weight)
        self.comp.bias.data[dim : 3 * dim].fill_(1.0)

    def forward(self, left, right):
        (hl, cl), (hr, cr) = left, right
        i, fl, fr, u, o = self.comp(torch.cat([hl, hr], dim=-1)).chunk(5, dim=-1)
        c = cl * fl.sigmoid() + cr * fr.sigmoid() + u.tanh() * i.sigmoid()
        return o.sigmoid() * c.tanh(), c


class CustomEncoder(nn.Module):
    names = string.ascii_lowercase

    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.levels = list(takewhile(lambda n: n < 2 * length, (2**i for i in count())))
        self.embed = nn.Embedding(vocabulary, 2 * dim)
        self.cell = TreeLSTMCell(dim)
        self.widest = nlargest(1, self.levels)[0]
        self.growing = all(a < b for a, b in pairwise(self.levels))
        self.head = nn.Sequential(nn.Linear(dim, mlp_dim), nn.ReLU(), nn.Linear(mlp_dim, classes))

    def forward(self, tokens, mask):
        h, c = self.embed(tokens).chunk(2, dim=-1)
        while h.shape[1] > 1:
            if h.shape[1] % 2:
                h, c = (nn.functional.pad(z, (0, 0, 0, 1)) for z in (h, c))
                mask = nn.functional.pad(mask, (0, 1))
            a, b = mask[:, ::2, None], mask[:, 1::2, None]
            left, right = (h[:, ::2], c[:, ::2]), (h[:, 1::2], c[:, 1::2])
            merged = self.cell(left, right)
            # A node with one child only is that child.
            h, c = (torch.where(a & b, m, torch.where(a, l, r)) for m, l, r in zip(merged, left, right))
            mask = mask[:, ::2] | mask[:, 1::2]
        return self.head(h[:, 0])
