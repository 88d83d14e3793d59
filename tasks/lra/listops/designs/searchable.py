"""Every choice of the random and TPE searches in one file; the harness rewrites the KNOBS line.

The mixers are softmax attention (2017), linear attention (2020), a gated depthwise convolution, and
a bidirectional recurrence with a learned decay per channel, computed as a convolution.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KNOBS = {"mixer": "softmax", "position": "learned", "pooling": "first", "ffn": "gelu", "norm": "layer", "kernel": 5, "shared": False, "init_scale": 0.1}  # fmt: skip  # noqa: E501

FIRST_OPERATOR, CLOSE = 11, 15


class Attention(nn.Module):
    """Softmax attention, O(T^2), or linear attention, O(T)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if KNOBS["mixer"] == "softmax":
            y = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :])
        else:
            q, k = F.elu(q) + 1, (F.elu(k) + 1) * mask[:, None, :, None]
            y = q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(dim=-2)[..., None] + 1e-6)
        return self.out(y.transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    """Gated depthwise convolution: a short kernel, or decaying ones as long as the sequence."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(dim, dim), nn.Linear(dim, dim)
        if KNOBS["mixer"] == "convolution":
            width = KNOBS["kernel"]
            self.short = nn.Conv1d(dim, dim, width, padding=width // 2, groups=dim)
        else:
            # Half-lives from about 1 to 100 tokens, for each of the two directions.
            self.log_rate = nn.Parameter(torch.empty(2, dim).uniform_(math.log(0.01), 0.0))
            self.weight = nn.Parameter(torch.randn(2, dim) / 4)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        u = (self.value(x) * mask[..., None]).transpose(1, 2)
        y = self.short(u) if KNOBS["mixer"] == "convolution" else self.recurrence(u)
        return self.out(y.transpose(1, 2) * F.silu(self.gate(x)))

    def recurrence(self, u: Tensor) -> Tensor:
        """Return y_t = sum_s w exp(-rate |t - s|) u_s, (B, dim, T), by FFT."""
        length = u.shape[-1]
        time = torch.arange(length, device=u.device)
        kernels = self.weight[..., None] * torch.exp(-self.log_rate.exp()[..., None] * time)
        kernel = F.pad(kernels[0], (0, length)) + F.pad(kernels[1].flip(-1), (length, 0))
        spectrum = torch.fft.rfft(u.float(), n=2 * length) * torch.fft.rfft(kernel)
        return torch.fft.irfft(spectrum, n=2 * length)[..., :length].to(u.dtype)


class FeedForward(nn.Module):
    def __init__(self, dim: int, mlp_dim: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, mlp_dim)
        self.gate = nn.Linear(dim, mlp_dim) if KNOBS["ffn"] == "swiglu" else None
        self.down = nn.Linear(mlp_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is not None:
            return self.down(self.up(x) * F.silu(self.gate(x)))
        return self.down(F.relu(self.up(x)) if KNOBS["ffn"] == "relu" else F.gelu(self.up(x)))


def make_norm(dim: int) -> nn.Module:
    return nn.LayerNorm(dim) if KNOBS["norm"] == "layer" else nn.RMSNorm(dim)


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        attends = KNOBS["mixer"] in ("softmax", "linear")
        self.mixer = Attention(dim, heads) if attends else Convolution(dim)
        self.mlp = FeedForward(dim, mlp_dim)
        self.norm1, self.norm2, self.drop = make_norm(dim), make_norm(dim), nn.Dropout(dropout)

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
        self.depth = depth
        self.embed = nn.Embedding(vocabulary, dim)
        nn.init.normal_(self.embed.weight, std=KNOBS["init_scale"])
        if KNOBS["position"] in ("learned", "bracket_depth"):
            self.position = nn.Parameter(KNOBS["init_scale"] * torch.randn(length, dim))
        elif KNOBS["position"] == "sinusoid":
            angle = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, dim, 2) / dim)
            table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1)
            self.register_buffer("position", KNOBS["init_scale"] * table)
        blocks = 1 if KNOBS["shared"] else depth
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_dim, dropout) for _ in range(blocks))
        self.norm = make_norm(dim)
        self.score = nn.Linear(dim, 1) if KNOBS["pooling"] == "attention" else None
        self.head = nn.Linear(dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embed(tokens)
        if KNOBS["position"] == "bracket_depth":
            opens = (tokens >= FIRST_OPERATOR) & (tokens < CLOSE)
            level = opens.long().cumsum(1) - (tokens == CLOSE).long().cumsum(1)
            x = x + self.position[level.clamp(0, len(self.position) - 1)]
        elif KNOBS["position"] != "none":
            x = x + self.position[: tokens.shape[1]]
        for i in range(self.depth):
            x = self.blocks[i % len(self.blocks)](x, mask)
        return self.head(self.pool(self.norm(x), mask))

    def pool(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, dim) from (B, T, dim)."""
        if KNOBS["pooling"] == "first":
            return x[:, 0]
        if KNOBS["pooling"] == "max":
            return x.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
        if self.score is None:
            return (x * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        weight = self.score(x).masked_fill(~mask[..., None], -torch.inf).softmax(dim=1)
        return (x * weight).sum(dim=1)
