"""Learned chunks (H-Net): boundaries by a straight-through step, mixed at two levels."""
import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional as F


class STE(Function):
    """Forward a hard decision, backward the slope of the probability."""

    @staticmethod
    def forward(ctx, p):
        ctx.save_for_backward(p)
        return (p > 0.5).type_as(p)

    @staticmethod
    def backward(ctx, grad_output):
        (p,) = ctx.saved_tensors
        return grad_output * torch.ones_like(p)


class Router(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.q, self.k = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        with torch.no_grad():
            for lin in (self.q, self.k):
                lin.weight.copy_(torch.eye(dim))

    def forward(self, x, mask):
        cos = F.cosine_similarity(self.q(x[:, :-1]), self.k(x[:, 1:]), dim=-1)
        p = F.pad((1 - cos) / 2, (1, 0), value=1.0) * mask
        return p, STE.apply(p)


class HNet(nn.Module):
    def __init__(self, dim, mlp_dim):
        super().__init__()
        self.router = Router(dim)
        self.inner = nn.GRU(dim, dim, batch_first=True)
        self.outer = nn.Sequential(nn.Linear(dim, mlp_dim), nn.SiLU(), nn.Linear(mlp_dim, dim))

    def forward(self, x, mask):
        p, b = self.router(x, mask)
        chunk = b.cumsum(1).long() - 1  # to which chunk each token belongs
        one_hot = F.one_hot(chunk.clamp(min=0), x.shape[1]).type_as(x) * mask[..., None]
        chunks = one_hot.mT @ x / one_hot.sum(1)[..., None].clamp(min=1)
        mixed, _ = self.inner(chunks)
        back = one_hot @ mixed
        return x + back * p[..., None] + self.outer(x) * b[..., None]


class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.levels = nn.ModuleList([HNet(dim, mlp_dim) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, tokens, mask):
        x = self.embed(tokens)
        for level in self.levels:
            x = level(self.norm(x), mask)
        return self.head((x * mask[..., None]).sum(1) / mask.sum(1)[:, None])
