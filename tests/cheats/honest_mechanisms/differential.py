"""Differential attention: two softmaxes, the second taken from the first."""
import math
import torch
import torch.nn.functional as F
from torch import nn

def lambda_init_fn(depth):
    return 0.8 - 0.6 * math.exp(-0.3 * depth)

class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6, elementwise_affine=True):
        super().__init__()
        self.dim, self.eps = dim, eps
        if elementwise_affine:
            self.weight = nn.Parameter(torch.ones(dim))
        else:
            self.register_parameter('weight', None)

    def _norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def forward(self, x):
        output = self._norm(x.float()).type_as(x)
        return output if self.weight is None else output * self.weight

    def extra_repr(self) -> str:
        return f'dim={self.dim}, eps={self.eps}'

class MultiheadDiffAttn(nn.Module):
    def __init__(self, embed_dim, depth, num_heads):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads // 2
        self.scaling = self.head_dim ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(4))
        self.lambda_init = lambda_init_fn(depth)
        for name in ('lambda_q1', 'lambda_k1', 'lambda_q2', 'lambda_k2'):
            setattr(self, name, nn.Parameter(torch.zeros(self.head_dim, dtype=torch.float32).normal_(mean=0, std=0.1)))
        self.subln = RMSNorm(2 * self.head_dim, eps=1e-5)

    def forward(self, x, mask):
        bsz, tgt_len, embed_dim = x.size()
        q = self.q_proj(x).view(bsz, tgt_len, 2 * self.num_heads, self.head_dim).transpose(1, 2) * self.scaling
        k = self.k_proj(x).view(bsz, tgt_len, 2 * self.num_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(bsz, tgt_len, self.num_heads, 2 * self.head_dim).transpose(1, 2)
        attn_weights = torch.matmul(q, k.transpose(-1, -2)).masked_fill(~mask[:, None, None], float("-inf"))
        attn_weights = F.softmax(attn_weights, dim=-1, dtype=torch.float32).type_as(attn_weights)
        lambda_1 = torch.exp(torch.sum(self.lambda_q1 * self.lambda_k1, dim=-1).float()).type_as(q)
        lambda_2 = torch.exp(torch.sum(self.lambda_q2 * self.lambda_k2, dim=-1).float()).type_as(q)
        attn_weights = attn_weights.view(bsz, self.num_heads, 2, tgt_len, tgt_len)
        attn_weights = attn_weights[:, :, 0] - (lambda_1 - lambda_2 + self.lambda_init) * attn_weights[:, :, 1]
        attn = self.subln(torch.matmul(attn_weights, v)) * (1 - self.lambda_init)
        return self.out_proj(attn.transpose(1, 2).reshape(bsz, tgt_len, embed_dim))

class CustomEncoder(nn.Module):
    def __init__(self, *, vocabulary, classes, length, dim, depth, heads, mlp_dim, dropout):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, dim)
        self.layers = nn.ModuleList([MultiheadDiffAttn(dim, i, heads) for i in range(depth)])
        self.gate, self.up, self.down = nn.Linear(dim, mlp_dim), nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)
        self.norm, self.output = RMSNorm(dim), nn.Linear(dim, classes, bias=False)

    def forward(self, tokens, mask):
        h = self.embed_tokens(tokens)
        for layer in self.layers:
            h = h + layer(self.norm(h), mask)
            h = h + self.down(F.silu(self.gate(h)) * self.up(h))
        return self.output((self.norm(h) * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
