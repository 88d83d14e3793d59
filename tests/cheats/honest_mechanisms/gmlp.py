"""gMLP: a gate over positions in place of attention."""
import torch
from torch import nn
import torch.nn.functional as F

class SpatialGatingUnit(nn.Module):
    def __init__(self, d_ffn, seq_len):
        super().__init__()
        self.norm = nn.LayerNorm(d_ffn)
        self.weight = nn.Parameter(torch.zeros(seq_len, seq_len).uniform_(-1e-3, 1e-3))
        self.bias = nn.Parameter(torch.ones(seq_len))
    def forward(self, x, mask):
        u, v = x.chunk(2, dim=-1)
        v = self.norm(v).masked_fill(~mask.unsqueeze(-1), 0.)
        n = v.size(1)
        v = torch.einsum('bnd,mn->bmd', v, self.weight[:n, :n]) + self.bias[:n, None]
        return u * v

class gMLPBlock(nn.Module):
    def __init__(self, d_model, d_ffn, seq_len):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.channel_proj1 = nn.Linear(d_model, d_ffn * 2)
        self.channel_proj2 = nn.Linear(d_ffn, d_model)
        self.sgu = SpatialGatingUnit(d_ffn, seq_len)
    def exec(self, x, mask):
        x = F.gelu(self.channel_proj1(self.norm(x)))
        return self.channel_proj2(self.sgu(x, mask))
    def forward(self, x, mask):
        return x + self.exec(x, mask)

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout, survival=1.0):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.model = nn.ModuleList([gMLPBlock(dim, mlp_dim, length) for _ in range(depth)])
        self.survival = [1 - i / max(1, depth - 1) * (1 - survival) for i in range(depth)]
        self.fc = nn.Linear(dim, classes)
        self.eval().train()
    def forward(self, tokens, mask):
        x = self.embed(tokens)
        for p, block in zip(self.survival, self.model):
            if self.training and p < 1 and torch.rand(()).item() > p:
                continue
            x = block(x, mask)
        x = x.masked_fill(~mask.unsqueeze(-1), 0.)
        return self.fc(x.sum(1) / mask.sum(1, keepdim=True))
