"""Bidirectional diagonal state-space layers, computed as one long FFT convolution.

S4D, Gu et al. 2022 (arXiv 2206.11893), with the real initialisation A_n = -(n + 1): each channel
is a bank of decaying memories, here run from both ends, gated, and mixed. A state-space layer with
fixed coefficients is a convolution, so there is no loop over time. Time O(T log T d).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STATES = 8


class StateSpace(nn.Module):
    """Convolves (B, T, dim) with kernels K_t = sum_n C_n exp(-A_n dt)^t, one per direction."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Memories from 2 to 1,000 tokens long: the range S4 starts from.
        log_dt = torch.rand(2, dim, 1) * (math.log(0.5) - math.log(1e-3)) + math.log(1e-3)
        self.log_dt = nn.Parameter(log_dt)
        self.log_decay = nn.Parameter(torch.arange(1.0, STATES + 1).log().repeat(2, dim, 1))
        self.weight = nn.Parameter(torch.randn(2, dim, STATES))
        self.skip = nn.Parameter(torch.ones(dim))
        self.gate = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def kernel(self, length: int) -> Tensor:
        """Return both directions' kernels (2, dim, length)."""
        rate = (self.log_dt + self.log_decay).exp()
        time = torch.arange(length, device=rate.device)
        powers = torch.exp(-rate[..., None] * time)  # (2, dim, STATES, T)
        # The zero-order hold 1 - exp(-rate) keeps each memory's response below its weight.
        return torch.einsum("kdn,kdnt->kdt", self.weight * -torch.expm1(-rate), powers)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        u = (x * mask[..., None]).transpose(1, 2).float()
        length = u.shape[-1]
        forwards, backwards = self.kernel(length).float()
        # A kernel of 2T: the forward one from 0 on, the backward one wrapped round the end.
        kernel = F.pad(forwards, (0, length)) + F.pad(backwards.flip(-1), (length, 0))
        spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        y = torch.fft.irfft(spectrum, n=2 * length)[..., :length] + u * self.skip[:, None]
        y = y.transpose(1, 2).to(x.dtype)
        return self.out(F.gelu(y) * torch.sigmoid(self.gate(x)))


class Block(nn.Module):
    def __init__(self, dim: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = StateSpace(dim)
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
        self.blocks = nn.ModuleList(Block(dim, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask)
        # The first token is the root operator: it stands where the answer belongs.
        return self.head(self.norm(x[:, 0]))
