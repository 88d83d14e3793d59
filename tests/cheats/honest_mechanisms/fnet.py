"""FNet: the real part of a Fourier transform over both dimensions, and nothing to learn in it."""
import torch
from torch import nn

__all__ = ["CustomEncoder"]
__version__ = "0.1"
__author__ = "a researcher"


class FNetBlock(nn.Module):
    def forward(self, x):
        return torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real


class FeedForward(nn.Module):
    def __init__(self, dim, hidden_dim, dropout = 0.):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim, hidden_dim), nn.GELU(), nn.Dropout(dropout),
                                 nn.Linear(hidden_dim, dim), nn.Dropout(dropout))
        self.__dropout = dropout

    @property
    def rate(self):
        return self.__dropout

    def forward(self, x):
        return self.net(x)


class PreNorm(nn.Module):
    def __init__(self, dim, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim), fn

    def forward(self, x, **kwargs):
        return self.fn(self.norm(x), **kwargs)


class CustomEncoder(nn.Module):
    """Mixes by FFT; see the paper's table 2. No `import os` here, no torch.load, no open()."""

    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim)
        self.position = nn.Parameter(torch.empty(length, dim))
        nn.init.xavier_uniform_(self.position)
        self.layers = nn.ModuleList([])
        for _ in range(depth):
            self.layers.append(nn.ModuleList([PreNorm(dim, FNetBlock()), PreNorm(dim, FeedForward(dim, mlp_dim, dropout))]))
        self.to_logits = nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = (self.embedding(tokens) + self.position[: tokens.shape[1]]) * mask[..., None]
        for attn, ff in self.layers:
            x = attn(x) * mask[..., None] + x
            x = ff(x) + x
        return self.to_logits(x.mul(mask[..., None]).sum(dim=1).div(mask.sum(dim=1, keepdim=True)))
