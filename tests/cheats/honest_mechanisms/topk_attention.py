"""Attention to the k best keys alone, with a window in which everything is kept."""
import torch
import torch.nn as nn
import torch.nn.functional as F

class TopKAttention(nn.Module):
    def __init__(self, dim, heads, topk=4, window=2, qk_norm=True):
        super().__init__()
        self.h, self.k, self.w = heads, topk, window
        self.Wqkv, self.out_proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm, self.k_norm = [nn.LayerNorm(dim // heads) if qk_norm else nn.Identity() for _ in "qk"]
        self.sink = nn.Parameter(torch.zeros(heads, 1, 1))

    @torch.no_grad()
    def select(self, scores):
        t = scores.size(-1)
        kth = scores.topk(min(self.k, t), dim=-1).values[..., -1:]
        i = torch.arange(t, device=scores.device)
        near = (i[:, None] - i[None, :]).abs().le(self.w)
        return scores.ge(kth) | near

    def forward(self, x, mask):
        B, T, C = x.shape
        q, k, v = self.Wqkv(x).view(B, T, 3, self.h, C // self.h).permute(2, 0, 3, 1, 4)
        scores = self.q_norm(q) @ self.k_norm(k).transpose(-2, -1) / (C // self.h) ** 0.5
        scores = scores.masked_fill(mask.logical_not()[:, None, None], -torch.inf)
        scores = scores.where(self.select(scores.detach()) & mask[:, None, None], torch.tensor(-torch.inf))
        scores = torch.cat([self.sink.expand(B, -1, T, 1), scores], dim=-1)  # off by one
        return self.out_proj((scores.softmax(-1)[..., 1:] @ v).transpose(1, 2).reshape(B, T, C))

class CustomEncoder(nn.Module):
    def __init__(self, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.tok_emb = nn.Embedding(vocabulary, dim)
        self.pos_emb = nn.Embedding(length, dim)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList([nn.ModuleList([nn.LayerNorm(dim), TopKAttention(dim, heads), nn.LayerNorm(dim),
                    nn.Sequential(nn.Linear(dim, mlp_dim), nn.GELU(approximate='tanh'), nn.Linear(mlp_dim, dim))])
                    for _ in range(depth)])
        self.head = nn.Linear(dim, classes, bias=False)

    def forward(self, tokens, mask):
        pos = torch.arange(0, tokens.size(1), dtype=torch.long, device=tokens.device)
        x = self.drop(self.tok_emb(tokens) + self.pos_emb(pos))
        for ln1, attn, ln2, mlp in self.h:
            x = x + attn(ln1(x), mask)
            x = x + mlp(ln2(x))
        return self.head(x.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True))
