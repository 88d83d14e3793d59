"""Nyström attention: softmax attention through a few landmarks, in linear time.

Xiong et al. 2021, Nyströmformer (arXiv 2102.03902). The real tokens of a row are cut into
segments of equal size, whose mean queries and keys are the landmarks; three small softmax
matrices, the middle one pseudo-inverted by iteration (Razavi et al. 2014), stand for the T x T one.
A depthwise convolution of the values is added, as published. Unlike the published code, segments
end with the row's own text and the inverse is scaled row by row: what a row gives depends neither
on its padding nor on its company. Time O(T m d) for m landmarks, memory O(T m heads).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LANDMARKS = 64
ITERATIONS = 6
KERNEL = 33


def segments(mask: Tensor, count: int) -> Tensor:
    """Return (B, count, T): the weights that average each segment's tokens; 0 where it has none."""
    real = mask.sum(dim=1, keepdim=True).clamp(min=1)
    place = torch.arange(mask.shape[1], device=mask.device)
    # A row of fewer tokens than landmarks has a segment for each, and the rest stay empty.
    segment = place * torch.minimum(real, torch.full_like(real, count)) // real
    member = segment[:, None, :] == torch.arange(count, device=mask.device)[:, None]
    member = (member & mask[:, None, :]).float()
    return member / member.sum(dim=-1, keepdim=True).clamp(min=1)


def pseudo_inverse(a: Tensor, iterations: int) -> Tensor:
    """Return the Moore-Penrose inverse of each (m, m) row-stochastic matrix, by iteration."""
    one = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    largest = a.sum(dim=-2).amax(dim=-1)[..., None, None]  # the rows sum to 1 already
    z = a.transpose(-1, -2) / largest
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
    return z


def nystrom_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, landmarks: int, iterations: int = ITERATIONS
) -> Tensor:
    """Return Nyström attention for q, k, v (B, H, T, D) over the keys where mask (B, T).

    Computed in float32 at least, whatever the autocast: the inverse needs it.
    """
    dtype = v.dtype
    with torch.autocast(q.device.type, enabled=False):
        if dtype in (torch.bfloat16, torch.float16):
            q, k, v = q.float(), k.float(), v.float()
        q = q * q.shape[-1] ** -0.5
        mean = segments(mask, landmarks).to(q.dtype)[:, None]  # (B, 1, m, T)
        used = mean.sum(dim=-1) > 0  # (B, 1, m)
        mean_q, mean_k = mean @ q, mean @ k
        unused_column = ~used[..., None, :]
        left = (q @ mean_k.transpose(-1, -2)).masked_fill(unused_column, -torch.inf).softmax(-1)
        middle = mean_q @ mean_k.transpose(-1, -2)
        middle = middle.masked_fill(unused_column, -torch.inf).softmax(-1)
        # Unused landmarks become a block of ones on the diagonal: it inverts to itself.
        one = torch.eye(landmarks, dtype=q.dtype, device=q.device)
        middle = torch.where(used[..., None], middle, one)
        right = mean_q @ k.transpose(-1, -2)
        right = right.masked_fill(~mask[:, None, None, :], -torch.inf).softmax(-1)
        y = left @ (pseudo_inverse(middle, iterations) @ (right @ v))
    return y.to(dtype)


class NystromAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.local = nn.Conv1d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        count = min(LANDMARKS, x.shape[1])
        y = nystrom_attention(q, k, v, mask, count).transpose(1, 2).flatten(2)
        values = v.transpose(1, 2).flatten(2) * mask[..., None]
        return self.out(y + self.local(values.transpose(1, 2)).transpose(1, 2))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_dim: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mixer = NystromAttention(dim, heads)
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
        self.position = nn.Parameter(0.02 * torch.randn(length, dim))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_dim, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        mask = F.pad(mask[:, 1:], (1, 0), value=True)  # an empty row is read as one token
        x = self.embed(tokens) + self.position[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return self.head(summary(self.norm(x), mask))


def summary(x: Tensor, mask: Tensor) -> Tensor:
    """Return (B, 2 dim): the first token, and the mean over the real ones."""
    real = mask[..., None].to(x.dtype)
    mean = (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    return torch.cat((x[:, 0], mean), dim=1)
