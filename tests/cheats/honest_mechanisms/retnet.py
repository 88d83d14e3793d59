"""Retention in its parallel form; an abstract base, an enum, and a string for each."""
import abc
import enum

import torch
from torch import nn


class Form(enum.Enum):
    PARALLEL = enum.auto()
    RECURRENT = enum.auto()

    def __str__(self) -> str:
        return self.name.lower()


class Mixer(nn.Module, abc.ABC):
    @abc.abstractmethod
    def mix(self, q, k, v, decay): ...

    @property
    def form(self) -> Form:
        return Form.PARALLEL


class Retention(Mixer):
    def mix(self, q, k, v, decay):
        t = q.shape[2]
        n = torch.arange(t, device=q.device)
        distance = (n[:, None] - n[None]).abs()  # both ways: this is an encoder
        d = decay.view(-1, 1, 1) ** distance
        scores = q @ k.mT * d
        return scores / scores.abs().sum(-1, keepdim=True).clamp(min=1) @ v


class RetNetBlock(nn.Module):
    def __init__(self, dim, heads, mlp_dim, mixer: Mixer):
        super().__init__()
        self.heads, self.mixer = heads, mixer
        self.q, self.k, self.v, self.g, self.o = (nn.Linear(dim, dim, bias=False) for _ in range(5))
        self.register_buffer("decay", 1 - 2.0 ** (-2 - torch.arange(heads)))
        self.group_norm = nn.GroupNorm(heads, dim)
        self.ffn = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))
        self.ln = nn.LayerNorm(dim)

    def __repr__(self) -> str:
        return f"{self.__class__.__qualname__}({self.mixer.form}, heads={self.heads})"

    def forward(self, x, mask):
        y = self.ln(x)
        split = [f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)]
        q, k, v = split[0], split[1] * split[1].shape[-1] ** -0.5 * mask[:, None, :, None], split[2]
        out = self.mixer.mix(q, k, v, self.decay).transpose(1, 2).flatten(2)
        out = self.group_norm(out.flatten(0, 1)).view_as(out)
        x = x + self.o(nn.functional.silu(self.g(y)) * out)
        return x + self.ffn(x)


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        mixer = Retention()
        self.blocks = nn.ModuleList([RetNetBlock(dim, heads, mlp_dim, mixer) for _ in range(depth)])
        self.head = nn.Linear(dim, classes, bias=False)

    def forward(self, tokens, mask):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(x.masked_fill(~mask[..., None], 0.0).sum(1) / mask.sum(1, keepdim=True))
