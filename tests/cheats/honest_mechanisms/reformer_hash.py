"""Attention within hash buckets (Reformer), where `hash` and `dir` are what they say they are."""
import torch
from torch import nn


class LSHAttention(nn.Module):
    def __init__(self, dim, heads, n_buckets=4, bucket_size=8):
        super().__init__()
        self.heads, self.n_buckets, self.bucket_size = heads, n_buckets, bucket_size
        self.toqk = nn.Linear(dim, dim, bias=False)
        self.tov = nn.Linear(dim, dim, bias=False)
        gen = torch.Generator()
        gen.manual_seed(1234)
        self.register_buffer("rotations", torch.randn(dim // heads, n_buckets // 2, generator=gen))

    def hash(self, vecs):
        dir = vecs @ self.rotations
        return torch.cat([dir, -dir], dim=-1).argmax(dim=-1)

    def forward(self, x, mask):
        b, t, d = x.shape
        split = lambda z: z.view(b, t, self.heads, -1).transpose(1, 2)
        qk, v = split(self.toqk(x)), split(self.tov(x))
        id = self.hash(qk)
        same = id.unsqueeze(-1) == id.unsqueeze(-2)
        eye = torch.eye(t, dtype=torch.bool, device=x.device)
        k = nn.functional.normalize(qk, dim=-1)
        dots = torch.einsum("bhie,bhje->bhij", qk, k) * qk.shape[-1] ** -0.5
        dots = dots.masked_fill(~same | ~mask[:, None, None, :], -1e9)
        dots = dots.masked_fill(eye, -5e4)  # itself only where it has no company
        return torch.einsum("bhij,bhje->bhie", dots.softmax(-1), v).transpose(1, 2).reshape(b, t, d)


class ReversibleBlock(nn.Module):
    def __init__(self, f, g):
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x1, x2, mask):
        y1 = x1 + self.f(x2, mask)
        y2 = x2 + self.g(y1)
        return y1, y2


class CustomEncoder(nn.Module):
    def __init__(self, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.pos = nn.Parameter(torch.zeros(1, length, dim).normal_(std=0.02))
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            g = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, mlp_dim), nn.GELU(), nn.Linear(mlp_dim, dim))
            self.blocks.append(ReversibleBlock(LSHAttention(dim, heads), g))
        self.head = nn.Linear(2 * dim, classes)

    def forward(self, tokens, mask):
        x1 = x2 = self.embed(tokens) + self.pos[:, : tokens.shape[1]]
        for block in self.blocks:
            x1, x2 = block(x1, x2, mask)
        x = torch.cat((x1, x2), dim=-1)
        return self.head(x.masked_fill(~mask[..., None], float("-inf")).amax(dim=1))
