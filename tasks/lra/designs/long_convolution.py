"""Gated long convolutions with implicit filters (Hyena), in both directions, by FFT.

Poli et al. 2023, Hyena (arXiv 2302.10866), order 2; the filters as in Romero et al. 2021, CKConv
(arXiv 2102.02611): a small network with sine activations maps a position to every channel's filter
value there, under a window that decays at a rate of its own in each channel. Values are gated,
convolved along the whole row, and gated again. Parameters do not grow with T. Time O(T log T d),
memory O(T d).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BANDS = 8  # pairs of sine and cosine that describe a position
WIDTH = 32  # of the network that makes the filters
SHORT = 3


def two_sided_convolution(u: Tensor, forwards: Tensor, backwards: Tensor) -> Tensor:
    """Return y_t = sum_{s <= t} F_{t-s} u_s + sum_{s > t} B_{s-t-1} u_s for u (B, d, T), by FFT."""
    length = u.shape[-1]
    # A kernel of 2T: the forward one from 0 on, the backward one wrapped round the end.
    both = F.pad(forwards, (0, length)) + F.pad(backwards.flip(-1), (length, 0))
    spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(both, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length]


class Filters(nn.Module):
    """Two filters a channel, one per direction, as functions of the distance."""

    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.dim, self.length = dim, length
        self.enter = nn.Linear(2 * BANDS + 1, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.leave = nn.Linear(WIDTH, 2 * dim, bias=False)
        # Windows from 4 tokens to the whole row.
        rate = torch.linspace(math.log(1 / 4), math.log(1 / max(4, length)), dim)
        self.log_rate = nn.Parameter(rate.repeat(2))

    def forward(self, length: int) -> Tensor:
        """Return (2, dim, length)."""
        distance = torch.arange(length, device=self.log_rate.device, dtype=self.log_rate.dtype)
        # By the longest row, not by this one: a filter is the same whatever the padding.
        share = distance / self.length
        angle = 2 * math.pi * share[:, None] * torch.arange(1, BANDS + 1, device=share.device)
        x = torch.cat((share[:, None], angle.sin(), angle.cos()), dim=1)
        x = torch.sin(self.middle(torch.sin(4 * self.enter(x))))
        values = self.leave(x).T.unflatten(0, (2, self.dim))
        rate = self.log_rate.exp().view(2, self.dim, 1)
        # The root of the rate keeps the energy of a filter the same, however long its window.
        return values * torch.exp(-rate * distance) * rate.sqrt()


class LongConvolution(nn.Module):
    def __init__(self, dim: int, length: int) -> None:
        super().__init__()
        self.filters = Filters(dim, length)
        self.enter = nn.Linear(dim, 3 * dim)
        self.short = nn.Conv1d(3 * dim, 3 * dim, SHORT, padding=SHORT // 2, groups=3 * dim)
        self.skip = nn.Parameter(torch.ones(dim))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        mixed = self.enter(x) * mask[..., None]
        value, inner, outer = self.short(mixed.transpose(1, 2)).chunk(3, dim=1)
        with torch.autocast(x.device.type, enabled=False):
            # Masked again: the short filter has spilled over the end of the row.
            u = (value * inner * mask[:, None]).float()
            y = two_sided_convolution(u, *self.filters(u.shape[-1])) + u * self.skip[:, None]
        return self.out((outer * y).transpose(1, 2))


class Block(nn.Module):
    def __init__(self, dim: int, length: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = LongConvolution(dim, length)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(mlp_dim, dim)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.drop(self.mixer(self.norm1(x), mask))
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
        self.blocks = nn.ModuleList(Block(dim, length, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(summary(self.norm(x), mask))


def summary(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 2 dim): the first token, and the mean over the real ones."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.cat((x[:, 0], mean), dim=1)
