"""Bidirectional diagonal state-space layers (S4D), computed as one long FFT convolution.

Gu et al. 2022 (arXiv 2206.11893) after S4 (arXiv 2111.00396): each channel has N complex states
that start at A_n = -1/2 + i pi n (S4D-Lin); zero-order hold; one set of states a direction. Fixed
coefficients make the layer a convolution, so there is no loop over time. The kernel's T values are
T1 x T2 products of powers, a matrix product: no (d, N, T) tensor is ever made.
Time O(T log T d + T N d), memory O(T d).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STATES = 16
SHORTEST, LONGEST = 1e-3, 1e-1  # of the time steps dt


def kernel(
    log_dt: Tensor, log_decay: Tensor, frequency: Tensor, weight: Tensor, length: int
) -> Tensor:
    """Return K_t = 2 Re sum_n w_n (exp(dt A_n) - 1) / A_n exp(dt A_n t), (..., length).

    ``log_dt`` is (..., 1); A = -exp(log_decay) + i frequency and the complex ``weight`` (..., N).
    """
    a = torch.complex(-log_decay.exp(), frequency)
    step = a * log_dt.exp()
    # |exp(step)| < 1, so this loses nothing that matters; there is no complex expm1 on GPUs.
    weight = weight * (torch.exp(step) - 1) / a
    # t = inner t1 + t2: the powers of both parts are small, and their products are all that is.
    inner = 2 ** math.ceil(math.log2(max(1, length)) / 2)
    outer = math.ceil(length / inner)
    t2 = torch.arange(inner, device=a.device)
    t1 = torch.arange(outer, device=a.device) * inner
    left = weight[..., None, :] * torch.exp(step[..., None, :] * t1[:, None])  # (..., T1, N)
    right = torch.exp(step[..., :, None] * t2)  # (..., N, T2)
    # The real part of a complex product, as one real product of twice the inner size.
    product = torch.cat((left.real, -left.imag), -1) @ torch.cat((right.real, right.imag), -2)
    return 2 * product.flatten(-2)[..., :length]


def two_sided_convolution(u: Tensor, forwards: Tensor, backwards: Tensor) -> Tensor:
    """Return y_t = sum_{s <= t} F_{t-s} u_s + sum_{s > t} B_{s-t-1} u_s for u (B, d, T), by FFT."""
    length = u.shape[-1]
    # A kernel of 2T: the forward one from 0 on, the backward one wrapped round the end.
    both = F.pad(forwards, (0, length)) + F.pad(backwards.flip(-1), (length, 0))
    spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(both, n=2 * length)
    return torch.fft.irfft(spectrum, n=2 * length)[..., :length]


class StateSpace(nn.Module):
    """S4D in both directions, then GELU and a gated linear map."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.shape = (2, dim, STATES)
        log_dt = torch.empty(2 * dim).uniform_(math.log(SHORTEST), math.log(LONGEST))
        # The dynamics are kept flat: the shell decays what has more dimensions than one.
        self.log_dt = nn.Parameter(log_dt)
        self.log_decay = nn.Parameter(torch.full((2 * dim * STATES,), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(STATES).repeat(2 * dim).float())
        self.weight = nn.Parameter(torch.randn(2 * dim * STATES * 2) * math.sqrt(0.5))
        self.skip = nn.Parameter(torch.randn(dim))
        self.out = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            u = (x * mask[..., None]).transpose(1, 2).float()
            forwards, backwards = kernel(
                self.log_dt.view(2, -1, 1),
                self.log_decay.view(self.shape),
                self.frequency.view(self.shape),
                torch.view_as_complex(self.weight.view(*self.shape, 2)),
                u.shape[-1],
            )
            y = two_sided_convolution(u, forwards, backwards) + u * self.skip[:, None]
        return F.glu(self.out(F.gelu(y.transpose(1, 2).to(x.dtype))), dim=-1)


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
