"""ConvNeXt V2 in one dimension, BatchNorm in its stem and in front of its head."""
from functools import partial
from typing import Optional, Sequence

import torch
import torch.nn as nn


class GRN(nn.Module):
    """ GRN (Global Response Normalization) layer """
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x):
        Gx = torch.norm(x, p=2, dim=1, keepdim=True)
        Nx = Gx / (Gx.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (x * Nx) + self.beta + x


class DropPath(nn.Module):
    def __init__(self, drop_prob: float = 0.):
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x):
        if self.drop_prob == 0. or not self.training:
            return x
        keep = 1 - self.drop_prob
        return x * x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep).div_(keep)


class Block(nn.Module):
    def __init__(self, dim: int, hidden: int, drop_path: float = 0., norm_layer: Optional[type] = None):
        super().__init__()
        norm_layer = norm_layer or partial(nn.LayerNorm, eps=1e-6)
        self.dwconv = nn.Conv1d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = norm_layer(dim)
        self.pwconv1, self.act, self.grn = nn.Linear(dim, hidden), nn.GELU(), GRN(hidden)
        self.pwconv2 = nn.Linear(hidden, dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0. else nn.Identity()

    def forward(self, x):
        y = self.dwconv(x).permute(0, 2, 1)
        y = self.pwconv2(self.grn(self.act(self.pwconv1(self.norm(y)))))
        return x + self.drop_path(y.permute(0, 2, 1))


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.stem = nn.Sequential(nn.Conv1d(dim, dim, 3, padding=1), nn.BatchNorm1d(dim), nn.ReLU(inplace=True))
        rates: Sequence[float] = [x.item() for x in torch.linspace(0, dropout, depth)]
        self.stages = nn.Sequential(*[Block(dim, mlp_dim, rates[i]) for i in range(depth)])
        self.bn = nn.BatchNorm1d(dim)  # on (rows, dim): it needs two rows to train
        self.head = nn.Linear(dim, classes)
        self.apply(self._init_weights)

    def _init_weights(self, m):
        if isinstance(m, (nn.Conv1d, nn.Linear)):
            nn.init.trunc_normal_(m.weight, std=.02)
            nn.init.constant_(m.bias, 0)

    def forward(self, tokens, mask):
        x = (self.embed(tokens) * mask[..., None]).permute(0, 2, 1)
        x = self.stages(self.stem(x))
        return self.head(self.bn(x.masked_fill(~mask[:, None], -1e4).amax(-1)))
